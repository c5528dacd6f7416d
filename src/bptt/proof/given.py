"""What a worked example starts from: values that a person gives, the sizes that follow, a draw
for the rest.

A file of values is TOML with the sections `[inputs]`, `[parameters]`, `[states]` (before the first
step), `[constants]` and `[gradients]` (from outside, for a cell without a loss), and `rate`, the
learning rate. Series are lists with an entry a step.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from bptt.errors import UserError
from bptt.ir.dims import Dim, Dims, shape_of, show_dim, show_dims, size_of, terms
from bptt.language.near import did_you_mean

Array = Any

SECTIONS = ("inputs", "parameters", "states", "constants", "gradients")
_SINGULAR = {
    "inputs": "input",
    "parameters": "parameter",
    "states": "state",
    "constants": "constant",
    "gradients": "gradient from outside",
}
_BYTES = 256 * 1024  # of a file of values
_SHOWN = 6  # names that an error lists
_LETTERS = 60  # of a value that an error shows
_DOTS = 8  # within a key: what tomllib takes for a longer one grows with the square of its length
_KEY = r"""(?:[\w-]+|"(?:[^"\\\n]|\\.){0,100}"|'[^'\n]*')"""
_DOTTED = re.compile(rf"(?<![\w-]){_KEY}(?:[ \t]*\.[ \t]*{_KEY}){{{_DOTS + 1}}}")


class Slot(NamedTuple):
    """A place for a value. `series`: whether it has an entry for each step; `fills`: whether one
    number stands for a vector of them."""

    dims: Dims
    series: bool = False
    fills: bool = False

    def takes(self, rank: int) -> bool:
        """Whether an array with so many axes may be put here."""
        return rank == len(self.dims) + self.series or (self.fills and rank == 0)


# What values a cell takes: for each section the slots by name.
Slots = Mapping[str, Mapping[str, Slot]]


@dataclass(frozen=True)
class Given:
    """The values that somebody gave, as arrays by section and name."""

    arrays: Mapping[str, Mapping[str, Array]]
    rate: float | None = None

    def each(self) -> Iterable[tuple[str, str, Array]]:
        """All values, each with its section and name."""
        return ((s, name, a) for s, found in self.arrays.items() for name, a in found.items())


# --- reading --------------------------------------------------------------------------------------


def found(values: Any, example: str | None) -> Mapping[str, Any]:
    """Values as somebody gave them, a file's if it is a path; else those of `example`, the text of
    such a file. Unchecked; nothing where there is nothing. Raises UserError."""
    if values is None:
        return parse_values(example, "the example") if example else {}
    if isinstance(values, Mapping):
        return cast("Mapping[str, Any]", values)
    if not isinstance(values, str | Path):
        help = "a dict, such as {'inputs': {'x': [[1, 2]]}}, or the name of a file"
        raise UserError(f"the values cannot be {_said(values)}", help=help)
    return read_values(values)


