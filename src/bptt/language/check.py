"""Syntax tree to forward Program. Name, time and size errors end here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from bptt.errors import CellError, Span
from bptt.ir.dims import Dims, show_dim
from bptt.ir.dims import terms as dim_terms
from bptt.ir.ops import ref
from bptt.ir.program import Equation, Kind, Node, Program, Role, State, Value
from bptt.language.build import Builder
from bptt.language.initial import check_initial
from bptt.language.near import did_you_mean
from bptt.language.parse import parse, parse_definition
from bptt.language.scope import Scope
from bptt.language.size_errors import Report
from bptt.language.sizes import is_unknown
from bptt.language.terms import (
    CONSTANT,
    FUNCTIONS,
    MACHINE_FUNCTIONS,
    SERIES,
    STATIC,
    Term,
    Terms,
    number,
)
from bptt.language.tree import Definition, Expr, Line, Tree, postorder, said

_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Checked:
    """What a text says.

    `inits` maps a parameter to what a trainer starts it with (see `bptt.language.initial`), in
    the order of the lines; `consts` a constant to its value where the text gives one; `functions`
    a function that is still unspecified to its kind (`elementwise`, `vector`, `scalar`).
    `tree` is the text's, with the backward pass that its author wrote down.
    """

    program: Program
    source: str
    inits: Mapping[str, Expr]
    consts: Mapping[str, float]
    functions: Mapping[str, str]
    tree: Tree


def check(cell: str | Tree, *, functions: Mapping[str, str] | None = None) -> Checked:
    """The forward Program of a cell's text. Raises CellError.

    `functions` binds unspecified functions, each to a function of the language or a definition:
    `{"f_c": "tanh", "G": "f(a, b) = sum((a - b)**2)/2"}`.
    """
    tree = parse(cell) if isinstance(cell, str) else cell
    return _Checker(tree, functions or _EMPTY).checked()


class _Checker:
    def __init__(self, tree: Tree, bound: Mapping[str, str]) -> None:
        self.tree = tree
        if not tree.lines:
            where = tree.definitions[0].span
            raise CellError("there are no equations, only definitions", where)
        self.definitions, self.functions = _functions(tree, bound)
        self.scope = Scope(tree)
        self.terms = Terms(self.scope, self.definitions, self.functions)

    def checked(self) -> Checked:
        scope = self.scope
        assigns = [self.equation(line) for line in self.tree.lines]
        starts = self.starts()
        consts = {
            d.name: _literal(d.value, "constant") for d in self.tree.declared("const") if d.value
        }
        scope.close()
        outputs = self.outputs()
        report = Report(scope, outputs)
        for term in (*self.terms.all, *assigns, *starts.values()):
            report.sizes.follow(term)
        report.sizes.run()
        report.check_states()
        dims = self.dims(report)
        sizes = report.names()
        builder = Builder(dims, lambda found: report.final(found, sizes))
        self.refuse_known(dims)
        program = self.program(builder, assigns, starts, outputs)
        inits = self.inits(dims)
        return Checked(program, self.tree.source, inits, consts, self.functions, self.tree)

    # --- equations ---

    def equation(self, line: Line) -> Term:
        """The assignment that a line makes, as a term that ties two sizes."""
        rhs = self.terms.expand(line.rhs)
        named = self.scope.names[line.name]
        if line.lag is None:
            if rhs.level == SERIES:
                raise self.timed_once(line)
            named.level = rhs.level
            named.shape.flat = rhs.level == STATIC
        named.ready = True
        left = Expr("name", line.span, line.span, name=line.name, lag=line.lag)
        return self.tie("assign", rhs, named.name, left, line.rhs)

    def tie(self, op: str, value: Term, name: str, at: Expr, part: Expr) -> Term:
        term = Term(op, (value,), (name,))
        term.shape, term.level = self.scope.names[name].shape, value.level
        term.expr, term.parts, term.use, term.literal = at, (part,), None, False
        term.index = -1
        return term

    def timed_once(self, line: Line) -> CellError:
        series = next(
            (e for e in postorder(line.rhs) if e.op == "name" and e.lag is not None), line.rhs
        )
        what = f"`{line.name}` has no `[t]`, but changes over time"
        help = f"write `{line.name}[t] = ...`"
        return CellError(what, line.span, help, notes=((series.span, "this is read at each step"),))

    # --- declarations ---

    def starts(self) -> dict[str, Term]:
        """What declared states are before the first step."""
        found: dict[str, Term] = {}
        for name, d in self.scope.states.items():
            if d.value is None:
                continue
            value = self.terms.expand(d.value)
            if number(value) is None and (value.op != "ref" or value.level != CONSTANT):
                help = "write `state h = h0` with a parameter, or a number"
                what = f"the start of `{name}` is neither a number nor a parameter"
                raise CellError(what, d.value.span, help=help)
            if value.op == "ref" and self.scope.names[value.attr[0]].line is not None:
                what = f"the start of `{name}` is assigned by an equation"
                help = "a state starts from a number or parameter"
                raise CellError(what, d.value.span, help=help)
            found[name] = self.tie("start", value, name, d.value, d.value)
        return found

    def inits(self, dims: Mapping[str, Dims]) -> dict[str, Expr]:
        found: dict[str, Expr] = {}
        params = [n.name for n in self.scope.values(Role.PARAM)]
        for d in self.tree.declared("init"):
            assert d.value is not None
            if d.name not in params:
                help = did_you_mean(d.name, params) or "`init` starts a parameter"
                if d.name in self.scope.state_names():
                    help = f"what a state is before the first step: `state {d.name} = ...`"
                raise CellError(f"unknown name `{d.name}`: no such parameter", d.span, help=help)
            if d.name in found:
                raise CellError(f"`{d.name}` has an initial value twice", d.span)
            known = {name: dims[name] for name in found}
            check_initial(d.name, d.value, known, dims[d.name], params)
            found[d.name] = d.value
        return found

    def refuse_known(self, dims: Mapping[str, Dims]) -> None:
        """`I` and `π` without a declaration are no parameters: trained, they would be wrong."""
        for n in self.scope.values(Role.PARAM):
            meant = {"π": "`const π = 3.141592653589793`", "pi": "`const pi = 3.141592653589793`"}
            if n.name == "I" and len(dims["I"]) == 2:
                meant["I"] = f"`eye({show_dim(dims['I'][0])})`"
            if n.declaration is None and n.name in FUNCTIONS:
                what = f"`{n.name}` is a function, and stands here without its argument"
                raise CellError(what, n.span, help=f"write `{n.name}(...)`")
            if n.declaration is None and n.name in meant:
                help = f"write {meant[n.name]}; a parameter of this name is declared"
                raise CellError(f"`{n.name}` would be trained", n.span, help=help)

    def outputs(self) -> tuple[str, ...]:
        """The declared outputs, or the last equation of the cell block."""
        names = self.scope.names
        found: list[str] = []
        for d in self.tree.declared("output"):
            n = names.get(d.name)
            if n is None or n.line is None or not n.indexed:
                series = [m.name for m in names.values() if m.line is not None and m.indexed]
                help = did_you_mean(d.name, series) or f"assign it: `{d.name}[t] = ...`"
                raise CellError(f"the output `{d.name}` is never assigned", d.span, help=help)
            if d.name in found:
                raise CellError(f"`{d.name}` is an output twice", d.span)
            found.append(d.name)
        cell = [line.name for line in self.tree.lines if line.block == "cell" and line.lag == 0]
        if not found and not cell:
            raise CellError("the cell block has no equation over time", self.tree.lines[0].span)
        return tuple(found) or (cell[-1],)

    # --- sizes and nodes ---

    def dims(self, report: Report) -> dict[str, Dims]:
        """The final dims of every name."""
        sizes = report.names()
        found: dict[str, Dims] = {}
        for n in sorted(self.scope.names.values(), key=lambda n: n.line is not None):
            if n.shape.dims is None:
                raise report.undetermined(n)
            dims = report.final(n.shape.dims, sizes)
            parts = [(s, k) for dim in dims for s, k in dim_terms(dim).items()]
            if any(is_unknown(s) for s, _ in parts):
                raise report.undetermined(n)
            if any(k < 0 for _, k in parts):
                raise report.negative(n, dims)
            found[n.name] = dims
        found.update({n.name: found[name] for name, n in self.scope.copies.items()})
        return found

    def program(
        self,
        builder: Builder,
        assigns: list[Term],
        starts: dict[str, Term],
        outputs: tuple[str, ...],
    ) -> Program:
        scope = self.scope
        equations: list[Equation] = []
        copies = [
            Equation(n.name, Kind.STEP, ref(name, 0, builder.dims[name]), f"{name}[t], kept a step")
            for name, n in scope.copies.items()
        ]
        for line, assign in zip(self.tree.lines, assigns, strict=True):
            if line.block != "cell" and copies:
                equations, copies = [*equations, *copies], []
            once = line.lag is None and scope.names[line.name].level == CONSTANT
            value = assign.args[0]
            rhs = builder.once(value) if once else builder.step(value, line.origin)
            equations, builder.hoisted = [*equations, *builder.hoisted], []
            equation = Equation(line.name, Kind.ONCE if once else Kind.STEP, rhs, line.origin)
            builder.assigned[line.name] = rhs
            equations.append(equation)
        names = scope.state_names()
        order = [n for n in outputs if n in names] + [n for n in names if n not in outputs]
        states = [State(n, self.start(builder, starts.get(n))) for n in order]
        states += [State(n.name) for n in scope.copies.values()]
        values = tuple(
            Value(n.name, builder.dims[n.name], role, n.level == STATIC)
            for role in (Role.GIVEN, Role.PARAM, Role.CONST)
            for n in scope.values(role)
        )
        loss = self.loss(builder.dims)
        return Program(1, values, (*equations, *copies), tuple(states), outputs, loss=loss)

    def start(self, builder: Builder, term: Term | None) -> Node | None:
        if term is None or number(term.args[0]) == 0:
            return None
        return builder.once(term.args[0])

    def loss(self, dims: Mapping[str, Dims]) -> str | None:
        """The last equation of the loss block: it must be a number each step."""
        lines = [line for line in self.tree.lines if line.block == "loss"]
        if not lines:
            return None
        last = lines[-1]
        if last.lag is None:
            help = f"a loss is a number each step: `{last.name}[t] = ...`"
            raise CellError(f"the loss `{last.name}` has no `[t]`", last.span, help=help)
        if dims[last.name]:
            what = f"the loss `{said(last.span)}` is a vector, and a loss is a number"
            raise CellError(what, last.span, help="write `sum(...)` or `mean(...)` around it")
        return last.name


def _literal(e: Expr, what: str) -> float:
    """The number that is written there."""
    sign, value = 1.0, e
    if value.op == "neg":
        sign, value = -1.0, value.args[0]
    if value.op != "number":
        help = "write a number, such as `1` or `-1e30`"
        raise CellError(f"this {what} is not a number", e.span, help=help)
    return sign * value.value


def _functions(
    tree: Tree, bound: Mapping[str, str]
) -> tuple[dict[str, Definition], dict[str, str]]:
    """The definitions, with those that bind unspecified functions; and those still unspecified."""
    kinds: dict[str, str] = {}
    definitions = {d.name: d for d in tree.definitions}
    declared = [(d.name, d.span) for d in tree.declared("function")]
    for name, span in (*((d.name, d.span) for d in tree.definitions), *declared):
        if name in (*FUNCTIONS, *MACHINE_FUNCTIONS, "σ"):
            help = "give it a name of its own"
            raise CellError(f"`{name}` is a function of the language already", span, help=help)
    for d in tree.declared("function"):
        if d.name in definitions or d.name in kinds:
            raise CellError(f"the function `{d.name}` is declared twice", d.span)
        kinds[d.name] = d.kind or "elementwise"
    for name, text in bound.items():
        if name not in kinds:
            help = did_you_mean(name, kinds) or f"declare it in the cell: `function {name}`"
            raise CellError(f"there is no unspecified function `{name}`", help=help)
        definitions[name] = binding(name, text, kinds.pop(name))
    return definitions, kinds


def binding(name: str, text: str, kind: str) -> Definition:
    """The definition that a bound function is: written out, or that of a function's name.

    Raises CellError for a text that is neither."""
    if "=" in text:
        return replace(parse_definition(text), name=name)
    word = text.strip()
    if word not in (*FUNCTIONS, "σ"):
        help = did_you_mean(word, FUNCTIONS) or "or write it out: `f(v) = v * sigmoid(v)`"
        raise CellError(f"unknown function `{word}`, to stand for `{name}`", help=help)
    parameters = ("v", "w") if kind == "scalar" and word in ("dot", "cross_entropy") else ("v",)
    source = f"{name}({', '.join(parameters)}) = {word}({', '.join(parameters)})"
    span = Span(source, 1, 0, len(name))
    return replace(parse_definition(source), span=span)
