/* The driver: it walks a sweep's printed tables over time, threads and groups. Nothing here knows
 * which cell it runs. One call of `bptt_run` is a layer and a sequence, whatever their sizes. */
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "panels.h"
#include "rows.h"
#include "sums.h"

static void place_ports(Call *c) {
    for (int k = 0; k < c->sweep->places; k++) {
        const Place *p = c->sweep->place + k;
        if (p->kind > PLACE_FIXED) continue;
        const Port *port = c->port + p->index;
        c->at[k] = port->at + c->group * port->group + c->size[p->col];
        c->down[k] = port->row;
    }
}

/* Gradients that die out over time end in numbers below the smallest normal one, with which
 * processors are much slower: within a sweep they count as zero. */
#if defined(__SSE__)
typedef unsigned Rounding;
static Rounding rounding(void) { return __builtin_ia32_stmxcsr(); }
static void set_rounding(Rounding r) { __builtin_ia32_ldmxcsr(r); }
#define ZERO_DENORMALS 0x8040 /* results and operands */
#elif defined(__aarch64__)
typedef uint64_t Rounding;
static Rounding rounding(void) {
    Rounding r;
    __asm__ volatile("mrs %0, fpcr" : "=r"(r));
    return r;
}
static void set_rounding(Rounding r) { __asm__ volatile("msr fpcr, %0" ::"r"(r)); }
#define ZERO_DENORMALS (1u << 24)
#else
typedef int Rounding;
static Rounding rounding(void) { return 0; }
static void set_rounding(Rounding r) { (void)r; }
#define ZERO_DENORMALS 0
#endif

static Rounding without_denormals(void) {
    const Rounding usual = rounding();
    set_rounding(usual | ZERO_DENORMALS);
    return usual;
}

/* What follows the loop, on rows `first` to `last`; `more`: it goes on with its sums. */
static void follow(Thread *t, i64 first, i64 last, int more) {
    const Sweep *s = t->call->sweep;
    for (int k = 0; k < s->after_count; k++) {
        run_group(t, s->after + k, first, last, more);
        wait_for_all(t);
    }
    for (int k = 0; k < s->time_count; k++) run_time(t, s->time + k, first, last, more);
}

/* Bring the step that the loop comes from along to the window that begins at row `to`: it lies
 * beside the steps of that one. */
static void slide(Thread *t, i64 step, i64 to) {
    const Call *c = t->call;
    const i64 row = c->offset[step], count = c->offset[step + 1] - row;
    const i64 a = share(count, t->me, t->of), b = share(count, t->me + 1, t->of);
    for (int k = 0; k < c->sweep->buffers; k++) {
        if (c->sweep->buffer_kind[k] != PLACE_SLIDE) continue;
        const i64 down = buffer_row(c, k);
        real *at = c->buffer[k] + (c->batch + row + a) * down;
        memmove(at - to * down, at - t->window * down, (size_t)numbers((b - a) * down));
    }
    wait_for_all(t);
}

static void work(void *data) {
    Call *c = data;
    const Sweep *s = c->sweep;
    Thread thread = {.call = c, .of = 1};
    if (c->threads > 1) {
        thread.me = c->team->number();
        thread.of = c->team->count();
    }
    Thread *t = &thread;
    const Rounding usual = without_denormals();
    t->own = t->block = c->own + t->me * c->own_size;
    for (i64 group = 0; group < c->groups; group++) {
        if (t->me == 0) {
            c->group = group;
            place_ports(c);
            for (int k = 0; k < s->packed && !c->packed_before; k++) c->infinite[k] = 0;
        }
        wait_for_all(t);
        if (!c->direct && !c->packed_before) pack_all(t);
        wait_for_all(t);
        for (i64 n = 0; n == 0 || n < c->steps; n += c->window) {
            const i64 end = at_most(c->steps, n + c->window);
            const i64 first = s->dir > 0 ? n : c->steps - end, last = first + end - n;
            if (n) slide(t, s->dir > 0 ? first - 1 : last, c->offset[first]);
            t->window = c->offset[first];
            for (int k = 0; k < c->before; k++) {
                run_group(t, s->before + k, c->offset[first], c->offset[last], n > 0);
                wait_for_all(t);
            }
            t->b0 = first_sequence(c, first, last, t->me, t->of);
            t->b1 = first_sequence(c, first, last, t->me + 1, t->of);
            for (i64 m = 0; m < last - first && s->loop_count; m++) {
                i64 step = s->dir > 0 ? first + m : last - 1 - m, run = c->first_run[step];
                run_step(t, c->loop, s->loop_count, c->stepwise + run,
                         c->first_run[step + 1] - run, c->one_runs);
            }
            wait_for_all(t);
            if (!s->follows) continue;
            const i64 left = s->ahead && n > 0, stays = s->ahead && end < c->steps; /* a step behind */
            follow(t, c->offset[s->dir > 0 ? first - left : first + stays],
                   c->offset[s->dir > 0 ? last - stays : last + left], n > 0);
            wait_for_all(t);
        }
        if (!s->follows) follow(t, 0, c->rows, 0);
        run_step(t, s->first, s->first_count, c->ends[0], c->ends_count[0], 0);
        run_step(t, s->last, s->last_count, c->ends[1], c->ends_count[1], 0);
        wait_for_all(t);
    }
    if (t->shaped) T_RELEASE(); /* or the system would save them whenever this thread waits */
    set_rounding(usual);
}

