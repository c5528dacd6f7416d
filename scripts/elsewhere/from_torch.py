"""What PyTorch's own layers say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from record import Array, Arrays, Call, gates, half, record, torch_call, torch_rows, torch_side


def layer(
    kind: type[torch.nn.RNNBase],
    which: str,
    *,
    states: str = "h",
    out: str = "h",
    names: tuple[str, str, str] = ("W_{}", "U_{}", "b_{}"),
    biases: Callable[[Arrays], tuple[Array, Array]] | None = None,
    **options: Any,
) -> Call:
    """A layer with the gates `which` in its order; their parameters are called as `names` say,
    by a pattern or one by one."""
    module = kind(2, 3, dtype=torch.float64, **options)
    w, u, b = (gates(name, which) if "{" in name else name for name in names)

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        weights = {"weight_ih_l0": torch_rows(v, w), "weight_hh_l0": torch_rows(v, u)}
        if options.get("bias", True):
            split = biases(v) if biases else half(torch_rows(v, b))
            weights["bias_ih_l0"], weights["bias_hh_l0"] = split
        if options.get("proj_size"):
            weights["weight_hr_l0"] = v["W_hr"]
        start = tuple(v[name][None] for name in states.split())
        series, last = torch_call(module, weights, v["x"], start if start[1:] else start[0])
        last = last if start[1:] else (last,)
        return {out: series}, {n: a[0] for n, a in zip(states.split(), last, strict=True)}

    return call


def gru_biases(v: Arrays) -> tuple[Array, Array]:
    """n keeps its two biases, r and z have one each."""
    (r1, r2), (z1, z2) = half(v["b_r"]), half(v["b_z"])
    return torch.cat([r1, z1, v["b_in"]]), torch.cat([r2, z2, v["b_hn"]])


def say(cell: str, claim: str, call: Call, **options: Any) -> None:
    record(cell, "torch", claim, call, side=torch_side, **options)


def main() -> None:
    rnn, lstm, gru = torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU
    alone = ("W", "U", "b")
    say("rnn", "torch.nn.RNN", layer(rnn, "", names=alone))
    irnn = layer(rnn, "", names=alone, nonlinearity="relu")
    say("irnn", 'torch.nn.RNN(nonlinearity="relu")', irnn)
    say("lstm", "torch.nn.LSTM", layer(lstm, "i f g o", states="h c"))
    say("lstm_chrono", "torch.nn.LSTM", layer(lstm, "i f g o", states="h c"))
    projected = layer(lstm, "i f g o", states="h c", proj_size=2)
    say("lstmp", "torch.nn.LSTM(proj_size=P)", projected, sizes={"P": 2})
    say("gru", "torch.nn.GRU", layer(gru, "r z n", biases=gru_biases))
    gomez = layer(lstm, "i f a o", states="out state", out="out")
    say("gomez", "torch.nn.LSTM", gomez)
    sancho = layer(lstm, "i f g o", states="h c", names=("W_{}", "R_{}", "b_{}"))
    say("sancho", "torch.nn.LSTM", sancho)
    bard = layer(lstm, "i f c e", states="h c", names=("U_{}", "W_{}", "-"), bias=False)
    say("shakespeare", "torch.nn.LSTM(bias=False)", bard)
    greff = layer(lstm, "i f z o", states="y c", out="y", names=("W_{}", "R_{}", "b_{}"))
    # gates that see less: some rows are 0
    blind, seeing, all_biases = "0 0 W_c 0", "U_i U_f U_c U_o", "b_i b_f b_c b_o"
    slim = ((seeing, all_biases), (seeing, "0 0 b_c 0"), ("0 0 U_c 0", all_biases))
    for k, (u, b) in enumerate(slim, 1):
        call = layer(lstm, "", states="h c", names=(blind, u, b))
        say(f"slim_lstm{k}", "torch.nn.LSTM, what its gates do not see 0", call)
    say("greff_np", "torch.nn.LSTM", greff)


if __name__ == "__main__":
    main()
