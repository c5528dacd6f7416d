"""Small Programs for tests that must not depend on the language: one for each shape of cell.

`program` reads Python expressions and trusts them; it is no parser of cells.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from bptt.ir import ops
from bptt.ir.dims import Dim, Dims, add_dims, divide_dim, scale_dim
from bptt.ir.program import Equation, Kind, Node, Program, Role, State, Value, refs

H: Dims = ("H",)
X: Dims = ("X",)
HX: Dims = ("H", "X")
HH: Dims = ("H", "H")

_BINARY = {
    ast.Add: ops.add,
    ast.Sub: ops.sub,
    ast.Mult: ops.mul,
    ast.Div: ops.div,
    ast.MatMult: ops.matmul,
}
_BUILDERS = {"dot": ops.dot, "mean": ops.mean, "concat": ops.concat, "sum": ops.summed}


def program(
    text: str,
    given: Mapping[str, Dims],
    params: Mapping[str, Dims],
    states: Mapping[str, Dims],
    *,
    outputs: tuple[str, ...] = (),
    static: tuple[str, ...] = (),
    consts: tuple[str, ...] = (),
    start: Mapping[str, Node] | None = None,
    loss: str | None = None,
) -> Program:
    """The Program of `name[t] = expression` lines; outputs default to the last line's name."""
    dims: dict[str, Dims] = {**given, **params, **states}
    equations: list[Equation] = []
    for line in text.strip().splitlines():
        left, right = (side.strip() for side in line.split("=", 1))
        rhs = _expression(ast.parse(right, mode="eval").body, dims)
        name = left.removesuffix("[t]")
        kind = Kind.ONCE if name == left else Kind.STEP
        equations.append(Equation(name, kind, rhs, line.strip()))
        dims[name] = rhs.dims
    values = [Value(n, d, Role.GIVEN, n in static) for n, d in given.items()]
    values += [Value(n, d, Role.CONST if n in consts else Role.PARAM) for n, d in params.items()]
    return Program(
        dir=1,
        values=tuple(values),
        equations=tuple(equations),
        states=tuple(State(s, (start or {}).get(s)) for s in states),
        outputs=outputs or (equations[-1].name,),
        loss=loss,
    )


def _expression(e: ast.expr, dims: Mapping[str, Dims]) -> Node:
    match e:
        case ast.Constant(value=float() | int() as value):
            return ops.const(value)
        case ast.UnaryOp(operand=operand):
            return ops.neg(_expression(operand, dims))
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=float() | int() as p)):
            return ops.power(_expression(left, dims), p)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_expression(left, dims), _expression(right, dims))
        case ast.Attribute(value=value, attr="T"):
            return ops.transpose(_expression(value, dims))
        case ast.Name(id=name):
            return ops.ref(name, 0, dims[name])
        case ast.Subscript(value=ast.Name(id=name), slice=slice_):
            return ops.ref(name, 0 if isinstance(slice_, ast.Name) else 1, dims[name])
        case ast.Call(func=ast.Name(id="part"), args=[v, ast.Constant(k), ast.Constant(n)]):
            whole = _expression(v, dims)
            length = divide_dim(whole.dims[0], n)
            assert length is not None
            return ops.block(whole, (scale_dim(length, k - 1), length))
        case ast.Call(func=ast.Name(id=function), args=args):
            nodes = [_expression(a, dims) for a in args]
            if function in _BUILDERS:
                return _BUILDERS[function](*nodes)
            widest = max((n.dims for n in nodes), key=len)
            return ops.node(function, *(ops.fill(n, widest) if not n.dims else n for n in nodes))
    raise AssertionError(ast.dump(e))


def _gates(names: str, recurrent: str = "h", matrix: str = "U") -> str:
    lines = []
    for k in names:
        f = "tanh" if k == "g" else "sigmoid"
        lines.append(f"{k}[t] = {f}(W_{k} @ x[t] + {matrix}_{k} @ {recurrent}[t-1] + b_{k})")
    return "\n".join(lines)


def _gate_params(names: str) -> dict[str, Dims]:
    found: dict[str, Dims] = {}
    for k in names:
        found |= {f"W_{k}": HX, f"U_{k}": HH, f"b_{k}": H}
    return found


def lstm() -> Program:
    text = _gates("ifgo") + "\nc[t] = f[t]*c[t-1] + i[t]*g[t]\nh[t] = o[t]*tanh(c[t])"
    return program(text, {"x": X}, _gate_params("ifgo"), {"h": H, "c": H})


def peephole() -> Program:
    text = """
i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + p_i*c[t-1] + b_i)
f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + p_f*c[t-1] + b_f)
g[t] = tanh(W_g @ x[t] + U_g @ h[t-1] + b_g)
c[t] = f[t]*c[t-1] + i[t]*g[t]
o[t] = sigmoid(W_o @ x[t] + U_o @ h[t-1] + p_o*c[t] + b_o)
h[t] = o[t]*tanh(c[t])"""
    params = {**_gate_params("ifgo"), "p_i": H, "p_f": H, "p_o": H}
    return program(text, {"x": X}, params, {"h": H, "c": H})


def gru_cho() -> Program:
    text = """
r[t] = sigmoid(W_r @ x[t] + U_r @ h[t-1] + b_r)
z[t] = sigmoid(W_z @ x[t] + U_z @ h[t-1] + b_z)
n[t] = tanh(W_n @ x[t] + U_n @ (r[t]*h[t-1]) + b_n)
h[t] = (1 - z[t])*n[t] + z[t]*h[t-1]"""
    return program(text, {"x": X}, _gate_params("rzn"), {"h": H})


