"""What notebooks show: well-formed, in the notebook's colours, no stranger's text as markup."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import pytest
from programs import PROGRAMS
from subjects import CORE

from bptt import derive
from bptt.cell import Cell
from bptt.ir.program import Program, Shown
from bptt.printers.people import notebook
from bptt.printers.people.notebook import program_html

Element = ElementTree.Element

HTML = set("div p strong span table tr th td pre code wbr".split())
MATHML = set(
    "math mrow mi mn mo mtext mspace mfrac msqrt msup msub msubsup mover munder mtable mtr"
    " mtd".split()
)


def parsed(text: str | None) -> Element:
    assert text is not None
    root = ElementTree.fromstring(text)
    for element in root.iter():
        assert element.tag in HTML | MATHML, element.tag
        for name, value in element.items():
            assert name in {"style", "displaystyle", "form", "stretchy", "accent", "width"}
            # the notebook's colours, light or dark, and no font of our own
            assert "color:" not in value.replace("color:inherit", "")
            assert "url" not in value and "position" not in value
    return root


def words(element: Element) -> str:
    return "".join(element.itertext()).replace("\u2061", "")


def test_every_cell_shows_its_title_its_equations_and_its_names(cell: str) -> None:
    found = Cell.load(cell)
    root = parsed(found._repr_html_())
    assert words(root).startswith(found.about.title)
    assert found.about.citation in words(root)
    assert root.find(".//table") is not None


def test_what_a_cell_shows() -> None:
    root = parsed(Cell("# Elman\nh[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n")._repr_html_())
    assert [words(e) for e in root.iter("strong")] == ["Elman"]
    grid = next(e for e in root if "grid" in (e.get("style") or ""))
    assert words(grid) == "ht=tanh(Wxt+Uht−1+b)"
    rows = [[words(cell) for cell in row] for row in root.iter("tr")]
    assert rows == [
        ["x", "input", "X"],
        ["h", "state and output, 0 before the first step", "H"],
        ["W", "parameter", "H × X"],
        ["U", "parameter", "H × H"],
        ["b", "parameter", "H"],
    ]


def test_a_name_stands_for_a_title_that_is_not_there() -> None:
    cell = Cell("state h: H\nh[t] = tanh(h[t-1])\n", name="mine")
    assert words(parsed(cell._repr_html_())).startswith("mineht=tanh(ht−1)")


def test_what_is_too_long_for_formulas_is_text() -> None:
    root = parsed(Cell.load("hyper_lstm").backward._repr_html_())
    shown = root.find("pre")
    assert shown is not None
    assert words(shown).startswith("sweep descending")


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_shows_its_lines_forward_and_backward(name: str) -> None:
    p = PROGRAMS[name]()
    for each in (p, derive(p), derive(derive(p))):
        root = parsed(each._repr_html_())
        lines = [e for e in root.iter("div") if e.get("style") == "text-align:right"]
        assert root.find("pre") is not None or len(lines) == len(each.equations)
        assert root.find("pre") is not None or "$" not in words(root)


@pytest.mark.parametrize("name", CORE)
def test_the_passes_of_a_cell_show_their_lines(name: str) -> None:
    cell = Cell.load(name)
    for p in (cell.program, cell.lowered, cell.backward):
        root = parsed(p._repr_html_())
        lines = [words(e) for e in root.iter("div") if e.get("style") == "text-align:right"]
        assert len(lines) == len(set(lines)) == len(p.equations)
        assert "$" not in words(root)


def test_names_of_the_machine_are_spelled_as_formulas() -> None:
    said = words(parsed(Cell.load("gomez").backward._repr_html_()))
    assert said.startswith("Program for t = T−1, ..., 0")
    assert "δza,t=δat⊙(1−at2)" in said
    assert "carrystate,t=δstatet⊙ft" in said
    assert "εxt=" in said
    before, after = said.split("After the last step")
    assert "∑" not in before
    assert after.count("∑") == 12


def test_names_that_would_look_alike_are_told_apart() -> None:
    # the author's z_h beside the machine's z$h, the argument of tanh
    p = Cell("z_h[t] = W @ x[t]\nh[t] = tanh(z_h[t] + U @ h[t-1])\n").lowered
    root = parsed(program_html(p))
    lines = [words(e) for e in root.iter("div") if e.get("style") == "text-align:right"]
    assert len(set(lines)) == len(p.equations)
    assert "zh,t" in lines


# --- worked examples ------------------------------------------------------------------------------


def rows_of(root: Element) -> list[list[str]]:
    return [[words(cell) for cell in row] for row in root.iter("tr")]


def test_a_worked_example_shows_values_at_every_step() -> None:
    rows = rows_of(parsed(Cell.load("gomez").trace()._repr_html_()))
    assert ["", "t=0", "t=1"] in rows
    assert ["outt=tanh(statet)⊙ot", "0.53631", "0.77198"] in rows
    assert ["δstate−1=δstate0⊙f0", "−0.04557"] in rows
    assert ["ba", "0.2", "0.20364"] in rows


def test_of_many_steps_the_first_and_the_last_are_shown() -> None:
    root = parsed(Cell.load("rnn").trace(length=20)._repr_html_())
    head = next(row for row in rows_of(root) if "t=0" in row)
    assert head[-2:] == ["t=6", "t=19"]


@pytest.mark.parametrize("name", CORE)
def test_every_worked_example_is_well_formed(name: str) -> None:
    parsed(Cell.load(name).trace()._repr_html_())


# --- safety, and what it needs --------------------------------------------------------------------

NASTY = "<script>alert(1)</script>"


def test_nothing_of_a_user_becomes_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    head = f'# {NASTY}: {NASTY}, "{NASTY}" (2020)\n# {NASTY}\n'
    text = f"{head}h[t] = tanh(W @ x[t] + h[t-1])  # {NASTY}\ninit W = 1  # {NASTY}\n"
    cell = Cell(text, name=NASTY)
    assert NASTY in words(parsed(cell._repr_html_()))
    parsed(cell.trace()._repr_html_())
    parsed(cell.backward._repr_html_())
    monkeypatch.setattr(notebook, "_LONGEST", 0)
    assert NASTY in words(next(parsed(cell._repr_html_()).iter("pre")))


def test_it_needs_numpy_alone() -> None:
    code = (
        "import sys, bptt\n"
        "cell = bptt.load('gomez')\n"
        "for thing in (cell, cell.program, cell.backward, cell.trace()):\n"
        "    assert '<math' in thing._repr_html_()\n"
        "outside = {'torch', 'click', 'rich', 'matplotlib', 'IPython'}\n"
        "assert not outside & {name.split('.')[0] for name in sys.modules}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_renderer_there_is_nothing_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    p: Program = Cell.load("rnn").program
    assert p._repr_html_() == notebook.html(p)
    monkeypatch.setattr(Shown, "renderer", None)
    assert p._repr_html_() is None
