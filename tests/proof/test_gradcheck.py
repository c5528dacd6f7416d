"""What `check` promises besides being right: its verdicts, its samples, its report."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from mistakes import scaled
from programs import HH, HX, H, X, classifier, kinky, lstm, program
from tolerances import ADDED, COMPLEX_STEP, DIFFERENCES, MUTATION, SCALE_FLOOR, ZERO

from bptt.calculus.derive import Derived, adjoint
from bptt.errors import UserError
from bptt.ir import ops
from bptt.ir.dims import Dims
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import Equation, Kind, Program, Role, State, Value
from bptt.proof import sampling
from bptt.proof.gradcheck import check
from bptt.proof.report import LIMITS, Line, Report, compare


def rnn(rhs: str, **params: Dims) -> Program:
    """A cell of one line."""
    return program(f"h[t] = {rhs}", {"x": X}, {"W": HX, "U": HH, **params}, {"h": H})


# --- the comparison -------------------------------------------------------------------------------

TRUE = np.array([[1.0, -2.0], [0.5, 1e-9]])


def line(derived: np.ndarray, true: np.ndarray = TRUE, largest: float = 2.0) -> Line:
    return compare("", "parameter", "W", derived, true, largest, "complex step")


def test_what_is_equal_is_right() -> None:
    assert line(TRUE).ok and line(TRUE).error == 0


def test_zeros_are_wrong_unless_the_truth_is_zero() -> None:
    found = line(np.zeros((2, 2)))
    assert not found.ok and found.error == 1.0
    assert found.at == (0, 1) and (found.derived, found.true) == (0.0, -2.0)
    assert line(np.zeros((2, 2)), np.zeros((2, 2))).ok


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_wrong_on_either_side(bad: float) -> None:
    broken = TRUE.copy()
    broken[1, 0] = bad
    for found in (line(broken), line(TRUE, broken), line(broken, broken), line(broken, 0 * TRUE)):
        assert not found.ok and found.at == (1, 0)


def test_the_scale_is_the_tensors_own() -> None:
    """No absolute tolerance lets a small tensor through: HIPS autograd passes any below 1e-6."""
    small = 1e-7 * TRUE
    assert not line(small * (1 + 1e-9), small, largest=1e-6).ok
    assert line(small * (1 + 1e-15), small, largest=1e-6).ok


def test_the_scale_has_a_floor_in_units_of_the_largest_tensor() -> None:
    tiny = 1e-8 * TRUE
    found = line(tiny + 1e-17, tiny, largest=1.0)
    assert found.ok and found.method == "complex step"
    assert abs(found.error * SCALE_FLOOR / 1e-17 - 1) <= ADDED
    assert not line(tiny * MUTATION, tiny, largest=1.0).ok


def test_what_vanishes_must_vanish_to_rounding() -> None:
    zero = np.zeros((2, 2))
    assert line(zero + 0.9 * ZERO, zero, largest=1.0).ok
    found = line(zero + 1.1 * ZERO, zero, largest=1.0)
    assert not found.ok and found.method == "zero"
    assert not line(zero + 1e-300, zero, largest=0.0).ok


def test_a_tensor_of_the_wrong_shape_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"W has the shape \(2,\), its truth \(2, 2\)"):
        line(np.zeros(2))


def test_an_empty_tensor_is_right() -> None:
    found = line(np.zeros((0, 3)), np.zeros((0, 3)))
    assert found.ok and found.at is None


def test_the_limits_are_those_of_the_house() -> None:
    assert LIMITS == {"complex step": COMPLEX_STEP, "differences": DIFFERENCES, "zero": ZERO}
    assert (COMPLEX_STEP, DIFFERENCES, ZERO, SCALE_FLOOR) == (1e-11, 1e-8, 1e-12, 1e-5)


# --- what is wrong is wrong -----------------------------------------------------------------------


def nothing(q: Program) -> Derived:
    """A derived sweep that gives no gradient to anything."""
    return replace(adjoint(q), results={})


def poisoned_sweep(q: Program) -> Derived:
    d = adjoint(q)
    return replace(d, program=scaled(d.program, "d_c", math.nan))


@pytest.mark.parametrize("wrong", [nothing, poisoned_sweep])
def test_a_derivation_of_zeros_or_nan_fails(wrong: object) -> None:
    report = check(lstm(), derived=wrong)  # type: ignore[arg-type]
    assert not report.ok
    assert len(report.failed) >= 10


def test_a_wrong_derivation_can_be_given_as_a_sweep_or_as_a_function() -> None:
    p = lstm()

    def wrong(q: Program) -> Derived:
        d = adjoint(q)
        return replace(d, program=scaled(d.program, "d_U_f", MUTATION))

    one = check(p, derived=wrong)
    assert [each.name for each in one.failed] == ["U_f"]
    assert abs(one.failed[0].error - (MUTATION - 1)) <= COMPLEX_STEP
    lowered: list[Program] = []
    check(p, derived=lambda q: lowered.append(q) or adjoint(q))
    assert check(p, derived=wrong(lowered[0])) == one


# --- samples --------------------------------------------------------------------------------------


def test_the_seed_says_which_sample() -> None:
    assert check(lstm(), seed=3) == check(lstm(), seed=3)
    first, other = check(lstm(), seed=3), check(lstm(), seed=4)
    assert first.ok and other.ok and first.lines != other.lines


@pytest.mark.parametrize("length", [1, 2, 7])
def test_any_length_will_do(length: int) -> None:
    for p in (lstm(), classifier(), kinky()):
        report = check(p, length=length)
        assert report.ok, report.text()
        assert report.length == length


def test_sizes_are_different_odd_primes_unless_given() -> None:
    assert check(lstm()).sizes == {"H": 3, "X": 5}
    assert check(classifier()).sizes == {"H": 3, "X": 5, "K": 7}
    report = check(lstm(), sizes={"X": 3, "H": 2})
    assert report.ok and report.sizes == {"H": 2, "X": 3}
    assert check(lstm(), sizes={"X": 3}).sizes == {"H": 5, "X": 3}
    shapes = {each.name: each.shape for each in report.lines}
    assert shapes["W_i"] == (2, 3) and shapes["x"] == (4, 3) and shapes["c[start]"] == (2,)


def test_values_can_be_fixed_and_say_the_sizes() -> None:
    report = check(lstm(), values={"W_i": np.zeros((2, 4)), "b_i": np.zeros(2)})
    assert report.ok and report.sizes == {"H": 2, "X": 4}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"q": np.zeros(3)}, "nothing that is read is called `q`"),
        ({"x": np.zeros((4, 5))}, "`x` is a series"),
        ({"b_i": np.zeros((3, 3))}, "`b_i` has the shape"),
        ({"b_i": np.zeros(3), "b_f": np.zeros(4)}, "`b_f` has the shape"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(lstm(), values=values)


@pytest.mark.parametrize(
    ("option", "message"), [({"order": 3}, "order 3"), ({"length": 0}, "0 st")]
)
def test_options_that_make_no_sense_are_refused(option: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(lstm(), **option)  # type: ignore[arg-type]


def test_an_unspecified_function_is_asked_for_by_name() -> None:
    n = ops.node("call", ops.ref("x", 0, H), attr=("f_c", 0))
    p = Program(1, (Value("x", H, Role.GIVEN),), (Equation("y", Kind.STEP, n),), (), ("y",))
    with pytest.raises(UserError, match="the function `f_c` is not specified") as caught:
        check(p)
    assert "f_c" in (caught.value.help or "")


def test_initial_states_are_those_of_a_running_cell(rng: np.random.Generator) -> None:
    """A normaliser that only grows is never near zero, as a random one would be."""
    p = rnn("h[t-1] + exp(W @ x[t])")
    sizes = sampling.sizes_for(p)
    for _ in range(20):
        given = sampling.draw(p, 4, sizes, rng, {})
        warm = sampling.warmed(p, given, sizes, rng)[Port("h", At.START)]
        assert np.all(warm > 0)
        assert np.all(given[Port("h", At.START)] == 0)


def test_declared_starts_are_numbers_or_parameters(rng: np.random.Generator) -> None:
    p = classifier()
    sizes = sampling.sizes_for(p)
    given = sampling.draw(p, 4, sizes, rng, {})
    assert set(given) == set(inputs(p))
    assert np.array_equal(given[Port("h", At.START)], given[Port("h0", At.CONST)])
    plain = lstm()
    low = replace(plain, states=(State("h"), State("c", ops.const(-2))))
    starts = sampling.declared(low, {}, sampling.sizes_for(low))
    assert starts[Port("c", At.START)].tolist() == [-2, -2, -2]
    assert starts[Port("h", At.START)].tolist() == [0, 0, 0]


def test_a_sample_that_is_not_finite_is_drawn_again_and_counted() -> None:
    p = rnn("tanh(W @ x[t] + U @ h[t-1])*sqrt(k)", k=())
    reports = [check(p, seed=seed, length=2) for seed in range(8)]
    assert all(report.ok for report in reports)
    counts = [report.redraws for report in reports]
    assert min(counts) == 0 and max(counts) > 0
    assert "redrawn" in reports[int(np.argmax(counts))].verdict


def test_a_cell_that_is_never_finite_is_wrong_and_says_where() -> None:
    report = check(rnn("log(-exp(W @ x[t] + U @ h[t-1]))"))
    assert not report.ok and not report.lines
    assert "`h` is nan at t = 0" in report.text()


def test_a_tie_that_nothing_moves_is_no_obstacle() -> None:
    """relu'(0) = abs'(0) = 0: what a cell without biases meets on zero padding."""
    p = rnn("tanh(W @ x[t] + U @ h[t-1]) + relu(0*h[t-1]) + abs(b - b)", b=H)
    report = check(p, order=2)
    assert report.ok, report.text()
    assert report.redraws == 0


def test_a_cell_that_stands_on_a_kink_is_not_called_right() -> None:
    p = rnn("tanh(W @ x[t] + U @ h[t-1]) + abs(b)", b=H)
    report = check(p, values={"b": np.zeros(3)})
    assert not report.ok and report.redraws == 20
    assert "no sample fit for a check in 20 draws: a kink next to `b`" in report.text()


def test_where_differences_see_nothing_the_complex_step_does() -> None:
    """A kinky cell with a gradient of 1e-9 of the others': a factor of 1.001 in it is caught."""
    p = rnn("relu(W @ x[t] + U @ h[t-1]) + 1e-9*sigmoid(b)", b=H)
    report = check(p)
    assert report.ok, report.text()
    methods = {each.name: each.method for each in report.lines}
    assert methods["b"] == "complex step" and methods["W"] == "differences"

    def wrong(q: Program) -> Derived:
        d = adjoint(q)
        return replace(d, program=scaled(d.program, "d_b", MUTATION))

    assert [each.name for each in check(p, derived=wrong).failed] == ["b"]


