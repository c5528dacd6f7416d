/* Products of float32 on a processor's matrix unit, which multiplies bfloat16 and adds up in float32.
 *
 * A float32 is the exact sum of three bfloat16 of 8 bits each: x = x0 + x1 + x2. Of the nine
 * products of two such sums, six are worked out; the other three are about the rounding of
 * a float32 product. As in Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial intelligence
 * datatype for higher-precision computations" (2019). On x86 this is AMX: eight tiles of 16 rows of
 * 64 bytes, and three times the speed of float32 vectors at the same accuracy (docs/accuracy.md).
 *
 * An infinity has no such parts, and those of numbers from 2^62 on may overflow: where one is met (all
 * of them are too large) products are worked out with vectors. Parts below the smallest
 * normal number count as zero, as results do within a sweep.
 *
 * With -DBPTT_TILES=2 the unit is emulated, on any machine: for tests.
 */
#ifndef BPTT_TILES_H
#define BPTT_TILES_H

#include <string.h>

#include "gemm.h"

#if BPTT_WIDE || LANES != 16 /* whatever was asked for */
#undef BPTT_TILES
#endif
#ifndef BPTT_TILES
#if BPTT_WIDE == 0 && LANES == 16 && defined(__linux__) && defined(__AMX_BF16__)
#define BPTT_TILES 1
#else
#define BPTT_TILES 0
#endif
#endif

typedef uint16_t half; /* a bfloat16: the upper half of a float32 */
enum {
    TILE_ROWS = 16,
    TILE_DEPTH = 32,               /* elements of a row of a tile: operands */
    TILE_HALVES = TILE_ROWS * TILE_DEPTH,
    LEFT_BLOCK = 3 * TILE_HALVES,  /* the three parts of 16 rows of operands ... */
    RIGHT_BLOCK = 2 * LEFT_BLOCK,  /* ... and of as many rows of a panel, which is two tiles wide */
    NEAR = 4,                      /* blocks of a panel and rows that the first-level cache has room for */
    MOST_ROWS = 2 * TILE_ROWS,     /* rows that are multiplied at once */
};

#define TOO_LARGE 0x1p62f /* for parts: products of them may overflow against each other */

/* Whether one of `most`, of sizes of numbers, is too large. NaN are none of them. */
static int too_large(V most) {
    int found = 0;
    for (int k = 0; k < LANES; k++) found |= most[k] >= TOO_LARGE;
    return found;
}

#if BPTT_TILES == 1
#include <sys/syscall.h>
#include <unistd.h>

/* Linux lets a process use the unit once it has asked. */
static int tiles_allowed(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    static int known; /* 1: yes, 2: no */
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!answer) {
        answer = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) ? 2 : 1;
        __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    }
    return answer == 1;
}

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} Shapes;

#define T_SHAPES(s) __asm__ volatile("ldtilecfg %0" ::"m"(s))
#define T_RELEASE() __asm__ volatile("tilerelease")
#define T_LOAD(t, at, down)                                                                        \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(at), "r"((i64)(down)) : "memory")
#define T_STORE(t, at, down)                                                                       \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(at), "r"((i64)(down)) : "memory")
#define T_ZERO(t) __asm__ volatile("tilezero %%tmm" #t ::)
#define T_DOT(to, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #to ::)
#elif BPTT_TILES == 2
static int tiles_allowed(void) { return 1; }

typedef struct {
    uint8_t palette;
    uint16_t bytes[16];
    uint8_t rows[16];
} Shapes;

static _Thread_local struct {
    Shapes shapes;
    float tile[8][TILE_ROWS][16];
} unit;

static void t_move(int t, char *at, i64 down, int store) {
    for (int r = 0; r < unit.shapes.rows[t]; r++)
        if (store) memcpy(at + r * down, unit.tile[t][r], unit.shapes.bytes[t]);
        else memcpy(unit.tile[t][r], at + r * down, unit.shapes.bytes[t]);
}

