"""What the judge says of a slip names it: both the part that is wrong and the one that belongs."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache

from hand_slips import KINDS, Slip
from proof.derivations import derivation
from proof.test_judge import BY, changes, judged, made, packed
from subjects import CORE

MOST = 0.7  # of the slips of a kind are named; the rest is called something that is as true

# These are only told to agree with the derived line nowhere.
UNNAMED = ("tanh's derivative for sigmoid's", "a sum over time forgotten")

# What is said of each kind; MINE and THEIRS are the first names in which the lines differ. A
# slip in a factor such as (1 - i[t]) makes another factor of it, and is called that.
_FACTOR = r"where the derivation has|is missing the factor|belongs"
_NAMES = r"MINE.*THEIRS"
EXPECTED = {
    "a term dropped": rf"is missing the term|{_FACTOR}",
    "a sign flipped": r"subtracts|adds|wrong sign|where the derivation has",
    "this step for a neighbour": _NAMES,
    "a neighbour for this step": _NAMES,
    "a later step before the first": _NAMES,
    "another value of this size": _NAMES,
    "another gradient of this size": _NAMES,
    "another parameter of this shape": _NAMES,
    "a derivative forgotten": r"is missing the factor .*(1 - |')",
    "a factor dropped": r"is missing the (factor|divisor)|where the derivation has",
    "a matrix forgotten": r"where the derivation has .*@|is missing the factor",
    "sigmoid's derivative for tanh's": r"where the derivation has .*1 - .*\*\*2|belongs",
    "a square forgotten": r"has .* where .*\*\*2",
    "a transpose forgotten": r"has .* where .*\.T",
    "a transpose too many": r"has .*\.T where .*belongs",
    "a star for a matrix product": r"has .* \* .* where .* @ ",
    "outer turned round": r"outer\(.*, .*\).* outer\(",
    "a sum over time shifted": rf"should sum THEIRS|{_NAMES}",
    "direct for total": r"uses what .* gets from the loss .* where the total .* belongs|leaves out",
    "total for direct": r"uses the total gradient by .* where what .* gets from the loss",
    "the step after forgotten": r"is missing the terms? .*\[t\+1\]",
    "a term twice": r"has the term .*, which the derivation has not",
    "a number changed": r"has \d.* where|where the derivation has|belongs",
    "another function": r"has .* where .*(belongs|has)",
}


def differing(slip: Slip, right: str) -> tuple[str, str]:
    """The first names in which a line and the right one differ."""
    lines = (re.findall(r"\w+(?:\[[^\]]*\])?", tight(line)) for line in (slip.line, right))
    return next((pair for pair in zip(*lines, strict=False) if pair[0] != pair[1]), ("", ""))


def tight(text: str) -> str:
    """`dz_i[t + 1]` as `dz_i[t+1]`."""
    return re.sub(r" (?=[^\[\]]*\])", "", text)


def named(slip: Slip, right: str, differs: tuple[str, ...]) -> bool:
    """Whether what is said of a slip is what is expected of its kind."""
    mine, theirs = map(re.escape, differing(slip, right))
    pattern = EXPECTED[slip.kind].replace("MINE", mine).replace("THEIRS", theirs)
    return re.search(pattern, tight("; ".join(differs))) is not None


@cache
def explained(cell: str) -> list[tuple[Slip, tuple[str, ...]]]:
    """A slip of every kind in a cell, and what is said of it."""
    draw, given = random.Random(cell), derivation(cell, BY)
    chosen: list[Slip] = []
    for kind in EXPECTED:
        among = [s for s in made(cell) if s.kind == kind and changes(cell, s, zero=True)]
        chosen += draw.sample(among, min(1, len(among)))
    found: list[tuple[Slip, tuple[str, ...]]] = []
    for text in packed(chosen, len(given.lines)):
        judgement = judged(given.text({k: s.line for k, s in text.items()}), explain=True)
        found += [(text[k], line.differs) for k, line in enumerate(judgement.lines) if k in text]
    return found


def test_every_kind_is_looked_at() -> None:
    assert sorted((*EXPECTED, *UNNAMED)) == sorted(KINDS)


def test_slips_are_named() -> None:
    tried: Counter[str] = Counter()
    missed: dict[str, list[tuple[str, tuple[str, ...]]]] = {kind: [] for kind in EXPECTED}
    for cell in CORE[::2]:
        for slip, differs in explained(cell):
            tried[slip.kind] += 1
            if not named(slip, derivation(cell, BY).lines[slip.number], differs):
                missed[slip.kind].append((slip.line, differs))
    assert {k: m for k, m in missed.items() if len(m) > (1 - MOST) * tried[k]} == {}
