"""Programs that were written for `nn.LSTM`: one line is changed, and the losses are the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tolerances import SAME_PROGRAM

import bptt.nn

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
THE_LINE, OURS = "from torch.nn import LSTM\n", "from bptt.nn import LSTM\n"
programs = pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)


def losses(text: str, **known: Any) -> torch.Tensor:
    """What a program's text leaves in `losses`."""
    names = dict(known)
    exec(compile(text, "program", "exec"), names)
    return torch.tensor(names["losses"], dtype=torch.float64)


@programs
def test_one_line_is_changed_and_the_losses_are_the_same(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(THE_LINE) == 1
    theirs, ours = losses(text), losses(text.replace(THE_LINE, OURS))
    assert len(theirs) > 5 and len(set(theirs.tolist())) == len(theirs)
    assert (ours - theirs).abs().max() <= SAME_PROGRAM


@programs
def test_another_number_would_show(path: Path) -> None:
    """A layer whose output is off by a millionth part."""

    class Off(bptt.nn.LSTM):
        def forward(self, *given: Any) -> Any:
            output, states = super().forward(*given)
            if isinstance(output, torch.Tensor):
                return output * (1 + 1e-6), states
            return output._replace(data=output.data * (1 + 1e-6)), states

    text = path.read_text(encoding="utf-8")
    other = text.replace(THE_LINE, "LSTM = given.LSTM\n")
    off = losses(other, given=SimpleNamespace(LSTM=Off))
    assert (off - losses(text)).abs().max() > SAME_PROGRAM
