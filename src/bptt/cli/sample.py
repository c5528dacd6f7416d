"""`bptt sample`: text from a model that `bptt train` made."""

from __future__ import annotations

import math
import secrets

import click

from bptt.errors import UserError
from bptt.tasks import training_packages


@click.command()
@click.argument("run", required=False)
@click.option(
    "--prompt", help='Where it begins.  [default: "ROMEO:" for Shakespeare, else a new line]'
)
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    default=0.8,
    show_default=True,
    help="0 takes the likeliest.",
)
@click.option(
    "--length", type=click.IntRange(0), default=500, show_default=True, help="Characters to write."
)
@click.option(
    "--seed", type=click.IntRange(0, (1 << 63) - 1), help="The same seed writes the same text."
)
def sample(
    run: str | None, prompt: str | None, temperature: float, length: int, seed: int | None
) -> None:
    """Write text with the model in the folder RUN; without one, with the latest run's."""
    if not math.isfinite(temperature):
        raise UserError(
            f"the temperature cannot be {temperature:g}", help="0.8 is usual, 1 is as learned"
        )
    if prompt == "":
        raise UserError("the prompt is empty", help="give at least one character, or no --prompt")
    with training_packages():
        from bptt.tasks.checkpoint import find_folder
        from bptt.tasks.model import default_prompt, write
        from bptt.tasks.text import printable
        from bptt.tasks.training import read_model

    model, vocabulary, state = read_model(find_folder(run))
    start = prompt or default_prompt(state.text.kind, vocabulary)
    chance = secrets.randbits(63) if seed is None else seed
    vocabulary.encode(start)  # a prompt that cannot be read is refused before it is written
    pieces = write(model, vocabulary, start, length=length, temperature=temperature, seed=chance)
    click.echo(printable(start.lstrip("\n")), nl=False)
    for piece in pieces:
        click.echo(printable(piece), nl=False)
    click.echo()
