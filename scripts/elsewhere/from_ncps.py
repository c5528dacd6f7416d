"""What ncps's cells say. Its LTC is another than ours: a sum of synapses stands in its equation."""

from __future__ import annotations

import ncps.torch
import torch
from record import Arrays, record, torch_call, torch_side, torch_steps

CELL = ncps.torch.CfCCell(2, 3, backbone_units=4).double()
PARTS = {"backbone.0": "", "ff1": "_g", "ff2": "_k", "time_a": "_f", "time_b": "_s"}


def cfc(v: Arrays, inputs: Arrays, held: Arrays) -> Arrays:
    weights = {f"{part}.weight": v[f"W{name}"] for part, name in PARTS.items()}
    weights |= {f"{part}.bias": v[f"b{name}"] for part, name in PARTS.items()}
    h, _ = torch_call(CELL, weights, inputs["x"], held["h"], inputs["dt"])
    return {"h": h}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    call = torch_steps(cfc, "h", series="x dt")
    late = {"dt": (0.25, 2.0)}
    claim = "ncps.torch.CfCCell"
    record("cfc", "ncps", claim, call, side=torch_side, sizes={"K": 4}, between=late)


if __name__ == "__main__":
    main()
