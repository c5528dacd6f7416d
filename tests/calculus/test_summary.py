"""A layer's plans and needs, at a glance."""

import pytest

from bptt.calculus.rewrites import lower
from bptt.calculus.summary import Needs, needs, plans
from bptt.ir.program import Program
from bptt.language.check import check

ODD = """\
input x: H, d: scalar, s: S per sequence, y: H
const dt = 0.1, A: (D, D)
function f
state m: D
m[t] = A @ m[t-1] + dt * u * d[t]
h[t] = f(W @ x[t] + V @ s + M @ m[t] + U @ h[t-1])

loss:
E[t] = sum((h[t] - y[t])**2)
"""


def lowered(text: str) -> Program:
    return lower(check(text).program)


def named(n: Needs) -> list[object]:
    main = n.main and n.main.name
    consts, inputs = [v.name for v in n.consts], [v.name for v in n.inputs]
    return [main, n.hidden, n.sizes, inputs, n.functions, consts]


def test_what_a_layer_needs() -> None:
    found = needs(lowered(ODD), {"dt"})
    assert named(found) == ["x", "H", ("D", "S"), ["d", "s"], ("f",), ["A"]]
    assert found.text() == "sizes D S, inputs d s, const A, function f"


def test_a_plain_cell_needs_nothing() -> None:
    found = needs(lowered("h[t] = tanh(W @ x[t] + U @ h[t-1])"))
    assert named(found) == ["x", "H", (), [], (), []]
    assert found.text() == ""


def test_a_cell_may_have_no_input_and_no_size() -> None:
    found = needs(lowered("n[t] = n[t-1] + 1"))
    assert named(found)[:3] == [None, 1, ()]


def test_many_of_a_kind_are_counted() -> None:
    text = "function f, g, k\nh[t] = f(g(k(W @ x[t] + U @ h[t-1])))"
    assert needs(lowered(text)).text() == "3 functions"


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        ("h[t] = tanh(W @ x[t] + U @ h[t-1])", (1, 1)),
        ("z[t] = tanh(W @ x[t] + U @ h[t-1])\nh[t] = z[t] * tanh(V @ z[t])", (2, 2)),
    ],
)
def test_plans_are_those_of_a_layer_in_training(text: str, phases: tuple[int, int]) -> None:
    found = plans(lowered(text))
    assert found.phases == phases
    assert set(found.kept) <= set(found.forward.program.outputs)
    assert found.backward.program.dir == -1
