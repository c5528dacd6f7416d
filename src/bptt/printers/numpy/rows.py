"""Phases on rows: all steps' at once, or one step's."""

from __future__ import annotations

from itertools import pairwise

from bptt.ir.dims import Dims
from bptt.ir.ops import number, ref
from bptt.ir.plan import Gemm, Phase, Plan
from bptt.ir.program import Node, Role, refs, walk
from bptt.printers.numpy.names import (
    FUNCTIONS,
    INFIX,
    Key,
    Positions,
    Printed,
    dim_source,
    no_spelling,
    spans_source,
)

# Functions that can write their result into a slot.
# (Not `neg`: NumPy 2.4's leaves elements unwritten where both arrays have strides.)
INTO = frozenset(("add", "sub", "mul", "div", "tanh", "sigmoid", "exp", "log", "sqrt"))


def print_rows(plan: Plan, phases: tuple[Phase, ...], name: str, sizes: list[str]) -> list[Printed]:
    """Functions that run `phases` on all rows at once and return the series they compute.

    One function ends where the next phase reads a series of its own one step back.
    """
    values = {r.name: r.value for r in (*plan.rolls, *plan.lagged)}
    groups: list[list[Phase]] = []
    made: set[str] = set()
    for phase in phases:
        back = {values.get(n, n) for n, lag in phase_reads(phase) if lag}
        if not groups or back & made:
            groups.append([])
            made = set()
        groups[-1].append(phase)
        made |= phase_names(phase)
    printed: list[Printed] = []
    for k, group in enumerate(groups):
        later = {n for g in groups[k + 1 :] for phase in g for n, _ in phase_reads(phase)}
        printer = _Printer(plan, sizes, stacks=name != "edge")
        printed.append(printer.rows(tuple(group), name, later))
    return printed


def phase_reads(phase: Phase) -> set[Key]:
    """The names that a phase reads, with their lags."""
    nodes = [e.rhs for e in phase.body] + [r.of for r in phase.reduces]
    nodes += [a.of for a in phase.accums] + [o for g in phase.gemms for o in g.operands]
    nodes += [p for g in phase.gemms for p in g.plus if p is not None]
    return set(refs(*nodes))


def phase_names(phase: Phase) -> set[str]:
    """The names that a phase computes."""
    made = {e.name for e in phase.body} | {r.out for r in phase.reduces}
    return made | {out for g in phase.gemms for out in g.outs}


def print_step(plan: Plan, sizes: list[str], slots: list[str]) -> Printed:
    """A function that runs the loop's phases on one step's rows."""
    return _Printer(plan, sizes).step(slots)


