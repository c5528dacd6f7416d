"""`bptt.nn.GRU` and `bptt.nn.RNN` against torch's: names, numbers, gradients, errors; and what the
three layers share."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from nn.eager import assert_close
from tolerances import BACKEND, TORCH
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import bptt.nn
from bptt.errors import UserError
from bptt.nn import GRU, LSTM, RNN, Recurrent

X, H, T, B = 3, 5, 4, 3

KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "gru": (nn.GRU, GRU, {}),
    "tanh": (nn.RNN, RNN, {}),
    "relu": (nn.RNN, RNN, {"nonlinearity": "relu"}),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
]
kinds = pytest.mark.parametrize("kind", KINDS)
options = pytest.mark.parametrize("options", OPTIONS, ids=str)


def pair(kind: str, **options: Any) -> tuple[nn.Module, Any]:
    """torch's and ours, drawn with the same seed."""
    *both, own = KINDS[kind]
    made: list[Any] = []
    for layer in both:
        torch.manual_seed(0)
        made.append(layer(X, H, dtype=torch.float64, **own, **options))
    return made[0], made[1]


def series(options: dict[str, Any]) -> Tensor:
    shape = (B, T, X) if options.get("batch_first") else (T, B, X)
    return torch.randn(shape, dtype=torch.float64)


def start(options: dict[str, Any], *batch: int) -> Tensor:
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    return torch.randn(rows, *batch, H, dtype=torch.float64)


def packed(lengths: list[int]) -> PackedSequence:
    padded = torch.randn(T, B, X, dtype=torch.float64, requires_grad=True)
    return pack_padded_sequence(padded, torch.tensor(lengths), enforce_sorted=False)


def outcome(module: nn.Module, given: Any, hx: Any) -> dict[str, Tensor]:
    """All that comes out of a call: output, last state, every gradient, by name."""
    data = given.data if isinstance(given, PackedSequence) else given
    data = data.detach().requires_grad_()
    fed = given._replace(data=data) if isinstance(given, PackedSequence) else data
    hx = None if hx is None else hx.detach().requires_grad_()
    module.zero_grad()
    output, h = module(fed, hx)
    if isinstance(output, PackedSequence):
        output = pad_packed_sequence(output)[0]
    (output.sin().sum() + h.pow(2).sum()).backward()
    found = {"output": output, "h_n": h, "d_input": data.grad}
    if hx is not None:
        found["d_start"] = hx.grad
    return found | {f"d_{name}": p.grad for name, p in module.named_parameters()}


def same(theirs: nn.Module, ours: nn.Module, given: Any, hx: Any = None) -> None:
    expected, found = outcome(theirs, given, hx), outcome(ours, given, hx)
    assert list(found) == list(expected)
    for name in expected:
        assert_close(found[name], expected[name], TORCH)


# --- numbers ------------------------------------------------------------------------------------


@kinds
@options
@pytest.mark.usefixtures("poisoned")
def test_equal_to_torchs(kind: str, options: dict[str, Any]) -> None:
    """A batch, one sequence, and a ragged batch in any order, with and without a first state."""
    theirs, ours = pair(kind, **options)
    for hx in (None, start(options, B)):
        same(theirs, ours, series(options), hx)
        for lengths in ([4, 2, 1], [2, 4, 3]):
            same(theirs, ours, packed(lengths), hx)
    for hx in (None, start(options)):
        same(theirs, ours, torch.randn(T, X, dtype=torch.float64), hx)


@kinds
def test_the_long_way(kind: str) -> None:
    """The same by torch's own operations, and what a packed output is packed as."""
    options = {"num_layers": 2, "bidirectional": True}
    theirs, ours = pair(kind, **options)
    given, hx = packed([2, 4, 3]), start(options, B)
    with bptt.nn.use_backend("reference"):
        same(theirs, ours, series(options), hx)
        same(theirs, ours, given, hx)
    for mine, true in zip(ours(given)[0][1:], theirs(given)[0][1:], strict=True):
        assert torch.equal(mine, true)  # batch_sizes and both orders


