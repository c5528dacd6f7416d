"""Values without time, by generated code: what a backend works out before a sweep and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bptt.backends.arrays import table
from bptt.backends.generated import compiled
from bptt.ir.dims import terms
from bptt.ir.program import Equation, Program
from bptt.printers.numpy import print_once

Array = Any


class WithoutTime:
    """Equations of one Program without time, as a function of arrays [G or 1, *dims]."""

    def __init__(self, equations: tuple[Equation, ...], p: Program) -> None:
        dims = [d for v in p.values for d in v.dims]
        dims += [d for e in (*p.equations, *equations) for d in e.rhs.dims]
        self.sizes = sorted({s for d in dims for s in terms(d) if s})
        self.names = frozenset(e.name for e in equations)
        self.function = compiled(print_once(equations, "once", self.sizes), "once")

    def __call__(
        self, known: Mapping[str, Array], sizes: Mapping[str, int], like: Array
    ) -> dict[str, Array]:
        """The values, [G or 1, *dims], in the number format of `like`."""
        if not self.names:
            return {}
        x, printed = table(like), self.function.printed
        given = [known[name] for name in printed.constants]
        found = self.function.call(x, [sizes[s] for s in self.sizes], given, like)
        return {n: x.cast(a, like) for n, a in zip(printed.returns, found, strict=True)}
