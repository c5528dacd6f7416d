"""What a product in a Plan reads: references, the number 1, and rectangles of constants."""

from __future__ import annotations

from bptt.ir.dims import Dim, Dims, add_dims
from bptt.ir.ops import const, fill
from bptt.ir.plan import Block
from bptt.ir.program import Node

ONE = fill(const(1), (1,))


def block_of(matrix: Node) -> Block:
    """A constant matrix, or a vector as one row, as a rectangle of what is stored."""
    transposed = False
    rows: Dims = matrix.dims if len(matrix.dims) == 2 else (1, *(matrix.dims or (1,)))
    spans: tuple[tuple[Dim, Dim], ...] = tuple((0, d) for d in rows)
    n = matrix
    while n.op != "ref":
        if n.op == "T":
            transposed, spans = not transposed, spans[::-1]
        else:
            assert n.op == "block" and len(n.attr) == 2, f"a panel cannot hold {n.op}"
            spans = tuple(
                (add_dims(s, s0), k) for (s, k), (s0, _) in zip(spans, n.attr, strict=True)
            )
        n = n.args[0]
    (row, height), (col, width) = spans
    return Block(n.attr[0], transposed, row, height, col, width)


def is_leaf(n: Node) -> bool:
    """What needs no computing: references, slices, rows of a table, numbers, constant matrices."""
    if n.op in ("ref", "const", "size"):
        return True
    if n.op == "block" and n.args[0].op == "ref":
        return True
    return n is ONE or n.op == "row" or (n.op in ("T", "block") and len(n.dims) == 2)
