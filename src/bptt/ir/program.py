"""Node, Equation, Program: one sweep over time, as data.

A `Program` is a recurrence that runs over time in one direction. Its backward pass is again a
`Program`, running the other way. Lags count steps back in the running order, so the same Node
means the same thing in both.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, ClassVar, TypeVar

from bptt.ir.dims import Dims

# Names that only the machine makes hold this character, which no user can type in a name.
MACHINE = "$"


class Node:
    """An immutable expression. Equal expressions are one object: equality is identity.

    Leaves: `ref` (attr = name, lag), `const` (attr = float.hex), `size` (attr = a Dim), and
    `pattern`, a matrix of zeros and ones (attr = its kind and sizes).
    Build them with `bptt.ir.ops.node` and the builders beside it, which compute `dims`.
    """

    __slots__ = ("__weakref__", "args", "attr", "below", "dims", "op")
    op: str
    args: tuple[Node, ...]
    attr: tuple[Any, ...]
    dims: Dims
    below: tuple[Node, ...] | None  # what `walk` has found, kept since passes ask for it often

    def __repr__(self) -> str:
        return _shown(self, 6)

    def __reduce__(self) -> Any:
        raise TypeError("a Node is not pickled: pickle the text of its Program")

    def __deepcopy__(self, memo: Any) -> Node:
        return self

    def __copy__(self) -> Node:
        return self


def _shown(n: Node, depth: int) -> str:
    """`n` for a debugger. What lies deeper is left out: a DAG has more paths than any page."""
    if n.args and not depth:
        return f"{n.op}(...)"
    inner = [_shown(a, depth - 1) for a in n.args] + [repr(a) for a in n.attr]
    return f"{n.op}({', '.join(inner)})"


_interned: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()
_interning = threading.Lock()


def intern(op: str, args: tuple[Node, ...], attr: tuple[Any, ...], dims: Dims) -> Node:
    """The one Node with these fields. Callers outside `ir` use `bptt.ir.ops.node`."""
    key = (op, args, attr, dims)
    with _interning:
        found = _interned.get(key)
        if found is None:
            found = Node()
            found.op, found.args, found.attr, found.dims = key
            found.below = None
            _interned[key] = found
    return found


def walk(*roots: Node) -> list[Node]:
    """Every node below `roots`, each once, arguments before the nodes that use them."""
    if len(roots) != 1:
        return _ordered(roots)
    (root,) = roots
    if root.below is not None:
        return [*root.below, root]
    order = _ordered(roots)
    if len(order) <= _MOST_KEPT:
        root.below = tuple(order[:-1])  # without the root, which it would keep alive
    return order


_MOST_KEPT = 512  # nodes: what lies below each node of a long chain would fill the memory


def _ordered(roots: tuple[Node, ...]) -> list[Node]:
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [*reversed(roots)]
    while stack:
        node = stack[-1]
        if node in seen:
            stack.pop()
        elif waiting := [a for a in reversed(node.args) if a not in seen]:
            stack += waiting
        else:
            seen.add(node)
            order.append(node)
            stack.pop()
    return order


def refs(*roots: Node) -> Iterator[tuple[str, int]]:
    """The (name, lag) of every reference below `roots`."""
    return ((n.attr[0], n.attr[1]) for n in walk(*roots) if n.op == "ref")


class Kind(Enum):
    """`once`: no t. `step`: `name[t] = ...`. `sum`: `name += ...` over time and batch."""

    ONCE = "once"
    STEP = "step"
    SUM = "sum"


class Role(Enum):
    """What a value that a Program reads is: a series, trained, or not trained."""

    GIVEN = "given"
    PARAM = "param"
    CONST = "const"


@dataclass(frozen=True)
class Equation:
    """`name = rhs`. `origin` says where it comes from: the user's line, or `adjoint of ...`."""

    name: str
    kind: Kind
    rhs: Node
    origin: str = ""


@dataclass(frozen=True)
class Value:
    """What a Program reads and does not assign. A given that is `per_sequence` has no t."""

    name: str
    dims: Dims
    role: Role
    per_sequence: bool = False


@dataclass(frozen=True)
class State:
    """An assigned name that is read one step back. `start`: its value before the first step
    unless the caller gives one; None is zero."""

    name: str
    start: Node | None = None


@dataclass(frozen=True)
class Emit:
    """The adjoint of the given `value` at `lag` gets `name[t]` added."""

    value: str
    lag: int
    name: str


_Found = TypeVar("_Found")


def remembered(f: Callable[[Program], _Found]) -> Callable[[Program], _Found]:
    """`f`, worked out once a Program. What it gives must not change, nor hold the Program."""
    found: weakref.WeakKeyDictionary[Program, _Found] = weakref.WeakKeyDictionary()

    @wraps(f)
    def once(p: Program) -> _Found:
        known = found.get(p)
        if known is None:
            known = found[p] = f(p)
        return known

    return once


class Shown:
    """What notebooks show as HTML. Printers stand on a floor above: whoever may import them says
    here, once, what does it."""

    renderer: ClassVar[Callable[[Any], str] | None] = None

    def _repr_html_(self) -> str | None:
        return None if Shown.renderer is None else Shown.renderer(self)


