"""Where a Program is checked: sizes, random values, warm states, and a look at a cold start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bptt.errors import UserError
from bptt.ir.dims import Dims, shape_of, show_dims, terms
from bptt.ir.ops import evaluate
from bptt.ir.ports import At, Port, inputs
from bptt.ir.program import Kind, Program, Role, walk
from bptt.proof.oracle import Array, Arrays, run

# Odd, so that a sum of two is the size of nothing else: sizes that are swapped never fit.
_MOST_NUMBERS = 10**6  # of one value in a check, which moves each of them
PRIMES = (3, 5, 7, 11, 13, 17, 19, 23)
WARM_STEPS = 3


def sizes_for(
    p: Program, fixed: Mapping[str, int] | None = None, values: Mapping[str, Array] | None = None
) -> dict[str, int]:
    """A size for each size name of `p`: as `fixed`, as `values` have it, else its own prime.

    Raises UserError where a value does not have the shape that its name has in `p`, and for a
    size below 1. Further names in `fixed` are of no matter.
    """
    known = dict(fixed or {})
    values = values or {}
    for name, array in values.items():
        for dim, n in zip(_dims(p, name), np.shape(array), strict=False):
            if isinstance(dim, str):
                known.setdefault(dim, n)
    dims = [p.dims(s.name) for s in p.states] + [v.dims for v in p.values]
    dims += [n.dims for e in p.equations for n in walk(e.rhs)]
    names = dict.fromkeys(name for each in dims for dim in each for name in terms(dim) if name)
    for name, n in (fixed or {}).items():
        if n < 1:
            raise UserError(f"the size `{name}` cannot be {n}", help="a size is at least 1")
    free = [n for n in PRIMES if n not in known.values()]
    missing = [name for name in names if name not in known]
    if len(missing) > len(free):
        raise UserError(f"{len(missing)} sizes to choose, which is too many", help="give sizes=")
    known |= dict(zip(missing, free, strict=False))
    known = {name: known[name] for name in names}
    largest = max((prod(shape_of(each, known)) for each in dims), default=0)
    if largest > _MOST_NUMBERS:
        raise UserError(
            f"a check with values of {largest} numbers would not end", help="give sizes="
        )
    for name, array in values.items():
        if np.ndim(array) and np.shape(array) != shape_of(_dims(p, name), known):
            wanted = f"{show_dims(_dims(p, name))} with {known}"
            raise UserError(f"`{name}` has the shape {np.shape(array)}, not {wanted}")
    return known


def draw(
    p: Program,
    length: int,
    sizes: Mapping[str, int],
    rng: np.random.Generator,
    values: Mapping[str, Array],
) -> Arrays:
    """Random arrays for every input of `p` but its initial states, which are the declared ones.

    A matrix is scaled so that its products stay near 1: gates that saturate hide mistakes.
    """
    given: Arrays = {}
    roles = {v.name: v.role for v in p.values}
    for port in inputs(p):
        if port.at is At.START:
            continue
        dims = p.dims(port.name)
        shape = shape_of(dims, sizes)
        if port.name in values:
            given[port] = np.broadcast_to(np.asarray(values[port.name], dtype=float), shape).copy()
            continue
        array = np.asarray(rng.normal(size=_lead(port, length) + shape))
        if len(shape) == 2:
            array = array / np.sqrt(max(1, shape[1]))
        elif roles[port.name] is not Role.GIVEN:
            array = 0.5 * array
        given[port] = array
    return {**given, **declared(p, given, sizes)}


def declared(p: Program, given: Mapping[Port, Array], sizes: Mapping[str, int]) -> Arrays:
    """The initial states that `p` declares: zero, or the value of their start."""
    constants = {port.name: array for port, array in given.items() if port.at is At.CONST}
    starts: Arrays = {}
    for state in p.states:
        array = np.zeros(shape_of(p.dims(state.name), sizes))
        if state.start is not None:
            found: dict[Any, Array] = {}
            for n in walk(state.start):
                args = [found[a] for a in n.args]
                found[n] = constants[n.attr[0]] if n.op == "ref" else evaluate(n, args, sizes)
            array = array + found[state.start]
        starts[Port(state.name, At.START)] = array
    return starts


def warmed(
    p: Program, given: Mapping[Port, Array], sizes: Mapping[str, int], rng: np.random.Generator
) -> Arrays:
    """Initial states as a running cell has them: three steps from the declared start, then 10 %.

    Random numbers will not do: a normaliser drawn around zero is a pole that no run meets. They
    stand in where the declared start leads to a value that is not finite.
    """
    series = {
        port: rng.normal(size=(WARM_STEPS, *np.shape(array)[1:]))
        for port, array in given.items()
        if port.at is At.STEPS
    }
    found = run(p, {**given, **series}, sizes, length=WARM_STEPS)
    starts: Arrays = {}
    for state in p.states:
        array = found[Port(state.name, At.FINAL)]
        shift = np.asarray(rng.uniform(-0.1, 0.1, size=np.shape(array)))
        # an entry that is still exactly zero has no size of its own to be moved by
        moved = np.where(array == 0, shift, array * (1 + shift))
        # a cell that is not finite from its start is wrong, yet its derivative need not be
        finite = np.isfinite(array).all()
        starts[Port(state.name, At.START)] = moved if finite else rng.normal(size=np.shape(array))
    return starts


def randoms(
    p: Program,
    ports: Iterable[Port],
    length: int,
    sizes: Mapping[str, int],
    rng: np.random.Generator,
) -> Arrays:
    """N(0, 1) for each port, in its shape."""
    return {
        port: np.asarray(rng.normal(size=_lead(port, length) + shape_of(p.dims(port.name), sizes)))
        for port in ports
    }


class Unfinite(NamedTuple):
    """An assigned name, and what it is: `nan at t = 0`."""

    name: str
    value: str


def unfinite(p: Program, values: Mapping[Port, Array], length: int) -> Unfinite | None:
    """The first assigned value, in the order things run, that is not finite."""
    late = p.late()
    early = [e for e in p.equations if e.kind is Kind.ONCE and e.name not in late]
    after = [e for e in p.equations if e.name in late]
    times = range(length) if p.dir > 0 else range(length - 1, -1, -1)
    order = [
        *((e.name, values[Port(e.name, At.CONST)], "") for e in early),
        *(
            (e.name, values[Port(e.name, At.STEPS)][t], f" at t = {t}")
            for t in times
            for e in p.steps()
        ),
        *((e.name, values[Port(e.name, At.CONST)], "") for e in after),
    ]
    for name, array, when in order:
        flat = np.ravel(array)
        finite = np.isfinite(flat)
        if not finite.all():
            return Unfinite(name, f"{flat[~finite][0]}{when}")
    return None


def _lead(port: Port, length: int) -> tuple[int, ...]:
    return (length,) if port.at is At.STEPS else ()


def _dims(p: Program, name: str) -> Dims:
    found = next((v for v in p.values if v.name == name), None)
    if found is None:
        raise UserError(f"nothing that is read is called `{name}`, so it takes no value")
    if found.role is Role.GIVEN and not found.per_sequence:
        raise UserError(f"`{name}` is a series: a value can be fixed only for what has no t")
    return found.dims
