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
    from bptt.calculus.derive import derive
    from bptt.calculus.rewrites import layer, with_outputs
    from bptt.calculus.schedule import schedule
    from bptt.printers.plan import show_plan

    sweep = layer(cell.lowered)
    pulled = derive(sweep)
    steps = {e.name for e in sweep.steps()}
    kept = [v.name for v in pulled.values if v.name in steps and v.name not in sweep.outputs]
    shown = schedule(pulled if backward else with_outputs(sweep, kept))
    click.echo(show_plan(shown, kept=() if backward else kept).rstrip("\n"))
