"""Who is compared with whom, at which sizes, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from statistics import median
from typing import Any

from bptt.bench import gate, memory
from bptt.bench.machine import Watch
from bptt.bench.peak import MATMUL, Peak, probe
from bptt.bench.problems import MODES, STEPPER, How, Problem, draw, single_layer
from bptt.bench.runner import Effort, Spread, measure, spread
from bptt.bench.shapes import QUICK, Shape
from bptt.bench.sides import PEERS, STOCK, Ready, Side, Unavailable, our_lstm, ours
from bptt.bench.truth import judged, truth

MEMORY = "memory"
OURS = "ours"
STEPS = 3
"""Steps one after the other that the gate looks at where each call is one."""
FEW = ("nn.LSTM", "nn.LSTMCell", "eager", "our lstm")
"""The sides of a quick look."""
SEEN = ("nn.LSTM", "nn.LSTMCell", "eager", "our lstm")
"""The sides of which the memory kept for backward can be seen."""
STEPPING = ("nn.LSTMCell", "our lstm")
"""The sides that take one step and carry their states on to the next."""

MOST_FOREIGN = 0.1
"""The part of the machine that other programs may take before a row is called disturbed."""


@dataclass(frozen=True)
class Request:
    """What to measure. `against`: these sides, or (empty) all that fit, or `few` of them.

    `every`: also what a mode cannot do at a shape, with the reason; else that is left out.
    """

    shapes: Sequence[Shape] = QUICK
    cells: Sequence[str] = (STOCK,)
    modes: Sequence[str] = MODES  # of infer, train, stepper, memory
    threads: Sequence[int] = (1,)
    against: Sequence[str] = ()
    few: bool = True
    every: bool = True
    effort: Effort = field(default_factory=Effort)
    options: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])  # ours


@dataclass(frozen=True)
class Row:
    """Ours beside another side. `ours` and `theirs`: seconds a call, round by round, or bytes.

    `why`: for what reason there are none. `red`: because results are wrong. `work`: the
    floating-point operations of a call. `judged`: the steps that the gate looked at. `foreign`:
    the part of the machine that other programs took meanwhile, if that is known. `probe`: what
    the peaks are of, as `Peak.kind` says.
    """

    cell: str
    shape: Shape
    threads: int
    mode: str
    against: str
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    peaks: tuple[float, ...] = ()
    work: tuple[int, int] = (0, 0)
    judged: int = 0
    backend: str = ""
    foreign: float | None = None
    probe: str = ""
    why: str = ""
    red: bool = False

    @property
    def ratio(self) -> Spread | None:
        """Theirs / ours: above 1 ours is faster, or keeps less."""
        each = [b / a for a, b in zip(self.ours, self.theirs, strict=True)]
        return spread(each) if each else None

    @property
    def parts(self) -> tuple[float, float] | None:
        """The speeds of ours and theirs as parts of the peak of the same round, the middle ones;
        None where no peak was measured. No side can be above 1: then the peak was disturbed."""
        if not self.peaks:
            return None
        each = zip((self.ours, self.theirs), self.work, strict=True)
        ours, theirs = (
            median(work / s / peak for s, peak in zip(seconds, self.peaks, strict=True))
            for seconds, work in each
        )
        return ours, theirs

    @property
    def most(self) -> float | None:
        """The ratio of a side that does the same work and nothing else, at the peak.

        None where it is not known: where the peak is that of torch's own product, or was disturbed,
        or where the sides do not do the same work.
        """
        parts = self.parts
        if (
            parts is None
            or self.probe in ("", MATMUL)
            or self.work[0] != self.work[1]
            or max(parts) > 1
        ):
            return None
        return 1 / parts[1]

    @property
    def disturbed(self) -> bool:
        """Whether its times say more of other programs than of the sides."""
        return self.foreign is not None and self.foreign > MOST_FOREIGN


def compare(
    request: Request, say: Callable[[str], None] = lambda line: None
) -> Iterator[list[Row]]:
    """The rows of a request, in groups that were measured together. `say` is told what comes next.

    Raises CellError and UserError for a cell that a layer cannot run on x alone.
    """
    for cell in request.cells:  # all of them now, rather than one by one after minutes
        for shape in request.shapes:
            single_layer(cell, shape, **request.options)
    return _groups(request, say)


def _groups(request: Request, say: Callable[[str], None]) -> Iterator[list[Row]]:
    problems = lru_cache(maxsize=4)(draw)
    for threads in request.threads:
        with on_threads(threads):
            peak = probe(threads)
            for shape in request.shapes:
                for cell in request.cells:
                    for mode in request.modes:
                        if mode == MEMORY and threads != request.threads[0]:
                            continue  # the number of threads changes nothing in it
                        if mode == STEPPER and shape.T > 1 and not request.every:
                            continue
                        say(f"{cell}, {shape.name}, {mode}, {counted(threads)}")
                        group = _Group(request, cell, shape, threads, mode, problems, peak)
                        yield list(group.rows())


def counted(threads: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """torch on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _Group:
    """One cell at one shape in one mode: the sides that are measured together."""

    request: Request
    cell: str
    shape: Shape
    threads: int
    mode: str
    problems: Callable[[str, Shape], Problem]
    peak: Peak

    def rows(self) -> Iterator[Row]:
        if self.mode == STEPPER and self.shape.T > 1:
            for name in self._peers():
                yield self._row(name, why="it runs one step")
            return
        sides = {OURS: ours(**self.request.options)} | self._peers()
        right = cache(lambda cell: truth(self._judged(cell), self._how.mode))
        why: dict[str, str] = {}
        red: set[str] = set()
        for name, side in sides.items():
            try:
                why[name] = self._unfit(name, side)
                if not why[name]:
                    cell = self._cell(side)
                    why[name] = gate.verdict(side, self._judged(cell), self._how, right(cell))
                    red |= {name} if why[name] else set()
            except Unavailable as reason:
                why[name] = str(reason)
        if why[OURS]:
            for name in list(sides)[1:]:
                yield self._row(name, why=f"ours: {why[OURS]}", red=OURS in red)
            return
        well = {name: sides[name] for name in sides if not why[name]}
        numbers = self._measured(well) if len(well) > 1 else {}
        for name in list(sides)[1:]:
            yield self._row(name, why=why[name], red=name in red, **numbers.get(name, {}))

    def _peers(self) -> dict[str, Side]:
        if self.request.against:
            names = list(self.request.against)
        else:
            names = [
                name
                for name, side in PEERS.items()
                if not (side.asked or self._unfit(name, side))
                and not (self.request.few and name not in FEW)
                and not (name == "our lstm" and self.cell == STOCK)
            ]
        peers = {name: PEERS[name] for name in names}
        if "our lstm" in peers:
            peers["our lstm"] = our_lstm(**self.request.options)
        return peers

    def _unfit(self, name: str, side: Side) -> str:
        """Why a side cannot be compared here; empty if it can."""
        if self.mode == MEMORY and name not in (OURS, *SEEN):
            return "what it keeps cannot be seen from outside"
        if self.mode == STEPPER and name not in (OURS, *STEPPING):
            return "it has no step that carries its states on"
        return side.unfit(self.cell, 1 if self.mode == STEPPER else self.shape.T)

    @property
    def _series(self) -> Shape:
        """The sizes of what is computed: of steps one after the other, some more than one."""
        return self.shape._replace(T=STEPS) if self.mode == STEPPER else self.shape

    @property
    def _how(self) -> How:
        return How("train" if self.mode == MEMORY else self.mode, self.threads)

    def _cell(self, side: Side) -> str:
        return STOCK if side.stock else self.cell

    def _problem(self, side: Side) -> Problem:
        return self.problems(self._cell(side), self._series)

    def _judged(self, cell: str) -> Problem:
        return judged(self.problems(cell, self._series))

    def _measured(self, sides: Mapping[str, Side]) -> dict[str, dict[str, Any]]:
        """The numbers of each side's row."""
        ready: dict[str, Ready] = {
            name: side.prepare(self._problem(side), self._how) for name, side in sides.items()
        }
        work = {name: self._problem(side).flops(self.mode) for name, side in sides.items()}
        shared: dict[str, Any] = {"backend": ready[OURS].backend}
        if self.mode == MEMORY:
            bytes_ = {name: (float(memory.kept(one)),) for name, one in ready.items()}
            return {name: shared | {"ours": bytes_[OURS], "theirs": bytes_[name]} for name in sides}
        watch = Watch()
        rounds = measure(
            [one.call for one in ready.values()], self.request.effort, self.peak.measure
        )
        times = {name: tuple(r.seconds[k] for r in rounds) for k, name in enumerate(sides)}
        shared |= {"ours": times[OURS], "peaks": tuple(r.peak for r in rounds)}
        shared |= {"foreign": watch.foreign(), "probe": self.peak.kind}
        return {
            name: shared | {"theirs": times[name], "work": (work[OURS], work[name])}
            for name in sides
        }

    def _row(self, name: str, **numbers: Any) -> Row:
        steps = self._judged(self.cell).shape.T
        at = (self.problems(self.cell, self._series).name, self.shape, self.threads, self.mode)
        return Row(*at, name, judged=steps, **numbers)
