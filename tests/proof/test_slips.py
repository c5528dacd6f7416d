"""Lines with one slip, or several: what is said of them, word for word, and what they should be."""

from __future__ import annotations

import re
from functools import cache

import pytest

from bptt.cell import Cell
from bptt.proof.verdicts import LineVerdict

CELL = """\
i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + b_i)
f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + b_f)
g[t] = tanh(W_g @ x[t] + U_g @ h[t-1] + b_g)
o[t] = sigmoid(W_o @ x[t] + U_o @ h[t-1] + b_o)
c[t] = f[t]*c[t-1] + i[t]*g[t]
h[t] = o[t]*tanh(c[t])
backward:
"""
PASS = """\
δh[t] = direct_h[t] + U_i.T @ δi[t+1] + U_f.T @ δf[t+1] + U_g.T @ δg[t+1] + U_o.T @ δo[t+1]
δc[t] = δh[t]*o[t]*(1 - tanh(c[t])**2) + δc[t+1]*f[t+1]
δi[t] = δc[t]*g[t]*i[t]*(1 - i[t])
δf[t] = δc[t]*c[t-1]*f[t]*(1 - f[t])
δg[t] = δc[t]*i[t]*(1 - g[t]**2)
δo[t] = δh[t]*tanh(c[t])*o[t]*(1 - o[t])
δx[t] = W_i.T @ δi[t] + W_f.T @ δf[t] + W_g.T @ δg[t] + W_o.T @ δo[t]
dW_i = sum_t(outer(δi[t], x[t]))
dU_i = sum_t(outer(δi[t], h[t-1]))
db_i = sum_t(δi[t])
δc[-1] = δc[0]*f[0]
"""
MEANS = "means: " + ", ".join(f"δ{v}[t] = dz_{v}[t]" for v in "ifgo") + "\n"


@cache
def judged(line: str) -> LineVerdict:
    """A line of the pass, written so."""
    left = line.split(" = ")[0]
    rows = [line if row.startswith(f"{left} =") else row for row in PASS.splitlines()]
    assert line in rows
    found = Cell(CELL + MEANS + "\n".join(rows)).judge()
    assert [x.text for x in found.lines if x.verdict != "right"] in ([line], [])
    return next(x for x in found.lines if x.text == line)


def test_the_pass_is_right() -> None:
    found = Cell(CELL + MEANS + PASS).judge()
    assert {line.verdict for line in found.lines} == {"right"}
    assert found.whole.verdict == "right"


