"""What a notebook shows for a cell and a program: typeset formulas, and a table of the names.

All styles stand on the elements, and colours are the notebook's own, light or dark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from html import escape

from bptt.calculus.rules import weights
from bptt.ir.program import MACHINE, Kind, Program, Role
from bptt.language.check import Checked
from bptt.language.head import about, body
from bptt.printers.people import mathml
from bptt.printers.people.markdown import described
from bptt.printers.people.mathml import MathML
from bptt.printers.people.mathml_figures import Figures
from bptt.printers.people.reading import Line, Name, Part, Reading, forward
from bptt.printers.people.worked import Array, Item, Worked
from bptt.printers.text import text

_LONGEST = 1500  # words of a program that is shown as formulas; a longer one as text

_GRID = (
    "display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.35em .4em;"
    "align-items:baseline;overflow-x:auto;text-align:left;margin:.6em 0"
)
_CELL = "text-align:left;padding:.2em 1.2em .2em 0;background:none"
# What a derived name begins with, where more follows.
_PREFIX = re.compile(rf"(?:(d)_|(direct|e){re.escape(MACHINE)})(?=.)")
_DECIMALS = 5
_STEPS = 8  # columns of values
_SCROLL = "max-height:30em;overflow:auto;background:none;color:inherit"
_QUIET = "opacity:.75;margin:.6em 0 .2em"


def html(thing: Program | Worked) -> str:
    """A program or a worked example."""
    return worked_html(thing) if isinstance(thing, Worked) else program_html(thing)


def cell_html(checked: Checked, name: str) -> str:
    """A cell: what it is called and where it is from, its equations, its names and their sizes."""
    p, head = checked.program, about(checked.source)
    title = f"<strong>{escape(head.title or name)}</strong>"
    source = f" <span>{escape(head.citation)}</span>" if head.citation else ""
    equations = _formulas(forward(p)) if _short(p) else _preformatted(body(checked.source))
    return _block([f'<p style="margin:.2em 0">{title}{source}</p>', equations, _names(checked)])


def program_html(p: Program) -> str:
    """A program: its own lines, with the names that the machine made spelled as formulas."""
    way = "t = 0, ..., T−1" if p.dir > 0 else "t = T−1, ..., 0"
    title = f'<p style="margin:.2em 0"><strong>Program</strong> for {way}</p>'
    if not _short(p):
        return _block([title, _preformatted(text(p))])
    found, late, parts = _reading(p), p.late(), [title]
    sections: dict[str, Callable[[Line], bool]] = {
        "Before the first step": lambda line: line.kind is Kind.ONCE and line.name not in late,
        "": lambda line: line.kind is Kind.STEP,
        "After the last step": lambda line: line.name in late,
    }
    for said, belongs in sections.items():
        lines = [line for line in found.lines if belongs(line)]
        if lines and said:
            parts.append(f'<p style="{_QUIET}">{said}</p>')
        if lines:
            parts.append(_formulas(found, lines))
    return _block(parts)


def worked_html(worked: Worked) -> str:
    """A worked example: each equation with its value at every step, and the parameters after."""
    parts = [f'<p style="margin:.2em 0"><strong>{escape(worked.title_line())}</strong></p>']
    for said, found, items in (
        ("Forward", worked.forward, worked.steps),
        ("Backward", worked.backward, worked.back),
    ):
        parts += [f'<p style="{_QUIET}">{said}</p>', *_values(worked, found, items)]
    figures = Figures(worked.backward).given(worked, _DECIMALS)
    rows = [
        _row(mathml.math(mathml.symbol(u.name)), *(_value(figures, v) for v in (u.before, u.after)))
        for u in worked.updates
    ]
    if rows:
        head = _head("", "value", f"after a step with rate {worked.rate:g}")
        parts += [f'<p style="{_QUIET}">Gradient descent</p>', _table([head, *rows])]
    return _block(parts)


def _values(worked: Worked, found: Reading, items: Iterable[Item]) -> Iterator[str]:
    """Tables of lines and their values: at some steps, and of those that have one value."""
    printer, figures = MathML(found), Figures(found).given(worked, _DECIMALS)
    series, others = dict[Line, dict[int, str]](), list[str]()
    for item in items:
        value = _value(figures, item.value)
        if item.t is None or item.t < 0:
            others.append(_row(printer.equation(item.line), value))
        else:
            series.setdefault(item.line, {})[item.t] = value
    every = list(range(worked.length))
    times = every if len(every) <= _STEPS else [*every[: _STEPS - 1], every[-1]]
    if series:
        head = _head("", *(mathml.math(f"<mi>t</mi><mo>=</mo><mn>{t}</mn>") for t in times))
        rows = (
            _row(printer.equation(line), *(values[t] for t in times))
            for line, values in series.items()
        )
        yield _table([head, *rows])
    if others:
        yield _table(others)


def _value(figures: Figures, value: Array) -> str:
    return mathml.math(figures.value(value).text)


def _head(*cells: str) -> str:
    shown = "".join(f'<th style="{_CELL}">{cell}</th>' for cell in cells)
    return f'<tr style="background:none">{shown}</tr>'


def _table(rows: Iterable[str]) -> str:
    shown = f'<table style="border:0;margin:.6em 0">{"".join(rows)}</table>'
    return f'<div style="overflow-x:auto">{shown}</div>'


def _block(parts: Iterable[str]) -> str:
    return f'<div style="color:inherit">{"".join(parts)}</div>'


def _short(p: Program) -> bool:
    return sum(weights(e.rhs)[e.rhs] for e in p.equations) <= _LONGEST


def _preformatted(said: str) -> str:
    return f'<pre style="{_SCROLL}">{escape(said)}</pre>'


def _formulas(found: Reading, lines: Iterable[Line] | None = None) -> str:
    """Equations, `=` under `=`; what follows it may take several rows."""
    printer = MathML(found)
    rows: list[str] = []
    for line in found.lines if lines is None else lines:
        left, right = mathml.math(printer.left(line)), mathml.equals(printer.right(line))
        rows.append(f'<div style="text-align:right">{left}</div><div>{right}</div>')
    return f'<div style="{_GRID}">{"".join(rows)}</div>'


def _names(checked: Checked) -> str:
    """The names, those alike in one row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, what, dims in described(checked):
        if not what.startswith("computed"):
            sizes = [mathml.math(mathml.size(d)) for d in dims]
            rows.setdefault((what, " × ".join(sizes) or "number"), []).append(name)
    shown = "".join(
        _row(", ".join(mathml.math(mathml.symbol(n)) for n in names), _said(what), size)
        for (what, size), names in rows.items()
    )
    return _table([shown])


