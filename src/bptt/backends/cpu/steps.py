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
        self.again, self.launch, self.library = library.again, launch, library
        self._open()

    def _open(self) -> None:
        launch, library, count = self.launch, self.library, threads.count()
        team = threads.team() if count > 1 else None
        self.alone = team is None
        where = launch.ready(library).where
        self.call = library.open(where, count if team else 1, team)
        if not self.call:
            raise MemoryError("not enough memory for a step")
        self.close = weakref.finalize(self, library.close, self.call)

    def addresses(self, found: Sequence[int]) -> object:
        """Addresses of all ports as `run` takes them; may be kept and used again."""
        return self.launch.pointers(*found)

    def run(self, addresses: object) -> None:
        """One step on memory at these addresses."""
        if not self.alone and threads.forked():  # those that it would share with are not here
            self.close()
            self._open()
        self.again(self.call, addresses)
