"""Derived sweeps line by line: what reads a line, what it weighs, the sweep with one left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from bptt.calculus.derive import Derived
from bptt.calculus.rewrites import rebuild, substituted
from bptt.calculus.rules import SIMPLER, rewrite, weights
from bptt.ir.ops import OPS, ref
from bptt.ir.ports import At
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, State, Value, refs, walk


def carries(d: Derived) -> set[str]:
    """The lines that say what a state gets from the step after; their last values are results."""
    return {port.name for port in d.results.values() if port.at is At.FINAL}


def results(p: Program, d: Derived) -> set[str]:
    """The lines that are there for their own sake."""
    return {*p.outputs, *(e.name for e in p.emits), *carries(d)}


# What an expression reads never changes, and the passes ask for it often.
_READ: WeakKeyDictionary[Node, frozenset[tuple[str, int]]] = WeakKeyDictionary()


def reads(root: Node) -> frozenset[tuple[str, int]]:
    """The (name, lag) of every reference below `root`."""
    found = _READ.get(root)
    if found is None:
        found = _READ[root] = frozenset(refs(root))
    return found


def with_lines(p: Program, d: Derived, equations: Iterable[Equation]) -> Program:
    """`p` with these lines, without the dead ones; states and values are what they read."""
    by_name = {e.name: e for e in equations}
    need: set[str] = set()
    stack = [name for name in results(p, d) if name in by_name]
    while stack:
        name = stack.pop()
        if name in by_name and name not in need:
            need.add(name)
            stack += [found for found, _ in reads(by_name[name].rhs)]
    kept = tuple(e for e in by_name.values() if e.name in need)
    read = frozenset[tuple[str, int]]().union(*(reads(e.rhs) for e in kept))
    last = [s.name for s in p.states if s.name in carries(d) & need]
    behind = [e.name for e in kept if e.kind is Kind.STEP and (e.name, 1) in read]
    names = {name for name, _ in read} | {e.value for e in p.emits}
    return replace(
        p,
        values=tuple(v for v in _known(d) if v.name in names),
        equations=kept,
        states=tuple(State(name) for name in dict.fromkeys((*last, *behind))),
    )


def _known(d: Derived) -> Iterable[Value]:
    """All that a sweep derived from `d.of` may read."""
    assigned = [
        Value(e.name, e.rhs.dims, Role.GIVEN if e.kind is Kind.STEP else Role.PARAM)
        for e in d.of.equations
    ]
    return {v.name: v for v in (*d.of.values, *assigned, *d.program.values)}.values()


def rewritten(equations: Iterable[Equation], by: Mapping[Node, Node]) -> list[Equation]:
    """Lines with nodes replaced by others, simplified where that changes them."""
    found: list[Equation] = []
    names = {n.attr for n in by if n.op == "ref"} if all(n.op == "ref" for n in by) else None
    for e in equations:
        rhs = e.rhs
        if names is None or not names.isdisjoint(reads(rhs)):
            rhs = substituted(rhs, by)
        found.append(e if rhs is e.rhs else replace(e, rhs=rewrite(rhs, SIMPLER)))
    return found


def replaced(p: Program, d: Derived, by: Mapping[Node, Node]) -> Program:
    """`p` with nodes replaced by others in every line, and those lines simplified."""
    return with_lines(p, d, rewritten(p.equations, by))


def without(p: Program, d: Derived, name: str) -> Program:
    """`p` with one line written out where it is read."""
    gone = p.equation(name)
    by = {ref(name, 0, gone.rhs.dims): gone.rhs}
    return with_lines(p, d, rewritten((e for e in p.equations if e is not gone), by))


def readers(p: Program, name: str) -> dict[str, int]:
    """Which lines read `name`, and how often it stands in each."""
    found: dict[str, int] = {}
    for e in p.equations:
        if any(name == other for other, _ in reads(e.rhs)):
            uses = Counter(a for n in walk(e.rhs) for a in n.args) + Counter([e.rhs])
            found[e.name] = sum(k for n, k in uses.items() if n.op == "ref" and n.attr[0] == name)
    return found


def only_in_slices(p: Program, e: Equation) -> bool:
    """Whether the value of a line is only ever read in slices."""
    me = ref(e.name, 0, e.rhs.dims)
    roots = [x.rhs for x in p.equations if me.attr in reads(x.rhs)]
    parents = [n for n in walk(*roots) if me in n.args]
    return all(n.op == "block" for n in parents) and me not in roots


def weight(*equations: Equation) -> int:
    """How many words the right-hand sides are written with."""
    return sum(weights(e.rhs)[e.rhs] for e in equations)


def one_back(root: Node, p: Program) -> Node | None:
    """`root` one step back in the running order, or None where a Program could not read it."""
    series = {v.name for v in p.named(Role.GIVEN) if not v.per_sequence}
    series |= {e.name for e in p.steps()}
    if any(lag > 0 for name, lag in reads(root) if name in series):
        return None

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op == "ref" and n.attr[0] in series:
            return ref(n.attr[0], n.attr[1] + 1, n.dims)
        return None

    return rebuild(root, change)


def turned(root: Node) -> Node:
    """`root`, an expression of a sweep, as one that runs the other way reads it."""

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        return ref(n.attr[0], -n.attr[1], n.dims) if n.op == "ref" else None

    return rebuild(root, change)


# --- the lines of the forward sweep ---------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """A line `name = f(argument)` of a forward sweep."""

    name: str
    argument: str
    elementwise: bool


def activations(p: Program) -> list[Activation]:
    """The lines of `p` that apply one function to a value of the same step."""
    return [
        Activation(e.name, e.rhs.args[0].attr[0], OPS[e.rhs.op].elementwise)
        for e in p.steps()
        if len(e.rhs.args) == 1
        and (OPS[e.rhs.op].elementwise or e.rhs.op in ("softmax", "log_softmax", "call_vector"))
        and e.rhs.op not in ("neg", "pow")
        and e.rhs.args[0].op == "ref"
        and e.rhs.args[0].attr[1] == 0
    ]


def copies(p: Program) -> dict[str, Node]:
    """The states that only keep another value for a step, so that `x[t-1]` can be read."""
    return {
        s.name: p.equation(s.name).rhs
        for s in p.states
        if MACHINE in s.name and p.equation(s.name).rhs.op == "ref"
    }


def line_of(p: Program, name: str) -> str | None:
    """The author's name whose line `name` is a part of, by the line that both come from."""
    if MACHINE not in name:
        return name
    origin = next((e.origin for e in p.equations if e.name == name), None)
    return next((e.name for e in p.equations if e.origin == origin and MACHINE not in e.name), None)
