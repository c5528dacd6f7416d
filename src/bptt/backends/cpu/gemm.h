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

#if defined(__AVX512F__) || defined(__aarch64__) /* 32 registers of vectors */
#define MR 12
#else /* 16 */
#define MR 6
#endif
#define NV 2 /* vectors of outputs */
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

/* Each row's sums have names of their own: compilers keep an array of them in memory as soon as
 * anything beside plain arithmetic stands in the loop. */
#define ROWS_1(DO) DO(0)
#define ROWS_2(DO) ROWS_1(DO) DO(1)
#define ROWS_3(DO) ROWS_2(DO) DO(2)
#define ROWS_4(DO) ROWS_3(DO) DO(3)
#define ROWS_5(DO) ROWS_4(DO) DO(4)
#define ROWS_6(DO) ROWS_5(DO) DO(5)
#define ROWS_7(DO) ROWS_6(DO) DO(6)
#define ROWS_8(DO) ROWS_7(DO) DO(7)
#define ROWS_9(DO) ROWS_8(DO) DO(8)
#define ROWS_10(DO) ROWS_9(DO) DO(9)
#define ROWS_11(DO) ROWS_10(DO) DO(10)
#define ROWS_12(DO) ROWS_11(DO) DO(11)
/* What is done for a row, by the vectors of a panel that count: WIDE has both, SLIM the first alone. */
#define BEGIN_SLIM(r) V p##r = first;
#define BEGIN_WIDE(r) V p##r = first, q##r = second;
#define ZERO_SLIM(r) V p##r = v_set(0);
#define ZERO_WIDE(r) V p##r = v_set(0), q##r = v_set(0);
#define WANT_SLIM(r) FETCH_SLIM(to + r * down);
#define WANT_WIDE(r) FETCH_WIDE(to + r * down);
#define GO_ON_SLIM(r) p##r += v_load(to + r * down);
#define GO_ON_WIDE(r) p##r += v_load(to + r * down), q##r += v_load(to + r * down + LANES);
#define ADD_SLIM(r, number) p##r += v_set(number) * b;
#define ADD_WIDE(r, number)                                                                        \
    {                                                                                              \
        V e = v_set(number);                                                                       \
        p##r += e * b;                                                                             \
        q##r += e * d;                                                                             \
    }
