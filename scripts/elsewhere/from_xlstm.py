"""What xlstm's sLSTM says, by its backend in plain torch."""

from __future__ import annotations

import torch
from record import Arrays, record, torch_call, torch_rows, torch_side
from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

CELL = sLSTMCell(sLSTMCellConfig(hidden_size=3, num_heads=1, backend="vanilla"))


def slstm(v: Arrays) -> tuple[Arrays, Arrays]:
    """The products with the input are made outside, in its layer."""
    weights = {
        "_recurrent_kernel_": torch_rows(v, "R_i R_f R_z R_o")[None],
        "_bias_": torch_rows(v, "b_i b_f b_z b_o"),
    }
    x = (v["x"] @ torch_rows(v, "W_i W_f W_z W_o").T).transpose(0, 1)
    start = torch.stack([v[name] for name in "hcnm"])
    series, last = torch_call(CELL, weights, x, start)
    return {"h": series[:, 0].transpose(0, 1)}, dict(zip("hcnm", last, strict=True))


def main() -> None:
    positive = {"n": (0.5, 1.5)}
    record("slstm", "xlstm", "xlstm sLSTMCell", slstm, side=torch_side, between=positive)


if __name__ == "__main__":
    main()
