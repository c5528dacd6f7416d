"""What the scripts in this folder share: they make a library run one of our cells, and write down
the numbers.

A script says how the library's weights are made of the cell's parameters and how the library is
called. Here the numbers are drawn, the library's own derivative is asked for, and a file of
tests/golden/elsewhere is written. The gradients are by the cell's parameters, through the
library: where it has two biases for one of ours, ours is split between the two.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bptt import Cell, cells
from bptt.calculus.rewrites import layer, lower
from bptt.ir.dims import shape_of, terms
from bptt.ir.ports import At, inputs
from bptt.ir.program import Program, Role

Array = Any
Arrays = dict[str, Array]
# Of the cell's values by name (inputs [T, B, w], starts [B, w], parameters, constants): the series
# that the library gives, and the states after the last step, by our names.
Call = Callable[[Arrays], tuple[Arrays, Arrays]]
# Of seeds for the series and the states: the gradient by each value, None by what is not read.
Pull = Callable[[Arrays, Arrays], Arrays]

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "elsewhere"
STEPS, BATCH = 4, 2


# --- the frameworks -------------------------------------------------------------------------------


def torch_side(call: Call, values: Arrays, by: list[str]) -> tuple[Arrays, Arrays, Pull]:
    """Run in torch, in the dtype of the values, and differentiate by the names in `by`."""
    import torch

    leaves = {k: torch.tensor(v, requires_grad=k in by) for k, v in values.items()}
    series, finals = call(leaves)

    def pull(series_seeds: Arrays, final_seeds: Arrays) -> Arrays:
        outs = [*series.values(), *finals.values()]
        seeds = [*(series_seeds[k] for k in series), *(final_seeds[k] for k in finals)]
        found = torch.autograd.grad(
            outs, [leaves[k] for k in by], [torch.tensor(s) for s in seeds], allow_unused=True
        )
        return {k: None if g is None else g.numpy() for k, g in zip(by, found, strict=True)}

    return _plain(series), _plain(finals), pull


def jax_side(call: Call, values: Arrays, by: list[str]) -> tuple[Arrays, Arrays, Pull]:
    """Run in JAX, in float64."""
    import jax

    jax.config.update("jax_enable_x64", True)
    rest = {k: jax.numpy.asarray(v) for k, v in values.items() if k not in by}
    leaves = {k: jax.numpy.asarray(values[k]) for k in by}
    (series, finals), back = jax.vjp(lambda leaves: call({**rest, **leaves}), leaves)

    def pull(series_seeds: Arrays, final_seeds: Arrays) -> Arrays:
        seeds = ({k: series_seeds[k] for k in series}, {k: final_seeds[k] for k in finals})
        (found,) = back(jax.tree.map(jax.numpy.asarray, seeds))
        return {k: np.asarray(g) for k, g in found.items()}

    return _plain(series), _plain(finals), pull


def tensorflow_side(call: Call, values: Arrays, by: list[str]) -> tuple[Arrays, Arrays, Pull]:
    """Run in TensorFlow."""
    import tensorflow as tf

    leaves = {k: tf.constant(v) for k, v in values.items()}
    with tf.GradientTape() as tape:
        tape.watch([leaves[k] for k in by])
        series, finals = call(leaves)
    outs = [*series.values(), *finals.values()]

    def pull(series_seeds: Arrays, final_seeds: Arrays) -> Arrays:
        seeds = [*(series_seeds[k] for k in series), *(final_seeds[k] for k in finals)]
        found = tape.gradient(outs, [leaves[k] for k in by], [tf.constant(s) for s in seeds])
        return {k: None if g is None else g.numpy() for k, g in zip(by, found, strict=True)}

    return _plain(series), _plain(finals), pull


def values_only(call: Call, values: Arrays, by: list[str]) -> tuple[Arrays, Arrays, Pull]:
    """Run in a library that gives no derivatives here."""
    series, finals = call(dict(values))
    return _plain(series), _plain(finals), lambda *_: {}


def _plain(found: Arrays) -> Arrays:
    return {k: np.array(v.detach() if hasattr(v, "detach") else v) for k, v in found.items()}


# --- weights that are made of ours ----------------------------------------------------------------


def half(bias: Array) -> tuple[Array, Array]:
    """One bias as the sum of two that are not alike, exactly."""
    return 0.75 * bias, 0.25 * bias


def signed(v: Arrays, names: str) -> list[Array]:
    """Parameters of ours by name: `"W_i -W_f 0"`, where a number fills as much as the others."""
    like = next(v[name] for name in names.replace("-", "").split() if name in v)
    found: list[Array] = []
    for name in names.split():
        ours = v.get(name.removeprefix("-"))
        value = 0 * like + float(name) if ours is None else ours
        found.append(-value if ours is not None and name.startswith("-") else value)
    return found


def torch_rows(v: Arrays, names: str) -> Array:
    """Parameters of ours on top of each other, as in `signed`."""
    import torch

    return torch.cat(signed(v, names))


def gates(pattern: str, which: str) -> str:
    """The names of some gates' parameters: `"W_i W_f"` of `"W_{}"` and `"i f"`."""
    return " ".join(pattern.format(gate) for gate in which.split())


