"""All of PyTorch around a layer: whole layers, with what they keep. `run` alone is tested in
test_transforms.py, and the options one by one in test_compatibility.py."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nn import process
from nn.calls import function, gradients, leaves, with_gaps
from nn.eager import assert_close
from nn.options import series
from tolerances import AUTOCAST, AUTOCAST_GRADIENT, AUTOCAST_STATE, TORCH
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.utils.checkpoint import checkpoint

from bptt.nn import LSTM

X, H, T, B = 2, 3, 4, 2
KEEP = ("all", "states", "sqrt")
every_keep = pytest.mark.parametrize("keep", KEEP)
compiles = pytest.mark.filterwarnings("ignore")
# What torch says to itself: in forward mode it loads its own torch.jit, which it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")


def lstm(**options: Any) -> LSTM:
    torch.manual_seed(0)
    return LSTM(X, H, dtype=torch.float64, **options)


def twin(layer: LSTM) -> nn.LSTM:
    """torch's layer with the same weights."""
    names = ("num_layers", "bidirectional", "proj_size")
    options: dict[str, Any] = {name: getattr(layer, name) for name in names}
    theirs = nn.LSTM(X, H, dtype=torch.float64, **options)
    theirs.load_state_dict(layer.state_dict())
    return theirs


def loss(found: Any) -> Tensor:
    """A number that depends on all that a layer gives, with curvature of its own."""
    return torch.stack([(y.pow(2) + y.sin()).sum() for y in leaves(found)]).sum()


