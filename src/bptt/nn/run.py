"""`run(program, tensors)`: the one entry through which torch sees a Program.

An opaque op below (the kernel and its shape rule), one `autograd.Function` above it (backward,
forward mode and vmap, in torch ops and this entry itself), `allow_in_graph` around that for
`torch.compile`, and a plain lane that calls the kernel at once. Because the derivative of a sweep
is a sweep, the formulas below come back to `run`, and every order of every transform with them.

The op must not be called but from here: under forward mode it would silently lose the tangent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch._guards import detect_fake_mode

from bptt.errors import UserError
from bptt.ir.ports import At
from bptt.ir.program import Program
from bptt.nn.kernel import Maybe, Tensors, fed, floating, in_order, kernel, shared
from bptt.nn.lanes import (
    derived,
    derived_again,
    forward_mode,
    legacy_batched,
    level,
    plain,
    transforming,
)
from bptt.nn.operators import operated
from bptt.nn.scanned import scanned
from bptt.nn.shapes import output_shapes
from bptt.nn.stacks import Part, Stacks, apart, joined, parted, picked, pulled
from bptt.nn.sweep import Keep, Sweep, checked_keep, sweep_of
from bptt.nn.windowed import windowed
from bptt.nn.windows import in_windows


def run(
    program: Program | str,
    tensors: Tensors,
    batch_sizes: Tensor | None = None,
    keep: Keep = "all",
    reads: Sequence[Part] | None = None,
) -> list[Tensor]:
    """Run one sweep over time; differentiable to any order by every input that is trained or given.

    `tensors` stand in the order of `ports.inputs(program)`, the result in that of
    `ports.outputs(program)`, each of the shape that `bptt.nn.shapes` states: series
    [G, T, B, w], constants [G or 1, *dims], all else [G, B, w]. With `batch_sizes` (int64, on the
    CPU, decreasing, as in a `PackedSequence`) series are [G, N, w]. Inside `torch.compile` the
    program must be given as its canonical text. `keep`, what is kept for the backward pass:
    "all", "states" or "sqrt", as `bptt.nn.sweep.Keep` says. Derivatives of the backward pass find
    all that it computed. With `reads` an input need be no tensor of its own: it says of each, in
    their order, where it lies among the `tensors`. Raises UserError where shapes do not fit.
    """
    keep = checked_keep(keep)
    if torch.compiler.is_compiling():
        tensors = tensors if reads is None else parted(reads, tensors)
        return list(_in_graph(program, keep, batch_sizes, *tensors))
    sweep = sweep_of(program)
    stacks = apart(sweep, None if reads is None else tuple(reads))
    if len(tensors) != stacks.count:
        raise UserError(f"a run reads {stacks.count} tensors, and was given {len(tensors)}")
    return in_order(_run(sweep, stacks, tensors, batch_sizes, keep))


def _run(
    sweep: Sweep,
    stacks: Stacks,
    tensors: Tensors,
    batch_sizes: Tensor | None,
    keep: Keep | None = "all",
) -> list[Tensor]:
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        # the op itself, as in an exported graph: the trace sees nothing of what runs below it
        return _by_op(sweep, stacks, tensors, batch_sizes)
    if not plain(tensors):
        return _full(sweep, stacks, tensors, batch_sizes, keep)
    if forward_mode() or (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        return _keeping(keep, _PlainRun, sweep, stacks, tensors, batch_sizes)
    return kernel(sweep, parted(stacks.reads, tensors), batch_sizes, stacks.gives)


def _keeping(
    keep: Keep | None,
    function: type[torch.autograd.Function],
    sweep: Sweep,
    stacks: Stacks,
    tensors: Tensors,
    batch_sizes: Tensor | None,
) -> list[Tensor]:
    """Run `sweep` by one of the functions below, so that what `keep` says is there later."""
    if keep == "sqrt":
        parts = parted(stacks.reads, tensors)
        return in_windows(
            sweep, parts, batch_sizes, lambda xs, sizes: _run(sweep, apart(sweep), xs, sizes, None)
        )
    longer, places = sweep.keeping(keep)
    wide = stacks.longer(places, len(longer.outputs))
    found = cast(tuple[Tensor, ...], function.apply(longer, wide, batch_sizes, *tensors))
    return list(found[: len(stacks.gives)])


def _full(
    sweep: Sweep,
    stacks: Stacks,
    tensors: Tensors,
    batch_sizes: Tensor | None,
    keep: Keep | None,
) -> list[Tensor]:
    """The lane that every mode, transform and subclass of tensors understands."""
    keep = keep if derived(tensors) else None
    if keep == "sqrt" and detect_fake_mode() is not None and not transforming():
        return windowed(sweep, parted(stacks.reads, tensors), batch_sizes)
    # samples of a vmap run as one batch, and what is kept of them stays as it lies
    return in_order(_keeping(keep, _Run, sweep, stacks, tensors, batch_sizes))


# --- the op: kernel and shape rule --------------------------------------------------------------


def _op(program: str, xs: list[Tensor], batch_sizes: Tensor | None) -> list[Tensor]:
    return in_order(kernel(sweep_of(program), xs, batch_sizes))


def _shapes(program: str, xs: list[Tensor], batch_sizes: Tensor | None) -> list[Tensor]:
    found = output_shapes(sweep_of(program).program, [x.shape for x in xs], batch_sizes is not None)
    like = floating(xs)
    other = next((x for x in xs if x.device != like.device), None)
    if other is not None:
        both = f"{like.device} and {other.device}"
        raise UserError(f"a sweep runs on one device, and was given tensors on {both}")
    return [like.new_empty(shape) for shape in found]


# bptt::run(str program, Tensor[] xs, Tensor? batch_sizes) -> Tensor[]
_run_op = torch.library.custom_op(
    "bptt::run",
    _op,
    mutates_args=(),
    schema="(str program, Tensor[] xs, Tensor? batch_sizes) -> Tensor[]",
)
_run_op.register_fake(_shapes)


def _op_setup(
    ctx: Any, inputs: tuple[str, list[Tensor], Tensor | None], output: list[Tensor]
) -> None:
    ctx.sweep = sweep_of(inputs[0])
    ctx.stacks = apart(ctx.sweep)
    ctx.save_for_backward(*_saved(ctx.sweep, inputs[1], output), inputs[2])


def _op_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the bare op, which stands in exported graphs."""
    *saved, batch_sizes = ctx.saved_tensors
    wanted = ctx.needs_input_grad[1]
    return None, _pull(ctx.sweep, ctx.stacks, saved, batch_sizes, grads, wanted), None


