"""The order in which a text is read."""

from __future__ import annotations

import pytest
import torch

from bptt.tasks.streams import Streams

CODES = torch.arange(500, dtype=torch.int32)  # each character is its place in the text


def test_streams_go_on_where_they_stopped_unless_they_start_afresh() -> None:
    streams = Streams(CODES, batch=7, window=20, restart=0.1, seed=1)
    before: torch.Tensor | None = None
    restarts = 0
    for _ in range(300):
        read, expected, fresh = streams.next()
        assert read.shape == expected.shape == (20, 7)
        assert torch.equal(expected, read + 1)
        assert torch.equal(read, read[0] + torch.arange(20)[:, None])
        if before is None:
            assert fresh.all()
        else:
            assert torch.equal(read[0][~fresh], before[~fresh] + 20)
            restarts += int(fresh.sum())
        before = read[0]
    assert 150 < restarts < 600  # a tenth of 2,100, and some at the end of the text


def test_every_place_is_read_up_to_the_last() -> None:
    streams = Streams(CODES[:23], batch=50, window=20, restart=1.0, seed=1)
    starts = torch.cat([streams.next()[0][0] for _ in range(20)])
    assert starts.unique().tolist() == [0, 1, 2]


def test_without_restarts_a_stream_runs_to_the_end() -> None:
    streams = Streams(CODES, batch=3, window=20, restart=0.0, seed=1)
    for _ in range(200):
        read, _, fresh = streams.next()
        starts = read[0]
        assert (starts + 20 < 500).all()
        before, (after, _, fresh) = starts, streams.next()
        assert torch.equal(fresh, before + 40 >= 500)
        assert torch.equal(after[0][~fresh], before[~fresh] + 20)


def test_they_go_on_from_their_tensors() -> None:
    streams = Streams(CODES, batch=4, window=10, restart=0.3, seed=1)
    for _ in range(5):
        streams.next()
    again = Streams(CODES, batch=4, window=10, restart=0.3, seed=2)
    again.load({name: tensor.clone() for name, tensor in streams.tensors().items()})
    for _ in range(20):
        for one, other in zip(streams.next(), again.next(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("positions", [[0, 1], [0, 1, -1], [0, 1, 501], [0.0, 1.0, 2.0]])
def test_tensors_that_do_not_fit_are_refused(positions: list[float]) -> None:
    streams = Streams(CODES, batch=3, window=10, restart=0.3, seed=1)
    with pytest.raises(ValueError, match="position"):
        streams.load({**streams.tensors(), "stream.positions": torch.tensor(positions)})


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        Streams(CODES[:20], batch=3, window=20, restart=0.0, seed=1)
