"""A character-level language model around any cell: its layers, judging a text, and writing one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.nn import Recurrent
from bptt.nn.recurrent import cell_of
from bptt.tasks.config import Config
from bptt.tasks.text import Vocabulary

States = tuple[Tensor, ...]


class Layers(Protocol):
    """What a model asks of its layers: a `Recurrent`, or another's that answer like one."""

    cell: Cell
    output_size: int

    @property
    def backend(self) -> str:
        """What runs them."""
        ...

    def initial_states(self, batch: int) -> States:
        """The states before a first step, each `[L, batch, w]`."""
        ...

    def __call__(
        self, input: Tensor, states: States | None = None, *, table: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """The output `[T, B, w]` and the last states; with a `table`, of its rows `[T, B]`."""
        ...


_JUDGED_STREAM = 1024
"""A validation is cut into streams of at least about so many characters."""
_MOST_STREAMS = 64
_JUDGED_WINDOW = 256


class CharModel(nn.Module):
    """Embedding, recurrent layers, dropout, and a linear layer to the vocabulary.

    `cell` is a cell or its name, path or text. Raises CellError where no layer can be made of it.
    """

    def __init__(self, cell: str | Cell, symbols: int, config: Config) -> None:
        super().__init__()
        _refuse_needy(cell_of(cell, None))
        self.embedding = nn.Embedding(symbols, config.embedding)
        between = config.dropout if config.layers > 1 else 0.0
        self.recurrent: Layers = Recurrent(
            cell, config.embedding, config.hidden, config.layers, dropout=between
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.recurrent.output_size, symbols)

    def forward(self, codes: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """Logits `[T, B, V]` for what follows each of `codes` `[T, B]`, and the last states."""
        weight = self.embedding.weight
        if codes.numel() > len(weight):  # one product with the table costs less than all of theirs
            output, last = self.recurrent(codes, states, table=weight)
        else:
            output, last = self.recurrent(self.embedding(codes), states)
        return self.head(self.dropout(output)), last

    def renew(self, states: States, fresh: Tensor) -> States:
        """`states` with those of the streams marked in `fresh` `[B]` as before a first step."""
        initial = self.recurrent.initial_states(fresh.shape[0])
        mark = fresh[None, :, None]
        return tuple(torch.where(mark, new, old) for new, old in zip(initial, states, strict=True))


def _refuse_needy(cell: Cell) -> None:
    """Raise UserError for a cell that needs what a language model does not give."""
    need = cell.needs
    if need.text():
        raise UserError(
            f"the cell `{cell.name}` needs more than one input and the widths: {need.text()}",
            help="`bptt train` gives a cell characters; bptt.nn.Recurrent takes all that it needs",
        )


def judge(model: CharModel, codes: Tensor) -> float:
    """The mean loss on `codes` `[N]`, N >= 2, in nats per character, without dropout.

    The text is read in contiguous streams side by side, each from a fresh state carried to its end.
    """
    streams = max(1, min(_MOST_STREAMS, (len(codes) - 1) // _JUDGED_STREAM))
    length = (len(codes) - 1) // streams
    read = codes[: streams * length].view(streams, length).T
    expected = codes[1 : streams * length + 1].view(streams, length).T
    was_training = model.training
    model.eval()
    total, states = 0.0, None
    with torch.no_grad():
        for start in range(0, length, _JUDGED_WINDOW):
            piece = slice(start, start + _JUDGED_WINDOW)
            logits, states = model(read[piece].long(), states)
            target = expected[piece].long().flatten()
            total += cross_entropy(logits.flatten(0, 1), target, reduction="sum").item()
    model.train(was_training)
    return total / (streams * length)


def default_prompt(kind: str, vocabulary: Vocabulary) -> str:
    """What a model starts from unless told: a speaker in Shakespeare, else a line's beginning."""
    if kind == "shakespeare":
        return "ROMEO:"
    return "\n" if "\n" in vocabulary.symbols else vocabulary.symbols[0]


def write(
    model: CharModel,
    vocabulary: Vocabulary,
    prompt: str,
    *,
    length: int,
    temperature: float,
    seed: int,
) -> Iterator[str]:
    """Yield `length` characters that follow `prompt`, which must not be empty, one by one.

    The same seed gives the same text; torch's global generator is not touched. At temperature 0 the
    likeliest character is taken each time. Raises UserError for a prompt with characters that the
    model does not know, and for a model whose values are not numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    codes = torch.from_numpy(vocabulary.encode(prompt)).long()
    model.eval()
    states: States | None = None
    for _ in range(length):
        with torch.no_grad():
            logits, states = model(codes[:, None], states)
            if not torch.isfinite(logits).all():
                raise UserError("the model no longer gives numbers", help="train it again")
            codes = _draw(logits[-1, 0], temperature, generator)
        yield vocabulary.decode(codes.tolist())


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0.0:
        return logits.argmax()[None]
    # In float64, and from the largest down: a small temperature must not overflow.
    scaled = (logits.double() - logits.max()) / temperature
    return torch.multinomial(softmax(scaled, dim=0), 1, generator=generator)
