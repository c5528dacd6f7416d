"""The page of a worked example: well-formed, alone, safe to open, and true to its numbers."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from subjects import CORE

from bptt.cell import Cell
from bptt.errors import UserError
from bptt.ir.program import Kind, refs
from bptt.printers.people import page
from bptt.printers.people.page_diagram import MOST_STEPS
from bptt.printers.people.reasons import Mention
from bptt.printers.people.worked import Worked

Element = ElementTree.Element

LARGEST = 1_000_000  # characters of a page
READABLE = 4.5  # contrast of text, of the accessibility guidelines (WCAG 2, AA)
OURS = Path(page.__file__).parent

HTML = set(
    "html head meta title style body header h1 h2 h3 p code span nav button input output main"
    " figure figcaption div section ol ul li table tr th td wbr script".split()
)
SVG = set("svg defs marker g path rect text tspan title".split())
MATHML = set(
    "math mrow mi mn mo mtext mspace mfrac msqrt msup msub msubsup mover munder mtable mtr"
    " mtd".split()
)
ATTRIBUTES = set(
    "lang charset http-equiv content name class id type min value hidden scope role tabindex"
    " data-title data-way data-t data-id data-a data-b data-node data-reads displaystyle form"
    " stretchy accent width height viewBox d x y rx dy transform pathLength refX refY markerWidth"
    " markerHeight markerUnits orient".split()
)


@cache
def worked(name: str) -> Worked:
    return Cell.load(name).trace()


@cache
def shown(name: str) -> str:
    return page.text(worked(name))


def parsed(text: str) -> Element:
    """A page as a tree: all of it is closed, and its script and style do not end early."""
    start, _, rest = text.partition("\n")
    assert start == "<!DOCTYPE html>"
    assert rest.count("<script>") == rest.count("</script>") == 1
    assert rest.count("<style>") == rest.count("</style>") == 1
    rest = re.sub(r"<(script|style)>.*?</\1>", "", rest, flags=re.DOTALL)
    return ElementTree.fromstring(rest)


def words(element: Element | None) -> str:
    assert element is not None
    return "".join(element.itertext()).replace("\u2061", "")


def with_class(root: Element, name: str) -> list[Element]:
    return [e for e in root.iter() if name in (e.get("class") or "").split()]


def frame(root: Element, anchor: str) -> Element:
    return next(e for e in root.iter("section") if e.get("id") == anchor)


def results(section: Element) -> dict[str, str]:
    """What each line of a section comes to, by its left side."""
    return {
        words(with_class(line, "left")[0]): words(with_class(line, "result")[0]).removeprefix("=")
        for line in with_class(section, "line")
    }


# --- every cell -----------------------------------------------------------------------------------


def test_every_cell_has_a_page_that_stands_alone(cell: str) -> None:
    text = shown(cell)
    assert len(text.encode()) < LARGEST
    root = parsed(text)
    for element in root.iter():
        assert element.tag in HTML | SVG | MATHML, element.tag
        for name, value in element.items():
            known = name in ATTRIBUTES or name.startswith("aria-")
            assert known, f"{element.tag} has {name}"
            assert "javascript:" not in value and "//" not in value
    outside = re.search(r"https?:|url\((?!#)|@import|src=|href=", text)
    assert outside is None, outside
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))


def test_what_lights_up_is_what_the_cell_reads(cell: str) -> None:
    """Forward a line's edges end at its own value, backward they begin there."""
    root = parsed(shown(cell))
    nodes = {e.get("data-id") for e in with_class(root, "node")}
    edges = {(e.get("data-a"), e.get("data-b")) for e in with_class(root, "edge")}
    assert all(a in nodes and b in nodes for a, b in edges)
    lit: set[tuple[str | None, str | None]] = set()
    for section in root.iter("section"):
        for line in with_class(section, "line"):
            own, reads = line.get("data-node"), (line.get("data-reads") or "").split()
            assert own is None or own in nodes
            assert nodes.issuperset(reads)
            match section.get("data-way"):
                case "forward":
                    found = {(a, b) for a, b in edges if b == own}
                    assert {(a, own) for a in reads} == found
                    lit |= found
                case "backward" if own is not None:
                    assert {(own, b) for b in reads} <= edges
                case _:
                    pass
    assert lit == edges


def test_every_line_has_its_symbols_and_its_result(cell: str) -> None:
    w = worked(cell)
    root = parsed(shown(cell))
    assert len(with_class(root, "line")) == len(w.steps) + len(w.back)
    assert len(with_class(root, "symbols")) == len(with_class(root, "result"))
    said = [words(e) for e in with_class(root, "why")]
    assert len(said) == sum(bool(item.why) for item in (*w.steps, *w.back))
    assert not any("[t" in why or "$" in why for why in said), said


