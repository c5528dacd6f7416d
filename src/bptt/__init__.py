"""The backward pass of any recurrent cell, derived from its equations, proven, and run.

>>> import bptt
>>> lstm = bptt.load("lstm")
>>> print(lstm.derivation())
>>> assert bptt.check("lstm").ok
"""

from bptt.cell import Cell, check, derive, load, trace
from bptt.errors import BpttError, CellError, UserError

__all__ = ["BpttError", "Cell", "CellError", "UserError", "check", "derive", "load", "trace"]
