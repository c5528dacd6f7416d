"""The compiled backend: a Program's phases as C, and one call of it a sweep."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from bptt.backends.cpu import threads
from bptt.backends.cpu.build import load
from bptt.backends.once import WithoutTime
from bptt.backends.rows import check_rows
from bptt.backends.shapes import layout, solve_sizes
from bptt.calculus.schedule import schedule
from bptt.errors import UserError
from bptt.ir.dims import Dims, shape_of
from bptt.ir.ports import At, Port, inputs, row_numbers
from bptt.ir.program import Program
from bptt.printers.c import print_c

Array = Any
Shapes = tuple[tuple[int, ...], ...]

_REALS = {"float32": "float", "float64": "double"}
KINDS = tuple(_REALS)  # the number formats that there is compiled code for


def execute(
    p: Program, arrays: Sequence[Array], batch_sizes: Sequence[int] | None = None
) -> list[Array]:
    """Run `p`, as `backends.reference.execute` does, by compiled code.

    NumPy arrays or torch tensors on the CPU, all float32 or all float64. Raises UserError where
    shapes or number formats do not fit or there is no C compiler, MemoryError.
    """
    code, like = _code(p), arrays[0]
    if len(arrays) != len(code.inputs):
        raise UserError(f"{len(arrays)} arrays for the {len(code.inputs)} inputs of a sweep")
    lengths = None if batch_sizes is None else tuple(map(int, batch_sizes))
    launch = code.launch(tuple(tuple(a.shape) for a in arrays), lengths)
    return launch.run(arrays, _library(p, _real(arrays), os.environ.get("BPTT_CFLAGS", "")), isinstance(like, np.ndarray))


def _real(arrays: Sequence[Array]) -> str:
    kinds = {str(a.dtype).removeprefix("torch.") for a in arrays}
    if len(kinds) == 1 and (kind := kinds.pop()) in _REALS:
        return _REALS[kind]
    found = ", ".join(sorted(kinds)) or kind
    raise UserError(
        f"the compiled backend takes float32 or float64, and was given {found}",
        help="convert all to one of them, or choose the reference backend",
    )


@dataclass(frozen=True)
class _Library:
    """A loaded sweep, and the driver that walks it."""

    sweep: ctypes.c_void_p
    run: Any
    held: ctypes.CDLL  # what `sweep` points into


@lru_cache(maxsize=512)
def _library(p: Program, real: str, extra: str) -> _Library:
    flags = (f"-DBPTT_REAL={real}", *extra.split())
    held = load(_code(p).printed.source, flags=flags)
    run = load('#include "loop.c"\n', flags=flags).bptt_run
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    run.argtypes = (*[pointer] * 4, *[whole] * 3, pointer, ctypes.c_int, pointer)
    run.restype = ctypes.c_int
    sweep = ctypes.addressof(ctypes.c_char.in_dll(held, "bptt_sweep"))
    return _Library(ctypes.c_void_p(sweep), run, held)


class _Code:
    """What is known of a Program before its arrays are."""

    def __init__(self, p: Program) -> None:
        self.program, self.plan = p, schedule(p)
        self.inputs, self.rows = inputs(p), row_numbers(p)
        self.printed = print_c(self.plan)
        self.before = WithoutTime(self.plan.once, p)
        self.after = WithoutTime(self.plan.finish, p)
        self.launches: dict[tuple[Shapes, tuple[int, ...] | None], _Launch] = {}

    def launch(self, shapes: Shapes, lengths: tuple[int, ...] | None) -> _Launch:
        found = self.launches.get((shapes, lengths))
        if found is None:
            if len(self.launches) > 256:
                self.launches.clear()
            found = self.launches[shapes, lengths] = _Launch(self, shapes, lengths)
        return found


@lru_cache(maxsize=512)
def _code(p: Program) -> _Code:
    return _Code(p)


class _Launch:
    """What is the same for all calls with arrays of the same shapes."""

    def __init__(self, code: _Code, shapes: Shapes, lengths: tuple[int, ...] | None) -> None:
        p, printed = code.program, code.printed
        self.code = code
        self.sizes = solve_sizes(p, code.inputs, shapes)
        counts, batch = layout(dict(zip(code.inputs, shapes, strict=True)), lengths)
        self.groups = max((s[0] for s in shapes), default=1)
        whole = ctypes.c_int64
        numbers = [self.sizes[s] for s in printed.sizes]
        self.numbers = (whole * max(1, len(numbers)))(*numbers)
        self.lengths = None if lengths is None else (whole * max(1, len(counts)))(*counts)
        self.steps, self.batch, rows = len(counts), batch, sum(counts)
        series = (rows,) if lengths is not None else (len(counts), batch)
        self.wide: list[int] = []  # inputs that lack the group axis that others have
        strides: list[int] = []
        for k, (port, shape) in enumerate(zip(code.inputs, shapes, strict=True)):
            if port.at is At.CONST:
                strides += self.constant(shape[1:], shape[0])
                continue
            if shape[0] != self.groups:
                self.wide.append(k)
            strides += (shape[-1], 1, prod(shape[1:]))
        self.shapes: list[tuple[int, ...]] = []  # of what comes out
        for port in printed.outputs:
            shape = shape_of(p.dims(port.name), self.sizes)
            if port.at is At.CONST:
                strides += self.constant(shape, self.groups, fills=True)
            else:
                shape = (*(series if port.at is At.STEPS else (batch,)), *(shape or (1,)))
                strides += (shape[-1], 1, prod(shape))
            self.shapes.append((self.groups, *shape))
        self.once = len(strides) // 3
        dims: dict[str, Dims] = {e.name: e.rhs.dims for e in code.plan.once}
        grouped = any(
            port.at is At.CONST and shape[0] > 1
            for port, shape in zip(code.inputs, shapes, strict=True)
        )
        self.grouped = self.groups if grouped else 1
        self.once_ranks = {name: len(d) for name, d in dims.items()}
        for name in printed.once:
            strides += self.constant(shape_of(dims[name], self.sizes), self.grouped)
        for name in printed.sums:
            shape = shape_of(p.dims(name), self.sizes)
            strides += self.constant(shape, self.groups, fills=True)
            self.shapes.append((self.groups, *shape))
        self.strides = (whole * len(strides))(*strides)
        self.late = [  # outputs that no phase fills: values without time
            k
            for k, port in enumerate(printed.outputs)
            if port.at is At.CONST and port.name in {*printed.once, *code.after.names}
        ]

    def constant(self, shape: tuple[int, ...], groups: int, *, fills: bool = False) -> list[int]:
        """The strides of a value without time. `fills`: a column, where it is a vector."""
        group = 0 if groups == 1 else prod(shape)
        if len(shape) == 2:
            return [shape[1], 1, group]
        return [int(fills), len(shape), group]

    def run(self, arrays: Sequence[Array], library: _Library, numpy: bool) -> list[Array]:
        code = self.code
        if code.rows:
            check_rows(code.rows, dict(zip(code.inputs, arrays, strict=True)), self.sizes)
        held = [self.contiguous(a, numpy) for a in arrays]
        like = held[0]
        for k in self.wide:
            held[k] = self.widened(held[k], numpy)
        if numpy:
            made = [np.empty(shape, like.dtype) for shape in self.shapes]
        else:
            made = [like.new_empty(shape) for shape in self.shapes]
        outputs = len(code.printed.outputs)
        constants: dict[str, Array] = {}
        onces: list[Array] = []
        if code.plan.once or code.plan.finish:
            constants = {
                port.name: a
                for port, a in zip(code.inputs, held, strict=True)
                if port.at is At.CONST
            }
            constants.update(code.before(constants, self.sizes, like))
            for name in code.printed.once:
                a = constants[name]
                a = a if len(a.shape) > self.once_ranks[name] else a[None]
                alike = a.shape[0] == self.grouped
                onces.append(self.contiguous(a if alike else self.widened(a, numpy), numpy))
        every = (*held, *made[:outputs], *onces, *made[outputs:])
        found = [a.ctypes.data for a in every] if numpy else [a.data_ptr() for a in every]
        team = threads.fork_join() if (count := threads.count()) > 1 else None
        status = library.run(
            library.sweep,
            self.numbers,
            (ctypes.c_void_p * len(found))(*found),
            self.strides,
            self.groups,
            self.steps,
            self.batch,
            self.lengths,
            count if team else 1,
            (ctypes.c_void_p * 3)(team.parallel, team.thread_num, team.num_threads) if team else None,
        )
        if status:
            raise MemoryError("not enough memory for a sweep over time")
        if self.late:
            sums = dict(
                zip(
                    (*(port.name for port in code.printed.outputs), *code.printed.sums),
                    made,
                    strict=True,
                )
            )
            known: dict[str, Array] = {**sums, **constants}
            known.update(code.after(known, self.sizes, like))
            for k in self.late:
                made[k] = self.filled(known[code.printed.outputs[k].name], self.shapes[k], numpy)
        return made[:outputs]

    def contiguous(self, a: Array, numpy: bool) -> Array:
        return np.ascontiguousarray(a) if numpy else a.contiguous()

    def widened(self, a: Array, numpy: bool) -> Array:
        shape = (self.groups, *a.shape[1:])
        if numpy:
            return np.ascontiguousarray(np.broadcast_to(a, shape))
        return a.expand(shape).contiguous()

    def filled(self, a: Array, shape: tuple[int, ...], numpy: bool) -> Array:
        """A value without time as an output: memory of its own, for each group."""
        if numpy:
            return np.array(np.broadcast_to(a, shape))
        return a.expand(shape).clone()
