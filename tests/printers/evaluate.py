"""A small evaluator of printed derivations, independent of the IR: what people read, taken at its
word. It knows NumPy, `[t+1]`, `sum_t`, and that gradients are zero beyond the last step."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = Any


def softmax(v: Array) -> Array:
    e = np.exp(v - np.max(v))
    return e / np.sum(e)


def embed(v: Array, *spans: int) -> Array:
    starts, sizes = spans[::2], spans[1::2]
    whole = np.zeros(sizes)
    whole[tuple(slice(s, s + k) for s, k in zip(starts, v.shape, strict=True))] = v
    return whole


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "sum": np.sum,
    "mean": np.mean,
    "outer": np.outer,
    "softmax": softmax,
    "embed": embed,
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "logsigmoid": lambda v: -np.log1p(np.exp(-v)),
    "softplus": lambda v: np.log1p(np.exp(v)),
    "softsign": lambda v: v / (1 + np.abs(v)),
    "log_softmax": lambda v: np.log(softmax(v)),
    "relu": lambda v: np.maximum(v, 0),
    "positive": lambda v: (v > 0) * 1.0,
    "prefer": lambda a, b: (np.sign(np.subtract(a, b)) + 1) / 2,
    "same": lambda a, b: np.equal(a, b) * 1.0,
    "unless": lambda a, c: np.where(np.greater(c, 0), 0.0, a),
    "dot": lambda a, b: a @ b,
    "max": lambda a, b=None: np.max(a) if b is None else np.maximum(a, b),
    "min": np.minimum,
    "concat": lambda *args: np.concatenate([np.atleast_1d(a) for a in args]),
    "cumsum": np.cumsum,
    "rcumsum": lambda v: np.cumsum(v[::-1])[::-1],
    "repeat": np.repeat,
    "fold": lambda v, n: v.reshape(-1, n).sum(-1),
    "fill": lambda a, *sizes: np.full(sizes, a),
}

_OPERATORS = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.MatMult: np.matmul,
}


class Evaluator:
    """Runs the lines of a printed derivation.

    `series`: what is known at times -1 to T. `constants`: parameters, static inputs, sizes.
    `zeros`: for a name that the text makes, what it is beyond the last step. `functions`: what
    unspecified functions and their derivatives (`f'`, `dG_dy`) mean.
    """

    def __init__(
        self,
        length: int,
        series: Mapping[str, Mapping[int, Array]],
        constants: Mapping[str, Array],
        zeros: Mapping[str, Array],
        functions: Mapping[str, Callable[..., Array]],
    ) -> None:
        self.length, self.zeros = length, zeros
        self.series = {name: dict(values) for name, values in series.items()}
        self.constants = dict(constants)
        self.functions = {**FUNCTIONS, **functions}

    def run(self, text: str) -> None:
        """All lines, in the order and at the times that the headings say."""
        for block in text.strip().split("\n\n"):
            heading, lines = _lines(block)
            if heading.startswith("values of the forward pass"):
                for t in range(self.length):
                    self.at(t, lines)
            elif heading == "for t = T-1, ..., 0":
                for t in range(self.length - 1, -1, -1):
                    self.at(t, lines)
            else:
                self.at(None, lines)

    def at(self, t: int | None, lines: list[tuple[str, ast.expr]]) -> None:
        for left, right in lines:
            name, _, time = left.rstrip("]").partition("[")
            value = self.value(right, t)
            if not time:
                assert t or name not in self.constants, f"{name} is written twice"
                self.constants[name] = value
                continue
            at = t if time == "t" else int(time)
            assert at is not None
            known = self.series.setdefault(name, {})
            assert at not in known, f"{name} is written twice"
            known[at] = value

    def value(self, e: ast.expr, t: int | None) -> Array:
        match e:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self.constants[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand, t)
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](self.value(left, t), self.value(right, t))
            case ast.Attribute(value=value, attr="T"):
                return self.value(value, t).T
            case ast.Call(func=ast.Name(id="sum_t"), args=[inner]):
                return sum(self.value(inner, k) for k in range(self.length))
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.functions[name](*(self.value(a, t) for a in args))
            case ast.Subscript(value=value, slice=ast.Slice() | ast.Tuple() as where):
                return self.value(value, t)[self.span(where)]
            case ast.Subscript(value=ast.Name(id=name), slice=where):
                return self.read(name, self.time(where, t))
        raise AssertionError(f"what is {ast.unparse(e)}?")

    def span(self, where: ast.expr) -> Any:
        if isinstance(where, ast.Tuple):
            return tuple(self.span(part) for part in where.elts)
        assert isinstance(where, ast.Slice)
        ends = (where.lower, where.upper)
        return slice(*(None if end is None else int(self.value(end, None)) for end in ends))

    def time(self, where: ast.expr, t: int | None) -> int:
        match where:
            case ast.Name(id="t"):
                found = t
            case ast.BinOp(left=ast.Name(id="t"), op=op, right=ast.Constant(value=int() as k)):
                assert t is not None
                found = t + (k if isinstance(op, ast.Add) else -k)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as k)):
                found = -k
            case ast.Constant(value=int() as k):
                found = k
            case _:
                raise AssertionError(f"what time is {ast.unparse(where)}?")
        assert found is not None, "a time where there is none"
        return found

    def read(self, name: str, t: int) -> Array:
        if name in self.zeros and t == self.length:
            return self.zeros[name]
        return self.series[name][t]


def _lines(block: str) -> tuple[str, list[tuple[str, ast.expr]]]:
    """The heading of a block, and its equations; an indented row goes on with the one above."""
    heading = ""
    rows: list[str] = []
    for row in block.splitlines():
        text, _, comment = row.partition("#")
        if not text.strip():
            heading = comment.strip()
        elif text.startswith(" "):
            rows[-1] += " " + text.strip()
        else:
            rows.append(text.strip())
    found: list[tuple[str, ast.expr]] = []
    for row in rows:
        left, right = row.split(" = ", 1)
        right = re.sub(r"(\w)('+)\(", lambda m: f"{m[1]}{'_prime' * len(m[2])}(", right)
        found.append((left.strip(), ast.parse(right.strip(), mode="eval").body))
    return heading, found
