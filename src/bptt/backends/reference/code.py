"""A Plan's generated functions, made once a Program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from bptt.backends.generated import Function, compiled
from bptt.calculus.schedule import schedule
from bptt.ir.dims import Dim, terms
from bptt.ir.ops import number
from bptt.ir.plan import Plan
from bptt.ir.ports import Port, inputs, outputs, row_numbers
from bptt.ir.program import Program, refs
from bptt.printers.numpy import (
    phase_names,
    phase_reads,
    print_once,
    print_rows,
    print_step,
)


@dataclass(frozen=True, eq=False)
class Code:
    """All that the driver walks for one Program."""

    plan: Plan
    sizes: list[str]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    once: Function
    before: list[Function]
    loop: Function
    edge: list[Function]
    after: list[Function]
    finish: Function
    slots: list[str]
    row_numbers: dict[str, list[Dim]]

    def source(self) -> str:
        """Everything that was generated, to read."""
        rows = (*self.before, self.loop, *self.edge, *self.after)
        functions = (self.once, *rows, self.finish)
        return "\n".join(f.printed.source for f in functions)


@lru_cache(maxsize=256)
def code(p: Program) -> Code:
    """The generated functions of `p`."""
    plan = schedule(p)
    names = {s for v in p.values for d in v.dims for s in terms(d) if s}
    names |= {s for e in p.equations for d in e.rhs.dims for s in terms(d) if s}
    sizes = sorted(names)
    slots = _slots(plan)
    return Code(
        plan,
        sizes,
        inputs(p),
        outputs(p),
        compiled(print_once(plan.once, "once", sizes), "once"),
        [compiled(f, "before") for f in print_rows(plan, plan.before, "before", sizes)],
        compiled(print_step(plan, sizes, slots), "loop"),
        [compiled(f, "edge") for f in print_rows(plan, plan.edge, "edge", sizes)],
        [compiled(f, "after") for f in print_rows(plan, plan.after, "after", sizes)],
        compiled(print_once(plan.finish, "finish", sizes), "finish"),
        slots,
        row_numbers(p),
    )


def _slots(plan: Plan) -> list[str]:
    """The values of the loop that are read at every step behind it, and the stacks they fill."""
    made = {name for phase in plan.loop for name in phase_names(phase)}
    read = {*plan.program.outputs, *(e.name for e in plan.program.emits)}
    for phase in (*plan.edge, *plan.after):
        read |= {name for name, _ in phase_reads(phase)}
    for g in plan.time_gemms:
        read |= {name for name, _ in refs(*g.left, *g.right)}
    rolled = {r.name: r.value for r in plan.rolls}
    read |= {n.attr[0] for _, n in plan.aliases if n.op == "ref"}
    read |= {rolled[name] for name in list(read) if name in rolled}
    read |= {r.value for r in plan.lagged}
    read &= {name for name, _ in plan.series} & made
    slots = [name for name, _ in plan.series if name in read]
    for k, stack in enumerate(plan.stacks):
        if set(stack) & made:
            assert set(stack) <= made, "a stack lies in one region"
            slots += [name for name in stack if name not in slots]
            slots.append(f"stack{k}")
    return slots


def constant_alias(plan: Plan, name: str) -> float | None:
    """The number that a series is, where it is one."""
    return next((number(n) for a, n in plan.aliases if a == name), None)
