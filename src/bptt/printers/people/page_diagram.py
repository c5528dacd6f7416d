"""The unrolled cell as a drawing: the values of each step, and what reads what, as inline SVG.

Time runs to the right, and within a step what reads stands above what it reads. A node is called
`t.k`: the k-th value at step t, -1 before the first one. Scripts and styles know it by that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from bptt.ir.program import Kind, refs
from bptt.printers.people.layout import letters
from bptt.printers.people.mathml import unicode_word
from bptt.printers.people.worked import Array, Worked, shown

MOST_STEPS = 12  # of a longer example, the first ones are drawn

_ROW = 72  # from one row of nodes to the next
_GAP = 10  # between nodes of a row
_BETWEEN = 52  # between steps
_EDGE = 14  # around the drawing
_HEAD = 30  # under it, for the times
_LONGEST = 12  # letters of a name
_MOST_DIGITS = 5  # decimals of a number
# What a gradient by a value itself begins with, and one by the argument of its function.
_DELTAS = {"": "δ", "argument": "δz"}


@dataclass(frozen=True)
class Edge:
    """`reader` at a step reads `value`, `lag` steps before."""

    value: str
    lag: int
    reader: str


@dataclass(frozen=True)
class _Place:
    x: float
    y: float
    width: float


class Diagram:
    """The drawing of a worked example. `index` numbers the values by their names; numbers have so
    many `digits` behind the point, if there is room."""

    def __init__(self, worked: Worked, digits: int) -> None:
        self.worked, self.digits = worked, min(digits, _MOST_DIGITS)
        forward = worked.forward
        lines = [line for line in forward.lines if line.kind is Kind.STEP]
        given = [n for n in worked.roles["inputs"] if n in forward.series]
        self.given = {forward.names[name].text: name for name in given}
        self.made = {forward.names[line.name].text: line.name for line in lines}
        self.index = {text: k for k, text in enumerate((*self.given, *self.made))}
        self.edges: list[Edge] = []
        for line in lines:
            for name, lag in refs(line.rhs):
                if name in forward.series and forward.names[name].text in self.index:
                    reader = forward.names[line.name].text
                    self.edges.append(Edge(forward.names[name].text, lag, reader))
        self.edges = list(dict.fromkeys(self.edges))
        self.before = [t for t in self.index if any(e.value == t and e.lag for e in self.edges)]
        self.times = range(min(worked.length, MOST_STEPS))
        self.gradients = self._gradients()
        # with room for a number where some value is one
        self.high = 42 if any(map(self._is_number, self.index)) else 30
        self.places = self._placed()

    def node(self, text: str, t: int | None) -> str | None:
        """What the node of a value at a step is called, if it is drawn."""
        known = t is not None and (text, t) in self.places
        return f"{t}.{self.index[text]}" if known else None

    def svg(self) -> str:
        """The drawing, or nothing where there is nothing to draw."""
        if not self.places:
            return ""
        width = max(p.x + p.width / 2 for p in self.places.values()) + _EDGE
        height = max(p.y for p in self.places.values()) + self.high / 2 + _HEAD
        return (
            f'<svg class="diagram" role="group" aria-label="Which value reads which"'
            f' width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
            f"<defs>{_arrow('forward')}{_arrow('backward')}</defs>"
            f"<g>{''.join(self._drawn_edges())}</g>{''.join(self._drawn_nodes())}"
            f"{''.join(self._drawn_times(height))}</svg>"
        )

    # --- where nodes stand ---

    def _ranks(self) -> dict[str, int]:
        """The row of each value, from below: above all that it reads in its step."""
        rank = dict.fromkeys(self.given, 0)
        for text in self.made:
            read = [e.value for e in self.edges if e.reader == text and not e.lag]
            rank[text] = 1 + max((rank[value] for value in read), default=0)
        for text in self.given:  # a label stands near the loss
            above = [rank[e.reader] for e in self.edges if e.value == text and not e.lag]
            rank[text] = min(above, default=1) - 1
        lowest = min(rank.values(), default=0)
        return {text: r - lowest for text, r in rank.items()}

    def _placed(self) -> dict[tuple[str, int], _Place]:
        rank = self._ranks()
        top = max(rank.values(), default=0)
        high, wide = self.high, {text: self._width(text) for text in rank}
        middle: dict[str, float] = {}  # within a step
        for r in range(top + 1):
            row = [text for text in rank if rank[text] == r]
            row.sort(key=lambda text: self._pull(text, middle))
            middle |= _side_by_side(row, wide)
        spread = max((abs(m) + wide[text] / 2 for text, m in middle.items()), default=0)
        rows = [[text for text in self.before if rank[text] == r] for r in range(top + 1)]
        start = {text: m for row in rows for text, m in _side_by_side(row, wide).items()}
        first = max((abs(m) + wide[text] / 2 for text, m in start.items()), default=-_BETWEEN / 2)
        found: dict[tuple[str, int], _Place] = {}

        def place(text: str, t: int, x: float) -> None:
            y = _EDGE + high / 2 + (top - rank[text]) * _ROW
            found[text, t] = _Place(x, y, wide[text])

        for text, m in start.items():
            place(text, -1, _EDGE + first + m)
        left = _EDGE + 2 * first + _BETWEEN + spread
        for t in self.times:
            for text, m in middle.items():
                place(text, t, left + t * (2 * spread + _BETWEEN) + m)
        return found

    def _pull(self, text: str, middle: dict[str, float]) -> float:
        """Where a value would stand by what it reads."""
        read = [middle[e.value] for e in self.edges if e.reader == text and e.value in middle]
        return sum(read) / len(read) if read else 0.0

    def _width(self, text: str) -> float:
        least = 86 if self._is_number(text) else 40
        return max(least, 18 + 8.5 * min(len(text), _LONGEST))

    def _is_number(self, text: str) -> bool:
        return self.worked.at(self._name(text), 0).size == 1

    def _name(self, text: str) -> str:
        return self.made.get(text) or self.given[text]

    def _gradients(self) -> dict[tuple[str, int], str]:
        """The gradients that are one number."""
        return {
            (item.of, item.t): f"{_DELTAS[made]} {self._number(item.value)}"
            for item in self.worked.back
            if item.of and item.t is not None and item.value.size == 1
            if self.worked.backward.names[item.line.name].what == "d"
            if (made := self.worked.backward.names[item.line.name].made) in _DELTAS
        }

    # --- what is drawn ---

    def _drawn_edges(self) -> Iterator[str]:
        for t in self.times:
            for e in self.edges:
                if (a := self.places.get((e.value, t - e.lag))) is not None:
                    b = self.places[e.reader, t]
                    path = self._later(a, b) if e.lag else self._above(a, b)
                    ends = f'data-a="{self.node(e.value, t - e.lag)}"'
                    ends += f' data-b="{self.node(e.reader, t)}"'
                    yield f'<path class="edge" {ends} d="{path}" pathLength="1"/>'

    def _above(self, a: _Place, b: _Place) -> str:
        """From the top of a node to the bottom of one above it."""
        y1, y2 = a.y - self.high / 2, b.y + self.high / 2
        bend = (y1 - y2) / 2
        return _curve((a.x, y1), (a.x, y1 - bend), (b.x, y2 + bend), (b.x, y2))

    def _later(self, a: _Place, b: _Place) -> str:
        """From the right of a node to one a step later: to its left, or past what is there."""
        x1, x2 = a.x + a.width / 2, b.x - b.width / 2
        bend = max(24, min(70, (x2 - x1) / 2))
        between = [p for p in self.places.values() if p.y == b.y and a.x < p.x < b.x]
        if not between:
            return _curve((x1, a.y), (x1 + bend, a.y), (x2 - bend, b.y), (x2, b.y))
        side = 1 if a.y > b.y else -1  # from below, or from above
        x2, y2 = b.x - b.width / 4, b.y + side * self.high / 2
        return _curve((x1, a.y), (x1 + bend, a.y), (x2 - bend, y2 + side * _ROW / 2), (x2, y2))

    def _drawn_nodes(self) -> Iterator[str]:
        high = self.high
        for (text, t), p in self.places.items():
            kind = "given" if text in self.given or t < 0 else "made"
            value, numbers = self.worked.at(self._name(text), t), ""
            if value.size == 1:
                numbers = f'<text class="value" y="13">{self._number(value)}</text>'
                if (text, t) in self.gradients:
                    gradient = self.gradients[text, t]
                    numbers += f'<text class="gradient" y="13">{gradient}</text>'
            said = escape(self._said(text, t))
            yield (
                f'<g class="node {kind}" data-id="{self.node(text, t)}" data-t="{t}"'
                f' transform="translate({p.x:.0f} {p.y:.0f})"><title>{said}</title>'
                f'<rect x="{-p.width / 2:.0f}" y="{-high / 2:.0f}" width="{p.width:.0f}"'
                f' height="{high}" rx="6"/>{_label(text, -3 if numbers else 5)}{numbers}</g>'
            )

    def _number(self, value: Array) -> str:
        return shown(value.item(), self.digits).replace("-", "−")

    def _said(self, text: str, t: int) -> str:
        """A node in words."""
        reads = [f"{e.value}[{t - e.lag}]" for e in self.edges if e.reader == text and t >= 0]
        readers = [
            f"{e.reader}[{t + e.lag}]"
            for e in self.edges
            if e.value == text and 0 <= t + e.lag < self.worked.length
        ]
        said = [f"{text}[{t}]"]
        said += [f"reads {', '.join(reads)}"] if reads else []
        said += [f"is read by {', '.join(readers)}"] if readers else []
        return "; ".join(said)

    def _drawn_times(self, height: float) -> Iterator[str]:
        for t in sorted({t for _, t in self.places}):
            xs = [p.x for (_, at), p in self.places.items() if at == t]
            x = (min(xs) + max(xs)) / 2
            shown_time = str(t).replace("-", "−")
            yield f'<text class="time" x="{x:.0f}" y="{height - 9:.0f}">t = {shown_time}</text>'


def _curve(*points: tuple[float, float]) -> str:
    first, *others = (f"{x:.0f} {y:.0f}" for x, y in points)
    return f"M{first}C{' '.join(others)}"


def _side_by_side(row: list[str], wide: dict[str, float]) -> dict[str, float]:
    """The middles of nodes in a row, around 0."""
    x = -(sum(wide[text] for text in row) + _GAP * (len(row) - 1)) / 2
    found: dict[str, float] = {}
    for text in row:
        found[text] = x + wide[text] / 2
        x += wide[text] + _GAP
    return found


def _arrow(way: str) -> str:
    return (
        f'<marker id="{way}" class="{way}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9"'
        ' markerHeight="9" markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
        '<path d="M0 0 8 4 0 8z"/></marker>'
    )


def _label(text: str, y: int) -> str:
    """A name with its subscripts, shortened where it is long."""
    found = letters(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")
    base = unicode_word(found.base) + "′" * found.primes + found.above
    upright = ' class="name word"' if len(unicode_word(found.base)) > 2 else ' class="name"'
    below = ",".join(map(unicode_word, found.below))
    shown_below = f'<tspan class="below" dy="4">{escape(below)}</tspan>' if below else ""
    return f'<text{upright} y="{y}">{escape(base)}{shown_below}</text>'
