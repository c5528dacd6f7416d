"""Rewrites, Program to Program, that keep the meaning of every name there was."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace

from bptt.errors import UserError
from bptt.ir.dims import solved, terms
from bptt.ir.ops import node, ref
from bptt.ir.program import (
    MACHINE,
    Equation,
    Kind,
    Node,
    Program,
    Role,
    Value,
    refs,
    walk,
)

# What costs more than a pass over its elements: it is computed once and has a name.
CONTRACTIONS = frozenset(("matmul", "sum", "softmax", "log_softmax", "row_max", "outer"))
# What costs next to nothing beside reading its arguments.
_CHEAP = frozenset(("ref", "const", "add", "sub", "mul", "neg", "fill"))
# What a sum of contractions may pass through on its way to a name.
_AFFINE = frozenset(("add", "sub", "neg", "fill"))


def rebuild(root: Node, change: Callable[[Node, tuple[Node, ...]], Node | None]) -> Node:
    """`root` with every node for which `change(node, new arguments)` gives another replaced."""
    return rebuild_all((root,), change)[root]


def rebuild_all(
    roots: Iterable[Node], change: Callable[[Node, tuple[Node, ...]], Node | None]
) -> dict[Node, Node]:
    """What every node below `roots` becomes when `change` replaces nodes, as in `rebuild`."""
    found: dict[Node, Node] = {}
    for n in walk(*roots):
        args = tuple(found[a] for a in n.args)
        other = change(n, args)
        if other is None:
            other = n if args == n.args else node(n.op, *args, attr=n.attr)
        found[n] = other
    return found


def substituted(root: Node, by: Mapping[Node, Node]) -> Node:
    """`root` with each node that is a key of `by` replaced."""
    return rebuild(root, lambda n, _: by.get(n))


MOST_ADDENDS = 1 << 16


def addends(n: Node) -> list[Node]:
    """The terms of a chain of additions, left to right. Raises UserError for too many of them:
    a sum that is written with itself, again and again, has 2^k."""
    found: list[Node] = []
    stack = [n]
    while stack:
        if len(found) > MOST_ADDENDS:
            raise UserError(
                f"a sum has more than {MOST_ADDENDS:,} terms when it is written out",
                help="write what is added to itself as a product",
            )
        n = stack.pop()
        if n.op == "add":
            stack += reversed(n.args)
        else:
            found.append(n)
    return found


class Names:
    """Names for the machine's values that collide with none there are."""

    def __init__(self, p: Program) -> None:
        self.taken = {v.name for v in p.values} | {e.name for e in p.equations}

    def fresh(self, name: str) -> str:
        """`name`, which must be the machine's, with a number behind it if it is taken."""
        found, k = name, 2
        while found in self.taken:
            found, k = f"{name}{MACHINE}{k}", k + 1
        self.taken.add(found)
        return found


def lower(p: Program, names: Names | None = None) -> Program:
    """Give every contraction and every operand of one a name, out of `names` (default: p's own).

    Then no derivative computes a contraction again, and what a matrix product reads is a
    series. A pre-activation is named after the line it stands in: `z$i`. The sum of a matrix
    becomes a once: at each step its adjoint would be a matrix.
    """
    names = names or Names(p)
    named: dict[Node, Node] = {}
    equations: list[Equation] = []
    for e in p.equations:
        if e.kind is Kind.ONCE:
            equations.append(e)
            continue
        heavy: set[Node] = set()

        def name_it(n: Node, kind: Kind = Kind.STEP, e: Equation = e) -> Node:
            if n not in named:
                name = names.fresh(f"z{MACHINE}{e.name}")
                named[n] = ref(name, 0, n.dims)
                equations.append(Equation(name, kind, n, e.origin))
            return named[n]

        found: dict[Node, Node] = {}
        alone = _named_alone(e.rhs)
        for n in walk(e.rhs):
            wants = [_wants(n, a, heavy) for a in n.args]
            args = tuple(
                name_it(found[a]) if want else found[a]
                for a, want in zip(n.args, wants, strict=True)
            )
            found[n] = n if args == n.args else node(n.op, *args, attr=n.attr)
            if n.op == "sum" and len(n.args[0].dims) == 2:
                found[n] = name_it(found[n], Kind.ONCE)
            elif n in alone:
                found[n] = name_it(found[n])
            elif n.op in CONTRACTIONS or any(
                a in heavy and not w for a, w in zip(n.args, wants, strict=True)
            ):
                heavy.add(n)
        rhs = named.get(found[e.rhs], found[e.rhs]) if e.kind is Kind.STEP else found[e.rhs]
        equations.append(replace(e, rhs=rhs))
    return replace(p, equations=tuple(equations))