def trained(layer: Any, x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """What a layer gives, and its gradients."""
    found = layer(x)
    return [*leaves(found), *torch.autograd.grad(loss(found), parameters)]


def same(found: nn.Module, expected: nn.Module, x: Tensor) -> None:
    ours = trained(found, x, [*found.parameters()])
    assert_close(ours, trained(expected, x, [*expected.parameters()]), TORCH)


# --- ensembles and samples ------------------------------------------------------------------------


@every_keep
def test_an_ensemble_is_trained_at_once(keep: str) -> None:
    """The gradients of torch's own layers, each alone, on data that all share."""
    ours = [LSTM(X, H, 2, bidirectional=True, keep=keep).double() for _ in range(3)]
    stacked, _ = stack_module_state(ours)
    x = series(T, B, X)

    def of(parameters: dict[str, Tensor]) -> Tensor:
        return loss(functional_call(ours[0], parameters, (x,)))

    found = torch.vmap(torch.func.grad(of))(stacked)
    through = torch.autograd.grad(torch.vmap(of)(stacked).sum(), [*stacked.values()])
    alone: list[list[Tensor]] = []
    for one in ours:
        theirs = twin(one)
        alone.append(trained(theirs, x, [*theirs.parameters()])[3:])
    expected = [torch.stack(each) for each in zip(*alone, strict=True)]
    assert_close([found[name] for name in stacked], expected, TORCH)
    assert_close(through, expected, TORCH)


@every_keep
def test_gradients_of_each_sample_of_an_ensemble(keep: str) -> None:
    """vmap in vmap: models, and sequences of a batch, cut out along its inner axis."""
    ours = [lstm(keep=keep) for _ in range(2)]
    for one in ours[1:]:
        one.weight_hh_l0.data.mul_(2)
    stacked, _ = stack_module_state(ours)
    x = series(T, 3, X)

    def of(parameters: dict[str, Tensor], sequence: Tensor) -> Tensor:
        return loss(functional_call(ours[0], parameters, (sequence,)))

    samples = torch.vmap(torch.func.grad(of), (None, 1))
    found = torch.vmap(samples, (0, None))(stacked, x)
    for k, one in enumerate(ours):
        theirs = twin(one)
        for n in range(3):
            expected = trained(theirs, x[:, n], [*theirs.parameters()])[3:]
            assert_close([found[name][k, n] for name in stacked], expected, TORCH)


# --- torch.compile --------------------------------------------------------------------------------


@pytest.fixture
def compiler() -> Iterator[Callable[..., Any]]:
    """torch.compile of a whole function, from an empty cache."""
    torch._dynamo.reset()
    yield lambda f, backend="aot_eager": torch.compile(f, fullgraph=True, backend=backend)
    torch._dynamo.reset()


@compiles
@every_keep
def test_compilations_for_every_length_and_batch(compiler: Any, keep: str) -> None:
    """The first shape is compiled as it is, the second as any shape, one step as a case of its
    own."""
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    layer = lstm(keep=keep)
    parameters = [*layer.parameters()]
    compiled = compiler(layer, counter)
    found: list[int] = []
    for shapes in (((5, 3), (6, 4), (9, 2), (17, 8), (9, 7)), ((1, 3), (1, 7))):
        for length, batch in shapes:
            x = series(length, batch, X)
            assert_close(trained(compiled, x, parameters), trained(layer, x, parameters), TORCH)
        found.append(counter.frame_count)
    assert found == [2, 3]


@compiles
def test_transforms_in_the_compiled_region(compiler: Any) -> None:
    """Gradients of each sample, second derivatives and forward mode, in one graph."""
    layer = lstm()
    x, parameters = series(T, 3, X), {n: p.detach() for n, p in layer.named_parameters()}
    along = {n: torch.full_like(p, 0.1) for n, p in parameters.items()}

    def everything(module: nn.Module) -> Callable[..., Any]:
        def of(parameters: dict[str, Tensor], sequence: Tensor) -> Tensor:
            return loss(functional_call(module, parameters, (sequence,)))

        def curve(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            slope = torch.func.grad(of)(parameters, x)
            return torch.stack([g.sin().sum() for g in slope.values()]).sum()

        def all_of(parameters: dict[str, Tensor], x: Tensor) -> Any:
            samples = torch.vmap(torch.func.grad(of), (None, 1))(parameters, x)
            second = torch.func.grad(curve)(parameters, x)
            _, tangent = torch.func.jvp(lambda p: of(p, x), (parameters,), (along,))
            return [*samples.values(), *second.values(), tangent]

        return all_of

    found = compiler(everything(layer))(parameters, x)
    assert_close(found, everything(layer)(parameters, x), TORCH)
    # torch's own layer has neither of the three; two of them can be had one by one
    theirs = twin(layer)
    grads = [trained(theirs, x[:, n], [*theirs.parameters()])[3:] for n in range(3)]
    expected = [torch.stack(each) for each in zip(*grads, strict=True)]
    assert_close(found[: len(expected)], expected, TORCH)
    slope = trained(theirs, x, [*theirs.parameters()])[3:]
    tangent = torch.stack([(g * 0.1).sum() for g in slope]).sum()
    assert_close(found[-1], tangent, TORCH)


@compiles
@every_keep
def test_a_second_derivative_through_a_compiled_layer_is_refused(compiler: Any, keep: str) -> None:
    """By torch, in its own words, and nothing is None where no one asked for that."""
    layer = lstm(keep=keep)
    parameters = [*layer.parameters()]
    value = loss(compiler(layer)(series(T, B, X)))
    first = torch.autograd.grad(value, parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(sum(g.pow(2).sum() for g in first), parameters)


# --- torch.export ---------------------------------------------------------------------------------

LOADED = """
import warnings
import torch
from nn.eager import assert_close
from tolerances import TORCH
import bptt.nn

torch.set_grad_enabled(True)
with warnings.catch_warnings():  # torch 2.11 warns of its own buffers
    warnings.filterwarnings("ignore", "The given buffer is not writable")
    layer = torch.export.load(FOLDER + "/layer.pt2").module()
x, *expected = torch.load(FOLDER + "/expected.pt")
output, (h, c) = layer(x)
total = sum((y.pow(2) + y.sin()).sum() for y in (output, h, c))
found = [output, h, c, *torch.autograd.grad(total, [*layer.parameters()])]
assert_close(found, expected, TORCH)
assert x.shape[:2] == (7, 5)
print("the same")
"""


@compiles
def test_an_exported_layer_in_a_new_process(tmp_path: Path) -> None:
    """Of any length and batch, its gradients too."""
    layer = lstm(num_layers=2, bidirectional=True)
    shapes = ({0: torch.export.Dim("T"), 1: torch.export.Dim("B")},)
    exported = torch.export.export(layer, (series(3, 2, X),), dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "layer.pt2")
    x, theirs = series(7, 5, X), twin(layer)
    expected = trained(theirs, x, [*theirs.parameters()])
    torch.save([x, *(y.detach() for y in expected)], tmp_path / "expected.pt")
    text = LOADED.replace("FOLDER", repr(str(tmp_path)))
    assert process.lines(tmp_path, text, PYTHONWARNINGS="ignore") == ["the same"]


# --- mixed precision ------------------------------------------------------------------------------


@every_keep
@pytest.mark.parametrize("kind", AUTOCAST)
def test_autocast_after_a_thousand_steps(kind: str, keep: str) -> None:
    """Against float64: the output is rounded once, and so is its adjoint."""
    dtype = getattr(torch, kind)
    torch.manual_seed(0)
    layer = LSTM(X, 8, num_layers=2, keep=keep)
    truth = nn.LSTM(X, 8, num_layers=2, dtype=torch.float64)
    truth.load_state_dict(layer.state_dict())
    x, by = torch.randn(1000, 2, X).to(dtype).float(), torch.randn(1000, 2, 8)
    with torch.autocast("cpu", dtype):
        output, states = layer(x)
        half, _ = layer(x.to(dtype))  # as what stands before it would give it
    assert output.dtype is half.dtype is dtype
    assert torch.equal(output, half)
    assert {s.dtype for s in states} == {torch.float32}
    expected, last = truth(x.double())
    assert_close(output, expected, AUTOCAST[kind])
    assert (output - expected).abs().max() > AUTOCAST_STATE  # rounded it is
    assert_close(states, last, AUTOCAST_STATE)
    found = torch.autograd.grad((output.float() * by).sum(), [*layer.parameters()])
    assert {g.dtype for g in found} == {torch.float32}
    true = torch.autograd.grad((expected * by).sum(), [*truth.parameters()])
    for g, t in zip(found, true, strict=True):
        assert (g - t).abs().max() <= AUTOCAST_GRADIENT[kind] * t.abs().max()


# --- DistributedDataParallel ----------------------------------------------------------------------

TWO = """
import os
import torch
import torch.distributed as dist
from nn.eager import assert_close
from tolerances import TORCH
from torch.nn.parallel import DistributedDataParallel
from bptt.nn import LSTM, Recurrent

KINDS = (
    lambda: LSTM(2, 3, num_layers=2, bidirectional=True, keep="states"),
    lambda: Recurrent("rnn", 2, 3),
)

def made(kind):
    torch.manual_seed(0)
    return kind().double()

def train(net, x, y):
    descent = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        descent.zero_grad()
        (net(x)[0].sum(-1) - y).square().mean().backward()
        descent.step()
    return [*net.parameters()]

torch.manual_seed(1)
x, y = torch.randn(6, 4, 2).double(), torch.randn(6, 4).double()
child = os.fork()
rank = int(child == 0)
dist.init_process_group("gloo", init_method="file://" + STORE, rank=rank, world_size=2)
mine = slice(2 * rank, 2 * rank + 2)
for kind in KINDS:
    found = train(DistributedDataParallel(made(kind)), x[:, mine], y[:, mine])
    assert_close(found, train(made(kind), x, y), TORCH)
dist.barrier()
dist.destroy_process_group()
if rank:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("both the same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    text = TWO.replace("STORE", repr(str(tmp_path / "store")))
    assert process.lines(tmp_path, text, PYTHONWARNINGS="ignore") == ["both the same"]


# --- modes ----------------------------------------------------------------------------------------


@every_keep
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.filterwarnings("ignore:Error detected in")
def test_anomaly_mode_finds_what_is_not_a_number(keep: str) -> None:
    layer, x = lstm(keep=keep), series(T, B, X)
    with torch.autograd.detect_anomaly():
        same(layer, twin(layer), x)
        x[0, 0, 0] = torch.inf  # the gates are 0 or 1, and a weight's gradient is 0 times that
        value = layer(x)[0].sum()
        assert value.isfinite()
        with pytest.raises(RuntimeError, match="returned nan values"):
            value.backward()


@every_keep
def test_deterministic_algorithms(keep: str) -> None:
    """They change nothing: the same bits, in memory that torch then fills with NaN."""
    layer, x = lstm(num_layers=2, bidirectional=True, keep=keep), series(T, B, X)
    expected = trained(layer, x, [*layer.parameters()])
    torch.use_deterministic_algorithms(True)
    try:
        found = trained(layer, x, [*layer.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(found, expected, 0.0)


@every_keep
def test_a_backward_pass_in_eval_mode(keep: str) -> None:
    """cuDNN refuses it; here training says only whether something is dropped."""
    layer, x = lstm(num_layers=2, dropout=0.5, keep=keep).eval(), series(T, B, X)
    same(layer, twin(layer), x)


@every_keep
def test_frozen_parameters_and_inputs(keep: str) -> None:
    """Each parameter alone is trained, then the input alone: it gets what it gets with the rest."""
    layer, x = lstm(num_layers=2, keep=keep), series(T, B, X)
    f, at = function(twin(layer), (x,))
    expected = dict(enumerate(gradients(f, at)[3:]))
    everything = [x, *layer.parameters()]
    for k in range(len(everything)):
        for n, tensor in enumerate(everything):
            tensor.requires_grad_(n == k).grad = None
        values = leaves(layer(x))
        generator = torch.Generator().manual_seed(2)
        seeds = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values]
        torch.autograd.backward(values, seeds)
        got = [n for n, tensor in enumerate(everything) if tensor.grad is not None]
        assert got == [k]
        assert_close(everything[k].grad, expected[k], TORCH)
    for tensor in everything:
        tensor.requires_grad_(False)
    assert not any(v.requires_grad for v in leaves(layer(x)))


@every_keep
def test_tensors_with_gaps(keep: str) -> None:
    """Inputs, states, parameters and adjoints that are views; also one row for all, and reversed
    axes."""
    layer = lstm(keep=keep)
    given = (series(T, B, X), (series(1, B, H), series(1, B, H)))
    f, at = function(layer, given)
    expected = gradients(*function(twin(layer), given))
    assert_close(gradients(f, [with_gaps(x) for x in at], gaps=True), expected, TORCH)
    for change in (lambda x: x.transpose(0, 1).contiguous().transpose(0, 1), lambda x: x[::2]):
        x = change(series(T, B, X))
        same(layer, twin(layer), x)
    same(layer, twin(layer), series(1, B, 1).expand(T, B, X))
    lasting = copy.deepcopy(layer)
    lasting.weight_hh_l0 = nn.Parameter(layer.weight_hh_l0.detach().mT.contiguous().mT)
    same(lasting, twin(layer), series(T, B, X))


@pytest.mark.parametrize("reentrant", [False, True])
@every_keep
def test_checkpoint(keep: str, reentrant: bool) -> None:
    layer = lstm(num_layers=2, keep=keep)
    x = series(T, B, X).requires_grad_()
    f, at = function(twin(layer), (x,))
    generator = torch.Generator().manual_seed(2)
    values = checkpoint(lambda x: tuple(leaves(layer(x))), x, use_reentrant=reentrant)
    assert isinstance(values, tuple)
    seeds = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values]
    torch.autograd.backward(values, seeds)
    found = [x.grad, *(p.grad for p in layer.parameters())]
    assert_close(found, gradients(f, at)[3:], TORCH)
