"""`bptt bench`: a layer's speed beside others', side by side in one process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bptt.errors import UserError

if TYPE_CHECKING:
    from bptt.bench.compare import Row
    from bptt.bench.runner import Effort
    from bptt.bench.text import Race
    from bptt.tasks.config import Budget, Config
    from bptt.tasks.text import Text

RED = 1  # exit status where results are wrong
INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended
USUAL, USUAL_OF_TEXT = 5.0, 20.0  # seconds of a comparison
RUN = 2000  # updates of a run, of which the first are made
SIDES = ("nn.LSTM", "nn.LSTMCell", "eager", "jit", "compile", "jax", "our lstm")


@click.command()
@click.option("--shape", "shapes", multiple=True, metavar="TxBxIxH", help="Sizes, or a name.")
@click.option("--cell", "cells", multiple=True, metavar="CELL", help="A cell.  [default: lstm]")
@click.option("--against", multiple=True, type=click.Choice(SIDES), help="A side to compare with.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(["infer", "train", "stepper"]))
@click.option("--threads", metavar="N,...", help="Numbers of threads.  [default: 1; --full: 1,2]")
@click.option("--rounds", type=click.IntRange(1), help="Rounds of each comparison.")
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    help=f"Time of each comparison.  [default: {USUAL:g}; --text: {USUAL_OF_TEXT:g}]",
)
@click.option("--full", is_flag=True, help="The whole grid, four cells, all sides, memory.")
@click.option("--memory", is_flag=True, help="Also the memory that is kept for backward.")
@click.option("--keep", type=click.Choice(["all", "states", "sqrt"]), help="What our layers keep.")
@click.option("--backend", help="What runs our layers.")
@click.option("--text", metavar="FILE", help="Compare whole updates of `bptt train` on a text.")
@click.option("--uses", is_flag=True, help="Compare layers as programs use them.")
@click.option("--json", "output", metavar="FILE", help="All numbers of every round, as JSON.")
@click.pass_context
def bench(
    context: click.Context,
    text: str | None,
    uses: bool,
    rounds: int | None,
    seconds: float | None,
    output: str | None,
    backend: str | None,
    **asked: Any,
) -> None:
    """Compare the speed of our layers with other ways to run them, on this machine.

    The results of every side are compared with right ones first; where they are wrong there are
    no numbers, and the exit status is 1. Without options: a few small shapes, a minute. A shape
    is steps, batch, input and width, `100x16x64x64`, or hydrology, audio, finance, step. With
    `compile`, torch compiles every loop for a minute first.

    In the mode stepper each call is the next step. With --text, the recipe of `bptt train` runs on
    our layers and on torch's own by turns, or on another cell and on our stock one. With --uses,
    layers train stacked in both directions, on ragged batches, and sample by sample.
    """
    if uses and text is not None:
        raise UserError("--uses and --text exclude each other", help="give one of them")
    if rounds is not None and seconds is not None:
        raise UserError("--rounds and --seconds exclude each other", help="give one of them")
    from rich.console import Console

    from bptt.bench import machine
    from bptt.bench.report import LEGEND, TEXT_LEGEND, WIDTH, document, must_lines, notes, table
    from bptt.bench.runner import Effort

    if output is not None:
        _writable(Path(output))
    if backend is not None:
        from bptt.nn import use_backend

        context.with_resource(use_backend(backend))
    if rounds is None and seconds is None:
        seconds = USUAL if text is None else USUAL_OF_TEXT
    effort = Effort(rounds, seconds or 0.0)
    if uses:
        task = _uses(effort, **asked)
    else:
        task = _layers(effort, **asked) if text is None else _training(text, effort, **asked)
    where = machine.describe()
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, WIDTH)
    console.print(f"{where['cpu']}, {where['cores']} cores; torch {where['torch']}")
    if task.about:
        console.print(task.about, soft_wrap=True)
    rows: list[Row] = []
    interrupted = False
    try:
        for group in task.groups:
            _say("")
            rows += group
            console.print("", table(group), sep="\n")
    except KeyboardInterrupt:
        interrupted = True
    backends = ", ".join(dict.fromkeys(row.backend for row in rows if row.backend))
    console.print(f"\nours: bptt {where['bptt']}, backend {backends or 'not measured'}")
    for line in (*notes(rows), *must_lines(rows)):
        console.print(line, soft_wrap=True)
    console.print(LEGEND if text is None else TEXT_LEGEND)
    if output is not None:
        settings = {"rounds": rounds, "seconds": seconds, "backend": backend, **task.settings}
        _write(Path(output), document(where, settings, rows))
    if interrupted:
        context.exit(INTERRUPTED)
    if any(row.red for row in rows):
        context.exit(RED)


class _Task(NamedTuple):
    """What is measured, group by group, and what a report says of it."""

    groups: Iterable[list[Row]]
    settings: Mapping[str, Any]
    about: str = ""


def _layers(
    effort: Effort,
    *,
    full: bool,
    shapes: tuple[str, ...],
    cells: tuple[str, ...],
    against: tuple[str, ...],
    modes: tuple[str, ...],
    threads: str | None,
    memory: bool,
    keep: str | None,
) -> _Task:
    """Layers: what is asked for, and the rest as a quick look or the full grid has it."""
    from bptt.bench.compare import MEMORY, Request, compare
    from bptt.bench.musts import LIKE_LSTM
    from bptt.bench.problems import MODES, STEPPER
    from bptt.bench.shapes import GRID, QUICK, shape_called
    from bptt.bench.sides import STOCK

    usual = (STOCK, *LIKE_LSTM) if full else (STOCK,)
    kinds = modes or ((*MODES, STEPPER, MEMORY) if full else MODES)
    if memory and MEMORY not in kinds:
        kinds = (*kinds, MEMORY)
    request = Request(
        shapes=tuple(map(shape_called, shapes)) or (GRID if full else QUICK),
        cells=cells or usual,
        modes=kinds,
        threads=_threads(threads, full),
        against=against,
        few=not full,
        every=bool(shapes),
        effort=effort,
        options={"keep": keep},
    )
    return _Task(compare(request, _say), {"keep": keep})


def _uses(effort: Effort, *, threads: str | None, **other: Any) -> _Task:
    """Layers as programs use them, with torch's numbers and at sizes of their own."""
    from bptt.bench.uses import compare_uses

    _exclude("--uses", other, "what is measured, and at which sizes, is fixed")
    return _Task(compare_uses(_threads(threads, False), effort, _say), {"uses": True})


