/* Plans: shares, what gives way when memory is short, cuts that are whole, the compact form. */
#include "bare_model.h"
#include "base/json.h"
#include "cluster/plan.h"
#include "tap.h"

#include <math.h>

static struct kernels kernels;

static const struct named {
    const char *name;
    struct bare b;
} shapes[] = {
    {"stories260K", {5, 64, 8, 4, 8, 172, 512, 512, TENSOR_Q8_0}},
    {"one KV head", {2, 256, 8, 1, 32, 512, 1000, 1024, TENSOR_Q8_0}},
    {"F32, odd vocabulary", {3, 96, 3, 3, 32, 320, 1013, 256, TENSOR_F32}},
    {"Llama 3.2 1B", {16, 2048, 32, 8, 64, 8192, 128256, 131072, TENSOR_Q4_0}},
    {"Llama 3.1 8B", {32, 4096, 32, 8, 128, 14336, 128256, 131072, TENSOR_Q4_0}},
};
enum { N_SHAPE = sizeof shapes / sizeof *shapes };
#define MIB ((uint64_t)1 << 20)

static struct node_id id_of(unsigned i) {
    struct node_id id = {{7, (uint8_t)(i + 1), 9}};
    return id;
}

static void fill(struct plan_member *m, unsigned n, uint64_t pool) {
    for (unsigned i = 0; i < n; i++) {
        m[i] =
            (struct plan_member){.id = id_of(i), .instance = 100 + i, .pool = pool, .n_thread = 4};
    }
}

static struct plan_wish wish_of(uint32_t n_ctx, uint32_t n_batch, uint32_t n_seq) {
    return (struct plan_wish){.epoch = 5,
                              .model = 0xfeed,
                              .n_ctx = n_ctx,
                              .n_batch = n_batch,
                              .n_seq = n_seq,
                              .kv = KV_F16,
                              .wire = WIRE_Q16};
}

static bool is_whole(const uint32_t *cut, unsigned n, uint32_t total, uint32_t unit) {
    if (cut[0] || cut[n] != total) return false;
    for (unsigned i = 1; i <= n; i++) {
        if (cut[i] < cut[i - 1] || (cut[i] != total && cut[i] % unit)) return false;
    }
    return true;
}

/* Made, sent, received and read again: the same cuts, whole and in units. */
static bool is_good(const struct plan *p, const struct model *m, char *why, size_t cap) {
    struct err e = {0};
    struct cuts c;
    static struct plan q;
    uint8_t out[4096];
    uint32_t width = m->n_head / m->n_head_kv * m->head_dim, unit = 1;
    while (unit < m->n_head_kv && (unit * width % 32 || unit * m->head_dim % 8)) unit++;
    size_t n = plan_encode(p, out, sizeof out);
    if (!n || !plan_decode(&q, out, n, &e) || !plan_cuts(&q, m, &c, &e)) {
        snprintf(why, cap, "%zu bytes, %s", n, e.text);
        return false;
    }
    snprintf(why, cap, "cuts are not whole");
    return is_whole(c.kv_head, p->n_node, m->n_head_kv, unit) &&
           is_whole(c.embd, p->n_node, m->n_embd, 32) && is_whole(c.ff, p->n_node, m->n_ff, 32) &&
           is_whole(c.vocab, p->n_node, m->n_vocab, 32) && !ident_cmp(&q.leader, &p->node[0]);
}

static void check_counts(void) {
    for (unsigned s = 0; s < N_SHAPE; s++) {
        const struct model *m = bare_model(&shapes[s].b);
        struct plan_member member[PLAN_NODES];
        bool out[PLAN_NODES], ok = true;
        char why[500] = "";
        unsigned most = 0, headless = 0;
        for (unsigned n = 1; n <= PLAN_NODES; n++) {
            static struct plan p;
            struct err e = {0};
            struct plan_wish w = wish_of(256, 8, 2);
            fill(member, n, 16384 * MIB);
            for (unsigned i = 0; i < n; i++) member[i].speed = s % 2 ? 1e9 * (1 + i % 5) : 0;
            if (!plan_make(&p, m, &kernels, member, n, &w, out, &e)) {
                snprintf(why, sizeof why, "%u nodes: %s", n, e.text);
                ok = false;
                break;
            }
            ok = ok && is_good(&p, m, why, sizeof why);
            unsigned in = 0;
            for (unsigned i = 0; i < n; i++) in += !out[i];
            ok = ok && in == p.n_node && p.n_ctx == 256 && p.n_batch == 8 && p.n_seq == 2;
            most = p.n_node;
            const uint32_t *kv = p.run[0].cut;
            headless = 0;
            for (unsigned i = 0; i < p.n_node; i++) headless += kv[i] == kv[i + 1];
        }
        tap_ok(ok,
               "%s: plans for 1 to 16 nodes are whole%s%s (16: %u work, %u of them without heads)",
               shapes[s].name, ok ? "" : ": ", ok ? "" : why, most, headless);
    }
}

