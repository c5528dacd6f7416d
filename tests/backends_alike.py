"""What every backend is held to: the oracle, on every sweep, on awkward shapes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from shapes import GRID, Shape, draw, expected, packed
from subjects import CORE
from sweeps_of import AHEAD, sweep
from tolerances import BACKEND, BACKEND_SECOND

from bptt.calculus.derive import adjoint
from bptt.calculus.rewrites import layer, lower
from bptt.calculus.tangent import jvp
from bptt.ir.ports import At, inputs, outputs
from bptt.ir.program import Program
from bptt.language.check import check

Execute = Callable[..., Any]

# Of each something is made again in the backward pass: for sums to read a step ahead of them, in
# one phase or several, by reductions' inputs, for the same step only.
REMADE = (
    "lstm",
    "gomez",
    "sancho",
    "shakespeare",
    "jimenez",
    "peephole_full",
    "greff_cifg",
    "fs_lstm2",
    "hyper_lstm",
    "layernorm_lstm",
    "lstmp",
    "nested_lstm",
    "ode_lstm",
    "time_aware_lstm",
    "brc",
)

KINDS = ("numpy", "torch")
# Two numbers less their mean, over their deviation, are 1 and -1 wherever they are: the slope is
# lost to rounding, in every implementation.
NORMALIZING = ("hyper_lstm",)

# Shapes of cell that the library's own do not have.
ODD = {
    "an input of the step before": """
        z[t] = tanh(W1 @ x[t-1] + W2 @ x[t])
        h[t] = h[t-1]*0.5 + z[t]""",
    "signs before matrices": "h[t] = tanh(-W @ x[t] - U @ h[t-1] + 0.5*b)",
    "two outputs, kinks": """
        h[t] = tanh(W @ x[t] + U @ h[t-1])
        k[t] = relu(h[t-1]) - max(k[t-1], h[t])
        output h, k""",
    "a delay line": """
        a[t] = tanh(W @ x[t] + U @ a[t-1])
        b[t] = a[t-1]
        h[t] = b[t-1]*a[t] + h[t-1]/2""",
    "softmax in the loop": """
        input y: H
        h[t] = softmax(W @ x[t] + U @ h[t-1])*y[t] + log_softmax(h[t-1])""",
    "a constant of matrices": """
        A = W - W.T
        z[t] = sigmoid(A @ h[t-1] + V @ x[t])
        h[t] = h[t-1] + 0.1*z[t]*tanh(A @ h[t-1])""",
    "concatenated operands": """
        z[t] = sigmoid(W @ concat(h[t-1], x[t]))
        h[t] = tanh(V @ concat(z[t]*h[t-1], x[t], 1)) + part(z[t], 1, 1)""",
    "cumulative sums and repetition": """
        state h: 3*K
        m[t] = cumsum(softmax(W @ x[t] + U @ h[t-1]))
        h[t] = repeat(m[t], 3)*tanh(V @ x[t]) + (1 - cumsum(h[t-1]))/4""",
    "stretches of matrices": """
        param W: (2*H, X)
        z[t] = rows(W, 2, 2) @ x[t] + cols(U, 1, 3) @ h[t-1]
        h[t] = tanh(rows(W, 1, 2) @ x[t] + z[t] + rows(U.T, 3, 3) @ z[t])""",
    "the identity": """
        A = W - W.T - γ*eye(H)
        h[t] = h[t-1] + 0.1*tanh((A + eye(H)) @ h[t-1] + eye(H) @ (V @ x[t]))""",
    "a gate of static attributes": """
        input s: S per sequence
        i = sigmoid(W_i @ s + b_i)
        f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + b_f)
        g[t] = tanh(W_g @ x[t] + U_g @ h[t-1] + b_g)
        c[t] = f[t]*c[t-1] + i*g[t]
        h[t] = tanh(c[t])""",
    "no recurrence to speak of": """
        h[t] = tanh(W @ x[t] + b) + 0*h[t-1]""",
    # what follows was found by random cells, and is as small as it gets
    "series that are constants": """
        input x: H
        k[t] = dot(b, c)
        m[t] = min(b, 0.37)
        s[t] = m[t]
        h[t] = s[t-1] + x[t]
        output h, k, m""",
    "a product that a smaller space of its level waits for": """
        input y: H
        param Q: (3*H, X)
        z[t] = Q @ h[t-1]
        u[t] = W @ y[t] + part(z[t], 1, 3)
        h[t] = V @ u[t]
        output h, z, u""",
    "states that swap": """
        input y: H
        a[t] = y[t] + b[t-1]
        n[t] = h[t-1]
        h[t] = n[t]
        b[t] = h[t-1] - a[t]
        output b""",
    "another name for what is computed last": """
        input x: X
        n[t] = h[t-1]
        h[t] = W @ x[t-1] + n[t]
        output n""",
    "a state whose rest is a delay": """
        input x: H
        k[t] = c[t-1] + W @ a[t-1]
        c[t] = h[t-1]
        a[t] = min(k[t], 0.37) + x[t]
        h[t] = a[t-1]""",
    "a number at the end of an operand": """
        input x: H, g: scalar
        param C: (X, H + H + 1), D: (H, H + 1)
        a[t] = D @ concat(h[t-1], g[t])
        h[t] = W @ (C @ concat(a[t], x[t], 1))""",
    "a sum that is a term of another": """
        input y: H
        param b: H
        n[t] = y[t]
        h[t] = W @ h[t-1] + (K @ b + y[t] + K @ n[t])""",
    "a gradient with sizes of its own": """
        input x: X
        param b: H, W: (H, P)
        K = sum(b)
        k[t] = tanh(sum(W))
        n[t] = K*x[t-1] + k[t-1]""",
    "a slice that is an operand": """
        param c: H + X + 1, Q: (4*H, X)
        input x: X
        n[t] = b
        h[t] = dot(c, concat(part(Q @ n[t-1], 3, 4), x[t-1], 1))
        output h""",
    "softmax without time": """
        param C: (X, H + X), b: H, d: X
        input x: H
        K = C @ concat(log_softmax(b), d)
        k = softmax(W @ K)
        h[t] = sum(k*part(concat(b, k), 1, 2))*x[t] + h[t-1]/3""",
    "a stack of delayed states": """
        input x: X, s: H per sequence
        param V: (H, X), U: (H, X)
        a[t] = W @ x[t]
        b[t] = x[t-1]
        h[t] = s + V @ a[t-1] + U @ b[t-1]""",
    "two sums of one level": """
        input x: H
        param c: H + H + 1, Q: (2*H, H), k: scalar
        input y: H
        n[t] = y[t]
        m[t] = dot(b, x[t])*(K.T @ n[t-1] + (x[t] - k))
        h[t] = dot(c, concat(x[t], part(Q @ (m[t] + m[t]), 2, 2), 1))""",
}


def odd(name: str, order: str) -> Program:
    """A sweep of one of the odd cells."""
    p = lower(layer(check(textwrap.dedent(ODD[name]).strip()).program))
    match order:
        case "forward":
            return p
        case "backward":
            return adjoint(p).program
        case "second":
            return adjoint(adjoint(p).program).program
        case _:
            return jvp(p).program


def run(
    execute: Execute,
    p: Program,
    shape: Shape,
    given: dict[Any, Any],
    kind: str,
    dtype: str = "float64",
) -> Any:
    """The backend's outputs as NumPy arrays."""
    counts = shape.batch_sizes()
    arrays = [
        given[port] if counts is None or port.at is not At.STEPS else packed(given[port], counts)
        for port in inputs(p)
    ]
    arrays = [np.asarray(a, dtype) for a in arrays]
    if kind == "torch":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        arrays = [torch.from_numpy(a) for a in arrays]
    return [np.asarray(a) for a in execute(p, arrays, counts)]


