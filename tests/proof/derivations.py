"""Derivations as hand-written passes, and what their lines give, by an evaluator of its own."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hand_slips import Names
from hand_trees import inner_sum, parsed, parts, put
from printers.evaluate import Evaluator
from printers.test_people import LENGTH, cotangents, evaluated, everything, shown, subject
from tolerances import SAME_LINE

from bptt.cell import Cell
from bptt.ir.ports import At, inputs
from bptt.proof.exact import labels
from bptt.proof.sweeps import forward

Array = Any


@dataclass(frozen=True)
class Pass:
    """The derivation of a cell, a line an equation, and the cell's text before it."""

    cell: str
    lines: tuple[str, ...]

    def text(self, changed: dict[int, str] | None = None) -> str:
        """The whole text, some lines by their numbers written otherwise."""
        lines = [(changed or {}).get(k, line) for k, line in enumerate(self.lines)]
        return "\n".join([self.cell, "backward:", *lines])

    def number(self, row: int) -> int:
        """Which line stands in a row of the text."""
        return row - self.cell.count("\n") - 3


@cache
def derivation(name: str, by: str) -> Pass:
    rows: list[str] = []
    for row in shown(f"{name}.cell", by)[1].splitlines():
        text = row.partition("#")[0].rstrip()
        if text.startswith(" "):
            rows[-1] += " " + text.strip()
        elif text:
            left, right = text.split(" = ", 1)
            rows.append(f"{left.rstrip()} = {right}")
    return Pass(Cell.load(name).text.rstrip("\n"), tuple(rows))


class Exactly(Evaluator):
    """An evaluator for lines that read what is exact already, outside of time too."""

    def read(self, name: str, t: int) -> Array:
        if name in self.zeros and t >= self.length:
            return self.zeros[name]
        known = self.series[name]
        return known[t] if t in known else np.zeros_like(known[0])


@cache
def exact(
    name: str,
    by: str,
    seed: int = 0,
    *,
    zero: bool = False,
    sums: bool = False,
    elementwise: bool = False,
) -> Exactly:
    """All values and gradients of a cell in a random sample; initial states are `zero`, labels
    that sum to one, open functions of a vector `elementwise`."""
    rng = np.random.default_rng([seed, zero, sums])
    name = f"{name}.cell"
    p = subject(name)[1]
    with np.errstate(over="ignore"):
        sizes, drawn = everything(name, rng)
        given = {port: drawn[port] / 2 for port in inputs(p)}
        for port, array in given.items():
            if zero and port.at is At.START:
                given[port] = np.zeros_like(array)
            if sums and port.name in labels(p) and port.at is At.STEPS:
                given[port] = np.exp(array) / np.exp(array).sum(-1, keepdims=True)
        values = forward(p, given, sizes, LENGTH)
        direct = {} if p.loss else cotangents(p, values, rng)
        found, text = shown(name, by)
        ran = evaluated(text, found, subject(name)[0], sizes, values, direct, rng)
    slope = {"F_prime": _diagonal if elementwise else _full}
    return Exactly(LENGTH, ran.series, ran.constants, ran.zeros, ran.functions | slope)


def _diagonal(v: Array) -> Array:
    return np.diag(1 - np.tanh(v) ** 2)


def _full(v: Array) -> Array:
    """A Jacobian as good as any: lines are compared, and not what they give. Not symmetric."""
    return np.outer(np.sin(v), np.cos(2 * v)) + _diagonal(v)


def names(name: str, by: str) -> Names:
    known = exact(name, by)
    series = {n: np.shape(v[0]) for n, v in known.series.items() if 0 in v and "$" not in n}
    shaped = {n: np.shape(v) for n, v in known.constants.items() if not isinstance(v, int)}
    return Names(series, shaped)


def values(known: Evaluator, line: str) -> Array | None:
    """What a line gives, at every step if it has a time; None where it has no value."""
    left, right = line.split(" = ", 1)
    tree: ast.expr = parsed(right)
    every = left.endswith("[t]") or "[t" in ast.unparse(without_sums(tree))
    try:
        with np.errstate(all="ignore"):
            return np.array([known.value(tree, t) for t in (range(LENGTH) if every else [None])])
    except (ValueError, np.exceptions.AxisError):  # sizes do not fit
        return None


def without_sums(tree: ast.expr) -> ast.expr:
    sums = [e for e in parts(tree) if inner_sum(e) is not e]
    return put(tree, *((e, ast.Constant(0)) for e in sums))


def same(known: Evaluator, one: str, other: str) -> bool:
    """Whether two lines give the same."""
    a, b = values(known, one), values(known, other)
    if a is None or b is None or a.shape[1:] != b.shape[1:]:
        return False
    return bool(np.max(np.abs(a - b), initial=0) <= SAME_LINE * np.max(np.abs(b), initial=0))
