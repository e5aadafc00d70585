/* The producer: sends events the two ways a mail server does, and counts.
 *
 *     produce stream PATH SECONDS RATE      one connection per event, its answer awaited
 *     produce datagram PATH SECONDS RATE    one datagram per event
 *
 * RATE 0 is flat out. Prints one line of JSON. */
#define _GNU_SOURCE
#include "common.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PARALLEL 16
#define ACCOUNTS 10000u

struct connection {
    int fd;
    size_t length;
    int64_t started;
    char reply[64];
};

static struct sockaddr_un address;
static struct histogram latency;
static uint64_t sent, done, failed, number;
static struct connection connections[PARALLEL];
static int epoll;

static void start_one(struct connection *c) {
    char text[EVENT_MAX];
    size_t length = event_dlist(text, (uint32_t)(number % ACCOUNTS), number);
    number++;
    sent++;
    c->started = now_ns();
    c->length = 0;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect: %m");
    if (send(c->fd, text, length, MSG_NOSIGNAL) != (ssize_t)length) die("send: %m");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl: %m");
}

/* Returns whether the connection is over. */
static int read_reply(struct connection *c) {
    ssize_t n = recv(c->fd, c->reply + c->length, sizeof c->reply - c->length, 0);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n > 0) {
        c->length += (size_t)n;
        if (!memchr(c->reply, '\n', c->length) && c->length < sizeof c->reply) return 0;
    }
    if (c->length == 7 && memcmp(c->reply, "OK ()\r\n", 7) == 0) {
        done++;
        record(&latency, now_ns() - c->started);
    } else {
        failed++;
    }
    close(c->fd);
    return 1;
}

static int due(int64_t start, int64_t end, double rate, int64_t now) {
    return now < end && (rate <= 0 || now >= start + (int64_t)((double)sent * 1e9 / rate));
}

static void by_stream(int64_t start, int64_t end, double rate) {
    struct connection *idle[PARALLEL];
    int idle_count = 0;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < PARALLEL; i++) idle[idle_count++] = &connections[i];
    for (;;) {
        int64_t now = now_ns();
        while (idle_count && due(start, end, rate, now)) start_one(idle[--idle_count]);
        if (now >= end && idle_count == PARALLEL) return;
        if (now > end + 5 * SECOND) {
            failed += (uint64_t)(PARALLEL - idle_count);
            return;
        }
        int64_t left = end + 5 * SECOND - now;
        if (idle_count && now < end) { /* by the clock: wake for the next one */
            left = start + (int64_t)((double)sent * 1e9 / rate) - now;
            if (left > end - now) left = end - now;
            if (left < 0) left = 0;
        }
        struct timespec timeout = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
        struct epoll_event ready[PARALLEL];
        int n = epoll_pwait2(epoll, ready, PARALLEL, &timeout, NULL);
        for (int i = 0; i < n; i++)
            if (read_reply(ready[i].data.ptr)) idle[idle_count++] = ready[i].data.ptr;
    }
}

static void by_datagram(int64_t start, int64_t end, double rate) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect: %m");
    for (int64_t now; (now = now_ns()) < end;) {
        if (!due(start, end, rate, now)) {
            int64_t left = start + (int64_t)((double)sent * 1e9 / rate) - now;
            struct timespec pause = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
            nanosleep(&pause, NULL);
            continue;
        }
        char text[EVENT_MAX];
        size_t length = event_datagram(text, (uint32_t)(number % ACCOUNTS), number);
        number++;
        sent++;
        if (send(fd, text, length, MSG_NOSIGNAL) != (ssize_t)length) /* waits while it is full */
            failed++;
        else
            done++;
        record(&latency, now_ns() - now);
    }
    close(fd);
}

int main(int argc, char **argv) {
    if (argc != 5) die("usage: produce stream|datagram PATH SECONDS RATE");
    /* Numbers must rise from run to run: microseconds since 1970 do, and stay below 2^53. */
    struct timespec today;
    clock_gettime(CLOCK_REALTIME, &today);
    number = (uint64_t)today.tv_sec * 1000000 + (uint64_t)today.tv_nsec / 1000;
    address = unix_address(argv[2]);
    prctl(PR_SET_TIMERSLACK, 1UL);
    int64_t start = now_ns(), end = start + (int64_t)(atof(argv[3]) * 1e9);
    double rate = atof(argv[4]);
    if (strcmp(argv[1], "stream") == 0)
        by_stream(start, end, rate);
    else if (strcmp(argv[1], "datagram") == 0)
        by_datagram(start, end, rate);
    else
        die("unknown transport: %s", argv[1]);
    double took = (double)(now_ns() - start) / 1e9;
    printf("{\"events\":%llu,\"failed\":%llu,\"seconds\":%.4f,\"per_second\":%.1f,"
           "\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"client_cpu\":%.3f}\n",
           (unsigned long long)done, (unsigned long long)failed, took, (double)done / took,
           quantile_us(&latency, 0.5), quantile_us(&latency, 0.99), (double)latency.max / 1000,
           cpu_seconds());
    return 0;
}
