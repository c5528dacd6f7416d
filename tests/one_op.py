"""Programs that compute one op, for the languages that run."""

from __future__ import annotations

from bptt.calculus.rewrites import lower
from bptt.ir.ops import OPS, add, concat, const, fill, mul, node, ref, size
from bptt.ir.program import Equation, Kind, Node, Program, Role, State, Value

H = ("H",)
X, Y = ref("x", 0, H), ref("y", 0, H)
A, M = ref("a", 0, H), ref("M", 0, ("H", "H"))
ELEMENTWISE = [op for op, row in OPS.items() if row.elementwise and op not in ("call", "pow")]


def step(value: Node, *, looped: bool) -> Program:
    """A Program that computes `value` each step, in the loop or before it."""
    equations = (
        Equation("v", Kind.STEP, value),
        Equation(
            "h",
            Kind.STEP,
            add(ref("h", 1, H), mul(const(0.01), ref("v", 0, H)) if looped else X),
        ),
    )
    values = tuple(Value(name, H, Role.GIVEN) for name in ("x", "y"))
    constants = (Value("a", H, Role.PARAM), Value("M", ("H", "H"), Role.PARAM))
    return lower(Program(1, values + constants, equations, (State("h"),), ("v", "h")))


def values_of(op: str) -> Node:
    args = (X, Y)[: OPS[op].arity]
    return node(op, *args)


# What is not elementwise, on vectors of 4.
OTHERS = (
    node("pow", X, attr=((2.0).hex(),)),
    node("pow", X, attr=((-1.5).hex(),)),
    node("softmax", X),
    node("log_softmax", X),
    fill(node("row_max", X), H),
    fill(node("sum", X), H),
    fill(size("H"), H),
    node("matmul", M, X),
    node("matmul", node("T", M), X),
    node("block", concat(X, Y), attr=(("H", "H"),)),
    node("embed", node("block", X, attr=((0, 1),)), attr=((2, "H"),)),  # H is 4
    mul(A, X),
)


def in_the_loop(op: str) -> Program:
    """An elementwise op of the state, so that it is computed step by step."""
    value = values_of(op)
    args = (add(ref("h", 1, H), X) if a is X else a for a in value.args)
    return step(node(op, *args), looped=True)