/* The least by itself is what measuring everything says. */
static void check_least(void) {
    bool ok = true;
    for (unsigned s = 0; s < N_SHAPE; s++) {
        const struct model *m = bare_model(&shapes[s].b);
        for (unsigned i = 0; i < 4; i++) {
            struct nn_conf c = {.model = m, .kernels = &kernels, .n_slice = 3, .n_reader = 1};
            struct nn_memory mem;
            struct err e;
            uint64_t least = 0;
            cuts_make(&c.cuts, m, 3, (const double[]){3, 1, 2});
            c.self = i % 3, c.n_slot = 2, c.n_thread = 1 + i, c.budget = NN_PLENTY;
            c.n_seq = 1 + i, c.n_ctx = 256 << i, c.n_batch = 1 + 20 * i;
            ok = ok && nn_measure(&c, &mem, &e) && nn_least(&c, &least, &e);
            ok = ok && least == mem.min_budget;
        }
    }
    tap_ok(ok, "the least memory of a slice, measured by itself");
}

static uint32_t ff_of(const struct plan *p, unsigned i) {
    return p->run[ROWS_FF].cut[i + 1] - p->run[ROWS_FF].cut[i];
}

static void check_shares(void) {
    const struct model *m = bare_model(&shapes[4].b);
    struct plan_member member[PLAN_NODES];
    bool out[PLAN_NODES];
    static struct plan p;
    struct err e = {0};
    struct plan_wish w = wish_of(512, 8, 1);
    fill(member, 4, 16384 * MIB);
    member[0].speed = 10.0e9, member[1].speed = 9.5e9, member[2].speed = 10.4e9;
    bool ok = plan_make(&p, m, &kernels, member, 4, &w, out, &e);
    tap_ok(ok && ff_of(&p, 0) == 3584 && ff_of(&p, 1) == 3584 && ff_of(&p, 3) == 3584,
           "machines whose speeds differ by less than a tenth, and one not measured, share alike");
    fill(member, 3, 16384 * MIB);
    member[0].speed = 10e9, member[1].speed = 10e9, member[2].speed = 20e9;
    ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e);
    tap_ok(ok && ff_of(&p, 0) == 3584 && ff_of(&p, 2) == 7168, "twice as fast, twice the rows");
    w.is_even = true;
    ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e);
    tap_ok(ok && ff_of(&p, 2) - ff_of(&p, 0) <= 32, "even shares when these are wanted");
    w.is_even = false;
    fill(member, 3, 16384 * MIB);
    member[1].share = 2;
    ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e);
    tap_ok(ok && ff_of(&p, 1) == 7168 && ff_of(&p, 0) == 3584,
           "a wished share of twice the average");
}

/* What is said to be the least is, and the sentence names the whole budget that has it. */
static void check_alone(const struct model *m, const struct plan_wish *w) {
    struct plan_member one;
    struct plan p;
    struct err e = {0};
    bool out[1];
    uint64_t least = 0;
    fill(&one, 1, 0);
    bool ok = plan_least(m, &kernels, &one, w, &least, &e) && least > MIB;
    one.pool = least;
    ok = ok && plan_make(&p, m, &kernels, &one, 1, w, out, &e);
    one.pool = least - 1;
    ok = ok && !plan_make(&p, m, &kernels, &one, 1, w, out, &e) && e.code == ERR_MEMORY;
    tap_ok(ok && strstr(e.text, "give it more --memory"), "with %.1f MiB alone, with less not: %s",
           (double)least / MIB, e.text);
    one.budget = one.pool + 5 * MIB;
    char want[40];
    snprintf(want, sizeof want, "--memory %uM", (unsigned)((least + 6 * MIB - 1) / MIB));
    ok = !plan_make(&p, m, &kernels, &one, 1, w, out, &e);
    tap_ok(ok && strstr(e.text, want), "of %.1f MiB in all: %s", (double)one.budget / MIB, e.text);
}

