"""What the two kinds of generated function share: signatures, spellings, positions."""

from __future__ import annotations

from dataclasses import dataclass, field

from bptt.errors import BpttError
from bptt.ir.dims import Dim, terms
from bptt.ir.ops import OPS
from bptt.ir.program import Node

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
FUNCTIONS = {
    name: name
    for name in (
        "tanh sin cos sigmoid exp log sqrt relu softplus logsigmoid softsign abs positive sign"
        " prefer same unless max min"
    ).split()
}
Key = tuple[str, int]  # a series at a lag; a stack is called `stack0`


@dataclass
class Printed:
    """One generated function, and what it takes and returns, in order."""

    source: str
    reads: list[Key] = field(default_factory=list[Key])
    constants: list[str] = field(default_factory=list[str])
    rolls: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    slots: list[str] = field(default_factory=list[str])
    returns: list[str] = field(default_factory=list[str])


def dim_source(dim: Dim, sizes: list[str]) -> str:
    """A size as an expression over the numbers of `sizes`."""
    parts = [f"{k}*n{sizes.index(s)}" if s else str(k) for s, k in terms(dim).items()]
    return "+".join(parts).replace("1*n", "n") if parts else "0"


def spans_source(n: Node, sizes: list[str]) -> str:
    """The stretches of a `block`, as Python writes slices."""
    found = [(dim_source(s, sizes), dim_source(k, sizes)) for s, k in n.attr]
    return ", ".join(f"{s}:{s}+{k}" for s, k in found)


def no_spelling(n: Node) -> BpttError:
    """What to say of an op that this language cannot write: of a function left open, its name."""
    if n.op.startswith("call"):
        OPS[n.op].meaning(n)
    return BpttError(f"the op `{n.op}` has no spelling in the reference backend")


class Positions:
    """Positions handed out to names as they are first met."""

    def __init__(self, letter: str) -> None:
        self.letter = letter
        self.found: dict[object, int] = {}

    def __call__(self, key: object) -> str:
        return f"{self.letter}{self.found.setdefault(key, len(self.found))}"
