/* Phases on the rows of one step, or on all rows at once, shared among threads. */
#ifndef BPTT_ROWS_H
#define BPTT_ROWS_H

#include "phase.h"

/* A thread's columns of a space. */
static void columns_of(const Thread *t, i64 width, i64 *c0, i64 *c1) {
    i64 panels = (width + NR - 1) / NR;
    *c0 = share(panels, t->me, t->of) * NR;
    *c1 = at_most(width, share(panels, t->me + 1, t->of) * NR);
}

/* The first of the k-th share of the sequences within steps `first` to `last`: where they are of
 * several lengths each share has as many steps there, not as many sequences. */
static i64 first_sequence(const Call *c, i64 first, i64 last, int k, int of) {
    if (!c->counts || k == 0 || k == of) return share(c->batch, k, of);
    const i64 before = share(c->offset[last] - c->offset[first], k, of);
    i64 low = 0, high = c->batch;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        i64 steps = 0;
        for (i64 t = first; t < last; t++) steps += at_most(c->counts[t], middle);
        if (steps < before) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Rows a to b of a run and columns c0 to c1, c0 a multiple of NR. */
typedef struct {
    i64 a, b, c0, c1;
} Piece;

enum { MOST_PIECES = 3 };

/* A thread's share of so many rows where threads divide columns, as at most MOST_PIECES: whole panels and,
 * where those do not come out even and are to be `split`, some rows of the panel at either end, or, of fewer
 * panels than threads, some rows of one. */
static int share_of(const Thread *t, i64 width, i64 rows, int split, Piece *piece) {
    const i64 panels = (width + NR - 1) / NR, each = split ? rows : 1;
    const i64 end = share(panels * each, t->me + 1, t->of);
    int count = 0;
    for (i64 at = share(panels * each, t->me, t->of); at < end; count++) {
        const i64 panel = at / each, a = at % each;
        const i64 whole = a ? 0 : (end - at) / each, b = whole ? each : at_most(each, a + end - at);
        const i64 last = panel + at_least(1, whole);
        piece[count] = (Piece){a, split ? b : rows, panel * NR, at_most(width, last * NR)};
        at += whole ? whole * each : b - a;
    }
    return count;
}

/* A piece, no more rows at once than go through a panel together. */
static void run_piece(Thread *t, const Phase *p, const Run *run, const Piece *piece) {
    const i64 a = piece->a, rows = piece->b - a;
    const i64 parts = rows > 0 && on_tiles(t->call, p) ? (rows + TOGETHER - 1) / TOGETHER : 1;
    for (i64 part = 0; part < parts; part++)
        run_phase(t, p, run, a + rows * part / parts, a + rows * (part + 1) / parts, piece->c0, piece->c1, 0);
}

/* Phases on the runs of one step, or of an end of the sequences. */
static void run_step(Thread *t, int first, int count, const Run *runs, i64 run_count, int alone) {
    const Call *c = t->call;
    for (int k = 0; k < count; k++) {
        const Phase *p = c->sweep->phase + first + k;
        const i64 width = c->size[p->space];
        for (const Run *run = runs; run < runs + run_count; run++) {
            const i64 from = at_least(0, t->b0 - run->batch), to = at_most(run->count, t->b1 - run->batch);
            Piece piece[MOST_PIECES] = {{from, to, 0, width}};
            int pieces = 1;
            if (c->columns) {
                const int split = !alone && !on_tiles(c, p) && run->count >= LEAST_SPLIT;
                pieces = share_of(t, width, run->count, split, piece);
            }
            for (int n = 0; n < pieces; n++) run_piece(t, p, run, piece + n);
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
        for (i64 j = c0; j < c1; j++) c->at[place][of_part(t, place) + r * c->down[place] + j] = 0;
}

/* A phase that adds up, without time, over the sequences of each part. */
static void run_parts(Thread *t, const Phase *phase, i64 c0, i64 c1) {
    const Call *c = t->call;
    const i64 each = c->batch / c->parts;
    for (t->part = 0; t->part < c->parts; t->part++) {
        clear(t, phase, c0, c1);
        for (i64 n = 0; n < c->steps; n++)
            run_phase(t, phase, c->stepwise + n, t->part * each, (t->part + 1) * each, c0, c1, 0);
    }
    t->part = 0;
}

/* On rows `first` to `last` of all; `more`: what they add to has been begun. */
static void run_group(Thread *t, const Group *g, i64 first, i64 last, int more) {
    const Call *c = t->call;
    Run whole;
    i64 count;
    const Run *runs = runs_of(c, g, &count, &whole);
    const Phase *phase = c->sweep->phase + g->first;
    if (phase->flags & PHASE_COLUMNS) {
        i64 c0, c1;
        columns_of(t, c->size[phase->space], &c0, &c1);
        if (c->parts > 1 && c->sweep->place[c->sweep->key[phase->keys + phase->key_count - 1].place].kind == PLACE_FIXED) {
            if (c0 < c1) run_parts(t, phase, c0, c1);
            return;
        }
        if (!more) clear(t, phase, c0, c1);
        for (i64 n = first_reaching(runs, count, first); n < count && runs[n].row < last && c0 < c1; n++) {
            const i64 to = at_most(runs[n].count, last - runs[n].row);
            for (i64 r = at_least(0, first - runs[n].row); r < to; r += ROW_BLOCK)
                run_phase(t, phase, runs + n, r, at_most(to, r + ROW_BLOCK), c0, c1, 0);
        }
        return;
    }
    if (c->direct && c->columns) {
        t->block = c->own;
        for (int k = 0; k < g->count; k++) {
            i64 c0, c1;
            columns_of(t, c->size[phase[k].space], &c0, &c1);
            i64 n = first_reaching(runs, count, first);
            for (; n < count && runs[n].row < last && c0 < c1; n++)
                run_phase(t, phase + k, runs + n, at_least(0, first - runs[n].row),
                          at_most(runs[n].count, last - runs[n].row), c0, c1, runs[n].row - first);
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

#endif
