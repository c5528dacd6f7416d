"""`bptt trace`: a worked example of a cell, every line with its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bptt.calculus.readable import By
from bptt.cell import Cell
from bptt.cli.cell import CELL
from bptt.errors import UserError

if TYPE_CHECKING:
    from bptt.printers.people.worked import Worked

_MOST_DECIMALS = 15  # a double has no more to show


@click.command()
@click.argument("cell", type=CELL)
@click.option("--values", metavar="FILE", help="A TOML file with the values, or some of them.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Draw what is left out from this seed.  [default: 0; gomez has its author's numbers]",
)
@click.option("--length", type=click.IntRange(1), help="Steps.  [default: 2]")
@click.option("--size", "sizes", metavar="NAME=N", multiple=True, help="A size, such as H=2.")
@click.option("--rate", type=click.FloatRange(0), help="The learning rate.  [default: 0.1]")
@click.option(
    "--round",
    "digits",
    type=click.IntRange(1, _MOST_DECIMALS),
    default=5,
    show_default=True,
    help="Decimals that are shown; nothing is rounded on the way.",
)
@click.option(
    "--by",
    type=click.Choice(["preactivations", "gates"]),
    default="preactivations",
    show_default=True,
    help="Gradients by the arguments of the gates' functions, or by the gates themselves.",
)
@click.option(
    "--format",
    type=click.Choice(["text", "latex", "md", "json", "html"]),
    default="text",
    show_default=True,
    help="LaTeX is a document, md a page of Markdown, html a page to step through.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to this file.")
def trace(
    cell: Cell,
    values: str | None,
    seed: int | None,
    length: int | None,
    sizes: tuple[str, ...],
    rate: float | None,
    digits: int,
    by: By,
    format: str,
    output: str | None,
) -> None:
    """Work CELL through with numbers.

    Every equation in symbols, with numbers put in, and its result: forward step by step, backward
    step by step, the gradients by parameters, and the parameters after one step of gradient
    descent. `bptt trace gomez` is the example that its author published. A file of values has the
    sections [inputs], [parameters], [states], [constants] and, for a cell without a loss,
    [gradients]; what it leaves out is drawn.
    """
    worked = cell.trace(values, seed=seed, length=length, sizes=_sizes(sizes), by=by, rate=rate)
    shown = _shown(worked, digits, format)
    if output is None:
        click.echo(shown, nl=False)
        return
    try:
        Path(output).write_text(shown, encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "this is no name of a file"
        raise UserError(f"cannot write {output}: {why}") from None


def _shown(worked: Worked, digits: int, format: str) -> str:
    """A worked example in one of the formats."""
    match format:
        case "latex":
            from bptt.printers.people.worked_latex import text
        case "md":
            from bptt.printers.people.worked_markdown import text
        case "html":
            from bptt.printers.people.page import text
        case "json":
            from bptt.printers.people.worked_json import text
        case _:
            from bptt.printers.people.worked_text import text
    return text(worked, digits)


def _sizes(given: tuple[str, ...]) -> dict[str, int]:
    """`H=2` as a size and its number."""
    found: dict[str, int] = {}
    for size in given:
        name, _, number = size.partition("=")
        if not name.strip() or not number.strip().isdecimal() or len(number) > 6:
            raise UserError(f"`{size}` is no size", help="write a name and a number: `H=2`")
        found[name.strip()] = int(number)
    return found
