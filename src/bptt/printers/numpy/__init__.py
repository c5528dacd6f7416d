"""A Plan's phases as Python source over arrays, for the reference backend.

The source names its values itself: `s` series, `o` slots to fill, `h` what the last step handed
on, `c` constants, `v` scratch, `n` sizes, `L` an array whose number
format others have. No word of a user's gets into it. `X` is the table of
array functions. Rows are the last axis but one, columns the last; a number has one column.
"""

from bptt.printers.numpy.names import Printed
from bptt.printers.numpy.once import print_once
from bptt.printers.numpy.rows import phase_names, phase_reads, print_rows, print_step

__all__ = ["Printed", "phase_names", "phase_reads", "print_once", "print_rows", "print_step"]
