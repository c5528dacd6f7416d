"""The comments that a cell's text begins with, as data: what it is called and where it is from.

```
# Peephole LSTM: F. Gers, N. Schraudolph, J. Schmidhuber, "Learning Precise Timing" (2002)
# i and f look at the cell state before the step, o at the new one.
# family: lstm
# from: memory of the paper
# equals: onnx LSTM (onnxruntime 1.23.0)
```

A comment that is indented further than the others goes on with the one before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_KEYS = ("family", "from", "equals")


@dataclass(frozen=True)
class About:
    """What the head of a cell says; empty where it says nothing.

    `citation` is what follows the title: authors, paper, year. `source` says where the equations
    come from, `equals` what computes the same elsewhere, as was seen in numbers.
    """

    title: str = ""
    citation: str = ""
    remarks: str = ""
    family: str = ""
    source: str = ""
    equals: tuple[str, ...] = ()

    @property
    def year(self) -> str:
        """The year of the paper, or nothing."""
        found = re.findall(r"\((\d{4})\)", self.citation)
        return found[-1] if found else ""


def about(text: str) -> About:
    """What the head of a cell's text says."""
    first, *others = _comments(text) or [""]
    title, _, citation = first.partition(": ")
    if '"' in title:  # the colon of a paper's title
        title, citation = first, ""
    remarks: list[str] = []
    keyed: dict[str, list[str]] = {key: [] for key in _KEYS}
    for line in others:
        key, colon, value = line.partition(": ")
        if colon and key in keyed:
            keyed[key].append(value)
        else:
            remarks.append(line)
    return About(
        title=title,
        citation=citation,
        remarks=" ".join(remarks),
        family=" ".join(keyed["family"]),
        source=" ".join(keyed["from"]),
        equals=tuple(keyed["equals"]),
    )


def body(text: str) -> str:
    """A cell's text without its head."""
    return "".join(text.splitlines(keepends=True)[_height(text) :]).lstrip("\n")


def _height(text: str) -> int:
    """How many lines the head has."""
    lines = text.splitlines()
    return next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _comments(text: str) -> list[str]:
    """The comments of the head, each with the lines that go on with it."""
    found: list[str] = []
    for line in text.splitlines()[: _height(text)]:
        comment = line.lstrip("#")
        if found and comment.startswith("   "):
            found[-1] += f" {comment.strip()}"
        elif comment.strip():
            found.append(comment.strip())
    return found
