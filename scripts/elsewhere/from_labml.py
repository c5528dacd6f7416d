"""What labml_nn's cells say."""

from __future__ import annotations

from typing import Any

import torch
from labml_nn.hypernetworks.hyper_lstm import HyperLSTMCell
from labml_nn.lstm import LSTMCell
from labml_nn.recurrent_highway_networks import RHNCell
from record import Arrays, Call, gates, record, torch_call, torch_rows, torch_side, torch_steps


def lstm() -> Call:
    cell = LSTMCell(2, 3, layer_norm=True).double()

    def step(v: Arrays, inputs: Arrays, held: Arrays) -> Arrays:
        weights = {
            "input_lin.weight": torch_rows(v, gates("W_{}", "i f g o")),
            "hidden_lin.weight": torch_rows(v, gates("U_{}", "i f g o")),
            "hidden_lin.bias": torch_rows(v, gates("b_{}", "i f g o")),
        }
        for k, gate in enumerate("ifgo"):
            weights[f"layer_norm.{k}.weight"] = v[f"g_{gate}"]
            weights[f"layer_norm.{k}.bias"] = v[f"β_{gate}"]
        weights |= {"layer_norm_c.weight": v["g_c"], "layer_norm_c.bias": v["β_c"]}
        h, c = torch_call(cell, weights, inputs["x"], held["h"], held["c"])
        return {"h": h, "c": c}

    return torch_steps(step, "h c")


def highway(depth: int) -> Call:
    cell = RHNCell(2, 3, depth).double()

    def step(v: Arrays, inputs: Arrays, held: Arrays) -> Arrays:
        weights = {"input_lin.weight": torch_rows(v, "W_u W_k")}
        for d in range(depth):
            weights[f"hidden_lin.{d}.weight"] = torch_rows(v, f"R_u{d + 1} R_k{d + 1}")
            weights[f"hidden_lin.{d}.bias"] = torch_rows(v, f"b_u{d + 1} b_k{d + 1}")
        return {"h": torch_call(cell, weights, inputs["x"], held["h"])}

    return torch_steps(step, "h")


def hyper() -> Call:
    cell = HyperLSTMCell(2, 3, 2, 2).double()

    def step(v: Arrays, inputs: Arrays, held: Arrays) -> Arrays:
        weights = {
            "hyper.input_lin.weight": v["V"],
            "hyper.hidden_lin.weight": v["R"],
            "hyper.hidden_lin.bias": v["a"],
            "hyper.layer_norm_c.weight": v["g_e"],
            "hyper.layer_norm_c.bias": v["β_e"],
            "layer_norm_c.weight": v["g_c"],
            "layer_norm_c.bias": v["β_c"],
            "z_h.weight": v["Z_h"],
            "z_h.bias": v["a_h"],
            "z_x.weight": v["Z_x"],
            "z_x.bias": v["a_x"],
            "z_b.weight": v["Z_b"],
        }
        parts = {
            "hyper.layer_norm.{}.weight": "g_p",
            "hyper.layer_norm.{}.bias": "β_p",
            "layer_norm.{}.weight": "g",
            "layer_norm.{}.bias": "β",
            "d_h.{}.weight": "D_h",
            "d_x.{}.weight": "D_x",
            "d_b.{}.weight": "D_b",
            "d_b.{}.bias": "b",
            "w_h.{}": "U",
            "w_x.{}": "W",
        }
        for name, ours in parts.items():
            for k, part in enumerate(v[ours].chunk(4)):
                weights[name.format(k)] = part
        states = [held[name] for name in "hcpe"]
        return dict(zip("hcpe", torch_call(cell, weights, inputs["x"], *states), strict=True))

    return torch_steps(step, "h c p e")


def say(cell: str, claim: str, call: Call, **options: Any) -> None:
    record(cell, "labml-nn", f"labml_nn.{claim}", call, side=torch_side, **options)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    say("layernorm_lstm_pergate", "lstm.LSTMCell(layer_norm=True)", lstm())
    for depth in (2, 3):
        claim = f"recurrent_highway_networks.RHNCell(depth={depth})"
        say(f"rhn{depth}", claim, highway(depth))
    say("hyper_lstm", "hypernetworks.hyper_lstm.HyperLSTMCell", hyper(), sizes={"P": 2, "N": 2})


if __name__ == "__main__":
    main()
