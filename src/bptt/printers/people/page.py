"""A worked example as one page of HTML: every step in symbols and numbers, and a drawing.

The page stands alone. It fetches nothing, and says so to the browser: only its own style and
script may run, known by their hashes. Without the script all steps stand one under another.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

from bptt.errors import UserError
from bptt.ir.program import refs
from bptt.printers.people import mathml
from bptt.printers.people.mathml import math
from bptt.printers.people.mathml_figures import Figures, Here
from bptt.printers.people.page_diagram import MOST_STEPS, Diagram
from bptt.printers.people.reading import Part, Reading
from bptt.printers.people.reasons import Mention
from bptt.printers.people.worked import Array, Item, Worked, givens

_FOLDER = os.path.dirname(__file__)
_DECIMALS = 5
_LONGEST = 5000  # characters of an equation in numbers: some hundred numbers
_MOST = 100  # steps: a page has all lines of each, and so does a browser


@dataclass(frozen=True)
class Frame:
    """What the reader sees at a time. `anchor` names it in the address of the page; `way` is
    `forward`, `backward` or nothing. No word here is of a user's but in `body`."""

    anchor: str
    name: str
    way: str
    t: int | None
    body: str

    @property
    def said(self) -> str:
        """Its title in words alone."""
        return self.name + ("" if self.t is None else f", t = {self.t}".replace("-", "−"))

    def title(self) -> str:
        time = "" if self.t is None else mathml.signed(str(self.t))
        return self.name + (f", {math(f'<mi>t</mi><mo>=</mo>{time}')}" if time else "")


def text(worked: Worked, digits: int = _DECIMALS) -> str:
    """The whole page. `digits`: the decimals of its numbers. Raises UserError for an example of
    more steps than a page has room for."""
    if worked.length > _MOST:
        what = f"a page is for at most {_MOST} steps, and this example has {worked.length}"
        raise UserError(what, help="choose fewer steps, or another format")
    style, script = _own("page.css"), _own("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    title = escape(worked.title_line())
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8"/>',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            '<meta name="color-scheme" content="light dark"/>',
            f"<title>{title}</title>",
            f"<style>{style}</style></head>",
            "<body>",
            *_Page(worked, digits).lines(),
            f"<script>{script}</script>",
            "</body></html>",
            "",
        ]
    )


@cache
def _own(name: str) -> str:
    """A file of ours that stands beside this one."""
    with open(os.path.join(_FOLDER, name), encoding="utf-8") as file:
        return file.read()


