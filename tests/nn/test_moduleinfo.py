"""torch's own inputs for `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells, through our layers."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
import torch
from nn import borrowed
from nn.borrowed import CELLS, CHECKS, LAYERS, OF_CELLS, SKIPPED, made, ours, samples
from nn.calls import again, function, gradients, leaves, of_one, with_gaps
from nn.eager import assert_close
from tolerances import TORCH
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence

import bptt.nn

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's inputs and tools warn of themselves
every_module = pytest.mark.parametrize("name", [*LAYERS, *CELLS])
every_layer = pytest.mark.parametrize("name", LAYERS)


# --- what we have ---------------------------------------------------------------------------------


def test_nothing_of_torchs_is_left_out() -> None:
    """Every module of which torch has inputs is run, and each has some."""
    assert sorted(borrowed.infos()) == sorted([*LAYERS, *CELLS])
    for name in (*LAYERS, *CELLS):
        assert len(samples(name)) >= 2
    run = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(CHECKS) <= run
    left_out = {name for name, of, _ in SKIPPED if of == "all"}
    assert not left_out & set(CHECKS)
    assert set(OF_CELLS) < set(CHECKS)


# --- numbers --------------------------------------------------------------------------------------


@every_module
def test_forward(name: str) -> None:
    for training in (True, False):
        for sample in samples(name, training=training):
            given = sample.forward_input.args
            mine = ours(name, sample).train(training)
            found = mine(*given)
            theirs = made(name, sample).train(training)(*given)
            assert_close(leaves(found), leaves(theirs), TORCH)
            if sample.reference_fn is not None and not isinstance(given[0], PackedSequence):
                # a cell's reference adds a batch, which one step takes as a cell does
                truth = sample.reference_fn(mine, *given)
                assert_close(leaves(found), leaves(truth), TORCH)


@every_module
def test_non_contiguous_tensors(name: str) -> None:
    for sample in samples(name):
        f, at = function(ours(name, sample), sample.forward_input.args)
        found = gradients(f, [with_gaps(x) for x in at], gaps=True)
        assert_close(found, gradients(f, at), TORCH)


def distinct(name: str) -> list[Any]:
    """torch's inputs but for those that differ from others in the order of two axes."""
    return [s for s in samples(name) if not s.constructor_input.kwargs.get("batch_first")]


@every_module
def test_grad(name: str) -> None:
    for sample in distinct(name):
        assert gradcheck(*function(ours(name, sample), sample.forward_input.args), fast_mode=True)


@every_module
def test_gradgrad(name: str) -> None:
    for sample in distinct(name):
        f, at = of_one(*function(ours(name, sample), sample.forward_input.args))
        assert gradgradcheck(f, at, fast_mode=True)


@every_layer
def test_if_train_and_eval_modes_differ(name: str) -> None:
    for sample in samples(name):
        module, given = ours(name, sample), sample.forward_input.args
        trained = module.train()(*given)
        assert_close(leaves(module.eval()(*given)), leaves(trained), 0.0)


# --- what a module is beside its numbers ----------------------------------------------------------


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_factory_kwargs(name: str, device: str, dtype: torch.dtype) -> None:
    for sample in samples(name):
        module = ours(name, sample, dtype=dtype, device=device)
        assert {(p.device.type, p.dtype) for p in module.state_dict().values()} == {(device, dtype)}


@every_layer
def test_device_ctx_init(name: str) -> None:
    for sample in samples(name):
        with torch.device("meta"):
            assert all(p.is_meta for p in ours(name, sample).parameters())


@every_layer
def test_repr(name: str) -> None:
    for sample in samples(name):
        assert repr(ours(name, sample)) == repr(made(name, sample))


@every_layer
def test_save_load(name: str) -> None:
    for sample in samples(name):
        module, theirs = ours(name, sample), made(name, sample)
        given = sample.forward_input.args
        expected = leaves(module(*given))
        pickled = pickle.loads(pickle.dumps(module))  # noqa: S301  # it is our own
        for copied in (copy.deepcopy(module), pickled):
            assert_close(leaves(copied(*given)), expected, 0.0)
        for p in module.parameters():
            nn.init.zeros_(p)
        assert_close(leaves(pickled(*given)), expected, 0.0)
        assert list(module.state_dict()) == list(theirs.state_dict())
        module.load_state_dict(theirs.state_dict())
        assert_close(leaves(module(*given)), expected, 0.0)
        theirs.load_state_dict(module.state_dict())


@every_layer
def test_to(name: str) -> None:
    for sample in samples(name, dtype=torch.float32):
        given = sample.forward_input.args
        module = ours(name, sample, dtype=torch.float32).to(torch.float64)
        wide = again(given, [x.double() for x in leaves(given)])
        theirs = made(name, sample, dtype=torch.float32).to(torch.float64)
        expected = leaves(theirs(*wide))
        assert_close(leaves(module(*wide)), expected, TORCH)
        if isinstance(given[0], PackedSequence):
            continue  # the orders of a ragged batch would have to move along
        found = leaves(module.to("meta")(*again(wide, [x.to("meta") for x in leaves(wide)])))
        assert [(y.shape, y.dtype) for y in found] == [(y.shape, y.dtype) for y in expected]
        assert all(y.is_meta for y in found)


@every_layer
def test_to_empty(name: str) -> None:
    for sample in samples(name):
        module = ours(name, sample, device="meta").to_empty(device="cpu")
        module.load_state_dict(ours(name, sample).state_dict())
        given = sample.forward_input.args
        assert_close(leaves(module(*given)), leaves(made(name, sample)(*given)), TORCH)


@every_layer
def test_errors(name: str) -> None:
    info = borrowed.infos()[name]
    options = {"device": "cpu", "dtype": torch.float64, "requires_grad": False, "training": True}
    wrong = info.module_error_inputs_func(info, **options)
    assert len(wrong) > 5
    for case in wrong:
        said: list[str] = []
        for kind in (getattr(nn, name), getattr(bptt.nn, name)):
            with pytest.raises(case.error_type) as error:
                attempt(kind, case.module_error_input)
            assert re.search(case.error_regex, str(error.value))
            said.append(str(error.value))
        assert said[0] == said[1]


def attempt(kind: type[nn.Module], sample: Any) -> None:
    """Make a module and, where the sample says with what, call it."""
    module = kind(*sample.constructor_input.args, **sample.constructor_input.kwargs)
    if sample.forward_input is not None:
        module(*sample.forward_input.args, **sample.forward_input.kwargs)


# --- the checks can fail --------------------------------------------------------------------------


@pytest.mark.parametrize("check", [test_forward, test_grad, test_gradgrad])
def test_a_wrong_layer_is_seen(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value; a tenth more in its gradient; a constant to its second derivative."""

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.slope = 1.1 * x.detach().cos()
            return x.sin()

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return grads[0] * ctx.slope

    right = ours

    def wrong(name: str, sample: Any, **options: Any) -> nn.Module:
        module = right(name, sample, **options)
        forward = module.forward

        def off(*given: Any) -> Any:
            output, states = forward(*given)
            return Off.apply(output), states

        module.forward = off
        return module

    monkeypatch.setitem(globals(), "ours", wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        check("LSTM")
