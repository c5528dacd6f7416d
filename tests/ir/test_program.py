"""Nodes are interned, walks are over the DAG, and a wrong Program cannot be built."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import weakref
from typing import Any

import pytest
from programs import PROGRAMS, lstm

from bptt.ir import ops
from bptt.ir.dims import Dims
from bptt.ir.ops import const, node, ref
from bptt.ir.ports import At, Port, edge_at, inputs, outputs
from bptt.ir.program import (
    Emit,
    Equation,
    Kind,
    Node,
    Program,
    Role,
    State,
    Value,
    intern,
    refs,
    walk,
)

V: Dims = ("H",)
M: Dims = ("H", "H")


def at(name: str, lag: int = 0, dims: Dims = V) -> Node:
    return ref(name, lag, dims)


# --- nodes ----------------------------------------------------------------------------------------


def test_equal_expressions_are_one_object() -> None:
    assert ops.add(at("a"), at("b")) is ops.add(at("a"), at("b"))
    assert ops.add(at("a"), at("b")) is not ops.add(at("b"), at("a"))
    assert at("a") is not at("a", 1)
    assert at("a") is not at("a", 0, ("X",))
    assert const(0.1) is const(0.1)
    assert const(0.0) is not const(-0.0)
    assert const(1) is const(1.0)


def test_a_node_is_copied_as_itself_and_not_pickled() -> None:
    n = node("tanh", at("a"))
    assert copy.copy(n) is n and copy.deepcopy(n) is n
    with pytest.raises(TypeError, match="pickle the text of its Program"):
        pickle.dumps(n)


def test_nodes_that_nothing_uses_are_forgotten() -> None:
    def marked() -> list[Node]:
        gc.collect()
        return [n for n in gc.get_objects() if type(n) is Node and "only$here" in n.attr]

    n = at("only$here")
    assert marked() == [n]
    del n
    assert marked() == []


def test_two_threads_make_one_node() -> None:
    made: list[Node] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        n = at("shared")
        for _ in range(200):
            n = node("tanh", n)
        made.append(n)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len(set(map(id, made))) == 1


def test_a_walk_visits_each_node_once_arguments_first() -> None:
    n = at("a")
    for _ in range(40):  # 2**40 paths
        n = ops.add(n, n)
    start = time.perf_counter()
    order = walk(n)
    assert time.perf_counter() - start < 0.1
    assert len(order) == 41 and order[0] is at("a") and order[-1] is n
    assert len(repr(n)) < 2000 and repr(n).startswith("add(add(")
    assert repr(ops.neg(at("a", 1))) == "neg(ref('a', 1))"
    a, b = ops.mul(at("a"), at("b")), ops.sub(at("b"), at("c"))
    order = walk(a, b)
    assert all(order.index(x) < order.index(y) for y in order for x in y.args)
    assert len(order) == len(set(order)) == 5


def test_a_second_walk_finds_what_the_first_did() -> None:
    n = ops.add(ops.mul(at("a"), at("b")), ops.neg(ops.mul(at("a"), at("b"))))
    first = walk(n)
    walk(n).clear()  # the list is the caller's
    assert walk(n) == first == walk(n, at("b"))
    gone = weakref.ref(n)
    first.clear()
    del n
    assert gone() is None


def test_a_walk_goes_deeper_than_python_recurses() -> None:
    n = at("a")
    for _ in range(20_000):
        n = node("neg", n)
    assert len(walk(n)) == 20_001


def test_references_are_listed_once_each() -> None:
    n = ops.add(ops.mul(at("a"), at("a")), at("a", 1))
    assert list(refs(n, at("b"))) == [("a", 0), ("a", 1), ("b", 0)]


# --- programs -------------------------------------------------------------------------------------


def build(**changes: Any) -> Program:
    """A small right Program, with some of its fields replaced."""
    fields: dict[str, Any] = {
        "dir": 1,
        "values": (
            Value("x", V, Role.GIVEN),
            Value("s", V, Role.GIVEN, per_sequence=True),
            Value("W", M, Role.PARAM),
            Value("k", (), Role.CONST),
        ),
        "equations": (
            Equation("A", Kind.ONCE, ops.sub(at("W", 0, M), ops.transpose(at("W", 0, M)))),
            Equation("y", Kind.STEP, ops.add(ops.matmul(at("A", 0, M), at("y", 1)), at("x", -1))),
            Equation("S", Kind.SUM, node("outer", at("y"), at("x"))),
            Equation("Z", Kind.ONCE, ops.neg(at("S", 0, M))),
        ),
        "states": (State("y"),),
        "outputs": ("y", "Z"),
        "emits": (Emit("x", 0, "y"),),
    }
    return Program(**{**fields, **changes})


def step(rhs: Node, name: str = "y") -> dict[str, Any]:
    """Fields of a Program of one line."""
    return {"equations": (Equation(name, Kind.STEP, rhs),), "states": (), "outputs": (name,)}


def lines(*equations: tuple[str, Kind, Node]) -> dict[str, Any]:
    """Fields of a Program of some lines, without states."""
    made = tuple(Equation(*e) for e in equations)
    return {"equations": made, "states": (), "outputs": (), "emits": ()}


ONCE, STEP, SUM = Kind.ONCE, Kind.STEP, Kind.SUM
Y = ("y", STEP, at("x"))
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a direction that is none": ({"dir": 0}, "dir is 0"),
    "a name assigned twice": (lines(Y, Y), "`y` is written twice"),
    "a value assigned": (lines(("x", STEP, at("s"))), "`x` is written twice"),
    "a value given twice": (
        {"values": (Value("x", V, Role.GIVEN),) * 2},
        "`x` is written twice",
    ),
    "a state listed twice": ({"states": (State("y"), State("y"))}, "`y` is written twice"),
    "a matrix computed at a step": (
        step(ops.matmul(ops.add(at("W", 0, M), at("W", 0, M)), at("x"))),
        r"`y` computes a matrix at every step \(add\)",
    ),
    "an outer product at a step": (
        step(node("outer", at("x"), at("x"))),
        r"computes a matrix at every step \(outer\)",
    ),
    "an outer product inside a sum": (
        lines(("S", SUM, ops.neg(node("outer", at("x"), at("x"))))),
        r"computes a matrix at every step \(neg\)|\(outer\)",
    ),
    "a row put in place at a step": (
        step(ops.put_row(at("x"), at("k", 0, ()), "V")),
        r"computes a matrix at every step \(put_row\)",
    ),
    "the number of a row computed": (
        step(ops.row(at("W", 0, M), node("sum", at("x")))),
        "`y` computes the number of a row",
    ),
    "the number of a row from another line": (
        lines(
            ("n", STEP, node("sum", at("x"))),
            ("z", STEP, ops.row(at("W", 0, M), at("n", 0, ()))),
        ),
        "`z` computes the number of a row",
    ),
    "a value read in another size": (step(at("x", 0, ("X",))), "`x` in `y` has dims"),
    "a name read in another size": (
        lines(Y, ("z", STEP, at("y", 0, ("X",)))),
        "`y` in `z` has dims",
    ),
    "a parameter read one step back": (
        step(ops.matmul(at("W", 1, M), at("x"))),
        "`y` reads `W` at 1",
    ),
    "a static input read one step back": (step(at("s", 1)), "`y` reads `s` at 1"),
    "an input read two steps back": (step(at("x", 2)), "`y` reads `x` at 2"),
    "a series read once": (lines(("A", ONCE, at("x"))), "`A` reads the series `x`"),
    "a step read once": (lines(Y, ("A", ONCE, at("y"))), "`A` reads the series `y`"),
    "a name that nothing gives": (step(at("q")), "`y` reads `q`, which nothing gives"),
    "a name read before its line": (
        lines(("z", STEP, at("y")), Y),
        "`z` reads `y` at lag 0 before it is there",
    ),
    "its own value": (step(at("y")), "`y` reads `y` at lag 0 before it is there"),
    "no state, read one step back": (
        lines(Y, ("z", STEP, at("y", 1))),
        "`z` reads `y` at lag 1 before",
    ),
    "a state read two steps back": (
        {**step(at("y", 2)), "states": (State("y"),)},
        "`y` reads `y` at lag 2",
    ),
    "a state read ahead": (
        {**step(at("y", -1)), "states": (State("y"),)},
        "`y` reads `y` at lag -1",
    ),
    "a constant read before its line": (
        lines(("y", STEP, at("B")), ("B", ONCE, at("s"))),
        "`y` reads `B` too early",
    ),
    "a constant read one step back": (
        lines(("B", ONCE, at("s")), ("y", STEP, at("B", 1))),
        "`y` reads `B` too early",
    ),
    "a sum read at a step": (
        lines(("S", SUM, at("x")), ("y", STEP, at("S"))),
        "`y` reads `S`, known after the sweep",
    ),
    "a sum read in a sum": (
        lines(("S", SUM, at("x")), ("y", SUM, at("S"))),
        "`y` reads `S`, known after the sweep",
    ),
    "what reads a sum, read at a step": (
        lines(("S", SUM, at("x")), ("Z", ONCE, at("S")), ("y", STEP, at("Z"))),
        "`y` reads `Z`, known after the sweep",
    ),
    "a state that is no step": (
        {**lines(("A", ONCE, at("s"))), "states": (State("A"),)},
        "the state `A` is not assigned at each step",
    ),
    "a state that is not assigned": ({"states": (State("q"), State("y"))}, "the state `q` is not"),
    "an adjoint of nothing": (
        {"emits": (Emit("q", 0, "y"),)},
        "adjoint of `q`, which is not given",
    ),
    "an emitted adjoint of a constant": (
        {"emits": (Emit("W", 0, "y"),)},
        "adjoint of the constant `W`",
    ),
    "an emitted sum": ({"emits": (Emit("x", 0, "S"),)}, "`S` is not a step"),
    "an adjoint two steps away": ({"emits": (Emit("x", 2, "y"),)}, "lag 2"),
    "an output that is not assigned": ({"outputs": ("x",)}, "the output `x` is not assigned"),
    "a loss that is not assigned": ({"loss": "q"}, "the loss `q` is not a number"),
    "a loss that is a vector": ({"loss": "y"}, "the loss `y` is not a number"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_program_cannot_be_built(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        build(**changes)


def test_a_right_program_can_be_built_and_asked() -> None:
    p = build()
    assert p.late() == {"S", "Z"}
    assert [e.name for e in p.steps()] == ["y"]
    assert [v.name for v in p.named(Role.GIVEN)] == ["x", "s"]
    assert p.dims("x") == V and p.dims("Z") == M
    assert p.value("W").role is Role.PARAM and p.equation("S").kind is Kind.SUM
    for ask in (p.value, p.equation, p.dims):
        with pytest.raises(KeyError):
            ask("q")
    assert copy.deepcopy(p) is p


def test_what_is_remembered_of_a_program_goes_with_it() -> None:
    p = lstm()
    assert inputs(p) is inputs(p) and outputs(p) is outputs(p) and p.late() is p.late()
    assert p.dims("W_i") == ("H", "X") and p.dims("h") == ("H",)
    kept = weakref.ref(p)
    del p
    gc.collect()
    assert kept() is None


def test_ports_say_what_goes_in_and_comes_out() -> None:
    p = build()
    assert inputs(p) == (
        Port("x", At.STEPS),
        Port("x", At.LAST),
        Port("s", At.STATIC),
        Port("W", At.CONST),
        Port("k", At.CONST),
        Port("y", At.START),
    )
    assert outputs(p) == (
        Port("y", At.STEPS),
        Port("Z", At.CONST),
        Port("y", At.FINAL),
        Port("x", At.STEPS, True),
    )


@pytest.mark.parametrize(
    ("direction", "lag", "end"),
    [(1, 1, At.FIRST), (1, -1, At.LAST), (-1, 1, At.LAST), (-1, -1, At.FIRST)],
)
def test_a_lag_reads_beyond_the_end_that_the_direction_says(
    direction: int, lag: int, end: At
) -> None:
    p = build(dir=direction, **step(at("x", lag)), emits=(Emit("s", 0, "y"),))
    assert edge_at(p, lag) is end
    assert Port("x", end) in inputs(p)
    assert Port("s", At.STATIC, True) in outputs(p)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_of_the_tests_are_built_anew_as_equal_nodes(name: str) -> None:
    one, two = PROGRAMS[name](), PROGRAMS[name]()
    assert one is not two
    assert all(a.rhs is b.rhs for a, b in zip(one.equations, two.equations, strict=True))


def test_interning_keeps_what_differs_apart() -> None:
    p = lstm()
    assert intern("ref", (), ("x", 0), ("X",)) is ref("x", 0, p.dims("x"))
    assert intern("ref", (), ("x", 0), ("X",)) is not intern("ref", (), ("x", 0), ("H",))
