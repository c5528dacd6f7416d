"""Runs: they learn, stop, go on with the same curve bit for bit, and refuse what does not fit."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tolerances import BACKEND, SAME_STREAM
from torch.nn.functional import cross_entropy

from bptt.errors import UserError
from bptt.tasks import checkpoint as files
from bptt.tasks.checkpoint import CellText, Checkpoint
from bptt.tasks.config import Budget, Config
from bptt.tasks.model import CharModel, judge, write
from bptt.tasks.text import Text, Vocabulary, load_text
from bptt.tasks.training import Trainer, read_model

STEPS = 12
SMALL = Config(hidden=12, layers=2, embedding=6, dropout=0.3, batch=5, window=9, restart=0.2)
TEXT = Text("file", "/somewhere/rhyme.txt", "Peter Piper picked a peck of pickled pepper.\n" * 40)


def trainer(config: Config = SMALL, steps: int = STEPS) -> Trainer:
    return Trainer(TEXT, "lstm", config, Budget(steps=steps))


def straight(folder: Path) -> Checkpoint:
    """The last checkpoint of a run that nothing interrupted."""
    folder.mkdir(exist_ok=True)
    for _ in trainer().run(folder):
        pass
    return files.read(folder)


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    """Equal to the last bit, but for the clock."""
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    curves = [[(p.step, p.nats) for p in c.state.points] for c in (one, other)]
    assert curves[0] == curves[1]
    assert replace(one.state, seconds=0, points=[]) == replace(other.state, seconds=0, points=[])


def test_a_model_learns_and_writes(tmp_path: Path) -> None:
    config = Config(hidden=32, embedding=8, batch=8, window=16, dropout=0.0, learning_rate=2e-2)
    run = trainer(config, steps=150)
    seen = list(run.run(tmp_path))
    assert len(seen) == len(run.losses) == run.step == 150
    assert run.losses[0] > 2.5
    assert run.points[-1].step == 150
    assert run.points[-1].nats < 0.3
    assert seen[-1].point == run.points[-1]
    assert 15 <= len(run.points) <= 30
    model, vocabulary, state = read_model(tmp_path)
    assert state.cell.name == "lstm"
    pieces = write(model, vocabulary, "Peter", length=40, temperature=0.0, seed=1)
    assert "".join(pieces) == " Piper picked a peck of pickled pepper.\n"


def test_a_run_goes_on_bit_for_bit_from_anywhere(tmp_path: Path) -> None:
    expected = straight(tmp_path / "straight")
    for stop in (1, 5, STEPS - 1):
        folder = tmp_path / f"stopped-{stop}"
        folder.mkdir()
        first = trainer()
        for _ in itertools.islice(first.run(folder), stop):
            pass
        first.save(folder)
        torch.rand(7)  # whatever else draws from the global generator in between
        saved = files.read(folder)
        assert saved.state.step == stop
        second = Trainer.resume(folder, saved, TEXT, saved.state.budget)
        for _ in second.run(folder):
            pass
        assert_same(files.read(folder), expected)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_training import trainer
folder = Path(sys.argv[2])
for progress in trainer().run(folder):
    print(progress.step, flush=True)
    time.sleep(0.02)
"""


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    expected = straight(tmp_path / "straight")
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 5:
                break
        process.send_signal(signal.SIGKILL)
    saved = files.read(folder)
    assert 5 <= saved.state.step < STEPS
    again = Trainer.resume(folder, saved, TEXT, saved.state.budget)
    for _ in again.run(folder):
        pass
    assert_same(files.read(folder), expected)


def test_a_run_by_the_clock_ends_and_goes_on(tmp_path: Path) -> None:
    run = Trainer(TEXT, "lstm", SMALL, Budget(minutes=0.3 / 60))
    for _ in run.run(tmp_path):
        pass
    assert run.finished
    assert 0.3 <= run.seconds < 30
    assert run.optimizer.param_groups[0]["lr"] < SMALL.learning_rate
    saved = files.read(tmp_path)
    longer = Trainer.resume(tmp_path, saved, TEXT, Budget(minutes=(run.seconds + 0.2) / 60))
    assert not longer.finished
    progress = next(longer.run(tmp_path))
    assert progress.step == run.step + 1
    assert longer.seconds > run.seconds


def test_another_text_is_refused(tmp_path: Path) -> None:
    saved = straight(tmp_path)
    with pytest.raises(UserError, match="not the text"):
        Trainer.resume(tmp_path, saved, replace(TEXT, content=TEXT.content + "!"), Budget())


