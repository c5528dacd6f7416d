// The functions of lanes.h and maths.h over arrays, for test_maths.py. A last vector is a part.
#include "maths.h"

#define ONE(name)                                                                                  \
  void of_##name(const real *x, const real *none, real *y, int64_t n) { \
    (void)none;                                                                                    \
    for (int64_t i = 0; i < n; i += LANES) {                                                       \
      int k = n - i < LANES ? (int)(n - i) : LANES;                                                \
      v_store_n(y + i, v_##name(v_load_n(x + i, k)), k);                                           \
    }                                                                                              \
  }
#define TWO(name)                                                                                  \
  void of_##name(const real *a, const real *b, real *y, int64_t n) { \
    for (int64_t i = 0; i < n; i += LANES) {                                                       \
      int k = n - i < LANES ? (int)(n - i) : LANES;                                                \
      v_store_n(y + i, v_##name(v_load_n(a + i, k), v_load_n(b + i, k)), k);                       \
    }                                                                                              \
  }
// clang-format off
ONE(exp) ONE(log) ONE(tanh) ONE(sigmoid) ONE(softplus) ONE(logsigmoid) ONE(softsign) ONE(sqrt)
ONE(abs) ONE(sign) ONE(sin) ONE(cos) ONE(relu) ONE(positive)
TWO(max) TWO(min) TWO(prefer) TWO(same) TWO(unless)
// clang-format on

int lanes(void) { return LANES; }

// To the power *p, which the compiler does not know; and to powers that it does.
void pow_given(const real *x, const real *p, real *y, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) v_store(y + i, v_pow(v_load(x + i), *p));
}
void pow_known(const real *x, const real *p, real *y, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    V v = v_load(x + i);
    V w = *p == 2    ? v_pow(v, 2)
          : *p == 3  ? v_pow(v, 3)
          : *p == -1 ? v_pow(v, -1)
          : *p == -2 ? v_pow(v, -2)
                     : v_pow(v, (real)0.5);
    v_store(y + i, w);
  }
}

real sum_of(const real *x) { return v_sum(v_load(x)); }
real top_of(const real *x) { return v_top(v_load(x)); }
void set_to(real x, real *y) { v_store(y, v_set(x)); }
void first_of(const real *a, const real *b, real *y, int n) {
  v_store(y, v_pick(v_first(n), v_load(a), v_load(b)));
}
void copy_some(const real *x, real *y, int n) { v_store_n(y, v_load_n(x, n), n); }
void load_some(const real *x, real *y, int n) { v_store(y, v_load_n(x, n)); }
void load_piece(const real *x, int64_t c, int64_t length, real *y, int n) {
  v_store(y, v_piece(n, x, c, length));
}
