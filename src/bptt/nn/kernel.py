"""One sweep on tensors that are only what they say: what stands at the bottom of every lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from bptt.nn.backend import execute
from bptt.nn.sweep import From, Sweep, Wiring

Tensors = Sequence[Tensor]
Maybe = Sequence[Tensor | None]


def kernel(
    sweep: Sweep,
    tensors: Tensors,
    batch_sizes: Tensor | None,
    gives: Sequence[tuple[int, ...]] | None = None,
) -> list[Tensor]:
    """Run `sweep` on a backend; what comes out may lie in another order than its shape says, and
    be a view. `gives`: see `stacks.Stacks`. Raises UserError where shapes do not fit."""
    lengths = None if batch_sizes is None else cast(list[int], batch_sizes.tolist())
    sweep.output_shapes(tuple([x.shape for x in tensors]), lengths is not None)
    device = tensors[0].device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return execute(sweep.program, tensors, lengths, gives)
    return execute(sweep.program, tensors, lengths, gives)


def in_order(found: Tensors) -> list[Tensor]:
    """The same, lying as its shape says: as graphs were told, and as `view` takes it."""
    return [y.contiguous() for y in found]


def fed(wiring: Wiring, saved: Tensors, seeds: Maybe) -> list[Tensor]:
    """What a derived sweep reads, in its order."""
    found: list[Tensor] = []
    for source, k in wiring.feed:
        if source is From.SAVED:
            found.append(saved[k])
        elif source is From.ZERO:
            found.append(torch.zeros_like(saved[k]))
        else:
            found.append(cast(Tensor, seeds[k]))
    return found


def floating(xs: Tensors) -> Tensor:
    """One that says of what type and where the results are."""
    return next(x for x in xs if x.is_floating_point())


def shared(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of a constant that all groups share is the sum of theirs."""
    return grad.sum(0, keepdim=True) if x.shape[0] == 1 and grad.shape[0] != 1 else grad
