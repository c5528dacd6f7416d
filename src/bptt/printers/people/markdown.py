"""A derivation as a page of Markdown, with formulas that GitHub and most others show."""

from __future__ import annotations

from bptt.printers.people import latex, plain
from bptt.printers.people.layout import parts
from bptt.printers.people.reading import Reading


def page(reading: Reading, cell: str, source: str) -> str:
    """The cell as its author wrote it, its backward pass as formulas, and as text."""
    shown = [f"# The backward pass of {cell}", "", *_fenced(source), ""]
    shown += ["## As formulas", "", _signs(reading), ""]
    for (part, _), rows in zip(parts(reading), latex.blocks(reading), strict=True):
        if part.value:
            shown += [f"{part.value[0].upper()}{part.value[1:]}:", ""]
        shown += ["$$", r"\begin{aligned}", *rows, r"\end{aligned}", "$$", ""]
    shown += ["## In the notation of cells", "", plain.legend(reading), ""]
    return "\n".join([*shown, *_fenced(plain.text(reading)), ""])


def _signs(reading: Reading) -> str:
    """What stands for `d_` and `direct_` in the formulas."""
    direct = any(name.what == "direct" for name in reading.names.values())
    also = r", and $\Delta$ what it gets from outside" if direct else ""
    return rf"$\delta$ is the gradient by what follows it{also}; $\odot$ goes element by element."


def _fenced(text: str) -> list[str]:
    return ["```text", text.rstrip("\n"), "```"]
