"""Run folders and checkpoints: whole or not at all, and a clear word for what is neither."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bptt.errors import UserError
from bptt.tasks import checkpoint as files
from bptt.tasks.checkpoint import CellText, Checkpoint, Engine, Point, State, TextId
from bptt.tasks.config import Budget, Config

STATE = State(
    cell=CellText("lstm", "h[t] = tanh(x[t])\n"),
    config=Config(hidden=4),
    budget=Budget(minutes=0.1),
    text=TextId("file", "/tmp/ß.txt", "00"),
    engine=Engine("reference", 2, "2.11"),
    vocabulary='\n aß\N{PILE OF POO}"\\',
    step=3,
    seconds=1 / 3,
    points=[Point(1, 0.1, 4.2), Point(2, 0.2, 1 / 7)],
)


def tensors() -> dict[str, torch.Tensor]:
    whole = torch.arange(12, dtype=torch.float32).view(3, 4)
    return {
        "model.weight": whole,
        "stream.state.0": whole[1:],  # shares memory
        "stream.state.1": whole.T,  # is not contiguous
        "rng.torch": torch.get_rng_state(),
        "losses": torch.tensor([0.1, 1 / 3], dtype=torch.float64),
        "optimizer.step.weight": torch.tensor(3.0),
        "empty": torch.zeros(0),
    }


def put(folder: Path, **changes: Any) -> None:
    """A checkpoint whose JSON differs, with a digest that is right all the same."""
    document = {"format": files.FORMAT, "version": files.VERSION, **json.loads(state_json())}
    document.update(changes)
    text = json.dumps(document)
    some = {"a": torch.zeros(2)}
    digest = files._digest(text, some)  # pyright: ignore[reportPrivateUsage]
    save_file(some, folder / files.FILE, {"bptt": text, "sha256": digest})


def state_json() -> str:
    from dataclasses import asdict

    return json.dumps(asdict(STATE))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    files.write(tmp_path, Checkpoint(STATE, tensors()))
    read = files.read(tmp_path)
    assert read.state == STATE
    assert read.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(read.tensors[name], tensor)
    assert [path.name for path in tmp_path.iterdir()] == [files.FILE]


def test_damage_anywhere_is_noticed(tmp_path: Path) -> None:
    files.write(tmp_path, Checkpoint(STATE, tensors()))
    path = tmp_path / files.FILE
    whole = path.read_bytes()
    places = [*range(0, len(whole), 97), len(whole) - 1]
    for place in places:
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"damaged|holds no run"):
            files.read(tmp_path)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"damaged|holds no run|another version"):
            files.read(tmp_path)


def test_a_foreign_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        files.read(tmp_path / "none")
    with pytest.raises(UserError, match="holds no run"):
        files.read(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / files.FILE)
    with pytest.raises(UserError, match="holds no run of bptt"):
        files.read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "3"},
        {"step": True},
        {"vocabulary": 1},
        {"points": [[1, 2, 3]]},
        {"points": 5},
        {"config": {}},
        {"config": {**Config().__dict__, "hidden": 10**9}},
        {"config": {**Config().__dict__, "extra": 1}},
        {"budget": {"minutes": 0, "steps": 0}},
        {"extra": 1},
        {"seconds": None},
    ],
)
def test_json_that_is_no_state_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    put(tmp_path)
    assert files.read(tmp_path).state == STATE
    put(tmp_path, **changes)
    with pytest.raises(UserError, match="damaged"):
        files.read(tmp_path)


def test_another_version_is_named(tmp_path: Path) -> None:
    put(tmp_path, version=2)
    with pytest.raises(UserError, match="another version"):
        files.read(tmp_path)


def test_a_write_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(tmp_path, Checkpoint(STATE, tensors()))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        files.write(tmp_path, Checkpoint(STATE, {"a": torch.zeros(1)}))
    assert files.read(tmp_path).tensors.keys() == tensors().keys()


def test_folders_of_new_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.new_folder(None, "hamlet-lstm") == Path("runs/hamlet-lstm-1")
    assert files.new_folder(None, "hamlet-lstm") == Path("runs/hamlet-lstm-2")
    assert files.new_folder(None, "../ß x") == Path("runs/x-1")
    assert files.new_folder(None, "///") == Path("runs/run-1")
    mine = files.new_folder("a/mine", "hamlet")
    assert mine == files.new_folder("a/mine", "hamlet") == Path("a/mine")
    files.write(mine, Checkpoint(STATE, tensors()))
    with pytest.raises(UserError, match="already holds a run"):
        files.new_folder("a/mine", "hamlet")
    with pytest.raises(UserError, match="cannot make the folder"):
        files.new_folder(f"a/mine/{files.FILE}/deeper", "hamlet")


def test_the_latest_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.find_folder("given") == Path("given")
    with pytest.raises(UserError, match="there is no run"):
        files.find_folder(None)
    for age, folder in enumerate(["runs/b", "mine", "runs/a"]):
        Path(folder).mkdir(parents=True)
        files.write(Path(folder), Checkpoint(STATE, tensors()))
        os.utime(Path(folder) / files.FILE, (1000 - age, 1000 - age))
    assert files.find_folder(None) == files.find_folder("") == Path("runs/b")
    os.utime(Path("mine") / files.FILE, (2000, 2000))
    assert files.find_folder(None) == Path("mine")
