"""Dropout within a recurrence, for any cell: what is multiplied with which mask.

Nothing is drawn here. The masks are inputs of the rewritten sweep, and who runs it draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from bptt.calculus.rewrites import Names, lower, rebuild, substituted
from bptt.errors import UserError
from bptt.ir.dims import Dims
from bptt.ir.ops import add, const, mul, neg, node, ref, sub, total
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, Value, refs, walk


@dataclass(frozen=True)
class Masked:
    """A rewritten `program`. `masks`: for each value of the cell that has one, its mask's name."""

    program: Program
    masks: Mapping[str, str]


Rewrite = Callable[[Program, Iterable[str]], Masked]


class _Masks:
    """Makes masks: a further input each, a series or a value `per_sequence`."""

    def __init__(self, p: Program, word: str, *, per_sequence: bool) -> None:
        self.names, self.word, self.per_sequence = Names(p), word, per_sequence
        self.found: dict[str, Value] = {}

    def of(self, name: str, dims: Dims) -> Node:
        mask = self.names.fresh(f"{self.word}{MACHINE}{name}")
        self.found[name] = Value(mask, dims, Role.GIVEN, self.per_sequence)
        return ref(mask, 0, dims)

    def masked(self, p: Program, equations: Iterable[Equation]) -> Masked:
        values = (*p.values, *self.found.values())
        program = lower(replace(p, values=values, equations=tuple(equations)), self.names)
        return Masked(program, {name: v.name for name, v in self.found.items()})


def own_states(p: Program) -> tuple[str, ...]:
    """The states that the cell's author named: no copies of inputs."""
    return tuple(s.name for s in p.states if MACHINE not in s.name)


# --- the update of a state ------------------------------------------------------------------------


def updated(p: Program) -> tuple[str, ...]:
    """The states that are a sum of what holds the state of the step before and of what does not:
    `c[t] = f[t]*c[t-1] + i[t]*g[t]`. The latter is the state's update."""
    return tuple(name for name in own_states(p) if all(_memory_and_update(p, name)))


def drop_updates(p: Program, names: Iterable[str]) -> Masked:
    """`p`, where of each of `names` the update, if it is such a state, else the value itself, is
    multiplied with a mask at every step, for all who read it.

    S. Semeniuta, A. Severyn, E. Barth, "Recurrent Dropout without Memory Loss" (2016). Raises
    UserError for a name that is no value of the cell.
    """
    masks = _Masks(p, "drop", per_sequence=False)
    wanted, changed = dict.fromkeys(names), updated(p)
    steps = {e.name: e for e in p.steps() if MACHINE not in e.name}
    for name in wanted:
        if name not in steps:
            raise UserError(
                f"recurrent dropout of `{name}`, which the cell does not compute at each step",
                help=f"its values are {', '.join(steps)}",
            )
        if name in own_states(p) and name not in changed:
            raise UserError(
                f"recurrent dropout of the state `{name}`, which is not its value before plus "
                "an update",
                help="name another value of the cell",
            )
    equations: list[Equation] = []
    instead: dict[Node, Node] = {}
    for e in p.equations:
        rhs = substituted(e.rhs, instead)
        if e.name not in wanted:
            equations.append(replace(e, rhs=rhs))
        elif e.name in changed:
            mask = masks.of(e.name, rhs.dims)
            memory, update = _memory_and_update(p, e.name)
            kept, new = (total([substituted(n, instead) for n in s]) for s in (memory, update))
            equations.append(replace(e, rhs=add(kept, mul(mask, new))))
        else:
            left = masks.names.fresh(f"left{MACHINE}{e.name}")
            value = ref(e.name, 0, rhs.dims)
            equations.append(replace(e, rhs=rhs))
            dropped = mul(masks.of(e.name, rhs.dims), value)
            equations.append(Equation(left, Kind.STEP, dropped, f"dropout of {e.name}"))
            instead[value] = ref(left, 0, rhs.dims)
    return masks.masked(p, equations)


def _memory_and_update(p: Program, name: str) -> tuple[list[Node], list[Node]]:
    """The terms of the sum that gives a state: those that read its value before, and the rest."""
    found: tuple[list[Node], list[Node]] = ([], [])
    for term in _terms(p.equation(name).rhs):
        found[(name, 1) not in set(refs(term))].append(term)
    return found


def _terms(root: Node) -> list[Node]:
    """The terms of additions and subtractions, each with its sign, left to right."""
    found: list[Node] = []
    stack = [(root, True)]
    while stack:
        n, plus = stack.pop()
        if n.op in ("add", "sub"):
            stack += [(n.args[1], plus == (n.op == "add")), (n.args[0], plus)]
        elif n.op == "neg":
            stack.append((n.args[0], not plus))
        else:
            found.append(n if plus else neg(n))
    return found


# --- the states that products read ----------------------------------------------------------------


def multiplied(p: Program) -> tuple[str, ...]:
    """The states whose value before a step goes into a product with a matrix."""
    read = _Products(p).inside
    return tuple(name for name in own_states(p) if (name, 1) in read)


