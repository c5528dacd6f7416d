"""Races of whole updates: the gate sees what is wrong, and both runs make the same updates."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tolerances import MUTATION

from bptt.bench import text as module
from bptt.bench.problems import TEXT
from bptt.bench.runner import Effort
from bptt.bench.shapes import Shape
from bptt.bench.text import FIRST, LIMIT, Race, Witness, apart, race
from bptt.tasks.config import Budget, Config
from bptt.tasks.text import Text
from bptt.tasks.training import Trainer
from bptt.tasks.twin import Turns, on_torch

SHAPE = Shape(9, 5, 6, 12)
CONFIG = Config(window=SHAPE.T, batch=SHAPE.B, embedding=SHAPE.I, hidden=SHAPE.H, dropout=0.3)
RHYME = Text("file", "/somewhere/rhyme.txt", "Peter Piper picked a peck of pickled pepper.\n" * 40)


def turns(cell: str = "lstm", backend: str | None = None, *, torchs: bool = False) -> Turns:
    budget = Budget(steps=30)  # at its full learning rate at once, as so small a model needs
    if torchs:
        return Turns(Trainer(RHYME, cell, CONFIG, budget, on_torch))
    return Turns(Trainer(RHYME, cell, CONFIG, budget), backend)


def against_twin(ours: Turns, twin: Turns) -> str:
    return apart(Witness("ours", ours, "nn.LSTM", twin))


def test_a_run_and_its_witness_have_the_same_losses() -> None:
    assert against_twin(turns(), turns(torchs=True)) == ""
    gru = Witness("ours", turns("gru"), "the reference backend", turns("gru", "reference"))
    assert apart(gru) == ""


def test_a_twin_with_other_weights_is_refused() -> None:
    twin = turns(torchs=True)
    with torch.no_grad():
        twin.trainer.model.get_parameter("recurrent.layers.weight_hh_l0").mul_(1.1)
    found = against_twin(turns(), twin)
    assert found.startswith("the loss of update 1 is ")
    assert " on ours and " in found and found.endswith(" on nn.LSTM")


def test_another_cell_is_refused() -> None:
    assert "the loss of update 1" in apart(Witness("a", turns("peephole"), "b", turns("lstm")))


@pytest.mark.parametrize("name", ["U_f", "W_g", "b_o"])
def test_a_gradient_that_points_elsewhere_is_found(name: str) -> None:
    ours = turns()
    weight = ours.trainer.model.get_parameter(f"recurrent.{name}_l0")
    weight.register_hook(lambda gradient: -gradient)
    found = against_twin(ours, turns(torchs=True))
    assert found.startswith("the loss of update "), "the gate is blind"
    assert "update 1 " not in found, "the first loss has seen no gradient"


def test_a_loss_may_be_off_by_the_limit_and_is_looked_at_in_every_update() -> None:
    def run(*losses: float) -> Callable[[], float]:
        return iter(losses).__next__

    flat = (4.0,) * FIRST
    assert apart(Witness("a", run(*flat), "b", run(*flat[1:], 4.0 * (1 + LIMIT / 2)))) == ""
    last = (*flat[1:], 4.0 * MUTATION)
    assert apart(Witness("a", run(*flat), "b", run(*last))) == (
        f"the loss of update {FIRST} is 4.000000 on a and 4.004000 on b"
    )
    assert "nan" in apart(Witness("a", run(math.nan), "b", run(4.0)))


class Counted:
    """A run that only counts its updates and writes down whose turn it was."""

    def __init__(self, name: str, log: list[str], losses: float = 1.0) -> None:
        self.name, self.log, self.loss = name, log, losses

    def __call__(self) -> float:
        self.log.append(self.name)
        return self.loss


def test_both_runs_make_the_same_updates_in_reversed_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_seconds", lambda run: run() * 0.2)
    log: list[str] = []
    ours, theirs = Counted("A", log), Counted("B", log)
    found = Race("lstm", "nn.LSTM", SHAPE, ours, theirs, [Witness("a", ours, "b", theirs)], "cpu")
    row = race(lambda: found, 1, Effort(rounds=2))
    assert "".join(log) == "AB" * FIRST + "AB" + "AAABBB" + "BBBAAA"
    assert (row.cell, row.shape, row.mode, row.against) == ("lstm", SHAPE, TEXT, "nn.LSTM")
    assert (len(row.ours), len(row.theirs), row.peaks, row.most) == (2, 2, (), None)
    assert (row.backend, row.judged, row.red) == ("cpu", FIRST * SHAPE.T, False)


def test_where_a_loss_is_wrong_there_are_no_numbers() -> None:
    log: list[str] = []
    ours, theirs = Counted("A", log), Counted("B", log)
    same = [Witness("ours", ours, "C", Counted("C", log)), Witness("B", theirs, "D", lambda: 2.0)]
    row = race(lambda: Race("gru", "our lstm", SHAPE, ours, theirs, same, "cpu"), 1, Effort(2))
    assert row.red and row.ratio is None
    assert row.why == "the loss of update 1 is 1.000000 on B and 2.000000 on D"
    assert "".join(log) == "AC" * FIRST + "B"


def test_a_race_runs_on_its_number_of_threads() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def make() -> Race:
        seen.append(torch.get_num_threads())
        return Race("lstm", "x", SHAPE, float, float, [Witness("a", float, "b", lambda: 1.0)], "")

    race(make, 2, Effort(1))
    assert seen == [2]
    assert torch.get_num_threads() == before