# --- a cold start ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rhs", "fault"),
    [
        # root mean square without an epsilon: right when warm, 0/0 at the first step
        (
            "tanh(W @ x[t] + h[t-1]/sqrt(mean(h[t-1]**2)))",
            "from its declared start, `h` is nan at t = 0",
        ),
        # finite forward, and 1/(2*sqrt(0)) backward
        (
            "tanh(W @ x[t] + sqrt(abs(h[t-1])))",
            "backward from its declared start, `carry$h` is nan at t = 0 (what h gets",
        ),
    ],
)
def test_what_only_training_would_meet_is_reported_by_equation(rhs: str, fault: str) -> None:
    report = check(rnn(rhs))
    assert report.lines and all(each.ok for each in report.lines)
    assert not report.ok
    assert any(fault in each for each in report.faults), report.faults
    assert "WRONG" in report.verdict and fault in report.text()


def test_a_declared_start_mends_it() -> None:
    p = rnn("tanh(W @ x[t] + h[t-1]/sqrt(mean(h[t-1]**2)))")
    assert check(replace(p, states=(State("h", ops.const(1)),))).ok


# --- the report -----------------------------------------------------------------------------------


def wrong_report() -> Report:
    def wrong(q: Program) -> Derived:
        d = adjoint(q)
        return replace(d, program=scaled(d.program, "d_f", MUTATION))

    return check(lstm(), derived=wrong)


