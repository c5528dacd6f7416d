"""`LSTM`: `nn.LSTM`'s arguments, names and numbers, with any cell of its kind in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.ir.dims import shape_of
from bptt.nn.batches import Batch, Precision
from bptt.nn.layout import Layout, Weight, cell_of, layout_of, run_layers

Pair = tuple[Tensor, Tensor]

_GATES = "ifgo"  # the order in which nn.LSTM stacks them
_SHARED = {f"{kind}_{gate}" for kind in "WUb" for gate in _GATES}
_PROJECTION = "W_hr"


class LSTM(nn.RNNBase):
    """`nn.LSTM` with another cell inside: same arguments, same weights, same numbers.

    Everything as in `nn.LSTM`, whose state dict it reads and writes: with `cell="lstm"` outputs
    and gradients are the same too. `cell` (a name, a path, a text or a `Cell`) may be any cell
    with the states (h, c) and the parameters `W_k`, `U_k`, `b_k` of the gates i, f, g, o; what
    it has beside them, `p_i` for instance, is `p_i_l0` here. `proj_size` needs a cell with a
    projection `W_hr`, and makes `lstmp` of `lstm`. Initial values are `nn.LSTM`'s too: the cell's
    `init` lines are for `Recurrent`. Raises UserError for a cell of another kind.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        cell: str | Path | Cell = "lstm",
        functions: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype,
        )
        ...
