"""Resets: a sweep that is set back means what it means from there on alone."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from subjects import load
from tolerances import REWRITE

from bptt.calculus.resets import resets
from bptt.calculus.rewrites import layer, lower
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import Program
from bptt.language.canonical import read
from bptt.printers.text import text
from bptt.proof import sampling
from bptt.proof.gradcheck import check
from bptt.proof.oracle import run

CELLS = ("lstm", "gru_cho", "slstm", "qrnn", "iosif")


@cache
def cell(name: str) -> Program:
    return lower(layer(load(f"{name}.cell")))


@pytest.mark.parametrize("name", CELLS)
def test_after_a_reset_all_is_as_in_a_sequence_that_begins_there(
    name: str, rng: np.random.Generator
) -> None:
    p = cell(name)
    found = resets(p)
    sizes = sampling.sizes_for(p, None, None)
    plain = sampling.draw(p, 5, sizes, rng, {})
    given = dict(plain)
    given[Port(found.reset, At.STEPS)] = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    later = {port: a[2:] if port.at is At.STEPS else a for port, a in plain.items()}
    for s, begin in zip(p.states, found.begin, strict=True):
        start = rng.normal(size=np.shape(plain[Port(s.name, At.START)]))
        given[Port(begin, At.STATIC)] = later[Port(s.name, At.START)] = start
    before = {port: a[:2] if port.at is At.STEPS else a for port, a in plain.items()}
    with np.errstate(over="ignore"):
        ours = run(found.program, given, sizes)
        pieces = [run(p, piece, sizes) for piece in (before, later)]
    for port, value in ours.items():
        if port.at is At.STEPS:
            true = np.concatenate([piece[port] for piece in pieces])
        else:
            true = pieces[1][port]
        assert np.max(np.abs(value - true)) <= REWRITE * max(1.0, np.max(np.abs(true)))


@pytest.mark.parametrize("name", ["lstm", "qrnn"])
def test_every_derivative(name: str) -> None:
    """To first order; test_noise has the second, of this and more."""
    report = check(resets(cell(name)).program, length=3)
    assert report.ok, report.text()


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_was_before_is_not_seen(bad: float, rng: np.random.Generator) -> None:
    """Not even times zero."""
    p = cell("lstm")
    found = resets(p)
    sizes = sampling.sizes_for(p, None, None)
    given = sampling.draw(p, 3, sizes, rng, {})
    given[Port(found.reset, At.STEPS)] = np.array([0.0, 1.0, 0.0])
    for s, begin in zip(p.states, found.begin, strict=True):
        given[Port(begin, At.STATIC)] = rng.normal(size=np.shape(given[Port(s.name, At.START)]))
    given[Port("c", At.START)] = np.full_like(given[Port("c", At.START)], bad)
    with np.errstate(invalid="ignore"):
        ours = run(found.program, given, sizes)
    series = ours[Port("h", At.STEPS)]
    assert np.isfinite(series[1:]).all()
    assert np.isfinite(ours[Port("c", At.FINAL)]).all()


def test_it_reads_back() -> None:
    for name in CELLS:
        p = resets(cell(name)).program
        assert text(read(text(p))) == text(p)
        kinds = {port.at for port in inputs(p)}
        assert kinds <= {At.STEPS, At.CONST, At.STATIC, At.START}  # so that windows can run it
