"""What `nn.LSTM` lacks: dropout within the recurrence, zoneout, resets, every step's values."""

from __future__ import annotations

import copy
import math
import pickle
from itertools import pairwise
from typing import Any

import layers
import pytest
import torch
from nn.eager import assert_close
from tolerances import PIECES, SIGMAS, TORCH
from torch import Tensor
from torch.autograd import gradgradcheck
from torch.func import functional_call, vmap
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.nn import Recurrent, use_backend
from bptt.nn.batches import Batch
from bptt.nn.options import Mask, drawn, feeds

# What torch says to itself: in forward mode it loads its own torch.jit, which it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")
X, H, T, B = 3, 5, 7, 3
# Each pair of a backend and what it keeps costs a run of the compiler: some stand for all.
ways = pytest.mark.parametrize(
    ("backend", "keep"), [("auto", "all"), ("auto", "sqrt"), ("reference", "states")]
)
both_backends = pytest.mark.parametrize("backend", ["auto", "reference"])
RATES = {"recurrent_dropout": 0.3, "variational_dropout": 0.4, "zoneout": 0.2}
TWO = {"num_layers": 2, "bidirectional": True}


def layer(cell: Any, *, like: Recurrent | None = None, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    made = Recurrent(cell, X, H, dtype=torch.float64, **options)
    if like is not None:
        made.load_state_dict(like.state_dict())
    return made


def series(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def loss(found: Any) -> Tensor:
    """A number that depends on all of it, with curvature of its own."""
    leaves = torch.utils._pytree.tree_leaves(found)
    tensors = [y.data if isinstance(y, PackedSequence) else y for y in leaves]
    tensors = [y for y in tensors if y.is_floating_point()]
    weights = [torch.linspace(1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in tensors]
    return torch.stack([(y.sin() * w).sum() for y, w in zip(tensors, weights, strict=True)]).sum()


def grads(value: Any, wanted: Any) -> list[Tensor]:
    return list(
        torch.autograd.grad(loss(value), list(wanted), retain_graph=True, materialize_grads=True)
    )


def masks_of(ours: Recurrent, x: Tensor, seed: int) -> dict[str, Tensor]:
    """The masks that a layer of one direction draws after this seed, by the name of the value."""
    told = ours._options.told(True)
    torch.manual_seed(seed)
    (fed,) = feeds(told, x, Batch.of(x, False), ours._sizes, 1)
    return {name.split("$")[1]: mask for name, mask in fed.items()}


# --- dropout and zoneout against the cells that are written for them ------------------------------

WRITTEN: dict[str, tuple[dict[str, Any], Any]] = {
    "recurrent_dropout": ({"recurrent_dropout": 0.3}, lambda m, x: {"d": m["c"]}),
    "variational_dropout": (
        {"variational_dropout": 0.4},
        lambda m, x: {"z_h": m["h"], "z_x": torch.ones_like(x[0])},
    ),
    "zoneout": ({"zoneout": {"c": 0.5, "h": 0.1}}, lambda m, x: {"z_c": m["c"], "z_h": m["h"]}),
}


@ways
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.usefixtures("poisoned")
def test_equal_to_the_cell_that_is_written_for_it(name: str, backend: str, keep: str) -> None:
    options, fed = WRITTEN[name]
    ours = layer("lstm", keep=keep, **options)
    theirs = layer(name, like=ours)
    x, states = series(T, B, X).requires_grad_(), [series(1, B, H).requires_grad_() for _ in "hc"]
    others = fed(masks_of(ours, x, 7), x)
    torch.manual_seed(7)
    with use_backend(backend):
        found, true = ours(x, states), theirs(x, states, **others)
        assert_close(found, true, TORCH)
        first = grads(found, [x, *states, *ours.parameters()])
        assert_close(first, grads(true, [x, *states, *theirs.parameters()]), TORCH)
    assert not torch.allclose(found[0], layer("lstm", like=ours)(x, states)[0])


def test_a_named_value_is_dropped() -> None:
    """Semeniuta's mask on the candidate, by its name, is the mask on what is added."""
    by_state, by_value = (layer("lstm", recurrent_dropout={name: 0.5}) for name in "cg")
    x = series(T, B, X)
    found = []
    for ours in (by_state, by_value):
        torch.manual_seed(3)
        found.append(ours(x))
    assert_close(found[0], found[1], TORCH)


def test_outside_of_training_only_zoneout_acts_by_its_expectation() -> None:
    x = series(T, B, X)
    plain = layer("lstm")
    dropped = layer("lstm", like=plain, recurrent_dropout=0.3, variational_dropout=0.4).eval()
    assert_close(dropped(x), plain(x), 0.0)
    kept = layer("lstm", like=plain, zoneout={"c": 0.5, "h": 0.1}).eval()
    z = {name: torch.full((T, B, H), p, dtype=x.dtype) for name, p in (("z_c", 0.5), ("z_h", 0.1))}
    truth = layer("zoneout", like=plain)(x, **z)
    before = torch.get_rng_state()
    assert_close(kept(x), truth, TORCH)
    with torch.no_grad():
        assert_close(kept(x), truth, TORCH)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_stepper_has_zoneouts_expectation() -> None:
    ours = layer("lstm", zoneout=0.3).eval()
    x = series(T, B, X)
    with torch.no_grad():
        output, states = ours(x)
        step = ours.stepper(B)
        found = [step(x[t]).clone() for t in range(T)]
    assert_close([torch.stack(found), *step.states], [output, *states], TORCH)


@pytest.mark.parametrize("options", [{name: rate} for name, rate in RATES.items()], ids=str)
def test_a_seed_repeats_the_masks(options: dict[str, Any]) -> None:
    ours, x = layer("gru", **options, **TWO), series(T, B, X)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(ours(x)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize("zoneout", [False, True])
@pytest.mark.parametrize("per_sequence", [False, True])
def test_masks_have_their_probability_and_mean(per_sequence: bool, zoneout: bool) -> None:
    torch.manual_seed(0)
    rate, x = 0.3, series(40, 50, X)
    mask = drawn(Mask("m", H, rate, per_sequence, zoneout), x, Batch.of(x, False), 20)
    assert mask.shape == ((50, 20) if per_sequence else (40, 50, 20))
    ones = mask if zoneout else 1 - mask * (1 - rate)  # 1 where it is kept, or dropped
    assert set(ones.round(decimals=12).abs().unique().tolist()) == {0.0, 1.0}
    deviation = math.sqrt(rate * (1 - rate) / mask.numel())
    assert abs(ones.mean().item() - rate) <= SIGMAS * deviation
    along_units = ones.mean(tuple(range(mask.dim() - 1)))  # no unit is treated otherwise
    within = SIGMAS * math.sqrt(rate * (1 - rate) * 20 / mask.numel())
    assert (along_units - rate).abs().max().item() <= within


def test_the_mean_over_masks_of_a_linear_cell_is_its_expectation() -> None:
    """Where nothing is squashed, dropout's mean is the cell itself, and zoneout's is its own."""
    p = 0.4
    text = "h[t] = a * h[t-1] + b * x[t]\ninput x: H\nparam a: H, b: H"
    count = 4000
    x = series(4, 1, 2).expand(4, count, 2).contiguous()
    for options in ({"recurrent_dropout": p}, {"zoneout": p}):
        torch.manual_seed(0)
        ours = Recurrent(Cell(text), 2, 2, dtype=torch.float64, **options)
        with torch.no_grad():
            found, _ = ours(x)
            truth, _ = ours.eval()(x[:, :1])
        spread = found.std(1, keepdim=True) / math.sqrt(count)
        assert ((found.mean(1, keepdim=True) - truth).abs() <= SIGMAS * spread).all()


def test_every_gradient_of_all_options_together() -> None:
    """By differences, in forward mode too, and the second: of what runs, once more, on torch's own
    operations (its compiled form is compared with others below)."""
    with use_backend("reference"):
        check_gradients(layers.made("lstm", **RATES))


def check_gradients(ours: Recurrent) -> None:
    x = series(3, 2, ours.input_size).requires_grad_()
    starts = tuple(s.add(0.1).requires_grad_() for s in ours.initial_states(2))
    resets = torch.tensor([[False, True], [True, False], [False, False]])
    names = [n for n, _ in ours.named_parameters()]

    def f(x: Tensor, *rest: Tensor) -> Any:
        torch.manual_seed(1)
        given = dict(zip(names, rest[len(starts) :], strict=True))
        options = {"resets": resets, "return_states": "all"}
        output, states, every = functional_call(ours, given, (x, rest[: len(starts)]), options)
        return output, *states, *every.values()

    at = (x, *starts, *ours.parameters())
    assert torch.autograd.gradcheck(f, at, fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(f, at, fast_mode=True)


def test_second_derivatives_of_all_options_compiled() -> None:
    """They are those of torch's own operations, which the test above differentiates."""
    ours = layer("gru", **RATES)
    x, h = series(4, B, X).requires_grad_(), series(1, B, H).requires_grad_()
    wanted = [x, h, *ours.parameters()]
    mixed = []
    for backend in ("auto", "reference"):
        torch.manual_seed(6)
        with use_backend(backend):
            found = ours(x, h, resets=RESETS[:4], return_states="all")
            first = torch.autograd.grad(loss(found), wanted, create_graph=True)
            mixed.append(grads(first, wanted))
    assert_close(mixed[0], mixed[1], TORCH)


@pytest.mark.filterwarnings("ignore")
def test_compile_of_all_options() -> None:
    """Without a break in the graph; the layer met none of the options before."""
    ours, x = layer("gru", **RATES, **TWO), series(T, B, X)

    def call(x: Tensor, resets: Tensor) -> Any:
        return ours(x, resets=resets, reset_to="initial", return_states="layers")

    torch._dynamo.reset()
    found = []
    for run in (torch.compile(call, fullgraph=True, backend="aot_eager"), call):
        torch.manual_seed(8)
        result = run(x, RESETS)
        found.append([*torch.utils._pytree.tree_leaves(result), *grads(result, ours.parameters())])
    torch._dynamo.reset()
    assert_close(found[0], found[1], TORCH)


# --- resets ---------------------------------------------------------------------------------------


def apart(
    ours: Recurrent, x: Tensor, states: list[Tensor], resets: Tensor, to: str, **others: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """One sequence [T, X] in pieces, each a call of its own: its output, and the last states."""
    cuts = [0, *(t for t in range(1, len(x)) if resets[t]), len(x)]
    initial = [s[:, 0] for s in ours.initial_states(1)]
    ways = torch.tensor([0, 1] * ours.num_layers if ours.bidirectional else [0] * ours.num_layers)
    outputs, lasts = [], []
    for k, (a, b) in enumerate(pairwise(cuts)):
        first = torch.where(ways == 1, torch.tensor(b == len(x)), torch.tensor(k == 0))
        if k == 0 and resets[0] and to == "initial":
            first = first & (ways == 1)
        begin = [
            torch.where((first | (to == "start"))[:, None], s, i)
            for s, i in zip(states, initial, strict=True)
        ]
        piece = {n: v[a:b] if v.dim() == 2 else v for n, v in others.items()}
        output, last = ours(x[a:b], begin, **piece)
        outputs.append(output)
        lasts.append(last)
    final = [
        torch.where((ways == 1)[:, None], s, e) for s, e in zip(lasts[0], lasts[-1], strict=True)
    ]
    return torch.cat(outputs), final


RESETS = torch.tensor(
    [[0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
).bool()


@pytest.mark.parametrize("to", ["start", "initial"])
@pytest.mark.parametrize(
    ("name", "keep"),
    [("lstm", "all"), ("gru_cho", "states"), ("slstm", "sqrt"), ("qrnn", "all"), ("rnn", "sqrt")],
)
@pytest.mark.usefixtures("poisoned")
def test_equal_to_the_pieces_apart(name: str, to: Any, keep: str) -> None:
    ours = layers.made(name, keep=keep)
    check_pieces(ours, to, None)


@pytest.mark.parametrize("to", ["start", "initial"])
@pytest.mark.parametrize(
    ("name", "keep", "lengths"),
    [("lstm", "sqrt", [4, 7, 5]), ("qrnn", "all", [4, 7, 5]), ("ea_lstm", "all", None)],
)
def test_of_two_layers_in_two_directions(name: str, to: Any, keep: str, lengths: Any) -> None:
    check_pieces(layers.made(name, keep=keep, **TWO), to, lengths)


@pytest.mark.parametrize("backend", ["reference"])
def test_on_the_other_backend(backend: str) -> None:
    with use_backend(backend):
        check_pieces(layers.made("gru", **TWO), "start", [4, 7, 5])


def check_pieces(ours: Recurrent, to: Any, lengths: list[int] | None) -> None:
    x, others = layers.given(ours, T, B)
    x.requires_grad_()
    for other in others.values():
        other.requires_grad_()
    torch.manual_seed(1)
    states = [
        (s + torch.randn_like(s) / 4).detach().requires_grad_() for s in ours.initial_states(B)
    ]
    wanted = [x, *others.values(), *states, *ours.parameters()]
    counts = lengths or [T] * B
    if lengths is None:
        output, last = ours(x, states, resets=RESETS, reset_to=to, **others)
    else:
        size = torch.tensor(lengths)

        def pack(a: Tensor) -> Any:
            return pack_padded_sequence(a, size, enforce_sorted=False)

        further = {n: v if v.dim() == 2 else pack(v) for n, v in others.items()}
        packed, last = ours(pack(x), states, resets=pack(RESETS), reset_to=to, **further)
        output = pad_packed_sequence(packed)[0]
    found = ([output[:n, b] for b, n in enumerate(counts)], list(last))
    truth = [
        apart(
            ours,
            x[:n, b],
            [s[:, b] for s in states],
            RESETS[:n, b],
            to,
            **{name: v[b] if v.dim() == 2 else v[:n, b] for name, v in others.items()},
        )
        for b, n in enumerate(counts)
    ]
    outputs, finals = [y for y, _ in truth], zip(*(last for _, last in truth), strict=True)
    true = (outputs, [torch.stack(final, 1) for final in finals])
    assert_close(found, true, PIECES)
    assert_close(grads(found, wanted), grads(true, wanted), PIECES)


def test_second_derivatives_of_pieces() -> None:
    ours = layer("lstm")
    x, states = series(T, X).requires_grad_(), [series(1, H).requires_grad_() for _ in "hc"]
    wanted = [x, *states, *ours.parameters()]
    mixed = []
    for value in (
        ours(x, states, resets=RESETS[:, 0]),
        apart(ours, x, states, RESETS[:, 0], "start"),
    ):
        first = torch.autograd.grad(loss(value), wanted, create_graph=True)
        mixed.append(grads(first, wanted))
    assert_close(mixed[0], mixed[1], PIECES)


@both_backends
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_no_gradient_comes_through_even_if_it_is_not_finite(bad: float, backend: str) -> None:
    ours = layer("lstm", bidirectional=False)
    x, states = series(T, B, X).requires_grad_(), [series(1, B, H).requires_grad_() for _ in "hc"]
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[4] = True
    with use_backend(backend):
        output, _ = ours(x, states, resets=resets, reset_to="initial")
        seeds = torch.zeros_like(output)
        seeds[4:] = bad
        by_x, *by_states = torch.autograd.grad(output, [x, *states], seeds)
    assert not by_x[4:].isfinite().any()
    assert (by_x[:4] == 0).all()
    assert all((g == 0).all() for g in by_states)


@both_backends
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_was_not_finite_before_is_not_seen_after(bad: float, backend: str) -> None:
    ours = layer("gru")
    x, h = series(T, B, X), series(1, B, H)
    h[0, 1] = bad
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 1] = True
    with use_backend(backend):
        output, last = ours(x, h, resets=resets, reset_to="initial")
        later = x[2:, 1].clone().requires_grad_()
        truth, end = ours(later)
        ours_x = x.clone().requires_grad_()
        found, _ = ours(ours_x, h, resets=resets, reset_to="initial")
        (by_x,) = torch.autograd.grad(found[2:, 1].sin().sum(), ours_x)
        (by_later,) = torch.autograd.grad(truth.sin().sum(), later)
    assert output[:2, 1].isnan().any()
    assert_close([output[2:, 1], last[0][:, 1]], [truth, end[0]], PIECES)
    assert_close(by_x[2:, 1], by_later, PIECES)


@pytest.mark.parametrize("batch_first", [False, True])
def test_resets_lie_as_the_input(batch_first: bool) -> None:
    plain = layer("lstm")
    ours = layer("lstm", batch_first=batch_first)
    x = series(T, B, X)
    truth = plain(x, resets=RESETS)
    if batch_first:
        output, last = ours(x.transpose(0, 1), resets=RESETS.T)
        assert_close([output.transpose(0, 1), last], truth, TORCH)
    else:
        output, last = ours(x[:, 0], resets=RESETS[:, 0])  # unbatched
        assert_close([output, *last], [truth[0][:, 0], *(s[:, 0] for s in truth[1])], TORCH)


def test_vmap_over_resets() -> None:
    ours = layer("lstm")
    x = series(4, T, B, X)
    resets = torch.stack([RESETS, ~RESETS, RESETS.flip(0), torch.zeros_like(RESETS)])
    found = vmap(lambda a, r: ours(a, resets=r))(x, resets)
    truth = [ours(a, resets=r) for a, r in zip(x, resets, strict=True)]
    assert_close(found[0], torch.stack([y for y, _ in truth]), TORCH)
    each = vmap(torch.func.grad(lambda a, r: loss(ours(a, resets=r))))(x, resets)
    alone = [
        torch.func.grad(lambda a, r=r: loss(ours(a, resets=r)))(a)
        for a, r in zip(x, resets, strict=True)
    ]
    assert_close(each, torch.stack(alone), TORCH)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_vmap_draws_masks_as_it_is_told(randomness: str) -> None:
    ours = layer("lstm", **RATES)
    x = series(T, B, X).expand(3, T, B, X)
    output, _ = vmap(ours, randomness=randomness)(x)
    assert torch.equal(output[0], output[1]) == (randomness == "same")
    assert output.isfinite().all()


# --- every value of every step --------------------------------------------------------------------


def lstm_values(ours: Recurrent, x: Tensor) -> dict[str, Tensor]:
    """The gates and states of an LSTM from zero, in plain torch."""
    h = c = x.new_zeros(x.shape[1], H)
    found: dict[str, list[Tensor]] = {name: [] for name in "ifgoch"}
    get = ours.get_parameter
    for now in x:
        z = {
            k: now @ get(f"W_{k}_l0").T + h @ get(f"U_{k}_l0").T + get(f"b_{k}_l0") for k in "ifgo"
        }
        i, f, g, o = z["i"].sigmoid(), z["f"].sigmoid(), z["g"].tanh(), z["o"].sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        for name, value in zip("ifgoch", (i, f, g, o, c, h), strict=True):
            found[name].append(value)
    return {name: torch.stack(values) for name, values in found.items()}


@ways
@pytest.mark.usefixtures("poisoned")
def test_every_value_of_every_step(backend: str, keep: str) -> None:
    ours, x = layer("lstm", keep=keep), series(T, B, X).requires_grad_()
    with use_backend(backend):
        output, (h, c), every = ours(x, return_states="all")
        truth = lstm_values(ours, x)
        assert set(every) == set(truth)
        names = sorted(truth)
        assert_close([every[n] for n in names], [truth[n] for n in names], TORCH)
        assert_close([output, h[0], c[0]], [every["h"], every["h"][-1], every["c"][-1]], 0.0)
        wanted = [x, *ours.parameters()]
        for n in names:  # of each alone
            assert_close(grads(every[n], wanted), grads(truth[n], wanted), TORCH)
    plain = ours(x)
    assert len(plain) == 2


def test_of_packed_sequences_and_all_layers() -> None:
    ours, x, lengths = layer("gru", **TWO), series(T, B, X), torch.tensor([4, 7, 5])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, _, every = ours(packed, return_states="all")
    assert isinstance(every["z"], PackedSequence)
    assert_close(every["h"].data, output.data, 0.0)
    padded = {name: pad_packed_sequence(y)[0] for name, y in every.items()}
    for b, n in enumerate(lengths.tolist()):
        _, _, one = ours(x[:n, b], return_states="all")
        assert set(one) == {"r", "z", "n", "h"}
        assert_close([padded[k][:n, b] for k in one], list(one.values()), TORCH)
    _, _, each = ours(packed, return_states="layers")
    assert len(each) == 2
    assert_close(each[1]["z"].data, every["z"].data, 0.0)
    first = layer("gru", bidirectional=True)
    first.load_state_dict({k: v for k, v in ours.state_dict().items() if "_l0" in k})
    assert_close(each[0]["h"].data, first(packed)[0].data, TORCH)


def test_numbers_and_kept_values_under_their_names() -> None:
    """A gate that is a number is one wide; a state under zoneout is what it became."""
    ours = layers.made("iosif")
    _, _, every = ours(layers.given(ours, T, B)[0], return_states="all")
    assert every["g_ι"].shape == (T, B, 1)
    assert not any("$" in name for name in every)
    zoned = layer("lstm", zoneout=0.5, batch_first=True)
    output, (_, c), every = zoned(series(B, T, X), return_states="all")
    assert torch.equal(every["h"], output)
    assert torch.equal(every["c"][:, -1], c[0])


# --- one value a sequence -------------------------------------------------------------------------

AS_SERIES = Cell.load("ea_lstm").text.replace("s: S per sequence", "s: S")
EVERY_OPTION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    **{name: ({name: rate}, {}) for name, rate in RATES.items()},
    "resets": ({}, {"resets": RESETS}),
    "return_states": ({}, {"return_states": "all"}),
    "all": (RATES, {"resets": RESETS, "reset_to": "initial", "return_states": "all"}),
}


def test_a_cell_that_has_no_value_beside_its_output() -> None:
    ours = Recurrent("h[t] = tanh(W @ x[t] + U @ h[t-1])", X, H, 2, bidirectional=True).double()
    x = series(T, B, X)
    output, _, every = ours(x, return_states="all")
    assert list(every) == ["h"]
    assert_close(every["h"], output, 0.0)
    _, _, each = ours(x, return_states="layers")
    assert [list(values) for values in each] == [["h"], ["h"]]


@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("option", EVERY_OPTION)
def test_static_inputs_with_every_option(option: str, packed: bool) -> None:
    """They are what the same numbers at every step are."""
    with use_backend("reference"):
        check_static(option, packed, "sqrt" if packed else "all")


@pytest.mark.usefixtures("poisoned")
def test_static_inputs_with_all_options_compiled() -> None:
    check_static("all", True, "states")


def check_static(option: str, packed: bool, keep: str) -> None:
    made, called = EVERY_OPTION[option]
    static = Recurrent(
        "ea_lstm", X, H, sizes={"S": 2}, dtype=torch.float64, keep=keep, **made, **TWO
    )
    text = AS_SERIES.replace("i = sigmoid(W_i @ s + b_i)", "i[t] = sigmoid(W_i @ s[t] + b_i)")
    text = text.replace("+ i * g[t]", "+ i[t] * g[t]")
    timed = Recurrent(
        Cell(text), X, H, sizes={"S": 2}, dtype=torch.float64, keep=keep, **made, **TWO
    )
    timed.load_state_dict(static.state_dict())
    x, s = series(T, B, X).requires_grad_(), series(B, 2).requires_grad_()
    lengths = torch.tensor([4, 7, 5])

    def pack(a: Tensor) -> Any:
        return pack_padded_sequence(a, lengths, enforce_sorted=False) if packed else a

    options = {n: pack(v) if isinstance(v, Tensor) else v for n, v in called.items()}
    found = []
    for ours, given in ((static, s), (timed, pack(s.expand(T, B, 2)))):
        torch.manual_seed(5)
        output, states, *every = ours(pack(x), s=given, **options)
        kept = {n: y for found_here in every for n, y in found_here.items()}
        found.append((output.data, states, {n: y.data for n, y in sorted(kept.items())}))
    assert_close(found[0], found[1], TORCH)
    wanted = [[x, s, *ours.parameters()] for ours in (static, timed)]
    assert_close(grads(found[0], wanted[0]), grads(found[1], wanted[1]), TORCH)


def test_tokens_with_every_option() -> None:
    ours = layer("lstm", **RATES)
    table, tokens = series(4, X).requires_grad_(), torch.randint(4, (T, B))
    found = []
    for given, more in ((tokens, {"table": table}), (table[tokens], {})):
        torch.manual_seed(2)
        found.append(ours(given, resets=RESETS, return_states="all", **more))
    assert_close(found[0], found[1], TORCH)
    wanted = [table, *ours.parameters()]
    assert_close(grads(found[0], wanted), grads(found[1], wanted), TORCH)


def test_options_survive_copies() -> None:
    ours, x = layer("lstm", **RATES), series(T, B, X)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):  # noqa: S301
        torch.manual_seed(4)
        true = ours(x, resets=RESETS)
        torch.manual_seed(4)
        assert_close(other(x, resets=RESETS), true, 0.0)
    assert "zoneout={'h': 0.2, 'c': 0.2}" in repr(ours)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "options", "what"),
    [
        ("lstm", {"zoneout": 1.5}, "from 0 to 1, not 1.5"),
        ("lstm", {"recurrent_dropout": {"c": "much"}}, "recurrent_dropout of `c`"),
        ("lstm", {"recurrent_dropout": {"q": 0.5}}, "`q`"),
        ("lstm", {"variational_dropout": {"c": 0.5}}, "`c`"),
        ("rnn", {"recurrent_dropout": 0.5}, "no state has an update"),
        ("slstm", {"recurrent_dropout": 0.5}, "the states c, n have an update"),
        ("qrnn", {"variational_dropout": 0.5}, "no matrix multiplies"),
    ],
)
def test_options_that_do_not_fit(cell: str, options: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        layer(cell, **options)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ({"resets": torch.zeros(T, B)}, "booleans"),
        ({"resets": RESETS.T}, r"\[3, 7\]; it is \[7, 3\]"),
        ({"resets": [True]}, "booleans"),
        ({"resets": RESETS, "reset_to": "zero"}, '"start" or "initial"'),
        ({"return_states": "c"}, '"all" or "layers"'),
        ({"return_states": True}, '"all" or "layers"'),
    ],
)
def test_calls_that_do_not_fit(call: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        layer("lstm")(series(T, B, X), **call)
    packed = pack_padded_sequence(series(T, B, X), torch.tensor([7, 5, 4]))
    with pytest.raises(UserError, match="not packed"):
        layer("lstm")(packed, resets=torch.zeros(16, dtype=torch.bool))
