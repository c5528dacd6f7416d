"""What Flax's cells say, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import linen
from jax import numpy as jnp
from record import Array, Arrays, Call, jax_side, record

jax.config.update("jax_enable_x64", True)

# Makes a cell's tree of parameters, kernels transposed, of ours.
Weights = Callable[[Arrays], dict[str, Any]]


def dense(kernel: Array, bias: Array | None = None) -> dict[str, Array]:
    return {"kernel": kernel.T} if bias is None else {"kernel": kernel.T, "bias": bias}


def cell(made: linen.RNNCellBase, weights: Weights, states: str = "h") -> Call:
    """A cell under linen.RNN; its carry is made of `states` in this order."""
    whole = linen.RNN(made, time_major=True, return_carry=True)
    names = states.split()

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        carry = tuple(v[name] for name in names)
        tree = {"params": {"cell": weights(v)}}
        wanted = jax.eval_shape(whole.init, jax.random.key(0), v["x"])["params"]
        assert jax.tree.map(jnp.shape, tree["params"]) == jax.tree.map(jnp.shape, wanted)
        start = carry if carry[1:] else carry[0]
        last, series = whole.apply(tree, v["x"], initial_carry=start)
        last = last if carry[1:] else (last,)
        return {"h": series}, dict(zip(names, last, strict=True))

    return call


def lstm(v: Arrays) -> dict[str, Any]:
    return {f"i{k}": dense(v[f"W_{k}"]) for k in "ifgo"} | {
        f"h{k}": dense(v[f"U_{k}"], v[f"b_{k}"]) for k in "ifgo"
    }


def gru(v: Arrays) -> dict[str, Any]:
    gates = {f"i{k}": dense(v[f"W_{k}"], v[f"b_{k}"]) for k in "rz"}
    gates |= {f"h{k}": dense(v[f"U_{k}"]) for k in "rz"}
    return gates | {"in": dense(v["W_n"], v["b_in"]), "hn": dense(v["U_n"], v["b_hn"])}


def simple(v: Arrays) -> dict[str, Any]:
    return {"i": dense(v["W"], v["b"]), "h": dense(v["U"])}


def say(cell_: str, claim: str, call: Call, **options: Any) -> None:
    record(cell_, "flax", f"flax.linen.{claim}", call, side=jax_side, **options)


def main() -> None:
    wide = {"features": 3, "param_dtype": jnp.float64}
    say("rnn", "SimpleCell", cell(linen.SimpleCell(**wide), simple))
    say("lstm", "LSTMCell", cell(linen.LSTMCell(**wide), lstm, "c h"))
    say("gru", "GRUCell", cell(linen.GRUCell(**wide), gru))


if __name__ == "__main__":
    main()
