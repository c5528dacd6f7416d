"""The rows for people: a table, what must hold, and what could not be measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from bptt.bench.compare import MEMORY, OURS, Row, counted
from bptt.bench.musts import Must, Verdict, verdicts
from bptt.bench.problems import TEXT

if TYPE_CHECKING:
    from rich.table import Table

LEGEND = (
    "faster: time of that side / time of ours in the same round, the median [quartiles] of n "
    "rounds; above 1 ours is faster. In rows of memory: bytes kept for backward, theirs / ours. "
    "of peak: FLOP/s beside the fastest that was measured in the same rounds."
)

TEXT_LEGEND = (
    "faster: characters a second of ours / those of that side in the same round, the median "
    "[quartiles] of n rounds; above 1 ours is faster. An update reads batch x window characters."
)

WIDTH = 72
"""Columns that a table needs: on less, rich would leave some out."""
COLUMNS = {"side": 12, "faster": 18, "n": 4, "a call": 10, "GFLOP/s": 7, "of peak": 7}
TEXT_COLUMNS = {"side": 12, "faster": 18, "n": 4, "an update": 10, "chars/s": 9, "": 5}


def table(group: Sequence[Row]) -> Table:
    """A group that was measured together, ours first. All are laid out alike, in WIDTH columns."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, title=_what(group[0]), title_justify="left")
    for name, width in (TEXT_COLUMNS if group[0].mode == TEXT else COLUMNS).items():
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
        yield (OURS, "", "", *_speed(first, 0))
    for row in group:
        if row.ratio is None:
            yield (row.against, "RED" if row.red else "not measured", "", "", "", "")
        else:
            yield (row.against, _shown(row), str(row.ratio.n), *_speed(row, 1))


def _shown(row: Row) -> str:
    assert row.ratio is not None
    middle, low, high, n = row.ratio
    return f"{middle:.2f}" if n == 1 else f"{middle:.2f} [{low:.2f}-{high:.2f}]"


def _speed(row: Row, who: int) -> tuple[str, str, str]:
    """Time or memory of a call, GFLOP/s, part of the peak: of ours (0) or theirs (1).

    Of an update the time, and characters a second.
    """
    amounts, work = (row.ours, row.theirs)[who], row.work[who]
    if row.mode == MEMORY:
        return _size(median(amounts)), "", ""
    if row.mode == TEXT:
        seconds = median(amounts)
        return _time(seconds), f"{row.shape.T * row.shape.B / seconds:,.0f}", ""
    if not work:
        return _time(median(amounts)), "", ""
    rates = [work / seconds for seconds in amounts]
    part = f"{100 * row.parts[who]:.0f} %" if row.parts else ""
    return _time(median(amounts)), f"{median(rates) / 1e9:.1f}", part


def _size(amount: float) -> str:
    return f"{amount / 2**10:.1f} KiB" if amount < 2**20 else f"{amount / 2**20:.2f} MiB"


def _time(seconds: float) -> str:
    return f"{1e6 * seconds:.1f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.2f} ms"


def must_lines(rows: Sequence[Row]) -> list[str]:
    """A line for every must that a row speaks to: met or missed, both alike."""
    return [
        f"{'met   ' if found.met else 'missed'}  {row.ratio.median:.2f}, "
        f"must {found.must.factor:.2f}{_aim(found.must)}{_roof(found)}: "
        f"{_what(row)}, against {row.against}{' (disturbed)' if row.disturbed else ''}"
        for found in verdicts(rows)
        if (row := found.row).ratio is not None
    ]


def _aim(must: Must) -> str:
    return "" if must.aim is None else f", aim {must.aim:.2f}"


def _roof(found: Verdict) -> str:
    """What the peak allows, behind a must that is missed."""
    most = found.row.most
    if found.met or most is None:
        return ""
    reach = "out of reach: " if most < found.must.factor else ""
    return f" ({reach}at most {most:.2f} at the peak)"


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
        if row.parts and max(row.parts) > 1:
            found[f"the peak was disturbed, do not read it: {_what(row)}"] = None
    return list(found)


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
                "most": row.most,
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
        "peak_of": row.probe,
        "flops": list(row.work),
        "ratio": ratio and ratio._asdict(),
        "gate": "red" if row.red else "passed" if row.ours else "not asked",
        "judged_steps": row.judged,
        "backend": row.backend,
        "foreign": row.foreign,
        "why": row.why,
    }
