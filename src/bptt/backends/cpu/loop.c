/* The driver: it walks a sweep's printed tables over time, threads and groups. Nothing here knows
 * which cell it runs. One call of `bptt_run` is a layer and a sequence, whatever their sizes. */
#include <stdlib.h>
#include <string.h>
#include <sched.h>

#include "gemm.h"

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
    TILE = 4096,          /* numbers of the products that a body is given at once */
    FEW_ROWS = 4,         /* so few rows in all that packing a matrix costs more than it saves */
    AHEAD_BYTES = 3 << 17, /* of what is computed ahead of the loop, for each thread */
#ifdef BPTT_TEST /* memory is NaN at first, and the smallest call is shared out */
    ALONE = 0,
#else
    ALONE = 1 << 17,      /* multiplications for which it does not pay to wake a thread */
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
    const i64 *size;
    i64 groups, steps, batch, rows, group;
    const i64 *counts;  /* running sequences at each step, or null: all of them */
    i64 *offset;        /* the first row of each step */
    Run *stepwise;      /* the runs of each step ... */
    i64 *first_run;     /* ... and where they begin */
    Run few[3];         /* dense: first step, those between, last step */
    int few_count;
    Run *ends[2];       /* what stands one step beyond the first step, and beyond the last */
    i64 ends_count[2];
    real **at;          /* of each place */
    i64 *down;
    real **packed;      /* panels of each packed matrix, and what is added */
    real **added;
    char *own;          /* memory of each thread */
    i64 own_size, tile_at, block_at, sums_at, left_at, right_at, keys_at;
    i64 window;         /* steps for which what the loop needs is computed together */
    i64 *block_offset;  /* of each block buffer in a thread's memory, in numbers */
    int columns;        /* threads divide columns and wait for each other in each step */
    int packed_before;
    int direct;         /* so few rows that matrices are read as they lie */
    int one_runs;       /* the loop's phases need nothing of another thread's columns */
    int threads;
    const Team *team;
    Flag flag[MOST_THREADS];
} Call;

typedef struct {
    Call *call;
    int me, of;
    i64 window; /* the first row of the window */
    char *own, *block; /* `block`: where the rows of a block lie, another's if all work on them */
} Thread;

static void wait_for_all(Thread *t) {
    if (t->of == 1) return;
    Flag *flag = t->call->flag;
    int turn = __atomic_load_n(&flag[t->me].at, __ATOMIC_RELAXED) + 1;
    __atomic_store_n(&flag[t->me].at, turn, __ATOMIC_RELEASE);
    for (int k = 0; k < t->of; k++)
        for (int spins = 0; (int)((unsigned)__atomic_load_n(&flag[k].at, __ATOMIC_ACQUIRE) - (unsigned)turn) < 0;)
            if (++spins > 2000) sched_yield();
            else PAUSE();
}

static i64 at_most(i64 a, i64 b) { return a < b ? a : b; }
static i64 at_least(i64 a, i64 b) { return a > b ? a : b; }
static i64 share(i64 n, int k, int of) { return n * k / of; }

/* --- where values lie ------------------------------------------------------------------------- */

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
    case PLACE_BATCH:
    case PLACE_STEP: return (View){at + run->batch * down, down};
    case PLACE_ROLL: return (View){at + (parity * c->batch + run->batch) * down, down};
    case PLACE_BLOCK:
        at = (real *)(t->block + c->block_at) + c->block_offset[c->sweep->place[place].index];
        return (View){at + c->size[key->col] + local * down, down};
    default: return (View){at, down};
    }
}

/* --- one phase -------------------------------------------------------------------------------- */

/* Rows low to high times one panel, as evenly as they can be shared out to the kernels. */
static void chunk_of(const Stretch *stretch, i64 count, i64 low, i64 high, const real *panel,
                     const real *add, real *to, i64 down) {
    Stretch x[count + 1];
    i64 r = low;
    for (i64 group = (high - low + MR - 1) / MR; group > 0; group--) {
        const i64 m = (high - r + group - 1) / group;
        for (i64 k = 0; k < count; k++)
            x[k] = (Stretch){stretch[k].at + r * stretch[k].row, stretch[k].row, stretch[k].count};
        multiply_rows[m](x, count, panel, add, to + (r - low) * down, down);
        r += m;
    }
}

/* A block as it is multiplied: element (output j, operand k) is at[j * row + k * col]. */
typedef struct {
    const real *at;
    i64 row, col;
} Matrix;

static Matrix matrix_of(const Call *c, const Block *block) {
    const Port *port = c->port + c->sweep->place[block->place].index;
    const real *at = c->at[block->place] + c->size[block->row] * port->row + c->size[block->col] * port->col;
    return block->transposed ? (Matrix){at, port->col, port->row} : (Matrix){at, port->row, port->col};
}

