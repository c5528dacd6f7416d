"""Worked lines as MathML: at one step of time, in symbols and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from types import MappingProxyType

from bptt.ir.dims import shape_of
from bptt.ir.program import Node
from bptt.printers.expr import Binds, Piece
from bptt.printers.people.mathml import MathML, bracketed, raised, signed
from bptt.printers.people.worked import Array, AtStep, Numbers

_MOST = 9  # rows and columns of a matrix


class Here(AtStep, MathML):
    """Lines at one step."""


class Figures(Numbers, MathML):
    """Lines at one step, numbers in the place of names."""

    times = "times"
    signs = MappingProxyType({**MathML.signs, "times": ("<mo>×</mo>", Binds.PRODUCT)})

    def numeral(self, x: float) -> Piece:
        piece = super().numeral(x)
        mantissa, e, exponent = piece.text.partition("e")
        if not e:
            return piece._replace(text=signed(mantissa))
        power = raised("<mn>10</mn>", signed(exponent))
        sign = "<mo>−</mo>" if mantissa.startswith("-") else ""
        digits = mantissa.removeprefix("-")
        factor = "" if digits == "1" else f"<mn>{digits}</mn><mo>·</mo>"
        return piece._replace(text=f"<mrow>{sign}{factor}{power}</mrow>")

    def array(self, value: Array) -> str:
        """A vector as a column."""
        return self._table(value.reshape(value.shape[0], -1).tolist())

    def _table(self, rows: Sequence[Sequence[float]]) -> str:
        """Numbers in brackets; of what is large, the beginning and the end."""
        wide = _some(len(rows[0]))
        shown = "".join(
            f"<mtr>{''.join(f'<mtd>{self._entry(rows, i, j)}</mtd>' for j in wide)}</mtr>"
            for i in _some(len(rows))
        )
        return bracketed("[", f"<mtable>{shown}</mtable>", "]")

    def _entry(self, rows: Sequence[Sequence[float]], i: int | None, j: int | None) -> str:
        if i is None or j is None:
            return f"<mi>{'⋱' if i is j else '⋮' if i is None else '⋯'}</mi>"
        return self.numeral(rows[i][j]).text

    def term(self, piece: Piece) -> str:
        return "<mi>…</mi>" if piece.text == "..." else super().term(piece)

    def binary(self, op: str, left: Piece, right: Piece) -> Piece:
        if op == "matmul" and "number" in (left.op, right.op):
            op = self.times
        return super().binary(op, left, right)

    def print_mul(self, n: Node, pieces: list[Piece]) -> Piece:
        numbers = any(self._count(a) == 1 for a in self.form(n)[1])
        return self.binary("times" if numbers else "mul", *pieces)

    def print_dot(self, n: Node, pieces: list[Piece]) -> Piece:
        if all(p.op == "number" for p in pieces):
            return self.binary("times", *pieces)
        row = self._numbers(n.args[0].args[0])
        if row is None:
            return super().print_dot(n, pieces)
        return self.binary("matmul", Piece(self._table([row])), pieces[1])

    def print_outer(self, n: Node, pieces: list[Piece]) -> Piece:
        if all(p.op == "number" for p in pieces):
            return self.binary("times", *pieces)
        return super().print_outer(n, pieces)

    def print_concat(self, n: Node, pieces: list[Piece]) -> Piece:
        column = self._numbers(n)
        if column is None:
            return super().print_concat(n, pieces)
        return Piece(self._table([[x] for x in column]), Binds.ATOM, "array")

    def _numbers(self, n: Node) -> list[float] | None:
        """The numbers of a vector that is put together of known values."""
        if n.op == "concat":
            parts = [self._numbers(a) for a in n.args]
            return None if None in parts else [x for part in parts if part for x in part]
        if n.op == "const":
            return [float.fromhex(n.attr[0])]
        name = n.attr[0] if n.op == "ref" else ""
        if n.op != "ref" or name in self.reading.sums or self.worked.is_beyond(name, self.when(n)):
            return None
        return self.worked.at(name, self.when(n)).reshape(-1).tolist()

    def _count(self, n: Node) -> int:
        """How many numbers a value is."""
        return prod(shape_of(n.dims, self.worked.sizes))


def _some(count: int) -> list[int | None]:
    """Which of so many rows are shown; None for those left out."""
    every: list[int | None] = [*range(count)]
    return every if count <= _MOST else [*every[: _MOST - 2], None, every[-1]]
