"""A layer run one step at a time."""

from __future__ import annotations

import pytest
import torch
from nn.eager import assert_close
from tolerances import TORCH

import bptt.nn
from bptt.errors import UserError
from bptt.nn import LSTM, Recurrent

CELLS = ("lstm", "gru_cho", "layernorm_lstm", "peephole", "mgu3", "lmu")


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_the_sequence(cell: str, batch: int) -> None:
    sizes = {"D": 3} if cell == "lmu" else None
    consts = None
    if cell == "lmu":
        consts = {"A": torch.randn(3, 3) / 3, "B": torch.randn(3)}
    layer = Recurrent(cell, 4, 6, num_layers=1, sizes=sizes, consts=consts).double()
    x = torch.randn(7, batch, 4, dtype=torch.float64)
    y, last = layer(x)
    step = layer.stepper(batch)
    ours = torch.stack([step(x[t]).clone() for t in range(7)])
    assert_close([ours, *step.states], [y.detach(), *(s.detach() for s in last)], TORCH)
    step.reset()
    assert_close([step(x[0])], [y[0].detach()], TORCH)


def test_layers_and_given_states() -> None:
    layer = LSTM(4, 6, num_layers=3).double()
    first = tuple(torch.randn(3, 2, 6, dtype=torch.float64) for _ in range(2))
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    y, last = layer(x, first)
    step = layer.stepper(2, first)
    for t in range(5):
        assert_close([step(x[t])], [y[t].detach()], TORCH)
    assert_close(list(step.states), [s.detach() for s in last], TORCH)
    step.reset(first)
    assert_close([step(x[0])], [y[0].detach()], TORCH)


def test_later_changes_of_parameters_are_not_seen() -> None:
    for batch in (1, 9):  # matrices read as they lie, and packed
        layer = LSTM(4, 6)
        step, x = layer.stepper(batch), torch.randn(batch, 4)
        before = step(x).clone()
        with torch.no_grad():
            for p in layer.parameters():
                p.zero_()
        step.reset()
        assert torch.equal(step(x), before)


def test_a_step_allocates_nothing_and_gives_the_same_memory() -> None:
    step, x = LSTM(4, 6).stepper(), torch.randn(1, 4)
    first = step(x)
    assert step(x).data_ptr() == first.data_ptr()


def test_what_cannot_step_is_refused() -> None:
    with pytest.raises(UserError, match="two directions"):
        LSTM(4, 6, bidirectional=True).stepper()
    with pytest.raises(UserError, match="further input"):
        Recurrent("zoneout", 4, 6).stepper()
    with pytest.raises(UserError, match="the states have the shapes"):
        LSTM(4, 6).stepper(2, (torch.zeros(1, 1, 6), torch.zeros(1, 1, 6)))
    with bptt.nn.use_backend("reference"), pytest.raises(UserError, match="compiled code"):
        LSTM(4, 6).stepper()
    step = LSTM(4, 6).stepper()
    with pytest.raises(UserError, match="a step takes"):
        step(torch.zeros(2, 4))
    with pytest.raises(UserError, match="float64"):
        step(torch.zeros(1, 4, dtype=torch.float64))
    with pytest.raises(UserError, match="the states of this stepper"):
        step.reset([torch.zeros(1, 2, 6)])
    with pytest.raises(UserError, match="on meta"):
        step(torch.zeros(1, 4, device="meta"))
    states = tuple(torch.zeros(1, 1, 6, dtype=torch.float64) for _ in range(2))
    with pytest.raises(UserError, match="as the layer is"):
        LSTM(4, 6).stepper(1, states)


def test_states_and_parameters_that_lie_otherwise() -> None:
    layer = LSTM(4, 6).double()
    layer.weight_hh_l0 = torch.nn.Parameter(torch.randn(6, 24, dtype=torch.float64).t())
    first = tuple(torch.randn(1, 6, 3, dtype=torch.float64).transpose(1, 2) for _ in range(2))
    x = torch.randn(1, 3, 4, dtype=torch.float64)
    y, _ = layer(x, tuple(s.contiguous() for s in first))
    assert_close([layer.stepper(3, first)(x[0])], [y[0].detach()], TORCH)
