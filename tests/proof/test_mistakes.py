"""The checker, checked: every line wrong by 0.1 %, and the mistakes that people make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from mistakes import MISTAKES, Mistake, scaled
from subjects import NAMES, load
from tolerances import MUTATION, VISIBLE

from bptt.calculus.derive import Derived, adjoint
from bptt.ir.ports import At
from bptt.ir.program import Program
from bptt.proof.gradcheck import Truth, judge, judge_second, second_truth, truth
from bptt.proof.report import compare
from bptt.proof.sampling import sizes_for
from bptt.proof.sweeps import forward, pull

# Lines of derived sweeps where no mistake can show, by cell. Each is zero on every sample.
HIDDEN = {
    # what the mean gets through the variance: a sum of deviations from the mean
    "layernorm_lstm.cell": {"z$d_z$h$3", "z$d_z$u$2$2", "z$d_z$u$5$2"},
}
# Mistakes that change nothing where they are planted, by cell.
HARMLESS = {
    "layernorm_lstm.cell": {
        f"{mistake} in d_{name}, term 2"
        for mistake in ("dropped_path", "wrong_sign")
        for name in ("z$h", "z$u$2", "z$u$5")
    },
}


@cache
def derived_of(name: str) -> Derived:
    return adjoint(truths_of(name)[0].lowered)


@cache
def truths_of(name: str) -> tuple[Truth, ...]:
    """Samples of a cell. A slope that is 0 or 1 is often the same a step later: draw more."""
    p = load(name)
    one = truth(p, sizes_for(p), 4, np.random.default_rng(0))
    if one.analytic:
        return (one,)
    return (one, *(truth(p, one.sizes, 4, np.random.default_rng(k)) for k in (1, 2, 3)))


def wrong(name: str, program: Program) -> Derived:
    """The derived sweep of `name` with another program in it."""
    return replace(derived_of(name), program=program)


def caught(found: Truth, sweep: Derived) -> bool:
    return not all(line.ok for line in judge(found, sweep))


def effect(found: Truth, right: Derived, sweep: Derived) -> float:
    """By how many limits the most moved tensor moves; of what is true it knows nothing."""
    values = forward(found.lowered, found.given, found.sizes, found.length)
    before, _ = pull(right, values, found.cotangents, found.sizes)
    after, _ = pull(sweep, values, found.cotangents, found.sizes)
    largest = max(float(np.max(np.abs(a))) for a in before.values())
    lines = [
        compare("", "", "", after[port], before[port], largest, method)
        for port, (method, _) in found.gradients[0].items()
    ]
    return max(line.error / line.limit for line in lines)


def hidden_of(name: str, planted: Iterable[tuple[str, Program]]) -> set[str]:
    """Which of `planted` show on no sample. Fails for one that shows and is not caught."""
    hidden: set[str] = set()
    for where, program in planted:
        sweep = wrong(name, program)
        seen = [f for f in truths_of(name) if effect(f, derived_of(name), sweep) >= VISIBLE]
        assert all(caught(found, sweep) for found in seen), f"{where} is not caught"
        if not seen:
            hidden.add(where)
    return hidden


@pytest.mark.parametrize("name", NAMES)
def test_the_derived_sweep_is_right(name: str) -> None:
    for found in truths_of(name):
        lines = judge(found)
        assert lines and not [line for line in lines if not line.ok]


@pytest.mark.parametrize("name", NAMES)
def test_a_line_that_is_wrong_by_a_thousandth_is_caught(name: str) -> None:
    p = derived_of(name).program
    planted = [(e.name, scaled(p, e.name, MUTATION)) for e in p.equations]
    assert hidden_of(name, planted) == HIDDEN.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_every_classic_mistake_is_caught(name: str) -> None:
    planted = [
        (f"{mistake.__name__} in {where}", program)
        for mistake in MISTAKES
        for where, program in mistake(derived_of(name).program)
    ]
    assert hidden_of(name, planted) == HARMLESS.get(name, set())


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.__name__)
def test_each_mistake_can_be_made_somewhere(mistake: Mistake) -> None:
    assert any(mistake(derived_of(name).program) for name in NAMES)


def test_at_least_ten_mistakes_can_be_made_in_an_lstm_with_peepholes() -> None:
    sweep = derived_of("peephole").program
    assert sum(bool(mistake(sweep)) for mistake in MISTAKES) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_a_forgotten_end_of_the_sequence_is_caught(name: str) -> None:
    right, found = derived_of(name), truths_of(name)[0]
    for port in right.seeds:
        if port.at is At.FINAL:
            kept = {k: v for k, v in right.seeds.items() if k != port}
            assert caught(found, replace(right, seeds=kept)), port
    for port in right.results:
        if port.at is At.START:
            kept = {k: v for k, v in right.results.items() if k != port}
            assert caught(found, replace(right, results=kept)), port


def _wrong_sweep(which: int, line: int) -> Callable[..., Derived]:
    """What derives as `adjoint` does, but one line of the `which`-th sweep it makes is wrong."""
    made = 0

    def derive(p: Program, seeds: Iterable[str] | None = None) -> Derived:
        nonlocal made
        sweep = adjoint(p, seeds)
        made += 1
        if made != which:
            return sweep
        name = sweep.program.equations[line].name
        return replace(sweep, program=scaled(sweep.program, name, MUTATION))

    return derive


@pytest.mark.parametrize("name", ["lstm", "gru_cho", "scalar_gates", "antisymmetric"])
def test_a_second_order_line_that_is_wrong_by_a_thousandth_is_caught(name: str) -> None:
    p = load(name)
    found = truth(p, sizes_for(p), 3, np.random.default_rng(0))
    true = second_truth(found, np.random.default_rng(1))
    first = adjoint(found.lowered)
    again = adjoint(found.lowered, {port.name for port in first.primal.values()})
    for which, sweep in ((2, adjoint(first.program)), (3, again)):
        missed = {
            e.name
            for line, e in enumerate(sweep.program.equations)
            if all(each.ok for each in judge_second(true, _wrong_sweep(which, line)))
        }
        assert not missed, f"in sweep {which}"
