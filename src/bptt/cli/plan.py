"""`bptt plan`: what of a cell runs where, phase by phase."""

from __future__ import annotations

import click

from bptt.cell import Cell
from bptt.cli.cell import CELL


@click.command()
@click.argument("cell", type=CELL)
@click.option("--backward", is_flag=True, help="The plan of the backward pass.")
def plan(cell: Cell, backward: bool) -> None:
    """Show what of CELL, as a layer in training, runs before, in and after the loop over time."""
    from bptt.printers.plan import show_plan

    found = cell.plans()
    shown = show_plan(found.backward) if backward else show_plan(found.forward, found.kept)
    click.echo(shown.rstrip("\n"))