def _wants(n: Node, a: Node, heavy: Container[Node]) -> bool:
    """Whether `n` needs a name for its argument `a`: it holds a contraction, or `n` is one.

    So does what a largest element is taken of. Its derivative asks which element that is, and
    computed again it may differ in the last digit.
    """
    return (a in heavy and n.op not in _AFFINE) or (
        n.op in ("matmul", "outer", "row_max") and _loose(a)
    )


def _named_alone(root: Node) -> set[Node]:
    """The contractions that somebody needs a name for: all others who read them use it too."""
    heavy = {n for n in walk(root) if n.op in CONTRACTIONS}
    return {a for n in walk(root) for a in n.args if a in heavy and _wants(n, a, heavy)}


def _loose(n: Node) -> bool:
    """Whether an operand of a contraction must get a name to be a series."""
    if len(n.dims) != 1:
        return False
    if n.op == "concat":
        return any(_loose(a) or a.op not in ("ref", "const") for a in n.args)
    return n.op != "ref"


def with_sizes(p: Program, known: Iterable[Value]) -> Program:
    """`p`, reading further values of `known` where nothing that it reads tells a size of its own.

    The gradient of what is summed needs no parameter, but it has the parameter's sizes.
    """
    needed: dict[str, None] = {}
    for n in walk(*(e.rhs for e in p.equations)):
        dims = (*n.dims, *n.attr) if n.op == "size" else n.dims
        needed.update((s, None) for d in dims for s in terms(d) if s)
    found = {d for v in p.values for d in v.dims} | {d for s in p.states for d in p.dims(s.name)}
    held = {v.name for v in p.values}
    more = [v for v in known if v.name not in held]
    values = list(p.values)
    for s in needed:
        if s not in solved(found):
            # best a value that has the size alone
            telling = [v for v in more if s in solved(found | set(v.dims))]
            telling.sort(key=lambda v: s not in v.dims)
            values += telling[:1]
            found |= {d for v in telling[:1] for d in v.dims}
    return p if len(values) == len(p.values) else replace(p, values=tuple(values))


def sliced(p: Program, outputs: Iterable[str], emitted: Iterable[str] | None = None) -> Program:
    """The part of `p` that `outputs`, the emitted adjoints and what they depend on need.

    States on which neither depends fall away.
    """
    kept = {p.value(v).name for v in (emitted if emitted is not None else ())}
    emits = tuple(e for e in p.emits if emitted is None or e.value in kept)
    outputs = tuple(outputs)
    by_name = {e.name: e for e in p.equations}
    need: set[str] = set()
    stack = [*outputs, *(e.name for e in emits)]
    while stack:
        name = stack.pop()
        if name in by_name and name not in need:
            need.add(name)
            stack += [found for found, _ in refs(by_name[name].rhs)]
    equations = tuple(e for e in p.equations if e.name in need)
    states = tuple(s for s in p.states if s.name in need)
    starts = [s.start for s in states if s.start is not None]
    read = {name for name, _ in refs(*(e.rhs for e in equations), *starts)}
    read |= {e.value for e in emits}
    part = Program(
        dir=p.dir,
        values=tuple(v for v in p.values if v.name in read),
        equations=equations,
        states=states,
        outputs=outputs,
        emits=emits,
        loss=p.loss if p.loss in need else None,
    )
    return with_sizes(part, p.values)


def with_outputs(p: Program, names: Iterable[str]) -> Program:
    """`p` with further outputs behind those it has."""
    return replace(p, outputs=tuple(dict.fromkeys((*p.outputs, *names))))


