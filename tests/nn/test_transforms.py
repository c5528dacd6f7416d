"""Every transform that torch has, through `run`: the value, against a cell written in torch ops.

`opcheck` is no evidence: an op that loses its tangent, or its second derivative, passes it.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from nn.eager import Case, Function, assert_close, loss
from tolerances import BFLOAT16, TORCH, TORCH_THIRD
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

from bptt.ir.program import Kind
from bptt.nn import Recurrent
from bptt.nn.sweep import sweep_of

LSTM, GRU, IOSIF = (Case(name) for name in ("lstm", "gru_cho", "iosif"))
every_cell = pytest.mark.parametrize("case", [LSTM, GRU, IOSIF], ids=lambda case: case.name)
two_cells = pytest.mark.parametrize("case", [LSTM, GRU], ids=lambda case: case.name)
# What torch says to itself: in forward mode it loads its own torch.jit, which it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")
compiles = pytest.mark.filterwarnings("ignore")


def same(case: Case, transform: Callable[[Function], Any], tolerance: float = TORCH) -> None:
    """`transform` gives the same of our function as of torch's."""
    assert_close(transform(case.ours), transform(case.torchs), tolerance)


def short(case: Case, **options: Any) -> list[Tensor]:
    """Tensors small enough for differences by every entry."""
    return case.tensors(2, 1, grad=True, **options)


# --- reverse mode, to any order -----------------------------------------------------------------


@every_cell
@pytest.mark.usefixtures("poisoned")
def test_values(case: Case) -> None:
    same(case, lambda f: f(*case.tensors()))
    same(case, lambda f: f(*case.tensors(grad=True)))


@every_cell
@pytest.mark.usefixtures("poisoned")
def test_gradients(case: Case) -> None:
    tensors = case.tensors(grad=True)
    same(case, lambda f: torch.autograd.grad(loss(f)(*tensors), tensors))


@every_cell
def test_gradcheck(case: Case) -> None:
    assert gradcheck(case.ours, short(case))


@every_cell
def test_gradgradcheck(case: Case) -> None:
    assert gradgradcheck(case.ours, short(case))


@two_cells
@pytest.mark.usefixtures("poisoned")
def test_third_order(case: Case) -> None:
    tensors = case.tensors(grad=True)

    def third(f: Function) -> Any:
        y = sum(part.pow(3).sum() for part in f(*tensors))
        for _ in range(2):
            grads = torch.autograd.grad(y, tensors, create_graph=True)
            y = sum(g.pow(2).sum() for g in grads)
        return torch.autograd.grad(y, tensors)

    same(case, third, TORCH_THIRD)


@every_cell
def test_gradcheck_of_batched_gradients(case: Case) -> None:
    """With torch's older vmap, which knows no lists of tensors."""
    assert gradcheck(case.ours, short(case), check_batched_grad=True)


def test_two_gradients_at_once() -> None:
    tensors = LSTM.tensors(grad=True)

    def grads(f: Function) -> Any:
        y = f(*tensors)[0]
        seeds = torch.stack([torch.ones_like(y), torch.arange(y.numel()).reshape(y.shape) / 9.0])
        return torch.autograd.grad(y, tensors, seeds, is_grads_batched=True)

    same(LSTM, grads)


# --- forward mode -------------------------------------------------------------------------------


@every_cell
def test_gradcheck_of_forward_mode(case: Case) -> None:
    assert gradcheck(case.ours, short(case), check_forward_ad=True, check_backward_ad=False)


@two_cells
def test_gradgradcheck_of_forward_over_reverse(case: Case) -> None:
    check = {"check_fwd_over_rev": True, "check_rev_over_rev": False, "check_undefined_grad": False}
    assert gradgradcheck(case.ours, short(case), **check)


