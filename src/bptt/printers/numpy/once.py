"""Values without time: parameters' functions before the sweep, and what follows from sums."""

from __future__ import annotations

from bptt.ir.dims import Dims
from bptt.ir.program import Equation, Node, walk
from bptt.printers.numpy.names import (
    FUNCTIONS,
    INFIX,
    Positions,
    Printed,
    dim_source,
    no_spelling,
    spans_source,
)


def print_once(equations: tuple[Equation, ...], name: str, sizes: list[str]) -> Printed:
    """A function that computes values without time from others."""
    return _Once(sizes).function(equations, name)


class _Once:
    """Values without time: numbers, vectors and matrices behind an optional group axis."""

    def __init__(self, sizes: list[str]) -> None:
        self.sizes = sizes
        self.reads = Positions("c")
        self.local: dict[str, str] = {}

    def function(self, equations: tuple[Equation, ...], name: str) -> Printed:
        lines: list[str] = []
        for k, e in enumerate(equations):
            lines.append(f"v{k} = X.whole({self.expression(e.rhs)}, {self.shape(e.rhs.dims)})")
            self.local[e.name] = f"v{k}"
        returns = [e.name for e in equations]
        lines.append(f"return ({''.join(self.local[n] + ', ' for n in returns)})")
        if self.reads.found:
            lines.insert(0, f"({''.join(f'c{k}, ' for k in range(len(self.reads.found)))}) = C")
        if self.sizes:
            lines.insert(0, f"({''.join(f'n{k}, ' for k in range(len(self.sizes)))}) = N")
        source = f"def {name}(X, N, C, L):\n" + "".join(f"    {line}\n" for line in lines)
        return Printed(source, constants=[str(k) for k in self.reads.found], returns=returns)

    def shape(self, dims: Dims) -> str:
        return f"({''.join(dim_source(d, self.sizes) + ', ' for d in dims)})"

    def expression(self, root: Node) -> str:
        found: dict[Node, str] = {}
        for n in walk(root):
            found[n] = self.one(n, [found[a] for a in n.args])
        return found[root]

    def one(self, n: Node, args: list[str]) -> str:
        match n.op:
            case "ref":
                return self.local.get(n.attr[0]) or self.reads(n.attr[0])
            case "const":
                return f"X.number({float.fromhex(n.attr[0])!r}, L)"
            case "size":
                return f"X.number({dim_source(n.attr[0], self.sizes)}, L)"
            case "pattern":
                kind, size, *times = n.attr
                args = [dim_source(size, self.sizes), *map(str, times)]
                return f"X.{kind}({', '.join(args)}, L)"
            case "fill":
                spread = f"{args[0]}[..., {', '.join(['None'] * len(n.dims))}]"
                return f"X.whole({spread}, {self.shape(n.dims)})"
            case "neg":
                return f"(-{args[0]})"
            case "pow":
                return f"({args[0]} ** {float.fromhex(n.attr[0])!r})"
            case "matmul" if len(n.dims) == 1:
                return f"X.matmul({args[0]}, {args[1]}[..., None])[..., 0]"
            case "matmul":
                return f"X.matmul({args[0]}, {args[1]})"
            case "outer":
                return f"({args[0]}[..., :, None] * {args[1]}[..., None, :])"
            case "T":
                return f"X.swap({args[0]})"
            case "sum":
                return f"X.sum_all({args[0]}, {len(n.args[0].dims)})"
            case "row_max":
                return f"X.row_max({args[0]})[..., 0]"
            case "concat":
                pieces = [
                    f"X.whole({a}, {self.shape(x.dims)})" + ("" if x.dims else "[..., None]")
                    for a, x in zip(args, n.args, strict=True)
                ]
                return f"X.join([{', '.join(pieces)}])"
            case "block":
                inner = f"X.whole({args[0]}, {self.shape(n.args[0].dims)})"
                return f"{inner}[..., {spans_source(n, self.sizes)}]"
            case "embed":
                inner = f"X.whole({args[0]}, {self.shape(n.args[0].dims)})"
                starts = f"({''.join(dim_source(s, self.sizes) + ', ' for s, _ in n.attr)})"
                return f"X.embed({inner}, {starts}, {self.shape(n.dims)})"
            case op if op in INFIX:
                return f"({args[0]} {INFIX[op]} {args[1]})"
            case op if op in FUNCTIONS:
                return f"X.{FUNCTIONS[op]}({', '.join(args)})"
            case _:
                raise no_spelling(n)
