"""`run` itself: groups, ragged batches, its lanes, and the sweeps that are awkward to derive."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from nn.eager import SIZES, Case, assert_close
from tolerances import TORCH
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from bptt.calculus.derive import adjoint
from bptt.calculus.rewrites import layer, lower
from bptt.errors import CellError, UserError
from bptt.ir.dims import shape_of
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import Program
from bptt.language.check import check
from bptt.nn import run
from bptt.nn.sweep import sweep_of
from bptt.printers.text import text

LSTM, GRU = Case("lstm"), Case("gru_cho")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")


def program(cell: str) -> Program:
    return lower(layer(check(cell).program))


def tensors(p: Program, length: int = 2, batch: int = 1, groups: int = 1) -> list[Tensor]:
    """Random tensors for the ports of any sweep."""
    generator = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    for port in inputs(p):
        dims = shape_of(p.dims(port.name), SIZES)
        lead = {At.STEPS: (length, batch), At.CONST: ()}.get(port.at, (batch,))
        dims = dims if dims or port.at is At.CONST else (1,)
        draw = torch.randn((groups, *lead, *dims), generator=generator, dtype=torch.float64)
        found.append((draw / 2).requires_grad_())
    return found


def orders(p: Program, given: list[Tensor] | None = None, *rest: Any) -> None:
    """Both orders of both modes, by differences."""
    given = tensors(p) if given is None else given

    def f(*given: Tensor) -> tuple[Tensor, ...]:
        return tuple(run(p, given, *rest))

    assert gradcheck(f, given, check_forward_ad=True)
    assert gradgradcheck(f, given, check_fwd_over_rev=True)


# --- groups -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("case", [LSTM, GRU], ids=lambda case: case.name)
@pytest.mark.parametrize("own", [(), ("U_n", "U_f"), None], ids=["shared", "mixed", "own"])
def test_groups_are_runs_side_by_side(case: Case, own: tuple[str, ...] | None) -> None:
    """A constant with one group is shared by all, and its gradient is the sum of theirs."""
    groups, given = 3, list[Tensor]()
    for k, port in enumerate(inputs(case.program)):
        single = port.at is At.CONST and own is not None and port.name not in own
        drawn = [case.tensors(seed=s)[k] for s in range(1 if single else groups)]
        given.append(torch.stack(drawn).requires_grad_())

    def each(*given: Tensor) -> tuple[Tensor, ...]:
        runs = [
            case.torchs(*(x[0 if x.shape[0] == 1 else g] for x in given)) for g in range(groups)
        ]
        return tuple(torch.stack(y) for y in zip(*runs, strict=True))

    found, expected = run(case.program, given), each(*given)
    assert_close(found, expected, TORCH)
    ours = torch.autograd.grad(sum(y.sin().sum() for y in found), given)
    assert_close(ours, torch.autograd.grad(sum(y.sin().sum() for y in expected), given), TORCH)


# --- ragged batches -----------------------------------------------------------------------------


def ragged(
    case: Case, program: Program, lengths: list[int]
) -> tuple[Any, Any, list[Tensor], Tensor]:
    """Our function of packed tensors, torch's (a sequence at a time), and what both are given."""
    sizes = [sum(n > t for n in lengths) for t in range(max(lengths))]
    given = [x.requires_grad_() for x in case.tensors(1, len(lengths))]
    place = case.place("x")
    given[place] = torch.randn(sum(sizes), SIZES["X"], dtype=torch.float64).requires_grad_()
    starts = [sum(sizes[:t]) for t in range(len(sizes))]
    batch_sizes = torch.tensor(sizes)

    def ours(*given: Tensor) -> tuple[Tensor, ...]:
        return tuple(y[0] for y in run(program, [x[None] for x in given], batch_sizes))

    def torchs(*given: Tensor) -> tuple[Tensor, ...]:
        out: list[list[Tensor]] = [[] for _ in sizes]
        finals: list[tuple[Tensor, ...]] = []
        ports = inputs(case.program)
        for b, n in enumerate(lengths):
            steps = range(n) if program.dir > 0 else range(n - 1, -1, -1)
            one = [
                x[b : b + 1] if p.at is At.START else x for p, x in zip(ports, given, strict=True)
            ]
            one[place] = torch.stack([given[place][starts[t] + b] for t in steps])[:, None]
            series, *last = case.torchs(*one)
            finals.append(tuple(last))
            for t, row in zip(steps, series, strict=True):
                out[t].append(row[0])
        packed = torch.stack([row for rows in out for row in rows])
        return packed, *(torch.cat(last) for last in zip(*finals, strict=True))

    return ours, torchs, given, batch_sizes


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("case", [LSTM, GRU], ids=lambda case: case.name)
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("lengths", [[4, 3, 3, 1], [2, 2], [1]], ids=str)
def test_a_ragged_batch_is_its_sequences(case: Case, direction: int, lengths: list[int]) -> None:
    p = replace(case.program, dir=direction)
    ours, torchs, given, _ = ragged(case, p, lengths)
    assert_close(ours(*given), torchs(*given), TORCH)

    def both_orders(f: Any) -> Any:
        y = sum((part.pow(2) + part.sin()).sum() for part in f(*given))
        first = torch.autograd.grad(y, given, create_graph=True)
        second = torch.autograd.grad(sum(g.sin().sum() for g in first), given)
        return first, second

    assert_close(both_orders(ours), both_orders(torchs), TORCH)


