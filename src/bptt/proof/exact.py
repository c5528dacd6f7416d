"""The exact values of all that a hand-written backward pass may speak of, in one sample.

Gradients have names: `d_h` is the total gradient by h, of the sum over all steps; `direct_h` what
h gets from the loss at its own step; `next_h[t]` what it gets because step t+1 reads it; `now_h`
the rest, `d_h - next_h`; `dz_i` the gradient by the argument of i's function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bptt.calculus.derive import Derived, adjoint
from bptt.calculus.lines import activations, copies
from bptt.calculus.rewrites import layer, lower, with_ends
from bptt.ir.dims import shape_of
from bptt.ir.ops import evaluate as evaluate_node
from bptt.ir.ports import At, Port
from bptt.ir.program import MACHINE, Kind, Node, Program, Role, walk
from bptt.language.check import Checked
from bptt.language.tree import Definition, Tree, postorder
from bptt.proof import sampling
from bptt.proof.sweeps import forward, pull
from bptt.proof.world import World

Array = Any
LENGTH = 4  # steps of a sample: a first, a last, and two between


@dataclass(frozen=True)
class Sample:
    """How a sample is drawn: `zero` initial states or warm ones; `sums`: the labels that sum to
    one; `seen`: the states whose `direct_` gradient is not zero, beside the outputs'."""

    seed: int = 0
    zero: bool = False
    sums: bool = False
    seen: tuple[str, ...] = ()


def world(
    checked: Checked,
    sample: Sample,
    values: Mapping[str, Array],
    functions: Mapping[str, Definition],
) -> World:
    """The exact values of a sample of a cell whose functions are all bound."""
    return _Exact(checked, sample, values, functions).world()


def labels(p: Program) -> list[str]:
    """The inputs that only the loss reads, vectors each."""
    used = {v.name for v in layer(p).values}
    return [v.name for v in p.named(Role.GIVEN) if v.name not in used and len(v.dims) == 1]


def sweep(p: Program, seen: Iterable[str]) -> Derived:
    """The adjoint sweep of `p`: of its loss, or of whatever its outputs and `seen` lead to."""
    p = with_ends(p)
    if p.loss is not None:
        return adjoint(lower(p), (p.loss,), unit=p.loss)
    return adjoint(lower(p), dict.fromkeys((*p.outputs, *seen)))


