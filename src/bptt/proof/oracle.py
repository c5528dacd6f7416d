"""The meaning of a Program: one sample, float64 (or complex), step by step, never optimised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from bptt.ir.dims import shape_of
from bptt.ir.ops import OPS, evaluate
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Equation, Kind, Node, Program, walk

Array = Any
Arrays = dict[Port, Array]


def run(
    p: Program,
    given: Mapping[Port, Array],
    sizes: Mapping[str, int],
    *,
    every: bool = False,
    branches: list[Array] | None = None,
    length: int | None = None,
) -> Arrays:
    """The output ports of `p` from its input ports; with `every`, all assigned names too.

    Series are [T, *dims], all else [*dims]. `branches` collects which side of its kinks every
    op was on, in order, at every step. `length` is T, for a program that reads no series.
    """
    missing = [port for port in inputs(p) if port not in given]
    assert not missing, f"no value for {missing}"
    lengths = {len(given[port]) for port in inputs(p) if port.at is At.STEPS}
    lengths |= set() if length is None else {length}
    assert len(lengths) == 1, f"series of lengths {lengths}"
    return _Run(p, given, sizes, lengths.pop(), branches).result(every)


# What reads nothing is the same at every step, and has a value whatever the sizes are.
_STILL = frozenset(("const", "size", "pattern", "fill", "neg"))


class _Line(NamedTuple):
    """An equation, and what to do for its right side, in order: of each node where in the line
    its arguments are, of one that reads nothing (None) its value."""

    equation: Equation
    nodes: tuple[tuple[Node | None, Any], ...]


_BySizes = dict[tuple[tuple[str, int], ...], tuple[_Line, ...]]
_known: WeakKeyDictionary[Program, _BySizes] = WeakKeyDictionary()


def _lines(p: Program, sizes: Mapping[str, int]) -> tuple[_Line, ...]:
    """The lines of `p`, found once for each choice of sizes."""
    known = _known.setdefault(p, {})
    key = tuple(sizes.items())
    if key not in known:
        known[key] = tuple(_line(e, sizes) for e in p.equations)
    return known[key]


def _line(e: Equation, sizes: Mapping[str, int]) -> _Line:
    still: dict[Node, Array] = {}
    order = walk(e.rhs)
    for n in order[:-1]:  # the whole is handed on, so each run makes its own
        if n.op in _STILL and all(a in still for a in n.args):
            still[n] = evaluate(n, [still[a] for a in n.args], sizes)
    read = {a for n in order if n not in still for a in n.args}
    at: dict[Node, int] = {}
    nodes: list[tuple[Node | None, Any]] = []
    for n in order:
        if n in still and n not in read:
            continue
        nodes.append((None, still[n]) if n in still else (n, tuple(at[a] for a in n.args)))
        at[n] = len(at)
    return _Line(e, tuple(nodes))


class _Run:
    def __init__(
        self,
        p: Program,
        given: Mapping[Port, Array],
        sizes: Mapping[str, int],
        length: int,
        branches: list[Array] | None,
    ) -> None:
        self.p, self.sizes, self.length, self.branches = p, sizes, length, branches
        complex_ = any(np.iscomplexobj(a) for a in given.values())
        self.dtype = np.complex128 if complex_ else np.float64
        self.at: dict[tuple[str, int], Array] = {}  # (name, t) of a series
        self.constant: dict[str, Array] = {}
        for port, array in given.items():
            array = np.asarray(array, self.dtype)
            match port.at:
                case At.CONST | At.STATIC:
                    self.constant[port.name] = array
                case At.STEPS:
                    self.at.update({(port.name, t): array[t] for t in range(length)})
                case At.FIRST:
                    self.at[port.name, -1] = array
                case At.LAST:
                    self.at[port.name, length] = array
                case At.START:
                    self.at[port.name, -1 if p.dir > 0 else length] = array
                case At.FINAL:
                    raise AssertionError("a final state is not an input")
        late, lines = p.late(), _lines(p, sizes)
        for line in lines:
            e = line.equation
            if e.kind is Kind.SUM:
                self.constant[e.name] = np.zeros(shape_of(e.rhs.dims, sizes), self.dtype)
            elif e.kind is Kind.ONCE and e.name not in late:
                self.constant[e.name] = self.value(line, 0)
        for t in self.order():
            for line in lines:
                if line.equation.kind is Kind.STEP:
                    self.at[line.equation.name, t] = self.value(line, t)
        for t in self.order():  # by now there is what a sum reads a step ahead of it
            for line in lines:
                e = line.equation
                if e.kind is Kind.SUM:
                    self.constant[e.name] = self.constant[e.name] + self.value(line, t)
        for line in lines:
            e = line.equation
            if e.kind is Kind.ONCE and e.name in late:
                self.constant[e.name] = self.value(line, 0)

    def order(self) -> range:
        return range(self.length) if self.p.dir > 0 else range(self.length - 1, -1, -1)

    def value(self, line: _Line, t: int) -> Array:
        known, constants, sides = self.at, self.constant, self.branches
        found: list[Array] = []
        for n, at in line.nodes:
            if n is None:
                found.append(at)
                continue
            if n.op == "ref":
                name, lag = n.attr
                constant = constants.get(name)
                found.append(known[name, t - self.p.dir * lag] if constant is None else constant)
                continue
            args = [found[k] for k in at]
            found.append(evaluate(n, args, self.sizes))
            if sides is not None and (branch := OPS[n.op].branch) is not None:
                sides.append(np.ravel(branch(*args)))
        return found[-1]

    def series(self, name: str) -> Array:
        shape = (self.length, *shape_of(self.p.dims(name), self.sizes))
        values = [self.at[name, t] for t in range(self.length)]
        return np.array(values, self.dtype).reshape(shape)

    def emitted(self, port: Port) -> Array:
        """The adjoint of a given: what each step adds to it, at the time it adds it to."""
        shape = shape_of(self.p.dims(port.name), self.sizes)
        times = {At.STEPS: range(self.length), At.FIRST: [-1], At.LAST: [self.length]}
        found = {t: np.zeros(shape, self.dtype) for t in times.get(port.at, [0])}
        for e in self.p.emits:
            if e.value == port.name:
                for t in range(self.length):
                    to = 0 if port.at is At.STATIC else t - self.p.dir * e.lag
                    if to in found:
                        found[to] = found[to] + self.at[e.name, t]
        values = [found[t] for t in found]
        if port.at is At.STEPS:
            return np.array(values, self.dtype).reshape(self.length, *shape)
        return values[0]

    def result(self, every: bool) -> Arrays:
        p = self.p
        last = self.length - 1 if p.dir > 0 else 0
        start = -1 if p.dir > 0 else self.length
        out: Arrays = {}
        for port in outputs(p):
            if port.adjoint:
                out[port] = self.emitted(port)
            elif port.at is At.FINAL:
                out[port] = self.at[port.name, last if self.length else start]
            elif port.at is At.STEPS:
                out[port] = self.series(port.name)
            else:
                out[port] = self.constant[port.name]
        if every:
            for e in p.equations:
                if e.kind is Kind.STEP:
                    out[Port(e.name, At.STEPS)] = self.series(e.name)
                else:
                    out[Port(e.name, At.CONST)] = self.constant[e.name]
        return out
