"""What neuralhydrology says, whose authors the paper has too."""

from __future__ import annotations

from pathlib import Path

import torch
from neuralhydrology.modelzoo.ealstm import EALSTM
from neuralhydrology.utils.config import Config
from record import Arrays, record, torch_call, torch_rows, torch_side

MODEL = EALSTM(
    Config(
        {
            "model": "ealstm",
            "hidden_size": 3,
            "dynamic_inputs": ["rain", "sun"],
            "static_attributes": ["area", "slope"],
            "target_variables": ["flow"],
            "head": "regression",
            "run_dir": str(Path.cwd()),
        }
    )
).double()


def ea_lstm(v: Arrays) -> tuple[Arrays, Arrays]:
    """It starts from zeros."""
    weights = {name: p for name, p in MODEL.named_parameters() if name.startswith("head")}
    weights |= {"input_gate.weight": v["W_i"], "input_gate.bias": v["b_i"]}
    weights |= {
        "dynamic_gates.weight_ih": torch_rows(v, "W_f W_o W_g").T,
        "dynamic_gates.weight_hh": torch_rows(v, "U_f U_o U_g").T,
        "dynamic_gates.bias": torch_rows(v, "b_f b_o b_g"),
    }
    rain, sun = v["x"].transpose(0, 1).split(1, -1)
    found = torch_call(MODEL, weights, {"x_d": {"rain": rain, "sun": sun}, "x_s": v["s"]})
    h, c = found["h_n"].transpose(0, 1), found["c_n"].transpose(0, 1)
    return {"h": h}, {"h": h[-1], "c": c[-1]}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    fixed = {"h": 0.0, "c": 0.0}
    claim = "neuralhydrology EALSTM"
    known = {"side": torch_side, "sizes": {"S": 2}, "fixed": fixed}
    record("ea_lstm", "neuralhydrology", claim, ea_lstm, **known)


if __name__ == "__main__":
    main()
