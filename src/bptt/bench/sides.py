"""Who is compared: ways to run a layer, each made ready for a Problem.

What is timed and what the gate looks at is one and the same call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np

from bptt.bench.bodies import BODIES, torch_loop
from bptt.bench.problems import (
    STEPPER,
    TAIL,
    How,
    Pairs,
    Problem,
    Raw,
    load_weights,
    made,
    single_layer,
)
from bptt.errors import UserError

STOCK = "lstm"  # the cell of nn.LSTM
GATES = "ifgo"  # as nn.LSTM stacks them
STACKED = {"weight_ih": "W", "weight_hh": "U", "bias_ih": "b"}  # and what the cells call them


class Unavailable(Exception):
    """A side that cannot run here, and why."""


@dataclass(frozen=True)
class Ready:
    """A side made ready. `call` computes, `pairs` gives the parts of its result their names.

    `calls`: so many in a row give what the gate looks at; `pairs` is asked after each of them.
    `forward` and `weights` are there for sides of which the memory kept for backward can be seen.
    """

    call: Callable[[], Raw]
    pairs: Callable[[Raw], Pairs]
    forward: Callable[[], Raw] | None = None
    weights: tuple[Any, ...] = ()
    backend: str = ""  # what runs our layer
    calls: int = 1


@dataclass(frozen=True)
class Side:
    """A way to run a layer. `prepare` raises Unavailable.

    `stock`: it always runs the stock cell. `cells`: those it can run, if not all.
    """

    prepare: Callable[[Problem, How], Ready]
    stock: bool = False
    cells: frozenset[str] | None = None
    one_step: bool = False  # it runs T = 1 only
    asked: bool = False  # it is left out unless asked for

    def unfit(self, cell: str, steps: int) -> str:
        """Why it cannot be compared with this cell at so many steps; empty if it can."""
        if self.one_step and steps > 1:
            return "it runs one step"
        if self.cells is not None and cell not in self.cells:
            return f"nobody has written a loop of `{cell}` by hand"
        return ""


# --- layers -------------------------------------------------------------------------------------


def ours(**options: str | None) -> Side:
    """Our layers: `bptt.nn.LSTM` for cells that fit it, else `Recurrent`. `options` go to them."""

    def prepare(problem: Problem, how: How) -> Ready:
        from bptt.nn import LSTM

        if _fits(problem):
            layer = made(LSTM, *problem.shape[2:], cell=problem.cell, **options)
            layer, whole = _load_stacked(layer, problem, how), _like_lstm
        else:
            layer = _load(single_layer(problem.cell, problem.shape, **options), problem, how)
            whole = _recurrent
        return (_our_steps if how.mode == STEPPER else whole)(layer, problem, how)

    return Side(prepare)


def _fits(problem: Problem) -> bool:
    """Whether the cell has the gates and states of torch's layer."""
    from bptt.nn import LSTM

    try:
        LSTM(*problem.shape[2:], cell=problem.cell)
    except UserError:
        return False
    return True


def our_lstm(**options: str | None) -> Side:
    """Our layer of the stock cell, for other cells to be compared with."""
    return Side(ours(**options).prepare, stock=True)


def nn_lstm(problem: Problem, how: How) -> Ready:
    """torch's own layer of the stock cell."""
    from torch import nn

    return _like_lstm(_load_stacked(nn.LSTM(*problem.shape[2:]), problem, how), problem, how)


def _nn_cell(problem: Problem, how: How) -> Ready:
    from torch import nn

    module = _load_stacked(nn.LSTMCell(*problem.shape[2:]), problem, how)
    if how.mode == STEPPER:
        return _cell_steps(module, problem, how)
    x = _tensor(problem.x[0], how)

    def forward() -> Raw:
        h, c = module(x)
        return [h, h, c]

    return _torch_side(forward, x, module, problem, how, _split_stacked)


def _like_lstm(module: Any, problem: Problem, how: How) -> Ready:
    x = _tensor(problem.x, how)

    def forward() -> Raw:
        output, (h, c) = module(x)
        return [output, h, c]

    return _torch_side(forward, x, module, problem, how, _split_stacked)


