"""A derivation as plain text: the notation of cells, with origins, in rows of some 80 columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from bptt.ir.dims import Dim, add_dims, show_dim
from bptt.ir.program import Node, refs, walk
from bptt.printers.expr import Binds, Piece
from bptt.printers.people.layout import Spelled, number, parts, rows
from bptt.printers.people.reading import Line, Name, Reading

_EQUATION = 80  # columns of an equation
_NARROW = 40  # columns of an equation whose origin is long
_LINE = 100  # columns of an equation with its origin
_ORIGINS = 48  # no column of origins begins behind this

_EXPLAINED = {
    "positive": "positive(a) is 1 where a > 0, else 0.",
    "prefer": "prefer(a, b) is 1 where a > b, 1/2 where they are equal, else 0.",
    "same": "same(a, b) is 1 where a and b are equal, else 0.",
    "unless": "unless(a, c) is 0 where c > 0, else a.",
    "rcumsum": "rcumsum(v) is the cumulative sum of v from its end.",
    "fold": "fold(v, n) sums the elements of v in groups of n.",
    "row": "row(E, k) is row number k of E, counted from 0.",
    "put_row": "put_row(v, k, n) is a matrix of n rows, all zero but number k, which is v.",
    "embed": "embed(v, k, n) is a vector of n numbers, v from number k on and else zero.",
}


def text(reading: Reading) -> str:
    """A derivation, its parts separated by blank lines."""
    blocks: list[str] = []
    for part, lines in parts(reading):
        heading = [f"# {part.value}"] if part.value else []
        blocks.append("\n".join([*heading, *_aligned(Plain(reading), lines)]))
    return "\n\n".join(blocks) + "\n"


def legend(reading: Reading) -> str:
    """What the names in a derivation mean, in sentences, by example."""
    return "".join(_sentences(reading)).strip()


def _sentences(reading: Reading) -> Iterator[str]:
    def example(what: str, made: str) -> Name | None:
        found = (reading.names[line.name] for line in reading.lines)
        spelled = [*found, *reading.names.values()]
        return next((n for n in spelled if n.what == what and n.made == made), None)

    if value := example("d", ""):
        of = f" of {reading.loss}, summed over all steps," if reading.loss else ""
        yield f"{value.text} is the gradient{of} by {value.stem}"
        if argument := example("d", "argument"):
            yield f", {argument.text} by the argument of {argument.line}'s function"
        if part := example("d", "part"):
            yield f", {part.text} by a part of the line of {part.line}"
        yield ". "
    if direct := example("direct", ""):
        yield f"{direct.text} is what {direct.stem} gets at its own step from outside the cell"
        yield " (at the last step, as the final state too). "
    if later := example("e", ""):
        yield f"{later.text}[t] is a part of the gradient by {later.stem}[t-1]. "
    if any(lag > 0 for line in reading.lines for _, lag in refs(line.rhs)):
        yield "Gradients at [t+1] are zero at the last step. "
    printer = Plain(reading)
    ops = {printer.form(n)[0]: n for line in reading.lines for n in walk(line.rhs)}
    yield from (f"{_EXPLAINED[op]} " for op in _EXPLAINED if op in ops)
    if pull := ops.get("call_pull"):
        yield f"{pull.attr[0]}'(v) is the matrix of the derivatives of {pull.attr[0]} at v. "


def _aligned(printer: Plain, lines: list[Line]) -> list[str]:
    """Lines with `=` under `=`, and origins under origins where they fit."""
    lefts = [printer.left(line) for line in lines]
    widest = max(map(columns, lefts))
    shown: list[list[str]] = []
    for left, line in zip(lefts, lines, strict=True):
        left += " " * (widest - columns(left)) + " = "
        width = max(_NARROW, min(_EQUATION, _LINE - 4 - columns(_least(line.source))))
        room = width - widest - 3
        head, *rest = (part for piece in printer.right(line) for part in cut(piece, room))
        shown.append(rows([left + head, *rest], width, " " * (widest + 3)))
    ends = [columns(found[-1]) for found in shown]
    column = max((end for end in ends if end <= _ORIGINS), default=0) + 2
    out: list[str] = []
    for found, end, line in zip(shown, ends, lines, strict=True):
        start = max(column, end + 2)
        source = _shortened(line.source, _LINE - start - 2)
        out += [*found[:-1], f"{found[-1]}{' ' * (start - end)}# {source}"]
    return out


def _shortened(source: str, width: int) -> str:
    """As much of an origin as fits, but at least the name that it begins with."""
    if columns(source) <= width:
        return source
    least = _least(source)
    cut = source[: max(width - 4, 0)].rpartition(" ")[0].rstrip(" +-*/@=,(")
    return f"{cut} ..." if len(cut) > len(least) + 8 else least


def cut(piece: str, room: int) -> list[str]:
    """A term in parts, between which a row may end: only itself if there is room for it.

    It is cut before signs and behind commas, as few brackets deep as will do; rather before a
    `*` than one bracket deeper.
    """
    if columns(piece) <= room:
        return [piece]
    found, depth = [piece], 0
    marks: list[tuple[int, int]] = []  # where a part may begin, and how good a place that is
    for k, c in enumerate(piece):
        depth += (c in "([") - (c in ")]")
        if k > 2 and (piece[k : k + 3] in (" + ", " - ") or piece[k - 1 : k + 1] == ", "):
            marks.append((k, 2 * depth))
        elif c == "*" and "*" not in (piece[k - 1], piece[k + 1]):
            marks.append((k, 2 * depth + 1))
    for most in sorted({rank for _, rank in marks}):
        ends = [0, *(k for k, rank in marks if rank <= most), len(piece)]
        found = [piece[a:b] for a, b in pairwise(ends)]
        if max(map(columns, found)) <= room:
            break
    return found


def _least(source: str) -> str:
    """The least that is said about where a line comes from: the name of the author's line."""
    return source.partition(" = ")[0]


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


