"""The hand-written driver of the plain backend: it walks a Plan's generated functions over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from bptt.backends.arrays import table
from bptt.backends.reference.code import Code, Function, code, constant_alias
from bptt.backends.reference.panels import Constants
from bptt.backends.reference.time import Time
from bptt.backends.rows import check_rows
from bptt.backends.shapes import layout, solve_sizes
from bptt.errors import UserError
from bptt.ir.dims import shape_of
from bptt.ir.ops import number
from bptt.ir.plan import TimeGemm
from bptt.ir.ports import At, Port
from bptt.ir.program import Node, Program

Array = Any


def execute(
    p: Program, arrays: Sequence[Array], batch_sizes: Sequence[int] | None = None
) -> list[Array]:
    """Run `p`: arrays in the order of `ports.inputs(p)`, results in that of `ports.outputs(p)`.

    Series are [G, T, B, w], or [G, N, w] where `batch_sizes` gives the number of sequences
    that run at each step (sorted: they are the first ones); constants [G or 1, *dims]; what
    there is one of a sequence [G, B, w]. A number has w = 1. NumPy arrays or torch tensors.
    Raises UserError where shapes do not fit.
    """
    return _Run(code(p), arrays, batch_sizes).results()


class _Run:
    def __init__(self, c: Code, arrays: Sequence[Array], batch_sizes: Sequence[int] | None) -> None:
        self.c, self.plan, self.p = c, c.plan, c.plan.program
        if len(arrays) != len(c.inputs):
            raise UserError(f"{len(arrays)} arrays for the {len(c.inputs)} inputs of a sweep")
        given = dict(zip(c.inputs, arrays, strict=True))
        self.like = arrays[0]
        self.x = table(self.like)
        shapes = {port: tuple(a.shape) for port, a in given.items()}
        self.sizes = solve_sizes(c.plan.program, c.inputs, tuple(shapes.values()))
        self.numbers = [self.sizes[s] for s in c.sizes]
        self.groups = max((s[0] for s in shapes.values()), default=1)
        counts, batch = layout(shapes, batch_sizes)
        self.time = Time(self.x, counts, batch)
        self.total = self.time.total_rows
        self.ragged = batch_sizes is not None
        check_rows(c.row_numbers, given, self.sizes)
        lead = () if self.groups == 1 else (self.groups,)
        self.lead = lead
        self.series: dict[str, Array] = {}
        self.edges: dict[Port, Array] = {}
        self.constants: dict[str, Array] = {}
        for port, a in given.items():
            a = a[0] if self.groups == 1 else a
            if port.at is At.CONST:
                self.constants[port.name] = a
            elif port.at is At.STEPS:
                self.series[port.name] = self.wide(
                    a.reshape(*a.shape[: len(lead)], -1, a.shape[-1])
                )
            elif port.at is At.STATIC:
                self.series[port.name] = self.wide(self.time.spread(a))
            else:
                self.edges[port] = self.wide(a)
        self.shifted: dict[tuple[str, int], Array] = {}
        self.sums: dict[str, Array] = {}
        self.finals: dict[str, Array] = {}
        self.run()

    def wide(self, a: Array) -> Array:
        """With the group axis of its own that a series has."""
        if self.groups > 1 and a.shape[0] == 1:
            return self.x.spread(a, (self.groups, a.shape[-2]), a.shape[-1])
        return a

    # --- the way through ---

    def run(self) -> None:
        c, plan = self.c, self.plan
        self.constants.update(self.without_time(c.once))
        self.fixed = Constants(self.plan, self.constants, self.sizes, self.x)
        for name, n in plan.aliases:
            value = number(n)
            if value is not None:
                zero = self.x.zeros((*self.lead, self.total, _columns(n, self.sizes)), self.like)
                self.series[name] = zero + value if value else zero
        self.name_aliases()
        for f in c.before:
            self.rows_function(f)
        self.name_aliases()
        if plan.loop:
            self.loop()
            self.name_aliases()
        for f in c.edge:
            args = [self.final(name) for name, _ in f.printed.reads]
            lead = (*self.lead, self.time.batch)
            found = f.call(self.x, self.numbers, self.beside(f), args, lead, self.like)
            self.finals.update(zip(f.printed.returns, found, strict=True))
        for f in c.after:
            self.rows_function(f)
        self.name_aliases()
        for g in plan.time_gemms:
            self.time_gemm(g)
        self.constants.update(self.without_time(c.finish, self.sums))

    def name_aliases(self) -> None:
        """Series that are another name for one there is."""
        rolled = {r.name: r.value for r in (*self.plan.rolls, *self.plan.lagged)}
        waiting = [a for a in self.plan.aliases if a[1].op == "ref" and a[0] not in self.series]
        named = True
        while named:  # one may be another name for the next
            named = False
            for name, n in waiting:
                of, lag = n.attr
                of = rolled.get(of, of) if lag else of
                if name not in self.series and (of in self.series or of in self.constants):
                    self.series[name] = self.rows(*n.attr)
                    named = True

    def without_time(self, f: Function, more: dict[str, Array] | None = None) -> dict[str, Array]:
        names = {**self.constants, **(more or {})}
        args = [names[name] for name in f.printed.constants]
        found = f.call(self.x, self.numbers, args, self.like)
        return {
            name: self.x.cast(a, self.like)
            for name, a in zip(f.printed.returns, found, strict=True)
        }

    def rows_function(self, f: Function) -> None:
        printed = f.printed
        if not printed.returns:
            return
        args = [self.rows(name, lag) for name, lag in printed.reads]
        lead = (*self.lead, self.total)
        found = f.call(self.x, self.numbers, self.beside(f), args, lead, self.like)
        for name, a in zip(printed.returns, found, strict=True):
            if name.startswith("sum "):
                name = name.removeprefix("sum ")
                self.sums[name] = a if self.p.dims(name) else a[..., 0]
            else:
                self.series[name] = a

    # --- the loop ---

    def loop(self) -> None:
        c, x, time = self.c, self.x, self.time
        printed = c.loop.printed
        forward = self.p.dir > 0
        reads = [self.step_views(name, lag) for name, lag in printed.reads]
        slots = self.make_slots()
        writes = [time.steps(slots[name]) for name in printed.slots]
        constants = self.beside(c.loop)
        starts = [self.start(group) for group in printed.rolls]
        state = (
            [s[..., : time.counts[0 if forward else -1], :] for s in starts] if time.counts else []
        )
        done: list[list[Array]] = [[] for _ in starts]
        order = range(len(time.counts)) if forward else range(len(time.counts) - 1, -1, -1)
        call, numbers, lead = c.loop.call, self.numbers, self.lead
        before = time.counts[order[0]] if time.counts else 0
        for t in order:
            n = time.counts[t]
            if n < before:  # some sequences have ended: their state is final
                for k, s in enumerate(state):
                    done[k].append(s[..., n:, :])
                state = [s[..., :n, :] for s in state]
            elif n > before:  # running backward, some sequences begin here
                state = [
                    x.rows([s, start[..., before:n, :]])
                    for s, start in zip(state, starts, strict=True)
                ]
            before = n
            state = call(
                x,
                numbers,
                constants,
                [r[t] for r in reads],
                state,
                [w[t] for w in writes],
                (*lead, n),
                self.like,
            )
        for group, s, ended, start in zip(
            printed.rolls, state or starts, done, starts, strict=True
        ):
            # sequences without a step end where they start
            idle = bool(time.counts) and time.counts[0] < time.batch
            rest = [start[..., time.counts[0] :, :]] if idle else []
            final = x.rows([s, *reversed(ended), *rest]) if ended or rest else s
            self.name_finals(group, final)
        self.series.update(slots)

    def make_slots(self) -> dict[str, Array]:
        dims = dict(self.plan.series)
        slots: dict[str, Array] = {}
        for name in reversed(self.c.slots):
            if name.startswith("stack"):
                stack = self.plan.stacks[int(name.removeprefix("stack"))]
                widths = [shape_of(dims[n] or (1,), self.sizes)[0] for n in stack]
                whole = self.x.empty((*self.lead, self.total, sum(widths)), self.like)
                slots[name] = whole
                for n, (a, b) in zip(stack, _offsets(widths), strict=True):
                    slots[n] = whole[..., a:b]
            elif name not in slots:
                width = shape_of(dims[name] or (1,), self.sizes)[0]
                slots[name] = self.x.empty((*self.lead, self.total, width), self.like)
        return slots

    def step_views(self, name: str, lag: int) -> list[Array]:
        held = next((r for r in self.plan.lagged if r.name == name), None) if lag else None
        if held is not None and constant_alias(self.plan, held.value) == 0.0:
            start = self.edge(held.name, lag)
            zero = self.x.zeros((*self.lead, 1, start.shape[-1]), self.like)
            return self.time.impulse(start, zero, self.p.dir > 0)
        return self.time.steps(self.rows(name, lag))

    def start(self, group: tuple[str, ...]) -> Array:
        rolls = [next(r for r in self.plan.rolls if r.name == name) for name in group]
        if len(rolls) == 1 and rolls[0].start is not None:
            return self.edges[Port(rolls[0].start, At.START)]
        width = sum(shape_of(r.dims or (1,), self.sizes)[0] for r in rolls)
        return self.x.zeros((*self.lead, self.time.batch, width), self.like)

    def name_finals(self, group: tuple[str, ...], final: Array) -> None:
        rolls = [next(r for r in self.plan.rolls if r.name == name) for name in group]
        widths = [shape_of(r.dims or (1,), self.sizes)[0] for r in rolls]
        for name, (a, b) in zip(group, _offsets(widths), strict=True):
            self.finals[name] = final[..., a:b]

    # --- series ---

    def rows(self, name: str, lag: int) -> Array:
        """A series, or a stack of them, at a lag, for all rows."""
        if lag == 0:
            return self.at_rows(name)
        if (name, lag) not in self.shifted:
            held = next((r for r in (*self.plan.rolls, *self.plan.lagged) if r.name == name), None)
            series = self.at_rows(name if held is None else held.value)
            shifted = self.time.shift(series, self.edge(name, lag), -self.p.dir * lag)
            self.shifted[name, lag] = shifted
        return self.shifted[name, lag]

    def at_rows(self, name: str) -> Array:
        if name in self.series:
            return self.series[name]
        if name.startswith("stack"):
            stack = self.plan.stacks[int(name.removeprefix("stack"))]
            return self.x.cat([self.series[n] for n in stack])
        width = shape_of(self.fixed.dims(name) or (1,), self.sizes)[0]
        return self.x.spread(self.fixed.beside_rows(name), (*self.lead, self.total), width)

    def edge(self, name: str, lag: int) -> Array:
        """What stands beyond the end that a lag reads over."""
        for r in (*self.plan.rolls, *self.plan.lagged):
            if r.name == name:
                if r.start is not None:
                    return self.edges[Port(r.start, At.START)]
                width = shape_of(r.dims or (1,), self.sizes)[0]
                return self.x.zeros((*self.lead, self.time.batch, width), self.like)
        at = At.FIRST if -self.p.dir * lag < 0 else At.LAST
        return self.edges[Port(name, at)]

    def beside(self, f: Function) -> list[Array]:
        """The constants that a generated function takes."""
        return [self.fixed.beside_rows(name) for name in f.printed.constants]

    # --- sums over time ---

    def time_gemm(self, g: TimeGemm) -> None:
        left = self.side(g.left)
        widths = [self.width(n) for n in g.left]
        ones = [(number(n), self.width(n)) for n in g.right] == [(1.0, 1)]
        if ones:
            made = self.x.row_sum(left)[..., None]
        else:
            made = self.x.matmul(self.x.swap(left), self.side(g.right))
        offsets = _offsets(widths)
        first = 0
        for name, count in zip(g.outs, g.rows, strict=True):
            a, b = offsets[first][0], offsets[first + count - 1][1]
            shape = shape_of(self.p.dims(name), self.sizes)
            self.sums[name] = made[..., a:b, :].reshape((*self.lead, *shape))
            first += count

    def width(self, n: Node) -> int:
        return _columns(n, self.sizes)

    def side(self, nodes: tuple[Node, ...]) -> Array:
        names = tuple(n.attr[0] for n in nodes if n.op == "ref" and n.attr[1] == 0)
        if len(names) == len(nodes):
            for k, stack in enumerate(self.plan.stacks):
                if names == stack and f"stack{k}" in self.series:
                    return self.series[f"stack{k}"]
        found = [
            self.rows(*n.attr)
            if n.op == "ref"
            else self.x.zeros((*self.lead, self.total, self.width(n)), self.like)
            + (number(n) or 0.0)
            for n in nodes
        ]
        return self.x.cat(found)

    # --- results ---

    def results(self) -> list[Array]:
        found = [self.result(port) for port in self.c.outputs]
        return [self.x.compact(a if self.groups > 1 else a.reshape(1, *a.shape)) for a in found]

    def result(self, port: Port) -> Array:
        if port.adjoint:
            return self.emitted(port)
        if port.at is At.STEPS:
            return self.shaped(self.at_rows(port.name))
        if port.at is At.CONST:
            a = self.sums.get(port.name)
            a = self.constants[port.name] if a is None else a
            shape = shape_of(self.p.dims(port.name), self.sizes)
            return self.x.whole(a, shape) if self.groups == 1 else self.grouped(a, shape)
        return self.final(dict(self.plan.finals)[port.name])

    def final(self, name: str) -> Array:
        """A state behind the last step."""
        if name in self.finals:
            return self.finals[name]
        held = next(r for r in self.plan.lagged if r.name == name)
        series, start = self.at_rows(held.value), self.edge(held.name, 1)
        return (self.time.last if self.p.dir > 0 else self.time.first)(series, start)

    def grouped(self, a: Array, shape: tuple[int, ...]) -> Array:
        if len(a.shape) == len(shape) or a.shape[0] == 1:
            return self.x.whole(a.reshape(1, *shape), shape) + self.x.zeros(
                (self.groups, *shape), self.like
            )
        return a

    def shaped(self, rows: Array) -> Array:
        if self.ragged:
            return rows
        return rows.reshape(*self.lead, len(self.time.counts), self.time.batch, rows.shape[-1])

    def emitted(self, port: Port) -> Array:
        width = shape_of(self.p.dims(port.name) or (1,), self.sizes)[0]
        none = self.x.zeros((*self.lead, self.time.batch, width), self.like)
        found: Array | None = None
        for e in self.p.emits:
            if e.value != port.name:
                continue
            offset, series = -self.p.dir * e.lag, self.at_rows(e.name)
            if port.at is At.STATIC:
                more = self.time.total(series, none)
            elif port.at is At.STEPS:
                more = self.time.shift(series, none, -offset) if offset else series
            elif offset == (-1 if port.at is At.FIRST else 1):
                more = (self.time.first if offset < 0 else self.time.last)(series, none)
            else:
                continue
            found = more if found is None else found + more
        assert found is not None
        return self.shaped(found) if port.at is At.STEPS else found


def _offsets(widths: Sequence[int]) -> list[tuple[int, int]]:
    edges = [0]
    for w in widths:
        edges.append(edges[-1] + w)
    return list(pairwise(edges))


def _columns(n: Node, sizes: dict[str, int]) -> int:
    return shape_of(n.dims or (1,), sizes)[0]
