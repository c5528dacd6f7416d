"""The backward pass of a sweep is a sweep: `adjoint` and `derive`.

In the adjoint sweep, which runs the other way,

    a step name v                      gets d_v = direct (where seeded) + carry (a state) + the
                                       terms of its own step
    a state read one step back         gets a term of its carry, a state of the adjoint sweep
    a given read at lag L              gets a step, emitted to the given at lag -L
    a constant or once read by a step  gets a sum
    a once                             gets a once after the sums, in reverse
    a sum                              gets a once before the loop
    an emitted adjoint                 is read like a given
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from bptt.calculus.rewrites import Names, addends, lower, with_sizes
from bptt.ir.dims import Dim
from bptt.ir.ops import const, fill, pullback, put_row, ref, total
from bptt.ir.ports import At, Port, edge_at, inputs
from bptt.ir.program import (
    MACHINE,
    Emit,
    Equation,
    Kind,
    Node,
    Program,
    Role,
    State,
    Value,
    intern,
    refs,
    walk,
)


@dataclass(frozen=True)
class Derived:
    """A derived sweep, and how its ports hang together with those of the sweep `of`.

    `seeds` maps a name of `of` to the value that brings its direct adjoint (or tangent);
    `results` maps an input port of `of` to the output port with its adjoint, or, in forward
    mode, an output of `of` to the output port with its tangent. What is missing is zero.
    `primal` lists the input ports that are values of `of`, with the port of `of` that has them.
    `names` maps a name of `of` to that of its adjoint (or tangent), where it has one.
    """

    program: Program
    of: Program
    seeds: dict[Port, Port]
    results: dict[Port, Port]
    primal: dict[Port, Port]
    names: dict[str, str]


def derive(p: Program, seeds: Iterable[str] | None = None) -> Program:
    """The backward pass of `p` as a Program that runs the other way."""
    return adjoint(p, seeds).program


def adjoint(p: Program, seeds: Iterable[str] | None = None, *, unit: str | None = None) -> Derived:
    """The adjoint sweep of `p`. It reads p's values as givens.

    `seeds`: the names that receive a direct adjoint, and the givens whose emitted adjoints do
    (default: outputs, states, all emitted). `unit` names a scalar step, a loss, whose direct
    adjoint is the number 1.
    """
    if seeds is None:
        seeds = (*p.outputs, *(s.name for s in p.states), *(e.value for e in p.emits))
    return _Adjoint(p, set(seeds), unit).derived()


class _Adjoint:
    def __init__(self, p: Program, seeds: set[str], unit: str | None) -> None:
        self.p, self.seeds, self.unit = p, seeds, unit
        self.names = Names(p)
        self.kinds = {e.name: e.kind for e in p.equations}
        self.series = {v.name for v in p.named(Role.GIVEN) if not v.per_sequence}
        self.series |= {e.name for e in p.steps()}
        self.values: list[Value] = []
        self.equations: list[Equation] = []
        self.seed_ports: dict[Port, Port] = {}
        # adjoint terms collected while the lines are walked in reverse
        self.own: dict[str, list[Node]] = defaultdict(list)
        self.carried: dict[str, list[Node]] = defaultdict(list)
        self.given: dict[tuple[str, int], list[Node]] = defaultdict(list)
        self.summed: dict[str, list[Node]] = defaultdict(list)
        self.once: dict[str, list[Node]] = defaultdict(list)
        self.assigned_by = {e.rhs: e for e in reversed(p.equations) if e.kind is Kind.STEP}
        self.flipped: dict[Node, Node] = {}
        self.carry = {s.name: self.names.fresh(f"carry{MACHINE}{s.name}") for s in p.states}
        self.gradients: dict[str, str] = {}
        self.adjoints: dict[str, str] = {}
        self.seed_emitted()

    def derived(self) -> Derived:
        p, late = self.p, self.p.late()
        for e in reversed(p.equations):
            if e.kind is not Kind.STEP and e.name in late:
                self.adjoint_of_constant(e)
        for e in reversed(p.steps()):
            self.adjoint_of_step(e)
        self.carries()
        emits, results = self.emitted()
        for e in (e for e in p.equations if e.kind is Kind.ONCE and e.name not in late):
            self.close_sums(e.name)
        for v in p.named(Role.PARAM):
            self.close_sums(v.name)
        for e in reversed(p.equations):
            if e.kind is Kind.ONCE and e.name not in late:
                self.adjoint_of_constant(e)
        finished: list[str] = []
        for v in p.named(Role.PARAM):
            name = self.gradient(v.name)
            if name is not None:
                finished.append(name)
                self.adjoints[v.name] = name
                results[Port(v.name, At.CONST)] = Port(name, At.CONST)
        program = Program(
            dir=-p.dir,
            values=(*values_read(p, self.equations, {n for n, _ in self.given}), *self.values),
            equations=tuple(self.equations),
            states=tuple(State(self.carry[s.name]) for s in p.states),
            outputs=tuple(finished),
            emits=emits,
        )
        program = with_sizes(lower(program, self.names), p.values)
        for s in p.states:
            self.seed_ports[Port(s.name, At.FINAL)] = Port(self.carry[s.name], At.START)
            results[Port(s.name, At.START)] = Port(self.carry[s.name], At.FINAL)
        return Derived(
            program, p, self.seed_ports, results, primal_ports(p, program), self.adjoints
        )

    # --- the lines ---

    def seed_emitted(self) -> None:
        """What brings the adjoint of an emitted adjoint is read as a given would be."""
        for value in dict.fromkeys(e.value for e in self.p.emits if e.value in self.seeds):
            given = self.p.value(value)
            name = self.names.fresh(f"direct{MACHINE}e{MACHINE}{value}")
            self.values.append(Value(name, given.dims, Role.GIVEN, given.per_sequence))
            for e in self.p.emits:
                if e.value == value:
                    self.own[e.name].append(ref(name, -e.lag, given.dims))
                    at = At.STATIC if given.per_sequence else At.STEPS
                    self.seed_ports[Port(value, at, True)] = Port(name, at)
                    if e.lag:
                        edge = edge_at(self.p, e.lag)
                        self.seed_ports[Port(value, edge, True)] = Port(name, edge)

    def adjoint_of_step(self, e: Equation) -> None:
        dims = e.rhs.dims
        terms: list[Node] = []
        if e.name == self.unit:
            terms.append(const(1))
        elif e.name in self.seeds:
            terms.append(self.direct(e, Role.GIVEN, At.STEPS))
        if e.name in self.carry:
            terms.append(ref(self.carry[e.name], 1, dims))
        terms += self.own[e.name]
        if terms:
            name = self.adjoints[e.name] = self.names.fresh("d_" + e.name)
            origin = f"adjoint of: {e.origin or e.name}"
            self.equations.append(Equation(name, Kind.STEP, total(terms), origin))
            self.push(e, ref(name, 0, dims))

    def adjoint_of_constant(self, e: Equation) -> None:
        """The adjoint of a once or of a sum: a once."""
        dims, terms = e.rhs.dims, list(self.once[e.name])
        if e.name in self.seeds:
            terms.insert(0, self.direct(e, Role.PARAM, At.CONST))
        if terms:
            name = self.adjoints[e.name] = self.names.fresh("d_" + e.name)
            origin = f"adjoint of: {e.origin or e.name}"
            self.equations.append(Equation(name, Kind.ONCE, total(terms), origin))
            self.push(e, ref(name, 0, dims))

    def direct(self, e: Equation, role: Role, at: At) -> Node:
        name = self.names.fresh(f"direct{MACHINE}{e.name}")
        self.values.append(Value(name, e.rhs.dims, role))
        self.seed_ports[Port(e.name, at)] = Port(name, at)
        return ref(name, 0, e.rhs.dims)

    def push(self, e: Equation, g: Node) -> None:
        """Carry the adjoint `g` of equation `e` to what it reads."""
        adjoints: dict[Node, list[Node]] = defaultdict(list)
        adjoints[e.rhs].append(g)
        for n in reversed(walk(e.rhs)):
            if not adjoints[n] or n.op in ("const", "size", "pattern"):
                continue
            g = total(adjoints[n])
            if n.op == "ref":
                self.collect(e, n, g)
                continue
            y = self.seen(e.name, n) if n is e.rhs and e.kind is not Kind.SUM else self.flip(n, e)
            terms = pullback(n, g, y, [self.flip(a, e) for a in n.args])
            for a, term in zip(n.args, terms, strict=True):
                if term is not None:
                    adjoints[a].append(term)

    def collect(self, e: Equation, n: Node, g: Node) -> None:
        name, lag = n.attr
        if self.kinds.get(name) is Kind.STEP:
            assert lag >= 0, f"`{e.name}` reads `{name}` ahead: derive what this was made of"
            (self.carried if lag else self.own)[name].append(g)
        elif name in self.kinds or self.p.value(name).role is not Role.GIVEN:
            (self.once if e.kind is Kind.ONCE else self.summed)[name].append(g)
        else:
            self.given[name, lag].append(g)

    def carries(self) -> None:
        for s in self.p.states:
            dims = self.p.dims(s.name)
            rhs = total(self.carried[s.name]) if self.carried[s.name] else fill(const(0), dims)
            origin = f"what {s.name} gets from the step after"
            self.equations.append(Equation(self.carry[s.name], Kind.STEP, rhs, origin))

    def emitted(self) -> tuple[tuple[Emit, ...], dict[Port, Port]]:
        emits: list[Emit] = []
        results: dict[Port, Port] = {}
        for v in self.p.named(Role.GIVEN):
            for lag in (0, 1, -1):
                terms = self.given.get((v.name, lag))
                if not terms:
                    continue
                tail = {0: "", 1: f"{MACHINE}1", -1: f"{MACHINE}m1"}[lag]
                name = self.names.fresh(f"e{MACHINE}{v.name}{tail}")
                self.equations.append(
                    Equation(name, Kind.STEP, total(terms), f"adjoint of the given {v.name}")
                )
                emits.append(Emit(v.name, -lag, name))
                at = At.STATIC if v.per_sequence else At.STEPS
                results[Port(v.name, at)] = Port(v.name, at, True)
                if lag:
                    edge = edge_at(self.p, lag)
                    results[Port(v.name, edge)] = Port(v.name, edge, True)
        return tuple(emits), results

    def close_sums(self, name: str) -> None:
        """Turn the terms that `name` got from steps into sums."""
        terms = [t for g in self.summed[name] for t in addends(g)]
        if not terms:
            return
        alone = name not in self.kinds and not self.once[name]
        rows = _rows_together(terms)
        terms = [t for t in terms if t.op != "put_row"]
        if terms and len(terms[0].dims) < 2:
            terms = [total(terms)]
        terms += rows
        spread = any(t.op == "fill" for t in terms if len(t.dims) == 2)
        if alone and len(terms) == 1 and not spread and not self.read_by_once(name):
            self.gradients[name] = self.assign_sum("d_" + name, terms[0], name)
            return
        for term in terms:
            # a matrix whose elements are all equal is summed as the number it is made of
            one = term.args[0] if term.op == "fill" and len(term.dims) == 2 else term
            base = self.assign_sum(f"sum{MACHINE}{name}", one, name)
            self.once[name].append(fill(ref(base, 0, one.dims), term.dims))

    def read_by_once(self, name: str) -> bool:
        late = self.p.late()
        return any(
            n.op == "ref" and n.attr[0] == name
            for e in self.p.equations
            if e.kind is Kind.ONCE and e.name not in late
            for n in walk(e.rhs)
        )

    def assign_sum(self, base: str, rhs: Node, of: str) -> str:
        name = self.names.fresh(base)
        self.equations.append(Equation(name, Kind.SUM, rhs, f"adjoint of {of}"))
        return name

    def gradient(self, name: str) -> str | None:
        """The name of the finished gradient of a constant, or None where it gets none."""
        terms = self.once[name]
        if terms:
            final = self.names.fresh("d_" + name)
            self.equations.append(Equation(final, Kind.ONCE, total(terms), f"adjoint of {name}"))
            return final
        return self.gradients.get(name)

    # --- p's values, seen from the sweep that runs the other way ---

    def seen(self, name: str, n: Node) -> Node:
        lag = n.attr[1] if n.op == "ref" else 0
        return ref(name, -lag if name in self.series else 0, n.dims)

    def flip(self, root: Node, e: Equation) -> Node:
        """`root`, a part of `e`, in the adjoint sweep, where p's values are given."""
        if e.kind is Kind.ONCE:
            return root  # it has no time, and must not be read as a step that computes the same
        for n in walk(root) if root not in self.flipped else ():
            if n in self.flipped:
                continue
            if n.op == "ref":
                self.flipped[n] = self.seen(n.attr[0], n)
            elif n in self.assigned_by:
                self.flipped[n] = ref(self.assigned_by[n].name, 0, n.dims)
            else:
                args = tuple(self.flipped[a] for a in n.args)
                self.flipped[n] = intern(n.op, args, n.attr, n.dims)
        return self.flipped[root]


