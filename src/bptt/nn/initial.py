"""Initial values of parameters, drawn with torch's generator as a cell's `init` lines say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from bptt.errors import UserError
from bptt.language.tree import Expr, postorder, said

_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    name: getattr(torch, name)
    for name in ("tanh", "sin", "cos", "sigmoid", "exp", "log", "sqrt", "relu", "abs", "sign")
} | {
    "σ": torch.sigmoid,
    "softplus": functional.softplus,
    "logsigmoid": functional.logsigmoid,
    "softsign": functional.softsign,
}
_MATRICES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": nn.init.eye_,
    "orthogonal": nn.init.orthogonal_,
    "glorot": nn.init.xavier_uniform_,
}
_OPERATORS: Mapping[str, Callable[..., Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "/": torch.div,
    "**": torch.pow,
    "neg": torch.neg,
}


@torch.no_grad()
def start(parameter: Tensor, value: Expr, known: Callable[[str], Tensor]) -> None:
    """Give `parameter` the initial `value` of its cell; `known` gives the parameters it reads."""
    found: list[Tensor] = []
    for e in postorder(value):
        first = len(found) - len(e.args)
        args = found[first:]
        del found[first:]
        found.append(_value(e, args, parameter, known))
    drawn = found.pop().expand_as(parameter)
    if not drawn.is_meta and not drawn.isfinite().all():
        span = value.span
        raise UserError(f"the initial value `{said(span)}` is not finite everywhere")
    parameter.copy_(drawn)


def _value(e: Expr, args: list[Tensor], like: Tensor, known: Callable[[str], Tensor]) -> Tensor:
    if e.op == "number":
        return like.new_tensor(e.value)
    if e.op in _OPERATORS:
        return _OPERATORS[e.op](*args)
    if e.op == "name":
        if e.name not in _MATRICES:
            return known(e.name)
        half = like.dtype in (torch.float16, torch.bfloat16)  # which have no decompositions
        drawn = torch.empty_like(like, dtype=torch.float32 if half else like.dtype)
        return _MATRICES[e.name](drawn).to(like.dtype)
    if e.name in _FUNCTIONS:
        return _FUNCTIONS[e.name](*args)
    if e.name == "uniform":
        low, high = args
        return low + (high - low) * torch.rand_like(like)
    mean, std = args
    return mean + std * torch.randn_like(like)
