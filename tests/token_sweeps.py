"""Sweeps that read rows of a table, and the oracle that every backend is held to on them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from backends_alike import NORMALIZING, Execute, assert_close, run
from shapes import GRID, Shape, draw, expected, sizes_of
from subjects import CORE
from sweeps_of import program
from tolerances import BACKEND, BACKEND_SECOND

from bptt import cells
from bptt.calculus.derive import adjoint
from bptt.calculus.rewrites import with_outputs
from bptt.calculus.summary import main_input
from bptt.calculus.tangent import jvp
from bptt.calculus.tokens import Tokens, tokens
from bptt.ir.ports import Port, outputs, row_numbers
from bptt.ir.program import Program

# The cells that have an input over time, and the sweeps of each.
READING = tuple(name for name in cells.names() if main_input(program(name)) is not None)


@cache
def rewritten(cell: str) -> Tokens:
    p = program(cell)
    given = main_input(p)
    assert given is not None
    return tokens(p, given.name)


@cache
def token_sweep(cell: str, order: str) -> Program:
    p = rewritten(cell).program
    backward = adjoint(p, (*p.outputs, *(s.name for s in p.states))).program
    match order:
        case "forward":
            steps = {e.name for e in p.steps()}
            return with_outputs(p, [v.name for v in backward.values if v.name in steps])
        case "backward":
            return backward
        case "second":
            return adjoint(backward).program
        case _:
            return jvp(p).program


def draw_tokens(p: Program, shape: Shape, rng: np.random.Generator) -> dict[Port, Any]:
    """Random values for the ports of `p`, and for those that choose rows whole numbers."""
    given, sizes = draw(p, shape, rng), sizes_of(p, shape)
    for port in given:
        for rows in row_numbers(p).get(port.name, [])[:1]:
            given[port] = rng.integers(0, sizes[rows], given[port].shape).astype(float)
    return given


def tokens_held_to_the_oracle(
    execute: Execute, cell: str, order: str, kind: str, rng: np.random.Generator
) -> None:
    """One sweep of a cell that reads tokens."""
    p = token_sweep(cell, order)
    limit = BACKEND_SECOND if order == "second" else BACKEND["float64"]
    every = cell in CORE and order in ("forward", "backward")
    shapes = GRID if every else (GRID[4], GRID[-1])
    if cell in NORMALIZING:
        shapes = tuple(s for s in shapes if min(s.sizes) > 2)
    for shape in shapes:
        given = draw_tokens(p, shape, rng)
        want = expected(p, shape, given)
        for port, a in zip(outputs(p), run(execute, p, shape, given, kind), strict=True):
            if port in want:
                assert_close(f"{cell} {order} {shape} {port.name}", a, want[port], limit)
            else:  # no sequence at all: nothing to sum
                assert np.all(a == 0), f"{cell} {order} {shape} {port.name} of no sequences"
