"""A sweep of one step, made ready once and run again and again."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from bptt.backends.cpu import threads
from bptt.backends.cpu.run import Launch, Library


class OneStep:
    """A Launch of one step whose matrices are packed when it first runs, and never again."""

    def __init__(self, launch: Launch, library: Library) -> None:
        assert launch.steps == 1 and launch.groups == 1 and launch.lengths is None
        count = threads.count()
        team = threads.team() if count > 1 else None
        self.again, self.launch = library.again, launch
        self.call = library.open(
            library.sweep,
            launch.numbers,
            launch.strides,
            launch.batch,
            count if team else 1,
            team,
        )
        if not self.call:
            raise MemoryError("not enough memory for a step")
        self.held = library
        weakref.finalize(self, library.close, self.call)

    def addresses(self, found: Sequence[int]) -> object:
        """Addresses of all ports as `run` takes them; may be kept and used again."""
        return self.launch.pointers(*found)

    def run(self, addresses: object) -> None:
        """One step on memory at these addresses."""
        self.again(self.call, addresses)
