"""What a check found: a line a tensor, a verdict, and the comparison that makes a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from bptt.printers.people.plain import columns

Array = Any

# How far a derived tensor may be from the truth, as a part of the tensor's scale. The complex
# step is exact to the rounding of some hundred operations, the worst seen is 1e-14; four points
# at 1e-3 are off by 2e-12 of a gradient near 1, more where a kink asks for a shorter step.
LIMITS = {"complex step": 1e-11, "differences": 1e-8, "zero": 1e-12}
# A tensor's scale is its own largest entry, but at least this part of the largest of any tensor.
FLOOR = 1e-5


@dataclass(frozen=True)
class Line:
    """One tensor, compared: its worst entry stands `at` an index, or nowhere if it is empty.

    `method` says how the truth was found. "zero": the true tensor is 0, and `error` is a part
    of the largest entry of any tensor.
    """

    group: str
    kind: str
    name: str
    shape: tuple[int, ...]
    error: float
    at: tuple[int, ...] | None
    derived: float
    true: float
    method: str

    @property
    def limit(self) -> float:
        """What `error` must not exceed."""
        return LIMITS[self.method]

    @property
    def ok(self) -> bool:
        """Whether the tensor is right; one that is not finite is wrong."""
        return self.error <= self.limit

    def json(self) -> dict[str, Any]:
        """The line as plain data; what is not finite is a string."""
        return {
            "group": self.group,
            "kind": self.kind,
            "name": self.name,
            "shape": list(self.shape),
            "error": _plain(self.error),
            "limit": self.limit,
            "at": None if self.at is None else list(self.at),
            "derived": _plain(self.derived),
            "true": _plain(self.true),
            "method": self.method,
            "ok": self.ok,
        }


@dataclass(frozen=True)
class Report:
    """Everything that one check found.

    `faults` are failures that belong to no tensor (a value that is not finite), `warnings` are
    no failures. `redraws` counts the samples that were thrown away: on a kink, or not finite.
    """

    lines: tuple[Line, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    order: int
    seed: int
    length: int
    sizes: Mapping[str, int]
    redraws: int

    @property
    def ok(self) -> bool:
        """Whether every tensor is right and nothing else is wrong."""
        return bool(self.lines) and not self.faults and all(line.ok for line in self.lines)

    @property
    def failed(self) -> tuple[Line, ...]:
        """The lines that are wrong, the worst first."""
        wrong = [line for line in self.lines if not line.ok]
        return tuple(sorted(wrong, key=lambda line: -line.error))

    @property
    def worst(self) -> Line | None:
        """The line nearest to its limit, or furthest beyond it."""
        return max(self.lines, key=lambda line: line.error / line.limit, default=None)

    @property
    def verdict(self) -> str:
        """One line: whether it holds, and on which sample."""
        sizes = ", ".join(f"{name} = {n}" for name, n in self.sizes.items())
        sample = f"seed {self.seed}, T = {self.length}" + (f", {sizes}" if sizes else "")
        if self.redraws:
            sample += f", {self.redraws} redrawn"
        if not self.ok:
            wrong = len(self.failed) + len(self.faults)
            counted = f"{wrong} of {len(self.lines)} tensors" if self.failed else "the values"
            if self.failed and self.faults:
                counted = f"{len(self.failed)} tensors and the values"
            return f"WRONG: {counted} ({sample})"
        worst = self.worst
        assert worst is not None
        return f"right: {len(self.lines)} tensors, the worst off by {worst.error:.1e} ({sample})"

    def text(self) -> str:
        """The report as a terminal shows it: a heading a group, a line a tensor, the verdict."""
        cells = {line: (line.kind, line.name, _shape(line.shape)) for line in self.lines}
        widths = [max(map(columns, column)) for column in zip(*cells.values(), strict=True)]
        shown: list[str] = []
        for group, lines in groupby(self.lines, key=lambda line: line.group):
            shown.append(group)
            for line in lines:
                padded = [
                    cell + " " * (width - columns(cell))
                    for cell, width in zip(cells[line], widths, strict=True)
                ]
                shown.append(f"  {'  '.join(padded)}  {line.error:7.1e}  {line.method}")
                if not line.ok:
                    shown.append(f"  {'':{widths[0]}}  WRONG {_evidence(line)}")
        shown += [f"WRONG {fault}" for fault in self.faults]
        shown += [f"note: {warning}" for warning in self.warnings]
        return "\n".join([*shown, self.verdict])

    def json(self) -> dict[str, Any]:
        """The report as plain data, for `json.dumps`."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "order": self.order,
            "seed": self.seed,
            "length": self.length,
            "sizes": dict(self.sizes),
            "redraws": self.redraws,
            "faults": list(self.faults),
            "warnings": list(self.warnings),
            "tensors": [line.json() for line in self.lines],
        }


def compare(
    group: str, kind: str, name: str, derived: Array, true: Array, largest: float, method: str
) -> Line:
    """The line for one tensor. `largest`: the largest entry of any true tensor of the group.

    The error is the worst difference over the tensor's scale, so no entry hides behind an
    absolute tolerance. A tensor whose truth is 0 must be 0 to rounding.
    """
    derived, true = np.asarray(derived), np.asarray(true)
    shape = true.shape
    if derived.shape != shape:
        raise ValueError(f"{name} has the shape {derived.shape}, its truth {shape}")
    if not true.size:
        return Line(group, kind, name, shape, 0.0, None, 0.0, 0.0, method)
    finite = np.isfinite(derived) & np.isfinite(true)
    scale = float(np.max(np.abs(true)))
    if not finite.all():
        worst = int(np.argmin(finite))
        error = math.inf
    elif scale <= LIMITS["zero"] * largest:
        method = "zero"
        worst = int(np.argmax(np.abs(derived)))
        size = float(np.max(np.abs(derived)))
        error = size / largest if largest else (math.inf if size else 0.0)
    else:
        gap = np.abs(derived - true)
        worst = int(np.argmax(gap))
        error = float(np.max(gap)) / max(scale, FLOOR * largest)
    at = tuple(int(i) for i in np.unravel_index(worst, shape))
    return Line(group, kind, name, shape, error, at, float(derived[at]), float(true[at]), method)


def _evidence(line: Line) -> str:
    at = f"at {_shape(line.at)}" if line.at else "value"
    return f"{at}: derived {line.derived:.14g}, true {line.true:.14g} (limit {line.limit:.0e})"


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "number"


def _plain(x: float) -> float | str:
    return x if math.isfinite(x) else str(x)
