"""How many bytes autograd keeps for the backward pass."""

from __future__ import annotations

from typing import Any

from bptt.bench.sides import Ready


def kept(ready: Ready) -> int:
    """The bytes of all storages that the forward pass saves: each once, and no parameter's.

    The input is counted where it is saved, as it has to stay alive. A side is made ready to train.
    """
    import torch

    assert ready.forward is not None
    saved: dict[int, int] = {}
    alive: list[Any] = []  # or a freed storage's address would be another's

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = ready.forward()
    for weight in ready.weights:
        saved.pop(weight.untyped_storage().data_ptr(), None)
    assert found[0].requires_grad
    return sum(saved.values())
