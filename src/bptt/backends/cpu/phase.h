/* One phase on some rows and columns: its products, then its body on them. */
#ifndef BPTT_PHASE_H
#define BPTT_PHASE_H

#include "call.h"

/* Rows that the kernel multiplies at once: where all of them would lie in one set of the first-level cache,
 * no more than fit in there. */
static i64 most_rows(const Stretch *stretch, i64 count) {
    for (i64 k = 0; k < count; k++)
        if (stretch[k].row && numbers(stretch[k].row) % WAY == 0) return at_most(MR, WAYS);
    return MR;
}

/* So many rows times one panel, as evenly as they can be shared out to the kernels, `most` at once; of
 * the panel the `first` vector alone, or both. */
static void chunk_of(const Stretch *stretch, i64 count, i64 rows, i64 most, const real *panel, int first,
                     const real *add, real *to, i64 down) {
    if (rows <= most) {
        multiply_rows[first][rows](stretch, count, panel, add, to, down);
        return;
    }
    Stretch x[count + 1];
    const unsigned groups = ((unsigned)rows + (unsigned)most - 1) / (unsigned)most;
    const unsigned each = (unsigned)rows / groups, larger = (unsigned)rows % groups;
    i64 r = 0;
    for (unsigned group = 0; group < groups; group++) {
        const i64 m = each + (group < larger);
        for (i64 k = 0; k < count; k++)
            x[k] = (Stretch){stretch[k].at + r * stretch[k].row, stretch[k].row, stretch[k].count};
        multiply_rows[first][m](x, count, panel, add, to + r * down, down);
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

/* One row's outputs c0 to c1, from matrices as they lie; `back`: the last ones first. */
static void unpacked(const Call *c, const Gemm *g, const View *view, int out, i64 r, i64 c0, i64 c1,
                     real *to, int back) {
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
        if (m.col == 1 || m.row != 1) times_rows(from, m.row, x, count, c1 - c0, to, back);
        else times_columns(from, m.col, x, count, c1 - c0, to);
    }
}

/* A part of a phase: so many rows from `low` on, panels from `panel` to `end`, columns up to c1.
 * Its products go to `tile`, `across` numbers from out to out and `down` from row to row; `back`:
 * the last panel first. */
typedef struct {
    i64 low, rows, panel, end, c1;
    i64 most; /* rows that the kernel multiplies at once */
    int back;
    real *tile;
    i64 across, down;
    i64 lots, each;    /* on tiles: so many lots of as many rows, which may overlap ... */
    const half **left; /* ... and the operands there, by product and lot, null if one is infinite */
} Part;

/* Bring what a body will read or write of all steps near while the products before it are computed.
 * What only some steps have is near. */
static void fetch(const Call *c, const Phase *p, const View *view, i64 from, const Part *part) {
    for (i64 k = from; k < p->key_count; k++) {
        const int kind = c->sweep->place[c->sweep->key[p->keys + k].place].kind;
        if (kind != PLACE_SERIES && kind != PLACE_BUFFER) continue;
        for (i64 r = part->low; r < part->low + part->rows; r++)
            for (i64 j = part->panel * NR; j < part->c1; j += 64 / (i64)sizeof(real))
                __builtin_prefetch(view[k].at + r * view[k].row + j, 0, 2);
    }
}

/* --- products on tiles ------------------------------------------------------------------------ */

/* Shape this thread's tiles for so many rows. */
static void shape(Thread *t, i64 rows) {
    if (t->shaped != rows) shape_tiles(rows);
    t->shaped = rows;
}

/* Whether some product of a phase is worked out on tiles. */
static int on_tiles(const Call *c, const Phase *p) {
    for (int g = 0; g < p->gemm_count; g++)
        if (c->blocks[c->sweep->gemm[p->gemms + g].packed]) return 1;
    return 0;
}

/* The first row of a lot: all of them have as many rows, for which the tiles are shaped once. */
static i64 lot_at(const Part *part, i64 lot) {
    return part->low + at_most(lot * part->each, part->rows - part->each);
}

/* Rows of a lot, as blocks of operands. Gives whether there is one too large. */
static int split_rows(const Call *c, const Gemm *g, const View *view, i64 low, i64 rows, half *to) {
    const i64 top = rows > TILE_ROWS ? (rows + 1) / 2 : rows, apart = c->blocks[g->packed] * LEFT_BLOCK;
    V most = v_set(0);
    for (int k = 0; k < g->operands; k++) {
        const i64 width = key_width(c, g->keys + k);
        for (i64 r = 0; r < rows; r++)
            most = split_row(view[k].at + (low + r) * view[k].row, width,
                             to + (r < top ? r : r - top) * TILE_DEPTH + (r < top ? 0 : apart), most);
        to += (width + TILE_DEPTH - 1) / TILE_DEPTH * LEFT_BLOCK;
    }
    return too_large(most);
}

/* The operands of all products on tiles. Gives whether all of them are there. */
static int split_all(Thread *t, const Phase *p, const View *view, const Part *part) {
    const Call *c = t->call;
    half *to = (half *)(t->own + c->split_at);
    int whole = 1;
    for (int g = 0; g < p->gemm_count; g++) {
        const Gemm *gemm = c->sweep->gemm + p->gemms + g;
        const i64 blocks = c->blocks[gemm->packed];
        for (i64 lot = 0; blocks && lot < part->lots; lot++, to += 2 * blocks * LEFT_BLOCK) {
            const int infinite = c->infinite[gemm->packed] ||
                                 split_rows(c, gemm, view + (gemm->keys - p->keys), lot_at(part, lot), part->each, to);
            part->left[g * part->lots + lot] = infinite ? 0 : to;
            whole &= !infinite;
        }
    }
    return whole;
}

/* Whether no more of panel n than its first vector is wanted. */
static int slim(const Part *part, i64 n) {
    return part->c1 - n * NR <= LANES;
}

/* A lot times panel number n of a product. */
static void tiles_times(const Call *c, const Gemm *gemm, const half *left, i64 rows, i64 n, real *to, i64 down) {
    const i64 blocks = c->blocks[gemm->packed];
    multiply_tiles(left, blocks * LEFT_BLOCK, rows, (const half *)c->packed[gemm->packed] + n * blocks * RIGHT_BLOCK,
                   blocks, gemm->ones ? c->added[gemm->packed] + n * NR : 0, 0, to, down);
}

/* A product that nothing follows, put where it belongs: no tile, no body. */
static void straight(const Call *c, const Phase *p, const View *view, const Stretch *stretch,
                     i64 count, const Part *part) {
    const Gemm *gemm = c->sweep->gemm + p->gemms;
    const View to = view[p->key_count - 1];
    i64 depth = 0;
    for (i64 k = 0; k < count; k++) depth += stretch[k].count;
    for (i64 n = part->panel; n < part->end; n++) {
        for (i64 lot = 0; lot < part->lots; lot++)
            tiles_times(c, gemm, part->left[lot], part->each, n, to.at + lot_at(part, lot) * to.row + n * NR, to.row);
        if (part->lots) continue;
        chunk_of(stretch, count, part->rows, part->most, c->packed[gemm->packed] + n * depth * NR, slim(part, n),
                 gemm->ones ? c->added[gemm->packed] + n * NR : 0, to.at + part->low * to.row + n * NR, to.row);
    }
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

/* Where panel number n of `outs` outs goes, the first of which is number `out`. */
static real *product(const Part *part, int out, int outs, i64 n) {
    const unsigned j = (unsigned)n / (unsigned)outs, o = (unsigned)n % (unsigned)outs;
    return part->tile + (out + (i64)o) * part->across + (i64)j * NR;
}

/* All outputs of one product from matrices as they lie, the first of which is number `out`. */
static void multiply_unpacked(const Call *c, const Gemm *gemm, const View *view, int out, i64 low, i64 rows,
                              const Part *part) {
    for (int n = 0; n < gemm->outs; n++) {
        const int o = part->back ? gemm->outs - 1 - n : n;
        for (i64 r = low; r < low + rows; r++)
            unpacked(c, gemm, view, o, r, part->panel * NR, part->c1,
                     part->tile + (out + o) * part->across + (r - part->low) * part->down, part->back);
    }
}

/* The same from panels, in the order of memory, or against it. */
static void multiply_packed(const Call *c, const Gemm *gemm, const Stretch *stretch, i64 count, int out,
                            const Part *part) {
    const i64 before = part->panel * gemm->outs, all = (part->end - part->panel) * gemm->outs;
    i64 depth = 0, together = 1;
    for (i64 k = 0; k < count; k++) depth += stretch[k].count;
    for (i64 k = 0; k < all; k += together) {
        together = part->rows == 1 && (part->back ? (all - k) % 2 == 0 : k + 1 < all) ? 2 : 1; /* the same either way */
        const i64 n = part->back ? all - k - together : k;
        const real *panel = c->packed[gemm->packed] + (before + n) * depth * NR;
        const real *add = gemm->ones ? c->added[gemm->packed] + (before + n) * NR : 0;
        real *to = product(part, out, gemm->outs, n);
        if (together == 1)
            chunk_of(stretch, count, part->rows, part->most, panel, slim(part, part->panel + n / gemm->outs), add, to,
                     part->down);
        else
            row_twice(stretch, count, panel, depth * NR, add, to, product(part, out, gemm->outs, n + 1));
    }
}

/* The same on tiles, but for lots with an infinity. */
static void multiply_lots(const Call *c, const Gemm *gemm, const View *view, int out, const half **left,
                          const Part *part) {
    for (i64 k = 0; k < (part->end - part->panel) * gemm->outs; k++)
        for (i64 lot = 0; lot < part->lots; lot++)
            if (left[lot])
                tiles_times(c, gemm, left[lot], part->each, part->panel * gemm->outs + k,
                            product(part, out, gemm->outs, k) + (lot_at(part, lot) - part->low) * part->down,
                            part->down);
    for (i64 lot = 0; lot < part->lots; lot++)
        if (!left[lot]) multiply_unpacked(c, gemm, view, out, lot_at(part, lot), part->each, part);
}

/* All products of a phase on a part of it. */
static void multiply(const Call *c, const Phase *p, const View *view, const Stretch *stretch,
                     const i64 *first, const Part *part) {
    for (int g = 0, out = 0; g < p->gemm_count; g++) {
        const Gemm *gemm = c->sweep->gemm + p->gemms + g;
        const View *operands = view + (gemm->keys - p->keys);
        if (c->direct)
            multiply_unpacked(c, gemm, operands, out, part->low, part->rows, part);
        else if (c->blocks[gemm->packed])
            multiply_lots(c, gemm, operands, out, part->left + g * part->lots, part);
        else
            multiply_packed(c, gemm, stretch + first[g], first[g + 1] - first[g], out, part);
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
        const i64 p0 = c0 / NR, p1 = (c1 + NR - 1) / NR;
        Part part = {.low = a, .rows = rows, .most = most_rows(stretch, used), .tile = (real *)(t->own + c->tile_at)};
        if (on_tiles(c, p)) part.lots = (rows + MOST_ROWS - 1) / MOST_ROWS;
        const half *left[part.lots * p->gemm_count + 1];
        int whole = !c->direct; /* every product is from panels */
        if (part.lots) {
            part.each = (rows + part.lots - 1) / part.lots;
            part.left = left;
            whole = split_all(t, p, view, &part);
            shape(t, part.each);
        }
        const i64 chunks = part.lots ? 1 : (rows + CHUNK - 1) / CHUNK;
        i64 wide = rows > MR ? 1 : at_least(1, TILE / (p->tiles * rows * NR));
        wide = at_most(wide, p1 - p0);
        part.down = wide * NR;
        part.across = (part.lots ? rows : at_most(rows, CHUNK)) * part.down;
        /* one row goes to and fro, also from call to call: the panels that it read last are still near */
        part.back = rows == 1 && (run->parity ^ c->turn) && !p->reduce_count;
        const i64 parts = (p1 - p0 + wide - 1) / wide;
        for (i64 n = 0; n < parts; n++) {
            part.panel = p0 + (part.back ? parts - 1 - n : n) * wide;
            part.end = at_most(p1, part.panel + wide);
            part.c1 = at_most(c1, part.end * NR);
            i64 low = a;
            for (i64 chunk = 0; chunk < chunks; chunk++) {
                const i64 high = low + (b - low + chunks - chunk - 1) / (chunks - chunk);
                part.low = low, part.rows = high - low;
                for (i64 k = 0; k < used; k++)
                    here[k] = (Stretch){stretch[k].at + low * stretch[k].row, stretch[k].row,
                                        stretch[k].count};
                const int exact = part.end * NR <= c1 || (!part.lots && part.end * NR - LANES == c1);
                if (p->flags & PHASE_STRAIGHT && whole && exact) {
                    straight(c, p, view, here, used, &part);
                } else {
                    fetch(c, p, view, used, &part);
                    multiply(c, p, view, here, first, &part);
                    p->body(view, part.tile, part.across, part.down, low, high, part.panel * NR,
                            part.c1, sums + (low - a) * p->reduce_count * LANES, c->size);
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
