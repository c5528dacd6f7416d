"""A sequence in pieces, however it is cut, is the sequence."""

from __future__ import annotations

import random
from typing import Any

import layers
import pytest
import torch
from nn.eager import assert_close
from tolerances import SAME_STREAM

from bptt.nn import GRU, LSTM, RNN

X, H, T, B = 3, 5, 40, 2

MADE: dict[str, Any] = {
    "LSTM": lambda: LSTM(X, H, 2),
    "GRU": lambda: GRU(X, H, 2, batch_first=True),
    "RNN": lambda: RNN(X, H, 2, learn_initial=True),
}
CELLS = ["peephole", "layernorm_lstm", "qrnn", "slstm", "iosif"]


def pieces(module: Any, x: torch.Tensor, dim: int, cuts: list[int]) -> tuple[Any, Any]:
    """The output and last states, with the states carried from piece to piece."""
    found: list[torch.Tensor] = []
    states = None
    for piece in x.tensor_split(cuts, dim):
        if piece.shape[dim]:
            output, states = module(piece, states)
            found.append(output)
    return torch.cat(found, dim), states


@pytest.mark.parametrize("name", [*MADE, *CELLS])
def test_any_cut(name: str) -> None:
    torch.manual_seed(0)
    module = MADE[name]() if name in MADE else layers.made(name).float()
    dim = int(module.batch_first)
    x = torch.randn(*((B, T) if dim else (T, B)), module.input_size)
    with torch.no_grad():
        expected = module(x)
        draw = random.Random(name)
        for count in (1, 4, T - 1):
            cuts = sorted(draw.sample(range(1, T), count))
            assert_close(pieces(module, x, dim, cuts), expected, SAME_STREAM)


def test_a_state_that_is_lost_is_seen() -> None:
    module, x = LSTM(X, H), torch.randn(T, B, X)
    with torch.no_grad():
        (_, states), whole = module(x[:7]), module(x)[0]
        kept = module(x[7:], states)[0]
        lost = module(x[7:], (states[0], torch.zeros_like(states[1])))[0]
    assert_close(kept, whole[7:], SAME_STREAM)
    with pytest.raises(AssertionError):
        assert_close(lost, whole[7:], SAME_STREAM)
