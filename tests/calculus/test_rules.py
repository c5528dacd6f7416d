"""Each rule: what it makes of an expression, and that it keeps the meaning."""

from __future__ import annotations

import numpy as np
import pytest
from programs import program
from tolerances import REWRITE

from bptt.calculus.rules import SIMPLER, rewrite, weights
from bptt.ir import ops
from bptt.ir.dims import Dims, scale_dim, shape_of
from bptt.ir.ops import evaluate
from bptt.ir.program import Node, walk
from bptt.printers.text import Text

SIZES = {"H": 4, "K": 3}
WIDE = scale_dim("H", 2)
DIMS: dict[str, Dims] = {
    **dict.fromkeys("abcd", ("H",)),
    **dict.fromkeys("su", ()),
    **dict.fromkeys("MN", ("K", "H")),
    **dict.fromkeys("vw", (WIDE,)),
    "L": (WIDE, "K"),
    "k": ("K",),
}


def value(root: Node) -> np.ndarray:
    """The value of an expression; a name always has the same."""
    found: dict[Node, np.ndarray] = {}
    for n in walk(root):
        if n.op == "ref":
            chance = np.random.default_rng(ord(n.attr[0]))
            found[n] = chance.uniform(0.3, 2, shape_of(n.dims, SIZES))
        else:
            found[n] = evaluate(n, [found[a] for a in n.args], SIZES)
    return np.asarray(found[root])


def assert_same(one: Node, other: Node) -> None:
    a, b = value(one), value(other)
    assert a.shape == b.shape
    assert np.max(np.abs(a - b)) <= REWRITE * max(1, np.max(np.abs(a)))


# What people write is on the right. Most of what is on the left is what derivatives look like.
SIMPLIFIED = {
    "a*1": "a",
    "1*a*1*b": "a*b",
    "a*(b*c)": "a*b*c",
    "a - -b": "a + b",
    "a + -b": "a - b",
    "a - (b - c)": "a - b + c",
    "-(a - b)": "b - a",
    "-a + b": "b - a",
    "-a - b": "-a - b",
    "-a*-b": "a*b",
    "a*(-b)": "-(a*b)",
    "a + 0*b": "a",
    "0*a": "fill(0, H)",
    "1 - (1 - a)": "a",
    "2*(a*0.5)": "a",
    "a*3/2*2": "3*a",
    "a/4*2": "a/2",
    "a/4*-2": "-(a/2)",
    "0.1*a": "0.1*a",
    "a + a": "2*a",
    "2*a + 3*a": "5*a",
    "2*a - 3*a": "-a",
    "a*b - b*a": "fill(0, H)",
    "a*a": "a**2",
    "a**2*a": "a**3",
    "a**3/a": "a**2",
    "(-a)**2": "a**2",
    "sqrt(a)*b/sqrt(a)": "b",
    "a/b/c": "a/(b*c)",
    "a*b - a*c": "a*(b - c)",
    "a - a*b": "a*(1 - b)",
    "s*a + s*b": "s*a + s*b",
    "a*(b/a + c)": "b + a*c",
    "k*sum(a) - k*(k/k)*sum(a)": "fill(0, K)",
    "M @ a + M @ b": "M @ (a + b)",
    "M @ a - N @ b - M @ b": "M @ (a - b) - N @ b",
    "M @ -a": "-(M @ a)",
    "sum(s*a)": "s*sum(a)",
    "sum(2*a/s)": "2*sum(a)/s",
    "sum(-a)": "-sum(a)",
    "sum(a - mean(a))": "0",
    "sum(a - s)": "sum(a - s)",
    "part(v*w, 1, 2)": "block(v, 0, H)*block(w, 0, H)",
    "part(L @ k, 2, 2)": "block(L, H, H, 0, K) @ k",
}


@pytest.mark.parametrize("text", SIMPLIFIED)
def test_what_an_expression_becomes(text: str) -> None:
    p = program(f"y = {text}", {}, DIMS, {})
    root = p.equations[-1].rhs
    simple = rewrite(root, SIMPLER)
    assert Text(p).show(simple) == SIMPLIFIED[text]
    assert_same(simple, root)
    assert rewrite(simple, SIMPLER) is simple


def test_slices_that_tile_a_vector_are_joined() -> None:
    a, b, v = (ops.ref(name, 0, DIMS[name]) for name in "abv")
    first = ops.node("embed", a, attr=((0, WIDE),))
    second = ops.node("embed", b, attr=(("H", WIDE),))
    tiled = ops.add(ops.add(second, v), first)
    assert rewrite(tiled, SIMPLER) is ops.add(v, ops.concat(a, b))
    assert_same(rewrite(tiled, SIMPLER), tiled)
    alone = ops.add(v, first)
    assert rewrite(alone, SIMPLER) is alone


def drawn(rng: np.random.Generator, depth: int) -> Node:
    """A random vector expression, of the ops that derivatives are made of."""
    if not depth or rng.random() < 0.1:
        return ops.ref("abcd"[rng.integers(4)], 0, ("H",))
    a, b = drawn(rng, depth - 1), drawn(rng, depth - 1)
    positive = ops.add(ops.const(1), ops.power(b, 2))
    made = [
        ops.add(a, b),
        ops.sub(a, b),
        ops.mul(a, b),
        ops.div(a, positive),
        ops.mul(ops.const(float(rng.integers(-2, 4)) / 2), a),
        ops.neg(a),
        ops.power(a, float(rng.integers(2, 4))),
        ops.sub(ops.const(1), a),
        ops.node("tanh", a),
        ops.mul(a, ops.mean(b)),
        ops.sub(a, ops.div(ops.dot(a, b), ops.summed(positive))),
        ops.mul(a, ops.ref("s", 0, ())),
    ]
    return made[rng.integers(len(made))]


@pytest.mark.parametrize("seed", range(200))
def test_the_rules_keep_the_meaning_of_whatever_there_is(seed: int) -> None:
    root = drawn(np.random.default_rng(seed), 4)
    simple = rewrite(root, SIMPLER)
    a, b = value(root), value(simple)
    largest = max(float(np.max(np.abs(value(n)))) for n in walk(root))
    assert np.max(np.abs(a - b)) <= REWRITE * max(1.0, largest)
    assert rewrite(simple, SIMPLER) is simple
    assert weights(simple)[simple] <= weights(root)[root]


def test_what_is_shared_forty_times_over_is_no_work() -> None:
    root = ops.ref("a", 0, ("H",))
    for _ in range(40):
        root = ops.add(root, root)
    assert rewrite(root, SIMPLER) is ops.mul(ops.const(2**40), ops.ref("a", 0, ("H",)))


def test_rules_that_go_in_circles_are_found() -> None:
    def swap(n: Node) -> Node | None:
        return ops.add(n.args[1], n.args[0]) if n.op == "add" else None

    a, b = (ops.ref(name, 0, ("H",)) for name in "ab")
    with pytest.raises(AssertionError, match="do not come to an end"):
        rewrite(ops.add(a, b), (swap,))
