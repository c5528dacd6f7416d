"""Where and with what the numbers were taken."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent.parent
_CPUINFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")
_VECTORS = re.compile(r"(sse|ssse|avx|fma|f16c|amx|neon|asimd|sve)\w*")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Watch:
    """How much of the machine other programs took since it was made, where Linux says."""

    def __init__(self) -> None:
        self._before = _ticks()

    def foreign(self) -> float | None:
        """A part of all cores' time, from 0 to 1; None where nothing is known."""
        now = _ticks()
        if now is None or self._before is None:
            return None
        busy, total, own = (a - b for a, b in zip(now, self._before, strict=True))
        return min(1.0, max(0.0, (busy - own) / total)) if total > 0 else None


def _ticks() -> tuple[float, float, float] | None:
    """Seconds that all cores were busy, that passed on them, and that this process used."""
    try:
        first = _STAT.read_text(encoding="ascii").partition("\n")[0].split()
    except OSError:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, idle, wait, irq, soft, steal = (int(n) / tick for n in first[1:9])
    busy = user + nice + system + irq + soft + steal
    own = os.times()
    return busy, busy + idle + wait, own.user + own.system


def describe() -> dict[str, Any]:
    """Processor, torch, compiler, and which bptt: everything as text or a number."""
    import torch

    model, flags = _processor()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": cores(),
        "vectors": flags,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_vectors": torch.backends.cpu.get_cpu_capability(),
        "compiler": _compiler(),
        "bptt": _version(),
    }


def _processor() -> tuple[str, list[str]]:
    """Its name, and what it knows of vectors, as the system says."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    said: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        said.setdefault(key.strip(), value.strip())  # the first processor's
    flags = (said.get("flags") or said.get("Features") or "").split()
    model = said.get("model name") or platform.processor() or platform.machine()
    return model, sorted(flag for flag in flags if _VECTORS.fullmatch(flag))


def _compiler() -> str | None:
    """The first line that the C compiler says of itself."""
    from bptt.backends.cpu.compilers import candidates, usable

    found = next((compiler for compiler in candidates() if usable(compiler)), None)
    return found.version.partition("\n")[0] if found else None


def _version() -> str:
    """In a checkout the commit, with a `+` where files have changed; else the package's version."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is not None:  # the checkout is ours
        commit = _git("rev-parse", "HEAD")
        if commit:
            return commit + ("+" if _git("status", "--porcelain") else "")
    try:
        return version("bptt")
    except PackageNotFoundError:
        return "unknown"


def _git(*arguments: str) -> str | None:
    """What git says in the package's folder, or None."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(_PACKAGE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
