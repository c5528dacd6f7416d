/* What a test asks of tiles.h, one thing at a time. */
#include "tiles.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int there(void) { return tiles_allowed(); }

/* The parts of the numbers at x, `n` of them, a multiple of 16. */
EXPORT void parts(int cut, const real *x, i64 n, real *first, real *second, real *third) {
    for (i64 k = 0; k < n; k += LANES) {
        U part[3];
        if (cut) parts_of(1, v_load(x + k), part);
        else parts_of(0, v_load(x + k), part);
        v_store(first + k, (V)part[0]);
        v_store(second + k, (V)part[1]);
        v_store(third + k, (V)part[2]);
    }
}

/* to [rows, NR] = x [rows, depth] w [depth, NR]; `turned`: x is [depth, rows] and depth a multiple of
 * TILE_DEPTH. `memory`: of as many blocks as depth takes, three times. */
EXPORT int product(const real *x, i64 rows, i64 depth, const real *w, int turned, half *memory, real *to) {
    const i64 blocks = (depth + TILE_DEPTH - 1) / TILE_DEPTH, apart = blocks * LEFT_BLOCK;
    const i64 top = rows > TILE_ROWS ? (rows + 1) / 2 : rows;
    half *panel = memory + 2 * apart;
    V most = v_set(0);
    int other = 0;
    for (i64 r = 0; r < rows && !turned; r++)
        most = split_row(x + r * depth, depth, memory + (r < top ? r : r - top) * TILE_DEPTH + (r < top ? 0 : apart), most);
    for (i64 block = 0; block < blocks; block++) {
        real wide[TILE_DEPTH * NR] __attribute__((aligned(64))) = {0};
        const i64 deep = depth - block * TILE_DEPTH < TILE_DEPTH ? depth - block * TILE_DEPTH : TILE_DEPTH;
        memcpy(wide, w + block * TILE_DEPTH * NR, (size_t)(deep * NR) * sizeof(real));
        other |= split_panel(wide, panel + block * RIGHT_BLOCK);
        for (i64 low = 0; low < rows && turned; low += top) {
            real narrow[TILE_DEPTH * TILE_ROWS] __attribute__((aligned(64))) = {0};
            for (i64 k = 0; k < TILE_DEPTH; k++)
                for (i64 r = low; r < rows && r < low + top; r++)
                    narrow[k * TILE_ROWS + r - low] = x[(block * TILE_DEPTH + k) * rows + r];
            other |= split_turned(narrow, memory + block * LEFT_BLOCK + (low ? apart : 0));
        }
    }
    shape_tiles(rows);
    multiply_tiles(memory, apart, rows, panel, blocks, 0, 0, to, NR);
    multiply_tiles(memory, apart, rows, panel, blocks, to, NR, to, NR); /* and twice */
    T_RELEASE();
    return too_large(most) | other;
}
