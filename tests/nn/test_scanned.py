"""A sweep in torch's own operations and its `scan` is what compiled code runs."""

from __future__ import annotations

import layers
import pytest
import torch
from nn.eager import assert_close
from tolerances import TORCH

from bptt import cells
from bptt.errors import UserError
from bptt.ir.ports import At
from bptt.nn.backend import use_backend
from bptt.nn.operators import operated
from bptt.nn.run import run
from bptt.nn.scanned import scanned
from bptt.nn.sweep import Sweep, sweep_of

T, B = 4, 2


def tensors(name: str) -> tuple[Sweep, Sweep, list[torch.Tensor]]:
    """A cell's sweeps, forward and backward in time, and what they read."""
    layer = layers.made(name)
    x, others = layers.given(layer, T, B)
    layout = layer._layout
    sweep = sweep_of(layout.forward)
    weight = layer._every_weight()[0]
    found: list[torch.Tensor] = []
    for read in layout.reads:
        given = x if not read else others.get(read)
        found.append(weight(read).detach() if given is None else given[None])
    found += [torch.rand_like(s) for s in layer.initial_states(B)]
    return sweep, sweep_of(layout.backward), found


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_both_ways(name: str) -> None:
    forward, backward, found = tensors(name)
    for sweep in (forward, backward):
        with use_backend("reference"):  # which compiles nothing
            wanted = run(sweep.program, found)
        assert_close(scanned(sweep, found), wanted, TORCH)


def test_what_onnx_cannot_hold_is_refused() -> None:
    forward, _, found = tensors("lstm")
    ports = zip(forward.inputs, found, strict=True)
    twice = [x if port.at is At.CONST else torch.cat([x, x]) for port, x in ports]
    with pytest.raises(UserError, match="no vmapped layer"):
        scanned(forward, twice)
    extended = forward.extended
    pulled = extended.pull((True,) * len(extended.outputs), (True,) * len(extended.inputs)).sweep
    assert pulled is not None
    with pytest.raises(UserError, match="no gradients"):
        scanned(pulled, [])


def test_a_ragged_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    forward, _, found = tensors("lstm")
    with pytest.raises(UserError, match="no ragged batch"):
        run(forward.text, found, torch.tensor([2, 1]))


def test_operators_are_for_the_cells_of_the_table_in_float32() -> None:
    forward, backward, found = tensors("lstm")
    single = [x.float() for x in found]
    assert operated(forward, found) is None
    shapes = [x.shape for x in run(forward.program, found)]
    for sweep in (forward, backward):
        made = operated(sweep, single)
        assert made is not None
        assert [x.shape for x in made] == shapes
    other, _, found = tensors("layernorm_lstm")
    assert operated(other, [x.float() for x in found]) is None
