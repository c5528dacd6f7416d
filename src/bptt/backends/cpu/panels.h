/* The packing of matrices, shared among threads. */
#ifndef BPTT_PANELS_H
#define BPTT_PANELS_H

#include <string.h>
#include "phase.h"

/* A panel for tiles: the outputs of one product from matrix column `from` on. */
static void pack_blocks(const Call *c, const Gemm *g, const Block *block, i64 from, i64 wide, half *to) {
    real rows[TILE_DEPTH * NR] __attribute__((aligned(64)));
    for (int k = 0; k < g->operands; k++, block++) {
        const Matrix m = matrix_of(c, block);
        const i64 count = key_width(c, g->keys + k);
        for (i64 n = 0; n < count; n += TILE_DEPTH, to += RIGHT_BLOCK) {
            const i64 deep = at_most(TILE_DEPTH, count - n);
            pack(m.at + from * m.row + n * m.col, m.row, m.col, deep, wide, rows);
            memset(rows + deep * NR, 0, (size_t)numbers((TILE_DEPTH - deep) * NR));
            if (split_panel(rows, to)) __atomic_store_n(c->infinite + g->packed, 1, __ATOMIC_RELAXED);
        }
    }
}

static void pack_gemm(Thread *t, const Phase *p, const Gemm *g) {
    const Call *c = t->call;
    const Sweep *s = c->sweep;
    const i64 width = c->size[p->space], panels = (width + NR - 1) / NR;
    const i64 blocks = c->blocks[g->packed];
    i64 depth = 0;
    const int across = g->operands + g->ones;
    for (int k = 0; k < g->operands; k++) depth += key_width(c, g->keys + k);
    for (i64 n = t->me; n < panels * g->outs; n += t->of) {
        const i64 panel = n / g->outs, wide = at_most(NR, width - panel * NR);
        const Block *block = s->block + g->blocks + (n % g->outs) * across;
        real *to = c->packed[g->packed] + n * depth * NR, *added = c->added[g->packed] + n * NR;
        for (int j = 0; j < NR && g->ones; j++) added[j] = 0;
        if (blocks)
            pack_blocks(c, g, block, panel * NR, wide, (half *)c->packed[g->packed] + n * blocks * RIGHT_BLOCK);
        for (int k = 0; k < across; k++, block++) {
            const Matrix m = matrix_of(c, block);
            const real *from = m.at + panel * NR * m.row;
            if (k >= g->operands) {
                for (i64 j = 0; j < wide; j++) added[j] += from[j * m.row];
                continue;
            }
            if (blocks) continue;
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
        for (int g = 0; g < s->phase[k].gemm_count && !idle(t->call, k); g++) {
            const Gemm *gemm = s->gemm + s->phase[k].gemms + g;
            if (!done[gemm->packed]) pack_gemm(t, s->phase + k, gemm);
            done[gemm->packed] = 1;
        }
}

#endif
