"""`GRU`: `nn.GRU`'s arguments, names and numbers, with any cell of its kind inside."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import torch

from bptt.cell import Cell
from bptt.nn.quick import Source
from bptt.nn.stacked import Alone, Ours, Scheme, gates, refuse_projection

_GATES = gates("rzn")
# within the reset gate's reach torch keeps its second bias apart
_APART = {"b_in": Source(("bias_ih",), 2, 3), "b_hn": Source(("bias_hh",), 2, 3)}


class GRU(Alone):
    """`nn.GRU` with any cell of its kind inside: the same arguments, weights and numbers.

    Its arguments, calls, outputs and state dict are those of `nn.GRU`, and with `cell="gru"` so
    are its numbers. `cell` (a name, a path, a text or a `Cell`) has the state h and the parameters
    W_k and U_k of the gates r, z, n, the biases b_r and b_z, and either b_in and b_hn or, as
    `gru_cho`, one b_n; what else it has becomes a parameter of its own. All parameters are drawn as
    in `nn.GRU`. `keep`, `forget_bias` and `chrono` (for a cell with a forget gate b_f),
    `learn_initial` (the parameter `h0`) and all else that comes by name are as in `LSTM`. Raises
    CellError and UserError for a cell of another kind.
    """

    _scheme = Scheme(
        "nn.GRU",
        ("h",),
        _GATES | _APART,
        (frozenset(_GATES.keys() - {"b_n"} | _APART.keys()), frozenset(_GATES)),
        ("gru",),
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        proj_size: None = None,
        cell: str | Path | Cell = "gru",
        **ours: Unpack[Ours],
    ) -> None:
        refuse_projection(proj_size)
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
            cell,
            ours,
        )
