"""Which backend runs a layer, and why."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bptt.backends import cpu, reference
from bptt.errors import UserError
from bptt.ir.program import Program
from bptt.nn.stacks import joined

NAMES = ("auto", "cpu", "reference")
_VARIABLE = "BPTT_BACKEND"


class Choice(NamedTuple):
    """The backend that runs, and the reason."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


_chosen = [(os.environ.get(_VARIABLE) or "auto", f"${_VARIABLE}")]


def set_backend(name: str) -> None:
    """Let all layers of this process run on a backend from now on.

    "cpu": compiled code. "reference": torch's own operations, one after the other. "auto", as it is
    at first: compiled code for float32 and float64 on the CPU, the reference for all else. The
    environment variable BPTT_BACKEND says what it is when `bptt.nn` is imported. Raises UserError
    for another name.
    """
    _chosen[:] = [(_known(name), "set_backend")]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """The same within a `with` block, for a backward pass also."""
    before = _chosen[:]
    _chosen[:] = [(_known(name), "use_backend")]
    try:
        yield
    finally:
        _chosen[:] = before


def _known(name: str) -> str:
    if name not in NAMES:
        raise UserError(f"there is no backend `{name}`", help=f"choose one of {', '.join(NAMES)}")
    return name


def choice(tensors: Sequence[Tensor]) -> Choice:
    """What runs a sweep of these tensors."""
    name, by = _chosen[0]
    if _known(name) != "auto":
        return Choice(name, f"chosen by {by}")
    first = tensors[0]
    odd = next((x for x in tensors if x.dtype is not first.dtype or x.device != first.device), None)
    if odd is not None:
        both = f"{_kind(first)} on {first.device} and {_kind(odd)} on {odd.device}"
        return Choice("reference", f"compiled code runs one number format, and these are {both}")
    if compiled(first):
        return Choice("cpu", f"compiled code runs {_kind(first)} on the CPU")
    kinds = " and ".join(cpu.KINDS)
    what = f"these are {_kind(first)} on {first.device}"
    return Choice("reference", f"compiled code is for {kinds} on the CPU, {what}")


_COMPILED = (torch.float32, torch.float64)


def compiled(x: Tensor) -> bool:
    """Whether there is compiled code for tensors like this, and nobody chose another."""
    return x.is_cpu and x.dtype in _COMPILED and _chosen[0][0] != "reference"


PLAIN = (nn.Parameter, Tensor)


def readable(tensors: Iterable[Tensor | None], dtype: torch.dtype) -> bool:
    """Whether compiled code can read all of these where they lie: ordinary tensors of a format."""
    for t in tensors:
        if t is None or type(t) not in PLAIN or t.dtype is not dtype:
            return False
        if not t.is_contiguous() or t.is_neg() or not t.is_cpu:
            return False
    return True


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def execute(
    p: Program,
    tensors: Sequence[Tensor],
    lengths: Sequence[int] | None,
    gives: Sequence[tuple[int, ...]] | None = None,
) -> list[Tensor]:
    """Run one sweep; see `bptt.backends.reference.execute`, and `stacks.Stacks` for `gives`."""
    if choice(tensors).name == "cpu":
        return cpu.execute(p, tensors, lengths, gives)
    found = reference.execute(p, tensors, lengths)
    return found if gives is None else joined(gives, found)
