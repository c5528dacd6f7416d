"""Slips in a hand-written backward pass, made by machine: what people do wrong, kind by kind.

A line is a text, `left = right`. Each kind is a small function that gives the right sides that
come of one such slip; the same slip at two places of a line gives two.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hand_trees import (
    at,
    binary,
    inner_sum,
    name_of,
    parsed,
    parts,
    put,
    renamed,
    signed,
    step,
    total,
    written,
)

_GRADIENT = re.compile(r"(d|dz|dq|e|direct)_")
_OTHER_FUNCTION = {"tanh": "sigmoid", "sigmoid": "tanh", "exp": "tanh", "sqrt": "exp"}


@dataclass(frozen=True)
class Names:
    """What a line may read: the shapes of values over time, and of those without a time."""

    series: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, tuple[int, ...]]

    def alike(self, name: str) -> list[str]:
        """Others of the same shape that are gradients if this is one."""
        among = self.series if name in self.series else self.constants
        shape = among.get(name)
        kind = bool(_GRADIENT.match(name))
        return [
            other
            for other, its in among.items()
            if (its, bool(_GRADIENT.match(other))) == (shape, kind) and other != name
        ]


@dataclass(frozen=True)
class Slip:
    """One line with a slip in it: the `number`th, counted from 0."""

    kind: str
    number: int
    line: str


# --- kinds ----------------------------------------------------------------------------------------

Kind = Callable[[ast.expr, Names], Iterator[ast.expr]]
KINDS: dict[str, Kind] = {}


def whole(name: str) -> Callable[[Kind], Kind]:
    """A kind that looks at a right side as a whole."""

    def add(kind: Kind) -> Kind:
        KINDS[name] = kind
        return kind

    return add


def anywhere(name: str) -> Callable[[Kind], Kind]:
    """A kind that gives what may stand in place of a part."""

    def add(kind: Kind) -> Kind:
        def everywhere(root: ast.expr, names: Names) -> Iterator[ast.expr]:
            for part in parts(root):
                for new in kind(part, names):
                    yield put(root, (part, new))

        KINDS[name] = everywhere
        return kind

    return add


@anywhere("a term dropped")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    terms = signed(part)
    if isinstance(part, ast.BinOp) and len(terms) > 1:
        for k in range(len(terms)):
            yield total(terms[:k] + terms[k + 1 :])


@anywhere("a sign flipped")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield binary(left, ast.Sub, right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            yield binary(left, ast.Add, right)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            yield inner


@anywhere("this step for a neighbour")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    found = step(part)
    if found and found[1]:
        yield at(found[0], 0)


@anywhere("a neighbour for this step")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    found = step(part)
    if found and not found[1]:
        yield at(found[0], 1 if _GRADIENT.match(found[0]) else -1)


@anywhere("a later step before the first")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=0)):
            yield parsed(f"{name}[1]")
        case ast.Subscript(value=ast.Name(id=name), slice=ast.UnaryOp(operand=ast.Constant())):
            yield parsed(f"{name}[0]")


@anywhere("another value of this size")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    name = name_of(part)
    if name in names.series and not _GRADIENT.match(name):
        for other in names.alike(name):
            yield renamed(part, other)


@anywhere("another gradient of this size")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    name = name_of(part)
    if name in names.series and _GRADIENT.match(name):
        for other in names.alike(name):
            if other.partition("_")[2] != name.partition("_")[2]:
                yield renamed(part, other)


@anywhere("another parameter of this shape")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    if isinstance(part, ast.Name) and part.id in names.constants:
        for other in names.alike(part.id):
            yield ast.Name(other)


def _slope(e: ast.expr) -> bool:
    """Whether this is a factor such as 1 - i[t], 1 - g[t]**2, f'(z[t])."""
    match e:
        case ast.BinOp(left=ast.Constant(value=1), op=ast.Sub()):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name.endswith("_prime")
    return False


@anywhere("a derivative forgotten")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            if _slope(right):
                yield left
            if _slope(left):
                yield right


