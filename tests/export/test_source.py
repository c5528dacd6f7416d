"""One C file a layer: compiled strictly, it gives what the layer gives."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import layers
import numpy as np
import pytest
import torch
from plain_c import library, pointer
from tolerances import EXPORTED
from torch import Tensor

from bptt import cells
from bptt.cell import Cell
from bptt.errors import UserError
from bptt.export import c99
from bptt.export.source import source
from bptt.nn import GRU, LSTM, RNN, Recurrent, use_backend
from bptt.tasks.config import Config
from bptt.tasks.model import CharModel

STEPS = 4
DEEP = ("lstm", "gru", "layernorm_lstm", "lmu", "qrnn")  # two layers of them, also
GREEK = """
state größe = 0.25
größe[t] = tanh(Wß @ x[t] + β * größe[t-1]) + 0.1*größe[t-1]
ψ[t] = softmax(größe[t])
output ψ, größe
"""


def noisy() -> Recurrent:
    """With what acts in training only, and initial states of its own."""
    layer = Recurrent("lstm", 3, 5, zoneout=0.3, recurrent_dropout=0.2, learn_initial=True)
    for name in ("h0", "c0"):
        torch.nn.init.normal_(layer.get_parameter(name))
    return layer


OTHERS = {
    "own": lambda: Recurrent(Cell(GREEK, name="größe"), 3, 5),
    "torch": lambda: LSTM(3, 5, num_layers=2, bias=False),
    "projected": lambda: LSTM(3, 5, proj_size=2),
    "gru": lambda: GRU(3, 5, num_layers=2),
    "rnn": lambda: RNN(3, 5, nonlinearity="relu"),
    "noisy": noisy,
}


def assert_near(got: Any, want: Tensor, what: str) -> None:
    wanted = want.detach().double().numpy().reshape(-1)
    scale = max(1.0, np.abs(wanted).max())
    assert np.abs(np.asarray(got).reshape(-1) - wanted).max() <= EXPORTED["float"] * scale, what


def exported(model: torch.nn.Module, name: str) -> str:
    return source(model.float(), name)


def held(found: Any, name: str, count: int) -> np.ndarray[Any, Any]:
    """Memory for a state of `count` numbers, as `init` leaves it, and guards behind it."""
    memory = np.full(count + 8, np.nan, np.float32)
    getattr(found, f"{name}_init")(pointer(memory))
    assert np.isnan(memory[count:]).all(), "init writes beyond the state"
    assert not np.isnan(memory[:count]).any(), "init leaves numbers out"
    return memory


def assert_runs(found: Any, name: str, layer: Any, x: Tensor, others: dict[str, Tensor]) -> None:
    """Step by step in C, what the layer gives for all steps; then its states."""
    with torch.no_grad(), use_backend("reference"):  # which compiles nothing
        wanted, states = layer.eval()(x, **others)
    states = [states] if isinstance(states, Tensor) else states
    own = getattr(layer, "_widths", None) or [[s.shape[-1] for s in states]] * layer.num_layers
    memory = held(found, name, sum(map(sum, own)))
    step = getattr(found, f"{name}_step")
    y = np.full(wanted.shape[-1] + 1, np.nan, np.float32)
    for t in range(len(x)):
        given = [x[t, 0], *(o[t, 0] if o.dim() == 3 else o[0] for o in others.values())]
        arrays = [a.numpy().astype(np.float32) for a in given]
        step(pointer(memory), *map(pointer, (*arrays, y)))
        assert_near(y[:-1], wanted[t, 0], f"{name} at {t}")
    assert np.isnan(y[-1]), "step writes beyond y"
    at = 0
    for k, widths in enumerate(own):
        for state, width in zip(states, widths, strict=True):
            assert_near(memory[at : at + width], state[k, 0, :width], f"{name}: a state")
            at += width


@pytest.fixture(scope="module")
def library_of_cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """Every cell of the library as a layer, and all in C through one call of the compiler."""
    made = {f"c_{name}": layers.made(name) for name in cells.names()}
    made |= {f"d_{name}": layers.made(name, num_layers=2) for name in DEEP}
    made |= {name: make() for name, make in OTHERS.items()}
    texts = [exported(layer, name.replace("__", "_")) for name, layer in made.items()]
    return library("\n".join(texts), tmp_path_factory.mktemp("cells")), made


@pytest.mark.parametrize(
    "name", [*(f"c_{n}" for n in cells.names()), *(f"d_{n}" for n in DEEP), *OTHERS]
)
def test_steps_in_c_are_the_layers(name: str, library_of_cells: tuple[Any, dict[str, Any]]) -> None:
    found, made = library_of_cells
    layer = made[name]
    torch.manual_seed(1)
    if isinstance(layer, Recurrent) and name[:2] in ("c_", "d_"):
        x, others = layers.given(layer, STEPS, 1)
    else:
        x, others = torch.randn(STEPS, 1, 3), {}
    others = {n: o.float() for n, o in others.items()}
    assert_runs(found, name, layer, x.float(), others)


def char_model(layers: int = 2) -> CharModel:
    torch.manual_seed(0)
    config = Config(hidden=7, layers=layers, embedding=3, dropout=0.5)
    return CharModel("peephole", 5, config).eval()


def test_a_language_model(tmp_path: Path) -> None:
    model = char_model()
    codes = torch.tensor([3, 0, 4, 4, 1])
    found = library(source(model, symbols="ab\ncé"), tmp_path)
    with torch.no_grad():
        wanted, _ = model(codes[:, None])
    memory = held(found, "bptt", 2 * 2 * 7)
    y = np.full(6, np.nan, np.float32)
    for t, code in enumerate(codes.tolist()):
        assert found.bptt_step(pointer(memory), code, pointer(y)) == 0
        assert_near(y[:5], wanted[t, 0], f"step {t}")
    before = memory.copy(), y.copy()
    for wrong in (-1, 5, 1 << 30):
        assert found.bptt_step(pointer(memory), wrong, pointer(y)) == -1
    assert np.array_equal(before[0], memory, equal_nan=True)
    assert np.array_equal(before[1], y, equal_nan=True)
    symbols = (ctypes.c_long * 5).in_dll(found, "bptt_symbols")
    assert "".join(map(chr, symbols)) == "ab\ncé"


def test_double_precision(tmp_path: Path) -> None:
    layer = Recurrent("gru", 3, 5).double()
    found = library(source(layer), tmp_path)
    x, y, memory = torch.randn(1, 1, 3, dtype=torch.float64), np.zeros(5), np.zeros(5)
    found.bptt_init(pointer(memory))
    found.bptt_step(pointer(memory), pointer(x.numpy()), pointer(y))
    wanted = layer(x)[0].detach().numpy().reshape(-1)
    assert np.abs(y - wanted).max() <= EXPORTED["double"]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "voice.c"
    c99(LSTM(2, 3), path, name="voice")
    text = path.read_text(encoding="ascii")
    assert "voice_step(voice_state *s, const float *x, float *y);" in text
    assert "of the cell lstm" in text
    broken = LSTM(2, 3)
    torch.nn.init.constant_(broken.weight_hh_l0, torch.nan)
    with pytest.raises(UserError, match="a weight is not a number"):
        c99(broken, path)
    assert path.read_text(encoding="ascii") == text
    with pytest.raises(UserError, match=r"cannot write .*nowhere"):
        c99(LSTM(2, 3), tmp_path / "nowhere" / "voice.c")
    assert [p.name for p in tmp_path.iterdir()] == ["voice.c"]


@pytest.mark.parametrize(
    ("model", "name", "what"),
    [
        (lambda: LSTM(2, 3, bidirectional=True), "bptt", "two directions"),
        (lambda: torch.nn.LSTM(2, 3), "bptt", "LSTM is no layer of bptt"),
        (lambda: LSTM(2, 3, device="meta"), "bptt", "has no weights"),
        (lambda: LSTM(2, 3), "x; int main", "cannot begin the names"),
        (lambda: LSTM(2, 3), "größe", "cannot begin the names"),
        (lambda: LSTM(2, 3), "a__b", "cannot begin the names"),
    ],
)
def test_what_cannot_be_written_is_refused(model: Any, name: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as error:
        source(model(), name)
    assert error.value.help


def test_no_word_of_a_users_is_in_the_file() -> None:
    layer = Recurrent(Cell(GREEK, name="*/ #include <evil.h> /*"), 3, 5)
    text = source(layer)
    assert text.isascii()
    assert "evil" not in text
    assert "a cell of your own" in text
    assert text.count("/*") == text.count("*/")
    renamed = Recurrent(Cell(cells.read("gru"), name="evil"), 3, 5)
    assert "evil" not in source(renamed)


def test_the_head_says_what_it_takes(tmp_path: Path) -> None:
    layer = layers.made("zoneout")
    text = source(layer)
    assert re.search(r"bptt_step\(&s, x, x1(, x2)*, y\)", text)
    declared = library(f"#define BPTT_DECLARE\n{text}", tmp_path)
    assert not hasattr(declared, "bptt_step")