static void check_memory(void) {
    const struct model *m = bare_model(&shapes[3].b);
    struct plan_member member[PLAN_NODES];
    bool out[PLAN_NODES];
    static struct plan p;
    struct err e = {0};
    struct plan_wish w = wish_of(4096, 64, 16);
    fill(member, 2, 16384 * MIB);
    bool ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.n_seq == 16 && p.n_batch == 64, "room for all that was wished for");
    fill(member, 2, 200 * MIB);
    ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.n_node == 2 && p.n_seq >= 1 && p.n_seq < 16 && p.n_batch == 64 &&
               p.n_ctx == 4096,
           "sequences give way first: %u", p.n_seq);
    uint64_t low = 0, high = 200 * MIB;
    while (high - low > MIB / 8) {  // the least at which both still work
        uint64_t mid = (low + high) / 2;
        fill(member, 2, mid);
        ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e) && p.n_node == 2 && p.n_ctx == 4096;
        if (ok)
            high = mid;
        else
            low = mid;
    }
    fill(member, 2, high);
    ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.n_seq == 1 && p.n_batch < 64, "then the steps: %u tokens at %.1f MiB a node",
           p.n_batch, (double)high / (double)MIB);
    fill(member, 3, 16384 * MIB);
    member[1].pool = 30 * MIB;
    ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e);
    tap_ok(ok && p.n_node == 2 && out[1] && !out[0] && !out[2] && p.n_ctx == 4096 &&
               plan_slice(&p, &member[2].id) == 1 && plan_slice(&p, &member[1].id) < 0,
           "then the one that cannot hold its share");
    fill(member, 1, 100 * MIB);
    ok = plan_make(&p, m, &kernels, member, 1, &w, out, &e);
    tap_ok(ok && p.n_ctx < 4096 && p.n_ctx >= 256, "the context last of all: %u", p.n_ctx);
    fill(member, 2, MIB);
    member[1].pool = 16384 * MIB;
    ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(!ok && e.code == ERR_MEMORY && strstr(e.text, "1.0 MiB"),
           "a leader that can hold nothing: %s", e.text);
    check_alone(m, &w);
}

static uint64_t draw(uint64_t *seed, uint64_t below) {
    *seed = *seed * 6364136223846793005 + 1442695040888963407;
    return (*seed >> 33) % below;
}

static bool is_same_plan(const struct plan *a, const struct plan *b) {
    bool same = a->epoch == b->epoch && a->model == b->model && a->n_node == b->n_node &&
                a->n_ctx == b->n_ctx && a->n_batch == b->n_batch && a->n_sweep == b->n_sweep &&
                a->n_seq == b->n_seq && a->safe_seq == b->safe_seq && a->safe_ctx == b->safe_ctx &&
                a->kv == b->kv && a->wire == b->wire && a->n_run == b->n_run;
    for (unsigned i = 0; same && i < a->n_node; i++) {
        same = !ident_cmp(&a->node[i], &b->node[i]) && a->instance[i] == b->instance[i];
    }
    for (unsigned r = 0; same && r < a->n_run; r++) {
        const struct plan_run *x = &a->run[r], *y = &b->run[r];
        same = x->rows == y->rows && x->first_layer == y->first_layer && x->n_layer == y->n_layer &&
               !memcmp(x->cut, y->cut, (a->n_node + 1U) * sizeof *x->cut);
    }
    return same;
}

static uint64_t sum_bytes(const struct nn_memory *m) {
    return m->kv_bytes + m->scratch_bytes + m->fixed_bytes + m->ring_bytes + m->pin_bytes +
           m->embd_bytes;
}

/* What member i makes of the plan with so many tokens a step: within its pool, and for a token it reads at
 * most a sixteenth more than it must, or than a 64th of its pool. */
static bool is_kept(const struct plan *p, const struct model *m, unsigned i, uint64_t pool,
                    uint32_t n_sweep, uint32_t most_slots) {
    struct nn_memory with, without;
    struct err e;
    struct nn_conf c = {.model = m, .kernels = &kernels, .self = i, .n_slice = p->n_node};
    c.n_seq = p->n_seq, c.n_ctx = p->n_ctx, c.n_batch = p->n_batch, c.kv = KV_F16;
    c.budget = pool, c.n_reader = 2, c.n_thread = 4;
    if (!plan_cuts(p, m, &c.cuts, &e) || !nn_choose_slots(&c, most_slots, &without, &e))
        return false;
    c.n_sweep = n_sweep;
    if (!nn_choose_slots(&c, most_slots, &with, &e) || sum_bytes(&with) > pool) return false;
    uint64_t more = without.disk_bytes / 16 > pool / 64 ? without.disk_bytes / 16 : pool / 64;
    if (!without.disk_bytes) more = 0;
    return with.disk_bytes <= without.disk_bytes + more;
}

