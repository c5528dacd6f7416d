"""The Plan's data types: what runs when, for a backend to walk. `calculus.schedule` makes one.

A Plan has four lists of phases of one type. `before`, `edge` and `after` run on all rows of a
window at once (T*B rows; `edge` on B rows, once, behind the loop), `loop` on the B rows of one
step. Names in a Plan stand for series or, inside one region, for scratch; every Node in it is
elementwise over names, except the operands of Gemms and `concat`, `block` of names, and `row` of
a constant table whose number a series has.
"""

from __future__ import annotations

from dataclasses import dataclass

from bptt.ir.dims import Dim, Dims
from bptt.ir.program import Equation, Node, Program


@dataclass(frozen=True)
class Block:
    """A rectangle of a constant matrix as it is stored, transposed on use where said.

    A vector counts as a matrix of one row.
    """

    name: str
    transposed: bool
    row: Dim
    rows: Dim
    col: Dim
    cols: Dim


@dataclass(frozen=True)
class Panel:
    """A matrix packed once a call: `grid[out][operand]`, rows for outputs, columns for operands."""

    name: str
    grid: tuple[tuple[Block, ...], ...]


@dataclass(frozen=True)
class Gemm:
    """concat(outs) = panel @ concat(operands), to which `plus` (one name an out, or None) is added.

    An operand is a reference, or the number 1, whose column of the panel is then a bias.
    """

    outs: tuple[str, ...]
    dims: tuple[Dims, ...]
    panel: str
    operands: tuple[Node, ...]
    plus: tuple[Node | None, ...]


@dataclass(frozen=True)
class Reduce:
    """`out` = the `op` ("sum" or "row_max") of each row of `of`."""

    out: str
    op: str
    of: Node


@dataclass(frozen=True)
class Accum:
    """`name` += the sum over rows of `of`, elementwise over series.

    Where `of` is `put_row(v, k)`, `name` has rows itself: its row k[t] gets v[t] added.
    """

    name: str
    of: Node


@dataclass(frozen=True)
class Phase:
    """Gemms, then an elementwise body over `space`, then reductions of its rows, then sums."""

    space: Dims
    gemms: tuple[Gemm, ...]
    body: tuple[Equation, ...]
    reduces: tuple[Reduce, ...]
    accums: tuple[Accum, ...] = ()


@dataclass(frozen=True)
class TimeGemm:
    """concat(left)^T concat(right) over all rows of the window: the rows of `outs`, in order.

    `rows` says how many of the `left` each of the outs takes. A `right` of the number 1 alone
    is a sum over rows.
    """

    outs: tuple[str, ...]
    rows: tuple[int, ...]
    left: tuple[Node, ...]
    right: tuple[Node, ...]


@dataclass(frozen=True)
class Roll:
    """What a step hands to the next one as `name[t-1]`: the `value` it computed.

    `start`: the state of the Program whose start it has, or None for zero.
    """

    name: str
    value: str
    dims: Dims
    start: str | None


@dataclass(frozen=True)
class Plan:
    """What a backend runs. `stacks`: names that lie side by side in one buffer, in this order.

    `series`: what must exist at every step behind its region. `finals`: where the final value
    of each state is found: the name of a Roll, or of an `edge` out.
    """

    program: Program
    panels: tuple[Panel, ...]
    once: tuple[Equation, ...]
    before: tuple[Phase, ...]
    loop: tuple[Phase, ...]
    rolls: tuple[Roll, ...]
    lagged: tuple[Roll, ...]  # read one step back, but not computed in the loop
    edge: tuple[Phase, ...]
    after: tuple[Phase, ...]
    time_gemms: tuple[TimeGemm, ...]
    finish: tuple[Equation, ...]
    series: tuple[tuple[str, Dims], ...]
    stacks: tuple[tuple[str, ...], ...]
    finals: tuple[tuple[str, str], ...]
    aliases: tuple[tuple[str, Node], ...]  # an output that is another name, or a given
