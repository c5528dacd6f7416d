"""Fixtures that every test may ask for."""

from __future__ import annotations

import gc
import sys
import zlib
from typing import Any

import numpy as np
import pytest

from bptt import cells


def pytest_collection_finish() -> None:
    """Some sixteen thousand tests stay in memory to the end: nobody need look for them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that are the test's own, and the same in every run."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(params=cells.names())
def cell(request: pytest.FixtureRequest) -> str:
    """The name of each cell that comes with bptt."""
    return request.param


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is handed out empty holds NaN, so an element that nobody wrote is seen."""
    _poison(monkeypatch, np, ("empty", "empty_like"), lambda a: a.dtype.kind in "fc")
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        names = ("empty", "empty_like", "empty_strided")
        _poison(monkeypatch, torch, names, lambda a: a.is_floating_point() or a.is_complex())
        new_empty = torch.Tensor.new_empty

        def new(self: Any, *args: Any, **options: Any) -> Any:
            array = new_empty(self, *args, **options)
            return array.fill_(float("nan")) if array.is_floating_point() else array

        monkeypatch.setattr(torch.Tensor, "new_empty", new)


def _poison(
    monkeypatch: pytest.MonkeyPatch, module: Any, names: tuple[str, ...], fits: Any
) -> None:
    for name in names:
        allocate = getattr(module, name)

        def filled(*args: Any, allocate: Any = allocate, **options: Any) -> Any:
            array = allocate(*args, **options)
            if fits(array):
                array[...] = float("nan")
            return array

        monkeypatch.setattr(module, name, filled)
