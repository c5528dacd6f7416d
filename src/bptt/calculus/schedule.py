"""Program -> Plan: what runs before, in and after the loop, in which phases.

Decided by dependency alone; no cell and no flag is named. Within a region a value's level is
one more than that of a product or reduction it needs of the same step; values of one level and
one space make a phase, whose products are stacked into few large ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bptt.calculus.flow import Flow, flow, regions, without_time
from bptt.calculus.operands import ONE
from bptt.calculus.phases import Context, Region
from bptt.calculus.runnable import parts
from bptt.ir.ops import number, ref
from bptt.ir.plan import Accum, Block, Panel, Phase, Plan, Roll, TimeGemm
from bptt.ir.ports import ahead
from bptt.ir.program import MACHINE, Node, Program, Role, refs


def schedule(p: Program) -> Plan:
    """The Plan of `p`: see `bptt.ir.plan`."""
    return _Scheduler(flow(p)).plan()


class _Scheduler:
    def __init__(self, f: Flow) -> None:
        self.f, self.p = f, f.program
        self.loop, self.later = regions(f)
        if self.loop:  # which computes nearly all of them anyway
            self.loop |= {f.steps[name] for name in ahead(self.p)}
        self.constants = {v.name for v in self.p.values if v.role is not Role.GIVEN}
        self.constants |= {e.name for e in f.once}
        self.panels: list[Panel] = []
        self.series: dict[Node, str] = {}  # what must exist at every step, by expression
        self.aliases: list[tuple[str, Node]] = []
        self.time_gemms: list[TimeGemm] = []
        self.accums: list[Accum] = []
        for name, n in f.steps.items():
            self.keep(n, name)
        self.sums()
        for name, lag in list(refs(*f.roots())):
            if lag == 1 and name in f.starts and f.steps[name] not in self.loop:
                self.keep(f.steps[name], name)

    def keep(self, n: Node, name: str) -> str:
        """Let `n` be a series; `name` is its name, or a further one."""
        if n.op == "ref" or number(n) is not None:
            if not any(a == name for a, _ in self.aliases):
                self.aliases.append((name, n))
            return name
        held = self.series.setdefault(n, name)
        outputs = {*self.p.outputs, *self.f.starts, *(e.name for e in self.p.emits)}
        if held != name and name in outputs:
            self.aliases.append((name, ref(held, 0, n.dims)))
        return held

    def operand(self, n: Node) -> Node:
        """`n` as a series that a product over time can read."""
        if n.op == "ref" or number(n) is not None:
            return n
        held = self.series.get(n) or self.f.named("at", n, "x")
        return ref(self.keep(n, held), 0, n.dims)

    # --- sums over time ---

    def sums(self) -> None:
        found: dict[tuple[Node, ...], list[tuple[str, list[Node]]]] = {}
        for name, n in self.f.sums.items():
            pair = self.outer(n)
            if pair is None:
                self.accums.append(Accum(name, n))
                continue
            left = [self.operand(a) for a in parts(pair[0])]
            right = tuple(
                ONE if not b.dims and number(b) == 1 else self.operand(b) for b in parts(pair[1])
            )
            found.setdefault(right, []).append((name, left))
        for right, group in found.items():
            group.sort(key=lambda sum_: self.rank(sum_[1][0]))
            outs = tuple(name for name, _ in group)
            rows = tuple(len(left) for _, left in group)
            left = tuple(a for _, left in group for a in left)
            self.time_gemms.append(TimeGemm(outs, rows, left, right))

    def region(self, n: Node) -> str:
        """Where a series is computed."""
        return "loop" if n in self.loop else "after" if n in self.later else "before"

    def rank(self, n: Node) -> int:
        """The place of a series in the author's order."""
        return self.f.rank.get(n.attr[0], len(self.f.rank)) if n.op == "ref" else 0

    def outer(self, n: Node) -> tuple[Node, Node] | None:
        """A sum's term as an outer product of two series, where it is one."""
        if n.op == "outer":
            return n.args[0], n.args[1]
        if n.op == "mul" and n.args[0].op == "fill" and n.args[1].op == "concat":
            return n.args[0].args[0], n.args[1]
        if n.op == "mul" and n.args[1].op == "fill" and n.args[0].op == "concat":
            return n.args[1].args[0], n.args[0]
        if n.op == "ref" or n in self.series or n in self.loop:
            return n, ONE
        return None

    # --- the plan ---

    def plan(self) -> Plan:
        f = self.f
        states = {s: f.steps[s] for s in f.starts}
        names = frozenset(e.name for e in self.p.equations)
        context = Context(
            self.constants, f.labels, f.rank, names, states, f.names.fresh, self.panel
        )
        here: dict[str, dict[Node, str]] = {"before": {}, "loop": {}, "after": {}}
        for n, name in self.series.items():
            here[self.region(n)][n] = name

        def phases(region: str, accums: Iterable[Accum] = ()) -> tuple[Phase, ...]:
            outside = {n: name for n, name in self.series.items() if n not in here[region]}
            made = Region(here[region], outside, context, stepwise=region == "loop", accums=accums)
            return made.phases()

        before, loop, after = phases("before"), phases("loop"), phases("after", self.accums)
        ends = {n: f"final{MACHINE}{s}" for s, n in f.edges.items()}
        # a carry may be computed by the very sum that its final value is: here it is a leaf
        edge = Region(ends, {}, replace(context, states={})).phases()
        rolls: dict[bool, list[Roll]] = {True: [], False: []}
        for s, start in f.starts.items():
            n = f.steps[s]
            rolls[n in self.loop].append(Roll(s, self.series.get(n, s), n.dims, start))
        finish = without_time(self.p, late=True)
        return Plan(
            program=self.p,
            panels=tuple(self.panels),
            once=tuple(f.once),
            before=before,
            loop=loop,
            rolls=tuple(rolls[True]),
            lagged=tuple(rolls[False]),
            edge=edge,
            after=after,
            time_gemms=tuple(self.time_gemms),
            finish=tuple(finish),
            series=tuple((name, n.dims) for n, name in self.series.items()),
            stacks=self.stacks((*before, *loop, *edge, *after)),
            finals=tuple((s.name, self.final(s.name, ends)) for s in self.p.states),
            aliases=tuple(self.aliases),
        )

    def final(self, s: str, edges: dict[Node, str]) -> str:
        if s in self.f.edges:
            return edges[self.f.edges[s]]
        return s

    def stacks(self, phases: Iterable[Phase]) -> tuple[tuple[str, ...], ...]:
        """Which series should lie side by side, so that products read and write them whole."""
        rolls: dict[str, str] = {s: self.series.get(self.f.steps[s], s) for s in self.f.starts}
        held = {name: n.dims for n, name in self.series.items()}
        region = {name: self.region(n) for n, name in self.series.items()}
        own = {*self.p.outputs, *(e.name for e in self.p.emits)}
        wanted: list[tuple[str, ...]] = []
        for g in (g for phase in phases for g in phase.gemms):
            plus: list[str] = [n.attr[0] for n in g.plus if n is not None]
            if len(plus) == len(g.outs):
                wanted.append(tuple(plus))
            read: list[str] = [o.attr[0] for o in g.operands if o.op == "ref"]
            wanted.append(tuple(rolls.get(name, name) for name in read))
        wanted += [
            tuple(a.attr[0] for a in side if a.op == "ref" and a.attr[1] == 0)
            for g in self.time_gemms
            for side in (g.left, g.right)
        ]
        taken: set[str] = set()
        made: list[tuple[str, ...]] = []
        for names in sorted(wanted, key=len, reverse=True):
            free = len(names) > 1 and len(set(names)) == len(names)
            free = free and len({region.get(n) for n in names}) == 1
            if free and all(n in held and n not in own and n not in taken for n in names):
                taken.update(names)
                made.append(names)
        return tuple(made)

    def panel(self, grid: list[list[Block]]) -> str:
        name = f"panel{len(self.panels)}"
        self.panels.append(Panel(name, tuple(map(tuple, grid))))
        return name