_run_op.register_autograd(_op_backward, setup_context=_op_setup)


@cache
def _fixed_op(reads: int, gives: int) -> Callable[..., Any]:
    """The op with as many arguments and results as a program has.

    torch's older vmap (`is_grads_batched`, gradcheck's `check_batched_grad`) cannot take Tensor[].
    """
    names = "".join(f", Tensor x{k}" for k in range(reads))

    def kernel(program: str, batch_sizes: Tensor | None, *xs: Tensor) -> Any:
        found = _op(program, list(xs), batch_sizes)
        return found[0] if gives == 1 else tuple(found)

    results = "Tensor" if gives == 1 else f"({', '.join(['Tensor'] * gives)})"
    return torch.library.custom_op(
        f"bptt::run_{reads}_{gives}",
        kernel,
        mutates_args=(),
        schema=f"(str program, Tensor? batch_sizes{names}) -> {results}",
    )


def _by_op(
    sweep: Sweep, stacks: Stacks, tensors: Tensors, batch_sizes: Tensor | None
) -> list[Tensor]:
    xs = parted(stacks.reads, tensors)
    if any(legacy_batched(x) for x in xs):
        found = _fixed_op(len(xs), len(sweep.outputs))(sweep.text, batch_sizes, *xs)
        found = [found] if isinstance(found, Tensor) else found
    else:
        found = torch.ops.bptt.run.default(sweep.text, xs, batch_sizes)
    return joined(stacks.gives, found)


# --- the function above it ----------------------------------------------------------------------


