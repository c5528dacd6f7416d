"""`bptt.nn.Recurrent`: any cell as a layer."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import layers
import pytest
import torch
from nn.eager import assert_close
from subjects import CORE
from sweeps_of import FUNCTIONS
from tolerances import TORCH
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bptt import cells
from bptt.cell import Cell
from bptt.errors import CellError, UserError
from bptt.nn import Recurrent

X, H, T, B = 3, 5, 4, 3
SIZES: dict[str, dict[str, int]] = {"lstmp": {"P": 2}}


def layer(cell: Any, *arguments: Any, **options: Any) -> Recurrent:
    if isinstance(cell, str):
        options.setdefault("functions", FUNCTIONS.get(cell))
        options.setdefault("sizes", SIZES.get(cell))
    torch.manual_seed(0)
    return Recurrent(cell, X, H, *arguments, dtype=torch.float64, **options)


def given(*shape: int) -> Tensor:
    return torch.randn(*(shape or (T, B, X)), dtype=torch.float64)


# --- against torch's own layers -----------------------------------------------------------------


def _stacked(ours: Recurrent, tail: str, kind: str, gates: str) -> Tensor:
    return torch.cat([getattr(ours, f"{kind}_{gate}{tail}") for gate in gates])


def _torchs_weights(ours: Recurrent, tail: str) -> dict[str, Tensor]:
    """The parameters of one layer and direction under torch's names."""
    zero = torch.zeros(H, dtype=torch.float64)
    match ours.cell.name:
        case "lstm" | "lstmp":
            found = {
                f"weight_{n}": _stacked(ours, tail, k, "ifgo")
                for n, k in (("ih", "W"), ("hh", "U"))
            }
            found["bias_ih"] = _stacked(ours, tail, "b", "ifgo")
            found["bias_hh"] = torch.zeros(4 * H, dtype=torch.float64)
            if ours.cell.name == "lstmp":
                found["weight_hr"] = getattr(ours, f"W_hr{tail}")
        case "gru":
            found = {
                f"weight_{n}": _stacked(ours, tail, k, "rzn") for n, k in (("ih", "W"), ("hh", "U"))
            }
            b_r, b_z, b_in, b_hn = (getattr(ours, f"b_{k}{tail}") for k in ("r", "z", "in", "hn"))
            found["bias_ih"] = torch.cat([b_r, b_z, b_in])
            found["bias_hh"] = torch.cat([zero, zero, b_hn])
        case _:
            found = {"weight_ih": getattr(ours, f"W{tail}"), "weight_hh": getattr(ours, f"U{tail}")}
            found |= {"bias_ih": getattr(ours, f"b{tail}"), "bias_hh": zero}
    return {f"{name}{tail}": value for name, value in found.items()}


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}],
    ids=str,
)
@pytest.mark.parametrize("name", ["lstm", "lstmp", "gru", "rnn"])
def test_equal_to_torchs_layer(name: str, options: dict[str, Any]) -> None:
    """Outputs, last states and every gradient, by the name of our parameter."""
    ours = layer(name, **options)
    kind: Any = {"lstm": nn.LSTM, "lstmp": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[name]
    extra = {"proj_size": 2} if name == "lstmp" else {}
    theirs = kind(X, H, dtype=torch.float64, **options, **extra)
    tails = ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]
    mapped: dict[str, Tensor] = {}
    for tail in tails:
        if any(n.endswith(tail) for n, _ in ours.named_parameters()):
            mapped |= _torchs_weights(ours, tail)
    x = given()
    shape = [(len(mapped) // (5 if name == "lstmp" else 4), B, w) for w in ours.state_sizes]
    states = tuple(given(*s).requires_grad_() for s in shape)
    hx = states if len(states) > 1 else states[0]
    output, last = torch.func.functional_call(theirs, mapped, (x, hx))
    expected = [output, *([last] if isinstance(last, Tensor) else last)]
    output, last = ours(x, states)
    found = [output, *last]
    assert_close(found, expected, TORCH)
    wanted = [*ours.parameters(), *states]
    grads = [
        torch.autograd.grad(sum(y.sin().sum() for y in ys), wanted) for ys in (found, expected)
    ]
    assert_close(*grads, TORCH)


# --- every cell ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", CORE)
def test_cells_of_every_kind_are_layers(name: str) -> None:
    ours = layers.made(name, num_layers=2, bidirectional=True)
    x, others = layers.given(ours, T, B)
    x.requires_grad_()
    output, states = ours(x, **others)
    assert output.shape == (T, B, ours.output_size)
    assert [s.shape for s in states] == [(4, B, w) for w in ours.state_sizes]
    grads = torch.autograd.grad(
        output.sin().sum() + sum(s.sum() for s in states), [x, *ours.parameters()]
    )
    for value in (output, *states, *grads):
        assert value.isfinite().all()
        assert value.abs().sum() > 0


@pytest.mark.parametrize("name", ["gru_cho", "iosif"])
def test_layers_are_layers_on_layers(name: str) -> None:
    """Two layers in two directions, put together from four that stand alone."""
    both = layer(name, 2, bidirectional=True)

    def alone(tail: str, wide: int, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        one = Recurrent(name, wide, H, functions=FUNCTIONS.get(name), dtype=torch.float64)
        values = {
            n.removesuffix(tail) + "_l0": p for n, p in both.named_parameters() if n.endswith(tail)
        }
        return torch.func.functional_call(one, values, (x,))

    def flipped(tail: str, wide: int, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, states = alone(tail, wide, x.flip(0))
        return y.flip(0), states

    x, finals = given(), list[tuple[Tensor, ...]]()
    y = x
    for k, wide in ((0, X), (1, 2 * H)):
        a, first = alone(f"_l{k}", wide, y)
        b, second = flipped(f"_l{k}_reverse", wide, y)
        y = torch.cat([a, b], -1)
        finals += [first, second]
    output, states = both(x)
    assert_close(output, y, TORCH)
    assert_close(states, [torch.cat(s) for s in zip(*finals, strict=True)], TORCH)


def test_a_sequence_in_pieces() -> None:
    ours, x = layer("layernorm_lstm", 2), given(7, B, X)
    expected, last = ours(x)
    pieces: list[Tensor] = []
    states = None
    for piece in x.split(3):
        output, states = ours(piece, states)
        pieces.append(output)
    assert_close(torch.cat(pieces), expected, TORCH)
    assert_close(states, last, TORCH)


# --- how a batch comes --------------------------------------------------------------------------


def test_batch_first_and_unbatched() -> None:
    ours, other = layer("gru_cho", 2), layer("gru_cho", 2, batch_first=True)
    x = given()
    expected, last = ours(x)
    output, states = other(x.transpose(0, 1))
    assert_close(output.transpose(0, 1), expected, TORCH)
    assert_close(states, last, TORCH)
    for module in (ours, other):
        output, states = module(x[:, 1])
        assert_close(output, expected[:, 1], TORCH)
        assert_close(states, [s[:, 1] for s in last], TORCH)
        again, _ = module(x[:, 1], [torch.zeros_like(s) for s in states])
        assert_close(again, output, 0.0)


@pytest.mark.parametrize("name", ["gru_cho", "layernorm_lstm", "iosif"])
def test_packed_sequences_in_any_order(name: str) -> None:
    ours, x, lengths = layer(name, 2, bidirectional=True), given(), [2, 4, 3]
    starts = [given(4, B, w) for w in ours.state_sizes]
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    output, states = ours(packed, starts)
    padded, _ = nn.utils.rnn.pad_packed_sequence(output)
    for b, length in enumerate(lengths):
        expected, last = ours(x[:length, b], [s[:, b] for s in starts])
        assert_close(padded[:length, b], expected, TORCH)
        assert_close([s[:, b] for s in states], last, TORCH)


# --- states, sizes, constants -------------------------------------------------------------------


def test_states_begin_as_the_cell_says() -> None:
    cell = """
    state h = h0, m = -2, c
    c[t] = 0.5*c[t-1] + tanh(W @ x[t])
    m[t] = max(m[t-1], c[t])
    h[t] = tanh(u*h[t-1] + m[t])
    """
    ours, x = layer(cell, 2, bidirectional=True), given()
    h, c, m = ours.initial_states(B)
    assert ours.state_names == ("h", "c", "m")
    assert_close(m, torch.full((4, B, H), -2.0), 0.0)
    assert_close(c, torch.zeros(4, B, H), 0.0)
    tails = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    for row, tail in enumerate(tails):
        assert torch.equal(h[row], getattr(ours, f"h0{tail}").expand(B, H))
    found, expected = ours(x), ours(x, (h, c, m))
    assert_close(found, expected, 0.0)
    grads = torch.autograd.grad(found[0].sum(), [getattr(ours, f"h0{tail}") for tail in tails])
    assert all(grad.abs().sum() > 0 for grad in grads)


def test_a_state_that_is_a_number() -> None:
    ours = layer("k[t] = sigmoid(dot(w, x[t]) + v*k[t-1])\nh[t] = k[t]*h[t-1] + tanh(W @ x[t])")
    assert dict(zip(ours.state_names, ours.state_sizes, strict=True)) == {"h": H, "k": 1}
    output, states = ours(given())
    assert output.shape == (T, B, H)
    assert ours(given(), states)[1][1].shape == (1, B, 1)


def test_several_outputs_stand_side_by_side() -> None:
    ours = layer("output h, c\nc[t] = 0.5*c[t-1] + W @ x[t]\nh[t] = tanh(c[t] + u*h[t-1])", 2)
    output, (h, c) = ours(given())
    assert ours.output_size == 2 * H
    assert_close(output[-1], torch.cat([h[-1], c[-1]], -1), 0.0)


def test_constants_are_buffers() -> None:
    cell = "const A: (H, H), dt = 0.25\nh[t] = h[t-1] + dt*tanh(A @ h[t-1] + W @ x[t])"
    A = given(H, H)
    ours = layer(cell, consts={"A": A})
    assert list(dict(ours.named_buffers())) == ["A_l0", "dt_l0"]
    assert list(dict(ours.named_parameters())) == ["W_l0"]
    x, h = given(), torch.zeros(B, H, dtype=torch.float64)
    for step in x:
        h = h + 0.25 * torch.tanh(h @ A.T + step @ ours.W_l0.T)
    assert_close(ours(x)[1][0][0], h, TORCH)
    with pytest.raises(UserError, match=r"`A` .* has no value"):
        layer(cell)
    with pytest.raises(UserError, match=r"`A` is \[2\]; it must be \[5, 5\]"):
        layer(cell, consts={"A": torch.ones(2)})


def test_readout_and_loss_fall_away() -> None:
    names = [name for name, _ in layer("shakespeare").named_parameters()]
    assert names
    assert not any("hy" in name or name.startswith("b_y") for name in names)


# --- initialisation -----------------------------------------------------------------------------


def test_parameters_begin_uniform_or_as_the_cell_says() -> None:
    ours = layer("lstm", 2)
    for name, parameter in ours.named_parameters():
        if name.startswith("b_f"):
            assert (parameter == 1).all()
        else:
            assert 0 < parameter.abs().max() <= 1 / math.sqrt(H)
    before = ours.W_i_l0.clone()
    nn.init.zeros_(ours.b_f_l1)
    ours.reset_parameters()
    assert (ours.b_f_l1 == 1).all()
    assert not torch.equal(ours.W_i_l0, before)


# --- the module ---------------------------------------------------------------------------------


def test_a_cell_by_name_path_text_or_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.cell"
    path.write_text(cells.read("gru_cho"), encoding="utf-8")
    x = given()
    expected = layer("gru_cho")(x)[0]
    for cell in (path, str(path), cells.read("gru_cho"), Cell(cells.read("gru_cho"))):
        assert_close(layer(cell)(x)[0], expected, 0.0)
    assert layer(path).cell.name == "mine"


def _pickled(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))  # noqa: S301  # it is our own


def test_copies_and_state_dicts() -> None:
    ours, x = layer("iosif", 2), given()
    expected = ours(x)
    other = layer("iosif", 2)
    nn.init.zeros_(other.W_c_l1)
    other.load_state_dict(ours.state_dict())
    for module in (copy.deepcopy(ours), _pickled(ours), other):
        assert_close(module(x), expected, 0.0)
        module.W_c_l0.data.zero_()
    assert_close(ours(x), expected, 0.0)


def test_weights_are_read_in_every_call() -> None:
    ours, x = layer("gru_cho"), given()
    weight = ours.U_n_l0.detach().clone()
    torch.nn.utils.parametrizations.weight_norm(ours, "U_n_l0")
    ours.parametrizations.U_n_l0.original0.data.mul_(2)
    expected = layer("gru_cho")
    expected.U_n_l0.data.copy_(2 * weight)
    assert_close(ours(x), expected(x), TORCH)


def test_dropout_between_layers_in_training() -> None:
    plain, x = layer("gru_cho", 2), given()
    ours = layer("gru_cho", 2, dropout=0.5)
    torch.manual_seed(1)
    first = ours(x)[0]
    torch.manual_seed(1)
    assert_close(ours(x)[0], first, 0.0)
    assert not torch.equal(ours(x)[0], first)
    assert_close(ours.eval()(x), plain(x), 0.0)
    # the first layer's states know nothing of it
    assert_close(ours.train()(x)[1][0][0], plain(x)[1][0][0], 0.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gru_cho", "iosif"])
def test_compile(name: str) -> None:
    torch._dynamo.reset()
    ours, x = layer(name, 2, bidirectional=True), given()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), ours(x), 0.0)
    torch._dynamo.reset()


def test_what_it_says_of_itself() -> None:
    ours = layer("lstm", 2, bidirectional=True, dropout=0.1)
    assert repr(ours) == "Recurrent(lstm, 3, 5, num_layers=2, dropout=0.1, bidirectional=True)"
    assert ours.backend == "cpu"


def test_meta_device() -> None:
    ours = Recurrent("gru_cho", X, H, 2, device="meta")
    output, states = ours(torch.empty(T, B, X, device="meta"))
    assert output.shape == (T, B, H)
    assert states[0].shape == (2, B, H)


def test_an_ensemble_is_one_call() -> None:
    """Many layers at once by vmap, each with gradients of its own."""
    several = [Recurrent("gru_cho", X, H, dtype=torch.float64) for _ in range(4)]
    x = given()
    params, buffers = torch.func.stack_module_state(several)

    def loss(params: Any, buffers: Any) -> Tensor:
        output, _ = torch.func.functional_call(several[0], (params, buffers), (x,))
        return output.sin().sum()

    found = torch.vmap(torch.func.grad(loss))(params, buffers)
    for k, module in enumerate(several):
        grads = torch.autograd.grad(module(x)[0].sin().sum(), [*module.parameters()])
        for (name, _), grad in zip(module.named_parameters(), grads, strict=True):
            assert_close(found[name][k], grad, TORCH)


# --- further inputs -----------------------------------------------------------------------------

GATED = """\
input k: H, s: S per sequence
i = sigmoid(W_s @ s)
h[t] = k[t]*tanh(W @ x[t] + U @ h[t-1] + b) + i*h[t-1]
"""


def gated(**options: Any) -> Recurrent:
    return layer(GATED, sizes={"S": 2}, **options)


def test_further_inputs_are_given_by_name() -> None:
    ours, x = gated(), given()
    k, s = given(T, B, H), given(B, 2)
    v: Any = {name.removesuffix("_l0"): p for name, p in ours.named_parameters()}
    i = torch.sigmoid(s @ v["W_s"].mT)
    h, expected = torch.zeros(B, H, dtype=torch.float64), []
    for x_t, k_t in zip(x, k, strict=True):
        h = k_t * torch.tanh(x_t @ v["W"].mT + h @ v["U"].mT + v["b"]) + i * h
        expected.append(h)
    found, (last,) = ours(x, k=k, s=s)
    assert_close(found, torch.stack(expected), TORCH)
    assert_close(last[0], h, TORCH)
    first = gated(batch_first=True)
    assert_close(first(x.transpose(0, 1), k=k.transpose(0, 1), s=s)[0].transpose(0, 1), found, 0.0)
    assert_close(ours(x[:, 1], k=k[:, 1], s=s[1])[0], found[:, 1], TORCH)


def test_further_inputs_of_ragged_batches() -> None:
    ours, x, k, s = gated(), given(), given(T, B, H), given(B, 2)
    lengths = torch.tensor([2, 4, 3])

    def pack(series: Tensor) -> Any:
        return pack_padded_sequence(series, lengths, enforce_sorted=False)

    found, _ = ours(pack(x), k=pack(k), s=s)
    padded, _ = pad_packed_sequence(found)
    for b, n in enumerate(lengths):
        alone, _ = ours(x[:n, b], k=k[:n, b], s=s[b])
        assert_close(padded[:n, b], alone, TORCH)


def test_an_input_packed_in_another_order_is_refused() -> None:
    ours, x, k, s = gated(), given(), given(T, B, H), given(B, 2)
    packs = [
        pack_padded_sequence(a, torch.tensor(n), enforce_sorted=False)
        for a, n in ((x, [2, 4, 3]), (k, [4, 2, 3]))
    ]
    with pytest.raises(UserError, match="packed in another way"):
        ours(packs[0], k=packs[1], s=s)


def test_an_input_named_like_an_argument_is_refused() -> None:
    with pytest.raises(UserError, match="`states` cannot name a further input"):
        Recurrent("input x: X, states: H\nh[t] = W @ x[t] + states[t] + h[t-1]", X, H)


def test_constants_are_buffers_without_a_history() -> None:
    grown = torch.ones(H, requires_grad=True) * 2
    ours = Recurrent("const b: H\nh[t] = W @ x[t] + b*h[t-1]", X, H, consts={"b": grown})
    assert not ours.b_l0.requires_grad
    copy.deepcopy(ours)


def test_further_inputs_of_several_layers() -> None:
    ours, x, s = gated(num_layers=2), given(), given(B, 2)
    ks = [given(T, B, H), given(T, B, H)]
    found, _ = ours(x, k=ks, s=s)
    below = gated()
    above = Recurrent(GATED, H, H, sizes={"S": 2}, dtype=torch.float64)
    for name, parameter in ours.named_parameters():
        part = above if name.endswith("_l1") else below
        getattr(part, name[:-1] + "0").data.copy_(parameter)
    expected, _ = above(below(x, k=ks[0], s=s)[0], k=ks[1], s=s)
    assert_close(found, expected, TORCH)
    assert_close(ours(x, k=ks[0], s=s), ours(x, k=[ks[0], ks[0]], s=[s, s]), 0.0)


def test_an_input_of_the_step_before_in_several_layers() -> None:
    text = "h[t] = W @ x[t] + V @ x[t-1] + U @ h[t-1]"
    ours, x = layer(text, 2, bidirectional=True), given()
    found, states = ours(x)
    assert ours.state_sizes == (H, 2 * H)
    assert [list(s.shape) for s in states] == [[4, B, H], [4, B, 2 * H]]
    below, above = (
        layer(text, bidirectional=True),
        Recurrent(text, 2 * H, H, bidirectional=True, dtype=torch.float64),
    )
    for name, parameter in ours.named_parameters():
        part = above if "_l1" in name else below
        part.get_parameter(name.replace("_l1", "_l0")).data.copy_(parameter)
    middle, (_, last) = below(x)
    assert_close(states[1][:2, :, :X], last, 0.0)
    assert_close(found, above(middle)[0], TORCH)
    one = layer(text, 2)
    first, carried = one(x[:2])
    assert_close(torch.cat([first, one(x[2:], carried)[0]]), one(x)[0], TORCH)


def test_the_size_that_is_told_by_hidden_size() -> None:
    ours = Recurrent("state h: 3*K\nh[t] = repeat(W @ x[t], 3) + h[t-1]", 6, 15)
    assert ours(torch.ones(T, B, 6))[0].shape == (T, B, 15)
    assert dict(ours.named_parameters())["W_l0"].shape == (5, 6)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, r"lacks its input `k`.*layer\(x, k=k, s=s\)"),
        ({"k": (T, B, H)}, "lacks its input `s`"),
        ({"k": (T, B, H), "s": (B, 2), "d": (B,)}, "has no input `d`"),
        ({"k": (T, B, H), "s": (B, 3)}, r"`s` has the shape \[3, 3\]; it is \[3, 2\]"),
        ({"k": (T, B, X), "s": (B, 2)}, r"`k` has the shape \[4, 3, 3\]; it is \[4, 3, 5\]"),
    ],
)
def test_further_inputs_that_do_not_fit(inputs: Any, said: str) -> None:
    with pytest.raises(UserError, match="(?s)" + said):
        gated()(given(), **{name: given(*shape) for name, shape in inputs.items()})


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: layer("gru", 0), "num_layers"),
        (lambda: layer("gru", dropout=1.5), "dropout"),
        (lambda: Recurrent("gru", X, 0), "H must be at least 1"),
        (lambda: Recurrent("lstmp", X, H), "a size `P` that nothing says"),
        (lambda: layer("gru", sizes={"P": 2}), "takes no size `P`"),
        (lambda: layer("gru", sizes={"H": 2}), "`H` is hidden_size"),
        (lambda: Recurrent("iosif", X, H), "not specified.*functions="),
        (lambda: layer("input x: H\nh[t] = tanh(x[t] + u*h[t-1])"), "input.*is H = 5 wide"),
        (lambda: layer("h[t] = tanh(U @ h[t-1] + b)"), "an input over time"),
        (lambda: Recurrent("state h: scalar\nh[t] = mean(x[t]) + h[t-1]", 6, 7), "cannot be 7"),
        (lambda: Recurrent("state h: 3*K\nh[t] = W @ x[t] + h[t-1]", 6, 7), "3.K.* cannot be 7"),
        (lambda: layer("gru_chp"), "gru_cho"),
    ],
)
def test_a_layer_that_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(UserError, match="(?s)" + said):
        make()


def test_a_text_that_is_no_cell() -> None:
    with pytest.raises(CellError, match="future"):
        layer("h[t] = tanh(h[t+1])")


@pytest.mark.parametrize(
    ("x", "states", "said"),
    [
        (torch.ones(T, B, X + 1), None, "the input is 4 wide, and input_size is 3"),
        (torch.ones(2, T, B, X), None, r"the input has the shape \[2, 4, 3, 3\]"),
        (torch.ones(T, B, X, dtype=torch.float64), None, "the input is torch.float64"),
        (torch.ones(T, B, X), (torch.ones(1, B, H),), "the states h, c; 1 were given"),
        (torch.ones(T, B, X), (torch.ones(1, B, H), torch.ones(B, H)), r"the state c.*\[1, 3, 5\]"),
        (torch.ones(T, X), (torch.ones(1, B, H),) * 2, r"the state h.*it is \[1, 5\]"),
        (torch.ones(T, B, X), (torch.ones(1, B, H).double(),) * 2, "the state is torch.float64"),
    ],
)
def test_a_call_that_cannot_be(x: Tensor, states: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Recurrent("lstm", X, H)(x, states)
