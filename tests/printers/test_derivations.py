"""The derivations of cells, exactly. `BPTT_UPDATE_GOLDEN=1 pytest tests/printers` writes them anew:
look at what changed with the eye of somebody who has the paper open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from subjects import CORE

from bptt.cell import Cell
from bptt.printers.people import latex, plain
from bptt.printers.people.reading import reading

GOLDEN = Path(__file__).parent.parent / "golden" / "derive"
SHOWN = [f"{name}.txt" for name in CORE]  # docs/cells/ shows all
SHOWN += [f"{name}.gates.txt" for name in ("gru", "iosif", "lstm", "sancho")]
SHOWN += [f"{name}.tex" for name in ("iosif", "layernorm_lstm", "lstm", "sancho")]


def printed(file: str) -> str:
    name, *by, suffix = file.split(".")
    found = reading(Cell.load(name).program, "gates" if by else "preactivations")
    return latex.text(found) if suffix == "tex" else plain.text(found)


@pytest.mark.parametrize("file", SHOWN)
def test_a_derivation(file: str) -> None:
    path = GOLDEN / file
    if os.environ.get("BPTT_UPDATE_GOLDEN"):
        path.write_text(printed(file), encoding="utf-8")
    assert printed(file) == path.read_text(encoding="utf-8")


def test_no_derivation_is_left_over() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(SHOWN)
