"""The `backward:` block: a backward pass as its author wrote it down, as a syntax tree.

Beside what the cells' language has, its lines may hold `[t+1]` and `[T]`, sums over time
(`sum_t(...)`, `+=`), derivatives (`f'(v)`), slices (`W[:X, :]`), several right sides (a line that
begins with `=`), headings that say at which steps they hold, and `means:` lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bptt.errors import CellError, Span
from bptt.language.expressions import Cursor
from bptt.language.tokens import MACHINE_LIMITS, Token, split, tokens
from bptt.language.tree import Expr, join, postorder, said

# At which steps a line holds: at every one, at the last one, at all but the last one.
When = Literal["", "last", "earlier"]

_HEADINGS: dict[tuple[str, ...], When] = {
    ("at", "t", "=", "T", ":"): "last",
    ("before", "t", "=", "T", ":"): "earlier",
    ("at", "every", "t", ":"): "",
}
_HELP = "a line is `d_h[t] = ...`, `means: g = d_h`, `at t = T:`, or begins with `=`"


@dataclass(frozen=True, eq=False, slots=True)
class HandLine:
    """`left = right`. `left` is a name as in `Expr`; `adds` where it is written with `+=`.

    Where the author goes on with `= ...`, each right side is a HandLine of its own; all but the
    last have `more` set.
    """

    left: Expr
    right: Expr
    when: When
    adds: bool
    more: bool = False

    @property
    def span(self) -> Span:
        """The line as written, left and right side."""
        first, last = self.left.span, self.right.span
        return join(first, last) if first.line == last.line else last


@dataclass(frozen=True, eq=False, slots=True)
class Meaning:
    """What a name of the author's stands for, in the names of gradients: `means: g = d_o`."""

    left: Expr
    right: Expr


@dataclass(frozen=True, eq=False, slots=True)
class Hand:
    """A hand-written backward pass."""

    source: str
    lines: tuple[HandLine, ...]
    meanings: tuple[Meaning, ...]


class HandCursor(Cursor):
    """Expressions of a hand-written backward pass.

    Their trees hold, beside those of cells, `name` with a negative `lag` (`[t+1]`), `fixed`
    (`h[-1]`, the step is `lag`), `last` (`h[T]`, `lag` steps before it), `slice` (of its first
    argument, by `span`s of two sizes; a missing one is an `end`), and calls with primes (`order`).
    """

    def __init__(self, line: list[Token], cursor: Cursor) -> None:
        super().__init__(line, cursor.limits, cursor.budget, machine=True)
        self.inside = False  # of a slice: sizes stand there

    def named(self, token: Token, values: list[Expr], stack: list[Any]) -> bool:
        ahead = 0
        while self.peek(ahead).text == "'":
            ahead += 1
        if self.peek(ahead).text == "(":
            return super().named(token, values, stack)
        if ahead:
            help = f"a derivative is taken somewhere: `{token.text}'(v)`"
            raise CellError(f"`{token.text}'` stands without an argument", token.span, help=help)
        found = self.node(self.reference(token))
        while self.at("["):
            found = self.node(self.slice(found))
        values.append(found)
        return False

    def bracket(self, values: list[Expr], stack: list[Any]) -> bool:
        """As for cells; a value in brackets may be cut: `(W.T @ δ)[:X]`."""
        wanted = super().bracket(values, stack)
        while not wanted and self.at("["):
            values.append(self.node(self.slice(values.pop())))
        return wanted

    def reference(self, name: Token) -> Expr:
        """A name with its time, if it has one."""
        found = Expr("name", name.span, name.span, name=name.text)
        start = self.position
        if not self.take("["):
            return found
        op, lag = self.time()
        if op is None or not self.take("]"):
            self.position = start
            return found  # a slice, or an error that it will give
        span = join(name.span, self.line[self.position - 1].span)
        return Expr(op, span, name.span, name=name.text, lag=lag)

    def time(self) -> tuple[str | None, int]:
        """What stands in `[t-1]`, `[T]` or `[-1]`: the op of its Expr, and its `lag`."""
        sign = -1 if self.take("-") else 1
        token = self.peek()
        if token.kind == "number" and token.text.isdigit():
            self.next()
            return "fixed", sign * int(token.text[:9])
        if sign < 0 or token.text not in ("t", "T"):
            return None, 0
        self.next()
        lag = 0
        if self.at("+", "-"):
            sign = 1 if self.next().text == "-" else -1
            if not self.peek().text.isdigit():
                return None, 0
            lag = sign * int(self.next().text[:9])
        return ("name" if token.text == "t" else "last"), lag

    def slice(self, base: Expr) -> Expr:
        """`[a:b]` or `[a:b, c:d]` behind a value."""
        opened = self.next()
        if self.inside:
            raise CellError("a part within a size", opened.span)
        self.inside = True
        spans = [self.bounds(base)]
        while self.take(","):
            spans.append(self.bounds(base))
        if not self.take("]"):
            raise CellError(f"expected `]` here{self.found()}", self.place())
        self.inside = False
        where = join(base.span, self.line[self.position - 1].span)
        if len(spans) > 2:
            raise CellError("a value has at most two axes", where)
        return Expr("slice", where, opened.span, (base, *spans))

    def bounds(self, base: Expr) -> Expr:
        start = self.peek().span
        first = Expr("end", start, start) if self.at(":") else self.expression()
        if not self.take(":"):
            help = f"time is `{base.name}[t]`, `[t+1]`, `[T]`; a part is `{base.name}[:X]`"
            what = f"`{said(join(base.span, self.place()))}` is neither a time nor a part"
            raise CellError(what, join(base.span, self.place()), help=help)
        end = self.peek().span
        last = Expr("end", end, end) if self.at("]", ",") else self.expression()
        return Expr("span", join(start, end), start, (first, last))


