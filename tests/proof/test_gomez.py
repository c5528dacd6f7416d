"""Gomez's post, number by number: what he printed, what is exact, and what `trace` has.

A. Gomez, "Backpropogating an LSTM: A Numerical Example" (2016) prints 64 results: 12 forward, 20
backward, 16 gradients by parameters and 16 parameters after the update.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tolerances import PRINTED, TRACE

from bptt import cells
from bptt.cell import Cell
from bptt.printers.people.worked import Item, Worked
from bptt.proof.given import parse_values

GATES = "aifo"
RATE = 0.1
X = ((1.0, 2.0), (0.5, 3.0))
Y = (0.5, 1.25)
WEIGHTS = {
    "a": ((0.45, 0.25), 0.15, 0.2),
    "i": ((0.95, 0.8), 0.8, 0.65),
    "f": ((0.7, 0.45), 0.1, 0.15),
    "o": ((0.6, 0.4), 0.25, 0.1),
}


class Printed(NamedTuple):
    """A result of the post: what it is, at which step, and the digits as they stand there."""

    what: str
    digits: str


def printed() -> Iterator[Printed]:
    """All results that the post prints, in its order."""
    for t, row in enumerate(FORWARD):
        yield from (
            Printed(f"{n}[{t}]", d) for n, d in zip((*GATES, "state", "out"), row, strict=True)
        )
    names = ("Δ", "d_out", "d_state", *(f"dz_{g}" for g in GATES), "d_x1", "d_x2", "Δout")
    for t in (1, 0):
        yield from (Printed(f"{n}[{t}]", d) for n, d in zip(names, BACKWARD[t], strict=True))
    for start, table in (("d_", GRADIENTS), ("new ", UPDATED)):
        for k, name in enumerate(("W1", "W2", "U", "b")):
            yield from (
                Printed(f"{start}{name}_{g}", row[k]) for g, row in zip(GATES, table, strict=True)
            )


FORWARD = (
    ("0.81775", "0.96083", "0.85195", "0.81757", "0.78572", "0.53631"),
    ("0.84980", "0.98118", "0.87030", "0.84993", "1.5176", "0.77197"),
)
# Δ: what the label asks for. Δout: what goes back to the step before.
BACKWARD = {
    1: (
        *("-0.47803", "-0.47803", "-0.07111", "-0.01938", "-0.00112", "-0.00631", "-0.05538"),
        *("-0.04743", "-0.03073", "-0.01828"),
    ),
    0: (
        *("0.03631", "0.01803", "-0.05349", "-0.01703", "-0.00165", "0", "0.00176"),
        *("-0.00817", "-0.00487", "-0.00343"),
    ),
}
# W1, W2, U, b of a, i, f, o.
GRADIENTS = (
    ("-0.02672", "-0.0922", "-0.01039", "-0.03641"),
    ("-0.00221", "-0.00666", "-0.00060", "-0.00277"),
    ("-0.00316", "-0.01893", "-0.00338", "-0.00631"),
    ("-0.02593", "-0.16262", "-0.02970", "-0.05362"),
)
UPDATED = (
    ("0.45267", "0.25922", "0.15104", "0.20364"),
    ("0.95022", "0.80067", "0.80006", "0.65028"),
    ("0.70031", "0.45189", "0.10034", "0.15063"),
    ("0.60259", "0.41626", "0.25297", "0.10536"),
)
ALL = tuple(printed())

# Where the exact value, rounded as he rounds, has other digits: he went on with rounded numbers.
DIGITS = Path(__file__).parent.parent.parent / "docs" / "documents" / "gomez_digits.toml"
ERRATA = {d["what"]: d["exact"] for d in tomllib.loads(DIGITS.read_text("utf-8"))["digits"]}


@cache
def exact() -> dict[str, float]:
    """Every number of the post from its equations, by torch in float64."""
    leaf = {
        f"{name}_{g}": torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for g, (W, U, b) in WEIGHTS.items()
        for name, value in (("W", W), ("U", U), ("b", b))
    }
    x = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in X]
    start = torch.zeros((), dtype=torch.float64, requires_grad=True)
    out, state = start, torch.zeros((), dtype=torch.float64)
    seen: dict[str, torch.Tensor] = {}
    loss = torch.zeros((), dtype=torch.float64)
    for t in (0, 1):
        z = {
            g: torch.dot(leaf[f"W_{g}"], x[t]) + leaf[f"U_{g}"] * out + leaf[f"b_{g}"]
            for g in GATES
        }
        a, i, f, o = torch.tanh(z["a"]), *(torch.sigmoid(z[g]) for g in "ifo")
        state = a * i + f * state
        out = torch.tanh(state) * o
        loss = loss + (out - Y[t]) ** 2 / 2
        seen |= {
            f"{n}[{t}]": v
            for n, v in zip((*GATES, "state", "out"), (a, i, f, o, state, out), strict=True)
        }
        seen |= {f"z_{g}[{t}]": z[g] for g in GATES}
    wanted = {**seen, **leaf, "x[0]": x[0], "x[1]": x[1], "out[-1]": start}
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    by = {name: g.tolist() for name, g in zip(wanted, gradients, strict=True)}
    found = {name: value.item() for name, value in seen.items()}
    for t in (0, 1):
        found[f"Δ[{t}]"] = found[f"out[{t}]"] - Y[t]
        found[f"d_out[{t}]"], found[f"d_state[{t}]"] = by[f"out[{t}]"], by[f"state[{t}]"]
        found |= {f"dz_{g}[{t}]": by[f"z_{g}[{t}]"] for g in GATES}
        found[f"d_x1[{t}]"], found[f"d_x2[{t}]"] = by[f"x[{t}]"]
    found["Δout[1]"] = found["d_out[0]"] - found["Δ[0]"]
    found["Δout[0]"] = by["out[-1]"]
    for g, (W, U, b) in WEIGHTS.items():
        flat = dict(zip((f"W1_{g}", f"W2_{g}", f"U_{g}", f"b_{g}"), (*W, U, b), strict=True))
        slopes = (*by[f"W_{g}"], by[f"U_{g}"], by[f"b_{g}"])
        for (name, before), slope in zip(flat.items(), slopes, strict=True):
            found[f"d_{name}"], found[f"new {name}"] = slope, before - RATE * slope
    return found


@cache
def worked() -> Worked:
    return Cell.load("gomez").trace()


def traced(found: Worked) -> dict[str, float]:
    """The same numbers as `trace` has them."""
    items = {(found.spelled(i.line.name).text, i.t): i for i in (*found.steps, *found.back)}

    def number(name: str, t: int | None = None, k: int = 0) -> float:
        return float(np.ravel(items[name, t].value)[k])

    def parts(t: int) -> Item:
        return items["d_out", t]

    numbers = {f"{n}[{t}]": number(n, t) for n in (*GATES, "state", "out") for t in (0, 1)}
    for t in (0, 1):
        split = parts(t).split
        assert split is not None
        numbers[f"Δ[{t}]"] = split[0].item()
        numbers |= {f"{n}[{t}]": number(n, t) for n in ("d_out", "d_state")}
        numbers |= {f"dz_{g}[{t}]": number(f"dz_{g}", t) for g in GATES}
        numbers |= {f"d_x{k + 1}[{t}]": number("d_x", t, k) for k in (0, 1)}
    later = parts(0).split
    assert later is not None
    numbers["Δout[1]"], numbers["Δout[0]"] = later[1].item(), number("d_out", -1)
    after = {u.name: u.after for u in found.updates}
    for g in GATES:
        for flat, name, k in (("W1", "W", 0), ("W2", "W", 1), ("U", "U", 0), ("b", "b", 0)):
            numbers[f"d_{flat}_{g}"] = number(f"d_{name}_{g}", None, k)
            numbers[f"new {flat}_{g}"] = float(np.ravel(after[f"{name}_{g}"])[k])
    return numbers


def rounded(x: float, digits: str) -> str:
    """A number with as many decimals as the digits have; 0 stands for five."""
    return f"{x:.{len(digits.partition('.')[2]) or 5}f}"


def test_the_post_prints_64_results() -> None:
    assert len({p.what for p in ALL}) == len(ALL) == 64
    assert {p.what for p in ALL} == set(traced(worked()))


@pytest.mark.parametrize("result", ALL, ids=lambda p: p.what)
def test_a_number_of_the_post(result: Printed) -> None:
    true, ours = exact()[result.what], traced(worked())[result.what]
    assert abs(ours - true) <= TRACE
    assert abs(ours - float(result.digits)) <= PRINTED
    assert float(rounded(true, result.digits)) == float(ERRATA.get(result.what, result.digits))


def test_the_errata_name_what_he_prints_otherwise() -> None:
    found = {p.what: p.digits for p in ALL}
    assert set(ERRATA) <= set(found)
    assert all(ERRATA[what] != found[what] for what in ERRATA)
    assert len(ERRATA) == 19


def test_a_wrong_number_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (cells.example("gomez") or "").replace("[[1, 2], ", "[[1, 2.001], ")
    moved = Cell.load("gomez").trace(parse_values(text, "moved"))
    monkeypatch.setattr(f"{__name__}.worked", lambda: moved)
    seen = 0
    for result in ALL:
        try:
            test_a_number_of_the_post(result)
        except AssertionError:
            seen += 1
    assert seen > len(ALL) / 2
