"""Records over time, as a forecast needs them: read from CSV, on a regular grid, gaps marked."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bptt.errors import UserError
from bptt.language.near import did_you_mean

Floats = NDArray[np.float64]
Moment = str | date | datetime | int

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What stands for a missing value in a CSV, whatever the case of its letters."""
_DELIMITERS = ",;\t|"
MOST_STEPS = 50_000_000
"""On a grid: a record of seconds with a hole of decades would fill the memory with gaps."""


@dataclass(frozen=True)
class Record:
    """What one place measured: `times` `[T]`, one every step, and `values` `[T, C]`, NaN a gap."""

    name: str
    times: NDArray[Any]
    values: Floats


@dataclass(frozen=True)
class Table:
    """Records of the same `columns`, on grids of one `step`.

    `calendar`: times are datetime64[s], in UTC where the source names a zone, and the step is in
    seconds; otherwise both are whole numbers. `attributes` name what does not change, `statics`
    `[N, S]` has them, a row for each record.
    """

    columns: tuple[str, ...]
    records: tuple[Record, ...]
    step: int
    calendar: bool
    attributes: tuple[str, ...]
    statics: Floats

    @classmethod
    def of(cls, columns: Mapping[str, ArrayLike], times: ArrayLike | None = None) -> Table:
        """One record from arrays of one length, at dates or whole numbers; else at 0, 1, 2 ...

        Raises UserError where they are no numbers, do not fit together, or the times do not rise.
        """
        arrays = {name: _numbers(name, value) for name, value in columns.items()}
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) != 1 or len(shape := next(iter(shapes))) != 1 or shape[0] < 2:
            raise UserError("the columns must be arrays [T] of one length, at least 2")
        values = np.stack(list(arrays.values()), axis=1)
        if np.isinf(values).any():
            raise UserError("the columns hold infinite values", help="NaN stands for a gap")
        try:
            moments = np.arange(shape[0]) if times is None else np.asarray(times)
            calendar = not np.issubdtype(moments.dtype, np.integer)
            moments = moments.astype("datetime64[s]" if calendar else "int64")
        except (TypeError, ValueError):
            help = "dates, datetime64 or whole numbers"
            raise UserError("the times cannot be read", help=help) from None
        if moments.shape != shape or (calendar and np.isnat(moments).any()):
            raise UserError(f"the times must be {shape[0]} moments, one for each value")
        if (np.diff(moments.astype(np.int64)) <= 0).any():
            raise UserError("the times must rise, and none may stand twice")
        return _table(tuple(arrays), {"": (moments, values)}, calendar, (), np.zeros((1, 0)))

    def column(self, name: str) -> int:
        """Where a column stands. Raises UserError where there is none of the name."""
        return _place(name, self.columns, "the table")

    def moment(self, value: Moment) -> np.datetime64 | np.int64:
        """A time as the table has it. Raises UserError for one of the other kind."""
        if not self.calendar and isinstance(value, int):
            return np.int64(value)
        if self.calendar and isinstance(value, datetime | str):
            return _moment(value, None)
        if self.calendar and isinstance(value, date):
            return np.datetime64(value, "s")
        kind = "a date, as '2013-10-01'" if self.calendar else "a whole number, as its times are"
        raise UserError(f"{value!r} is no time of this table", help=f"give {kind}")

    def span(self) -> tuple[Any, Any]:
        """The first time and the last one of all records."""
        return min(r.times[0] for r in self.records), max(r.times[-1] for r in self.records)


