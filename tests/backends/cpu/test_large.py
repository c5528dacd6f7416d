"""Offsets beyond 2^31: a series of more numbers, nearly all of them zeros that take no memory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from backends_alike import assert_close
from tolerances import BACKEND
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from bptt.backends.cpu import build, compilers
from bptt.backends.cpu.run import code_of
from bptt.nn import Recurrent

BATCH, WIDE = 4, 1024  # so few rows a step that the input goes through its matrix before the loop
STEPS = 2**31 // (BATCH * WIDE) + 2  # all of the last two lie beyond
NEEDED = 12  # GiB, should the pages be real after all

# A row's number times its stride, which is an offset; and files of the driver that have some.
OFFSET = re.compile(r"(\b(?:\w+->)?\w+|\([^(),]+\)) \* (\w+(?:\[\w+\])?\.row|down)\b")
IN_31_BITS = r"((\1 * \2) % ((i64)1 << 31))"
FAULTS = {"products": ("phase.h",), "sums over time": ("call.h", "sums.h")}


def _available() -> float:
    """Memory that can be had, in GiB."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    found = dict(line.split(":") for line in lines)
    return int(found["MemAvailable"].split()[0]) / 2**20


@pytest.fixture(scope="module", autouse=True)
def _enough_memory() -> None:
    there = _available()
    if there < NEEDED:
        pytest.skip(
            f"a series of 2^31 numbers wants {NEEDED} GiB, and {there:.0f} are known to be free"
        )


def _layer() -> Recurrent:
    torch.manual_seed(0)
    layer = Recurrent("rnn", WIDE, 2)
    with torch.no_grad():
        layer.W_l0 /= WIDE**0.5
        layer.b_l0.zero_()  # zeros in, zeros out
    return layer


def _series(steps: int) -> Tensor:
    """Zeros, and the same two steps at the end of each."""
    found = np.zeros((steps, BATCH, WIDE), np.float32)
    found[-2:] = np.random.default_rng(0).standard_normal((2, BATCH, WIDE))
    return torch.from_numpy(found)


def _last_steps(layer: Recurrent, x: Tensor, *, packed: bool, train: bool) -> list[Tensor]:
    """The last two outputs but one row, the last state, and the gradients by the matrices."""
    given = x
    if packed:  # the last step has one sequence less
        sizes = torch.full((len(x),), BATCH)
        sizes[-1] -= 1
        given = PackedSequence(x.flatten(0, 1)[:-1], sizes)
    with torch.set_grad_enabled(train):
        y, (h,) = layer(given)
        y = (y.data if packed else y.flatten(0, 1))[1 - 2 * BATCH :]
    found = [y.detach(), h.detach()]
    if train:
        found += torch.autograd.grad((y * y).sum(), [layer.W_l0, layer.U_l0])
    return found


def _wrong(*, packed: bool = False, train: bool = True) -> list[int]:
    """Which of them are not those of a short series that ends alike."""
    layer, wrong = _layer(), list[int]()
    want = _last_steps(layer, _series(4), packed=packed, train=train)
    found = _last_steps(layer, _series(STEPS), packed=packed, train=train)
    for k, (a, b) in enumerate(zip(found, want, strict=True)):
        assert b.any()
        try:
            assert_close(f"tensor {k}", a.numpy(), b.numpy(), BACKEND["float32"])
        except AssertionError:
            wrong.append(k)
    return wrong


@pytest.mark.parametrize("packed", [False, True])
def test_a_long_series_ends_like_a_short_one(packed: bool) -> None:
    assert not _wrong(packed=packed)


@pytest.fixture
def faulty(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The driver with offsets of 31 bits in some of its files; without tiles, with which the loop
    reads the input itself, so that each file has its own share."""
    included = tmp_path / "included"
    shutil.copytree(compilers.INCLUDED, included)
    for name in FAULTS[request.param]:
        text, count = OFFSET.subn(IN_31_BITS, (included / name).read_text(encoding="utf-8"))
        assert count, f"{name} has no offsets of rows: look for them elsewhere"
        (included / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(compilers, "INCLUDED", included)
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BPTT_CFLAGS", "-DBPTT_TILES=0")
    code_of.cache_clear()
    monkeypatch.setattr(build, "_loaded", {})
    yield request.param
    code_of.cache_clear()


@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
def test_an_offset_of_31_bits_is_seen(faulty: str) -> None:
    """The comparison itself: outputs that begin again at the series' first row, or gradients."""
    train = faulty != "products"
    assert _wrong(train=train) == ([2] if train else [0, 1])
