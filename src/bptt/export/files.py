"""A file that is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from bptt.errors import UserError


def write(path: str | Path, content: bytes) -> None:
    """Put `content` into the file, in the place of what was there. Raises UserError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        help = "name a file in a folder that is there and can be written"
        raise UserError(f"cannot write {path}: {why}", help=help) from None
