"""A hand-written backward pass as it is read: names, samples, and how far lines are off."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from bptt.calculus.readable import By
from bptt.errors import CellError, UserError
from bptt.ir.program import MACHINE
from bptt.language.check import Checked, binding
from bptt.language.check import check as check_tree
from bptt.language.hand import HandLine, everything
from bptt.language.tree import Definition, Expr
from bptt.proof.derived import reference
from bptt.proof.exact import LENGTH, Sample, labels, world
from bptt.proof.hand import Evaluation
from bptt.proof.notation import Follow, informed, notation
from bptt.proof.report import FLOOR
from bptt.proof.scenes import Scene, conditions
from bptt.proof.world import LIMIT, MisfitError, World

Array = Any

_DRAWS = 3  # samples in which a line must be right, so that it takes every branch of a kink
TRIES = 100_000  # changes that are tried to explain wrong lines: some ten seconds
# What an open function of a vector is: one whose derivatives are no symmetric matrix.
_VECTOR = "f(v) = softmax(v) * cumsum(v)"

_DEFINITIONS, _LINES = 12, 100  # no more definitions are settled, in no longer passes


class Reader:
    """A hand-written pass, read, and the samples in which it is judged."""

    def __init__(
        self,
        checked: Checked,
        functions: Mapping[str, str],
        values: Mapping[str, Array],
        explain: bool,
        seed: int,
    ) -> None:
        assert checked.tree.hand is not None
        self.checked, self.values = checked, values
        vectors = [name for name, kind in checked.functions.items() if kind == "vector"]
        self.functions = {**functions, **dict.fromkeys(vectors, _VECTOR)}
        self.hand, self.explain = checked.tree.hand, explain
        declared = checked.tree.declared("function")
        self.kinds = {d.name: d.kind or "elementwise" for d in declared}
        self.p = checked.program
        self.cell = [v.name for v in self.p.values] + [e.name for e in self.p.equations]
        both = [x for m in self.hand.meanings for x in (m.left, m.right)]
        both += [x for line in self.hand.lines for x in (line.left, line.right)]
        names = {e.name for x in both for e in everything(x)}
        states = [s.name for s in self.p.states if MACHINE not in s.name]
        self.seen = tuple(s for s in states if f"direct_{s}" in names and self.p.loss is None)
        self.tries = [TRIES]
        self.bindings: dict[bool, tuple[Checked, dict[str, Definition]]] = {}
        self.worlds: dict[Scene, World] = {}
        self.informed: dict[Scene, World] = {}
        self.helpers = self.reference(names)
        self.general = [Scene("", Sample(_DRAWS * seed + k, seen=self.seen)) for k in range(_DRAWS)]
        self.notation = notation(self.hand, self.world(self.general[0]), self.cell)
        self.settle()

    def reference(self, names: set[str]) -> tuple[HandLine, ...]:
        """The lines of `bptt derive` in the notation whose names the author uses; an author may
        have copied names from there that only these lines define."""

        def common(lines: tuple[HandLine, ...]) -> int:
            return len(names & {line.left.name for line in lines})

        try:
            return max((reference(self.p, by, self.seen) for by in get_args(By)), key=common)
        except UserError:  # too long for any reader
            return ()

    # --- samples ---

    def world(self, scene: Scene) -> World:
        """The exact values in a scene, helpers of the derivation among them."""
        if scene not in self.worlds:
            checked, definitions = self.bound(scene.elementwise)
            found = world(checked, scene.sample, self.values, definitions)
            self.worlds[scene] = self.helped(found, self.helpers)
        return self.worlds[scene]

    def bound(self, elementwise: bool) -> tuple[Checked, dict[str, Definition]]:
        """The cell with all functions bound, those of vectors `elementwise` or not."""
        if elementwise not in self.bindings:
            bound, kinds = {**self.functions}, self.kinds
            if elementwise:
                bound |= {name: "tanh" for name, kind in kinds.items() if kind == "vector"}
            definitions = {name: binding(name, text, kinds[name]) for name, text in bound.items()}
            self.bindings[elementwise] = check_tree(self.checked.tree, functions=bound), definitions
        return self.bindings[elementwise]

    def helped(self, found: World, helpers: Iterable[HandLine]) -> World:
        """The world with what lines of the derivation define, where nothing else does."""
        known = {*found.series, *found.constants}
        lines = [x for x in helpers if x.left.name not in known]
        if not lines:
            return found
        timed = {x.left.name: x.left.op != "name" or x.left.lag is not None for x in lines}
        return Follow(lines, found, timed).followed()

    def exact(self, scene: Scene) -> World:
        """The world with the author's names."""
        if scene not in self.informed:
            try:
                self.informed[scene] = informed(self.notation, self.world(scene))
            except MisfitError as error:
                raise CellError(f"sizes do not fit: {error.what}", error.span) from None
        return self.informed[scene]

    def conditions(self) -> Iterator[list[Scene]]:
        """The conditions under which a line may be right, the simplest first, in every draw."""
        vectors = [n for n, kind in self.kinds.items() if kind == "vector"]
        return conditions(vectors, labels(self.p), self.general)

    # --- names that do not say enough ---

    def settle(self) -> None:
        """Read names so that the fewest lines are wrong: `δi` may be the gradient by the argument
        of i's function, and a definition may be a gradient that its own line misses."""
        self.read_as: dict[str, str] = {}
        world = self.world(self.general[0])
        given = {m.left.name for m in self.hand.meanings}
        lines = {line.left.name for line in self.hand.lines}
        flips = {
            name: meaning.name.replace("d_", "dz_", 1)
            for name, meaning in self.notation.meanings.items()
            if name in lines - given and name != meaning.name and meaning.name.startswith("d_")
        }
        self.adopt({n: (to, 0) for n, to in flips.items() if to in world.series})
        series = [(n, 0) for n in world.series if n.startswith(("dz_", "d_", "next_"))]
        series += [(n, 1) for n in world.series if n.startswith("next_")]
        for name in self.notation.definitions()[:_DEFINITIONS]:
            if len(self.hand.lines) > _LINES or not self.notation.timed[name] or not self.wrong():
                continue
            mine = self.exact(self.general[0]).series.get(name)
            alike = [
                x for x in series if mine is not None and mine.shape == world.series[x[0]].shape
            ]
            next((other for other in alike if self.adopt({name: other})), None)

    def adopt(self, meanings: Mapping[str, tuple[str, int]]) -> bool:
        """Give names these meanings, gradients some steps before, if fewer lines are wrong then."""
        before, count = self.notation, self.wrong()
        if not meanings or not count:
            return False
        span = self.hand.lines[0].left.span
        more = {n: Expr("name", span, span, name=to, lag=k) for n, (to, k) in meanings.items()}
        self.notation = replace(before, meanings={**before.meanings, **more})
        self.informed.clear()
        if self.wrong(but=set(meanings) - set(before.meanings)) < count:
            times = {name: f"[t{-k:+d}]" if k else "[t]" for name, (_, k) in meanings.items()}
            self.read_as |= {name: to + times[name] for name, (to, _) in meanings.items()}
            return True
        self.notation = before
        self.informed.clear()
        return False

    def wrong(self, but: Container[str] = ()) -> int:
        """How many lines are wrong in one sample, those for the names in `but` aside."""
        judged = (x for x in self.hand.lines if x.left.name in self.notation.meanings)
        scene = self.general[:1]
        try:
            return sum(bool(self.error(x, scene)[1]) for x in judged if x.left.name not in but)
        except CellError:  # a definition whose sizes do not fit
            return len(self.hand.lines)

    # --- lines and what they should give ---

    def times(self, line: HandLine) -> Array:
        every = np.arange(LENGTH)
        if line.left.op != "name" or (line.left.lag is None and not line.adds):
            return every
        return {"": every, "last": every[-1:], "earlier": every[:-1]}[line.when]

    def truth(self, line: HandLine, exact: World) -> Array:
        """What a line should give, at its steps."""
        left, times = line.left, self.times(line)
        if left.op == "fixed":
            return exact.at(left.name, np.array([left.lag or 0]))
        if left.op == "last":
            return exact.at(left.name, np.array([LENGTH - 1 - (left.lag or 0)]))
        if left.lag is not None:
            return exact.at(left.name, times - left.lag)
        true = exact.constants[left.name][None]
        others = (x for x in self.hand.lines if x is not line and x.left.name == left.name)
        for other in others if line.adds else ():  # what further `+=` lines leave for this one
            with suppress(MisfitError):
                array = Evaluation(other.right, exact, self.times(other)).value.array
                true = true - (self.added(array, other) if other.adds else array)
        return true

    def added(self, array: Array, line: HandLine) -> Array:
        """What a `+=` line adds up to."""
        steps = len(self.times(line))
        return array.sum(0, keepdims=True) * (steps if len(array) == 1 else 1)

    def error(self, line: HandLine, scenes: Iterable[Scene]) -> tuple[float, tuple[int, ...], str]:
        """How far a line is off, at which steps, and why it has no value, if so."""
        worst, wrong = 0.0, set[int]()
        for scene in scenes:
            exact = self.exact(scene)
            truth = self.truth(line, exact)
            try:
                value = Evaluation(line.right, exact, self.times(line)).value
                array = value.array
                if line.adds:
                    array = self.added(array, line)
                if array.shape[1:] != truth.shape[1:]:
                    what = f"it is {exact.shown(array.shape[1:])}"
                    what += f" and should be {exact.shown(truth.shape[1:])}"
                    raise MisfitError(what, line.right.span)
            except MisfitError as error:
                return float("inf"), tuple(map(int, self.times(line))), error.what
            gap = np.abs(array - truth).reshape(len(truth), -1)
            scale = max(float(np.max(np.abs(truth), initial=0)), FLOOR * largest(exact))
            each = np.where(np.isfinite(gap), gap, np.inf).max(1, initial=0) / scale
            worst = max(worst, float(each.max()))
            steps = self.times(line) if len(each) > 1 else self.times(line)[:1]
            wrong |= {int(t) for t, e in zip(steps, each, strict=False) if e > LIMIT}
        return worst, tuple(sorted(wrong)), ""


def largest(exact: World) -> float:
    """The largest entry of any gradient of the sample."""
    arrays = [a for n, a in (*exact.series.items(), *exact.constants.items()) if n.startswith("d_")]
    return max((float(np.max(np.abs(a), initial=0)) for a in arrays), default=0.0) or 1.0
