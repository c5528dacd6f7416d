"""The picture of a run: its loss and its validations over its updates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bptt.tasks.checkpoint import Point


def draw(path: Path, losses: Sequence[float], points: Sequence[Point], title: str) -> None:
    """Write a PNG of the loss of each update and of the validations, in nats per character.

    Raises ImportError without matplotlib and OSError where the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    width = max(1, len(losses) // 50)
    if len(losses) >= width:
        mean = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, color="tab:blue", label="training, with dropout")
    axes.plot(
        [point.step for point in points],
        [point.nats for point in points],
        color="tab:orange",
        marker="o",
        markersize=3,
        label="validation",
    )
    # A dollar sign would begin a formula.
    axes.set(title=title.replace("$", r"\$"), xlabel="updates", ylabel="loss, nats per character")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
