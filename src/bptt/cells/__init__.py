"""The library of cells: `*.cell` files, data and not code."""

from __future__ import annotations

from functools import cache
from importlib import resources

from bptt.errors import UserError
from bptt.language.near import did_you_mean


@cache
def names() -> tuple[str, ...]:
    """The names of all cells, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(f.removesuffix(".cell") for f in files if f.endswith(".cell")))


def read(name: str) -> str:
    """The text of a cell, as its file has it."""
    if name not in names():
        help = did_you_mean(name, names()) or f"there are {', '.join(names())}"
        raise UserError(f"unknown cell `{name}`", help=help)
    return resources.files(__name__).joinpath(f"{name}.cell").read_text(encoding="utf-8")
