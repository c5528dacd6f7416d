"""What SpeechBrain says of QRNNs: its layer sees one input, so it is fed two side by side. Its
forget gate says how much is new, so its rows have the other sign."""

from __future__ import annotations

import sys
from unittest.mock import MagicMock

import torch
from record import Arrays, Call, record, torch_call, torch_side

# SpeechBrain imports it; no layer here needs it, and it must fit the build of torch
sys.modules.setdefault("torchaudio", MagicMock(__version__="2.9"))

from speechbrain.nnet.RNN import QuasiRNNLayer  # noqa: E402


def layer(output_gate: bool, state: str) -> Call:
    module = QuasiRNNLayer(4, 3, bidirectional=False, output_gate=output_gate).double()

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        x, before = v["x"], torch.cat([v["last$x"][None], v["x"][:-1]])
        signs = {"z": 1, "f": -1, "o": 1} if output_gate else {"z": 1, "f": -1}
        rows = [s * torch.cat([v[f"W_{k}"], v[f"V_{k}"]], 1) for k, s in signs.items()]
        weight = torch.cat(rows)
        weights = {"w.weight": weight, "w.bias": torch.zeros_like(weight[:, 0])}
        both = torch.cat([x, before], -1).transpose(0, 1)
        # what it gives as the last state is that of the last sequence, at all steps
        series, _ = torch_call(module, weights, both, v[state])
        return {"h": series.transpose(0, 1)}, {}

    return call


def main() -> None:
    for cell, gate, state in (("qrnn", True, "c"), ("qrnn_f", False, "h")):
        options = "" if gate else "(output_gate=False)"
        claim = f"speechbrain QuasiRNNLayer{options}, fed x[t] and x[t-1]"
        record(cell, "speechbrain", claim, layer(gate, state), side=torch_side)


if __name__ == "__main__":
    main()
