"""The plain backend is the oracle, on every sweep, on awkward shapes, in NaN-filled memory."""

from __future__ import annotations

import numpy as np
import pytest
from backends_alike import (
    KINDS,
    ODD,
    REMADE,
    assert_close,
    float32_held_to_the_oracle,
    held_to_the_oracle,
    odd_held_to_the_oracle,
    run,
)
from shapes import GRID, draw, expected
from subjects import CORE
from sweeps_of import AHEAD, SWEEPS, sweep
from tolerances import BACKEND

from bptt import cells
from bptt.backends.reference import execute
from bptt.errors import UserError
from bptt.ir.ports import inputs, outputs


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("cell", "order", "kind"),
    [
        (cell, order, kind)
        for cell in cells.names()
        for order in SWEEPS
        for kind in KINDS
        if cell in CORE or kind == "torch" or "tangent" not in order  # arrays are alike to these
    ],
)
def test_backend_is_the_oracle(cell: str, order: str, kind: str, rng: np.random.Generator) -> None:
    held_to_the_oracle(execute, cell, order, kind, rng)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("order", AHEAD)
@pytest.mark.parametrize("cell", REMADE)
def test_what_is_made_again(cell: str, order: str, rng: np.random.Generator) -> None:
    held_to_the_oracle(execute, cell, order, "numpy", rng)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", SWEEPS[:4])
@pytest.mark.parametrize("name", ODD)
def test_odd_cells(name: str, order: str, kind: str, rng: np.random.Generator) -> None:
    odd_held_to_the_oracle(execute, name, order, kind, rng)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", cells.names())
def test_float32(cell: str, kind: str, rng: np.random.Generator) -> None:
    float32_held_to_the_oracle(execute, cell, kind, rng)


def test_a_wrong_backend_is_seen(rng: np.random.Generator) -> None:
    """The comparison itself: zeros, a swap of two gates and 0.1 % are all caught."""
    p, shape = sweep("lstm", "forward"), GRID[2]
    given = draw(p, shape, rng)
    want = expected(p, shape, given)
    port = outputs(p)[0]
    good = run(execute, p, shape, given, "numpy")[0]
    assert_close("h", good, want[port], BACKEND["float64"])
    for wrong in (np.zeros_like(good), good * 1.001, good[..., ::-1], np.full_like(good, np.nan)):
        with pytest.raises(AssertionError):
            assert_close("h", wrong, want[port], BACKEND["float64"])


def test_shapes_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    p = sweep("lstm", "forward")
    given = draw(p, GRID[2], rng)
    arrays = [given[port] for port in inputs(p)]
    with pytest.raises(UserError, match="inputs of a sweep"):
        execute(p, arrays[:-1])
    with pytest.raises(UserError, match="has size"):
        execute(p, [*arrays[:-1], arrays[-1][..., :-1]])
    with pytest.raises(UserError, match="must not grow"):
        execute(p, arrays, [1, 2])