def test_ragged_batches_under_transforms() -> None:
    ours, torchs, given, _ = ragged(LSTM, LSTM.program, [3, 1])
    given = [x.detach() for x in given]
    at, along = tuple(given), tuple(x.cos() for x in given)
    assert_close(torch.func.jvp(ours, at, along), torch.func.jvp(torchs, at, along), TORCH)
    k = LSTM.weight
    dims = tuple(0 if n == k else None for n in range(len(given)))
    given[k] = torch.stack([given[k], given[k].sin()])
    assert_close(torch.vmap(ours, dims)(*given), torch.vmap(torchs, dims)(*given), TORCH)


@pytest.mark.filterwarnings("ignore")
def test_ragged_batches_in_compile() -> None:
    _, torchs, given, sizes = ragged(GRU, GRU.program, [3, 1])
    torch._dynamo.reset()
    program = GRU.text

    def packed(sizes: Tensor, *given: Tensor) -> Tensor:
        found = run(program, [x[None] for x in given], sizes)
        return sum((y.sin().sum() for y in found), torch.zeros(()))

    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(sizes, *given), given)
    expected = torch.autograd.grad(sum(y.sin().sum() for y in torchs(*given)), given)
    assert_close(found, expected, TORCH)
    torch._dynamo.reset()


def test_lengths_that_differ_along_a_vmapped_axis_are_refused() -> None:
    _, _, given, sizes = ragged(LSTM, LSTM.program, [3, 1])
    given = [x.detach()[None] for x in given]
    each = torch.vmap(lambda sizes: run(LSTM.program, given, sizes))
    for found, one in zip(
        each(torch.stack([sizes] * 2)), run(LSTM.program, given, sizes), strict=True
    ):
        assert_close(found, torch.stack([one] * 2), TORCH)
    with pytest.raises(UserError, match="ragged"):
        each(torch.stack([sizes, sizes.flip(0)]))


# --- sweeps that are awkward to derive ----------------------------------------------------------


def test_a_backward_pass_is_a_sweep_like_any_other() -> None:
    """Sums, emitted adjoints and edges as inputs and outputs."""
    p = program("h[t] = tanh(W @ x[t] + u*h[t-1])")
    orders(adjoint(p).program)


def test_a_linear_recurrence() -> None:
    """Its backward pass reads no series at all where only the first state is wanted."""
    p = program("input x: H\nh[t] = U @ h[t-1] + x[t]")
    orders(p)
    given = [x.detach() for x in tensors(p, 3)]
    start = inputs(p).index(Port("h", At.START))
    matrix = given[inputs(p).index(Port("U", At.CONST))][0]
    given[start].requires_grad_()
    final = run(p, given)[1]
    (grad,) = torch.autograd.grad(final.sum(), given[start])
    power = matrix @ matrix @ matrix
    assert_close(grad[0, 0], power.sum(0), TORCH)
    with forward_ad.dual_level():
        given = [x.detach() for x in given]
        given[start] = forward_ad.make_dual(given[start], torch.ones_like(given[start]))
        tangent = forward_ad.unpack_dual(run(p, given)[1]).tangent
    assert_close(tangent[0, 0], power.sum(1), TORCH)


@pytest.mark.parametrize(
    "cell",
    [
        "A = V - V.T\nh[t] = tanh(A @ h[t-1] + W @ x[t])",
        "input s: H per sequence\nh[t] = tanh(U @ h[t-1] + s*(W @ x[t]))",
        "h[t] = tanh(W @ x[t-1] + V @ x[t] + u*h[t-1])",
        "a[t] = sigmoid(dot(w, h[t-1]) + k)\nh[t] = a[t]*h[t-1] + tanh(W @ x[t])",
        "input x: H\nstate h = h0\nh[t] = tanh(x[t] + u*h[t-1])",
        "input x: H\noutput h, c\nc[t] = c[t-1] + x[t]\nh[t] = softmax(c[t])",
    ],
    ids=["once", "static", "shifted", "numbers", "start", "two outputs"],
)
def test_all_orders(cell: str) -> None:
    orders(program(cell))


