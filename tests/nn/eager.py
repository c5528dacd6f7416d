"""Cells written out in plain torch ops, for torch to differentiate: what `run` is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from sweeps_of import program
from torch import Tensor
from torch.utils import _pytree

from bptt.ir.dims import shape_of
from bptt.ir.ports import At, inputs
from bptt.ir.program import Program
from bptt.nn import run
from bptt.printers.text import text

Tensors = Sequence[Tensor]
Named = Mapping[str, Tensor]
Function = Callable[..., Any]


def _affine(v: Named, k: str, x: Tensor, h: Tensor) -> Tensor:
    return x @ v[f"W_{k}"].mT + h @ v[f"U_{k}"].mT + v[f"b_{k}"]


def lstm(v: Named) -> tuple[Tensor, ...]:
    h, c, out = v["h"], v["c"], []
    for x in v["x"].unbind(0):
        i, f, o = (torch.sigmoid(_affine(v, k, x, h)) for k in "ifo")
        c = f * c + i * torch.tanh(_affine(v, "g", x, h))
        h = o * torch.tanh(c)
        out.append(h)
    return torch.stack(out), h, c


def gru_cho(v: Named) -> tuple[Tensor, ...]:
    h, out = v["h"], []
    for x in v["x"].unbind(0):
        r, z = (torch.sigmoid(_affine(v, k, x, h)) for k in "rz")
        n = torch.tanh(_affine(v, "n", x, r * h))
        h = z * h + (1 - z) * n
        out.append(h)
    return torch.stack(out), h


def iosif(v: Named) -> tuple[Tensor, ...]:
    z, s, out = v["z_h"], v["s"], []
    for x in v["x"].unbind(0):
        one = torch.ones_like(x[..., :1])
        before = torch.cat([x, z, s, one], -1)
        g_i, g_f = (torch.sigmoid((before * v[w]).sum(-1, keepdim=True)) for w in ("w_ι", "w_φ"))
        s = g_f * s + g_i * torch.tanh(torch.cat([x, z, one], -1) @ v["W_c"])
        after = torch.cat([x, z, s, one], -1)
        g_o = torch.sigmoid((after * v["w_ω"]).sum(-1, keepdim=True))
        z = torch.tanh(g_o * s)
        out.append(z)
    return torch.stack(out), z, s


_EAGER: dict[str, Function] = {"lstm": lstm, "gru_cho": gru_cho, "iosif": iosif}
SIZES = {"X": 2, "H": 3}


@dataclass(frozen=True)
class Case:
    """A cell, run by us and by torch. Both take the tensors of the cell's ports, in their order
    and without a group axis, and give the output's series and the last states."""

    name: str

    @cached_property
    def program(self) -> Program:
        return program(self.name)

    @cached_property
    def text(self) -> str:
        return text(self.program)

    @cached_property
    def ours(self) -> Function:
        program = self.text  # torch.compile wants a string
        return lambda *tensors: tuple(y[0] for y in run(program, [x[None] for x in tensors]))

    @cached_property
    def torchs(self) -> Function:
        eager, names = _EAGER[self.name], self.names
        return lambda *tensors: eager(dict(zip(names, tensors, strict=True)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(port.name for port in inputs(self.program))

    def place(self, name: str) -> int:
        """The number of the tensor with this name."""
        return self.names.index(name)

    @cached_property
    def weight(self) -> int:
        """The number of a matrix that stands in the loop."""
        return self.place({"lstm": "U_f", "gru_cho": "U_n", "iosif": "W_c"}[self.name])

    def tensors(
        self, length: int = 3, batch: int = 2, *, grad: bool = False, seed: int = 0, **like: Any
    ) -> list[Tensor]:
        """Random tensors for the ports, of size about 1/2."""
        generator = torch.Generator().manual_seed(seed)
        lead = {At.STEPS: (length, batch), At.CONST: ()}
        found: list[Tensor] = []
        for port in inputs(self.program):
            shape = (*lead.get(port.at, (batch,)), *shape_of(self.program.dims(port.name), SIZES))
            draw = torch.randn(shape, generator=generator, dtype=torch.float64) / 2
            found.append(draw.to(**like).requires_grad_(grad))
        return found

    def stacked(self, k: int, count: int, dim: int = 0) -> list[Tensor]:
        """The tensors, the k-th of them `count` times with other numbers along a new axis."""
        tensors = self.tensors()
        tensors[k] = torch.stack([self.tensors(seed=s + 1)[k] for s in range(count)], dim)
        return tensors


def loss(f: Function) -> Function:
    """A number that depends on all that `f` gives, with curvature of its own."""
    return lambda *tensors: sum((y.pow(2) + y.sin()).sum() for y in f(*tensors))


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Every tensor is right, relative to its largest entry (at least 1)."""
    ours, truth = _pytree.tree_leaves(found), _pytree.tree_leaves(expected)
    assert len(ours) == len(truth)
    for k, (y, true) in enumerate(zip(ours, truth, strict=True)):
        assert y.shape == true.shape, f"tensor {k}: {list(y.shape)}, not {list(true.shape)}"
        if true.numel():
            scale = max(1.0, true.detach().abs().max().item())
            error = (y.detach() - true.detach()).abs().max().item() / scale
            assert error <= tolerance, f"tensor {k} is off by {error:.1e}"
