"""A worked example as plain text: each equation in symbols, with numbers put in, and its result."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import chain, pairwise

from bptt.printers.people.layout import rows
from bptt.printers.people.plain import Plain, columns, cut, legend
from bptt.printers.people.reading import Name
from bptt.printers.people.worked import (
    RATE_DIGITS,
    Array,
    AtStep,
    Item,
    Numbers,
    Update,
    Worked,
    facts,
    givens,
    sections,
    shown,
)

_WIDTH = 100  # columns
_SPACE = "\u00a0"  # within a vector: no row of text ends there
_WIDE = 70  # columns of a matrix that may be broken between its rows
_MOST = 4  # entries of a vector, or along an axis of a matrix, that are all shown


def text(worked: Worked, digits: int = 5) -> str:
    """A worked example. `digits`: decimals of its numbers."""
    head = [worked.title_line(), *facts(worked)]
    blocks = [_comment(*head), *_Text(worked, digits).blocks()]
    return "\n\n".join(blocks).replace(_SPACE, " ") + "\n"


class _Symbols(AtStep, Plain):
    pass


class TextNumbers(Numbers, Plain):
    """The notation of cells with numbers; of what is large the first ones."""

    def array(self, value: Array) -> str:
        """Where a row of text should not end there are spaces that do not break."""
        if value.ndim == 1:
            return self.row(value)
        first = [self.row(row) for row in value[:_MOST]]
        if len(value) <= _MOST and value.shape[1] <= _MOST:
            between = ", " if len(first) * len(first[0]) > _WIDE else f",{_SPACE}"
            return f"[{between.join(first)}]"
        more = ["..."] if len(value) > _MOST else []
        return (
            f"[{', '.join([*first, *more])};{_SPACE}{len(value)}{_SPACE}by{_SPACE}{value.shape[1]}]"
        )

    def row(self, value: Array) -> str:
        numbers = [shown(float(x), self.digits) for x in value[:_MOST]]
        if len(value) <= _MOST:
            return f"[{f',{_SPACE}'.join(numbers)}]"
        first = f",{_SPACE}".join([*numbers[:-1], "..."])
        return f"[{first};{_SPACE}{len(value)}{_SPACE}numbers]"


class _Text:
    def __init__(self, worked: Worked, digits: int) -> None:
        self.worked, self.digits = worked, digits
        back, front = worked.backward, worked.forward
        self.symbols = {part: _Symbols(found) for part, found in (("steps", front), ("back", back))}
        self.numbers = {
            part: TextNumbers(printer.reading).given(worked, digits)
            for part, printer in self.symbols.items()
        }

    def blocks(self) -> Iterator[str]:
        """The parts of an example, each under its heading."""
        worked = self.worked
        for heading, found in givens(worked):
            given = (
                _equation(self.symbol(name, time), [[self.value(a)]], "") for name, time, a in found
            )
            yield "\n".join([_comment(heading), *chain(*given)])
        for heading, found in sections(worked.steps):
            yield "\n".join([_comment(heading), *self.rows(found, "steps")])
        if worked.total is not None:
            yield _comment(
                f"{worked.loss}, summed over all steps: {shown(worked.total, self.digits)}"
            )
        yield _comment(legend(worked.backward))
        for heading, found in sections(worked.back):
            yield "\n".join([_comment(heading), *self.rows(found, "back")])
        if worked.updates:
            rate = shown(worked.rate, RATE_DIGITS)
            heading = _comment(f"after one step of gradient descent, with the learning rate {rate}")
            yield "\n".join([heading, *chain(*map(self.update, worked.updates))])

    def symbol(self, name: Name, time: str) -> str:
        return self.symbols["back"].symbol(name, time)

    def value(self, value: Array) -> str:
        return self.numbers["back"].value(value).text

    def rows(self, found: list[Item], part: str) -> list[str]:
        """Worked lines, one under another."""
        return [row for item in found for row in self.item(item, part)]

    def item(self, item: Item, part: str) -> Iterator[str]:
        """A line in symbols, in numbers, and what comes out, with the reason behind it."""
        symbols, numbers = self.symbols[part], self.numbers[part]
        sides = [symbols.right_at(item), numbers.right_at(item)]
        if item.split is not None:
            sides.append([numbers.sum(*item.split)])
        yield from _equation(symbols.left_at(item), [*sides, [self.value(item.value)]], item.reason)

    def update(self, update: Update) -> Iterator[str]:
        gradient = "0" if update.line is None else self.symbol(self.worked.spelled(update.line), "")
        before, by, after = map(self.value, (update.before, update.gradient, update.after))
        rate = shown(self.worked.rate, RATE_DIGITS)
        by = f"({by})" if by.startswith("-") else by
        sides = [[update.name, f" - {rate}*{gradient}"], [before, f" - {rate}*{by}"], [after]]
        yield from _equation(update.name, sides, "")


def _equation(left: str, sides: list[list[str]], reason: str) -> Iterator[str]:
    """`left = side = side`, one side a row or more, without those that say nothing new."""
    indent = " " * columns(left)
    room = _WIDTH - columns(left) - 3
    found: list[str] = []
    for k, side in enumerate(sides):
        if "".join(side) in map("".join, sides[k + 1 :]):
            continue
        head, *rest = (part for piece in side for part in _cut(piece, room))
        start = f"{indent if found else left} = {head}"
        found += rows([start, *rest], _WIDTH, f"{indent}   ")
    yield from found[:-1]
    yield from _beside(found[-1], reason)


def _cut(piece: str, room: int) -> Iterator[str]:
    """A term in parts, between which a row may end; a product with a matrix, and a matrix itself,
    are only cut where they would not fit."""
    for part in cut(piece, room):
        found = [part]
        for mark in (" @ ", f",{_SPACE}[", f",{_SPACE}"):
            if all(columns(each) <= room for each in found):
                break
            behind = int(mark[0] == ",")  # the comma stays above
            found = [half for each in found for half in _split(each, mark, behind, room)]
        yield from found


def _split(text: str, mark: str, behind: int, room: int) -> list[str]:
    """Text that has no room in parts, each of which begins so many letters after a mark."""
    if columns(text) <= room:
        return [text]
    ends = [0, *(m.start() + behind for m in re.finditer(re.escape(mark), text)), len(text)]
    return [text[a:b] for a, b in pairwise(ends) if b > a]


def _beside(row: str, reason: str) -> Iterator[str]:
    """A row with a remark behind it, or below where it does not fit."""
    if not reason:
        yield row
    elif columns(row) + columns(reason) + 4 <= _WIDTH:
        yield f"{row}  # {reason}"
    else:
        yield row
        yield from (f"    # {part}" for part in textwrap.wrap(reason, _WIDTH - 6))


def _comment(*sentences: str) -> str:
    return "\n".join(f"# {row}" for s in sentences for row in textwrap.wrap(s, _WIDTH - 2))
