"""The short way through a layer where nothing but its numbers, or their gradients, can be meant.

Without transforms, modes or autocast a layer of plain tensors hands its parameters' addresses to
the compiled code at once. All that a caller may have changed since the last call (parameters,
threads, the backend) is read anew; only what follows from shapes is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from bptt.nn.again import Again
from bptt.nn.backend import PLAIN, compiled, readable
from bptt.nn.batches import Batch
from bptt.nn.lanes import transformed
from bptt.nn.layout import Layout
from bptt.nn.stacks import Part
from bptt.nn.trained import Lengths, Way
from bptt.nn.weights import Source


class Quick:
    """One layer's short way. `sources`: of the constants of each layer and direction. `learned`:
    the parameters from which its states begin, if they are not the cell's own numbers."""

    def __init__(
        self,
        layout: Layout,
        sources: Sequence[Sequence[Mapping[str, Source]]],
        learned: Sequence[str] = (),
    ) -> None:
        self.layout, self.sources, self.learned = layout, sources, learned
        each = [d for ds in sources for d in ds]
        found = [s for d in each for s in d.values()]
        self.names = list(dict.fromkeys(n for s in found for n in s.names))
        self.zeros = max((s.zeros for s in found), default=0)
        self.rows = len(each)
        self.ways: list[list[Way]] | None = None
        self.again: dict[object, Again] = {}
        self.filled: dict[tuple[torch.dtype, int], list[Tensor]] = {}
        self.why = _refusal(layout)  # there is none
        self.possible = self.why is None

    def __reduce__(self) -> tuple[type[Quick], tuple[object, ...]]:
        return Quick, (self.layout, self.sources, self.learned)

    def run(
        self,
        layer: Any,
        given: Tensor | PackedSequence,
        states: Sequence[Tensor] | None,
        widths: Sequence[int],
        keep: str,
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...]] | None:
        """What a call of `layer` with an input and states gives, or None where the long way is to
        run: also where anything does not fit, which that refuses. `widths`: of the states."""
        if not self.possible or torch.compiler.is_compiling():  # what follows cannot be traced
            return None
        packed = isinstance(given, PackedSequence)
        x = given.data if packed else given
        if not (packed or torch.is_grad_enabled() or layer.batch_first) and type(x) in PLAIN:
            again = self.again.get(x.shape)
            if again is not None and compiled(x) and _undisturbed():
                same = again.run(layer, x, states)
                if same is not None:
                    return same
        if not _meant(x) or x.shape[-1] != layer.input_size or not x.numel():
            return None
        if x.dim() != 2 and (packed or x.dim() != 3):
            return None
        batch = None
        if packed or layer.batch_first or x.dim() == 2:
            batch = Batch.of(given, layer.batch_first)
            x = batch.x
        size = x.shape[1] if batch is None else batch.size
        values = self._values(layer, x.dtype)
        starts = self._given(layer, states, x.dtype, size, widths, batch)
        if values is None or starts is None:
            return None
        trained = torch.is_grad_enabled() and (
            x.requires_grad
            or any(p.requires_grad for p in values)
            or any(s.requires_grad for s in starts)
        )
        if trained and keep != "all":
            return None
        ways = self.ways or self._ways()
        if not self.possible:
            return None
        lengths: Lengths = None
        if batch is not None and batch.batch_sizes is not None:
            lengths = tuple(batch.batch_sizes.tolist())
        dropout = layer.dropout if layer.training else 0.0
        finals: list[Sequence[Tensor]] = []
        for directions in ways:
            if dropout and finals:
                x = nn.functional.dropout(x, dropout)
            x = x.contiguous()
            outs: list[Tensor] = []
            for way in directions:
                mine = [values[k] for k in way.params]
                row = len(finals)
                own = starts if self.rows == 1 else [s[row : row + 1] for s in starts]
                if trained:
                    run = way.trained(x, mine, own, lengths)
                else:
                    run = way.forward(x, mine, own, lengths)
                outs.append(run[0])
                finals.append(run[1:])
            x = outs[0] if len(outs) == 1 else torch.cat(outs, -1)
        if self.rows == 1 and batch is None and not (self.learned or torch.is_grad_enabled()):
            self._remember(layer, cast(Tensor, given), values, widths)
        last = finals[0]
        if self.rows > 1:
            last = [torch.cat(found) for found in zip(*finals, strict=True)]
        return (x, tuple(last)) if batch is None else batch.back(x, last)

    def _remember(
        self, layer: Any, x: Tensor, values: Sequence[Tensor], widths: Sequence[int]
    ) -> None:
        """Let the next call like this one be the shortest."""
        ((way,),) = self.ways or self._ways()
        starts = self._given(layer, None, x.dtype, x.shape[1], widths, None)
        assert starts is not None
        params = [values[k] for k in way.params]
        names = [self.names[k] for k in way.params if k < len(self.names)]
        known = [(name, p.shape) for name, p in zip(names, params, strict=False)]
        if len(self.again) > 16:
            self.again.clear()
        at = way.at(x, params, starts, None, longer=False)
        short = bool(starts) and starts[0].shape == at.outs[0]
        self.again[x.shape] = Again(at, x.dtype, known, params[len(names) :], starts, short)

    def obstacle(self, layer: nn.Module) -> str | None:
        """Why a call of `layer` with plain tensors of its own kind would go the long way."""
        if self.possible and self.ways is None:
            self._ways()
        if not self.possible:
            return self.why
        held = {**layer._buffers, **layer._parameters}
        first = next((p for p in held.values() if p is not None), None)
        for name in (*self.names, *self.learned):
            if first is None or not readable([held.get(name)], first.dtype):
                return f"{name} is no plain parameter"
        return None

    def _values(self, layer: Any, dtype: torch.dtype) -> list[Tensor] | None:
        """The parameters and buffers; None where one is no plain tensor of this format."""
        params, buffers = layer._parameters, layer._buffers
        values: list[Tensor] = []
        for name in self.names:
            p = params.get(name)
            if p is None:
                p = buffers.get(name)
            values.append(p)
        if not readable(values, dtype):
            return None  # parametrized, for instance: it is worked out when it is read
        if self.zeros:
            values += self._filled(dtype, 0, (0.0,), [(self.zeros,)])
        return values

    def _given(
        self,
        layer: Any,
        states: Sequence[Tensor] | None,
        dtype: torch.dtype,
        size: int,
        widths: Sequence[int],
        batch: Batch | None,
    ) -> list[Tensor] | None:
        """The states to begin with, [rows, size, w] each; None where one does not fit."""
        rows = self.rows
        if states is None and not self.learned:
            shapes = [(rows, size, w) for w in widths]
            return self._filled(dtype, size, self.layout.starts, shapes)
        lead = (rows, size)
        if states is None:
            states, lead = [layer._parameters.get(name) for name in self.learned], (rows,)
        elif batch is not None and batch.unbatched:
            lead = (rows,)
        if len(states) != len(widths):
            return None
        for s, w in zip(states, widths, strict=True):
            if not _fits(s, dtype) or s.shape != (*lead, w):
                return None
        if lead == (rows,):
            states = [s[:, None].expand(-1, size, -1) for s in states]
        elif batch is not None:
            states = batch.starts(states)
        return [s.contiguous() for s in states]

    def _filled(
        self,
        dtype: torch.dtype,
        size: int,
        numbers: Sequence[float | str],
        shapes: Sequence[tuple[int, ...]],
    ) -> list[Tensor]:
        """Tensors of these shapes that hold one number each. Nobody writes to them."""
        found = self.filled.get((dtype, size))
        if found is None:
            if len(self.filled) > 16:
                self.filled.clear()
            with torch.inference_mode(False):  # or no later call could be trained
                found = [
                    torch.full(shape, float(number), dtype=dtype, device="cpu")
                    for number, shape in zip(numbers, shapes, strict=True)
                ]
            self.filled[dtype, size] = found
        return found

    def _ways(self) -> list[list[Way]]:
        places = {name: k for k, name in enumerate(self.names)}

        def way(text: str, sources: Mapping[str, Source]) -> Way:
            own = [sources[name] for name in self.layout.reads if name]
            used = sorted({len(places) if s.zeros else places[n] for s in own for n in s.names})
            number = {k: n for n, k in enumerate(used, 1)}

            def read(name: str) -> Part:
                if not name:
                    return Part(0)
                names, part, parts, zeros = sources[name]
                first, *more = (number[len(places) if zeros else places[n]] for n in names)
                return Part(first, more[0] if more else -1, part, parts)

            return Way(text, [read(name) for name in self.layout.reads], used)

        texts = (self.layout.forward, self.layout.backward)
        ways = [
            [way(text, sources) for text, sources in zip(texts, directions, strict=False)]
            for directions in self.sources
        ]
        if not all(w.possible for directions in ways for w in directions):
            self.why, self.possible = "the cell computes something before its first step", False
        self.ways = ways  # last: another thread takes them from here
        return ways


def _refusal(layout: Layout) -> str | None:
    """What a cell has for which there is no short way."""
    if layout.others:
        return f"the cell reads a further input `{layout.others[0].name}`"
    if len(layout.outputs) > 1:
        return "the cell has several outputs"
    begun = (
        name
        for (name, _), start in zip(layout.states, layout.starts, strict=True)
        if isinstance(start, str)
    )
    state = next(begun, None)
    return None if state is None else f"the cell begins `{state}` from a parameter"


def _fits(x: Any, dtype: torch.dtype) -> bool:
    return type(x) in PLAIN and x.dtype is dtype and not x.is_neg() and x.is_cpu


def _meant(x: Tensor) -> bool:
    """Whether a tensor is only what it says, and compiled code runs it."""
    return type(x) in PLAIN and not x.is_neg() and compiled(x) and _undisturbed()


def _undisturbed() -> bool:
    """Whether a call is only a call: neither traced nor transformed, nor in another format."""
    return (
        not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and not torch.is_autocast_enabled("cpu")
        and getattr(forward_ad, "_current_level", 0) < 0
        and not transformed()
    )
