"""The errors people see, and their one renderer: what is wrong, where, what to write instead."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A stretch of one line of a text: `line` counts from 1, columns `start`, `end` from 0."""

    source: str
    line: int
    start: int
    end: int

    def render(self) -> str:
        """The line, its number, and carets under the span."""
        lines = self.source.split("\n")
        text = lines[self.line - 1].rstrip("\r") if self.line <= len(lines) else ""
        margin = f"{self.line} | "
        lead = "".join("\t" if c == "\t" else " " * _width(c) for c in text[: self.start])
        width = sum(_width(c) for c in text[self.start : self.end])
        return f"  {margin}{text}\n  {' ' * len(margin)}{lead}{'^' * max(1, width)}"


def _width(char: str) -> int:
    """Columns a terminal gives `char`."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


class BpttError(Exception):
    """An error that is the user's to mend. `what` stands alone; `help` says what to do instead."""

    def __init__(self, what: str, *, help: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.help = help

    def render(self) -> str:
        """The whole message, as a terminal shows it."""
        lines = [f"error: {self.what}"]
        if self.help:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class UserError(BpttError):
    """A mistake outside a cell's text: a file, an option, an argument."""


class CellError(BpttError):
    """A mistake in a cell's text. `span`: the smallest stretch that shows it; `notes`: others."""

    def __init__(
        self,
        what: str,
        span: Span | None = None,
        help: str | None = None,
        notes: tuple[tuple[Span, str], ...] = (),
    ) -> None:
        super().__init__(what, help=help)
        self.span = span
        self.notes = notes

    def render(self) -> str:
        lines = [f"error: {self.what}"]
        if self.span is not None:
            lines.append(self.span.render())
        for span, text in self.notes:
            lines += [f"note: {text}", span.render()]
        if self.help:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)
