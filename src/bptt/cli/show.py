"""`bptt show`: the text of a cell, so that `bptt show lstm > mine.cell` starts one's own."""

from __future__ import annotations

import click

from bptt.cli.cell import text_of


@click.command()
@click.argument("cell")
def show(cell: str) -> None:
    """Show the text of CELL, verbatim."""
    text, _ = text_of(cell)
    click.echo(text, nl=False)
