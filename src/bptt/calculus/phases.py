"""The phases of one region of a sweep: levels, stacked products, bodies, reductions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bptt.calculus.flow import chain, consumers
from bptt.calculus.operands import ONE, block_of, is_leaf
from bptt.ir.dims import Dims
from bptt.ir.ops import add, node, number, ref
from bptt.ir.plan import Accum, Block, Gemm, Phase, Reduce
from bptt.ir.program import MACHINE, Equation, Kind, Node

Pair = tuple[Block, Node]


@dataclass
class Context:
    """What a region knows of the rest of the Plan."""

    constants: set[str]
    labels: Mapping[Node, str]
    rank: Mapping[str, int]
    names: frozenset[str]
    states: Mapping[str, Node]  # what each state that is read one step back is computed by
    fresh: Callable[[str], str]
    panel: Callable[[list[list[Block]]], str]


@dataclass(frozen=True)
class _Product:
    """A value that is a sum with products: pairs (matrix, vector) by level, and the other terms."""

    pairs: dict[int, list[Pair]]
    rest: list[Node]


class Region:
    """Computes `roots`, each under its name, from leaves and from the series `outside`.

    `stepwise`: the rows are one step's, so products are kept apart by space, and what was
    hoisted is added by the product itself.
    """

    def __init__(
        self,
        roots: Mapping[Node, str],
        outside: Mapping[Node, str],
        context: Context,
        *,
        stepwise: bool = False,
        accums: Iterable[Accum] = (),
    ) -> None:
        self.var, self.outside, self.context = dict(roots), outside, context
        self.stepwise, self.accums = stepwise, tuple(accums)
        self.nodes = self.inside([*roots, *(a.of for a in self.accums)])
        self.known = set(self.nodes)
        self.used = consumers(self.nodes)
        self.absorbed: set[Node] = set()
        self.level: dict[Node, int] = {}
        self.products: dict[Node, _Product] = {}
        self.gemm_outs: dict[tuple[Node, int], str] = {}
        self.reduced: dict[Node, str] = {}
        self.seen: dict[Node, int] = {}
        sums = self.find_sums()
        for n in self.nodes:
            if n not in self.absorbed:
                self.set_level(n, sums)
        self.name_values()

    def inside(self, roots: list[Node]) -> list[Node]:
        """What this region computes, arguments first."""
        order: list[Node] = []
        seen: set[Node] = set()
        stack = [(n, False) for n in reversed(roots)]
        while stack:
            n, done = stack.pop()
            source = self.source(n)
            if done:
                order.append(n)
            elif source is not None and n not in self.var:
                stack.append((source, False))
            elif n not in seen and n not in self.outside and (n in self.var or not is_leaf(n)):
                seen.add(n)
                stack.append((n, True))
                stack += [(a, False) for a in reversed(n.args)]
        return order

    def source(self, n: Node) -> Node | None:
        """What a state read one step back (or a slice) is computed by, if here and before."""
        if n.op == "block" and is_leaf(n):
            n = n.args[0]
        if self.stepwise or n.op != "ref" or n.attr[1] != 1:
            return None
        found = self.context.states.get(n.attr[0])
        return found if found in self.var else None

    # --- sums with products ---

    def find_sums(self) -> dict[Node, tuple[list[Node], list[Node]]]:
        """Each value that holds products directly: its products and its other terms."""
        found: dict[Node, tuple[list[Node], list[Node]]] = {}
        stop = set(self.var) | set(self.outside) | {a.of for a in self.accums}
        for n in reversed(self.nodes):
            if n in self.absorbed:
                continue
            terms = chain(n, self.used, stop)
            mine = [
                t
                for t in terms
                if self.pair(t) is not None
                and (t is n or (len(self.used[t]) == 1 and t not in stop))
            ]
            if not mine:
                continue
            rest = [t for t in terms if t not in mine]
            biases = [t for t in rest if t.op == "ref" and t.attr[0] in self.context.constants]
            found[n] = (mine + biases, [t for t in rest if t not in biases])
            self.absorb(n, terms)
            self.absorbed.update(t for t in mine if t is not n)
            for t in mine:
                if t.op == "sum" and len(self.used[t.args[0]]) == 1 and t.args[0] not in stop:
                    self.absorbed.add(t.args[0])
        return found

    def absorb(self, root: Node, terms: list[Node]) -> None:
        """The additions inside a sum have no value of their own."""
        ends = set(terms)
        stack = [root] if root.op == "add" else []
        while stack:
            inner = [a for a in stack.pop().args if a.op == "add" and a not in ends]
            self.absorbed.update(inner)
            stack += inner

    def pair(self, term: Node) -> Pair | None:
        """A product as (matrix, vector); a dot product with a constant is one row."""
        if term in self.outside:
            return None
        if term.op == "matmul":
            return block_of(term.args[0]), term.args[1]
        if term.op == "sum" and term.args[0].op == "mul":
            for w, v in (term.args[0].args, term.args[0].args[::-1]):
                constant = w.op == "ref" and w.attr[0] in self.context.constants
                # a vector without a name of its own is reduced where it is computed
                if constant and (v in self.outside or is_leaf(v) or self.is_named(v)):
                    return block_of(w), v
        return None

    def is_named(self, n: Node) -> bool:
        return self.context.labels.get(n) in self.context.names

    def bias(self, n: Node) -> Pair:
        """A constant added: a column of the panel, whose operand is the number 1."""
        return Block(n.attr[0], True, 0, 1, 0, n.dims[0] if n.dims else 1), ONE

    def set_level(self, n: Node, sums: Mapping[Node, tuple[list[Node], list[Node]]]) -> None:
        if n in sums:
            terms, rest = sums[n]
            level = max((self.of(t) for t in rest), default=0)
            pairs: dict[int, list[Pair]] = {}
            for pair in filter(None, map(self.pair, terms)):
                at = self.of(pair[1]) + (1 if pair[1] in self.level else 0)
                pairs.setdefault(at, []).append(pair)
            # a constant that is added goes with the first product: it has none of its own
            pairs[min(pairs)] += [self.bias(t) for t in terms if self.pair(t) is None]
            for at in pairs:
                pairs[at].sort(key=lambda p: (p[1] is ONE, self.rank(p[1])))
            self.products[n] = _Product(pairs, rest)
            self.level[n] = max(level, *pairs)
        elif n.op in ("sum", "row_max"):
            self.level[n] = self.of(n.args[0]) + 1
        else:
            self.level[n] = max((self.of(a) for a in n.args), default=0)

    def rank(self, n: Node) -> tuple[int, int]:
        """The author's order, so that equal lists of operands are seen to be equal."""
        name = self.outside.get(n) or self.context.labels.get(n) or ""
        last = len(self.context.rank)
        return self.context.rank.get(name, last), self.seen.setdefault(n, len(self.seen))

    def of(self, n: Node) -> int:
        source = None if n in self.level else self.source(n)
        return self.level.get(n, 0) if source is None else self.level[source] + 1

    # --- names ---

    def name_values(self) -> None:
        fresh, labels = self.context.fresh, self.context.labels
        vectors = {v for p in self.products.values() for ps in p.pairs.values() for _, v in ps}
        self.floating: set[Node] = set()  # scratch, computed where it is first read
        from_product: set[Node] = set()  # numbers that products make, without a reduction
        for n in self.nodes:
            if n in self.absorbed:
                continue
            if not n.dims and (n in self.products or any(a in from_product for a in n.args)):
                from_product.add(n)
            label = labels.get(n, "v")
            if n in self.products:
                product = self.products[n]
                alone = len(product.pairs) == 1 and not self.others(n)
                if alone and n not in self.var:
                    self.var[n] = fresh(f"m{MACHINE}{label}")
                for level in product.pairs:
                    name = self.var[n] if alone else fresh(f"m{MACHINE}{label}")
                    self.gemm_outs[n, level] = name
            if n.op in ("sum", "row_max") and n not in self.products:
                self.reduced[n] = self.var.get(n) or fresh(f"r{MACHINE}{label}")
            elif n not in self.var:
                spread = not n.dims and n in from_product and n not in self.products
                spread = spread and any(c.op == "fill" for c in self.used[n])
                if n in vectors or spread or self.shared(n):
                    self.var[n] = fresh(f"t{MACHINE}{label}")
                    if n not in vectors and not spread:
                        self.floating.add(n)
        self.placed = [
            n
            for n in self.nodes
            if n in self.var
            and n not in self.absorbed
            and n not in self.reduced
            and n not in self.floating
            and self.var[n] not in self.gemm_outs.values()
        ]

    def shared(self, n: Node) -> bool:
        if n.op in ("fill", "T") or number(n) is not None:
            return False
        return n.op == "concat" or len(self.used[n]) > 1

    # --- phases ---

    def phases(self) -> tuple[Phase, ...]:
        """The phases, in the order they run."""
        made: list[Phase] = []
        done: set[Node] = set()
        levels = [*self.level.values(), *(k for p in self.products.values() for k in p.pairs)]
        for level in range(max(levels, default=-1) + 1):
            waiting = [n for n in self.placed if self.level[n] == level]
            reduces = [n for n in self.reduced if self.of(n.args[0]) == level]
            made += self.level_phases(waiting, self.gemms(level), reduces, done)
        if self.accums:
            body: list[Equation] = []
            for a in self.accums:
                self.emit_floating(a.of, body, done)
            accums = tuple(Accum(a.name, self.expression(a.of)) for a in self.accums)
            made.append(Phase((), (), tuple(body), (), accums))
        return tuple(made)

    def level_phases(
        self, waiting: list[Node], gemms: list[Gemm], reduces: list[Node], done: set[Node]
    ) -> list[Phase]:
        """List scheduling: one space after the other until all values of the level are there."""
        made: list[Phase] = []
        while waiting or gemms or reduces:
            pending = self.pending(waiting, gemms)
            space = self.next_space(waiting, gemms, reduces, pending)
            mine = [g for g in gemms if not self.stepwise or g.dims[0] == space]
            gemms = [g for g in gemms if g not in mine]
            body: list[Equation] = []
            progress = True
            while progress:
                pending = self.pending(waiting, gemms)
                ready = [n for n in waiting if n.dims == space and not self.needs(n, pending)]
                for n in ready:
                    self.emit(n, body, done)
                    waiting.remove(n)
                progress = bool(ready)
            now = [r for r in reduces if r.args[0].dims == space and not self.needs(r, pending)]
            reduces = [r for r in reduces if r not in now]
            for r in now:
                self.emit_floating(r.args[0], body, done)
            found = [Reduce(self.reduced[r], r.op, self.expression(r.args[0])) for r in now]
            assert body or mine or now, "nothing can run: a cycle within a step"
            made.append(Phase(space, tuple(mine), tuple(body), tuple(found)))
        return made

    def next_space(
        self, waiting: list[Node], gemms: list[Gemm], reduces: list[Node], pending: dict[Node, bool]
    ) -> Dims:
        """Numbers first, then the first space with something that can run."""
        ready = [n.dims for n in waiting if not self.needs(n, pending, n.dims)]
        ready += [d for r in reduces if not self.needs(r, pending, d := r.args[0].dims)]
        ready += [g.dims[0] for g in gemms]
        return () if () in ready else ready[0]

    def pending(self, waiting: list[Node], gemms: list[Gemm]) -> dict[Node, bool]:
        """The values of a level that are not there yet: whether only their product is missing."""
        outs = {out for g in gemms for out in g.outs}
        found = dict.fromkeys(waiting, False)
        made = [n for (n, _), out in self.gemm_outs.items() if out in outs]
        return dict.fromkeys(made, True) | found

    def needs(self, n: Node, pending: Mapping[Node, bool], space: Dims | None = None) -> bool:
        """Whether `n` reads something that is not there yet; products in `space` will be."""
        level = self.level[n] - (n in self.reduced)  # all that is below it is there
        stack, seen = self.reads(n), set[Node]()
        while stack:
            a = stack.pop()
            if a in pending and (a.dims != space or not pending[a]):
                return True
            below = a in self.reduced or self.level.get(a, level) < level
            if a in self.known and a not in seen and not below:
                seen.add(a)
                stack += self.reads(a)
        return False

    def reads(self, n: Node) -> list[Node]:
        return list(self.products[n].rest) if n in self.products else list(n.args)

    def emit(self, n: Node, body: list[Equation], done: set[Node]) -> None:
        self.emit_floating(n, body, done)
        body.append(Equation(self.var[n], Kind.STEP, self.expression(n, define=True)))

    def emit_floating(self, n: Node, body: list[Equation], done: set[Node]) -> None:
        """The scratch that `n` needs and nobody has computed yet, arguments first."""
        if n not in self.known:  # a series from outside: what it is made of is not wanted here
            return
        stack = [(n, False)] if n in self.floating else [(a, False) for a in self.reads(n)]
        seen: set[Node] = set()
        while stack:
            m, ready = stack.pop()
            if ready:
                done.add(m)
                body.append(Equation(self.var[m], Kind.STEP, self.expression(m, define=True)))
            elif m in self.known and m not in seen and m not in done and m not in self.reduced:
                seen.add(m)
                if m in self.floating:
                    stack.append((m, True))
                if m in self.floating or m not in self.var:
                    stack += [(a, False) for a in self.reads(m)]

    def expression(self, root: Node, *, define: bool = False) -> Node:
        """`root` over the names of series and scratch; `define`: what its own name stands for."""
        found: dict[Node, Node] = {}
        stack = [(root, False)]
        while stack:
            n, ready = stack.pop()
            if n in found:
                continue
            name = self.outside.get(n) or self.reduced.get(n)
            if name is None and not (define and n is root):
                name = self.var.get(n)
            if name is not None:
                found[n] = ref(name, 0, n.dims)
            elif is_leaf(n):
                found[n] = n
            elif not ready:
                stack.append((n, True))
                stack += [(a, False) for a in (self.others(n) if n in self.products else n.args)]
            elif n in self.products:
                outs = [self.gemm_outs[n, k] for k in sorted(self.products[n].pairs)]
                value = ref(outs[0], 0, n.dims)
                for other in outs[1:]:
                    value = add(value, ref(other, 0, n.dims))
                for t in self.others(n):
                    value = add(value, found[t])
                found[n] = value
            else:
                found[n] = node(n.op, *(found[a] for a in n.args), attr=n.attr)
        return found[root]

    # --- products ---

    def plus(self, n: Node) -> Node | None:
        """The hoisted part of a sum in the loop, to which its first product is added."""
        if not self.stepwise:
            return None
        return next((t for t in self.products[n].rest if t in self.outside), None)

    def others(self, n: Node) -> list[Node]:
        """The terms of a sum that its products do not take care of."""
        return [t for t in self.products[n].rest if t is not self.plus(n)]

    def gemms(self, level: int) -> list[Gemm]:
        """The products of one level, stacked: outputs with equal operands side by side."""
        groups: dict[tuple[tuple[Node, ...], Dims | None], list[Node]] = {}
        for n, product in self.products.items():
            if level in product.pairs:
                vectors = tuple(v for _, v in product.pairs[level])
                groups.setdefault((vectors, n.dims if self.stepwise else None), []).append(n)
        made: list[Gemm] = []
        for (vectors, _), group in groups.items():
            group.sort(key=self.rank)
            operands = tuple(self.operand(v) for v in vectors)
            rows = [[block for block, _ in self.products[n].pairs[level]] for n in group]
            plus = tuple(
                None
                if (t := self.plus(n)) is None or level != min(self.products[n].pairs)
                else ref(self.outside[t], 0, t.dims)
                for n in group
            )
            outs = tuple(self.gemm_outs[n, level] for n in group)
            panel = self.context.panel(rows)
            made.append(Gemm(outs, tuple(n.dims for n in group), panel, operands, plus))
        return made

    def operand(self, v: Node) -> Node:
        name = self.outside.get(v) or self.reduced.get(v) or self.var.get(v)
        return v if name is None else ref(name, 0, v.dims)
