"""What is wrong with a line: the smallest change that makes it right, in words.

Changes are tried one by one, those that people need most often first: another time, another name
or function, a sign, a factor or a term too few or too many, a whole part. A change counts if the
line then gives the exact values in every sample. Where no single one does, the line's terms are
compared with the derived line's, and each that is wrong is looked at alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bptt.language.hand import everything
from bptt.language.tree import Expr, said
from bptt.proof.changes import (
    Case,
    Change,
    finished,
    same,
)
from bptt.proof.derived import Derived, factors, signed, without_sum
from bptt.proof.edits import Edits
from bptt.proof.hand import Evaluation, evaluate
from bptt.proof.wording import quoted, signed_text
from bptt.proof.world import MisfitError

Array = Any

_LONGEST = 500  # parts of a line that is explained
_TERMS = 4  # so many terms at most that are wrong at once are told
_Signed = tuple[int, Expr]


def differences(
    root: Expr, cases: Sequence[Case], trees: Sequence[Expr], derived: Derived, tries: list[int]
) -> list[str]:
    """What is wrong with the right side `root`, if it can be said; `trees` are derived ones.

    `tries` holds how many changes may still be tried.
    """
    if sum(1 for _ in everything(root)) > _LONGEST:  # a try costs as much as the line is deep
        return []
    return _Search(root, cases, trees, derived, tries).found()


class _Search(Edits):
    def __init__(
        self,
        root: Expr,
        cases: Sequence[Case],
        trees: Sequence[Expr],
        derived: Derived,
        tries: list[int],
    ) -> None:
        super().__init__(root, cases, trees, derived)
        self.tries = tries
        self.runs = [self.first, *(Evaluation(root, c.world, c.times) for c in cases[1:])]

    def found(self) -> list[str]:
        """One change that makes the line right; or what is wrong with several terms."""
        change = self.single(self.likely())
        if change is not None:
            return [change]
        told, extra, left = self.by_terms()
        if told and not extra and not left:
            return told
        change = self.single(self.unlikely())
        if change is not None:
            return [change]
        alone = not extra and not left  # one product beside another
        if not told and (alone or len(extra) == len(signed(without_sum(self.root)))):
            # nothing of it is a term of the derived line
            return self.by_arguments() or self.by_factors()
        told += [f"has the term {signed_text(s, e)}, which is wrong" for s, e in extra]
        told += [f"is missing the term {signed_text(s, e)}" for s, e in left]
        return told[:_TERMS]

    def single(self, changes: Iterator[Change]) -> str | None:
        """The first change that makes the line right, in words."""
        for change in changes:
            self.tries[0] -= 1
            if self.tries[0] < 0:
                return None
            if all(self.right(k, change) for k in range(len(self.runs))):
                return change.text
        return None

    def right(self, k: int, change: Change) -> bool:
        """Whether a change makes the line right in a sample."""
        run, case = self.runs[k], self.cases[k]
        value = change.make(run)
        if isinstance(value, MisfitError) or not np.any(value.array):
            return False  # a part that is zero explains nothing
        whole = run.instead(change.part, value)
        return not isinstance(whole, MisfitError) and same(finished(whole, case), case.truth)

    # --- several slips ---

    def by_terms(self) -> tuple[list[str], list[_Signed], list[_Signed]]:
        """What is wrong with terms, one by one; those of the line that no one change makes right;
        those of the derived line that are in no term of this one."""
        mine = signed(without_sum(self.root))
        left = [term for tree in self.derived_parts() for term in signed(tree)]
        if len(self.trees) != 1 or (len(mine) == 1 and len(left) == 1):
            return [], [], []
        wrong: list[_Signed] = []
        for term in mine:
            match = next((x for x in left if self.equal(term, x)), None)
            if match is None:
                wrong.append(term)
            else:
                left.remove(match)
        told: list[str] = []
        extra: list[_Signed] = []
        for sign, term in wrong:
            text = self.told(sign, term, left)
            if text is None:
                extra.append((sign, term))
            else:
                told.append(text)
        return told, extra, left

    def by_arguments(self) -> list[str]:
        """Where both are one outer product: what is wrong with each of its vectors."""
        mine, theirs = without_sum(self.root), [without_sum(tree) for tree in self.trees]
        alike = [e for e in (mine, *theirs) if e.op == "call" and e.name == "outer"]
        if len(alike) != 2 or len(theirs) != 1:
            return []
        told: list[str] = []
        for part, other in zip(mine.args, theirs[0].args, strict=True):
            left = [(1, other)]
            if not self.equal((1, part), (1, other)):
                text = self.told(1, part, left)
                told.append(text or f"has {quoted(part)} where the derivation has {quoted(other)}")
        return told

    def by_factors(self) -> list[str]:
        """Where both are one product: the factors of the one that are not in the other."""
        if len(self.trees) != 1:
            return []
        mine = factors(without_sum(self.root))
        left = factors(self.derived_parts()[0])
        extra: list[Expr] = []
        for part in mine:
            match = next((x for x in left if self.equal((1, part), (1, x))), None)
            if match is None:
                extra.append(part)
            else:
                left.remove(match)
        if len(extra) == len(mine) or max(len(extra), len(left)) > _TERMS:
            return []
        pairs = list(zip(extra, left, strict=False))
        found = [f"has {quoted(a)} where the derivation has {quoted(b)}" for a, b in pairs]
        found += [f"has the factor {said(e.span)}, which is wrong" for e in extra[len(left) :]]
        return found + [f"is missing the factor {said(e.span)}" for e in left[len(extra) :]]

    def told(self, sign: int, term: Expr, left: list[tuple[int, Expr]]) -> str | None:
        """What is wrong with a term, if one change makes it a term of the derived line."""
        for k, (other_sign, other) in enumerate(left):
            cases: list[Case] = []
            for case in self.cases:
                times = self.times_of(case)
                target = evaluate(other, case.world, times).array * other_sign * sign
                cases.append(replace(case, times=times, truth=target, adds=False))
            found = _Search(term, cases, [other], self.derived, self.tries)
            change = found.single(found.likely())
            if change is not None:
                left.pop(k)
                return change
        return None

    def times_of(self, case: Case) -> Array:
        whole = self.root.op == "call" and self.root.name == "sum_t"
        return np.arange(case.world.length) if whole else case.times

    def equal(self, mine: tuple[int, Expr], theirs: tuple[int, Expr]) -> bool:
        for case in self.cases:
            times = self.times_of(case)
            try:
                a = evaluate(mine[1], case.world, times).array * mine[0]
                b = evaluate(theirs[1], case.world, times).array * theirs[0]
            except MisfitError:
                return False
            if not same(a, b):
                return False
        return True