static float t_part(const float *row, int k) {
    half upper;
    float x;
    memcpy(&upper, (const char *)row + 2 * k, sizeof upper);
    const uint32_t bits = (uint32_t)upper << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void t_dot(int to, int a, int b) {
    for (int r = 0; r < unit.shapes.rows[to]; r++)
        for (int j = 0; j < 16; j++) {
            float even = 0, odd = 0;
            for (int k = 0; k < 16; k++) {
                even += t_part(unit.tile[a][r], 2 * k) * t_part(unit.tile[b][k], 2 * j);
                odd += t_part(unit.tile[a][r], 2 * k + 1) * t_part(unit.tile[b][k], 2 * j + 1);
            }
            unit.tile[to][r][j] += even + odd;
        }
}

#define T_SHAPES(s) (unit.shapes = (s))
#define T_RELEASE() memset(&unit, 0xff, sizeof unit)
#define T_LOAD(t, at, down) t_move(t, (char *)(at), down, 0)
#define T_STORE(t, at, down) t_move(t, (char *)(at), down, 1)
#define T_ZERO(t) memset(unit.tile[t], 0, sizeof unit.tile[t])
#define T_DOT(to, a, b) t_dot(to, a, b)
#endif

#if BPTT_TILES
/* Shape the tiles for `rows` of operands, at most MOST_ROWS: the first half of them are in tiles 0
 * and 1 (results) and 4, the others in 2, 3 and 5; panels are in 6 and 7. */
static void shape_tiles(i64 rows) {
    const uint8_t top = (uint8_t)(rows > TILE_ROWS ? (rows + 1) / 2 : rows), rest = (uint8_t)(rows - top);
    Shapes s = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        s.rows[t] = t >= 6 ? TILE_ROWS : t == 2 || t == 3 || t == 5 ? rest : top;
        s.bytes[t] = s.rows[t] ? 64 : 0;
    }
    T_SHAPES(s);
}

#define LOAD_LEFT(part)                                                                            \
    T_LOAD(4, a + part * TILE_HALVES, 64);                                                                \
    if (two) T_LOAD(5, a + apart + part * TILE_HALVES, 64);
#define LOAD_RIGHT(part)                                                                           \
    T_LOAD(6, panel + part * TILE_HALVES, 64);                                                            \
    T_LOAD(7, panel + (3 + part) * TILE_HALVES, 64);
#define DOTS                                                                                       \
    T_DOT(0, 4, 6);                                                                                \
    T_DOT(1, 4, 7);                                                                                \
    if (two) {                                                                                     \
        T_DOT(2, 5, 6);                                                                            \
        T_DOT(3, 5, 7);                                                                            \
    }

/* The n-th sixth of what the next block reads comes near. */
#define NEXT(n)                                                                                    \
    if (far)                                                                                       \
        for (int k = 0; k < 8; k++) {                                                              \
            FETCH((const real *)(a + LEFT_BLOCK + n * TILE_HALVES / 2 + 32 * k));                  \
            if (two) FETCH((const real *)(a + apart + LEFT_BLOCK + n * TILE_HALVES / 2 + 32 * k)); \
            FETCH((const real *)(panel + RIGHT_BLOCK + n * TILE_HALVES + 64 * k));                 \
            FETCH((const real *)(panel + RIGHT_BLOCK + n * TILE_HALVES + 64 * k + 32));            \
        }

/* to[r][0..NR) = first[r] + rows of operands times a panel, `blocks` of TILE_DEPTH deep. `rows` as
 * the tiles are shaped; row r begins with first[r * step], or with zero. `apart`: from the first
 * rows' operands to the others'. */
INL void tiles_of(const int two, const int far, const half *a, i64 apart, i64 rows, const half *panel, i64 blocks,
                  const real *first, i64 step, real *to, i64 down) {
    const i64 top = (rows + 1) / 2, wide = down * (i64)sizeof(real);
    if (first) {
        T_LOAD(0, first, step * 4);
        T_LOAD(1, first + 16, step * 4);
        if (two) {
            T_LOAD(2, first + top * step, step * 4);
            T_LOAD(3, first + top * step + 16, step * 4);
        }
    } else {
        T_ZERO(0);
        T_ZERO(1);
        if (two) {
            T_ZERO(2);
            T_ZERO(3);
        }
    }
    for (; blocks > 0; blocks--, a += LEFT_BLOCK, panel += RIGHT_BLOCK) {
        LOAD_LEFT(0) LOAD_RIGHT(2) DOTS NEXT(0) LOAD_RIGHT(1) DOTS NEXT(1) /* the smallest first */
        LOAD_LEFT(1) DOTS NEXT(2) LOAD_RIGHT(0) DOTS NEXT(3)
        LOAD_LEFT(2) DOTS NEXT(4) LOAD_LEFT(0) DOTS NEXT(5)
    }
    T_STORE(0, to, wide);
    T_STORE(1, to + 16, wide);
    if (two) {
        T_STORE(2, to + top * down, wide);
        T_STORE(3, to + top * down + 16, wide);
    }
}