class Plain(Spelled):
    """The notation of cells, with names for people."""

    language = "plain text"

    def symbol(self, name: Name, time: str) -> str:
        return f"{name.text}[{time}]" if time else name.text

    def sum_over_time(self, text: str, binds: Binds) -> Piece:
        return Piece(f"sum_t({text})")

    def between(self, root: Node) -> list[str]:
        if root.op != "concat":
            return super().between(root)
        self.show(root)
        *args, last = (self.piece(a).text for a in root.args)
        return [f"concat({args[0]},", *(f" {a}," for a in args[1:]), f" {last})"]

    def print_const(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(number(float.fromhex(n.attr[0])))

    def print_size(self, n: Node, pieces: list[Piece]) -> Piece:
        shown = show_dim(n.attr[0])
        loose = Binds.SUM if " " in shown else Binds.PRODUCT
        return Piece(shown, Binds.ATOM if shown.isidentifier() else loose)

    def print_neg(self, n: Node, pieces: list[Piece]) -> Piece:
        """-a*b needs no brackets: it is one number whichever is done first."""
        product = pieces[0].binds is Binds.PRODUCT
        inner = self.bracket(pieces[0], Binds.PRODUCT if product else Binds.NEG)
        return Piece(f"-{inner}", Binds.SUM if product else Binds.NEG, "neg")

    def print_pow(self, n: Node, pieces: list[Piece]) -> Piece:
        exponent = number(float.fromhex(n.attr[0]))
        return Piece(f"{self.bracket(pieces[0], Binds.ATOM)}**{exponent}", Binds.POWER, "pow")

    def print_T(self, n: Node, pieces: list[Piece]) -> Piece:  # noqa: N802
        return Piece(f"{self.bracket(pieces[0], Binds.ATOM)}.T")

    def print_pattern(self, n: Node, pieces: list[Piece]) -> Piece:
        kind, size, *times = n.attr
        return self.call(kind, [show_dim(size), *map(str, times)])

    def print_fill(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call("fill", [pieces[0].text, *map(show_dim, n.attr)])

    def print_block(self, n: Node, pieces: list[Piece]) -> Piece:
        spans = [
            _span(start, size, whole)
            for (start, size), whole in zip(n.attr, n.args[0].dims, strict=True)
        ]
        return Piece(f"{self.bracket(pieces[0], Binds.ATOM)}[{', '.join(spans)}]")

    def print_embed(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call("embed", [pieces[0].text, *(show_dim(d) for span in n.attr for d in span)])

    def print_put_row(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call("put_row", [*(p.text for p in pieces), show_dim(n.attr[0])])

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
        name: str = n.attr[0]
        k: int = n.attr[1]
        by = n.args[k]
        shown = self.reading.names[by.attr[0]].text if by.op == "ref" else str(k + 1)
        return self.call(f"d{name}_d{shown}", [p.text for p in pieces])


def _span(start: Dim, size: Dim, whole: Dim) -> str:
    """A slice, as Python writes it."""
    stop = add_dims(start, size)
    return f"{'' if start == 0 else show_dim(start)}:{'' if stop == whole else show_dim(stop)}"
