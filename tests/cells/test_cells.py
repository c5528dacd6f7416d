"""The library of cells: data that reads, and the first page of Gomez's numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bptt import cells
from bptt.errors import UserError
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import MACHINE
from bptt.language.check import check
from bptt.proof.oracle import run


def test_unknown_cells_are_named_with_their_neighbours() -> None:
    with pytest.raises(UserError, match="unknown cell `lstn`") as caught:
        cells.read("lstn")
    assert caught.value.help == "did you mean `lstm`?"


def test_a_cell_is_a_short_file(cell: str) -> None:
    text = cells.read(cell)
    lines = text.split("\n")
    assert sum(bool(line) and not line.startswith("#") for line in lines) <= 15
    assert max(map(len, lines)) <= 100
    assert text.endswith("\n")
    checked = check(text)
    assert checked.source == text
    for e in checked.program.equations:
        assert e.origin in text or MACHINE in e.name


def test_a_cell_says_what_it_is_and_where_its_equations_are_from(cell: str) -> None:
    head = cells.about(cell)
    assert re.fullmatch(r"[^:\"]{3,70}", head.title), "begin with `# Title: authors, paper (year)`"
    assert head.family in cells.FAMILIES, f"say `# family:` one of {', '.join(cells.FAMILIES)}"
    assert head.source, "say `# from:` where the equations come from"


def test_families_hold_every_cell_once_in_their_order() -> None:
    found = cells.families()
    assert sorted(name for members in found.values() for name in members) == list(cells.names())
    assert [family for family in cells.FAMILIES if family in found] == [*filter(None, found)]


def test_a_cell_without_a_family_is_listed_behind_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = {"a": "h[t] = tanh(h[t-1])\n", "b": "# B: C (1990)\n# family: gru\nh[t] = h[t-1]\n"}
    monkeypatch.setattr(cells, "names", lambda: tuple(texts))
    monkeypatch.setattr(cells, "read", texts.__getitem__)
    assert cells.families() == {"gru": ("b",), "": ("a",)}


def test_the_worked_example_of_gomez() -> None:
    p = check(cells.read("gomez")).program
    values = {
        "W_a": [[0.45, 0.25]],
        "W_i": [[0.95, 0.8]],
        "W_f": [[0.7, 0.45]],
        "W_o": [[0.6, 0.4]],
        "U_a": [[0.15]],
        "U_i": [[0.8]],
        "U_f": [[0.1]],
        "U_o": [[0.25]],
        "b_a": [0.2],
        "b_i": [0.65],
        "b_f": [0.15],
        "b_o": [0.1],
        "x": [[1, 2], [0.5, 3]],
        "y": [[0.5], [1.25]],
    }
    given = {port: np.array(values.get(port.name, [0.0])) for port in inputs(p)}
    out = run(p, given, {"X": 2, "H": 1}, every=True)

    def found(name: str, digits: int = 5) -> list[float]:
        return out[Port(name, At.STEPS)].ravel().round(digits).tolist()

    # as printed; four digits of state and out, whose fifth the post cuts or has off by one
    assert found("a") == [0.81775, 0.84980]
    assert found("i") == [0.96083, 0.98118]
    assert found("f") == [0.85195, 0.87030]
    assert found("o") == [0.81757, 0.84993]
    assert found("state", 4) == [0.7857, 1.5176]
    assert found("out", 4) == [0.5363, 0.7720]
    assert round(sum(found("E", 17)), 9) == 0.114910363
