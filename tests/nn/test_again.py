"""A call like one before takes the shortest way, sees what has changed since, or steps aside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nn.eager import assert_close
from tolerances import BACKEND, TORCH
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import bptt.nn
from bptt.errors import UserError
from bptt.nn import GRU, LSTM, RNN, Recurrent
from bptt.nn.again import Again

T, B, X, H = 4, 3, 5, 7

LAYERS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: LSTM(X, H),
    "a projection": lambda: LSTM(X, H, proj_size=2),
    "no bias": lambda: LSTM(X, H, bias=False),
    "gru": lambda: GRU(X, H),
    "rnn": lambda: RNN(X, H),
    "peephole": lambda: Recurrent("peephole", X, H),
    "a state that begins with a half": lambda: Recurrent(HALF, X, H),
}
HALF = "state h = 0.5\nh[t] = tanh(W @ x[t] + U @ h[t-1])\n"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call that could take the shortest way took it."""
    found: list[bool] = []
    run = Again.run

    def noted(*args: Any) -> Any:
        result = run(*args)
        found.append(result is not None)
        return result

    monkeypatch.setattr(Again, "run", noted)
    return found


def values(called: Any) -> list[Tensor]:
    y, last = called
    return [y, *([last] if isinstance(last, Tensor) else last)]


def reference(layer: nn.Module, *given: Any) -> list[Tensor]:
    with bptt.nn.use_backend("reference"):
        return values(layer(*given))


@pytest.mark.parametrize("given", [False, True], ids=["from the start", "from states"])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_other_ways(name: str, given: bool, taken: list[bool]) -> None:
    """With the states of the call before or without, whichever it was that came first."""
    layer, x = LAYERS[name](), torch.randn(T, B, X)
    with torch.no_grad():
        states: tuple[Any, ...] = (layer(x)[1],) if given else ()
        found = values(layer(x, *states))
        assert_close(found, reference(layer, x, *states), BACKEND["float32"])
        assert_close(values(layer(x)), reference(layer, x), BACKEND["float32"])
    assert taken and all(taken)


def test_first_from_states(taken: list[bool]) -> None:
    """What a call without states begins with is not what the first one was given."""
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    with torch.no_grad():
        layer(x, (torch.randn(1, B, H), torch.randn(1, B, H)))
        assert_close(values(layer(x)), reference(layer, x), BACKEND["float32"])
    assert taken == [True]


def _double(layer: Any, x: Tensor) -> tuple[Any, ...]:
    layer.double()
    return (x.double(),)


def _update(layer: Any, x: Tensor) -> tuple[Any, ...]:
    layer.weight_hh_l0.mul_(2)
    return (x,)


def _other(p: Callable[[Any], Tensor]) -> Callable[[Any, Tensor], tuple[Any, ...]]:
    def change(layer: Any, x: Tensor) -> tuple[Any, ...]:
        layer.weight_hh_l0.data = p(layer.weight_hh_l0.detach())
        return (x,)

    return change


def _batch_first(layer: Any, x: Tensor) -> tuple[Any, ...]:
    layer.batch_first = True
    return (x,)


# What may be other than in the call before: each changes the layer and gives what to call it with.
CHANGES: dict[str, Callable[[Any, Tensor], tuple[Any, ...]]] = {
    "an update": _update,
    "other memory": _other(lambda p: p * 2),
    "other strides": _other(lambda p: (p * 2).T.contiguous().T),
    "a negative view": _other(torch._neg_view),
    "another number format": _double,
    "batches first": _batch_first,
    "an input with other strides": lambda _, x: (x.mT.contiguous().mT,),
    "a negative input": lambda _, x: (torch._neg_view(x),),
    "states with other strides": lambda _, x: (x, tuple(torch.randn(2, 1, H, B).mT)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_changes_are_seen(kind: str, taken: list[bool]) -> None:
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    with torch.no_grad():
        before = values(layer(x))
        given = CHANGES[kind](layer, x)
        found = values(layer(*given))
        assert_close(found, reference(layer, *given), BACKEND[str(given[0].dtype)[6:]])
    same = torch.allclose(found[0].float(), before[0], rtol=0, atol=BACKEND["float32"])
    assert same == (kind in ("an input with other strides", "another number format"))


def test_another_shape_is_refused() -> None:
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    with torch.no_grad():
        layer(x)
        layer.weight_hh_l0 = nn.Parameter(torch.randn(2, 2))
        with pytest.raises(UserError):
            layer(x)


@pytest.mark.parametrize("states", [(torch.zeros(1, B, H),), torch.zeros(1, B, H), (1, 2)])
def test_states_that_do_not_fit(states: Any) -> None:
    """They are refused as they were before."""
    with torch.no_grad():
        raised: list[type[BaseException]] = []
        for calls in (0, 1):
            layer, x = LSTM(X, H), torch.randn(T, B, X)
            for _ in range(calls):
                layer(x)
            with pytest.raises((RuntimeError, UserError, TypeError)) as caught:
                layer(x, states)
            raised.append(caught.type)
    assert raised[0] is raised[1]


def test_shapes_of_symbols() -> None:
    """They cannot be looked up; the long way knows them."""
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    with torch.no_grad():
        want = layer(x)[0]
        traced = make_fx(
            lambda x: layer(x)[0], tracing_mode="symbolic", _allow_non_fake_inputs=True
        )(x)
        assert_close([traced(x)], [want], TORCH)


@pytest.mark.parametrize("x", [[1, 2], None, np.zeros((T, B, X), np.float32)])
def test_what_is_no_tensor(x: Any) -> None:
    layer = LSTM(X, H)
    with torch.no_grad():
        layer(torch.zeros(T, B, X))
        with pytest.raises(UserError, match="a tensor is needed"):
            layer(x)


def test_it_steps_aside(taken: list[bool]) -> None:
    """Where gradients may be asked for, under a transform, in another format, elsewhere."""
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    with torch.no_grad():
        want = layer(x)[0]
        torch.func.vmap(lambda x: layer(x)[0])(x[None])
        with torch.autocast("cpu"):
            layer(x)
        with bptt.nn.use_backend("reference"):
            layer(x)
    y, _ = layer(x)
    assert y.requires_grad and not taken
    with torch.inference_mode():
        assert_close([layer(x)[0]], [want], TORCH)
    assert taken == [True]