@anywhere("a factor dropped")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            if not _slope(right):
                yield left
            if not _slope(left):
                yield right
        case ast.BinOp(left=left, op=ast.Div()):
            yield left


@anywhere("a matrix forgotten")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(op=ast.MatMult(), right=right):
            yield right


@anywhere("sigmoid's derivative for tanh's")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(
            left=ast.Constant(value=1),
            op=ast.Sub(),
            right=ast.BinOp(left=y, op=ast.Pow(), right=ast.Constant(value=2)),
        ):
            yield binary(y, ast.Mult, binary(ast.Constant(1), ast.Sub, y))


@anywhere("tanh's derivative for sigmoid's")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(
            left=ast.BinOp(left=rest, op=ast.Mult(), right=y),
            op=ast.Mult(),
            right=ast.BinOp(left=ast.Constant(value=1), op=ast.Sub(), right=z),
        ) if ast.dump(y) == ast.dump(z):
            square = binary(y, ast.Pow, ast.Constant(2))
            yield binary(rest, ast.Mult, binary(ast.Constant(1), ast.Sub, square))


@anywhere("a square forgotten")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=2)):
            yield base


@anywhere("a transpose forgotten")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.Attribute(value=matrix, attr="T"):
            yield matrix


@anywhere("a transpose too many")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(left=ast.Name() as matrix, op=ast.MatMult(), right=right):
            yield binary(ast.Attribute(matrix, "T"), ast.MatMult, right)


@anywhere("a star for a matrix product")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.BinOp(left=left, op=ast.MatMult(), right=right):
            yield binary(left, ast.Mult, right)


@anywhere("outer turned round")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.Call(func=ast.Name(id="outer") as func, args=[a, b]):
            yield ast.Call(func, [b, a], [])


@whole("a sum over time shifted")
def _(root: ast.expr, names: Names) -> Iterator[ast.expr]:
    if inner_sum(root) is not root:
        steps = [(part, step(part)) for part in parts(root)]
        gradients = [(p, at(s[0], 1)) for p, s in steps if s and not s[1] and _GRADIENT.match(s[0])]
        if gradients:
            yield put(root, *gradients)


@anywhere("direct for total")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    name = name_of(part)
    direct = name.replace("d_", "direct_", 1)
    if name.startswith("d_") and direct in names.series:
        yield renamed(part, direct)


@anywhere("total for direct")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    name = name_of(part)
    of = name.replace("direct_", "d_", 1)
    if name.startswith("direct_") and of in names.series:
        yield renamed(part, of)


@whole("the step after forgotten")
def _(root: ast.expr, names: Names) -> Iterator[ast.expr]:
    terms = signed(root)
    now = [(s, e) for s, e in terms if not any((step(p) or ("", 0))[1] > 0 for p in parts(e))]
    if 0 < len(now) < len(terms):
        yield total(now)


@whole("a term twice")
def _(root: ast.expr, names: Names) -> Iterator[ast.expr]:
    inner = inner_sum(root)
    terms = signed(inner)
    if len(terms) > 1:
        for term in terms:
            yield put(root, (inner, total([*terms, term])))


@anywhere("a number changed")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)


@whole("a sum over time forgotten")
def _(root: ast.expr, names: Names) -> Iterator[ast.expr]:
    if inner_sum(root) is not root:
        yield inner_sum(root)


@anywhere("another function")
def _(part: ast.expr, names: Names) -> Iterator[ast.expr]:
    match part:
        case ast.Call(func=ast.Name(id=name), args=[inner]) if name in _OTHER_FUNCTION:
            yield inner
            yield ast.Call(ast.Name(_OTHER_FUNCTION[name]), [inner], [])


def slips(number: int, line: str, names: Names, kind: str) -> list[Slip]:
    """The slips of a kind in a line, each once."""
    left, right = line.split(" = ", 1)
    root = parsed(right)
    right = written(root)
    texts = dict.fromkeys(written(new) for new in KINDS[kind](root, names))
    return [Slip(kind, number, f"{left} = {text}") for text in texts if text != right]
