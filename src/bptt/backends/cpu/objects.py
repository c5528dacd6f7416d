"""The cache folder: compiled objects by what they were compiled from, and whom to trust.

What lies there is loaded into the process, so the folder and its files must be this user's, and
nobody else may write there or to what leads there. Where that is not so, or nothing can be
written, objects go to a private folder that is removed when the process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from multiprocessing import util
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_STALE = 3600.0  # seconds after which a half-written file belongs to a process that died
_why_not: dict[str, str] = {}  # folders that could not be written, or not loaded from


def wanted() -> str | None:
    """The folder that the user or the system names for this; None where there is no home."""
    named = os.environ.get("BPTT_CACHE")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):  # as its specification says
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        caches = os.path.join(home, ".cache")
    return os.path.join(caches, "bptt")


def why_temporary() -> str | None:
    """Why new objects are not kept for other processes, or None."""
    path = wanted()
    if path is None:
        return "there is no home folder"
    return _why_not.get(path) or _distrust(path)


def folder() -> str:
    """Where new objects go."""
    path = wanted()
    return path if path is not None and why_temporary() is None else _temporary(os.getpid())


def give_up(why: str) -> None:
    """From now on this process keeps its objects to itself."""
    _why_not[wanted() or ""] = why


def found(key: str) -> Iterator[str]:
    """The intact objects under `key` that may be loaded."""
    path = wanted()
    trusted = [path] if path is not None and _distrust(path) is None else []
    for place in dict.fromkeys([*trusted, folder()]):
        for name in _names(place):
            if name.startswith(f"{key}-") and _intact(os.path.join(place, name)):
                yield os.path.join(place, name)


def keep(key: str, built: str) -> str:
    """Put a new object under `key`; its path. Where the folder refuses, into a private one."""
    try:
        return _put(key, built, folder())
    except OSError as error:
        if why_temporary() is not None:
            raise
        give_up(f"cannot write to {wanted()}: {error.strerror}")
        return _put(key, built, folder())


def held() -> tuple[int, int]:
    """How many objects the folder holds, and their bytes."""
    place = folder()
    sizes: list[int] = []
    for name in _names(place):
        with contextlib.suppress(OSError):
            sizes.append(os.lstat(os.path.join(place, name)).st_size)
    return len(sizes), sum(sizes)


def _names(place: str) -> list[str]:
    try:
        return sorted(n for n in os.listdir(place) if n.endswith(".so") and n[0] != ".")
    except OSError:
        return []


def _put(key: str, built: str, place: str) -> str:
    """Atomic: a name is there only with all of its bytes, whose sum stands in the name."""
    data = Path(built).read_bytes()
    path = os.path.join(place, f"{key}-{_sum(data)}.so")
    _sweep(place)
    handle, partial = tempfile.mkstemp(dir=place, prefix=".", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    return path


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _intact(path: str) -> bool:
    """This user's, and all there: a shortened object could end the process when it is loaded."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            ours = about.st_uid == os.geteuid() and not about.st_mode & _OTHERS_WRITE
            whole = stat.S_ISREG(about.st_mode) and path.endswith(f"-{_sum(file.read())}.so")
    except OSError:
        return False
    return ours and whole


def _sweep(place: str) -> None:
    """Remove what processes left half-written that were killed."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            stale = entry.name.endswith(".partial")
            if stale and entry.stat(follow_symlinks=False).st_mtime < time.time() - _STALE:
                os.unlink(entry.path)


def _distrust(path: str) -> str | None:
    """Why not to load from `path`, or None. Creates it, and what leads there, where missing."""
    parent = os.path.realpath(os.path.dirname(path))
    above = [parent, *map(str, Path(parent).parents)]
    for place in above:
        if os.path.lexists(place) and (why := _open_to_others(place)):
            return why
    try:
        for place in [*reversed(above), path]:
            if not os.path.lexists(place):
                with contextlib.suppress(FileExistsError):  # another process was quicker
                    os.mkdir(place, 0o700)
        about = os.lstat(path)
    except OSError as error:
        return f"cannot make {path}: {error.strerror}"
    if stat.S_ISLNK(about.st_mode):
        return f"{path} is a symbolic link; BPTT_CACHE may name the folder itself"
    if not stat.S_ISDIR(about.st_mode):
        return f"{path} is no folder"
    if about.st_uid != os.geteuid():
        return f"{path} belongs to another user"
    if about.st_mode & _OTHERS_WRITE:
        return f"others may write to {path}: `chmod go-w` it"
    return None


def _open_to_others(place: str) -> str | None:
    """Why somebody else could put another folder in the place of one in `place`, or None."""
    try:
        about = os.stat(place)
    except OSError as error:
        return f"cannot look at {place}: {error.strerror}"
    if not stat.S_ISDIR(about.st_mode):
        return f"{place} is no folder"
    if about.st_uid not in {0, os.geteuid()}:
        return f"{place} belongs to another user"
    if about.st_mode & _OTHERS_WRITE and not about.st_mode & stat.S_ISVTX:
        return f"others may write to {place}: `chmod go-w` it"
    return None


@cache
def _temporary(process: int) -> str:
    """This process's own folder: made 0700, removed at its end and by no child of it."""
    del process  # a forked child has its own
    path = tempfile.mkdtemp(prefix="bptt-")
    # Unlike atexit this also runs at the end of a forked worker, and never in another process.
    util.Finalize(None, shutil.rmtree, args=(path, True), exitpriority=0)
    return path
