"""The facade that people import: a cell from its text, what follows from it, and its proof."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import chain, count, repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakValueDictionary

import numpy as np

from bptt import cells
from bptt.calculus.derive import derive as derive_program
from bptt.calculus.rewrites import lower, with_ends
from bptt.cells.files import read
from bptt.errors import CellError, UserError
from bptt.ir.dims import show_dims
from bptt.ir.program import MACHINE, Program, Role, Shown, walk
from bptt.language.check import Checked
from bptt.language.check import check as check_text
from bptt.language.head import About, about
from bptt.language.near import did_you_mean

if TYPE_CHECKING:  # at run time only where it is needed: `import bptt` is quick
    from pathlib import Path

    from bptt.calculus.readable import By
    from bptt.calculus.summary import Needs, Plans
    from bptt.language.tree import Expr
    from bptt.printers.people.worked import Worked
    from bptt.proof.judge import Judgement
    from bptt.proof.report import Report

Format = Literal["text", "latex", "md"]
_SMOOTH = ("tanh", "sigmoid", "softplus", "sin", "logsigmoid")  # what stands in for open functions


class Cell:
    """A recurrent cell, from the text of its equations.

    `text` is what its author wrote. `functions` binds functions that the text leaves open, each
    to one of the language or to a definition: `{"f_c": "tanh", "G": "f(a, b) = dot(a, b)"}`.
    `consts` gives values to its constants, `{"A": an array}`. Cells of the same text and bindings
    are equal, share one Program, and pickle as that text. Raises CellError for a text that is no
    cell, UserError for a constant that it does not have.

    >>> print(Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])").derivation())
    """

    def __init__(
        self,
        text: str,
        *,
        functions: Mapping[str, str] | None = None,
        consts: Mapping[str, Any] | None = None,
        name: str = "cell",
    ) -> None:
        if text in cells.names():
            help = f"`bptt.load({text!r})` gives the cell of that name"
            raise UserError(f"a Cell is made of equations, and {text!r} is a name", help=help)
        self.name = name
        self.text = text
        self.functions: Mapping[str, str] = MappingProxyType(dict(functions or {}))
        self._checked = _checked(text, tuple(sorted(self.functions.items())))
        given = {name: _constant(self.program, name, a) for name, a in (consts or {}).items()}
        self.consts: Mapping[str, Any] = MappingProxyType({**self._checked.consts, **given})
        self._given = tuple(sorted(given.items()))

    @classmethod
    def load(cls, cell: str | Path) -> Cell:
        """The cell that comes with bptt under this name, or that of a file. Raises UserError."""
        text, name = read(cell)
        return cls(text, name=name)

    @property
    def program(self) -> Program:
        """The forward pass, as written."""
        return self._checked.program

    @property
    def lowered(self) -> Program:
        """The forward pass with a name for all that is computed once: `derive` takes this one."""
        return _lowered(self.program)

    @property
    def backward(self) -> Program:
        """The backward pass: the gradient of the loss, if there is one, else whatever gradient
        the outputs and states get from outside."""
        return _backward(self.program)

    @property
    def unspecified(self) -> Mapping[str, str]:
        """The functions that the text leaves open and nothing is bound to, each with its kind."""
        return self._checked.functions

    @property
    def inits(self) -> Mapping[str, Expr]:
        """What a trainer starts parameters with, where the text says so: expressions, in the order
        of their lines (`bptt.nn.initial.start` draws them)."""
        return self._checked.inits

    @property
    def hand_written(self) -> bool:
        """Whether the text holds a backward pass that its author wrote down."""
        return self._checked.tree.hand is not None

    @property
    def about(self) -> About:
        """What the comments at the head of the text say: title, source, family."""
        return about(self.text)

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states, outputs first, without copies of inputs read one step late."""
        return tuple(s.name for s in self.program.states if MACHINE not in s.name)

    @property
    def needs(self) -> Needs:
        """What a layer of this cell must be given beside one input."""
        from bptt.calculus.summary import needs

        return needs(self.lowered, self.consts)

    def plans(self) -> Plans:
        """What runs before, in and after the loop over time, forward and backward."""
        from bptt.calculus.summary import plans

        return plans(self.lowered)

    def bind(self, functions: Mapping[str, str]) -> Cell:
        """This cell with further functions bound."""
        known = {**self.functions, **functions}
        return Cell(self.text, functions=known, consts=dict(self._given), name=self.name)

    def stand_ins(self, *, different: bool = False) -> dict[str, str]:
        """For each unspecified function, a smooth one to run the cell with; `different` ones show
        where a derivation has one in another's place."""
        more = (f"f(v) = tanh({k}*v)" for k in count(2))
        smooth = chain(_SMOOTH, more) if different else repeat(_SMOOTH[0])
        usual = {
            name: self._stand_in(name, kind, smooth) for name, kind in self.unspecified.items()
        }
        try:
            self.bind(usual)
        except CellError:  # the arguments of a loss are not of one size
            scalar = [n for n, kind in self.unspecified.items() if kind == "scalar"]
            return usual | {n: self._stand_in(n, "scalar", smooth, apart=True) for n in scalar}
        return usual

    def _stand_in(self, name: str, kind: str, smooth: Iterator[str], *, apart: bool = False) -> str:
        if kind != "scalar":
            return next(smooth) if kind == "elementwise" else "softmax"
        nodes = walk(*(e.rhs for e in self.program.equations))
        call = next(n for n in nodes if n.op == "call_scalar" and n.attr[0] == name)
        names = [f"a{k}" for k in range(1, len(call.args) + 1)]
        sums = [
            f"sum(tanh({a}))" if arg.dims else f"tanh({a})"
            for a, arg in zip(names, call.args, strict=True)
        ]
        value = f"({' + '.join(sums)})**2/2"
        if len(names) == 2 and not apart:
            value = "sum((a1 - a2)**2)/2" if call.args[0].dims else "(a1 - a2)**2/2"
        return f"f({', '.join(names)}) = {value}"

    def check(
        self, order: int = 1, *, sizes: Mapping[str, int] | None = None, **options: Any
    ) -> Report:
        """Whether what is derived from this cell is right: every gradient against the truth.

        `sizes` fixes some; `options` are others of `bptt.proof.gradcheck.check`: `seed`, `length`.
        Raises UserError where a function is unspecified: bind `stand_ins(different=True)`.
        """
        from bptt.proof.gradcheck import check as check_program
        from bptt.proof.sampling import sizes_for

        known = sizes_for(self.program)
        for name in sizes or {}:
            if name not in known:
                raise UserError(f"there is no size `{name}`", help=f"there are {', '.join(known)}")
        p = with_ends(self.program)
        return check_program(p, order=order, sizes=sizes, values=self.consts, **options)

    def judge(self, *, explain: bool = True, seed: int = 0) -> Judgement:
        """The backward pass that the text's author wrote down, judged line by line. Raises
        CellError where it cannot be read, UserError where there is none."""
        from bptt.proof.judge import judge

        known = {**self.functions, **self.stand_ins(different=True)}
        return judge(self._checked, known, self.consts, explain=explain, seed=seed)

    def trace(
        self,
        values: Mapping[str, Any] | str | Path | None = None,
        *,
        seed: int | None = None,
        **options: Any,
    ) -> Worked:
        """A worked example: every line with its numbers, forward, backward, one step of descent.

        `values`: a file of values, or its sections as a dict (`bptt.proof.given`). What it leaves
        out is drawn from `seed`; without both, a cell that was published with numbers has those.
        Functions left open are stood in for. `options`: `length` (steps), `sizes`, `by` (as for
        `derivation`), `rate` (of learning). Raises UserError for values that do not fit.
        """
        from bptt.proof import given, trace

        own = seed is None and self.text == _library_text(self.name)
        found = given.found(values, cells.example(self.name) if own else None)
        functions = self.stand_ins()
        about = {"name": self.name, "title": self.about.title, "functions": functions}
        options |= {"consts": self.consts, "seed": 0 if seed is None else seed}
        return trace.trace(self.bind(functions).program, values=found, **about, **options)

    def derivation(self, by: By = "preactivations", format: Format = "text") -> str:
        """The backward pass as a careful person would write it down.

        `by`: gradients by pre-activations (`dz_i`) or by gates (`d_i`). `format`: `text`,
        `latex`, or `md` for a page of Markdown with all that there is to say about the cell.
        """
        from bptt.calculus.readable import By
        from bptt.printers.people import latex, markdown, plain
        from bptt.printers.people.reading import reading

        for name, given, known in (("by", by, get_args(By)), ("format", format, get_args(Format))):
            if given not in known:
                raise UserError(f"{name} cannot be {given!r}", help=f"it is {' or '.join(known)}")
        match format:
            case "text":
                found = reading(self.program, by)
                legend = textwrap.wrap(plain.legend(found), 98)
                return "".join(f"# {row}\n" for row in legend) + "\n" + plain.text(found)
            case "latex":
                return latex.text(reading(self.program, by))
            case "md":
                file = self.text != _library_text(self.name)
                name = f"{self.name}.cell" if file else self.name
                known = replace(self._checked, consts=self.consts)
                return markdown.page(known, name, by, self.stand_ins())

    def __repr__(self) -> str:
        p = self.program
        inputs = ", ".join(v.name for v in p.named(Role.GIVEN))
        states = ", ".join(s.name for s in p.states)
        parameters = len(p.named(Role.PARAM))
        return (
            f"<Cell {self.name}: inputs {inputs or 'none'}; states {states or 'none'};"
            f" outputs {', '.join(p.outputs)}; {parameters} parameters>"
        )

    def _repr_html_(self) -> str:
        from bptt.printers.people.notebook import cell_html

        return cell_html(replace(self._checked, consts=self.consts), self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cell):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.text, tuple(sorted(self.functions.items())), self._given

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.text, dict(self.functions), dict(self._given), self.name)


