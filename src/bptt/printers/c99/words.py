"""What C99 and libm lack, and how numbers and loops are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LIBM = {name: name for name in "tanh sin cos exp log sqrt".split()} | {"abs": "fabs"}
# What libm lacks. R is the type of numbers, F the ending of libm's functions for it.
HELPERS: Mapping[str, tuple[str, ...]] = {
    "sigmoid": ("x", "const R e = expF(-fabsF(x));", "return (x >= 0 ? 1 : e) / (1 + e);"),
    "softplus": ("x", "return (x <= 0 ? 0 : x) + log1pF(expF(-fabsF(x)));"),
    "logsigmoid": ("x", "return (x >= 0 ? 0 : x) - log1pF(expF(-fabsF(x)));"),
    "softsign": ("x", "return x / (1 + fabsF(x));"),
    "relu": ("x", "return x <= 0 ? 0 : x;"),
    "positive": ("x", "return x > 0 ? 1 : 0;"),
    "sign": ("x", "return x > 0 ? 1 : x < 0 ? -1 : x;"),
    "square": ("x", "return x * x;"),
    "max": ("x y", "return x >= y || x != x ? x : y;"),
    "min": ("x y", "return x <= y || x != x ? x : y;"),
    "prefer": ("x y", "return x > y ? 1 : x < y ? 0 : (R)0.5;"),
    "same": ("x y", "return x == y ? 1 : 0;"),
    "unless": ("x y", "return y > 0 ? 0 : x;"),
}


def print_helper(op: str, real: str, prefix: str) -> list[str]:
    """The function that stands for `op`."""
    arguments, *body = HELPERS[op]
    given = ", ".join(f"{real} {a}" for a in arguments.split())
    lines = [line.replace("R ", f"{real} ").replace("(R)", f"({real})") for line in body]
    lines = [line.replace("F(", f"{ending(real)}(") for line in lines]
    return [f"static {real} {prefix}_{op}({given}) {{", *(f"    {x}" for x in lines), "}"]


def number_text(value: float, real: str) -> str:
    """A number as C writes it."""
    if value != value:
        return "NAN"
    if value in (float("inf"), float("-inf")):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{value!r}{ending(real)}"


def for_each(count: int, body: Iterable[str]) -> list[str]:
    """A loop of `i` from 0 to `count` - 1."""
    return [f"for (int i = 0; i < {count}; i++) {{", *(f"    {x}" for x in body), "}"]


def ending(real: str) -> str:
    """How the names of libm's functions end for this type of numbers."""
    return "f" if real == "float" else ""
