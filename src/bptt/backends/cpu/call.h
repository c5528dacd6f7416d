/* A call of the driver: its threads, its rows, and where its values lie. */
#ifndef BPTT_CALL_H
#define BPTT_CALL_H

#include <sched.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

#include "tiles.h"

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

enum {
    MOST_THREADS = 64,
    ROW_BLOCK = 8 * MR,   /* rows that go through all phases of a group together */
    CHUNK = 4 * MR,       /* rows whose products go through a panel while it is near */
    TOGETHER = 4 * MOST_ROWS, /* rows that go through a panel together on tiles */
    WAY = 4096, WAYS = 8, /* rows so many bytes apart share a set of the first-level cache, where so many fit */
    TILE = 4096,          /* numbers of the products that a body is given at once */
    ACROSS = (1 << 20) / (KC * NR * (i64)sizeof(real)), /* panels that stay in the second-level cache */
    GATHERED = 8,         /* times MR columns of a sum that are copied together, where rows lie far apart */
    FEW_ROWS = 4,         /* so few rows in all that packing a matrix costs more than it saves */
    CACHED = 3 << 19,     /* bytes of a matrix packed for tiles that stay in the second-level cache */
    AT_HAND = 7 << 21,    /* bytes of matrices that stay in the last cache from one step to the next */
#ifdef BPTT_TEST /* memory is NaN at first, the smallest call is shared out, windows are short, who waits sleeps */
    ALONE = 0,
    AHEAD_BYTES = 0,
    SUM_ROWS = 1,
    THREAD_ROWS = 1,
    SLIDE_STEPS = 2,
    LEAST_ROWS = 1,
    LEAST_SPREAD = 1,
    LEAST_JOINED = 1,
    LEAST_TAKEN = 1,
    LEAST_SUMS = 1,
    LEAST_SPLIT = 2,
    SPINS = 1,
#else
    ALONE = 1 << 17,       /* multiplications for which it does not pay to wake a thread */
    AHEAD_BYTES = 1 << 18, /* of what is worked out around the loop, for each thread ... */
    SUM_ROWS = KC,         /* ... but at least so many rows for a sum over time, ... */
    THREAD_ROWS = ROW_BLOCK, /* ... for each thread, ... */
    SLIDE_STEPS = 8,       /* ... and steps, where one of them is copied then */
    LEAST_ROWS = 8,        /* rows for which tiles are faster than vectors, ... */
    LEAST_SPREAD = 24,     /* ... where the matrix comes from the last cache in each step, ... */
    LEAST_JOINED = 12,     /* ... for the input's product to be done in the loop, beside the state's, ... */
    LEAST_TAKEN = 8,       /* ... and for that with vectors, ... */
    LEAST_SUMS = 512,      /* ... and in all, for sums over time: the unit has to wake up */
    LEAST_SPLIT = 8,       /* rows of a step from which on threads may share those of one panel */
    SPINS = 2000,          /* that a thread waits for another, some 50 microseconds, before it sleeps */
#endif
    ROWS_EACH = 8,        /* sequences that a thread must have for its share to be by sequences */
    CACHE = 1 << 20,      /* bytes of panels that one thread may read again in each step */
};

/* Rows that lie alike. `before`, `after`: the row one step earlier or later, -1 beyond the end. */
typedef struct {
    i64 count, row, batch, before, after;
    int parity;
} Run;

typedef struct {
    _Alignas(64) int at;
} Flag;

typedef void Work(void *);
typedef struct { /* the fork and join of an OpenMP library that the process has loaded */
    void (*parallel)(Work *, void *, unsigned, unsigned);
    int (*number)(void);
    int (*count)(void);
} Team;

typedef struct {
    const Sweep *sweep;
    Port *port;
    const Source *source; /* of each port; or null: they have an address each */
    real **sum;           /* of each port that is one */
    const i64 *size;
    int loop, before;   /* the first phase of the loop, and how many groups come before it */
    i64 groups, steps, batch, rows, group;
    i64 parts;          /* sequences beside each other belong to so many; each has sums of its own */
    const i64 *counts;  /* running sequences at each step, or null: all of them */
    i64 *offset;        /* the first row of each step */
    Run *stepwise;      /* the runs of each step ... */
    i64 *first_run;     /* ... and where they begin */
    Run few[3];         /* dense: first step, those between, last step */
    int few_count;
    Run *ends[2];       /* what stands one step beyond the first step, and beyond the last */
    i64 ends_count[2];
    real **buffer;      /* memory of each buffer, or null */
    real **at;          /* of each place */
    i64 *down;
    real **packed;      /* panels of each packed matrix, and what is added */
    real **added;
    i64 *blocks;        /* of each packed matrix, where it is packed for tiles: how deep; or 0 */
    int *infinite;      /* whether one of those holds an infinity */
    char *own;          /* memory of each thread */
    i64 own_size, tile_at, block_at, sums_at, left_at, right_at, split_at, keys_at;
    i64 window;         /* steps for which what the loop needs is computed together */
    i64 *block_offset;  /* of each block buffer in a thread's memory, in numbers */
    int columns;        /* threads divide columns (and rows of a panel) and wait for each other in each step */
    int packed_before;
    int tiles;          /* the matrix unit may be used */
    int direct;         /* so few rows that matrices are read as they lie */
    int one_runs;       /* the loop's phases need nothing of another thread's columns */
    int turn;           /* which way one row goes through its matrices */
    int threads;
    int sleepers;       /* threads that wait for another so long that they sleep */
    const Team *team;
    Flag flag[MOST_THREADS];
} Call;

