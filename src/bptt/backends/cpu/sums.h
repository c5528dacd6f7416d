/* Sums over time: products of two series over all rows. */
#ifndef BPTT_SUMS_H
#define BPTT_SUMS_H

#include <string.h>
#include "rows.h"

static void copy_row(const real *from, i64 count, real *to) {
    i64 j = 0;
    for (; j + LANES <= count; j += LANES) v_store(to + j, v_load(from + j));
    if (j < count) v_store_n(to + j, v_load_n(from + j, (int)(count - j)), (int)(count - j));
}

/* What is copied of each row: `count` columns from column c0 on, to rows `wide` numbers apart; where those
 * are fewer, the next so many to rows behind all of these, as far apart as they are wide, and so on. */
typedef struct {
    i64 c0, count, wide;
} Cut;

/* Row k of so many. */
INL void cut_row(const Cut *cut, const real *from, i64 k, i64 rows, real *to, int several) {
    if (!several) copy_row(from + cut->c0, cut->count, to + k * cut->wide);
    for (i64 c = 0; several && c < cut->count; c += cut->wide) {
        const i64 n = at_most(cut->wide, cut->count - c);
        copy_row(from + cut->c0 + c, n, to + c * rows + k * n);
    }
}

INL void gather_rows(Thread *t, const Key *key, const Run *runs, i64 count, i64 k0, i64 rows, const Cut *cut,
                     real *to, int several) {
    const i64 batch = t->call->batch, each = batch / t->call->parts;
    i64 row = k0 / each * batch + t->part * each + k0 % each, left = each - k0 % each, k = 0;
    for (runs += first_reaching(runs, count, row); k < rows; runs++) {
        const View v = look(t, key, runs, 0);
        for (; k < rows && row < runs->row + runs->count; k++, row++) {
            cut_row(cut, v.at + (row - runs->row) * v.row, k, rows, to, several);
            if (--left) continue;
            left = each, row += batch - each;
        }
    }
}

/* Copies of rows k0 to k1 of the part at hand, which are some of each step. */
static void gather(Thread *t, const Key *key, const Run *runs, i64 count, i64 k0, i64 k1, const Cut *cut, real *to) {
    if (k0 >= k1) return;
    if (cut->wide < cut->count) gather_rows(t, key, runs, count, k0, k1 - k0, cut, to, 1);
    else gather_rows(t, key, runs, count, k0, k1 - k0, cut, to, 0);
}

/* to[j * down] (+)= the sum of rows[.][j], n numbers a row, the rows `wide` apart; LANES may be read
 * wherever a row begins. */
static void sum_rows(const real *rows, i64 count, i64 wide, i64 n, real *to, i64 down, int more) {
    for (i64 j = 0; j < n; j += LANES) {
        V s0 = v_set(0), s1 = s0, s2 = s0, s3 = s0;
        const real *row = rows + j;
        i64 k = count;
        for (; k >= 4; k -= 4, row += 4 * wide) {
            s0 += v_load(row);
            s1 += v_load(row + wide);
            s2 += v_load(row + 2 * wide);
            s3 += v_load(row + 3 * wide);
        }
        for (; k > 0; k--, row += wide) s0 += v_load(row);
        const V sum = (s0 + s1) + (s2 + s3);
        for (i64 i = j; i < at_most(n, j + LANES); i++) to[i * down] = (more ? to[i * down] : 0) + sum[i - j];
    }
}

/* The runs that a product over time sees: its operands may be read at other steps. */
static const Run *time_runs(const Call *c, const TimeGemm *g, i64 *count) {
    const int each = c->counts || g->stepwise;
    *count = each ? c->first_run[c->steps] : c->few_count;
    return each ? c->stepwise : c->few;
}

/* A panel of the operands across: `wide` columns from `col` on of a key, at column `at` of the sums. */
typedef struct {
    int key;
    const Right *right;
    i64 col, wide, at;
} Across;

static Across panel_across(const Call *c, const TimeGemm *g, i64 p) {
    for (int q = 0;; q++) {
        const Right *x = c->sweep->right + g->rights + q;
        i64 at = 0;
        for (int k = 0; k < x->key_count; k++) {
            const i64 width = key_width(c, x->keys + k), panels = (width + NR - 1) / NR;
            if (p < panels) return (Across){x->keys + k, x, p * NR, at_most(NR, width - p * NR), at + p * NR};
            p -= panels;
            at += width;
        }
    }
}

/* The sums over time of one window of rows: k0 to k1 of all, and the panels p0 to p1 across. */
typedef struct {
    const TimeGemm *g;
    const Run *runs;
    i64 count, k0, k1, p0, p1;
    int more;      /* added to what is there */
    i64 blocks;    /* on tiles: how deep; or 0 */
    int infinite;  /* on tiles: a panel across holds an infinity */
} Sum;

