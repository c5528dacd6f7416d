"""Layers as ONNX graphs: onnxruntime gives what the layers give, for other steps and batches."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layers
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tolerances import EXPORTED
from torch import Tensor, nn

from bptt.errors import UserError
from bptt.export import onnx as export
from bptt.ir.dims import size_of
from bptt.nn import LSTM, Recurrent
from bptt.tasks.config import Config
from bptt.tasks.model import CharModel

# The cells that ONNX has an operator for, and what it is called.
OPERATORS = {
    "rnn": "RNN",
    "irnn": "RNN",
    "gru": "GRU",
    "gru_cho": "GRU",
    "lstm": "LSTM",
    "peephole": "LSTM",
    "coupled": "LSTM",
    "greff_vanilla": "LSTM",
    "greff_cifg": "LSTM",
}
# Matrices of a cell's own, reductions, phases, softmax, further inputs.
SCANS = ("layernorm_lstm", "on_lstm", "lmu", "ea_lstm")


class Many(nn.Module):
    """A user's own model: many layers that read one input, one after the other."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.layers = nn.ModuleList([layers.made(name).float() for name in names])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, Recurrent)
            wide = layer.input_size
            given = torch.cat([x] * (1 + wide // x.shape[-1]), -1)[..., :wide]
            others: dict[str, Tensor] = {}
            for name, width, per_sequence in layer._layout.others:
                size = size_of(width, layers._sizes(layer._layout))
                value = x[..., :1].sigmoid().expand(*x.shape[:2], size)
                others[name] = value[0] if per_sequence else value
            y, states = layer(given, **others)
            found += [y, *states]
        return tuple(found)


def session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def assert_near(got: list[Any], wanted: list[Tensor]) -> None:
    for a, b in zip(got, wanted, strict=True):
        b = b.detach().numpy()
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= EXPORTED["float"] * max(1.0, np.abs(b).max())


def nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the graphs in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes(attribute.g)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_layers_in_a_model_of_ones_own() -> None:
    model = Many([*OPERATORS, *SCANS]).eval()
    x = torch.randn(5, 3, 3)
    T, B = torch.export.Dim("T"), torch.export.Dim("B")
    made = torch.onnx.export(
        model, (x,), dynamo=True, dynamic_shapes=({0: T, 1: B},), verbose=False
    )
    assert made is not None
    proto = made.model_proto
    found = Counter(node.op_type for node in nodes(proto.graph))
    for operator, count in Counter(OPERATORS.values()).items():
        assert found[operator] == count
    assert found["Scan"] == len(SCANS)
    runs = session(proto.SerializeToString())
    for steps, batch in ((5, 3), (7, 2), (1, 1)):
        x = torch.randn(steps, batch, 3)
        with torch.no_grad():
            wanted = list(model(x))
        assert_near(runs.run(None, {runs.get_inputs()[0].name: x.numpy()}), wanted)


def test_layers_directions_and_states(tmp_path: Path) -> None:
    layer = LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True, dropout=0.5)
    path = tmp_path / "lstm.onnx"
    export(layer, path)
    assert layer.training  # as it was
    assert str(tmp_path.parent).encode() not in path.read_bytes()
    assert b".py" not in path.read_bytes()  # where it was traced is nobody's business
    onnx.checker.check_model(onnx.load(path), full_check=True)
    runs = session(path.read_bytes())
    assert [i.name for i in runs.get_inputs()] == ["x", "s0", "s1"]
    assert [o.name for o in runs.get_outputs()] == ["y", "s0_out", "s1_out"]
    x, states = torch.randn(2, 7, 3), (torch.randn(4, 2, 4), torch.randn(4, 2, 4))
    y, last = layer.eval()(x, states)
    given = {"x": x, "s0": states[0], "s1": states[1]}
    assert_near(runs.run(None, {n: a.numpy() for n, a in given.items()}), [y, *last])


def test_a_language_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CharModel("mgu", 5, Config(hidden=7, layers=1, embedding=3)).eval()
    path = tmp_path / "model.onnx"
    export(model, path)
    runs = session(path.read_bytes())
    codes, start = torch.randint(0, 5, (9, 2)), model.recurrent.initial_states(2)
    y, last = model(codes, start)
    assert_near(runs.run(None, {"x": codes.numpy(), "s0": start[0].detach().numpy()}), [y, *last])


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(UserError, match="LSTM is no layer of bptt"):
        export(nn.LSTM(2, 3), path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs onnx and onnxscript") as error:
        export(LSTM(2, 3), path)
    assert error.value.help == "pip install 'bptt[onnx]'"
    assert not list(tmp_path.iterdir())
