"""Which backend runs a layer, and what it says of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import bptt.nn
from bptt.errors import UserError
from bptt.nn import LSTM, Recurrent
from bptt.nn.backend import choice


def test_what_runs_what() -> None:
    layer = Recurrent("gru", 3, 4)
    assert layer.backend == "cpu"
    assert layer.double().backend == "cpu"
    assert layer.to(torch.bfloat16).backend == "reference"
    assert "bfloat16 on cpu" in str(choice(list(layer.parameters())))
    mixed = [torch.zeros(1), torch.zeros(1, dtype=torch.float64)]
    assert choice(mixed).name == "reference" and "float32" in choice(mixed).why
    assert choice([torch.zeros(1, device="meta")]).name == "reference"


def test_the_choice_is_kept_within_and_given_back() -> None:
    layer = LSTM(3, 4)
    with bptt.nn.use_backend("reference"):
        assert layer.backend == "reference"
        assert "use_backend" in layer.explain().splitlines()[0]
        with bptt.nn.use_backend("cpu"):
            assert layer.backend == "cpu"
        assert layer.backend == "reference"
    assert layer.backend == "cpu"
    bptt.nn.set_backend("reference")
    try:
        assert layer.backend == "reference"
    finally:
        bptt.nn.set_backend("auto")
    with pytest.raises(UserError, match="no backend `gpu`"):
        bptt.nn.set_backend("gpu")


def test_what_is_chosen_and_cannot_run_is_an_error() -> None:
    layer = LSTM(3, 4).to(torch.bfloat16)
    x = torch.zeros(2, 1, 3, dtype=torch.bfloat16)
    assert layer(x)[0].dtype is torch.bfloat16
    with bptt.nn.use_backend("cpu"), pytest.raises(UserError, match="float32 or float64"):
        layer(x)


def test_the_environment_chooses(tmp_path: object) -> None:
    code = "import bptt.nn; print(bptt.nn.LSTM(3, 4).backend)"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "BPTT_BACKEND": "reference"}
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "reference"


def test_without_a_compiler_there_is_an_error_and_a_way_on(tmp_path: object) -> None:
    code = (
        "import sys, torch, bptt.nn\n"
        "sys.modules['ziglang'] = None\n"  # the one that tests install
        "layer, x = bptt.nn.LSTM(3, 4), torch.zeros(2, 1, 3)\n"
        "try:\n    layer(x)\n"
        "except bptt.errors.UserError as error:\n    print(error)\n"
        "with bptt.nn.use_backend('reference'):\n    print(layer(x)[0].shape)\n"
    )
    env = {**os.environ, "PATH": "/nowhere", "BPTT_CACHE": str(tmp_path)}
    env.pop("CC", None)
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert "reference" in shown and "torch.Size([2, 1, 4])" in shown


def test_explain_says_what_runs() -> None:
    shown = Recurrent("gru_cho", 3, 4).explain()
    words = ("backend", "compiler", "threads", "cache", "keep       all", "forward", "backward")
    for word in words:
        assert word in shown
    assert "the loop, one step after the other: 2 phases" in shown