DIRECT = (
    "uses what h gets from the loss at its own step, direct_h[t], where the total gradient by h,"
    " δh[t], belongs"
)
# a line of the pass with slips in it: what is said of it
SAID: dict[str, tuple[str, ...]] = {
    "δi[t] = δc[t]*g[t]*i[t]*(1 - f[t])": ("has f[t] where i[t] belongs",),
    "δi[t] = δc[t]*g[t]*(1 - i[t])": ("is missing the factor i[t]",),
    "δi[t] = δc[t]*g[t]*i[t]": ("is missing the factor (1 - i[t])",),
    "δi[t] = δc[t]*i[t]*(1 - i[t])": ("is missing the factor g[t]",),
    "δi[t] = 2*δc[t]*g[t]*i[t]*(1 - i[t])": ("has the factor 2, which the derivation has not",),
    "δi[t] = δc[t]*g[t]*i[t]*(1 + i[t])": ("adds i[t], where the derivation subtracts it",),
    "δi[t] = δc[t+1]*g[t]*i[t]*(1 - i[t])": ("has δc[t+1] where δc[t] belongs",),
    "δi[t] = direct_h[t]*g[t]*i[t]*(1 - i[t])": ("has direct_h[t] where δc[t] belongs",),
    "δf[t] = δc[t]*c[t]*f[t]*(1 - f[t])": ("has c[t] where c[t-1] belongs",),
    "δg[t] = δc[t]*i[t]*(1 - g[t])": ("has g[t] where g[t]**2 belongs",),
    "δo[t] = direct_h[t]*tanh(c[t])*o[t]*(1 - o[t])": (DIRECT,),
    "δo[t] = δh[t]*sigmoid(c[t])*o[t]*(1 - o[t])": ("has sigmoid where the derivation has tanh",),
    "δx[t] = W_i.T @ δi[t] + W_f.T @ δf[t] + W_o.T @ δo[t]": ("is missing the term W_g.T @ δg[t]",),
    "δx[t] = W_i.T @ δi[t] + W_f.T @ δg[t] + W_g.T @ δg[t] + W_o.T @ δo[t]": (
        "has δg[t] where δf[t] belongs",
    ),
    "δh[t] = direct_h[t] + U_i.T @ δi[t+1] + U_f @ δf[t+1] + U_g.T @ δg[t+1] + U_o.T @ δo[t+1]": (
        "has U_f where U_f.T belongs",
    ),
    "dU_i = sum_t(outer(h[t-1], δi[t]))": (
        "sums outer(h[t-1], δi[t]), should sum outer(δi[t], h[t-1])",
    ),
    "dU_i = sum_t(outer(δi[t], h[t]))": ("has h[t] where h[t-1] belongs",),
    "db_i = sum_t(δi[t+1])": ("sums δi[t+1], should sum δi[t]",),
    "db_i = sum_t(δf[t])": ("sums δf[t], should sum δi[t]",),
    "db_i = δi[t]": ("is missing the sum over time",),
    "δc[-1] = δc[0]*f[1]": ("has f[1] where f[0] belongs",),
    # several slips in a line, in terms of their own
    "δc[t] = δh[t]*o[t]*(1 - tanh(c[t])) + δc[t+1]*f[t]": (
        "has tanh(c[t]) where tanh(c[t])**2 belongs",
        "has f[t] where f[t+1] belongs",
    ),
    "δc[t] = direct_h[t]*o[t]*(1 - tanh(c[t])**2)": (
        DIRECT,
        "is missing the term δc[t+1]*f[t+1]",
    ),
    "δx[t] = W_i @ δi[t] + W_f.T @ δg[t] + W_g.T @ δg[t] - W_o.T @ δo[t]": (
        "has W_i where W_i.T belongs",
        "has δg[t] where δf[t] belongs",
        "W_o has the wrong sign",
    ),
}


@pytest.mark.parametrize("line", SAID)
def test_what_is_said(line: str) -> None:
    found = judged(line)
    assert found.verdict == "wrong"
    assert found.differs == SAID[line]


def test_what_a_line_should_be_is_right() -> None:
    derived = list(dict.fromkeys(judged(line).derived[0] for line in SAID))
    found = Cell(CELL + MEANS + PASS + "\n".join(derived)).judge(explain=False)
    last = found.lines[-len(derived) :]
    assert [(x.text, x.verdict) for x in last] == [(line, "right") for line in derived]


@pytest.mark.parametrize("line", SAID)
def test_what_a_line_should_be_is_right_alone(line: str) -> None:
    """The pass has no other line, and so no other names."""
    alone = re.sub("δ([chx])", r"d_\1", re.sub("δ([ifgo])", r"dz_\1", line))
    (wrong,) = Cell(CELL + alone).judge().lines
    assert wrong.verdict == "wrong"
    (right,) = Cell(f"{CELL}{wrong.derived[0]}").judge(explain=False).lines
    assert (right.text, right.verdict) == (wrong.derived[0], "right")


def test_steps_and_amounts() -> None:
    late = judged("δo[t] = direct_h[t]*tanh(c[t])*o[t]*(1 - o[t])")
    assert late.steps == (0, 1, 2)  # the last step has no step after it
    twice = judged("δi[t] = 2*δc[t]*g[t]*i[t]*(1 - i[t])")
    assert twice.error == pytest.approx(1)
    assert twice.steps == (0, 1, 2, 3)
    assert judged("δc[-1] = δc[0]*f[1]").timed is False


def test_sizes_that_do_not_fit_are_said() -> None:
    found = judged("δx[t] = W_i @ δi[t] + W_f.T @ δg[t] + W_g.T @ δg[t] - W_o.T @ δo[t]")
    assert found.note == "a matrix (H, X) @ a vector (H)"
    assert found.error == float("inf")
