"""A sweep over time in torch's own operations and its `scan`: what a graph for ONNX is made of.

What does not depend on a state is computed for all steps at once; the rest is the body of the
scan. Vectors lie along the last axis, and a number is 1 wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bptt.backends.arrays import table
from bptt.backends.once import WithoutTime
from bptt.errors import BpttError, UserError
from bptt.ir.dims import size_of
from bptt.ir.ops import number, ref
from bptt.ir.ports import At
from bptt.ir.program import Equation, Kind, Node, Role, walk
from bptt.nn.shapes import solve, tail
from bptt.nn.sweep import Sweep
from bptt.printers.numpy.names import FUNCTIONS

_INFIX = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}


def scanned(sweep: Sweep, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The results of `run(sweep, tensors)` for a dense batch in one group.

    Raises UserError for what a graph of a forward pass does not hold: groups, and gradients.
    """
    p = sweep.program
    backward = p.emits or any(e.kind is Kind.SUM for e in p.equations)
    if backward or any(port.at in (At.FIRST, At.LAST) for port in sweep.inputs):
        raise UserError("a graph for ONNX holds no gradients", help="export the forward pass")
    if any(x.shape[0] != 1 for x in tensors):
        raise UserError("a graph for ONNX holds no vmapped layer", help="export one of them")
    sizes: dict[str, int] = {}
    found: list[tuple[Any, int]] = []
    for port, x in zip(sweep.inputs, tensors, strict=True):
        dims = tail(p, port)
        found += zip(dims, x.shape[len(x.shape) - len(dims) :], strict=True)
    solve(found, sizes)
    onces = tuple(e for e in p.equations if e.kind is Kind.ONCE)
    constant = {v.name for v in p.values if v.role is not Role.GIVEN}
    given = {q.name: x for q, x in zip(sweep.inputs, tensors, strict=True) if q.at is not At.START}
    fixed = {name: x for name, x in given.items() if name in constant}
    known = {name: x[0] for name, x in given.items()}
    known |= {n: x[0] for n, x in WithoutTime(onces, p)(fixed, sizes, tensors[0]).items()}
    starts = [x[0] for q, x in zip(sweep.inputs, tensors, strict=True) if q.at is At.START]
    # a number without time is as wide as one beside rows
    known = {n: x[None] if not x.shape else x for n, x in known.items()}
    series = next(x[0] for q, x in zip(sweep.inputs, tensors, strict=True) if q.at is At.STEPS)
    return _Scan(sweep, known, sizes, series).run(starts)


class _Loop(NamedTuple):
    """The equations that run in the loop, and the nodes it reads that are known before."""

    equations: list[Equation]
    before: list[Node]


class _Step(NamedTuple):
    """What a step reads: nodes known before the loop, the states before it, and what it has
    computed so far."""

    nodes: Mapping[Node, Tensor]
    before: Mapping[str, Tensor]
    now: Mapping[str, Tensor]


