"""What a sweep computes, node by node: which part is the loop, and what moves out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from bptt.calculus.rewrites import CONTRACTIONS, Names, addends, rebuild_all
from bptt.calculus.runnable import parts, runnable, split_rows
from bptt.ir.ops import const, fill, matmul, node, number, ref, total
from bptt.ir.ports import ahead
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, refs, walk


@dataclass(frozen=True)
class Flow:
    """A Program with its names resolved: every expression reads values and lagged states only.

    `steps` are the expressions that must exist at every step, `sums` the rest; `labels` are
    names that a node had, whether or not it must exist; `rank` is the order in which the author
    has them. `starts` maps each state to the state
    of the Program whose start it has (None: zero); `edges` are final states that are computed
    from those of the loop, behind it.
    """

    program: Program
    names: Names
    steps: dict[str, Node]
    sums: dict[str, Node]
    once: list[Equation]
    labels: dict[Node, str]
    starts: dict[str, str | None]
    rank: dict[str, int]
    edges: dict[str, Node] = field(default_factory=dict[str, Node])

    def named(self, lead: str, n: Node, other: str) -> str:
        """A fresh name for `n`, after the name it had or else after `other`."""
        tail = self.labels.get(n, other)
        name = self.names.fresh(f"{lead}{MACHINE}{tail}")
        self.rank[name] = self.rank.get(tail, len(self.rank))
        self.labels.setdefault(n, name)
        return name

    def roots(self) -> list[Node]:
        """Everything that is computed."""
        return [*self.steps.values(), *self.sums.values()]

    def depends(self, n: Node) -> tuple[Node, ...]:
        """What `n` needs: its arguments, and a state's expression through its lag."""
        if n.op == "ref" and n.attr[1] == 1 and n.attr[0] in self.starts:
            return (self.steps[n.attr[0]],)
        return n.args


def flow(p: Program) -> Flow:
    """Resolve names: what must be there at every step, and the sums."""
    by_ref: dict[Node, Node] = {}
    dag: dict[str, Node] = {}
    sums: dict[str, Node] = {}
    labels: dict[Node, str] = {}
    states = {s.name for s in p.states}
    for e in p.equations:
        if e.kind is Kind.ONCE:
            continue
        n = runnable(e.rhs, by_ref)
        if e.kind is Kind.SUM:
            sums[e.name] = n
        else:
            if e.name in states:
                n = _placed(n)
            by_ref[ref(e.name, 0, e.rhs.dims)] = dag[e.name] = n
    wanted = [n for n in p.outputs if n in dag]
    wanted += [s.name for s in p.states] + [e.name for e in p.emits] + ahead(p)
    roots = split_rows({n: dag[n] for n in wanted} | sums)
    for name, n in dag.items():
        labels.setdefault(n, name)
    names = Names(p)
    made = Flow(
        p,
        names,
        {n: roots[n] for n in wanted},
        {n: roots[n] for n in sums},
        without_time(p, late=False),
        labels,
        {s.name: s.name for s in p.states},
        {e.name: k for k, e in enumerate(p.equations)},
    )
    return hoist(rotate(_constants(made)))


def without_time(p: Program, *, late: bool) -> list[Equation]:
    """The onces before the sweep, or those behind it."""
    held = p.late()
    return [
        replace(e, rhs=runnable(e.rhs, {}))
        for e in p.equations
        if e.kind is Kind.ONCE and (e.name in held) is late
    ]


def _placed(n: Node) -> Node:
    """What a state hands on: of a value of another step a copy, so that it has a place."""
    return node("add", n, fill(const(0), n.dims)) if n.op == "ref" and n.attr[1] else n


def _replaced(f: Flow, found: Mapping[Node, Node], **more: object) -> Flow:
    return replace(
        f,
        steps={name: found[n] for name, n in f.steps.items()},
        sums={name: found[n] for name, n in f.sums.items()},
        labels={found.get(n, n): name for n, name in f.labels.items()},
        **more,
    )


