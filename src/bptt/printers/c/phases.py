"""A Plan's phases as compiled code runs them: each over one space, each name's reads resolved.

What a Plan leaves to a backend is settled here: pieces that are put side by side become values
with a place, a product whose outputs are not as wide as its phase becomes a phase of its own, sums
become phases that add up, and what comes out of a sweep under another name is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bptt.calculus.rewrites import substituted
from bptt.ir.dims import Dim, Dims
from bptt.ir.ops import number, ref, total
from bptt.ir.plan import Block, Gemm, Phase, Plan, Reduce, Roll
from bptt.ir.ports import At, Port, edge_at, outputs
from bptt.ir.program import MACHINE, Equation, Kind, Node, Role, refs, walk

PIECES = frozenset(("concat", "embed", "block"))


@dataclass(frozen=True)
class Product:
    """Outputs of one Gemm that lie in one space: the rows of its panel, and what is added."""

    outs: tuple[str, ...]
    operands: tuple[Node, ...]
    blocks: tuple[tuple[Block, ...], ...]  # of each out: those of the operands, then of the ones
    ones: int
    plus: tuple[Node | None, ...]


@dataclass
class Step:
    """A phase in one space. `adds`: its last line adds up: over "rows", over
    "steps" for each sequence, or into the rows of a "table"."""

    space: Dims
    products: list[Product] = field(default_factory=list[Product])
    body: list[Equation] = field(default_factory=list[Equation])
    reduces: list[Reduce] = field(default_factory=list[Reduce])
    adds: str = ""

    def made(self) -> tuple[str, ...]:
        """The names that it computes, in an order that is the same in every process."""
        outs = (out for g in self.products for out in g.outs)
        return (*(e.name for e in self.body), *(r.out for r in self.reduces), *outs)

    def reads(self) -> list[Node]:
        """The expressions that it computes from."""
        nodes = [e.rhs for e in self.body] + [r.of for r in self.reduces]
        nodes += [o for g in self.products for o in g.operands]
        return nodes + [n for g in self.products for n in g.plus if n is not None]


@dataclass(frozen=True)
class Base:
    """What a reference comes to: a value of some kind, `shift` steps later than the reader.

    `kind`: "made" (by a phase), "given" or "static" (from outside, each step or each sequence),
    "fixed" (without time), "number" (`name` is its hexadecimal form).
    `edge`: what stands there beyond the sequence.
    """

    kind: str
    name: str
    shift: int = 0
    edge: Base | Port | None = None


ZERO = Base("number", (0.0).hex())


class Reader:
    """Resolves references: through other names, states and what stands beyond the ends."""

    def __init__(self, plan: Plan, low: Lowered) -> None:
        self.plan, self.p, self.shifted = plan, plan.program, low.shifted
        self.made = {n for steps in low.regions().values() for step in steps for n in step.made()}
        self.rolls: dict[str, Roll] = {r.name: r for r in (*plan.rolls, *plan.lagged)}
        self.alias = dict(plan.aliases)
        self.fixed = {v.name for v in self.p.values if v.role is not Role.GIVEN}
        self.fixed |= {e.name for e in plan.once}
        self.given = {v.name: v for v in self.p.values if v.role is Role.GIVEN}

    def base(self, name: str, lag: int) -> Base:
        """What `name` at `lag` is."""
        if name in self.fixed:
            return Base("fixed", name)
        if name in self.shifted:
            of, shift = self.shifted[name]
            return replace(self.base(of, 0), shift=shift, edge=ZERO)
        if lag == 1 and name in self.rolls:
            return self.last(name)
        if lag == 0 and name in self.made:
            return Base("made", name)
        if lag == 0 and name in self.alias:
            return self.node(self.alias[name])
        if lag == -1 and name in self.made:
            return Base("made", name, self.p.dir, Port(name, edge_at(self.p, lag)))
        value = self.given[name]
        if value.per_sequence:
            return Base("static", name)
        shift = -self.p.dir * lag
        at = At.FIRST if shift < 0 else At.LAST
        return Base("given", name, shift, Port(name, at) if lag else None)

    def last(self, state: str) -> Base:
        """A state one step back in the running order."""
        roll = self.rolls[state]
        base = self.base(roll.value, 0)
        assert base.shift == 0, "a state is computed where it stands"
        edge = ZERO if roll.start is None else Port(roll.start, At.START)
        return replace(base, shift=-self.p.dir, edge=edge)

    def node(self, n: Node) -> Base:
        """The same for a leaf."""
        value = number(n)
        return Base("number", value.hex()) if value is not None else self.base(*n.attr)


@dataclass
class Lowered:
    """The phases by region. `first`, `last`: on what lies beyond either end of each sequence."""

    before: list[Step]
    loop: list[Step]
    after: list[Step]
    first: list[Step]
    last: list[Step]
    copies: dict[str, Port]  # names that only fill a port
    shifted: dict[str, tuple[str, int]]  # names of values some steps later, zero beyond the ends

    def regions(self) -> dict[str, list[Step]]:
        """The phases by the name of their region."""
        names = ("before", "loop", "after", "first", "last")
        return {name: getattr(self, name) for name in names}


class Lowering:
    """Makes the phases of a Plan. Names of its own hold a character that no user can type."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.p = plan, plan.program
        self.count = 0
        self.copies: dict[str, Port] = {}
        self.shifts: dict[str, tuple[str, int]] = {}

    def fresh(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{MACHINE}{MACHINE}{self.count}"

    def lowered(self) -> Lowered:
        plan = self.plan
        before, loop, after = (
            [step for phase in phases for step in self.phase(phase)]
            for phases in (plan.before, plan.loop, plan.after)
        )
        edge = [step for phase in plan.edge for step in self.phase(phase, ended=True)]
        for step in edge:
            for name in step.made():
                state = next((s for s, made in plan.finals if made == name), None)
                if state is not None:
                    self.copies[name] = Port(state, At.FINAL)
        made = {n for steps in (before, loop, after) for step in steps for n in step.made()}
        ends: dict[int, list[Step]] = {1: [], -1: []}
        ends[self.p.dir] += edge
        self.finals(ends[self.p.dir])
        self.series(after, made)
        self.emitted(after, ends, made)
        return Lowered(before, loop, after, ends[-1], ends[1], self.copies, self.shifts)

    # --- phases ---

    def phase(self, phase: Phase, *, ended: bool = False) -> list[Step]:
        """`ended`: on what the loop leaves behind, where every name means its last value."""
        steps: list[Step] = []
        main = Step(phase.space)
        by_space: dict[Dims, Step] = {phase.space: main}
        for g in phase.gemms:
            for dims in dict.fromkeys(g.dims):
                step = by_space.setdefault(dims, Step(dims))
                step.products.append(self.product(g, dims, ended=ended))
        for dims, step in by_space.items():
            if dims != phase.space:
                steps += self.apart(step)
        waiting = [replace(e, rhs=self.at_end(e.rhs)) if ended else e for e in phase.body]
        reduces = [replace(r, of=self.at_end(r.of)) if ended else r for r in phase.reduces]
        if phase.accums:
            assert not phase.gemms and not phase.reduces
            return self.sums(phase)
        if not main.body and not waiting and not reduces:
            return [*steps, *self.apart(main)]
        for e in waiting:
            main = self.equation(e, main, steps)
        for r in reduces:
            of, main = self.pieces(r.of, main, steps)
            main.reduces.append(replace(r, of=of))
        if main.products or main.body or main.reduces:
            steps.append(main)
        return steps

    def apart(self, step: Step) -> list[Step]:
        """Products that nothing follows: each output on its own passes fewer matrices at once."""
        return [
            Step(step.space, [replace(g, outs=(out,), blocks=(row,), plus=(plus,))])
            for g in step.products
            for out, row, plus in zip(g.outs, g.blocks, g.plus, strict=True)
        ]

    def at_end(self, n: Node) -> Node:
        rolls = {r.name for r in (*self.plan.rolls, *self.plan.lagged)}
        mine = [m for m in walk(n) if m.op == "ref" and m.attr[0] in rolls]
        return substituted(n, {m: ref(m.attr[0], 1, m.dims) for m in mine})

    def product(self, g: Gemm, dims: Dims, *, ended: bool) -> Product:
        panel = next(q for q in self.plan.panels if q.name == g.panel)
        rows = [k for k, d in enumerate(g.dims) if d == dims]
        vectors = [k for k, o in enumerate(g.operands) if number(o) is None]
        ones = [k for k, o in enumerate(g.operands) if number(o) is not None]
        operands = tuple(g.operands[k] for k in vectors)
        if ended:
            operands = tuple(map(self.at_end, operands))
        return Product(
            tuple(g.outs[k] for k in rows),
            operands,
            tuple(tuple(panel.grid[k][j] for j in (*vectors, *ones)) for k in rows),
            len(ones),
            tuple(g.plus[k] for k in rows),
        )

    def equation(self, e: Equation, step: Step, steps: list[Step]) -> Step:
        """Append an equation; gives the phase that is open then."""
        rhs, step = self.pieces(e.rhs, step, steps)
        dims = rhs.dims
        if dims not in (step.space, ()):
            other = Step(dims)
            if self.needs(rhs, step):
                steps.append(step)
                step = Step(step.space)
            other.body.append(replace(e, rhs=rhs))
            steps.append(other)
            return step
        step.body.append(replace(e, rhs=rhs))
        return step

    def needs(self, n: Node, step: Step) -> bool:
        made = step.made()
        return any(name in made and lag == 0 for name, lag in refs(n))

    def pieces(self, root: Node, step: Step, steps: list[Step]) -> tuple[Node, Step]:
        """Let what is put side by side, or cut, be values with a place, computed before."""
        for n in walk(root):
            if n.op not in PIECES:
                continue
            for a in n.args:
                if a.op == "ref" or number(a) is not None:
                    if a.op == "ref" and a.attr[1] == 0 and a.attr[0] in step.made():
                        steps.append(step)
                        step = Step(step.space)
                    continue
                name = self.fresh("piece")
                inner, step = self.pieces(a, step, steps)
                if self.needs(inner, step):
                    steps.append(step)
                    step = Step(step.space)
                steps.append(Step(a.dims, body=[Equation(name, Kind.STEP, inner)]))
                whole = ref(name, 0, a.dims)
                return self.pieces(substituted(root, {a: whole}), step, steps)
        return root, step

    def sums(self, phase: Phase) -> list[Step]:
        """A phase for each sum, with what it alone computes."""
        known: dict[Node, Node] = {}
        for e in phase.body:
            known[ref(e.name, 0, e.rhs.dims)] = substituted(e.rhs, known)
        steps: list[Step] = []
        for a in phase.accums:
            of, _ = self.pieces(substituted(a.of, known), Step(a.of.dims), steps)
            table = of.op == "put_row"
            space, adds = (of.dims[1:], "table") if table else (of.dims, "rows")
            steps.append(Step(space, body=[Equation(a.name, Kind.SUM, of)], adds=adds))
        return steps

    # --- what comes out under another name ---

    def copy(self, port: Port, rhs: Node, adds: str = "") -> Step:
        name = self.fresh("copy")
        self.copies[name] = port
        kind = Kind.SUM if adds else Kind.STEP
        return Step(rhs.dims, body=[Equation(name, kind, rhs)], adds=adds)

    def finals(self, end: list[Step]) -> None:
        """The states behind the last step."""
        done = set(self.copies.values())
        for s in self.p.states:
            port = Port(s.name, At.FINAL)
            if port not in done:
                name = dict(self.plan.finals)[s.name]
                end.append(self.copy(port, ref(name, 1, self.p.dims(s.name))))

    def series(self, after: list[Step], made: set[str]) -> None:
        for port in outputs(self.p):
            if port.at is At.STEPS and not port.adjoint and port.name not in made:
                n = dict(self.plan.aliases)[port.name]
                after.append(self.copy(port, n))

    def emitted(self, after: list[Step], ends: dict[int, list[Step]], made: set[str]) -> None:
        """The adjoints of what is given: of each, what all steps that read it hand back."""
        outs = set(self.p.outputs)
        taken: set[str] = set()
        for port in outputs(self.p):
            if not port.adjoint:
                continue
            emits = [e for e in self.p.emits if e.value == port.name]
            dims = self.p.dims(port.name)
            if port.at is At.STATIC:
                terms = [(e.name, 0) for e in emits]
                after.append(self.copy(port, self.sum_of(terms, dims), adds="steps"))
                continue
            if port.at is At.STEPS:
                one = len(emits) == 1 and emits[0].lag == 0
                name = emits[0].name
                if one and name in made and name not in outs and name not in taken:
                    taken.add(name)
                    self.copies[name] = port
                    continue
                terms = [(e.name, self.p.dir * e.lag) for e in emits]
                after.append(self.copy(port, self.sum_of(terms, dims)))
                continue
            want = -1 if port.at is At.FIRST else 1
            terms = [(e.name, -want) for e in emits if -self.p.dir * e.lag == want]
            ends[want].append(self.copy(port, self.sum_of(terms, dims)))

    def sum_of(self, terms: list[tuple[str, int]], dims: Dims) -> Node:
        return total([self.shifted(name, shift, dims) for name, shift in terms])

    def shifted(self, name: str, shift: int, dims: Dims) -> Node:
        """A value some steps later (of the clock, whatever the running order), and zero beyond."""
        if not shift:
            return ref(name, 0, dims)
        found = self.fresh("shift")
        self.shifts[found] = (name, shift)
        return ref(found, 0, dims)


def width(dims: Dims) -> Dim:
    """How many columns a value has."""
    return dims[0] if dims else 1
