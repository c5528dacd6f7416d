"""`bptt cells`: what comes with bptt, a line each, family by family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import click

from bptt import cells as library
from bptt.cell import Cell
from bptt.errors import UserError
from bptt.language.near import did_you_mean

Families = Mapping[str, tuple[str, ...]]

_WIDTH = 100  # columns of a line
_NEEDS = 22  # columns of what a cell needs
_LEGEND = """
phases: the parts of a step that wait for each other, forward/backward. needs: what a layer must be
given beside one input and the widths. `bptt show NAME` prints the equations, `bptt cells lstm` a
family, or what has to do with a word."""


@click.command()
@click.argument("word", required=False)
def cells(word: str | None) -> None:
    """List the cells that come with bptt.

    WORD is a family, such as gru, or what is to be found in a cell's name, title or remarks.
    """
    found = library.families()
    if word is not None:
        found = {word: found[word]} if word in found else _with(word, found)
    table = {name: _row(name) for name in chain(*found.values())}
    click.echo("\n".join(_rows(found, table)))
    click.echo(_LEGEND)


Row = tuple[str, str, str, str, str]


def _row(name: str) -> Row:
    """Title, year, phases, states, needs."""
    head, cell = library.about(name), Cell.load(name)
    year = f" ({head.year})" if head.year else ""
    counted = "{:>2}/{:<2}".format(*cell.plans().phases)
    return head.title, year, counted, str(len(cell.states)), _cut(cell.needs.text(), _NEEDS)


def _rows(found: Families, table: dict[str, Row]) -> Iterator[str]:
    """The lines: those of a family under its heading, the titles cut where there is no room."""
    width = max(map(len, table))
    titles = max(len(title + year) for title, year, *_ in table.values())
    needs = max(len("needs"), *(len(row[-1]) for row in table.values()))
    room = min(_WIDTH - 4 - width - len("  phases  states  ") - needs, titles)

    def line(name: str, row: Row) -> str:
        title, year, phases, states, needed = row
        titled = title + year if len(title + year) <= room else _cut(title, room)
        shown = f"{name:<{width}}  {titled:<{room}}  {phases:>6}  {states:>6}"
        return f"  {shown}  {needed}".rstrip()

    yield line("", ("", "", "phases", "states", "needs"))
    for family, members in found.items():
        yield f"{family}: {library.FAMILIES[family]}" if family else "others"
        yield from (line(name, table[name]) for name in members)


def _with(word: str, found: Families) -> Families:
    """Those of the cells that have `word` in their name or head. Raises UserError."""
    kept = {
        family: tuple(name for name in members if word.lower() in _heading(name))
        for family, members in found.items()
    }
    kept = {family: members for family, members in kept.items() if members}
    if not kept:
        known = (*library.FAMILIES, *library.names())
        help = did_you_mean(word, known) or f"the families are {', '.join(library.FAMILIES)}"
        raise UserError(f"no cell has to do with `{word}`", help=help)
    return kept


def _heading(name: str) -> str:
    head = library.about(name)
    return f"{name} {head.title} {head.citation} {head.remarks}".lower()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3].rstrip()}..."
