"""The tables of a sweep in C: places, keys, phases, products (see backends/cpu/loop.h)."""

from __future__ import annotations

from dataclasses import dataclass, field

from bptt.ir.dims import Dim, add_dims, terms
from bptt.ir.ops import number
from bptt.ir.plan import Block, Plan, TimeGemm
from bptt.ir.ports import At, Port, inputs, outputs
from bptt.ir.program import Node, walk
from bptt.printers.c.bodies import Body, Names, scalar
from bptt.printers.c.joined import joined
from bptt.printers.c.phases import PIECES, ZERO, Base, Lowering, Product, Reader, Step, width
from bptt.printers.c.places import Place, Places


@dataclass(frozen=True)
class Printed:
    """A translation unit, and what its call takes: a port for each of `inputs`, `outputs`, then
    one for each of `once` (values without time, worked out before) and `sums` (for after)."""

    source: str
    sizes: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    once: tuple[str, ...]
    sums: tuple[str, ...]


@dataclass
class _Table:
    """Rows of a C array."""

    rows: list[str] = field(default_factory=list[str])

    def add(self, row: str) -> int:
        self.rows.append(row)
        return len(self.rows) - 1

    def index(self, row: str) -> int:
        return self.rows.index(row) if row in self.rows else self.add(row)

    def text(self, kind: str, name: str) -> str:
        rows = "".join(
            f"    {row},\n" for row in self.rows or ["{0}" if kind[0].isupper() else "0"]
        )
        return f"static const {kind} {name}[] = {{\n{rows}}};\n"


