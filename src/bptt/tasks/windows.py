"""What a forecast learns from: windows of a table, standardised, and what follows each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bptt.errors import UserError
from bptt.tasks.series import Floats, Record, Table
from bptt.tasks.skill import persistence, seasonal

GAPS = ("refuse", "mark")
_BOUNDS: dict[str, tuple[float, float]] = {
    "lookback": (1, 1 << 16),
    "ahead": (1, 1 << 12),
    "first": (0, 1 << 12),
    "season": (0, 1 << 16),
    "hidden": (1, 1 << 14),
    "layers": (1, 64),
    "dropout": (0, 0.99),
    "batch": (1, 1 << 20),
    "epochs": (1, 1 << 20),
    "patience": (0, 1 << 20),
    "learning_rate": (0, 1),
    "clip": (0, 1e9),
    "seed": (0, (1 << 63) - 1),
}
_REAL = {"dropout", "learning_rate", "clip"}


@dataclass(frozen=True)
class Settings:
    """What is forecast from what, and how it is learned. Raises UserError where it cannot be.

    At the end of a window of `lookback` steps of the `inputs`, the model says the `target` for
    `ahead` steps, of which the `first` is so many after the window's last. Whether it sees the
    target's past is for you to say: name the target among the inputs or do not.
    """

    target: str
    inputs: tuple[str, ...]
    lookback: int
    ahead: int = 1
    first: int = 1
    """0 is the window's own last step: the rain of a day and the runoff of that same day."""
    change: bool = False
    """Whether the model says by how much the target changes since it was last observed: the way to
    beat persistence on the next steps. There must be an observed value to start from."""
    gaps: str = "refuse"
    """In inputs: "refuse", or "mark", the mean and a further input that is 1 where it stands.
    In the target gaps are always allowed: they do not count."""
    season: int = 0
    """Steps of a day, or of a year: above 0, scores also show the value of a season before."""
    hidden: int = 32
    layers: int = 1
    dropout: float = 0.0
    """On what the cell puts out, and between layers."""
    batch: int = 64
    epochs: int = 30
    patience: int = 0
    """Above 0: stop after so many epochs in a row without a better validation."""
    learning_rate: float = 5e-3
    """At first; half a cosine takes it to a hundredth at the end."""
    clip: float = 1.0
    """Longest norm of a whole gradient."""
    seed: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.inputs, str):
            raise UserError(f"inputs are several names: ({self.inputs!r},)")
        # From JSON, or from a person's hand, a list is as good.
        object.__setattr__(self, "inputs", tuple(self.inputs))
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            kinds = (int, float) if name in _REAL else (int,)
            if not isinstance(value, kinds) or isinstance(value, bool):
                kind = "number" if name in _REAL else "whole number"
                raise UserError(f"{name} is a {kind}, not {value!r}")
            if not low <= value <= high:
                raise UserError(f"{name} must lie between {low:,} and {high:,}, not {value!r}")
        if not isinstance(self.target, str) or not all(isinstance(n, str) for n in self.inputs):
            raise UserError("target and inputs are names of columns")
        if not self.inputs or len(set(self.inputs)) != len(self.inputs):
            raise UserError("inputs are one column or more, each once")
        if not isinstance(self.change, bool):
            raise UserError(f"change is True or False, not {self.change!r}")
        if self.gaps not in GAPS:
            raise UserError(f"gaps is 'refuse' or 'mark', not {self.gaps!r}")
        if self.first == 0 and self.target in self.inputs:
            what = f"with first=0 the window's last {self.target} is forecast, and it is an input"
            raise UserError(what, help="set first=1, or take the target out of the inputs")

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps ahead that are forecast."""
        return tuple(range(self.first, self.first + self.ahead))


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations, `[2, C]`, of the inputs, the target and the attributes."""

    inputs: Floats
    target: Floats
    statics: Floats

    @classmethod
    def of(cls, table: Table, settings: Settings, until: Any) -> Scaling:
        """From what was measured before `until`, so that nothing later is known.

        Raises UserError where a column does not vary.
        """
        rows = np.concatenate([record.values[record.times < until] for record in table.records])
        wanted = [*settings.inputs, settings.target]
        both = _moments(rows[:, [table.column(name) for name in wanted]], wanted, f"before {until}")
        statics = _moments(table.statics, list(table.attributes), "from record to record")
        return cls(both[:, :-1], both[:, -1:], statics)


def _moments(values: Floats, names: list[str], where: str) -> Floats:
    found = np.zeros((2, len(names)))
    for k, name in enumerate(names):
        seen = values[np.isfinite(values[:, k]), k]
        if not len(seen):
            raise UserError(f"{name} has no value {where}", help="leave it out, or split later")
        if np.ptp(seen) == 0.0:
            help = "nothing can be learned from it: leave it out"
            raise UserError(f"{name} is always {seen[0]:g} {where}", help=help)
        found[:, k] = seen.mean(), seen.std()
    return found


