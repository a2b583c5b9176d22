/* schema_number.c - numbers within bounds, as texts: digit by digit, where the bound still binds. */
#include "model/schema_own.h"

#include <stdio.h>
#include <string.h>

static uint32_t digit(struct gtree *t, int from, int to) {
    struct grange r = {(uint32_t)('0' + from), (uint32_t)('0' + to)};
    return from > to ? gtree_never(t) : gtree_set(t, &r, 1);
}

static uint32_t digits(struct gtree *t, uint32_t from, int32_t to) {
    return gtree_repeat(t, digit(t, 0, 9), from, to);
}

static void branch(struct gtree *t, uint32_t alt, uint32_t first, uint32_t rest) {
    const uint32_t both[] = {first, rest};
    gtree_add(t, alt, gtree_cat(t, both, 2));
}

/* Texts of n digits from `low` to `high`; NULL: no bound there. Depth: n. */
static uint32_t between(struct gtree *t, const char *low, const char *high, size_t n) {
    if (!n) return gtree_list(t, GNODE_CAT);
    if (!low && !high) return digits(t, (uint32_t)n, (int32_t)n);
    int from = low ? *low - '0' : 0, to = high ? *high - '0' : 9;
    uint32_t alt = gtree_list(t, GNODE_ALT);
    const char *low1 = low ? low + 1 : NULL, *high1 = high ? high + 1 : NULL;
    if (low && high && from == to) {
        branch(t, alt, digit(t, from, from), between(t, low1, high1, n - 1));
        return alt;
    }
    if (low) branch(t, alt, digit(t, from, from), between(t, low1, NULL, n - 1));
    branch(t, alt, digit(t, from + (low != NULL), to - (high != NULL)),
           digits(t, (uint32_t)n - 1, (int32_t)n - 1));
    if (high) branch(t, alt, digit(t, to, to), between(t, NULL, high1, n - 1));
    return alt;
}

/* 0 <= from; without leading zeros. */
static uint32_t natural(struct gtree *t, int64_t from, int64_t to) {
    uint32_t alt = gtree_list(t, GNODE_ALT);
    char low[24], high[24];
    if (from > to) return alt;
    int n_low = snprintf(low, sizeof low, "%lld", (long long)from);
    int n_high = snprintf(high, sizeof high, "%lld", (long long)to);
    for (int n = n_low; n <= n_high; n++) {
        static const char least[] = "1000000000000000000", zero[] = "0";
        const char *l = n == n_low ? low : least, *h = n == n_high ? high : NULL;
        if (n == 1 && n_low == 1 && from == 0) l = zero;
        gtree_add(t, alt, between(t, l, h, (size_t)n));
    }
    return alt;
}

static int64_t clip(int64_t v) {
    return v > NUMBER_MOST ? NUMBER_MOST : v < -NUMBER_MOST ? -NUMBER_MOST : v;
}

static uint32_t minus(struct gtree *t, uint32_t what) {
    const uint32_t both[] = {gtree_text(t, "-"), what};
    return gtree_cat(t, both, 2);
}

uint32_t schema_integer(struct gtree *t, int64_t from, int64_t to) {
    uint32_t alt = gtree_list(t, GNODE_ALT);
    if (from > NUMBER_MOST || to < -NUMBER_MOST) return alt;
    from = clip(from);
    to = clip(to);
    if (from < 0) gtree_add(t, alt, minus(t, natural(t, to < 0 ? -to : 1, -from)));
    if (to >= 0) gtree_add(t, alt, natural(t, from < 0 ? 0 : from, to));
    return alt;
}

/* --- numbers with a fraction, without their sign --- */

/* A bound on what comes next. rest: digits behind the point yet to come, "": it is met, NULL: it binds no more. */
struct edge {
    int64_t whole;
    const char *rest;
    bool is_out;
};

