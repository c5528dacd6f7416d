"""One step of three cells, written by hand: what people write who have no kernel.

A body takes the namespace of its functions, so that torch and JAX run the same lines. `z` [B, n*H]
is what the matrices give, its gates in the order of `Body.gates`; `p` [k, H] are the peepholes.
No annotations inside: `torch.jit.script` would read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Step = Callable[..., Any]


class Body(NamedTuple):
    """How a cell's parameters are stacked, and its step: (z, c, p) -> (output, c)."""

    gates: str
    recurrent: str  # how its recurrent matrices are called: U, or R
    peepholes: tuple[str, ...]
    step: Callable[[Any], Step]

    def stacked(self, weights: Mapping[str, Any]) -> list[Any]:
        """W [n*H, I], U [n*H, H], b [n*H], and p [k, H] where there are peepholes."""
        kinds = ("W", self.recurrent, "b")
        found = [np.concatenate([weights[f"{kind}_{g}"] for g in self.gates]) for kind in kinds]
        if self.peepholes:
            found.append(np.stack([weights[name] for name in self.peepholes]))
        return found

    def parts(self, W: Any, U: Any, b: Any, p: Any = ()) -> list[tuple[str, Any]]:
        """What `stacked` put together, by the names of the cell."""
        pairs = zip(("W", self.recurrent, "b"), (W, U, b), strict=True)
        n = len(self.gates)
        found = [
            (f"{kind}_{gate}", part)
            for kind, whole in pairs
            for gate, part in zip(self.gates, np.split(whole, n), strict=True)
        ]
        return found + list(zip(self.peepholes, p, strict=True))


def _lstm(ns: Any) -> Step:
    def step(z, c, p):
        i, f, g, o = ns.chunk(z, 4, -1)
        c = ns.sigmoid(f) * c + ns.sigmoid(i) * ns.tanh(g)
        return ns.sigmoid(o) * ns.tanh(c), c

    return step


def _peephole(ns: Any) -> Step:
    def step(z, c, p):
        i, f, g, o = ns.chunk(z, 4, -1)
        i = ns.sigmoid(i + p[0] * c)
        f = ns.sigmoid(f + p[1] * c)
        c = f * c + i * ns.tanh(g)
        return ns.sigmoid(o + p[2] * c) * ns.tanh(c), c

    return step


def _cifg(ns: Any) -> Step:
    def step(z, c, p):
        g, i, o = ns.chunk(z, 3, -1)
        i = ns.sigmoid(i + p[0] * c)
        c = ns.tanh(g) * i + c * (1 - i)
        return ns.tanh(c) * ns.sigmoid(o + p[1] * c), c

    return step


BODIES = {
    "lstm": Body("ifgo", "U", (), _lstm),
    "peephole": Body("ifgo", "U", ("p_i", "p_f", "p_o"), _peephole),
    "greff_cifg": Body("zio", "R", ("p_i", "p_o"), _cifg),
}


def torch_loop(step: Step) -> Callable[..., Any]:
    """The loop around a step: (x, h, c, W, U, b, p) -> (output [T, B, H], h, c).

    As fast as plain torch gets: all inputs in one product, one product a step.
    """
    import torch

    def loop(x, h, c, W, U, b, p):
        rows = torch.matmul(x, W.t()) + b
        out = []
        for z in rows.unbind(0):
            h, c = step(torch.addmm(z, h, U.t()), c, p)
            out.append(h)
        return torch.stack(out), h, c

    return loop
