"""The truth has to be true: both ways to it, on functions whose derivative is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from tolerances import DIFFERENCES, OP_DERIVATIVE

from bptt.proof.numeric import KinkError, along, branches, complex_step, differences, same

WEIGHTS = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, -1.0]])


def smooth(at: Mapping[Any, Any], sides: list[Any] | None) -> Any:
    return np.tanh(at["x"]) * at["k"]


def kinked(at: Mapping[Any, Any], sides: list[Any] | None) -> Any:
    if sides is not None:
        sides.append(np.sign(np.real(at["x"])))
    return np.where(np.real(at["x"]) > 0, np.exp(at["x"]), 0 * at["x"]) * at["k"]


@pytest.mark.parametrize(
    ("way", "limit"), [(complex_step, OP_DERIVATIVE), (differences, DIFFERENCES)]
)
def test_each_row_of_weights_is_a_function(way: Any, limit: float, rng: Any) -> None:
    point = {"x": rng.normal(size=3), "k": np.float64(0.7)}
    slope = 0.7 * (1 - np.tanh(point["x"]) ** 2)
    assert np.max(np.abs(way(smooth, point, "x", WEIGHTS) - WEIGHTS * slope)) <= limit
    by_k = way(smooth, point, "k", WEIGHTS)
    assert by_k.shape == (2,)
    assert np.max(np.abs(by_k - WEIGHTS @ np.tanh(point["x"]))) <= limit


def test_differences_shorten_their_step_next_to_a_kink() -> None:
    """At 1e-4 from a kink a step of 1e-3 is on both sides, and an answer from it is wrong."""
    point = {"x": np.array([1e-4, -1e-4, 0.5]), "k": np.float64(1.0)}
    slope = np.array([np.exp(1e-4), 0.0, np.exp(0.5)])
    found = differences(kinked, point, "x", WEIGHTS)
    assert np.max(np.abs(found - WEIGHTS * slope)) <= DIFFERENCES


def test_differences_on_a_kink_give_up() -> None:
    point = {"x": np.array([1e-6, 0.3, 0.5]), "k": np.float64(1.0)}
    with pytest.raises(KinkError) as caught:
        differences(kinked, point, "x", WEIGHTS)
    assert caught.value.port == "x"
    assert differences(kinked, point, "k", WEIGHTS).shape == (2,)


def test_sides_are_compared_one_by_one() -> None:
    here = branches(kinked, {"x": np.array([1.0, -1.0]), "k": np.float64(1)})
    there = branches(kinked, {"x": np.array([2.0, -3.0]), "k": np.float64(1)})
    across = branches(kinked, {"x": np.array([2.0, 3.0]), "k": np.float64(1)})
    assert same(here, there) and not same(here, across)


@pytest.mark.parametrize("analytic", [True, False])
def test_a_direction_is_the_sum_of_its_entries(analytic: bool, rng: Any) -> None:
    point = {"x": rng.normal(size=3), "k": np.float64(0.7)}
    way = {"x": 30 * rng.normal(size=3), "k": np.float64(-20.0)}
    slope = way["x"] * 0.7 * (1 - np.tanh(point["x"]) ** 2) + way["k"] * np.tanh(point["x"])
    found = along(smooth, point, way, analytic)
    limit = OP_DERIVATIVE if analytic else DIFFERENCES
    assert np.max(np.abs(found - slope)) <= limit * np.max(np.abs(slope))


def test_a_gradient_that_vanishes_is_seen_by_the_complex_step_alone() -> None:
    def tiny(at: Mapping[Any, Any], sides: list[Any] | None) -> Any:
        return 1.0 + 1e-20 * np.sin(at["x"])

    point = {"x": np.array([0.3, 1.0, 2.0])}
    true = 1e-20 * WEIGHTS * np.cos(point["x"])
    exact = complex_step(tiny, point, "x", WEIGHTS)
    assert np.max(np.abs(exact - true)) <= OP_DERIVATIVE * np.max(np.abs(true))
    assert not np.any(differences(tiny, point, "x", WEIGHTS))
