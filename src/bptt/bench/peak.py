"""What the machine can do at most, measured in the rounds themselves: its speed changes."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

from bptt.bench.runner import AT_LEAST, Clock
from bptt.errors import BpttError

FMA, TILES, MATMUL = "fma", "tiles", "matmul"
_CHAINS = 12  # that wait for nobody: more than latency times units of any core
_FEWEST_STEPS = 100_000  # of each, doubled until a probe lasts as long as a measurement
_SOURCE = f"""
#include "lanes.h"
__attribute__((visibility("default"))) long bptt_peak(long steps, float x, float y, float *out) {{
  V a[{_CHAINS}], f = v_set(x), s = v_set(y);
  for (int k = 0; k < {_CHAINS}; k++) a[k] = v_set(y + k);
  for (long t = 0; t < steps; t++) {{
{"".join(f"    a[{k}] = a[{k}] * f + s;{chr(10)}" for k in range(_CHAINS))}\
  }}
  V sum = a[0];
  for (int k = 1; k < {_CHAINS}; k++) sum += a[k];
  v_store(out, sum);
  return 2L * {_CHAINS} * LANES * steps;
}}
"""
# The same on a matrix unit, where tiles.h says that there is one: six products of parts are one
# of float32. All operands are x and y, and `out` is a row of the sums.
_TILES = """
#include "tiles.h"
__attribute__((visibility("default"))) long bptt_peak(long steps, float x, float y, float *out) {
#if BPTT_TILES
  real row[TILE_DEPTH], panel[TILE_DEPTH * NR];
  half a[LEFT_BLOCK] __attribute__((aligned(64))), b[RIGHT_BLOCK] __attribute__((aligned(64)));
  real sums[4][TILE_ROWS * 16];
  if (!tiles_allowed()) return 0;
  for (int k = 0; k < TILE_DEPTH; k++) row[k] = x;
  for (int k = 0; k < TILE_DEPTH * NR; k++) panel[k] = y;
  for (int r = 0; r < TILE_ROWS; r++) split_row(row, TILE_DEPTH, a + r * TILE_DEPTH, v_set(0));
  split_panel(panel, b);
  shape_tiles(MOST_ROWS);
  T_LOAD(4, a, 64);
  T_LOAD(5, a, 64);
  T_LOAD(6, b, 64);
  T_LOAD(7, b, 64);
  T_ZERO(0);
  T_ZERO(1);
  T_ZERO(2);
  T_ZERO(3);
  const int two = 1;
  for (long t = 0; t < steps; t++) { DOTS DOTS DOTS }
  T_STORE(0, sums[0], 64);
  T_STORE(1, sums[1], 64);
  T_STORE(2, sums[2], 64);
  T_STORE(3, sums[3], 64);
  T_RELEASE();
  for (int k = 0; k < 16; k++) out[k] = sums[0][k] + sums[1][k] + sums[2][k] + sums[3][k];
  return 3L * 4 * 2 * TILE_ROWS * 16 * TILE_DEPTH / 6 * steps;
#else
  return (void)steps, (void)x, (void)y, (void)out, 0;
#endif
}
"""
_MOST_LANES = 16
_MATRIX = 768  # its three matrices fit a second-level cache, and a product takes milliseconds


class Peak(NamedTuple):
    """`measure` gives FLOP/s. `kind`: FMA, chains of multiply-adds on vectors; TILES, the matrix
    unit, where there is one; or MATMUL, torch's own."""

    kind: str
    measure: Callable[[], float]


@cache
def probe(threads: int) -> Peak:
    """The peak of so many threads. Without a compiler it is a product of matrices in torch."""
    try:
        kind, one = _kernel()
    except BpttError:
        return Peak(MATMUL, _matmul())
    steps = enough(one, time.perf_counter)
    pool = ThreadPoolExecutor(max(1, threads - 1))

    def measure() -> float:
        # This thread takes part: one that has to be woken first may wait for as long as it works.
        start = time.perf_counter()
        others = [pool.submit(one, steps) for _ in range(threads - 1)]
        done = one(steps) + sum(other.result() for other in others)
        return done / (time.perf_counter() - start)

    return Peak(kind, measure)


def _kernel() -> tuple[str, Callable[[int], int]]:
    """What is measured, and so many steps of it: how many operations they are."""
    from bptt.backends.cpu.build import asked_flags, load

    def kernel(source: str) -> Callable[[int], int]:
        found = load(source, flags=asked_flags()).bptt_peak
        found.restype = ctypes.c_long
        found.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float, ctypes.c_void_p]
        return lambda steps: found(steps, 0.5, 1.0, (ctypes.c_float * _MOST_LANES)())

    tiles = kernel(_TILES)
    return (TILES, tiles) if tiles(1) else (FMA, kernel(_SOURCE))


def enough(one: Callable[[int], int], clock: Clock) -> int:
    """So many steps that they last as long as a measurement of a side: then whatever interrupts
    this process takes the same part of both."""
    steps = _FEWEST_STEPS
    while True:
        start = clock()
        one(steps)
        if clock() - start >= AT_LEAST:
            return steps
        steps *= 2


def _matmul() -> Callable[[], float]:
    import torch

    a = torch.ones(_MATRIX, _MATRIX)
    out = torch.empty_like(a)

    def measure() -> float:
        start = time.perf_counter()
        torch.mm(a, a, out=out)
        return 2 * _MATRIX**3 / (time.perf_counter() - start)

    measure()
    return measure