static __attribute__((noinline)) void multiply_tiles(const half *a, i64 apart, i64 rows, const half *panel,
                                                     i64 blocks, const real *first, i64 step,
                                                     real *to, i64 down) {
    if (rows > TILE_ROWS && blocks > NEAR) tiles_of(1, 1, a, apart, rows, panel, blocks, first, step, to, down);
    else if (blocks > NEAR) tiles_of(0, 1, a, apart, rows, panel, blocks, first, step, to, down);
    else if (rows > TILE_ROWS) tiles_of(1, 0, a, apart, rows, panel, blocks, first, step, to, down);
    else tiles_of(0, 0, a, apart, rows, panel, blocks, first, step, to, down);
}

/* The three parts of x, each in the upper halves of the lanes. With `cut` they are rounded toward zero,
 * which is faster; a product may have one such operand, or what it leaves out would add up. */
INL void parts_of(const int cut, V x, U part[3]) {
    const U half_up = {BPTT_EACH(0x8000u)}, upper = {BPTT_EACH(0xffff0000u)};
    part[0] = (cut ? (U)x : (U)x + half_up) & upper;
    V rest = x - (V)part[0];
    part[1] = (cut ? (U)rest : (U)rest + half_up) & upper;
    part[2] = (U)(rest - (V)part[1]); /* what is left has 8 bits */
}

typedef U Pairs __attribute__((may_alias));

/* Operands k and k + 16 of a block stand side by side in a tile: 16 pairs of those in `low` and
 * `high`, the three parts TILE_HALVES apart. Gives the larger of `most` and their sizes. */
INL V split_pairs(const int cut, V low, V high, half *to, V most) {
    U first[3], second[3];
    parts_of(cut, low, first);
    parts_of(cut, high, second);
    UNROLL for (int part = 0; part < 3; part++)
        *(Pairs *)(to + part * TILE_HALVES) = first[part] >> 16 | second[part];
    return v_at_least(v_at_least(most, v_abs(low)), v_abs(high));
}

/* A row of operands, `count` of them from x on, as rows of the tiles at `to`. */
INL V split_row(const real *x, i64 count, half *to, V most) {
    for (; count >= TILE_DEPTH; count -= TILE_DEPTH, x += TILE_DEPTH, to += LEFT_BLOCK)
        most = split_pairs(1, v_load(x), v_load(x + LANES), to, most);
    if (count > LANES)
        most = split_pairs(1, v_load(x), v_load_n(x + LANES, (int)(count - LANES)), to, most);
    else if (count > 0)
        most = split_pairs(1, v_load_n(x, (int)count), v_set(0), to, most);
    return most;
}

/* TILE_DEPTH rows of a panel, NR wide, as its block. Gives whether one of them is too large. */
static int split_panel(const real *rows, half *to) {
    V most = v_set(0);
    for (int k = 0; k < 16; k++, rows += NR, to += TILE_DEPTH) {
        most = split_pairs(0, v_load(rows), v_load(rows + 16 * NR), to, most);
        most = split_pairs(0, v_load(rows + LANES), v_load(rows + LANES + 16 * NR), to + LEFT_BLOCK, most);
    }
    return too_large(most);
}

/* TILE_DEPTH rows of 16 numbers, turned: a block of 16 rows of operands. */
static int split_turned(const real *rows, half *to) {
    half pairs[LEFT_BLOCK] __attribute__((aligned(64)));
    V most = v_set(0);
    for (int k = 0; k < 16; k++, rows += TILE_ROWS)
        most = split_pairs(1, v_load(rows), v_load(rows + 16 * TILE_ROWS), pairs + k * TILE_DEPTH, most);
    for (int part = 0; part < 3; part++)
        turn((const real *)(pairs + part * TILE_HALVES), LANES, (real *)(to + part * TILE_HALVES), LANES);
    return too_large(most);
}
#else /* what is never called */
static int tiles_allowed(void) { return 0; }
#define T_RELEASE() ((void)0)
INL void shape_tiles(i64 rows) { (void)rows; }
INL void multiply_tiles(const half *a, i64 apart, i64 rows, const half *panel, i64 blocks,
                        const real *first, i64 step, real *to, i64 down) {
    (void)a, (void)apart, (void)rows, (void)panel, (void)blocks, (void)first, (void)step, (void)to, (void)down;
}
INL V split_row(const real *x, i64 count, half *to, V most) { return (void)x, (void)count, (void)to, most; }
INL int split_panel(const real *rows, half *to) { return (void)rows, (void)to, 0; }
INL int split_turned(const real *rows, half *to) { return (void)rows, (void)to, 0; }
#endif

#endif
