"""Every op has a spelling for the plain backend, and it means what the oracle says."""

from __future__ import annotations

import numpy as np
import pytest
from one_op import ELEMENTWISE, OTHERS, A, H, M, X, in_the_loop, step, values_of
from shapes import Shape, draw, expected
from tolerances import BACKEND, OP_VALUE

from bptt.backends.reference import execute
from bptt.errors import BpttError, UserError
from bptt.ir.ops import add, fill, intern, mul, node, ref
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Equation, Kind, Node, Program, Role, State, Value
from bptt.printers.numpy import print_once


def assert_oracle(p: Program, rng: np.random.Generator, kind: str) -> None:
    shape = Shape(3, 2, (4, 4, 4))
    given = draw(p, shape, rng)
    if kind == "torch":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        got = execute(p, [torch.from_numpy(given[port]) for port in inputs(p)])
    else:
        got = execute(p, [given[port] for port in inputs(p)])
    want = expected(p, shape, given)
    for port, a in zip(outputs(p), got, strict=True):
        assert np.abs(np.asarray(a) - want[port]).max() <= BACKEND["float64"] * max(
            1.0, np.abs(want[port]).max()
        )


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("op", ELEMENTWISE)
def test_elementwise_ops(op: str, kind: str, rng: np.random.Generator) -> None:
    assert_oracle(step(values_of(op), looped=False), rng, kind)
    assert_oracle(in_the_loop(op), rng, kind)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("value", OTHERS, ids=lambda n: n.op)
def test_other_ops(value: Node, kind: str, rng: np.random.Generator) -> None:
    assert_oracle(step(value, looped=False), rng, kind)


def test_large_arguments_neither_overflow_nor_vanish() -> None:
    """sigmoid(-40) is 4.2e-18 and not 0; 1e4 is not inf."""
    p = step(node("sigmoid", X), looped=False)
    x = np.array([-1e4, -40.0, 0.0, 40.0, 1e4]).reshape(1, 1, 1, 5)
    given = {port: np.zeros((1, 5, 5)) if port.name == "M" else x for port in inputs(p)}
    given[Port("h", At.START)] = np.zeros((1, 1, 5))
    given[Port("a", At.CONST)] = np.zeros((1, 5))
    got = execute(p, [given[port] for port in inputs(p)])[0].ravel()
    assert np.allclose(got, [0.0, 4.248354255291589e-18, 0.5, 1.0, 1.0], rtol=OP_VALUE, atol=0)


def test_ops_without_time(rng: np.random.Generator) -> None:
    """What depends on no series runs once, with matrices."""
    eye = node("outer", A, A)
    equations = (
        Equation("B", Kind.ONCE, add(node("T", M), mul(fill(node("sum", A), ("H", "H")), eye))),
        Equation("k", Kind.ONCE, node("matmul", ref("B", 0, ("H", "H")), node("exp", A))),
        Equation("h", Kind.STEP, mul(ref("h", 1, H), add(X, ref("k", 0, H)))),
    )
    values = (
        Value("x", H, Role.GIVEN),
        Value("a", H, Role.PARAM),
        Value("M", ("H", "H"), Role.PARAM),
    )
    for kind in ("numpy", "torch"):
        assert_oracle(Program(1, values, equations, (State("h"),), ("h", "k", "B")), rng, kind)


def test_an_unspecified_function_is_named() -> None:
    p = step(node("call", X, attr=("f_c", 0)), looped=True)
    arrays = [np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 2)), np.ones((1, 2)), np.ones((1, 2, 2))]
    with pytest.raises(UserError, match="`f_c` is not specified"):
        execute(p, [*arrays, np.ones((1, 1, 2))])


def test_an_op_without_a_spelling_is_an_error_and_not_a_comment() -> None:
    odd = intern("twist", (A,), (), H)
    with pytest.raises(BpttError, match="`twist` has no spelling"):
        print_once((Equation("k", Kind.ONCE, odd),), "once", ["H"])
