/* Before a call runs: its rows, its memory, and how threads share it. */
#ifndef BPTT_MEMORY_H
#define BPTT_MEMORY_H

#include <string.h>
#include "call.h"

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

/* Numbers from one row of a buffer to the next: not whole pages, or rows would share cache sets. */
static i64 buffer_row(const Call *c, int k) {
    const i64 width = c->size[c->sweep->buffer[k]];
    return width && numbers(width) % 4096 == 0 ? width + LANES : width;
}

/* What a product's matrix takes, so many blocks deep. */
static i64 packed_bytes(const Call *c, const Phase *p, const Gemm *g, i64 blocks) {
    return blocks * RIGHT_BLOCK * (i64)sizeof(half) * ((c->size[p->space] + NR - 1) / NR) * g->outs;
}

/* How deep a product's matrix is as blocks for tiles, or 0: vectors are faster, or there are none. */
static i64 blocks_of(const Call *c, const Phase *p, const Gemm *g) {
    const Sweep *s = c->sweep;
    const int loops = p >= s->phase + c->loop && p < s->phase + c->loop + s->loop_count;
    const i64 rows = loops ? c->rows / at_least(1, c->steps) : c->rows;
    i64 blocks = 0, depth = 0;
    for (int n = 0; n < g->operands; n++) {
        const i64 width = key_width(c, g->keys + n);
        depth += width;
        blocks += (width + TILE_DEPTH - 1) / TILE_DEPTH;
    }
    const i64 least = loops && packed_bytes(c, p, g, blocks) > CACHED ? LEAST_SPREAD : LEAST_ROWS;
    const int full = LEAST_ROWS == 1 || 2 * depth > blocks * TILE_DEPTH;
    return c->tiles && full && rows >= least ? blocks : 0;
}

/* The same for each packed matrix, which several phases may read: what is right for all of them. */
static void choose_blocks(const Call *c, i64 *blocks) {
    const Sweep *s = c->sweep;
    for (int k = 0; k < s->packed; k++) blocks[k] = -1;
    for (int k = 0; k < s->phases; k++)
        for (int g = 0; g < s->phase[k].gemm_count && !idle(c, k); g++) {
            const Gemm *gemm = s->gemm + s->phase[k].gemms + g;
            const i64 here = blocks_of(c, s->phase + k, gemm), before = blocks[gemm->packed];
            blocks[gemm->packed] = before < 0 ? here : at_most(before, here);
        }
}

/* The loop with the products of before it taken in reads more matrix in each step, but nothing is
 * written and read again between the two, and threads that divide sequences need not wait there. */
static void choose_loop(Call *c) {
    const Sweep *s = c->sweep;
    c->loop = s->loop, c->before = s->before_count;
    if (s->joined < 0 || c->direct) return;
    c->loop = s->joined, c->before = 0;
    i64 least = c->tiles ? LEAST_JOINED : LEAST_TAKEN, bytes = 0;
    int quick = LEAST_JOINED > 1 || c->steps % 2; /* in tests both ways */
    for (int k = s->joined; k < s->joined + s->loop_count; k++)
        for (int g = 0; g < s->phase[k].gemm_count; g++) {
            const Gemm *gemm = s->gemm + s->phase[k].gemms + g;
            const i64 blocks = blocks_of(c, s->phase + k, gemm);
            quick &= blocks > 0 || !c->tiles;
            if (packed_bytes(c, s->phase + k, gemm, blocks) > CACHED) least = MOST_ROWS;
            for (int n = 0; n < gemm->operands; n++)
                bytes += numbers(key_width(c, gemm->keys + n) * c->size[s->phase[k].space] * gemm->outs);
        }
    quick &= c->tiles || bytes <= AT_HAND;
    if (!quick || c->rows < least * c->steps) c->loop = s->loop, c->before = s->before_count;
}

