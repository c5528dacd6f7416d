"""Random cells: oracle, backend and torch's own derivatives agree, whatever the cell.

What torch differentiates is the cell's text, read by Python's parser and evaluated in torch's
functions: nothing of ours stands on that side but the text.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from random_cells import cells, examples
from shapes import GRID, Shape, draw, expected, packed, sizes_of
from tolerances import AWAY_FROM_KINKS, MUTATION, RANDOM, TAME

from bptt.backends.reference import execute
from bptt.calculus.derive import Derived, adjoint
from bptt.calculus.rewrites import layer, lower, with_outputs
from bptt.calculus.tangent import jvp
from bptt.ir.dims import solved, terms
from bptt.ir.ops import OPS, const, mul
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import MACHINE, Node, Program, Role, walk
from bptt.language.check import check
from bptt.nn import run
from bptt.nn.sweep import sweep_of

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")

Array = Any
Arrays = dict[Port, Array]
Each = list[Arrays]  # those of the oracle, of NumPy and of torch
Tensor = torch.Tensor

# --- a cell's text, at its word -------------------------------------------------------------------


def beside(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """f of two values, of which one may be a number beside a vector or matrix."""

    def joined(a: Tensor, b: Tensor) -> Tensor:
        rank = max(a.ndim, b.ndim)
        return f(*(x.reshape(*x.shape, *[1] * (rank - x.ndim)) for x in (a, b)))

    return joined


def matmul(a: Tensor, b: Tensor) -> Tensor:
    if b.ndim == 3:
        return (a @ b[..., None])[..., 0]
    return (a[..., None, :] @ b)[..., 0, :] if a.ndim == 3 else a @ b


def concat(*parts: Tensor) -> Tensor:
    rows = [a[..., None] if a.ndim == 2 else a for a in parts]
    lead = torch.broadcast_shapes(*(a.shape[:2] for a in rows))
    return torch.cat([a.expand(*lead, -1) for a in rows], -1)


def block(a: Tensor, k: Tensor, n: Tensor, axis: int = -1) -> Tensor:
    return a.chunk(int(n), axis)[int(k) - 1]


def largest(a: Tensor, b: Tensor | None = None) -> Tensor:
    return a.amax(-1) if b is None else beside(torch.maximum)(a, b)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def log_softmax(a: Tensor) -> Tensor:
    return torch.log_softmax(a, -1)


OPERATORS: dict[type[ast.operator], Callable[..., Tensor]] = {
    ast.Add: beside(torch.add),
    ast.Sub: beside(torch.sub),
    ast.Mult: beside(torch.mul),
    ast.Div: beside(torch.div),
    ast.MatMult: matmul,
    ast.Pow: lambda a, b: a ** b.item(),
}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "σ": torch.sigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "sign": torch.sign,
    "relu": torch.relu,
    "softplus": lambda a: -torch.nn.functional.logsigmoid(-a),
    "logsigmoid": torch.nn.functional.logsigmoid,
    "softsign": torch.nn.functional.softsign,
    "softmax": lambda a: torch.softmax(a, -1),
    "log_softmax": log_softmax,
    "cross_entropy": lambda a, labels: -dot(labels, log_softmax(a)),
    "max": largest,
    "min": lambda *args: -largest(*(-a for a in args)),
    "sum": lambda a: a.sum(tuple(range(2, a.ndim))),
    "mean": lambda a: a.mean(-1),
    "dot": dot,
    "outer": lambda a, b: a[..., :, None] * b[..., None, :],
    "cumsum": lambda a: a.cumsum(-1),
    "repeat": lambda a, n: a.repeat_interleave(int(n), -1),
    "concat": concat,
    "part": block,
    "rows": lambda a, k, n: block(a, k, n, -2),
    "cols": block,
    "eye": lambda n: torch.eye(int(n), dtype=torch.float64)[None, None],
}


def from_kink(function: str, args: Sequence[Tensor]) -> Tensor | None:
    """How far a function's arguments are from where it has no derivative."""
    if function in ("relu", "abs", "sign", "softsign"):
        return args[0].abs()
    if function in ("max", "min"):
        if len(args) == 2:
            return OPERATORS[ast.Sub](*args).abs()
        if args[0].shape[-1] > 1:
            ends = args[0].sort(-1, descending=function == "max").values
            return (ends[..., 0] - ends[..., 1]).abs()
    return None


