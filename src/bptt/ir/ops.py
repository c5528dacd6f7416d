"""One row an op: its meaning (NumPy, float64 or complex), derivative as IR, size rule, domain.

Conventions. Meanings work on one sample and are safe for the complex step: comparisons look at
the real part, integer powers multiply. A `vjp` gets the adjoint `g` of the value, the value `y`
and the arguments; it returns one adjoint an argument, or None where the derivative is zero.
A `jvp` gets the tangents (None where zero). Elementwise ops need no jvp: theirs is the sum of
their vjps applied to the tangents, since their Jacobian is diagonal.

Kinks (as torch): relu'(0) = abs'(0) = 0; max and min split a tie in halves.
"""

# The lambdas of the table take the types that their row's fields say.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

import numpy as np

from bptt.errors import UserError
from bptt.ir.dims import Dim, Dims, add_dims, scale_dim, shape_of, show_dims, size_of
from bptt.ir.program import Node, intern

Array = Any
Terms = tuple[Node | None, ...]
Domain = tuple[float, float]


@dataclass(frozen=True)
class Op:
    """A row of the table. `sizes(attr, *dims)` is the size rule and raises SizeError."""

    arity: int | None  # None: any number
    sizes: Callable[..., Dims]
    meaning: Callable[..., Array]  # (*arrays), or (node, sizes, *arrays) where `sized`
    vjp: Callable[..., Terms]
    jvp: Callable[..., Node | None] | None = None
    elementwise: bool = False
    sized: bool = False
    domain: Domain = (-2.0, 2.0)  # where the op's own test draws its arguments
    branch: Callable[..., Array] | None = None  # which side of its kinks a point is on


class SizeError(Exception):
    """An op was given arguments whose sizes do not fit. Says which."""


def node(op: str, *args: Node, attr: tuple[Any, ...] = ()) -> Node:
    """The node `op(*args)`; its dims follow from the op's size rule. Raises SizeError."""
    row = OPS[op]
    if row.arity is not None and row.arity != len(args):
        raise SizeError(f"{op} takes {row.arity} arguments, not {len(args)}")
    return intern(op, args, attr, row.sizes(attr, *(a.dims for a in args)))


def evaluate(n: Node, args: Sequence[Array], sizes: Mapping[str, int]) -> Array:
    """The value of `n` from the values of its arguments, one sample."""
    row = OPS[n.op]
    return row.meaning(n, sizes, *args) if row.sized else row.meaning(*args)


def tangent(n: Node, y: Node, tangents: Sequence[Node | None]) -> Node | None:
    """The tangent of `n` (whose value is `y`) from those of its arguments; None is zero."""
    if all(t is None for t in tangents):
        return None
    row = OPS[n.op]
    if row.jvp is not None:
        return row.jvp(n, y, *tangents)
    assert row.elementwise, f"{n.op} has no forward-mode rule"
    total: Node | None = None
    for k, t in enumerate(tangents):
        if t is not None:
            term = pullback(n, t, y, n.args)[k]
            if term is not None:
                total = term if total is None else add(total, term)
    return total


def pullback(n: Node, g: Node, y: Node, args: Sequence[Node]) -> Terms:
    """The adjoints of `args` when the value `y` of `n` has the adjoint `g`."""
    row = OPS[n.op]
    if n.op in _NEED_NODE:
        return row.vjp(g, y, *args, n=n)
    return row.vjp(g, y, *args)


# --- builders -----------------------------------------------------------------------------------


def ref(name: str, lag: int, dims: Dims) -> Node:
    """A reference to `name`, `lag` steps back in the running order."""
    return intern("ref", (), (name, lag), dims)


def const(value: float) -> Node:
    """A number. Negative ones are `neg` of a positive one, so that text has one spelling."""
    value = float(value)
    if value < 0 or (value == 0 and np.signbit(value)):
        return neg(const(-value))
    return intern("const", (), (value.hex(),), ())


