"""Tables from CSV: every number in its place, every gap a gap, and what cannot be read is named."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt.errors import UserError
from bptt.tasks.series import Table, read_table

NAN = float("nan")


def put(folder: Path, text: str, name: str = "basins.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, **options: Any) -> Table:
    options.setdefault("columns", ("rain",))
    options.setdefault("time", "date")
    return read_table(put(folder, text), **options)


def assert_values(table: Table, record: int, expected: list[list[float]]) -> None:
    np.testing.assert_array_equal(table.records[record].values, np.array(expected))


def days(*numbers: int) -> np.ndarray[Any, Any]:
    return np.array([f"2001-01-{n:02}" for n in numbers], dtype="datetime64[s]")


def test_gaps_are_gaps_whoever_wrote_them(tmp_path: Path) -> None:
    rows = ["", "NA", "nan", "NaN", "null", "-9999", "-9999.00", " 1.5 ", "x", "2e1"]
    text = "date,rain\n" + "".join(f"2001-01-{k:02},{v}\n" for k, v in enumerate(rows, 1))
    table = read(tmp_path, text, missing=(-9999, "x"))
    assert_values(table, 0, [[NAN]] * 7 + [[1.5], [NAN], [20.0]])


@pytest.mark.parametrize("missing", [-9999, "-9999", (-9999.0,), ["x", "-9999.0"]])
def test_a_missing_value_is_one_however_it_is_given(tmp_path: Path, missing: Any) -> None:
    text = "date,rain\n2001-01-01,-9999\n2001-01-02,9\n2001-01-03,-9999.0\n"
    assert_values(read(tmp_path, text, missing=missing), 0, [[NAN], [9], [NAN]])


def test_columns_come_by_name_in_the_order_asked_for(tmp_path: Path) -> None:
    text = "flow,note,date,rain\n1,a,2001-01-01,10\n2,b,2001-01-02,20\n\n3,c,2001-01-03,30\n"
    table = read(tmp_path, text, columns=("rain", "flow"))
    assert table.columns == ("rain", "flow")
    assert_values(table, 0, [[10, 1], [20, 2], [30, 3]])
    assert (table.step, table.calendar) == (86_400, True)


def test_a_missing_row_is_a_gap_in_every_column(tmp_path: Path) -> None:
    text = "date,rain,flow\n2001-01-01,1,2\n2001-01-02,3,4\n2001-01-05,5,6\n"
    table = read(tmp_path, text, columns=("rain", "flow"))
    assert_values(table, 0, [[1, 2], [3, 4], [NAN, NAN], [NAN, NAN], [5, 6]])
    np.testing.assert_array_equal(table.records[0].times, days(1, 2, 3, 4, 5))


def test_records_may_be_interleaved_and_have_other_spans(tmp_path: Path) -> None:
    text = (
        "date,basin,rain\n2001-01-01,b,1\n2001-01-02,a,10\n2001-01-02,b,2\n"
        "2001-01-04,a,30\n2001-01-03,b,3\n"
    )
    table = read(tmp_path, text, series="basin")
    assert [record.name for record in table.records] == ["b", "a"]
    assert_values(table, 0, [[1], [2], [3]])
    assert_values(table, 1, [[10], [NAN], [30]])
    np.testing.assert_array_equal(table.records[1].times, days(2, 3, 4))
    assert table.span() == (days(1)[0], days(4)[0])


def test_attributes_belong_to_their_record(tmp_path: Path) -> None:
    text = "date,basin,rain\n2001-01-01,b,1\n2001-01-02,b,1\n2001-01-01,a,1\n2001-01-02,a,1\n"
    put(tmp_path, "slope,basin,area\n0.1,a,5\n0.3,unused,7\n0.2,b,6\n", "fixed.csv")
    fixed = {"statics": tmp_path / "fixed.csv", "attributes": ("area", "slope")}
    table = read(tmp_path, text, series="basin", **fixed)
    assert table.attributes == ("area", "slope")
    np.testing.assert_array_equal(table.statics, [[6, 0.2], [5, 0.1]])


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (["2001-01-01T01:00:00Z", "2001-01-01T03:00:00Z"], {}),
        (["2001-01-01T03:00+02:00", "2001-01-01T05:00+02:00"], {}),
        (["2001-01-01 01:00", "2001-01-01 03:00"], {}),
        (["1.1.2001 1h", "1.1.2001 3h"], {"time_format": "%d.%m.%Y %Hh"}),
    ],
)
def test_times_are_read_as_they_are_written(
    tmp_path: Path, times: list[str], options: dict[str, Any]
) -> None:
    table = read(tmp_path, f"date,rain\n{times[0]},1\n{times[1]},2\n", **options)
    expected = np.array(["2001-01-01T01:00", "2001-01-01T03:00"], dtype="datetime64[s]")
    np.testing.assert_array_equal(table.records[0].times, expected)
    assert table.step == 7200


def test_other_files_that_are_csv(tmp_path: Path) -> None:
    text = '\ufeffdate;"rain";x\r\n2001-01-01;1;"a\nb"\r\n2001-01-02;2;c\r\n'
    path = tmp_path / "basins.csv"
    path.write_text(text, encoding="utf-8", newline="")
    table = read_table(path, time="date", columns=("rain",), delimiter=";")
    assert_values(table, 0, [[1], [2]])


HEAD = "date,basin,rain\n"
TWO = HEAD + "2001-01-01,a,1\n2001-01-02,a,2\n"


@pytest.mark.parametrize(
    ("text", "options", "what", "help"),
    [
        ("", {}, "FILE is empty", "its first line names its columns"),
        (HEAD, {}, "FILE holds no rows beneath its first line", None),
        (TWO, {"columns": ("rian",)}, "FILE has no column 'rian'", "did you mean `rain`?"),
        (
            TWO,
            {"time": "moment"},
            "FILE has no column 'moment'",
            "its columns are date, basin, rain",
        ),
        (
            "date,rain,rain\n2001-01-01,1,2\n",
            {},
            "FILE has 2 columns 'rain'",
            "rename all but one",
        ),
        (TWO + "2001-01-03,a\n", {}, "FILE:4: 2 fields under 3 names", None),
        (
            TWO + "2001-01-03,a,1,5\n",
            {},
            "FILE:4: 4 fields under 3 names",
            "a number has a point, 1.5, and a text with a comma in it has quotes",
        ),
        (
            TWO.replace(",", ";"),
            {},
            "FILE has no column 'date' between ','",
            "its fields are apart by ';': delimiter=';'",
        ),
        (
            "date\train, mm\train\n2001-01-01\t1\t2\n",
            {},
            "FILE has no column 'date' between ','",
            "its fields are apart by '\\t': delimiter='\\t'",
        ),
        (
            TWO,
            {"delimiter": ";"},
            "FILE has no column 'date' between ';'",
            "its fields are apart by ',': delimiter=','",
        ),
        (
            TWO.replace(",", ";") + "2001-01-03;a;-1,5\n",
            {"delimiter": ";"},
            "FILE:4: the rain '-1,5' is no number",
            "a number has a point: write 1.5, and not 1,5",
        ),
        (
            TWO + "2001-13-03,a,1\n",
            {},
            "FILE:4: '2001-13-03' is no time",
            "ISO 8601 is read as it is; for another way, time_format='%d.%m.%Y %H:%M'",
        ),
        (
            TWO,
            {"time_format": "%d.%m.%Y"},
            "FILE:2: '2001-01-01' is no time",
            "time_format is '%d.%m.%Y'",
        ),
        (
            TWO + "2001-01-03,a,wet\n",
            {},
            "FILE:4: the rain 'wet' is no number",
            "if it stands for a missing value, say so: missing=('wet',)",
        ),
        (
            TWO + "2001-01-03,a,1_0\n",
            {},
            "FILE:4: the rain '1_0' is no number",
            "if it stands for a missing value, say so: missing=('1_0',)",
        ),
        (
            TWO + "2001-01-03,a,inf\n",
            {},
            "FILE:4: the rain 'inf' is no number",
            "if it stands for a missing value, say so: missing=('inf',)",
        ),
        (
            TWO + "2001-01-02,a,3\n",
            {},
            "FILE:4: the time 2001-01-02 stands twice",
            "sort the rows by date, with one row for each; the other is line 3",
        ),
        (
            TWO + "2001-01-01,a,3\n",
            {"series": "basin"},
            "FILE:4: the time 2001-01-01 of a is earlier than the one before",
            "sort the rows by date, with one row for each; the other is line 3",
        ),
        (
            HEAD + "2001-01-01,a,1\n",
            {},
            "there is but one row, and no step from one to the next",
            None,
        ),
        (
            HEAD + "2001-01-01,a,1\n2001-01-03,a,1\n2001-01-06,a,1\n",
            {"series": "basin"},
            (
                "the time 2001-01-06T00:00:00 of a is off the grid of the others, whose step is"
                " 172800 seconds"
            ),
            "steps must be equal (rows may be left out): bring the times to a regular grid",
        ),
        (
            HEAD + "2001-01-01T00:00:00,a,1\n2001-01-01T00:00:01,a,1\n2101-01-01,a,1\n",
            {},
            "from 2001-01-01T00:00:00 to 2101-01-01T00:00:00 there are 3,155,673,600 steps",
            "the shortest step is 1: is one of the times wrong?",
        ),
        (TWO, {"columns": ()}, "there are no columns to read", "columns=('rain', 'flow')"),
        (TWO, {"columns": "rain"}, "columns are several names: ('rain',)", None),
        (TWO, {"attributes": "area"}, "attributes are several names: ('area',)", None),
        (TWO, {"columns": ("rain", "rain")}, "a column is named twice: rain, rain", None),
        (
            TWO,
            {"attributes": ("area",)},
            "attributes are named, and no file with them",
            "statics='FILE.csv'",
        ),
        (
            TWO + "2001-01-03,a," + 200_000 * "1",
            {},
            "FILE:4: field larger than field limit (131072)",
            None,
        ),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, text: str, options: dict[str, Any], what: str, help: str | None
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, **options)
    name = str(tmp_path / "basins.csv")
    assert caught.value.what == what.replace("FILE", name)
    assert caught.value.help == help


@pytest.mark.parametrize(
    ("hours", "off"),
    [
        ([0, 24, 49, 72, 96], "the time 2001-01-03T01:00:00 is off the grid"),
        ([1, 24, 48, 72], "the time 2001-01-01T01:00:00 is off the grid"),
        ([0, 24, 48, 71], "the time 2001-01-03T23:00:00 is off the grid"),
    ],
)
def test_the_time_that_is_off_is_named_and_no_other(hours: list[int], off: str) -> None:
    times = np.datetime64("2001-01-01", "s") + 3600 * np.array(hours)
    with pytest.raises(UserError) as caught:
        Table.of({"y": np.arange(len(hours))}, times)
    assert caught.value.what == f"{off} of the others, whose step is 86400 seconds"


def test_of_many_times_that_are_off_the_first_is_named() -> None:
    with pytest.raises(UserError) as caught:
        Table.of({"y": np.arange(7)}, [0, 10, 20, 30, 43, 53, 63])
    what = "the time 43 is off the grid of the others, whose step is 10, and 2 more are"
    assert caught.value.what == what


def test_the_record_is_named_whose_time_is_off(tmp_path: Path) -> None:
    rows = [f"2001-01-{k:02}T00:00,{basin},1\n" for basin in "abc" for k in range(1, 6)]
    rows[7] = rows[7].replace("T00:00", "T00:05")
    with pytest.raises(UserError, match="the time 2001-01-03T00:05:00 of b is off the grid"):
        read(tmp_path, HEAD + "".join(rows), series="basin")


@pytest.mark.parametrize(
    ("fixed", "options", "what", "help"),
    [
        (
            "basin,area\na,1\n",
            {"series": None},
            "static attributes need to be told apart by series",
            "series=..., a column of both files, says which row of FIXED is whose",
        ),
        (
            "basin,area\na,1\n",
            {"attributes": ()},
            "no attributes of FIXED are named",
            "attributes=('area', 'slope')",
        ),
        ("basin,area\nb,1\n", {}, "FIXED has no row for the basin a", None),
        (
            "basin,area\na,1\na,2\n",
            {},
            "FIXED:3: basin a stands twice",
            "keep one row for each",
        ),
        (
            "basin,area\na,NA\n",
            {},
            "FIXED:2: a has no area",
            "an attribute has no gaps: give a value, or leave the attribute out",
        ),
    ],
)
def test_attributes_that_do_not_fit(
    tmp_path: Path, fixed: str, options: dict[str, Any], what: str, help: str | None
) -> None:
    path = put(tmp_path, fixed, "fixed.csv")
    given = {"series": "basin", "statics": path, "attributes": ("area",), **options}
    with pytest.raises(UserError) as caught:
        read(tmp_path, TWO, **given)
    assert caught.value.what == what.replace("FIXED", str(path))
    assert caught.value.help == (help and help.replace("FIXED", str(path)))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*absent.csv: No such file"):
        read_table(tmp_path / "absent.csv", time="date", columns=("rain",))
    path = tmp_path / "latin.csv"
    path.write_bytes("date,höhe\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.csv is not text in UTF-8"):
        read_table(path, time="date", columns=("rain",))


def test_a_table_of_arrays() -> None:
    table = Table.of({"y": [1, 2, 3], "z": [4, NAN, 6]})
    assert_values(table, 0, [[1, 4], [2, NAN], [3, 6]])
    assert (table.step, table.calendar, table.records[0].times.tolist()) == (1, False, [0, 1, 2])
    table = Table.of({"y": [1, 2]}, times=[10, 30])
    assert (table.step, table.records[0].times.tolist()) == (20, [10, 30])
    table = Table.of({"y": [1, 2, 3]}, times=["2001-01-01", "2001-01-02", "2001-01-04"])
    assert_values(table, 0, [[1], [2], [NAN], [3]])


@pytest.mark.parametrize(
    ("columns", "times", "what"),
    [
        ({"y": [1, 2], "z": [1]}, None, "the columns must be arrays [T] of one length, at least 2"),
        ({"y": [[1, 2]]}, None, "the columns must be arrays [T] of one length, at least 2"),
        ({}, None, "the columns must be arrays [T] of one length, at least 2"),
        ({"y": [1.0, np.inf]}, None, "the columns hold infinite values"),
        (
            {"x": [1, 2], "y": ["a", "b"]},
            None,
            "the column 'y' is not made of numbers: could not convert string to float: 'a'",
        ),
        ({"y": [1, 2]}, [[1, 2], [3]], "the times cannot be read"),
        ({"y": [1, 2]}, [0], "the times must be 2 moments, one for each value"),
        ({"y": [1, 2]}, ["2001-01-01", "NaT"], "the times must be 2 moments, one for each value"),
        ({"y": [1, 2]}, ["monday", "tuesday"], "the times cannot be read"),
        ({"y": [1, 2]}, [5, 5], "the times must rise, and none may stand twice"),
    ],
)
def test_arrays_that_are_no_table(columns: Any, times: Any, what: str) -> None:
    with pytest.raises(UserError) as caught:
        Table.of(columns, times)
    assert caught.value.what == what


def test_a_moment_is_of_the_tables_kind() -> None:
    dated = Table.of({"y": [1, 2]}, times=["2001-01-01", "2001-01-02"])
    noon = np.datetime64("2001-01-02T12:00:00", "s")
    given: list[Any] = ["2001-01-02T12:00", "2001-01-02T13:00+01:00", datetime(2001, 1, 2, 12)]
    assert [dated.moment(moment) for moment in given] == [noon] * 3
    assert dated.moment(date(2001, 1, 2)) == days(2)[0]
    counted = Table.of({"y": [1, 2]})
    assert counted.moment(7) == 7
    with pytest.raises(UserError, match="7 is no time of this table"):
        dated.moment(7)
    with pytest.raises(UserError, match="'2001-01-02' is no time of this table"):
        counted.moment("2001-01-02")
    with pytest.raises(UserError, match="'soon' is no time"):
        dated.moment("soon")
