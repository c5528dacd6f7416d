"""The words for what is wrong with a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bptt.language.tree import Expr, said
from bptt.proof.derived import Derived
from bptt.proof.hand import Evaluation

Array = Any

_KINDS = {
    "d": "the total gradient by {}",
    "direct": "what {} gets from the loss at its own step",
    "next": "what {} gets from the step after",
    "now": "what {} gets at its own step",
    "dz": "the gradient by the argument of {}'s function",
}


class Words:
    """Speaks of the parts of a line, of which `run` is an evaluation."""

    def __init__(self, run: Evaluation, derived: Derived) -> None:
        self.run, self.derived = run, derived

    def summed(self, part: Expr) -> bool:
        parent = self.run.parents.get(part)
        return parent is not None and parent.op == "call" and parent.name == "sum_t"

    def instead(
        self, part: Expr, other: str, leaf: Expr | None = None, *, derivation: bool = False
    ) -> str:
        """What is said of a part in whose place something else belongs."""
        mine = quoted(part)
        if self.summed(part):
            return f"sums {mine}, should sum {other}"
        was, now = self.meant(part), None if leaf is None else self.meant(leaf)
        if now is not None and (was is None or was[1] == now[1]):
            before = f"{was[0]}, {mine}," if was is not None else mine
            return f"uses {before} where {now[0]}, {other}, belongs"
        if derivation:
            return f"has {mine} where the derivation has {other}"
        return f"has {mine} where {other} belongs"

    def meant(self, part: Expr) -> tuple[str, str, str] | None:
        """Which gradient a name stands for: in words, and by what."""
        if part.op != "name":
            return None
        meaning = self.derived.notation.meanings.get(part.name)
        name = part.name if meaning is None else meaning.name
        kind, _, value = name.partition("_")
        if kind not in _KINDS or not value:
            return None
        return _KINDS[kind].format(value), value, name


def signed_text(sign: int, e: Expr) -> str:
    return f"{'-' * (sign < 0)}{said(e.span)}"


def name_of(leaf: Expr) -> str:
    if leaf.lag is None:
        return leaf.name
    return f"{leaf.name}[t{-leaf.lag:+d}]" if leaf.lag else f"{leaf.name}[t]"


def quoted(part: Expr) -> str:
    """A part as written, without brackets around the whole of it."""
    text = said(part.span)
    depth = 0
    for k, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if not depth:
            return text[1:-1].strip() if text[0] == "(" and k == len(text) - 1 else text
    return text


def bracketed(text: str) -> str:
    return f"({text})" if " + " in text or " - " in text else text


def factors_of(name: str) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """What stands in derivatives of usual functions."""
    yield name, lambda a: a
    yield f"1 - {name}", lambda a: 1 - a
    yield f"1 - {name}**2", lambda a: 1 - a**2
    yield f"{name}*(1 - {name})", lambda a: a * (1 - a)
    yield f"1 - tanh({name})**2", lambda a: 1 - np.tanh(a) ** 2
    yield f"tanh({name})", np.tanh