def number(n: Node) -> float | None:
    """The number that a `const`, its `neg` or a `fill` of it stands for, else None."""
    if n.op == "const":
        return float.fromhex(n.attr[0])
    if n.op in ("neg", "fill"):
        inner = number(n.args[0])
        return None if inner is None else (-inner if n.op == "neg" else inner)
    return None


def size(dim: Dim) -> Node:
    """A size, as a number."""
    return const(dim) if isinstance(dim, int) else intern("size", (), (dim,), ())


def eye(n: Dim) -> Node:
    """The identity matrix, (n, n)."""
    return intern("pattern", (), ("eye", n), (n, n))


def lower(n: Dim) -> Node:
    """Ones on and below the diagonal, (n, n): its product with a vector is `cumsum`."""
    return intern("pattern", (), ("lower", n), (n, n))


def each(n: Dim, times: int) -> Node:
    """The identity with each row `times` times, (times*n, n): its product is `repeat`."""
    return intern("pattern", (), ("each", n, times), (scale_dim(n, times), n))


def fill(a: Node, dims: Dims) -> Node:
    """A number repeated over `dims`; `a` itself where it has them already."""
    return a if a.dims == dims else node("fill", a, attr=dims)


def _join(op: str, a: Node, b: Node) -> Node:
    dims = max(a.dims, b.dims, key=len)
    return node(op, fill(a, dims) if not a.dims else a, fill(b, dims) if not b.dims else b)


def add(a: Node, b: Node) -> Node:
    """a + b; a number beside a vector is filled."""
    return _join("add", a, b)


def sub(a: Node, b: Node) -> Node:
    """a - b; a number beside a vector is filled."""
    return _join("sub", a, b)


def mul(a: Node, b: Node) -> Node:
    """a * b elementwise; a number beside a vector is filled."""
    return _join("mul", a, b)


def div(a: Node, b: Node) -> Node:
    """a / b elementwise; a number beside a vector is filled."""
    return _join("div", a, b)


def neg(a: Node) -> Node:
    """-a."""
    return node("neg", a)


def power(a: Node, p: float) -> Node:
    """a ** p for a number p; a ** 1 is a, a ** 0 is 1."""
    if p == 1:
        return a
    return fill(const(1), a.dims) if p == 0 else node("pow", a, attr=(float(p).hex(),))


def total(terms: Sequence[Node]) -> Node:
    """The sum of at least one term."""
    return reduce(add, terms)


def matmul(a: Node, b: Node) -> Node:
    """a @ b for a matrix and a vector, or two matrices."""
    return node("matmul", a, b)


def transpose(a: Node) -> Node:
    """a.T; a transpose is pushed to the leaves, so that an outer product stays one."""
    match a.op:
        case "T":
            return a.args[0]
        case "outer":
            return node("outer", a.args[1], a.args[0])
        case "pattern" if a.attr[0] == "eye":
            return a
        case "add" | "sub" | "neg":
            return node(a.op, *map(transpose, a.args))
        case _:
            return node("T", a)


def summed(a: Node) -> Node:
    """The sum of a vector's (or a matrix's) elements."""
    return node("sum", a) if a.dims else a


def dot(a: Node, b: Node) -> Node:
    """The inner product of two vectors."""
    return summed(mul(a, b))


def mean(a: Node) -> Node:
    """The mean of a vector's elements."""
    return div(summed(a), size(a.dims[0]))


def unless(a: Node, c: Node) -> Node:
    """0 where c > 0, else a: chosen, not multiplied, so that an infinite `a` is 0 there too."""
    return _join("unless", a, c)


def block(a: Node, *spans: tuple[Dim, Dim]) -> Node:
    """A stretch (start, size) along each axis of a vector or matrix."""
    return node("block", a, attr=spans)


def concat(*args: Node) -> Node:
    """Vectors and numbers, one after the other."""
    return node("concat", *args)


