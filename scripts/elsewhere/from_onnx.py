"""What ONNX's operators say, run by onnxruntime: in float32 only, and without gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from record import Array, Arrays, Call, half, record, signed, values_only


def run(op: str, inputs: dict[str, Array], outputs: tuple[str, ...], **options: Any) -> list[Array]:
    """One operator as a model. An input that is None is left out."""
    given = {name: np.asarray(a, np.float32) for name, a in inputs.items() if a is not None}
    names = [name if name in given else "" for name in inputs]
    node = helper.make_node(op, names, list(outputs), hidden_size=3, **options)
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        op,
        [helper.make_tensor_value_info(name, kind, a.shape) for name, a in given.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(list(outputs), given)


def rows(v: Arrays, names: str) -> Array:
    """Our parameters on top of each other, behind an axis of directions."""
    return np.concatenate(signed(v, names))[None]


def lstm(
    which: str = "i o f g",
    names: tuple[str, str, str] = ("W_{}", "U_{}", "b_{}"),
    states: str = "h c",
    peepholes: str = "",
    held: float = 0.0,
    **options: Any,
) -> Call:
    """`which` are the gates in ONNX's order; `peepholes` are named i, o, f. A gate `-` is not
    there: its bias is `held`."""

    def rows_of(v: Arrays, pattern: str, instead: float) -> Array:
        parts = [str(instead) if g == "-" else pattern.format(g) for g in which.split()]
        return rows(v, " ".join(parts))

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        w, u = (rows_of(v, name, 0.0) for name in names[:2])
        b = rows_of(v, names[2], held)
        out, cell = states.split()
        inputs = {
            "X": v["x"],
            "W": w,
            "R": u,
            "B": np.concatenate(half(b), axis=1),
            "sequence_lens": None,
            "initial_h": v[out][None],
            "initial_c": v[cell][None],
            "P": rows(v, peepholes) if peepholes else None,
        }
        series, h, c = run("LSTM", inputs, ("Y", "Y_h", "Y_c"), **options)
        return {out: series[:, 0]}, {out: h[0], cell: c[0]}

    return call


def gru(first: str, second: str = "", **options: Any) -> Call:
    """n has a bias beside the input's product and, if `second`, one beside the state's."""

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        (z1, z2), (r1, r2) = half(v["b_z"]), half(v["b_r"])
        n1, n2 = (v[first], v[second]) if second else half(v[first])
        inputs = {
            "X": v["x"],
            "W": rows(v, "W_z W_r W_n"),
            "R": rows(v, "U_z U_r U_n"),
            "B": np.concatenate([z1, r1, n1, z2, r2, n2])[None],
            "sequence_lens": None,
            "initial_h": v["h"][None],
        }
        series, last = run("GRU", inputs, ("Y", "Y_h"), **options)
        return {"h": series[:, 0]}, {"h": last[0]}

    return call


def rnn(**options: Any) -> Call:
    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        inputs = {
            "X": v["x"],
            "W": v["W"][None],
            "R": v["U"][None],
            "B": np.concatenate(half(v["b"]))[None],
            "sequence_lens": None,
            "initial_h": v["h"][None],
        }
        series, last = run("RNN", inputs, ("Y", "Y_h"), **options)
        return {"h": series[:, 0]}, {"h": last[0]}

    return call


def say(cell: str, claim: str, call: Call) -> None:
    record(cell, "onnxruntime", f"ONNX {claim}", call, side=values_only, dtype="float32")


def main() -> None:
    say("rnn", "RNN", rnn())
    say("irnn", 'RNN(activations=["Relu"])', rnn(activations=["Relu"]))
    say("gru", "GRU(linear_before_reset=1)", gru("b_in", "b_hn", linear_before_reset=1))
    say("gru_cho", "GRU", gru("b_n"))
    say("lstm", "LSTM", lstm())
    say("coupled", "LSTM(input_forget=1)", lstm("i o - g", input_forget=1))
    say("peephole", "LSTM with P", lstm(peepholes="p_i p_o p_f"))
    straight = {"activation_alpha": [1.0], "activation_beta": [0.0]}
    out = {"activations": ["Sigmoid", "Tanh", "Affine"], **straight}
    into = {"activations": ["Sigmoid", "Affine", "Tanh"], **straight}
    say("lstm_identity", "LSTM with Affine as h", lstm(**out))
    jimenez = lstm(names=("W_{}x", "W_{}h", "b_{}"), states="h s", **out)
    say("jimenez", "LSTM with Affine as h", jimenez)
    greff = {"which": "i o f z", "names": ("W_{}", "R_{}", "b_{}"), "states": "y c"}
    greff["peepholes"] = "p_i p_o p_f"
    say("greff_vanilla", "LSTM with P", lstm(**greff))
    coupled = {**greff, "which": "i o - z", "peepholes": "p_i p_o 0"}
    say("greff_cifg", "LSTM(input_forget=1) with P", lstm(**coupled, input_forget=1))
    say("greff_niaf", "LSTM with P and Affine as g", lstm(**greff, **into))
    say("greff_noaf", "LSTM with P and Affine as h", lstm(**greff, **out))
    # 4 sigmoid(v) - 2 is 2 tanh(v/2), and 2 sigmoid(v) - 1 is tanh(v/2)
    scaled = {
        "activations": ["Sigmoid", "ScaledTanh", "ScaledTanh"],
        "activation_alpha": [2.0, 1.0],
        "activation_beta": [0.5, 0.5],
    }
    forget = lstm("in out φ c", states="y_c s_c", **scaled)
    say("lstm_forget", "LSTM with ScaledTanh as g and h", forget)
    first = lstm("in out - c", states="y_c s_c", held=100.0, **scaled)
    say("lstm_1997", "LSTM with ScaledTanh as g and h, f held at 1", first)


if __name__ == "__main__":
    main()
