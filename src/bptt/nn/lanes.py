"""What torch is about to do with the tensors of a call, as far as it tells: transforms of
`torch.func`, modes, derivatives.

Where a private name that says so is missing, as in another torch, the answer is the careful one:
every call goes through the full lane, and keeps all that a derivative may read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_keys: Callable[[Tensor], Any] | None = getattr(torch._C, "_dispatch_keys", None)
_transforms: Callable[[], bool] | None = getattr(torch._C, "_are_functorch_transforms_active", None)
_modes: Callable[[], int] | None = getattr(torch._C, "_len_torch_dispatch_stack", None)
_functorch = getattr(torch._C, "_functorch", None)
_stack: Callable[[], Sequence[Any] | None] | None = getattr(
    _functorch, "get_interpreter_stack", None
)
_is_wrapped: Callable[[Tensor], bool] | None = getattr(
    _functorch, "is_functorch_wrapped_tensor", None
)
_unwrapped: Callable[[Tensor], Tensor] | None = getattr(_functorch, "get_unwrapped", None)


def _plain_keys() -> frozenset[int]:
    if _keys is None or _transforms is None or _modes is None:
        return frozenset()
    with torch.inference_mode(False):
        usual = torch.empty(0)
    with torch.inference_mode():
        return frozenset((_keys(usual).raw_repr(), _keys(torch.empty(0)).raw_repr()))


_PLAIN = _plain_keys()


def plain(tensors: Sequence[Tensor]) -> bool:
    """Whether only the kernel can be meant: ordinary CPU tensors, no mode, no transform."""
    if not _PLAIN or _transforms is None or _modes is None or _keys is None:
        return False
    plain = _PLAIN
    keys = _keys
    return all(keys(x).raw_repr() in plain for x in tensors) and not _transforms() and not _modes()


def transformed() -> bool:
    """Whether a transform or a mode of torch is at work."""
    return _transforms is None or _modes is None or _transforms() or _modes() > 0


def forward_mode() -> bool:
    """Whether tensors may have tangents."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def transforming() -> bool:
    """Whether derivatives other than by one backward pass may be meant."""
    return _transforms is None or _transforms() or forward_mode()


def derived(tensors: Sequence[Tensor]) -> bool:
    """Whether to keep anything of a run in the full lane: what derives it will find it then."""
    if transforming():
        return True
    if torch.compiler.is_exporting():
        return False  # a saved graph is mostly for inference; what it lacks is computed again
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def level() -> int | None:
    """Which transform is at work, counted from the outermost; None: none that takes derivatives."""
    stack = None if _stack is None else _stack()
    return stack[-1].level() if stack and _derives(stack[-1]) else None


def derived_again(tensors: Sequence[Tensor], own: int | None) -> bool:
    """Whether something may derive the backward pass, which reads `tensors`, of a run for whose
    derivative the transform of level `own` asked.

    `grad` records a graph of every backward pass, and forgets that of the outermost derivative.
    Where this says no and is mistaken, the backward pass runs again when it is derived.
    """
    if own is None or _stack is None or _is_wrapped is None or _unwrapped is None:
        return True
    if forward_mode() or any(t.level() != own and _derives(t) for t in _stack() or ()):
        return True
    for x in tensors:
        while _is_wrapped(x):
            x = _unwrapped(x)
        if x.requires_grad:
            return True
    return False


def _derives(transform: Any) -> bool:
    return transform.key().name in ("Grad", "Jvp")


def legacy_batched(x: Tensor) -> bool:
    """Whether torch's older vmap runs (`is_grads_batched`, `check_batched_grad`)."""
    return _keys is not None and "Batched" in repr(_keys(x)).replace("FuncTorchBatched", "")