@dataclass
class Reading:
    """A cell's text as Python reads it. Values are [G, B, *dims], in plain torch."""

    source: str
    lines: list[tuple[str, ast.expr]] = field(default_factory=list)
    definitions: dict[str, tuple[list[str], ast.expr]] = field(default_factory=dict)
    gaps: list[Tensor] | None = None  # how far from their kinks functions were, if that is asked
    found: dict[str, list[Tensor]] = field(default_factory=dict)  # by name, in the order of steps

    def __post_init__(self) -> None:
        for line in self.source.split("\n"):
            left, equals, right = line.partition(" = ")
            if not equals or " " in left.partition("(")[0]:
                continue  # a declaration
            body = ast.parse(right, mode="eval").body
            if left.endswith(")"):
                name, _, parameters = left[:-1].partition("(")
                self.definitions[name] = parameters.split(", "), body
            else:
                self.lines.append((left, body))

    def value(self, e: ast.expr, known: Mapping[str, Tensor]) -> Tensor:
        match e:
            case ast.Constant():
                return torch.full((1, 1), float(e.value), dtype=torch.float64)
            case ast.UnaryOp():
                return -self.value(e.operand, known)
            case ast.BinOp():
                f, args = OPERATORS[type(e.op)], (e.left, e.right)
            case ast.Attribute():
                return self.value(e.value, known).mT
            case ast.Call(func=ast.Name(id=name)) if name in self.definitions:
                parameters, body = self.definitions[name]
                values = (self.value(a, known) for a in e.args)
                return self.value(body, {**known, **dict(zip(parameters, values, strict=True))})
            case ast.Call(func=ast.Name(id=name)):
                f, args = FUNCTIONS[name], e.args
                if self.gaps is not None:
                    gap = from_kink(name, [self.value(a, known) for a in args])
                    self.gaps += [] if gap is None else [gap]
            case _:
                return known[ast.unparse(e).replace(" ", "")]
        return f(*(self.value(a, known) for a in args))

    def run(self, p: Program, shape: Shape, given: Mapping[Port, Tensor]) -> dict[Port, Tensor]:
        """What `run` gives for `p`, step by step. `given`: in its layout, ragged series packed."""
        counts = shape.batch_sizes() or [shape.batch] * shape.steps
        sizes = sizes_of(p, shape)
        assigned = {e.name for e in p.equations}
        lines = [line for line in self.lines if line[0].removesuffix("[t]") in assigned]
        fixed = {name: torch.full((1, 1), float(n)) for name, n in sizes.items()}
        static: dict[str, Tensor] = {}
        before: dict[str, Tensor] = {}
        series: dict[str, Sequence[Tensor]] = {}
        for port, a in given.items():
            if port.at is At.CONST:
                fixed[port.name] = a.unsqueeze(1)
                continue
            a = a if p.dims(port.name) else a[..., 0]
            if port.at is At.STEPS:
                series[port.name] = a.split(counts, 1) if shape.lengths else a.unbind(1)
            elif port.at is At.STATIC:
                static[port.name] = a
            else:
                before[port.name.removeprefix(f"last{MACHINE}")] = a
        self.found = {}
        for t in range(shape.steps)[:: p.dir]:
            n = counts[t]
            now = fixed | {name: a[:, :n] for name, a in static.items()}
            now |= {f"{name}[t]": rows[t] for name, rows in series.items()}
            now |= {f"{name}[t-1]": a[:, :n] for name, a in before.items()}
            for left, rhs in lines:
                now[left] = self.value(rhs, now)
            now = {name: wide(a, shape.groups, n) for name, a in now.items() if "[t]" in name}
            for name, a in before.items():
                before[name] = torch.cat([now[f"{name}[t]"], a[:, n:]], 1)
            for name, a in now.items():
                self.found.setdefault(name.removesuffix("[t]"), []).append(a)
        out: dict[Port, Tensor] = {}
        for port in outputs(p):
            if port.at is At.STEPS:
                rows = self.found[port.name][:: p.dir]
                a = torch.cat(rows, 1) if shape.lengths else torch.stack(rows, 1)
            else:
                a = before[port.name.removeprefix(f"last{MACHINE}")]
            out[port] = a if p.dims(port.name) else a[..., None]
        return out


