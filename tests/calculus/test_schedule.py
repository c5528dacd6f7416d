"""The numbers of phases are those that the design counts, and every Plan is well formed."""

from __future__ import annotations

import pytest
from sweeps_of import SWEEPS, program, sweep

from bptt import cells
from bptt.calculus.derive import adjoint
from bptt.calculus.schedule import schedule
from bptt.cell import Cell
from bptt.errors import UserError
from bptt.ir.plan import Phase, Plan
from bptt.ir.program import refs

# Phases of (before, loop) forward and (loop, edge) backward, as counted by hand for the first
# cells. What all others have stands on their pages in docs/cells/, which are held to the plans.
PHASES = {
    "lstm": (1, 1, 1, 1),
    "gomez": (1, 1, 1, 1),
    "jimenez": (1, 1, 1, 1),
    "sancho": (1, 1, 1, 1),
    "shakespeare": (1, 1, 1, 1),
    "peephole": (1, 1, 1, 1),
    "gru": (1, 1, 1, 1),
    "gru_cho": (1, 2, 2, 1),
    "rnn": (1, 1, 1, 1),
    "lstmp": (1, 2, 2, 1),
    "iosif": (1, 4, 5, 1),
    # one phase fewer backward than was counted by hand: numbers are taken out of sums, so that
    # the sums of a level need not wait for each other
    "layernorm_lstm": (3, 5, 4, 1),
}


@pytest.mark.parametrize("cell", PHASES)
def test_numbers_of_phases(cell: str) -> None:
    forward, backward = schedule(sweep(cell, "forward")), schedule(sweep(cell, "backward"))
    counted = (len(forward.before), len(forward.loop), len(backward.loop), len(backward.edge))
    assert counted == PHASES[cell]


def test_second_order_of_the_lstm_is_shaped_like_its_forward_pass() -> None:
    """derive(derive(p)), seeded with what derive(p) gives back: one phase, one product."""
    b = adjoint(program("lstm")).program
    second = adjoint(b, (*b.outputs, *(e.value for e in b.emits))).program
    plan = schedule(second)
    assert len(plan.loop) == 1
    assert sum(len(g.outs) for phase in plan.loop for g in phase.gemms) == 4


def test_gates_are_one_product() -> None:
    plan = schedule(sweep("lstm", "forward"))
    (before,), (loop,) = (p.gemms for p in plan.before), (p.gemms for p in plan.loop)
    assert len(before) == len(loop) == 1
    assert len(before[0].outs) == len(loop[0].outs) == 4
    assert tuple(n.attr[0] for n in loop[0].plus if n is not None) == before[0].outs


def regions(plan: Plan) -> list[tuple[Phase, ...]]:
    """The four lists of phases."""
    return [plan.before, plan.loop, plan.edge, plan.after]


@pytest.mark.parametrize("order", SWEEPS)
@pytest.mark.parametrize("cell", cells.names())
def test_nothing_is_read_before_it_is_there(cell: str, order: str) -> None:
    plan = schedule(sweep(cell, order))
    known = {v.name for v in plan.program.values} | {e.name for e in plan.once}
    known |= {name for name, _ in plan.aliases}
    lagged = {r.name for r in (*plan.rolls, *plan.lagged)}
    for phases in regions(plan):
        for phase in phases:
            for g in phase.gemms:
                check_read(refs(*g.operands, *(p for p in g.plus if p is not None)), known, lagged)
                known |= set(g.outs)
            for e in phase.body:
                check_read(refs(e.rhs), known, lagged)
                known.add(e.name)
            for r in phase.reduces:
                check_read(refs(r.of), known, lagged)
            known |= {r.out for r in phase.reduces}
            check_read(refs(*(a.of for a in phase.accums)), known, lagged)
    for t in plan.time_gemms:
        check_read(refs(*t.left, *t.right), known, lagged)
    sums = {a.name for p in plan.after for a in p.accums} | {
        n for t in plan.time_gemms for n in t.outs
    }
    assert sums == {e.name for e in plan.program.equations if e.kind.value == "sum"}


def check_read(found: object, known: set[str], lagged: set[str]) -> None:
    """All references are to names that there are."""
    for name, lag in found:  # type: ignore[attr-defined]
        assert name in known or (lag == 1 and name in lagged), f"`{name}` at {lag}"


def test_a_sum_that_doubles_again_and_again_is_refused() -> None:
    """Forty short calls would be 2^40 terms: an error, and at once."""
    doubled = "W @ x[t]"
    for _ in range(40):
        doubled = f"f({doubled})"
    cell = Cell(f"f(v) = v + v\nh[t] = h[t-1] + {doubled}\n")
    with pytest.raises(UserError, match="more than 65,536 terms"):
        schedule(cell.lowered)
