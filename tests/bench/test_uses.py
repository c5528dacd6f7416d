"""Layers as programs use them: measured once they are right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bptt.bench import uses as module
from bptt.bench.musts import MUSTS
from bptt.bench.runner import Effort
from bptt.bench.shapes import Shape
from bptt.bench.uses import USES, compare_uses
from bptt.nn import use_backend

SMALL = {mode: replace(use, shape=Shape(5, 6, 3, 4)) for mode, use in USES.items()}


def rows(monkeypatch: pytest.MonkeyPatch, uses: Any) -> dict[tuple[str, str], Any]:
    monkeypatch.setattr(module, "USES", uses)
    return {(row.mode, row.against): row for found in compare_uses([1], Effort(2)) for row in found}


def test_every_use_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows(monkeypatch, SMALL)
    assert set(found) == {
        ("stacked", "nn.LSTM"),
        ("ragged", "nn.LSTM"),
        ("ragged", "as dense"),
        ("per sample", "loop"),
        ("per sample", "nn.LSTM"),
    }
    for row in found.values():
        assert not row.red
        assert len(row.ours) == len(row.theirs) == 2
        assert min(*row.ours, *row.theirs) > 0


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_rows_name_the_backend_that_ran(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with use_backend(backend):
        found = rows(monkeypatch, {"ragged": SMALL["ragged"]})
    assert {row.backend for row in found.values()} == {backend}


@pytest.mark.parametrize(("mode", "side"), [(m, s) for m, use in USES.items() for s in use.judged])
def test_there_are_no_numbers_of_what_is_wrong(
    mode: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each side that is judged, with one number of one gradient changed."""
    use = SMALL[mode]

    def faulty(shape: Shape) -> Any:
        sides, truth = use.make(shape)
        right = sides[side]

        def wrong() -> list[Any]:
            *rest, last = (a.detach().clone() for a in right())
            last.view(-1)[0] += 0.01 * last.abs().max()
            return [*rest, last]

        return {**sides, side: wrong}, truth

    for row in rows(monkeypatch, {mode: replace(use, make=faulty)}).values():
        assert row.red and not row.ours
        assert row.why.startswith(f"{side}: tensor ")


def test_ragged_batches_have_half_of_the_steps() -> None:
    """As many as the dense batch beside them."""
    for shape in (USES["ragged"].shape, SMALL["ragged"].shape):
        sides, _ = USES["ragged"].make(shape)
        ours, dense = (sides[name]()[1] for name in ("ours", "as dense"))
        assert abs(ours.shape[0] - dense.shape[0] * dense.shape[1]) <= shape.T / 2
        assert abs(2 * ours.shape[0] - shape.T * shape.B) <= shape.T + shape.B


def test_every_use_has_a_must() -> None:
    assert {must.mode for must in MUSTS} > set(USES)
