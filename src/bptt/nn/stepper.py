"""`layer.stepper()`: one step at a time, as in generating text or in control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bptt.backends.cpu.run import check_readable, code_of
from bptt.backends.cpu.steps import OneStep
from bptt.errors import UserError
from bptt.nn.backend import choice
from bptt.nn.layout import Layout
from bptt.nn.sweep import sweep_of
from bptt.nn.weights import Weights


class Stepper:
    """A layer that is run step by step: `y = step(x)`, with x [B, input_size] and y [B, output].

    It packs the layer's parameters once and allocates nothing in a step. It works on a copy:
    **changes of the parameters after it was made are not seen**; make another one then. `y` is the
    same memory in every step: clone it to keep it. Nothing is recorded for a backward pass.
    """

    def __init__(
        self, layout: Layout, weights: Sequence[Weights], starts: Sequence[Tensor], input_size: int
    ) -> None:
        """`weights`: of each layer; `starts` [L, B, w]: the states to begin with."""
        if layout.others:
            name = layout.others[0].name
            raise UserError(f"a stepper has no further input, and the cell reads `{name}`")
        chosen = choice(starts)
        if chosen.name != "cpu":
            raise UserError(
                f"a stepper is compiled code, and the backend is {chosen}",
                help="call the layer itself with one step",
            )
        self.batch, self.dtype = starts[0].shape[1], starts[0].dtype
        whole = torch.contiguous_format
        self._starts = [s.clone(memory_format=whole) for s in starts]
        self._now = [s.clone(memory_format=whole) for s in starts]
        self._next = [torch.empty_like(s) for s in self._starts]
        self._steps: list[tuple[OneStep, list[Any]]] = []
        self._held: list[Tensor] = []  # what addresses point into
        code = code_of(sweep_of(layout.forward).program)
        library = code.library(self.dtype)
        wide: Tensor | None = None
        for row, weight in enumerate(weights):
            names = filter(None, layout.reads)
            known = {n: weight(n).detach().clone(memory_format=whole) for n in names}
            first = next(iter(known.values()), starts[0])
            if wide is None:
                self.wide = input_size
                wide = first.new_empty(1, 1, self.batch, input_size)
            arrays = [known[name] if name else wide for name in layout.reads]
            arrays += [s[row : row + 1] for s in self._now]
            check_readable(arrays, numpy=False)
            launch = code.launch(tuple([a.shape for a in arrays]), None)
            outs = [first.new_empty(shape) for shape in launch.shapes[: len(layout.outputs)]]
            onces: list[Tensor] = []
            if not code.plain:
                constants = launch.constants(arrays, arrays, first)
                onces = [launch.once(n, constants[n], False) for n in code.printed.once]
            self._held += [*arrays, *outs, *onces]
            step = OneStep(launch, library)
            tables: list[Any] = []
            for now, after in ((self._now, self._next), (self._next, self._now)):
                every = [*arrays[: len(layout.reads)], *(s[row : row + 1] for s in now), *outs]
                every += [s[row : row + 1] for s in after]
                tables.append(step.addresses([a.data_ptr() for a in (*every, *onces)]))
            self._steps.append((step, tables))
            wide = outs[0]
        assert wide is not None
        self._input = layout.reads.index("")
        self._output = wide[0, 0]
        self._turn = 0

    def __call__(self, x: Tensor) -> Tensor:
        """The output of the next step. Raises UserError where `x` does not fit."""
        known = x.dtype is self.dtype and x.device.type == "cpu"
        if not known or x.shape != (self.batch, self.wide):
            raise UserError(
                f"a step takes {[self.batch, self.wide]} of {self.dtype} on the CPU, "
                f"and was given {list(x.shape)} of {x.dtype} on {x.device}"
            )
        x = x.resolve_neg().contiguous()
        turn = self._turn
        first = self._steps[0]
        first[1][turn][self._input] = x.data_ptr()
        for step, tables in self._steps:
            step.run(tables[turn])
        self._turn = 1 - turn
        return self._output

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The states now, each [L, B, w]: a copy."""
        return tuple(s.clone() for s in (self._next if self._turn else self._now))

    def reset(self, states: Sequence[Tensor] | None = None) -> None:
        """Begin again from `states`, each [L, B, w], or from those that it began with."""
        wanted = self._starts if states is None else list(states)
        if [s.shape for s in wanted] != [s.shape for s in self._starts]:
            shapes = [list(s.shape) for s in self._starts]
            raise UserError(f"the states of this stepper have the shapes {shapes}")
        for into, s in zip(self._now, wanted, strict=True):
            into.copy_(s.detach())
        self._turn = 0
