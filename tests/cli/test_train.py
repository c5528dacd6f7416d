"""`bptt train`: what it says, what it leaves behind, how it stops and goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bptt.cli.sample import sample
from bptt.cli.train import train
from bptt.errors import BpttError, UserError
from bptt.tasks import checkpoint as files

RHYME = "Peter Piper picked a peck of pickled pepper.\n" * 40


def run(*arguments: str) -> Result:
    """The verb, with errors let through as the main entry sees them."""
    result = CliRunner().invoke(train, arguments)
    if isinstance(result.exception, BpttError):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rhyme.txt").write_text(RHYME)
    return tmp_path


def test_a_run_without_a_terminal_is_plain_lines() -> None:
    result = run("rhyme.txt", "--steps", "3", "--hidden", "8", "--layers", "2", "--seed", "7")
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    header, rest = result.output.split("to stop ")
    for name in ("cell", "parameters", "data", "backend", "threads", "trains for", "saves to"):
        assert re.search(f"^{name} +[^ ]", header, re.MULTILINE), name
    assert "lstm, 2 layers of 8" in header
    assert "rhyme: 1,800 characters" in header
    assert "3 steps" in header
    assert "Ctrl-C" in rest
    line = r"^step 3  .*chars/s  loss \d\.\d+  val \d\.\d+ nats, \d\.\d+ bits/char  0:00 left$"
    assert re.search(line, rest, re.MULTILINE)
    assert "over all of the 180 characters held back" in rest
    folder = Path("runs/rhyme-lstm-1")
    assert {path.name for path in folder.iterdir()} == {files.FILE, "curve.png"}
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert files.read(folder).state.config.seed == 7
    paste = rest.splitlines()[-1].split("bptt sample ")[1].split()
    assert CliRunner().invoke(sample, [*paste, "--length", "5"]).exit_code == 0


def test_a_run_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    run("rhyme.txt", "--steps", "4", "--hidden", "8", "--out", "whole")
    with monkeypatch.context() as patch:
        from bptt.tasks import watch

        class Asked(watch.Interrupts):
            def __enter__(self) -> watch.Interrupts:
                self.count = 1
                return self

        patch.setattr(watch, "Interrupts", Asked)
        stopped = run("rhyme.txt", "--steps", "4", "--hidden", "8", "--out", "a run")
    assert stopped.exit_code == 130
    assert "saved after step 1" in stopped.output
    assert "bptt train --resume 'a run'" in stopped.output
    Path("rhyme.txt").rename("moved.txt")
    with pytest.raises(UserError, match=r"is gone: .*rhyme\.txt"):
        run("--resume")
    assert run("moved.txt", "--resume").exit_code == 0
    one, other = files.read(Path("whole")), files.read(Path("a run"))
    assert all(t.equal(other.tensors[name]) for name, t in one.tensors.items())
    Path("moved.txt").rename("rhyme.txt")
    with pytest.raises(UserError, match=r"has done 4 steps .* all of 4 steps"):
        run("--resume", "whole")
    assert "6 steps in all, from step 4" in run("--resume", "whole", "--steps", "6").output


INTERRUPTED = "from bptt.cli.train import train; train()"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(number: signal.Signals) -> None:
    command = [sys.executable, "-c", INTERRUPTED, "rhyme.txt", "--hidden", "8", "--minutes", "0.4"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step"):
                process.send_signal(number)
        assert process.wait() == 130
    state = files.read(Path("runs/rhyme-lstm-1")).state
    assert state.step > 0
    assert state.seconds < 24


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["missing.txt"], "cannot read missing.txt"),
        (["rhyme.txt", "--steps", "1", "--minutes", "1"], "--minutes and --steps"),
        (["rhyme.txt", "--text", "pydoc"], "TEXT and --text"),
        (["rhyme.txt", "--minutes", "0"], "cannot last 0 minutes"),
        (["rhyme.txt", "--minutes", "nan"], "cannot last nan minutes"),
        (["rhyme.txt", "--hidden", "99999"], "hidden must lie between"),
        (["rhyme.txt", "--dropout", "1"], "dropout must lie between"),
        (["rhyme.txt", "--dropout", "nan"], "dropout must lie between"),
        (["rhyme.txt", "--steps", "1", "--cell", "no-such-cell"], "no-such-cell"),
        (["rhyme.txt", "--steps", "1", "--cell", "ode_lstm"], "input dt"),
        (["--resume"], "there is no run"),
        (["--resume", "nowhere"], "there is no folder nowhere"),
        (["--resume", "nowhere", "--cell", "gru"], "--cell of a run that goes on"),
        (["--resume", "nowhere", "--text", "pydoc"], "--text of a run that goes on"),
    ],
)
def test_mistakes_are_explained_and_leave_nothing_behind(arguments: list[str], what: str) -> None:
    with pytest.raises(BpttError) as error:
        run(*arguments)
    assert what in error.value.what
    assert not Path("runs").exists()


def test_a_run_folder_is_never_written_over() -> None:
    run("rhyme.txt", "--steps", "1", "--hidden", "8", "--out", "mine")
    before = (Path("mine") / files.FILE).read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        run("rhyme.txt", "--steps", "1", "--hidden", "8", "--out", "mine")
    assert (Path("mine") / files.FILE).read_bytes() == before


def test_a_text_that_is_too_short_for_the_run_is_said() -> None:
    from bptt.tasks import watch

    run("rhyme.txt", "--steps", "1", "--hidden", "8", "--out", "mine")
    from bptt.tasks.checkpoint import Point
    from bptt.tasks.text import load_text
    from bptt.tasks.training import Trainer

    saved = files.read(Path("mine"))
    text = load_text("file", "rhyme.txt", say=pytest.fail)
    trainer = Trainer.resume(Path("mine"), saved, text, saved.state.budget)
    trainer.points[:0] = [Point(0, 0.0, 0.5)]
    shown: list[str] = []
    view = watch.Watch()
    view.say = shown.append  # type: ignore[method-assign]
    view.finished(trainer, Path("mine"))
    assert any("best at step 0, 0.500 nats" in line for line in shown)


def test_a_terminal_gets_one_live_line() -> None:
    pty: Any = pytest.importorskip("pty")
    command = [sys.executable, "-c", INTERRUPTED, "rhyme.txt", "--hidden", "8", "--steps", "30"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
    environment |= {"COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # what Linux reports when the other end is closed
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        assert process.wait() == 0
    assert b"\x1b[2K" in shown  # a line that is drawn over


def test_help_and_imports_are_light() -> None:
    help = CliRunner().invoke(train, ["--help"]).output
    for option in (
        "--cell",
        "--minutes",
        "--steps",
        "--hidden",
        "--layers",
        "--dropout",
        "--seed",
        "--out",
    ):
        assert option in help
    assert "[TEXT]" in help
    assert "--resume [RUN]" in help
    check = (
        "import sys, bptt.cli.train, bptt.cli.sample;"
        "sys.exit(bool({'torch', 'rich', 'matplotlib'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (
        subprocess.run([sys.executable, "-c", check], env=environment, check=False).returncode == 0
    )


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bptt.tasks.watch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="the package torch") as error:
        run("rhyme.txt")
    assert error.value.help == "pip install 'bptt[train]'"
