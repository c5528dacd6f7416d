"""The compiled backend is the oracle, on every sweep, on awkward shapes, in NaN-filled memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backends_alike import (
    ODD,
    REMADE,
    assert_close,
    float32_held_to_the_oracle,
    held_to_the_oracle,
    odd,
    odd_held_to_the_oracle,
    run,
)
from planted import planted
from shapes import GRID, Shape, draw, expected
from subjects import CORE
from sweeps_of import AHEAD, SWEEPS, sweep
from token_sweeps import READING, tokens_held_to_the_oracle
from tolerances import BACKEND_SECOND, BACKEND_WIDE

from bptt import cells
from bptt.backends import reference
from bptt.backends.cpu import execute
from bptt.backends.cpu import run as cpu_run
from bptt.backends.cpu.run import code_of
from bptt.errors import UserError
from bptt.ir.ports import At, inputs, outputs
from bptt.ir.program import Program
from bptt.printers.c.bodies import Body


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The memory that a call takes is NaN at first, and the smallest call is shared by threads."""
    before = torch.get_num_threads()
    monkeypatch.setenv("BPTT_CFLAGS", "-DBPTT_TEST")
    code_of.cache_clear()  # what was compiled otherwise
    yield
    torch.set_num_threads(before)
    code_of.cache_clear()


def on_threads(p: Program, arrays: Any, batch_sizes: Any = None) -> Any:
    """On one thread, and on two: the same, and twice the same to the last bit."""
    torch.set_num_threads(1)
    alone = execute(p, arrays, batch_sizes)
    torch.set_num_threads(2)
    once, again = (execute(p, arrays, batch_sizes) for _ in range(2))
    for port, a, b, c in zip(outputs(p), alone, once, again, strict=True):
        a, b, c = map(np.asarray, (a, b, c))
        assert np.array_equal(b, c), f"{port.name} is not the same from run to run"
        assert_close(f"{port.name} on two threads", b, a, BACKEND_WIDE)
    return once


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("cell", "order"),
    [(c, o) for c in cells.names() for o in SWEEPS if c in CORE or "tangent" not in o],
)
def test_backend_is_the_oracle(cell: str, order: str, rng: np.random.Generator) -> None:
    held_to_the_oracle(on_threads, cell, order, "torch", rng)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("order", AHEAD)
@pytest.mark.parametrize("cell", REMADE)
def test_what_is_made_again(cell: str, order: str, rng: np.random.Generator) -> None:
    assert len(inputs(sweep(cell, order))) < len(inputs(sweep(cell, "backward")))
    held_to_the_oracle(on_threads, cell, order, "numpy", rng)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("order", SWEEPS[:4])
@pytest.mark.parametrize("cell", ["lstmp", "lstmp_sak", "lstm"])
def test_whole_panels(cell: str, order: str, rng: np.random.Generator) -> None:
    """A product that is written straight to its place, where the loop takes more of them in: of
    an odd number of steps, as these tests have it."""
    p = sweep(cell, order)
    for shape in (Shape(3, 9, (32, 32, 32)), Shape(1, 16, (64, 32, 96))):
        given = draw(p, shape, rng)
        want = expected(p, shape, given)
        for port, a in zip(outputs(p), run(on_threads, p, shape, given, "numpy"), strict=True):
            if port in want:
                assert_close(f"{shape} {port.name}", a, want[port], BACKEND_SECOND)


@pytest.mark.parametrize("order", AHEAD)
@pytest.mark.parametrize("fault", ["stays = 0", "left = 0"])
def test_sums_of_other_steps_are_seen(
    fault: str,
    order: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
) -> None:
    """The test above, tested: sums that do not stay behind, or leave a step out."""
    right = {
        "stays = 0": "stays = s->ahead && end < c->steps",
        "left = 0": "left = s->ahead && n > 0",
    }
    planted(tmp_path, monkeypatch, "loop.c", right[fault], fault)
    with pytest.raises(AssertionError):
        held_to_the_oracle(on_threads, "lstm", order, "numpy", rng)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("order", SWEEPS[:4])
@pytest.mark.parametrize("name", ODD)
def test_odd_cells(name: str, order: str, rng: np.random.Generator) -> None:
    odd_held_to_the_oracle(on_threads, name, order, "numpy", rng)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("order", SWEEPS[:4])
@pytest.mark.parametrize("cell", sorted({*READING} & {*CORE}))
def test_tokens(cell: str, order: str, rng: np.random.Generator) -> None:
    tokens_held_to_the_oracle(on_threads, cell, order, "torch", rng)


@pytest.mark.parametrize("cell", cells.names())
def test_float32(cell: str, rng: np.random.Generator) -> None:
    float32_held_to_the_oracle(execute, cell, "torch", rng)


