"""Mistakes people make in a backward pass, planted in a derived Program.

A mistake is a function Program -> list of (where, Program): one for every place that it can be
made in, none where it does not apply. `scaled` is the plainest: one line wrong by a factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from bptt.calculus.rewrites import rebuild
from bptt.ir.ops import const, fill, mul, neg, node, number, power, ref, sub, total
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, walk

Planted = list[tuple[str, Program]]
Mistake = Callable[[Program], Planted]


def with_rhs(p: Program, e: Equation, rhs: Node) -> Program:
    """`p` with another right-hand side for `e`."""
    changed = tuple(replace(e, rhs=rhs) if e.name == other.name else other for other in p.equations)
    return replace(p, equations=changed)


def scaled(p: Program, name: str, factor: float) -> Program:
    """`p` with the line `name` wrong by `factor`."""
    e = p.equation(name)
    if e.rhs.op == "outer" and e.kind is Kind.SUM:
        a, b = e.rhs.args
        return with_rhs(p, e, node("outer", mul(const(factor), a), b))
    return with_rhs(p, e, mul(const(factor), e.rhs))


# --- terms of a sum -------------------------------------------------------------------------------


def no_carry(p: Program) -> Planted:
    """Nothing comes into a state from the step after."""
    return _dropped(p, lambda e, n: n.op == "ref" and n.attr[0].startswith(f"carry{MACHINE}"))


def no_direct_adjoint(p: Program) -> Planted:
    """A value forgets what it gets from the loss at its own step."""
    return _dropped(p, lambda e, n: n.op == "ref" and n.attr[0].startswith(f"direct{MACHINE}"))


def dropped_peephole(p: Program) -> Planted:
    """A term through a parameter that multiplies elementwise is left out."""
    params = {v.name for v in p.named(Role.PARAM)}

    def through_vector(e: Equation, n: Node) -> bool:
        return n.op == "mul" and any(a.op == "ref" and a.attr[0] in params for a in n.args)

    return _dropped(p, through_vector)


def gate_missing_in_carry(p: Program) -> Planted:
    """A gate's term is left out of what a state gets from the step after."""
    return _dropped(p, lambda e, n: _is_carry(e) and n.op == "matmul")


def gate_missing_in_input(p: Program) -> Planted:
    """A gate's term is left out of the gradient by an input."""
    emitted = {emit.name for emit in p.emits}
    return _dropped(p, lambda e, n: e.name in emitted)


def dropped_path(p: Program) -> Planted:
    """A value that is used twice gets only one of its terms."""
    return _dropped(p, lambda e, n: e.name.startswith("d_") and n.op != "ref")


def wrong_sign(p: Program) -> Planted:
    """A term is subtracted that should be added."""
    return _terms(p, lambda e, n: not _is_seed(n), neg)


# --- derivatives of functions ---------------------------------------------------------------------


def tanh_slope_unsquared(p: Program) -> Planted:
    """`1 - g` for `1 - g**2`."""
    return _everywhere(p, _tanh_slope, lambda n: sub(const(1), n.args[1].args[0]))


def sigmoid_slope_for_tanh(p: Program) -> Planted:
    """`g*(1 - g)` for `1 - g**2`."""

    def change(n: Node) -> Node:
        y = n.args[1].args[0]
        return mul(y, sub(const(1), y))

    return _everywhere(p, _tanh_slope, change)


def tanh_slope_for_sigmoid(p: Program) -> Planted:
    """`1 - f**2` for `f*(1 - f)`."""
    return _everywhere(p, _sigmoid_slope, lambda n: sub(const(1), power(n.args[0], 2)))


def no_sigmoid_slope(p: Program) -> Planted:
    """The gate's own derivative is left out."""
    return _everywhere(p, _sigmoid_slope, lambda n: fill(const(1), n.dims))


def no_tanh_slope(p: Program) -> Planted:
    """The candidate's own derivative is left out."""
    return _everywhere(p, _tanh_slope, lambda n: fill(const(1), n.dims))


# --- times ----------------------------------------------------------------------------------------


def state_now_for_state_before(p: Program) -> Planted:
    """`c[t]` for `c[t-1]` in a line of the step."""
    return _shifted(p, lambda e: e.kind is Kind.STEP, before=p.dir, after=0)


def sum_at_wrong_lag(p: Program) -> Planted:
    """`h[t]` for `h[t-1]` in the gradient by a recurrent matrix."""
    return _shifted(p, lambda e: e.kind is Kind.SUM, before=p.dir, after=0)


