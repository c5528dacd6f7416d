"""`Recurrent`: any cell as a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.cell import Cell, load
from bptt.errors import UserError
from bptt.ir.dims import shape_of
from bptt.nn.layout import Layout, Weight, layout_of, run_layers

States = tuple[Tensor, ...]


class Recurrent(nn.Module):
    """Layers of any cell, in the manner of `nn.LSTM`.

    `cell`: a cell's name, the path of its file, its text, or a `Cell`. `sizes`: the sizes it has
    beside its input's and its states', `{"P": 32}`. `functions`: what stands for the functions it
    leaves open, `{"f_c": "tanh"}`. `consts`: its constants that the text gives no value, which
    are never trained. Each parameter `W` of the cell is one of the module for each layer, `W_l0`
    (`W_l0_reverse` for the other direction), uniform in +-1/sqrt(hidden_size) unless the cell's
    `init` lines say otherwise. Raises CellError and UserError for a cell that no layer can be made of.
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
        self._extra = dict(sizes or {})
        known = self._layout.sizes(input_size, hidden_size, self._extra)
        self.state_sizes = self._layout.widths(known)
        self.output_size = self._layout.output_width(known) * (2 if bidirectional else 1)
        for k in range(num_layers):
            known = self._layout.sizes(self.output_size if k else input_size, hidden_size, self._extra)
            for tail in self._tails(k):
                for name, dims in self._layout.params:
                    empty = torch.empty(shape_of(dims, known), device=device, dtype=dtype)
                    self.register_parameter(name + tail, nn.Parameter(empty))
                for name, dims in self._layout.consts:
                    value = _constant(self.cell, name, consts or {})
                    whole = torch.empty(shape_of(dims, known), device=device, dtype=dtype)
                    self.register_buffer(name + tail, whole.copy_(torch.as_tensor(value)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew: uniform, then what the cell's `init` lines say."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        for name, value in self.cell.inits.items():
            for k in range(self.num_layers):
                for tail in self._tails(k):
                    if hasattr(self, name + tail):  # not one of the readout's
                        nn.init.constant_(getattr(self, name + tail), value)

    @property
    def backend(self) -> str:
        """What runs the cell."""
        return "reference (torch)"
