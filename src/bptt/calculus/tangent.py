"""Forward mode: the tangents of a sweep are a sweep in its own direction."""

from __future__ import annotations

from collections.abc import Iterable

from bptt.calculus.derive import Derived, primal_ports, values_read
from bptt.calculus.rewrites import Names, addends, lower, with_sizes
from bptt.ir.ops import const, fill, ref, tangent, total
from bptt.ir.ports import At, Port, inputs, outputs
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
    walk,
)


def jvp(p: Program, seeds: Iterable[Port] | None = None) -> Derived:
    """The tangent sweep of `p`, in p's own direction: it reads p's values as givens.

    `seeds`: the input ports of `p` that have a tangent (default: all but true constants).
    """
    return _Tangent(p, inputs(p) if seeds is None else tuple(seeds)).derived()


class _Tangent:
    def __init__(self, p: Program, seeds: tuple[Port, ...]) -> None:
        self.p, self.names = p, Names(p)
        self.equations: list[Equation] = []
        self.states = {s.name: self.dotted(s.name) for s in p.states}
        self.tangents: dict[str, str] = {}
        self.values: list[Value] = []
        moving = {port.name for port in seeds if port.at is not At.START}
        for v in p.values:
            if v.name in moving and v.role is not Role.CONST:
                self.tangents[v.name] = self.dotted(v.name)
                self.values.append(Value(self.tangents[v.name], v.dims, v.role, v.per_sequence))

    def dotted(self, name: str) -> str:
        return self.names.fresh(f"dot{MACHINE}{name}")

    def derived(self) -> Derived:
        p = self.p
        for e in p.equations:
            rhs = self.forward(e)
            if rhs is None and e.name in self.states:
                rhs = fill(const(0), e.rhs.dims)
            if rhs is not None:
                self.assign(e, rhs)
        emits = tuple(
            Emit(e.value, e.lag, self.tangents[e.name]) for e in p.emits if e.name in self.tangents
        )
        program = Program(
            dir=p.dir,
            values=(*values_read(p, self.equations, {e.value for e in emits}), *self.values),
            equations=tuple(self.equations),
            states=tuple(State(self.states[s.name]) for s in p.states),
            outputs=tuple(self.tangents[n] for n in p.outputs if n in self.tangents),
            emits=emits,
        )
        program = with_sizes(lower(program, self.names), p.values)
        dotted = {t: n for n, t in self.tangents.items()}
        results = {
            port if port.adjoint else Port(dotted[port.name], port.at): port
            for port in outputs(program)
        }
        seeds = {
            Port(dotted[port.name], port.at): port
            for port in inputs(program)
            if port.name in dotted
        }
        return Derived(program, p, seeds, results, primal_ports(p, program), self.tangents)

    def forward(self, e: Equation) -> Node | None:
        """The tangent of e's right-hand side, or None where it is zero."""
        found: dict[Node, Node | None] = {}
        for n in walk(e.rhs):
            if n.op == "ref":
                name, lag = n.attr
                state = lag and name in self.states
                t = self.states[name] if state else self.tangents.get(name)
                found[n] = None if t is None else ref(t, lag, n.dims)
            elif n.args:
                y = ref(e.name, 0, n.dims) if n is e.rhs and e.kind is not Kind.SUM else n
                found[n] = tangent(n, y, [found[a] for a in n.args])
            else:
                found[n] = None
        return found[e.rhs]

    def assign(self, e: Equation, rhs: Node) -> None:
        name = self.states.get(e.name) or self.dotted(e.name)
        self.tangents[e.name] = name
        origin = f"tangent of: {e.origin or e.name}"
        parts = addends(rhs) if e.kind is Kind.SUM and len(rhs.dims) == 2 else [rhs]
        if len(parts) == 1:
            self.equations.append(Equation(name, e.kind, rhs, origin))
            return
        # a matrix is summed one outer product at a time
        pieces = [self.names.fresh(f"sum{MACHINE}{name}") for _ in parts]
        for piece, part in zip(pieces, parts, strict=True):
            self.equations.append(Equation(piece, Kind.SUM, part, origin))
        joined = total([ref(piece, 0, rhs.dims) for piece in pieces])
        self.equations.append(Equation(name, Kind.ONCE, joined, origin))
