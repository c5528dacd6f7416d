"""The shape rule of a Program: the shapes of its outputs from those of its inputs.

`STEPS` [G, T, B, w], or [G, N, w] where the batch is ragged (N rows in all); `CONST` [G or 1,
*dims]; all else [G, B, w]. A number that lives each step or each sequence has w = 1. Sizes may
be symbolic (torch's `SymInt`): what is known only as a symbol is computed with, not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bptt.errors import UserError
from bptt.ir.dims import Dim, Dims, show_dim, terms
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Program

Shape = tuple[int, ...]


def tail(p: Program, port: Port) -> Dims:
    """The dims behind the leading axes of the port's array."""
    dims = p.dims(port.name)
    return dims if dims or port.at is At.CONST else (1,)


def describe(p: Program, port: Port, ragged: bool = False) -> str:
    """The port's shape in symbols: `[G, T, B, X]`."""
    shown = [show_dim(dim) for dim in tail(p, port)]
    return f"[{', '.join((*_axes(port, ragged), *shown))}]"


def output_shapes(p: Program, shapes: Sequence[Shape], ragged: bool) -> list[Shape]:
    """The shape of each output port of `p` from the shapes of its input ports.

    Raises UserError where a shape does not fit its port, or the ports each other.
    """
    ports = inputs(p)
    if len(shapes) != len(ports):
        names = ", ".join(port.name for port in ports)
        raise UserError(
            f"the program reads {len(ports)} tensors ({names}); {len(shapes)} were given"
        )
    known: dict[str, int] = {}  # G, T, B, N, each under its letter and a space, and the sizes
    left: list[tuple[Dim, int, Port, Shape]] = []
    for port, shape in zip(ports, shapes, strict=True):
        axes, dims = _axes(port, ragged), tail(p, port)
        if len(shape) != len(axes) + len(dims):
            raise _misfit(p, port, shape, ragged)
        for axis, n in zip(axes, shape, strict=False):
            if axis == "G or 1" and n == 1:
                continue
            axis = axis[0] + " "
            if not _equal(known.setdefault(axis, n), n):
                raise _misfit(p, port, shape, ragged, f"elsewhere {axis}is {known[axis]}")
        left += [(dim, n, port, shape) for dim, n in zip(dims, shape[len(axes) :], strict=True)]
    solve(((dim, n) for dim, n, _, _ in left), known)
    for dim, n, port, shape in left:
        if not _equal(size(dim, known), n):
            raise _misfit(p, port, shape, ragged, f"{show_dim(dim)} is {size(dim, known)}")
    groups = known.get("G ", 1)
    found: list[Shape] = []
    for port in outputs(p):
        leading = [groups if axis[0] == "G" else _axis(axis, known) for axis in _axes(port, ragged)]
        found.append((*leading, *(size(dim, known) for dim in tail(p, port))))
    return found


def solve(found: Iterable[tuple[Dim, int]], known: dict[str, int]) -> None:
    """Add to `known` the named sizes that follow from arrays' sizes, where each is one."""
    left = list(found)
    while left:
        later: list[tuple[Dim, int]] = []
        for dim, n in left:
            parts = terms(dim)
            unknown = [name for name in parts if name and name not in known]
            if len(unknown) > 1:
                later.append((dim, n))
            elif unknown:
                times = parts.pop(unknown[0])
                rest = n - sum(k * (known[name] if name else 1) for name, k in parts.items())
                known[unknown[0]] = rest if times == 1 else rest // times
        if len(later) == len(left):
            return
        left = later


def size(dim: Dim, known: dict[str, int]) -> int:
    """The number that `dim` is. Raises UserError where a name in it has no size yet."""
    total = 0
    for name, k in terms(dim).items():
        if name and name not in known:
            raise UserError(f"the size {name} does not follow from the tensors given")
        total = total + (k * known[name] if name else k)
    return total


def _axes(port: Port, ragged: bool) -> tuple[str, ...]:
    if port.at is At.CONST:
        return ("G or 1",)
    if port.at is At.STEPS:
        return ("G", "N") if ragged else ("G", "T", "B")
    return ("G", "B")


def _axis(axis: str, known: dict[str, int]) -> int:
    if axis + " " not in known:
        raise UserError(f"no tensor given says what {axis} is: the program reads no series")
    return known[axis + " "]


def _equal(a: int, b: int) -> bool:
    """Whether two sizes are equal, as far as that is known without asking a symbol."""
    return not (isinstance(a, int) and isinstance(b, int)) or a == b


def _misfit(p: Program, port: Port, shape: Shape, ragged: bool, why: str = "") -> UserError:
    expected = describe(p, port, ragged)
    return UserError(
        f"`{port.name}` has the shape {list(shape)}, which does not fit {expected}"
        + (f": {why}" if why else "")
    )
