"""The derived lines for what a hand-written backward pass computes, in its author's own names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from bptt.calculus.lines import activations
from bptt.calculus.readable import By
from bptt.calculus.rewrites import lower, with_ends
from bptt.errors import BpttError
from bptt.ir.program import MACHINE, Kind, Program
from bptt.language.hand import HandLine, everything, read
from bptt.language.tokens import tokens
from bptt.language.tree import Expr, said
from bptt.printers.people.plain import Plain
from bptt.printers.people.reading import Part, Reading, reading
from bptt.proof.notation import Notation

_GRADIENTS = ("d_", "dz_", "next_", "now_")
_AHEAD = re.compile(r"\[t([+-]\d+)?\]")


@dataclass(frozen=True)
class Derived:
    """Derived lines. `rights` maps a gradient, such as `d_h` or, before the first step, `d_h[-1]`,
    to the text of its right side; `own` a gradient to the author's name for it and how many steps
    later that name has it; `helpers` define what else they read."""

    rights: Mapping[str, str]
    timed: Collection[str]
    own: Mapping[str, tuple[str, int]]
    notation: Notation
    helpers: tuple[HandLine, ...]

    def explained(self, lines: list[str]) -> list[str]:
        """Derived lines with those of the helpers that they read."""
        known = {self.own.get(x.left.name, (x.left.name, 0))[0]: x for x in self.helpers}
        found, given = list(lines), {name for name, _ in self.own.values()}
        for text in found:
            for token in tokens(text, 1, text):
                line = known.get(token.text)
                if line is not None and token.text not in given:
                    given.add(token.text)
                    left, right = said(line.left.span), said(line.right.span)
                    found.append(self.spelled(f"{left} = {right}"))
        return found

    def lines(self, left: Expr) -> list[str]:
        """The derived lines for a left side of the author's; none where it has no meaning."""
        meaning = self.notation.meanings.get(left.name)
        if meaning is None:
            return []
        found = self.at_step(left, meaning)
        if left.op == "name":
            return found
        last = left.op == "last"
        step = -(left.lag or 0) if last else left.lag or 0
        return [_at(text, step, "T" if last else "") for text in found]

    def at_step(self, left: Expr, meaning: Expr) -> list[str]:
        """The derived lines, for a left side at `t`, or at its lag."""
        name, lag = left.name, left.lag or 0
        if left.op == "fixed" and lag < 0 and meaning.op == "name" and not meaning.lag:
            right = self.rights.get(f"{meaning.name}[-1]")
            if right is not None:
                return [f"{name}[-1] = {self.spelled(right)}"]
        shift = -lag if left.op == "name" else 0
        start = f"{name}[t]" if self.notation.timed[name] else name
        if meaning.op == "name":
            right = self.right(meaning)
            return [] if right is None else [_shifted(f"{start} = {right}", shift)]
        found = [f"{start} = {_written_out(meaning)}"]
        for e in everything(meaning):
            right = self.right(e) if e.op == "name" else None
            if right is not None:
                found.append(f"{_written_out(e)} = {right}")
        return [_shifted(text, shift) for text in found]

    def trees(self, left: Expr) -> list[Expr]:
        """The right sides of `lines`, parsed."""
        return [line.right for line in read(self.lines(left)).lines]

    def right(self, e: Expr) -> str | None:
        """What the gradient `e`, at its own step, is derived to be, in the author's names."""
        kind, _, value = e.name.partition("_")
        if kind in ("next", "now"):
            right = self.terms(f"d_{value}", later=kind == "next")
        else:
            right = self.rights.get(e.name)
        if right is None:
            return None
        return self.spelled(_shifted(right, -(e.lag or 0)))

    def terms(self, name: str, *, later: bool) -> str | None:
        """The terms of a line that read a gradient of the step after, or the others."""
        right = self.rights.get(name)
        if right is None:
            return None
        found = [
            (sign, term)
            for sign, term in signed(read([f"{name}[t] = {right}"]).lines[0].right)
            if later == any((a.lag or 0) < 0 and a.name in self.timed for a in everything(term))
        ]
        return joined(found) if found else "0"

    def spelled(self, text: str) -> str:
        """A text of the derivation in the author's names."""
        found, end = "", 0
        line = tokens(text, 1, text)
        for k, token in enumerate(line[:-1]):
            name, later = self.own.get(token.text, (token.text, 0))
            if token.kind != "name" or name == token.text or token.span.start < end:
                continue
            found += text[end : token.span.start] + name
            end = token.span.end
            if later and line[k + 1].text == "[":
                close = text.index("]", end) + 1
                found += _shifted(text[end:close], later)
                end = close
        return found + text[end:]


