"""A test as a process of its own, with a time limit: what goes wrong with threads and forks hangs.

The process can import this, too: `everything` is what a layer gives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

LIMIT = 120  # seconds, most of them for loading torch and for compilers on a busy machine


def lines(tmp_path: Path, code: str, **environment: str) -> list[str]:
    """The lines that a process prints; it must end well, and in time.

    The smallest call in it is shared among threads, in memory that is NaN at first.
    """
    script = tmp_path / "script.py"
    script.write_text(code)
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    usual = {name: text for name, text in os.environ.items() if not name.startswith("OMP_")}
    known = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "BPTT_CFLAGS": "-DBPTT_TEST"}
    # Newer Pythons warn of what we test here.
    of_forks = "ignore:This process (pid:DeprecationWarning"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-W", of_forks, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**usual, **known, **environment},
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        said, errors = process.communicate()
        raise AssertionError(f"it hangs, and had said:\n{said}\n{errors}") from None
    assert process.returncode == 0, errors
    return said.splitlines()


def everything(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, last states, and the gradient of each parameter.

    By torch's operations that use one thread for so little: its own hang in a forked child, too.
    """
    y, last = layer(x)
    values = [y, *last]
    loss = torch.stack([(v * v).sum() for v in values]).sum()
    return [v.detach() for v in (*values, *torch.autograd.grad(loss, list(layer.parameters())))]
