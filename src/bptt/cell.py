"""The facade that people import: a cell from its text, what follows from it, and its proof."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bptt import cells
from bptt.calculus.derive import derive as derive_program
from bptt.calculus.rewrites import lower, with_ends
from bptt.errors import CellError, UserError
from bptt.ir.dims import show_dims
from bptt.ir.program import MACHINE, Program, Role, walk
from bptt.language.check import Checked
from bptt.language.check import check as check_text
from bptt.language.head import About, about
from bptt.language.near import did_you_mean
from bptt.language.tokens import Limits

if TYPE_CHECKING:  # at run time only where it is needed: `import bptt` is quick
    from pathlib import Path

    from bptt.calculus.readable import By
    from bptt.calculus.summary import Needs, Plans
    from bptt.language.tree import Expr
    from bptt.proof.report import Report

Format = Literal["text", "latex", "md"]


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

    def stand_ins(self) -> dict[str, str]:
        """For each unspecified function, a smooth one to check the cell with."""
        usual = {name: self._stand_in(name, kind) for name, kind in self.unspecified.items()}
        try:
            self.bind(usual)
        except CellError:  # the arguments of a loss are not of one size
            return {n: self._stand_in(n, k, apart=True) for n, k in self.unspecified.items()}
        return usual

    def _stand_in(self, name: str, kind: str, *, apart: bool = False) -> str:
        if kind != "scalar":
            return "tanh" if kind == "elementwise" else "softmax"
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
        Raises UserError where a function is unspecified: `cell.bind(cell.stand_ins())`.
        """
        from bptt.proof.gradcheck import check as check_program
        from bptt.proof.sampling import sizes_for

        known = sizes_for(self.program)
        for name in sizes or {}:
            if name not in known:
                raise UserError(f"there is no size `{name}`", help=f"there are {', '.join(known)}")
        p = with_ends(self.program)
        return check_program(p, order=order, sizes=sizes, values=self.consts, **options)

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


# Equal cells have one Program: what is compiled for it, or cached by it, is shared.


@lru_cache(maxsize=512)
def _checked(text: str, functions: tuple[tuple[str, str], ...]) -> Checked:
    return check_text(text, functions=dict(functions))


@lru_cache(maxsize=512)
def _lowered(program: Program) -> Program:
    return lower(program)


@lru_cache(maxsize=512)
def _backward(program: Program) -> Program:
    from bptt.printers.people.reading import derivation

    return derivation(program).program


# --- finding cells ------------------------------------------------------------------------------


def read(cell: str | Path) -> tuple[str, str]:
    """The text of a cell, and its name: one that comes with bptt, or a file's. Raises UserError."""
    from pathlib import Path

    if isinstance(cell, str) and cell in cells.names():
        return cells.read(cell), cell
    path = Path(cell)
    if isinstance(cell, str) and ("=" in cell or "\n" in cell):
        raise UserError("this is no name or file, but a cell's text", help="use bptt.Cell(text)")
    if (
        isinstance(cell, str)
        and path.suffix != ".cell"
        and len(path.parts) < 2
        and not _exists(path)
    ):
        help = (
            did_you_mean(cell, cells.names()) or "`bptt cells` lists them; a file ends in `.cell`"
        )
        raise UserError(f"there is no cell called `{cell}`", help=help)
    return _read_file(path), path.stem


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than any file's
        return False


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(Limits().size + 1)
    except OSError as error:
        beside = [p.name for p in path.parent.glob("*.cell")] if path.parent.is_dir() else []
        near = did_you_mean(path.name, beside) if isinstance(error, FileNotFoundError) else None
        raise UserError(f"cannot read {path}: {error.strerror}", help=near) from None
    return decoded(found, str(path))


def decoded(found: bytes, name: str) -> str:
    """The text of a cell from its bytes. Raises UserError."""
    if len(found) > Limits().size:
        help = "a cell is a handful of equations"
        raise UserError(f"{name} is larger than {Limits().size // 1024} KiB", help=help)
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{name} is not text in UTF-8") from None


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
