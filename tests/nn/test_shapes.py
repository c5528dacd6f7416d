"""The shape rule: sizes found from shapes, and what does not fit named."""

from __future__ import annotations

import pytest
from subjects import CORE
from sweeps_of import SWEEPS, sweep

from bptt.errors import UserError
from bptt.ir.dims import add_dims, scale_dim, shape_of
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Program
from bptt.nn.shapes import Shape, describe, output_shapes, size, solve

SIZES = {"X": 2, "H": 3, "P": 5, "S": 2}


def shape(p: Program, port: Port, groups: int, ragged: bool) -> Shape:
    """The shape that a port has, with T = 7, B = 4 and N = 11."""
    dims = shape_of(p.dims(port.name), SIZES)
    if port.at is At.CONST:
        return (groups, *dims)
    lead = ((11,) if ragged else (7, 4)) if port.at is At.STEPS else (4,)
    return (groups, *lead, *(dims or (1,)))


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("order", SWEEPS)
@pytest.mark.parametrize("cell", CORE)
def test_every_sweep_of_every_cell(cell: str, order: str, ragged: bool) -> None:
    """From the shapes of the inputs, constants shared by all groups or not, follow the outputs'."""
    p = sweep(cell, order)
    given = [shape(p, port, 3 if port.at is not At.CONST else 1, ragged) for port in inputs(p)]
    own = [shape(p, port, 3, ragged) for port in inputs(p)]
    expected = [shape(p, port, 3, ragged) for port in outputs(p)]
    assert output_shapes(p, given, ragged) == output_shapes(p, own, ragged) == expected


def test_sizes_are_solved_one_after_the_other() -> None:
    whole = add_dims("X", "H", 1)
    known: dict[str, int] = {}
    solve([(whole, 9), (scale_dim("H", 4), 20)], known)
    assert known == {"H": 5, "X": 3}
    known = {}
    solve([(whole, 9)], known)
    assert known == {}
    with pytest.raises(UserError, match="the size X does not follow"):
        size(whole, {"H": 5})


def test_a_port_in_words() -> None:
    p = sweep("iosif", "forward")
    assert describe(p, Port("x", At.STEPS)) == "[G, T, B, X]"
    assert describe(p, Port("x", At.STEPS), ragged=True) == "[G, N, X]"
    assert describe(p, Port("W_c", At.CONST)) == "[G or 1, H + X + 1, H]"
    assert describe(p, Port("s", At.START)) == "[G, B, H]"


def test_no_length_no_series() -> None:
    p = sweep("rnn", "forward")
    given = [shape(p, port, 1, ragged=False) for port in inputs(p)]
    with pytest.raises(UserError, match="reads 5 tensors"):
        output_shapes(p, given[1:], ragged=False)
    with pytest.raises(UserError, match=r"`x` has the shape \[1, 11, 2\]"):
        output_shapes(p, [(1, 11, 2), *given[1:]], ragged=False)
