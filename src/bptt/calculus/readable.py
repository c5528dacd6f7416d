"""The rewrites for people: a derived sweep as a careful person would write it down.

Each pass takes a Program that `derive` made, or what the pass before made of it, and keeps its
meaning. The first changes lines one by one, the others names: which deserve one, and which not.
The carries, which say what a state gets from the step after, are read as the papers write them,
at `[t+1]`; their own lines stay, for the gradients by the initial states. In what comes out
`x[t+1]` may stand for a given x: beyond the last step it is multiplied by an adjoint that is zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from bptt.calculus.derive import Derived
from bptt.calculus.rewrites import Names, rebuild, substituted
from bptt.calculus.rules import SIMPLER, Product, rewrite, signed_terms, sum_of
from bptt.ir.dims import Dim, add_dims
from bptt.ir.ops import OPS, node, number, ref
from bptt.ir.ports import At
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, State, Value, refs, walk

Part = tuple[str, tuple[tuple[Dim, Dim], ...]]  # of a parameter: (start, size) along each axis
By = Literal["preactivations", "gates"]
# A shared part of a line gets a name from this weight on: `sqrt(mean(v**2) + e)` does,
# `1 - tanh(c)**2` does not.
_WORTH_A_NAME = 6
# A value this short is written out: `r*h` is.
_SHORT = 3
# No line is made longer than this by leaving out a name.
_LONG = 40


def readable(d: Derived, by: By = "preactivations") -> Program:
    """The sweep `d` for people: gradients `by` pre-activations (`dz_i`), or by gates (`d_i`)."""
    p = d.program
    for rewritten in (through_values, simplified, unaliased, shortened, shared, explained):
        p = rewritten(p, d)
    p = by_gates(p, d) if by == "gates" else by_preactivations(p, d)
    for rewritten in (carried, simplified, joined, sliced, sorted_terms, sorted_lines):
        p = rewritten(p, d)
    return p


@dataclass(frozen=True)
class Activation:
    """A line `name = f(argument)` of a forward sweep, with f elementwise."""

    name: str
    argument: str


def activations(p: Program) -> list[Activation]:
    """The lines of `p` that apply one elementwise function to a value of the same step."""
    return [
        Activation(e.name, e.rhs.args[0].attr[0])
        for e in p.steps()
        if len(e.rhs.args) == 1
        and OPS[e.rhs.op].elementwise
        and e.rhs.op not in ("neg", "pow")
        and e.rhs.args[0].op == "ref"
        and e.rhs.args[0].attr[1] == 0
    ]


# --- passes -------------------------------------------------------------------------------------


def through_values(p: Program, d: Derived) -> Program:
    """softmax(z) is exp(p) where the forward sweep has p = log_softmax(z)."""
    by = {
        node("softmax", e.rhs.args[0]): node("exp", ref(e.name, 0, e.rhs.dims))
        for e in d.of.steps()
        if e.rhs.op == "log_softmax"
    }
    return _with(p, d, [replace(e, rhs=substituted(e.rhs, by)) for e in p.equations])


def simplified(p: Program, d: Derived) -> Program:
    """Every line by the rules of `SIMPLER`."""
    return _with(p, d, [replace(e, rhs=rewrite(e.rhs, SIMPLER)) for e in p.equations])


def unaliased(p: Program, d: Derived) -> Program:
    """A line that is just another name, or a number, is left out."""
    kept = _kept(p, d)
    for name in [e.name for e in p.steps() if e.name not in kept]:
        rhs = p.equation(name).rhs
        if number(rhs) is not None or (rhs.op == "ref" and rhs.attr[1] == 0):
            p = _without(p, d, name)
    return p


def shortened(p: Program, d: Derived) -> Program:
    """A line is left out where the others are no longer for it.

    A line of the machine's own goes where it saves nothing; the gradient by a value of the
    author's only where something cancels, as in softmax under a logarithm.
    """
    kept = _kept(p, d)
    own = {v: a for a, v in d.names.items()}
    named = {a.argument for a in activations(d.of)}
    done = False
    while not done:
        done = True
        for e in p.steps():
            if e.name in kept or not _promising(p, e):
                continue
            shorter = _without(p, d, e.name)
            before, after = _weight(p.equations), _weight(shorter.equations)
            value = own.get(e.name, MACHINE)
            machine = MACHINE in value and value not in named
            longest = max(_weight([x]) for x in shorter.equations if x not in p.equations)
            in_slices = e.rhs.op == "matmul" and _only_in_slices(p, e)
            drop = machine and (after <= before or in_slices) and longest <= _LONG
            if drop or after <= before - 2:
                p, done = shorter, False
                break
    return p


def shared(p: Program, d: Derived) -> Program:
    """What stands in several lines, and is long, is written once and has a name."""
    names, lines = Names(p), {a: line_of(d.of, v) for v, a in d.names.items()}
    made: list[str] = []
    while (found := _most_shared(p)) is not None:
        first = next(e for e in p.equations if found in walk(e.rhs))
        line = lines.get(first.name) or first.name
        name = names.fresh(f"q{MACHINE}{line}")
        by = {found: ref(name, 0, found.dims)}
        equations = [replace(e, rhs=substituted(e.rhs, by)) for e in p.equations]
        place = p.equations.index(first)
        equations.insert(place, Equation(name, Kind.STEP, found, first.origin))
        p = _with(p, d, equations)
        lines[name] = line
        made.append(name)
    # a part that lost its weight to another part's name needs none itself
    for name in made:
        if _weight([p.equation(name)]) < _WORTH_A_NAME:
            p = _without(p, d, name)
    return p


def explained(p: Program, d: Derived) -> Program:
    """A value without a name in the forward lines is written out, if short or needed once."""
    steps = {e.name: e for e in d.of.steps() if MACHINE in e.name}
    turned = d.of.dir != p.dir
    done = False
    while not done:
        done = True
        for name in [v.name for v in p.values if v.name in steps]:
            value = steps[name].rhs
            here = {lag for found, lag in refs(*(e.rhs for e in p.equations)) if found == name}
            short = _weights(value)[value] <= _SHORT or sum(_reads(p, name).values()) == 1
            if here == {0} and short:
                by = {ref(name, 0, value.dims): _turned(value, d.of) if turned else value}
                equations = [replace(e, rhs=substituted(e.rhs, by)) for e in p.equations]
                p, done = _with(p, d, equations), False
                break
    return p


def by_preactivations(p: Program, d: Derived) -> Program:
    """Gradients by the arguments of activations: dz_i = d_c*g*i*(1 - i), with no line for d_i."""
    own_lines = {*d.of.outputs, *(s.name for s in d.of.states)}
    for a in activations(d.of):
        gate, argument = d.names.get(a.name, ""), d.names.get(a.argument, "")
        if _reads(p, gate) == {argument: 1} and a.name not in own_lines:
            shorter = _without(p, d, gate)
            if _weights(rhs := shorter.equation(argument).rhs)[rhs] <= _LONG:
                p = shorter
    return p


def by_gates(p: Program, d: Derived) -> Program:
    """Gradients by the gates themselves: d_i = d_c*g, and d_i*i*(1 - i) where a matrix needs it."""
    for a in activations(d.of):
        gate, argument = d.names.get(a.name, ""), d.names.get(a.argument, "")
        if _reads(p, gate).get(argument) == 1 and argument not in _kept(p, d):
            p = _without(p, d, argument)
    return p


def carried(p: Program, d: Derived) -> Program:
    """What a state gets from the step after is written where it is read, at [t+1]."""
    for s in p.states:
        carry = p.equation(s.name)
        ahead = _shifted(carry.rhs, p)
        if ahead is not None:
            by = {ref(s.name, 1, carry.rhs.dims): ahead}
            p = _with(p, d, [replace(e, rhs=substituted(e.rhs, by)) for e in p.equations])
    return p


def joined(p: Program, d: Derived) -> Program:
    """outer(a, v) + outer(b, v), each summed over time, is outer(a + b, v) summed over time."""
    for once in [e for e in p.equations if e.kind is Kind.ONCE]:
        parts = [_summed(p, once.name, sign, term) for sign, term in signed_terms(once.rhs)]
        sums = [e for e in parts if e is not None]
        total = _joined([e.rhs for e in sums]) if len(sums) == len(parts) else None
        if total is not None:
            place = p.equations.index(sums[0])
            equations = [e for e in p.equations if e not in sums and e is not once]
            equations.insert(place, replace(once, kind=Kind.SUM, rhs=rewrite(total, SIMPLER)))
            p = _with(p, d, equations)
    return p


def sliced(p: Program, d: Derived) -> Program:
    """The parts of a parameter that meet different values get names, as in w_o = [w_o_x; w_o_s]."""
    names, labels = Names(p), _labels(d.of)
    constants = {v.name for v in p.values if v.role is not Role.GIVEN}
    parts = [
        n
        for n in walk(*(e.rhs for e in p.equations))
        if n.op == "block" and n.args[0].op == "ref" and n.args[0].attr[0] in constants
    ]
    order = list(labels)
    parts.sort(key=lambda n: order.index(k) if (k := _part(n)) in labels else len(order))
    found: dict[Node, Node] = {}
    lines: list[Equation] = []
    for n in parts:
        label = labels.get(_part(n), str(len(found) + 1))
        name = names.fresh(f"{n.args[0].attr[0]}{MACHINE}{label}")
        found[n] = ref(name, 0, n.dims)
        lines.append(Equation(name, Kind.ONCE, n))
    equations = [replace(e, rhs=substituted(e.rhs, found)) for e in p.equations]
    return _with(p, d, [*lines, *equations])


def sorted_terms(p: Program, d: Derived) -> Program:
    """The terms of an adjoint in the papers' order: direct, its own step's, the next step's."""
    places = {d.names[v]: k for v, k in _places(d).items() if v in d.names}
    params = {v.name for v in p.values if v.role is not Role.GIVEN}
    params |= {e.name for e in p.equations if e.kind is Kind.ONCE}
    assigned = {e.name for e in p.steps()}
    direct = {port.name for port in d.seeds.values()}

    def place(term: tuple[int, Node], carry: bool) -> tuple[int, int]:
        found = list(refs(term[1]))
        line = max((places.get(name, 0) for name, _ in found), default=0)
        if any(name in direct for name, _ in found):
            return 0, 0
        if carry or any(name in assigned and lag for name, lag in found):
            return 3, line
        return (2, line) if any(name in params for name, _ in found) else (1, 0)

    def tidy(e: Equation) -> Equation:
        def change(n: Node, args: tuple[Node, ...]) -> Node | None:
            if n not in tops or not any(name in assigned for name, _ in refs(n)):
                return None
            terms = signed_terms(node(n.op, *args, attr=n.attr))
            return sum_of(sorted(terms, key=lambda term: place(term, e.name in finals)))

        inner = {a for n in walk(e.rhs) if n.op in ("add", "sub") for a in n.args}
        tops = {n for n in walk(e.rhs) if n.op in ("add", "sub")} - inner
        return replace(e, rhs=rebuild(e.rhs, change))

    finals = _finals(d)
    return replace(p, equations=tuple(tidy(e) for e in p.equations))


