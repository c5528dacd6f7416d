"""C text to a loaded library: compiled once, kept by all that it was compiled from."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bptt.backends.cpu import compilers, objects
from bptt.backends.cpu.compilers import Compiler
from bptt.errors import BpttError, UserError

_FORMAT = "1"  # of the cache: another number, and nothing old is found
# What tells processors apart in /proc/cpuinfo: names of x86, then of ARM.
_CPU = frozenset(
    (
        *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
        *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"),
    )
)

# As wide as `lanes.h` makes a vector here, and whether `tiles.h` finds a matrix unit.
_WIDTH = """\
#include "tiles.h"
#define EXPORT __attribute__((visibility("default")))
EXPORT int bptt_vector_bytes(void) { return (int)sizeof(V); }
EXPORT int bptt_matrix_unit(void) { return tiles_allowed(); }
"""

_loaded: dict[tuple[str, tuple[str, ...], str], ctypes.CDLL] = {}


def load(source: str, *, flags: Sequence[str] = (), target: str = "native") -> ctypes.CDLL:
    """The library that the C text `source` is, compiled where it was not before.

    It may `#include` the files of this folder. `flags` go behind our own; `target` is one of
    `compilers.TARGETS`. What is to be found must have default visibility. A process loads a text
    once. Raises UserError where there is no compiler, BpttError with its words where it fails.
    """
    asked = (source, tuple(flags), target)
    if asked not in _loaded:  # two threads may both build; they then load one and the same
        try:
            _loaded[asked] = _load(*asked)
        except OSError as error:
            help = "TMPDIR and BPTT_CACHE name the folders that are used"
            raise BpttError(f"cannot compile, keep or load C: {error}", help=help) from None
    return _loaded[asked]


def asked_flags() -> tuple[str, ...]:
    """What the environment variable BPTT_CFLAGS adds when cells are compiled."""
    return tuple(os.environ.get("BPTT_CFLAGS", "").split())


def _load(source: str, flags: tuple[str, ...], target: str) -> ctypes.CDLL:
    if sys.platform == "win32":
        help = 'use WSL, or choose backend="reference"'
        raise UserError("the CPU kernels have never been tried on Windows", help=help)
    tried = compilers.candidates()
    for compiler in tried:
        key = _key(compiler.identity, compiler.arguments(target, flags), source)
        for path in objects.found(key):
            try:
                return ctypes.CDLL(path)
            except OSError:
                continue  # it is built again, once
        if compilers.usable(compiler):
            return _built(compiler, key, source, flags, target)
    raise compilers.none_of(tried)


@dataclass(frozen=True)
class Engine:
    """What compiles here, for which machine, and where it is kept. `error`: why nothing does."""

    error: BpttError | None
    compiler: Compiler | None
    refused: tuple[Compiler, ...]
    processor: str
    vector_bytes: int | None
    matrix_unit: bool
    folder: str | None
    objects: int
    bytes: int
    temporary: str | None


def describe() -> Engine:
    """Try it: compile a line of C or find it in the cache, load it, and ask it."""
    processor = _processor_name()
    try:
        library = load(_WIDTH, flags=asked_flags())
        vector, unit = library.bptt_vector_bytes(), bool(library.bptt_matrix_unit())
        error = None
    except BpttError as found:
        vector, unit, error = None, False, found
    if sys.platform == "win32":
        return Engine(error, None, (), processor, None, False, None, 0, 0, None)
    refused: list[Compiler] = []
    try:
        kept = (objects.folder(), *objects.held(), objects.why_temporary())
        for compiler in compilers.candidates():
            if compiler.refusal is None:
                return Engine(error, compiler, tuple(refused), processor, vector, unit, *kept)
            refused.append(compiler)
    except (OSError, UserError):  # `load` met it too
        kept = (None, 0, 0, None)
    return Engine(error, None, tuple(refused), processor, None, False, *kept)


def findings(engine: Engine, threads: str) -> list[tuple[str, str]]:
    """What `describe` found, and what `threads.explain` says, in words: each with its name."""
    if engine.error is None:
        backend = "cpu: cells are compiled for this processor"
    else:
        backend = f"none: {engine.error.what.splitlines()[0]}"
    rows = [("backend", backend)]
    if engine.compiler:
        rows.append(("compiler", str(engine.compiler)))
        rows.append(("", engine.compiler.version.splitlines()[0]))
    rows += [("refused", f"{compiler}: {compiler.refusal}") for compiler in engine.refused]
    rows.append(("target", f"native: {engine.processor}"))
    if engine.vector_bytes:
        numbers = f"{engine.vector_bytes // 4} float32 or {engine.vector_bytes // 8} float64"
        rows.append(("vectors", f"{engine.vector_bytes} bytes, {numbers} numbers"))
    if engine.matrix_unit:
        rows.append(("matrices", "AMX: float32 from three bfloat16 parts of each number"))
    rows.append(("threads", threads))
    if engine.folder:
        size = f"{engine.objects} compiled objects, {engine.bytes / 1024:,.0f} KB"
        rows.append(("cache", f"{engine.folder}: {size}"))
    if engine.temporary:
        rows.append(("", f"a folder for this process only, because {engine.temporary}"))
    return rows


def _built(
    compiler: Compiler, key: str, source: str, flags: tuple[str, ...], target: str
) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="bptt-") as work:
        built = compilers.build(compiler, source, target, flags, work)
        path = objects.keep(key, built)
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            why = str(error).rpartition(": ")[2]
            objects.give_up(f"cannot load from {os.path.dirname(path)}: {why}")
            return ctypes.CDLL(objects.keep(key, built))


def _key(*parts: str | tuple[str, ...]) -> str:
    """A name for all that an object depends on."""
    everything = (_FORMAT, *parts, *_included(), _processor())
    return hashlib.sha256(repr(everything).encode()).hexdigest()


def _included() -> list[str]:
    """The names and texts of what a source may include."""
    files = sorted(path for end in ("*.h", "*.c") for path in compilers.INCLUDED.glob(end))
    return [text for path in files for text in (path.name, path.read_text(encoding="utf-8"))]


@cache
def _processor() -> tuple[str, ...]:
    """What "native" means here: the processor's name and all that it says it can do."""
    system = (platform.machine(), platform.processor(), sys.platform)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return (*system, _mac_processor())
    return (*system, *sorted({line for line in lines if line.split("\t")[0].strip() in _CPU}))


def _processor_name() -> str:
    """As its maker calls it; where no file says, the kind of machine."""
    named = [entry for entry in _processor() if entry.startswith("model name")]
    name = named[0].partition(":")[2].strip() if named else _mac_processor()
    return f"{name}, {platform.machine()}" if name else platform.machine()


def _mac_processor() -> str:
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.check_output(command, text=True, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):
        return ""