def _constants(f: Flow) -> Flow:
    """Name what depends on no series, so that it is computed once a call."""
    given = {v.name for v in f.program.named(Role.GIVEN)} | set(f.starts)
    moving: set[Node] = set()
    for n in walk(*f.roots()):
        if (n.op == "ref" and n.attr[0] in given) or any(a in moving for a in n.args):
            moving.add(n)
    made: dict[Node, Node] = {}
    once = list(f.once)
    # what is constant as a whole; a matrix is summed as the outer product that it is
    whole = [*f.steps.values(), *(n for n in f.sums.values() if len(n.dims) < 2)]
    fixed = {n for n in whole if n not in moving}
    outers = {n for n in f.sums.values() if len(n.dims) == 2 and n not in moving}

    def name_it(a: Node) -> Node:
        if a not in made:
            name = f.names.fresh(f"k{MACHINE}{len(made)}")
            once.append(Equation(name, Kind.ONCE, a))
            made[a] = ref(name, 0, a.dims)
        return made[a]

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n in fixed and _worth_naming(n):
            return name_it(n)
        again = n in moving or n in outers
        part = n.op == "row" and n.args[0].op == "block"  # a table lies in memory as it is read
        new = tuple(
            name_it(a) if again and a not in moving and (part or _worth_naming(a)) else b
            for a, b in zip(n.args, args, strict=True)
        )
        return None if new == args else node(n.op, *new, attr=n.attr)

    return _replaced(f, rebuild_all(f.roots(), change), once=once)


def _worth_naming(a: Node) -> bool:
    if len(a.dims) == 2:
        while a.op in ("T", "block"):
            a = a.args[0]
        return a.op == "pattern"
    if a.op in ("ref", "const", "size") or number(a) is not None:
        return False
    return not (a.op == "fill" and a.args[0].op in ("ref", "const", "size"))


# --- regions ------------------------------------------------------------------------------------


def regions(f: Flow) -> tuple[set[Node], set[Node]]:
    """The nodes of the loop, and those after it; all others run before it.

    The loop is what lies on a dependency cycle through a lag, and what lies between two such.
    """
    cyclic = _cyclic(f)
    downstream: set[Node] = set()
    changed = True
    order = walk(*f.roots())
    while changed:  # a lag may lead back up the order: repeat until nothing changes
        changed = False
        for n in order:
            if n not in downstream and (n in cyclic or any(d in downstream for d in f.depends(n))):
                downstream.add(n)
                changed = True
    upstream: set[Node] = set()
    stack = list(cyclic)
    while stack:
        n = stack.pop()
        if n not in upstream:
            upstream.add(n)
            stack += f.depends(n)
    loop = cyclic | (downstream & upstream)
    return loop, downstream - loop


def _cyclic(f: Flow) -> set[Node]:
    """The nodes on a cycle: Tarjan's strongly connected components, without recursion."""
    index: dict[Node, int] = {}
    low: dict[Node, int] = {}
    on: set[Node] = set()
    path: list[Node] = []
    found: set[Node] = set()
    for root in f.roots():
        work = [(root, iter(f.depends(root)))] if root not in index else []
        if work:
            index[root] = low[root] = len(index)
            path.append(root)
            on.add(root)
        while work:
            n, rest = work[-1]
            for d in rest:
                if d not in index:
                    index[d] = low[d] = len(index)
                    path.append(d)
                    on.add(d)
                    work.append((d, iter(f.depends(d))))
                    break
                if d in on:
                    low[n] = min(low[n], index[d])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[n])
                if low[n] == index[n]:
                    part: list[Node] = []
                    while not part or part[-1] is not n:
                        part.append(path.pop())
                        on.discard(part[-1])
                    if len(part) > 1 or n in f.depends(n):
                        found.update(part)
    return found


def contracting(roots: Iterable[Node]) -> set[Node]:
    """The nodes at or above a contraction."""
    found: set[Node] = set()
    for n in walk(*roots):
        if n.op in CONTRACTIONS or any(a in found for a in n.args):
            found.add(n)
    return found


# --- what moves ---------------------------------------------------------------------------------