class Tables:
    """Prints one Plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.p = plan, plan.program
        low = Lowering(plan).lowered()
        self.low = low
        self.reader = Reader(plan, low)
        self.places = Places(plan, low, self.reader)
        self.size_names = sorted(self.names_of_sizes())
        self.sizes: dict[Dim, int] = {0: 0}
        names = ("place", "key", "phase", "reduce", "gemm", "block", "time", "right", "out")
        self.t = {name: _Table() for name in names}
        self.number, self.number_width = _Table(), _Table()
        self.numbers: dict[tuple[str, Dim], int] = {}
        self.packs: dict[object, int] = {}
        self.bodies: list[str] = []
        self.once = tuple(e.name for e in plan.once)
        sums = [s.body[-1].name for s in low.after if s.adds in ("rows", "table")]
        sums += [name for g in plan.time_gemms for name in g.outs]
        outs = outputs(self.p)
        self.sums = tuple(n for n in sums if Port(n, At.CONST) not in outs)
        self.ports: dict[object, int] = {}
        for port in (*inputs(self.p), *outs):
            self.ports[port] = len(self.ports)
        for name in (*self.once, *self.sums):
            self.ports[name] = len(self.ports)

    def names_of_sizes(self) -> set[str]:
        p = self.p
        found = {s for v in p.values for d in v.dims for s in terms(d) if s}
        return found | {s for e in p.equations for d in e.rhs.dims for s in terms(d) if s}

    # --- sizes, places, keys ---

    def size(self, dim: Dim) -> int:
        return self.sizes.setdefault(dim, len(self.sizes))

    def port(self, port: Port) -> int:
        if port.at is At.CONST and port.name in self.ports:
            return self.ports[port.name]
        return self.ports[port]

    def placed(self, place: Place) -> int:
        if place.port is not None:
            index = self.port(place.port)
        else:
            index = place.buffer
        col, wide = self.size(place.col), self.size(place.width)
        return self.t["place"].index(f"{{PLACE_{place.kind}, {index}, {wide}, {col}}}")

    def given(self, kind: str, port: Port, wide: Dim) -> int:
        return self.t["place"].index(f"{{PLACE_{kind}, {self.port(port)}, {self.size(wide)}, 0}}")

    def numbered(self, value: str, wide: Dim) -> int:
        found = self.numbers.get((value, wide))
        if found is None:
            found = self.number.add(scalar(float.fromhex(value)).replace("(real)", ""))
            self.number_width.add(str(self.size(wide)))
            self.numbers[value, wide] = found
        return self.t["place"].index(f"{{PLACE_NUMBER, {found}, {self.size(wide)}, 0}}")

    def base(self, base: Base, wide: Dim) -> int:
        match base.kind:
            case "made":
                return self.placed(self.places.place[base.name])
            case "given":
                return self.given("SERIES", Port(base.name, At.STEPS), wide)
            case "static":
                return self.given("BATCH", Port(base.name, At.STATIC), wide)
            case "number":
                return self.numbered(base.name, wide)
            case _:
                return self.given("FIXED", Port(base.name, At.CONST), wide)

    def key(self, n: Node, start: Dim = 0, length: Dim | None = None) -> str:
        """A leaf as a key: a place, and what stands there beyond the sequence's end."""
        if n.op == "block":
            return self.key(n.args[0], *n.attr[0])
        base, wide = self.reader.node(n), width(n.dims)
        place, edge = self.base(base, wide), 0
        shift = base.shift if base.kind != "static" else 0
        if shift and isinstance(base.edge, Base):
            edge = self.base(base.edge, wide)
        elif shift and isinstance(base.edge, Port):
            edge = self.given("BATCH", base.edge, wide)
        used = wide if length is None else length
        return f"{{{place}, {shift}, {edge}, {self.size(start)}, {self.size(used)}}}"

    # --- phases ---

    def phase(self, step: Step, group: set[str], products: list[Product] | None = None) -> None:
        """`group`: what the phases of this one's region make. `products`: to be done in place of
        the step's own and of what these add."""
        keys: list[str] = []
        flags: set[str] = set()
        gemms: list[tuple[Product, int]] = []
        for q in step.products:
            gemms.append((q, len(keys)))
            keys += [self.key(o) for o in q.operands]
            for o in q.operands:
                self.flag(o, flags)
        first = len(self.t["key"].rows)
        reads = {key: keys.index(key) for key in keys}  # none of which is written

        def read(n: Node, start: Dim, length: Dim | None) -> int:
            self.flag(n, flags)
            key = self.key(n, start, length)
            if key not in reads:
                reads[key] = len(keys)
                keys.append(key)
            base = self.reader.node(n)
            if base.kind == "made" and base.name in group and (start or not n.dims):
                flags.add("WIDE")
            return reads[key]

        def write(name: str) -> int | None:
            place = self.places.place.get(name)
            if place is None:
                return None
            if place.kind == "BATCH" and step.adds:
                flags.add("STEPWISE")
            wide = self.size(place.width)
            keys.append(f"{{{self.placed(place)}, 0, 0, 0, {wide}}}")
            return len(keys) - 1

        body = self.body(Body(step, Names(read, write, self.size)).source())
        if any(n.op in PIECES for n in walk(*step.reads())):
            flags.add("WIDE")
        if step.adds:
            flags.add("COLUMNS")
        if self.straight(step) and products is None:  # or what it writes is not its last key
            flags.add("STRAIGHT")
        reduces: list[int] = []
        for r in step.reduces:
            key = write(r.out)
            if key is None:
                continue
            op = "REDUCE_SUM" if r.op == "sum" else "REDUCE_MAX"
            reduces.append(self.t["reduce"].add(f"{{{op}, {key}}}"))
        assert len(reduces) == len(step.reduces), "a reduction is read by somebody"
        if products is not None:
            for n in (n for q in step.products for n in q.plus if n is not None):
                keys[reads[self.key(n)]] = self.zeros(n)
            gemms = []
            for q in products:
                gemms.append((q, len(keys)))
                keys += [self.key(o) for o in q.operands]
        rows = [self.gemm(q, first + at, step) for q, at in gemms]
        self.t["key"].rows += keys
        tiles = sum(len(q.outs) for q in step.products)
        said = " | ".join(f"PHASE_{flag}" for flag in sorted(flags)) or "0"
        self.t["phase"].add(
            f"{{{self.size(width(step.space))}, {rows[0] if rows else 0}, {len(rows)}, {tiles}, "
            f"{first}, {len(keys)}, {reduces[0] if reduces else 0}, {len(reduces)}, "
            f"{self.size(self.added_rows(step))}, {said}, body{body}}}"
        )

    def gemm(self, q: Product, keys: int, step: Step) -> int:
        return self.t["gemm"].add(
            f"{{{len(q.outs)}, {len(q.operands)}, {keys}, {q.ones}, "
            f"{self.blocks(q.blocks)}, {self.packed(q.blocks, q.operands, step)}}}"
        )

    def zeros(self, n: Node) -> str:
        """A key of as many zeros as `n` is wide."""
        return f"{{{self.base(ZERO, width(n.dims))}, 0, 0, 0, {self.size(width(n.dims))}}}"

    def straight(self, step: Step) -> bool:
        """Whether a phase is a product that is kept as it is, with nothing added."""
        outs = [(out, p) for q in step.products for out, p in zip(q.outs, q.plus, strict=True)]
        if step.body or step.reduces or len(outs) != 1 or not step.space:
            return False
        return outs[0][1] is None and outs[0][0] in self.places.place

    def body(self, source: str) -> int:
        """The number of a body; phases that do the same share one."""
        if source not in self.bodies:
            self.bodies.append(source)
        return self.bodies.index(source)

    def added_rows(self, step: Step) -> Dim:
        """How many rows a sum has."""
        return step.body[-1].rhs.dims[0] if step.adds == "table" else 1

    def flag(self, n: Node, flags: set[str]) -> None:
        base = self.reader.node(n.args[0] if n.op == "block" else n)
        if base.kind == "static":
            flags.add("STEPWISE")
        elif base.shift:
            flags.add("SHIFTED")

    def blocks(self, rows: tuple[tuple[Block, ...], ...]) -> int:
        first = len(self.t["block"].rows)
        for b in (b for row in rows for b in row):
            dims = self.dims(b.name)
            place = self.given("FIXED", Port(b.name, At.CONST), 1)
            spans = ", ".join(str(self.size(d)) for d in (b.row, b.rows, b.col, b.cols))
            assert len(dims) <= 2
            self.t["block"].add(f"{{{place}, {int(b.transposed)}, {spans}}}")
        return first

    def dims(self, name: str) -> tuple[Dim, ...]:
        for e in self.plan.once:
            if e.name == name:
                return e.rhs.dims
        return self.p.dims(name)

    def packed(
        self, rows: tuple[tuple[Block, ...], ...], operands: tuple[Node, ...], step: Step
    ) -> int:
        """Products of the same matrices share what is packed."""
        widths = tuple(width(o.dims) for o in operands)
        return self.packs.setdefault((rows, widths, step.space), len(self.packs))

    # --- sums over time ---

    def time(self) -> None:
        lefts: dict[tuple[str, ...], list[TimeGemm]] = {}
        for g in self.plan.time_gemms:
            left = tuple(self.key(n) for n in g.left)
            lefts.setdefault(left, []).append(g)
        for left, gemms in lefts.items():
            at = len(self.t["key"].rows)
            self.t["key"].rows += left
            rights = len(self.t["right"].rows)
            for g in gemms:
                outs = len(self.t["out"].rows)
                for name, count in self.outs_of(g):
                    place = self.placed(Place("FIXED", Port(name, At.CONST)))
                    self.t["out"].add(f"{{{place}, {self.size(count)}}}")
                ones = [(number(n), width(n.dims)) for n in g.right] == [(1.0, 1)]
                keys = [] if ones else [self.key(n) for n in g.right]
                first = len(self.t["key"].rows)
                self.t["key"].rows += keys
                self.t["right"].add(f"{{{first}, {len(keys)}, {outs}}}")
            flags: set[str] = set()
            for n in (n for g in gemms for n in (*g.left, *g.right)):
                self.flag(n, flags)
            each = int("STEPWISE" in flags)
            self.t["time"].add(f"{{{at}, {len(left)}, {rights}, {len(gemms)}, {each}}}")

    def outs_of(self, g: TimeGemm) -> list[tuple[str, Dim]]:
        """For each of the left: the sum it is a part of, and its first row there."""
        found: list[tuple[str, Dim]] = []
        left = iter(g.left)
        for name, count in zip(g.outs, g.rows, strict=True):
            row: Dim = 0
            for _ in range(count):
                found.append((name, row))
                row = add_dims(row, width(next(left).dims))
        return found

    # --- the whole ---

    def printed(self) -> Printed:
        ranges: dict[str, tuple[int, int]] = {}
        groups: dict[str, list[str]] = {}
        for region in ("before", "loop", "after", "first", "last"):
            start = len(self.t["phase"].rows)
            made = {n for s in self.low.regions()[region] for n in s.made()}
            for group in self.places.groups[region]:
                at = len(self.t["phase"].rows)
                for step in group:
                    self.phase(step, made)
                groups.setdefault(region, []).append(f"{{{at}, {len(group)}}}")
            ranges[region] = (start, len(self.t["phase"].rows) - start)
        other = joined(self.low, self.places, self.reader)
        start = -1 if other is None else len(self.t["phase"].rows)
        made = {n for s in self.low.loop for n in s.made()}
        for step, products in zip(self.low.loop, other or (), strict=False):
            self.phase(step, made, products)
        self.time()
        places = self.places.buffers
        lines = [
            '#include "loop.h"',
            "",
            self.measure(),
            *(b.format(k) for k, b in enumerate(self.bodies)),
        ]
        kinds = {
            "place": "Place",
            "key": "Key",
            "phase": "Phase",
            "reduce": "Reduction",
            "gemm": "Gemm",
            "block": "Block",
            "time": "TimeGemm",
            "right": "Right",
            "out": "Out",
        }
        lines += [self.t[name].text(kind, f"{name}_table") for name, kind in kinds.items()]
        lines.append(_Table([str(self.size(b.width)) for b in places]).text("int", "buffer_table"))
        lines.append(_Table([f"PLACE_{b.kind}" for b in places]).text("int", "kind_table"))
        lines.append(self.number.text("double", "number_table"))
        lines.append(self.number_width.text("int", "width_table"))
        for region in ("before", "after"):
            lines.append(_Table(groups.get(region, [])).text("Group", f"{region}_table"))
        t = self.t
        spans = ", ".join(
            f".{r} = {ranges[r][0]}, .{r}_count = {ranges[r][1]}" for r in ("loop", "first", "last")
        )
        counts = ", ".join(f".{r}_count = {len(groups.get(r, []))}" for r in ("before", "after"))
        lines.append(
            '__attribute__((visibility("default"))) const Sweep bptt_sweep = {\n'
            f"    .windows = {int(self.places.windows())}, "
            f".follows = {int(self.places.follows())}, .ahead = {int(self.places.ahead())}, "
            f".dir = {self.p.dir}, .sizes = {len(self.sizes)}, .ports = {len(self.ports)}, "
            f".places = {len(t['place'].rows)}, .buffers = {len(places)},\n"
            f"    .keys = {len(t['key'].rows)}, .phases = {len(t['phase'].rows)}, "
            f".packed = {len(self.packs)}, .numbers = {len(self.numbers)},\n"
            f"    .measure = measure, .place = place_table, .buffer = buffer_table, "
            ".buffer_kind = kind_table,\n"
            "    .number = number_table, .number_width = width_table, .key = key_table,\n"
            "    .phase = phase_table, .reduce = reduce_table, .gemm = gemm_table,\n"
            "    .block = block_table, .before = before_table, .after = after_table,\n"
            f"    {counts}, {spans}, .joined = {start},\n"
            f"    .time = time_table, .time_count = {len(t['time'].rows)}, "
            ".right = right_table, .out = out_table,\n};\n"
        )
        # measured last, when all sizes are known
        lines[2] = self.measure()
        return Printed(
            "\n".join(lines),
            tuple(self.size_names),
            inputs(self.p),
            outputs(self.p),
            self.once,
            self.sums,
        )

    def measure(self) -> str:
        lines = "".join(f"    size[{k}] = {self.dim(dim)};\n" for dim, k in self.sizes.items())
        return f"static void measure(const i64 *n, i64 *size) {{\n    (void)n;\n{lines}}}\n"

    def dim(self, dim: Dim) -> str:
        parts = [
            f"{k} * n[{self.size_names.index(s)}]" if s else str(k) for s, k in terms(dim).items()
        ]
        return " + ".join(parts) or "0"
