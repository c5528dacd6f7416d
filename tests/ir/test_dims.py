"""Sizes as symbols: equal sizes are equal values, whichever way they were made."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bptt.ir.dims import (
    Dim,
    add_dims,
    divide_dim,
    scale_dim,
    shape_of,
    show_dim,
    show_dims,
    size_of,
    substitute,
    terms,
)

DIMS: list[Dim] = [0, 1, 4, "H", "X", scale_dim("H", 4), add_dims("X", "H", 1), add_dims("H", -1)]
SIZES = {"H": 3, "X": 5}


def test_sums_do_not_depend_on_the_order() -> None:
    for a, b, c in itertools.product(DIMS, repeat=3):
        assert add_dims(a, b) == add_dims(b, a)
        assert add_dims(add_dims(a, b), c) == add_dims(a, add_dims(b, c)) == add_dims(a, b, c)
        assert hash(add_dims(a, b)) == hash(add_dims(b, a))


def test_symbols_and_numbers_agree() -> None:
    for a, b in itertools.product(DIMS, repeat=2):
        assert size_of(add_dims(a, b), SIZES) == size_of(a, SIZES) + size_of(b, SIZES)
        assert size_of(scale_dim(a, 3), SIZES) == 3 * size_of(a, SIZES)


def test_the_simplest_form_is_used() -> None:
    assert add_dims() == 0 and add_dims(2, 3) == 5
    assert add_dims("H", 0) == "H" == scale_dim("H", 1)
    assert add_dims("H", "H") == scale_dim("H", 2)
    assert add_dims("H", scale_dim("H", -1)) == 0 == scale_dim("H", 0)
    assert add_dims(add_dims("X", "H"), scale_dim("X", -1)) == "H"


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_equal_parts_add_up_again(parts: int) -> None:
    for dim in DIMS:
        whole = scale_dim(dim, parts)
        assert divide_dim(whole, parts) == dim
        part = divide_dim(dim, parts)
        assert part is None or scale_dim(part, parts) == dim
    assert divide_dim("H", 2) is None
    assert divide_dim(add_dims(scale_dim("H", 2), 1), 2) is None


def test_names_are_replaced_by_what_they_turned_out_to_be() -> None:
    dim = add_dims(scale_dim("H", 2), "X", 1)
    assert substitute(dim, {}) == dim
    assert substitute(dim, {"X": "H"}) == add_dims(scale_dim("H", 3), 1)
    assert substitute(dim, {"H": 4, "X": add_dims("H", 1)}) == add_dims("H", 10)
    assert terms(dim) == {"": 1, "H": 2, "X": 1}


def test_shapes_are_numbers() -> None:
    dims = (scale_dim("H", 4), add_dims("X", 1))
    assert shape_of(dims, SIZES) == (12, 6) and shape_of((), SIZES) == ()
    assert np.zeros(shape_of(dims, SIZES)).size == 72
    with pytest.raises(KeyError):
        size_of("Q", SIZES)


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (1, "1"),
        ("H", "H"),
        (scale_dim("H", 4), "4*H"),
        (add_dims("X", "H", 1), "H + X + 1"),
        (add_dims("H", -1), "H - 1"),
        (add_dims("X", scale_dim("H", -2)), "-2*H + X"),
    ],
)
def test_sizes_are_shown_as_people_write_them(dim: Dim, text: str) -> None:
    assert show_dim(dim) == text


def test_dims_are_shown_as_people_write_them() -> None:
    assert show_dims(()) == "scalar"
    assert show_dims(("H",)) == "H"
    assert show_dims((scale_dim("H", 4), "X")) == "(4*H, X)"
