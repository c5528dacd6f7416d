"""Every op: its meaning, its derivatives, its size rule, its kinks and its stable form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from itertools import product

import numpy as np
import pytest
from tolerances import DIFFERENCES, OP_DERIVATIVE, OP_VALUE, STEP_SQUARED

from bptt.errors import UserError
from bptt.ir import ops
from bptt.ir.dims import Dims, scale_dim, shape_of
from bptt.ir.ops import OPS, SizeError, const, evaluate, node, pullback, ref, tangent
from bptt.ir.program import Equation, Kind, Node, Program, Role, Value, walk
from bptt.proof.gradcheck import check

SIZES = {"H": 3, "X": 5}
V: Dims = ("H",)
M: Dims = ("H", "X")
LEAVES = {"ref", "const", "size", "pattern"}
UNSPECIFIED = {op for op in OPS if op.startswith("call")}


def arg(name: str, dims: Dims) -> Node:
    return ref(name, 0, dims)


def _elementwise(op: str) -> list[Node]:
    attrs = [(p.hex(),) for p in (2.0, 3.0, -1.0, 0.5, 17.0)] if op == "pow" else [()]
    arity = OPS[op].arity
    assert arity is not None
    return [
        node(op, *(arg("ab"[k], dims) for k in range(arity)), attr=attr)
        for dims in (V, (), M)
        for attr in attrs
    ]


# One or more nodes for every op; an op without one fails the first test.
EXAMPLES: dict[str, list[Node]] = {
    op: _elementwise(op) for op, row in OPS.items() if row.elementwise and op not in UNSPECIFIED
} | {
    "matmul": [
        node("matmul", arg("a", M), arg("b", ("X",))),
        node("matmul", arg("a", M), arg("b", ("X", "H"))),
    ],
    "outer": [node("outer", arg("a", V), arg("b", ("X",)))],
    "T": [node("T", arg("a", M))],
    "sum": [node("sum", arg("a", V)), node("sum", arg("a", M))],
    "fill": [node("fill", arg("a", ()), attr=V), node("fill", arg("a", ()), attr=M)],
    "concat": [node("concat", arg("a", V), arg("b", ()), arg("c", ("X",)))],
    "block": [
        node("block", arg("a", (scale_dim("H", 4),)), attr=((scale_dim("H", 2), "H"),)),
        node("block", arg("a", M), attr=((1, 2), ("H", 1))),
    ],
    "embed": [
        node("embed", arg("a", V), attr=(("H", scale_dim("H", 4)),)),
        node("embed", arg("a", M), attr=((0, "H"), (1, scale_dim("X", 2)))),
    ],
    "row": [node("row", arg("a", M), arg("b", ())), node("row", arg("a", V), arg("b", ()))],
    "put_row": [
        node("put_row", arg("a", ("X",)), arg("b", ()), attr=("H",)),
        node("put_row", arg("a", ()), arg("b", ()), attr=("H",)),
    ],
    "softmax": [node("softmax", arg("a", V))],
    "log_softmax": [node("log_softmax", arg("a", V))],
    "row_max": [node("row_max", arg("a", V))],
}
CASES = [
    pytest.param(n, id=f"{op}-{k}") for op, nodes in EXAMPLES.items() for k, n in enumerate(nodes)
]


def value(root: Node, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """The value of an expression, by name of its references."""
    found: dict[Node, np.ndarray] = {}
    for n in walk(root):
        found[n] = (
            given[n.attr[0]]
            if n.op == "ref"
            else np.asarray(evaluate(n, [found[a] for a in n.args], SIZES))
        )
    return found[root]


def draw(n: Node, rng: np.random.Generator) -> dict[str, np.ndarray]:
    low, high = OPS[n.op].domain
    return {
        a.attr[0]: np.asarray(rng.uniform(low, high, size=shape_of(a.dims, SIZES))) for a in n.args
    }


def error(found: np.ndarray, true: np.ndarray) -> float:
    assert np.shape(found) == np.shape(true)
    return float(np.max(np.abs(found - true)) / max(1.0, np.max(np.abs(true))))


def by_complex_step(f: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
    """d f / d x for a number f."""
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1e-30j
        out[index] = f(moved).imag / 1e-30
    return out


def by_differences(f: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
    out, h = np.zeros(x.shape), 1e-3
    for index in np.ndindex(x.shape):

        def at(k: int, index: tuple[int, ...] = index) -> np.ndarray:
            moved = x.copy()
            moved[index] += k * h
            return f(moved)

        out[index] = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)
    return out


def test_patterns() -> None:
    sizes = {"H": 2}
    assert ops.evaluate(ops.eye("H"), [], sizes).tolist() == [[1, 0], [0, 1]]
    assert ops.evaluate(ops.lower("H"), [], sizes).tolist() == [[1, 0], [1, 1]]
    assert ops.evaluate(ops.each("H", 2), [], sizes).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert ops.each("H", 2).dims == (scale_dim("H", 2), "H")
    assert ops.transpose(ops.eye("H")) is ops.eye("H")


def test_every_op_has_an_example() -> None:
    assert set(EXAMPLES) == set(OPS) - LEAVES - UNSPECIFIED
    assert all(n.op == op for op, nodes in EXAMPLES.items() for n in nodes)


@pytest.mark.parametrize("n", CASES)
def test_the_value_has_the_shape_that_the_size_rule_says(n: Node, rng: np.random.Generator) -> None:
    assert value(n, draw(n, rng)).shape == shape_of(n.dims, SIZES)


@pytest.mark.parametrize("n", CASES)
def test_a_complex_value_has_the_real_value_in_it(n: Node, rng: np.random.Generator) -> None:
    given = draw(n, rng)
    moved = value(n, {name: a + 1e-30j for name, a in given.items()})
    assert error(moved.real, value(n, given)) <= OP_VALUE


@pytest.mark.parametrize("n", CASES)
def test_the_pullback_is_the_derivative(n: Node, rng: np.random.Generator) -> None:
    given = draw(n, rng)
    y, g = arg("y", n.dims), arg("g", n.dims)
    weights = np.asarray(rng.normal(size=shape_of(n.dims, SIZES)))
    known = {**given, "y": value(n, given), "g": weights}
    for a, term in zip(n.args, pullback(n, g, y, n.args), strict=True):
        name = a.attr[0]

        def f(x: np.ndarray, name: str = name) -> np.ndarray:
            return np.sum(weights * value(n, {**given, name: x}))

        ours = value(term, known) if term is not None else np.zeros_like(given[name])
        assert error(ours, by_complex_step(f, given[name])) <= OP_DERIVATIVE
        assert error(ours, by_differences(f, given[name])) <= DIFFERENCES
        assert term is None or term.dims == a.dims


@pytest.mark.parametrize("n", CASES)
def test_the_tangent_is_the_derivative_whatever_moves(n: Node, rng: np.random.Generator) -> None:
    given = draw(n, rng)
    for moving in product((True, False), repeat=len(n.args)):
        ways = {
            f"t_{a.attr[0]}": np.asarray(rng.normal(size=given[a.attr[0]].shape)) * moves
            for a, moves in zip(n.args, moving, strict=True)
        }
        asked = [
            arg(f"t_{a.attr[0]}", a.dims) if moves else None
            for a, moves in zip(n.args, moving, strict=True)
        ]
        found = tangent(n, arg("y", n.dims), asked)
        known = {**given, **ways, "y": value(n, given)}
        ours = value(found, known) if found is not None else np.zeros(shape_of(n.dims, SIZES))
        true = value(n, {name: a + 1e-30j * ways[f"t_{name}"] for name, a in given.items()})
        assert error(ours, true.imag / 1e-30) <= OP_DERIVATIVE
        assert any(moving) or found is None


@pytest.mark.parametrize("n", CASES)
def test_second_derivatives_and_forward_mode_in_a_sweep(n: Node, rng: np.random.Generator) -> None:
    values = tuple(Value(a.attr[0], a.dims, Role.PARAM) for a in n.args)
    flat = all(len(a.dims) < 2 for a in (n, *n.args))
    lines = [Equation("u", Kind.STEP if flat else Kind.ONCE, n)]
    u = arg("u", n.dims)
    if not flat:
        lines.append(Equation("s", Kind.ONCE, ops.dot(u, u)))
        u = arg("s", ())
    lines.append(Equation("y", Kind.STEP, ops.mul(u, arg("x", ()))))
    p = Program(1, (*values, Value("x", (), Role.GIVEN)), tuple(lines), (), ("y",))
    report = check(p, order=2, length=2, sizes=SIZES, values=draw(n, rng))
    assert report.ok, report.text()


# --- kinks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "slope"),
    [("relu", 0.0), ("abs", 0.0), ("softsign", 1.0), ("positive", 0.0), ("sign", 0.0)],
)
def test_the_slope_at_zero_is_torchs(op: str, slope: float) -> None:
    n = node(op, arg("a", ()))
    (term,) = pullback(n, const(1), arg("y", ()), n.args)
    for zero in (0.0, -0.0):
        given = {"a": np.float64(zero)}
        found = 0.0 if term is None else value(term, {**given, "y": value(n, given)})
        assert found == slope


@pytest.mark.parametrize(("op", "above"), [("max", (1.0, 0.0)), ("min", (0.0, 1.0))])
def test_a_tie_is_split_in_halves(op: str, above: tuple[float, float]) -> None:
    n = node(op, arg("a", ()), arg("b", ()))
    terms = pullback(n, const(1), arg("y", ()), n.args)

    def slopes(a: float, b: float) -> tuple[float, ...]:
        given = {"a": np.float64(a), "b": np.float64(b), "y": np.float64(a)}
        return tuple(float(value(t, given)) for t in terms if t is not None)

    assert slopes(0.7, 0.7) == (0.5, 0.5)
    assert slopes(0.0, -0.0) == (0.5, 0.5)
    assert slopes(0.8, 0.7) == above
    assert slopes(0.7, 0.8) == above[::-1]


def test_the_largest_of_a_vector_shares_its_adjoint_among_ties() -> None:
    n = node("row_max", arg("a", V))
    (term,) = pullback(n, const(1), arg("y", ()), n.args)
    assert term is not None
    given = {"a": np.array([2.0, -1.0, 2.0]), "y": np.float64(2.0)}
    assert value(term, given).tolist() == [0.5, 0.0, 0.5]


def test_ops_with_kinks_say_on_which_side_a_point_is() -> None:
    for op in ("relu", "abs", "softsign", "positive", "sign"):
        side = OPS[op].branch
        assert side is not None
        assert [float(side(np.float64(a))) for a in (-2, 0, 3)] == [-1, 0, 1]
    for op in ("max", "min", "prefer", "same"):
        side = OPS[op].branch
        assert side is not None
        assert [float(side(np.float64(a), np.float64(1))) for a in (-2, 1, 3)] == [-1, 0, 1]


# --- stable forms ---------------------------------------------------------------------------------

POINTS = (0.0, -0.0, 1e-8, -1e-8, 1e-3, -1e-3, 1.0, -1.0, 40.0, -40.0, 45.0, -45.0, 1e4, -1e4)


def _exact(op: str, x: float) -> float:
    """The value in 60 digits, rounded once."""
    with localcontext() as context:
        context.prec = 60
        context.Emin, context.Emax = -(10**6), 10**6
        a = Decimal(x)
        one = Decimal(1)
        match op:
            case "sigmoid":
                y = one / (one + (-a).exp())
            case "tanh":
                y = (a.exp() - (-a).exp()) / (a.exp() + (-a).exp())
            case "softplus":
                y = _log1p(a.exp())
            case "logsigmoid":
                y = -_log1p((-a).exp())
            case "softsign":
                y = a / (one + abs(a))
            case "exp":
                y = a.exp()
            case _:
                raise AssertionError(op)
        try:
            return float(y)
        except OverflowError:
            return math.inf


def _log1p(a: Decimal) -> Decimal:
    """log(1 + a), also where 60 digits lose a beside 1."""
    return (1 + a).ln() if a > Decimal("1e-25") else a - a * a / 2


@pytest.mark.parametrize("x", POINTS)
@pytest.mark.parametrize("op", ["sigmoid", "tanh", "softplus", "logsigmoid", "softsign", "exp"])
def test_functions_are_right_to_the_last_digits_everywhere(op: str, x: float) -> None:
    with np.errstate(over="ignore"):
        found = float(value(node(op, arg("a", ())), {"a": np.float64(x)}))
        moved = complex(value(node(op, arg("a", ())), {"a": np.complex128(x + 1e-30j)}))
    true = _exact(op, x)
    assert found == true or abs(found - true) <= OP_VALUE * abs(true)
    if math.isfinite(true):
        assert abs(moved.real - true) <= OP_VALUE * abs(true) + STEP_SQUARED


def test_a_sigmoid_far_below_zero_has_a_logarithm() -> None:
    n = node("log", node("sigmoid", arg("a", ())))
    assert abs(float(value(n, {"a": np.float64(-40)})) + 40) <= OP_VALUE * 40
    assert float(value(node("sigmoid", arg("a", ())), {"a": np.float64(-40)})) > 4.2e-18


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        ("sigmoid", 0.0, 1.0),
        ("tanh", -1.0, 1.0),
        ("exp", 0.0, math.inf),
        ("softplus", 0.0, math.inf),
        ("logsigmoid", -math.inf, 0.0),
        ("relu", 0.0, math.inf),
        ("abs", math.inf, math.inf),
        ("neg", math.inf, -math.inf),
    ],
)
def test_infinity_goes_where_the_limit_is(op: str, low: float, high: float) -> None:
    n = node(op, arg("a", ()))
    assert float(value(n, {"a": np.float64(-math.inf)})) == low
    assert float(value(n, {"a": np.float64(math.inf)})) == high


@pytest.mark.parametrize("op", sorted(set(EXAMPLES) - {"positive", "prefer", "same", "unless"}))
def test_nan_is_never_hidden(op: str, rng: np.random.Generator) -> None:
    n = EXAMPLES[op][0]
    for a in n.args:
        given = draw(n, rng)
        given[a.attr[0]] = np.full_like(given[a.attr[0]], math.nan)
        assert np.isnan(value(n, given)).any()


@pytest.mark.parametrize("top", [1e4, -1e4])
def test_softmax_does_not_overflow(top: float) -> None:
    given = {"a": np.array([top, top - 1, top - 2])}
    plain = np.exp([0, -1, -2]) / np.sum(np.exp([0, -1, -2]))
    assert error(value(node("softmax", arg("a", V)), given), plain) <= OP_VALUE
    assert error(value(node("log_softmax", arg("a", V)), given), np.log(plain)) <= OP_VALUE


def test_powers_are_exact_where_they_are_products() -> None:
    a = np.float64(-1.1)
    assert value(ops.power(arg("a", ()), 2), {"a": a}) == a * a
    assert value(ops.power(arg("a", ()), 3), {"a": a}) == a * a * a
    assert value(ops.power(arg("a", ()), -1), {"a": a}) == 1 / a
    assert ops.power(arg("a", ()), 1) is arg("a", ())
    assert ops.power(arg("a", V), 0) is ops.fill(const(1), V)


def test_the_derivative_of_a_square_is_twice_the_value() -> None:
    n = ops.power(arg("a", ()), 2)
    (term,) = pullback(n, arg("g", ()), arg("y", ()), n.args)
    assert term is ops.mul(arg("g", ()), ops.mul(const(2), arg("a", ())))


# --- size rules -----------------------------------------------------------------------------------

W: Dims = ("X",)
MISFITS = {
    "two sizes": ("add", (V, W), (), "H and X"),
    "a number beside a vector": ("mul", ((), V), (), "scalar and H"),
    "a product that does not fit": ("matmul", (M, V), (), r"\(H, X\) @ H"),
    "a product of vectors": ("matmul", (V, V), (), "H @ H"),
    "a product with a number": ("matmul", (M, ()), (), r"\(H, X\) @ scalar"),
    "the transpose of a vector": ("T", (V,), (), "H"),
    "an outer product of a matrix": ("outer", (M, V), (), r"\(H, X\), H"),
    "the sum of a number": ("sum", ((),), (), "number"),
    "a vector repeated": ("fill", (V,), V, "fill of H"),
    "a number repeated to a number": ("fill", ((),), (), "fill of scalar"),
    "nothing in a row": ("concat", (), (), "no vectors"),
    "a matrix in a row": ("concat", (V, M), (), r"H, \(H, X\)"),
    "a stretch of a number": ("block", ((),), ((0, "H"),), "block of scalar"),
    "a stretch on one axis of two": ("block", (M,), ((0, 1),), "block of"),
    "a place for a number": ("embed", ((),), ((0, "H"),), "embed of scalar"),
    "a row of a number": ("row", ((), ()), (), "row scalar of scalar"),
    "a row chosen by a vector": ("row", (M, V), (), r"row H of \(H, X\)"),
    "a matrix as a row": ("put_row", (M, ()), ("H",), r"\(H, X\) as row scalar"),
    "a place chosen by a vector": ("put_row", (V, V), ("H",), "H as row H"),
    "softmax of a number": ("softmax", ((),), (), "scalar"),
    "log softmax of a matrix": ("log_softmax", (M,), (), r"\(H, X\)"),
    "the largest of a number": ("row_max", ((),), (), "scalar"),
    "too many arguments": ("tanh", (V, V), (), "takes 1 arguments, not 2"),
    "too few arguments": ("add", (V,), (), "takes 2 arguments, not 1"),
}


@pytest.mark.parametrize(("op", "dims", "attr", "message"), MISFITS.values(), ids=MISFITS)
def test_sizes_that_do_not_fit_are_refused(
    op: str, dims: tuple[Dims, ...], attr: tuple[object, ...], message: str
) -> None:
    with pytest.raises(SizeError, match=message):
        node(op, *(arg(f"v{k}", d) for k, d in enumerate(dims)), attr=attr)


# --- builders -------------------------------------------------------------------------------------


def test_a_number_beside_a_vector_is_filled() -> None:
    a, k = arg("a", V), arg("k", ())
    assert ops.add(a, k) is node("add", a, node("fill", k, attr=V))
    assert ops.sub(const(1), a) is node("sub", node("fill", const(1), attr=V), a)
    assert ops.mul(k, k) is node("mul", k, k)


def test_numbers_are_not_negative_and_keep_the_sign_of_zero() -> None:
    assert const(-2) is node("neg", const(2))
    assert const(0.0) is not const(-0.0)
    assert ops.number(const(-2)) == -2
    assert math.copysign(1, ops.number(const(-0.0)) or 0.0) == 1  # -0.0 is falsy: see below
    zero = ops.number(const(-0.0))
    assert zero is not None and math.copysign(1, zero) == -1
    assert ops.number(ops.fill(const(3), V)) == 3
    assert ops.number(arg("a", ())) is None


def test_a_transpose_is_pushed_to_the_leaves() -> None:
    a, b = arg("a", M), arg("b", M)
    assert ops.transpose(ops.transpose(a)) is a
    assert ops.transpose(ops.add(a, ops.neg(b))) is ops.add(node("T", a), ops.neg(node("T", b)))
    u, v = arg("u", V), arg("v", W)
    assert ops.transpose(node("outer", u, v)) is node("outer", v, u)


def test_sizes_become_numbers() -> None:
    assert ops.size(4) is const(4)
    assert value(ops.size(scale_dim("H", 4)), {}) == 12
    assert value(ops.mean(arg("a", V)), {"a": np.array([1.0, 2.0, 6.0])}) == 3


# --- functions that a paper leaves open -----------------------------------------------------------


def test_an_unspecified_function_has_a_derivative_but_no_value() -> None:
    f = node("call", arg("a", V), attr=("f", 0))
    (term,) = pullback(f, arg("g", V), arg("y", V), f.args)
    assert term is ops.mul(arg("g", V), node("call", arg("a", V), attr=("f", 1)))
    with pytest.raises(UserError, match="the function `f` is not specified"):
        value(f, {"a": np.zeros(3)})


def test_the_derivatives_of_unspecified_functions_have_the_right_sizes() -> None:
    whole = node("call_vector", arg("a", V), attr=("F",))
    (term,) = pullback(whole, arg("g", V), arg("y", V), whole.args)
    assert term is not None and term.op == "call_pull" and term.dims == V
    loss = node("call_scalar", arg("a", V), arg("b", W), attr=("G",))
    assert loss.dims == ()
    terms = pullback(loss, arg("g", ()), arg("y", ()), loss.args)
    assert [t.dims for t in terms if t is not None] == [V, W]
    for n in (term, terms[0]):
        assert n is not None
        inner = next(m for m in walk(n) if m.op in ("call_pull", "call_slope"))
        with pytest.raises(UserError, match="second derivative of the unspecified"):
            pullback(inner, arg("g", inner.dims), arg("y", inner.dims), inner.args)
    with pytest.raises(UserError, match="second derivative"):
        tangent(whole, arg("y", V), [arg("t", V)])
