"""Tokens: whole numbers that say which row of a table a layer reads at each step."""

from __future__ import annotations

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from bptt.errors import UserError

_HELP = "give tokens [T, B], of torch.long for instance, and table=[V, input_size]"


def as_series(tokens: Tensor | PackedSequence, table: Tensor, wide: int) -> Tensor | PackedSequence:
    """Tokens [T, B], [T] or packed [N] as an input of one number a step, in the table's type.

    `table` is [V, wide]. That each token is one of its rows is checked where the layer runs.
    Raises UserError where a shape or a dtype does not fit.
    """
    if not isinstance(table, Tensor) or table.dim() != 2 or table.shape[1] != wide:
        shown = list(table.shape) if isinstance(table, Tensor) else type(table).__name__
        raise UserError(f"the table is {shown}; it is [V, {wide}]", help=_HELP)
    data = tokens.data if isinstance(tokens, PackedSequence) else tokens
    if not isinstance(data, Tensor) or data.is_floating_point() or data.is_complex():
        kind = data.dtype if isinstance(data, Tensor) else type(data).__name__
        raise UserError(f"tokens are whole numbers, and the input is {kind}", help=_HELP)
    if data.dim() > (1 if isinstance(tokens, PackedSequence) else 2) or not data.dim():
        raise UserError(f"the tokens have the shape {list(data.shape)}", help=_HELP)
    series = data.to(table.dtype).unsqueeze(-1)
    if isinstance(tokens, PackedSequence):
        return PackedSequence(
            series, tokens.batch_sizes, tokens.sorted_indices, tokens.unsorted_indices
        )
    return series