def row(table: Node, k: Node) -> Node:
    """Row number k, counted from 0, of a matrix; element number k of a vector."""
    return node("row", table, k)


def put_row(a: Node, k: Node, rows: Dim) -> Node:
    """Zeros with `rows` rows, whose row number k is `a`: the dual of `row`."""
    return node("put_row", a, k, attr=(rows,))


# --- size rules ---------------------------------------------------------------------------------


def _same(attr: Any, *dims: Dims) -> Dims:
    if any(d != dims[0] for d in dims):
        raise SizeError(" and ".join(show_dims(d) for d in dims))
    return dims[0]


def _leaf(attr: Any, *dims: Dims) -> Dims:
    raise AssertionError("leaves are built by builders of their own")


def _matmul_sizes(attr: Any, a: Dims, b: Dims) -> Dims:
    if len(a) != 2 or not b or a[1] != b[0]:
        raise SizeError(f"{show_dims(a)} @ {show_dims(b)}")
    return (a[0], *b[1:])


def _rank(wanted: int) -> Callable[..., Dims]:
    def rule(attr: Any, *dims: Dims) -> Dims:
        if any(len(d) != wanted for d in dims):
            raise SizeError(", ".join(show_dims(d) for d in dims))
        return dims[0]

    return rule


def _vector_to_scalar(attr: Any, *dims: Dims) -> Dims:
    _rank(1)(attr, *dims)
    return ()


def _sum_sizes(attr: Any, a: Dims) -> Dims:
    if not a:
        raise SizeError("the sum of a number")
    return ()


def _outer_sizes(attr: Any, a: Dims, b: Dims) -> Dims:
    _rank(1)(attr, a, b)
    return (*a, *b)


def _fill_sizes(attr: Dims, a: Dims) -> Dims:
    if a or not attr:
        raise SizeError(f"fill of {show_dims(a)}")
    return attr


def _concat_sizes(attr: Any, *dims: Dims) -> Dims:
    if not dims or any(len(d) > 1 for d in dims):
        raise SizeError(", ".join(show_dims(d) for d in dims) or "no vectors")
    return (add_dims(*(d[0] if d else 1 for d in dims)),)


def _block_sizes(attr: tuple[tuple[Dim, Dim], ...], a: Dims) -> Dims:
    if len(attr) != len(a):
        raise SizeError(f"block of {show_dims(a)}")
    return tuple(length for _, length in attr)


def _embed_sizes(attr: tuple[tuple[Dim, Dim], ...], a: Dims) -> Dims:
    if len(attr) != len(a):
        raise SizeError(f"embed of {show_dims(a)}")
    return tuple(whole for _, whole in attr)


def _row_sizes(attr: Any, table: Dims, k: Dims) -> Dims:
    if not table or k:
        raise SizeError(f"row {show_dims(k)} of {show_dims(table)}")
    return table[1:]


def _put_row_sizes(attr: tuple[Dim], a: Dims, k: Dims) -> Dims:
    if len(a) > 1 or k:
        raise SizeError(f"{show_dims(a)} as row {show_dims(k)}")
    return (*attr, *a)


# --- meanings -----------------------------------------------------------------------------------


def _real(x: Array) -> Array:
    return np.real(x)


def _magnitude(x: Array) -> Array:
    return np.where(_real(x) < 0, -x, x)


def _sigmoid(x: Array) -> Array:
    e = np.exp(-_magnitude(x))
    return np.where(_real(x) >= 0, 1 / (1 + e), e / (1 + e))


def _relu(x: Array) -> Array:
    return np.where(_real(x) <= 0, 0.0, x)  # this way round, NaN stays NaN


def _softplus(x: Array) -> Array:
    return _relu(x) + _log1p(np.exp(-_magnitude(x)))


