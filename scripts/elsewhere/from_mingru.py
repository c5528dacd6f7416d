"""What minGRU-pytorch says: minGRU by its scan over logarithms, minLSTM step by step, since its
scan puts a start through g and its steps do not."""

from __future__ import annotations

import torch
from minGRU_pytorch.minGRU import minGRU
from minGRU_pytorch.minLSTM import minLSTM
from record import Arrays, record, torch_call, torch_rows, torch_side, torch_steps

GRU, LSTM = minGRU(3).double(), minLSTM(3).double()


def gru(v: Arrays) -> tuple[Arrays, Arrays]:
    weights = {"to_hidden_and_gate.weight": torch_rows(v, "W_h W_z")}
    options = {"prev_hidden": v["h"][:, None], "return_next_prev_hidden": True}
    series, last = torch_call(GRU, weights, v["x"].transpose(0, 1), **options)
    return {"h": series.transpose(0, 1)}, {"h": last[:, 0]}


def lstm(v: Arrays, inputs: Arrays, held: Arrays) -> Arrays:
    weights = {"to_hidden_and_f_i_gate.weight": torch_rows(v, "W_h W_f W_i")}
    h = torch_call(LSTM, weights, inputs["x"][:, None], prev_hidden=held["h"][:, None])
    return {"h": h[:, 0]}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    known = {"side": torch_side, "sizes": {"X": 3}, "between": {"h": (0.25, 1.5)}}
    library, claim = "minGRU-pytorch", "minGRU_pytorch.minGRU, biases 0"
    record("mingru_log", library, claim, gru, fixed={"b_z": 0.0, "b_h": 0.0}, **known)
    fixed = {"b_f": 0.0, "b_i": 0.0, "b_h": 0.0}
    claim = "minGRU_pytorch.minLSTM, step by step, biases 0"
    record("minlstm_log", library, claim, torch_steps(lstm, "h"), fixed=fixed, **known)


if __name__ == "__main__":
    main()
