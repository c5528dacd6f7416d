"""Syntax tree to Program: roles, sizes, states, definitions, bindings."""

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language.slips import SLIPS

from bptt import cells
from bptt.errors import CellError
from bptt.ir import ops
from bptt.ir.dims import show_dims
from bptt.ir.program import Kind, Program, Role
from bptt.language import canonical
from bptt.language.check import check
from bptt.language.tree import said
from bptt.printers.text import text

RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"


def dims(p: Program) -> dict[str, str]:
    named = {v.name: v.dims for v in p.values} | {e.name: e.rhs.dims for e in p.equations}
    return {name: show_dims(d) for name, d in named.items()}


def refuse(source: str, what: str, **options: dict[str, str]) -> CellError:
    with pytest.raises(CellError) as caught:
        check(source, **options)
    assert what in caught.value.what
    return caught.value


# --- roles ---


def test_roles_states_and_outputs_of_an_lstm() -> None:
    checked = check(cells.read("lstm"))
    p = checked.program
    assert [v.name for v in p.named(Role.GIVEN)] == ["x"]
    assert [v.name for v in p.named(Role.PARAM)][:3] == ["W_i", "U_i", "b_i"]
    assert [s.name for s in p.states] == ["h", "c"]
    assert p.outputs == ("h",)
    assert p.loss is None
    assert {name: e.value for name, e in checked.inits.items()} == {"b_f": 1.0}
    assert p.equation("i").origin == "i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + b_i)"
    assert dims(p)["W_i"] == "(H, X)"
    assert dims(p)["U_o"] == "(H, H)"


def test_outputs_come_first_among_states() -> None:
    source = "a[t] = b[t-1] + x[t]\nb[t] = a[t]*c[t-1]\nc[t] = b[t]\noutput c, b\ninput x: H"
    p = check(source).program
    assert p.outputs == ("c", "b")
    assert [s.name for s in p.states] == ["c", "b"]


def test_an_input_of_the_step_before_is_kept_in_a_state() -> None:
    p = check("z[t] = V @ x[t-1] + W @ x[t]\nh[t] = z[t]*h[t-1]").program
    assert [s.name for s in p.states] == ["h", "last$x"]
    assert p.equation("last$x").rhs is ops.ref("x", 0, ("X",))
    assert p.outputs == ("h",)


def test_starts() -> None:
    source = "state h = h0, m = -1e30, c = 0\nh[t] = W@x[t] + h[t-1]*m[t-1]*c[t-1]\n"
    p = check(source + "m[t] = h[t]\nc[t] = h[t]").program
    starts = {s.name: s.start for s in p.states}
    assert starts == {"h": ops.ref("h0", 0, ("H",)), "m": ops.const(-1e30), "c": None}


def test_constants() -> None:
    source = "const A: (D, D), B: D, dt = 0.042\nu[t] = dot(e, x[t])\nm[t] = A @ m[t-1] + dt*B*u[t]"
    checked = check(source)
    assert checked.consts == {"dt": 0.042}
    assert [v.name for v in checked.program.named(Role.CONST)] == ["A", "B", "dt"]
    assert dims(checked.program)["m"] == "D"


def test_once_static_and_hoisted() -> None:
    p = check(
        "A = W - W.T\nstate h: H\ninput s: S per sequence\ni = sigmoid(V @ s + b)\n"
        "h[t] = tanh(A @ h[t-1] + (W*W) @ h[t-1])*i + U @ x[t]"
    ).program
    kinds = {e.name: e.kind for e in p.equations}
    assert kinds == {"A": Kind.ONCE, "i": Kind.STEP, "once$1": Kind.ONCE, "h": Kind.STEP}
    assert p.value("s").per_sequence
    assert dims(p)["V"] == "(H, S)"


def test_readout_and_loss_come_after_the_cell() -> None:
    p = check(cells.read("shakespeare")).program
    assert [e.name for e in p.equations] == ["i", "f", "e", "c̃", "c", "h", "o", "p", "L"]
    assert p.loss == "L"
    assert p.outputs == ("h",)


