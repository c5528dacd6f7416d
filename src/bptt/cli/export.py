"""`bptt export`: a trained model for where there is no Python."""

from __future__ import annotations

import os

import click

from bptt.errors import UserError
from bptt.tasks import training_packages


@click.command()
@click.argument("run", required=False)
@click.option("--c", "source", metavar="FILE", help="Write a C99 file: weights, init and step.")
@click.option("--onnx", "graph", metavar="FILE", help="Write an ONNX graph.")
@click.option(
    "--name", default="bptt", show_default=True, help="What names in the C file begin with."
)
def export(run: str | None, source: str | None, graph: str | None, name: str) -> None:
    """Write the model in the folder RUN, or in the latest run, for use without Python.

    --c writes one file that needs no library but libm and allocates nothing, for audio threads and
    microcontrollers. --onnx writes a graph for onnxruntime and others.
    """
    if source is None and graph is None:
        help = "give --c FILE, --onnx FILE, or both"
        raise UserError("nothing says what to write", help=help)
    with training_packages():
        from bptt.export import c99, onnx
        from bptt.tasks.checkpoint import find_folder
        from bptt.tasks.training import read_model

    folder = find_folder(run)
    model, vocabulary, _ = read_model(folder)
    if source is not None:
        c99(model, source, name=name, symbols=vocabulary.symbols)
        click.echo(f"{source}: {name}_init and {name}_step, {_size(source)}")
    if graph is not None:
        onnx(model, graph)
        click.echo(f"{graph}: ONNX, {_size(graph)}")


def _size(path: str) -> str:
    size = os.path.getsize(path)
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.1f} kB"
