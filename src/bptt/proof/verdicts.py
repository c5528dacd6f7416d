"""What the judge says of a hand-written backward pass: as text, as plain data, as hints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["right", "conditional", "wrong", "defined"]

_WORDS: dict[Verdict, str] = {
    "right": "right",
    "conditional": "right if",
    "wrong": "WRONG",
    "defined": "defined",
}
_WIDEST = max(map(len, _WORDS.values()))


@dataclass(frozen=True)
class LineVerdict:
    """One line judged. `when`: the condition under which it is right. `error`: the worst
    difference over the tensor's largest entry, at the `steps` where it is wrong. `differs` says
    in words what is wrong; `derived` is what the line should be, in the author's names. A line that
    is `timed` was judged at `length` steps."""

    number: int
    name: str
    text: str
    verdict: Verdict
    length: int
    timed: bool = True
    when: str = ""
    error: float = 0.0
    steps: tuple[int, ...] = ()
    note: str = ""
    differs: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()


@dataclass(frozen=True)
class Whole:
    """The pass run from end to start: which gradients come out wrong, and by how much; by which
    parameters there is none (`missing`), which are read and not computed (`known`), or not at the
    last step (`without`)."""

    verdict: Verdict
    when: str = ""
    wrong: tuple[tuple[str, float], ...] = ()
    missing: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """What the judge found. `seen`: what the loss is taken to read. `read_as`: what names are read
    as that do not say it, so that the fewest lines are wrong."""

    lines: tuple[LineVerdict, ...]
    whole: Whole
    seen: tuple[str, ...]
    length: int
    read_as: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether no line is wrong, nor the pass as a whole."""
        return self.whole.verdict != "wrong" and all(x.verdict != "wrong" for x in self.lines)

    def __str__(self) -> str:
        return text(self)


def text(found: Judgement, hint: int | None = None) -> str:
    """A judgement as a terminal shows it. With `hint` 0 only whether something is wrong, with 1
    which lines, with 2 what in them; without, what they should be too."""
    if hint == 0:
        return "nothing is wrong" if found.ok else "something is wrong in this backward pass"
    margin = max((len(str(line.number)) for line in found.lines), default=1)
    rows = [f"{name}[t] is read as {other}" for name, other in found.read_as.items()]
    rows += [""] if rows else []
    for line in found.lines:
        rows.append(f"{line.number:>{margin}}  {_WORDS[line.verdict]:<{_WIDEST}}  {line.text}")
        rows += [f"{' ' * (margin + _WIDEST + 4)}{row}" for row in _notes(line, hint)]
    return "\n".join([*rows, "", *_verdict(found, amounts=hint is None)])


def _notes(line: LineVerdict, hint: int | None) -> list[str]:
    """What is said below a line."""
    if line.verdict == "conditional":
        return [f"right if {line.when}; else {_off(line)}"]
    if line.verdict != "wrong":
        return [line.note] if line.note else []
    if hint == 1:
        return []
    found = [line.note or _off(line), *line.differs]
    if hint is None and line.derived:
        first, *rest = line.derived
        found += [f"derived: {first}", *(f"         {more}" for more in rest)]
    return found


def _off(line: LineVerdict) -> str:
    return f"off by {share(line.error)}{_when(line.steps, line)}"


def _when(steps: tuple[int, ...], line: LineVerdict) -> str:
    """At which steps a line is wrong, in words."""
    if not line.timed or not steps:
        return ""
    every = set(range(line.length))
    if set(steps) == every:
        return " at every step"
    if set(steps) == every - {line.length - 1}:
        return " at every step but the last"
    if set(steps) == every - {0}:
        return " at every step but the first"
    if steps == (line.length - 1,):
        return " at the last step"
    if steps == (0,):
        return " at the first step"
    return f" at t = {', '.join(map(str, steps))} of 0 to {line.length - 1}"


def share(error: float) -> str:
    """An error as a part of the largest entry."""
    if not math.isfinite(error):
        return "no finite number"
    if error >= 10:
        return f"a factor of {error:.0f}"
    return f"{100 * error:.2g} %" if error < 0.095 else f"{100 * error:.0f} %"


def _verdict(found: Judgement, *, amounts: bool) -> list[str]:
    judged = [line for line in found.lines if line.verdict != "defined"]
    wrong = sum(line.verdict == "wrong" for line in judged)
    lines = f"{wrong} of {len(judged)} lines wrong" if wrong else f"{len(judged)} lines, none wrong"
    return [f"line by line: {lines}", f"as a whole:   {_whole(found.whole, amounts=amounts)}"]


def _whole(whole: Whole, *, amounts: bool) -> str:
    rest = ""
    if whole.missing:
        rest = f"; no line gives the gradient by {', '.join(whole.missing)}"
    if whole.without:
        rest += f"; no line gives {', '.join(whole.without)} at the last step"
    if whole.known:
        rest += f"; no line gives {', '.join(whole.known)}, taken as known"
    if whole.note:
        return f"it cannot be run: {whole.note}{rest}"
    if whole.verdict == "right":
        return f"right{rest}"
    if whole.verdict == "conditional":
        return f"right if {whole.when}{rest}"
    if not amounts:
        return f"WRONG{rest}"
    off = ", ".join(
        f"{name} by {share(error)}" if math.isfinite(error) else f"{name} (no such value)"
        for name, error in whole.wrong
    )
    return f"WRONG: {off}{rest}"


def json(found: Judgement, hint: int | None = None) -> dict[str, Any]:
    """A judgement as plain data, for `json.dumps`; with `hint` no more than that."""
    lines: list[dict[str, Any]] = []
    for line in found.lines:
        about: dict[str, Any] = {"line": line.number, "name": line.name, "text": line.text}
        about |= {"verdict": line.verdict, "when": line.when}
        if hint is None or hint > 1:
            error = line.error if math.isfinite(line.error) else None
            about |= {"error": error, "steps": list(line.steps), "note": line.note}
            about["differs"] = list(line.differs)
        if hint is None:
            about["derived"] = list(line.derived)
        lines.append(about)
    whole: dict[str, Any] = {
        "verdict": found.whole.verdict,
        "when": found.whole.when,
        "missing": list(found.whole.missing),
        "known": list(found.whole.known),
        "without": list(found.whole.without),
        "note": found.whole.note,
    }
    if hint is None:
        wrong = found.whole.wrong
        whole["wrong"] = {n: e if math.isfinite(e) else None for n, e in wrong}
    shown: dict[str, Any] = {"ok": found.ok}
    if hint != 0:
        shown |= {"lines": lines, "whole": whole, "read_as": dict(found.read_as)}
    return shown
