"""Every error text, exactly. `BPTT_UPDATE_GOLDEN=1 pytest tests/language` writes them anew."""

import os
from pathlib import Path

import pytest
from language.slips import SLIPS

from bptt.errors import CellError
from bptt.language.check import check

GOLDEN = Path(__file__).parent.parent / "golden" / "errors.txt"
HEAD = "# What is said about every slip in tests/language/slips.py. Written by its test.\n"


def message(text: str) -> str:
    with pytest.raises(CellError) as caught:
        check(text)
    return str(caught.value)


def golden() -> dict[str, str]:
    parts = GOLDEN.read_text(encoding="utf-8").removeprefix(HEAD).split("\n=== ")
    pairs = (part.split("\n", 1) for part in parts if part.strip())
    return {name: text.rstrip("\n") for name, text in pairs}


def test_golden_file_has_all_slips() -> None:
    if os.environ.get("BPTT_UPDATE_GOLDEN"):
        texts = [f"\n=== {name}\n{message(text)}\n" for name, text in SLIPS.items()]
        GOLDEN.write_text(HEAD + "".join(texts), encoding="utf-8")
    assert list(golden()) == list(SLIPS)


@pytest.mark.parametrize("name", SLIPS)
def test_error_text(name: str) -> None:
    assert message(SLIPS[name]) == golden()[name]


@pytest.mark.parametrize("name", SLIPS)
def test_rules_of_error_texts(name: str) -> None:
    with pytest.raises(CellError) as caught:
        check(SLIPS[name])
    error = caught.value
    first = error.what.lstrip("`")[0]
    assert error.what[0] == "`" or not first.isupper()
    for said in (error.what, error.help or ""):
        assert not said.endswith("."), said
        assert "illegal" not in said
    for span, _ in (*error.notes, *([(error.span, "")] if error.span else [])):
        assert 0 <= span.start < span.end or name == "nothing"
        assert span.end <= len(span.source.split("\n")[span.line - 1])
