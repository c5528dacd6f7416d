"""The proof: derived sweeps held against complex step or differences, tensor by tensor.

The derived side is what the library really runs: the program lowered, then its adjoint. The true
side is the oracle on the program as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bptt.calculus.derive import Derived, adjoint
from bptt.calculus.rewrites import lower, with_outputs
from bptt.errors import UserError
from bptt.ir.ops import OPS
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Kind, Program, Role, refs, walk
from bptt.proof import numeric, sampling
from bptt.proof.oracle import Array, Arrays, run
from bptt.proof.report import FLOOR, Line, Report, compare
from bptt.proof.sweeps import forward, hessian_vector, pull, second, tangents

DRAWS = 20

EVERYTHING = "gradient of a random loss on every output, state and final state"
LOSS = "gradient of the loss"
SECOND = "second order: the gradient of a random mixture of all gradients"
TANGENT = "forward mode along a random direction"
HESSIAN = "Hessian-vector product along a random direction"


@dataclass(frozen=True)
class Incoming:
    """The adjoint that comes in for `port`, as an argument to differentiate by."""

    port: Port


# What a derivative is by: a port, an incoming adjoint, or a direction.
Argument = Port | Incoming | str


@dataclass(frozen=True)
class Truth:
    """A sample of a program, and what is true of it.

    `program` is as written, its states and loss among the outputs; `lowered` is what gets
    derived. `gradients` has one entry for the random loss, `cotangents`, and one for the
    program's own loss if it has one; each maps an input port to (method, array).
    """

    program: Program
    lowered: Program
    sizes: Mapping[str, int]
    length: int
    given: Arrays
    cotangents: Arrays
    analytic: bool
    gradients: tuple[dict[Port, tuple[str, Array]], ...]


def check(
    program: Program,
    *,
    order: int = 1,
    seed: int = 0,
    length: int = 4,
    sizes: Mapping[str, int] | None = None,
    values: Mapping[str, Array] | None = None,
    derived: Derived | Callable[[Program], Derived] | None = None,
) -> Report:
    """Whether what is derived from `program` is right, for every input, initial state, parameter.

    `order` 2 adds the second derivatives, by incoming adjoints too, and forward mode. `sizes`
    and `values` (of what has no t) fix what is otherwise drawn. `derived` replaces the sweep
    under test, or makes it from the lowered program; so the checker can be checked.
    Raises UserError where an unspecified function has no binding, or a value does not fit.
    """
    refuse_unspecified(program)
    if order not in (1, 2):
        raise UserError(f"derivatives of order {order} are not checked", help="order 1 or 2")
    if length < 1:
        raise UserError(f"a sequence of {length} steps has nothing to check", help="length=4")
    chosen = sampling.sizes_for(program, sizes, values)
    with np.errstate(all="ignore"):
        found: Truth | None = None
        lines: tuple[Line, ...] = ()
        why, redraws = "", 0
        for redraws in range(DRAWS):
            rng = np.random.default_rng([seed, redraws])
            try:
                found = truth(program, chosen, length, rng, values or {})
                lines = judge(found, derived)
                if order == 2:
                    lines += judge_second(second_truth(found, rng))
                break
            except numeric.KinkError as error:
                found, why = None, f"a kink next to `{_label(program, error.port)[1]}`"
            except _UnfiniteError as error:
                found, why = None, str(error)
        if found is None:
            faults = (f"no sample fit for a check in {DRAWS} draws: {why}",)
            return Report((), faults, (), order, seed, length, chosen, redraws + 1)
        faults = cold_faults(found, derived)
    notes = warnings(program, lines)
    return Report(lines, faults, notes, order, seed, length, chosen, redraws)


def refuse_unspecified(program: Program) -> None:
    """Raise UserError where `program` holds a function that is not bound."""
    for n in walk(*(e.rhs for e in program.equations)):
        if n.op.startswith("call"):
            raise UserError(
                f"the function `{n.attr[0]}` is not specified, so there is nothing to check",
                help=f"bind it first, for instance functions={{'{n.attr[0]}': 'tanh'}}",
            )


# --- the truth ------------------------------------------------------------------------------------


class _UnfiniteError(Exception):
    """The sample makes a value that is not finite: draw another."""


def truth(
    program: Program,
    sizes: Mapping[str, int],
    length: int,
    rng: np.random.Generator,
    values: Mapping[str, Array] | None = None,
) -> Truth:
    """A random sample of `program`, and its true gradient.

    Raises KinkError where the sample lies on a kink, and an error where it is not finite.
    """
    loss = (program.loss,) if program.loss else ()
    program = with_outputs(program, (*loss, *(s.name for s in program.states)))
    given = sampling.draw(program, length, sizes, rng, values or {})
    given |= sampling.warmed(program, given, sizes, rng)
    bad = sampling.unfinite(program, forward(program, given, sizes, length), length)
    if bad is not None:
        raise _UnfiniteError(f"`{bad.name}` is {bad.value}")
    cotangents = sampling.randoms(program, outputs(program), length, sizes, rng)
    analytic = all(OPS[n.op].branch is None for n in walk(*(e.rhs for e in program.equations)))
    found = Truth(program, lower(program), sizes, length, given, cotangents, analytic, ())
    losses = [cotangents]
    if program.loss:
        losses.append({Port(program.loss, At.STEPS): np.ones(length)})

    def value(point: Mapping[Port, Array], sides: list[Array] | None) -> Array:
        return _flat(run(program, point, sizes, branches=sides, length=length), cotangents)

    still = {port: np.zeros_like(array) for port, array in cotangents.items()}
    weights = np.array([_flat({**still, **each}, cotangents) for each in losses])
    return replace(found, gradients=_true(value, given, wanted(program), weights, analytic))


def wanted(program: Program) -> list[Port]:
    """The input ports that have a gradient, all but true constants': inputs, states, parameters."""
    roles = {v.name: v.role for v in program.values}
    ports = [port for port in inputs(program) if roles.get(port.name) is not Role.CONST]
    return sorted(ports, key=lambda port: (port.at is At.CONST, port.at is At.START))