def _html(thing: Any) -> str:
    """What a notebook shows for a Program or a worked example."""
    from bptt.printers.people import notebook

    return notebook.html(thing)


Shown.renderer = _html


def _library_text(name: str) -> str | None:
    """The text of the cell that comes with bptt under this name."""
    return cells.read(name) if name in cells.names() else None


def _restored(text: str, functions: dict[str, str], consts: dict[str, Any], name: str) -> Cell:
    return Cell(text, functions=functions, consts=consts, name=name)


def _constant(p: Program, name: str, value: Any) -> Any:
    """A constant's value as numbers that nobody can change: a float, or tuples of them."""
    known = {v.name: v for v in p.named(Role.CONST)}
    if name not in known:
        help = did_you_mean(name, known) or f"its constants are: {', '.join(known) or 'none'}"
        raise UserError(f"the cell has no constant `{name}`", help=help)
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the constant `{name}` is no array of numbers: {error}") from None
    if np.isnan(array).any():
        raise UserError(f"the constant `{name}` is not a number everywhere")
    rank = len(known[name].dims)
    if array.ndim != rank and (array.ndim or rank == 2):
        shape = show_dims(known[name].dims)
        raise UserError(f"the constant `{name}` is {shape}, and {list(array.shape)} was given")
    return _frozen(array)


