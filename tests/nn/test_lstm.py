"""`bptt.nn.LSTM` against `nn.LSTM`: names, numbers, gradients, errors."""

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

from bptt.errors import UserError
from bptt.nn import LSTM

X, H, T, B = 3, 5, 4, 3

OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "bias": False},
    {"proj_size": 2},
    {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True},
]
options = pytest.mark.parametrize("options", OPTIONS, ids=str)


def pair(**options: Any) -> tuple[nn.LSTM, LSTM]:
    """torch's and ours, drawn with the same seed."""
    made: list[Any] = []
    for kind in (nn.LSTM, LSTM):
        torch.manual_seed(0)
        made.append(kind(X, H, dtype=torch.float64, **options))
    return made[0], made[1]


def series(options: dict[str, Any], **more: Any) -> Tensor:
    shape = (B, T, X) if options.get("batch_first") else (T, B, X)
    return torch.randn(shape, dtype=torch.float64, **more)


def starts(options: dict[str, Any], *batch: int) -> tuple[Tensor, Tensor]:
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    widths = options.get("proj_size", 0) or H, H
    h, c = (torch.randn(rows, *batch, w, dtype=torch.float64) for w in widths)
    return h, c


def outcome(module: nn.Module, given: Tensor | PackedSequence, hx: Any) -> dict[str, Tensor]:
    """All that comes out of a call: output, last states, every gradient, by name."""
    given = given.detach().requires_grad_() if isinstance(given, Tensor) else given
    hx = tuple(s.detach().requires_grad_() for s in hx) if hx else None
    module.zero_grad()
    output, (h, c) = module(given, hx)
    if isinstance(output, PackedSequence):
        assert isinstance(given, PackedSequence)
        output = pad_packed_sequence(output)[0]
    (output.sin().sum() + h.pow(2).sum() + c.sin().sum()).backward()
    found = {"output": output, "h_n": h, "c_n": c}
    if isinstance(given, Tensor):
        found["d_input"] = given.grad
    found |= {f"d_start_{k}": s.grad for k, s in enumerate(hx or ())}
    found |= {f"d_{name}": p.grad for name, p in module.named_parameters()}
    return found


def same(theirs: nn.Module, ours: nn.Module, given: Any, hx: Any = None) -> None:
    expected, found = outcome(theirs, given, hx), outcome(ours, given, hx)
    assert list(found) == list(expected)
    for name in expected:
        assert_close(found[name], expected[name], TORCH)


# --- numbers ------------------------------------------------------------------------------------


@options
@pytest.mark.usefixtures("poisoned")
def test_a_batch(options: dict[str, Any]) -> None:
    theirs, ours = pair(**options)
    same(theirs, ours, series(options))
    same(theirs, ours, series(options), starts(options, B))


@options
def test_unbatched(options: dict[str, Any]) -> None:
    theirs, ours = pair(**options)
    given = torch.randn(T, X, dtype=torch.float64)
    same(theirs, ours, given)
    same(theirs, ours, given, starts(options))


@options
@pytest.mark.parametrize("lengths", [[4, 2, 1], [2, 4, 1], [3, 3, 3]], ids=str)
@pytest.mark.usefixtures("poisoned")
def test_packed(options: dict[str, Any], lengths: list[int]) -> None:
    theirs, ours = pair(**options)
    padded = torch.randn(T, B, X, dtype=torch.float64)
    given = pack_padded_sequence(padded, torch.tensor(lengths), enforce_sorted=False)
    same(theirs, ours, given)
    same(theirs, ours, given, starts(options, B))
    found, _ = ours(given)
    expected, _ = theirs(given)
    for mine, true in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(mine, true)  # batch_sizes and both orders


def test_packed_and_sorted() -> None:
    theirs, ours = pair()
    padded = torch.randn(T, B, X, dtype=torch.float64)
    same(theirs, ours, pack_padded_sequence(padded, torch.tensor([4, 3, 1])), starts({}, B))


def test_the_gradient_of_a_packed_input() -> None:
    theirs, ours = pair(bidirectional=True)
    padded = torch.randn(T, B, X, dtype=torch.float64, requires_grad=True)
    grads: list[Any] = []
    for module in (theirs, ours):
        given = pack_padded_sequence(padded, torch.tensor([2, 4, 3]), enforce_sorted=False)
        grads.append(torch.autograd.grad(module(given)[0].data.sin().sum(), padded))
    assert_close(grads[1], grads[0], TORCH)


def test_dropout_draws_as_torch_does() -> None:
    theirs, ours = pair(num_layers=3, dropout=0.5)
    given = series({})
    for training in (True, False):
        found: list[Any] = []
        for module in (theirs.train(training), ours.train(training)):
            torch.manual_seed(1)
            found.append(module(given))
        assert_close(found[1], found[0], TORCH)


def test_float32_and_no_grad() -> None:
    theirs, ours = nn.LSTM(X, H), LSTM(X, H)
    ours.load_state_dict(theirs.state_dict())
    given = torch.randn(T, B, X)
    with torch.no_grad():
        found, expected = ours(given), theirs(given)
    assert found[0].dtype is torch.float32
    assert_close(found, expected, BACKEND["float32"])


# --- weights ------------------------------------------------------------------------------------


