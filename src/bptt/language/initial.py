"""What `init` lines may say: how a trainer starts a parameter, as an expression over draws."""

from __future__ import annotations

from collections.abc import Container, Mapping

from bptt.errors import CellError
from bptt.ir.dims import Dims, show_dims
from bptt.language.near import did_you_mean
from bptt.language.terms import ELEMENTWISE
from bptt.language.tree import Expr, postorder, said

DRAWS = ("uniform", "normal")  # of two numbers each: the bounds, or mean and standard deviation
MATRICES = ("identity", "orthogonal", "glorot")
_WORDS = (*DRAWS, *MATRICES)
_OPERATORS = ("+", "-", "*", "/", "**", "neg")
_HELP = (
    "an initial value is made of numbers, `uniform(low, high)`, `normal(mean, std)`, `glorot`, "
    "`orthogonal`, `identity`, elementwise functions, and parameters with an `init` line before it"
)


def check_initial(
    name: str, value: Expr, known: Mapping[str, Dims], dims: Dims, params: Container[str]
) -> None:
    """Raise CellError unless `value` can start the parameter `name`, one of `params`.

    `known`: the dims of the parameters that have an initial value already.
    """
    for e in postorder(value):
        if e.op == "number" or e.op in _OPERATORS:
            continue
        if e.op == "name" and e.lag is None and e.name in known:
            if known[e.name] not in ((), dims):
                what = f"`{e.name}` is {show_dims(known[e.name])} and `{name}` {show_dims(dims)}"
                raise CellError(f"sizes do not fit: {what}", e.span)
        elif e.op == "name" and e.lag is None and e.name in MATRICES:
            if len(dims) != 2:
                kind = f"a vector of size {show_dims(dims)}" if dims else "a number"
                raise CellError(f"`{e.name}` starts a matrix, and `{name}` is {kind}", e.span)
        elif e.op == "call" and e.name in (*DRAWS, *ELEMENTWISE, "σ"):
            wanted = 2 if e.name in DRAWS else 1
            if len(e.args) != wanted:
                numbers = "two numbers" if wanted == 2 else "one argument"
                raise CellError(f"`{e.name}` takes {numbers}, not {len(e.args)}", e.span)
        else:
            raise _unknown(e, params)


def _unknown(e: Expr, params: Container[str]) -> CellError:
    if e.op == "name" and e.lag is not None:
        what = f"`{said(e.span)}` is read at a step, and parameters start before the first"
        return CellError(what, e.span, help=_HELP)
    if e.op == "call" and e.name in MATRICES:
        return CellError(f"`{e.name}` takes no arguments", e.span, help=f"write `{e.name}`")
    if e.op not in ("name", "call"):
        return CellError(f"`{said(e.span)}` is no initial value", e.span, help=_HELP)
    help = did_you_mean(e.name, _WORDS if e.op == "name" else (*DRAWS, *ELEMENTWISE))
    if e.op == "name":
        what = "has no initial value yet" if e.name in params else "is no initial value"
        return CellError(f"`{e.name}` {what}", e.at, help=help or _HELP)
    return CellError(f"an initial value knows no function `{e.name}`", e.at, help=help or _HELP)
