"""A run's folder, and its checkpoint: a safetensors file whose header has everything else as JSON.

One file, renamed into place, is always whole: a process killed at any moment leaves the old one
or the new one. Reading parses and never evaluates, and a digest over all of it tells a damaged
file from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bptt.errors import UserError
from bptt.tasks.config import Budget, Config

FILE = "checkpoint.safetensors"
RUNS = "runs"
FORMAT = "bptt language model"
VERSION = 1
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class TextId:
    """Enough of a text to find it again and know it."""

    kind: str
    path: str
    sha256: str


@dataclass(frozen=True)
class CellText:
    """The cell as its author wrote it."""

    name: str
    text: str


@dataclass(frozen=True)
class Engine:
    """What computed a run: with another one it goes on, though perhaps not to the last bit."""

    backend: str
    threads: int
    torch: str


@dataclass(frozen=True)
class Point:
    """One validation: the loss in nats per character after so many updates and seconds."""

    step: int
    seconds: float
    nats: float


@dataclass(frozen=True)
class State:
    """Everything of a run that is no tensor."""

    cell: CellText
    config: Config
    budget: Budget
    text: TextId
    engine: Engine
    vocabulary: str
    step: int = 0
    seconds: float = 0.0
    points: list[Point] = field(default_factory=list[Point])


@dataclass(frozen=True)
class Checkpoint:
    """A run as it stood. Tensors: `model.*`, `optimizer.*`, `stream.*`, `rng.*` and `losses`."""

    state: State
    tensors: dict[str, Tensor]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Put the checkpoint in the place of the old one, whole or not at all. Raises UserError."""
    document = {"format": FORMAT, "version": VERSION, **asdict(checkpoint.state)}
    try:
        write_file(folder / FILE, json.dumps(document, allow_nan=False), checkpoint.tensors)
    except OSError as error:
        what = f"cannot save to {folder}: {error.strerror}"
        raise UserError(what, help="the checkpoint before it, if there is one, is whole") from None


def write_file(path: Path, text: str, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors, a JSON text and a digest of both in one file, whole or not at all: OSError."""
    # Copies: safetensors refuses tensors that share memory, as views of one buffer do.
    copies = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    content = save(copies, {"bptt": text, "sha256": _digest(text, copies)})
    temporary = path.with_name(f".{path.stem}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read(folder: Path) -> Checkpoint:
    """The folder's checkpoint. Raises UserError if there is none, or it is damaged or not ours."""
    path = folder / FILE
    if not path.is_file():
        what = f"{folder} holds no run" if folder.is_dir() else f"there is no folder {folder}"
        raise UserError(what, help=f"name a folder that `bptt train` made: it holds a {FILE}")
    try:
        text, tensors = read_file(path)
    except ValueError as error:
        raise damaged(folder, str(error)) from None
    if text is None:
        help = f"name a folder that `bptt train` made; this {FILE} is another program's"
        raise UserError(f"{folder} holds no run of bptt", help=help)
    try:
        document = json.loads(text)
        if document.pop("format") != FORMAT or document.pop("version") != VERSION:
            help = "use the bptt that wrote it, or train anew"
            raise UserError(f"{folder} was written by another version of bptt", help=help)
        return Checkpoint(_record(State, document), tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(folder, str(error)) from None


def read_file(path: Path) -> tuple[str | None, dict[str, Tensor]]:
    """What `write_file` put there; no text in another program's file. ValueError: damaged."""
    try:
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            header: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from None
    text = header.get("bptt")
    if text is not None and header.get("sha256") != _digest(text, tensors):
        raise ValueError("its content does not have the SHA-256 that was written with it")
    return text, tensors


def damaged(folder: Path, why: str) -> UserError:
    """The error for a run that cannot be used."""
    return UserError(f"the run in {folder} is damaged: {why}", help="train anew, to another folder")


def new_folder(out: str | None, name: str) -> Path:
    """Make a new run's folder: `out`, or the next free of `runs/NAME-1`... Raises UserError."""
    try:
        if out is not None:
            folder = Path(out)
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / FILE).exists():
                help = f"go on with it, `bptt train --resume {out}`, or give another --out"
                raise UserError(f"{out} already holds a run", help=help)
            return folder
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "run"
        number = 1
        while True:
            folder = Path(RUNS) / f"{stem}-{number}"
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        what = f"cannot make the folder {error.filename}: {error.strerror}"
        raise UserError(what, help="give a folder that can be written: --out DIR") from None


def find_folder(given: str | None) -> Path:
    """A run's folder: `given`, or the one of `runs/*` and `*` with the newest checkpoint.

    Raises UserError where there is none.
    """
    if given:
        return Path(given)
    here = [*Path(RUNS).glob(f"*/{FILE}"), *Path().glob(f"*/{FILE}")]
    if not here:
        help = "`bptt train` makes one; or give its folder"
        raise UserError(f"there is no run in ./{RUNS} or the folders beside it", help=help)
    return max(here, key=lambda path: path.stat().st_mtime_ns).parent


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the JSON and of every tensor's name, type, shape and bytes."""
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _record(kind: type[_Record], value: Any) -> _Record:
    """A dataclass from JSON: exactly its fields, each of its type. Raises ValueError."""
    hints = get_type_hints(kind)
    names = set(hints)
    if not isinstance(value, dict) or set(cast(dict[str, Any], value)) != names:
        raise ValueError(f"{kind.__name__} needs the entries {', '.join(sorted(names))}")
    return kind(**{name: _value(name, hints[name], value[name]) for name in names})


def _value(name: str, hint: Any, value: Any) -> Any:
    if hint == list[Point]:
        return [_record(Point, item) for item in value]
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, str):
        if type(value) is not hint:
            raise ValueError(f"{name} must be of type {hint.__name__}")
        return value
    return _record(hint, value)
