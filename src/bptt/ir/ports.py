"""What goes into a sweep and what comes out of it, as an ordered list of ports.

Every runner (the oracle, the backends, the torch layer) takes and gives arrays by port, so a
Program's calling convention is stated once, here.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from bptt.ir.dims import Dim
from bptt.ir.program import Kind, Program, Role, refs, remembered, walk


class At(Enum):
    """Where in time a port's array stands.

    STEPS: a value each step. CONST: no time (parameters, onces, sums). STATIC: one value a
    sequence. FIRST, LAST: one value a sequence, one step before t = 0 or after t = T-1.
    START, FINAL: a state before the first and after the last step of the running order.
    """

    STEPS = "steps"
    CONST = "const"
    STATIC = "static"
    FIRST = "first"
    LAST = "last"
    START = "start"
    FINAL = "final"

    __hash__ = object.__hash__  # Enum's own is Python, and ports are looked up without end


class Port(NamedTuple):
    """One array that goes in or comes out. `adjoint`: the emitted adjoint of the given `name`."""

    name: str
    at: At
    adjoint: bool = False


def edge_at(p: Program, lag: int) -> At:
    """The end of the sequence beyond which `p` reads at `lag`."""
    return At.FIRST if -p.dir * lag < 0 else At.LAST


def lags(p: Program) -> dict[str, set[int]]:
    """The lags at which each name is read."""
    found: dict[str, set[int]] = {}
    for name, lag in refs(*(e.rhs for e in p.equations)):
        found.setdefault(name, set()).add(lag)
    return found


def ahead(p: Program) -> list[str]:
    """The assigned names that a sum reads one step ahead of it, in order."""
    read = lags(p)
    return [e.name for e in p.steps() if -1 in read.get(e.name, ())]


def row_numbers(p: Program) -> dict[str, list[Dim]]:
    """The values that choose rows of tables, each with the sizes of those tables."""
    found: dict[str, list[Dim]] = {}
    for n in walk(*(e.rhs for e in p.equations)):
        if n.op in ("row", "put_row"):
            rows = n.args[0].dims[0] if n.op == "row" else n.attr[0]
            found.setdefault(n.args[1].attr[0], []).append(rows)
    return found


@remembered
def inputs(p: Program) -> tuple[Port, ...]:
    """The ports to fill before a run: values, their edges where read beyond an end, starts."""
    read = lags(p)
    ports: list[Port] = []
    for v in p.values:
        if v.role is not Role.GIVEN:
            ports.append(Port(v.name, At.CONST))
        elif v.per_sequence:
            ports.append(Port(v.name, At.STATIC))
        else:
            ports.append(Port(v.name, At.STEPS))
            ports += [Port(v.name, edge_at(p, k)) for k in sorted(read.get(v.name, ())) if k]
    ports += [Port(name, edge_at(p, -1)) for name in ahead(p)]
    return (*ports, *(Port(s.name, At.START) for s in p.states))


@remembered
def outputs(p: Program) -> tuple[Port, ...]:
    """The ports that a run fills: outputs, final states, emitted adjoints with their edges."""
    kinds = {e.name: e.kind for e in p.equations}
    ports = [Port(n, At.STEPS if kinds[n] is Kind.STEP else At.CONST) for n in p.outputs]
    ports += [Port(s.name, At.FINAL) for s in p.states]
    for name in dict.fromkeys(e.value for e in p.emits):
        emitted = {e.lag for e in p.emits if e.value == name}
        if p.value(name).per_sequence:
            ports.append(Port(name, At.STATIC, True))
            continue
        ports.append(Port(name, At.STEPS, True))
        ports += [Port(name, edge_at(p, k), True) for k in sorted(emitted) if k]
    return tuple(ports)
