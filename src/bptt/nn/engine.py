"""What runs a layer: which backend, why, and how; and the layer run one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from bptt.calculus.summary import plans
from bptt.errors import UserError
from bptt.nn.backend import Choice, choice
from bptt.nn.begin import Begin, begin
from bptt.nn.layout import Keeps, Layout, Weight
from bptt.nn.quick import Quick
from bptt.nn.stepper import Stepper
from bptt.printers.plan import show_plan

if TYPE_CHECKING:
    from bptt.cell import Cell


class Engine(Keeps):
    """What `Recurrent` and torch's layers have in common beside what they compute."""

    cell: Cell
    input_size: int
    _begin: Begin
    _layout: Layout
    _short: Quick
    _tails: list[list[str]]

    def _every_weight(self) -> list[Weight]:
        """What gives the constants of each layer and direction, one after the other."""
        raise NotImplementedError

    def _first(self, batch: int) -> list[Tensor]:
        """The states as the cell declares them, each [L*D, batch, w]."""
        raise NotImplementedError

    def _begin_as_asked(self) -> None:
        """Set the gates and first states for which the caller said where they begin."""
        sources = [each for layer in self._short.sources for each in layer]
        begin(cast(nn.Module, self), self._layout, self._begin, sources)

    def _choice(self) -> Choice:
        return choice(list(cast(nn.Module, self).parameters()) or self._first(1))

    @property
    def backend(self) -> str:
        """What runs the cell: "cpu" is compiled code, "reference" torch's own operations."""
        return self._choice().name

    def explain(self) -> str:
        """What runs this layer, and why: backend, compiler, threads, cache, what is kept, plans."""
        chosen = self._choice()
        lines = [("backend", str(chosen)), ("keep", self.keep)]
        if chosen.name == "cpu":
            from bptt.backends.cpu import threads
            from bptt.backends.cpu.build import describe, findings

            found = findings(describe(), threads.explain())
            lines += [(name, text) for name, text in found if name != "backend"]
        shown = plans(self.cell.lowered)
        head = "\n".join(f"{name:<10} {text}".rstrip() for name, text in lines)
        forward = show_plan(shown.forward, shown.kept)
        return f"{head}\n\nforward\n{forward}\n\nbackward\n{show_plan(shown.backward)}"

    def stepper(self, batch: int = 1, states: Sequence[Tensor] | None = None) -> Stepper:
        """This layer, one step at a time: see `Stepper`.

        `states`, each [L, batch, w], are those to begin with, if not the cell's own. Raises
        UserError for a layer of two directions, for a cell with further inputs, and where
        compiled code does not run.
        """
        if any(len(tails) > 1 for tails in self._tails):
            raise UserError("a layer of two directions cannot run step by step")
        first = [s.detach() for s in self._first(batch)]
        given = first if states is None else [s.detach() for s in states]
        like = first[0]
        if any(s.dtype is not like.dtype or s.device != like.device for s in given):
            raise UserError(f"the states are {like.dtype} on {like.device}, as the layer is")
        if [s.shape for s in given] != [s.shape for s in first]:
            raise UserError(f"the states have the shapes {[list(s.shape) for s in first]}")
        return Stepper(self._layout, self._every_weight(), given, self.input_size)
