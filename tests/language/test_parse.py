"""Text to syntax tree: precedence, spans, tolerance, limits."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt.errors import CellError
from bptt.language.check import check
from bptt.language.parse import parse
from bptt.language.tree import Expr, postorder, said


def rhs(text: str) -> Expr:
    return parse(f"h[t] = {text}").lines[0].rhs


def bracketed(root: Expr) -> str:
    """Fully bracketed, so that the tree can be read."""
    done: dict[Expr, str] = {}
    for e in postorder(root):
        args = [done[a] for a in e.args]
        if e.op == "name":
            done[e] = e.name
        elif e.op == "number":
            done[e] = f"{e.value:g}"
        elif e.op == "neg":
            done[e] = f"(-{args[0]})"
        elif e.op == "call":
            done[e] = f"{e.name}({', '.join(args)})"
        elif e.op == "T":
            done[e] = f"{args[0]}.T"
        else:
            done[e] = f"({args[0]}{e.op}{args[1]})"
    return done[root]


OPERATORS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.MatMult: "@",
    ast.Pow: "**",
}


def bracketed_by_python(node: ast.expr) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Constant():
            return f"{node.value:g}"
        case ast.UnaryOp():
            return f"(-{bracketed_by_python(node.operand)})"
        case ast.BinOp():
            sign = OPERATORS[type(node.op)]
            return f"({bracketed_by_python(node.left)}{sign}{bracketed_by_python(node.right)})"
        case ast.Attribute():
            return f"{bracketed_by_python(node.value)}.T"
        case _:
            raise AssertionError(node)


expressions = st.recursive(
    st.sampled_from(["a", "b", "c.T", "2", "1.5"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(list(OPERATORS.values())), inner).map(" ".join),
        inner.map(lambda e: f"-{e}"),
        inner.map(lambda e: f"({e})"),
        inner.map(lambda e: f"({e}).T"),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(expressions)
def test_precedence_is_pythons(text: str) -> None:
    assert bracketed(rhs(text)) == bracketed_by_python(ast.parse(text, mode="eval").body)


def test_spans_point_into_the_text_as_written() -> None:
    text = "\ufeffĉ̃[t] = σ(Ｗ @ ｘ[t − 1]) ⊙ ĉ̃[t-1]\r\n"
    line = parse(text).lines[0]
    said_parts = {said(e.span) for e in postorder(line.rhs)}
    assert said_parts >= {"σ(Ｗ @ ｘ[t − 1])", "Ｗ", "ｘ[t − 1]", "ĉ̃[t-1]"}
    names = {e.name for e in postorder(line.rhs) if e.op == "name"}
    assert names == {"W", "x", "ĉ̃"}
    assert said(line.span) == "ĉ̃[t]"


def test_tabs_windows_line_ends_comments_and_blank_lines() -> None:
    tree = parse("# head\r\n\r\nh[t]\t=\ttanh(x[t])   # why = that\r\n   \t\r\ng[t] = h[t]")
    assert [line.origin for line in tree.lines] == ["h[t]\t=\ttanh(x[t])", "g[t] = h[t]"]
    assert tree.lines[1].span.line == 5


def test_keywords_are_names_too() -> None:
    tree = parse("state[t] = state[t-1] + input\noutput = 2\nloss[t] = output * state[t]")
    assert [line.name for line in tree.lines] == ["state", "output", "loss"]
    assert not tree.declarations


def test_blocks() -> None:
    tree = parse("cell:\nh[t] = x[t]\nreadout:\ny[t] = h[t]\nloss:\nL[t] = y[t]")
    assert [line.block for line in tree.lines] == ["cell", "readout", "loss"]


def test_declarations() -> None:
    tree = parse(
        "input x: X, s: S per sequence, u\nparam W: (4*H, X), k: scalar\n"
        "const dt = 0.5\nstate h: H = h0, m = -1e30\nfunction f, F: vector\ninit b = 1\nh[t] = x[t]"
    )
    shown = [
        (d.word, d.name, d.sizes and len(d.sizes.dims), d.value is not None, d.per_sequence, d.kind)
        for d in tree.declarations
    ]
    assert shown == [
        ("input", "x", 1, False, False, ""),
        ("input", "s", 1, False, True, ""),
        ("input", "u", None, False, False, ""),
        ("param", "W", 2, False, False, ""),
        ("param", "k", 0, False, False, ""),
        ("const", "dt", None, True, False, ""),
        ("state", "h", 1, True, False, ""),
        ("state", "m", None, True, False, ""),
        ("function", "f", None, False, False, ""),
        ("function", "F", None, False, False, "vector"),
        ("init", "b", None, True, False, ""),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("h[t] = " + "(" * 201 + "x[t]" + ")" * 201, "brackets are nested more than 200 deep"),
        ("h[t] = " + "(" * 10_000, "brackets are nested more than 200 deep"),
        ("h[t] = " + "-" * 30_000 + "x[t]", "the text has more than 20000 operations and names"),
        ("h[t] = x[t]" + "+x[t]" * 10_001, "the text has more than 20000 operations and names"),
        ("h[t] = x[t]\n" * 501, "there are more than 500 equations"),
        ("#" * 70_000, "the text is larger than 64 KiB"),
        ("# " + "é" * 40_000, "the text is larger than 64 KiB"),
        ("h[t] = " + "9" * 5_000, "the number `" + "9" * 5_000 + "` is too large"),
        ("h[t] = x[t-" + "9" * 6_000 + "]", "`x` is read 999999999 steps back"),
        ("h[t] = x\x00[t]", "unexpected character U+0000"),
        ("h[t] = x\ud800[t]", "unexpected character U+D800"),
        ("h[t] = x[t]\rg[t] = x[t]", "a line ends in a carriage return alone"),
    ],
    ids=lambda v: v[:24] if isinstance(v, str) else "any",
)
def test_limits_and_odd_bytes(text: str, what: str) -> None:
    with pytest.raises(CellError) as caught:
        check(text)
    assert caught.value.what == what


def test_two_hundred_brackets_and_long_sums_are_fine() -> None:
    parse("h[t] = " + "(" * 200 + "x[t]" + ")" * 200)
    parse("h[t] = x[t]" + "+x[t]" * 9_000)