#define ADD_ROW_SLIM(r) ADD_SLIM(r, x[r * row])
#define ADD_ROW_WIDE(r) ADD_WIDE(r, x[r * row])
#define ADD_COLUMN_SLIM(r) ADD_SLIM(r, a[r])
#define ADD_COLUMN_WIDE(r) ADD_WIDE(r, a[r])
#define PUT_SLIM(r) v_store(to + r * down, p##r);
#define PUT_WIDE(r)                                                                                \
    v_store(to + r * down, p##r);                                                                  \
    v_store(to + r * down + LANES, q##r);

/* Numbers between a panel's row and what is asked for meanwhile: it may lie in the last cache, and a page
 * ends every few rows. */
#define AHEAD (2048 / (i64)sizeof(real))
#if defined(__x86_64__)
#define FETCH(at) __asm__ volatile("prefetcht0 %0" ::"m"(*(const real *)(at)))
#elif defined(__aarch64__)
#define FETCH(at) __asm__ volatile("prfm pldl1keep, %0" ::"Q"(*(const real *)(at)))
#else
#define FETCH(at) (void)(at)
#endif
#define LINE (64 / (i64)sizeof(real)) /* numbers of a cache line */
#define FETCH_SLIM(at) FETCH(at)
#define FETCH_WIDE(at)                                                                             \
    FETCH(at);                                                                                     \
    if (NR > LINE) FETCH((at) + LINE)

/* to[r][0..NR) = add + sum over k of a(r, k) * panel[k], for M rows; of a SLIM panel 0 to LANES alone. */
#define ROWS_OF(M, KIND)                                                                           \
    static __attribute__((noinline)) void rows##M##_##KIND(                                        \
        const Stretch *a, i64 count, const real *panel, const real *add, real *to, i64 down) {     \
        const V first = add ? v_load(add) : v_set(0), second = add ? v_load(add + LANES) : first;  \
        (void)second;                                                                              \
        ROWS_##M(BEGIN_##KIND);                                                                    \
        for (; count > 0; count--, a++) {                                                          \
            const i64 row = a->row;                                                                \
            const real *x = a->at;                                                                 \
            for (i64 k = a->count; k > 0; k--, x++, panel += NR) {                                 \
                const V b = *(const V *)panel, d = *(const V *)(panel + LANES);                    \
                (void)d;                                                                           \
                FETCH_##KIND(panel + AHEAD);                                                       \
                ROWS_##M(ADD_ROW_##KIND)                                                           \
            }                                                                                      \
        }                                                                                          \
        ROWS_##M(PUT_##KIND)                                                                       \
    }
#define MANY(M) ROWS_OF(M, WIDE) ROWS_OF(M, SLIM)
MANY(4) MANY(5) MANY(6)
#if MR == 12
MANY(7) MANY(8) MANY(9) MANY(10) MANY(11) MANY(12)
#endif

/* The same with S sums of every S-th k: few rows would leave the multipliers waiting. */
INL void multiply_few(const int M, const int S, const int N, const Stretch *a, i64 count, const real *panel,
                      const real *add, real *to, i64 down) {
    V sum[S][M][N];
    UNROLL for (int s = 0; s < S; s++) {
        UNROLL for (int r = 0; r < M; r++) {
            UNROLL for (int v = 0; v < N; v++)
                sum[s][r][v] = s == 0 && add ? v_load(add + v * LANES) : v_set(0);
        }
    }
    for (; count > 0; count--, a++) {
        const real *x = a->at;
        const i64 row = a->row, n = a->count;
        i64 k = 0;
        for (; k + S <= n; k += S, panel += S * NR) {
            UNROLL for (int s = 0; s < S; s++) {
                UNROLL for (int r = 0; r < M; r++) {
                    V e = v_set(x[r * row + k + s]);
                    UNROLL for (int v = 0; v < N; v++)
                        sum[s][r][v] += e * *(const V *)(panel + s * NR + v * LANES);
                }
            }
        }
        for (; k < n; k++, panel += NR) {
            UNROLL for (int r = 0; r < M; r++) {
                V e = v_set(x[r * row + k]);
                UNROLL for (int v = 0; v < N; v++)
                    sum[0][r][v] += e * *(const V *)(panel + v * LANES);
            }
        }
    }
    UNROLL for (int r = 0; r < M; r++) {
        UNROLL for (int v = 0; v < N; v++) {
            V whole = sum[0][r][v];
            UNROLL for (int s = 1; s < S; s++) whole += sum[s][r][v];
            v_store(to + r * down + v * LANES, whole);
        }
    }
}

#define FEW_OF(M, S, KIND, N)                                                                      \
    static __attribute__((noinline)) void rows##M##_##KIND(                                        \
        const Stretch *a, i64 count, const real *panel, const real *add, real *to, i64 down) {     \
        multiply_few(M, S, N, a, count, panel, add, to, down);                                     \
    }
#define FEW(M, S) FEW_OF(M, S, WIDE, NV) FEW_OF(M, S, SLIM, 1)
FEW(1, 4) FEW(2, 2) FEW(3, 2)

/* One row times two panels, the second `apart` numbers behind the first: an operand is read once. */
static __attribute__((noinline)) void row_twice(const Stretch *a, i64 count, const real *panel,
                                                i64 apart, const real *add, real *to, real *other) {
    V even[2 * NV], odd[2 * NV];
    UNROLL for (int v = 0; v < 2 * NV; v++) {
        even[v] = add ? v_load(add + v * LANES) : v_set(0);
        odd[v] = v_set(0);
    }
    for (; count > 0; count--, a++) {
        const real *x = a->at;
        i64 k = a->count;
        for (; k >= 2; k -= 2, x += 2, panel += 2 * NR) {
            const V e = v_set(x[0]), d = v_set(x[1]);
            UNROLL for (int v = 0; v < NV; v++) {
                even[v] += e * *(const V *)(panel + v * LANES);
                odd[v] += d * *(const V *)(panel + NR + v * LANES);
                even[NV + v] += e * *(const V *)(panel + apart + v * LANES);
                odd[NV + v] += d * *(const V *)(panel + apart + NR + v * LANES);
            }
        }
        for (; k > 0; k--, x++, panel += NR) {
            const V e = v_set(x[0]);
            UNROLL for (int v = 0; v < NV; v++) {
                even[v] += e * *(const V *)(panel + v * LANES);
                even[NV + v] += e * *(const V *)(panel + apart + v * LANES);
            }
        }
    }
    UNROLL for (int v = 0; v < NV; v++) {
        v_store(to + v * LANES, even[v] + odd[v]);
        v_store(other + v * LANES, even[NV + v] + odd[NV + v]);
    }
}

