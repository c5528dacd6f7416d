"""The `backward:` block: what its lines mean as trees, and what is said of those that cannot be."""

from __future__ import annotations

import pytest

from bptt.errors import CellError
from bptt.language.hand import Hand, everything, read
from bptt.language.parse import parse
from bptt.language.tree import Expr, said

CELL = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"


def hand(*lines: str) -> Hand:
    found = parse(CELL + "backward:\n" + "\n".join(lines)).hand
    assert found is not None
    return found


def right(text: str) -> Expr:
    return hand(f"q = {text}").lines[0].right


def spelled(e: Expr) -> str:
    """A tree with its operations in front."""
    inner = ", ".join(map(spelled, e.args))
    match e.op:
        case "number":
            return f"{e.value:g}"
        case "name":
            return e.name if e.lag is None else f"{e.name}<{-e.lag}>"
        case "fixed" | "last":
            return f"{e.name}<{e.op} {e.lag}>"
        case "call":
            return f"{e.name}{chr(39) * e.order}({inner})"
        case _:
            return f"{e.op}({inner})"


TREES = {
    # time
    "h": "h",
    "h[t]": "h<0>",
    "h[t-1]": "h<-1>",
    "h[t+1]": "h<1>",
    "h[t + 12]": "h<12>",
    "h[-1]": "h<fixed -1>",
    "h[0]": "h<fixed 0>",
    "h[7]": "h<fixed 7>",
    "h[T]": "h<last 0>",
    "h[T-1]": "h<last 1>",
    "h[T+1]": "h<last -1>",
    # operators, with Python's precedence
    "a + b*c - d": "-(+(a, *(b, c)), d)",
    "-a**2": "neg(**(a, 2))",
    "W.T @ g[t]": "@(T(W), g<0>)",
    "(a + b).T": "T(+(a, b))",
    "a @ b.T": "@(a, T(b))",
    "1 - y[t]**2": "-(1, **(y<0>, 2))",
    # functions and their derivatives
    "sum_t(outer(g[t], x[t]))": "sum_t(outer(g<0>, x<0>))",
    "f'(a[t])": "f'(a<0>)",
    "f''(a)": "f''(a)",
    "concat(a, b, 1)": "concat(a, b, 1)",
    "jac(h[t], h[t-1])": "jac(h<0>, h<-1>)",
    "σ(a)": "σ(a)",
    # parts
    "W[:X, :]": "slice(W, span(end(), X), span(end(), end()))",
    "W[X:X+H, 1:]": "slice(W, span(X, +(X, H)), span(1, end()))",
    "b[0:2]": "slice(b, span(0, 2))",
    "g[t][:H]": "slice(g<0>, span(end(), H))",
    "b[:H][1:]": "slice(slice(b, span(end(), H)), span(1, end()))",
    # signs that papers use
    "a ⊙ b − c": "-(*(a, b), c)",
    "δh[t]": "δh<0>",
}


@pytest.mark.parametrize("text", TREES)
def test_expressions(text: str) -> None:
    assert spelled(right(text)) == TREES[text]
    assert said(right(text).span) == text


def test_a_line_has_two_sides() -> None:
    (line,) = hand("d_h[t-1] = a + b").lines
    assert (spelled(line.left), spelled(line.right)) == ("d_h<-1>", "+(a, b)")
    assert (line.when, line.adds, line.more) == ("", False, False)
    assert said(line.span) == "d_h[t-1] = a + b"


def test_lines_hold_at_the_steps_that_their_heading_says() -> None:
    lines = hand(
        "a[t] = 1",
        "at t = T:",
        "b[t] = 1",
        "b[t] = 2",
        "before t = T:",
        "c[t] = 1",
        "at every t:",
        "d[t] = 1",
    ).lines
    assert [line.when for line in lines] == ["", "last", "last", "earlier", ""]


def test_several_right_sides() -> None:
    lines = hand("g[t] = a = b", "= c", "  = d = e", "k = 1").lines
    assert [(spelled(x.left), spelled(x.right), x.more) for x in lines] == [
        ("g<0>", "a", True),
        ("g<0>", "b", True),
        ("g<0>", "c", True),
        ("g<0>", "d", True),
        ("g<0>", "e", False),
        ("k", "1", False),
    ]


def test_a_line_that_goes_on_keeps_what_its_first_row_says() -> None:
    lines = hand("at t = T:", "d_b += g", "= k").lines
    assert [(x.when, x.adds, x.left.name) for x in lines] == [("last", True, "d_b")] * 2


def test_sums_that_add_up() -> None:
    lines = hand("d_W += outer(g[t], x[t])", "d_W = 1").lines
    assert [line.adds for line in lines] == [True, False]


