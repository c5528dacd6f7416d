"""What is kept for the backward pass: less of it, and the same gradients."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import layers
import numpy as np
import pytest
import torch
from backends.reference.test_random_cells import sample, subjects
from hypothesis import given as drawn
from hypothesis import strategies as st
from nn.eager import Case, Function, assert_close, loss
from nn.test_sweep import forward as sweep_named
from nn.test_sweep import means_what_the_oracle_says, pulls, pushes
from random_cells import cells as random_cells
from random_cells import examples
from shapes import GRID, Shape, draw, packed, sizes_of
from subjects import CORE, NAMES, load
from tolerances import BACKEND, RANDOM, TORCH, TORCH_THIRD
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bptt.calculus.rewrites import layer, lower
from bptt.calculus.schedule import schedule
from bptt.errors import UserError
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Program
from bptt.language.check import check
from bptt.nn import LSTM, Recurrent, run
from bptt.nn.sweep import Keep, Sweep, sweep_of
from bptt.proof import sweeps

LESS: tuple[Keep, ...] = ("states", "sqrt")
KEEP: tuple[Keep, ...] = ("all", *LESS)
every_keep = pytest.mark.parametrize("keep", KEEP)
less = pytest.mark.parametrize("keep", LESS)
both_ways = pytest.mark.parametrize("way", [1, -1], ids=["from the first step", "from the last"])
# What torch says to itself: in forward mode it loads its own torch.jit, which it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")

# A layer has inputs; one of x[t-1] it gets as a copy state.
RUNS = tuple(name for name in NAMES if name not in ("autonomous", "classifier"))
SECOND = ("lstm", "gru_cho", "iosif", "layernorm_lstm", "slstm", "lstmp", "qrnn", "antisymmetric")


def program(name: str, way: int = 1) -> Program:
    """What a layer runs of a program of `subjects.NAMES`."""
    p = lower(layer(load(name if name in NAMES else f"{name}.cell")))
    return replace(p, dir=p.dir * way)


# --- the gradients of a run -----------------------------------------------------------------------


def tensors(p: Program, shape: Shape, rng: np.random.Generator) -> list[Tensor]:
    """Random tensors for the ports of `p`, as a backend takes them."""
    return laid_out(p, draw(p, shape, rng), shape)


def laid_out(p: Program, arrays: Mapping[Port, Any], shape: Shape) -> list[Tensor]:
    counts = shape.batch_sizes()
    return [
        torch.tensor(
            packed(arrays[port], counts) if counts and port.at is At.STEPS else arrays[port],
            requires_grad=True,
        )
        for port in inputs(p)
    ]


def ran(p: Program, given: list[Tensor], shape: Shape, keep: Keep) -> list[Tensor]:
    counts = shape.batch_sizes()
    return run(p, given, None if counts is None else torch.tensor(counts), keep)


def value(results: list[Tensor]) -> Tensor:
    """A number that depends on all of them, with curvature of its own."""
    return sum((y.pow(2) + y.sin()).sum() for y in results) + torch.zeros(())


def gradients(p: Program, given: list[Tensor], shape: Shape, keep: Keep) -> Any:
    """What a run gives, and the gradient by everything it is given."""
    found = ran(p, given, shape, keep)
    return found, grads_of(found, given)


def grads_of(results: list[Tensor], given: list[Tensor], **options: Any) -> Any:
    """The gradients of `value`: zeros by what is not trained."""
    return torch.autograd.grad(
        value(results), given, allow_unused=True, materialize_grads=True, **options
    )


def second(p: Program, given: list[Tensor], shape: Shape, keep: Keep) -> Any:
    first = grads_of(ran(p, given, shape, keep), given, create_graph=True)
    return first, grads_of(first, given)


@pytest.mark.usefixtures("poisoned")
@both_ways
@every_keep
@pytest.mark.parametrize("name", RUNS)
def test_gradients_are_the_oracles(
    name: str, keep: Keep, way: int, rng: np.random.Generator
) -> None:
    """By every input, first state and parameter, with a random loss on all that comes out."""
    p, shape = program(name, way), Shape(5, 2, (3, 2, 4))
    given = draw(p, shape, rng)
    found = dict(
        zip(outputs(p), run(p, held := laid_out(p, given, shape), None, keep), strict=True)
    )
    seeds = {port: rng.normal(size=tuple(y.shape)) for port, y in found.items()}
    total = sum((found[port] * torch.tensor(seed)).sum() for port, seed in seeds.items())
    grads = torch.autograd.grad(total, held, allow_unused=True, materialize_grads=True)
    truth = {port: np.zeros(tuple(x.shape)) for port, x in zip(given, held, strict=True)}
    for b in range(shape.batch):

        def of(port: Port, a: Any, b: int = b) -> Any:
            if port.at is At.CONST:
                return a[0]
            a = a[0][:, b] if port.at is At.STEPS else a[0][b]
            return a if p.dims(port.name) else a[..., 0]

        one = {port: of(port, a) for port, a in given.items()}
        want = sweeps.gradient(
            p, one, {port: of(port, a) for port, a in seeds.items()}, sizes_of(p, shape)
        )
        for port in truth:
            if port.at is At.CONST:
                truth[port][0] += want[port]
                continue
            a = want[port] if p.dims(port.name) else want[port][..., None]
            (truth[port][0][:, b] if port.at is At.STEPS else truth[port][0][b])[...] = a
    assert_close(grads, [torch.tensor(truth[port]) for port in inputs(p)], BACKEND["float64"])


@pytest.mark.usefixtures("poisoned")
@both_ways
@less
@pytest.mark.parametrize("shape", [*GRID, Shape(10, 3, lengths=(10, 4, 2)), Shape(17, 1)], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru_cho", "iosif", "ea_lstm"])
def test_awkward_shapes(
    name: str, shape: Shape, keep: Keep, way: int, rng: np.random.Generator
) -> None:
    """No steps, one, no sequences, groups, sequences of different lengths and of none."""
    p = program(name, way)
    given = tensors(p, shape, rng)
    expected = gradients(p, given, shape, "all")
    assert_close(gradients(p, given, shape, keep), expected, BACKEND["float64"])


@less
@pytest.mark.parametrize("name", RUNS)
def test_float32(name: str, keep: Keep, rng: np.random.Generator) -> None:
    p, shape = program(name), Shape(4, 2, (2, 2, 2))
    given = tensors(p, shape, rng)
    single = [x.detach().float().requires_grad_() for x in given]
    found, truth = gradients(p, single, shape, keep), gradients(p, given, shape, "all")
    assert all(y.dtype is torch.float32 for y in (*found[0], *found[1]))
    assert_close(found, truth, BACKEND["float32"])


@pytest.mark.usefixtures("poisoned")
@both_ways
@less
@pytest.mark.parametrize("name", SECOND)
def test_second_order(name: str, keep: Keep, way: int, rng: np.random.Generator) -> None:
    p = program(name, way)
    for shape in (Shape(5, 2), Shape(4, 3, lengths=(4, 2, 1))):
        given = tensors(p, shape, rng)
        assert_close(second(p, given, shape, keep), second(p, given, shape, "all"), TORCH)


# What a largest element is taken of decides, to the last digit, which one it is. Here the largest
# is a state that is kept.
LARGEST = """
z[t] = tanh(W @ x[t] + U @ h[t-1] + u*m[t-1])
m[t] = max(z[t])
h[t] = z[t]*m[t] + m[t-1]*z[t]**2
"""


@less
def test_the_largest_element_is_found_again(keep: Keep, rng: np.random.Generator) -> None:
    p, shape = lower(layer(check(LARGEST).program)), Shape(40, 6, (7, 5, 2))
    assert {"m", "z"} <= set(sweep_of(p).stated.program.outputs)
    given = tensors(p, shape, rng)
    expected = gradients(p, given, shape, "all")
    assert_close(gradients(p, given, shape, keep), expected, TORCH)


@examples(20)
@drawn(random_cells(), st.sampled_from(GRID), st.sampled_from((1, -1)), st.integers(0, 9))
def test_random_cells(source: str, shape: Shape, way: int, seed: int) -> None:
    for p in subjects(source, way):
        given = laid_out(p, sample(source, p, shape, seed), shape)
        expected = gradients(p, given, shape, "all")
        for keep in LESS:
            assert_close(gradients(p, given, shape, keep), expected, RANDOM)
    gc.collect()


# --- the sweeps -----------------------------------------------------------------------------------

SWEEPS = (*CORE, "antisymmetric", "kinky", "autonomous")


@pytest.mark.parametrize("name", SWEEPS)
def test_what_is_computed_again_stands_before_the_loop(name: str) -> None:
    """The loop of the backward pass has the phases it has where all is kept."""

    def loop(sweep: Sweep) -> tuple[int, int]:
        made = sweep.pull((True,) * len(sweep.outputs), (True,) * len(sweep.inputs)).sweep
        assert made is not None
        phases = schedule(made.program).loop
        return len(phases), sum(len(phase.gemms) for phase in phases)

    sweep = sweep_named(name)
    assert loop(sweep.stated) == loop(sweep.extended)


@pytest.mark.parametrize("name", SWEEPS)
def test_derived_sweeps_mean_what_the_oracle_says(name: str, rng: np.random.Generator) -> None:
    """For each choice of outputs that have an adjoint, and of inputs that want one."""
    sweep = sweep_named(name).stated
    assert sweep.complete
    for derived in (*pulls(sweep), *pushes(sweep)):
        means_what_the_oracle_says(derived.program, rng, BACKEND["float64"])


def test_what_is_kept() -> None:
    lstm = sweep_named("lstm")
    assert lstm.extended.program.outputs == ("h", "i", "f", "g", "o", "c")
    assert lstm.stated.program.outputs == ("h", "c")
    assert lstm.keeping("all") == (lstm.extended, lstm.kept)
    assert lstm.keeping("states") == (lstm.stated, (0, 2, 3))  # h, [c,] and the last h and c
    assert lstm.keeping(None) == (lstm, (0, 1, 2))
    assert (lstm.complete, lstm.stated.complete, lstm.extended.complete) == (False, True, True)
    rnn = sweep_named("rnn")
    assert rnn.stated is rnn.extended is rnn


# --- transforms -----------------------------------------------------------------------------------

LSTM_CASE, GRU_CASE = Case("lstm"), Case("gru_cho")
two_cells = pytest.mark.parametrize("case", [LSTM_CASE, GRU_CASE], ids=lambda case: case.name)
STEPS = 5  # windows of 3 and 2


def kept(case: Case, keep: Keep) -> Function:
    text = case.text
    return lambda *xs: tuple(y[0] for y in run(text, [x[None] for x in xs], None, keep))


def same(case: Case, keep: Keep, transform: Callable[[Function], Any]) -> None:
    """`transform` gives the same of our function as of torch's."""
    assert_close(transform(kept(case, keep)), transform(case.torchs), TORCH)