class _Exact:
    def __init__(
        self,
        checked: Checked,
        sample: Sample,
        values: Mapping[str, Array],
        functions: Mapping[str, Definition],
    ) -> None:
        self.checked, self.sample, self.functions = checked, sample, functions
        self.rng = np.random.default_rng([sample.seed, 4])
        self.p = checked.program
        self.d = sweep(self.p, sample.seen)
        self.low = self.d.of
        self.sizes = sampling.sizes_for(self.p, None, values)
        self.given = self.draw(values)
        self.values = forward(self.low, self.given, self.sizes, LENGTH)
        self.cotangents = {
            port: self.rng.normal(size=np.shape(self.values[port]))
            for port in self.d.seeds
            if port.at is At.STEPS
        }
        self.series: dict[str, Array] = {}
        self.constants: dict[str, Array] = {}
        self.jacobians: dict[tuple[Any, ...], Array] = {}  # lines are tried often, and ask again

    def draw(self, values: Mapping[str, Array]) -> dict[Port, Array]:
        p, rng = self.p, self.rng
        given = sampling.draw(p, LENGTH, self.sizes, rng, values)
        given |= sampling.warmed(p, given, self.sizes, rng)
        sums = labels(p) if self.sample.sums else []
        for port, array in given.items():
            if port.at is At.START and self.sample.zero:
                given[port] = np.zeros_like(array)
            if port.name in sums and port.at is At.STEPS:
                e = np.exp(array)
                given[port] = e / e.sum(-1, keepdims=True)
        return given

    def world(self) -> World:
        self.forward_values()
        self.totals()
        self.parts()
        self.directs()
        return World(
            LENGTH,
            self.sizes,
            self.series,
            self.constants,
            self.functions,
            {d.name: d for d in self.checked.tree.definitions},
            {d.name: d.kind or "elementwise" for d in self.checked.tree.declared("function")},
            self.jacobian,
            _in_rows(self.checked.tree),
        )

    def padded(self, array: Array, before: Array | None = None) -> Array:
        """A gradient with a step before the first and one behind the last, where it is zero."""
        edge = np.zeros((1, *np.shape(array)[1:]))
        return np.concatenate([edge if before is None else before[None], array, edge])

    def extended(self, array: Array, before: Array | None) -> Array:
        """A value of the forward pass, likewise; behind the last step it stays as it is, since
        what is zero there may be divided by it."""
        edge = np.zeros((1, *np.shape(array)[1:]))
        return np.concatenate([edge if before is None else before[None], array, array[-1:]])

    def forward_values(self) -> None:
        p = self.low
        for v in p.values:
            if v.role is Role.GIVEN and not v.per_sequence:
                before = self.values.get(Port(v.name, At.FIRST))
                self.series[v.name] = self.extended(self.values[Port(v.name, At.STEPS)], before)
            else:
                at = At.STATIC if v.per_sequence else At.CONST
                self.constants[v.name] = self.values[Port(v.name, at)]
        for e in p.equations:
            if MACHINE in e.name:
                continue
            if e.kind is Kind.STEP:
                before = self.values.get(Port(e.name, At.START))
                self.series[e.name] = self.extended(self.values[Port(e.name, At.STEPS)], before)
            else:
                self.constants[e.name] = self.values[Port(e.name, At.CONST)]
        for copy, of in copies(p).items():  # an input read one step late
            self.series[of.attr[0]][0] = self.values[Port(copy, At.START)]

    def totals(self) -> None:
        p, d = self.low, self.d
        adjoints, found = pull(d, self.values, self.cotangents, self.sizes)
        self.adjoint_values = found
        for v in p.values:
            if v.role is Role.CONST:
                continue
            timed = v.role is Role.GIVEN and not v.per_sequence
            at = At.STEPS if timed else At.STATIC if v.per_sequence else At.CONST
            array = adjoints[Port(v.name, at)]
            if timed:
                first = adjoints.get(Port(v.name, At.FIRST))
                self.series[f"d_{v.name}"] = self.padded(array, first)
            else:
                self.constants[f"d_{v.name}"] = array
        for copy, of in copies(p).items():
            self.series[f"d_{of.attr[0]}"][0] = adjoints[Port(copy, At.START)]
        for e in p.equations:
            if MACHINE not in e.name:
                self.total(f"d_{e.name}", e.name, adjoints.get(Port(e.name, At.START)))
        assigned = {e.name for e in p.equations}
        for a in activations(p):
            if MACHINE not in a.name and a.argument in assigned:
                self.total(f"dz_{a.name}", a.argument, None)

    def total(self, name: str, of: str, before: Array | None) -> None:
        """The gradient by an assigned value, under `name`."""
        shape = shape_of(self.low.dims(of), self.sizes)
        gradient = self.d.names.get(of)
        step = self.low.equation(of).kind is Kind.STEP
        at = At.STEPS if step else At.CONST
        if gradient is None:
            array = np.zeros((LENGTH, *shape) if step else shape)
        else:
            array = self.adjoint_values[Port(gradient, at)]
        if step:
            self.series[name] = self.padded(array, before)
        else:
            self.constants[name] = array

    def parts(self) -> None:
        """`next_` and `now_` of the states."""
        for s in self.low.states:
            if MACHINE in s.name:
                continue
            carry = self.d.results[Port(s.name, At.START)].name
            array = self.adjoint_values[Port(carry, At.STEPS)]
            edge = np.zeros((1, *array.shape[1:]))
            self.series[f"next_{s.name}"] = np.concatenate([array, edge, edge])
            total = self.series[f"d_{s.name}"]
            self.series[f"now_{s.name}"] = total - self.series[f"next_{s.name}"]

    def directs(self) -> None:
        """What values get from the loss at their own step, or from outside the cell."""
        if self.p.loss is None:
            for name in (*with_ends(self.p).outputs, *(s.name for s in self.p.states)):
                array = self.cotangents.get(Port(name, At.STEPS))
                still = np.zeros_like(self.series[name][1:-1]) if name in self.series else None
                if array is not None or still is not None:
                    self.series[f"direct_{name}"] = self.padded(still if array is None else array)
            return
        found: dict[str, list[Array]] = {}
        for t in range(LENGTH):
            now = self.one_step(t)
            _, adjoints = pull(self.d, forward(self.low, now, self.sizes, 1), {}, self.sizes)
            for e in self.low.steps():
                if MACHINE not in e.name:
                    gradient = self.d.names.get(e.name)
                    still = np.zeros(shape_of(e.rhs.dims, self.sizes))
                    array = still if gradient is None else adjoints[Port(gradient, At.STEPS)][0]
                    found.setdefault(e.name, []).append(array)
        for name, arrays in found.items():
            self.series[f"direct_{name}"] = self.padded(np.array(arrays))

    def one_step(self, t: int) -> dict[Port, Array]:
        """The inputs of step t alone."""
        now = dict(self.given)
        for port, array in self.given.items():
            if port.at is At.STEPS:
                now[port] = array[t : t + 1]
            elif (port.at is At.FIRST and t) or (port.at is At.START and t):
                now[port] = self.values[Port(port.name, At.STEPS)][t - 1]
        return now

    # --- Jacobians ---

    def jacobian(
        self, y: tuple[str, int], x: tuple[str, int], held: Iterable[str], times: Array
    ) -> Array:
        """How y moves with x through all that lies between, the names in `held` as they are.

        [times, *y, *x]. Zero where y or x lies outside of the sequence, or y before x. A
        parameter moves at the step of y alone.
        """
        asked = [(y, x, frozenset(held), int(t)) for t in times]
        for each in asked:
            if each not in self.jacobians:
                self.jacobians[each] = self.moved(*each)
        return np.stack([self.jacobians[each] for each in asked])

    def moved(self, y: tuple[str, int], x: tuple[str, int], held: frozenset[str], t: int) -> Array:
        constant = self.constants.get(x[0])
        at_y = t - y[1]
        at_x = t - x[1] if constant is None else at_y
        inside = -1 <= at_x < LENGTH and 0 <= at_y < LENGTH and at_x <= at_y
        base = self.series[x[0]][at_x + 1 if inside else 0] if constant is None else constant
        matrix = np.zeros((*self.series[y[0]].shape[1:], *np.shape(base)))
        if not inside:
            return matrix
        for k in np.ndindex(base.shape):
            start = np.array(base, complex)
            start[k] += 1e-30j
            end = self.rerun(x[0], at_x, start, y[0], at_y, held)
            matrix[(..., *k)] = np.imag(end) / 1e-30
        return matrix

    def rerun(
        self, x: str, at_x: int, value: Array, y: str, at_y: int, held: frozenset[str]
    ) -> Array:
        """The value of y at `at_y` where x at `at_x` has another value."""
        p = self.p
        changed: dict[tuple[str, int], Array] = {(x, at_x): value}

        def read(name: str, t: int) -> Array:
            if (name, t) in changed:
                return changed[name, t]
            if name in self.constants:
                return self.constants[name]
            kept = self.copies.get(name)
            return read(kept.attr[0], t) if kept is not None else self.series[name][t + 1]

        def compute(root: Node, t: int) -> Array:
            found: dict[Node, Array] = {}
            for n in walk(root):
                args = [found[a] for a in n.args]
                if n.op != "ref":
                    found[n] = evaluate_node(n, args, self.sizes)
                elif n.attr[0] in self.hoisted:
                    found[n] = self.values[Port(n.attr[0], At.CONST)]
                else:
                    found[n] = read(n.attr[0], t - n.attr[1])
            return found[root]

        for t in range(max(at_x, 0), at_y + 1):
            for e in p.steps():
                fixed = (e.name, t) == (x, at_x) or e.name in held or e.name in self.copies
                if not fixed:
                    changed[e.name, t] = compute(e.rhs, t)
        return read(y, at_y)

    @cached_property
    def copies(self) -> dict[str, Node]:
        """The states that hold an input of the step before."""
        return copies(self.p)

    @cached_property
    def hoisted(self) -> frozenset[str]:
        """The matrices that the machine computes before the loop."""
        onces = (e.name for e in self.p.equations if e.kind is Kind.ONCE)
        return frozenset(name for name in onces if MACHINE in name)


def _in_rows(tree: Tree) -> bool:
    """Whether a cell is written with rows: `x[t] @ W`, and nowhere `W @ x[t]`."""
    found: set[bool] = set()
    for e in (e for line in tree.lines for e in postorder(line.rhs) if e.op == "@"):
        timed = [any(a.op == "name" and a.lag is not None for a in postorder(x)) for x in e.args]
        found |= {True} if timed == [True, False] else {False} if timed == [False, True] else set()
    return found == {True}