@every_cell
def test_dual_numbers_where_nothing_requires_a_gradient(case: Case) -> None:
    """The route where a tangent is lost without a word."""

    def tangents(f: Function) -> Any:
        with forward_ad.dual_level():
            pairs = zip(case.tensors(), case.tensors(seed=1), strict=True)
            duals = f(*(forward_ad.make_dual(x, t) for x, t in pairs))
            return [forward_ad.unpack_dual(y).tangent for y in duals]

    same(case, tangents)
    with torch.no_grad():
        same(case, tangents)


def test_a_tangent_of_one_parameter_alone() -> None:
    weight = LSTM.weight

    def tangents(f: Function) -> Any:
        with forward_ad.dual_level():
            tensors = LSTM.tensors()
            tensors[weight] = forward_ad.make_dual(
                tensors[weight], torch.ones_like(tensors[weight])
            )
            return [forward_ad.unpack_dual(y).tangent for y in f(*tensors)]

    same(LSTM, tangents)


# --- torch.func ---------------------------------------------------------------------------------


@every_cell
def test_func_grad(case: Case) -> None:
    numbers = tuple(range(len(case.names)))
    same(case, lambda f: torch.func.grad(loss(f), numbers)(*case.tensors()))


@two_cells
def test_func_jvp(case: Case) -> None:
    at, along = tuple(case.tensors()), tuple(case.tensors(seed=1))
    same(case, lambda f: torch.func.jvp(f, at, along))


@every_cell
def test_jacrev(case: Case) -> None:
    same(case, lambda f: torch.func.jacrev(f, (0, case.weight))(*case.tensors()))


@every_cell
def test_jacfwd(case: Case) -> None:
    same(case, lambda f: torch.func.jacfwd(f, (0, case.weight))(*case.tensors()))


@two_cells
def test_hessian_forward_over_reverse(case: Case) -> None:
    same(case, lambda f: torch.func.hessian(loss(f), case.weight)(*case.tensors()))


@two_cells
def test_hessian_vector_product_reverse_over_reverse(case: Case) -> None:
    same(case, lambda f: _hessian_vector(case, f)(*case.tensors()))


def _hessian_vector(case: Case, f: Function) -> Function:
    k = case.weight

    def product(*tensors: Tensor) -> Any:
        def along(weight: Tensor) -> Any:
            moved = [*tensors[:k], weight, *tensors[k + 1 :]]
            return (torch.func.grad(loss(f), k)(*moved) * tensors[k].cos()).sum()

        return torch.func.grad(along)(tensors[k])

    return product


# --- vmap ---------------------------------------------------------------------------------------


def _over(case: Case, *mapped: tuple[int, int]) -> tuple[int | None, ...]:
    """in_dims where tensor k is mapped over its axis d."""
    axes = dict(mapped)
    return tuple(axes.get(k) for k in range(len(case.names)))


@every_cell
@pytest.mark.usefixtures("poisoned")
def test_vmap_over_data(case: Case) -> None:
    x = case.place("x")
    same(case, lambda f: torch.vmap(f, _over(case, (x, 0)))(*case.stacked(x, 5)))


@every_cell
def test_vmap_over_parameters(case: Case) -> None:
    k = case.weight
    same(case, lambda f: torch.vmap(f, _over(case, (k, 0)))(*case.stacked(k, 5)))


@two_cells
def test_vmap_over_inner_axes(case: Case) -> None:
    x = case.place("x")
    same(case, lambda f: torch.vmap(f, _over(case, (x, 2)), 1)(*case.stacked(x, 5, 2)))


@two_cells
def test_vmap_within_vmap(case: Case) -> None:
    x, k = case.place("x"), case.weight
    tensors = case.stacked(x, 3)
    tensors[k] = case.stacked(k, 4)[k]

    def nested(f: Function) -> Any:
        inner = torch.vmap(f, _over(case, (x, 0)))
        return torch.vmap(inner, _over(case, (k, 0)))(*tensors)

    same(case, nested)


@every_cell
def test_gradients_of_each_sample(case: Case) -> None:
    x, k = case.place("x"), case.weight

    def each(f: Function) -> Any:
        grad = torch.func.grad(loss(f), (x, k, len(case.names) - 1))
        return torch.vmap(grad, _over(case, (x, 0)))(*case.stacked(x, 5))

    same(case, each)


