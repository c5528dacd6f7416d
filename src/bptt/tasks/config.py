"""Every number of a language model's training, with its reason; and how long a run lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass

_BOUNDS: dict[str, tuple[float, float]] = {
    "hidden": (1, 1 << 14),
    "layers": (1, 64),
    "embedding": (1, 1 << 14),
    "dropout": (0, 0.99),
    "batch": (1, 1 << 14),
    "window": (1, 1 << 14),
    "restart": (0, 1),
    "learning_rate": (0, 1),
    "warmup": (0, 1),
    "final": (0, 1),
    "weight_decay": (0, 1),
    "beta1": (0, 0.9999),
    "beta2": (0, 0.9999),
    "clip": (0, 1e9),
    "seed": (0, (1 << 63) - 1),
    "validation": (1, 1 << 40),
}


@dataclass(frozen=True)
class Config:
    """The numbers of a run. Raises ValueError out of bounds: a stranger's file may hold them."""

    hidden: int = 320
    """Width of the cell: in some minutes on two cores a wider one sees too little text."""
    layers: int = 1
    """A second layer halves the speed, and pays only in long runs."""
    embedding: int = 64
    """A character's vector: about as wide as a vocabulary, so that nothing has to be squeezed."""
    dropout: float = 0.2
    """On what the cell puts out: some minutes are twenty passes over a megabyte, and overfit."""
    batch: int = 64
    """Streams read side by side: a step costs little more for 64 than for 32."""
    window: int = 64
    """Steps between updates, where gradients are cut. State is carried on: memory is longer."""
    restart: float = 0.02
    """A stream's chance, each window, to go on elsewhere from a fresh state, as a sample does."""
    learning_rate: float = 4e-3
    """Peak. Clipping and the warm-up make it safe."""
    warmup: float = 0.05
    """Fraction of the run in which the learning rate rises."""
    final: float = 0.01
    """Learning rate at the end, as a fraction of the peak."""
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    """Shorter than the usual 0.999: a run of minutes has only some thousand updates."""
    clip: float = 1.0
    """Longest norm of a whole gradient; a rare spike through time would undo many updates."""
    seed: int = 1
    validation: int = 65_536
    """Characters of the last tenth that the curve is measured on; at the end all of it counts."""

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie between {low:,} and {high:,}")

    def rate(self, done: float) -> float:
        """The learning rate at the fraction `done` of a run: a line up, then half a cosine down."""
        if done < self.warmup:
            # Never nothing: by the clock, the first step is at 0.
            return self.learning_rate * max(done / self.warmup, 0.05)
        rest = (min(done, 1.0) - self.warmup) / max(1.0 - self.warmup, 1e-9)
        low = self.learning_rate * self.final
        return low + (self.learning_rate - low) * 0.5 * (1.0 + math.cos(math.pi * rest))


@dataclass(frozen=True)
class Budget:
    """How long a run lasts in all, resumed or not: `steps` if that is above 0, else `minutes`."""

    minutes: float = 5.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or not (self.steps or 0 < self.minutes < math.inf):
            raise ValueError(f"no length of a run: {self}")

    def done(self, step: int, seconds: float) -> float:
        """The fraction that is over after so many updates and seconds; 1 or more at the end."""
        return step / self.steps if self.steps else seconds / (60.0 * self.minutes)

    def __str__(self) -> str:
        return f"{self.steps:,} steps" if self.steps else f"{self.minutes:g} minutes"
