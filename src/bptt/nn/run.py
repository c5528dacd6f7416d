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
from torch.autograd import forward_ad

from bptt.errors import UserError
from bptt.ir.ports import At
from bptt.ir.program import Program
from bptt.nn.kernel import Maybe, Tensors, fed, floating, in_order, kernel, shared
from bptt.nn.operators import operated
from bptt.nn.scanned import scanned
from bptt.nn.shapes import output_shapes
from bptt.nn.sweep import Keep, Sweep, checked_keep, sweep_of
from bptt.nn.windowed import windowed
from bptt.nn.windows import in_windows


def run(
    program: Program | str,
    tensors: Tensors,
    batch_sizes: Tensor | None = None,
    keep: Keep = "all",
) -> list[Tensor]:
    """Run one sweep over time; differentiable to any order by every input that is trained or given.

    `tensors` stand in the order of `ports.inputs(program)`, the result in that of
    `ports.outputs(program)`, each of the shape that `bptt.nn.shapes` states: series
    [G, T, B, w], constants [G or 1, *dims], all else [G, B, w]. With `batch_sizes` (int64, on the
    CPU, decreasing, as in a `PackedSequence`) series are [G, N, w]. Inside `torch.compile` the
    program must be given as its canonical text. `keep`, what is kept for the backward pass:
    "all", "states" or "sqrt", as `bptt.nn.sweep.Keep` says. Derivatives of the backward pass find
    all that it computed. Raises UserError where shapes do not fit.
    """
    keep = checked_keep(keep)
    if torch.compiler.is_compiling():
        return list(_in_graph(program, keep, batch_sizes, *tensors))
    return in_order(_run(sweep_of(program), tensors, batch_sizes, keep))


