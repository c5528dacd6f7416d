"""What people and programs are told: the table, what must hold, what was left out, the JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from bptt.bench.compare import MEMORY, Row
from bptt.bench.peak import FMA
from bptt.bench.problems import TEXT
from bptt.bench.report import WIDTH, document, must_lines, notes, table
from bptt.bench.shapes import GRID, PRACTICE, Shape

SHAPE = Shape(100, 1, 64, 64)
WON = Row(
    "lstm",
    SHAPE,
    1,
    "train",
    "nn.LSTM",
    ours=(0.5, 0.25),
    theirs=(1.0, 1.0),
    peaks=(8e9, 16e9),
    work=(10**9, 2 * 10**9),
    judged=100,
    backend="reference (torch)",
)
LOST = Row("lstm", SHAPE, 2, "infer", "jit", (2e-4,), (1e-4,), (1e9,), (10**4, 10**4), judged=7)
RED = Row("lstm", SHAPE, 1, "train", "jax", why="d_x is off", red=True)
OUT = Row("lstm", SHAPE, 1, "train", "eager", why="it is not there")
KEPT = Row("lstm", SHAPE, 1, MEMORY, "nn.LSTM", (2.0**19,), (3.0 * 2**19,))


def shown(*group: Row, width: int = WIDTH) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(group))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_group_has_ours_first_then_every_side() -> None:
    heading, names, ours, won, red, out = shown(WON, RED, OUT)
    assert heading.strip() == "lstm 100x1x64x64 train, 1 thread"
    assert names.split() == ["side", "faster", "n", "a", "call", "GFLOP/s", "of", "peak"]
    # 1 GFLOP in 0.5 and 0.25 s, of peaks of 8 and 16; theirs are 2 GFLOP in 1 s.
    assert ours.split() == ["ours", "375.00", "ms", "3.0", "25", "%"]
    assert won.split() == ["nn.LSTM", "3.00", "[2.50-3.50]", "2", "1000.00", "ms", "2.0", "19", "%"]
    assert red.split() == ["jax", "RED"]
    assert out.split() == ["eager", "not", "measured"]


def test_losses_are_shown_like_wins() -> None:
    _, _, ours, lost = shown(LOST)
    assert ours.split() == ["ours", "200.0", "µs", "0.1", "5", "%"]
    assert lost.split() == ["jit", "0.50", "1", "100.0", "µs", "0.1", "10", "%"]
    _, _, ours, kept = shown(KEPT)
    assert ours.split() == ["ours", "512.0", "KiB"]
    assert kept.split() == ["nn.LSTM", "3.00", "1", "1.50", "MiB"]


def test_the_widest_table_has_its_width_and_none_of_it_is_cut() -> None:
    times = {"ours": (10.0,) * 999, "theirs": (99.9999,) * 999, "peaks": (1e11,) * 999}
    widest = Row("greff_cifg", GRID[6], 2, "train", "nn.LSTMCell", **times, work=(10**12, 10**13))
    lines = shown(widest)
    assert len(lines) == 4
    assert max(map(len, lines)) <= WIDTH
    assert lines[-1].split()[1:] == [
        "10.00",
        "[10.00-10.00]",
        "999",
        "99999.90",
        "ms",
        "100.0",
        "100",
        "%",
    ]


def test_notes_give_each_reason_once() -> None:
    assert notes([WON, RED, OUT, OUT, LOST]) == [
        "RED  lstm 100x1x64x64 train, 1 thread, jax: d_x is off",
        "not measured: eager: it is not there",
        "the gate looked at the first 7 steps of lstm 100x1x64x64",
    ]
    assert notes([WON]) == []


def test_musts_are_met_or_missed_in_the_same_words() -> None:
    lost = Row("lstm", SHAPE, 1, "infer", "nn.LSTM", (1.0,), (1.5,))
    assert must_lines([WON, lost, RED, LOST, KEPT]) == [
        "met     3.00, must 1.50, aim 3.00: lstm 100x1x64x64 train, 1 thread, against nn.LSTM",
        "missed  1.50, must 2.00, aim 4.00: lstm 100x1x64x64 infer, 1 thread, against nn.LSTM",
        "met     3.00, must 2.50, aim 5.00: lstm 100x1x64x64 memory, 1 thread, against nn.LSTM",
    ]


def missed(peak: float, ratio: float) -> str:
    """The line of a must of 2 where theirs does 1 GFLOP/s."""
    times = {"ours": (1.0 / ratio,), "theirs": (1.0,), "work": (10**9, 10**9)}
    (line,) = must_lines(
        [Row("lstm", SHAPE, 1, "infer", "nn.LSTM", **times, peaks=(peak,), probe=FMA)]
    )
    return line


def test_beside_a_missed_must_stands_what_the_peak_allows() -> None:
    what = "lstm 100x1x64x64 infer, 1 thread, against nn.LSTM"
    assert missed(3e9, 1.5) == (
        f"missed  1.50, must 2.00, aim 4.00 (at most 3.00 at the peak): {what}"
    )
    assert missed(1.6e9, 1.5) == (
        f"missed  1.50, must 2.00, aim 4.00 (out of reach: at most 1.60 at the peak): {what}"
    )
    assert missed(4e9, 2.5) == f"met     2.50, must 2.00, aim 4.00: {what}"
    assert missed(1.2e9, 1.5) == f"missed  1.50, must 2.00, aim 4.00: {what}", "a disturbed peak"


TRAINED = Row("lstm", Shape(64, 64, 64, 256), 1, TEXT, "nn.LSTM", (0.04,) * 2, (0.05,) * 2)


def test_updates_are_shown_in_characters_a_second() -> None:
    heading, names, ours, theirs = shown(TRAINED)
    assert heading.strip() == "lstm 64x64x64x256 text, 1 thread"
    assert names.split() == ["side", "faster", "n", "an", "update", "chars/s"]
    assert ours.split() == ["ours", "40.00", "ms", "102,400"]
    assert theirs.split() == ["nn.LSTM", "1.25", "[1.25-1.25]", "2", "50.00", "ms", "81,920"]
    assert must_lines([TRAINED]) == [
        "met     1.25, must 1.10: lstm 64x64x64x256 text, 1 thread, against nn.LSTM"
    ]
    found = json.loads(json.dumps(document({}, {}, [TRAINED]), allow_nan=False))
    assert found["rows"][0]["unit"] == "seconds"
    assert found["musts"][0]["aim"] is None
    assert max(map(len, shown(TRAINED))) <= WIDTH


def test_what_other_programs_disturbed_is_said_wherever_it_counts() -> None:
    loud, quiet = replace(WON, foreign=0.48), replace(WON, foreign=0.1)
    assert notes([loud]) == [
        "DISTURBED  lstm 100x1x64x64 train, 1 thread: other programs took 48 % of the machine"
    ]
    assert must_lines([loud]) == [f"{must_lines([WON])[0]} (disturbed)"]
    assert (notes([quiet]), must_lines([quiet])) == ([], must_lines([WON]))


def test_a_side_above_the_peak_gives_the_peak_away() -> None:
    assert notes([replace(WON, peaks=(1e9, 1e9))]) == [
        "the peak was disturbed, do not read it: lstm 100x1x64x64 train, 1 thread"
    ]


def test_json_has_every_round_and_where_it_was_taken() -> None:
    slow = replace(WON, theirs=(0.5, 0.25), work=(10**9, 10**9))
    rows = [replace(WON, probe=FMA), RED, KEPT, replace(slow, probe=FMA)]
    found = json.loads(json.dumps(document({"cpu": "any"}, {"rounds": 2}, rows)))
    assert (found["format"], found["version"]) == ("bptt bench", 1)
    assert found["machine"] == {"cpu": "any"}
    assert found["settings"] == {"rounds": 2}
    won, red, kept, _ = found["rows"]
    assert won == {
        "cell": "lstm",
        "shape": {"T": 100, "B": 1, "I": 64, "H": 64, "name": "100x1x64x64"},
        "threads": 1,
        "mode": "train",
        "against": "nn.LSTM",
        "unit": "seconds",
        "ours": [0.5, 0.25],
        "theirs": [1.0, 1.0],
        "peaks": [8e9, 16e9],
        "peak_of": "fma",
        "flops": [10**9, 2 * 10**9],
        "ratio": {"median": 3.0, "low": 2.5, "high": 3.5, "n": 2},
        "gate": "passed",
        "judged_steps": 100,
        "backend": "reference (torch)",
        "foreign": None,
        "why": "",
    }
    assert (red["gate"], red["ratio"], red["ours"], red["why"]) == ("red", None, [], "d_x is off")
    assert (kept["unit"], kept["ours"], kept["theirs"]) == ("bytes", [2**19], [3 * 2**19])
    keys = ("mode", "factor", "met", "most")
    assert [tuple(must[key] for key in keys) for must in found["musts"]] == [
        ("train", 1.5, True, None),  # other work
        ("memory", 2.5, True, None),
        ("train", 1.5, False, 4.0),
    ]


def test_nobody_is_asked_for_what_was_not_measured() -> None:
    (record,) = document({}, {}, [OUT])["rows"]
    assert record["gate"] == "not asked"


@pytest.mark.parametrize("shape", PRACTICE.values())
def test_shapes_from_practice_are_shown_by_name(shape: Shape) -> None:
    assert f" {shape.name} " in shown(Row("lstm", shape, 1, "infer", "jit"))[0]
    assert "x" not in shape.name
