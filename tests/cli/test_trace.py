"""`bptt trace`: what it prints in its formats, and what it says where it cannot."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bptt.cell import Cell
from bptt.cli.main import main
from bptt.printers.people import worked_latex, worked_markdown, worked_text


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["bptt", "trace", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        found = capsys.readouterr()
        return Ran(int(end.value.code or 0), found.out, found.err)

    return run


def test_gomez_has_the_numbers_of_his_post(ran: Run) -> None:
    found = ran("gomez")
    assert (found.status, found.err) == (0, "")
    assert found.out == worked_text.text(Cell.load("gomez").trace())
    assert "a[0] = tanh(W_a @ x[0] + U_a @ out[-1] + b_a)" in found.out
    assert "Drawn" not in found.out
    assert "b_o = b_o - 0.1*d_b_o\n    = 0.1 - 0.1*(-0.05361)\n    = 0.10536\n" in found.out


def test_options_reach_the_example(ran: Run) -> None:
    cell = Cell.load("gru")
    options = ("--seed", "4", "--length", "3", "--size", "H=2", "--rate", "0.5", "--by", "gates")
    worked = cell.trace(seed=4, length=3, sizes={"H": 2}, rate=0.5, by="gates")
    assert ran("gru", *options, "--round", "3").out == worked_text.text(worked, 3)
    assert "Drawn from seed 4: all values." in ran("gru", *options).out
    assert ran("gomez", "--seed", "1").out == worked_text.text(Cell.load("gomez").trace(seed=1))


def test_formats(ran: Run) -> None:
    worked = Cell.load("rnn").trace()
    assert ran("rnn", "--format", "text").out == worked_text.text(worked)
    assert ran("rnn", "--format", "latex").out == worked_latex.text(worked)
    assert ran("rnn", "--format", "md", "--round", "2").out == worked_markdown.text(worked, 2)
    shown = json.loads(ran("rnn", "--format", "json").out)
    assert shown["cell"] == "rnn"
    assert shown["seed"] == 0
    assert ran("rnn", "--format", "html").out.lower().startswith("<!doctype html>")
    assert ran("rnn", "--format", "pdf").status == 2


def test_a_file_of_values_and_a_file_for_the_page(ran: Run, tmp_path: Path) -> None:
    values, out = tmp_path / "mine.toml", tmp_path / "out.txt"
    values.write_text("rate = 0.5\n[states]\nh = [0.25, -0.5]\n", encoding="utf-8")
    found = ran("rnn", "--values", str(values), "-o", str(out))
    assert found == (0, "", "")
    text = out.read_text(encoding="utf-8")
    assert "h[-1] = [0.25, -0.5]" in text
    assert "W = W - 0.5*d_W" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lsmt"], "error: there is no cell called `lsmt`\nhelp: did you mean `lstm`?\n"),
        (["gru", "--size", "H"], "error: `H` is no size\nhelp: write a name and a number: `H=2`\n"),
        (["gru", "--size", "H=-1"], "error: `H=-1` is no size\n"),
        (["gru", "--size", "H=9999999"], "error: `H=9999999` is no size\n"),
        (["gru", "--size", "K=2"], "error: the cell has no size `K`\nhelp: there are X, H\n"),
        (["gru", "--values", "none.toml"], "error: cannot read none.toml: No such file"),
        (["gru", "--values", "bad.toml"], "error: bad.toml is no TOML: "),
        *(
            (
                ["gru", "--rate", rate],
                f"error: the learning rate cannot be {rate}\nhelp: a number, such as 0.1\n",
            )
            for rate in ("nan", "inf")
        ),
        (
            ["gru", "--length", "101", "--format", "html"],
            "error: a page is for at most 100 steps, and this example has 101\nhelp: choose fewer",
        ),
        (["gru", "-o", "no/where.txt"], "error: cannot write no/where.txt: No such file"),
        (
            ["gomez", "--length", "3"],
            "error: `x` has 2 steps, and not 3\nhelp: give `x` so many steps, or leave out the v",
        ),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(
    arguments: list[str], said: str, ran: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text("x = [", encoding="utf-8")
    found = ran(*arguments)
    assert (found.status, found.out) == (2, "")
    assert found.err.startswith(said)
    assert "Traceback" not in found.err
