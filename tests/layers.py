"""A layer of any cell of the library, and what it must be given."""

from __future__ import annotations

from typing import Any

import torch
from sweeps_of import FUNCTIONS
from torch import Tensor

from bptt.cell import Cell
from bptt.ir.dims import shape_of, size_of, terms
from bptt.nn import Recurrent
from bptt.nn.layout import Layout, layout_of

_WIDTHS = {"H": 5, "X": 3}
_OTHER = 2  # every other size


def made(name: str, **options: Any) -> Recurrent:
    """A layer of the cell `name` in float64, its constants drawn small."""
    torch.manual_seed(0)
    cell = Cell.load(name).bind(FUNCTIONS.get(name, {}))
    layout = layout_of(cell.lowered, name)
    sizes = _sizes(layout)
    shapes = {c: shape_of(dims, sizes) for c, dims in layout.consts if c not in cell.consts}
    hidden = "H" if "H" in sizes else layout.states[0][1]
    told = {"X", hidden} | {n for n, k in terms(layout.input).items() if n and k == 1}
    return Recurrent(
        cell,
        size_of(layout.input, sizes),
        size_of(hidden, sizes),
        sizes={n: k for n, k in sizes.items() if n not in told and n not in terms(hidden)},
        consts={c: torch.randn(shape, dtype=torch.float64) / 4 for c, shape in shapes.items()},
        dtype=torch.float64,
        **options,
    )


def _sizes(layout: Layout) -> dict[str, int]:
    dims = [d for _, shape in (*layout.params, *layout.consts) for d in shape]
    dims += [d for _, d in (*layout.states, *layout.outputs)] + [layout.input]
    dims += [other.width for other in layout.others]
    names = {name for d in dims for name in terms(d) if name}
    return {name: _WIDTHS.get(name, _OTHER) for name in sorted(names)}


def given(layer: Recurrent, steps: int, batch: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Its input, and the further ones by name: between 0 and 1, as masks and time gaps are."""
    layout = layout_of(layer.cell.lowered, layer.cell.name)
    sizes = _sizes(layout)
    x = torch.randn(steps, batch, layer.input_size, dtype=torch.float64)
    others: dict[str, Tensor] = {}
    for name, width, per_sequence in layout.others:
        lead = (batch,) if per_sequence else (steps, batch)
        others[name] = torch.rand(*lead, size_of(width, sizes), dtype=torch.float64)
    return x, others
