"""What `nn.LSTM` lacks, for layers of any cell: dropout within the recurrence, zoneout, resets of
single sequences, and every value of every step.

Each is a rewrite of the cell's program, which reads further inputs. What they are is settled
here, once a call: masks are drawn by torch, resets laid out as the kernel wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.calculus import noise
from bptt.calculus.resets import resets as with_resets
from bptt.calculus.rewrites import with_outputs
from bptt.errors import UserError
from bptt.ir.dims import Dim, size_of
from bptt.ir.program import MACHINE, Program
from bptt.language.canonical import read
from bptt.nn.batches import Batch
from bptt.nn.layout import Layout, Ran, ran, retold
from bptt.nn.sweep import Keep
from bptt.nn.weights import Weights

ResetTo = Literal["start", "initial"]
ReturnStates = Literal["all", "layers"]
Rates = float | Mapping[str, float]
Series = dict[str, Tensor | PackedSequence]


class Mask(NamedTuple):
    """A mask that a program reads: of what width, with what probability, and of which kind."""

    name: str
    width: Dim
    rate: float
    per_sequence: bool
    zoneout: bool  # 1 with the probability `rate`; else 0 with it, and larger by what that costs


class Told(NamedTuple):
    """A cell's Layout with options written into its program, and what that reads further."""

    layout: Layout
    masks: tuple[Mask, ...] = ()
    reset: str | None = None
    begin: tuple[str, ...] = ()
    series: tuple[str, ...] = ()  # what it gives behind its outputs


class Call(NamedTuple):
    """What a call says beside its input and its states."""

    resets: Tensor | PackedSequence | None = None
    reset_to: ResetTo = "start"
    return_states: ReturnStates | None = None

    def check(self) -> None:
        """Raise UserError for words that a call does not know."""
        if self.reset_to not in get_args(ResetTo):
            raise UserError(f'reset_to is "start" or "initial", not {self.reset_to!r}')
        if self.return_states is not None and self.return_states not in get_args(ReturnStates):
            raise UserError(f'return_states is None, "all" or "layers", not {self.return_states!r}')