# --- sizes ---


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("input x: H\nh[t] = tanh(x[t] + u*h[t-1] + b)", {"u": "H", "b": "H"}),
        (
            "g[t] = sigmoid(dot(w, x[t]) + b)\nh[t] = g[t]*h[t-1] + V@x[t]",
            {"b": "scalar", "w": "X"},
        ),
        ("h[t] = 2*b + V@x[t] + h[t-1]", {"b": "H"}),
        ("h[t] = (1 - a)*(V@x[t]) + a*h[t-1]", {"a": "H"}),
        ("param a: scalar\nh[t] = (1 - a)*(V@x[t]) + a*h[t-1]", {"a": "scalar", "V": "(H, X)"}),
        ("c[t] = V@x[t] + c[t-1]\nh[t] = W @ c[t]\ng[t] = h[t-1]\noutput h", {"h": "H", "c": "C"}),
        ("h[t] = W @ concat(x[t], h[t-1], 1)", {"W": "(H, H + X + 1)"}),
        ("u[t] = W@x[t] + U@h[t-1]\nh[t] = part(u[t], 1, 4)*part(u[t], 2, 4)", {"W": "(4*H, X)"}),
        ("h[t] = v @ W + h[t-1] + B@x[t]\nparam v: K", {"W": "(K, H)"}),
        ("h[t] = x[t] @ W + h[t-1]", {"W": "(X, H)"}),
        (
            "state h: P, c: H\nc[t] = W@x[t] + U@h[t-1]\nh[t] = R @ c[t]",
            {"R": "(P, H)", "U": "(H, P)"},
        ),
        ("h[t] = tanh(W @ u[t] + U @ h[t-1])", {"u": "X"}),
        ("h[t] = tanh(W @ u[t] + V @ x[t] + U @ h[t-1])", {"u": "U", "x": "X"}),
        ("s[t] = s[t-1] + 1", {"s": "scalar"}),
        ("input x: H\nstate s: scalar\ns[t] = s[t-1] + 1\nh[t] = s[t]*x[t]", {"h": "H"}),
        ("h[t] = h[t-1]*sum(W) + W @ x[t]", {"W": "(H, X)"}),
        ("h[t] = outer(u, v) @ h[t-1] + W @ x[t]", {"u": "H", "v": "H", "once$1": "(H, H)"}),
        ("param A: (K, X)\nh[t] = (B @ A) @ x[t] + h[t-1]", {"B": "(H, K)"}),
        ("m[t] = max(W@x[t] + m[t-1], z)\nh[t] = max(m[t])*m[t]", {"z": "H"}),
    ],
)
def test_sizes(source: str, found: dict[str, str]) -> None:
    shown = dims(check(source).program)
    assert {name: shown[name] for name in found} == found


def test_a_number_beside_a_vector_is_filled() -> None:
    p = check("input x: H\nh[t] = (1 - x[t])*h[t-1]").program
    x, h = ops.ref("x", 0, ("H",)), ops.ref("h", 1, ("H",))
    assert p.equation("h").rhs is ops.mul(ops.sub(ops.fill(ops.const(1), ("H",)), x), h)


# --- definitions and functions ---


def test_definitions_are_written_out() -> None:
    gate = "gate(W, U, b) = sigmoid(W @ x[t] + U @ h[t-1] + b)\n"
    macro = check(gate + "i[t] = gate(W_i, U_i, b_i)\nh[t] = i[t]*h[t-1]").program
    plain = check("i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + b_i)\nh[t] = i[t]*h[t-1]").program
    assert text(macro) == text(plain)


def test_nested_doubling_costs_what_it_says() -> None:
    once = "f(v) = v + v\ninput x: H\nh[t] = " + "f(" * 40 + "h[t-1] + x[t]" + ")" * 40
    chain = "".join(f"f{i + 1}(v) = f{i}(v + 1) * f{i}(v + 1)\n" for i in range(40))
    start = time.perf_counter()
    assert len(text(check(once).program)) < 4_000
    assert len(text(check("input x: H\nf0(v) = v\n" + chain + "h[t] = f40(h[t-1] + x[t])").program))
    assert time.perf_counter() - start < 2


def test_unspecified_functions() -> None:
    checked = check(cells.read("sancho"))
    assert checked.functions == {"F": "vector", "G": "scalar"}
    p = checked.program
    assert (p.equation("y").rhs.op, p.equation("y").rhs.attr) == ("call_vector", ("F",))
    assert (p.equation("L").rhs.op, p.equation("L").rhs.attr) == ("call_scalar", ("G",))
    iosif = check(cells.read("iosif")).program.equation("g_ι").rhs
    assert (iosif.op, iosif.attr) == ("call", ("f_ι", 0))


def test_functions_are_bound_by_name_or_definition() -> None:
    bound = {"F": "softmax", "G": "f(a, b) = sum((a - b)**2)/2"}
    source = cells.read("sancho").replace("l[t])", "l[t])\ninput l: Y")
    checked = check(source, functions=bound)
    assert checked.functions == {}
    p = checked.program
    assert p.equation("y").rhs.op == "softmax"
    y, label = ops.ref("y", 0, ("Y",)), ops.ref("l", 0, ("Y",))
    square = ops.power(ops.sub(y, label), 2)
    assert p.equation("L").rhs is ops.div(ops.summed(square), ops.const(2))
    sigmoid = check(cells.read("iosif"), functions={"f_c": "tanh"})
    assert "f_c" not in sigmoid.functions
    assert sigmoid.program.equation("z_c").rhs.op == "tanh"


