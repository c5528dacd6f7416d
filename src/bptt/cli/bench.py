"""`bptt bench`: a layer's speed beside others', side by side in one process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bptt.errors import UserError

if TYPE_CHECKING:
    from bptt.bench.compare import Request, Row

RED = 1  # exit status where results are wrong
INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended
SIDES = ("nn.LSTM", "nn.LSTMCell", "eager", "jit", "compile", "jax", "our lstm")


@click.command()
@click.option("--shape", "shapes", multiple=True, metavar="TxBxIxH", help="Sizes, or a name.")
@click.option("--cell", "cells", multiple=True, metavar="CELL", help="A cell.  [default: lstm]")
@click.option("--against", multiple=True, type=click.Choice(SIDES), help="A side to compare with.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(["infer", "train"]))
@click.option("--threads", metavar="N,...", help="Numbers of threads.  [default: 1; --full: 1,2]")
@click.option("--rounds", type=click.IntRange(1), help="Rounds of each comparison.")
@click.option("--seconds", type=click.FloatRange(0), help="Time of each comparison.  [default: 5]")
@click.option("--full", is_flag=True, help="The whole grid, four cells, all sides, memory.")
@click.option("--memory", is_flag=True, help="Also the memory that is kept for backward.")
@click.option("--keep", type=click.Choice(["all", "states", "sqrt"]), help="What our layers keep.")
@click.option("--backend", help="What runs our layers.")
@click.option("--json", "output", metavar="FILE", help="All numbers of every round, as JSON.")
@click.pass_context
def bench(
    context: click.Context,
    full: bool,
    rounds: int | None,
    seconds: float | None,
    output: str | None,
    **asked: Any,
) -> None:
    """Compare the speed of our layers with other ways to run them, on this machine.

    The results of every side are compared with right ones first; where they are wrong there are
    no numbers, and the exit status is 1. Without options: a few small shapes, a minute. A shape
    is steps, batch, input and width, `100x16x64x64`, or hydrology, audio, finance, step. With
    `compile`, torch compiles every loop for a minute first.
    """
    if rounds is not None and seconds is not None:
        raise UserError("--rounds and --seconds exclude each other", help="give one of them")
    from rich.console import Console

    from bptt.bench import machine
    from bptt.bench.compare import compare
    from bptt.bench.report import LEGEND, WIDTH, document, must_lines, notes, table
    from bptt.bench.runner import Effort

    effort = Effort(rounds) if seconds is None else Effort(None, seconds)
    request = _request(full, effort, **asked)
    if output is not None:
        _writable(Path(output))
    groups = compare(request, _say)
    where = machine.describe()
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, WIDTH)
    console.print(f"{where['cpu']}, {where['cores']} cores; torch {where['torch']}")
    rows: list[Row] = []
    interrupted = False
    try:
        for group in groups:
            _say("")
            rows += group
            console.print("", table(group), sep="\n")
    except KeyboardInterrupt:
        interrupted = True
    backends = ", ".join(dict.fromkeys(row.backend for row in rows if row.backend))
    console.print(f"\nours: bptt {where['bptt']}, backend {backends or 'not measured'}")
    for line in (*notes(rows), *must_lines(rows)):
        console.print(line, soft_wrap=True)
    console.print(LEGEND)
    if output is not None:
        settings = {"rounds": rounds, "seconds": effort.seconds, **request.options}
        _write(Path(output), document(where, settings, rows))
    if interrupted:
        context.exit(INTERRUPTED)
    if any(row.red for row in rows):
        context.exit(RED)


def _request(
    full: bool,
    effort: Any,
    *,
    shapes: tuple[str, ...],
    cells: tuple[str, ...],
    against: tuple[str, ...],
    modes: tuple[str, ...],
    threads: str | None,
    memory: bool,
    **options: str | None,
) -> Request:
    """What is asked for, and the rest as a quick look or the full grid has it."""
    from bptt.bench.compare import MEMORY, Request
    from bptt.bench.musts import LIKE_LSTM
    from bptt.bench.problems import MODES
    from bptt.bench.shapes import GRID, QUICK, shape_called
    from bptt.bench.sides import STOCK

    usual = (STOCK, *LIKE_LSTM) if full else (STOCK,)
    kinds = (*(modes or MODES), *([MEMORY] if memory or (full and not modes) else []))
    return Request(
        shapes=tuple(map(shape_called, shapes)) or (GRID if full else QUICK),
        cells=cells or usual,
        modes=kinds,
        threads=_threads(threads, full),
        against=against,
        few=not full,
        effort=effort,
        options=options,
    )


def _threads(given: str | None, full: bool) -> tuple[int, ...]:
    """The numbers of threads. Raises UserError."""
    from bptt.bench.machine import cores

    there = cores()
    if given is None:
        return tuple(n for n in (1, 2) if n <= there) if full else (1,)
    words = [word.strip() for word in given.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 5 for word in words):
        raise UserError(f"`{given}` are no numbers of threads", help="write `1`, or `1,2`")
    for number in map(int, words):
        if not 1 <= number <= there:
            help = f"this process may use {there} core{'s' if there > 1 else ''}"
            raise UserError(f"{number} threads cannot be measured", help=help)
    return tuple(dict.fromkeys(map(int, words)))


def _say(line: str) -> None:
    """What is measured next, where somebody is looking."""
    if sys.stderr.isatty():
        click.echo(f"\x1b[2K{line}\r", nl=False, err=True)


def _writable(path: Path) -> None:
    """Raise UserError now rather than after an hour, where the file could not be written."""
    folder = path.parent
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {path}: nothing may be written in {folder}")


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """The document as a file, whole or not at all. Raises UserError."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "this is no name of a file"
        raise UserError(f"cannot write {path}: {why}") from None