class Options:
    """The options of one layer: made with the layer, asked in every call.

    Each of `recurrent_dropout`, `variational_dropout` and `zoneout` is a probability, or one for
    each of some values of the cell. Raises UserError for what is none, and where the cell has
    nothing that the option is about.
    """

    def __init__(
        self,
        layout: Layout,
        recurrent_dropout: Rates = 0.0,
        variational_dropout: Rates = 0.0,
        zoneout: Rates = 0.0,
    ) -> None:
        self.plain = layout
        p = read(layout.forward)
        self.recurrent = _rates("recurrent_dropout", recurrent_dropout, lambda: _update(layout, p))
        self.variational = _rates(
            "variational_dropout", variational_dropout, lambda: _multiplied(layout, p)
        )
        self.zoneout = _rates("zoneout", zoneout, lambda: _states(layout, p))
        self._told: dict[tuple[bool, bool, bool], Told] = {}
        for training in (True, False):
            self.told(training)

    @property
    def noisy(self) -> bool:
        """Whether anything is drawn in training."""
        return bool(self.recurrent or self.variational or self.zoneout)

    @property
    def resting(self) -> Layout:
        """The Layout outside of training, where nothing is drawn."""
        return self.told(False).layout

    def told(self, training: bool, resets: bool = False, series: bool = False) -> Told:
        """The Layout that a call runs, and what it must be fed."""
        self._prepare(training, resets, series)
        return self._told[training, resets, series]

    # torch.compile cannot follow how a program is rewritten: it is done while it compiles
    @torch.compiler.assume_constant_result
    def _prepare(self, training: bool, resets: bool, series: bool) -> None:
        if (training, resets, series) not in self._told:
            self._told[training, resets, series] = self._tell(training, resets, series)

    def _tell(self, training: bool, resets: bool, series: bool) -> Told:
        if not ((self.noisy if training else self.zoneout) or resets or series):
            return Told(self.plain)
        p = read(self.plain.forward)
        named = [e.name for e in p.steps() if MACHINE not in e.name]
        masks: list[Mask] = []

        def take(found: noise.Masked, rates: Mapping[str, float], zoneout: bool = False) -> Program:
            for of, name in found.masks.items():
                value = found.program.value(name)
                width = value.dims[0] if value.dims else 1
                masks.append(Mask(name, width, rates[of], value.per_sequence, zoneout))
            return found.program

        if training and self.recurrent:
            p = take(noise.drop_updates(p, self.recurrent), self.recurrent)
        if training and self.variational:
            p = take(noise.drop_states(p, self.variational), self.variational)
        if self.zoneout:
            expected = None if training else self.zoneout
            p = take(noise.zoneout(p, self.zoneout, expected), self.zoneout, zoneout=True)
        reset, begin = None, ()
        if resets:
            changed = with_resets(p)
            p, reset, begin = changed.program, changed.reset, changed.begin
        further = tuple(name for name in named if name not in p.outputs) if series else ()
        p = with_outputs(p, further)
        return Told(retold(self.plain, p), tuple(masks), reset, begin, further)

    def run(
        self,
        call: Call,
        training: bool,
        given: Tensor | PackedSequence,
        batch: Batch,
        x: Tensor,
        starts: Sequence[Tensor],
        weights: Sequence[Sequence[Weights]],
        sizes: Sequence[Mapping[str, int]],
        initial: Callable[[], Sequence[Tensor]],
        dropout: float = 0.0,
        others: Mapping[str, Sequence[Tensor]] = MappingProxyType({}),
        widths: Sequence[Sequence[int]] = (),
        keep: Keep = "all",
        table: Tensor | None = None,
    ) -> Ran:
        """Run the layers as `call` says.

        `given` is the input as the caller has it, `batch` what it was made to, and `x` that in the
        type that runs. `sizes` of each layer; `initial` gives the cell's own states [L*D, B, w].
        The rest is `layout.ran`'s. Raises UserError where resets do not fit.
        """
        wanted = call.return_states is not None
        told = self.told(training, call.resets is not None, wanted)
        resets = None if call.resets is None else laid_out(call.resets, given, batch, x)
        begin = starts if resets is None or call.reset_to == "start" else initial()
        fed = feeds(told, x, batch, sizes, len(weights[0]), resets, begin)
        return ran(
            told.layout,
            x,
            starts,
            weights,
            batch.batch_sizes,
            dropout if training else 0.0,
            others,
            widths,
            keep,
            table,
            fed,
            told.series if wanted else None,
        )

    def shown(self) -> list[str]:
        """The options that are set, for `extra_repr`."""
        each = (
            ("recurrent_dropout", self.recurrent),
            ("variational_dropout", self.variational),
            ("zoneout", self.zoneout),
        )
        return [f"{name}={rates}" for name, rates in each if rates]


def feeds(
    told: Told,
    like: Tensor,
    batch: Batch,
    sizes: Sequence[Mapping[str, int]],
    directions: int,
    resets: Tensor | None = None,
    begin: Sequence[Tensor] = (),
) -> list[dict[str, Tensor]]:
    """What each layer and direction reads further, one after the other.

    `like`: the input that runs, for its type and place. `sizes`: of each layer. `resets`: see
    `laid_out`; `begin`, [L*D, B, w] each, what the states are set back to.
    """
    found: list[dict[str, Tensor]] = []
    for known in sizes:
        for reverse in range(directions):
            fed = {m.name: drawn(m, like, batch, size_of(m.width, known)) for m in told.masks}
            if told.reset is not None and resets is not None:
                fed[told.reset] = _shifted(resets, batch.batch_sizes) if reverse else resets
                widths = told.layout.widths(known)
                for name, value, w in zip(told.begin, begin, widths, strict=True):
                    fed[name] = value[len(found), :, :w]
            found.append(fed)
    return found


def drawn(mask: Mask, like: Tensor, batch: Batch, width: int) -> Tensor:
    """A mask, [T, B, w], [N, w] or `per_sequence` [B, w], out of torch's generator."""
    lead = (batch.size,) if mask.per_sequence else batch.x.shape[:-1]
    one = mask.rate if mask.zoneout else 1 - mask.rate
    # not made of `like`, which under vmap would be another for each sample
    mean = torch.full((*lead, width), one, dtype=like.dtype, device=like.device)
    drawn = torch.bernoulli(mean)
    return drawn if mask.zoneout or not one else drawn / one