def test_dropout_draws_as_torch_does() -> None:
    theirs, ours = pair("gru", num_layers=3, dropout=0.5)
    given = series({})
    for training in (True, False):
        found: list[Any] = []
        for module in (theirs.train(training), ours.train(training)):
            torch.manual_seed(1)
            found.append(module(given))
        assert_close(found[1], found[0], TORCH)


@kinds
def test_second_derivatives(kind: str) -> None:
    both = pair(kind)
    x = series({}).requires_grad_()
    found: list[Any] = []
    for module in both:
        by = [x, *module.parameters()]
        grads = torch.autograd.grad(module(x)[0].sin().sum(), by, create_graph=True)
        found.append(torch.autograd.grad(sum((g**2).sum() for g in grads), by))
    assert_close(found[1], found[0], TORCH)


# --- weights ------------------------------------------------------------------------------------


@kinds
@options
def test_weights_are_torchs(kind: str, options: dict[str, Any]) -> None:
    """The same draws, and state dicts both ways, bit for bit."""
    theirs, ours = pair(kind, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    for module in (theirs, ours):
        torch.manual_seed(1)
        module.reset_parameters()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    for module in (theirs, ours):
        for p in module.parameters():
            nn.init.normal_(p)
        (other,) = {theirs, ours} - {module}
        other.load_state_dict(module.state_dict())
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    assert ours.all_weights[0][0] is ours.weight_ih_l0


@kinds
def test_copies(kind: str) -> None:
    _, module = pair(kind)
    given = series({})
    expected = module(given)
    for made in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301
        assert_close(made(given), expected, 0.0)
        made.weight_ih_l0.data.zero_()
    assert_close(module(given), expected, 0.0)


@kinds
def test_weights_are_read_in_every_call(kind: str) -> None:
    theirs, ours = pair(kind)
    given = series({})
    for module in (theirs, ours):
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        module.parametrizations.weight_hh_l0.original0.data.mul_(2)
    assert_close(ours(given), theirs(given), TORCH)


@pytest.mark.filterwarnings("ignore")
def test_compile() -> None:
    torch._dynamo.reset()
    _, ours = pair("gru", num_layers=2, bidirectional=True, batch_first=True, bias=False)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    given = series({"batch_first": True})
    assert_close(compiled(given), ours(given), TORCH)
    torch._dynamo.reset()


def test_meta_device() -> None:
    output, h = GRU(X, H, 2, device="meta")(torch.empty(T, B, X, device="meta"))
    assert output.shape == (T, B, H)
    assert h.shape == (2, B, H)


# --- other cells --------------------------------------------------------------------------------


def test_a_gru_whose_biases_are_all_sums() -> None:
    ours, other = GRU(X, H, cell="gru_cho"), Recurrent("gru_cho", X, H)
    assert list(ours.state_dict()) == list(nn.GRU(X, H).state_dict())
    with torch.no_grad():
        for part, gate in enumerate("rzn"):
            for k, name in (("W", "weight_ih_l0"), ("U", "weight_hh_l0")):
                getattr(other, f"{k}_{gate}_l0").copy_(getattr(ours, name).chunk(3)[part])
            both = ours.bias_ih_l0 + ours.bias_hh_l0
            getattr(other, f"b_{gate}_l0").copy_(both.chunk(3)[part])
    x = torch.randn(T, B, X)
    assert_close(ours(x)[0].detach(), other(x)[0].detach(), BACKEND["float32"])
    assert "cell=gru_cho" in repr(ours)


def test_further_parameters_are_their_own() -> None:
    ours, theirs = RNN(X, H, cell="leaky", dtype=torch.float64), RNN(X, H, dtype=torch.float64)
    assert list(ours.state_dict()) == [*theirs.state_dict(), "α_l0"]
    ours.load_state_dict({**theirs.state_dict(), "α_l0": torch.zeros(H)})
    x = series({})
    assert_close(ours(x), theirs(x), TORCH)
    nn.init.ones_(ours.get_parameter("α_l0"))
    assert_close(ours(x)[0], torch.zeros(T, B, H), 0.0)


ELEMENTWISE = "h[t] = tanh(W @ x[t] + U * h[t-1] + b)"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GRU(X, H, cell="lstm"), "nn.GRU: .*states are h, c.*Recurrent"),
        (lambda: GRU(X, H, cell="mgu"), "nn.GRU: .*no parameter.*Recurrent"),
        (lambda: RNN(X, H, cell="gru"), "nn.RNN: .*no parameter U.*Recurrent"),
        (lambda: RNN(X, H, cell=ELEMENTWISE), r"nn.RNN: .*U is \[5\], .* \[5, 5\].*Recurrent"),
        (lambda: RNN(X, H, cell="clockwork"), "nn.RNN: "),
    ],
)
def test_a_cell_of_another_kind_is_refused(make: Any, said: str) -> None:
    with pytest.raises(UserError, match="(?s)does not fit " + said):
        make()


