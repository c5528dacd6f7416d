"""A derivation as people read it: which lines, in what order, under what names, from where.

This is what the languages for people share; how a line looks is theirs. Names that the machine
made are respelled here: `d_c` is the gradient by c, `direct_h` what h gets from outside at its
own step, `z_i` the argument of i's function and `dz_i` the gradient by it, `q_h` a part of h's
line and `dq_h` the gradient by one, `w_o_s` the part of w_o that meets s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache

from bptt.calculus.derive import Derived, adjoint
from bptt.calculus.lines import activations, copies, line_of
from bptt.calculus.named import with_lines_for
from bptt.calculus.readable import By, readable
from bptt.calculus.rewrites import layer, lower, sliced, substituted, with_ends
from bptt.ir.ops import add, ref
from bptt.ir.ports import At
from bptt.ir.program import MACHINE, Emit, Equation, Kind, Node, Program, Role, refs, walk


class Part(Enum):
    """The parts of a derivation, in order, and what stands above them.

    `SLICES` are parts of parameters that get a name, `VALUES` what the forward sweep computes
    without one, `SUMS` the gradients by what has no time, `FIRST` those by the states before
    the first step.
    """

    SLICES = "parts of parameters"
    VALUES = "values of the forward pass that have no name there"
    STEPS = "for t = T-1, ..., 0"
    SUMS = ""
    FIRST = "before the first step"


@dataclass(frozen=True)
class Name:
    """How a name is spelled, and what it is made of.

    `what` it is of the value `stem`: itself, or `d` the gradient by it, `direct` what it gets
    from outside, `e` what another step's line adds to the gradient by it. `made`: what the value
    is where the machine named it: the `argument` of the function in the author's `line`, or
    some other `part` of that line, or a `slice` of a parameter.
    """

    text: str
    stem: str
    what: str = ""
    made: str = ""
    line: str = ""


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
    a time, those in `first` stand for a state's gradient before the first step. `loss`: what
    it is the gradient of, if not of whatever lies outside.
    """

    lines: tuple[Line, ...]
    names: dict[str, Name]
    sums: dict[str, Node]
    series: frozenset[str]
    first: frozenset[str]
    dir: int
    loss: str | None


def derivation(p: Program, seen: Iterable[str] | None = None) -> Derived:
    """The sweep to show for `p`: of its loss, if it has one, by all that is not a label; else of
    its outputs, what nothing reads, and the states that are `seen` outside (default: all)."""
    p = with_ends(p)
    if p.loss is None:
        own = (s.name for s in p.states if s.name not in copies(p)) if seen is None else seen
        return adjoint(lower(p), dict.fromkeys((*p.outputs, *own)))
    d = adjoint(lower(p), (p.loss,), unit=p.loss)
    used = {v.name for v in layer(p).values}
    emitted = [e.value for e in d.program.emits if e.value in used]
    last = [port.name for port in d.results.values() if port.at is At.FINAL]
    kept = sliced(d.program, (*d.program.outputs, *last), emitted)
    return replace(d, program=replace(kept, outputs=d.program.outputs))


def reading(
    p: Program, by: By | frozenset[str] = "preactivations", seen: Iterable[str] | None = None
) -> Reading:
    """The backward pass of `p` as people read it; `by` also the values whose gradients have lines
    of their own, by their names in the lowered program. `seen` as in `derivation`."""
    return _reading(p, by, None if seen is None else tuple(seen))


@lru_cache(maxsize=256)
def _reading(p: Program, by: By | frozenset[str], seen: tuple[str, ...] | None) -> Reading:
    d = derivation(p, seen)
    p = with_lines_for(d, by) if isinstance(by, frozenset) else readable(d, by)
    return _Reading(d, p).reading()


def forward(p: Program) -> Reading:
    """The equations of `p`, as its author wrote them, macros written out."""
    kept = copies(p)
    by: dict[Node, Node] = {}
    lines: list[Line] = []
    for e in p.equations:
        rhs = substituted(e.rhs, by)
        if MACHINE not in e.name:
            lines.append(Line(Part.STEPS, e.name, e.kind, rhs, e.origin, p.dir))
        elif e.name not in kept:  # a matrix that the machine computes before the loop
            by[ref(e.name, 0, e.rhs.dims)] = rhs
    names = {v.name: Name(v.name, v.name) for v in (*p.values, *p.equations)}
    names |= {name: names[of.attr[0]] for name, of in kept.items()}
    series = {v.name for v in p.named(Role.GIVEN) if not v.per_sequence}
    series |= {e.name for e in p.steps()}
    return Reading(tuple(lines), names, {}, frozenset(series), frozenset(), p.dir, p.loss)


