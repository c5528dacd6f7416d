"""docs/compatibility.md: options of layers, and what torch can do with each. Each field is run.

`BPTT_UPDATE_GOLDEN=1 pytest tests/nn/test_compatibility.py` writes the page anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
import torch
from nn import borrowed
from nn.options import COLUMNS, NO_TWIN, ROWS, Row, gap
from tolerances import AUTOCAST, AUTOCAST_GRADIENT, AUTOCAST_STATE

PAGE = Path(__file__).parent.parent.parent / "docs" / "compatibility.md"
PROGRAMS = Path(__file__).parent / "programs"
pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of its own tools


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.text)
def test_a_field_is_as_the_page_says(row: Row, column: str) -> None:
    known = gap(row, column)
    if known is NO_TWIN:
        return
    try:
        COLUMNS[column](row)
    except Exception as error:
        if known is None or known.said not in str(error):
            raise
    else:
        assert known is None, "it works now"
    finally:
        torch._dynamo.reset()


def test_the_page_says_what_is_tested() -> None:
    text = "\n".join(_page()) + "\n"
    if os.environ.get("BPTT_UPDATE_GOLDEN"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, f"BPTT_UPDATE_GOLDEN=1 writes {PAGE.name}"


# --- the page -------------------------------------------------------------------------------------

HEAD = """\
# What works with what

`bptt.nn.LSTM` stands in for `torch.nn.LSTM`. One line of a program changes; weights are the same:

```python
import torch
from bptt.nn import LSTM  # it was: from torch.nn import LSTM

layer = LSTM(8, 16, num_layers=2, bidirectional=True)
trained = torch.nn.LSTM(8, 16, num_layers=2, bidirectional=True)
layer.load_state_dict(trained.state_dict())

x = torch.randn(30, 4, 8)
assert torch.allclose(layer(x)[0], trained(x)[0], atol=1e-6)
```

This page is written by the tests, which run every field of its tables.

## Options, and what PyTorch does with them

- *Equal to torch's*: values and all gradients, to 1e-10 in float64.
- *gradcheck*, *gradgradcheck*: first and second derivatives by all inputs and parameters, against
  differences.
- *Forward mode*: `torch.autograd.forward_ad`, and what `torch.func.jvp` builds on.
- *vmap*: the gradients of several models, each on its own input, in one call.
- *Compile*: `torch.compile(fullgraph=True)`, in training: values and gradients are the same.
- *Export*: `torch.export` for any length and batch: values and gradients are the same at others.
"""

LIMITS = """\
## What cannot be had

- **A second derivative through `torch.compile`.** torch compiles a backward pass that has no
  derivative, whatever is compiled, and says so when one is asked for. `torch.func.grad` *inside*
  the compiled function gives any order.
- **`keep="sqrt"` and `torch.func` within `torch.compile`, in one graph for every length.** Such a
  function is compiled anew for each length. A layer that is trained in the usual way is not.
- **`vmap` over ragged batches that differ in their lengths.** They share one list of lengths.
- **`pad_packed_sequence` in an exported graph.** torch does not know how long the longest sequence
  will be. What stands before it can be exported: the last states, and the outputs as packed data.
- **`isinstance(layer, nn.LSTM)`.** `torch.compile` breaks its graph at whatever is an `nn.LSTM`, so
  our layers are none. Ask for `nn.RNNBase`: torch's three layers and ours are that.
- **`torch.jit.script`.** It refuses what is called with arguments by name only. `torch.jit.trace`
  and `torch.export` take the layers.
- **Quantization by `torch.ao`.** It knows torch's layers by their type, and leaves ours as they
  are. Where it is told to quantize ours, an error says so.
"""

MIXED = """\
## Mixed precision

Under `torch.autocast` the recurrence runs in float32, and the output is given in the type that
autocast asks for. At 1,000 steps each error is at most this part of its tensor's largest entry:
"""

BORROWED = """\
## torch's own inputs

torch ships what it tests `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells with: options, inputs, and
wrong ones. They run through ours. There is no class for a cell in `bptt.nn`: one step of the layer
stands for it, with the cell's weights. torch's tests themselves do not come with it: those that are
named here are written anew.
"""

SWAPPED = """\
## Programs

Programs that were written for `nn.LSTM` run with one line changed, and have the same losses to 1e-9
in float64:
"""


def _page() -> Iterator[str]:
    yield HEAD
    yield from _table()
    yield LIMITS
    yield from _precision()
    yield from _borrowed()
    yield SWAPPED
    yield "| program | what it does |"
    yield "|---|---|"
    for path in sorted(PROGRAMS.glob("*.py")):
        about = path.read_text(encoding="utf-8").split('"""')[1]
        yield f"| [{path.stem}](../tests/nn/programs/{path.name}) | {about} |"


def _table() -> Iterator[str]:
    reasons: list[str] = []

    def field(row: Row, column: str) -> str:
        known = gap(row, column)
        if known is None:
            return "yes"
        if known.why not in reasons:
            reasons.append(known.why)
        return f"({reasons.index(known.why) + 1})"

    yield f"| | {' | '.join(COLUMNS)} |"
    yield "|---" * (1 + len(COLUMNS)) + "|"
    for row in ROWS:
        fields = [field(row, column) for column in COLUMNS]
        yield f"| {row.text} | {' | '.join(fields)} |"
    yield ""
    yield from (f"{k}. {reason[0].upper()}{reason[1:]}." for k, reason in enumerate(reasons, 1))
    yield ""


def _precision() -> Iterator[str]:
    yield MIXED
    yield "| | output | last states | gradients |"
    yield "|---|---|---|---|"
    for kind, output in AUTOCAST.items():
        gradient = AUTOCAST_GRADIENT[kind]
        yield f"| {kind} | {output:.1e} | {AUTOCAST_STATE:.0e} | {gradient:.1e} |"
    yield ""


def _borrowed() -> Iterator[str]:
    yield BORROWED
    yield "| torch's test | what is run here | of |"
    yield "|---|---|---|"
    kinds = ", ".join(borrowed.LAYERS)
    for name, what in borrowed.CHECKS.items():
        of = f"{kinds}, and their cells" if name in borrowed.OF_CELLS else kinds
        yield f"| `{name}` | {what} | {of} |"
    yield ""
    yield "What is skipped:"
    yield ""
    yield "| torch's test | of | why |"
    yield "|---|---|---|"
    for (of, why), rows in groupby(borrowed.SKIPPED, lambda row: row[1:]):
        yield f"| {', '.join(f'`{name}`' for name, _, _ in rows)} | {of} | {why} |"
    yield ""
