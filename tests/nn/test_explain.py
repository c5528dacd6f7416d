"""`layer.explain()`: what it says is what happens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from nn.calls import leaves
from nn.options import FURTHER
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import bptt.nn
from bptt.calculus.schedule import schedule
from bptt.ir.program import Program
from bptt.nn import GRU, LSTM, RNN, Recurrent, backend
from bptt.nn.quick import Quick
from bptt.printers.plan import show_plan

X, H, T, B = 3, 4, 5, 2
NOISE = {"recurrent_dropout": 0.25, "variational_dropout": 0.1, "zoneout": 0.5}


def parametrized() -> nn.Module:
    return parametrizations.weight_norm(GRU(X, H), "weight_hh_l0")


def transposed() -> nn.Module:
    layer = LSTM(X, H)
    layer.weight_hh_l0 = nn.Parameter(layer.weight_hh_l0.detach().mT.contiguous().mT)
    return layer


LAYERS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: LSTM(X, H),
    "two layers, two directions": lambda: LSTM(X, H, 2, bidirectional=True, batch_first=True),
    "a projection": lambda: LSTM(X, H, proj_size=2, learn_initial=True, forget_bias=1.0),
    "float64": lambda: GRU(X, H, bias=False).double(),
    "several phases": lambda: Recurrent("layernorm_lstm", X, H),
    "states": lambda: GRU(X, H, keep="states"),
    "sqrt": lambda: RNN(X, H, keep="sqrt", zoneout=0.5),
    "zoneout": lambda: GRU(X, H, zoneout=0.5),
    "all of it": lambda: LSTM(X, H, keep="states", **NOISE),
    "all of it, sqrt": lambda: LSTM(X, H, keep="sqrt", **NOISE),
    "parametrized": parametrized,
    "transposed": transposed,
    "bfloat16": lambda: LSTM(X, H).to(torch.bfloat16),
    "further inputs": lambda: Recurrent(FURTHER, X, H),
    "two outputs": lambda: Recurrent(
        "output h, g\ng[t] = tanh(W @ x[t])\nh[t] = g[t] * (U @ h[t-1])", X, H
    ),
    "learned by the cell": lambda: Recurrent(
        "state h = b\nh[t] = tanh(W @ x[t] + U @ h[t-1] + b)", X, H
    ),
    "odd widths": lambda: Recurrent("input x: X\nh[t] = tanh(W @ x[t-1] + U @ h[t-1])", X, H, 2),
    "once": lambda: Recurrent("antisymmetric", X, H),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def series(layer: Any) -> Tensor:
    return torch.randn(T, B, X).to(next(layer.parameters()).dtype).requires_grad_()


def called(layer: Any, **more: Any) -> list[Tensor]:
    """A call with gradients by all it is given."""
    x = series(layer)
    size = x.shape[0] if layer.batch_first else B
    states = [s.detach().requires_grad_() for s in layer.initial_states(size)]
    if layer.cell.text == FURTHER:
        more |= {"k": torch.randn(T, B, H, requires_grad=True)}
        more |= {"s": torch.randn(B, H, requires_grad=True)}
    return leaves(layer(x, states[0] if len(states) == 1 else tuple(states), **more))


def rows(text: str) -> dict[str, str]:
    """What stands at the head, by its name."""
    head = text.split("\n\n")[0].splitlines()
    return {line[:10].strip(): line[11:] for line in head if line[:10].strip()}


# --- plans ----------------------------------------------------------------------------------------


def phases(text: str) -> str:
    """A plan without what is said of its results."""
    lines = text.splitlines()
    return "\n".join(x for x in lines if not x.startswith(("given back", "kept for")))


def plans(text: str) -> dict[str, str]:
    """The plans by their headings."""
    parts = [part.split("\n", 1) for part in text.split("\n\n")[1:]]
    return {head: phases(plan) for head, plan in parts}


@pytest.mark.parametrize("asked", [False, True], ids=["plain", "with resets and series"])
@every_layer
def test_the_plans_are_those_that_run(
    name: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LAYERS[name]()
    ran: list[str] = []

    def execute(p: Program, tensors: Sequence[Tensor], lengths: Any, gives: Any) -> list[Tensor]:
        ran.append(phases(show_plan(schedule(p))))
        return backend.execute(p, tensors, lengths, gives)

    monkeypatch.setattr(sys.modules["bptt.nn.kernel"], "execute", execute)
    more: dict[str, Any] = {}
    if asked:
        more = {"resets": torch.zeros(T, B, dtype=torch.bool), "return_states": "all"}
    with bptt.nn.use_backend("reference"):
        shown = plans(layer.explain(resets=asked, return_states=asked))
        values = called(layer, **more)
        sum(v.float().sum() for v in values).backward()
        reverse = "bidirectional" in repr(layer)
        expected = [plan for head, plan in shown.items() if "evaluation" not in head]
        if not reverse:  # its plan is the same the other way
            assert set(expected) == set(ran)
        else:
            assert set(expected) < set(ran)
        ran.clear()
        layer.eval()
        with torch.no_grad():
            called(layer, **more)
    for head, plan in shown.items():
        if "evaluation" in head:
            assert {plan} == set(ran)
    noisy = any(word in repr(layer) for word in NOISE)
    assert noisy == any("evaluation" in head for head in shown)


# --- the way --------------------------------------------------------------------------------------


@every_layer
def test_the_way_is_the_one_that_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LAYERS[name]()
    short: list[bool] = []
    quick = Quick.run

    def watched(*args: Any) -> Any:
        found = quick(*args)
        short.append(found is not None)
        return found

    monkeypatch.setattr(Quick, "run", watched)
    said = rows(layer.explain())
    both = said.get("way", "")
    for training in (True, False):
        layer.train(training)
        short.clear()
        with torch.set_grad_enabled(training):
            called(layer)
        line = both or said["training" if training else "evaluation"]
        assert line.startswith("the short way") == any(short), line


WHY = {
    "states": 'keep is "states"',
    "zoneout": "masks are drawn",
    "parametrized": "weight_hh_l0 is no plain parameter",
    "bfloat16": "to compiled code",
    "further inputs": "a further input `k`",
    "two outputs": "several outputs",
    "learned by the cell": "begins `h` from a parameter",
    "odd widths": "another width in each layer",
    "once": "before its first step",
}


@pytest.mark.parametrize("name", WHY)
def test_the_longer_way_has_a_reason(name: str) -> None:
    said = rows(LAYERS[name]().explain())
    line = said.get("way") or said["training"]
    assert line.startswith("the longer way") and WHY[name] in line


def test_a_call_with_more_goes_the_longer_way() -> None:
    layer = LSTM(X, H)
    assert rows(layer.explain())["way"].startswith("the short way")
    assert rows(layer.explain(resets=True))["way"].endswith("the call has resets")
    assert rows(layer.explain(return_states=True))["way"].endswith("the call has return_states")
    assert rows(layer.explain(resets=True))["options"] == "resets"


# --- the rest of it -------------------------------------------------------------------------------


def test_options_are_named() -> None:
    layer = LSTM(X, H, keep="sqrt", zoneout={"c": 0.5}, forget_bias=1.0, learn_initial=True)
    said = rows(layer.explain())
    assert said["keep"] == "sqrt"
    assert said["options"] == "zoneout={'c': 0.5}, forget_bias=1.0, learn_initial=True"
    assert "options" not in rows(LSTM(X, H).explain())


def test_what_a_layer_is_in_a_graph() -> None:
    assert rows(LSTM(X, H).explain())["graphs"].endswith("ONNX the operator LSTM in float32")
    assert rows(GRU(X, H).explain())["graphs"].endswith("ONNX the operator GRU in float32")
    assert rows(LSTM(X, H, zoneout=0.1).explain())["graphs"].endswith("ONNX a Scan")


def test_a_backend_that_is_not_compiled_says_why() -> None:
    said = rows(LSTM(X, H).to(torch.bfloat16).explain())
    assert said["backend"].startswith("reference") and "bfloat16 on cpu" in said["backend"]
    assert "compiler" not in said
