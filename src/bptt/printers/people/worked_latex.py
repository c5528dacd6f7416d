"""A worked example as LaTeX: a whole document of aligned equations, on paper as wide as it needs.

pdflatex sets the letters of Latin and Greek. A document with others says so at its top: there
pdflatex sets their numbers, lualatex the letters, in a font that has them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from types import MappingProxyType
from typing import ClassVar

from bptt.ir.dims import shape_of
from bptt.ir.program import Node
from bptt.printers.expr import Binds, Piece
from bptt.printers.people.latex import Latex, symbol
from bptt.printers.people.reading import Name
from bptt.printers.people.reasons import Reason, plain_reason
from bptt.printers.people.worked import (
    RATE_DIGITS,
    Array,
    AtStep,
    Item,
    Numbers,
    Update,
    Worked,
    facts,
    givens,
    sections,
    shown,
)

_NEXT = r" \\ "
_BETWEEN = r",\quad "
_ROW = 84  # digits, about, that are as wide as a row of A4
_WIDEST = 400  # digits, about: what is wider than this is on no page
_MOST = 4  # entries of a vector, or along an axis of a matrix, that are all shown
_MARGIN, _LETTER, _PAPER = 20, 2.0, 210  # mm: of a page, of a digit, of A4

_HEAD = r"""%s\documentclass[10pt,fleqn]{article}
%s
\usepackage{amsmath}
\usepackage[paperwidth=%smm,paperheight=297mm,margin=%smm]{geometry}
\setlength{\parindent}{0pt}
\allowdisplaybreaks
\begin{document}
"""
_LETTERS = r"""\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}"""
_FOREIGN = r"""\usepackage{iftex}
\ifPDFTeX
%s
%s
\else
\usepackage{fontspec}
%% \setmainfont{...}
\fi"""
_ADVICE = """\
%% pdflatex cannot set these letters:
%s
%% It shows the number of each in a box. To see the letters, take lualatex, and name in
%% \\setmainfont, below, a font that has them.
"""


def text(worked: Worked, digits: int = 5) -> str:
    """A worked example as a document. `digits`: decimals of its numbers."""
    parts = list(blocks(worked, digits))
    widest = max((_columns(row) for _, rows in parts for row in rows), default=0)
    width = max(_PAPER, round(_LETTER * widest) + 2 * _MARGIN)
    body = [rf"\section*{{{words(worked.title_line())}}}", words(" ".join(facts(worked)))]
    for heading, rows in parts:
        body.append(rf"\subsection*{{{words(heading)}}}")
        body.append("\n".join((r"\begin{align*}", *ended(rows), r"\end{align*}")))
    shown = "\n\n".join(body)
    return _HEAD % (*_encoding(shown), width, _MARGIN) + shown + "\n\\end{document}\n"


def _encoding(body: str) -> tuple[str, str]:
    """What goes first, and what makes a body's letters known to LaTeX."""
    foreign = sorted({c for c in body if not c.isascii() and not _is_known(c)})
    if not foreign:
        return "", _LETTERS
    named = [f"%   {c} U+{ord(c):04X} {unicodedata.name(c, '')}".rstrip() for c in foreign]
    boxes = [rf"\DeclareUnicodeCharacter{{{ord(c):04X}}}{{{_box(c)}}}" for c in foreign]
    return _ADVICE % "\n".join(named), _FOREIGN % (_LETTERS, "\n".join(boxes))


def _is_known(c: str) -> bool:
    """Whether pdflatex can set a character that is not ASCII."""
    return ("\u00a0" <= c < chr(_LATIN) and c not in _UNKNOWN) or c in _PUNCTUATION


def _box(c: str) -> str:
    return rf"{{\tiny\fbox{{{ord(c):04X}}}}}"


def blocks(worked: Worked, digits: int) -> Iterator[tuple[str, list[str]]]:
    """The parts of an example: headings, and rows to stand where `&` aligns."""
    found = _Blocks(worked, digits)
    for heading, values in givens(worked):
        first, *rest = (found.value(*value) for value in values)
        yield _capital(heading), _rows(f"&{first}", (_BETWEEN + value for value in rest), "")
    for heading, items in sections(worked.steps):
        yield _capital(heading), [row for item in items for row in found.item(item, "steps")]
    for heading, items in sections(worked.back):
        yield _capital(heading), [row for item in items for row in found.item(item, "back")]
    if worked.updates:
        heading = f"After one step of gradient descent, with the learning rate {found.rate}"
        yield heading, [row for update in worked.updates for row in found.update(update)]


