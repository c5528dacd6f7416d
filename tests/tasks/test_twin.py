"""The twin of a run: the same numbers on torch's own layers, and turns that leave no trace."""

from __future__ import annotations

import pytest
import torch
from tolerances import SAME_LOSSES, SAME_STREAM

from bptt.tasks.config import Budget, Config
from bptt.tasks.model import CharModel
from bptt.tasks.text import Text
from bptt.tasks.training import Trainer
from bptt.tasks.twin import Turns, on_torch

TEXT = Text("file", "/somewhere/rhyme.txt", "Peter Piper picked a peck of pickled pepper.\n" * 40)
SMALL = Config(hidden=12, embedding=6, dropout=0.3, batch=5, window=9, restart=0.2)
TWO = Config(hidden=12, layers=2, embedding=6, dropout=0.0, batch=5, window=9, restart=0.2)


def run(config: Config, make: object = CharModel, cell: str = "lstm") -> Trainer:
    return Trainer(TEXT, cell, config, Budget(steps=30), make)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [SMALL, TWO])
def test_a_model_on_torch_is_the_same_model(config: Config) -> None:
    torch.manual_seed(3)
    ours = CharModel("lstm", 17, config).double().eval()
    torch.manual_seed(3)
    twin = on_torch("lstm", 17, config).double().eval()
    codes = torch.randint(17, (9, 5))
    logits, states = ours(codes)
    found, twins = twin(codes)
    fresh = torch.tensor([True, False, False, True, False])
    for a, b in zip(
        (logits, *states, *ours.renew(states, fresh)),
        (found, *twins, *twin.renew(twins, fresh)),
        strict=True,
    ):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= SAME_STREAM
    few = codes[:1, :2]  # too few for a product with the table
    assert (ours(few)[0] - twin(few)[0]).abs().max() <= SAME_STREAM


@pytest.mark.parametrize("config", [SMALL, TWO])
def test_a_run_and_its_twin_have_the_same_losses(config: Config) -> None:
    ours, twin = Turns(run(config)), Turns(run(config, on_torch))
    losses = [(ours(), twin()) for _ in range(30)]
    assert losses[-1][0] < losses[0][0]
    for one, other in losses:
        assert abs(one - other) <= SAME_LOSSES * other


def test_the_twins_second_bias_does_not_learn() -> None:
    twin = Turns(run(SMALL, on_torch))
    before = {n: p.clone() for n, p in twin.trainer.model.named_parameters()}
    twin()
    after = dict(twin.trainer.model.named_parameters())
    moved = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert set(after) - moved == {"recurrent.layers.bias_hh_l0"}
    assert not after["recurrent.layers.bias_hh_l0"].any()


def test_runs_in_turn_do_not_disturb_each_other() -> None:
    alone = run(SMALL)
    torch.manual_seed(SMALL.seed)
    losses = [alone.update() for _ in range(6)]
    one, other = Turns(run(SMALL)), Turns(run(SMALL, cell="gru"))
    before = torch.get_rng_state()
    found: list[float] = []
    for turn in range(6):
        for _ in range(turn % 3):
            other()
        found.append(one())
    assert found == losses
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_can_have_a_backend_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, other = Turns(run(SMALL)), Turns(run(SMALL), "reference")
    seen: list[str] = []
    update = Trainer.update

    def noted(self: Trainer) -> float:
        seen.append(self.engine.backend)
        return update(self)

    monkeypatch.setattr(Trainer, "update", noted)
    one, two = usual(), other()
    assert seen == ["cpu", "reference"]
    assert abs(one - two) <= SAME_STREAM * two


def test_torch_has_the_stock_cell_only() -> None:
    with pytest.raises(ValueError, match=r"nn\.LSTM has no p_f_l0"):
        on_torch("peephole", 17, SMALL)
