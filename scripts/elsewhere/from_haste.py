"""What haste's layers say, by the Python that it runs where there is no GPU."""

from __future__ import annotations

from typing import Any

import haste_pytorch
import torch
from record import Arrays, Call, record, torch_call, torch_rows, torch_side


def layernorm_lstm() -> Call:
    """Its gates stand in the order i g f o; ours are blocks of one matrix, in the order i f g o."""
    module = haste_pytorch.LayerNormLSTM(2, 3).double()

    def reordered(a: Any) -> Any:
        i, f, g, o = a.chunk(4)
        return torch.cat([i, g, f, o])

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        weights = {
            "kernel": reordered(v["W"]).T,
            "recurrent_kernel": reordered(v["U"]).T,
            "bias": reordered(v["b"]),
            "gamma": torch.stack([reordered(v["g_x"]), reordered(v["g_h"])]),
            "gamma_h": v["g_c"],
            "beta_h": v["b_c"],
        }
        series, (h, c) = torch_call(module, weights, v["x"], (v["h"][None], v["c"][None]))
        return {"h": series}, {"h": h[0], "c": c[0]}

    return call


def zoneout(probability: float) -> Call:
    """In testing, and of the output alone: the cell state is never kept."""
    module = haste_pytorch.LSTM(2, 3, zoneout=probability).double().eval()

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        weights = {
            "kernel": torch_rows(v, "W_i W_g W_f W_o").T,
            "recurrent_kernel": torch_rows(v, "U_i U_g U_f U_o").T,
            "bias": torch_rows(v, "b_i b_g b_f b_o"),
        }
        series, (h, c) = torch_call(module, weights, v["x"], (v["h"][None], v["c"][None]))
        return {"h": series}, {"h": h[0], "c": c[0]}

    return call


def main() -> None:
    library = "haste-pytorch-cpu"
    normed = layernorm_lstm()
    record("layernorm_lstm", library, "haste_pytorch.LayerNormLSTM", normed, side=torch_side)
    claim = "haste_pytorch.LSTM(zoneout=z_h).eval(), for z_c = 0"
    fixed = {"z_c": 0.0, "z_h": 0.25}
    record("zoneout", library, claim, zoneout(0.25), side=torch_side, fixed=fixed)


if __name__ == "__main__":
    main()
