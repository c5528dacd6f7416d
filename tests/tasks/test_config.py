"""The numbers of a run, its learning rate and its length."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bptt.tasks.config import Budget, Config


@pytest.mark.parametrize(
    "wrong",
    [{"hidden": 0}, {"hidden": 10**6}, {"layers": 65}, {"dropout": 1.0}, {"clip": math.nan}],
)
def test_numbers_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must lie between"):
        Config(**wrong)


def test_the_learning_rate_rises_and_falls() -> None:
    config = Config(learning_rate=1.0, warmup=0.1, final=0.01)
    rates = [config.rate(i / 100) for i in range(101)]
    assert 0 < rates[0] < 0.1
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10] == max(rates) == 1.0
    assert rates[100] == config.rate(1.5) == pytest.approx(0.01)


def test_a_budget_counts_minutes_or_steps() -> None:
    assert Budget(minutes=2).done(10**6, 60.0) == 0.5
    assert Budget(steps=200).done(50, 1e9) == 0.25
    assert str(Budget(minutes=0.5)) == "0.5 minutes"
    assert str(Budget(steps=2000)) == "2,000 steps"


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"minutes": math.inf}, {"steps": -1}])
def test_a_run_has_a_length(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no length"):
        Budget(**wrong)