def test_a_cell_says_its_own_nonlinearity() -> None:
    assert RNN(X, H, cell="irnn").nonlinearity == "relu"
    with pytest.raises(UserError, match="nonlinearity='relu'"):
        RNN(X, H, nonlinearity="relu", cell="leaky")


# --- the surface --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gru", "tanh"])
@pytest.mark.parametrize(
    "call",
    [
        lambda kind: kind(X, H)(torch.ones(2, 2, 2, X)),
        lambda kind: kind(X, H)(torch.ones(X)),
        lambda kind: kind(X, H)(torch.ones(T, B, X + 1)),
        lambda kind: kind(X, H)(torch.ones(T, B, X, dtype=torch.float64)),
        lambda kind: kind(X, H)(torch.ones(T, B, X), torch.ones(1, B, X)),
        lambda kind: kind(X, H)(torch.ones(T, B, X), torch.ones(1, H)),
        lambda kind: kind(X, H)(torch.ones(T, X), torch.ones(1, B, H)),
        lambda kind: kind(X, H)(torch.ones(T, B, X), (torch.ones(1, B, H),) * 2),
        lambda kind: kind(X, H)(torch.ones(0, B, X)),
        lambda kind: kind(X, H, proj_size=2),
        lambda kind: kind(X, H, dropout=2),
        lambda kind: kind(X, -1),
        lambda kind: kind(X, H, 0),
        lambda kind: kind(X, H, bias=1),
    ],
)
def test_errors_are_torchs(kind: str, call: Any) -> None:
    torchs, our, _ = KINDS[kind]
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        call(torchs)
    with pytest.raises(type(theirs.value)) as ours:
        call(our)
    assert str(ours.value) == str(theirs.value)


def test_an_unknown_nonlinearity() -> None:
    for kind in (nn.RNN, RNN):
        with pytest.raises(ValueError, match="Unknown nonlinearity 'sin'"):
            kind(X, H, nonlinearity="sin")


def test_arguments_stand_in_torchs_order() -> None:
    made: list[tuple[Any, Any]] = [
        (kind(X, H, 2, False, True, 0.5, True), kind(X, H, 2, dropout=0.5, device="cpu"))
        for kind in (nn.GRU, GRU)
    ]
    made += [
        (kind(X, H, 2, "relu", False, True, 0.5, True), kind(X, H, 2, dtype=torch.float64))
        for kind in (nn.RNN, RNN)
    ]
    for theirs, ours in (zip(*made[:2], strict=True), zip(*made[2:], strict=True)):
        for a, b in (theirs, ours):
            assert repr(a) == repr(b)
            for name in nn.GRU.__constants__:
                assert getattr(a, name) == getattr(b, name)
            assert a.weight_ih_l0.dtype is b.weight_ih_l0.dtype
    assert GRU(X, H, 1, True, False, 0.0, False, "cpu", torch.float64).bias_hh_l0.dtype is (
        torch.float64
    )
    assert made[3][0].nonlinearity == "relu"
    assert made[3][0].mode == "RNN_RELU"


