"""Every pass on the way to what people read keeps the meaning: the oracle agrees, before and
after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from awkward import AWKWARD
from programs import PROGRAMS
from subjects import NAMES, load
from tolerances import MUTATION, REWRITE

from bptt.calculus.derive import Derived, derive
from bptt.calculus.lines import copies, weight
from bptt.calculus.readable import PASSES, By, readable
from bptt.calculus.rewrites import lower
from bptt.cell import Cell
from bptt.ir.dims import shape_of
from bptt.ir.ops import const, mul
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Kind, Program, refs
from bptt.printers.people.reading import derivation
from bptt.proof import sampling
from bptt.proof.oracle import run
from bptt.proof.sweeps import forward

Array = Any
LENGTH = 3
SUBJECTS = (*NAMES, *AWKWARD)
BYS: tuple[By, ...] = ("preactivations", "gates")


@cache
def derived(name: str) -> Derived:
    return derivation(Cell(AWKWARD[name]).program if name in AWKWARD else load(name))


class Sample:
    """Random values of a forward pass and of what its outputs get from outside."""

    def __init__(self, d: Derived, rng: np.random.Generator) -> None:
        self.d, self.rng = d, rng
        self.sizes = sampling.sizes_for(d.of)
        given = {port: self.normal(d.of, port) for port in inputs(d.of)}
        self.values = forward(d.of, given, self.sizes, LENGTH)
        self.direct: dict[Port, Array] = {}

    def normal(self, p: Program, port: Port) -> Array:
        shape = shape_of(p.dims(port.name), self.sizes)
        return self.rng.normal(size=(LENGTH, *shape) if port.at is At.STEPS else shape)

    def given(self, p: Program) -> dict[Port, Array]:
        """A value for every port of a form of the derived sweep."""
        found: dict[Port, Array] = {}
        starts = {s.name for s in self.d.of.states}
        kept = {of.attr[0]: copy for copy, of in copies(self.d.of).items()}
        for port in inputs(p):
            name = port.name
            if port.at is At.START:
                found[port] = np.zeros(shape_of(p.dims(name), self.sizes))
            elif port.at is At.FIRST and (name in starts or name in kept):
                found[port] = self.values[Port(kept.get(name, name), At.START)]
            elif port in self.values:
                found[port] = self.values[port]
            elif port.at is At.LAST:
                # beyond the last step: whatever it is, it must not matter
                found[port] = self.normal(p, port)
            else:
                found[port] = self.direct.setdefault(port, self.normal(p, port))
        return found

    def results(self, p: Program) -> Mapping[Port, Array]:
        found = run(p, self.given(p), self.sizes, length=LENGTH)
        wanted = {port for port in self.d.results.values() if port in outputs(self.d.program)}
        return {port: array for port, array in found.items() if port in wanted}


def assert_same(name: str, one: Mapping[Port, Array], other: Mapping[Port, Array]) -> None:
    assert one.keys() == other.keys(), name
    for port, array in one.items():
        error = np.max(np.abs(array - other[port]), initial=0)
        assert error <= REWRITE * max(1.0, np.max(np.abs(array), initial=0)), (name, port, error)


@pytest.mark.parametrize("by", BYS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_pass_keeps_the_meaning(name: str, by: By, rng: np.random.Generator) -> None:
    d = derived(name)
    sample = Sample(d, rng)
    p = d.program
    true = sample.results(p)
    assert true
    for rewritten in PASSES[by]:
        p = rewritten(p, d)
        assert_same(rewritten.__name__, true, sample.results(p))


def test_a_form_that_is_a_little_wrong_is_seen(rng: np.random.Generator) -> None:
    d = derived("lstm")
    sample = Sample(d, rng)
    p = readable(d)
    true = sample.results(d.program)
    for wrong in p.equations:
        if wrong.kind is Kind.STEP:
            scaled = replace(wrong, rhs=mul(const(MUTATION), wrong.rhs))
            lines = tuple(scaled if e is wrong else e for e in p.equations)
            with pytest.raises(AssertionError):
                assert_same(wrong.name, true, sample.results(replace(p, equations=lines)))


@pytest.mark.parametrize("name", SUBJECTS)
def test_no_line_reads_a_carry_or_stands_for_another(name: str) -> None:
    d = derived(name)
    p = readable(d)
    carries = {port.name for port in d.results.values() if port.at is At.FINAL}
    results = {e.name for e in p.emits} | carries
    for e in p.equations:
        assert not carries & {read for read, _ in refs(e.rhs)}, e.name
        if e.kind is Kind.STEP and e.name not in results:
            assert e.rhs.op not in ("ref", "const"), e.name
            assert any(e.name == read for x in p.equations for read, _ in refs(x.rhs)), e.name


def test_the_second_derivative_is_rewritten_too(rng: np.random.Generator) -> None:
    first = derive(lower(PROGRAMS["lstm"]()))
    d = derivation(first)
    sample = Sample(d, rng)
    assert_same("second", sample.results(d.program), sample.results(readable(d)))


def test_what_is_shared_forty_times_over_stays_short() -> None:
    lines = ["input x: H", "u0[t] = x[t] + h[t-1]"]
    lines += [f"u{k}[t] = tanh(u{k - 1}[t])*u{k - 1}[t]" for k in range(1, 40)]
    p = readable(derivation(Cell("\n".join([*lines, "h[t] = u39[t]"])).program))
    assert weight(*p.equations) < 40 * 40
