"""Every op has a spelling in C99, and it means what the oracle says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from one_op import ELEMENTWISE, OTHERS, H, M, X, Y, step, values_of
from plain_c import library, pointer
from shapes import Shape, draw, expected
from sweeps_of import program
from tolerances import BACKEND

from bptt.errors import BpttError
from bptt.ir.ops import add, block, concat, dot, each, fill, lower, matmul, node, transpose
from bptt.ir.program import Program, Role
from bptt.printers.c99 import Target, fused, number_text, print_helper, print_step

SHAPE = Shape(1, 1, (4, 4, 4))
HELD = ("x", "y", "a", "M", "h")
ODD = (
    matmul(lower("H"), X),
    matmul(transpose(lower("H")), X),
    matmul(each("H", 1), X),
    matmul(transpose(each("H", 1)), X),
    matmul(transpose(M), block(concat(X, Y), (2, "H"))),
    add(block(concat(X, Y, dot(X, Y)), (2, "H")), fill(dot(X, Y), H)),
)
VALUES = [*map(values_of, ELEMENTWISE), *OTHERS, *ODD]


def function(name: str, p: Program) -> tuple[list[str], frozenset[str]]:
    """`p` as a C function of what it reads and what it gives."""
    known = {(n, 0): n for n in HELD[:-1]} | {("h", 1): "h"}
    targets = [Target("v", "v"), Target("h", "out")]
    found = print_step(p, {"H": 4}, known, targets, real="double", prefix="t")
    given = ", ".join([*(f"const double *{n}" for n in HELD), "double *v", "double *out"])
    silent = [f"    (void){n};" for n in HELD]
    lines = [f"void {name}({given});", f"void {name}({given}) {{", *silent]
    return [*lines, *(f"    {line}" for line in found.lines), "}"], found.helpers


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All the values, each as a function, through one call of the compiler."""
    lines: list[str] = []
    helpers: set[str] = set()
    for k, value in enumerate(VALUES):
        text, called = function(f"f{k}", step(value, looped=False))
        lines += text
        helpers |= called
    head = ["#include <math.h>"]
    for op in sorted(helpers):
        head += print_helper(op, "double", "t")
    return library("\n".join([*head, *lines, ""]), tmp_path_factory.mktemp("ops"))


@pytest.mark.parametrize("k", range(len(VALUES)), ids=lambda k: VALUES[k].op)
def test_ops(k: int, compiled: Any, rng: np.random.Generator) -> None:
    p = step(VALUES[k], looped=False)
    given = draw(p, SHAPE, rng)
    if VALUES[k].op not in ("log", "sqrt", "pow"):  # which are for numbers above 0
        given = {port: a - 0.5 * (port.name in ("x", "y")) for port, a in given.items()}
    named = {port.name: a for port, a in given.items()}
    v, out = np.full(4, np.nan), np.full(4, np.nan)
    arrays = [np.array(named.get(n, np.zeros(16))) for n in HELD]
    getattr(compiled, f"f{k}")(*map(pointer, (*arrays, v, out)))
    for port, a in expected(p, SHAPE, given).items():
        got = v if port.name == "v" else out
        scale = max(1.0, np.abs(a).max())
        assert np.abs(got - a.reshape(-1)).max() <= BACKEND["float64"] * scale, port.name


def test_what_cannot_be_spelled_is_an_error() -> None:
    with pytest.raises(BpttError, match="`call` has no spelling in C99"):
        function("f", step(node("call", X, attr=("f_c", 0)), looped=False))
    odd = node("block", lower("H"), attr=((0, 2), (0, "H")))
    value = fill(node("sum", matmul(odd, X)), H)
    with pytest.raises(BpttError, match="`pattern` has no spelling in C99 as a matrix"):
        function("f", step(value, looped=False))


@pytest.mark.parametrize("cell", ["lstm", "layernorm_lstm", "on_lstm"])
def test_no_word_of_a_users_is_in_the_code(cell: str) -> None:
    p = program(cell)
    sizes = dict.fromkeys(("H", "X", "M"), 20)
    names = {v.name for v in p.values} | {e.name for e in p.equations}
    known = {(n, 0): "given" for n in names} | {(s.name, 1): "held" for s in p.states}
    targets = [Target(name, "y") for name in p.outputs]
    found = print_step(p, sizes, known, targets)
    assert found == print_step(p, sizes, known, targets)  # and printing is deterministic
    source = "\n".join(found.lines)
    assert source.isascii()
    words = set(re.findall(r"[A-Za-z_]\w*", source))
    assert not {name for name in names if len(name) > 1} & words
    assert found.reads <= {v.name for v in p.values if v.role is not Role.GIVEN} | names


def test_equations_that_one_other_reads_stand_there() -> None:
    p = program("lstm")
    names = [e.name for e in fused(p, p.outputs)]
    # a gate is in the line of the state that reads it; a state stays
    assert names == ["c", "h"]


def test_numbers() -> None:
    assert number_text(0.1, "float") == "0.1f"
    assert number_text(2.0, "double") == "2.0"
    assert number_text(float("-inf"), "float") == "-INFINITY"
    assert number_text(float("nan"), "double") == "NAN"
