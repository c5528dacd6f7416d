"""A derivation as people read it: which lines, in what order, under what names, from where.

This is what the languages for people share; how a line looks is theirs. Names that the machine
made are respelled here: `d_c` is the gradient by c, `direct_h` what h gets from outside at its
own step, `z_i` the argument of i's function and `dz_i` the gradient by it, `q_h` a part of h's
line and `dq_h` the gradient by one, `w_o_s` the part of w_o that meets s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from bptt.calculus.derive import Derived, adjoint
from bptt.calculus.readable import By, activations, line_of, readable
from bptt.calculus.rewrites import layer, lower, sliced
from bptt.ir.ops import add, ref
from bptt.ir.ports import At
from bptt.ir.program import MACHINE, Emit, Equation, Kind, Node, Program, Role, refs, walk


class Part(Enum):
    """The parts of a derivation, in order. `SLICES`: parts of parameters that get a name.
    `VALUES`: what the forward sweep computes without a name. `FIRST`: the gradients by the
    states before the first step."""

    SLICES = "the parts of a parameter, by what they meet"
    VALUES = "from the forward pass"
    STEPS = "at every step, the last one first"
    SUMS = "over all steps"
    FIRST = "before the first step"


@dataclass(frozen=True)
class Name:
    """How a name is spelled: a stem, and what stands for it: `""` the value itself, `d` the
    gradient by it, `direct` what it gets from outside."""

    stem: str
    what: str = ""
    text: str = ""


@dataclass(frozen=True)
class Line:
    """`name = rhs`, and where it comes from. `dir`: the sweep whose lags `rhs` counts in."""

    part: Part
    name: str
    kind: Kind
    rhs: Node
    source: str
    dir: int


@dataclass(frozen=True)
class Reading:
    """A derivation, ready to be printed in any language.

    `sums` are written where they are read, as a sum over time; `series` are the names that have
    a time, those in `first` stand for a state's gradient before the first step.
    """

    lines: tuple[Line, ...]
    names: dict[str, Name]
    sums: dict[str, Node]
    series: frozenset[str]
    first: frozenset[str]
    dir: int


def derivation(p: Program) -> Derived:
    """The sweep to show for `p`: of its loss, if it has one, by all that is not a label; else of
    its outputs and states."""
    if p.loss is None:
        return adjoint(lower(p))
    d = adjoint(lower(p), (p.loss,), unit=p.loss)
    used = {v.name for v in layer(p).values}
    emitted = [e.value for e in d.program.emits if e.value in used]
    last = [port.name for port in d.results.values() if port.at is At.FINAL]
    kept = sliced(d.program, (*d.program.outputs, *last), emitted)
    return replace(d, program=replace(kept, outputs=d.program.outputs))


def reading(p: Program, by: By = "preactivations") -> Reading:
    """The backward pass of `p` as people read it."""
    d = derivation(p)
    return _Reading(d, readable(d, by)).reading()


class _Reading:
    def __init__(self, d: Derived, p: Program) -> None:
        self.d, self.p, self.of = d, p, d.of
        self.value = {a: v for v, a in d.names.items()}
        self.emits: dict[str, Emit] = {e.name: e for e in p.emits}
        self.carries = {
            out.name: port.name for port, out in d.results.items() if out.at is At.FINAL
        }
        self.direct = {out.name: seed.name for seed, out in d.seeds.items()}
        self.arguments = {a.argument: a.name for a in activations(d.of)}
        self.names: dict[str, Name] = {}
        self.taken = {n for n in (v.name for v in self.of.values) if MACHINE not in n}
        self.taken |= {e.name for e in self.of.equations if MACHINE not in e.name}
        self.taken |= {n.attr[0] for e in self.of.equations for n in walk(e.rhs) if "call" in n.op}

    def reading(self) -> Reading:
        lines, sums = self.lines()
        series = {v.name for v in self.p.named(Role.GIVEN) if not v.per_sequence}
        series |= {e.name for e in (*self.p.steps(), *self.of.steps())}
        for line in lines:
            self.spell(line.name)
            for name, _ in refs(line.rhs):
                self.spell(name)
        for name in sums:
            for other, _ in refs(sums[name]):
                self.spell(other)
        return Reading(
            tuple(lines),
            self.names,
            sums,
            frozenset(series),
            frozenset(self.carries),
            self.p.dir,
        )

    # --- lines ---

    def lines(self) -> tuple[list[Line], dict[str, Node]]:
        p, late = self.p, self.p.late()
        values = [e for e in self.helpers() if e.name not in late]
        found = [Line(Part.VALUES, e.name, e.kind, e.rhs, e.origin, self.of.dir) for e in values]
        ends: list[Equation] = []
        first: list[Line] = []
        for e in p.equations:
            if e.name in self.carries:
                source = f"{self.carries[e.name]} before the first step"
                first.append(Line(Part.FIRST, e.name, e.kind, e.rhs, source, p.dir))
            elif e.kind is Kind.ONCE and e.name not in late:
                source = f"the part of {e.rhs.args[0].attr[0]} that meets {e.name.split(MACHINE)[-1]}"
                found.append(Line(Part.SLICES, e.name, e.kind, e.rhs, source, p.dir))
            elif e.kind is not Kind.STEP:
                ends.append(e)
            elif e.name not in self.emits or not self.static(e.name):
                found.append(Line(Part.STEPS, e.name, e.kind, e.rhs, self.source(e), p.dir))
            else:
                ends.append(replace(e, kind=Kind.SUM))
        sums = {e.name: e.rhs for e in ends if e.kind is Kind.SUM and e.name not in self.value}
        ends = [e for e in self.with_starts(ends) if e.name not in sums]
        order = [v.name for v in (*self.of.values, *self.of.equations)]
        by_value = {self.of_name(e.name): e for e in ends}
        waiting = sorted(by_value, key=order.index)
        while waiting:
            read = {n: {m for m, _ in refs(by_value[n].rhs)} for n in waiting}
            left = {by_value[n].name for n in waiting}
            now = next(n for n in waiting if not read[n] & left)
            waiting.remove(now)
            e = by_value[now]
            found.append(Line(Part.SUMS, e.name, e.kind, e.rhs, self.source(e), p.dir))
        parts = list(Part)
        return sorted([*found, *first], key=lambda line: parts.index(line.part)), sums

    def helpers(self) -> list[Equation]:
        """The forward lines without a name that the lines of the backward pass read."""
        need: set[str] = set()
        stack = [name for name, _ in refs(*(e.rhs for e in self.p.equations))]
        steps = {e.name: e for e in self.of.steps() if MACHINE in e.name}
        while stack:
            name = stack.pop()
            if name in steps and name not in need:
                need.add(name)
                stack += [n for n, _ in refs(steps[name].rhs)]
        return [e for e in self.of.equations if e.name in need]

    def static(self, name: str) -> bool:
        return self.p.value(self.emits[name].value).per_sequence

    def with_starts(self, ends: list[Equation]) -> list[Equation]:
        """With the gradients by the parameters that states start from."""
        for s in self.of.states:
            carry = next((c for c, state in self.carries.items() if state == s.name), None)
            if carry is None or s.start is None or s.start.op != "ref":
                continue
            start, gradient = s.start.attr[0], ref(carry, 0, s.start.dims)
            known = next((e for e in ends if self.of_name(e.name) == start), None)
            if known is None:
                name = f"d_{start}"
                self.value[name] = start
                ends = [*ends, Equation(name, Kind.ONCE, gradient)]
            elif known.kind is Kind.ONCE:
                ends[ends.index(known)] = replace(known, rhs=add(known.rhs, gradient))
        return ends

    # --- where a line comes from ---

    def of_name(self, name: str) -> str:
        """What a line of the backward pass is the gradient by."""
        if name in self.emits:
            return self.emits[name].value
        return self.value.get(name, name)

    def source(self, e: Equation) -> str:
        """The author's line that a line comes from, or those that read what it is the gradient by."""
        value = self.of_name(e.name)
        line = next((f.origin for f in self.of.equations if f.name == value), None)
        if line is None and value == e.name:
            line = e.origin.removeprefix("adjoint of: ")
        if line is not None and (e.kind is Kind.STEP or not line):
            return "from " + " ".join(line.split())
        readers = [
            line_of(self.of, f.name) or f.name
            for f in self.of.equations
            if any(n == value for n, _ in refs(f.rhs))
        ]
        steps = {f.name for f in self.of.steps()}
        starts = [s.name for s in self.of.states if s.start and value in dict(refs(s.start))]
        shown = [n + "[t]" * (n in steps) for n in dict.fromkeys(readers)]
        shown += [f"the start of {n}" for n in starts]
        return "from " + ", ".join(shown)

    # --- names ---

    def spell(self, name: str) -> Name:
        """The spelling of a name, made up when it is first met."""
        if name not in self.names:
            self.names[name] = self.spelled(name)
        return self.names[name]

    def spelled(self, name: str) -> Name:
        if name in self.carries:
            value = self.spell(self.carries[name])
            return Name(value.stem, "d", "d_" + value.text)
        if name in self.direct:
            return self.new(self.spell(self.direct[name]).stem, "direct")
        if name in self.value or name in self.emits:
            lagged = name in self.emits and self.emits[name].lag
            what = "e" if lagged else "d"
            return self.new(self.spell(self.of_name(name)).stem, what)
        if MACHINE not in name:
            return Name(name, "", name)
        kind, _, rest = name.partition(MACHINE)
        if kind == "z" and name in self.arguments:
            return self.new(f"z_{self.arguments[name]}")
        if kind in ("z", "q", "dq"):
            line = line_of(self.of, name) or self.line_behind(rest)
            return self.new(f"q_{line}", "d" if kind == "dq" else "")
        if kind == "sum":
            return self.new(rest.partition(MACHINE)[0], "d")
        return self.new(name.replace(MACHINE, "_"))

    def line_behind(self, name: str) -> str:
        """The author's line that a name of the backward pass belongs to."""
        base = re.sub(rf"(\{MACHINE}\d+)+$", "", name)
        for candidate in (name, base):
            value = self.value.get(candidate, candidate)
            line = line_of(self.of, value) or value
            if MACHINE not in line:
                return line
        return base.rpartition(MACHINE)[2]

    def new(self, stem: str, what: str = "") -> Name:
        """A name that is not taken, nor its stem if that is the machine's."""
        own = stem in self.taken or what in ("direct", "d", "e")
        count = 1
        while True:
            numbered = stem if count == 1 else f"{stem}{count}"
            link = "" if what == "" else "_" if stem in self.taken or what != "d" else ""
            text = f"{what}{link}{numbered}" if own else numbered
            if text not in self.taken and (own or numbered not in self.taken):
                self.taken.add(text)
                return Name(numbered, what, text)
            count += 1
