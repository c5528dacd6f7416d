"""The short way through a layer gives what the long one gives, and steps aside where it must."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nn.eager import assert_close
from tolerances import BACKEND, TORCH
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import bptt.nn
from bptt.errors import UserError
from bptt.nn import GRU, LSTM, RNN, Recurrent
from bptt.nn.quick import Quick

T, B, X, H = 6, 3, 5, 7

LAYERS = {
    "lstm": lambda: LSTM(X, H),
    "two layers, two directions": lambda: LSTM(X, H, num_layers=2, bidirectional=True),
    "a projection": lambda: LSTM(X, H, proj_size=2),
    "peephole": lambda: Recurrent("peephole", X, H, num_layers=2),
    "gru": lambda: Recurrent("gru", X, H, bidirectional=True),
    "layer norm": lambda: Recurrent("layernorm_rnn", X, H),
    "learned states": lambda: GRU(X, H, num_layers=2, learn_initial=True),
    "no bias": lambda: RNN(X, H, bias=False),
}
# how an input of [B, T, X] may be laid out, and what the layer is told of it
LAYOUTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "time first, a view": (lambda x: x.transpose(0, 1), {}),
    "batch first": (lambda x: x, {"batch_first": True}),
    "batch first, a view": (
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        {"batch_first": True},
    ),
    "one sequence": (lambda x: x[1], {"batch_first": True}),
    "packed": (lambda x: packed(x, [4, 6, 1]), {}),
    "packed and sorted": (lambda x: packed(x, [6, 5, 5]), {}),
}


def packed(x: Tensor, lengths: list[int]) -> PackedSequence:
    found = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    if sorted(lengths, reverse=True) == lengths:
        return PackedSequence(found.data, found.batch_sizes)
    return found


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call took the short way."""
    found: list[bool] = []
    run = Quick.run

    def noted(*args: Any) -> Any:
        result = run(*args)
        found.append(result is not None)
        return result

    monkeypatch.setattr(Quick, "run", noted)
    return found


def everything(layer: nn.Module, given: dict[str, Any], order: int = 1) -> list[Tensor]:
    """Outputs, last states, and every gradient, or those of the gradients."""
    x = given["x"].clone().requires_grad_()
    states = given["states"] and tuple(s.clone().requires_grad_() for s in given["states"])
    y, last = layer(given.get("laid", _as_it_is)(x), _handed(layer, states))
    y = y.data if isinstance(y, PackedSequence) else y
    values = [y, *_states(last)]
    loss = sum((v.sin() * (k + 1)).sum() for k, v in enumerate(values))
    by = [x, *(states or ()), *layer.parameters()]
    grads = torch.autograd.grad(loss, by, create_graph=order > 1, materialize_grads=True)
    if order > 1:
        total = sum((g**2).sum() for g in grads)
        grads = torch.autograd.grad(total, by, materialize_grads=True)
    return [v.detach() for v in (*values, *grads)]


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _handed(layer: nn.Module, states: Any) -> Any:
    """States as the layer takes them."""
    return states[0] if states and isinstance(layer, GRU | RNN) else states


def _states(last: Any) -> tuple[Tensor, ...]:
    return (last,) if isinstance(last, Tensor) else last


