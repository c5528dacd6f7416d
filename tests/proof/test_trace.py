"""Worked examples: the numbers of the printed lines are the gradients, whatever is given."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from subjects import CORE
from tolerances import BACKEND_SECOND

from bptt import trace as trace_verb
from bptt.calculus.derive import adjoint
from bptt.calculus.lines import copies
from bptt.calculus.readable import By
from bptt.calculus.rewrites import layer
from bptt.cell import Cell
from bptt.errors import UserError
from bptt.ir.ports import At, Port
from bptt.ir.program import Role
from bptt.printers.people.reading import Part, derivation
from bptt.printers.people.worked import Item, Worked
from bptt.proof.sweeps import forward, pull
from bptt.proof.trace import trace

BYS = get_args(By)
RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)"


def example(cell: Cell, by: By = "preactivations", **options: Any) -> Worked:
    return cell.trace(by=by, **options)


def truth(cell: Cell, found: Worked) -> dict[Port, Any]:
    """Values and gradients by the oracle, which knows nothing of what people read."""
    p = cell.bind(cell.stand_ins()).program
    d = derivation(p)
    of = d.of
    given: dict[Port, Any] = {}
    for v in of.values:
        at = At.CONST if v.role is not Role.GIVEN else At.STATIC if v.per_sequence else At.STEPS
        given[Port(v.name, at)] = found.values[v.name]
    given |= {Port(s.name, At.START): found.starts[s.name] for s in of.states}
    values = forward(of, given, found.sizes, found.length)
    if of.loss is not None:
        direct = {Port(of.loss, At.STEPS): np.ones(found.length)}
    else:
        seeds = {seed: port for seed, port in d.seeds.items() if seed.at is not At.FINAL}
        direct = {seed: found.values[port.name] for seed, port in seeds.items()}
    gradients = pull(adjoint(of, {seed.name for seed in direct}), values, direct, found.sizes)[0]
    for s in of.states:  # a parameter that a state starts from
        if s.start is not None and s.start.op == "ref":
            port = Port(s.start.attr[0], At.CONST)
            gradients[port] = gradients[port] + gradients[Port(s.name, At.START)]
    for port, array in values.items():
        if port.at is At.STEPS and port.name in found.values:
            near(port.name, found.values[port.name], array)
    return gradients


def near(name: str, found: Any, true: Any) -> None:
    """Both sum the same products in another order."""
    assert np.shape(found) == np.shape(true), name
    error = np.max(np.abs(found - true), initial=0)
    assert error <= BACKEND_SECOND * max(1.0, np.max(np.abs(true), initial=0)), (name, error)


def assert_gradients(cell: Cell, found: Worked) -> None:
    p = cell.program
    true = truth(cell, found)
    names = {item.line.name: found.spelled(item.line.name) for item in found.back}
    timed = {x: n for x, n in names.items() if x not in found.backward.first}
    lines = {(n.what, n.stem): name for name, n in timed.items() if not n.made}
    first = {n.stem: found.values[x] for x, n in names.items() if x in found.backward.first}
    labels = {v.name for v in p.values} - {v.name for v in layer(p).values} if p.loss else set()
    kept = {copy: of.attr[0] for copy, of in copies(p).items()}
    compared: set[str] = set()
    for port, array in true.items():
        name = kept.get(port.name, port.name)
        match port.at:
            case At.STEPS if ("d", name) in lines:
                by = found.values[lines["d", name]]
                if ("e", name) in lines:
                    by = by + np.concatenate([found.values[lines["e", name]][1:], 0 * by[:1]])
                near(name, by, array)
            case At.START:
                near(name, first[name], array)
            case At.FIRST:
                near(name, found.values[lines["e", name]][0], array)
            case At.CONST | At.STATIC if ("d", name) in lines:
                near(name, found.values[lines["d", name]], array)
            case _:
                assert not np.any(array) or name in labels, port
                continue
        compared.add(name)
    assert len(compared) >= len(found.roles["states"])
    for update in found.updates:
        near(update.name, update.gradient, true[Port(update.name, At.CONST)])
        near(update.name, update.after, update.before - found.rate * update.gradient)


@pytest.mark.parametrize("by", BYS)
def test_the_numbers_of_every_cell_are_its_gradients(cell: str, by: By) -> None:
    assert_gradients(Cell.load(cell), example(Cell.load(cell), by))


@pytest.mark.parametrize("name", CORE)
def test_of_one_step_and_of_five(name: str) -> None:
    for length in (1, 5):
        assert_gradients(Cell.load(name), example(Cell.load(name), length=length, seed=1))


def test_a_wrong_line_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell.load("lstm")
    found = example(cell)
    name = next(i.line.name for i in found.back if found.spelled(i.line.name).text == "d_x")
    wrong = {**found.values, name: found.values[name] * 1.001}
    object.__setattr__(found, "values", wrong)
    with pytest.raises(AssertionError):
        assert_gradients(cell, found)


def test_every_line_has_its_place_value_and_reason() -> None:
    found = example(Cell.load("lstm"), length=3)
    assert [i.t for i in found.steps] == [t for t in range(3) for _ in range(6)]
    timed = [i for i in found.back if i.line.part is Part.STEPS]
    assert [i.t for i in timed] == [t for t in (2, 1, 0) for _ in range(7)]
    reasons = {found.spelled(i.line.name).text: i.reason for i in found.back if i.t != -1}
    outside = "it has a gradient from outside"
    assert reasons["d_c"] == f"read by h[t], and by c[t+1]; {outside}"
    assert reasons["d_h"] == f"read by i[t+1], f[t+1], g[t+1], o[t+1]; {outside}"
    assert reasons["dz_f"] == "inside f[t], which is read by c[t]"
    assert reasons["d_x"] == "read by i[t], f[t], g[t], o[t]"
    assert reasons["d_U_i"] == "read by i[t] at every step"
    (c,) = (i for i in found.back if i.t == -1 and found.spelled(i.line.name).text == "d_c")
    assert (c.reason, c.of, c.readers) == ("read by c[0]", "c", (("c", 1), ("h", 0)))
    assert all(i.reason for i in found.back)
    assert not any(i.reason for i in found.steps)


def test_every_reason_names_what_there_is(cell: str) -> None:
    found = example(Cell.load(cell))
    names = {n.text for n in found.forward.names.values()}
    for item in found.back:
        mentioned = {part.name for part in item.why if not isinstance(part, str)}
        assert mentioned <= names | {n.text for n in found.backward.names.values()}, item.reason
        assert item.reason
        assert {text for text, _ in item.readers} <= names


def split_of(found: Worked, name: str, t: int) -> Item:
    return next(i for i in found.back if found.spelled(i.line.name).text == name and i.t == t)


def test_what_comes_from_the_step_and_from_the_next_add_up() -> None:
    found = example(Cell.load("gru"), length=3)
    seen = 0
    for item in found.back:
        if item.split is not None:
            near(item.line.name, sum(item.split), item.value)
            seen += 1
            assert item.t != 2 or not np.any(item.split[1])
    assert seen >= 3
    assert split_of(found, "d_x", 1).split is None


def test_a_start_that_is_a_parameter_has_a_gradient_and_says_why() -> None:
    cell = Cell("state h = h0\n" + RNN)
    found = example(cell)
    assert_gradients(cell, found)
    (line,) = (i for i in found.back if found.spelled(i.line.name).text == "d_h0")
    assert line.reason == "it is h before the first step"
    assert found.roles["states"] == ("h",)
    with pytest.raises(UserError, match=r"no states, and `h` is given"):
        cell.trace({"states": {"h": [1, 2]}})


def test_an_input_read_one_step_late() -> None:
    cell = Cell("h[t] = tanh(W @ x[t] + V @ x[t-1] + U @ h[t-1])")
    found = example(cell, length=3)
    assert_gradients(cell, found)
    given = cell.trace({"states": {"x": [1, 2], "h": [3]}})
    assert given.starts["x"].tolist() == [1, 2]
    assert given.sizes == {"X": 2, "H": 1}
    assert_gradients(cell, given)


def test_a_value_beyond_the_last_step_need_not_be() -> None:
    """In d_h[t] stands a division by what the next step computes."""
    cell = Cell("input x: H\nr[t] = x[t]**2 + 1\nh[t] = tanh(w * x[t] + u * h[t-1] / r[t])")
    with np.errstate(all="raise"):
        assert_gradients(cell, example(cell))


def test_the_seed_says_what_is_drawn_and_is_said() -> None:
    cell = Cell.load("gru")
    one, same, other = cell.trace(), cell.trace(seed=0), cell.trace(seed=1)
    assert (one.seed, other.seed) == (0, 1)
    assert all(np.array_equal(one.values[n], same.values[n]) for n in one.values)
    assert not np.array_equal(one.values["U_z"], other.values["U_z"])
    assert one.drawn == set(one.roles["inputs"] + one.roles["parameters"] + one.roles["gradients"])
    some = cell.trace({"parameters": {"b_z": [1, 2, 3]}}, seed=0)
    assert some.drawn == one.drawn - {"b_z"}
    assert np.array_equal(some.values["U_z"], one.values["U_z"])
    drawn = np.concatenate([np.ravel(one.values[name]) for name in one.drawn])
    assert np.array_equal(drawn, np.round(drawn, 2))


def test_nothing_drawn_names_no_seed() -> None:
    found = Cell.load("gomez").trace()
    assert (found.seed, found.drawn) == (None, frozenset())
    assert found.rate == 0.1
    assert found.total == pytest.approx(sum(found.values["E"]))
    assert Cell.load("gomez").trace(seed=3).seed == 3


def test_a_cell_of_its_own_text_has_no_example() -> None:
    text = Cell.load("gomez").text.replace("tanh(state[t])", "state[t]")
    assert Cell(text, name="gomez").trace().seed == 0


def test_functions_left_open_are_stood_in_for() -> None:
    found = Cell.load("sancho").trace()
    assert found.functions == Cell.load("sancho").stand_ins()
    bound = Cell.load("iosif").bind({"f_c": "relu"})
    assert "f_c" not in bound.trace().functions


def test_a_constant_is_the_cells_the_files_or_drawn() -> None:
    text = "const A: (H, H), k = 0.5\nh[t] = tanh(A @ h[t-1] + k * x[t])\ninput x: H"
    drawn = Cell(text).trace()
    assert drawn.drawn == {"A", "x", "direct$h"}
    assert drawn.values["k"] == 0.5
    given = Cell(text, consts={"A": np.eye(4)}).trace()
    assert given.sizes == {"H": 4}
    assert np.array_equal(given.values["A"], np.eye(4))
    assert Cell(text).trace({"constants": {"k": 2}}).values["k"] == 2
    filled = Cell("const k: H = 0.5\nh[t] = tanh(k * h[t-1] + W @ x[t])").trace()
    assert filled.values["k"].tolist() == [0.5, 0.5, 0.5]


def test_values_that_lead_nowhere_are_refused() -> None:
    cell = Cell("h[t] = log(x[t]) + h[t-1]\ninput x: H")
    with pytest.raises(UserError, match=r"^error: h is nan at t = 1"):
        cell.trace({"inputs": {"x": [[1], [-1]]}, "gradients": {"h": [[1], [1]]}})
    assert np.isfinite(cell.trace(sizes={"H": 1}).values["h"]).all()
    with pytest.raises(UserError, match="is nan at t = 0"):
        Cell("input x: H\nh[t] = log(-exp(x[t])) + h[t-1]").trace()


def test_what_is_for_no_reader_is_refused() -> None:
    for options in ({"sizes": {"H": 10**6}}, {"length": 1001}, {"length": 0}, {"seed": -1}):
        with pytest.raises(UserError):
            Cell(RNN).trace(**options)
    with pytest.raises(UserError, match="it is preactivations or gates"):
        Cell(RNN).trace(by="hand")


def test_the_verb_takes_a_cell_or_its_name() -> None:
    assert trace_verb("gru", seed=1).values.keys() == Cell.load("gru").trace(seed=1).values.keys()
    p = Cell(RNN).program
    assert trace(p).name == "cell"
