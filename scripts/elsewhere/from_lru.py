"""What LRU-pytorch says. It gives no last state, and takes a first one for one sequence only."""

from __future__ import annotations

import torch
from LRU_pytorch import LRU
from record import Arrays, record, torch_call, torch_side

torch.set_default_dtype(torch.float64)
LAYER = LRU(in_features=2, out_features=3, state_features=4)


def lru(v: Arrays) -> tuple[Arrays, Arrays]:
    weights = {
        "nu_log": v["ν"],
        "theta_log": v["θ"],
        "gamma_log": v["γ"],
        "B": torch.complex(v["B_re"], v["B_im"]),
        "C": torch.complex(v["C_re"], v["C_im"]),
        "D": v["D"],
    }
    starts = torch.complex(v["u"], v["v"])
    both = zip(v["x"].unbind(1), starts, strict=True)
    series = [torch_call(LAYER, weights, x, state=start) for x, start in both]
    return {"y": torch.stack(series, 1)}, {}


def main() -> None:
    record("lru", "LRU-pytorch", "LRU_pytorch.LRU", lru, side=torch_side, sizes={"N": 4})


if __name__ == "__main__":
    main()
