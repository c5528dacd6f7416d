"""Texts: what is read, what is refused and how it is said, and characters as codes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bptt.errors import UserError
from bptt.tasks.text import MIN_CHARS, Vocabulary, load_text, printable, split

LONG = "To be, or not to be: that is the question.\n" * 30


def file(folder: Path, content: bytes) -> str:
    path = folder / "text.txt"
    path.write_bytes(content)
    return str(path)


def read(path: str) -> str:
    return load_text("file", path, say=pytest.fail).content


def test_a_file_is_read(tmp_path: Path) -> None:
    text = load_text("file", file(tmp_path, LONG.encode()), say=pytest.fail)
    assert text.content == LONG
    assert text.name == "text"
    assert Path(text.path).is_absolute()


def test_a_byte_order_mark_falls_away_and_newlines_are_made_one(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + LONG.replace("\n", "\r\n").encode()
    assert read(file(tmp_path, content)) == LONG


def test_any_language_and_one_long_line_are_texts(tmp_path: Path) -> None:
    greek = "μῆνιν ἄειδε θεὰ 🏛 " * 100
    assert read(file(tmp_path, greek.encode())) == greek


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b" \n" * 2000, "is empty"),
        (b"short\n", f"is too short: 6 characters.*at least {MIN_CHARS:,}"),
        (LONG.encode() + b"\0", "is a binary file"),
        (LONG.encode() + b"caf\xe9\n", "is not UTF-8: line 31 has the byte 0xe9"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(UserError, match=f"(?s){what}") as error:
        read(file(tmp_path, content))
    assert error.value.help


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*missing"):
        read(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="cannot read"):
        read(str(tmp_path))


def test_python_s_own_text() -> None:
    text = load_text("pydoc", "", say=pytest.fail)
    assert len(text.content) > 100_000
    assert "yield" in text.content


def test_a_python_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="pydoc_data"):
        load_text("pydoc", "", say=pytest.fail)


def test_codes_and_characters() -> None:
    vocabulary = Vocabulary.of("banana 🏛")
    assert vocabulary.symbols == " abn🏛"
    assert len(vocabulary) == 5
    codes = vocabulary.encode("nab🏛")
    assert codes.tolist() == [3, 1, 2, 4]
    assert vocabulary.decode(codes.tolist()) == "nab🏛"
    assert vocabulary.encode("").tolist() == []
    with pytest.raises(UserError, match="never saw 'x' 'z'"):
        vocabulary.encode("xnz")


def test_the_last_tenth_is_held_back() -> None:
    learned, held_back = split(np.arange(1005, dtype=np.int32))
    assert len(held_back) == 100
    assert np.array_equal(np.concatenate([learned, held_back]), np.arange(1005))


def test_a_terminal_s_escape_codes_are_made_visible() -> None:
    assert printable("a\x1b[2J\tß\n") == "a\N{REPLACEMENT CHARACTER}[2J\tß\n"
