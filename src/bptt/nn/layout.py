"""A cell as a layer runs it: what it reads, by name, and of what sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bptt.calculus.rewrites import layer
from bptt.calculus.summary import main_input, main_size
from bptt.calculus.tokens import tokens
from bptt.errors import UserError
from bptt.ir.dims import Dim, Dims, show_dim, size_of, terms
from bptt.ir.ops import number
from bptt.ir.ports import At, inputs
from bptt.ir.program import Node, Program, Role, State, walk
from bptt.language.canonical import read
from bptt.nn.run import run
from bptt.nn.shapes import solve
from bptt.nn.stacks import Part
from bptt.nn.sweep import Keep, checked_keep
from bptt.nn.weights import Weights
from bptt.printers.text import text as canonical_text

_ARGUMENTS = ("self", "input", "states", "table", "resets", "reset_to", "return_states")


class Keeps:
    """A layer that can be told what it keeps for the backward pass."""

    _keep: Keep = "all"

    @property
    def keep(self) -> Keep:
        """What is kept for the backward pass: "all", "states" or "sqrt". It can be set."""
        return self._keep

    @keep.setter
    def keep(self, keep: str) -> None:
        self._keep = checked_keep(keep)


class Other(NamedTuple):
    """An input beside the first: a value each step or, `per_sequence`, one for all of them."""

    name: str
    width: Dim
    per_sequence: bool


class Rows(NamedTuple):
    """What takes the place of a Layout's fields of these names where the input is a row of a table.

    In `reads`, "" is then the number of the row, and `table` stands for the table, whose rows are
    vectors or, where they are `numbers`, one number each.
    """

    forward: str
    backward: str
    reads: tuple[str, ...]
    table: str
    numbers: bool


@dataclass(frozen=True)
class Layout:
    """What a layer of a cell is made of, as strings and numbers, so that it can be pickled."""

    cell: str
    forward: str  # the text of the Program that begins at the first step
    backward: str  # and of the one that begins at the last
    reads: tuple[str, ...]  # in this order: "" is the input, a name another one or a constant
    rows: Rows
    input: Dim
    main: Dim  # what hidden_size says
    others: tuple[Other, ...]  # the inputs beside the first
    outputs: tuple[tuple[str, Dim], ...]
    states: tuple[tuple[str, Dim], ...]
    starts: tuple[float | str, ...]  # of the states: a number, or the name of a constant
    params: tuple[tuple[str, Dims], ...]
    consts: tuple[tuple[str, Dims], ...]

    def sizes(self, wide: int, hidden: int, extra: Mapping[str, int]) -> dict[str, int]:
        """The number that each named size is, in a layer whose input is `wide`.

        Raises UserError where one is missing, unknown or does not fit.
        """
        names = self._names()
        for name in extra:
            if name not in names or name == self.main:
                free = ", ".join(f"`{n}`" for n in names if n != self.main) or "none"
                help = f"`{show_dim(self.main)}` is hidden_size, and its other sizes are: {free}"
                raise UserError(f"the cell `{self.cell}` takes no size `{name}`", help=help)
        known = dict(extra)
        solve([(self.main, hidden), (self.input, wide)], known)
        missing = next((name for name in names if name not in known), None)
        if missing is not None:
            raise UserError(
                f"the cell `{self.cell}` has a size `{missing}` that nothing says",
                help=f"give it, for instance sizes={{'{missing}': 32}}",
            )
        if size_of(self.input, known) != wide:
            raise UserError(
                f"the input of the cell `{self.cell}` is {show_dim(self.input)} = "
                f"{size_of(self.input, known)} wide, and this layer's input is {wide}",
                help="input_size, or the size of what is fed, must be as wide",
            )
        if size_of(self.main, known) != hidden:
            main = show_dim(self.main)
            raise UserError(f"hidden_size is {main} in `{self.cell}`, and cannot be {hidden}")
        wrong = next((name for name, n in known.items() if n < 1), None)
        if wrong is not None:
            raise UserError(f"the size {wrong} must be at least 1, not {known[wrong]}")
        return known

    def _names(self) -> list[str]:
        dims = [*(d for _, d in (*self.states, *self.outputs)), self.input]
        dims += [other.width for other in self.others]
        dims += [d for _, shape in (*self.params, *self.consts) for d in shape]
        return [name for name in dict.fromkeys(n for d in dims for n in terms(d)) if name]

    def widths(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The widths of the states."""
        return tuple(size_of(d, sizes) for _, d in self.states)

    def output_width(self, sizes: Mapping[str, int]) -> int:
        """The width of all outputs together."""
        return sum(size_of(d, sizes) for _, d in self.outputs)


