"""How fast it must be, as data: the table that every report is held against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bptt.bench.compare import MEMORY, Row
from bptt.bench.problems import STEPPER, TEXT
from bptt.bench.shapes import GRID, PRACTICE, Shape
from bptt.bench.uses import DENSE, LOOP, RAGGED, SAMPLES, STACKED

INFER, TRAIN = "infer", "train"
LSTM = ("lstm",)
LIKE_LSTM = ("peephole", "greff_cifg", "jimenez")  # about the LSTM's transcendentals
WRITTEN = ("peephole", "greff_cifg")  # variants that others can run too
OTHERS = ("eager", "jit", "compile", "jax")


class Must(NamedTuple):
    """`theirs / ours` must be at least `factor`, and `aim` is hoped for, at each of `shapes`.

    No cells, or no shapes: any.
    """

    cells: tuple[str, ...]
    against: tuple[str, ...]
    mode: str
    shapes: tuple[Shape, ...]
    factor: float
    aim: float | None = None

    def speaks_of(self, row: Row) -> bool:
        """Whether the row is held against it."""
        known = row.cell in self.cells or not self.cells
        there = row.shape in self.shapes or not self.shapes
        return known and there and row.against in self.against and row.mode == self.mode


class Verdict(NamedTuple):
    """A must at one row."""

    must: Must
    row: Row
    met: bool


def _wide(low: int, high: int) -> tuple[Shape, ...]:
    return tuple(s for s in GRID if low <= s.H <= high and s.T > 1)


_B1, _B16 = (GRID[0],), (GRID[1],)
_MIDDLE, _LARGE = _wide(128, 256), _wide(512, 1024)
_STEP = (PRACTICE["step"],)
_STOCK = ("nn.LSTM",)

MUSTS = (
    Must(LSTM, _STOCK, INFER, _B1, 2.0, 4.0),
    Must(LSTM, _STOCK, TRAIN, _B1, 1.5, 3.0),
    Must(LSTM, _STOCK, INFER, _B16, 1.5, 2.0),
    Must(LSTM, _STOCK, TRAIN, _B16, 1.2, 1.7),
    Must(LSTM, _STOCK, INFER, _MIDDLE, 1.15, 1.4),
    Must(LSTM, _STOCK, TRAIN, _MIDDLE, 1.05, 1.4),
    Must(LSTM, _STOCK, INFER, _LARGE, 1.0, 1.25),
    Must(LSTM, _STOCK, TRAIN, _LARGE, 1.0, 1.25),
    Must(LSTM, ("nn.LSTMCell",), INFER, _STEP, 1.3, 1.8),
    Must(LSTM, ("nn.LSTMCell",), STEPPER, _STEP, 1.8, 4.0),
    Must(LIKE_LSTM, ("our lstm",), INFER, GRID, 1 / 1.10, 1 / 1.03),
    Must(LIKE_LSTM, ("our lstm",), TRAIN, GRID, 1 / 1.10, 1 / 1.03),
    Must(WRITTEN, OTHERS, TRAIN, _wide(256, 1024), 1.4, 2.0),
    Must(WRITTEN, OTHERS, TRAIN, _wide(64, 64), 5.0, 10.0),
    Must(LSTM, _STOCK, MEMORY, _wide(64, 1024), 2.5, 5.0),
    Must(LSTM, _STOCK, TEXT, (), 1.1),
    Must((), ("our lstm",), TEXT, (), 1 / 1.10, 1 / 1.03),
    Must(LSTM, _STOCK, STACKED, (), 1.1),
    Must(LSTM, (DENSE,), RAGGED, (), 1 / 1.10),
    Must(LSTM, (LOOP, *_STOCK), SAMPLES, (), 5.0),
)


def verdicts(rows: Iterable[Row]) -> list[Verdict]:
    """Every must that one of the rows speaks to, in the order of the rows."""
    return [
        Verdict(must, row, row.ratio.median >= must.factor)
        for row in rows
        if row.ratio is not None
        for must in MUSTS
        if must.speaks_of(row)
    ]
