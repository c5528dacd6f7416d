"""The oracle against loops written by hand, and the branches it reports."""

from __future__ import annotations

import numpy as np
import pytest
from programs import HH, H, X, kinky, lstm, program
from tolerances import REWRITE

from bptt.calculus.derive import adjoint
from bptt.calculus.rewrites import lower
from bptt.ir import ops
from bptt.ir.ports import At, Port
from bptt.ir.program import Emit, Equation, Kind, Program, Role, State, Value
from bptt.proof import sampling
from bptt.proof.oracle import run
from bptt.proof.sweeps import forward, pull

SIZES = {"H": 3, "X": 5}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.max(np.abs(a - b), initial=0) <= REWRITE)


def test_an_lstm_runs_as_its_equations_say(rng: np.random.Generator) -> None:
    p = lstm()
    given = sampling.draw(p, 4, SIZES, rng, {})
    given |= sampling.warmed(p, given, SIZES, rng)
    found = run(p, given, SIZES, every=True)
    w = {port.name: a for port, a in given.items() if port.at is At.CONST}
    h, c = given[Port("h", At.START)], given[Port("c", At.START)]
    for t, x in enumerate(given[Port("x", At.STEPS)]):
        i, f, g, o = (w[f"W_{k}"] @ x + w[f"U_{k}"] @ h + w[f"b_{k}"] for k in "ifgo")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        assert close(found[Port("h", At.STEPS)][t], h)
        assert close(found[Port("c", At.STEPS)][t], c)
        assert close(found[Port("f", At.STEPS)][t], sigmoid(f))
    assert close(found[Port("h", At.FINAL)], h) and close(found[Port("c", At.FINAL)], c)


def test_a_backward_pass_by_hand_agrees(rng: np.random.Generator) -> None:
    """The plainest recurrence, differentiated on paper: nothing here is derived."""
    p = lower(program("h[t] = tanh(U @ h[t-1] + x[t])", {"x": H}, {"U": HH}, {"h": H}))
    length = 5
    given = sampling.draw(p, length, SIZES, rng, {})
    given[Port("h", At.START)] = rng.normal(size=3)
    values = forward(p, given, SIZES)
    seeds = {
        Port("h", At.STEPS): rng.normal(size=(length, 3)),
        Port("h", At.FINAL): rng.normal(size=3),
    }
    found, _ = pull(adjoint(p), values, seeds, SIZES)
    u, h0 = given[Port("U", At.CONST)], given[Port("h", At.START)]
    h = np.concatenate([h0[None], values[Port("h", At.STEPS)]])
    d_h, d_u, d_x = seeds[Port("h", At.FINAL)], np.zeros((3, 3)), np.zeros((length, 3))
    for t in reversed(range(length)):
        dz = (d_h + seeds[Port("h", At.STEPS)][t]) * (1 - h[t + 1] ** 2)
        d_u += np.outer(dz, h[t])
        d_x[t] = dz
        d_h = u.T @ dz
    assert close(found[Port("U", At.CONST)], d_u)
    assert close(found[Port("x", At.STEPS)], d_x)
    assert close(found[Port("h", At.START)], d_h)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("lag", [-1, 0, 1])
def test_lags_count_back_in_the_running_order(direction: int, lag: int) -> None:
    """y sums x at a lag: which x that is, and which edge it comes from, depends on the order."""
    read = ops.ref("x", lag, ())
    y = Equation("y", Kind.STEP, ops.add(ops.ref("y", 1, ()), read))
    x = Value("x", (), Role.GIVEN)
    p = Program(direction, (x,), (y,), (State("y"),), ("y",), (Emit("x", lag, "y"),))
    series = np.array([1.0, 10.0, 100.0])
    given = {
        Port("x", At.STEPS): series,
        Port("x", At.FIRST): np.float64(0.5),
        Port("x", At.LAST): np.float64(1000.0),
        Port("y", At.START): np.float64(0.0),
    }
    found = run(p, given, {})
    whole = np.array([0.5, *series, 1000.0])
    times = range(3) if direction > 0 else range(2, -1, -1)
    expected, total = np.zeros(3), 0.0
    sent = np.zeros(5)
    for t in times:
        total += whole[1 + t - direction * lag]
        expected[t] = total
        sent[1 + t - direction * lag] += total
    assert np.array_equal(found[Port("y", At.STEPS)], expected)
    assert found[Port("y", At.FINAL)] == total
    assert np.array_equal(found[Port("x", At.STEPS, True)], sent[1:-1])
    for end, at in ((sent[0], At.FIRST), (sent[-1], At.LAST)):
        port = Port("x", at, True)
        assert (found[port] == end) if port in found else end == 0


