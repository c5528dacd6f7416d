"""The peak probe: it does the work that it counts, and there is one without a compiler too."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from bptt.backends.cpu import build
from bptt.bench import peak
from bptt.bench.peak import probe
from bptt.bench.runner import AT_LEAST
from bptt.errors import BpttError, UserError


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    probe.cache_clear()
    yield
    probe.cache_clear()


def compiled(source: str = peak._SOURCE, flags: tuple[str, ...] = ()) -> Any:
    try:
        kernel = build.load(source, flags=flags).bptt_peak
    except BpttError as error:
        pytest.skip(f"nothing compiles here: {error.what}")
    kernel.restype = ctypes.c_long
    kernel.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float, ctypes.c_void_p]
    return kernel


def test_the_kernel_does_every_step_that_it_counts() -> None:
    kernel = compiled()
    out = (ctypes.c_float * peak._MOST_LANES)()
    # a*2 + 1, three times, from 1 + k: 8*(1 + k) + 7, summed over all chains
    total = sum(8 * (1 + k) + 7 for k in range(peak._CHAINS))
    done = kernel(3, 2.0, 1.0, out)
    lanes = done // (2 * peak._CHAINS * 3)
    assert lanes in (4, 8, 16)
    assert done == 2 * peak._CHAINS * 3 * lanes
    assert list(out) == [total] * lanes + [0] * (peak._MOST_LANES - lanes)


EMULATED = ("-DBPTT_TILES=2", "-DBPTT_BYTES=64")


@pytest.mark.parametrize("flags", [(), EMULATED])
def test_the_kernel_of_the_matrix_unit_too(flags: tuple[str, ...]) -> None:
    out = (ctypes.c_float * peak._MOST_LANES)()
    done = compiled(peak._TILES, flags)(3, 2.0, 1.5, out)
    if not done and not flags:
        pytest.skip("there is no matrix unit here")
    # 32 products of 2 and 1.5, three times a step in each of four tiles, three steps
    assert list(out) == [32 * 3.0 * 3 * 4 * 3] * 16
    # an operation of float32 is six of parts; a tile has 16 by 16 sums
    assert done == 2 * 32 * 16 * 16 * 3 * 4 * 3 / 6


@pytest.mark.parametrize("threads", [1, 2])
def test_a_probe_gives_operations_in_a_second(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = (ctypes.c_float * peak._MOST_LANES)()
    kernel = compiled(peak._TILES)
    kind = "tiles" if kernel(1, 0.5, 1.0, out) else "fma"
    found = probe(threads)
    assert found.kind == kind
    monkeypatch.setattr("time.perf_counter", iter((10.0, 10.5)).__next__)
    done = found.measure() * 0.5
    kernel = kernel if kind == "tiles" else compiled()
    fewest = threads * kernel(peak._FEWEST_STEPS, 0.5, 1.0, out)
    assert done % fewest == 0
    assert int(done // fewest).bit_count() == 1, "doubled some times, and done by every thread"


def test_a_probe_lasts_as_long_as_a_measurement() -> None:
    now, asked = [0.0], list[int]()

    def one(steps: int) -> int:
        asked.append(steps)
        now[0] += steps / 2**24
        return steps

    steps = peak.enough(one, lambda: now[0])
    assert asked[-1] == steps
    assert AT_LEAST <= steps / 2**24 < 2 * AT_LEAST


def test_without_a_compiler_it_is_a_product_of_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, *, flags: object) -> None:
        raise UserError("there is no compiler")

    monkeypatch.setattr(build, "load", refuse)
    found = probe(1)
    assert found.kind == "matmul"
    monkeypatch.setattr("time.perf_counter", iter((10.0, 10.5)).__next__)
    assert found.measure() == 4 * peak._MATRIX**3