def rotate(f: Flow) -> Flow:
    """Let the next step do the matrix products of a carry.

    A state that nobody else wants and that is a sum with matrix products of this step's values
    is split: the next step reads `M @ v[t-1]`, the elementwise rest stays a state. That is one
    phase fewer a step; its final value is one product behind the loop.
    """
    loop, after = regions(f)
    kept = set(f.program.outputs) | {e.name for e in f.program.emits}
    direct = [*f.sums.values(), *(a for n in after for a in n.args)]
    kept |= {a.attr[0] for n in direct for a in parts(n) if a.op == "ref" and a.attr[1] == 1}
    read = {name for name, lag in refs(*f.roots()) if lag == 1}
    starts: dict[str, str | None] = dict(f.starts)
    steps, edges = dict(f.steps), dict(f.edges)
    by: dict[Node, Node] = {}
    for s in f.starts:
        terms = addends(f.steps[s])
        products = [
            t
            for t in terms
            if t.op == "matmul" and t in loop and t.args[1] in loop and t.args[1].op != "ref"
        ]
        if s in kept or s not in read or f.steps[s] not in loop or not products:
            continue
        dims = f.steps[s].dims
        rest = [t for t in terms if t not in products]
        name = f.names.fresh(f"rest{MACHINE}{s}")
        steps[name] = _placed(total(rest)) if rest else fill(const(0), dims)
        starts[name] = starts.pop(s)
        pieces = [ref(name, 1, dims)]
        for t in products:
            v = t.args[1]
            held = next((k for k in starts if k in steps and steps[k] is v), None)
            if held is None or starts[held] is not None:
                held = f.named("v", v, s)
                steps[held] = v
                starts[held] = None
            pieces.append(matmul(t.args[0], ref(held, 1, v.dims)))
        by[ref(s, 1, dims)] = edges[s] = total(pieces)
        del steps[s]
    f = replace(f, steps=steps, starts=starts, edges=edges)
    return _replaced(f, rebuild_all(f.roots(), lambda n, _: by.get(n))) if by else f


def hoist(f: Flow) -> Flow:
    """Gather, in each sum of the loop, the terms that do not depend on it: one series before it.

    Whatever holds a contraction and is read by the loop without depending on it becomes a
    series; elementwise values are cheaper to compute again than to store.
    """
    loop, after = regions(f)
    heavy = contracting(f.roots())
    used = consumers(f.roots())
    fixed = set(f.steps.values())
    found: dict[Node, Node] = {}
    tails: dict[Node, str] = {}  # a hoisted part is named after the sum it is a part of

    def gathered(n: Node) -> Node | None:
        if n.op != "add" or n not in loop:
            return None
        terms = chain(n, used, fixed)
        early = [t for t in terms if t not in loop and t not in after]
        if len(early) < 2 or not any(t in heavy for t in early):
            return None
        late = [found[t] for t in terms if t in loop or t in after]
        first = total([found[t] for t in sorted(early, key=lambda t: t not in heavy)])
        tails[first] = f.labels.get(n, "x")
        return total([first, *late])

    for n in walk(*f.roots()):
        args = tuple(found[a] for a in n.args)
        found[n] = gathered(n) or (n if args == n.args else node(n.op, *args, attr=n.attr))
    f = _replaced(f, found)
    loop, after = regions(f)
    heavy = contracting(f.roots())
    steps = dict(f.steps)
    taken = set(steps.values())
    for n in walk(*f.roots()):
        for a in n.args:
            inside = a in loop or a in after
            exact = n.op == "same"  # asks for equal values: they are computed once
            early = not inside and (n in loop or n in after) and (a in heavy or exact)
            late = a in loop and n in after and a.op != "ref"
            if (early or late) and a not in taken and a.op != "ref":
                taken.add(a)
                label = f.named("pre" if early else "at", a, tails.get(a) or f.labels.get(n, "x"))
                steps[label] = a
    return replace(f, steps=steps)


def consumers(roots: Iterable[Node]) -> dict[Node, list[Node]]:
    """Who reads each node."""
    used: dict[Node, list[Node]] = {}
    for n in walk(*roots):
        used.setdefault(n, [])
        for a in n.args:
            used.setdefault(a, []).append(n)
    return used


def chain(root: Node, used: Mapping[Node, list[Node]], fixed: set[Node]) -> list[Node]:
    """The terms of a sum, looking through additions that nobody else reads."""
    terms: list[Node] = []
    stack = [root]
    while stack:
        n = stack.pop()
        if n.op == "add" and (n is root or (len(used[n]) == 1 and n not in fixed)):
            stack += reversed(n.args)
        else:
            terms.append(n)
    return terms
