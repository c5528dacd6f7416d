"""Constants as the generated functions take them: beside rows, or packed into panels."""

from __future__ import annotations

from typing import Any

from bptt.ir.dims import Dims, size_of
from bptt.ir.ops import number
from bptt.ir.plan import Block, Plan

Array = Any


class Constants:
    """The constants of one call. Panels are packed when they are first asked for."""

    def __init__(
        self, plan: Plan, constants: dict[str, Array], sizes: dict[str, int], x: Any
    ) -> None:
        self.plan, self.constants, self.sizes, self.x = plan, constants, sizes, x
        self.panels: dict[str, Array] = {}

    def beside_rows(self, name: str) -> Array:
        """A vector or number as it stands beside rows; a panel, transposed; a panel's bias; a
        table, whose rows are chosen, as it is."""
        if name.endswith(" table"):
            return self.constants[name.removesuffix(" table")]
        if name in self.constants:
            a = self.constants[name]
            return a[..., None, :] if self.dims(name) else a[..., None, None]
        if name not in self.panels:
            self.pack(name.removesuffix(" bias"))
        return self.panels[name]

    def dims(self, name: str) -> Dims:
        for e in self.plan.once:
            if e.name == name:
                return e.rhs.dims
        return self.plan.program.dims(name)

    def pack(self, name: str) -> None:
        """Lay a panel out as it is multiplied: operands down, outputs across."""
        plan = self.plan
        panel = next(q for q in plan.panels if q.name == name)
        phases = (*plan.before, *plan.loop, *plan.edge, *plan.after)
        operands = next(g.operands for phase in phases for g in phase.gemms if g.panel == name)
        columns: list[Array] = []
        biases: list[Array] = []
        for row in panel.grid:
            blocks = [self.rectangle(b) for b in row]
            matrix = [b for b, o in zip(blocks, operands, strict=True) if number(o) is None]
            ones = [b for b, o in zip(blocks, operands, strict=True) if number(o) is not None]
            if matrix:
                columns.append(self.x.rows(matrix))
            if ones:
                biases.append(sum(ones[1:], ones[0]))
        if columns:
            self.panels[name] = self.x.compact(self.x.cat(columns))
        if biases:
            self.panels[f"{name} bias"] = self.x.cat(biases)

    def rectangle(self, b: Block) -> Array:
        """A block, transposed: [operand, output]."""
        a = self.constants[b.name]
        match len(self.dims(b.name)):
            case 0:
                a = a[..., None, None]
            case 1:
                a = a[..., None, :]
            case _:
                pass
        row, col = size_of(b.row, self.sizes), size_of(b.col, self.sizes)
        rows, cols = size_of(b.rows, self.sizes), size_of(b.cols, self.sizes)
        a = a[..., row : row + rows, col : col + cols]
        return a if b.transposed else self.x.swap(a)
