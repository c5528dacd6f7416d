"""Tensors on another device than the CPU: those on `meta`, which have no numbers, stand for all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bptt.nn
from bptt.backends import cpu
from bptt.errors import UserError
from bptt.nn import LSTM, Recurrent
from bptt.nn.sweep import sweep_of

T, B, X, H = 4, 2, 3, 5
BACKENDS = ("auto", "cpu", "reference")
LAYERS: dict[str, Any] = {
    "lstm": lambda **options: LSTM(X, H, **options),
    "two layers": lambda **options: Recurrent("gru", X, H, num_layers=2, **options),
    "kept states": lambda **options: Recurrent("peephole", X, H, keep="states", **options),
    "kept windows": lambda **options: Recurrent("gru_cho", X, H, keep="sqrt", **options),
}


def shapes(found: Any) -> list[tuple[Any, ...]]:
    output, states = found
    return [(t.shape, t.dtype) for t in (output, *states)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_without_numbers_there_are_shapes(name: str, backend: str) -> None:
    """A layer that has none, of an input that has none: no backend is asked for any."""
    x = torch.zeros(T, B, X)
    layer, bare = LAYERS[name](), LAYERS[name](device="meta")
    with bptt.nn.use_backend(backend):
        found = bare(x.to("meta"))
        assert shapes(found) == shapes(layer(x))
        assert all(t.is_meta for t in (found[0], *found[1]))
        found[0].sum().backward()
    assert all(p.grad is not None and p.grad.is_meta for p in bare.parameters())


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_two_devices_are_refused(name: str, backend: str, grad: bool) -> None:
    """Else what comes out would be memory that nobody wrote."""
    x = torch.zeros(T, B, X)
    layer, bare = LAYERS[name](), LAYERS[name](device="meta")
    states = tuple(s.to("meta") for s in layer(x)[1])
    calls = [lambda: layer(x.to("meta")), lambda: bare(x), lambda: layer(x, states)]
    for call in calls:
        with (
            bptt.nn.use_backend(backend),
            torch.set_grad_enabled(grad),
            pytest.raises(UserError, match="runs on one device, and was given tensors on"),
        ):
            call()


def test_one_parameter_elsewhere_is_refused() -> None:
    layer, x = LSTM(X, H), torch.zeros(T, B, X)
    layer(x)
    layer.weight_hh_l0 = torch.nn.Parameter(layer.weight_hh_l0.to("meta"))
    with pytest.raises(UserError, match="one device"):
        layer(x)
    with pytest.raises(UserError, match="runs on the CPU"):
        layer.stepper()


def test_the_compiled_backend_runs_on_the_cpu() -> None:
    layer = LSTM(X, H, device="meta")
    p = sweep_of(layer._layout.forward).program
    given = [torch.zeros(1, T, B, X, device="meta")]
    given += [torch.zeros(1, H, X if name[0] == "W" else H) for name in layer._layout.reads[1:]]
    with pytest.raises(UserError, match="runs on the CPU"):
        cpu.execute(p, given + [torch.zeros(1, B, H)] * 2)
    with bptt.nn.use_backend("cpu"):
        with pytest.raises(UserError, match="runs on the CPU"):
            layer.stepper()
        with pytest.raises(UserError, match="one number format"):
            _half_double().stepper()


def _half_double() -> LSTM:
    layer = LSTM(X, H)
    layer.weight_hh_l0 = torch.nn.Parameter(layer.weight_hh_l0.double())
    return layer


def test_a_fake_tensor_has_the_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    x = torch.zeros(T, B, X)
    wanted = shapes(LSTM(X, H)(x))
    with FakeTensorMode(), bptt.nn.use_backend("cpu"):
        found = LSTM(X, H)(torch.zeros(T, B, X))
    assert isinstance(found[0], Tensor) and shapes(found) == wanted
