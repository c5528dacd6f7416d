"""What torch tests its recurrent modules with: the inputs come with torch, the tests do not.

`CHECKS` has torch's names of its tests; `SKIPPED` says which of them we do not run, and why.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt.nn

LAYERS = ["LSTM", "GRU", "RNN"]
CELLS = [f"{name}Cell" for name in LAYERS]

CHECKS = {
    "forward": "the numbers of torch's module, and those that torch computes as a reference",
    "factory_kwargs": "`device` and `dtype` reach every parameter",
    "device_ctx_init": "so does `with torch.device(...)`",
    "repr": "it prints as torch's",
    "save_load": "pickle, deepcopy and the state dict, both ways",
    "non_contiguous_tensors": "inputs, states, parameters and adjoints with gaps between numbers",
    "grad": "first derivatives against differences",
    "gradgrad": "second derivatives against differences",
    "to": "moved to another number format and to another device",
    "to_empty": "made without memory, which then is handed to it",
    "if_train_and_eval_modes_differ": "`train()` and `eval()` give the same where nothing is drawn",
    "errors": "torch's exceptions with torch's words",
}
OF_CELLS = ("forward", "non_contiguous_tensors", "grad", "gradgrad")

SKIPPED = [
    ("check_inplace", "all", "recurrent modules have no `inplace`"),
    ("memory_format", "all", "it is about images: inputs of 4 or 5 axes"),
    ("multiple_device_transfer", "all", "it needs two devices that compute"),
    ("cpu_gpu_parity", "all", "it needs a GPU"),
    *(
        (
            name,
            "inputs with `batch_first=True`",
            "others are the same but for the order of two axes",
        )
        for name in ("grad", "gradgrad")
    ),
    *(
        (name, "cells", "there is no such class in `bptt.nn` that could do it")
        for name in CHECKS
        if name not in OF_CELLS
    ),
]
"""Each of torch's tests that is not run, of what, and why."""


@cache
def infos() -> dict[str, Any]:
    """torch's ModuleInfo of each module, by name."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        # what torch forbids its own test processes is not for ours
        patch.setattr(torch.backends, "disable_global_flags", lambda: None)
        from torch.testing._internal.common_modules import module_db
    classes = {getattr(nn, name): name for name in (*LAYERS, *CELLS)}
    return {classes[i.module_cls]: i for i in module_db if i.module_cls in classes}


def samples(name: str, *, dtype: torch.dtype = torch.float64, training: bool = True) -> list[Any]:
    """torch's inputs of a module, the ragged ones too."""
    more = {} if name in CELLS or name == "LSTM" else {"with_packed_sequence": True}
    torch.manual_seed(0)
    options = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": training}
    info = infos()[name]
    return list(info.module_inputs_func(info, **options, **more))


class Step(nn.Module):
    """A layer in the place of one of torch's cells: one step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, states: Tensor | tuple[Tensor, ...]) -> Any:
        single = isinstance(states, Tensor)
        _, last = self.layer(x[None], states[None] if single else tuple(s[None] for s in states))
        return last[0] if single else tuple(s[0] for s in last)


def made(name: str, sample: Any, *, dtype: torch.dtype = torch.float64, **more: Any) -> nn.Module:
    """torch's module as the sample says."""
    torch.manual_seed(0)
    given = sample.constructor_input
    return getattr(nn, name)(*given.args, **given.kwargs, dtype=dtype, **more)


def ours(name: str, sample: Any, *, dtype: torch.dtype = torch.float64, **more: Any) -> nn.Module:
    """Our module in its place, with its weights."""
    torch.manual_seed(0)
    given = sample.constructor_input
    if name not in CELLS:
        return getattr(bptt.nn, name)(*given.args, **given.kwargs, dtype=dtype, **more)
    kind = getattr(bptt.nn, name.removesuffix("Cell"))
    layer = kind(*given.args, **given.kwargs, dtype=dtype, **more)
    weights = made(name, sample, dtype=dtype, **more).state_dict()
    layer.load_state_dict({f"{key}_l0": value for key, value in weights.items()})
    return Step(layer)