typedef struct {
    Call *call;
    int me, of;
    i64 window; /* the first row of the window */
    i64 shaped; /* rows that the tiles are shaped for */
    i64 part;   /* whose sums are worked out */
    i64 b0, b1; /* its sequences in this window, where threads divide those */
    char *own, *block; /* `block`: where the rows of a block lie, another's if all work on them */
} Thread;

/* Sleep until another thread has come to its turn, or for a while. Who waits by yielding keeps a core
 * busy, and the one that it waits for may stand in line behind another process. */
static void sleep_at(Call *c, int k, int seen) {
#if defined(__linux__)
    enum { WAIT_PRIVATE = 128 };
    const struct timespec longest = {0, 1000000};
    __atomic_fetch_add(&c->sleepers, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &c->flag[k].at, WAIT_PRIVATE, seen, &longest, 0, 0);
    __atomic_fetch_sub(&c->sleepers, 1, __ATOMIC_RELAXED);
#else
    (void)c, (void)k, (void)seen;
    sched_yield();
#endif
}

static void wake(Call *c, int k) {
#if defined(__linux__)
    enum { WAKE_PRIVATE = 129 };
    if (__atomic_load_n(&c->sleepers, __ATOMIC_SEQ_CST)) syscall(SYS_futex, &c->flag[k].at, WAKE_PRIVATE, MOST_THREADS);
#else
    (void)c, (void)k;
#endif
}

static void wait_for_all(Thread *t) {
    if (t->of == 1) return;
    Call *c = t->call;
    const int turn = __atomic_load_n(&c->flag[t->me].at, __ATOMIC_RELAXED) + 1;
    __atomic_store_n(&c->flag[t->me].at, turn, __ATOMIC_SEQ_CST);
    wake(c, t->me);
    for (int k = 0; k < t->of; k++)
        for (int spins = 0;; spins++) {
            const int seen = __atomic_load_n(&c->flag[k].at, __ATOMIC_ACQUIRE);
            if ((int)((unsigned)seen - (unsigned)turn) >= 0) break;
            if (spins < SPINS) PAUSE();
            else sleep_at(c, k, seen);
        }
}

static i64 at_most(i64 a, i64 b) { return a < b ? a : b; }
static i64 at_least(i64 a, i64 b) { return a > b ? a : b; }
static i64 share(i64 n, int k, int of) { return n * k / of; }

static i64 padded(i64 n, i64 to) { return (n + to - 1) / to * to; }
static i64 numbers(i64 n) { return n * (i64)sizeof(real); }

static i64 key_width(const Call *c, int key) {
    return c->size[c->sweep->key[key].width];
}

/* Whether a phase stays out of this call: of two ways through the loop one is taken. */
static int idle(const Call *c, int k) {
    const Sweep *s = c->sweep;
    if (s->joined < 0) return 0;
    if (c->loop == s->loop) return k >= s->joined && k < s->joined + s->loop_count;
    for (int g = 0; g < s->before_count; g++)
        if (k >= s->before[g].first && k < s->before[g].first + s->before[g].count) return 1;
    return k >= s->loop && k < s->loop + s->loop_count;
}

/* How many panels the operands across a product over time are. */
static i64 panels_across(const Call *c, const TimeGemm *g) {
    i64 panels = 0;
    for (int q = 0; q < g->right_count; q++) {
        const Right *x = c->sweep->right + g->rights + q;
        for (int k = 0; k < x->key_count; k++) panels += (key_width(c, x->keys + k) + NR - 1) / NR;
    }
    return panels;
}

/* --- where values lie ------------------------------------------------------------------------- */

/* From the first part's value without time to that of the part at hand. */
static i64 of_part(const Thread *t, int place) {
    const Place *p = t->call->sweep->place + place;
    return p->kind == PLACE_FIXED ? t->part * t->call->port[p->index].group : 0;
}

static View look(const Thread *t, const Key *key, const Run *run, i64 local) {
    const Call *c = t->call;
    int place = key->place;
    i64 row = run->row;
    int parity = run->parity;
    if (key->shift) {
        row = key->shift < 0 ? run->before : run->after;
        parity ^= 1;
        if (row < 0) place = key->edge;
    }
    real *at = c->at[place] + c->size[key->col];
    i64 down = c->down[place];
    switch (c->sweep->place[place].kind) {
    case PLACE_SERIES:
    case PLACE_BUFFER: return (View){at + row * down, down};
    case PLACE_WINDOW: return (View){at + (row - t->window) * down, down};
    case PLACE_SLIDE: return (View){at + (row - t->window + c->batch) * down, down};
    case PLACE_BATCH:
    case PLACE_STEP: return (View){at + run->batch * down, down};
    case PLACE_ROLL: return (View){at + (parity * c->batch + run->batch) * down, down};
    case PLACE_BLOCK:
        at = (real *)(t->block + c->block_at) + c->block_offset[c->sweep->place[place].index];
        return (View){at + c->size[key->col] + local * down, down};
    default: return (View){at + of_part(t, place), down};
    }
}

#endif
