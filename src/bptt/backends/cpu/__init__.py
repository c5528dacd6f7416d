"""The compiled backend: a sweep's phases printed in C, and a driver in C that walks them."""

from bptt.backends.cpu.run import KINDS, execute

__all__ = ["KINDS", "execute"]