def sorted_lines(p: Program, d: Derived) -> Program:
    """The adjoints of states first, then the others in the order of the forward lines."""
    value = {a: v for v, a in d.names.items()}
    places, states = _places(d), {s.name for s in d.of.states}
    last = {e.name for e in p.emits} | _finals(d)
    steps = {e.name: e for e in p.steps() if e.name not in last}
    waiting = {n: {m for m, lag in refs(e.rhs) if m in steps and not lag} for n, e in steps.items()}
    helpers = [name for name in steps if name not in value]
    lines: list[Equation] = []

    def needs(name: str) -> set[str]:
        """The adjoints that must stand before a line, directly or through helpers."""
        return {
            m for n in waiting[name] for m in ({n} if n in value else needs(n))
        }

    def place(name: str) -> None:
        for helper in (h for h in helpers if h in waiting[name]):
            place(helper)
        if steps[name] not in lines:
            lines.append(steps[name])

    left = [name for name in steps if name in value]
    while left:
        ready = [n for n in left if not needs(n) & set(left)]
        nxt = min(ready, key=lambda n: (value[n] not in states, places.get(value[n], 0)))
        place(nxt)
        left.remove(nxt)
    for name in helpers:
        place(name)
    before = [e for e in p.equations if e.kind is Kind.ONCE and e.name not in p.late()]
    after = [e for e in p.equations if e not in before and e.name not in steps]
    return replace(p, equations=(*before, *lines, *after))


