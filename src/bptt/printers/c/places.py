"""Where the values of a sweep lie: in arrays from outside, in memory of the call, or nowhere.

A value that only its own phase reads needs no memory. One that is read in the same step lies beside
the step's other values; one that is read a step later and never again in two steps' memory; one
that sums over time read lies there for as many steps as are worked on together; the rest are
series. What products read side by side lies side by side. A product that is computed before the
loop, and read once there, lies where the loop's phase will write one of its results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bptt.ir.dims import Dim, add_dims
from bptt.ir.plan import Plan
from bptt.ir.ports import At, Port
from bptt.ir.program import Node, walk
from bptt.printers.c.phases import PIECES, Base, Lowered, Reader, Step, width


@dataclass(frozen=True)
class Use:
    """One read of a value: by phase `step` of `region`, in block group `group`."""

    region: str
    group: int
    step: int
    shift: int
    whole: bool  # not element by element beside the reader's own


@dataclass(frozen=True)
class Place:
    """Memory of a value: `kind` as in loop.h; a port, or a number of a buffer and a column."""

    kind: str
    port: Port | None = None
    buffer: int = -1
    col: Dim = 0
    width: Dim = 1


@dataclass
class Buffer:
    """Memory that a call takes: rows as `kind` counts them."""

    kind: str
    width: Dim


class Places:
    """Decides for every value that a phase makes."""

    def __init__(self, plan: Plan, low: Lowered, reader: Reader) -> None:
        self.plan, self.low, self.reader = plan, low, reader
        self.p = plan.program
        self.dims = {n: v for steps in low.regions().values() for s in steps for n, v in _dims(s)}
        self.groups = {name: self.grouped(steps, name) for name, steps in low.regions().items()}
        self.where: dict[str, tuple[str, int, int]] = {}
        for region, groups in self.groups.items():
            for g, group in enumerate(groups):
                for k, step in enumerate(group):
                    for name in step.made():
                        self.where[name] = (region, g, k)
        self.uses: dict[str, list[Use]] = {name: [] for name in self.where}
        self.find_uses()
        self.buffers: list[Buffer] = []
        self.place: dict[str, Place] = {}
        kinds = {name: self.kind(name) for name in self.where}
        self.own_ports(kinds)
        self.lend(kinds)
        self.stack(kinds)
        for name, kind in kinds.items():
            if kind is not None and name not in self.place:
                self.place[name] = self.alone(name, kind)

    def grouped(self, steps: list[Step], region: str) -> list[list[Step]]:
        """Phases that a block of rows can go through together: none reads another's neighbours."""
        if region in ("loop", "first", "last"):
            return [steps] if steps else []
        groups: list[list[Step]] = []
        made: set[str] = set()
        for step in steps:
            near = {
                base.name
                for n in step.reads()
                for base, _ in self.reads_of([n])
                if base.kind == "made" and base.shift
            }
            if not groups or step.adds or groups[-1][-1].adds or near & made:
                groups.append([])
                made = set()
            groups[-1].append(step)
            made.update(step.made())
        return groups

    def reads_of(self, nodes: Sequence[Node]) -> list[tuple[Base, bool]]:
        """What expressions read, and whether other columns than the reader's own."""
        found: list[tuple[Base, bool]] = []
        order = walk(*nodes)
        pieces = {a for n in order if n.op in PIECES for a in n.args}
        for n in order:
            if n.op == "ref":
                found.append((self.reader.base(*n.attr), n in pieces))
        return found

    def find_uses(self) -> None:
        for region, groups in self.groups.items():
            for g, group in enumerate(groups):
                for k, step in enumerate(group):
                    operands = [o for q in step.products for o in q.operands]
                    plain = [e.rhs for e in step.body] + [r.of for r in step.reduces]
                    plain += [n for q in step.products for n in q.plus if n is not None]
                    for nodes, all_whole in ((operands, True), (plain, False)):
                        for base, whole in self.reads_of(nodes):
                            if base.kind == "made" and not (
                                base.name in step.made() and not base.shift
                            ):
                                use = Use(region, g, k, base.shift, whole or all_whole)
                                self.uses[base.name].append(use)
        for t in self.plan.time_gemms:
            for base, _ in self.reads_of([*t.left, *t.right]):
                if base.kind == "made":
                    self.uses[base.name].append(Use("time", 0, 0, base.shift, True))

    def windows(self) -> bool:
        """Whether no phase before the loop reads what another one makes at other steps."""
        return not any(
            u.region == "before" and u.shift
            for name, uses in self.uses.items()
            if self.where[name][0] == "before"
            for u in uses
        )

    def follows(self) -> bool:
        """Whether what comes after the loop, sums over time too, can be worked out while the loop
        goes on: none of it reads at other steps what this sweep makes, but sums the step ahead."""
        reads = (u for uses in self.uses.values() for u in uses if u.region in ("after", "time"))
        late = [u for u in reads if u.shift and (u.region, u.shift) != ("time", self.p.dir)]
        return self.windows() and not late

    def ahead(self) -> bool:
        """Whether a sum over time reads a step ahead of it what this sweep makes: what follows the
        loop then stays a step behind it."""
        uses = (u for found in self.uses.values() for u in found)
        return any((u.region, u.shift) == ("time", self.p.dir) for u in uses)

    def kind(self, name: str) -> str | None:
        """The kind of memory that a value needs, by where it is read."""
        region, group, _ = self.where[name]
        uses = self.uses[name]
        if not uses:
            return None
        follows = self.follows()
        if region == "loop":
            return self.kind_in_loop(uses, follows)
        if region in ("first", "last"):
            return "STEP"
        same = all(u.region == region and u.group == group and not u.shift for u in uses)
        if same:
            return "BLOCK"
        near = ("before", "loop", "after", "time") if follows else ("before", "loop")
        together = all(u.region in near and not u.shift for u in uses)
        goes_along = follows or (region == "before" and self.windows())
        if not (together and goes_along):
            return "BUFFER"
        return "SLIDE" if self.stays_behind(uses) else "WINDOW"

    def stays_behind(self, uses: Sequence[Use]) -> bool:
        return self.ahead() and any(u.region in ("after", "time") for u in uses)

    def kind_in_loop(self, uses: Sequence[Use], follows: bool) -> str:
        end = "last" if self.p.dir > 0 else "first"
        shifted = any(u.shift for u in uses)
        regions = {u.region for u in uses}
        if regions <= {"loop", end}:
            return "ROLL" if shifted else "STEP"
        if not follows or not regions <= {"loop", end, "after", "time"}:
            return "BUFFER"
        if end in regions and self.p.dir > 0:
            return "BUFFER"  # sequences that end early have left the window by then
        return "SLIDE" if shifted or self.stays_behind(uses) else "WINDOW"

    def own_ports(self, kinds: dict[str, str | None]) -> None:
        """What comes out of the sweep is computed where it is wanted."""
        outs = {n: Port(n, At.STEPS) for n in self.p.outputs if n in self.where}
        sums = {e.name for s in self.low.after if s.adds in ("rows", "table") for e in s.body[-1:]}
        sums -= set(self.low.copies)
        for name in self.where:
            if name in sums:
                port, kind = Port(name, At.CONST), "FIXED"
            elif name in outs or name in self.low.copies:
                port = outs.get(name) or self.low.copies[name]
                kind = "SERIES" if port.at is At.STEPS else "BATCH"
            else:
                continue
            kinds[name] = None
            self.place[name] = Place(kind, port, width=width(self.dims[name]))

    def lend(self, kinds: dict[str, str | None]) -> None:
        """Products of before the loop lie where a result of the loop will."""
        taken: set[str] = set()
        for name, kind in list(kinds.items()):
            if kind not in ("BUFFER", "WINDOW") or self.where[name][0] != "before":
                continue
            readers = {(u.region, u.group, u.step) for u in self.uses[name]}
            if len(readers) != 1 or any(u.shift or u.whole for u in self.uses[name]):
                continue
            (where,) = readers
            if where[0] != "loop" or not self.dims[name]:
                continue  # a number is written while others still read it
            for other, place in self.place.items():
                if (
                    self.where[other] == where
                    and place.kind == "SERIES"
                    and other not in taken
                    and self.dims[other] == self.dims[name]
                ):
                    taken.add(other)
                    self.place[name], kinds[name] = place, None
                    break

    def stack(self, kinds: dict[str, str | None]) -> None:
        """What products read side by side lies side by side."""
        for names in self.plan.stacks:
            series = ("BUFFER", "ROLL", "WINDOW", "SLIDE")
            mine = {n: k for n in names if (k := kinds.get(n)) is not None and k in series}
            if len(mine) < 2:
                continue
            found = set(mine.values())
            kind = "SLIDE" if found == {"WINDOW", "SLIDE"} else "BUFFER"
            kind = found.pop() if len(found) == 1 else kind
            total = add_dims(*(width(self.dims[n]) for n in mine))
            col: Dim = 0
            self.buffers.append(Buffer(kind, total))
            for n in mine:
                wide = width(self.dims[n])
                self.place[n] = Place(kind, None, len(self.buffers) - 1, col, wide)
                col = add_dims(col, wide)
                kinds[n] = None

    def alone(self, name: str, kind: str) -> Place:
        wide = width(self.dims[name])
        self.buffers.append(Buffer(kind, wide))
        return Place(kind, None, len(self.buffers) - 1, 0, wide)


def _dims(step: Step) -> list[tuple[str, tuple[Dim, ...]]]:
    """The dims of what a phase makes."""
    found = [(e.name, e.rhs.dims) for e in step.body]
    found += [(r.out, ()) for r in step.reduces]
    return found + [(out, step.space) for g in step.products for out in g.outs]