/* One row's outputs c0 to c1, from matrices as they lie. */
static void unpacked(const Call *c, const Gemm *g, const View *view, int out, i64 r, i64 c0, i64 c1,
                     real *to) {
    const Block *block = c->sweep->block + g->blocks + out * (g->operands + g->ones);
    for (i64 j = 0; j < c1 - c0; j++) to[j] = 0;
    for (int k = 0; k < g->operands + g->ones; k++, block++) {
        const Matrix m = matrix_of(c, block);
        const real *from = m.at + c0 * m.row;
        if (k >= g->operands) {
            for (i64 j = 0; j < c1 - c0; j++) to[j] += from[j * m.row];
            continue;
        }
        const real *x = view[k].at + r * view[k].row;
        const i64 count = c->size[c->sweep->key[g->keys + k].width];
        if (m.col == 1 || m.row != 1) times_rows(from, m.row, x, count, c1 - c0, to);
        else times_columns(from, m.col, x, count, c1 - c0, to);
    }
}

/* Bring what a body will read or write near while the products before it are computed. */
static void fetch(const Phase *p, const View *view, i64 from, i64 r0, i64 r1, i64 c0, i64 c1) {
    for (i64 k = from; k < p->key_count; k++)
        for (i64 r = r0; r < r1 && view[k].row; r++)
            for (i64 c = c0; c < c1; c += 64 / (i64)sizeof(real))
                __builtin_prefetch(view[k].at + r * view[k].row + c, 0, 2);
}

/* A product that nothing follows, put where it belongs: no tile, no body. */
static void straight(const Call *c, const Phase *p, const View *view, const Stretch *stretch,
                     i64 count, i64 low, i64 high, i64 panel, i64 wide) {
    const Gemm *gemm = c->sweep->gemm + p->gemms;
    const View to = view[p->key_count - 1];
    i64 depth = 0;
    for (i64 k = 0; k < count; k++) depth += stretch[k].count;
    for (i64 n = panel; n < panel + wide; n++)
        chunk_of(stretch, count, low, high, c->packed[gemm->packed] + n * depth * NR,
                 gemm->ones ? c->added[gemm->packed] + n * NR : 0,
                 to.at + low * to.row + n * NR, to.row);
}

/* Rows a to b of a run, columns from c0 to c1 (c0 a multiple of NR). */
static void run_phase(Thread *t, const Phase *p, const Run *run, i64 a, i64 b, i64 c0, i64 c1,
                      i64 local) {
    const Call *c = t->call;
    const Sweep *s = c->sweep;
    const i64 width = c->size[p->space];
    c1 = at_most(c1, width);
    const i64 rows = b - a;
    if (rows <= 0 || (c0 >= c1 && !p->reduce_count)) return;
    View *view = (View *)(t->own + c->keys_at);
    for (int k = 0; k < p->key_count; k++) view[k] = look(t, s->key + p->keys + k, run, local);
    real *sums = (real *)(t->own + c->sums_at);
    for (int q = 0; q < p->reduce_count; q++) {
        V zero = v_set(s->reduce[p->reduces + q].op == REDUCE_MAX ? -(real)__builtin_inf() : 0);
        for (i64 r = 0; r < rows; r++) v_store(sums + (r * p->reduce_count + q) * LANES, zero);
    }
    if (!p->gemm_count) {
        if (c0 < c1) p->body(view, 0, 0, 0, a, b, c0, c1, sums, c->size);
    } else {
        Stretch stretch[p->key_count + 1];
        i64 stretches[p->gemm_count], first[p->gemm_count], used = 0;
        for (int g = 0; g < p->gemm_count; g++) {
            const Gemm *gemm = s->gemm + p->gemms + g;
            first[g] = used;
            for (int k = 0; k < gemm->operands; k++) {
                const Key *key = s->key + gemm->keys + k;
                View v = view[gemm->keys - p->keys + k];
                i64 count = c->size[key->width];
                Stretch *last = stretch + used - 1;
                if (used > first[g] && last->at + last->count == v.at && last->row == v.row)
                    last->count += count;
                else
                    stretch[used++] = (Stretch){v.at, v.row, count};
            }
            stretches[g] = used - first[g];
        }
        const i64 p0 = c0 / NR, p1 = (c1 + NR - 1) / NR, chunks = (rows + CHUNK - 1) / CHUNK;
        i64 wide = rows > MR ? 1 : at_least(1, TILE / (p->tiles * rows * NR));
        wide = at_most(wide, p1 - p0);
        const i64 down = wide * NR, across = at_most(rows, CHUNK) * down;
        real *tile = (real *)(t->own + c->tile_at);
        for (i64 panel = p0; panel < p1; panel += wide) {
            i64 low = a;
            for (i64 chunk = 0; chunk < chunks; chunk++) {
                const i64 high = low + (b - low + chunks - chunk - 1) / (chunks - chunk);
                if (p->flags & PHASE_STRAIGHT && !c->direct && (panel + wide) * NR <= c1) {
                    straight(c, p, view, stretch, stretches[0], low, high, panel, wide);
                    low = high;
                    continue;
                }
                fetch(p, view, used, low, high, panel * NR, at_most(c1, (panel + wide) * NR));
                int out = 0;
                for (int g = 0; g < p->gemm_count; g++) {
                    const Gemm *gemm = s->gemm + p->gemms + g;
                    if (c->direct) {
                        for (int o = 0; o < gemm->outs; o++, out++)
                            for (i64 r = low; r < high; r++)
                                unpacked(c, gemm, view + (gemm->keys - p->keys), o, r, panel * NR,
                                         at_most(c1, (panel + wide) * NR),
                                         tile + out * across + (r - low) * down);
                        continue;
                    }
                    i64 depth = 0;
                    for (i64 k = 0; k < stretches[g]; k++) depth += stretch[first[g] + k].count;
                    for (int o = 0; o < gemm->outs; o++, out++)
                        for (i64 j = 0; j < at_most(wide, p1 - panel); j++) {
                            i64 n = (panel + j) * gemm->outs + o;
                            chunk_of(stretch + first[g], stretches[g], low, high,
                                     c->packed[gemm->packed] + n * depth * NR,
                                     gemm->ones ? c->added[gemm->packed] + n * NR : 0,
                                     tile + out * across + j * NR, down);
                        }
                }
                p->body(view, tile, across, down, low, high, panel * NR,
                        at_most(c1, (panel + wide) * NR),
                        sums + (low - a) * p->reduce_count * LANES, c->size);
                low = high;
            }
        }
    }
    for (int q = 0; q < p->reduce_count; q++) {
        View to = view[s->reduce[p->reduces + q].key];
        for (i64 r = 0; r < rows; r++) {
            V v = v_load(sums + (r * p->reduce_count + q) * LANES);
            to.at[(a + r) * to.row] = s->reduce[p->reduces + q].op == REDUCE_MAX ? v_top(v) : v_sum(v);
        }
    }
}