def _frozen(array: np.ndarray) -> Any:
    return tuple(map(_frozen, array)) if array.ndim else float(array)


# Equal cells have one Program, as long as somebody holds one of them: what is compiled for it, or
# cached by it, is shared.
_held: WeakValueDictionary[tuple[str, tuple[tuple[str, str], ...]], Checked] = WeakValueDictionary()


@lru_cache(maxsize=512)
def _checked(text: str, functions: tuple[tuple[str, str], ...]) -> Checked:
    found = _held.get((text, functions))
    if found is None:
        found = _held[text, functions] = check_text(text, functions=dict(functions))
    return found


@lru_cache(maxsize=512)
def _lowered(program: Program) -> Program:
    return lower(program)


@lru_cache(maxsize=512)
def _backward(program: Program) -> Program:
    from bptt.printers.people.reading import derivation

    return derivation(program).program


# --- verbs --------------------------------------------------------------------------------------


def load(cell: str | Path | Cell) -> Cell:
    """The cell that comes with bptt under this name, or that of a file. Raises UserError."""
    return cell if isinstance(cell, Cell) else Cell.load(cell)


def derive(cell: Cell | Program | str | Path) -> Program:
    """The backward pass, as a Program that runs the other way. Its own backward pass is the
    second derivative: `derive(derive("lstm"))`."""
    if isinstance(cell, Program):
        return derive_program(lower(cell))
    return load(cell).backward


def check(cell: Cell | str | Path, order: int = 1, **options: Any) -> Report:
    """Whether what is derived from a cell is right: every gradient against the truth."""
    return load(cell).check(order, **options)


def trace(cell: Cell | str | Path, values: Any = None, **options: Any) -> Worked:
    """A worked example of a cell: every line with numbers. `values` and `options` as `Cell.trace`
    has them."""
    return load(cell).trace(values, **options)
