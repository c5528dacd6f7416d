"""The library of cells: `*.cell` files, data and not code."""

from __future__ import annotations

import os
from functools import cache

from bptt.errors import UserError
from bptt.language.near import did_you_mean

# os.path and not pathlib or importlib.resources: they would cost `import bptt` ten milliseconds
_FOLDER = os.path.dirname(__file__)


@cache
def names() -> tuple[str, ...]:
    """The names of all cells, sorted."""
    files = os.listdir(_FOLDER)
    return tuple(sorted(f.removesuffix(".cell") for f in files if f.endswith(".cell")))


def read(name: str) -> str:
    """The text of a cell, as its file has it."""
    if name not in names():
        help = did_you_mean(name, names()) or f"there are {', '.join(names())}"
        raise UserError(f"unknown cell `{name}`", help=help)
    with open(os.path.join(_FOLDER, f"{name}.cell"), encoding="utf-8") as file:
        return file.read()
