"""Every cell of the library as a layer that trains: its steps are those of torch's own autograd,
run on the cell's text by a reader that knows nothing of ours."""

from __future__ import annotations

from typing import Any

import layers
import pytest
import torch
from backends.reference.test_random_cells import Reading
from nn.eager import assert_close
from shapes import Shape
from sweeps_of import FUNCTIONS
from tolerances import TORCH
from torch import Tensor

from bptt import cells
from bptt.calculus.rewrites import layer
from bptt.ir.ports import At, Port, inputs
from bptt.nn import Recurrent

T, B = 4, 3
STEPS, RATE = 3, 0.05
SIGNS = {"⊙": "*", "•": "*", "readout:": "", "loss:": ""}


def text(name: str) -> str:
    """A cell's text in what Python reads, its open functions written out."""
    found = "\n".join(" ".join(line.split()) for line in cells.read(name).split("\n"))
    for sign, plain in SIGNS.items():
        found = found.replace(sign, plain)
    bound = FUNCTIONS.get(name, {})
    return "\n".join([found, *(f"{f}(v) = {g}(v)" for f, g in bound.items() if "=" not in g)])


def by_torch(ours: Recurrent, weights: dict[str, Tensor], x: Tensor, others: Any) -> list[Tensor]:
    """The output and last states of a layer, as its cell's text says."""
    p = layer(ours.cell.program)
    (starts,) = (ours.initial_states(B),)
    known = dict(zip(ours.state_names, starts, strict=True))
    given: dict[Port, Tensor] = {}
    series = {"x": x} if "x" in {v.name for v in p.values} else {}
    for port in inputs(p):
        if port.at is At.CONST:
            given[port] = weights[port.name + "_l0"][None]
        elif port.at is At.START:
            given[port] = known[port.name]
        else:
            given[port] = ({**series, **others}.get(port.name, x))[None]
    found = Reading(text(ours.cell.name)).run(p, Shape(T, B, (5, 3, 2)), given)
    outputs = [a[0] for port, a in found.items() if port.at is At.STEPS]
    return [torch.cat(outputs, -1), *(a for port, a in found.items() if port.at is At.FINAL)]


def loss(values: list[Tensor]) -> Tensor:
    """A number that depends on all of them, with curvature of its own."""
    return sum((a.sin() + a.pow(2)).mean() for a in values) + torch.zeros(())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", cells.names())
def test_training_is_torchs(name: str) -> None:
    ours = layers.made(name)
    x, others = layers.given(ours, T, B)
    start = {k: v.detach().clone() for k, v in ours.named_parameters()}
    fixed = dict(ours.named_buffers())
    theirs = {k: v.clone().requires_grad_() for k, v in start.items()}
    wanted = by_torch(ours, {**theirs, **fixed}, x, others)
    output, states = ours(x, **others)
    assert_close([output, *states], wanted, TORCH)
    if not start:
        assert name == "esn"  # what it trains is its readout
        return
    optimizer = torch.optim.SGD(ours.parameters(), RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        output, states = ours(x, **others)
        loss([output, *states]).backward()
        optimizer.step()
        grads = torch.autograd.grad(
            loss(by_torch(ours, {**theirs, **fixed}, x, others)), [*theirs.values()]
        )
        theirs = {
            k: (v - RATE * g).detach().requires_grad_()
            for (k, v), g in zip(theirs.items(), grads, strict=True)
        }
    found = {k: v.detach() for k, v in ours.named_parameters()}
    assert_close([*found.values()], [v.detach() for v in theirs.values()], TORCH)
    assert any(not torch.equal(found[k], start[k]) for k in found)
