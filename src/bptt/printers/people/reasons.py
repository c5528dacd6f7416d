"""Why a line of a backward pass is there: by which equations its value is read."""

from __future__ import annotations

from typing import NamedTuple

from bptt.ir.program import Kind, refs
from bptt.printers.people.reading import Line, Part, Reading


class Mention(NamedTuple):
    """A name of the author's in a reason, at a time: `t+1`, or nothing."""

    name: str
    time: str


# Words, and names between them, which each language spells its own way.
Reason = tuple[str | Mention, ...]


def plain_reason(reason: Reason) -> str:
    """A reason in words alone."""
    return "".join(part if isinstance(part, str) else spelled(part) for part in reason)


def spelled(mention: Mention) -> str:
    """A name as plain text: `h[t]`."""
    return f"{mention.name}[{mention.time}]" if mention.time else mention.name


def readers_of(forward: Reading, value: str) -> tuple[tuple[str, int], ...]:
    """The author's lines that read `value`, each with how many steps later it does."""
    found: dict[tuple[str, int], None] = {}
    for line in forward.lines:
        for name, lag in refs(line.rhs):
            if forward.names[name].text == value:
                found[forward.names[line.name].text, lag] = None
    return tuple(found)


def why(forward: Reading, backward: Reading, line: Line, start: str = "") -> Reason:
    """By which equations the value is read that `line` is the gradient by: `read by h[t], and by
    c[t+1]`. `start`: the state that the value, a parameter, is before the first step."""
    name = backward.names[line.name]
    reasons = _Reasons(forward, backward, line)
    match name.what, name.made:
        case "d", "argument":
            return ("inside ", Mention(name.line, "t"), ", which is ", *reasons.read(name.line))
        case "d", "":
            return reasons.read(name.stem, start)
        case "e", _:
            lines = [Mention(text, "t") for text, lag in readers_of(forward, name.stem) if lag]
            return (Mention(name.stem, "t-1"), " is read by ", *_listed(lines))
        case _, "slice":
            whole = next(n for n, _ in refs(line.rhs))
            return ("a part of ", Mention(backward.names[whole].text, ""))
        case _:
            return ("a part of the line of ", Mention(name.line, "t"))


class _Reasons:
    def __init__(self, forward: Reading, backward: Reading, line: Line) -> None:
        self.forward, self.line = forward, line
        names = forward.names
        self.timed = {names[e.name].text for e in forward.lines if e.kind is Kind.STEP}
        self.series = {names[name].text for name in forward.series}
        self.first = line.part is Part.FIRST and line.kind is Kind.STEP
        read = (backward.names[n] for n, _ in refs(line.rhs) if n in backward.names)
        self.outside = {name.stem for name in read if name.what == "direct"}

    def read(self, value: str, start: str = "") -> Reason:
        """Who reads a value, and what else its gradient comes from."""
        readers = readers_of(self.forward, value)
        now = [self.mention(text, "t") for text, lag in readers if not lag]
        later = [self.mention(text, "0" if self.first else "t+1") for text, lag in readers if lag]
        found: list[Reason] = []
        if self.first:
            return ("read by ", *_listed(later))
        if now or later:
            both = (", and by ",) if now and later else ()
            always = value not in self.series and any(m.time for m in now)
            end = (" at every step",) if always else ()
            found.append(("read by ", *_listed(now), *both, *_listed(later), *end))
        if start:
            found.append(("it is ", Mention(start, ""), " before the first step"))
        if value in self.outside:
            found.append(("it has a gradient from outside",))
        return tuple(part for k, parts in enumerate(found) for part in ("; ", *parts)[k == 0 :])

    def mention(self, text: str, time: str) -> Mention:
        return Mention(text, time if text in self.timed else "")


def _listed(names: list[Mention]) -> Reason:
    return tuple(part for k, name in enumerate(names) for part in (", ", name)[k == 0 :])
