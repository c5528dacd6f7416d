"""Every op has a spelling in C, and it means what the oracle says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from one_op import ELEMENTWISE, OTHERS, H, X, in_the_loop, step, values_of
from shapes import Shape, draw, expected
from sweeps_of import sweep
from tolerances import BACKEND

from bptt.backends.cpu import execute
from bptt.calculus.schedule import schedule
from bptt.errors import BpttError, UserError
from bptt.ir.ops import intern, node
from bptt.ir.ports import inputs, outputs
from bptt.ir.program import Equation, Kind, Node, Program
from bptt.printers.c import print_c
from bptt.printers.c.bodies import Body, Names
from bptt.printers.c.phases import Step


def assert_oracle(p: Program, rng: np.random.Generator) -> None:
    shape = Shape(3, 2, (4, 4, 4))
    given = draw(p, shape, rng)
    got = execute(p, [given[port] for port in inputs(p)])
    want = expected(p, shape, given)
    for port, a in zip(outputs(p), got, strict=True):
        scale = max(1.0, np.abs(want[port]).max())
        assert np.abs(a - want[port]).max() <= BACKEND["float64"] * scale, port.name


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_elementwise_ops(op: str, rng: np.random.Generator) -> None:
    assert_oracle(step(values_of(op), looped=False), rng)
    assert_oracle(in_the_loop(op), rng)


@pytest.mark.parametrize("value", OTHERS, ids=lambda n: n.op)
def test_other_ops(value: Node, rng: np.random.Generator) -> None:
    assert_oracle(step(value, looped=False), rng)


def test_what_cannot_be_spelled_is_an_error() -> None:
    p = step(node("call", X, attr=("f_c", 0)), looped=True)
    with pytest.raises(UserError, match="`f_c` is not specified"):
        print_c(schedule(p))
    odd = Step(H, body=[Equation("v", Kind.STEP, intern("twist", (X,), (), H))])
    with pytest.raises(BpttError, match="`twist` has no spelling"):
        Body(odd, Names(lambda *_: 0, lambda _: 0, lambda _: 0)).source()


@pytest.mark.parametrize("cell", ["lstm", "iosif", "layernorm_lstm"])
def test_no_word_of_a_users_is_in_the_code(cell: str) -> None:
    """Words of ours and of C only: names are the author's, and stay with the Plan."""
    p = sweep(cell, "backward")
    source = print_c(schedule(p)).source
    assert source == print_c(schedule(p)).source  # and printing is deterministic
    assert source.isascii()
    words = set(re.findall(r"[A-Za-z_]+", re.sub(r"0x[0-9a-fp.+-]+", "", source)))
    names = {v.name for v in p.values} | {e.name for e in p.equations}
    assert not {name for name in names if len(name) > 1} & words


@pytest.mark.parametrize(
    ("cell", "order", "there"),
    [
        ("lstm", "forward", True),
        ("deep_transition_rnn", "forward", True),  # in the first of several phases
        ("lstm", "backward", False),  # nothing comes before the loop
        ("gru", "forward", False),  # one of the input's products is read, not added
        ("layernorm_lstm", "forward", False),  # the input's products are normalised first
    ],
)
def test_where_the_loop_can_take_in_what_comes_before_it(
    cell: str, order: str, there: bool
) -> None:
    plan = schedule(sweep(cell, order))
    source = print_c(plan).source
    joined = re.search(r"\.joined = (-?\d+)", source)
    assert joined is not None
    assert (int(joined[1]) >= 0) is there


def test_what_is_printed_does_not_depend_on_the_process() -> None:
    """Or nothing would be found in the cache. Python orders sets of words anew in each process."""
    code = (
        "from bptt.calculus.schedule import schedule; from bptt.printers.c import print_c\n"
        "from sweeps_of import sweep\n"
        "for cell in ('lstm', 'lem', 'slstm', 'layernorm_lstm'):\n"
        "    for order in ('forward', 'backward', 'ahead'):\n"
        "        print(print_c(schedule(sweep(cell, order))).source)\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in "13"
    ]
    assert printed[0] and printed[0] == printed[1]
