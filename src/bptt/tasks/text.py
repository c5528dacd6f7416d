"""The text a language model learns: where it comes from, its codes, and the part held back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bptt.errors import UserError
from bptt.tasks.shakespeare import shakespeare

Kind = Literal["shakespeare", "pydoc", "file"]
KINDS: tuple[Kind, ...] = ("shakespeare", "pydoc", "file")

MIN_CHARS = 1000
MAX_BYTES = 1 << 29  # codes take 4 bytes a character, and there are short-lived copies


@dataclass(frozen=True)
class Text:
    """A text and where it came from: `path` is absolute, and empty unless `kind` is "file"."""

    kind: Kind
    path: str
    content: str

    @property
    def name(self) -> str:
        """What people call it: the kind, or the file's name without its ending."""
        return Path(self.path).stem if self.kind == "file" else self.kind

    @property
    def sha256(self) -> str:
        """Of the content as UTF-8, after newlines were made one."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def load_text(kind: Kind, path: str, say: Callable[[str], None]) -> Text:
    """The text of a kind; `path` only counts for a file, `say` gets a line of news.

    Raises UserError where it cannot be had, is empty, binary or too short.
    """
    if kind == "file":
        return Text(kind, os.path.abspath(path), _checked(path, _read(path)))
    content = shakespeare(say) if kind == "shakespeare" else _pydoc()
    return Text(kind, "", _checked(kind, content))


def _read(path: str) -> str:
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            help = f"a text may have {MAX_BYTES >> 20} MiB: cut a piece of it"
            raise UserError(f"{path} has {size >> 20} MiB", help=help)
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}",
            help="give a UTF-8 text file; without one, `bptt train` learns Shakespeare",
        ) from None
    if b"\0" in content:
        raise UserError(f"{path} is a binary file", help="give a UTF-8 text file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8: line {line} has the byte 0x{content[error.start]:02x}",
            help="convert it first, e.g. `iconv -f latin1 -t utf-8 OLD > NEW`",
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _pydoc() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError(
            "this Python comes without `pydoc_data`",
            help="train on a file of yours, `bptt train FILE`",
        ) from None
    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"


def _checked(name: str, content: str) -> str:
    if not content.strip():
        raise UserError(f"{name} is empty", help="give a text of some thousand characters")
    if len(content) < MIN_CHARS:
        raise UserError(
            f"{name} is too short: {len(content)} characters",
            help=f"at least {MIN_CHARS:,} are needed, and some hundred thousand to learn words",
        )
    return content


@dataclass(frozen=True)
class Vocabulary:
    """The characters a model knows; a character's code is its place in `symbols`."""

    symbols: str

    @staticmethod
    def of(content: str) -> Vocabulary:
        """The characters of a text in order of their code points."""
        return Vocabulary("".join(sorted(set(content))))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, content: str) -> NDArray[np.int32]:
        """The codes of a text. Raises UserError naming the characters that are not known."""
        unknown = sorted(set(content) - set(self.symbols))
        if unknown:
            shown = " ".join(map(repr, unknown[:8]))
            raise UserError(f"the model never saw {shown}", help=f"it knows {_shown(self.symbols)}")
        table = np.zeros(0x110000, np.int32)
        table[_points(self.symbols)] = np.arange(len(self.symbols), dtype=np.int32)
        return table[_points(content)]

    def decode(self, codes: Iterable[int]) -> str:
        """The text of some codes."""
        return "".join(self.symbols[code] for code in codes)


def _points(content: str) -> NDArray[np.uint32]:
    return np.frombuffer(content.encode("utf-32-le"), dtype="<u4")


def _shown(symbols: str) -> str:
    return repr(symbols if len(symbols) <= 200 else symbols[:200] + "...")


def split(codes: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The part to learn and the last tenth, which is only ever used to judge."""
    border = len(codes) - len(codes) // 10
    return codes[:border], codes[border:]


def printable(content: str) -> str:
    """`content` with control characters made visible: a text may hold a terminal's escape codes."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in content
    )