def sample(layer: nn.Module, states: bool) -> dict[str, Any]:
    """An input in float64, and states where asked for."""
    layer.double()
    x = torch.randn(T, B, X, dtype=torch.float64)
    _y, last = layer(x)
    first = tuple(torch.randn_like(s) for s in _states(last)) if states else None
    return {"x": x, "states": first}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_long_way(
    name: str, states: bool, order: int, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LAYERS[name]()
    given = sample(layer, states)
    taken.clear()
    short = everything(layer, given, order)
    assert taken == [True]
    monkeypatch.setattr(Quick, "run", lambda *_: None)
    assert_close(short, everything(layer, given, order), TORCH)


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [GRU, LSTM, "gru_cho"])
@pytest.mark.usefixtures("poisoned")
def test_however_an_input_is_laid_out(
    kind: Any, layout: str, states: bool, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    laid, options = LAYOUTS[layout]
    if isinstance(kind, str):
        layer: Any = Recurrent(kind, X, H, bidirectional=True, **options)
    else:
        layer = kind(X, H, bidirectional=True, **options)
    layer.double()
    given = {"x": torch.randn(B, T, X, dtype=torch.float64), "laid": laid, "states": None}
    _, last = layer(laid(given["x"]))
    if states:
        given["states"] = tuple(torch.randn_like(s) for s in _states(last))
    taken.clear()
    short = everything(layer, given)
    assert taken == [True]
    monkeypatch.setattr(Quick, "run", lambda *_: None)
    assert_close(short, everything(layer, given), TORCH)


def test_second_derivatives_of_a_ragged_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LAYERS["gru"]()
    given = sample(layer, True) | {"x": torch.randn(B, T, X, dtype=torch.float64)}
    given["laid"] = LAYOUTS["packed"][0]
    short = everything(layer, given, 2)
    monkeypatch.setattr(Quick, "run", lambda *_: None)
    assert_close(short, everything(layer, given, 2), TORCH)


def test_dropout_between_layers(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    layer = GRU(X, H, num_layers=3, dropout=0.5)
    given = sample(layer, False)
    found: list[Any] = []
    for _ in range(2):
        torch.manual_seed(1)
        found.append(everything(layer, given))
        monkeypatch.setattr(Quick, "run", lambda *_: None)
    assert all(taken)
    assert_close(*found, TORCH)


def test_half_of_a_sum_is_frozen() -> None:
    """A GRU's biases are sums in two of their three parts: each half gets what is its own."""
    layer = GRU(X, H).double()
    nn.init.normal_(layer.bias_hh_l0)
    x = torch.randn(T, B, X, dtype=torch.float64)
    layer(x)[0].sin().sum().backward()
    want = {name: p.grad for name, p in layer.named_parameters()}
    assert not torch.equal(want["bias_ih_l0"], want["bias_hh_l0"])
    for name, other in (("bias_ih_l0", "bias_hh_l0"), ("bias_hh_l0", "bias_ih_l0")):
        layer.zero_grad()
        layer.get_parameter(name).requires_grad_(False)
        layer(x)[0].sin().sum().backward()
        assert layer.get_parameter(name).grad is None
        assert_close(layer.get_parameter(other).grad, want[other], TORCH)
        layer.get_parameter(name).requires_grad_(True)


def test_without_gradients(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LSTM(X, H)
    x = torch.randn(T, B, X)
    with torch.no_grad():
        y, (h, c) = layer(x)
    with torch.inference_mode():
        again, _ = layer(x)
    assert taken == [True, True]
    monkeypatch.setattr(Quick, "run", lambda *_: None)
    with torch.no_grad():
        want, (h_, c_) = layer(x)
    assert_close([y, h, c, again], [want, h_, c_, want], TORCH)


def test_some_gradients_only() -> None:
    """What is frozen gets none, and the rest what it gets otherwise."""
    layer = LSTM(X, H).double()
    x = torch.randn(T, B, X, dtype=torch.float64)
    layer(x)[0].sum().backward()
    want = [p.grad for p in layer.parameters()]
    layer.weight_hh_l0.requires_grad_(False)
    layer.bias_ih_l0.requires_grad_(False)
    layer.zero_grad()
    layer(x)[0].sum().backward()
    found = {name: p.grad for name, p in layer.named_parameters()}
    assert found["weight_hh_l0"] is None and found["bias_ih_l0"] is None
    assert_close([found["weight_ih_l0"], found["bias_hh_l0"]], [want[0], want[3]], TORCH)


def test_changes_of_the_parameters_are_seen() -> None:
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    with torch.no_grad():
        first, _ = layer(x)
        for p in layer.parameters():
            p.data = p.data * 2
        second, _ = layer(x)
        with bptt.nn.use_backend("reference"):
            want, _ = layer(x)
    assert not torch.allclose(first, second)
    assert_close([second], [want], BACKEND["float32"])


def test_gradients_add_up_and_are_not_shared() -> None:
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    layer(x)[0].sum().backward()
    once = [p.grad.clone() for p in layer.parameters()]
    assert layer.bias_ih_l0.grad.data_ptr() != layer.bias_hh_l0.grad.data_ptr()
    layer(x)[0].sum().backward()
    for p, g in zip(layer.parameters(), once, strict=True):
        assert_close([p.grad], [2 * g], BACKEND["float32"])


def test_it_steps_aside(taken: list[bool]) -> None:
    """Transforms, parametrizations, autocast, other ways to keep, states of another format."""
    layer = LSTM(X, H)
    x = torch.randn(T, B, X)
    y, _ = layer(x)
    assert taken == [True]
    nn.utils.parametrize.register_parametrization(layer, "weight_hh_l0", nn.Identity())
    assert_close([layer(x)[0].detach()], [y.detach()], BACKEND["float32"])
    layer = LSTM(X, H)
    calls = [
        lambda: torch.func.functional_call(layer, {"weight_hh_l0": torch.zeros(4 * H, H)}, (x,)),
        lambda: torch.func.vmap(lambda x: layer(x)[0])(x[None]),
    ]
    layer.keep = "states"
    layer(x)
    layer.keep = "all"
    for call in calls:
        call()
    with torch.autocast("cpu"):
        layer(x)
    with bptt.nn.use_backend("reference"):
        layer(x)
    assert not any(taken[1:2])
    tail = taken[2:]
    assert (
        tail[0] is False and tail[1] is True
    )  # `keep`; `functional_call`, whose tensors are plain
    assert not any(tail[2:])


def test_batched_gradients() -> None:
    """`is_grads_batched`: what comes in is no plain tensor, and the long way takes over."""
    layer = LSTM(X, H).double()
    x = torch.randn(T, B, X, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x)
    seeds = torch.randn(2, *y.shape, dtype=torch.float64)
    both = torch.autograd.grad(y, x, seeds, is_grads_batched=True, retain_graph=True)[0]
    each = [torch.autograd.grad(y, x, seed, retain_graph=True)[0] for seed in seeds]
    assert_close([both], [torch.stack(each)], TORCH)


def test_a_layer_travels() -> None:
    layer, x = Recurrent("gru", X, H), torch.randn(T, B, X)
    y, _ = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert torch.equal(other(x)[0], y)


def test_a_wrong_address_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: two gates of a parameter that are swapped."""
    layer = LSTM(X, H)
    given = sample(layer, False)
    want = everything(layer, given)
    source = layer._source("W_i", "_l0")
    swapped = {"W_i": source._replace(part=1), "W_f": source._replace(part=0)}
    known = layer._short.sources[0][0]
    layer._short = Quick(layer._layout, [[{**known, **swapped}]])
    with pytest.raises(AssertionError):
        assert_close(everything(layer, given), want, TORCH)


def test_gradients_along_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that reads its own state and its own output: each path counts once."""
    layer = LSTM(X, X).double()
    x = torch.randn(T, B, X, dtype=torch.float64, requires_grad=True)

    def gradients(graph: bool) -> list[Tensor]:
        y, states = layer(x)
        z, states = layer(y, states)
        loss = z.pow(2).sum() + states[1].sum()
        return list(torch.autograd.grad(loss, [x, *layer.parameters()], create_graph=graph))

    found = [gradients(False), gradients(True)]
    monkeypatch.setattr(Quick, "run", lambda *_: None)
    for grads in found:
        assert_close([g.detach() for g in grads], gradients(False), TORCH)


def test_checkpoints_and_hooks() -> None:
    """What is kept may be unpacked once only, and may come back laid out in another way."""
    layer = LSTM(X, H).double()
    x = torch.randn(T, B, X, dtype=torch.float64)
    layer(x)[0].sin().sum().backward()
    want = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    y = torch.utils.checkpoint.checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
    y.sin().sum().backward()
    assert_close([p.grad for p in layer.parameters()], want, TORCH)
    layer.zero_grad()

    def turned(t: Tensor) -> Tensor:
        return t.transpose(0, -1).contiguous().transpose(0, -1)

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach(), turned):
        layer(x)[0].sin().sum().backward()
    assert_close([p.grad for p in layer.parameters()], want, TORCH)


def test_parameters_that_were_replaced() -> None:
    """Of another shape they are refused, and not read beyond their end."""
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    layer(x)
    layer.weight_hh_l0 = nn.Parameter(torch.randn(2, 2))
    with pytest.raises(UserError):
        layer(x)
    layer = LSTM(X, H)
    layer(x)
    layer.bias_hh_l0 = nn.Parameter(torch.randn(1))
    with pytest.raises((UserError, ValueError)):
        layer(x)


def test_a_negative_view_is_what_it_says() -> None:
    layer, x = LSTM(X, H), torch.randn(T, B, X)
    assert_close([layer(torch._neg_view(x))[0].detach()], [layer(-x)[0].detach()], TORCH)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_tangents_of_a_backward_pass() -> None:
    """Where the forward pass knew nothing of them."""
    layer, x = LSTM(X, H).double(), torch.randn(T, B, X, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x)
    grad, tangent = torch.randn_like(y), torch.randn_like(y)
    want = torch.autograd.grad(y, x, tangent, retain_graph=True)  # it is linear
    with forward_ad.dual_level():
        found = torch.autograd.grad(y, x, forward_ad.make_dual(grad, tangent))[0]
        assert_close([forward_ad.unpack_dual(found).tangent], want, TORCH)


@pytest.mark.parametrize(
    "unpack",
    [lambda t: t.double(), lambda t: t[:1].contiguous() if t.shape == (T, B, H) else t],
    ids=["another format", "another shape"],
)
def test_hooks_that_save_something_else(unpack: Callable[[Tensor], Tensor]) -> None:
    """It runs again from what was given, and reads no memory that is none of theirs."""
    layer, x = LSTM(X, H), torch.randn(T, B, X, requires_grad=True)
    want = torch.autograd.grad(layer(x)[0].sum(), [x, *layer.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        y, _ = layer(x)
    found = torch.autograd.grad(y.sum(), [x, *layer.parameters()])
    assert_close(found, want, BACKEND["float32"])
