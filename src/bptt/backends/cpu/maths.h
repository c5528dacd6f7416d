// The elementwise functions of cells on vectors: no branches, no tables; the C library where said.
//
// Each is within 4 units in the last place for all normal results, float and double, and right at
// zeros, infinities and NaN; docs/accuracy.md has the measured numbers. A result below the smallest
// normal number may be 0.
#ifndef BPTT_MATHS_H
#define BPTT_MATHS_H

#include "lanes.h"

#include <math.h>

// --- what one machine has and another lacks ------------------------------------------------------

// BPTT_MACHINE(min, a, b): the x86 instruction, one of two spellings; it gives b where one is NaN.
#if BPTT_WIDE
#define BPTT_LIBRARY(name) name
#else
#define BPTT_LIBRARY(name) name##f
#endif
#define BPTT_AS_IS 4 // round as the machine is set to
#if BPTT_BYTES == 64 && defined(__AVX512F__)
#if __has_builtin(__builtin_ia32_minps512_mask)
#define BPTT_MACHINE(op, a, b) BPTT_NAME(op, 512_mask)(a, b, a, -1, BPTT_AS_IS)
#define BPTT_ROOT(a) BPTT_NAME(sqrt, 512_mask)(a, a, -1, BPTT_AS_IS)
#elif __has_builtin(__builtin_ia32_minps512)
#define BPTT_MACHINE(op, a, b) BPTT_NAME(op, 512)(a, b, BPTT_AS_IS)
#endif
#elif BPTT_BYTES == 32 && defined(__AVX__)
#define BPTT_MACHINE(op, a, b) BPTT_NAME(op, 256)(a, b)
#elif BPTT_BYTES == 16 && defined(__SSE2__)
#define BPTT_MACHINE(op, a, b) BPTT_NAME(op, )(a, b)
#endif

// x, but no less than (no more than) the bound; NaN stays NaN.
BPTT_INLINE V v_at_least(V x, V bound) {
#ifdef BPTT_MACHINE
  return (V)BPTT_MACHINE(max, bound, x);
#else
  return v_pick(bound > x, bound, x);
#endif
}

BPTT_INLINE V v_at_most(V x, V bound) {
#ifdef BPTT_MACHINE
  return (V)BPTT_MACHINE(min, bound, x);
#else
  return v_pick(bound < x, bound, x);
#endif
}

// a / b for b in [1, 1e30]: of 16 floats at once, an estimate of 14 bits and a step from it are
// faster than a division, most of all beside other divisions.
BPTT_INLINE V v_over(V a, V b) {
#if BPTT_BYTES == 64 && !BPTT_WIDE && defined(__AVX512F__) && \
    __has_builtin(__builtin_ia32_rcp14ps512_mask)
  V guess = (V)__builtin_ia32_rcp14ps512_mask(b, b, (unsigned short)-1);
  V first = a * guess;
  return first - guess * (b * first - a); // so -0 stays -0
#else
  return a / b;
#endif
}

// --- simple ones ---------------------------------------------------------------------------------

#define BPTT_SIGN ((bits)1 << (8 * sizeof(real) - 1))

BPTT_INLINE V v_abs(V x) { return (V)((U)x & ~(U){BPTT_EACH(BPTT_SIGN)}); }

// x with the sign of another.
BPTT_INLINE V v_with_sign(V x, V sign) {
  const U bit = {BPTT_EACH(BPTT_SIGN)};
  return (V)(((U)x & ~bit) | ((U)sign & bit));
}

BPTT_INLINE V v_sqrt(V x) {
#ifdef BPTT_ROOT
  return (V)BPTT_ROOT(x);
#else
  V y;
  for (int i = 0; i < LANES; i++) y[i] = BPTT_LIBRARY(sqrt)(x[i]);
  return y;
#endif
}

// 1 where the mask is set, else 0.
BPTT_INLINE V v_one(I mask) { return (V)(mask & (I)v_set(1)); }

