"""Forecasts: what is learned from, how it is judged, and that nothing looks ahead."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tolerances import EPS, SAME_STREAM, TORCH
from torch import nn

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.tasks.checkpoint import read_file, write_file
from bptt.tasks.forecast import Epoch, Forecaster, Settings, Table, read_table
from bptt.tasks.forecast_model import ForecastModel, masked_loss
from bptt.tasks.series import Record
from bptt.tasks.skill import compare, efficiency, mean_squared_error, persistence, seasonal
from bptt.tasks.windows import Samples, Scaling, samples, with_gaps

NAN = float("nan")
SMALL = Settings("flow", ("rain", "flow"), lookback=4, ahead=3, gaps="mark", hidden=5, epochs=3)
SPLIT = 40


def basins(lengths: tuple[int, ...] = (60, 50)) -> Table:
    """Records that begin at other times, with gaps in both columns, and two attributes."""
    draw = np.random.default_rng(1)
    records = []
    for number, length in enumerate(lengths):
        values = draw.gamma(2.0, size=(length, 2))
        values[draw.random((length, 2)) < 0.2] = NAN
        values[3:6, 1] = NAN
        records.append(Record(f"basin {number}", 5 * number + np.arange(length), values))
    statics = draw.normal(size=(len(lengths), 2))
    return Table(("rain", "flow"), tuple(records), 1, False, ("area", "slope"), statics)


def whole(table: Table, settings: Settings, split: int = SPLIT) -> Samples:
    scaling = Scaling.of(table, settings, split)
    return samples(table, settings, scaling, with_gaps(table, settings))


def trained(table: Table, settings: Settings = SMALL, cell: str = "lstm") -> Forecaster:
    return Forecaster.train(table, cell, settings, validation=SPLIT)


def assert_refused(act: Callable[[], object], what: str, help: str | None = None) -> None:
    with pytest.raises(UserError) as caught:
        act()
    assert caught.value.what == what
    if help is not None:
        assert caught.value.help == help


# --- windows, by a slow loop ----------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("change", [False, True])
def test_windows_are_those_of_a_slow_loop(first: int, change: bool) -> None:
    inputs = ("rain", "flow") if first else ("rain",)
    settings = replace(SMALL, first=first, inputs=inputs, change=change)
    table = basins()
    found, scaling = whole(table, settings), Scaling.of(table, settings, SPLIT)
    x, s = found.window(torch.arange(len(found)), settings.lookback)
    n = 0
    for number, record in enumerate(table.records):
        for end in range(settings.lookback - 1, len(record.times)):
            for back in range(settings.lookback):
                row = record.values[end - settings.lookback + 1 + back, : len(inputs)]
                scaled = [(v - m) / d for v, m, d in zip(row, *scaling.inputs, strict=True)]
                expected = [0.0 if math.isnan(v) else v for v in scaled]
                expected += [float(math.isnan(v)) for v in row]
                assert x[back, n].tolist() == torch.tensor(expected).float().tolist()
            fixed = (table.statics[number] - scaling.statics[0]) / scaling.statics[1]
            assert s[n].tolist() == torch.from_numpy(fixed).float().tolist()
            last = [v for v in record.values[: end + 1 - (first == 0), 1] if not math.isnan(v)]
            for k, step in enumerate(settings.steps):
                at = end + step
                value = record.values[at, 1] if at < len(record.times) else NAN
                base = (last[-1] if last else NAN) if change else scaling.target[0, 0]
                np.testing.assert_equal(found.observed[n, k], value)
                np.testing.assert_equal(found.base[n, k], base)
                assert found.times[n, k] == record.times[0] + at
            assert found.record[n] == number
            n += 1
    assert n == len(found)


def test_training_ends_before_validation_begins() -> None:
    found = whole(basins(), SMALL)
    learned, judged = found.between(None, SPLIT), found.between(SPLIT, None)
    assert learned.times.max() == SPLIT - 1
    assert judged.times.min() == SPLIT
    # A window that forecasts both sides is in neither; one that only looks back over the split is.
    ends = [set(part.ends.tolist()) for part in (learned, judged)]
    assert not ends[0] & ends[1]
    assert SPLIT - 1 in ends[1]
    both = np.isfinite(found.observed).any(axis=1) & (found.times[:, 0] < SPLIT)
    assert len(learned) == (both & (found.times[:, -1] < SPLIT)).sum()
    middle = found.between(20, 30)
    assert middle.times.min() == 20 and middle.times.max() == 29


def spoiled(table: Table, since: int) -> Table:
    """The table with another future."""
    records = [
        replace(r, values=np.where((r.times >= since)[:, None], 1e6, r.values))
        for r in table.records
    ]
    return replace(table, records=tuple(records))


def learns_from(table: Table, split: int = SPLIT) -> list[Any]:
    """All that training sees."""
    part = whole(table, SMALL, split).between(None, SPLIT)
    x, s = part.window(torch.arange(len(part)), SMALL.lookback)
    return [x, s, part.observed, part.base, *vars(Scaling.of(table, SMALL, split)).values()]


def test_nothing_of_the_future_is_learned_from_and_a_leak_is_seen() -> None:
    table = basins()
    other = spoiled(table, SPLIT)
    for ours, theirs in zip(learns_from(table), learns_from(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Planted: means and deviations that know one step of the future.
    leaks = zip(learns_from(table, SPLIT + 1), learns_from(other, SPLIT + 1), strict=True)
    assert any(not np.array_equal(ours, theirs, equal_nan=True) for ours, theirs in leaks)


def test_a_forecast_does_not_depend_on_what_comes_after_it() -> None:
    table = basins()
    for settings in (SMALL, replace(SMALL, change=True), replace(SMALL, first=0, inputs=("rain",))):
        forecaster = trained(table, settings)
        known = forecaster.settings.first == 0  # the rain of the first step is an input then
        ours, theirs = (forecaster.predict(t) for t in (table, spoiled(table, 50 + known)))
        early = ours.times[:, 0] <= 50
        np.testing.assert_array_equal(ours.values[early], theirs.values[early])
        assert not np.array_equal(ours.values[~early], theirs.values[~early], equal_nan=True)


# --- the loss and the gradient --------------------------------------------------------------------


def test_the_loss_is_that_of_the_values_that_are_there() -> None:
    output = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.randn(6, 3, dtype=torch.float64)
    there = torch.rand(6, 3) < 0.5
    squares, count = masked_loss(output, torch.where(there, expected, NAN))
    squares.backward()
    assert output.grad is not None
    plain = ((output.detach() - expected) ** 2)[there].sum()
    assert squares.item() == pytest.approx(plain.item(), rel=TORCH)
    assert count == there.sum()
    torch.testing.assert_close(
        output.grad, torch.where(there, 2 * (output.detach() - expected), 0.0), rtol=TORCH, atol=0
    )


def test_the_gradient_goes_through_all_of_the_window_as_torchs_does() -> None:
    settings = replace(SMALL, lookback=9)
    torch.manual_seed(3)
    ours = ForecastModel("lstm", 2, 1, settings).double()
    theirs = nn.LSTM(3, settings.hidden).double()
    weights = dict(ours.recurrent.named_parameters())
    state = {
        f"weight_{kind}_l0": torch.cat([weights[f"{letter}_{gate}_l0"].detach() for gate in "ifgo"])
        for kind, letter in (("ih", "W"), ("hh", "U"))
    }
    state["bias_ih_l0"] = torch.cat([weights[f"b_{gate}_l0"].detach() for gate in "ifgo"])
    state["bias_hh_l0"] = torch.zeros_like(state["bias_ih_l0"])
    theirs.load_state_dict(state)
    x = torch.randn(9, 4, 2, dtype=torch.float64)
    s = torch.randn(4, 1, dtype=torch.float64)
    expected = torch.randn(4, 3, dtype=torch.float64)
    expected[1, 2] = NAN

    ours_x, theirs_x = (x.clone().requires_grad_() for _ in range(2))
    squares, _ = masked_loss(ours(ours_x, s), expected)
    squares.backward()
    h, _ = theirs(torch.cat([theirs_x, s.expand(9, 4, 1)], dim=2))
    output = h[-1] @ ours.head.weight.detach().T + ours.head.bias.detach()
    ((output - expected)[torch.isfinite(expected)] ** 2).sum().backward()

    assert ours_x.grad is not None and theirs_x.grad is not None
    torch.testing.assert_close(ours_x.grad, theirs_x.grad, rtol=TORCH, atol=TORCH)
    assert (ours_x.grad.abs().amax(dim=(1, 2)) > 0).all(), "some step has no part in the forecast"
    for kind, letter in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b")):
        each = [getattr(ours.recurrent, f"{letter}_{gate}_l0").grad for gate in "ifgo"]
        stacked = getattr(theirs, f"{kind}_l0").grad
        torch.testing.assert_close(torch.cat(each), stacked, rtol=TORCH, atol=TORCH)


def test_attributes_reach_a_cell_by_its_own_input_or_as_inputs() -> None:
    x, s = torch.randn(4, 2, 3), torch.randn(2, 2)
    torch.manual_seed(1)
    entity = ForecastModel("ea_lstm", 3, 2, SMALL)
    assert (entity.given, entity.recurrent.input_size) == ("s", 3)
    output, _ = entity.recurrent(x, s=s)
    torch.testing.assert_close(entity(x, s), entity.head(output[-1]), rtol=0, atol=0)
    plain = ForecastModel("gru", 3, 2, SMALL)
    assert (plain.given, plain.recurrent.input_size) == (None, 5)
    assert not torch.equal(plain(x, s), plain(x, -s))


# --- skill ----------------------------------------------------------------------------------------


def test_persistence_is_the_last_value_seen() -> None:
    target = np.array([NAN, 2.0, NAN, 4.0, NAN, NAN])
    ends = np.arange(6)
    said = persistence(target, ends, 1, 2)
    np.testing.assert_array_equal(said[:, 0], [NAN, 2, 2, 4, 4, 4])
    np.testing.assert_array_equal(said[:, 0], said[:, 1])
    # Where the window's own value is asked for, it is not known.
    np.testing.assert_array_equal(persistence(target, ends, 0, 1)[:, 0], [NAN, NAN, 2, 2, 4, 4])


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_season_before_is_the_one_of_a_slow_loop(first: int) -> None:
    draw = np.random.default_rng(2)
    target = np.where(draw.random(40) < 0.7, draw.normal(size=40), NAN)
    season, ahead = 5, 12
    said = seasonal(target, np.arange(40), first, ahead, season)
    for end in range(40):
        for k in range(ahead):
            at = end + first + k - season
            while at >= 0 and (at > end - (first == 0) or math.isnan(target[at])):
                at -= season
            np.testing.assert_equal(said[end, k], target[at] if at >= 0 else NAN)


def test_scores_by_hand() -> None:
    observed = np.array([1.0, 3.0, NAN, 5.0])
    forecast = np.array([2.0, 3.0, 9.0, 3.0])
    assert mean_squared_error(forecast, observed) == 5 / 3
    assert efficiency(forecast, observed) == 1 - 5 / 8
    assert efficiency(np.full(4, 3.0), observed) == 0.0
    assert math.isnan(efficiency(forecast, np.array([NAN, 2.0, 2.0, 2.0])))
    assert math.isnan(mean_squared_error(forecast, np.full(4, NAN)))


def test_all_ways_are_judged_on_the_values_that_all_of_them_have() -> None:
    observed = np.array([[0.0, 4.0], [2.0, NAN], [0.0, 1.0], [4.0, 2.0], [9.0, 3.0]])
    series = np.array([0, 0, 1, 1, 1])
    one = np.array([[1.0, 4.0], [2.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, 4.0]])
    two = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [NAN, 0.0]])
    scores = compare((1, 2), observed, series, {"one": one, "two": two})
    assert scores.count.tolist() == [4, 4]
    np.testing.assert_array_equal(scores["one"].mse, [5 / 4, 1 / 4])
    np.testing.assert_array_equal(scores["two"].mse, [5, 30 / 4])
    # The median over the series: of one alone at step 2, where the other was measured but once.
    np.testing.assert_array_equal(scores["one"].nse, [0.5, 0.5])
    np.testing.assert_array_equal(scores["two"].nse, [-1.0, -6.0])
    assert str(scores).splitlines() == [
        "steps ahead     +1     +2",
        "RMSE one     1.118    0.5",
        "RMSE two     2.236  2.739",
        "NSE one        0.5    0.5",
        "NSE two         -1     -6",
        "values           4      4",
    ]


# --- learning -------------------------------------------------------------------------------------


def test_it_learns_a_series_better_than_persistence() -> None:
    x = np.arange(400) * 0.3
    table = Table.of({"y": np.sin(x)})
    settings = Settings("y", ("y",), lookback=8, ahead=2, hidden=8, epochs=15, learning_rate=0.03)
    forecaster = Forecaster.train(table, "sancho", settings, validation=0.6, test=0.8)
    assert forecaster.periods == {"validation": (240, 320), "test": (320, None)}
    scores = forecaster.scores(table)
    assert (scores["sancho"].mse < scores["persistence"].mse / 20).all()
    assert (scores["sancho"].nse > scores["persistence"].nse).all()
    history = [epoch.validation for epoch in forecaster.history]
    assert history[0] > 10 * history[-1]


def test_the_epoch_kept_is_the_best_one() -> None:
    table = basins()
    seen: list[Epoch] = []
    settings = replace(SMALL, epochs=12, learning_rate=0.1)
    forecaster = Forecaster.train(table, "gru", settings, validation=SPLIT, report=seen.append)
    assert seen == forecaster.history and [e.number for e in seen] == list(range(1, 13))
    best = min(seen, key=lambda epoch: epoch.validation)
    assert forecaster.best == best.number < 12, "the last is best: this shows nothing"
    said = forecaster.predict(table, since=SPLIT)
    there = np.isfinite(said.observed)
    assert best.validation == pytest.approx(
        ((said.values - said.observed)[there] ** 2).mean(), rel=SAME_STREAM
    )
    short = Forecaster.train(table, "gru", replace(settings, patience=2), validation=SPLIT)
    assert len(short.history) == short.best + 2 < 12


def test_windows_without_a_value_to_start_from_are_left_out() -> None:
    table = basins()
    for record in table.records:
        record.values[:10, 1] = NAN
    settings = replace(SMALL, change=True, batch=1)
    found = whole(table, settings).between(None, SPLIT)
    assert not np.isnan(found.base).any()
    assert all(math.isfinite(epoch.training) for epoch in trained(table, settings).history)
    # They are forecast all the same: as nothing.
    said = trained(table, settings).predict(table, until=12)
    assert len(said.values) > 0 and np.isnan(said.values).all()


def test_the_same_settings_give_the_same_weights_and_leave_chance_alone() -> None:
    table = basins()
    before = torch.get_rng_state()
    settings = replace(SMALL, dropout=0.2)
    one = trained(table, settings)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    two = trained(table, settings)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name])
    other = trained(table, replace(settings, seed=2))
    assert not torch.equal(one.model.head.weight, other.model.head.weight)


def test_the_first_epochs_error_is_that_of_a_model_that_hardly_moved() -> None:
    table = basins()
    found = whole(table, SMALL).between(None, SPLIT)
    forecaster = trained(table, replace(SMALL, epochs=1, learning_rate=1e-12))
    said = forecaster.predict(table, until=SPLIT)
    there = np.isfinite(said.observed)
    assert there.sum() == np.isfinite(found.observed).sum()
    expected = ((said.values - said.observed)[there] ** 2).mean()
    assert forecaster.history[0].training == pytest.approx(expected, rel=SAME_STREAM)


def test_predictions_reach_beyond_the_table() -> None:
    table = basins()
    forecaster = trained(table)
    said = forecaster.predict(table, since=60)
    assert said.record == ("basin 0",)
    assert said.times.tolist() == [[60, 61, 62]]
    assert np.isnan(said.observed).all() and np.isfinite(said.values).all()
    some = forecaster.predict(table, since=50, until=54)
    assert some.record == ("basin 0", "basin 0", "basin 1", "basin 1")
    assert some.times[:, 0].tolist() == [50, 51, 50, 51]
    np.testing.assert_array_equal(some.observed[0], table.records[0].values[50:53, 1])
    assert len(forecaster.predict(table, since=1000).times) == 0
    # Another basin, with its own attributes: a model of many basins is for those without a gauge.
    other = replace(table, records=table.records[1:], statics=table.statics[1:])
    ours = forecaster.predict(table).values[-len(forecaster.predict(other).values) :]
    np.testing.assert_allclose(forecaster.predict(other).values, ours, rtol=SAME_STREAM)


def test_scores_are_of_the_period_that_is_asked_for() -> None:
    table = basins()
    forecaster = Forecaster.train(table, "lstm", SMALL, validation=30, test=45)
    assert str(forecaster.scores(table)) == str(forecaster.scores(table, "test"))
    assert str(forecaster.scores(table, since=45)) == str(forecaster.scores(table, "test"))
    validation = forecaster.scores(table, since=30, until=45)
    assert str(validation) == str(forecaster.scores(table, "validation"))
    said = forecaster.predict(table, since=30, until=45)
    there = np.isfinite(said.observed[:, 1])
    error = ((said.values - said.observed)[there, 1] ** 2).mean()
    assert validation["lstm"].mse[1] == pytest.approx(error, rel=8 * EPS)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "ea_lstm", "h[t] = tanh(W @ x[t] + U @ h[t-1])"])
def test_what_is_loaded_forecasts_the_same_bits(tmp_path: Path, cell: str) -> None:
    table, path = basins(), tmp_path / "flow.safetensors"
    forecaster = Forecaster.train(table, cell, replace(SMALL, season=7), validation=30, test=45)
    forecaster.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    loaded = Forecaster.load(path)
    np.testing.assert_array_equal(loaded.predict(table).values, forecaster.predict(table).values)
    assert str(loaded.scores(table)) == str(forecaster.scores(table))
    for name in ("settings", "marked", "attributes", "grid", "periods", "history", "best"):
        assert getattr(loaded, name) == getattr(forecaster, name), name


def test_times_of_the_calendar_are_loaded(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.csv", [f"2001-01-{k:02},{math.sin(k)}" for k in range(1, 29)]
    path.write_text("\n".join(["date,flow", *rows]))
    table = read_table(path, time="date", columns=("flow",))
    settings = Settings("flow", ("flow",), lookback=3, hidden=3, epochs=1)
    forecaster = Forecaster.train(table, "rnn", settings, validation="2001-01-20")
    forecaster.save(tmp_path / "a.safetensors")
    loaded = Forecaster.load(tmp_path / "a.safetensors")
    assert loaded.periods == {"validation": (np.datetime64("2001-01-20", "s"), None)}
    assert str(loaded.scores(table)) == str(forecaster.scores(table))
    assert loaded.scores(table).count.tolist() == [9]


def test_files_that_are_no_forecaster(tmp_path: Path) -> None:
    table, path = basins(), tmp_path / "flow.safetensors"
    assert_refused(lambda: Forecaster.load(path), f"there is no file {path}")
    save_file({"a": torch.zeros(2)}, path)
    nothing = f"{path} holds no forecaster of this version of bptt"
    assert_refused(lambda: Forecaster.load(path), nothing)
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is damaged"):
        Forecaster.load(path)
    absent = tmp_path / "absent" / "flow.safetensors"
    what = f"cannot save to {absent}: No such file or directory"
    assert_refused(lambda: trained(table).save(absent), what)
    trained(table).save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not have the SHA-256"):
        Forecaster.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {}},
        {"settings": {**asdict(SMALL), "hidden": 16_000}},
        {"settings": {**asdict(SMALL), "layers": 60}},
        {"settings": {**asdict(SMALL), "hidden": "5"}},
        {"settings": {**asdict(SMALL), "more": 5}},
        {"cell": {"name": "lstm", "text": "lstm"}},
        {"cell": {"name": "rnn", "text": "h[t] = tanh(W @ x[t] + U @ h[t-1])\n"}},
        {"marked": ["rain"]},
        {"attributes": ["area"]},
        {"grid": 1},
        {"history": [{}]},
        {"periods": {"test": ["soon", None]}},
    ],
)
def test_a_file_that_does_not_fit_together(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "flow.safetensors"
    trained(basins(), replace(SMALL, epochs=1)).save(path)
    text, tensors = read_file(path)
    assert text is not None
    write_file(path, json.dumps({**json.loads(text), **change}), tensors)
    with pytest.raises(UserError, match="is damaged"):
        Forecaster.load(path)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"lookback": 0}, "lookback must lie between 1 and 65,536, not 0"),
        ({"ahead": 2.0}, "ahead is a whole number, not 2.0"),
        ({"epochs": True}, "epochs is a whole number, not True"),
        ({"dropout": 1.0}, "dropout must lie between 0 and 0.99, not 1.0"),
        ({"dropout": "no"}, "dropout is a number, not 'no'"),
        ({"learning_rate": NAN}, "learning_rate must lie between 0 and 1, not nan"),
        ({"target": 3}, "target and inputs are names of columns"),
        ({"inputs": ()}, "inputs are one column or more, each once"),
        ({"inputs": ("rain", "rain")}, "inputs are one column or more, each once"),
        ({"inputs": "rain"}, "inputs are several names: ('rain',)"),
        ({"gaps": "fill"}, "gaps is 'refuse' or 'mark', not 'fill'"),
        ({"change": 1}, "change is True or False, not 1"),
        ({"first": 0}, "with first=0 the window's last flow is forecast, and it is an input"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], what: str) -> None:
    assert_refused(lambda: replace(SMALL, **changes), what)


def flat(table: Table, column: int, value: float) -> Table:
    records = []
    for record in table.records:
        values = record.values.copy()
        values[:, column] = value
        records.append(replace(record, values=values))
    return replace(table, records=tuple(records))


def test_tables_that_nothing_can_be_learned_from() -> None:
    table = basins()
    gaps = [int(np.flatnonzero(np.isnan(r.values[:, 0]))[0]) for r in table.records]
    count = int(np.isnan(table.records[0].values[:, 0]).sum())
    what = f"rain of basin 0 has {count} gaps, the first at {gaps[0]}"
    careful = replace(SMALL, gaps="refuse")
    assert_refused(lambda: trained(table, careful), what, "fill them, or say gaps='mark'")
    what = "the table has no column 'rian'"
    typo = replace(SMALL, inputs=("rian",))
    assert_refused(lambda: trained(table, typo), what, "did you mean `rain`?")
    what = f"rain is always 2 before {SPLIT}"
    assert_refused(lambda: trained(flat(table, 0, 2.0)), what)
    what = f"flow has no value before {SPLIT}"
    assert_refused(lambda: trained(flat(table, 1, NAN)), what)
    same = replace(table, statics=np.ones((2, 2)))
    assert_refused(lambda: trained(same), "area is always 1 from record to record")
    what = "there is nothing for training: no window of 50 steps with flow at any of the steps "
    what += "(1, 2, 3) after it"
    help = "the longest record has 60 steps: split elsewhere, or look back less"
    assert_refused(lambda: trained(table, replace(SMALL, lookback=50)), what, help)
    late = {"validation": 60}
    what = what.replace("training", "validation").replace("50", "4")
    assert_refused(lambda: Forecaster.train(table, "lstm", SMALL, **late), what, help)


@pytest.mark.parametrize(
    ("periods", "what"),
    [
        ({"validation": 1.5}, "a period begins at a fraction between 0 and 1, not at 1.5"),
        ({"validation": 40, "test": 40}, "test begins at 40, and validation at 40"),
        ({"validation": "2001-01-01"}, "'2001-01-01' is no time of this table"),
    ],
)
def test_periods_that_cannot_be(periods: dict[str, Any], what: str) -> None:
    assert_refused(lambda: Forecaster.train(basins(), "lstm", SMALL, **periods), what)


@pytest.mark.parametrize(
    ("cell", "statics", "what"),
    [
        ("gru_d", 2, "the cell `gru_d` needs more than a series and attributes: inputs d m, const"),
        ("lstmp", 2, "the cell `lstmp` needs more than a series and attributes: size P"),
        ("ea_lstm", 0, "the cell `ea_lstm` reads attributes, s, and the table has none"),
        (
            "function f\nh[t] = f(W @ x[t] + U @ h[t-1])",
            2,
            "the cell `cell` leaves something open: function f",
        ),
    ],
)
def test_cells_that_need_something_else(cell: str, statics: int, what: str) -> None:
    with pytest.raises(UserError) as caught:
        ForecastModel(cell, 2, statics, SMALL)
    assert caught.value.what.startswith(what)


def test_a_loss_that_is_no_number_is_said() -> None:
    table = basins()
    runaway = Cell("h[t] = 1e30 * (W @ x[t]) + U @ h[t-1]", name="runaway")
    what = "the loss is no longer a number in epoch 1"
    assert_refused(lambda: trained(table, SMALL, runaway), what)  # pyright: ignore[reportArgumentType]


def test_tables_of_another_kind() -> None:
    table = basins()
    forecaster = trained(table, replace(SMALL, inputs=("rain",)))
    coarse = replace(table, step=2)
    what = "the table has a step of 2, and 1 was learned"
    assert_refused(lambda: forecaster.predict(coarse), what, "bring it to the same grid")
    bare = replace(table, attributes=(), statics=np.zeros((2, 0)))
    what = "the table's attributes are none; learned were area, slope"
    assert_refused(lambda: forecaster.predict(bare), what)
    whole_rain = Forecaster.train(
        flat_gaps(table), "lstm", replace(SMALL, inputs=("rain",)), validation=SPLIT
    )
    what = "rain has gaps, and had none when the model learned"
    assert_refused(lambda: whole_rain.predict(table), what)
    assert_refused(lambda: forecaster.scores(table, "tset"), "there is no period 'tset'")
    what = "a period and times exclude each other"
    assert_refused(lambda: forecaster.scores(table, "validation", since=3), what)
    what = "nothing was observed there that could be compared with a forecast"
    assert_refused(lambda: forecaster.scores(table, since=60), what)


def flat_gaps(table: Table) -> Table:
    """The table with its gaps of rain filled."""
    records = [
        replace(r, values=np.stack([np.nan_to_num(r.values[:, 0]), r.values[:, 1]], axis=1))
        for r in table.records
    ]
    return replace(table, records=tuple(records))
