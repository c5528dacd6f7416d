"""Every op has a spelling in the languages for people, and LaTeX is what a paper would print."""

from __future__ import annotations

import re

import pytest
from awkward import AWKWARD

from bptt import cells
from bptt.cell import Cell
from bptt.errors import BpttError
from bptt.ir import ops
from bptt.ir.ops import OPS, const, node, ref
from bptt.ir.program import Node, intern
from bptt.printers.people.latex import Latex, symbol, text
from bptt.printers.people.layout import Spelled
from bptt.printers.people.plain import Plain
from bptt.printers.people.reading import Name, Reading, reading

H, M = ("H",), ("H", "X")
A, B, S = ref("a", 0, H), ref("b", 1, H), ref("s", 0, ())
W, X = ref("W", 0, M), ref("x", 0, ("X",))

# One node of every op that does not simply take one vector.
SAMPLES: dict[str, Node] = {
    "ref": A,
    "const": const(0.5),
    "size": ops.size("H"),
    "pattern": ops.lower("H"),
    "pow": ops.power(A, 2),
    "matmul": ops.matmul(W, X),
    "outer": node("outer", A, X),
    "T": ops.transpose(W),
    "fill": ops.fill(S, H),
    "concat": ops.concat(A, S),
    "block": ops.block(A, (0, 1)),
    "embed": node("embed", A, attr=((0, (("H", 2),)),)),
    "row": ops.row(W, S),
    "put_row": ops.put_row(X, S, "H"),
    "call": node("call", A, attr=("f", 1)),
    "call_vector": node("call_vector", A, attr=("F",)),
    "call_pull": node("call_pull", A, B, attr=("F",)),
    "call_scalar": node("call_scalar", A, B, attr=("G",)),
    "call_slope": node("call_slope", A, B, attr=("G", 1)),
}
NAMES = {name: Name(name, name) for name in ("a", "b", "s", "W", "x")}
READING = Reading((), NAMES, {}, frozenset("abx"), frozenset(), -1, None)


def sample(op: str) -> Node:
    if op in SAMPLES:
        return SAMPLES[op]
    return node(op, A, B) if OPS[op].arity == 2 else node(op, A)


@pytest.mark.parametrize("language", [Plain, Latex])
@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_spelling(op: str, language: type[Spelled]) -> None:
    shown = language(READING).show(sample(op))
    assert shown
    assert "#" not in shown and "%" not in shown


@pytest.mark.parametrize("language", [Plain, Latex])
def test_an_op_without_a_spelling_is_a_named_error(language: type[Spelled]) -> None:
    unknown = intern("frobnicate", (A,), (), H)
    with pytest.raises(BpttError, match="`frobnicate` has no spelling in"):
        language(READING).show(ops.add(unknown, A))


FORMULAS = {
    ops.matmul(ops.lower("H"), A): r"\operatorname{cumsum}(a_{t})",
    ops.matmul(ops.transpose(ops.lower("H")), A): r"\operatorname{rcumsum}(a_{t})",
    ops.matmul(ops.each("H", 3), A): r"\operatorname{repeat}(a_{t}, 3)",
    ops.mul(ops.fill(S, ("H", "H")), ops.eye("H")): r"s \, I_{H}",
    ops.mul(ops.add(A, B), A): r"(a_{t} + b_{t+1}) \odot a_{t}",
    ops.sub(A, ops.sub(A, B)): r"a_{t} - (a_{t} - b_{t+1})",
    ops.mul(S, A): r"s \, a_{t}",
    ops.mul(const(2), ops.mul(A, B)): r"2 \, (a_{t} \odot b_{t+1})",
    ops.div(A, ops.mul(B, A)): r"\frac{a_{t}}{b_{t+1} \odot a_{t}}",
    ops.power(ops.div(A, B), 2): r"\left(\frac{a_{t}}{b_{t+1}}\right)^{2}",
    ops.power(node("tanh", A), 2): r"\tanh^{2}(a_{t})",
    ops.power(ops.sub(A, B), 0.5): r"(a_{t} - b_{t+1})^{0.5}",
    ops.neg(ops.add(A, B)): r"-(a_{t} + b_{t+1})",
    ops.mul(A, ops.neg(B)): r"a_{t} \odot (-b_{t+1})",
    ops.matmul(ops.transpose(W), ops.mul(A, B)): r"W^{\top} \, (a_{t} \odot b_{t+1})",
    ops.mul(A, ops.matmul(W, X)): r"a_{t} \odot (W \, x_{t})",
    ops.dot(A, B): r"a_{t}^{\top} \, b_{t+1}",
    ops.mean(A): r"\operatorname{mean}(a_{t})",
    node("outer", ops.add(A, B), X): r"(a_{t} + b_{t+1}) \otimes x_{t}",
    const(1e-5): r"10^{-5}",
    const(2.5e-7): r"2.5 \cdot 10^{-7}",
    node("call_slope", A, B, attr=("G", 0)): r"\frac{\partial G}{\partial a}(a_{t}, b_{t+1})",
    node("call_pull", A, B, attr=("F",)): r"F'(a_{t})^{\top} \, b_{t+1}",
    node("call", A, attr=("f_ι", 1)): r"f_{\iota}'(a_{t})",
}


@pytest.mark.parametrize("root", FORMULAS, ids=list(FORMULAS.values()))
def test_what_a_formula_looks_like(root: Node) -> None:
    assert Latex(READING).show(root) == FORMULAS[root]


@pytest.mark.parametrize(
    ("name", "time", "formula"),
    [
        ("h", "", "h"),
        ("h", "t-1", "h_{t-1}"),
        ("W_i", "", "W_{i}"),
        ("W_ix", "", "W_{ix}"),
        ("b_i", "t", "b_{i,t}"),
        ("w_ι_s", "", r"w_{\iota,s}"),
        ("alpha", "t", r"\alpha_{t}"),
        ("γ", "", r"\gamma"),
        ("Λ_φ", "", r"\Lambda_{\phi}"),
        ("c̃", "t", r"\tilde{c}_{t}"),
        ("ĥ", "t", r"\hat{h}_{t}"),
        ("state", "t", r"\mathrm{state}_{t}"),
        ("out_gate", "", r"\mathrm{out}_{\mathrm{gate}}"),
        ("h0", "", "h^{(0)}"),
        ("W1_x", "", "W^{(1)}_{x}"),
        ("_", "", r"\_"),
    ],
)
def test_what_a_name_looks_like(name: str, time: str, formula: str) -> None:
    assert symbol(name, time) == formula


@pytest.mark.parametrize("name", [*cells.names(), *AWKWARD])
def test_the_whole_is_well_formed(name: str) -> None:
    cell = Cell(AWKWARD[name]) if name in AWKWARD else Cell.load(name)
    for by in ("preactivations", "gates"):
        shown = text(reading(cell.program, by))
        for block in re.findall(r"\\begin\{align\*\}\n(.*?)\n\\end\{align\*\}", shown, re.DOTALL):
            rows = [row.split("  % ")[0] for row in block.split("\n")]
            for row in rows[:-1]:
                assert row.endswith(r"\\"), row
            assert not rows[-1].endswith(r"\\")
            for row in rows:
                assert row.isascii(), row
                assert row.count("&") == 1, row
                assert row.count("{") == row.count("}"), row
                assert row.count(r"\left") == row.count(r"\right"), row
                assert re.sub(r"\\left|\\right", "", row).count("(") == row.count(")"), row
                assert "$" not in row and "#" not in row, row
