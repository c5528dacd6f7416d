"""The errata page is what `bptt check` says of the documents; corrected, their passes are right."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import bptt
from bptt.printers.text import text

ROOT = Path(__file__).parent.parent.parent


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errata", ROOT / "scripts" / "errata.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["errata"] = module
    spec.loader.exec_module(module)
    return module


ERRATA = script()


def test_the_page_is_fresh() -> None:
    assert ERRATA.PAGE.read_text("utf-8") == ERRATA.page(), "run `python scripts/errata.py`"


@pytest.mark.parametrize("name", ERRATA.NAMES)
def test_a_corrected_pass_is_right_from_end_to_end(name: str) -> None:
    corrected = bptt.load(ERRATA.DOCUMENTS / f"{name}_corrected.cell")
    found = corrected.judge(explain=False)
    assert found.ok and not found.whole.missing
    conditions = {found.whole.when, *(x.when for x in found.lines)}
    # its labels are one-hot; all else holds without conditions
    assert conditions == ({"", "y sums to 1"} if name == "shakespeare" else {""})


@pytest.mark.parametrize("name", ERRATA.NAMES)
def test_the_forward_pass_is_that_of_the_library(name: str) -> None:
    for file in (f"{name}.cell", f"{name}_corrected.cell"):
        written = bptt.load(ERRATA.DOCUMENTS / file).program
        assert text(written) == text(bptt.load(name).program)


# How many equations of each document stand there as printed.
@pytest.mark.parametrize(
    ("name", "printed"),
    [("gomez", 15), ("shakespeare", 23), ("sancho", 39), ("iosif", 25), ("jimenez", 26)],
)
def test_every_printed_equation_has_a_reading(name: str, printed: int) -> None:
    found = ERRATA.printed((ERRATA.DOCUMENTS / f"{name}.cell").read_text("utf-8"))
    assert len([e for e in found if e.first]) == printed


@pytest.mark.parametrize("name", ERRATA.NAMES)
def test_every_wrong_line_has_its_correction(name: str) -> None:
    _, found = ERRATA.verdicts(name)
    wrong = [line for line in found.lines if line.verdict == "wrong"]
    assert wrong and all(line.derived and line.differs for line in wrong)
