"""The twin of a run: the same recipe on `torch.nn.LSTM`; and runs that take turns in a process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from bptt.cell import Cell
from bptt.nn.backend import use_backend
from bptt.tasks.config import Config
from bptt.tasks.model import CharModel, Layers, States
from bptt.tasks.training import Trainer

_GATES = "ifgo"  # as nn.LSTM stacks them
_LETTERS = {"weight_ih": "W", "weight_hh": "U", "bias_ih": "b"}


class StockLayers(nn.Module):
    """`torch.nn.LSTM` in the place of a model's layers of the stock cell.

    Its second bias stays zero: both have one gradient, and together would learn twice as fast.
    """

    backend = "torch.nn.LSTM"

    def __init__(self, cell: Cell, config: Config, numbers: Mapping[str, Tensor]) -> None:
        """`numbers`: the parameters of those layers, by their names. ValueError for others."""
        super().__init__()
        self.cell, self.output_size = cell, config.hidden
        between = config.dropout if config.layers > 1 else 0.0
        self.layers = nn.LSTM(config.embedding, config.hidden, config.layers, dropout=between)
        left = dict(numbers)
        with torch.no_grad():
            for name, parameter in self.layers.named_parameters():
                kind, _, layer = name.rpartition("_")
                if kind in _LETTERS:
                    names = [f"{_LETTERS[kind]}_{gate}_{layer}" for gate in _GATES]
                    parameter.copy_(torch.cat([left.pop(one) for one in names]))
                else:
                    parameter.zero_().requires_grad_(False)
        if left:
            raise ValueError(f"nn.LSTM has no {min(left)}, which the cell `{cell.name}` has")

    def initial_states(self, batch: int) -> States:
        """The states before a first step: zeros, each `[L, batch, H]`."""
        rows, width = self.layers.num_layers, self.layers.hidden_size
        zero = next(self.layers.parameters()).new_zeros(rows, batch, width)
        return zero, zero

    def forward(
        self, input: Tensor, states: States | None = None, *, table: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """As `Recurrent.forward`; rows of a table are looked up, as `nn.Embedding` does."""
        x = input if table is None else embedding(input, table)
        hx = None if states is None else (states[0], states[1])
        return self.layers(x, hx)


def on_torch(cell: str | Cell, symbols: int, config: Config) -> CharModel:
    """A model of the stock cell with torch's layers, which hold the numbers that ours would."""
    model = CharModel(cell, symbols, config)
    prefix = "recurrent."
    named = model.named_parameters()
    numbers = {n.removeprefix(prefix): p.detach() for n, p in named if n.startswith(prefix)}
    layers: Layers = StockLayers(model.recurrent.cell, config, numbers)
    model.recurrent = layers
    return model


class Turns:
    """A run that takes turns with others: the numbers it draws do not depend on theirs.

    `backend` runs it, if not the one that runs everything. A call is one update, and gives its
    loss in nats per character.
    """

    def __init__(self, trainer: Trainer, backend: str | None = None) -> None:
        self.trainer = trainer
        self._backend = backend
        generator = torch.Generator().manual_seed(trainer.config.seed)
        self._chance = generator.get_state()

    def __call__(self) -> float:
        """One update."""
        chosen = use_backend(self._backend) if self._backend else nullcontext()
        with chosen, torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._chance)
            loss = self.trainer.update()
            self._chance = torch.get_rng_state()
        return loss