@less
def test_differences(keep: Keep) -> None:
    """Both orders of both modes, and gradients in batches."""
    f, given = kept(GRU_CASE, keep), GRU_CASE.tensors(2, 1, grad=True)
    assert gradcheck(f, given, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, given, check_fwd_over_rev=True)


@less
@two_cells
def test_func_grad(case: Case, keep: Keep) -> None:
    numbers, given = tuple(range(len(case.names))), case.tensors(STEPS)
    same(case, keep, lambda f: torch.func.grad(loss(f), numbers)(*given))


@less
@two_cells
def test_vmap(case: Case, keep: Keep) -> None:
    """Over data, over parameters, and gradients of each sample."""
    x, k = case.place("x"), case.weight
    many = case.tensors(STEPS)
    data, weights = list(many), list(many)
    data[x] = torch.stack([case.tensors(STEPS, seed=s)[x] for s in range(3)])
    weights[k] = torch.stack([case.tensors(seed=s)[k] for s in range(3)])

    def over(n: int) -> tuple[int | None, ...]:
        return tuple(0 if m == n else None for m in range(len(many)))

    same(case, keep, lambda f: torch.vmap(f, over(x))(*data))
    same(case, keep, lambda f: torch.vmap(f, over(k))(*weights))
    same(case, keep, lambda f: torch.vmap(torch.func.grad(loss(f), (x, k)), over(x))(*data))
    held = [t.clone().requires_grad_() for t in data]
    same(
        case,
        keep,
        lambda f: torch.autograd.grad(torch.vmap(loss(f), over(x))(*held).pow(2).sum(), held),
    )


