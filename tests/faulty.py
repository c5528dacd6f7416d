"""Sides of a comparison that are wrong on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bptt.bench.problems import Array, How, Pairs, Problem, Raw
from bptt.bench.sides import Ready, Side


def faulty(of: Side, name: str, factor: float) -> Side:
    """A side whose tensor `name` is off by a factor in its largest entry."""

    def prepare(problem: Problem, how: How) -> Ready:
        ready = of.prepare(problem, how)

        def pairs(raw: Raw) -> Pairs:
            return [(n, scaled(a, factor) if n == name else a) for n, a in ready.pairs(raw)]

        return replace(ready, pairs=pairs)

    return replace(of, prepare=prepare)


def scaled(array: Array, factor: float) -> Array:
    wrong = array.copy()
    wrong[np.unravel_index(np.abs(array).argmax(), array.shape)] *= factor
    return wrong
