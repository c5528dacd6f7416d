"""The sizes at which layers are compared."""

from __future__ import annotations

import re
from typing import NamedTuple

from bptt.errors import UserError
from bptt.language.near import did_you_mean


class Shape(NamedTuple):
    """T steps, B sequences, inputs I wide, a state H wide."""

    T: int
    B: int
    I: int  # noqa: E741
    H: int

    @property
    def name(self) -> str:
        """How it is called: a name from practice, or its numbers, `100x16x64x64`."""
        return next((name for name, shape in PRACTICE.items() if shape == self), self.numbers)

    @property
    def numbers(self) -> str:
        """`100x16x64x64`."""
        return "x".join(map(str, self))


PRACTICE = {
    "hydrology": Shape(365, 256, 16, 64),
    "audio": Shape(2048, 1, 1, 32),
    "finance": Shape(30, 64, 32, 128),
    "step": Shape(1, 1, 256, 256),
}
GRID = (
    Shape(100, 1, 64, 64),
    Shape(100, 16, 64, 64),
    Shape(100, 64, 128, 128),
    Shape(64, 32, 256, 256),
    Shape(100, 32, 512, 512),
    Shape(35, 20, 650, 650),
    Shape(50, 64, 1024, 1024),
    *PRACTICE.values(),
)
QUICK = (GRID[0], GRID[1], PRACTICE["step"])


def shape_called(text: str) -> Shape:
    """The shape of a name, or of four numbers: `100x16x64x64` is T, B, I, H. Raises UserError."""
    if text in PRACTICE:
        return PRACTICE[text]
    numbers = [int(n) for n in re.findall(r"[0-9]+", text)]
    if re.fullmatch(r"[0-9]{1,9}([x,][0-9]{1,9}){3}", text) is None or 0 in numbers:
        help = did_you_mean(text, PRACTICE) or (
            f"write steps, batch, input and width, `100x16x64x64`, or one of {', '.join(PRACTICE)}"
        )
        raise UserError(f"`{text}` is no shape", help=help)
    return Shape(*numbers)