@less
@two_cells
def test_forward_mode(case: Case, keep: Keep) -> None:
    at, along = tuple(case.tensors(STEPS)), tuple(case.tensors(STEPS, seed=1))
    same(case, keep, lambda f: torch.func.jvp(f, at, along))
    same(case, keep, lambda f: torch.func.hessian(loss(f), case.weight)(*at))

    def tangents(f: Function) -> Any:
        with forward_ad.dual_level():
            duals = f(*(forward_ad.make_dual(x, t) for x, t in zip(at, along, strict=True)))
            return [forward_ad.unpack_dual(y).tangent for y in duals]

    same(case, keep, tangents)


@less
def test_third_order(keep: Keep) -> None:
    given = GRU_CASE.tensors(3, grad=True)

    def third(f: Function) -> Any:
        y = sum(part.pow(3).sum() for part in f(*given))
        for _ in range(2):
            y = sum(g.pow(2).sum() for g in torch.autograd.grad(y, given, create_graph=True))
        return torch.autograd.grad(y, given)

    assert_close(third(kept(GRU_CASE, keep)), third(GRU_CASE.torchs), TORCH_THIRD)


# --- layers ---------------------------------------------------------------------------------------

X, H, B = 3, 5, 4


def trained(module: nn.Module, *given: Any, **others: Any) -> Any:
    """What a layer gives, and the gradients by its parameters and by `given`."""
    output, states = module(*given, **others)
    output = output if isinstance(output, Tensor) else output.data
    wanted = [*module.parameters()]
    for a in given:
        wanted += [a] if isinstance(a, Tensor) else list(a) if isinstance(a, tuple) else []
    wanted = [x for x in wanted if isinstance(x, Tensor) and x.requires_grad]
    results = [output, *states]
    return results, grads_of(results, wanted)


