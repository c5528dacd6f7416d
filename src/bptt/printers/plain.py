"""A derivation in the notation of cells, for people: papers' `[t+1]`, lines not too long, origins."""

from __future__ import annotations

from collections.abc import Sequence

from bptt.ir.dims import Dim, add_dims, show_dim
from bptt.ir.program import Kind, Node, walk
from bptt.printers.expr import Binds, Infix, Piece
from bptt.printers.reading import Line, Part, Reading

_WIDTH = 88  # of an equation
_PAGE = 100  # of an equation and where it comes from
_COLUMN = 60  # where origins stand, unless all lines are shorter or one is longer

_EXPLAINED = {
    "positive": "positive(a) is 1 where a > 0, else 0",
    "prefer": "prefer(a, b) is 1 where a > b, 1/2 where they are equal, else 0",
    "same": "same(a, b) is 1 where a and b are equal, else 0",
    "embed": "embed(v, k, n) is a vector of n numbers, zero but for v from number k on",
    "call_pull": "F'(v) is the matrix of the derivatives of F at v",
    "call_slope": "dG_dy is the derivative of G by its argument y",
}


def text(reading: Reading) -> str:
    """The lines of a derivation, its parts separated by blank lines."""
    printer = Plain(reading)
    parts = [[line for line in reading.lines if line.part is part] for part in Part]
    blocks = [_block(printer, lines) for lines in parts if lines]
    return "\n\n".join(blocks) + "\n"


def legend(reading: Reading, cell: str) -> str:
    """What the names mean, as comments to stand above `text`."""
    whats = {name.what for name in reading.names.values()}
    notes = [f"The backward pass of {cell}, from the last step to the first.", "d_c is the gradient by c"]
    ...
    return "\n".join(notes)


def _block(printer: Plain, lines: Sequence[Line]) -> str:
    """One part: `=` under `=`, and origins under origins where they fit."""
    lefts = [printer.left(line) for line in lines]
    widest = max(map(len, lefts))
    shown = [
        printer.equation(left.ljust(widest), line)
        for left, line in zip(lefts, lines, strict=True)
    ]
    column = max((len(s[-1]) for s in shown if len(s[-1]) <= _COLUMN), default=0) + 2
    found: list[str] = []
    for rows, line in zip(shown, lines, strict=True):
        start = max(column, len(rows[-1]) + 2)
        source = _shortened(line.source, _PAGE - start - 2)
        found += [*rows[:-1], f"{rows[-1]:<{start}}# {source}"]
    return "\n".join(found)


def _shortened(source: str, width: int) -> str:
    """As much of an origin as fits, but at least the name that it begins with."""
    if len(source) <= width:
        return source
    least = source.partition(" = ")[0].rstrip()
    cut = source[: max(width - 4, 0)]
    cut = cut[: max(cut.rfind(" "), 0)].rstrip(" +-*/@=,(")
    return f"{cut} ..." if len(cut) > len(least) + 8 else least


