"""Terms whose sizes are known to Nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bptt.ir import ops
from bptt.ir.dims import Dim, Dims, scale_dim
from bptt.ir.ops import node
from bptt.ir.program import MACHINE, Equation, Kind, Node, walk
from bptt.language.terms import Term

_HELD = ("ref", "T", "pattern")  # matrices that a step may hold without computing them
_STABLE = {"softmax": "log_softmax", "sigmoid": "logsigmoid"}
_BUILDERS: dict[str, Callable[..., Node]] = {
    "add": ops.add,
    "sub": ops.sub,
    "mul": ops.mul,
    "div": ops.div,
    "sum": ops.summed,
    "mean": ops.mean,
    "dot": ops.dot,
    "T": ops.transpose,
}


class Builder:
    """Makes Nodes, equation by equation. `dims`: of every name; `final`: those of a term."""

    def __init__(self, dims: Mapping[str, Dims], final: Callable[[Dims], Dims]) -> None:
        self.dims, self.final = dims, final
        self.assigned: dict[str, Node] = {}
        self.nodes: dict[Term, Node] = {}
        self.stepped: dict[Node, Node] = {}
        self.onces: dict[Node, Node] = {}
        self.hoisted: list[Equation] = []

    def once(self, root: Term) -> Node:
        """The Node of a term that is constant over time."""
        stack = [root]
        while stack:
            term = stack[-1]
            missing = [a for a in term.args if a not in self.nodes]
            if missing:
                stack.extend(missing)
            else:
                self.nodes[stack.pop()] = self.build(term)
        return self.nodes[root]

    def step(self, root: Term, origin: str) -> Node:
        """The Node of a term at each step. Matrices that it computes become onces, in `hoisted`."""
        rhs = self.once(root)
        for n in walk(rhs):
            if n not in self.stepped:
                args = (
                    n.args if _computes_matrix(n) else tuple(self.hoist(a, origin) for a in n.args)
                )
                changed = args != n.args
                self.stepped[n] = node(n.op, *args, attr=n.attr) if changed else n
        return self.hoist(rhs, origin)

    def hoist(self, n: Node, origin: str) -> Node:
        """`n` within a step: by name where it is a matrix that must be computed."""
        if not _computes_matrix(n):
            return self.stepped[n]
        if n not in self.onces:
            name = f"once{MACHINE}{len(self.onces) + 1}"
            self.hoisted.append(Equation(name, Kind.ONCE, n, origin))
            self.onces[n] = ops.ref(name, 0, n.dims)
        return self.onces[n]

    def build(self, term: Term) -> Node:
        op, args = term.op, [self.nodes[a] for a in term.args]
        if op == "number":
            return ops.const(term.attr[0])
        if op == "ref":
            name, lag = term.attr
            return ops.ref(name, lag, self.dims[name])
        if op in _BUILDERS:
            return _BUILDERS[op](*args)
        if op in ("max", "min"):
            dims = max((a.dims for a in args), key=len)
            return node(op, *(ops.fill(a, dims) for a in args))
        if op == "matmul" and len(args[0].dims) == 1:
            return ops.matmul(ops.transpose(args[1]), args[0])
        if op == "pow":
            return ops.power(args[0], term.attr[0])
        if op == "part":
            (piece,) = self.final(term.shape.dims or ())
            return ops.block(args[0], (scale_dim(piece, term.attr[0] - 1), piece))
        if op in ("rows", "cols"):
            whole, axis = args[0].dims, int(op == "cols")
            piece = self.final(term.shape.dims or ())[axis]
            spans: list[tuple[Dim, Dim]] = [(0, whole[0]), (0, whole[1])]
            spans[axis] = (scale_dim(piece, term.attr[0] - 1), piece)
            return ops.block(args[0], *spans)
        if op == "cumsum":
            return ops.matmul(ops.lower(args[0].dims[0]), args[0])
        if op == "repeat":
            return ops.matmul(ops.each(args[0].dims[0], term.attr[0]), args[0])
        if op == "eye":
            return ops.eye(term.attr[0])
        if op == "log":
            return self.log(args[0])
        return node(op, *args, attr=term.attr)

    def log(self, arg: Node) -> Node:
        """log(softmax(v)) and log(sigmoid(v)) in their stable forms, also through a name."""
        inner = arg
        while inner.op == "ref" and inner.attr[1] == 0 and inner.attr[0] in self.assigned:
            inner = self.assigned[inner.attr[0]]
        if inner.op in _STABLE:
            return node(_STABLE[inner.op], *inner.args)
        return node("log", arg)


def _computes_matrix(n: Node) -> bool:
    return len(n.dims) == 2 and n.op not in _HELD
