"""Batches that a model packs itself, in an exported graph and under vmap."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from nn.calls import leaves
from nn.eager import assert_close
from nn.options import series
from tolerances import TORCH
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import bptt.nn
from bptt.errors import UserError

X, H = 2, 3
pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of its own tools


class Packs(nn.Module):
    """Last states and outputs of a batch of padded sequences [T, B, X], whose lengths are given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        output, states = self.layer(packed)
        return (output.data, *leaves(states))


LAYERS: dict[str, Any] = {
    "two layers, two directions": lambda: bptt.nn.LSTM(X, H, 2, bidirectional=True),
    "a projection": lambda: bptt.nn.LSTM(X, H, proj_size=2),
    "learned states": lambda: bptt.nn.GRU(X, H, learn_initial=True),
    "sqrt": lambda: bptt.nn.RNN(X, H, keep="sqrt"),
    "any cell": lambda: bptt.nn.Recurrent("layernorm_lstm", X, H, keep="states"),
}


def trained(f: Any, x: Tensor, lengths: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    x = x.detach().requires_grad_()
    values = list(f(x, lengths))
    total = torch.stack([(y.sin() + y**2).sum() for y in values]).sum()
    return [*values, *torch.autograd.grad(total, [x, *parameters])]


@pytest.mark.parametrize("name", LAYERS)
def test_an_exported_model_packs_batches_of_any_size(name: str) -> None:
    """nn.LSTM cannot be exported so. Saved and loaded, its gradients too."""
    model = Packs(LAYERS[name]()).double()
    steps, batch = torch.export.Dim("T"), torch.export.Dim("B")
    example = series(5, 3, X), torch.tensor([3, 5, 2])
    exported = torch.export.export(
        model, example, dynamic_shapes=({0: steps, 1: batch}, {0: batch})
    )
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for lengths in ([3, 5, 2], [1, 4, 4, 7, 2], [6, 6]):
        x, of = series(8, len(lengths), X), torch.tensor(lengths)
        expected = trained(model, x, of, [*model.parameters()])
        assert_close(trained(loaded, x, of, [*loaded.parameters()]), expected, TORCH)


@pytest.mark.parametrize("name", LAYERS)
def test_an_exported_layer_takes_other_packed_batches(name: str) -> None:
    """Of another number of sequences, steps and rows, all of which are in the tensors only."""
    layer = LAYERS[name]().double()

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, data: Tensor, batch_sizes: Tensor) -> tuple[Tensor, ...]:
            output, states = self.layer(PackedSequence(data, batch_sizes))
            return (output.data, *leaves(states))

    shapes = ({0: torch.export.Dim("N")}, {0: torch.export.Dim("T")})
    example = series(6, X), torch.tensor([3, 2, 1])
    exported = torch.export.export(Given(), example, dynamic_shapes=shapes).module()
    for sizes in ([3, 2, 1], [4, 4, 3, 1], [2, 1]):
        given = series(sum(sizes), X), torch.tensor(sizes)
        assert_close(list(exported(*given)), list(Given()(*given)), TORCH)


@pytest.mark.parametrize("name", [name for name in LAYERS if "sqrt" not in name])
def test_each_sample_of_what_is_packed_within_vmap(name: str) -> None:
    model = Packs(LAYERS[name]()).double()
    x, lengths = series(4, 5, 3, X), torch.tensor([3, 5, 2])
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        values = functional_call(model, parameters, (x, lengths))
        return torch.stack([(y.sin() + y**2).sum() for y in values]).sum()

    grad = torch.func.grad(loss)
    found = torch.vmap(grad, (None, 0))(parameters, x)
    expected = [grad(parameters, sample) for sample in x]
    assert_close([*found.values()], [torch.stack([e[n] for e in expected]) for n in found], TORCH)


def test_samples_of_different_lengths_are_refused() -> None:
    model = Packs(bptt.nn.LSTM(X, H)).double()
    lengths = torch.tensor([[3, 5, 2], [4, 5, 1]])
    with pytest.raises(UserError, match="cannot differ along a vmapped axis"):
        torch.vmap(model)(series(2, 5, 3, X), lengths)