def wide(a: Tensor, groups: int, batch: int) -> Tensor:
    return a.expand(groups, batch, *a.shape[2:])


# --- samples --------------------------------------------------------------------------------------


def subjects(source: str, direction: int = 1) -> Iterator[Program]:
    """What a layer runs of a cell, and all of it: readout and loss are outputs too."""
    p = replace(check(source).program, dir=direction)
    behind = with_outputs(p, [e.name for e in p.steps() if e.name in ("o", "L")])
    for part in {q.outputs: q for q in (behind, layer(p))}.values():
        if timed(part) and sized(part):
            yield lower(part)


def sample(source: str, p: Program, shape: Shape, seed: int) -> Arrays:
    """Random inputs of `p` that let nothing grow, and away from the kinks of the cell."""
    for k in range(5):
        rng = np.random.default_rng([seed, k])
        given = signed(draw(p, shape, rng), rng)
        reading = Reading(source, gaps=[])
        if shape.steps and shape.batch:
            reading.run(p, shape, tensors(given, shape))
        values = [a.abs().max() for series in reading.found.values() for a in series]
        gaps = [gap.min() for gap in reading.gaps or ()]
        if all(a < TAME for a in values) and all(gap > AWAY_FROM_KINKS for gap in gaps):
            return given
    assume(False)
    raise AssertionError


def signed(given: Arrays, rng: np.random.Generator) -> Arrays:
    return {port: a * rng.choice([-1, 1], size=a.shape) for port, a in given.items()}


def laid_out(port: Port, a: Array, shape: Shape) -> Array:
    """As a backend takes it: ragged series are packed."""
    counts = shape.batch_sizes()
    return a if counts is None or port.at is not At.STEPS else packed(a, counts)


def tensors(given: Arrays, shape: Shape) -> dict[Port, Tensor]:
    return {port: torch.tensor(laid_out(port, a, shape)) for port, a in given.items()}


# --- oracle and backend ---------------------------------------------------------------------------


def agree(p: Program, shape: Shape, given: Each) -> Each:
    """The inputs and outputs of `p`, where both backends give what the oracle does.

    Each goes on with its own values: which one is the largest, the last digit may decide.
    """
    want, counts = expected(p, shape, given[0]), shape.batch_sizes()
    found = [want]
    for kind, values in zip((np.array, torch.tensor), given[1:], strict=True):
        arrays = [kind(laid_out(port, values[port], shape)) for port in inputs(p)]
        made = dict(zip(outputs(p), map(np.asarray, execute(p, arrays, counts)), strict=True))
        compare({port: a for port, a in made.items() if port in want}, want)
        found.append(made)
    found[0] = found[1] | want  # the oracle says nothing of no sequences
    return [
        values | {port: unpacked(port, a, shape) for port, a in made.items()}
        for values, made in zip(given, found, strict=True)
    ]


def unpacked(port: Port, a: Array, shape: Shape) -> Array:
    """[G, N, w] as [G, T, B, w]."""
    counts = shape.batch_sizes()
    if counts is None or port.at is not At.STEPS:
        return a
    whole = np.zeros((a.shape[0], shape.steps, shape.batch, a.shape[-1]))
    for t, rows in enumerate(np.split(a, np.cumsum(counts)[:-1], axis=1)):
        whole[:, t, : counts[t]] = rows
    return whole


def compare(found: Mapping[Any, Array], true: Mapping[Any, Array]) -> None:
    """Equal by name, relative to the largest entry of each (at least 1)."""
    assert set(found) == set(true)
    for key, a in found.items():
        want = true[key]
        assert a.shape == want.shape, f"{key}: {a.shape}, not {want.shape}"
        if want.size:
            error = np.abs(a - want).max() / max(1.0, np.abs(want).max())
            assert error <= RANDOM, f"{key} is off by {error:.1e}"


