"""Plain C99, compiled as strictly as a compiler can be told to, and called."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from bptt.backends.cpu.compilers import candidates, usable

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


def library(text: str, folder: Path) -> Any:
    """The text as a shared library, through one call of a compiler."""
    compiler = next(c for c in candidates() if usable(c))
    source, made = folder / "plain.c", folder / "plain.so"
    source.write_text(text, encoding="ascii")
    ends = ("-shared", "-fPIC", "-o", str(made), str(source), "-lm")
    done = subprocess.run(
        [*compiler.command, *STRICT, *ends], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]
    return ctypes.CDLL(str(made))


def pointer(a: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    """Where the numbers of an array lie; the array must live as long as it is used."""
    assert a.flags.c_contiguous
    return ctypes.c_void_p(a.ctypes.data)
