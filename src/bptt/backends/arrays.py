"""The array functions that generated source calls, for NumPy arrays and for torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any


class NumpyArrays:
    """NumPy. Nothing here knows about time or cells."""

    add, sub, mul, div, neg = np.add, np.subtract, np.multiply, np.divide, np.negative
    sin, cos = np.sin, np.cos
    tanh, exp, log, sqrt, abs, sign = np.tanh, np.exp, np.log, np.sqrt, np.abs, np.sign
    matmul: Any = np.matmul

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        """Memory that somebody fills."""
        return np.empty(shape, like.dtype)

    def zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        """Zeros."""
        return np.zeros(shape, like.dtype)

    def number(self, value: float, like: Array) -> Array:
        """A number as an array without axes."""
        return np.asarray(value, like.dtype)

    def eye(self, n: int, like: Array) -> Array:
        """The identity matrix."""
        return self.cast(np.eye(n), like)

    def lower(self, n: int, like: Array) -> Array:
        """Ones on and below the diagonal."""
        return self.cast(np.tri(n), like)

    def each(self, n: int, times: int, like: Array) -> Array:
        """The identity matrix, each row several times."""
        return self.cast(np.repeat(np.eye(n), times, axis=0), like)

    def sigmoid(self, a: Array, out: Array | None = None) -> Array:
        """In the form that neither overflows nor loses small values."""
        e = np.exp(-np.abs(a))
        return np.divide(np.where(a >= 0, np.ones_like(e), e), 1 + e, out=out)

    def relu(self, a: Array) -> Array:
        """max(a, 0)."""
        return np.maximum(a, 0)

    def max(self, a: Array, b: Array) -> Array:
        """The larger one, element by element."""
        return np.maximum(a, b)

    def min(self, a: Array, b: Array) -> Array:
        """The smaller one, element by element."""
        return np.minimum(a, b)

    def softplus(self, a: Array) -> Array:
        """log(1 + exp(a))."""
        return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))

    def logsigmoid(self, a: Array) -> Array:
        """log(sigmoid(a))."""
        return np.minimum(a, 0) - np.log1p(np.exp(-np.abs(a)))

    def softsign(self, a: Array) -> Array:
        """a / (1 + |a|)."""
        return a / (1 + np.abs(a))

    def positive(self, a: Array) -> Array:
        """1 where a > 0, else 0."""
        return (a > 0).astype(a.dtype)

    def prefer(self, a: Array, b: Array) -> Array:
        """1 where a > b, 1/2 where equal, else 0."""
        return 0.5 * (1 + np.sign(a - b))

    def same(self, a: Array, b: Array) -> Array:
        """1 where a = b, else 0."""
        return (a == b).astype(np.result_type(a))

    def unless(self, a: Array, c: Array) -> Array:
        """0 where c > 0, else a."""
        return np.where(c > 0, np.zeros_like(a), a)

    def sum(self, a: Array) -> Array:
        """Of each row, kept as one column."""
        return a.sum(-1, keepdims=True)

    def row_max(self, a: Array) -> Array:
        """Of each row, kept as one column."""
        return a.max(-1, keepdims=True)

    def row_sum(self, a: Array) -> Array:
        """Over all rows."""
        return a.sum(-2)

    def sum_all(self, a: Array, axes: int) -> Array:
        """Over the last one or two axes."""
        return a.sum(tuple(range(-axes, 0)))

    def row(self, table: Array, k: Array) -> Array:
        """The rows of a table, [..., V, w], whose numbers stand in `k`, [..., N, 1]."""
        at = k[..., 0].astype(np.intp)
        if table.ndim == 2 or table.shape[0] == 1:
            return table.reshape(table.shape[-2:])[at]
        return table[np.arange(table.shape[0])[:, None], at]

    def put_row(self, a: Array, k: Array, rows: int) -> Array:
        """Each row of `a`, [..., N, w], added to that row of zeros whose number stands in `k`."""
        out = np.zeros((*a.shape[:-2], rows, a.shape[-1]), a.dtype)
        at = k[..., 0].astype(np.intp)
        groups = () if a.ndim == 2 else (np.arange(a.shape[0])[:, None],)
        np.add.at(out, (*groups, at), a)
        return out

    def swap(self, a: Array) -> Array:
        """The transpose of the last two axes."""
        return np.swapaxes(a, -1, -2)

    def gemm(self, a: Array, panel: Array, plus: Array | None = None) -> Array:
        """a @ panel + plus."""
        c = np.matmul(a, panel)
        if plus is not None:
            c += plus
        return c

    def cat(self, arrays: Sequence[Array]) -> Array:
        """Columns side by side."""
        return _cat(np, arrays, -1)

    def join(self, arrays: Sequence[Array]) -> Array:
        """Vectors without rows, one after the other."""
        return _join(np, arrays)

    def rows(self, arrays: Sequence[Array]) -> Array:
        """Rows one below the other."""
        return _cat(np, arrays, -2)

    def split(self, a: Array, counts: Sequence[int]) -> list[Array]:
        """Rows cut into stretches."""
        if len(set(counts)) == 1:
            whole = a.reshape(*a.shape[:-2], len(counts), counts[0], a.shape[-1])
            return [whole[..., t, :, :] for t in range(len(counts))]
        return np.split(a, np.cumsum(counts[:-1]), axis=-2)

    def spread(self, a: Array, lead: tuple[int, ...], width: int) -> Array:
        """All rows and columns of what is equal along some."""
        return np.broadcast_to(a, (*lead, width))

    def whole(self, a: Array, shape: tuple[int, ...]) -> Array:
        """An array without rows, with all its elements."""
        lead = np.shape(a)[: max(0, np.ndim(a) - len(shape))]
        return np.broadcast_to(a, (*lead, *shape))

    def embed(self, a: Array, starts: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        """`a` at a place in zeros."""
        out = np.zeros((*a.shape[: a.ndim - len(shape)], *shape), a.dtype)
        out[_place(a, starts)] = a
        return out

    def compact(self, a: Array) -> Array:
        """Contiguous memory of its own."""
        return np.array(a, order="C")

    def cast(self, a: Array, like: Array) -> Array:
        """In the number format of `like`."""
        return np.asarray(a, like.dtype)


class TorchArrays(NumpyArrays):
    """torch, on the device of what it is given. Made by `table`, which imports torch."""

    def __init__(self) -> None:
        import torch

        f = torch.nn.functional
        self.torch = torch
        self.add, self.sub, self.mul, self.div = torch.add, torch.sub, torch.mul, torch.div
        self.neg, self.tanh, self.exp, self.log = torch.neg, torch.tanh, torch.exp, torch.log
        self.sin, self.cos = torch.sin, torch.cos
        self.sqrt, self.abs, self.sign = torch.sqrt, torch.abs, torch.sign
        self.matmul, self.log_sigmoid = torch.matmul, f.logsigmoid
        self.embedding = f.embedding

    def sigmoid(self, a: Array, out: Array | None = None) -> Array:
        return self.torch.sigmoid(a, out=out)

    def relu(self, a: Array) -> Array:
        return self.torch.relu(a)

    def logsigmoid(self, a: Array) -> Array:
        return self.log_sigmoid(a)

    def softplus(self, a: Array) -> Array:
        return -self.log_sigmoid(-a)  # torch's own is a straight line above 20

    def max(self, a: Array, b: Array) -> Array:
        return self.torch.maximum(*self._both(a, b))

    def min(self, a: Array, b: Array) -> Array:
        return self.torch.minimum(*self._both(a, b))

    def _both(self, a: Array, b: Array) -> list[Array]:
        """Two tensors, where one may be a number."""
        like = a if isinstance(a, self.torch.Tensor) else b
        return [x if isinstance(x, self.torch.Tensor) else like.new_tensor(x) for x in (a, b)]

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return self.torch.empty(shape, dtype=like.dtype, device=like.device)

    def zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        return self.torch.zeros(shape, dtype=like.dtype, device=like.device)

    def number(self, value: float, like: Array) -> Array:
        return self.torch.tensor(value, dtype=like.dtype, device=like.device)

    def softsign(self, a: Array) -> Array:
        return a / (1 + a.abs())

    def positive(self, a: Array) -> Array:
        return (a > 0).to(a.dtype)

    def prefer(self, a: Array, b: Array) -> Array:
        return 0.5 * (1 + self.torch.sign(a - b))

    def same(self, a: Array, b: Array) -> Array:
        return (a == b).to(a.dtype)

    def unless(self, a: Array, c: Array) -> Array:
        a, c = self._both(a, c)
        return self.torch.where(c > 0, a.new_zeros(()), a)

    def sum(self, a: Array) -> Array:
        return a.sum(-1, keepdim=True)

    def row_max(self, a: Array) -> Array:
        return a.amax(-1, keepdim=True)

    def sum_all(self, a: Array, axes: int) -> Array:
        return a.sum(tuple(range(-axes, 0)))

    def row(self, table: Array, k: Array) -> Array:
        at = k[..., 0].long()
        if table.ndim == 2 or table.shape[0] == 1:
            return self.embedding(at, table.reshape(table.shape[-2:]))
        return table[self.torch.arange(table.shape[0], device=at.device)[:, None], at]

    def put_row(self, a: Array, k: Array, rows: int) -> Array:
        at = k[..., 0].long()
        lead = a.shape[:-2]
        if lead:  # one table after the other
            at = at + rows * self.torch.arange(lead[0], device=at.device)[:, None]
        out = a.new_zeros((lead[0] if lead else 1) * rows, a.shape[-1])
        out.index_add_(0, at.reshape(-1), a.reshape(-1, a.shape[-1]))
        return out.reshape(*lead, rows, a.shape[-1])

    def swap(self, a: Array) -> Array:
        return a.transpose(-1, -2)

    def gemm(self, a: Array, panel: Array, plus: Array | None = None) -> Array:
        if plus is None:
            return self.torch.matmul(a, panel)
        if a.ndim == 2:
            return self.torch.addmm(plus, a, panel)
        return self.torch.matmul(a, panel) + plus

    def cat(self, arrays: Sequence[Array]) -> Array:
        return _cat(self.torch, arrays, -1)

    def join(self, arrays: Sequence[Array]) -> Array:
        return _join(self.torch, arrays)

    def rows(self, arrays: Sequence[Array]) -> Array:
        return _cat(self.torch, arrays, -2)

    def split(self, a: Array, counts: Sequence[int]) -> list[Array]:
        if len(set(counts)) == 1:
            whole = a.reshape(*a.shape[:-2], len(counts), counts[0], a.shape[-1])
            return list(whole.unbind(-3))
        return list(a.split(list(counts), -2))

    def spread(self, a: Array, lead: tuple[int, ...], width: int) -> Array:
        return self.torch.broadcast_to(a, (*lead, width))

    def whole(self, a: Array, shape: tuple[int, ...]) -> Array:
        return self.torch.broadcast_to(a, (*a.shape[: max(0, a.ndim - len(shape))], *shape))

    def embed(self, a: Array, starts: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        out = a.new_zeros((*a.shape[: a.ndim - len(shape)], *shape))
        out[_place(a, starts)] = a
        return out

    def compact(self, a: Array) -> Array:
        return a.clone(memory_format=self.torch.contiguous_format)

    def cast(self, a: Array, like: Array) -> Array:
        return self.torch.as_tensor(a, dtype=like.dtype, device=like.device)


def _place(a: Array, starts: tuple[int, ...]) -> Any:
    sizes = a.shape[a.ndim - len(starts) :]
    return (..., *(slice(s, s + k) for s, k in zip(starts, sizes, strict=True)))


def _cat(module: Any, arrays: Sequence[Array], axis: int) -> Array:
    """Concatenate, where some may lack the group axis or have it shared."""
    rank = max(a.ndim for a in arrays)
    if rank == 3:
        groups = max(a.shape[0] if a.ndim == 3 else 1 for a in arrays)
        arrays = [module.broadcast_to(a, (groups, *a.shape[-2:])) for a in arrays]
    return arrays[0] if len(arrays) == 1 else module.concatenate(tuple(arrays), axis)


def _join(module: Any, arrays: Sequence[Array]) -> Array:
    """Concatenate vectors, where some may lack the group axis or have it shared."""
    lead = np.broadcast_shapes(*(tuple(a.shape[:-1]) for a in arrays))
    wide = tuple(module.broadcast_to(a, (*lead, a.shape[-1])) for a in arrays)
    return module.concatenate(wide, -1)


_tables: dict[str, Any] = {}


def table(a: Array) -> Any:
    """The table for arrays like `a`."""
    kind = "numpy" if isinstance(a, np.ndarray | np.generic) else "torch"
    if kind not in _tables:
        _tables[kind] = NumpyArrays() if kind == "numpy" else TorchArrays()
    return _tables[kind]