static bool all_keep(const struct plan *p, const struct model *m, const struct plan_member *member,
                     uint32_t n_sweep) {
    bool ok = true;
    for (unsigned i = 0; i < p->n_node; i++) {
        ok = ok && is_kept(p, m, i, member[i].pool, n_sweep, 8);
    }
    return ok;
}

/* Tokens a step: where weights stream so many that a prompt is one sweep, and nothing else gives way. */
static void check_sweep(void) {
    const struct model *m = bare_model(&shapes[4].b);
    struct plan_member member[PLAN_NODES];
    bool out[PLAN_NODES];
    static struct plan p, q;
    struct err e = {0};
    struct plan_wish w = wish_of(4096, 64, 2), plain = w;
    w.n_sweep = PLAN_SWEEP;
    fill(member, 2, 16384 * MIB);
    bool ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.n_sweep == 64, "all weights in memory: as many tokens as go together");
    member[1].pool = 1024 * MIB;
    ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.n_sweep == PLAN_SWEEP, "a node streams: %u tokens a step", p.n_sweep);
    w.n_ctx = 512;
    ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.n_sweep == 512, "no more than the context");
    w.n_ctx = 4096;
    fill(member, 3, 1024 * MIB);
    ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e) &&
         plan_make(&q, m, &kernels, member, 3, &plain, out, &e) && q.n_sweep == q.n_batch;
    q.n_sweep = p.n_sweep;
    tap_ok(ok && p.n_sweep > 64 && is_same_plan(&p, &q), "all else is as without it");
    unsigned n_long = 0, n_batch = 0, n_between = 0;
    fill(member, 4, 0);
    uint64_t seed = 3;
    for (unsigned round = 0; ok && round < 60; round++) {
        unsigned n = 1 + round % 4;
        for (unsigned i = 0; i < n; i++) member[i].pool = (300 + draw(&seed, 2000)) * MIB;
        if (!plan_make(&p, m, &kernels, member, n, &w, out, &e) || p.n_node != n) continue;
        bool is_long = p.n_sweep > p.n_batch;
        ok = all_keep(&p, m, member, p.n_sweep) && p.n_sweep >= p.n_batch;
        if (is_long && p.n_sweep < PLAN_SWEEP) ok = ok && !all_keep(&p, m, member, p.n_sweep * 2);
        for (unsigned i = 0; i < n; i++) {
            struct nn_memory mem;
            struct nn_conf c = {.model = m, .kernels = &kernels, .self = i, .n_slice = n};
            c.n_seq = p.n_seq, c.n_ctx = p.n_ctx, c.n_batch = p.n_batch, c.n_sweep = p.n_sweep;
            c.kv = KV_F16, c.budget = member[i].pool, c.n_reader = 4, c.n_thread = 4;
            ok = ok && plan_cuts(&p, m, &c.cuts, &e) && nn_choose_slots(&c, 16, &mem, &e) &&
                 sum_bytes(&mem) <= c.budget;
        }
        n_long += p.n_sweep == PLAN_SWEEP;
        n_batch += !is_long;
        n_between += is_long && p.n_sweep < PLAN_SWEEP;
    }
    tap_ok(ok && n_long > 5 && n_batch > 5,
           "any memory: %u times one sweep, %u times in pieces, %u between; each within its budget",
           n_long, n_batch, n_between);
    fill(member, 3, 1024 * MIB);
    do {
        member[2].pool -= 16 * MIB;
        ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e) && p.n_node == 3;
    } while (ok && p.n_sweep == PLAN_SWEEP);
    tap_ok(ok && p.n_sweep >= p.n_batch, "the smallest decides: %u tokens where it has %.0f MiB",
           p.n_sweep, (double)member[2].pool / (double)MIB);
}

/* The plan of all members but one: what plan_make says of it, by the wish of who would lead. */
static bool plan_without(struct plan *p, const struct model *m, const struct plan_member *member,
                         unsigned n, unsigned lost, const struct plan_wish *wish) {
    struct plan_member rest[PLAN_NODES];
    struct plan_wish w = *wish;
    bool out[PLAN_NODES];
    struct err e = {0};
    unsigned k = 0;
    for (unsigned i = 0; i < n; i++) {
        if (i != lost) rest[k++] = member[i];
    }
    if (!lost && rest[0].n_ctx) w.n_ctx = rest[0].n_ctx;
    if (!lost && rest[0].n_seq) w.n_seq = rest[0].n_seq;
    return plan_make(p, m, &kernels, rest, n - 1, &w, out, &e);
}

