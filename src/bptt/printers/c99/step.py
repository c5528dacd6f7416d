"""The equations of one step as the body of a C function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from bptt.calculus.rewrites import substituted
from bptt.calculus.runnable import runnable
from bptt.errors import BpttError
from bptt.ir.dims import Dim, size_of
from bptt.ir.ops import OPS, ref
from bptt.ir.program import Equation, Node, Program, walk
from bptt.printers.c99.words import HELPERS, LIBM, ending, for_each, number_text
from bptt.printers.expr import BESIDE, Binds, Infix, Piece

_LONG = 40  # a part of an expression that is longer gets a name


@dataclass(frozen=True)
class Step:
    """The body of a function: its lines, what they read of `known` and call of the helpers, and
    how many numbers its arrays hold."""

    lines: tuple[str, ...]
    reads: frozenset[str]
    helpers: frozenset[str]
    held: int


class Target(NamedTuple):
    """Where the value called `name` goes: into `array` from `offset` on."""

    name: str
    array: str
    offset: int = 0


def print_step(
    p: Program,
    sizes: Mapping[str, int],
    known: Mapping[tuple[str, int], str],
    targets: Sequence[Target],
    *,
    real: str = "float",
    prefix: str = "bptt",
) -> Step:
    """The step equations of `p` for one sequence, then the copies of `targets`.

    `known`: the arrays of what is not computed here, by name and lag; onces are among them.
    `real` is "float" or "double", and `prefix` begins the helpers' names. Raises BpttError for an
    op that has no spelling.
    """
    return _Printer(sizes, known, real, prefix).step(p, targets)


def fused(p: Program, kept: Iterable[str]) -> list[Equation]:
    """The step equations, where one that a single other reads, element by element, stands there.

    Those called `kept` stay.
    """
    steps = [replace(e, rhs=runnable(e.rhs, {})) for e in p.steps()]
    times: Counter[Node] = Counter()
    whole: set[Node] = set()  # what is read as an array
    for e in steps:
        times[e.rhs] += 1
        for n in walk(e.rhs):
            times.update(n.args)
            if not (OPS[n.op].elementwise or n.op in ("fill", "sum", "row_max")):
                whole.update(n.args)
    inside: dict[Node, Node] = {}
    found: list[Equation] = []
    stay = {*kept, *(s.name for s in p.states)}
    for e in steps:
        rhs = substituted(e.rhs, inside)
        name = ref(e.name, 0, rhs.dims)
        if e.name not in stay and times[name] == 1 and name not in whole:
            inside[name] = rhs
        else:
            found.append(replace(e, rhs=rhs))
    return found


class _Printer(Infix):
    language: ClassVar[str] = "C99"
    signs: ClassVar[Mapping[str, tuple[str, Binds]]] = {
        "add": (" + ", Binds.SUM),
        "sub": (" - ", Binds.SUM),
        "mul": (" * ", Binds.PRODUCT),
        "div": (" / ", Binds.PRODUCT),
    }
    functions: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        sizes: Mapping[str, int],
        known: Mapping[tuple[str, int], str],
        real: str,
        prefix: str,
    ) -> None:
        super().__init__()
        self.sizes, self.known, self.real, self.prefix = sizes, known, real, prefix
        self.lines: list[str] = []  # of the function
        self.body = self.lines  # of the loop that is being written, or of the function
        self.looping = False
        self.numbers = self.pieces  # the expressions of the function itself, which are numbers
        self.local: dict[str, str] = {}
        self.arrays: dict[Node, str] = {}
        self.uses: Counter[Node] = Counter()
        self.count: Counter[str] = Counter()
        self.reads: set[str] = set()
        self.helpers: set[str] = set()
        self.held = 0

    def step(self, p: Program, targets: Sequence[Target]) -> Step:
        for e in fused(p, [t.name for t in targets]):
            self.uses = Counter(a for n in walk(e.rhs) for a in n.args)
            if e.rhs.dims:
                self.local[e.name] = self.array_of(e.rhs, "v")
            else:
                text = self.number(e.rhs).text
                self.local[e.name] = self.fresh("v")
                self.lines.append(f"const {self.real} {self.local[e.name]} = {text};")
        for name, array, offset in targets:
            dims = p.dims(name)
            if dims:
                line = f"{_at(array, offset, 'i')} = {self.local[name]}[i];"
                self.lines += for_each(self.width(dims[0]), [line])
            else:
                self.lines.append(f"{array}[{offset}] = {self.local[name]};")
        return Step(tuple(self.lines), frozenset(self.reads), frozenset(self.helpers), self.held)

    def fresh(self, letter: str) -> str:
        self.count[letter] += 1
        return f"{letter}{self.count[letter] - 1}"

    def width(self, dim: Dim) -> int:
        return size_of(dim, self.sizes)

    # --- the walk ---

    def form(self, n: Node) -> tuple[str, Sequence[Node]]:
        if self.looping and not n.dims and n.args:
            return "outside", ()
        if n.op in BESIDE:
            return n.op, self.unfilled(n.args)
        return n.op, n.args if OPS[n.op].elementwise else ()

    def spell(self, n: Node, op: str, pieces: list[Piece]) -> Piece:
        texts = [p.text for p in pieces]
        if op in LIBM:
            piece = self.call(LIBM[op] + ending(self.real), texts)
        elif op in HELPERS:
            piece = self.helper(op, texts)
        else:
            piece = super().spell(n, op, pieces)
        named = self.uses[n] > 1 or (self.uses[n] and len(piece.text) > _LONG)
        if n.args and op != "outside" and named:
            return self.bound(piece)
        return piece

    def helper(self, op: str, texts: Sequence[str]) -> Piece:
        self.helpers.add(op)
        return self.call(f"{self.prefix}_{op}", texts)

    def bound(self, piece: Piece) -> Piece:
        """A name for what a piece says."""
        if piece.text.isalnum():
            return piece
        name = self.fresh("e")
        self.body.append(f"const {self.real} {name} = {piece.text};")
        return Piece(name)

    def print_outside(self, n: Node, pieces: list[Piece]) -> Piece:
        """A number that a loop reads is computed before it."""
        return self.number(n)

    def number(self, n: Node) -> Piece:
        """A number, computed outside of all loops, once."""
        if n not in self.numbers:
            within = self.pieces, self.body, self.looping
            self.pieces, self.body, self.looping = self.numbers, self.lines, False
            self.show(n)
            if n.args:
                self.numbers[n] = self.bound(self.numbers[n])
            self.pieces, self.body, self.looping = within
        return self.numbers[n]

    def loop(self, n: Node, store: Callable[[str], str]) -> None:
        """Do something with each element of the vector `n`."""
        outside = self.pieces, self.body, self.looping
        body: list[str] = []
        self.pieces, self.body, self.looping = {}, body, True
        body.append(store(self.show(n)))
        self.pieces, self.body, self.looping = outside
        self.lines += for_each(self.width(n.dims[0]), body)

    # --- vectors ---

    def array_of(self, n: Node, letter: str) -> str:
        """A new array that holds the vector `n`."""
        name, width = self.fresh(letter), self.width(n.dims[0])
        self.held += width
        self.lines.append(f"{self.real} {name}[{width}];")
        if n.op not in ("concat", "embed"):
            self.loop(n, lambda text: f"{name}[i] = {text};")
            return name
        start = 0 if n.op == "concat" else self.width(n.attr[0][0])
        if n.op == "embed":
            self.lines += for_each(width, [f"{name}[i] = 0;"])
        for a in n.args:
            if a.dims:
                to = _at(name, start, "i")
                self.loop(a, lambda text, to=to: f"{to} = {text};")
            else:
                self.lines.append(f"{name}[{start}] = {self.number(a).text};")
            start += self.width(a.dims[0]) if a.dims else 1
        return name

    def array(self, n: Node) -> tuple[str, int]:
        """An array, and where in it the vector `n` begins."""
        if n.op == "ref":
            return self.name(n), 0
        if n.op == "block":
            name, offset = self.array(n.args[0])
            return name, offset + self.width(n.attr[0][0])
        if n not in self.arrays:
            self.arrays[n] = self.array_of(n, "t")
        return self.arrays[n], 0

    def name(self, n: Node) -> str:
        name, lag = n.attr
        if lag == 0 and name in self.local:
            return self.local[name]
        self.reads.add(name)
        return self.known[name, lag]

    def matrix(self, n: Node) -> tuple[str, int, int, int]:
        """An array, where the matrix begins, and how far its rows and its columns are apart."""
        match n.op:
            case "ref":
                return self.name(n), 0, self.width(n.dims[1]), 1
            case "T":
                name, offset, row, column = self.matrix(n.args[0])
                return name, offset, column, row
            case "block":
                name, offset, row, column = self.matrix(n.args[0])
                first, left = (self.width(start) for start, _ in n.attr)
                return name, offset + first * row + left * column, row, column
            case _:
                what = f"the op `{n.op}` has no spelling in {self.language} as a matrix"
                raise BpttError(what)

    # --- how ops are written ---

    def print_ref(self, n: Node, pieces: list[Piece]) -> Piece:
        name = self.name(n)
        if n.dims:
            return Piece(f"{name}[i]")
        return Piece(name if self.local.get(n.attr[0]) == name else f"{name}[0]")

    def print_const(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(number_text(float.fromhex(n.attr[0]), self.real))

    def print_size(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(number_text(float(self.width(n.attr[0])), self.real))

    def print_fill(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.number(n.args[0])

    def print_pow(self, n: Node, pieces: list[Piece]) -> Piece:
        p = float.fromhex(n.attr[0])
        if p == 2:
            return self.helper("square", [pieces[0].text])
        return self.call(f"pow{ending(self.real)}", [pieces[0].text, number_text(p, self.real)])

    def print_block(self, n: Node, pieces: list[Piece]) -> Piece:
        name, offset = self.array(n)
        return Piece(_at(name, offset, "i"))

    def print_concat(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.print_block(n, pieces)

    def print_embed(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.print_block(n, pieces)

    def print_row(self, n: Node, pieces: list[Piece]) -> Piece:
        table, chosen = n.args
        k = f"(int){self.bracket(self.number(chosen), Binds.ATOM)}"
        if len(table.dims) == 1:
            return Piece(_at(*self.array(table), k))
        name, offset, row, column = self.matrix(table)
        return Piece(_at(name, offset, _times(row, k), _times(column, "i")))

    def print_sum(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.gathered(n, "0", lambda a, text: f"{a} += {text};")

    def print_row_max(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.gathered(
            n, "-INFINITY", lambda a, text: f"{a} = {self.helper('max', [a, text]).text};"
        )

    def gathered(self, n: Node, neutral: str, more: Callable[[str, str], str]) -> Piece:
        """A number that all elements of a vector are gathered in."""
        name = self.fresh("a")
        self.lines.append(f"{self.real} {name} = {neutral};")
        self.loop(n.args[0], lambda text: more(name, text))
        return Piece(name)

    def print_matmul(self, n: Node, pieces: list[Piece]) -> Piece:
        m, v = n.args
        pattern = m.args[0] if m.op == "T" else m
        if pattern.op == "pattern":
            return self.by_pattern(pattern, v, transposed=m.op == "T")
        name, offset, row, column = self.matrix(m)
        weight = _at(name, offset, _times(row, "i"), _times(column, "j"))
        factor = _at(*self.array(v), "j")
        return self.added(f"{weight} * {factor}", "0", f"j < {self.width(m.dims[1])}")

    def added(self, term: str, first: str, go_on: str) -> Piece:
        """The sum of a term over `j`."""
        name = self.fresh("a")
        self.body.append(f"{self.real} {name} = 0;")
        self.body.append(f"for (int j = {first}; {go_on}; j++) {{")
        self.body += [f"    {name} += {term};", "}"]
        return Piece(name)

    def by_pattern(self, pattern: Node, v: Node, *, transposed: bool) -> Piece:
        """The product with a matrix of zeros and ones: `cumsum`, `repeat` and their duals."""
        kind, rows, *times = pattern.attr
        name, offset = self.array(v)
        if kind == "eye":
            return Piece(_at(name, offset, "i"))
        if kind == "lower":
            first, go_on = ("i", f"j < {self.width(rows)}") if transposed else ("0", "j <= i")
            return self.added(_at(name, offset, "j"), first, go_on)
        assert kind == "each"
        if transposed:
            term = _at(name, offset, _times(times[0], "i"), "j")
            return self.added(term, "0", f"j < {times[0]}")
        return Piece(_at(name, offset, f"i / {times[0]}"))


def _times(stride: int, index: str) -> str:
    return index if stride == 1 else f"{stride} * {index}"


def _at(array: str, offset: int, *indices: str) -> str:
    """An element of an array."""
    return f"{array}[{' + '.join([*([str(offset)] if offset else []), *indices])}]"