class _Run(torch.autograd.Function):
    """A sweep, as a rule an `extended` one, in every lane but the plain."""

    @staticmethod
    def forward(
        sweep: Sweep, stacks: Stacks, batch_sizes: Tensor | None, *xs: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(_by_op(sweep, stacks, xs, batch_sizes))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        # only inputs and outputs are kept: a tensor computed in between would be a constant to
        # the second derivative, silently
        sweep, stacks, batch_sizes, *xs = inputs
        ctx.sweep, ctx.stacks, ctx.level = sweep, stacks, level()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*_saved(sweep, xs, output), batch_sizes)
        ctx.save_for_forward(*xs, *output, batch_sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        *saved, batch_sizes = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        found = _pull(ctx.sweep, ctx.stacks, saved, batch_sizes, grads, wanted, ctx.level)
        return None, None, None, *found

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        *saved, batch_sizes = ctx.saved_tensors
        sweep, stacks = cast(Sweep, ctx.sweep), cast(Stacks, ctx.stacks)
        outputs = saved[len(tangents) - 3 :]
        if not sweep.complete:
            sweep, stacks, saved = _completed(sweep, stacks, saved, batch_sizes)
        known, fits = parted(stacks.places, saved), picked(stacks.reads, tangents[3:])
        wiring = sweep.push(tuple(t is not None for t in fits))
        assert wiring.sweep is not None
        found = _run(wiring.sweep, apart(wiring.sweep), fed(wiring, known, fits), batch_sizes)
        pieces = [  # torch takes no None here
            torch.zeros_like(y) if k is None else found[k]
            for k, y in zip(wiring.results, known[len(sweep.inputs) :], strict=True)
        ]
        return tuple(joined(stacks.gives, pieces)[: len(outputs)])

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any,
        in_dims: tuple[Any, ...],
        sweep: Sweep,
        stacks: Stacks,
        batch_sizes: Tensor | None,
        *xs: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        if batch_sizes is not None and in_dims[2] is not None:
            batch_sizes = _alike(batch_sizes.movedim(in_dims[2], 0))
        size, dims = info.batch_size, in_dims[3:]
        moved = [x if d is None else x.movedim(d, 0) for x, d in zip(xs, dims, strict=True)]
        groups = max(x.shape[0 if d is None else 1] for x, d in zip(moved, dims, strict=True))
        ports = zip(sweep.inputs, stacks.reads, strict=True)
        constants = {k for port, r in ports if port.at is At.CONST for k in (r.k, r.other)}
        folded: list[Tensor] = []
        for k, (x, d) in enumerate(zip(moved, dims, strict=True)):
            if d is None:
                if k in constants and x.shape[0] == 1:
                    folded.append(x)  # shared: the kernel reads it for every group
                    continue
                x = x.expand(size, *x.shape)
            if x.shape[1] != groups:
                x = x.expand(size, groups, *x.shape[2:])
            folded.append(x.reshape(size * groups, *x.shape[2:]))
        # what is kept is settled: it is `sweep`
        found = _run(sweep, stacks, folded, batch_sizes, None)
        return tuple(y.reshape(size, groups, *y.shape[1:]) for y in found), (0,) * len(found)


def _alike(batch_sizes: Tensor) -> Tensor:
    """Those of every sample, of which there is a row: sequences packed within vmap have them."""
    first = batch_sizes[0]
    if not bool((batch_sizes == first).all()):
        raise UserError("the lengths of a ragged batch cannot differ along a vmapped axis")
    return first


class _PlainRun(_Run):
    """The same in the classic signature, which costs a third of the other to enter."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, sweep: Sweep, stacks: Stacks, batch_sizes: Tensor | None, *xs: Tensor
    ) -> tuple[Tensor, ...]:
        found = tuple(kernel(sweep, parted(stacks.reads, xs), batch_sizes, stacks.gives))
        _Run.setup_context(ctx, (sweep, stacks, batch_sizes, *xs), found)
        return found

    setup_context = torch.autograd.Function.setup_context


@torch.compiler.allow_in_graph  # Dynamo refuses a Function with a jvp; AOTAutograd can trace it
def _in_graph(
    program: Program | str, keep: Keep, batch_sizes: Tensor | None, *tensors: Tensor
) -> tuple[Tensor, ...]:
    sweep = sweep_of(program)
    if torch.onnx.is_in_onnx_export():
        return tuple(_for_onnx(sweep, tensors, batch_sizes))
    return tuple(_full(sweep, apart(sweep), tensors, batch_sizes, keep))


def _for_onnx(sweep: Sweep, tensors: Tensors, batch_sizes: Tensor | None) -> list[Tensor]:
    """A sweep in what ONNX has: an operator of its own, or a scan."""
    if batch_sizes is not None:
        raise UserError("a graph for ONNX holds no ragged batch", help="pad the sequences")
    tensors = [x.detach() for x in tensors]  # a graph for inference
    found = operated(sweep, tensors)
    return scanned(sweep, tensors) if found is None else found


# --- the formulas -------------------------------------------------------------------------------


def _saved(sweep: Sweep, xs: Tensors, outputs: Tensors) -> Tensors:
    """What the backward pass reads. Of a sweep that must run again for it, that is the inputs."""
    return (*xs, *outputs) if sweep.complete else xs


def _pull(
    sweep: Sweep,
    stacks: Stacks,
    saved: Tensors,
    batch_sizes: Tensor | None,
    grads: Maybe,
    wanted: Sequence[bool],
    level: int | None = None,
) -> list[Tensor | None]:
    """The adjoints of the inputs of a run. None, in and out, is zero. `level`: see `lanes`."""
    if not sweep.complete:
        sweep, stacks, saved = _completed(sweep, stacks, saved, batch_sizes)
        grads = [*grads, *[None] * (len(stacks.gives) - len(grads))]
    back = pulled(sweep, stacks, tuple([g is not None for g in grads]), tuple(wanted))
    if back is None:
        return [None] * len(wanted)
    tensors = back.fed(saved, grads)
    keep = "all" if derived_again(tensors, level) else None
    found = _run(back.sweep, back.stacks, tensors, batch_sizes, keep)
    adjoints = [back.result(k, found) for k in range(len(wanted))]
    return [
        None if grad is None else shared(grad, x) for grad, x in zip(adjoints, saved, strict=False)
    ]


def _completed(
    sweep: Sweep, stacks: Stacks, saved: Tensors, batch_sizes: Tensor | None
) -> tuple[Sweep, Stacks, list[Tensor]]:
    """A run that kept no intermediate values, as one that did: it runs again."""
    given = saved[: stacks.count]
    longer, places = sweep.keeping("all")
    stacks = stacks.longer(places, len(longer.outputs))
    return longer, stacks, [*given, *_run(longer, stacks, given, batch_sizes)]
