"""Writes docs/errata.md: what `bptt check` says of the five documents that bptt grew from.

docs/documents/ holds their backward passes. Above each line stands the equation as printed, as
`# printed:`; remarks on the reading are comments below it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import bptt
from bptt.proof.verdicts import Judgement, LineVerdict, share

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ROOT / "docs" / "documents"
PAGE = ROOT / "docs" / "errata.md"
NAMES = ("gomez", "shakespeare", "sancho", "iosif", "jimenez")
PRINTED = "# printed: "

_HEAD = """\
# Errata of five documents

`bptt` grew from five documents that derive the backward pass of an LSTM. This page is what `bptt
check` says of them: every printed equation of a backward pass, how we read it, and whether it is
right. It is made by `python scripts/errata.py`, and a test keeps it fresh.

Where a notation is loose (a product side by side, a row for a column, a sum that is left out) the
reading is the most charitable one; the files in [documents](documents) keep print and reading
apart. Each line is judged with exact values of all that it reads, so one wrong line does not
blame its neighbours. *Right if* means that a line holds only under that condition. Names: `d_h`
is the gradient by h, `dz_i` that by the argument of i's function, `direct_h` what h gets from the
loss at its own step, `next_h` what it gets from the step after, `now_h` the rest of its gradient,
and `jac(h[t], c[t])` the matrix of the derivatives of h[t] by c[t].
"""


@dataclass
class Printed:
    """An equation as printed, what we say of our reading, and the lines that are the reading."""

    tex: list[str]
    remarks: list[str] = field(default_factory=list)
    first: int = 0
    last: int = 0


def printed(text: str) -> list[Printed]:
    """The printed equations of a document's file, each with the lines below it."""
    found: list[Printed] = []
    for number, row in enumerate(text.splitlines(), 1):
        if row.startswith(PRINTED):
            if found and not found[-1].first and not found[-1].remarks:
                found[-1].tex.append(row.removeprefix(PRINTED))
            else:
                found.append(Printed([row.removeprefix(PRINTED)]))
        elif row.startswith("# ") and found and not found[-1].first:
            found[-1].remarks.append(row.removeprefix("# "))
        elif row.strip() and not row.startswith("#") and found:
            found[-1].first = found[-1].first or number
            found[-1].last = number
    return found


def page() -> str:
    """The text of the page."""
    documents = [document(name) for name in NAMES]
    wrong = [row for d in documents for row in d.short]
    rows = [_HEAD, "## In short\n", *wrong, "", *(row for d in documents for row in d.rows)]
    return "\n".join([*rows, *digits()]).rstrip() + "\n"


@dataclass
class Document:
    """The part of the page on one document, and its wrong lines in a list."""

    short: list[str]
    rows: list[str]


@cache
def verdicts(name: str) -> tuple[bptt.Cell, Judgement]:
    """A document's cell, and what is said of its pass."""
    cell = bptt.load(DOCUMENTS / f"{name}.cell")
    return cell, cell.judge()


def document(name: str) -> Document:
    """The part of the page on one document."""
    cell, found = verdicts(name)
    whole = bptt.load(DOCUMENTS / f"{name}_corrected.cell").judge().whole
    judged = [line for line in found.lines if line.verdict != "defined"]
    wrong = [line for line in judged if line.verdict == "wrong"]
    conditional = [line for line in judged if line.verdict == "conditional"]
    title = cell.about.title.removeprefix("The backward pass of ")
    rows = [f"## {title}\n"]
    said = f"Of {len(judged)} lines, {len(wrong)} {'is' if len(wrong) == 1 else 'are'} wrong"
    if conditional:
        said += f" and {len(conditional)} right under a condition"
    right = "right" if whole.verdict == "right" else f"right if {whole.when},"
    rows.append(f"{said} (`bptt check docs/documents/{name}.cell`).")
    rows.append(
        f"[Corrected](documents/{name}_corrected.cell), the pass is {right} from end to end.\n"
    )
    for equation in printed(cell.text):
        lines = [x for x in found.lines if equation.first <= x.number <= equation.last]
        rows += shown(equation, lines) if lines else []
    short = [f"- {name.capitalize()}: `{x.text}` {'; '.join(x.differs)}." for x in wrong]
    return Document(short, rows)


def digits() -> Iterator[str]:
    """The printed numbers of the worked example that are not the exact ones, rounded."""
    known = tomllib.loads((DOCUMENTS / "gomez_digits.toml").read_text("utf-8"))["digits"]
    yield "## The digits of A. Gomez's example\n"
    yield f"Of his 64 printed results {len(known)} differ in their last digits from the exact"
    yield "value, rounded: he went on with rounded numbers. `bptt trace gomez` has the exact ones."
    yield "`d_` is his δ, `Δout[1]` goes back from step 1, `d_x1` is the first number of δx, `W1`"
    yield "the first column of W, and `new` means updated.\n"
    yield "| result | printed | exact |\n|---|---|---|"
    for row in known:
        yield f"| {row['what']} | {row['printed']} | {row['exact']} |"


def shown(equation: Printed, lines: list[LineVerdict]) -> Iterator[str]:
    """One printed equation with its reading and the verdict."""
    for tex in equation.tex:
        yield f"```math\n{tex}\n```\n"
    if equation.remarks:
        yield f"*{' '.join(equation.remarks)}*\n"
    yield "```text"
    yield from (line.text for line in lines)
    yield "```\n"
    yield from verdict(lines)


def verdict(lines: list[LineVerdict]) -> Iterator[str]:
    """The verdict on the lines of one printed equation."""
    kinds = {line.verdict for line in lines}
    if kinds == {"defined"}:
        yield "A definition.\n"
    elif kinds <= {"defined", "right"}:
        yield "Right.\n"
    for line in lines:
        which = "" if len(lines) == 1 else f", `{line.text}`"
        if line.verdict == "conditional":
            yield f"**Right if {line.when}**{which}; else off by {share(line.error)}.\n"
        elif line.verdict == "wrong":
            off = line.note or f"off by {share(line.error)}"
            yield f"**Wrong**{which}: {off}; it {'; it '.join(line.differs)}. It should be\n"
            yield "```text"
            yield from line.derived
            yield "```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
