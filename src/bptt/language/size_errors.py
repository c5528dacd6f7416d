"""What the sizes are called, and what is said where they do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bptt.errors import CellError, Span
from bptt.ir.dims import Dim, Dims, show_dim, show_dims, substitute, terms
from bptt.ir.program import Role
from bptt.language.scope import Named, Scope
from bptt.language.sizes import Misfit, Problem, Refused, Sizes, WrongKind, is_unknown
from bptt.language.terms import Term
from bptt.language.tree import Expr, said

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


class Report:
    """Names for the sizes of one text, and errors in those names."""

    def __init__(self, scope: Scope, outputs: Iterable[str]) -> None:
        self.scope, self.outputs = scope, tuple(outputs)
        self.sizes = Sizes(self.explain)
        self.origins: dict[str, tuple[Span, str]] = {}  # of each size that is given, not found
        self.guessed: dict[str, str] = {}  # sizes named after an input, and that input
        self.give_inputs_sizes()

    def give_inputs_sizes(self) -> None:
        """Inputs without a declared size get their own: `X` for `x` or the first, `Y` for `y`."""
        named = self.scope.names.values()
        for n in named:
            d = n.declaration or self.scope.states.get(n.name)
            if d is not None and d.sizes is not None:
                for s in (s for dim in n.shape.dims or () for s in terms(dim) if s):
                    self.origins.setdefault(s, (d.span, f"`{s}` is declared in line {d.span.line}"))
        for s, span in self.scope.sizes.items():
            self.origins.setdefault(s, (span, f"`{s}` is named in line {span.line}"))
        inputs = [n for n in named if n.role is Role.GIVEN and n.shape.dims is None]
        names = {n.name: n.name.upper() for n in inputs}
        cell = {line.span.line for line in self.scope.tree.lines if line.block == "cell"}
        if inputs and "X" not in {*names.values(), *self.origins} and inputs[0].span.line in cell:
            names[inputs[0].name] = "X"
        taken: set[str] = set()
        for n in inputs:
            size = _unused(names[n.name], taken)
            taken.add(size)
            n.shape.dims = (size,)
            if size not in self.origins:
                self.guessed[size] = n.name
                self.origins[size] = n.span, f"`{size}` is the size of the input `{n.name}`"

    def names(self) -> dict[str, Dim]:
        """Names for the sizes that are free: `H` for a state's or the output's, or the value's."""
        found: dict[str, Dim] = {}
        taken = set(self.origins)
        states = self.scope.state_names()
        main = {*self.outputs, *states}
        first = [name for name in self.outputs if name in states]
        order = (*first, *states, *self.outputs, *self.scope.names)
        for name in dict.fromkeys(order):
            n = self.scope.names[name]
            for dim in n.shape.dims or ():
                for s in terms(self.sizes.resolve(dim)):
                    if is_unknown(s) and s not in found and n.line is not None:
                        first = "H" if name in main and "H" not in taken else name.upper()
                        size = _unused(first, taken)
                        taken.add(size)
                        found[s] = size
        return found

    def final(self, dims: Dims, names: dict[str, Dim]) -> Dims:
        """Dims in their names."""
        return tuple(substitute(self.sizes.resolve(dim), names) for dim in dims)

    # --- errors ---

    def explain(self, term: Term, problem: Problem) -> CellError:
        """The error for what `term` cannot be."""
        if isinstance(problem, Refused):
            error = self.refused(term, problem)
        elif term.op == "assign":
            error = self.assigned(term, problem)
        elif isinstance(problem, WrongKind):
            error = self.wrong_kind(term, problem)
        else:
            error = self.misfit(term, problem)
        if term.use is not None and term.use.span.line != (error.span or term.expr.span).line:
            error.notes = (*error.notes, (term.use.span, f"in this use of `{term.use.name}`"))
        return error

    def misfit(self, term: Term, problem: Misfit) -> CellError:
        left, right = self.show(problem.left), self.show(problem.right)
        if term.op in ("part", "rows", "cols"):
            n = term.attr[1]
            help = f"declare the size as a multiple, such as `{n}*K`"
            what = f"`{left}` does not divide into {n} equal parts"
            return CellError(what, term.expr.span, help=help, notes=self.notes(term))
        return CellError(
            f"sizes `{left}` and `{right}` do not fit together",
            term.expr.span,
            help=self.declare_help(problem),
            notes=self.notes(term),
        )

    def declare_help(self, problem: Misfit) -> str | None:
        sides = self.show(problem.left), self.show(problem.right)
        multiple = next((s for s in sides if re.fullmatch(r"\d+\*\?", s)), None)
        if multiple is not None:
            return f"declare the size as a multiple, such as `{multiple.replace('?', 'K')}`"
        for one, other in ((problem.left, problem.right), (problem.right, problem.left)):
            if isinstance(one, str) and one in self.guessed:
                name = self.guessed[one]
                wanted = self.show(other)
                return f"if they are meant to be equal, declare it: `input {name}: {wanted}`"
        return None

    def wrong_kind(self, term: Term, problem: WrongKind) -> CellError:
        at = problem.at or term.expr
        help = None
        if len(problem.dims) == 2:
            help = f"a product with a matrix is written `{_bracketed(at)} @ v`"
        if at.op == "call" and at.name == "outer":
            help = "values over time are numbers and vectors: matrix memories are no cells here"
        elif term.op in ("rows", "cols"):
            help = f"a part of a vector is `part({said(at.span)}, {term.attr[0]}, {term.attr[1]})`"
        found = f"`{said(at.span)}` is {self.kind(problem.dims)}"
        return CellError(f"{problem.wanted} is needed here, and {found}", at.span, help=help)

    def assigned(self, term: Term, problem: Problem) -> CellError:
        name, value = said(term.expr.span), term.args[0].shape
        part = term.parts[0]
        if isinstance(problem, Misfit):
            has = f"`{name}` has size `{self.show(problem.left)}`"
            what = f"{has} and is assigned a value of size `{self.show(problem.right)}`"
            sizes = [s for d in (problem.left, problem.right) for s in terms(self.sizes.resolve(d))]
            notes = tuple(self.origins[s] for s in dict.fromkeys(sizes) if s in self.origins)
            return CellError(what, part.span, help=self.declare_help(problem), notes=notes)
        if value.dims is not None and len(value.dims) == 2 and term.shape.flat:
            what = f"`{name}` is assigned {self.kind(value.dims)}"
            help = "values over time are numbers and vectors; a product is written `W @ v`"
            return CellError(what, part.span, help=help)
        what = f"`{name}` is {self.kind(term.shape.dims or ())}"
        return CellError(f"{what}, and is assigned {self.kind(value.dims or ())}", part.span)

    def refused(self, term: Term, problem: Refused) -> CellError:
        span, parts = term.expr.span, term.parts
        shown = [_bracketed(e) for e in parts]
        if problem.reason == "number":
            k = 0 if term.args[0].shape.dims == () else 1
            what = f"`@` is a product with a matrix, and `{said(parts[k].span)}` is a number"
            return CellError(what, parts[k].span, help=f"write `{shown[0]} * {shown[1]}`")
        if problem.reason == "transposed":
            help = "`dot(v, w)` is an inner product, `v @ M` a row times a matrix"
            return CellError("`.T` of a vector", span, help=help)
        if problem.reason == "beside":
            return self.beside(term)
        if problem.reason == "factor":
            return self.factor(term)
        gated = term.args[0]
        if gated.op == "mul" and {a.level > 0 for a in gated.args} == {True, False}:
            k = 0 if gated.args[0].level else 1
            vector, matrix = _bracketed(gated.parts[k]), _bracketed(gated.parts[1 - k])
            return self.gated(gated, vector, matrix, shown[1])
        help = f"an inner product is `dot({said(parts[0].span)}, {said(parts[1].span)})`"
        help += ", an elementwise one is written `*`"
        return CellError("`@` joins two vectors", span, help=help, notes=self.notes(term))

    def beside(self, term: Term) -> CellError:
        """A matrix beside a vector with an elementwise operator."""
        k = 0 if len(term.args[0].shape.dims or ()) == 2 else 1
        matrix, vector = term.parts[k], term.parts[1 - k]
        what = f"`{_SIGNS.get(term.op, term.op)}` joins a matrix and a vector"
        factor = _bracketed(vector) if term.op == "mul" else "v"
        help = f"a product with a matrix is written `{_bracketed(matrix)} @ {factor}`"
        return CellError(what, term.expr.span, help=help, notes=self.notes(term))

    def factor(self, term: Term) -> CellError:
        """What stands beside a matrix and may be a number or another matrix."""
        k = 0 if term.args[0].shape.dims is None else 1
        stack, names = [term.args[k]], list[str]()
        while stack:
            part = stack.pop()
            if part.op == "ref" and part.shape.dims is None:
                names.append(part.attr[0])
            stack += part.args
        what = f"`{said(term.parts[k].span)}` is a number or a matrix here, and nothing says which"
        name = names[0] if names else "k"
        other = term.args[1 - k].shape.dims or term.shape.dims or ()
        shown = f"({', '.join(self.show(d) for d in other)})"
        help = f"declare it: `param {name}: scalar`"
        if other and "?" not in shown:
            help += f", or `param {name}: {shown}`"
        return CellError(what, term.parts[k].span, help=help)

    def gated(self, term: Term, vector: str, matrix: str, right: str) -> CellError:
        after, before = f"{vector} * ({matrix} @ {right})", f"{matrix} @ ({vector} * {right})"
        return CellError(
            f"`*` joins the vector `{vector}` and the matrix `{matrix}`",
            term.expr.span,
            help=f"write `{after}` (PyTorch's GRU) or `{before}` (the GRU as published)",
        )

    def undetermined(self, n: Named) -> CellError:
        """The error for a name whose size nothing says."""
        words = {Role.GIVEN: "input", Role.PARAM: "param", Role.CONST: "const", None: "state"}
        rank = 1 if n.shape.dims is None else len(n.shape.dims)
        known = [self.show(d) for d in n.shape.dims or ()]
        shown = [k if "?" not in k else "K" for k in known] or ["H"]
        example = shown[0] if rank == 1 else f"({', '.join(shown)})"
        help = f"declare it: `{words[n.role]} {n.name}: {example}`"
        if n.shape.dims is None:
            help += f", or `{n.name}: scalar` for a number"
        return CellError(f"the size of `{n.name}` cannot be found", n.span, help=help)

    def check_states(self) -> None:
        """A state as wide as an input must be declared so: it is most often a slip."""
        for name in self.scope.state_names():
            n = self.scope.names[name]
            for dim in n.shape.dims or ():
                size = self.sizes.resolve(dim)
                if isinstance(size, str) and size in self.guessed:
                    raise self.as_wide(n, dim, size)

    def as_wide(self, n: Named, dim: Dim, size: str) -> CellError:
        unknown = [s for s, (given, _) in self.sizes.given.items() if given == size]
        same = [s for s in unknown if s in terms(dim)] or unknown
        where = self.sizes.given[same[0]][1].expr.span if same else n.span
        x = self.guessed[size]
        what = f"the state `{n.name}` would be as wide as the input `{x}`"
        help = f"if that is meant, declare it: `input {x}: H`"
        if (product := self.by_parameter(x)) is not None:
            w, v = (_bracketed(e) for e in product.parts)
            help += f"; a product with a matrix is written `{w} @ {v}`"
        return CellError(what, where, help=help)

    def by_parameter(self, x: str) -> Term | None:
        """A product by `*` of a parameter and the input `x`, which may be meant as `@`."""
        for term in self.scope.names[x].shape.readers:
            if term.op == "mul" and [a.op for a in term.args] == ["ref", "ref"]:
                left, right = (self.scope.names.get(a.attr[0]) for a in term.args)
                if left and right and left.role is Role.PARAM and right.name == x:
                    return term
        return None

    def negative(self, n: Named, dims: Dims) -> CellError:
        """The error for a size that would be a difference."""
        what = f"`{n.name}` would have the size `{show_dims(dims)}`"
        return CellError(what, n.span, help="sizes are sums: declare the larger one as a sum")

    def show(self, dim: Dim) -> str:
        text = show_dim(substitute(self.sizes.resolve(dim), self.names()))
        return re.sub(r"\?\d+", "?", text)

    def kind(self, dims: Dims) -> str:
        if not dims:
            return "a number"
        shown = [self.show(d) for d in dims]
        word = "a vector" if len(dims) == 1 else "a matrix"
        if set(shown) == {"?"}:
            return word
        return f"{word} of size {shown[0]}" if len(dims) == 1 else f"{word} ({', '.join(shown)})"

    def notes(self, term: Term) -> tuple[tuple[Span, str], ...]:
        """What is known of each argument, and where its sizes come from."""
        notes: list[tuple[Span, str]] = []
        for arg, e in zip(term.args, term.parts, strict=True):
            if arg.shape.dims is not None:
                dims = arg.shape.dims
                sizes = [s for d in dims for s in terms(self.sizes.resolve(d)) if s in self.origins]
                origins = [self.origins[s][1] for s in dict.fromkeys(sizes)]
                notes.append((e.span, "; ".join([f"this is {self.kind(dims)}", *origins])))
        return tuple(notes)


def _bracketed(e: Expr) -> str:
    text = said(e.span)
    simple = e.op in ("name", "number", "call", "T") or text.startswith("(")
    return text if simple else f"({text})"


def _unused(name: str, taken: set[str]) -> str:
    found, k = name, 2
    while found in taken:
        found, k = f"{name}{k}", k + 1
    return found
