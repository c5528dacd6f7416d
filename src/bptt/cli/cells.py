"""`bptt cells`: what comes with bptt, a line each."""

from __future__ import annotations

import click

from bptt import cells as library


@click.command()
def cells() -> None:
    """List the cells that come with bptt."""
    names = library.names()
    width = max(map(len, names))
    for name in names:
        click.echo(f"{name:<{width}}  {_described(library.read(name))}".rstrip())


def _described(text: str) -> str:
    """The first comment of a cell's text."""
    lines = (line.strip() for line in text.splitlines())
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")
