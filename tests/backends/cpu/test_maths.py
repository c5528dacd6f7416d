"""The vector maths of the CPU engine: how far it is from the truth, over all floats."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tolerances import COEFFICIENT, ULPS, ULPS_OTHERWISE
from vector_maths import (
    CAN_JUDGE,
    CC,
    DTYPES,
    HEADERS,
    LEVELS,
    MEASURED,
    PAGE,
    WIDER,
    Array,
    at_place,
    builds,
    claims,
    compiled,
    library,
    pointer,
    sampled,
    table,
    ulps,
    values,
    wider,
    worst,
    wrong_elsewhere,
)

pytestmark = pytest.mark.skipif(CC is None, reason="there is no C compiler here")
inf, nan = np.inf, np.nan


# --- accuracy ------------------------------------------------------------------------------------


def judged(dtype: str) -> None:
    if not CAN_JUDGE[dtype]:
        pytest.skip("long double has no more digits than double here")


@pytest.mark.parametrize(("dtype", "level"), builds())
@pytest.mark.parametrize("name", MEASURED)
def test_it_is_accurate_over_all_numbers(name: str, dtype: str, level: str) -> None:
    judged(dtype)
    claim = claims().get((name, dtype, level), (ULPS, 0.0))[0]
    for x, true in sampled(name, dtype):
        error, place = worst(library(dtype, level), name, x, true)
        assert error <= ULPS, f"{name}({place!r}) is off by {error} ulps"
        assert error <= claim + ULPS_OTHERWISE, f"{name}({place!r}): {error}, the page says {claim}"
        y = values(library(dtype, level), f"of_{name}", x)
        wrong = wrong_elsewhere(y, true)
        assert not wrong.any(), f"{name}({x[wrong][0]!r}) = {y[wrong][0]!r}"
        if name in ("tanh", "sigmoid"):
            assert not (np.abs(y) > 1).any(), f"{name} is above 1"


@pytest.mark.parametrize(("dtype", "level"), builds())
def test_the_page_says_what_is(dtype: str, level: str) -> None:
    judged(dtype)
    said = claims()
    assert set(said) == {(n, d, v) for n in MEASURED for d in DTYPES for v in LEVELS}
    assert table(said) in PAGE.read_text(encoding="utf-8")
    for (name, kind, where), (claim, place) in said.items():
        assert claim <= ULPS
        if (kind, where) == (dtype, level):
            error, _ = at_place(name, kind, where, place)
            assert abs(error - claim) <= ULPS_OTHERWISE, f"{name}({place}): {error}, not {claim}"


@pytest.mark.parametrize(("dtype", "level"), builds())
@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("exp", [0, -0.0, -inf, inf, nan, 1e4, -1e4, 1e-42], [1, 1, 0, inf, nan, inf, 0, 1]),
        ("log", [0, -0.0, -inf, inf, nan, 1, -1, -1e-42], [-inf, -inf, nan, inf, nan, 0, nan, nan]),
        (
            "tanh",
            [0, -0.0, -inf, inf, nan, 1e4, -1e4, 45, -45],
            [0, -0.0, -1, 1, nan, 1, -1, 1, -1],
        ),
        ("sigmoid", [0, -0.0, -inf, inf, nan, 1e4, -1e4, 45], [0.5, 0.5, 0, 1, nan, 1, 0, 1]),
        ("softplus", [-inf, inf, nan, 1e4, -1e4, 100], [0, inf, nan, 1e4, 0, 100]),
        ("logsigmoid", [-inf, inf, nan, 1e4, -1e4, -100], [-inf, -0.0, nan, -0.0, -1e4, -100]),
        ("softsign", [0, -0.0, 1, -3, nan, 1e-42], [0, -0.0, 0.5, -0.75, nan, 1e-42]),
        ("sqrt", [0, -0.0, 4, inf, nan, -1], [0, -0.0, 2, inf, nan, nan]),
        ("abs", [0, -0.0, -2, -inf, nan, 1e-42], [0, 0, 2, inf, nan, 1e-42]),
        ("sign", [0, -0.0, -2, -inf, nan, 1e-42], [0, 0, -1, -1, 0, 1]),
        ("relu", [0, -2, 3, -inf, inf, nan, -1e-42], [0, 0, 3, 0, inf, nan, 0]),
        ("positive", [0, -0.0, -2, inf, nan, 1e-42], [0, 0, 0, 1, 0, 1]),
    ],
)
def test_special_values(name: str, x: list[float], y: list[float], dtype: str, level: str) -> None:
    kind = DTYPES[dtype]
    got = values(library(dtype, level), f"of_{name}", np.array(x, kind))
    np.testing.assert_array_equal(got, np.array(y, kind))
    if name in ("tanh", "softsign", "abs"):
        np.testing.assert_array_equal(np.signbit(got[:2]), np.signbit(np.array(y[:2])))


@pytest.mark.parametrize(("dtype", "level"), builds())
def test_tiny_numbers_stay_what_they_are(dtype: str, level: str) -> None:
    info = np.finfo(DTYPES[dtype])
    x = np.geomspace(info.tiny, 1e-9, 100, dtype=DTYPES[dtype])
    x = np.concatenate([x, -x])
    y = values(library(dtype, level), "of_tanh", x)
    np.testing.assert_allclose(y, x, rtol=ULPS * float(info.eps), atol=0)
    least = np.arange(1, 100, dtype=x.dtype) * info.smallest_subnormal
    y = values(library(dtype, level), "of_tanh", least)
    np.testing.assert_array_equal(y[y != 0], least[y != 0])


@pytest.mark.parametrize(("dtype", "level"), builds())
@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("max", np.maximum),
        ("min", np.minimum),
        ("same", np.equal),
        ("prefer", lambda a, b: np.where(a > b, 1, np.where(a < b, 0, 0.5))),
        ("unless", lambda a, b: np.where(b > 0, 0, a)),
    ],
)
def test_two_arguments(
    name: str, truth: Callable[[Array, Array], Array], dtype: str, level: str
) -> None:
    special = np.array([0, -0.0, 1, -1, 2.5, 1e-42, inf, -inf, nan, -nan, 3, -7], DTYPES[dtype])
    a, b = (g.ravel().copy() for g in np.meshgrid(special, special))
    got = values(library(dtype, level), f"of_{name}", a, b)
    np.testing.assert_array_equal(got, truth(a, b).astype(a.dtype))


@pytest.mark.parametrize(("dtype", "level"), builds())
def test_sin_and_cos_are_the_librarys(dtype: str, level: str) -> None:
    x = np.array([0, -0.0, 0.5, -3, 100, 1e4, inf, nan, 1e-42, 2], DTYPES[dtype])
    for name, true in (("sin", np.sin), ("cos", np.cos)):
        with np.errstate(all="ignore"):
            exact = true(wider(x))
        y = values(library(dtype, level), f"of_{name}", x)
        assert ulps(y, exact).max() <= ULPS
        np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))


@pytest.mark.parametrize(("dtype", "level"), builds())
@pytest.mark.parametrize("how", ["given", "known"])
@pytest.mark.parametrize("p", [2.0, 3.0, -1.0, -2.0, 0.5])
def test_powers(p: float, how: str, dtype: str, level: str) -> None:
    x = np.array([0, -0.0, 1, -1, 2.5, -2.5, 0.1, 1e-42, 1e-19, 1e19, inf, -inf, nan, 7, 8, -9])
    x = x.astype(DTYPES[dtype])
    lib = library(dtype, level)
    y = values(lib, f"pow_{how}", x, np.array([p], x.dtype))
    with np.errstate(all="ignore"):
        true = np.power(wider(x), np.full(len(x), p, WIDER[dtype]))
    assert ulps(y, true).max() <= ULPS
    assert not wrong_elsewhere(y, true).any()
    zero = (x == 0) | np.isinf(x)
    np.testing.assert_array_equal(np.signbit(y[zero]), np.signbit(true[zero]))


# --- lanes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "level"), builds())
def test_part_of_a_vector_touches_no_more(dtype: str, level: str) -> None:
    lib, kind = library(dtype, level), DTYPES[dtype]
    many = lib.lanes()
    for n in range(many + 1):
        x = np.arange(1, many + 1, dtype=kind)
        y = np.full(many, -1, kind)
        lib.copy_some(pointer(x), pointer(y), n)
        np.testing.assert_array_equal(y, np.where(np.arange(many) < n, x, -1))
        lib.load_some(pointer(x), pointer(y), n)
        np.testing.assert_array_equal(y, np.where(np.arange(many) < n, x, 0))
        lib.first_of(pointer(x), pointer(-x), pointer(y), n)
        np.testing.assert_array_equal(y, np.where(np.arange(many) < n, x, -x))


@pytest.mark.parametrize(("dtype", "level"), builds())
def test_a_piece_of_a_vector_reads_no_more(dtype: str, level: str) -> None:
    """What lies beside it is memory that nobody may read."""
    lib, kind = library(dtype, level), DTYPES[dtype]
    many, page = lib.lanes(), mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    for k in (0, 2):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + k * page), page, 0) == 0
    for length in range(2 * many + 1):
        for first in (page, 2 * page - length * np.dtype(kind).itemsize):  # at either end
            x = np.frombuffer(memory, kind, length, first)
            x[:] = np.arange(1, length + 1)
            for c in range(-many - 1, length + 2):
                want = np.zeros(4 * many, kind)
                want[max(0, -c) : max(0, length - c)] = x[max(0, c) :]
                for n in range(many + 1):
                    y = np.full(many, -1, kind)
                    where = ctypes.c_int64(c), ctypes.c_int64(length)
                    lib.load_piece(ctypes.c_void_p(start + first), *where, pointer(y), n)
                    np.testing.assert_array_equal(y, np.where(np.arange(many) < n, want[:many], 0))


@pytest.mark.parametrize(("dtype", "level"), builds())
def test_sum_and_top_of_lanes(dtype: str, level: str) -> None:
    lib, kind = library(dtype, level), DTYPES[dtype]
    many = lib.lanes()
    x = np.random.default_rng(1).normal(size=many).astype(kind)
    pairs = x
    while len(pairs) > 1:
        pairs = pairs[::2] + pairs[1::2]
    assert lib.sum_of(pointer(x)) == pairs[0]
    for at in range(many):
        y = x.copy()
        y[at] = 9
        assert lib.top_of(pointer(y)) == 9
        y[at] = nan
        assert np.isnan(lib.top_of(pointer(y)))
    least = np.full(many, -inf, kind)
    assert lib.top_of(pointer(least)) == -inf


# --- the tests themselves ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "name", "right"),
    [
        ("float32", "exp", "0x1.5554b4p-3f"),
        ("float32", "tanh", "0x1.cf52aep-4f"),
        ("float32", "softplus", "0x1.55557ap-1f"),
        ("float64", "tanh", "0x1.5555555555559p-3"),
        ("float64", "sigmoid", "0x1.5555555555559p-5"),
        ("float64", "log", "0x1.c71c51ebf598cp-3"),
    ],
)
def test_a_wrong_coefficient_is_caught(dtype: str, name: str, right: str, tmp_path: Path) -> None:
    judged(dtype)
    wrong = f"(real)({right} * {1 + COEFFICIENT[dtype]})"
    for header in HEADERS.glob("*.h"):
        text = header.read_text(encoding="utf-8")
        (tmp_path / header.name).write_text(text.replace(right, wrong), encoding="utf-8")
    assert (tmp_path / "maths.h").read_text(encoding="utf-8").count(wrong) == 1
    lib = compiled(dtype, "-march=native", tmp_path)
    assert any(worst(lib, name, x, true)[0] > ULPS for x, true in sampled(name, dtype))