/* What is left whichever node is lost, one loss after the other. */
static void find_left(const struct plan *p, const struct model *m, const struct plan_member *member,
                      unsigned n, const struct plan_wish *wish, uint32_t *seq, uint32_t *ctx) {
    static struct plan q;
    *seq = p->n_seq;
    *ctx = p->n_ctx;
    for (unsigned i = 0; n > 1 && i < n; i++) {
        if (plan_slice(p, &member[i].id) < 0) continue;
        bool ok = plan_without(&q, m, member, n, i, wish);
        if (!ok) *ctx = 0;
        if (ok && q.n_seq < *seq) *seq = q.n_seq;
        if (ok && q.n_ctx < *ctx) *ctx = q.n_ctx;
    }
}

static void check_losses(void) {
    const struct model *m = bare_model(&shapes[3].b);
    struct plan_member member[PLAN_NODES];
    bool out[PLAN_NODES];
    static struct plan p, q;
    struct err e = {0};
    struct plan_wish w = wish_of(4096, 64, 16);
    fill(member, 1, 16384 * MIB);
    bool ok = plan_make(&p, m, &kernels, member, 1, &w, out, &e);
    tap_ok(ok && p.safe_seq == 16 && p.safe_ctx == 4096, "one node: as much as it has");
    fill(member, 2, 16384 * MIB);
    ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.safe_seq == 16 && p.safe_ctx == 4096, "two with plenty: either has it all");
    fill(member, 2, 400 * MIB);
    ok =
        plan_make(&p, m, &kernels, member, 2, &w, out, &e) && plan_without(&q, m, member, 2, 1, &w);
    tap_ok(ok && p.safe_seq == q.n_seq && q.n_seq < p.n_seq && p.safe_ctx == 4096,
           "two that need each other: of %u sequences %u are left", p.n_seq, p.safe_seq);
    fill(member, 3, 400 * MIB);
    member[1].pool = 16384 * MIB;
    member[1].share = 6;
    ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e) && p.n_node == 3 &&
         plan_without(&q, m, member, 3, 1, &w);
    tap_ok(ok && p.safe_seq == q.n_seq && plan_without(&q, m, member, 3, 0, &w) &&
               p.safe_seq < q.n_seq,
           "to lose the biggest is worst: of %u sequences %u are left", p.n_seq, p.safe_seq);
    fill(member, 3, 16384 * MIB);
    member[1].n_seq = 2, member[1].n_ctx = 1024;
    ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e);
    tap_ok(ok && p.n_seq == 16 && p.safe_seq == 2 && p.n_ctx == 4096 && p.safe_ctx == 1024,
           "the next leader wishes for less");
    fill(member, 2, 100 * MIB);
    ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.n_ctx == 4096 && p.safe_ctx < 4096 && p.safe_ctx >= 256 && p.safe_seq == 1,
           "the context of what is left: %u", p.safe_ctx);
    fill(member, 2, 64 * MIB);
    while (member[0].pool && plan_without(&q, m, member, 2, 1, &w))
        fill(member, 2, member[0].pool - MIB);
    ok = plan_make(&p, m, &kernels, member, 2, &w, out, &e);
    tap_ok(ok && p.n_node == 2 && p.safe_ctx == 0 && p.safe_seq == p.n_seq,
           "where the others have no plan no context is left: %.0f MiB a node, %u sequences",
           (double)member[0].pool / (double)MIB, p.n_seq);
}

/* Alike machines, more than are looked at one by one: 27 heads for 9 nodes are 3 each, for 8 nodes more. */
static void check_many_losses(void) {
    static const struct bare heads = {32, 3456, 27, 27, 128, 9216, 32000, 4096, TENSOR_Q4_0};
    const struct model *m = bare_model(&heads);
    struct plan_member member[PLAN_NODES];
    bool out[PLAN_NODES];
    static struct plan p;
    struct err e = {0};
    struct plan_wish w = wish_of(4096, 64, 8);
    uint32_t seq = 0, ctx = 0;
    fill(member, 9, 0);
    for (unsigned i = 0; i < 9; i++) member[i].pool = (1500 + i * 7 % 5) * MIB;
    bool ok = plan_make(&p, m, &kernels, member, 9, &w, out, &e);
    if (ok) find_left(&p, m, member, 9, &w, &seq, &ctx);
    tap_ok(ok && p.n_node == 9 && p.safe_seq == seq && p.safe_ctx == ctx && seq < p.n_seq,
           "of %u sequences of 9 nodes alike %u are left", p.n_seq, p.safe_seq);
}