def assert_close(name: str, got: Any, want: Any, limit: float) -> None:
    """Values, shapes and numbers: the worst entry is named."""
    assert got.shape == want.shape, f"{name}: shape {got.shape}, not {want.shape}"
    assert np.isfinite(got).all(), f"{name} holds what nobody wrote"
    if got.size:
        error = np.abs(got - want)
        worst = np.unravel_index(np.argmax(error), error.shape)
        scale = max(np.abs(want).max(), 1.0)
        assert error[worst] <= limit * scale, f"{name}{worst}: {got[worst]}, not {want[worst]}"


def held_to_the_oracle(
    execute: Execute, cell: str, order: str, kind: str, rng: np.random.Generator
) -> None:
    """One sweep of a cell of the library."""
    p = sweep(cell, order)
    first = order in ("forward", "backward", "tangent", *AHEAD)
    limit = BACKEND["float64"] if first else BACKEND_SECOND
    few = GRID[2:5:2] + GRID[-1:]
    whole = order in AHEAD or (cell in CORE and order in ("forward", "backward"))
    shapes = GRID if whole else few
    if cell in NORMALIZING:
        shapes = tuple(s for s in shapes if min(s.sizes) > 2)
    for shape in shapes:
        given = draw(p, shape, rng)
        got = run(execute, p, shape, given, kind)
        want = expected(p, shape, given)
        for port, a in zip(outputs(p), got, strict=True):
            if port in want:
                assert_close(f"{cell} {order} {shape} {port.name}", a, want[port], limit)
            else:  # no sequence at all: nothing to sum
                assert np.all(a == 0), f"{cell} {order} {shape} {port.name} of no sequences"


def odd_held_to_the_oracle(
    execute: Execute, name: str, order: str, kind: str, rng: np.random.Generator
) -> None:
    """One sweep of an odd cell."""
    p = odd(name, order)
    for shape in GRID:
        given = draw(p, shape, rng)
        want = expected(p, shape, given)
        for port, a in zip(outputs(p), run(execute, p, shape, given, kind), strict=True):
            if port in want:
                assert_close(f"{name} {order} {shape} {port}", a, want[port], BACKEND["float64"])


def float32_held_to_the_oracle(
    execute: Execute, cell: str, kind: str, rng: np.random.Generator
) -> None:
    """Forward and backward in single precision."""
    shape = GRID[2]
    for order in ("forward", "backward"):
        p = sweep(cell, order)
        given = draw(p, shape, rng)
        want = expected(p, shape, given)
        for port, a in zip(outputs(p), run(execute, p, shape, given, kind, "float32"), strict=True):
            assert a.dtype == np.float32
            assert_close(f"{cell} {order} {port.name}", a, want[port], BACKEND["float32"])
