"""torch's tools that change a layer or what it holds: as nn.LSTM comes out of them, ours does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nn.calls import leaves
from nn.eager import assert_close
from nn.options import series
from tolerances import TORCH
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, parametrizations, prune, vector_to_parameters

import bptt.nn
from bptt.errors import UserError

X, H, T, B = 2, 3, 4, 2
KINDS = ("LSTM", "GRU", "RNN")
every_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """Torch's layer, and ours with its weights."""
    torch.manual_seed(0)
    theirs = getattr(nn, kind)(X, H, dtype=torch.float64, **options)
    ours = getattr(bptt.nn, kind)(X, H, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def trained(layer: Any, x: Tensor) -> list[Tensor]:
    values = leaves(layer(x))
    total = torch.stack([(y.sin() + y**2).sum() for y in values]).sum()
    parameters = [p for p in layer.parameters() if p.requires_grad]
    return [*values, *torch.autograd.grad(total, parameters)]


def same(theirs: Any, ours: Any) -> None:
    x = series(T, B, X)
    assert_close(trained(ours, x), trained(theirs, x), TORCH)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]


def old_norm(layer: nn.Module) -> None:
    nn.utils.weight_norm(layer, "weight_hh_l0")


def pruned(layer: nn.Module) -> None:
    names = [name for name, _ in layer.named_parameters()]
    prune.global_unstructured([(layer, n) for n in names], prune.L1Unstructured, amount=0.3)


def flattened(layer: nn.Module) -> None:
    with torch.no_grad():
        vector_to_parameters(parameters_to_vector(layer.parameters()) * 2, layer.parameters())


def views(layer: nn.Module) -> None:
    """As a sharded model has them: one parameter, and its parts in the place of the others."""
    parameters = dict(layer.named_parameters())
    flat = nn.Parameter(parameters_to_vector(parameters.values()).detach())
    parts = flat.split([p.numel() for p in parameters.values()])
    for (name, p), part in zip(parameters.items(), parts, strict=True):
        delattr(layer, name)
        setattr(layer, name, part.view_as(p))
    layer.register_parameter("flat", flat)


def assigned(layer: nn.Module) -> None:
    state = {name: value.clone() * 2 for name, value in layer.state_dict().items()}
    layer.to("meta").load_state_dict(state, assign=True)


def tied(layer: Any) -> None:
    layer.weight_hh_l0_reverse = layer.weight_hh_l0


def with_norm(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer, "weight_hh_l0")


def orthogonal(layer: nn.Module) -> None:
    torch.manual_seed(1)
    parametrizations.orthogonal(layer, "weight_ih_l0")


def spectral(layer: nn.Module) -> None:
    torch.manual_seed(1)
    parametrizations.spectral_norm(layer.eval(), "weight_hh_l0")


TOOLS: list[Callable[[Any], None]] = [
    with_norm,
    old_norm,
    orthogonal,
    spectral,
    pruned,
    flattened,
    views,
    assigned,
    tied,
]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
@every_kind
def test_a_tool_does_to_ours_what_it_does_to_torchs(kind: str, tool: Callable[[Any], None]) -> None:
    theirs, ours = pair(kind, bidirectional=True)
    same(theirs, ours)  # a call before, which ours may remember
    for layer in (theirs, ours):
        tool(layer)
    same(theirs, ours)
    if tool not in (views, old_norm, pruned):  # torch copies no weight that is worked out
        same(theirs, copy.deepcopy(ours))


@pytest.mark.parametrize("fused", [{"foreach": True}, {"fused": True}], ids=str)
@every_kind
def test_optimizers_that_take_all_parameters_at_once(kind: str, fused: dict[str, bool]) -> None:
    layers = pair(kind, num_layers=2)
    x = series(T, B, X)
    for layer in layers:
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, **fused)
        for _ in range(3):
            optimizer.zero_grad()
            layer(x)[0].square().sum().backward()
            optimizer.step()
    same(*layers)