static const struct edge FREE = {.rest = NULL}, ZERO = {.rest = ""},
                         ABOVE_ZERO = {.rest = "", .is_out = true};

/* Behind the last digit of a bound there are zeros. */
static int first_of(struct edge e) {
    return *e.rest ? *e.rest - '0' : 0;
}

static struct edge next(struct edge e) {
    e.rest += *e.rest != '\0';
    return e;
}

static uint32_t nothing(struct gtree *t) {
    return gtree_list(t, GNODE_CAT);
}

/* `least` to `left` digits: not below low, not above high. Depth: left. */
static uint32_t behind(struct gtree *t, struct edge low, struct edge high, int least, int left) {
    if (low.rest && !*low.rest && !low.is_out) low = FREE;
    if (high.rest && !*high.rest) {
        if (low.rest || high.is_out) return gtree_never(t);
        return gtree_repeat(t, digit(t, 0, 0), (uint32_t)least, left);
    }
    if (!low.rest && !high.rest) return digits(t, (uint32_t)least, left);
    if (!left) return low.rest ? gtree_never(t) : nothing(t);
    uint32_t alt = gtree_list(t, GNODE_ALT);
    int from = low.rest ? first_of(low) : 0, to = high.rest ? first_of(high) : 9;
    if (!least && !low.rest) gtree_add(t, alt, nothing(t));
    if (low.rest && high.rest && from == to) {
        branch(t, alt, digit(t, from, from), behind(t, next(low), next(high), 0, left - 1));
        return alt;
    }
    if (low.rest) {
        branch(t, alt, digit(t, from, from), behind(t, next(low), FREE, 0, left - 1));
        from++;
    }
    if (high.rest) {
        branch(t, alt, digit(t, to, to), behind(t, FREE, next(high), 0, left - 1));
        to--;
    }
    if (from <= to) branch(t, alt, digit(t, from, to), digits(t, 0, left - 1));
    return alt;
}

/* The point and what is behind it, or nothing. */
static uint32_t fraction(struct gtree *t, struct edge low, struct edge high) {
    bool is_low = !low.rest || (!*low.rest && !low.is_out);
    bool is_high = !high.rest || *high.rest || !high.is_out;
    uint32_t alt = gtree_list(t, GNODE_ALT);
    if (is_low && is_high) gtree_add(t, alt, nothing(t));
    branch(t, alt, gtree_text(t, "."), behind(t, low, high, 1, FRACTION_DIGITS));
    return alt;
}

static uint32_t sizes(struct gtree *t, struct edge low, struct edge high) {
    int64_t from = low.whole, to = high.whole;
    uint32_t alt = gtree_list(t, GNODE_ALT);
    if (from == to) branch(t, alt, natural(t, from, to), fraction(t, low, high));
    if (from >= to) return alt;
    branch(t, alt, natural(t, from, from), fraction(t, low, FREE));
    branch(t, alt, natural(t, from + 1, to - 1), fraction(t, FREE, FREE));
    branch(t, alt, natural(t, to, to), fraction(t, FREE, high));
    return alt;
}

uint32_t schema_number(struct gtree *t, const struct bounds *b) {
    const struct edge from = {b->from.whole, b->from.rest, b->from.is_out};
    const struct edge to = {b->to.whole, b->to.rest, b->to.is_out};
    uint32_t alt = gtree_list(t, GNODE_ALT);
    if (b->to.x >= 0) gtree_add(t, alt, sizes(t, b->from.x < 0 ? ZERO : from, to));
    if (b->from.x < 0) {
        gtree_add(t, alt, minus(t, sizes(t, b->to.x < 0 ? to : ABOVE_ZERO, from)));
    }
    return alt;
}

/* --- formats, RFC 3339 and RFC 9562 --- */

static uint32_t number2(struct gtree *t, int from, int to) {
    char low[12], high[12];
    snprintf(low, sizeof low, "%02d", from);
    snprintf(high, sizeof high, "%02d", to);
    return between(t, low, high, 2);
}

