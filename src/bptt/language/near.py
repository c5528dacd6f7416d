"""Names near a mistyped one, for the help lines."""

from __future__ import annotations

from collections.abc import Iterable

_LONG = 80  # letters of a name that nobody mistypes: comparing all with all would take minutes


def near(name: str, known: Iterable[str]) -> list[str]:
    """Those of `known` that are the fewest slips of the finger away from `name`, at most four."""
    limit = 1 if len(name) < 3 else 2
    found = [(_distance(name, k, limit), k) for k in dict.fromkeys(known) if k != name]
    # one letter for another, where there is but one, is no slip
    found = [(d, k) for d, k in found if d <= limit and d < max(len(k), len(name))]
    return sorted(k for d, k in found if d == min(found)[0])[:4]


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A help line with the names near `name`, or None where there are none."""
    found = near(name, known)
    if not found:
        return None
    return "did you mean " + " or ".join(f"`{k}`" for k in found) + "?"


def _distance(a: str, b: str, limit: int) -> int:
    """Edits (insert, delete, replace, swap of neighbours, change of case) from `a` to `b`."""
    if abs(len(a) - len(b)) > limit or len(a) > _LONG:
        return limit + 1
    if a.lower() == b.lower():
        return 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            best = min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                best = min(best, before[j - 2] + 1)
            new.append(best)
        before, row = row, new
    return row[-1]
