"""Sizes as symbols: `H`, `1`, `X + H + 1`, `4*H`. Equal sizes are equal values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# A number, a name, or a sum of (name, how many), sorted; the name of the constant part is "".
Dim = int | str | tuple[tuple[str, int], ...]
Dims = tuple[Dim, ...]  # () a number, (n,) a vector, (m, n) a matrix


def terms(dim: Dim) -> dict[str, int]:
    """`dim` as {name: how many}; the constant part stands under ""."""
    if isinstance(dim, int):
        return {"": dim} if dim else {}
    if isinstance(dim, str):
        return {dim: 1}
    return dict(dim)


def _dim(parts: Mapping[str, int]) -> Dim:
    kept = tuple(sorted((name, n) for name, n in parts.items() if n))
    if not kept:
        return 0
    if len(kept) == 1:
        name, n = kept[0]
        if not name:
            return n
        if n == 1:
            return name
    return kept


def add_dims(*dims: Dim) -> Dim:
    """The sum of sizes."""
    total: dict[str, int] = {}
    for dim in dims:
        for name, n in terms(dim).items():
            total[name] = total.get(name, 0) + n
    return _dim(total)


def scale_dim(dim: Dim, factor: int) -> Dim:
    """`factor` times a size."""
    return _dim({name: n * factor for name, n in terms(dim).items()})


def divide_dim(dim: Dim, parts: int) -> Dim | None:
    """One of `parts` equal parts of a size, or None where it does not divide as a symbol."""
    found = terms(dim)
    if any(n % parts for n in found.values()):
        return None
    return _dim({name: n // parts for name, n in found.items()})


def substitute(dim: Dim, known: Mapping[str, Dim]) -> Dim:
    """`dim` with names replaced by the sizes they turned out to be."""
    return add_dims(*(scale_dim(known.get(s, s) if s else 1, n) for s, n in terms(dim).items()))


def size_of(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The number that `dim` is when each name has the size given."""
    return sum(n * (sizes[name] if name else 1) for name, n in terms(dim).items())


def solved(dims: Iterable[Dim]) -> set[str]:
    """The names of sizes that can be told from the numbers that `dims` turned out to be."""
    known: set[str] = set()
    unknown = [set(terms(dim)) - {""} for dim in dims]
    progress = True
    while progress:
        told = {s for names in unknown if len(names - known) == 1 for s in names}
        progress = not told <= known
        known |= told
    return known


def shape_of(dims: Dims, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an array of these dims."""
    return tuple(size_of(dim, sizes) for dim in dims)


def show_dim(dim: Dim) -> str:
    """`dim` as a person writes it: `4*H`, `H + X + 1`."""
    if isinstance(dim, int | str):
        return str(dim)
    shown = [name if n == 1 else f"{n}*{name}" for name, n in dim if name]
    shown += [str(n) for name, n in dim if not name]
    return " + ".join(shown).replace("+ -", "- ")


def show_dims(dims: Dims) -> str:
    """`scalar`, `H` or `(H, X)`."""
    if not dims:
        return "scalar"
    if len(dims) == 1:
        return show_dim(dims[0])
    return f"({', '.join(map(show_dim, dims))})"