def test_the_report_has_a_line_for_every_tensor() -> None:
    report = check(classifier())
    names = {each.name for each in report.lines}
    assert names == {"x", "x[-1]", "y", "s", "W", "V", "U", "R", "b", "h0", "h[start]"}
    assert len(report.lines) == 2 * len(names)  # a random loss, and the cell's own
    kinds = [each.kind for each in report.lines[: len(names)]]
    assert kinds == sorted(kinds, key=["input", "state", "parameter"].index)


def test_the_second_order_has_every_derivative_there_is() -> None:
    report = check(lstm(), order=2, length=2)
    kinds: dict[str, set[str]] = {}
    for each in report.lines:
        kinds.setdefault(each.group.split(":")[0], set()).add(each.kind)
    assert kinds["second order"] == {"input", "state", "parameter", "adjoint"}
    assert kinds["forward mode along a random direction"] == {"value"}
    assert kinds["Hessian-vector product along a random direction"] == {
        "input",
        "state",
        "parameter",
    }
    adjoints = {each.name for each in report.lines if each.kind == "adjoint"}
    assert adjoints == {"h", "c", "h[final]", "c[final]"}


def test_the_text_shows_each_line_and_a_verdict() -> None:
    report = check(lstm())
    text = report.text().splitlines()
    assert len(text) == len(report.lines) + 2
    assert all(each.name in shown for each, shown in zip(report.lines, text[1:], strict=False))
    assert text[-1] == report.verdict and text[-1].startswith("right: 15 tensors")
    assert len({shown.index("  complex step") for shown in text[1:-1]}) == 1
    assert max(map(len, text)) <= 100


