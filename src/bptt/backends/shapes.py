"""What the shapes of a call's arrays say: sizes, sequences, groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from bptt.errors import UserError
from bptt.ir.dims import show_dim, size_of, terms
from bptt.ir.ports import At, Port
from bptt.ir.program import Program


@lru_cache(maxsize=1024)
def solve_sizes(
    p: Program, inputs: tuple[Port, ...], shapes: tuple[tuple[int, ...], ...]
) -> dict[str, int]:
    """The size of each name, from the shapes of the inputs."""
    sizes = dict[str, int]()
    seen: list[tuple[Any, int, Port]] = []
    for port, shape in zip(inputs, shapes, strict=True):
        dims = p.dims(port.name)
        given = shape[1:] if port.at is At.CONST else shape[-1:]
        for d, k in zip(dims or (1,), given if dims else (1,), strict=True):
            seen.append((d, k, port))
    found = -1
    while len(sizes) > found:
        found = len(sizes)
        for d, k, _port in seen:
            unknown = [(s, n) for s, n in terms(d).items() if s and s not in sizes]
            if len(unknown) == 1:
                rest = sum(
                    n * (sizes[s] if s else 1) for s, n in terms(d).items() if s != unknown[0][0]
                )
                sizes[unknown[0][0]] = (k - rest) // unknown[0][1]
    for d, k, port in seen:
        if size_of(d, sizes) != k:
            raise UserError(f"`{port.name}` has size {k}, not {show_dim(d)} = {size_of(d, sizes)}")
    return sizes


def layout(
    shapes: dict[Port, tuple[int, ...]], batch_sizes: Sequence[int] | None
) -> tuple[list[int], int]:
    """The number of sequences at each step, and in all."""
    batch = {s[-2] for port, s in shapes.items() if port.at not in (At.CONST, At.STEPS)}
    steps = {s[1:-1] for port, s in shapes.items() if port.at is At.STEPS}
    if len(steps) > 1:
        raise UserError(f"series of different lengths or batches: {sorted(steps)}")
    if batch_sizes is not None:
        counts = [int(n) for n in batch_sizes]
        if sorted(counts, reverse=True) != counts:
            raise UserError("batch_sizes must not grow", help="sort the sequences, longest first")
        if steps and sum(counts) != next(iter(steps))[0]:
            raise UserError(f"batch_sizes add up to {sum(counts)}, the series have {steps}")
        largest = max(batch, default=counts[0] if counts else 0)
        if counts and counts[0] > largest:
            raise UserError(f"batch_sizes begin with {counts[0]}, states are for {largest}")
        return counts, largest
    if not steps:
        raise UserError("nothing tells how long the sequence is", help="give batch_sizes")
    length, rows = next(iter(steps))
    if batch - {rows}:
        raise UserError(f"states for {sorted(batch)} sequences beside series of {rows}")
    return [rows] * length, rows