typedef void Rows(const Stretch *, i64, const real *, const real *, real *, i64);
#if MR == 12
#define EACH_M(OF) {0, OF(1), OF(2), OF(3), OF(4), OF(5), OF(6), OF(7), OF(8), OF(9), OF(10), OF(11), OF(12)}
#else
#define EACH_M(OF) {0, OF(1), OF(2), OF(3), OF(4), OF(5), OF(6)}
#endif
#define WIDE_ROWS(M) rows##M##_WIDE
#define SLIM_ROWS(M) rows##M##_SLIM
static Rows *const multiply_rows[2][MR + 1] = {EACH_M(WIDE_ROWS), EACH_M(SLIM_ROWS)};

/* to[r][0..NR) (+)= sum over k of a[k][r] * panel[k], for M rows: products over time. What is added
 * to is asked for before the products and read behind them. */
#define ALONG_OF(M, KIND)                                                                          \
    static __attribute__((noinline)) void columns##M##_##KIND(const real *a, i64 n, const real *panel, \
                                                              real *to, i64 down, int more) {      \
        ROWS_##M(ZERO_##KIND);                                                                     \
        ROWS_##M(WANT_##KIND)                                                                      \
        for (; n > 0; n--, a += M, panel += NR) {                                                  \
            const V b = *(const V *)panel, d = *(const V *)(panel + LANES);                        \
            (void)d;                                                                               \
            FETCH_##KIND(panel + AHEAD);                                                           \
            ROWS_##M(ADD_COLUMN_##KIND)                                                            \
        }                                                                                          \
        if (more) {                                                                                \
            ROWS_##M(GO_ON_##KIND)                                                                 \
        }                                                                                          \
        ROWS_##M(PUT_##KIND)                                                                       \
    }
#define ALONG(M) ALONG_OF(M, WIDE) ALONG_OF(M, SLIM)
ALONG(1) ALONG(2) ALONG(3) ALONG(4) ALONG(5) ALONG(6)
#if MR == 12
ALONG(7) ALONG(8) ALONG(9) ALONG(10) ALONG(11) ALONG(12)
#endif

typedef void Columns(const real *, i64, const real *, real *, i64, int);
#define WIDE_COLUMNS(M) columns##M##_WIDE
#define SLIM_COLUMNS(M) columns##M##_SLIM
static Columns *const multiply_columns[2][MR + 1] = {EACH_M(WIDE_COLUMNS), EACH_M(SLIM_COLUMNS)};

#if LANES == 16
#define LOW_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LOW_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#elif LANES == 4
#define LOW_HALVES 0, 4, 1, 5
#define HIGH_HALVES 2, 6, 3, 7
#else
#define LOW_HALVES 0, 2
#define HIGH_HALVES 1, 3
#endif

/* LANES rows and columns, turned: to[k * down + j] = from[j * row + k]. Each round brings neighbours together from
 * both halves of the rows; after log2(LANES) of them rows are columns. */
INL void turn(const real *from, i64 row, real *to, i64 down) {
    V a[LANES], b[LANES];
    UNROLL for (int j = 0; j < LANES; j++) a[j] = v_load(from + j * row);
    UNROLL for (int n = LANES; n > 1; n /= 2) {
        UNROLL for (int j = 0; j < LANES / 2; j++) {
            b[2 * j] = __builtin_shufflevector(a[j], a[j + LANES / 2], LOW_HALVES);
            b[2 * j + 1] = __builtin_shufflevector(a[j], a[j + LANES / 2], HIGH_HALVES);
        }
        UNROLL for (int j = 0; j < LANES; j++) a[j] = b[j];
    }
    UNROLL for (int k = 0; k < LANES; k++) v_store(to + k * down, a[k]);
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
    for (i64 k0 = 0; k0 < count; k0 += LANES) {
        const i64 k1 = k0 + LANES < count ? k0 + LANES : count;
        i64 j = 0;
        for (; col == 1 && k1 - k0 == LANES && j + LANES <= wide; j += LANES)
            turn(from + j * row + k0, row, to + k0 * NR + j, NR);
        for (; j < wide; j++)
            for (i64 k = k0; k < k1; k++) to[k * NR + j] = from[j * row + k * col];
        for (i64 k = k0; k < k1; k++)
            for (i64 l = wide; l < NR; l++) to[k * NR + l] = 0;
    }
}

