"""The threads that torch already has: its OpenMP library's fork and join, as plain pointers.

Our C code is built without OpenMP and is handed these functions, so there is one pool of threads
in the process, whatever compiler was used, and `torch.set_num_threads` holds for us too. GNU's
library has the function under this name; LLVM's and Intel's have it for code that GCC compiled.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LIBRARY = re.compile(r"(^|/)lib(gomp|omp|iomp5)\b[^/]*$")
_forked: list[int] = []  # not empty in a forked child, and in its children


@dataclass(frozen=True)
class ForkJoin:
    """Addresses of C functions, all of the one library at `library`.

    `parallel`: `void GOMP_parallel(void (*fn)(void *), void *data, unsigned num_threads,
    unsigned flags)` runs `fn(data)` on so many threads and returns when all have ended.
    `thread_num`, `num_threads`: `int omp_get_thread_num(void)` and `int omp_get_num_threads(void)`
    say within `fn` which thread this is and of how many; there may be fewer than asked for.
    """

    parallel: int
    thread_num: int
    num_threads: int
    library: str


def fork_join() -> ForkJoin | None:
    """Those functions of the OpenMP library that torch runs on; None where there is no such."""
    return _found() if _torch_is_loaded() and _has_openmp() else None


def count() -> int:
    """How many threads to ask for: torch's number, or 1 where there is no pool to run them on.

    Where it is 1, call the work itself and not `parallel`.
    A forked child runs one: its parent's threads did not come along, and to wait for them is to
    wait forever.
    """
    if _forked or fork_join() is None:
        return 1
    import torch

    return torch.get_num_threads()


def forked() -> bool:
    """Whether this process, or one above it, was forked since the import of this module."""
    return bool(_forked)


def team() -> ctypes.Array[ctypes.c_void_p] | None:
    """The addresses of `fork_join` as C takes them: `Team` in loop.c."""
    return _addresses(found) if (found := fork_join()) is not None else None


@cache
def _addresses(found: ForkJoin) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * 3)(found.parallel, found.thread_num, found.num_threads)


def explain() -> str:
    """How many threads, whose, and why, in a line."""
    if _forked:
        return "1, because this process was forked, and threads do not come along"
    if not _torch_is_loaded():
        return "1, because torch, whose threads these would be, is not loaded"
    if not _has_openmp():
        return "1, because this torch was built without OpenMP"
    found = fork_join()
    if found is None:
        return "1, because torch's OpenMP library was not found in this process"
    return f"{count()}, of torch's OpenMP: {found.library}"


def _torch_is_loaded() -> bool:
    return sys.modules.get("torch") is not None  # None stands for one that must not be imported


@cache
def _has_openmp() -> bool:
    import torch

    return torch.backends.openmp.is_available()


@cache
def _found() -> ForkJoin | None:
    for library in _libraries():
        parallel = _address(library, "GOMP_parallel")
        thread_num = _address(library, "omp_get_thread_num")
        num_threads = _address(library, "omp_get_num_threads")
        paths = {_path_of(address) for address in (parallel, thread_num, num_threads)}
        if parallel and len(paths) == 1:  # one that is missing lies in no library
            return ForkJoin(parallel, thread_num, num_threads, paths.pop())
    return None


def _libraries() -> Iterator[ctypes.CDLL]:
    """Where to look; nothing is loaded that is not there yet.

    First where the linker looked for torch itself: the process's global names, to which torch
    adds its own libraries. Then the OpenMP libraries that are loaded, or lie beside torch.
    """
    yield ctypes.CDLL(None)
    for path in [*_beside_torch(), *_mapped()]:
        try:
            yield ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue


def _mapped() -> list[str]:
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in lines if "/" in line)
    return [path for path in paths if _LIBRARY.search(path)]


def _beside_torch() -> list[str]:
    import torch

    folder = Path(torch.__file__).parent / "lib"
    return [str(path) for path in sorted(folder.glob("*")) if _LIBRARY.search(path.name)]


def _address(library: ctypes.CDLL, name: str) -> int:
    """Of a function; 0 where there is none."""
    try:
        function = library[name]
    except AttributeError:
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class _Symbol(ctypes.Structure):
    """What `dladdr` says of an address: `Dl_info` in <dlfcn.h>."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _path_of(address: int) -> str:
    """The library that an address lies in; empty where it lies in none."""
    symbol = _Symbol()
    known = ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(symbol))
    return os.fsdecode(symbol.file) if known and symbol.file else ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(1))