def _hash(said: str) -> str:
    digest = hashlib.sha256(said.encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"


class _Page:
    def __init__(self, worked: Worked, digits: int) -> None:
        self.worked = worked
        self.diagram = Diagram(worked, digits)
        # what the lines of each pass are printed with, in symbols and in numbers
        self.printers = {
            id(found): (Here(found), Figures(found).given(worked, digits))
            for found in (worked.forward, worked.backward)
        }
        self.figures = Figures(worked.forward).given(worked, digits)

    def lines(self) -> Iterator[str]:
        worked = self.worked
        yield f"<header><h1>{escape(worked.title or worked.name)}</h1>"
        yield f"<p>{self.facts()}</p></header>"
        yield _CONTROLS
        yield "<main>"
        if svg := self.diagram.svg():
            cut = f" The first {MOST_STEPS} steps are drawn." if worked.length > MOST_STEPS else ""
            yield f'<figure><div class="scroll" id="drawing">{svg}</div><figcaption>'
            yield '<span class="key forward">values</span> flow forward,'
            yield f' <span class="key backward">gradients</span> back.{cut}</figcaption></figure>'
        yield '<div id="frames">'
        for frame in self.frames():
            t = "" if frame.t is None else f' data-t="{frame.t}"'
            way = f' data-way="{frame.way}"' if frame.way else ""
            yield f'<section class="frame" id="{frame.anchor}" data-title="{frame.said}"{t}{way}>'
            yield f'<h2 tabindex="-1">{frame.title()}</h2>{frame.body}</section>'
        yield "</div></main>"

    def facts(self) -> str:
        """What the numbers are of and where they come from."""
        worked = self.worked
        found = [f"The cell <code>{escape(worked.name)}</code> over {_steps(worked.length)}"]
        if worked.sizes:
            sizes = [
                math(f"{mathml.symbol(name)}<mo>=</mo><mn>{n}</mn>")
                for name, n in worked.sizes.items()
            ]
            found[0] += f", with {_listed(sizes)}"
        if worked.functions:
            bound = (
                f"<code>{escape(name)}</code> is <code>{escape(said)}</code>"
                for name, said in worked.functions.items()
            )
            found.append(f"Left open by its author and chosen here: {_listed(bound)}")
        if worked.drawn:
            every = [n for names in worked.roles.values() for n in names if n in worked.drawn]
            shown = (math(self.figures.symbol(worked.spelled(n), "")) for n in every)
            found.append(f"Drawn at random from seed {worked.seed}: {_listed(shown)}")
        if worked.total is not None:
            loss = self.figures.numeral(worked.total).text
            found.append(f"The loss, summed over the steps, is {math(loss)}")
        return ". ".join(found) + "."

    # --- the frames ---

    def frames(self) -> Iterator[Frame]:
        worked = self.worked
        yield Frame("given", "What is given", "", None, self.given())
        yield from self.group("once", "Before the first step", "", worked.steps, None)
        for t in range(worked.length):
            yield from self.group(f"forward-{t}", "Forward", "forward", worked.steps, t)
        ready = [i for i in worked.back if i.line.part in (Part.SLICES, Part.VALUES)]
        steps = [i for i in worked.back if i.line.part is Part.STEPS]
        if ready:
            title = "What the backward pass reads besides"
            yield Frame("ready", title, "", None, self.listed(ready, worked.backward))
        for t in reversed(range(worked.length)):
            yield from self.group(f"backward-{t}", "Backward", "backward", steps, t)
        for anchor, title, part in (
            ("start", "Backward", Part.FIRST),
            ("sums", "Gradients of what has no time", Part.SUMS),
        ):
            items = [i for i in worked.back if i.line.part is part]
            if items:
                t, way = (-1, "backward") if part is Part.FIRST else (None, "")
                yield Frame(anchor, title, way, t, self.listed(items, worked.backward))
        if worked.updates:
            yield Frame("update", "One step of gradient descent", "", None, self.updates())

    def group(
        self, anchor: str, title: str, way: str, items: Iterable[Item], t: int | None
    ) -> Iterator[Frame]:
        """The frame of the lines at one step, if there are any."""
        here = [item for item in items if item.t == t]
        found = self.worked.backward if way == "backward" else self.worked.forward
        if here:
            yield Frame(anchor, title, way, t, self.listed(here, found))

    def listed(self, items: Sequence[Item], found: Reading) -> str:
        return f'<ol class="lines">{"".join(self.line(item, found) for item in items)}</ol>'

    def line(self, item: Item, found: Reading) -> str:
        """A line in symbols, with numbers put in, and its result; and why it is there."""
        here, figures = self.printers[id(found)]
        left, right = math(here.left_at(item)), mathml.equals(here.right_at(item))
        numbers = mathml.equals(figures.right_at(item))
        result = math(f"<mo>=</mo>{figures.value(item.value).text}")
        shown = [f'<div class="symbols">{right}</div>']
        if len(numbers) > _LONGEST:
            numbers = "= … (too many numbers to write out)"
        if numbers not in (result, right):
            shown.append(f'<div class="numbers">{numbers}</div>')
        if item.split is not None:
            terms = math(f"<mo>=</mo>{figures.sum(*item.split)}")
            shown.append(f'<div class="numbers">{terms}</div>')
        shown.append(f'<div class="result">{result}</div>')
        why = f'<p class="why">{self.why(item)}</p>' if item.why else ""
        return (
            f'<li class="line"{self.touches(item, found)}><div class="left">{left}</div>'
            f'<div class="right">{"".join(shown)}{why}</div></li>'
        )

    def why(self, item: Item) -> str:
        """A reason, its names typeset at the line's own step."""
        return "".join(
            escape(part) if isinstance(part, str) else self.mention(part, item.t)
            for part in item.why
        )

    def mention(self, mention: Mention, t: int | None) -> str:
        time = mention.time
        if time.startswith("t") and t is not None:
            time = str(t + int(time[1:] or 0))
        return math(mathml.symbol(mention.name, time))

    def touches(self, item: Item, found: Reading) -> str:
        """Which nodes of the drawing a line is about, for the script."""
        name, t = found.names[item.line.name], item.t
        node = self.diagram.node
        if found is self.worked.forward:
            own = [node(name.text, t)]
            read = [
                node(found.names[n].text, t - lag)
                for n, lag in refs(item.line.rhs)
                if t is not None and n in found.series
            ]
        elif t is None:
            times = self.diagram.times
            own = []
            read = [node(text, k) for text, _ in item.readers for k in times]
        else:
            own = [node(item.of or name.line or name.stem, t)]
            read = [node(text, t + lag) for text, lag in item.readers if t + lag >= 0]
        known = {
            "data-node": " ".join(n for n in own if n),
            "data-reads": " ".join(dict.fromkeys(n for n in read if n)),
        }
        return "".join(f' {key}="{value}"' for key, value in known.items() if value)

    # --- tables ---

    def given(self) -> str:
        """The values that everything else follows from."""
        shown: list[str] = []
        for role, values in givens(self.worked):
            items = (
                f"<li>{math(self.figures.symbol(name, time))}{mathml.BREAK}"
                f"{math(f'<mo>=</mo>{self.figures.value(value).text}')}</li>"
                for name, time, value in values
            )
            heading = escape(role[0].upper() + role[1:])
            shown.append(f'<h3>{heading}</h3><ul class="values">{"".join(items)}</ul>')
        return "".join(shown)

    def number(self, value: Array) -> str:
        return math(self.figures.value(value).text)

    def updates(self) -> str:
        worked = self.worked
        rate = self.figures.numeral(worked.rate).text
        new, old = "<msup><mi>p</mi><mtext>new</mtext></msup>", "<mi>p</mi>"
        rule = mathml.equation(new, [f"{old}<mo>−</mo>{rate}<mo>×</mo><mi>δ</mi>{old}"])
        rows = [
            [math(mathml.symbol(u.name)), *map(self.number, (u.before, u.gradient, u.after))]
            for u in worked.updates
        ]
        return f"<p>{rule}</p>" + _table(["", "before", "gradient", "after"], rows)


_CONTROLS = """<nav id="stepper" aria-label="Steps" hidden="">
<button type="button" id="first" aria-label="First step">«</button>
<button type="button" id="previous" aria-label="Step before">‹</button>
<button type="button" id="next" aria-label="Next step">›</button>
<input type="range" id="slider" min="0" value="0" aria-label="Step"/>
<output id="now" aria-live="polite"></output>
<button type="button" id="all" aria-pressed="false">All steps</button>
</nav>"""


def _listed(items: Iterable[str]) -> str:
    """Things with commas between them, at which alone a row may end."""
    *others, last = items
    return "".join(f'<span class="whole">{item},</span> ' for item in others) + last


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    shown = [f"<tr>{heads}</tr>"] if head else []
    for first, *others in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        shown.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return f'<div class="scroll"><table>{"".join(shown)}</table></div>'
