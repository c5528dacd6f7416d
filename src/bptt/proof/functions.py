"""The functions of hand-written backward passes, at all steps at once."""

# The lambdas of the table take arrays.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt.ir.ops import OPS
from bptt.language.terms import ELEMENTWISE
from bptt.language.tree import Definition, Expr
from bptt.proof.world import Val

Array = Any


def einsum(letters: str, a: Array, b: Array) -> Array:
    if len(a) != len(b):  # one of them has no time
        a, b = (np.broadcast_to(x, (max(len(a), len(b)), *x.shape[1:])) for x in (a, b))
    return np.einsum(letters, a, b)


def outer(a: Val, b: Val) -> Val:
    return Val(einsum("ti,tj->tij", a.array, b.array))


def joined(arrays: list[Array]) -> Array:
    steps = max(len(a) for a in arrays)
    return np.concatenate([np.broadcast_to(a, (steps, *a.shape[1:])) for a in arrays], axis=1)


def slope_of(e: Expr, functions: Mapping[str, Definition]) -> tuple[Definition, int] | None:
    """`dG_dy(y, l)` is the derivative of G by the argument that is said `y[t]`, or the first."""
    head, _, by = e.name.partition("_d")
    if not head.startswith("d") or not by or e.name in functions:
        return None
    for name, definition in functions.items():
        if e.name.startswith(f"d{name}_d"):
            by = e.name.removeprefix(f"d{name}_d")
            names = [a.name for a in e.args]
            if by in names:
                return definition, names.index(by)
            if by.isdecimal() and 1 <= int(by) <= len(names):
                return definition, int(by) - 1
    return None


def _last_axis(f: Callable[..., Array]) -> Callable[..., Array]:
    """A function of one vector, at every step."""
    return lambda a: np.stack([f(v) for v in a])


BINARY: Mapping[str, Callable[..., Array]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
ELEMENTWISE_FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    name: OPS[name].meaning for name in (*ELEMENTWISE, "positive", "prefer", "same")
}
OF_VECTORS: Mapping[str, tuple[tuple[int, ...], Callable[..., Array]]] = {
    "mean": ((1,), lambda a: a.mean(1)),
    "dot": ((1, 1), lambda a, b: einsum("ti,ti->t", a, b)),
    "softmax": ((1,), _last_axis(OPS["softmax"].meaning)),
    "log_softmax": ((1,), _last_axis(OPS["log_softmax"].meaning)),
    "max": ((1,), _last_axis(OPS["row_max"].meaning)),
    "min": ((1,), _last_axis(lambda v: -OPS["row_max"].meaning(-v))),
    "cumsum": ((1,), lambda a: np.cumsum(a, 1)),
    "rcumsum": ((1,), lambda a: np.cumsum(a[:, ::-1], 1)[:, ::-1]),
    "cross_entropy": (
        (1, 1),
        lambda a, y: -einsum("ti,ti->t", y, _last_axis(OPS["log_softmax"].meaning)(a)),
    ),
}
# How few and how many arguments the functions take that only hand-written passes have, and those
# that cells have in another way.
FUNCTIONS: Mapping[str, tuple[int, int]] = {
    **{name: (len(ranks), len(ranks)) for name, (ranks, _) in OF_VECTORS.items()},
    **dict.fromkeys(
        (*ELEMENTWISE, "σ", "positive", "sum_t", "diag", "sum", "eye", "lower"), (1, 1)
    ),
    **dict.fromkeys(("prefer", "same", "outer", "repeat", "fold", "each"), (2, 2)),
    **dict.fromkeys(("part", "rows", "cols"), (3, 3)),
    **dict.fromkeys(("max", "min"), (1, 2)),
    **dict.fromkeys(("concat", "stack"), (1, 20_000)),
    "fill": (2, 3),
    "embed": (3, 5),
    "jac": (2, 20),
}