def torch_call(module: Any, weights: Arrays, *args: Any, **options: Any) -> Any:
    """Call a module with these weights. All of its parameters must be among them."""
    import torch

    own = dict(module.named_parameters())
    known = own | dict(module.named_buffers())
    missing, unknown = own.keys() - weights.keys(), weights.keys() - known.keys()
    assert not missing | unknown, f"missing {missing}, unknown {unknown}"
    for name, weight in weights.items():
        assert weight.shape == known[name].shape, f"{name} is {list(known[name].shape)}"
    return torch.func.functional_call(module, weights, args, options)


def stacked(
    stack: Callable[[list[Array]], Array],
    step: Callable[[Arrays, Arrays, Arrays], Arrays],
    states: str,
    out: str = "h",
    series: str = "x",
) -> Call:
    """Call `step(v, inputs, states)`, which gives the new states and `out`, for each step."""

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        held, found = {name: v[name] for name in states.split()}, []
        for t in range(STEPS):
            new = step(v, {name: v[name][t] for name in series.split()}, held)
            held = {name: new[name] for name in held}
            found.append(new[out])
        return {out: stack(found)}, held

    return call


def torch_steps(*args: Any, **options: Any) -> Call:
    """`stacked` in torch."""
    import torch

    return stacked(torch.stack, *args, **options)


# --- drawing and writing --------------------------------------------------------------------------


