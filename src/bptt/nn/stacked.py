"""What torch's layers have in common: the weights of gates stacked, and any cell of their kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.ir.dims import shape_of
from bptt.nn.batches import Batch, Precision
from bptt.nn.begin import Begin, add_initial, learned_names
from bptt.nn.engine import Engine
from bptt.nn.layout import (
    Layout,
    constant,
    layout_of,
    tails_of,
)
from bptt.nn.options import Call, Options, Rates, ResetTo, ReturnStates, Series, given_back
from bptt.nn.quick import Quick
from bptt.nn.recurrent import cell_of
from bptt.nn.weights import Source

PROJECTION = "W_hr"


class Scheme(NamedTuple):
    """How one of torch's layers holds the constants of a cell.

    `sources`: where each lies, in parameters whose names lack the layer. `needs`: what a cell must
    have, one of several sets. What else it has are parameters of their own.
    """

    layer: str
    states: tuple[str, ...]
    sources: Mapping[str, Source]
    needs: tuple[frozenset[str], ...]
    stock: tuple[str, ...]  # the cells that torch has

    @property
    def short(self) -> str:
        """The layer's name as torch's errors have it."""
        return self.layer.removeprefix("nn.")


def gates(names: str) -> dict[str, Source]:
    """W_k, U_k and b_k of these gates, in the order in which torch stacks them."""
    found: dict[str, Source] = {}
    for part, gate in enumerate(names):
        found["W_" + gate] = Source(("weight_ih",), part, len(names))
        found["U_" + gate] = Source(("weight_hh",), part, len(names))
        found["b_" + gate] = Source(("bias_ih", "bias_hh"), part, len(names))
    return found


class Ours(TypedDict, total=False):
    """What our layers take beside torch's arguments and the cell, by name. See `LSTM`."""

    functions: Mapping[str, str] | None
    consts: Mapping[str, Tensor | float] | None
    keep: str
    forget_bias: float | None
    chrono: float | None
    learn_initial: bool
    recurrent_dropout: Rates
    variational_dropout: Rates
    zoneout: Rates