class _Scan:
    def __init__(
        self, sweep: Sweep, known: dict[str, Tensor], sizes: Mapping[str, int], series: Tensor
    ) -> None:
        self.sweep, self.p = sweep, sweep.program
        self.known, self.sizes, self.series = known, sizes, series
        self.lead = series.shape[:2]
        self.states = [s.name for s in self.p.states]

    def run(self, starts: list[Tensor]) -> list[Tensor]:
        p = self.p
        loop = self.divided()
        held = {e.name for e in loop.equations}
        wanted = [n for n in dict.fromkeys(p.outputs) if n in held]
        every = {n: self.wide(self.known[n], self.lead) for n in p.outputs if n not in held}
        if loop.equations:
            carried, made = self.scan(loop, starts, wanted)
            every |= dict(zip(wanted, made, strict=True))
        else:
            end = -1 if p.dir > 0 else 0
            carried = [self.wide(self.known[s], self.lead)[end] for s in self.states]
        final = dict(zip(self.states, carried, strict=True))
        return [
            (final if port.at is At.FINAL else every)[port.name][None]
            for port in self.sweep.outputs
        ]

    def divided(self) -> _Loop:
        """Compute all that depends on no state; what is left is the loop."""
        looped: dict[Node, bool] = {}
        names: set[str] = set()
        equations: list[Equation] = []
        before: dict[Node, None] = {}
        for e in self.p.steps():
            for n in walk(e.rhs):
                if n.op == "ref":
                    looped[n] = n.attr[1] == 1 or n.attr[0] in names
                else:
                    looped[n] = any(looped[a] for a in n.args)
            if not looped[e.rhs]:
                self.known[e.name] = self.value(e.rhs)
                continue
            names.add(e.name)
            equations.append(e)
            for n in walk(e.rhs):
                if looped[n]:
                    before.update((a, None) for a in n.args if not looped[a] and number(a) is None)
        return _Loop(equations, list(before))

    def scan(
        self, loop: _Loop, starts: list[Tensor], wanted: list[str]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The last states, and the series of `wanted`."""
        from torch._higher_order_ops.scan import scan_op

        names = {e.name for e in loop.equations}
        # a state that the loop does not compute is handed on as it is
        free = {s: ref(s, 0, self.p.dims(s)) for s in self.states if s not in names}
        values = {n: self.value(n) for n in loop.before}
        values |= {n: self.wide(self.known[s], self.lead) for s, n in free.items()}
        steps = {n: x for n, x in values.items() if x.ndim == 3}
        fixed = {n: x for n, x in values.items() if x.ndim != 3}
        backward = self.p.dir < 0
        # without any, the input says how many steps there are
        xs = [x.flip(0) if backward else x for x in steps.values()] or [self.series]
        count, read = len(starts), len(xs)

        def body(*args: Tensor) -> list[Tensor]:
            before = dict(zip(self.states, args[:count], strict=True))
            nodes = dict(zip(steps, args[count : count + read], strict=False))
            nodes |= dict(zip(fixed, args[count + read :], strict=True))
            now = {s: nodes[n] for s, n in free.items()}
            for e in loop.equations:
                now[e.name] = self.value(e.rhs, _Step(nodes, before, now))
            rows = args[0].shape[:1]
            # copies, as `scan` wants results that share no memory
            return [self.wide(now[n], rows).clone() for n in (*self.states, *wanted)]

        found = list(scan_op(body, starts, xs, additional_inputs=tuple(fixed.values())))
        made = [a.flip(0) if backward else a for a in found[count:]]
        return found[:count], made

    # --- values ---

    def wide(self, x: Tensor, lead: Sequence[int]) -> Tensor:
        """With all leading axes."""
        return x.expand(*lead, x.shape[-1])

    def value(self, root: Node, step: _Step | None = None) -> Tensor:
        """The value of an expression: in the loop at a step, outside for all steps at once."""
        found = dict(step.nodes) if step else {}
        stack = [root]
        while stack:
            n = stack[-1]
            missing = [] if n in found else [a for a in n.args if a not in found]
            if missing:
                stack += reversed(missing)
                continue
            stack.pop()
            if n.op == "ref" and n not in found:
                name, lag = n.attr
                found[n] = ((step.before if lag else step.now) if step else self.known)[name]
            elif n not in found:
                found[n] = self.one(n, [found[a] for a in n.args])
        return found[root]

    def number(self, value: float) -> Tensor:
        # not made from a tensor: the body of a scan may read none from outside
        return torch.full((1,), value, dtype=self.series.dtype, device=self.series.device)

    def width(self, dim: Any) -> int:
        return size_of(dim, self.sizes)

    def one(self, n: Node, args: list[Tensor]) -> Tensor:
        like = self.series
        x = table(like)
        match n.op:
            case "const":
                return self.number(float.fromhex(n.attr[0]))
            case "size":
                return self.number(float(self.width(n.attr[0])))
            case "pattern":
                kind, dim, *times = n.attr
                return getattr(x, kind)(self.width(dim), *times, like)
            case "T":
                return args[0].t()
            case "block":
                spans = [slice(self.width(s), self.width(s) + self.width(k)) for s, k in n.attr]
                return args[0][(..., *spans)]
            case "fill":
                return args[0].expand(*args[0].shape[:-1], self.width(n.dims[0]))
            case "neg":
                return -args[0]
            case "pow":
                p = float.fromhex(n.attr[0])
                return args[0] * args[0] if p == 2 else args[0] ** p
            case "matmul" if len(n.dims) == 1:
                return functional.linear(args[1], args[0])
            case "sum":
                return args[0].sum(-1, keepdim=True)
            case "row_max":
                return args[0].amax(-1, keepdim=True)
            case "softmax":
                return args[0].softmax(-1)
            case "log_softmax":
                return args[0].log_softmax(-1)
            case "concat":
                lead = max((a.shape[:-1] for a in args), key=len)
                return torch.cat([self.wide(a, lead) for a in args], -1)
            case "embed":
                start, whole = (self.width(d) for d in n.attr[0])
                return functional.pad(args[0], (start, whole - start - args[0].shape[-1]))
            case "row":
                rows = args[0] if args[0].ndim == 2 else args[0][:, None]
                return functional.embedding(args[1][..., 0].long(), rows)
            case op if op in _INFIX:
                return _INFIX[op](*args)
            case op if op in FUNCTIONS:
                return getattr(x, FUNCTIONS[op])(*args)
            case _:
                raise BpttError(f"the op `{n.op}` has no spelling in torch's `scan`")
