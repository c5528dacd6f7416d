"""The short way through a layer where nothing but its numbers can be meant.

Without gradients, transforms, modes or autocast a layer of plain tensors hands its parameters'
addresses to the compiled code at once. All that a caller may have changed since the last call
(parameters, threads, the backend) is read anew; only what follows from shapes is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bptt.backends.cpu.run import Code, Launch, code_of
from bptt.nn.backend import compiled
from bptt.nn.layout import Layout
from bptt.nn.run import transformed
from bptt.nn.sweep import sweep_of

PLAIN = (Tensor, nn.Parameter)


class Source(NamedTuple):
    """Where a constant of the cell lies: part number `part` of `parts` of a parameter, or of the
    sum of two."""

    names: tuple[str, ...]
    part: int = 0
    parts: int = 1


class _Way(NamedTuple):
    """One layer and direction: its code, and for each array that it reads where that lies: -1 for
    the input, else the number of a parameter, of one to add (or -1), and which part of how many."""

    code: Code
    reads: tuple[tuple[int, int, int, int], ...]


class Quick:
    """One layer's short way. `sources`: of the constants of each layer and direction."""

    def __init__(self, layout: Layout, sources: Sequence[Sequence[Mapping[str, Source]]]) -> None:
        self.layout, self.sources = layout, sources
        each = [d for ds in sources for d in ds]
        self.names = list(dict.fromkeys(n for d in each for s in d.values() for n in s.names))
        self.rows = len(each)
        self.ways: list[list[_Way]] | None = None
        self.launches: dict[object, list[Launch]] = {}
        simple = not layout.others and len(layout.outputs) == 1
        self.possible = simple and all(isinstance(start, float) for start in layout.starts)

    def __reduce__(self) -> tuple[type[Quick], tuple[object, ...]]:
        return Quick, (self.layout, self.sources)

    def run(
        self, layer: nn.Module, x: Tensor, starts: Sequence[Tensor] | None, widths: Sequence[int]
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """What `run_layers` gives, or None where it is for that to run.

        `x` is [T, B, X] and as wide as the layer says; `widths` are those of the states.
        """
        if not self.possible or torch.is_grad_enabled() or not _meant(x):
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
            fill = zip(self.layout.starts, widths, strict=True)
            starts = [x.new_full((rows, batch, w), float(start)) for start, w in fill]
        for s, w in zip(starts, widths, strict=True):
            if type(s) not in PLAIN or not _fits(s, dtype) or s.shape != (rows, batch, w):
                return None
        ways = self.ways or self._ways()
        if not self.possible:
            return None
        key = (x.shape, dtype)
        launches = self.launches.get(key) or self._launches(key, ways, values, x, starts)
        finals = [torch.empty_like(s) for s in starts]
        strides = [batch * w * x.element_size() for w in widths]
        firsts = [s.data_ptr() for s in starts]
        lasts = [s.data_ptr() for s in finals]
        held: list[Tensor] = []  # what addresses point into, until the end
        row = 0
        for directions in ways:
            outs: list[Tensor] = []
            for code, reads in directions:
                launch, found = launches[row], list[int]()
                for k, other, part, parts in reads:
                    p = x if k < 0 else values[k]
                    if other >= 0:
                        p = p + values[other]
                        held.append(p)
                    at = p.data_ptr()
                    found.append(at + part * (p.nbytes // parts) if part else at)
                y = x.new_empty(launch.shapes[0][1:])
                found += [at + row * step for at, step in zip(firsts, strides, strict=True)]
                found.append(y.data_ptr())
                found += [at + row * step for at, step in zip(lasts, strides, strict=True)]
                launch.call(code.library(dtype), found)
                outs.append(y)
                row += 1
            held.append(x)
            x = outs[0] if len(outs) == 1 else torch.cat(outs, -1)
        return x, tuple(finals)

    def _ways(self) -> list[list[_Way]]:
        places = {name: k for k, name in enumerate(self.names)}
        sweeps = (sweep_of(self.layout.forward), sweep_of(self.layout.backward))
        codes = [code_of(s.program) for s in sweeps]

        def read(name: str, sources: Mapping[str, Source]) -> tuple[int, int, int, int]:
            if not name:
                return (-1, -1, 0, 1)
            names, part, parts = sources[name]
            return (places[names[0]], places[names[1]] if names[1:] else -1, part, parts)

        self.ways = [
            [
                _Way(code, tuple(read(name, sources) for name in self.layout.reads))
                for code, sources in zip(codes, directions, strict=False)
            ]
            for directions in self.sources
        ]
        self.possible = all(code.plain for code in codes)
        return self.ways

    def _launches(
        self,
        key: object,
        ways: Sequence[Sequence[_Way]],
        values: Sequence[Tensor],
        x: Tensor,
        starts: Sequence[Tensor],
    ) -> list[Launch]:
        if len(self.launches) > 64:
            self.launches.clear()
        made: list[Launch] = []
        lead, wide = x.shape[:-1], x.shape[-1]
        for directions in ways:
            for code, reads in directions:
                shapes: list[tuple[int, ...]] = []
                for k, _, _, parts in reads:
                    shape = (*lead, wide) if k < 0 else tuple(values[k].shape)
                    shapes.append((1, *shape) if k < 0 else (1, *_part(shape, parts)))
                shapes += [(1, *s.shape[1:]) for s in starts]
                made.append(code.launch(tuple(shapes), None))
            wide = sum(launch.shapes[0][-1] for launch in made[-len(directions) :])
        self.launches[key] = made
        return made


def _part(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    return (shape[0] // parts, *shape[1:]) if shape else ()


def _fits(x: Tensor, dtype: torch.dtype) -> bool:
    return x.dtype is dtype and x.is_contiguous() and x.device.type == "cpu"


def _meant(x: Tensor) -> bool:
    """Whether a tensor is only what it says, and compiled code runs it."""
    return (
        type(x) in PLAIN
        and x.is_contiguous()
        and compiled(x)
        and x.dim() == 3
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and getattr(forward_ad, "_current_level", 0) < 0
        and not transformed()
    )
