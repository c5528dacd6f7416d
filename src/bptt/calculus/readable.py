"""The rewrites for people: a derived sweep as a careful person would write it down.

Each pass takes a Program that `derive` made, or what the pass before made of it, and keeps its
meaning. The first change lines one by one, the others names: which deserve one, and which not.
The carries, which say what a state gets from the step after, are read as the papers write them,
at `[t+1]`; their own lines stay, for the gradients by the initial states. In what comes out
`x[t+1]` may stand for a given x: beyond the last step it is multiplied by an adjoint that is zero.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

from bptt.calculus.derive import Derived
from bptt.calculus.lines import (
    activations,
    carries,
    copies,
    line_of,
    one_back,
    only_in_slices,
    readers,
    reads,
    replaced,
    results,
    rewritten,
    turned,
    weight,
    with_lines,
    without,
)
from bptt.calculus.rewrites import Names, rebuild, substituted
from bptt.calculus.rules import SIMPLER, product_of, rewrite, signed_terms, sum_of, weights
from bptt.errors import UserError
from bptt.ir.dims import Dim, add_dims
from bptt.ir.ops import node, number, ref
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, refs, walk

By = Literal["preactivations", "gates"]
Part = tuple[str, tuple[tuple[Dim, Dim], ...]]  # of a parameter: (start, size) along each axis

# A part of several lines gets a name from this weight on: `sqrt(mean(v**2) + e)` does,
# `1 - tanh(c)**2` does not.
_WORTH_A_NAME = 6
# A value this short is written out: `r*h` is.
_SHORT = 3
# No person reads a backward pass of more operations than this, written out.
_LEGIBLE = 1_000_000
# No line is made longer than this by leaving out a name.
_LONG = 40


def readable(d: Derived, by: By = "preactivations") -> Program:
    """The sweep `d` for people: gradients `by` pre-activations (`dz_i`), or by gates (`d_i`).

    Raises UserError for one that no person could read.
    """
    p = d.program
    legible(p)
    for rewrites in PASSES[by]:
        p = rewrites(p, d)
    return p


def legible(p: Program) -> None:
    """Raise UserError where `p`, written out, is too long for any reader."""
    sizes: dict[Node, int] = {}  # as text, where what is shared is written again and again
    for n in walk(*(e.rhs for e in p.equations)):
        sizes[n] = 1 + sum(sizes[a] for a in n.args)
    if sum(sizes[e.rhs] for e in p.equations) > _LEGIBLE:
        raise UserError(
            "the backward pass of this cell is too long to be read",
            help="give parts of its lines names of their own: an equation for each",
        )


# --- passes -------------------------------------------------------------------------------------


def through_values(p: Program, d: Derived) -> Program:
    """softmax(z) is what the author calls it, or exp(p) where that is p = log_softmax(z)."""
    by: dict[Node, Node] = {}
    for e in d.of.steps():
        if MACHINE not in e.name and e.rhs.op in ("softmax", "log_softmax"):
            value = ref(e.name, 0, e.rhs.dims)
            z = e.rhs.args[0]
            by[node("softmax", z)] = node("exp", value) if e.rhs.op == "log_softmax" else value
    return replaced(p, d, by)


def simplified(p: Program, d: Derived) -> Program:
    """Every line by the rules of `SIMPLER`."""
    return with_lines(p, d, [replace(e, rhs=rewrite(e.rhs, SIMPLER)) for e in p.equations])


def unaliased(p: Program, d: Derived) -> Program:
    """A line that is just another name, or a number, is left out."""
    for e in p.steps():
        rhs = p.equation(e.name).rhs if e.name not in results(p, d) else None
        if rhs and (number(rhs) is not None or (rhs.op == "ref" and rhs.attr[1] == 0)):
            p = without(p, d, e.name)
    return p


def shortened(p: Program, d: Derived) -> Program:
    """A line is left out where the others are no longer for it.

    A line of the machine's own goes where it saves nothing; the gradient by a value of the
    author's only where something cancels, as in softmax under a logarithm.
    """
    value = {a: v for v, a in d.names.items()}
    own = {v for v in value.values() if MACHINE not in v} | {
        a.argument for a in activations(d.of) if a.elementwise
    }
    stays = results(p, d)
    tried: set[tuple[str, Node]] = set()
    while e := next(
        (e for e in p.steps() if e.name not in stays and (e.name, e.rhs) not in tried), None
    ):
        tried.add((e.name, e.rhs))
        if not _promising(p, e):
            continue
        me = ref(e.name, 0, e.rhs.dims)
        before = [x for x in p.equations if me.attr in reads(x.rhs)]
        after = rewritten(before, {me: e.rhs})
        gain = weight(e, *before) - weight(*after)
        in_slices = e.rhs.op == "matmul" and only_in_slices(p, e)
        free = value.get(e.name) not in own and (gain >= -2 or in_slices)
        if gain >= 2 or (free and all(weight(x) <= _LONG for x in after)):
            p = without(p, d, e.name)
            again = {name for x in after for name, _ in reads(x.rhs)}
            tried = {(name, rhs) for name, rhs in tried if name not in again}
    return p


def shared(p: Program, d: Derived) -> Program:
    """What stands in several lines, and is long, is written once and has a name."""
    names, value = Names(p), {a: v for v, a in d.names.items()}
    line = {a: line_of(d.of, v) or v for a, v in value.items()}
    places = {e.name: k for k, e in enumerate(d.of.equations)}
    made: list[str] = []
    while (found := _most_shared(p)) is not None:
        first = next(e for e in p.equations if found in walk(e.rhs))
        by_value = [value[a] for a, _ in refs(found) if a in value]
        latest = max(by_value, key=places.__getitem__, default="")
        of = line.get(d.names.get(latest, first.name), first.name)
        if not by_value:  # of forward values alone: it is the line that computes it
            whole = (e.name for e in d.of.equations if found in walk(e.rhs))
            named = (line_of(d.of, name) for name in whole)
            of = next((name for name in named if name is not None), of)
        name = names.fresh(f"{'dq' if by_value else 'q'}{MACHINE}{of}")
        line[name] = of
        by = {found: ref(name, 0, found.dims)}
        equations = [replace(e, rhs=substituted(e.rhs, by)) for e in p.equations]
        place = p.equations.index(first)
        origin = next((e.origin for e in d.of.equations if e.name == of), first.origin)
        equations.insert(place, Equation(name, Kind.STEP, found, origin))
        p = with_lines(p, d, equations)
        made.append(name)
    # a part that lost its weight to another part's name needs none itself
    for name in made:
        if weight(p.equation(name)) < _WORTH_A_NAME:
            p = without(p, d, name)
    return p


def explained(p: Program, d: Derived) -> Program:
    """A value without a name in the forward lines is written out, if short or needed once."""
    steps = {e.name: e.rhs for e in d.of.steps() if MACHINE in e.name}

    def short(name: str) -> bool:
        read_now = all(lag == 0 for e in p.equations for n, lag in reads(e.rhs) if n == name)
        once = sum(readers(p, name).values()) == 1
        return read_now and (once or weights(steps[name])[steps[name]] <= _SHORT)

    while name := next((v.name for v in p.values if v.name in steps and short(v.name)), None):
        value = steps[name] if d.of.dir == p.dir else turned(steps[name])
        p = replaced(p, d, {ref(name, 0, value.dims): value})
    for copy, of in copies(d.of).items():
        by = {ref(copy, lag, of.dims): ref(of.attr[0], lag, of.dims) for lag in (-1, 0, 1)}
        p = replaced(p, d, by)
    return p


def by_preactivations(p: Program, d: Derived) -> Program:
    """Gradients by the arguments of activations: dz_i = d_c*g*i*(1 - i), with no line for d_i."""
    own_lines = {*d.of.outputs, *(s.name for s in d.of.states)}
    for a in activations(d.of):
        gate, argument = d.names.get(a.name, ""), d.names.get(a.argument, "")
        if a.elementwise and a.name not in own_lines and readers(p, gate) == {argument: 1}:
            shorter = without(p, d, gate)
            if weight(shorter.equation(argument)) <= _LONG:
                p = shorter
    return p


def by_gates(p: Program, d: Derived) -> Program:
    """Gradients by the gates themselves: d_i = d_c*g, and d_i*i*(1 - i) where a matrix needs it."""
    states = {s.name for s in d.of.states}
    for a in activations(d.of):
        gate, argument = d.names.get(a.name, ""), d.names.get(a.argument, "")
        if a.argument in states:  # h = tanh(c): the next step reads c too
            continue
        if a.elementwise and readers(p, gate).get(argument) == 1:
            p = without(p, d, argument)
    return p


def carried(p: Program, d: Derived) -> Program:
    """What a state gets from the step after is written where it is read, at [t+1]."""
    for s in p.states:
        carry = p.equation(s.name)
        behind = one_back(carry.rhs, p)
        if behind is not None:
            p = replaced(p, d, {ref(s.name, 1, behind.dims): behind})
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
            p = with_lines(p, d, equations)
    return p


def sliced(p: Program, d: Derived) -> Program:
    """The parts of a parameter that meet different values get names, as in w_o = [w_o_x; w_o_s]."""
    names, labels = Names(p), _labels(d.of)
    constants = {v.name for v in p.values if v.role is not Role.GIVEN}
    parts: dict[Node, Part] = {
        n: (n.args[0].attr[0], n.attr)
        for n in walk(*(e.rhs for e in p.equations))
        if n.op == "block" and n.args[0].op == "ref" and n.args[0].attr[0] in constants
    }
    order = {part: k for k, part in enumerate(labels)}
    by: dict[Node, Node] = {}
    lines: list[Equation] = []
    for n, part in sorted(parts.items(), key=lambda item: order.get(item[1], len(order))):
        name = names.fresh(f"{part[0]}{MACHINE}{labels.get(part, len(by) + 1)}")
        by[n] = ref(name, 0, n.dims)
        lines.append(Equation(name, Kind.ONCE, n))
    lines += [replace(e, rhs=substituted(e.rhs, by)) for e in p.equations]
    return with_lines(p, d, lines)


def sorted_terms(p: Program, d: Derived) -> Program:
    """The terms of an adjoint in the papers' order: direct, its own step's, the next step's.

    Among the last, and among those with a parameter, the order of the forward lines.
    """
    places = {d.names[e.name]: k for k, e in enumerate(d.of.equations) if e.name in d.names}
    params = {v.name for v in p.values if v.role is not Role.GIVEN}
    params |= {e.name for e in p.equations if e.kind is Kind.ONCE}
    assigned = {e.name for e in p.steps()}
    direct = {port.name for port in d.seeds.values()}
    forward_order = carries(d) | {e.name for e in p.equations if e.kind is Kind.SUM}

    def place(e: Equation, term: Node) -> tuple[int, int]:
        found = list(refs(term))
        line = max((places.get(name, 0) for name, _ in found), default=0)
        if any(name in direct for name, _ in found):
            return 0, 0
        if e.name in forward_order or any(name in assigned and lag for name, lag in found):
            return 3, line
        return (2, line) if any(name in params for name, _ in found) else (1, 0)

    def tidy(e: Equation) -> Equation:
        chains = [n for n in walk(e.rhs) if n.op in ("add", "sub")]
        whole = set(chains) - {a for n in chains for a in n.args}

        def change(n: Node, args: tuple[Node, ...]) -> Node | None:
            if n not in whole or not any(name in assigned for name, _ in refs(n)):
                return None
            terms = signed_terms(node(n.op, *args))
            return sum_of(sorted(terms, key=lambda term: place(e, term[1])))

        return replace(e, rhs=rebuild(e.rhs, change))

    return replace(p, equations=tuple(map(tidy, p.equations)))


def sorted_lines(p: Program, d: Derived) -> Program:
    """The adjoints of states first, then the others in the order of the forward lines."""
    places = {e.name: k for k, e in enumerate(d.of.equations)}
    states = {s.name for s in d.of.states}
    steps = {e.name: e for e in p.steps() if e.name not in results(p, d)}
    value = {a: v for v, a in d.names.items() if a in steps}
    reads = {n: {m for m, lag in refs(e.rhs) if m in steps and not lag} for n, e in steps.items()}
    lines: dict[str, Equation] = {}

    def place(name: str) -> None:
        """Put a line, and before it the parts with names of their own that it reads."""
        for part in steps:
            if part in reads[name] and part not in value:
                place(part)
        lines.setdefault(name, steps[name])

    def waits(name: str) -> bool:
        return any(m not in lines and (m in value or waits(m)) for m in reads[name])

    while ready := [n for n in value if n not in lines and not waits(n)]:
        place(min(ready, key=lambda n: (value[n] not in states, places[value[n]])))
    for name in steps:
        place(name)
    before = [e for e in p.equations if e.kind is Kind.ONCE and e.name not in p.late()]
    after = [e for e in p.equations if e not in before and e.name not in steps]
    return replace(p, equations=(*before, *lines.values(), *after))


_NAMES = (through_values, simplified, unaliased, joined, shortened, shared, explained)
_AGAIN = (unaliased, shortened)
_FORM = (carried, simplified, sliced, sorted_terms, sorted_lines)
PASSES = {
    "preactivations": (*_NAMES, *_AGAIN, by_preactivations, *_FORM),
    "gates": (*_NAMES, *_AGAIN, by_gates, *_FORM),
}


# --- what the passes ask ------------------------------------------------------------------------


def _promising(p: Program, e: Equation) -> bool:
    """Whether leaving out a line might pay: it is read once, or in slices, or may cancel."""
    product = product_of(e.rhs)
    if product.top != 1 or product.bottom != 1 or any(k < 0 for k in product.powers.values()):
        return True
    return only_in_slices(p, e) or sum(readers(p, e.name).values()) == 1


def _most_shared(p: Program) -> Node | None:
    """The heaviest expression of the loop that stands in more than one place."""
    series = {e.name for e in p.steps()} | {v.name for v in p.named(Role.GIVEN)}
    roots = [e.rhs for e in p.equations if e.kind is not Kind.ONCE]
    uses = Counter([*roots, *(a for n in walk(*roots) for a in n.args)])
    heavy = {n: w for root in roots for n, w in weights(root).items() if w >= _WORTH_A_NAME}
    found = [
        n
        for n in walk(*roots)
        if n in heavy
        and uses[n] > 1
        and len(n.dims) < 2
        and n.op != "fill"
        and any(name in series for name, _ in refs(n))
    ]
    return max(found, key=heavy.__getitem__, default=None)


def _summed(p: Program, reader: str, sign: int, term: Node) -> Equation | None:
    """The sum over time that a term of a once is, if nothing else reads it."""
    e = next((e for e in p.equations if term.op == "ref" and e.name == term.attr[0]), None)
    if e is None or e.kind is not Kind.SUM or sign < 0:
        return None
    return e if readers(p, e.name) == {reader: 1} else None


def _joined(parts: list[Node]) -> Node | None:
    """The sum of several terms of a sum over time, as one such term."""
    if len(parts) == 1:
        return parts[0]
    if any(n.op != "outer" for n in parts):
        return None
    left, right = ([n.args[k] for n in parts] for k in (0, 1))
    if len(set(right)) == 1:
        return node("outer", sum_of([(1, a) for a in left]), right[0])
    if len(set(left)) == 1:
        return node("outer", left[0], sum_of([(1, b) for b in right]))
    return None


def _labels(p: Program) -> dict[Part, str]:
    """What each part of a parameter meets: the names along the concatenation it multiplies."""
    found: dict[Part, str] = {}
    for n in walk(*(e.rhs for e in p.equations)):
        if n.op not in ("matmul", "mul") or n.args[1].op != "concat":
            continue
        matrix = n.args[0].args[0] if n.args[0].op == "T" else n.args[0]
        axis = 1 if n.op == "matmul" and n.args[0].op != "T" else 0
        start: Dim = 0
        for part in n.args[1].args:
            width: Dim = part.dims[0] if part.dims else 1
            spans: list[tuple[Dim, Dim]] = [(0, size) for size in matrix.dims]
            spans[axis] = (start, width)
            label = part.attr[0] if part.op == "ref" else format(number(part) or 0, "g")
            if matrix.op == "ref":
                found.setdefault((matrix.attr[0], tuple(spans)), label.replace(MACHINE, "_"))
            start = add_dims(start, width)
    return found
