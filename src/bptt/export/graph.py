"""A layer, or a model of `bptt train`, as an ONNX graph."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bptt.errors import UserError
from bptt.export.files import write
from bptt.ir.dims import size_of
from bptt.nn.engine import Engine
from bptt.tasks.model import CharModel

_NEEDED = ("onnx", "onnxscript")
_STEPS, _BATCH = 5, 3  # of the example that the graph is traced with; any others run


def onnx(model: nn.Module, path: str | Path) -> None:
    """Write a layer as an ONNX graph for any number of steps and sequences, 1 or more.

    `model` is a `Recurrent`, `LSTM`, `GRU` or `RNN`, or a model of `bptt train`. The graph's inputs
    are x, laid out as the layer takes it, a cell's further inputs x1, x2, ... in its order, and the
    states s0, s1, ... to begin with, [layers * directions, B, w]; its outputs are y and the states
    after the last step, s0_out, s1_out, ... A model of `bptt train` reads the numbers of characters
    [T, B], int64, and y are logits. A cell that ONNX has an operator for is that; any other is a
    `Scan`. The layer is exported as in evaluation. `torch.onnx.export(..., dynamo=True)` does the
    same for a model of yours that holds such layers. Raises UserError where onnx or onnxscript
    is not installed, for what is no layer, and where the file cannot be written, which is then
    as it was.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        what = f"exporting to ONNX needs {' and '.join(missing)}, which is not installed"
        raise UserError(what, help="pip install 'bptt[onnx]'")
    write(path, _bytes(model))


def _bytes(model: nn.Module) -> bytes:
    layer = model.recurrent if isinstance(model, CharModel) else model
    if not isinstance(layer, Engine):
        help = "give a bptt.nn layer, or the model that `bptt train` made"
        raise UserError(f"{type(model).__name__} is no layer of bptt", help=help)
    entry = _Entry(model, layer)
    steps, batch = torch.export.Dim("T"), torch.export.Dim("B")
    names, given, moving = entry.example(steps, batch)
    states = [f"s{k}_out" for k in range(entry.states)]
    with _evaluating(model), _quiet():
        program = torch.onnx.export(
            entry,
            given,
            dynamo=True,
            input_names=names,
            output_names=["y", *states],
            dynamic_shapes=(moving[0], tuple(moving[1:])),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.functions):
        _forget_origin(part)
    try:
        return proto.SerializeToString()
    except ValueError:
        raise UserError("an ONNX file holds at most 2 GiB, and the weights are more") from None


def _forget_origin(part: Any) -> None:
    """Take out where in this machine's files each node came from."""
    del part.metadata_props[:]
    for node in getattr(part, "node", ()):
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_origin(attribute.g)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say about their own ways: it tells a user nothing to do."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model as in evaluation, and then as it was."""
    before = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for m, training in before:
            m.training = training


class _Entry(nn.Module):
    """What is exported: all inputs in a row, and all results."""

    def __init__(self, model: nn.Module, layer: Engine) -> None:
        super().__init__()
        self.model = model
        self.reads_tokens = isinstance(model, CharModel)
        self.layer = layer
        self.parts = layer.parts()
        self.further = [other.name for other in self.parts.layout.others]
        self.states = len(self.parts.layout.states)

    def forward(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        count = len(self.further)
        others = dict(zip(self.further, rest, strict=False))
        if isinstance(self.model, CharModel):
            # not as the model: which way is quicker there depends on how many tokens there are
            y, states = self.model.recurrent(self.model.embedding(x), rest[count:])
            return (self.model.head(y), *states)
        layer, given = cast(Any, self.layer), rest[count:]
        y, states = layer(x, given[0] if len(given) == 1 else given or None, **others)
        return (y, *([states] if isinstance(states, Tensor) else states))

    def example(
        self, steps: Any, batch: Any
    ) -> tuple[list[str], tuple[Tensor, ...], list[dict[int, Any]]]:
        """Names, tensors and moving axes of the inputs."""
        layer = self.layer
        starts = layer.initial_states(_BATCH)
        like = next(iter(self.parameters()), torch.empty(0))
        first = layer.batch_first and not self.reads_tokens
        lead = [(_STEPS, steps), (_BATCH, batch)]
        lead = lead[::-1] if first else lead
        moving = {k: axis for k, (_, axis) in enumerate(lead)}
        shape = [n for n, _ in lead]
        if self.reads_tokens:
            given = [torch.zeros(shape, dtype=torch.int64, device=like.device)]
        else:
            given = [like.new_zeros(*shape, layer.input_size)]
        axes: list[dict[int, Any]] = [moving]
        for other in self.parts.layout.others:
            width = size_of(other.width, self.parts.sizes[0])
            given.append(like.new_zeros(*([_BATCH] if other.per_sequence else shape), width))
            axes.append({0: batch} if other.per_sequence else moving)
        names = ["x", *(f"x{k}" for k in range(1, len(given)))]
        names += [f"s{k}" for k in range(len(starts))]
        given += [s.detach().contiguous() for s in starts]
        return names, tuple(given), [*axes, *({1: batch} for _ in starts)]