/* Any members: what plan_make says of losses is what it says of those who are left. */
static void check_any_loss(void) {
    static struct plan p;
    unsigned n_plan = 0, n_less = 0, n_none = 0;
    uint64_t seed = 7;
    for (unsigned round = 0; round < 200; round++) {
        static const struct model *m[2];
        const unsigned k = round % 2;
        if (!m[k]) m[k] = bare_model(&shapes[k ? 3 : 0].b);
        struct plan_member member[PLAN_NODES];
        bool out[PLAN_NODES];
        struct err e = {0};
        struct plan_wish w = wish_of(k ? 4096 : 512, 64, 8);
        unsigned n = 2 + (unsigned)draw(&seed, 5);
        for (unsigned i = 0; i < n; i++) {
            member[i] = (struct plan_member){.id = id_of(i), .instance = 1 + i, .n_thread = 4};
            member[i].pool = k ? (12 + draw(&seed, 300)) * MIB : (200 + draw(&seed, 3000)) << 10;
            member[i].speed = 1e9 * (double)(1 + draw(&seed, 4));
            member[i].n_seq = (uint32_t)draw(&seed, 9);
            member[i].n_ctx = (uint32_t)draw(&seed, 2) * w.n_ctx / 2;
        }
        if (!plan_make(&p, m[k], &kernels, member, n, &w, out, &e)) continue;
        uint32_t seq, ctx;
        find_left(&p, m[k], member, n, &w, &seq, &ctx);
        n_plan++;
        n_less += seq < p.n_seq;
        n_none += !ctx;
        if (seq == p.safe_seq && ctx == p.safe_ctx) continue;
        tap_ok(false, "round %u, %u nodes: %u sequences of %u are left, the plan says %u of %u",
               round, p.n_node, seq, ctx, p.safe_seq, p.safe_ctx);
        return;
    }
    tap_ok(n_plan >= 150 && n_less >= 50 && n_none >= 5,
           "%u plans of any members, of which %u hold fewer sequences after a loss, and %u nothing",
           n_plan, n_less, n_none);
}

/* As a later planner would make it: 25 runs of layers, shared unevenly by 4 nodes: 100 extents. */
static void make_big(struct plan *p, const struct model *m) {
    struct plan_member member[PLAN_NODES];
    bool out[PLAN_NODES];
    struct err e = {0};
    struct plan_wish w = wish_of(8192, 64, 8);
    w.epoch = 123456;
    fill(member, 4, 16384 * MIB);
    for (unsigned i = 0; i < 4; i++) {
        member[i].instance = 0xfedcba9876543210 + i;
        for (unsigned b = 0; b < ID_LEN; b++) member[i].id.b[b] = (uint8_t)(i * 59 + b * 101 + 13);
    }
    if (!plan_make(p, m, &kernels, member, 4, &w, out, &e)) abort();
    p->n_run = 0;
    for (unsigned r = 0; r < 25; r++) {
        unsigned rows = r / 8;
        struct plan_run *q = &p->run[p->n_run++];
        *q = (struct plan_run){.rows = (uint8_t)(rows < N_ROWS ? rows : ROWS_VOCAB)};
        if (q->rows != ROWS_VOCAB) q->first_layer = (uint16_t)(r % 8 * 4), q->n_layer = 4;
        const uint32_t total[] = {m->n_head_kv, m->n_embd, m->n_ff, m->n_vocab};
        uint32_t unit = q->rows == ROWS_KV_HEAD ? 1 : 32, n = total[q->rows] / unit;
        for (unsigned i = 1; i < 4; i++) q->cut[i] = (n * i / 4 - (r + i) % 2) * unit;
        q->cut[4] = total[q->rows];
    }
}

static void json_ids(struct json *j, const struct plan *p) {
    char text[ID_HEX];
    json_key(j, "nodes");
    json_array(j);
    for (unsigned i = 0; i < p->n_node; i++) {
        for (unsigned b = 0; b < ID_LEN; b++) snprintf(text + 2 * b, 3, "%02x", p->node[i].b[b]);
        json_object(j);
        json_put_text(j, "id", text);
        json_put_u64(j, "instance", p->instance[i]);
        json_end(j);
    }
    json_end(j);
}

