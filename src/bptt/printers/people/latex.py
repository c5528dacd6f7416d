r"""A derivation as LaTeX: aligned equations, gates as subscripts, \odot, \delta for a gradient."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from bptt.ir.dims import add_dims, show_dim
from bptt.ir.program import Node
from bptt.printers.expr import Binds, Piece
from bptt.printers.people.layout import Spelled, letters, number, parts, rows
from bptt.printers.people.reading import Line, Name, Reading

_ROW = 110  # characters of a row, most of which do not show

_ACCENTS = {
    "\u0302": r"\hat",
    "\u0303": r"\tilde",
    "\u0304": r"\bar",
    "\u0307": r"\dot",
    "\u0308": r"\ddot",
    "\u20d7": r"\vec",
}
_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau"
    " upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split()
)
_WHATS = {"d": r"\delta ", "direct": r"\Delta ", "e": r"\epsilon "}


def text(reading: Reading) -> str:
    """A derivation as `align*` environments, one a part; origins are comments."""
    return (
        "\n\n".join(
            "\n".join((r"\begin{align*}", *block, r"\end{align*}"))
            for block in blocks(reading, origins=True)
        )
        + "\n"
    )


def blocks(reading: Reading, *, origins: bool = False) -> list[list[str]]:
    """The rows of each part, to stand in an environment that aligns at `&`."""
    return [_rows(Latex(reading), lines, origins) for _, lines in parts(reading)]


def _rows(printer: Latex, lines: list[Line], origins: bool) -> list[str]:
    found: list[str] = []
    for k, line in enumerate(lines):
        head, *rest = printer.right(line)
        shown = rows([f"{printer.left(line)} &= {head}", *rest], _ROW, r"&\quad ")
        end = "" if k == len(lines) - 1 else r" \\"
        source = f"  % {line.source}" if origins else ""
        found += [*(row + r" \\" for row in shown[:-1]), shown[-1] + end + source]
    return found


class Latex(Spelled):
    """Expressions as LaTeX, in mathematics mode."""

    language = "LaTeX"
    signs: ClassVar[Mapping[str, tuple[str, Binds]]] = MappingProxyType(
        {
            "add": (" + ", Binds.SUM),
            "sub": (" - ", Binds.SUM),
            "mul": (r" \odot ", Binds.PRODUCT),
            "matmul": (r" \, ", Binds.PRODUCT),
            "outer": (r" \otimes ", Binds.PRODUCT),
        }
    )
    functions: ClassVar[Mapping[str, str]] = MappingProxyType(
        {name: rf"\{name}" for name in ("tanh", "sin", "cos", "exp", "log", "max", "min")}
        | {"sigmoid": r"\sigma", "row_max": r"\max"}
        | {
            name: rf"\operatorname{{{name.replace('_', '-')}}}"
            for name in "softplus logsigmoid softsign relu sign positive prefer same unless"
            " sum mean softmax log_softmax row put_row embed cumsum rcumsum repeat fold lower"
            " each".split()
        }
    )

    def symbol(self, name: Name, time: str) -> str:
        return _WHATS.get(name.what, "") + symbol(name.stem, time)

    def sum_over_time(self, text: str, binds: Binds) -> Piece:
        inner = self.bracket(Piece(text, binds), Binds.PRODUCT)
        return Piece(rf"\sum_{{t}} {inner}", Binds.PRODUCT, "sum_over_time")

    def bracket(self, piece: Piece, least: Binds) -> str:
        if piece.binds >= least:
            return piece.text
        return _parentheses(piece.text)

    def call(self, name: str, args: list[str]) -> Piece:  # type: ignore[override]
        return Piece(f"{name}{_parentheses(', '.join(args))}")

    def print_mul(self, n: Node, pieces: list[Piece]) -> Piece:
        """A product with a number is written without a sign."""
        if all(a.dims for a in self.form(n)[1]):
            return self.binary("mul", *pieces)
        a, b = self.bracket(pieces[0], Binds.PRODUCT), self.bracket(pieces[1], Binds.NEG)
        return Piece(rf"{a} \, {b}", Binds.PRODUCT, "mul")

    def print_div(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(rf"\frac{{{pieces[0].text}}}{{{pieces[1].text}}}", Binds.POWER, "div")

    def print_neg(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(f"-{self.bracket(pieces[0], Binds.PRODUCT)}", Binds.SUM, "neg")

    def print_pow(self, n: Node, pieces: list[Piece]) -> Piece:
        exponent, base = number(float.fromhex(n.attr[0])), n.args[0]
        if base.op in ("tanh", "sin", "cos", "sigmoid", "log") and exponent.isdigit():
            name = self.functions[base.op]
            return Piece(pieces[0].text.replace(name, f"{name}^{{{exponent}}}", 1))
        plain = (
            base.op == "ref" and "^" not in pieces[0].text and not pieces[0].text.startswith("\\de")
        )
        shown = pieces[0].text if plain else _parentheses(pieces[0].text)
        return Piece(f"{shown}^{{{exponent}}}")

    def print_sqrt(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(rf"\sqrt{{{pieces[0].text}}}")

    def print_abs(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(rf"\left|{pieces[0].text}\right|")

    def print_dot(self, n: Node, pieces: list[Piece]) -> Piece:
        left = self.bracket(pieces[0], Binds.ATOM)
        return self.binary("matmul", Piece(rf"{left}^{{\top}}"), pieces[1])

    def print_outer(self, n: Node, pieces: list[Piece]) -> Piece:
        left, right = (self.bracket(p, Binds.ATOM) for p in pieces)
        return Piece(rf"{left} \otimes {right}", Binds.PRODUCT, "outer")

    def print_T(self, n: Node, pieces: list[Piece]) -> Piece:  # noqa: N802
        return Piece(rf"{self.bracket(pieces[0], Binds.ATOM)}^{{\top}}")

    def print_concat(self, n: Node, pieces: list[Piece]) -> Piece:
        joined = r";\, ".join(p.text for p in pieces)
        return Piece(rf"\left[{joined}\right]")

    def print_fill(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(
            rf"{self.bracket(pieces[0], Binds.PRODUCT)} \, \mathbf{{1}}", Binds.PRODUCT, "mul"
        )

    def print_block(self, n: Node, pieces: list[Piece]) -> Piece:
        spans = [
            f"{_size(start)}:{_size(add_dims(start, size))}" if size != whole else ":"
            for (start, size), whole in zip(n.attr, n.args[0].dims, strict=True)
        ]
        return Piece(rf"{self.bracket(pieces[0], Binds.ATOM)}\left[{', '.join(spans)}\right]")

    def print_embed(self, n: Node, pieces: list[Piece]) -> Piece:
        sizes = [_size(d) for span in n.attr for d in span]
        return self.call(self.functions["embed"], [pieces[0].text, *sizes])

    def print_put_row(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call(self.functions["put_row"], [*(p.text for p in pieces), _size(n.attr[0])])

    def print_pattern(self, n: Node, pieces: list[Piece]) -> Piece:
        kind, size, *times = n.attr
        if kind == "eye":
            return Piece(rf"I_{{{_size(size)}}}")
        return self.call(self.functions[kind], [_size(size), *map(str, times)])

    def print_const(self, n: Node, pieces: list[Piece]) -> Piece:
        shown = number(float.fromhex(n.attr[0]))
        mantissa, e, exponent = shown.partition("e")
        if not e:
            return Piece(shown)
        power = f"10^{{{int(exponent)}}}"
        if mantissa == "1":
            return Piece(power)
        return Piece(rf"{mantissa} \cdot {power}", Binds.PRODUCT, "mul")

    def print_size(self, n: Node, pieces: list[Piece]) -> Piece:
        shown = _size(n.attr[0])
        return Piece(shown, Binds.SUM if " " in shown else Binds.ATOM)

    def print_call(self, n: Node, pieces: list[Piece]) -> Piece:
        name, order = n.attr
        return self.call(symbol(name) + "'" * order, [pieces[0].text])

    def print_call_vector(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call(symbol(n.attr[0]), [p.text for p in pieces])

    print_call_scalar = print_call_vector

    def print_call_pull(self, n: Node, pieces: list[Piece]) -> Piece:
        slope = self.call(symbol(n.attr[0]) + "'", [pieces[0].text])
        return self.binary("matmul", Piece(rf"{slope.text}^{{\top}}"), pieces[1])

    def print_call_slope(self, n: Node, pieces: list[Piece]) -> Piece:
        name: str = n.attr[0]
        k: int = n.attr[1]
        by = n.args[k]
        shown = self.symbol(self.reading.names[by.attr[0]], "") if by.op == "ref" else str(k + 1)
        slope = rf"\frac{{\partial {symbol(name)}}}{{\partial {shown}}}"
        return self.call(slope, [p.text for p in pieces])


def symbol(name: str, time: str = "") -> str:
    """A name as mathematics: what follows `_`, and the time, are subscripts."""
    found = letters(name)
    base = _word(found.base) + "'" * found.primes
    above = f"^{{({found.above})}}" if found.above else ""
    below = [*map(_word, found.below), *([time] if time else [])]
    return base + above + (f"_{{{','.join(below)}}}" if below else "")


def _word(word: str) -> str:
    """One part of a name: a letter, perhaps Greek or with accents, or a word."""
    if word in _GREEK:
        return rf"\{word}"
    found: list[str] = []
    for c in unicodedata.normalize("NFD", word):
        if unicodedata.combining(c) and found:
            found[-1] = f"{_ACCENTS.get(c, '')}{{{found[-1]}}}"
        else:
            found.append(_letter(c))
    single = len(found) == 1 or (len(found) == 2 and all(len(c) == 1 for c in found))
    return "".join(found) if single else rf"\mathrm{{{''.join(found)}}}"


def _letter(c: str) -> str:
    """One character; a Greek one by its name."""
    name = unicodedata.name(c, "").removeprefix("GREEK ").replace("FINAL SIGMA", "SIGMA")
    case, _, letter = name.partition(" LETTER ")
    letter = letter.replace("LAMDA", "LAMBDA")
    spelled = letter.lower() if case == "SMALL" else letter.capitalize()
    if spelled in _GREEK:
        return rf"\{spelled}"
    if c == "_":
        return r"\_"
    return c if c.isascii() else rf"\text{{{c}}}"


def _size(dim: object) -> str:
    return show_dim(dim).replace("*", r" \, ")  # type: ignore[arg-type]


def _parentheses(text: str) -> str:
    tall = any(word in text for word in (r"\frac", r"\left", r"\begin"))
    return rf"\left({text}\right)" if tall else f"({text})"
