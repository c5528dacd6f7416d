"""The engine built otherwise: with sanitizers, and for processors that are not at hand."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sweeps_of import sweep

from bptt.backends.cpu import compilers
from bptt.backends.cpu.build import load
from bptt.calculus.schedule import schedule
from bptt.printers.c import print_c

DRIVER = '#include "loop.c"\n'
FOLDER = Path(compilers.__file__).parent
REALS = ("float", "double")

SANITIZED = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
from backends_alike import ODD, held_to_the_oracle, odd_held_to_the_oracle
from bptt.backends.cpu import execute
rng = np.random.default_rng(0)
for cell in ("lstm", "gru_cho", "peephole", "layernorm_lstm", "on_lstm", "iosif", "lmu", "ea_lstm"):
    for order in ("forward", "backward"):
        held_to_the_oracle(execute, cell, order, "numpy", rng)
for name in ODD:
    odd_held_to_the_oracle(execute, name, "backward", "numpy", rng)
print("clean")
"""


def said(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """What a command says, whatever its status is."""
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


def sanitizer(name: str) -> str | None:
    """The path of GCC's runtime for it, if it is there."""
    found = said(["gcc", f"-print-file-name=lib{name}.so"])
    path = found.stdout.strip()
    return path if os.path.isabs(path) else None


def test_sanitizers_find_nothing() -> None:
    """AddressSanitizer and UBSan over the awkward shapes, where each array ends at its end."""
    runtime = sanitizer("asan") if sys.platform == "linux" else None
    if runtime is None:
        pytest.skip("GCC's AddressSanitizer is not installed")
    flags = "-O1 -DBPTT_TEST -fsanitize=address,undefined -fno-sanitize-recover=all"
    env = {
        **os.environ,
        "BPTT_CC": "gcc",
        "BPTT_CFLAGS": flags,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    script = SANITIZED.format(tests=str(Path(__file__).parents[2]))
    done = said([sys.executable, "-c", script], env=env)
    assert done.stdout.strip() == "clean", done.stderr[-3000:]


def test_a_sanitizer_finds_what_is_planted(tmp_path: Path) -> None:
    """The test above, tested: a load behind the end of an array."""
    runtime = sanitizer("asan") if sys.platform == "linux" else None
    if runtime is None:
        pytest.skip("GCC's AddressSanitizer is not installed")
    source = tmp_path / "over.c"
    source.write_text(
        '#include "lanes.h"\n#include <stdlib.h>\n'
        "int main(void) { real *p = malloc(3 * sizeof(real)); return v_load(p)[0] > 1; }\n"
    )
    program = str(tmp_path / "over")
    build = ["gcc", "-O1", "-march=native", "-fsanitize=address", "-I", str(FOLDER), str(source)]
    subprocess.run([*build, "-o", program], check=True)
    done = said([program])
    assert done.returncode and "heap-buffer-overflow" in done.stderr


@pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="targets of x86-64, on another processor"
)
@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_other_processors_of_the_kind(target: str, real: str, tmp_path: Path) -> None:
    """They are compiled for, with no warning."""
    flags = (f"-DBPTT_REAL={real}", "-Wall", "-Wextra", "-Werror", "-Wno-psabi")
    source = print_c(schedule(sweep("peephole", "backward"))).source
    for text, level in ((DRIVER, "-O3"), (source, "-O2")):
        compiled(text, [level, f"-march={target}", *flags], tmp_path)


@pytest.mark.parametrize("real", REALS)
def test_arm(real: str, tmp_path: Path) -> None:
    """64-bit ARM, by Clang: nothing is run."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no compiler for 64-bit ARM is installed: pip install ziglang")
    clang = (sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu")
    source = print_c(schedule(sweep("peephole", "backward"))).source
    flags = (f"-DBPTT_REAL={real}", "-Wall", "-Wextra", "-Werror")
    for text, level in ((DRIVER, "-O3"), (source, "-O2")):
        compiled(text, [level, *flags], tmp_path, clang)


def compiled(
    text: str, flags: list[str], folder: Path, compiler: tuple[str, ...] = ("gcc",)
) -> None:
    usual = ["-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    command = [*compiler, *usual, *flags, "-I", str(FOLDER), "-fPIC", "-c", "-x", "c", "-"]
    # a file: to /dev/null, one of the compilers leaves its object in the folder it is called from
    done = said([*command, "-o", str(folder / "object.o")], input=text)
    assert done.returncode == 0, done.stderr[:3000]


def test_a_library_that_was_not_compiled_for_this_is_not_taken() -> None:
    """Another number format is another library."""
    one, other = (load(DRIVER, flags=(f"-DBPTT_REAL={real}",)) for real in REALS)
    assert one._name != other._name
