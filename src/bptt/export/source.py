"""A layer, or a model of `bptt train`, as one C99 file: weights, `init` and `step`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from bptt import cells
from bptt.backends.once import WithoutTime
from bptt.backends.shapes import solve_sizes
from bptt.errors import UserError
from bptt.export.files import write
from bptt.ir.dims import size_of
from bptt.ir.ports import inputs
from bptt.ir.program import Kind, Program
from bptt.nn.engine import Engine
from bptt.nn.sweep import sweep_of
from bptt.nn.weights import Weights
from bptt.printers.c99 import Step, Target, for_each, number_text, print_helper, print_step
from bptt.tasks.model import CharModel

Array = np.ndarray[Any, np.dtype[np.float64]]

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9]{0,39}(_[A-Za-z0-9]+)*")
_ACROSS = 6  # numbers in a line
_DIGITS = {"float": 9, "double": 17}  # that give the same number back


def c99(
    model: nn.Module, path: str | Path, *, name: str = "bptt", symbols: str | None = None
) -> None:
    """Write a layer as one C99 file that needs no library but libm and allocates nothing.

    `model` is a `Recurrent`, `LSTM`, `GRU` or `RNN`, or a model of `bptt train`. The file has the
    weights as they are now, the type NAME_state, NAME_init(state) and NAME_step(state, x, y), for
    one sequence: x has `input_size` numbers, y the output's. A cell's further inputs stand between
    them, in its order. A model of `bptt train` reads the number of a character and gives a number
    for each, from which softmax makes what follows; with `symbols`, its characters in order, the
    file has their code points. Numbers are `double` where the parameters are float64, else
    `float`. Raises UserError for a layer that cannot run step by step, and where the file cannot
    be written, which is then as it was.
    """
    write(path, source(model, name, symbols).encode("ascii"))


def source(model: nn.Module, name: str = "bptt", symbols: str | None = None) -> str:
    """The text of that file. Raises UserError."""
    if not _PREFIX.fullmatch(name):
        help = "take letters, digits and single underscores, as in `voice_1`"
        raise UserError(f"{name[:40]!r} cannot begin the names of a C file", help=help)
    if isinstance(model, CharModel):
        layer = model.recurrent
        if isinstance(layer, Engine):
            reader = _array(model.embedding.weight)
            head = (_array(model.head.weight), _array(model.head.bias))
            return _File(layer, name, reader, head, symbols).text()
        raise UserError("these layers are not of bptt", help="export a model that bptt made")
    if not isinstance(model, Engine):
        help = "give a bptt.nn layer, or the model that `bptt train` made"
        raise UserError(f"{type(model).__name__} is no layer of bptt", help=help)
    return _File(model, name).text()


class _Function(NamedTuple):
    """The step of one layer, the arrays it reads by their names in C, and its states."""

    step: Step
    arrays: dict[str, Array]
    states: list[tuple[str, Array]]  # with their values before the first step
    width: int  # of its output


class _File:
    """A C file in the making."""

    def __init__(
        self,
        layer: Engine,
        name: str,
        embedding: Array | None = None,
        head: tuple[Array, Array] | None = None,
        symbols: str | None = None,
    ) -> None:
        module = cast(nn.Module, layer)
        parts = layer.parts()
        if parts.directions > 1:
            raise UserError(
                "a layer of two directions cannot run step by step",
                help="export it to ONNX, or take one direction",
            )
        first = next(chain(module.parameters(), module.buffers()), torch.empty(0))
        if first.device.type == "meta":
            raise UserError("a layer on the meta device has no weights", help="load them first")
        self.name, self.real = name, "double" if first.dtype is torch.float64 else "float"
        self.layer, self.layout = layer, parts.layout
        self.embedding, self.head, self.symbols = embedding, head, symbols
        self.others: list[int] = []  # the widths of further inputs
        starts = [_array(s) for s in layer.initial_states(1)]
        self.functions: list[_Function] = []
        self.wide = wide = layer.input_size
        for k, (weight, widths) in enumerate(zip(parts.weights, parts.widths, strict=True)):
            begin = [s[k, 0, :w] for s, w in zip(starts, widths, strict=True)]
            self.functions.append(self.function(k, wide, weight, begin))
            wide = self.functions[-1].width
        self.output = wide if head is None else len(head[1])

    # --- a layer ---

    def function(self, k: int, wide: int, weight: Weights, begin: list[Array]) -> _Function:
        p, reads = sweep_of(self.layout.forward).program, self.layout.reads
        others = {other.name: f"x{m}" for m, other in enumerate(self.layout.others, 1)}
        found = {name: _array(weight(name)) for name in reads if name and name not in others}
        ports = inputs(p)
        shapes = [(1, 1, 1, wide) if not n else _shape(found.get(n)) for n in reads]
        shapes += [(1, 1, len(s)) for s in begin]
        told = [(q, s) for q, s in zip(ports, shapes, strict=True) if s]
        sizes = solve_sizes(p, tuple(q for q, _ in told), tuple(s for _, s in told))
        widths = [size_of(other.width, sizes) for other in self.layout.others]
        if k and widths != self.others:
            what = "the layers take further inputs of different widths"
            raise UserError(what, help="export each of them as a layer of its own")
        self.others = widths
        arrays = {f"{self.name}_l{k}_{m}": a for m, a in enumerate(_known(p, found, sizes).items())}
        known = {(n, 0): c for c, (n, _) in arrays.items()}
        for port, read in zip(ports, reads, strict=False):
            if not read or read in others:
                known[port.name, 0] = others.get(read, "x")
        states = [f"l{k}_{m}" for m in range(len(p.states))]
        known |= {(s.name, 1): f"s->{c}" for s, c in zip(p.states, states, strict=True)}
        targets: list[Target] = []
        width = 0
        for name in p.outputs:
            targets.append(Target(name, "y", width))
            width += size_of((p.dims(name) or (1,))[0], sizes)
        targets += [Target(s.name, f"s->{c}") for s, c in zip(p.states, states, strict=True)]
        step = print_step(p, sizes, known, targets, real=self.real, prefix=self.name)
        read = {c: a[0] for c, (n, a) in arrays.items() if n in step.reads}
        return _Function(step, read, list(zip(states, begin, strict=True)), width)

    # --- the text ---

    def text(self) -> str:
        parts = [self.opening(), self.declarations(), "#ifndef " + self.guard("DECLARE")]
        parts += [f"/* layer {k} */\n" + self.layer_text(k) for k in range(len(self.functions))]
        parts += [self.ends(), self.initial(), self.stepping(), "#endif\n#endif\n"]
        helpers = sorted({op for f in self.functions for op in f.step.helpers})
        shown = ["\n".join(print_helper(op, self.real, self.name)) + "\n" for op in helpers]
        return "\n".join(filter(None, [*parts[:3], *shown, *parts[3:]]))

    def guard(self, what: str) -> str:
        return f"{self.name.upper()}_{what}"

    def opening(self) -> str:
        """What a reader must know."""
        name, cell = self.name, self.layer.cell
        ours = cell.name in cells.names() and cells.read(cell.name) == cell.text
        count = sum(len(a) for f in self.functions for _, a in f.states)
        held = max(f.step.held for f in self.functions) + sum(f.width for f in self.functions)
        weights = sum(a.size for f in self.functions for a in f.arrays.values())
        weights += sum(a.size for a in (self.embedding, *(self.head or ())) if a is not None)
        token = self.embedding is not None
        x = "the number of a symbol" if token else f"{self.wide} numbers"
        further = "".join(f", x{k}: {w} more" for k, w in enumerate(self.others, 1))
        lines = [
            f"Made by bptt: {len(self.functions)} layer{'s' * (len(self.functions) > 1)} of "
            + (f"the cell {cell.name}" if ours else "a cell of your own")
            + f", {weights} weights.",
            "",
            f"    {name}_state s;",
            f"    {name}_init(&s);      before the first step of a sequence",
            f"    {self.call()};",
            "",
            f"x: {x}{further}. y: {self.output} numbers.",
            f"A state holds {count} numbers, and a step about {held} on the stack.",
            *(["A symbol that is none gives -1 and changes nothing, else a step gives 0."] * token),
            f"Compile this file once. With {self.guard('DECLARE')} defined it only declares.",
        ]
        return "/*\n" + "".join(f" * {x}".rstrip() + "\n" for x in lines) + " */"

    def call(self) -> str:
        x = ["x", *(f"x{k}" for k in range(1, len(self.others) + 1))]
        return f"{self.name}_step(&s, {', '.join(x)}, y)"

    def declarations(self) -> str:
        name, real = self.name, self.real
        guard = self.guard("DECLARED")
        fields = [f"    {real} {c}[{len(a)}];" for f in self.functions for c, a in f.states]
        fields = fields or [f"    {real} unused;"]
        lines = [f"#ifndef {guard}", f"#define {guard}", "", "#include <math.h>", ""]
        lines += [f"enum {{ {name}_inputs = {self.inputs()}, {name}_outputs = {self.output} }};"]
        lines += ["", "typedef struct {", *fields, f"}} {name}_state;", ""]
        lines += [f"void {name}_init({name}_state *s);", f"{self.signature()};"]
        if self.symbols is not None:
            lines += [f"extern const long {name}_symbols[{len(self.symbols)}]; /* code points */"]
        return "\n".join([*lines, ""])

    def inputs(self) -> int:
        return self.wide if self.embedding is None else len(self.embedding)

    def signature(self) -> str:
        x = f"const {self.real} *x" if self.embedding is None else "int x"
        further = [f"const {self.real} *x{k}" for k in range(1, len(self.others) + 1)]
        given = ", ".join([f"{self.name}_state *s", x, *further, f"{self.real} *y"])
        return f"{'void' if self.embedding is None else 'int'} {self.name}_step({given})"

    def layer_text(self, k: int) -> str:
        f = self.functions[k]
        arrays = "".join(self.static(c, a) for c, a in f.arrays.items())
        further = "".join(f", const {self.real} *x{m}" for m in range(1, len(self.others) + 1))
        state = f"{self.name}_state *s"
        head = f"static void {self.name}_layer{k}({state}, const {self.real} *x{further}, "
        # a cell without memory reads no state
        lines = [*([] if f.states else ["(void)s;"]), *f.step.lines]
        return f"{arrays}\n{head}{self.real} *y) {{\n{_indented(lines)}}}\n"

    def static(self, name: str, a: Array, kind: str = "") -> str:
        """A constant array."""
        if np.isnan(a).any():
            raise UserError("a weight is not a number", help="train the layer again")
        shape = " x ".join(map(str, a.shape)) or "1"
        values = _texts(a, self.real)
        rows = [", ".join(values[k : k + _ACROSS]) for k in range(0, len(values), _ACROSS)]
        head = f"static const {kind or self.real} {name}[{a.size}] = {{ /* {shape} */\n"
        return head + ",\n".join(f"    {row}" for row in rows) + "\n};\n"

    def ends(self) -> str:
        """The embedding, the readout and the symbols of a language model."""
        name, found = self.name, ""
        if self.embedding is not None:
            found += self.static(f"{name}_embedding", self.embedding)
        if self.head is not None:
            found += self.static(f"{name}_readout", self.head[0])
            found += self.static(f"{name}_bias", self.head[1])
        if self.symbols is not None:
            points = [str(ord(c)) for c in self.symbols]
            rows = [", ".join(points[k : k + 12]) for k in range(0, len(points), 12)]
            found += f"const long {name}_symbols[{len(points)}] = {{\n"
            found += ",\n".join(f"    {row}" for row in rows) + "\n};\n"
        return found

    def initial(self) -> str:
        tables: list[str] = []
        lines: list[str] = []
        for c, a in (state for f in self.functions for state in f.states):
            if (a == a[0]).all():
                value = number_text(float(a[0]), self.real)
            else:
                tables.append(self.static(f"{self.name}_start_{c}", a))
                value = f"{self.name}_start_{c}[i]"
            lines += for_each(len(a), [f"s->{c}[i] = {value};"])
        head = f"void {self.name}_init({self.name}_state *s) {{"
        return "".join(tables) + f"{head}\n{_indented(lines or ['s->unused = 0;'])}}}\n"

    def stepping(self) -> str:
        name, real = self.name, self.real
        lines: list[str] = []
        x = "x"
        if self.embedding is not None:
            count, width = self.embedding.shape
            lines += [f"if (x < 0 || x >= {count})", "    return -1;"]
            x = f"&{name}_embedding[{width} * x]"
        further = "".join(f", x{k}" for k in range(1, len(self.others) + 1))
        for k, f in enumerate(self.functions):
            last = k == len(self.functions) - 1 and self.head is None
            if not last:
                lines.append(f"{real} y{k}[{f.width}];")
            lines.append(f"{name}_layer{k}(s, {x}{further}, {'y' if last else f'y{k}'});")
            x = f"y{k}"
        if self.head is not None:
            rows, columns = self.head[0].shape
            term = f"{name}_readout[{columns} * i + j] * {x}[j]"
            body = [f"{real} a = {name}_bias[i];", f"for (int j = 0; j < {columns}; j++)"]
            lines += for_each(rows, [*body, f"    a += {term};", "y[i] = a;"])
        lines += ["return 0;"] * (self.embedding is not None)
        return f"{self.signature()} {{\n{_indented(lines)}}}\n"


def _known(p: Program, found: Mapping[str, Array], sizes: Mapping[str, int]) -> dict[str, Array]:
    """The constants that a step may read, [1, *dims]: those given, and what follows from them."""
    onces = tuple(e for e in p.equations if e.kind is Kind.ONCE)
    like = np.zeros(1)
    return {**found, **WithoutTime(onces, p)(found, sizes, like)}


def _array(a: Tensor) -> Array:
    return a.detach().double().cpu().numpy()


def _shape(a: Array | None) -> tuple[int, ...]:
    return () if a is None else a.shape


def _indented(lines: Iterable[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


def _texts(a: Array, real: str) -> list[str]:
    """Numbers in as many digits as give them back."""
    digits, ending = _DIGITS[real], "f" if real == "float" else ""
    shown = [f"{v:.{digits}g}" for v in a.ravel().tolist()]
    special = {"inf": "INFINITY", "-inf": "-INFINITY"}
    return [special.get(s) or (s if "." in s or "e" in s else f"{s}.0") + ending for s in shown]