def drop_states(p: Program, names: Iterable[str]) -> Masked:
    """`p`, whose products read the states of `names` multiplied with a mask, the same at all steps
    of a sequence. What else reads them, such as a gate that keeps them, reads them whole.

    Y. Gal, Z. Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural
    Networks" (2016). Raises UserError for what is no such state.
    """
    masks = _Masks(p, "drop", per_sequence=True)
    possible, chosen = multiplied(p), dict.fromkeys(names)
    for name in chosen:
        if name not in possible:
            raise UserError(
                f"variational dropout of `{name}`, which is no state that a matrix multiplies",
                help=f"such states are: {', '.join(possible) or 'none'}",
            )
    equations: list[Equation] = []
    instead: dict[Node, Node] = {}
    for name in chosen:
        before = ref(name, 1, p.dims(name))
        left = masks.names.fresh(f"left{MACHINE}{name}")
        rhs = mul(masks.of(name, before.dims), before)
        equations.append(Equation(left, Kind.STEP, rhs, f"dropout of {name}"))
        instead[before] = ref(left, 0, before.dims)
    products = _Products(p)

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        places = products.operands(n)
        if not places:
            return None
        if n.op == "sum":  # of a product, element by element
            pair = [substituted(a, instead) for a in args[0].args]
            return node("sum", node("mul", *pair))
        new = [substituted(a, instead) if n.args[k] in places else a for k, a in enumerate(args)]
        return node(n.op, *new, attr=n.attr)

    for e in p.equations:
        if e.name in products.lines:
            e = replace(e, rhs=substituted(e.rhs, instead))
        elif e.kind is not Kind.ONCE:
            e = replace(e, rhs=rebuild(e.rhs, change))
        equations.append(e)
    return masks.masked(p, _onces_first(equations))


class _Products:
    """What products with constants read. `inside`: the (name, lag) of it; `lines`: the lines that
    nothing else reads, such as the `r[t] * h[t-1]` of a GRU, and which count as part of them."""

    def __init__(self, p: Program) -> None:
        self.fixed = {v.name for v in p.values if v.role is not Role.GIVEN}
        self.fixed |= {e.name for e in p.equations if e.kind is Kind.ONCE}
        self.inside: set[tuple[str, int]] = set()
        self.lines: set[str] = set()
        outside = {(name, 0) for name in (*p.outputs, *(s.name for s in p.states))}
        for e in reversed(p.steps()):  # whoever reads a line at its own step comes behind it
            if (e.name, 0) in self.inside and (e.name, 0) not in outside:
                self.lines.add(e.name)
                self.inside.update(refs(e.rhs))
                continue
            operands = [a for n in walk(e.rhs) for a in self.operands(n)]
            self.inside.update(refs(*operands))
            outside.update(self.beside(e.rhs))

    def operands(self, n: Node) -> list[Node]:
        """What `n` multiplies with a constant matrix, or with a constant vector and sums."""
        if n.op == "matmul":
            return [n.args[1]]
        if n.op == "sum" and n.args[0].op == "mul":
            pair = n.args[0].args
            constant = [all(name in self.fixed for name, _ in refs(a)) for a in pair]
            return [
                a for a, fixed in zip(pair, constant, strict=True) if not fixed and any(constant)
            ]
        return []

    def beside(self, root: Node) -> set[tuple[str, int]]:
        """What `root` reads outside of products."""
        found: set[tuple[str, int]] = set()
        seen: set[Node] = set()
        stack = [root]
        while stack:
            n = stack.pop()
            if n in seen:
                continue
            seen.add(n)
            if n.op == "ref":
                found.add((str(n.attr[0]), int(n.attr[1])))
            elif not self.operands(n):
                stack += n.args
        return found


def _onces_first(equations: Iterable[Equation]) -> list[Equation]:
    """Equations whose order is free between those of a step and those without a time."""
    return sorted(equations, key=lambda e: e.kind is not Kind.ONCE)


# --- states that stay as they were ----------------------------------------------------------------


def zoneout(p: Program, names: Iterable[str], rates: Mapping[str, float] | None = None) -> Masked:
    """`p`, where each unit of the states of `names` keeps its value of the step before where its
    mask is 1, and takes the new one where it is 0.

    Within a step the lines that lead to new states read new values, as the cell state's in
    `h[t] = o[t]*tanh(c[t])`; the others, such as an output's, read what the state became. With
    `rates` there are no masks: each unit is the mean of both, its old value having that weight.

    D. Krueger, T. Maharaj, J. Kramar et al., "Zoneout: Regularizing RNNs by Randomly Preserving
    Hidden Activations" (2017). Raises UserError for what is no state.
    """
    masks = _Masks(p, "zone", per_sequence=False)
    chosen, possible = dict.fromkeys(names), own_states(p)
    for name in chosen:
        if name not in possible:
            raise UserError(
                f"zoneout of `{name}`, which is no state of the cell",
                help=f"its states are {', '.join(possible) or 'none'}",
            )
    leading = _leading_to_states(p)
    equations: list[Equation] = []
    instead: dict[Node, Node] = {}
    for e in p.equations:
        rhs = substituted(e.rhs, instead) if e.name in leading else e.rhs
        if e.name not in chosen:
            equations.append(replace(e, rhs=rhs))
            continue
        fresh = masks.names.fresh(f"new{MACHINE}{e.name}")
        new, before = ref(fresh, 0, rhs.dims), ref(e.name, 1, rhs.dims)
        keep = masks.of(e.name, rhs.dims) if rates is None else const(rates[e.name])
        take = sub(const(1), keep) if rates is None else const(1 - rates[e.name])
        equations.append(replace(e, name=fresh, rhs=rhs))
        equations.append(replace(e, rhs=add(mul(keep, before), mul(take, new))))
        instead[ref(e.name, 0, rhs.dims)] = new
    return masks.masked(p, equations)


def _leading_to_states(p: Program) -> set[str]:
    """The lines that the states at the same step are computed from, and the states' own."""
    found = {s.name for s in p.states}
    for e in reversed(p.equations):
        if e.name in found:
            found.update(name for name, lag in refs(e.rhs) if not lag)
    return found
