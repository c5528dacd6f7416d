"""The changes of a line that are tried to explain what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from bptt.language.hand import everything, values_of
from bptt.language.tree import Expr, said
from bptt.proof.changes import (
    Case,
    Change,
    argument,
    exchanged,
    factor_of,
    function_of,
    leaf_value,
    like_value,
    mapped,
    other_value,
    plus,
    product_of,
    swapped_value,
    times_factor,
    tree_of,
    wrapped,
)
from bptt.proof.derived import Derived, factors, signed, without_sum
from bptt.proof.hand import Evaluation
from bptt.proof.wording import Words, bracketed, factors_of, name_of, quoted, signed_text
from bptt.proof.world import MisfitError

_USUAL = ("tanh", "sigmoid", "relu", "exp", "log", "softplus", "sqrt")


class Edits:
    """The changes of one line, the right side `root`; `trees` are derived ones."""

    def __init__(
        self, root: Expr, cases: Sequence[Case], trees: Sequence[Expr], derived: Derived
    ) -> None:
        self.root, self.cases, self.trees, self.derived = root, cases, trees, derived
        self.first = Evaluation(root, cases[0].world, cases[0].times)
        self.words = Words(self.first, derived)
        self.parts = list(everything(root))
        self.whole = {root, without_sum(root)}
        self.pool = self.leaves()
        near = {e.name for tree in trees for e in everything(tree)}
        self.near = [leaf for leaf in self.pool if leaf.name in near]

    def likely(self) -> Iterator[Change]:
        """Changes with what stands in the line or in the derived one."""
        yield from self.sums()
        yield from self.times()
        yield from self.functions()
        yield from self.names(self.near)
        yield from self.signs()
        yield from self.too_much()
        yield from self.forms()
        yield from self.swaps()
        yield from self.terms()
        yield from self.factors(self.near)
        yield from self.slopes()
        yield from self.pairs()
        yield from self.others()

    def unlikely(self) -> Iterator[Change]:
        """Changes with whatever else there is."""
        far = [leaf for leaf in self.pool if leaf not in self.near]
        yield from self.names(far)
        yield from self.factors(far)
        yield from self.totals(far)

    # --- the kinds of changes ---

    def sums(self) -> Iterator[Change]:
        """A sum over time that is forgotten."""
        case = self.cases[0]
        value = self.first.found[self.root]
        several = not isinstance(value, MisfitError) and len(value.array) > len(case.truth)
        if several and not case.adds:
            text = "is missing the sum over time"
            yield Change(self.root, mapped(self.root, lambda a: a.sum(0, keepdims=True)), text)

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
            theirs = {(e.name, e.order) for tree in self.trees for e in everything(tree)}
            known = [(n, k) for n in (*named, *_USUAL) for k in (0, 1) if k or (n, k) in theirs]
            for name, order in known:
                like = replace(part, name=name, order=order)
                if (name, order) != (part.name, part.order):
                    shown, was = name + "'" * order, part.name + "'" * part.order
                    there = "the derivation has " if (name, order) in theirs else ""
                    text = f"has {was} where {there}{shown}{'' if there else ' belongs'}"
                    yield Change(part, like_value(part, like), text)

    def names(self, leaves: Sequence[Expr]) -> Iterator[Change]:
        """Another name."""
        parts = [p for p in self.parts if p.op in ("name", "fixed") and p is not self.root]
        for leaf in leaves:
            for part in parts:
                if part.name == leaf.name or not self.fits(part, leaf):
                    continue
                if part.op == "name":
                    text = self.words.instead(part, name_of(leaf), leaf)
                    yield Change(part, leaf_value(part, leaf), text)
                elif not leaf.lag and leaf.name in self.cases[0].world.series:
                    like = replace(part, name=leaf.name)
                    text = self.words.instead(part, f"{leaf.name}[{part.lag}]", leaf)
                    yield Change(part, like_value(part, like), text)

    def signs(self) -> Iterator[Change]:
        for part in self.parts:
            if part.op in ("+", "-"):
                other = replace(part, op="-" if part.op == "+" else "+")
                verb = ("subtracts", "adds") if part.op == "-" else ("adds", "subtracts")
                text = f"{verb[0]} {said(part.args[1].span)}, where the derivation {verb[1]} it"
                yield Change(part, like_value(part, other), text)
                if part.op == "-" and part not in self.whole:
                    a, b = (said(x.span) for x in part.args)
                    text = f"has {quoted(part)} where {b} - {a} belongs"
                    yield Change(part, mapped(part, lambda a: -a), text)
            elif part.op in ("*", "@"):
                other = replace(part, op="@" if part.op == "*" else "*")
                a, b = (said(x.span) for x in part.args)
                text = f"has {quoted(part)} where {a} {other.op} {b} belongs"
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
                for k in (0, 1) if part.op not in ("-", "/") else (0,):
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

    def slopes(self) -> Iterator[Change]:
        """Another function's derivative in the place of `1 - y**2` or `1 - y`."""
        for part in self.parts:
            if part.op == "-" and part.args[0].op == "number" and part.args[0].value == 1:
                y = part.args[1].args[0] if part.args[1].op == "**" else part.args[1]
                for text, f in factors_of(quoted(y)):
                    yield Change(part, function_of(y, f), self.words.instead(part, text))
            elif part.op == "call" and part.order == 1 and len(part.args) == 1:
                for text, f in factors_of(quoted(part.args[0])):
                    text = self.words.instead(part, text)
                    yield Change(part, function_of(part.args[0], f), text)

    def pairs(self) -> Iterator[Change]:
        """Two factors of a product that the derivation has not."""
        for part in self.parts:
            if part.op != "*" or self.parent_op(part) == "*":
                continue
            found = factors(part)
            for a, b in combinations(found, 2):
                rest = [e for e in found if e is not a and e is not b]
                if rest:
                    text = f"has the factors {said(a.span)} and {said(b.span)}"
                    yield Change(part, product_of(rest), f"{text}, which the derivation has not")

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
            (quoted(e), tree_of(e))
            for tree in self.trees
            for e in everything(tree)
            if e.op not in ("number", "end", "span") and leaves is self.near
        ]
        for part in tops:
            for text, make in (*inner, *usual):
                where = "" if part is self.root else f", at {quoted(part)}"
                whole = f"is missing the factor {bracketed(text)}{where}"
                yield Change(part, times_factor(part, make), whole)

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
            or (self.root is not part and self.shape(self.root) != self.cases[0].truth.shape[1:])
        )

    def parent_op(self, part: Expr) -> str:
        parent = self.first.parents.get(part)
        return parent.op if parent is not None else ""

    def derived_parts(self) -> list[Expr]:
        """The derived right sides, without the sum over time around them."""
        return [without_sum(tree) for tree in self.trees]