/* The sums of neighbouring lanes of a, then those of b. */
INL V pairs(V a, V b) {
#if LANES == 16
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif LANES == 8
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#elif LANES == 4
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#else
    return __builtin_shufflevector(a, b, 0, 2) + __builtin_shufflevector(a, b, 1, 3);
#endif
}

/* The products of two rows, in lanes that are still to be added. Memory is read in its order. */
INL V dot(const real *a, const real *x, i64 count) {
    V s0 = v_set(0), s1 = s0, s2 = s0, s3 = s0;
    i64 k = 0;
    for (; k + 4 * LANES <= count; k += 4 * LANES) {
        FETCH(a + k + 1024);
        s0 += v_load(a + k) * v_load(x + k);
        FETCH(a + k + 1024 + LANES);
        s1 += v_load(a + k + LANES) * v_load(x + k + LANES);
        FETCH(a + k + 1024 + 2 * LANES);
        s2 += v_load(a + k + 2 * LANES) * v_load(x + k + 2 * LANES);
        FETCH(a + k + 1024 + 3 * LANES);
        s3 += v_load(a + k + 3 * LANES) * v_load(x + k + 3 * LANES);
    }
    for (; k + LANES <= count; k += LANES) s0 += v_load(a + k) * v_load(x + k);
    if (k < count) s1 += v_load_n(a + k, (int)(count - k)) * v_load_n(x + k, (int)(count - k));
    return (s0 + s1) + (s2 + s3);
}

/* y[0..n) += A x with A's rows `row` apart: for so few rows of operands that packing does not pay.
 * `back`: the last rows first. */
static void times_rows(const real *a, i64 row, const real *x, i64 count, i64 n, real *y, int back) {
    const i64 whole = n / LANES * LANES; /* as many rows at once as one vector holds sums */
    for (i64 i = 0; i < whole; i += LANES) {
        const i64 j = back ? whole - LANES - i : i;
        V sum[LANES];
        for (int u = 0; u < LANES; u++) sum[u] = dot(a + (j + u) * row, x, count);
        UNROLL for (int w = LANES / 2; w > 0; w /= 2) {
            UNROLL for (int u = 0; u < w; u++) sum[u] = pairs(sum[2 * u], sum[2 * u + 1]);
        }
        v_store(y + j, v_load(y + j) + sum[0]);
    }
    for (i64 j = whole; j < n; j++) y[j] += v_sum(dot(a + j * row, x, count));
}

/* The same with A's columns `col` apart, and its rows beside each other. */
static void times_columns(const real *a, i64 col, const real *x, i64 count, i64 n, real *y) {
    enum { TOGETHER = 4 };
    i64 j = 0;
    for (; j + TOGETHER * LANES <= n; j += TOGETHER * LANES) {
        V sum[TOGETHER];
        UNROLL for (int u = 0; u < TOGETHER; u++) sum[u] = v_load(y + j + u * LANES);
        for (i64 k = 0; k < count; k++) {
            V e = v_set(x[k]);
            UNROLL for (int u = 0; u < TOGETHER; u++)
                sum[u] += e * v_load(a + k * col + j + u * LANES);
        }
        UNROLL for (int u = 0; u < TOGETHER; u++) v_store(y + j + u * LANES, sum[u]);
    }
    for (; j < n; j += LANES) {
        int lanes = n - j < LANES ? (int)(n - j) : LANES;
        V sum = v_load_n(y + j, lanes);
        for (i64 k = 0; k < count; k++) sum += v_set(x[k]) * v_load_n(a + k * col + j, lanes);
        v_store_n(y + j, sum, lanes);
    }
}

#endif
