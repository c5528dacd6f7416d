"""Windows as one operation, against the sweep as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nn.eager import assert_close
from nn.test_keep import SECOND, both_ways, program, tensors
from shapes import Shape
from tolerances import TORCH
from torch import Tensor

from bptt.errors import UserError
from bptt.ir.ports import At
from bptt.ir.program import Program
from bptt.nn.run import run
from bptt.nn.sweep import sweep_of
from bptt.nn.windowed import windowed

SHAPES = {
    "dense": Shape(7, 3),
    "one step": Shape(1, 2),
    "ragged": Shape(7, 4, lengths=(7, 5, 2, 2)),
    "one of a length": Shape(5, 2, lengths=(5, 1)),
}


def batch_sizes(shape: Shape) -> Tensor | None:
    counts = shape.batch_sizes()
    return None if counts is None else torch.tensor(counts)


def grads(found: list[Tensor], given: list[Tensor]) -> Any:
    total = sum((y.sin() + y**2).sum() for y in found) + torch.zeros(())
    return torch.autograd.grad(total, given, allow_unused=True, materialize_grads=True)


def both(
    p: Program, given: list[Tensor], sizes: Tensor | None, some: list[int], by: list[Tensor]
) -> None:
    """The values, and the gradients `by` some of what is given, of `some` of what comes out."""
    ours, whole = windowed(sweep_of(p), given, sizes), run(p, given, sizes)
    assert_close(ours, whole, TORCH)
    found = grads([ours[k] for k in some], by)
    assert_close(found, grads([whole[k] for k in some], by), TORCH)


@pytest.mark.usefixtures("poisoned")
@both_ways
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", [*SECOND, "ea_lstm"])
def test_gradients_are_those_of_the_whole(
    name: str, kind: str, way: int, rng: np.random.Generator
) -> None:
    p, shape = program(name, way), SHAPES[kind]
    given, sizes = tensors(p, shape, rng), batch_sizes(shape)
    both(p, given, sizes, list(range(len(sweep_of(p).outputs))), given)


@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_of_each_result_alone(kind: str, rng: np.random.Generator) -> None:
    p = program("lstm")
    given = tensors(p, SHAPES[kind], rng)
    for k in range(3):
        both(p, given, batch_sizes(SHAPES[kind]), [k], given)


@pytest.mark.parametrize("kind", ["dense", "ragged"])
def test_each_gradient_alone(kind: str, rng: np.random.Generator) -> None:
    p, shape = program("lstm"), SHAPES[kind]
    for k in range(len(sweep_of(p).inputs)):
        given = tensors(p, shape, rng)
        for n, x in enumerate(given):
            x.requires_grad_(n == k)
        both(p, given, batch_sizes(shape), [0, 1, 2], [given[k]])


def test_groups_share_constants(rng: np.random.Generator) -> None:
    p = program("layernorm_lstm")
    each = [tensors(p, SHAPES["dense"], rng) for _ in range(2)]
    given = [
        one[0] if port.at is At.CONST and k % 2 else torch.cat(one).detach().requires_grad_()
        for k, (port, *one) in enumerate(zip(sweep_of(p).inputs, *each, strict=True))
    ]
    assert {x.shape[0] for x in given} == {1, 2}
    both(p, given, None, [0], given)


def test_a_sweep_that_reads_beyond_an_end_is_refused(rng: np.random.Generator) -> None:
    """A derived one does."""
    sweep = sweep_of(program("lstm")).extended
    pulled = sweep.pull((True,) * len(sweep.outputs), (True,) * len(sweep.inputs)).sweep
    assert pulled is not None
    given = tensors(pulled.program, SHAPES["dense"], rng)
    with pytest.raises(UserError, match="cannot run in windows"):
        windowed(pulled, given, None)
