"""`LSTM`: `nn.LSTM`'s arguments, names and numbers, with any cell of its kind inside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.ir.dims import shape_of
from bptt.nn.batches import Batch, Precision
from bptt.nn.engine import Engine
from bptt.nn.layout import (
    Layout,
    Weight,
    constant,
    layout_of,
    run_layers,
    starting,
    tails_of,
)
from bptt.nn.quick import Quick, Source
from bptt.nn.recurrent import cell_of

Pair = tuple[Tensor, Tensor]

_GATES = "ifgo"  # in the order in which nn.LSTM stacks them
_STACKED = {f"{kind}_{gate}" for kind in "WUb" for gate in _GATES}
_PROJECTION = "W_hr"


class LSTM(Engine, nn.RNNBase):
    """`nn.LSTM` with any cell of its kind inside: the same arguments, weights and numbers.

    Its arguments, calls, outputs and state dict are those of `nn.LSTM`, and with `cell="lstm"` so
    are its numbers. `cell` (a name, a path, a text or a `Cell`) has the states (h, c) and the
    parameters W_k, U_k and b_k of the gates i, f, g, o; what else it has, `p_i` for instance,
    becomes `p_i_l0`. `proj_size` needs a cell with a projection `W_hr`; for `lstm` that is
    `lstmp`. All parameters are drawn as in `nn.LSTM`: a cell's `init` lines are for `Recurrent`.
    `keep`, "all", "states" or "sqrt", is what is kept for the backward pass, as in `Recurrent`.
    Raises CellError and UserError for a cell of another kind.
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
        consts: Mapping[str, Tensor | float] | None = None,
        keep: str = "all",
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
            device,
            dtype,
        )
        self.cell = cell_of("lstmp" if cell == "lstm" and proj_size else cell, functions)
        self.keep = keep
        self._layout = layout_of(self.cell.lowered, self.cell.name)
        _check(self._layout, proj_size)
        self._tails = tails_of(num_layers, bidirectional)
        values = {**self.cell.consts, **(consts or {})}
        for k, tails in enumerate(self._tails):
            wide = (proj_size or hidden_size) * len(tails) if k else input_size
            known = _sizes(self._layout, wide, hidden_size, proj_size)
            for tail in tails:
                for name, dims in self._layout.params:
                    if name not in _STACKED and name != _PROJECTION:
                        own = torch.empty(shape_of(dims, known), device=device, dtype=dtype)
                        bound = 1.0 / math.sqrt(hidden_size)
                        nn.init.uniform_(own, -bound, bound)
                        self.register_parameter(name + tail, nn.Parameter(own))
                for name, dims in self._layout.consts:
                    value = constant(self._layout, name, shape_of(dims, known), values, dtype)
                    self.register_buffer(name + tail, value.to(device))

        names = [name for name, _ in (*self._layout.params, *self._layout.consts)]
        each = [[{n: self._source(n, t) for n in names} for t in tails] for tails in self._tails]
        self._short = Quick(self._layout, each)

    @overload
    def forward(self, input: Tensor, hx: Pair | None = None) -> tuple[Tensor, Pair]: ...
    @overload
    def forward(
        self, input: PackedSequence, hx: Pair | None = None
    ) -> tuple[PackedSequence, Pair]: ...
    def forward(
        self, input: Tensor | PackedSequence, hx: Pair | None = None
    ) -> tuple[Tensor | PackedSequence, Pair]:
        """As `nn.LSTM.forward`: the output, and (h_n, c_n). Raises what that raises."""
        quick = self._quick(input, hx)
        if quick is not None:
            return quick
        if isinstance(input, Tensor) and input.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batch = Batch.of(input, self.batch_first)
        x = batch.x
        self.check_input(x, batch.batch_sizes)
        weights = [[self._weight(tail) for tail in tails] for tails in self._tails]
        starts = self._starts(hx, batch, [weight for layer in weights for weight in layer])
        precision = Precision.of(x, cast(Tensor, self.weight_ih_l0))
        if precision is not None:
            x, starts = x.to(precision.inside), [s.to(precision.inside) for s in starts]
        if any(start.dtype is not x.dtype for start in starts):
            raise UserError(f"hx is {starts[0].dtype} and {starts[1].dtype}, the input {x.dtype}")
        dropout = self.dropout if self.training else 0.0
        output, finals = run_layers(
            self._layout, x, starts, weights, batch.batch_sizes, dropout, keep=self.keep
        )
        if precision is not None:
            output = output.to(precision.output)
        output, (h, c) = batch.back(output, finals)
        return output, (h, c)

    def _quick(self, x: object, hx: Pair | None) -> tuple[Tensor, Pair] | None:
        """The same by the short way, where that can be taken."""
        if not isinstance(x, Tensor) or x.dim() != 3 or self.batch_first or not self.bias:
            return None
        if x.shape[-1] != self.input_size or (self.training and self.dropout) or not len(x):
            return None
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        found = self._short.run(self, x, hx, widths, self.keep)
        return None if found is None else (found[0], (found[1][0], found[1][1]))

    def _source(self, name: str, tail: str) -> Source:
        """Where a constant of the cell lies in nn.LSTM's parameters."""
        if name == _PROJECTION:
            return Source(("weight_hr" + tail,))
        if name not in _STACKED:
            return Source((name + tail,))
        kinds = {"W": ("weight_ih",), "U": ("weight_hh",), "b": ("bias_ih", "bias_hh")}
        names = tuple(kind + tail for kind in kinds[name[0]])
        return Source(names, _GATES.index(name[2]), len(_GATES))

    def _starts(self, hx: Pair | None, batch: Batch, weights: list[Weight]) -> list[Tensor]:
        h, c = self.proj_size or self.hidden_size, self.hidden_size
        if hx is None:
            return starting(self._layout, weights, (h, c), batch.size, batch.x)
        kind, rank = ("unbatched 2-D", 2) if batch.unbatched else ("batched 3-D", 3)
        if any(state.dim() != rank for state in hx):
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {rank}-D but got "
                f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        starts = batch.starts(hx)
        for k, (start, width) in enumerate(zip(starts, (h, c), strict=True)):
            expected = (len(weights), batch.size, width)
            self.check_hidden_size(start, expected, f"Expected hidden[{k}] size {{}}, got {{}}")
        return starts

    def _weight(self, tail: str) -> Weight:
        """The cell's parameters: slices of the stacked ones, which are read by attribute in every
        call, so that parametrizations and `functional_call` work."""

        def read(name: str) -> Tensor:
            return cast(Tensor, getattr(self, name + tail))[None]

        parts = {"W": read("weight_ih").chunk(4, 1), "U": read("weight_hh").chunk(4, 1)}
        if self.bias:
            parts["b"] = (read("bias_ih") + read("bias_hh")).chunk(4, 1)
        else:
            parts["b"] = (parts["W"][0].new_zeros(1, self.hidden_size),) * 4
        found = {
            f"{kind}_{gate}": part
            for kind in parts
            for gate, part in zip(_GATES, parts[kind], strict=True)
        }
        if self.proj_size:
            found[_PROJECTION] = read("weight_hr")
        return lambda name: found[name] if name in found else read(name)

    def _every_weight(self) -> list[Weight]:
        return [self._weight(tail) for tails in self._tails for tail in tails]

    def _first(self, batch: int) -> list[Tensor]:
        weights, like = self._every_weight(), cast(Tensor, self.weight_ih_l0)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        return starting(self._layout, weights, widths, batch, like.detach())

    def extra_repr(self) -> str:
        shown = cast(str, super().extra_repr())
        if self.cell.name not in ("lstm", "lstmp"):
            shown += f", cell={self.cell.name}"
        return shown if self.keep == "all" else f"{shown}, keep={self.keep}"


