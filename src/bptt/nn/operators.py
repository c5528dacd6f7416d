"""The cells that ONNX has an operator for: `RNN`, `GRU` and `LSTM`, which runtimes have fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bptt.calculus.rewrites import layer
from bptt.cell import load
from bptt.ir.program import State
from bptt.nn.sweep import Sweep
from bptt.printers.text import text as canonical_text

_ZERO = "0"


@dataclass(frozen=True)
class _Operator:
    """An operator and where its inputs come from: parameters' names in the order in which ONNX
    stacks them, `0` for zeros. `biases`: those beside the input, then those beside the state."""

    op: str
    inputs: str
    states: str
    biases: tuple[str, str]
    peepholes: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


_COUPLED = {"input_forget": 1}
_GREFF = ("W_i W_o W_f W_z", "R_i R_o R_f R_z", ("b_i b_o b_f b_z", ""), "p_i p_o p_f")
_CIFG = ("W_i W_o 0 W_z", "R_i R_o 0 R_z", ("b_i b_o 0 b_z", ""), "p_i p_o 0", _COUPLED)
_TABLE = {
    "rnn": _Operator("RNN", "W", "U", ("b", "")),
    "irnn": _Operator("RNN", "W", "U", ("b", ""), attributes={"activations": ["Relu"]}),
    "gru": _Operator(
        "GRU",
        "W_z W_r W_n",
        "U_z U_r U_n",
        ("b_z b_r b_in", "0 0 b_hn"),
        attributes={"linear_before_reset": 1},
    ),
    "gru_cho": _Operator("GRU", "W_z W_r W_n", "U_z U_r U_n", ("b_z b_r b_n", "")),
    "lstm": _Operator("LSTM", "W_i W_o W_f W_g", "U_i U_o U_f U_g", ("b_i b_o b_f b_g", "")),
    "peephole": _Operator(
        "LSTM", "W_i W_o W_f W_g", "U_i U_o U_f U_g", ("b_i b_o b_f b_g", ""), "p_i p_o p_f"
    ),
    "coupled": _Operator(
        "LSTM",
        "W_i W_o 0 W_g",
        "U_i U_o 0 U_g",
        ("b_i b_o 0 b_g", ""),
        attributes=_COUPLED,
    ),
    "greff_vanilla": _Operator("LSTM", *_GREFF),
    "greff_cifg": _Operator("LSTM", *_CIFG),
}


@cache
def _by_text() -> dict[str, tuple[_Operator, str]]:
    """Each operator and its direction, by the text of the Program that it runs."""
    found: dict[str, tuple[_Operator, str]] = {}
    for name, operator in _TABLE.items():
        p = layer(load(name).lowered)
        bare = replace(p, states=tuple(State(s.name) for s in p.states))
        found[canonical_text(bare)] = operator, "forward"
        found[canonical_text(replace(bare, dir=-1))] = operator, "reverse"
    return found


def operator_of(text: str) -> str | None:
    """The operator that the program of this text is in float32."""
    known = _by_text().get(text)
    return None if known is None else known[0].op


def operated(sweep: Sweep, tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """The results of `run(sweep, tensors)` as ONNX's operator; None where there is none.

    In float32 only: what others run is not in every runtime.
    """
    known = _by_text().get(sweep.text)
    if known is None or any(x.dtype is not torch.float32 or x.shape[0] != 1 for x in tensors):
        return None
    operator, direction = known
    given = {port.name: x for port, x in zip(sweep.inputs, tensors, strict=True)}
    states = [s.name for s in sweep.program.states]
    starts = [given[s] for s in states]
    hidden = starts[0].shape[-1]
    count = len(operator.inputs.split())

    def stacked(names: str) -> Tensor:
        parts = [given.get(name) for name in names.split() or [_ZERO] * count]
        like = next((x for x in parts if x is not None), starts[0].new_zeros(1, hidden))
        return torch.cat([torch.zeros_like(like) if x is None else x for x in parts], 1)

    x = given["x"]
    inputs: list[Tensor | None] = [x[0], stacked(operator.inputs), stacked(operator.states)]
    inputs += [torch.cat([stacked(b) for b in operator.biases], 1), None, *starts]
    inputs += [stacked(operator.peepholes)] if operator.peepholes else []
    steps, batch = x.shape[1:3]
    series, *finals = torch.onnx.ops.symbolic_multi_out(
        operator.op,
        inputs,
        {"hidden_size": int(hidden), "direction": direction, **operator.attributes},
        dtypes=[x.dtype] * (1 + len(starts)),
        shapes=[(steps, 1, batch, hidden), *((1, batch, hidden) for _ in starts)],
    )
    return [series[:, 0][None], *finals]
