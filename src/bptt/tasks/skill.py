"""How good a forecast is, and what it must beat: the last value, or that of a season before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """The errors of one way to forecast, one number for each step ahead, `[A]`.

    `mse` and `rmse`, in the target's units, are over all that was measured. `nse` is the
    efficiency of Nash and Sutcliffe, the median over the series: 1 is perfect, 0 no better than
    the series' mean. NaN where there is nothing to compare with.
    """

    name: str
    mse: Floats
    nse: Floats

    @property
    def rmse(self) -> Floats:
        """The root of the mean squared error."""
        return np.sqrt(self.mse)


@dataclass(frozen=True)
class Scores:
    """Scores of several ways on the same values. `ahead`: the steps; `count`: how many values."""

    ahead: tuple[int, ...]
    count: NDArray[np.int64]
    ways: tuple[Score, ...]

    def __getitem__(self, name: str) -> Score:
        return next(way for way in self.ways if way.name == name)

    def __str__(self) -> str:
        head = ["steps ahead", *(f"{a:+d}" for a in self.ahead)]
        rows = [
            [f"{kind} {way.name}", *(f"{v:.4g}" for v in values)]
            for way in self.ways
            for kind, values in (("RMSE", way.rmse), ("NSE", way.nse))
        ]
        rows.sort(key=lambda row: row[0].startswith("NSE"))
        rows.append(["values", *(f"{n:,}" for n in self.count)])
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in [head, *rows]
        )


def mean_squared_error(forecast: Floats, observed: Floats) -> float:
    """Over what was observed (not NaN); NaN where nothing was."""
    there = np.isfinite(observed)
    return float(np.mean((forecast - observed)[there] ** 2)) if there.any() else float("nan")


def efficiency(forecast: Floats, observed: Floats) -> float:
    """1 - (squared errors) / (squared distances from the mean of what was observed).

    J. Nash, J. Sutcliffe, "River flow forecasting through conceptual models" (1970). NaN where
    nothing was observed, or always the same.
    """
    there = np.isfinite(observed)
    seen = observed[there]
    if not there.any() or np.ptp(seen) == 0.0:
        return float("nan")
    return float(1.0 - np.sum((forecast[there] - seen) ** 2) / np.sum((seen - seen.mean()) ** 2))


def compare(
    ahead: tuple[int, ...], observed: Floats, series: NDArray[np.int64], ways: dict[str, Floats]
) -> Scores:
    """Scores of forecasts `[N, A]`, on those values that were observed and that all of them have.

    `series` `[N]` says whose each row is.
    """
    known = np.isfinite(observed)
    for forecast in ways.values():
        known &= np.isfinite(forecast)
    seen = np.where(known, observed, np.nan)
    return Scores(
        ahead,
        known.sum(axis=0),
        tuple(_score(name, forecast, seen, series) for name, forecast in ways.items()),
    )


def _score(name: str, forecast: Floats, seen: Floats, series: NDArray[np.int64]) -> Score:
    steps = range(seen.shape[1])
    mse = np.array([mean_squared_error(forecast[:, k], seen[:, k]) for k in steps])
    each = [
        [
            efficiency(forecast[series == one, k], seen[series == one, k])
            for one in np.unique(series)
        ]
        for k in steps
    ]
    return Score(name, mse, np.array([_median(values) for values in each]))


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")


def persistence(target: Floats, origins: NDArray[np.int64], first: int, ahead: int) -> Floats:
    """The last value observed, `[N, A]`: of `target` `[T]`, at or before each of `origins` `[N]`.

    With `first` 0, where the origin's own value is to be found, before it. NaN where none was.
    """
    at = np.where(np.isfinite(target), np.arange(len(target)), -1)
    last = np.maximum.accumulate(at)
    source = origins - (first == 0)
    index = np.where(source >= 0, last[np.maximum(source, 0)], -1)
    value = np.where(index >= 0, target[np.maximum(index, 0)], np.nan)
    return np.repeat(value[:, None], ahead, axis=1)


def seasonal(
    target: Floats, origins: NDArray[np.int64], first: int, ahead: int, season: int
) -> Floats:
    """The value of the same phase a season before, `[N, A]`: the latest that the origin knows.

    Where there is a gap, that of the season before it, and so on. NaN where none was.
    """
    filled = target.copy()
    for k in range(season, len(filled), season):
        block = filled[k : k + season]
        before = filled[k - season : k - season + len(block)]
        block[:] = np.where(np.isfinite(block), block, before)
    wanted = origins[:, None] + first + np.arange(ahead)
    known = (origins - (first == 0))[:, None]
    back = -(-np.maximum(wanted - known, 1) // season)
    source = wanted - season * back
    return np.where(source >= 0, filled[np.maximum(source, 0)], np.nan)