def test_what_runs_it() -> None:
    ours = GRU(X, H)
    assert ours.backend == "cpu"
    assert "forward" in ours.explain()
    step = RNN(X, H).eval()
    x = torch.randn(T, B, X)
    one = step.stepper(B)
    with torch.no_grad():
        y, _ = step(x)
    assert_close(torch.stack([one(v).clone() for v in x]), y, BACKEND["float32"])
    assert isinstance(LSTM(X, H).stepper(B)(x[0]), Tensor)


# --- what torch's layers lack -------------------------------------------------------------------


GATES = {"lstm": "ifgo", "gru": "rzn"}


def twins(kind: str, **options: Any) -> tuple[Any, Recurrent]:
    """A layer of torch's kind, and a Recurrent of the same weights."""
    made, cell = {"lstm": (LSTM, "lstm"), "gru": (GRU, "gru_cho")}[kind]
    ours: Any = made(X, H, cell=cell, dtype=torch.float64, **options)
    other = Recurrent(cell, X, H, dtype=torch.float64, **options)
    found = dict(ours.named_parameters())
    stacked = {
        "W": found["weight_ih_l0"],
        "U": found["weight_hh_l0"],
        "b": found["bias_ih_l0"] + found["bias_hh_l0"],
    }
    values = {
        f"{k}_{gate}_l0": part
        for k, whole in stacked.items()
        for gate, part in zip(GATES[kind], whole.detach().chunk(len(GATES[kind])), strict=True)
    }
    other.load_state_dict(values)
    return ours, other


@pytest.mark.parametrize(
    ("kind", "options", "more"),
    [
        ("lstm", {}, {"reset_to": "initial", "return_states": "all"}),
        ("lstm", {"zoneout": 0.3}, {}),
        ("lstm", {"recurrent_dropout": 0.3}, {}),
        ("gru", {}, {"reset_to": "start"}),
        ("gru", {"variational_dropout": 0.3}, {"return_states": "layers"}),
    ],
    ids=str,
)
def test_options_are_those_of_any_layer(
    kind: str, options: dict[str, Any], more: dict[str, Any]
) -> None:
    """Resets, every value, and what is drawn: as `Recurrent`, which has tests of its own."""
    x = series({})
    if "reset_to" in more:
        resets = torch.zeros(T, B, dtype=torch.bool)
        resets[1, 0] = resets[2] = True
        more = more | {"resets": resets}
    both = twins(kind, **options)
    hx = (start({}, B), start({}, B)) if kind == "lstm" else start({}, B)
    for training in (True, False):
        found: list[Any] = []
        for module in both:
            torch.manual_seed(1)
            found.append(module.train(training)(x, hx, **more))
        assert_close(found[0], found[1], TORCH)
    grads: list[dict[str, Tensor]] = []
    for out, module in zip(found, both, strict=True):
        names, by = zip(*module.named_parameters(), strict=True)
        found_here = torch.autograd.grad(out[0].sin().sum(), by)
        grads.append(dict(zip(names, found_here, strict=True)))
    for k, name in (("W", "weight_ih_l0"), ("U", "weight_hh_l0"), ("b", "bias_hh_l0")):
        parts = [grads[1][f"{k}_{gate}_l0"] for gate in GATES[kind]]
        assert_close(grads[0][name], torch.cat(parts), TORCH)
    assert all(name in repr(both[0]) for name in options)


def test_an_unknown_argument() -> None:
    with pytest.raises(TypeError, match="GRU takes no argument 'zonout'"):
        GRU(X, H, zonout=0.1)
