"""Whole updates of a language model, turn by turn with those of another run.

A run is handed in: a call of it is one update, and gives the loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bptt.bench.compare import Row, on_threads
from bptt.bench.machine import Watch
from bptt.bench.problems import TEXT
from bptt.bench.runner import Effort, rounds
from bptt.bench.shapes import Shape

Run = Callable[[], float]

FIRST = 12
"""Updates whose losses the gate looks at. A gradient that points elsewhere shows from the second
one on, that of a matrix within some three, of a bias within ten. Its size does not show, as Adam
takes none of it: that is what the gate of layers is for."""
LIMIT = 1e-4
"""How far losses may be apart, as a part of the loss. Two engines in float32 show 3e-7."""
TURN = 0.5
"""Seconds of a run's turn, at least."""


class Witness(NamedTuple):
    """A run that is timed, and one of the same numbers that some other code computes."""

    name: str
    run: Run
    other_name: str
    other: Run


class Race(NamedTuple):
    """Two runs of one recipe. `shape`: window, batch, width of a character, width of the cell."""

    cell: str
    against: str
    shape: Shape
    ours: Run
    theirs: Run
    witnesses: Sequence[Witness]
    backend: str


def race(make: Callable[[], Race], threads: int, effort: Effort) -> Row:
    """The row of a race on so many threads. A number is seconds an update.

    The runs are those that the gate looked at, and go on from there. Both do as many updates in
    a turn, and so read the same characters in it.
    """
    with on_threads(threads):
        found = make()
        steps = FIRST * found.shape.T
        at = (found.cell, found.shape, threads, TEXT, found.against)
        for witness in found.witnesses:
            why = apart(witness)
            if why:
                return Row(*at, why=why, red=True, judged=steps)
        runs = (found.ours, found.theirs)
        updates = math.ceil(TURN / min(map(_seconds, runs)))
        watch = Watch()
        times = rounds(runs, [updates] * len(runs), effort, lambda: math.nan)
        ours, theirs = zip(*(one.seconds for one in times), strict=True)
        return Row(*at, ours, theirs, judged=steps, backend=found.backend, foreign=watch.foreign())


def apart(witness: Witness) -> str:
    """Where the losses of a run and its witness part, or "" where they do not."""
    name, run, other_name, other = witness
    for update in range(1, FIRST + 1):
        loss, right = run(), other()
        if not abs(loss - right) <= LIMIT * abs(right):
            both = f"{loss:.6f} on {name} and {right:.6f} on {other_name}"
            return f"the loss of update {update} is {both}"
    return ""


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
