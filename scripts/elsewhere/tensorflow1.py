"""Cells of TensorFlow 1.15, run for from_tensorflow1.py: this file is for Python 3.7.

It reads a line of JSON with the values of a cell, and writes its series and last states; then it
reads a line with seeds for those, and writes the gradients.
"""

import json
import sys

import numpy as np
import tensorflow as tf
from tensorflow.contrib import rnn
from tensorflow.contrib.rnn.python.ops import rnn_cell as contrib


def columns(v, pattern, gates):
    return tf.concat([tf.transpose(v[pattern.format(gate)]) for gate in gates.split()], -1)


def indylstm(v, asked):
    cell = rnn.IndyLSTMCell(3, forget_bias=0.0, dtype=tf.float64)
    cell.build(tf.TensorShape([None, 2]))
    cell._kernel_w = columns(v, "W_{}", "i g f o")
    cell._kernel_u = columns(v, "u_{}", "i g f o")[None]
    cell._bias = columns(v, "b_{}", "i g f o")
    c, h, series = v["c"], v["h"], []
    for x in tf.unstack(v["x"]):
        h, (c, _) = cell(x, rnn.LSTMStateTuple(c, h))
        series.append(h)
    return {"h": tf.stack(series)}, {"h": h, "c": c}


def phased_lstm(v, asked):
    def kernel(gates, peeping):
        rows = [columns(v, "W_{}", gates), columns(v, "U_{}", gates)]
        if peeping:
            rows.append(tf.concat([tf.linalg.diag(v["p_" + gate]) for gate in gates.split()], -1))
        return tf.concat(rows, 0)

    own = {
        "mask_gates/kernel": kernel("i f", True),
        "mask_gates/bias": columns(v, "b_{}", "i f"),
        "new_input/kernel": kernel("g", False),
        "new_input/bias": v["b_g"],
        "output_gate/kernel": kernel("o", True),
        "output_gate/bias": v["b_o"],
    }
    for name in ("period", "phase", "ratio_on"):
        own[name] = tf.constant(asked[name], tf.float32)
        own[name].initial_value = own[name]  # where it would draw the phase

    def getter(getter, name, *args, **kwargs):
        return own[name.split("phased_lstm_cell/")[1]]

    cell = rnn.PhasedLSTMCell(3, use_peepholes=True)
    c, h, series = v["c"], v["h"], []
    with tf.variable_scope("outer", custom_getter=getter):
        for t, x in enumerate(tf.unstack(v["x"])):
            at = tf.constant(np.array(asked["times"][t])[:, None], tf.float64)
            h, (c, _) = cell((at, x), rnn.LSTMStateTuple(c, h))
            series.append(h)
    return {"h": tf.stack(series)}, {"h": h, "c": c}


def recurrent_dropout(v, asked):
    """Its mask is drawn at random; here it is ours."""
    own = {"kernel": tf.concat([columns(v, "W_{}", "i g f o"), columns(v, "U_{}", "i g f o")], 0)}
    own["bias"] = columns(v, "b_{}", "i g f o")

    def getter(getter, name, *args, **kwargs):
        return own[name.split("/")[-1]]

    cell = rnn.LayerNormBasicLSTMCell(3, forget_bias=0.0, layer_norm=False, dropout_keep_prob=0.5)
    c, h, series = v["c"], v["h"], []
    with tf.variable_scope("outer", custom_getter=getter):
        for t, x in enumerate(tf.unstack(v["x"])):
            contrib.nn_ops.dropout = lambda g, *_, mask=v["d"][t], **__: mask * g
            h, (c, _) = cell(x, rnn.LSTMStateTuple(c, h))
            series.append(h)
    return {"h": tf.stack(series)}, {"h": h, "c": c}


def main():
    asked = json.loads(sys.stdin.readline())
    kind = tf.float32 if asked["cell"] == "phased_lstm" else tf.float64
    v = {name: tf.constant(value, kind) for name, value in asked["values"].items()}
    cells = (indylstm, phased_lstm, recurrent_dropout)
    run = {cell.__name__: cell for cell in cells}[asked["cell"]]
    series, finals = run(v, asked)
    with tf.Session() as session:
        found = session.run({"series": series, "finals": finals})
        print(json.dumps(found, default=lambda a: a.tolist()), flush=True)
        seeds = json.loads(sys.stdin.readline() or "null")
        if seeds is None:
            return
        outs = list(series.values()) + list(finals.values())
        given = [seeds["series"][k] for k in series] + [seeds["finals"][k] for k in finals]
        given = [tf.constant(seed, kind) for seed in given]
        grads = tf.gradients(outs, [v[name] for name in asked["by"]], given)
        known = {k: g for k, g in enumerate(grads) if g is not None}
        found = session.run(known)
        names = enumerate(asked["by"])
        print(json.dumps({n: found[k].tolist() if k in found else None for k, n in names}))


if __name__ == "__main__":
    main()
