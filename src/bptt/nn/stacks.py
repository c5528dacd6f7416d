"""How the tensors of a run hold what its sweep reads and gives.

A layer like torch's holds the matrices of its gates one upon the other, in one parameter. A run
takes that as it lies and gives its gradient as one, so nothing is cut apart or joined on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from bptt.nn.sweep import From, Sweep

Maybe = Sequence[Tensor | None]


class Part(NamedTuple):
    """Where a value lies: part number `part` of `of` equal ones, along the first axis behind the
    groups', of tensor number `k` or, where `other` is none of -1, of its sum with that one."""

    k: int
    other: int = -1
    part: int = 0
    of: int = 1


@dataclass(frozen=True)
class Stacks:  # no tuple, which torch's functions would take apart
    """`reads`: where each input of a sweep lies among the tensors of a run, no part of them twice.
    `gives`: of each tensor that comes out, which outputs of the sweep stand there one upon the
    other. Every output stands somewhere once."""

    reads: tuple[Part, ...]
    gives: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """How many tensors are read."""
        return 1 + max((max(read.k, read.other) for read in self.reads), default=-1)

    @property
    def places(self) -> list[Part]:
        """Where each input lies, then each output, among the tensors read and those that come
        out, one behind the other."""
        first = self.count
        outputs: dict[int, Part] = {}
        for n, give in enumerate(self.gives, first):
            outputs.update({k: Part(n, part=part, of=len(give)) for part, k in enumerate(give)})
        return [*self.reads, *[outputs[k] for k in range(len(outputs))]]

    def longer(self, places: Sequence[int], outputs: int) -> Stacks:
        """Those of a sweep that gives more: first what this gives, where output k is number
        `places[k]`, then what it has beside, of so many `outputs`."""
        known = set(places)
        first = tuple([tuple([places[k] for k in give]) for give in self.gives])
        return Stacks(self.reads, first + tuple([(k,) for k in range(outputs) if k not in known]))


@lru_cache(maxsize=512)
def apart(sweep: Sweep, reads: tuple[Part, ...] | None = None) -> Stacks:
    """Every output a tensor of its own; and every input, where nothing else is read."""
    alone = tuple([Part(k) for k in range(len(sweep.inputs))])
    gives = tuple([(k,) for k in range(len(sweep.outputs))])
    return Stacks(alone if reads is None else reads, gives)


def picked(parts: Iterable[Part], tensors: Maybe) -> list[Tensor | None]:
    """The parts of tensors; where a tensor is none (a gradient that is zero), none."""
    found: list[Tensor | None] = []
    cut: dict[tuple[int, int, int], Sequence[Tensor] | None] = {}
    for k, other, part, of in parts:
        if (k, other, of) not in cut:
            both = (tensors[k], tensors[other] if other >= 0 else None)
            some = [x for x in both if x is not None]
            x = some[0] + some[1] if len(some) > 1 else some[0] if some else None
            cut[k, other, of] = None if x is None else x.chunk(of, 1) if of > 1 else (x,)
        pieces = cut[k, other, of]
        found.append(None if pieces is None else pieces[part])
    return found


def parted(parts: Iterable[Part], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same of tensors that are all there."""
    return [x for x in picked(parts, tensors) if x is not None]


def joined(gives: Iterable[Sequence[int]], found: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that come out, made of the outputs of a sweep."""
    return [
        found[give[0]] if len(give) == 1 else torch.cat([found[k] for k in give], 1)
        for give in gives
    ]


class Pulled(NamedTuple):
    """The adjoint of a run. `feed`: the tensors that it reads, each number k among those that were
    saved (inputs, then what came out), or among the incoming adjoints. `results`: of each input of
    the run, the pieces that its adjoint is made of, or none; a piece that is none is zero."""

    sweep: Sweep
    stacks: Stacks
    feed: tuple[tuple[From, int], ...]
    results: tuple[tuple[Part | None, ...] | None, ...]

    def fed(self, saved: Sequence[Tensor], seeds: Maybe) -> list[Tensor]:
        """What it reads."""
        found: list[Tensor] = []
        for source, k in self.feed:
            x = seeds[k] if source is From.SEED else saved[k]
            assert x is not None
            found.append(torch.zeros_like(x) if source is From.ZERO else x)
        return found

    def result(self, k: int, found: Sequence[Tensor]) -> Tensor | None:
        """The adjoint of input number k of the run, from what this run gave."""
        parts = self.results[k]
        if parts is None:
            return None
        if len(parts) == 1 and parts[0] is not None and parts[0].of == 1:
            return found[parts[0].k]
        there = iter(parted([p for p in parts if p is not None], found))
        pieces = [None if p is None else next(there) for p in parts]
        like = next(p for p in pieces if p is not None)
        return torch.cat([torch.zeros_like(like) if p is None else p for p in pieces], 1)


@lru_cache(maxsize=512)
def pulled(
    sweep: Sweep, stacks: Stacks, given: tuple[bool, ...], wanted: tuple[bool, ...]
) -> Pulled | None:
    """The adjoint of a run of `sweep`, which is `complete`. `given`: which of the tensors that come
    out have an adjoint; `wanted`: of which inputs it is asked for. None where all are zero."""
    places, first = stacks.places, stacks.count
    outs = [p._replace(k=p.k - first) for p in places[len(stacks.reads) :]]
    asked = [wanted[r.k] or (r.other >= 0 and wanted[r.other]) for r in stacks.reads]
    wiring = sweep.pull(tuple([given[p.k] for p in outs]), tuple(asked))
    if wiring.sweep is None:
        return None
    feed: dict[tuple[From, int], int] = {}

    def number(source: From, k: int) -> int:
        return feed.setdefault((source, k), len(feed))

    reads: list[Part] = []
    for source, n in wiring.feed:
        place = outs[n] if source is From.SEED else places[n]
        other = -1
        if source is From.SAVED and place.other >= 0:
            other = number(source, place.other)
        reads.append(place._replace(k=number(source, place.k), other=other))
    slots: dict[int, list[int | None]] = {}
    for read, out in zip(stacks.reads, wiring.results, strict=True):
        for k in (read.k, read.other):
            if k >= 0 and wanted[k] and out is not None:
                slot = slots.setdefault(k, [None] * read.of)
                assert len(slot) == read.of and slot[read.part] is None, "a part is read twice"
                slot[read.part] = out
    gives: list[tuple[int, ...]] = []
    at: dict[int, Part] = {}

    def give(*whole: int) -> None:
        at.update({k: Part(len(gives), part=n, of=len(whole)) for n, k in enumerate(whole)})
        gives.append(whole)

    results: list[tuple[Part | None, ...] | None] = [None] * first
    for k, slot in slots.items():
        whole = tuple([out for out in slot if out is not None])
        if len(whole) == len(slot) and not any(out in at for out in whole):
            give(*whole)
        for out in whole:
            if out not in at:
                give(out)
        parts = tuple([None if out is None else at[out] for out in slot])
        n = at[whole[0]].k
        results[k] = (Part(n),) if gives[n] == tuple(slot) else parts
    for out in range(len(wiring.sweep.outputs)):
        if out not in at:
            give(out)
    return Pulled(wiring.sweep, Stacks(tuple(reads), tuple(gives)), tuple(feed), tuple(results))