static void month(struct gtree *t, uint32_t alt, const char *which, int days) {
    for (const char *m = which; *m; m += 2) {
        const uint32_t all[] = {gtree_bytes(t, m, 2), gtree_text(t, "-"), number2(t, 1, days)};
        gtree_add(t, alt, gtree_cat(t, all, 3));
    }
}

/* Two digits of what divides by 4, but 00. */
static uint32_t fours(struct gtree *t) {
    uint32_t alt = gtree_list(t, GNODE_ALT);
    for (int y = 4; y < 100; y += 4) gtree_add(t, alt, number2(t, y, y));
    return alt;
}

static uint32_t date(struct gtree *t) {
    uint32_t alt = gtree_list(t, GNODE_ALT), leap = gtree_list(t, GNODE_ALT);
    uint32_t every = gtree_list(t, GNODE_ALT);
    month(t, every, "01030507081012", 31);
    month(t, every, "04060911", 30);
    month(t, every, "02", 28);
    const uint32_t all[] = {between(t, "0001", "9999", 4), gtree_text(t, "-"), every};
    gtree_add(t, alt, gtree_cat(t, all, 3));
    branch(t, leap, digits(t, 2, 2), fours(t));
    branch(t, leap, fours(t), gtree_text(t, "00"));
    branch(t, alt, leap, gtree_text(t, "-02-29"));
    return alt;
}

static uint32_t time_of_day(struct gtree *t) {
    uint32_t zone = gtree_list(t, GNODE_ALT);
    static const struct grange sign[] = {{'+', '+'}, {'-', '-'}};
    const uint32_t offset[] = {gtree_set(t, sign, 2), number2(t, 0, 23), gtree_text(t, ":"),
                               number2(t, 0, 59)};
    gtree_add(t, zone, gtree_text(t, "Z"));
    gtree_add(t, zone, gtree_cat(t, offset, 4));
    const uint32_t parts[] = {gtree_text(t, "."), digits(t, 1, 9)};
    const uint32_t all[] = {number2(t, 0, 23),
                            gtree_text(t, ":"),
                            number2(t, 0, 59),
                            gtree_text(t, ":"),
                            number2(t, 0, 59),
                            gtree_repeat(t, gtree_cat(t, parts, 2), 0, 1),
                            zone};
    return gtree_cat(t, all, 7);
}

static uint32_t date_time(struct gtree *t) {
    const uint32_t all[] = {date(t), gtree_text(t, "T"), time_of_day(t)};
    return gtree_cat(t, all, 3);
}

static uint32_t uuid(struct gtree *t) {
    static const struct grange hex[] = {{'0', '9'}, {'a', 'f'}, {'A', 'F'}};
    static const uint8_t group[] = {8, 4, 4, 4, 12};
    uint32_t list = gtree_list(t, GNODE_CAT);
    for (size_t i = 0; i < sizeof group; i++) {
        if (i) gtree_add(t, list, gtree_text(t, "-"));
        gtree_add(t, list, gtree_repeat(t, gtree_set(t, hex, 3), group[i], group[i]));
    }
    return list;
}

static const struct {
    const char *name;
    uint32_t (*make)(struct gtree *t);
} form[] = {{"date", date}, {"time", time_of_day}, {"date-time", date_time}, {"uuid", uuid}};

enum { N_FORM = sizeof form / sizeof *form };

static size_t find_form(const char *name, size_t len) {
    size_t i = 0;
    while (i < N_FORM && (strlen(form[i].name) != len || memcmp(form[i].name, name, len))) i++;
    return i;
}

bool schema_knows_format(const char *name, size_t len) {
    return find_form(name, len) < N_FORM;
}

uint32_t schema_format(struct gtree *t, const char *name, size_t len) {
    size_t i = find_form(name, len);
    return i < N_FORM ? form[i].make(t) : 0;
}
