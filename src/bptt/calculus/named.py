"""A derived sweep with lines for the gradients that a reader has names for, and for no others."""

from __future__ import annotations

from collections.abc import Collection

from bptt.calculus.derive import Derived
from bptt.calculus.lines import results, without
from bptt.calculus.readable import (
    carried,
    explained,
    legible,
    simplified,
    sliced,
    sorted_lines,
    sorted_terms,
    through_values,
)
from bptt.ir.program import Program


def with_lines_for(d: Derived, values: Collection[str]) -> Program:
    """The sweep `d` with a line for the gradient by each of `values`, all others written out.

    Raises UserError where that is longer than any person could read.
    """
    kept = {d.names[v] for v in values if v in d.names}
    p = simplified(through_values(d.program, d), d)
    while e := next((e for e in p.steps() if e.name not in kept | results(p, d)), None):
        p = without(p, d, e.name)
        legible(p)
    for rewrites in (
        explained,
        simplified,
        carried,
        simplified,
        sliced,
        sorted_terms,
        sorted_lines,
    ):
        p = rewrites(p, d)
    return p