BPTT_INLINE V v_positive(V x) { return v_one(x > 0); }
BPTT_INLINE V v_sign(V x) { return v_one(x > 0) - v_one(x < 0); }
BPTT_INLINE V v_same(V a, V b) { return v_one(a == b); }
BPTT_INLINE V v_unless(V a, V c) { return (V)((I)a & ~(c > 0)); }
BPTT_INLINE V v_prefer(V a, V b) { return (real)0.5 + (real)0.5 * (v_one(a > b) - v_one(a < b)); }
BPTT_INLINE V v_relu(V x) { return v_at_least(x, v_set(0)); }
BPTT_INLINE V v_min(V a, V b) { return v_pick((a <= b) | (a != a), a, b); }
BPTT_INLINE V v_softsign(V x) { return x / (1 + v_abs(x)); }

// --- exp -----------------------------------------------------------------------------------------

// Constants by precision. The polynomials are minimax fits, their coefficients rounded one by one.
#if BPTT_WIDE
#define BPTT_DIGITS 52 // of the fraction
#define BPTT_BIAS 1023 // of the exponent
#define BPTT_LN2_HIGH 0x1.62e42fefp-1 // with so few bits that a product with an exponent is exact
#define BPTT_LN2_LOW 0x1.473de6af278edp-34
#define BPTT_EXP_TOP 711 // exp of this is infinite
#define BPTT_EXP_END -746 // exp of this is 0
#define BPTT_POWER_TOP 710 // e to this is nearest to 2^1024, whose bits are those of infinity
#define BPTT_POWER_END (real)-709.2 // nearest to 2^-1023, whose bits are those of 0
#define BPTT_TANH_TOP 19.1 // tanh of this is 1
#define BPTT_LEAST 0x1p-1022 // the smallest normal number
#define BPTT_ONE (bits)0x3ff0000000000000 // the bits of 1
#define BPTT_ROOT_HALF (bits)0x3fe6a09e667f3bcd // the bits of sqrt(1/2)
#else
#define BPTT_DIGITS 23
#define BPTT_BIAS 127
#define BPTT_LN2_HIGH 0x1.63p-1f
#define BPTT_LN2_LOW -0x1.bd0106p-13f
#define BPTT_EXP_TOP 89
#define BPTT_EXP_END -104
#define BPTT_POWER_TOP 89
#define BPTT_POWER_END -88
#define BPTT_TANH_TOP 9.13f // tanh of this is 1, also as computed, by each compiler tried
#define BPTT_LEAST 0x1p-126f
#define BPTT_ONE (bits)0x3f800000
#define BPTT_ROOT_HALF (bits)0x3f3504f3
#endif
#define BPTT_FRACTION (((bits)1 << BPTT_DIGITS) - 1)
// Adding this rounds to a whole number, which then stands in the last bits of the sum.
#define BPTT_ROUND ((real)1.5 * (real)((bits)1 << BPTT_DIGITS))

// What is left of x after taking away n times ln 2.
BPTT_INLINE V v_rest(V x, V n) { return x - n * BPTT_LN2_HIGH - n * BPTT_LN2_LOW; }

// The polynomial P with e^r = 1 + r + r^2 P(r), for |r| <= ln 2 / 2.
BPTT_INLINE V v_exp_tail(V r) {
#if BPTT_WIDE
  V p = 0x1.1f2e31869c684p-29 * r + 0x1.af5cd432b59fep-26;
  p = p * r + 0x1.27e4ff7fb9035p-22;
  p = p * r + 0x1.71ddf95bd74a7p-19;
  p = p * r + 0x1.a01a019b80818p-16;
  p = p * r + 0x1.a01a01af8c313p-13;
  p = p * r + 0x1.6c16c16c16e3fp-10;
  p = p * r + 0x1.111111110f731p-7;
  p = p * r + 0x1.5555555555559p-5;
  p = p * r + 0x1.5555555555559p-3;
  return p * r + 0.5;
#else
  V p = 0x1.6b72b0p-10f * r + 0x1.122534p-7f;
  p = p * r + 0x1.555716p-5f;
  p = p * r + 0x1.5554b4p-3f;
  return p * r + 0x1.fffffep-2f;
#endif
}