def test_gradient_through_vmap() -> None:
    """Shared parameters get the sum over what vmap folded into the groups."""
    x = LSTM.place("x")
    tensors = [t.requires_grad_() for t in LSTM.stacked(x, 4)]

    def grads(f: Function) -> Any:
        y = torch.vmap(loss(f), _over(LSTM, (x, 0)))(*tensors).pow(2).sum()
        return torch.autograd.grad(y, tensors)

    same(LSTM, grads)


# --- torch.compile ------------------------------------------------------------------------------


@pytest.fixture
def compiler() -> Iterator[Callable[..., Any]]:
    """torch.compile of a whole function, from an empty cache."""
    torch._dynamo.reset()
    yield lambda f, backend="aot_eager": torch.compile(f, fullgraph=True, backend=backend)
    torch._dynamo.reset()


@compiles
@two_cells
def test_compile(case: Case, compiler: Any) -> None:
    tensors = case.tensors(grad=True)
    compiled = torch.autograd.grad(compiler(loss(case.ours))(*tensors), tensors)
    assert_close(compiled, torch.autograd.grad(loss(case.torchs)(*tensors), tensors), TORCH)


@compiles
@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="no C++ compiler")
def test_compile_with_inductor(compiler: Any) -> None:
    tensors = GRU.tensors(grad=True)
    compiled = torch.autograd.grad(compiler(loss(GRU.ours), "inductor")(*tensors), tensors)
    assert_close(compiled, torch.autograd.grad(loss(GRU.torchs)(*tensors), tensors), TORCH)


@compiles
def test_compile_once_for_every_length_and_batch(compiler: Any) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    compiled = compiler(loss(LSTM.ours), counter)
    for length, batch in ((5, 3), (6, 4), (9, 2), (17, 8)):
        tensors = LSTM.tensors(length, batch, grad=True)
        found = torch.autograd.grad(compiled(*tensors), tensors)
        assert_close(found, torch.autograd.grad(loss(LSTM.torchs)(*tensors), tensors), TORCH)
    assert counter.frame_count <= 2  # the first shape is a constant, the second a symbol


@compiles
@two_cells
def test_grad_in_compile(case: Case, compiler: Any) -> None:
    def grad(f: Function) -> Function:
        return torch.func.grad(loss(f), case.weight)

    tensors = case.tensors()
    assert_close(compiler(grad(case.ours))(*tensors), grad(case.torchs)(*tensors), TORCH)


@compiles
def test_gradients_of_each_sample_in_compile(compiler: Any) -> None:
    x = LSTM.place("x")

    def each(f: Function) -> Function:
        return torch.vmap(torch.func.grad(loss(f), (LSTM.weight,)), _over(LSTM, (x, 0)))

    tensors = LSTM.stacked(x, 5)
    ours = each(LSTM.ours)
    assert_close(compiler(ours)(*tensors), each(LSTM.torchs)(*tensors), TORCH)


@compiles
def test_jvp_in_compile(compiler: Any) -> None:
    along = tuple(LSTM.tensors(seed=1))

    def tangents(f: Function) -> Function:
        return lambda *tensors: torch.func.jvp(f, tensors, along)

    tensors = LSTM.tensors()
    assert_close(compiler(tangents(LSTM.ours))(*tensors), tangents(LSTM.torchs)(*tensors), TORCH)


@compiles
def test_second_order_in_compile(compiler: Any) -> None:
    tensors = LSTM.tensors()
    found = compiler(_hessian_vector(LSTM, LSTM.ours))(*tensors)
    assert_close(found, _hessian_vector(LSTM, LSTM.torchs)(*tensors), TORCH)


