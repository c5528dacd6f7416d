"""`bptt check`: every derived gradient against the truth, which the forward pass alone gives."""

from __future__ import annotations

import click

from bptt.cell import Cell
from bptt.cli.cell import CELL

WRONG = 1  # exit status where a gradient is wrong


@click.command()
@click.argument("cell", type=CELL)
@click.option(
    "--order",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="2 checks second derivatives and forward mode too.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Another sample."
)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.option(
    "--hint",
    type=click.IntRange(0, 2),
    help="Of a hand-written pass say only: 0 whether it is wrong, 1 which lines, 2 what in them.",
)
@click.pass_context
def check(
    context: click.Context, cell: Cell, order: int, seed: int, as_json: bool, hint: int | None
) -> None:
    """Check what is derived from CELL, tensor by tensor, and its author's own derivation.

    The truth is the forward pass with one number changed a little (or by an imaginary step where
    the cell is smooth). A backward pass that stands in CELL, in a block `backward:`, is judged
    line by line. Exit status: 0 if all is right, 1 if a gradient or a line is wrong, 2 if CELL
    cannot be read.
    """
    stand_ins = cell.stand_ins(different=True)
    report = cell.bind(stand_ins).check(order, seed=seed)
    explain = hint is None or hint > 1
    judgement = cell.judge(explain=explain, seed=seed) if cell.hand_written else None
    if as_json:
        import json

        from bptt.proof import verdicts

        shown = {"cell": cell.name, "stand_ins": stand_ins, **report.json()}
        if judgement is not None:
            shown = {"cell": cell.name, "stand_ins": stand_ins, "ok": report.ok and judgement.ok}
            shown |= {"backward": verdicts.json(judgement, hint), "derived": report.json()}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        for name, function in stand_ins.items():
            click.echo(f"{name} is left open: checked with {function}")
        if judgement is None:
            click.echo(report.text())
        else:
            from bptt.proof import verdicts

            click.echo(f"the derived backward pass: {report.verdict}\n")
            click.echo(verdicts.text(judgement, hint))
    right = report.ok and (judgement is None or judgement.ok)
    context.exit(0 if right else WRONG)