def ended(rows: list[str]) -> Iterator[str]:
    """Rows of formulas, each but the last with its end."""
    yield from (row + r" \\" for row in rows[:-1])
    yield from rows[-1:]


def _capital(heading: str) -> str:
    return heading[0].upper() + heading[1:]


class _Symbols(AtStep, Latex):
    pass


class LatexNumbers(Numbers, Latex):
    """Expressions with numbers; of what is large the first ones."""

    times = "times"
    signs: ClassVar[Mapping[str, tuple[str, Binds]]] = MappingProxyType(
        {**Latex.signs, "times": (r" \times ", Binds.PRODUCT)}
    )

    def numeral(self, x: float) -> Piece:
        text = shown(x, self.digits)
        mantissa, e, exponent = text.partition("e")
        if e:
            text = rf"{mantissa} \times 10^{{{exponent}}}"
        loose = Binds.SUM if x < 0 else Binds.PRODUCT if e else Binds.ATOM
        return Piece(text, loose, "number")

    def array(self, value: Array) -> str:
        rows = value.reshape(-1, 1) if value.ndim == 1 else value
        found = [" & ".join(self.entries(row)) for row in rows[:_MOST]]
        if len(rows) > _MOST:
            found[-1] = " & ".join([r"\vdots"] * min(rows.shape[1], _MOST))
        return rf"\begin{{bmatrix}} {_NEXT.join(found)} \end{{bmatrix}}"

    def entries(self, row: Array) -> list[str]:
        found = [self.numeral(float(x)).text for x in row[:_MOST]]
        return found if len(row) <= _MOST else [*found[:-1], r"\cdots"]

    def wide(self, n: Node) -> bool:
        """Whether a value is shown as a vector or a matrix."""
        return prod(shape_of(n.dims, self.worked.sizes)) > 1

    def binary(self, op: str, left: Piece, right: Piece) -> Piece:
        return super().binary(
            "times" if op == "matmul" and "number" in (left.op, right.op) else op, left, right
        )

    def print_mul(self, n: Node, pieces: list[Piece]) -> Piece:
        vectors = all(map(self.wide, self.form(n)[1]))
        return self.binary("mul" if vectors else "times", *pieces)

    def print_dot(self, n: Node, pieces: list[Piece]) -> Piece:
        if not self.wide(self.form(n)[1][0]):
            return self.binary("times", *pieces)
        return super().print_dot(n, pieces)

    def print_pow(self, n: Node, pieces: list[Piece]) -> Piece:
        if n.args[0].op != "ref":
            return super().print_pow(n, pieces)
        exponent = super().print_pow(n, [Piece("x")]).text.rpartition("^")[2]
        return Piece(f"{self.bracket(pieces[0], Binds.ATOM)}^{exponent}")


class _Blocks:
    def __init__(self, worked: Worked, digits: int) -> None:
        self.worked = worked
        self.rate = shown(worked.rate, RATE_DIGITS)
        passes = (("steps", worked.forward), ("back", worked.backward))
        self.symbols = {part: _Symbols(found) for part, found in passes}
        self.numbers = {p: LatexNumbers(found).given(worked, digits) for p, found in passes}

    def value(self, name: Name, time: str, value: Array) -> str:
        """A value that is given."""
        return f"{self.symbols['back'].symbol(name, time)} = {self.number(value).text}"

    def number(self, value: Array) -> Piece:
        return self.numbers["back"].value(value)

    def item(self, item: Item, part: str) -> Iterator[str]:
        """A line in symbols, in numbers, and what comes out, with the reason behind it."""
        symbols, numbers = self.symbols[part], self.numbers[part]
        sides = [symbols.right_at(item), numbers.right_at(item)]
        if item.split is not None:
            sides.append([numbers.sum(*item.split)])
        sides.append([self.number(item.value).text])
        yield from _equation(f"{symbols.left_at(item)} &= ", sides, item.why)

    def update(self, update: Update) -> Iterator[str]:
        """A parameter after the step."""
        name = symbol(update.name)
        line = self.worked.spelled(update.line) if update.line is not None else None
        gradient = "0" if line is None else self.symbols["back"].symbol(line, "")
        before, by, after = map(self.number, (update.before, update.gradient, update.after))
        bracketed = self.numbers["back"].bracket(by, Binds.NEG)
        sides = [
            [name, rf" - {self.rate} \, {gradient}"],
            [before.text, rf" - {self.rate} \times {bracketed}"],
            [after.text],
        ]
        yield from _equation(rf"{name} &\leftarrow ", sides, ())