/* What is the same for all calls of a sweep with arrays of the same shapes. */
typedef struct {
    const Sweep *sweep;
    const i64 *n;       /* sizes */
    const i64 *strides; /* of each port: row, column, group */
    const Source *source; /* of each port, or null */
    i64 groups, parts, steps, batch;
    const i64 *counts; /* running sequences at each step, or null: all of them */
} Frame;

/* A call that is ready to run, in memory of its own; null where there is not enough. */
static Call *open_call(const Frame *f, int threads, const Team *team) {
    const Sweep *s = f->sweep;
    const i64 *strides = f->strides;
    const i64 head = padded(sizeof(Call), 64) + padded(s->sizes * (i64)sizeof(i64), 64) +
                     padded(s->ports * (i64)sizeof(Port), 64);
    i64 size[s->sizes + 1];
    s->measure(f->n, size);
    Call call = {.sweep = s, .size = size, .source = f->source, .groups = f->groups, .parts = f->parts, .steps = f->steps,
                 .batch = f->batch, .counts = f->counts, .team = team, .rows = f->steps * f->batch};
    if (f->counts) {
        call.rows = 0;
        for (i64 t = 0; t < f->steps; t++) call.rows += f->counts[t];
    }
    call.direct = call.rows <= FEW_ROWS;
    call.tiles = !call.direct && tiles_allowed();
    call.threads = (int)at_least(1, at_most(threads, MOST_THREADS));
    choose_loop(&call);
    if (work_of(&call) < ALONE) call.threads = 1;
    call.window = window_of(&call);
    Arena arena = {0, 0};
    lay_out(&call, &arena);
    const size_t bytes = (size_t)(head + arena.used);
    char *memory = aligned_alloc(64, (size_t)padded((i64)bytes, 64));
    if (!memory) return 0;
#ifdef BPTT_TEST
    memset(memory, 0xff, bytes);
#endif
    Call *c = (Call *)memory;
    *c = call;
    i64 *own_size = (i64 *)(memory + padded(sizeof(Call), 64));
    Port *port = (Port *)((char *)own_size + padded(s->sizes * (i64)sizeof(i64), 64));
    memcpy(own_size, size, (size_t)s->sizes * sizeof(i64));
    for (int k = 0; k < s->ports; k++, strides += 3)
        port[k] = (Port){0, strides[0], strides[1], strides[2]};
    c->size = own_size;
    c->port = port;
    arena = (Arena){memory + head, 0};
    lay_out(c, &arena);
    find_runs(c);
    divide(c);
    return c;
}

static void find_port(Call *c, int k, real *const *at) {
    c->port[k].at = at[c->source ? c->source[k].base : k];
    if (!c->source) return;
    const Source *s = c->source + k;
    c->port[k].at += s->beyond;
    if (s->other < 0) return;
    const real *a = c->port[k].at, *b = at[s->other] + s->beyond;
    for (i64 n = 0; n < s->count; n++) c->sum[k][n] = a[n] + b[n];
    c->port[k].at = c->sum[k];
}

static void run_call(Call *c, real *const *at) {
    static int turns; /* of all threads: results do not depend on it */
    c->turn = __atomic_fetch_xor(&turns, 1, __ATOMIC_RELAXED);
    for (int k = 0; k < c->sweep->ports; k++) find_port(c, k, at);
    memset(c->flag, 0, sizeof c->flag); /* another team may come this time */
    if (c->threads == 1) work(c);
    else c->team->parallel(work, c, (unsigned)c->threads, 0);
    c->packed_before = 1;
}

#define EXPORT __attribute__((visibility("default")))

/* One sweep on memory at `at`: an address for each port, or for each base of a source. Gives 1 where
 * there is not enough memory. */
EXPORT int bptt_run(const Frame *f, real *const *at, int threads, const Team *team) {
    Call *c = open_call(f, threads, team);
    if (!c) return 1;
    run_call(c, at);
    free(c);
    return 0;
}

/* The same in three: a call whose matrices are packed when it first runs, and never again. */
EXPORT Call *bptt_open(const Frame *f, int threads, const Team *team) {
    return open_call(f, threads, team);
}

EXPORT void bptt_again(Call *c, real *const *at) { run_call(c, at); }

EXPORT void bptt_close(Call *c) { free(c); }
