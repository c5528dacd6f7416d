"""Random cells, as hypothesis strategies: texts that nobody would write.

An expression is a template of the language with holes, or a name. Sizes fit, since a hole says
of which size it is; values stay tame, since what grows stands in a function that does not. What
shrinks is a text: lines fall away, templates become names, names the first ones that there are.

`BPTT_EXAMPLES=20000 pytest ...` draws so many, others in every run, instead of a few that are
always the same.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from string import Formatter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bptt.errors import CellError
from bptt.ir.dims import Dim, Dims, add_dims, divide_dim, scale_dim, show_dim, show_dims
from bptt.ir.dims import terms as dim_terms
from bptt.language.check import check
from bptt.language.terms import CONSTANT, SERIES, STATIC

LONG = "BPTT_EXAMPLES" in os.environ


def examples(count: int) -> settings:
    """So many examples, or as many as the environment says."""
    return settings(
        max_examples=int(os.environ.get("BPTT_EXAMPLES", count)),
        derandomize=not LONG,
        deadline=None,
        print_blob=LONG,
        suppress_health_check=list(HealthCheck),
    )


# --- templates ------------------------------------------------------------------------------------
# A hole's letter says what goes there; a hole that stands twice is filled twice with the same.
#   of every template   s: number  u: vector of another size a, as A and the like with its digit
#   of a vector (n)     v: the same size  A: matrix (n, a)  B: matrix (a, n)  p: vector k*n
#                       q: vector n/k  R: matrix (k*n, a)  C: matrix (n, k*a)  D: matrix (n, d)
#   of a matrix (n, m)  M: the same sizes  T: matrix (m, n)  A: matrix (n, a)  B: matrix (a, m)
#                       p: vector n  q: vector m  R: matrix (k*n, m)  C: matrix (n, k*m)
#   of a number         M: matrix (a, a)  D: vector d
# k and j <= k are whole numbers, n the size itself, d is a + a + 1 with the digits 1 and 2.


def templates_of(text: str) -> tuple[str, ...]:
    return tuple(template.strip() for template in text.split(";"))


VECTORS = templates_of("""
    tanh({v}); {v1} + {v2}; {A} @ {u}; {v1} * {v2}; {A} @ {u} + {v}; sigmoid({v}); {v1} - {v2};
    {D} @ concat({u1}, {u2}, 1); tanh({D} @ concat({u1}, 1, {u2})); {s} * {v}; -{v};
    part(concat({v1}, {v2}), {j}, 2); tanh({A1} @ {u1} + {A2} @ {u2} + {v});
    {A1} @ {u1} + {A2} @ {u2} + {v}; {u} @ {B}; {v} + {s}; {s} - {v}; {v} / 2; 0 * {v1} + {v2};
    relu({v} - 0.3); abs({v} + 0.2); max({v1}, {v2}); min({v}, {s}); max({s}, {v});
    sign({v1} - 0.1) * {v2}; softsign({v}); softplus({v}); logsigmoid({v}); log(σ({v}));
    exp(-abs({v})); exp(tanh({v})); sin(3 * {v}); cos({v}); log(1 + {v}**2);
    sqrt(1 + {v}**2); {v1} / (1 + {v2}**2);
    tanh({v}**3); {v}**1 * tanh({v})**0; (1 + {v}**2)**-0.5; softmax({v}); log_softmax({v});
    log(softmax({v})); cumsum({v}); ({v} - mean({v})) / sqrt(mean(({v} - mean({v}))**2) + 0.1);
    part({p}, {j}, {k}); rows({R}, {j}, {k}) @ {u}; cols({C}, {j}, {k}) @ {u};
    rows({R}, {j}, {k}) @ {u} + rows({R}, 1, {k}) @ {u}; affine({A}, {u}, {v});
    mix({s}, {v1}, {v2}); twice({v}); norm({v1}, {v2})
""")
JOINED = ("concat", "concat", "concat")  # of a vector whose size is a sum or a multiple
REPEATED = ("repeat({q}, {k})", "repeat(softmax({q}), {k}) * {v}")
NUMBERS = templates_of("""
    dot({D}, concat({u1}, {u2}, 1)); dot({u1}, {u1b}); sum({u}); mean({u}); tanh({s});
    {s1} * {s2}; {s1} + {s2}; {s1} - {s2}; -{s}; sigmoid({s}); max({u}); min({u}); relu({s} - 0.3);
    max({s1}, {s2}); min({s}, 0.4); {s1} / (2 + tanh({s2})); sqrt(1 + {s}**2); sin({s});
    mix({s1}, {s2}, {s3}); twice({s}); dot({u}, {u}) / (1 + dot({u}, {u}));
    cross_entropy({u1}, softmax({u1b})); tanh(sum({M}))