@dataclass(frozen=True, eq=False)
class Program(Shown):
    """One sweep over time. `dir` +1 runs t = 0..T-1, -1 runs t = T-1..0.

    Lags count steps back in that order. What is given is read at -1, 0 and 1, what is assigned at
    0 and, a state, at 1; by sums, which are known when the loop is done, at -1 too.
    `outputs` may name steps, onces and sums. `loss` names the step whose sum over time is
    the loss, where the text has one.
    """

    dir: int
    values: tuple[Value, ...]
    equations: tuple[Equation, ...]
    states: tuple[State, ...]
    outputs: tuple[str, ...]
    emits: tuple[Emit, ...] = ()
    loss: str | None = None

    def __post_init__(self) -> None:
        _validate(self)

    def value(self, name: str) -> Value:
        """The value called `name`; KeyError if there is none."""
        found = _by_name(self)[name]
        return found if isinstance(found, Value) else _missing(name)

    def equation(self, name: str) -> Equation:
        """The equation that assigns `name`; KeyError if there is none."""
        found = _by_name(self)[name]
        return found if isinstance(found, Equation) else _missing(name)

    def dims(self, name: str) -> Dims:
        """The dims of a value or an assigned name; KeyError if there is none."""
        found = _by_name(self)[name]
        return found.dims if isinstance(found, Value) else found.rhs.dims

    def steps(self) -> tuple[Equation, ...]:
        """The equations that run each step."""
        return tuple(e for e in self.equations if e.kind is Kind.STEP)

    def named(self, role: Role) -> tuple[Value, ...]:
        """The values of one role."""
        return tuple(v for v in self.values if v.role is role)

    @remembered
    def late(self) -> frozenset[str]:
        """The sums, and the onces that read one: they exist only after the sweep."""
        late: set[str] = set()
        for e in self.equations:
            if e.kind is Kind.SUM or (
                e.kind is Kind.ONCE and any(name in late for name, _ in refs(e.rhs))
            ):
                late.add(e.name)
        return frozenset(late)

    def __deepcopy__(self, memo: Any) -> Program:
        return self


@remembered
def _by_name(p: Program) -> dict[str, Value | Equation]:
    return {each.name: each for each in (*p.values, *p.equations)}


def _missing(name: str) -> Any:
    raise KeyError(name)


def _unique(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        assert name not in seen, f"`{name}` is written twice"
        seen.add(name)


def _validate(p: Program) -> None:
    assert p.dir in (1, -1), f"dir is {p.dir}"
    _unique([v.name for v in p.values] + [e.name for e in p.equations])
    _unique(s.name for s in p.states)
    kinds = {e.name: e.kind for e in p.equations}
    dims = {e.name: e.rhs.dims for e in p.equations}
    values = {v.name: v for v in p.values}
    states = {s.name for s in p.states}
    late = p.late()
    ready: set[str] = set()
    for e in p.equations:
        for node in walk(e.rhs):
            if len(node.dims) == 2 and e.kind is not Kind.ONCE:
                held = node.op in ("ref", "T", "block", "pattern") or (
                    node.op in ("outer", "put_row") and e.kind is Kind.SUM and node is e.rhs
                )
                assert held, f"`{e.name}` computes a matrix at every step ({node.op})"
            if node.op in ("row", "put_row"):
                chosen = node.args[1]
                by_value = chosen.op == "ref" and chosen.attr[0] in values
                assert by_value, f"`{e.name}` computes the number of a row"
            if node.op != "ref":
                continue
            name, lag = node.attr
            if name in values:
                v = values[name]
                assert node.dims == v.dims, f"`{name}` in `{e.name}` has dims {node.dims}"
                timed = v.role is Role.GIVEN and not v.per_sequence
                assert lag in ((-1, 0, 1) if timed else (0,)), f"`{e.name}` reads `{name}` at {lag}"
                assert not (timed and e.kind is Kind.ONCE), f"`{e.name}` reads the series `{name}`"
                continue
            assert name in kinds, f"`{e.name}` reads `{name}`, which nothing gives"
            assert node.dims == dims[name], f"`{name}` in `{e.name}` has dims {node.dims}"
            if kinds[name] is Kind.STEP:
                assert e.kind is not Kind.ONCE, f"`{e.name}` reads the series `{name}`"
                there = (lag == 1 and name in states) or (lag == 0 and name in ready)
                # a sum is known when the loop is done, and may read a step ahead of it
                assert there or (lag == -1 and e.kind is Kind.SUM), (
                    f"`{e.name}` reads `{name}` at lag {lag} before it is there"
                )
            else:
                assert lag == 0 and name in ready, f"`{e.name}` reads `{name}` too early"
                if e.kind is not Kind.ONCE:
                    assert name not in late, f"`{e.name}` reads `{name}`, known after the sweep"
        ready.add(e.name)
    for s in p.states:
        assert kinds.get(s.name) is Kind.STEP, f"the state `{s.name}` is not assigned at each step"
    for emit in p.emits:
        assert emit.value in values, f"adjoint of `{emit.value}`, which is not given"
        assert values[emit.value].role is Role.GIVEN, f"adjoint of the constant `{emit.value}`"
        assert kinds.get(emit.name) is Kind.STEP, f"`{emit.name}` is not a step"
        assert emit.lag in (-1, 0, 1), f"adjoint of `{emit.value}` at lag {emit.lag}"
    for name in p.outputs:
        assert name in kinds, f"the output `{name}` is not assigned"
    if p.loss is not None:
        number = kinds.get(p.loss) is Kind.STEP and dims[p.loss] == ()
        assert number, f"the loss `{p.loss}` is not a number at each step"
