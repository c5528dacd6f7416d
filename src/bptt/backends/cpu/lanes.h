// One vector of numbers: how wide it is, how it is loaded and stored, how its lanes are joined.
//
// The including file may define BPTT_REAL as `float` or `double` and BPTT_BYTES as the vector's
// size. Written with the vector extensions of GCC (12 or newer) and Clang, for all their machines.
#ifndef BPTT_LANES_H
#define BPTT_LANES_H

#include <stdint.h>

#ifndef BPTT_REAL
#define BPTT_REAL float
#endif
#define BPTT_WIDE_float 0
#define BPTT_WIDE_double 1
#define BPTT_PASTE_(a, b) a##b
#define BPTT_PASTE(a, b) BPTT_PASTE_(a, b)
#define BPTT_WIDE BPTT_PASTE(BPTT_WIDE_, BPTT_REAL) // 1 for double, 0 for float

#ifndef BPTT_BYTES
#if defined(__AVX512F__)
#define BPTT_BYTES 64
#elif defined(__AVX__)
#define BPTT_BYTES 32
#else
#define BPTT_BYTES 16
#endif
#endif

#define LANES (BPTT_WIDE ? BPTT_BYTES / 8 : BPTT_BYTES / 4)
#define BPTT_INLINE static inline __attribute__((always_inline, unused))

typedef BPTT_REAL real;
typedef real V __attribute__((vector_size(BPTT_BYTES)));
#if BPTT_WIDE
typedef int64_t whole;
typedef uint64_t bits;
#else
typedef int32_t whole;
typedef uint32_t bits;
#endif
typedef whole I __attribute__((vector_size(BPTT_BYTES))); // what a comparison gives: 0 or -1
typedef bits U __attribute__((vector_size(BPTT_BYTES)));
typedef V V_anywhere __attribute__((aligned(sizeof(real)), may_alias));

// x in every lane; the numbers of the lanes; the lanes with even and with odd numbers, twice.
#if LANES == 16
#define BPTT_EACH(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
#define BPTT_COUNT 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define BPTT_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14
#define BPTT_ODD 1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15
#elif LANES == 8
#define BPTT_EACH(x) x, x, x, x, x, x, x, x
#define BPTT_COUNT 0, 1, 2, 3, 4, 5, 6, 7
#define BPTT_EVEN 0, 2, 4, 6, 0, 2, 4, 6
#define BPTT_ODD 1, 3, 5, 7, 1, 3, 5, 7
#elif LANES == 4
#define BPTT_EACH(x) x, x, x, x
#define BPTT_COUNT 0, 1, 2, 3
#define BPTT_EVEN 0, 2, 0, 2
#define BPTT_ODD 1, 3, 1, 3
#elif LANES == 2
#define BPTT_EACH(x) x, x
#define BPTT_COUNT 0, 1
#define BPTT_EVEN 0, 0
#define BPTT_ODD 1, 1
#else
#error "a vector has 16, 32 or 64 bytes"
#endif

// A list, since GCC makes an addition and a shuffle of `(V){} + x`, but one broadcast of a list.
BPTT_INLINE V v_set(real x) { return (V){BPTT_EACH(x)}; }

BPTT_INLINE V v_load(const real *p) { return *(const V_anywhere *)p; }

BPTT_INLINE void v_store(real *p, V v) { *(V_anywhere *)p = v; }

// a where the mask is set, else b.
BPTT_INLINE V v_pick(I mask, V a, V b) { return (V)((mask & (I)a) | (~mask & (I)b)); }

// The mask of the first n lanes.
BPTT_INLINE I v_first(int n) { return (I){BPTT_COUNT} < (I){BPTT_EACH((whole)n)}; }

