"""A sequence in windows of about sqrt(T) steps, one after the other.

Each window begins with the last one's final states. So whoever runs a window need keep no more
for its backward pass than those and the inputs: the window can be run again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bptt.errors import UserError
from bptt.ir.ports import At, Port
from bptt.nn.sweep import Sweep

Runs = Callable[[list[Tensor], Tensor | None], list[Tensor]]
"""Runs a sweep: takes its tensors and, of a ragged batch, batch_sizes."""


class Window(NamedTuple):
    """Some steps of a sequence: how many `rows` of a series they are. Of a ragged batch also the
    number of sequences that have any of these steps, which are its first ones, and batch_sizes."""

    rows: int
    batch: int | None = None
    batch_sizes: Tensor | None = None


def in_windows(
    sweep: Sweep, tensors: Sequence[Tensor], batch_sizes: Tensor | None, one: Runs
) -> list[Tensor]:
    """What `sweep` gives, where `one` runs it on each window.

    Raises UserError for a sweep that reads beyond an end of the sequence, or gives more than
    series and last states.
    """
    windows = windows_of(sweep, tensors, batch_sizes)
    if len(windows) < 2:
        return one(list(tensors), batch_sizes)
    _check(sweep)
    given = dict(zip(sweep.inputs, tensors, strict=True))
    # one split, whose gradient is one series; a slice's would be a series for every window
    rows = [window.rows for window in windows]
    pieces = {port: x.split(rows, 1) for port, x in given.items() if port.at is At.STEPS}
    series: dict[Port, list[Tensor]] = {port: [] for port in sweep.outputs if port.at is At.STEPS}
    running = range(len(windows))
    for k in running if sweep.program.dir > 0 else reversed(running):
        window = windows[k]
        part = [
            pieces[port][k] if port in pieces else _first(given[port], port, window)
            for port in sweep.inputs
        ]
        for port, y in zip(sweep.outputs, one(part, window.batch_sizes), strict=True):
            if port.at is At.STEPS:
                series[port].append(y)
            else:
                start = Port(port.name, At.START)
                # sequences without a step here have ended before, or begin in a later window
                rest = given[start][:, y.shape[1] :]
                given[start] = torch.cat([y, rest], 1) if rest.shape[1] else y
    return [
        torch.cat(series[port][:: sweep.program.dir], 1)
        if port.at is At.STEPS
        else given[Port(port.name, At.START)]
        for port in sweep.outputs
    ]


def windows_of(sweep: Sweep, tensors: Sequence[Tensor], batch_sizes: Tensor | None) -> list[Window]:
    """The windows in order of time."""
    if batch_sizes is not None:
        counts: list[int] = batch_sizes.tolist()
        width = _width(len(counts))
        return [
            Window(sum(counts[t : t + width]), counts[t], batch_sizes[t : t + width])
            for t in range(0, len(counts), width)
        ]
    lengths = (
        int(x.shape[1]) for p, x in zip(sweep.inputs, tensors, strict=True) if p.at is At.STEPS
    )
    steps = next(lengths, 0)
    width = _width(steps)
    return [Window(min(width, steps - t)) for t in range(0, steps, width)]


def _width(steps: int) -> int:
    """The square root, rounded up."""
    return math.isqrt(steps - 1) + 1 if steps else 1


def _first(x: Tensor, port: Port, window: Window) -> Tensor:
    """What there is one of a sequence, for those of a window."""
    if port.at is At.CONST or window.batch is None or window.batch == x.shape[1]:
        return x
    return x[:, : window.batch]


def _check(sweep: Sweep) -> None:
    odd = [port.name for port in sweep.inputs if port.at in (At.FIRST, At.LAST)]
    odd += [port.name for port in sweep.outputs if port.at not in (At.STEPS, At.FINAL)]
    if odd:
        raise UserError(
            f"the program cannot run in windows: `{odd[0]}` is not of some steps only",
            help='use keep="states"',
        )