/* Rows of a key's columns col to end, TILE_DEPTH at a time: from row k on, zeros behind. */
static void gather_block(Thread *t, const Sum *m, int key, i64 k, i64 col, i64 end, real *to, i64 wide) {
    const i64 last = at_most(m->k1, k + TILE_DEPTH);
    if (last < k + TILE_DEPTH || end - col < wide) memset(to, 0, (size_t)numbers(TILE_DEPTH * wide));
    const Cut cut = {col, end - col, wide};
    gather(t, t->call->sweep->key + key, m->runs, m->count, k, last, &cut, to);
}

/* The panels across. */
static void pack_across(Thread *t, Sum *m) {
    const Call *c = t->call;
    real *panel = (real *)(t->own + c->right_at);
    m->infinite = 0;
    for (i64 p = m->p0; p < m->p1; p++) {
        const Across x = panel_across(c, m->g, p);
        if (m->blocks) {
            real rows[TILE_DEPTH * NR] __attribute__((aligned(64)));
            half *to = (half *)panel;
            for (i64 k = m->k0; k < m->k1; k += TILE_DEPTH, to += RIGHT_BLOCK) {
                gather_block(t, m, x.key, k, x.col, x.col + x.wide, rows, NR);
                m->infinite |= split_panel(rows, to);
            }
            panel = (real *)to;
            continue;
        }
        if (x.wide < NR) memset(panel, 0, (size_t)numbers((m->k1 - m->k0) * NR));
        const Cut cut = {x.col, x.wide, NR};
        gather(t, c->sweep->key + x.key, m->runs, m->count, m->k0, m->k1, &cut, panel);
        panel += KC * NR;
    }
}

/* Where the sums of operand `k` down with one across begin, from its column i on. */
static real *sums_at(const Thread *t, const Right *x, int k, i64 i, i64 *down) {
    const Call *c = t->call;
    const Out *o = c->sweep->out + x->outs + k;
    *down = c->down[o->place];
    return c->at[o->place] + of_part(t, o->place) + (c->size[o->row] + i) * *down;
}

/* What is summed with nothing: n columns of operand `k` from column i on, `rows` of them. */
static void add_rows(Thread *t, const Sum *m, int k, i64 i, const real *rows, i64 count, i64 wide,
                     i64 n, int more) {
    for (int q = 0; q < m->g->right_count; q++) {
        const Right *x = t->call->sweep->right + m->g->rights + q;
        i64 down;
        real *to = sums_at(t, x, k, i, &down);
        if (!x->key_count) sum_rows(rows, count, wide, n, to, down, more);
    }
}

/* n columns of operand `k` down, from column i on and packed at `left`, times the panels across. */
static void times_across(Thread *t, const Sum *m, int k, i64 i, i64 n, const void *left) {
    const Call *c = t->call;
    const real *panel = (real *)(t->own + c->right_at);
    for (i64 p = m->p0; p < m->p1; p++) {
        const Across x = panel_across(c, m->g, p);
        i64 down;
        real *to = sums_at(t, x.right, k, i, &down) + x.at;
        const int whole = x.wide == NR, more = m->more && whole;
        real *at = whole ? to : (real *)(t->own + c->tile_at);
        const i64 step = whole ? down : NR;
        if (m->blocks) {
            multiply_tiles(left, m->blocks * LEFT_BLOCK, n, (const half *)panel, m->blocks, more ? at : 0, step,
                           at, step);
            panel = (const real *)((const half *)panel + m->blocks * RIGHT_BLOCK);
        } else {
            multiply_columns[x.wide <= LANES][n](left, m->k1 - m->k0, panel, at, step, more);
            panel += KC * NR;
        }
        for (i64 r = 0; r < n && !whole; r++)
            for (i64 l = 0; l < x.wide; l++) {
                real *e = to + r * down + l;
                *e = (m->more ? *e : 0) + at[r * NR + l];
            }
    }
}

/* Columns i to end of operand `k` down: their sums, as many at once as there are registers for. */
static void sum_columns(Thread *t, const Sum *m, int k, i64 i, i64 end) {
    const Call *c = t->call;
    real *left = (real *)(t->own + c->left_at);
    const i64 rows = m->k1 - m->k0, parts = (end - i + MR - 1) / MR, most = (end - i + parts - 1) / parts;
    const Cut cut = {i, end - i, most};
    gather(t, c->sweep->key + m->g->left + k, m->runs, m->count, m->k0, m->k1, &cut, left);
    for (; i < end; i += most, left += most * rows) {
        const i64 n = at_most(most, end - i);
        if (!m->p0) add_rows(t, m, k, i, left, rows, n, n, m->more);
        times_across(t, m, k, i, n, left);
    }
}