class HandReader:
    """Reads the lines of a `backward:` block, one after the other."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: list[HandLine] = []
        self.meanings: list[Meaning] = []
        self.when: When = ""

    def hand(self) -> Hand:
        """What was read."""
        return Hand(self.source, tuple(self.lines), tuple(self.meanings))

    def read(self, line: list[Token], cursor: Cursor) -> None:
        """One line of the block."""
        c = HandCursor(line, cursor)
        texts = tuple(token.text for token in line[:-1])
        if texts in _HEADINGS:
            self.when = _HEADINGS[texts]
            return
        if texts[:2] == ("means", ":"):
            self.means(c)
        elif texts[0] == "=":
            self.goes_on(c)
        elif c.peek().kind == "name":
            self.equation(c)
        else:
            what = f"a line cannot begin with `{said(c.peek().span)}`"
            raise CellError(what, c.peek().span, help=_HELP)
        if c.peek().kind != "end":
            what = f"expected the end of the line here{c.found()}"
            raise CellError(what, c.peek().span)

    def means(self, c: HandCursor) -> None:
        c.position = 2
        while True:
            left = c.reference(c.name("a name"))
            if not c.take("="):
                help = f"for instance `means: {left.name} = d_h`"
                raise CellError(f"expected `=` here{c.found()}", c.place(), help=help)
            if left.op != "name" or left.lag:
                what = "a meaning is given at the step `t`"
                raise CellError(what, left.span, help=f"`means: {left.name}[t] = next_h[t-1]`")
            self.meanings.append(Meaning(left, c.expression()))
            if not c.take(","):
                break

    def equation(self, c: HandCursor) -> None:
        left = c.reference(c.next())
        if left.name in ("t", "T"):
            raise CellError(f"`{left.name}` is time", left.span, help="give the value a name")
        if not c.at("=", "+="):
            raise CellError(f"expected `=` here{c.found()}", c.place(), help=_HELP)
        adds = c.next().text == "+="
        if adds and left.op == "name" and left.lag is not None:
            help = "what adds up over time has no `[t]`: `d_W += outer(...)`"
            raise CellError("`+=` to a value that has a time", left.span, help=help)
        self.sides(c, left, adds)

    def goes_on(self, c: HandCursor) -> None:
        if not self.lines:
            raise CellError("`=` goes on with no line before it", c.peek().span, help=_HELP)
        before = self.lines.pop()
        self.lines.append(HandLine(before.left, before.right, before.when, before.adds, True))
        c.next()
        self.sides(c, before.left, before.adds)

    def sides(self, c: HandCursor, left: Expr, adds: bool) -> None:
        """The right sides of a line; there are several where it is written `a = b = c`."""
        while True:
            right = c.expression()
            more = c.take("=")
            self.lines.append(HandLine(left, right, self.when, adds, more))
            if not more:
                break


def everything(root: Expr) -> Iterator[Expr]:
    """Every part of an expression that is a value, arguments first. Sizes are no values."""
    return postorder(root, values_of)


def values_of(e: Expr) -> tuple[Expr, ...]:
    """The arguments of `e` that are values."""
    if e.op == "slice":
        return e.args[:1]
    if e.op == "call" and e.name in ("embed", "fill", "block", "fold", "repeat"):
        return e.args[:1]
    if e.op == "call" and e.name in ("part", "rows", "cols"):
        return e.args[:1]
    return () if e.op == "call" and e.name in ("eye", "lower", "each", "jac") else e.args


def read(lines: Iterable[str]) -> Hand:
    """The tree of some lines of a backward pass that the machine wrote. Raises CellError."""
    source = "\n".join(lines)
    reader, budget = HandReader(source), [MACHINE_LIMITS.nodes]
    for number, text in enumerate(split(source, MACHINE_LIMITS), 1):
        line = tokens(source, number, text)
        if len(line) > 1:
            reader.read(line, Cursor(line, MACHINE_LIMITS, budget, machine=True))
    return reader.hand()
