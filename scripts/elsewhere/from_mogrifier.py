"""What the package mogrifier says: it shares its matrices between rounds and has biases, so each
round is a call of its own, and the biases are 0. The LSTM behind it is torch's."""

from __future__ import annotations

import torch
from mogrifier import Mogrifier
from record import (
    Array,
    Arrays,
    gates,
    half,
    record,
    torch_call,
    torch_rows,
    torch_side,
    torch_steps,
)

X_ROUND, H_ROUND = Mogrifier(2, dim_hidden=3).double(), Mogrifier(3, dim_hidden=2).double()
X_ROUND.iters = H_ROUND.iters = 1  # it does not heed the argument of a call, nor make 1 itself
CELL = torch.nn.LSTMCell(2, 3, dtype=torch.float64)


def round_of(module: Mogrifier, matrix: Array, inputs: Array, hiddens: Array) -> Array:
    weights = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    weights["Q.0.weight"] = matrix
    return torch_call(module, weights, inputs, hiddens)[0]


def mogrified(v: Arrays, inputs: Arrays, held: Arrays) -> Arrays:
    x, h = inputs["x"], held["h"]
    for k in range(1, 6):
        if k % 2:
            x = round_of(X_ROUND, v[f"Q_{k}"], x, h)
        else:
            h = round_of(H_ROUND, v[f"R_{k}"], h, x)
    first, second = half(torch_rows(v, gates("b_{}", "i f j o")))
    weights = {
        "weight_ih": torch_rows(v, gates("W_{}", "i f j o")),
        "weight_hh": torch_rows(v, gates("U_{}", "i f j o")),
        "bias_ih": first,
        "bias_hh": second,
    }
    h, c = torch_call(CELL, weights, x, (h, held["c"]))
    return {"h": h, "c": c}


def main() -> None:
    claim = "mogrifier.Mogrifier, a call a round, biases 0, and torch.nn.LSTMCell"
    call = torch_steps(mogrified, "h c")
    record("mogrifier_lstm", "mogrifier", claim, call, side=torch_side)


if __name__ == "__main__":
    main()
