"""Tokens: the rewritten sweep means what the cell means when it is fed the rows themselves."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from programs import H, X, lstm, program
from subjects import EVERY, load
from tolerances import REWRITE

from bptt.calculus.derive import adjoint
from bptt.calculus.rewrites import layer, lower
from bptt.calculus.schedule import schedule
from bptt.calculus.summary import main_input
from bptt.calculus.tangent import jvp
from bptt.calculus.tokens import tokens
from bptt.ir.dims import add_dims, shape_of
from bptt.ir.ports import At, Port, outputs
from bptt.ir.program import Kind, Program, refs
from bptt.language.canonical import read
from bptt.printers.text import text
from bptt.proof import sampling
from bptt.proof.sweeps import forward, gradient, hessian_vector, second, tangents

LENGTH, ROWS = 4, 5


def readable(name: str) -> bool:
    """Whether there is an input over time, read at its own step only, as `check` makes it."""
    p = layer(load(name))
    given = main_input(p)
    read = refs(*(e.rhs for e in p.equations))
    return given is not None and all(lag == 0 for n, lag in read if n == given.name)


READ = tuple(filter(readable, EVERY))


@cache
def cut(name: str) -> Program:
    return lower(layer(load(name)))


def input_of(p: Program) -> str:
    found = main_input(p)
    assert found is not None
    return found.name


class Sample:
    """A cell's Program `p` fed rows, and `t`, fed their numbers: with the same values."""

    def __init__(self, p: Program, rng: np.random.Generator) -> None:
        self.p, self.t = p, tokens(p, input_of(p))
        self.x = Port(input_of(p), At.STEPS)
        self.token, self.table = Port(self.t.token, At.STEPS), Port(self.t.table, At.CONST)
        sizes = sampling.sizes_for(p, None, None)
        self.sizes = {**sizes, self.rows(): ROWS}
        self.plain = sampling.draw(p, LENGTH, self.sizes, rng, {})
        shape = shape_of(p.dims(self.x.name), self.sizes)
        self.numbers = np.array([3, 1, 3, 4])  # one twice, 0 and 2 never
        self.e = rng.normal(size=(ROWS, *shape))
        self.plain[self.x] = self.e[self.numbers]
        self.chosen = {port: a for port, a in self.plain.items() if port != self.x}
        self.chosen |= {self.token: self.numbers.astype(float), self.table: self.e}
        self.cotangents = sampling.randoms(p, outputs(p), LENGTH, self.sizes, rng)

    def rows(self) -> str:
        (dim, *_) = self.t.program.dims(self.t.table)
        assert isinstance(dim, str)
        return dim

    def put(self, by_x: Any) -> Any:
        """What a table gets from what each row of it gets."""
        found = np.zeros_like(self.e)
        np.add.at(found, self.numbers, by_x)
        return found

    def directions(self, rng: np.random.Generator) -> tuple[dict[Port, Any], dict[Port, Any]]:
        """One for each input: for `t`, and the same for `p`."""
        ports = [port for port in self.chosen if port != self.token]
        ways = {port: np.asarray(rng.normal(size=np.shape(self.chosen[port]))) for port in ports}
        fed = {port: a for port, a in ways.items() if port != self.table}
        return ways, {**fed, self.x: ways[self.table][self.numbers]}

    def assert_same(self, got: dict[Port, Any], want: dict[Port, Any]) -> None:
        """Adjoints of `t`'s inputs are those of `p`'s."""
        want = {**want, self.table: self.put(want[self.x])}
        for port in self.chosen:
            if port != self.token:
                close(port, got[port], want[port])
        assert not np.any(got[self.token])
        assert np.array_equal(got[self.table][[0, 2]], np.zeros_like(self.e[[0, 2]]))


def close(what: Any, got: Any, want: Any) -> None:
    assert np.shape(got) == np.shape(want), what
    error = np.max(np.abs(np.asarray(got) - want), initial=0.0)
    assert error <= REWRITE * max(1.0, np.max(np.abs(want), initial=0.0)), (what, error)


@pytest.fixture(params=READ)
def sample(request: pytest.FixtureRequest, rng: np.random.Generator) -> Sample:
    return Sample(cut(request.param), rng)


def test_the_meaning_is_kept(sample: Sample) -> None:
    want = forward(sample.p, sample.plain, sample.sizes, LENGTH)
    got = forward(sample.t.program, sample.chosen, sample.sizes, LENGTH)
    for port in outputs(sample.p):
        close(port, got[port], want[port])


def test_the_gradient_is_kept(sample: Sample) -> None:
    want = gradient(sample.p, sample.plain, sample.cotangents, sample.sizes)
    got = gradient(sample.t.program, sample.chosen, sample.cotangents, sample.sizes)
    sample.assert_same(got, want)


def test_second_derivatives_are_kept(sample: Sample, rng: np.random.Generator) -> None:
    ways, fed = sample.directions(rng)
    want, outer = second(sample.p, sample.plain, sample.cotangents, fed, sample.sizes)
    got, mine = second(sample.t.program, sample.chosen, sample.cotangents, ways, sample.sizes)
    sample.assert_same(got, want)
    for port, a in outer.items():
        close(port, mine[port], a)


