"""Cells against the libraries that have them too: numbers that those gave, once.

`scripts/elsewhere` writes the files; its README says how. A cell's `# equals:` lines are its
claims, and each stands for one file.
"""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tolerances import ELSEWHERE, MUTATION

from bptt import cells
from bptt.calculus.rewrites import layer, lower, with_outputs
from bptt.ir.dims import shape_of
from bptt.ir.ports import At, inputs, outputs
from bptt.language.check import check
from bptt.nn import run

FILES = sorted((Path(__file__).parents[1] / "golden" / "elsewhere").glob("*.json"))
Recorded = dict[str, Any]


@cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def load(path: Path) -> Recorded:
    return json.loads(_read(path))


def outcome(recorded: Recorded) -> dict[tuple[str, str], np.ndarray]:
    """What we make of the recorded values, by kind and name: all that a library gives, and the
    gradient of the recorded weights' product with it."""
    text = cells.read(recorded["cell"])
    whole = check(text, functions=recorded["functions"]).program
    p = lower(layer(with_outputs(whole, recorded["series"])))
    kinds = ("inputs", "params", "consts", "starts")
    given = {name: value for kind in kinds for name, value in recorded[kind].items()}
    assert set(given) == {port.name for port in inputs(p)}
    leaves: dict[str, torch.Tensor] = {}
    for port in inputs(p):
        leaf = torch.tensor(given[port.name], dtype=torch.float64)
        if port.at is At.CONST:
            assert leaf.shape == shape_of(p.dims(port.name), recorded["sizes"])
        leaves[port.name] = leaf.requires_grad_(port.name not in recorded["consts"])
    found: dict[tuple[str, str], torch.Tensor] = {}
    made = run(p, [leaf[None] for leaf in leaves.values()])
    for port, value in zip(outputs(p), made, strict=True):
        found["series" if port.at is At.STEPS else "finals", port.name] = value[0]
    loss = torch.zeros((), dtype=torch.float64)
    for kind in ("series", "finals"):
        for name, weights in recorded[f"{kind}_weights"].items():
            loss = loss + (found[kind, name] * torch.tensor(weights)).sum()
    loss.backward()
    for name in recorded["gradients"]:
        grad = leaves[name].grad
        found["gradients", name] = torch.zeros_like(leaves[name]) if grad is None else grad
    return {key: value.detach().numpy() for key, value in found.items()}


def differences(recorded: Recorded) -> dict[tuple[str, str], float]:
    """How far we are from every recorded tensor, as a part of its largest entry (at least 1)."""
    ours, found = outcome(recorded), {}
    for kind in ("series", "finals", "gradients"):
        for name, theirs in recorded[kind].items():
            true = np.array(theirs)
            assert ours[kind, name].shape == true.shape
            scale = max(1.0, np.abs(true).max())
            found[kind, name] = np.abs(ours[kind, name] - true).max() / scale
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_library_gives_the_same_numbers(path: Path) -> None:
    recorded = load(path)
    assert path.name.startswith(f"{recorded['cell']}.")
    assert recorded["series"]
    limit = ELSEWHERE[recorded["dtype"]]
    wrong = {key: off for key, off in differences(recorded).items() if not off <= limit}
    assert not wrong


def test_numbers_that_are_a_little_off_are_seen() -> None:
    recorded = load(FILES[0])
    for kind in ("series", "finals", "gradients"):
        for name in recorded[kind]:
            planted = copy.deepcopy(recorded)
            planted[kind][name] = (np.array(recorded[kind][name]) * MUTATION).tolist()
            off = differences(planted)[kind, name]
            assert off > ELSEWHERE[recorded["dtype"]]


def claims(name: str) -> list[tuple[str, str, str]]:
    """What a cell claims: its name, a class, and a library with its version."""
    found: list[tuple[str, str, str]] = []
    for claim in cells.about(name).equals:
        read = re.fullmatch(r"(\S.*) \((\S+ [\d.]+)\)", claim)
        assert read, f"{name}: a claim reads `class (library version)`, not {claim!r}"
        found.append((name, read[1], read[2]))
    return found


def test_every_claim_has_its_numbers_and_all_numbers_their_claim() -> None:
    claimed = sorted(claim for name in cells.names() for claim in claims(name))
    recorded = sorted((r["cell"], r["class"], r["library"]) for r in map(load, FILES))
    assert claimed == recorded
