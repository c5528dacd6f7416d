"""Tensors that hold several constants, as those of torch's layers do: as if each were alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nn.eager import Case, Function, assert_close, loss
from tolerances import TORCH
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import bptt.nn
from bptt.ir.ports import At
from bptt.nn import run
from bptt.nn.stacks import Part, apart, parted, pulled
from bptt.nn.sweep import From, sweep_of

LSTM = Case("lstm")
entry = importlib.import_module("bptt.nn.run")
# The gates as they stand in each tensor: a fifth that nobody reads, and a second bias that one
# gate does without.
GATES = "ofi_g"
X, W, U, B, MORE, H, C = range(7)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")


def reads() -> tuple[Part, ...]:
    """Where the ports of the LSTM lie among tensors that are stacked."""
    found: list[Part] = []
    for name in LSTM.names:
        kind, _, gate = name.partition("_")
        if not gate:
            found.append(Part({"x": X, "h": H, "c": C}[name]))
            continue
        other = MORE if kind == "b" and gate != "f" else -1
        found.append(Part({"W": W, "U": U, "b": B}[kind], other, GATES.index(gate), len(GATES)))
    return tuple(found)


READS = reads()


def stacked(length: int = 3, batch: int = 2, *, grad: bool = False, seed: int = 0) -> list[Tensor]:
    """Random tensors that the ports lie in, without the axis of groups."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(length, batch, 2), (15, 2), (15, 3), (15,), (15,), (batch, 3), (batch, 3)]
    drawn = (torch.randn(s, generator=generator, dtype=torch.float64) / 2 for s in shapes)
    return [t.requires_grad_(grad) for t in drawn]


def ours(*tensors: Tensor, keep: Any = "all") -> tuple[Tensor, ...]:
    """The LSTM, told where its constants lie."""
    return tuple(y[0] for y in run(LSTM.text, [t[None] for t in tensors], keep=keep, reads=READS))


