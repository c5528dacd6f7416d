"""What the tests of the vector maths share: builds of it, true values, and the page of its errors.

`python tests/vector_maths.py` writes the table of docs/accuracy.md: every 101st float, and the
places that the table names already, so that what a longer search found stays. A step as an argument
(1 is every float) makes it another search.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tolerances import ULPS

ROOT = Path(__file__).parent.parent
HEADERS = ROOT / "src" / "bptt" / "backends" / "cpu"
SOURCE = ROOT / "tests" / "backends" / "cpu" / "maths.c"
PAGE = ROOT / "docs" / "accuracy.md"
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

FLAGS = "-O2 -std=gnu11 -fno-math-errno -fno-trapping-math -ffp-contract=fast -fPIC -shared -Wall "
FLAGS += "-Wextra -Werror -Wno-psabi"
# What a machine has, by the compiler's word for it: widest first.
LEVELS = {
    "AVX-512": ("__AVX512DQ__", "-march=x86-64-v4"),
    "AVX2": ("__FMA__", "-march=x86-64-v3"),
    "SSE": ("__SSE4_2__", "-march=x86-64-v2 -DBPTT_BYTES=16"),
}
DTYPES = {"float32": np.float32, "float64": np.float64}
MEASURED = ["exp", "log", "tanh", "sigmoid", "softplus", "logsigmoid"]
EVERY = 1009  # in the tests, float32: one in so many of all bit patterns
EVERY_FOR_THE_PAGE = 101
AT_ONCE = 1 << 22
Array = np.ndarray
inf, nan = np.inf, np.nan


# --- building ------------------------------------------------------------------------------------


@functools.cache
def levels() -> list[str]:
    """The names of the builds that this machine can run."""
    assert CC is not None
    asked = [CC, "-march=native", "-dM", "-E", "-x", "c", "-"]
    done = subprocess.run(asked, input="", capture_output=True, text=True, check=False)
    return [name for name, (word, _) in LEVELS.items() if word in done.stdout] or ["other"]


def compiled(dtype: str, flags: str, headers: Path = HEADERS) -> ctypes.CDLL:
    """tests/backends/cpu/maths.c for numbers of this type."""
    assert CC is not None
    real = {"float32": "float", "float64": "double"}[dtype]
    with TemporaryDirectory() as folder:
        out = f"{folder}/maths.so"
        line = [CC, *FLAGS.split(), *flags.split(), f"-DBPTT_REAL={real}", f"-I{headers}"]
        line += [str(SOURCE), "-o", out, "-lm"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        library = ctypes.CDLL(out)
    for name in ("sum_of", "top_of"):
        getattr(library, name).restype = np.ctypeslib.as_ctypes_type(DTYPES[dtype])
    return library


@functools.cache
def library(dtype: str, level: str) -> ctypes.CDLL:
    return compiled(dtype, LEVELS[level][1] if level in LEVELS else "")


def pointer(a: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


def values(lib: ctypes.CDLL, name: str, a: Array, b: Array | None = None) -> Array:
    """The function of all elements."""
    a = np.ascontiguousarray(a)
    y = np.full_like(a, nan)
    b = a if b is None else np.ascontiguousarray(b)
    getattr(lib, name)(pointer(a), pointer(b), pointer(y), ctypes.c_int64(a.size))
    return y


# --- the truth -----------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


TRUTH: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "logsigmoid": lambda x: -softplus(-x),
}
# More digits than the function under test gives.
WIDER = {"float32": np.float64, "float64": np.longdouble}
CAN_JUDGE = {"float32": True, "float64": np.finfo(np.longdouble).nmant > 60}


def wider(x: Array) -> Array:
    with np.errstate(all="ignore"):  # some bit patterns are NaNs that signal
        return x.astype(WIDER[x.dtype.name])


def truth(name: str, x: Array) -> Array:
    with np.errstate(all="ignore"):
        return TRUTH[name](wider(x))


def ulps(y: Array, true: Array) -> Array:
    """The errors, in units in the last place of the truth; 0 where that is no normal number."""
    info = np.finfo(y.dtype)
    size = np.abs(true)
    normal = (size >= info.tiny) & (size <= info.max)
    safe = np.where(normal, true, 1)
    with np.errstate(all="ignore"):
        error = np.abs(wider(y) - safe)
        unit = np.ldexp(np.ones_like(safe), np.frexp(safe)[1] - 1 - info.nmant)
        error = np.where(np.isnan(error), inf, error / unit)
    return np.where(normal, error, 0).astype(np.float64)


def wrong_elsewhere(y: Array, true: Array) -> Array:
    """Where the truth is no normal number: whether the result is another."""
    info = np.finfo(y.dtype)
    size, wide = np.abs(true), wider(y)
    with np.errstate(all="ignore"):
        small = (wide == 0) | (np.abs(wide - true) <= ULPS * info.smallest_subnormal)
        small &= wide * true >= 0
        large = wide == np.sign(true) * inf
        sure = size > info.max * (1 + ULPS * true.dtype.type(info.eps))  # between them: either
    good = np.where(size < info.tiny, small, np.where(sure, large, True))
    return ~np.where(np.isnan(true), np.isnan(y), good & ~np.isnan(y))


def floats(step: int, start: int = 0) -> Iterator[Array]:
    """Every step-th of all float32, by bit pattern."""
    for first in range(start, 1 << 32, step * AT_ONCE):
        yield np.arange(first, min(first + step * AT_ONCE, 1 << 32), step, np.uint32).view("f4")


def doubles(seed: int = 0) -> Iterator[Array]:
    """Random float64: of all bit patterns, and of the ranges in which functions do something."""
    rng = np.random.default_rng(seed)
    yield rng.integers(0, 1 << 64, 200_000, np.uint64, endpoint=False).view("f8")
    for far in (0.1, 1.0, 3.0, 40.0, 800.0):
        yield rng.uniform(-far, far, 200_000)
    signs = rng.choice([-1.0, 1.0], 200_000)
    yield signs * np.exp(rng.uniform(-45, 5, 200_000))
    yield 1 + signs * np.exp(rng.uniform(-36, 0, 200_000))


@functools.cache
def sampled(name: str, dtype: str) -> list[tuple[Array, Array]]:
    """Arguments and true values for the tests."""
    some = floats(EVERY) if dtype == "float32" else doubles()
    return [(x, truth(name, x)) for x in some]


def worst(lib: ctypes.CDLL, name: str, x: Array, true: Array) -> tuple[float, float]:
    """The largest error and its place."""
    error = ulps(values(lib, f"of_{name}", x), true)
    at = int(np.argmax(error))
    return float(error[at]), float(x[at])


def builds() -> list[tuple[str, str]]:
    return [(dtype, level) for dtype in DTYPES for level in (levels() if CC else ["none"])]


# --- the page ------------------------------------------------------------------------------------

Claims = dict[tuple[str, str, str], tuple[float, float]]  # by function, dtype, level
CLAIM = re.compile(r"([\d.]+) at (\S+)")


def claims() -> Claims:
    """What the page says: (error, place)."""
    found: Claims = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        name, dtype, *cells = [c.strip(" `") for c in line.strip("|").split("|")] + [""]
        if name in MEASURED and dtype in DTYPES:
            for level, cell in zip(LEVELS, cells, strict=False):
                match = CLAIM.fullmatch(cell)
                assert match, f"{PAGE.name}: {cell!r} is not `error at place`"
                found[name, dtype, level] = float(match[1]), float(match[2])
    return found


def table(measured: Claims) -> str:
    """The table of the page."""
    rows = [["function", "numbers", *LEVELS], ["---"] * (2 + len(LEVELS))]
    for dtype in DTYPES:
        for name in MEASURED:
            cells = [measured[name, dtype, level] for level in LEVELS]
            kind = DTYPES[dtype]
            shown = [f"{error:.2f} at {kind(place)!s}" for error, place in cells]
            rows.append([f"`{name}`", dtype, *shown])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def at_place(name: str, dtype: str, level: str, place: float) -> tuple[float, float]:
    x = np.array([place], DTYPES[dtype])
    return worst(library(dtype, level), name, x, truth(name, x))


def searched(step: int) -> Claims:
    """The worst of every step-th float32, of random float64, and of the places of the page."""
    found = {
        (name, dtype, level): at_place(name, dtype, level, place)
        for (name, dtype, level), (_, place) in claims().items()
    }
    for name in MEASURED:
        for dtype in DTYPES:
            some = floats(step) if dtype == "float32" else doubles()
            for x in some:
                true = truth(name, x)
                for level in LEVELS:
                    key = name, dtype, level
                    new = worst(library(dtype, level), name, x, true)
                    found[key] = max(found.get(key, new), new)
    return found


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    step = int(sys.argv[1]) if len(sys.argv) > 1 else EVERY_FOR_THE_PAGE
    new = table(searched(step))
    first = text.index("| function | numbers |")
    last = text.rindex("|\n") + 2
    PAGE.write_text(text[:first] + new + text[last:], encoding="utf-8")