def _exclude(option: str, others: Mapping[str, Any], help: str) -> None:
    """Raise UserError where one of the other options is given too."""
    for name, value in others.items():
        if value:
            raise UserError(
                f"{option} and --{name.removesuffix('s')} exclude each other", help=help
            )


def _training(
    path: str, effort: Effort, *, cells: tuple[str, ...], threads: str | None, **other: Any
) -> _Task:
    """Whole updates of a language model, as `bptt train` makes them."""
    from bptt.bench.compare import counted
    from bptt.bench.sides import STOCK
    from bptt.bench.text import race
    from bptt.tasks import training_packages

    _exclude("--text", other, "the recipe of `bptt train` says what is run")
    with training_packages():
        from bptt.tasks.config import Budget, Config
        from bptt.tasks.text import load_text, printable
        from bptt.tasks.training import Trainer
    counts, cells = _threads(threads, False), cells or (STOCK,)
    text, config, budget = load_text("file", path, _say), Config(), Budget(steps=RUN)
    for cell in cells:  # a mistake in any of them now, rather than after minutes
        Trainer(text, cell, config, budget)

    def groups() -> Iterator[list[Row]]:
        for count in counts:
            for cell in cells:
                _say(f"{cell}, {text.name}, {counted(count)}")
                yield [race(lambda cell=cell: _race(text, cell, config, budget), count, effort)]

    about = (
        f"{printable(text.name)}: {len(text.content):,} characters; batch {config.batch}, window "
        f"{config.window}, {config.layers} layer of {config.hidden}, the first updates of {budget}"
    )
    of = {"name": text.name, "sha256": text.sha256, "characters": len(text.content)}
    return _Task(groups(), {"text": of, "config": asdict(config), "length": str(budget)}, about)


def _race(text: Text, cell: str, config: Config, budget: Budget) -> Race:
    """The cell's run beside another: nn.LSTM's for the stock cell, for any other our stock one's.

    What others compute stands by: nn.LSTM for our stock cell, torch's operations for any other.
    """
    from bptt.bench.shapes import Shape
    from bptt.bench.sides import STOCK
    from bptt.bench.text import Race, Witness
    from bptt.tasks.training import Trainer
    from bptt.tasks.twin import Turns, on_torch

    ours = Turns(Trainer(text, cell, config, budget))
    twin = Turns(Trainer(text, STOCK, config, budget, on_torch))
    shape = Shape(config.window, config.batch, config.embedding, config.hidden)
    recurrent = ours.trainer.model.recurrent
    name, backend = recurrent.cell.name, recurrent.backend
    if cell == STOCK:
        same = [Witness("ours", ours, "nn.LSTM", twin)]
        return Race(name, "nn.LSTM", shape, ours, twin, same, backend)
    stock = Turns(Trainer(text, STOCK, config, budget))
    reference = Turns(Trainer(text, cell, config, budget), "reference")
    same = [
        Witness("ours", ours, "the reference backend", reference),
        Witness("our lstm", stock, "nn.LSTM", twin),
    ]
    return Race(name, "our lstm", shape, ours, stock, same, backend)


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
