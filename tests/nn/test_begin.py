"""How layers begin: forget gates, chrono initialization, learned states."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from nn.eager import assert_close
from tolerances import BACKEND, TORCH
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import bptt.nn
from bptt.errors import UserError
from bptt.nn import GRU, LSTM, RNN, Recurrent

X, H, T, B = 3, 5, 4, 3

# an nn.RNN with a forget gate beside
GATED = "f[t] = sigmoid(W_f @ x[t] + b_f)\nh[t] = f[t]*h[t-1] + tanh(W @ x[t] + U @ h[t-1] + b)\n"


def gate(layer: nn.Module, name: str) -> list[Tensor]:
    """What the bias of a gate is, in each layer and direction."""
    found: list[Tensor] = []
    for key, p in layer.named_parameters():
        if key.startswith(f"b_{name}"):
            found.append(p.detach())
        if isinstance(layer, LSTM) and key.startswith("bias_ih"):
            both = p + layer.get_parameter(key.replace("_ih", "_hh"))
            found.append(both.chunk(4)["ifgo".index(name)].detach())
    return found


# --- gates --------------------------------------------------------------------------------------

GATES = {
    "lstm": lambda **o: LSTM(X, 200, 2, bidirectional=True, **o),
    "peephole": lambda **o: LSTM(X, 200, 2, bidirectional=True, cell="peephole", **o),
    "recurrent": lambda **o: Recurrent("lstm", X, 200, 2, bidirectional=True, **o),
}


@pytest.mark.parametrize("name", GATES)
def test_a_forget_bias(name: str) -> None:
    torch.manual_seed(0)
    plain = GATES[name]()
    torch.manual_seed(0)
    layer = GATES[name](forget_bias=2.5)
    for _ in range(2):
        found = gate(layer, "f")
        assert len(found) == 4
        assert all((b == 2.5).all() for b in found)
        layer.reset_parameters()
    torch.manual_seed(0)
    plain.reset_parameters()
    torch.manual_seed(0)
    layer.reset_parameters()
    for other in "igo":
        assert all(map(torch.equal, gate(layer, other), gate(plain, other)))
    assert "forget_bias=2.5" in repr(layer)


@pytest.mark.parametrize("name", GATES)
def test_chrono(name: str) -> None:
    torch.manual_seed(0)
    layer = GATES[name](chrono=100)
    for f, i in zip(gate(layer, "f"), gate(layer, "i"), strict=True):
        steps = f.exp()
        assert 1 <= steps.min() < 10 < 90 < steps.max() <= 99
        assert 40 < steps.mean() < 60
        assert torch.equal(i, -f)
    assert not torch.equal(*gate(layer, "f")[:2])
    assert "chrono=100" in repr(layer)


def test_a_forget_gate_of_another_layer() -> None:
    layer = RNN(X, H, cell=GATED, forget_bias=-1.0)
    assert (layer.get_parameter("b_f_l0") == -1).all()
    chrono = Recurrent("janet", X, H, chrono=3).get_parameter("b_f_l0").exp()
    assert 1 <= chrono.min() < chrono.max() <= 2  # and it has no input gate


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GRU(X, H, forget_bias=1.0), "`gru` has no forget gate `b_f`.*forget_bias.*init"),
        (lambda: RNN(X, H, chrono=9), "`rnn` has no forget gate `b_f`.*chrono"),
        (lambda: Recurrent("gru_cho", X, H, chrono=9), "`gru_cho` has no forget gate"),
        (lambda: LSTM(X, H, forget_bias=1.0, chrono=9), "forget_bias and chrono both"),
        (lambda: LSTM(X, H, bias=False, forget_bias=1.0), "without a bias"),
        (lambda: LSTM(X, H, forget_bias=float("nan")), "forget_bias is a number"),
        (lambda: Recurrent("lstm", X, H, chrono=2), "more than 2, not 2"),
    ],
)
def test_a_beginning_that_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(UserError, match="(?s)" + said):
        make()


# --- states -------------------------------------------------------------------------------------

LEARNING = {
    "lstm": lambda **o: LSTM(X, H, 2, bidirectional=True, learn_initial=True, **o),
    "projection": lambda **o: LSTM(X, H, proj_size=2, learn_initial=True, **o),
    "gru": lambda **o: GRU(X, H, 2, learn_initial=True, **o),
    "rnn": lambda **o: RNN(X, H, learn_initial=True, bias=False, **o),
    "recurrent": lambda **o: Recurrent("gru_cho", X, H, learn_initial=True, **o),
}


def drawn(name: str, **options: Any) -> tuple[Any, list[Tensor]]:
    """A layer, and its first states, which are no longer zero."""
    layer: Any = LEARNING[name](dtype=torch.float64, **options)
    first = [p for key, p in layer.named_parameters() if key in ("h0", "c0")]
    assert len(first) == len(layer.state_names)
    for p in first:
        nn.init.normal_(p)
    return layer, first


def inputs(kind: str) -> Any:
    x = torch.randn(T, B, X, dtype=torch.float64)
    if kind == "packed":
        return pack_padded_sequence(x, torch.tensor([2, 4, 3]), enforce_sorted=False)
    return {"batch": x, "batch_first": x.transpose(0, 1), "one": x[:, 0]}[kind]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kind", ["batch", "batch_first", "one", "packed"])
@pytest.mark.parametrize("name", LEARNING)
def test_learned_states_are_used(name: str, kind: str, backend: str) -> None:
    """As when they are given in the call, and with the gradients of all sequences."""
    layer, first = drawn(name, batch_first=kind == "batch_first")
    x = inputs(kind)
    size = [] if kind == "one" else [B]
    given = [p.detach()[:, None].expand(-1, *size or [1], -1) for p in first]
    given = [(s if size else s[:, 0]).clone().requires_grad_() for s in given]
    hx = tuple(given) if layer.state_names == ("h", "c") else given[0]
    with bptt.nn.use_backend(backend):
        found, expected = layer(x), layer(x, hx)
        losses = []
        for out, last in (found, expected):
            states = last if isinstance(last, tuple) else (last,)
            data = out.data if kind == "packed" else out
            losses.append(data.sin().sum() + sum(s.pow(2).sum() for s in states))
        grads = torch.autograd.grad(losses[0], first), torch.autograd.grad(losses[1], given)
    assert_close(*losses, TORCH)
    assert_close(grads[0], [g.sum(1) if size else g for g in grads[1]], TORCH)
    assert all(g.abs().sum() > 0 for g in grads[0])


@pytest.mark.parametrize("name", LEARNING)
def test_they_are_parameters(name: str) -> None:
    """Zero at first, in the state dict behind all others, and there only where asked for."""
    layer = LEARNING[name]()
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    names = [f"{state}0" for state in layer.state_names]
    assert list(layer.state_dict())[-len(names) :] == names
    for key, width in zip(names, layer.state_sizes, strict=True):
        assert torch.equal(layer.get_parameter(key), torch.zeros(rows, width))
    x = torch.randn(T, B, X)
    expected = layer(x)[0]
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert torch.equal(made(x)[0], expected)
    nn.init.ones_(layer.get_parameter("h0"))
    assert not torch.allclose(layer(x)[0], expected)
    layer.reset_parameters()
    assert not layer.get_parameter("h0").any()
    assert "learn_initial=True" in repr(layer)


def test_weights_of_a_layer_that_learns_no_states() -> None:
    theirs, ours = nn.LSTM(X, H), LSTM(X, H, learn_initial=True)
    found = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert found.missing_keys == ["h0", "c0"]
    x = torch.randn(T, B, X)
    assert_close(ours(x), theirs(x), BACKEND["float32"])


def test_states_begin_where_the_cell_says() -> None:
    """From its numbers; what it begins from a parameter it learns already."""
    text = "state h = start, m = -2\nm[t] = max(m[t-1], W @ x[t])\nh[t] = tanh(u*h[t-1] + m[t])"
    layer = Recurrent(text, X, H, learn_initial=True)
    names = [name for name, _ in layer.named_parameters()]
    assert "m0" in names
    assert "h0" not in names
    assert (layer.get_parameter("m0") == -2).all()
    nn.init.constant_(layer.get_parameter("m0"), 7.0)
    h, m = layer.initial_states(B)
    assert (m == 7).all()
    assert torch.equal(h, layer.get_parameter("start_l0").expand(1, B, H))
    assert_close(layer(torch.zeros(1, B, X))[1][1].detach(), m.detach(), 0.0)


def test_transforms_see_them() -> None:
    layer, (h0,) = drawn("gru")
    x = inputs("batch")
    expected = torch.autograd.grad(layer(x)[0].sin().sum(), h0)[0]
    values = {"h0": h0.detach()}

    def loss(values: Any) -> Tensor:
        return torch.func.functional_call(layer, values, (x,))[0].sin().sum()

    assert_close(torch.func.grad(loss)(values)["h0"], expected, TORCH)
    doubled = torch.func.functional_call(layer, {"h0": 2 * h0.detach()}, (x,))[0]
    hx = 2 * h0.detach()[:, None].expand(-1, B, -1)
    assert_close(doubled, layer(x, hx)[0], TORCH)


def test_a_stepper_begins_with_them() -> None:
    layer, _ = drawn("rnn")
    x = inputs("batch")
    step = layer.stepper(B)
    found = torch.stack([step(v).clone() for v in x])
    assert_close(found, layer(x)[0].detach(), TORCH)
