"""The right sides of hand-written lines as Python's trees, and small changes of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from operator import is_
from typing import Any

_SLOPE = re.compile(r"d\w+_d\w+$")  # dG_dy(y, l): its arguments have names
# These only say which side of a kink a value is on: a slip in it seldom changes that.
_SIDES = {"positive", "prefer", "same", "sign"}
_SIZED = {"embed", "fill", "fold", "repeat", "part", "rows", "cols", "eye", "lower", "each"}


def parsed(right: str) -> ast.expr:
    """The tree of a right side; `f'` is called f_prime in it."""
    plain = re.sub(r"(\w)('+)\(", lambda m: f"{m[1]}{'_prime' * len(m[2])}(", right)
    return ast.parse(plain, mode="eval").body


def written(tree: ast.expr) -> str:
    return ast.unparse(tree).replace("_prime", "'")


def parts(root: ast.expr) -> Iterator[ast.expr]:
    """Every part that is a value: no time, no size."""
    yield root
    match root:
        case ast.Subscript(value=ast.Name()):
            return
        case ast.Subscript(value=inner) | ast.Attribute(value=inner):
            yield from parts(inner)
        case ast.UnaryOp(operand=inner):
            yield from parts(inner)
        case ast.BinOp(left=left, right=right):
            yield from parts(left)
            yield from parts(right)
        case ast.Call(func=ast.Name(id=name), args=args) if not (
            _SLOPE.match(name) or name in _SIDES
        ):
            for inner in args[: 1 if name in _SIZED else None]:
                yield from parts(inner)
        case _:
            return


def put(root: ast.expr, *changes: tuple[ast.expr, ast.expr]) -> ast.expr:
    """The tree with other parts at some places: pairs, the old one and the new one."""
    instead = {id(old): new for old, new in changes}

    def made(e: Any) -> Any:
        if isinstance(e, list):
            return [made(each) for each in e]
        if not isinstance(e, ast.AST):
            return e
        if id(e) in instead:
            return instead[id(e)]
        before = [getattr(e, name) for name in e._fields]
        after = [made(each) for each in before]
        alike = all(
            all(map(is_, a, b)) if isinstance(a, list) else a is b
            for a, b in zip(before, after, strict=True)
        )
        return e if alike else type(e)(*after)

    return made(root)


def binary(left: ast.expr, op: type[ast.operator], right: ast.expr) -> ast.BinOp:
    return ast.BinOp(left, op(), right)


def step(e: ast.expr) -> tuple[str, int] | None:
    """The name and the step of `name[t+1]`, `name[t]`, `name[t-1]`."""
    match e:
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Name(id="t")):
            return name, 0
        case ast.Subscript(
            value=ast.Name(id=name),
            slice=ast.BinOp(left=ast.Name(id="t"), op=op, right=ast.Constant(value=int() as k)),
        ):
            return name, k if isinstance(op, ast.Add) else -k
    return None


def at(name: str, k: int) -> ast.expr:
    return parsed(f"{name}[t{k:+d}]" if k else f"{name}[t]")


def renamed(e: ast.expr, name: str) -> ast.expr:
    match e:
        case ast.Subscript(slice=where):
            return ast.Subscript(ast.Name(name), where)
    return ast.Name(name)


def name_of(e: ast.expr) -> str:
    match e:
        case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name)):
            return name
    return ""


def signed(root: ast.expr) -> list[tuple[int, ast.expr]]:
    """The terms of a sum with their signs."""
    match root:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            sign = 1 if isinstance(op, ast.Add) else -1
            return [*signed(left), *((sign * s, e) for s, e in signed(right))]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return [(-s, e) for s, e in signed(inner)]
    return [(1, root)]


def total(terms: list[tuple[int, ast.expr]]) -> ast.expr:
    (sign, root), *rest = terms
    root = root if sign > 0 else ast.UnaryOp(ast.USub(), root)
    for sign, e in rest:
        root = binary(root, ast.Add if sign > 0 else ast.Sub, e)
    return root


def inner_sum(root: ast.expr) -> ast.expr:
    """What is summed over time, or all there is."""
    match root:
        case ast.Call(func=ast.Name(id="sum_t"), args=[inner]):
            return inner
    return root
