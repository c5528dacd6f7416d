"""`bptt derive`: the backward pass of a cell, as a careful person would write it."""

from __future__ import annotations

import click

from bptt.calculus.readable import By
from bptt.cell import Cell, Format
from bptt.cli.cell import CELL


@click.command()
@click.argument("cell", type=CELL)
@click.option(
    "--by",
    type=click.Choice(["preactivations", "gates"]),
    default="preactivations",
    show_default=True,
    help="Gradients by the arguments of the gates' functions, or by the gates themselves.",
)
@click.option(
    "--format",
    type=click.Choice(["text", "latex", "md"]),
    default="text",
    show_default=True,
    help="LaTeX is a fragment for a paper, md a page of Markdown.",
)
def derive(cell: Cell, by: By, format: Format) -> None:
    """Derive the backward pass of CELL.

    It is the gradient of the loss, if the cell has one; otherwise of whatever its outputs and
    states lead to outside. Functions that the cell leaves open keep their names: f becomes f'.
    """
    click.echo(cell.derivation(by, format), nl=False)
