"""The runner: calls timed side by side, round by round, and what follows from the rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np

Call = Callable[[], Any]
Clock = Callable[[], float]

WARM_UP = 3  # calls: what compiles as it runs has compiled by then
AT_LEAST = 0.02
"""Seconds of one measurement: a thousand times what reading the clock or a task switch costs."""
FEWEST_ROUNDS = 3
"""However slow the sides are: two rounds have no middle one."""


class Round(NamedTuple):
    """Seconds a call of each side, and the peak (FLOP/s) that was measured in between."""

    seconds: tuple[float, ...]
    peak: float


class Spread(NamedTuple):
    """The median of n numbers and their quartiles."""

    median: float
    low: float
    high: float
    n: int


class Effort(NamedTuple):
    """How long to measure: `rounds` of them, or as many as begin within `seconds`."""

    rounds: int | None = None
    seconds: float = 5.0

    def enough(self, done: int, spent: float) -> bool:
        """Whether to stop after so many rounds and seconds."""
        if self.rounds is not None:
            return done >= self.rounds
        return done >= FEWEST_ROUNDS and spent >= self.seconds


def measure(
    calls: Sequence[Call],
    effort: Effort,
    peak: Callable[[], float],
    clock: Clock = time.perf_counter,
) -> list[Round]:
    """Time the calls against each other, in an order that is reversed every round.

    What disturbs the machine for longer than a round then disturbs every side, and what one side
    leaves behind for the next (a cache, a hot core) does not always help the same one.
    """
    repeats = [_repeats(call, clock) for call in calls]
    return rounds(calls, repeats, effort, peak, clock)


def rounds(
    calls: Sequence[Call],
    repeats: Sequence[int],
    effort: Effort,
    peak: Callable[[], float],
    clock: Clock = time.perf_counter,
) -> list[Round]:
    """The same with so many calls of each in a measurement, warm already."""
    order = list(range(len(calls)))
    found: list[Round] = []
    begun = clock()
    while not effort.enough(len(found), clock() - begun):
        seconds = [0.0] * len(calls)
        for k in order:
            seconds[k] = _timed(calls[k], repeats[k], clock) / repeats[k]
        found.append(Round(tuple(seconds), peak()))
        order.reverse()
    return found


def _repeats(call: Call, clock: Clock) -> int:
    """How many calls make a measurement, found after some to warm up."""
    for _ in range(WARM_UP):
        call()
    count = 1
    while (took := _timed(call, count, clock)) < AT_LEAST:
        # aims a little higher, and not too far: a first guess from one short call is rough
        count = min(10 * count, max(count + 1, ceil(1.2 * count * AT_LEAST / max(took, 1e-9))))
    return count


def _timed(call: Call, count: int, clock: Clock) -> float:
    start = clock()
    for _ in range(count):
        call()
    return clock() - start


def spread(numbers: Sequence[float]) -> Spread:
    """Median and quartiles, between neighbours where they fall between two."""
    low, median, high = np.percentile(numbers, (25, 50, 75))
    return Spread(float(median), float(low), float(high), len(numbers))