// e^r for |r| <= ln 2 / 2.
BPTT_INLINE V v_exp_rest(V r) { return (v_exp_tail(r) * r + 1) * r + 1; }

// The whole number nearest to x / ln 2, in a form from which v_count takes it as a number and
// v_two_to as a power of two. That is infinite for 2^128 and 0 for 2^-127 (in float).
BPTT_INLINE V v_split(V x) { return x * (real)1.4426950408889634 + (BPTT_ROUND + BPTT_BIAS); }
BPTT_INLINE V v_count(V split) { return split - (BPTT_ROUND + BPTT_BIAS); }
BPTT_INLINE V v_two_to(V split) { return (V)((U)split << BPTT_DIGITS); }

BPTT_INLINE V v_exp(V x) {
  x = v_at_most(v_at_least(x, v_set(BPTT_EXP_END)), v_set(BPTT_EXP_TOP));
  V n = v_count(v_split(x));
  V m = v_exp_rest(v_rest(x, n));
  // In two steps: 2^128 and 2^-150 are no floats, though what comes of them may be.
  V half = n * (real)0.5 + (BPTT_ROUND + BPTT_BIAS);
  V other = n - v_count(half) + (BPTT_ROUND + BPTT_BIAS);
  return m * v_two_to(half) * v_two_to(other);
}

// --- sigmoid, tanh -------------------------------------------------------------------------------

// 1 / (1 + e^y) with y = -x. A power of two that is infinite, or 0, makes it end in 0, and in 1.
// A plain division: it runs beside the rest, and an estimate would need care for infinity.
BPTT_INLINE V v_sigmoid(V x) {
  V y = v_at_most(v_at_least(-x, v_set(BPTT_POWER_END)), v_set(BPTT_POWER_TOP));
  V t = v_split(y);
  return 1 / (v_exp_rest(v_rest(y, v_count(t))) * v_two_to(t) + 1);
}

#if BPTT_WIDE || !(defined(__FMA__) || defined(__ARM_FEATURE_FMA))
// e / (e + 2) with e = exp(2|x|) - 1, which is put together so that nothing cancels.
BPTT_INLINE V v_tanh(V x) {
  V y = v_at_most(2 * v_abs(x), v_set(2 * BPTT_TANH_TOP));
  V t = v_split(y);
  V r = v_rest(y, v_count(t));
  V power = v_two_to(t);
  V e = power * (v_exp_tail(r) * (r * r) + r) + (power - 1);
  return v_with_sign(v_over(e, e + 2), x);
}
#else
// With tanh(x/2) = b / 2q, tanh(x) is bq / (q^2 + b^2/4). b and q = 1 + h are polynomials: a
// minimax fit in which an error counts for less where |x| is large, since there the fraction is
// flat. Faster than an exponential. Written so that few numbers of size 1 are rounded, and tiny x
// not at all. Without fused multiply-add it would be off by more than 4 ulp.
BPTT_INLINE V v_tanh(V x) {
  x = v_at_most(v_at_least(x, v_set(-BPTT_TANH_TOP)), v_set(BPTT_TANH_TOP));
  V s = x * x;
  V p = 0x1.e005e8p-14f * s + 0x1.e7f586p-6f;
  V h = 0x1.4b0138p-20f * s + 0x1.3c8878p-10f;
  h = h * s + 0x1.cf52aep-4f;
  h = h * s;
  V b = x * s * p + x;
  V half = b * (real)0.5;
  V rest = h * h + (half * half + 2 * h);
  return v_over(b * h + b, rest + 1);
}
#endif

// --- log, softplus -------------------------------------------------------------------------------

