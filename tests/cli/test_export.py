"""`bptt export`: a run of `bptt train` as a C file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from plain_c import library, pointer
from tolerances import EXPORTED

from bptt.cli.export import export
from bptt.cli.train import train
from bptt.errors import BpttError, UserError
from bptt.tasks.training import read_model

RUN = "runs/rhyme-peephole-1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of one update, of two layers."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("rhyme.txt").write_text("Peter Piper picked a peck of pickled pepper.\n" * 40)
        options = ["--steps", "1", "--hidden", "8", "--layers", "2", "--cell", "peephole"]
        result = CliRunner().invoke(train, ["rhyme.txt", *options], catch_exceptions=False)
        assert result.exit_code == 0
    return folder


@pytest.fixture(autouse=True)
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def text(*arguments: str) -> str:
    result = CliRunner().invoke(export, arguments)
    if isinstance(result.exception, BpttError):
        raise result.exception
    assert result.exit_code == 0
    return result.output


def test_a_run_in_c_is_the_model(tmp_path: Path) -> None:
    assert "poet_init and poet_step" in text(RUN, "--c", "poet.c", "--name", "poet")
    model, vocabulary, _ = read_model(Path(RUN))
    codes = torch.from_numpy(vocabulary.encode("Peter")).long()
    with torch.no_grad():
        wanted = model(codes[:, None])[0][:, 0].numpy()
    found = library(Path("poet.c").read_text(encoding="ascii"), tmp_path)
    memory, y = np.zeros(2 * 2 * 8, np.float32), np.zeros(len(vocabulary), np.float32)
    found.poet_init(pointer(memory))
    for t, code in enumerate(codes.tolist()):
        assert found.poet_step(pointer(memory), code, pointer(y)) == 0
        assert np.abs(y - wanted[t]).max() <= EXPORTED["float"] * max(1.0, np.abs(wanted).max())


def test_both_files_of_the_latest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def graph(model: torch.nn.Module, path: str) -> None:
        written.append(path)
        Path(path).write_bytes(b"x" * 1_200_000)

    monkeypatch.setattr("bptt.export.onnx", graph)
    assert "m.onnx: ONNX, 1.2 MB" in text("--c", "m.c", "--onnx", "m.onnx")
    assert written == ["m.onnx"]
    assert Path("m.c").stat().st_size > 10_000
    assert "m.c: bptt_init and bptt_step, " in text("--c", "m.c")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "nothing says what to write"),
        (["nowhere", "--c", "m.c"], "there is no folder nowhere"),
        ([RUN, "--c", "nowhere/m.c"], "cannot write nowhere/m.c"),
        ([RUN, "--c", "x.c", "--name", "a b"], "cannot begin the names"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], what: str) -> None:
    with pytest.raises(UserError) as error:
        text(*arguments)
    assert what in error.value.what
    assert error.value.help
    assert not Path("x.c").exists()
