"""Worked examples: the numbers of a cell and of its backward pass, line by line as printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from bptt.calculus.derive import Derived
from bptt.calculus.lines import copies
from bptt.calculus.readable import By
from bptt.calculus.rewrites import layer
from bptt.calculus.rules import signed_terms, sum_of
from bptt.errors import UserError
from bptt.ir.dims import shape_of, terms
from bptt.ir.ops import evaluate
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import MACHINE, Kind, Node, Program, Role, refs, walk
from bptt.printers.people.reading import Line, Part, Reading, derivation
from bptt.printers.people.reading import forward as forward_reading
from bptt.printers.people.reading import reading as backward_reading
from bptt.printers.people.reasons import readers_of, why
from bptt.printers.people.worked import Item, Update, Worked
from bptt.printers.people.worked_text import text
from bptt.proof import sampling
from bptt.proof.given import (
    Given,
    Slot,
    checked,
    length_of,
    rate_of,
    sizes_of,
    whole,
    whole_sizes,
    with_constants,
)
from bptt.proof.sweeps import forward as run_forward

Array = Any

RATE = 0.1
LENGTH = 2
_DIGITS = 2  # decimals of what is drawn: numbers for a hand
_DRAWS = 20  # before a cell is said to be finite nowhere
_LONGEST = 1000  # steps
_MOST = 200_000  # numbers that an example may hold
Worked.writer = text


def trace(
    p: Program,
    *,
    name: str = "cell",
    title: str = "",
    values: Mapping[str, Any] | None = None,
    consts: Mapping[str, Any] | None = None,
    functions: Mapping[str, str] | None = None,
    seed: int = 0,
    length: int | None = None,
    sizes: Mapping[str, int] | None = None,
    by: By = "preactivations",
    rate: float | None = None,
) -> Worked:
    """A worked example of `p`, whose functions are all bound.

    `values`: by section and name, as `bptt.proof.given` says; `consts` are those of the cell's
    text; `functions` is only handed on, to be said. What is left out is drawn from `seed`, sizes
    are as in the values, else small. Raises UserError for values that do not fit, and for a cell
    that is not finite on them.
    """
    if by not in get_args(By):
        raise UserError(f"by cannot be {by!r}", help=f"it is {' or '.join(get_args(By))}")
    seed = whole(seed, "the seed", 0, "0, or a larger whole number")
    if length is not None:
        length = whole(length, "the length", 1, f"steps, 1 to {_LONGEST}")
    asked = whole_sizes({} if sizes is None else sizes)
    rate = None if rate is None else rate_of(rate)
    d = derivation(p)
    slots = slots_of(p, d)
    given = checked(with_constants(values or {}, consts or {}), slots)
    steps = _length(length_of(given, slots, length, LENGTH))
    known = sizes_of(_sizes(d), given, slots, asked, steps)
    _refuse_large(d, known, steps)
    sample = _sample(p, d, given, known, steps, np.random.default_rng(seed))
    back = backward_reading(p, by)
    run = _Backward(back, sample, d, known, steps)
    front = forward_reading(p)
    loss, all_values = p.loss, {**sample.values, **run.values}
    speed = next(each for each in (rate, given.rate, RATE) if each is not None)
    return Worked(
        name=name,
        title=title,
        by=by,
        forward=front,
        backward=back,
        steps=tuple(_forward_items(front, sample, steps)),
        back=tuple(_explained(front, back, p, item) for item in run.items),
        updates=tuple(_updates(p, back, all_values, speed)),
        values=all_values,
        starts=sample.starts,
        roles=sample.roles,
        drawn=sample.drawn,
        seed=seed if sample.drawn else None,
        functions=dict(functions or {}),
        sizes=known,
        length=steps,
        rate=speed,
        loss=loss,
        total=None if loss is None else float(np.sum(sample.values[loss])),
    )


def slots_of(p: Program, d: Derived) -> dict[str, dict[str, Slot]]:
    """What values an example of `p` takes, by section and name."""
    kept = copies(p)
    before = {of.attr[0]: p.dims(copy) for copy, of in kept.items()}
    before |= {s.name: p.dims(s.name) for s in p.states if _free(s.start) and s.name not in kept}
    outside: dict[str, Slot] = {}
    for port in d.seeds:
        if port.at is not At.FINAL:
            outside[port.name] = Slot(d.of.dims(port.name), port.at is At.STEPS)
    return {
        "inputs": {v.name: Slot(v.dims, not v.per_sequence) for v in p.named(Role.GIVEN)},
        "parameters": {v.name: Slot(v.dims) for v in p.named(Role.PARAM)},
        "states": {name: Slot(dims) for name, dims in before.items()},
        "constants": {v.name: Slot(v.dims, fills=len(v.dims) == 1) for v in p.named(Role.CONST)},
        "gradients": outside,
    }


def _free(start: Node | None) -> bool:
    """Whether a state starts from no parameter, so that its start is given by itself."""
    return start is None or all(n.op != "ref" for n in walk(start))


def _length(steps: int) -> int:
    if not 1 <= steps <= _LONGEST:
        raise UserError(f"a worked example cannot have {steps} steps", help=f"1 to {_LONGEST}")
    return steps


def _sizes(d: Derived) -> list[str]:
    """The names of the sizes of a sweep, those of the layer first, in the order of its values."""
    p = d.of
    dims = [v.dims for v in (*layer(p).values, *p.values)] + [p.dims(s.name) for s in p.states]
    dims += [n.dims for e in p.equations for n in walk(e.rhs)]
    return list(dict.fromkeys(s for each in dims for dim in each for s in terms(dim) if s))


def _refuse_large(d: Derived, sizes: Mapping[str, int], length: int) -> None:
    p = d.of
    each = [v.dims for v in p.values] + [e.rhs.dims for e in p.equations]
    # as Python's numbers: NumPy's would overflow in silence
    count = 0
    for dims in each:
        numbers = 1
        for n in shape_of(dims, sizes):
            numbers *= n
        count += numbers * (length if len(dims) < 2 else 1)
    if count > _MOST:
        raise UserError(
            f"a worked example of {count} numbers is for no reader",
            help="choose smaller sizes, or fewer steps",
        )


# --- the forward pass -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    """The values of a forward pass: series [T, *dims]; `starts`: before the first step."""

    values: dict[str, Array]
    starts: dict[str, Array]
    roles: Mapping[str, tuple[str, ...]]
    drawn: frozenset[str]


def _sample(
    p: Program,
    d: Derived,
    given: Given,
    sizes: Mapping[str, int],
    length: int,
    rng: np.random.Generator,
) -> _Sample:
    """Values as given, drawn where they are not, and what the forward pass makes of them."""
    of = d.of
    fixed, starts = _ports(p, d, given, sizes)
    wanted = [port for port in inputs(of) if port.at is not At.START]
    wanted += [port for port in d.seeds.values() if port.at is not At.START]
    free = [port for port in wanted if port not in fixed]
    bad = None
    for _ in range(_DRAWS if free else 1):
        known = {**_drawn(of, d, length, sizes, rng), **fixed}
        known |= {**sampling.declared(of, known, sizes), **starts}
        with np.errstate(all="ignore"):
            values = run_forward(of, {port: known[port] for port in inputs(of)}, sizes, length)
        bad = sampling.unfinite(of, values, length)
        if bad is None:
            return _gathered(p, d, {**known, **values}, {port.name for port in free})
    assert bad is not None
    spelled = next((e.origin for e in of.equations if e.name == bad.name), "") or bad.name
    shown = bad.name if MACHINE not in bad.name else f"a part of `{spelled}`"
    help = "give values of which it has one" if not free else "give values in a file: --values"
    raise UserError(f"{shown} is {bad.value}", help=help)


def _ports(
    p: Program, d: Derived, given: Given, sizes: Mapping[str, int]
) -> tuple[dict[Port, Array], dict[Port, Array]]:
    """The arrays that are given: of all ports but starts, and of starts."""
    fixed: dict[Port, Array] = {}
    by_name = {port.name: port for port in inputs(d.of) if port.at is not At.START}
    starts: dict[Port, Array] = {}
    kept = {of.attr[0]: copy for copy, of in copies(p).items()}
    bring = {port.name: seed for port, seed in d.seeds.items() if port.at is not At.FINAL}
    for section, name, array in given.each():
        if section == "states":
            starts[Port(kept.get(name, name), At.START)] = array
        elif section == "gradients":
            fixed[bring[name]] = array
        elif name in by_name:  # what only a part that nothing reads has use for
            shape = shape_of(d.of.dims(name), sizes)
            fixed[by_name[name]] = (
                np.broadcast_to(array, shape) if section == "constants" else array
            )
    return fixed, starts


def _drawn(
    of: Program, d: Derived, length: int, sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[Port, Array]:
    """A value for each port but starts, with few decimals."""
    found = sampling.draw(of, length, sizes, rng, {})
    seeds = [port for port in d.seeds.values() if port.at is not At.START]
    found |= sampling.randoms(d.program, seeds, length, sizes, rng)
    return {
        port: np.round(array, _DIGITS) + 0.0  # no -0
        for port, array in found.items()
        if port.at is not At.START
    }


def _gathered(p: Program, d: Derived, known: Mapping[Port, Array], drawn: set[str]) -> _Sample:
    plain = (At.STEPS, At.CONST, At.STATIC)
    values = {port.name: array for port, array in known.items() if port.at in plain}
    starts = {port.name: array for port, array in known.items() if port.at is At.START}
    kept = copies(p)
    starts |= {of.attr[0]: starts[copy] for copy, of in kept.items()}
    direct = [port.name for port in d.seeds.values() if port.at is not At.START]
    named = dict.fromkeys(v.name for v in (*layer(p).named(Role.GIVEN), *p.named(Role.GIVEN)))
    roles = {
        "inputs": tuple(named),
        "states": tuple(kept[s.name].attr[0] if s.name in kept else s.name for s in p.states),
        "parameters": tuple(v.name for v in p.named(Role.PARAM)),
        "constants": tuple(v.name for v in p.named(Role.CONST)),
        "gradients": tuple(direct),
    }
    return _Sample(values, starts, roles, frozenset(drawn))


def _forward_items(front: Reading, sample: _Sample, length: int) -> Iterator[Item]:
    """The lines of the cell: first what has no time, then step by step."""
    for line in front.lines:
        if line.kind is Kind.ONCE:
            yield Item(line, None, sample.values[line.name])
    for t in range(length):
        for line in front.lines:
            if line.kind is Kind.STEP:
                yield Item(line, t, sample.values[line.name][t])


# --- the backward pass ----------------------------------------------------------------------------


class _Backward:
    """Runs the lines of a derivation as they are printed, so that the numbers are theirs.

    `items` are the lines in the order in which they are computed; `values` what they make.
    """

    def __init__(
        self,
        back: Reading,
        sample: _Sample,
        d: Derived,
        sizes: Mapping[str, int],
        length: int,
    ) -> None:
        self.back, self.sample, self.sizes, self.length = back, sample, sizes, length
        self.steps: dict[tuple[str, int], Array] = {}
        self.constant: dict[str, Array] = {}
        self.items: list[Item] = []
        steps = [line for line in back.lines if line.kind is Kind.STEP]
        self.made = {line.name: line for line in steps if not back.names[line.name].what}
        for part in Part:
            self.part([line for line in back.lines if line.part is part])
        self.constant |= {name: self.summed(rhs) for name, rhs in back.sums.items()}
        made = dict.fromkeys(name for name, _ in self.steps)
        self.values = self.constant | {
            name: np.array([self.steps[name, t] for t in range(length)]) for name in made
        }

    def part(self, lines: list[Line]) -> None:
        """The lines of one part, those with a time step by step in the order of their sweep."""
        timed = [line for line in lines if line.kind is Kind.STEP and line.part is not Part.FIRST]
        for line in lines:
            if line not in timed:
                self.constant[line.name] = self.result(line)
                first = line.name in self.back.first
                self.items.append(Item(line, -1 if first else None, self.constant[line.name]))
        times = range(self.length)
        for t in times if timed and timed[0].dir > 0 else reversed(times):
            for line in timed:
                self.steps[line.name, t] = self.value(line.rhs, t, line.dir)
                value, split = self.steps[line.name, t], self.split(line, t)
                self.items.append(Item(line, t, value, split=split))

    def split(self, line: Line, t: int) -> tuple[Array, Array] | None:
        """What the terms of a gradient come to that read this step, and those of the next."""
        found = signed_terms(line.rhs)
        later = [any(lag * line.dir < 0 for _, lag in refs(term)) for _, term in found]
        if not self.back.names[line.name].what or len(set(later)) < 2:
            return None
        parts = [
            [term for term, is_later in zip(found, later, strict=True) if is_later is k]
            for k in (False, True)
        ]
        now, then = (np.asarray(self.value(sum_of(part), t, line.dir)) for part in parts)
        return now, then

    def result(self, line: Line) -> Array:
        if line.kind is Kind.SUM:
            return self.summed(line.rhs)
        return self.value(line.rhs, 0, line.dir)

    def summed(self, rhs: Node) -> Array:
        return sum(
            (self.value(rhs, t, self.back.dir) for t in range(self.length)),
            np.zeros(shape_of(rhs.dims, self.sizes)),
        )

    def value(self, root: Node, t: int, direction: int) -> Array:
        found: dict[Node, Array] = {}
        for n in walk(root):
            if n.op == "ref":
                name, lag = n.attr
                found[n] = self.read(name, t - direction * lag, n)
            else:
                found[n] = evaluate(n, [found[a] for a in n.args], self.sizes)
        return np.asarray(found[root])

    def read(self, name: str, t: int, n: Node) -> Array:
        if name in self.back.sums:
            return self.summed(self.back.sums[name])
        if name in self.constant:
            return self.constant[name]
        if (name, t) in self.steps:
            return self.steps[name, t]
        # beyond the last step any value will do that the cell can take: it meets a zero
        last = min(t, self.length - 1)
        if name in self.made:
            return self.value(self.made[name].rhs, last, self.made[name].dir)
        if name not in self.sample.values:  # a gradient beyond the last step
            return np.zeros(shape_of(n.dims, self.sizes))
        value = self.sample.values[name]
        if name not in self.back.series:
            return value
        return value[last] if t >= 0 else self.sample.starts[name]


def _explained(front: Reading, back: Reading, p: Program, item: Item) -> Item:
    """A line of the backward pass with its reason."""
    name = back.names[item.line.name]
    starts = {s.start.attr[0]: s.name for s in p.states if s.start and s.start.op == "ref"}
    item = replace(item, why=why(front, back, item.line, starts.get(name.stem, "")))
    if name.what not in ("d", "e") or name.made not in ("", "argument"):
        return item
    of = name.line if name.made == "argument" else name.stem
    return replace(item, of=of, readers=readers_of(front, of))


def _updates(
    p: Program, back: Reading, values: Mapping[str, Array], rate: float
) -> Iterator[Update]:
    """Each parameter before and after one step of gradient descent."""
    lines: dict[str, str] = {}
    for line in back.lines:
        name = back.names[line.name]
        if name.what == "d" and not name.made and line.name not in back.first:
            lines[name.stem] = line.name
    for v in p.named(Role.PARAM):
        before, line = values[v.name], lines.get(v.name)
        gradient = 0 * before if line is None else values[line]
        yield Update(v.name, before, gradient, before - rate * gradient, line)
