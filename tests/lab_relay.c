/* lab_relay.c - a line with delay, jitter and loss for tests/Lab.pm: forwards frames between two
 * TAP devices of its network namespace. The usual tool, netem, is a kernel module that not every
 * machine has; this one also drops the same frames again for the same seed.
 *
 *   lab_relay TAP_A TAP_B [SEED]
 *
 * Says "ready" once both devices are there, and obeys lines on stdin, each answered by one line:
 *   ab|ba|both DELAY_US JITTER_US LOSS_PPM    for frames from A to B, from B to A, or both
 *   count                                     answers what passed and what was dropped
 * Jitter is uniform between 0 and JITTER_US and never changes the order, as on a real line. The end
 * of stdin is the end of the relay: it cannot outlive the test that started it. */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_MAX = 2048, HELD_MAX = 4096, BURST = 64 };

struct frame {
    uint64_t due;  // ns
    uint32_t size;
    uint8_t byte[FRAME_MAX];
};

// One direction. The queue is in order of arrival and of release, both.
struct way {
    const char *name;
    int from, to;
    uint64_t delay, jitter;  // ns
    uint32_t loss;           // of 1000000
    uint64_t random, last_due;
    uint64_t passed, lost, full;
    uint32_t head, held;
    struct frame *queue;  // [HELD_MAX]
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* splitmix64: Steele, Lea, Flood 2014. */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int open_tap(const char *name) {
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        perror("lab_relay: /dev/net/tun");
        exit(1);
    }
    struct ifreq want = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    snprintf(want.ifr_name, sizeof want.ifr_name, "%s", name);
    if (ioctl(fd, TUNSETIFF, &want) < 0) {
        fprintf(stderr, "lab_relay: %s: ", name);
        perror("TUNSETIFF");
        exit(1);
    }
    return fd;
}

/* Takes in what has arrived, at most a burst of it, so that the other tasks get their turn. */
static void take(struct way *w) {
    for (int i = 0; i < BURST; i++) {
        struct frame *f = &w->queue[(w->head + w->held) % HELD_MAX];
        struct frame extra;
        if (w->held == HELD_MAX) f = &extra;
        ssize_t n = read(w->from, f->byte, sizeof f->byte);
        if (n <= 0) return;
        if (next_random(&w->random) % 1000000 < w->loss) {
            w->lost++;
        } else if (w->held == HELD_MAX) {
            w->full++;
        } else {
            uint64_t due = now_ns() + w->delay;
            if (w->jitter) due += next_random(&w->random) % (w->jitter + 1);
            if (due < w->last_due) due = w->last_due;
            w->last_due = f->due = due;
            f->size = (uint32_t)n;
            w->held++;
        }
    }
}

/* Sends what is due; returns when the next is, 0 for none. A frame that the device does not take
 * is lost, as it would be in a switch. */
static uint64_t release(struct way *w) {
    uint64_t now = now_ns();
    while (w->held) {
        struct frame *f = &w->queue[w->head];
        if (f->due > now) return f->due;
        if (write(w->to, f->byte, f->size) == (ssize_t)f->size) {
            w->passed++;
        } else {
            w->full++;
        }
        w->head = (w->head + 1) % HELD_MAX;
        w->held--;
    }
    return 0;
}

static void obey(char *line, struct way way[static 2]) {
    char which[8];
    unsigned long delay, jitter, loss;
    if (!strcmp(line, "count")) {
        for (int i = 0; i < 2; i++) {
            printf("%s passed %llu lost %llu full %llu%s", way[i].name,
                   (unsigned long long)way[i].passed, (unsigned long long)way[i].lost,
                   (unsigned long long)way[i].full, i ? "\n" : " ");
        }
    } else if (sscanf(line, "%7s %9lu %9lu %9lu", which, &delay, &jitter, &loss) == 4) {
        int done = 0;
        for (int i = 0; i < 2; i++) {
            if (strcmp(which, way[i].name) && strcmp(which, "both")) continue;
            way[i].delay = delay * 1000;
            way[i].jitter = jitter * 1000;
            way[i].loss = (uint32_t)loss;
            done = 1;
        }
        puts(done ? "ok" : "ab, ba or both?");
    } else {
        puts("what?");
    }
}

// Bytes of stdin become lines; false at its end.
static int listen_to_stdin(struct way way[static 2]) {
    static char line[256];
    static size_t have;
    ssize_t n = read(0, line + have, sizeof line - 1 - have);
    if (n <= 0) return 0;
    have += (size_t)n;
    line[have] = 0;
    for (char *end; (end = memchr(line, '\n', have));) {
        *end = 0;
        obey(line, way);
        have -= (size_t)(end + 1 - line);
        memmove(line, end + 1, have);
    }
    return have < sizeof line - 1;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: lab_relay TAP_A TAP_B [SEED]\n");
        return 2;
    }
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
    static struct frame queue[2][HELD_MAX];
    int a = open_tap(argv[1]), b = open_tap(argv[2]);
    struct way way[2] = {
        {.name = "ab", .from = a, .to = b, .random = seed, .queue = queue[0]},
        {.name = "ba", .from = b, .to = a, .random = seed ^ 0x5555, .queue = queue[1]}};
    setvbuf(stdout, NULL, _IOLBF, 0);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    puts("ready");
    struct pollfd on[3] = {
        {.fd = 0, .events = POLLIN}, {.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
    for (;;) {
        uint64_t next = 0;
        for (int i = 0; i < 2; i++) {
            uint64_t due = release(&way[i]);
            if (due && (!next || due < next)) next = due;
        }
        uint64_t now = now_ns(), wait = next > now ? next - now : 0;
        struct timespec t = {.tv_sec = (time_t)(wait / 1000000000u),
                             .tv_nsec = (long)(wait % 1000000000u)};
        if (ppoll(on, 3, next ? &t : NULL, NULL) < 0) continue;
        if ((on[1].revents | on[2].revents) & (POLLERR | POLLNVAL)) return 1;  // the device is gone
        if (on[0].revents && !listen_to_stdin(way)) return 0;
        if (on[1].revents) take(&way[0]);
        if (on[2].revents) take(&way[1]);
    }
}
