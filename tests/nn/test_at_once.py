"""Layers that several Python threads call at the same time: compiled code runs without the
interpreter's lock."""

from __future__ import annotations

from pathlib import Path

import pytest
from nn import process

from bptt.backends.cpu import compilers

pytestmark = pytest.mark.skipif(not compilers.candidates(), reason="there is no C compiler here")

# `at_once(work, n)` runs work(0, meet) to work(n - 1, meet) on a thread each, and gives what they
# give, or raises what the first of them raises; meet() waits until all have come there.
START = """
import copy
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
import torch
from nn.eager import assert_close
from nn.process import everything
from tolerances import TORCH
from bptt.nn import LSTM, Recurrent, use_backend

torch.manual_seed(0)
torch.set_num_threads(2)
sys.setswitchinterval(1e-5)

def at_once(work, n):
    gate, errors = threading.Barrier(n, timeout=100), []

    def one(k):
        try:
            return work(k, gate.wait)
        except BaseException as error:
            errors.append(error)
            gate.abort()

    with ThreadPoolExecutor(n) as pool:
        found = list(pool.map(one, range(n)))
    if errors:
        raise errors[0]
    return found
"""

FIRST = """
LAYERS = [LSTM(8, 16, 2), Recurrent("gru_cho", 8, 16), Recurrent("layernorm_rnn", 8, 16)]
LAYERS = [layer.double() for layer in LAYERS]
x = torch.randn(6, 3, 8, dtype=torch.float64)

def work(_, meet):
    found = []
    for layer in LAYERS:
        meet()
        found.append(everything(layer, x))
    return found

found = at_once(work, 2)
found.append([everything(layer, x) for layer in LAYERS])
with use_backend("reference"):
    want = [everything(layer, x) for layer in LAYERS]
for each in found:
    assert_close(each, want, TORCH)
names = os.listdir(os.environ["BPTT_CACHE"])
print(bool(names), {name.rpartition(".")[2] for name in names})
"""


def test_two_threads_make_a_layers_first_call(tmp_path: Path) -> None:
    """Both derive it and both compile it, where nothing was compiled before."""
    cache = str(tmp_path / "cache")
    assert process.lines(tmp_path, START + FIRST, BPTT_CACHE=cache) == ["True {'so'}"]


MANY = """
layer = LSTM(8, 40).double()
SIZES = [(t, b) for t in range(1, 13) for b in (1, 2, 5, 9, 17, 24)]
INPUTS = [[torch.randn(t, b, 8, dtype=torch.float64) for t, b in SIZES] for _ in range(3)]
alone = copy.deepcopy(layer)  # which remembers sizes of its own
WANT = [[everything(alone, x) for x in inputs] for inputs in INPUTS]

def work(k, meet):
    count = len(SIZES)
    for n in range(count):
        meet()  # numbers of the same size at the same time
        assert_close(everything(layer, INPUTS[k][n]), WANT[k][n], TORCH)
    for n in range(count):  # and of others: two threads go one way and one the other
        n = (n + k // 2 * 3 if k else -n) % count
        assert_close(everything(layer, INPUTS[k][n]), WANT[k][n], TORCH)
    return k

print(at_once(work, 3))
"""


def test_one_layer_on_inputs_of_many_sizes(tmp_path: Path) -> None:
    """Three threads, and more sizes than a layer remembers; the same ones at once, and others."""
    assert process.lines(tmp_path, START + MANY) == ["[0, 1, 2]"]