def _log1p(x: Array) -> Array:
    if not np.iscomplexobj(x):
        return np.log1p(x)
    a, b = np.real(x), np.imag(x)  # NumPy's own, of a complex number, loses a beside 1
    return 0.5 * np.log1p(a * (2 + a) + b * b) + 1j * np.arctan2(b, 1 + a)


def _max(a: Array, b: Array) -> Array:
    return np.where((_real(a) >= _real(b)) | np.isnan(a), a, b)


def _min(a: Array, b: Array) -> Array:
    return np.where((_real(a) <= _real(b)) | np.isnan(a), a, b)


def _pow(n: Node, sizes: Mapping[str, int], x: Array) -> Array:
    p = float.fromhex(n.attr[0])
    if p == int(p) and abs(p) <= 16:
        y = reduce(lambda a, b: a * b, [x] * int(abs(p)))
        return 1 / y if p < 0 else y
    return x**p


def _prefer(a: Array, b: Array) -> Array:
    return 0.5 * (1 + np.sign(_real(a) - _real(b)))


def _unless(a: Array, c: Array) -> Array:
    return np.where(_real(c) > 0, 0.0, a)


def _softmax(x: Array) -> Array:
    e = np.exp(x - np.max(_real(x)))
    return e / np.sum(e)


def _log_softmax(x: Array) -> Array:
    z = x - np.max(_real(x))
    return z - np.log(np.sum(np.exp(z)))


def _row_max(x: Array) -> Array:
    return x[np.argmax(_real(x))]


def _concat(*args: Array) -> Array:
    return np.concatenate([np.atleast_1d(a) for a in args])


def _spans(attr: Any, sizes: Mapping[str, int]) -> tuple[slice, ...]:
    return tuple(
        slice(size_of(start, sizes), size_of(start, sizes) + size_of(length, sizes))
        for start, length in attr
    )


def _embed(n: Node, sizes: Mapping[str, int], a: Array) -> Array:
    whole = np.zeros(shape_of(n.dims, sizes), dtype=np.asarray(a).dtype)
    starts = [size_of(start, sizes) for start, _ in n.attr]
    whole[tuple(slice(s, s + k) for s, k in zip(starts, np.shape(a), strict=True))] = a
    return whole


def _nearest(k: Array, rows: int) -> int:
    """The number of a row. A checker moves k a little: which row it means stays the same."""
    found = int(np.rint(_real(k)))
    if not 0 <= found < rows:
        raise UserError(f"there is no row {found} in a table of {rows}")
    return found


def _row(table: Array, k: Array) -> Array:
    return k * table[0] if np.isnan(k) else table[_nearest(k, len(table))]


def _put_row(n: Node, sizes: Mapping[str, int], a: Array, k: Array) -> Array:
    whole = np.zeros(shape_of(n.dims, sizes), dtype=np.asarray(a).dtype)
    if np.isnan(k):
        return whole + k
    whole[_nearest(k, len(whole))] = a
    return whole


def _pattern(n: Node, sizes: Mapping[str, int]) -> Array:
    kind, size = n.attr[0], size_of(n.attr[1], sizes)
    if kind == "lower":
        return np.tri(size)
    return np.repeat(np.eye(size), n.attr[2] if kind == "each" else 1, axis=0)


def _unspecified(n: Node, *rest: Any) -> NoReturn:
    name = n.attr[0]
    raise UserError(
        f"the function `{name}` is not specified, so it has no value",
        help=f"bind it first, for instance functions={{'{name}': 'tanh'}}",
    )


# --- derivatives --------------------------------------------------------------------------------


def _one_minus(y: Node) -> Node:
    return sub(const(1), y)


def _d_matmul(g: Node, y: Node, a: Node, b: Node) -> Terms:
    if len(b.dims) == 1:
        return node("outer", g, b), matmul(transpose(a), g)
    return matmul(g, transpose(b)), matmul(transpose(a), g)


