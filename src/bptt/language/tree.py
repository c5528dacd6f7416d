"""The syntax tree: what a text says, every part with its span."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bptt.errors import Span

if TYPE_CHECKING:  # its trees are made of these
    from bptt.language.hand import Hand

Block = Literal["cell", "readout", "loss", "backward"]


@dataclass(frozen=True, eq=False, slots=True)
class Expr:
    """An expression. `op` is `number`, `name`, `call`, `neg`, `T` or an operator: `+ - * / @ **`.

    `span` is the whole of it, brackets included; `at` is its name or operator. A name without an
    index has `lag` None; `[t]` is 0, `[t-1]` is 1. `order` counts the primes of a call.
    """

    op: str
    span: Span
    at: Span
    args: tuple[Expr, ...] = ()
    name: str = ""
    lag: int | None = None
    value: float = 0.0
    order: int = 0


def operands(e: Expr) -> tuple[Expr, ...]:
    """The arguments of `e` that are values: those of `eye` are sizes."""
    return () if e.op == "call" and e.name == "eye" else e.args


def postorder(root: Expr, values: Callable[[Expr], tuple[Expr, ...]] = operands) -> Iterator[Expr]:
    """Every part of `root` that is a value, arguments first, left to right. `values` of an
    expression are its arguments that are."""
    found: list[Expr] = []
    stack = [root]
    while stack:
        e = stack.pop()
        found.append(e)
        stack.extend(values(e))
    return reversed(found)


def said(span: Span) -> str:
    """The text under a span."""
    return span.source.split("\n")[span.line - 1][span.start : span.end]


def join(first: Span, last: Span) -> Span:
    """From the start of `first` to the end of `last`, on one line."""
    return Span(first.source, first.line, first.start, last.end)


@dataclass(frozen=True, eq=False, slots=True)
class Sizes:
    """The declared dims of a name: none for a number, one for a vector, two for a matrix."""

    dims: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class Declaration:
    """One name of a declaring line. `word` is the line's first word; `kind` a function's."""

    word: str
    name: str
    span: Span
    sizes: Sizes | None = None
    value: Expr | None = None
    per_sequence: bool = False
    kind: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Definition:
    """A macro: `name(parameters) = body`."""

    name: str
    span: Span
    parameters: tuple[str, ...]
    body: Expr


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """An equation: `name[t] = rhs` where `lag` is 0, `name = rhs` where it is None.

    `sign` is `=`; in the machine's dialect also `+=`, and `let` for an abbreviation.
    """

    name: str
    span: Span
    lag: int | None
    sign: str
    rhs: Expr
    block: Block
    origin: str


@dataclass(frozen=True, eq=False, slots=True)
class Tree:
    """A whole text. `emits` are the machine's: a line `emit value[t-1] += name`. `hand` is the
    backward pass that its author wrote down."""

    source: str
    declarations: tuple[Declaration, ...]
    definitions: tuple[Definition, ...]
    lines: tuple[Line, ...]
    emits: tuple[tuple[Expr, str], ...] = ()
    hand: Hand | None = None

    def declared(self, word: str) -> Iterator[Declaration]:
        """The declarations of one kind, in the order written."""
        return (d for d in self.declarations if d.word == word)
