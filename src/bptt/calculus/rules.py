"""Named rewrites of one expression, and the engine that applies an ordered list of them.

A rule looks at one node, whose arguments have been through the rules, and gives what to write
instead, or None where it has nothing to say. Rules keep the meaning (up to rounding) and make
the expression shorter, or bring it to the one form that lets another rule do so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from bptt.calculus.rewrites import rebuild
from bptt.ir.dims import Dim, Dims, add_dims
from bptt.ir.ops import (
    OPS,
    add,
    block,
    concat,
    const,
    div,
    fill,
    matmul,
    mul,
    neg,
    node,
    number,
    power,
    size,
    sub,
    summed,
    transpose,
)
from bptt.ir.program import Node, walk

Rule = Callable[[Node], Node | None]
# A list of rules that goes round in circles is a mistake in the rules: no expression needs more.
_PASSES = 100


def rewrite(root: Node, rules: Sequence[Rule]) -> Node:
    """`root` with `rules` applied from the leaves up, until none has anything more to say."""

    def change(n: Node, args: tuple[Node, ...]) -> Node:
        n = n if args == n.args else node(n.op, *args, attr=n.attr)
        for rule in rules:
            n = rule(n) or n
        return n

    for _ in range(_PASSES):
        before, root = root, rebuild(root, change)
        if root is before:
            return root
    raise AssertionError(f"the rules do not come to an end on {root!r}")


# --- products and sums as lists -----------------------------------------------------------------


class Product:
    """A chain of products and quotients: top/bottom * a**p * b**q ..., in order of appearance."""

    def __init__(
        self, dims: Dims, powers: Mapping[Node, int], top: float = 1.0, bottom: float = 1.0
    ) -> None:
        self.dims, self.top, self.bottom = dims, top, bottom
        self.powers = {base: p for base, p in powers.items() if p}
        if bottom not in (0, 1):
            if (top / bottom).is_integer():
                self.top, self.bottom = top / bottom, 1.0
            elif top and (bottom / top).is_integer():
                self.top, self.bottom = math.copysign(1.0, top), abs(bottom / top)

    def times(self, other: Product) -> Product:
        """This product and another, without the factors that cancel."""
        powers = dict(self.powers)
        for base, p in other.powers.items():
            powers[base] = powers.get(base, 0) + p
        return Product(self.dims, powers, self.top * other.top, self.bottom * other.bottom)

    def without(self, base: Node) -> Product:
        """The rest of the product when one factor `base` is taken out."""
        powers = {b: p - (b is base) for b, p in self.powers.items()}
        return Product(self.dims, powers, self.top, self.bottom)

    def node(self) -> Node:
        """The product, written: the number, the factors, one fraction bar, the sign outside."""
        above = [power(base, p) for base, p in self.powers.items() if p > 0]
        below = [power(base, -p) for base, p in self.powers.items() if p < 0]
        if self.top == 0:
            return fill(const(0), self.dims)
        if abs(self.top) != 1 or not above:
            above.insert(0, const(abs(self.top)))
        if self.bottom != 1:
            below.insert(0, const(self.bottom))
        found = reduce(mul, above)
        if below:
            found = div(found, reduce(mul, below))
        found = fill(found, self.dims) if not found.dims else found
        return neg(found) if self.top < 0 else found


def product_of(n: Node) -> Product:
    """An expression as a product; one factor, itself, where it is none."""
    dims, top, bottom = n.dims, 1.0, 1.0
    powers: dict[Node, int] = {}
    stack = [(n, 1)]
    while stack:
        n, p = stack.pop()
        match n.op:
            case "const":
                value = float.fromhex(n.attr[0]) ** abs(p)
                top, bottom = (top * value, bottom) if p > 0 else (top, bottom * value)
            case "neg":
                top *= (-1) ** (p % 2)
                stack.append((n.args[0], p))
            case "mul":
                stack += [(n.args[1], p), (n.args[0], p)]
            case "div":
                stack += [(n.args[1], -p), (n.args[0], p)]
            case "fill":
                stack.append((n.args[0], p))
            case "pow" if (exponent := _whole(n)) is not None:
                base = n.args[0]
                base = base.args[0] if base.op == "neg" and exponent % 2 == 0 else base
                powers[base] = powers.get(base, 0) + p * exponent
            case _:
                powers[n] = powers.get(n, 0) + p
    return Product(dims, powers, top, bottom)


def weights(root: Node) -> dict[Node, int]:
    """How many words each node below `root` is written with."""
    found: dict[Node, int] = {}
    for n in walk(root):
        found[n] = (n.op != "fill") + sum(found[a] for a in n.args)
    return found


def _if_shorter(n: Node, other: Node, by: int = 1) -> Node | None:
    """`other` if it is written with fewer words than `n`."""
    return other if weights(other)[other] + by <= weights(n)[n] else None


def _whole(n: Node) -> int | None:
    """The exponent of a `pow` where it is a whole number."""
    exponent = float.fromhex(n.attr[0])
    return int(exponent) if exponent.is_integer() else None


def signed_terms(n: Node) -> list[tuple[int, Node]]:
    """The terms of a chain of additions and subtractions, left to right, each with its sign."""
    found: list[tuple[int, Node]] = []
    stack = [(1, n)]
    while stack:
        sign, n = stack.pop()
        match n.op:
            case "add":
                stack += [(sign, n.args[1]), (sign, n.args[0])]
            case "sub":
                stack += [(-sign, n.args[1]), (sign, n.args[0])]
            case "neg":
                stack.append((-sign, n.args[0]))
            case _:
                found.append((sign, n))
    return found


def sum_of(terms: Sequence[tuple[int, Node]]) -> Node:
    """The sum of at least one term; the first positive one leads."""
    lead = next((k for k, (sign, _) in enumerate(terms) if sign > 0), 0)
    sign, found = terms[lead]
    found = found if sign > 0 else neg(found)
    for k, (sign, term) in enumerate(terms):
        if k != lead:
            found = add(found, term) if sign > 0 else sub(found, term)
    return found


# --- the rules ----------------------------------------------------------------------------------


def products(n: Node) -> Node | None:
    """a*(b*c) is a*b*c; numbers are folded, equal factors cancel or become powers."""
    return product_of(n).node() if n.op in ("mul", "div", "neg", "pow") else None


def cancelling_products(n: Node) -> Node | None:
    """p*(a/p + b) is a + p*b."""
    if n.op != "mul":
        return None
    product = product_of(n)
    for group, p in product.powers.items():
        if p != 1 or group.op not in ("add", "sub") or group.dims != n.dims:
            continue
        terms = signed_terms(group)
        divided = {b for _, t in terms for b, q in product_of(t).powers.items() if q < 0}
        if divided & {b for b, q in product.powers.items() if q > 0}:
            factors = Product(n.dims, product.without(group).powers)
            inside = [(sign, factors.times(product_of(t)).node()) for sign, t in terms]
            number = Product((), {}, product.top, product.bottom)
            return product_of(mul(number.node(), sum_of(inside))).node()
    return None


def sums(n: Node) -> Node | None:
    """a - (b - c) is a - b + c; numbers are folded, equal terms are counted or cancel."""
    if n.op not in ("add", "sub") and not (n.op == "neg" and n.args[0].op in ("add", "sub")):
        return None
    terms: dict[Node, list[tuple[int, Node]]] = {}
    for sign, term in signed_terms(n):
        # what counts as the same term: equal but for a number in front
        same = Product(n.dims, {} if number(term) is not None else product_of(term).powers)
        terms.setdefault(same.node(), []).append((sign, term))
    found: list[tuple[int, Node]] = []
    for same, group in terms.items():
        if len(group) == 1:
            found += [(s, t) for s, t in group if number(t) != 0]
            continue
        count = sum(sign * p.top / p.bottom for sign, p in ((s, product_of(t)) for s, t in group))
        if count:
            times = Product(n.dims, product_of(same).powers, abs(count))
            found.append((1 if count > 0 else -1, times.node()))
    return sum_of(found) if found else fill(const(0), n.dims)


def common_factors(n: Node) -> Node | None:
    """a*b - a*c is a*(b - c), and M @ a + M @ b is M @ (a + b)."""
    if n.op not in ("add", "sub"):
        return None
    terms = signed_terms(n)
    held: dict[Node, list[int]] = {}
    for k, (_, term) in enumerate(terms):
        if term.op == "matmul":
            held.setdefault(term.args[0], []).append(k)
            continue
        for base, p in product_of(term).powers.items():
            if p == 1 and base.dims == n.dims and base.op != "matmul":
                held.setdefault(base, []).append(k)
    shared = max(held, key=lambda b: len(held[b]), default=None)
    if shared is None or len(held[shared]) < 2:
        return None
    group = held[shared]
    if terms[group[0]][1].op == "matmul":
        inner = sum_of([(terms[k][0], terms[k][1].args[1]) for k in group])
        joined = matmul(shared, inner)
    else:
        rest = [(terms[k][0], product_of(terms[k][1]).without(shared).node()) for k in group]
        joined = mul(shared, sum_of(rest))
    kept = [term for k, term in enumerate(terms) if k not in group[1:]]
    kept[group[0]] = (1, joined)
    return _if_shorter(n, sum_of(kept), by=0)


def fills_outside(n: Node) -> Node | None:
    """What repeats a number at every argument is computed as a number, and its sign outside."""
    if n.op == "fill" and n.args[0].op == "neg":
        return neg(fill(n.args[0].args[0], n.dims))
    if n.op in ("fill", "neg") or not OPS[n.op].elementwise or not n.dims:
        return None
    if n.args and all(a.op == "fill" for a in n.args):
        return fill(node(n.op, *(a.args[0] for a in n.args), attr=n.attr), n.dims)
    return None


def sums_of_multiples(n: Node) -> Node | None:
    """sum(2*s*v) is 2*s*sum(v), where s is a number."""
    if n.op != "sum":
        return None
    inside = product_of(n.args[0])
    numbers = {b: p for b, p in inside.powers.items() if not b.dims}
    vectors = {b: p for b, p in inside.powers.items() if b.dims}
    if not numbers and inside.top == inside.bottom == 1:
        return None
    outside = Product((), numbers, inside.top, inside.bottom).node()
    if not vectors:
        return product_of(reduce(mul, map(size, n.args[0].dims), outside)).node()
    return product_of(mul(outside, summed(Product(n.args[0].dims, vectors).node()))).node()


def sums_of_fills(n: Node) -> Node | None:
    """sum(v - s) is sum(v) - H*s, where s is a number: the sum of v - mean(v) is zero."""
    if n.op != "sum" or n.args[0].op not in ("add", "sub"):
        return None
    terms = signed_terms(n.args[0])
    if not any(t.op == "fill" for _, t in terms):
        return None
    vectors = [(sign, t) for sign, t in terms if t.op != "fill"]
    numbers = [(sign, summed(t)) for sign, t in terms if t.op == "fill"]
    apart = sum_of([(1, summed(sum_of(vectors))), *numbers] if vectors else numbers)
    return _if_shorter(n, rewrite(apart, (sums_of_multiples, products, sums)))


def signs_outside(n: Node) -> Node | None:
    """M @ -v is -(M @ v)."""
    if n.op == "matmul" and n.args[1].op == "neg":
        return neg(matmul(n.args[0], n.args[1].args[0]))
    return None


def slices_inside(n: Node) -> Node | None:
    """A slice of a sum is the sum of slices; of a product M @ v, the rows of M that it needs."""
    return sliced_node(n.args[0], n.attr) if n.op == "block" else None


def sliced_node(a: Node, spans: tuple[tuple[Dim, Dim], ...]) -> Node:
    """A block of `a`, pushed down to the leaves."""
    if all(start == 0 and n == d for (start, n), d in zip(spans, a.dims, strict=True)):
        return a
    match a.op:
        case "T":
            return transpose(sliced_node(a.args[0], spans[::-1]))
        case "fill":
            return fill(a.args[0], tuple(n for _, n in spans))
        case "matmul":
            matrix, other = a.args
            rows = sliced_node(matrix, (spans[0], (0, matrix.dims[1])))
            return matmul(rows, sliced_node(other, ((0, other.dims[0]), *spans[1:])))
        case "block":
            inner = zip(spans, a.attr, strict=True)
            return block(a.args[0], *((add_dims(s, s0), n) for (s, n), (s0, _) in inner))
        case _ if OPS[a.op].elementwise:
            return node(a.op, *(sliced_node(x, spans) for x in a.args), attr=a.attr)
        case _:
            return block(a, *spans)


def tiles_joined(n: Node) -> Node | None:
    """Slices that tile a vector, each put in its place and added up, are a concatenation."""
    if n.op != "add" or len(n.dims) != 1:
        return None
    terms = signed_terms(n)
    tiles = {t.attr[0][0]: t.args[0] for sign, t in terms if t.op == "embed" and sign > 0}
    rest = [(sign, t) for sign, t in terms if t.op != "embed" or sign < 0]
    pieces: list[Node] = []
    start: Dim = 0
    while start in tiles:
        pieces.append(tiles[start])
        start = add_dims(start, tiles[start].dims[0])
    if start != n.dims[0] or len(pieces) != len(terms) - len(rest):
        return None
    return sum_of([*rest, (1, concat(*pieces))])


# Sums come before products: what cancels in a sum need not be multiplied out.
SIMPLER: tuple[Rule, ...] = (
    slices_inside,
    fills_outside,
    signs_outside,
    sums_of_multiples,
    sums_of_fills,
    tiles_joined,
    sums,
    common_factors,
    products,
    cancelling_products,
)
