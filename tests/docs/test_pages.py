"""A page for each cell in docs/cells/: what `bptt derive NAME --format md` prints, and an index.

`BPTT_UPDATE_GOLDEN=1 pytest tests/docs/test_pages.py` writes them anew, also for cells that are
new. That their code runs is for test_docs.py to see.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from bptt import cells
from bptt.cell import Cell

PAGES = Path(__file__).parent.parent.parent / "docs" / "cells"
INDEX = "README.md"


INTRODUCTION = """\
# The cells

{} cells come with `bptt`, each with a page: its equations and where they are from, what every name
is, its backward pass, and how to use it in PyTorch. `bptt derive mine.cell --format md` prints such
a page for a cell of yours.

*Phases* are the parts of a step that wait for each other, forward/backward: the fewer, the faster.
*Needs* is what a layer must be given beside one input and the widths. *Same numbers as*: libraries
whose cell was run beside ours: values, and gradients where the library has them.
"""


@cache
def page(name: str) -> str:
    return Cell.load(name).derivation(format="md")


def index() -> str:
    return "\n".join(_index())


def _index() -> Iterator[str]:
    yield INTRODUCTION.format(len(cells.names()))
    for family, names in cells.families().items():
        about = cells.FAMILIES.get(family, "others")
        yield from (f"## {family}", "", f"{about[0].upper()}{about[1:]}.", "")
        yield "| cell | | year | phases | states | needs | same numbers as |"
        yield "|---|---|---|---|---|---|---|"
        yield from (*map(_row, names), "")


def _row(name: str) -> str:
    cell = Cell.load(name)
    forward, backward = cell.plans().phases
    states = ", ".join(f"`{s}`" for s in cell.states)
    libraries = re.findall(r"\((\S+) [\d.]+\)", "; ".join(cell.about.equals))
    return (
        f"| [{name}]({name}.md) | {cell.about.title} | {cell.about.year} | {forward}/{backward}"
        f" | {states} | {cell.needs.text()} | {', '.join(dict.fromkeys(libraries))} |"
    )


def held(file: str, text: str) -> None:
    path = PAGES / file
    if os.environ.get("BPTT_UPDATE_GOLDEN"):
        PAGES.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"BPTT_UPDATE_GOLDEN=1 pytest {Path(__file__).name} writes {file}"
    assert path.read_text(encoding="utf-8") == text


def test_a_page_is_what_derive_prints(cell: str) -> None:
    held(f"{cell}.md", page(cell))


def test_the_index_lists_every_cell() -> None:
    held(INDEX, index())


def test_no_page_is_left_over() -> None:
    found = sorted(path.name for path in PAGES.iterdir())
    assert found == sorted([INDEX, *(f"{name}.md" for name in cells.names())])


# --- formulas -------------------------------------------------------------------------------------

REFUSED = ("operatorname", "mbox", "phantom")  # by GitHub


def faults(formula: str) -> list[str]:
    """What a reader of LaTeX would stumble over."""
    found = [f"\\{word} is not shown" for word in REFUSED if f"\\{word}" in formula]
    depth = 0
    for c in formula:
        depth += (c == "{") - (c == "}")
        if depth < 0:
            break
    if depth:
        found.append("braces")
    if len(re.findall(r"\\left\b", formula)) != len(re.findall(r"\\right\b", formula)):
        found.append("left and right")
    if re.search(r"_[^{]|\^[^{]", formula.replace(r"\_", "")):
        found.append("a subscript without braces")
    if re.search(r"_\{[^{}]*(\{[^{}]*\}[^{}]*)*\}_", formula):
        found.append("a subscript of a subscript")
    if any(not c.isascii() for c in re.sub(r"\\text\{[^}]*\}", "", formula)):
        found.append("letters outside of \\text")
    rows = [row for row in formula.split("\n") if not row.startswith(("\\begin", "\\end"))]
    if any(row.count("&") != 1 for row in rows):
        found.append("a row that is not aligned once")
    if [row.endswith("\\\\") for row in rows] != [True] * (len(rows) - 1) + [False]:
        found.append("rows that do not end")
    return found


def test_formulas_are_well_formed(cell: str) -> None:
    formulas = re.findall(r"^```math\n(.*?)^```$", page(cell), re.MULTILINE | re.DOTALL)
    assert len(formulas) >= 3
    for formula in formulas:
        assert formula.startswith("\\begin{aligned}\n")
        assert formula.endswith("\\end{aligned}\n")
        assert faults(formula.strip()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        r"a &= {b",
        r"a &= b}{",
        r"a &= \left(b)",
        r"a &= h_t",
        r"a &= h_{t}_{k}",
        r"a &= \operatorname{f}(b)",
        r"a &= é",
        r"a = b",
        "a &= b\nc &= d",
    ],
)
def test_a_fault_is_seen(wrong: str) -> None:
    assert faults(wrong)
    well = (r"a_{i,t} &= \text{é}(b) \\", r"c &= \left[b_{\mathrm{in}}\right]")
    assert not faults("\n".join(well))
