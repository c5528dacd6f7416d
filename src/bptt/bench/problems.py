"""What every side of a comparison computes: one cell, its numbers, an input, a loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from bptt.bench.shapes import Shape
from bptt.errors import UserError

Array = Any
Raw = list[Any]  # what a side gives: the output, the states after the last step, the gradients
Pairs = list[tuple[str, Array]]
MODES = ("infer", "train")
STEPPER = "stepper"  # the next step in each call: the states are carried on
TEXT = "text"  # whole updates of a language model
TAIL = "_l0"  # behind a parameter's name in a layer


class How(NamedTuple):
    """How a Problem is computed: `infer` is the forward pass, `train` the backward pass too, and
    `stepper` the forward pass one step after the other."""

    mode: str
    threads: int = 1
    dtype: str = "float32"

    @property
    def train(self) -> bool:
        """Whether gradients by x and all parameters are computed."""
        return self.mode == "train"


@dataclass(frozen=True)
class Problem:
    """A cell with numbers in float32. `x` [T, B, I], `d_output` [T, B, output size].

    `weights` are the cell's parameters by name. The loss is <d_output, output>, the states start
    as the cell says.
    """

    cell: str
    name: str
    shape: Shape
    x: Array
    d_output: Array
    weights: Mapping[str, Array]
    states: tuple[str, ...]

    def shortened(self, steps: int) -> Problem:
        """The same, of its first steps only."""
        steps = min(steps, self.shape.T)
        shape = self.shape._replace(T=steps)
        return replace(self, shape=shape, x=self.x[:steps], d_output=self.d_output[:steps])

    def flops(self, mode: str) -> int:
        """Floating-point operations of a call: each matrix once a step and sequence, training three
        times, and `stepper` one step.

        For an LSTM that is 2*T*B*4H*(I + H). Elementwise work is not counted.
        """
        matrices = sum(w.size for w in self.weights.values() if w.ndim == 2)
        step = 2 * self.shape.B * matrices
        return step if mode == STEPPER else step * self.shape.T * (1 if mode == "infer" else 3)


def draw(cell: str, shape: Shape, seed: int = 0) -> Problem:
    """A Problem with random numbers: parameters as a layer draws them, all else normal.

    Raises CellError and UserError for a cell that needs more than one input.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = single_layer(cell, shape)
    rng = np.random.default_rng(seed)
    lead = (shape.T, shape.B)
    return Problem(
        cell=cell,
        name=layer.cell.name,
        shape=shape,
        x=rng.standard_normal((*lead, shape.I), np.float32),
        d_output=rng.standard_normal((*lead, layer.output_size), np.float32),
        weights={
            name.removesuffix(TAIL): p.detach().numpy().copy()
            for name, p in layer.named_parameters()
        },
        states=layer.state_names,
    )


def single_layer(cell: str, shape: Shape, **options: Any) -> Any:
    """A `Recurrent` of the cell. Raises UserError where x alone is not enough for it."""
    from bptt.nn import Recurrent
    from bptt.nn.layout import layout_of

    layer = made(Recurrent, cell, shape.I, shape.H, **options)
    others = layout_of(layer.cell.lowered, layer.cell.name).others
    if others:
        what = f"the cell `{layer.cell.name}` reads `{others[0].name}` beside its first input"
        raise UserError(what, help="the bench feeds one input: `bptt cells` says what a cell needs")
    return layer


def load_weights(layer: Any, weights: Mapping[str, Array]) -> None:
    """Give the parameters of a layer their numbers, by name."""
    import torch

    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name.removesuffix(TAIL)]))


def made(layer: Any, *sizes: Any, **options: Any) -> Any:
    """A layer with those of the options that are given. Raises UserError for one it lacks."""
    from bptt.nn.stacked import Ours

    given = {name: value for name, value in options.items() if value is not None}
    known = {*inspect.signature(layer).parameters, *Ours.__annotations__}
    for name in given:
        if name not in known:
            raise UserError(f"a {layer.__name__} of this version has no setting `{name}`")
    return layer(*sizes, **given)
