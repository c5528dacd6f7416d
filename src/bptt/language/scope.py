"""What each name of a cell is: assigned, a state, an input, a parameter, a constant.

Roles are inferred as names are met: indexed but never assigned is an input, read at `[t-1]` a
state, unindexed a parameter. Declarations come first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bptt.errors import CellError, Span
from bptt.ir.dims import Dim, Dims, add_dims, scale_dim
from bptt.ir.dims import terms as dim_terms
from bptt.ir.program import MACHINE, Role
from bptt.language.near import did_you_mean
from bptt.language.terms import CONSTANT, SERIES, STATIC, Shape, Term, Terms
from bptt.language.tree import Declaration, Expr, Line, Sizes, Tree, postorder, said

_ROLES = {"input": Role.GIVEN, "param": Role.PARAM, "const": Role.CONST}
_LARGEST = 10**9


@dataclass(eq=False)
class Named:
    """A name. `line` is the equation that assigns it; a value has a `role` instead."""

    name: str
    span: Span
    level: int
    shape: Shape
    role: Role | None = None
    line: Line | None = None
    declaration: Declaration | None = None
    ready: bool = False
    lags: dict[int, Span] = field(default_factory=dict[int, Span])

    @property
    def indexed(self) -> bool:
        return self.level == SERIES


def to_dim(e: Expr) -> Dim:
    """A size: names, whole numbers, their sums and multiples."""
    total: dict[str, int] = {}
    stack = [(e, 1)]
    while stack:
        part, times = stack.pop()
        whole = [_whole(a) for a in (part, *part.args)]
        if whole[0] is not None:
            total[""] = total.get("", 0) + times * whole[0]
        elif part.op == "name" and part.lag is None:
            total[part.name] = total.get(part.name, 0) + times
        elif part.op in ("+", "-"):
            stack += [(part.args[0], times), (part.args[1], times if part.op == "+" else -times)]
        elif part.op == "neg":
            stack.append((part.args[0], -times))
        elif part.op == "*" and whole[1] is not None:
            stack.append((part.args[1], times * whole[1]))
        elif part.op == "*" and whole[2] is not None:
            stack.append((part.args[0], times * whole[2]))
        else:
            help = "a size is a name, a whole number, or their sum: `H`, `4*H`, `X + H + 1`"
            raise CellError(f"`{said(part.span)}` is not a size", part.span, help=help)
    if any(abs(n) > _LARGEST for n in total.values()):
        raise CellError(f"the size `{said(e.span)}` is too large", e.span)
    return add_dims(*(scale_dim(name or 1, n) for name, n in total.items()))


def _whole(e: Expr) -> int | None:
    if e.op == "neg" and e.args[0].op == "number":
        inner = _whole(e.args[0])
        return None if inner is None else -inner
    if e.op == "number" and e.value <= _LARGEST and e.value == int(e.value):
        return int(e.value)
    return None


def to_dims(sizes: Sizes) -> Dims:
    """The dims that a declaration gives."""
    return tuple(to_dim(e) for e in sizes.dims)


class Scope:
    """The names of one text. Fill by `resolve` in the order of the equations, then `close`."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.names: dict[str, Named] = {}
        self.copies: dict[str, Named] = {}
        self.states: dict[str, Declaration] = {}
        self.sizes: dict[str, Span] = {}  # those that an expression names, and where
        for line in tree.lines:
            self.assigned(line)
        for d in tree.declarations:
            self.declared(d)

    # --- before the equations are read ---

    def assigned(self, line: Line) -> None:
        _refuse_reserved(line.name, line.span)
        if line.name in self.names:
            first = self.names[line.name]
            if first.indexed != (line.lag is not None):
                raise _both(first.name, first.span, line.span)
            notes = ((first.span, "the first time"),)
            help = "give the second value a name of its own"
            raise CellError(f"`{line.name}` is assigned twice", line.span, help, notes)
        level = CONSTANT if line.lag is None else SERIES
        shape = Shape(flat=level == SERIES)
        self.names[line.name] = Named(line.name, line.span, level, shape, line=line)

    def declared(self, d: Declaration) -> None:
        if d.word == "state":
            self.declared_state(d)
        elif d.word in _ROLES:
            _refuse_reserved(d.name, d.span)
            if d.name in self.names:
                first = self.names[d.name]
                what, note = f"`{d.name}` is declared twice", "here too"
                if first.line is not None:
                    what, note = f"`{d.name}` is declared as {d.word} and assigned", "assigned here"
                raise CellError(what, d.span, notes=((first.span, note),))
            level = CONSTANT
            if d.word == "input":
                level = STATIC if d.per_sequence else SERIES
            shape = Shape(self.declared_dims(d), flat=level > CONSTANT)
            if d.word == "const" and d.value is not None and d.sizes is None:
                shape.dims = ()
            self.names[d.name] = Named(
                d.name, d.span, level, shape, _ROLES[d.word], declaration=d, ready=True
            )

    def declared_state(self, d: Declaration) -> None:
        found = self.names.get(d.name)
        if d.name in self.states:
            notes = ((self.states[d.name].span, "here too"),)
            raise CellError(f"`{d.name}` is declared twice", d.span, notes=notes)
        if found is None or found.line is None or not found.indexed:
            series = [n.name for n in self.names.values() if n.line is not None and n.indexed]
            help = did_you_mean(d.name, series) or f"assign it: `{d.name}[t] = ...`"
            raise CellError(f"the state `{d.name}` is never assigned", d.span, help=help)
        self.states[d.name] = d
        found.shape.dims = self.declared_dims(d)

    def declared_dims(self, d: Declaration) -> Dims | None:
        if d.sizes is None:
            return None
        dims = to_dims(d.sizes)
        if len(dims) == 2 and (d.word in ("input", "state")):
            what = f"the {d.word} `{d.name}` is declared as a matrix"
            help = "values over time are numbers and vectors; a matrix is a parameter or constant"
            raise CellError(what, d.sizes.span, help=help)
        for dim, e in zip(dims, d.sizes.dims, strict=True):
            if isinstance(dim, int) and dim < 1:
                what = f"`{said(e.span)}` is not a size"
                raise CellError(what, e.span, help="a size is at least 1")
        return dims

    # --- while they are read ---

    def is_value(self, name: str) -> bool:
        """Is `name` assigned, declared or read anywhere?"""
        reads = (e for line in self.tree.lines for e in postorder(line.rhs))
        return name in self.names or any(e.op == "name" and e.name == name for e in reads)

    def size(self, e: Expr) -> Dim:
        """The size that an expression names, as in `eye(H)`."""
        dim = to_dim(e)
        if isinstance(dim, int) and dim < 1:
            raise CellError(f"`{said(e.span)}` is not a size", e.span, help="a size is at least 1")
        for name in dim_terms(dim):
            if name:
                self.sizes.setdefault(name, e.span)
        return dim

    def resolve(self, e: Expr, terms: Terms) -> Term:
        """The term of a name as an expression reads it."""
        name = e.name
        if name == "t":
            help = "time stands only in brackets: `x[t]`, `x[t-1]`"
            raise CellError("`t` is time and has no value", e.span, help=help)
        if e.lag is not None and e.lag not in (0, 1):
            raise _beyond(e, e.lag)
        found = self.names.get(name)
        if found is None:
            _refuse_reserved(name, e.span)
            level = CONSTANT if e.lag is None else SERIES
            role = Role.PARAM if e.lag is None else Role.GIVEN
            found = Named(name, e.span, level, Shape(flat=level > 0), role, ready=True)
            self.names[name] = found
        elif found.indexed != (e.lag is not None):
            raise _both(name, found.span, e.span)
        if e.lag != 1 and not found.ready:
            raise self.too_early(found, e)
        lag = e.lag or 0
        found.lags.setdefault(lag, e.span)
        if lag and found.line is None:
            found = self.copies.setdefault(
                name, Named(f"last{MACHINE}{name}", e.span, SERIES, found.shape)
            )
        term = terms.make("ref", (), e, (found.name, lag), shape=found.shape, level=found.level)
        value = found.declaration and found.declaration.value
        term.literal = value is not None and found.shape.dims == ()
        return term

    def too_early(self, found: Named, e: Expr) -> CellError:
        assert found.line is not None
        notes = ((found.span, "it is assigned here"),)
        if not found.indexed:
            name = found.name.removesuffix("_t") or found.name
            help = f"a value over time is written `{name}[t]`, and a step back `{name}[t-1]`"
            what = f"`{found.name}` is read before it is assigned"
            return CellError(what, e.span, help, notes)
        what = f"`{said(e.span)}` is read before it is assigned"
        if found.span.line == e.span.line:
            what, notes = f"`{said(e.span)}` is read by its own equation", ()
        help = f"equations run in the order written; for the step before write `{e.name}[t-1]`"
        if (loop := self.loop(found.line, e.span.line)) is not None:
            what = f"`{said(e.span)}` and `{loop}[t]` need each other in the same step"
            help = f"one of them must read the step before: `{e.name}[t-1]` or `{loop}[t-1]`"
        return CellError(what, e.span, help, notes)

    def loop(self, line: Line, reader: int) -> str | None:
        """The name assigned in line number `reader`, if `line` needs its value at the same step."""
        lines = {li.name: li for li in self.tree.lines}
        waiting, seen = [line], {line.name}
        while waiting:
            for e in postorder(waiting.pop().rhs):
                other = lines.get(e.name) if e.op == "name" and e.lag == 0 else None
                if other is not None and other.name not in seen:
                    if other.span.line == reader:
                        return other.name
                    seen.add(other.name)
                    waiting.append(other)
        return None

    # --- after ---

    def close(self) -> None:
        """Refuse what only the whole text shows to be a slip."""
        for n in self.names.values():
            guessed = n.role is Role.GIVEN and n.declaration is None
            if guessed and 0 not in n.lags:
                series = [m.name for m in self.names.values() if m.line is not None]
                help = did_you_mean(n.name, series)
                help = help or f"an input that is read only late is declared: `input {n.name}`"
                what = f"`{n.name}` is read at `[t-1]`, but never assigned"
                raise CellError(what, n.lags[1], help=help)
        if not self.copies and not self.state_names():
            line = next((li for li in self.tree.lines if li.lag == 0), self.tree.lines[-1])
            raise CellError(
                "this cell has no state: nothing is read at `[t-1]`",
                line.span,
                help=f"the value of the step before is written `{line.name}[t-1]`",
            )

    def state_names(self) -> list[str]:
        """The assigned names that are read at `[t-1]` or declared so, in order of assignment."""
        return [
            n.name
            for n in self.names.values()
            if n.line is not None and (1 in n.lags or n.name in self.states)
        ]

    def values(self, role: Role) -> list[Named]:
        """The values of one role, in the order met."""
        return [n for n in self.names.values() if n.role is role]


def _refuse_reserved(name: str, span: Span) -> None:
    if name == "t":
        raise CellError("`t` is time", span, help="give the value another name")
    if name.startswith("d_"):
        help = "gradients follow from the equations; give the value another name"
        raise CellError(f"`{name}`: names with `d_` are kept for gradients", span, help=help)


def _both(name: str, first: Span, second: Span) -> CellError:
    return CellError(
        f"`{name}` is used both with and without `[t]`",
        second,
        help=f"a value over time is always `{name}[t]` or `{name}[t-1]`; a constant has no index",
        notes=((first, "the other use"),) if first != second else (),
    )


def _beyond(e: Expr, lag: int) -> CellError:
    if lag < 0:
        what, help = f"`{e.name}` is read from the future", "a cell may read `t` or `t-1`"
    else:
        what = f"`{e.name}` is read {lag} steps back"
        help = f"a cell may read `t` or `t-1`; carry older values: `last[t] = {e.name}[t-1]`"
    return CellError(what, e.span, help=help)
