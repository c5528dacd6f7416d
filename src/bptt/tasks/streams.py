"""The order in which a text is read: streams side by side, which now and then go on elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor


class Streams:
    """`batch` readers of `codes` `[N]`, each going on where it stopped, window after window.

    A reader starts at a random place: at first, at the end of the text, and in each window with
    the chance `restart`. A model that never saw a fresh start is lost when it writes from one.
    The generator is its own, so that the order does not depend on the cell or on dropout.
    """

    def __init__(self, codes: Tensor, batch: int, window: int, restart: float, seed: int) -> None:
        if len(codes) <= window:
            raise ValueError(f"{len(codes)} characters are too few for windows of {window}")
        self.codes = codes
        self.window = window
        self.restart = restart
        self.generator = torch.Generator().manual_seed(seed)
        self.positions = torch.full((batch,), len(codes))  # past the end: all start afresh

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """Characters to read and to expect, both `[T, B]`, and which streams start afresh `[B]`."""
        count, last = len(self.positions), len(self.codes) - self.window
        # Both are drawn each time: what is drawn later does not depend on which streams ended.
        leap = torch.rand(count, generator=self.generator) < self.restart
        place = torch.randint(last, (count,), generator=self.generator)
        fresh = leap | (self.positions >= last)
        start = torch.where(fresh, place, self.positions)
        piece = self.codes[start + torch.arange(self.window + 1)[:, None]].long()
        self.positions = start + self.window
        return piece[:-1], piece[1:], fresh

    def tensors(self) -> dict[str, Tensor]:
        """What `load` needs to go on exactly here."""
        return {"stream.positions": self.positions, "rng.streams": self.generator.get_state()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on where `tensors` were taken. Raises KeyError, ValueError or RuntimeError."""
        positions = tensors["stream.positions"]
        if positions.dtype != torch.int64 or positions.shape != self.positions.shape:
            raise ValueError("the streams' positions do not fit")
        if positions.min() < 0 or positions.max() > len(self.codes):
            raise ValueError("a stream's position is outside the text")
        self.positions = positions
        self.generator.set_state(tensors["rng.streams"])
