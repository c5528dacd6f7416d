"""The network of a forecast around any cell, and its loss, which leaves out what is missing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.nn import Recurrent
from bptt.nn.recurrent import cell_of
from bptt.tasks.windows import Settings


class ForecastModel(nn.Module):
    """Recurrent layers over a window, and a linear layer from their last output to the steps.

    A cell with an input `per sequence` is given the attributes by it; to other cells they are
    inputs that are the same at each step. Raises UserError for a cell that needs anything else.
    """

    def __init__(self, cell: str | Path | Cell, features: int, statics: int, settings: Settings):
        super().__init__()
        found = cell_of(cell, None)
        self.given = _given(found, statics)
        sizes = dict.fromkeys(found.needs.sizes, statics)
        wide = features if self.given else features + statics
        between = settings.dropout if settings.layers > 1 else 0.0
        self.recurrent = Recurrent(
            found, wide, settings.hidden, settings.layers, dropout=between, sizes=sizes
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(self.recurrent.output_size, settings.ahead)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """From inputs `[L, B, F]` and attributes `[B, S]` the standardised target, `[B, A]`."""
        if self.given:
            output, _ = self.recurrent(x, **{self.given: s})
        else:
            output, _ = self.recurrent(torch.cat([x, s.expand(len(x), *s.shape)], dim=2))
        return self.head(self.dropout(output[-1]))


def _given(cell: Cell, statics: int) -> str | None:
    """The input by which a cell takes attributes. Raises UserError for what it needs besides."""
    need = cell.needs
    fixed = [value for value in need.inputs if value.per_sequence]
    taken = set(fixed[0].dims) if fixed else set()
    if len(need.inputs) > 1 or len(fixed) != len(need.inputs) or set(need.sizes) - taken:
        what = f"the cell `{cell.name}` needs more than a series and attributes: {need.text()}"
        raise UserError(what, help="bptt.nn.Recurrent takes all that a cell needs")
    if need.functions or need.consts:
        what = f"the cell `{cell.name}` leaves something open: {need.text()}"
        raise UserError(what, help="Cell(text, functions=..., consts=...) says what it is")
    if fixed and not statics:
        what = f"the cell `{cell.name}` reads attributes, {fixed[0].name}, and the table has none"
        raise UserError(what, help="read_table(..., statics='FILE.csv', attributes=(...))")
    return fixed[0].name if fixed else None


def masked_loss(output: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of squared errors where `expected` is a number, and how many those are."""
    there = torch.isfinite(expected)
    # The gap is filled before it is subtracted: the gradient of NaN * 0 is NaN.
    error = output - torch.where(there, expected, output.detach())
    return (error**2).sum(), there.sum()
