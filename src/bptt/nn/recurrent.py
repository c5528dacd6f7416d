"""`Recurrent`: any cell as a layer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import cast, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.cell import Cell, load
from bptt.errors import UserError
from bptt.ir.dims import shape_of, size_of
from bptt.nn.batches import Batch, Precision
from bptt.nn.begin import Begin, add_initial, learned_names
from bptt.nn.engine import Engine
from bptt.nn.initial import start
from bptt.nn.layout import constant, layout_of, tails_of
from bptt.nn.options import (
    Call,
    Options,
    Rates,
    ResetTo,
    ReturnStates,
    Series,
    given_back,
    probability,
)
from bptt.nn.quick import Quick
from bptt.nn.tokens import as_series
from bptt.nn.weights import Source

States = tuple[Tensor, ...]
Given = Sequence[Tensor] | Tensor | None
Other = Tensor | PackedSequence | Sequence[Tensor | PackedSequence]


class Recurrent(Engine, nn.Module):
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

    A state that has another width in each layer (an input of theirs that is read at `[t-1]`) is as
    wide as its widest, with zeros behind. The input is the cell's `x`, or its first; further ones
    are given by name, `layer(x, s=s, k=k)`, laid out as the input, or [B, w] where the cell
    declares them `per sequence`. Every layer gets the same, unless a list has one for each.

    With `table`, [V, input_size], the input is tokens: whole numbers from 0 to V - 1, [T, B]
    ([B, T], [T] or packed [N]). `layer(tokens, table=e.weight)` gives what `layer(e(tokens))` does
    for an `nn.Embedding` e, gradients too, but multiplies the table once instead of every step's
    input: it is quicker where there are more tokens in a batch than rows in the table. Raises
    UserError, before anything runs, for a token that is no row.

    `keep`, which can also be set later, says what is kept for the backward pass beside the inputs:
    "all" it reads; "states", which are fewer series, and the rest is computed again; or "sqrt",
    the states at every sqrt(T)-th step or so, and the steps between are run again. The gradients
    are the same.

    `forget_bias`, `chrono` and `learn_initial` are as in `LSTM`: where the bias b_f begins,
    whatever an `init` line of the cell says, and parameters `h0`, `c0`, ... for the first states.
    These begin where the cell's states do; one that the cell begins from a parameter gets no other.

    `recurrent_dropout`, `variational_dropout`, `zoneout`: see docs/options.md. Each is a
    probability, or a dict with one for each of some values of the cell. Masks are drawn by torch,
    in training; outside of it a state of a zoneout is the mean of its old and its new value.

    `resets`, booleans laid out as the input, say before which steps a sequence begins anew: from
    the states that the call began with, or, with `reset_to="initial"`, from the cell's own. The
    gradient is cut there, and a layer's other direction is set back between the same two steps.
    With `return_states="all"` a call gives a third result: every state and named value of the
    last layer's cell at every step, by name, laid out as the output; those of two directions side
    by side. "layers" gives a list of them, one for each layer.
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
        keep: str = "all",
        recurrent_dropout: Rates = 0.0,
        variational_dropout: Rates = 0.0,
        zoneout: Rates = 0.0,
        forget_bias: float | None = None,
        chrono: float | None = None,
        learn_initial: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        numbers = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, number in numbers.items():
            if not isinstance(number, int) or isinstance(number, bool):
                raise UserError(f"{name} is a whole number, not {number!r}")
        if num_layers < 1:
            raise UserError(f"num_layers must be at least 1, not {num_layers}")
        probability("dropout", dropout)
        self.cell, self.keep = cell_of(cell, functions), keep
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        layout = layout_of(self.cell.lowered, self.cell.name)
        self._options = Options(layout, recurrent_dropout, variational_dropout, zoneout)
        self._layout = self._options.resting
        self._tails = tails_of(num_layers, bidirectional)
        known = self._layout.sizes(input_size, hidden_size, sizes or {})
        self.state_names = tuple(name for name, _ in self._layout.states)
        self.output_size = self._layout.output_width(known) * len(self._tails[0])
        unknown = sorted(set(consts or {}) - {name for name, _ in self._layout.consts})
        if unknown:
            raise UserError(f"the cell `{self.cell.name}` has no constant `{unknown[0]}`")
        if dropout and num_layers == 1:
            warnings.warn("dropout acts between layers, and there is one", stacklevel=2)
        values = {**self.cell.consts, **(consts or {})}
        self._sizes: list[dict[str, int]] = []  # of each layer
        for k, tails in enumerate(self._tails):
            if k:
                known = self._layout.sizes(self.output_size, hidden_size, sizes or {})
            self._sizes.append(known)
            for tail in tails:
                for name, dims in self._layout.params:
                    empty = torch.empty(shape_of(dims, known), device=device, dtype=dtype)
                    self.register_parameter(name + tail, nn.Parameter(empty))
                for name, dims in self._layout.consts:
                    value = constant(self._layout, name, shape_of(dims, known), values, dtype)
                    self.register_buffer(name + tail, value.to(device))
        self._widths = [self._layout.widths(known) for known in self._sizes]
        self.state_sizes = tuple(map(max, zip(*self._widths, strict=True)))
        names = [name for name, _ in (*self._layout.params, *self._layout.consts)]
        each = [
            [{n: Source((n + tail,)) for n in names} for tail in tails] for tails in self._tails
        ]
        self._begin = Begin.of(self._layout, forget_bias, chrono, learn_initial)
        if learn_initial:
            rows = num_layers * len(self._tails[0])
            add_initial(self, self._layout, rows, self.state_sizes, device, dtype)
        first = list(learned_names(self._layout).values()) if learn_initial else []
        self._short = Quick(self._layout, each, first)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, then set those for which the cell has an `init` line."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        needed = {name for name, _ in self._layout.params}
        for tail in (tail for tails in self._tails for tail in tails):

            def known(name: str, tail: str = tail) -> Tensor:
                if name not in needed:
                    what = f"an initial value reads `{name}`, which a layer of this cell lacks"
                    raise UserError(what)
                return cast(Tensor, getattr(self, name + tail))

            for name, value in self.cell.inits.items():
                if name in needed:
                    start(known(name), value, known)
        self._begin_as_asked()

    @overload
    def forward(
        self,
        input: Tensor,
        states: Given = None,
        *,
        table: Tensor | None = None,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: None = None,
        **inputs: Other,
    ) -> tuple[Tensor, States]: ...
    @overload
    def forward(
        self,
        input: PackedSequence,
        states: Given = None,
        *,
        table: Tensor | None = None,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: None = None,
        **inputs: Other,
    ) -> tuple[PackedSequence, States]: ...
    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        states: Given = None,
        *,
        table: Tensor | None = None,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: ReturnStates,
        **inputs: Other,
    ) -> tuple[Tensor | PackedSequence, States, Series | list[Series]]: ...
    def forward(
        self,
        input: Tensor | PackedSequence,
        states: Given = None,
        *,
        table: Tensor | None = None,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: ReturnStates | None = None,
        **inputs: Other,
    ) -> (
        tuple[Tensor | PackedSequence, States]
        | tuple[Tensor | PackedSequence, States, Series | list[Series]]
    ):
        """See the class. Raises UserError where a shape or a dtype does not fit."""
        if table is None and resets is None and return_states is None and not inputs:
            quick = self._quick(input, states)
            if quick is not None:
                return quick
        call = Call(resets, reset_to, return_states)
        call.check()
        if table is not None:
            input = as_series(input, table, self.input_size)
        batch = Batch.of(input, self.batch_first)
        x = batch.x
        if table is None and x.shape[-1] != self.input_size:
            raise UserError(f"the input is {x.shape[-1]} wide, and input_size is {self.input_size}")
        starts = self._given(states, batch)
        others = self._others(inputs, batch)
        weight = next(chain(self.parameters(), self.buffers()), None)
        precision = None if weight is None else Precision.of(x, weight)
        if precision is not None:
            x, starts = x.to(precision.inside), [s.to(precision.inside) for s in starts]
            table = None if table is None else table.to(precision.inside)
            others = {n: [o.to(precision.inside) for o in found] for n, found in others.items()}
        named = ((o, f"input {name}") for name, found in others.items() for o in found)
        fed = "input" if table is None else "table"
        for tensor, what in ((x, fed), *((s, "state") for s in starts), *named):
            if weight is not None and tensor.dtype is not weight.dtype:
                raise UserError(
                    f"the {what} is {tensor.dtype}, and the parameters are {weight.dtype}"
                )
        found = self._options.run(
            call,
            self.training,
            input,
            batch,
            x,
            starts,
            self._weights(),
            self._sizes,
            lambda: self.initial_states(batch.size),
            self.dropout,
            others,
            self._widths if len(set(self._widths)) > 1 else (),
            self.keep,
            table,
        )
        output = found.output if precision is None else found.output.to(precision.output)
        output, finals = batch.back(output, found.finals)
        if return_states is None:
            return output, finals
        return output, finals, given_back(found.series, return_states, batch)

    def _quick(
        self, x: Tensor | PackedSequence, states: Given
    ) -> tuple[Tensor | PackedSequence, States] | None:
        """The same by the short way, where that can be taken."""
        if self.training and self._options.noisy:
            return None
        given = [states] if isinstance(states, Tensor) else states
        if self._obstacle() is not None:
            return None
        return self._short.run(self, x, given, self.state_sizes, self.keep)

    def _obstacle(self) -> str | None:
        odd = len(set(self._widths)) > 1
        return "a state has another width in each layer" if odd else None

    def _given(self, states: Given, batch: Batch) -> list[Tensor]:
        """The states to begin with, in the kernel's layout, checked."""
        if states is None:
            return list(self.initial_states(batch.size))
        given = [states] if isinstance(states, Tensor) else list(states)
        names = ", ".join(self.state_names)
        if len(given) != len(self.state_names):
            raise UserError(
                f"the cell `{self.cell.name}` has the states {names}; {len(given)} were given"
            )
        rows = self.num_layers * len(self._tails[0])
        for name, width, state in zip(self.state_names, self.state_sizes, given, strict=True):
            shape = [rows, width] if batch.unbatched else [rows, batch.size, width]
            if list(state.shape) != shape:
                raise UserError(
                    f"the state {name} has the shape {list(state.shape)}; it is {shape}"
                )
        return batch.starts(given)

    def _others(self, given: Mapping[str, Other], batch: Batch) -> dict[str, list[Tensor]]:
        """The further inputs in the kernel's layout, one a layer, checked."""
        wanted = {other.name: other for other in self._layout.others}
        for name in (*given, *wanted):
            if name not in given or name not in wanted:
                lack = f"lacks its input `{name}`" if name in wanted else f"has no input `{name}`"
                call = ", ".join(["x", *(f"{n}={n}" for n in wanted)])
                raise UserError(f"the cell `{self.cell.name}` {lack}", help=f"call layer({call})")
        found: dict[str, list[Tensor]] = {}
        for name, (_, width, per_sequence) in wanted.items():
            value = given[name]
            single = isinstance(value, Tensor | PackedSequence)
            each = [value] * self.num_layers if single else list(value)
            if len(each) != self.num_layers:
                raise UserError(
                    f"`{name}` is a list of {len(each)}; a list has one for each of the "
                    f"{self.num_layers} layers"
                )
            found[name] = [
                batch.other(one, name, size_of(width, known), per_sequence=per_sequence)
                for one, known in zip(each, self._sizes, strict=True)
            ]
        return found

    def extra_repr(self) -> str:
        shown = [self.cell.name, str(self.input_size), str(self.hidden_size)]
        if self.num_layers != 1:
            shown.append(f"num_layers={self.num_layers}")
        for name, usual in (("batch_first", False), ("dropout", 0.0), ("bidirectional", False)):
            if getattr(self, name) != usual:
                shown.append(f"{name}={getattr(self, name)}")
        if self.keep != "all":
            shown.append(f"keep={self.keep}")
        return ", ".join([*shown, *self._options.shown(), *self._begin.shown()])


def cell_of(cell: str | Path | Cell, functions: Mapping[str, str] | None) -> Cell:
    """The cell that a name, a path or a text means. Raises CellError and UserError."""
    if isinstance(cell, str) and "[" in cell and "=" in cell:
        cell = Cell(cell)
    found = cell if isinstance(cell, Cell) else load(cell)
    return found.bind(functions) if functions else found
