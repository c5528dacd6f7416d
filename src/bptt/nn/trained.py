"""One layer and direction, trained by the short way: two calls of compiled code and little else.

Where a graph of the backward pass is asked for, or its gradients are no plain tensors, the layer is
run again by `bptt.nn.run.run`, which knows every transform and every order of derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bptt.backends.cpu.run import Ready, Source, code_of
from bptt.errors import UserError
from bptt.ir.ports import At, Port
from bptt.nn.backend import readable
from bptt.nn.lanes import plain
from bptt.nn.run import run
from bptt.nn.stacks import Part
from bptt.nn.sweep import From, sweep_of

Shape = tuple[int, ...]
Lengths = tuple[int, ...] | None
"""How many sequences have each step, where a batch is ragged."""


class Same(NamedTuple):
    """What tensor number `to` has of the gradient of number `of`: these of so many parts."""

    to: int
    of: int
    some: tuple[int, ...]
    parts: int


class Forward(NamedTuple):
    """A forward sweep at some sizes, ready for the addresses of the input, the parameters, the
    first states and what comes out; `outs`: its shapes. `backwards`: of the longer sweep, by which
    gradients there are and which are asked for, on tensors of the shapes that are `saved`."""

    ready: Ready
    outs: Sequence[Shape]
    saved: Sequence[Shape]
    backwards: dict[object, Backward]


class Backward(NamedTuple):
    """A backward sweep at some sizes; where it is not `ready` there is nothing to compute.

    It takes the addresses of all that was saved, of the `seeds`, of the tensors that are `made`
    and of the `scratch`. `seeds`: the outputs whose gradients it reads, and whether they are
    there, or zeros. `made`: the tensors that get a gradient, and whether all of it is written.
    `scratch`: shapes of what is written and not asked for. `same`: tensors that have the gradient
    of another, or some parts of it.
    """

    ready: Ready | None = None
    seeds: Sequence[tuple[int, bool]] = ()
    made: Sequence[tuple[int, bool]] = ()
    scratch: Sequence[Shape] = ()
    same: Sequence[Same] = ()
    possible: bool = True  # whether phases are enough for it


class Way:
    """A sweep, and where the input and constants that it reads lie, among the input and then the
    tensors of a layer of these numbers, `params`."""

    def __init__(self, text: str, reads: Sequence[Part], params: Sequence[int]) -> None:
        self.text, self.params, self.reads = text, tuple(params), tuple(reads)
        self.code = code_of(sweep_of(text).program)
        self.sweep = sweep_of(text).extended
        self.kept = sweep_of(text).kept
        self.longer = code_of(self.sweep.program)
        self.forwards: dict[object, Forward] = {}

    @cached_property
    def held(self) -> list[int]:
        """The numbers of the longer sweep's outputs that are kept: the backward one makes the
        others again."""
        spare = {Port(name, At.STEPS) for name in self.sweep.spare}
        return [k for k, port in enumerate(self.sweep.outputs) if port not in spare]

    @property
    def possible(self) -> bool:
        """Whether all of it is done by phases, without anything to work out before or after."""
        return self.code.plain and self.longer.plain

    def sources(self, given: Sequence[Tensor]) -> list[Source]:
        """Of each read, behind the addresses of the input and of the parameters."""
        found: list[Source] = []
        for k, other, part, of in self.reads:
            count = given[k].numel() // of
            found.append(Source(k, other, part * count, count))
        return found

    def shapes(self, given: Sequence[Tensor]) -> list[Shape]:
        """Of the input and constants, with the group axis."""
        found: list[Shape] = []
        for k, other, _, of in self.reads:
            shape = tuple(given[k].shape)
            if other >= 0 and given[other].shape != shape:
                both = f"{list(shape)} and {list(given[other].shape)}"
                raise UserError(f"two parameters that are added have the shapes {both}")
            found.append((1, shape[0] // of, *shape[1:]) if of > 1 else (1, *shape))
        return found

    def at(
        self,
        x: Tensor,
        params: Sequence[Tensor],
        starts: Sequence[Tensor],
        lengths: Lengths,
        longer: bool,
    ) -> Forward:
        """The sweep, or the `longer` one, at these sizes."""
        key = (longer, lengths, x.dtype, x.shape, *[p.shape for p in params])
        at = self.forwards.get(key)
        if at is None:
            code = self.longer if longer else self.code
            given = (x, *params)
            shapes = (*self.shapes(given), *(tuple(s.shape) for s in starts))
            launch, library = code.launch(shapes, lengths), code.library(x.dtype)
            ports = (self.sweep if longer else sweep_of(self.text)).outputs
            outs = [
                shape[1:] if port.at is At.STEPS else shape
                for port, shape in zip(ports, launch.shapes, strict=True)
            ]
            sources = self.sources(given)
            first = len(given)
            sources += [Source(k, -1) for k in range(first, first + len(starts) + len(outs))]
            saved = [t.shape for t in (x, *params, *starts)]
            saved += [outs[k] for k in (self.held if longer else ())]
            at = Forward(launch.ready(library, sources), outs, saved, {})
            _keep(self.forwards, key, at)
        return at

    def forward(
        self,
        x: Tensor,
        params: Sequence[Tensor],
        starts: Sequence[Tensor],
        lengths: Lengths,
    ) -> list[Tensor]:
        """What comes out of the sweep: series [T, B, w], or [N, w] where there are `lengths`, and
        last states [1, B, w]."""
        return _outs(self.at(x, params, starts, lengths, longer=False), (x, *params, *starts))

    def trained(
        self, x: Tensor, params: Sequence[Tensor], starts: Sequence[Tensor], lengths: Lengths
    ) -> Any:
        """The same with a graph: the sweep's outputs."""
        at = self.at(x, params, starts, lengths, longer=True)
        return cast(Any, _Trained.apply(self, at, lengths, x, *params, *starts))

    def again(
        self,
        given: Sequence[Tensor],
        lengths: Lengths,
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients by `given`, by the way that knows every transform."""
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            count = 1 + len(self.params)
            # nodes of their own: what one of them owes to another is the outer graph's to follow
            given = [t.view_as(t) for t in given]
            tensors = [t[None] if k < count else t for k, t in enumerate(given)]
            reads = [*self.reads, *[Part(k) for k in range(count, len(given))]]
            sizes = None if lengths is None else torch.tensor(lengths)
            ys = run(self.text, tensors, sizes, reads=reads)
            pairs = [(y, g) for y, g in zip(ys, grads, strict=True) if g is not None]
            wanted = [t for t, need in zip(given, needs, strict=True) if need]
            found = iter(
                torch.autograd.grad(
                    [y for y, _ in pairs],
                    wanted,
                    [g.reshape(y.shape) for y, g in pairs],
                    create_graph=graph,
                    allow_unused=True,
                )
            )
        return [next(found) if need else None for need in needs]

    def backward(
        self,
        forward: Forward,
        saved: Sequence[Tensor],
        lengths: Lengths,
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> list[Tensor | None] | None:
        """The gradients by the first of `saved`, as many as `needs` says, which the call `forward`
        was given; None where it takes more than phases to find them."""
        if forward.saved != [t.shape for t in saved]:
            return None  # hooks have saved something else
        given = saved[: len(needs)]
        key = (*[g is not None for g in grads], needs)
        at = forward.backwards.get(key)
        if at is None:
            seeded = [g is not None for g in grads]
            at = self._pull(forward, given, lengths, seeded, needs)
            _keep(forward.backwards, key, at)
        if not at.possible:
            return None
        made: list[Tensor | None] = [None] * len(given)
        if at.ready is None:
            return made
        held: list[Tensor] = []
        for k, there in at.seeds:
            seed = grads[k] if there else given[0].new_zeros(forward.outs[k])
            assert seed is not None
            held.append(seed.contiguous())
        for n, whole in at.made:
            grad = torch.empty_like(given[n]) if whole else torch.zeros_like(given[n])
            made[n] = grad
            held.append(grad)
        held += [given[0].new_empty(shape) for shape in at.scratch]
        at.ready.call([t.data_ptr() for t in (*saved, *held)])
        for n, first, some, parts in at.same:
            grad, own = made[first], made[n]
            assert grad is not None
            if own is None:
                made[n] = grad.clone()
                continue
            for part in some:
                own.chunk(parts)[part].copy_(grad.chunk(parts)[part])
        return [m if need else None for m, need in zip(made, needs, strict=True)]

    def _pull(
        self,
        forward: Forward,
        given: Sequence[Tensor],
        lengths: Lengths,
        seeded: Sequence[bool],
        needs: Sequence[bool],
    ) -> Backward:
        """What `backward` does at these sizes."""
        count = 1 + len(self.params)
        wanted = [needs[k] or (other >= 0 and needs[other]) for k, other, _, _ in self.reads]
        wanted += needs[count:]
        there = {k for k, seed in zip(self.kept, seeded, strict=True) if seed}
        outs = range(len(forward.outs))
        wiring = self.sweep.pull(tuple([k in there for k in outs]), tuple(wanted), spare=True)
        if wiring.sweep is None:
            return Backward()
        code = code_of(wiring.sweep.program)
        if not code.plain:
            return Backward(possible=False)
        first = len(wanted)  # of the outputs, among all that is saved
        known = [*self.shapes(given), *(tuple(t.shape) for t in given[count:])]
        known += [self.grouped(k, forward.outs[k]) for k in outs]
        sources, seeds = self.sources(given), list[tuple[int, bool]]()
        sources += [Source(k, -1) for k in range(count, len(given))]
        held = {k: n for n, k in enumerate(self.held, len(given))}
        sources += [Source(held.get(k, -1), -1) for k in outs]  # who is not held is made again
        feed: list[Source] = []
        shapes: list[Shape] = []
        for source, k in wiring.feed:
            shapes.append(known[k + first if source is From.SEED else k])
            if source is From.SAVED:
                feed.append(sources[k])
                continue
            feed.append(Source(len(forward.saved) + len(seeds), -1))
            seeded_by = source is From.SEED
            seeds.append((self.kept.index(k) if seeded_by else k - first, seeded_by))
        launch = code.launch(tuple(shapes), lengths)
        parts = [0] * len(given)  # how many parts of each tensor have a gradient
        copied: dict[tuple[int, int, int], list[int]] = {}
        for (k, other, part, of), out in zip(self.reads, wiring.results, strict=False):
            if out is not None:
                parts[k] += 1
                if other >= 0 and needs[other]:
                    parts[other] += 1
                    copied.setdefault((other, k, of), []).append(part)
        same = [Same(n, first, tuple(some), of) for (n, first, of), some in copied.items()]
        made = {s.to: parts[s.to] == s.parts for s in same if len(s.some) < s.parts}
        for (k, _, _, of), out in zip(self.reads, wiring.results, strict=False):
            if out is not None:
                made[k] = parts[k] == of
        for n, out in enumerate(wiring.results[len(self.reads) :], count):
            if out is not None:
                made[n] = True
        before = len(forward.saved) + len(seeds)
        at = {n: before + place for place, n in enumerate(made)}
        places: dict[int, Source] = {}
        for read, source, out in zip(self.reads, sources, wiring.results, strict=False):
            if out is not None:
                places[out] = Source(at[read.k], -1, source.beyond)
        for n, out in enumerate(wiring.results[len(self.reads) :], count):
            if out is not None:
                places[out] = Source(at[n], -1)
        scratch: list[Shape] = []  # the last carry of a state that needs no gradient
        for out, shape in enumerate(launch.shapes):
            if out not in places:
                places[out] = Source(before + len(made) + len(scratch), -1)
                scratch.append(shape)
        feed += [places[out] for out in range(len(launch.shapes))]
        ready = launch.ready(code.library(given[0].dtype), feed)
        return Backward(ready, tuple(seeds), tuple(made.items()), tuple(scratch), same)

    def grouped(self, k: int, shape: Shape) -> Shape:
        """The shape of the longer sweep's output number `k` with the group axis."""
        return (1, *shape) if self.sweep.outputs[k].at is At.STEPS else shape


class _Trained(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, way: Way, at: Forward, lengths: Lengths, *given: Tensor
    ) -> tuple[Tensor, ...]:
        outs = _outs(at, given)
        ctx.way, ctx.at, ctx.lengths, ctx.dtype = way, at, lengths, given[0].dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *[outs[k] for k in way.held])
        return tuple([outs[k] for k in way.kept])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        way: Way = ctx.way
        lengths: Lengths = ctx.lengths
        needs, saved = ctx.needs_input_grad[3:], ctx.saved_tensors  # which may be read once only
        seeds = [g for g in grads if g is not None]
        usual = not torch.is_grad_enabled() and getattr(forward_ad, "_current_level", 0) < 0
        # hooks may have saved something else
        alike = readable(saved, ctx.dtype) and all(g.dtype is ctx.dtype for g in seeds)
        if usual and alike and plain(seeds):
            found = way.backward(ctx.at, saved, lengths, grads, needs)
            if found is not None:
                return None, None, None, *found
        return None, None, None, *way.again(saved[: len(needs)], lengths, grads, needs)


def _outs(at: Forward, given: Sequence[Tensor]) -> list[Tensor]:
    """What a sweep makes of the input, the parameters and the first states."""
    x = given[0]
    outs = [x.new_empty(shape) for shape in at.outs]
    at.ready.call([t.data_ptr() for t in (*given, *outs)])
    return outs


def _keep(known: dict[Any, Any], key: object, found: object) -> None:
    """Remember what follows from shapes, of so many shapes at a time."""
    if len(known) > 64:
        known.clear()
    known[key] = found
