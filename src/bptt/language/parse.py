"""Text to syntax tree, line by line. Spelling errors end here.

Two dialects share one grammar. The machine's, which `canonical` reads, has in addition names with
`$`, the lines `sweep`, `loss`, `emit` and `let`, sums (`+=`) and primes (`f''(x)`).
"""

from __future__ import annotations

from dataclasses import replace

from bptt.errors import CellError, Span
from bptt.language.expressions import CODE_WORDS, Cursor
from bptt.language.hand import HandReader
from bptt.language.near import did_you_mean
from bptt.language.tokens import MACHINE_LIMITS, Limits, Token, split, tokens
from bptt.language.tree import (
    Block,
    Declaration,
    Definition,
    Expr,
    Line,
    Sizes,
    Tree,
    join,
    said,
)

_BLOCKS: tuple[Block, ...] = ("cell", "readout", "loss", "backward")
_IN_ORDER = "`cell:`, `readout:`, `loss:`, `backward:`"
WORDS = ("input", "param", "const", "state", "output", "init", "function")
_MACHINE_WORDS = ("sweep", "loss", "emit", "let")
_KINDS = ("elementwise", "vector", "scalar")
_LINE_HELP = f"a line is an equation, `h[t] = ...`, or begins with one of: {', '.join(WORDS)}"


def parse(text: str, *, machine: bool = False) -> Tree:
    """The syntax tree of a cell's text. Raises CellError."""
    return _Parser(text, machine).tree()


def parse_definition(text: str) -> Definition:
    """The tree of one macro, such as `f(a, b) = sum((a - b)**2)/2`."""
    tree = parse(text)
    if len(tree.definitions) != 1 or tree.lines or tree.declarations:
        raise CellError(
            "expected one definition here",
            Span(text, 1, 0, len(text.split("\n")[0])),
            help="for instance `f(a, b) = sum((a - b)**2)/2`",
        )
    return tree.definitions[0]


