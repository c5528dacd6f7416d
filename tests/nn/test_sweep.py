"""The sweeps that gradients need: for each choice of outputs that have an adjoint and of inputs
that want one. What is left out of a sweep must change nothing of what is left in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from programs import PROGRAMS
from subjects import CORE
from sweeps_of import program
from tolerances import BACKEND, BACKEND_SECOND

from bptt import cells
from bptt.backends.reference import execute
from bptt.calculus.rewrites import layer, lower
from bptt.ir.dims import shape_of
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Program
from bptt.nn.sweep import From, Sweep, sweep_of
from bptt.proof import oracle

SIZES = {"X": 2, "H": 3, "P": 5, "S": 2}
T = 3
Flags = tuple[bool, ...]

# The core of the library, and what it has none of: constants over time, kinks, no input at all.
NAMES = (*CORE, "antisymmetric", "kinky", "autonomous")
every_cell = pytest.mark.parametrize("cell", NAMES)


def forward(cell: str) -> Sweep:
    known = cell in CORE
    return sweep_of(program(cell) if known else lower(layer(PROGRAMS[cell]())))


def one(count: int, k: int) -> Flags:
    return tuple(n == k for n in range(count))


def pulls(sweep: Sweep) -> Iterator[Sweep]:
    """Adjoint sweeps: all, for one output alone, for one input alone, for one of each."""
    given, wanted = len(sweep.outputs), len(sweep.inputs)
    every_output, every_input = (True,) * given, (True,) * wanted
    chosen = [(every_output, every_input)]
    chosen += [(one(given, k), every_input) for k in range(given)]
    chosen += [(every_output, one(wanted, k)) for k in range(wanted)]
    chosen += [(one(given, k % given), one(wanted, k % wanted)) for k in range(given + wanted)]
    found = {made.text: made for of in chosen if (made := sweep.pull(*of).sweep) is not None}
    yield from found.values()


def pushes(sweep: Sweep) -> Iterator[Sweep]:
    """Tangent sweeps: of all inputs, and of each alone."""
    count = len(sweep.inputs)
    for flags in ((True,) * count, *(one(count, k) for k in range(count))):
        made = sweep.push(flags).sweep
        assert made is not None
        yield made


def means_what_the_oracle_says(p: Program, rng: np.random.Generator, limit: float) -> None:
    given: dict[Port, np.ndarray] = {}
    for port in inputs(p):
        shape = shape_of(p.dims(port.name), SIZES)
        # from 0 to 1: some divide by what they read, or take its root
        given[port] = rng.uniform(size=(T, *shape) if port.at is At.STEPS else shape)
    truth = oracle.run(p, given, SIZES)
    found = execute(p, [_batched(p, port, a) for port, a in given.items()])
    for port, a in zip(outputs(p), found, strict=True):
        true = _batched(p, port, np.asarray(truth[port]))
        scale = max(1.0, np.abs(true).max(initial=0.0))
        assert a.shape == true.shape
        assert np.abs(a - true).max(initial=0.0) <= limit * scale, port


def _batched(p: Program, port: Port, a: np.ndarray) -> np.ndarray:
    """One sample as a batch of one, in one group."""
    if port.at is At.CONST:
        return a[None]
    a = a if p.dims(port.name) else a[..., None]
    return a[None, :, None] if port.at is At.STEPS else a[None, None]


@every_cell
def test_first_order(cell: str, rng: np.random.Generator) -> None:
    sweep = forward(cell).extended
    for derived in (*pulls(sweep), *pushes(sweep)):
        means_what_the_oracle_says(derived.program, rng, BACKEND["float64"])


@every_cell
def test_second_order(cell: str, rng: np.random.Generator) -> None:
    first = forward(cell).extended
    every = first.pull((True,) * len(first.outputs), (True,) * len(first.inputs)).sweep
    assert every is not None
    for derived in (*pulls(every.extended), *pushes(every.extended)):
        means_what_the_oracle_says(derived.program, rng, BACKEND_SECOND)


@every_cell
def test_extended_sweeps_are_the_sweeps_with_more_outputs(cell: str) -> None:
    sweep = forward(cell)
    longer = sweep.extended
    assert longer.extended is longer
    assert tuple(longer.outputs[k] for k in sweep.kept) == sweep.outputs
    assert longer.inputs == sweep.inputs


def test_nothing_comes_of_nothing() -> None:
    sweep = sweep_of(program("lstm")).extended
    given, wanted = len(sweep.outputs), len(sweep.inputs)
    assert sweep.pull((False,) * given, (True,) * wanted).sweep is None
    assert sweep.pull((True,) * given, (False,) * wanted).sweep is None
    assert sweep.pull((True,) * given, (True,) * wanted) is sweep.pull(
        (True,) * given, (True,) * wanted
    )


@pytest.mark.parametrize("cell", cells.names())
def test_backward_sweeps_do_without_what_they_make_again(
    cell: str, rng: np.random.Generator
) -> None:
    """Whatever is given and wanted, and whichever way the layer runs."""
    p = program(cell)
    for way in (1, -1):
        sweep = sweep_of(replace(p, dir=way * p.dir)).extended
        spare = {Port(name, At.STEPS) for name in sweep.spare}
        assert len(spare) == len(sweep.spare) and spare <= {*sweep.outputs}
        saved = (*sweep.inputs, *sweep.outputs)
        for share in (1.0, 0.5, 0.2):
            given, wanted = (
                tuple(bool(n < share) for n in rng.random(len(ports)))
                for ports in (sweep.outputs, sweep.inputs)
            )
            feed = sweep.pull(given, wanted, spare=True).feed
            assert not spare & {saved[k] for source, k in feed if source is From.SAVED}