@compiles
def test_gradient_penalty_in_compile(compiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._dynamo.config, "trace_autograd_ops", True)

    def penalty(f: Function) -> Function:
        def of(*tensors: Tensor) -> Tensor:
            (grad,) = torch.autograd.grad(loss(f)(*tensors), [tensors[0]], create_graph=True)
            return grad.pow(2).sum()

        return of

    tensors = LSTM.tensors(grad=True)
    assert_close(compiler(penalty(LSTM.ours))(*tensors), penalty(LSTM.torchs)(*tensors), TORCH)


@compiles
def test_double_backward_through_compile_is_refused_by_torch(compiler: Any) -> None:
    """The one that cannot be had. torch compiles a backward pass that has no derivative, whatever
    is compiled: `x @ w` alone shows it. What matters is that it is refused, and not wrong."""
    x, w = (torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    grads = torch.autograd.grad(
        compiler(lambda x, w: (x @ w).sin().sum())(x, w), x, create_graph=True
    )
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grads[0].pow(2).sum(), (x, w))
    tensors = LSTM.tensors(grad=True)
    grads = torch.autograd.grad(compiler(loss(LSTM.ours))(*tensors), tensors, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grads[LSTM.weight].pow(2).sum(), tensors)


# --- torch.export -------------------------------------------------------------------------------


