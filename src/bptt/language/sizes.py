"""The sizes of all terms and names, found from how they are used.

First what must be so (a matrix product, a concatenation, a sum of two known values), as far as it
goes; then, in source order, one guess at a time: a value of unknown size is as its elementwise
partner. A number written out is a partner only when nothing else is left.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from math import gcd
from typing import Literal

from bptt.errors import CellError
from bptt.ir.dims import Dim, Dims, add_dims, scale_dim, substitute, terms
from bptt.language.terms import VECTOR_KEEPING, Shape, Term
from bptt.language.tree import Expr

_ELEMENTWISE = ("add", "sub", "mul", "div", "max", "min")
_OF_VECTORS = ("mean", "dot", "row_max", "part", "repeat", "outer")
_LARGEST = 10**9
_UNKNOWN = "?"  # begins the names of sizes that are not found yet


class Misfit(Exception):
    """Two sizes that cannot be equal."""

    def __init__(self, left: Dim, right: Dim) -> None:
        super().__init__()
        self.left, self.right = left, right


class WrongKind(Exception):
    """A number, vector or matrix where another kind is needed. `at` is where."""

    def __init__(self, dims: Dims, wanted: str, at: Expr | None = None) -> None:
        super().__init__()
        self.dims, self.wanted, self.at = dims, wanted, at


class Refused(Exception):
    """A term that no sizes can save."""

    def __init__(
        self, reason: Literal["beside", "number", "inner", "transposed", "factor"]
    ) -> None:
        super().__init__()
        self.reason = reason


Problem = Misfit | WrongKind | Refused


class Sizes:
    """The search. `solved` holds what each unknown size turned out to be."""

    def __init__(self, explain: Callable[[Term, Problem], CellError]) -> None:
        self.explain = explain
        self.solved: dict[str, Dim] = {}
        self.given: dict[str, tuple[str, Term]] = {}  # unknowns that met a given size, and where
        self.now: Term
        self.made = 0
        self.queue: deque[Term] = deque()
        self.queued: set[Term] = set()
        self.counted: dict[Term, int] = {}  # how many arguments of a `concat` are known
        self.guesses: list[tuple[int, int, Term]] = []
        self.done: set[Term] = set()

    # --- sizes ---

    def fresh(self) -> Dim:
        self.made += 1
        return f"{_UNKNOWN}{self.made}"

    def resolve(self, dim: Dim) -> Dim:
        """`dim` with all that is known of it."""
        found = dim
        while hits := {s: self.solved[s] for s in terms(found) if s in self.solved}:
            found = substitute(found, hits)
            if any(abs(k) > _LARGEST for k in terms(found).values()):
                raise CellError("the sizes grow beyond all bounds here", self.now.expr.span)
        if isinstance(dim, str) and found != dim:
            self.solved[dim] = found
        return found

    def equate(self, left: Dim, right: Dim) -> None:
        """Make two sizes equal."""
        left, right = self.resolve(left), self.resolve(right)
        if left == right:
            return
        parts = terms(add_dims(left, scale_dim(right, -1)))
        common = gcd(*parts.values())
        above, below = sum(n > 0 for n in parts.values()), sum(n < 0 for n in parts.values())
        # a sum of others rather than a difference, then the newest
        choices = [
            ((above if n > 0 else below) > 1, -int(name[1:]), name)
            for name, n in parts.items()
            if name.startswith(_UNKNOWN) and abs(n) == common
        ]
        if not choices:
            raise Misfit(left, right)
        name = min(choices)[2]
        n = parts.pop(name)
        value = add_dims(*(scale_dim(s or 1, -k // n) for s, k in parts.items()))
        if isinstance(value, int) and value < 1:
            raise Misfit(left, right)
        self.solved[name] = value
        if isinstance(value, str) and not is_unknown(value):
            self.given[name] = value, self.now

    def set(self, shape: Shape, dims: Dims, at: Expr | None = None) -> None:
        """`shape` has these dims."""
        if shape.dims is None:
            if shape.flat and len(dims) == 2:
                raise WrongKind(dims, "a number or vector", at)
            shape.dims = dims
            for term in shape.readers:
                self.enqueue(term)
            return
        if len(shape.dims) != len(dims):
            wanted = ("a number", "a vector", "a matrix")[len(dims)]
            raise WrongKind(shape.dims, wanted, at)
        for a, b in zip(shape.dims, dims, strict=True):
            self.equate(a, b)

    def vector(self, shape: Shape, at: Expr) -> Dim:
        """`shape` is a vector: of which size?"""
        if shape.dims is None:
            self.set(shape, (self.fresh(),), at)
        if shape.dims is None or len(shape.dims) != 1:
            raise WrongKind(shape.dims or (), "a vector", at)
        return shape.dims[0]

    def matrix(self, shape: Shape, at: Expr) -> tuple[Dim, Dim]:
        """`shape` is a matrix: of which sizes?"""
        if shape.dims is None:
            self.set(shape, (self.fresh(), self.fresh()), at)
        if shape.dims is None or len(shape.dims) != 2:
            raise WrongKind(shape.dims or (), "a matrix", at)
        return shape.dims[0], shape.dims[1]

    # --- the search ---

    def follow(self, term: Term) -> None:
        """Look at `term` now, and again whenever more of it is known."""
        for shape in {id(s): s for s in (term.shape, *(a.shape for a in term.args))}.values():
            shape.readers.append(term)
        self.enqueue(term)

    def enqueue(self, term: Term) -> None:
        if term not in self.queued:
            self.queued.add(term)
            self.queue.append(term)

    def run(self) -> None:
        """Find all there is to find. `explain` turns a contradiction into an error."""
        while True:
            if self.queue:
                term, action = self.queue.popleft(), self.look
                self.queued.discard(term)
            elif self.guesses:
                term, action = heapq.heappop(self.guesses)[2], self.guess
            else:
                return
            if term in self.done:
                continue
            self.now = term
            try:
                action(term)
            except (Misfit, WrongKind, Refused) as problem:
                raise self.explain(term, problem) from None

    def wait(self, term: Term, last: bool = False) -> None:
        """`term` needs a guess, if nothing else settles it."""
        heapq.heappush(self.guesses, (int(last), term.index, term))

    def look(self, term: Term) -> None:
        """Draw every conclusion that `term` allows now."""
        op = term.op
        if op in _ELEMENTWISE:
            self.elementwise(term)
        elif op == "matmul":
            self.matmul(term)
        elif op in _OF_VECTORS:
            self.reduction(term)
        elif op == "T":
            self.transposed(term)
        elif op in ("rows", "cols"):
            self.stretch(term)
        elif op == "concat":
            self.concat(term)
        elif op == "sum":
            self.sum(term)
        elif op in ("assign", "start"):
            self.equal(term)
        elif op in VECTOR_KEEPING:
            self.vector(term.shape, term.parts[0])
            self.done.add(term)

    def elementwise(self, term: Term) -> None:
        (a, b), out = term.args, term.shape
        if a.shape.dims is None and b.shape.dims is None:
            if out.dims == ():
                self.set(a.shape, ())
                self.set(b.shape, ())
            elif out.dims is not None:
                self.wait(term)
        elif a.shape.dims is None or b.shape.dims is None:
            known, other = (b, a) if a.shape.dims is None else (a, b)
            assert known.shape.dims is not None
            if len(known.shape.dims) == 2 and out.flat:
                raise Refused("beside")
            if known.shape.dims:
                self.set(out, known.shape.dims)
            elif out.dims is not None:
                self.set(other.shape, out.dims)
            self.wait(term, last=known.literal and not known.shape.dims)
        elif a.shape.dims and b.shape.dims:
            if len(a.shape.dims) != len(b.shape.dims):
                raise Refused("beside")
            self.set(a.shape, b.shape.dims)
            self.set(out, a.shape.dims)
            self.done.add(term)
        else:
            self.set(out, a.shape.dims or b.shape.dims)
            self.done.add(term)

    def matmul(self, term: Term) -> None:
        a, b = term.args
        left, right, out = a.shape, b.shape, term.shape
        if () in (left.dims, right.dims):
            raise Refused("number")
        if (left.flat and right.flat) or _ranks(left, right) == (1, 1):
            raise Refused("inner")
        ranks = _ranks(left, right, out)
        if right.flat or ranks[1] == 1 or (ranks[0] == 2 and ranks[2] == 1):
            n, m = self.matrix(left, term.parts[0])
            self.equate(m, self.vector(right, term.parts[1]))
            self.set(out, (n,))
        elif left.flat or ranks[0] == 1 or (ranks[1] == 2 and ranks[2] == 1):
            n, m = self.matrix(right, term.parts[1])
            self.equate(n, self.vector(left, term.parts[0]))
            self.set(out, (m,))
        elif ranks[2] == 2 or ranks[:2] == (2, 2):
            n, m = self.matrix(left, term.parts[0])
            k, j = self.matrix(right, term.parts[1])
            self.equate(m, k)
            self.set(out, (n, j))
        else:
            self.wait(term)
            return
        self.done.add(term)

    def reduction(self, term: Term) -> None:
        sizes = [self.vector(a.shape, e) for a, e in zip(term.args, term.parts, strict=True)]
        if term.op == "part":
            piece = self.fresh()
            self.equate(sizes[0], scale_dim(piece, term.attr[1]))
            self.set(term.shape, (piece,))
        elif term.op == "repeat":
            self.set(term.shape, (scale_dim(sizes[0], term.attr[0]),))
        elif term.op == "outer":
            self.set(term.shape, tuple(sizes), term.expr)
        else:
            if term.op == "dot":
                self.equate(*sizes)
            self.set(term.shape, ())
        self.done.add(term)

    def transposed(self, term: Term) -> None:
        if term.shape.flat:
            raise Refused("transposed")
        rows, columns = self.matrix(term.args[0].shape, term.parts[0])
        self.set(term.shape, (columns, rows))
        self.done.add(term)

    def stretch(self, term: Term) -> None:
        """The k-th of n equal stretches of rows or columns."""
        dims = list(self.matrix(term.args[0].shape, term.parts[0]))
        axis = int(term.op == "cols")
        piece = self.fresh()
        self.equate(dims[axis], scale_dim(piece, term.attr[1]))
        dims[axis] = piece
        self.set(term.shape, tuple(dims), term.expr)
        self.done.add(term)

    def concat(self, term: Term) -> None:
        whole = self.vector(term.shape, term.expr)
        k = self.counted.get(term, 0)
        while k < len(term.args) and (dims := term.args[k].shape.dims) is not None:
            if len(dims) == 2:
                raise WrongKind(dims, "a number or vector", term.parts[k])
            k += 1
        self.counted[term] = k
        if k < len(term.args):
            self.wait(term)
        else:
            sizes = [a.shape.dims for a in term.args]
            self.equate(whole, add_dims(*(d[0] if d else 1 for d in sizes if d is not None)))
            self.done.add(term)

    def sum(self, term: Term) -> None:
        self.set(term.shape, ())
        arg = term.args[0].shape
        if arg.flat and arg.dims is None:
            self.vector(arg, term.parts[0])
        if arg.dims is None:
            self.wait(term)
        elif arg.dims == ():
            raise WrongKind((), "a vector", term.parts[0])
        else:
            self.done.add(term)

    def equal(self, term: Term) -> None:
        """An assignment, or the start of a state, which may be a number for a vector."""
        value, name = term.args[0].shape, term.shape
        if value.dims is not None and (value.dims or term.op == "assign"):
            self.set(name, value.dims)
        elif value.dims is None and name.dims is not None:
            self.set(value, name.dims)

    # --- guesses ---

    def guess(self, term: Term) -> None:
        """Settle one thing that nothing settled."""
        if term.op in _ELEMENTWISE:
            a, b = term.args
            unknown, other = (a, b) if a.shape.dims is None else (b, a)
            dims = other.shape.dims if other.shape.dims is not None else term.shape.dims
            if term.op in ("mul", "div") and dims is not None and len(dims) == 2:
                if other.op != "eye":
                    raise Refused("factor")  # a number or a mask: papers have both
                dims = ()  # nothing else would be of use
            if unknown.shape.dims is None and dims is not None:
                self.set(unknown.shape, dims, term.parts[0 if unknown is a else 1])
        elif term.op == "matmul":
            a, b = term.args
            if a.shape.dims is None:
                self.matrix(a.shape, term.parts[0])
            elif b.shape.dims is None and term.shape.flat:
                self.vector(b.shape, term.parts[1])
            elif b.shape.dims is None:
                self.matrix(b.shape, term.parts[1])
        else:
            for arg, e in zip(term.args, term.parts, strict=True):
                if arg.shape.dims is None:
                    self.vector(arg.shape, e)
        self.enqueue(term)


def _ranks(*shapes: Shape) -> tuple[int | None, ...]:
    return tuple(None if s.dims is None else len(s.dims) for s in shapes)


def is_unknown(name: str) -> bool:
    """Is `name` a size that is not found yet?"""
    return name.startswith(_UNKNOWN)