# --- what the passes ask ------------------------------------------------------------------------


def line_of(p: Program, name: str) -> str | None:
    """The author's name whose line `name` is a part of, by the line that both come from."""
    if MACHINE not in name:
        return name or None
    origin = next((e.origin for e in p.equations if e.name == name), None)
    return next((e.name for e in p.equations if e.origin == origin and MACHINE not in e.name), None)


def _finals(d: Derived) -> set[str]:
    """The lines whose last value is a result: the carries."""
    return {port.name for port in d.results.values() if port.at is At.FINAL}


def _kept(p: Program, d: Derived) -> set[str]:
    """The lines that are results."""
    return {*p.outputs, *(e.name for e in p.emits), *_finals(d)}


def _with(p: Program, d: Derived, equations: Iterable[Equation]) -> Program:
    """`p` with these lines, without the dead ones; states and values are what they read."""
    by_name = {e.name: e for e in equations}
    need: set[str] = set()
    stack = [*(n for n in _kept(p, d) if n in by_name)]
    while stack:
        name = stack.pop()
        if name in by_name and name not in need:
            need.add(name)
            stack += [found for found, _ in refs(by_name[name].rhs)]
    kept = tuple(e for e in by_name.values() if e.name in need)
    read = {r for e in kept for r in refs(e.rhs)}
    ahead = [e.name for e in kept if e.kind is Kind.STEP and (e.name, 1) in read]
    finals = [s.name for s in p.states if s.name in _finals(d) and s.name in need]
    names = {name for name, _ in read} | {e.value for e in p.emits}
    return replace(
        p,
        values=tuple(v for v in _known(d) if v.name in names),
        equations=kept,
        states=tuple(State(name) for name in dict.fromkeys((*finals, *ahead))),
    )


