"""A Program as `run` sees it: its text, its ports, and the sweeps derived from it.

Nothing here touches a tensor. What is worked out, once a Program, is which derived sweep gives
which gradients (or tangents), and where each tensor that sweep reads comes from.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, cast, get_args
from weakref import WeakValueDictionary

from bptt.calculus.derive import Derived, adjoint, primal_ports
from bptt.calculus.rewrites import cut, joined, nearly_known, remade, sliced, with_outputs
from bptt.calculus.tangent import jvp
from bptt.errors import UserError
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Program, refs
from bptt.language.canonical import read
from bptt.nn.shapes import Shape, output_shapes
from bptt.printers.text import text as canonical_text

Keep = Literal["all", "states", "sqrt"]
"""What a run keeps for its backward pass, beside its inputs: all that the backward pass reads (but
what the short way makes again for nothing); its states, from which the rest is computed again; or
its states at the first step of each window of about sqrt(T) steps, which is then run again."""


def checked_keep(keep: object) -> Keep:
    """`keep`, if it is a Keep. Raises UserError."""
    if keep not in get_args(Keep):
        names = ", ".join(f'"{name}"' for name in get_args(Keep))
        raise UserError(f"keep is one of {names}, not {keep!r}")
    return cast(Keep, keep)


class From(Enum):
    """Where an input of a derived sweep comes from.

    SAVED: the inputs, then the outputs, of the sweep it is derived from. SEED: the incoming
    adjoints (or tangents). ZERO: zeros of the shape that a saved tensor has.
    """

    SAVED = "saved"
    SEED = "seed"
    ZERO = "zero"


class Wiring(NamedTuple):
    """A derived sweep and how its ports hang together with those of the sweep it came from.

    `feed`: the source of each of its inputs, as a number in the list that `From` names.
    `results`: for each input of the sweep it came from (forward mode: each output), the number
    of the output that is its adjoint (its tangent); None is zero. No `sweep`: all are zero.
    """

    sweep: Sweep | None
    feed: tuple[tuple[From, int], ...]
    results: tuple[int | None, ...]


class Sweep:
    """One Program and its canonical text. `sweep_of` makes them: one a text."""

    def __init__(self, program: Program, text: str) -> None:
        self.program, self.text = program, text
        self.inputs, self.outputs = inputs(program), outputs(program)
        self._shapes: dict[tuple[bool, tuple[Shape, ...]], list[Shape]] = {}
        self._pulls: dict[object, Wiring] = {}
        self._pushes: dict[tuple[bool, ...], Wiring] = {}
        self._keepings: dict[Keep | None, tuple[Sweep, tuple[int, ...]]] = {}

    def output_shapes(self, shapes: tuple[Shape, ...], ragged: bool) -> list[Shape]:
        """The shapes of the outputs from those of the inputs, all numbers. Raises UserError."""
        found = self._shapes.get((ragged, shapes))
        if found is None:
            if len(self._shapes) > 1000:
                self._shapes.clear()
            found = self._shapes[ragged, shapes] = output_shapes(self.program, shapes, ragged)
        return found

    @cached_property
    def extended(self) -> Sweep:
        """This sweep with all that its derivatives read as further outputs; itself if it has."""
        return self._with_what_is_read(*self._derivatives())

    @cached_property
    def stated(self) -> Sweep:
        """This sweep with what its derivatives cannot do without as further outputs: its states.
        The rest they compute again. Itself if it has."""
        return self._with_what_is_read(*map(self._recomputing, self._derivatives()))

    @property
    def complete(self) -> bool:
        """Whether its derivatives find what they read among its inputs and outputs."""
        return self.stated is self

    def keeping(self, keep: Keep | None) -> tuple[Sweep, tuple[int, ...]]:
        """The sweep that runs in place of this one, and which of its outputs are this one's.

        None, as within a window of "sqrt": nothing is kept but what the sweep gives anyway.
        """
        found = self._keepings.get(keep)
        if found is None:
            longer = {"all": lambda: self.extended, "states": lambda: self.stated}
            sweep = longer.get(keep or "", lambda: self)()
            places = {port: k for k, port in enumerate(sweep.outputs)}
            found = self._keepings[keep] = sweep, tuple(places[port] for port in self.outputs)
        return found

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers, among the outputs of `extended`, of the outputs of this sweep."""
        return self.keeping("all")[1]

    def _derivatives(self) -> tuple[Derived, Derived]:
        """Both derived sweeps, by all there is."""
        p = self.program
        seeds = {*(e.name for e in p.equations), *(e.value for e in p.emits)}
        return adjoint(p, seeds), jvp(p)

    def _with_what_is_read(self, *derived: Derived) -> Sweep:
        p = self.program
        read = {port.name for d in derived for port in d.primal}
        names = [e.name for e in p.equations if e.name in read]
        steps = [e.name for e in p.steps()]
        if not set(steps) & {*names, *p.outputs}:
            names += steps[-1:]  # what tells the length to a derived sweep that reads no series
        longer = with_outputs(p, names)
        return self if longer.outputs == p.outputs else sweep_of(longer)

    def _recomputing(self, d: Derived) -> Derived:
        """`d`, computing again what it reads of this sweep, but for its states and outputs."""
        p = self.program
        computed = {e.name for e in p.equations} - self._known
        if computed.isdisjoint(port.name for port in d.primal):
            return d
        source = cut(p, self._known, reverse=d.program.dir != p.dir)
        program = joined(source, d.program)
        return replace(d, program=program, primal=primal_ports(p, program))

    @cached_property
    def _known(self) -> frozenset[str]:
        """The names of this sweep that are not computed again: they are kept, or they are known
        only after the sweep."""
        p = self.program
        known = {*p.outputs, *(s.name for s in p.states), *p.late()}
        return frozenset(known | self._compared(known))

    def _compared(self, names: Container[str]) -> set[str]:
        """What the `names` are the largest elements of: which one that is is found by comparing,
        to the last digit."""
        largest = (e for e in self.program.equations if e.name in names and e.rhs.op == "row_max")
        return {name for e in largest for name, lag in refs(e.rhs) if not lag}

    @cached_property
    def spare(self) -> tuple[str, ...]:
        """The outputs that the adjoint sweep makes again of others at next to no cost, in the order
        in which it can take them on."""
        p = self.program
        part = _part(adjoint(p, {e.name for e in p.steps()}), self.inputs)
        reads = {e.name: {name for name, _ in refs(e.rhs)} for e in p.steps()}
        at_hand = {*p.outputs, *(v.name for v in p.values)}
        apart = self._compared(reads)
        found: list[str] = []
        for name in p.outputs if part else ():
            assert part is not None
            given = name in {v.name for v in part.values} and name in reads and name not in apart
            if not given or not reads[name] <= at_hand - {*found}:
                continue
            longer = remade(part, name, p)
            if longer is not None and nearly_known(part, p.equation(name).rhs):
                part = longer
                found.append(name)
        return tuple(found)

    def pull(
        self, given: tuple[bool, ...], wanted: tuple[bool, ...], *, spare: bool = False
    ) -> Wiring:
        """The adjoint sweep. `given`: which outputs have an incoming adjoint; `wanted`: which
        inputs' adjoints are asked for; `spare`: it makes again the outputs that are. Needs a sweep
        that is `complete`."""
        found = self._pulls.get((given, wanted, spare))
        if found is None:
            found = self._pulls[given, wanted, spare] = self._pull(given, wanted, spare)
        return found

    def push(self, given: tuple[bool, ...]) -> Wiring:
        """The tangent sweep. `given`: which inputs have a tangent. Needs a `complete` sweep."""
        found = self._pushes.get(given)
        if found is None:
            found = self._pushes[given] = self._push(given)
        return found

    def _pull(self, given: tuple[bool, ...], wanted: tuple[bool, ...], spare: bool) -> Wiring:
        none = Wiring(None, (), (None,) * len(wanted))
        if not any(given):
            return none
        asked = _picked(self.inputs, wanted)
        seeds = {port.name for port in _picked(self.outputs, given) if port.at is not At.FINAL}
        d = self._recomputing(adjoint(self.program, seeds))
        part = _part(d, asked)
        if part is not None and not _reads_series(part):
            # what is linear may read nothing that has steps, and nothing else tells the length:
            # then the whole sweep runs, with zeros for further seeds
            steps = {e.name for e in self.program.steps()}
            every = seeds | steps.intersection(self.program.outputs)
            d = self._recomputing(adjoint(self.program, every))
            part = d.program
        if part is None:
            return none
        for name in self.spare if spare else ():  # of all that is read this reads a part
            if name in {v.name for v in part.values}:
                part = remade(part, name, self.program)
                assert part is not None, f"{name} is read too early"
        d = replace(d, primal=primal_ports(self.program, part))
        results = [
            d.results.get(port) if want else None
            for port, want in zip(self.inputs, wanted, strict=True)
        ]
        return self._wired(d, part, given, len(self.inputs), results)

    def _push(self, given: tuple[bool, ...]) -> Wiring:
        d = self._recomputing(jvp(self.program, _picked(self.inputs, given)))
        if not _reads_series(d.program):
            d = self._recomputing(jvp(self.program))
        results = [d.results.get(port) for port in self.outputs]
        return self._wired(d, d.program, given, 0, results)

    def _wired(
        self,
        d: Derived,
        part: Program,
        given: tuple[bool, ...],
        offset: int,
        results: Sequence[Port | None],
    ) -> Wiring:
        """`given`: which seeds there are; they belong to the saved tensors from `offset` on."""
        saved = {port: k for k, port in enumerate((*self.inputs, *self.outputs))}
        bring = {port: seed for seed, port in d.seeds.items()}
        feed: list[tuple[From, int]] = []
        for port in inputs(part):
            if port not in bring:
                feed.append((From.SAVED, saved[d.primal[port]]))
                continue
            k = saved[bring[port]]
            feed.append((From.SEED, k - offset) if given[k - offset] else (From.ZERO, k))
        numbers = {port: k for k, port in enumerate(outputs(part))}
        found = tuple(None if port is None else numbers[port] for port in results)
        return Wiring(sweep_of(part), tuple(feed), found)


