"""What transformers says of recurrent layers: it accumulates both of these in float32."""

from __future__ import annotations

import torch
from record import Array, Arrays, record, torch_call, torch_side
from transformers import RecurrentGemmaConfig, RwkvConfig
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru
from transformers.models.rwkv.modeling_rwkv import RwkvSelfAttention

RWKV = RwkvSelfAttention(RwkvConfig(hidden_size=3, attention_hidden_size=3))
RGLRU = RecurrentGemmaRglru(RecurrentGemmaConfig(hidden_size=3, lru_width=3, num_attention_heads=1))


class Held:
    """A state of one layer that is replaced, not written over: so torch can differentiate."""

    def __init__(self, value: Array) -> None:
        self.value = value

    def __getitem__(self, at: object) -> Array:
        return self.value

    def __setitem__(self, at: object, value: Array) -> None:
        self.value = value


def rwkv4(v: Arrays) -> tuple[Arrays, Arrays]:
    weights = {f"time_mix_{k}": v[f"μ_{k[0]}"][None, None] for k in ("key", "value", "receptance")}
    weights |= {"time_decay": v["w"], "time_first": v["u"]}
    names = {"key": "k", "value": "v", "receptance": "r", "output": "o"}
    weights |= {f"{theirs}.weight": v[f"W_{ours}"] for theirs, ours in names.items()}
    names = ("last$x", "a", "b", "p")
    state = [None, *(Held(v[name]) for name in names)]  # none for channel mixing
    series, state = torch_call(RWKV, weights, v["x"].transpose(0, 1), state, use_cache=True)
    finals = {name: held.value for name, held in zip(names, state[1:], strict=True)}
    return {"h": series.transpose(0, 1)}, finals


def rg_lru(v: Arrays) -> tuple[Arrays, Arrays]:
    """Not at the beginning of a text."""
    weights = {
        "recurrent_param": -v["Λ"],
        "recurrent_gate_weight": v["W_a"].T[None],
        "recurrent_gate_bias": v["b_a"][None],
        "input_gate_weight": v["W_x"].T[None],
        "input_gate_bias": v["b_x"][None],
    }
    RGLRU.recurrent_states = v["h"]
    x = v["x"].transpose(0, 1)
    series = torch_call(RGLRU, weights, x, torch.ones(x.shape[:2], dtype=torch.long))
    return {"h": series.transpose(0, 1)}, {"h": RGLRU.recurrent_states}


def main() -> None:
    known = {"side": torch_side, "dtype": "float32"}
    claim = "transformers RwkvSelfAttention"
    some = {"b": (0.5, 1.5)}
    record("rwkv4", "transformers", claim, rwkv4, sizes={"X": 3}, between=some, **known)
    claim = "transformers RecurrentGemmaRglru, behind the first step"
    record("rg_lru", "transformers", claim, rg_lru, **known)


if __name__ == "__main__":
    main()
