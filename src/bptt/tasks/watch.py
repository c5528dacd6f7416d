"""What a person sees of a run: a header, a live line or plain lines, samples, and how to go on."""

from __future__ import annotations

import math
import shlex
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text as Line

from bptt.tasks.checkpoint import Point
from bptt.tasks.curve import draw
from bptt.tasks.model import default_prompt, write
from bptt.tasks.text import printable
from bptt.tasks.training import Progress, Trainer

CURVE = "curve.png"
SAMPLE_LENGTH = 160
SAMPLE_EVERY = 0.1
"""Nats by which a validation must be better than at the sample before it."""
REDRAW = 0.1  # seconds between two live lines
OVERFIT = 0.05
"""Nats above its best at which the last validation is worth a word."""


class Watch:
    """Shows a run on standard output: a live line in a terminal, else a line each validation."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.live = sys.stdout.isatty() and not self.console.is_dumb_terminal

    def say(self, line: str) -> None:
        """One line of news."""
        self.console.print(line)

    def header(self, trainer: Trainer, folder: Path) -> None:
        """What is trained, on what, by what, for how long, where it saves and how to stop."""
        config, layer, text = trainer.config, trainer.model.recurrent, trainer.text
        count = sum(p.numel() for p in trainer.model.parameters())
        layers = f"{config.layers} layer{'s' if config.layers > 1 else ''} of {config.hidden}"
        held_back = f"{len(trainer.held_back):,} at the end held back for validation"
        length = (
            f"{trainer.budget} in all, from step {trainer.step:,}"
            if trainer.step
            else f"{trainer.budget}"
        )
        self._table(
            ("cell", f"{printable(layer.cell.name)}, {layers}"),
            ("parameters", f"{count:,}"),
            (
                "data",
                (
                    f"{printable(text.name)}: {len(text.content):,} characters,"
                    f" {len(trainer.vocabulary):,} different; {held_back}"
                ),
            ),
            ("backend", layer.backend),
            ("threads", f"{torch.get_num_threads()}"),
            ("trains for", length),
            ("saves to", f"{folder}"),
            ("to stop", f"Ctrl-C saves and stops; `{_resume(folder)}` goes on"),
        )

    def follow(self, trainer: Trainer, folder: Path) -> bool:
        """Train and show it. False if Ctrl-C or SIGTERM stopped it before its end; it is saved."""
        best = math.inf
        latest = trainer.points[-1] if trainer.points else None
        live = Live(console=self.console, auto_refresh=False, transient=True) if self.live else None
        drawn = 0.0
        with Interrupts() as asked, live or nullcontext():
            for progress in trainer.run(folder):
                latest = progress.point or latest
                line = describe(progress, latest)
                if live and time.monotonic() - drawn > REDRAW:
                    live.update(Line(line, no_wrap=True, overflow="ellipsis"), refresh=True)
                    drawn = time.monotonic()
                better = progress.point is not None and progress.point.nats < best - SAMPLE_EVERY
                if better or (progress.point and not live):
                    self.say(line)
                if progress.point and better:
                    best = progress.point.nats
                    self._sample(trainer)
                if asked.count and not trainer.finished:
                    trainer.save(folder)
                    return False
        return True

    def interrupted(self, trainer: Trainer, folder: Path) -> None:
        """How to go on with a run that was stopped."""
        self._table(
            ("stopped", f"saved after step {trainer.step:,}"),
            ("go on", _resume(folder)),
            ("write", self._sample_line(trainer, folder)),
        )

    def finished(self, trainer: Trainer, folder: Path) -> None:
        """The result on all of the text held back, the curve, and the line that writes with it."""
        nats = trainer.validate(whole=True).nats
        judged = f"over all of the {len(trainer.held_back):,} characters held back"
        self._table(
            ("done", f"{trainer.step:,} steps in {clock(trainer.seconds)}"),
            ("validation", f"{nats:.3f} nats, {_bits(nats):.3f} bits per character {judged}"),
        )
        best = min(trainer.points, key=lambda point: point.nats)
        if trainer.points[-1].nats > best.nats + OVERFIT:
            self._table(
                (
                    "note",
                    f"validation was best at step {best.step:,}, {best.nats:.3f} nats, and rose",
                ),
                ("", "since: the run is long for so short a text. Less time or more text helps."),
            )
        name = printable(f"{trainer.model.recurrent.cell.name} on {trainer.text.name}")
        try:
            title = f"{name}: {nats:.3f} nats per character"
            draw(folder / CURVE, trainer.losses, trainer.points, title)
            self._table(("curve", f"{folder / CURVE}"))
        except (ImportError, OSError) as error:
            self._table(("curve", f"not drawn: {error}"))
        self._table(("write", self._sample_line(trainer, folder)))

    def _sample(self, trainer: Trainer) -> None:
        # Each time from the same seed: what changes from sample to sample is the model.
        prompt = default_prompt(trainer.text.kind, trainer.vocabulary)
        pieces = write(
            trainer.model, trainer.vocabulary, prompt, length=SAMPLE_LENGTH, temperature=0.8, seed=1
        )
        lines = printable(prompt + "".join(pieces)).strip("\n").split("\n")
        self.say("\n" + "\n".join(f"    {line}" for line in lines) + "\n")

    def _sample_line(self, trainer: Trainer, folder: Path) -> str:
        line = f"bptt sample {shlex.quote(str(folder))}"
        return f'{line} --prompt "ROMEO:"' if trainer.text.kind == "shakespeare" else line

    def _table(self, *rows: tuple[str, str]) -> None:
        for name, value in rows:
            self.say(f"{name:<12}{value}")


def describe(progress: Progress, latest: Point | None) -> str:
    """The one line about where a run stands, in 80 columns for a run of thousands of updates."""
    speed = progress.speed / 1000
    parts = [
        f"step {progress.step:,}",
        f"{speed:.0f}k chars/s" if speed >= 10.0 else f"{speed:.1f}k chars/s",
        f"loss {progress.loss:.3f}",
    ]
    if latest:
        parts.append(f"val {latest.nats:.3f} nats, {_bits(latest.nats):.3f} bits/char")
    return "  ".join([*parts, f"{clock(progress.left)} left"])


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours when there are any: `4:07`, `1:04:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bits(nats: float) -> float:
    return nats / math.log(2)


def _resume(folder: Path) -> str:
    return f"bptt train --resume {shlex.quote(str(folder))}"


class Interrupts:
    """Counts requests to stop while it is entered; the second one interrupts at once, as usual."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        # Python lets only the main thread change handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None: a handler that Python did not set, and cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