@pytest.mark.usefixtures("poisoned")
@less
@pytest.mark.parametrize("name", [*CORE, "clockwork", "zoneout", "fastgrnn", "lmu"])
def test_every_kind_of_layer(name: str, keep: Keep) -> None:
    """Two layers of both directions, with the states and all inputs given."""
    ours = layers.made(name, num_layers=2, bidirectional=True)
    x, others = layers.given(ours, 5, 3)
    x.requires_grad_()
    states = tuple(s.clone().requires_grad_() for s in ours.initial_states(3))
    expected = trained(ours, x, states, **others)
    ours.keep = keep
    assert_close(trained(ours, x, states, **others), expected, TORCH)


@less
@pytest.mark.parametrize("name", ["lstm", "gru_cho", "ea_lstm", "sancho", "qrnn"])
def test_ragged_batches_in_any_order(name: str, keep: Keep) -> None:
    ours = layers.made(name, num_layers=2, bidirectional=True)
    x, others = layers.given(ours, 7, B)
    states = tuple(torch.rand_like(s).requires_grad_() for s in ours.initial_states(B))
    series = {n: o for n, o in others.items() if o.dim() == 3}
    for lengths in ([2, 7, 3, 1], [7, 7, 7, 7], [1, 1, 1, 1], [4, 5, 6, 7]):

        def pack(a: Tensor, lengths: list[int] = lengths) -> Any:
            return pack_padded_sequence(a, torch.tensor(lengths), enforce_sorted=False)

        given = x[: max(lengths)].clone().requires_grad_()
        more = {n: pack(o) if n in series else o for n, o in others.items()}

        def outcome(keep: Keep, given: Tensor = given, pack: Any = pack, more: Any = more) -> Any:
            ours.keep = keep
            output, last = ours(pack(given), states, **more)
            results = [pad_packed_sequence(output)[0], *last]
            wanted = [given, *states, *ours.parameters()]
            return results, grads_of(results, wanted)

        assert_close(outcome(keep), outcome("all"), TORCH)