/* A thread's columns of a space. */
static void columns_of(const Thread *t, i64 width, i64 *c0, i64 *c1) {
    i64 panels = (width + NR - 1) / NR;
    *c0 = share(panels, t->me, t->of) * NR;
    *c1 = at_most(width, share(panels, t->me + 1, t->of) * NR);
}

/* Phases on the runs of one step, or of an end of the sequences. */
static void run_step(Thread *t, int first, int count, const Run *runs, i64 run_count, int alone) {
    const Call *c = t->call;
    const i64 b0 = share(c->batch, t->me, t->of), b1 = share(c->batch, t->me + 1, t->of);
    for (int k = 0; k < count; k++) {
        const Phase *p = c->sweep->phase + first + k;
        i64 c0 = 0, c1 = c->size[p->space];
        if (c->columns) columns_of(t, c1, &c0, &c1);
        for (i64 n = 0; n < run_count; n++) {
            const Run *run = runs + n;
            i64 a = 0, b = run->count;
            if (!c->columns) {
                a = at_least(0, b0 - run->batch);
                b = at_most(b, b1 - run->batch);
            }
            if (c0 < c1 || !c->columns) run_phase(t, p, run, a, b, c0, c1, 0);
        }
        if (c->columns && !alone) wait_for_all(t);
    }
}

/* --- all rows at once ------------------------------------------------------------------------- */

/* What the phases of a group need to know of a row: nothing, whether it is at an end, or its step. */
static const Run *runs_of(const Call *c, const Group *g, i64 *count, Run *whole) {
    int flags = 0;
    for (int k = 0; k < g->count; k++) flags |= c->sweep->phase[g->first + k].flags;
    if (flags & PHASE_STEPWISE || (flags & PHASE_SHIFTED && c->counts)) {
        *count = c->first_run[c->steps];
        return c->stepwise;
    }
    if (flags & PHASE_SHIFTED) {
        *count = c->few_count;
        return c->few;
    }
    *whole = (Run){c->rows, 0, 0, -1, -1, 0};
    *count = 1;
    return whole;
}