def _recurrent(module: Any, problem: Problem, how: How) -> Ready:
    x = _tensor(problem.x, how)

    def forward() -> Raw:
        output, finals = module(x)
        return [output, *finals]

    def split(grads: Mapping[str, Any]) -> Pairs:
        return [(name.removesuffix(TAIL), grad) for name, grad in grads.items()]

    return _torch_side(forward, x, module, problem, how, split)


def _load(module: Any, problem: Problem, how: How, weights: Any = None) -> Any:
    """A module holding the cell's numbers, or `weights`, by the names of its parameters."""
    import torch

    module = module.to(getattr(torch, how.dtype))
    load_weights(module, problem.weights if weights is None else weights)
    return module


def _load_stacked(module: Any, problem: Problem, how: How) -> Any:
    """A module with nn.LSTM's parameters, or nn.LSTMCell's, holding the cell's numbers. What it has
    beside those is its own."""
    own = dict(problem.weights)
    values = {
        torchs: np.concatenate([own.pop(f"{letter}_{gate}") for gate in GATES])
        for torchs, letter in STACKED.items()
    }
    zero = np.zeros_like(values["bias_ih"])
    return _load(module, problem, how, {**values, "bias_hh": zero, **own})


def _split_stacked(grads: Mapping[str, Any]) -> Pairs:
    """Gradients of nn.LSTM's parameters by the cell's names; both biases have one gradient."""
    found: Pairs = []
    for name, grad in grads.items():
        name = name.removesuffix(TAIL)
        letter = STACKED.get(name.replace("bias_hh", "bias_ih"))
        parts = np.split(grad, len(GATES)) if letter else ()
        found += [(f"{letter}_{gate}", part) for gate, part in zip(GATES, parts, strict=False)]
        if not letter:
            found.append((name, grad))
    return found


# --- one step after the other -------------------------------------------------------------------


def _our_steps(layer: Any, problem: Problem, how: How) -> Ready:
    """The layer's stepper. Raises Unavailable where compiled code does not run."""
    try:
        step = layer.stepper(problem.shape.B)
    except UserError as error:
        raise Unavailable(error.what) from error
    ready = _steps(step, lambda: step.states, problem, how)
    return replace(ready, backend=layer.backend)


def _cell_steps(cell: Any, problem: Problem, how: How) -> Ready:
    """nn.LSTMCell, which is handed its own states again.

    Its parameters ask for no gradient: as fast as a whole loop under `no_grad`, which a call that
    enters it for one step is not.
    """
    cell.requires_grad_(False)
    zero = _tensor(np.zeros((problem.shape.B, problem.shape.H)), how)
    states = (zero, zero)

    def step(x: Any) -> Any:
        nonlocal states
        states = cell(x, states)
        return states[0]

    return _steps(step, lambda: states, problem, how)


def _steps(
    step: Callable[[Any], Any], states: Callable[[], Iterable[Any]], problem: Problem, how: How
) -> Ready:
    """`step(x)` is the output [B, w] of the next step, `states()` the states after it.

    A call is one step. It goes round the inputs of the problem, and the states go on, so the first
    calls are the problem, which the gate looks at, and those that follow are no less real.
    """
    inputs = cycle(_tensor(problem.x, how).unbind())
    batch = problem.shape.B

    def call() -> Raw:
        return [step(next(inputs))]

    def pairs(raw: Raw) -> Pairs:
        # copies, as a stepper gives the same memory in every step
        output, *finals = (a.double().numpy().copy() for a in (*raw, *states()))
        named = zip(problem.states, finals, strict=True)
        lasts = [(f"last {state}", final.reshape(batch, -1)) for state, final in named]
        return [("output", output[None]), *lasts]

    return Ready(call, pairs, calls=problem.shape.T)


# --- loops --------------------------------------------------------------------------------------


def eager(problem: Problem, how: How) -> Ready:
    """A loop in plain torch, for the cells of `bodies`."""
    return _looped(lambda loop: loop, problem, how)


def _jit(problem: Problem, how: How) -> Ready:
    import torch

    with warnings.catch_warnings():  # it is deprecated, and still what much code runs
        warnings.simplefilter("ignore", DeprecationWarning)
        return _looped(torch.jit.script, problem, how)


