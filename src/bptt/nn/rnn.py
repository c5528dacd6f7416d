"""`RNN`: `nn.RNN`'s arguments, names and numbers, with any cell of its kind inside."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import torch

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.nn.stacked import Alone, Ours, Scheme, refuse_projection
from bptt.nn.weights import Source

_SOURCES = {
    "W": Source(("weight_ih",)),
    "U": Source(("weight_hh",)),
    "b": Source(("bias_ih", "bias_hh")),
}
_STOCK = {"tanh": "rnn", "relu": "irnn"}


class RNN(Alone):
    """`nn.RNN` with any cell of its kind inside: the same arguments, weights and numbers.

    Called with an input [T, B, input_size] ([B, T, input_size] with `batch_first`, [T, input_size]
    unbatched, or a PackedSequence) and the state h_0 to begin with, if it is not zero, [num_layers
    * directions, B, hidden_size], without B if unbatched. Gives the output of the last layer, laid
    out as the input, [T, B, directions * hidden_size], and h_n, as h_0 was given.

    Its arguments, calls, outputs and state dict are those of `nn.RNN`, and so are its numbers, the
    equations of J. Elman (1990) as `bptt show rnn` has them, with `nonlinearity` "tanh" (the cell
    `rnn`) and "relu" (the cell `irnn`, its start as in `nn.RNN`). Another `cell` (a name, a path, a
    text or a `Cell`) says its own nonlinearity. It has the state h and the parameters W, U and b;
    what else it has becomes a parameter of its own. All parameters are drawn as in `nn.RNN`.

    What comes by name is as in `LSTM`: `functions`, `consts`, `keep`, `recurrent_dropout`,
    `variational_dropout`, `zoneout`, `learn_initial` (the parameter `h0`), and, for a cell with a
    forget gate b_f, `forget_bias` and `chrono`; in a call `resets`, `reset_to` and `return_states`.
    Raises CellError and UserError for a cell of another kind, and in a call what torch's layer
    raises.
    """

    _scheme = Scheme("nn.RNN", ("h",), _SOURCES, (frozenset(_SOURCES),), ("rnn", "irnn"))

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        proj_size: None = None,
        cell: str | Path | Cell | None = None,
        **ours: Unpack[Ours],
    ) -> None:
        refuse_projection(proj_size)
        if nonlinearity not in _STOCK:
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        if cell is None:
            cell = _STOCK[nonlinearity]
        elif cell == _STOCK["relu"]:
            nonlinearity = "relu"
        elif nonlinearity != "tanh":
            raise UserError(
                f"nonlinearity={nonlinearity!r} is for the cell of nn.RNN, and another is given",
                help="say it in the equations of the cell",
            )
        self.nonlinearity = nonlinearity
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device=device,
            dtype=dtype,
            cell=cell,
            ours=ours,
        )
