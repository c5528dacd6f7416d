"""`bptt bench`: what is asked for, what is printed and written, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from faulty import faulty
from tolerances import MUTATION

from bptt.bench import compare
from bptt.bench.compare import MEMORY
from bptt.bench.machine import cores
from bptt.bench.musts import LIKE_LSTM
from bptt.bench.shapes import GRID, QUICK, Shape
from bptt.bench.sides import PEERS
from bptt.cli.bench import SIDES, bench
from bptt.errors import BpttError, UserError

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
    assert request.modes == ("infer", "train", MEMORY)
    assert request.threads == (1, 2)[: cores()]
    assert not request.few


def test_what_is_asked_for_is_measured(asked: list[compare.Request]) -> None:
    options = ["--shape", "audio", "--shape", "1,2,3,4", "--cell", "gru_cho", "--seconds", "0.5"]
    run(*options, "--mode", "infer", "--against", "our lstm", "--keep", "states", "--threads", "1")
    (request,) = asked
    assert request.shapes == (Shape(2048, 1, 1, 32), Shape(1, 2, 3, 4))
    assert (request.cells, request.modes) == (("gru_cho",), ("infer",))
    assert request.against == ("our lstm",)
    assert request.effort == (None, 0.5)
    assert dict(request.options) == {"keep": "states", "backend": None}


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
        (("--json", "no/where.json"), "there is no folder no"),
        (("--json", "."), "it is a folder"),
    ],
)
def test_mistakes_are_answered_before_anything_runs(
    options: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "probe", lambda threads: pytest.fail("it runs"))
    with pytest.raises(UserError) as caught:
        run(*options)
    assert what in caught.value.what
    assert list(Path().iterdir()) == []


def test_every_side_can_be_asked_for() -> None:
    assert tuple(PEERS) == SIDES