def laid_out(
    resets: Tensor | PackedSequence, given: Tensor | PackedSequence, batch: Batch, like: Tensor
) -> Tensor:
    """Resets, laid out as the input was `given`, as numbers [T, B, 1] or [N, 1] of like's type.

    Raises UserError where they are not booleans, or do not fit.
    """
    data = resets.data if isinstance(resets, PackedSequence) else resets
    if not isinstance(data, Tensor) or data.dtype is not torch.bool:
        kind = data.dtype if isinstance(data, Tensor) else type(data).__name__
        raise UserError(
            f"resets are booleans, and these are {kind}",
            help="give a tensor of torch.bool, laid out as the input: resets=starts_here",
        )
    wanted = list((given.data if isinstance(given, PackedSequence) else given).shape[:-1])
    if list(data.shape) != wanted:
        raise UserError(f"the resets have the shape {list(data.shape)}; it is {wanted}")
    numbers = data.to(like.dtype).unsqueeze(-1)
    if isinstance(resets, PackedSequence):
        numbers = PackedSequence(
            numbers, resets.batch_sizes, resets.sorted_indices, resets.unsorted_indices
        )
    return batch.other(numbers, "resets", 1, per_sequence=False)


def given_back(
    found: Sequence[Mapping[str, Tensor]], how: ReturnStates, batch: Batch
) -> Series | list[Series]:
    """The series of each layer laid out as the input: of the last layer, or of "layers"."""
    each = [{name: batch.back(y, ())[0] for name, y in layer.items()} for layer in found]
    return each if how == "layers" else each[-1]


def _shifted(resets: Tensor, batch_sizes: Tensor | None) -> Tensor:
    """Resets for a direction that begins at the last step: between the same two steps.

    What stands before step t + 1 stands, on the way back, before step t.
    """
    if batch_sizes is None:
        return nn.functional.pad(resets, (0, 0, 0, 0, 0, 1))[1:]
    sizes = batch_sizes.to(resets.device)
    ends = sizes.cumsum(0)
    rows = torch.arange(len(resets), device=resets.device)
    step = torch.searchsorted(ends, rows, right=True)
    following = torch.cat([sizes[1:], sizes.new_zeros(1)])[step]
    goes_on = rows - (ends - sizes)[step] < following
    later = torch.where(goes_on, rows + sizes[step], rows)
    return resets.index_select(0, later) * goes_on.to(resets.dtype).unsqueeze(-1)


# --- what options are about -----------------------------------------------------------------------


def _rates(option: str, given: Rates, usual: Callable[[], Sequence[str]]) -> dict[str, float]:
    """The probability of each value. One alone is for the `usual` ones."""
    if isinstance(given, Mapping):
        rates = {str(name): probability(f"{option} of `{name}`", p) for name, p in given.items()}
    else:
        rate = probability(option, given)
        rates = dict.fromkeys(usual(), rate) if rate else {}
    return {name: rate for name, rate in rates.items() if rate}


def probability(what: str, given: object) -> float:
    """`given`, where it is one. Raises UserError."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0.0 <= given <= 1.0:
        raise UserError(f"{what} is a probability, from 0 to 1, not {given!r}")
    return float(given)


def _update(layout: Layout, p: Program) -> tuple[str, ...]:
    found = noise.updated(p)
    if len(found) == 1:
        return found
    named = [e.name for e in p.steps() if MACHINE not in e.name]
    which = f"the states {', '.join(found)} have" if found else "no state has"
    raise UserError(
        f"recurrent dropout of the cell `{layout.cell}`: {which} an update that is added to it",
        help=f"say which of {', '.join(named)} it is: recurrent_dropout={{'{named[0]}': 0.2}}",
    )


def _multiplied(layout: Layout, p: Program) -> tuple[str, ...]:
    found = noise.multiplied(p)
    if not found:
        raise UserError(
            f"variational dropout of the cell `{layout.cell}`: no matrix multiplies a state of it"
        )
    return found


def _states(layout: Layout, p: Program) -> tuple[str, ...]:
    found = noise.own_states(p)
    if not found:
        raise UserError(f"zoneout of the cell `{layout.cell}`, which has no state")
    return found
