"""JAX's `lax.scan` around a hand-written step. JAX is no dependency: it runs where it is there."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from bptt.bench.bodies import BODIES
from bptt.bench.problems import How, Pairs, Problem, Raw
from bptt.bench.sides import Ready, Unavailable, named

_started: list[int] = []  # how many threads JAX runs in this process: fixed when it is loaded


def prepare(problem: Problem, how: How) -> Ready:
    """The cell's step in `lax.scan`, compiled. Raises Unavailable."""
    jax, jnp = _load(how.threads)
    functions = SimpleNamespace(chunk=jnp.split, sigmoid=jax.nn.sigmoid, tanh=jnp.tanh)
    body = BODIES[problem.cell]
    step = body.step(functions)
    batch, width = problem.shape.B, problem.shape.H

    def forward(x: Any, W: Any, U: Any, b: Any, p: Any = ()) -> Any:
        def one(state: Any, z: Any) -> Any:
            h, c = state
            h, c = step(z + h @ U.T, c, p)
            return (h, c), h

        zero = jnp.zeros((batch, width), x.dtype)
        (h, c), output = jax.lax.scan(one, (zero, zero), x @ W.T + b)
        return output, h, c

    def gradients(d_output: Any, *leaves: Any) -> Any:
        output, pull, finals = jax.vjp(lambda *args: _first(forward(*args)), *leaves, has_aux=True)
        return (output, *finals, *pull(d_output))

    leaves = [jnp.asarray(a) for a in (problem.x, *body.stacked(problem.weights))]
    d_output = jnp.asarray(problem.d_output)
    run = jax.jit(gradients if how.train else lambda _, *leaves: forward(*leaves))

    def call() -> Raw:
        return list(jax.block_until_ready(run(d_output, *leaves)))

    def pairs(raw: Raw) -> Pairs:
        arrays = [np.asarray(a, np.float64) for a in raw]
        params = [str(k) for k in range(len(leaves) - 1)]
        return list(named(problem, params, arrays, lambda found: body.parts(*found.values())))

    return Ready(call, pairs)


def _first(found: Any) -> Any:
    return found[0], found[1:]


def _load(threads: int) -> Any:
    """JAX, told to use so many threads. Raises Unavailable where it cannot."""
    if not _started and "jax" not in sys.modules:
        os.environ["PJRT_NPROC"] = str(threads)
        if threads == 1:
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    try:
        jax, jnp = import_module("jax"), import_module("jax.numpy")
    except ImportError:
        raise Unavailable("JAX is not installed") from None
    if not _started:
        _started.append(threads)
    if _started[0] != threads:
        why = f"JAX keeps the {_started[0]} thread(s) it started with"
        raise Unavailable(f"{why}: run `bptt bench --threads {threads}` alone")
    return jax, jnp
