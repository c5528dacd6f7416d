"""Finding the text of a cell: by a name that comes with bptt, or in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bptt.cells import names
from bptt.cells import read as read_own
from bptt.errors import UserError
from bptt.language.near import did_you_mean
from bptt.language.tokens import Limits

if TYPE_CHECKING:  # at run time only where it is needed: `import bptt` is quick
    from pathlib import Path


def read(cell: str | Path) -> tuple[str, str]:
    """The text of a cell, and its name: one that comes with bptt, or a file's. Raises UserError."""
    from pathlib import Path

    if not isinstance(cell, str | Path):
        help = "the name of one, such as 'lstm', of a file, or a Cell"
        raise UserError(f"{cell!r} is no cell", help=help)
    if isinstance(cell, str) and cell in names():
        return read_own(cell), cell
    path = Path(cell)
    if isinstance(cell, str) and ("=" in cell or "\n" in cell):
        raise UserError("this is no name or file, but a cell's text", help="use bptt.Cell(text)")
    if (
        isinstance(cell, str)
        and path.suffix != ".cell"
        and len(path.parts) < 2
        and not _exists(path)
    ):
        help = did_you_mean(cell, names()) or "`bptt cells` lists them; a file ends in `.cell`"
        raise UserError(f"there is no cell called `{cell}`", help=help)
    return _read_file(path), path.stem


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than any file's
        return False


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(Limits().size + 1)
    except OSError as error:
        beside = [p.name for p in path.parent.glob("*.cell")] if path.parent.is_dir() else []
        near = did_you_mean(path.name, beside) if isinstance(error, FileNotFoundError) else None
        raise UserError(f"cannot read {path}: {error.strerror}", help=near) from None
    except ValueError:
        raise UserError(f"cannot read {str(path)!r}: this is no name of a file") from None
    return decoded(found, str(path))


def decoded(found: bytes, name: str) -> str:
    """The text of a cell from its bytes. Raises UserError."""
    if len(found) > Limits().size:
        help = "a cell is a handful of equations"
        raise UserError(f"{name} is larger than {Limits().size // 1024} KiB", help=help)
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{name} is not text in UTF-8") from None
