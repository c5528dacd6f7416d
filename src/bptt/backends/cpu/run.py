"""The compiled backend: a Program's phases as C, and one call of it a sweep."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from bptt.backends.cpu import threads
from bptt.backends.cpu.build import asked_flags, load
from bptt.backends.once import WithoutTime
from bptt.backends.rows import check_rows
from bptt.backends.shapes import layout, solve_sizes
from bptt.calculus.schedule import schedule
from bptt.errors import UserError
from bptt.ir.dims import Dims, shape_of
from bptt.ir.ports import At, inputs, row_numbers
from bptt.ir.program import Program
from bptt.printers.c import print_c

Array = Any
Shapes = tuple[tuple[int, ...], ...]
Lengths = tuple[int, ...] | None
Gives = tuple[tuple[int, ...], ...]

_REALS = {"float32": "float", "float64": "double"}
KINDS = tuple(_REALS)  # the number formats that there is compiled code for


def execute(
    p: Program,
    arrays: Sequence[Array],
    batch_sizes: Sequence[int] | None = None,
    gives: Sequence[tuple[int, ...]] | None = None,
) -> list[Array]:
    """Run `p`, as `backends.reference.execute` does, by compiled code.

    `gives`: of each array that comes out the numbers of the outputs that it holds, one behind the
    other along the axis behind the groups'; if not, each output is one. Several are constants of
    one shape, of one axis at least, and each is held once.

    NumPy arrays or torch tensors on the CPU, all float32 or all float64. Raises UserError where
    shapes or number formats do not fit or there is no C compiler, MemoryError.
    """
    code, like = code_of(p), arrays[0]
    if len(arrays) != len(code.inputs):
        raise UserError(f"{len(arrays)} arrays for the {len(code.inputs)} inputs of a sweep")
    numpy = isinstance(like, np.ndarray)
    check_readable(arrays, numpy)
    lengths = None if batch_sizes is None else tuple(map(int, batch_sizes))
    gives = tuple([(k,) for k in range(code.outputs)]) if gives is None else tuple(gives)
    launch = code.launch(tuple([a.shape for a in arrays]), lengths, gives)
    return launch.run(arrays, code.library(like.dtype), numpy)


def check_readable(arrays: Sequence[Array], numpy: bool) -> None:
    """Raises UserError unless compiled code can read them all: one number format, on the CPU."""
    if any(a.dtype != arrays[0].dtype for a in arrays):
        raise UserError(
            f"a sweep has one number format, and was given {_formats(arrays)}",
            help="convert all arrays to one of them",
        )
    if not numpy and any(a.device.type != "cpu" for a in arrays):
        raise UserError(
            "the compiled backend runs on the CPU, and was given other tensors",
            help="choose the reference backend",
        )


def _formats(arrays: Sequence[Array]) -> str:
    return " and ".join(sorted({str(a.dtype).removeprefix("torch.") for a in arrays}))


class Library:
    """A loaded sweep in one number format, and the driver that walks it."""

    def __init__(self, source: str, real: str) -> None:
        flags = (f"-DBPTT_REAL={real}", *asked_flags())
        self.held = load(source, flags=flags)  # what `sweep` points into
        driver = load('#include "loop.c"\n', flags=("-O3", *flags))  # bodies gain nothing by it
        pointer = ctypes.c_void_p
        self.run, self.open = driver.bptt_run, driver.bptt_open
        self.again, self.close = driver.bptt_again, driver.bptt_close
        self.run.argtypes = (pointer, pointer, ctypes.c_int, pointer)
        self.run.restype = ctypes.c_int
        self.open.argtypes, self.open.restype = (pointer, ctypes.c_int, pointer), pointer
        self.again.argtypes, self.again.restype = (pointer, pointer), None
        self.close.argtypes, self.close.restype = (pointer,), None
        self.sweep = ctypes.addressof(ctypes.c_char.in_dll(self.held, "bptt_sweep"))


class Code:
    """What is known of a Program before its arrays are."""

    def __init__(self, p: Program) -> None:
        self.program, self.plan = p, schedule(p)
        self.inputs, self.rows = inputs(p), row_numbers(p)
        self.printed = print_c(self.plan)
        self.outputs = len(self.printed.outputs)
        self.before = WithoutTime(self.plan.once, p)
        self.after = WithoutTime(self.plan.finish, p)
        self.plain = not (self.plan.once or self.plan.finish or self.rows)
        self.libraries: dict[Any, Library] = {}
        self.launches: dict[tuple[Shapes, Lengths, Gives], Launch] = {}

    def library(self, kind: Any) -> Library:
        """The compiled code for a dtype of NumPy or torch. Raises UserError for other ones."""
        found = self.libraries.get(kind)
        if found is None:
            name = str(kind).removeprefix("torch.")
            if name not in _REALS:
                raise UserError(
                    f"the compiled backend takes {' or '.join(KINDS)}, and was given {name}",
                    help="convert to one of them, or choose the reference backend",
                )
            found = self.libraries[kind] = Library(self.printed.source, _REALS[name])
        return found

    def launch(self, shapes: Shapes, lengths: Lengths, gives: Gives = ()) -> Launch:
        """What a call with arrays of these shapes is. Raises UserError where they do not fit."""
        key = (shapes, lengths, gives)
        found = self.launches.get(key)
        if found is None:
            if len(self.launches) > 256:
                self.launches.clear()
            found = self.launches[key] = Launch(self, *key)
        return found


@lru_cache(maxsize=512)
def code_of(p: Program) -> Code:
    """The Code of `p`, made once."""
    return Code(p)


class Source(ctypes.Structure):
    """Where a port's array lies: `beyond` numbers behind address number `base` of a call. Where
    `other` is no negative number it is the sum of `count` numbers there and as many behind that."""

    _fields_ = (
        ("base", ctypes.c_int),
        ("other", ctypes.c_int),
        ("beyond", ctypes.c_int64),
        ("count", ctypes.c_int64),
    )


class Frame(ctypes.Structure):
    """What C is told once of calls with arrays of the same shapes: `Frame` in loop.c."""

    _fields_ = (
        ("sweep", ctypes.c_void_p),
        ("n", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("source", ctypes.c_void_p),
        ("groups", ctypes.c_int64),
        ("parts", ctypes.c_int64),
        ("steps", ctypes.c_int64),
        ("batch", ctypes.c_int64),
        ("counts", ctypes.c_void_p),
    )


class Ready:
    """A Launch in one number format: a call of it takes nothing but addresses."""

    def __init__(self, launch: Launch, library: Library, sources: Sequence[Source] | None) -> None:
        # what the frame points into, and not the launch: that holds this
        self.held = launch.numbers, launch.strides, launch.lengths, library
        self.sources = None if sources is None else (Source * max(1, len(sources)))(*sources)
        self.frame = Frame(
            library.sweep,
            ctypes.addressof(launch.numbers),
            ctypes.addressof(launch.strides),
            None if self.sources is None else ctypes.addressof(self.sources),
            launch.groups // launch.parts,
            launch.parts,
            launch.steps,
            launch.batch * launch.parts,
            None if launch.lengths is None else ctypes.addressof(launch.lengths),
        )
        self.where, self._run = ctypes.addressof(self.frame), library.run

    def call(self, addresses: Sequence[int]) -> None:
        """Run on memory at these addresses, to which the sources point. Without those: of the
        inputs, outputs, onces and sums, in order."""
        count = threads.count()
        team = threads.team() if count > 1 else None
        at = array("Q", addresses)  # quicker to fill than an array of ctypes
        if self._run(self.where, at.buffer_info()[0], count if team else 1, team):
            raise MemoryError("not enough memory for a sweep over time")


class Launch:
    """What is the same for all calls with arrays of the same shapes. See `execute` for `gives`."""

    def __init__(self, code: Code, shapes: Shapes, lengths: Lengths, gives: Gives) -> None:
        p, printed = code.program, code.printed
        self.code, self.gives = code, gives
        beside = {k: len(give) for give in gives for k in give}
        self.known: dict[Library, Ready] = {}
        self.sizes = solve_sizes(p, code.inputs, shapes)
        counts, batch = layout(dict(zip(code.inputs, shapes, strict=True)), lengths)
        self.groups = max((s[0] for s in shapes), default=1)
        grouped = any(
            port.at is At.CONST and shape[0] > 1
            for port, shape in zip(code.inputs, shapes, strict=True)
        )
        self.grouped = self.groups if grouped else 1
        # Groups with the same constants run as one batch, and each has sums of its own.
        self.parts = self.groups if self.groups > 1 and lengths is None and not grouped else 1
        whole = ctypes.c_int64
        numbers = [self.sizes[s] for s in printed.sizes]
        self.numbers = (whole * max(1, len(numbers)))(*numbers)
        self.lengths = None if lengths is None else (whole * max(1, len(counts)))(*counts)
        self.steps, self.batch, rows = len(counts), batch, sum(counts)
        series = (rows,) if lengths is not None else (len(counts), batch)
        self.wide: list[int] = []  # inputs that lack the group axis that others have
        self.turned = [  # series in, and out, of which the groups of a step stand together
            [k for k, port in enumerate(ports) if self.parts > 1 and port.at is At.STEPS]
            for ports in (code.inputs, printed.outputs)
        ]
        strides: list[int] = []
        for k, (port, shape) in enumerate(zip(code.inputs, shapes, strict=True)):
            if port.at is At.CONST:
                strides += _strides(shape[1:], shape[0])
                continue
            if shape[0] != self.groups:
                self.wide.append(k)
            strides += (shape[-1], 1, prod(shape[1:]))
        self.shapes: list[tuple[int, ...]] = []  # of what comes out
        for k, port in enumerate(printed.outputs):
            shape = shape_of(p.dims(port.name), self.sizes)
            if port.at is At.CONST:
                down, right, group = _strides(shape, self.groups, fills=True)
                strides += (down, right, group * beside.get(k, 1))
            else:
                shape = (*(series if port.at is At.STEPS else (batch,)), *(shape or (1,)))
                strides += (shape[-1], 1, prod(shape))
            groups = self.groups
            if self.parts > 1 and port.at is At.STEPS:
                groups, shape = shape[0], (self.groups, *shape[1:])
            self.shapes.append((groups, *shape))
        dims: dict[str, Dims] = {e.name: e.rhs.dims for e in code.plan.once}
        self.once_ranks = {name: len(d) for name, d in dims.items()}
        for name in printed.once:
            strides += _strides(shape_of(dims[name], self.sizes), self.grouped)
        for name in printed.sums:
            shape = shape_of(p.dims(name), self.sizes)
            strides += _strides(shape, self.groups, fills=True)
            self.shapes.append((self.groups, *shape))
        self.strides = (whole * len(strides))(*strides)
        self.pointers = ctypes.c_void_p * max(1, len(strides) // 3)
        self.late = [  # outputs that no phase fills: values without time
            k
            for k, port in enumerate(printed.outputs)
            if port.at is At.CONST and port.name in {*printed.once, *code.after.names}
        ]

    def ready(self, library: Library, sources: Sequence[Source] | None = None) -> Ready:
        """This in a number format; `sources`: where the arrays lie, if not at an address each."""
        if sources is not None:
            return Ready(self, library, sources)
        found = self.known.get(library)
        if found is None:
            found = self.known[library] = Ready(self, library, None)
        return found

    def run(self, arrays: Sequence[Array], library: Library, numpy: bool) -> list[Array]:
        """Run on NumPy arrays or torch tensors; gives the outputs."""
        code, like = self.code, arrays[0]
        constants: dict[str, Array] = {}
        made, wholes = self.memory(like, numpy)
        held = list(arrays)
        for k in self.wide:
            held[k] = _widened(held[k], self.groups, numpy)
        for k in self.turned[0]:  # no copy where it came out of a sweep so
            held[k] = held[k].swapaxes(0, 1)
        held = [_contiguous(a, numpy) for a in held]
        if code.plain:
            every = held + made
        else:
            constants = self.constants(arrays, held, like)
            onces = [self.once(name, constants[name], numpy) for name in code.printed.once]
            every = [*held, *made[: code.outputs], *onces, *made[code.outputs :]]
        ready = self.ready(library)
        ready.call([a.ctypes.data if numpy else a.data_ptr() for a in every])
        for k in self.turned[1]:
            made[k] = made[k].swapaxes(0, 1)
        if not code.plain:
            self.finish(made, constants, like)
        return [made[give[0]] if len(give) == 1 else wholes[give] for give in self.gives]

    def memory(self, like: Array, numpy: bool) -> tuple[list[Array], dict[tuple[int, ...], Array]]:
        """What outputs and sums are written to, and the arrays in which several of those lie."""

        def empty(shape: Sequence[int]) -> Array:
            return np.empty(shape, like.dtype) if numpy else like.new_empty(shape)

        wholes: dict[tuple[int, ...], Array] = {}
        parts: dict[int, Array] = {}
        for give in self.gives:
            if len(give) > 1:
                groups, rows, *rest = self.shapes[give[0]]
                wholes[give] = empty((groups, len(give) * rows, *rest))
                for n, k in enumerate(give):
                    parts[k] = wholes[give][:, n * rows : (n + 1) * rows]
        made = [parts[k] if k in parts else empty(shape) for k, shape in enumerate(self.shapes)]
        return made, wholes

    # --- values without time ---

    def constants(
        self, arrays: Sequence[Array], held: Sequence[Array], like: Array
    ) -> dict[str, Array]:
        """What is known without time before the sweep: parameters, constants, onces."""
        code = self.code
        if code.rows:
            check_rows(code.rows, dict(zip(code.inputs, arrays, strict=True)), self.sizes)
        ports = zip(code.inputs, held, strict=True)
        known = {port.name: a for port, a in ports if port.at is At.CONST}
        known.update(code.before(known, self.sizes, like))
        return known

    def once(self, name: str, a: Array, numpy: bool) -> Array:
        a = a if len(a.shape) > self.once_ranks[name] else a[None]
        if a.shape[0] != self.grouped:
            return _widened(a, self.grouped, numpy)
        return np.ascontiguousarray(a) if numpy else a.contiguous()

    def finish(self, made: list[Array], constants: dict[str, Array], like: Array) -> None:
        """Work out what follows from the sums, and give back what is wanted of it."""
        printed = self.code.printed
        names = (*(port.name for port in printed.outputs), *printed.sums)
        known = {**dict(zip(names, made, strict=True)), **constants}
        known.update(self.code.after(known, self.sizes, like))
        for k in self.late:
            made[k][...] = known[printed.outputs[k].name]


def _strides(shape: tuple[int, ...], groups: int, *, fills: bool = False) -> list[int]:
    """Of a value without time: by row, column, group. `fills`: a sum, whose rows are written."""
    group = 0 if groups == 1 else prod(shape)
    if len(shape) == 2:
        return [shape[1], 1, group]
    return [int(fills), len(shape), group]


def _contiguous(a: Array, numpy: bool) -> Array:
    if numpy:
        return np.ascontiguousarray(a)
    return a if a.is_contiguous() else a.contiguous()


def _widened(a: Array, groups: int, numpy: bool) -> Array:
    shape = (groups, *a.shape[1:])
    if numpy:
        return np.ascontiguousarray(np.broadcast_to(a, shape))
    return a.expand(shape).contiguous()
