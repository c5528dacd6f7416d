"""Changes of a line: a part of it that has another value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt.language.hand import values_of
from bptt.language.tree import Expr
from bptt.proof.hand import Evaluation, evaluate
from bptt.proof.world import LIMIT, MisfitError, Val, World

Array = Any
Make = Callable[[Evaluation], Val | MisfitError]  # a part's other value, in one sample


@dataclass(frozen=True)
class Case:
    """A sample: a world with exact values, the steps of the line, what it should give there,
    and whether it adds up over them."""

    world: World
    times: Array
    truth: Array
    adds: bool = False


@dataclass(frozen=True)
class Change:
    """`part` of a line given another value, and how that is said."""

    part: Expr
    make: Make
    text: str


def _read(run: Evaluation, leaf: Expr, part: Expr) -> Val:
    """The value of a name where `part` stands."""
    if leaf.lag is None:
        known = {**run.world.sizes, **run.world.constants}
        return Val(np.asarray(known[leaf.name])[None])
    return Val(run.world.at(leaf.name, run.steps(part) - leaf.lag))


def leaf_value(part: Expr, leaf: Expr) -> Make:
    return lambda run: _read(run, leaf, part)


def like_value(part: Expr, like: Expr) -> Make:
    """The value of a part that was another operation on the same arguments."""

    def make(run: Evaluation) -> Val | MisfitError:
        if part in run.summed:
            run.summed.add(like)
        try:
            return run.tried(like, [run.found[a] for a in values_of(part)])
        except (KeyError, TypeError, ValueError) as error:
            return MisfitError(str(error), part.span)

    return make


def swapped_value(part: Expr, like: Expr) -> Make:
    return lambda run: run.tried(like, [run.found[a] for a in part.args[::-1]])


def wrapped(part: Expr, like: Expr) -> Make:
    return lambda run: run.tried(like, [run.found[part]])


def argument(part: Expr, k: int) -> Make:
    return lambda run: run.found[part.args[k]]


def mapped(part: Expr, f: Callable[[Array], Array]) -> Make:
    def make(run: Evaluation) -> Val | MisfitError:
        value = run.found[part]
        return value if isinstance(value, MisfitError) else value._replace(array=f(value.array))

    return make


def function_of(y: Expr, f: Callable[[Array], Array]) -> Make:
    """A function of another part."""

    def make(run: Evaluation) -> Val | MisfitError:
        value = run.found[y]
        return value if isinstance(value, MisfitError) else Val(f(value.array), value.row)

    return make


def product_of(parts: list[Expr]) -> Make:
    """The product of some parts."""

    def make(run: Evaluation) -> Val | MisfitError:
        value = run.found[parts[0]]
        for part in parts[1:]:
            product = Expr("*", part.span, part.span, (part, part))
            value = run.tried(product, [value, run.found[part]])
        return value

    return make


def other_value(part: Expr, e: Expr) -> Make:
    def make(run: Evaluation) -> Val | MisfitError:
        try:
            return evaluate(e, run.world, run.steps(part))
        except MisfitError as error:
            return error

    return make


def plus(part: Expr, terms: list[tuple[int, Expr]]) -> Make:
    def make(run: Evaluation) -> Val | MisfitError:
        value = run.found[part]
        for sign, term in terms:
            other = other_value(part, term)(run)
            if isinstance(value, MisfitError) or isinstance(other, MisfitError):
                return MisfitError("no value", part.span)
            if value.array.shape[1:] != other.array.shape[1:]:
                return MisfitError("another size", part.span)
            value = Val(value.array + sign * other.array)
        return value

    return make


def exchanged(one: Expr, other: Expr) -> Make:
    """The value of the whole line with two names exchanged."""

    def make(run: Evaluation) -> Val | MisfitError:
        found = dict(run.found)
        found[one], found[other] = _read(run, other, one), _read(run, one, other)
        for e in run.order:
            if values_of(e):
                found[e] = run.tried(e, [found[a] for a in values_of(e)])
        return found[run.root]

    return make


Where = Callable[[Evaluation, Expr], Val | MisfitError]


def factor_of(leaf: Expr, f: Callable[[Array], Array]) -> Where:
    return lambda run, part: Val(f(_read(run, leaf, part).array))


def tree_of(e: Expr) -> Where:
    return lambda run, part: other_value(part, e)(run)


def times_factor(part: Expr, factor: Where) -> Make:
    """The value of a part times something; a matrix multiplies from the left."""
    product, matrix = (Expr(op, part.span, part.span, (part, part)) for op in ("*", "@"))

    def make(run: Evaluation) -> Val | MisfitError:
        other, value = factor(run, part), run.found[part]
        if isinstance(other, MisfitError) or isinstance(value, MisfitError):
            return MisfitError("no value", part.span)
        if other.rank == 2 and value.rank == 1:
            return run.tried(matrix, [other, value])
        return run.tried(product, [value, other])

    return make


def finished(value: Val, case: Case) -> Array:
    array = value.array
    if case.adds:
        array = array.sum(0, keepdims=True) * (len(case.times) if len(array) == 1 else 1)
    return array


def same(a: Array, b: Array) -> bool:
    if a.shape[1:] != b.shape[1:]:
        return False
    with np.errstate(all="ignore"):
        scale = float(np.max(np.abs(b), initial=0))
        return bool(np.max(np.abs(a - b), initial=0) <= LIMIT * scale) if scale else False
