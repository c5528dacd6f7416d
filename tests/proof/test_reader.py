"""How a pass is read: names that do not say enough, rows, sums in several lines, circles."""

from __future__ import annotations

import pytest

from bptt.cell import Cell
from bptt.errors import CellError
from bptt.proof.verdicts import Judgement

GRU = """
z[t] = sigmoid(W_z @ x[t] + U_z @ h[t-1] + b_z)
n[t] = tanh(W_n @ x[t] + b_n)
h[t] = (1 - z[t]) * h[t-1] + z[t] * n[t]
backward:
"""
RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\nbackward:\n"
ROWS = "h[t] = tanh(x[t] @ W + h[t-1] @ U + b)\nbackward:\n"
BOTH = "h[t] = tanh(V @ tanh(V @ h[t-1] + W @ x[t]))\nbackward:\n"


def judged(text: str) -> Judgement:
    return Cell(text).judge()


def wrong(found: Judgement) -> list[str]:
    return [line.name for line in found.lines if line.verdict == "wrong"]


def test_a_name_of_a_gate_may_mean_its_argument() -> None:
    found = judged(
        GRU
        + "dz[t] = dh[t] * (n[t] - h[t-1]) * z[t] * (1 - z[t])\n"
        + "dn[t] = dh[t] * z[t] * (1 - n[t]**2)\n"
        + "dh[t] = direct_h[t] + dh[t+1] * (1 - z[t+1]) + U_z.T @ dz[t+1]\n"
        + "db_n = sum_t(dn[t])\n"
    )
    assert found.read_as == {"dz": "dz_z[t]", "dn": "dz_n[t]"}
    assert found.ok


def test_a_name_of_a_gate_is_the_gate_where_that_is_right() -> None:
    found = judged(
        GRU
        + "dz[t] = dh[t] * (n[t] - h[t-1])\n"
        + "dh[t] = direct_h[t] + dh[t+1]*(1 - z[t+1]) + U_z.T @ (dz[t+1]*z[t+1]*(1 - z[t+1]))\n"
    )
    assert found.read_as == {} and found.ok


def test_a_wrong_definition_is_blamed_and_its_readers_are_not() -> None:
    found = judged(
        RNN
        + "dh[t] = direct_h[t] + U.T @ draw[t+1]\n"
        + "draw[t] = (1 - h[t]) * dh[t]\n"
        + "db += draw[t]\n"
        + "dU += outer(draw[t], h[t-1])\n"
    )
    assert found.read_as == {"draw": "dz_h[t]"}
    assert wrong(found) == ["draw"]
    (line,) = (line for line in found.lines if line.verdict == "wrong")
    assert line.differs == ("has h[t] where h[t]**2 belongs",)
    assert line.derived == ("draw[t] = dh[t]*(1 - h[t]**2)",)


def test_rows_are_read_as_rows_where_the_cell_has_them() -> None:
    text = (
        "δ[t] = dh[t] * (1 - h[t]**2)\n"
        "dh[t] = direct_h[t] + δ[t+1] @ U.T\n"
        "dW = sum_t(x[t].T @ δ[t])\n"
        "dU = sum_t(h[t-1].T @ δ[t])\n"
    )
    assert judged(ROWS + text).ok
    columns = judged(RNN + text)  # there h.T @ δ is a number
    assert wrong(columns) == ["dh", "dW", "dU"]


def test_several_lines_may_add_to_one_gradient() -> None:
    inner = "tanh(V @ h[t-1] + W @ x[t])"
    outer = f"da[t] = dh[t] * (1 - h[t]**2)\ndc[t] = (V.T @ da[t]) * (1 - {inner}**2)\n"
    first, second = f"dV += outer(da[t], {inner})\n", "dV += outer(dc[t], h[t-1])\n"
    rest = "dh[t] = direct_h[t] + V.T @ dc[t+1]\n"
    means = "means: da = dz_h\n"
    assert judged(BOTH + means + outer + rest + first + second).ok
    alone = judged(BOTH + means + outer + rest + first)
    assert wrong(alone) == ["dV"]
    late = judged(BOTH + means + outer + rest + first + second.replace("t-1", "t"))
    assert set(wrong(late)) == {"dV"}