# Wide enough for whole vectors, panels and chunks of rows, for a tail behind each, and for both
# ways in which threads share the loop.
MIXED = ("lstm", "gru_cho", "layernorm_lstm", "on_lstm", "fs_lstm2", "lmu")
WIDE = (
    Shape(3, 1, (70, 33, 17)),
    Shape(2, 15, (37, 70, 5)),
    Shape(3, 101, (33, 16, 3)),
    Shape(300, 2, (5, 3, 2)),
    Shape(9, 60, (40, 3, 7), lengths=tuple(range(9, 0, -1)) + (1,) * 51),
)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("cell", MIXED)
@pytest.mark.parametrize("shape", WIDE, ids=str)
def test_wide_shapes(cell: str, order: str, shape: Shape, rng: np.random.Generator) -> None:
    """Against the plain backend, which the oracle holds: it is too slow for these itself."""
    p = sweep(cell, order)
    given = draw(p, shape, rng)
    want = run(reference.execute, p, shape, given, "numpy")
    for port, a, b in zip(outputs(p), run(on_threads, p, shape, given, "numpy"), want, strict=True):
        assert_close(f"{cell} {order} {shape} {port.name}", a, b, BACKEND_WIDE)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_every_width_of_a_last_panel(order: str, rng: np.random.Generator) -> None:
    """Of the state and of the input: some need the first vector of a panel only."""
    p = sweep("lstm", order)
    for width in range(1, 36):
        shape = Shape(2, 1 + width % 14, (width, 36 - width, 3))
        given = draw(p, shape, rng)
        got, want = (run(f, p, shape, given, "numpy") for f in (on_threads, reference.execute))
        for port, a, b in zip(outputs(p), got, want, strict=True):
            assert_close(f"{order} {shape} {port.name}", a, b, BACKEND_WIDE)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_shares_that_do_not_come_out_even(order: str, rng: np.random.Generator) -> None:
    """Fewer panels of columns than threads, and more: some share a panel's rows."""
    p, shape = sweep("lstm", order), Shape(3, 11, (70, 5, 3))
    given = draw(p, shape, rng)
    want = run(reference.execute, p, shape, given, "numpy")
    for threads in (2, 3, 4, 20):
        torch.set_num_threads(threads)
        got = run(execute, p, shape, given, "numpy")
        for port, x, y in zip(outputs(p), got, want, strict=True):
            assert_close(f"{order} {threads} threads {port.name}", x, y, BACKEND_WIDE)


def test_a_long_sequence(rng: np.random.Generator) -> None:
    """Seventy thousand steps, forward and backward."""
    shape = Shape(70_000, 1, (3, 2, 1))
    for order in ("forward", "backward"):
        p = sweep("gru", order)
        given = draw(p, shape, rng)
        got, want = (run(f, p, shape, given, "numpy") for f in (execute, reference.execute))
        for port, a, b in zip(outputs(p), got, want, strict=True):
            assert_close(f"{order} {port.name}", a, b, BACKEND_WIDE)


