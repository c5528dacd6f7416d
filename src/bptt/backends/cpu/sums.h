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

/* Of rows `first` to `last`; `more`: added to what is there. */
static void run_time(Thread *t, const TimeGemm *g, i64 first, i64 last, int more) {
    const Call *c = t->call;
    const Sweep *s = c->sweep;
    real *left = (real *)(t->own + c->left_at), *right = (real *)(t->own + c->right_at);
    i64 count;
    const Run *runs = time_runs(c, g, &count);
    for (i64 k0 = first; k0 == first || k0 < last; k0 += KC, more = 1) {
        const i64 k1 = at_most(last, k0 + KC), depth = k1 - k0;
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
        for (int k = 0; k < g->left_count; k++) tiles += (key_width(c, g->left + k) + MR - 1) / MR;
        const i64 low = share(tiles, t->me, t->of), high = share(tiles, t->me + 1, t->of);
        for (int k = 0; k < g->left_count; k++) {
            const i64 width = key_width(c, g->left + k), parts = (width + MR - 1) / MR;
            for (i64 n = 0; n < parts; n++, tile++) { /* as evenly as they can be divided */
                if (tile < low || tile >= high) continue;
                const i64 i = share(width, n, parts), high_i = share(width, n + 1, parts), m = high_i - i;
                gather(t, s->key + g->left + k, runs, count, k0, k1, i, high_i, left, m);
                panel = right;
                for (int q = 0; q < g->right_count; q++) {
                    const Right *x = s->right + g->rights + q;
                    const Out *o = s->out + x->outs + k;
                    const i64 down = c->down[o->place];
                    real *to = c->at[o->place] + (c->size[o->row] + i) * down;
                    if (!x->key_count) {
                        sum_rows(left, depth, m, to, down, more);
                        continue;
                    }
                    for (int key = 0; key < x->key_count; key++) {
                        const i64 across = key_width(c, x->keys + key);
                        for (i64 j = 0; j < across; j += NR, panel += KC * NR) {
                            if (across - j >= NR) {
                                multiply_columns[m](left, depth, panel, to + j, down, more);
                                continue;
                            }
                            real *part = (real *)(t->own + c->tile_at);
                            multiply_columns[m](left, depth, panel, part, NR, 0);
                            for (i64 r = 0; r < m; r++)
                                for (i64 l = 0; l < across - j; l++) {
                                    real *e = to + r * down + j + l;
                                    *e = (more ? *e : 0) + part[r * NR + l];
                                }
                        }
                        to += across;
                    }
                }
            }
        }
    }
}

#endif
