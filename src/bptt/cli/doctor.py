"""`bptt doctor`: what runs cells here, and why: compiler, processor, threads, cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bptt.backends.cpu.build import Engine

CANNOT_COMPILE = 1  # exit status where cells cannot be compiled


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Say what runs cells on this machine, and how.

    Cells are compiled by a C compiler and kept for the next time. BPTT_CC names the compiler,
    BPTT_CACHE the folder. Exit status: 0 if cells can be compiled, 1 if not.
    """
    from bptt.backends.cpu import threads
    from bptt.backends.cpu.build import describe, findings

    torch = _torch_version()
    engine = describe()
    if as_json:
        import json

        shown = {**_findings(engine), "torch": torch}
        shown["threads"] = {"count": threads.count(), "why": threads.explain()}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        rows = findings(engine, threads.explain())
        rows.append(("torch", torch or "not installed; layers and training need it"))
        click.echo("\n".join(f"{name:<10} {text}".rstrip() for name, text in rows))
        if engine.error and engine.error.help:
            click.echo(f"\nhelp: {engine.error.help}")
    context.exit(CANNOT_COMPILE if engine.error else 0)


def _findings(engine: Engine) -> dict[str, object]:
    """The same for programs."""
    compiler = engine.compiler
    return {
        "backend": None if engine.error else "cpu",
        "error": engine.error and engine.error.what,
        "help": engine.error and engine.error.help,
        "compiler": compiler and str(compiler),
        "version": compiler and compiler.version.splitlines()[0],
        "refused": {str(refused): refused.refusal for refused in engine.refused},
        "target": "native",
        "processor": engine.processor,
        "vector_bytes": engine.vector_bytes,
        "matrix_unit": engine.matrix_unit,
        "cache": {
            "folder": engine.folder,
            "objects": engine.objects,
            "bytes": engine.bytes,
            "temporary": engine.temporary,
        },
    }


def _torch_version() -> str | None:
    """Its version, loaded so that its threads can be seen; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return str(torch.__version__)
