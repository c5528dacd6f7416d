"""One layer and direction, trained by the short way: two calls of compiled code and little else.

Where a graph of the backward pass is asked for, or its gradients are no plain tensors, the layer is
run again by `bptt.nn.run.run`, which knows every transform and every order of derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bptt.backends.cpu.run import Code, Launch, code_of
from bptt.errors import UserError
from bptt.nn.run import plain, run
from bptt.nn.sweep import From, Wiring, sweep_of

Read = tuple[int, int, int, int]
"""Where a constant lies: the number of a tensor (-1: the input), of one to add (or -1), and which
part of how many."""


class Way:
    """A sweep, and where what it reads lies among the input and `params` tensors."""

    def __init__(self, text: str, reads: Sequence[Read], params: Sequence[int]) -> None:
        self.text, self.params = text, tuple(params)
        place = {k: n for n, k in enumerate(params)} | {-1: -1}
        self.reads = tuple((place[k], place[other], part, of) for k, other, part, of in reads)
        self.code = code_of(sweep_of(text).program)
        self.sweep = sweep_of(text).extended
        self.kept = sweep_of(text).kept
        self.longer = code_of(self.sweep.program)
        self.launches: dict[object, Launch] = {}

    @property
    def possible(self) -> bool:
        """Whether all of it is done by phases, without anything to work out before or after."""
        return self.code.plain and self.longer.plain

    def addresses(self, x: Tensor, params: Sequence[Tensor], held: list[Tensor]) -> list[int]:
        """Of the input and constants, in the sweep's order. `held`: what they point into."""
        found: list[int] = []
        for k, other, part, of in self.reads:
            p = x if k < 0 else params[k]
            if other >= 0:
                p = p + params[other]
                held.append(p)
            at = p.data_ptr()
            found.append(at + part * (p.nbytes // of) if part else at)
        return found

    def shapes(self, x: Tensor, params: Sequence[Tensor]) -> list[tuple[int, ...]]:
        """The same as shapes, with the group axis."""
        found: list[tuple[int, ...]] = []
        for k, other, _, of in self.reads:
            shape = tuple((x if k < 0 else params[k]).shape)
            if other >= 0 and params[other].shape != shape:
                both = f"{list(shape)} and {list(params[other].shape)}"
                raise UserError(f"two parameters that are added have the shapes {both}")
            found.append((1, shape[0] // of, *shape[1:]) if of > 1 else (1, *shape))
        return found

    def launch(
        self, code: Code, x: Tensor, params: Sequence[Tensor], starts: Sequence[Tensor]
    ) -> Launch:
        """A run of the forward sweep, kept for the next one of these shapes."""
        key = (code is self.code, x.shape, tuple([p.shape for p in params]))
        found = self.launches.get(key)
        if found is None:
            if len(self.launches) > 64:
                self.launches.clear()
            shapes = (*self.shapes(x, params), *((1, *s.shape) for s in starts))
            found = self.launches[key] = code.launch(tuple(shapes), None)
        return found

    def forward(
        self, x: Tensor, params: Sequence[Tensor], starts: Sequence[Tensor], longer: bool
    ) -> list[Tensor]:
        """What comes out of the sweep, or of the `longer` one, without the group axis."""
        code = self.longer if longer else self.code
        launch = self.launch(code, x, params, starts)
        held: list[Tensor] = []
        found = self.addresses(x, params, held)
        outs = [x.new_empty(shape[1:]) for shape in launch.shapes]
        found += [s.data_ptr() for s in starts]
        found += [o.data_ptr() for o in outs]
        launch.call(code.library(x.dtype), found)
        return outs

    def trained(self, x: Tensor, params: Sequence[Tensor], starts: Sequence[Tensor]) -> Any:
        """The same with a graph: the sweep's outputs."""
        return cast(Any, _Trained.apply(self, x, *params, *starts))

    def again(
        self, given: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """The gradients by `given`, by the way that knows every transform."""
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            count = 1 + len(self.params)
            # nodes of their own: what one of them owes to another is the outer graph's to follow
            given = [t.view_as(t) for t in given]
            x, params, starts = given[0], given[1:count], given[count:]
            tensors: list[Tensor] = []
            for k, other, part, of in self.reads:
                p = x if k < 0 else params[k] if other < 0 else params[k] + params[other]
                tensors.append((p.chunk(of)[part] if of > 1 else p)[None])
            ys = run(self.text, [*tensors, *(s[None] for s in starts)])
            pairs = [(y, g[None]) for y, g in zip(ys, grads, strict=True) if g is not None]
            wanted = [t for t, need in zip(given, needs, strict=True) if need]
            found = iter(
                torch.autograd.grad(
                    [y for y, _ in pairs],
                    wanted,
                    [g for _, g in pairs],
                    create_graph=graph,
                    allow_unused=True,
                )
            )
        return [next(found) if need else None for need in needs]

    def backward(
        self,
        given: Sequence[Tensor],
        outs: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> list[Tensor | None] | None:
        """The gradients by `given`; None where it takes more than phases to find them."""
        count = len(self.params)
        x, params = given[0], given[1 : 1 + count]
        seeds: list[Tensor | None] = [None] * len(outs)
        for k, grad in zip(self.kept, grads, strict=True):
            seeds[k] = None if grad is None else grad.contiguous()
        wanted = [
            needs[1 + k] or (other >= 0 and needs[1 + other]) for k, other, _, _ in self.reads
        ]
        wanted += needs[1 + count :]
        wiring = self.sweep.pull(tuple([s is not None for s in seeds]), tuple(wanted))
        made: list[Tensor | None] = [None] * len(given)
        if wiring.sweep is None:
            return made
        code = code_of(wiring.sweep.program)
        if not code.plain:
            return None
        held: list[Tensor] = []
        first = self.addresses(x, params, held)
        saved = [*first, *(t.data_ptr() for t in (*given[1 + count :], *outs))]
        found: list[int] = []
        for source, k in wiring.feed:
            if source is From.SAVED:
                found.append(saved[k])
                continue
            seed = seeds[k] if source is From.SEED else torch.zeros_like(outs[k - len(wanted)])
            assert seed is not None
            held.append(seed)
            found.append(seed.data_ptr())
        launch = self.launches.get((id(wiring), x.shape, tuple([p.shape for p in params])))
        if launch is None:
            launch = self.backward_launch(wiring, code, given, outs)
        places: list[int] = [0] * len(launch.shapes)
        whole = [0] * count  # how many parts of each parameter have a gradient
        for (k, _, _, _), out in zip(self.reads, wiring.results, strict=False):
            if k >= 0 and out is not None:
                whole[k] += 1
        for (k, _, part, of), out in zip(self.reads, wiring.results, strict=False):
            if out is None:
                continue
            grad = made[1 + k]
            if grad is None:
                like = given[1 + k]
                full = k < 0 or whole[k] == of
                grad = made[1 + k] = torch.empty_like(like) if full else torch.zeros_like(like)
            places[out] = grad.data_ptr() + (part * (grad.nbytes // of) if part else 0)
        for n, out in enumerate(wiring.results[len(self.reads) :], 1 + count):
            if out is not None:
                grad = made[n] = torch.empty_like(given[n])
                places[out] = grad.data_ptr()
        for out, at in enumerate(places):
            if not at:  # the last carry of a state that needs no gradient
                held.append(x.new_empty(launch.shapes[out]))
                places[out] = held[-1].data_ptr()
        launch.call(code.library(x.dtype), found + places)
        for k, other, _, _ in self.reads:
            if other >= 0 and made[1 + other] is None:
                grad = made[1 + k]
                made[1 + other] = None if grad is None else grad.clone()
        return [m if need else None for m, need in zip(made, needs, strict=True)]

    def backward_launch(
        self, wiring: Wiring, code: Code, given: Sequence[Tensor], outs: Sequence[Tensor]
    ) -> Launch:
        x, count = given[0], len(self.params)
        known = self.shapes(x, given[1 : 1 + count])
        known += [(1, *t.shape) for t in (*given[1 + count :], *outs)]
        first = len(known) - len(outs)
        shapes = [known[k + first if source is From.SEED else k] for source, k in wiring.feed]
        found = code.launch(tuple(shapes), None)
        params = given[1 : 1 + count]
        self.launches[id(wiring), x.shape, tuple([p.shape for p in params])] = found
        return found


class _Trained(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, way: Way, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        count = len(way.params)
        outs = way.forward(x, rest[:count], rest[count:], longer=True)
        ctx.way = way
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *rest, *outs)
        return tuple(outs[k] for k in way.kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        way: Way = ctx.way
        needs, saved = ctx.needs_input_grad[1:], ctx.saved_tensors  # which may be read once only
        given, outs = saved[: len(needs)], saved[len(needs) :]
        some = [*saved, *(g for g in grads if g is not None)]
        alike = all(t.is_contiguous() and t.dtype is some[0].dtype for t in saved)
        if not torch.is_grad_enabled() and alike and plain(some):
            found = way.backward(given, outs, grads, needs)
            if found is not None:
                return None, *found
        return None, *way.again(given, grads, needs)
