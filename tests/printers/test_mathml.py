"""MathML has every sign that LaTeX has, is well-formed, and lets no stranger's text through."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from awkward import AWKWARD
from printers.test_latex import READING, A, B, S, W, X, sample

from bptt import cells
from bptt.cell import Cell
from bptt.errors import BpttError
from bptt.ir import ops
from bptt.ir.ops import OPS, const, node
from bptt.ir.program import Node, intern
from bptt.printers.people import mathml
from bptt.printers.people.mathml import MathML, equals, symbol
from bptt.printers.people.mathml_figures import Figures, Here
from bptt.printers.people.reading import forward, reading

# What MathML Core has of what we use; and `wbr`, which is HTML.
ELEMENTS = set(
    "math mrow mi mn mo mtext mspace mfrac msqrt msup msub msubsup mover munder mtable mtr mtd"
    " wbr".split()
)
CHILDREN = {"mfrac": 2, "msup": 2, "msub": 2, "msubsup": 3, "mover": 2, "munder": 2}


def parsed(text: str) -> ElementTree.Element:
    """A piece of MathML, whose elements all have as many children as they must."""
    root = ElementTree.fromstring(f"<math>{text}</math>")
    for element in root.iter():
        assert element.tag in ELEMENTS, element.tag
        assert len(element) == CHILDREN.get(element.tag, len(element)), element.tag
        if len(element):
            assert not (element.text or "").strip(), "text beside elements"
        assert not (element.tail or "").strip(), "text beside elements"
    return root


def said(text: str) -> str:
    """The letters and signs of a piece, without its elements."""
    return "".join(parsed(text).itertext()).replace("\u2061", "")


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_spelling(op: str) -> None:
    assert said(MathML(READING).show(sample(op)))


def test_an_op_without_a_spelling_is_a_named_error() -> None:
    unknown = intern("frobnicate", (A,), (), ("H",))
    with pytest.raises(BpttError, match="`frobnicate` has no spelling in MathML"):
        MathML(READING).show(ops.add(unknown, A))


FORMULAS: dict[Node, str] = {
    ops.matmul(ops.lower("H"), A): "cumsum(at)",
    ops.matmul(ops.each("H", 3), A): "repeat(at,3)",
    ops.mul(ops.fill(S, ("H", "H")), ops.eye("H")): "sIH",
    ops.mul(ops.add(A, B), A): "(at+bt+1)⊙at",
    ops.sub(A, ops.sub(A, B)): "at−(at−bt+1)",
    ops.mul(S, A): "sat",
    ops.mul(const(2), ops.mul(A, B)): "2(at⊙bt+1)",
    ops.power(node("tanh", A), 2): "tanh2(at)",
    ops.power(ops.sub(A, B), 0.5): "(at−bt+1)0.5",
    ops.neg(ops.add(A, B)): "−(at+bt+1)",
    ops.mul(A, ops.neg(B)): "at⊙(−bt+1)",
    ops.matmul(ops.transpose(W), ops.mul(A, B)): "W⊤(at⊙bt+1)",
    ops.dot(A, B): "at⊤bt+1",
    ops.mean(A): "mean(at)",
    node("sqrt", A): "at",
    node("abs", A): "|at|",
    node("outer", ops.add(A, B), X): "(at+bt+1)⊗xt",
    ops.concat(A, S): "[at;s]",
    ops.block(A, (1, ops.add_dims("H", -1))): "at[1:H]",
    ops.size(ops.add_dims(ops.scale_dim("H", 2), -1)): "2H−1",
    const(1e-5): "10−5",
    const(2.5e-7): "2.5·10−7",
    const(float("inf")): "∞",
    node("call_slope", A, B, attr=("G", 0)): "∂G∂a(at,bt+1)",
    node("call_pull", A, B, attr=("F",)): "F′(at)⊤bt+1",
    node("call", A, attr=("f_ι", 2)): "fι′′(at)",
}


@pytest.mark.parametrize("root", FORMULAS, ids=list(FORMULAS.values()))
def test_what_a_formula_says(root: Node) -> None:
    assert said(MathML(READING).show(root)) == FORMULAS[root]


def test_a_fraction_a_root_and_a_power_are_elements_of_their_own() -> None:
    shown = parsed(MathML(READING).show(ops.div(node("sqrt", A), ops.mul(B, A))))
    assert [e.tag for e in shown] == ["mfrac"]
    assert [e.tag for e in shown[0][0].iter()][:3] == ["mrow", "msqrt", "msub"]
    # the exponent stands over the index, not behind it
    assert [e.tag for e in parsed(MathML(READING).show(ops.power(A, 2)))] == ["msubsup"]
    # a minus that begins an expression is the sign of a number, and stands close to it
    assert [e.tag for e in parsed(MathML(READING).show(ops.neg(A)))] == ["mrow"]


@pytest.mark.parametrize(
    ("name", "time", "shown"),
    [
        ("h", "", "<mi>h</mi>"),
        ("h", "t-1", "<msub><mi>h</mi><mrow><mi>t</mi><mo>−</mo><mn>1</mn></mrow></msub>"),
        ("h", "-1", "<msub><mi>h</mi><mrow><mrow><mo>−</mo><mn>1</mn></mrow></mrow></msub>"),
        ("h", "12", "<msub><mi>h</mi><mn>12</mn></msub>"),
        ("W_ix", "", "<msub><mi>W</mi><mrow><mi>i</mi><mi>x</mi></mrow></msub>"),
        ("w_ι_s", "", "<msub><mi>w</mi><mrow><mi>ι</mi><mo>,</mo><mi>s</mi></mrow></msub>"),
        ("alpha", "t", "<msub><mi>α</mi><mi>t</mi></msub>"),
        ("Lambda", "", "<mi>Λ</mi>"),
        ("Gamma", "", "<mi>Γ</mi>"),
        ("c̃", "", '<mrow><mover accent="true"><mi>c</mi><mo>~</mo></mover></mrow>'),
        ("ĥ", "", '<mrow><mover accent="true"><mi>h</mi><mo>^</mo></mover></mrow>'),
        ("state", "t", "<msub><mi>state</mi><mi>t</mi></msub>"),
        ("W_1", "", "<msub><mi>W</mi><mn>1</mn></msub>"),
        ("h0", "", None),
        ("iʹ", "t", None),
        ("_", "", "<mi>_</mi>"),
    ],
)
def test_what_a_name_looks_like(name: str, time: str, shown: str | None) -> None:
    found = symbol(name, time)
    if shown is not None:
        assert found == shown
    assert parsed(found) is not None


def test_numbers_and_primes_of_names_stand_above() -> None:
    assert said(symbol("h0")) == "h(0)"
    assert parsed(symbol("h0"))[0].tag == "msup"
    assert said(symbol("i\u02b9", "t")) == "it′"
    assert parsed(symbol("i\u02b9", "t"))[0].tag == "msubsup"


NASTY = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b", "<!--", "]]>")


@pytest.mark.parametrize("name", NASTY)
def test_names_are_escaped(name: str) -> None:
    """No text of a cell can hold such a name; a Reading that somebody builds can."""
    shown = symbol(name, "t") + symbol(f"W_{name}") + mathml.leaf("mi", name)
    assert "<script" not in shown and "<img" not in shown and "<!--" not in shown
    parsed(shown)
    call = node("call", A, attr=(name, 1))
    parsed(MathML(READING).show(call))
    assert said(mathml.leaf("mi", name)) == name


@pytest.mark.parametrize("name", [*cells.names(), *AWKWARD])
def test_the_whole_is_well_formed(name: str) -> None:
    cell = Cell(AWKWARD[name]) if name in AWKWARD else Cell.load(name)
    for found in (forward(cell.program), reading(cell.program), reading(cell.program, "gates")):
        printer = MathML(found)
        for line in found.lines:
            shown = printer.equation(line)
            parsed(shown)
            assert "$" not in shown, line.name
            # brackets are closed where they are opened
            assert all(shown.count(f">{a}<") == shown.count(f">{b}<") for a, b in ("()", "[]"))


def test_an_equation_may_be_broken_before_signs_only() -> None:
    terms = MathML(READING).between(ops.sub(ops.add(A, B), A))
    first, *later = re.findall("<math.*?</math>", equals(terms))
    assert said(first[len('<math displaystyle="true">') : -len("</math>")]) == "=at"
    assert [re.findall('<mo form="infix">(.)</mo>', m) for m in later] == [["+"], ["−"]]
    factor = "<mrow>" + "<mi>a</mi>" * 30 + "</mrow>"
    long = f"{factor}<mo>⊙</mo>{factor}<mo>×</mo><mrow><mi>b</mi><mo>×</mo><mi>c</mi></mrow>"
    assert equals([long]).count("<math") == 3
    assert equals(["<mi>a</mi><mo>⊙</mo><mi>b</mi>"]).count("<math") == 1


# --- with numbers -------------------------------------------------------------------------------


def figures(text: str, **values: object) -> list[str]:
    """What the lines of a cell say with numbers at the first step."""
    worked = Cell(text).trace(values)
    printer = Figures(worked.forward).given(worked, 5)
    return [said("".join(printer.right_at(item))) for item in worked.steps if item.t in (0, None)]


def test_numbers_are_put_in() -> None:
    assert figures(
        "h[t] = W @ x[t] + u * h[t-1]\n",
        inputs={"x": [[1, 2]]},
        parameters={"W": [[0.5, -0.25]], "u": [3]},
        states={"h": [-2]},
    ) == ["[0.5−0.25][12]+3×(−2)"]


def test_a_matrix_beside_a_single_number_is_multiplied_with_a_sign() -> None:
    found = figures(
        "h[t] = W @ x[t] + h[t-1]\n",
        inputs={"x": [[3]]},
        parameters={"W": [[4], [5]]},
        states={"h": [0, 0]},
    )
    assert found == ["[45]×3+[00]"]


def test_a_vector_is_a_column_and_a_long_one_is_shortened() -> None:
    count = 30
    text = "input x: H\nh[t] = 2*x[t] + 0*h[t-1]\n"
    worked = Cell(text).trace({"inputs": {"x": [list(range(count))]}})
    shown = parsed(Figures(worked.forward).given(worked, 5).right_at(worked.steps[0])[0])
    rows = shown.findall(".//mtr")
    assert ["".join(row.itertext()) for row in (rows[0], rows[1], rows[-1])] == ["0", "1", "29"]
    assert len(rows) < count
    assert "⋮" in "".join(shown.itertext())


def test_parts_put_together_are_one_column_and_a_dot_product_has_a_row() -> None:
    found, _ = figures(
        "s[t] = dot(w, concat(x[t], 1))\nh[t] = s[t] + h[t-1]\n",
        inputs={"x": [[1, 2]]},
        parameters={"w": [4, 5, 6]},
    )
    assert found == "[456][121]"


def test_large_and_small_numbers_have_powers_of_ten() -> None:
    found = figures(
        "param w: scalar\nh[t] = w * h[t-1]\n", parameters={"w": 2.5e-9}, states={"h": -1e30}
    )
    assert found == ["2.5·10−9×(−1030)"]


def test_lines_at_a_step_have_its_number() -> None:
    worked = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])\n").trace(length=3)
    item = next(i for i in worked.steps if i.t == 2)
    here = Here(worked.forward)
    assert said(here.left_at(item)) == "h2"
    assert said("".join(here.right_at(item))) == "tanh(Wx2+Uh1)"


def test_the_sum_of_many_steps_is_shortened() -> None:
    worked = Cell("input x: H\nh[t] = tanh(x[t] + b - h[t-1])\n").trace(length=9)
    item = next(i for i in worked.back if i.of == "b")
    pieces = Figures(worked.backward).given(worked, 5).right_at(item)
    assert "…" in said("".join(pieces))
    assert len(pieces) < worked.length
