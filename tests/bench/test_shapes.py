"""Sizes by name and by number."""

from __future__ import annotations

import pytest

from bptt.bench.shapes import GRID, PRACTICE, QUICK, Shape, shape_called
from bptt.errors import UserError


def test_the_grid_is_all_there() -> None:
    assert [tuple(shape) for shape in GRID] == [
        (100, 1, 64, 64),
        (100, 16, 64, 64),
        (100, 64, 128, 128),
        (64, 32, 256, 256),
        (100, 32, 512, 512),
        (35, 20, 650, 650),
        (50, 64, 1024, 1024),
        (365, 256, 16, 64),
        (2048, 1, 1, 32),
        (30, 64, 32, 128),
        (1, 1, 256, 256),
    ]
    assert set(QUICK) < set(GRID)


@pytest.mark.parametrize("shape", [*GRID, Shape(3, 5, 7, 11)])
def test_a_shape_is_known_by_its_name_and_by_its_numbers(shape: Shape) -> None:
    assert shape_called(shape.name) == shape
    assert shape_called(shape.numbers) == shape
    assert shape_called(shape.numbers.replace("x", ",")) == shape
    assert (shape.name in PRACTICE) == (shape in PRACTICE.values())


@pytest.mark.parametrize("text", ["", "3x4x5", "1x2x3x4x5", "1x2x0x4", "axbxcxd", "٣x1x1x1"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"`{text}` is no shape") as caught:
        shape_called(text)
    assert caught.value.help


def test_a_slip_is_answered_with_the_name() -> None:
    with pytest.raises(UserError) as caught:
        shape_called("hydrologie")
    assert caught.value.help == "did you mean `hydrology`?"
