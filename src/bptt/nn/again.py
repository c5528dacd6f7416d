"""The shortest way: a call like one before, of one layer in one direction, without gradients.

Where a step is short, what Python does around it is what it takes. What follows from shapes is
remembered here as a whole; all that a caller may have changed since is read anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bptt.nn.backend import readable
from bptt.nn.trained import Forward


class Again(NamedTuple):
    """Calls on a dense batch of one shape and number format.

    `params`: names and shapes of what it reads of a layer, with the `zeros` that stand for others.
    `starts`: the states to begin with where none are given. `short`: the output is no longer than
    the first of them.
    """

    at: Forward
    dtype: torch.dtype
    params: Sequence[tuple[str, torch.Size]]
    zeros: Sequence[Tensor]
    starts: Sequence[Tensor]
    short: bool

    def run(
        self, layer: Any, x: Tensor, states: Sequence[Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """The output and the last states; None where anything is not as it was."""
        at, dtype, params, zeros, starts, short = self
        own, buffers = layer._parameters, layer._buffers
        read = [x]
        for name, shape in params:
            p = own.get(name)
            if p is None:
                p = buffers.get(name)
            if p is None or p.shape != shape:
                return None
            read.append(p)
        count = len(read)
        if states is not None:
            if len(states) != len(starts):
                return None
            for s, like in zip(states, starts, strict=True):
                if not isinstance(s, Tensor) or s.shape != like.shape:
                    return None
            starts = states
            read += states
        if not readable(read, dtype):
            return None
        output = torch.empty_like(starts[0]) if short else x.new_empty(at.outs[0])
        finals = [torch.empty_like(s) for s in starts]
        all = (*read[:count], *zeros, *starts, output, *finals)
        at.ready.call([t.data_ptr() for t in all])
        return output, tuple(finals)