def read_table(
    path: str | Path,
    *,
    time: str,
    columns: Sequence[str],
    series: str | None = None,
    statics: str | Path | None = None,
    attributes: Sequence[str] = (),
    missing: Sequence[str | float] | str | float = (),
    time_format: str | None = None,
    delimiter: str = ",",
) -> Table:
    """The numbers of a CSV file over time.

    The file's first line names its columns. `time`: the column of times, in ISO 8601 or in the
    `time_format` of `datetime.strptime`; within a series they must rise. `columns`: those to read
    as numbers. `series`: the column that says which record a row belongs to (a basin, a station).
    `statics`: a second CSV file with one row for each record, found by the same column; of it the
    `attributes` are read. `missing`: what else stands for a missing value, `(-9999,)`, than an
    empty field, NA, NaN and null. A step that has no row at all is a gap in every column.

    Raises UserError, with file and line, for what cannot be read.
    """
    for what, names in (("columns", columns), ("attributes", attributes)):
        if isinstance(names, str):
            raise UserError(f"{what} are several names: ({names!r},)")
    if not columns:
        raise UserError("there are no columns to read", help="columns=('rain', 'flow')")
    gone = _Missing(missing)
    rows: dict[str, tuple[list[Any], list[list[float]], list[int]]] = {}
    for line, fields in _rows(path, [time, *columns, *([series] if series else [])], delimiter):
        where = f"{path}:{line}"
        moment = _moment(fields[time], time_format, where)
        times, values, lines = rows.setdefault(fields[series] if series else "", ([], [], []))
        if times and moment <= times[-1]:
            what = "stands twice" if moment == times[-1] else "is earlier than the one before"
            of = f" of {fields[series]}" if series else ""
            help = f"sort the rows by {time}, with one row for each; the other is line {lines[-1]}"
            raise UserError(f"{where}: the time {fields[time]}{of} {what}", help=help)
        times.append(moment)
        values.append([gone.number(fields[name], name, where) for name in columns])
        lines.append(line)
    if not rows:
        raise UserError(f"{path} holds no rows beneath its first line")
    found = {name: (np.array(t), np.array(v)) for name, (t, v, _) in rows.items()}
    fixed = np.zeros((len(found), 0))
    if statics is not None:
        if series is None:
            help = f"series=..., a column of both files, says which row of {statics} is whose"
            raise UserError("static attributes need to be told apart by series", help=help)
        fixed = _read_statics(statics, series, attributes, list(found), gone, delimiter)
    elif attributes:
        raise UserError("attributes are named, and no file with them", help="statics='FILE.csv'")
    return _table(tuple(columns), found, True, tuple(attributes), fixed)


def _read_statics(
    path: str | Path,
    series: str,
    attributes: Sequence[str],
    names: list[str],
    gone: _Missing,
    delimiter: str,
) -> Floats:
    """The attributes `[N, S]` of the records `names`."""
    if not attributes:
        raise UserError(f"no attributes of {path} are named", help="attributes=('area', 'slope')")
    found: dict[str, list[float]] = {}
    for line, fields in _rows(path, [series, *attributes], delimiter):
        where, name = f"{path}:{line}", fields[series]
        if name in found:
            raise UserError(f"{where}: {series} {name} stands twice", help="keep one row for each")
        if name in names:
            found[name] = [gone.number(fields[a], a, where) for a in attributes]
            lacking = [a for a, v in zip(attributes, found[name], strict=True) if math.isnan(v)]
            if lacking:
                help = "an attribute has no gaps: give a value, or leave the attribute out"
                raise UserError(f"{where}: {name} has no {lacking[0]}", help=help)
    absent = next((name for name in names if name not in found), None)
    if absent is not None:
        raise UserError(f"{path} has no row for the {series} {absent}")
    return np.array([found[name] for name in names])


class _Missing:
    """Reads a number, or that there is none."""

    def __init__(self, also: Sequence[str | float] | str | float) -> None:
        given = [also] if isinstance(also, str | float | int) else also
        self.texts = MISSING | {one.strip().lower() for one in given if isinstance(one, str)}
        self.numbers = {one for one in map(_finite, given) if one is not None}

    def number(self, text: str, column: str, where: str) -> float:
        text = text.strip()
        if text.lower() in self.texts:
            return math.nan
        value = _finite(text)
        if value is None:
            help = f"if it stands for a missing value, say so: missing=({text!r},)"
            if _finite(text.replace(",", ".", 1)) is not None:
                help = "a number has a point: write 1.5, and not 1,5"
            raise UserError(f"{where}: the {column} {text!r} is no number", help=help)
        return math.nan if value in self.numbers else value


