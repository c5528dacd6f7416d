"""A Plan in C: phase bodies on vectors, and the tables that the driver of backends/cpu walks."""

from bptt.ir.plan import Plan
from bptt.printers.c.tables import Printed, Tables

__all__ = ["Printed", "print_c"]


def print_c(plan: Plan) -> Printed:
    """The translation unit of `plan`."""
    return Tables(plan).printed()