""")
MATRICES = templates_of("""
    -{M}; {T}.T; {M1} * {M2}; {M} - {T}.T; 0.5 * {M}; {s} * {M}; {A} @ {B}; ({A} @ {B} - {M}).T.T;
    tanh({M}); cos({M}); {M}**2 / (1 + {M}**2); max({M1}, {M2}); abs({M} + 0.1); {M} + {s};
    outer({p}, {q}); rows({R}, {j}, {k}); cols({C}, {j}, {k}); mix({s}, {M1}, {M2})
""")
SQUARES = ("eye({n})", "{M} - 0.5 * eye({n})", "{M} - {M}.T")  # besides, of a matrix (n, n)

# Parameters of definitions are called as values are: they hide them.
DEFINITIONS = {
    "affine": "affine(W, x, b) = W @ x + b",
    "mix": "mix(k, h, c) = k * h + (1 - k) * c",
    "twice": "twice(v) = mix(0.25, tanh(v), mix(0.5, v, h2(v)))\nh2(b) = b * sigmoid(b)",
    "norm": "norm(v, g) = g * (v - mean(v)) / sqrt(mean((v - mean(v))**2) + 0.1)",
}
DEPTH = 3
LITERALS = ("0.5", "1", "2", "0.1", "0", "(-0.5)")
INPUTS = ("y", "direct_h")
STEPS = ("h", "c", "z_h", "dz_h", "ĥ", "state", "q_h", "carry_h")
LETTERS = {0: "k", 1: "b", 2: "W"}


@dataclass
class Said:
    """What a text has said so far: its sizes, what can be read and at which level, parameters.

    `waiting` are values of the step before that are still to be `found`: a state may be assigned
    behind the line that reads it.
    """

    sizes: list[Dim]
    readable: list[tuple[str, Dims, int]] = field(default_factory=list)
    params: dict[str, Dims] = field(default_factory=dict)
    waiting: list[tuple[int, Dims]] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)

    def param(self, dims: Dims) -> str:
        name = f"{LETTERS[len(dims)]}{len(self.params)}"
        self.params[name] = dims
        return name

    def later(self, which: int, dims: Dims) -> str:
        """A name of the step before; which one is known when all have been assigned."""
        self.waiting.append((which, dims))
        return f"later{len(self.waiting) - 1}_"


# --- expressions ----------------------------------------------------------------------------------


@st.composite
def expression(draw: st.DrawFn, said: Said, dims: Dims, level: int, depth: int) -> str:
    """A value of these dims that is constant, the same for a sequence, or one of a step."""
    level = CONSTANT if len(dims) == 2 else level
    template = draw(st.sampled_from((*[""] * 5, *templates(dims)))) if depth else ""
    if template == "concat":
        pieces = draw(st.permutations(list(split(dims[0]))))
        parts = [draw(expression(said, piece, level, depth - 1)) for piece in pieces]
        return f"concat({', '.join(parts)})"
    if template:
        return draw(filled(said, template, dims, level, depth - 1))
    return draw(name(said, dims, level))


def templates(dims: Dims) -> tuple[str, ...]:
    if not dims:
        return NUMBERS
    if len(dims) == 2:
        return MATRICES + (SQUARES if dims[0] == dims[1] else ())
    joined = JOINED if len(list(split(dims[0]))) > 1 else ()
    repeated = REPEATED if divide_dim(dims[0], 2) or divide_dim(dims[0], 3) else ()
    return (*joined, *VECTORS, *repeated)


def split(n: Dim) -> Iterable[Dims]:
    """The dims of what a vector of this size can be joined of."""
    for size, count in dim_terms(n).items():
        yield from [(size,) if size else ()] * count


@st.composite
def filled(draw: st.DrawFn, said: Said, template: str, dims: Dims, level: int, depth: int) -> str:
    holes = list(dict.fromkeys(hole for _, hole, _, _ in Formatter().parse(template) if hole))
    n: Dim = dims[0] if dims else 1
    cuts = [k for k in (2, 3) if "q" not in holes or len(dims) == 2 or divide_dim(n, k)]
    k = draw(st.sampled_from(cuts)) if "k" in holes else 1
    times = 2 if "part(concat(" in template else k
    values = {"n": show_dim(n), "k": str(k), "j": str(draw(st.integers(1, times)))}
    digits = dict.fromkeys(hole[1:2] for hole in holes if hole[0] in "uABCRM")
    others = {digit: draw(st.sampled_from(said.sizes)) for digit in digits}
    joined = add_dims(*(others.get(digit, 0) for digit in "12"), 1)
    for hole in holes:
        if hole not in values:
            wanted = of_hole(hole[0], dims, others.get(hole[1:2], joined), k)
            values[hole] = f"({draw(expression(said, wanted, level, depth))})"
    return template.format_map(values)


def of_hole(letter: str, dims: Dims, a: Dim, k: int) -> Dims:
    """The dims of what goes into a hole of a template of these dims."""
    if letter == "s":
        return ()
    if letter == "u" or (letter == "D" and not dims):
        return (a,)
    if not dims:
        return (a, a)
    n, m = dims[0], dims[-1] if len(dims) == 2 else a
    matrix = len(dims) == 2
    found: dict[str, Dims] = {
        "v": (n,),
        "A": (n, a),
        "D": (n, a),
        "B": (a, m if matrix else n),
        "M": (n, m),
        "T": (m, n),
        "p": (n if matrix else scale_dim(n, k),),
        "q": (m if matrix else divide_dim(n, k) or n,),
        "R": (scale_dim(n, k), m),
        "C": (n, scale_dim(m, k)),
    }
    return found[letter]


@st.composite
def name(draw: st.DrawFn, said: Said, dims: Dims, level: int) -> str:
    """Something that has these dims: what is known, a state, a parameter, or a number."""
    readable = [(text, of) for text, of, at in said.readable if at <= level]
    known = [text for text, of in readable if of == dims]
    options = [*known * 3, *(n for n, of in said.params.items() if of == dims), "param"]
    if level == SERIES:
        vectors = [(text, of) for text, of in readable if len(of) == 1]
        options += ["before"] * 3 + ["product"] * (not known and bool(vectors))
    options += LITERALS if not dims else ()
    found = draw(st.sampled_from(options))
    if found == "before":
        return said.later(draw(st.integers(0, 3)), dims)
    if found == "product":
        return product(said, dims, *draw(st.sampled_from(vectors)))
    return said.param(dims) if found == "param" else found


def product(said: Said, dims: Dims, vector: str, of: Dims) -> str:
    """A vector as one of other dims, or as a number."""
    if dims:
        return f"({said.param((*dims, *of))} @ {vector})"
    return f"dot({said.param(of)}, {vector})"


# --- cells ----------------------------------------------------------------------------------------

SIZES = (
    scale_dim("H", 2),
    add_dims("H", "X"),
    add_dims("H", "X", 1),
    1,
    2,
    scale_dim("X", 3),
    add_dims("H", 1),
    scale_dim(add_dims("H", 1), 2),
)


def more(times: int = 1) -> st.SearchStrategy[bool]:
    """Whether there is one more: so often to once that there is not."""
    return st.integers(0, times).map(bool)


@st.composite
def cells(draw: st.DrawFn) -> str:
    """The text of a cell that `check` takes."""
    said = Said([*draw(st.sampled_from((["H"], ["H", "X"], ["H", "X", "P"])))])
    said.sizes += draw(st.lists(st.sampled_from(SIZES), max_size=1))
    inputs, head = draw(given(said))
    levels = draw(st.lists(st.sampled_from((CONSTANT, STATIC)), max_size=2))
    lines = [draw(equation(said, f"A{k}", level)) for k, level in enumerate(levels)]
    steps: dict[str, Dims] = {}
    going = True
    while going and len(steps) < len(STEPS):
        name = STEPS[len(steps)]
        line, going = draw(st.tuples(equation(said, f"{name}[t]", SERIES), more(5)))
        lines.append(line)
        steps[name] = said.readable[-1][1]
    if "later" not in "".join(lines) and draw(more(2)):
        left, rhs = lines[-1].split(" = ")
        lines[-1] = f"{left} = 0.5 * ({rhs}) + 0.5 * {left.replace('[t]', '[t-1]')}"
    outputs = draw(st.lists(st.sampled_from(list(steps)), unique=True, max_size=3))
    if draw(more()):
        lines += ["readout:", draw(equation(said, "o[t]", SERIES))]
    if draw(more()):
        lines += ["loss:", draw(equation(said, "L[t]", SERIES, number=True))]
    lines = [resolved(line, said, steps | inputs) for line in lines]
    states = draw(declared(said, steps, lines))
    params = [f"param {name}: {show_dims(dims)}" for name, dims in said.params.items()]
    fixed = draw(st.lists(st.sampled_from(params), unique=True, max_size=1)) if params else []
    params = [constant(d) if d in fixed else d for d in params]
    end = [f"output {', '.join(outputs)}"] if outputs else []
    body = [*defined(lines), *map(bracketed, lines), *end, ""]
    inferred = ([], head, [*head, *states], [*head, *params]) if draw(more()) else ()
    for part in inferred:  # with what need not be declared left out
        told = [d for d in (*head, *params, *states) if "per" in d or "const" in d or "=" in d]
        source = "\n".join([*dict.fromkeys((*part, *told)), *body])
        if takes(source):
            return source
    return "\n".join([*head, *params, *states, *body])


@st.composite
def given(draw: st.DrawFn, said: Said) -> tuple[dict[str, Dims], list[str]]:
    """The inputs with their dims, and the lines that declare them."""
    vectors = [(n,) for n in said.sizes]
    inputs: dict[str, Dims] = {"x": draw(st.sampled_from(vectors))}
    for name in INPUTS:
        if draw(more()):
            inputs[name] = draw(st.sampled_from([*vectors, ()]))
    said.readable = [(f"{name}[t]", dims, SERIES) for name, dims in inputs.items()]
    head = [f"input {name}: {show_dims(dims)}" for name, dims in inputs.items()]
    if draw(more()):
        dims = draw(st.sampled_from([*vectors, ()]))
        said.readable.append(("s", dims, STATIC))
        head.append(f"input s: {show_dims(dims)} per sequence")
    return inputs, head


@st.composite
def equation(draw: st.DrawFn, said: Said, left: str, level: int, *, number: bool = False) -> str:
    """A line that assigns `left`, which can be read from now on. Only constants are matrices."""
    options: list[Dims] = [(n,) for n in said.sizes] + [()]
    if level == CONSTANT:
        options = [(n, m) for n in said.sizes[:3] for m in said.sizes[:3]] + options
    dims = () if number else draw(st.sampled_from(options))
    rhs = draw(expression(said, dims, level, DEPTH))
    said.readable.append((left, dims, level))
    return f"{left} = {rhs}"


@st.composite
def declared(draw: st.DrawFn, said: Said, steps: dict[str, Dims], lines: list[str]) -> list[str]:
    """The lines that declare states, some with a start; a cell without one gets one."""
    read = set(re.findall(r"\w+(?=\[t-1\])", " ".join(lines)))
    states = [name for name in steps if name in read] or list(steps)[: not read]
    found: list[str] = []
    for name in states:
        start = draw(st.sampled_from(("", "", "0.25", "-0.5", "a parameter")))
        start = said.param(steps[name]) if start == "a parameter" else start
        found.append(f"state {name}: {show_dims(steps[name])}{f' = {start}' if start else ''}")
    return found


def constant(declared: str) -> str:
    """A parameter that is not trained, and has its value in the text where it can."""
    return declared.replace("param", "const").replace(": scalar", " = 0.1")


def resolved(line: str, said: Said, steps: dict[str, Dims]) -> str:
    """A line with names for the values of the step before."""
    vectors = [(f"{n}[t-1]", of) for n, of in steps.items() if of]

    def found(match: re.Match[str]) -> str:
        text = match[0]
        if text not in said.found:
            which, dims = said.waiting[int(match[1])]
            names = [n for n, of in steps.items() if of == dims]
            vector = vectors[which % len(vectors)]
            one = f"{names[which % len(names)]}[t-1]" if names else product(said, dims, *vector)
            said.found[text] = one
        return said.found[text]

    return re.sub(r"later(\d+)_", found, line)


def defined(lines: list[str]) -> list[str]:
    """The definitions that the lines use."""
    used = [n for n in DEFINITIONS if any(f"{n}(" in line for line in lines)]
    used += ["mix"] if "twice" in used and "mix" not in used else []
    return [DEFINITIONS[n] for n in used]


def bracketed(line: str) -> str:
    """A line with the brackets alone that Python's precedence asks for."""
    left, equals, right = line.partition(" = ")
    return left + equals + (ast.unparse(ast.parse(right, mode="eval")) if right else "")


def takes(source: str) -> bool:
    try:
        check(source)
    except CellError:
        return False
    return True
