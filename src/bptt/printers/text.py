"""The canonical text of a Program: declarations, then equations. `canonical.read` gives it back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from bptt.errors import BpttError
from bptt.ir.dims import show_dim, show_dims
from bptt.ir.program import MACHINE, Equation, Kind, Node, Program, Role, Value, walk
from bptt.printers.expr import Binds, Infix, Piece

# From here on an equation's shared parts are written once and named.
_LONG = 1000
_DEEP = 60

_WORDS = {Role.GIVEN: "input", Role.PARAM: "param", Role.CONST: "const"}
_FUNCTIONS = {
    "call": "",
    "call_vector": ": vector",
    "call_pull": ": vector",
    "call_scalar": ": scalar",
    "call_slope": ": scalar",
}


def text(p: Program) -> str:
    """`p` as text that `bptt.language.canonical.read` reads back to the same nodes."""
    lines = ["sweep descending"] if p.dir < 0 else []
    lines += _values(p.values)
    lines += _functions(p.equations)
    printer = Text(p)
    states = [
        f"{s.name}: {show_dims(p.dims(s.name))}"
        + ("" if s.start is None else f" = {printer.show(s.start)}")
        for s in p.states
    ]
    lines += _listed("state", states)
    lines += _listed("output", p.outputs)
    lines += _listed("loss", [p.loss] if p.loss else [])
    lines += [f"emit {e.value}{printer.index(e.value, e.lag)} += {e.name}" for e in p.emits]
    for e in p.equations:
        for n in _to_name(e.rhs, printer.names):
            line = printer.show(n)
            printer.names[n] = printer.fresh()
            lines.append(f"let {printer.names[n]} = {line}")
        left = e.name + ("[t]" if e.kind is Kind.STEP else "")
        sign = "+=" if e.kind is Kind.SUM else "="
        lines.append(f"{left} {sign} {printer.whole(e.rhs)}")
    return "\n".join(lines) + "\n"


class Text(Infix):
    """The notation of cells, for the names of one Program."""

    language = "the canonical text"

    def __init__(self, p: Program, names: Mapping[Node, str] | None = None) -> None:
        super().__init__(names)
        self.dir = p.dir
        self.taken = {v.name for v in p.values} | {e.name for e in p.equations}
        self.series = {e.name for e in p.steps()}
        self.series |= {v.name for v in p.named(Role.GIVEN) if not v.per_sequence}

    def fresh(self) -> str:
        name = f"{MACHINE}{len(self.names) + 1}"
        while name in self.taken:
            name += MACHINE
        return name

    def whole(self, root: Node) -> str:
        """An equation's right-hand side."""
        return self.names[root] if root in self.names else self.show(root)

    def index(self, name: str, lag: int) -> str:
        """`[t-1]` and the like, for a name that has a time."""
        if name not in self.series:
            return ""
        back = self.dir * lag
        return f"[t{-back:+d}]" if back else "[t]"

    def print_ref(self, n: Node, pieces: list[Piece]) -> Piece:
        name, lag = n.attr
        return Piece(name + self.index(name, lag))

    def print_const(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(show_number(float.fromhex(n.attr[0])))

    def print_size(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(f"size({show_dim(n.attr[0])})")

    def print_pattern(self, n: Node, pieces: list[Piece]) -> Piece:
        kind, size, *times = n.attr
        return self.call(kind, [show_dim(size), *map(str, times)])

    def print_pow(self, n: Node, pieces: list[Piece]) -> Piece:
        exponent = float.fromhex(n.attr[0])
        base = self.bracket(pieces[0], Binds.ATOM)
        sign = "-" if str(exponent).startswith("-") else ""
        return Piece(f"{base}**{sign}{show_number(abs(exponent))}", Binds.POWER, "pow")

    def print_T(self, n: Node, pieces: list[Piece]) -> Piece:  # noqa: N802
        return Piece(f"{self.bracket(pieces[0], Binds.ATOM)}.T")

    def print_fill(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call("fill", [pieces[0].text, *map(show_dim, n.attr)])

    def print_block(self, n: Node, pieces: list[Piece]) -> Piece:
        spans = [show_dim(d) for span in n.attr for d in span]
        return self.call(n.op, [pieces[0].text, *spans])

    print_embed = print_block

    def print_put_row(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call(n.op, [*(p.text for p in pieces), show_dim(n.attr[0])])

    def print_call(self, n: Node, pieces: list[Piece]) -> Piece:
        name, order = n.attr
        return self.call(name + "'" * order, [pieces[0].text])

    def print_call_vector(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call(n.attr[0], [p.text for p in pieces])

    print_call_scalar = print_call_vector

    def print_call_pull(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call("pull", [n.attr[0], *(p.text for p in pieces)])

    def print_call_slope(self, n: Node, pieces: list[Piece]) -> Piece:
        return self.call("slope", [n.attr[0], str(n.attr[1]), *(p.text for p in pieces)])


def show_number(value: float) -> str:
    """A number that is not negative, as short as reads back to the same."""
    if value != value:
        raise BpttError("what is not a number has no spelling in the canonical text")
    if value == float("inf"):
        return "1e999"
    return str(int(value)) if value < 1e15 and value == int(value) else repr(value)


def _listed(word: str, items: Iterable[str]) -> list[str]:
    listed = ", ".join(items)
    return [f"{word} {listed}"] if listed else []


def _values(values: Iterable[Value]) -> list[str]:
    """The declarations of values, in order: a line for each run of one role."""
    lines: list[str] = []
    role: Role | None = None
    for v in values:
        shown = f"{v.name}: {show_dims(v.dims)}" + (" per sequence" if v.per_sequence else "")
        if v.role is role:
            lines[-1] += f", {shown}"
        else:
            lines.append(f"{_WORDS[v.role]} {shown}")
        role = v.role
    return lines


def _functions(equations: Iterable[Equation]) -> list[str]:
    """The declarations of unspecified functions."""
    found = {
        n.attr[0]: f"{n.attr[0]}{_FUNCTIONS[n.op]}"
        for n in walk(*(e.rhs for e in equations))
        if n.op in _FUNCTIONS
    }
    return _listed("function", found.values())


def _to_name(root: Node, named: Mapping[Node, str]) -> list[Node]:
    """The parts of a long or deep expression to be named first, in order: where it shares much
    (`v + v`, forty times over) its text would otherwise outgrow all bounds."""
    order = walk(root)
    length: dict[Node, int] = {}
    for n in order:
        length[n] = 1 if n in named else 1 + sum(length[a] for a in n.args)
    uses = Counter(a for n in order for a in n.args) if length[root] > _LONG else Counter[Node]()
    depth: dict[Node, int] = {}
    found: list[Node] = []
    for n in order:
        depth[n] = 0 if n in named or not n.args else 1 + max(depth[a] for a in n.args)
        if n.args and n not in named and (uses[n] > 1 or depth[n] > _DEEP):
            found.append(n)
            depth[n] = 0
    return found
