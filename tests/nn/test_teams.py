"""Layers on teams of threads that change from call to call, or are smaller than was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from nn import process

from bptt.backends.cpu import compilers

pytestmark = pytest.mark.skipif(not compilers.candidates(), reason="there is no C compiler here")

# Layers that threads share by columns and by sequences, with row sums and with several phases a
# step, and what one thread gives.
START = """
import ctypes
import os
import torch
from nn.eager import assert_close
from nn.process import everything
from tolerances import TORCH
from bptt.backends.cpu import threads
from bptt.nn import LSTM, Recurrent

torch.manual_seed(0)
LAYERS = [LSTM(8, 70), Recurrent("gru_cho", 8, 70), Recurrent("layernorm_lstm", 8, 70)]
LAYERS = [layer.double() for layer in LAYERS]
INPUTS = [torch.randn(4, batch, 8, dtype=torch.float64) for batch in (1, 5, 40)]

def all_of_it():
    return [everything(layer, x) for layer in LAYERS for x in INPUTS]

torch.set_num_threads(1)
WANT = all_of_it()
STEPS = [x[0] for x in INPUTS]

def stepped(layer=LAYERS[0]):
    return [layer.stepper(len(x)) for x in STEPS]

def right(steppers):
    assert_close(all_of_it(), WANT, TORCH)
    for n, (step, x) in enumerate(zip(steppers, STEPS)):
        step.reset()
        assert_close([step(x)], [WANT[n][0][0]], TORCH)
"""

CHANGED = """
before = {}
for n in (2, 1, 3, 2, 70, 1, 2):
    torch.set_num_threads(n)
    steppers = stepped()
    right(steppers)
    for m in (1, n + 1, n):  # steppers keep the team that they were made for
        torch.set_num_threads(m)
        right(steppers)
    now = all_of_it()
    if n in before:
        assert all(torch.equal(a, b) for x, y in zip(now, before[n]) for a, b in zip(x, y))
    before[n] = now
    print(threads.count())
"""


def test_a_team_that_shrinks_and_grows(tmp_path: Path) -> None:
    """Up to more threads than there are processors, and than a call has room for. The same call
    on the same number of threads gives the same bits."""
    assert process.lines(tmp_path, START + CHANGED) == ["2", "1", "3", "2", "70", "1", "2"]


# `team(n)`: how many threads there are where n are asked for; `on_two(work)` runs it on two.
FEWER = (
    START
    + """
FOUND = threads.fork_join()
WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
PARALLEL = ctypes.CFUNCTYPE(None, WORK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
parallel = PARALLEL(FOUND.parallel)
library = ctypes.CDLL(FOUND.library)

def team(n):
    sizes = []
    parallel(WORK(lambda _: sizes.append(library.omp_get_num_threads())), None, n, 0)
    assert len(sizes) == sizes[0] == max(sizes)
    return len(sizes)

def on_two(work):
    done = []
    def one(_):
        work()
        done.append(library.omp_get_thread_num())
    parallel(WORK(one), None, 2, 0)
    return sorted(done)
"""
)


def test_a_team_within_a_limit(tmp_path: Path) -> None:
    """And within one that leaves it less of that: a stepper runs on three threads, two, three."""
    code = """
torch.set_num_threads(8)
steppers = stepped()
right(steppers)
library.omp_set_nested(1)  # what older libraries go by
library.omp_set_max_active_levels(2)
sizes = [team(8)]
def work():
    if not library.omp_get_thread_num():
        sizes.append(team(8))
        right(steppers)
on_two(work)
right(steppers)
print(threads.count(), sizes)
"""
    assert process.lines(tmp_path, FEWER + code, OMP_THREAD_LIMIT="3") == ["8 [3, 2]"]


def test_teams_of_another_size_than_asked_for(tmp_path: Path) -> None:
    """As many threads as the library finds processors idle. Then two threads of another's team
    run layers at once: each has one thread, or two of its own. A stepper runs on all of them."""
    code = """
MANY = os.cpu_count() + 1
torch.set_num_threads(MANY)
steppers = stepped()
library.omp_set_dynamic(1)
print(threads.count() == MANY, team(MANY) < MANY)
right(steppers)
right(stepped())

library.omp_set_dynamic(0)
torch.set_num_threads(2)
steppers = stepped()
right(steppers)
for levels in (1, 2):
    library.omp_set_nested(levels - 1)  # what older libraries go by
    library.omp_set_max_active_levels(levels)
    inner = []
    def work():
        inner.append((threads.count(), team(2)))
        right(stepped() if library.omp_get_thread_num() else steppers)
    print(on_two(work), inner)
right(steppers)
"""
    two = [f"[0, 1] [(2, {n}), (2, {n})]" for n in (1, 2)]
    assert process.lines(tmp_path, FEWER + code) == ["True True", *two]
