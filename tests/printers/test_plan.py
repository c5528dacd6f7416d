"""What `bptt plan` prints: a cell of one phase, one of two, and one with reductions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sweeps_of import program, sweep

from bptt.calculus.schedule import schedule
from bptt.printers.plan import show_plan

GOLDEN = Path(__file__).parent.parent / "golden" / "plan"


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["lstm", "gru_cho", "layernorm_lstm"])
def test_plans_read_as_they_did(cell: str, order: str) -> None:
    p = sweep(cell, order)
    kept = [n for n in p.outputs if n not in program(cell).outputs] if order == "forward" else []
    shown = show_plan(schedule(p), kept)
    path = GOLDEN / f"{cell}.{order}.txt"
    if os.environ.get("BPTT_UPDATE_GOLDEN"):
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")


def test_every_series_and_sum_is_shown() -> None:
    plan = schedule(sweep("iosif", "backward"))
    shown = show_plan(plan)
    made = {e.name for phase in plan.loop for e in phase.body}
    made |= {n for g in plan.time_gemms for n in g.outs}
    for name in made:
        assert name.replace("$", ".") in shown
