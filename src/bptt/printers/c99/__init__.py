"""One step of a Program in plain C99, for where nothing but a C compiler is.

Loops over the numbers of one sequence: no vectors, no allocation, no library but libm. It is meant
to be read. The source names its values itself: `v` is what an equation computes, `a` a sum or a
largest element, `e` a part of an expression, `t` a vector that some other expression reads. No
word of a user's gets into it.
"""

from bptt.printers.c99.step import Step, Target, fused, print_step
from bptt.printers.c99.words import for_each, number_text, print_helper

__all__ = ["Step", "Target", "for_each", "fused", "number_text", "print_helper", "print_step"]
