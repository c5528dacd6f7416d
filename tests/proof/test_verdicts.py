"""How a judgement is shown: as text, as plain data, with hints, and through `bptt check`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bptt.cell import Cell
from bptt.cli.check import check
from bptt.errors import UserError
from bptt.proof import verdicts
from bptt.proof.verdicts import Judgement, LineVerdict, Whole

CELL = """\
function F: vector
a[t] = tanh(W @ x[t] + U @ h[t-1] + b)
h[t] = a[t]
y[t] = F(V @ h[t])
output y
backward:
"""
RIGHT = """\
dz_y[t] = F'(V @ h[t]).T @ d_y[t]
d_y[t] = direct_y[t]
d_h[t] = V.T @ dz_y[t] + U.T @ dz_a[t+1]
dz_a[t] = d_h[t]*(1 - a[t]**2)
d_W = sum_t(outer(dz_a[t], x[t]))
d_U = sum_t(outer(dz_a[t], h[t-1]))
d_b = sum_t(dz_a[t])
d_V = sum_t(outer(dz_y[t], h[t]))
"""
ROWS = RIGHT.splitlines()


def name_of(row: str) -> str:
    return row.split(" ")[0].partition("[")[0]


def judged(**changed: str) -> Judgement:
    """The pass with some lines changed, by the names on their left."""
    rows = list(ROWS)
    for name, right in changed.items():
        k = next(k for k, row in enumerate(rows) if name_of(row) == name)
        rows[k] = f"{rows[k].split(' = ')[0]} = {right}"
    return Cell(CELL + "\n".join(rows)).judge()


def row(found: Judgement, name: str, **options: Any) -> list[str]:
    """What the text says of a line, and below it."""
    rows = verdicts.text(found, **options).split("\n\n")[0].split("\n")
    first = [k for k, r in enumerate(rows) if r.strip()[:1].isdigit()] + [len(rows)]
    start = next(k for k in first if f" {name}" in rows[k][:24])
    below = first[first.index(start) + 1]
    return [r.strip() for r in rows[start:below]]


def test_a_right_pass() -> None:
    found = judged()
    assert found.ok
    lines = [f"{k:>2}  right     {line}" for k, line in enumerate(ROWS, 7)]
    ends = ["", "line by line: 8 lines, none wrong", "as a whole:   right"]
    assert verdicts.text(found).split("\n") == [*lines, *ends]


def test_a_wrong_line() -> None:
    found = judged(d_b="2*sum_t(dz_a[t])")
    assert not found.ok
    assert row(found, "d_b") == [
        "13  WRONG     d_b = 2*sum_t(dz_a[t])",
        "off by 100 %",
        "has the factor 2, which the derivation has not",
        "derived: d_b = sum_t(dz_a[t])",
    ]
    assert verdicts.text(found).split("\n")[-2:] == [
        "line by line: 1 of 8 lines wrong",
        "as a whole:   WRONG: d_b by 100 %",
    ]


def test_conditions() -> None:
    zero = judged(d_U="sum_t(outer(dz_a[t+1], h[t]))")
    assert zero.ok
    first, below = row(zero, "d_U")
    assert first.startswith("12  right if  d_U = ")
    assert below.startswith("right if the initial state is zero; else off by ")
    assert zero.whole.verdict == "conditional"
    assert verdicts.text(zero).endswith("as a whole:   right if the initial state is zero")
    elementwise = judged(dz_y="F'(V @ h[t]) @ d_y[t]")
    assert elementwise.lines[0].verdict == "conditional"
    assert elementwise.lines[0].when == "F is elementwise"


def test_a_misfit_says_the_sizes() -> None:
    found = judged(d_h="V @ dz_y[t] + U.T @ dz_a[t+1]")
    line = next(x for x in found.lines if x.name == "d_h")
    assert math.isinf(line.error)
    assert row(found, "d_h")[1] == line.note
    assert "vector" in line.note


def test_definitions() -> None:
    found = Cell(CELL + "k[t] = dz_a[t]\nd_y[t] = direct_y[t]\np = W").judge()
    assert [(x.name, x.verdict, x.note) for x in found.lines] == [
        ("k", "defined", "it is dz_a[t]"),
        ("d_y", "right", ""),
        ("p", "defined", ""),
    ]
    assert set(found.whole.missing) == set("VWUb")
    assert found.whole.known == ("dz_a",)


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((0, 1, 2, 3), "off by 50 % at every step"),
        ((0, 1, 2), "off by 50 % at every step but the last"),
        ((1, 2, 3), "off by 50 % at every step but the first"),
        ((3,), "off by 50 % at the last step"),
        ((0,), "off by 50 % at the first step"),
        ((1, 3), "off by 50 % at t = 1, 3 of 0 to 3"),
    ],
)
def test_steps(steps: tuple[int, ...], words: str) -> None:
    line = LineVerdict(1, "q", "q[t] = 1", "wrong", 4, error=0.5, steps=steps)
    found = Judgement((line,), Whole("wrong"), (), 4, {})
    assert row(found, "q")[1] == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (0.0000123, "0.0012 %"),
        (0.0123, "1.2 %"),
        (0.123, "12 %"),
        (2.469, "247 %"),
        (10.0, "a factor of 10"),
        (12345.6, "a factor of 12346"),
        (math.inf, "no finite number"),
        (math.nan, "no finite number"),
    ],
)
def test_shares(error: float, words: str) -> None:
    assert verdicts.share(error) == words


def test_the_whole_in_words() -> None:
    def last(whole: Whole) -> str:
        return verdicts.text(Judgement((), whole, (), 4, {})).split("\n")[-1]

    assert last(Whole("right")) == "as a whole:   right"
    said = "as a whole:   right; no line gives the gradient by W, b"
    assert last(Whole("right", missing=("W", "b"))) == said
    said = "as a whole:   WRONG: d_h by 50 %, G (no such value)"
    assert last(Whole("wrong", wrong=(("d_h", 0.5), ("G", math.inf)))) == said
    said = "as a whole:   it cannot be run: `q` is read before a line gives it"
    assert last(Whole("wrong", note="`q` is read before a line gives it")) == said


# --- plain data and hints -------------------------------------------------------------------------


def test_json() -> None:
    found = judged(d_b="2*sum_t(dz_a[t])", d_U="sum_t(outer(dz_a[t+1], h[t]))")
    data = json.loads(json.dumps(verdicts.json(found)))
    assert data["ok"] is False
    assert [line["verdict"] for line in data["lines"]] == [
        *["right"] * 5, "conditional", "wrong", "right",
    ]  # fmt: skip
    wrong = data["lines"][6]
    assert (wrong["line"], wrong["name"]) == (13, "d_b")
    assert wrong["text"] == "d_b = 2*sum_t(dz_a[t])"
    assert wrong["error"] == pytest.approx(1)
    assert wrong["differs"] == ["has the factor 2, which the derivation has not"]
    assert wrong["derived"] == ["d_b = sum_t(dz_a[t])"]
    assert data["lines"][5]["when"] == "the initial state is zero"
    assert data["whole"]["verdict"] == "wrong"
    assert list(data["whole"]["wrong"]) == ["d_U", "d_b"]


def test_json_has_no_number_that_is_none() -> None:
    found = judged(d_h="V @ dz_y[t] + U.T @ dz_a[t+1]")
    data = verdicts.json(found)
    line = next(x for x in data["lines"] if x["name"] == "d_h")
    assert line["error"] is None
    json.dumps(data, allow_nan=False)


def test_hints_say_no_more_than_they_should() -> None:
    found = judged(d_b="2*sum_t(dz_a[t])")
    assert verdicts.text(found, 0) == "something is wrong in this backward pass"
    assert verdicts.text(judged(), 0) == "nothing is wrong"
    assert row(found, "d_b", hint=1) == ["13  WRONG     d_b = 2*sum_t(dz_a[t])"]
    assert row(found, "d_b", hint=2)[1:] == [
        "off by 100 %",
        "has the factor 2, which the derivation has not",
    ]
    assert verdicts.json(found, 0) == {"ok": False}
    (line,) = (x for x in verdicts.json(found, 1)["lines"] if x["name"] == "d_b")
    assert line.keys() == {"line", "name", "text", "verdict", "when"}
    (line,) = (x for x in verdicts.json(found, 2)["lines"] if x["name"] == "d_b")
    assert "derived" not in line
    assert line["differs"] == ["has the factor 2, which the derivation has not"]
    for hint in (1, 2):
        assert "wrong" not in verdicts.json(found, hint)["whole"]


# --- the command ----------------------------------------------------------------------------------


def ran(folder: Path, body: str, *options: str) -> tuple[int, str]:
    """`bptt check` of a file: exit status, and what it prints."""
    file = folder / "mine.cell"
    file.write_text(CELL + body, encoding="utf-8")
    found = CliRunner().invoke(check, [str(file), *options])
    if isinstance(found.exception, UserError):
        raise found.exception
    return found.exit_code, found.output


WRONG = RIGHT.replace("sum_t(dz_a[t])", "sum_t(dz_a[t+1])")


def test_exit_status(tmp_path: Path) -> None:
    status, out = ran(tmp_path, RIGHT)
    assert status == 0
    assert "the derived backward pass: right" in out
    status, out = ran(tmp_path, WRONG)
    assert status == 1
    assert "sums dz_a[t+1], should sum dz_a[t]" in out
    shifted = RIGHT.replace("outer(dz_a[t], h[t-1])", "outer(dz_a[t+1], h[t])")
    assert ran(tmp_path, shifted)[0] == 0  # right if the initial state is zero


def test_what_cannot_be_read(tmp_path: Path) -> None:
    from bptt.cli.main import main

    file = tmp_path / "mine.cell"
    file.write_text(CELL + "d_h[t] = dd_h[t+1]\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["bptt", "check", str(file)])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 2


def test_json_of_the_command(tmp_path: Path) -> None:
    status, out = ran(tmp_path, WRONG, "--json")
    data = json.loads(out)
    assert status == 1
    assert data["backward"]["ok"] is False
    verdict = {line["name"]: line["verdict"] for line in data["backward"]["lines"]}
    assert verdict == {name_of(row): "right" for row in ROWS} | {"d_b": "wrong"}


@pytest.mark.parametrize("hint", ["0", "1", "2"])
def test_hints_of_the_command(tmp_path: Path, hint: str) -> None:
    status, out = ran(tmp_path, WRONG, "--hint", hint)
    assert status == 1
    assert ("something is wrong" in out) == (hint == "0")
    assert ("13  WRONG" in out) == (hint != "0")
    assert ("should sum dz_a[t]" in out) == (hint == "2")
    assert "derived: d_b" not in out
    status, out = ran(tmp_path, WRONG, "--json", "--hint", hint)
    lines = json.loads(out)["backward"].get("lines", [])
    assert bool(lines) == (hint != "0")
    assert all("derived" not in line for line in lines)
