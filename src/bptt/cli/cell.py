"""A CELL on the command line: a name, a file, or `-` for standard input."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from bptt.cell import Cell
from bptt.cells.files import decoded, read
from bptt.errors import UserError
from bptt.language.tokens import Limits

if TYPE_CHECKING:
    _ParamType = click.ParamType[Cell]
else:  # click before 8.4 has no types for it
    _ParamType = click.ParamType


def text_of(given: str) -> tuple[str, str]:
    """The text that a CELL means, and its name. Raises UserError."""
    if given == "-":
        if sys.stdin is None:
            raise UserError("there is no standard input to read a cell from")
        found = sys.stdin.buffer.read(Limits().size + 1)
        return decoded(found, "standard input"), "cell"
    return read(given)


class _CellType(_ParamType):
    name = "cell"

    def convert(
        self, value: str | Cell, param: click.Parameter | None, ctx: click.Context | None
    ) -> Cell:
        if isinstance(value, Cell):
            return value
        text, name = text_of(value)
        return Cell(text, name=name)


CELL = _CellType()
