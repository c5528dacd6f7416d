"""Resets: a sweep whose states are set back before chosen steps, as if a sequence began there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bptt.calculus.rewrites import Names, lower, substituted
from bptt.ir.ops import add, const, ref, sub, unless
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, Value, refs


@dataclass(frozen=True)
class Resets:
    """A rewritten `program`, and the names of what it reads further.

    `reset`: a series of numbers, 1 at each step before which the states are set back, else 0.
    `begin`: for each state what it is set to, a value per sequence.
    """

    program: Program
    reset: str
    begin: tuple[str, ...]


def resets(p: Program) -> Resets:
    """`p` with a choice at each step, whether it reads its states or what they are set back to.

    The choice is no product. What came before gets no gradient through it, even where the
    gradient is infinite, and what comes after does not see what the states were.
    """
    names = Names(p)
    reset = ref(names.fresh(f"reset{MACHINE}"), 0, ())
    begin = {
        s.name: ref(names.fresh(f"begin{MACHINE}{s.name}"), 0, p.dims(s.name)) for s in p.states
    }
    read = {name for name, lag in refs(*(e.rhs for e in p.equations)) if lag == 1}
    chosen: dict[Node, Node] = {}
    equations: list[Equation] = []
    for s in p.states:
        if s.name not in read:
            continue
        before = ref(s.name, 1, p.dims(s.name))
        kept, back = unless(before, reset), unless(begin[s.name], sub(const(1), reset))
        name = names.fresh(f"before{MACHINE}{s.name}")
        equations.append(Equation(name, Kind.STEP, add(kept, back), f"a reset of {s.name}"))
        chosen[before] = ref(name, 0, before.dims)
    equations += [replace(e, rhs=substituted(e.rhs, chosen)) for e in p.equations]
    equations.sort(key=lambda e: e.kind is not Kind.ONCE)  # the cell's onces stay in front
    given = [Value(str(reset.attr[0]), (), Role.GIVEN)]
    given += [Value(str(b.attr[0]), b.dims, Role.GIVEN, per_sequence=True) for b in begin.values()]
    program = replace(p, values=(*p.values, *given), equations=tuple(equations))
    return Resets(lower(program, names), given[0].name, tuple(v.name for v in given[1:]))