def _row(*cells: str) -> str:
    shown = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f'<tr style="background:none">{shown}</tr>'


def _said(what: str) -> str:
    """Words in which names stand between backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(what))


# --- the lines of a program ---------------------------------------------------------------------


def _reading(p: Program) -> Reading:
    """The lines of a program, in order."""
    lines = [Line(Part.STEPS, e.name, e.kind, e.rhs, e.origin, p.dir) for e in p.equations]
    series = {v.name for v in p.named(Role.GIVEN) if not v.per_sequence}
    series |= {e.name for e in p.steps()}
    names = dict(_spelled([*(v.name for v in p.values), *(e.name for e in p.equations)]))
    return Reading(tuple(lines), names, {}, frozenset(series), frozenset(), p.dir, p.loss)


def _spelled(names: Iterable[str]) -> Iterator[tuple[str, Name]]:
    """Names as people write them: `d_` is a delta, what stands behind a `$` a subscript."""
    taken: set[tuple[str, str]] = set()
    for name in sorted(names, key=lambda name: MACHINE in name):  # the author's keep theirs
        stem, whats = name, list[str]()
        while found := _PREFIX.match(stem):
            stem = stem[found.end() :]
            whats.append(found[1] or found[2])
        what, stem = " ".join(whats), stem.replace(MACHINE, "_")
        while (what, stem) in taken:
            stem += "ʹ"
        taken.add((what, stem))
        yield name, Name(name, stem, what)
