"""What the names of a hand-written pass stand for; what is said of those that stand for nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import SAME_LINE

from bptt.errors import CellError
from bptt.language.check import Checked, check
from bptt.language.tree import said
from bptt.proof.exact import LENGTH, Sample, world
from bptt.proof.notation import Follow, Notation, informed, notation
from bptt.proof.world import World

CELL = """\
z[t] = sigmoid(W_z @ x[t] + U_z @ h[t-1] + b_z)
h[t] = z[t]*h[t-1] + (1 - z[t])*tanh(W @ x[t])
backward:
"""


def read(*lines: str) -> tuple[Notation, World]:
    checked: Checked = check(CELL + "\n".join(lines))
    assert checked.tree.hand is not None
    p = checked.program
    w = world(checked, Sample(), {}, {})
    return notation(checked.tree.hand, w, [v.name for v in p.values] + ["z", "h"]), w


def meaning(line: str) -> str:
    """What the name on the left of a line stands for: the gradient and its step."""
    found, _ = read(line)
    (name,) = found.timed
    if name not in found.meanings:
        return ""
    e = found.meanings[name]
    return e.name if e.lag is None else f"{e.name}[t{-e.lag:+d}]" if e.lag else f"{e.name}[t]"


MEANINGS = {
    "d_h[t] = 0": "d_h[t]",
    "d_h[-1] = 0": "d_h[t]",
    "d_h[t-1] = 0": "d_h[t]",
    "dh[t] = 0": "d_h[t]",
    "δh[t] = 0": "d_h[t]",
    "δ_h[t] = 0": "d_h[t]",
    "∂h[t] = 0" if "∂".isidentifier() else "δh[T] = 0": "d_h[t]",
    "dz_z[t] = 0": "dz_z[t]",
    "δz_z[t] = 0": "dz_z[t]",
    "direct_h[t] = 0": "direct_h[t]",
    "next_h[t] = 0": "next_h[t]",
    "now_h[t] = 0": "now_h[t]",
    "d_x[t] = 0": "d_x[t]",
    "d_W = 0": "d_W",
    "dW_z = 0": "d_W_z",
    "δb_z = 0": "d_b_z",
    "means: g[t] = d_z[t]": "d_z[t]",
    "means: g[t] = d_h[t+1]": "d_h[t+1]",
    "means: g = d_z": "d_z[t]",
    "means: d_h[t] = next_h[t]": "next_h[t]",
    "means: G = d_U_z": "d_U_z",
    "k = U_z.T": "",
    "q[t] = tanh(W @ x[t])": "",
    "dq[t] = h[t]": "",
}


@pytest.mark.parametrize("line", MEANINGS)
def test_meanings(line: str) -> None:
    assert meaning(line) == MEANINGS[line]


def test_gradients_and_definitions() -> None:
    found, _ = read("means: g = dz_z, v[t] = h[t-1]", "d_h[t] = 0", "q[t] = g[t]", "k = W")
    assert found.gradients() == ["g", "d_h"]
    assert found.definitions() == ["q", "k"]
    assert found.timed == {"g": True, "v": True, "d_h": True, "q": True, "k": False}


def test_names_have_the_values_of_what_they_stand_for() -> None:
    found, w = read(
        "means: g[t] = dz_z[t+1], G = stack(d_W, d_W_z), late[t] = next_h[t-1]",
        "q[t] = g[t]*z[t]",
        "k = G.T",
        "r[t] = q[t+1]",
    )
    exact = informed(found, w)
    at = slice(1, -1)
    after = slice(2, None)
    assert np.array_equal(exact.series["g"][at], w.series["dz_z"][after])
    assert np.array_equal(exact.series["late"][at], w.series["next_h"][:-2])
    G = np.concatenate([w.constants["d_W"], w.constants["d_W_z"]])
    assert np.array_equal(exact.constants["G"], G)
    assert np.array_equal(exact.constants["k"], G.T)
    q = w.series["dz_z"][after] * w.series["z"][at]
    assert np.allclose(exact.series["q"][at], q, rtol=SAME_LINE, atol=0)
    assert np.allclose(exact.series["r"][1:-2], q[1:], rtol=SAME_LINE, atol=0)
    assert not np.any(exact.series["r"][LENGTH])


def followed(*lines: str) -> World:
    found, w = read(*lines)
    known = {k: v for k, v in w.series.items() if k not in found.timed}
    here = World(**{**w.__dict__, "series": known})
    return Follow(found.hand.lines, here, found.timed, found.gradients()).followed()


def test_a_pass_runs_from_the_last_step_to_the_first() -> None:
    _, w = read("q = W")
    ran = followed(
        "d_h[-1] = U_z.T @ dz_z[0] + d_h[0]*z[0]",
        "d_b_z += dz_z[t]",
        "d_W_z = sum_t(outer(dz_z[t], x[t]))",
        "dz_z[t] = d_h[t]*slope[t]",
        "at t = T:",
        "d_h[T] = direct_h[T]",
        "before t = T:",
        "d_h[t] = direct_h[t] + U_z.T @ dz_z[t+1] + d_h[t+1]*z[t+1]",
        "at every t:",
        "slope[t] = (h[t-1] - new[t])*z[t]*(1 - z[t])",
        "new[t] = tanh(A @ x[t])",
        "A = W",
    )
    for name, true in {**w.series, **w.constants}.items():
        mine = ran.series.get(name) if name in w.series else ran.constants.get(name)
        if name in ("d_h", "dz_z", "d_b_z", "d_W_z"):
            slots = slice(0 if name == "d_h" else 1, -1) if name in w.series else ()
            assert mine is not None
            assert np.allclose(mine[slots], true[slots], rtol=SAME_LINE, atol=SAME_LINE), name


def test_lines_may_write_the_step_before() -> None:
    _, w = read("q = W")
    ran = followed(
        "means: late = next_h",
        "d_h[t] = direct_h[t] + late[t]",
        "late[t-1] = U_z.T @ dz_z[t] + d_h[t]*z[t]",
    )
    assert np.allclose(ran.series["d_h"][1:-1], w.series["d_h"][1:-1], rtol=SAME_LINE, atol=0)


# lines: what is said, of which part, and a word of the help
ERRORS = {
    "d_h[t] = 0\nd_h = 0": ("`d_h` is used both with and without a time", "d_h", ""),
    "h[t] = 0": ("`h` is a value of the cell", "h[t]", "`d_h`"),
    "W = 0": ("`W` is a value of the cell", "W", "`d_W`"),
    "means: g = d_h, g = d_z": ("`g` is given two meanings", "g", ""),
    "d_W[t] = 0": ("`d_W` has no time", "d_W[t]", "sum_t"),
    "d_h = 0": ("`d_h` has a time, and stands here without", "d_h", "`d_h[t] = ...`"),
    "q[t] = hh[t]": ("nothing is called `hh`", "hh[t]", "did you mean"),
    "q[t] = d_hh[t]": ("nothing is called `d_hh`", "d_hh[t]", "did you mean"),
    "q[t] = direct_z[t]": ("nothing is called `direct_z`", "direct_z[t]", ""),
    "means: g = d_q": ("nothing is called `d_q`", "d_q", ""),
    "q[t] = h + 1": ("`h` has a time, and stands here without", "h", "`h[t]` or `h[t+1]`"),
    "q[t] = W[t] @ x[t]": ("`W` has no time", "W[t]", "write `W`"),
    "q[t] = d_W[t]": ("`d_W` has no time", "d_W[t]", "write `d_W`"),
    "q[t] = W[:N, :]": ("there is no size `N`", "N", "the sizes are"),
    "q[t] = tahn(h[t])": ("unknown function `tahn`", "tahn", "`tanh`"),
    "q[t] = tanh(h[t], 1)": ("`tanh` takes 1 argument, not 2", "tanh(h[t], 1)", ""),
    "q[t] = max(1, 2, 3)": ("`max` takes 1 to 2 arguments, not 3", "max(1, 2, 3)", ""),
    "q[t] = outer(h[t])": ("`outer` takes 2 arguments, not 1", "outer(h[t])", ""),
    "q = jac(h[t], W)": ("`jac` is of a value over time, by another one or by a vector", "W", ""),
    "q = jac(h[t], 2)": ("`jac` is of a value over time, by another one or by a vector", "2", ""),
    "q = sum_t(1 + sum_t(h[t]))": (
        "a sum over time within a sum over time",
        "sum_t(h[t])",
        "",
    ),
}


@pytest.mark.parametrize("lines", ERRORS)
def test_errors(lines: str) -> None:
    what, part, help = ERRORS[lines]
    with pytest.raises(CellError) as caught:
        read(*lines.split("\n"))
    assert caught.value.span is not None
    assert (caught.value.what, said(caught.value.span)) == (what, part)
    assert help in (caught.value.help or "")


RUN_ERRORS = {
    "d_h[t] = dz_z[t]\ndz_z[t] = d_h[t]": "need each other in the same step",
    "d_h[t] = d_h[t]": "need each other in the same step",
    "p = q\nq = p": "need each other in the same step",
    "d_h[t] = G.T @ h[t]\nG = sum_t(outer(d_h[t], h[t]))": "`G` is read before a line gives it",
    "d_h[-2] = h[0]": "`d_h[-2]` lies outside of time",
    "d_h[T+2] = h[0]": "`d_h[T+2]` lies outside of time",
}


@pytest.mark.parametrize("lines", RUN_ERRORS)
def test_passes_that_cannot_be_run(lines: str) -> None:
    with pytest.raises(CellError) as caught:
        followed(*lines.split("\n"))
    assert RUN_ERRORS[lines] in caught.value.what
