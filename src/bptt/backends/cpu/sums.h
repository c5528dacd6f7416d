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

#endif