def lstmp() -> Program:
    text = (
        _gates("ifgo", "r", "R")
        + """
c[t] = f[t]*c[t-1] + i[t]*g[t]
m[t] = o[t]*tanh(c[t])
r[t] = Q @ m[t]"""
    )
    params = {n: d for n, d in _gate_params("ifgo").items() if not n.startswith("U")}
    params |= {f"R_{k}": ("H", "P") for k in "ifgo"} | {"Q": ("P", "H")}
    return program(text, {"x": X}, params, {"r": ("P",), "c": H})


def scalar_gates() -> Program:
    text = """
g_i[t] = sigmoid(dot(w_i, concat(x[t], y[t-1], s[t-1], 1)))
v[t] = tanh(W_c.T @ concat(x[t], y[t-1], 1))
g_f[t] = sigmoid(dot(w_f, concat(x[t], y[t-1], s[t-1], 1)))
s[t] = g_f[t]*s[t-1] + g_i[t]*v[t]
g_o[t] = sigmoid(dot(w_o, concat(x[t], y[t-1], s[t], 1)))
y[t] = tanh(g_o[t]*s[t])"""
    row: Dims = (add_dims("X", "H", "H", 1),)
    params = {"w_i": row, "w_f": row, "w_o": row, "W_c": (add_dims("X", "H", 1), "H")}
    return program(text, {"x": X}, params, {"y": H, "s": H})


def layernorm_lstm() -> Program:
    text = """
a[t] = W @ x[t]
u[t] = U @ h[t-1]
p[t] = a[t] - mean(a[t])
q[t] = u[t] - mean(u[t])
z[t] = g_x*p[t]/sqrt(mean(p[t]**2) + 1e-5) + g_h*q[t]/sqrt(mean(q[t]**2) + 1e-5) + b
i[t] = sigmoid(part(z[t], 1, 4))
f[t] = sigmoid(part(z[t], 2, 4))
g[t] = tanh(part(z[t], 3, 4))
o[t] = sigmoid(part(z[t], 4, 4))
c[t] = f[t]*c[t-1] + i[t]*g[t]
n[t] = c[t] - mean(c[t])
h[t] = o[t]*tanh(g_c*n[t]/sqrt(mean(n[t]**2) + 1e-5) + b_c)"""
    wide: Dim = scale_dim("H", 4)
    params: dict[str, Dims] = {"W": (wide, "X"), "U": (wide, "H"), "g_c": H, "b_c": H}
    params |= {"g_x": (wide,), "g_h": (wide,), "b": (wide,)}
    return program(text, {"x": X}, params, {"h": H, "c": H})


def antisymmetric() -> Program:
    """Constants over time: a matrix made once from parameters, and one that is not trained."""
    text = """
A = M - M.T - gamma*I
z[t] = sigmoid(A @ h[t-1] + W_z @ x[t] + b_z)
h[t] = h[t-1] + 0.1*z[t]*tanh(A @ h[t-1] + W_h @ x[t] + b_h)"""
    params: dict[str, Dims] = {"M": HH, "gamma": (), "I": HH, "W_z": HX, "b_z": H}
    params |= {"W_h": HX, "b_h": H}
    return program(text, {"x": X}, params, {"h": H}, consts=("I",))


def kinky() -> Program:
    text = """
u[t] = W_u @ x[t] + U_u @ h[t-1] + b_u
v[t] = W_v @ x[t] + b_v
m[t] = max(v[t] - 0.5*m[t-1], u[t])
w[t] = min(abs(v[t]), softsign(m[t]))
h[t] = tanh(w[t])*relu(u[t] - 0.1) + 0.5*h[t-1]"""
    params = {"W_u": HX, "U_u": HH, "b_u": H, "W_v": HX, "b_v": H}
    return program(text, {"x": X}, params, {"h": H, "m": H})


def classifier() -> Program:
    """A readout, a softmax, a loss; an input one step back and one that has no t; a start."""
    text = """
h[t] = tanh(W @ x[t] + V @ x[t-1] + U @ h[t-1] + s)
p[t] = log_softmax(R @ h[t] + b)
L[t] = -dot(y[t], p[t])"""
    given = {"x": X, "y": ("K",), "s": H}
    params = {"W": HX, "V": HX, "U": HH, "R": ("K", "H"), "b": ("K",), "h0": H}
    return program(
        text,
        given,
        params,
        {"h": H},
        outputs=("h",),
        static=("s",),
        start={"h": ops.ref("h0", 0, H)},
        loss="L",
    )


def functions() -> Program:
    """The smooth functions that no cell above uses."""
    text = """
u[t] = W @ x[t] + U @ h[t-1] + b
a[t] = exp(-u[t]**2)*softplus(u[t]) + softmax(u[t])
e[t] = log(1 + a[t]**2)/(2 + logsigmoid(u[t])**2)
h[t] = sqrt(1 + e[t])*u[t]**3/(1 + u[t]**4)"""
    params = {"W": HX, "U": HH, "b": H}
    return program(text, {"x": X}, params, {"h": H})


def autonomous() -> Program:
    """No input, and the sum of a matrix in a step."""
    text = "h[t] = tanh(U @ h[t-1] + b)*(1 + sum(U)) + k"
    return program(text, {}, {"U": HH, "b": H, "k": ()}, {"h": H})


PROGRAMS = {
    f.__name__: f
    for f in (
        lstm,
        peephole,
        gru_cho,
        lstmp,
        scalar_gates,
        layernorm_lstm,
        antisymmetric,
        kinky,
        classifier,
        functions,
        autonomous,
    )
}


def unread(p: Program) -> set[str]:
    """The parameters that no equation of `p` reads."""
    read = {name for name, _ in refs(*(e.rhs for e in p.equations))}
    return {v.name for v in p.named(Role.PARAM)} - read
