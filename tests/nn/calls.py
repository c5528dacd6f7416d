"""Any module as a function of its inputs and parameters, ragged batches and pairs included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def leaves(found: Any) -> list[Tensor]:
    """The tensors that a module gives or takes; of a ragged one its numbers."""
    if isinstance(found, PackedSequence):
        return [found.data]
    if isinstance(found, Tensor):
        return [found]
    parts = found.values() if isinstance(found, dict) else found
    return [x for part in parts for x in leaves(part)]


def again(like: Any, tensors: Sequence[Tensor]) -> Any:
    """Other tensors in the place of those of `like`."""
    rest = list(tensors)

    def of(part: Any) -> Any:
        if isinstance(part, PackedSequence):
            return PackedSequence(rest.pop(0), *part[1:])
        return rest.pop(0) if isinstance(part, Tensor) else tuple(of(p) for p in part)

    return of(like)


def function(module: nn.Module, given: Any) -> tuple[Callable[..., Any], list[Tensor]]:
    """A module as a function of all its inputs and parameters, and these."""
    inputs, names = leaves(given), [name for name, _ in module.named_parameters()]

    def f(*tensors: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(1)  # of what is dropped, if something is
        weights = dict(zip(names, tensors[len(inputs) :], strict=True))
        found = torch.func.functional_call(module, weights, again(given, tensors))
        return tuple(leaves(found))

    at = [x.detach().clone() for x in (*inputs, *module.parameters())]
    return f, [x.requires_grad_(x.is_floating_point()) for x in at]


def of_one(f: Callable[..., Any], at: Sequence[Tensor]) -> tuple[Callable[[Tensor], Any], Tensor]:
    """The same as a function of one vector, which has all numbers that can be trained.

    torch's second check asks for one input's gradient after the other's, and each of these
    choices is another program to derive and compile; of one vector there is one.
    """
    parts = [x.detach() for x in at if x.requires_grad]

    def g(vector: Tensor) -> Any:
        pieces = iter(vector.split([x.numel() for x in parts]))
        return f(*(next(pieces).view(x.shape) if x.requires_grad else x for x in at))

    return g, torch.cat([x.reshape(-1) for x in parts]).requires_grad_()


def gradients(f: Callable[..., Any], at: Sequence[Tensor], *, gaps: bool = False) -> list[Tensor]:
    """What a function gives, and its gradients, by adjoints that have gaps or not."""
    values = list(f(*at))
    generator = torch.Generator().manual_seed(2)
    seeds = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values]
    seeds = [with_gaps(s) for s in seeds] if gaps else seeds
    return [*values, *torch.autograd.grad(values, [x for x in at if x.requires_grad], seeds)]


def with_gaps(x: Tensor) -> Tensor:
    """The same numbers, each beside one that must not be read."""
    wide = torch.full((*x.shape, 2), torch.nan, dtype=x.dtype)
    wide[..., 0] = x.detach()
    assert not wide[..., 0].is_contiguous()
    return wide[..., 0].requires_grad_(x.requires_grad)