def _t_product(build: Callable[[Node, Node], Node]) -> Callable[..., Node]:
    """Forward mode of a product that is linear in each of two arguments."""

    def rule(n: Node, y: Node, ta: Node | None, tb: Node | None) -> Node:
        a, b = n.args
        terms = [build(ta, b)] if ta is not None else []
        return total(terms + ([build(a, tb)] if tb is not None else []))

    return rule


def _t_linear(n: Node, y: Node, *tangents: Node | None) -> Node:
    """Forward mode of a linear op: the op itself, with zeros for what has no tangent."""
    zeros = [fill(const(0), a.dims) for a in n.args]
    return node(
        n.op, *(z if t is None else t for t, z in zip(tangents, zeros, strict=True)), attr=n.attr
    )


def _d_concat(g: Node, y: Node, *args: Node) -> Terms:
    out: list[Node] = []
    start: Dim = 0
    for a in args:
        length = a.dims[0] if a.dims else 1
        piece = block(g, (start, length))
        out.append(piece if a.dims else summed(piece))
        start = add_dims(start, length)
    return tuple(out)


def _d_block(g: Node, y: Node, a: Node, *, n: Node) -> Terms:
    return (node("embed", g, attr=tuple((s, d) for (s, _), d in zip(n.attr, a.dims, strict=True))),)


def _d_embed(g: Node, y: Node, a: Node, *, n: Node) -> Terms:
    return (block(g, *((s, d) for (s, _), d in zip(n.attr, a.dims, strict=True))),)


def _d_row(g: Node, y: Node, table: Node, k: Node) -> Terms:
    return put_row(g, k, table.dims[0]), None


def _t_row(n: Node, y: Node, t: Node | None, tk: Node | None) -> Node | None:
    """Which row it is does not move."""
    return None if t is None else node(n.op, t, n.args[1], attr=n.attr)


def _d_pow(g: Node, y: Node, a: Node, *, n: Node) -> Terms:
    p = float.fromhex(n.attr[0])
    return (mul(g, mul(const(p), power(a, p - 1))),)


def _t_pow(n: Node, y: Node, t: Node) -> Node:
    p = float.fromhex(n.attr[0])
    return mul(t, mul(const(p), power(n.args[0], p - 1)))


def _d_softmax(g: Node, y: Node, a: Node) -> Terms:
    return (mul(y, sub(g, dot(g, y))),)


def _t_softmax(n: Node, y: Node, t: Node) -> Node:
    return mul(y, sub(t, dot(t, y)))


def _d_log_softmax(g: Node, y: Node, a: Node) -> Terms:
    return (sub(g, mul(node("softmax", a), summed(g))),)


def _t_log_softmax(n: Node, y: Node, t: Node) -> Node:
    return sub(t, dot(node("softmax", n.args[0]), t))


def _argmax(a: Node, y: Node) -> Node:
    m = node("same", a, fill(y, a.dims))
    return div(m, summed(m))


def _d_max(g: Node, y: Node, a: Node, b: Node) -> Terms:
    return mul(g, node("prefer", a, b)), mul(g, node("prefer", b, a))


def _d_min(g: Node, y: Node, a: Node, b: Node) -> Terms:
    return mul(g, node("prefer", b, a)), mul(g, node("prefer", a, b))


def _d_call(g: Node, y: Node, a: Node, *, n: Node) -> Terms:
    name, order = n.attr
    return (mul(g, node("call", a, attr=(name, order + 1))),)


def _d_call_vector(g: Node, y: Node, a: Node, *, n: Node) -> Terms:
    return (node("call_pull", a, g, attr=n.attr),)


def _d_call_scalar(g: Node, y: Node, *args: Node, n: Node) -> Terms:
    slopes = [node("call_slope", *args, attr=(n.attr[0], k)) for k in range(len(args))]
    return tuple(mul(g, s) for s in slopes)


def _d_unspecified(*args: Any, n: Node) -> NoReturn:
    name = n.attr[0]
    raise UserError(
        f"the second derivative of the unspecified function `{name}` is not written down",
        help=f"bind it first, for instance functions={{'{name}': 'tanh'}}",
    )


