"""Tokens to expressions: precedence climbing, on a stack of its own instead of Python's.

Python's precedence exactly, loosest first: `+ -`, then `* / @`, unary minus, `**` (which binds to
the right, and less tightly than a minus on its right), `.T`. All but `**` associate to the left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bptt.errors import CellError, Span
from bptt.language.tokens import Limits, Token
from bptt.language.tree import Expr, join, said

_BINARY = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 4}
_NEG = 3
CODE_WORDS = frozenset(
    "and class def else for from if import in lambda not or return where while with".split()
)


@dataclass
class _Open:
    """An operator that waits for its right side, or a bracket that waits for its end."""

    op: str  # an operator, `neg`, `(` or `call`
    at: Span  # of a call: its name
    bracket: Span
    precedence: int = 0
    name: str = ""
    order: int = 0
    args: list[Expr] = field(default_factory=list[Expr])


class Cursor:
    """A line's tokens, read from left to right. `budget` holds how many nodes are still allowed."""

    def __init__(self, line: list[Token], limits: Limits, budget: list[int], machine: bool) -> None:
        self.line, self.position = line, 0
        self.limits, self.budget, self.machine = limits, budget, machine

    def peek(self, ahead: int = 0) -> Token:
        return self.line[min(self.position + ahead, len(self.line) - 1)]

    def next(self) -> Token:
        token = self.peek()
        self.position += 1
        return token

    def at(self, *texts: str) -> bool:
        """Does an operator out of `texts` come next?"""
        token = self.peek()
        return token.kind == "op" and token.text in texts

    def take(self, text: str) -> bool:
        """Read the operator `text` if it comes next."""
        if self.at(text):
            self.position += 1
            return True
        return False

    def name(self, what: str) -> Token:
        """A name must come next."""
        if self.peek().kind != "name":
            raise CellError(f"expected {what} here{self.found()}", self.place())
        return self.next()

    def found(self) -> str:
        token = self.peek()
        return "" if token.kind == "end" else f", found `{said(token.span)}`"

    def place(self) -> Span:
        """The next token, or, at the end of the line, the last one."""
        token = self.peek()
        return self.line[-2].span if token.kind == "end" and len(self.line) > 1 else token.span

    def node(self, e: Expr) -> Expr:
        """Count `e`, then give it back."""
        self.budget[0] -= 1
        if self.budget[0] < 0:
            what = f"the text has more than {self.limits.nodes} operations and names"
            raise CellError(what, e.at, help="a cell is a handful of equations")
        return e

    # --- expressions ---

    def expression(self) -> Expr:
        """The expression that begins here and ends before whatever cannot continue it."""
        values: list[Expr] = []
        stack: list[_Open] = []
        brackets = 0
        wanted = True
        while True:
            token = self.peek()
            if wanted:
                wanted = self.value(values, stack)
                brackets += wanted and stack[-1].op in ("(", "call")
                if brackets > self.limits.nesting:
                    what = f"brackets are nested more than {self.limits.nesting} deep"
                    raise CellError(what, token.span)
            elif token.kind == "op" and token.text in _BINARY:
                precedence = _BINARY[token.text]
                self.reduce(values, stack, precedence + (token.text == "**"))
                stack.append(_Open(token.text, token.span, token.span, precedence))
                wanted = True
                self.next()
            elif self.at("."):
                values.append(self.attribute(values.pop()))
            elif brackets and self.at(")", ","):
                wanted = self.bracket(values, stack)
                brackets -= not wanted
            else:
                self.refuse_neighbour(brackets > 0)
                break
        self.reduce(values, stack, 0)
        if stack:
            raise self.unclosed(stack)
        return values.pop()

    def value(self, values: list[Expr], stack: list[_Open]) -> bool:
        """Read the start of a value. True where more of it must follow."""
        token = self.next()
        span = token.span
        if token.kind == "number":
            value = float(token.text)
            if value == float("inf") and not self.machine:
                raise CellError(f"the number `{token.text}` is too large", span)
            values.append(self.node(Expr("number", span, span, value=value)))
            return False
        if token.kind == "name":
            return self.named(token, values, stack)
        if token.kind == "op" and token.text == "(":
            stack.append(_Open("(", span, span))
            return True
        if token.kind == "op" and token.text == "-":
            stack.append(_Open("neg", span, span, _NEG))
            return True
        self.position -= 1
        raise self.no_value(stack)

    def no_value(self, stack: list[_Open]) -> CellError:
        what, token = "expected a value here", self.peek()
        if token.kind == "end":
            if stack and stack[-1].op in ("(", "call"):
                return self.unclosed(stack)
            reason = ": the line ends after an operator" if stack else ": the line ends"
            return CellError(what + reason, self.place(), help="an equation is one line")
        if token.text == "*" and stack and stack[-1].op == "**":
            return CellError("`***` is no operator", token.span, help="a power is written `x**2`")
        help = "stack values with `concat(v, w)`" if token.text == "[" else None
        if token.text == "/" and stack and stack[-1].op == "/":
            help = "a division is written `/`"
        return CellError(what + self.found(), token.span, help=help)

    def unclosed(self, stack: list[_Open]) -> CellError:
        bracket = next(o.bracket for o in reversed(stack) if o.op in ("(", "call"))
        return CellError("`(` is never closed", bracket, help="an equation is one line")

    def named(self, token: Token, values: list[Expr], stack: list[_Open]) -> bool:
        order = 0
        while self.machine and self.peek(order).text == "'":
            order += 1
        if self.peek(order).text == "(" and self.peek(order).kind == "op":
            self.position += order + 1
            bracket = self.line[self.position - 1].span
            stack.append(_Open("call", token.span, bracket, name=token.text, order=order))
            if not self.at(")"):
                return True
            self.position += 1
            self.close(values, stack)
            return False
        span, lag = self.index(token)
        values.append(self.node(Expr("name", span, token.span, name=token.text, lag=lag)))
        return False

    def index(self, name: Token) -> tuple[Span, int | None]:
        """The `[t-1]` after a name: the span of both, and how many steps back it says."""
        if not self.take("["):
            return name.span, None
        lag, opened = 0, self.position - 1
        good = self.peek().kind == "name" and self.next().text == "t"
        if good and self.at("+", "-"):
            sign = 1 if self.next().text == "-" else -1
            good = self.peek().kind == "number" and self.peek().text.isdigit()
            lag = sign * int(self.next().text[:9]) if good else 0
        if good and self.take("]"):
            return join(name.span, self.line[self.position - 1].span), lag
        while not self.at("]") and self.peek().kind != "end":
            self.position += 1
        if self.peek().kind == "end":
            raise CellError("`[` is never closed", self.line[opened].span)
        help = "write `x[t]` or `x[t-1]`; a part of a vector is `part(v, k, n)`"
        if opened == 1 and self.peek(1).text == "=":
            help = f"what a state is before the first step is declared: `state {name.text} = 0`"
        what = f"`{name.text}` is indexed by something other than time"
        raise CellError(what, join(name.span, self.peek().span), help=help)

    def attribute(self, value: Expr) -> Expr:
        dot, token = self.next(), self.peek()
        if token.kind == "name" and token.text == "T" and self.peek(1).text != "(":
            self.next()
            return self.node(Expr("T", join(value.span, token.span), token.span, (value,)))
        span = join(dot.span, token.span) if token.kind != "end" else dot.span
        if value.op == "name" and value.name in ("np", "numpy", "torch", "math", "F", "nn"):
            help = "functions stand alone: `tanh(x)`, `sigmoid(x)`, `exp(x)`"
            raise CellError(f"`{value.name}.` is not needed", join(value.at, span), help=help)
        help = "only `.T`, the transpose, follows a dot; write `dot(v, w)`, `sum(v)`, `A @ b`"
        raise CellError(f"`{said(span)}` is not part of the language", span, help=help)

    def bracket(self, values: list[Expr], stack: list[_Open]) -> bool:
        """A `,` or `)` inside brackets. True where another value must follow."""
        token = self.next()
        self.reduce(values, stack, 0)
        opened = stack[-1]
        if token.text == ")":
            if opened.op == "call":
                opened.args.append(values.pop())
            self.close(values, stack)
            return False
        if opened.op == "(":
            raise CellError(
                "a comma inside brackets that belong to no function",
                token.span,
                help="stack values with `concat(v, w)`",
            )
        opened.args.append(values.pop())
        return True

    def close(self, values: list[Expr], stack: list[_Open]) -> None:
        """The closing bracket has been read: make the call, or widen the value's span."""
        opened, end = stack.pop(), self.line[self.position - 1].span
        span = join(opened.at, end)
        if opened.op == "(":
            values.append(replace(values.pop(), span=span))
            return
        args, name, order = tuple(opened.args), opened.name, opened.order
        if not self.machine and len(args) == 1 and _is_time(args[0]):
            what = f"`{said(span)}` is written with round brackets"
            help = f"time stands in square ones: `{name}[{said(args[0].span)}]`"
            raise CellError(what, span, help=help)
        values.append(self.node(Expr("call", span, opened.at, args, name=name, order=order)))

    def reduce(self, values: list[Expr], stack: list[_Open], precedence: int) -> None:
        """Finish every waiting operator that binds at least as tightly as `precedence`."""
        while stack and stack[-1].precedence >= max(precedence, 1):
            waiting = stack.pop()
            right = values.pop()
            if waiting.op == "neg":
                made = Expr("neg", join(waiting.at, right.span), waiting.at, (right,))
            else:
                left = values.pop()
                span = join(left.span, right.span)
                made = Expr(waiting.op, span, waiting.at, (left, right))
            values.append(self.node(made))

    def refuse_neighbour(self, inside: bool) -> None:
        """What follows a value and is no operator, where that is a mistake known by name."""
        token = self.peek()
        if token.text == "per" and self.peek(1).text == "sequence":
            return
        if token.kind == "name" and token.text in CODE_WORDS:
            help = "an equation is one expression; `max`, `min` and `relu` choose between values"
            raise CellError(f"a cell has no `{token.text}`", token.span, help=help)
        if token.kind in ("name", "number") or token.text == "(":
            raise CellError(
                f"two values side by side, with no operator before `{said(token.span)}`",
                token.span,
                help="write `*` for an elementwise product, `@` for a matrix product",
            )
        if token.text == "[":
            what = "only a name is indexed by time"
            raise CellError(what, token.span, help="name it in an equation of its own first")
        if token.text == "'":
            help = "a transpose is written `W.T`; a cell gives no derivatives: they follow from it"
            raise CellError("unexpected character `'`", token.span, help=help)
        if inside and token.kind == "op":
            if token.text in ("=", "=="):
                help = "functions take values, in order, and no options"
                raise CellError(f"`{token.text}` inside brackets", token.span, help=help)
            raise CellError(f"expected `)` or an operator here{self.found()}", token.span)


def _is_time(e: Expr) -> bool:
    """`t`, `t-1` or `t+1`."""
    start = e.args[0] if e.op in ("+", "-") else e
    number = e.op == start.op or e.args[1].op == "number"
    return start.op == "name" and start.name == "t" and start.lag is None and number