@every_kind
def test_the_default_dtype(kind: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        ours = getattr(bptt.nn, kind)(X, H, zoneout=0.5, learn_initial=True)
        assert {p.dtype for p in ours.parameters()} == {torch.float64}
        found = trained(ours, torch.randn(T, B, X))
        assert {y.dtype for y in found} == {torch.float64}
        single = getattr(bptt.nn, kind)(X, H, zoneout=0.5, dtype=torch.float32)
        resets = torch.zeros(T, B, dtype=torch.bool)
        output, _ = single(torch.randn(T, B, X, dtype=torch.float32), resets=resets)
        assert output.dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("options", [{}, {"learn_initial": True}, {"zoneout": 0.5}], ids=str)
@every_kind
def test_training_after_inference_mode(kind: str, options: dict[str, Any]) -> None:
    """What a call under inference mode leaves behind can be trained with."""
    ours = getattr(bptt.nn, kind)(X, H, dtype=torch.float64, **options)
    x = series(T, B, X)
    with torch.inference_mode():
        assert ours(x)[0].is_inference()
    assert not any(y.is_inference() for y in trained(ours, x))


@every_kind
def test_a_layer_that_was_compiled_in_place_can_be_pickled(kind: str) -> None:
    """Torch's own cannot."""
    theirs, ours = pair(kind)
    for layer in (theirs, ours):
        layer.compile(backend="eager")
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(theirs)
    same(pair(kind)[0], pickle.loads(pickle.dumps(ours)))  # noqa: S301


# --- quantization ---------------------------------------------------------------------------------


def test_quantization_leaves_ours_as_they_are() -> None:
    from torch.ao.quantization import quantize_dynamic

    model = nn.Sequential(bptt.nn.LSTM(X, H))
    x = torch.randn(T, B, X)
    assert_close(quantize_dynamic(model)(x), model(x), 0.0)
    assert_close(quantize_dynamic(model, {nn.LSTM})(x), model(x), 0.0)


@pytest.mark.parametrize("kind", [*KINDS, "Recurrent"])
def test_quantization_of_ours_is_refused(kind: str) -> None:
    from torch.ao.quantization import default_qconfig, prepare, quantize_dynamic

    layer = bptt.nn.Recurrent("gru", X, H) if kind == "Recurrent" else getattr(bptt.nn, kind)(X, H)
    assert not hasattr(layer, "qconfig")
    model: Any = nn.Sequential(layer, nn.Identity())
    with pytest.raises(UserError, match=f"{kind} of bptt cannot be quantized"):
        quantize_dynamic(model, {type(layer)})
    model.qconfig = default_qconfig
    with pytest.raises(UserError, match=r"layer\.qconfig = None"):
        prepare(model)
    layer.qconfig = None
    x = torch.randn(T, B, X)
    assert_close(prepare(model)(x), layer(x), 0.0)
    assert copy.deepcopy(layer).qconfig is None


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hx", "said"),
    [
        (lambda h: h, r"a Tensor stands.*\n?.*\(h_0, c_0\)"),
        (lambda h: (None, None), "a NoneType stands"),
        (lambda h: [h, 0], "an? int stands"),
    ],
)
def test_states_of_another_kind(hx: Any, said: str) -> None:
    layer = bptt.nn.LSTM(X, H)
    with pytest.raises(UserError, match=said):
        layer(torch.randn(T, B, X), hx(torch.zeros(1, B, H)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: bptt.nn.Recurrent("gru", "3", H), "input_size is a whole number, not '3'"),
        (lambda: bptt.nn.Recurrent("gru", X, 3.0), "hidden_size is a whole number, not 3.0"),
        (lambda: bptt.nn.Recurrent("gru", X, H, 1.5), "num_layers is a whole number, not 1.5"),
        (lambda: bptt.nn.Recurrent("gru", X, H, dropout="x"), "dropout is a probability.*'x'"),
        (lambda: bptt.nn.LSTM(X, H, forget_bias="x"), "forget_bias is a number, not 'x'"),
        (lambda: bptt.nn.LSTM(X, H, chrono="x"), "chrono is the longest memory.*'x'"),
    ],
)
def test_arguments_of_another_kind(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()
