"""`torch.jit.trace`: the trace holds a layer's one operation, and none of its results."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nn.eager import assert_close
from tolerances import TORCH
from torch import Tensor, nn
from torch.utils import _pytree

import bptt.nn
from bptt.nn import LSTM, Recurrent

# What torch says to everybody who traces, and of checks of shapes, which are not in the trace.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

X, H = 3, 5
Draw = Callable[[int, int], tuple[Tensor, ...]]


def series(steps: int, batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(steps, batch, X, dtype=torch.float64),)


class Given(nn.Module):
    """A layer that is given its states."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = LSTM(X, H, dtype=torch.float64)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        return self.layer(x, (h, c))


class Text(nn.Module):
    """A layer of tokens, and one behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, X, dtype=torch.float64)
        self.layer = Recurrent("gru", X, H, dtype=torch.float64)
        self.last = nn.Linear(H, 2, dtype=torch.float64)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last(self.layer(tokens, table=self.table.weight)[0])


def states_too(steps: int, batch: int) -> tuple[Tensor, ...]:
    return (*series(steps, batch), *(torch.randn(1, batch, H, dtype=torch.float64) for _ in "hc"))


def tokens(steps: int, batch: int) -> tuple[Tensor, ...]:
    return (torch.randint(6, (steps, batch)),)


def unbatched(steps: int, batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(steps + batch, X, dtype=torch.float64),)


CASES: dict[str, tuple[Callable[[], nn.Module], Draw]] = {
    "lstm": (lambda: LSTM(X, H), series),
    "two layers, two directions": (lambda: LSTM(X, H, num_layers=2, bidirectional=True), series),
    "batch first": (lambda: LSTM(X, H, batch_first=True), series),
    "unbatched": (lambda: LSTM(X, H), unbatched),
    "kept states": (lambda: Recurrent("peephole", X, H, keep="states"), series),
    "kept windows": (lambda: Recurrent("gru_cho", X, H, keep="sqrt"), series),
    "row sums": (lambda: Recurrent("layernorm_lstm", X, H), series),
    "given states": (Given, states_too),
    "a module around it": (Text, tokens),
}


def everything(f: Any, given: tuple[Tensor, ...], parameters: list[Tensor]) -> list[Tensor]:
    """What `f` gives and, where it can be trained, its gradients."""
    values = _pytree.tree_leaves(f(*given))
    found = [v.detach() for v in values]
    if values[0].requires_grad:
        found += torch.autograd.grad(sum(v.sin().sum() for v in values), parameters)
    return found


def traced_and_eager(layer: nn.Module, draw: Draw) -> None:
    """The same values and gradients, on the traced input's sizes and on others."""
    parameters = list(layer.parameters())
    traced = torch.jit.trace(layer, draw(4, 2))
    for sizes in ((4, 2), (7, 3), (1, 1)):
        given = draw(*sizes)
        wanted = everything(layer, given, parameters)
        assert_close(everything(traced, given, parameters), wanted, TORCH)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", CASES)
def test_a_trace_is_the_layer(name: str) -> None:
    make, draw = CASES[name]
    traced_and_eager(make().double(), draw)


def test_without_gradients() -> None:
    with torch.no_grad():
        traced_and_eager(LSTM(X, H).double(), series)
    traced_and_eager(LSTM(X, H).double().requires_grad_(False), series)


def test_a_trace_sees_what_changes_later() -> None:
    """Parameters, the backend, and a file that it was kept in."""
    layer = LSTM(X, H).double()
    file = io.BytesIO()
    traced = torch.jit.trace(layer, series(4, 2))
    with torch.no_grad():
        for p in layer.parameters():
            p *= 2
    torch.jit.save(traced, file)
    file.seek(0)
    (x,) = series(6, 3)
    with bptt.nn.use_backend("reference"):
        wanted = layer(x)
        assert_close(traced(x), wanted, TORCH)
    assert_close([traced(x), torch.jit.load(file)(x)], [wanted, wanted], TORCH)


def test_a_result_in_a_trace_is_seen() -> None:
    """The comparison itself: a layer whose results the trace holds."""

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LSTM(X, H, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)[0].detach()
            return x.new_tensor(y.tolist()) + 0 * x.sum()

    with pytest.raises(AssertionError):
        traced_and_eager(Held(), series)
