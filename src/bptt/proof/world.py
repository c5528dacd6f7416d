"""What a line of a hand-written backward pass may read, with its exact values in one sample.

An array here begins with an axis for time, of length 1 where a value has none. A vector may be
turned into a row (`v.T`); only products with `@` ask which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bptt.errors import Span
from bptt.ir.dims import show_dim
from bptt.language.tree import Definition

Array = Any

# How far a line may be from the truth, as a part of the largest entry of the tensor. Both are the
# same sums of a few products; an author's rounded constant is none of them.
LIMIT = 1e-9


class Val(NamedTuple):
    """The numbers of an expression, [steps or 1, *shape]; `row` where a vector was transposed.

    `nothing`: a gradient beyond the last step, which is zero, whatever its size.
    """

    array: Array
    row: bool = False
    nothing: bool = False

    @property
    def rank(self) -> int:
        return self.array.ndim - 1


class MisfitError(Exception):
    """Sizes that do not fit. Says which; `span` is where."""

    def __init__(self, what: str, span: Span) -> None:
        super().__init__(what)
        self.what, self.span = what, span


@dataclass
class World:
    """All that a line may read, with its exact values.

    `series` [T+2, *shape], slot k the value at step k-1: one step before the first, one behind
    the last. `constants` have no time. `functions`: what the cell leaves open, bound, and of which
    `kinds` they are; `macros`: the cell's definitions. `jacobian(y, x, held, times)`: how y moves
    with x, where both are (name, lag) and the names `held` stay as they are.
    `rows`: vectors are rows here.
    """

    length: int
    sizes: Mapping[str, int]
    series: dict[str, Array]
    constants: dict[str, Array]
    functions: Mapping[str, Definition] = field(default_factory=dict[str, Definition])
    macros: Mapping[str, Definition] = field(default_factory=dict[str, Definition])
    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    jacobian: Callable[..., Array] | None = None
    rows: bool = False
    unset: set[str] = field(default_factory=set[str])  # names that have no value at any step yet

    def at(self, name: str, times: Array) -> Array:
        """A series at some steps; zero further than a step outside."""
        slots = np.asarray(times) + 1
        inside = (slots >= 0) & (slots < self.length + 2)
        found = self.series[name][np.where(inside, slots, 0)]
        return np.where(inside.reshape(-1, *[1] * (found.ndim - 1)), found, 0)

    def shown(self, shape: tuple[int, ...]) -> str:
        """A shape in the names of the cell's sizes."""
        known = {n: show_dim(name) for name, n in self.sizes.items()}
        names = [str(known.get(n, n)) for n in shape]
        if not names:
            return "a number"
        return f"a vector ({names[0]})" if len(names) == 1 else f"a matrix ({', '.join(names)})"
