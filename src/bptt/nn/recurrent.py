"""`Recurrent`: any cell as a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.cell import Cell, load
from bptt.errors import UserError
from bptt.ir.dims import shape_of
from bptt.nn.batches import Batch
from bptt.nn.layout import Weight, layout_of, run_layers

States = tuple[Tensor, ...]


class Recurrent(nn.Module):
    """Layers of any cell, in the manner of `nn.LSTM`.

    `cell`: a cell's name, the path of its file, its text, or a `Cell`. `sizes`: the sizes it has
    beside its input's and its states', `{"P": 32}`. `functions`: what stands for the functions it
    leaves open, `{"f_c": "tanh"}`. `consts`: those of its constants that its text gives no value;
    they are buffers. A parameter `W` of the cell is `W_l0` for the first layer (`W_l0_reverse` for
    its other direction), drawn from +-1/sqrt(hidden_size) unless an `init` line of the cell says
    otherwise. Raises CellError and UserError for a cell that no layer can be made of.

    Called with an input [T, B, input_size] ([B, T, input_size] with `batch_first`, [T, input_size]
    unbatched, or a PackedSequence), and with the states before the first step, if they are not to
    be the cell's own: a tuple, in the order of `state_names`, of [num_layers * directions, B, w]
    ([num_layers * directions, w] unbatched). Gives the output of the last layer, laid out as the
    input, [T, B, output_size], and the states after the last step, as the ones before the first.
    """

    def __init__(
        self,
        cell: str | Path | Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        sizes: Mapping[str, int] | None = None,
        functions: Mapping[str, str] | None = None,
        consts: Mapping[str, Tensor | float] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise UserError(f"num_layers must be at least 1, not {num_layers}")
        if not 0.0 <= dropout <= 1.0:
            raise UserError(f"dropout is a probability, from 0 to 1, not {dropout}")
        self.cell = _cell(cell, functions)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self._layout = layout_of(self.cell.lowered, self.cell.name)
        self._tails = [
            [f"_l{k}", f"_l{k}_reverse"] if bidirectional else [f"_l{k}"] for k in range(num_layers)
        ]
        known = self._layout.sizes(input_size, hidden_size, sizes or {})
        self.state_names = tuple(name for name, _ in self._layout.states)
        self.state_sizes = self._layout.widths(known)
        self.output_size = self._layout.output_width(known) * len(self._tails[0])
        values = {**self.cell.consts, **(consts or {})}
        for k, tails in enumerate(self._tails):
            if k:
                known = self._layout.sizes(self.output_size, hidden_size, sizes or {})
            for tail in tails:
                for name, dims in self._layout.params:
                    empty = torch.empty(shape_of(dims, known), device=device, dtype=dtype)
                    self.register_parameter(name + tail, nn.Parameter(empty))
                for name, dims in self._layout.consts:
                    shape = shape_of(dims, known)
                    value = _constant(self.cell.name, name, shape, values)
                    self.register_buffer(name + tail, value.to(device, dtype or torch.get_default_dtype()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, then set those for which the cell has an `init` line."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        for name, _ in self._layout.params:
            if name in self.cell.inits:
                for tail in (tail for tails in self._tails for tail in tails):
                    nn.init.constant_(getattr(self, name + tail), self.cell.inits[name])

    @property
    def backend(self) -> str:
        """What runs the cell."""
        return "reference (torch)"

    def initial_states(self, batch: int) -> States:
        """The states before the first step, as the cell declares them: each [L*D, batch, w]."""
        found: list[Tensor] = []
        tails = [tail for tails in self._tails for tail in tails]
        like = next(iter((*self.parameters(), *self.buffers())))
        for width, start in zip(self.state_sizes, self._layout.starts, strict=True):
            if isinstance(start, str):
                rows = [getattr(self, start + tail).expand(batch, width) for tail in tails]
                found.append(torch.stack(rows))
            else:
                found.append(like.new_full((len(tails), batch, width), start))
        return tuple(found)

    @overload
    def forward(self, input: Tensor, states: Sequence[Tensor | None] | Tensor | None = None) -> tuple[Tensor, States]: ...
    @overload
    def forward(
        self, input: PackedSequence, states: Sequence[Tensor | None] | Tensor | None = None
    ) -> tuple[PackedSequence, States]: ...
    def forward(
        self,
        input: Tensor | PackedSequence,
        states: Sequence[Tensor | None] | Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, States]:
        """See the class. Raises UserError where a shape or a dtype does not fit."""
        batch = Batch.of(input, self.batch_first)
        ...