static size_t as_json(const struct plan *p) {
    static const char *const rows[] = {"kv_head", "embd", "ff", "vocab"};
    static char text[65536];
    struct json j;
    json_mem(&j, text, sizeof text);
    json_object(&j);
    json_put_u64(&j, "epoch", p->epoch);
    json_put_u64(&j, "model", p->model);
    json_ids(&j, p);
    json_put_u64(&j, "n_ctx", p->n_ctx);
    json_put_u64(&j, "n_batch", p->n_batch);
    json_put_u64(&j, "n_sweep", p->n_sweep);
    json_put_u64(&j, "n_seq", p->n_seq);
    json_put_u64(&j, "safe_seq", p->safe_seq);
    json_put_u64(&j, "safe_ctx", p->safe_ctx);
    json_put_text(&j, "kv", "f16");
    json_put_text(&j, "wire", "q16");
    json_key(&j, "extents");
    json_array(&j);
    for (unsigned r = 0; r < p->n_run; r++) {
        for (unsigned i = 0; i < p->n_node; i++) {
            json_object(&j);
            json_put_u64(&j, "node", i);
            json_put_text(&j, "rows", rows[p->run[r].rows]);
            json_put_u64(&j, "layer", p->run[r].first_layer);
            json_put_u64(&j, "layers", p->run[r].n_layer);
            json_put_u64(&j, "begin", p->run[r].cut[i]);
            json_put_u64(&j, "end", p->run[r].cut[i + 1]);
            json_end(&j);
        }
    }
    json_end(&j);
    json_end(&j);
    return j.len;
}

static void check_size(void) {
    const struct model *m = bare_model(&shapes[4].b);
    static struct plan p, q;
    struct err e = {0};
    struct cuts c;
    uint8_t out[2048], tight[2048];
    make_big(&p, m);
    size_t n = plan_encode(&p, out, sizeof out), json = as_json(&p);
    tap_ok(n && n <= 700,
           "a plan of 4 nodes, 32 layers, %u extents: %zu bytes (limit 700); as JSON %zu",
           p.n_run * p.n_node, n, json);
    tap_ok(plan_decode(&q, out, n, &e) && is_same_plan(&p, &q), "it comes back the same %s",
           e.text);
    bool never = true;
    for (size_t cap = 0; cap < n; cap++) never = never && !plan_encode(&p, tight, cap);
    tap_ok(never && plan_encode(&p, tight, n) == n, "it needs just that room");
    tap_ok(!plan_cuts(&q, m, &c, &e) && e.code == ERR_UNSUPPORTED, "this version refuses it: %s",
           e.text);
}

/* Whatever is done to the bytes: refused, or a plan that encodes to the same bytes. */
static void check_hostile(void) {
    const struct model *m = bare_model(&shapes[4].b);
    static struct plan p, q;
    struct err e = {0};
    struct cuts c;
    uint8_t out[2048], bad[2048], again[2048];
    make_big(&p, m);
    size_t n = plan_encode(&p, out, sizeof out);
    bool is_short = true, is_true = true;
    for (size_t len = 0; len < n; len++) is_short = is_short && !plan_decode(&q, out, len, &e);
    memcpy(bad, out, n);
    bad[n] = 0;
    tap_ok(is_short && !plan_decode(&q, bad, n + 1, &e), "a byte less or more is refused: %s",
           e.text);
    for (size_t i = 0; i < n * 8; i++) {
        memcpy(bad, out, n);
        bad[i / 8] ^= (uint8_t)(1U << i % 8);
        if (!plan_decode(&q, bad, n, &e)) continue;
        (void)!plan_cuts(&q, m, &c, &e);
        is_true = is_true && plan_encode(&q, again, sizeof again) == n && !memcmp(again, bad, n);
    }
    tap_ok(is_true, "any bit turned: refused, or just another plan");
}

/* Where two encodings of equal length differ first. */
static size_t first_difference(const uint8_t *a, const uint8_t *b) {
    size_t i = 0;
    while (a[i] == b[i]) i++;
    return i;
}

