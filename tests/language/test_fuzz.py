"""Whatever the text, the answer is a Checked or a CellError, soon and in little memory.

`BPTT_EXAMPLES=100000 pytest tests/language/test_fuzz.py` looks at so many texts of every kind,
and at the time that each one takes.
"""

from __future__ import annotations

import re
import time
import tracemalloc

import pytest
from awkward import AWKWARD
from hypothesis import given
from hypothesis import strategies as st
from language.slips import SLIPS
from random_cells import LONG, cells, examples

from bptt import cells as library
from bptt.calculus.derive import derive
from bptt.errors import CellError
from bptt.ir.program import Program
from bptt.language.canonical import read
from bptt.language.check import Checked, check
from bptt.language.head import about
from bptt.language.terms import FUNCTIONS, MACHINE_FUNCTIONS
from bptt.printers.text import text

# What one text may take. Only the long run looks at the clock: CI's machines may be busy.
SECONDS = 20
BYTES = 256 * 2**20


# --- texts ----------------------------------------------------------------------------------------

WORDS = (
    "h[t] h[t-1] c[t] c[t-1] x[t] x[t-1] y[t] [t+1] [t-2] [t] t W U b k h c x = + - * / ** @ ( ) ,"
    " . .T : [ ] ' # \\ { $ == += 0 1 2 0.5 .5 1. 1e9 1e-30 1e400 0x1 9**9 H X 4*H (H,X) scalar per"
    " sequence input param state const init output function elementwise vector cell: readout: loss:"
    " backward: f( g(v) g(v,w) f_c σ( ⊙ − é ² ĉ sweep emit let loss uniform( normal( glorot"
    " orthogonal identity"
).split()
CALLS = [f"{name}(" for name in (*FUNCTIONS, *MACHINE_FUNCTIONS)]
CLOSED = "part(h[t],1,2) rows(W,2,2) repeat(x[t],2) eye(H) concat(x[t],h[t-1],1) A = W - W.T"
ODD = [
    *"\x00\x07\x0b\x0c\x1c\x85\xa0\xad\u200b\u200d\u2028\u2029\u202e\u2066\ufeff\ufffd\uffff",
    *"\u0301\u0338\u20d7\ufe0f\ud800\udfff𝐖ＷﬀﬃKÅⅣ①٣²ₜᵀ½µ¼؀ß",
    "\r",
    "\r\n",
    "\n",
    "\t",
    "ﷺ",
    "👩‍👩‍👧",
    "e\u0301" * 3,
    "A" * 300,
]
WRITTEN = (*map(library.read, library.names()), *SLIPS.values(), *AWKWARD.values())
TOKEN = re.compile(r"\s+|\w+(?:\[t(?: ?- ?1)?\])?\(?|.", re.DOTALL)
KINDS = [
    re.compile(kind) for kind in (r"\w+\(", r"\w+\[.*\]", r"[\d.]+", r"[^\W\d]\w*", r"[-+*/@]")
]

words = st.sampled_from((*WORDS, *CALLS, CLOSED, "\n", "\n"))
soups = st.builds(str.join, st.sampled_from((" ", "")), st.lists(words, max_size=40))
anything = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=80),
    st.binary(max_size=80).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")),
    st.binary(max_size=80).map(lambda raw: raw.decode("utf-16", "replace")),
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[str], put: st.SearchStrategy[str]) -> str:
    """A text with a few of its tokens or lines deleted, doubled, swapped or replaced."""
    source = draw(whole)
    for by_line in draw(st.lists(st.booleans(), min_size=1, max_size=5)):
        parts = source.splitlines(keepends=True) if by_line else TOKEN.findall(source)
        k, other = (draw(st.integers(0, max(0, len(parts) - 1))) for _ in range(2))
        match draw(st.sampled_from(("delete", "double", "swap", "replace", "put", "cut"))):
            case "delete":
                del parts[k : k + 1]
            case "double":
                parts[k:k] = parts[k : k + 1]
            case "swap" if parts:
                parts[k], parts[other] = parts[other], parts[k]
            case "replace":
                parts[k : k + 1] = [draw(put)]
            case "put":
                parts[k:k] = [draw(put)]
            case _:
                parts = parts[: k + 1]
        source = "".join(parts)
    return source


