"""Lines of text to tokens. Text is NFKC-normalised here, once; spans stay the text's own."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from bptt.errors import CellError, Span


class Limits(NamedTuple):
    """What a text from outside may cost."""

    size: int = 64 * 1024
    lines: int = 500
    nodes: int = 20_000
    nesting: int = 200


# What the machine writes for itself: the second derivative of a large cell is long, but bounded.
MACHINE_LIMITS = Limits(size=4 * 1024 * 1024, lines=20_000, nodes=500_000)


class Token(NamedTuple):
    """`kind` is `name`, `number`, `op` or `end`; `text` is normalised, `span` is as written."""

    kind: str
    text: str
    span: Span


# Marks that stand on letters (c̃, ĥ): not `\w` for `re`.
_MARKS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
_PATTERN = (
    r"(?P<space>[^\S\r]+)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    rf"|(?P<name>NAME[\wMORE{_MARKS}]*)"
    r"|(?P<op>\*\*|\+=|==|[-+*/@()\[\],=:.'])"
    r"|(?P<comment>\#.*)"
)
_USER = re.compile(_PATTERN.replace("NAME", r"[^\W\d]").replace("MORE", ""))
_MACHINE = re.compile(_PATTERN.replace("NAME", r"(?:[^\W\d]|\$)").replace("MORE", "$"))

# A paper's signs that mean one thing only.
_SIGNS = {"⊙": "*", "∘": "*", "•": "*", "∗": "*", "−": "-"}

# i'[t] is a name of its own. Its prime is written as a letter: f'(v) stays a derivative.
_PRIMED = re.compile(r"(?<=[\w'\u2032])['\u2032](?=['\u2032]*\[)")
PRIME = "\u02b9"

_LATEX = "LaTeX is not read: write `h[t-1]` for h_{t-1}, `sigmoid` or `σ`, `*` or `⊙`, `@`"
_PRODUCT = "a product is `*` elementwise, `@` with a matrix, `dot(v, w)` of two vectors"
_HELP = {
    "\\": _LATEX,
    "{": _LATEX,
    "}": _LATEX,
    "$": "names with `$` are made by the machine; LaTeX is not read",
    "^": "a power is written `x**2`, a transpose `W.T`",
    "|": "an absolute value is written `abs(v)`",
    "·": _PRODUCT,
    "⋅": _PRODUCT,
    "×": _PRODUCT,
    "⊗": "an outer product is written `outer(v, w)`",
    ";": "one equation a line",
    "%": "a comment begins with `#`",
    "&": "one equation a line, without alignment marks",
    "<": "a cell has no comparisons: `max`, `min` and `relu` choose",
    ">": "a cell has no comparisons: `max`, `min` and `relu` choose",
    "!": "a cell has no comparisons: `max`, `min` and `relu` choose",
    "?": "a cell has no comparisons: `max`, `min` and `relu` choose",
    '"': "a cell holds names and numbers, no strings",
    "–": "a minus is written `-`",
    "—": "a minus is written `-`",
    "′": "a cell gives no derivatives: they follow from it",
}


def split(source: str, limits: Limits) -> list[str]:
    """The lines of a text, without their ends."""
    if len(source) > limits.size or len(source.encode("utf-8", "replace")) > limits.size:
        raise CellError(
            f"the text is larger than {limits.size // 1024} KiB",
            help="a cell is a handful of equations",
        )
    return [line.removesuffix("\r") for line in source.split("\n")]


def tokens(source: str, number: int, line: str, *, machine: bool = False) -> list[Token]:
    """The tokens of one line, the last of them its `end`. `number` counts from 1."""
    start = 1 if number == 1 and line.startswith("\ufeff") else 0
    text, origin = _normalised(source, number, line)
    pattern = _MACHINE if machine else _USER
    found: list[Token] = []
    end = start
    while start < len(text):
        match = pattern.match(text, start)
        if match is None:
            raise _unexpected(source, number, line, origin[start])
        kind = match.lastgroup or ""
        if kind == "comment":
            break
        if kind != "space":
            said = match.group()
            if kind == "name" and not said.isascii():
                said = unicodedata.normalize("NFKC", said)
            span = Span(source, number, origin[start], origin[match.end()])
            found.append(Token(kind, said, span))
            end = span.end
        start = match.end()
    found.append(Token("end", "", Span(source, number, end, end)))
    return found


def _normalised(source: str, number: int, line: str) -> tuple[str, range | list[int]]:
    """The line in NFKC, and for each of its characters (and its end) the column it came from."""
    if "'" in line or "\u2032" in line:
        line = _PRIMED.sub(PRIME, line)
    if line.isascii():
        return line, range(len(line) + 1)
    text: list[str] = []
    origin: list[int] = []
    comment = line.find("#")
    start = 0
    while start < len(line):
        end = start + 1
        while end < len(line) and unicodedata.combining(line[end]):
            end += 1
        if start < comment or comment < 0:
            _refuse_script(source, number, line, start)
        plain = _SIGNS.get(line[start:end]) or unicodedata.normalize("NFKC", line[start:end])
        text.append(plain)
        origin += [start] * len(plain)
        start = end
    return "".join(text), [*origin, len(line)]


def _refuse_script(source: str, number: int, line: str, at: int) -> None:
    """Raised and lowered letters that NFKC would melt into a name: `x²`, `Wᵀ`, `hₜ`."""
    char = line[at]
    form = unicodedata.decomposition(char)
    span = Span(source, number, at, at + 1)
    if form.startswith("<super>"):
        raise CellError(
            f"`{char}` is a superscript",
            span,
            help="write `x**2` for a power, `W.T` for a transpose",
        )
    if form.startswith("<sub>") and not char.isdigit():
        help = "write `h[t]` and `h[t-1]` for time, `W_i` in names"
        raise CellError(f"`{char}` is a subscript", span, help=help)


def _unexpected(source: str, number: int, line: str, at: int) -> CellError:
    char = line[at]
    shown = f"`{char}`" if char.isprintable() else f"U+{ord(char):04X}"
    span = Span(source, number, at, at + 1)
    if char == "\r":
        what = "a line ends in a carriage return alone"
        return CellError(what, span, help="end lines with a line feed")
    return CellError(f"unexpected character {shown}", span, help=_HELP.get(char))
