"""Time laid out in rows: step t's rows stand behind those of step t-1, dense or ragged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Array = Any


class Time:
    """`counts[t]` sequences are still running at step t, sorted so that they are the first ones.

    A series is [..., N, w] with N the sum of `counts`; a value a sequence is [..., B, w].
    """

    def __init__(self, x: Any, counts: Sequence[int], batch: int) -> None:
        self.x, self.counts, self.batch = x, list(counts), batch
        self.total_rows = sum(self.counts)

    def steps(self, series: Array) -> list[Array]:
        """The rows of each step, as views."""
        return self.x.split(series, self.counts) if self.counts else []

    def shift(self, series: Array, edge: Array, offset: int) -> Array:
        """The series at t + offset (-1 or 1) for each t; beyond a sequence's ends, `edge`."""
        if not self.total_rows:
            return series
        steps = self.steps(series)
        found: list[Array] = []
        for t, n in enumerate(self.counts):
            if offset < 0:
                found.append(steps[t - 1][..., :n, :] if t else edge[..., :n, :])
                continue
            inside = self.counts[t + 1] if t + 1 < len(self.counts) else 0
            if inside:
                found.append(steps[t + 1])
            if inside < n:
                found.append(edge[..., inside:n, :])
        return self.x.rows(found)

    def first(self, series: Array, empty: Array) -> Array:
        """Each sequence's value at its first step; `empty` where there is no step."""
        if not self.counts:
            return empty
        n = self.counts[0]
        found = series[..., :n, :]
        return found if n == self.batch else self.x.rows([found, empty[..., n:, :]])

    def last(self, series: Array, empty: Array) -> Array:
        """Each sequence's value at its last step; `empty` where there is no step."""
        if not self.total_rows:
            return empty
        steps, done, found = self.steps(series), 0, list[Array]()
        for t in range(len(self.counts) - 1, -1, -1):
            if self.counts[t] > done:
                found.append(steps[t][..., done : self.counts[t], :])
                done = self.counts[t]
        if done < self.batch:
            found.append(empty[..., done:, :])
        return self.x.rows(found)

    def spread(self, a: Array) -> Array:
        """A value a sequence as a series."""
        found = [a[..., :n, :] for n in self.counts]
        return self.x.rows(found) if found else a[..., :0, :]

    def total(self, series: Array, like: Array) -> Array:
        """The sum over time for each sequence."""
        out = self.x.zeros(tuple(like.shape), like)
        for n, step in zip(self.counts, self.steps(series), strict=True):
            out[..., :n, :] += step
        return out

    def impulse(self, start: Array, zero: Array, forward: bool) -> list[Array]:
        """A state that is its start at a sequence's first running step, and zero after it."""
        found: list[Array] = []
        before = 0
        order = range(len(self.counts)) if forward else range(len(self.counts) - 1, -1, -1)
        for t in order:
            n = self.counts[t]
            if before == 0:
                found.append(start[..., :n, :])
            elif n > before:
                old = self.x.spread(zero, (*start.shape[:-2], before), start.shape[-1])
                found.append(self.x.rows([old, start[..., before:n, :]]))
            else:
                found.append(zero)
            before = n
        return found if forward else found[::-1]
