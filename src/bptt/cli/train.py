"""`bptt train`: a character-level language model of a text, for a few minutes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bptt.errors import UserError
from bptt.tasks import training_packages

if TYPE_CHECKING:
    from bptt.tasks.training import Trainer
    from bptt.tasks.watch import Watch

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended


@click.command()
@click.argument("text", required=False)
@click.option("--text", "kind", type=click.Choice(["shakespeare", "pydoc"]), help="A text by name.")
@click.option("--cell", help="The cell: a name, a file, or its text.  [default: lstm]")
@click.option("--minutes", type=float, help="Train for so long.  [default: 5]")
@click.option("--steps", type=click.IntRange(1), help="Train for so many updates instead.")
@click.option("--hidden", type=click.IntRange(1), help="Width of the cell.  [default: 320]")
@click.option("--layers", type=click.IntRange(1), help="Layers of cells.  [default: 1]")
@click.option("--dropout", type=float, help="Share of a cell's outputs to drop.  [default: 0.2]")
@click.option("--seed", type=click.IntRange(0), help="Where chance begins.  [default: 1]")
@click.option("--out", metavar="DIR", help="The run's folder.  [default: a new one in runs/]")
@click.option(
    "--resume",
    metavar="[RUN]",
    is_flag=False,
    flag_value="",
    help="Go on with the run in this folder, or with the latest one.",
)
@click.pass_context
def train(
    context: click.Context,
    text: str | None,
    minutes: float | None,
    steps: int | None,
    resume: str | None,
    **fixed: Any,
) -> None:
    """Train a character-level language model on TEXT, a UTF-8 file, or on Shakespeare's plays.

    Ctrl-C saves and stops; `bptt train --resume` goes on from there. A run that goes on keeps its
    text, cell, sizes and length; --minutes or --steps then give it another length, counted from
    its beginning.
    """
    if minutes is not None and steps is not None:
        raise UserError("--minutes and --steps exclude each other", help="give one of them")
    if minutes is not None and not 0 < minutes < math.inf:
        raise UserError(f"a run cannot last {minutes:g} minutes", help="give a number above 0")
    if text is not None and fixed["kind"] is not None:
        raise UserError("TEXT and --text exclude each other", help="give one of them")
    with training_packages():
        from bptt.tasks.watch import Interrupts, Watch
    watch = Watch()
    if resume is None:
        trainer, folder = _new(watch, text, minutes, steps, **fixed)
    else:
        for name, value in fixed.items():
            if value is not None:
                option = "--text" if name == "kind" else f"--{name}"
                help = (
                    "start a new run; with --resume go TEXT (moved, unchanged), --minutes, --steps"
                )
                raise UserError(f"{option} of a run that goes on cannot be changed", help=help)
        trainer, folder = _resumed(watch, text, minutes, steps, resume)
    watch.header(trainer, folder)
    if not watch.follow(trainer, folder):
        watch.interrupted(trainer, folder)
        context.exit(INTERRUPTED)
    with Interrupts():  # the run is saved: one Ctrl-C more must not cost its curve
        watch.finished(trainer, folder)


def _new(
    watch: Watch,
    path: str | None,
    minutes: float | None,
    steps: int | None,
    *,
    kind: Any,
    cell: str | None,
    out: str | None,
    dropout: float | None,
    **sizes: int | None,
) -> tuple[Trainer, Path]:
    """A run from its beginning, and its folder."""
    from bptt.tasks.checkpoint import new_folder
    from bptt.tasks.config import Budget, Config
    from bptt.tasks.text import load_text
    from bptt.tasks.training import Trainer

    try:
        given = {name: size for name, size in sizes.items() if size is not None}
        config = Config(**given) if dropout is None else Config(**given, dropout=dropout)
    except ValueError as error:
        raise UserError(str(error), help="`bptt train --help` shows the defaults") from None
    text = (
        load_text("file", path, watch.say)
        if path
        else load_text(kind or "shakespeare", "", watch.say)
    )
    budget = Budget() if minutes is None else Budget(minutes=minutes)
    trainer = Trainer(text, cell or "lstm", config, Budget(steps=steps) if steps else budget)
    # Only now, so that a mistake in the cell leaves no empty folder behind.
    return trainer, new_folder(out, f"{text.name}-{trainer.model.recurrent.cell.name}")


def _resumed(
    watch: Watch, path: str | None, minutes: float | None, steps: int | None, given: str
) -> tuple[Trainer, Path]:
    """The run that was saved in the folder `given`, or in the latest one, and that folder."""
    from bptt.tasks.checkpoint import damaged, find_folder, read
    from bptt.tasks.config import Budget
    from bptt.tasks.text import KINDS, load_text
    from bptt.tasks.training import Trainer

    folder = find_folder(given)
    saved = read(folder)
    known = saved.state.text
    if path:
        text = load_text("file", path, watch.say)
    elif known.kind not in KINDS:
        raise damaged(folder, f"there is no text {known.kind!r}")
    elif known.kind == "file" and not os.path.exists(known.path):
        help = f"if it moved, `bptt train FILE --resume {folder}`"
        raise UserError(f"the text of this run is gone: {known.path}", help=help)
    else:
        text = load_text(known.kind, known.path, watch.say)
    budget = saved.state.budget
    if minutes is not None or steps is not None:
        budget = Budget(steps=steps) if steps else Budget(minutes=minutes or 0.0)
    trainer = Trainer.resume(folder, saved, text, budget)
    if trainer.finished:
        option, unit = ("--steps N", "N steps") if budget.steps else ("--minutes M", "M minutes")
        help = f"`bptt train --resume {folder} {option}` makes it longer, {unit} in all"
        done = f"{trainer.step:,} steps in {trainer.seconds / 60:.1f} minutes"
        raise UserError(f"the run in {folder} has done {done}, all of {budget}", help=help)
    if trainer.engine != saved.state.engine:
        watch.say(f"note: saved with {saved.state.engine}, which may differ in the last bits")
    return trainer, folder
