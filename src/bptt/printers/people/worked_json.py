"""A worked example as JSON, for machines: all digits of every number."""

from __future__ import annotations

import json
import math
from typing import Any

from bptt.errors import UserError
from bptt.printers.people.plain import Plain
from bptt.printers.people.reading import Reading
from bptt.printers.people.worked import Array, Item, Worked


def text(worked: Worked, digits: int = 0) -> str:
    """`data` as text; `digits`, which the other formats round to, is of no matter."""
    return json.dumps(data(worked), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def data(worked: Worked) -> dict[str, Any]:
    """All values of a worked example, each line with its equation and its reason.

    What is given stands in the sections of a file of values, so that it can be read back. Raises
    UserError where a number is not finite: JSON has no word for it.
    """
    given = {
        role: {worked.spelled(name).stem: _value(worked, role, name) for name in names}
        for role, names in worked.roles.items()
    }
    return {
        "cell": worked.name,
        "title": worked.title,
        "by": worked.by,
        "length": worked.length,
        "sizes": dict(worked.sizes),
        "seed": worked.seed,
        "drawn": sorted(worked.spelled(name).text for name in worked.drawn),
        "functions": dict(worked.functions),
        "given": given,
        "forward": _items(worked, worked.forward, worked.steps),
        "loss": worked.loss,
        "total": worked.total,
        "backward": _items(worked, worked.backward, worked.back),
        "rate": worked.rate,
        "updates": [
            {
                "name": update.name,
                "before": _numbers(update.before, update.name),
                "gradient": _numbers(update.gradient, update.name),
                "after": _numbers(update.after, update.name),
            }
            for update in worked.updates
        ],
    }


def _value(worked: Worked, role: str, name: str) -> Any:
    return _numbers(worked.starts[name] if role == "states" else worked.values[name], name)


def _items(worked: Worked, found: Reading, items: tuple[Item, ...]) -> list[dict[str, Any]]:
    printer = Plain(found)
    texts = {item.line: "" for item in items}
    for line in texts:
        texts[line] = f"{printer.left(line)} = {''.join(printer.right(line))}"
    return [_item(worked, item, texts[item.line]) for item in items]


def _item(worked: Worked, item: Item, text: str) -> dict[str, Any]:
    name = worked.spelled(item.line.name).text
    found: dict[str, Any] = {"name": name, "t": item.t, "text": text}
    found["value"] = _numbers(item.value, name)
    if item.split is not None:
        found["now"], found["later"] = (_numbers(part, name) for part in item.split)
    if item.reason:
        found["reason"] = item.reason
    return found


def _numbers(value: Array, name: str) -> Any:
    """An array as lists of numbers."""
    found = value.tolist()
    flat = value.reshape(-1).tolist()
    if not all(map(math.isfinite, flat)):
        bad = next(x for x in flat if not math.isfinite(x))
        help = "give other values, of which it has a number"
        raise UserError(f"`{name}` is {bad} somewhere, which JSON cannot say", help=help)
    return found