def layout_of(program: Program, cell: str) -> Layout:
    """The Layout of a lowered Program: of the part that its outputs and states need.

    Raises UserError where a layer cannot feed the cell.
    """
    p = layer(program)
    given = p.named(Role.GIVEN)
    first = main_input(p)
    if first is None:
        raise UserError(f"a layer feeds its cell an input over time, and `{cell}` reads none")
    taken = next((v.name for v in given if v is not first and v.name in _ARGUMENTS), None)
    if taken is not None:
        raise UserError(f"`{taken}` cannot name a further input: it is an argument of the layer")
    early = next((port for port in inputs(p) if port.at in (At.FIRST, At.LAST)), None)
    assert early is None, f"`{cell}` reads {early} beyond an end"  # `check` makes copies instead
    call = next((n for n in walk(*(e.rhs for e in p.equations)) if n.op.startswith("call")), None)
    if call is not None:
        name = call.attr[0]
        raise UserError(
            f"the function `{name}` of the cell `{cell}` is not specified",
            help=f"bind it, for instance functions={{'{name}': 'tanh'}}",
        )
    values = [v for v in program.values if v in p.values or v.name in _starting(p)]
    # where a state starts is for the layer to say: `run` is given it
    bare = replace(p, states=tuple(State(s.name) for s in p.states))
    return Layout(
        cell=cell,
        forward=canonical_text(bare),
        backward=canonical_text(replace(bare, dir=-p.dir)),
        reads=_reads(p, first.name),
        rows=_rows(bare, first.name),
        input=_width(first.dims),
        main=main_size(p),
        others=tuple(Other(v.name, _width(v.dims), v.per_sequence) for v in given if v != first),
        outputs=tuple((name, _width(p.dims(name))) for name in p.outputs),
        states=tuple((s.name, _width(p.dims(s.name))) for s in p.states),
        starts=tuple(_start(s.start) for s in p.states),
        params=tuple((v.name, v.dims) for v in values if v.role is Role.PARAM),
        consts=tuple((v.name, v.dims) for v in values if v.role is Role.CONST),
    )


def retold(layout: Layout, p: Program) -> Layout:
    """`layout`, running `p`: a rewritten form of what `layout.forward` says, which may read
    further inputs."""
    ports = [port for port in inputs(read(layout.forward)) if port.at is not At.START]
    first = ports[layout.reads.index("")].name
    return replace(
        layout,
        forward=canonical_text(p),
        backward=canonical_text(replace(p, dir=-p.dir)),
        reads=_reads(p, first),
        rows=_rows(p, first),
    )


def _reads(p: Program, first: str) -> tuple[str, ...]:
    names = (port.name for port in inputs(p) if port.at is not At.START)
    return tuple("" if name == first else name for name in names)


def _rows(p: Program, first: str) -> Rows:
    found = tokens(p, first)
    chosen = found.program
    return Rows(
        canonical_text(chosen),
        canonical_text(replace(chosen, dir=-p.dir)),
        _reads(chosen, found.token),
        found.table,
        numbers=not p.dims(first),
    )


def _width(dims: Dims) -> Dim:
    return dims[0] if dims else 1


def _start(start: Node | None) -> float | str:
    if start is None:
        return 0.0
    value = number(start)
    if value is not None:
        return value
    while start.op == "fill":
        start = start.args[0]
    assert start.op == "ref", f"a state starts from {start.op}"
    return str(start.attr[0])


def _starting(p: Program) -> set[str]:
    return {s for s in (_start(state.start) for state in p.states) if isinstance(s, str)}


def tails_of(layers: int, bidirectional: bool) -> list[list[str]]:
    """What stands behind the names of the parameters of each layer and direction, as in nn.LSTM."""
    return [[f"_l{k}", f"_l{k}_reverse"] if bidirectional else [f"_l{k}"] for k in range(layers)]


def starting(
    layout: Layout, weights: Sequence[Weights], widths: Sequence[int], batch: int, like: Tensor
) -> list[Tensor]:
    """The states as the cell declares them before the first step: each [L*D, batch, w].

    `weights`: of all layers and directions, one after the other.
    """
    found: list[Tensor] = []
    for start, width in zip(layout.starts, widths, strict=True):
        if isinstance(start, str):
            rows = [weight(start).reshape(1, -1).expand(batch, width) for weight in weights]
            found.append(torch.stack(rows))
        else:
            found.append(like.new_full((len(weights), batch, width), start))
    return found


