"""The truth that derivatives are held against: complex step, or four-point differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from bptt.ir.ports import Port

Array = Any
Arrays = dict[Port, Array]
# Many values at a point, flat. The second argument collects which side of its kinks each op is on.
Function = Callable[[Mapping[Any, Array], list[Array] | None], Array]

COMPLEX_STEP = 1e-30
FIRST_STEP, LAST_STEP = 1e-3, 1e-5
# By h**4 a derivative of the fifth order comes in, and that of tanh(9*x) is large; by 1/h rounding.
FINER = 4
ROUNDINGS = 16 * 2.2e-16  # of a value that some ten operations made


class KinkError(Exception):
    """The point is so near a kink that no step by `port` stays on its side: draw another."""

    def __init__(self, port: Any) -> None:
        super().__init__(f"a kink next to {port}")
        self.port = port


def complex_step(f: Function, point: Mapping[Any, Array], port: Any, weights: Array) -> Array:
    """The derivative by point[port] of weights @ f: [rows of weights, *shape], to rounding."""

    def slope(move: Callable[[complex], Array], size: float) -> Array:
        return weights @ f({**point, port: move(1j * COMPLEX_STEP)}, None).imag / COMPLEX_STEP

    return _entries(point, port, weights, slope)


def differences(f: Function, point: Mapping[Any, Array], port: Any, weights: Array) -> Array:
    """The same by (8(f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, for functions with kinks.

    All four points must lie on the same side of every kink as the point itself; else h is
    halved. Raises KinkError where no h does. Where a finer step gives another number than
    rounding explains, it is the better one. Values are subtracted before they are weighted, so
    that what an entry does not touch adds no rounding.
    """
    here = branches(f, point)

    def at(move: Callable[[complex], Array], h: float) -> tuple[Array, Array] | None:
        """The slope by a step, and how much of it may be rounding; None beyond a kink."""
        sides: list[list[Array]] = [[], [], [], []]
        a, b, c, d = (
            f({**point, port: move(k * h)}, side)
            for k, side in zip((1, -1, 2, -2), sides, strict=True)
        )
        if not all(same(here, side) for side in sides):
            return None
        touched = np.where(a == b, 0, np.abs(a) + np.abs(c))
        noise = ROUNDINGS * (np.abs(weights) @ touched) / h
        return weights @ ((8 * (a - b) - (c - d)) / (12 * h)), noise

    def slope(move: Callable[[complex], Array], size: float) -> Array:
        h = FIRST_STEP * max(1.0, size)
        while h >= LAST_STEP:
            coarse, fine = at(move, h), at(move, h / FINER)
            if coarse is not None and fine is not None:
                (found, _), (finer, noise) = coarse, fine
                unlike = np.abs(found - finer) > noise
                found[unlike] = finer[unlike]
                return found
            h /= 2
        raise KinkError(port)

    return _entries(point, port, weights, slope)


# The one argument of a function along a line.
LINE = "the direction"


def along(
    f: Function, point: Mapping[Any, Array], direction: Mapping[Any, Array], analytic: bool
) -> Array:
    """The derivative of f along `direction`. Raises KinkError as `differences` does."""
    # a step of the same length as that of one entry: a long direction is many steps at once
    length = float(np.sqrt(sum(np.sum(np.square(v)) for v in direction.values())))

    def moved(extra: Mapping[Any, Array], sides: list[Array] | None) -> Array:
        s = extra[LINE] / length
        return f({**point, **{port: point[port] + s * v for port, v in direction.items()}}, sides)

    everything = np.eye(len(f(point, None)))
    way = complex_step if analytic else differences
    return length * way(moved, {LINE: np.zeros(())}, LINE, everything)


def branches(f: Function, point: Mapping[Any, Array]) -> list[Array]:
    """Which side of its kinks every op is on at `point`."""
    sides: list[Array] = []
    f(point, sides)
    return sides


def same(a: Iterable[Array], b: Iterable[Array]) -> bool:
    """Whether two points are on the same side of every kink."""
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _entries(
    point: Mapping[Any, Array],
    port: Any,
    weights: Array,
    slope: Callable[[Callable[[complex], Array], float], Array],
) -> Array:
    """slope(move, size) for each entry of point[port]; move(s) is the array, that entry s on."""
    array = np.asarray(point[port])
    found = np.zeros((len(weights), *array.shape))
    for index in np.ndindex(array.shape):

        def move(step: complex, index: tuple[int, ...] = index) -> Array:
            moved = array.astype(complex if isinstance(step, complex) else float)
            moved[index] += step
            return moved

        found[:, *index] = slope(move, abs(float(array[index])))
    return found