def _rows_together(terms: Iterable[Node]) -> list[Node]:
    """The terms that are rows of a table: of those with one number, the sum, put there once."""
    found: dict[tuple[Node, Dim], list[Node]] = {}
    for t in terms:
        if t.op == "put_row":
            found.setdefault((t.args[1], t.attr[0]), []).append(t.args[0])
    return [put_row(total(some), k, rows) for (k, rows), some in found.items()]


def values_read(p: Program, equations: list[Equation], also: set[str]) -> list[Value]:
    """The values and assigned names of `p` that `equations` read, as values of a new sweep."""
    read = also | {name for name, _ in refs(*(e.rhs for e in equations))}
    values = [v for v in p.values if v.name in read]
    for e in p.equations:
        if e.name in read:
            role = Role.GIVEN if e.kind is Kind.STEP else Role.PARAM
            values.append(Value(e.name, e.rhs.dims, role))
    return values


def primal_ports(p: Program, derived: Program) -> dict[Port, Port]:
    """For each input of a derived sweep that is a value of `p`: the port of `p` that has it."""
    known = {v.name for v in p.values} | {e.name for e in p.equations}
    primal: dict[Port, Port] = {}
    for port in inputs(derived):
        if port.name in known:
            start = port.at in (At.FIRST, At.LAST) and any(
                s.name == port.name and (port.at is At.FIRST) == (p.dir > 0) for s in p.states
            )
            primal[port] = Port(port.name, At.START) if start else port
    return primal
