"""The verbs that speak about a cell: what they print, and what they exit with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import bptt
from bptt import cells
from bptt.cell import Cell
from bptt.cli.main import VERBS, main
from bptt.proof import gradcheck

RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"
SLIP = "c[t] = f[t]*c[t+1]\n"


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["bptt", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        found = capsys.readouterr()
        return Ran(int(end.value.code or 0), found.out, found.err)

    return run


def test_help_lists_every_verb_with_its_line(ran: Run) -> None:
    for arguments in (["--help"], ["-h"]):
        found = ran(*arguments)
        assert found.status == 0
        for verb, line in VERBS.items():
            assert f"  {verb}" in found.out
            assert line in found.out
    for verb in VERBS:
        assert ran(verb, "--help").status == 0


def test_every_module_of_a_verb_is_listed() -> None:
    folder = Path(bptt.cli.main.__file__).parent  # type: ignore[attr-defined]
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "main", "cell"}
    assert modules == set(VERBS)


def test_derive_prints_the_derivation(cell: str, ran: Run) -> None:
    assert ran("derive", cell) == (0, Cell.load(cell).derivation(), "")


def test_derive_has_forms_and_formats(ran: Run) -> None:
    lstm = Cell.load("lstm")
    assert ran("derive", "lstm", "--by", "gates").out == lstm.derivation("gates")
    assert ran("derive", "lstm", "--format", "latex").out == lstm.derivation(format="latex")
    assert ran("derive", "lstm", "--format", "md").out == lstm.derivation(format="md")
    assert ran("derive", "lstm", "--by", "hand").status == 2


def test_a_cell_is_a_name_a_file_or_standard_input(
    ran: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.cell"
    path.write_text(RNN, encoding="utf-8")
    shown = Cell(RNN).derivation()
    assert ran("derive", str(path)).out == shown
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert ran("derive", "-").out == shown


def test_check_says_that_all_is_right(ran: Run) -> None:
    found = ran("check", "lstm")
    assert found.status == 0
    assert found.out.splitlines()[-1].startswith("right: 15 tensors")
    assert ran("check", "lstm", "--order", "2", "--seed", "5").status == 0


def test_check_says_what_it_puts_for_what_is_open(ran: Run) -> None:
    lines = ran("check", "sancho").out.splitlines()
    assert lines[0] == "F is left open: checked with softmax"
    assert lines[1] == "G is left open: checked with f(a1, a2) = sum((a1 - a2)**2)/2"
    shown = json.loads(ran("check", "sancho", "--json").out)
    assert shown["cell"] == "sancho"
    assert shown["stand_ins"] == {"F": "softmax", "G": "f(a1, a2) = sum((a1 - a2)**2)/2"}
    assert shown["ok"] is True
    assert "left open" not in ran("check", "lstm").out


def test_check_fails_where_a_gradient_is_wrong(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gradcheck.check

    def wrong(program: object, **options: object) -> object:
        report = right(program, **options)  # type: ignore[arg-type]
        object.__setattr__(report, "faults", ("a gradient that is wrong",))
        return report

    monkeypatch.setattr(gradcheck, "check", wrong)
    found = ran("check", "rnn")
    assert found.status == 1
    assert "WRONG a gradient that is wrong" in found.out
    found = ran("check", "rnn", "--json")
    assert found.status == 1
    assert json.loads(found.out)["ok"] is False


def listed(out: str) -> list[str]:
    """The names of the cells in what `bptt cells` prints."""
    return re.findall(r"^  (\w+)", out, re.MULTILINE)


def test_cells_are_listed_a_line_each_under_their_families(ran: Run) -> None:
    found = ran("cells")
    assert found.status == 0
    rows = found.out.splitlines()
    assert max(map(len, rows)) <= 100
    assert listed(found.out) == [name for members in cells.families().values() for name in members]
    assert all(f"{key}: {cells.FAMILIES[key]}" in rows for key in cells.families() if key)
    (lstmp,) = (row for row in rows if row.startswith("  lstmp "))
    assert lstmp.split()[-3:] == ["2", "size", "P"]


def test_a_word_picks_cells_by_family_name_title_and_author(ran: Run) -> None:
    family = cells.about("gru").family
    found = ran("cells", family)
    assert listed(found.out) == list(cells.families()[family])
    (row,) = (row for row in found.out.splitlines() if row.startswith("  gru_cho "))
    assert row.split()[-2:] == ["2/2", "1"]
    assert max(map(len, found.out.splitlines())) <= 100
    for word in ("peephole", "Gers", "gers"):
        assert "peephole" in listed(ran("cells", word).out)
        assert "rnn" not in listed(ran("cells", word).out)
    assert ran("cells", "peephoel").err.endswith("help: did you mean `peephole`?\n")
    found = ran("cells", "quux")
    assert (found.status, found.out) == (2, "")
    assert found.err.startswith("error: no cell has to do with `quux`\nhelp: the families are ")


def test_show_is_verbatim(cell: str, ran: Run, tmp_path: Path) -> None:
    assert ran("show", cell) == (0, cells.read(cell), "")
    mine = tmp_path / "mine.cell"
    mine.write_text(ran("show", cell).out, encoding="utf-8")
    assert Cell.load(mine).program is Cell.load(cell).program
    mine.write_text(SLIP, encoding="utf-8")
    assert ran("show", str(mine)) == (0, SLIP, "")


def test_plan_shows_what_runs_where(cell: str, ran: Run) -> None:
    forward, backward = ran("plan", cell), ran("plan", cell, "--backward")
    assert (forward.status, backward.status) == (0, 0)
    assert "the loop, one step after the other" in forward.out
    assert "the loop, one step after the other" in backward.out
    assert forward.out != backward.out


def test_version(ran: Run) -> None:
    found = ran("--version")
    assert found.status == 0
    assert found.out.startswith("bptt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["derive", "lsmt"], "error: there is no cell called `lsmt`\nhelp: did you mean `lstm`?\n"),
        (["drive", "lstm"], "error: `bptt drive` is no command\nhelp: did you mean `derive`?\n"),
        (["prove"], "error: `bptt prove` is no command\nhelp: there are derive, check, plan"),
        (["show", "no/such.cell"], "error: cannot read no/such.cell: No such file or directory\n"),
        (["check", "slip.cell"], "error: `c` is read from the future\n  1 | c[t] = f[t]*c[t+1]\n"),
        (["plan", "slip.cell"], "error: `c` is read from the future\n"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(
    arguments: list[str], said: str, ran: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slip.cell").write_text(SLIP, encoding="utf-8")
    found = ran(*arguments)
    assert (found.status, found.out) == (2, "")
    assert found.err.startswith(said)
    assert "Traceback" not in found.err


def test_the_same_is_printed_whatever_the_order_of_sets() -> None:
    def printed(seed: str) -> str:
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        code = (
            "from bptt.cell import load\n"
            "for name in ('layernorm_lstm', 'iosif'):\n"
            "    print(load(name).derivation(), load(name).derivation('gates'))"
        )
        command = [sys.executable, "-X", "utf8", "-c", code]
        return subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", check=True
        ).stdout

    assert printed("1") == printed("2")
