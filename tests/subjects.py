"""What the proof is run on: the Programs built in Python, and the cells that come with bptt."""

from __future__ import annotations

from functools import cache

from programs import PROGRAMS
from sweeps_of import FUNCTIONS

from bptt import cells
from bptt.ir.program import Program
from bptt.language.check import check

# Cells of every kind: what costs much is run on these. The rest of the library is proven, run on
# the backends and printed like them; see tests/cells.
CORE: tuple[str, ...] = (
    *("gomez", "shakespeare", "sancho", "iosif", "jimenez", "rnn", "lstm", "peephole", "lstmp"),
    *("gru", "gru_cho", "layernorm_lstm", "slstm", "ea_lstm", "qrnn"),
)
NAMES: tuple[str, ...] = (*PROGRAMS, *(f"{name}.cell" for name in CORE))
EVERY: tuple[str, ...] = (*PROGRAMS, *(f"{name}.cell" for name in cells.names()))

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