def test_a_line_that_adds_at_the_last_step_adds_there_only() -> None:
    text = "means: g = dz_h\nat t = T:\ndb += g[t]\n"
    found = judged(RNN + text)
    assert wrong(found) == ["db"] and found.whole.verdict == "wrong"
    assert judged(RNN + text + "before t = T:\ndb += g[t]\n").ok


@pytest.mark.parametrize("line", ["dW = d_W", "dh[t] = d_h[t]", "dh[t] = dh[t]", "d_W = 1*d_W"])
def test_a_line_that_reads_what_it_gives_is_no_derivation(line: str) -> None:
    found = judged(RNN + line + "\n")
    assert wrong(found) == [line.partition("[")[0].partition(" ")[0]]
    assert found.lines[0].note.startswith("it reads what it gives")


def test_a_condition_under_which_all_is_zero_is_none() -> None:
    # with a zero state at every step the truth itself is zero
    text = "state s = s0\ns[t] = s[t-1] * k\nh[t] = s[t] * x[t]\noutput h\nbackward:\n"
    found = judged("input x: H\nparam s0: H, k: H\n" + text + "d_x[t] = 2 * direct_h[t] * s[t]\n")
    assert [line.verdict for line in found.lines] == ["wrong"]


def test_what_is_missing_at_the_last_step_is_said() -> None:
    given = "g[t] = dh[t] * (1 - h[t]**2)\ndh[t-1] = direct_h[t-1] + U.T @ g[t]\n"
    found = judged(RNN + given)
    assert not wrong(found) and found.whole.without == ("dh",)
    assert judged(RNN + given + "dh[T] = direct_h[T]\n").whole.verdict == "right"


@pytest.mark.parametrize(
    ("line", "derived"),
    [
        ("dh[t-1] = U.T @ g[t]", "dh[t-1] = direct_h[t-1] + U.T @ g[t]"),
        ("dh[1] = U.T @ g[2]", "dh[1] = direct_h[1] + U.T @ g[2]"),
        ("dh[T] = 2*direct_h[T]", "dh[T] = direct_h[T] + U.T @ g[T+1]"),
        ("dh[T-1] = 3*direct_h[T-1]", "dh[T-1] = direct_h[T-1] + U.T @ g[T]"),
        ("dh[-1] = U @ g[0]", "dh[-1] = U.T @ g[0]"),
    ],
)
def test_the_derived_line_is_at_the_step_of_the_line(line: str, derived: str) -> None:
    found = judged(RNN + "means: g = dz_h\n" + line + "\n")
    assert [x.derived for x in found.lines] == [(derived,)]


def test_a_value_in_brackets_is_cut() -> None:
    cell = "a[t] = V @ concat(x[t], h[t-1])\nh[t] = tanh(a[t])\nbackward:\n"
    right = "dx[t] = (V.T @ da[t])[:X]\ndh[t] = direct_h[t] + (V.T @ da[t+1])[X:]\n"
    assert judged(cell + right + "da[t] = dh[t] * (1 - h[t]**2)\n").ok


def test_each_vector_of_an_outer_product_is_looked_at() -> None:
    cell = "input x: H\nr[t] = sigmoid(x[t])\na[t] = U @ (r[t] * h[t-1])\nh[t] = tanh(a[t])\n"
    found = judged(cell + "backward:\ndU = sum_t(outer(d_a[t] * r[t], h[t-1]))\n")
    (line,) = found.lines
    assert line.differs == (
        "has the factor r[t], which the derivation has not",
        "is missing the factor r[t]",
    )


def test_a_pass_with_a_wrong_line_is_right_under_no_condition() -> None:
    # under a zero state nothing depends on it
    text = "input x: H\nr[t] = sigmoid(x[t])\nh[t] = tanh(r[t] * (U @ h[t-1]))\nbackward:\n"
    found = judged(text + "d_r[t] = d_h[t]*(1 - h[t])*(U @ h[t-1])\n")
    assert wrong(found) == ["d_r"] and found.whole.verdict == "wrong"


def test_a_judgement_prints_as_the_command_does() -> None:
    found = judged(RNN + "db = sum_t(dz_h[t+1])\n")
    assert "sums dz_h[t+1], should sum dz_h[t]" in str(found)


def test_a_name_that_says_nothing_is_asked_for_by_its_end() -> None:
    with pytest.raises(CellError) as error:
        judged(RNN + "dL_dh[t] = x[t]\n")
    assert error.value.help == "for instance `means: dL_dh = d_h`"