class _Printer:
    def __init__(self, plan: Plan, sizes: list[str], *, stacks: bool = True) -> None:
        self.plan, self.sizes = plan, sizes
        self.stacks = plan.stacks if stacks else ()
        self.dims = dict(plan.series)
        self.reads, self.constants, self.scratch = Positions("s"), Positions("c"), Positions("v")
        self.local: dict[str, str] = {}
        self.rolled: dict[str, str] = {}
        self.slots: dict[str, str] = {}
        self.lines: list[str] = []
        self.looped = {n for phase in plan.loop for n in phase_names(phase)}
        self.fixed = {e.name for e in plan.once}
        self.fixed |= {v.name for v in plan.program.values if v.role is not Role.GIVEN}
        numbers = {name for name, n in plan.aliases if number(n) is not None}
        # a state that is a number after its start need not be spread over rows
        self.thin = self.fixed | {r.name for r in plan.lagged if r.value in numbers}

    # --- functions ---

    def rows(self, phases: tuple[Phase, ...], name: str, later: set[str]) -> Printed:
        for phase in phases:
            self.phase(phase)
        wanted = {*self.dims, *later}
        returns = [n for n in self.local if n in wanted or n.startswith(("final$", "sum "))]
        self.lines.append(f"return ({''.join(self.local[n] + ', ' for n in returns)})")
        source = self.function(f"{name}(X, N, C, S, lead, L)", [])
        return Printed(source, self.read_keys(), self.constant_names(), returns=returns)

    def step(self, slots: list[str]) -> Printed:
        plan = self.plan
        self.slots = {name: f"o{k}" for k, name in enumerate(slots)}
        groups = roll_groups(plan, slots)
        for k, group in enumerate(groups):
            offsets = self.offsets([plan_dims(plan, r) for r in group])
            for r, (start, stop) in zip(group, offsets, strict=True):
                self.rolled[r] = f"h{k}" if len(group) == 1 else f"h{k}[..., {start}:{stop}]"
        self.group_of = {g: k for k, g in enumerate(groups)}
        for phase in plan.loop:
            self.phase(phase)
        handed = [self.handed(group) for group in groups]
        self.lines.append(f"return ({''.join(h + ', ' for h in handed)})")
        unpack = [f"({''.join(f'h{k}, ' for k in range(len(groups)))}) = H"] if groups else []
        if slots:
            unpack.append(f"({''.join(o + ', ' for o in self.slots.values())}) = O")
        source = self.function("loop(X, N, C, S, H, O, lead, L)", unpack)
        return Printed(source, self.read_keys(), self.constant_names(), groups, slots)

    def handed(self, group: tuple[str, ...]) -> str:
        values = [r.value for name in group for r in self.plan.rolls if r.name == name]
        if len(values) == 1:
            return self.local[values[0]]
        found = self.joined([ref(v, 0, self.dims[v]) for v in values])
        assert found is not None, "a group lies in one stack"
        return found

    def function(self, head: str, unpack: list[str]) -> str:
        top = list(unpack)
        for names, whole in (
            (self.sizes, "N"),
            (self.constants.found, "C"),
            (self.reads.found, "S"),
        ):
            if names:
                letter = {"N": "n", "C": "c", "S": "s"}[whole]
                top.append(f"({''.join(f'{letter}{k}, ' for k in range(len(names)))}) = {whole}")
        return f"def {head}:\n" + "".join(f"    {line}\n" for line in [*top, *self.lines])

    def read_keys(self) -> list[Key]:
        return [key for key in self.reads.found if isinstance(key, tuple)]

    def constant_names(self) -> list[str]:
        return [str(name) for name in self.constants.found]

    # --- phases ---

    def phase(self, phase: Phase) -> None:
        for g in phase.gemms:
            self.gemm(g)
        for e in phase.body:
            self.assign(e.name, e.rhs)
        for r in phase.reduces:
            self.bind(r.out, f"X.{r.op}({self.spread(r.of)})")
        for a in phase.accums:
            self.bind(f"sum {a.name}", self.summed(a.of))

    def summed(self, of: Node) -> str:
        """The sum of `of` over all rows."""
        if of.op != "put_row":
            return f"X.row_sum({self.spread(of)})"
        args = [*map(self.spread, of.args), dim_source(of.attr[0], self.sizes)]
        column = "" if of.args[0].dims else "[..., 0]"
        return f"X.put_row({', '.join(args)}){column}"

    def bind(self, name: str, source: str) -> None:
        """Let `name` be the value of `source`, in its slot if it has one."""
        if name in self.slots:
            self.lines.append(f"{self.slots[name]}[...] = {source}")
            self.local[name] = self.slots[name]
        else:
            self.local[name] = self.scratch(name)
            self.lines.append(f"{self.local[name]} = {source}")

    def assign(self, name: str, rhs: Node) -> None:
        slot = self.slots.get(name)
        if slot is None:
            self.bind(name, self.spread(rhs))
            return
        args = [self.expression(a) for a in rhs.args]
        numbers = [number(a) is not None for a in rhs.args]
        if rhs.op in ("add", "mul") and numbers[:1] == [True]:
            args, numbers = args[::-1], numbers[::-1]
        if rhs.op in INTO and not numbers[0] and self.wide(rhs):
            self.lines.append(f"X.{rhs.op}({', '.join(args)}, out={slot})")
        else:
            self.lines.append(f"{slot}[...] = {self.expression(rhs)}")
        self.local[name] = slot

    def gemm(self, g: Gemm) -> None:
        operands = [o for o in g.operands if number(o) is None]
        biased = len(operands) < len(g.operands)
        panel = self.constants(g.panel)
        bias = self.constants(f"{g.panel} bias") if biased else None
        plus = self.joined([p for p in g.plus if p is not None]) if all(g.plus) else None
        if not operands:
            source = f"X.spread({bias}, lead, {self.total(g.dims)})"
        else:
            source = f"X.gemm({self.joined(operands) or self.cat(operands)}, {panel}"
            source += f", {plus})" if plus else f", {bias})" if bias else ")"
            source += f" + {bias}" if plus and bias else ""
        if len(g.outs) == 1:
            missing = "" if plus or g.plus[0] is None else f" + {self.expression(g.plus[0])}"
            self.bind(g.outs[0], source + missing)
            return
        whole = self.stack_name(g.outs)
        made = self.scratch(f"gemm {g.outs}")
        self.lines.append(f"{made} = {source}")
        if whole is not None and whole not in self.slots:
            self.local[whole] = made
        for out, p, (start, stop) in zip(g.outs, g.plus, self.offsets(g.dims), strict=True):
            missing = "" if plus or p is None else f" + {self.expression(p)}"
            self.bind(out, f"{made}[..., {start}:{stop}]{missing}")

    def total(self, dims: tuple[Dims, ...]) -> str:
        return "+".join(dim_source(d[0] if d else 1, self.sizes) for d in dims)

    def offsets(self, dims: tuple[Dims, ...] | list[Dims]) -> list[tuple[str, str]]:
        edges = ["0"]
        for d in dims:
            step = dim_source(d[0] if d else 1, self.sizes)
            edges.append(step if edges[-1] == "0" else f"{edges[-1]}+{step}")
        return list(pairwise(edges))

    # --- operands ---

    def cat(self, refs: list[Node]) -> str:
        if len(refs) == 1:
            return self.expression(refs[0])
        return f"X.cat([{', '.join(self.expression(r) for r in refs)}])"

    def joined(self, refs: list[Node]) -> str | None:
        """Series that lie side by side, as one expression; None where they do not."""
        if len(refs) == 1:
            return self.expression(refs[0])
        lags = {r.attr[1] for r in refs if r.op == "ref"}
        if len(lags) != 1 or any(r.op != "ref" for r in refs):
            return None
        names = [r.attr[0] for r in refs]
        (lag,) = lags
        if all(n in self.rolled for n in names) and lag == 1:
            group = next((g for g in self.group_of if g == tuple(names)), None)
            return None if group is None else f"h{self.group_of[group]}"
        if lag:
            return None  # each is shifted on its own, behind its own start
        for k, stack in enumerate(self.stacks):
            if names[0] not in stack:
                continue
            first = stack.index(names[0])
            if stack[first : first + len(names)] != tuple(names):
                return None
            whole = f"stack{k}"
            if any(n in self.local for n in names):
                if whole in self.slots:
                    base = self.slots[whole]
                elif whole in self.local:
                    base = self.local[whole]
                else:
                    return None
            elif len(names) == len(stack) or names[0] in self.looped:
                base = self.reads((whole, lag))
            else:
                return None  # the others need not be there yet
            if len(names) == len(stack):
                return base
            offsets = self.offsets([self.dims[n] for n in stack])
            return f"{base}[..., {offsets[first][0]}:{offsets[first + len(names) - 1][1]}]"
        return None

    def stack_name(self, names: tuple[str, ...]) -> str | None:
        return next((f"stack{k}" for k, s in enumerate(self.plan.stacks) if s == names), None)

    # --- expressions ---

    def spread(self, n: Node) -> str:
        """`n` with all its rows and columns."""
        source = self.expression(n)
        if self.wide(n):
            return source
        if not any(True for _ in refs(n)):
            source = f"X.number({source}, L)"  # in the number format of the others
        return f"X.spread({source}, lead, {self.total((n.dims,))})"

    def wide(self, root: Node) -> bool:
        """Whether the expression has the full shape without being spread."""
        found: dict[Node, bool] = {}
        for n in walk(root):
            if n.op == "ref":
                found[n] = n.attr[0] not in self.thin
            elif n.op in ("fill", "const", "size"):
                found[n] = False
            else:
                found[n] = any(found[a] for a in n.args)
        return found[root]

    def expression(self, root: Node) -> str:
        found: dict[Node, str] = {}
        for n in walk(root):
            found[n] = self.one(n, [found[a] for a in n.args])
        return found[root]

    def one(self, n: Node, args: list[str]) -> str:
        match n.op:
            case "ref" if len(n.dims) == 2:
                return self.constants(f"{n.attr[0]} table")
            case "ref":
                return self.reference(*n.attr)
            case "const":
                return repr(float.fromhex(n.attr[0]))
            case "size":
                return f"float({dim_source(n.attr[0], self.sizes)})"
            case "fill":
                return args[0]
            case "neg":
                return f"(-{args[0]})"
            case "pow":
                p = float.fromhex(n.attr[0])
                return f"({args[0]} * {args[0]})" if p == 2 else f"({args[0]} ** {p!r})"
            case "block":
                return f"{args[0]}[..., {spans_source(n, self.sizes)}]"
            case "concat":
                return f"X.cat([{', '.join(map(self.spread, n.args))}])"
            case "embed":
                start, whole = (dim_source(d, self.sizes) for d in n.attr[0])
                return f"X.embed({self.spread(n.args[0])}, ({start},), ({whole},))"
            case "row":
                table = args[0] if len(n.args[0].dims) == 2 else f"X.swap({args[0]})"
                return f"X.row({table}, {args[1]})"
            case op if op in INFIX:
                return f"({args[0]} {INFIX[op]} {args[1]})"
            case op if op in FUNCTIONS:
                return f"X.{FUNCTIONS[op]}({', '.join(args)})"
            case _:
                raise no_spelling(n)

    def reference(self, name: str, lag: int) -> str:
        if lag == 0 and name in self.local:
            return self.local[name]
        if lag == 1 and name in self.rolled:
            return self.rolled[name]
        if name in self.fixed:
            return self.constants(name)
        return self.reads((name, lag))


def plan_dims(plan: Plan, roll: str) -> Dims:
    """The dims of a roll."""
    return next(r.dims for r in plan.rolls if r.name == roll)


def roll_groups(plan: Plan, slots: list[str]) -> list[tuple[str, ...]]:
    """Rolls that one array hands on: those whose values lie side by side, and each other alone."""
    by_value = {r.value: r.name for r in plan.rolls if r.start is None}
    groups: list[tuple[str, ...]] = []
    for k, stack in enumerate(plan.stacks):
        run: list[str] = []
        for value in (*stack, ""):
            if value in by_value and f"stack{k}" in slots:
                run.append(by_value[value])
                continue
            if len(run) > 1:
                groups.append(tuple(run))
            run = []
    grouped = {name for group in groups for name in group}
    return groups + [(r.name,) for r in plan.rolls if r.name not in grouped]