@st.composite
def mistaken(draw: st.DrawFn, whole: st.SearchStrategy[str]) -> str:
    """A text in which a few words stand for others of their kind: it is spelled well."""
    parts = TOKEN.findall(draw(whole))
    for k in draw(st.lists(st.integers(0, max(0, len(parts) - 1)), max_size=4)):
        kind = next((kind for kind in KINDS if parts and kind.fullmatch(parts[k])), None)
        if kind is not None:
            others = [part for part in parts if kind.fullmatch(part)]
            parts[k] = draw(st.sampled_from((*others, *filter(kind.fullmatch, WORDS))))
    return "".join(parts)


ONE = "tanh exp log sqrt relu abs sum mean max softmax log_softmax cumsum concat f - F".split()
TWO = "max min dot outer concat cross_entropy m F".split()
atoms = st.sampled_from("x[t] h[t-1] c[t-1] a[t] b k W U A s y[t] x[t-1] 1 2.5 v g".split())
values = st.recursive(
    atoms,
    lambda value: st.one_of(
        st.builds("({} {} {})".format, value, st.sampled_from("+-*/@"), value),
        st.builds("{}({})".format, st.sampled_from(ONE), value),
        st.builds("{}({}, {})".format, st.sampled_from(TWO), value, value),
        st.builds("{}({}, 1, 2)".format, st.sampled_from(("part", "rows", "cols")), value),
        st.builds("repeat({}, {})".format, value, st.integers(0, 4)),
        st.builds("({}){}".format, value, st.sampled_from((".T", "**2", "**-0.5", ".T.T"))),
        st.just("eye(H)"),
    ),
    max_leaves=6,
)
dims = st.sampled_from("H X scalar (H,X) (H,H) 2*H H+X+1 1 7 (2*H,X) 2*H-X".split())
said = st.one_of(
    st.builds("{}[t] = {}".format, st.sampled_from("a c h y".split()), values),
    st.builds("{} = {}".format, st.sampled_from("A s".split()), values),
    st.builds("m(v, w) = {}".format, values),
    st.builds("f(v) = {}".format, values),
    st.builds("input {}: {}".format, st.sampled_from("x y".split()), dims),
    st.builds("input s: {} per sequence".format, dims),
    st.builds("param {}: {}".format, st.sampled_from("b k W U A".split()), dims),
    st.builds("state {}: {}".format, st.sampled_from("h c".split()), dims),
    st.builds("state {} = {}".format, st.sampled_from("h c".split()), atoms),
    st.builds("const {} = {}".format, st.sampled_from("k A".split()), st.sampled_from("12b")),
    st.builds("init {} = {}".format, st.sampled_from("b W".split()), values),
    st.sampled_from(("function F: scalar", "function F: vector", "output h", "output a, c")),
)
sentences = st.lists(said, max_size=8, unique_by=lambda line: line.split(":")[0].split(" = ")[0])
sentences = sentences.map("\n".join)

written = st.sampled_from(WRITTEN)
texts = st.one_of(
    mistaken(st.one_of(written, cells())),
    sentences,
    st.builds("{}\nh[t] = {} + 0.5*h[t-1]".format, sentences, values),
    damaged(written, words),
    damaged(written, st.sampled_from(ODD)),
    damaged(cells(), words),
    st.one_of(soups, anything),
)


# --- what must hold -------------------------------------------------------------------------------


def answer(source: str, printed: bool = True) -> Checked | None:
    """What `check` says, None for a CellError that can be shown."""
    start = time.process_time()
    about(source)
    try:
        found = check(source)
    except CellError as error:
        found = None
        shown(error, source)
    if found is not None and printed:
        canonical = text(found.program)
        assert text(read(canonical)) == canonical
    took = time.process_time() - start
    assert not LONG or took < SECONDS, f"{took:.0f} s"
    return found


