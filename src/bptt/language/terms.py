"""Expressions to terms: definitions are written out, functions looked up, names resolved.

A term is an expression whose sizes are still to be found. Equal terms are one object, so that
nested definitions cost what they say and not what they unfold to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from bptt.errors import CellError
from bptt.ir.dims import Dim, Dims
from bptt.language.near import did_you_mean
from bptt.language.tokens import Limits
from bptt.language.tree import Definition, Expr, operands, postorder, said

CONSTANT, STATIC, SERIES = 0, 1, 2  # over time: constant, one value a sequence, one a step

ELEMENTWISE = "tanh sin cos sigmoid exp log sqrt relu softplus logsigmoid softsign abs sign".split()
VECTOR_KEEPING = frozenset(("softmax", "log_softmax", "cumsum", "call_vector"))
MOST_TIMES = 10**6  # that something is repeated, or cut
SHAPE_KEEPING = frozenset((*ELEMENTWISE, "neg", "pow", "call")) | VECTOR_KEEPING
_BINARY = {"+": "add", "-": "sub", "*": "mul", "/": "div", "@": "matmul"}
# name: how few and how many arguments
_ARGUMENTS: dict[str, tuple[int, int]] = dict.fromkeys(ELEMENTWISE, (1, 1)) | {
    "max": (1, 2),
    "min": (1, 2),
    "sum": (1, 1),
    "mean": (1, 1),
    "dot": (2, 2),
    "outer": (2, 2),
    "softmax": (1, 1),
    "log_softmax": (1, 1),
    "cross_entropy": (2, 2),
    "cumsum": (1, 1),
    "concat": (1, 20_000),
    "repeat": (2, 2),
    "part": (3, 3),
    "rows": (3, 3),
    "cols": (3, 3),
    "eye": (1, 1),
}
FUNCTIONS = tuple(_ARGUMENTS)
# Spellings of the canonical text only; no definition may take them.
MACHINE_FUNCTIONS = tuple(
    "block embed fill size lower each positive prefer same unless pull slope row put_row".split()
)
_FOREIGN = {
    "σ": "sigmoid",
    "logistic": "sigmoid",
    "ln": "log",
    "maximum": "max",
    "minimum": "min",
    "matmul": "@",
    "hadamard": "*",
    "cat": "concat",
    "vstack": "concat",
    "chunk": "part",
    "cumax": "cumsum(softmax(v))",
    "repeat_interleave": "repeat",
    "identity": "eye(H)",
    "Linear": "W @ v + b",
    "linear": "W @ v + b",
    "einsum": "@",
    "norm": "sqrt(sum(v**2))",
    "square": "v**2",
    "silu": "v * sigmoid(v)",
    "swish": "v * sigmoid(v)",
    "clip": "max(low, min(high, v))",
    "clamp": "max(low, min(high, v))",
    "hardtanh": "max(-1, min(1, v))",
    "block": "part",
    "ReLU": "relu",
    "T": ".T",
    "transpose": ".T",
}


class Shape:
    """The dims of a term or name, once found. A `flat` one is no matrix."""

    __slots__ = ("dims", "flat", "readers")

    def __init__(self, dims: Dims | None = None, flat: bool = False) -> None:
        self.dims, self.flat = dims, flat
        self.readers: list[Term] = []


class Term:
    """`expr` is where it was first written, `parts` are its arguments there, `use` the outermost
    definition through which it came."""

    __slots__ = ("args", "attr", "expr", "index", "level", "literal", "op", "parts", "shape", "use")

    def __init__(self, op: str, args: tuple[Term, ...], attr: tuple[Any, ...]) -> None:
        self.op, self.args, self.attr = op, args, attr
        self.parts: tuple[Expr, ...]
        self.expr: Expr
        self.use: Expr | None
        self.index: int
        self.level: int
        self.literal: bool
        self.shape: Shape


class Names(Protocol):
    """What gives names their meaning (`scope.Scope`)."""

    def resolve(self, e: Expr, terms: Terms) -> Term: ...

    def is_value(self, name: str) -> bool: ...

    def size(self, e: Expr) -> Dim: ...


class Terms:
    """Makes terms. `functions` are the unspecified ones with their kinds; `definitions` macros."""

    def __init__(
        self, names: Names, definitions: Mapping[str, Definition], functions: Mapping[str, str]
    ) -> None:
        self.names, self.definitions, self.functions = names, definitions, functions
        self.all: list[Term] = []
        self.interned: dict[tuple[Any, ...], Term] = {}
        self.expanded: dict[tuple[str, tuple[Term, ...]], Term] = {}
        self.bodies: dict[str, list[Expr]] = {}
        self.use: Expr | None = None
        self.visits = 0

    def make(
        self,
        op: str,
        args: tuple[Term, ...],
        expr: Expr,
        attr: tuple[Any, ...] = (),
        *,
        parts: tuple[Expr, ...] | None = None,
        shape: Shape | None = None,
        level: int = CONSTANT,
    ) -> Term:
        """The one term with these fields."""
        key = (op, attr, *args)
        term = self.interned.get(key)
        if term is None:
            term = self.interned[key] = Term(op, args, attr)
            term.level = max((level, *(a.level for a in args)))
            term.literal = op == "number" or (bool(args) and all(a.literal for a in args))
            if shape is None:
                shape = args[0].shape if op in SHAPE_KEEPING else Shape(flat=term.level > 0)
            term.shape, term.expr, term.use = shape, expr, self.use
            term.parts = expr.args if parts is None else parts
            term.index = len(self.all)
            self.all.append(term)
        return term

    def expand(self, root: Expr) -> Term:
        """The term of an equation's right-hand side."""
        frames = [_Frame(postorder(root), {}, None)]
        while True:
            frame = frames[-1]
            self.use = frames[1].call if len(frames) > 1 else None
            opened = self.advance(frame, {f.name for f in frames})
            if opened is not None:
                frames.append(opened)
                continue
            value = frame.values.pop()
            frames.pop()
            if not frames:
                return value
            self.expanded[frame.key] = value
            frames[-1].values.append(value)

    def advance(self, frame: _Frame, active: set[str]) -> _Frame | None:
        """Go on in `frame` until a definition must be written out, or to its end."""
        for e in frame.todo:
            self.visits += 1
            if self.visits > Limits().nodes:
                what = f"written out, the text has more than {Limits().nodes} operations"
                raise CellError(what, e.span, help="a cell is a handful of equations")
            first = len(frame.values) - len(operands(e))
            args = tuple(frame.values[first:])
            del frame.values[first:]
            if e.op == "call" and e.name in self.definitions:
                definition = self.definitions[e.name]
                _count(e, len(definition.parameters), len(definition.parameters))
                if e.name in active:
                    what = f"the definition of `{e.name}` uses itself"
                    raise CellError(what, e.at, help="a definition is written out, so it must end")
                known = self.expanded.get((e.name, args))
                if known is None:
                    return self.open(e, definition, args)
                frame.values.append(known)
            elif e.op == "name" and e.name in frame.env:
                frame.values.append(_parameter(e, frame.env))
            else:
                frame.values.append(self.term(e, args))
        return None

    def open(self, e: Expr, definition: Definition, args: tuple[Term, ...]) -> _Frame:
        if e.name not in self.bodies:
            self.bodies[e.name] = list(postorder(definition.body))
        env = dict(zip(definition.parameters, args, strict=True))
        return _Frame(iter(self.bodies[e.name]), env, e, (e.name, args))

    def term(self, e: Expr, args: tuple[Term, ...]) -> Term:
        if e.op == "number":
            return self.make("number", (), e, (e.value,), shape=Shape(()))
        if e.op == "name":
            return self.names.resolve(e, self)
        if e.op == "call":
            return self.call(e, args)
        if e.op == "**":
            return self.make("pow", args[:1], e, (_exponent(e, args[1]),))
        return self.make(_BINARY.get(e.op, e.op), args, e)

    # --- functions ---

    def call(self, e: Expr, args: tuple[Term, ...]) -> Term:
        kind = self.functions.get(e.name)
        if kind is not None:
            if kind != "scalar":
                _count(e, 1, 1)
                op = "call" if kind == "elementwise" else "call_vector"
                return self.make(op, args, e, (e.name, 0) if op == "call" else (e.name,))
            _count(e, 1, _ARGUMENTS["concat"][1])
            return self.make("call_scalar", args, e, (e.name,), shape=Shape(()))
        name = "sigmoid" if e.name == "σ" else e.name
        if name not in _ARGUMENTS:
            raise self.unknown(e)
        _count(e, *_ARGUMENTS[name])
        if name == "cross_entropy":
            logits = self.make("log_softmax", args[:1], e, parts=e.args[:1])
            labelled = self.make("dot", (args[1], logits), e, parts=(e.args[1], e.args[0]))
            return self.make("neg", (labelled,), e, parts=(e,))
        if name in ("part", "rows", "cols"):
            return self.make(name, args[:1], e, _part(e, args), parts=e.args[:1])
        if name == "repeat":
            times = _times(e.args[1], args[1], "`repeat(v, n)` has each element of v n times")
            if not times:
                raise CellError("nothing is left of what is repeated 0 times", e.args[1].span)
            return self.make("repeat", args[:1], e, (times,), parts=e.args[:1])
        if name == "eye":
            size = self.names.size(e.args[0])
            return self.make("eye", (), e, (size,), parts=(), shape=Shape((size, size)))
        if name in ("max", "min") and len(args) == 1:
            if name == "max":
                return self.make("row_max", args, e)
            negative = self.make("neg", args, e)
            return self.make("neg", (self.make("row_max", (negative,), e),), e, parts=(e,))
        return self.make(name, args, e)

    def unknown(self, e: Expr) -> CellError:
        known = (*self.definitions, *self.functions, *FUNCTIONS)
        help = did_you_mean(e.name, known)
        if e.name in _FOREIGN:
            help = f"it is written `{_FOREIGN[e.name]}` here"
        elif e.name in MACHINE_FUNCTIONS:
            help = "it belongs to the texts that the machine writes"
        if self.names.is_value(e.name):
            what = f"`{e.name}` is a value, not a function"
            return CellError(what, e.at, help=f"a product is written `{e.name} * (...)`")
        help = help or f"if a paper leaves it open, declare it: `function {e.name}`"
        return CellError(f"unknown function `{e.name}`", e.at, help=help)


