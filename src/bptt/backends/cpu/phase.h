/* One phase on some rows and columns: its products, then its body on them. */
#ifndef BPTT_PHASE_H
#define BPTT_PHASE_H

#include "call.h"

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

#endif
