"""The gate: right results of every side pass, and no wrong one does."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from faulty import faulty, scaled
from tolerances import BACKEND, MUTATION

from bptt.bench.bodies import BODIES
from bptt.bench.compare import STEPPING, STEPS
from bptt.bench.gate import LIMIT, compared, verdict
from bptt.bench.problems import MODES, STEPPER, How, draw
from bptt.bench.shapes import Shape
from bptt.bench.sides import PEERS, Side, Unavailable, ours
from bptt.bench.truth import FEWEST_STEPS, ORACLE_STEPS, _oracle, _summed, judged, truth
from bptt.nn import LSTM
from bptt.nn.stepper import Stepper

SHAPE = Shape(5, 3, 4, 6)
SIDES = {"ours": ours(), **PEERS}
SLOW = "compile"  # it compiles for most of a minute


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in SIDES if name != SLOW])
@pytest.mark.parametrize("cell", BODIES)
def test_every_side_passes(cell: str, name: str, mode: str) -> None:
    side = SIDES[name]
    if name == "jax" and not importlib.util.find_spec("jax"):
        pytest.skip("JAX is not installed")
    problem = draw("lstm" if side.stock else cell, SHAPE._replace(T=1) if side.one_step else SHAPE)
    assert verdict(side, problem, How(mode), truth(problem, mode)) == ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cell", ["jimenez", "slstm", "gru_cho", "layernorm_lstm"])
def test_cells_that_nobody_wrote_out_are_judged_by_the_oracle(cell: str, mode: str) -> None:
    problem = judged(draw(cell, SHAPE))
    assert problem.shape.T == ORACLE_STEPS
    assert verdict(ours(), problem, How(mode), truth(problem, mode)) == ""


@pytest.mark.parametrize("keep", [None, "all", "states"])
def test_a_cell_that_fits_runs_as_a_layer_like_torchs(keep: str | None) -> None:
    """However much it keeps: its weights are stacked, as those of what it is compared with."""
    for cell, weights in (("lstm", 4), ("peephole", 7), ("gru", 10)):
        problem = draw(cell, SHAPE)
        assert len(ours(keep=keep).prepare(problem, How("train")).weights) == weights
        assert verdict(ours(keep=keep), problem, How("train"), truth(problem, "train")) == ""


@pytest.mark.parametrize("cell", BODIES)
def test_what_is_written_out_is_the_cell(cell: str) -> None:
    problem = draw(cell, SHAPE)
    right = dict(_summed(list(_oracle(problem, "train"))))
    found = truth(problem, "train")
    assert {name for name, _ in found} == right.keys()
    for name, array in found:
        scale = np.abs(right[name]).max()
        assert np.abs(array - right[name]).max() <= BACKEND["float64"] * max(1.0, scale), name


def test_a_state_that_starts_at_a_parameter_is_judged_too() -> None:
    cell = "param h0: H\nstate h = h0\nh[t] = tanh(W @ x[t] + U @ h[t-1])"
    problem = judged(draw(cell, SHAPE))
    right = truth(problem, "train")
    assert np.abs(dict(right)["d_h0"]).min() > 0
    assert verdict(ours(), problem, How("train"), right) == ""


def test_one_entry_that_is_wrong_by_a_thousandth_is_found_in_any_tensor() -> None:
    problem = draw("peephole", SHAPE)
    right = truth(problem, "train")
    assert {"output", "last h", "last c", "d_x", "d_U_f", "d_b_o", "d_p_i"} <= dict(right).keys()
    for name, _ in right:
        found = verdict(faulty(ours(), name, MUTATION), problem, How("train"), right)
        assert found.startswith(f"{name} is off by 1.0e-03"), name


@pytest.mark.parametrize("cell", [*BODIES, "gru_cho", "layernorm_lstm"])
@pytest.mark.parametrize("name", ["ours", *STEPPING])
def test_steps_one_after_the_other_pass(name: str, cell: str) -> None:
    side = SIDES[name]
    problem = draw("lstm" if side.stock else cell, SHAPE._replace(T=STEPS))
    assert verdict(side, problem, How(STEPPER), truth(problem, STEPPER)) == ""


def stepping(side: Side) -> str:
    """What the gate says of a side whose calls are steps."""
    problem = draw("lstm", SHAPE._replace(T=STEPS))
    return verdict(side, problem, How(STEPPER), truth(problem, STEPPER))


@pytest.mark.parametrize(
    ("name", "what"), [("output", "output"), ("last h", "last h"), ("last c", "last c")]
)
def test_a_step_that_is_wrong_by_a_thousandth_is_found(name: str, what: str) -> None:
    assert stepping(faulty(ours(), name, MUTATION)).startswith(f"{what} is off by")


def test_a_stepper_that_forgets_its_states_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Stepper, x: torch.Tensor) -> torch.Tensor:
        self.reset()
        return step(self, x)

    step = Stepper.__call__
    monkeypatch.setattr(Stepper, "__call__", forgetful)
    assert "is off by" in stepping(ours())


def test_a_stepper_that_reads_its_first_input_again_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.Tensor] = []

    def stubborn(self: Stepper, x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return step(self, seen[0])

    step = Stepper.__call__
    monkeypatch.setattr(Stepper, "__call__", stubborn)
    assert "is off by" in stepping(ours())


def test_a_stepper_with_other_weights_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: LSTM, batch: int = 1, states: object = None) -> Stepper:
        with torch.no_grad():
            self.weight_hh_l0.mul_(MUTATION)
        return stepper(self, batch)

    stepper = LSTM.stepper
    monkeypatch.setattr(LSTM, "stepper", other)
    assert "is off by" in stepping(ours())


def test_a_cell_that_does_not_carry_its_states_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(self: torch.nn.LSTMCell, x: torch.Tensor, hx: object = None) -> object:
        return forward(self, x)

    forward = torch.nn.LSTMCell.forward
    monkeypatch.setattr(torch.nn.LSTMCell, "forward", alone)
    assert "is off by" in stepping(PEERS["nn.LSTMCell"])


def test_each_call_is_one_step_and_goes_on_from_the_one_before() -> None:
    problem = draw("lstm", SHAPE._replace(T=STEPS))
    for name in ("ours", "nn.LSTMCell"):
        ready = SIDES[name].prepare(problem, How(STEPPER))
        assert ready.calls == STEPS
        each = [dict(ready.pairs(ready.call()))["output"] for _ in range(2 * STEPS)]
        assert {array.shape for array in each} == {(1, SHAPE.B, SHAPE.H)}
        for k in range(STEPS):  # the same input, and other states
            assert np.abs(each[k] - each[k + STEPS]).max() > LIMIT
    assert problem.flops(STEPPER) * STEPS == problem.flops("infer")


def test_no_number_is_no_result() -> None:
    problem = draw("lstm", SHAPE)
    right = truth(problem, "infer")
    assert "off by inf" in verdict(
        faulty(ours(), "last c", float("nan")), problem, How("infer"), right
    )


def test_both_biases_of_the_stock_layer_are_looked_at() -> None:
    problem = draw("lstm", SHAPE)
    right = truth(problem, "train")
    assert [name for name, _ in right].count("d_b_i") == 2
    found = list(right)
    last = max(k for k, (name, _) in enumerate(found) if name == "d_b_i")
    found[last] = ("d_b_i", scaled(found[last][1], MUTATION))
    assert compared(found, right).startswith("d_b_i is off")


def test_tensors_must_all_be_there_and_fit() -> None:
    right = [("output", np.ones((2, 3))), ("d_x", np.ones(2))]
    assert compared(right, right) == ""
    assert compared(right[:1], right) == "there is no d_x"
    assert compared([*right, ("d_y", np.ones(2))], right) == "d_y is not asked for"
    assert compared([right[0], ("d_x", np.ones(3))], right) == "d_x has the shape (3,), not (2,)"


def test_zeros_that_cancel_are_measured_by_the_others() -> None:
    right = [("output", np.full(3, 4.0)), ("d_b", np.full(3, 1e-16))]
    assert compared([right[0], ("d_b", np.full(3, LIMIT * 2))], right) == ""
    assert compared([right[0], ("d_b", np.full(3, LIMIT * 8))], right).startswith("d_b is off by 2")
    nothing = [("output", np.zeros(3))]
    assert compared(nothing, nothing) == ""
    assert compared([("output", np.full(3, 1e-30))], nothing).startswith("output is off by inf")


def test_long_problems_are_judged_by_their_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw("lstm", SHAPE)
    assert judged(problem).shape == SHAPE
    step = problem.flops("train") // SHAPE.T
    monkeypatch.setattr("bptt.bench.truth.MOST_FLOPS", 3 * step)
    short = judged(problem)
    assert short.shape == SHAPE._replace(T=3)
    assert np.array_equal(short.x, problem.x[:3])
    assert np.array_equal(short.d_output, problem.d_output[:3])
    monkeypatch.setattr("bptt.bench.truth.MOST_FLOPS", 1)
    assert judged(problem).shape.T == FEWEST_STEPS


def test_jax_where_it_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(Unavailable, match="JAX is not installed"):
        PEERS["jax"].prepare(draw("lstm", SHAPE), How("infer"))