def constant(
    layout: Layout,
    name: str,
    shape: tuple[int, ...],
    values: Mapping[str, Tensor | float],
    dtype: torch.dtype | None,
) -> Tensor:
    """The value of a constant that is not trained. Raises UserError where there is none."""
    if name not in values:
        raise UserError(
            f"the constant `{name}` of the cell `{layout.cell}` has no value",
            help=f"give it one of the shape {list(shape)}: consts={{'{name}': ...}}",
        )
    try:
        value = torch.as_tensor(values[name], dtype=dtype or torch.get_default_dtype()).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the constant `{name}` is no array of numbers: {error}") from None
    if value.dim() and tuple(value.shape) != shape:
        raise UserError(f"the constant `{name}` is {list(value.shape)}; it must be {list(shape)}")
    return value.expand(shape).clone()


class Ran(NamedTuple):
    """What layers gave: the output of the last, the last value of each state and, of each layer,
    the series that were asked for."""

    output: Tensor
    finals: list[Tensor]
    series: list[dict[str, Tensor]]


def ran(
    layout: Layout,
    x: Tensor,
    starts: Sequence[Tensor],
    weights: Sequence[Sequence[Weights]],
    batch_sizes: Tensor | None,
    dropout: float,
    others: Mapping[str, Sequence[Tensor]] = MappingProxyType({}),
    widths: Sequence[Sequence[int]] = (),
    keep: Keep = "all",
    table: Tensor | None = None,
    feeds: Sequence[Mapping[str, Tensor]] = (),
    series: Sequence[str] | None = None,
) -> Ran:
    """Run all layers, one on the other.

    `x` [T, B, X], or [N, X] where `batch_sizes` says that it is ragged; `starts` [L*D, B, w], one
    a state; `weights[layer][direction]`. `dropout` is what is dropped between layers. `others` are
    the further inputs by name, each with a tensor a layer, laid out as `x` or [B, w]. `widths`: of
    the states in each layer, where they are not those of `starts`. `keep`: see `run`.
    `table` [V, X]: the first layer reads rows of it, and `x`, [T, B, 1] or [N, 1], says which.
    `feeds`: further inputs of each layer and direction, one after the other. `series`: what the
    programs give behind their outputs, if series are asked for; that of two directions stands side
    by side, as the output.
    """
    if table is not None:
        others = {**others, layout.rows.table: [table[:, 0] if layout.rows.numbers else table]}
    finals: list[list[Tensor]] = [[] for _ in starts]
    given: list[dict[str, Tensor]] = []
    names = (*(name for name, _ in layout.outputs), *(series or ()))
    row = 0
    for k, directions in enumerate(weights):
        found: list[list[Tensor]] = []
        program = layout if table is None or k else layout.rows
        for weight, text in zip(directions, (program.forward, program.backward), strict=False):
            own = {name: each[k] for name, each in others.items() if k < len(each)}
            own = {"": x, **own, **(feeds[row] if feeds else {})}
            tensors, lie = weight.held([name for name in program.reads if name not in own])
            for name in (name for name in program.reads if name in own):
                lie[name] = Part(len(tensors))
                tensors.append(own[name][None])
            reads = [lie[name] for name in program.reads]
            reads += [Part(n) for n in range(len(tensors), len(tensors) + len(starts))]
            wide = widths[k] if widths else [start.shape[-1] for start in starts]
            tensors += [s[row : row + 1, :, :w] for s, w in zip(starts, wide, strict=True)]
            results = run(text, tensors, batch_sizes, keep, reads)
            found.append(results[: len(names)])
            last = results[len(names) :]
            for final, start, result in zip(finals, starts, last, strict=True):
                missing = start.shape[-1] - result.shape[-1]
                final.append(nn.functional.pad(result, (0, missing)) if missing else result)
            row += 1
        if series is not None:
            given.append({n: _beside(ys) for n, *ys in zip(names, *found, strict=True)})
        x = _beside([y for ys in found for y in ys[: len(layout.outputs)]])
        if dropout and k < len(weights) - 1:
            x = nn.functional.dropout(x, dropout)
    return Ran(x, [final[0] if row == 1 else torch.cat(final) for final in finals], given)


def _beside(found: Sequence[Tensor]) -> Tensor:
    """One series of those of each direction, without the axis of groups."""
    series = found[0] if len(found) == 1 else torch.cat(list(found), -1)
    return series.squeeze(0)  # not [0], whose gradient would be zeros that are written to
