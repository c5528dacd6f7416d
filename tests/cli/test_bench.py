"""`bptt bench`: what is asked for, what is printed and written, and what it exits with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from faulty import faulty
from tolerances import MUTATION

from bptt.bench import compare, text, uses
from bptt.bench.compare import MEMORY
from bptt.bench.machine import cores
from bptt.bench.musts import LIKE_LSTM
from bptt.bench.problems import STEPPER
from bptt.bench.shapes import GRID, QUICK, Shape
from bptt.bench.sides import PEERS
from bptt.cli.bench import SIDES, bench
from bptt.errors import BpttError
from bptt.nn import LSTM
from bptt.tasks import config, twin
from bptt.tasks.config import Config

RHYME = "Peter Piper picked a peck of pickled pepper.\n" * 40
TINY = ("--shape", "2x2x3x4", "--rounds", "2", "--mode", "train", "--against", "nn.LSTM")


def run(*arguments: str) -> Result:
    """The verb, with errors let through as the main entry sees them."""
    result = CliRunner().invoke(bench, arguments)
    if isinstance(result.exception, BpttError):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[compare.Request]:
    """The requests that the verb makes; nothing is measured."""
    found: list[compare.Request] = []

    def note(request: compare.Request, say: object) -> list[list[compare.Row]]:
        found.append(request)
        return []

    monkeypatch.setattr(compare, "compare", note)
    return found


def test_a_comparison_is_printed_and_written() -> None:
    result = run(*TINY, "--memory", "--json", "numbers.json")
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    for line in ("lstm 2x2x3x4 train, 1 thread", "lstm 2x2x3x4 memory, 1 thread"):
        assert line in result.output
    assert "faster: time of that side / time of ours" in result.output
    assert [path.name for path in Path().iterdir()] == ["numbers.json"]
    found = json.loads(Path("numbers.json").read_text())
    assert [row["mode"] for row in found["rows"]] == ["train", "memory"]
    assert len(found["rows"][0]["ours"]) == 2
    assert found["machine"]["cores"] == cores()
    assert found["settings"]["rounds"] == 2


def test_where_results_are_wrong_there_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "nn.LSTM", faulty(PEERS["nn.LSTM"], "d_U_f", MUTATION))
    result = run(*TINY, "--json", "numbers.json")
    assert result.exit_code == 1
    assert "RED  lstm 2x2x3x4 train, 1 thread, nn.LSTM: d_U_f is off by 1.0e-03" in result.output
    (row,) = json.loads(Path("numbers.json").read_text())["rows"]
    assert (row["gate"], row["theirs"], row["ratio"]) == ("red", [], None)


def test_without_options_it_is_a_quick_look(asked: list[compare.Request]) -> None:
    assert run().exit_code == 0
    (request,) = asked
    assert request.shapes == QUICK
    assert (request.cells, request.modes) == (("lstm",), ("infer", "train"))
    assert (request.threads, request.few, request.against) == ((1,), True, ())
    assert request.effort == (None, 5.0)


def test_full_is_the_grid(asked: list[compare.Request]) -> None:
    run("--full")
    (request,) = asked
    assert request.shapes == GRID
    assert request.cells == ("lstm", *LIKE_LSTM)
    assert request.modes == ("infer", "train", STEPPER, MEMORY)
    assert request.threads == (1, 2)[: cores()]
    assert not request.few and not request.every


def test_what_is_asked_for_is_measured(asked: list[compare.Request]) -> None:
    options = ["--shape", "audio", "--shape", "1,2,3,4", "--cell", "gru_cho", "--seconds", "0.5"]
    run(*options, "--mode", "infer", "--against", "our lstm", "--keep", "states", "--threads", "1")
    (request,) = asked
    assert request.shapes == (Shape(2048, 1, 1, 32), Shape(1, 2, 3, 4))
    assert (request.cells, request.modes) == (("gru_cho",), ("infer",))
    assert request.against == ("our lstm",)
    assert request.effort == (None, 0.5)
    assert dict(request.options) == {"keep": "states"}
    assert request.every
    run("--mode", "stepper", "--mode", "infer", "--memory")
    assert asked[1].modes == ("stepper", "infer", MEMORY)
    assert not asked[1].every


def test_what_was_measured_before_ctrl_c_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare.compare

    def stopped(request: compare.Request, say: object) -> object:
        yield next(iter(whole(request)))
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "compare", stopped)
    result = run(*TINY, "--mode", "infer", "--json", "numbers.json")
    assert result.exit_code == 130
    assert "lstm 2x2x3x4 train, 1 thread" in result.output
    assert len(json.loads(Path("numbers.json").read_text())["rows"]) == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--rounds", "1", "--seconds", "1"), "--rounds and --seconds exclude each other"),
        (("--threads", "two"), "`two` are no numbers of threads"),
        (("--threads", "0"), "0 threads cannot be measured"),
        (("--threads", "1,9999"), "9999 threads cannot be measured"),
        (("--shape", "1x2"), "`1x2` is no shape"),
        (("--cell", "lstmm"), "lstmm"),
        (("--backend", "gpu"), "no backend `gpu`"),
        (("--text", "missing.txt"), "cannot read missing.txt"),
        (("--text", "rhyme.txt", "--cell", "lstmm"), "lstmm"),
        (("--text", "rhyme.txt", "--cell", "ode_lstm"), "input dt"),
        (("--text", "rhyme.txt", "--shape", "step"), "--text and --shape exclude each other"),
        (("--text", "rhyme.txt", "--mode", "train"), "--text and --mode exclude each other"),
        (("--text", "rhyme.txt", "--against", "jax"), "--text and --against exclude each other"),
        (("--text", "rhyme.txt", "--keep", "all"), "--text and --keep exclude each other"),
        (("--text", "rhyme.txt", "--full"), "--text and --full exclude each other"),
        (("--uses", "--shape", "step"), "--uses and --shape exclude each other"),
        (("--uses", "--text", "rhyme.txt"), "--uses and --text exclude each other"),
        (("--json", "no/where.json"), "there is no folder no"),
        (("--json", "."), "it is a folder"),
    ],
)
def test_mistakes_are_answered_before_anything_runs(
    options: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "probe", lambda threads: pytest.fail("it runs"))
    monkeypatch.setattr(text, "race", lambda *options: pytest.fail("it runs"))
    Path("rhyme.txt").write_text(RHYME)
    with pytest.raises(BpttError) as caught:
        run(*options)
    assert what in caught.value.what
    assert [path.name for path in Path().iterdir()] == ["rhyme.txt"]


def test_uses_are_measured_at_their_own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {mode: replace(use, shape=Shape(3, 4, 2, 5)) for mode, use in uses.USES.items()}
    monkeypatch.setattr(uses, "USES", small)
    result = run("--uses", "--rounds", "2", "--json", "numbers.json")
    assert result.exit_code == 0
    written = json.loads(Path("numbers.json").read_text())
    assert {row["mode"] for row in written["rows"]} == {"stacked", "ragged", "per sample"}
    assert "lstm 3x4x2x5 per sample, 1 thread" in result.output


def test_the_backend_is_the_one_that_is_asked_for() -> None:
    result = run(*TINY, "--backend", "reference", "--json", "numbers.json")
    assert "backend reference" in result.output
    assert json.loads(Path("numbers.json").read_text())["settings"]["backend"] == "reference"
    assert LSTM(2, 3).backend == "cpu"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Runs of a recipe that takes milliseconds, on a short text."""
    found = Config(hidden=12, embedding=6, batch=5, window=9, learning_rate=0.05)
    monkeypatch.setattr(config, "Config", lambda: found)
    monkeypatch.setattr(text, "TURN", 0.01)
    Path("rhyme.txt").write_text(RHYME)
    return found


