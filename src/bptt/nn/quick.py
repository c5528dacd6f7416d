"""The short way through a layer where nothing but its numbers, or their gradients, can be meant.

Without transforms, modes or autocast a layer of plain tensors hands its parameters' addresses to
the compiled code at once. All that a caller may have changed since the last call (parameters,
threads, the backend) is read anew; only what follows from shapes is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bptt.nn.backend import compiled
from bptt.nn.layout import Layout
from bptt.nn.run import transformed
from bptt.nn.trained import Read, Way

PLAIN = (Tensor, nn.Parameter)


class Source(NamedTuple):
    """Where a constant of the cell lies: part number `part` of `parts` of a parameter, or of the
    sum of two."""

    names: tuple[str, ...]
    part: int = 0
    parts: int = 1


class Quick:
    """One layer's short way. `sources`: of the constants of each layer and direction."""

    def __init__(self, layout: Layout, sources: Sequence[Sequence[Mapping[str, Source]]]) -> None:
        self.layout, self.sources = layout, sources
        each = [d for ds in sources for d in ds]
        self.names = list(dict.fromkeys(n for d in each for s in d.values() for n in s.names))
        self.rows = len(each)
        self.ways: list[list[Way]] | None = None
        self.filled: dict[tuple[torch.dtype, int], list[Tensor]] = {}
        simple = not layout.others and len(layout.outputs) == 1
        self.possible = simple and all(isinstance(start, float) for start in layout.starts)

    def __reduce__(self) -> tuple[type[Quick], tuple[object, ...]]:
        return Quick, (self.layout, self.sources)

    def run(
        self,
        layer: nn.Module,
        x: Tensor,
        starts: Sequence[Tensor] | None,
        widths: Sequence[int],
        keep: str,
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """What `run_layers` gives, or None where it is for that to run.

        `x` is [T, B, X] and as wide as the layer says; `widths` are those of the states.
        """
        if not self.possible or not _meant(x):
            return None
        dtype, rows, batch = x.dtype, self.rows, x.shape[1]
        params, buffers = layer._parameters, layer._buffers
        values: list[Tensor] = []
        for name in self.names:
            p = params.get(name)
            if p is None:
                p = buffers.get(name)
            if type(p) not in PLAIN or p is None or not _fits(p, dtype):
                return None  # parametrized, for instance: it is worked out when it is read
            values.append(p)
        if starts is None:
            starts = self._starts(dtype, batch, widths)
        else:
            for s, w in zip(starts, widths, strict=True):
                if type(s) not in PLAIN or not _fits(s, dtype) or s.shape != (rows, batch, w):
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
        finals: list[Sequence[Tensor]] = []
        for directions in ways:
            outs: list[Tensor] = []
            for way in directions:
                mine = [values[k] for k in way.params]
                row = len(finals)
                own = starts if rows == 1 else [s[row : row + 1] for s in starts]
                run = way.trained(x, mine, own) if trained else way.forward(x, mine, own, False)
                outs.append(run[0])
                finals.append(run[1:])
            x = outs[0] if len(outs) == 1 else torch.cat(outs, -1)
        if rows == 1:
            return x, tuple(finals[0])
        return x, tuple([torch.cat(found) for found in zip(*finals, strict=True)])

    def _starts(self, dtype: torch.dtype, batch: int, widths: Sequence[int]) -> list[Tensor]:
        """The cell's own initial states, [rows, batch, w] each. Nobody writes to them."""
        found = self.filled.get((dtype, batch))
        if found is None:
            if len(self.filled) > 16:
                self.filled.clear()
            with torch.inference_mode(False):  # or no later call could be trained
                found = [
                    torch.full((self.rows, batch, w), float(start), dtype=dtype, device="cpu")
                    for start, w in zip(self.layout.starts, widths, strict=True)
                ]
            self.filled[dtype, batch] = found
        return found

    def _ways(self) -> list[list[Way]]:
        places = {name: k for k, name in enumerate(self.names)}

        def read(name: str, sources: Mapping[str, Source]) -> Read:
            if not name:
                return (-1, -1, 0, 1)
            names, part, parts = sources[name]
            return (places[names[0]], places[names[1]] if names[1:] else -1, part, parts)

        def way(text: str, sources: Mapping[str, Source]) -> Way:
            reads = [read(name, sources) for name in self.layout.reads]
            used = sorted({k for r in reads for k in r[:2] if k >= 0})
            return Way(text, reads, used)

        texts = (self.layout.forward, self.layout.backward)
        ways = [
            [way(text, sources) for text, sources in zip(texts, directions, strict=False)]
            for directions in self.sources
        ]
        self.possible = all(w.possible for directions in ways for w in directions)
        self.ways = ways  # last: another thread takes them from here
        return ways


def _fits(x: Tensor, dtype: torch.dtype) -> bool:
    return x.dtype is dtype and x.is_contiguous() and not x.is_neg() and x.is_cpu


def _meant(x: Tensor) -> bool:
    """Whether a tensor is only what it says, and compiled code runs it."""
    if torch.compiler.is_compiling():
        return False  # first: what follows cannot be traced
    return (
        type(x) in PLAIN
        and x.is_contiguous()
        and not x.is_neg()
        and compiled(x)
        and x.dim() == 3
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and not torch.is_autocast_enabled("cpu")
        and getattr(forward_ad, "_current_level", 0) < 0
        and not transformed()
    )