def torchs(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same by torch's own operations."""
    parts = parted(READS, [t[None] for t in tensors])
    return LSTM.torchs(*[p[0] for p in parts])


def same(transform: Callable[[Function], Any], tolerance: float = TORCH) -> None:
    assert_close(transform(ours), transform(torchs), tolerance)


@pytest.mark.parametrize("keep", ["all", "states", "sqrt"])
def test_values_and_gradients(keep: Any) -> None:
    tensors = stacked(grad=True)

    def both(f: Function) -> Any:
        y = f(*tensors)
        return y, torch.autograd.grad(sum(part.sin().sum() for part in y), tensors)

    assert_close(both(lambda *ts: ours(*ts, keep=keep)), both(torchs), TORCH)
    spare = both(ours)[1][W][3 * 3 : 4 * 3]  # of the gate that nobody reads
    assert not spare.any()


def test_every_order_by_differences() -> None:
    tensors = stacked(2, 1, grad=True)
    assert gradcheck(ours, tensors, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(ours, tensors, check_fwd_over_rev=True)


def test_some_gradients() -> None:
    for wanted in ([W], [B], [MORE], [U, H], [X]):
        tensors = [t.requires_grad_(k in wanted) for k, t in enumerate(stacked())]
        same(lambda f, ts=tensors, w=wanted: torch.autograd.grad(loss(f)(*ts), [ts[k] for k in w]))


def test_a_tangent_of_one_bias_alone() -> None:
    def tangents(f: Function) -> Any:
        with forward_ad.dual_level():
            tensors = stacked()
            tensors[MORE] = forward_ad.make_dual(tensors[MORE], torch.ones(15).double())
            return [forward_ad.unpack_dual(y).tangent for y in f(*tensors)]

    same(tangents)


@pytest.mark.parametrize("k", [X, W, B, MORE, H])
def test_vmap_over_one(k: int) -> None:
    tensors = stacked()
    tensors[k] = torch.stack([stacked(seed=s + 1)[k] for s in range(4)])
    dims = tuple(0 if n == k else None for n in range(7))
    wanted = tuple(range(7))
    same(lambda f: torch.vmap(f, dims)(*tensors))
    same(lambda f: torch.vmap(torch.func.grad(loss(f), wanted), dims)(*tensors))


def test_in_a_compiled_graph() -> None:
    """Where torch itself takes the tensors apart."""
    tensors = stacked(grad=True)

    def grads(f: Function) -> Any:
        return torch.autograd.grad(loss(f)(*tensors), tensors)

    assert_close(grads(torch.compile(ours, backend="aot_eager", fullgraph=True)), grads(ours), 0.0)


# --- what a backward pass gives -----------------------------------------------------------------


def runs(monkeypatch: pytest.MonkeyPatch, f: Callable[[], Any]) -> list[tuple[Any, Any]]:
    """The sweeps that `f` runs, each with what it gives in one."""
    found: list[tuple[Any, Any]] = []
    usual = entry.kernel

    def seen(sweep: Any, tensors: Any, batch_sizes: Any, gives: Any = None) -> Any:
        found.append((sweep, gives))
        return usual(sweep, tensors, batch_sizes, gives)

    with monkeypatch.context() as patch:
        patch.setattr(entry, "kernel", seen)
        f()
    return found


def of_each_sample(layer: torch.nn.Module) -> Any:
    weights = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(p: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(layer, p, (one,))[0].square().sum()

    return torch.vmap(torch.func.grad(loss), (None, 0))(weights, torch.randn(4, 6, 1, 2))


def test_gradients_of_each_sample_are_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second gives what torch's parameters are given, in one tensor each, and nothing that
    only a derivative of it would read."""
    layer = bptt.nn.LSTM(2, 3)
    (_, _), (back, gives) = runs(monkeypatch, lambda: of_each_sample(layer))
    assert sorted(map(len, gives)) == [1, 1, 4, 4, 4]  # two last carries; weights, bias
    assert not [port for port in back.outputs if port.at is At.STEPS]


def test_gradients_that_lie_in_two_tensors() -> None:
    """A part that is in two sums is given once, and what is left over for itself."""
    sweep = sweep_of(LSTM.text).extended
    back = pulled(sweep, apart(sweep, READS), (True,) * len(sweep.outputs), (True,) * 7)
    assert back is not None
    assert [len(back.results[k] or ()) for k in (X, W, B, MORE)] == [1, 5, 5, 5]
    assert (back.results[MORE] or ())[GATES.index("f")] is None
    assert len({k for give in back.stacks.gives for k in give}) == len(back.sweep.outputs)
    assert {source for source, _ in back.feed} == {From.SAVED, From.SEED}


# --- derivatives of a backward pass, which may have kept nothing for them -----------------------

k = W


def at(f: Function, tensors: list[Tensor]) -> Function:
    """The loss as a function of one tensor."""
    return lambda w: loss(f)(*tensors[:k], w, *tensors[k + 1 :])


def by_an_outer_graph(f: Function) -> Any:
    tensors = stacked(grad=True)
    found = torch.func.grad(at(f, tensors))(tensors[k])
    return torch.autograd.grad(found.square().sum(), tensors)


def by_a_pullback(f: Function) -> Any:
    """`vjp` gives a function that runs when its own level is over, at one of the same number."""
    tensors = stacked()
    _, pull = torch.func.vjp(at(f, tensors), tensors[k])
    return torch.func.grad(lambda v: pull(v)[0].sin().sum())(torch.ones((), dtype=torch.float64))


def by_a_pullback_within(f: Function) -> Any:
    tensors = stacked()

    def inner(w: Tensor) -> Tensor:
        y, pull = torch.func.vjp(at(f, tensors), w)
        return pull(y)[0].sin().sum()

    return torch.func.grad(inner)(tensors[k])


def by_a_graph_within(f: Function) -> Any:
    tensors = stacked()

    def inner(w: Tensor) -> Tensor:
        w = w * 1
        (found,) = torch.autograd.grad(at(f, tensors)(w), w, create_graph=True)
        return found.square().sum()

    return torch.func.grad(inner)(tensors[k])


def by_a_tangent(f: Function) -> Any:
    tensors = stacked()
    return torch.func.jvp(torch.func.grad(at(f, tensors)), (tensors[k],), (tensors[k].cos(),))


def by_an_outer_tangent(f: Function) -> Any:
    tensors = stacked()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(tensors[k], tensors[k].cos())
        return forward_ad.unpack_dual(torch.func.grad(at(f, tensors))(dual)).tangent


def by_each_sample(f: Function) -> Any:
    tensors = stacked()
    xs = torch.stack([stacked(seed=s)[X] for s in range(3)])

    def norm(w: Tensor) -> Tensor:
        def one(x: Tensor) -> Tensor:
            return torch.func.grad(at(f, [x, *tensors[1:]]))(w).square().sum()

        return torch.vmap(one)(xs).sum()

    return torch.func.grad(norm)(tensors[k])


@pytest.mark.parametrize("told", [None, True, False], ids=["as it is", "kept", "not kept"])
@pytest.mark.parametrize(
    "way",
    [
        by_an_outer_graph,
        by_a_pullback,
        by_a_pullback_within,
        by_a_graph_within,
        by_a_tangent,
        by_an_outer_tangent,
        by_each_sample,
    ],
    ids=lambda way: way.__name__,
)
def test_a_derivative_of_a_gradient(
    way: Callable[[Function], Any], told: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right also where what is said of it beforehand is not."""
    if told is not None:
        monkeypatch.setattr(entry, "derived_again", lambda tensors, own: told)
    same(way)


@pytest.mark.parametrize("name", ["_keys", "_transforms", "_stack", "_is_wrapped", "_unwrapped"])
def test_without_a_private_name_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_each_sample(ours)
    monkeypatch.setattr("bptt.nn.lanes." + name, None)
    assert_close(by_each_sample(ours), expected, TORCH)