def _check(layout: Layout, proj_size: int) -> None:
    """Raise UserError for a cell that cannot have nn.LSTM's weights."""
    params = {name for name, _ in layout.params}
    missing = sorted(_STACKED - params)
    states = tuple(name for name, _ in layout.states)
    outputs = tuple(name for name, _ in layout.outputs)
    if states != ("h", "c") or outputs != ("h",):
        why = f"its output is {', '.join(outputs)} and its states are {', '.join(states) or 'none'}"
    elif missing:
        why = f"it has no parameter {missing[0]}"
    elif layout.others:
        why = f"it reads a further input {layout.others[0].name}"
    elif proj_size and _PROJECTION not in params:
        why = f"it has no projection {_PROJECTION}, and proj_size is {proj_size}"
    elif _PROJECTION in params and not proj_size:
        why = f"its projection {_PROJECTION} needs proj_size"
    else:
        return
    raise UserError(
        f"the cell `{layout.cell}` does not fit nn.LSTM: {why}",
        help="use bptt.nn.Recurrent, which takes any cell",
    )


def _sizes(layout: Layout, wide: int, hidden: int, proj: int) -> dict[str, int]:
    h = layout.outputs[0][1]
    return layout.sizes(wide, hidden, {h: proj} if proj and isinstance(h, str) else {})