def _known(d: Derived) -> list[Value]:
    """All that a sweep derived from `d.of` may read."""
    assigned = [
        Value(e.name, e.rhs.dims, Role.GIVEN if e.kind is Kind.STEP else Role.PARAM)
        for e in d.of.equations
    ]
    known = {v.name: v for v in (*d.of.values, *assigned, *d.program.values)}
    return list(known.values())


def _turned(root: Node, p: Program) -> Node:
    """An expression of `p`, as a sweep that runs the other way reads it."""

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        return ref(n.attr[0], -n.attr[1], n.dims) if n.op == "ref" else None

    return rebuild(root, change)


def _without(p: Program, d: Derived, name: str) -> Program:
    """`p` with one line written out where it is read."""
    gone = p.equation(name)
    by = {ref(name, 0, gone.rhs.dims): gone.rhs}
    equations: list[Equation] = []
    for e in p.equations:
        if e is not gone:
            rhs = substituted(e.rhs, by)
            equations.append(e if rhs is e.rhs else replace(e, rhs=rewrite(rhs, SIMPLER)))
    return _with(p, d, equations)


def _edges(p: Program) -> Counter[Node]:
    """How often each node is an argument or a right-hand side."""
    roots = [e.rhs for e in p.equations]
    return Counter([*roots, *(a for n in walk(*roots) for a in n.args)])


def _reads(p: Program, name: str) -> dict[str, int]:
    """Which lines read `name` at their own step, and how often each."""
    found: dict[str, int] = {}
    for e in p.equations:
        times = Counter(a for n in walk(e.rhs) for a in n.args)
        times[e.rhs] += 1
        if count := sum(k for n, k in times.items() if n.op == "ref" and n.attr[0] == name):
            found[e.name] = count
    return found


def _promising(p: Program, e: Equation) -> bool:
    """Whether leaving out a line might pay: it is read once, or in slices, or may cancel."""
    product = Product(e.rhs)
    if product.top != 1 or product.bottom != 1 or any(k < 0 for k in product.powers.values()):
        return True
    return _only_in_slices(p, e) or sum(_reads(p, e.name).values()) == 1