def test_a_constant_that_is_never_trained_gets_no_gradient() -> None:
    p = program("const a\nh[t] = a*h[t-1] + W @ x[t]")
    given = tensors(p)
    a = inputs(p).index(Port("a", At.CONST))
    grads = torch.autograd.grad(run(p, given)[0].sum(), given, allow_unused=True)
    assert [k for k, grad in enumerate(grads) if grad is None] == [a]


# --- lanes --------------------------------------------------------------------------------------


class Wrapped(Tensor):
    """A subclass: it must not reach the kernel as if it were plain."""


@pytest.mark.parametrize("case", [LSTM, GRU], ids=lambda case: case.name)
def test_all_lanes_give_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a torch that lacks the private names by which the plain lane is chosen."""
    given = case.tensors(grad=True)

    def values_and_gradients() -> Any:
        y = case.ours(*given)
        return y, torch.autograd.grad(sum(part.sin().sum() for part in y), given)

    plain = values_and_gradients()
    entry = importlib.import_module("bptt.nn.lanes")
    for name in ("_keys", "_transforms", "_modes"):
        with monkeypatch.context() as patch:
            patch.setattr(entry, name, None)
            assert_close(values_and_gradients(), plain, TORCH)
    with monkeypatch.context() as patch:
        patch.setattr(entry, "_PLAIN", frozenset())
        assert_close(values_and_gradients(), plain, TORCH)
    wrapped = [x.detach().as_subclass(Wrapped) for x in given]
    assert_close([y.as_subclass(Tensor) for y in case.ours(*wrapped)], plain[0], TORCH)


def test_under_fake_tensors_only_shapes_are_computed() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        found = LSTM.ours(*(mode.from_tensor(x) for x in LSTM.tensors(5, 4)))
    assert [y.shape for y in found] == [y.shape for y in LSTM.ours(*LSTM.tensors(5, 4))]


def test_the_kernel_keeps_its_precision_under_autocast() -> None:
    given = LSTM.tensors(dtype=torch.float32)
    expected = LSTM.ours(*given)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(LSTM.ours(*given), expected, 0.0)


def test_results_are_fresh_and_contiguous_whatever_the_inputs_are() -> None:
    given = [x.mT.contiguous().mT if x.dim() > 1 else x for x in LSTM.tensors(4, 3)]
    given[-1] = given[-1][:1].expand(3, -1)
    found = LSTM.ours(*given)
    assert_close(found, LSTM.torchs(*given), TORCH)
    assert all(y.is_contiguous() for y in found)


@pytest.mark.parametrize(("length", "batch"), [(1, 1), (1, 4), (3, 0), (7, 5)])
@pytest.mark.parametrize("case", [LSTM, GRU], ids=lambda case: case.name)
def test_awkward_sizes(case: Case, length: int, batch: int) -> None:
    given = case.tensors(length, batch, grad=True)
    found, expected = case.ours(*given), case.torchs(*given)
    assert_close(found, expected, TORCH)
    ours = torch.autograd.grad(sum(y.sin().sum() for y in found), given)
    assert_close(ours, torch.autograd.grad(sum(y.sin().sum() for y in expected), given), TORCH)


# --- what it is given ---------------------------------------------------------------------------


def test_a_program_and_its_text_are_the_same() -> None:
    again = program("h[t] = tanh(W @ x[t] + u*h[t-1])")
    p = program("h[t] = tanh(W @ x[t] + u*h[t-1])")
    assert p is not again
    assert sweep_of(p) is sweep_of(again) is sweep_of(text(p))
    given = [x[None] for x in LSTM.tensors()]
    assert_close(run(LSTM.program, given), run(LSTM.text, given), 0.0)


def test_text_that_is_no_program_is_refused() -> None:
    with pytest.raises(CellError):
        run("h[t] = tanh(", [torch.ones(1)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda given: given[:-1], "reads 15 tensors"),
        (lambda given: [given[0][0], *given[1:]], r"`x` has the shape \[3, 2, 2\].*\[G, T, B, X\]"),
        (lambda given: [*given[:-1], given[-1][:, :1]], "`c` has the shape.*elsewhere B is 2"),
        (lambda given: [*given[:-1], given[-1][..., :2]], "`c` has the shape.*H is 3"),
        (lambda given: [given[0].expand(2, -1, -1, -1), *given[1:]], "`h` .*elsewhere G is 2"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change: Any, said: str) -> None:
    given = [x[None] for x in LSTM.tensors()]
    with pytest.raises(UserError, match=said):
        run(LSTM.program, change(given))
