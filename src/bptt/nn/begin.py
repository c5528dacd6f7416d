"""How a layer begins where its caller says so: forget gates, chrono initialization, states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from bptt.errors import UserError
from bptt.nn.layout import Layout
from bptt.nn.weights import Source

FORGET, INPUT = "b_f", "b_i"


class Begin(NamedTuple):
    """`forget_bias`: of the forget gate b_f. `chrono`: T_max, the longest memory. `learn_initial`:
    whether the states before the first step are parameters."""

    forget_bias: float | None = None
    chrono: float | None = None
    learn_initial: bool = False

    @staticmethod
    def of(
        layout: Layout, forget_bias: float | None, chrono: float | None, learn_initial: bool
    ) -> Begin:
        """Raises UserError where the cell has no forget gate, or a number cannot be."""
        asked = "chrono" if forget_bias is None else "forget_bias"
        if forget_bias is None and chrono is None:
            return Begin(learn_initial=learn_initial)
        if forget_bias is not None and chrono is not None:
            raise UserError("forget_bias and chrono both say where the forget gate begins")
        if FORGET not in dict(layout.params):
            raise UserError(
                f"the cell `{layout.cell}` has no forget gate `{FORGET}`, which {asked} is for",
                help="give the cell an `init` line for the bias of the gate that you mean",
            )
        if forget_bias is not None and not (_real(forget_bias) and math.isfinite(forget_bias)):
            raise UserError(f"forget_bias is a number, not {forget_bias!r}")
        if chrono is not None and not (_real(chrono) and 2 < chrono < math.inf):
            raise UserError(f"chrono is the longest memory in steps, more than 2, not {chrono!r}")
        return Begin(forget_bias, chrono, learn_initial)

    def shown(self) -> list[str]:
        """What a layer's repr says of it."""
        given = zip(self._fields, self, strict=True)
        return [f"{name}={value}" for name, value in given if value not in (None, False)]


def _real(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def learned_names(layout: Layout) -> dict[str, str]:
    """The parameter from which each state begins, by the state's name. A state that the cell
    begins from a parameter of its own needs no other."""
    starts = zip(layout.states, layout.starts, strict=True)
    return {name: f"{name}0" for (name, _), start in starts if not isinstance(start, str)}


def add_initial(
    layer: nn.Module,
    layout: Layout,
    rows: int,
    widths: Sequence[int],
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> None:
    """Give `layer` the parameters of its first states, [rows, w] each."""
    learned = learned_names(layout)
    for (state, _), width in zip(layout.states, widths, strict=True):
        if state in learned:
            empty = torch.empty(rows, width, device=device, dtype=dtype)
            layer.register_parameter(learned[state], nn.Parameter(empty))


def learned(layer: nn.Module, layout: Layout, starts: Sequence[Tensor]) -> list[Tensor]:
    """The states `starts`, [L*D, B, w] each, with the learned ones in place of the cell's own."""
    names = learned_names(layout)
    found: list[Tensor] = []
    for (state, _), own in zip(layout.states, starts, strict=True):
        if state in names:
            own = cast(Tensor, getattr(layer, names[state]))[:, None].expand(own.shape)
        found.append(own)
    return found


@torch.no_grad()
def begin(
    layer: nn.Module,
    layout: Layout,
    how: Begin,
    sources: Iterable[Mapping[str, Source]],
) -> None:
    """Set what `how` says: gates of every layer and direction, and the first states.

    Chrono: C. Tallec, Y. Ollivier, "Can recurrent neural networks warp time?" (2018), section 2.2.
    """
    for each in sources:
        if how.forget_bias is not None:
            _set(layer, each[FORGET]).fill_(how.forget_bias)
        if how.chrono is not None:
            drawn = _set(layer, each[FORGET]).uniform_(1, how.chrono - 1).log_()
            if INPUT in each:
                _set(layer, each[INPUT]).copy_(-drawn)
    if how.learn_initial:
        starts = dict(zip((name for name, _ in layout.states), layout.starts, strict=True))
        for state, name in learned_names(layout).items():
            cast(Tensor, getattr(layer, name)).fill_(float(starts[state]))


def _set(layer: nn.Module, source: Source) -> Tensor:
    """The part of a parameter to write a constant to; what is added to it is made zero."""
    first, *others = (
        cast(Tensor, getattr(layer, name)).chunk(source.parts)[source.part] for name in source.names
    )
    for other in others:
        other.zero_()
    return first
