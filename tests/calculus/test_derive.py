"""The adjoint of a sweep: a sweep, wired to the one it comes from, right to the second order."""

from __future__ import annotations

import time

import numpy as np
import pytest
from programs import PROGRAMS, H, X, lstm, program
from subjects import EVERY, NAMES, load
from tolerances import REWRITE

from bptt.calculus.derive import Derived, adjoint, derive
from bptt.calculus.rewrites import lower, with_outputs
from bptt.calculus.tangent import jvp
from bptt.ir import ops
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import MACHINE, Equation, Kind, Program, Role, State, Value, walk
from bptt.proof import sampling
from bptt.proof.gradcheck import check
from bptt.proof.sweeps import forward, gradient, hessian_vector, second, tangents

# What a user can write and a machine might want.
AWKWARD = """
d_h[t] = tanh(W @ x[t] + d_W @ h[t-1] + carry)
h[t] = d_h[t]*sigmoid(d_h[t-1]) + d_d_h*h[t-1]
e[t] = h[t]*d_h[t]"""


def awkward() -> Program:
    params = {"W": ("H", "X"), "d_W": ("H", "H"), "carry": H, "d_d_h": H}
    return program(AWKWARD, {"x": X}, params, {"h": H, "d_h": H}, outputs=("e",))


def names_of(p: Program) -> set[str]:
    return {v.name for v in p.values} | {e.name for e in p.equations}


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_names_never_collide_however_often_one_derives(name: str) -> None:
    p = lower(load(name))
    for _ in range(3):
        d = adjoint(p)
        assigned = {e.name for e in d.program.equations}
        assert not assigned & names_of(p)
        fresh = {v.name for v in d.program.values} - names_of(p)
        assert all(MACHINE in n for n in fresh)
        p = d.program  # its constructor asserts that each name is written once
        t = jvp(p)
        assert not {e.name for e in t.program.equations} & names_of(p)


def test_names_that_look_derived_are_kept_apart() -> None:
    p = awkward()
    d = adjoint(lower(p))
    assert d.names["h"] == f"d_h{MACHINE}2" and d.names["W"] == f"d_W{MACHINE}2"
    assert d.names["d_h"] == f"d_d_h{MACHINE}2"
    report = check(p, order=2)
    assert report.ok, report.text()


def test_every_derived_line_says_where_it_comes_from() -> None:
    p = lower(lstm())
    for e in adjoint(p).program.equations:
        assert e.origin, e.name
    line = p.equation("c").origin
    assert adjoint(p).program.equation("d_c").origin == f"adjoint of: {line}"


# --- direction and wiring -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_adjoint_runs_the_other_way_and_the_tangent_does_not(name: str) -> None:
    p = lower(load(name))
    assert derive(p).dir == -p.dir
    assert derive(derive(p)).dir == p.dir
    assert jvp(p).program.dir == p.dir


def wired(d: Derived) -> None:
    """Every port of a derived sweep is filled from one place, and leads to a port that is there."""
    into, out_of = set(inputs(d.program)), set(outputs(d.program))
    assert set(d.primal) <= into
    brought = set(d.seeds.values())
    assert not brought & set(d.primal)
    assert into <= brought | set(d.primal)
    assert set(d.results.values()) <= out_of
    assert set(d.names) <= names_of(d.of)


@pytest.mark.parametrize("name", NAMES)
def test_ports_of_the_adjoint_hang_together_with_those_of_the_sweep(name: str) -> None:
    p = lower(load(name))
    d = adjoint(p)
    wired(d)
    wired(adjoint(d.program))
    assert set(d.seeds) <= set(outputs(p)) | {Port(s.name, At.STEPS) for s in p.states}
    assert set(d.results) <= set(inputs(p))
    known = {*inputs(p), *(Port(e.name, At.STEPS) for e in p.equations)}
    known |= {Port(e.name, At.CONST) for e in p.equations}
    assert set(d.primal.values()) <= known
    for s in p.states:
        carry = d.seeds[Port(s.name, At.FINAL)]
        assert carry.at is At.START
        assert d.results[Port(s.name, At.START)] == Port(carry.name, At.FINAL)


@pytest.mark.parametrize("name", NAMES)
def test_ports_of_the_tangent_hang_together_with_those_of_the_sweep(name: str) -> None:
    p = lower(load(name))
    d = jvp(p)
    wired(d)
    fixed = {v.name for v in p.named(Role.CONST)}
    assert not {port.name for port in d.seeds} & fixed
    assert set(d.results) <= set(outputs(p))
    assert {Port(s.name, At.FINAL) for s in p.states} <= set(d.results)


