"""Awkward shapes, and random arrays for the ports of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt.ir.dims import shape_of, terms
from bptt.ir.ops import evaluate
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Kind, Node, Program, walk
from bptt.proof import oracle

Array = Any


@dataclass(frozen=True)
class Shape:
    """A run's shape: steps, sequences, groups, sizes; `lengths` where sequences differ."""

    steps: int
    batch: int
    sizes: tuple[int, int, int] = (3, 5, 2)
    groups: int = 1
    lengths: tuple[int, ...] = ()

    def __str__(self) -> str:
        h, x, other = self.sizes
        ragged = "-ragged" + "".join(map(str, self.lengths)) if self.lengths else ""
        return f"T{self.steps}-B{self.batch}-H{h}-X{x}-P{other}-G{self.groups}{ragged}"

    def batch_sizes(self) -> list[int] | None:
        """How many sequences run at each step, or None where all do."""
        if not self.lengths:
            return None
        return [sum(n > t for n in self.lengths) for t in range(self.steps)]


GRID = (
    Shape(1, 1, (1, 1, 1)),
    Shape(1, 2),
    Shape(2, 3, (5, 7, 3)),
    Shape(7, 1, (3, 2, 11)),
    Shape(4, 3, (2, 3, 5), groups=2),
    Shape(3, 0),
    Shape(0, 2),
    Shape(4, 3, lengths=(4, 4, 1)),
    Shape(3, 3, lengths=(3, 1, 0)),
    Shape(5, 4, (3, 1, 2), groups=3, lengths=(5, 3, 3, 2)),
)


def sizes_of(p: Program, shape: Shape) -> dict[str, int]:
    """A size for each name of `p`: H and X as the shape says, all others its third one."""
    names = {s for v in p.values for d in v.dims for s in terms(d) if s}
    names |= {s for e in p.equations for d in e.rhs.dims for s in terms(d) if s}
    h, x, other = shape.sizes
    return {s: {"H": h, "X": x}.get(s, other) for s in names}


def draw(p: Program, shape: Shape, rng: np.random.Generator) -> dict[Port, Array]:
    """Random values of p's inputs; about half of the constants are shared by all groups."""
    sizes, found = sizes_of(p, shape), dict[Port, Array]()
    for port in inputs(p):
        dims = shape_of(p.dims(port.name), sizes)
        if port.at is At.CONST:
            lead: tuple[int, ...] = (1 if rng.random() < 0.5 else shape.groups,)
        elif port.at is At.STEPS:
            lead, dims = (shape.groups, shape.steps, shape.batch), dims or (1,)
        else:
            lead, dims = (shape.groups, shape.batch), dims or (1,)
        # positive and not small: what a saved root or variance must be
        found[port] = rng.uniform(0.2, 0.9, size=(*lead, *dims))
    return found


def packed(a: Array, counts: Sequence[int]) -> Array:
    """[G, T, B, w] as [G, N, w]."""
    pieces = [a[:, t, :n] for t, n in enumerate(counts)]
    return np.concatenate(pieces, 1) if pieces else a[:, 0, :0]


def expected(p: Program, shape: Shape, given: Mapping[Port, Array]) -> dict[Port, Array]:
    """What the oracle gives for every sequence and group, laid out as a backend does."""
    sizes, found = sizes_of(p, shape), dict[Port, list[list[Array]]]()
    lengths = shape.lengths or (shape.steps,) * shape.batch
    sums = [Port(e.name, At.CONST) for e in p.equations if e.kind is Kind.SUM]
    for g in range(shape.groups):
        totals: dict[Port, Array] = {}
        for b in range(shape.batch):
            sample = {
                port: _sample(p, port, a[min(g, a.shape[0] - 1)], b, lengths[b])
                for port, a in given.items()
            }
            every = oracle.run(p, sample, sizes, every=True)
            for port in outputs(p):
                found.setdefault(port, [[] for _ in range(shape.groups)])[g].append(every[port])
            for port in sums:
                totals[port] = totals.get(port, 0.0) + every[port]
            if b == shape.batch - 1:
                behind = _behind(p, every, sample, totals, sizes)
                for port in (port for port in found if port.name in behind):
                    found[port][g] = [behind[port.name]]
    return {port: _laid_out(p, port, groups, shape) for port, groups in found.items()}


def _behind(
    p: Program,
    every: Mapping[Port, Array],
    sample: Mapping[Port, Array],
    totals: Mapping[Port, Array],
    sizes: Mapping[str, int],
) -> dict[str, Array]:
    """The sums over all sequences, and what is computed from them: not the sum of such."""
    known = {port.name: a for port, a in {**sample, **every, **totals}.items()}
    late = p.late()
    for e in p.equations:
        if e.kind is Kind.ONCE and e.name in late:
            values: dict[Node, Array] = {}
            for n in walk(e.rhs):
                args = [values[a] for a in n.args]
                values[n] = known[n.attr[0]] if n.op == "ref" else evaluate(n, args, sizes)
            known[e.name] = values[e.rhs]
    return {name: known[name] for name in late}


def _sample(p: Program, port: Port, a: Array, b: int, length: int) -> Array:
    if port.at is At.CONST:
        return a
    value = a[:length, b] if port.at is At.STEPS else a[b]
    return value if p.dims(port.name) else value[..., 0]


def _laid_out(p: Program, port: Port, groups: list[list[Array]], shape: Shape) -> Array:
    if port.at is At.CONST:
        return np.stack([g[0] for g in groups])
    column = () if p.dims(port.name) else (1,)
    if port.at is not At.STEPS:
        return np.stack([np.stack([v.reshape(v.shape + column) for v in g]) for g in groups])
    counts = shape.batch_sizes()
    if counts is None:
        return np.stack([np.stack([v.reshape(v.shape + column) for v in g], 1) for g in groups])
    rows = [
        np.concatenate(
            [
                np.stack([v[t].reshape(v[t].shape + column) for v in g[:n]])
                for t, n in enumerate(counts)
            ]
        )
        for g in groups
    ]
    return np.stack(rows)
