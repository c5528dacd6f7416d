"""Compositions of sweeps: gradient, second order, tangent, Hessian-vector product.

A gradient is p, then derive(p). The full second-order gradient is four sweeps: p, p' = derive(p),
p'' = derive(p'), then derive(p) once more, seeded with what p' read, because p' reads p's values
as givens and so derive(p') alone holds them fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bptt.calculus.derive import Derived, adjoint
from bptt.calculus.tangent import jvp
from bptt.ir.dims import shape_of
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import Program
from bptt.proof.oracle import Array, Arrays, run

Sizes = Mapping[str, int]


def length_of(*values: Mapping[Port, Array]) -> int:
    """T, read off the first series there is; StopIteration if there is none."""
    return next(len(a) for each in values for port, a in each.items() if port.at is At.STEPS)


def zeros(p: Program, port: Port, length: int, sizes: Sizes) -> Array:
    """Zeros of the shape that `port` has."""
    shape = shape_of(p.dims(port.name), sizes)
    return np.zeros((length, *shape) if port.at is At.STEPS else shape)


def forward(
    p: Program, given: Mapping[Port, Array], sizes: Sizes, length: int | None = None
) -> Arrays:
    """Every value of `p`: its inputs, all assigned names, its outputs.

    `length` is T, for a program that reads no series.
    """
    return {**given, **run(p, given, sizes, every=True, length=length)}


def _derived_inputs(
    d: Derived, values: Mapping[Port, Array], seeds: Mapping[Port, Array], sizes: Sizes
) -> Arrays:
    length = length_of(values)
    bring = {port: seed for seed, port in d.seeds.items()}
    given: Arrays = {}
    for port in inputs(d.program):
        if port in d.primal:
            given[port] = values[d.primal[port]]
        elif port in bring and bring[port] in seeds:
            given[port] = seeds[bring[port]]
        else:
            given[port] = zeros(d.program, port, length, sizes)
    return given


def pull(
    d: Derived, values: Mapping[Port, Array], cotangents: Mapping[Port, Array], sizes: Sizes
) -> tuple[Arrays, Arrays]:
    """The adjoints of d.of's inputs, and every value of the adjoint sweep.

    `values`: of `forward(d.of)`. `cotangents`: the direct adjoints, zero where left out.
    """
    length = length_of(values)
    values2 = forward(d.program, _derived_inputs(d, values, cotangents, sizes), sizes, length)
    adjoints = {
        port: values2[d.results[port]] if port in d.results else zeros(d.of, port, length, sizes)
        for port in inputs(d.of)
    }
    return adjoints, values2


def gradient(
    p: Program, given: Mapping[Port, Array], cotangents: Mapping[Port, Array], sizes: Sizes
) -> Arrays:
    """The gradient, by each input port of `p`, of the sum of <cotangent, value>."""
    names = {port.name for port in cotangents if port.at is not At.FINAL}
    values = forward(p, given, sizes, length_of(given, cotangents))
    return pull(adjoint(p, names), values, cotangents, sizes)[0]


def second(
    p: Program,
    given: Mapping[Port, Array],
    cotangents: Mapping[Port, Array],
    directions: Mapping[Port, Array],
    sizes: Sizes,
    *,
    derive: Callable[..., Derived] = adjoint,
) -> tuple[Arrays, Arrays]:
    """The gradient of phi = the sum of <direction, gradient(p)>, by p's inputs and by cotangents.

    `directions`: one for each input port of `p`; those left out are zero. `derive` makes the
    sweeps: a tester passes one that errs.
    """
    values = forward(p, given, sizes, length_of(given, cotangents))
    d1 = derive(p, {port.name for port in cotangents if port.at is not At.FINAL})
    _, values1 = pull(d1, values, cotangents, sizes)
    d2 = derive(d1.program)
    seeds = {d1.results[port]: v for port, v in directions.items() if port in d1.results}
    adjoints, _ = pull(d2, values1, seeds, sizes)
    by_input: Arrays = {port: zeros(p, port, length_of(values), sizes) for port in inputs(p)}
    inner: Arrays = {}
    for port, of in d1.primal.items():
        where = by_input if of in by_input else inner
        where[of] = where.get(of, 0) + adjoints[port]
    if inner:
        d3 = derive(p, {port.name for port in inner})
        for port, more in pull(d3, values, inner, sizes)[0].items():
            by_input[port] = by_input[port] + more
    by_cotangent = {seed: adjoints[port] for seed, port in d1.seeds.items() if seed in cotangents}
    return by_input, by_cotangent


def tangents(
    p: Program, values: Mapping[Port, Array], directions: Mapping[Port, Array], sizes: Sizes
) -> Arrays:
    """Forward mode: the tangent of every assigned name and output of `p`.

    `values`: of `forward(p)`; `directions`: tangents of p's inputs, zero where left out.
    """
    d = jvp(p)
    given = _derived_inputs(d, values, directions, sizes)
    found = forward(d.program, given, sizes, length_of(values))
    return {port: found[out] for port, out in d.results.items()}


def hessian_vector(
    p: Program,
    given: Mapping[Port, Array],
    cotangents: Mapping[Port, Array],
    direction: Mapping[Port, Array],
    sizes: Sizes,
) -> Arrays:
    """The derivative of gradient(p) along `direction`: jvp(p) with p, then jvp(p') with p'."""
    values = forward(p, given, sizes, length_of(given, cotangents))
    d1 = adjoint(p, {port.name for port in cotangents if port.at is not At.FINAL})
    _, values1 = pull(d1, values, cotangents, sizes)
    t = jvp(p)
    length = length_of(values)
    moved = forward(t.program, _derived_inputs(t, values, direction, sizes), sizes, length)
    along: Arrays = dict(direction)
    for of in d1.primal.values():
        if of not in along and (name := t.names.get(of.name)) is not None:
            along[of] = moved[Port(name, of.at)]
    seeds = {port: along[of] for port, of in d1.primal.items() if of in along}
    found = tangents(d1.program, values1, seeds, sizes)
    return {
        port: found[d1.results[port]]
        if d1.results.get(port) in found
        else zeros(p, port, length, sizes)
        for port in inputs(p)
    }
