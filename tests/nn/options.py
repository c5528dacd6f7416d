"""The options of layers, and what torch can do with each: rows, columns, and why a field is empty.

`test_compatibility.py` runs each field, and writes the table into docs/compatibility.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from nn.calls import again, function, gradients, leaves, of_one
from nn.eager import assert_close
from tolerances import TORCH
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import bptt.nn

X, H = 2, 3
AT_STEPS = torch.tensor([3, 2, 1])  # sequences at each step of a ragged batch
Given = Callable[[int, int], list[Any]]


def series(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@dataclass(frozen=True)
class Row:
    """A layer, and how it is called. `given(T, B)` is what `call` has behind the layer."""

    text: str
    made: Callable[[], nn.Module]
    theirs: Callable[[], nn.Module] | None = None
    given: Given = lambda T, B: [series(T, B, X)]
    call: Callable[..., Any] = lambda layer, *given: layer(*given)

    def module(self, *, torchs: bool = False) -> nn.Module:
        """The layer with its way of being called; the same weights in both kinds."""
        make = self.theirs if torchs else self.made
        assert make is not None
        torch.manual_seed(0)
        return _Called(make().double(), self.call)

    def function(self, *, torchs: bool = False) -> tuple[Callable[..., Any], list[Tensor]]:
        """The layer as a function of its inputs and parameters, and these."""
        module = self.module(torchs=torchs)
        return function(module, tuple(self.given(4, 2)))


class _Called(nn.Module):
    def __init__(self, layer: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, *given: Tensor) -> Any:
        return tuple(leaves(self.call(self.layer, *given)))


# --- rows -----------------------------------------------------------------------------------------


def _both(text: str, kind: str = "LSTM", **more: Any) -> Row:
    """A row of an option that torch's layer has, too."""
    options = more.pop("options", {})
    return Row(
        text,
        lambda: getattr(bptt.nn, kind)(X, H, **options),
        lambda: getattr(nn, kind)(X, H, **options),
        **more,
    )


def _own(text: str, **options: Any) -> Row:
    return Row(text, lambda: bptt.nn.LSTM(X, H, **options))


def _keeping(keep: str) -> Row:
    """What is kept is no matter of numbers: they are torch's."""
    make, theirs = (lambda: bptt.nn.LSTM(X, H, keep=keep)), (lambda: nn.LSTM(X, H))
    return Row(f'`keep="{keep}"`', make, theirs)


def _resets(T: int, B: int) -> list[Tensor]:
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 0] = resets[1, 1] = True
    return [series(T, B, X), resets]


def _states(T: int, B: int) -> list[Tensor]:
    return [series(T, B, X), series(1, B, H), series(1, B, H)]


def _tokens(T: int, B: int) -> list[Tensor]:
    return [torch.randint(5, (T, B)), series(5, X)]


def _lengths(T: int, B: int) -> list[Tensor]:
    return [series(T, B, X), torch.arange(1, B + 1).flip(0).roll(1)]


def _pack_and_run(layer: nn.Module, x: Tensor, lengths: Tensor) -> Any:
    return layer(pack_padded_sequence(x, lengths, enforce_sorted=False))


SMALL = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)"
FURTHER = """
input x: X, k: H, s: H per sequence
h[t] = tanh(W @ x[t] + k[t] * (U @ h[t-1]) + s)
"""


def _further(T: int, B: int) -> list[Tensor]:
    return [series(T, B, X), series(T, B, H), series(B, H)]


ROWS = [
    _both("`LSTM`"),
    _both("`num_layers=2`", options={"num_layers": 2}),
    _both("`bias=False`", options={"bias": False}),
    _both(
        "`batch_first=True`",
        options={"batch_first": True},
        given=lambda T, B: [series(B, T, X)],
    ),
    _both("`dropout=0.5`", options={"num_layers": 2, "dropout": 0.5}),
    _both("`bidirectional=True`", options={"bidirectional": True}),
    _both("`proj_size=2`", options={"proj_size": 2}),
    _both("an unbatched input", given=lambda T, B: [series(T, X)]),
    _both("states given", given=_states, call=lambda layer, x, h, c: layer(x, (h, c))),
    _both("a `PackedSequence`", given=lambda T, B: [PackedSequence(series(6, X), AT_STEPS)]),
    _both("`pack_padded_sequence` before it", given=_lengths, call=_pack_and_run),
    _both("`GRU`", "GRU", options={"num_layers": 2}),
    _both("`RNN`", "RNN"),
    _both('`RNN`, `nonlinearity="relu"`', "RNN", options={"nonlinearity": "relu"}),
    _own('`cell="peephole"`', cell="peephole"),
    _keeping("states"),
    _keeping("sqrt"),
    _own("`learn_initial=True`", learn_initial=True),
    _own("`recurrent_dropout=0.5`", recurrent_dropout=0.5),
    _own("`variational_dropout=0.5`", variational_dropout=0.5),
    _own("`zoneout=0.5`", zoneout=0.5),
    Row(
        "`resets=`",
        lambda: bptt.nn.LSTM(X, H),
        given=_resets,
        call=lambda layer, x, resets: layer(x, resets=resets),
    ),
    Row(
        '`return_states="all"`',
        lambda: bptt.nn.LSTM(X, H),
        call=lambda layer, x: layer(x, return_states="all"),
    ),
    Row("`Recurrent`", lambda: bptt.nn.Recurrent(SMALL, X, H, num_layers=2)),
    Row(
        "`Recurrent`, `table=`",
        lambda: bptt.nn.Recurrent(SMALL, X, H),
        given=_tokens,
        call=lambda layer, tokens, table: layer(tokens, table=table),
    ),
    Row(
        "`Recurrent`, further inputs",
        lambda: bptt.nn.Recurrent(FURTHER, X, H),
        given=_further,
        call=lambda layer, x, k, s: layer(x, k=k, s=s),
    ),
]


