"""What TensorFlow 2.15 says, the last with the cells of TensorFlow 1, its Keras 2, and the add-ons
to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_ordered_neurons.layers
import tensorflow as tf
import tensorflow_addons as tfa
from record import Array, Arrays, Call, gates, record, stacked, tensorflow_side

DOUBLE = {"dtype": "float64"}


def columns(v: Arrays, names: str) -> Array:
    """Matrices of ours transposed, and side by side; vectors behind each other."""
    return tf.concat([tf.transpose(v[name]) for name in names.split()], -1)


def stepped(step: Callable[[Arrays, Array, Arrays], Arrays], *args: Any) -> Call:
    """Call `step(v, x, states)` for each step."""
    return stacked(tf.stack, lambda v, xs, held: step(v, xs["x"], held), *args)


def nas() -> Call:
    cell = tfa.rnn.NASCell(3, use_bias=False, **DOUBLE)
    cell.build((None, 2))

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        cell.kernel = columns(v, gates("W_{}", "0 1 2 3 4 5 6 7"))
        cell.recurrent_kernel = columns(v, gates("U_{}", "0 1 2 3 4 5 6 7"))
        _, (c, h) = cell(x, [held["c"], held["h"]])
        return {"h": h, "c": c}

    return stepped(step, "h c")


def peephole() -> Call:
    cell = tfa.rnn.PeepholeLSTMCell(3, **DOUBLE)
    cell.build((None, 2))

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        cell.kernel, cell.recurrent_kernel, cell.bias = (
            columns(v, gates(name, "i f g o")) for name in ("W_{}", "U_{}", "b_{}")
        )
        cell.input_gate_peephole_weights = v["p_i"]
        cell.forget_gate_peephole_weights = v["p_f"]
        cell.output_gate_peephole_weights = v["p_o"]
        _, (h, c) = cell(x, [held["h"], held["c"]])
        return {"h": h, "c": c}

    return stepped(step, "h c")


def esn() -> Call:
    cell = tfa.rnn.ESNCell(3, leaky=0.3, **DOUBLE)
    cell.build((None, 2))

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        cell.bias, cell.kernel = v["W_in"][:, 0], tf.transpose(v["W_in"][:, 1:])
        cell.recurrent_kernel = tf.transpose(v["W"])
        return {"h": cell(x, [held["h"]])[0]}

    return stepped(step, "h")


def leaky() -> Call:
    """Leaky units that are trained: what an ESNCell computes, with α = 1 - leaky."""
    cell = tfa.rnn.ESNCell(3, **DOUBLE)
    cell.build((None, 2))

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        cell.leaky, cell.bias = 1 - v["α"], v["b"]
        cell.kernel, cell.recurrent_kernel = tf.transpose(v["W"]), tf.transpose(v["U"])
        return {"h": cell(x, [held["h"]])[0]}

    return stepped(step, "h")


def layernorm_lstm() -> Call:
    """It stores the normalized cell state. Its three biases of the gates are one of ours."""
    cell = tfa.rnn.LayerNormLSTMCell(3, norm_epsilon=1e-5, **DOUBLE)
    cell.build((None, 2))

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        cell.kernel, cell.recurrent_kernel = tf.transpose(v["W"]), tf.transpose(v["U"])
        cell.kernel_norm.gamma, cell.recurrent_norm.gamma = v["g_x"], v["g_h"]
        cell.kernel_norm.beta, cell.recurrent_norm.beta = 0.5 * v["b"], 0.25 * v["b"]
        cell.bias = 0.25 * v["b"]
        cell.state_norm.gamma, cell.state_norm.beta = v["g_c"], v["b_c"]
        _, (h, c) = cell(x, [held["h"], held["c"]])
        return {"h": h, "c": c}

    return stepped(step, "h c")


def layernorm_rnn() -> Call:
    cell = tfa.rnn.LayerNormSimpleRNNCell(3, **DOUBLE)
    cell.build((None, 2))

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        cell.kernel, cell.recurrent_kernel = tf.transpose(v["W"]), tf.transpose(v["U"])
        cell.layernorm.gamma, cell.bias = v["g"], v["b"]
        return {"h": cell(x, [held["h"]])[0]}

    return stepped(step, "h")


def on_lstm() -> Call:
    # it was written for an earlier Keras, where what it needs had another place
    keras_ordered_neurons.layers.backend = keras.src.backend
    cell = keras_ordered_neurons.ONLSTMCell(
        20, chunk_size=10, recurrent_activation="sigmoid", **DOUBLE
    )
    cell.build((None, 1))
    names = {"i": "i", "f": "f", "c": "g", "o": "o", "mf": "m", "mi": "n"}

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        for theirs, ours in names.items():
            setattr(cell, f"kernel_{theirs}", tf.transpose(v[f"W_{ours}"]))
            setattr(cell, f"recurrent_kernel_{theirs}", tf.transpose(v[f"U_{ours}"]))
            setattr(cell, f"bias_{theirs}", v[f"b_{ours}"])
        _, (h, c) = cell(x, [held["h"], held["c"]])
        return {"h": h, "c": c}

    return stepped(step, "h c")


def sak() -> Call:
    """The TensorFlow 1 cell adds a forget bias, and it has no second projection."""
    cell = tf.compat.v1.nn.rnn_cell.LSTMCell(
        3, use_peepholes=True, num_proj=2, forget_bias=0.0, dtype="float64"
    )
    cell.build((None, 2))

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        w, r, b = (columns(v, gates(name, "i c f o")) for name in ("W_{}x", "W_{}r", "b_{}"))
        cell._kernel, cell._bias = tf.concat([w, r], 0), b
        cell._w_i_diag, cell._w_f_diag, cell._w_o_diag = v["w_ic"], v["w_fc"], v["w_oc"]
        cell._proj_kernel = tf.transpose(v["W_rm"])
        _, (c, r) = cell(x, (held["c"], held["r"]))
        return {"r": r, "c": c}

    return stepped(step, "r c", "r")


def hard() -> Call:
    cell = tf.keras.layers.LSTMCell(3, recurrent_activation="hard_sigmoid", **DOUBLE)
    cell.build((None, 2))

    def step(v: Arrays, x: Array, held: Arrays) -> Arrays:
        cell.kernel, cell.recurrent_kernel, cell.bias = (
            columns(v, gates(name, "i f g o")) for name in ("W_{}", "U_{}", "b_{}")
        )
        _, (h, c) = cell(x, [held["h"], held["c"]])
        return {"h": h, "c": c}

    return stepped(step, "h c")


def say(cell: str, library: str, claim: str, call: Call, **options: Any) -> None:
    record(cell, library, claim, call, side=tensorflow_side, **options)


def main() -> None:
    tf.keras.mixed_precision.set_global_policy("float64")  # for layers within cells
    addons = "tensorflow-addons"
    say("nas", addons, "tfa.rnn.NASCell(use_bias=False)", nas())
    say("peephole", addons, "tfa.rnn.PeepholeLSTMCell", peephole())
    say("esn", addons, "tfa.rnn.ESNCell(leaky=α)", esn())
    say("leaky", addons, "tfa.rnn.ESNCell(leaky=1-α)", leaky())
    claim = "tfa.rnn.LayerNormLSTMCell(norm_epsilon=1e-5)"
    say("layernorm_lstm_carried", addons, claim, layernorm_lstm())
    say("layernorm_rnn", addons, "tfa.rnn.LayerNormSimpleRNNCell", layernorm_rnn())
    claim = "keras_ordered_neurons.ONLSTMCell with sigmoid gates"
    many = {"sizes": {"M": 2, "X": 1}, "untold": ("U_f", "U_i", "U_o", "U_g")}
    say("on_lstm", "keras-ordered-neurons", claim, on_lstm(), **many)
    claim = "tf.compat.v1.nn.rnn_cell.LSTMCell(use_peepholes, num_proj), for r"
    known = {"R": 2, "P": 2}
    say("lstmp_sak", "tensorflow-cpu", claim, sak(), sizes=known, zero=("W_pm",))
    claim = 'keras.layers.LSTM(recurrent_activation="hard_sigmoid")'
    wide = dict.fromkeys(("b_i", "b_f", "b_o"), (-3.0, 3.0))
    say("lstm_hard", "keras", claim, hard(), between=wide)


if __name__ == "__main__":
    main()