class _Frame:
    """An expression or the body of a definition on its way to a term."""

    def __init__(
        self, todo: Iterator[Expr], env: dict[str, Term], call: Expr | None, key: Any = None
    ) -> None:
        self.todo, self.env, self.call, self.key = todo, env, call, key
        self.name = call.name if call is not None else ""
        self.values: list[Term] = []


def _parameter(e: Expr, env: Mapping[str, Term]) -> Term:
    if e.lag is not None:
        what = f"`{e.name}` is a parameter of this definition and has no time of its own"
        raise CellError(what, e.span, help=f"write `{e.name}`; the caller says at which step")
    return env[e.name]


def _count(e: Expr, fewest: int, most: int) -> None:
    if not fewest <= len(e.args) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} or more"
        wanted = f"{fewest} or {most}" if most == fewest + 1 else wanted
        plural = "" if wanted == "1" else "s"
        what = f"`{e.name}` takes {wanted} argument{plural}, not {len(e.args)}"
        raise CellError(what, e.span)


def number(term: Term) -> float | None:
    """The value of a literal number or of its negative."""
    if term.op == "number":
        return term.attr[0]
    if term.op == "neg":
        inner = term.args[0]
        return -inner.attr[0] if inner.op == "number" else None
    return None


def _exponent(e: Expr, exponent: Term) -> float:
    value = number(exponent)
    if value is None:
        base, power = (said(a.span) for a in e.args)
        raise CellError(
            f"the exponent `{power}` is not a number",
            e.args[1].span,
            help=f"write a number, as in `x**2` or `x**0.5`, or `exp({power} * log({base}))`",
        )
    return value


def _part(e: Expr, args: tuple[Term, ...]) -> tuple[int, int]:
    """Which part, from 1, of how many."""
    help = f"`{e.name}({said(e.args[0].span)}, k, n)` is the k-th of n equal parts"
    k, n = (_times(part, arg, help) for part, arg in zip(e.args[1:], args[1:], strict=True))
    if not 1 <= k <= n:
        what = f"there is no part {k} of {n}"
        help = f"parts count from 1: the first is `{e.name}({said(e.args[0].span)}, 1, n)`"
        raise CellError(what, e.args[1].span, help=help)
    return k, n


def _times(e: Expr, term: Term, help: str) -> int:
    """A whole number that is written out."""
    value = number(term)
    if value is None or value != int(value) or not 0 <= value <= MOST_TIMES:
        raise CellError(f"`{said(e.span)}` is not a whole number", e.span, help=help)
    return int(value)