def test_sums_add_up_and_constants_are_made_once() -> None:
    text = """
k = 2*w
h[t] = k*x[t]"""
    p = program(text, {"x": H}, {"w": H}, {})
    lines = (*p.equations, Equation("s", Kind.SUM, ops.ref("h", 0, H)))
    late = Equation("m", Kind.ONCE, ops.neg(ops.ref("s", 0, H)))
    p = Program(1, p.values, (*lines, late), (), ("h", "s", "m"))
    x, w = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 3.0])
    found = run(p, {Port("x", At.STEPS): x, Port("w", At.CONST): w}, SIZES)
    assert np.array_equal(found[Port("s", At.CONST)], (2 * w * x).sum(0))
    assert np.array_equal(found[Port("m", At.CONST)], -(2 * w * x).sum(0))


def test_an_empty_sequence_ends_where_it_starts(rng: np.random.Generator) -> None:
    p = lstm()
    given = sampling.draw(p, 0, SIZES, rng, {})
    given[Port("c", At.START)] = rng.normal(size=3)
    found = run(p, given, SIZES)
    assert found[Port("h", At.STEPS)].shape == (0, 3)
    assert np.array_equal(found[Port("c", At.FINAL)], given[Port("c", At.START)])


def test_what_a_run_gives_is_the_callers_own() -> None:
    two = Equation("k", Kind.ONCE, ops.fill(ops.const(2), H))
    h = Equation("h", Kind.STEP, ops.add(ops.ref("x", 0, H), ops.fill(ops.const(2), H)))
    p = Program(1, (Value("x", H, Role.GIVEN),), (two, h), (), ("k", "h"))
    for _ in range(2):
        found = run(p, {Port("x", At.STEPS): np.zeros((2, 3))}, SIZES)
        for array in found.values():
            assert np.array_equal(array, np.full(array.shape, 2))
            array[...] = 9


def test_sizes_are_those_of_the_run() -> None:
    h = Equation("h", Kind.STEP, ops.mul(ops.ref("x", 0, H), ops.size("H")))
    p = Program(1, (Value("x", H, Role.GIVEN),), (h,), (), ("h",))
    for n in (2, 3, 2):
        found = run(p, {Port("x", At.STEPS): np.ones((1, n))}, {"H": n})
        assert np.array_equal(found[Port("h", At.STEPS)], np.full((1, n), n))


def test_a_port_without_a_value_is_named(rng: np.random.Generator) -> None:
    p = lstm()
    given = sampling.draw(p, 2, SIZES, rng, {})
    del given[Port("U_f", At.CONST)]
    with pytest.raises(AssertionError, match="U_f"):
        run(p, given, SIZES)


def test_branches_say_which_side_each_step_is_on(rng: np.random.Generator) -> None:
    p = kinky()
    given = sampling.draw(p, 4, SIZES, rng, {})
    one: list[np.ndarray] = []
    two: list[np.ndarray] = []
    found = run(p, given, SIZES, branches=one, every=True)
    run(p, given, SIZES, branches=two)
    assert len(one) == 4 * 5  # max, abs, softsign, min, relu at each of four steps
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    v = found[Port("v", At.STEPS)]
    assert any(np.array_equal(np.sign(v[0]), side) for side in one[:5])


def test_static_inputs_and_unused_ones_are_taken() -> None:
    p = program("h[t] = s*x[t]", {"x": X, "s": X}, {"w": H}, {}, static=("s",))
    x, s = np.ones((2, 5)), np.arange(5.0)
    given = {Port("x", At.STEPS): x, Port("s", At.STATIC): s, Port("w", At.CONST): np.zeros(3)}
    assert np.array_equal(run(p, given, SIZES)[Port("h", At.STEPS)], s * x)