/* The first run with a row behind `row`, or at it. */
static i64 first_reaching(const Run *runs, i64 count, i64 row) {
    i64 low = 0, high = count;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (runs[middle].row + runs[middle].count <= row) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* What a phase adds to, the place of its last key, begins at zero. */
static void clear(const Thread *t, const Phase *p, i64 c0, i64 c1) {
    const Call *c = t->call;
    const int place = c->sweep->key[p->keys + p->key_count - 1].place;
    const i64 rows = c->sweep->place[place].kind == PLACE_BATCH ? c->batch : c->size[p->cleared];
    for (i64 r = 0; r < rows; r++)
        for (i64 j = c0; j < c1; j++) c->at[place][r * c->down[place] + j] = 0;
}

static void run_group(Thread *t, const Group *g, i64 first, i64 last) {
    const Call *c = t->call;
    Run whole;
    i64 count;
    const Run *runs = runs_of(c, g, &count, &whole);
    const Phase *phase = c->sweep->phase + g->first;
    if (phase->flags & PHASE_COLUMNS) {
        i64 c0, c1;
        columns_of(t, c->size[phase->space], &c0, &c1);
        clear(t, phase, c0, c1);
        for (i64 n = 0; n < count && c0 < c1; n++)
            for (i64 r = 0; r < runs[n].count; r += ROW_BLOCK)
                run_phase(t, phase, runs + n, r, at_most(runs[n].count, r + ROW_BLOCK), c0, c1, 0);
        return;
    }
    if (c->direct && c->columns) {
        t->block = c->own;
        for (int k = 0; k < g->count; k++) {
            i64 c0, c1;
            columns_of(t, c->size[phase[k].space], &c0, &c1);
            for (i64 n = 0; n < count && c0 < c1; n++)
                run_phase(t, phase + k, runs + n, 0, runs[n].count, c0, c1, runs[n].row);
            wait_for_all(t);
        }
        t->block = t->own;
        return;
    }
    const i64 from = first + share(last - first, t->me, t->of);
    const i64 to = first + share(last - first, t->me + 1, t->of);
    i64 low = first_reaching(runs, count, from);
    for (i64 r0 = from; r0 < to; r0 += ROW_BLOCK) {
        const i64 r1 = at_most(to, r0 + ROW_BLOCK);
        while (low < count && runs[low].row + runs[low].count <= r0) low++;
        for (int k = 0; k < g->count; k++)
            for (i64 n = low; n < count && runs[n].row < r1; n++) {
                i64 a = at_least(0, r0 - runs[n].row), b = at_most(runs[n].count, r1 - runs[n].row);
                run_phase(t, phase + k, runs + n, a, b, 0, c->size[phase[k].space],
                          runs[n].row - r0);
            }
    }
}

/* --- sums over time --------------------------------------------------------------------------- */

/* Copies columns c0 to c1 of rows k0 to k1 of all, `wide` numbers apart; zeros behind. */
static void gather(Thread *t, const Key *key, const Run *runs, i64 count, i64 k0, i64 k1, i64 c0, i64 c1,
                   real *to, i64 wide) {
    if (k0 >= k1) return;
    runs += first_reaching(runs, count, k0);
    for (i64 k = k0; k < k1; runs++) {
        View v = look(t, key, runs, 0);
        for (; k < at_most(k1, runs->row + runs->count); k++, to += wide) {
            const real *from = v.at + (k - runs->row) * v.row + c0;
            if (c1 - c0 == MR) {
                __builtin_memcpy(to, from, MR * sizeof(real));
                continue;
            }
            i64 j = 0;
            for (; j + LANES <= c1 - c0; j += LANES) v_store(to + j, v_load(from + j));
            for (; j < c1 - c0; j++) to[j] = from[j];
        }
    }
}

static i64 padded(i64 n, i64 to) { return (n + to - 1) / to * to; }

static i64 key_width(const Call *c, int key) {
    return c->size[c->sweep->key[key].width];
}

/* The runs that a product over time sees: its operands may be read at other steps. */
static const Run *time_runs(const Call *c, const TimeGemm *g, i64 *count) {
    const int each = c->counts || g->stepwise;
    *count = each ? c->first_run[c->steps] : c->few_count;
    return each ? c->stepwise : c->few;
}

static void run_time(Thread *t, const TimeGemm *g) {
    const Call *c = t->call;
    const Sweep *s = c->sweep;
    real *left = (real *)(t->own + c->left_at), *right = (real *)(t->own + c->right_at);
    i64 count;
    const Run *runs = time_runs(c, g, &count);
    for (i64 k0 = 0; k0 == 0 || k0 < c->rows; k0 += KC) {
        const i64 k1 = at_most(c->rows, k0 + KC), depth = k1 - k0;
        real *panel = right;
        for (int q = 0; q < g->right_count; q++) { /* operands across, in panels */
            const Right *x = s->right + g->rights + q;
            for (int k = 0; k < x->key_count; k++) {
                const i64 width = key_width(c, x->keys + k);
                for (i64 j = 0; j < width; j += NR, panel += KC * NR) {
                    const i64 j1 = at_most(width, j + NR);
                    if (j1 - j < NR) memset(panel, 0, (size_t)(depth * NR) * sizeof(real));
                    gather(t, s->key + x->keys + k, runs, count, k0, k1, j, j1, panel, NR);
                }
            }
        }
        i64 tile = 0, tiles = 0;
        for (int k = 0; k < g->left_count; k++) tiles += padded(key_width(c, g->left + k), MR) / MR;
        const i64 low = share(tiles, t->me, t->of), high = share(tiles, t->me + 1, t->of);
        for (int k = 0; k < g->left_count; k++) {
            const i64 width = key_width(c, g->left + k);
            for (i64 i = 0; i < width; i += MR, tile++) {
                if (tile < low || tile >= high) continue;
                const i64 i1 = at_most(width, i + MR);
                if (i1 - i < MR) memset(left, 0, (size_t)(depth * MR) * sizeof(real));
                gather(t, s->key + g->left + k, runs, count, k0, k1, i, i1, left, MR);
                panel = right;
                for (int q = 0; q < g->right_count; q++) {
                    const Right *x = s->right + g->rights + q;
                    const Out *o = s->out + x->outs + k;
                    const i64 down = c->down[o->place];
                    real *to = c->at[o->place] + (c->size[o->row] + i) * down;
                    if (!x->key_count) { /* the sum over rows alone */
                        real sum[MR];
                        for (int m = 0; m < MR; m++) sum[m] = 0;
                        for (i64 n = 0; n < depth; n++)
                            for (int m = 0; m < MR; m++) sum[m] += left[n * MR + m];
                        for (i64 m = 0; m < i1 - i; m++)
                            to[m * down] = (k0 ? to[m * down] : 0) + sum[m];
                        continue;
                    }
                    for (int n = 0; n < x->key_count; n++) {
                        const i64 across = key_width(c, x->keys + n);
                        for (i64 j = 0; j < across; j += NR, panel += KC * NR) {
                            if (i1 - i == MR && across - j >= NR) {
                                multiply_columns(left, depth, panel, to + j, down, k0 > 0);
                                continue;
                            }
                            real *part = (real *)(t->own + c->tile_at);
                            multiply_columns(left, depth, panel, part, NR, 0);
                            for (i64 m = 0; m < i1 - i; m++)
                                for (i64 l = 0; l < at_most(NR, across - j); l++) {
                                    real *e = to + m * down + j + l;
                                    *e = (k0 ? *e : 0) + part[m * NR + l];
                                }
                        }
                        to += across;
                    }
                }
            }
        }
    }
}

/* --- matrices --------------------------------------------------------------------------------- */

static void pack_gemm(Thread *t, const Phase *p, const Gemm *g) {
    const Call *c = t->call;
    const Sweep *s = c->sweep;
    const i64 width = c->size[p->space], panels = (width + NR - 1) / NR;
    i64 depth = 0;
    const int across = g->operands + g->ones;
    for (int k = 0; k < g->operands; k++) depth += key_width(c, g->keys + k);
    for (i64 n = t->me; n < panels * g->outs; n += t->of) {
        const i64 panel = n / g->outs, wide = at_most(NR, width - panel * NR);
        const Block *block = s->block + g->blocks + (n % g->outs) * across;
        real *to = c->packed[g->packed] + n * depth * NR, *added = c->added[g->packed] + n * NR;
        for (int j = 0; j < NR && g->ones; j++) added[j] = 0;
        for (int k = 0; k < across; k++, block++) {
            const Matrix m = matrix_of(c, block);
            const real *from = m.at + panel * NR * m.row;
            if (k >= g->operands) {
                for (i64 j = 0; j < wide; j++) added[j] += from[j * m.row];
                continue;
            }
            i64 count = key_width(c, g->keys + k);
            pack(from, m.row, m.col, count, wide, to);
            to += count * NR;
        }
    }
}

static void pack_all(Thread *t) {
    const Sweep *s = t->call->sweep;
    unsigned char done[s->packed + 1];
    memset(done, 0, sizeof done);
    for (int k = 0; k < s->phases; k++)
        for (int g = 0; g < s->phase[k].gemm_count; g++) {
            const Gemm *gemm = s->gemm + s->phase[k].gemms + g;
            if (!done[gemm->packed]) pack_gemm(t, s->phase + k, gemm);
            done[gemm->packed] = 1;
        }
}

/* --- the whole sweep -------------------------------------------------------------------------- */

static void place_ports(Call *c) {
    for (int k = 0; k < c->sweep->places; k++) {
        const Place *p = c->sweep->place + k;
        if (p->kind > PLACE_FIXED) continue;
        const Port *port = c->port + p->index;
        c->at[k] = port->at + c->group * port->group + c->size[p->col];
        c->down[k] = port->row;
    }
}

/* Gradients that die out over time end in numbers below the smallest normal one, with which
 * processors are a hundred times slower: within a sweep they count as zero. */
#if defined(__SSE__)
typedef unsigned Rounding;
static Rounding rounding(void) { return __builtin_ia32_stmxcsr(); }
static void set_rounding(Rounding r) { __builtin_ia32_ldmxcsr(r); }
#define ZERO_DENORMALS 0x8040 /* results and operands */
#elif defined(__aarch64__)
typedef uint64_t Rounding;
static Rounding rounding(void) {
    Rounding r;
    __asm__ volatile("mrs %0, fpcr" : "=r"(r));
    return r;
}
static void set_rounding(Rounding r) { __asm__ volatile("msr fpcr, %0" ::"r"(r)); }
#define ZERO_DENORMALS (1u << 24)
#else
typedef int Rounding;
static Rounding rounding(void) { return 0; }
static void set_rounding(Rounding r) { (void)r; }
#define ZERO_DENORMALS 0
#endif

static Rounding without_denormals(void) {
    const Rounding usual = rounding();
    set_rounding(usual | ZERO_DENORMALS);
    return usual;
}

static void work(void *data) {
    Call *c = data;
    const Sweep *s = c->sweep;
    Thread thread = {.call = c, .of = 1};
    if (c->threads > 1) {
        thread.me = c->team->number();
        thread.of = c->team->count();
    }
    Thread *t = &thread;
    const Rounding usual = without_denormals();
    t->own = t->block = c->own + t->me * c->own_size;
    for (i64 group = 0; group < c->groups; group++) {
        if (t->me == 0) {
            c->group = group;
            place_ports(c);
        }
        wait_for_all(t);
        if (!c->direct && !c->packed_before) pack_all(t);
        wait_for_all(t);
        for (i64 n = 0; n == 0 || n < c->steps; n += c->window) {
            const i64 end = at_most(c->steps, n + c->window);
            const i64 first = s->dir > 0 ? n : c->steps - end, last = first + end - n;
            t->window = c->offset[first];
            for (int k = 0; k < s->before_count; k++) {
                run_group(t, s->before + k, c->offset[first], c->offset[last]);
                wait_for_all(t);
            }
            for (i64 m = 0; m < last - first && s->loop_count; m++) {
                i64 step = s->dir > 0 ? first + m : last - 1 - m, run = c->first_run[step];
                run_step(t, s->loop, s->loop_count, c->stepwise + run,
                         c->first_run[step + 1] - run, c->one_runs);
            }
            wait_for_all(t);
        }
        for (int k = 0; k < s->after_count; k++) {
            run_group(t, s->after + k, 0, c->rows);
            wait_for_all(t);
        }
        run_step(t, s->first, s->first_count, c->ends[0], c->ends_count[0], 0);
        run_step(t, s->last, s->last_count, c->ends[1], c->ends_count[1], 0);
        for (int k = 0; k < s->time_count; k++) run_time(t, s->time + k);
        wait_for_all(t);
    }
    set_rounding(usual);
}

/* Memory of a call, measured first and then handed out. */
typedef struct {
    char *at;
    i64 used;
} Arena;

static void *take(Arena *a, i64 bytes) {
    void *found = a->at ? a->at + a->used : 0;
    a->used = padded(a->used + bytes, 64);
    return found;
}

static i64 numbers(i64 n) { return n * (i64)sizeof(real); }

static void find_runs(Call *c) {
    i64 row = 0, run = 0;
    for (i64 t = 0; t < c->steps; t++) {
        i64 n = c->counts ? c->counts[t] : c->batch;
        i64 next = t + 1 == c->steps ? 0 : c->counts ? c->counts[t + 1] : n;
        i64 before = t ? c->offset[t - 1] : -1;
        c->offset[t] = row;
        c->first_run[t] = run;
        if (next || !n) c->stepwise[run++] = (Run){next, row, 0, before, row + n, (int)(t & 1)};
        if (next < n)
            c->stepwise[run++] = (Run){n - next, row + next, next, before < 0 ? -1 : before + next, -1, (int)(t & 1)};
        row += n;
    }
    c->offset[c->steps] = row;
    c->first_run[c->steps] = run;
    c->few_count = 0;
    if (!c->counts && c->steps && c->batch) {
        const i64 B = c->batch, last = row - B;
        c->few[c->few_count++] = (Run){B, 0, 0, -1, c->steps > 1 ? B : -1, 0};
        if (c->steps > 2) c->few[c->few_count++] = (Run){last - B, B, 0, 0, 2 * B, 0};
        if (c->steps > 1) c->few[c->few_count++] = (Run){B, last, 0, last - B, -1, 0};
    }
    /* beyond the ends: what is read there lies a step later than the first one's, or earlier */
    const i64 running = c->steps ? c->offset[1] : 0;
    i64 *n = c->ends_count;
    n[0] = n[1] = 0;
    if (running) c->ends[0][n[0]++] = (Run){running, -1, 0, -1, 0, 1};
    if (running < c->batch) c->ends[0][n[0]++] = (Run){c->batch - running, -1, running, -1, -1, 0};
    i64 done = 0;
    for (i64 t = c->steps - 1; t >= 0; t--) {
        i64 count = c->offset[t + 1] - c->offset[t];
        if (count > done) {
            c->ends[1][n[1]++] = (Run){count - done, -1, done, c->offset[t] + done, -1, (int)(~t & 1)};
            done = count;
        }
    }
    if (done < c->batch) c->ends[1][n[1]++] = (Run){c->batch - done, -1, done, -1, -1, 0};
}

static void lay_out(Call *c, Arena *a) {
    const Sweep *s = c->sweep;
    c->offset = take(a, (c->steps + 1) * (i64)sizeof(i64));
    c->first_run = take(a, (c->steps + 1) * (i64)sizeof(i64));
    i64 ragged = c->counts ? at_most(c->batch, c->steps) : 0;
    c->stepwise = take(a, (c->steps + ragged + 1) * (i64)sizeof(Run));
    c->ends[0] = take(a, 2 * (i64)sizeof(Run));
    c->ends[1] = take(a, (ragged + 2) * (i64)sizeof(Run));
    c->at = take(a, s->places * (i64)sizeof(real *));
    c->down = take(a, s->places * (i64)sizeof(i64));
    c->packed = take(a, s->packed * (i64)sizeof(real *));
    c->added = take(a, s->packed * (i64)sizeof(real *));
    c->block_offset = take(a, s->buffers * (i64)sizeof(i64));
    i64 block = 0, most_keys = 1, most_tiles = 1, most_sums = 0, panels = 0;
    real *number_row[s->numbers + 1], *buffer[s->buffers + 1];
    for (int k = 0; k < s->numbers; k++) {
        i64 width = c->size[s->number_width[k]];
        number_row[k] = take(a, numbers(width));
        for (i64 j = 0; j < width && a->at; j++) number_row[k][j] = (real)s->number[k];
    }
    for (int k = 0; k < s->buffers; k++) {
        i64 width = c->size[s->buffer[k]], rows = c->rows;
        buffer[k] = 0;
        switch (s->buffer_kind[k]) {
        case PLACE_BLOCK:
            if (a->at) c->block_offset[k] = block;
            block += padded(width * ROW_BLOCK, LANES);
            continue;
        case PLACE_ROLL: rows = 2 * c->batch; break;
        case PLACE_WINDOW: rows = at_most(c->rows, c->window * c->batch); break;
        case PLACE_STEP: rows = c->batch; break;
        default: break;
        }
        buffer[k] = take(a, numbers(width * rows));
    }
    for (int k = 0; k < s->places && a->at; k++) {
        const Place *p = s->place + k;
        c->down[k] = 0;
        if (p->kind == PLACE_NUMBER) c->at[k] = number_row[p->index];
        if (p->kind < PLACE_BUFFER) continue;
        c->at[k] = buffer[p->index] ? buffer[p->index] + c->size[p->col] : 0;
        c->down[k] = c->size[s->buffer[p->index]];
    }
    unsigned char done[s->packed + 1];
    memset(done, 0, sizeof done);
    for (int k = 0; k < s->phases; k++) {
        const Phase *p = s->phase + k;
        most_keys = at_least(most_keys, p->key_count);
        most_tiles = at_least(most_tiles, p->tiles);
        most_sums = at_least(most_sums, p->reduce_count);
        for (int g = 0; g < p->gemm_count; g++) {
            const Gemm *gemm = s->gemm + p->gemms + g;
            if (done[gemm->packed]) continue;
            done[gemm->packed] = 1;
            i64 depth = 0, outs = c->direct ? 0 : padded(c->size[p->space], NR) * gemm->outs;
            for (int n = 0; n < gemm->operands; n++) depth += key_width(c, gemm->keys + n);
            real *packed = take(a, numbers(outs * depth)), *added = take(a, numbers(outs));
            if (a->at) c->packed[gemm->packed] = packed, c->added[gemm->packed] = added;
        }
    }
    for (int k = 0; k < s->time_count; k++) {
        const TimeGemm *g = s->time + k;
        i64 wide = 0;
        for (int q = 0; q < g->right_count; q++)
            for (int n = 0; n < s->right[g->rights + q].key_count; n++)
                wide += padded(key_width(c, s->right[g->rights + q].keys + n), NR);
        panels = at_least(panels, wide * KC);
    }
    Arena own = {0, 0};
    c->tile_at = own.used, take(&own, numbers(at_least(TILE, most_tiles * CHUNK * NR)));
    c->block_at = own.used, take(&own, numbers(block));
    c->sums_at = own.used, take(&own, numbers(most_sums * LANES * at_least(c->batch, ROW_BLOCK)));
    c->left_at = own.used, take(&own, numbers(s->time_count ? MR * KC : 0));
    c->right_at = own.used, take(&own, numbers(panels));
    c->keys_at = own.used, take(&own, most_keys * (i64)sizeof(View));
    c->own_size = padded(own.used, 4096);
    c->own = take(a, c->own_size * c->threads);
}

/* About how many multiplications there are in all. */
static i64 work_of(const Call *c) {
    const Sweep *s = c->sweep;
    i64 all = 0;
    for (int k = 0; k < s->phases; k++) {
        const Phase *p = s->phase + k;
        const i64 width = c->size[p->space];
        all += width * p->key_count;
        for (int g = 0; g < p->gemm_count; g++)
            for (int n = 0; n < s->gemm[p->gemms + g].operands; n++)
                all += key_width(c, s->gemm[p->gemms + g].keys + n) * width * s->gemm[p->gemms + g].outs;
    }
    return all * c->rows;
}

/* Steps for which what comes before the loop is computed together: as many as stay in the cache
 * until the loop reads them, and enough for the products to be worth their matrices. */
static i64 window_of(const Call *c) {
    const Sweep *s = c->sweep;
    i64 numbers_a_row = 0, count = s->before_count;
    if (!s->windows || !count || !s->loop_count) return at_least(1, c->steps);
    for (int k = s->before[0].first; k < s->before[count - 1].first + s->before[count - 1].count; k++)
        numbers_a_row += c->size[s->phase[k].space];
    const i64 batch = at_least(1, c->batch);
    const i64 fit = AHEAD_BYTES * c->threads / at_least(1, numbers(numbers_a_row) * batch);
    const i64 least = (ROW_BLOCK * c->threads + batch - 1) / batch;
    return at_least(1, at_most(c->steps, at_least(fit, least)));
}

/* How threads share the loop: by sequences, or (few of them, or large matrices) by columns. */
static void divide(Call *c) {
    const Sweep *s = c->sweep;
    i64 bytes = 0, widest = 0;
    int reduces = 0, wide = 0;
    for (int k = s->loop; k < s->loop + s->loop_count; k++) {
        const Phase *p = s->phase + k;
        reduces |= p->reduce_count;
        wide |= p->gemm_count || p->flags & PHASE_WIDE;
        widest = at_least(widest, c->size[p->space]);
        for (int g = 0; g < p->gemm_count; g++) {
            const Gemm *gemm = s->gemm + p->gemms + g;
            for (int n = 0; n < gemm->operands; n++)
                bytes += numbers(key_width(c, gemm->keys + n) * c->size[p->space] * gemm->outs);
        }
    }
    for (int k = 0; k < s->phases; k++)
        if (k < s->loop || k >= s->loop + s->loop_count) reduces |= s->phase[k].reduce_count;
    c->one_runs = !wide;
    c->columns = !reduces && c->threads > 1 && widest > NR && (c->batch < ROWS_EACH * c->threads || bytes > CACHE);
}

/* A call that is ready to run, in memory of its own; null where there is not enough. */
static Call *open_call(const Sweep *s, const i64 *n, const i64 *strides, i64 groups, i64 steps,
                       i64 batch, const i64 *counts, int threads, const Team *team) {
    const i64 head = padded(sizeof(Call), 64) + padded(s->sizes * (i64)sizeof(i64), 64) +
                     padded(s->ports * (i64)sizeof(Port), 64);
    i64 size[s->sizes + 1];
    s->measure(n, size);
    Call call = {.sweep = s, .size = size, .groups = groups, .steps = steps, .batch = batch,
                 .counts = counts, .team = team, .rows = steps * batch};
    if (counts) {
        call.rows = 0;
        for (i64 t = 0; t < steps; t++) call.rows += counts[t];
    }
    call.direct = call.rows <= FEW_ROWS;
    call.threads = (int)at_least(1, at_most(threads, MOST_THREADS));
    if (work_of(&call) < ALONE) call.threads = 1;
    call.window = window_of(&call);
    Arena arena = {0, 0};
    lay_out(&call, &arena);
    const size_t bytes = (size_t)(head + arena.used);
    char *memory = aligned_alloc(64, (size_t)padded((i64)bytes, 64));
    if (!memory) return 0;
#ifdef BPTT_TEST
    memset(memory, 0xff, bytes);
#endif
    Call *c = (Call *)memory;
    *c = call;
    i64 *own_size = (i64 *)(memory + padded(sizeof(Call), 64));
    Port *port = (Port *)((char *)own_size + padded(s->sizes * (i64)sizeof(i64), 64));
    memcpy(own_size, size, (size_t)s->sizes * sizeof(i64));
    for (int k = 0; k < s->ports; k++, strides += 3)
        port[k] = (Port){0, strides[0], strides[1], strides[2]};
    c->size = own_size;
    c->port = port;
    arena = (Arena){memory + head, 0};
    lay_out(c, &arena);
    find_runs(c);
    divide(c);
    return c;
}

static void run_call(Call *c, real *const *at) {
    for (int k = 0; k < c->sweep->ports; k++) c->port[k].at = at[k];
    memset(c->flag, 0, sizeof c->flag); /* another team may come this time */
    if (c->threads == 1) work(c);
    else c->team->parallel(work, c, (unsigned)c->threads, 0);
    c->packed_before = 1;
}

#define EXPORT __attribute__((visibility("default")))

/* One sweep, from memory at `at`. Gives 1 where there is not enough memory for it. */
EXPORT int bptt_run(const Sweep *s, const i64 *n, real *const *at, const i64 *strides, i64 groups,
                    i64 steps, i64 batch, const i64 *counts, int threads, const Team *team) {
    Call *c = open_call(s, n, strides, groups, steps, batch, counts, threads, team);
    if (!c) return 1;
    run_call(c, at);
    free(c);
    return 0;
}

/* The same in three: a call whose matrices are packed when it first runs, and never again. */
EXPORT Call *bptt_open(const Sweep *s, const i64 *n, const i64 *strides, i64 batch, int threads,
                       const Team *team) {
    return open_call(s, n, strides, 1, 1, batch, 0, threads, team);
}

EXPORT void bptt_again(Call *c, real *const *at) { run_call(c, at); }

EXPORT void bptt_close(Call *c) { free(c); }