/* The same on tiles, for at most MOST_ROWS. Gives whether there is an infinity: then nothing is done. */
static int sum_tiles(Thread *t, const Sum *m, int k, i64 i, i64 end) {
    const Call *c = t->call;
    half *left = (half *)(t->own + c->left_at), *to = left;
    real rows[2][KC * TILE_ROWS] __attribute__((aligned(64)));
    const i64 n = end - i, top = n > TILE_ROWS ? (n + 1) / 2 : n;
    int infinite = m->infinite;
    for (i64 part = 0; part * top < n && !infinite; part++) {
        const i64 col = i + part * top;
        for (i64 row = m->k0; row < m->k1; row += TILE_DEPTH, to += LEFT_BLOCK) {
            real *here = rows[part] + (row - m->k0) * TILE_ROWS;
            gather_block(t, m, m->g->left + k, row, col, at_most(end, col + top), here, TILE_ROWS);
            infinite |= split_turned(here, to);
        }
    }
    if (infinite) return 1;
    for (i64 part = 0; part * top < n && !m->p0; part++) {
        const i64 done = part * top;
        add_rows(t, m, k, i + done, rows[part], m->k1 - m->k0, TILE_ROWS, at_most(n - done, top), m->more);
    }
    shape(t, n);
    times_across(t, m, k, i, n, left);
    return 0;
}

/* A thread's share of the columns down, in parts of at most `most`. `left`: the parts that are to be
 * done; on tiles some of them stay so. Gives whether. */
static int sum_share(Thread *t, const Sum *m, i64 most, i64 low, i64 high, unsigned char *left) {
    const i64 together = most == MR && t->call->parts > 1 ? GATHERED : 1; /* as many as there is memory for */
    int over = 0;
    i64 part = 0;
    for (int k = 0; k < m->g->left_count; k++) {
        const i64 width = key_width(t->call, m->g->left + k), count = (width + most - 1) / most;
        for (i64 n = 0, some; n < count; n += some, part += some) { /* as evenly as they can be divided */
            some = 1;
            if (part < low || part >= high || !left[part - low]) continue;
            while (some < together && n + some < count && part + some < high && left[part + some - low]) some++;
            const i64 i = share(width, n, count), end = share(width, n + some, count);
            memset(left + part - low, 0, (size_t)some);
            if (m->blocks) over |= left[part - low] = (unsigned char)sum_tiles(t, m, k, i, end);
            else sum_columns(t, m, k, i, end);
        }
    }
    return over;
}

/* Of rows `first` to `last` (of a part), the columns of thread `me` of so many; `more`: added to what is
 * there. */
static void sum_over_time(Thread *t, const TimeGemm *g, i64 first, i64 last, int me, int of, int more) {
    const Call *c = t->call;
    Sum m = {.g = g, .more = more};
    m.runs = time_runs(c, g, &m.count);
    const int tiled = c->tiles && !c->direct && c->rows >= LEAST_SUMS;
    const i64 panels = panels_across(c, g), most = tiled ? MOST_ROWS : MR;
    const i64 groups = at_least(1, (panels + ACROSS - 1) / ACROSS);
    i64 parts = 0;
    for (int k = 0; k < g->left_count; k++) parts += (key_width(c, g->left + k) + most - 1) / most;
    const i64 low = share(parts, me, of), high = share(parts, me + 1, of);
    unsigned char left[high - low + 1];
    for (m.k0 = first; m.k0 == first || m.k0 < last; m.k0 += KC, m.more = 1) {
        m.k1 = at_most(last, m.k0 + KC);
        for (i64 group = 0; group < groups; group++) {
            m.p0 = share(panels, group, groups), m.p1 = share(panels, group + 1, groups);
            memset(left, 1, sizeof left);
            for (int on_tiles = tiled, over = 1; over; on_tiles = 0) {
                m.blocks = on_tiles ? (m.k1 - m.k0 + TILE_DEPTH - 1) / TILE_DEPTH : 0;
                pack_across(t, &m);
                over = sum_share(t, &m, most, low, high, left);
            }
        }
    }
}

/* Of rows `first` to `last` of all. Threads divide the parts, or, where those are too few, columns. */
static void run_time(Thread *t, const TimeGemm *g, i64 first, i64 last, int more) {
    const i64 parts = t->call->parts;
    const int whole = parts >= t->of;
    const i64 end = whole ? share(parts, t->me + 1, t->of) : parts;
    for (t->part = whole ? share(parts, t->me, t->of) : 0; t->part < end; t->part++)
        sum_over_time(t, g, first / parts, last / parts, whole ? 0 : t->me, whole ? 1 : t->of, more);
    t->part = 0;
}

#endif
