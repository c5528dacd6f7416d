"""Whatever stands in a `backward:` block, the answer is a judgement or an error with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from language.test_fuzz import anything, damaged, mistaken, shown
from proof.derivations import derivation
from random_cells import examples

from bptt.cell import Cell
from bptt.errors import CellError, UserError
from bptt.proof import verdicts

RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"
WRITTEN = """\
means: g[t] = dz_h[t], G = stack(d_W, d_U)
at t = T:
d_h[T] = direct_h[T]
before t = T:
d_h[t] = direct_h[t] + U.T @ g[t+1]
at every t:
g[t] = d_h[t] * (1 - h[t]**2) = d_h[t] * tanh'(W @ x[t] + U @ h[t-1] + b)
     = diag(1 - h[t]**2) @ d_h[t]
dx[t] = W.T @ g[t]
d_b += g[t]
d_U = sum_t(g[t] @ h[t-1].T)
G = stack(sum_t(outer(g[t], x[t])), d_U)
d_h[-1] = U.T @ g[0]
q = jac(h[t], h[t-1]).T @ W[:H, 0:X] @ fill(2, X)
"""
WORDS = (
    "d_h[t] d_h[t+1] dz_h[t] g[t] direct_h[t] next_h[t] now_h[t] h[t] h[t-1] h[T] h[-1] x[t] [t+2]"
    " [T-1] [0] [:H] [X:] [:] [0:1, :] W U b G d_W d_U d_b 0 1 2 0.5 1e9 9**9 + - * / ** @ ( ) , ."
    " .T : ' = += == [ ] \n means: at t = T: before t = T: at every t: sum_t( outer( diag( dot("
    " stack( concat( jac( tanh( tanh'( tanh''( sum( mean( softmax( fill( embed( eye( part( rows("
    " repeat( fold( f( f'( dq_h[t] q_h[t] e_x[t] H X δ ∂ dE_dh( max( cumsum( t T"
).split(" ")
BODIES = [WRITTEN, "\n".join(derivation("rnn", "preactivations").lines)]

words = st.sampled_from(WORDS)
soups = st.lists(words, max_size=30).map(" ".join)
lines = st.builds("{} = {}".format, words, soups)
bodies = st.one_of(
    soups,
    st.lists(lines, max_size=4).map("\n".join),
    anything,
    damaged(st.sampled_from(BODIES), words),
    mistaken(st.sampled_from(BODIES)),
)


def answer(cell: str, body: str) -> None:
    """The judge's answer, whose errors point into the text."""
    text = f"{cell}backward:\n{body}"
    try:
        found = Cell(text).judge()
    except UserError:  # there is no line
        return
    except CellError as error:
        shown(error, text)
        return
    assert verdicts.text(found)
    for hint in (None, 0, 1, 2):
        assert verdicts.json(found, hint)["ok"] == found.ok


@examples(150)
@given(bodies)
def test_any_backward_pass_is_judged_or_refused(body: str) -> None:
    answer(RNN, body)


HARD = {
    "slices within slices": "q = " + "W[:" * 5_000,
    "slices of slices": "q = W" + "[:, :]" * 5_000,
    "five thousand sides": "d_b = sum_t(dz_h[t])" + " = d_b" * 5_000,
    "a far step": "d_h[t] = d_h[t+999999999] + h[t-99999999999]",
    "a far fixed step": "d_h[t] = h[123456789012] + h[-99999999999]",
    "a far last step": "d_h[T-99999999999] = h[T+5]",
    "a huge fill": "d_b = fill(1, 999999999)",
    "a huge embed": "d_W = embed(W, 0, 999999999, 0, 999999999)",
    "a huge repeat": "d_b = repeat(b, 999999999)",
    "a huge eye": "d_U = eye(999999999)",
    "a huge slice": "d_b = b[:999999999]",
    "a slice turned round": "d_b = b[2:1]",
    "a slice of a number": "d_b = 2[:1]",
    "a negative part": "d_b = part(b, -1, 3)",
    "a size that is no size": "d_b = part(b, 1, h[t])",
    "no size": "d_b = part(b, 1, 0)",
    "a power of a power": "d_b = b" + "**9" * 2_000,
    "a jacobian of a parameter": "d_U = jac(h[t], U)",
    "a jacobian of a gradient": "q[t] = jac(d_h[t], h[t])",
    "a jacobian of what the pass makes": "q[t] = h[t]\np[t] = jac(q[t], h[t])",
    "a jacobian with too few": "d_U = jac(h[t])",
    "a jacobian by a number": "d_U = jac(h[t], 2)",
    "sums in sums": "d_b = sum_t(sum_t(dz_h[t]))",
    "a second derivative": "d_h[t] = tanh''(h[t])",
    "a loop in a step": "q[t] = p[t]\np[t] = q[t]",
    "a loop at once": "q = p\np = q",
    "two sizes": "q[t] = h[t]\nq[-1] = x[0]",
    "all at once and over time": "d_b[t] = dz_h[t]\nd_b = sum_t(dz_h[t])",
    "meanings that go round": "means: p = q, q = p\np = 1",
    "a meaning of nothing": "means: p = sum_t(1)\np = 4",
    "a name of the cell": "W = d_W",
    "lines added to what is defined": "q = W\nq += U",
    "added to itself": "q += q",
    "a name called time": "t = 1",
    "a name called the last step": "T[t] = 1",
    "a name called like a size": "H = 1\nd_b = H",
    "an empty call": "d_b = tanh()",
    "too many": "d_b = tanh(b, b)",
    "an exponent that is a vector": "d_b = b**b",
    "not a number": "d_b = 0/0",
    "infinite": "d_b = b/0 + exp(10000)",
    "heading alone": "at t = T:",
    "equal signs alone": "=\n= 1",
    "a comment": "# nothing",
}


@pytest.mark.parametrize("name", HARD)
def test_hard_cases(name: str) -> None:
    answer(RNN, HARD[name])
