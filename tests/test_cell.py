"""The facade: a cell from its text, its name or its file; what follows from it; how it travels."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import cells
from bptt.cell import Cell, load
from bptt.errors import CellError, UserError
from bptt.ir.ports import At, Port
from bptt.ir.program import Program, refs
from bptt.language.tokens import Limits

RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"
OPEN = "function f, G: scalar\nh[t] = f(W @ x[t] + U @ h[t-1])\nloss:\nL[t] = G(h[t], y[t])\n"


def test_a_cell_is_its_text() -> None:
    cell = Cell(RNN)
    assert (cell.name, cell.text) == ("cell", RNN)
    assert cell.program.outputs == ("h",)
    assert [s.name for s in cell.program.states] == ["h"]
    assert repr(cell) == "<Cell cell: inputs x; states h; outputs h; 3 parameters>"


def test_the_text_is_verbatim_and_the_program_lowered_and_derived(cell: str) -> None:
    found = Cell.load(cell)
    assert found.name == cell
    assert found.text == cells.read(cell)
    assert found.lowered is found.lowered
    assert {e.name for e in found.program.equations} <= {e.name for e in found.lowered.equations}
    assert found.backward.dir == -1
    assert found.backward is Cell.load(cell).backward


def test_the_backward_pass_is_that_of_the_loss_where_there_is_one() -> None:
    read = {name for name, _ in refs(*(e.rhs for e in load("gomez").backward.equations))}
    assert "y" in read
    assert not any(name.startswith("direct") for name in read)
    read = {name for name, _ in refs(*(e.rhs for e in load("lstm").backward.equations))}
    assert {"direct$h", "direct$c"} <= read


def test_equal_texts_are_one_program() -> None:
    one, other = Cell(RNN), Cell(RNN, name="other")
    assert one == other
    assert hash(one) == hash(other)
    assert one.program is other.program
    assert one.lowered is other.lowered
    assert one != Cell(RNN + "# a comment\n")
    assert one != RNN
    open_, bound = Cell(OPEN), Cell(OPEN, functions={"f": "tanh"})
    assert open_ != bound
    assert bound == open_.bind({"f": "tanh"})
    both = {"f": "tanh", "G": "g(a, b) = sum(tanh(a))*sum(b)"}
    assert (
        Cell(OPEN, functions=both).program
        is Cell(OPEN, functions=dict(reversed(both.items()))).program
    )


@pytest.mark.parametrize(
    "cell", [Cell(RNN, name="mine"), Cell(OPEN).bind({"f": "tanh"})], ids=["plain", "bound"]
)
def test_a_cell_travels_as_its_text(cell: Cell) -> None:
    for found in (pickle.loads(pickle.dumps(cell)), copy.copy(cell), copy.deepcopy(cell)):  # noqa: S301
        assert found == cell
        assert (found.name, found.text) == (cell.name, cell.text)
        assert found.program is cell.program
    assert b"Node" not in pickle.dumps(cell)
    assert len(pickle.dumps(cell)) < len(cell.text) + 200


def test_functions_that_are_left_open() -> None:
    cell = Cell(OPEN)
    assert dict(cell.unspecified) == {"f": "elementwise", "G": "scalar"}
    bound = cell.bind({"f": "tanh"})
    assert dict(bound.unspecified) == {"G": "scalar"}
    assert dict(bound.functions) == {"f": "tanh"}
    with pytest.raises(UserError, match="is not specified"):
        bound.check()
    with pytest.raises(CellError):
        cell.bind({"k": "tanh"})


@pytest.mark.parametrize(
    ("loss", "stand_in"),
    [
        ("G(o[t], y[t])", "f(a1, a2) = sum((a1 - a2)**2)/2"),
        ("G(h[t], y[t])", "f(a1, a2) = (sum(tanh(a1)) + sum(tanh(a2)))**2/2"),
        ("G(sum(h[t]), sum(y[t]))", "f(a1, a2) = (a1 - a2)**2/2"),
        ("G(h[t])", "f(a1) = (sum(tanh(a1)))**2/2"),
        ("G(h[t], y[t], k)", "f(a1, a2, a3) = (sum(tanh(a1)) + sum(tanh(a2)) + tanh(a3))**2/2"),
    ],
)
def test_stand_ins_fit_what_they_stand_for(loss: str, stand_in: str) -> None:
    text = f"""