def with_gaps(table: Table, settings: Settings) -> tuple[str, ...]:
    """The inputs that have gaps. Raises UserError where the settings refuse them."""
    found: list[str] = []
    for name in settings.inputs:
        place = table.column(name)
        for record in table.records:
            gap = np.flatnonzero(np.isnan(record.values[:, place]))
            if len(gap) and settings.gaps == "refuse":
                of = f" of {record.name}" if record.name else ""
                what = f"{name}{of} has {len(gap):,} gaps, the first at {record.times[gap[0]]}"
                raise UserError(what, help="fill them, or say gaps='mark'")
            if len(gap) and name not in found:
                found.append(name)
    return tuple(found)


@dataclass(frozen=True)
class Samples:
    """Windows, each by its last row of `features`, and what follows them.

    `features` `[N, F]` has all records one after the other; `statics` is `[R, S]`. Of n windows:
    `ends` `[n]`, `record` `[n]`, `times` and `observed` `[n, A]`, in the target's units, NaN where
    there is a gap or the table has ended; `base`: what a model's output is added to, `[n, A]`;
    `naive`: what forecasts without a model say, `[n, A]`.
    """

    features: Tensor
    statics: Tensor
    ends: Tensor
    record: NDArray[np.int64]
    times: NDArray[Any]
    observed: Floats
    base: Floats
    naive: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.ends)

    def between(self, since: Any, until: Any, *, measured: bool = True) -> Samples:
        """Those whose forecast lies from `since` to before `until`, all of it; None: no bound.

        `measured`: only those from which something can be learned.
        """
        keep = np.ones(len(self), dtype=bool)
        if since is not None:
            keep &= self.times[:, 0] >= since
        if until is not None:
            keep &= self.times[:, -1] < until
        if measured:
            keep &= np.isfinite(self.observed - self.base).any(axis=1)
        return Samples(
            self.features,
            self.statics,
            self.ends[torch.from_numpy(keep)],
            self.record[keep],
            self.times[keep],
            self.observed[keep],
            self.base[keep],
            {name: values[keep] for name, values in self.naive.items()},
        )

    def window(self, index: Tensor, lookback: int) -> tuple[Tensor, Tensor]:
        """The inputs `[L, B, F]` of the windows `index` `[B]`, and the attributes `[B, S]`."""
        rows = self.ends[index] + torch.arange(1 - lookback, 1)[:, None]
        return self.features[rows], self.statics[torch.from_numpy(self.record)[index]]


def samples(table: Table, settings: Settings, scaling: Scaling, marked: tuple[str, ...]) -> Samples:
    """Every window of the table. `marked`: the inputs that have a further one for their gaps."""
    columns = [table.column(name) for name in settings.inputs]
    target = table.column(settings.target)
    marks = [columns[settings.inputs.index(name)] for name in marked]
    mean, deviation = scaling.inputs
    features: list[Floats] = []
    parts: list[tuple[Any, ...]] = []
    begin = 0
    for number, record in enumerate(table.records):
        known = (record.values[:, columns] - mean) / deviation
        gap = np.isnan(record.values[:, marks]).astype(np.float64)
        features.append(np.concatenate([np.nan_to_num(known, nan=0.0), gap], axis=1))
        ends = np.arange(settings.lookback - 1, len(record.times))
        after = ends[:, None] + np.array(settings.steps)
        measured = np.append(record.values[:, target], np.nan)
        observed = measured[np.minimum(after, len(record.times))]
        ticks = record.times[:1, None].astype(np.int64) + table.step * after
        times = ticks.astype(record.times.dtype)
        whose = np.full(len(ends), number)
        parts.append((begin + ends, whose, times, observed, _naive(record, target, ends, settings)))
        begin += len(record.times)
    ends, whose, times, observed = (np.concatenate([part[k] for part in parts]) for k in range(4))
    naive = {name: np.concatenate([part[4][name] for part in parts]) for name in parts[0][4]}
    mean = np.full_like(observed, scaling.target[0, 0])
    base = naive["persistence"] if settings.change else mean
    fixed = (table.statics - scaling.statics[0]) / scaling.statics[1]
    return Samples(
        torch.from_numpy(np.concatenate(features)).float(),
        torch.from_numpy(fixed).float(),
        torch.from_numpy(ends),
        whose,
        times,
        observed,
        base,
        naive,
    )


def _naive(
    record: Record, target: int, ends: NDArray[np.int64], settings: Settings
) -> dict[str, Floats]:
    measured, first, ahead = record.values[:, target], settings.first, settings.ahead
    found = {"persistence": persistence(measured, ends, first, ahead)}
    if settings.season:
        values = seasonal(measured, ends, first, ahead, settings.season)
        found[f"{settings.season} steps before"] = values
    return found