def shifted_carry(p: Program) -> Planted:
    """The forget gate of the wrong step: the papers' `f[t+1]` read as `f[t]`."""
    return _shifted(p, _is_carry, before=0, after=p.dir)


# --- matrices -------------------------------------------------------------------------------------


def untransposed(p: Program) -> Planted:
    """`U @ dz` for `U.T @ dz`, where the sizes allow it."""

    def square(n: Node) -> bool:
        return n.op == "matmul" and n.args[0].op == "T" and n.dims == n.args[1].dims

    return _everywhere(p, square, lambda n: node("matmul", n.args[0].args[0], n.args[1]))


def transposed_outer(p: Program) -> Planted:
    """outer(h, dz) for outer(dz, h), where the sizes allow it."""

    def square(n: Node) -> bool:
        return n.op == "outer" and n.dims[0] == n.dims[1]

    return _everywhere(p, square, lambda n: node("outer", n.args[1], n.args[0]))


MISTAKES: tuple[Mistake, ...] = (
    no_carry,
    no_direct_adjoint,
    dropped_peephole,
    gate_missing_in_carry,
    gate_missing_in_input,
    dropped_path,
    wrong_sign,
    tanh_slope_unsquared,
    sigmoid_slope_for_tanh,
    tanh_slope_for_sigmoid,
    no_sigmoid_slope,
    no_tanh_slope,
    state_now_for_state_before,
    sum_at_wrong_lag,
    shifted_carry,
    untransposed,
    transposed_outer,
)


# --- planting -------------------------------------------------------------------------------------


def _is_carry(e: Equation) -> bool:
    return e.name.startswith(f"carry{MACHINE}")


def _is_seed(n: Node) -> bool:
    return n.op == "ref" and n.attr[0].startswith((f"carry{MACHINE}", f"direct{MACHINE}"))


def _tanh_slope(n: Node) -> bool:
    if n.op != "sub" or n.args[1].op != "pow":
        return False
    return number(n.args[0]) == 1 and n.args[1].attr == ((2.0).hex(),)


def _sigmoid_slope(n: Node) -> bool:
    if n.op != "mul" or n.args[1].op != "sub":
        return False
    return number(n.args[1].args[0]) == 1 and n.args[1].args[1] is n.args[0]


def _addends(n: Node) -> Iterator[Node]:
    if n.op == "add":
        for a in n.args:
            yield from _addends(a)
    else:
        yield n


def _terms(
    p: Program, fits: Callable[[Equation, Node], bool], change: Callable[[Node], Node | None]
) -> Planted:
    """Each fitting term of each sum of two or more changed, or left out where `change` is None."""
    planted: Planted = []
    for e in p.equations:
        addends = list(_addends(e.rhs))
        for k, term in enumerate(addends):
            if len(addends) > 1 and fits(e, term):
                changed = change(term)
                kept = addends[:k] + ([] if changed is None else [changed]) + addends[k + 1 :]
                planted.append((f"{e.name}, term {k + 1}", with_rhs(p, e, total(kept))))
    return planted


def _dropped(p: Program, fits: Callable[[Equation, Node], bool]) -> Planted:
    return _terms(p, fits, lambda n: None)


def _everywhere(
    p: Program, fits: Callable[[Node], bool], change: Callable[[Node], Node]
) -> Planted:
    """Each fitting node changed, one at a time."""
    planted: Planted = []
    for e in p.equations:
        for k, n in enumerate(n for n in walk(e.rhs) if fits(n)):
            rhs = rebuild(e.rhs, lambda m, args, n=n: change(n) if m is n else None)
            planted.append((f"{e.name}, place {k + 1}", with_rhs(p, e, rhs)))
    return planted


def _shifted(p: Program, fits: Callable[[Equation], bool], before: int, after: int) -> Planted:
    """Each series that a fitting line reads at the lag `before` read at `after`."""
    series = {v.name for v in p.named(Role.GIVEN) if not v.per_sequence}
    planted: Planted = []
    for e in p.equations:
        for n in walk(e.rhs):
            if fits(e) and n.op == "ref" and n.attr[0] in series and n.attr[1] == before:
                moved = ref(n.attr[0], after, n.dims)
                rhs = rebuild(e.rhs, lambda m, args, n=n, moved=moved: moved if m is n else None)
                planted.append((f"{e.name}, {n.attr[0]}", with_rhs(p, e, rhs)))
    return planted
