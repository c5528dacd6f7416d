"""The functions of hand-written backward passes that join, cut and spread values."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from bptt.errors import CellError
from bptt.ir.dims import size_of
from bptt.language.scope import to_dim
from bptt.language.tree import Expr, said
from bptt.proof.functions import joined, outer
from bptt.proof.world import MisfitError, Val, World

Array = Any

_LARGEST = 2**20  # numbers in a value, at a step: samples are small


class Structures:
    """The value of a call from those of its arguments; each function is a method `call_NAME`."""

    def __init__(self, world: World, e: Expr, args: list[Val]) -> None:
        self.world, self.e, self.args = world, e, args

    def misfit(self, what: str) -> MisfitError:
        return MisfitError(what, self.e.span)

    def size(self, e: Expr) -> int:
        try:
            found = size_of(to_dim(e), self.world.sizes)
        except KeyError as error:
            raise CellError(f"there is no size `{error.args[0]}`", e.span) from None
        if found < 0:
            raise self.misfit(f"the size `{said(e.span)}` is {found}")
        return found

    def room(self, *shape: int) -> tuple[int, ...]:
        """A shape, of which a value may be made."""
        if math.prod(shape) > _LARGEST:
            raise self.misfit(f"`{said(self.e.span)}` has more than {_LARGEST} numbers")
        return shape

    def square(self, size: int) -> int:
        """A size, if there is room for a square matrix of it."""
        return self.room(size, size)[0]

    def shape(self, a: Val) -> str:
        return self.world.shown(a.array.shape[1:])

    def outer(self, a: Val, b: Val) -> Val:
        self.room(a.array.shape[1], b.array.shape[1])
        return outer(a, b)

    def call_diag(self) -> Val:
        (a,) = self.args
        if a.rank == 1:
            size = a.array.shape[1]
            return Val(a.array[:, :, None] * np.eye(self.square(size)))
        if a.rank != 2 or a.array.shape[1] != a.array.shape[2]:
            raise self.misfit(f"`diag` of {self.shape(a)}")
        return Val(np.diagonal(a.array, axis1=1, axis2=2))

    def call_outer(self) -> Val:
        a, b = self.args
        if a.rank != 1 or b.rank != 1:
            raise self.misfit(f"`outer` of {self.shape(a)} and {self.shape(b)}")
        return self.outer(a, b)

    def call_sum(self) -> Val:
        a = self.args[0].array
        return Val(a.reshape(len(a), -1).sum(1))

    def call_concat(self) -> Val:
        arrays = [a.array if a.rank else a.array[:, None] for a in self.args]
        if any(a.ndim != 2 for a in arrays):
            raise self.misfit("`concat` takes vectors and numbers; matrices are stacked: `stack`")
        self.room(sum(a.shape[1] for a in arrays))
        return Val(joined(arrays), all(a.row for a in self.args))

    def call_stack(self) -> Val:
        arrays = [a.array[:, None] if a.rank == 0 else a.array for a in self.args]
        if len({a.shape[2:] for a in arrays}) > 1 or len({a.ndim for a in arrays}) > 1:
            raise self.misfit(f"`stack` of {', '.join(map(self.shape, self.args))}")
        self.room(sum(a.shape[1] for a in arrays), *arrays[0].shape[2:])
        return Val(joined(arrays))

    def call_part(self) -> Val:
        return self.parted(0)

    def call_rows(self) -> Val:
        return self.parted(0)

    def call_cols(self) -> Val:
        return self.parted(1)

    def parted(self, axis: int) -> Val:
        k, n = (self.size(e) for e in self.e.args[1:])
        array = self.args[0].array
        if self.args[0].rank <= axis or not 1 <= k <= n or array.shape[1 + axis] % n:
            raise self.misfit(f"there is no part {k} of {n} of {self.shape(self.args[0])}")
        return Val(np.split(array, n, axis=1 + axis)[k - 1], self.args[0].row)

    def call_repeat(self) -> Val:
        array, times = self.args[0].array, self.size(self.e.args[1])
        if array.ndim != 2:
            raise self.misfit(f"`repeat` of {self.shape(self.args[0])}")
        self.room(array.shape[1], times)
        return Val(np.repeat(array, times, axis=1))

    def call_fold(self) -> Val:
        array, n = self.args[0].array, self.size(self.e.args[1])
        if array.ndim != 2 or not n or array.shape[1] % n:
            raise self.misfit(f"`fold` of {self.shape(self.args[0])} by {n}")
        return Val(array.reshape(len(array), -1, n).sum(-1))

    def call_fill(self) -> Val:
        shape = self.room(*(self.size(e) for e in self.e.args[1:]))
        if self.args[0].rank:
            raise self.misfit(f"`fill` with {self.shape(self.args[0])}")
        return Val(self.args[0].array.reshape(-1, *[1] * len(shape)) * np.ones(shape))

    def call_embed(self) -> Val:
        array, sizes = self.args[0].array, [self.size(e) for e in self.e.args[1:]]
        starts, whole = sizes[::2], self.room(*sizes[1::2])
        ends = [s + n for s, n in zip(starts, array.shape[1:], strict=False)]
        if not len(starts) == len(whole) == array.ndim - 1 or any(map(operator.gt, ends, whole)):
            raise self.misfit(f"`embed` of {self.shape(self.args[0])}")
        found = np.zeros((len(array), *whole), array.dtype)
        found[(slice(None), *map(slice, starts, ends))] = array
        return Val(found)

    def call_eye(self) -> Val:
        size = self.size(self.e.args[0])
        return Val(np.eye(self.square(size))[None])

    def call_lower(self) -> Val:
        size = self.size(self.e.args[0])
        return Val(np.tri(self.square(size))[None])

    def call_each(self) -> Val:
        size, times = (self.size(e) for e in self.e.args)
        self.room(size, size, times)
        return Val(np.repeat(np.eye(size), times, axis=0)[None])