def with_ends(p: Program) -> Program:
    """`p` with what nothing reads, such as a readout without a loss, as further outputs."""
    if p.loss is not None:
        return p
    read = {name for name, _ in refs(*(e.rhs for e in p.equations))}
    return with_outputs(p, [e.name for e in p.steps() if e.name not in read])


def layer(p: Program) -> Program:
    """What a layer runs: the slice that the outputs and states need, without readout and loss."""
    states = tuple(s.name for s in p.states)
    part = sliced(p, (*p.outputs, *states))
    return replace(part, outputs=p.outputs)


def values_of(p: Program, names: Container[str]) -> list[Value]:
    """Those of p's assigned names, as what another sweep is given."""
    return [
        Value(e.name, e.rhs.dims, Role.GIVEN if e.kind is Kind.STEP else Role.PARAM)
        for e in p.equations
        if e.name in names
    ]


def cut(p: Program, also: Iterable[str] = (), *, reverse: bool = False) -> Program:
    """`p` without its recurrence: its states, and the names in `also`, are given to it.

    A step then needs no other step, so every order is as good: with `reverse` it runs the other
    way and its lags, which count in the running order, are negated. It emits nothing, and of the
    outputs has those that it still computes.
    """
    given = {*also, *(s.name for s in p.states)}

    def change(n: Node, _: tuple[Node, ...]) -> Node | None:
        if not reverse or n.op != "ref" or not n.attr[1]:
            return None
        return ref(n.attr[0], -n.attr[1], n.dims)

    equations = tuple(
        replace(e, rhs=rebuild(e.rhs, change)) for e in p.equations if e.name not in given
    )
    return Program(
        dir=-p.dir if reverse else p.dir,
        values=(*p.values, *values_of(p, given)),
        equations=equations,
        states=(),
        outputs=tuple(name for name in p.outputs if name not in given),
        loss=None if p.loss in given else p.loss,
    )


def remade(p: Program, name: str, source: Program) -> Program | None:
    """`p`, making again what it is given of a name that `source` assigns, of values of the same
    step; beyond an end it is still given. Sums may read it a step ahead of them: None where
    something else does, or where it is only another name.
    """
    e = next(e for e in source.equations if e.name == name)
    early = any(
        n == name and lag and not (other.kind is Kind.SUM and lag == -1)
        for other in p.equations
        for n, lag in refs(other.rhs)
    )
    if early or e.rhs.op in ("ref", "const") or any(lag for _, lag in refs(e.rhs)):
        return None
    own = [v for v in p.values if v.name != name]
    read = {n for n, _ in refs(e.rhs)} - {v.name for v in own}
    own += [v for v in (*source.values, *values_of(source, read)) if v.name in read]
    return replace(p, values=tuple(own), equations=(e, *p.equations))


def nearly_known(p: Program, n: Node) -> bool:
    """Whether `n` costs next to nothing in a step of `p`, which has all of its functions anyway."""
    known = set(walk(*(e.rhs for e in p.steps())))
    return all(a in known for a in walk(n) if a.op not in _CHEAP)


def joined(source: Program, p: Program) -> Program:
    """`p`, computing itself what it was given of the names that `source` assigns.

    `source` has no recurrence and runs p's way; what a name is there, it is in `p`.
    """
    assert source.dir == p.dir
    assert not source.states
    by_name = {e.name: e for e in source.equations}
    wanted: set[str] = set()
    stack = [v.name for v in p.values]
    while stack:
        name = stack.pop()
        if name in by_name and name not in wanted:
            wanted.add(name)
            stack += [found for found, _ in refs(by_name[name].rhs)]
    if not wanted:
        return p
    equations = tuple(e for e in source.equations if e.name in wanted)
    read = {name for name, _ in refs(*(e.rhs for e in equations))}
    own = tuple(v for v in p.values if v.name not in wanted)
    held = {v.name for v in own}
    more = tuple(v for v in source.values if v.name in read and v.name not in held)
    return replace(p, values=(*own, *more), equations=(*equations, *p.equations))
