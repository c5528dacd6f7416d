"""A sequence in windows as one operation, and its gradient as another: what a compiled graph holds,
so that it need not know how many windows there are.

The first gives, behind the outputs of the sweep, its states before each window. The other runs each
window again from these, and back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bptt.ir.ports import At, Port
from bptt.nn.kernel import fed, floating, in_order, kernel, shared
from bptt.nn.shapes import output_shapes
from bptt.nn.sweep import Sweep, sweep_of
from bptt.nn.windows import in_windows, windows_of


def windowed(sweep: Sweep, tensors: Sequence[Tensor], batch_sizes: Tensor | None) -> list[Tensor]:
    """What `in_windows` gives, with a gradient that has none itself."""
    found = cast(tuple[Tensor, ...], _Windowed.apply(sweep, batch_sizes, *tensors))
    return list(found[: len(sweep.outputs)])


class _Windowed(torch.autograd.Function):
    @staticmethod
    def forward(sweep: Sweep, batch_sizes: Tensor | None, *xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(_forward_op(sweep.text, list(xs), batch_sizes))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        sweep, batch_sizes, *xs = inputs
        begun = output[len(sweep.outputs) :]
        ctx.sweep = sweep
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*begun)
        ctx.save_for_backward(*xs, *begun, batch_sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        sweep: Sweep = ctx.sweep
        *saved, batch_sizes = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[2:])
        seeds = grads[: len(sweep.outputs)]
        given = [g is not None for g in seeds]
        some = [g for g in seeds if g is not None]
        found = iter(_backward_op(sweep.text, given, wanted, saved, some, batch_sizes))
        return None, None, *(next(found) if want else None for want in wanted)


# --- forward --------------------------------------------------------------------------------------


def _forward(program: str, xs: list[Tensor], batch_sizes: Tensor | None) -> list[Tensor]:
    sweep = sweep_of(program)
    begun: list[list[Tensor]] = []

    def one(part: list[Tensor], sizes: Tensor | None) -> list[Tensor]:
        begun.append(_starts(sweep, part))
        return kernel(sweep, part, sizes)

    found = in_windows(sweep, xs, batch_sizes, one)
    for k, shape in enumerate(_begun_shapes(sweep, xs, batch_sizes)):
        found.append(floating(xs).new_zeros(shape))
        for into, states in zip(found[-1], begun[:: sweep.program.dir], strict=False):
            into[:, : states[k].shape[1]] = states[k]
    return in_order(found)


def _forward_shapes(program: str, xs: list[Tensor], batch_sizes: Tensor | None) -> list[Tensor]:
    sweep = sweep_of(program)
    shapes = output_shapes(sweep.program, [x.shape for x in xs], batch_sizes is not None)
    shapes += _begun_shapes(sweep, xs, batch_sizes)
    return [floating(xs).new_empty(shape) for shape in shapes]


def _starts(sweep: Sweep, xs: Sequence[Tensor]) -> list[Tensor]:
    return [x for port, x in zip(sweep.inputs, xs, strict=True) if port.at is At.START]


def _begun_shapes(
    sweep: Sweep, xs: Sequence[Tensor], batch_sizes: Tensor | None
) -> list[tuple[int, ...]]:
    """Of the states before each window, a row a window: there are no more than sqrt(T), rounded
    up. T may be a symbol."""
    each = zip(sweep.inputs, xs, strict=True)
    steps = next(x.shape[1] for port, x in each if port.at is At.STEPS)
    if batch_sizes is not None:
        steps = batch_sizes.shape[0]
    rows = math.ceil(torch.sym_sqrt(steps))
    return [(rows, *start.shape) for start in _starts(sweep, xs)]


# --- backward -------------------------------------------------------------------------------------


def _backward(
    program: str,
    given: list[bool],
    wanted: list[bool],
    saved: list[Tensor],
    grads: list[Tensor],
    batch_sizes: Tensor | None,
) -> list[Tensor]:
    """The adjoints of the inputs that are `wanted`. `saved`: the inputs and what `_forward` gave
    of each window; `grads`: the adjoints that are `given`."""
    sweep = sweep_of(program)
    whole = sweep if sweep.complete else sweep.extended
    xs, begun = saved[: len(sweep.inputs)], saved[len(sweep.inputs) :]
    windows = windows_of(sweep, xs, batch_sizes)
    rows = [window.rows for window in windows]
    series = {
        p: x.split(rows, 1) for p, x in zip(sweep.inputs, xs, strict=True) if p.at is At.STEPS
    }
    some = iter(grads)
    seeds = {p: next(some) for p, is_given in zip(sweep.outputs, given, strict=True) if is_given}
    seeded = {p: g.split(rows, 1) for p, g in seeds.items() if p.at is At.STEPS}
    states = [port for port in sweep.inputs if port.at is At.START]
    carry: dict[Port, Tensor] = {}
    for port, start in zip(states, _starts(sweep, xs), strict=True):
        last = seeds.get(Port(port.name, At.FINAL))
        carry[port] = torch.zeros_like(start) if last is None else last.clone()
    wiring = whole.pull(
        tuple([p in seeded or (p.at is At.FINAL and p in sweep.outputs) for p in whole.outputs]),
        tuple([w or p.at is At.START for p, w in zip(sweep.inputs, wanted, strict=True)]),
    )
    made = {port: [torch.empty(0)] * len(windows) for port in series}
    others = [p for p in sweep.inputs if p not in series and p not in carry]
    sums = {p: torch.zeros_like(x) for p, x in zip(sweep.inputs, xs, strict=True) if p in others}
    for k in range(len(windows))[:: -sweep.program.dir]:
        window = windows[k]
        n = slice(window.batch)  # the sequences that have a step here
        before = dict(zip(states, (b[k] for b in begun), strict=True))
        part = [
            series[p][k] if p in series else x if p.at is At.CONST else before.get(p, x)[:, n]
            for p, x in zip(sweep.inputs, xs, strict=True)
        ]
        found: list[Tensor] = []
        if wiring.sweep is not None:
            by = [seeded[p][k] if p in seeded else _of(carry, p, n) for p in whole.outputs]
            ran = kernel(whole, part, window.batch_sizes)
            found = kernel(wiring.sweep, fed(wiring, [*part, *ran], by), window.batch_sizes)
        for port, x, result in zip(sweep.inputs, part, wiring.results, strict=True):
            grad = torch.zeros_like(x) if result is None else found[result]
            if port in made:
                made[port][k] = grad
            elif port in carry:
                carry[port][:, n] = grad
            elif port.at is At.CONST:
                sums[port] += shared(grad, x)
            else:
                sums[port][:, n] += grad
    each = {**{p: torch.cat(gs, 1) for p, gs in made.items()}, **carry, **sums}
    return in_order([each[p] for p, want in zip(sweep.inputs, wanted, strict=True) if want])


def _of(carry: dict[Port, Tensor], port: Port, n: slice) -> Tensor | None:
    """The adjoint of a last state; None for what is no state's."""
    start = carry.get(Port(port.name, At.START)) if port.at is At.FINAL else None
    return None if start is None else start[:, n].clone()


def _backward_shapes(
    program: str,
    given: list[bool],
    wanted: list[bool],
    saved: list[Tensor],
    grads: list[Tensor],
    batch_sizes: Tensor | None,
) -> list[Tensor]:
    return [x.new_empty(x.shape) for x, want in zip(saved, wanted, strict=False) if want]


_forward_op = torch.library.custom_op(
    "bptt::windows",
    _forward,
    mutates_args=(),
    schema="(str program, Tensor[] xs, Tensor? batch_sizes) -> Tensor[]",
)
_forward_op.register_fake(_forward_shapes)
_backward_op = torch.library.custom_op(
    "bptt::windows_back",
    _backward,
    mutates_args=(),
    schema="(str program, bool[] given, bool[] wanted, Tensor[] saved, Tensor[] grads, "
    "Tensor? batch_sizes) -> Tensor[]",
)
_backward_op.register_fake(_backward_shapes)