def read_values(path: str | Path) -> Mapping[str, Any]:
    """What a file of values says, unchecked. Raises UserError."""
    try:
        with Path(path).open("rb") as file:
            found = file.read(_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # a name that no file can have
        raise UserError(f"cannot read {path!r}: this is no name of a file") from None
    if len(found) > _BYTES:
        raise UserError(f"{path} is larger than {_BYTES // 1024} KiB")
    try:
        return parse_values(found.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8") from None


def parse_values(text: str, name: str) -> Mapping[str, Any]:
    """What the text of such a file says, unchecked; `name` is for errors. Raises UserError."""
    help = "sections like `[inputs]`, and lines like `x = [[1, 2], [0.5, 3]]`"
    if long := _DOTTED.search(text):
        line = text.count("\n", 0, long.start()) + 1
        what = f"{name}, line {line}: a key has more than {_DOTS} dots"
        raise UserError(what, help=help)
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        said = "too deep" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{name} is no TOML: {said}", help=help) from None


def with_constants(values: Mapping[str, Any], consts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values with those of a cell's constants that they do not give."""
    said = values.get("constants", {})
    if not consts or not isinstance(said, Mapping):
        return values
    return {**values, "constants": {**consts, **cast("Mapping[str, Any]", said)}}


def checked(values: Mapping[str, Any], slots: Slots) -> Given:
    """Values as arrays of the rank that their slots have. Raises UserError."""
    arrays: dict[str, dict[str, Array]] = {}
    rate = None
    for section, named in values.items():
        if section == "rate":
            rate = rate_of(named)
        elif section not in SECTIONS:
            raise _unknown_section(section, slots)
        elif not isinstance(named, Mapping):
            raise UserError(
                f"`{section}` is a section", help=f"write `[{section}]` above a line each"
            )
        else:
            each = cast("Mapping[str, Any]", named)
            arrays[section] = {
                name: _array(name, value, _slot(section, name, slots))
                for name, value in each.items()
            }
    return Given(arrays, rate)


def rate_of(value: Any) -> float:
    """A learning rate as somebody gave it. Raises UserError for what is none."""
    try:
        rate = float(value)
    except (TypeError, ValueError, OverflowError):
        rate = np.nan
    if isinstance(value, str | bool | np.bool_) or not np.isfinite(rate) or rate < 0:
        what = f"the learning rate cannot be {_said(value)}"
        raise UserError(what, help="a number, such as 0.1")
    return rate


def whole(value: Any, what: str, least: int, help: str) -> int:
    """A whole number as somebody gave it for `what`. Raises UserError for what is none, or less
    than `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UserError(f"{what} cannot be {_said(value)}", help=help)
    return int(value)


def whole_sizes(asked: Any) -> dict[str, int]:
    """Sizes as somebody asked for them. Raises UserError for what are none."""
    if not isinstance(asked, Mapping):
        help = "a name and a number each, such as {'H': 2}"
        raise UserError(f"the sizes cannot be {_said(asked)}", help=help)
    each = cast("Mapping[Any, Any]", asked)
    help = "a whole number, at least 1"
    return {str(name): whole(n, f"the size `{name}`", 1, help) for name, n in each.items()}


def _said(value: Any) -> str:
    """What somebody gave, in so many letters."""
    try:
        said = repr(value)
    except ValueError:  # a whole number with more digits than Python spells
        return "so large a number"
    return said if len(said) <= _LETTERS else f"{said[: _LETTERS - 3]}..."


def _unknown_section(section: str, slots: Slots) -> UserError:
    homes = [s for s in SECTIONS if section in slots[s]]
    if homes:
        return UserError(f"`{section}` stands in no section", help=f"put it under `[{homes[0]}]`")
    help = did_you_mean(str(section), (*SECTIONS, "rate"))
    there = f"there are {', '.join(SECTIONS)}, and rate"
    return UserError(f"there is no section `{section}`", help=help or there)


def _slot(section: str, name: str, slots: Slots) -> Slot:
    known = slots[section]
    if name in known:
        return known[name]
    word = _SINGULAR[section]
    homes = [s for s in SECTIONS if name in slots[s]]
    if homes:
        help = f"`{name}` belongs under `[{homes[0]}]`"
    else:
        there = [f"`{n}` is {_wanted(slot)}" for n, slot in list(known.items())[:_SHOWN]]
        more = ", ..." if len(known) > _SHOWN else ""
        help = did_you_mean(str(name), known) or (", ".join(there) + more if there else None)
    if not known:
        return _fail(f"the cell has no {section}, and `{name}` is given", help)
    return _fail(f"the cell has no {word} called `{name}`", help)


def _fail(what: str, help: str | None) -> Slot:
    raise UserError(what, help=help)


def _array(name: str, value: Any, slot: Slot) -> Array:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"`{name}` has rows of different lengths", help=_is(name, slot)) from None
    if array.size and array.dtype.kind not in "iuf" and not all(map(_is_number, array.flat)):
        raise UserError(f"`{name}` is not made of numbers", help=_is(name, slot))
    try:
        array = array.astype(float)
    except OverflowError:  # whole numbers of any length are numbers in Python and in TOML
        what = f"`{name}` has a number that is too large"
        raise UserError(what, help="below 1.8e308 in size") from None
    if not np.isfinite(array).all():
        raise UserError(f"`{name}` is not finite everywhere", help=_is(name, slot))
    if not slot.takes(array.ndim):
        raise UserError(f"`{name}` is {_shape(array.shape)}", help=_is(name, slot))
    if not array.size:
        raise UserError(f"`{name}` is empty", help=_is(name, slot))
    return array


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is(name: str, slot: Slot) -> str:
    return f"`{name}` is {_wanted(slot)}"


def _wanted(slot: Slot, sizes: Mapping[str, int] | None = None, length: int | None = None) -> str:
    """What a slot takes, in words: `a list of T vectors of X`."""

    def size(dim: Dim) -> str:
        return show_dim(dim) if sizes is None else str(size_of(dim, sizes))

    steps = "T" if length is None else str(length)
    many = "s" if slot.series and steps != "1" else ""
    match slot.dims:
        case ():
            one = "number" + many
        case (n,):
            one = f"vector{many} of {size(n)}"
        case _:
            m, n = slot.dims
            one = f"{'matrices' if many else 'matrix'} of {size(m)} by {size(n)}"
    return f"a list of {steps} {one}" if slot.series else f"a {one}"


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) > 1:
        return " by ".join(map(str, shape))
    if not shape:
        return "one number"
    return f"a list of {shape[0]} number{'' if shape == (1,) else 's'}"


# --- sizes ----------------------------------------------------------------------------------------


def length_of(given: Given, slots: Slots, asked: int | None, usual: int) -> int:
    """The number of steps: that of the series given, else as asked. Raises UserError."""
    known: tuple[str, int] | None = None
    for section, name, array in given.each():
        if slots[section][name].series:
            first, steps = known = known or (name, len(array))
            if len(array) != steps:
                raise UserError(f"`{first}` has {_steps(steps)}, and `{name}` {len(array)}")
    if known and asked not in (None, known[1]):
        help = f"give `{known[0]}` so many steps, or leave out the values and choose a seed"
        raise UserError(f"`{known[0]}` has {_steps(known[1])}, and not {asked}", help=help)
    return known[1] if known else usual if asked is None else asked


def _steps(n: int) -> str:
    return "1 step" if n == 1 else f"{n} steps"


def sizes_of(
    names: Iterable[str], given: Given, slots: Slots, asked: Mapping[str, int], length: int
) -> dict[str, int]:
    """A number for each size: as asked, as the values have it, else 2, 3 and so on, each its own.

    Raises UserError where a value does not fit.
    """
    names = list(names)
    for name in asked:
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "it has none"
            raise UserError(
                f"the cell has no size `{name}`", help=did_you_mean(name, names) or there
            )
    known, told = dict(asked), dict.fromkeys(asked, "as asked")
    facts = [
        (name, dim, n)
        for section, name, array in given.each()
        if array.ndim
        for dim, n in zip(
            slots[section][name].dims, array.shape[slots[section][name].series :], strict=True
        )
    ]
    while True:
        _solve(facts, known, told)
        free = [name for name in names if name not in known]
        if not free:
            break
        known[free[0]] = next(n for n in range(2, 3 + len(known)) if n not in known.values())
        told[free[0]] = "by default"
    for section, name, array in given.each():
        slot = slots[section][name]
        shape = (length,) * slot.series + shape_of(slot.dims, known)
        if array.ndim and array.shape != shape:
            parts = {s for dim in slot.dims for s in terms(dim) if s}
            why = ", ".join(f"{s} = {known[s]} ({told[s]})" for s in known if s in parts)
            what = (
                f"`{name}` is {_shape(array.shape)}, and {_wanted(slot, known, length)} is needed"
            )
            raise UserError(what, help=f"`{name}` is {_dims(slot)}: {why}" if why else None)
    return {name: known[name] for name in names}


def _solve(
    facts: Iterable[tuple[str, Dim, int]], known: dict[str, int], told: dict[str, str]
) -> None:
    """Add to the known sizes those that follow from facts with one unknown."""
    facts, progress = list(facts), True
    while progress:
        progress = False
        for name, dim, n in facts:
            unknown = [s for s in terms(dim) if s and s not in known]
            if len(unknown) != 1:
                continue
            size, count = unknown[0], terms(dim)[unknown[0]]
            rest = n - size_of(dim, {**known, size: 0})
            if rest >= count and rest % count == 0:
                known[size], told[size] = rest // count, f"from `{name}`"
                progress = True


def _dims(slot: Slot) -> str:
    shown = show_dims(slot.dims)
    return f"{shown} each step" if slot.series else shown