def shown(error: CellError, *sources: str) -> None:
    """An error can be shown, and points into a text."""
    assert str(error).startswith("error: ")
    assert str(error).encode("utf-8", "replace")
    for span in (*([error.span] if error.span else []), *(at for at, _ in error.notes)):
        assert span.source in sources
        line = span.source.split("\n")[span.line - 1]
        assert 0 <= span.start <= span.end <= len(line), span


@examples(400)
@given(texts)
def test_any_text_is_a_cell_or_a_cell_error(source: str) -> None:
    answer(source)


CANONICAL = [text(derive(check(library.read(name)).program)) for name in ("gru_cho", "peephole")]
CANONICAL += [text(check(source).program) for source in AWKWARD.values()]


@examples(150)
@given(st.one_of(damaged(st.sampled_from(CANONICAL), words), soups, anything))
def test_any_text_is_a_program_or_a_cell_error(source: str) -> None:
    """The same for the machine's dialect, which stands in exported graphs."""
    start = time.process_time()
    try:
        found = read(source)
    except CellError as error:
        shown(error, source)
    else:
        assert isinstance(found, Program)
        assert text(read(text(found))) == text(found)
    assert not LONG or time.process_time() - start < SECONDS


OPEN = """\
function f, F: vector, G: scalar
g(v) = F(f(v))
h[t] = g(W @ x[t] + U @ h[t-1])
L[t] = G(h[t], y[t], k)
"""
bindings = st.one_of(
    st.sampled_from((*FUNCTIONS, "σ", "g", "F", "f(v) = F(v)", "f(v, w, x) = dot(v, w)*x")),
    st.builds("f({}) = {}".format, st.sampled_from(("", "v", "v, w, x", "v, v")), values),
    anything,
)


@examples(100)
@given(st.dictionaries(st.sampled_from("fFGgh"), bindings, max_size=3))
def test_any_binding_is_a_cell_or_a_cell_error(bound: dict[str, str]) -> None:
    try:
        check(OPEN, functions=bound)
    except CellError as error:
        made = [f"{name}({v}) = {f}({v})" for name, f in bound.items() for v in ("v", "v, w")]
        shown(error, OPEN, *bound.values(), *made)


# --- hard cases, by name --------------------------------------------------------------------------

RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"
SCALAR = "state h: scalar\n"


def doubling(body: str) -> str:
    """Definitions that each use the one before twice, forty times."""
    lines = ["f0(v) = tanh(v)"]
    lines += [f"f{k}(v) = {body.replace('f', f'f{k - 1}')}" for k in range(1, 41)]
    return "\n".join([*lines, "input x: H", "h[t] = f40(x[t]) + h[t-1]"])


def chained(line: str, count: int, last: str) -> str:
    """Lines numbered from 1: # stands for the number, ~ for that of the line before."""
    lines = [line.replace("#", str(k)).replace("~", str(k - 1)) for k in range(1, count + 1)]
    return "\n".join([*lines, last])


