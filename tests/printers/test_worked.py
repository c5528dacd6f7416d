"""Worked examples as people read them: what is written with numbers comes to what stands below."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from printers.evaluate import FUNCTIONS as MEANINGS
from subjects import CORE
from sweeps_of import FUNCTIONS
from tolerances import TRACE

from bptt import cells
from bptt.calculus.readable import By
from bptt.cell import Cell
from bptt.errors import UserError
from bptt.printers.people import worked_json, worked_latex, worked_markdown, worked_text
from bptt.printers.people.plain import columns
from bptt.printers.people.worked import Worked, shown

BYS = get_args(By)
GOLDEN = Path(__file__).parent.parent / "golden" / "trace"
SHOWN = ("gomez.txt", "gomez.gates.txt", "gomez.tex", "gomez.md", "gomez.json", "gru.txt")
SHOWN += ("iosif.txt", "sancho.txt", "layernorm_lstm.txt")
FORMATS = {
    "txt": worked_text.text,
    "tex": worked_latex.text,
    "md": worked_markdown.text,
    "json": worked_json.text,
}


@cache
def worked(name: str, by: By = "preactivations", length: int | None = None) -> Worked:
    return Cell.load(name).bind(FUNCTIONS.get(name, {})).trace(by=by, length=length)


@pytest.mark.parametrize("file", SHOWN)
def test_an_example(file: str) -> None:
    """`BPTT_UPDATE_GOLDEN=1 pytest tests/printers` writes them anew."""
    name, *by, suffix = file.split(".")
    text = FORMATS[suffix](worked(name, "gates" if by else "preactivations"), 5)
    path = GOLDEN / file
    if os.environ.get("BPTT_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    if suffix == "json":  # its last digits are NumPy's
        assert_close(json.loads(text), json.loads(path.read_text(encoding="utf-8")))
    else:
        assert text == path.read_text(encoding="utf-8")


def test_no_example_is_left_over() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(SHOWN)


def assert_close(found: Any, known: Any) -> None:
    if isinstance(known, float):
        assert abs(found - known) <= TRACE
    elif isinstance(known, list):
        assert len(found) == len(known)
        for a, b in zip(found, known, strict=True):
            assert_close(a, b)
    elif isinstance(known, dict):
        assert list(found) == list(known)
        for name in known:
            assert_close(found[name], known[name])
    else:
        assert found == known


# --- what is written adds up ----------------------------------------------------------------------


def value(e: ast.expr) -> Any:
    """What an expression with numbers comes to. A name at a time is a value beyond the last step:
    it is multiplied by zero, and stands for any number here."""
    match e:
        case ast.Constant(value=x):
            return np.asarray(float(x))
        case ast.List(elts=parts):
            return np.array([value(part) for part in parts])
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -value(inner)
        case ast.BinOp(left=left, op=ast.MatMult(), right=right):
            return product(value(left), value(right))
        case ast.BinOp(left=left, op=op, right=right):
            return OPERATORS[type(op)](value(left), value(right))
        case ast.Attribute(value=inner, attr="T"):
            return value(inner).T
        case ast.Call(func=ast.Name(id=name), args=args):
            given = [value(a) for a in args]
            if name in ("repeat", "fold", "fill", "embed"):
                given = [given[0], *map(int, given[1:])]
            return MEANINGS[name](*given)
        case ast.Subscript(slice=ast.Slice() | ast.Tuple()):
            raise AssertionError("a part of a parameter stands as its numbers")
        case ast.Subscript():
            return np.asarray(0.7)
    raise AssertionError(f"what is {ast.unparse(e)}?")


OPERATORS = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


def product(a: Any, b: Any) -> Any:
    """A matrix product; a number stands for a vector of one."""
    if a.ndim == 0 or b.ndim == 0:
        return np.ravel(np.atleast_1d(a) * b) if a.ndim == 2 or b.ndim == 2 else a * b
    return a @ b


def equations(text: str) -> list[list[str]]:
    """The sides of each equation, rows put together, remarks left out."""
    found: list[list[str]] = []
    for row in text.splitlines():
        row = row.split("  # ")[0].rstrip()
        if not row or row.lstrip().startswith("#"):
            continue
        if not row.startswith(" "):
            found.append(row.split(" = ", 1))
        elif row.lstrip().startswith("= "):
            found[-1].append(row.lstrip()[2:])
        else:
            found[-1][-1] += " " + row.strip()
    return found


def sums_up(text: str) -> int:
    """How many sides with numbers come to the result below them; all do."""
    count = 0
    for name, symbols, *sides in equations(text):
        if not sides:
            continue
        result = np.ravel(value(ast.parse(sides[-1], mode="eval").body))
        for side in sides[:-1]:
            found = np.ravel(value(ast.parse(side, mode="eval").body))
            gap = np.max(np.abs(found - result), initial=0)
            assert gap <= TRACE * max(1.0, np.max(np.abs(result), initial=0)), (name, side, gap)
            count += 1
        assert symbols != sides[0]
    return count


@pytest.mark.parametrize("by", BYS)
@pytest.mark.parametrize("name", CORE)
def test_what_is_written_with_numbers_comes_to_the_result(
    name: str, by: By, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worked_text, "_MOST", 1000)
    found = worked(name, by, 3 if name != "gomez" else None)
    lines = len(found.steps) + len(found.back)
    assert sums_up(worked_text.text(found, 15)) > lines / 2


def test_a_wrong_result_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = worked_text.text(worked("gomez"), 15)
    assert sums_up(text) == 58
    (right,) = re.findall(r"= (\S+)  # inside f\[t\], which is read by state\[t\]\ndz_o\[1\]", text)
    with pytest.raises(AssertionError):
        sums_up(text.replace(f"= {right} ", f"= {float(right) * 1.001} ", 1))


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "digits", "text"),
    [
        (0.0, 5, "0"),
        (-0.0, 5, "0"),
        (2.0, 5, "2"),
        (0.45, 5, "0.45"),
        (0.8498, 5, "0.8498"),
        (0.84980123, 5, "0.84980"),
        (-0.00112345, 5, "-0.00112"),
        (-0.00059, 3, "-0.00059"),
        (0.00097123, 3, "0.00097"),
        (0.000097123, 5, "9.7e-5"),
        (0.000097, 6, "0.000097"),
        (0.0000097123, 5, "9.7e-6"),
        (123456.789012, 2, "123456.79"),
        (1234567.0, 5, "1.23457e6"),
        (-1e30, 5, "-1e30"),
        (2.5e8, 3, "2.5e8"),
        (math.inf, 5, "inf"),
    ],
)
def test_how_a_number_is_shown(x: float, digits: int, text: str) -> None:
    assert shown(x, digits) == text


def test_a_large_value_shows_its_first_numbers() -> None:
    cell = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])")
    found = cell.trace({"parameters": {"W": np.arange(30).reshape(5, 6)}})
    text = worked_text.text(found)
    rows = ("[0, 1, 2, ...; 6 numbers]", "[18, 19, 20, ...; 6 numbers]")
    assert f"W = [{rows[0]}" in text
    assert f"{rows[1]}, ...; 5 by 6]" in " ".join(text.split())
    latex = worked_latex.text(found)
    assert r"0 & 1 & 2 & \cdots \\" in latex
    assert r"\vdots & \vdots & \vdots & \vdots" in latex


def test_few_decimals_are_for_a_hand() -> None:
    text = worked_text.text(worked("gomez"), 3)
    assert "a[0] = tanh(W_a @ x[0] + U_a @ out[-1] + b_a)\n" in text
    assert "     = tanh([[0.45, 0.25]] @ [1, 2] + 0.15*0 + 0.2)\n     = 0.818\n" in text
    assert "dz_i[1] = d_state[1]*a[1]*i[1]*(1 - i[1])\n" in text


# --- the formats ----------------------------------------------------------------------------------


def test_text_fits_a_page_and_says_all_lines(cell: str) -> None:
    found = worked(cell)
    text = worked_text.text(found)
    rows = text.splitlines()
    assert not [row for row in rows if columns(row) > 100]
    assert all(row == row.rstrip() and "$" not in row and "\u00a0" not in row for row in rows)
    for item in found.back:
        name, time = found.spelled(item.line.name).text, "" if item.t is None else f"[{item.t}]"
        assert f"\n{name}{time} = " in text
    for update in found.updates:
        assert f"\n{update.name} = {update.name} - 0.1*" in text


def balanced(text: str) -> None:
    """Environments and braces close in the order they open."""
    open_: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name
    assert not open_
    bare = re.sub(r"\\[{}]", "", text)
    depth = 0
    for c in bare:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0
    assert bare.count(r"\left") == bare.count(r"\right") + bare.count(r"\leftarrow")


@pytest.mark.parametrize("by", BYS)
@pytest.mark.parametrize("name", CORE)
def test_every_format_of_every_kind_of_cell(name: str, by: By) -> None:
    found = worked(name, by)
    latex, markdown = worked_latex.text(found), worked_markdown.text(found)
    balanced(latex)
    assert latex.count(r"\subsection*") == markdown.count("\n## ") == latex.count("begin{align*}")
    assert markdown.count("```") == 2 * markdown.count("```math")
    assert r"\operatorname" not in markdown
    assert "$" not in latex.split(r"\subsection", 1)[1] or name in ("iosif", "sancho"), name
    data = json.loads(worked_json.text(found))
    assert len(data["forward"]) == len(found.steps)
    assert len(data["backward"]) == len(found.back)
    for line, item in zip(
        (*data["forward"], *data["backward"]), (*found.steps, *found.back), strict=True
    ):
        assert np.array_equal(line["value"], item.value)
        assert line.get("reason", "") == item.reason


def test_latex_of_every_cell_is_balanced(cell: str) -> None:
    text = worked_latex.text(worked(cell))
    balanced(text)
    width = re.search(r"paperwidth=(\d+)mm", text)
    assert width is not None and 210 <= int(width[1]) < 1000


FOREIGN = Cell("# Ж ħ — ∑ é\nh[t] = tanh(Ж_中 @ x[t] + δ @ h[t-1])")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
@pytest.mark.parametrize("name", ["gomez", "iosif", "sancho", "foreign"])
def test_latex_compiles(name: str, tmp_path: Path) -> None:
    found = FOREIGN.trace() if name == "foreign" else worked(name)
    (tmp_path / "a.tex").write_text(worked_latex.text(found), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "a"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert (tmp_path / "a.pdf").stat().st_size > 1000


def test_latex_names_the_letters_that_pdflatex_has_not() -> None:
    head, _, body = worked_latex.text(FOREIGN.trace()).partition(r"\documentclass")
    assert head == (
        "% pdflatex cannot set these letters:\n"
        "%   ħ U+0127 LATIN SMALL LETTER H WITH STROKE\n"
        "%   Ж U+0416 CYRILLIC CAPITAL LETTER ZHE\n"
        "%   ∑ U+2211 N-ARY SUMMATION\n"
        "%   中 U+4E2D CJK UNIFIED IDEOGRAPH-4E2D\n"
        "% It shows the number of each in a box. To see the letters, take lualatex, and name in\n"
        "% \\setmainfont, below, a font that has them.\n"
    )
    declared = re.findall(r"\DeclareUnicodeCharacter\{(\w+)\}\{(.*)\}", body)
    assert declared == [
        (code, rf"{{\tiny\fbox{{{code}}}}}") for code in ("0127", "0416", "2211", "4E2D")
    ]
    assert body.index("T1") < body.index("Declare") < body.index(r"\else") < body.index("fontspec")
    assert r"\text{Ж}_{\text{中}} = " in body
    assert worked_latex.text(worked("gomez")).startswith(r"\documentclass")


def test_an_example_at_a_prompt_is_short_and_its_string_is_the_text() -> None:
    found = worked("gomez")
    assert repr(found) == "<Worked example of gomez: 2 steps, X = 2, H = 1>"
    assert repr(worked("rnn", length=1)) == "<Worked example of rnn: 1 step, X = 2, H = 3>"
    assert str(found) == worked_text.text(found)


def test_titles_are_words_and_not_code() -> None:
    nasty = r"\input{x} $a$ 100% & #1 _b_ ^ ~ <script> [l](u) `c` ṽ λ_h"
    cell = Cell(f'# {nasty}: A. B, "C" (2000)\nh[t] = tanh(W @ x[t] + U @ h[t-1])')
    found = cell.trace()
    assert nasty in worked_text.text(found)
    latex = worked_latex.text(found)
    assert r"\textbackslash{}input\{x\} \$a\$ 100\% \& \#1" in latex
    assert r"$\tilde{v}$ $\lambda_{h}$" in latex
    markdown = worked_markdown.text(found).splitlines()[0]
    assert r"\<script\>" in markdown and r"\`c\`" in markdown and r"\[l\]" in markdown


def test_json_can_be_read_back_as_values() -> None:
    cell = Cell.load("gru")
    found = cell.trace(seed=4, length=3)
    data = json.loads(worked_json.text(found))
    again = cell.trace(data["given"], rate=data["rate"])
    assert again.seed is None
    assert json.loads(worked_json.text(again))["updates"] == data["updates"]


def test_json_has_no_word_for_what_is_not_finite() -> None:
    cell = Cell("input x: H\nh[t] = sqrt(x[t]) + 0 * h[t-1]")
    values = {"inputs": {"x": [[0]]}, "gradients": {"h": [[1]]}}
    with np.errstate(all="ignore"):
        found = cell.trace(values)
    assert "inf" in worked_text.text(found)
    with pytest.raises(UserError, match=r"`d_x` is inf somewhere, which JSON cannot say"):
        worked_json.text(found)


def test_the_library_has_one_example() -> None:
    assert [name for name in cells.names() if cells.example(name)] == ["gomez"]
