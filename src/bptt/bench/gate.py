"""The gate: no number is taken of a side whose results are wrong."""

from __future__ import annotations

from math import inf, isfinite

import numpy as np

from bptt.bench.problems import Array, How, Pairs, Problem
from bptt.bench.sides import Ready, Side

LIMIT = 1e-4
"""The largest error that passes, as a part of the tensor's largest entry. Float32 shows 1e-6 or
less, and 2e-5 in nn.LSTM's bias gradients of 93,000 rows (hydrology), which it adds one by one. A
gradient that is wrong by 0.1 % is ten times above."""
ZERO = 1e-9
"""A tensor below this part of the largest entry of any is zero, but for the rounding in float64 of
terms that cancel. In float32 that rounding is larger than all of its entries."""


def verdict(side: Side, problem: Problem, how: How, truth: Pairs) -> str:
    """Why the results of `side` are wrong, or "" where they are right. Raises Unavailable.

    `truth` is of the same Problem and mode: every tensor of it must be there, and no other.
    """
    return compared(_results(side.prepare(problem, how)), truth)


def _results(ready: Ready) -> Pairs:
    """What a side gives in as many calls as its results take: all outputs, the last of all else."""
    each = [ready.pairs(ready.call()) for _ in range(ready.calls)]
    outputs = [array for found in each for name, array in found if name == "output"]
    rest = [(name, array) for name, array in each[-1] if name != "output"]
    return [("output", np.concatenate(outputs)), *rest] if outputs else rest


def compared(found: Pairs, truth: Pairs) -> str:
    """The same for results that are there. A tensor may be given twice: then both must be right."""
    right = dict(truth)
    missing = right.keys() - {name for name, _ in found}
    if missing:
        return f"there is no {min(missing)}"
    for name, array in found:
        if name not in right:
            return f"{name} is not asked for"
        if array.shape != right[name].shape:
            return f"{name} has the shape {array.shape}, not {right[name].shape}"
    top = max(_top(array) for array in right.values())
    error, name = max((_error(array, right[name], top), name) for name, array in found)
    if error <= LIMIT:
        return ""
    return f"{name} is off by {error:.1e} of its largest entry, and {LIMIT:.0e} is allowed"


def _error(found: Array, right: Array, top: float) -> float:
    """The largest error as a part of the largest entry; infinite where it is no number.

    Where the right values are zero, it is a part of `top`, the largest entry of all tensors.
    """
    error = _top(found - right)
    scale = _top(right) if _top(right) > ZERO * top else top
    return error / scale if isfinite(error) and scale else (0.0 if error == 0.0 else inf)


def _top(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))