def _equation(left: str, sides: list[list[str]], why: Reason) -> Iterator[str]:
    """`left &= side`, below it `&= side` and so on, without sides that say nothing new."""
    found: list[str] = []
    for k, side in enumerate(sides):
        if "".join(side) in map("".join, sides[k + 1 :]):
            continue
        rows = _rows(f"{'&= ' if found else left}{side[0]}", side[1:])
        fits = max(map(_columns, rows)) <= _WIDEST
        found += rows if fits else [rf"{'&= ' if found else left}\cdots"]
    if why and _columns(found[-1]) + len(plain_reason(why)) < _ROW:
        found[-1] += rf" \qquad {_reason(why)}"
    elif why:
        found.append(rf"&\quad {_reason(why)}")
    yield from found


def _rows(first: str, rest: Iterable[str], indent: str = r"\quad ") -> list[str]:
    """Pieces put together to rows that are as wide as a page allows."""
    found = [first]
    for piece in rest:
        if _columns(found[-1]) + _columns(piece) > _ROW:
            found.append(rf"&{indent}{piece.removeprefix(_BETWEEN).strip()}")
        else:
            found[-1] += piece
    return found


def _columns(row: str) -> int:
    """About how many digits wide a row of formulas is."""
    row = re.sub(r"\\begin\{bmatrix\}(.*?)\\end\{bmatrix\}", _matrix, row)
    row = re.sub(r"\\(?:text|footnotesize|mathrm|operatorname)(?![a-z])", "", row)
    row = re.sub(r"\\(?:tanh|sin|cos|exp|log|max|min)(?![a-z])", "xxxx", row)
    row = re.sub(r"\\(?:times|odot|otimes|leftarrow|qquad|quad)(?![a-z])|[-+=] ", "xxx", row)
    return len(re.sub(r"[{}^_&\s]", "", re.sub(r"\\[a-zA-Z]+|\\.", "x", row)))


def _matrix(found: re.Match[str]) -> str:
    """A matrix as so many letters: its columns and what is between them."""
    rows = [row.split("&") for row in found[1].split(r"\\")]
    widths = [max(len(cell.strip()) for cell in column) for column in zip(*rows, strict=True)]
    return "x" * (sum(widths) + 2 * len(widths) + 1)


def _reason(reason: Reason) -> str:
    """A reason as a formula, words within it as text."""
    return "".join(
        rf"\text{{\footnotesize {words(part)}}}"
        if isinstance(part, str)
        else symbol(part.name, part.time)
        for part in reason
    )


_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "{}$&#%_"},
}
_LATIN = 0x180  # Unicode: letters before it are known to every LaTeX, but for these
_UNKNOWN = frozenset("\u00b8\u0126\u0127\u0138\u013f\u0140\u0149\u0166\u0167\u017f")
_PUNCTUATION = frozenset("\u2010\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u2026")


def words(said: str) -> str:
    """Words as text; a word with a letter that is not Latin is a formula."""
    return "".join(map(_spelled, re.split(r"(\w[\w\u0300-\u036f]*)", said)))


def _spelled(word: str) -> str:
    word = unicodedata.normalize("NFC", word)
    if all(ord(c) < _LATIN for c in word) or not word[0].isalpha():
        return "".join(_ESCAPED.get(c, c) for c in word if c.isprintable())
    return f"${symbol(word)}$"