def test_meanings() -> None:
    found = hand("means: g[t] = dz_h[t], G = stack(d_W, d_U)", "means: k = d_b")
    assert [(spelled(m.left), spelled(m.right)) for m in found.meanings] == [
        ("g<0>", "dz_h<0>"),
        ("G", "stack(d_W, d_U)"),
        ("k", "d_b"),
    ]
    assert found.lines == ()


def test_comments_and_empty_rows_are_nothing() -> None:
    assert len(hand("# a remark", "", "q = 1  # another", "   ").lines) == 1


def test_lines_know_their_place() -> None:
    first, second = hand("", "q = a", "r = bb").lines
    assert (first.right.span.line, second.right.span.line) == (4, 5)
    assert (second.right.span.start, second.right.span.end) == (4, 6)


def test_a_text_without_a_block_has_none() -> None:
    assert parse(CELL).hand is None
    assert hand().lines == ()


def test_the_block_is_the_last() -> None:
    with pytest.raises(CellError, match="stands after `backward:`"):
        parse(CELL + "backward:\nq = 1\nloss:\nE[t] = h[t]\n")


def test_the_machines_own_lines() -> None:
    found = read(["a[t] = b[t+1]", "c = 2"])
    assert [spelled(line.right) for line in found.lines] == ["b<1>", "2"]
    assert found.source == "a[t] = b[t+1]\nc = 2"


def test_values_are_found_and_sizes_are_not() -> None:
    names = [e.name for e in everything(right("W[:X, :] @ fill(a, H) + part(b, 1, n)"))]
    assert [name for name in names if len(name) == 1] == ["W", "a", "b"]
    order = [e.op for e in everything(right("a + b*c"))]
    assert order == ["name", "name", "name", "*", "+"]


# text: what is said, of which part of it, and a word of the help
ERRORS = {
    "q'[t+1]' = 1": ("expected `=` here, found `'`", "'", "a line is"),
    "q = f'": ("`f'` stands without an argument", "f", "`f'(v)`"),
    "q = f' + 1": ("`f'` stands without an argument", "f", "`f'(v)`"),
    "q = W[:X": ("expected `]` here", "X", ""),
    "q = W[:X, :, :]": ("a value has at most two axes", "W[:X, :, :]", ""),
    "q = W[X]": ("`W[X]` is neither a time nor a part", "W[X]", "`W[:X]`"),
    "q = W[:W[:X]]": ("a part within a size", "[", ""),
    "q = h[t-1.5]": ("`h[t-1.5]` is neither a time nor a part", "h[t-1.5]", "`h[t]`, `[t+1]`"),
    "means: g[t+1] = d_h[t]": ("a meaning is given at the step `t`", "g[t+1]", "`means: g[t]"),
    "means: g[-1] = d_h[t]": ("a meaning is given at the step `t`", "g[-1]", "`means: g[t]"),
    "means: g": ("expected `=` here", "g", "`means: g = d_h`"),
    "means:": ("expected a name here", ":", ""),
    "means: g = d_h,": ("expected a name here", ",", ""),
    "t = 1": ("`t` is time", "t", "give the value a name"),
    "T[t] = 1": ("`T` is time", "T[t]", "give the value a name"),
    "d_h[t]": ("expected `=` here", "]", "a line is"),
    "d_h[t] == 1": ("expected `=` here, found `==`", "==", "a line is"),
    "d_h[t] += 1": ("`+=` to a value that has a time", "d_h[t]", "`d_W += outer(...)`"),
    "= 1": ("`=` goes on with no line before it", "=", "a line is"),
    "+ 1": ("a line cannot begin with `+`", "+", "a line is"),
    "1 = q": ("a line cannot begin with `1`", "1", "a line is"),
    "q = 1)": ("expected the end of the line here, found `)`", ")", ""),
    "q = a b": ("two values side by side, with no operator before `b`", "b", "`*`"),
    "q =": ("expected a value here: the line ends", "=", ""),
    "q = (a": ("`(` is never closed", "(", ""),
    "q = $a": ("unexpected character `$`", "$", ""),
    "q = a ^ 2": ("unexpected character `^`", "^", "`x**2`"),
    "at t = T": ("expected `=` here, found `t`", "t", "`at t = T:`"),
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors(text: str) -> None:
    what, part, help = ERRORS[text]
    with pytest.raises(CellError) as caught:
        hand(text)
    error = caught.value
    assert error.span is not None
    assert (error.what, said(error.span), error.span.line) == (what, part, 3)
    assert help in (error.help or "")