@options
def test_initial_weights_are_torchs(options: dict[str, Any]) -> None:
    theirs, ours = pair(**options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    for module in (theirs, ours):
        torch.manual_seed(1)
        module.reset_parameters()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


@options
def test_state_dicts_go_both_ways(options: dict[str, Any]) -> None:
    theirs, ours = nn.LSTM(X, H, **options), LSTM(X, H, **options)
    assert not all(map(torch.equal, ours.parameters(), theirs.parameters()))
    ours.load_state_dict(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    again = nn.LSTM(X, H, **options)
    again.load_state_dict(ours.state_dict())
    assert all(map(torch.equal, again.parameters(), theirs.parameters()))


def _pickled(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))  # noqa: S301  # it is our own


def test_copies() -> None:
    module, given = LSTM(X, H, cell="peephole", dtype=torch.float64), series({})
    expected = module(given)
    copies = [copy.deepcopy(module), _pickled(module)]
    for made in copies:
        assert_close(made(given), expected, 0.0)
        made.weight_ih_l0.data.zero_()
    assert_close(module(given), expected, 0.0)


def test_weights_are_read_in_every_call() -> None:
    theirs, ours = pair()
    given = series({})
    for module in (theirs, ours):
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        module.parametrizations.weight_hh_l0.original0.data.mul_(2)
    assert_close(ours(given), theirs(given), TORCH)
    swapped = {name: value + 1 for name, value in ours.state_dict().items()}
    expected = torch.func.functional_call(theirs, swapped, (given,))
    assert_close(torch.func.functional_call(ours, swapped, (given,)), expected, TORCH)


@pytest.mark.filterwarnings("ignore")
def test_compile() -> None:
    torch._dynamo.reset()
    _, ours = pair(num_layers=2, bidirectional=True)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    given = series({})
    assert_close(compiled(given), ours(given), 0.0)
    torch._dynamo.reset()


def test_meta_device() -> None:
    ours = LSTM(X, H, 2, device="meta")
    output, (h, c) = ours(torch.empty(T, B, X, device="meta"))
    assert output.shape == (T, B, H)
    assert h.shape == c.shape == (2, B, H)


# --- other cells --------------------------------------------------------------------------------


def _peephole(v: dict[str, Tensor], given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = c = torch.zeros(B, H, dtype=torch.float64)
    out: list[Tensor] = []
    for x in given.unbind(0):
        z = x @ v["weight_ih_l0"].T + h @ v["weight_hh_l0"].T + v["bias_ih_l0"] + v["bias_hh_l0"]
        i, f, g, o = z.chunk(4, 1)
        i, f = torch.sigmoid(i + v["p_i_l0"] * c), torch.sigmoid(f + v["p_f_l0"] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + v["p_o_l0"] * c) * torch.tanh(c)
        out.append(h)
    return torch.stack(out), h[None], c[None]


def test_peepholes_beside_the_weights_that_all_share() -> None:
    theirs, plain = pair()
    torch.manual_seed(0)
    ours = LSTM(X, H, dtype=torch.float64, cell="peephole")
    own = [name for name in ours.state_dict() if name not in theirs.state_dict()]
    assert own == ["p_i_l0", "p_f_l0", "p_o_l0"]
    assert all(torch.equal(ours.state_dict()[n], v) for n, v in theirs.state_dict().items())
    given = series({})
    found = outcome(ours, given, None)
    v = {name: p.detach().requires_grad_() for name, p in ours.named_parameters()}
    output, h, c = _peephole(v, given)
    grads = torch.autograd.grad(output.sin().sum() + h.pow(2).sum() + c.sin().sum(), [*v.values()])
    assert_close([found["output"], found["h_n"], found["c_n"]], [output, h, c], TORCH)
    assert_close([found[f"d_{name}"] for name in v], grads, TORCH)
    for name in own:
        nn.init.zeros_(getattr(ours, name))
    assert_close(ours(given), plain(given), TORCH)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cell": "gru"}, "its states are h.*Recurrent"),
        ({"cell": "layernorm_lstm"}, "no parameter.*Recurrent"),
        ({"cell": "lstmp"}, "proj_size"),
        ({"cell": "peephole", "proj_size": 2}, "no projection"),
    ],
)
def test_a_cell_of_another_kind_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match="(?s)does not fit nn.LSTM.*" + said):
        LSTM(X, H, **options)


# --- the surface --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda kind: kind(X, H)(torch.ones(2, 2, 2, X)),
        lambda kind: kind(X, H)(torch.ones(X)),
        lambda kind: kind(X, H)(torch.ones(T, B, X + 1)),
        lambda kind: kind(X, H)(torch.ones(T, B, X, dtype=torch.float64)),
        lambda kind: kind(X, H)(torch.ones(T, B, X), (torch.ones(1, B, H), torch.ones(1, B, X))),
        lambda kind: kind(X, H)(torch.ones(T, B, X), (torch.ones(1, H), torch.ones(1, H))),
        lambda kind: kind(X, H)(torch.ones(T, X), (torch.ones(1, B, H), torch.ones(1, B, H))),
        lambda kind: kind(X, H)(torch.ones(T, B, X), (torch.ones(1, B, H),) * 3),
        lambda kind: kind(X, H)(torch.ones(0, B, X)),
        lambda kind: kind(X, H, proj_size=H),
        lambda kind: kind(X, H, dropout=2),
        lambda kind: kind(X, -1),
        lambda kind: kind(X, H, 0),
        lambda kind: kind(X, H, 1, 1),
    ],
)
def test_errors_are_torchs(call: Any) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        call(nn.LSTM)
    with pytest.raises(type(theirs.value)) as ours:
        call(LSTM)
    assert str(ours.value) == str(theirs.value)


def test_arguments_stand_in_torchs_order() -> None:
    arguments = (X, H, 2, False, True, 0.5, True, 2, "cpu", torch.float64)
    theirs, ours = nn.LSTM(*arguments), LSTM(*arguments)
    assert repr(ours) == repr(theirs)
    for name in nn.LSTM.__constants__:
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.weight_ih_l0.dtype is torch.float64
    assert "peephole" in repr(LSTM(X, H, cell="peephole"))