# --- columns --------------------------------------------------------------------------------------


def _equal(row: Row) -> None:
    """Values and every gradient are those of torch's layer."""
    ours, theirs = row.function(), row.function(torchs=True)
    for x, true in zip(ours[1], theirs[1], strict=True):
        x.data.copy_(true.data)
    assert_close(gradients(*ours), gradients(*theirs), TORCH)


def _first(row: Row) -> None:
    assert gradcheck(*row.function(), fast_mode=True)


def _second(row: Row) -> None:
    assert gradgradcheck(*of_one(*row.function()), fast_mode=True)


def _forward(row: Row) -> None:
    only = {"check_forward_ad": True, "check_backward_ad": False, "check_undefined_grad": False}
    assert gradcheck(*row.function(), fast_mode=True, **only)


def _vmap(row: Row) -> None:
    """Gradients of each of three models on its own input, at once."""
    f, at = row.function()
    floats = [k for k, x in enumerate(at) if x.is_floating_point()]
    each = [[x + n / 8 if k in floats else x for k, x in enumerate(at)] for n in range(3)]
    stacked = [
        torch.stack(x) if k in floats else x[0] for k, x in enumerate(zip(*each, strict=True))
    ]
    axes = tuple(0 if k in floats else None for k in range(len(at)))

    def loss(*tensors: Tensor) -> Tensor:
        return torch.stack([y.sin().sum() for y in f(*tensors)]).sum()

    grad = torch.func.grad(loss, tuple(floats))
    found = torch.vmap(grad, axes, randomness="same")(*[x.detach() for x in stacked])
    truth = [torch.autograd.grad(loss(*one), [one[k] for k in floats]) for one in each]
    assert_close(found, [torch.stack(g) for g in zip(*truth, strict=True)], TORCH)


def _of_calls(module: nn.Module, call: Callable[..., Any], given: list[Any]) -> list[Tensor]:
    inputs = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in leaves(given)]

    def seeded(*tensors: Tensor) -> Any:
        torch.manual_seed(1)
        return call(*again(tuple(given), tensors[: len(inputs)]))

    return gradients(seeded, [*inputs, *module.parameters()])


def _compile(row: Row) -> None:
    """Without a break in the graph, in training."""
    torch._dynamo.reset()
    module, given = row.module(), row.given(4, 2)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_close(_of_calls(module, compiled, given), _of_calls(module, module, given), TORCH)


def _export(row: Row) -> None:
    """For any length and batch, and trained further."""
    module, few, more = row.module(), row.given(5, 3), row.given(7, 4)
    axes = {(5, 7): torch.export.Dim("T"), (3, 4): torch.export.Dim("B")}
    shapes = tuple(
        {d: axes[a, b] for d, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b}
        for x, y in zip(leaves(few), leaves(more), strict=True)
    )
    dynamic = {"given": shapes} if any(shapes) else None
    exported = torch.export.export(module, tuple(few), dynamic_shapes=dynamic).module()
    found = _of_calls(exported, exported, more)
    assert_close(found, _of_calls(module, module, more), TORCH)


COLUMNS: dict[str, Callable[[Row], None]] = {
    "equal to torch's": _equal,
    "gradcheck": _first,
    "gradgradcheck": _second,
    "forward mode": _forward,
    "vmap": _vmap,
    "compile": _compile,
    "export": _export,
}


# --- what cannot be -------------------------------------------------------------------------------


class Gap(NamedTuple):
    """Why a field is empty, and a pattern of what is said there."""

    why: str
    said: str


NO_TWIN = Gap("torch's layers have no such thing to compare with", "")
PACKED = "`pack_padded_sequence` before it"
GAPS: Mapping[tuple[str, str], Gap] = {
    (PACKED, "forward mode"): Gap(
        "torch's `pack_padded_sequence` has no forward mode",
        "does not support it because it has not been implemented",
    ),
    (PACKED, "vmap"): Gap(
        "under vmap torch's `pack_padded_sequence` has no gradient by what it packs",
        "Cannot access data pointer",
    ),
    (PACKED, "compile"): Gap(
        "torch leaves `pack_padded_sequence` out of its graph: compile without `fullgraph=True`",
        "marked as skipped",
    ),
}


def gap(row: Row, column: str) -> Gap | None:
    """The gap that a field is known to have."""
    if row.theirs is None and column == "equal to torch's":
        return NO_TWIN
    return GAPS.get((row.text, column))