def _run(
    sweep: Sweep, tensors: Tensors, batch_sizes: Tensor | None, keep: Keep | None = "all"
) -> list[Tensor]:
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        # the op itself, as in an exported graph: the trace sees nothing of what runs below it
        return list(torch.ops.bptt.run.default(sweep.text, list(tensors), batch_sizes))
    if not plain(tensors):
        return _full(sweep, tensors, batch_sizes, keep)
    level: int = getattr(forward_ad, "_current_level", 0)
    if level >= 0 or (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        return _keeping(keep, _PlainRun, sweep, tensors, batch_sizes)
    return kernel(sweep, tensors, batch_sizes)


def _keeping(
    keep: Keep | None,
    function: type[torch.autograd.Function],
    sweep: Sweep,
    tensors: Tensors,
    batch_sizes: Tensor | None,
) -> list[Tensor]:
    """Run `sweep` by one of the functions below, so that what `keep` says is there later."""
    if keep == "sqrt":
        return in_windows(
            sweep, tensors, batch_sizes, lambda part, sizes: _run(sweep, part, sizes, None)
        )
    longer, places = sweep.keeping(keep)
    found = cast(tuple[Tensor, ...], function.apply(longer, batch_sizes, *tensors))
    return [found[k] for k in places]


# --- lanes --------------------------------------------------------------------------------------

_keys: Callable[[Tensor], Any] | None = getattr(torch._C, "_dispatch_keys", None)
_transforms: Callable[[], bool] | None = getattr(torch._C, "_are_functorch_transforms_active", None)
_modes: Callable[[], int] | None = getattr(torch._C, "_len_torch_dispatch_stack", None)


def _plain_keys() -> frozenset[int]:
    if _keys is None or _transforms is None or _modes is None:
        return frozenset()  # another torch: every call goes through the full lane
    with torch.inference_mode(False):
        usual = torch.empty(0)
    with torch.inference_mode():
        return frozenset((_keys(usual).raw_repr(), _keys(torch.empty(0)).raw_repr()))


_PLAIN = _plain_keys()


def plain(tensors: Tensors) -> bool:
    """Whether only the kernel can be meant: ordinary CPU tensors, no mode, no transform."""
    if not _PLAIN or _transforms is None or _modes is None or _keys is None:
        return False
    plain = _PLAIN
    keys = _keys
    return all(keys(x).raw_repr() in plain for x in tensors) and not _transforms() and not _modes()


def transformed() -> bool:
    """Whether a transform or a mode of torch is at work, as far as this torch tells."""
    return _transforms is None or _modes is None or _transforms() or _modes() > 0


def _full(
    sweep: Sweep, tensors: Tensors, batch_sizes: Tensor | None, keep: Keep | None
) -> list[Tensor]:
    """The lane that every mode, transform and subclass of tensors understands."""
    keep = keep if _derived_from(tensors) else None
    if keep == "sqrt" and detect_fake_mode() is not None and not _transforming():
        return windowed(sweep, tensors, batch_sizes)
    # samples of a vmap run as one batch, and what is kept of them stays as it lies
    return in_order(_keeping(keep, _Run, sweep, tensors, batch_sizes))


def _transforming() -> bool:
    """Whether derivatives other than by one backward pass may be meant."""
    return _transforms is None or _transforms() or getattr(forward_ad, "_current_level", 0) >= 0


def _derived_from(tensors: Tensors) -> bool:
    """Whether to keep anything: what derives this call will find it then."""
    if _transforming():
        return True
    if torch.compiler.is_exporting():
        return False  # a saved graph is mostly for inference; `_completed` serves the rest
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


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
    ctx.save_for_backward(*_saved(ctx.sweep, inputs[1], output), inputs[2])


def _op_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the bare op, which stands in exported graphs."""
    *saved, batch_sizes = ctx.saved_tensors
    return None, _pull(ctx.sweep, saved, batch_sizes, grads, ctx.needs_input_grad[1]), None


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


def _legacy_batched(x: Tensor) -> bool:
    return _keys is not None and "Batched" in repr(_keys(x)).replace("FuncTorchBatched", "")


# --- the function above it ----------------------------------------------------------------------


class _Run(torch.autograd.Function):
    """A sweep, as a rule an `extended` one, in every lane but the plain."""

    @staticmethod
    def forward(sweep: Sweep, batch_sizes: Tensor | None, *xs: Tensor) -> tuple[Tensor, ...]:
        if any(_legacy_batched(x) for x in xs):
            found = _fixed_op(len(xs), len(sweep.outputs))(sweep.text, batch_sizes, *xs)
            return (found,) if isinstance(found, Tensor) else tuple(found)
        return tuple(torch.ops.bptt.run.default(sweep.text, list(xs), batch_sizes))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        # only inputs and outputs are kept: a tensor computed in between would be a constant to
        # the second derivative, silently
        sweep, batch_sizes, *xs = inputs
        ctx.sweep = sweep
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*_saved(sweep, xs, output), batch_sizes)
        ctx.save_for_forward(*xs, *output, batch_sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        *saved, batch_sizes = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        return None, None, *_pull(ctx.sweep, saved, batch_sizes, grads, wanted)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        *saved, batch_sizes = ctx.saved_tensors
        sweep, outputs = cast(Sweep, ctx.sweep), saved[len(tangents) - 2 :]
        places: Sequence[int] = range(len(outputs))
        if not sweep.complete:
            places = sweep.kept
            sweep, saved = _completed(sweep, saved, batch_sizes)
        wiring = sweep.push(tuple(t is not None for t in tangents[2:]))
        assert wiring.sweep is not None
        found = _run(wiring.sweep, fed(wiring, saved, tangents[2:]), batch_sizes)
        results = [wiring.results[k] for k in places]
        return tuple(  # torch takes no None here
            torch.zeros_like(y) if k is None else found[k]
            for k, y in zip(results, outputs, strict=True)
        )

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[Any, ...], sweep: Sweep, batch_sizes: Tensor | None, *xs: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        if batch_sizes is not None and in_dims[1] is not None:
            batch_sizes = _alike(batch_sizes.movedim(in_dims[1], 0))
        size, dims = info.batch_size, in_dims[2:]
        moved = [x if d is None else x.movedim(d, 0) for x, d in zip(xs, dims, strict=True)]
        groups = max(x.shape[0 if d is None else 1] for x, d in zip(moved, dims, strict=True))
        folded: list[Tensor] = []
        for port, x, d in zip(sweep.inputs, moved, dims, strict=True):
            if d is None:
                if port.at is At.CONST and x.shape[0] == 1:
                    folded.append(x)  # shared: the kernel reads it for every group
                    continue
                x = x.expand(size, *x.shape)
            if x.shape[1] != groups:
                x = x.expand(size, groups, *x.shape[2:])
            folded.append(x.reshape(size * groups, *x.shape[2:]))
        found = _run(sweep, folded, batch_sizes, None)  # what is kept is settled: it is `sweep`
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
        ctx: Any, sweep: Sweep, batch_sizes: Tensor | None, *xs: Tensor
    ) -> tuple[Tensor, ...]:
        found = tuple(kernel(sweep, xs, batch_sizes))
        _Run.setup_context(ctx, (sweep, batch_sizes, *xs), found)
        return found

    setup_context = torch.autograd.Function.setup_context


@torch.compiler.allow_in_graph  # Dynamo refuses a Function with a jvp; AOTAutograd can trace it
def _in_graph(
    program: Program | str, keep: Keep, batch_sizes: Tensor | None, *tensors: Tensor
) -> tuple[Tensor, ...]:
    sweep = sweep_of(program)
    if torch.onnx.is_in_onnx_export():
        return tuple(_for_onnx(sweep, tensors, batch_sizes))
    return tuple(_full(sweep, tensors, batch_sizes, keep))


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
    sweep: Sweep, saved: Tensors, batch_sizes: Tensor | None, grads: Maybe, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The adjoints of the inputs of a sweep. None, in and out, is zero."""
    if not sweep.complete:
        every: list[Tensor | None] = [None] * len(sweep.extended.outputs)
        for k, grad in zip(sweep.kept, grads, strict=True):
            every[k] = grad
        grads = every
        sweep, saved = _completed(sweep, saved, batch_sizes)
    wiring = sweep.pull(tuple(g is not None for g in grads), tuple(wanted))
    if wiring.sweep is None:
        return [None] * len(wanted)
    found = _run(wiring.sweep, fed(wiring, saved, grads), batch_sizes)
    return [
        None if k is None else shared(found[k], x)
        for k, x in zip(wiring.results, saved, strict=False)
    ]


def _completed(
    sweep: Sweep, saved: Tensors, batch_sizes: Tensor | None
) -> tuple[Sweep, list[Tensor]]:
    """A sweep that kept no intermediate values, as one that did: it runs again."""
    given = saved[: len(sweep.inputs)]
    return sweep.extended, [*given, *_run(sweep.extended, given, batch_sizes)]