def wired(d: Derived, values: Each, shape: Shape, rng: np.random.Generator) -> Each:
    """The inputs of a derived sweep: values of what it is derived from, and random seeds."""
    given = signed(draw(d.program, shape, rng), rng)
    primal = [(port, of) for port, of in d.primal.items() if port in given]
    return [given | {port: known[of] for port, of in primal} for known in values]


def whole(p: Program) -> Program:
    """With all that is assigned among the outputs, for sweeps that are derived from it."""
    return with_outputs(p, [e.name for e in p.equations])


def timed(p: Program) -> bool:
    """Does anything tell how long a sequence is?"""
    return any(port.at is At.STEPS for port in inputs(p))


def sized(p: Program) -> bool:
    """Do the sizes of what it reads say what each name is?"""
    known = {d for v in p.values for d in v.dims} | {d for s in p.states for d in p.dims(s.name)}
    nodes = walk(*(e.rhs for e in p.equations))
    dims = {d for n in nodes for d in (*n.dims, *(n.attr if n.op == "size" else ()))}
    return {s for d in known | dims for s in terms(d) if s} <= solved(known)


def picked(names: Sequence[Any], mask: int) -> list[Any]:
    """Those whose bit is not set."""
    return [name for k, name in enumerate(names) if not mask >> k & 1]


def held_against_oracle(source: str, shape: Shape, seed: int, mask: int) -> None:
    """All sweeps of a cell; what comes out of it has a gradient, but for what is masked."""
    rng = np.random.default_rng(seed)
    for p in subjects(source):
        given = [sample(source, p, shape, seed)] * 3
        agree(p, shape, given)
        values = agree(whole(p), shape, given)
        backward = adjoint(p, picked([*p.outputs, *(s.name for s in p.states)], mask))
        if timed(backward.program):
            given = wired(backward, values, shape, rng)
            agree(backward.program, shape, given)
            values1 = agree(whole(backward.program), shape, given)
            for d in (adjoint(backward.program), jvp(backward.program)):
                if timed(d.program):
                    agree(d.program, shape, wired(d, values1, shape, rng))
        tangent = jvp(p)
        if timed(tangent.program):
            agree(tangent.program, shape, wired(tangent, values, shape, rng))


masks = st.one_of(st.just(0), st.integers(0, 2**12))


@pytest.mark.usefixtures("poisoned")
@examples(40)
@given(cells(), st.sampled_from(GRID), st.integers(0, 2**16), masks)
def test_backend_is_the_oracle(source: str, shape: Shape, seed: int, mask: int) -> None:
    held_against_oracle(source, shape, seed, mask)


# --- backend and torch ----------------------------------------------------------------------------


def derivatives(
    f: Callable[..., Sequence[Tensor]],
    xs: Mapping[str, Tensor],
    ws: Mapping[str, Tensor],
    vs: Mapping[str, Tensor],
) -> dict[str, Array]:
    """Values, gradients, gradients of these, and tangents. `ws`: the weight of each value in what
    is differentiated; `vs`: that of each gradient, and the direction in forward mode."""
    xs = {name: x.clone().requires_grad_() for name, x in xs.items()}
    ws = {name: w.clone().requires_grad_() for name, w in ws.items()}
    ys = dict(zip(ws, f(*xs.values()), strict=True))
    first = gradient(ys, ws, xs)
    second = gradient(first, vs, xs | {f"weight of {name}": w for name, w in ws.items()})
    still = tuple(x.detach() for x in xs.values())
    moved = torch.func.jvp(lambda *x: tuple(f(*x)), still, tuple(vs.values()))[1]
    found = {f"value of {name}": y for name, y in ys.items()}
    found |= {f"gradient by {name}": g for name, g in first.items()}
    found |= {f"second derivative by {name}": g for name, g in second.items()}
    found |= {f"tangent of {name}": y for name, y in zip(ys, moved, strict=True)}
    return {name: y.numpy(force=True) for name, y in found.items()}


