"""Slips of every kind, each by its name. `golden/errors.txt` holds what is said about them."""

from __future__ import annotations

_LSTM = """\
i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + b_i)
f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + b_f)
g[t] = tanh(W_g @ x[t] + U_g @ h[t-1] + b_g)
c[t] = f[t]*c[t-1] + i[t]*g[t]
h[t] = tanh(c[t])
"""
_RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"


def _lstm(old: str, new: str) -> str:
    assert old in _LSTM
    return _LSTM.replace(old, new)


SLIPS: dict[str, str] = {
    # time
    "read from the future": _lstm("f[t]*c[t-1]", "f[t]*c[t+1]"),
    "two steps back": _lstm("f[t]*c[t-1]", "f[t]*c[t-2]"),
    "used before assigned": _lstm("tanh(c[t])", "tanh(c[t])*o[t]") + "o[t] = sigmoid(c[t])\n",
    "read by its own equation": _RNN.replace("h[t-1]", "h[t]"),
    "assigned in the past": "h[t-1] = tanh(W @ x[t])\n",
    "assigned in the future": "h[t+1] = tanh(W @ x[t] + U @ h[t])\n",
    "no state": "h[t] = tanh(W @ x[t] + b)\n",
    "state misspelt": _lstm("f[t]*c[t-1]", "f[t]*cc[t-1]"),
    "late input undeclared": _RNN.replace("b)", "V @ u[t-1])"),
    "both with and without time": _RNN.replace("b)", "h)"),
    "a parameter with time": _RNN + "y[t] = V @ h[t] + b[t]\n",
    "a constant that changes": "A = W @ x[t]\n" + _RNN,
    "round brackets for time": "h[t] = tanh(W @ x(t) + U @ h[t-1])\n",
    "round brackets on the left": "h(t) = tanh(W @ x(t) + U @ h(t-1))\n",
    "an index that is no time": _RNN.replace("x[t]", "x[0]"),
    "time as a value": _RNN.replace("b)", "b*t)"),
    # names
    "assigned twice": _RNN + "h[t] = tanh(h[t])\n",
    "reserved name": _RNN + "d_h[t] = h[t]\n",
    "init of an unknown name": _lstm("h[t] =", "init b_ff = 1\nh[t] ="),
    "unknown output": _RNN + "output hh\n",
    "state never assigned": "state s = 0\n" + _RNN,
    "assigned and declared": "input h: H\n" + _RNN,
    "declared twice": "input x: X\nparam x: X\n" + _RNN,
    "a start that is computed": "state h = W @ b\n" + _RNN,
    # functions
    "unknown function": _RNN.replace("tanh", "tahn"),
    "unknown function of a paper": _RNN.replace("tanh", "f_h"),
    "a function under another name": _RNN.replace("tanh", "logistic"),
    "a function of the machine": _RNN.replace("+ b", "+ fill(b, H)"),
    "a value called like a function": _RNN.replace("W @ x[t]", "b (x[t])").replace("+ b", "- b"),
    "too many arguments": _RNN.replace("b)", "b, 2)"),
    "no arguments": _RNN.replace("+ b", "+ exp()"),
    "a definition with too few": "f(a, b) = a*b\nh[t] = f(h[t-1])\n",
    "a size that is a value": "A = W - eye(x[t])\nh[t] = A @ h[t-1] + x[t]\n",
    "repeated by a value": "h[t] = tanh(repeat(W @ x[t], n) + U @ h[t-1])\n",
    "repeated never": "h[t] = tanh(repeat(W @ x[t], 0) + U @ h[t-1])\n",
    "repeated to another size": ("state h: H\nh[t] = tanh(repeat(W @ x[t], 3) + U @ h[t-1])\n"),
    "rows of a vector": _RNN.replace("x[t]", "rows(x[t], 1, 2)"),
    "no such rows": _RNN.replace("W @", "rows(W, 3, 2) @"),
    "a function of a library": _RNN.replace("tanh", "cumax"),
    "recursion": "f(v) = g(v) + 1\ng(v) = f(v)\nh[t] = f(h[t-1])\n",
    "a parameter with an index": "f(v) = v[t] + 1\nh[t] = f(h[t-1])\n",
    "a definition of a known function": "tanh(v) = v\nh[t] = tanh(h[t-1])\n",
    "defined twice": "f(v) = v\nf(v) = 2*v\nh[t] = f(h[t-1])\n",
    "kind of function": "function f: matrix\n" + _RNN,
    # sizes
    "one matrix for both": "h[t] = tanh(W @ x[t] + W @ h[t-1])\n",
    "a state as wide as a label": _RNN + "loss:\nE[t] = sum((h[t] - y[t])**2)\n",
    "size clash": _RNN + "loss:\nE[t] = dot(x[t], y[t])\n",
    "size clash in a product": "input x: X, u: K\nh[t] = tanh(W @ x[t] + W @ u[t] + U @ h[t-1])\n",
    "size clash of a state": "input x: X\nstate h: H\nh[t] = tanh(x[t] + U @ h[t-1])\n",
    "a matrix used as a vector": _RNN.replace("+ b", "+ W"),
    "a matrix assigned": "param W: (H, X)\nh[t] = W\ng[t] = h[t-1]\n",
    "a matrix in a vector's place": _RNN.replace("+ b", "+ dot(W, x[t])"),
    "vector times matrix": _RNN.replace("U @ h[t-1]", "r[t] * U @ h[t-1]"),
    "matrix times vector, by *": "param U: (H, H)\nh[t] = tanh(U * h[t-1] + W @ x[t])\n",
    "@ between vectors": "input x: H\nh[t] = tanh(h[t-1] @ x[t] + b)\n",
    "@ with a number": "param k: scalar\nh[t] = tanh(k @ h[t-1] + W @ x[t])\n",
    "transposed vector": _RNN.replace("U @ h[t-1]", "dot(h[t-1].T, b)"),
    "undetermined size": "h[t] = tanh(h[t-1])\n",
    "undetermined parameter": _RNN.replace("W @ x[t]", "W @ (V @ x[t])"),
    "a number where a vector must be": _RNN.replace("+ b", "+ mean(2)"),
    "parts that do not divide": _RNN + "g[t] = part(x[t], 1, 2)\n",
    "no such part": _RNN + "g[t] = part(h[t], 0, 2)\n",
    "an exponent that is no number": _RNN.replace("+ b", "+ b**k"),
    "a loss that is a vector": _RNN + "loss:\nL[t] = (V @ h[t] - y[t])**2\n",
    "inside a definition": "f(v, w) = dot(v, w)\ninput u: K\n" + _RNN + "E[t] = f(u[t], x[t])\n",
    "a size that is no size": "param W: (H, X/2)\n" + _RNN,
    "three sizes": "param W: (H, X, K)\n" + _RNN,
    "an input as a matrix": "input x: (X, X)\n" + _RNN,
    # spelling
    "missing *": _lstm("f[t]*c[t-1]", "f[t] c[t-1]"),
    "missing * after a number": _RNN.replace("+ b", "+ 2b"),
    "ends after an operator": _lstm("i[t]*g[t]", "i[t]*"),
    "ends after the equals sign": "h[t] =\n",
    "a bracket never closed": _RNN.replace("+ b)", "+ b"),
    "a bracket never opened": _RNN.replace("+ b)", "+ b))"),
    "a square bracket never closed": _RNN.replace("x[t]", "x[t"),
    "two operators": _RNN.replace("+ b", "+ * b"),
    "no equals sign": "h[t] tanh(W @ x[t])\n",
    "a comparison": _RNN.replace("] =", "] =="),
    "walrus": _RNN.replace("] =", "] :="),
    "caret for a power": _RNN.replace("+ b", "+ b^2"),
    "np.": _RNN.replace("tanh", "np.tanh"),
    ".dot": _RNN.replace("W @ x[t]", "W.dot(x[t])"),
    "a list": _RNN.replace("x[t]", "[x[t], 1]"),
    "a tuple": _RNN.replace("x[t]", "(x[t], 1)"),
    "two names": "i[t], f[t] = x[t], h[t-1]\n",
    "+=": _RNN + "h[t] += b\n",
    "LaTeX": "h_t = \\tanh(W x_t + U h_{t-1})\n",
    "LaTeX index": "h[t] = tanh(W @ x[t] + U @ h_{t-1})\n",
    "a middle dot": "h[t] = tanh(W · x[t] + U · h[t-1])\n",
    "a superscript": _RNN.replace("+ b", "+ b²"),
    "a subscript": _RNN.replace("x[t]", "xₜ"),
    "a derivative": _RNN.replace("tanh(", "tanh'("),
    "a condition": _RNN.replace("+ b", "+ (b > 0)"),
    "a semicolon": "h[t] = x[t]; c[t] = c[t-1]\n",
    "a string": _RNN.replace("+ b", '+ "b"'),
    "a machine's name": _RNN.replace("+ b", "+ b$1"),
    "a number too large": _RNN.replace("+ b", "+ 1e999"),
    # lines
    "nothing": "# a comment\n",
    "only a definition": "f(v) = v\n",
    "unknown declaration": "inptu x: X\n" + _RNN,
    "a declaration with an index": "input x[t]: X\n" + _RNN,
    "a parameter with a value": "param b = 1\n" + _RNN,
    "init without a value": _RNN + "init b\n",
    "init that is no number": _RNN + "init b = ones\n",
    "unknown block": "cel:\n" + _RNN,
    "a block twice": "cell:\n" + _RNN + "cell:\n",
    "blocks out of order": _RNN + "loss:\nL[t] = sum(h[t])\nreadout:\ny[t] = V @ h[t]\n",
    "a backward block": _RNN + "backward:\nd_h[t] = d_h[t+1]\n",
    "a line of nothing": "@ x[t]\n" + _RNN,
    "more after the end": _RNN.replace("b)", "b) = 2"),
}