// On x86, loads and stores can leave lanes out: BPTT_LOAD_SOME, of lanes a to b, and BPTT_STORE_SOME.
// AddressSanitizer does not look at those, so it is given the others.
#if BPTT_WIDE
#define BPTT_KIND pd
typedef long long V_lanes __attribute__((vector_size(BPTT_BYTES)));
#else
#define BPTT_KIND ps
typedef int V_lanes __attribute__((vector_size(BPTT_BYTES)));
#endif
#define BPTT_NAME__(op, kind, size) __builtin_ia32_##op##kind##size
#define BPTT_NAME_(op, kind, size) BPTT_NAME__(op, kind, size)
#define BPTT_NAME(op, size) BPTT_NAME_(op, BPTT_KIND, size) // of an instruction for real
#if defined(__SANITIZE_ADDRESS__)
#elif BPTT_BYTES == 64 && defined(__AVX512F__) && __has_builtin(__builtin_ia32_loadups512_mask)
#define BPTT_LOAD_SOME(p, a, b) BPTT_NAME(loadu, 512_mask)(p, (V){0}, (1u << (b)) - (1u << (a)))
#define BPTT_STORE_SOME(p, v, n) BPTT_NAME(storeu, 512_mask)(p, v, (1u << (n)) - 1)
#elif BPTT_BYTES == 32 && defined(__AVX__) && __has_builtin(__builtin_ia32_maskloadps256)
#define BPTT_LOAD_SOME(p, a, b)                                                                    \
  BPTT_NAME(maskload, 256)((const V *)(p), (V_lanes)(v_first(b) & ~v_first(a)))
#define BPTT_STORE_SOME(p, v, n) BPTT_NAME(maskstore, 256)((V *)(p), (V_lanes)v_first(n), v)
#endif

// Numbers a to b at p in lanes of these numbers, 0 <= a <= b <= LANES, and zeros. Reads no others.
BPTT_INLINE V v_load_some(const real *p, int a, int b) {
#ifdef BPTT_LOAD_SOME
  return (V)BPTT_LOAD_SOME(p, a, b);
#else
  V v = {0};
  for (int i = a; i < b; i++) v[i] = p[i];
  return v;
#endif
}

// The first n numbers at p, 0 <= n <= LANES, and zeros. Reads no others.
BPTT_INLINE V v_load_n(const real *p, int n) {
  return n == LANES ? v_load(p) : v_load_some(p, 0, n);
}

// Of `length` numbers at p, those from c on in the first n lanes, and zeros beside them. Reads no others.
BPTT_INLINE V v_piece(int n, const real *p, int64_t c, int64_t length) {
  if (c >= 0 && c + n <= length) return v_load_n(p + c, n);
  const int64_t a = c < 0 ? -c : 0, b = c + n < length ? n : length - c;
  return a < b ? v_load_some(p + c, (int)a, (int)b) : v_set(0);
}

// The first n lanes, 0 <= n <= LANES, to p. Writes no others.
BPTT_INLINE void v_store_n(real *p, V v, int n) {
  if (n == LANES) {
    v_store(p, v);
    return;
  }
#ifdef BPTT_STORE_SOME
  BPTT_STORE_SOME(p, v, n);
#else
  for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}

// Neighbours side by side: lanes 0 and 1, 2 and 3, ... After log2(LANES) times, everything is one.
BPTT_INLINE V v_even(V v) { return __builtin_shufflevector(v, v, BPTT_EVEN); }
BPTT_INLINE V v_odd(V v) { return __builtin_shufflevector(v, v, BPTT_ODD); }

// The sum of the lanes, neighbours first: the same order every time.
BPTT_INLINE real v_sum(V v) {
  for (int n = LANES; n > 1; n /= 2) v = v_even(v) + v_odd(v);
  return v[0];
}

// The larger of two, element by element; NaN where one is.
BPTT_INLINE V v_max(V a, V b) { return v_pick((a >= b) | (a != a), a, b); }

// The largest lane; NaN if one is.
BPTT_INLINE real v_top(V v) {
  for (int n = LANES; n > 1; n /= 2) v = v_max(v_even(v), v_odd(v));
  return v[0];
}

#endif
