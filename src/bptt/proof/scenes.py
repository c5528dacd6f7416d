"""The samples in which a line is judged, and the conditions under which it may hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from bptt.proof.exact import Sample


@dataclass(frozen=True)
class Scene:
    """A sample, and how open functions of vectors are bound; `when` says it in words."""

    when: str
    sample: Sample
    elementwise: bool = False


def conditions(
    vectors: Sequence[str], sums: Sequence[str], general: Sequence[Scene]
) -> Iterator[list[Scene]]:
    """Each condition, the simplest first, in the samples of `general`.

    `vectors`: the open functions of a vector; `sums`: the labels that may sum to 1.
    """
    single: list[tuple[str, bool, bool, bool]] = [("the initial state is zero", True, False, False)]
    if vectors:
        single.append((f"{' and '.join(vectors)} is elementwise", False, False, True))
    if sums:
        single.append((f"{' and '.join(sums)} sums to 1", False, True, False))
    for k in range(1, len(single) + 1):
        for several in combinations(single, k):
            text = " and ".join(when for when, *_ in several)
            zero, one, elementwise = (any(x[n] for x in several) for n in (1, 2, 3))
            yield [
                Scene(text, replace(scene.sample, zero=zero, sums=one), elementwise)
                for scene in general
            ]