def _true(
    f: numeric.Function,
    point: Mapping[Any, Array],
    ports: Iterable[Any],
    weights: Array,
    analytic: bool,
) -> tuple[dict[Any, tuple[str, Array]], ...]:
    """The derivative of each row of weights @ f by each port, with the method that found it."""
    ports = list(ports)
    if analytic:
        exact = {port: numeric.complex_step(f, point, port, weights) for port in ports}
        return tuple(
            {port: ("complex step", array[row]) for port, array in exact.items()}
            for row in range(len(weights))
        )
    rough = {port: numeric.differences(f, point, port, weights) for port in ports}
    out: list[dict[Any, tuple[str, Array]]] = []
    for row in range(len(weights)):
        largest = _largest(array[row] for array in rough.values())
        found: dict[Any, tuple[str, Array]] = {}
        for port, array in rough.items():
            found[port] = ("differences", array[row])
            if _largest([array[row]]) <= FLOOR * largest:
                # differences drown a gradient this small in rounding; the complex step does not,
                # and here it is exact too, since no kink is near
                small = numeric.complex_step(f, point, port, weights[row : row + 1])
                found[port] = ("complex step", small[0])
        out.append(found)
    return tuple(out)


# --- the comparison -------------------------------------------------------------------------------


def judge(
    found: Truth, derived: Derived | Callable[[Program], Derived] | None = None
) -> tuple[Line, ...]:
    """The derived gradient, or that of the sweep given, held against the truth."""
    values = forward(found.lowered, found.given, found.sizes, found.length)
    adjoints, _ = pull(_sweep(found, derived), values, found.cotangents, found.sizes)
    lines = _compared(EVERYTHING, found, adjoints, found.gradients[0])
    if derived is None and found.program.loss:
        sweep = adjoint(found.lowered, (), unit=found.program.loss)
        adjoints, _ = pull(sweep, values, {}, found.sizes)
        lines += _compared(LOSS, found, adjoints, found.gradients[1])
    return tuple(lines)


@dataclass(frozen=True)
class SecondTruth:
    """What is true of the second derivatives of the sample `first`.

    phi, the sum of <direction, gradient>, has the gradient `mixed`, by incoming adjoints too.
    Along the directions `moved` is how the outputs move, `turned` how the gradient does.
    """

    first: Truth
    directions: Arrays
    mixed: dict[Any, tuple[str, Array]]
    moved: dict[Any, tuple[str, Array]]
    turned: dict[Any, tuple[str, Array]]


def second_truth(found: Truth, rng: np.random.Generator) -> SecondTruth:
    """Second derivatives as derivatives of the gradient, which `judge` has found right.

    Raises KinkError where the sample lies on a kink.
    """
    p, sizes, cotangents = found.lowered, found.sizes, found.cotangents
    directions = sampling.randoms(p, wanted(p), found.length, sizes, rng)
    ports = [port for port in outputs(p) if not port.adjoint]
    sweep = adjoint(p)
    # incoming adjoints stand beside the inputs in one point
    incoming = {Incoming(port): array for port, array in cotangents.items()}
    point: dict[Argument, Array] = {**found.given, **incoming}

    def value(at: Mapping[Any, Array], sides: list[Array] | None) -> Array:
        return _flat(run(found.program, at, sizes, branches=sides, length=found.length), ports)

    def gradient(at: Mapping[Any, Array], sides: list[Array] | None) -> Array:
        given = {port: at[port] for port in found.given}
        if sides is not None:
            run(found.program, given, sizes, branches=sides, length=found.length)
        weights = {port: at[Incoming(port)] for port in cotangents}
        values = forward(p, given, sizes, found.length)
        return _flat(pull(sweep, values, weights, sizes)[0], directions)

    by: list[Argument] = [*directions, *map(Incoming, cotangents)]
    weights = np.array([_flat(directions, directions)])
    (mixed,) = _true(gradient, point, by, weights, found.analytic)
    moved = numeric.along(value, found.given, directions, found.analytic)
    turned = numeric.along(gradient, point, directions, found.analytic)
    method = "complex step" if found.analytic else "differences"
    like = {port: cotangents[port] for port in ports}
    return SecondTruth(
        found,
        directions,
        mixed,
        _split(moved, like, method),
        _split(turned, directions, method),
    )