def _compile(problem: Problem, how: How) -> Ready:
    import torch

    torch.compiler.reset()  # so that no loop meets the limit of recompiles of those before it
    ready = _looped(lambda loop: torch.compile(loop, fullgraph=True, dynamic=False), problem, how)
    try:
        ready.call()
    except RuntimeError as error:
        raise Unavailable(f"torch.compile fails: {str(error).splitlines()[0]}") from error
    return ready


def _looped(wrap: Callable[[Any], Any], problem: Problem, how: How) -> Ready:
    """A hand-written loop of the cell, as torch runs it through `wrap`."""
    import torch
    from torch import nn

    body = BODIES[problem.cell]
    loop = wrap(torch_loop(body.step(torch)))
    x = _tensor(problem.x, how)
    params = nn.ParameterList(
        nn.Parameter(torch.from_numpy(a).to(x.dtype)) for a in body.stacked(problem.weights)
    )
    W, U, b, p = *params[:3], params[3] if body.peepholes else x.new_zeros(0)
    batch, width = problem.shape.B, problem.shape.H

    def forward() -> Raw:
        h, c = x.new_zeros(batch, width), x.new_zeros(batch, width)
        return list(loop(x, h, c, W, U, b, p))

    def split(grads: Mapping[str, Any]) -> Pairs:
        return body.parts(*grads.values())

    return _torch_side(forward, x, params, problem, how, split)


# --- what they share ----------------------------------------------------------------------------


def _tensor(array: Any, how: How) -> Any:
    import torch

    return torch.from_numpy(array).to(getattr(torch, how.dtype)).requires_grad_(how.train)


def _torch_side(
    forward: Callable[[], Raw],
    x: Any,
    module: Any,
    problem: Problem,
    how: How,
    split: Callable[[Mapping[str, Any]], Pairs],
) -> Ready:
    """`forward` gives the output and the last states. Training differentiates by x and all of
    the module's parameters; `split` gives their gradients, by name, the cell's names."""
    import torch

    params = dict(module.named_parameters())
    leaves = [x, *params.values()]
    d_output = torch.from_numpy(problem.d_output).to(x.dtype)
    if x.dim() == 2:  # of one step
        d_output = d_output[0]

    def infer() -> Raw:
        with torch.no_grad():
            return forward()

    def train() -> Raw:
        found = forward()
        return [*found, *torch.autograd.grad(found[0], leaves, d_output)]

    def pairs(raw: Raw) -> Pairs:
        arrays = [a.detach().double().numpy() for a in raw]
        return list(named(problem, params, arrays, split))

    call = train if how.train else infer
    backend = getattr(module, "backend", "")
    return Ready(call, pairs, forward, tuple(params.values()), backend)


def named(
    problem: Problem,
    params: Any,
    arrays: list[Any],
    split: Callable[[Mapping[str, Any]], Pairs],
) -> Iterator[tuple[str, Any]]:
    """The arrays of a result with the names and shapes that all sides share.

    Here and not in the call, which is timed.
    """
    output, *rest = arrays
    finals, grads = rest[: len(problem.states)], rest[len(problem.states) :]
    yield "output", output.reshape(problem.d_output.shape)
    for state, final in zip(problem.states, finals, strict=True):
        yield f"last {state}", final.reshape(problem.shape.B, -1)
    if grads:
        yield "d_x", grads[0].reshape(problem.x.shape)
        by_name = dict(zip(params, grads[1:], strict=True))
        yield from ((f"d_{name}", grad) for name, grad in split(by_name))


def _jax(problem: Problem, how: How) -> Ready:
    from bptt.bench.in_jax import prepare

    return prepare(problem, how)


_WRITTEN = frozenset(BODIES)
PEERS: dict[str, Side] = {
    "nn.LSTM": Side(nn_lstm, stock=True),
    "nn.LSTMCell": Side(_nn_cell, stock=True, one_step=True),
    "eager": Side(eager, cells=_WRITTEN),
    "jit": Side(_jit, cells=_WRITTEN),
    "compile": Side(_compile, cells=_WRITTEN, asked=True),
    "jax": Side(_jax, cells=_WRITTEN),
    "our lstm": our_lstm(),
}
"""The sides that ours is compared with, in the order of the report."""
