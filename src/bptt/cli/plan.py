"""`bptt plan`: what of a cell runs where, phase by phase."""

from __future__ import annotations

import click

from bptt.cell import Cell
from bptt.cli.cell import CELL


@click.command()
@click.argument("cell", type=CELL)
@click.option("--backward", is_flag=True, help="The plan of the backward pass.")
def plan(cell: Cell, backward: bool) -> None:
    """Show what of CELL, as a layer, runs before, in, behind and after the loop over time."""
    from bptt.calculus.derive import derive
    from bptt.calculus.rewrites import layer
    from bptt.calculus.schedule import schedule
    from bptt.printers.plan import show_plan

    sweep = layer(cell.lowered)
    click.echo(show_plan(schedule(derive(sweep) if backward else sweep)).rstrip("\n"))
