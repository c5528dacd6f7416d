"""Programs that nobody would write: whatever can be built can be derived, and is right."""

from __future__ import annotations

import numpy as np
import pytest

from bptt.ir import ops
from bptt.ir.dims import Dims, add_dims
from bptt.ir.program import Equation, Kind, Node, Program, Role, State, Value
from bptt.proof.gradcheck import check

H: Dims = ("H",)
HH: Dims = ("H", "H")
VALUES = (
    Value("x", H, Role.GIVEN),
    Value("s", (), Role.GIVEN),
    Value("q", H, Role.GIVEN, per_sequence=True),
    Value("W", HH, Role.PARAM),
    Value("V", ("H", "X"), Role.PARAM),
    Value("M", (add_dims("H", "H", 1), "H"), Role.PARAM),
    Value("b", H, Role.PARAM),
    Value("k", (), Role.PARAM),
    Value("C", HH, Role.CONST),
    Value("y", ("X",), Role.GIVEN),
)


class Maker:
    """Draws a Program: some constants over time, some steps, some of them states."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.matrices = [ops.ref("W", 0, HH), ops.ref("C", 0, HH)]
        self.fixed = [ops.ref("b", 0, H), ops.ref("k", 0, ())]
        self.vectors: list[Node] = []
        self.numbers: list[Node] = []

    def pick(self, nodes: list[Node]) -> Node:
        return nodes[self.rng.integers(len(nodes))]

    def vector(self, depth: int) -> Node:
        rng = self.rng
        if depth == 0 or rng.random() < 0.15:
            return self.pick(self.vectors)
        a = self.vector(depth - 1)
        match rng.integers(12):
            case 0:
                return ops.node("tanh", a)
            case 1:
                return ops.node("sigmoid", ops.sub(a, self.number(depth - 1)))
            case 2 | 3:
                return ops.matmul(self.pick(self.matrices), a)
            case 4:
                return ops.matmul(ops.ref("V", 0, ("H", "X")), ops.ref("y", 0, ("X",)))
            case 5 | 6:
                return ops.node("tanh", ops.mul(a, self.vector(depth - 1)))
            case 7:
                return ops.div(ops.sub(a, ops.mean(a)), ops.add(ops.const(2), ops.power(a, 2)))
            case 8:
                return ops.node("softmax", a)
            case 9:
                row = ops.concat(a, self.number(depth - 1), self.vector(depth - 1))
                return ops.matmul(ops.transpose(ops.ref("M", 0, VALUES[5].dims)), row)
            case 10:
                return ops.block(ops.concat(a, self.vector(depth - 1)), ("H", "H"))
            case _:
                return ops.sub(self.vector(depth - 1), ops.neg(a))

    def number(self, depth: int) -> Node:
        if depth == 0 or self.rng.random() < 0.4:
            return self.pick(self.numbers)
        if self.rng.random() < 0.2:
            return ops.node("tanh", ops.summed(self.pick(self.matrices)))
        return ops.node("sigmoid", ops.dot(self.vector(depth - 1), self.vector(depth - 1)))

    def once(self, k: int) -> Equation:
        """A constant over time: a matrix, a vector or a number."""
        name = f"o{k}"
        match self.rng.integers(3):
            case 0:
                a, b = self.pick(self.matrices), self.pick(self.matrices)
                rhs = ops.sub(ops.matmul(a, ops.transpose(b)), ops.mul(self.fixed[1], a))
                self.matrices.append(ops.ref(name, 0, HH))
            case 1:
                rhs = ops.node("sigmoid", ops.ref("b", 0, H))
                self.fixed.append(ops.ref(name, 0, H))
            case _:
                rhs = ops.node("tanh", ops.summed(ops.mul(self.matrices[0], self.matrices[0])))
                self.fixed.append(ops.ref(name, 0, ()))
        return Equation(name, Kind.ONCE, rhs)

    def program(self) -> Program:
        rng = self.rng
        equations = [self.once(k) for k in range(rng.integers(4))]
        self.vectors = [ops.ref(n, int(lag), H) for n, lag in (("x", 0), ("x", 1), ("q", 0))]
        self.vectors += [n for n in self.fixed if n.dims]
        self.numbers = [ops.ref("s", 0, ()), ops.ref("s", -1, ()), ops.const(0.5)]
        self.numbers += [n for n in self.fixed if not n.dims]
        count = int(rng.integers(2, 6))
        scalar = [bool(rng.random() < 0.25) for _ in range(count)]
        states = [k for k in range(count) if rng.random() < 0.6] or [count - 1]
        for k in states:
            (self.numbers if scalar[k] else self.vectors).append(
                ops.ref(f"n{k}", 1, () if scalar[k] else H)
            )
        for k in range(count):
            rhs = self.number(3) if scalar[k] else self.vector(3)
            equations.append(Equation(f"n{k}", Kind.STEP, rhs))
            node = ops.ref(f"n{k}", 0, rhs.dims)
            (self.numbers if scalar[k] else self.vectors).append(node)
        outputs = [e.name for e in equations if rng.random() < 0.4] or [equations[-1].name]
        return Program(
            dir=int(rng.choice([1, -1])),
            values=VALUES,
            equations=tuple(equations),
            states=tuple(State(f"n{k}") for k in states),
            outputs=tuple(outputs),
        )


@pytest.mark.parametrize("seed", range(16))
def test_a_random_program_is_derived_right(seed: int) -> None:
    p = Maker(np.random.default_rng(seed)).program()
    report = check(p, order=2, length=2, sizes={"H": 2, "X": 3})
    assert report.ok, f"{p.equations}\n{report.text()}"