HARD: dict[str, str] = {
    # brackets and operators
    "ten thousand brackets": "h[t] = " + "(" * 10_000 + "h[t-1]" + ")" * 10_000,
    "ten thousand open brackets": "h[t] = " + "(" * 10_000,
    "ten thousand closed brackets": "h[t] = h[t-1]" + ")" * 10_000,
    "ten thousand square brackets": "h" + "[" * 10_000 + "t" + "]" * 10_000,
    "two hundred brackets": SCALAR + "h[t] = " + "(" * 200 + "h[t-1]" + ")" * 200,
    "two hundred calls": SCALAR + "h[t] = " + "tanh(" * 200 + "h[t-1]" + ")" * 200,
    "two hundred and one calls": "h[t] = " + "tanh(" * 201 + "h[t-1]" + ")" * 201,
    "ten thousand signs": SCALAR + "h[t] = " + "-" * 10_000 + "h[t-1]",
    "twenty thousand signs": "h[t] = " + "-" * 20_000 + "h[t-1]",
    "eight thousand terms": SCALAR + "h[t] = h[t-1]" + "+h[t-1]" * 8_000,
    "nine thousand factors": SCALAR + "h[t] = h[t-1]" + "*h[t-1]" * 9_000,
    "nearly ten thousand terms": SCALAR + "h[t] = h[t-1]" + "+1" * 9_990,
    "more than ten thousand terms": SCALAR + "h[t] = h[t-1]" + "+1" * 10_010,
    "a tower of powers": SCALAR + "h[t] = h[t-1]" + "**2" * 5_000,
    "a tower of powers of powers": SCALAR + "h[t] = " + "(" * 150 + "h[t-1]" + "**2)" * 150,
    "a tower with signs": SCALAR + "h[t] = h[t-1]" + "**-1" * 5_000,
    "ten thousand transposes": "param W: (H, H)\nh[t] = W" + ".T" * 10_000 + " @ h[t-1]",
    "nine thousand transposes": "param W: (H, H)\nh[t] = W" + ".T" * 9_001 + " @ h[t-1]",
    "six thousand products": "param W: (H, H)\nh[t] = " + "W @ " * 6_000 + "h[t-1]",
    "six thousand matrices": "param W: (H, H)\nA = W" + " @ W" * 6_000 + "\nh[t] = A @ h[t-1]",
    "ten thousand arguments": "h[t] = part(concat(h[t-1]" + ", 1" * 9_000 + "), 1, 2)",
    "ten thousand values": "state h: H\nh[t] = W @ concat(h[t-1]" + ", x[t]" * 9_000 + ")",
    # numbers
    "a huge exponent": SCALAR + "h[t] = h[t-1]**1e300",
    "a huge negative exponent": SCALAR + "h[t] = h[t-1]**-1e300",
    "an exponent too large": SCALAR + "h[t] = h[t-1]**1e999",
    "a whole number with ten thousand digits": SCALAR + "h[t] = h[t-1]**" + "9" * 10_000,
    "a fraction with ten thousand digits": SCALAR + "h[t] = h[t-1] + 0." + "1" * 10_000,
    "a number with a long exponent": SCALAR + "h[t] = h[t-1] + 1e-" + "9" * 10_000,
    "a lag with ten thousand digits": "h[t] = h[t-" + "9" * 10_000 + "]",
    "the smallest number": SCALAR + "h[t] = h[t-1] + 5e-324 - 1e-400",
    "the largest number": SCALAR + "h[t] = h[t-1] + 1.7976931348623157e308",
    # sizes
    "a size of a billion": "state h: 999999999*H\nh[t] = tanh(h[t-1])",
    "a size beyond a billion": "state h: 9999999999*H\nh[t] = tanh(h[t-1])",
    "sizes that multiply": "state h: 99999*(99999*(99999*H))\nh[t] = tanh(h[t-1])",
    "a size that is not whole": "state h: 1e-30*H\nh[t] = tanh(h[t-1])",
    "a negative size": "state h: H - 2*H\nh[t] = tanh(h[t-1])",
    "a size of nothing": "state h: H - H\nh[t] = tanh(h[t-1])",
    "a size of infinity": "state h: 1e999\nh[t] = tanh(h[t-1])",
    "a size with ten thousand terms": "state h: H" + " + H" * 9_000 + "\nh[t] = tanh(h[t-1])",
    "five thousand sizes": "state h: " + " + ".join(f"H{k}" for k in range(5_000)) + "\nh[t] = b",
    "a part in a million": "state h: H\nh[t] = part(W @ h[t-1], 999999, 999999)",
    "parts of parts": chained(
        "a#[t] = part(a~[t], 1, 1000)", 60, "h[t] = tanh(a60[t]) + h[t-1]"
    ).replace("a0[t]", "x[t]"),
    "sizes that double": chained(
        "a#[t] = concat(a~[t], a~[t])", 60, "h[t] = W @ a60[t] + U @ h[t-1]"
    ).replace("a0[t]", "x[t]"),
    "a hundred repeats": chained(
        "a#[t] = repeat(a~[t], 1000)", 100, "h[t] = W @ a100[t] + U @ h[t-1]"
    ).replace("a0[t]", "x[t]"),
    "a million repeats": "h[t] = W @ repeat(x[t], 999999) + U @ h[t-1]",
    "an identity of a billion": "h[t] = eye(999999999) @ x[t] + h[t-1]",
    "a size that is its own multiple": "h[t] = concat(h[t-1], h[t-1])",
    # definitions
    "definitions that double": doubling("f(v) + f(v)"),
    "definitions that double inside": doubling("f(f(v))"),
    "definitions with two arguments": doubling("f(v) * f(-v)"),
    "definitions that go round": "f(v) = g(v)\ng(v) = f(v)\nh[t] = f(h[t-1])",
    "a definition of itself": "f(v) = f(f(v))\nh[t] = f(h[t-1])",
    "four hundred definitions": chained("f#(v) = tanh(f~(v))", 400, SCALAR + "h[t] = f400(h[t-1])")
    .replace("f0(v)", "v"),
    "a definition with five thousand parameters": "f("
    + ", ".join(f"a{k}" for k in range(5_000))
    + ") = a0\nh[t] = f(h[t-1])",
    # lines
    "a line of a megabyte": "h[t] = " + "h[t-1] + " * 120_000 + "1",
    "a comment of a megabyte": RNN + "#" + "x" * 1_000_000,
    "a megabyte of lines": "\n" * 1_000_000,
    "sixty thousand lines": RNN + "\n" * 60_000,
    "sixty thousand characters that grow": "ﷺ" * 20_000,
    "a marked letter": "h" + "\u0301" * 30_000 + "[t] = 1",
    "five hundred equations": chained("a#[t] = tanh(a~[t])", 499, "a500[t] = a499[t] + a500[t-1]")
    .replace("a0[t]", "x[t]"),
    "five hundred and one equations": chained("a#[t] = a~[t-1]", 501, ""),
    "ten thousand declarations": chained("input x#: H", 3_000, RNN),
    "a thousand names in a declaration": "input " + ", ".join(f"x{k}" for k in range(9_000)) + "\n",
    "a name of thirty thousand letters": RNN.replace("W", "W" * 30_000),
    "a name of thirty thousand letters, unknown": RNN.replace("tanh", "t" * 30_000),
    "two long names that nearly agree": f"{'a' * 20_000}[t] = {'a' * 19_999}b[t-1]",
    "a thousand names that nearly agree": chained("name#[t] = x[t]", 450, "h[t] = nam[t-1]"),
    # bytes
    "a NUL": RNN.replace("b)", "b\0)"),
    "nothing but a NUL": "\0",
    "a NUL in a comment": "# \0\n" + SCALAR + "h[t] = h[t-1]",
    "a lone surrogate": RNN.replace("b)", "b\ud800)"),
    "a lone surrogate in a comment": "# \ud800\n" + SCALAR + "h[t] = h[t-1]",
    "a lone surrogate in a name": RNN.replace("W", "W\udc80"),
    "carriage returns": RNN.replace("\n", "\r\n") + "output h\r\n",
    "carriage returns alone": RNN.replace("\n", "\r") + "output h\r",
    "a mark at the start": "\ufeff" + RNN,
    "two marks at the start": "\ufeff\ufeff" + RNN,
    "a mark within": RNN.replace("+", "\ufeff+"),
    "the other way round": RNN.replace("+", "\u202e+"),
    "digits of another script": RNN.replace("t-1", "t-١"),
    "nothing": "",
    "blanks": " \t\n \n",
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_hard_cases(name: str) -> None:
    if LONG:
        tracemalloc.start()
    try:
        answer(HARD[name], LONG)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < BYTES, f"{peak / 2**20:.0f} MiB"
