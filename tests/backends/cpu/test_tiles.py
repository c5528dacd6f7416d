"""Products on the matrix unit: emulated on any machine, and on its own where there is one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backends_alike import assert_close
from planted import planted
from shapes import Shape, draw, packed
from sweeps_of import sweep
from tolerances import BACKEND, PARTS

from bptt.backends import reference
from bptt.backends.cpu import build, execute
from bptt.backends.cpu.run import code_of
from bptt.calculus.rewrites import layer, lower
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Program
from bptt.language.check import check
from bptt.printers.c.phases import Step

Array = Any

HARNESS = (Path(__file__).parent / "tiles.c").read_text(encoding="utf-8")
EMULATED = "-DBPTT_TILES=2 -DBPTT_BYTES=64"
WIDE = 32  # a panel
ROWS = (1, 15, 16, 17, 31, 32)
inf, nan = np.inf, np.nan


@cache
def unit(flags: str) -> ctypes.CDLL:
    return build.load(HARNESS, flags=("-DBPTT_REAL=float", *flags.split()))


def parts(x: Array, *, cut: bool) -> list[Array]:
    """The three parts of numbers."""
    x = np.resize(x.astype(np.float32), -(-x.size // 16) * 16)
    found = [np.empty_like(x) for _ in range(3)]
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, *found)]
    unit(EMULATED).parts(int(cut), pointers[0], ctypes.c_int64(x.size), *pointers[1:])
    return found


def product(flags: str, x: Array, w: Array, *, turned: bool = False) -> tuple[Array, bool]:
    """Twice x @ w on the unit, and whether it says that something is too large."""
    rows, depth = x.shape
    memory = np.full(4 * (depth // 32 + 1) * 3 * 512 + 32, 0x7FC0, np.uint16)
    to, begin = np.empty((rows, WIDE), np.float32), -memory.ctypes.data % 64
    arrays = (np.ascontiguousarray(x.T if turned else x, np.float32), w.astype(np.float32))
    data = [a.ctypes.data_as(ctypes.c_void_p) for a in arrays]
    sizes = (ctypes.c_int64(rows), ctypes.c_int64(depth))
    place = ctypes.c_void_p(memory.ctypes.data + begin)
    into = to.ctypes.data_as(ctypes.c_void_p)
    too_large = unit(flags).product(data[0], *sizes, data[1], int(turned), place, into)
    return to, bool(too_large)


def drawn(rows: int, depth: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Numbers of all sizes: float32, as float64."""
    x, w = rng.normal(size=(rows, depth)), rng.normal(size=(depth, WIDE))
    x *= np.exp2(rng.integers(-8, 8, (rows, 1)))
    return x.astype(np.float32).astype(float), w.astype(np.float32).astype(float)


def off(got: Array, x: Array, w: Array) -> float:
    """The worst error of twice x @ w, beside what its products amount to."""
    return float(np.max(np.abs(got - 2 * (x @ w)) / (2 * np.abs(x) @ np.abs(w))))


@pytest.mark.parametrize("cut", [False, True])
def test_three_parts_are_the_number(cut: bool, rng: np.random.Generator) -> None:
    x = rng.integers(0, 1 << 32, 1 << 16, np.uint32).view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) > 2.0**-100)]
    x = x[np.abs(x) < 2.0**62]
    found = parts(x, cut=cut)
    assert np.array_equal(sum(a.astype(float) for a in found)[: x.size], x.astype(float))
    for part in found:  # the upper half of a float32 is all of it
        assert not np.any(part.view(np.uint32) & 0xFFFF)


