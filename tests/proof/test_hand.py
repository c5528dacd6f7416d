"""The numbers of hand-written lines: every operator and function against NumPy, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import OP_DERIVATIVE

from bptt.errors import CellError
from bptt.language.hand import read
from bptt.language.parse import parse_definition
from bptt.proof.functions import FUNCTIONS
from bptt.proof.hand import Evaluation, evaluate
from bptt.proof.world import MisfitError, Val, World

Array = Any
T, H, X = 4, 3, 5


def series(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=(T + 2, *shape))


def a_world() -> World:
    rng = np.random.default_rng(7)
    known = {name: series(rng, H) for name in ("u", "v", "w")}
    known |= {
        "x": series(rng, X),
        "k": series(rng),
        "M": series(rng, H, X),
        "p": series(rng, 2 * H),
    }
    known["p"] = np.abs(known["p"]) + 0.5
    constants = {"W": rng.normal(size=(H, X)), "U": rng.normal(size=(H, H))}
    constants |= {"b": rng.normal(size=H), "c": rng.normal(size=()), "l": rng.normal(size=2 * H)}
    functions = {
        "f": parse_definition("f(v) = tanh(v)*v"),
        "F": parse_definition("F(v) = softmax(v)*cumsum(v)"),
        "G": parse_definition("G(y, l) = sum((y - l)**2)"),
    }
    kinds = {"f": "elementwise", "F": "vector", "G": "scalar"}
    macros = {"twice": parse_definition("twice(v) = v + v")}
    return World(T, {"H": H, "X": X}, known, constants, functions, macros, kinds)


WORLD = a_world()


class At:
    """The names of the world at a step, for what NumPy gives."""

    def __init__(self, t: int) -> None:
        self.t = t

    def __getattr__(self, name: str) -> Array:
        return WORLD.constants[name] if name in WORLD.constants else self.of(name)

    def of(self, name: str, by: int = 0) -> Array:
        return WORLD.series[name][self.t + 1 + by]


def tree(text: str) -> Any:
    return read([f"q = {text}"]).lines[0].right


def value(text: str) -> Val:
    return evaluate(tree(text), WORLD, np.arange(T))


def softmax(v: Array) -> Array:
    return np.exp(v) / np.exp(v).sum()


def sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def embedded(v: Array, start: int, size: int) -> Array:
    found = np.zeros(size)
    found[start : start + len(v)] = v
    return found


def summed(f: Callable[[At], Array]) -> Array:
    return sum(f(At(t)) for t in range(T))


SAME: dict[str, Callable[[At], Array]] = {
    # names and times
    "u[t]": lambda a: a.u,
    "u[t-1]": lambda a: a.of("u", -1),
    "u[t+1]": lambda a: a.of("u", 1),
    "u[T]": lambda a: At(T - 1).u,
    "u[T-1]": lambda a: At(T - 2).u,
    "u[-1]": lambda a: At(-1).u,
    "u[0]": lambda a: At(0).u,
    "u[t+9]": lambda a: np.zeros(H),
    "W": lambda a: a.W,
    "H*u[t]": lambda a: H * a.u,
    # operators
    "u[t] + v[t]*2 - w[t]/3": lambda a: a.u + a.v * 2 - a.w / 3,
    "-u[t]**2": lambda a: -(a.u**2),
    "p[t]**0.5": lambda a: np.sqrt(a.p),
    "p[t]**-1.5": lambda a: a.p**-1.5,
    "p[t]**c": lambda a: a.p**a.c,
    "k[t]*W + c": lambda a: a.k * a.W + a.c,
    "M[t]*W": lambda a: a.M * a.W,
    # products
    "W @ x[t]": lambda a: a.W @ a.x,
    "W.T @ u[t]": lambda a: a.W.T @ a.u,
    "u[t] @ W": lambda a: a.u @ a.W,
    "u[t].T @ W": lambda a: a.u @ a.W,
    "U @ W @ x[t]": lambda a: a.U @ a.W @ a.x,
    "M[t].T @ U": lambda a: a.M.T @ a.U,
    "u[t].T @ v[t]": lambda a: a.u @ a.v,
    "u[t] @ x[t].T": lambda a: np.outer(a.u, a.x),
    "u[t] @ (x[t].T)": lambda a: np.outer(a.u, a.x),
    "(u[t] + v[t]).T @ (w[t])": lambda a: (a.u + a.v) @ a.w,
    "k[t] @ u[t]": lambda a: a.k * a.u,
    "outer(u[t], x[t])": lambda a: np.outer(a.u, a.x),
    "dot(u[t], b)": lambda a: a.u @ a.b,
    "diag(u[t])": lambda a: np.diag(a.u),
    "diag(U)": lambda a: np.diag(a.U),
    "diag(u[t]) @ U @ diag(v[t])": lambda a: np.diag(a.u) @ a.U @ np.diag(a.v),
    # over time
    "sum_t(outer(u[t], x[t]))": lambda a: summed(lambda s: np.outer(s.u, s.x)),
    "sum_t(u[t+1]*v[t-1])": lambda a: summed(lambda s: s.of("u", 1) * s.of("v", -1)),
    "sum_t(b)": lambda a: T * a.b,
    "u[t] + sum_t(v[t])": lambda a: a.u + summed(lambda s: s.v),
    # elementwise functions
    "tanh(u[t])": lambda a: np.tanh(a.u),
    "sin(u[t]) + cos(u[t])": lambda a: np.sin(a.u) + np.cos(a.u),
    "sigmoid(u[t])": lambda a: sigmoid(a.u),
    "σ(u[t])": lambda a: sigmoid(a.u),
    "exp(u[t])": lambda a: np.exp(a.u),
    "log(p[t])": lambda a: np.log(a.p),
    "sqrt(p[t])": lambda a: np.sqrt(a.p),
    "relu(u[t])": lambda a: np.maximum(a.u, 0),
    "softplus(u[t])": lambda a: np.log1p(np.exp(a.u)),
    "logsigmoid(u[t])": lambda a: np.log(sigmoid(a.u)),
    "softsign(u[t])": lambda a: a.u / (1 + abs(a.u)),
    "abs(u[t])*sign(v[t])": lambda a: abs(a.u) * np.sign(a.v),
    "positive(u[t])": lambda a: (a.u > 0) * 1.0,
    "prefer(u[t], v[t])": lambda a: (a.u > a.v) * 1.0,
    "same(u[t], u[t])": lambda a: np.ones(H),
    "max(u[t], v[t])": lambda a: np.maximum(a.u, a.v),
    "min(u[t], 0)": lambda a: np.minimum(a.u, 0),
    # functions of vectors
    "max(u[t])": lambda a: np.max(a.u),
    "min(u[t])": lambda a: np.min(a.u),
    "sum(u[t])": lambda a: np.sum(a.u),
    "sum(M[t])": lambda a: np.sum(a.M),
    "mean(u[t])": lambda a: np.mean(a.u),
    "softmax(u[t])": lambda a: softmax(a.u),
    "log_softmax(u[t])": lambda a: np.log(softmax(a.u)),
    "cross_entropy(u[t], v[t])": lambda a: -np.sum(a.v * np.log(softmax(a.u))),
    "cumsum(u[t])": lambda a: np.cumsum(a.u),
    "rcumsum(u[t])": lambda a: np.cumsum(a.u[::-1])[::-1],
    # joined and cut
    "concat(u[t], k[t], 1, x[t])": lambda a: np.concatenate([a.u, [a.k], [1], a.x]),
    "stack(W, M[t])": lambda a: np.concatenate([a.W, a.M]),
    "stack(u[t], b)": lambda a: np.concatenate([a.u, a.b]),
    "p[t][:H]": lambda a: a.p[:H],
    "p[t][H:2*H]": lambda a: a.p[H:],
    "W[1:, :H]": lambda a: a.W[1:, :H],
    "W[:, X-1:]": lambda a: a.W[:, X - 1 :],
    "part(p[t], 2, 2)": lambda a: a.p[H:],
    "rows(U, 2, 3)": lambda a: a.U[1:2],
    "cols(U, 3, 3)": lambda a: a.U[:, 2:],
    "repeat(u[t], 2)": lambda a: np.repeat(a.u, 2),
    "fold(p[t], 2)": lambda a: a.p.reshape(-1, 2).sum(1),
    "fill(k[t], H, X)": lambda a: np.full((H, X), a.k),
    "embed(u[t], 1, X)": lambda a: embedded(a.u, 1, X),
    "embed(U, 0, H, 2, X)": lambda a: np.pad(a.U, ((0, 0), (2, X - H - 2))),
    "eye(H)": lambda a: np.eye(H),
    "lower(H)": lambda a: np.tri(H),
    "each(H, 2)": lambda a: np.repeat(np.eye(H), 2, axis=0),
    # a cell's own functions, and derivatives
    "twice(u[t])": lambda a: 2 * a.u,
    "f(u[t])": lambda a: np.tanh(a.u) * a.u,
    "tanh'(u[t])": lambda a: 1 - np.tanh(a.u) ** 2,
    "tanh'(k[t])": lambda a: 1 - np.tanh(a.k) ** 2,
    "tanh'(W)": lambda a: 1 - np.tanh(a.W) ** 2,
    "σ'(u[t])": lambda a: sigmoid(a.u) * (1 - sigmoid(a.u)),
    "f'(u[t])": lambda a: (1 - np.tanh(a.u) ** 2) * a.u + np.tanh(a.u),
    "twice'(u[t])": lambda a: np.full(H, 2.0),
    "softmax'(u[t])": lambda a: np.diag(softmax(a.u)) - np.outer(softmax(a.u), softmax(a.u)),
    "cumsum'(u[t])": lambda a: np.tri(H),
    "F'(u[t])": lambda a: (
        np.diag(np.cumsum(a.u)) @ (np.diag(softmax(a.u)) - np.outer(softmax(a.u), softmax(a.u)))
        + np.diag(softmax(a.u)) @ np.tri(H)
    ),
    "dG_du(u[t], v[t])": lambda a: 2 * (a.u - a.v),
    "dG_dv(u[t], v[t])": lambda a: -2 * (a.u - a.v),
    "dG_d2(u[t], v[t])": lambda a: -2 * (a.u - a.v),
}


@pytest.mark.parametrize("text", SAME)
def test_a_line_means_what_numpy_says(text: str) -> None:
    found = value(text).array
    assert len(found) in (1, T)
    for t in range(T):
        true = np.asarray(SAME[text](At(t)))
        mine = found[t if len(found) == T else 0]
        assert mine.shape == true.shape
        assert np.max(np.abs(mine - true)) <= OP_DERIVATIVE * max(1.0, np.max(np.abs(true)))


def test_every_function_is_tried() -> None:
    tried = {e.name for text in SAME for e in Evaluation(tree(text), WORLD, np.arange(T)).order}
    assert set(FUNCTIONS) - tried == {"jac"}  # which asks the cell: test_exact.py


def test_what_has_no_time_is_computed_once() -> None:
    assert len(value("W @ W.T").array) == 1
    assert len(value("sum_t(u[t])").array) == 1
    assert len(value("W @ x[t]").array) == T


def test_a_part_may_have_another_value() -> None:
    run = Evaluation(tree("u[t]*(v[t] + w[t])"), WORLD, np.arange(T))
    part = next(e for e in run.order if e.name == "v")
    found = run.instead(part, value("b"))
    assert isinstance(found, Val)
    true = value("u[t]*(b + w[t])").array
    assert np.array_equal(found.array, true)


def test_a_gradient_that_no_line_has_given_yet_is_nothing() -> None:
    here = World(**{**WORLD.__dict__, "unset": {"d"}})
    for text, true in {"u[t] + U @ d[t+1]": "u[t]", "u[t] - d[t+1]*v[t]": "u[t]"}.items():
        assert np.array_equal(evaluate(tree(text), here, np.arange(T)).array, value(true).array)
    minus = evaluate(tree("d[t+1] - u[t]"), here, np.arange(T))
    assert np.array_equal(minus.array, value("-u[t]").array)
    assert evaluate(tree("U @ d[t+1]"), here, np.arange(T)).nothing


MISFITS = {
    "u[t] + x[t]": ("a vector (H) beside a vector (X)", "u[t] + x[t]"),
    "k[t] + u[t]*W": ("a vector (H) beside a matrix (H, X)", "u[t]*W"),
    "W @ u[t]": ("a matrix (H, X) @ a vector (H)", "W @ u[t]"),
    "u[t] @ M[t].T": ("a vector (H) @ a matrix (X, H)", "u[t] @ M[t].T"),
    "W @ W": ("a matrix (H, X) @ a matrix (H, X)", "W @ W"),
    "u[t] @ v[t]": (
        "`@` between two vectors: write `dot(v, w)`, `outer(v, w)` or `v @ w.T`",
        "u[t] @ v[t]",
    ),
    "dot(u[t], x[t])": ("`dot` of a vector (H), a vector (X)", "dot(u[t], x[t])"),
    "dot(u[t], 2)": ("`dot` of a vector (H), a number", "dot(u[t], 2)"),
    "outer(k[t], u[t])": ("`outer` of a number and a vector (H)", "outer(k[t], u[t])"),
    "softmax(W)": ("`softmax` of a matrix (H, X)", "softmax(W)"),
    "diag(W)": ("`diag` of a matrix (H, X)", "diag(W)"),
    "diag(c)": ("`diag` of a number", "diag(c)"),
    "concat(u[t], W)": (
        "`concat` takes vectors and numbers; matrices are stacked: `stack`",
        "concat(u[t], W)",
    ),
    "stack(W, U)": ("`stack` of a matrix (H, X), a matrix (H, H)", "stack(W, U)"),
    "2**u[t]": ("the exponent is no number", "2**u[t]"),
    "p[t][:7]": ("`:7` lies outside of 6 numbers", "p[t][:7]"),
    "p[t][4:H]": ("`4:H` lies outside of 6 numbers", "p[t][4:H]"),
    "W[:H]": ("1 slices of a matrix (H, X)", "W[:H]"),
    "part(u[t], 1, 2)": ("there is no part 1 of 2 of a vector (H)", "part(u[t], 1, 2)"),
    "part(u[t], 4, 3)": ("there is no part 4 of 3 of a vector (H)", "part(u[t], 4, 3)"),
    "cols(u[t], 1, 1)": ("there is no part 1 of 1 of a vector (H)", "cols(u[t], 1, 1)"),
    "repeat(W, 2)": ("`repeat` of a matrix (H, X)", "repeat(W, 2)"),
    "fold(x[t], 2)": ("`fold` of a vector (X) by 2", "fold(x[t], 2)"),
    "fill(u[t], H)": ("`fill` with a vector (H)", "fill(u[t], H)"),
    "embed(u[t], 1, H)": ("`embed` of a vector (H)", "embed(u[t], 1, H)"),
    "embed(u[t], 0, H, 0, H)": ("`embed` of a vector (H)", "embed(u[t], 0, H, 0, H)"),
    "eye(9999)": ("`eye(9999)` has more than 1048576 numbers", "eye(9999)"),
    "fill(1, 2*H - X - X)": ("the size `2*H - X - X` is -4", "fill(1, 2*H - X - X)"),
    "tanh''(u[t])": ("one prime, of a function of one value, is understood here", "tanh''(u[t])"),
    "mean'(u[t])": ("`mean'` is not understood; write out what it is", "mean'(u[t])"),
}


@pytest.mark.parametrize("text", MISFITS)
def test_misfits_are_named_with_their_sizes(text: str) -> None:
    what, part = MISFITS[text]
    with pytest.raises(MisfitError) as caught:
        value(text)
    span = caught.value.span
    assert (caught.value.what, span.source[span.start : span.end]) == (what, part)


def test_a_misfit_inside_is_the_misfit_of_the_whole() -> None:
    run = Evaluation(tree("tanh(u[t] + x[t])*v[t]"), WORLD, np.arange(T))
    with pytest.raises(MisfitError, match="a vector \\(H\\) beside a vector \\(X\\)"):
        _ = run.value


def test_a_size_that_nobody_knows() -> None:
    with pytest.raises(CellError, match="there is no size `N`"):
        value("fill(1, N)")