class _Parser:
    def __init__(self, source: str, machine: bool) -> None:
        self.source, self.machine = source, machine
        self.limits = MACHINE_LIMITS if machine else Limits()
        self.budget = [self.limits.nodes]
        self.block: Block = "cell"
        self.headings: dict[str, Span] = {}
        self.declarations: list[Declaration] = []
        self.definitions: dict[str, Definition] = {}
        self.lines: list[Line] = []
        self.emits: list[tuple[Expr, str]] = []
        self.hand = HandReader(source)

    def tree(self) -> Tree:
        for number, text in enumerate(split(self.source, self.limits), 1):
            line = tokens(self.source, number, text, machine=self.machine)
            if len(line) > 1:
                self.read(line)
                self.count(line)
        if not (self.lines or self.definitions or self.machine):
            raise CellError("there are no equations", help="an equation is `name[t] = expression`")
        return Tree(
            self.source,
            tuple(self.declarations),
            tuple(self.definitions.values()),
            tuple(self.lines),
            tuple(self.emits),
            self.hand.hand() if "backward" in self.headings else None,
        )

    def read(self, line: list[Token]) -> None:
        c = Cursor(line, self.limits, self.budget, self.machine)
        heading = [t.text for t in line[:-1]][1:] == [":"] and line[0].text in _BLOCKS
        if self.block == "backward" and not heading:
            self.hand.read(line, c)
        else:
            self.statement(c)

    def count(self, line: list[Token]) -> None:
        found = len(self.lines) + len(self.definitions) + len(self.hand.lines)
        if found > self.limits.lines:
            what = f"there are more than {self.limits.lines} equations"
            raise CellError(what, line[0].span, help="a cell is a handful of equations")

    def statement(self, c: Cursor) -> None:
        first, second = c.peek(), c.peek(1)
        if first.kind != "name":
            raise CellError(
                f"a line cannot begin with `{said(first.span)}`", first.span, help=_LINE_HELP
            )
        words = (*WORDS, *_MACHINE_WORDS) if self.machine else WORDS
        if second.kind == "name" and first.text in words:
            self.declaration(c)
        elif second.kind == "op" and second.text == ":" and not self.machine:
            self.heading(c)
        elif second.kind == "name" and first.text in CODE_WORDS:
            help = "a cell is equations for one step, not code: `h[t] = tanh(W @ x[t] + ...)`"
            raise CellError(f"a cell has no `{first.text}`", first.span, help=help)
        elif second.kind == "name":
            help = did_you_mean(first.text, WORDS) or _LINE_HELP
            raise CellError(f"unknown declaration `{first.text}`", first.span, help=help)
        elif second.kind == "op" and second.text == "(" and not self.machine:
            self.definition(c)
        else:
            self.equation(c)
        if c.peek().kind != "end":
            self.refuse_rest(c)

    def refuse_rest(self, c: Cursor) -> None:
        token = c.peek()
        help = None
        if token.text == ")":
            raise CellError("`)` closes no bracket", token.span)
        if token.text in ("=", "==", "+="):
            help = "one `=` a line: an equation names one value"
        raise CellError(f"expected the end of the line here{c.found()}", token.span, help=help)

    # --- blocks ---

    def heading(self, c: Cursor) -> None:
        word = c.next()
        c.next()
        if word.text not in _BLOCKS:
            help = did_you_mean(word.text, _BLOCKS) or f"the blocks are {_IN_ORDER}"
            raise CellError(f"unknown block `{word.text}`", word.span, help=help)
        if word.text in self.headings:
            notes = ((self.headings[word.text], "the first one"),)
            raise CellError(f"the block `{word.text}:` is there twice", word.span, notes=notes)
        if _BLOCKS.index(word.text) < _BLOCKS.index(self.block):
            raise CellError(
                f"the block `{word.text}:` stands after `{self.block}:`",
                word.span,
                help=f"the order is {_IN_ORDER}",
            )
        if word.text == "cell" and self.lines:
            raise CellError("the block `cell:` begins after the first equation", word.span)
        self.headings[word.text] = word.span
        self.block = word.text

    # --- declarations ---

    def declaration(self, c: Cursor) -> None:
        word = c.next().text
        if word == "emit":
            self.emit(c)
        elif word == "let":
            self.equation(c, sign="let")
        else:
            self.declarations.append(self.declared(word, c))
            while c.take(","):
                self.declarations.append(self.declared(word, c))

    def declared(self, word: str, c: Cursor) -> Declaration:
        name = c.name("a name")
        found = Declaration(word, name.text, name.span)
        if c.at("[") and not self.machine:
            help = f"a declaration names the whole series: `{word} {name.text}`"
            raise CellError(f"`{name.text}` is declared with an index", c.peek().span, help=help)
        if word == "function" and c.take(":"):
            kind = c.name("a kind of function")
            if kind.text not in _KINDS:
                help = did_you_mean(kind.text, _KINDS) or f"the kinds are {', '.join(_KINDS)}"
                raise CellError(f"unknown kind of function `{kind.text}`", kind.span, help=help)
            return replace(found, kind=kind.text)
        if word in ("input", "param", "const", "state") and c.take(":"):
            found = replace(found, sizes=self.sizes(c))
        if word in ("input", "param") and c.peek().text == "per":
            found = replace(found, per_sequence=self.per_sequence(word, c))
        if word in ("const", "state", "init") and c.take("="):
            found = replace(found, value=c.expression())
        elif word == "init":
            what = f"expected `=` after `init {name.text}`{c.found()}"
            raise CellError(what, c.place(), help="for instance `init b_f = 1`")
        elif c.at("="):
            help = f"`init {name.text} = ...` says how a trainer starts a parameter"
            what = f"`{word}` gives no value"
            raise CellError(what, c.peek().span, help=help if word == "param" else None)
        return found

    def per_sequence(self, word: str, c: Cursor) -> bool:
        start = c.next().span
        if c.peek().text != "sequence" or (word == "param" and not self.machine):
            help = "an input without time is declared `input s: S per sequence`"
            raise CellError(f"`{said(start)}` is not understood here", start, help=help)
        c.next()
        return True

    def sizes(self, c: Cursor) -> Sizes:
        """`scalar`, one size or `(rows, columns)`."""
        start = c.peek().span
        if c.peek().text == "scalar":
            c.next()
            return Sizes((), start)
        if not c.take("("):
            size = c.expression()
            return Sizes((size,), size.span)
        dims = [c.expression()]
        while c.take(","):
            if not c.at(")"):
                dims.append(c.expression())
        if not c.take(")"):
            raise CellError("`(` is never closed", start)
        span = join(start, c.line[c.position - 1].span)
        if len(dims) > 2:
            help = "values are numbers, vectors `H` and matrices `(H, X)`"
            raise CellError(f"{len(dims)} sizes for one name", span, help=help)
        return Sizes(tuple(dims), span)

    def emit(self, c: Cursor) -> None:
        name = c.next()
        span, lag = c.index(name)
        value = Expr("name", span, name.span, name=name.text, lag=lag)
        if not c.take("+="):
            raise CellError(f"expected `+=` here{c.found()}", c.place())
        self.emits.append((value, c.name("a name").text))

    # --- equations ---

    def definition(self, c: Cursor) -> None:
        name = c.next()
        c.next()
        parameters: list[str] = []
        while not c.take(")"):
            if parameters and not c.take(","):
                raise CellError(f"expected `,` or `)` here{c.found()}", c.place())
            token = c.name("a name")
            if token.text == "t":
                help = f"write `{name.text}[t] = ...`, and `[t-1]` for the step before"
                span = join(name.span, token.span)
                raise CellError("time stands in square brackets", span, help=help)
            if token.text in parameters:
                raise CellError(f"`{token.text}` is a parameter twice", token.span)
            parameters.append(token.text)
        if not c.take("="):
            what = f"expected `=` after the definition of `{name.text}`{c.found()}"
            raise CellError(what, c.place(), help=_LINE_HELP)
        if name.text in self.definitions:
            notes = ((self.definitions[name.text].span, "the first one"),)
            raise CellError(f"`{name.text}` is defined twice", name.span, notes=notes)
        body = c.expression()
        self.definitions[name.text] = Definition(name.text, name.span, tuple(parameters), body)

    def equation(self, c: Cursor, sign: str = "") -> None:
        name = c.name("a name")
        span, lag = c.index(name)
        self.assignable(name, span, lag)
        if sign or c.at("=") or (self.machine and c.at("+=")):
            sign = sign or c.peek().text
            c.next()
        else:
            self.refuse_left(name, c)
        rhs = c.expression()
        first, last = c.line[0].span, c.line[-1].span
        origin = said(Span(self.source, first.line, first.start, last.end)).strip()
        self.lines.append(Line(name.text, span, lag, sign, rhs, self.block, origin))

    def assignable(self, name: Token, span: Span, lag: int | None) -> None:
        if lag and lag > 0:
            help = f"an equation gives the value at `t`: write `{name.text}[t] = ...`"
            raise CellError(f"`{said(span)}` is assigned in the past", span, help=help)
        if lag:
            help = "shift the equation by a step: `h[t] = ...`, with `[t-1]` for the step before"
            raise CellError(f"`{said(span)}` is assigned in the future", span, help=help)

    def refuse_left(self, name: Token, c: Cursor) -> None:
        token = c.peek()
        help: str | None = f"an equation is `{name.text}[t] = ...`"
        if token.text in ("==", ":"):
            help = "an equation is written with one `=`"
        elif token.text == "+=":
            help = "sums over time are the machine's: they follow from the equations"
        elif token.text == ",":
            help = "an equation names one value; write one line each"
        left = said(join(name.span, c.line[c.position - 1].span))
        raise CellError(f"expected `=` after `{left}`{c.found()}", c.place(), help=help)
