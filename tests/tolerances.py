"""Every tolerance that a test uses, and why it is what it is. No test writes one itself.

Unless it says otherwise, an error is relative to the largest entry of its own tensor, never
entry by entry: y*(1 - y) through a saturated value y has no relative accuracy of its own.
"""

from bptt.proof.report import FLOOR, LIMITS

# The unit of float64: 2**-52.
EPS = 2.220446049250313e-16

# --- gradients: the limits of `bptt check` (ir.md, section 5) -------------------------------------

# Derived against the complex step. Both round some hundreds of operations: 2.3e-14 is the worst
# seen in 40 samples of every shape of cell.
COMPLEX_STEP = LIMITS["complex step"]
# Derived against four-point differences, whose own error is 1e-12 to 2e-10 (the latter for
# second derivatives, where a kink asks for a shorter step).
DIFFERENCES = LIMITS["differences"]
# A tensor whose truth is 0 may hold this part of the largest entry of any tensor: the rounding
# of terms that cancel.
ZERO = LIMITS["zero"]
# A tensor's scale is at least this part of the largest entry of any tensor.
SCALE_FLOOR = FLOOR

# --- testing the tester ---------------------------------------------------------------------------

# A derived line that is wrong by this factor must be caught: 0.1 %.
MUTATION = 1.001
# A mistake shows only if it moves some tensor by this many limits; less could be rounding.
VISIBLE = 10.0
# An error of 1e-17 that is planted in a number of 1e-8 is itself rounded, by 2e-24.
ADDED = 1e-6

# --- ops ------------------------------------------------------------------------------------------

# One op's derivative against its complex step: each is a handful of operations on numbers of
# size 1, so a few units in the last place.
OP_DERIVATIVE = 64 * EPS
# One op's value against its value in 50 digits: half a unit for each of the few roundings inside.
OP_VALUE = 4 * EPS
# What a complex step of 1e-30 adds to the real part: its square, times a second derivative.
STEP_SQUARED = 1e-58
# A Program before and after a rewrite that keeps the meaning: the order of a sum may change.
REWRITE = 1e-13

# --- backends -------------------------------------------------------------------------------------

# A backend against the oracle, relative to the tensor's largest entry (at least 1). A gradient
# sums some tens of products of numbers of size 1, in another order than the oracle's.
BACKEND = {"float64": 1e-13, "float32": 3e-5}
# Products of three parts of each operand, beside what they amount to: three of nine are left out,
# of 2^-24 each at most, and float32 rounds each sum of two tiles.
PARTS = 2.0**-22
# Second derivatives: those of layer normalization divide some twenty such products by a variance
# (at least 0.2 in the tests) to the power 5/2: 20 * 0.2**-2.5 = 1100 roundings.
BACKEND_SECOND = 1100 * EPS

# Two backends, or a backend on one thread and on two, on random values that nobody scaled: sums of
# hundreds of products in another order, divided by deviations of rows that may be small.
BACKEND_WIDE = 1e-11

# Random cells: the backend against the oracle and against torch, up to second derivatives. Nobody
# chose their condition: roundings of 1e-16 grow by what a few hundred operations in a row divide by
# and multiply with. A term that is wrong shows as a part of 1, and not of a thousand million.
RANDOM = 1e-9
# A sample of a random cell is drawn again when an argument is so near a kink that rounding alone
# could put it on the other side.
AWAY_FROM_KINKS = 1e-7
# Or when a value grows to more than this: then its derivatives do by powers of it.
TAME = 30.0

# A function of the compiled engine's vector maths against the truth, in units in the last place of
# a normal result: the promise of docs/accuracy.md, which has what was measured.
ULPS = 4
# How far another compiler may be from what was measured there: it may join other products and sums
# into one rounding, half a unit each time.
ULPS_OTHERWISE = 0.5
# A coefficient of theirs that is wrong by this part must be caught. That of a term which is a tenth
# of the result shows in float32, whose unit is 1e-7, from some 1e-5 on.
COEFFICIENT = {"float64": 1e-6, "float32": 1e-4}

# --- worked examples ------------------------------------------------------------------------------

# The numbers of a worked example against torch's, of size 1: some tens of roundings of 1e-16 would
# do; a billionth is far below what anybody prints.
TRACE = 1e-9
# A number against the digits of a post that rounds to five decimals and goes on with what it
# rounded: ten times half a unit of its last place.
PRINTED = 5e-5

# --- hand-written backward passes -----------------------------------------------------------------

# Two lines that give the same, as a part of the largest entry: each is a sum of a few products of
# numbers of size 1, and a slip shows as a part of 1.
SAME_LINE = 1e-9

# --- torch ----------------------------------------------------------------------------------------

# A cell through `run`, or a layer, against the same in plain torch ops, in float64 and relative
# to the tensor's largest entry (at least 1): values, first and second derivatives.
TORCH = 1e-10
# Third derivatives of sums of cubes: some thousand terms, of size up to a hundred.
TORCH_THIRD = 1e-8
# A batch whose sequences are set back in the midst, against the pieces apart, in float64.
PIECES = 1e-12
# A mean of random numbers against its expectation, in deviations of such a mean: with a fixed seed,
# of which one in two million is farther off.
SIGMAS = 5.0
# A result that was rounded once to bfloat16, which has 8 bits.
BFLOAT16 = 2**-8
# Under autocast, at 1,000 steps and against float64: the state is float32 inside, and the output is
# rounded once, to 8 or 11 bits. The adjoint of the output is rounded as often: each gradient is off
# by such a part of its largest entry, twice that where a few terms of random sign do not cancel.
AUTOCAST = {"bfloat16": 2**-8, "float16": 2**-11}
AUTOCAST_STATE = 1e-5
AUTOCAST_GRADIENT = {"bfloat16": 2**-7, "float16": 2**-10}
# The losses of a program in float64 over some ten updates: each adds roundings of 1e-16, which
# Adam's division by the root of small squares makes a few thousand times larger.
SAME_PROGRAM = 1e-9

# --- exported files -------------------------------------------------------------------------------

# A layer in plain C, or in onnxruntime, against the layer over some steps, relative to the largest
# entry (at least 1): sums of tens of products in another order, 6e-8 or 1e-16 each, in a state that
# carries them on.
EXPORTED = {"float": 1e-5, "double": 1e-10}

# --- other libraries ------------------------------------------------------------------------------

# A cell against the same in another library, relative to the tensor's largest entry (at least 1).
# In float64 both round some tens of products of numbers of size 1. A library in float32 rounds
# each by 6e-8, and we compare in float64 with the numbers it was given.
ELSEWHERE = {"float64": 1e-13, "float32": 2e-6}

# --- tasks ----------------------------------------------------------------------------------------

# A stream computed beside other streams or with other starts: the same float32 products of a few
# steps, whose blocking may change with the batch. Eight units of 1.2e-7.
SAME_STREAM = 1e-6
# The losses of a run and its twin on other code over thirty updates: each update adds the rounding
# of its gradients, 1e-7, to the parameters of the next.
SAME_LOSSES = 30 * 1e-6
