"""A cell as a layer in training, at a glance: its plans, and what it needs to be given."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from bptt.calculus.derive import derive
from bptt.calculus.rewrites import layer, with_outputs
from bptt.calculus.schedule import schedule
from bptt.ir.dims import Dim, solved, terms
from bptt.ir.plan import Plan
from bptt.ir.program import Program, Role, Value, walk


@dataclass(frozen=True)
class Plans:
    """What runs where in training. `kept`: what the forward pass keeps for the backward pass."""

    forward: Plan
    backward: Plan
    kept: tuple[str, ...]

    @property
    def phases(self) -> tuple[int, int]:
        """How many phases, each waiting for the one before, a step has: forward, backward."""
        return len(self.forward.loop), len(self.backward.loop)


def plans(p: Program) -> Plans:
    """The plans of the layer's part of `p`, which is lowered."""
    sweep = layer(p)
    pulled = derive(sweep)
    steps = {e.name for e in sweep.steps()}
    kept = [v.name for v in pulled.values if v.name in steps and v.name not in sweep.outputs]
    return Plans(schedule(with_outputs(sweep, kept)), schedule(pulled), tuple(kept))


@dataclass(frozen=True)
class Needs:
    """What a layer of a cell takes beside one input and its width and the states'.

    `main`: the input that is given first, `x` or the first there is; `inputs`: the others.
    `hidden`: the width that is a layer's `hidden_size`; `sizes`: those that nothing tells.
    """

    main: Value | None
    hidden: Dim
    sizes: tuple[str, ...]
    inputs: tuple[Value, ...]
    functions: tuple[str, ...]
    consts: tuple[Value, ...]

    def text(self) -> str:
        """In words: `size P, input s`."""
        found = {
            "size": self.sizes,
            "input": tuple(v.name for v in self.inputs),
            "const": tuple(v.name for v in self.consts),
            "function": self.functions,
        }
        return ", ".join(_counted(kind, names) for kind, names in found.items() if names)


def _counted(kind: str, names: tuple[str, ...]) -> str:
    """`size P`, `sizes P Q`, or `3 sizes`."""
    if len(names) > 2:
        return f"{len(names)} {kind}s"
    return f"{kind}{'s' if names[1:] else ''} {' '.join(names)}"


def main_input(p: Program) -> Value | None:
    """The input that a layer feeds: `x`, or the first that has a time."""
    series = [v for v in p.named(Role.GIVEN) if not v.per_sequence]
    return next((v for v in series if v.name == "x"), series[0] if series else None)


def main_size(p: Program) -> Dim:
    """The size that a layer's hidden_size says: `H`, or the width of the first state that is a
    vector; 1 where all states are numbers."""
    dims = [d for v in p.values for d in v.dims] + [d for e in p.equations for d in e.rhs.dims]
    if any("H" in terms(d) for d in dims):
        return "H"
    return next((d for s in p.states for d in p.dims(s.name)), 1)


def needs(p: Program, known: Container[str] = ()) -> Needs:
    """What a layer of `p` needs; `known` are the constants that have a value."""
    p = layer(p)
    given = p.named(Role.GIVEN)
    main = main_input(p)
    dims = [d for name in (*(s.name for s in p.states), *p.outputs) for d in p.dims(name)]
    dims += [d for v in p.values for d in v.dims]
    names = [n for n in dict.fromkeys(name for d in dims for name in terms(d)) if n]
    hidden = main_size(p)
    told = solved([hidden, *(main.dims if main else ())])
    calls = [n for n in walk(*(e.rhs for e in p.equations)) if n.op.startswith("call")]
    return Needs(
        main=main,
        hidden=hidden,
        sizes=tuple(n for n in names if n not in told),
        inputs=tuple(v for v in given if v is not main),
        functions=tuple(dict.fromkeys(n.attr[0] for n in calls)),
        consts=tuple(v for v in p.named(Role.CONST) if v.name not in known),
    )