// log(1 + f) + n ln 2, for 1 + f between sqrt(1/2) and sqrt(2). With s = f / (2 + f) the logarithm
// is 2 artanh(s) = 2s + s^3 L(s^2), and written so that f itself is the first term.
BPTT_INLINE V v_log_near(V f, V n) {
  V s = f / (f + 2);
  V z = s * s;
#if BPTT_WIDE
  V tail = 0x1.2f0c232c14e4ap-3 * z + 0x1.39a1164278125p-3;
  tail = tail * z + 0x1.7466450fb07c9p-3;
  tail = tail * z + 0x1.c71c51ebf598cp-3;
  tail = tail * z + 0x1.2492494215d5bp-2;
  tail = tail * z + 0x1.999999997fae5p-2;
  tail = tail * z + 0x1.5555555555593p-1;
#else
  V tail = 0x1.31e15ap-2f * z + 0x1.995ed2p-2f;
  tail = tail * z + 0x1.55557ap-1f;
#endif
  V square = (real)0.5 * f * f;
  V small = square - (s * (square + z * tail) + n * BPTT_LN2_LOW);
  return n * BPTT_LN2_HIGH + (f - small);
}

BPTT_INLINE V v_log(V x) {
  // A number below the smallest normal one is made normal first.
  const real lift = (real)((bits)1 << BPTT_DIGITS) * 4;
  I tiny = x < BPTT_LEAST;
  U u = (U)v_pick(tiny, x * lift, x) + (BPTT_ONE - BPTT_ROOT_HALF);
  V f = (V)((u & BPTT_FRACTION) + BPTT_ROOT_HALF) - 1;
  // The exponent as a number: written into the last bits of one, which is then taken away.
  const real base = (real)((bits)1 << BPTT_DIGITS);
  V n = (V)((u >> BPTT_DIGITS) | (U)v_set(base)) - (base + BPTT_BIAS);
  n = n - (v_one(tiny) * (BPTT_DIGITS + 2));
  V y = v_pick(x < (real)INFINITY, v_log_near(f, n), x);
  return v_pick(x <= 0, v_pick(x == 0, v_set(-(real)INFINITY), v_set((real)NAN)), y);
}

// max(x, 0) + log(1 + e), with e = exp(-|x|) <= 1.
BPTT_INLINE V v_softplus(V x) {
  V y = v_at_least(v_with_sign(x, v_set(-1)), v_set(BPTT_POWER_END));
  V t = v_split(y);
  V e = v_exp_rest(v_rest(y, v_count(t))) * v_two_to(t);
  I large = e > (real)0.41421356; // then 1 + e is taken as 2 (1 + (e - 1) / 2)
  V f = v_pick(large, e * (real)0.5 - (real)0.5, e);
  return v_relu(x) + v_log_near(f, v_one(large));
}

BPTT_INLINE V v_logsigmoid(V x) { return -v_softplus(-x); }

// --- those that few cells use: lane by lane, by the C library ------------------------------------

BPTT_INLINE V v_sin(V x) {
  for (int i = 0; i < LANES; i++) x[i] = BPTT_LIBRARY(sin)(x[i]);
  return x;
}

BPTT_INLINE V v_cos(V x) {
  for (int i = 0; i < LANES; i++) x[i] = BPTT_LIBRARY(cos)(x[i]);
  return x;
}

// x^p with the special cases of C. Where the compiler knows p, small whole ones are products.
BPTT_INLINE V v_pow(V x, real p) {
  if (p == 2) return x * x;
  if (p == 3) return x * x * x;
  if (p == -1) return 1 / x;
  if (p == -2) return 1 / x * (1 / x);
  if (p == (real)0.5) { // GCC would take the square root for it, but -0 and -infinity differ
    return v_pick(x == -(real)INFINITY, v_set((real)INFINITY), v_sqrt(x + 0));
  }
  for (int i = 0; i < LANES; i++) x[i] = BPTT_LIBRARY(pow)(x[i], p);
  return x;
}

#endif
