"""The runner, on a clock of the test's own: who is called when, how often, and what is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bptt.bench.runner import (
    AT_LEAST,
    FEWEST_ROUNDS,
    WARM_UP,
    Effort,
    Round,
    measure,
    rounds,
    spread,
)


@dataclass
class Time:
    """A clock that stands still but while a call runs; every call is written down."""

    now: float = 0.0
    calls: list[str] = field(default_factory=list[str])

    def read(self) -> float:
        return self.now

    def takes(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds
            self.calls.append(name)

        return call

    def peak(self) -> float:
        self.calls.append("peak")
        return 8e9


def test_the_order_is_reversed_every_round() -> None:
    time = Time()
    calls = [time.takes("A", 0.5), time.takes("B", 0.25), time.takes("C", 1.0)]
    measure(calls, Effort(rounds=4), time.peak, time.read)
    after = time.calls[3 * (WARM_UP + 1) :]
    assert "".join(after).split("peak") == ["ABC", "CBA", "ABC", "CBA", ""]


def test_seconds_are_those_of_one_call_and_each_rounds_own() -> None:
    time = Time()
    calls = [time.takes("A", 2.0**-5), time.takes("B", 2.0**-10)]
    found = measure(calls, Effort(rounds=2), time.peak, time.read)
    assert found == [Round((2.0**-5, 2.0**-10), 8e9)] * 2


def test_a_measurement_is_long_enough() -> None:
    time = Time()
    seconds = 2.0**-14
    measure([time.takes("A", seconds)], Effort(rounds=3), time.peak, time.read)
    _, second, third, _ = "".join(time.calls).split("peak")
    assert second == third
    assert AT_LEAST <= len(second) * seconds < 2 * AT_LEAST


def test_warm_up_comes_before_the_first_round() -> None:
    time = Time()
    measure([time.takes("A", 1.0)], Effort(rounds=1), time.peak, time.read)
    assert time.calls == ["A"] * (WARM_UP + 1) + ["A", "peak"]


def test_rounds_begin_until_the_time_is_spent() -> None:
    time = Time()
    found = measure([time.takes("A", 1.0)], Effort(seconds=7.5), time.peak, time.read)
    assert len(found) == 8
    assert len(measure([time.takes("A", 9.0)], Effort(seconds=7.5), time.peak, time.read)) == (
        FEWEST_ROUNDS
    )


def test_rounds_of_given_lengths_are_not_warmed_up() -> None:
    time = Time()
    calls = [time.takes("A", 0.5), time.takes("B", 0.25)]
    found = rounds(calls, [2, 3], Effort(rounds=2), time.peak, time.read)
    assert "".join(time.calls).split("peak") == ["AABBB", "BBBAA", ""]
    assert found == [Round((0.5, 0.25), 8e9)] * 2


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2.0, 4.0, 5)
    assert spread([1.0, 2.0]) == (1.5, 1.25, 1.75, 2)
    assert spread([7.0]) == (7.0, 7.0, 7.0, 1)
