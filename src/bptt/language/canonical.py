"""The canonical text of a Program, read back: the same nodes, by identity.

Nothing is inferred and nothing simplified: every size is declared, and each spelling is one Node.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from bptt.errors import CellError
from bptt.ir import ops
from bptt.ir.dims import Dim, Dims
from bptt.ir.ops import SizeError, node
from bptt.ir.program import Emit, Equation, Kind, Node, Program, Role, State, Value
from bptt.language.parse import parse
from bptt.language.scope import to_dim, to_dims
from bptt.language.terms import MOST_TIMES
from bptt.language.tree import Declaration, Expr, Tree, said

_ROLES = {"input": Role.GIVEN, "param": Role.PARAM, "const": Role.CONST}
_BINARY: dict[str, Callable[[Node, Node], Node]] = {
    "+": ops.add,
    "-": ops.sub,
    "*": ops.mul,
    "/": ops.div,
    "@": ops.matmul,
}
_BESIDE = ("max", "min", "prefer", "same", "unless")
_PLAIN = (
    "tanh sin cos exp log sqrt softplus logsigmoid softsign relu abs sign sigmoid positive outer"
    " concat row softmax log_softmax sum"
).split()
# The first of these arguments that is a value, where not all are: the others are sizes and names.
_SIZED = ("size", "fill", "block", "embed")
_PATTERNS = {"eye": ops.eye, "lower": ops.lower}
_PLACED = "put_row"  # two values, then a size
_UNSPECIFIED = {"pull": 1, "slope": 2}


@lru_cache(maxsize=512)
def read(text: str) -> Program:
    """The Program that `bptt.printers.text.text` wrote; equal texts give one object."""
    return _Reader(parse(text, machine=True)).program()


class _Reader:
    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        sweeps = [d.name for d in tree.declared("sweep")]
        if sweeps not in ([], ["ascending"], ["descending"]):
            raise CellError("a sweep is `ascending` or `descending`")
        self.dir = -1 if sweeps == ["descending"] else 1
        self.functions = {d.name: d.kind or "elementwise" for d in tree.declared("function")}
        self.dims: dict[str, Dims] = {}
        self.lets: dict[str, Node] = {}
        self.series: set[str] = {line.name for line in tree.lines if line.lag == 0}

    def program(self) -> Program:
        values = tuple(self.value(d) for d in self.tree.declarations if d.word in _ROLES)
        for d in self.tree.declared("state"):
            self.dims[d.name] = self.declared_dims(d)
        states = tuple(
            State(d.name, None if d.value is None else self.node(d.value))
            for d in self.tree.declared("state")
        )
        equations = tuple(self.equations())
        loss = [d.name for d in self.tree.declared("loss")]
        outputs = tuple(d.name for d in self.tree.declared("output"))
        emits = tuple(Emit(e.name, self.dir * (e.lag or 0), name) for e, name in self.tree.emits)
        try:
            return Program(
                self.dir, values, equations, states, outputs, emits, loss[0] if loss else None
            )
        except AssertionError as wrong:
            raise CellError(str(wrong)) from None

    def declared_dims(self, d: Declaration) -> Dims:
        if d.sizes is None:
            raise CellError(f"the size of `{d.name}` is not declared", d.span)
        return to_dims(d.sizes)

    def value(self, d: Declaration) -> Value:
        found = Value(d.name, self.declared_dims(d), _ROLES[d.word], d.per_sequence)
        self.dims[d.name] = found.dims
        if found.role is Role.GIVEN and not found.per_sequence:
            self.series.add(d.name)
        return found

    def equations(self) -> list[Equation]:
        found: list[Equation] = []
        for line in self.tree.lines:
            rhs = self.node(line.rhs)
            if line.sign == "let":
                self.lets[line.name] = rhs
                continue
            if self.dims.setdefault(line.name, rhs.dims) != rhs.dims:
                raise CellError(f"`{line.name}` has another size than declared", line.rhs.span)
            kind = Kind.SUM if line.sign == "+=" else Kind.ONCE
            found.append(Equation(line.name, Kind.STEP if line.lag == 0 else kind, rhs))
        return found

    # --- nodes ---

    def node(self, root: Expr) -> Node:
        """The Node that an expression spells."""
        made: dict[Expr, Node] = {}
        stack = [root]
        while stack:
            e = stack[-1]
            values = _values(e)
            missing = [a for a in values if a not in made]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            try:
                made[e] = self.spelled(e, [made[a] for a in values])
            except SizeError as wrong:
                raise CellError(f"sizes do not fit: {wrong}", e.span) from None
        return made[root]

    def spelled(self, e: Expr, args: list[Node]) -> Node:
        if e.op == "number":
            return ops.const(e.value)
        if e.op == "name":
            return self.name(e)
        if e.op == "**":
            return node("pow", *args, attr=(_number(e.args[1]).hex(),))
        if e.op in ("neg", "T"):
            return node(e.op, *args)
        if e.op in _BINARY:
            return _BINARY[e.op](*args)
        return self.call(e, args)

    def name(self, e: Expr) -> Node:
        if e.name in self.lets and e.lag is None:
            return self.lets[e.name]
        if e.name not in self.dims:
            raise CellError(f"unknown name `{e.name}`", e.span)
        if (e.name in self.series) != (e.lag is not None):
            raise CellError(f"`{e.name}` is used both with and without `[t]`", e.span)
        return ops.ref(e.name, self.dir * (e.lag or 0), self.dims[e.name])

    def call(self, e: Expr, args: list[Node]) -> Node:
        name = e.name
        if name in self.functions:
            return self.unspecified(e, self.functions[name], args)
        if name in _UNSPECIFIED and len(e.args) > _UNSPECIFIED[name] and e.args[0].op == "name":
            attr: tuple[str | int, ...] = (e.args[0].name,)
            if name == "slope":
                attr = (*attr, _whole(e.args[1], len(args)))
            return node("call_pull" if name == "pull" else "call_slope", *args, attr=attr)
        if name in _PATTERNS and len(e.args) == 1:
            return _PATTERNS[name](to_dim(e.args[0]))
        if name == "each" and len(e.args) == 2:
            return ops.each(to_dim(e.args[0]), _whole(e.args[1], MOST_TIMES + 1))
        if name in _SIZED:
            return self.sized(e, args)
        if name == _PLACED and len(e.args) == 3:
            return node("put_row", *args, attr=(to_dim(e.args[2]),))
        if name in _BESIDE and len(args) == 2:
            dims = max((a.dims for a in args), key=len)
            return node(name, *(ops.fill(a, dims) if not a.dims else a for a in args))
        if name == "max":
            return node("row_max", *args)
        if name == "dot" and len(args) == 2:
            return ops.dot(*args)
        if name == "mean" and len(args) == 1 and len(args[0].dims) == 1:
            return ops.mean(args[0])
        if name in _PLAIN:
            return node(name, *args)
        raise CellError(f"unknown function `{name}`", e.at)

    def unspecified(self, e: Expr, kind: str, args: list[Node]) -> Node:
        if kind == "elementwise":
            return node("call", *args, attr=(e.name, e.order))
        return node("call_vector" if kind == "vector" else "call_scalar", *args, attr=(e.name,))

    def sized(self, e: Expr, args: list[Node]) -> Node:
        """`size(H)`, `fill(a, H)`, and `block` and `embed` with two sizes an axis."""
        if e.name == "size" and len(e.args) == 1:
            return ops.size(to_dim(e.args[0]))
        sizes: list[Dim] = [to_dim(a) for a in e.args[1:]]
        if e.name == "fill":
            return node("fill", *args, attr=tuple(sizes))
        if len(sizes) % 2 or not args:
            raise CellError(f"`{e.name}` takes a value and two sizes an axis", e.at)
        return node(e.name, *args, attr=tuple(zip(sizes[::2], sizes[1::2], strict=True)))


def _values(e: Expr) -> tuple[Expr, ...]:
    """The arguments of `e` that are values, not sizes, names or exponents."""
    if e.op == "**":
        return e.args[:1]
    if e.op == "call" and e.name in ("size", "each", *_PATTERNS):
        return ()
    if e.op == "call" and e.name in _SIZED:
        return e.args[:1]
    if e.op == "call" and e.name == _PLACED:
        return e.args[:2]
    if e.op == "call" and e.name in _UNSPECIFIED:
        return e.args[_UNSPECIFIED[e.name] :]
    return e.args


def _number(e: Expr) -> float:
    sign, e = (-1.0, e.args[0]) if e.op == "neg" else (1.0, e)
    if e.op != "number":
        raise CellError(f"`{said(e.span)}` is not a number", e.span)
    return sign * e.value


def _whole(e: Expr, below: int) -> int:
    value = _number(e)
    if value not in range(below):
        raise CellError(f"`{said(e.span)}` is not a whole number below {below}", e.span)
    return int(value)