def test_the_drawing_has_every_value_of_every_step(cell: str) -> None:
    w = worked(cell)
    root = parsed(shown(cell))
    nodes = [e for e in with_class(root, "node") if e.get("data-t") != "-1"]
    series = [n for n in w.roles["inputs"] if n in w.forward.series]
    steps = [line for line in w.forward.lines if line.kind is Kind.STEP]
    assert len(nodes) == w.length * (len(series) + len(steps))
    places = [(e.get("transform")) for e in with_class(root, "node")]
    assert len(places) == len(set(places)), "two nodes in one place"
    read = {
        (w.forward.names[name].text, lag, line.name)
        for line in steps
        for name, lag in refs(line.rhs)
        if name in w.forward.series
    }
    assert len(with_class(root, "edge")) == w.length * len(read)


# --- the example of the documents -----------------------------------------------------------------


def test_the_numbers_of_gomez_stand_where_they_belong() -> None:
    root = parsed(shown("gomez"))
    anchors = [section.get("id") for section in root.iter("section")]
    assert anchors == [
        *("given", "forward-0", "forward-1", "backward-1", "backward-0", "start", "sums"),
        "update",
    ]
    first = results(frame(root, "forward-0"))
    assert (first["a0"], first["i0"], first["out0"]) == ("0.81775", "0.96083", "0.53631")
    last = results(frame(root, "backward-1"))
    assert (last["δstate1"], last["δza,1"]) == ("−0.07111", "−0.01938")
    assert results(frame(root, "sums"))["δba"] == "−0.03641"
    rows = [[words(cell) for cell in row] for row in frame(root, "update").iter("tr")]
    assert ["ba", "0.2", "−0.03641", "0.20364"] in rows
    drawn = {e.get("data-id"): words(e) for e in with_class(root, "node")}
    assert "δ −0.05348" in next(v for v in drawn.values() if v.startswith("state[0]"))
    assert "δz −0.01702" in next(v for v in drawn.values() if v.startswith("a[0]"))


def test_a_line_shows_numbers_put_in_and_why_it_is_there() -> None:
    root = parsed(shown("gomez"))
    lines = with_class(frame(root, "forward-1"), "line")
    state = next(line for line in lines if words(with_class(line, "left")[0]) == "state1")
    assert words(with_class(state, "symbols")[0]) == "=a1⊙i1+f1⊙state0"
    assert words(with_class(state, "numbers")[0]) == "=0.84980×0.98118+0.87030×0.78573"
    lines = with_class(frame(root, "backward-0"), "line")
    assert words(with_class(lines[0], "why")[0]) == "read by E0, and by a1, i1, f1, o1"
    # what comes from its own step, and from the next
    assert words(with_class(lines[0], "numbers")[-1]) == "=0.03631+(−0.01828)"


def test_gradients_do_not_flow_to_labels() -> None:
    root = parsed(shown("gomez"))
    label = next(e.get("data-id") for e in with_class(root, "node") if words(e).startswith("y[0]"))
    owns = [line.get("data-node") for line in with_class(frame(root, "backward-0"), "line")]
    assert label not in owns


def test_digits_are_as_asked() -> None:
    root = parsed(page.text(worked("gomez"), 3))
    assert results(frame(root, "forward-0"))["a0"] == "0.818"
    assert any(words(e).endswith("a0.818δz −0.017") for e in with_class(root, "node"))


def test_what_was_drawn_and_chosen_is_said() -> None:
    root = parsed(page.text(Cell.load("iosif").trace(seed=7)))
    said = words(next(root.iter("header")))
    assert "Drawn at random from seed 7" in said
    assert "fι is tanh" in said or "f_ι is tanh" in said
    assert "Drawn" not in words(next(parsed(shown("gomez")).iter("header")))


def test_numbers_that_nobody_would_read_are_left_out() -> None:
    text = shown("hyper_lstm")
    assert "too many numbers to write out" in text
    assert "too many numbers" not in shown("gomez")


def test_a_page_has_room_for_so_many_steps() -> None:
    cell, sizes = Cell.load("rnn"), {"X": 1, "H": 1}
    longest = page.text(cell.trace(length=100, sizes=sizes))
    assert frame(parsed(longest), "forward-99") is not None
    assert len(longest) < LARGEST
    with pytest.raises(UserError, match="at most 100 steps, and this example has 101"):
        page.text(cell.trace(length=101, sizes=sizes))


