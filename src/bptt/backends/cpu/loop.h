/* What the printed part of a translation unit and the driver (loop.c) say to each other.
 *
 * A sweep's values lie in rows: a series has one for each step and sequence, step by step. Its
 * tables name places (where a value lies), keys (a place, read at a step's own rows or at those of
 * the step before or after) and phases (products, then an elementwise body on their results).
 */
#ifndef BPTT_LOOP_H
#define BPTT_LOOP_H

#include "maths.h"

typedef int64_t i64;
#define INL static inline __attribute__((always_inline, unused))

/* What the caller hands over: the first element, and strides in elements. */
typedef struct {
    real *at;
    i64 row, col, group;
} Port;

/* Where it lies: `beyond` elements behind address number `base` of a call. `other` >= 0: it is the sum
 * of `count` elements there and as many behind that address. */
typedef struct {
    int base, other;
    i64 beyond, count;
} Source;

enum {            /* what a row of a place is counted by */
    PLACE_SERIES, /* a port: the row of the series */
    PLACE_BATCH,  /* a port: the sequence */
    PLACE_FIXED,  /* a port without rows: a parameter, or a value without time */
    PLACE_NUMBER, /* a row of one number */
    PLACE_BUFFER, /* memory of this call: the row of the series */
    PLACE_WINDOW, /* the same, but only of the steps that are worked on together ... */
    PLACE_SLIDE,  /* ... and of the step before them, whichever way the loop goes */
    PLACE_ROLL,   /* the last two steps: parity and sequence */
    PLACE_STEP,   /* within the loop: the sequence */
    PLACE_BLOCK,  /* elsewhere: the row within a thread's block */
};

typedef struct {
    int kind, index; /* of the port, number, buffer */
    int width, col;  /* its width, and the column where it begins, as sizes */
} Place;

/* A place as a phase reads it: at `shift` steps later, or, beyond the sequence, `edge`. */
typedef struct {
    int place, shift, edge, col, width;
} Key;

/* Rows of a value: row r, column c is at[r * row + c]. */
typedef struct {
    real *at;
    i64 row;
} View;

/* A rectangle of a constant matrix, transposed on use where said. */
typedef struct {
    int place, transposed, row, rows, col, cols;
} Block;

/* Outputs side by side = a packed matrix times operands side by side (`ones`: the number 1). */
typedef struct {
    int outs, operands, keys, ones, blocks, packed;
} Gemm;

/* The body of a phase on rows r0 to r1 and columns c0 to c1 (`tile`: the products, row by row). */
typedef void Body(const View *view, const real *tile, i64 across, i64 down, i64 r0, i64 r1, i64 c0,
                  i64 c1, real *sums, const i64 *size);

enum { REDUCE_SUM, REDUCE_MAX };
enum {
    PHASE_SHIFTED = 1, /* reads steps beside its own */
    PHASE_STEPWISE = 2, /* reads or writes what there is one of a sequence */
    PHASE_COLUMNS = 4, /* adds up over rows: threads divide the columns */
    PHASE_STRAIGHT = 16, /* one product's one output, as it is */
    PHASE_WIDE = 8,    /* reads whole rows of what the phase before has made */
};

typedef struct {
    int space, gemms, gemm_count, tiles, keys, key_count, reduces, reduce_count, cleared, flags;
    Body *body;
} Phase;

typedef struct {
    int op, key;
} Reduction;

typedef struct { /* phases that a block of rows goes through one after the other */
    int first, count;
} Group;

/* d(outs) += concat(left)^T concat(right) over all rows; `right` of no columns: a sum over rows */
typedef struct {
    int left, left_count, rights, right_count, stepwise;
} TimeGemm;

typedef struct {
    int keys, key_count, outs; /* outs: a place for each of the left */
} Right;

typedef struct {
    int place, row; /* of a matrix that a time-gemm fills: its first row there, as a size */
} Out;

typedef struct {
    int windows; /* whether what comes before the loop can be computed some steps ahead of it */
    int follows; /* whether what comes after it, and the sums over time, can follow it so ... */
    int ahead;   /* ... and whether a step behind it: sums read what the next step makes */
    int dir, sizes, ports, places, buffers, keys, phases, reduces, gemms, packed, numbers;
    void (*measure)(const i64 *n, i64 *size);
    const Place *place;
    const int *buffer; /* the width of each buffer, as sizes */
    const int *buffer_kind;
    const double *number;
    const int *number_width;
    const Key *key;
    const Phase *phase;
    const Reduction *reduce;
    const Gemm *gemm;
    const Block *block;
    const Group *before, *after;
    int before_count, after_count, loop, loop_count, first, first_count, last, last_count;
    int joined; /* the loop's phases with the products of before it taken in, or -1 */
    const TimeGemm *time;
    int time_count;
    const Right *right;
    const Out *out;
} Sweep;

#endif