static void lay_out(Call *c, Arena *a) {
    const Sweep *s = c->sweep;
    c->offset = take(a, (c->steps + 1) * (i64)sizeof(i64));
    c->first_run = take(a, (c->steps + 1) * (i64)sizeof(i64));
    i64 ragged = c->counts ? at_most(c->batch, c->steps) : 0;
    c->stepwise = take(a, (c->steps + ragged + 1) * (i64)sizeof(Run));
    c->ends[0] = take(a, 2 * (i64)sizeof(Run));
    c->ends[1] = take(a, (ragged + 2) * (i64)sizeof(Run));
    c->buffer = take(a, (s->buffers + 1) * (i64)sizeof(real *));
    c->at = take(a, s->places * (i64)sizeof(real *));
    c->down = take(a, s->places * (i64)sizeof(i64));
    c->packed = take(a, s->packed * (i64)sizeof(real *));
    c->added = take(a, s->packed * (i64)sizeof(real *));
    c->blocks = take(a, s->packed * (i64)sizeof(i64));
    c->infinite = take(a, s->packed * (i64)sizeof(int));
    c->block_offset = take(a, s->buffers * (i64)sizeof(i64));
    c->sum = take(a, s->ports * (i64)sizeof(real *));
    for (int k = 0; k < s->ports && c->source; k++) {
        if (c->source[k].other < 0) continue;
        real *sum = take(a, numbers(c->source[k].count));
        if (a->at) c->sum[k] = sum;
    }
    i64 block = 0, most_keys = 1, most_tiles = 1, most_sums = 0, panels = 0, split = 0;
    real *number_row[s->numbers + 1];
    for (int k = 0; k < s->numbers; k++) {
        i64 width = c->size[s->number_width[k]];
        number_row[k] = take(a, numbers(width));
        for (i64 j = 0; j < width && a->at; j++) number_row[k][j] = (real)s->number[k];
    }
    for (int k = 0; k < s->buffers; k++) {
        i64 width = buffer_row(c, k), rows = c->rows;
        if (a->at) c->buffer[k] = 0;
        switch (s->buffer_kind[k]) {
        case PLACE_BLOCK:
            if (a->at) c->block_offset[k] = block;
            block += padded(width * ROW_BLOCK, LANES);
            continue;
        case PLACE_ROLL: rows = 2 * c->batch; break;
        case PLACE_WINDOW: rows = at_most(c->rows, c->window * c->batch); break;
        case PLACE_SLIDE: rows = at_most(c->rows, c->window * c->batch) + 2 * c->batch; break;
        case PLACE_STEP: rows = c->batch; break;
        default: break;
        }
        real *at = take(a, numbers(width * rows));
        if (a->at) c->buffer[k] = at;
    }
    for (int k = 0; k < s->places && a->at; k++) {
        const Place *p = s->place + k;
        c->down[k] = 0;
        if (p->kind == PLACE_NUMBER) c->at[k] = number_row[p->index];
        if (p->kind < PLACE_BUFFER) continue;
        c->at[k] = c->buffer[p->index] ? c->buffer[p->index] + c->size[p->col] : 0;
        c->down[k] = buffer_row(c, p->index);
    }
    unsigned char done[s->packed + 1];
    memset(done, 0, sizeof done);
    i64 chosen[s->packed + 1];
    choose_blocks(c, chosen);
    for (int k = 0; k < s->phases; k++) {
        if (idle(c, k)) continue;
        const Phase *p = s->phase + k;
        most_keys = at_least(most_keys, p->key_count);
        most_tiles = at_least(most_tiles, p->tiles);
        most_sums = at_least(most_sums, p->reduce_count);
        i64 parts = 0; /* of operands, in halves */
        for (int g = 0; g < p->gemm_count; g++) {
            const Gemm *gemm = s->gemm + p->gemms + g;
            const i64 blocks = chosen[gemm->packed];
            parts += TOGETHER / MOST_ROWS * 2 * blocks * LEFT_BLOCK;
            split = at_least(split, parts);
            if (done[gemm->packed]) continue;
            done[gemm->packed] = 1;
            i64 depth = 0, outs = c->direct ? 0 : padded(c->size[p->space], NR) * gemm->outs;
            for (int n = 0; n < gemm->operands; n++) depth += key_width(c, gemm->keys + n);
            const i64 bytes = blocks ? outs / NR * blocks * RIGHT_BLOCK * (i64)sizeof(half) : numbers(outs * depth);
            real *packed = take(a, bytes), *added = take(a, numbers(outs));
            if (!a->at) continue;
            c->packed[gemm->packed] = packed, c->added[gemm->packed] = added;
            c->blocks[gemm->packed] = blocks, c->infinite[gemm->packed] = 0;
        }
    }
    for (int k = 0; k < s->time_count; k++)
        panels = at_least(panels, at_most(panels_across(c, s->time + k), ACROSS));
    Arena own = {0, 0};
    c->tile_at = own.used, take(&own, numbers(at_least(TILE, most_tiles * at_least(CHUNK, c->tiles ? TOGETHER : 0) * NR)));
    c->block_at = own.used, take(&own, numbers(block));
    c->sums_at = own.used, take(&own, numbers(most_sums * LANES * at_least(c->batch, ROW_BLOCK)));
    i64 left = numbers((c->parts > 1 ? GATHERED : 1) * MR * KC + LANES), right = numbers(KC * NR);
    if (c->tiles) {
        left = at_least(at_least(left, numbers(MOST_ROWS * KC + LANES)), KC / TILE_DEPTH * 2 * LEFT_BLOCK * (i64)sizeof(half));
        right = KC / TILE_DEPTH * RIGHT_BLOCK * (i64)sizeof(half);
    }
    c->left_at = own.used, take(&own, s->time_count ? left : 0);
    c->right_at = own.used, take(&own, panels * right);
    c->split_at = own.used, take(&own, split * (i64)sizeof(half));
    c->keys_at = own.used, take(&own, most_keys * (i64)sizeof(View));
    c->own_size = padded(own.used, 4096);
    c->own = take(a, c->own_size * c->threads);
}