def _finite(text: str | float) -> float | None:
    """The number that a text is, if it is one."""
    try:
        # Python reads 1_000 as a number; in a file it is a slip.
        value = float(text) if "_" not in str(text) else math.inf
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(name: str, value: ArrayLike) -> Floats:
    """A column as numbers. Raises UserError where it holds something else."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(f"the column {name!r} is not made of numbers: {error}") from None


def _rows(
    path: str | Path, wanted: Sequence[str], delimiter: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row's line and its fields by name. Raises UserError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from _rows_of(file, path, wanted, delimiter)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8", help="save it as CSV in UTF-8") from None


def _rows_of(
    file: TextIO, path: str | Path, wanted: Sequence[str], delimiter: str
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(file, delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
        if not names:
            raise UserError(f"{path} is empty", help="its first line names its columns")
        _refuse_other_delimiter(path, names, wanted, delimiter)
        places = {name: _place(name, names, str(path)) for name in wanted}
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(names):
                what = f"{len(fields)} fields under {len(names)} names"
                help = "a number has a point, 1.5, and a text with a comma in it has quotes"
                more = delimiter == "," and len(fields) > len(names)
                raise UserError(f"{path}:{reader.line_num}: {what}", help=help if more else None)
            yield reader.line_num, {name: fields[place] for name, place in places.items()}
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}") from None


def _refuse_other_delimiter(
    path: str | Path, names: Sequence[str], wanted: Sequence[str], delimiter: str
) -> None:
    """Say so where a name that is lacking would be there if fields were apart by another sign."""
    lacking = [name for name in wanted if name not in names]
    for other in _DELIMITERS if lacking else ():
        parts = {part.strip(' "') for part in delimiter.join(names).split(other)}
        if other != delimiter and parts.intersection(lacking):
            what = f"{path} has no column {lacking[0]!r} between {delimiter!r}"
            raise UserError(what, help=f"its fields are apart by {other!r}: delimiter={other!r}")


def _place(name: str, names: Sequence[str], whose: str) -> int:
    """Where `name` stands among `names`, once."""
    found = [k for k, known in enumerate(names) if known == name]
    if not found:
        help = did_you_mean(name, names) or f"its columns are {', '.join(names)}"
        raise UserError(f"{whose} has no column {name!r}", help=help)
    if len(found) > 1:
        raise UserError(f"{whose} has {len(found)} columns {name!r}", help="rename all but one")
    return found[0]


def _moment(given: str | datetime, format: str | None, where: str = "") -> np.datetime64:
    """A time in seconds, in UTC if it names a zone."""
    try:
        if isinstance(given, datetime):
            moment = given
        elif format is None:
            moment = datetime.fromisoformat(given.strip())
        else:
            moment = datetime.strptime(given.strip(), format)
    except ValueError:
        place = f"{where}: " if where else ""
        usual = "ISO 8601 is read as it is; for another way, time_format='%d.%m.%Y %H:%M'"
        help = usual if format is None else f"time_format is {format!r}"
        raise UserError(f"{place}{given!r} is no time", help=help) from None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "s")


def _table(
    columns: tuple[str, ...],
    found: Mapping[str, tuple[NDArray[Any], Floats]],
    calendar: bool,
    attributes: tuple[str, ...],
    statics: Floats,
) -> Table:
    """Every record on a grid of the shortest step that there is; what is not there is a gap."""
    if len(set(columns)) != len(columns):
        raise UserError(f"a column is named twice: {', '.join(columns)}")
    leaps = [np.diff(times.astype(np.int64)) for times, _ in found.values()]
    shortest = [int(leap.min()) for leap in leaps if len(leap)]
    if not shortest:
        raise UserError("there is but one row, and no step from one to the next")
    step = min(shortest)
    records: list[Record] = []
    for (name, (times, values)), leap in zip(found.items(), leaps, strict=True):
        if (leap % step).any():
            raise _off_grid({name: times for name, (times, _) in found.items()}, calendar)
        where = (times.astype(np.int64) - times[0].astype(np.int64)) // step
        if where[-1] >= MOST_STEPS:
            what = f"from {times[0]} to {times[-1]} there are {where[-1]:,} steps"
            raise UserError(what, help=f"the shortest step is {step}: is one of the times wrong?")
        whole = np.full((int(where[-1]) + 1, len(columns)), np.nan)
        whole[where] = values
        ticks = times[0].astype(np.int64) + step * np.arange(len(whole))
        records.append(Record(name, ticks.astype(times.dtype), whole))
    return Table(columns, tuple(records), step, calendar, attributes, statics)


def _off_grid(found: Mapping[str, NDArray[Any]], calendar: bool) -> UserError:
    """The error for times on no grid, which names the first that does not lie where most do."""
    ticks = {name: times.astype(np.int64) for name, times in found.items()}
    steps, counts = np.unique(np.concatenate([*map(np.diff, ticks.values())]), return_counts=True)
    usual = int(steps[np.argmax(counts)])  # the shortest step may be one to a time that is off
    all_off = {name: times[_is_off(ticks[name] % usual)] for name, times in found.items()}
    name, off = next((name, off) for name, off in all_off.items() if len(off))
    of, unit = f" of {name}" if name else "", " seconds" if calendar else ""
    more = f", and {len(off) - 1} more are" if len(off) > 1 else ""
    what = f"the time {off[0]}{of} is off the grid of the others, whose step is {usual}{unit}{more}"
    help = "steps must be equal (rows may be left out): bring the times to a regular grid"
    return UserError(what, help=help)


def _is_off(places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the places differ from the most frequent one; of such the earliest counts."""
    known, first, counts = np.unique(places, return_index=True, return_counts=True)
    most = min(range(len(known)), key=lambda k: (-counts[k], first[k]))
    return places != known[most]