/* Memory is taken by the tokens of a step and by the sequences: more than nodes take is no plan. */
static void check_sizes_of_wire(void) {
    static struct plan p, q;
    struct err e = {0};
    uint8_t out[2048], other[2048];
    make_big(&p, bare_model(&shapes[4].b));
    p.n_batch = PLAN_BATCH - 1, p.n_sweep = PLAN_SWEEP - 1, p.n_seq = PLAN_SEQS - 1, p.safe_seq = 1;
    bool ok = plan_encode(&p, other, sizeof other) != 0;
    p.n_batch = PLAN_BATCH;
    size_t n = plan_encode(&p, out, sizeof out), at = first_difference(out, other);
    ok = ok && n && plan_decode(&q, out, n, &e) && q.n_batch == PLAN_BATCH;
    out[at]++;
    tap_ok(ok && !plan_decode(&q, out, n, &e), "a step of %d tokens and one more: %s",
           (int)PLAN_BATCH, e.text);
    out[at]--;
    memcpy(other, out, n);
    p.n_sweep = PLAN_SWEEP;
    n = plan_encode(&p, out, sizeof out), at = first_difference(out, other);
    ok = n && plan_decode(&q, out, n, &e) && q.n_sweep == PLAN_SWEEP;
    out[at]++;
    tap_ok(ok && !plan_decode(&q, out, n, &e), "one of %d and one more: %s", (int)PLAN_SWEEP,
           e.text);
    p.n_sweep = PLAN_BATCH - 1;
    tap_ok(!plan_encode(&p, other, sizeof other), "less a step than go through a layer together");
    p.n_sweep = PLAN_SWEEP;
    memcpy(other, out, n);
    p.n_seq = PLAN_SEQS;
    n = plan_encode(&p, out, sizeof out);
    other[at]--;
    at = first_difference(out, other);
    ok = n && plan_decode(&q, out, n, &e) && q.n_seq == PLAN_SEQS;
    out[at]++;
    tap_ok(ok && !plan_decode(&q, out, n, &e), "%d sequences and one more: %s", (int)PLAN_SEQS,
           e.text);
    ok = true;
    for (unsigned i = 0; i < 4; i++) {
        const uint32_t seq[] = {0, PLAN_SEQS, PLAN_SEQS + 1, 1},
                       ctx[] = {0, p.n_ctx, 0, p.n_ctx + 1};
        p.safe_seq = seq[i], p.safe_ctx = ctx[i];
        ok = ok && !plan_encode(&p, out, sizeof out) == (i != 1);
    }
    tap_ok(ok, "after a loss at least one sequence is left, and no more than there was");
}

static void check_foreign(void) {
    const struct model *m = bare_model(&shapes[3].b), *other = bare_model(&shapes[4].b);
    struct plan_member member[PLAN_NODES];
    bool out[PLAN_NODES];
    static struct plan p, q;
    struct err e = {0};
    struct cuts c;
    struct plan_wish w = wish_of(512, 8, 1);
    fill(member, 3, 16384 * MIB);
    bool ok = plan_make(&p, m, &kernels, member, 3, &w, out, &e) && plan_cuts(&p, m, &c, &e);
    tap_ok(ok && !plan_cuts(&p, other, &c, &e) && e.code == ERR_FORMAT,
           "a plan for another model: %s", e.text);
    q = p;
    q.run[ROWS_FF].cut[1] += 8;
    tap_ok(!plan_cuts(&q, m, &c, &e) && e.code == ERR_FORMAT, "a cut inside a block: %s", e.text);
    q = p;
    q.run[ROWS_EMBD].cut[1] = 4000000000;
    tap_ok(!plan_cuts(&q, m, &c, &e) && e.code == ERR_FORMAT, "a cut past the end: %s", e.text);
    q = p;
    q.n_run = 3;
    tap_ok(!plan_cuts(&q, m, &c, &e) && e.code == ERR_FORMAT, "no vocabulary: %s", e.text);
    uint8_t bytes[1024];
    q = p;
    q.node[2] = q.node[1];
    tap_ok(!plan_encode(&q, bytes, sizeof bytes), "a node twice is no plan");
}

static void check_wire(void) {
    const struct model *m = bare_model(&shapes[4].b);
    struct plan_member member[PLAN_NODES];
    bool out[PLAN_NODES];
    static struct plan p;
    struct err e = {0};
    struct plan_wish w = wish_of(512, 8, 1);
    fill(member, 4, 16384 * MIB);
    if (!plan_make(&p, m, &kernels, member, 4, &w, out, &e)) abort();
    double sum = 0, d = 4096, ff = 14336;
    for (unsigned i = 0; i < 4; i++) sum += plan_wire_bytes(&p, m, i);
    double want = 32 * 3 * (1.0625 * (d + ff) + 2 * 2.125 * d);
    tap_ok(fabs(sum - want) < 1, "bytes a token and node: %.0f, by the formula %.0f", sum / 4,
           want / 4);
}

int main(void) {
    kernels_init(&kernels, cpu_features());
    check_counts();
    check_least();
    check_shares();
    check_memory();
    check_sweep();
    check_losses();
    check_many_losses();
    check_any_loss();
    check_size();
    check_hostile();
    check_sizes_of_wire();
    check_foreign();
    check_wire();
    return tap_done();
}
