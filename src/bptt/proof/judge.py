"""Hand-written backward passes, judged line by line and as a whole.

Each line is fed with exact values of all that it reads, so a wrong line does not blame those that
read it. What is exact follows from the derivation, which `gradcheck` proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, get_args

import numpy as np

from bptt.calculus.readable import By
from bptt.errors import CellError, UserError
from bptt.ir.program import MACHINE, Role
from bptt.language.check import Checked, binding
from bptt.language.check import check as check_tree
from bptt.language.hand import HandLine, everything
from bptt.language.tree import Expr, said
from bptt.proof.changes import Case
from bptt.proof.derived import Derived, derived, reference
from bptt.proof.exact import LENGTH, Sample, labels, world
from bptt.proof.hand import Evaluation
from bptt.proof.notation import Follow, informed, notation
from bptt.proof.report import FLOOR
from bptt.proof.scenes import Scene, conditions
from bptt.proof.slips import differences
from bptt.proof.verdicts import Judgement, LineVerdict, Whole
from bptt.proof.world import MisfitError, World

Array = Any

# How far a line may be from the truth, as a part of the largest entry of the tensor. Both are the
# same sums of a few products; an author's rounded constant is none of them.
LIMIT = 1e-9
_DRAWS = 3  # samples in which a line must be right, so that it takes every branch of a kink
_TRIES = 100_000  # changes that are tried to explain wrong lines: some ten seconds
# What an open function of a vector is: one whose derivatives are no symmetric matrix.
_VECTOR = "f(v) = softmax(v) * cumsum(v)"


def judge(
    checked: Checked,
    functions: Mapping[str, str],
    values: Mapping[str, Array],
    *,
    explain: bool = True,
) -> Judgement:
    """The hand-written backward pass in a cell's text, judged.

    `functions` binds what the cell leaves open; `values` are its constants. Without `explain`
    wrong lines are found, and not what is wrong with them. Raises CellError where the pass cannot
    be read, UserError where there is none.
    """
    if checked.tree.hand is None or not checked.tree.hand.lines:
        raise UserError(
            "there is no hand-written backward pass to judge",
            help="write it behind the loss, in a block `backward:`",
        )
    return _Judge(checked, functions, values, explain).judgement()


class _Judge:
    def __init__(
        self,
        checked: Checked,
        functions: Mapping[str, str],
        values: Mapping[str, Array],
        explain: bool,
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
        self.tries = [_TRIES]
        self.worlds: dict[Scene, World] = {}
        self.informed: dict[Scene, World] = {}
        self.helpers = self.reference(names)
        self.general = [Scene("", Sample(seed=k, seen=self.seen)) for k in range(_DRAWS)]
        self.notation = notation(self.hand, self.world(self.general[0]), self.cell)

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
            bound, kinds = {**self.functions}, self.kinds
            if scene.elementwise:
                bound |= {name: "tanh" for name, kind in kinds.items() if kind == "vector"}
            definitions = {name: binding(name, text, kinds[name]) for name, text in bound.items()}
            checked = check_tree(self.checked.tree, functions=bound)
            found = world(checked, scene.sample, self.values, definitions)
            self.worlds[scene] = self.helped(found, self.helpers)
        return self.worlds[scene]

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

    # --- lines ---

    def judgement(self) -> Judgement:
        if not any(line.left.name in self.notation.meanings for line in self.hand.lines):
            left = self.hand.lines[0].left
            help = f"for instance `means: {left.name} = d_{self.p.outputs[0]}`"
            raise CellError("no line says which gradient it gives", left.span, help=help)
        lines = tuple(self.line(line) for line in self.hand.lines)
        outputs = () if self.p.loss else (*self.p.outputs, *self.seen)
        return Judgement(lines, self.whole(), outputs, LENGTH)

    def line(self, line: HandLine) -> LineVerdict:
        name = line.left.name
        said_ = f"{said(line.left.span)} {'+=' if line.adds else '='} {said(line.right.span)}"
        timed = line.left.op == "name" and line.left.lag is not None
        found = LineVerdict(
            line.right.span.line, name, " ".join(said_.split()), "right", length=LENGTH, timed=timed
        )
        if name not in self.notation.meanings:
            return replace(found, verdict="defined", note=self.guess(line))
        error, steps, note = self.error(line, self.general)
        if not steps:
            return found
        found = replace(found, error=error, steps=steps, note=note)
        for scenes in self.conditions():
            if not self.error(line, scenes)[1]:
                return replace(found, verdict="conditional", when=scenes[0].when)
        found = replace(found, verdict="wrong")
        return self.explained(line, found) if self.explain else found

    def times(self, line: HandLine) -> Array:
        every = np.arange(LENGTH)
        if line.left.op != "name" or line.left.lag is None:
            return every
        return {"": every, "last": every[-1:], "earlier": every[:-1]}[line.when]

    def truth(self, line: HandLine, exact: World) -> Array:
        """What a line should give, at its steps."""
        left, times = line.left, self.times(line)
        if left.op == "fixed":
            return exact.at(left.name, np.array([left.lag or 0]))
        if left.op == "last":
            return exact.at(left.name, np.array([LENGTH - 1 - (left.lag or 0)]))
        if left.lag is None:
            return exact.constants[left.name][None]
        return exact.at(left.name, times - left.lag)

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
                    array = array.sum(0, keepdims=True) * (LENGTH if len(array) == 1 else 1)
                if array.shape[1:] != truth.shape[1:]:
                    what = f"it is {exact.shown(array.shape[1:])}"
                    what += f" and should be {exact.shown(truth.shape[1:])}"
                    raise MisfitError(what, line.right.span)
            except MisfitError as error:
                return float("inf"), tuple(map(int, self.times(line))), error.what
            gap = np.abs(array - truth).reshape(len(truth), -1)
            scale = max(float(np.max(np.abs(truth), initial=0)), FLOOR * _largest(exact))
            each = np.where(np.isfinite(gap), gap, np.inf).max(1, initial=0) / scale
            worst = max(worst, float(each.max()))
            steps = self.times(line) if len(each) > 1 else self.times(line)[:1]
            wrong |= {int(t) for t, e in zip(steps, each, strict=False) if e > LIMIT}
        return worst, tuple(sorted(wrong)), ""

    def guess(self, line: HandLine) -> str:
        """Which gradient a name without a meaning has the value of, or that none is known."""
        name, parts = line.left.name, [e for e in everything(line.right) if e.op == "call"]
        if name in self.guesses:
            return f"it is {self.guesses[name]}{'[t]' * self.notation.timed[name]}"
        stacked = any(e.name in ("concat", "stack", "part") for e in parts)
        reads = any(self.notation.stands_for_gradient(e.name) for e in everything(line.right))
        if stacked or not reads:
            return ""
        return f"not judged: `means: {name} = ...` would say which gradient it is"

    @cached_property
    def guesses(self) -> dict[str, str]:
        """The definitions that have the values of a gradient, with its name."""
        found: dict[str, str] = {}
        for name in self.notation.definitions():
            for other in self.alike(name, self.exact(self.general[0])):
                if other.startswith(("d_", "dz_", "next_", "now_")):
                    found.setdefault(name, other)
        return found

    def alike(self, name: str, exact: World) -> list[str]:
        """The names of the derivation that have the values of an author's name."""
        timed = self.notation.timed[name]
        known, inner = (exact.series, slice(1, -1)) if timed else (exact.constants, ())
        mine = known.get(name)
        return [
            other
            for other, array in known.items()
            if mine is not None
            and other not in (*self.notation.timed, *self.cell)
            and array.shape == mine.shape
            and np.any(array)
            and np.allclose(mine[inner], array[inner], rtol=LIMIT, atol=0)
        ]

    # --- what is wrong ---

    def explained(self, line: HandLine, found: LineVerdict) -> LineVerdict:
        """The verdict with what the line should be, and what it has instead."""
        if line.left.op == "fixed":
            first = self.derived.first(line.left.name)
            lines = [] if first is None else [first]
            trees = self.derived.first_tree(line.left.name)
        else:
            lines, trees = self.derived.lines(found.name), self.derived.trees(found.name)
        cases = [
            Case(exact, self.times(line), self.truth(line, exact), line.adds)
            for exact in (self.helped(self.exact(x), self.derived.helpers) for x in self.general)
        ]
        differs = differences(line.right, cases, trees, self.derived, self.tries)
        every = {int(t) for t in self.times(line)}
        if not differs and found.timed and set(found.steps) == every - {LENGTH - 1}:
            differs = ["leaves out what comes from the steps after: it is right at the last step"]
        elif not differs and trees:
            differs = ["agrees with the derived line in no term"]
        return replace(found, derived=tuple(self.derived.explained(lines)), differs=tuple(differs))

    @cached_property
    def derived(self) -> Derived:
        """The derived lines, in the author's names, definitions among them."""
        span = self.hand.lines[0].left.span
        guessed = {
            name: Expr("name", span, span, name=other, lag=0 if self.notation.timed[name] else None)
            for name, other in self.guesses.items()
        }
        meanings = {**guessed, **self.notation.meanings}
        found = derived(self.p, replace(self.notation, meanings=meanings), self.seen)
        exact = self.helped(self.exact(self.general[0]), found.helpers)
        names = self.notation.definitions()
        mine = {other: (name, 0) for name in names for other in self.alike(name, exact)}
        more = {x.left.name: said(x.right.span) for x in self.helpers if x.left.op == "name"}
        return replace(found, own={**mine, **found.own}, rights={**more, **found.rights})

    # --- the pass as a whole ---

    def whole(self) -> Whole:
        found = Whole("right", missing=self.missing(), known=self.known())
        try:
            wrong = self.wrong_at_end(self.general)
        except CellError as error:
            return replace(found, verdict="wrong", note=error.what)
        except MisfitError as error:
            return replace(found, verdict="wrong", note=f"sizes do not fit: {error.what}")
        if not wrong:
            return found
        for scenes in self.conditions():
            if not self.wrong_at_end(scenes):
                return replace(found, verdict="conditional", when=scenes[0].when)
        return replace(found, verdict="wrong", wrong=tuple(wrong.items()))

    def wrong_at_end(self, scenes: Iterable[Scene]) -> dict[str, float]:
        """Which of the author's gradients come out wrong when his pass runs by itself."""
        wrong: dict[str, float] = {}
        for scene in scenes:
            exact = self.exact(scene)
            start = replace(
                self.world(scene),
                series={k: v for k, v in exact.series.items() if k not in self.notation.timed}
                | {n: exact.series[n] for n in self.given() if n in exact.series},
            )
            gradients = self.notation.gradients()
            found = Follow(self.hand.lines, start, self.notation.timed, gradients).followed()
            for name in self.notation.meanings:
                if name in self.given():
                    continue
                timed = self.notation.timed[name]
                true = exact.series[name] if timed else exact.constants[name]
                mine = found.series.get(name) if timed else found.constants.get(name)
                mine = np.zeros_like(true) if mine is None else mine
                slots = self.slots(name) if timed else ()
                if mine.shape != true.shape:
                    wrong[name] = float("inf")
                    continue
                gap = np.abs(mine[slots] - true[slots])
                scale = max(float(np.max(np.abs(true), initial=0)), FLOOR * _largest(exact))
                error = float(np.max(np.where(np.isfinite(gap), gap, np.inf), initial=0)) / scale
                if error > LIMIT:
                    wrong[name] = max(error, wrong.get(name, 0.0))
        return wrong

    def given(self) -> set[str]:
        """The names that have a meaning and no line: the author takes them as known."""
        return set(self.notation.meanings) - {line.left.name for line in self.hand.lines}

    def known(self) -> tuple[str, ...]:
        """The gradients that lines read and none computes: they are taken as known."""
        meanings = self.notation.meanings
        own = {line.left.name for line in self.hand.lines}
        own |= {meanings[n].name for n in own & set(meanings) if meanings[n].op == "name"}
        read = (e.name for line in self.hand.lines for e in everything(line.right))
        outside = () if self.p.loss else ("direct_",)
        return tuple(
            name
            for name in dict.fromkeys(read)
            if self.notation.stands_for_gradient(name)
            and name not in own
            and not name.startswith(outside)
        )

    def slots(self, name: str) -> list[int]:
        """The slots of a series that the lines for a name write."""
        found: set[int] = set()
        for line in self.hand.lines:
            if line.left.name != name:
                continue
            if line.left.op == "fixed":
                found.add((line.left.lag or 0) + 1)
            elif line.left.op == "last":
                found.add(LENGTH - (line.left.lag or 0))
            else:
                found |= {int(t) + 1 - (line.left.lag or 0) for t in self.times(line)}
        return sorted(found)

    def missing(self) -> tuple[str, ...]:
        """The parameters by which the pass computes no gradient."""
        computed = {line.left.name for line in self.hand.lines}
        reached = {
            e.name
            for name, meaning in self.notation.meanings.items()
            if name in computed
            for e in everything(meaning)
        }
        return tuple(v.name for v in self.p.named(Role.PARAM) if f"d_{v.name}" not in reached)


def _largest(exact: World) -> float:
    """The largest entry of any gradient of the sample."""
    arrays = [a for n, a in (*exact.series.items(), *exact.constants.items()) if n.startswith("d_")]
    return max((float(np.max(np.abs(a), initial=0)) for a in arrays), default=0.0) or 1.0
