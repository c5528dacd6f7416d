"""Sweeps that read rows of a table: the plain backend is the oracle, and the numbers are those of
the cell that is fed the rows themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backends_alike import KINDS, assert_close, run
from shapes import GRID, Shape, expected, sizes_of
from sweeps_of import SWEEPS, program
from token_sweeps import (
    READING,
    draw_tokens,
    rewritten,
    token_sweep,
    tokens_held_to_the_oracle,
)
from tolerances import BACKEND

from bptt.backends.arrays import NumpyArrays
from bptt.backends.reference import execute
from bptt.backends.rows import check_rows
from bptt.calculus.derive import Derived, adjoint
from bptt.calculus.operands import ONE
from bptt.calculus.rewrites import with_outputs
from bptt.calculus.schedule import schedule
from bptt.errors import UserError
from bptt.ir.dims import shape_of
from bptt.ir.ops import ref
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Program

H = ("H",)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", SWEEPS[:4])
@pytest.mark.parametrize("cell", READING)
def test_backend_is_the_oracle(cell: str, order: str, kind: str, rng: np.random.Generator) -> None:
    tokens_held_to_the_oracle(execute, cell, order, kind, rng)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["lstm", "iosif", "sru"])
def test_float32(cell: str, kind: str, rng: np.random.Generator) -> None:
    for order in ("forward", "backward"):
        p = token_sweep(cell, order)
        given = draw_tokens(p, GRID[2], rng)
        want = expected(p, GRID[2], given)
        for port, a in zip(
            outputs(p), run(execute, p, GRID[2], given, kind, "float32"), strict=True
        ):
            assert a.dtype == np.float32
            assert_close(f"{cell} {order} {port.name}", a, want[port], BACKEND["float32"])


def test_a_wrong_row_is_seen(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: the row beside the one that was meant, forward and backward."""
    for order, name in (("forward", "row"), ("backward", "put_row")):
        p, shape = token_sweep("lstm", order), GRID[2]
        given = draw_tokens(p, shape, rng)
        want = expected(p, shape, given)
        right = getattr(NumpyArrays, name)

        def beside(self: Any, a: Any, k: Any, *rest: Any, right: Any = right) -> Any:
            rows = rest[0] if rest else a.shape[-2]
            return right(self, a, (k + 1) % rows, *rest)

        monkeypatch.setattr(NumpyArrays, name, beside)
        got = dict(zip(outputs(p), run(execute, p, shape, given, "numpy"), strict=True))
        port = Port("h" if order == "forward" else "d_W_i", outputs(p)[0].at)
        with pytest.raises(AssertionError, match=r"\): .* not "):
            assert_close(port.name, got[port], want[port], BACKEND["float64"])


# --- what is multiplied, what is copied -----------------------------------------------------------


def test_no_product_with_the_input_is_left() -> None:
    """Of an LSTM: before the loop nothing runs, and in it what the plain cell does there."""
    plain, chosen = schedule(program("lstm")), schedule(rewritten("lstm").program)
    assert len(plain.before) == 1 and chosen.before == ()
    assert [g.operands for phase in chosen.loop for g in phase.gemms] == [(ref("h", 1, H), ONE)]
    backward = schedule(token_sweep("lstm", "backward"))
    assert all(g.right in ((ref("h", -1, H),), (ONE,)) for g in backward.time_gemms)
    added = [a.of.op for phase in backward.after for a in phase.accums]
    assert added == ["put_row"] * 4