def test_a_checkpoint_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    saved = straight(tmp_path)
    state, tensors = saved.state, saved.tensors
    lost = {k: v for k, v in tensors.items() if not k.startswith("optimizer.exp_avg_sq")}
    moved = {k.replace("model.head", "model.tail"): v for k, v in tensors.items()}
    for wrong in (
        Checkpoint(replace(state, config=replace(SMALL, hidden=1 << 14)), tensors),
        Checkpoint(replace(state, config=replace(SMALL, layers=64)), tensors),
        Checkpoint(replace(state, config=replace(SMALL, batch=6)), tensors),
        Checkpoint(replace(state, vocabulary=state.vocabulary[::-1]), tensors),
        Checkpoint(replace(state, step=state.step + 1), tensors),
        Checkpoint(replace(state, cell=CellText("lstm", "/etc/passwd\n")), tensors),
        Checkpoint(state, lost),
        Checkpoint(state, {**tensors, "stream.state.1": torch.zeros(2, 6, 12)}),
        Checkpoint(state, moved),
        Checkpoint(state, {**tensors, "rng.torch": torch.zeros(3, dtype=torch.uint8)}),
        Checkpoint(state, {**tensors, "stream.positions": torch.full((5,), -1)}),
    ):
        with pytest.raises(UserError, match="damaged"):
            Trainer.resume(tmp_path, wrong, TEXT, Budget())


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    run = trainer()
    steps = run.run(tmp_path)
    next(steps)
    with torch.no_grad():
        run.model.head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="no longer a number at step 2"):
        next(steps)
    assert files.read(tmp_path).tensors["model.head.weight"].isfinite().all()


def test_a_gradient_that_overflowed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(replace(SMALL, dropout=0.0))
    before = [parameter.clone() for parameter in run.model.parameters()]
    with monkeypatch.context() as patch:
        patch.setattr("torch.nn.utils.clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
        next(run.run(tmp_path))
    assert all(map(torch.equal, before, run.model.parameters()))
    saved = files.read(tmp_path)
    again = Trainer.resume(tmp_path, saved, TEXT, saved.state.budget)
    assert again.update() == run.update()


def test_judging_reads_contiguous_streams_with_their_state_carried() -> None:
    torch.manual_seed(1)
    model = CharModel("lstm", 7, Config(hidden=8, embedding=4, dropout=0.5))
    for count in (2, 700, 3000):
        codes = torch.randint(7, (count,), dtype=torch.int32)
        streams = max(1, (count - 1) // 1024)
        length = (count - 1) // streams
        expected = 0.0
        model.eval()
        for start in range(0, streams * length, length):
            piece = codes[start : start + length + 1].long()
            with torch.no_grad():
                logits, _ = model(piece[:-1, None])
            expected += cross_entropy(logits[:, 0], piece[1:]).item() / streams
        model.train()
        assert judge(model, codes) == pytest.approx(expected, rel=BACKEND["float32"])
        assert model.training


def test_characters_are_read_by_a_table_where_that_is_less_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A window is, and gives what its embedded characters do; a character alone is embedded."""
    torch.manual_seed(0)
    model = CharModel("lstm", 7, replace(SMALL, dropout=0.0)).double()
    names = {"embedding.weight", "head.weight", "head.bias"}
    names |= {
        f"recurrent.{kind}_{gate}_l{k}" for kind in "WUb" for gate in "ifgo" for k in range(2)
    }
    assert set(model.state_dict()) == names  # those of the checkpoints there are
    codes = torch.randint(0, 7, (9, 5))
    found, (h, c) = model(codes)
    plain, last = model.recurrent(model.embedding(codes))
    true = model.head(plain)
    for a, b in ((found, true), (h, last[0]), (c, last[1])):
        assert (a - b).abs().max() <= BACKEND["float64"]
    leaves = list(model.parameters())
    ours = torch.autograd.grad(found.square().sum(), leaves)
    theirs = torch.autograd.grad(true.square().sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= BACKEND["float64"] * max(1.0, b.abs().max().item())
    monkeypatch.setattr(
        model.embedding, "forward", lambda codes: pytest.fail(f"{codes.numel()} were embedded")
    )
    model(codes)
    with pytest.raises(pytest.fail.Exception, match="1 were embedded"):
        model(codes[:1, :1])


def test_a_renewed_stream_is_as_before_a_first_step() -> None:
    torch.manual_seed(1)
    model = CharModel("lstm", 7, replace(SMALL, dropout=0.0))
    codes = torch.randint(7, (6, 3))
    _, states = model(codes)
    fresh = torch.tensor([False, True, False])
    renewed = model.renew(states, fresh)
    output, _ = model(codes, renewed)
    assert torch.allclose(output[:, 1], model(codes)[0][:, 1], atol=SAME_STREAM)
    assert torch.allclose(output[:, 0], model(codes, states)[0][:, 0], atol=SAME_STREAM)
    assert not torch.allclose(output[:, 0], model(codes)[0][:, 0], atol=SAME_STREAM)


def test_writing_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    vocabulary = Vocabulary("abcdefgh")
    model = CharModel("lstm", 8, SMALL)
    before = torch.get_rng_state()

    def text(seed: int, temperature: float = 1.0) -> str:
        pieces = write(model, vocabulary, "bad", length=60, temperature=temperature, seed=seed)
        return "".join(pieces)

    assert len(text(1)) == 60
    assert text(1) == text(1) != text(2)
    assert text(1, 0.0) == text(2, 0.0) == text(3, 1e-300)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(UserError, match="never saw 'x'"):
        next(write(model, vocabulary, "axe", length=1, temperature=1.0, seed=1))


def test_a_text_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("abc\n" * 300)
    text = load_text("file", str(path), say=pytest.fail)
    with pytest.raises(UserError, match="too short"):
        Trainer(text, "lstm", replace(SMALL, window=1500), Budget())
