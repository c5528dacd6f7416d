"""Forecasting a series from its past and from what drives it, with any cell.

table = read_table("basins.csv", time="date", columns=("rain", "temp", "flow"))
settings = Settings("flow", ("rain", "temp"), lookback=365, ahead=3, gaps="mark")
forecaster = Forecaster.train(table, "lstm", settings, validation="2010-10-01")
print(forecaster.scores(table))  # beside persistence
forecaster.save("flow.safetensors")
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bptt.cell import Cell
from bptt.errors import BpttError, UserError
from bptt.tasks.checkpoint import read_file, write_file
from bptt.tasks.forecast_model import ForecastModel, masked_loss
from bptt.tasks.series import Floats, Moment, Table, read_table
from bptt.tasks.skill import Score, Scores, compare
from bptt.tasks.windows import Samples, Scaling, Settings, samples, with_gaps

__all__ = [
    "Epoch",
    "Forecast",
    "Forecaster",
    "Score",
    "Scores",
    "Settings",
    "Table",
    "read_table",
]

FORMAT = "bptt forecast"
VERSION = 1
PERIODS = ("validation", "test")
_JUDGED = 512  # windows side by side where nothing is learned
_FINAL = 0.01  # of the learning rate, at the end


@dataclass(frozen=True)
class Epoch:
    """One pass over the training windows: mean squared errors in the target's units, squared.

    `training` is the mean over the pass, during which the weights change; `validation` is measured
    after it.
    """

    number: int
    training: float
    validation: float


@dataclass(frozen=True)
class Forecast:
    """Forecasts of N windows for A steps: `values` and `observed` `[N, A]` in the target's units,
    `times` `[N, A]`, and of which record each is, `record` `[N]`. What was not observed, or lies
    beyond the end of the table, is NaN in `observed`.
    """

    record: tuple[str, ...]
    times: NDArray[Any]
    values: Floats
    observed: Floats


class Forecaster:
    """A model with all that it needs to be used on a table: `train` or `load` makes one.

    `history`: the epochs; `best`: the number of the one whose weights these are, the one with the
    least validation error; `periods`: the times from and until which it was validated and tested.
    """

    def __init__(
        self,
        model: ForecastModel,
        settings: Settings,
        scaling: Scaling,
        marked: tuple[str, ...],
        attributes: tuple[str, ...],
        grid: tuple[int, bool],
        periods: Mapping[str, tuple[Any, ...]],
    ) -> None:
        self.model = model
        self.settings = settings
        self.scaling = scaling
        self.marked = marked
        self.attributes = attributes
        self.grid = grid
        self.periods = dict(periods)
        self.history: list[Epoch] = []
        self.best = 0

    @classmethod
    def train(
        cls,
        table: Table,
        cell: str | Path | Cell,
        settings: Settings,
        *,
        validation: Moment | float,
        test: Moment | float | None = None,
        report: Callable[[Epoch], object] | None = None,
    ) -> Forecaster:
        """Learn from what is before `validation`, and keep the epoch that does best after it.

        Each period begins at a time, or at a fraction (0.8) of the table's span, and ends where
        the next begins. Means and deviations are of the training period; a training window ends
        early enough that all it forecasts lies in it. Windows of later periods may look back into
        earlier ones. The epoch is chosen on the validation, so its scores flatter a little: give
        `test`, a third period, to have one that nothing was chosen on. `report` gets each epoch.

        The same settings give the same weights; torch's global generator is left as it was.
        Raises UserError where there is too little to learn from, and where the loss runs away.
        """
        starts = [_start(table, validation)]
        if test is not None:
            starts.append(_start(table, test))
            if starts[1] <= starts[0]:
                raise UserError(f"test begins at {starts[1]}, and validation at {starts[0]}")
        marked = with_gaps(table, settings)
        scaling = Scaling.of(table, settings, starts[0])
        ends = [*starts[1:], None]
        periods = {name: (starts[k], ends[k]) for k, name in enumerate(PERIODS[: len(starts)])}
        whole = samples(table, settings, scaling, marked)
        learned, judged = whole.between(None, starts[0]), whole.between(*periods["validation"])
        _refuse_empty(table, settings, {"training": learned, "validation": judged})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            features = whole.features.shape[1]
            model = ForecastModel(cell, features, len(table.attributes), settings)
            grid = (table.step, table.calendar)
            new = cls(model, settings, scaling, marked, table.attributes, grid, periods)
            new._learn(learned, judged, report)
        return new

    def _learn(
        self, learned: Samples, judged: Samples, report: Callable[[Epoch], object] | None
    ) -> None:
        settings, model = self.settings, self.model
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
        updates = settings.epochs * math.ceil(len(learned) / settings.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, updates, settings.learning_rate * _FINAL
        )
        order = torch.Generator().manual_seed(settings.seed)
        expected = self._standardised(learned)
        least, kept = math.inf, copy.deepcopy(model.state_dict())
        for number in range(1, settings.epochs + 1):
            model.train()
            total, count = 0.0, 0
            for index in torch.randperm(len(learned), generator=order).split(settings.batch):
                x, s = learned.window(index, settings.lookback)
                squares, known = masked_loss(model(x, s), expected[index])
                _refuse_runaway(squares.item(), number)
                optimizer.zero_grad(set_to_none=True)
                (squares / known).backward()
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
                optimizer.step()
                schedule.step()
                total, count = total + squares.item(), count + int(known)
            training = total / count * float(self.scaling.target[1, 0]) ** 2
            error = float(np.nanmean((self._run(judged) - judged.observed) ** 2))
            _refuse_runaway(error, number)
            self.history.append(Epoch(number, training, error))
            if report is not None:
                report(self.history[-1])
            if error < least:
                least, kept, self.best = error, copy.deepcopy(model.state_dict()), number
            if settings.patience and number - self.best >= settings.patience:
                break
        model.load_state_dict(kept)
        model.eval()

    def _standardised(self, given: Samples) -> Tensor:
        distance = (given.observed - given.base) / self.scaling.target[1]
        return torch.from_numpy(distance).float()

    def _run(self, given: Samples) -> Floats:
        """What the model says, `[n, A]`, in the target's units."""
        self.model.eval()
        found = [np.zeros((0, self.settings.ahead))]
        with torch.no_grad():
            for index in torch.arange(len(given)).split(_JUDGED):
                output = self.model(*given.window(index, self.settings.lookback))
                found.append(output.double().numpy())
        return np.concatenate(found) * self.scaling.target[1] + given.base

    def predict(
        self, table: Table, since: Moment | None = None, until: Moment | None = None
    ) -> Forecast:
        """Forecasts of all windows of a table, also of those whose future it does not hold.

        `since`, `until`: of those alone that lie from the one to before the other. The table may
        have other records than the one that was learned from. Raises UserError where its columns,
        its step or its attributes are other ones.
        """
        found = self._samples(table).between(*self._bounds(table, since, until), measured=False)
        names = tuple(table.records[k].name for k in found.record)
        return Forecast(names, found.times, self._run(found), found.observed)

    def scores(
        self,
        table: Table,
        period: str | None = None,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> Scores:
        """Errors for each step ahead, the model's and those of forecasts that need no model.

        `period`: "validation" or "test", unless the times are given; if neither is, the test
        period if there is one. All ways are judged on the same values. Raises UserError where
        nothing was observed there.
        """
        if since is None and until is None:
            period = period or list(self.periods)[-1]
            if period not in self.periods:
                have = " and ".join(self.periods)
                raise UserError(f"there is no period {period!r}", help=f"there is {have}")
            bounds = self.periods[period]
        elif period is not None:
            raise UserError("a period and times exclude each other", help="give one of them")
        else:
            bounds = self._bounds(table, since, until)
        found = self._samples(table).between(*bounds)
        if not len(found):
            raise UserError("nothing was observed there that could be compared with a forecast")
        name = self.model.recurrent.cell.name
        ways = {name: self._run(found), **found.naive}
        return compare(self.settings.steps, found.observed, found.record, ways)

    def _bounds(self, table: Table, *bounds: Moment | None) -> Iterator[Any]:
        return (None if bound is None else table.moment(bound) for bound in bounds)

    def _samples(self, table: Table) -> Samples:
        """The windows of a table, if it is of the kind that was learned from."""
        if (table.step, table.calendar) != self.grid:
            unit = " seconds" if self.grid[1] else ""
            what = f"the table has a step of {table.step}, and {self.grid[0]}{unit} was learned"
            raise UserError(what, help="bring it to the same grid")
        if table.attributes != self.attributes:
            have, learned = (", ".join(a) or "none" for a in (table.attributes, self.attributes))
            raise UserError(f"the table's attributes are {have}; learned were {learned}")
        new = sorted(set(with_gaps(table, self.settings)) - set(self.marked))
        if new:
            what = f"{new[0]} has gaps, and had none when the model learned"
            raise UserError(what, help="fill them, or train with a table that has some")
        return samples(table, self.settings, self.scaling, self.marked)

    def save(self, path: str | Path) -> None:
        """Write all of it to one safetensors file, without its table. Raises UserError."""
        cell = self.model.recurrent.cell
        document = {
            "format": FORMAT,
            "version": VERSION,
            "cell": {
                "name": cell.name,
                "text": cell.text if "\n" in cell.text else f"{cell.text}\n",
            },
            "settings": asdict(self.settings),
            "marked": self.marked,
            "attributes": self.attributes,
            "grid": self.grid,
            "periods": {name: [_plain(t) for t in both] for name, both in self.periods.items()},
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
        }
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, value in vars(self.scaling).items():
            tensors[f"scaling.{name}"] = torch.from_numpy(value)
        try:
            write_file(Path(path), json.dumps(document, allow_nan=False), tensors)
        except OSError as error:
            raise UserError(f"cannot save to {path}: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | Path) -> Forecaster:
        """What `save` wrote. Raises UserError for what is damaged or something else."""
        if not Path(path).is_file():
            raise UserError(f"there is no file {path}")
        try:
            text, tensors = read_file(Path(path))
            document = json.loads(text or "{}")
            ours = (document.get("format"), document.get("version")) == (FORMAT, VERSION)
        except (ValueError, AttributeError, RecursionError) as error:
            raise _damaged(path, error) from None
        if not ours:
            raise UserError(f"{path} holds no forecaster of this version of bptt")
        try:
            return cls._of(document, tensors)
        except BpttError as error:
            raise _damaged(path, error.what) from None
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise _damaged(path, error) from None

    @classmethod
    def _of(cls, document: dict[str, Any], tensors: dict[str, Tensor]) -> Forecaster:
        settings = Settings(**document["settings"])
        marked, attributes = tuple(document["marked"]), tuple(document["attributes"])
        step, calendar = document["grid"]
        weights = {
            k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")
        }
        widest = max((size for value in weights.values() for size in value.shape), default=0)
        # Before anything is made of the sizes that a stranger's file names, tensors bear it out.
        if max(settings.hidden, settings.ahead) > widest or settings.layers > len(weights):
            raise ValueError("its tensors do not have the sizes it names")
        scaling = Scaling(*(tensors[f"scaling.{name}"].numpy() for name in Scaling.__annotations__))
        wide = (len(settings.inputs), 1, len(attributes))
        if any(v.shape != (2, n) for v, n in zip(vars(scaling).values(), wide, strict=True)):
            raise ValueError("its scaling does not fit its columns")
        # Of its text alone: a stranger's file names no file to read.
        cell = Cell(document["cell"]["text"], name=document["cell"]["name"])
        features = len(settings.inputs) + len(marked)
        model = ForecastModel(cell, features, len(attributes), settings)
        model.load_state_dict(weights)
        kind = "datetime64[s]" if calendar else "int64"
        periods = {
            name: tuple(None if t is None else np.array(t).astype(kind)[()] for t in both)
            for name, both in document["periods"].items()
        }
        new = cls(model.eval(), settings, scaling, marked, attributes, (step, calendar), periods)
        new.history = [Epoch(**epoch) for epoch in document["history"]]
        new.best = document["best"]
        return new


def _damaged(path: str | Path, why: object) -> UserError:
    return UserError(f"{path} is damaged: {why}", help="train anew, or save it again")


def _plain(moment: Any) -> str | int | None:
    """A time as JSON has it."""
    if moment is None:
        return None
    return str(moment) if isinstance(moment, np.datetime64) else int(moment)


def _start(table: Table, given: Moment | float) -> Any:
    """A period's first time: as given, or at a fraction of the table's span."""
    if not isinstance(given, float):
        return table.moment(given)
    if not 0.0 < given < 1.0:
        raise UserError(f"a period begins at a fraction between 0 and 1, not at {given}")
    first, last = table.span()
    steps = round(given * ((last - first).astype(np.int64) / table.step + 1))
    return first + steps * table.step


def _refuse_runaway(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        help = "try a smaller learning_rate or hidden, or another cell"
        raise UserError(f"the loss is no longer a number in epoch {epoch}", help=help)


def _refuse_empty(table: Table, settings: Settings, parts: dict[str, Samples]) -> None:
    for name, part in parts.items():
        if not len(part):
            long = max(len(record.times) for record in table.records)
            what = f"there is nothing for {name}: no window of {settings.lookback} steps"
            what += f" with {settings.target} at any of the steps {settings.steps} after it"
            help = f"the longest record has {long:,} steps: split elsewhere, or look back less"
            raise UserError(what, help=help)