/* About how many multiplications there are in all. */
static i64 work_of(const Call *c) {
    const Sweep *s = c->sweep;
    i64 all = 0;
    for (int k = 0; k < s->phases; k++) {
        if (idle(c, k)) continue;
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
 * until the loop reads them, and enough for the products to be worth their matrices. As many where the
 * loop takes that in, so that its memory, which stays empty, is small. */
static i64 window_of(const Call *c) {
    const Sweep *s = c->sweep;
    i64 numbers_a_row = 0, count = s->before_count, slides = 0;
    for (int k = 0; k < s->buffers; k++) slides |= s->buffer_kind[k] == PLACE_SLIDE;
    const int follows = s->follows && (s->after_count || s->time_count);
    if (!s->windows || !s->loop_count || (!count && !follows)) return at_least(1, c->steps);
    for (int g = 0; g < count; g++)
        for (int k = s->before[g].first; k < s->before[g].first + s->before[g].count; k++)
            numbers_a_row += c->size[s->phase[k].space];
    for (int k = 0; k < s->buffers; k++)
        if (s->buffer_kind[k] == PLACE_SLIDE) numbers_a_row += c->size[s->buffer[k]];
    if (follows && c->parts > 1) return at_least(1, c->steps); /* a few steps of one part are too few */
    const i64 batch = at_least(1, c->batch);
    const i64 fit = AHEAD_BYTES * c->threads / at_least(1, numbers(numbers_a_row) * batch);
    const i64 rows = at_least(follows && s->time_count ? SUM_ROWS : 1, THREAD_ROWS * c->threads);
    const i64 least = at_least((rows + batch - 1) / batch, slides ? SLIDE_STEPS : 1);
    return at_least(1, at_most(c->steps, at_least(fit, least)));
}

/* How threads share the loop: by sequences, or (few of them, or large matrices) by columns. */
static void divide(Call *c) {
    const Sweep *s = c->sweep;
    i64 bytes = 0, widest = 0;
    int reduces = 0, wide = 0;
    for (int k = c->loop; k < c->loop + s->loop_count; k++) {
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
        if (k < c->loop || k >= c->loop + s->loop_count) reduces |= s->phase[k].reduce_count;
    c->one_runs = !wide;
    /* tiles would rather have all their rows, and half of a matrix */
    const i64 near = c->tiles && c->batch < MOST_ROWS * c->threads ? CACHE / 2 : CACHE;
    c->columns = !reduces && c->threads > 1 && widest > NR && (c->batch < ROWS_EACH * c->threads || bytes > near);
}

#endif
