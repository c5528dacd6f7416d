"""What a Problem's numbers are, in float64 and from a source that shares no line with ours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bptt.bench.bodies import BODIES
from bptt.bench.problems import (
    STEPPER,
    TAIL,
    Array,
    How,
    Pairs,
    Problem,
    load_weights,
    single_layer,
)
from bptt.bench.sides import STOCK, eager, nn_lstm

MOST_FLOPS = (
    2 * 10**10
)  # a few seconds in float64: longer sequences are judged by their first steps
FEWEST_STEPS = 2  # so that the recurrence takes part
ORACLE_STEPS = 3  # the oracle goes sequence by sequence


def judged(problem: Problem) -> Problem:
    """The Problem, or so many first steps of it that its truth is found in seconds."""
    if problem.cell not in BODIES:
        return problem.shortened(ORACLE_STEPS)
    step = problem.flops("train") // problem.shape.T
    return problem.shortened(max(FEWEST_STEPS, MOST_FLOPS // step))


def truth(problem: Problem, mode: str) -> Pairs:
    """The output, the last states and, to train, the gradients, by name, in float64.

    Of the stock cell they are nn.LSTM's, of a cell that is written out in `bodies` autograd's, and
    of any other the oracle's. Steps one after the other give what the sequence gives.
    """
    mode = "infer" if mode == STEPPER else mode
    if problem.cell not in BODIES:
        return _summed(list(_oracle(problem, mode)))
    prepare = nn_lstm if problem.cell == STOCK else eager
    ready = prepare(problem, How(mode, dtype="float64"))
    return ready.pairs(ready.call())


def _summed(each: list[dict[str, Array]]) -> Pairs:
    """The results of all sequences: those of parameters added up, all else side by side."""
    found: Pairs = []
    for name, first in each[0].items():
        arrays = [one[name] for one in each]
        if name in ("output", "d_x"):
            found.append((name, np.stack(arrays, 1)))
        elif name.startswith("last "):
            found.append((name, np.stack(arrays)))
        else:
            found.append((name, np.sum(arrays, 0).reshape(np.shape(first))))
    return found


def _oracle(problem: Problem, mode: str) -> Iterator[dict[str, Array]]:
    """The results of each sequence, as the oracle has them."""
    from bptt.ir.ports import At, Port, inputs
    from bptt.language.canonical import read
    from bptt.nn.layout import layout_of
    from bptt.proof.oracle import run
    from bptt.proof.sweeps import gradient

    layer = single_layer(problem.cell, problem.shape)
    load_weights(layer, problem.weights)
    layout = layout_of(layer.cell.lowered, layer.cell.name)
    p = read(layout.forward)
    sizes = layout.sizes(problem.shape.I, problem.shape.H, {})
    known = {name.removesuffix(TAIL): a.numpy() for name, a in layer.named_buffers()}
    known |= problem.weights
    feed = {port: known[port.name] for port in inputs(p) if port.at is At.CONST}
    series = next(port for port in inputs(p) if port.at is At.STEPS)
    starts = [state[0].detach().numpy() for state in layer.initial_states(problem.shape.B)]
    for k in range(problem.shape.B):
        given = feed | {series: problem.x[:, k]}
        for name, start in zip(layer.state_names, starts, strict=True):
            given[Port(name, At.START)] = start[k].reshape(() if not p.dims(name) else -1)
        values = run(p, given, sizes)
        steps = [values[Port(name, At.STEPS)] for name in p.outputs]
        found = {"output": np.concatenate([a.reshape(len(a), -1) for a in steps], -1)}
        for name in layer.state_names:
            found[f"last {name}"] = values[Port(name, At.FINAL)].reshape(-1)
        if mode == "train":
            widths = np.cumsum([a.size // len(a) for a in steps])
            parts = np.split(problem.d_output[:, k], widths[:-1], -1)
            seeds = {
                Port(name, At.STEPS): part.reshape(a.shape)
                for name, part, a in zip(p.outputs, parts, steps, strict=True)
            }
            grads = gradient(p, given, seeds, sizes)
            found["d_x"] = grads[series]
            for name, weight in problem.weights.items():
                total = grads.get(Port(name, At.CONST), np.zeros(weight.shape))
                for state, start in zip(layer.state_names, layout.starts, strict=True):
                    if start == name:
                        more = grads[Port(state, At.START)]
                        total = total + (more if more.shape == total.shape else more.sum())
                found[f"d_{name}"] = total
        yield found
