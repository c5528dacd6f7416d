"""A page about a cell in Markdown: what it is, its formulas, its backward pass, how to use it.

Formulas stand in fences of the language `math`, which GitHub, GitLab and others show: between
dollars they would read `\\,` and `\\_` as Markdown. `\\operatorname` is not allowed there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bptt.calculus.readable import By
from bptt.calculus.rewrites import layer, lower
from bptt.calculus.summary import Needs, Plans, needs, plans
from bptt.ir.dims import Dims, show_dim, show_dims, size_of, terms
from bptt.ir.ops import number
from bptt.ir.program import MACHINE, Program, Role, State, Value
from bptt.language.check import Checked
from bptt.language.head import about, body
from bptt.printers.people import latex, plain
from bptt.printers.people.layout import number as shown_number
from bptt.printers.people.layout import parts
from bptt.printers.people.reading import Reading, forward, reading
from bptt.printers.plan import show_plan

_WIDTHS = {"X": 32, "H": 64}  # of the example, by size
_WIDTH = 16  # of its other sizes
_LONGEST = 1000  # characters of LaTeX in a row
_LINE = 70  # the characters of its arguments that fit in a line


def page(
    checked: Checked,
    name: str,
    by: By = "preactivations",
    functions: Mapping[str, str] | None = None,
) -> str:
    """All that there is to say about a cell. `name`: what one calls it, `lstm` or `mine.cell`;
    `functions`: what its example puts for those that are left open."""
    p = checked.program
    need = needs(lower(p), checked.consts)
    shown = [
        *_head(checked.source, name),
        *_section("Equations", [*_fenced(body(checked.source)), "", *_equations(p)]),
        *_section("Names", [*_names(checked), "", *_sizes(need)]),
        *_section("Backward pass", _backward(reading(p, by))),
        *_section("What runs when", _plans(plans(lower(p)))),
        *_section("Use", _use(checked, name, need, functions or {})),
    ]
    return "\n".join(shown)


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _folded(title: str, lines: Iterable[str]) -> list[str]:
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>"]


def _fenced(text: str, language: str = "text") -> list[str]:
    return [f"```{language}", text.rstrip("\n"), "```"]


# --- what it is ---------------------------------------------------------------------------------


def _head(source: str, name: str) -> list[str]:
    head = about(source)
    known = {
        "Paper": head.citation,
        "Family": head.family,
        "Equations from": head.source,
        "Gives the numbers of": "; ".join(head.equals),
    }
    facts = [f"- {what}: {said}" for what, said in {"Name": f"`{name}`", **known}.items() if said]
    remarks = [head.remarks, ""] if head.remarks else []
    return [f"# {head.title or name}", "", *remarks, *facts, ""]


def _equations(p: Program) -> list[str]:
    """The forward pass as formulas, unless its macros, written out, make them too long."""
    found = forward(p)
    longest = max(len(row) for rows in latex.blocks(found) for row in rows)
    return _math(found) if longest <= _LONGEST else ["Written out, its formulas fit on no page."]


def _math(reading: Reading) -> list[str]:
    """The lines of a derivation as formulas, part by part."""
    shown: list[str] = []
    for (part, _), rows in zip(parts(reading), latex.blocks(reading), strict=True):
        if part.value and reading.dir < 0:
            shown += [f"{part.value[0].upper()}{part.value[1:]}:", ""]
        formulas = "\n".join(rows).replace(r"\operatorname{", r"\text{")
        shown += [*_fenced(f"\\begin{{aligned}}\n{formulas}\n\\end{{aligned}}", "math"), ""]
    return shown[:-1]


def _names(checked: Checked) -> Iterator[str]:
    """A table of the names, those alike in one row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, what, dims in described(checked):
        rows.setdefault((what, "number" if not dims else show_dims(dims)), []).append(name)
    yield from ("| name | is | size |", "|---|---|---|")
    for (what, size), names in rows.items():
        yield f"| {', '.join(f'`{name}`' for name in names)} | {what} | {size} |"


def described(checked: Checked) -> Iterator[tuple[str, str, Dims]]:
    """Each name of a cell, what it is, and its dims."""
    p = checked.program
    read = {v.name for v in layer(p).values}
    states = {s.name: s for s in p.states if MACHINE not in s.name}
    for v in p.named(Role.GIVEN):
        what = "input" if v.name in read else "input of the readout or loss"
        yield v.name, what + (", one for each sequence" if v.per_sequence else ""), v.dims
    for name in dict.fromkeys((*states, *p.outputs)):
        what = "state" if name in states else ""
        what += (" and output" if what else "output") if name in p.outputs else ""
        yield name, what + (_start(states[name]) if name in states else ""), p.dims(name)
    for e in p.equations:
        if MACHINE not in e.name and e.name not in states and e.name not in p.outputs:
            loss = ", the loss" if e.name == p.loss else ""
            yield e.name, f"computed{'' if e in p.steps() else ' once'}{loss}", e.rhs.dims
    for v in p.named(Role.PARAM):
        yield v.name, "parameter" + ("" if v.name in read else " of the readout or loss"), v.dims
    for v in p.named(Role.CONST):
        value = checked.consts.get(v.name)
        said = "to be given" if value is None else shown_number(value)
        yield v.name, f"constant, {said}", v.dims


