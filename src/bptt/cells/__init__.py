"""The library of cells: `*.cell` files, data and not code; `*.toml` has values of an example."""

from __future__ import annotations

import os
from functools import cache

from bptt.errors import UserError
from bptt.language.head import About
from bptt.language.head import about as about_text
from bptt.language.near import did_you_mean

# os.path and not pathlib or importlib.resources: they would cost `import bptt` ten milliseconds
_FOLDER = os.path.dirname(__file__)

# Every cell belongs to one of these; lists of cells have them in this order.
FAMILIES = {
    "documents": "the five documents that bptt grew from",
    "simple": "one nonlinearity: Elman and its kin",
    "lstm": "LSTMs: memory behind gates",
    "greff": "the vanilla LSTM and its eight variants (Greff et al. 2017)",
    "gru": "GRUs and other gated units with one state",
    "parallel": "gates that read only the input: linear or elementwise in the state",
    "dynamics": "differential equations in steps, memories, oscillators",
    "norm": "normalised and regularised cells",
    "inputs": "cells with further inputs: static attributes, time gaps, masks",
    "composed": "several matrices, depths or networks in one cell",
}


@cache
def names() -> tuple[str, ...]:
    """The names of all cells, sorted."""
    files = os.listdir(_FOLDER)
    return tuple(sorted(f.removesuffix(".cell") for f in files if f.endswith(".cell")))


def read(name: str) -> str:
    """The text of a cell, as its file has it."""
    if name not in names():
        help = did_you_mean(name, names()) or "`bptt cells` lists them"
        raise UserError(f"unknown cell `{name}`", help=help)
    with open(os.path.join(_FOLDER, f"{name}.cell"), encoding="utf-8") as file:
        return file.read()


def example(name: str) -> str | None:
    """The values that a cell was published with, as a file of values has them, if it was."""
    path = os.path.join(_FOLDER, f"{name}.toml")
    if name not in names() or not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def about(name: str) -> About:
    """What the comments at the head of a cell say of it."""
    return about_text(read(name))


def families() -> dict[str, tuple[str, ...]]:
    """The names of the cells of each family that has one, in the order of `FAMILIES`.

    A cell that names no family, or one that there is not, stands at the end, under "".
    """
    found: dict[str, list[str]] = {family: [] for family in (*FAMILIES, "")}
    for name in names():
        family = about(name).family
        found[family if family in FAMILIES else ""].append(name)
    return {family: tuple(members) for family, members in found.items() if members}
