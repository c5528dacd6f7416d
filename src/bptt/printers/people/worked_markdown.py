"""A worked example as Markdown: its formulas in fences of the language `math`, as in the pages of
cells (`bptt.printers.people.markdown` says why)."""

from __future__ import annotations

from bptt.printers.people.worked import Worked, facts
from bptt.printers.people.worked_latex import blocks, ended

_ESCAPED = frozenset("\\`*_{}[]<>()#+-.!|~$&")


def text(worked: Worked, digits: int = 5) -> str:
    """A worked example as a page. `digits`: decimals of its numbers."""
    shown = [f"# {_words(worked.title_line())}", "", " ".join(map(_words, facts(worked))), ""]
    for heading, rows in blocks(worked, digits):
        formulas = "\n".join((r"\begin{aligned}", *ended(rows), r"\end{aligned}"))
        formulas = formulas.replace(r"\operatorname{", r"\text{")
        shown += [f"## {_words(heading)}", "", "```math", formulas, "```", ""]
    return "\n".join(shown)


def _words(said: str) -> str:
    """Words that Markdown shows as they are: a cell's title may hold anything."""
    return "".join(f"\\{c}" if c in _ESCAPED - {"(", ")", ".", "-"} else c for c in said)
