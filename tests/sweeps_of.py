"""The sweeps that come of a cell, as a layer runs them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from bptt import cells
from bptt.calculus.derive import adjoint
from bptt.calculus.rewrites import layer, lower, nearly_known, remade, with_outputs
from bptt.calculus.tangent import jvp
from bptt.ir.program import Program, refs
from bptt.language.check import check

# Unspecified functions of the seeds, bound to something smooth.
FUNCTIONS = {
    "iosif": {"f_ι": "sigmoid", "f_φ": "sigmoid", "f_ω": "sigmoid", "f_c": "tanh", "f_h": "tanh"},
    "sancho": {"F": "softmax", "G": "g(y, l) = sum((y - l)**2)/2"},
}

SWEEPS = ("forward", "backward", "second", "tangent", "tangent of backward")
# the backward one that makes again what costs nothing, and that of a layer that runs backwards
AHEAD = ("ahead", "ahead, reversed")


@cache
def program(cell: str, *, whole: bool = False) -> Program:
    """A cell's Program, lowered: the layer's part of it, or `whole` with readout and loss."""
    p = check(cells.read(cell), functions=FUNCTIONS.get(cell)).program
    return lower(p if whole else layer(p))


@cache
def sweep(cell: str, order: str) -> Program:
    """One of SWEEPS or AHEAD; the forward one gives back what the backward one reads."""
    p = program(cell)
    if order == AHEAD[1]:
        p = replace(p, dir=-p.dir)
    backward = adjoint(p, (*p.outputs, *(s.name for s in p.states))).program
    match order:
        case "forward":
            steps = {e.name for e in p.steps()}
            return with_outputs(p, [v.name for v in backward.values if v.name in steps])
        case "backward":
            return backward
        case "ahead" | "ahead, reversed":
            return _remaking(backward, p)
        case "second":
            return adjoint(backward).program
        case "tangent":
            return jvp(p).program
        case _:
            return jvp(backward).program


def _remaking(backward: Program, p: Program) -> Program:
    made: set[str] = set()
    for e in p.steps():
        given = e.name in {v.name for v in backward.values}
        if given and nearly_known(backward, e.rhs) and made.isdisjoint(n for n, _ in refs(e.rhs)):
            other = remade(backward, e.name, p)
            if other is not None:
                backward = other
                made.add(e.name)
    return backward
