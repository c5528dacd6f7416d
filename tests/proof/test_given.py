"""Values for worked examples: what a file may say, the sizes that follow, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt import cells
from bptt.cell import Cell
from bptt.errors import UserError
from bptt.proof.given import parse_values, read_values

RNN = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
WIDE = Cell("input x: X\nh[t] = tanh(W @ concat(x[t], h[t-1]))")


def said(cell: Cell, values: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as error:
        cell.trace(values, **options)
    return str(error.value)


def test_sizes_follow_from_the_values() -> None:
    assert RNN.trace({"inputs": {"x": [[1, 2, 3, 4]]}}).sizes == {"X": 4, "H": 2}
    assert RNN.trace({"parameters": {"W": [[1, 2], [3, 4], [5, 6]]}}).sizes == {"X": 2, "H": 3}
    assert RNN.trace({"states": {"h": [0.5]}}).sizes == {"X": 2, "H": 1}
    assert RNN.trace({"gradients": {"h": [[1, 2]]}}).sizes == {"X": 3, "H": 2}


def test_a_size_follows_from_a_sum_of_sizes() -> None:
    assert WIDE.trace({"parameters": {"W": np.ones((2, 7))}}).sizes == {"X": 5, "H": 2}
    assert "from `W`" in said(
        WIDE, {"parameters": {"W": np.ones((2, 7))}, "inputs": {"x": [[1, 2]]}}
    )
    assert "W" in said(WIDE, {"parameters": {"W": np.ones((7, 7))}})


def test_a_size_follows_from_a_multiple_of_it() -> None:
    cell = Cell.load("layernorm_lstm")  # whose b is as long as four gates
    assert cell.trace({"parameters": {"b": [1] * 8}}).sizes["H"] == 2
    assert "a vector of 12 is needed" in said(cell, {"parameters": {"b": [1] * 9}})


def test_sizes_are_as_asked_or_small_and_distinct() -> None:
    assert RNN.trace().sizes == {"X": 2, "H": 3}
    assert RNN.trace(sizes={"H": 2}).sizes == {"X": 3, "H": 2}
    assert RNN.trace(sizes={"H": 1, "X": 1}).sizes == {"X": 1, "H": 1}
    assert said(RNN, {}, sizes={"K": 1}) == "error: the cell has no size `K`\nhelp: there are X, H"
    assert said(RNN, {}, sizes={"H": 0}).startswith("error: the size `H` cannot be 0")
    asked = said(RNN, {"states": {"h": [1]}}, sizes={"H": 2})
    assert asked == (
        "error: `h` is a list of 1 number, and a vector of 2 is needed\n"
        "help: `h` is H: H = 2 (as asked)"
    )


def test_the_length_is_that_of_the_series() -> None:
    assert RNN.trace().length == 2
    assert RNN.trace(length=4).length == 4
    values = {"inputs": {"x": [[1], [2], [3]]}}
    assert RNN.trace(values).length == 3
    assert "`x` has 3 steps, and not 2" in said(RNN, values, length=2)
    both = {**values, "gradients": {"h": [[1], [2]]}}
    assert "`x` has 3 steps, and `h` 2" in said(RNN, both)


@pytest.mark.parametrize(
    ("values", "what", "help"),
    [
        (
            {"parameters": {"W": [[1, 2], [3, 4]], "b": [1]}},
            "`b` is a list of 1 number, and a vector of 2 is needed",
            "`b` is H: H = 2 (from `W`)",
        ),
        (
            {"parameters": {"U": [[1, 2]], "b": [1]}},
            "`U` is 1 by 2, and a matrix of 1 by 1 is needed",
            "`U` is (H, H): H = 1 (from `U`)",
        ),
        (
            {"inputs": {"x": [1, 2]}},
            "`x` is a list of 2 numbers",
            "`x` is a list of T vectors of X",
        ),
        ({"parameters": {"b": 1}}, "`b` is one number", "`b` is a vector of H"),
        (
            {"parameters": {"W": [[1, 2], [3]]}},
            "`W` has rows of different lengths",
            "`W` is a matrix of H by X",
        ),
        ({"parameters": {"b": ["1"]}}, "`b` is not made of numbers", "`b` is a vector of H"),
        ({"parameters": {"b": [True]}}, "`b` is not made of numbers", "`b` is a vector of H"),
        ({"parameters": {"b": []}}, "`b` is empty", "`b` is a vector of H"),
        ({"parameters": {"b": [np.inf]}}, "`b` is not finite everywhere", "`b` is a vector of H"),
        (
            {"parameters": {"WW": 1}},
            "the cell has no parameter called `WW`",
            "did you mean `W`?",
        ),
        (
            {"parameters": {"gain": 1}},
            "the cell has no parameter called `gain`",
            "`W` is a matrix of H by X, `U` is a matrix of H by H, `b` is a vector of H",
        ),
        (
            {"parameters": {"x": [[1]]}},
            "the cell has no parameter called `x`",
            "`x` belongs under `[inputs]`",
        ),
        ({"constants": {"k": 1}}, "the cell has no constants, and `k` is given", None),
        ({"W": [[1]]}, "`W` stands in no section", "put it under `[parameters]`"),
        (
            {"input": {"x": [[1]]}},
            "there is no section `input`",
            "did you mean `inputs`?",
        ),
        ({"inputs": 3}, "`inputs` is a section", "write `[inputs]` above a line each"),
        ({"rate": "fast"}, "the learning rate cannot be 'fast'", "a number, such as 0.1"),
        ({"rate": -1}, "the learning rate cannot be -1", "a number, such as 0.1"),
        ({"rate": True}, "the learning rate cannot be True", "a number, such as 0.1"),
        (
            {"rate": 16**5000},
            "the learning rate cannot be so large a number",
            "a number, such as 0.1",
        ),
        (
            {3: {}},
            "there is no section `3`",
            "there are inputs, parameters, states, constants, gradients, and rate",
        ),
        (
            {"parameters": {"b": [10**400]}},
            "`b` has a number that is too large",
            "below 1.8e308 in size",
        ),
        (
            {"parameters": {"b": [10**30, True]}},
            "`b` is not made of numbers",
            "`b` is a vector of H",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(
    values: dict[Any, Any], what: str, help: str | None
) -> None:
    assert said(RNN, values) == f"error: {what}" + (f"\nhelp: {help}" if help else "")


def test_a_file_is_read_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("rate = 0.5\n[parameters]\nb = [1, 2, 3]\n", encoding="utf-8")
    found = RNN.trace(path)
    assert (found.rate, found.values["b"].tolist()) == (0.5, [1, 2, 3])
    assert RNN.trace(str(path), rate=0.25).rate == 0.25
    with pytest.raises(UserError, match="No such file"):
        read_values(tmp_path / "none.toml")
    with pytest.raises(UserError, match="cannot read"):
        read_values("a\0b")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_values(path)
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(UserError, match="is larger than 256 KiB"):
        read_values(path)


@pytest.mark.parametrize("text", ["x = ", "[[a]\n", "x = " + "[" * 5000, "x = 1\nx = 2", "x = 1e"])
def test_what_is_no_toml_is_said(text: str) -> None:
    with pytest.raises(UserError, match=r"^error: mine is no TOML: .*"):
        parse_values(text, "mine")


def test_whole_numbers_of_any_length_are_numbers() -> None:
    values = parse_values(f"[parameters]\nb = [{10**30}, -0.5]\n", "mine")
    assert RNN.trace(values).values["b"].tolist() == [1e30, -0.5]


@pytest.mark.parametrize(
    "text",
    [
        "a.a.a.a.a.a.a.a.a.a = 1",
        "[a.a.a.a.a.a.a.a.a.a]",
        '[\'a\' . "\\"" .a.a.a.a.a.a.a.a]',
        "a = {b = 0.5, a.a.a.a.a.a.a.a.a.a = 1}",
        ".".join("a" * 100_000) + " = 1",  # tomllib would take minutes
    ],
)
def test_a_key_of_many_parts_is_refused_before_it_is_read(text: str) -> None:
    with pytest.raises(UserError, match=r"^error: mine, line 2: a key has more than 8 dots\n"):
        parse_values(f"\n{text}", "mine")


def test_dots_that_are_in_no_key_are_not_counted() -> None:
    numbers = [k + 0.5 for k in range(20)]
    text = f"# ............ and 'so' .. on\n[parameters]\nb = {numbers}\na.a.a.a.a.a.a.a.a = 1"
    assert parse_values(text, "mine")["parameters"]["b"] == numbers


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"rate": float("nan")}, "the learning rate cannot be nan"),
        ({"rate": float("inf")}, "the learning rate cannot be inf"),
        ({"rate": -0.5}, "the learning rate cannot be -0.5"),
        ({"rate": "x"}, "the learning rate cannot be 'x'"),
        ({"length": "a"}, "the length cannot be 'a'"),
        ({"length": 2.0}, "the length cannot be 2.0"),
        ({"length": 0}, "the length cannot be 0"),
        ({"seed": 1.5}, "the seed cannot be 1.5"),
        ({"seed": ""}, "the seed cannot be ''"),
        ({"seed": False}, "the seed cannot be False"),
        ({"seed": -1}, "the seed cannot be -1"),
        ({"sizes": {"H": 2.5}}, "the size `H` cannot be 2.5"),
        ({"sizes": {"H": True}}, "the size `H` cannot be True"),
        ({"sizes": {3: 2}}, "the cell has no size `3`"),
        ({"sizes": [("H", 2)]}, "the sizes cannot be [('H', 2)]"),
        ({"values": 3}, "the values cannot be 3"),
        ({"values": list(range(99))}, f"the values cannot be {str(list(range(99)))[:57]}..."),
    ],
)
def test_an_option_of_another_kind_is_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError) as error:
        RNN.trace(**options)
    assert error.value.what == what
    assert error.value.help


def test_numbers_of_numpy_are_numbers() -> None:
    sizes = {"H": np.int64(2)}
    found = RNN.trace(seed=np.int32(1), length=np.int64(3), sizes=sizes, rate=np.float32(0.5))
    assert (found.seed, found.length, found.sizes["H"], found.rate) == (1, 3, 2, 0.5)
    assert type(found.length) is type(found.sizes["H"]) is int
    with pytest.raises(UserError, match="the learning rate cannot be"):
        RNN.trace(rate=np.True_)


def test_the_example_of_gomez_gives_every_value() -> None:
    text = cells.example("gomez")
    assert text is not None
    values = parse_values(text, "gomez")
    p = Cell.load("gomez").program
    given = {name for section in values.values() if isinstance(section, dict) for name in section}
    assert given == {v.name for v in p.values} | {s.name for s in p.states}
    assert cells.example("lstm") is None
    assert cells.example("../gomez") is None
