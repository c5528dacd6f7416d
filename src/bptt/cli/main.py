"""`bptt`: one command, its verbs each in a module of their own, loaded when called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from bptt.errors import BpttError
from bptt.language.near import did_you_mean

# The verbs in the order of the help, each with its line there.
VERBS = {
    "derive": "The backward pass of a cell, as a careful person would write it.",
    "check": "Prove it: every gradient against the truth.",
    "plan": "What of a cell runs where: before, in and after the loop.",
    "trace": "A worked example: the cell with numbers, forward and backward.",
    "cells": "The cells that come with bptt.",
    "show": "The text of a cell, verbatim.",
    "train": "Train a character-level language model.",
    "sample": "Let a trained model write.",
    "export": "A trained model as one C file, or as an ONNX graph.",
    "bench": "How fast layers run here, beside others.",
    "doctor": "What runs cells on this machine, and how.",
}
CANNOT = 2  # exit status where something cannot be read or done as asked


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return getattr(import_module(f"bptt.cli.{cmd_name}"), cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in VERBS:
            help = did_you_mean(args[0], VERBS) or f"there are {', '.join(VERBS)}"
            raise BpttError(f"`bptt {args[0]}` is no command", help=help)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with their lines, without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"bptt {version('bptt')}")
        except PackageNotFoundError:
            click.echo("bptt, from a folder that is not installed")
        ctx.exit()


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="The version.",
)
def bptt() -> None:
    """The backward pass of any recurrent cell, derived from its equations, proven, and run.

    CELL is the name of a cell that comes with bptt, a file, or - for standard input.
    """


def main() -> None:
    """The entry point: what a user can mend is said without a traceback."""
    try:
        bptt(prog_name="bptt")
    except BpttError as error:
        click.echo(error.render(), err=True)
        sys.exit(CANNOT)
