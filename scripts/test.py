"""Everything that must hold, in one command: style, types, tests. Arguments go to pytest.

The README names this script and CI runs it, so neither can be softer than the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# pyright reads its own virtual environment only when told which one.
CHECKS = {
    "style": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["pyright", "--pythonpath", sys.executable],
}
# One thread a worker: two workers of two threads each wait for one another on two cores.
TESTS = ["pytest", "--numprocesses", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}


def succeeds(name: str, command: list[str]) -> bool:
    """Whether a command ends well; what it prints is shown as it comes."""
    print(f"== {name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    status = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=ENVIRONMENT | os.environ, check=False
    ).returncode
    took = time.perf_counter() - start
    print(f"== {name}: {'passed' if status == 0 else 'FAILED'} ({took:.0f} s)\n", flush=True)
    return status == 0


def main() -> int:
    """0 if all is well, else 1. A failed check does not hide what the next would say."""
    results = {name: succeeds(name, command) for name, command in CHECKS.items()}
    results["tests"] = succeeds("tests", [*TESTS, *sys.argv[1:]])
    failed = [name for name, well in results.items() if not well]
    print(f"failed: {', '.join(failed)}" if failed else "all is well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
