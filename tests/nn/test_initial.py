"""Initial values: what the `init` lines of a cell draw."""

import math

import pytest
import torch
from tolerances import TORCH

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.nn import Recurrent

WIDE = 200
TEXT = """\
f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + b_f)
g[t] = tanh(W_g @ x[t] + U_g @ h[t-1] + b_g*exp(p))
h[t] = f[t]*h[t-1] + k*(1 - f[t])*g[t]
param k: scalar, p: H
init b_f = log(uniform(1, 99)), b_g = -b_f/2, k = 3
init U_f = identity, U_g = orthogonal, W_f = glorot, W_g = 1 + normal(0, 0.1)**2
"""


def made() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    layer = Recurrent(Cell(TEXT), WIDE, WIDE, 2, dtype=torch.float64)
    return {name: p.detach() for name, p in layer.named_parameters()}


def test_every_kind_of_initial_value() -> None:
    found = made()
    for tail in ("_l0", "_l1"):
        b = found["b_f" + tail].exp()
        assert 1 <= b.min() < 10 < 90 < b.max() <= 99
        assert torch.equal(found["b_g" + tail], -found["b_f" + tail] / 2)
        assert (found["k" + tail] == 3).all()
        identity = torch.eye(WIDE, dtype=torch.float64)
        assert torch.equal(found["U_f" + tail], identity)
        U = found["U_g" + tail]
        assert (U @ U.T - identity).abs().max() < TORCH
        bound = math.sqrt(6 / (2 * WIDE))
        assert 0.99 * bound < found["W_f" + tail].abs().max() <= bound
        squares = found["W_g" + tail] - 1
        assert squares.min() >= 0
        assert 0.009 < squares.mean() < 0.011
    assert not torch.equal(found["b_f_l0"], found["b_f_l1"])


def test_draws_follow_torchs_generator() -> None:
    for a, b in zip(made().values(), made().values(), strict=True):
        assert torch.equal(a, b)


def test_values_that_are_not_finite_are_refused() -> None:
    text = "h[t] = tanh(W @ x[t] + U @ h[t-1])\ninit W = log(normal(0, 1))\n"
    with pytest.raises(UserError, match=r"`log\(normal\(0, 1\)\)` is not finite"):
        Recurrent(Cell(text), 3, 4)


def test_half_precision_starts_too() -> None:
    layer = Recurrent("nbrc", 3, 4, dtype=torch.bfloat16)
    assert layer.get_parameter("W_a_l0").dtype is torch.bfloat16