class _Reading:
    def __init__(self, d: Derived, p: Program) -> None:
        self.d, self.p, self.of = d, p, d.of
        self.value = {a: v for v, a in d.names.items()}
        self.emits: dict[str, Emit] = {e.name: e for e in p.emits}
        self.carries = {
            out.name: port.name for port, out in d.results.items() if out.at is At.FINAL
        }
        self.direct = {out.name: seed.name for seed, out in d.seeds.items()}
        self.copies = {name: of.attr[0] for name, of in copies(d.of).items()}
        self.arguments = {a.argument: a.name for a in activations(d.of) if MACHINE not in a.name}
        self.slices = {e.name for e in p.equations if e.kind is Kind.ONCE} - p.late()
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
        for name, _ in refs(*(line.rhs for line in lines), *sums.values()):
            if name not in sums:
                self.spell(name)
        return Reading(
            tuple(lines),
            self.names,
            sums,
            frozenset(series),
            frozenset(self.carries),
            self.p.dir,
            self.of.loss,
        )

    # --- lines ---

    def lines(self) -> tuple[list[Line], dict[str, Node]]:
        """The lines in the order of their parts; the sums that are written where they are read."""
        p, late = self.p, self.p.late()
        found = [self.line(Part.VALUES, e, f"from {e.origin}", self.of.dir) for e in self.helpers()]
        ends: list[Equation] = []
        for e in p.equations:
            if e.name in self.carries:
                found.append(self.line(Part.FIRST, e, self.readers(self.carries[e.name], 1)))
            elif e.kind is Kind.ONCE and e.name not in late:
                whole, _, met = e.name.partition(MACHINE)
                part = (
                    f"a part of {whole}"
                    if met.isdigit()
                    else f"the part of {whole} that meets {met}"
                )
                found.append(self.line(Part.SLICES, e, part))
            elif e.name in self.emits and p.value(self.emits[e.name].value).per_sequence:
                ends.append(replace(e, kind=Kind.SUM))
            elif e.kind is Kind.STEP:
                found.append(self.line(Part.STEPS, e, self.source(e)))
            else:
                ends.append(e)
        ends = self.with_starts(ends)
        sums = {
            e.name: e.rhs
            for e in ends
            if e.kind is Kind.SUM and e.name not in self.value and e.name not in self.emits
        }
        ends = self.in_order([e for e in ends if e.name not in sums])
        for e in ends:
            start = any(name in self.carries for name, _ in refs(e.rhs))
            found.append(self.line(Part.FIRST if start else Part.SUMS, e, self.source(e)))
        parts = list(Part)
        return sorted(found, key=lambda line: parts.index(line.part)), sums

    def line(self, part: Part, e: Equation, source: str, direction: int | None = None) -> Line:
        return Line(part, e.name, e.kind, e.rhs, " ".join(source.split()), direction or self.p.dir)

    def helpers(self) -> list[Equation]:
        """The forward lines without a name that the lines of the backward pass read."""
        read = {name for name, _ in refs(*(e.rhs for e in self.p.equations))}
        late = self.of.late()
        steps = {e.name: e for e in self.of.equations if MACHINE in e.name and e.name not in late}
        need: dict[str, Equation] = {}
        stack = sorted(name for name in read if name in steps)
        while stack:
            name = stack.pop()
            need[name] = steps[name]
            stack += [n for n, _ in refs(steps[name].rhs) if n in steps and n not in need]
        # what one line computes, the others read there; what only one of them reads needs no line
        known = {e.rhs: ref(e.name, 0, e.rhs.dims) for e in need.values()}
        for name, e in need.items():
            others = {n: known[n] for n in known if n is not e.rhs}
            need[name] = replace(e, rhs=substituted(e.rhs, others))
        for name in [n for n in need if n not in read]:
            users = [n for n, e in need.items() if name in dict(refs(e.rhs))]
            if len(users) == 1:
                gone, user = need.pop(name), need[users[0]]
                by = {ref(name, 0, gone.rhs.dims): gone.rhs}
                need[user.name] = replace(user, rhs=substituted(user.rhs, by))
        return [need[e.name] for e in self.of.equations if e.name in need]

    def with_starts(self, ends: list[Equation]) -> list[Equation]:
        """With the gradients by the parameters that states start from."""
        carry = {state: name for name, state in self.carries.items()}
        for s in self.of.states:
            if s.start is None or s.start.op != "ref" or s.name not in carry:
                continue
            start, gradient = s.start.attr[0], ref(carry[s.name], 0, s.start.dims)
            known = next((e for e in ends if self.value.get(e.name) == start), None)
            ends = [e for e in ends if e is not known]
            if known is None:
                name = f"d{MACHINE}{start}"
                self.value[name] = start
                ends.append(Equation(name, Kind.ONCE, gradient))
                continue
            rest = known.rhs
            if known.kind is Kind.SUM:
                ends.append(replace(known, name=f"sum{MACHINE}{start}"))
                rest = ref(ends[-1].name, 0, rest.dims)
            ends.append(replace(known, kind=Kind.ONCE, rhs=add(rest, gradient)))
        return ends

    def in_order(self, ends: list[Equation]) -> list[Equation]:
        """The gradients in the order of the values, each after those that it reads."""
        values = [v.name for v in (*self.of.values, *self.of.equations)]
        left = {e.name: e for e in sorted(ends, key=lambda e: values.index(self.value_of(e)))}
        found: list[Equation] = []

        def place(name: str) -> None:
            e = left.pop(name)
            for other, _ in refs(e.rhs):
                if other in left:
                    place(other)
            found.append(e)

        while left:
            place(next(iter(left)))
        return found

    # --- where a line comes from ---

    def value_of(self, e: Equation) -> str:
        """What a line of the backward pass is the gradient by; its own name for a part of one."""
        return self.emits[e.name].value if e.name in self.emits else self.value.get(e.name, e.name)

    def source(self, e: Equation) -> str:
        """The line of the author that a line comes from, or those that read what it is by."""
        value = self.value_of(e)
        if value == e.name:
            return "from " + e.origin.removeprefix("adjoint of: ")
        line = next((f for f in self.of.equations if f.name == value), None)
        return (
            self.readers(value)
            if line is None or e.kind is not Kind.STEP
            else f"from {line.origin}"
        )

    def readers(self, value: str, lag: int | None = None) -> str:
        """The author's lines that read `value`."""
        names = {value, *(copy for copy, of in self.copies.items() if of == value)}
        found = [
            line_of(self.of, e.name) or e.name
            for e in self.of.equations
            if any(name in names and lag in (None, at) for name, at in refs(e.rhs))
            and e.name not in self.copies
        ]
        starts = [
            f"the start of {s.name}"
            for s in self.of.states
            if s.start is not None and any(name == value for name, _ in refs(s.start))
        ]
        return "from " + ", ".join(dict.fromkeys([*found, *starts]))

    # --- names ---

    def spell(self, name: str) -> Name:
        """The spelling of a name, made up when it is first met."""
        if name not in self.names:
            self.names[name] = self.spelled(name)
        return self.names[name]

    def spelled(self, name: str) -> Name:
        if name in self.carries:
            state = self.carries[name]
            if state not in self.copies and state in self.d.names:
                return self.spell(self.d.names[state])
            value = self.spell(state).text
            return Name(f"d_{value}", value, "d")
        if name in self.direct:
            value = self.spell(self.direct[name]).text
            return Name(self.fresh(f"direct_{value}"), value, "direct")
        if name in self.emits and self.emits[name].lag:
            value = self.spell(self.emits[name].value).text
            return Name(self.fresh(f"e_{value}"), value, "e")
        if name in self.emits or name in self.value:
            value = self.emits[name].value if name in self.emits else self.value[name]
            stem = self.spell(value)
            text = self.fresh(("d" if stem.made else "d_") + stem.text)
            return Name(text, stem.text, "d", stem.made, stem.line)
        kind, machine, rest = name.partition(MACHINE)
        if not machine:
            return Name(name, name)
        if name in self.copies:
            return self.spell(self.copies[name])
        if name in self.slices:
            stem, made, line = self.fresh(f"{kind}_{rest}"), "slice", ""
        elif name in self.arguments:
            line = self.arguments[name]
            stem, made = self.fresh(f"z_{line}"), "argument"
        else:
            line = line_of(self.of, name) or self.line_behind(rest)
            stem, made = self.fresh(f"q_{line}"), "part"
        if kind == "dq":
            return Name(self.fresh(f"d{stem}"), stem, "d", made, line)
        return Name(stem, stem, "", made, line)

    def line_behind(self, name: str) -> str:
        """The author's line that a name of the backward pass belongs to: that of `d_z$h$2` is h."""
        value = self.value.get(name, self.carries.get(name, name))
        line = line_of(self.of, value)
        if line is not None:
            return line
        head, _, last = name.rpartition(MACHINE)
        return self.line_behind(head if last.isdigit() else name.partition(MACHINE)[2])

    def fresh(self, text: str) -> str:
        """`text`, with a number behind it if it is taken."""
        found, count = text, 2
        between = "_" * text[-1].isdigit()  # the second part of h_1 is no part of h_12
        while found in self.taken:
            found, count = f"{text}{between}{count}", count + 1
        self.taken.add(found)
        return found
