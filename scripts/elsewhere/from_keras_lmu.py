"""What keras-lmu says, which the paper's authors made. Its A and B become our constants."""

from __future__ import annotations

import keras
import keras_lmu
import numpy as np
import tensorflow as tf
from record import Array, Arrays, record, stacked, tensorflow_side

ORDER = 4
CELL = keras_lmu.LMUCell(
    memory_d=1,
    order=ORDER,
    theta=5.0,
    hidden_cell=keras.layers.SimpleRNNCell(3, use_bias=False, dtype="float64"),
    hidden_to_memory=True,
    memory_to_memory=True,
    input_to_hidden=True,
    dtype="float64",
)
CELL.build((None, 2))


def lmu(v: Arrays, inputs: Arrays, held: Arrays) -> Arrays:
    weights = [
        tf.concat([v["e_x"], v["e_h"]], 0)[:, None],
        v["e_m"][:, None],
        tf.concat([tf.transpose(v["W_m"]), tf.transpose(v["W_x"])], 0),
        tf.transpose(v["W_h"]),
    ]
    assert [a.shape for a in weights] == [a.shape for a in CELL.trainable_variables]
    rest = [a.value for a in CELL.non_trainable_variables]
    found, _ = CELL.stateless_call(weights, rest, inputs["x"], [held["m"], held["h"]])
    return dict(zip("mh", found[1], strict=True))


def main() -> None:
    memory: dict[str, Array] = {"A": np.array(CELL.A).T, "B": np.array(CELL.B)[0]}
    call = stacked(tf.stack, lmu, "h m")
    known = {"side": tensorflow_side, "sizes": {"D": ORDER}, "fixed": memory}
    record("lmu", "keras-lmu", "keras_lmu.LMUCell", call, **known)


if __name__ == "__main__":
    main()
