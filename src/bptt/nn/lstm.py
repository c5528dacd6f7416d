"""`LSTM`: `nn.LSTM`'s arguments, names and numbers, with any cell of its kind inside."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack, cast, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from bptt.cell import Cell
from bptt.nn.options import Call, ResetTo, ReturnStates, Series
from bptt.nn.stacked import PROJECTION, Ours, Scheme, Stacked, gates
from bptt.nn.weights import Source

Pair = tuple[Tensor, Tensor]


class LSTM(Stacked):
    """`nn.LSTM` with any cell of its kind inside: the same arguments, weights and numbers.

    Called with an input [T, B, input_size] ([B, T, input_size] with `batch_first`, [T, input_size]
    unbatched, or a PackedSequence) and the pair of states (h_0, c_0) to begin with, if they are not
    zero: [num_layers * directions, B, h] and [..., H], with H the `hidden_size` and h the
    `proj_size` or else H; without B if unbatched. Gives the output of the last layer, laid out as
    the input, [T, B, directions * h], and (h_n, c_n), as they were given.

    Its arguments, calls, outputs and state dict are those of `nn.LSTM`, and with `cell="lstm"` so
    are its numbers: the equations of S. Hochreiter, J. Schmidhuber (1997) and F. Gers et al.
    (2000), as `bptt show lstm` has them. `cell` (a name, a path, a text or a `Cell`) has the states
    (h, c) and the parameters W_k, U_k and b_k of the gates i, f, g, o; what else it has, `p_i` for
    instance, becomes `p_i_l0`. `proj_size` needs a cell with a projection `W_hr`; for `lstm` that
    is `lstmp`. All parameters are drawn as in `nn.LSTM`: a cell's `init` lines are for `Recurrent`.
    `keep`, "all", "states" or "sqrt", is what is kept for the backward pass, as in `Recurrent`.

    `forget_bias` is what the bias of the forget gate begins with, as one number; `chrono`, the
    longest memory T_max in steps, draws it from log(uniform(1, T_max - 1)), and begins the input
    gate with its negative. Of the two biases that torch adds, the second begins with zero there.
    `learn_initial=True` makes the states before the first step parameters `h0` and `c0`,
    [num_layers * directions, w], which begin with zero and are used where a call gives none.

    `functions` and `consts`, and the options `recurrent_dropout`, `variational_dropout` and
    `zoneout`, are as in `Recurrent`; so are `resets`, `reset_to` and `return_states` in a call.
    Raises CellError and UserError for a cell of another kind.
    """

    _scheme = Scheme(
        "nn.LSTM",
        ("h", "c"),
        gates("ifgo") | {PROJECTION: Source(("weight_hr",))},
        (frozenset(gates("ifgo")),),
        ("lstm", "lstmp"),
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
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        cell: str | Path | Cell = "lstm",
        **ours: Unpack[Ours],
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device=device,
            dtype=dtype,
            cell="lstmp" if cell == "lstm" and proj_size else cell,
            ours=ours,
        )

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Pair | None = None,
        *,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: None = None,
    ) -> tuple[Tensor, Pair]: ...
    @overload
    def forward(
        self,
        input: PackedSequence,
        hx: Pair | None = None,
        *,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: None = None,
    ) -> tuple[PackedSequence, Pair]: ...
    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Pair | None = None,
        *,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: ReturnStates,
    ) -> tuple[Tensor | PackedSequence, Pair, Series | list[Series]]: ...
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Pair | None = None,
        *,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: ReturnStates | None = None,
    ) -> (
        tuple[Tensor | PackedSequence, Pair]
        | tuple[Tensor | PackedSequence, Pair, Series | list[Series]]
    ):
        """As `nn.LSTM.forward`: the output, and (h_n, c_n). Raises what that raises.

        `resets`, `reset_to` and `return_states`, which gives a third result: see `Recurrent`.
        """
        if resets is None and return_states is None:
            quick = self._quick(input, hx)
            if quick is not None:
                return cast(tuple[Tensor, Pair], quick)
        call = Call(resets, reset_to, return_states)
        output, (h, c), series = self._run(input, hx, call)
        return (output, (h, c)) if series is None else (output, (h, c), series)
