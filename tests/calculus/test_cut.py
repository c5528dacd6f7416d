"""`cut` and `joined`: a sweep without its recurrence, and one that computes again what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from programs import PROGRAMS
from shapes import Shape, sizes_of
from subjects import NAMES, load
from tolerances import REWRITE

from bptt.calculus.derive import adjoint, primal_ports
from bptt.calculus.rewrites import cut, joined, lower, nearly_known, remade
from bptt.calculus.schedule import schedule
from bptt.calculus.tangent import jvp
from bptt.ir import ops
from bptt.ir.dims import shape_of
from bptt.ir.ports import At, Port, ahead, inputs, outputs
from bptt.ir.program import Equation, Kind, Program, Role, Value
from bptt.language.canonical import read
from bptt.printers.text import text
from bptt.proof.sweeps import forward

SHAPE = Shape(4, 1, (4, 2, 3))
T = SHAPE.steps
Arrays = Mapping[Port, np.ndarray]
every_program = pytest.mark.parametrize("name", NAMES)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["its way", "the other way"])


def values(p: Program, rng: np.random.Generator, known: Arrays | None = None) -> Arrays:
    """Everything in a run of `p`, whose inputs are `known` or random."""
    given: dict[Port, np.ndarray] = {}
    sizes = sizes_of(p, SHAPE)
    for port in inputs(p):
        shape = shape_of(p.dims(port.name), sizes)
        # from 0.2 to 0.9: some divide by what they read, or take its root
        shape = (T, *shape) if port.at is At.STEPS else shape
        given[port] = (known or {}).get(port, rng.uniform(0.2, 0.9, size=shape))
    return forward(p, given, sizes, T)


def seen_from(p: Program, source: Program, known: Arrays) -> Arrays:
    """The inputs of `p`, which reads values of `source`: where a state starts is an edge of it."""
    found = {port: known[of] for port, of in primal_ports(source, p).items() if of in known}
    return {**known, **found}


def assert_same(found: Arrays, expected: Arrays, names: set[str]) -> None:
    ports = [port for port in found if port.name in names and port in expected]
    assert {port.name for port in ports} == names
    for port in ports:
        scale = max(1.0, np.abs(expected[port]).max(initial=0.0))
        error = np.abs(found[port] - expected[port]).max(initial=0.0)
        assert error <= REWRITE * scale, f"{port} is off by {error:.1e}"


def subjects(name: str) -> list[Program]:
    """A program, its backward pass and its tangent, whose states are the machine's."""
    p = lower(load(name))
    return [p, adjoint(p).program, jvp(p).program]


@both_ways
@every_program
def test_every_name_keeps_its_meaning(name: str, reverse: bool, rng: np.random.Generator) -> None:
    for p in subjects(name):
        part = cut(p, reverse=reverse)
        assert part.dir == (-p.dir if reverse else p.dir)
        assert not part.states
        known = values(p, rng)
        found = values(part, rng, seen_from(part, p, known))
        assigned = {e.name for e in part.equations}
        assert assigned == {e.name for e in p.equations} - {s.name for s in p.states}
        assert set(part.outputs) == assigned & set(p.outputs)
        assert_same(found, known, assigned)


@every_program
def test_a_cut_program_has_no_loop(name: str) -> None:
    p = lower(load(name))
    assert schedule(p).loop
    assert not schedule(cut(p)).loop
    assert not schedule(cut(p, reverse=True)).loop


@every_program
def test_cut_programs_have_a_text(name: str) -> None:
    part = cut(lower(load(name)), reverse=True)
    again = read(text(part))
    assert [e.rhs for e in again.equations] == [e.rhs for e in part.equations]
    assert again.values == part.values


def test_what_else_is_given() -> None:
    p = lower(PROGRAMS["antisymmetric"]())
    part = cut(p, ("A", "z"))
    assert part.value("A").dims == ("H", "H")
    assert {v.name for v in part.values} - {v.name for v in p.values} == {"A", "z", "h"}
    assert not {"A", "z", "h"} & {e.name for e in part.equations}
    assert cut(replace(p, outputs=("z", "h")), ("h",)).outputs == ("z",)


@every_program
def test_joined_computes_what_was_given(name: str, rng: np.random.Generator) -> None:
    """The backward pass and the tangent, of the states' values alone."""
    p = lower(load(name))
    known = values(p, rng)
    states = {s.name for s in p.states}
    assigned = {e.name for e in p.equations}
    for d in (adjoint(p), jvp(p)):
        program = joined(cut(p, reverse=d.program.dir != p.dir), d.program)
        assert {v.name for v in program.values} & assigned <= states
        reads = {v.name for v in d.program.values} & assigned - states
        assert reads <= {e.name for e in program.equations}
        assert outputs(program) == outputs(d.program)
        one = values(d.program, rng, seen_from(d.program, p, known))
        found = values(program, rng, seen_from(program, p, {**known, **one}))
        assert_same(found, one, {e.name for e in d.program.equations})


def test_joined_takes_no_more_than_it_needs() -> None:
    p = lower(PROGRAMS["lstm"]())
    line = Equation("q", Kind.STEP, ops.ref("o", 0, ("H",)))
    q = Program(1, (Value("o", ("H",), Role.GIVEN),), (line,), (), ("q",))
    found = joined(cut(p), q)
    assert [e.name for e in found.equations] == ["z$o", "o", "q"]
    assert [v.name for v in found.values] == ["x", "W_o", "U_o", "b_o", "h"]
    other = Program(1, (Value("other", ("H",), Role.GIVEN),), (), (), ())
    assert joined(cut(p), other) is other
    with pytest.raises(AssertionError):
        joined(p, q)
    with pytest.raises(AssertionError):
        joined(cut(p, reverse=True), q)


@every_program
def test_what_is_made_again_is_what_was_given(name: str, rng: np.random.Generator) -> None:
    """One value after the other, and all gradients are what they were."""
    p = lower(load(name))
    known = values(p, rng)
    d = adjoint(p).program
    want = values(d, rng, seen_from(d, p, known))
    names = [e.name for e in p.steps() if e.name in {v.name for v in d.values}]
    for part in filter(None, (remade(d, e, p) for e in names)):
        assert [e.rhs for e in read(text(part)).equations] == [e.rhs for e in part.equations]
        one = {port: a for port, a in want.items() if port in inputs(d)}
        found = values(part, rng, seen_from(part, p, {**known, **one}))
        assert outputs(part) == outputs(d)
        assert_same(found, want, {e.name for e in d.equations})


def test_what_can_be_made_again() -> None:
    """Of values of its step, if only sums read it ahead; and what that costs."""
    p = lower(PROGRAMS["lstm"]())
    d = adjoint(p).program
    part = remade(d, "h", p)
    assert part is not None
    assert ahead(part) == ["h"]
    assert [port for port in inputs(part) if port.name == "h"] == [Port("h", At.FIRST)]
    assert {*inputs(d)} - {*inputs(part)} == {Port("h", At.STEPS)}
    assert nearly_known(d, p.equation("h").rhs)
    assert not nearly_known(d, p.equation("g").rhs)
    assert remade(d, "c", p) is None  # it is made of the step before
    with pytest.raises(AssertionError, match="`d_U_o` reads `h` ahead: derive what"):
        adjoint(part)
    gru = lower(PROGRAMS["gru_cho"]())
    assert remade(adjoint(gru).program, "h", gru) is None  # steps read it ahead
