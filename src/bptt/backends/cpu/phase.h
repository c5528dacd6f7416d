/* One phase on some rows and columns: its products, then its body on them. */
#ifndef BPTT_PHASE_H
#define BPTT_PHASE_H

#include "call.h"

/* So many rows times one panel, as evenly as they can be shared out to the kernels. */
static void chunk_of(const Stretch *stretch, i64 count, i64 rows, const real *panel,
                     const real *add, real *to, i64 down) {
    if (rows <= MR) {
        multiply_rows[rows](stretch, count, panel, add, to, down);
        return;
    }
    Stretch x[count + 1];
    i64 r = 0;
    for (i64 group = (rows + MR - 1) / MR; group > 0; group--) {
        const i64 m = (rows - r + group - 1) / group;
        for (i64 k = 0; k < count; k++)
            x[k] = (Stretch){stretch[k].at + r * stretch[k].row, stretch[k].row, stretch[k].count};
        multiply_rows[m](x, count, panel, add, to + r * down, down);
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

/* Bring what a body will read or write of all steps near while the products before it are computed.
 * What only some steps have is near. */
static void fetch(const Call *call, const Phase *p, const View *view, i64 from, i64 r0, i64 r1,
                  i64 c0, i64 c1) {
    for (i64 k = from; k < p->key_count; k++) {
        const int kind = call->sweep->place[call->sweep->key[p->keys + k].place].kind;
        if (kind != PLACE_SERIES && kind != PLACE_BUFFER) continue;
        for (i64 r = r0; r < r1; r++)
            for (i64 c = c0; c < c1; c += 64 / (i64)sizeof(real))
                __builtin_prefetch(view[k].at + r * view[k].row + c, 0, 2);
    }
}

/* A product that nothing follows, put where it belongs: no tile, no body. */
static void straight(const Call *c, const Phase *p, const View *view, const Stretch *stretch,
                     i64 count, i64 low, i64 rows, i64 panel, i64 wide) {
    const Gemm *gemm = c->sweep->gemm + p->gemms;
    const View to = view[p->key_count - 1];
    i64 depth = 0;
    for (i64 k = 0; k < count; k++) depth += stretch[k].count;
    for (i64 n = panel; n < panel + wide; n++)
        chunk_of(stretch, count, rows, c->packed[gemm->packed] + n * depth * NR,
                 gemm->ones ? c->added[gemm->packed] + n * NR : 0,
                 to.at + low * to.row + n * NR, to.row);
}

/* The operands of each product, side by side where they lie so: those of product g are
 * stretch[first[g]] to stretch[first[g + 1]]. */
static void find_stretches(const Call *c, const Phase *p, const View *view, Stretch *stretch, i64 *first) {
    i64 used = 0;
    for (int g = 0; g < p->gemm_count; g++) {
        const Gemm *gemm = c->sweep->gemm + p->gemms + g;
        first[g] = used;
        for (int k = 0; k < gemm->operands; k++) {
            View v = view[gemm->keys - p->keys + k];
            i64 count = key_width(c, gemm->keys + k);
            Stretch *last = stretch + used - 1;
            if (used > first[g] && last->at + last->count == v.at && last->row == v.row)
                last->count += count;
            else
                stretch[used++] = (Stretch){v.at, v.row, count};
        }
    }
    first[p->gemm_count] = used;
}

/* All products of a phase on so many rows from `low` on and `wide` panels: out by out, row by row.
 * `back`: the last panel first. */
static void multiply(const Call *c, const Phase *p, const View *view, const Stretch *stretch,
                     const i64 *first, i64 low, i64 rows, i64 panel, i64 wide, i64 c1, int back,
                     real *tile, i64 across, i64 down) {
    int out = 0;
    for (int g = 0; g < p->gemm_count; g++) {
        const Gemm *gemm = c->sweep->gemm + p->gemms + g;
        if (c->direct) {
            for (int o = 0; o < gemm->outs; o++, out++)
                for (i64 r = 0; r < rows; r++)
                    unpacked(c, gemm, view + (gemm->keys - p->keys), o, low + r, panel * NR,
                             at_most(c1, (panel + wide) * NR), tile + out * across + r * down);
            continue;
        }
        const i64 count = first[g + 1] - first[g], each = wide * gemm->outs;
        i64 depth = 0;
        for (i64 k = 0; k < count; k++) depth += stretch[first[g] + k].count;
        i64 j = back ? wide - 1 : 0, o = back ? gemm->outs - 1 : 0;
        for (i64 k = 0; k < each; k++) { /* in the order of memory, or against it */
            const i64 n = (panel + j) * gemm->outs + o;
            chunk_of(stretch + first[g], count, rows, c->packed[gemm->packed] + n * depth * NR,
                     gemm->ones ? c->added[gemm->packed] + n * NR : 0,
                     tile + (out + o) * across + j * NR, down);
            if (back ? --o < 0 : ++o == gemm->outs) {
                o = back ? gemm->outs - 1 : 0;
                j += back ? -1 : 1;
            }
        }
        out += gemm->outs;
    }
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
        Stretch stretch[p->key_count + 1], here[p->key_count + 1];
        i64 first[p->gemm_count + 1];
        find_stretches(c, p, view, stretch, first);
        const i64 used = first[p->gemm_count];
        const i64 p0 = c0 / NR, p1 = (c1 + NR - 1) / NR, chunks = (rows + CHUNK - 1) / CHUNK;
        i64 wide = rows > MR ? 1 : at_least(1, TILE / (p->tiles * rows * NR));
        wide = at_most(wide, p1 - p0);
        const i64 down = wide * NR, across = at_most(rows, CHUNK) * down;
        real *tile = (real *)(t->own + c->tile_at);
        /* one row goes to and fro: the panels that it read last are still near */
        const int back = rows == 1 && run->parity && !p->reduce_count;
        for (i64 done = p0; done < p1; done += wide) {
            const i64 panel = back ? at_least(p0, p1 - (done - p0) - wide) : done;
            const i64 end = at_most(back ? p1 - (done - p0) : p1, panel + wide);
            i64 low = a;
            for (i64 chunk = 0; chunk < chunks; chunk++) {
                const i64 high = low + (b - low + chunks - chunk - 1) / (chunks - chunk);
                for (i64 k = 0; k < used; k++)
                    here[k] = (Stretch){stretch[k].at + low * stretch[k].row, stretch[k].row,
                                        stretch[k].count};
                const i64 to = at_most(c1, end * NR);
                if (p->flags & PHASE_STRAIGHT && !c->direct && end * NR <= c1) {
                    straight(c, p, view, here, used, low, high - low, panel, end - panel);
                } else {
                    fetch(c, p, view, used, low, high, panel * NR, to);
                    multiply(c, p, view, here, first, low, high - low, panel, end - panel, c1, back,
                             tile, across, down);
                    p->body(view, tile, across, down, low, high, panel * NR, to,
                            sums + (low - a) * p->reduce_count * LANES, c->size);
                }
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
