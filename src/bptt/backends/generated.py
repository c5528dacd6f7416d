"""Generated functions, compiled once: the only place where Python source is run.

The source is this library's own print of a checked Plan; it holds numbers and names of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bptt.printers.numpy import Printed


@dataclass(frozen=True)
class Function:
    """A generated function with its printed signature."""

    printed: Printed
    call: Callable[..., Any]


def compiled(printed: Printed, name: str) -> Function:
    """The function `name` that the printed source defines."""
    space: dict[str, Any] = {}
    exec(compile(printed.source, f"<bptt {name}>", "exec"), space)
    return Function(printed, space[name])
