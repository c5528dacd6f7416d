"""The exact values that lines are judged with, against torch: every gradient of a value is that by
a small number added to it where it is read: everywhere, at its own step, at the step after."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from tolerances import TORCH

from bptt.language.check import check
from bptt.language.hand import read
from bptt.proof.exact import LENGTH, Sample, labels, world
from bptt.proof.hand import evaluate
from bptt.proof.world import World

torch = pytest.importorskip("torch")
Array = Any

CELL = """\
input x: X
a[t] = tanh(W @ x[t] + U @ h[t-1] + b)
f[t] = sigmoid(V @ h[t-1] + p*c[t-1])
c[t] = f[t]*c[t-1] + (1 - f[t])*a[t]
h[t] = tanh(c[t])*f[t]
output h
"""
LOSS = """\
loss:
input y: H
E[t] = sum((h[t] - y[t])**2)/2 + dot(c[t], y[t])
"""
VALUES, STATES = ("a", "f", "c", "h"), ("h", "c")


@cache
def exact(text: str, sample: Sample) -> World:
    return world(check(text), sample, {}, {})


class Pushed:
    """The cell in torch. To every value at every step something is added that is zero: `all` where
    anybody reads it, `now` where its own step does, `next` where the step after does, `z` to the
    argument of its function."""

    def __init__(self, w: World, *, loss: bool) -> None:
        self.w, self.loss = w, loss
        names = [f"{kind} {n}" for kind in ("all", "now", "next", "z") for n in VALUES]
        size = w.series["h"].shape[1]
        self.pushes = {n: torch.zeros(LENGTH, size, requires_grad=True) for n in names}
        self.params = {n: self.leaf(w.constants[n]) for n in ("W", "U", "V", "b", "p")}
        self.x = self.leaf(w.series["x"][1:-1])
        self.start = {n: self.leaf(w.series[n][0]) for n in STATES}
        self.losses = self.run()

    def leaf(self, array: Array) -> Any:
        return torch.tensor(array, requires_grad=True)

    def run(self) -> list[Any]:
        """The losses of the steps."""
        p, push = self.params, self.pushes
        h, c = self.start["h"], self.start["c"]
        losses: list[Any] = []
        for t in range(LENGTH):

            def value(name: str, found: Any, t: int = t) -> tuple[Any, Any]:
                found = found + push[f"all {name}"][t]
                return found + push[f"now {name}"][t], found + push[f"next {name}"][t]

            za = p["W"] @ self.x[t] + p["U"] @ h + p["b"] + push["z a"][t]
            zf = p["V"] @ h + p["p"] * c + push["z f"][t]
            a, _ = value("a", torch.tanh(za))
            f, _ = value("f", torch.sigmoid(zf))
            c_now, c = value("c", f * c + (1 - f) * a)
            h_now, h = value("h", torch.tanh(c_now) * f)
            losses.append(self.of_step(t, h_now, c_now))
        return losses

    def of_step(self, t: int, h: Any, c: Any) -> Any:
        if self.loss:
            y = torch.tensor(self.w.series["y"][t + 1])
            return ((h - y) ** 2).sum() / 2 + c @ y
        seen = {n: torch.tensor(self.w.series[f"direct_{n}"][t + 1]) for n in STATES}
        return h @ seen["h"] + c @ seen["c"]

    def by(self, leaf: Any, losses: list[Any] | None = None) -> Array:
        """The gradient of a sum of losses, of all steps if none are given."""
        total = sum(self.losses if losses is None else losses)
        (found,) = torch.autograd.grad(total, [leaf], retain_graph=True, allow_unused=True)
        return np.zeros(leaf.shape) if found is None else found.numpy()


def pushed(text: str, sample: Sample) -> tuple[World, Pushed]:
    torch.set_default_dtype(torch.float64)
    try:
        w = exact(text, sample)
        return w, Pushed(w, loss="loss" in text)
    finally:
        torch.set_default_dtype(torch.float32)


CASES = {
    "a loss": (CELL + LOSS, Sample(seed=1)),
    "a loss, from zero": (CELL + LOSS, Sample(seed=2, zero=True)),
    "a gradient from outside": (CELL, Sample(seed=3, seen=("c",))),
    "a gradient from outside by the output alone": (CELL, Sample(seed=4)),
}


def near(found: Array, true: Array) -> bool:
    return found.shape == true.shape and bool(np.max(np.abs(found - true)) <= TORCH)


@pytest.mark.parametrize("case", CASES)
def test_totals(case: str) -> None:
    w, run = pushed(*CASES[case])
    for name in VALUES:
        assert near(w.series[f"d_{name}"][1:-1], run.by(run.pushes[f"all {name}"])), name
    for name in ("a", "f"):
        assert near(w.series[f"dz_{name}"][1:-1], run.by(run.pushes[f"z {name}"])), name
    assert near(w.series["d_x"][1:-1], run.by(run.x))
    for name, leaf in run.params.items():
        assert near(w.constants[f"d_{name}"], run.by(leaf)), name


@pytest.mark.parametrize("case", CASES)
def test_what_a_state_gets_from_its_own_step_and_from_the_next(case: str) -> None:
    w, run = pushed(*CASES[case])
    for name in STATES:
        now, later = (run.by(run.pushes[f"{kind} {name}"]) for kind in ("now", "next"))
        assert near(w.series[f"now_{name}"][1:-1], now), name
        assert near(w.series[f"next_{name}"][1:-1], later), name
        assert not np.any(w.series[f"next_{name}"][LENGTH])  # nothing reads the last one
        assert near(w.series[f"d_{name}"][0], run.by(run.start[name]))
        assert near(w.series[f"next_{name}"][0], run.by(run.start[name]))


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("a loss")])
def test_what_values_get_from_the_loss_of_their_step(case: str) -> None:
    w, run = pushed(*CASES[case])
    for name in VALUES:
        push = run.pushes[f"all {name}"]
        true = np.array([run.by(push, [loss])[t] for t, loss in enumerate(run.losses)])
        assert near(w.series[f"direct_{name}"][1:-1], true), name


def test_what_the_loss_is_taken_not_to_read_gets_nothing_from_it() -> None:
    w = exact(*CASES["a gradient from outside by the output alone"])
    assert not np.any(w.series["direct_c"])
    assert np.all(w.series["direct_h"][1:-1])


def test_gradients_are_zero_behind_the_last_step_and_values_stay() -> None:
    w = exact(*CASES["a loss"])
    for name, array in w.series.items():
        if name.startswith(("d_", "dz_", "direct_", "next_", "now_")):
            assert not np.any(array[-1]), name
        else:
            assert np.array_equal(array[-1], array[-2]), name


def test_samples() -> None:
    text = CELL + LOSS
    warm, zero = exact(text, Sample()), exact(text, Sample(zero=True))
    other, sums = exact(text, Sample(seed=1)), exact(text, Sample(sums=True))
    for name in STATES:
        assert np.all(warm.series[name][0])
        assert not np.any(zero.series[name][0])
    assert not np.array_equal(warm.series["x"], other.series["x"])
    assert labels(check(text).program) == ["y"]
    assert near(sums.series["y"][1:-1].sum(-1), np.ones(LENGTH))
    assert not near(warm.series["y"][1:-1].sum(-1), np.ones(LENGTH))


# --- Jacobians ------------------------------------------------------------------------------------


def step(w: World, state: Mapping[str, Any], t: int, held: Mapping[str, Any]) -> dict[str, Any]:
    """One step of the cell in torch; `held` values stay as they are."""
    k = {n: torch.tensor(w.constants[n]) for n in ("W", "U", "V", "b", "p")}
    x = torch.tensor(w.series["x"][t + 1])
    found = dict(held)
    found.setdefault("a", torch.tanh(k["W"] @ x + k["U"] @ state["h"] + k["b"]))
    found.setdefault("f", torch.sigmoid(k["V"] @ state["h"] + k["p"] * state["c"]))
    found.setdefault("c", found["f"] * state["c"] + (1 - found["f"]) * found["a"])
    found.setdefault("h", torch.tanh(found["c"]) * found["f"])
    return found


def jacobian(w: World, y: str, x: str, steps: int, t: int, held: tuple[str, ...]) -> Array:
    """How y at t moves with x, `steps` before it, in torch."""

    def at(name: str, k: int) -> Any:
        return torch.tensor(w.series[name][k + 1])

    def moved(value: Any) -> Any:
        first = t - steps
        state = {n: at(n, first) for n in STATES} | {x: value}
        if first >= 0:  # what comes after x in its own step moves too
            state = step(w, {n: at(n, first - 1) for n in STATES}, first, {x: value})
        for k in range(t - steps + 1, t + 1):
            state = step(w, state, k, {n: at(n, k) for n in held})
        return state[y]

    return torch.autograd.functional.jacobian(moved, at(x, t - steps)).numpy()


JACOBIANS: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "jac(h[t], h[t-1])": ("h", "h", 1, ()),
    "jac(h[t], c[t-1])": ("h", "c", 1, ()),
    "jac(c[t], c[t-1], f)": ("c", "c", 1, ("f",)),
    "jac(c[t], c[t-1], f, a)": ("c", "c", 1, ("f", "a")),
    "jac(h[t], c[t])": ("h", "c", 0, ()),
    "jac(c[t], h[t-2])": ("c", "h", 2, ()),
}


@pytest.mark.parametrize("text", JACOBIANS)
def test_jacobians(text: str) -> None:
    w = exact(*CASES["a loss"])
    y, x, steps, held = JACOBIANS[text]
    spelled = text.replace(", f", ", f[t]").replace(", a", ", a[t]")
    found = evaluate(read([f"q = {spelled}"]).lines[0].right, w, np.arange(LENGTH)).array
    for t in range(LENGTH):
        inside = t - steps >= -1
        true = jacobian(w, y, x, steps, t, held) if inside else np.zeros_like(found[t])
        assert near(found[t], true), t


def test_nothing_moves_with_what_comes_later() -> None:
    w = exact(*CASES["a loss"])
    found = evaluate(read(["q = jac(h[t], h[t+1])"]).lines[0].right, w, np.arange(LENGTH)).array
    assert not np.any(found)
