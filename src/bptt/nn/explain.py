"""What runs a layer, in words: which way it goes and why, its options, and its plans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from torch import nn

from bptt.calculus.schedule import schedule
from bptt.nn.operators import operator_of
from bptt.nn.options import Told
from bptt.nn.sweep import Keep, Sweep, sweep_of
from bptt.printers.plan import show_plan

if TYPE_CHECKING:
    from bptt.nn.engine import Engine

Row = tuple[str, str]


def explanation(layer: Engine, resets: bool, return_states: bool) -> str:
    """See `Engine.explain`. `resets`, `return_states`: whether a call has them."""
    training = layer._options.told(True, resets, return_states)
    resting = layer._options.told(False, resets, return_states)
    chosen = layer._choice()
    rows = [("backend", str(chosen)), *_ways(layer, resets, return_states), ("keep", layer.keep)]
    asked = [word for word, on in (("resets", resets), ("return_states", return_states)) if on]
    options = [*layer._options.shown(), *layer._begin.shown(), *asked]
    rows += [("options", ", ".join(options))] if options else []
    operator = operator_of(resting.layout.forward)
    onnx = f"the operator {operator} in float32" if operator else "a Scan"
    rows.append(("graphs", f"one operation in torch.compile and torch.export; in ONNX {onnx}"))
    if chosen.name == "cpu":
        from bptt.backends.cpu import threads
        from bptt.backends.cpu.build import describe, findings

        found = findings(describe(), threads.explain())
        rows += [(name, text) for name, text in found if name != "backend"]
    head = "\n".join(f"{name:<10} {text}".rstrip() for name, text in rows)
    trained = _trained(layer, training)
    return "\n".join([head + "\n", *_plans(training, resting, layer.keep, trained)])


def _ways(layer: Engine, resets: bool, return_states: bool) -> list[Row]:
    """The way that a call with plain tensors goes."""
    short = "the short way: compiled code at once"

    def way(training: bool) -> str:
        why = _longer(layer, training, resets, return_states)
        return short if why is None else f"the longer way: {why}"

    if way(True) == way(False):
        return [("way", way(True))]
    return [("training", way(True)), ("evaluation", way(False))]


def _longer(layer: Engine, training: bool, resets: bool, return_states: bool) -> str | None:
    """Why a call takes the longer way; None where it takes the short one. In training gradients
    are asked for."""
    if layer.backend != "cpu":
        return "the short one is to compiled code"
    if resets or return_states:
        return f"the call has {'resets' if resets else 'return_states'}"
    if training and layer._options.noisy:
        return "masks are drawn in each call"
    if training and layer.keep != "all":
        return f'keep is "{layer.keep}"'
    return layer._obstacle() or layer._short.obstacle(cast(nn.Module, layer))


def _trained(layer: Engine, told: Told) -> list[bool]:
    """Which of a layer's reads may have a gradient: no mask, no reset, and nothing frozen."""
    fed = {told.reset, *(mask.name for mask in told.masks)}
    given = {"", *told.begin, *(other.name for other in told.layout.others)}
    weight = layer.parts().weights[0]
    return [n in given or (n not in fed and weight(n).requires_grad) for n in told.layout.reads]


def _plans(training: Told, resting: Told, keep: Keep, trained: list[bool]) -> Iterator[str]:
    """Those that run, each under a heading. `trained`: see `_trained`."""
    other = resting.layout.forward != training.layout.forward
    when = ", in training" if other else ""
    sweep = sweep_of(training.layout.forward)
    whole = sweep if keep == "sqrt" else sweep.keeping(keep)[0]
    each = " of each window of about sqrt(T) steps" if keep == "sqrt" else ""
    yield f"forward{each}{when}\n{_forward(whole, sweep)}"
    if not whole.complete:
        whole = sweep.extended
        yield f"forward again, before a window's backward pass\n{_forward(whole, sweep)}"
    given = tuple(port in sweep.outputs for port in whole.outputs)
    wanted = [*trained, *(True for _ in sweep.program.states)]
    pulled = whole.pull(given, tuple(wanted)).sweep
    shown = "nothing to compute\n" if pulled is None else show_plan(schedule(pulled.program))
    yield f"backward{each}{when}\n{shown}"
    if other:
        rest = sweep_of(resting.layout.forward)
        yield f"forward, in evaluation\n{_forward(rest, rest)}"


def _forward(whole: Sweep, sweep: Sweep) -> str:
    """The plan of `whole`, which is `sweep` and what is kept."""
    kept = [port.name for port in whole.outputs if port not in sweep.outputs]
    return show_plan(schedule(whole.program), kept)