def test_a_wrong_kernel_is_seen(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """The comparison itself: a body that is wrong by 0.1 %, and one that reads the wrong row."""
    right = Body.source
    for old, new in (("v_tanh(", "1.001 * v_tanh("), ("r - r0", "0")):

        def wrong(self: Body, old: str = old, new: str = new) -> str:
            return right(self).replace(old, new)

        code_of.cache_clear()
        monkeypatch.setattr(Body, "source", wrong)
        with pytest.raises(AssertionError):
            held_to_the_oracle(execute, "lstm", "forward", "numpy", rng)


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    p = sweep("lstm", "forward")
    given = draw(p, GRID[2], rng)
    arrays = [given[port] for port in inputs(p)]
    with pytest.raises(UserError, match="inputs of a sweep"):
        execute(p, arrays[:-1])
    with pytest.raises(UserError, match="has size"):
        execute(p, [*arrays[:-1], arrays[-1][..., :-1]])
    with pytest.raises(UserError, match="one number format"):
        execute(p, [*arrays[:-1], arrays[-1].astype("float32")])
    with pytest.raises(UserError, match="float32 or float64"):
        execute(p, [a.astype("float16") for a in arrays])


def test_numbers_below_the_smallest_are_zero_within_a_sweep_only(rng: np.random.Generator) -> None:
    p, shape = sweep("indrnn", "forward"), GRID[2]
    given = {port: np.full_like(a, 1e-310) for port, a in draw(p, shape, rng).items()}
    assert not any(a.any() for a in run(execute, p, shape, given, "numpy"))
    assert np.array(1e-310) * 1.0 > 0  # and the caller's arithmetic is as it was


# --- groups that share all constants run as one batch ---------------------------------------------

SHARED = (
    Shape(4, 3, (5, 7, 3), groups=3),
    Shape(7, 1, (3, 2, 11), groups=4),
    Shape(2, 40, (33, 5, 3), groups=2),
    Shape(1, 1, groups=5),
    Shape(0, 2, groups=3),
    Shape(3, 0, groups=2),
)


def shared(p: Program, kind: str, rng: np.random.Generator, shapes: tuple[Shape, ...]) -> None:
    """The oracle's numbers, of groups with the same parameters: each has gradients of its own.
    The groups of a series lie one behind the other, or step by step beside each other."""
    for shape in shapes:
        given = {
            port: a[:1] if port.at is At.CONST else a for port, a in draw(p, shape, rng).items()
        }
        want = expected(p, shape, given)
        series = [port for port in given if port.at is At.STEPS]
        for beside in ([], series, series[::2]):
            lying = {port: turned(a) if port in beside else a for port, a in given.items()}
            got = run(on_threads, p, shape, lying, kind)
            for port, a in zip(outputs(p), got, strict=True):
                if port in want:
                    assert_close(f"{shape} {port.name}", a, want[port], BACKEND_SECOND)


def turned(a: Any) -> Any:
    """The same series in memory in which the groups of a step stand together."""
    return np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("order", SWEEPS[:4])
@pytest.mark.parametrize("cell", ["lstm", "peephole", "gru", "iosif", "ea_lstm", "indrnn"])
def test_groups_with_the_same_constants(
    cell: str, order: str, kind: str, rng: np.random.Generator
) -> None:
    shared(sweep(cell, order), kind, rng, SHARED)


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("name", ODD)
def test_odd_groups_with_the_same_constants(
    name: str, order: str, rng: np.random.Generator
) -> None:
    shared(odd(name, order), "numpy", rng, SHARED[:2])


@pytest.mark.parametrize("cell", ["lstm", "peephole"])  # products over time, and sums by a phase
def test_a_gradient_of_another_group_is_seen(
    cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """The tests above, tested: all groups add to the first one's gradients."""
    planted(tmp_path, monkeypatch, "call.h", "? t->part *", "? 0 *")
    with pytest.raises(AssertionError):
        shared(sweep(cell, "backward"), "numpy", rng, SHARED[:1])


def test_columns_copied_to_the_wrong_place_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Those of a part's rows are copied together."""
    planted(tmp_path, monkeypatch, "sums.h", "to + c * rows + k *", "to + k *")
    with pytest.raises(AssertionError):
        shared(sweep("lstm", "backward"), "numpy", rng, (Shape(4, 1, (40, 41, 42), groups=3),))


# --- outputs that stand one upon the other --------------------------------------------------------


def in_pairs(p: Program) -> list[tuple[int, ...]]:
    """The outputs without time two by two, of one shape; the last ones first."""
    found, left = list[tuple[int, ...]](), list(range(len(outputs(p))))
    while left:
        k = left.pop()
        dims = p.dims(outputs(p)[k].name)
        alike = (
            n
            for n in left
            if outputs(p)[k].at is outputs(p)[n].at is At.CONST
            and dims
            and dims == p.dims(outputs(p)[n].name)
        )
        other = next(alike, None)
        found.append((k,) if other is None else (k, other))
        left = [n for n in left if n != other]
    return found


def stacked(p: Program, shape: Shape, rng: np.random.Generator, *, same: bool, kind: str) -> int:
    """Holds outputs that are written into one array to those written alone; gives how many
    arrays hold several."""
    given = draw(p, shape, rng)
    arrays = [given[k][:1] if same and k.at is At.CONST else given[k] for k in inputs(p)]
    arrays = arrays if kind == "numpy" else [torch.from_numpy(a) for a in arrays]
    gives = in_pairs(p)
    alone, found = execute(p, arrays), execute(p, arrays, None, gives)
    for give, a in zip(gives, found, strict=True):
        parts = [np.asarray(alone[k]) for k in give]
        assert np.array_equal(np.asarray(a), np.concatenate(parts, 1) if parts[1:] else parts[0])
    return sum(len(give) > 1 for give in gives)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("shape", [GRID[2], *SHARED[:2]], ids=str)
@pytest.mark.parametrize("same", [True, False], ids=["shared", "own"])
def test_outputs_one_upon_the_other(
    kind: str, shape: Shape, same: bool, rng: np.random.Generator
) -> None:
    torch.set_num_threads(2)
    assert stacked(sweep("lstm", "backward"), shape, rng, same=same, kind=kind) == 6
    # these are worked out behind the sweep
    late = [name for name in ODD if code_of(odd(name, "backward")).plan.finish]
    assert late
    assert sum(stacked(odd(n, "backward"), shape, rng, same=same, kind=kind) for n in late) > 0


def test_outputs_written_to_the_wrong_group_are_seen(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """The test above, tested: the groups of an array that holds two outputs lie too near."""
    usual = cpu_run._strides

    def narrow(shape: tuple[int, ...], groups: int, *, fills: bool = False) -> list[int]:
        row, column, group = usual(shape, groups, fills=fills)
        return [row, column, group // 2 if fills else group]

    code_of.cache_clear()
    monkeypatch.setattr(cpu_run, "_strides", narrow)
    with pytest.raises(AssertionError):
        stacked(sweep("lstm", "backward"), SHARED[0], rng, same=True, kind="numpy")
