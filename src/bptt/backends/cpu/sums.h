/* Sums over time: products of two series over all rows. */
#ifndef BPTT_SUMS_H
#define BPTT_SUMS_H

#include <string.h>
#include "rows.h"

/* Copies columns c0 to c1 of rows k0 to k1 of all, `wide` numbers apart; zeros behind. */
static void gather(Thread *t, const Key *key, const Run *runs, i64 count, i64 k0, i64 k1, i64 c0, i64 c1,
                   real *to, i64 wide) {
    if (k0 >= k1) return;
    runs += first_reaching(runs, count, k0);
    for (i64 k = k0; k < k1; runs++) {
        View v = look(t, key, runs, 0);
        for (; k < at_most(k1, runs->row + runs->count); k++, to += wide) {
            const real *from = v.at + (k - runs->row) * v.row + c0;
            i64 j = 0;
            for (; j + LANES <= c1 - c0; j += LANES) v_store(to + j, v_load(from + j));
            if (j < c1 - c0) v_store_n(to + j, v_load_n(from + j, (int)(c1 - c0 - j)), (int)(c1 - c0 - j));
        }
    }
}

/* to[j * down] (+)= the sum of rows[.][j], `wide` numbers a row, and behind them LANES to spare. */
static void sum_rows(const real *rows, i64 count, i64 wide, real *to, i64 down, int more) {
    for (i64 j = 0; j < wide; j += LANES) {
        V s0 = v_set(0), s1 = s0, s2 = s0, s3 = s0;
        const real *row = rows + j;
        i64 n = count;
        for (; n >= 4; n -= 4, row += 4 * wide) {
            s0 += v_load(row);
            s1 += v_load(row + wide);
            s2 += v_load(row + 2 * wide);
            s3 += v_load(row + 3 * wide);
        }
        for (; n > 0; n--, row += wide) s0 += v_load(row);
        const V sum = (s0 + s1) + (s2 + s3);
        for (i64 k = j; k < at_most(wide, j + LANES); k++) to[k * down] = (more ? to[k * down] : 0) + sum[k - j];
    }
}

/* The runs that a product over time sees: its operands may be read at other steps. */
static const Run *time_runs(const Call *c, const TimeGemm *g, i64 *count) {
    const int each = c->counts || g->stepwise;
    *count = each ? c->first_run[c->steps] : c->few_count;
    return each ? c->stepwise : c->few;
}

/* Panels of the operands across, from number p0 to p1: rows k0 to k1 of them. */
static void pack_across(Thread *t, const TimeGemm *g, const Run *runs, i64 count, i64 k0, i64 k1,
                        i64 p0, i64 p1, real *panel) {
    const Call *c = t->call;
    const Sweep *s = c->sweep;
    i64 p = 0;
    for (int q = 0; q < g->right_count; q++) {
        const Right *x = s->right + g->rights + q;
        for (int k = 0; k < x->key_count; k++) {
            const i64 width = key_width(c, x->keys + k);
            for (i64 j = 0; j < width; j += NR, p++) {
                if (p < p0 || p >= p1) continue;
                const i64 j1 = at_most(width, j + NR);
                if (j1 - j < NR) memset(panel, 0, (size_t)((k1 - k0) * NR) * sizeof(real));
                gather(t, s->key + x->keys + k, runs, count, k0, k1, j, j1, panel, NR);
                panel += KC * NR;
            }
        }
    }
}

/* m columns of operand `k` down, from its column i on, times those panels. */
static void times_across(Thread *t, const TimeGemm *g, int k, i64 i, i64 m, i64 depth, i64 p0,
                         i64 p1, int more) {
    const Call *c = t->call;
    const Sweep *s = c->sweep;
    const real *left = (real *)(t->own + c->left_at), *panel = (real *)(t->own + c->right_at);
    i64 p = 0;
    for (int q = 0; q < g->right_count; q++) {
        const Right *x = s->right + g->rights + q;
        const Out *o = s->out + x->outs + k;
        const i64 down = c->down[o->place];
        real *to = c->at[o->place] + (c->size[o->row] + i) * down;
        if (!x->key_count && !p0) sum_rows(left, depth, m, to, down, more);
        for (int key = 0; key < x->key_count; key++) {
            const i64 across = key_width(c, x->keys + key);
            for (i64 j = 0; j < across; j += NR, p++) {
                if (p < p0 || p >= p1) continue;
                if (across - j >= NR) {
                    multiply_columns[m](left, depth, panel, to + j, down, more);
                } else {
                    real *part = (real *)(t->own + c->tile_at);
                    multiply_columns[m](left, depth, panel, part, NR, 0);
                    for (i64 r = 0; r < m; r++)
                        for (i64 l = 0; l < across - j; l++) {
                            real *e = to + r * down + j + l;
                            *e = (more ? *e : 0) + part[r * NR + l];
                        }
                }
                panel += KC * NR;
            }
            to += across;
        }
    }
}

/* Of rows `first` to `last`; `more`: added to what is there. */
static void run_time(Thread *t, const TimeGemm *g, i64 first, i64 last, int more) {
    const Call *c = t->call;
    const Sweep *s = c->sweep;
    i64 count, tiles = 0;
    const Run *runs = time_runs(c, g, &count);
    const i64 panels = panels_across(c, g), groups = at_least(1, (panels + ACROSS - 1) / ACROSS);
    for (int k = 0; k < g->left_count; k++) tiles += (key_width(c, g->left + k) + MR - 1) / MR;
    const i64 low = share(tiles, t->me, t->of), high = share(tiles, t->me + 1, t->of);
    for (i64 k0 = first; k0 == first || k0 < last; k0 += KC, more = 1) {
        const i64 k1 = at_most(last, k0 + KC);
        for (i64 group = 0; group < groups; group++) {
            const i64 p0 = share(panels, group, groups), p1 = share(panels, group + 1, groups);
            pack_across(t, g, runs, count, k0, k1, p0, p1, (real *)(t->own + c->right_at));
            i64 tile = 0;
            for (int k = 0; k < g->left_count; k++) {
                const i64 width = key_width(c, g->left + k), parts = (width + MR - 1) / MR;
                for (i64 n = 0; n < parts; n++, tile++) { /* as evenly as they can be divided */
                    if (tile < low || tile >= high) continue;
                    const i64 i = share(width, n, parts), end = share(width, n + 1, parts);
                    gather(t, s->key + g->left + k, runs, count, k0, k1, i, end,
                           (real *)(t->own + c->left_at), end - i);
                    times_across(t, g, k, i, end - i, k1 - k0, p0, p1, more);
                }
            }
        }
    }
}

#endif
