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

from bptt.language.hand import everything, values_of
from bptt.language.tree import Expr, said
from bptt.proof.changes import (
    Case,
    Change,
    argument,
    exchanged,
    factor_of,
    finished,
    leaf_value,
    like_value,
    mapped,
    other_value,
    plus,
    same,
    swapped_value,
    times_factor,
    tree_of,
    wrapped,
)
from bptt.proof.derived import Derived, signed, without_sum
from bptt.proof.hand import Evaluation, evaluate
from bptt.proof.wording import Words, bracketed, factors_of, name_of, quoted, signed_text
from bptt.proof.world import MisfitError

Array = Any

_USUAL = ("tanh", "sigmoid", "relu", "exp", "log", "softplus", "sqrt")
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


class _Search:
    def __init__(
        self,
        root: Expr,
        cases: Sequence[Case],
        trees: Sequence[Expr],
        derived: Derived,
        tries: list[int],
    ) -> None:
        self.root, self.cases, self.trees, self.derived = root, cases, trees, derived
        self.tries = tries
        self.runs = [Evaluation(root, case.world, case.times) for case in cases]
        self.first = self.runs[0]
        self.words = Words(self.first, derived)
        self.parts = list(everything(root))
        self.whole = {root, without_sum(root)}
        self.pool = self.leaves()
        near = {e.name for tree in trees for e in everything(tree)}
        self.near = [leaf for leaf in self.pool if leaf.name in near]

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
        if not told and len(extra) == len(signed(without_sum(self.root))):
            return []  # nothing of it is in the derived line: there is nothing to compare
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
        whole = run.instead(change.part, value)
        return not isinstance(whole, MisfitError) and same(finished(whole, case), case.truth)

    # --- changes ---

    def likely(self) -> Iterator[Change]:
        """Changes with what stands in the line or in the derived one."""
        yield from self.times()
        yield from self.functions()
        yield from self.names(self.near)
        yield from self.signs()
        yield from self.too_much()
        yield from self.forms()
        yield from self.swaps()
        yield from self.terms()
        yield from self.factors(self.near)
        yield from self.others()

    def unlikely(self) -> Iterator[Change]:
        """Changes with whatever else there is."""
        far = [leaf for leaf in self.pool if leaf not in self.near]
        yield from self.names(far)
        yield from self.factors(far)
        yield from self.totals(far)

    def times(self) -> Iterator[Change]:
        """A name at another step."""
        for part in self.parts:
            if part.op == "fixed":
                for step in (part.lag or 0) - 1, (part.lag or 0) + 1:
                    like = replace(part, lag=step)
                    yield Change(
                        part,
                        like_value(part, like),
                        self.words.instead(part, f"{part.name}[{step}]"),
                    )
            if part.op != "name" or part.lag is None:
                continue
            for lag in (part.lag - 1, part.lag + 1, part.lag - 2, part.lag + 2):
                if abs(lag) <= 1:
                    leaf = replace(part, lag=lag)
                    yield Change(
                        part, leaf_value(part, leaf), self.words.instead(part, name_of(leaf))
                    )

    def functions(self) -> Iterator[Change]:
        """Another function, or its derivative."""
        for part in self.parts:
            if part.op != "call" or len(part.args) != 1 or part.name == "sum_t":
                continue
            world = self.cases[0].world
            named = [n for n, kind in world.kinds.items() if kind == "elementwise"]
            for name in (*named, *_USUAL):
                for order in (0, 1):
                    like = replace(part, name=name, order=order)
                    if (name, order) != (part.name, part.order):
                        shown, was = name + "'" * order, part.name + "'" * part.order
                        text = f"has {was} where the derivation has {shown}"
                        yield Change(part, like_value(part, like), text)

    def names(self, leaves: Sequence[Expr]) -> Iterator[Change]:
        """Another name."""
        for leaf in leaves:
            for part in self.parts:
                if (
                    part not in self.whole
                    and part.op == "name"
                    and part.name != leaf.name
                    and self.fits(part, leaf)
                ):
                    yield Change(
                        part, leaf_value(part, leaf), self.words.instead(part, name_of(leaf), leaf)
                    )

    def signs(self) -> Iterator[Change]:
        for part in self.parts:
            if part.op in ("+", "-"):
                other = replace(part, op="-" if part.op == "+" else "+")
                verb = ("subtracts", "adds") if part.op == "-" else ("adds", "subtracts")
                text = f"{verb[0]} {said(part.args[1].span)}, where the derivation {verb[1]} it"
                yield Change(part, like_value(part, other), text)
        for part in self.parts:
            if part.op != "number":
                text = f"{quoted(part)} has the wrong sign"
                yield Change(part, mapped(part, lambda a: -a), text)

    def too_much(self) -> Iterator[Change]:
        """A part left out."""
        words = {"+": "term", "-": "term", "*": "factor", "/": "divisor", "@": "factor"}
        for part in self.parts:
            if part.op in words:
                for k in (0, 1):
                    extra = said(part.args[1 - k].span)
                    text = f"has the {words[part.op]} {extra}, which the derivation has not"
                    yield Change(part, argument(part, k), text)
            elif part.op == "T" or (part.op in ("**", "call") and 1 <= len(values_of(part)) <= 2):
                text = f"has {said(part.span)} where {said(part.args[0].span)} belongs"
                yield Change(part, argument(part, 0), text)

    def forms(self) -> Iterator[Change]:
        """Transposes, swapped arguments, powers, numbers."""
        for part in self.parts:
            if (part.op in ("@", "*") or (part.op == "call" and part.name == "outer")) and len(
                part.args
            ) == 2:
                swapped = replace(part, args=part.args[::-1])
                a, b = (said(x.span) for x in part.args)
                joint = f"outer({b}, {a})" if part.op == "call" else f"{b} {part.op} {a}"
                yield Change(part, swapped_value(part, swapped), self.words.instead(part, joint))
            shape = self.shape(part)
            if shape is not None and len(shape) == 2 and part.op != "T":
                turned = Expr("T", part.span, part.span, (part,))
                text = self.words.instead(part, f"{said(part.span)}.T")
                yield Change(part, wrapped(part, turned), text)
            if part.op == "number":
                for value in (0.0, 1.0, 2.0, 3.0, -1.0, 0.5):
                    if value != part.value:
                        like = replace(part, value=value)
                        yield Change(
                            part, like_value(part, like), self.words.instead(part, f"{value:g}")
                        )
            elif part.op != "call" or part.name != "sum_t":
                text = self.words.instead(part, f"{said(part.span)}**2")
                yield Change(part, mapped(part, lambda a: a**2), text)

    def swaps(self) -> Iterator[Change]:
        """Two names that stand in each other's places."""
        names = [p for p in self.parts if p.op == "name" and p not in self.whole]
        for k, one in enumerate(names):
            for other in names[k + 1 :]:
                differ = (one.name, one.lag) != (other.name, other.lag)
                if differ and self.shape(one) == self.shape(other):
                    text = f"has {said(one.span)} and {said(other.span)} in each other's places"
                    yield Change(self.root, exchanged(one, other), text)

    def terms(self) -> Iterator[Change]:
        """A term of the derived line that is missing, or two."""
        found = [(s, e) for e in self.derived_parts() for s, e in signed(e)]
        sums = [p for p in self.parts if p is self.root or self.words.summed(p)]
        for part in sums:
            for k, (sign, term) in enumerate(found):
                text = f"is missing the term {signed_text(sign, term)}"
                yield Change(part, plus(part, [(sign, term)]), text)
                for other in found[k + 1 :]:
                    both = (
                        f"is missing the terms {signed_text(sign, term)} and {signed_text(*other)}"
                    )
                    yield Change(part, plus(part, [(sign, term), other]), both)

    def factors(self, leaves: Sequence[Expr]) -> Iterator[Change]:
        """A factor that is missing: a value, or what stands in the derived line."""
        tops = [p for p in self.parts if self.parent_op(p) != "*" and p.op != "number"]
        usual = [
            (text, factor_of(leaf, f)) for leaf in leaves for text, f in factors_of(name_of(leaf))
        ]
        inner = [
            (said(e.span), tree_of(e))
            for tree in self.trees
            for e in everything(tree)
            if e.op not in ("number", "end", "span") and leaves is self.near
        ]
        for part in tops:
            for text, make in (*inner, *usual):
                where = "" if part is self.root else f", at {quoted(part)}"
                said_ = f"is missing the factor {bracketed(text)}{where}"
                yield Change(part, times_factor(part, make), said_)

    def others(self) -> Iterator[Change]:
        """A whole part replaced: by a gradient, or by a part of the derived line."""
        yield from self.totals(self.near)
        for tree in self.trees:
            for e in everything(tree):
                if e.args and e.op != "span":
                    for part in self.parts:
                        if part not in self.whole:
                            text = self.words.instead(part, said(e.span), derivation=True)
                            yield Change(part, other_value(part, e), text)

    def totals(self, leaves: Sequence[Expr]) -> Iterator[Change]:
        """A name in place of a whole part."""
        for leaf in leaves:
            for part in self.parts:
                if part.args and part not in self.whole and self.fits(part, leaf):
                    yield Change(
                        part, leaf_value(part, leaf), self.words.instead(part, name_of(leaf), leaf)
                    )

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
            if not same(a, np.broadcast_to(b, a.shape) if b.shape[1:] == a.shape[1:] else b):
                return False
        return True

    # --- small parts ---

    def leaves(self) -> list[Expr]:
        """Names that may stand in the line: those of the derived line first."""
        world, span = self.cases[0].world, self.root.span
        near = {e.name for tree in self.trees for e in everything(tree)}
        mine = set(self.derived.own)
        names = [n for n in (*world.series, *world.constants) if n not in mine or n in near]
        names.sort(key=lambda n: n not in near)
        lags: dict[str, set[int]] = {}
        for e in (e for tree in self.trees for e in everything(tree)):
            if e.op == "name" and e.lag is not None:
                lags.setdefault(e.name, set()).add(e.lag)
        found: list[Expr] = []
        for name in names:
            if name in world.series:
                times = (*sorted(lags.get(name, ())), 0, -1, 1)
                found += [Expr("name", span, span, name=name, lag=k) for k in dict.fromkeys(times)]
            else:
                found.append(Expr("name", span, span, name=name))
        return found

    def shape(self, part: Expr) -> tuple[int, ...] | None:
        value = self.first.found[part]
        return None if isinstance(value, MisfitError) else value.array.shape[1:]

    def fits(self, part: Expr, leaf: Expr) -> bool:
        """Whether a name has the size that a part has, or the part has none."""
        world, shape = self.cases[0].world, self.shape(part)
        array = world.series.get(leaf.name)
        size = world.constants[leaf.name].shape if array is None else array.shape[1:]
        return (
            shape is None
            or shape == size
            or (self.root is not part and isinstance(self.first.found[self.root], MisfitError))
        )

    def parent_op(self, part: Expr) -> str:
        parent = self.first.parents.get(part)
        return parent.op if parent is not None else ""

    def derived_parts(self) -> list[Expr]:
        """The derived right sides, without the sum over time around them."""
        return [without_sum(tree) for tree in self.trees]