def _only_in_slices(p: Program, e: Equation) -> bool:
    """Whether the value of a line is only ever read in slices."""
    me = ref(e.name, 0, e.rhs.dims)
    readers = [n for n in walk(*(x.rhs for x in p.equations)) if me in n.args]
    return all(n.op == "block" for n in readers)


def _weights(root: Node) -> dict[Node, int]:
    """How many words each node below `root` is written with."""
    found: dict[Node, int] = {}
    for n in walk(root):
        found[n] = (n.op != "fill") + sum(found[a] for a in n.args)
    return found


def _weight(equations: Iterable[Equation]) -> int:
    return sum(_weights(e.rhs)[e.rhs] for e in equations)


def _most_shared(p: Program) -> Node | None:
    """The heaviest expression of the loop that stands in more than one place."""
    series = {e.name for e in p.steps()} | {v.name for v in p.named(Role.GIVEN)}
    edges = _edges(p)
    weights = {n: w for e in p.equations for n, w in _weights(e.rhs).items()}
    found = [
        n
        for n in walk(*(e.rhs for e in p.equations if e.kind is not Kind.ONCE))
        if edges[n] > 1
        and weights[n] >= _WORTH_A_NAME
        and len(n.dims) < 2
        and n.op != "fill"
        and any(name in series for name, _ in refs(n))
    ]
    return max(found, key=weights.__getitem__, default=None)


def _shifted(root: Node, p: Program) -> Node | None:
    """`root` one step back in the running order, or None where a Program could not read it."""
    steps = {e.name for e in p.steps()}
    series = {v.name for v in p.named(Role.GIVEN) if not v.per_sequence}
    if any(lag > 0 for name, lag in refs(root) if name in steps | series):
        return None

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op == "ref" and n.attr[0] in steps | series:
            return ref(n.attr[0], n.attr[1] + 1, n.dims)
        return None

    return rebuild(root, change)


def _summed(p: Program, reader: str, sign: int, term: Node) -> Equation | None:
    """The sum over time that a term of a once is, if nothing else reads it."""
    e = next((e for e in p.equations if term.op == "ref" and e.name == term.attr[0]), None)
    alone = e is not None and e.kind is Kind.SUM and _reads(p, e.name) == {reader: 1}
    return e if alone and sign > 0 else None


def _joined(parts: list[Node]) -> Node | None:
    """The sum of several terms of a sum over time, as one such term."""
    if len(parts) == 1:
        return parts[0]
    if any(n.op != "outer" for n in parts):
        return None
    for k in (1, 0):
        if len({n.args[k] for n in parts}) == 1:
            other = sum_of([(1, n.args[1 - k]) for n in parts])
            return node("outer", *((other, parts[0].args[1]) if k else (parts[0].args[0], other)))
    return None


def _part(n: Node) -> Part:
    return n.args[0].attr[0], n.attr


def _labels(p: Program) -> dict[Part, str]:
    """What each part of a parameter meets: the names along the concatenation it multiplies."""
    found: dict[Part, str] = {}
    for n in walk(*(e.rhs for e in p.equations)):
        pair = [a.args[0] if a.op == "T" else a for a in n.args]
        if n.op not in ("matmul", "mul") or pair[-1].op != "concat" or pair[0].op != "ref":
            continue
        matrix, start = n.args[0], 0
        for part in pair[1].args:
            width: Dim = part.dims[0] if part.dims else 1
            span = (start, width)
            whole = [(0, size) for size in pair[0].dims]
            whole[0 if matrix.op == "T" or len(matrix.dims) == 1 else 1] = span
            label = part.attr[0] if part.op == "ref" else format(number(part) or 0, "g")
            found.setdefault((pair[0].attr[0], tuple(whole)), label.replace(MACHINE, "_"))
            start = add_dims(start, width)
    return found


def _places(d: Derived) -> dict[str, int]:
    """Where each forward line stands."""
    return {e.name: k for k, e in enumerate(d.of.equations)}
