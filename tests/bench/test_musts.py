"""The musts are the issue's table, and each is held against the rows that it speaks of."""

from __future__ import annotations

import pytest

from bptt import cells
from bptt.bench.compare import MEMORY, Row
from bptt.bench.musts import MUSTS, verdicts
from bptt.bench.problems import MODES, STEPPER, TEXT
from bptt.bench.shapes import GRID, Shape, shape_called
from bptt.bench.sides import PEERS
from bptt.bench.uses import DENSE, LOOP, USES


def factors(
    cell: str, against: str, mode: str, shape: Shape, ratio: float
) -> list[tuple[float, bool]]:
    row = Row(cell, shape, 1, mode, against, (1.0,), (ratio,))
    return [(found.must.factor, found.met) for found in verdicts([row])]


@pytest.mark.parametrize(
    ("cell", "against", "mode", "shape", "factor"),
    [
        ("lstm", "nn.LSTM", "infer", "100x1x64x64", 2.0),
        ("lstm", "nn.LSTM", "train", "100x1x64x64", 1.5),
        ("lstm", "nn.LSTM", "infer", "100x16x64x64", 1.5),
        ("lstm", "nn.LSTM", "train", "100x16x64x64", 1.2),
        ("lstm", "nn.LSTM", "infer", "100x64x128x128", 1.15),
        ("lstm", "nn.LSTM", "train", "64x32x256x256", 1.05),
        ("lstm", "nn.LSTM", "train", "finance", 1.05),
        ("lstm", "nn.LSTM", "infer", "35x20x650x650", 1.0),
        ("lstm", "nn.LSTM", "train", "50x64x1024x1024", 1.0),
        ("lstm", "nn.LSTMCell", "infer", "step", 1.3),
        ("peephole", "our lstm", "train", "audio", 1 / 1.1),
        ("jimenez", "our lstm", "infer", "hydrology", 1 / 1.1),
        ("greff_cifg", "jax", "train", "100x32x512x512", 1.4),
        ("peephole", "eager", "train", "100x16x64x64", 5.0),
        ("lstm", "nn.LSTMCell", "stepper", "step", 1.8),
        ("lstm", "nn.LSTM", "memory", "64x32x256x256", 2.5),
        ("lstm", "nn.LSTM", "text", "64x64x64x256", 1.1),
        ("a cell of mine", "our lstm", "text", "1x2x3x4", 1 / 1.1),
    ],
)
def test_a_row_is_held_against_its_line(
    cell: str, against: str, mode: str, shape: str, factor: float
) -> None:
    at = shape_called(shape)
    assert factors(cell, against, mode, at, factor) == [(factor, True)]
    assert factors(cell, against, mode, at, factor * 0.999) == [(factor, False)]


@pytest.mark.parametrize(
    ("cell", "against", "mode", "shape"),
    [
        ("gru_cho", "our lstm", "train", "100x16x64x64"),  # reported only
        ("peephole", "eager", "infer", "100x16x64x64"),
        ("peephole", "nn.LSTM", "train", "100x16x64x64"),
        ("lstm", "nn.LSTM", "infer", "step"),
        ("lstm", "nn.LSTM", "train", "audio"),
        ("lstm", "eager", "train", "100x16x64x64"),
        ("lstm", "nn.LSTM", "train", "100x16x64x65"),
        ("peephole", "nn.LSTMCell", "stepper", "step"),
        ("peephole", "nn.LSTM", "text", "64x64x64x256"),
    ],
)
def test_other_rows_are_only_reported(cell: str, against: str, mode: str, shape: str) -> None:
    assert factors(cell, against, mode, shape_called(shape), 0.1) == []


def test_rows_without_numbers_are_not_judged() -> None:
    assert verdicts([Row("lstm", GRID[0], 1, "infer", "nn.LSTM", why="no", red=True)]) == []


def test_musts_speak_of_what_there_is() -> None:
    for must in MUSTS:
        assert must.shapes or must.mode in (TEXT, *USES)
        assert must.cells or must.mode == TEXT
        assert must.mode in (*MODES, MEMORY, STEPPER, TEXT, *USES)
        assert set(must.cells) <= set(cells.names())
        assert set(must.against) <= {*PEERS, DENSE, LOOP}
        assert must.aim is None or must.factor < must.aim
