"""The rows for people: a table, what must hold, and what could not be measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from bptt.bench.compare import MEMORY, OURS, Row, counted
from bptt.bench.musts import verdicts

if TYPE_CHECKING:
    from rich.table import Table

LEGEND = (
    "faster: time of that side / time of ours in the same round, the median [quartiles] of n "
    "rounds; above 1 ours is faster. In rows of memory: bytes kept for backward, theirs / ours. "
    "of peak: FLOP/s beside the fastest that was measured in the same rounds."
)

WIDTH = 72
"""Columns that a table needs: on less, rich would leave some out."""
COLUMNS = {"side": 12, "faster": 18, "n": 4, "a call": 10, "GFLOP/s": 7, "of peak": 7}


def table(group: Sequence[Row]) -> Table:
    """A group that was measured together, ours first. All are laid out alike, in WIDTH columns."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, title=_what(group[0]), title_justify="left")
    for name, width in COLUMNS.items():
        left = name in ("side", "faster")
        found.add_column(
            name, justify="left" if left else "right", min_width=width, overflow="fold"
        )
    for line in _lines(group):
        found.add_row(*line)
    return found


def _what(row: Row) -> str:
    return f"{row.cell} {row.shape.name} {row.mode}, {counted(row.threads)}"


def _lines(group: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """The cells of a group's lines: ours, then the others."""
    first = next((row for row in group if row.ours), None)
    if first is not None:
        yield (OURS, "", "", *_speed(first, first.ours, first.work[0]))
    for row in group:
        if row.ratio is None:
            yield (row.against, "RED" if row.red else "not measured", "", "", "", "")
        else:
            yield (
                row.against,
                _shown(row),
                str(row.ratio.n),
                *_speed(row, row.theirs, row.work[1]),
            )


def _shown(row: Row) -> str:
    assert row.ratio is not None
    middle, low, high, n = row.ratio
    return f"{middle:.2f}" if n == 1 else f"{middle:.2f} [{low:.2f}-{high:.2f}]"


def _speed(row: Row, amounts: Sequence[float], work: int) -> tuple[str, str, str]:
    """Time or memory of a call, GFLOP/s, part of the peak."""
    if row.mode == MEMORY:
        return _size(median(amounts)), "", ""
    rates = [work / seconds for seconds in amounts]
    part = _part(amounts, row.peaks, work)
    return _time(median(amounts)), f"{median(rates) / 1e9:.1f}", f"{100 * part:.0f} %"


def _part(seconds: Sequence[float], peaks: Sequence[float], work: int) -> float:
    """The speed as a part of the peak of the same round, the middle one."""
    return median(work / s / peak for s, peak in zip(seconds, peaks, strict=True))


def _size(amount: float) -> str:
    return f"{amount / 2**10:.1f} KiB" if amount < 2**20 else f"{amount / 2**20:.2f} MiB"


def _time(seconds: float) -> str:
    return f"{1e6 * seconds:.1f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.2f} ms"


def must_lines(rows: Sequence[Row]) -> list[str]:
    """A line for every must that a row speaks to: met or missed, both alike."""
    return [
        f"{'met   ' if met else 'missed'}  {row.ratio.median:.2f}, must {must.factor:.2f}, "
        f"aim {must.aim:.2f}: {_what(row)}, against {row.against}"
        f"{' (disturbed)' if row.disturbed else ''}"
        for must, row, met in verdicts(rows)
        if row.ratio is not None
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """Why some were not measured, each reason once, and what the gate did not see."""
    found: dict[str, None] = {}
    for row in rows:
        if row.red:
            found[f"RED  {_what(row)}, {row.against}: {row.why}"] = None
        elif row.why:
            found[f"not measured: {row.against}: {row.why}"] = None
    for row in rows:
        if row.judged < row.shape.T and row.ours:
            size = f"{row.cell} {row.shape.name}"
            found[f"the gate looked at the first {row.judged} steps of {size}"] = None
    for row in rows:
        if row.disturbed:
            share = f"{100 * (row.foreign or 0.0):.0f} %"
            found[f"DISTURBED  {_what(row)}: other programs took {share} of the machine"] = None
        if row.ours and row.peaks and _above(row):
            found[f"the peak was disturbed, do not read it: {_what(row)}"] = None
    return list(found)


def _above(row: Row) -> bool:
    """Whether a side was faster than what was taken for the peak, which no side can be."""
    sides = zip((row.ours, row.theirs), row.work, strict=True)
    return any(_part(times, row.peaks, work) > 1 for times, work in sides)


def document(
    machine: dict[str, Any], settings: dict[str, Any], rows: Sequence[Row]
) -> dict[str, Any]:
    """Everything as JSON has it: where, how, and each row with the numbers of every round."""
    return {
        "format": "bptt bench",
        "version": 1,
        "machine": machine,
        "settings": settings,
        "rows": [_record(row) for row in rows],
        "musts": [
            {
                "cell": row.cell,
                "shape": row.shape.name,
                "threads": row.threads,
                "mode": row.mode,
                "against": row.against,
                "factor": must.factor,
                "aim": must.aim,
                "met": met,
            }
            for must, row, met in verdicts(rows)
        ],
    }


def _record(row: Row) -> dict[str, Any]:
    ratio = row.ratio
    return {
        "cell": row.cell,
        "shape": dict(row.shape._asdict(), name=row.shape.name),
        "threads": row.threads,
        "mode": row.mode,
        "against": row.against,
        "unit": "bytes" if row.mode == MEMORY else "seconds",
        "ours": list(row.ours),
        "theirs": list(row.theirs),
        "peaks": list(row.peaks),
        "flops": list(row.work),
        "ratio": ratio and ratio._asdict(),
        "gate": "red" if row.red else "passed" if row.ours else "not asked",
        "judged_steps": row.judged,
        "backend": row.backend,
        "foreign": row.foreign,
        "why": row.why,
    }
