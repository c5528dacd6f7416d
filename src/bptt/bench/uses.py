"""Layers as programs use them: stacked in two directions, on ragged batches, sample by sample.

Each use trains: the output, and the gradients of a loss that is linear in it, by the input where
it asks for them and by all parameters. `nn.LSTM` in float64 says first what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt.bench import gate
from bptt.bench.compare import Row, on_threads
from bptt.bench.machine import Watch
from bptt.bench.peak import probe
from bptt.bench.problems import Pairs
from bptt.bench.runner import Effort, measure
from bptt.bench.shapes import Shape
from bptt.bench.sides import STOCK

STACKED, RAGGED, SAMPLES = "stacked", "ragged", "per sample"
DENSE, LOOP = "as dense", "loop"  # ours on as many steps in a dense batch; ours, sample by sample

Call = Callable[[], list[Any]]


@dataclass(frozen=True)
class Use:
    """`make`: the sides of one shape by name, ours first, and what `nn.LSTM` gives in float64.

    `judged`: the names of the sides whose results must be those.
    """

    shape: Shape
    make: Callable[[Shape], tuple[Mapping[str, Call], Call]]
    judged: Sequence[str]


def compare_uses(
    threads: Sequence[int], effort: Effort, say: Callable[[str], None] = lambda line: None
) -> Iterator[list[Row]]:
    """The rows of every use on each number of threads."""
    for count in threads:
        with on_threads(count):
            for mode, use in USES.items():
                say(f"{mode}, {use.shape.name}, {count} thread{'s' if count > 1 else ''}")
                yield _rows(mode, use, count, effort)


def _rows(mode: str, use: Use, threads: int, effort: Effort) -> list[Row]:
    from bptt.nn import LSTM

    sides, truth = use.make(use.shape)
    right = _named(truth())
    at = (STOCK, use.shape, threads, mode)
    others = list(sides)[1:]
    for name in use.judged:
        why = gate.compared(_named(sides[name]()), right)
        if why:
            return [Row(*at, other, why=f"{name}: {why}", red=True) for other in others]
    watch = Watch()
    rounds = measure(list(sides.values()), effort, probe(threads).measure)
    ours, *theirs = zip(*(one.seconds for one in rounds), strict=True)
    shared: dict[str, Any] = {"judged": use.shape.T, "foreign": watch.foreign()}
    return [
        Row(*at, name, ours, times, backend=LSTM(1, 1).backend, **shared)
        for name, times in zip(others, theirs, strict=True)
    ]


def _named(found: Sequence[Any]) -> Pairs:
    """Tensors by their number: the output, then gradients."""
    return [(f"tensor {k}", np.asarray(a.detach(), float)) for k, a in enumerate(found)]


def _pair(shape: Shape, **options: Any) -> tuple[Any, Any, Any]:
    """Our layer, torch's, and torch's in float64, with one set of weights."""
    import torch

    from bptt.nn import LSTM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torch.nn.LSTM(shape.I, shape.H, **options)
    ours = LSTM(shape.I, shape.H, **options)
    ours.load_state_dict(theirs.state_dict())
    right = torch.nn.LSTM(shape.I, shape.H, **options).double()
    right.load_state_dict(theirs.state_dict())
    return ours, theirs, right


def _drawn(*size: int) -> Any:
    import torch

    return torch.from_numpy(np.random.default_rng(0).standard_normal(size, np.float32))


def _trained(layer: Any, x: Any, seed: Any, *, packed: Any = None) -> Call:
    """The output and gradients by x and the parameters. `packed`: makes the layer's input of x."""
    import torch

    kind = next(layer.parameters()).dtype
    x, seed = x.to(kind).requires_grad_(), seed.to(kind)
    wanted = [x, *layer.parameters()]

    def call() -> list[Any]:
        output = layer(x if packed is None else packed(x))[0]
        output = output if packed is None else output.data
        return [output, *torch.autograd.grad(output, wanted, seed)]

    return call


def _stacked(shape: Shape) -> tuple[Mapping[str, Call], Call]:
    """Two layers, each in both directions."""
    ours, theirs, right = _pair(shape, num_layers=2, bidirectional=True)
    x, seed = _drawn(shape.T, shape.B, shape.I), _drawn(shape.T, shape.B, 2 * shape.H)
    sides = {"ours": _trained(ours, x, seed), "nn.LSTM": _trained(theirs, x, seed)}
    return sides, _trained(right, x, seed)


def _ragged(shape: Shape) -> tuple[Mapping[str, Call], Call]:
    """Packed sequences of all lengths, half as many steps as padded ones. Beside them half as many
    sequences of full length: as many steps in all, in a dense batch."""
    import torch
    from torch.nn.utils.rnn import PackedSequence

    T, B, I, H = shape  # noqa: E741
    lengths = np.asarray([T - (T * k) // B for k in range(B)])  # from T on, evenly down
    sizes = torch.tensor([int((lengths > t).sum()) for t in range(T)])
    ours, theirs, right = _pair(shape)
    x, seed = _drawn(int(lengths.sum()), I), _drawn(int(lengths.sum()), H)

    def packed(data: Any) -> Any:
        return PackedSequence(data, sizes)

    rows = round(lengths.sum() / T)
    sides = {
        "ours": _trained(ours, x, seed, packed=packed),
        "nn.LSTM": _trained(theirs, x, seed, packed=packed),
        DENSE: _trained(ours, _drawn(T, rows, I), _drawn(T, rows, H)),
    }
    return sides, _trained(right, x, seed, packed=packed)


def _per_sample(shape: Shape) -> tuple[Mapping[str, Call], Call]:
    """The gradient of every sequence alone: by `vmap`, or by a loop of `autograd.grad`."""
    import torch
    from torch.func import functional_call, grad, vmap

    ours, theirs, right = _pair(shape)
    x, seed = _drawn(shape.B, shape.T, 1, shape.I), _drawn(shape.T, 1, shape.H)
    given = {name: p.detach() for name, p in ours.named_parameters()}

    def loss(p: dict[str, Any], x: Any) -> Any:
        return (functional_call(ours, p, (x,))[0] * seed).sum()

    each = vmap(grad(loss), (None, 0))

    def looped(layer: Any) -> Call:
        wanted = list(layer.parameters())
        samples, by = x.to(wanted[0].dtype), seed.to(wanted[0].dtype)

        def call() -> list[Any]:
            found = [torch.autograd.grad(layer(one)[0], wanted, by) for one in samples]
            return [torch.stack(grads) for grads in zip(*found, strict=True)]

        return call

    def mapped() -> list[Any]:
        return list(each(given, x).values())

    return {"ours": mapped, LOOP: looped(ours), "nn.LSTM": looped(theirs)}, looped(right)


USES = {
    STACKED: Use(Shape(100, 32, 256, 256), _stacked, ("ours", "nn.LSTM")),
    RAGGED: Use(Shape(100, 64, 128, 128), _ragged, ("ours", "nn.LSTM")),
    SAMPLES: Use(Shape(100, 64, 64, 64), _per_sample, ("ours", LOOP, "nn.LSTM")),
}
