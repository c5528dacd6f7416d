"""Dropout and zoneout as rewrites: what is masked, and that every derivative is right."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sweeps_of import FUNCTIONS
from tolerances import REWRITE

from bptt import cells
from bptt.calculus import noise
from bptt.calculus.resets import resets
from bptt.calculus.rewrites import layer, lower
from bptt.errors import UserError
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import Program, refs
from bptt.language.check import check as checked
from bptt.proof import sampling
from bptt.proof.gradcheck import check
from bptt.proof.oracle import run


@cache
def cell(name: str) -> Program:
    functions = FUNCTIONS.get(name, {})
    return lower(layer(checked(cells.read(name), functions=functions).program))


def reads(p: Program, name: str) -> set[tuple[str, int]]:
    return set(refs(p.equation(name).rhs))


# --- what is masked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("lstm", ("c",)),
        ("peephole", ("c",)),
        ("coupled", ("c",)),
        ("gru", ("h",)),
        ("gru_cho", ("h",)),
        ("slstm", ("c", "n")),
        ("rnn", ()),
    ],
)
def test_states_with_an_update(name: str, states: tuple[str, ...]) -> None:
    assert noise.updated(cell(name)) == states


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("lstm", ("h",)),
        ("peephole", ("h",)),
        ("gru_cho", ("h",)),
        ("iosif", ("z_h", "s")),
        ("indrnn", ()),
        ("qrnn", ()),
    ],
)
def test_states_that_products_read(name: str, states: tuple[str, ...]) -> None:
    assert noise.multiplied(cell(name)) == states


def test_only_products_read_a_masked_state() -> None:
    """The published GRU multiplies `r[t] * h[t-1]`, and keeps `z[t] * h[t-1]` whole."""
    p = noise.drop_states(cell("gru_cho"), ["h"]).program
    whole = [e.name for e in p.steps() if ("h", 1) in set(refs(e.rhs))]
    assert whole == ["left$h", "h"]
    masked = {name for e in p.steps() for name, _ in refs(e.rhs) if ("left$h", 0) in refs(e.rhs)}
    assert "r" in masked  # the line r[t] * h[t-1], which the product with U_n reads


@pytest.mark.parametrize(("last", "states"), [("h[t-1]", ("h",)), ("s[t]", ())])
def test_a_line_belongs_to_a_product_where_nothing_else_reads_it(
    last: str, states: tuple[str, ...]
) -> None:
    text = "s[t] = r * h[t-1]; n[t] = W @ x[t] + U @ s[t]; h[t] = n[t] + a * "
    p = lower(layer(checked((text + last).replace("; ", "\n")).program))
    assert noise.multiplied(p) == states


def test_a_value_is_masked_for_all_who_read_it() -> None:
    p = noise.drop_updates(cell("gru"), ["n"]).program
    assert ("left$n", 0) in reads(p, "h")
    assert ("n", 0) not in reads(p, "h")


def test_zoneout_of_a_cell_state_is_not_read_within_the_step() -> None:
    p = noise.zoneout(cell("lstm"), ["c", "h"]).program
    assert ("new$c", 0) in reads(p, "new$h")
    assert ("c", 0) not in reads(p, "new$h")


def test_an_output_reads_what_a_state_became() -> None:
    """QRNN's h is no state: the paper zones out c and gives o * c."""
    p = noise.zoneout(cell("qrnn"), ["c"]).program
    assert ("c", 0) in reads(p, "h")


@pytest.mark.parametrize(
    ("rewrite", "cell_name", "name"),
    [
        (noise.drop_updates, "lstm", "x"),
        (noise.drop_updates, "rnn", "h"),
        (noise.drop_states, "lstm", "c"),
        (noise.drop_states, "lstm", "i"),
        (noise.zoneout, "lstm", "i"),
    ],
)
def test_a_name_that_does_not_fit(rewrite: noise.Rewrite, cell_name: str, name: str) -> None:
    with pytest.raises(UserError, match=f"`{name}`"):
        rewrite(cell(cell_name), [name])


# --- values and derivatives -----------------------------------------------------------------------

REWRITES = {
    "recurrent dropout": lambda p: noise.drop_updates(p, noise.updated(p)).program,
    "variational dropout": lambda p: noise.drop_states(p, noise.multiplied(p)).program,
    "zoneout": lambda p: noise.zoneout(p, noise.own_states(p)).program,
}


def everything(p: Program) -> Program:
    for rewrite in REWRITES.values():
        p = rewrite(p)
    return resets(p).program


@pytest.mark.parametrize("name", ["lstm", "gru_cho", "iosif"])
@pytest.mark.parametrize("how", REWRITES)
def test_a_mask_that_drops_nothing_changes_nothing(
    how: str, name: str, rng: np.random.Generator
) -> None:
    p = cell(name)
    changed = REWRITES[how](p)
    sizes = sampling.sizes_for(p, None, None)
    given = sampling.draw(p, 4, sizes, rng, {})
    drawn = sampling.draw(changed, 4, sizes, rng, {})
    masks = {port: a for port, a in drawn.items() if port not in given}
    assert masks
    assert all(port.at in (At.STEPS, At.STATIC) for port in masks)
    value = 0.0 if how == "zoneout" else 1.0
    found = run(changed, {**given, **{k: np.full_like(a, value) for k, a in masks.items()}}, sizes)
    for port, true in run(p, given, sizes).items():
        assert np.max(np.abs(found[port] - true)) <= REWRITE
    half = run(changed, {**given, **{k: np.full_like(a, 0.5) for k, a in masks.items()}}, sizes)
    output = Port(p.outputs[0], At.STEPS)
    assert np.max(np.abs(half[output] - found[output])) > REWRITE


@pytest.mark.parametrize(("name", "order"), [("lstm", 1), ("gru_cho", 2)])
def test_every_derivative_of_all_together(name: str, order: int) -> None:
    p = everything(cell(name))
    assert {"drop$h", "zone$h", "reset$", "begin$h"} < {port.name for port in inputs(p)}
    report = check(p, order=order, length=3)
    assert report.ok, report.text()
