"""Every kind of slip in a hand-written backward pass is found, and blamed on its own line.

The passes are the derivations of cells, with slips made by machine. An evaluator of its own says
whether a slip changes anything, in general or where the initial state is zero.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hand_slips import KINDS, Slip, slips
from printers.test_people import BYS
from proof.derivations import Pass, derivation, exact, names, same
from subjects import CORE
from tolerances import MUTATION

from bptt import cells
from bptt.cell import Cell
from bptt.proof import reader
from bptt.proof.judge import Judgement, LineVerdict

BY = "preactivations"
SOME = 14  # kinds in any other cell, some of which change nothing in it
FEWEST = 12  # kinds that do
SITES = 1  # of a kind in a line of a core cell
SAMPLES = 12  # in all of which a line must be right: a maximum takes this branch or that one
TIMES = 20  # every kind changes so many lines at least


def judged(text: str, *, explain: bool = False) -> Judgement:
    return Cell(text).judge(explain=explain)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs on the cell and the sample alone is computed once for all texts of a test."""

    def once(function: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
        known: dict[Any, Any] = {}

        def found(*args: Any) -> Any:
            at = key(*args)
            if at not in known:
                known[at] = function(*args)
            return known[at]

        return found

    monkeypatch.setattr(reader, "world", once(reader.world, lambda c, s, v, f: (s, str(f))))
    monkeypatch.setattr(reader, "reference", once(reader.reference, lambda p, by, seen: (by, seen)))


@pytest.mark.usefixtures("quick")
def test_a_derivation_is_right(cell: str) -> None:
    for by in BYS:
        found = judged(derivation(cell, by).text())
        assert [(v.text, v.verdict) for v in found.lines if v.verdict != "right"] == []
        assert (found.whole.verdict, found.whole.missing) == ("right", ())
        assert found.ok


# --- slips ----------------------------------------------------------------------------------------


@cache
def made(cell: str) -> list[Slip]:
    """Slips in the derivation of a cell: of a core cell some of every kind in every line, else
    one each of some kinds."""
    draw = random.Random(cell)
    given, known = derivation(cell, BY), names(cell, BY)
    found: list[Slip] = []
    for kind in KINDS if cell in CORE else draw.sample(list(KINDS), k=len(KINDS)):
        every = [slips(k, line, known, kind) for k, line in enumerate(given.lines)]
        if cell in CORE:
            found += [slip for each in every for slip in draw.sample(each, min(SITES, len(each)))]
        elif any(every) and len(found) < SOME:
            found.append(draw.choice(draw.choice([each for each in every if each])))
    draw.shuffle(found)
    return [slip for slip in found if not silences(given, slip)]


def silences(given: Pass, slip: Slip) -> bool:
    """Whether nothing but the line of a slip says that the loss reads a state: without it the
    loss is taken not to."""
    said = set(re.findall(r"\bdirect_\w+", given.lines[slip.number]))
    rest = set(re.findall(r"\bdirect_\w+", given.text({slip.number: slip.line})))
    return bool(said - rest - {f"direct_{name}" for name in Cell(given.cell).program.outputs})


def packed(found: list[Slip], lines: int) -> list[dict[int, Slip]]:
    """The slips spread over a few texts: one in a line, in two thirds of the lines at most."""
    texts: list[dict[int, Slip]] = []
    for slip in found:
        free = (text for text in texts if slip.number not in text and 3 * len(text) < 2 * lines)
        text = next(free, None)
        if text is None:
            texts.append(text := {})
        text[slip.number] = slip
    return texts


def changes(cell: str, slip: Slip, **sample: bool) -> bool:
    line = derivation(cell, BY).lines[slip.number]
    return not all(same(exact(cell, BY, k, **sample), slip.line, line) for k in range(SAMPLES))


def expected(cell: str, slip: Slip, found: LineVerdict) -> str:
    """The verdict that a line with a slip deserves."""
    if not changes(cell, slip):
        return "right"
    words = {"zero": "initial state is zero", "sums": "sums to 1", "elementwise": "elementwise"}
    conditions = {condition: text in found.when for condition, text in words.items()}
    if found.verdict == "conditional" and any(conditions.values()):
        return "wrong" if changes(cell, slip, **conditions) else "conditional"
    return "wrong" if changes(cell, slip, zero=True) else "conditional"


@pytest.mark.usefixtures("quick")
def test_slips_are_caught_and_nothing_else_is_blamed(cell: str) -> None:
    given = derivation(cell, BY)
    for text in packed(made(cell), len(given.lines)):
        found = judged(given.text({k: slip.line for k, slip in text.items()}))
        assert len(found.lines) == len(given.lines)
        for k, line in enumerate(found.lines):
            assert given.number(line.number) == k
            true = expected(cell, text[k], line) if k in text else "right"
            assert line.verdict == true, (text.get(k), line)
        wrong = any(line.verdict == "wrong" for line in found.lines)
        assert found.ok != wrong
        assert (found.whole.verdict == "wrong") == wrong


@pytest.mark.parametrize("cell", CORE)
def test_one_slip_alone_blames_its_line(cell: str) -> None:
    slip = next(slip for slip in made(cell) if changes(cell, slip, zero=True))
    given = derivation(cell, BY)
    found = judged(given.text({slip.number: slip.line}))
    wrong = [given.number(line.number) for line in found.lines if line.verdict != "right"]
    assert wrong == [slip.number]
    assert not found.ok


@pytest.mark.parametrize("cell", CORE)
def test_a_line_that_is_wrong_by_a_thousandth_is_caught(cell: str) -> None:
    given = derivation(cell, BY)
    changed: dict[int, str] = {}
    for k, line in list(enumerate(given.lines))[::2]:
        left, right = line.split(" = ", 1)
        changed[k] = f"{left} = {MUTATION}*({right})"
    found = judged(given.text(changed))
    for k, line in enumerate(found.lines):
        assert line.verdict == ("wrong" if k in changed else "right"), line
        assert k not in changed or line.error == pytest.approx(MUTATION - 1)


def test_every_kind_was_tried_often() -> None:
    tried: Counter[str] = Counter()
    for cell in cells.names():
        kinds = [slip.kind for slip in made(cell) if changes(cell, slip)]
        tried.update(kinds)
        assert len(set(kinds)) >= FEWEST, (cell, kinds)
    assert {kind: tried[kind] for kind in KINDS if tried[kind] < TIMES} == {}
