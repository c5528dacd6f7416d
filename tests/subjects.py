"""What the proof is run on: the cells that come with bptt, and the Programs built in Python."""

from __future__ import annotations

from functools import cache

from programs import PROGRAMS

from bptt.ir.program import Program

NAMES: tuple[str, ...] = tuple(PROGRAMS)


@cache
def load(name: str) -> Program:
    """The Program called `name`."""
    return PROGRAMS[name]()
