"""`bptt sample`: writing from a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bptt.cli.sample import sample
from bptt.cli.train import train
from bptt.errors import BpttError, UserError
from bptt.tasks import checkpoint as files


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of one update, in `runs/rhyme-lstm-1`."""
    folder = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("rhyme.txt").write_text("Peter Piper picked a peck of \x1bpickled pepper.\n" * 40)
        steps = ["--steps", "1", "--hidden", "8"]
        result = CliRunner().invoke(train, ["rhyme.txt", *steps], catch_exceptions=False)
        assert result.exit_code == 0
    return folder


@pytest.fixture(autouse=True)
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def text(*arguments: str) -> str:
    result = CliRunner().invoke(sample, arguments)
    if isinstance(result.exception, BpttError):
        raise result.exception
    assert result.exit_code == 0
    return result.output


def test_the_same_seed_writes_the_same_text() -> None:
    folder = "runs/rhyme-lstm-1"
    one = text(folder, "--prompt", "Peter", "--length", "200", "--seed", "3")
    assert one == text("--prompt", "Peter", "--length", "200", "--seed", "3")
    assert one != text("--prompt", "Peter", "--length", "200", "--seed", "4")
    assert one.startswith("Peter")
    assert len(one) == len("Peter") + 200 + len("\n")
    assert "\x1b" not in one
    assert "\N{REPLACEMENT CHARACTER}" in one


def test_length_and_temperature() -> None:
    assert text("--length", "0", "--prompt", "Pip") == "Pip\n"
    cold = [text("--temperature", "0", "--length", "30") for _ in range(2)]
    assert cold[0] == cold[1]
    hot = {text("--temperature", "5", "--length", "30") for _ in range(4)}
    assert len(hot) == 4


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--prompt", "Zebra"], "never saw 'Z' 'b'"),
        (["--prompt", ""], "the prompt is empty"),
        (["--temperature", "nan"], "the temperature cannot be nan"),
        (["nowhere"], "there is no folder nowhere"),
        (["runs"], "runs holds no run"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], what: str) -> None:
    with pytest.raises(UserError) as error:
        text(*arguments)
    assert what in error.value.what
    assert error.value.help


def test_a_damaged_run_is_refused(tmp_path: Path) -> None:
    whole = (Path("runs/rhyme-lstm-1") / files.FILE).read_bytes()
    (tmp_path / files.FILE).write_bytes(whole[:-100])
    with pytest.raises(UserError, match="is damaged"):
        text(str(tmp_path))


def test_help() -> None:
    help = CliRunner().invoke(sample, ["--help"]).output
    for option in ("--prompt", "--temperature", "--length", "--seed", "[RUN]"):
        assert option in help
