"""What the languages for people share: the lines of a Reading, in time, broken into rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bptt.ir.program import Kind, Node
from bptt.printers.expr import Binds, Infix, Piece
from bptt.printers.people.reading import Line, Name, Part, Reading

# What a product with a pattern is called, and what one with its transpose.
_PRODUCTS = {"lower": ("cumsum", "rcumsum"), "each": ("repeat", "fold")}


def parts(reading: Reading) -> Iterator[tuple[Part, list[Line]]]:
    """The parts of a derivation that it has, in order, with their lines."""
    for part in Part:
        lines = [line for line in reading.lines if line.part is part]
        if lines:
            yield part, lines


class Spelled(Infix):
    """Prints the lines of a Reading. A language says how a name looks at a time."""

    def __init__(self, reading: Reading, names: Mapping[Node, str] | None = None) -> None:
        super().__init__(names)
        self.reading = reading
        self.dir, self.first = reading.dir, False

    def symbol(self, name: Name, time: str) -> str:
        """The text of a name at a time: `t`, `t+1`, `-1` or, where it has none, nothing."""
        raise NotImplementedError

    def sum_over_time(self, text: str, binds: Binds) -> Piece:
        """The sum over all steps of an expression that reads `text`."""
        raise NotImplementedError

    def left(self, line: Line) -> str:
        """The left side of a line."""
        time = "t" if line.kind is Kind.STEP else ""
        if line.name in self.reading.first:
            time = "-1"
        return self.symbol(self.reading.names[line.name], time)

    def right(self, line: Line) -> list[str]:
        """The right side of a line in pieces, between which a row may end."""
        self.pieces.clear()
        self.dir, self.first = line.dir, line.part is Part.FIRST
        if line.kind is not Kind.SUM:
            return self.between(line.rhs)
        self.show(line.rhs)
        piece = self.pieces[line.rhs]
        return [self.sum_over_time(piece.text, piece.binds).text]

    def between(self, root: Node) -> list[str]:
        """The text of an expression, cut before the signs between its terms, or after commas."""
        found: list[str] = []
        while True:  # from the last term to the first
            text = self.show(root)
            op, operands = self.form(root)
            if op not in ("add", "sub"):
                return [text, *reversed(found)]
            right = self.bracket(self.piece(operands[1]), Binds(Binds.SUM + 1))
            found.append(f"{self.signs[op][0]}{right}")
            root = operands[0]

    def form(self, n: Node) -> tuple[str, Sequence[Node]]:
        """As in `Infix`; a product with a pattern is the function that it stands for."""
        if n.op == "matmul" and len(n.dims) == 1:
            matrix, vector = n.args
            transposed = matrix.op == "T"
            matrix = matrix.args[0] if transposed else matrix
            if matrix.op == "pattern" and matrix.attr[0] in _PRODUCTS:
                return _PRODUCTS[matrix.attr[0]][transposed], (vector,)
        return super().form(n)

    def print_repeat(self, n: Node, pieces: list[Piece]) -> Piece:
        matrix = n.args[0].args[0] if n.args[0].op == "T" else n.args[0]
        name = _PRODUCTS["each"][n.args[0].op == "T"]
        return self.call(self.functions.get(name, name), [pieces[0].text, str(matrix.attr[2])])

    print_fold = print_repeat

    def print_ref(self, n: Node, pieces: list[Piece]) -> Piece:
        name, lag = n.attr
        reading = self.reading
        if name in reading.sums:
            return self.summed(reading.sums[name])
        if name in reading.first:
            return Piece(self.symbol(reading.names[name], "-1"))
        if name not in reading.series:
            return Piece(self.symbol(reading.names[name], ""))
        return Piece(self.symbol(reading.names[name], self.time(-self.dir * lag)))

    def time(self, ahead: int) -> str:
        """The text of the time so many steps after that of the line."""
        if self.first:
            return str(ahead)
        return f"t{ahead:+d}" if ahead else "t"

    def summed(self, rhs: Node) -> Piece:
        """The sum over all steps of an expression that has no line of its own."""
        inner = type(self)(self.reading)
        inner.show(rhs)
        piece = inner.pieces[rhs]
        return self.sum_over_time(piece.text, piece.binds)


class Letters(NamedTuple):
    """A name as mathematics: `W1_x` is W with (1) above, x below. `primes`: those of i'[t]."""

    base: str
    above: str
    below: tuple[str, ...]
    primes: int


def letters(name: str) -> Letters:
    """The parts of a name: what follows `_` stands below, a number at the end of the rest above,
    as h0 is a name, and h_0 the value of h at the first step."""
    bare = name.rstrip("\u02b9")
    first, *below = [part for part in bare.split("_") if part] or [bare]
    base = first.rstrip("0123456789") or first
    return Letters(base, first[len(base) :], tuple(below), len(name) - len(bare))


def rows(pieces: list[str], width: int, indent: str) -> list[str]:
    """Pieces put together to rows, if possible no longer than `width`, the later ones indented."""
    found = [pieces[0]]
    for piece in pieces[1:]:
        if len(found[-1]) + len(piece) > width:
            found.append(indent + piece.strip())
        else:
            found[-1] += piece
    return found


def number(value: float) -> str:
    """A number as people write it."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
