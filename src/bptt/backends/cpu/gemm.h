/* Products: matrices packed into panels, and the register-blocked kernel that multiplies them.
 *
 * A panel is [K][NR]: NR outputs beside each other, one row an operand's element. The kernel keeps
 * M rows times NR outputs in registers; M is a constant in each of its copies. As in Goto and van
 * de Geijn, "Anatomy of high-performance matrix multiplication" (2008), with what follows each
 * small product done while it is still in the first-level cache.
 */
#ifndef BPTT_GEMM_H
#define BPTT_GEMM_H

#include "loop.h"

#if defined(__AVX512F__) /* 32 registers */
#define MR 12
#define NV 2
#elif defined(__aarch64__) /* 32 registers, a quarter as wide */
#define MR 6
#define NV 4
#else /* 16 registers */
#define MR 6
#define NV 2
#endif
#define NR (NV * LANES)
#define KC 256 /* rows of a product over time that are packed at once: they stay in the cache */

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

/* A stretch of operands: row r, element k is at[r * row + k]. */
typedef struct {
    const real *at;
    i64 row, count;
} Stretch;

/* to[r][0..NR) = add + sum over k of a(r, k) * panel[k]; S sums of every S-th k, where few rows would
 * leave the multipliers waiting for each other. `by`, `step`: the strides of a by r and by k. */
INL void multiply(const int M, const int S, const Stretch *a, i64 count, i64 by, const i64 step,
                  const real *restrict panel, const real *add, real *restrict to, i64 down,
                  const int more) {
    V sum[S][M][NV];
    UNROLL for (int s = 0; s < S; s++) {
        UNROLL for (int r = 0; r < M; r++) {
            UNROLL for (int v = 0; v < NV; v++) {
                sum[s][r][v] = s == 0 && more ? v_load(to + r * down + v * LANES)
                               : s == 0 && add ? v_load(add + v * LANES)
                                               : v_set(0);
            }
        }
    }
    for (i64 piece = 0; piece < count; piece++) {
        const real *restrict x = a[piece].at;
        const i64 row = by ? by : a[piece].row, n = a[piece].count;
        i64 k = 0;
        for (; k + S <= n; k += S, panel += S * NR) {
            UNROLL for (int s = 0; s < S; s++) {
                UNROLL for (int r = 0; r < M; r++) {
                    V e = v_set(x[r * row + (k + s) * step]);
                    UNROLL for (int v = 0; v < NV; v++) {
                        sum[s][r][v] += e * *(const V *)(panel + s * NR + v * LANES);
                    }
                }
            }
        }
        for (; k < n; k++, panel += NR) {
            UNROLL for (int r = 0; r < M; r++) {
                V e = v_set(x[r * row + k * step]);
                UNROLL for (int v = 0; v < NV; v++) {
                    sum[0][r][v] += e * *(const V *)(panel + v * LANES);
                }
            }
        }
    }
    UNROLL for (int r = 0; r < M; r++) {
        UNROLL for (int v = 0; v < NV; v++) {
            V whole = sum[0][r][v];
            UNROLL for (int s = 1; s < S; s++) whole += sum[s][r][v];
            v_store(to + r * down + v * LANES, whole);
        }
    }
}

#define ROWS(M, S)                                                                                 \
    static __attribute__((noinline)) void rows##M(const Stretch *a, i64 count, const real *panel,  \
                                                  const real *add, real *to, i64 down) {           \
        multiply(M, S, a, count, 0, 1, panel, add, to, down, 0);                                   \
    }
ROWS(1, 4) ROWS(2, 2) ROWS(3, 2) ROWS(4, 1) ROWS(5, 1) ROWS(6, 1)
#if MR == 12
ROWS(7, 1) ROWS(8, 1) ROWS(9, 1) ROWS(10, 1) ROWS(11, 1) ROWS(12, 1)
#endif

typedef void Rows(const Stretch *, i64, const real *, const real *, real *, i64);
static Rows *const multiply_rows[] = {
    0, rows1, rows2, rows3, rows4, rows5, rows6,
#if MR == 12
    rows7, rows8, rows9, rows10, rows11, rows12,
#endif
};

/* to[MR][NR] += sum over k of a[k][MR] * panel[k][NR]: both packed, for products over time. */
static __attribute__((noinline)) void multiply_columns(const real *a, i64 n, const real *panel,
                                                       real *to, i64 down, int more) {
    Stretch x = {a, 0, n};
    if (more)
        multiply(MR, 1, &x, 1, 1, MR, panel, 0, to, down, 1);
    else
        multiply(MR, 1, &x, 1, 1, MR, panel, 0, to, down, 0);
}

/* Fill a panel's `count` rows from k on: `from` is outputs down and operands across (row, col: its
 * strides), `wide` outputs of it. */
static void pack(const real *from, i64 row, i64 col, i64 count, i64 wide, real *to) {
    if (row == 1) {
        for (i64 k = 0; k < count; k++, to += NR) {
            i64 j = 0;
            for (; j + LANES <= wide; j += LANES) v_store(to + j, v_load(from + k * col + j));
            for (; j < wide; j++) to[j] = from[k * col + j];
            for (; j < NR; j++) to[j] = 0;
        }
        return;
    }
    enum { SQUARE = 16 }; /* elements of a row that are near each other */
    for (i64 k0 = 0; k0 < count; k0 += SQUARE) {
        i64 k1 = k0 + SQUARE < count ? k0 + SQUARE : count;
        for (i64 j = 0; j < wide; j++)
            for (i64 k = k0; k < k1; k++) to[k * NR + j] = from[j * row + k * col];
        for (i64 k = k0; k < k1; k++)
            for (i64 j = wide; j < NR; j++) to[k * NR + j] = 0;
    }
}

#endif
