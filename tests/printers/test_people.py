"""What `bptt derive` prints is right, as printed, and reads as a careful person writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from awkward import AWKWARD
from printers.evaluate import Evaluator, softmax
from programs import PROGRAMS
from tolerances import REWRITE

from bptt import cells
from bptt.calculus.derive import adjoint
from bptt.calculus.lines import copies
from bptt.calculus.rewrites import layer, with_ends
from bptt.cell import Cell
from bptt.ir.dims import shape_of
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import Program, Role, refs
from bptt.printers.people import plain
from bptt.printers.people.reading import Reading, reading
from bptt.proof import sampling
from bptt.proof.sweeps import forward, pull

Array = Any
BYS = ("preactivations", "gates")
LENGTH = 4
SUBJECTS = (*PROGRAMS, *AWKWARD, *(f"{name}.cell" for name in cells.names()))

# What the functions that papers leave open are in these tests, and their derivatives.
_BOUND = {
    "iosif": dict.fromkeys(("f_ι", "f_φ", "f_ω", "f_c", "f_h"), "tanh"),
    "sancho": {"F": "softmax", "G": "g(y, l) = sum((y - l)**2)/2"},
    "jimenez": {"f": "g(h, y) = sum(tanh(h))*sum(y**2)"},
}
_SLOPES: dict[str, Callable[..., Array]] = {
    **{f"{f}_prime": lambda v: 1 - np.tanh(v) ** 2 for f in _BOUND["iosif"]},
    "F_prime": lambda v: np.diag(softmax(v)) - np.outer(softmax(v), softmax(v)),
    "dG_dy": lambda y, label: y - label,
    "df_dh": lambda h, y: (1 - np.tanh(h) ** 2) * np.sum(y**2),
}


@cache
def subject(name: str) -> tuple[Program, Program]:
    """A Program as people wrote it, and the same with every function bound."""
    if name in PROGRAMS:
        return PROGRAMS[name](), PROGRAMS[name]()
    if name in AWKWARD:
        return Cell(AWKWARD[name]).program, Cell(AWKWARD[name]).program
    cell = Cell.load(name.removesuffix(".cell"))
    return cell.program, cell.bind(_BOUND.get(cell.name, {})).program


@cache
def shown(name: str, by: str) -> tuple[Reading, str]:
    found = reading(subject(name)[0], by)  # type: ignore[arg-type]
    return found, plain.text(found)


def everything(name: str, rng: np.random.Generator) -> tuple[dict[str, int], dict[Port, Array]]:
    """Sizes, and all values of the forward pass from random inputs."""
    p = subject(name)[1]
    sizes = sampling.sizes_for(p)
    given = {
        port: rng.normal(
            size=(LENGTH,) * (port.at is At.STEPS) + shape_of(p.dims(port.name), sizes)
        )
        for port in inputs(p)
    }
    return sizes, forward(p, given, sizes, LENGTH)


def cotangents(
    p: Program, values: Mapping[Port, Array], rng: np.random.Generator
) -> dict[Port, Array]:
    if p.loss is not None:
        return {Port(p.loss, At.STEPS): np.ones(LENGTH)}
    names = dict.fromkeys(
        (*with_ends(p).outputs, *(s.name for s in p.states if s.name not in copies(p)))
    )
    return {Port(n, At.STEPS): rng.normal(size=values[Port(n, At.STEPS)].shape) for n in names}


def evaluated(
    text: str,
    found: Reading,
    p: Program,
    sizes: Mapping[str, int],
    values: Mapping[Port, Array],
    direct: Mapping[Port, Array],
    rng: np.random.Generator,
) -> Evaluator:
    """The printed lines, run on the values of a forward pass."""
    known = sampling.sizes_for(p, sizes)
    series: dict[str, dict[int, Array]] = {}
    constants: dict[str, Array] = dict(sizes)
    for port, array in values.items():
        match port.at:
            case At.STEPS:
                series.setdefault(port.name, {}).update(enumerate(array))
            case At.START | At.FIRST:
                series.setdefault(port.name, {})[-1] = array
            case At.CONST | At.STATIC:
                constants[port.name] = array
            case _:
                pass
    for copy, of in copies(p).items():
        series[of.attr[0]][-1] = series[copy][-1]
    for name in list(series):
        # beyond the last step: whatever it is, it must not matter
        series[name][LENGTH] = rng.normal(size=np.shape(series[name][0]))
    for port, array in direct.items():
        spelled = (
            n.text for n in found.names.values() if (n.what, n.stem) == ("direct", port.name)
        )
        series[next(spelled)] = dict(enumerate(array))
    zeros: dict[str, Array] = {}
    for line in found.lines:
        name, dims = found.names[line.name], shape_of(line.rhs.dims, known)
        # a gradient is zero beyond the last step; a value there must not matter
        zeros[name.text] = np.zeros(dims) if name.what else rng.normal(size=dims)
    evaluator = Evaluator(LENGTH, series, constants, zeros, _SLOPES)
    evaluator.run(text)
    return evaluator


def assert_near(name: str, found: Array, true: Array) -> None:
    assert np.shape(found) == np.shape(true), name
    error = np.max(np.abs(found - true), initial=0)
    assert error <= REWRITE * max(1.0, np.max(np.abs(true), initial=0)), (name, error)


@pytest.mark.parametrize("by", BYS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_what_is_printed_is_the_gradient(name: str, by: str, rng: np.random.Generator) -> None:
    p = subject(name)[1]
    sizes, values = everything(name, rng)
    direct = cotangents(p, values, rng)
    true = pull(adjoint(p, {port.name for port in direct}), values, direct, sizes)[0]
    for s in p.states:  # a parameter that a state starts from
        if s.start is not None and s.start.op == "ref":
            true[Port(s.start.attr[0], At.CONST)] += true[Port(s.name, At.START)]
    found, text = shown(name, by)
    ran = evaluated(text, found, subject(name)[0], sizes, values, {} if p.loss else direct, rng)
    labels = {v.name for v in p.values} - {v.name for v in layer(p).values} if p.loss else set()
    checked: set[str] = set()
    for port, gradient_ in true.items():
        match port.at:
            case At.STEPS if f"d_{port.name}" in ran.series:
                steps = ran.series[f"d_{port.name}"]
                later = ran.series.get(f"e_{port.name}", {})  # what x[t-1] gets from step t
                sums = [steps[t] + later.get(t + 1, 0) for t in range(LENGTH)]
                assert_near(port.name, np.array(sums), gradient_)
            case At.START if port.name in copies(p):
                of = copies(p)[port.name].attr[0]
                assert_near(of, ran.series[f"d_{of}"][-1], gradient_)
            case At.START:
                assert_near(port.name, ran.series[f"d_{port.name}"][-1], gradient_)
            case At.FIRST:
                assert_near(port.name, ran.series[f"e_{port.name}"][0], gradient_)
            case At.CONST | At.STATIC if f"d_{port.name}" in ran.constants:
                assert_near(port.name, ran.constants[f"d_{port.name}"], gradient_)
            case _:
                assert not np.any(gradient_) or port.name in labels, port
                continue
        checked.add(port.name)
    parameters = {v.name for v in p.named(Role.PARAM)}
    assert parameters <= checked | {n for n in parameters if not np.any(true[Port(n, At.CONST)])}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(1 - g[t]**2)", "(1 - g[t])"),
        ("d_c[t]*c[t-1]", "d_c[t]*c[t]"),
        (" + d_c[t+1]*f[t+1]", ""),
        ("d_c[t+1]*f[t+1]", "d_c[t+1]*f[t]"),
        ("U_g.T @ dz_g[t+1]", "U_g @ dz_g[t+1]"),
        ("outer(dz_o[t], h[t-1])", "outer(dz_o[t], h[t])"),
        ("d_b_i = sum_t(dz_i[t])", "d_b_i = sum_t(dz_f[t])"),
        ("d_c[-1] = d_c[0]*f[0]", "d_c[-1] = d_c[0]"),
    ],
)
def test_a_misprint_is_seen(
    right: str, wrong: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, text = shown("lstm.cell", "preactivations")
    assert right in text
    misprinted = found, text.replace(right, wrong)
    monkeypatch.setattr(f"{__name__}.shown", lambda name, by: misprinted)
    with pytest.raises(AssertionError):
        test_what_is_printed_is_the_gradient("lstm.cell", "preactivations", rng)


def test_what_people_do_not_write() -> None:
    """`1*a`, `a - -b`, `a**1`, a name that only the machine can type."""
    odd = re.compile(r"(?<![\w.])1\*|\*1(?![\w.])|[-+] ?-|\*\*1(?![\w.])|\$")
    for name in SUBJECTS:
        for by in BYS:
            for row in shown(name, by)[1].splitlines():
                equation = row.split("#")[0].rstrip()
                found = odd.search(re.sub(r"(\d)e-", r"\1e", equation).replace("**-", "**"))
                assert not found, (name, row, found)


def test_every_line_says_where_it_comes_from_and_fits_a_page() -> None:
    for name in SUBJECTS:
        for by in BYS:
            found, text = shown(name, by)
            rows = [row for row in text.splitlines() if row]
            assert sum("# " in row for row in rows if not row.startswith("#")) == len(found.lines)
            assert all(plain.columns(row) <= 100 and row == row.rstrip() for row in rows), name


def test_every_name_is_the_authors_or_explained() -> None:
    for name in SUBJECTS:
        p = subject(name)[0]
        authors = {v.name for v in p.values} | {e.name for e in p.equations}
        for by in BYS:
            found, _ = shown(name, by)
            made = {found.names[line.name].text for line in found.lines}
            for line in found.lines:
                read = {other for other, _ in refs(line.rhs)} - found.sums.keys()
                for spelled in (found.names[other] for other in read):
                    known = spelled.text in authors | made or spelled.what == "direct"
                    assert known, (name, spelled)


def test_names_are_never_taken_twice() -> None:
    for name in SUBJECTS:
        for by in BYS:
            found, _ = shown(name, by)
            texts = [s.text for n, s in found.names.items() if n not in found.first]
            copied = [n for n in found.names if n.startswith("last$")]
            assert len(set(texts)) >= len(texts) - len(copied), name
