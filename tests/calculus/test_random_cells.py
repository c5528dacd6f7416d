"""Random cells: their sweeps can be printed and read back, and the proof finds them right."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st
from printers.test_text import round_trip
from random_cells import JOINED, MATRICES, NUMBERS, REPEATED, SQUARES, VECTORS, cells, examples

from bptt.calculus.derive import adjoint
from bptt.calculus.rewrites import layer, lower
from bptt.calculus.tangent import jvp
from bptt.language.check import check
from bptt.language.terms import FUNCTIONS
from bptt.proof import gradcheck, sampling


def test_every_function_of_the_language_is_drawn() -> None:
    templates = (*VECTORS, *JOINED, *REPEATED, *NUMBERS, *MATRICES, *SQUARES)
    for name in FUNCTIONS:
        assert name in JOINED or any(f"{name}(" in template for template in templates), name


@examples(30)
@given(cells())
def test_text_and_back_to_the_same_nodes(source: str) -> None:
    p = check(source).program
    round_trip(p)
    for written in (lower(p), lower(layer(p))):
        round_trip(written)
        round_trip(jvp(written).program)
        backward = adjoint(written).program
        round_trip(backward)
        round_trip(adjoint(backward).program)


@examples(5)
@given(cells(), st.integers(0, 2**16))
def test_what_is_derived_is_proven(source: str, seed: int) -> None:
    p = check(source).program
    sizes = dict.fromkeys(sampling.sizes_for(p), 2) | {"X": 1}
    report = gradcheck.check(p, order=2, length=2, seed=seed, sizes=sizes)
    assume(not any(fault.startswith("no sample fit") for fault in report.faults))  # max(v, v)
    assert report.ok, report.text()
