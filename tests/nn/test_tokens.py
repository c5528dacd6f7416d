"""A layer that reads tokens by a table is the layer fed by `nn.Embedding`, gradients and all."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from layers import given, made
from nn.eager import assert_close
from sweeps_of import program
from tolerances import BACKEND, TORCH
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import embedding, one_hot
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from bptt import cells
from bptt.calculus.summary import main_input
from bptt.errors import UserError
from bptt.nn import Recurrent

NAMES = tuple(name for name in cells.names() if main_input(program(name)) is not None)
# By products; by dot products; by a product read in parts; also elementwise; only elementwise.
FEW = ("lstm", "gru_cho", "iosif", "layernorm_lstm", "sru", "mogrifier_lstm")
ROWS = 6
KEEPS = ("all", "states", "sqrt")


class Both:
    """A layer, and what it is fed: tokens, and as rows of a table."""

    def __init__(self, name: str, steps: int = 4, batch: int = 3, **options: Any) -> None:
        self.layer = made(name, **options)
        x, self.others = given(self.layer, steps, batch)
        self.tokens = torch.randint(0, ROWS, (steps, batch))
        self.table = torch.randn(ROWS, x.shape[-1], dtype=x.dtype).requires_grad_()
        self.states = [
            torch.randn_like(s).mul(0.1).add(s).requires_grad_()
            for s in self.layer.initial_states(batch)
        ]

    def leaves(self) -> list[Tensor]:
        return [self.table, *self.states, *self.layer.parameters()]

    def by_table(self) -> list[Tensor]:
        output, last = self.layer(self.tokens, self.states, table=self.table, **self.others)
        return [output, *last]

    def by_rows(self) -> list[Tensor]:
        output, last = self.layer(embedding(self.tokens, self.table), self.states, **self.others)
        return [output, *last]


def loss(found: list[Tensor]) -> Tensor:
    weights = [torch.linspace(1, 2, y.numel()).view_as(y) for y in found]
    return torch.stack([(y.sin() * w).sum() for y, w in zip(found, weights, strict=True)]).sum()


def grads(value: Tensor, leaves: list[Tensor], **options: Any) -> list[Tensor]:
    return list(torch.autograd.grad(value, leaves, materialize_grads=True, **options))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", NAMES)
def test_values_and_every_gradient(name: str) -> None:
    both = Both(name)
    found, true = both.by_table(), both.by_rows()
    assert_close(found, true, TORCH)
    assert_close(grads(loss(found), both.leaves()), grads(loss(true), both.leaves()), TORCH)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", FEW)
def test_second_derivatives(name: str, keep: str) -> None:
    both = Both(name, keep=keep)
    leaves = both.leaves()

    def mixed(found: list[Tensor]) -> list[Tensor]:
        first = grads(loss(found), leaves, create_graph=True)
        return grads(loss(first), leaves)

    assert_close(mixed(both.by_table()), mixed(both.by_rows()), TORCH)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", [name for name in FEW if name != "sru"])  # its input is H wide
def test_two_layers_in_both_directions(name: str, keep: str) -> None:
    """Only the first layer reads tokens, and both of its directions do."""
    both = Both(name, num_layers=2, bidirectional=True, keep=keep)
    found, true = both.by_table(), both.by_rows()
    assert_close(found, true, TORCH)
    assert_close(grads(loss(found), both.leaves()), grads(loss(true), both.leaves()), TORCH)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", FEW)
def test_ragged_batches(name: str, keep: str) -> None:
    both = Both(name, 5, 4, keep=keep)
    lengths = torch.tensor([2, 5, 1, 5])
    packed = pack_padded_sequence(both.tokens, lengths, enforce_sorted=False)
    rows = PackedSequence(
        embedding(packed.data, both.table),
        packed.batch_sizes,
        packed.sorted_indices,
        packed.unsorted_indices,
    )
    output, last = both.layer(packed, both.states, table=both.table)
    expected, true = both.layer(rows, both.states)
    found, wanted = [output.data, *last], [expected.data, *true]
    assert_close(found, wanted, TORCH)
    assert_close(grads(loss(found), both.leaves()), grads(loss(wanted), both.leaves()), TORCH)


def test_layouts_of_tokens() -> None:
    """[B, T] with `batch_first`, [T] unbatched; any whole numbers."""
    both = Both("lstm")
    expected = both.layer(both.tokens, table=both.table)[0]
    single = both.layer(both.tokens[:, 0], table=both.table)[0]
    assert_close([single], [expected[:, 0]], TORCH)
    assert_close([both.layer(both.tokens.int(), table=both.table)[0]], [expected], 0.0)
    first = made("lstm", batch_first=True)
    first.load_state_dict(both.layer.state_dict())
    found = first(both.tokens.T, table=both.table)[0]
    assert_close([found], [expected.transpose(0, 1)], TORCH)


@pytest.mark.parametrize("name", FEW)
def test_float32(name: str) -> None:
    both = Both(name)
    exact = grads(loss(both.by_table()), both.leaves())
    both.layer.float()
    both.table = both.table.detach().float().requires_grad_()
    both.states = [s.detach().float().requires_grad_() for s in both.states]
    found = grads(loss(both.by_table()), both.leaves())
    assert all(g.dtype is torch.float32 for g in found)
    assert_close([g.double() for g in found], exact, BACKEND["float32"])


@pytest.mark.parametrize("name", ["lstm", "iosif", "gru_cho"])
def test_the_identity_as_table_is_one_hot_input(name: str) -> None:
    layer = made(name)
    tokens = torch.randint(0, layer.input_size, (5, 2))
    eye = torch.eye(layer.input_size, dtype=torch.float64)
    ones = one_hot(tokens, layer.input_size).double()
    found, true = layer(tokens, table=eye), layer(ones)
    assert_close([found[0], *found[1]], [true[0], *true[1]], TORCH)
    leaves = list(layer.parameters())
    assert_close(grads(loss([found[0]]), leaves), grads(loss([true[0]]), leaves), TORCH)


@pytest.mark.parametrize("name", FEW)
def test_a_row_that_never_occurs_gets_exactly_nothing(name: str) -> None:
    both = Both(name)
    both.tokens = torch.tensor([[1, 4, 1], [4, 4, 1]])
    both.others = {}
    (found,) = grads(loss(both.by_table()), [both.table])
    assert torch.equal(found[[0, 2, 3, 5]], torch.zeros_like(found[[0, 2, 3, 5]]))
    assert (found[[1, 4]] != 0).any(-1).all()


def test_a_table_of_one_row() -> None:
    both = Both("lstm")
    both.tokens, both.table = torch.zeros(4, 3, dtype=torch.long), both.table[:1].detach()
    both.table.requires_grad_()
    found, true = both.by_table(), both.by_rows()
    assert_close(found, true, TORCH)
    assert_close(grads(loss(found), both.leaves()), grads(loss(true), both.leaves()), TORCH)


# --- what torch does with layers ------------------------------------------------------------------


def test_functional_transforms() -> None:
    """A gradient a sequence, and a gradient of each of two tables."""
    both = Both("lstm")
    params = dict(both.layer.named_parameters())
    table = both.table.detach()

    def by_table(table: Tensor, tokens: Tensor) -> Tensor:
        found = functional_call(both.layer, params, (tokens[:, None],), {"table": table})
        return loss([found[0]])

    def by_rows(table: Tensor, tokens: Tensor) -> Tensor:
        return loss([functional_call(both.layer, params, (embedding(tokens, table)[:, None],))[0]])

    tables = torch.stack([table, table + 1])
    one = both.tokens[:, 0]
    for dims, fed in (((None, 1), (table, both.tokens)), ((0, None), (tables, one))):
        found, true = (vmap(grad(f), dims)(*fed) for f in (by_table, by_rows))
        assert found.shape == (3 if dims[0] is None else 2, ROWS, 3)
        assert_close([found], [true], TORCH)


def test_compiled() -> None:
    both = Both("lstm")
    compiled = torch.compile(both.layer, backend="aot_eager", fullgraph=True)
    found = compiled(both.tokens, table=both.table)[0]
    true = both.layer(both.tokens, table=both.table)[0]
    assert_close([found], [true], TORCH)
    assert_close(
        grads(loss([found]), [both.table, *both.layer.parameters()]),
        grads(loss([true]), [both.table, *both.layer.parameters()]),
        TORCH,
    )
    with pytest.raises(UserError, match="chooses one of 6 rows"):
        compiled(both.tokens + 3, table=both.table)


def test_autocast() -> None:
    layer = Recurrent("lstm", 4, 8)
    e = nn.Embedding(5, 4)
    tokens = torch.randint(0, 5, (6, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, (h, _) = layer(tokens, table=e.weight)
        true, (last, _) = layer(e(tokens))
    assert found.dtype is true.dtype is torch.bfloat16 and h.dtype is torch.float32
    assert_close([h], [last], BACKEND["float32"])


def test_a_layer_is_copied_with_what_it_reads() -> None:
    both = Both("lstm")
    twin = copy.deepcopy(both.layer)
    found, true = (layer(both.tokens, table=both.table)[0] for layer in (twin, both.layer))
    assert torch.equal(found, true)


# --- what does not fit ----------------------------------------------------------------------------


def test_a_token_that_is_no_row_is_refused() -> None:
    both = Both("lstm")
    for wrong in (-1, ROWS, 2**40):
        tokens = both.tokens.clone()
        tokens[2, 1] = wrong
        with pytest.raises(UserError, match="chooses one of 6 rows"):
            both.layer(tokens, table=both.table)


@pytest.mark.parametrize(
    ("tokens", "table", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(6, 3), "whole numbers, and the input is torch.float32"),
        (torch.zeros(4, 3, 3).long(), torch.zeros(6, 3), r"the tokens have the shape \[4, 3, 3\]"),
        (torch.zeros(4, 3).long(), torch.zeros(6, 2), r"the table is \[6, 2\]; it is \[V, 3\]"),
        (torch.zeros(4, 3).long(), torch.zeros(6, 3).double(), "the table is torch.float64"),
    ],
)
def test_what_does_not_fit_is_refused(tokens: Tensor, table: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recurrent("lstm", 3, 5)(tokens, table=table)


def test_half_precision_counts_only_so_far() -> None:
    layer = Recurrent("lstm", 2, 2, dtype=torch.bfloat16)
    layer(torch.tensor([[255]]), table=torch.zeros(256, 2, dtype=torch.bfloat16))
    with pytest.raises(UserError, match="257 rows is too long for bfloat16"):
        layer(torch.tensor([[0]]), table=torch.zeros(257, 2, dtype=torch.bfloat16))