def test_a_long_example_is_drawn_in_part() -> None:
    w = Cell.load("rnn").trace(length=MOST_STEPS + 2)
    root = parsed(page.text(w))
    times = {e.get("data-t") for e in with_class(root, "node")}
    assert times == {"-1", *map(str, range(MOST_STEPS))}
    assert f"first {MOST_STEPS} steps" in words(next(root.iter("figcaption")))
    assert frame(root, f"forward-{MOST_STEPS + 1}") is not None


# --- safety ---------------------------------------------------------------------------------------

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;<!-- ]]> </style>"


@pytest.mark.parametrize("name", ["gomez", "iosif"])
def test_nothing_of_a_user_becomes_markup(name: str) -> None:
    w = worked(name)
    items = tuple(replace(item, why=(NASTY, Mention(NASTY, "t+1"))) for item in w.back)
    nasty = replace(w, name=NASTY, title=NASTY, functions={NASTY: NASTY}, back=items)
    root = parsed(page.text(nasty))
    assert {e.tag for e in root.iter()} <= HTML | SVG | MATHML
    assert not any(name.startswith("on") for e in root.iter() for name in e.attrib)
    assert words(next(root.iter("h1"))) == NASTY
    assert words(next(root.iter("title"))) == nasty.title_line()


def test_names_are_escaped_in_the_drawing() -> None:
    w = worked("gomez")
    names = {k: replace(n, text=f"{n.text}<b>&") for k, n in w.forward.names.items()}
    root = parsed(page.text(replace(w, forward=replace(w.forward, names=names))))
    assert any("a<b>&" in words(e) for e in with_class(root, "node"))


def test_only_our_own_script_and_style_may_run() -> None:
    text = shown("gomez")
    root = parsed(text)
    policy = next(e for e in root.iter("meta") if e.get("http-equiv")).get("content") or ""
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inside is not None
        digest = b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    # a style or a handler on an element would be refused, and so do nothing
    assert not any(e.get("style") for e in root.iter())


def test_the_script_builds_no_markup_and_asks_nobody() -> None:
    script = (OURS / "page.js").read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "Function("):
        assert word not in script
    for word in ("fetch", "XMLHttp", "import", "http", "WebSocket", "</"):
        assert word not in script


# --- for every reader -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORE)
def test_without_the_script_all_steps_can_be_read(name: str) -> None:
    root = parsed(shown(name))
    assert next(root.iter("nav")).get("hidden") is not None
    assert not any(e.get("hidden") is not None for e in root.iter() if e.tag != "nav")
    style = (OURS / "page.css").read_text(encoding="utf-8")
    for rule in re.findall(r"([^{}]+)\{[^{}]*display: none", style):
        own = rule.strip().rpartition("\n")[2]
        assert own.startswith((".stepping", "[hidden]", "nav", ".node")), own


@pytest.mark.parametrize("name", CORE)
def test_a_screen_reader_finds_its_way(name: str) -> None:
    root = parsed(shown(name))
    assert root.get("lang") == "en"
    levels = [int(e.tag[1]) for e in root.iter() if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(e.get("aria-label") or words(e).strip() for e in root.iter("button"))
    assert all(e.get("aria-label") for e in (*root.iter("input"), *root.iter("svg")))
    assert next(root.iter("output")).get("aria-live") == "polite"
    assert all(e.find("title") is not None for e in with_class(root, "node"))
    titles = [section.get("data-title") for section in root.iter("section")]
    assert len(titles) == len(set(titles))


def _palettes() -> dict[str, dict[str, str]]:
    """The colours of the page by name: light, dark and in print."""
    style = (OURS / "page.css").read_text(encoding="utf-8")
    found = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return {
        kind: dict(re.findall(r"--([\w-]+): (#\w+);", block))
        for kind, block in zip(("light", "dark", "print"), found, strict=True)
    }


def _contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("kind", ["light", "dark", "print"])
def test_colours_can_be_told_apart(kind: str) -> None:
    colour = _palettes()[kind]
    for paper in ("paper", "shade"):
        for ink in ("ink", "quiet"):
            assert _contrast(colour[ink], colour[paper]) >= READABLE, (ink, paper)
    for way in ("forward", "backward"):
        assert _contrast(colour[way], colour["paper"]) >= READABLE
        assert _contrast(colour[way], colour[f"{way}-shade"]) >= READABLE
        assert _contrast(colour["ink"], colour[f"{way}-shade"]) >= READABLE


def test_motion_and_print_are_thought_of() -> None:
    style = (OURS / "page.css").read_text(encoding="utf-8")
    still, _, moving = style.partition("@media (prefers-reduced-motion: no-preference)")
    assert "animation" not in still
    assert "animation" in moving
    printed = style.partition("@media print")[2]
    assert "nav { display: none !important; }" in printed
    assert ".stepping .frame:not(.now) { display: block; }" in printed
