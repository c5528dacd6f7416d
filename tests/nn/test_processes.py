"""Layers in the workers of a `DataLoader`, and in a child that was forked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from nn import process

from bptt.backends.cpu import compilers

pytestmark = [
    pytest.mark.skipif(not compilers.candidates(), reason="there is no C compiler here"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork"),
]

LOADED = """
import sys
import torch
from nn.eager import assert_close
from nn.process import everything
from tolerances import TORCH
from torch.utils.data import DataLoader, Dataset, get_worker_info
from bptt.backends.cpu import threads
from bptt.nn import LSTM, Recurrent

class Data(Dataset):
    def __init__(self):
        self.layers = LSTM(8, 40).double(), Recurrent("gru_cho", 8, 40).double()
        self.x = torch.randn(6, 8, 8, dtype=torch.float64)

    def __len__(self):
        return self.x.shape[1]

    def run(self, x):
        torch.set_num_threads(2)  # a worker begins with one
        where = torch.tensor([threads.count(), int(get_worker_info() is not None)])
        return [where, *(v for layer in self.layers for v in everything(layer, x))]

    def __getitem__(self, k):
        return self.x[:, k], self.run(self.x[:, k : k + 1])

    def together(self, samples):
        singles = [v for _x, values in samples for v in values]
        return singles, self.run(torch.stack([x for x, _values in samples], 1))

if __name__ == "__main__":
    data = Data()
    want = [data.together([data[2 * k], data[2 * k + 1]]) for k in range(4)]
    loader = DataLoader(
        data, 2, num_workers=2, collate_fn=data.together, multiprocessing_context=METHOD
    )
    places = {(threads.count(), 0)}
    for (singles, both), (wanted, wanted_both) in zip(loader, want, strict=True):
        for found, expected in ((singles, wanted), (both, wanted_both)):
            places |= {tuple(v.tolist()) for v in found if v.dtype is torch.int64}
            numbers = [[v for v in vs if v.dtype is torch.float64] for vs in (found, expected)]
            assert_close(*numbers, TORCH)
    assert_close(data[0][1][1:], want[0][0][1 : len(data[0][1])], TORCH)
    print(sorted(map(list, places)))
"""


@pytest.mark.parametrize(("method", "count"), [("fork", 1), ("spawn", 2)])
def test_workers_of_a_loader_run_layers(tmp_path: Path, method: str, count: int) -> None:
    """Forward and backward, for a sample and for a batch, after two threads ran in the parent."""
    said = process.lines(tmp_path, LOADED.replace("METHOD", repr(method)))
    assert said == [str(sorted([[2, 0], [count, 1]]))]


STEPPED = """
import os
import torch
from nn.eager import assert_close
from tolerances import TORCH
from bptt.nn import LSTM

torch.set_num_threads(2)
layer = LSTM(8, 40, num_layers=2).double()
x = torch.randn(6, 9, 8, dtype=torch.float64)
y = layer(x)[0].detach()
step = layer.stepper(9)

def steps(first, last):
    for k in range(first, last):
        assert_close([step(x[k])], [y[k]], TORCH)

def forked(first, last, then=lambda: None):
    child = os.fork()
    if child == 0:
        steps(first, last)
        then()
        print(f"to {last}", flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

steps(0, 1)
forked(1, 3, lambda: forked(3, 6))
steps(1, 6)
print("parent")
"""


def test_a_stepper_goes_on_in_a_forked_child(tmp_path: Path) -> None:
    """It was made with two threads, of which the child has one; its states came along."""
    assert process.lines(tmp_path, STEPPED) == ["to 6", "to 3", "parent"]
