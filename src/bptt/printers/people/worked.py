"""A worked example: a cell and its backward pass line by line, each with its numbers.

`Worked` is the data, which `bptt.proof.trace` computes. What languages need to print it is here
too: lines of a Reading at one step of time, in symbols (`AtStep`) and in numbers (`Numbers`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Self

from bptt.calculus.readable import By
from bptt.ir.dims import size_of
from bptt.ir.program import Kind, Node, Shown
from bptt.printers.expr import Binds, Piece
from bptt.printers.people.layout import Spelled, number
from bptt.printers.people.reading import Line, Name, Part, Reading
from bptt.printers.people.reasons import Reason, plain_reason

Array = Any  # of float64: printers do without NumPy

_TERMS = 4  # a sum over more steps than this is not written out
_ROLES = {
    "inputs": "inputs",
    "states": "states before the first step",
    "parameters": "parameters",
    "constants": "constants",
    "gradients": "gradients from outside",
}
RATE_DIGITS = 15  # decimals of a learning rate: it is shown as it was given
# Beyond these a number is written with a power of ten, a small one if it has too many decimals.
_SMALL, _LARGE = 1e-4, 1e6


@dataclass(frozen=True, eq=False)
class Item:
    """One line, worked out at step `t` (None where it has no time, -1 before the first step).

    `value` is the result, of the line's own shape. Of a line of the backward pass `of` is the
    author's name for the value whose gradient it is, and `readers` are the author's lines that
    read that value, each with how many steps later; both are empty for parts of lines and in the
    forward pass. `why` is the same in words and names, `reason` in words alone: `read by h[t], and
    by c[t+1]`. `split`: what of a gradient comes from its own step, and what from the next, where
    the line has terms of both kinds.
    """

    line: Line
    t: int | None
    value: Array
    of: str = ""
    readers: tuple[tuple[str, int], ...] = ()
    why: Reason = ()
    split: tuple[Array, Array] | None = None

    @property
    def reason(self) -> str:
        """`why` as plain text."""
        return plain_reason(self.why)


@dataclass(frozen=True, eq=False)
class Update:
    """A parameter before and after one step of gradient descent. `line`: the name of the line of
    the backward pass with its gradient, None where it gets none and the gradient is zero."""

    name: str
    before: Array
    gradient: Array
    after: Array
    line: str | None


@dataclass(frozen=True, eq=False)
class Worked(Shown):
    """A cell with numbers, forward and backward, over `length` steps.

    `steps` and `back` are all lines of the two passes in the order they are computed. `values`
    has every name that a line reads or assigns, as `Line.name` and references have it: series are
    [T, *dims], all else [*dims]; `starts` has what lies one step before the first. `roles` says
    what of this is given: `inputs`, `states` (before the first step), `parameters`,
    `constants`, and `gradients` (those that come from outside the cell), each a list of names in
    `values` or, for states, `starts`. What is `drawn` comes from `seed`, which is None where
    nothing does. `functions` were left open and are what is said here. `rate` is the learning rate
    of `updates`. `loss`: the name of the line of the loss, and `total` its sum over time.
    Its `str` is the example as plain text: what makes examples says in `writer` how.
    """

    writer: ClassVar[Callable[[Worked], str] | None] = None

    name: str
    title: str
    by: By
    forward: Reading
    backward: Reading
    steps: tuple[Item, ...]
    back: tuple[Item, ...]
    updates: tuple[Update, ...]
    values: Mapping[str, Array]
    starts: Mapping[str, Array]
    roles: Mapping[str, tuple[str, ...]]
    drawn: frozenset[str]
    seed: int | None
    functions: Mapping[str, str]
    sizes: Mapping[str, int]
    length: int
    rate: float
    loss: str | None
    total: float | None

    def spelled(self, name: str) -> Name:
        """How people write a name of `values`."""
        found = self.backward.names.get(name) or self.forward.names.get(name)
        return found or Name(name, name)

    def is_series(self, name: str) -> bool:
        """Whether `values[name]` has an entry a step."""
        series = name in self.forward.series or name in self.backward.series
        return series and name not in self.backward.first

    def at(self, name: str, t: int | None) -> Array:
        """A value at a step. Before the first it is the state given there; beyond the last one
        it is zero, as gradients are there (and there is no other value: see `is_beyond`)."""
        value = self.values[name]
        if not self.is_series(name):
            return value
        assert t is not None, f"{name} has a time"
        if 0 <= t < self.length:
            return value[t]
        return self.starts[name] if t < 0 and name in self.starts else 0 * value[0]

    def is_beyond(self, name: str, t: int | None) -> bool:
        """Whether this is a value of the cell beyond the last step: there is none, and wherever
        a line reads it, it is multiplied by a gradient that is zero."""
        later = t is not None and t >= self.length and self.is_series(name)
        return later and not self.spelled(name).what

    def __repr__(self) -> str:
        return f"<Worked example of {self.name}: {extent(self)}>"

    def __str__(self) -> str:
        return repr(self) if Worked.writer is None else Worked.writer(self)

    def title_line(self) -> str:
        """What this is an example of, in one line."""
        return f"{self.name}: {self.title}" if self.title else self.name


# --- its parts, in order --------------------------------------------------------------------------


def facts(worked: Worked) -> list[str]:
    """What an example is an example of, beside its cell, in sentences."""
    said = [f"{extent(worked)}."]
    if worked.drawn:
        given = {name for names in worked.roles.values() for name in names} - worked.drawn
        names = (worked.spelled(name).text for name in worked.values if name in worked.drawn)
        what = ", ".join(names) if given - set(worked.starts) else "all values"
        said.append(f"Drawn from seed {worked.seed}: {what}.")
    if worked.functions:
        bound = ", ".join(f"{name} = {what}" for name, what in worked.functions.items())
        said.append(f"Functions that the cell leaves open: here {bound}.")
    return said


def extent(worked: Worked) -> str:
    """How long and how wide an example is: `2 steps, X = 2, H = 1`."""
    steps = "1 step" if worked.length == 1 else f"{worked.length} steps"
    return ", ".join([steps, *(f"{name} = {n}" for name, n in worked.sizes.items())])


def givens(worked: Worked) -> Iterator[tuple[str, list[tuple[Name, str, Array]]]]:
    """What is given: for each role its names, each with a time and the value there."""
    for role, names in worked.roles.items():
        found: list[tuple[Name, str, Array]] = []
        for name in names:
            spelled = worked.spelled(name)
            if role == "states":
                found.append((spelled, "-1", worked.starts[name]))
            elif worked.is_series(name):
                values = worked.values[name]
                found += [(spelled, str(t), values[t]) for t in range(worked.length)]
            else:
                found.append((spelled, "", worked.values[name]))
        if found:
            yield _ROLES[role], found


def sections(items: tuple[Item, ...]) -> Iterator[tuple[str, list[Item]]]:
    """The lines of a pass in the order they are computed, each lot with its heading."""
    for (part, t), found in groupby(items, key=lambda item: (item.line.part, item.t)):
        lot = list(found)
        yield _heading(part, t, lot[0].line.dir), lot


def _heading(part: Part, t: int | None, direction: int) -> str:
    match part:
        case Part.STEPS:
            way = "forward" if direction > 0 else "backward"
            return "computed once" if t is None else f"{way}, t = {t}"
        case Part.SUMS:
            return "gradients by what has no time: sums over it"
        case Part.VALUES if t is not None:
            return f"{part.value}, t = {t}"
        case _:
            return part.value


# --- lines at one step ----------------------------------------------------------------------------


class AtStep(Spelled):
    """A mixin: the lines of a Reading at step `t`, `h[1]` for `h[t]`. Before a language it goes
    first: `class Here(AtStep, Plain)`. Where `t` is None times stay as they are."""

    t: int | None = None

    def time(self, ahead: int) -> str:
        return super().time(ahead) if self.t is None or self.first else str(self.t + ahead)

    def left_at(self, item: Item) -> str:
        """The left side of a worked line."""
        name = self.reading.names[item.line.name]
        return self.symbol(name, "" if item.t is None else str(item.t))

    def right_at(self, item: Item) -> list[str]:
        """The right side of a worked line, in pieces between which a row may end."""
        self.t = item.t
        return self.right(item.line)


class Numbers(AtStep):
    """A mixin: the same with numbers in the place of names. A language says in `array` how a
    vector or a matrix looks, and in `numeral` a number; it is made by `of`."""

    worked: Worked
    digits: int
    times = "mul"  # how two numbers are multiplied

    def given(self, worked: Worked, digits: int) -> Self:
        """This printer, for the numbers of `worked` with so many decimals."""
        self.worked, self.digits = worked, digits
        return self

    def numeral(self, x: float) -> Piece:
        """A number, as loose as a sum where it is negative."""
        text = shown(x, self.digits)
        return Piece(text, Binds.SUM if text.startswith("-") else Binds.ATOM, "number")

    def array(self, value: Array) -> str:
        """A vector or a matrix of more than one number."""
        raise NotImplementedError

    def value(self, value: Array) -> Piece:
        """A value: one of one number is that number, whatever its shape."""
        if math.prod(value.shape) == 1:
            return self.numeral(value.item())
        return Piece(self.array(value), Binds.ATOM, "array")

    def right(self, line: Line) -> list[str]:
        if line.kind is not Kind.SUM:
            return super().right(line)
        self.dir, self.first = line.dir, False
        first, *rest = self.terms(line.rhs)
        return [first.text, *(f"{self.signs['add'][0]}{self.term(piece)}" for piece in rest)]

    def term(self, piece: Piece) -> str:
        return self.bracket(piece, Binds.PRODUCT)

    def terms(self, rhs: Node) -> list[Piece]:
        """The terms of a sum over all steps; of a long one the first and the last."""
        t, times = self.t, list(range(self.worked.length))
        found: list[Piece] = []
        for k in times if len(times) <= _TERMS else (times[0], times[1], times[-1]):
            self.t = k
            self.pieces.clear()
            self.show(rhs)
            found.append(self.pieces[rhs])
        self.t = t
        self.pieces.clear()
        return found if len(times) <= _TERMS else [*found[:2], Piece("..."), found[2]]

    def summed(self, rhs: Node) -> Piece:
        inner = type(self)(self.reading).given(self.worked, self.digits)
        inner.dir = self.dir
        first, *rest = inner.terms(rhs)
        sign = self.signs["add"][0]
        text = first.text + "".join(f"{sign}{self.term(piece)}" for piece in rest)
        return Piece(text, Binds.SUM, "add") if rest else first

    def print_ref(self, n: Node, pieces: list[Piece]) -> Piece:
        name, t = n.attr[0], self.when(n)
        if name in self.reading.sums or self.worked.is_beyond(name, t):
            return super().print_ref(n, pieces)
        return self.value(self.worked.at(name, t))

    def when(self, n: Node) -> int | None:
        """The step that a reference reads."""
        t = 0 if self.first else self.t
        return None if t is None else t - self.dir * n.attr[1]

    def sum(self, *values: Array) -> str:
        """A sum of values."""
        first, *rest = map(self.value, values)
        return first.text + "".join(f"{self.signs['add'][0]}{self.term(piece)}" for piece in rest)

    def print_T(self, n: Node, pieces: list[Piece]) -> Piece:  # noqa: N802
        inner = n.args[0]
        if inner.op == "ref" and inner.attr[0] not in self.reading.sums:
            return self.value(self.worked.at(inner.attr[0], self.when(inner)).T)
        return super().print_T(n, pieces)  # type: ignore[misc]

    def print_block(self, n: Node, pieces: list[Piece]) -> Piece:
        inner = n.args[0]
        if inner.op != "ref" or inner.attr[0] in self.reading.sums:
            return super().print_block(n, pieces)  # type: ignore[misc]
        spans = [[size_of(dim, self.worked.sizes) for dim in span] for span in n.attr]
        where = tuple(slice(start, start + size) for start, size in spans)
        return self.value(self.worked.at(inner.attr[0], self.when(inner))[where])

    def print_size(self, n: Node, pieces: list[Piece]) -> Piece:
        return Piece(str(size_of(n.attr[0], self.worked.sizes)))

    def binary(self, op: str, left: Piece, right: Piece) -> Piece:
        """A product with a matrix of one number is one with a number."""
        if op == "matmul" and left.op == "number":
            op = self.times
        return super().binary(op, left, right)


def shown(x: float, digits: int) -> str:
    """A number with so many decimals: as it is where it has no more, and where it is small with
    more of them, or a power of ten."""
    if not math.isfinite(x):
        return str(x)
    if x == 0:
        return "0"
    if abs(x) >= _LARGE:
        return _power(x, digits)
    if x == round(x, digits):
        return f"{x:.{digits}f}".rstrip("0").rstrip(".")
    decimals = max(digits, 1 - math.floor(math.log10(abs(x))))  # at least two that are not zero
    return _power(x, 1) if abs(x) < _SMALL and decimals > digits else f"{x:.{decimals}f}"


def _power(x: float, digits: int) -> str:
    """A number with a power of ten, without zeros that say nothing."""
    mantissa, _, exponent = f"{x:.{digits}e}".partition("e")
    exact = float(f"{x:.{digits}e}") == x
    return f"{number(float(mantissa)) if exact else mantissa}e{int(exponent)}"
