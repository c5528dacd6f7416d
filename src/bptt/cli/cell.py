"""A CELL on the command line: a name, a file, or `-` for standard input."""

from __future__ import annotations

import sys

import click

from bptt.cell import Cell, decoded, read
from bptt.language.tokens import Limits


def text_of(given: str) -> tuple[str, str]:
    """The text that a CELL means, and its name. Raises UserError."""
    if given == "-":
        found = sys.stdin.buffer.read(Limits().size + 1)
        return decoded(found, "standard input"), "cell"
    return read(given)


class _CellType(click.ParamType[Cell]):
    name = "cell"

    def convert(
        self, value: str | Cell, param: click.Parameter | None, ctx: click.Context | None
    ) -> Cell:
        if isinstance(value, Cell):
            return value
        text, name = text_of(value)
        return Cell(text, name=name)


CELL = _CellType()