class _Layer(nn.Module):
    """A cell whose parameters are a module's, called with the rest."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.rest = case, [case.place("x"), case.place("h"), case.place("c")]
        for k, value in enumerate(case.tensors()):
            if k not in self.rest:
                self.register_parameter(f"p{k}", nn.Parameter(value))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return self.case.ours(*self.among((x, h, c)))

    def among(self, given: tuple[Tensor, ...]) -> list[Tensor]:
        found = dict(zip(self.rest, given, strict=True))
        return [
            found[k] if k in found else getattr(self, f"p{k}") for k in range(len(self.case.names))
        ]


@compiles
def test_export_with_any_length_and_batch() -> None:
    layer = _Layer(LSTM)

    def given(length: int, batch: int) -> tuple[Tensor, ...]:
        tensors = LSTM.tensors(length, batch)
        return tuple(tensors[k] for k in layer.rest)

    length, batch = torch.export.Dim("T"), torch.export.Dim("B")
    shapes = ({0: length, 1: batch}, {0: batch}, {0: batch})
    exported = torch.export.export(layer, given(3, 2), dynamic_shapes=shapes)
    exported.run_decompositions()
    ops = [str(n.target) for n in exported.graph.nodes if n.op == "call_function"]
    assert "bptt.run.default" in ops
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    at = given(7, 5)
    expected = LSTM.torchs(*layer.among(at))
    assert_close(exported.module()(*at), expected, TORCH)
    assert_close(loaded(*at), expected, TORCH)

    # what was exported can be trained further: the op in the graph has derivatives of its own
    def both_orders(value: Tensor, params: list[nn.Parameter]) -> Any:
        first = torch.autograd.grad(value, params, create_graph=True)
        return first, torch.autograd.grad(sum(g.sin().sum() for g in first), params)

    ours = both_orders(loss(loaded)(*at), [*loaded.parameters()])
    truth = both_orders(loss(LSTM.torchs)(*layer.among(at)), [*layer.parameters()])
    assert_close(ours, truth, TORCH)


# --- what else torch wraps around a call --------------------------------------------------------


def _layer() -> Recurrent:
    torch.manual_seed(0)
    return Recurrent("lstm", 2, 3, num_layers=2)


def test_autocast_computes_in_float32_and_gives_bfloat16() -> None:
    layer, x = _layer(), torch.randn(4, 2, 2, requires_grad=True)
    expected, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        output, states = layer(x)
        again, _ = layer(x.bfloat16())
    assert output.dtype is again.dtype is torch.bfloat16
    assert {s.dtype for s in states} == {torch.float32}
    assert_close(output.float(), expected, BFLOAT16)
    output.float().sum().backward()
    assert x.grad is not None
    assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} == {torch.float32}


@compiles
def test_autocast_in_compile(compiler: Any) -> None:
    layer, x = _layer(), torch.randn(4, 2, 2)
    compiled = compiler(layer)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(compiled(x)[0].float(), layer(x)[0].float(), BFLOAT16)
        assert compiled(x)[0].dtype is torch.bfloat16


@two_cells
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(case: Case, reentrant: bool) -> None:
    tensors = case.tensors(grad=True)

    def again(*tensors: Tensor) -> Any:
        return checkpoint(case.ours, *tensors, use_reentrant=reentrant)

    loss(again)(*tensors).backward()
    expected = torch.autograd.grad(loss(case.torchs)(*tensors), tensors)
    assert_close([x.grad for x in tensors], expected, TORCH)


def test_anomaly_mode() -> None:
    tensors = LSTM.tensors(grad=True)
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        loss(LSTM.ours)(*tensors).backward()


@every_cell
def test_meta_device(case: Case) -> None:
    """The shape rule, which is what is known of a cell before it runs."""
    tensors = case.tensors(5, 4, device="meta", grad=True)
    real = case.ours(*case.tensors(5, 4))
    found = case.ours(*tensors)
    assert [y.shape for y in found] == [y.shape for y in real]
    grads = torch.autograd.grad(sum(y.sum() for y in found), tensors)
    assert [g.shape for g in grads] == [x.shape for x in tensors]


def test_saved_tensor_hooks_see_all_that_is_kept() -> None:
    packed: list[Tensor] = []

    def pack(x: Tensor) -> int:
        packed.append(x)
        return len(packed) - 1

    tensors = LSTM.tensors(grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda k: packed[k]):
        y = LSTM.ours(*tensors)
    assert len(packed) > len(tensors)
    found = torch.autograd.grad(sum(part.sum() for part in y), tensors)
    expected = torch.autograd.grad(sum(part.sum() for part in LSTM.torchs(*tensors)), tensors)
    assert_close(found, expected, TORCH)


@every_cell
def test_frozen_parameters(case: Case) -> None:
    tensors = case.tensors()
    tensors[case.place("x")].requires_grad_()
    same(case, lambda f: torch.autograd.grad(loss(f)(*tensors), [tensors[case.place("x")]]))
    # and the work is not done: the sweep for the input alone sums nothing over time, and the
    # one for a parameter alone gives no series
    longer = sweep_of(case.program).extended
    given = (True,) * len(longer.outputs)
    for wanted in (case.place("x"), case.weight):
        part = longer.pull(given, tuple(k == wanted for k in range(len(case.names)))).sweep
        assert part is not None
        sums = {e.name for e in part.program.equations if e.kind is Kind.SUM}
        if wanted == case.weight:
            assert len(part.program.outputs) == 1 and not part.program.emits
        else:
            assert not sums and len(part.program.emits) == 1


def test_what_has_no_gradient_needs_no_work() -> None:
    tensors = LSTM.tensors()
    assert not any(y.requires_grad for y in LSTM.ours(*tensors))
    last = len(tensors) - 1
    tensors[last].requires_grad_()
    (grad,) = torch.autograd.grad(
        LSTM.ours(*tensors)[0].sum() * 0 + 1 * tensors[last].sum(), tensors[last]
    )
    assert_close(grad, torch.ones_like(grad), 0.0)


def test_outputs_that_the_loss_leaves_out() -> None:
    """An output without an adjoint is none, not zeros: each alone, and all but one."""
    tensors = LSTM.tensors(grad=True)
    for chosen in ((0,), (1,), (2,), (1, 2), (0, 2)):
        same(
            LSTM,
            lambda f, chosen=chosen: torch.autograd.grad(
                sum(f(*tensors)[k].sin().sum() for k in chosen), tensors
            ),
        )


def test_inference_mode() -> None:
    with torch.inference_mode():
        same(LSTM, lambda f: f(*LSTM.tensors()))


@compiles
@two_cells
def test_opcheck(case: Case) -> None:
    grouped = [x.detach()[None].requires_grad_() for x in case.tensors()]
    done = torch.library.opcheck(torch.ops.bptt.run, (case.text, grouped, None))
    assert set(done.values()) == {"SUCCESS"}
