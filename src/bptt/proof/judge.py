"""Hand-written backward passes, judged line by line and as a whole.

Each line is fed with exact values of all that it reads, so a wrong line does not blame those that
read it. What is exact follows from the derivation, which `gradcheck` proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from bptt.errors import CellError, UserError
from bptt.ir.program import Role
from bptt.language.check import Checked
from bptt.language.hand import HandLine, everything
from bptt.language.tree import Expr, said
from bptt.proof.changes import Case
from bptt.proof.derived import Derived, derived
from bptt.proof.exact import LENGTH, labels
from bptt.proof.notation import Follow
from bptt.proof.reader import Reader, largest
from bptt.proof.report import FLOOR
from bptt.proof.scenes import Scene
from bptt.proof.slips import differences
from bptt.proof.verdicts import Judgement, LineVerdict, Whole
from bptt.proof.world import LIMIT, MisfitError, World

Array = Any


def judge(
    checked: Checked,
    functions: Mapping[str, str],
    values: Mapping[str, Array],
    *,
    explain: bool = True,
    seed: int = 0,
) -> Judgement:
    """The hand-written backward pass in a cell's text, judged.

    `functions` binds what the cell leaves open; `values` are its constants. Without `explain`
    wrong lines are found, and not what is wrong with them. `seed` draws other samples. Raises
    CellError where the pass cannot be read, UserError where there is none.
    """
    if checked.tree.hand is None or not checked.tree.hand.lines:
        raise UserError(
            "there is no hand-written backward pass to judge",
            help="write it behind the loss, in a block `backward:`",
        )
    return _Judge(checked, functions, values, explain, seed).judgement()


class _Judge(Reader):
    """Judges the lines of a pass that has been read."""

    def judgement(self) -> Judgement:
        if not any(line.left.name in self.notation.meanings for line in self.hand.lines):
            left = self.hand.lines[0].left
            ends = [n for n in self.cell if left.name.endswith(n) and left.name != n]
            by = max(ends, key=len, default=self.p.outputs[0])
            help = f"for instance `means: {left.name} = d_{by}`"
            raise CellError("no line says which gradient it gives", left.span, help=help)
        lines = tuple(self.line(line) for line in self.hand.lines)
        outputs = () if self.p.loss else (*self.p.outputs, *self.seen)
        return Judgement(lines, self.whole(lines), outputs, LENGTH, self.read_as)

    def line(self, line: HandLine) -> LineVerdict:
        name = line.left.name
        text = f"{said(line.left.span)} {'+=' if line.adds else '='} {said(line.right.span)}"
        timed = line.left.op == "name" and line.left.lag is not None
        found = LineVerdict(
            line.right.span.line, name, " ".join(text.split()), "right", length=LENGTH, timed=timed
        )
        if name not in self.notation.meanings:
            return replace(found, verdict="defined", note=self.guess(line))
        error, steps, note = self.error(line, self.general)
        if not steps:
            circular = self.circular(line)
            note = f"it reads what it gives: {circular}"
            return replace(found, verdict="wrong", note=note) if circular else found
        found = replace(found, error=error, steps=steps, note=note)
        for scenes in self.conditions():
            vacuous = not any(np.any(self.truth(line, self.exact(scene))) for scene in scenes)
            if not vacuous and not self.error(line, scenes)[1]:
                return replace(found, verdict="conditional", when=scenes[0].when)
        found = replace(found, verdict="wrong")
        return self.explained(line, found) if self.explain else found

    def circular(self, line: HandLine) -> str:
        """What a line reads that is, under whatever name, the gradient that it gives."""
        meanings, left = self.notation.meanings, line.left
        mine = meanings[left.name]
        if not mine.name.startswith(("d_", "dz_")):  # parts of gradients are read at other steps
            return ""
        for e in everything(line.right):
            other = meanings.get(e.name, e)
            same = other.op == mine.op == "name" and other.name == mine.name and e.op == left.op
            if same and (e.lag or 0) + (other.lag or 0 if other is not e else 0) == (
                left.lag or 0
            ) + (mine.lag or 0):
                return said(e.span)
        return ""

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
        lines, trees = self.derived.lines(line.left), self.derived.trees(line.left)
        cases = self.cases(line, self.general)
        differs = differences(line.right, cases, trees, self.derived, self.tries)
        if len(differs) != 1 and labels(self.p):
            scenes = [Scene("", replace(x.sample, sums=True)) for x in self.general]
            some = differences(
                line.right, self.cases(line, scenes), trees, self.derived, self.tries
            )
            if len(some) == 1:
                differs = [f"{some[0]} (where {' and '.join(labels(self.p))} sums to 1)"]
        every = {int(t) for t in self.times(line)}
        if not differs and found.timed and set(found.steps) == every - {LENGTH - 1}:
            differs = ["leaves out what comes from the steps after: it is right at the last step"]
        elif not differs and trees:
            differs = ["agrees with the derived line in no term"]
        return replace(found, derived=tuple(self.derived.explained(lines)), differs=tuple(differs))

    def cases(self, line: HandLine, scenes: Iterable[Scene]) -> list[Case]:
        """What a line reads and should give, in some samples."""
        worlds = [self.helped(self.exact(x), self.derived.helpers) for x in scenes]
        return [Case(w, self.times(line), self.truth(line, w), line.adds) for w in worlds]

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

    def whole(self, lines: Iterable[LineVerdict]) -> Whole:
        found = Whole(
            "right", missing=self.missing(), known=self.known(), without=self.without_last()
        )
        try:
            wrong = self.wrong_at_end(self.general)
        except CellError as error:
            return replace(found, verdict="wrong", note=error.what)
        except MisfitError as error:
            return replace(found, verdict="wrong", note=f"sizes do not fit: {error.what}")
        if not wrong:
            return found
        hopeless = any(line.verdict == "wrong" for line in lines)
        for scenes in () if hopeless else self.conditions():
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
                scale = max(float(np.max(np.abs(true), initial=0)), FLOOR * largest(exact))
                error = float(np.max(np.where(np.isfinite(gap), gap, np.inf), initial=0)) / scale
                if error > LIMIT:
                    wrong[name] = max(error, wrong.get(name, 0.0))
        return wrong

    def given(self) -> set[str]:
        """The names that have a meaning and no line: the author takes them as known."""
        return set(self.notation.meanings) - {line.left.name for line in self.hand.lines}

    def without_last(self) -> tuple[str, ...]:
        """The gradients that lines give at all steps but the last, where they are not zero."""
        exact, timed = self.exact(self.general[0]), self.notation.timed
        own = {line.left.name for line in self.hand.lines} & set(self.notation.meanings)
        return tuple(
            name
            for name in self.notation.meanings
            if name in own and timed[name] and np.any(exact.series[name][LENGTH])
            if LENGTH not in self.slots(name) and LENGTH - 1 in self.slots(name)
        )

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