def record(
    cell: str,
    library: str,
    claim: str,
    call: Call,
    *,
    side: Callable[[Call, Arrays, list[str]], tuple[Arrays, Arrays, Pull]],
    sizes: Mapping[str, int] | None = None,
    dtype: str = "float64",
    functions: Mapping[str, str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    between: Mapping[str, tuple[float, float]] | None = None,
    zero: tuple[str, ...] = (),
    untold: tuple[str, ...] = (),
) -> None:
    """Write down what `library`, through `call`, makes of `cell`.

    `library` is the name of its distribution (with a version, if it is not installed here),
    `claim` what is called there, as Python would have it. `sizes` are X = 2, H = 3 and these.
    `fixed` are values that the library does not take (a start of its own, a constant): a number
    for all entries, or an array. `between` bounds what is drawn for some names; the others are
    between -0.75 and 0.75. `zero`: values on which nothing depends, so that the library has no
    gradient by them. `untold`: large parameters whose gradients are left out of the file.
    """
    text = cells.read(cell)
    bound = Cell(text, functions=dict(functions or {}), name=cell)
    p = lower(layer(bound.program))
    known = {"X": 2, "H": 3, **(sizes or {})}
    library, _, stated = library.partition(" ")
    label = f"{library} {stated or version(library).split('+')[0]}"
    kinds = _kinds(p)
    for seed in range(100):
        rng = np.random.default_rng([seed, zlib.crc32(f"{cell} {library}".encode())])
        known_values = {**bound.consts, **(fixed or {})}
        values = _draw(p, known, rng, known_values, between or {}, dtype)
        taken = {k: v for k, v in values.items() if k not in (fixed or {})}
        by = [k for k in taken if kinds[k] != "consts" and k not in untold]
        series, finals, pull = side(call, taken, by)
        if all(a.any((0, 1)).all() for a in series.values()):  # no relu that never lets through
            break
    else:
        raise AssertionError(f"{cell}: a unit is always 0")
    weights = [
        {k: _grid(rng, a.shape, (-2, 2), 8).astype(dtype) for k, a in each.items()}
        for each in (series, finals)
    ]
    gradients = pull(*weights)
    assert {k for k, g in gradients.items() if g is None} == set(zero), (
        f"{cell}: no gradient by {[k for k, g in gradients.items() if g is None]}"
    )
    found = {
        "cell": cell,
        "library": label,
        "class": claim,
        "dtype": dtype,
        "functions": dict(functions or {}),
        "sizes": {k: n for k, n in known.items() if k in _named(p)},
        **{
            kind: {k: a for k, a in values.items() if kinds[k] == kind}
            for kind in ("inputs", "params", "consts", "starts")
        },
        "series": series,
        "finals": finals,
        "series_weights": weights[0],
        "finals_weights": weights[1],
        "gradients": {k: g for k, g in gradients.items() if g is not None},
    }
    GOLDEN.mkdir(exist_ok=True)
    name = library.replace("-", "_")
    (GOLDEN / f"{cell}.{name}.json").write_text(_text(found), encoding="utf-8")
    print(f"{cell}: {claim} ({label})")


def _named(p: Program) -> set[str]:
    dims = [*(d for v in p.values for d in v.dims), *(d for s in p.states for d in p.dims(s.name))]
    return {name for d in dims for name in terms(d) if name}


def _kinds(p: Program) -> dict[str, str]:
    constant = {v.name for v in p.values if v.role is Role.CONST}
    found: dict[str, str] = {}
    for port in inputs(p):
        if port.at is At.CONST:
            found[port.name] = "consts" if port.name in constant else "params"
        else:
            found[port.name] = "starts" if port.at is At.START else "inputs"
    return found


def _draw(
    p: Program,
    sizes: Mapping[str, int],
    rng: np.random.Generator,
    fixed: Mapping[str, Any],
    between: Mapping[str, tuple[float, float]],
    dtype: str,
) -> Arrays:
    """Short binary fractions, which are the same number in every dtype."""
    found: Arrays = {}
    for port in inputs(p):
        dims = shape_of(p.dims(port.name), sizes)
        if port.at is At.STEPS:
            dims = (STEPS, BATCH, *(dims or (1,)))
        elif port.at is not At.CONST:
            dims = (BATCH, *(dims or (1,)))
        a = _grid(rng, dims, between.get(port.name, (-0.75, 0.75)), 64)
        if port.name in fixed:
            a = np.broadcast_to(np.asarray(fixed[port.name], float), dims)
        found[port.name] = a.astype(dtype)
    unknown = sorted({*between, *fixed} - set(found))
    assert not unknown, f"the cell has no {unknown}"
    return found


def _grid(
    rng: np.random.Generator, shape: tuple[int, ...], between: tuple[float, float], parts: int
) -> Array:
    low, high = (round(bound * parts) for bound in between)
    return rng.integers(low, high, shape, endpoint=True) / parts


def _text(found: Mapping[str, Any]) -> str:
    """JSON with a line for each array."""
    lines: list[str] = []
    for key, value in found.items():
        if isinstance(value, dict) and any(isinstance(v, np.ndarray) for v in value.values()):
            rows = ",\n".join(f"  {_plain_text(k)}: {_numbers(v)}" for k, v in value.items())
            lines.append(f" {_plain_text(key)}: {{\n{rows}\n }}")
        else:
            lines.append(f" {_plain_text(key)}: {_plain_text(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _plain_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _numbers(a: Array) -> str:
    """All digits that the dtype has."""
    assert np.isfinite(a).all()
    nested = np.array([float(str(x)) for x in a.ravel()]).reshape(a.shape).tolist()
    return json.dumps(nested, separators=(",", ":"))