def gradient(
    ys: Mapping[str, Tensor], ws: Mapping[str, Tensor], xs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    total = sum(((y * w).sum() for y, w in zip(ys.values(), ws.values(), strict=True)))
    if not isinstance(total, Tensor) or not total.requires_grad:
        return {name: torch.zeros_like(x) for name, x in xs.items()}
    inputs = list(xs.values())
    found = torch.autograd.grad(
        total, inputs, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(xs, found, strict=True))


def held_against_torch(source: str, shape: Shape, seed: int, mask: int, direction: int) -> None:
    """A cell through `run`, forwards or backwards in time, is what torch makes of its text.

    What is masked is held fixed.
    """
    rng = np.random.default_rng(seed)
    counts = shape.batch_sizes()
    batch_sizes = None if counts is None else torch.tensor(counts)
    reading = Reading(source)
    for p in subjects(source, direction):
        given = tensors(sample(source, p, shape, seed), shape)
        consts = {v.name for v in p.named(Role.CONST)}
        ports = [port for port in given if port.name not in consts]
        xs = {str(port): given[port] for port in picked(ports, mask) or ports}

        def ours(*moving: Tensor, given: Any = given, xs: Any = xs, p: Any = p) -> Any:
            now = dict(zip(xs, moving, strict=True))
            arrays = [now.get(str(port), x) for port, x in given.items()]
            return run(p, arrays, batch_sizes)

        def torchs(*moving: Tensor, given: Any = given, xs: Any = xs, p: Any = p) -> Any:
            now = dict(zip(xs, moving, strict=True))
            arrays = {port: now.get(str(port), x) for port, x in given.items()}
            return list(reading.run(p, shape, arrays).values())

        ys = {str(port): y for port, y in zip(outputs(p), ours(*xs.values()), strict=True)}
        ws, vs = (
            {n: torch.tensor(rng.normal(size=a.shape)) for n, a in d.items()} for d in (ys, xs)
        )
        compare(derivatives(ours, xs, ws, vs), derivatives(torchs, xs, ws, vs))


RUNS = [shape for shape in GRID if shape.steps and shape.batch]
CASES = (cells(), st.sampled_from(RUNS), st.integers(0, 2**16), masks, st.sampled_from((1, -1)))


@pytest.mark.usefixtures("poisoned")
@examples(40)
@given(*CASES)
def test_run_is_torch(source: str, shape: Shape, seed: int, mask: int, direction: int) -> None:
    held_against_torch(source, shape, seed, mask, direction)


# What long runs found, as small as it gets, where it was found.
FOUND = {
    "the least of what is computed twice": (
        """c[t] = min(sigmoid(u[t - 1]))
u[t] = W @ concat(x[t], c[t])""",
        GRID[4],
        2,
    ),
    "a state with a part that never changes": (
        """state h: P + X
h[t] = concat(b, x[t])
z[t] = W @ h[t - 1]""",
        GRID[0],
        1,
    ),
    "a slice of the step before that is a value of its own": (
        """state h: P + X
h[t] = concat(softmax(b), x[t])
z[t] = dot(W @ h[t - 1], concat(x[t - 1], h[t - 1], 1))*sum(x[t - 1])""",
        GRID[0],
        1,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name: str) -> None:
    source, shape, seed = FOUND[name]
    held_against_oracle(source, shape, seed, 0)
    for direction in (1, -1):
        held_against_torch(source, shape, seed, 0, direction)


# --- testing the tester ---------------------------------------------------------------------------


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Sweeps that are derived now are derived anew, and again by the next test."""
    sweep_of.cache_clear()
    gc.collect()
    yield
    sweep_of.cache_clear()
    gc.collect()


def scaled(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A derivative that is wrong by 0.1 % by its first argument."""

    def wrong(*args: Node, **options: Any) -> Any:
        first, *rest = rule(*args, **options)
        return (None if first is None else mul(first, const(MUTATION)), *rest)

    return wrong


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("op", ["tanh", "max", "block"])
def test_a_wrong_derivative_is_seen(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, op, replace(OPS[op], vjp=scaled(OPS[op].vjp)))
    quick = settings(examples(400), phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError, match="is off by"):
        quick(given(*CASES)(held_against_torch))()