function f, F: vector, G: scalar
param k: scalar
h[t] = f(W @ x[t] + U @ h[t-1])
readout:
o[t] = F(V @ h[t])
loss:
L[t] = {loss}
"""
    cell = Cell(text)
    assert cell.stand_ins() == {"f": "tanh", "F": "softmax", "G": stand_in}
    bound = cell.bind(cell.stand_ins())
    assert not bound.unspecified
    assert bound.check().ok


def test_a_check_passes_options_on_and_knows_the_constants() -> None:
    cell = Cell("const dt = 0.5\nh[t] = h[t-1] + dt*tanh(W @ x[t] + U @ h[t-1])")
    assert dict(cell.consts) == {"dt": 0.5}
    report = cell.check(order=2, seed=3, sizes={"H": 2})
    assert report.ok
    assert (report.order, report.seed, report.sizes["H"]) == (2, 3, 2)
    assert bptt.check(cell).ok
    assert bptt.check("rnn", order=2).ok


def test_a_derivation_in_every_format() -> None:
    cell = Cell(RNN, name="mine")
    text = cell.derivation()
    assert text.startswith("# d_h is the gradient by h, dz_h by the argument of h's function.")
    assert "\ndz_h[t] = d_h[t]*(1 - h[t]**2) " in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "dz_h" not in cell.derivation(by="gates").split("\n\n", 1)[1]
    latex = cell.derivation(format="latex")
    assert latex.startswith("\\begin{align*}\n")
    assert r"\delta z_{h,t} &= \delta h_{t} \odot (1 - h_{t}^{2}) \\" in latex
    page = cell.derivation(format="md")
    assert page.startswith("# mine.cell\n")
    assert f"```text\n{RNN}```\n" in page
    assert page.count("```math") == 1 + 3
    assert text.split("\n\n", 1)[1].strip() in page
    assert "bptt check mine.cell\n" in page


def test_a_derivation_keeps_what_is_open() -> None:
    text = Cell(OPEN).derivation()
    assert "f'(" in text
    assert "dG_dh(h[t], y[t])" in text
    assert text.startswith("# d_h is the gradient of L, summed over all steps, by h, dz_h")


def test_a_cell_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.cell"
    path.write_text(RNN, encoding="utf-8")
    for found in (load(path), load(str(path)), Cell.load(path), bptt.load(path)):
        assert (found.name, found.text) == ("mine", RNN)
    monkeypatch.chdir(tmp_path)
    assert load("mine.cell").text == RNN
    (tmp_path / "plain").write_text(RNN, encoding="utf-8")
    assert load("plain").name == "plain"
    # what comes with bptt goes first, unless the file is named as one
    (tmp_path / "lstm").write_text(RNN, encoding="utf-8")
    assert load("lstm").text == cells.read("lstm")
    assert load("./lstm").text == RNN
    assert load(Path("lstm")).text == RNN


@pytest.mark.parametrize(
    ("given", "what", "help"),
    [
        ("lsmt", "there is no cell called `lsmt`", "did you mean `lstm`?"),
        ("nothing like it", "there is no cell called", "`bptt cells` lists them"),
        ("mine.cel", "there is no cell called `mine.cel`", None),
        (
            "min.cell",
            "cannot read min.cell: No such file or directory",
            "did you mean `mine.cell`?",
        ),
        ("no/such.cell", "cannot read no/such.cell: No such file or directory", None),
        (".", "cannot read .: Is a directory", None),
        ("latin.cell", "latin.cell is not text in UTF-8", None),
        ("large.cell", "large.cell is larger than 64 KiB", "a cell is a handful of equations"),
    ],
)
def test_what_cannot_be_read(
    given: str, what: str, help: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.cell").write_text(RNN, encoding="utf-8")
    Path("latin.cell").write_bytes("# für\n".encode("latin-1"))
    Path("large.cell").write_text("# \n" * Limits().size, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(given)
    assert caught.value.what.startswith(what)
    if help:
        assert (caught.value.help or "").startswith(help)


def test_a_byte_order_mark_is_no_part_of_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "mine.cell"
    path.write_bytes(b"\xef\xbb\xbf" + RNN.encode())
    assert load(path).program is Cell(RNN).program


def test_derive_takes_whatever_has_a_backward_pass() -> None:
    first = bptt.derive("rnn")
    assert isinstance(first, Program)
    assert first is bptt.derive(load("rnn"))
    second = bptt.derive(first)
    assert (first.dir, second.dir) == (-1, 1)
    assert Port("direct$h", At.STEPS).name in {v.name for v in second.values}


def test_arguments_that_mean_nothing_are_refused() -> None:
    lstm = bptt.load("lstm")
    for call, said in (
        (lambda: lstm.derivation(format="html"), "format cannot be 'html'"),  # type: ignore[arg-type]
        (lambda: lstm.derivation(by="gate"), "by cannot be 'gate'"),  # type: ignore[arg-type]
        (lambda: lstm.check(sizes={"H": 0}), "the size `H` cannot be 0"),
        (lambda: lstm.check(sizes={"Q": 2}), "there is no size `Q`"),
        (lambda: bptt.load("h[t] = tanh(U @ h[t-1])"), "a cell's text"),
        (lambda: bptt.load("a" * 5000), "there is no cell called"),
        (lambda: bptt.load("a\0b.cell"), r"cannot read 'a\x00b.cell': this is no name of a file"),
        *(
            (lambda verb=verb: verb(3), "3 is no cell")
            for verb in (bptt.load, bptt.trace, bptt.check, bptt.derive)
        ),
    ):
        with pytest.raises(bptt.UserError, match=re.escape(said)):
            call()


def test_a_backward_pass_that_nobody_could_read_is_refused_at_once() -> None:
    lines = ["d0(v) = v*v + v"]
    lines += [f"d{k}(v) = d{k - 1}(v)*d{k - 1}(v) + d{k - 1}(v)" for k in range(1, 40)]
    cell = bptt.Cell("\n".join([*lines, "h[t] = d39(tanh(W @ x[t] + U @ h[t-1]))"]))
    assert cell.backward.dir == -1  # it is there, only not to be read
    with pytest.raises(bptt.UserError, match="too long to be read"):
        cell.derivation()


CONSTANT = """\
const A: (D, D), B: D, k = 0.5
state m: D
m[t] = A @ m[t-1] + B*sum(x[t]) + k*m[t-1]
h[t] = tanh(W @ m[t])
"""


def test_constants_are_given_values() -> None:
    given = {"A": np.eye(2) / 2, "B": [1.0, 2.0]}
    cell = Cell(CONSTANT, consts=given)
    assert dict(cell.consts) == {"k": 0.5, "A": ((0.5, 0.0), (0.0, 0.5)), "B": (1.0, 2.0)}
    assert cell == pickle.loads(pickle.dumps(cell)) == copy.deepcopy(cell)  # noqa: S301  # our own
    assert cell != Cell(CONSTANT) and hash(cell) != hash(Cell(CONSTANT))
    assert cell.bind({}).consts == cell.consts
    report = cell.check()
    assert report.ok and report.sizes["D"] == 2
    given["A"][0, 0] = 7  # a copy was taken
    assert cell.consts["A"][0][0] == 0.5


@pytest.mark.parametrize(
    ("consts", "said"),
    [({"C": 1.0}, "no constant `C`"), ({"A": [1.0, 2.0]}, r"`A` is \(D, D\), and \[2\]")],
)
def test_constants_that_do_not_fit(consts: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Cell(CONSTANT, consts=consts)


def test_a_page_shows_the_values_that_constants_were_given() -> None:
    page = Cell(CONSTANT, consts={"k": 0.7, "B": 2.0}).derivation(format="md")
    assert "constant, 0.7" in page and "constant, 0.5" not in page
    assert Cell(CONSTANT, consts={"B": 2.0}).check(sizes={"D": 3}).ok  # a number for each of B


@pytest.mark.parametrize("value", ["abc", [[1.0], [1.0, 2.0]], 1j, None, 2.0])
def test_constants_that_are_no_arrays_of_numbers(value: Any) -> None:
    with pytest.raises(UserError, match="the constant `A` is"):
        Cell(CONSTANT, consts={"A": value})


def test_a_name_is_no_cell_and_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match="'lstm' is a name"):
        Cell("lstm")


def test_a_check_of_a_huge_size_is_refused() -> None:
    with pytest.raises(UserError, match="would not end"):
        Cell("state h: 9000000*H\nh[t] = h[t-1]/2").check()
