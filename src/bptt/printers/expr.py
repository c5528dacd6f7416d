"""The infix walk that languages share: operators with as few brackets as keep the tree.

A language is a subclass of `Infix`. It says in `signs` how operators look, in `functions` what
plain functions are called, and in `print_OP` methods how everything else is written. An op with
none of these is an error that names the op and the language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from bptt.errors import BpttError
from bptt.ir.ops import mean
from bptt.ir.program import Node

# Elementwise operators and functions of two arguments: a number beside a vector is filled.
BESIDE = frozenset(("add", "sub", "mul", "div", "max", "min", "prefer", "same", "unless"))
# Functions that every language may call by the name they have in the language of cells.
_NAMES = (
    "tanh sin cos sigmoid exp log sqrt softplus logsigmoid softsign relu abs sign positive"
    " prefer same unless"
    " max min outer sum concat row softmax log_softmax dot mean cumsum rcumsum"
)
PLAIN: Mapping[str, str] = MappingProxyType({n: n for n in _NAMES.split()} | {"row_max": "max"})


class Binds(IntEnum):
    """How tightly a piece of text holds together, loosest first."""

    SUM = 1
    PRODUCT = 2
    NEG = 3
    POWER = 4
    ATOM = 5


class Piece(NamedTuple):
    """The text of an expression; `op` is its outermost one."""

    text: str
    binds: Binds = Binds.ATOM
    op: str = ""


class Infix:
    """Prints Nodes in infix notation. `names` are Nodes to be written by a name of their own."""

    language: ClassVar[str] = "infix notation"
    signs: ClassVar[Mapping[str, tuple[str, Binds]]] = {
        "add": (" + ", Binds.SUM),
        "sub": (" - ", Binds.SUM),
        "mul": ("*", Binds.PRODUCT),
        "div": ("/", Binds.PRODUCT),
        "matmul": (" @ ", Binds.PRODUCT),
    }
    functions: ClassVar[Mapping[str, str]] = PLAIN

    def __init__(self, names: Mapping[Node, str] | None = None) -> None:
        self.names = dict(names or {})
        self.pieces: dict[Node, Piece] = {}

    def show(self, root: Node) -> str:
        """The text of an expression."""
        stack = [root]
        while stack:
            n = stack[-1]
            op, operands = self.form(n)
            missing = [a for a in operands if a not in self.pieces and a not in self.names]
            if missing:
                stack.extend(missing)
            else:
                stack.pop()
                self.pieces[n] = self.spell(n, op, [self.piece(a) for a in operands])
        return self.pieces[root].text

    def piece(self, n: Node) -> Piece:
        return Piece(self.names[n]) if n in self.names else self.pieces[n]

    def form(self, n: Node) -> tuple[str, Sequence[Node]]:
        """What is written for `n`: an op, or `dot` or `mean`, and the operands written with it."""
        if n.op in BESIDE:
            inner = None if n.args[0] in self.names else n.args[0]
            if n.op == "div" and inner is not None and inner.op == "sum":
                vector = inner.args[0]
                if len(vector.dims) == 1 and n is mean(vector):
                    return "mean", (vector,)
            return n.op, self.unfilled(n.args)
        if n.op == "sum" and n.args[0].op == "mul" and n.args[0] not in self.names:
            pair = n.args[0].args
            if len(pair[0].dims) == 1 and all(a.op != "fill" for a in pair):
                return "dot", pair
        return n.op, n.args

    def unfilled(self, args: Sequence[Node]) -> Sequence[Node]:
        """Two operands without the `fill` that a number beside a vector gets by itself."""
        left, right = args
        if right.op == "fill" and right not in self.names:
            return left, right.args[0]
        if left.op == "fill" and left not in self.names:
            return left.args[0], right
        return args

    def spell(self, n: Node, op: str, pieces: list[Piece]) -> Piece:
        """The text of `n` from the texts of its operands."""
        method = getattr(self, f"print_{op}", None)
        if method is not None:
            return method(n, pieces)
        if op in self.signs:
            return self.binary(op, *pieces)
        if op in self.functions:
            return self.call(self.functions[op], [p.text for p in pieces])
        raise BpttError(f"the op `{op}` has no spelling in {self.language}")

    def call(self, name: str, args: Sequence[str]) -> Piece:
        return Piece(f"{name}({', '.join(args)})")

    def binary(self, op: str, left: Piece, right: Piece) -> Piece:
        """An operator that associates to the left."""
        sign, binds = self.signs[op]
        # brackets that Python would not need: nobody should have to know that `@` is as `*`
        mixed = ("mul", "div") if op == "matmul" else ("matmul",) if op in ("mul", "div") else ()
        a = self.bracket(left, Binds.ATOM if left.op in mixed else binds)
        b = self.bracket(right, Binds(binds + 1))
        return Piece(f"{a}{sign}{b}", binds, op)

    def bracket(self, piece: Piece, least: Binds) -> str:
        """The text of a piece, in brackets unless it binds at least as tightly as `least`."""
        return piece.text if piece.binds >= least else f"({piece.text})"

    def print_neg(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(f"-{self.bracket(pieces[0], Binds.NEG)}", Binds.NEG, "neg")