def test_forward_mode_is_kept(sample: Sample, rng: np.random.Generator) -> None:
    ways, fed = sample.directions(rng)
    values = forward(sample.p, sample.plain, sample.sizes, LENGTH)
    chosen = forward(sample.t.program, sample.chosen, sample.sizes, LENGTH)
    want = tangents(sample.p, values, fed, sample.sizes)
    got = tangents(sample.t.program, chosen, ways, sample.sizes)
    for port in outputs(sample.p):
        close(port, got.get(port, 0 * values[port]), want.get(port, 0 * values[port]))
    turned = hessian_vector(sample.p, sample.plain, sample.cotangents, fed, sample.sizes)
    sample.assert_same(
        hessian_vector(sample.t.program, sample.chosen, sample.cotangents, ways, sample.sizes),
        turned,
    )


# --- what is written ------------------------------------------------------------------------------


def sums(p: Program) -> list[str]:
    return [f"{e.name}: {e.rhs.op}" for e in p.equations if e.kind is Kind.SUM]


def test_a_product_becomes_a_table_of_its_own() -> None:
    t = tokens(lower(lstm()))
    assert (t.token, t.table) == ("token$x", "table$x")
    lines = text(t.program).splitlines()
    assert "table$W_i = table$x @ W_i.T" in lines
    assert "z$i[t] = row(table$W_i, token$x[t]) + U_i @ h[t-1] + b_i" in lines
    derived = text(adjoint(t.program).program).splitlines()
    assert "sum$table$W_i += put_row(d_z$i[t], token$x[t], V)" in derived
    assert "d_W_i = (table$x.T @ d_table$W_i).T" in derived
    read = {name for name, _ in refs(*(e.rhs for e in t.program.steps()))}
    assert "table$x" not in read and not read & {f"W_{k}" for k in "ifgo"}


def test_what_is_concatenated_is_split_and_a_table_is_shared() -> None:
    """The rest of a matrix stays one, and what two lines multiply is multiplied once."""
    lines = """
a[t] = tanh(W @ concat(h[t-1], x[t], 1))
h[t] = a[t]*dot(w, concat(x[t], a[t])) + W @ concat(h[t-1], x[t], 1)"""
    wide = add_dims("H", "X", 1)
    params = {"W": ("H", wide), "w": (add_dims("X", "H"),)}
    t = tokens(program(lines, {"x": X}, params, {"h": H}))
    once = [line for line in text(t.program).splitlines() if "[t]" not in line][-5:]
    assert once == [
        "part$W = block(W, 0, H, 0, H)",
        "table$W = table$x @ block(W, 0, H, H, X).T",
        "part$W$2 = block(W, 0, H, H + X, 1)",
        "table$w = table$x @ block(w, 0, X)",
        "part$w = block(w, X, H)",
    ]


def test_rows_read_elementwise_are_added_to_once_a_step() -> None:
    """Three lines read the input itself; its table gets one row added."""
    lines = """
a[t] = x[t]*sigmoid(x[t] + u)
b[t] = tanh(x[t])*a[t]
h[t] = (x[t] - b[t])*v + h[t-1]/2"""
    p = program(lines, {"x": H}, {"u": H, "v": H}, {"h": H})
    t = tokens(p)
    found = sums(adjoint(t.program).program)
    assert sorted(found) == ["d_table$x: put_row", "d_u: mul", "d_v: mul"]


def test_a_number_a_step() -> None:
    """The input is a number: so are the rows of the table, and the tables made of it."""
    lines = "h[t] = tanh(w*x[t] + U @ h[t-1])*x[t]"
    p = program(lines, {"x": ()}, {"w": H, "U": ("H", "H")}, {"h": H})
    sample = Sample(lower(p), np.random.default_rng(0))
    assert sample.t.program.dims(sample.t.table) == ("V",)
    sample.assert_same(
        gradient(sample.t.program, sample.chosen, sample.cotangents, sample.sizes),
        gradient(sample.p, sample.plain, sample.cotangents, sample.sizes),
    )


def test_a_size_of_the_cell_is_not_taken() -> None:
    p = program(
        "h[t] = W @ x[t] + U @ h[t-1]", {"x": X}, {"W": ("V", "X"), "U": ("V", "V")}, {"h": ("V",)}
    )
    t = tokens(p)
    assert t.program.dims(t.table) == ("V$", "X")
    assert t.program.dims("table$W") == ("V$", "V")
    assert read(text(t.program)).dims(t.table) == ("V$", "X")


@pytest.mark.parametrize("name", READ)
def test_its_text_is_read_back(name: str) -> None:
    p = tokens(cut(name), input_of(cut(name))).program
    for q in (p, jvp(p).program, adjoint(p).program):
        again = read(text(q))
        assert text(again) == text(q)
        assert [e.rhs for e in again.equations] == [e.rhs for e in q.equations]


def test_no_product_over_time_with_the_input_is_left() -> None:
    """Where a cell reads its input by products alone, rows of tables are all that is read."""
    for name in ("gru_cho", "peephole", "scalar_gates"):
        t = tokens(cut(name))
        plan = schedule(adjoint(t.program).program)
        assert plan.before == ()
        operands = {n for g in plan.time_gemms for n, _ in refs(*g.left, *g.right)}
        assert not {n for n in operands if "token" in n or "table" in n}
        assert {a.of.op for phase in plan.after for a in phase.accums} >= {"put_row"}
