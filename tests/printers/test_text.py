"""Programs to canonical text and back to the same nodes."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import PROGRAMS

from bptt import cells
from bptt.calculus.derive import derive
from bptt.calculus.tangent import jvp
from bptt.errors import BpttError, CellError
from bptt.ir import ops
from bptt.ir.dims import Dims
from bptt.ir.ops import OPS, node, ref
from bptt.ir.program import Emit, Equation, Kind, Node, Program, Role, State, Value
from bptt.language.canonical import read
from bptt.language.check import check
from bptt.printers.expr import Infix
from bptt.printers.text import text

H: Dims = ("H",)
X: Dims = ("X",)
HX: Dims = ("H", "X")
HH: Dims = ("H", "H")
# Everything a cell leaves open, bound so that it can be derived twice.
BOUND = {
    "sancho": {"F": "softmax", "G": "f(a, b) = sum(a)*sum(b**2)"},
    "iosif": dict.fromkeys(("f_ι", "f_φ", "f_ω", "f_c", "f_h"), "tanh"),
    "jimenez": {"f": "f(a, b) = sum(a)*sum(b**2)"},
}


def assert_same(p: Program, q: Program) -> None:
    fields = ("dir", "values", "states", "outputs", "emits", "loss")
    for name in fields:
        assert getattr(p, name) == getattr(q, name), name
    assert [(e.name, e.kind) for e in p.equations] == [(e.name, e.kind) for e in q.equations]
    for e, f in zip(p.equations, q.equations, strict=True):
        assert e.rhs is f.rhs, e.name


def round_trip(p: Program) -> str:
    printed = text(p)
    assert_same(p, read(printed))
    assert text(read(printed)) == printed
    return printed


# --- the cells, forward, backward and so on ---


@pytest.mark.parametrize("name", cells.names())
def test_cells_forward_and_derived(name: str) -> None:
    p = check(cells.read(name), functions=BOUND.get(name)).program
    round_trip(p)
    round_trip(jvp(p).program)
    for _ in range(2):
        p = derive(p)
        round_trip(p)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_no_text_made(name: str) -> None:
    round_trip(PROGRAMS[name]())


@pytest.mark.parametrize("name", sorted(BOUND))
def test_unspecified_functions_and_their_derivatives(name: str) -> None:
    p = check(cells.read(name)).program
    round_trip(p)
    assert round_trip(derive(p))


def test_it_reads_as_a_person_writes() -> None:
    printed = text(check(cells.read("rnn")).program)
    assert printed == (
        "input x: X\nparam W: (H, X), U: (H, H), b: H\nstate h: H\noutput h\n"
        "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"
    )
    backward = text(derive(check(cells.read("rnn")).program))
    assert backward.startswith("sweep descending\n")
    assert "d_h[t] = direct$h[t] + carry$h[t+1]\n" in backward


def test_equal_texts_are_one_program() -> None:
    p = check(cells.read("lstm")).program
    assert read(text(p)) is read(text(p))


def test_every_part_of_a_program() -> None:
    h, s = ref("h", 1, H), ref("s", 0, X)
    w, half = ref("W", 0, HX), ops.const(0.5)
    p = Program(
        dir=-1,
        values=(
            Value("x", X, Role.GIVEN),
            Value("W", HX, Role.PARAM, per_sequence=True),
            Value("s", X, Role.GIVEN, per_sequence=True),
            Value("k", (), Role.CONST),
            Value("state", ((("H", 1), ("X", 2)),), Role.PARAM),
            Value("A", (3, 4), Role.CONST),
        ),
        equations=(
            Equation("half", Kind.ONCE, ops.mul(w, half)),
            Equation("h", Kind.STEP, ops.add(ops.matmul(w, ops.add(ref("x", -1, X), s)), h)),
            Equation("e$x", Kind.STEP, ops.mul(ref("x", 1, X), s)),
            Equation("d_W", Kind.SUM, node("outer", ref("h", 0, H), ref("x", 1, X))),
            Equation("late", Kind.ONCE, ops.mul(ref("d_W", 0, HX), ref("half", 0, HX))),
            Equation("m", Kind.STEP, ops.dot(ref("h", 0, H), ref("h", 0, H))),
        ),
        states=(State("h", ops.const(-0.25)), State("m", ref("k", 0, ()))),
        outputs=("late", "h"),
        emits=(Emit("x", -1, "e$x"), Emit("s", 0, "e$x")),
        loss="m",
    )
    printed = round_trip(p)
    assert "h[t] = W @ (x[t-1] + s) + h[t+1]\n" in printed
    assert "state h: H = -0.25, m: scalar = k\n" in printed
    assert "emit x[t-1] += e$x\n" in printed


# --- spellings ---

a, b, c = (ref(n, 0, H) for n in "abc")
k, m = (ref(n, 0, ()) for n in "km")
A, B = (ref(n, 0, HH) for n in "AB")


def holder(*roots: Node) -> Program:
    """A Program that has `roots` as its equations."""
    values = [Value(n, H, Role.PARAM) for n in "abc"] + [Value(n, (), Role.PARAM) for n in "km"]
    values += [Value(n, HH, Role.PARAM) for n in "AB"]
    equations = tuple(Equation(f"q{i}", Kind.ONCE, root) for i, root in enumerate(roots))
    return Program(1, tuple(values), equations, (), ())


def spelled(root: Node) -> str:
    return round_trip(holder(root)).splitlines()[-1].removeprefix("q0 = ")


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        (ops.mul(a, ops.mul(b, c)), "a*(b*c)"),
        (ops.mul(ops.mul(a, b), c), "a*b*c"),
        (ops.sub(a, ops.sub(b, c)), "a - (b - c)"),
        (ops.sub(ops.add(a, b), c), "a + b - c"),
        (ops.div(a, ops.mul(b, c)), "a/(b*c)"),
        (ops.mul(ops.add(a, b), c), "(a + b)*c"),
        (ops.neg(ops.mul(a, b)), "-(a*b)"),
        (ops.mul(ops.neg(a), b), "-a*b"),
        (ops.neg(ops.neg(a)), "--a"),
        (ops.power(ops.neg(a), 2), "(-a)**2"),
        (ops.neg(ops.power(a, 2)), "-a**2"),
        (ops.power(ops.power(a, 2), 3), "(a**2)**3"),
        (ops.power(a, -0.5), "a**-0.5"),
        (node("pow", a, attr=((1.0).hex(),)), "a**1"),
        (ops.matmul(ops.transpose(A), ops.mul(a, b)), "A.T @ (a*b)"),
        (ops.mul(ops.matmul(A, a), b), "(A @ a)*b"),
        (ops.matmul(ops.matmul(A, B), a), "A @ B @ a"),
        (ops.matmul(A, ops.matmul(B, a)), "A @ (B @ a)"),
        (ops.transpose(ops.matmul(A, B)), "(A @ B).T"),
        (node("T", node("T", A)), "A.T.T"),
        (ops.sub(ops.const(1), a), "1 - a"),
        (ops.add(k, m), "k + m"),
        (ops.add(ops.fill(k, H), ops.fill(m, H)), "fill(k, H) + m"),
        (ops.fill(k, HH), "fill(k, H, H)"),
        (node("tanh", ops.fill(k, H)), "tanh(fill(k, H))"),
        (node("max", a, ops.fill(ops.const(0), H)), "max(a, 0)"),
        (node("row_max", a), "max(a)"),
        (ops.dot(a, b), "dot(a, b)"),
        (ops.summed(ops.mul(a, ops.fill(k, H))), "sum(a*k)"),
        (ops.summed(ops.mul(A, B)), "sum(A*B)"),
        (ops.mean(a), "mean(a)"),
        (ops.div(ops.summed(a), ops.const(4)), "sum(a)/4"),
        (ops.div(ops.summed(a), ops.size((("H", 4),))), "sum(a)/size(4*H)"),
        (ops.block(a, (0, 1)), "block(a, 0, 1)"),
        (ops.block(A, ("H", (("H", 4),)), (0, "X")), "block(A, H, 4*H, 0, X)"),
        (node("embed", a, attr=(("X", (("H", 1), ("X", 1))),)), "embed(a, X, H + X)"),
        (node("call", a, attr=("f", 0)), "f(a)"),
        (node("call", a, attr=("f", 2)), "f''(a)"),
        (node("call_vector", a, attr=("F",)), "F(a)"),
        (node("call_pull", a, b, attr=("F",)), "pull(F, a, b)"),
        (node("call_scalar", a, k, attr=("G",)), "G(a, k)"),
        (node("call_slope", a, k, attr=("G", 1)), "slope(G, 1, a, k)"),
        (ops.const(1e-05), "1e-05"),
        (ops.const(-0.0), "-0"),
        (ops.const(0.1), "0.1"),
        (ops.const(1e22), "1e+22"),
        (ops.const(float("inf")), "1e999"),
        (ops.concat(a, k, ops.const(1)), "concat(a, k, 1)"),
        (node("outer", a, b), "outer(a, b)"),
        (node("prefer", a, b), "prefer(a, b)"),
        (ops.eye("H"), "eye(H)"),
        (ops.transpose(ops.lower("H")), "lower(H).T"),
        (ops.each("H", 3), "each(H, 3)"),
        (ops.row(A, k), "row(A, k)"),
        (ops.put_row(a, k, "V"), "put_row(a, k, V)"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_spelling(root: Node, expected: str) -> None:
    assert spelled(root) == expected


def test_every_op_has_a_spelling() -> None:
    special = {
        "ref",
        "const",
        "size",
        "pattern",
        "add",
        "sub",
        "mul",
        "div",
        "matmul",
        "neg",
        "pow",
        "T",
        "fill",
    }
    special |= {"row", "put_row"}
    special |= {"block", "embed", "call", "call_vector", "call_pull", "call_scalar", "call_slope"}
    plain = {op for op in OPS if op not in special}
    for op in plain:
        args = (a, b)[: OPS[op].arity or 2]
        assert "(a" in spelled(node(op, *args)), op


def test_a_missing_spelling_is_an_error_by_name() -> None:
    with pytest.raises(BpttError, match="`T` has no spelling in infix notation"):
        Infix({A: "A"}).show(ops.transpose(A))


def test_what_is_no_number_is_refused() -> None:
    p = holder(ops.const(float("nan")))
    with pytest.raises(BpttError, match="no spelling"):
        text(p)


# --- much shared, or deep ---


def test_shared_parts_are_written_once() -> None:
    root = a
    for _ in range(60):
        root = ops.add(root, root)
    assert len(round_trip(holder(root, ops.neg(root)))) < 2_000


def test_deep_and_long_expressions() -> None:
    deep, long = a, a
    for _ in range(1_500):
        deep = node("tanh", deep)
        long = ops.add(long, b)
    round_trip(holder(deep, long))


# --- random ---


numbers = st.sampled_from([k, m, ops.const(1), ops.const(0.5), ops.const(-3), ops.size("H")])
vectors = st.sampled_from([a, b, c, ops.fill(k, H), ops.fill(ops.const(2), H)])
nodes = st.deferred(
    lambda: st.one_of(
        numbers,
        vectors,
        st.tuples(st.sampled_from(("add", "sub", "mul", "div", "max", "prefer")), nodes, nodes).map(
            beside
        ),
        st.tuples(st.sampled_from(("neg", "tanh", "sigmoid", "sign")), nodes).map(
            lambda t: node(t[0], t[1])
        ),
        st.tuples(nodes, st.sampled_from((2.0, -1.0, 0.5, 3.0))).map(lambda t: ops.power(*t)),
        nodes.map(lambda n: ops.summed(n) if n.dims else n),
        nodes.map(lambda n: ops.mean(n) if n.dims else ops.fill(n, H)),
        nodes.map(lambda n: ops.matmul(ops.transpose(A), n) if n.dims else n),
        nodes.map(lambda n: node("softmax", n) if n.dims else n),
        st.tuples(nodes, nodes).map(lambda t: ops.block(ops.concat(*t), (0, "H"))),
    )
)


def beside(parts: tuple[str, Node, Node]) -> Node:
    op, left, right = parts
    dims = max(left.dims, right.dims, key=len)
    return node(op, *(n if n.dims == dims else ops.fill(n, dims) for n in (left, right)))


@settings(max_examples=200, deadline=None)
@given(st.lists(nodes, min_size=1, max_size=4))
def test_random_programs(roots: list[Node]) -> None:
    round_trip(holder(*roots))


# --- text from outside ---


@pytest.mark.parametrize(
    "source",
    [
        "q = a",
        "param a\nq = a",
        "param a: H, b: X\nq = a + b",
        "param a: H\nq[t] = a[t]",
        "param a: H\nq = f(a)",
        "param a: H\nq = size(a, H)",
        "param a: H\nq = block(a)",
        "param a: H\nq = block(a, 1)",
        "param a: H\nq = tanh(a, a)",
        "param a: H\nq = mean(a, 2)",
        "param a: H\nq = a**a",
        "param a: H\nq = a @ a",
        "param a: H\nq = slope(G, 5, a)",
        "param a: H\nq = pull(F, a)",
        "param a: H\nfunction f\nq = f(a, a)",
        "param a: H\nq = fill(a, H)",
        "input x: X\nq = x[t]",
        "input x: X\nemit y += q\nq[t] = x[t]",
        "state h: H\nq = 1",
        "sweep sideways\nq = 1",
        "loss L\nq = 1",
        "output h\nq = 1",
        "q = 1\nq = 1",
        "let a = b",
        "emit 3 += 3",
        "cell:\nq = 1",
        "f(v) = v\nq = 1",
    ],
)
def test_what_is_no_program_is_refused(source: str) -> None:
    with pytest.raises(CellError):
        read(source)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 400), st.integers(0, 40), st.sampled_from(["", "$", "(", "H", "[t+1]", " "]))
def test_damaged_text_is_refused_or_read(start: int, length: int, put: str) -> None:
    whole = text(derive(check(cells.read("rnn")).program))
    with contextlib.suppress(CellError):
        assert isinstance(read(whole[:start] + put + whole[start + length :]), Program)