def _picked(ports: Iterable[Port], flags: Iterable[bool]) -> list[Port]:
    return [port for port, flag in zip(ports, flags, strict=True) if flag]


def _part(d: Derived, asked: Iterable[Port]) -> Program | None:
    """The slice of an adjoint sweep that gives the adjoints of `asked`; None if there are none."""
    results = [d.results[port] for port in asked if port in d.results]
    emitted = {port.name for port in results if port.adjoint}
    sums = tuple(port.name for port in results if port.at is At.CONST)
    carries = tuple(port.name for port in results if port.at is At.FINAL)
    if not results:
        return None
    return replace(sliced(d.program, (*sums, *carries), emitted), outputs=sums)


def _reads_series(p: Program) -> bool:
    return any(port.at is At.STEPS for port in inputs(p))


# One Sweep a text, as long as somebody holds it: those derived are held by what they came from.
_sweeps: WeakValueDictionary[str, Sweep] = WeakValueDictionary()


@lru_cache(maxsize=512)
def sweep_of(program: Program | str) -> Sweep:
    """The Sweep of a Program or of its canonical text. Raises CellError where text is not one."""
    text = program if isinstance(program, str) else canonical_text(program)
    sweep = _sweeps.get(text)
    if sweep is None:
        sweep = Sweep(read(text) if isinstance(program, str) else program, text)
        _sweeps[text] = sweep
    return sweep
