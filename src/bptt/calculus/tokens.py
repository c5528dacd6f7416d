"""Tokens: a sweep whose input is, at each step, the row of a table that a whole number chooses.

`W @ row(E, k)` is `row(E @ W.T, k)`, and `E @ W.T` is computed once a call: a row is copied where
a matrix was multiplied. Its derivative adds each step's adjoint to one row of a small table, and
the gradients by `W` and by `E` are products of that table, behind the loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

from bptt.calculus.rewrites import Names, lower, rebuild
from bptt.calculus.rules import sliced_node
from bptt.calculus.runnable import parts
from bptt.ir.dims import Dim, add_dims, terms
from bptt.ir.ops import concat, dot, matmul, ref, row, total, transpose
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, Value, refs, walk


@dataclass(frozen=True)
class Tokens:
    """A rewritten `program`, and the names of what it reads instead of the input.

    `token`: a series of whole numbers from 0, one a step; `table`: a parameter [V, ...], a row of
    which is the input. What reads the input in a product reads a table made of this one.
    """

    program: Program
    token: str
    table: str


def tokens(p: Program, input: str = "x") -> Tokens:
    """`p` with the given series `input`, which it reads at lag 0, as rows of a table."""
    return _Rewriter(p, input).rewritten()


class _Rewriter:
    def __init__(self, p: Program, input: str) -> None:
        given = p.value(input)
        timed = given.role is Role.GIVEN and not given.per_sequence
        assert timed, f"`{input}` is no input over time"
        lags = {lag for name, lag in refs(*(e.rhs for e in p.equations)) if name == input}
        assert lags <= {0}, f"`{input}` is read at lags {lags}"
        assert all(e.value != input for e in p.emits), f"`{input}` has an adjoint in this sweep"
        self.p, self.names = p, Names(p)
        self.input = ref(input, 0, given.dims)
        self.token = ref(self.names.fresh(f"token{MACHINE}{input}"), 0, ())
        rows = (_unused_size(p), *given.dims)
        self.table = ref(self.names.fresh(f"table{MACHINE}{input}"), 0, rows)
        # what has no time: it can be multiplied with the table once a call
        self.fixed = {v.name for v in p.values if v.role is not Role.GIVEN}
        self.fixed |= {e.name for e in p.equations if e.kind is Kind.ONCE}
        self.equations: list[Equation] = []
        self.once: dict[Node, Node] = {}
        self.origin = ""

    def rewritten(self) -> Tokens:
        for e in self.p.equations:
            self.origin = e.origin
            rhs = e.rhs if e.kind is Kind.ONCE else rebuild(e.rhs, self.change)
            self.equations.append(replace(e, rhs=rhs))
        token, table = str(self.token.attr[0]), str(self.table.attr[0])
        mine = (Value(token, (), Role.GIVEN), Value(table, self.table.dims, Role.PARAM))
        values: list[Value] = []
        for v in self.p.values:
            values += mine if v.name == self.input.attr[0] else (v,)
        program = replace(self.p, values=tuple(values), equations=tuple(self.equations))
        return Tokens(lower(program, self.names), token, table)

    def change(self, n: Node, args: tuple[Node, ...]) -> Node | None:
        if n is self.input:
            return row(self.table, self.token)
        if n.op == "matmul" and len(n.dims) == 1:
            return self.product(*args)
        if n.op == "sum" and args[0].op == "mul":
            for a, b in (args[0].args, args[0].args[::-1]):
                if len(a.dims) == 1 and all(name in self.fixed for name, _ in refs(a)):
                    return self.product(a, b)
        return None

    def is_row(self, a: Node) -> bool:
        return a.op == "row" and len(a.dims) == 1

    def product(self, matrix: Node, vector: Node) -> Node | None:
        """A matrix, or for a dot product a vector, times what holds rows of the table."""
        pieces = parts(vector)
        if not any(map(self.is_row, pieces)):
            return None
        found: list[Node] = []
        start: Dim = 0
        for piece in self.joined(pieces):
            width = piece.dims[0]
            spans = (*((0, rows) for rows in matrix.dims[:-1]), (start, width))
            mine = sliced_node(matrix, spans)
            start = add_dims(start, width)
            if self.is_row(piece):
                table = matmul(self.table, transpose(mine) if len(mine.dims) == 2 else mine)
                found.append(row(self.without_time("table", table, mine), self.token))
                continue
            if mine is not matrix:
                mine = self.without_time("part", mine, mine)
            found.append(matmul(mine, piece) if len(mine.dims) == 2 else dot(mine, piece))
        return total(found)

    def joined(self, pieces: list[Node]) -> list[Node]:
        """Vectors: each row of the table alone, what stands between two rows as one."""
        found: list[Node] = []
        for chosen, group in groupby(pieces, self.is_row):
            some = list(group)
            found += some if chosen else [concat(*some)]
        return found

    def without_time(self, kind: str, n: Node, of: Node) -> Node:
        """The value `n`, made of `of`, under a name, computed once a call."""
        if n not in self.once:
            read = next((name for name, _ in refs(of)), self.input.attr[0])
            name = self.names.fresh(f"{kind}{MACHINE}{read}")
            self.equations.append(Equation(name, Kind.ONCE, n, self.origin))
            self.once[n] = ref(name, 0, n.dims)
        return self.once[n]


def _unused_size(p: Program) -> Dim:
    """A name for the number of rows that is no size of `p`."""
    dims = [d for v in p.values for d in v.dims]
    dims += [d for n in walk(*(e.rhs for e in p.equations)) for d in n.dims]
    taken = {name for d in dims for name in terms(d)}
    return "V" if "V" not in taken else f"V{MACHINE}"
