"""The long form of docs/examples/shakespeare.md: what a mistaken gradient does in many layers.

python scripts/shakespeare.py start           how far it is off at first, in one to four layers
python scripts/shakespeare.py train line 2    training with it: `line` or `literal`, two layers

`bptt train --cell deep.cell --hidden 128 --steps 1500 --layers 2` trains with the right one, and
`--cell shakespeare` does from the start that `--usual` gives here. All else is the same: text,
seed, first weights, order of reading, dropout.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, dropout

from bptt.nn import Recurrent
from bptt.tasks.config import Budget, Config
from bptt.tasks.text import Text, load_text
from bptt.tasks.training import Trainer

HIDDEN, STEPS, MOST_LAYERS = 128, 1500, 4
SHOWN_EVERY = 250
GATES = """
i[t] = σ(W_i @ h[t-1] + U_i @ x[t])
f[t] = σ(W_f @ h[t-1] + U_f @ x[t])
e[t] = σ(W_e @ h[t-1] + U_e @ x[t])
c̃[t] = tanh(W_c @ h[t-1] + U_c @ x[t])
c[t] = f[t] • c[t-1] + i[t] • c̃[t]
"""
OUT = "h[t] = e[t] • tanh(c[t])\n"
USUAL = GATES + OUT
DEEP = USUAL + "init U_c = 4 * orthogonal"
MEMORY = USUAL + "output c"
# k has the values of c and no gradient: h, which the next step reads, says nothing to c, as in the
# report. So the gradient by c is the report's, and all else is right.
PRINTED = (
    "input x: X, k: H\n"
    + GATES
    + "out[t] = e[t] • tanh(c[t])\nh[t] = e[t] • tanh(k[t])\noutput out"
)
States = tuple[Tensor, ...]


class Mistaken(nn.Module):
    """The layers of `right`, a Recurrent of the cell `shakespeare`, with the report's gradient.

    With `literal`, what each layer gets from above is g V, as the report's formulas say if each
    layer uses them as they stand. That is what the top one gets.
    """

    def __init__(self, right: Recurrent, literal: bool) -> None:
        super().__init__()
        self.right, self.literal = right, literal
        sizes = [right.input_size] + [right.hidden_size] * (right.num_layers - 1)
        # In tuples, so that torch sees no further parameters: they only lend their equations. What
        # they draw must not change the dropout that comes after.
        with torch.random.fork_rng():
            self.memories = tuple(Recurrent(MEMORY, size, right.hidden_size) for size in sizes)
            self.printed = tuple(Recurrent(PRINTED, size, right.hidden_size) for size in sizes)

    def initial_states(self, batch: int) -> States:
        return self.right.initial_states(batch)

    def forward(self, x: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """As `right`."""
        if not torch.is_grad_enabled():
            return self.right(x, states)
        first = dict(zip("hc", states or self.initial_states(x.shape[1]), strict=True))
        last: dict[str, list[Tensor]] = {"h": [], "c": []}
        outputs: list[Tensor] = []
        for k in range(self.right.num_layers):
            start = {name: state[k : k + 1] for name, state in first.items()}
            with torch.no_grad():
                memory, _ = self._call(self.memories[k], k, x, start)
            x, final = self._call(self.printed[k], k, x, start, k=memory)
            for name, found in last.items():
                found.append(final[name])
            outputs.append(x)
            if self.literal:
                x = x.detach()
            if k < self.right.num_layers - 1:
                x = dropout(x, self.right.dropout, self.training)
        if self.literal:
            x = outputs[-1] + sum(out - out.detach() for out in outputs[:-1])
        return x, (torch.cat(last["h"]), torch.cat(last["c"]))

    def _call(
        self, layer: Recurrent, number: int, x: Tensor, start: dict[str, Tensor], **inputs: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One layer with the weights of that number; its output and its last states by name."""
        weights = {
            name: self.right.get_parameter(f"{name[:-1]}{number}") for name in layer.state_dict()
        }
        given = tuple(start[name] for name in layer.state_names)
        out, final = functional_call(layer, weights, (x, given), inputs)
        return out, dict(zip(layer.state_names, final, strict=True))


def start() -> None:
    """The first window: what the layers put out, their gradients, and how far mistakes are off."""
    text = load_text("shakespeare", "", print)
    for layers in range(1, MOST_LAYERS + 1):
        print(f"{layers} layers, from the first to the top")
        for name, cell in (("usual", USUAL), ("larger U_c", DEEP)):
            out, right = _first(_trainer(text, layers, cell=cell))
            print(f"  {name}: the output is {out.square().mean().sqrt():.4f}")
            print("    gradients' lengths", *(f"{gradient.norm():9.1e}" for gradient in right))
            for mistake in ("line", "literal"):
                _, wrong = _first(_trainer(text, layers, mistake, cell))
                off = [(w - r).norm() / r.norm() for w, r in zip(wrong, right, strict=True)]
                print(f"    {mistake} is off by", *(f"{100 * part:7.0f} %" for part in off))


def _first(trainer: Trainer) -> tuple[Tensor, list[Tensor]]:
    """The output of the top layer, and each layer's gradient, all parameters in one vector."""
    model = trainer.model.eval()
    read, expected, _ = trainer.streams.next()
    out, _ = model.recurrent(model.embedding(read))
    cross_entropy(model.head(out).flatten(0, 1), expected.flatten()).backward()
    named = [(n, p.grad) for n, p in model.recurrent.named_parameters() if p.grad is not None]
    return out.detach(), [
        torch.cat([gradient.flatten() for name, gradient in named if name.endswith(f"_l{k}")])
        for k in range(trainer.config.layers)
    ]


def train(mistake: str, layers: int, cell: str) -> None:
    """The run of `bptt train`, with a mistaken gradient."""
    trainer = _trainer(load_text("shakespeare", "", print), layers, mistake, cell)
    while not trainer.finished:
        trainer.update()
        if trainer.step % SHOWN_EVERY == 0:
            print(f"step {trainer.step}: {trainer.validate().nats:.3f} nats", flush=True)
    print(f"{mistake}, {layers} layers: {trainer.validate(whole=True).nats:.3f} nats per character")


def _trainer(text: Text, layers: int, mistake: str | None = None, cell: str = USUAL) -> Trainer:
    """A run as `bptt train` makes it; with a mistake, from the same weights."""
    trainer = Trainer(
        text, cell, Config(hidden=HIDDEN, layers=layers, dropout=0.1), Budget(steps=STEPS)
    )
    if mistake is not None:
        model = trainer.model
        model.recurrent = Mistaken(model.recurrent, literal=mistake == "literal")
    return trainer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a mistaken gradient does in many layers.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("start")
    training = verbs.add_parser("train")
    training.add_argument("mistake", choices=("line", "literal"))
    training.add_argument("layers", type=int)
    training.add_argument("--usual", action="store_true", help="start as `shakespeare` does")
    given = parser.parse_args()
    if given.verb == "start":
        start()
    else:
        train(given.mistake, given.layers, USUAL if given.usual else DEEP)