@every_keep
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 2}], ids=str
)
def test_the_numbers_of_torchs_lstm(keep: Keep, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    theirs = nn.LSTM(X, H, dtype=torch.float64, **options)
    ours = LSTM(X, H, dtype=torch.float64, keep=keep, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, B, X, dtype=torch.float64, requires_grad=True)
    assert_close(trained(ours, x), trained(theirs, x), TORCH)


@less
def test_dropout_between_layers(keep: Keep) -> None:
    ours = layers.made("gru_cho", num_layers=2, dropout=0.5)
    x, _ = layers.given(ours, 7, B)
    torch.manual_seed(1)
    expected = trained(ours, x)
    ours.keep = keep
    torch.manual_seed(1)
    assert_close(trained(ours, x), expected, TORCH)


# --- how much -------------------------------------------------------------------------------------


def numbers_kept(call: Callable[[], Any]) -> tuple[int, Any]:
    """How many numbers the memory holds that a call has kept for its backward pass. And what the
    call gave."""
    storages: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        if x.is_floating_point():
            storages[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        found = call()
    return sum(x.untyped_storage().nbytes() // x.element_size() for x in storages.values()), found


def test_numbers_kept_of_an_lstm() -> None:
    """All: x and c, i, f, g, o, of which h is made again. States: x, h and c. Windows: x, and h and
    c where they begin."""
    steps, h = 100, 8
    ours = Recurrent("lstm", h, h, dtype=torch.float64)
    x = torch.randn(steps, B, h, dtype=torch.float64)
    weights = sum(p.numel() for p in ours.parameters())
    edge = 2 * B * h  # h and c, once
    found = {}
    for keep in KEEP:
        ours.keep = keep
        found[keep], (output, _) = numbers_kept(lambda: ours(x))
        output.sum().backward()
    series = steps * B * h
    assert found["all"] == weights + 6 * series + 2 * edge
    assert found["states"] == weights + 3 * series + 2 * edge
    assert found["sqrt"] == weights + series + 10 * edge


@every_keep
def test_numbers_kept_under_vmap(keep: Keep) -> None:
    """As many as of so many more sequences, but the first states are theirs together."""
    steps, h, many = 25, 6, 3
    ours = Recurrent("lstm", h, h, dtype=torch.float64, keep=keep)
    x = torch.randn(many, steps, B, h, dtype=torch.float64)
    edge, series = many * 2 * B * h, many * steps * B * h
    count = {"all": 7 * series + edge, "states": 3 * series + edge, "sqrt": series + 4 * edge}
    rest = sum(p.numel() for p in ours.parameters()) + 2 * B * h
    assert numbers_kept(lambda: torch.vmap(ours)(x))[0] == rest + count[keep]


def test_numbers_kept_of_two_layers_in_two_directions() -> None:
    """The inputs of the second layer are the outputs of the first, side by side."""
    steps, h = 49, 6
    ours = LSTM(h, h, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(steps, B, h, dtype=torch.float64)
    edge, series = 2 * B * h, steps * B * h
    weights = sum(p.numel() for n, p in ours.named_parameters() if "bias" not in n)
    weights += 4 * 4 * h  # of the two biases the sum is kept
    counts = {"all": 4 * 5 * series + 8 * edge, "states": 4 * 2 * series + 8 * edge}
    counts["sqrt"] = 4 * 7 * edge
    for keep, count in counts.items():
        ours.keep = keep
        # first states: one tensor a state for all layers and directions
        extra = 3 * series
        # but by windows both biases are kept, which are parameters, in place of their sum
        extra += 4 * 4 * h if keep != "sqrt" else 0
        assert numbers_kept(lambda: ours(x))[0] == weights + extra + count, keep


def test_the_series_of_a_window_are_given_back() -> None:
    """What a window gave is copied into the output; only the output is left."""
    ours = Recurrent("lstm", X, H, keep="sqrt")
    pieces: list[Any] = []
    cat = torch.cat

    def seen(tensors: Any, dim: int = 0) -> Tensor:
        pieces.extend(weakref.ref(x) for x in tensors)
        return cat(tensors, dim)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "cat", seen)
        output, _ = ours(torch.randn(9, B, X))
    gc.collect()
    assert len(pieces) == 3
    assert not any(piece() is not None for piece in pieces)
    output.sum().backward()


def test_nothing_is_kept_without_gradients() -> None:
    for keep in KEEP:
        ours = Recurrent("lstm", X, H, keep=keep)
        with torch.no_grad():
            assert numbers_kept(lambda ours=ours: ours(torch.randn(9, B, X)))[0] == 0


# --- the attribute --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda **o: Recurrent("lstm", X, H, **o), lambda **o: LSTM(X, H, **o)]
)
def test_keep_is_an_attribute(make: Any) -> None:
    assert make().keep == "all"
    ours = make(keep="states")
    for module in (ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):  # noqa: S301
        assert module.keep == "states"
    ours.keep = "sqrt"
    assert ours.keep == "sqrt"
    assert repr(ours).endswith(", keep=sqrt)")
    assert "keep" not in repr(make())
    assert ours.state_dict().keys() == make().state_dict().keys()
    make(keep="all").load_state_dict(ours.state_dict())
    assert ours.keep == "sqrt"


@pytest.mark.parametrize("wrong", ["state", "ALL", "", None, 2])
def test_another_word_is_refused(wrong: Any) -> None:
    message = r'keep is one of "all", "states", "sqrt", not '
    with pytest.raises(UserError, match=message):
        Recurrent("lstm", X, H, keep=wrong)
    with pytest.raises(UserError, match=message):
        LSTM(X, H, keep=wrong)
    ours = LSTM(X, H, keep="states")
    with pytest.raises(UserError, match=message):
        ours.keep = wrong
    assert ours.keep == "states"
    with pytest.raises(UserError, match=message):
        run(LSTM_CASE.program, [x[None] for x in LSTM_CASE.tensors()], None, wrong)


def test_windows_are_for_what_a_layer_runs() -> None:
    """The step before a window, and sums over several, are nobody's to give."""
    p, shape = lower(layer(load("classifier"))), Shape(5, 2)
    given = tensors(p, shape, np.random.default_rng(0))
    assert_close(gradients(p, given, shape, "states"), gradients(p, given, shape, "all"), TORCH)
    with pytest.raises(UserError, match=r"`x` .*some steps only"):
        gradients(p, given, shape, "sqrt")


# --- torch.compile and torch.export ---------------------------------------------------------------

compiles = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def compiler() -> Iterator[Callable[..., Any]]:
    """torch.compile, from an empty cache."""
    torch._dynamo.reset()
    yield torch.compile
    torch._dynamo.reset()


@compiles
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(compiler: Any, backend: str) -> None:
    ours = layers.made("gru_cho", num_layers=2, bidirectional=True)
    x, _ = layers.given(ours, 7, B)
    expected = trained(ours, x)
    compiled = compiler(ours, fullgraph=True, backend=backend)
    for keep in KEEP:
        ours.keep = keep  # also of what has been compiled
        assert_close(trained(compiled, x), expected, TORCH)


@compiles
def test_compiled_layers_keep_what_they_are_told(compiler: Any) -> None:
    ours = Recurrent("lstm", X, H, dtype=torch.float64)
    x = torch.randn(49, B, X, dtype=torch.float64)
    compiled = compiler(ours, fullgraph=True, backend="eager")
    for keep in KEEP:
        ours.keep = keep
        output = 49 * B * H if keep == "all" else 0  # which the short way makes again
        assert numbers_kept(lambda: compiled(x))[0] == numbers_kept(lambda: ours(x))[0] + output


@compiles
@every_keep
def test_compile_for_other_lengths(compiler: Any, keep: Keep) -> None:
    ours = layers.made("gru_cho", keep=keep)
    compiled = compiler(ours, fullgraph=True, backend="aot_eager")
    for steps in (5, 6, 17, 1):
        x, _ = layers.given(ours, steps, B)
        assert_close(trained(compiled, x), trained(ours, x), TORCH)


@compiles
@every_keep
def test_compile_with_ragged_batches(compiler: Any, keep: Keep) -> None:
    """torch cannot compile what a PackedSequence does; beside its graph the numbers are right."""
    ours = layers.made("gru_cho", keep=keep)
    x, _ = layers.given(ours, 7, B)
    packed_x = pack_padded_sequence(x, torch.tensor([7, 5, 2, 2]))
    expected = trained(ours, packed_x)
    assert_close(trained(compiler(ours, backend="aot_eager"), packed_x), expected, TORCH)


@compiles
def test_windows_of_ragged_batches_in_one_graph(compiler: Any) -> None:
    """It does not know how many there are, nor how long."""
    p, shape = LSTM_CASE.program, Shape(7, 4, lengths=(7, 5, 2, 2))
    given = tensors(p, shape, np.random.default_rng(0))
    text, batch_sizes = LSTM_CASE.text, torch.tensor(shape.batch_sizes())

    def windows(*xs: Tensor) -> list[Tensor]:
        return run(text, list(xs), batch_sizes, "sqrt")

    found = compiler(windows, fullgraph=True, backend="aot_eager")(*given)
    assert_close(grads_of(found, given), gradients(p, given, shape, "all")[1], TORCH)


@compiles
@every_keep
def test_export(keep: Keep) -> None:
    """A saved graph has the layer as one op, whatever is kept, and can be trained further."""
    ours = layers.made("gru_cho", keep=keep)
    x, _ = layers.given(ours, 7, B)
    exported = torch.export.export(ours, (x,))
    ops = [n for n in exported.graph.nodes if str(n.target) == "bptt.run.default"]
    assert len(ops) == 1
    assert_close(trained(exported.module(), x), trained(ours, x), TORCH)