# --- numbers of rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("wrong", [-1.0, 3.0, 0.5, float("nan"), float("inf"), -1e30])
def test_a_number_of_no_row_is_refused_before_anything_runs(
    wrong: float, order: str, kind: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = token_sweep("lstm", order)
    given = draw_tokens(p, GRID[2], rng)  # of a table of three rows
    token = Port(rewritten("lstm").token, At.STEPS)
    run(execute, p, GRID[2], given, kind)
    monkeypatch.setattr("bptt.backends.reference.run._Run.run", lambda self: pytest.fail("it ran"))
    given[token].flat[-1] = wrong
    with pytest.raises(UserError, match=r"`token\$x` .* one of 3 rows") as error:
        run(execute, p, GRID[2], given, kind)
    assert error.value.help == "tokens are whole numbers from 0 to 2"


@pytest.mark.parametrize(("kind", "rows"), [("float16", 2**11), ("float32", 2**24)])
def test_a_table_longer_than_numbers_are_exact_is_refused(kind: str, rows: int) -> None:
    token = {Port("k", At.STEPS): np.zeros((1, 1, 1, 1), kind)}
    check_rows({"k": [rows]}, token, {})
    with pytest.raises(UserError, match=f"{rows + 1} rows is too long for {kind}"):
        check_rows({"k": [rows + 1]}, token, {})


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_one_row(kind: str, rng: np.random.Generator) -> None:
    """Then every step reads the same: as a cell that is fed it each step."""
    p, t, shape = program("lstm"), rewritten("lstm"), Shape(4, 3, (2, 5, 1))
    given = draw_tokens(t.program, shape, rng)
    table = given[Port(t.table, At.CONST)]
    assert table.shape == (1, 1, 5)
    fed = {port: given.get(port) for port in inputs(p)}
    fed[Port("x", At.STEPS)] = np.tile(table[:, :, None], (1, 4, 3, 1))
    got, want = run(execute, t.program, shape, given, kind), run(execute, p, shape, fed, kind)
    for port, a, b in zip(outputs(p), got, want, strict=True):
        assert_close(port.name, a, b, BACKEND["float64"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["lstm", "iosif", "sru"])
def test_a_row_that_never_occurs_has_a_gradient_of_exactly_zero(
    cell: str, kind: str, rng: np.random.Generator
) -> None:
    p, t = token_sweep(cell, "backward"), rewritten(cell)
    shape = Shape(6, 4, (2, 3, 7), groups=2)
    given = draw_tokens(p, shape, rng)
    token = Port(t.token, At.STEPS)
    given[token] = np.where(given[token] % 2 == 1, given[token], 5.0)  # 1, 3 and 5 only
    gradient = adjoint(t.program, (*t.program.outputs, *(s.name for s in t.program.states)))
    place = outputs(p).index(gradient.results[Port(t.table, At.CONST)])
    found = run(execute, p, shape, given, kind)[place]
    assert np.all(found[:, [0, 2, 4, 6]] == 0)
    assert np.all(np.abs(found[:, [1, 3, 5]]).max(-1) > 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["lstm", "iosif", "layernorm_lstm"])
def test_an_identity_as_table_is_one_hot_input(
    cell: str, kind: str, rng: np.random.Generator
) -> None:
    """Values and every gradient: that by x, of ones at each token's place, is not asked for."""
    p, t, shape = program(cell), rewritten(cell), Shape(5, 3, (2, 4, 4), groups=2)
    seeds = (*p.outputs, *(s.name for s in p.states))
    given = draw_tokens(t.program, shape, rng)
    token = given[Port(t.token, At.STEPS)]
    given[Port(t.table, At.CONST)] = np.eye(4)[None]  # shared by both groups
    fed = {port: given.get(port) for port in inputs(p)}
    fed[Port("x", At.STEPS)] = np.eye(4)[token[..., 0].astype(int)]
    values, plain = expected_every(t.program, shape, given), expected_every(p, shape, fed)
    mine, theirs = adjoint(t.program, seeds), adjoint(p, seeds)
    got = run(execute, mine.program, shape, filled(mine, values, shape), kind)
    want = run(execute, theirs.program, shape, filled(theirs, plain, shape), kind)
    found = dict(zip(outputs(mine.program), got, strict=True))
    true = dict(zip(outputs(theirs.program), want, strict=True))
    for port in (port for port in theirs.results if port.name != "x"):
        a, b = found[mine.results[port]], true[theirs.results[port]]
        assert_close(f"{cell} {port.name}", a, b, BACKEND["float64"])


def expected_every(p: Program, shape: Shape, given: dict[Port, Any]) -> dict[Port, Any]:
    """The inputs of `p` and all that it assigns, as the oracle has it."""
    names = [e.name for e in p.equations]
    return {**given, **expected(with_outputs(p, names), shape, given)}


def filled(d: Derived, values: dict[Port, Any], shape: Shape) -> dict[Port, Any]:
    """Inputs of a derived sweep; the adjoints that come in are all 1."""
    sizes = sizes_of(d.program, shape)
    found: dict[Port, Any] = {}
    for port in inputs(d.program):
        dims = shape_of(d.program.dims(port.name), sizes)
        lead = (shape.groups, shape.steps, shape.batch)
        lead = lead if port.at is At.STEPS else (shape.groups, shape.batch)
        found[port] = values[d.primal[port]] if port in d.primal else np.ones((*lead, *dims))
    return found
