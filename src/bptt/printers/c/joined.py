"""The loop with the products that come before it taken in: one product for what two would add up.

What is worked out before the loop is written and read again. Where a step has rows enough for a
matrix to be worth reading, and the matrix is near, it is quicker to do the input's product beside
the state's. The driver chooses, so both ways are printed; their bodies are the same.
"""

from __future__ import annotations

from dataclasses import replace

from bptt.ir.program import Node
from bptt.printers.c.phases import Lowered, Product, Reader
from bptt.printers.c.places import Places

Joined = dict[str, tuple[Product, int]]


def joined(low: Lowered, places: Places, reader: Reader) -> list[list[Product]] | None:
    """For each phase of the loop its products, with those of before taken in that they add.

    None where something else comes before the loop, or is read of it, or where there is nothing.
    What those products add is then zero.
    """
    made: Joined = {}
    for step in low.before:
        if step.body or step.reduces or step.adds:
            return None
        made |= {out: (q, k) for q in step.products for k, out in enumerate(q.outs)}
    if not made or not all(_only_added(name, places) for name in made):
        return None
    taken: set[str] = set()
    found: list[list[Product]] = []
    for step in low.loop:
        products: list[Product] = []
        for q in step.products:
            names = [_name(n, reader) for n in q.plus]
            if any(n is not None for n in q.plus):
                whole = _taken_in(q, names, made)
                if whole is None:
                    return None
                q = whole
                taken |= set(names)
            products.append(q)
        found.append(products)
    return found if made.keys() <= taken else None


def _only_added(name: str, places: Places) -> bool:
    """Whether a value is read once, in the loop, beside what it is added to."""
    uses = places.uses[name]
    return len(uses) == 1 and uses[0].region == "loop" and not (uses[0].shift or uses[0].whole)


def _name(n: Node | None, reader: Reader) -> str:
    if n is None or n.op != "ref":
        return ""
    base = reader.node(n)
    return base.name if base.kind == "made" and not base.shift else ""


def _taken_in(q: Product, names: list[str], made: Joined) -> Product | None:
    """`q` with the products of these names beside its own; None where they are not alike."""
    if not all(name in made for name in names):
        return None
    others = [made[name] for name in names]
    first = others[0][0]
    if any((o.operands, o.ones) != (first.operands, first.ones) for o, _ in others):
        return None
    mine, theirs = len(q.operands), len(first.operands)
    blocks = tuple(
        (*row[:mine], *o.blocks[k][:theirs], *row[mine:], *o.blocks[k][theirs:])
        for row, (o, k) in zip(q.blocks, others, strict=True)
    )
    return replace(
        q,
        operands=(*q.operands, *first.operands),
        blocks=blocks,
        ones=q.ones + first.ones,
    )
