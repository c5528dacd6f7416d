"""Rows: what is compared with what, what is refused, and what is kept for backward."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from faulty import faulty
from tolerances import MUTATION

from bptt.bench import compare as module
from bptt.bench.compare import MEMORY, STEPS, Request, Row, compare
from bptt.bench.memory import kept
from bptt.bench.peak import FMA, MATMUL, TILES
from bptt.bench.problems import STEPPER, How, Problem, draw
from bptt.bench.runner import Effort
from bptt.bench.shapes import Shape
from bptt.bench.sides import PEERS, Ready, Side, Unavailable, ours
from bptt.errors import UserError
from bptt.nn import use_backend

SHAPE = Shape(2, 2, 3, 4)
TWO = Effort(rounds=2)


def rows(**options: object) -> list[Row]:
    asked = {"shapes": [SHAPE], "effort": TWO, **options}
    return [row for group in compare(Request(**asked)) for row in group]  # type: ignore[arg-type]


def test_a_row_has_the_numbers_of_every_round() -> None:
    (row,) = rows(modes=["train"], against=["nn.LSTM"])
    assert (row.cell, row.shape, row.mode, row.against) == ("lstm", SHAPE, "train", "nn.LSTM")
    assert len(row.ours) == len(row.theirs) == len(row.peaks) == 2
    assert min(*row.ours, *row.theirs, *row.peaks) > 0
    assert row.judged == SHAPE.T
    assert row.backend == ours().prepare(draw("lstm", SHAPE), How("infer")).backend
    operations = 3 * 2 * 2 * 2 * (4 * 4) * (3 + 4)
    assert row.work == (operations, operations)
    one, other = sorted(b / a for a, b in zip(row.ours, row.theirs, strict=True))
    assert row.ratio is not None
    assert one < row.ratio.low < row.ratio.median < row.ratio.high < other
    assert row.ratio.n == 2


def test_the_sides_of_a_quick_look_and_of_all() -> None:
    def sides(cell: str, shape: Shape, *, few: bool) -> list[str]:
        request = Request(cells=[cell], few=few)
        peak = module.Peak("none", lambda: 1.0)
        return list(module._Group(request, cell, shape, 1, "infer", draw, peak)._peers())

    step = SHAPE._replace(T=1)
    assert sides("lstm", SHAPE, few=True) == ["nn.LSTM", "eager"]
    assert sides("lstm", step, few=True) == ["nn.LSTM", "nn.LSTMCell", "eager"]
    assert sides("peephole", SHAPE, few=True) == ["nn.LSTM", "eager", "our lstm"]
    assert sides("gru", SHAPE, few=True) == ["nn.LSTM", "our lstm"]
    assert sides("peephole", SHAPE, few=False) == ["nn.LSTM", "eager", "jit", "jax", "our lstm"]


def test_variants_are_compared_with_the_stock_cells_own_numbers() -> None:
    (stock,) = rows(cells=["greff_cifg"], modes=["infer"], against=["our lstm"])
    assert stock.why == ""
    assert (stock.cell, stock.against) == ("greff_cifg", "our lstm")
    assert stock.work == (2 * 4 * 3 * 4 * 7, 2 * 4 * 4 * 4 * 7)


@pytest.fixture
def wrong_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "eager", faulty(PEERS["eager"], "d_U_f", MUTATION))


@pytest.mark.usefixtures("wrong_peer")
def test_a_wrong_gradient_gives_no_numbers() -> None:
    right, red = rows(modes=["train"], against=["nn.LSTM", "eager"])
    assert right.ratio is not None and not right.red
    assert red.red
    assert "d_U_f is off" in red.why
    assert (red.ours, red.theirs, red.peaks, red.ratio) == ((), (), (), None)


@pytest.mark.usefixtures("wrong_peer")
def test_a_wrong_gradient_gives_no_memory_either() -> None:
    (red,) = rows(modes=[MEMORY], against=["eager"])
    assert red.red and red.ratio is None


@pytest.mark.usefixtures("wrong_peer")
def test_what_infers_is_judged_by_what_it_infers() -> None:
    (row,) = rows(modes=["infer"], against=["eager"])
    assert not row.red


def test_where_ours_is_wrong_no_side_has_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = faulty(ours(), "output", MUTATION)
    monkeypatch.setattr(module, "ours", lambda **options: wrong)
    found = rows(modes=["infer"], against=["nn.LSTM", "eager"])
    assert [row.against for row in found] == ["nn.LSTM", "eager"]
    for row in found:
        assert row.red and row.ratio is None
        assert row.why.startswith("ours: output is off")


def test_what_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(problem: Problem, how: How) -> Ready:
        raise Unavailable("it is not there")

    monkeypatch.setitem(PEERS, "jit", Side(missing))
    found = rows(cells=["gru"], modes=["infer"], against=["nn.LSTMCell", "jit", "eager"])
    assert [row.why for row in found] == [
        "it runs one step",
        "it is not there",
        "nobody has written a loop of `gru` by hand",
    ]
    assert not any(row.red or row.ours for row in found)


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        request = Request(shapes=[SHAPE], threads=[1, 2], modes=["infer"], effort=TWO)
        seen = [(torch.get_num_threads(), group[0].threads) for group in compare(request)]
        assert seen == [(1, 1), (2, 2)]
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_memory_is_measured_once_for_all_threads() -> None:
    assert len(rows(threads=[1, 2], modes=[MEMORY], against=["nn.LSTM"])) == 1


def test_cells_that_cannot_run_are_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match="reads `dt` beside its first input"):
        compare(Request(shapes=[SHAPE], cells=["lstm", "gru_ode"]))
    with pytest.raises(UserError, match="has no setting `colour`"):
        compare(Request(shapes=[SHAPE], options={"colour": "red"}))


def test_the_memory_of_the_stock_layer_is_what_it_is() -> None:
    # Input and output, each T*B*64; oneDNN's workspace, of 15 and a bit of the same; states.
    # As measured by the prototype: 6.79 MiB.
    problem = draw("lstm", Shape(100, 16, 64, 64))
    ready = PEERS["nn.LSTM"].prepare(problem, How("train"))
    assert f"{kept(ready) / 2**20:.2f}" == "6.79"


def test_memory_counts_every_storage_once_and_no_parameter() -> None:
    x = torch.ones(8, 16, requires_grad=True)
    weight = torch.ones(16, 16, requires_grad=True)

    def forward() -> list[torch.Tensor]:
        y = (x @ weight).exp()  # keeps x, the weight, and the exponential
        return [y * y[:]]  # keeps it again, twice

    ready = Ready(forward, lambda raw: [], forward, (weight,))
    assert kept(ready) == 4 * (8 * 16 + 8 * 16)


def test_a_peak_is_measured_beside_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter((5.0, 7.0))
    monkeypatch.setattr(module, "probe", lambda threads: module.Peak("none", lambda: next(peaks)))
    (row,) = rows(modes=["infer"], against=["eager"])
    assert row.peaks == (5.0, 7.0)


def test_what_other_programs_took_stands_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watch:
        def foreign(self) -> float:
            return 0.25

    monkeypatch.setattr(module, "Watch", Watch)
    (row,) = rows(modes=["infer"], against=["eager"])
    assert row.foreign == 0.25
    assert row.disturbed


STEP = SHAPE._replace(T=1)


def test_steps_are_compared_with_what_can_take_them() -> None:
    (row,) = rows(shapes=[STEP], modes=[STEPPER])
    assert (row.mode, row.against, row.shape, row.red) == (STEPPER, "nn.LSTMCell", STEP, False)
    assert row.judged == STEPS
    assert row.ratio is not None
    operations = 2 * 2 * (4 * 4) * (3 + 4)
    assert row.work == (operations, operations)
    found = rows(shapes=[STEP], modes=[STEPPER], cells=["peephole"], few=False)
    assert [row.against for row in found if row.ratio] == ["nn.LSTMCell", "our lstm"]
    (eager,) = rows(shapes=[STEP], modes=[STEPPER], against=["eager"])
    assert eager.why == "it has no step that carries its states on"


def test_a_stepper_is_not_for_more_steps() -> None:
    (row,) = rows(modes=[STEPPER])
    assert (row.why, row.red, row.ratio) == ("it runs one step", False, None)
    assert rows(modes=[STEPPER], every=False) == []
    found = rows(shapes=[SHAPE, STEP], modes=["infer", STEPPER], against=["nn.LSTM"], every=False)
    assert [(row.mode, row.shape) for row in found] == [
        ("infer", SHAPE),
        ("infer", STEP),
        (STEPPER, STEP),
    ]


def test_without_compiled_code_there_is_no_stepper() -> None:
    with use_backend("reference"):
        (row,) = rows(shapes=[STEP], modes=[STEPPER])
    assert row.why.startswith("ours: a stepper is compiled code")
    assert not row.red and row.ratio is None


def test_a_wrong_stepper_gives_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = faulty(ours(), "last c", MUTATION)
    monkeypatch.setattr(module, "ours", lambda **options: wrong)
    (row,) = rows(shapes=[STEP], modes=[STEPPER])
    assert row.red and row.why.startswith("ours: last c is off")


def test_what_the_peaks_are_of_stands_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "probe", lambda threads: module.Peak(FMA, lambda: 1e15))
    (row,) = rows(modes=["infer"], against=["nn.LSTM"])
    assert row.probe == FMA
    assert row.most is not None and row.most > 1


PLAIN = Row(
    "lstm", SHAPE, 1, "infer", "nn.LSTM", (0.5,) * 3, (1.0,) * 3, (4e9, 8e9, 5e9), (10**9, 10**9)
)


@pytest.mark.parametrize("probe", [FMA, TILES])
def test_the_most_is_what_the_same_work_takes_at_the_peak(probe: str) -> None:
    # Theirs does 1 GFLOP/s of 5 in the middle round; ours 2.
    row = replace(PLAIN, probe=probe)
    assert row.parts == (0.4, 0.2)
    assert row.most == 5.0


@pytest.mark.parametrize(
    "change",
    [
        {"probe": MATMUL},  # a layer may beat torch's own product
        {"probe": ""},
        {"peaks": ()},
        {"work": (10**9, 2 * 10**9)},
        {"peaks": (1e9, 1e9, 1e9)},  # ours above the peak: it was disturbed
    ],
)
def test_where_the_peak_says_nothing_there_is_no_most(change: dict[str, object]) -> None:
    assert replace(PLAIN, **{"probe": FMA, **change}).most is None  # type: ignore[arg-type]