def test_true_constants_get_no_gradient() -> None:
    p = lower(load("antisymmetric"))
    assert [v.name for v in p.named(Role.CONST)] == ["I"]
    assert Port("I", At.CONST) not in adjoint(p).results


def test_what_is_not_seeded_brings_nothing_in() -> None:
    p = lower(lstm())
    bare = adjoint(p, ())
    assert set(bare.seeds) == {Port("h", At.FINAL), Port("c", At.FINAL)}
    assert Port("h", At.STEPS) in adjoint(p, ("h",)).seeds
    assert Port("c", At.STEPS) not in adjoint(p, ("h",)).seeds


def test_a_loss_brings_in_the_number_one() -> None:
    p = lower(load("classifier"))
    d = adjoint(p, (), unit="L")
    line = d.program.equation(d.names["L"])
    assert line.rhs is ops.const(1)
    assert Port("L", At.STEPS) not in d.seeds


def test_a_seed_may_be_any_value_on_the_way() -> None:
    """A gate's direct adjoint is the gradient of the loss with the gate itself weighted in."""
    p = lower(lstm())
    d = adjoint(p, ("f", "z$f"))
    assert Port("f", At.STEPS) in d.seeds and Port("z$f", At.STEPS) in d.seeds
    gate = with_outputs(p, ("f", "z$f"))
    report = check(gate, derived=lambda q: adjoint(q, {*q.outputs, *(s.name for s in q.states)}))
    assert report.ok, report.text()


# --- values ---------------------------------------------------------------------------------------


# The sizes of those that would take a minute with their own primes.
SMALL = {"hyper_lstm.cell": {"X": 1, "H": 3, "P": 3, "N": 1}, "on_lstm.cell": {"M": 2, "X": 2}}


@pytest.mark.parametrize("name", EVERY)
def test_second_order_agrees_with_the_truth(name: str) -> None:
    length = 2 if name in SMALL else 3
    report = check(load(name), order=2, length=length, sizes=SMALL.get(name))
    assert report.ok, report.text()


def test_a_sweep_that_runs_backward_is_differentiated_too() -> None:
    p = load("classifier")
    back = Program(-1, p.values, p.equations, p.states, p.outputs, loss=p.loss)
    report = check(back, order=2, length=3)
    assert report.ok, report.text()
    assert "x[T]" in {line.name for line in report.lines}


@pytest.mark.parametrize("name", ["gru_cho", "scalar_gates", "antisymmetric"])
def test_a_derived_sweep_is_a_sweep_like_any_other(name: str) -> None:
    """Its own first and second derivatives: the second and third of the cell's pieces."""
    report = check(derive(lower(load(name))), order=2, length=2)
    assert report.ok, report.text()
    assert {"input", "state", "parameter"} <= {line.kind for line in report.lines}


@pytest.mark.parametrize("name", ["lstm", "classifier"])
def test_a_tangent_sweep_is_a_sweep_like_any_other(name: str) -> None:
    report = check(jvp(lower(load(name))).program, length=2)
    assert report.ok, report.text()


@pytest.mark.parametrize("name", NAMES)
def test_the_hessian_is_symmetric(name: str, rng: np.random.Generator) -> None:
    p = lower(load(name))
    sizes = sampling.sizes_for(p)
    given = sampling.draw(p, 3, sizes, rng, {})
    cotangents = sampling.randoms(p, outputs(p), 3, sizes, rng)
    u = sampling.randoms(p, inputs(p), 3, sizes, rng)
    v = sampling.randoms(p, inputs(p), 3, sizes, rng)

    def product(a: dict[Port, np.ndarray], b: dict[Port, np.ndarray]) -> float:
        turned = hessian_vector(p, given, cotangents, a, sizes)
        fixed = {value.name for value in p.named(Role.CONST)}
        return sum(float(np.sum(b[k] * turned[k])) for k in b if k.name not in fixed)

    # a constant has no tangent, so it must not move either way
    for port in u:
        if port.name in {value.name for value in p.named(Role.CONST)}:
            u[port], v[port] = 0 * u[port], 0 * v[port]
    one, two = product(u, v), product(v, u)
    assert abs(one - two) <= REWRITE * max(1.0, abs(one))