def test_the_text_shows_the_evidence_for_what_is_wrong() -> None:
    report = wrong_report()
    assert not report.ok and report.verdict.startswith("WRONG")
    worst = report.failed[0]
    assert worst.at is not None
    assert worst.error == max(each.error for each in report.lines)
    shown = next(s for s in report.text().splitlines() if "WRONG at" in s)
    assert "derived" in shown and "true" in shown and "limit 1e-11" in shown


def test_warnings_name_what_nothing_depends_on() -> None:
    report = check(rnn("tanh(W @ x[t] + U @ h[t-1]) + 0*b", b=H))
    assert report.ok
    assert report.warnings == ("the gradient by `b` is zero: nothing depends on it",)
    started = check(classifier()).warnings
    assert started == ("`h0` is only a start: its gradient is that of the state",)


def test_the_report_is_plain_data_for_json() -> None:
    for report in (check(lstm()), wrong_report(), check(lstm(), derived=poisoned_sweep)):
        data = json.loads(json.dumps(report.json(), allow_nan=False))
        assert data["ok"] is report.ok and data["seed"] == 0
        assert len(data["tensors"]) == len(report.lines)
        assert data["sizes"] == {"H": 3, "X": 5}
        assert data["tensors"][0]["name"] == "x" and data["tensors"][0]["shape"] == [4, 5]


def test_a_report_of_nothing_is_not_right() -> None:
    empty = Report((), (), (), 1, 0, 4, {}, 0)
    assert not empty.ok and empty.worst is None
    assert empty.text()
