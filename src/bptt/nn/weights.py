"""The constants of a cell among the parameters of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

from torch import Tensor, nn

from bptt.nn.stacks import Part, parted


class Source(NamedTuple):
    """Where a constant of the cell lies: part number `part` of `parts` of a parameter, or of the
    sum of two. Or it is so many `zeros`, of the kind that the parameter is."""

    names: tuple[str, ...]
    part: int = 0
    parts: int = 1
    zeros: int = 0


class Weights:
    """Those of one layer and direction. Parameters are read by attribute at every use, so that
    parametrizations and `functional_call` work."""

    def __init__(self, module: nn.Module, sources: Mapping[str, Source]) -> None:
        self.module, self.sources = module, sources

    def __call__(self, name: str) -> Tensor:
        """A constant by its name in the cell, [1, *dims]."""
        tensors, parts = self.held((name,))
        return parted(parts.values(), tensors)[0]

    def held(self, names: Iterable[str]) -> tuple[list[Tensor], dict[str, Part]]:
        """The tensors that these constants lie in, [1, *dims] each, and where."""
        tensors: list[Tensor] = []
        numbers: dict[object, int] = {}

        def number(name: str, zeros: int) -> int:
            found = numbers.setdefault((name, zeros), len(numbers))
            if found == len(tensors):
                x = cast(Tensor, getattr(self.module, name))
                tensors.append(x.new_zeros(1, zeros) if zeros else x[None])
            return found

        parts: dict[str, Part] = {}
        for name in names:
            source = self.sources[name]
            first, *others = (number(kind, source.zeros) for kind in source.names)
            parts[name] = Part(first, others[0] if others else -1, source.part, source.parts)
        return tensors, parts
