"""What people train. The first task is a character-level language model (`bptt train`)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from bptt.errors import UserError


@contextmanager
def training_packages() -> Generator[None]:
    """Around a task's imports: a package that is not installed is a UserError naming the extra."""
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] == "bptt":
            raise
        what = f"training needs the package {error.name}, which is not installed"
        raise UserError(what, help="pip install 'bptt[train]'") from None
