"""The compiled backend is the oracle, on every sweep, on awkward shapes, in NaN-filled memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from backends_alike import (
    ODD,
    float32_held_to_the_oracle,
    held_to_the_oracle,
    odd_held_to_the_oracle,
)
from sweeps_of import SWEEPS
from token_sweeps import READING, tokens_held_to_the_oracle

from bptt import cells
from bptt.backends.cpu import execute


@pytest.fixture(params=(1, 2), ids=("one thread", "two threads"))
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def poisoned_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that a call takes is NaN too."""
    monkeypatch.setenv("BPTT_CFLAGS", "-DBPTT_POISON")


@pytest.mark.usefixtures("poisoned", "threads")
@pytest.mark.parametrize("order", SWEEPS)
@pytest.mark.parametrize("cell", cells.names())
def test_backend_is_the_oracle(cell: str, order: str, rng: np.random.Generator) -> None:
    held_to_the_oracle(execute, cell, order, "torch", rng)


@pytest.mark.usefixtures("poisoned", "threads")
@pytest.mark.parametrize("order", SWEEPS[:4])
@pytest.mark.parametrize("name", ODD)
def test_odd_cells(name: str, order: str, rng: np.random.Generator) -> None:
    odd_held_to_the_oracle(execute, name, order, "numpy", rng)


@pytest.mark.usefixtures("poisoned", "threads")
@pytest.mark.parametrize("order", SWEEPS[:4])
@pytest.mark.parametrize("cell", READING)
def test_tokens(cell: str, order: str, rng: np.random.Generator) -> None:
    tokens_held_to_the_oracle(execute, cell, order, "torch", rng)


@pytest.mark.parametrize("cell", cells.names())
def test_float32(cell: str, rng: np.random.Generator) -> None:
    float32_held_to_the_oracle(execute, cell, "torch", rng)
