"""How a layer's input is laid out, and its output given back the way the input came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from bptt.errors import UserError


class Batch(NamedTuple):
    """An input in the order the kernel wants: `x` [T, B, X], or [N, X] with `batch_sizes`."""

    x: Tensor
    size: int  # B
    batch_sizes: Tensor | None
    packed: PackedSequence | None
    unbatched: bool
    batch_first: bool

    @staticmethod
    def of(given: Tensor | PackedSequence, batch_first: bool) -> Batch:
        """`given` [T, B, X] ([B, T, X] with `batch_first`), unbatched [T, X], or packed."""
        if not isinstance(given, Tensor | PackedSequence):
            raise UserError(f"the input is a {type(given).__name__}, and a tensor is needed")
        if isinstance(given, PackedSequence):
            sizes = given.batch_sizes
            return Batch(given.data, _sequences(given), sizes, given, False, False)
        if given.dim() == 2:
            return Batch(given.unsqueeze(1), 1, None, None, True, False)
        if given.dim() != 3:
            raise UserError(
                f"the input has the shape {list(given.shape)}; it is [T, B, X], or [T, X] unbatched"
            )
        x = given.transpose(0, 1) if batch_first else given
        return Batch(x, x.shape[1], None, None, False, batch_first)

    def other(self, given: object, name: str, width: int, *, per_sequence: bool) -> Tensor:
        """A further input in the order of `x`: [T, B, w] or [N, w], or [B, w] `per_sequence`.

        `given` is laid out as the input was. Raises UserError where it does not fit.
        """
        if isinstance(given, PackedSequence):
            if per_sequence or self.packed is None or not _packed_alike(given, self.packed):
                raise UserError(f"`{name}` is packed in another way than the input")
            given = given.data
        elif self.packed is not None and not per_sequence:
            raise UserError(f"`{name}` is not packed, and the input is")
        if not isinstance(given, Tensor):
            raise UserError(f"`{name}` is a {type(given).__name__}, and a tensor is needed")
        wanted = [*self._lead(per_sequence), width]
        if list(given.shape) != wanted:
            raise UserError(f"`{name}` has the shape {list(given.shape)}; it is {wanted}")
        if per_sequence:
            given = given[None] if self.unbatched else given
            order = self.packed.sorted_indices if self.packed is not None else None
            return given if order is None else given.index_select(0, order)
        if self.unbatched:
            return given[:, None]
        return given.transpose(0, 1) if self.batch_first else given

    def _lead(self, per_sequence: bool) -> list[int]:
        """The leading axes of a further input, as the caller has them."""
        if per_sequence:
            return [] if self.unbatched else [self.size]
        lead = list(self.x.shape[:-1])
        if self.unbatched:
            return lead[:1]
        return lead[::-1] if self.batch_first else lead

    def starts(self, states: Sequence[Tensor]) -> list[Tensor]:
        """States [L*D, B, w] as the kernel wants them ([L*D, w] where the input is unbatched)."""
        if self.unbatched:
            return [s.unsqueeze(1) for s in states]
        if self.packed is not None and self.packed.sorted_indices is not None:
            order = self.packed.sorted_indices
            return [s.index_select(1, order) for s in states]
        return list(states)

    def back(
        self, output: Tensor, finals: Sequence[Tensor]
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...]]:
        """The output and the last states, laid out as the input and the first states were."""
        if self.packed is not None:
            p = self.packed
            if p.unsorted_indices is not None:
                finals = [f.index_select(1, p.unsorted_indices) for f in finals]
            packed = PackedSequence(output, p.batch_sizes, p.sorted_indices, p.unsorted_indices)
            return packed, tuple(finals)
        if self.unbatched:
            return output.squeeze(1), tuple(f.squeeze(1) for f in finals)
        return (output.transpose(0, 1) if self.batch_first else output), tuple(finals)


def _sequences(packed: PackedSequence) -> int:
    """The number of sequences, B."""
    if packed.sorted_indices is not None:
        return packed.sorted_indices.shape[0]
    first = packed.batch_sizes[0]
    # a graph that is exported does not know the number: it is one of its symbols
    return cast(int, first.item()) if torch.compiler.is_exporting() else int(first)


def _packed_alike(a: PackedSequence, b: PackedSequence) -> bool:
    """Whether two packed batches have the same sequences in the same order."""
    if not torch.equal(a.batch_sizes, b.batch_sizes):
        return False
    count = _sequences(a)
    orders = [
        torch.arange(count) if p.sorted_indices is None else p.sorted_indices.cpu() for p in (a, b)
    ]
    return torch.equal(*orders)


# asked once: the graphs of torch.compile cannot ask in torch 2.11
_AUTOCAST = frozenset(
    device
    for device in ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla")
    if torch.amp.is_autocast_available(device)
)


class Precision(NamedTuple):
    """What `torch.autocast` asks for: the recurrence runs in its weights' type, and the output
    is given in autocast's. The states stay in the weights' type."""

    inside: torch.dtype
    output: torch.dtype

    @staticmethod
    def of(x: Tensor, weight: Tensor) -> Precision | None:
        """None where there is nothing to cast."""
        device = x.device.type
        if weight.dtype is not torch.float32 or device not in _AUTOCAST:
            return None
        if not torch.is_autocast_enabled(device):
            return None
        return Precision(weight.dtype, torch.get_autocast_dtype(device))