def derived(p: Program, notation: Notation, seen: Iterable[str]) -> Derived:
    """The derived lines of `p` for what a pass has names for; none where nobody could read them."""
    low = lower(with_ends(p))
    arguments = {f"dz_{a.name}": a.argument for a in activations(low)}
    own: dict[str, tuple[str, int]] = {}
    wanted = {
        s.name for s in low.states if MACHINE not in s.name
    }  # else what comes from the step after has no name
    said_of = [*notation.meanings.values(), *(line.right for line in notation.hand.lines)]
    for e in (e for root in said_of for e in everything(root)):
        if e.op in ("name", "fixed") and e.name.startswith(_GRADIENTS):
            wanted.add(arguments.get(e.name, e.name.partition("_")[2]))
    for name, meaning in notation.meanings.items():
        if meaning.op == "name":
            own.setdefault(meaning.name, (name, meaning.lag or 0))
    try:
        found = reading(p, frozenset(wanted), seen)
    except BpttError:
        return Derived({}, (), own, notation, ())
    rights, timed, helpers = _written(found)
    apart = _apart(read(helpers).lines, notation)
    rights = {name: _renamed(text, apart) for name, text in rights.items()}
    lines = read(_renamed(text, apart) for text in helpers).lines
    return Derived(rights, timed, own, notation, lines)


def _apart(helpers: Iterable[HandLine], notation: Notation) -> dict[str, str]:
    """Other names for values of the derivation whose names the author gives to values of his."""
    found: dict[str, str] = {}
    for name in (line.left.name for line in helpers):
        other = name
        while other in notation.timed or (other != name and other in found.values()):
            other += "_d"
        if other != name:
            found[name] = other
    return found


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """A text with names replaced."""
    found, end = "", 0
    for token in tokens(text, 1, text) if names else ():
        if token.kind == "name" and token.text in names:
            found += text[end : token.span.start] + names[token.text]
            end = token.span.end
    return found + text[end:]


def _written(found: Reading) -> tuple[dict[str, str], set[str], list[str]]:
    """The right sides of a derivation by the names on their left; which of these have a time;
    the lines for values that have no name in the cell."""
    printer = Plain(found)
    rights: dict[str, str] = {}
    timed: set[str] = set()
    helpers: list[str] = []
    for line in found.lines:
        left = printer.left(line)
        name = left if line.part is Part.FIRST and "[" in left else left.partition("[")[0]
        rights[name] = "".join(printer.right(line))
        if line.kind is Kind.STEP and line.part is Part.STEPS:
            timed.add(name)
        if line.part in (Part.SLICES, Part.VALUES):
            helpers.append(f"{left} = {rights[name]}")
    return rights, timed, helpers


def reference(p: Program, by: By, seen: Iterable[str]) -> tuple[HandLine, ...]:
    """The derivation as `bptt derive` prints it, as a hand-written pass."""
    found = reading(p, by, seen)
    printer = Plain(found)
    lines = [f"{printer.left(x)} = {''.join(printer.right(x))}" for x in found.lines]
    return read(lines).lines


# --- terms --------------------------------------------------------------------------------------


def signed(root: Expr) -> list[tuple[int, Expr]]:
    """The terms of a sum, each with its sign."""
    found: list[tuple[int, Expr]] = []
    stack = [(1, root)]
    while stack:
        sign, e = stack.pop()
        if e.op in ("+", "-"):
            left, right = e.args
            stack += [(sign if e.op == "+" else -sign, right), (sign, left)]
        elif e.op == "neg":
            stack.append((-sign, e.args[0]))
        else:
            found.append((sign, e))
    return found


def factors(root: Expr) -> list[Expr]:
    """The factors of an elementwise product."""
    found: list[Expr] = []
    stack = [root]
    while stack:
        e = stack.pop()
        if e.op == "*":
            stack += e.args[::-1]
        else:
            found.append(e)
    return found


def without_sum(tree: Expr) -> Expr:
    """A right side without the sum over time around it."""
    return tree.args[0] if tree.op == "call" and tree.name == "sum_t" else tree


def joined(terms: list[tuple[int, Expr]]) -> str:
    """The text of a sum."""
    found = ""
    for sign, e in terms:
        mark = (" + " if sign > 0 else " - ") if found else ("" if sign > 0 else "-")
        found += mark + said(e.span)
    return found


def _written_out(meaning: Expr) -> str:
    """The text of a meaning, with `[t]` where the author leaves it out."""
    source = meaning.span.source.split("\n")[meaning.span.line - 1]
    bare = [e for e in everything(meaning) if e.op == "name" and e.lag == 0]
    found, end = "", meaning.span.start
    for e in sorted(bare, key=lambda e: e.span.end):
        if not source[e.span.end :].startswith("[") and not said(e.span).endswith("]"):
            found += source[end : e.span.end] + "[t]"
            end = e.span.end
    return found + source[end : meaning.span.end]


def _at(text: str, step: int, base: str) -> str:
    """A text in which the time t is a step, counted from the first or, where `base` is T, from the
    last: `h[t+1]` becomes `h[1]` for 0, and `h[T+1]`."""

    def there(match: re.Match[str]) -> str:
        at = step + int(match[1] or 0)
        return f"[{base}{at:+d}]" if base and at else f"[{base or at}]"

    return _AHEAD.sub(there, text)


def _shifted(text: str, by: int) -> str:
    """A text in which every time is some steps later."""

    def later(match: re.Match[str]) -> str:
        ahead = int(match[1] or 0) + by
        return f"[t{ahead:+d}]" if ahead else "[t]"

    return _AHEAD.sub(later, text) if by else text
