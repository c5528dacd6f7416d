"""A cell: its text, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bptt import cells
from bptt.calculus.derive import derive
from bptt.calculus.rewrites import lower
from bptt.errors import UserError
from bptt.ir.program import Program
from bptt.language.check import Checked, check


@lru_cache(maxsize=512)
def _checked(text: str, functions: tuple[tuple[str, str], ...]) -> Checked:
    """Equal texts give one Program."""
    return check(text, functions=dict(functions))


class Cell:
    """A recurrent cell, from the text of its equations.

    >>> rnn = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
    >>> rnn.program.outputs
    ('h',)

    `functions` binds functions that the text leaves open: {"f_c": "tanh"}, or a definition such
    as {"G": "g(y, l) = sum((y - l)**2)/2"}. Raises CellError where the text does not make sense.
    """

    def __init__(
        self, text: str, *, name: str = "cell", functions: Mapping[str, str] | None = None
    ) -> None:
        self.text = text
        self.name = name
        self.functions: Mapping[str, str] = MappingProxyType(dict(functions or {}))
        self._checked = _checked(text, tuple(sorted(self.functions.items())))

    @property
    def program(self) -> Program:
        """The forward pass as it is written, readout and loss included."""
        return self._checked.program

    @cached_property
    def lowered(self) -> Program:
        """The forward pass with a name for every matrix product and sum: what is differentiated."""
        return _lowered(self.program)

    @cached_property
    def backward(self) -> Program:
        """The backward pass: the adjoint sweep of `lowered`, which runs the other way."""
        return derive(self.lowered)

    @property
    def inits(self) -> Mapping[str, float]:
        """How a trainer starts parameters that the text has an `init` line for."""
        return self._checked.inits

    @property
    def consts(self) -> Mapping[str, float]:
        """The values of constants that the text gives."""
        return self._checked.consts

    @property
    def unspecified(self) -> Mapping[str, str]:
        """The functions that are still open, with their kind."""
        return self._checked.functions

    def bind(self, functions: Mapping[str, str]) -> Cell:
        """This cell with further functions specified."""
        return Cell(self.text, name=self.name, functions={**self.functions, **functions})

    def __repr__(self) -> str:
        return f"<bptt.Cell {self.name}: {', '.join(self.program.outputs)}>"

    def __reduce__(self) -> Any:
        return _remade, (self.text, self.name, dict(self.functions))


def _remade(text: str, name: str, functions: dict[str, str]) -> Cell:
    return Cell(text, name=name, functions=functions)


@lru_cache(maxsize=512)
def _lowered(p: Program) -> Program:
    return lower(p)


def load(cell: str | Path | Cell) -> Cell:
    """A cell by the name of one that comes with bptt, or by the path of a file.

    Raises UserError where there is neither, naming what is near.
    """
    if isinstance(cell, Cell):
        return cell
    if isinstance(cell, str) and cell in cells.names():
        return Cell(cells.read(cell), name=cell)
    path = Path(cell)
    if path.suffix or path.parent != Path() or path.exists():
        try:
            return Cell(path.read_text(encoding="utf-8"), name=path.stem)
        except FileNotFoundError:
            raise UserError(f"there is no file {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as text: {error}") from None
    return Cell(cells.read(str(cell)), name=str(cell))