class Stacked(Engine, nn.RNNBase):
    """One of torch's layers, with any cell of its kind inside. See `LSTM`, `GRU` and `RNN`."""

    _scheme: Scheme
    _begin = Begin()

    def __init__(
        self,
        mode: str,
        *torchs: Any,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        cell: str | Path | Cell,
        ours: Ours,
    ) -> None:
        """`mode`, and `torchs` from `input_size` to `proj_size`: the arguments of nn.RNNBase."""
        unknown = sorted(ours.keys() - Ours.__annotations__.keys())
        if unknown:
            raise TypeError(f"{type(self).__name__} takes no argument {unknown[0]!r}")
        super().__init__(mode, *torchs, device=device, dtype=dtype)
        self.cell, self.keep = cell_of(cell, ours.get("functions")), ours.get("keep", "all")
        layout = layout_of(self.cell.lowered, self.cell.name)
        self._options = Options(
            layout,
            ours.get("recurrent_dropout", 0.0),
            ours.get("variational_dropout", 0.0),
            ours.get("zoneout", 0.0),
        )
        layout = self._layout = self._options.resting
        self._stacked = _fitting(self._scheme, layout, self.proj_size)
        self._tails = tails_of(self.num_layers, self.bidirectional)
        self.state_names = self._scheme.states
        self.state_sizes = (self.proj_size or self.hidden_size, self.hidden_size)[
            : len(self.state_names)
        ]
        self._sizes = [  # of each layer
            self._known(self.state_sizes[0] * len(tails) if k else self.input_size)
            for k, tails in enumerate(self._tails)
        ]
        self._add_own(ours.get("consts") or {}, device, dtype)
        gates = ours.get("forget_bias"), ours.get("chrono")
        how = Begin.of(layout, *gates, ours.get("learn_initial", False))
        if not self.bias and how._replace(learn_initial=False) != Begin():
            raise UserError("without a bias there is none of a forget gate to begin with")
        if how.learn_initial:
            rows = self.num_layers * len(self._tails[0])
            add_initial(self, layout, rows, self.state_sizes, device, dtype)
        names = [name for name, _ in (*layout.params, *layout.consts)]
        each = [[{n: self._source(n, t) for n in names} for t in tails] for tails in self._tails]
        first = list(learned_names(layout).values()) if how.learn_initial else []
        self._short = Quick(layout, each, first)
        self._begin = how
        self._begin_as_asked()

    def _add_own(
        self,
        consts: Mapping[str, Tensor | float],
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Make what the cell has beside torch's parameters. Raises UserError where a stacked one
        is of another size than torch's, and for a constant without a value."""
        layout, bound = self._layout, 1.0 / math.sqrt(self.hidden_size)
        values = {**self.cell.consts, **consts}
        for known, tails in zip(self._sizes, self._tails, strict=True):
            self._check_shapes(known, tails[0])
            for tail in tails:
                for name, dims in layout.params:
                    if name not in self._stacked:
                        own = torch.empty(shape_of(dims, known), device=device, dtype=dtype)
                        nn.init.uniform_(own, -bound, bound)
                        self.register_parameter(name + tail, nn.Parameter(own))
                for name, dims in layout.consts:
                    value = constant(layout, name, shape_of(dims, known), values, dtype)
                    self.register_buffer(name + tail, value.to(device))

    def reset_parameters(self) -> None:
        """Draw all parameters anew as torch does; then begin as the layer was asked to."""
        super().reset_parameters()
        if self._begin != Begin():  # torch's constructor calls this too
            self._begin_as_asked()

    def _quick(
        self, input: Tensor | PackedSequence, hx: Sequence[Tensor] | None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...]] | None:
        """What a call without further options gives, by the short way, where that can be taken."""
        if self.training and self._options.noisy:
            return None
        return self._short.run(self, input, hx, self.state_sizes, self.keep)

    def _run(
        self, input: Tensor | PackedSequence, hx: Sequence[Tensor] | None, call: Call
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...], Series | list[Series] | None]:
        """The output, the last value of each state, and the series that `call` asks for. Raises
        what torch's layer raises, and UserError where resets do not fit."""
        call.check()
        if isinstance(input, Tensor) and input.dim() not in (2, 3):
            noun = " tensor" if self._scheme.short == "RNN" else ""
            raise ValueError(
                f"{self._scheme.short}: Expected input to be 2D or 3D, "
                f"got {input.dim()}D{noun} instead"
            )
        batch = Batch.of(input, self.batch_first)
        x = batch.x
        if hx is not None:
            _check_pair(hx, self._scheme)
            _check_ranks(hx, batch.unbatched)
        self.check_input(x, batch.batch_sizes)
        if x.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        starts: Sequence[Tensor] = (
            self.initial_states(batch.size)
            if hx is None
            else self._checked(batch.starts(hx), batch)
        )
        precision = Precision.of(x, cast(Tensor, self.weight_ih_l0))
        if precision is not None:
            x, starts = x.to(precision.inside), [s.to(precision.inside) for s in starts]
        if any(start.dtype is not x.dtype for start in starts):
            formats = " and ".join(str(start.dtype) for start in starts)
            raise UserError(f"hx is {formats}, the input {x.dtype}")
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
            keep=self.keep,
        )
        output = found.output if precision is None else found.output.to(precision.output)
        output, finals = batch.back(output, found.finals)
        if call.return_states is None:
            return output, finals, None
        return output, finals, given_back(found.series, call.return_states, batch)

    def _source(self, name: str, tail: str) -> Source:
        """Where a constant of the cell lies among the parameters of a layer and direction."""
        if name not in self._stacked:
            return Source((name + tail,))
        source = self._scheme.sources[name]
        if not self.bias and source.names[0].startswith("bias"):
            return Source(("weight_ih" + tail,), zeros=self.hidden_size)
        return source._replace(names=tuple([kind + tail for kind in source.names]))

    def _checked(self, starts: list[Tensor], batch: Batch) -> list[Tensor]:
        rows, several = sum(map(len, self._tails)), len(self.state_sizes) > 1
        if len(starts) != len(self.state_sizes):
            raise RuntimeError("lstm expects two hidden states")
        for k, (start, width) in enumerate(zip(starts, self.state_sizes, strict=True)):
            which = f"hidden[{k}]" if several else "hidden"
            expected = (rows, batch.size, width)
            self.check_hidden_size(start, expected, f"Expected {which} size {{}}, got {{}}")
        return starts

    def _known(self, wide: int) -> dict[str, int]:
        h = self._layout.outputs[0][1]
        extra = {h: self.proj_size} if self.proj_size and isinstance(h, str) else {}
        return self._layout.sizes(wide, self.hidden_size, extra)

    def _check_shapes(self, sizes: Mapping[str, int], tail: str) -> None:
        """Raise UserError where a stacked constant is not as large as its part of a parameter."""
        for name, dims in self._layout.params:
            source = self._source(name, tail)
            if name in self._stacked and not source.zeros:
                whole = cast(Tensor, getattr(self, source.names[0])).shape
                part = (whole[0] // source.parts, *whole[1:])
                found = shape_of(dims, sizes)
                if found != part:
                    why = f"its parameter {name} is {list(found)}, and there it is {list(part)}"
                    raise _misfit(self._scheme, self._layout, why)

    def extra_repr(self) -> str:
        shown = [cast(str, super().extra_repr())]
        if self.cell.name not in self._scheme.stock:
            shown.append(f"cell={self.cell.name}")
        if self.keep != "all":
            shown.append(f"keep={self.keep}")
        return ", ".join([*shown, *self._options.shown(), *self._begin.shown()])


class Alone(Stacked):
    """A layer of one state, which is given and given back alone, without a tuple."""

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: None = None,
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(
        self,
        input: PackedSequence,
        hx: Tensor | None = None,
        *,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: None = None,
    ) -> tuple[PackedSequence, Tensor]: ...
    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: ReturnStates,
    ) -> tuple[Tensor | PackedSequence, Tensor, Series | list[Series]]: ...
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        resets: Tensor | PackedSequence | None = None,
        reset_to: ResetTo = "start",
        return_states: ReturnStates | None = None,
    ) -> (
        tuple[Tensor | PackedSequence, Tensor]
        | tuple[Tensor | PackedSequence, Tensor, Series | list[Series]]
    ):
        """As torch's layer: the output, and h_n. Raises what that raises. See `LSTM.forward`."""
        given = None if hx is None else (hx,)
        if resets is None and return_states is None:
            quick = self._quick(input, given)
            if quick is not None:
                return quick[0], quick[1][0]
        call = Call(resets, reset_to, return_states)
        output, (h,), series = self._run(input, given, call)
        return (output, h) if series is None else (output, h, series)