def judge_second(true: SecondTruth, derive: Callable[..., Derived] = adjoint) -> tuple[Line, ...]:
    """Second derivatives and forward mode, held against the truth. `derive` makes the sweeps."""
    found, directions = true.first, true.directions
    p, given, cotangents, sizes = found.lowered, found.given, found.cotangents, found.sizes
    by_input, by_cotangent = second(p, given, cotangents, directions, sizes, derive=derive)
    mixed = {**by_input, **{Incoming(port): array for port, array in by_cotangent.items()}}
    still = {port: np.zeros_like(array) for port, array in cotangents.items()}
    moved = tangents(p, forward(p, given, sizes, found.length), directions, sizes)
    turned = hessian_vector(p, given, cotangents, directions, sizes)
    return (
        *_compared(SECOND, found, mixed, true.mixed),
        *_compared(TANGENT, found, {**still, **moved}, true.moved),
        *_compared(HESSIAN, found, turned, true.turned),
    )


def _compared(
    group: str,
    found: Truth,
    derived: Mapping[Any, Array],
    true: Mapping[Any, tuple[str, Array]],
) -> list[Line]:
    largest = _largest(array for _, array in true.values())
    lines: list[Line] = []
    for port, (method, array) in true.items():
        kind, name = _label(found.program, port)
        lines.append(compare(group, kind, name, derived[port], array, largest, method))
    return lines


def cold_faults(
    found: Truth, derived: Derived | Callable[[Program], Derived] | None = None
) -> tuple[str, ...]:
    """What is not finite in one forward and backward pass from the declared start.

    The sample starts warm and never sees what training meets first: sqrt(0), x / 0.
    """
    sizes, length = found.sizes, found.length
    given = {**found.given, **sampling.declared(found.program, found.given, sizes)}
    bad = sampling.unfinite(found.program, forward(found.program, given, sizes, length), length)
    if bad is not None:
        return (f"from its declared start, `{bad.name}` is {bad.value}",)
    sweep = _sweep(found, derived)
    values = forward(found.lowered, given, sizes, length)
    _, values = pull(sweep, values, found.cotangents, sizes)
    bad = sampling.unfinite(sweep.program, values, length)
    if bad is None:
        return ()
    origin = sweep.program.equation(bad.name).origin
    return (f"backward from its declared start, `{bad.name}` is {bad.value} ({origin})",)


def warnings(program: Program, lines: Iterable[Line]) -> tuple[str, ...]:
    """What is right, yet worth a word: tensors on which nothing depends."""
    started = {name for s in program.states if s.start is not None for name, _ in refs(s.start)}
    read = {name for name, _ in refs(*(e.rhs for e in program.equations))}
    notes: list[str] = []
    for line in lines:
        if line.group == EVERYTHING and line.method == "zero" and line.ok:
            if line.name in started - read:
                notes.append(f"`{line.name}` is only a start: its gradient is that of the state")
            else:
                notes.append(f"the gradient by `{line.name}` is zero: nothing depends on it")
    return tuple(notes)


# --- small parts ----------------------------------------------------------------------------------


def _sweep(found: Truth, derived: Derived | Callable[[Program], Derived] | None) -> Derived:
    if derived is None:
        return adjoint(found.lowered)
    return derived if isinstance(derived, Derived) else derived(found.lowered)


def _flat(values: Mapping[Any, Array], ports: Iterable[Any]) -> Array:
    return np.concatenate([np.ravel(values[port]) for port in ports])


def _split(flat: Array, like: Mapping[Any, Array], method: str) -> dict[Any, tuple[str, Array]]:
    out: dict[Any, tuple[str, Array]] = {}
    start = 0
    for port, array in like.items():
        shape = np.shape(array)
        end = start + int(np.prod(shape))
        out[port] = method, flat[start:end].reshape(shape)
        start = end
    return out


def _largest(arrays: Iterable[Array]) -> float:
    return max((float(np.max(np.abs(a))) for a in arrays if np.size(a)), default=0.0)


def _label(p: Program, port: Argument) -> tuple[str, str]:
    """What kind of tensor a port is, and what to call it."""
    if isinstance(port, str):
        return "direction", port
    if isinstance(port, Incoming):
        return "adjoint", _label(p, port.port)[1]
    tail = {At.FIRST: "[-1]", At.LAST: "[T]", At.START: "[start]", At.FINAL: "[final]"}
    name = port.name + tail.get(port.at, "")
    if port.adjoint:
        return "emitted", name
    kinds = {v.name: v.role for v in p.values}
    if port.at is At.START:
        return "state", name
    if port.name not in kinds:
        once = p.equation(port.name).kind is not Kind.STEP
        return ("constant" if once else "value"), name
    return ("parameter" if kinds[port.name] is Role.PARAM else "input"), name
