"""What TensorFlow 1.15 says, the last with its `contrib`. It needs Python 3.7, which bptt does not
run on: the cells run in tensorflow1.py, by the interpreter whose path is given here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from record import BATCH, STEPS, Array, Arrays, Call, Pull, record

WORKER = Path(__file__).with_name("tensorflow1.py")
VERSION = "1.15.5"
# The time gate of phased_lstm, which our cell is given. Units differ.
PERIOD, PHASE, OPEN = np.array([2.0, 3.0, 5.0]), np.array([0.5, 1.0, 0.0]), np.array([0.5, 0.75, 1])
TIMES = np.array([[0.75], [1.5], [2.5], [4.25]]) + np.array([0.0, 0.125])
LEAK = 0.001


def time_gate() -> Array:
    φ = np.mod(TIMES[..., None] - PHASE, PERIOD) / PERIOD
    closing = np.where(φ < OPEN, 2 - 2 * φ / OPEN, LEAK * φ)
    return np.where(φ < OPEN / 2, 2 * φ / OPEN, closing)


def side(call: Call, values: Arrays, by: list[str]) -> tuple[Arrays, Arrays, Pull]:
    """`call` names the cell and what it needs beside our values; another process runs it."""
    started: Any = call
    worker = subprocess.Popen(
        [sys.argv[1], WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin
    assert worker.stdout

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        worker.stdin.write(json.dumps(question, default=lambda a: a.tolist()) + "\n")
        worker.stdin.flush()
        return json.loads(worker.stdout.readline())

    def arrays(found: dict[str, Any]) -> Arrays:
        kind = next(iter(values.values())).dtype
        return {k: None if a is None else np.array(a, kind) for k, a in found.items()}

    found = ask({**started, "values": values, "by": by})
    series, finals = arrays(found["series"]), arrays(found["finals"])
    return series, finals, lambda *seeds: arrays(ask({"series": seeds[0], "finals": seeds[1]}))


def main() -> None:
    library = f"tensorflow {VERSION}"
    indy: Any = {"cell": "indylstm"}
    claim = "tf.contrib.rnn.IndyLSTMCell"
    record("indylstm", library, claim, indy, side=side)
    dropout: Any = {"cell": "recurrent_dropout"}
    claim = "tf.contrib.rnn.LayerNormBasicLSTMCell(layer_norm=False), its mask ours"
    record("recurrent_dropout", library, claim, dropout, side=side)
    assert TIMES.shape == (STEPS, BATCH)
    more = {"times": TIMES, "period": PERIOD, "phase": PHASE, "ratio_on": OPEN}
    phased: Any = {"cell": "phased_lstm", **more}
    claim = "tf.contrib.rnn.PhasedLSTMCell, its peephole matrices diagonal"
    fixed = {"k": time_gate()}
    record("phased_lstm", library, claim, phased, side=side, dtype="float32", fixed=fixed)


if __name__ == "__main__":
    main()