def _t_unspecified(n: Node, *rest: Any) -> NoReturn:
    _d_unspecified(n=n)


# These derivatives look at the node itself: an attribute says what they are.
_NEED_NODE = frozenset(
    ("block", "embed", "pow", "call", "call_vector", "call_pull", "call_scalar", "call_slope")
)


def _ew(
    arity: int,
    meaning: Callable[..., Array],
    vjp: Callable[..., Terms],
    domain: Domain = (-2.0, 2.0),
    branch: Callable[..., Array] | None = None,
) -> Op:
    return Op(arity, _same, meaning, vjp, elementwise=True, domain=domain, branch=branch)


def _sign(x: Array) -> Array:
    return np.sign(_real(x))


def _sign_of_second(a: Array, c: Array) -> Array:
    return _sign(c)


def _difference_sign(a: Array, b: Array) -> Array:
    return np.sign(_real(a) - _real(b))


_POSITIVE: Domain = (0.3, 3.0)

OPS: dict[str, Op] = {
    # leaves
    "ref": Op(0, _leaf, _unspecified, lambda g, y: ()),
    "const": Op(
        0, _leaf, lambda n, s: np.float64(float.fromhex(n.attr[0])), lambda g, y: (), sized=True
    ),
    "size": Op(
        0, _leaf, lambda n, s: np.float64(size_of(n.attr[0], s)), lambda g, y: (), sized=True
    ),
    "pattern": Op(0, _leaf, _pattern, lambda g, y: (), sized=True),  # of zeros and ones, in onces
    # elementwise
    "add": _ew(2, lambda a, b: a + b, lambda g, y, a, b: (g, g)),
    "sub": _ew(2, lambda a, b: a - b, lambda g, y, a, b: (g, neg(g))),
    "mul": _ew(2, lambda a, b: a * b, lambda g, y, a, b: (mul(g, b), mul(g, a))),
    "div": _ew(
        2, lambda a, b: a / b, lambda g, y, a, b: (div(g, b), neg(div(mul(g, y), b))), _POSITIVE
    ),
    "neg": _ew(1, lambda a: -a, lambda g, y, a: (neg(g),)),
    "pow": Op(1, _same, _pow, _d_pow, _t_pow, True, True, _POSITIVE),
    "tanh": _ew(1, np.tanh, lambda g, y, a: (mul(g, _one_minus(power(y, 2))),)),
    "sin": _ew(1, np.sin, lambda g, y, a: (mul(g, node("cos", a)),)),
    "cos": _ew(1, np.cos, lambda g, y, a: (neg(mul(g, node("sin", a))),)),
    "sigmoid": _ew(1, _sigmoid, lambda g, y, a: (mul(g, mul(y, _one_minus(y))),)),
    "exp": _ew(1, np.exp, lambda g, y, a: (mul(g, y),)),
    "log": _ew(1, np.log, lambda g, y, a: (div(g, a),), _POSITIVE),
    "sqrt": _ew(1, np.sqrt, lambda g, y, a: (div(g, mul(const(2), y)),), _POSITIVE),
    "softplus": _ew(1, _softplus, lambda g, y, a: (mul(g, node("sigmoid", a)),)),
    "logsigmoid": _ew(
        1, lambda a: -_softplus(-a), lambda g, y, a: (mul(g, node("sigmoid", neg(a))),)
    ),
    "softsign": _ew(
        1,
        lambda a: a / (1 + _magnitude(a)),
        lambda g, y, a: (mul(g, power(_one_minus(node("abs", y)), 2)),),
        branch=_sign,
    ),
    "relu": _ew(
        1,
        _relu,
        lambda g, y, a: (mul(g, node("positive", a)),),
        branch=_sign,
    ),
    "abs": _ew(1, _magnitude, lambda g, y, a: (mul(g, node("sign", a)),), branch=_sign),
    "max": _ew(2, _max, _d_max, branch=_difference_sign),
    "min": _ew(2, _min, _d_min, branch=_difference_sign),
    # 1 where a > 0, else 0; the sign; 1, 1/2 or 0 as a is above, at or below b; 1 where equal
    "positive": _ew(1, lambda a: (_real(a) > 0) * 1.0, lambda g, y, a: (None,), branch=_sign),
    "sign": _ew(1, _sign, lambda g, y, a: (None,), branch=_sign),
    "prefer": _ew(2, _prefer, lambda g, y, a, b: (None, None), branch=_difference_sign),
    "same": _ew(
        2,
        lambda a, b: (_real(a) == _real(b)) * 1.0,
        lambda g, y, a, b: (None, None),
        branch=_difference_sign,
    ),
    # 0 where the second is above 0, else the first
    "unless": _ew(2, _unless, lambda g, y, a, c: (unless(g, c), None), branch=_sign_of_second),
    # structure
    "matmul": Op(2, _matmul_sizes, lambda a, b: a @ b, _d_matmul, _t_product(matmul)),
    "outer": Op(
        2,
        _outer_sizes,
        np.outer,
        lambda g, y, a, b: (matmul(g, b), matmul(transpose(g), a)),
        _t_product(lambda a, b: node("outer", a, b)),
    ),
    "T": Op(
        1,
        lambda attr, a: _rank(2)(attr, a)[::-1],
        np.transpose,
        lambda g, y, a: (transpose(g),),
        lambda n, y, t: transpose(t),
    ),
    "sum": Op(1, _sum_sizes, np.sum, lambda g, y, a: (fill(g, a.dims),), _t_linear),
    "fill": Op(
        1,
        _fill_sizes,
        lambda n, s, a: a * np.ones(shape_of(n.dims, s)),
        lambda g, y, a: (summed(g),),
        _t_linear,
        sized=True,
    ),
    "concat": Op(None, _concat_sizes, _concat, _d_concat, _t_linear),
    "block": Op(
        1, _block_sizes, lambda n, s, a: a[_spans(n.attr, s)], _d_block, _t_linear, sized=True
    ),
    "embed": Op(1, _embed_sizes, _embed, _d_embed, _t_linear, sized=True),
    # a row that a whole number chooses, and a row in its place: no derivative by the number
    "row": Op(2, _row_sizes, _row, _d_row, _t_row, domain=(0.0, 2.0)),
    "put_row": Op(
        2,
        _put_row_sizes,
        _put_row,
        lambda g, y, a, k: (row(g, k), None),
        _t_row,
        sized=True,
        domain=(0.0, 2.0),
    ),
    "softmax": Op(1, _rank(1), _softmax, _d_softmax, _t_softmax),
    "log_softmax": Op(1, _rank(1), _log_softmax, _d_log_softmax, _t_log_softmax),
    "row_max": Op(
        1,
        _vector_to_scalar,
        _row_max,
        lambda g, y, a: (mul(_argmax(a, y), g),),
        lambda n, y, t: dot(_argmax(n.args[0], y), t),
    ),
    # functions that a paper leaves open: attr is (name, order), (name,) or (name, argument)
    "call": Op(1, _same, _unspecified, _d_call, elementwise=True, sized=True),
    "call_vector": Op(1, _rank(1), _unspecified, _d_call_vector, _t_unspecified, sized=True),
    "call_pull": Op(2, _rank(1), _unspecified, _d_unspecified, _t_unspecified, sized=True),
    "call_scalar": Op(
        None, lambda attr, *dims: (), _unspecified, _d_call_scalar, _t_unspecified, sized=True
    ),
    "call_slope": Op(
        None,
        lambda attr, *dims: dims[attr[1]],
        _unspecified,
        _d_unspecified,
        _t_unspecified,
        sized=True,
    ),
}
