"""What the package sru says, which its authors made."""

from __future__ import annotations

import warnings
from typing import Any

import sru
import torch
from record import Arrays, Call, record, torch_call, torch_rows, torch_side


def layer(scaled: bool, **options: Any) -> Call:
    cell = sru.SRUCell(3, 3, rescale=scaled, **options).double()

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        three = torch.stack([v["W"].T, v["W_f"].T, v["W_r"].T], -1)
        old = torch.zeros(6, dtype=torch.float64)
        weights = {
            "weight": three.reshape(3, 9),
            "weight_c": torch_rows(v, "v_f v_r") if "v_f" in v else old,
            "bias": torch_rows(v, "b_f b_r"),
        }
        if scaled:
            weights["scale_x"] = v["α"][None]
        series, c = torch_call(cell, weights, v["x"], v["c"])
        return {"h": series}, {"c": c}

    return call


def main() -> None:
    warnings.simplefilter("ignore")  # that gradients on a CPU are slow
    record("sru", "sru", "sru.SRUCell", layer(True), side=torch_side)
    first = layer(False, v1=True, use_tanh=True)
    claim = "sru.SRUCell(v1=True, use_tanh=True, rescale=False)"
    record("sru_2017", "sru", claim, first, side=torch_side)


if __name__ == "__main__":
    main()
