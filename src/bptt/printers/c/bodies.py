"""Phase bodies in C: row by row, vectors of columns; what a row has one of is worked out first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bptt.errors import BpttError
from bptt.ir.dims import Dim, Dims, add_dims
from bptt.ir.ops import OPS, number
from bptt.ir.program import Node
from bptt.printers.c.phases import PIECES, Step, width

WHOLE = PIECES | {"row"}  # ops whose arguments are read as they lie in memory
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
FUNCTIONS = frozenset(
    "tanh sin cos sigmoid exp log sqrt relu softplus logsigmoid softsign abs positive sign"
    " prefer same unless max min".split()
)
HEAD = (
    "static void body{0}(const View *v, const real *tile, i64 across, i64 down, i64 r0, i64 r1,\n"
    "                  i64 c0, i64 c1, real *sums, const i64 *size) {{\n"
    "    (void)v, (void)tile, (void)across, (void)down, (void)sums, (void)size;\n"
    "    (void)c0, (void)c1;\n"
)


@dataclass(frozen=True)
class Names:
    """What a body asks the tables for: the index of a read, of a write and of a size."""

    read: Callable[[Node, Dim, Dim | None], int]
    write: Callable[[str], int | None]
    size: Callable[[Dim], int]


class Body:
    """The body of one phase."""

    def __init__(self, step: Step, names: Names) -> None:
        self.step, self.names = step, names
        self.vector = bool(step.space)
        self.outs = {out: k for k, out in enumerate(o for g in step.products for o in g.outs)}
        self.plus = {out: p for g in step.products for out, p in zip(g.outs, g.plus, strict=True)}
        self.rows: list[str] = []  # what is worked out once a row
        self.lines: list[str] = []  # what is worked out for each vector of columns
        self.pointers: dict[int, str] = {}
        self.value: dict[Node, str] = {}
        self.named: dict[str, str] = {}
        self.count = 0

    def source(self) -> str:
        """The function; `{0}` stands for its number, and brackets that are its own are doubled."""
        step = self.step
        stores: list[str] = []
        row_stores: list[str] = []
        added: tuple[str, str] | None = None
        for out in self.outs:
            self.store(out, step.space, self.product(out), stores, row_stores)
        for e in step.body:
            if step.adds == "table":
                self.into_table(e.name, e.rhs, stores)
                continue
            value = self.expression(e.rhs)
            if step.adds and e is step.body[-1]:
                to = self.pointer(self.written(e.name))
                if step.adds == "rows":
                    added = (value, to)
                    continue
                value = self.bind(f"{self.at(to, step.space)} + {value}", step.space)
                stores.append(self.put(to, step.space, value))
                continue
            self.named[e.name] = value
            self.store(e.name, e.rhs.dims, value, stores, row_stores)
        reduced = [(r.op, self.expression(r.of)) for r in step.reduces]
        inside = self.plain(stores, row_stores, reduced) if added is None else self.adding(*added)
        return HEAD + (inside + "}\n").replace("{", "{{").replace("}", "}}")

    def written(self, name: str) -> int:
        found = self.names.write(name)
        assert found is not None, "a sum has a place"
        return found

    # --- loops ---

    def plain(
        self, stores: list[str], row_stores: list[str], reduced: list[tuple[str, str]]
    ) -> str:
        inner = [*self.lines, *stores]
        lines = ["for (i64 r = r0; r < r1; r++) {"]
        lines += [f"    {p}" for p in self.pointers.values()]
        if reduced:
            lines.append(f"    real *sum = sums + (r - r0) * {len(reduced)} * LANES;")
            lines += [f"    V sum{k} = v_load(sum + {k} * LANES);" for k in range(len(reduced))]
        lines += [f"    {line}" for line in self.rows]
        if row_stores:
            lines += ["    if (c0 == 0) {", *(f"        {s}" for s in row_stores), "    }"]
        if not self.vector:
            lines += [f"    {line}" for line in inner]
        elif inner or reduced:
            lines.append("    i64 c = c0;")
            for whole in (True, False):
                head = "for (; c + LANES <= c1; c += LANES) {" if whole else "if (c < c1) {"
                lines.append(f"    {head}")
                if not whole:
                    lines.append("        const int n = (int)(c1 - c);")
                ends = [self.reduced(k, op, x, whole) for k, (op, x) in enumerate(reduced)]
                lines += [f"        {self.sized(s, whole)}" for s in [*inner, *ends]]
                lines.append("    }")
        lines += [f"    v_store(sum + {k} * LANES, sum{k});" for k in range(len(reduced))]
        lines.append("}")
        return "".join(f"    {line}\n" for line in lines)

    def reduced(self, k: int, op: str, x: str, whole: bool) -> str:
        neutral = "v_set(0)" if op == "sum" else "v_set(-(real)__builtin_inf())"
        x = x if whole else f"v_pick(v_first(n), {x}, {neutral})"
        return f"sum{k} = sum{k} + {x};" if op == "sum" else f"sum{k} = v_max(sum{k}, {x});"

    def adding(self, value: str, to: str) -> str:
        """Over rows, for each vector of columns."""
        loop = ["for (i64 r = r0; r < r1; r++) {"]
        loop += [
            f"    {p}" for p in self.pointers.values() if not p.startswith(f"real *const {to} ")
        ]
        loop += [f"    {line}" for line in [*self.rows, *self.lines]]
        loop += [f"    sum = sum + {value};", "}"]
        target = next(p for p in self.pointers.values() if p.startswith(f"real *const {to} "))
        lines = [target.replace(" + r * ", " + 0 * ")]
        if not self.vector:
            lines += [f"V sum = v_set({to}[0]);", *loop, f"{to}[0] = sum[0];"]
            return "".join(f"    {line}\n" for line in lines)
        lines.append("i64 c = c0;")
        for whole in (True, False):
            head = "for (; c + LANES <= c1; c += LANES) {" if whole else "if (c < c1) {"
            inner = [f"V sum = LOAD({to} + c);", *loop, f"STORE({to} + c, sum);"]
            if not whole:
                inner.insert(0, "const int n = (int)(c1 - c);")
            lines += [head, *(f"    {self.sized(s, whole)}" for s in inner), "}"]
        return "".join(f"    {line}\n" for line in lines)

    def sized(self, line: str, whole: bool) -> str:
        """Loads and stores of a whole vector, or of the first n lanes."""
        if whole:
            line = line.replace("LOAD(", "v_load(").replace("STORE(", "v_store(")
            return line.replace("PIECE(", "v_piece(LANES, ")
        line = line.replace("PIECE(", "v_piece(n, ")
        if line.startswith("STORE("):
            return "v_store_n(" + line.removeprefix("STORE(").removesuffix(");") + ", n);"
        start = line.find("LOAD(")
        while start >= 0:
            end = line.index(")", start)
            line = f"{line[:start]}v_load_n({line[start + 5 : end]}, n{line[end:]}"
            start = line.find("LOAD(")
        return line

    # --- values ---

    def pointer(self, key: int) -> str:
        name = f"p{key}"
        self.pointers.setdefault(key, f"real *const {name} = v[{key}].at + r * v[{key}].row;")
        return name

    def bind(self, source: str, dims: Dims) -> str:
        name = f"x{self.count}"
        self.count += 1
        (self.lines if self.vector and dims else self.rows).append(f"const V {name} = {source};")
        return name

    def store(
        self, name: str, dims: Dims, value: str, stores: list[str], row_stores: list[str]
    ) -> None:
        key = self.names.write(name)
        if key is None:
            return
        if value.startswith("v_set"):
            value = self.bind(value, dims)
        into = row_stores if self.vector and not dims else stores
        into.append(self.put(self.pointer(key), dims, value))

    def into_table(self, name: str, of: Node, stores: list[str]) -> None:
        """Add a row to that row of a table which a number chooses."""
        value = self.expression(of.args[0])
        self.names.read(of.args[1], 0, None)  # before what is written, which comes last
        at, dims = self.table_row(self.written(name), of.args[1], of.dims), of.args[0].dims
        total = self.bind(f"{self.at(at, dims)} + {value}", dims)
        stores.append(self.put(at, dims, total))

    def table_row(self, table: int, chooses: Node, dims: Dims) -> str:
        """A pointer to a row of a table."""
        key = self.names.read(chooses, 0, None)
        at = f"v[{key}].at[r * v[{key}].row]"
        name = f"t{table}"
        self.pointers[-1 - table] = f"real *const {name} = v[{table}].at + (i64){at}" + (
            f" * v[{table}].row;" if len(dims) == 2 else ";"
        )
        return name

    def at(self, pointer: str, dims: Dims) -> str:
        """What stands at a row's pointer: this vector of columns, or one number."""
        return f"LOAD({pointer} + c)" if self.vector and dims else f"v_set({pointer}[0])"

    def put(self, pointer: str, dims: Dims, value: str) -> str:
        """The statement that writes it there."""
        wide = self.vector and dims
        return f"STORE({pointer} + c, {value});" if wide else f"{pointer}[0] = {value}[0];"

    def product(self, out: str) -> str:
        """What the products of this phase left in the tile, and what is added to it."""
        if out not in self.named:
            at = f"tile[{self.outs[out]} * across + (r - r0) * down"
            if self.vector:
                source = f"v_load(&{at} + c - c0])"
            else:
                source = f"v_set({at}])"
            plus = self.plus[out]
            if plus is not None:
                source += f" + {self.expression(plus)}"
            self.named[out] = self.bind(source, self.step.space)
        return self.named[out]

    def expression(self, root: Node) -> str:
        stack = [(root, False)]
        while stack:
            n, ready = stack.pop()
            if n in self.value:
                continue
            if ready or number(n) is not None or n.op in WHOLE:
                self.value[n] = self.one(n)
            else:
                stack.append((n, True))
                stack += [(a, False) for a in reversed(n.args)]
        return self.value[root]

    def one(self, n: Node) -> str:
        value = number(n)
        if value is not None:
            return constant(value)
        args = [self.value.get(a, "") for a in n.args]
        match n.op:
            case "ref":
                name, lag = n.attr
                if lag == 0 and name in self.outs:
                    return self.product(name)
                if lag == 0 and name in self.named:
                    return self.named[name]
                return self.load(n, 0, None, n.dims)
            case "size":
                return self.bind(f"v_set((real)size[{self.names.size(n.attr[0])}])", ())
            case "fill":
                return args[0]
            case "neg":
                return self.bind(f"-{args[0]}", n.dims)
            case "pow":
                p = float.fromhex(n.attr[0])
                square = f"{args[0]} * {args[0]}"
                source = square if p == 2 else f"v_pow({args[0]}, {scalar(p)})"
                return self.bind(source, n.dims)
            case "block":
                start, length = n.attr[0]
                return self.load(n.args[0], start, length, n.dims)
            case "concat":
                start: Dim = 0
                found: list[str] = []
                for a in n.args:
                    found.append(self.piece(a, start, width(a.dims)))
                    start = add_dims(start, width(a.dims))
                return self.bind(" + ".join(found), n.dims)
            case "row":
                table = self.names.read(n.args[0], 0, width(n.dims))
                at = self.table_row(table, n.args[1], n.args[0].dims)
                return self.bind(self.at(at, n.dims), n.dims)
            case "embed":
                start, _ = n.attr[0]
                return self.bind(self.piece(n.args[0], start, width(n.args[0].dims)), n.dims)
            case op if op in INFIX:
                return self.bind(f"{args[0]} {INFIX[op]} {args[1]}", n.dims)
            case op if op in FUNCTIONS:
                return self.bind(f"v_{op}({', '.join(args)})", n.dims)
            case _:
                raise no_spelling(n)

    def load(self, n: Node, start: Dim, length: Dim | None, dims: Dims) -> str:
        return self.bind(self.at(self.pointer(self.names.read(n, start, length)), dims), dims)

    def piece(self, a: Node, start: Dim, length: Dim) -> str:
        """A value that takes the columns from `start` on, and zero beside it."""
        at = self.pointer(self.names.read(a, 0, None))
        where = f"c - size[{self.names.size(start)}]" if start else "c"
        if not self.vector:
            return f"v_set({at}[0])"
        return f"PIECE({at}, {where}, size[{self.names.size(length)}])"


def scalar(value: float) -> str:
    """A number in C."""
    if value != value:
        return '(real)__builtin_nan("")'
    if value in (float("inf"), float("-inf")):
        return "(real)__builtin_inf()" if value > 0 else "-(real)__builtin_inf()"
    return f"(real){value.hex()}"


def constant(value: float) -> str:
    """A number in every lane."""
    return f"v_set({scalar(value)})"


def no_spelling(n: Node) -> BpttError:
    """What to say of an op that this language cannot write: of a function left open, its name."""
    if n.op.startswith("call"):
        OPS[n.op].meaning(n)
    return BpttError(f"the op `{n.op}` has no spelling in C")
