"""`GRU`: `nn.GRU`'s arguments, names and numbers, with any cell of its kind inside."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import torch

from bptt.cell import Cell
from bptt.nn.stacked import Alone, Ours, Scheme, gates, refuse_projection
from bptt.nn.weights import Source

_GATES = gates("rzn")
# within the reset gate's reach torch keeps its second bias apart
_APART = {"b_in": Source(("bias_ih",), 2, 3), "b_hn": Source(("bias_hh",), 2, 3)}


class GRU(Alone):
    """`nn.GRU` with any cell of its kind inside: the same arguments, weights and numbers.

    Called with an input [T, B, input_size] ([B, T, input_size] with `batch_first`, [T, input_size]
    unbatched, or a PackedSequence) and the state h_0 to begin with, if it is not zero, [num_layers
    * directions, B, hidden_size], without B if unbatched. Gives the output of the last layer, laid
    out as the input, [T, B, directions * hidden_size], and h_n, as h_0 was given.

    Its arguments, calls, outputs and state dict are those of `nn.GRU`, and with `cell="gru"` so are
    its numbers: the equations of K. Cho et al. (2014) with the reset gate behind the product, as
    `bptt show gru` has them. `cell` (a name, a path, a text or a `Cell`) has the state h and the
    parameters W_k and U_k of the gates r, z, n, the biases b_r and b_z, and either b_in and b_hn
    or, as `gru_cho`, one b_n; what else it has becomes a parameter of its own. All parameters are
    drawn as in `nn.GRU`.

    What comes by name is as in `LSTM`: `functions`, `consts`, `keep`, `recurrent_dropout`,
    `variational_dropout`, `zoneout`, `learn_initial` (the parameter `h0`), and, for a cell with a
    forget gate b_f, `forget_bias` and `chrono`; in a call `resets`, `reset_to` and `return_states`.
    Raises CellError and UserError for a cell of another kind, and in a call what torch's layer
    raises.
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
            device=device,
            dtype=dtype,
            cell=cell,
            ours=ours,
        )
