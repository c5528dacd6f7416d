"""Samples of a vmap share the parameters: they run as one batch, and nobody sees that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from bptt.ir.dims import shape_of
from bptt.ir.ports import At
from bptt.nn import LSTM, Recurrent
from bptt.nn.sweep import sweep_of


def layer_and_samples() -> tuple[LSTM, Tensor]:
    torch.manual_seed(0)
    return LSTM(3, 5), torch.randn(4, 6, 2, 3)


def test_outputs_of_samples_lie_one_after_the_other() -> None:
    layer, x = layer_and_samples()
    y = vmap(lambda one: layer(one)[0])(x)
    assert y.is_contiguous()
    flat = vmap(lambda one: layer(one)[0].view(-1, 5))(x)  # as a program may do in there
    torch.testing.assert_close(flat.view(y.shape), torch.stack([layer(one)[0] for one in x]))


@pytest.mark.parametrize("keep", ["all", "sqrt"])
def test_samples_in_a_compiled_graph(keep: str) -> None:
    """What runs in it gives tensors as the graph was told that they lie."""
    torch.manual_seed(0)
    layer, x = LSTM(3, 5, keep=keep), torch.randn(4, 6, 2, 3)
    weights = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(p: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(layer, p, (one,))[0].reshape(12, 5).square().sum()

    each = vmap(grad(loss), (None, 0))
    eager, compiled = each(weights, x), torch.compile(each, backend="aot_eager")(weights, x)
    for name, found in compiled.items():
        torch.testing.assert_close(found, eager[name])


def test_the_op_keeps_what_it_says_of_groups() -> None:
    """torch's own check: values, shapes and strides as a graph is told them."""
    text = Recurrent("rnn", 3, 5).parts().layout.forward
    sweep, given = sweep_of(text), list[Tensor]()
    for port in sweep.inputs:
        dims = shape_of(sweep.program.dims(port.name), {"X": 3, "H": 5})
        lead = {At.CONST: (1,), At.STEPS: (4, 6, 2)}.get(port.at, (4, 2))
        given.append(torch.randn(*lead, *dims))
    kinds = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.bptt.run.default, (text, given, None), test_utils=kinds)