class Plain(Infix):
    """The notation of cells with the names of a Reading."""

    language = "plain text"

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.reading = reading
        self.dir = reading.dir
        self.first = False

    def left(self, line: Line) -> str:
        """The left side of a line."""
        self.start(line)
        at = {Part.STEPS: "[t]", Part.VALUES: "[t]", Part.FIRST: "[-1]"}.get(line.part, "")
        return self.reading.names[line.name].text + at

    def start(self, line: Line) -> None:
        """Print in the time of `line` from here on."""
        self.pieces.clear()
        self.dir, self.first = line.dir, line.part is Part.FIRST

    def equation(self, left: str, line: Line) -> list[str]:
        """A line, broken into rows between terms or arguments where it is long."""
        self.start(line)
        opened, closed = ("sum_t(", ")") if line.kind is Kind.SUM else ("", "")
        pieces = [f"{left} = {opened}", *self.pieces_of(line.rhs)]
        pieces[-1] += closed
        rows, indent = [pieces[0] + pieces[1]], " " * (len(left) + 3 + len(opened))
        for piece in pieces[2:]:
            if len(rows[-1]) + len(piece) > _WIDTH:
                rows[-1] = rows[-1].rstrip()
                rows.append(indent + piece.lstrip())
            else:
                rows[-1] += piece
        return rows

    def pieces_of(self, root: Node) -> list[str]:
        """The text of an expression in pieces, between which a row may end."""
        whole = self.show(root)
        op, operands = self.form(root)
        if op in ("add", "sub"):
            right = self.bracket(self.piece(operands[1]), Binds(Binds.SUM + 1))
            return [*self.pieces_of(operands[0]), f" {'+' if op == 'add' else '-'} {right}"]
        if op == "concat":
            args = [self.piece(a).text for a in operands]
            return ["concat(" + args[0], *(f", {a}" for a in args[1:-1]), f", {args[-1]})"]
        return [whole]

    # --- spellings ---

    def print_ref(self, n: Node, pieces: list[Piece]) -> Piece:
        name, lag = n.attr
        reading = self.reading
        if name in reading.sums:
            return Piece(f"sum_t({self.inner(reading.sums[name])})")
        spelled = reading.names[name].text
        if name in reading.first:
            return Piece(f"{spelled}[-1]")
        if name not in reading.series:
            return Piece(spelled)
        ahead = -self.dir * lag
        if self.first:
            return Piece(f"{spelled}[{ahead}]")
        return Piece(f"{spelled}[t{ahead:+d}]" if ahead else f"{spelled}[t]")

    def inner(self, root: Node) -> str:
        """An expression that stands within another's text."""
        other = type(self)(self.reading)
        other.dir = self.dir
        return other.show(root)

    def print_const(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(number(float.fromhex(n.attr[0])))

    def print_size(self, n: Node, pieces: list[Piece]) -> Piece:
        shown = show_dim(n.attr[0])
        return Piece(shown, Binds.SUM if " " in shown else Binds.PRODUCT if "*" in shown else Binds.ATOM)

    def print_neg(self, n: Node, pieces: list[Piece]) -> Piece:
        product = pieces[0].binds is Binds.PRODUCT
        least = Binds.PRODUCT if product else Binds.NEG
        return Piece(f"-{self.bracket(pieces[0], least)}", Binds.SUM if product else Binds.NEG, "neg")

    def print_pow(self, n: Node, pieces: list[Piece]) -> Piece:
        exponent = number(float.fromhex(n.attr[0]))
        return Piece(f"{self.bracket(pieces[0], Binds.ATOM)}**{exponent}", Binds.POWER, "pow")

    def print_T(self, n: Node, pieces: list[Piece]) -> Piece:  # noqa: N802
        return Piece(f"{self.bracket(pieces[0], Binds.ATOM)}.T")

    def print_fill(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call("fill", [pieces[0].text, *map(show_dim, n.attr)])

    def print_block(self, n: Node, pieces: list[Piece]) -> Piece:
        spans = [_span(*span, whole) for span, whole in zip(n.attr, n.args[0].dims, strict=True)]
        return Piece(f"{self.bracket(pieces[0], Binds.ATOM)}[{', '.join(spans)}]")

    def print_embed(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call("embed", [pieces[0].text, *(show_dim(d) for span in n.attr for d in span)])

    def print_call(self, n: Node, pieces: list[Piece]) -> Piece:
        name, order = n.attr
        return self.call(name + "'" * order, [pieces[0].text])

    def print_call_vector(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call(n.attr[0], [p.text for p in pieces])

    print_call_scalar = print_call_vector

    def print_call_pull(self, n: Node, pieces: list[Piece]) -> Piece:
        slope = self.call(f"{n.attr[0]}'", [pieces[0].text])
        return self.binary("matmul", Piece(f"{slope.text}.T"), pieces[1])

    def print_call_slope(self, n: Node, pieces: list[Piece]) -> Piece:
        name, k = n.attr
        by = n.args[k]
        shown = self.reading.names[by.attr[0]].text if by.op == "ref" else str(k + 1)
        return self.call(f"d{name}_d{shown}", [p.text for p in pieces])


def number(value: float) -> str:
    """A number as people write it."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _span(start: Dim, size: Dim, whole: Dim) -> str:
    """A slice, as Python writes it."""
    stop = add_dims(start, size)
    return f"{'' if start == 0 else show_dim(start)}:{'' if stop == whole else show_dim(stop)}"
