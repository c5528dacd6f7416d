"""Where numbers were taken: what a report says of the machine and of us."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
import torch

from bptt.bench import machine

CPUINFO = """\
processor\t: 0
model name\t: A Processor @ 2 GHz
flags\t\t: fpu sse sse4_2 avx avx2 fma erms avx512f amx_tile

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


def test_a_description_says_where_and_with_what() -> None:
    found = machine.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["cores"] == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    assert datetime.fromisoformat(found["date"]).utcoffset() is not None
    assert found["cpu"]


def test_the_processor_is_the_first_one_and_its_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    vectors = ["amx_tile", "avx", "avx2", "avx512f", "fma", "sse", "sse4_2"]
    assert machine._processor() == ("A Processor @ 2 GHz", vectors)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    model, flags = machine._processor()
    assert model
    assert flags == []


def test_foreign_is_what_others_took_of_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, tick = tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(machine, "_STAT", stat)

    def at(busy: int, idle: int, own: float) -> None:
        stat.write_text(f"cpu  {busy * tick} 0 0 {idle * tick} 0 0 0 0 0 0\ncpu0 1 2 3\n")
        monkeypatch.setattr(os, "times", lambda: os.times_result((own, 0.0, 0.0, 0.0, 0.0)))

    at(100, 50, 7.0)
    watch = machine.Watch()
    at(106, 52, 9.0)  # 8 seconds of cores, 6 of them busy, 2 of those with this process
    assert watch.foreign() == 0.5
    at(101, 57, 9.0)
    assert watch.foreign() == 0.0
    stat.unlink()
    assert watch.foreign() is None


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_version_is_the_commit_of_our_checkout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    monkeypatch.setattr(machine, "_PACKAGE", tmp_path)
    installed = machine._version()
    assert re.fullmatch(r"\d+\.\d+.*|unknown", installed)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "somebody else's")
    (tmp_path / "__init__.py").write_text("")
    assert machine._version() == installed, "a checkout of something else around the package"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert machine._version() == commit
    (tmp_path / "__init__.py").write_text("changed")
    assert machine._version() == commit + "+"
