"""`layer.parts()`: enough to run a layer without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nn.eager import assert_close
from nn.options import series
from tolerances import TORCH

import bptt.nn
from bptt.nn.engine import Engine
from bptt.nn.run import run

X, H, T, B = 2, 3, 4, 2
LAYERS: dict[str, Callable[[], Engine]] = {
    "lstm": lambda: bptt.nn.LSTM(X, H, 2, proj_size=2, learn_initial=True),
    "gru": lambda: bptt.nn.GRU(X, H, 2, bidirectional=True, bias=False),
    "a zoneout": lambda: bptt.nn.RNN(X, H, zoneout=0.5).eval(),
    "odd widths": lambda: bptt.nn.Recurrent(
        "input x: X\nh[t] = tanh(W @ x[t-1] + U @ h[t-1])", X, H, 2, bidirectional=True
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_parts_make_the_layer(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    assert isinstance(layer, torch.nn.Module)
    for parameter in layer.double().parameters():
        torch.nn.init.normal_(parameter)
    parts = layer.parts()
    x = series(T, B, X)
    expected = layer(x)[0]
    starts = layer.initial_states(B)
    texts = (parts.layout.forward, parts.layout.backward)[: parts.directions]
    for k, widths in enumerate(parts.widths):
        found = []
        for d, text in enumerate(texts):
            row = k * parts.directions + d
            weight = parts.weights[row]
            tensors = [weight(n) if n else x[None] for n in parts.layout.reads]
            own = [s[row : row + 1, :, :w] for s, w in zip(starts, widths, strict=True)]
            found.append(run(text, [*tensors, *own])[0][0])
        x = torch.cat(found, -1)
    assert_close(x, expected, TORCH)
    assert parts.sizes[0]["X"] == X