@pytest.mark.parametrize("cut", [False, True])
def test_a_nan_has_parts(cut: bool) -> None:
    patterns = np.array([0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    assert np.isnan(sum(parts(patterns.view(np.float32), cut=cut))).all()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("x", [inf, -inf, np.finfo(np.float32).max, -(2.0**62)])
def test_what_is_too_large_is_seen(x: float, turned: bool) -> None:
    """Wherever it stands, also where a NaN stands in the same lane of another row."""
    for left, place in ((True, (1, 5)), (False, (40, 3)), (False, (17, 20))):
        for other in (0.0, nan):
            a, b = np.ones((3, 64)), np.ones((64, WIDE))
            held = a if left else b
            held[0, place[1]] = held[2, place[1]] = other
            assert not product(EMULATED, a, b, turned=turned)[1]
            held[place] = x
            assert product(EMULATED, a, b, turned=turned)[1]


def flags() -> list[Any]:
    return [pytest.param(EMULATED, id="emulated"), pytest.param("-DBPTT_TILES=1", id="unit")]


def needed(unit_flags: str) -> None:
    if unit_flags != EMULATED and "amx_bf16" not in processor():
        pytest.skip("this processor has no matrix unit that we know")
    if not unit(unit_flags).there():
        pytest.skip("the system does not let this process use the matrix unit")


def processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("depth", [1, 32, 45, 96])
@pytest.mark.parametrize("way", flags())
def test_products_are_those_of_float32(
    way: str, depth: int, rows: int, rng: np.random.Generator
) -> None:
    needed(way)
    x, w = drawn(rows, depth, rng)
    got, too_large = product(way, x, w)
    assert not too_large
    assert off(got, x, w) <= PARTS
    if depth % 32 == 0:
        assert np.array_equal(product(way, x, w, turned=True)[0], got)


def test_the_unit_is_what_is_emulated(rng: np.random.Generator) -> None:
    needed("-DBPTT_TILES=1")
    x, w = drawn(32, 64, rng)
    assert np.array_equal(*(product(way, x, w)[0] for way in ("-DBPTT_TILES=1", EMULATED)))


@pytest.mark.parametrize(
    "left_out", ["LOAD_LEFT(2) DOTS ", " LOAD_RIGHT(2) DOTS", "LOAD_LEFT(1) DOTS "]
)
def test_a_product_that_is_left_out_is_seen(
    left_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """The tests of accuracy, tested: five products of parts instead of six."""
    planted(tmp_path, monkeypatch, "tiles.h", left_out, left_out.replace("DOTS", ""))
    unit.cache_clear()
    x, w = drawn(16, 96, rng)
    try:
        assert off(product(EMULATED, x, w)[0], x, w) > PARTS
    finally:
        unit.cache_clear()


# --- whole sweeps ---------------------------------------------------------------------------------

SHAPES = (
    Shape(3, 20, (70, 9, 4)),
    Shape(5, 40, (32, 33, 6), groups=2, lengths=(5,) * 17 + (3,) * 16 + (2,) * 7),
    Shape(2, 150, (64, 5, 3)),
)
CELLS = ("lstm", "gru", "iosif", "deep_transition_rnn")


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every product that can be is on tiles, which are emulated; memory is NaN at first."""
    before = torch.get_num_threads()
    monkeypatch.setenv("BPTT_CFLAGS", f"-DBPTT_TEST {EMULATED}")
    code_of.cache_clear()
    yield
    torch.set_num_threads(before)
    code_of.cache_clear()


def both(p: Program, given: dict[Port, Array], counts: Any) -> Iterator[tuple[str, Array, Array]]:
    """The outputs of the compiled sweep in float32, and of the reference in float64."""
    arrays = [
        given[port] if counts is None or port.at is not At.STEPS else packed(given[port], counts)
        for port in inputs(p)
    ]
    with np.errstate(all="ignore"):
        want = reference.execute(p, arrays, counts)
    got = execute(p, [np.asarray(a, np.float32) for a in arrays], counts)
    for port, a, b in zip(outputs(p), got, want, strict=True):
        yield port.name, np.asarray(a), np.broadcast_to(np.asarray(b), a.shape)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("cell", ["lem", "lstm_hard", "slstm_exp"])
def test_a_product_that_lies_where_another_lay(
    cell: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """One product of the loop is itself an output, and lies where what is added to the next one lay
    before the loop: so it is where places are given away in this order."""
    usual = Step.made
    monkeypatch.setattr(Step, "made", lambda step: tuple(reversed(usual(step))))
    p, shape = sweep(cell, "forward"), SHAPES[0]
    for name, got, want in both(p, draw(p, shape, rng), None):
        assert_close(f"{cell} {name}", got, want, BACKEND["float32"])


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_sweeps_on_tiles(order: str, cell: str, threads: int, rng: np.random.Generator) -> None:
    torch.set_num_threads(threads)
    p = sweep(cell, order)
    for shape in SHAPES:
        given = draw(p, shape, rng)
        for name, got, want in both(p, given, shape.batch_sizes()):
            assert_close(f"{cell} {order} {shape} {name}", got, want, BACKEND["float32"])


def astray(where: str, rng: np.random.Generator) -> list[str]:
    """Outputs that are not the reference's, where there are infinities in some array."""
    p, shape = sweep("lstm", "backward" if where == "gradient" else "forward"), SHAPES[0]
    given = draw(p, shape, rng)
    wanted = {"operand": "x", "matrix": "U_f", "gradient": "x"}[where]
    (port,) = (port for port in given if port.name == wanted)
    given[port].reshape(-1)[[5, 76]] = inf, -inf
    wrong = list[str]()
    for name, got, want in both(p, given, None):
        plain = np.isfinite(want)
        try:
            assert np.array_equal(got[~plain], want[~plain], equal_nan=True)
            assert_close(name, got[plain], want[plain], BACKEND["float32"])
        except AssertionError:
            wrong.append(name)
    return wrong


PLACES = ("operand", "matrix", "gradient")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", PLACES)
def test_infinities_go_where_they_belong(
    where: str, threads: int, rng: np.random.Generator
) -> None:
    """Products with an infinity are not worked out on tiles, where they were NaN."""
    torch.set_num_threads(threads)
    assert not astray(where, rng)


@pytest.mark.usefixtures("emulated")
def test_an_infinity_on_tiles_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """The test above, tested: no infinity is noticed."""
    planted(tmp_path, monkeypatch, "tiles.h", "TOO_LARGE 0x1p62f", "TOO_LARGE NAN")
    assert [where for where in PLACES if astray(where, rng)] == list(PLACES)


@pytest.mark.usefixtures("emulated")
def test_products_that_overflow_are_infinite(rng: np.random.Generator) -> None:
    """As in float32: parts of finite numbers, whose products overflow each way, would be NaN."""
    p, shape = sweep("rnn", "forward"), SHAPES[0]
    given = {port: 1e20 * a for port, a in draw(p, shape, rng).items()}
    arrays = [np.asarray(given[port], np.float32) for port in inputs(p)]
    got = execute(p, arrays)
    assert not any(np.isnan(a).any() for a in got)


def test_a_matrix_of_several_phases_is_packed_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Before the loop, where there are rows enough for tiles, and in it, where there are not."""
    many = range(7)
    before = "\n".join(f"p{k}[t] = tanh(W{k} @ {f'p{k - 1}' if k else 'x'}[t])" for k in many)
    within = "*".join(f"tanh(W{k} @ k{k}[t-1])" for k in many)
    states = "\n".join(f"k{k}[t] = 0.5*k{k}[t-1] + p{k}[t] + 0.1*h[t]" for k in many)
    text = f"input x: H\n{before}\nh[t] = tanh(p6[t]) + {within}\n{states}\noutput h"
    p = lower(layer(check(text).program))
    monkeypatch.setenv("BPTT_CFLAGS", EMULATED)
    code_of.cache_clear()
    given = draw(p, Shape(100, 7, (64, 64, 64)), rng)
    for name, got, want in both(p, {port: a - 0.5 for port, a in given.items()}, None):
        assert_close(name, got, want, BACKEND["float32"])
    code_of.cache_clear()


def test_sums_of_parts_where_a_number_is_too_large(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Vectors take them over, with the memory that tiles have."""
    p, shape = sweep("lstm", "backward"), Shape(200, 1, (140, 3, 5), groups=2)
    given = {port: a[:1] if port.at is At.CONST else a for port, a in draw(p, shape, rng).items()}
    for port, a in given.items():
        a *= 0.01 if port.name.startswith("U_") else 1  # or gradients grow beyond all bounds
        if port.name == "x":
            a[1, 7, 0, 0] = 1e20
    arrays = [np.asarray(given[port], np.float32) for port in inputs(p)]
    found: list[Any] = []
    for flags in ("-DBPTT_TEST -DBPTT_TILES=0", f"-DBPTT_TEST {EMULATED}"):
        monkeypatch.setenv("BPTT_CFLAGS", flags)
        code_of.cache_clear()
        found.append(execute(p, arrays))
    code_of.cache_clear()
    for port, a, b in zip(outputs(p), *found, strict=True):
        if port.at is At.CONST:
            assert_close(port.name, b, a, BACKEND["float32"])