def _start(state: State) -> str:
    """What a state is before the first step."""
    value = None if state.start is None else number(state.start)
    if state.start is not None and value is None:
        start = state.start.args[0] if state.start.op == "fill" else state.start
        return f", `{start.attr[0]}` before the first step"
    return f", {shown_number(value or 0.0)} before the first step"


def _sizes(need: Needs) -> Iterator[str]:
    """What the sizes are to a layer."""
    hidden, wide = show_dim(need.hidden), show_dims(need.main.dims) if need.main else ""
    said = [f"`{hidden}` is `hidden_size`"]
    if wide == hidden:
        said = [f"`{hidden}` is `input_size` and `hidden_size`"]
    elif need.main and need.main.dims:
        said = [f"`{wide}` is `input_size`", *said]
    given = ", ".join(f"`{size}`" for size in need.sizes)
    yield f"In a layer {', '.join(said)}{f'; {given} must be given' if given else ''}."


# --- what follows from it -----------------------------------------------------------------------


def _backward(found: Reading) -> Iterator[str]:
    direct = any(name.what == "direct" for name in found.names.values())
    also = r", and $\Delta$ what it gets from outside" if direct else ""
    of = f" of the loss `{found.loss}`" if found.loss else ""
    signs = r"$\odot$ goes element by element, $\otimes$ is the outer product"
    yield rf"$\delta$ is the gradient{of} by what follows it{also}; {signs}."
    yield from ("", *_math(found), "")
    text = [plain.legend(found), "", *_fenced(plain.text(found))]
    yield from _folded("The same in the notation of cells", text)


def _plans(found: Plans) -> Iterator[str]:
    forward, backward = found.phases
    yield f"A step has {_phases(forward)} forward and {_phases(backward)} backward."
    yield ""
    yield from _folded("Forward", _fenced(show_plan(found.forward, found.kept)))
    yield ""
    yield from _folded("Backward", _fenced(show_plan(found.backward)))


def _phases(count: int) -> str:
    return "1 phase" if count == 1 else f"{count} phases"


# --- how to use it ------------------------------------------------------------------------------


def _inits(checked: Checked) -> Iterator[str]:
    """How parameters start, in the words of the text."""
    lines = [line for line in body(checked.source).splitlines() if line.startswith("init ")]
    usual = "Parameters start at random, within ±1/√`hidden_size`"
    if lines:
        yield from (f"{usual}, except:", "", *_fenced("\n".join(lines)), "")
    elif layer(checked.program).named(Role.PARAM):
        yield from (f"{usual}.", "")


def _use(checked: Checked, name: str, need: Needs, functions: Mapping[str, str]) -> Iterator[str]:
    yield from _inits(checked)
    yield from ("Prove its gradients:", "", *_fenced(f"bptt check {name}", "sh"))
    if need.main is not None:
        yield from ("", "As a layer in PyTorch:", "")
        yield from _fenced(
            "\n".join(_example(layer(checked.program), name, need, functions)), "python"
        )


def _example(p: Program, name: str, need: Needs, functions: Mapping[str, str]) -> Iterator[str]:
    """Code that runs the cell as a layer."""
    assert need.main is not None
    dims = [need.hidden, *(d for v in p.values for d in v.dims)]
    sizes = {name: _WIDTHS.get(name, _WIDTH) for d in dims for name in terms(d)}

    def shape(v: Value, *first: int) -> str:
        return ", ".join(str(n) for n in (*first, *(size_of(d, sizes) for d in v.dims or (1,))))

    def given(word: str, values: Iterable[tuple[str, str]]) -> list[str]:
        shown = ", ".join(f'"{key}": {value}' for key, value in values)
        return [f"{word}={{{shown}}}"] if shown else []

    options = [
        *given("sizes", ((s, str(sizes.get(s, _WIDTH))) for s in need.sizes)),
        *given("functions", ((f, f'"{functions.get(f, "tanh")}"') for f in need.functions)),
        *given("consts", ((v.name, v.name) for v in need.consts)),
    ]
    others = "".join(f", {v.name}={v.name}" for v in need.inputs)
    wide = size_of(need.main.dims[0], sizes) if need.main.dims else 1
    yield from ("import torch", "from bptt.nn import Recurrent", "")
    for v in need.consts:
        scale = f" / {size_of(v.dims[1], sizes)}" if len(v.dims) == 2 else ""
        yield f"{v.name} = torch.rand({shape(v)}){scale}  # {_dims(v.dims)}"
    arguments = [f'"{name}"', str(wide), str(size_of(need.hidden, sizes)), *options]
    if len(", ".join(arguments)) < _LINE:
        yield f"layer = Recurrent({', '.join(arguments)})"
    else:
        yield from ("layer = Recurrent(", *(f"    {argument}," for argument in arguments), ")")
    yield f"{need.main.name} = torch.randn({shape(need.main, 20, 8)})  # time, batch, width"
    for v in need.inputs:
        first = (8,) if v.per_sequence else (20, 8)
        yield f"{v.name} = torch.rand({shape(v, *first)})"
    out, *more = p.outputs
    shown = f"  # {', '.join(p.outputs)} side by side" if more else ""
    yield f"{'out' if more else out}, states = layer({need.main.name}{others}){shown}"


def _dims(dims: Dims) -> str:
    return show_dims(dims) if dims else "a number"
