"""Rows that numbers choose, checked before anything runs: no backend reads beyond a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bptt.errors import UserError
from bptt.ir.dims import Dim, size_of
from bptt.ir.ports import Port

Array = Any


def check_rows(
    numbers: Mapping[str, list[Dim]], given: Mapping[Port, Array], sizes: Mapping[str, int]
) -> None:
    """Raise UserError where a value that chooses rows is no whole number of a row there is.

    `numbers`: of `ports.row_numbers`; `given`: NumPy arrays or torch tensors of floating point
    numbers.
    """
    for name, a in ((port.name, a) for port, a in given.items() if port.name in numbers):
        rows = min(size_of(d, sizes) for d in numbers[name])
        kind = str(a.dtype).removeprefix("torch.")
        most = _exact(kind)
        if rows > most:
            raise UserError(
                f"a table of {rows} rows is too long for {kind}, which counts up to {most}",
                help="run it in a wider number format, for instance .double()",
            )
        if 0 in a.shape:
            continue
        low, high = float(a.min()), float(a.max())
        # asked this way round, NaN is refused
        if not (low >= 0 and high < rows and bool((a % 1 == 0).all())):
            raise UserError(
                f"`{name}` has numbers from {low:g} to {high:g}, and chooses one of {rows} rows",
                help=f"tokens are whole numbers from 0 to {rows - 1}",
            )


def _exact(kind: str) -> int:
    """How far whole numbers are exact."""
    bits = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
    return 2 ** bits[kind]
