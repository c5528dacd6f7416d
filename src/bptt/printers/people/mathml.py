"""A derivation as MathML Core, for browsers and notebooks: the same signs as in LaTeX.

Every name comes from a stranger's text, so all that is not ours is escaped, in one place: `leaf`.
An equation is several `math` elements, one a term, between which a browser may end a row: no
browser but one breaks a formula by itself.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar

from bptt.ir.dims import Dim, add_dims, terms
from bptt.ir.program import Node
from bptt.printers.expr import Binds, Piece
from bptt.printers.people.layout import Spelled, letters, number
from bptt.printers.people.reading import Line, Name

BREAK = "<wbr/>"  # where a row of an equation may end
_ACCENTS = {
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "¯",
    "\u0307": "˙",
    "\u0308": "¨",
    "\u20d7": "→",
}
_GREEK = {
    name.capitalize() if case == "CAPITAL" else name: unicodedata.lookup(
        f"GREEK {case} LETTER {'LAMDA' if name == 'lambda' else name.upper()}"
    )
    for case in ("SMALL", "CAPITAL")
    for name in "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho"
    " sigma tau upsilon phi chi psi omega".split()
}
_WHATS = {"d": "<mi>δ</mi>", "direct": "<mi>Δ</mi>", "e": "<mi>ε</mi>"}
_THIN = '<mspace width="0.17em"/>'
_TURNED = "<mi>⊤</mi>"
_APPLIED = "<mo>\u2061</mo>"
_ALONE = re.compile(r"<(m[ino])>[^<]*</\1>")
_LONG_TERM = 150  # characters of a term that may be cut
_TAG = re.compile("<[^>]*>")
_TALL = ("<mfrac>", "<mtable>", "<msqrt>")


class MathML(Spelled):
    """Expressions as MathML, each a row of elements."""

    language = "MathML"
    signs: ClassVar[Mapping[str, tuple[str, Binds]]] = MappingProxyType(
        {
            "add": ("<mo>+</mo>", Binds.SUM),
            "sub": ("<mo>−</mo>", Binds.SUM),
            "mul": ("<mo>⊙</mo>", Binds.PRODUCT),
            "matmul": (_THIN, Binds.PRODUCT),
            "outer": ("<mo>⊗</mo>", Binds.PRODUCT),
        }
    )
    functions: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            name: f"<mi>{name.replace('_', '-')}</mi>"
            for name in "tanh sin cos exp log max min softplus logsigmoid softsign relu sign"
            " positive prefer same unless sum mean softmax log_softmax row put_row embed cumsum"
            " rcumsum repeat fold lower each".split()
        }
        | {"sigmoid": "<mi>σ</mi>", "row_max": "<mi>max</mi>"}
    )

    def symbol(self, name: Name, time: str) -> str:
        return "".join(_WHATS[w] for w in name.what.split()) + symbol(name.stem, time)

    def equation(self, line: Line) -> str:
        """A whole line, in `math` elements between which a row may end."""
        return equation(self.left(line), self.right(line))

    def sum_over_time(self, text: str, binds: Binds) -> Piece:
        inner = self.bracket(Piece(text, binds), Binds.PRODUCT)
        return Piece(f"<munder><mo>∑</mo><mi>t</mi></munder>{inner}", Binds.PRODUCT, "sum")

    def bracket(self, piece: Piece, least: Binds) -> str:
        return piece.text if piece.binds >= least else bracketed("(", piece.text, ")")

    def call(self, name: str, args: Sequence[str]) -> Piece:
        return Piece(name + _APPLIED + bracketed("(", "<mo>,</mo>".join(args), ")"))

    def print_mul(self, n: Node, pieces: list[Piece]) -> Piece:
        """A product with a number is written without a sign."""
        if all(a.dims for a in self.form(n)[1]):
            return self.binary("mul", *pieces)
        a, b = self.bracket(pieces[0], Binds.PRODUCT), self.bracket(pieces[1], Binds.NEG)
        return Piece(f"{a}{_THIN}{b}", Binds.PRODUCT, "mul")

    def print_div(self, n: Node, pieces: list[Piece]) -> Piece:
        over, under = (row(p.text) for p in pieces)
        return Piece(f"<mfrac>{over}{under}</mfrac>", Binds.POWER, "div")

    def print_neg(self, n: Node, pieces: list[Piece]) -> Piece:
        inner = self.bracket(pieces[0], Binds.PRODUCT)
        return Piece(f"<mrow><mo>−</mo>{inner}</mrow>", Binds.SUM, "neg")

    def print_pow(self, n: Node, pieces: list[Piece]) -> Piece:
        exponent, base = signed(number(float.fromhex(n.attr[0]))), n.args[0]
        if base.op in ("tanh", "sin", "cos", "sigmoid", "log") and "<mrow>" not in exponent:
            name = self.functions[base.op]
            return Piece(pieces[0].text.replace(name, raised(name, exponent), 1))
        return Piece(raised(self.bracket(pieces[0], Binds.ATOM), exponent))

    def print_sqrt(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(f"<msqrt>{pieces[0].text}</msqrt>")

    def print_abs(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(bracketed("|", pieces[0].text, "|"))

    def print_dot(self, n: Node, pieces: list[Piece]) -> Piece:
        left = raised(self.bracket(pieces[0], Binds.ATOM), _TURNED)
        return self.binary("matmul", Piece(left), pieces[1])

    def print_outer(self, n: Node, pieces: list[Piece]) -> Piece:
        left, right = (self.bracket(p, Binds.ATOM) for p in pieces)
        return Piece(left + self.signs["outer"][0] + right, Binds.PRODUCT, "outer")

    def print_T(self, n: Node, pieces: list[Piece]) -> Piece:  # noqa: N802
        return Piece(raised(self.bracket(pieces[0], Binds.ATOM), _TURNED))

    def print_concat(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(bracketed("[", "<mo>;</mo>".join(p.text for p in pieces), "]"))

    def print_fill(self, n: Node, pieces: list[Piece]) -> Piece:
        inner = self.bracket(pieces[0], Binds.PRODUCT)
        return Piece(f"{inner}{_THIN}<mn>𝟏</mn>", Binds.PRODUCT, "mul")

    def print_block(self, n: Node, pieces: list[Piece]) -> Piece:
        spans = [
            f"{size(start)}<mo>:</mo>{size(add_dims(start, length))}"
            if length != whole
            else "<mo>:</mo>"
            for (start, length), whole in zip(n.attr, n.args[0].dims, strict=True)
        ]
        shown = self.bracket(pieces[0], Binds.ATOM) + bracketed("[", "<mo>,</mo>".join(spans), "]")
        return Piece(shown)

    def print_embed(self, n: Node, pieces: list[Piece]) -> Piece:
        sizes = [size(d) for span in n.attr for d in span]
        return self.call(self.functions["embed"], [pieces[0].text, *sizes])

    def print_put_row(self, n: Node, pieces: list[Piece]) -> Piece:
        args = [*(p.text for p in pieces), size(n.attr[0])]
        return self.call(self.functions["put_row"], args)

    def print_repeat(self, n: Node, pieces: list[Piece]) -> Piece:
        matrix = n.args[0].args[0] if n.args[0].op == "T" else n.args[0]
        name = "fold" if n.args[0].op == "T" else "repeat"
        return self.call(self.functions[name], [pieces[0].text, leaf("mn", str(matrix.attr[2]))])

    print_fold = print_repeat

    def print_pattern(self, n: Node, pieces: list[Piece]) -> Piece:
        kind, whole, *times = n.attr
        if kind == "eye":
            return Piece(f"<msub><mi>I</mi>{row(size(whole))}</msub>")
        counts = [leaf("mn", str(k)) for k in times]
        return self.call(self.functions[kind], [size(whole), *counts])

    def print_const(self, n: Node, pieces: list[Piece]) -> Piece:
        value = float.fromhex(n.attr[0])
        mantissa, e, exponent = number(value).partition("e")
        if not e:
            return Piece("<mi>∞</mi>" if value == float("inf") else leaf("mn", mantissa))
        power = raised("<mn>10</mn>", signed(str(int(exponent))))
        if mantissa == "1":
            return Piece(power)
        return Piece(f"{leaf('mn', mantissa)}<mo>·</mo>{power}", Binds.PRODUCT, "mul")

    def print_size(self, n: Node, pieces: list[Piece]) -> Piece:
        shown = size(n.attr[0])
        return Piece(shown, Binds.ATOM if _ALONE.fullmatch(shown) else Binds.SUM)

    def print_call(self, n: Node, pieces: list[Piece]) -> Piece:
        name, order = n.attr
        return self.call(symbol(name, primes=order), [pieces[0].text])

    def print_call_vector(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call(symbol(n.attr[0]), [p.text for p in pieces])

    print_call_scalar = print_call_vector

    def print_call_pull(self, n: Node, pieces: list[Piece]) -> Piece:
        slope = self.call(symbol(n.attr[0], primes=1), [pieces[0].text])
        return self.binary("matmul", Piece(raised(slope.text, _TURNED)), pieces[1])

    def print_call_slope(self, n: Node, pieces: list[Piece]) -> Piece:
        name: str = n.attr[0]
        k: int = n.attr[1]
        by = n.args[k]
        known = by.op == "ref"
        shown = self.symbol(self.reading.names[by.attr[0]], "") if known else leaf("mn", str(k + 1))
        over, under = row("<mi>∂</mi>" + symbol(name)), row("<mi>∂</mi>" + shown)
        return self.call(f"<mfrac>{over}{under}</mfrac>", [p.text for p in pieces])


# --- equations ----------------------------------------------------------------------------------


def math(text: str) -> str:
    """A formula within a line."""
    return f'<math displaystyle="true">{text}</math>'


def equation(left: str, pieces: Iterable[str]) -> str:
    """`left = right`, the right side in pieces as `Spelled.right` has them."""
    return math(left) + BREAK + equals(pieces)


def equals(pieces: Iterable[str]) -> str:
    """`= right`."""
    head, *rest = (factor for piece in pieces for factor in _factors(piece))
    # a sign that begins a formula would else be that of a negative number
    later = (math(piece.replace("<mo>", '<mo form="infix">', 1)) for piece in rest)
    return BREAK.join([math(f"<mo>=</mo>{head}"), *later])


def _factors(piece: str) -> list[str]:
    """A long term, cut before the signs between its factors."""
    if len(piece) < _LONG_TERM:
        return [piece]
    starts, depth = [0], 0
    for tag in _TAG.finditer(piece):
        if not depth and tag.start() and tag[0] == "<mo>" and piece[tag.end()] in "⊙×":
            starts.append(tag.start())
        depth += 0 if tag[0].endswith("/>") else -1 if tag[0].startswith("</") else 1
    return [piece[a:b] for a, b in pairwise([*starts, len(piece)])]


# --- elements -----------------------------------------------------------------------------------


def leaf(tag: str, text: str) -> str:
    """An element that holds text, whatever the text is."""
    return f"<{tag}>{html.escape(text)}</{tag}>"


def row(text: str) -> str:
    """One element that holds these."""
    return text if _ALONE.fullmatch(text) else f"<mrow>{text}</mrow>"


def raised(base: str, above: str) -> str:
    """`base` with something above; beside what it has below."""
    if base.startswith("<msub>") and base.count("<msub>") == 1 and base.endswith("</msub>"):
        return f"<msubsup>{base[len('<msub>') : -len('</msub>')]}{above}</msubsup>"
    return f"<msup>{row(base)}{above}</msup>"


def signed(number: str) -> str:
    """A number as one element, its minus a sign."""
    shown = leaf("mn", number.removeprefix("-"))
    return f"<mrow><mo>−</mo>{shown}</mrow>" if number.startswith("-") else shown


def size(dim: Dim) -> str:
    """A size: `4 H + 1`."""
    shown = ""
    for name, k in sorted(terms(dim).items(), key=lambda term: not term[0]) or [("", 0)]:
        sign = "−" if k < 0 else "+" if shown else ""
        factor = leaf("mn", str(abs(k))) if abs(k) != 1 or not name else ""
        shown += leaf("mo", sign) if sign else ""
        shown += factor + (_THIN if factor and name else "") + (symbol(name) if name else "")
    return shown


def symbol(name: str, time: str = "", primes: int = 0) -> str:
    """A name: what follows `_`, and the time, stand below."""
    found = letters(name)
    above = "".join(
        [
            bracketed("(", leaf("mn", found.above), ")") if found.above else "",
            leaf("mo", "′" * (found.primes + primes)) if found.primes + primes else "",
        ]
    )
    below = "<mo>,</mo>".join([*map(_word, found.below), *([_time(time)] if time else [])])
    base = row(_word(found.base))
    if above and below:
        return f"<msubsup>{base}{row(below)}{row(above)}</msubsup>"
    if above or below:
        tag = "msup" if above else "msub"
        return f"<{tag}>{base}{row(above or below)}</{tag}>"
    return base


def _time(time: str) -> str:
    """`t`, `t+1`, `-1`, `12`."""
    if time.startswith("t"):
        sign, step = time[1:2].replace("-", "−"), time[2:]
        return "<mi>t</mi>" + (leaf("mo", sign) + leaf("mn", step) if sign else "")
    return signed(time)


def _word(word: str) -> str:
    """One part of a name: a letter, perhaps Greek or with accents, or a word."""
    if word in _GREEK:
        return leaf("mi", unicode_word(word))
    found: list[str] = []
    for c in unicodedata.normalize("NFD", word):
        if unicodedata.combining(c) and found:
            found[-1] += c
        else:
            found.append(c)
    if len(found) > 2:
        return leaf("mi", unicode_word(word))
    return "".join(map(_letter, found))


def unicode_word(word: str) -> str:
    """One part of a name where there are no elements: `alpha` is α."""
    return _GREEK.get(word) or unicodedata.normalize("NFC", word)


def _letter(c: str) -> str:
    """One letter, its accents above it."""
    base, *marks = c
    shown = leaf("mn" if base.isdigit() else "mi", base)
    for mark in marks:
        accent = leaf("mo", _ACCENTS.get(mark, mark))
        shown = f'<mover accent="true">{shown}{accent}</mover>'
    return shown


def bracketed(left: str, text: str, right: str) -> str:
    """In brackets, which grow only where what they hold is tall."""
    mo = "<mo>" if any(tag in text for tag in _TALL) else '<mo stretchy="false">'
    return f"<mrow>{mo}{left}</mo>{text}{mo}{right}</mo></mrow>"