@pytest.mark.parametrize("name", NAMES)
def test_three_ways_to_a_number_agree(name: str, rng: np.random.Generator) -> None:
    """<v, gradient> by the adjoint, by the tangent, and as phi's gradient by the adjoints."""
    p = lower(load(name))
    sizes = sampling.sizes_for(p)
    given = sampling.draw(p, 3, sizes, rng, {})
    cotangents = sampling.randoms(p, outputs(p), 3, sizes, rng)
    fixed = {value.name for value in p.named(Role.CONST)}
    ports = [port for port in inputs(p) if port.name not in fixed]
    v = sampling.randoms(p, ports, 3, sizes, rng)
    found = gradient(p, given, cotangents, sizes)
    adjoint_way = sum(float(np.sum(v[k] * found[k])) for k in v)
    moved = tangents(p, forward(p, given, sizes, 3), v, sizes)
    tangent_way = sum(float(np.sum(cotangents[k] * moved[k])) for k in moved)
    _, by_cotangent = second(p, given, cotangents, v, sizes)
    phi_way = sum(float(np.sum(cotangents[k] * a)) for k, a in by_cotangent.items())
    scale = max(1.0, abs(adjoint_way))
    assert abs(adjoint_way - tangent_way) <= REWRITE * scale
    assert abs(adjoint_way - phi_way) <= REWRITE * scale


@pytest.mark.parametrize("name", NAMES)
def test_lowering_keeps_every_value(name: str, rng: np.random.Generator) -> None:
    p = load(name)
    sizes = sampling.sizes_for(p)
    given = sampling.draw(p, 4, sizes, rng, {})
    before, after = forward(p, given, sizes, 4), forward(lower(p), given, sizes, 4)
    for port, array in before.items():
        scale = max(1.0, float(np.max(np.abs(array))))
        assert np.max(np.abs(array - after[port])) <= REWRITE * scale, port
    assert inputs(lower(p)) == inputs(p) and outputs(lower(p)) == outputs(p)


def test_the_sum_of_a_matrix_is_taken_once() -> None:
    lowered = lower(PROGRAMS["autonomous"]())
    sums = [e for e in lowered.equations if any(n.op == "sum" for n in walk(e.rhs))]
    assert [e.kind for e in sums] == [Kind.ONCE]


def test_a_step_that_computes_what_a_constant_does_stays_out_of_its_adjoint() -> None:
    text = """
k = 2*sigmoid(w)
g[t] = sigmoid(w)
h[t] = tanh(U @ h[t-1] + g[t]*x[t]*k)"""
    p = program(text, {"x": H}, {"w": H, "U": ("H", "H")}, {"h": H})
    report = check(p, order=2, length=2)
    assert report.ok, report.text()


# --- time it takes --------------------------------------------------------------------------------


FOR_EVER = 20.0


def timed(p: Program) -> float:
    """Seconds of this process: exponential ways take for ever, whatever the machine."""
    start = time.process_time()
    derive(lower(p))
    return time.process_time() - start


def test_deriving_is_fast_on_an_expression_with_2_to_the_40_paths() -> None:
    n = ops.ref("x", 0, H)
    for _ in range(40):
        n = ops.node("tanh", ops.add(n, n))
    y = Equation("y", Kind.STEP, n)
    p = Program(1, (Value("x", H, Role.GIVEN),), (y,), (), ("y",))
    assert timed(p) < FOR_EVER
    report = check(p, length=2)
    assert report.ok, report.text()


def test_deriving_is_fast_on_many_lines() -> None:
    """500 equations, a parameter each: the limit of the language."""
    equations, values = [], [Value("x", H, Role.GIVEN)]
    n = ops.add(ops.ref("x", 0, H), ops.ref("y499", 1, H))
    for k in range(500):
        values.append(Value(f"b{k}", H, Role.PARAM))
        rhs = ops.node("tanh", ops.add(n, ops.ref(f"b{k}", 0, H)))
        equations.append(Equation(f"y{k}", Kind.STEP, rhs))
        n = ops.ref(f"y{k}", 0, H)
    p = Program(1, tuple(values), tuple(equations), (State("y499"),), ("y499",))
    assert timed(p) < FOR_EVER


def test_deriving_is_fast_on_many_nodes() -> None:
    """20,000 nodes in a line, the limit of the language: deeper than Python recurses."""
    n = ops.ref("x", 0, H)
    for k in range(10_000):
        n = ops.add(n, ops.ref("w", 0, H)) if k % 2 else ops.node("tanh", n)
    values = (Value("x", H, Role.GIVEN), Value("w", H, Role.PARAM))
    p = Program(1, values, (Equation("y", Kind.STEP, n),), (), ("y",))
    assert timed(p) < FOR_EVER
