"""What runs a layer: which backend, why, and how; and the layer run one step at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from bptt.errors import UserError
from bptt.nn.backend import Choice, choice
from bptt.nn.begin import Begin, begin, learned
from bptt.nn.explain import explanation
from bptt.nn.layout import Keeps, Layout, starting
from bptt.nn.options import Options
from bptt.nn.quick import Quick
from bptt.nn.stepper import Stepper
from bptt.nn.weights import Weights

if TYPE_CHECKING:
    from bptt.cell import Cell


class Parts(NamedTuple):
    """What a layer is made of, for who writes it down elsewhere: as a file of C, as a graph.

    `layout`: what runs in evaluation, and what it reads, in text and numbers. `sizes`: of each
    layer, the number that each named size of the cell is. `weights`: of each layer and direction,
    one after the other, what gives a constant of the cell by its name, [1, *dims], as it is now.
    """

    layout: Layout
    sizes: Sequence[Mapping[str, int]]
    weights: Sequence[Weights]

    @property
    def directions(self) -> int:
        """1, or 2."""
        return len(self.weights) // len(self.sizes)

    @property
    def widths(self) -> list[tuple[int, ...]]:
        """Of the states, in each layer."""
        return [self.layout.widths(known) for known in self.sizes]


class Engine(Keeps):
    """What `Recurrent` and torch's layers have in common beside what they compute."""

    cell: Cell
    input_size: int
    batch_first: bool
    state_sizes: tuple[int, ...]
    _begin: Begin
    _options: Options
    _sizes: list[dict[str, int]]
    _layout: Layout
    _short: Quick
    _tails: list[list[str]]

    def _weights(self) -> list[list[Weights]]:
        """The constants of each layer and direction."""
        module = cast(nn.Module, self)
        return [[Weights(module, each) for each in layer] for layer in self._short.sources]

    def _every_weight(self) -> list[Weights]:
        """The same, one after the other."""
        return [weights for layer in self._weights() for weights in layer]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled. nn.RNNBase leaves what `layer.compile()` made, which cannot be."""
        state = cast(dict[str, Any], super().__getstate__())
        return {name: value for name, value in state.items() if name != "_compiled_call_impl"}

    def parts(self) -> Parts:
        """What this layer is made of: see `Parts`."""
        return Parts(self._layout, self._sizes, self._every_weight())

    def initial_states(self, batch: int) -> tuple[Tensor, ...]:
        """The states before the first step, as the cell declares them or as they were learned:
        each [L*D, batch, w]."""
        module = cast(nn.Module, self)
        like = next(chain(module.parameters(), module.buffers()), torch.empty(0)).detach()
        found = starting(self._layout, self._every_weight(), self.state_sizes, batch, like)
        return tuple(learned(module, self._layout, found) if self._begin.learn_initial else found)

    def _obstacle(self) -> str | None:
        """Why this kind of layer has no short way, whatever `Quick` can do."""
        return None

    def _begin_as_asked(self) -> None:
        """Set the gates and first states for which the caller said where they begin."""
        sources = [each for layer in self._short.sources for each in layer]
        begin(cast(nn.Module, self), self._layout, self._begin, sources)

    def _choice(self) -> Choice:
        return choice(list(cast(nn.Module, self).parameters()) or self.initial_states(1))

    @property
    def backend(self) -> str:
        """What runs the cell: "cpu" is compiled code, "reference" torch's own operations."""
        return self._choice().name

    def explain(self, *, resets: bool = False, return_states: bool = False) -> str:
        """What runs this layer, and why: backend, way, options, compiler, threads, cache, plans.

        The plans are those that run with the layer's options: in training and, where that is
        another, in evaluation. `resets`, `return_states`: as in a call that has them.
        """
        return explanation(self, resets, return_states)

    @property
    def qconfig(self) -> None:
        """None where `torch.ao.quantization` was told to leave this layer as it is. It cannot be
        told to quantize it: setting another raises UserError."""
        if "qconfig" not in self.__dict__:
            raise AttributeError("qconfig")
        return None

    @qconfig.setter
    def qconfig(self, asked: object) -> None:
        if asked is not None:
            help = "leave it as it is with `layer.qconfig = None`, or quantize a layer of torch's"
            raise UserError(f"{type(self).__name__} of bptt cannot be quantized", help=help)
        self.__dict__["qconfig"] = None

    @qconfig.deleter
    def qconfig(self) -> None:
        self.__dict__.pop("qconfig", None)

    def stepper(self, batch: int = 1, states: Sequence[Tensor] | None = None) -> Stepper:
        """This layer, one step at a time: see `Stepper`.

        `states`, each [L, batch, w], are those to begin with, if not the cell's own. Raises
        UserError for a layer of two directions, for a cell with further inputs, and where
        compiled code does not run.
        """
        if any(len(tails) > 1 for tails in self._tails):
            raise UserError("a layer of two directions cannot run step by step")
        first = [s.detach() for s in self.initial_states(batch)]
        given = first if states is None else [s.detach() for s in states]
        like = first[0]
        if any(s.dtype is not like.dtype or s.device != like.device for s in given):
            raise UserError(f"the states are {like.dtype} on {like.device}, as the layer is")
        if [s.shape for s in given] != [s.shape for s in first]:
            raise UserError(f"the states have the shapes {[list(s.shape) for s in first]}")
        return Stepper(self._layout, self._every_weight(), given, self.input_size)
