"""The rules for machines: an expression as the scheduler wants it.

Products are split by operand, so that the part that reads the input can be hoisted; slices
reach the leaves; sums of slices become the vector they tile; softmax becomes its reductions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from bptt.calculus.rewrites import addends, rebuild, rebuild_all
from bptt.ir.dims import Dim, add_dims, scale_dim
from bptt.ir.ops import (
    OPS,
    block,
    concat,
    const,
    div,
    dot,
    fill,
    matmul,
    mul,
    neg,
    node,
    number,
    row,
    sub,
    summed,
    total,
    transpose,
)
from bptt.ir.program import Node, walk


def runnable(root: Node, names: Mapping[Node, Node]) -> Node:
    """`root` with the references in `names` replaced, rewritten by the rules below."""

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n in names:
            return names[n]
        return _rewrite(n, args)

    return rebuild(root, change)


def split_rows(roots: Mapping[str, Node]) -> dict[str, Node]:
    """Split a product that is only ever read in slices, so that each slice runs where it must."""
    read: dict[Node, bool] = {}  # whether it is read in slices only
    for n in walk(*roots.values()):
        for a in n.args:
            read[a] = read.get(a, True) and n.op == "block"
    whole = set(roots.values())

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op != "block" or n.args[0].op != "matmul" or n.args[0] in whole:
            return None
        if not read[n.args[0]]:
            return None
        matrix, vector = args[0].args
        return matmul(_slice(matrix, (n.attr[0], (0, matrix.dims[1]))), vector)

    found = rebuild_all(roots.values(), change)
    return {name: found[root] for name, root in roots.items()}


def parts(n: Node) -> list[Node]:
    """What a vector is concatenated from."""
    return [p for a in n.args for p in parts(a)] if n.op == "concat" else [n]


def _width(n: Node) -> Dim:
    return n.dims[0] if n.dims else 1


def _rewrite(n: Node, args: tuple[Node, ...]) -> Node | None:
    match n.op:
        case "matmul" if len(n.dims) == 1 and args[1].op in ("concat", "embed"):
            return _split_product(args[0], _as_concat(args[1]))
        case "sum" if args[0].op == "mul" and (split := _split_dot(*args[0].args)) is not None:
            return split
        case "sum":
            return _sum(args[0])
        case "block":
            return _slice(args[0], n.attr)
        case "add":
            return _add(*args)
        case "sub" if number(args[1]) == 0:
            return args[0]
        case "neg" if args[0].op == "neg":
            return args[0].args[0]
        case "mul":
            for a, b in (args, args[::-1]):
                if number(a) == 1:
                    return b
        case "embed" if len(n.dims) == 1:
            return node("embed", *args, attr=n.attr)
        case "softmax":
            e = node("exp", sub(args[0], node("row_max", args[0])))
            return div(e, summed(e))
        case "log_softmax":
            z = sub(args[0], node("row_max", args[0]))
            return sub(z, node("log", summed(node("exp", z))))
        case _:
            pass
    return None


def _split_product(matrix: Node, vector: Node) -> Node:
    """M @ concat(a, b) = M[:, A] @ a + M[:, B] @ b."""
    terms: list[Node] = []
    start: Dim = 0
    rows = matrix.dims[0]
    for p in parts(vector):
        width = _width(p)
        columns = _slice(matrix, ((0, rows), (start, width)))
        if number(p) != 0:
            terms.append(matmul(columns, p if p.dims else fill(p, (1,))))
        start = add_dims(start, width)
    return total(terms) if terms else fill(const(0), (rows,))


def _split_dot(a: Node, b: Node) -> Node | None:
    """dot(w, concat(a, b)) = dot(w[A], a) + dot(w[B], b)."""
    if b.op != "concat":
        a, b = b, a
    if b.op != "concat":
        return None
    terms: list[Node] = []
    start: Dim = 0
    for p in parts(b):
        width = _width(p)
        piece = _slice(a, ((start, width),))
        terms.append(dot(piece, p if p.dims else fill(p, (1,))))
        start = add_dims(start, width)
    return total(terms)


def _sum(a: Node) -> Node | None:
    """Take numbers out of a sum, so that it need not wait for them."""
    match a.op:
        case "neg":
            return neg(_summed(a.args[0]))
        case "div" if a.args[1].op == "fill":
            return div(_summed(a.args[0]), a.args[1].args[0])
        case "mul":
            scalars, rest = _factors(a)
            if scalars and rest:
                return mul(reduce(mul, scalars), _summed(reduce(mul, rest)))
        case "add":
            terms = addends(a)
            scaled = [t for t in terms if _sum(t) is not None]
            if scaled and len(scaled) < len(terms):
                plain = [t for t in terms if t not in scaled]
                return total([summed(total(plain)), *map(_summed, scaled)])
        case _:
            pass
    return None


def _summed(a: Node) -> Node:
    return _sum(a) or summed(a)


def _factors(a: Node) -> tuple[list[Node], list[Node]]:
    """The numbers and the vectors that an elementwise product is made of."""
    scalars: list[Node] = []
    rest: list[Node] = []
    stack = [a]
    while stack:
        n = stack.pop()
        if n.op == "mul":
            stack += reversed(n.args)
        elif n.op == "fill":
            scalars.append(n.args[0])
        else:
            rest.append(n)
    return scalars, rest


def _slice(a: Node, spans: tuple[tuple[Dim, Dim], ...]) -> Node:
    """A block, pushed down to the leaves."""
    if all(start == 0 and size == d for (start, size), d in zip(spans, a.dims, strict=True)):
        return a
    match a.op:
        case "T":
            return transpose(_slice(a.args[0], spans[::-1]))
        case "fill":
            return fill(a.args[0], tuple(size for _, size in spans))
        case "block":
            moved = tuple(
                (add_dims(s, s0), n) for (s, n), (s0, _) in zip(spans, a.attr, strict=True)
            )
            return block(a.args[0], *moved)
        case "concat" | "embed" if len(a.dims) == 1:
            return _slice_concat(_as_concat(a), spans[0])
        case "row":
            table, k = a.args
            return row(_slice(table, ((0, table.dims[0]), *spans)), k)
        case _ if OPS[a.op].elementwise:
            return node(a.op, *(_slice(x, spans) for x in a.args), attr=a.attr)
        case _:
            return block(a, *spans)


def _slice_concat(a: Node, span: tuple[Dim, Dim]) -> Node:
    """The parts that a span covers whole; a block where it cuts through one."""
    start: Dim = 0
    end = add_dims(*span)
    found: list[Node] | None = None
    for p in parts(a):
        if start == span[0] and found is None:
            found = []
        if found is not None:
            found.append(p)
        stop = add_dims(start, _width(p))
        if found is not None and stop == end:
            one = found[0] if len(found) == 1 else concat(*found)
            return one if one.dims else fill(one, (1,))
        inside = add_dims(span[0], scale_dim(start, -1))
        if isinstance(inside, int) and isinstance(span[1], int) and isinstance(_width(p), int):
            width = _width(p)
            assert isinstance(width, int)
            if inside >= 0 and inside + span[1] <= width:
                return _slice(p, ((inside, span[1]),)) if p.dims else fill(p, (1,))
        start = stop
    return block(a, span)


def _as_concat(a: Node) -> Node:
    """embed(v) as concat(0, v, 0)."""
    if a.op != "embed":
        return a
    ((start, whole),) = a.attr
    width = _width(a.args[0])
    rest = add_dims(whole, scale_dim(start, -1), scale_dim(width, -1))
    pieces = [] if start == 0 else [fill(const(0), (start,))]
    pieces.append(a.args[0])
    if rest != 0:
        pieces.append(fill(const(0), (rest,)))
    return concat(*pieces)


def _add(a: Node, b: Node) -> Node | None:
    """Drop zeros; join slices that tile a vector."""
    if number(a) == 0:
        return b
    if number(b) == 0:
        return a
    terms = addends(a) + addends(b)
    embeds = [t for t in terms if t.op == "embed" and len(t.dims) == 1]
    if len(embeds) < 2:
        return None
    at = {t.attr[0][0]: t for t in embeds}
    pieces: list[Node] = []
    start: Dim = 0
    while start in at:
        piece = at.pop(start).args[0]
        pieces.append(piece)
        start = add_dims(start, _width(piece))
    if at or start != a.dims[0] or len(pieces) != len(embeds):
        return None
    rest = [t for t in terms if t not in embeds]
    return total([*rest, concat(*pieces)]) if rest else concat(*pieces)
