"""A Plan as text for people: what runs where, phase by phase."""

from __future__ import annotations

from collections.abc import Collection

from bptt.ir.dims import Dims, show_dims
from bptt.ir.ops import number
from bptt.ir.plan import Block, Gemm, Panel, Phase, Plan
from bptt.ir.program import MACHINE, Node, Program, Role
from bptt.printers.expr import Piece
from bptt.printers.text import Text

_WHERE = {
    "before": "before the loop, on all steps at once",
    "loop": "the loop, one step after the other",
    "edge": "behind the loop, once",
    "after": "after the loop, on all steps at once",
}


def show_plan(plan: Plan, kept: Collection[str] = ()) -> str:
    """The regions of `plan`, their phases, and the matrix products in each.

    `kept`: the outputs that are there for the backward pass only.
    """
    return _Shown(plan).text(kept)


class _PlanText(Text):
    """Names in a Plan are series or scratch: they have a time unless they are constants."""

    def __init__(self, p: Program, constants: set[str]) -> None:
        super().__init__(p)
        self.constants = constants

    def print_ref(self, n: Node, pieces: list[Piece]) -> Piece:
        name, lag = n.attr
        return Piece(readable(name) + ("" if name in self.constants else self.time(lag)))

    def time(self, lag: int) -> str:
        back = self.dir * lag
        return f"[t{-back:+d}]" if back else "[t]"


def readable(name: str) -> str:
    """A machine's name as people can read it: `pre$z$i` is `pre.z.i`."""
    return name.replace(MACHINE, ".")


class _Shown:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        constants = {v.name for v in plan.program.values if v.role is not Role.GIVEN}
        self.printer = _PlanText(plan.program, constants | {e.name for e in plan.once})
        self.panels = {panel.name: panel for panel in plan.panels}
        self.lines: list[str] = []

    def text(self, kept: Collection[str]) -> str:
        plan = self.plan
        for e in plan.once:
            self.lines.append(f"once: {readable(e.name)} = {self.printer.show(e.rhs)}")
        for region, where in _WHERE.items():
            phases: tuple[Phase, ...] = getattr(plan, region)
            if phases:
                self.lines.append(f"{where}: {_phases(len(phases))}")
            for k, phase in enumerate(phases, 1):
                self.phase(k, phase)
        if plan.time_gemms:
            self.lines.append("sums over all steps, each one matrix product:")
            for g in plan.time_gemms:
                names = ", ".join(map(readable, g.outs))
                sides = " by ".join(f"[{self.operands(side)}]" for side in (g.left, g.right))
                self.lines.append(f"    {names} += {sides}")
        for e in plan.finish:
            self.lines.append(f"last: {readable(e.name)} = {self.printer.show(e.rhs)}")
        given = [readable(name) for name in plan.program.outputs if name not in kept]
        given += [f"adjoint of {readable(v)}" for v in {e.value: 0 for e in plan.program.emits}]
        self.lines.append(f"given back: {', '.join(given)}")
        if kept:
            self.lines.append(f"kept for the backward pass: {', '.join(map(readable, kept))}")
        return "\n".join(self.lines) + "\n"

    def phase(self, k: int, phase: Phase) -> None:
        self.lines.append(f"  phase {k}, over {_space(phase)}")
        for g in phase.gemms:
            self.lines.append(f"    {self.gemm(g)}")
        for e in phase.body:
            self.lines.append(f"    {readable(e.name)}[t] = {self.printer.show(e.rhs)}")
        for r in phase.reduces:
            word = "max" if r.op == "row_max" else "sum"
            self.lines.append(f"    {readable(r.out)}[t] = {word}({self.printer.show(r.of)})")
        for a in phase.accums:
            self.lines.append(f"    {readable(a.name)} += {self.printer.show(a.of)}")

    def gemm(self, g: Gemm) -> str:
        outs = ", ".join(f"{readable(out)}[t]" for out in g.outs)
        plus = [self.printer.show(p) for p in g.plus if p is not None]
        added = f" + [{', '.join(plus)}]" if plus else ""
        return f"[{outs}] = {_panel(self.panels[g.panel])} @ [{self.operands(g.operands)}]{added}"

    def operands(self, nodes: tuple[Node, ...]) -> str:
        return ", ".join("1" if number(n) == 1 else self.printer.show(n) for n in nodes)


def _panel(panel: Panel) -> str:
    """The blocks of a panel, rows separated by semicolons."""
    return f"[{'; '.join(', '.join(map(_block, row)) for row in panel.grid)}]"


def _block(b: Block) -> str:
    whole = b.row == 0 and b.col == 0
    vector = b.rows == 1  # a bias: it has no orientation of its own
    turned = ".T" if b.transposed and not vector else ""
    return readable(b.name) + ("" if whole else "[part]") + turned


def _space(phase: Phase) -> str:
    dims: Dims = phase.space
    return "one number" if not dims else show_dims(dims)


def _phases(n: int) -> str:
    return "1 phase" if n == 1 else f"{n} phases"
