"""What the names of a hand-written backward pass stand for, and its values from end to start.

A name stands for the gradient that it spells (`d_h`, `dz_i`, `direct_h`, `next_h`, `now_h`, or
`δh`, `dh` for the first), for what a `means:` line says, or, where nothing says, for what its own
line defines.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bptt.errors import CellError
from bptt.ir.dims import terms
from bptt.language.hand import Hand, HandLine, Meaning, everything
from bptt.language.near import did_you_mean
from bptt.language.scope import to_dim
from bptt.language.tree import Expr, said
from bptt.proof.functions import FUNCTIONS, slope_of
from bptt.proof.hand import evaluate
from bptt.proof.world import MisfitError, World

Array = Any

_PREFIXES = ("δ_", "δ", "d")  # before what a gradient is by
_GRADIENTS = ("d_", "dz_", "dq_", "e_", "direct_", "next_", "now_")


@dataclass(frozen=True, eq=False)
class Notation:
    """The names of a hand-written pass.

    `timed` says of each name that the author gives a value whether it has a time; `meanings` what
    it stands for, in the names of gradients; a name without a meaning is defined by its line.
    """

    hand: Hand
    timed: Mapping[str, bool]
    meanings: Mapping[str, Expr]

    def stands_for_gradient(self, name: str) -> bool:
        """Whether a name stands for a gradient."""
        meaning = self.meanings.get(name)
        if meaning is None:
            return name.startswith(_GRADIENTS)
        return any(e.name.startswith(_GRADIENTS) for e in everything(meaning))

    def gradients(self) -> list[str]:
        """The names that stand for gradients."""
        return [name for name in self.meanings if self.stands_for_gradient(name)]

    def definitions(self) -> list[str]:
        """The names that only their own lines define."""
        return [name for name in self.timed if name not in self.meanings]


def notation(hand: Hand, world: World, cell: Collection[str]) -> Notation:
    """The names of a pass, looked up in a world of a cell whose values are called `cell`.

    Raises CellError for a name that nothing gives, and for one with a time where it has none.
    """
    hand = replace(hand, meanings=tuple(_at_each_step(m, world) for m in hand.meanings))
    timed: dict[str, bool] = {}
    for left in (*(m.left for m in hand.meanings), *(line.left for line in hand.lines)):
        has_time = left.op != "name" or left.lag is not None
        if timed.setdefault(left.name, has_time) != has_time:
            raise CellError(f"`{left.name}` is used both with and without a time", left.span)
        if left.name in cell:
            help = f"its gradient is called `d_{left.name}`"
            raise CellError(f"`{left.name}` is a value of the cell", left.span, help=help)
    meanings: dict[str, Expr] = {}
    for m in hand.meanings:
        if m.left.name in meanings:
            raise CellError(f"`{m.left.name}` is given two meanings", m.left.span)
        meanings[m.left.name] = m.right
    for line in hand.lines:
        name = line.left.name
        if name not in meanings and (known := _spelled(name, world, cell)) is not None:
            span = line.left.span
            if timed[name] != (known in world.series):
                help = f"write `{name} = sum_t(...)`" if timed[name] else f"write `{name}[t] = ...`"
                what = "has no time" if timed[name] else "has a time, and stands here without"
                raise CellError(f"`{name}` {what}", span, help=help)
            at = 0 if timed[name] else None
            meanings[name] = Expr("name", span, span, name=known, lag=at)
    for e in (e for line in hand.lines for e in everything(line.right)):
        new = e.op in ("name", "fixed", "last") and e.name not in (*timed, *cell)
        known = _spelled(e.name, world, cell) if new else None
        if known is not None and known != e.name:
            timed[e.name] = known in world.series
            at = 0 if timed[e.name] else None
            meanings[e.name] = Expr("name", e.span, e.span, name=known, lag=at)
    for name, meaning in meanings.items():
        series = any(_has_time(e) for e in everything(meaning))
        if series != timed[name]:
            what = f"`{name}` {'has a time' if timed[name] else 'has no time'}, and its meaning "
            what += "has none" if timed[name] else "has one"
            raise CellError(what, meaning.span)
    found = Notation(hand, timed, meanings)
    for m in hand.meanings:
        _look_up(m.right, world, {}, cell)
    for line in hand.lines:
        _look_up(line.right, world, timed, cell)
    return found


def _at_each_step(m: Meaning, world: World) -> Meaning:
    """`means: g = d_o` is short for `means: g[t] = d_o[t]` where that has a time."""
    found: dict[Expr, Expr] = {}
    for e in everything(m.right) if m.left.lag is None else ():
        bare = e.op == "name" and e.lag is None and e.name in world.series
        found[e] = replace(e, lag=0 if bare else e.lag, args=tuple(found.get(a, a) for a in e.args))
    right = found.get(m.right, m.right)
    series = any(e.op == "name" and e.lag is not None for e in everything(right))
    return Meaning(replace(m.left, lag=0) if series else m.left, right)


def _spelled(name: str, world: World, cell: Collection[str]) -> str | None:
    """The gradient that a name spells, if it spells one."""
    if name in world.series or name in world.constants:
        return name
    for prefix in _PREFIXES:
        rest = name.removeprefix(prefix)
        if rest != name and rest in cell and f"d_{rest}" in (*world.series, *world.constants):
            return f"d_{rest}"
        if rest != name and f"d{rest}" in world.series and rest.startswith("z_"):
            return f"d{rest}"
    return None


def _has_time(e: Expr) -> bool:
    return e.op in ("fixed", "last") or (e.op == "name" and e.lag is not None) or e.name == "jac"


def _look_up(root: Expr, world: World, timed: Mapping[str, bool], cell: Collection[str]) -> None:
    for e in everything(root):
        if e.op in ("name", "fixed", "last"):
            _look_up_name(e, world, timed, cell)
        elif e.op == "call":
            _look_up_function(e, world)
        elif e.op == "slice":
            for bound in (b for span in e.args[1:] for b in span.args if b.op != "end"):
                for name in terms(to_dim(bound)):
                    if name and name not in world.sizes:
                        help = f"the sizes are {', '.join(world.sizes)}"
                        raise CellError(f"there is no size `{name}`", bound.span, help=help)


def _look_up_name(e: Expr, world: World, timed: Mapping[str, bool], cell: Collection[str]) -> None:
    has_time = e.op != "name" or e.lag is not None
    constant = e.name in world.constants or (e.name in world.sizes and not has_time)
    known = timed.get(e.name, True if e.name in world.series else False if constant else None)
    if known is None:
        names = (*timed, *cell, *(n for n in (*world.series, *world.constants)))
        base = e.name.removesuffix("_t")
        help = did_you_mean(e.name, names) or "a name is a value of the cell, or has a line here"
        if base != e.name and base in (*cell, *timed):
            help = f"time is written `{base}[t]`"
        raise CellError(f"nothing is called `{e.name}`", e.span, help=help)
    if known != has_time:
        what = "has a time, and stands here without" if known else "has no time"
        help = f"write `{e.name}[t]` or `{e.name}[t+1]`" if known else f"write `{e.name}`"
        raise CellError(f"`{e.name}` {what}", e.span, help=help)


def _look_up_function(e: Expr, world: World) -> None:
    bound = world.functions.get(e.name) or world.macros.get(e.name)
    if bound is not None:
        least = most = len(bound.parameters)
    elif e.name in FUNCTIONS:
        least, most = FUNCTIONS[e.name]
    elif (slope := slope_of(e, world.functions)) is not None:
        least = most = len(slope[0].parameters)
    elif open_ := next((n for n in world.functions if e.name.startswith(f"d{n}_d")), None):
        by = e.name.removeprefix(f"d{open_}_d")
        help = f"the derivative by the first argument is `d{open_}_d1(...)`"
        raise CellError(f"no argument of `{said(e.span)}` is called `{by}`", e.span, help=help)
    else:
        known = (*world.functions, *world.macros, *FUNCTIONS)
        help = did_you_mean(e.name, known)
        if e.name.startswith(("Σ", "∑", "sum")):
            help = "a sum over all steps is written `sum_t(...)`"
        raise CellError(f"unknown function `{e.name}`", e.at, help=help)
    if not least <= len(e.args) <= most:
        count = str(least) if least == most else f"{least} to {most}"
        what = f"`{e.name}` takes {count} argument{'s' * (most > 1)}, not {len(e.args)}"
        raise CellError(what, e.span)
    if e.name == "jac":
        _look_up_jacobian(e, world)
    if any(a.op == "call" and a.name == "sum_t" for a in everything(e)) and e.name == "sum_t":
        inner = [a for a in everything(e.args[0]) if a.op == "call" and a.name == "sum_t"]
        if inner:
            raise CellError("a sum over time within a sum over time", inner[0].span)


def _look_up_jacobian(e: Expr, world: World) -> None:
    for k, a in enumerate(e.args):
        series = a.name in world.series and not a.name.startswith(_GRADIENTS)
        constant = world.constants.get(a.name)
        by = k == 1 and a.lag is None and constant is not None and np.ndim(constant) < 2
        if a.op != "name" or not ((series and (a.lag is None) == (k > 1)) or by):
            help = (
                "`jac(h[t], c[t])` is the derivative of h[t] by c[t], `jac(h[t], c[t], o)` holds o"
            )
            what = "`jac` is of a value over time, by another one or by a vector"
            raise CellError(what, a.span, help=help)


# --- values -------------------------------------------------------------------------------------


def informed(found: Notation, world: World) -> World:
    """The world, in which the author's names have the exact values of what they stand for, and
    definitions what their lines give with these. Raises MisfitError for such a line."""
    series, constants = dict(world.series), dict(world.constants)
    for name, meaning in found.meanings.items():
        if found.timed[name]:
            series[name] = over_time(meaning, world)
        else:
            constants[name] = evaluate(meaning, world, np.arange(world.length)).array[0]
    known = replace(world, series=series, constants=constants)
    own = found.definitions()
    lines = [line for line in found.hand.lines if line.left.name in own and not line.more]
    return Follow(lines, known, found.timed, found.gradients()).followed()


def over_time(meaning: Expr, world: World) -> Array:
    """The values of a meaning at every step, one before the first and one behind the last."""
    array = evaluate(meaning, world, np.arange(-1, world.length + 1)).array
    return np.broadcast_to(array, (world.length + 2, *array.shape[1:])).copy()


class Follow:
    """Computes a pass as its lines say: constants, then step by step from the last to the first,
    then what sums over time. `gradients` are names that stand for one.

    Raises CellError where a line needs what comes only after it."""

    def __init__(
        self,
        lines: Iterable[HandLine],
        world: World,
        timed: Mapping[str, bool],
        gradients: Collection[str] = (),
    ) -> None:
        self.lines = [line for line in lines if not line.more]
        self.world, self.timed, self.gradients = world, timed, set(gradients)
        self.own = {line.left.name for line in self.lines}
        self.series = {k: v for k, v in world.series.items() if k not in self.own}
        self.constants = {k: v for k, v in world.constants.items() if k not in self.own}
        self.unset = {name for name in self.own if timed[name]}
        self.here = replace(world, series=self.series, constants=self.constants, unset=self.unset)

    def followed(self) -> World:
        """The world with the values that the lines give."""
        once = [line for line in self.lines if _has_no_step(line)]
        steps = [line for line in self.lines if line not in once]
        early = self.ready(once)
        self.run(early, None)
        ahead = self.of_values(steps)
        for t in range(self.world.length):
            self.run([line for line in ahead if self.holds(line, t)], t)
        for name in {line.left.name for line in ahead if line.left.lag == 0} & set(self.series):
            self.series[name][-1] = self.series[name][-2]  # like the values of the forward pass
        behind = [line for line in steps if line not in ahead]
        for t in range(self.world.length - 1, -1, -1):
            self.run([line for line in behind if self.holds(line, t)], t)
        self.run([line for line in once if line not in early], None)
        return self.here

    def ready(self, once: list[HandLine]) -> list[HandLine]:
        """The lines that need nothing that has a time."""
        found: list[HandLine] = []
        known: set[str] = set()
        for _ in once:
            for line in once:
                names = [e for e in everything(line.right) if e.op in ("name", "fixed", "last")]
                ready = all(
                    e.op == "name" and e.lag is None and (e.name not in self.own or e.name in known)
                    for e in names
                )
                if ready and line not in found and line.left.op == "name":
                    found.append(line)
                    known.add(line.left.name)
        return found

    def of_values(self, steps: list[HandLine]) -> list[HandLine]:
        """The lines that read values of the forward pass only."""
        late = {n for n in (*self.world.series, *self.own) if n.startswith(_GRADIENTS)}
        late |= self.gradients
        for _ in steps:
            for line in steps:
                reads = {e.name for e in everything(line.right)}
                ahead = any(e.name in self.own and (e.lag or 0) < 0 for e in everything(line.right))
                if reads & late or ahead:
                    late.add(line.left.name)
        return [line for line in steps if line.left.name not in late]

    def holds(self, line: HandLine, t: int) -> bool:
        """Whether a line is the one for its name at step t."""
        end = self.world.length - 1
        last = t == end
        if line.left.op == "last":
            return t == min(max(end - (line.left.lag or 0), 0), end)
        if line.when == "last" or (line.when == "earlier" and last):
            return last and line.when == "last"
        special = {
            x.left.name
            for x in self.lines
            if (x.left.op, x.left.lag) == ("last", 0) or (x.left.op == "name" and x.when == "last")
        }
        return not (last and not line.left.lag and line.left.name in special)

    def run(self, lines: list[HandLine], t: int | None) -> None:
        """Some lines, each after those that it reads."""
        left = list(lines)
        while left:
            line = next((x for x in left if not self.waits(x, left, t)), None)
            if line is None:
                name = left[0].left
                what = f"`{said(name.span)}` and what it reads need each other in the same step"
                raise CellError(what, name.span, help="one of them must read `[t+1]`")
            left.remove(line)
            self.write(line, t)

    def waits(self, line: HandLine, left: list[HandLine], t: int | None) -> bool:
        places = {(x.left.name, _step(x.left, t, self.world.length)) for x in left}
        return any(
            (e.name, _step(e, t, self.world.length)) in places
            for e in everything(line.right)
            if e.op in ("name", "fixed", "last")
        )

    def write(self, line: HandLine, t: int | None) -> None:
        name, length = line.left.name, self.world.length
        times = np.arange(length) if t is None else np.array([t])
        if line.adds and line.when:
            times = times[-1:] if line.when == "last" else times[:-1]
        for e in everything(line.right):
            if e.name in self.own and not (self.timed[e.name] or e.name in self.constants):
                raise CellError(f"`{said(e.span)}` is read before a line gives it", e.span)
        found = evaluate(line.right, self.here, times)
        if found.nothing:
            return
        array = found.array
        if line.adds:
            array = array.sum(0, keepdims=True) * (len(times) if len(array) == 1 else 1)
            known = self.constants.get(name, np.zeros(array.shape[1:]))
            if np.shape(known) != array.shape[1:]:
                raise MisfitError(f"`{name}` has two sizes", line.left.span)
            array = array + known
        if not self.timed[name]:
            self.constants[name] = array[0]
            return
        if name not in self.series:
            self.series[name] = np.zeros((length + 2, *array.shape[1:]), array.dtype)
            self.unset.discard(name)
        slot = _step(line.left, t, length)
        assert slot is not None
        if not -1 <= slot <= length:
            raise CellError(f"`{said(line.left.span)}` lies outside of time", line.left.span)
        if self.series[name].shape[1:] != array.shape[1:]:
            raise MisfitError(f"`{name}` has two sizes", line.left.span)
        self.series[name][slot + 1] = array[0]


def _has_no_step(line: HandLine) -> bool:
    """Whether a line is none of the sweep over time: it has no `[t]` and no `[T]`."""
    return line.left.op == "fixed" or (line.left.op == "name" and line.left.lag is None)


def _step(e: Expr, t: int | None, length: int) -> int | None:
    """The step that a name stands at when its line is at step t."""
    if e.op == "fixed":
        return e.lag
    if e.op == "last":
        return length - 1 - (e.lag or 0)
    return None if t is None or e.lag is None else t - e.lag
