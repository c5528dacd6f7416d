"""What Keras's layers say, on TensorFlow: only there they compute in float64."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

from collections.abc import Callable
from typing import Any

import keras
import mingru_keras
import tensorflow as tf
from record import Array, Arrays, Call, gates, half, record, signed, stacked, tensorflow_side

keras.config.set_dtype_policy("float64")


def columns(v: Arrays, names: str) -> Array:
    """Kernels of Keras are transposed, and gates stand side by side."""
    return tf.concat([tf.transpose(a) for a in signed(v, names)], -1)


def layer(
    kind: Callable[..., Any],
    which: str = "",
    names: tuple[str, str, str] = ("W_{}", "U_{}", "b_{}"),
    *,
    states: str = "h",
    biases: Callable[[Arrays], Array] | None = None,
    **options: Any,
) -> Call:
    """A layer with the gates `which` in its order; their parameters are called as `names` say,
    by a pattern or one by one."""
    made = kind(3, return_sequences=True, return_state=True, **options)
    made.build((None, None, 2))
    w, u, b = (gates(name, which) if "{" in name else name for name in names)

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        weights = [columns(v, w), columns(v, u), biases(v) if biases else columns(v, b)]
        assert [a.shape for a in weights] == [a.shape for a in made.trainable_variables]
        rest = [a.value for a in made.non_trainable_variables]
        start = [v[name] for name in states.split()]
        x = tf.transpose(v["x"], (1, 0, 2))
        (series, *last), _ = made.stateless_call(weights, rest, x, initial_state=start)
        finals = dict(zip(states.split(), last, strict=True))
        return {"h": tf.transpose(series, (1, 0, 2))}, finals

    return call


def two_biases(v: Arrays) -> Array:
    """A GRU that resets after the product has two rows of biases; n keeps both of its own."""
    z, r, n = half(v["b_z"]), half(v["b_r"]), (v["b_in"], v["b_hn"])
    return tf.stack([tf.concat([z[k], r[k], n[k]], -1) for k in range(2)])


def ode(v: Arrays) -> tuple[Arrays, Arrays]:
    """A step of 1 is a step of the GRU; its z says how much stays."""
    return layer(keras.layers.GRU, "z r g", reset_after=False)(v)


def dropout() -> Call:
    """Keras draws a mask for each gate, and scales it; here one stands for all."""
    cell = keras.layers.LSTMCell(3, dropout=0.5, recurrent_dropout=0.5, implementation=1)
    cell.build((None, 2))

    def step(v: Arrays, inputs: Arrays, held: Arrays) -> Arrays:
        cell._dropout_mask, cell._recurrent_dropout_mask = [v["z_x"]] * 4, [v["z_h"]] * 4
        weights = [columns(v, gates(name, "i f g o")) for name in ("W_{}", "U_{}", "b_{}")]
        rest = [a.value for a in cell.non_trainable_variables]
        states = [held["h"], held["c"]]
        found, _ = cell.stateless_call(weights, rest, inputs["x"], states, training=True)
        return dict(zip("hc", found[1], strict=True))

    return stacked(tf.stack, step, "h c")


def mingru() -> Call:
    made = mingru_keras.MinGRU(3)
    made.build((None, None, 2))

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        """It starts from zeros."""
        weights = [tf.transpose(v["W_z"]), v["b_z"], tf.transpose(v["W_h"]), v["b_h"]]
        series, _ = made.stateless_call(weights, [], tf.transpose(v["x"], (1, 0, 2)))
        return {"h": tf.transpose(series, (1, 0, 2))}, {"h": series[:, -1]}

    return call


def say(cell: str, claim: str, call: Call, **options: Any) -> None:
    record(cell, "keras", f"keras.layers.{claim}", call, side=tensorflow_side, **options)


def main() -> None:
    layers = keras.layers
    say("rnn", "SimpleRNN", layer(layers.SimpleRNN, names=("W", "U", "b")))
    say("lstm", "LSTM", layer(layers.LSTM, "i f g o", states="h c"))
    say("gru", "GRU", layer(layers.GRU, "z r n", biases=two_biases))
    before = layer(layers.GRU, "z r n", reset_after=False)
    say("gru_cho", "GRU(reset_after=False)", before)
    # gates that see less: some rows are 0; and z here says how much is new
    seeing = "-U_z U_r U_h", "-b_z b_r b_h"
    less = (seeing, (seeing[0], "0 0 b_h"), ("0 0 U_h", seeing[1]))
    for k, (u, b) in enumerate(less, 1):
        call = layer(layers.GRU, names=("0 0 W_h", u, b), reset_after=False)
        claim = "GRU(reset_after=False), what its gates do not see 0"
        say(f"gru{k}", claim, call)
    say("gru_ode", "GRU(reset_after=False), for dt = 1", ode, fixed={"dt": 1.0})
    claim = "LSTMCell(dropout, recurrent_dropout), one mask for all gates"
    say("variational_dropout", claim, dropout())
    claim = "mingru_keras.MinGRU"
    record("mingru", "mingru-keras", claim, mingru(), side=tensorflow_side, fixed={"h": 0.0})


if __name__ == "__main__":
    main()
