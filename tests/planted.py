"""Faults in the CPU engine, for tests of tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bptt.backends.cpu import build, compilers
from bptt.backends.cpu.run import code_of


def planted(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """The driver with a fault in one of its files."""
    included = folder / "included"
    shutil.copytree(compilers.INCLUDED, included)
    text = (included / name).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (included / name).write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(compilers, "INCLUDED", included)
    monkeypatch.setenv("BPTT_CACHE", str(folder / "cache"))
    monkeypatch.setattr(build, "_loaded", {})
    code_of.cache_clear()