def test_bindings_are_refused() -> None:
    source = cells.read("sancho")
    assert refuse(source, "no unspecified function `Q`", functions={"Q": "tanh"})
    assert "tanh" in (refuse(source, "unknown function `tahn`", functions={"F": "tahn"}).help or "")
    refuse(source, "`F` takes 2 arguments, not 1", functions={"F": "f(a, b) = a + b"})
    refuse(source, "expected one definition", functions={"F": "f[t] = 2"})


def test_stable_forms_also_through_a_name() -> None:
    source = "o[t] = V@h[t-1]\np[t] = softmax(o[t])\nq[t] = p[t]\nh[t] = W@x[t] + U@log(q[t])\n"
    p = check(source + "k[t] = log(sigmoid(h[t]))\noutput h").program
    o = ops.ref("o", 0, p.dims("o"))
    assert any(n is ops.node("log_softmax", o) for n in p.equation("h").rhs.args[1].args)
    assert p.equation("k").rhs is ops.node("logsigmoid", ops.ref("h", 0, ("H",)))
    assert p.equation("p").rhs.op == "softmax"


def test_cross_entropy() -> None:
    source = RNN + "loss:\nL[t] = cross_entropy(V@h[t], y[t])"
    p = check(source).program
    y = ops.ref("y", 0, ("Y",))
    o = ops.matmul(ops.ref("V", 0, ("Y", "H")), ops.ref("h", 0, ("H",)))
    assert p.equation("L").rhs is ops.neg(ops.dot(y, ops.node("log_softmax", o)))


# --- whatever the bytes ---

WORDS = (
    "h[t] h[t-1] c[t-1] x[t] W U b k = + - * / ** @ ( ) , . .T tanh( f( sum( dot( concat( max("
    " part(v, 1, 2) 1 2 0.5 1e9 h c input param state const init output function : H X 4*H (H, X)"
    " scalar loss: readout: per sequence mean( softmax( log( outer( σ( # $ [t+1] [ ] ' \\ é ²"
    " f(v) g(v, w) cross_entropy("
).split()
lines = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
texts = st.one_of(
    st.lists(st.one_of(lines, st.sampled_from(RNN.split("\n"))), max_size=8).map("\n".join),
    st.text(max_size=60),
    st.tuples(
        st.sampled_from(list(SLIPS.values())), st.integers(0, 80), st.sampled_from(WORDS)
    ).map(lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] :]),
)


@settings(max_examples=300, deadline=2_000)
@given(texts)
def test_whatever_the_text_the_answer_is_a_program_or_a_cell_error(source: str) -> None:
    assert outcome(source)


def outcome(source: str) -> str:
    try:
        return text(check(source).program)
    except CellError as error:
        return str(error)


def test_the_language_is_cheap_to_import() -> None:
    code = "import sys, bptt.language.check\nprint(sorted({'torch', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Typed from the paper on xLSTM (its equations 8 to 17), with its signs, tildes and primes.
SLSTM = """\
z̃[t] = W_z @ x[t] + R_z @ h[t-1] + b_z
ĩ[t] = W_i @ x[t] + R_i @ h[t-1] + b_i
f̃[t] = W_f @ x[t] + R_f @ h[t-1] + b_f
õ[t] = W_o @ x[t] + R_o @ h[t-1] + b_o
f[t] = σ(f̃[t])
m[t] = max(log(f[t]) + m[t-1], ĩ[t])
i′[t] = exp(ĩ[t] − m[t])
f′[t] = exp(log(f[t]) + m[t-1] − m[t])
c[t] = f′[t] ⊙ c[t-1] + i′[t] ⊙ tanh(z̃[t])
n[t] = f′[t] ⊙ n[t-1] + i′[t]
h̃[t] = c[t] / n[t]
h[t] = σ(õ[t]) ⊙ h̃[t]
"""


def test_primes_stand_in_the_names_of_values_over_time() -> None:
    p = check(SLSTM).program
    assert {"iʹ", "fʹ", "ĩ", "f̃"} <= {e.name for e in p.equations}
    assert check(SLSTM.replace("′", "'")).program.equations[4].rhs is p.equations[4].rhs
    twice = check("h''[t] = tanh(W @ x[t] + h''[t-1])\nh'[t] = h''[t] + h'[t-1]\n").program
    assert [e.name for e in twice.equations] == ["hʹʹ", "hʹ"]
    read = canonical.read(text(p))
    assert [e.rhs for e in read.equations] == [e.rhs for e in p.equations]


def test_the_place_of_an_error_behind_a_prime() -> None:
    with pytest.raises(CellError) as caught:
        check("h''[t] = tanh(W @ x[t] + h''[t-1] + c[t-3])\n")
    assert caught.value.span is not None
    assert said(caught.value.span) == "c[t-3]"


def test_a_readout_that_is_the_output_leaves_the_state_its_size() -> None:
    p = check("h[t] = tanh(W @ x[t] + U @ h[t-1])\ny[t] = V @ h[t]\n").program
    assert {k: v for k, v in dims(p).items() if k in "hyV"} == {"h": "H", "y": "Y", "V": "(Y, H)"}
