"""What the proof is run on: the Programs built in Python, and the cells that come with bptt."""

from __future__ import annotations

from functools import cache

from programs import PROGRAMS
from sweeps_of import FUNCTIONS

from bptt import cells
from bptt.ir.program import Program
from bptt.language.check import check

CELLS: tuple[str, ...] = cells.names()
NAMES: tuple[str, ...] = (*PROGRAMS, *(f"{name}.cell" for name in CELLS))

# The layer drops a loss, so only here it needs a function: any smooth one of any two vectors.
_LOSSES = {"jimenez": {"f": "f(a, b) = sum(tanh(a))*sum(b**2)"}}


@cache
def load(name: str) -> Program:
    """The Program called `name`, a cell's with readout and loss."""
    if name in PROGRAMS:
        return PROGRAMS[name]()
    cell = name.removesuffix(".cell")
    bound = FUNCTIONS.get(cell, {}) | _LOSSES.get(cell, {})
    return check(cells.read(cell), functions=bound).program