def test_training_is_compared_with_its_twin(small: Config) -> None:
    result = run("--text", "rhyme.txt", "--rounds", "2", "--json", "numbers.json")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "rhyme: 1,800 characters; batch 5, window 9, 1 layer of 12" in lines[1]
    assert "lstm 9x5x6x12 text, 1 thread" in result.output
    assert "chars/s" in result.output
    assert "must 1.10: lstm 9x5x6x12 text" in result.output
    found = json.loads(Path("numbers.json").read_text())
    (row,) = found["rows"]
    assert (row["against"], row["gate"], row["backend"]) == ("nn.LSTM", "passed", "cpu")
    assert len(row["ours"]) == 2
    assert found["settings"]["text"]["characters"] == 1800
    assert found["settings"]["config"]["hidden"] == small.hidden


@pytest.mark.usefixtures("small")
def test_cells_train_beside_our_stock_cell() -> None:
    Path("mine.cell").write_text("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n")
    cells = ("--cell", "peephole", "--cell", "mine.cell")
    result = run("--text", "rhyme.txt", "--rounds", "1", *cells)
    assert result.exit_code == 0
    for cell in ("peephole", "mine"):
        what = f"{cell} 9x5x6x12 text, 1 thread"
        assert f"must 0.91, aim 0.97: {what}, against our lstm" in result.output


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("cell", "row"), [("lstm", "nn.LSTM: the loss"), ("peephole", "our lstm: the loss")]
)
def test_a_twin_with_other_weights_is_refused(
    cell: str, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(self: torch.nn.Module, *options: object) -> None:
        initial(self, *options)
        with torch.no_grad():
            next(self.parameters()).mul_(1.1)

    initial = twin.StockLayers.__init__
    monkeypatch.setattr(twin.StockLayers, "__init__", other)
    options = ("--rounds", "1", "--json", "numbers.json", "--cell", cell)
    result = run("--text", "rhyme.txt", *options)
    assert result.exit_code == 1
    assert f"RED  {cell} 9x5x6x12 text, 1 thread, {row} of update 1 is" in result.output
    assert "on nn.LSTM" in result.output
    assert json.loads(Path("numbers.json").read_text())["rows"][0]["ours"] == []


def test_every_side_can_be_asked_for() -> None:
    assert tuple(PEERS) == SIDES
