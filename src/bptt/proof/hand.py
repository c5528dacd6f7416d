"""The numbers of a hand-written backward pass: its expressions at all steps at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from bptt.errors import CellError
from bptt.ir.ops import OPS
from bptt.language.hand import everything, values_of
from bptt.language.tree import Definition, Expr, said
from bptt.proof.functions import (
    BINARY,
    ELEMENTWISE_FUNCTIONS,
    OF_VECTORS,
    einsum,
    slope_of,
)
from bptt.proof.structures import Structures
from bptt.proof.world import MisfitError, Val, World

Array = Any

_STEP = 1e-30  # of the complex step: exact, since nothing is subtracted
_OF_VECTORS = ("softmax", "log_softmax", "cumsum")
_DEEPEST = 30  # definitions within definitions


class _Structure(NamedTuple):
    """The parts of an expression, arguments first; what each is an argument of; what lies below
    a sum over time."""

    order: tuple[Expr, ...]
    parents: dict[Expr, Expr]
    summed: frozenset[Expr]


@lru_cache(maxsize=1024)
def _structure(root: Expr) -> _Structure:
    order = tuple(everything(root))
    parents = {a: e for e in order for a in values_of(e)}
    return _Structure(
        order, parents, frozenset(a for e in order if _sums(e) for a in everything(e.args[0]))
    )


class Evaluation:
    """The values of an expression and of all its parts, at `times`."""

    def __init__(
        self,
        root: Expr,
        world: World,
        times: Array,
        env: dict[str, Val] | None = None,
        depth: int = 0,
    ) -> None:
        self.root, self.world, self.times = root, world, np.asarray(times)
        self.env, self.depth = env or {}, depth  # of the definitions around it
        self.order, self.parents, summed = _structure(root)
        self.summed = set(summed)  # an explanation adds to them
        self.found: dict[Expr, Val | MisfitError] = {}
        for e in self.order:
            self.found[e] = self.tried(e, [self.found[a] for a in values_of(e)])

    @property
    def value(self) -> Val:
        """The value of the whole. Raises MisfitError."""
        found = self.found[self.root]
        if isinstance(found, MisfitError):
            raise found
        return found

    def steps(self, e: Expr) -> Array:
        """The steps at which a part is needed: all of them below a sum over time."""
        return np.arange(self.world.length) if e in self.summed else self.times

    def tried(self, e: Expr, args: list[Val | MisfitError]) -> Val | MisfitError:
        values: list[Val] = []
        for a in args:
            if isinstance(a, MisfitError):
                return a
            values.append(a)
        try:
            if any(v.nothing for v in values):
                return _with_nothing(e, values)
            with np.errstate(all="ignore"):
                return _Rule(self, e, values).value()
        except MisfitError as error:
            return error

    def instead(self, part: Expr, value: Val | MisfitError) -> Val | MisfitError:
        """The value of the whole if a part had another value."""
        while part is not self.root:
            parent = self.parents[part]
            args = [value if a is part else self.found[a] for a in values_of(parent)]
            part, value = parent, self.tried(parent, args)
        return value


def evaluate(root: Expr, world: World, times: Array) -> Val:
    """The value of an expression at `times`. Raises MisfitError."""
    return Evaluation(root, world, times).value


def _sums(e: Expr) -> bool:
    return e.op == "call" and e.name == "sum_t"


def _with_nothing(e: Expr, values: list[Val]) -> Val:
    """The value of an expression, a part of which is beyond the last step."""
    if e.op in ("+", "-") and not all(v.nothing for v in values):
        left, right = values
        if left.nothing:
            return right._replace(array=-right.array) if e.op == "-" else right
        return left
    return _NOTHING


_NOTHING = Val(np.zeros(1), nothing=True)


class _Rule(Structures):
    """The value of one expression from those of its arguments."""

    def __init__(self, whole: Evaluation, e: Expr, args: list[Val]) -> None:
        super().__init__(whole.world, e, args)
        self.whole = whole

    def value(self) -> Val:
        match self.e.op:
            case "number":
                return Val(np.array([self.e.value]))
            case "name" | "fixed" | "last":
                return self.name()
            case "neg":
                return self.args[0]._replace(array=-self.args[0].array)
            case "T":
                a = self.args[0]
                return Val(np.swapaxes(a.array, 1, 2)) if a.rank == 2 else Val(a.array, not a.row)
            case "slice":
                return self.slice()
            case "@":
                return self.product()
            case "**":
                return self.power()
            case "call":
                return self.call()
            case op:
                return self.together(BINARY[op], *self.args)

    def name(self) -> Val:
        e, world = self.e, self.world
        if e.name in world.unset:
            return _NOTHING
        if e.name in self.whole.env:
            return self.whole.env[e.name]
        if e.op == "name" and e.lag is None:
            if e.name in world.constants:
                array = np.asarray(world.constants[e.name])
                return Val(array[None], world.rows and array.ndim == 1)
            return Val(np.array([float(world.sizes[e.name])]))
        times = self.whole.steps(e) - (e.lag or 0)
        if e.op != "name":
            times = np.array([world.length - 1 - (e.lag or 0) if e.op == "last" else e.lag or 0])
        array = world.at(e.name, times)
        return Val(array, world.rows and array.ndim == 2)

    def slice(self) -> Val:
        array, (_, *spans) = self.args[0].array, self.e.args
        if len(spans) != self.args[0].rank:
            raise self.misfit(f"{len(spans)} slices of {self.shape(self.args[0])}")
        where = [slice(None)]
        for span, whole in zip(spans, array.shape[1:], strict=True):
            first, last = (None if b.op == "end" else self.size(b) for b in span.args)
            if not 0 <= (first or 0) <= (whole if last is None else last) <= whole:
                raise self.misfit(f"`{said(span.span)}` lies outside of {whole} numbers")
            where.append(slice(first, last))
        return Val(array[tuple(where)], self.args[0].row)

    def together(self, f: Callable[..., Array], *args: Val) -> Val:
        """An elementwise function: numbers go with everything, else sizes must be equal."""
        widest = max(args, key=lambda a: a.rank)
        arrays: list[Array] = []
        for a in args:
            if a.rank and a.array.shape[1:] != widest.array.shape[1:]:
                raise self.misfit(f"{self.shape(args[0])} beside {self.shape(args[1])}")
            pad = [1] * (widest.rank - a.rank)
            arrays.append(a.array.reshape(*a.array.shape, *pad))
        row = all(a.row for a in args if a.rank == 1) and widest.rank == 1
        return Val(f(*arrays), row)

    def power(self) -> Val:
        base, exponent = self.args
        if exponent.rank:
            raise self.misfit("the exponent is no number")
        p = exponent.array
        if p.shape == (1,) and float(p[0].real).is_integer() and abs(p[0]) <= 64:
            return Val(base.array ** int(p[0].real), base.row)  # exact for the complex step
        return self.together(np.power, base, exponent)

    def product(self) -> Val:
        a, b = self.args
        x, y = a.array, b.array
        if not a.rank or not b.rank:
            return self.together(np.multiply, a, b)
        if a.rank == b.rank == 1:
            if a.row == b.row:
                what = "`@` between two vectors: write `dot(v, w)`, `outer(v, w)` or `v @ w.T`"
                raise self.misfit(what)
            # of two sizes it can only be an outer product, however the author writes columns
            apart = x.shape[1] != y.shape[1]
            return self.outer(a, b) if b.row or apart else self.fold("ti,ti->t", a, b)
        left, right = x.shape[-1] if a.rank == 2 else x.shape[1], y.shape[1]
        if left != right:
            raise self.misfit(f"{self.shape(a)} @ {self.shape(b)}")
        letters = {(2, 2): "tij,tjk->tik", (2, 1): "tij,tj->ti", (1, 2): "ti,tij->tj"}
        return Val(einsum(letters[a.rank, b.rank], x, y), a.row or b.row)

    def fold(self, letters: str, a: Val, b: Val) -> Val:
        if a.array.shape[1:] != b.array.shape[1:]:
            raise self.misfit(f"{self.shape(a)} with {self.shape(b)}")
        return Val(einsum(letters, a.array, b.array))

    # --- functions ---

    def call(self) -> Val:
        e, args = self.e, self.args
        slope = slope_of(e, self.world.functions)
        if slope is not None:
            return self.slope(*slope)
        definition = self.world.functions.get(e.name) or self.world.macros.get(e.name)
        if e.order:
            return self.derivative(definition)
        if definition is not None:
            return self.macro(definition, args)
        name = "sigmoid" if e.name == "σ" else e.name
        if name in ELEMENTWISE_FUNCTIONS:
            return self.together(ELEMENTWISE_FUNCTIONS[name], *args)
        if name in ("max", "min") and len(args) == 2:
            return self.together(OPS[name].meaning, *args)
        special = getattr(self, f"call_{name}", None)
        if special is not None:
            return special()
        ranks, f = OF_VECTORS[name]
        if tuple(a.rank for a in args) != ranks:
            raise self.misfit(f"`{name}` of {', '.join(map(self.shape, args))}")
        if name in ("dot", "cross_entropy") and args[0].array.shape[1:] != args[1].array.shape[1:]:
            raise self.misfit(f"`{name}` of {', '.join(map(self.shape, args))}")
        return Val(f(*(a.array for a in args)))

    def macro(self, definition: Definition, args: list[Val]) -> Val:
        depth = self.whole.depth + 1
        if depth > _DEEPEST:
            raise CellError("definitions are nested too deep", self.e.span)
        env = dict(zip(definition.parameters, args, strict=True))
        inner = Evaluation(definition.body, self.world, self.whole.steps(self.e), env, depth)
        return inner.value

    def applied(self, definition: Definition | None, arg: Val) -> Array:
        if definition is not None:
            return self.macro(definition, [arg]).array
        name = "sigmoid" if self.e.name == "σ" else self.e.name
        if name in ELEMENTWISE_FUNCTIONS:
            return ELEMENTWISE_FUNCTIONS[name](arg.array)
        return OF_VECTORS[name][1](arg.array)

    def derivative(self, definition: Definition | None) -> Val:
        """`f'(v)`: elementwise, or the matrix of the derivatives of a function of a vector."""
        if len(self.args) != 1 or self.e.order > 1:
            raise self.misfit("one prime, of a function of one value, is understood here")
        (arg,) = self.args
        x = arg.array
        known = (*ELEMENTWISE_FUNCTIONS, *_OF_VECTORS, "σ")
        if definition is None and self.e.name not in known:
            raise self.misfit(f"`{self.e.name}'` is not understood; write out what it is")
        if arg.rank != 1:
            return Val(self.applied(definition, Val(x + 1j * _STEP)).imag / _STEP)
        columns = [
            self.applied(definition, Val(x + 1j * _STEP * unit)).imag / _STEP
            for unit in np.eye(self.square(x.shape[1]))
        ]
        matrix = np.stack(columns, axis=-1)
        if matrix.ndim == 2:  # of a number
            return Val(matrix)
        if self.e.name in _OF_VECTORS or self.world.kinds.get(self.e.name) == "vector":
            return Val(matrix)
        return Val(np.diagonal(matrix, axis1=1, axis2=2), arg.row)

    def slope(self, definition: Definition, k: int) -> Val:
        """`dG_dy(y, l)`: the derivative of a number by one of its arguments."""
        args = list(self.args)

        def at(moved: Array) -> Array:
            here = [Val(moved) if j == k else a for j, a in enumerate(args)]
            return self.macro(definition, here).array.imag / _STEP

        x = args[k].array
        if args[k].rank == 0:
            return Val(at(x + 1j * _STEP))
        columns = [at(x + 1j * _STEP * unit) for unit in np.eye(x.shape[1])]
        return Val(np.stack(columns, axis=-1))

    # --- functions with rules of their own ---

    def call_sum_t(self) -> Val:
        array = self.args[0].array
        every = self.world.length if len(array) == 1 else 1
        return Val(every * array.sum(0, keepdims=True), self.args[0].row)

    def call_jac(self) -> Val:
        y, x, *held = self.e.args
        jacobian = self.world.jacobian
        assert jacobian is not None, "no Jacobians in this world"
        names = [h.name for h in held]
        steps = self.whole.steps(self.e)
        found = jacobian((y.name, y.lag or 0), (x.name, x.lag or 0), names, steps)
        # the derivative of a number is a row, as in products of Jacobians
        row = found.ndim == 2 and self.world.series[y.name].ndim == 1
        return Val(found, row)
