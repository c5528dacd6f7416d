"""`bptt doctor`: what runs cells here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from bptt.backends.cpu import build, compilers, objects, threads
from bptt.cli.doctor import doctor

with_compiler = pytest.mark.skipif(not compilers.candidates(), reason="there is no C compiler here")
HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    for name in ("BPTT_CC", "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setattr(objects, "_why_not", {})
    return tmp_path / "cache"


@pytest.fixture
def without_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ziglang" else found(name)
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "nobodys-cc")


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(doctor, arguments, catch_exceptions=False)


def rows(result: Result) -> dict[str, str]:
    """The lines that begin with a name, by it."""
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines() if line.strip()]
    return {name: rest[0] for name, *rest in lines if rest}


@with_compiler
def test_it_says_what_runs_and_how(place: Path) -> None:
    result = asked()
    assert result.exit_code == 0
    said, engine = rows(result), build.describe()
    assert said["backend"] == "cpu: cells are compiled for this processor"
    assert said["compiler"] == str(engine.compiler)
    assert engine.compiler is not None
    assert engine.compiler.version.splitlines()[0] in result.stdout
    assert said["target"] == f"native: {engine.processor}"
    assert said["vectors"].startswith(f"{engine.vector_bytes} bytes, ")
    assert said["threads"] == threads.explain()
    assert ("matrices" in said) == engine.matrix_unit
    assert said["cache"] == f"{place}: 1 compiled objects, {engine.bytes / 1024:,.0f} KB"
    if HAS_TORCH:
        assert said["torch"] == sys.modules["torch"].__version__
    assert "help:" not in result.stdout


@with_compiler
def test_json_has_the_same(place: Path) -> None:
    result = asked("--json")
    assert result.exit_code == 0
    said, engine = json.loads(result.stdout), build.describe()
    assert (said["backend"], said["error"], said["help"]) == ("cpu", None, None)
    assert said["compiler"] == str(engine.compiler)
    assert said["vector_bytes"] == engine.vector_bytes
    assert said["matrix_unit"] == engine.matrix_unit
    assert said["cache"] == {
        "folder": str(place),
        "objects": 1,
        "bytes": engine.bytes,
        "temporary": None,
    }
    assert said["threads"] == {"count": threads.count(), "why": threads.explain()}
    assert (said["torch"] is not None) == HAS_TORCH


@with_compiler
def test_it_says_why_nothing_is_kept(place: Path) -> None:
    place.touch()
    result = asked()
    assert result.exit_code == 0
    assert f"a folder for this process only, because {place} is no folder" in result.stdout
    assert json.loads(asked("--json").stdout)["cache"]["temporary"] == f"{place} is no folder"


def test_without_a_compiler_it_fails_and_helps(without_compiler: None) -> None:
    result = asked()
    assert result.exit_code == 1
    said = rows(result)
    assert said["backend"] == "none: there is no C compiler for the CPU kernels"
    assert said["refused"] == "nobodys-cc (from $CC): it is not there"
    assert "compiler" not in said
    assert "vectors" not in said
    assert result.stdout.splitlines()[-1].startswith("help: install one (")
    result = asked("--json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert shown["backend"] is None
    assert shown["compiler"] is None
    assert shown["error"].startswith("there is no C compiler for the CPU kernels")
    assert 'backend="reference"' in shown["help"]
    assert shown["refused"] == {"nobodys-cc (from $CC)": "it is not there"}


def test_on_windows_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "sys", SimpleNamespace(platform="win32"))
    result = asked()
    assert result.exit_code == 1
    assert rows(result)["backend"] == "none: the CPU kernels have never been tried on Windows"
    assert "cache" not in rows(result)


@with_compiler
def test_it_works_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from bptt.cli.main import main\n"
        "sys.argv = ['bptt', 'doctor']\nmain()"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=True)
    assert "torch      not installed; layers and training need it\n" in done.stdout
    assert "threads    1, because torch" in done.stdout
    assert done.stderr == ""