def refuse_projection(proj_size: object) -> None:
    """Raise, as torch does, where a projection is asked for that only an LSTM has."""
    if proj_size is not None:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")


def _check_pair(hx: object, scheme: Scheme) -> None:
    """Raise UserError for what holds no tensor for each of several states: torch's words for it
    are about something else."""
    if len(scheme.states) < 2:
        return
    given = cast(Sequence[object], hx)
    lone = isinstance(hx, Tensor) and hx.dim() < 4
    odd = [hx] if lone else [s for s in given if not isinstance(s, Tensor)]
    if odd:
        raise UserError(
            f"{scheme.short}: a {type(odd[0]).__name__} stands where a state should be",
            help="give hx=(h_0, c_0), or nothing to begin with zeros",
        )


def _check_ranks(hx: Sequence[Tensor], unbatched: bool) -> None:
    """Raise RuntimeError, in torch's words, for states of another rank than the input's."""
    kind, rank = ("unbatched 2-D", 2) if unbatched else ("batched 3-D", 3)
    if any(state.dim() != rank for state in hx):
        found = ", ".join(f"{state.dim()}-D" for state in hx)
        several = len(hx) > 1
        raise RuntimeError(
            f"For {kind} input, hx{' and cx' if several else ''} should also be {rank}-D but got "
            + (f"({found}) tensors" if several else f"{found} tensor")
        )


def _fitting(scheme: Scheme, layout: Layout, proj_size: int) -> frozenset[str]:
    """The constants that are stacked. Raises UserError for a cell that cannot have torch's
    weights."""
    params = {name for name, _ in layout.params}
    missing = [sorted(needed - params) for needed in scheme.needs]
    states = tuple(name for name, _ in layout.states)
    outputs = tuple(name for name, _ in layout.outputs)
    if states != scheme.states or outputs != ("h",):
        why = f"its output is {', '.join(outputs)} and its states are {', '.join(states) or 'none'}"
    elif all(missing):
        why = f"it has no parameter {missing[0][0]}"
    elif layout.others:
        why = f"it reads a further input {layout.others[0].name}"
    elif proj_size and PROJECTION not in params:
        why = f"it has no projection {PROJECTION}, and proj_size is {proj_size}"
    elif PROJECTION in params and PROJECTION in scheme.sources and not proj_size:
        why = f"its projection {PROJECTION} needs proj_size"
    else:
        found = scheme.needs[missing.index([])]
        return found | {PROJECTION} if proj_size else found
    raise _misfit(scheme, layout, why)


def _misfit(scheme: Scheme, layout: Layout, why: str) -> UserError:
    return UserError(
        f"the cell `{layout.cell}` does not fit {scheme.layer}: {why}",
        help="use bptt.nn.Recurrent, which takes any cell",
    )
