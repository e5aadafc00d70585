/* The load client: opens EventSource streams, publishes events, and times each event's arrival.
 *
 *     load PORT dgram:PATH | http:PORT  [FIRST-SOURCE-NETWORK]
 *
 * Obeys one command per line on stdin and answers each with one line of JSON on stdout; between
 * commands it keeps reading its streams, so the caller can look at the server meanwhile.
 *
 *     open FILE COUNT            open the next COUNT streams of FILE (lines: ACCOUNT-NUMBER PATH)
 *     stuck FILE COUNT           the same, but these never read anything after the answer's head
 *     fan SECONDS OUTSTANDING    publish flat out, at most OUTSTANDING deliveries under way
 *     rate SECONDS PER-SECOND    publish at a fixed rate, whatever comes back
 *     burst EVENTS               one event for each of EVENTS accounts, as fast as they are taken
 *     churn FILE COUNT PARALLEL  connect, request, read the answer, reset; COUNT times
 *     close                      reset all streams
 *
 * An event is known by its number, the mailModSeq that comes out again in the stream's data. A
 * reader has an event when this number, or a higher one of the same account, arrives (then the
 * lower ones count as coalesced). Accounts take turns in a fixed shuffled order, so a server gains
 * nothing by coalescing unless it is thousands of events behind. */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define ACCOUNTS 1000000u
#define EVENTS (1u << 18)   /* events that can be under way at once */
#define OPENING 128u        /* connections being opened at once */
#define PUBLISHERS 32u      /* keep-alive connections for HTTP publishing */
#define SOURCES 50u         /* source addresses: 28 000 ports each */
#define REST 1024           /* longest unfinished line that is kept */
#define PATIENCE (4 * SECOND) /* without any progress, what is missing is lost */

enum kind { STDIN, STREAM, PUBLISHER, CHURN };
enum state { FREE, CONNECTING, WAITING, OPEN };

struct stream {
    int fd;
    uint32_t account;
    uint8_t state, stuck;
    uint16_t rest_length;
    uint64_t last; /* newest number seen */
    char *rest;    /* beginning of an unfinished line or head */
    const char *path;
};

struct account {
    uint32_t readers; /* open and not stuck */
    uint64_t last;    /* number of its newest event */
};

struct event {
    uint64_t number, previous; /* previous: of the same account */
    int64_t sent;
    uint32_t account, missing;
};

struct paths {
    char name[256];
    char **line;
    uint32_t *account;
    size_t count, next;
};

struct publisher {
    int fd;
    uint8_t busy;
    uint16_t length;
    char reply[2048];
};

struct churn {
    int fd;
    int64_t started;
    uint8_t state;
};

static int epoll;
static struct sockaddr_in server;
static uint32_t source_network = 1;
static struct stream *streams;
static uint32_t stream_count, stream_capacity, opening, refused;
static struct account *accounts;
static uint32_t *turns, turn_count, turn;
static struct event *events;
static uint64_t next_number = 1000000;
static struct publisher publishers[PUBLISHERS];
static uint32_t idle[PUBLISHERS], idle_count;
static int datagram = -1, http_port;

/* What a scenario counts; zeroed at its start. */
static struct {
    uint64_t published, expected, deliveries, coalesced, lost, closed, foreign, failed_posts;
    uint64_t blocked;
    struct histogram latency;
} tally;
static uint64_t outstanding;
static int64_t last_progress;

/* The message a full datagram queue refused, and when that was over. */
static char waiting[EVENT_MAX];
static size_t waiting_length;
static int64_t unblocked_at;

static struct churn *churners;
static uint32_t churn_parallel;
static uint64_t churn_started, churn_done, churn_failed, churn_count;
static struct paths *churn_paths;

static char command_text[4096];
static size_t command_length;

static uint64_t tag(enum kind kind, uint32_t index) { return (uint64_t)kind << 32 | index; }

static void watch(int operation, int fd, uint32_t wanted, uint64_t what) {
    struct epoll_event event = {.events = wanted, .data.u64 = what};
    if (epoll_ctl(epoll, operation, fd, &event)) die("epoll_ctl: %m");
}

/* ---- sockets ---- */

static int connect_from(uint32_t index, int small) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1, size = 4096;
    if (fd < 0) return -1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr =
        htonl(INADDR_LOOPBACK + (source_network << 8) + 1 + index % SOURCES);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (small) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) ||
        (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A reset, so that no connection stays behind in TIME_WAIT. */
static void reset(int fd) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static int send_request(int fd, const char *path) {
    char text[2048];
    int n = snprintf(text, sizeof text,
                     "GET %s HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n", path);
    if (n < 0 || n >= (int)sizeof text) die("path too long");
    return send(fd, text, (size_t)n, MSG_NOSIGNAL) == n ? 0 : -1;
}

/* ---- streams ---- */

static struct event *event_of(uint64_t number) { return &events[number & (EVENTS - 1)]; }

/* Walk back over what stream `s` has not got yet, up to `number`. */
static void settle(struct stream *s, uint64_t number, int arrived) {
    int64_t now = now_ns();
    for (uint64_t k = number; k > s->last;) {
        struct event *e = event_of(k);
        if (e->number != k) break;
        if (e->missing) {
            e->missing--;
            outstanding--;
            last_progress = now;
            if (arrived) {
                tally.deliveries++;
                tally.coalesced += k != number;
                record(&tally.latency, now - e->sent);
            } else {
                tally.lost++;
            }
        }
        k = e->previous;
    }
    s->last = number;
}

static void drop(struct stream *s) {
    if (s->state == OPEN && !s->stuck) {
        struct account *a = &accounts[s->account];
        if (a->last > s->last) settle(s, a->last, 0);
        a->readers--;
    }
    if (s->state == OPEN) {
        tally.closed++;
    } else {
        opening--;
        refused++;
    }
    reset(s->fd);
    free(s->rest);
    s->rest = NULL;
    s->rest_length = 0;
    s->state = FREE;
}

static void opened(struct stream *s) {
    s->state = OPEN;
    opening--;
    last_progress = now_ns();
    s->last = accounts[s->account].last;
    if (s->stuck)
        watch(EPOLL_CTL_MOD, s->fd, EPOLLRDHUP, tag(STREAM, (uint32_t)(s - streams)));
    else if (accounts[s->account].readers++ == 0)
        turns[turn_count++] = s->account;
}

static void keep_rest(struct stream *s, const char *from, const char *end) {
    size_t length = (size_t)(end - from);
    if (length > REST) length = 0; /* no line of interest is this long */
    if (length) {
        if (!s->rest) s->rest = must(malloc(REST));
        memmove(s->rest, from, length);
    } else if (s->rest) {
        free(s->rest);
        s->rest = NULL;
    }
    s->rest_length = (uint16_t)length;
}

static void read_numbers(struct stream *s, const char *p, const char *end) {
    static const char key[] = "\"mailModSeq\":";
    const char *hit;
    const char *tail = memrchr(p, '\n', (size_t)(end - p));
    tail = tail ? tail + 1 : p;
    while ((hit = memmem(p, (size_t)(end - p), key, sizeof key - 1))) {
        uint64_t number = 0;
        for (p = hit + sizeof key - 1; p < end && isdigit((unsigned char)*p); p++)
            number = number * 10 + (uint64_t)(*p - '0');
        if (p == end) break; /* the rest of the number is still to come */
        if (number <= s->last) continue;
        struct event *e = event_of(number);
        if (e->number == number && e->account == s->account)
            settle(s, number, 1);
        else
            tally.foreign++;
    }
    keep_rest(s, tail, end);
}

static void read_stream(struct stream *s) {
    static char buffer[REST + 65536];
    size_t kept = s->rest_length;
    if (kept) memcpy(buffer, s->rest, kept);
    ssize_t n = recv(s->fd, buffer + kept, s->stuck ? 512 : 65536, 0);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) drop(s);
        return;
    }
    const char *p = buffer, *end = buffer + kept + n;
    if (s->state == WAITING) {
        const char *head = memmem(buffer, (size_t)(end - p), "\r\n\r\n", 4);
        if (!head) {
            keep_rest(s, p, end);
            return;
        }
        if (strncmp(buffer, "HTTP/1.1 200", 12) != 0) {
            if (refused == 0) fprintf(stderr, "load: refused: %.*s\n", (int)(head - p), p);
            drop(s);
            return;
        }
        p = head + 4;
        opened(s);
    }
    read_numbers(s, p, end);
}

static void stream_ready(struct stream *s, uint32_t ready) {
    if (s->state == FREE) return;
    if (s->state == CONNECTING) {
        if ((ready & (EPOLLERR | EPOLLHUP)) || send_request(s->fd, s->path)) {
            drop(s);
            return;
        }
        s->state = WAITING;
        watch(EPOLL_CTL_MOD, s->fd, EPOLLIN | EPOLLRDHUP, tag(STREAM, (uint32_t)(s - streams)));
        return;
    }
    if (s->stuck && s->state == OPEN)
        drop(s); /* only its end is watched */
    else
        read_stream(s);
}

static void open_one(struct paths *paths, int stuck) {
    if (stream_count == stream_capacity) {
        stream_capacity = stream_capacity ? stream_capacity * 2 : 1024;
        streams = must(realloc(streams, stream_capacity * sizeof *streams));
    }
    struct stream *s = &streams[stream_count];
    *s = (struct stream){.state = CONNECTING, .stuck = (uint8_t)stuck};
    s->account = paths->account[paths->next];
    s->path = paths->line[paths->next++];
    s->fd = connect_from(stream_count, stuck);
    if (s->fd < 0) {
        refused++;
        s->state = FREE;
    } else {
        opening++;
        watch(EPOLL_CTL_ADD, s->fd, EPOLLOUT, tag(STREAM, stream_count));
    }
    stream_count++;
}

/* ---- publishing ---- */

static void connect_publishers(void) {
    struct sockaddr_in address = server;
    address.sin_port = htons((uint16_t)http_port);
    for (uint32_t i = 0; i < PUBLISHERS; i++) {
        struct publisher *p = &publishers[i];
        int yes = 1;
        p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(p->fd, (struct sockaddr *)&address, sizeof address)) die("publisher: %m");
        setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        fcntl(p->fd, F_SETFL, O_NONBLOCK);
        watch(EPOLL_CTL_ADD, p->fd, EPOLLIN, tag(PUBLISHER, i));
        idle[idle_count++] = i;
    }
}

static void connect_datagram(const char *path) {
    struct sockaddr_un address = unix_address(path);
    datagram = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(datagram, (struct sockaddr *)&address, sizeof address)) die("%s: %m", path);
    watch(EPOLL_CTL_ADD, datagram, 0, tag(PUBLISHER, 0));
}

/* The answer to a POST: its length is in its head. */
static void publisher_ready(uint32_t index) {
    struct publisher *p = &publishers[index];
    ssize_t n = recv(p->fd, p->reply + p->length, sizeof p->reply - 1 - p->length, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) die("publisher: connection closed");
    p->length = (uint16_t)(p->length + n);
    p->reply[p->length] = 0;
    const char *body = strstr(p->reply, "\r\n\r\n");
    if (!body) return;
    const char *length = strcasestr(p->reply, "\r\nContent-Length:");
    size_t want = length ? strtoul(length + 17, NULL, 10) : 0;
    if ((size_t)(p->reply + p->length - (body + 4)) < want) return;
    if (strncmp(p->reply, "HTTP/1.1 2", 10) != 0 && tally.failed_posts++ == 0)
        fprintf(stderr, "load: publishing refused: %.60s\n", p->reply);
    p->length = 0;
    p->busy = 0;
    idle[idle_count++] = index;
    unblocked_at = now_ns();
}

static void datagram_ready(void) {
    if (!waiting_length) return;
    if (send(datagram, waiting, waiting_length, MSG_NOSIGNAL) < 0) {
        if (errno != EAGAIN) die("datagram: %m");
        return;
    }
    waiting_length = 0;
    unblocked_at = now_ns();
    watch(EPOLL_CTL_MOD, datagram, 0, tag(PUBLISHER, 0));
}

static int blocked(void) { return http_port ? idle_count == 0 : waiting_length != 0; }

static void post(uint32_t account, uint64_t number) {
    struct publisher *p = &publishers[idle[--idle_count]];
    char text[512], body[128];
    int length = snprintf(body, sizeof body,
                          "{\"mailModSeq\":%llu,\"calendarModSeq\":1,\"contactsModSeq\":1}",
                          (unsigned long long)number);
    int n = snprintf(text, sizeof text,
                     "POST /pub?id=u%06u HTTP/1.1\r\nHost: bench\r\n"
                     "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                     account, length, body);
    p->busy = 1;
    if (send(p->fd, text, (size_t)n, MSG_NOSIGNAL) != n) die("publisher: %m");
    if (idle_count == 0) tally.blocked++;
}

static void send_datagram(uint32_t account, uint64_t number) {
    char text[EVENT_MAX];
    size_t length = event_datagram(text, account, number);
    if (send(datagram, text, length, MSG_NOSIGNAL) >= 0) return;
    if (errno != EAGAIN) die("datagram: %m");
    memcpy(waiting, text, length);
    waiting_length = length;
    tally.blocked++;
    watch(EPOLL_CTL_MOD, datagram, EPOLLOUT, tag(PUBLISHER, 0));
}

/* One event for the next account; 0 if there is no reader left. */
static int publish(int64_t sent) {
    while (turn_count && accounts[turns[turn]].readers == 0) {
        turns[turn] = turns[--turn_count];
        if (turn >= turn_count) turn = 0;
    }
    if (!turn_count) return 0;
    uint32_t account = turns[turn];
    turn = (turn + 1) % turn_count;
    struct account *a = &accounts[account];
    uint64_t number = next_number++;
    struct event *e = event_of(number);
    tally.lost += e->missing; /* hopelessly late */
    outstanding -= e->missing;
    *e = (struct event){.number = number, .previous = a->last, .sent = sent, .account = account};
    e->missing = a->readers;
    a->last = number;
    outstanding += a->readers;
    tally.published++;
    tally.expected += a->readers;
    if (http_port)
        post(account, number);
    else
        send_datagram(account, number);
    return 1;
}

/* ---- churn ---- */

static void churn_next(uint32_t index) {
    struct churn *c = &churners[index];
    c->state = FREE;
    if (churn_started >= churn_count) return;
    churn_started++;
    c->started = now_ns();
    c->fd = connect_from((uint32_t)churn_started, 0);
    if (c->fd < 0) die("connect: %m");
    c->state = CONNECTING;
    watch(EPOLL_CTL_ADD, c->fd, EPOLLOUT, tag(CHURN, index));
}

static void churn_ready(uint32_t index) {
    struct churn *c = &churners[index];
    if (c->state == FREE) return;
    if (c->state == CONNECTING) {
        const char *path = churn_paths->line[churn_paths->next++ % churn_paths->count];
        if (send_request(c->fd, path) == 0) {
            c->state = WAITING;
            watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, tag(CHURN, index));
            return;
        }
        churn_failed++;
    } else {
        char text[2048];
        ssize_t n = recv(c->fd, text, sizeof text, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 12 || memcmp(text, "HTTP/1.1 200", 12) != 0) {
            if (churn_failed++ == 0)
                fprintf(stderr, "load: refused: %.*s\n", n > 0 ? (int)n : 0, text);
        } else {
            churn_done++;
            record(&tally.latency, now_ns() - c->started);
        }
    }
    last_progress = now_ns();
    reset(c->fd);
    churn_next(index);
}

/* ---- the loop ---- */

static int command_ready; /* a whole line is in command_text, or the end */

static void read_commands(void) {
    ssize_t n = read(0, command_text + command_length, sizeof command_text - 1 - command_length);
    if (n <= 0) exit(0);
    command_length += (size_t)n;
    if (memchr(command_text, '\n', command_length)) command_ready = 1;
}

/* Wait for what happens next, but not beyond `until`. */
static void pump(int64_t until) {
    struct epoll_event ready[512];
    int64_t left = until - now_ns();
    if (left < 0) left = 0;
    struct timespec timeout = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
    int n = epoll_pwait2(epoll, ready, 512, &timeout, NULL);
    if (n < 0 && errno != EINTR) die("epoll_pwait2: %m");
    for (int i = 0; i < n; i++) {
        uint32_t index = (uint32_t)ready[i].data.u64;
        switch (ready[i].data.u64 >> 32) {
        case STDIN: read_commands(); break;
        case STREAM: stream_ready(&streams[index], ready[i].events); break;
        case PUBLISHER:
            if (http_port)
                publisher_ready(index);
            else
                datagram_ready();
            break;
        case CHURN: churn_ready(index); break;
        }
    }
}

/* ---- commands ---- */

static struct paths *paths_of(const char *name) {
    static struct paths files[8];
    struct paths *f = files;
    while (f < files + 8 && f->name[0] && strcmp(f->name, name) != 0) f++;
    if (f == files + 8) die("too many files");
    if (f->name[0]) return f;
    FILE *in = fopen(name, "r");
    if (!in) die("%s: %m", name);
    snprintf(f->name, sizeof f->name, "%s", name);
    char *line = NULL;
    size_t room = 0, capacity = 0;
    ssize_t n;
    while ((n = getline(&line, &room, in)) > 0) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        if (f->count == capacity) {
            capacity = capacity ? capacity * 2 : 1024;
            f->line = must(realloc(f->line, capacity * sizeof *f->line));
            f->account = must(realloc(f->account, capacity * sizeof *f->account));
        }
        char *path;
        f->account[f->count] = (uint32_t)strtoul(line, &path, 10);
        if (*path != ' ' || f->account[f->count] >= ACCOUNTS) die("%s: bad line", name);
        f->line[f->count++] = must(strdup(path + 1));
    }
    free(line);
    fclose(in);
    if (!f->count) die("%s: empty", name);
    return f;
}

static void shuffle_turns(void) {
    for (uint32_t i = turn_count; i > 1; i--) {
        uint32_t j = next_random() % i, t = turns[i - 1];
        turns[i - 1] = turns[j];
        turns[j] = t;
    }
    turn = 0;
}

static uint32_t open_now(void) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < stream_count; i++) n += streams[i].state == OPEN;
    return n;
}

static void do_open(const char *name, uint32_t count, int stuck) {
    struct paths *paths = paths_of(name);
    uint32_t before = open_now(), done = 0;
    int64_t start = now_ns();
    double cpu = cpu_seconds();
    last_progress = start;
    refused = 0;
    while (done < count || opening) {
        while (done < count && opening < OPENING && paths->next < paths->count && refused < 1000) {
            open_one(paths, stuck);
            done++;
        }
        if (paths->next == paths->count || refused >= 1000) done = count;
        pump(now_ns() + SECOND);
        if (now_ns() - last_progress > PATIENCE) {
            for (uint32_t i = 0; i < stream_count; i++)
                if (streams[i].state == CONNECTING || streams[i].state == WAITING)
                    drop(&streams[i]);
            break;
        }
    }
    shuffle_turns();
    printf("{\"opened\":%u,\"refused\":%u,\"streams\":%u,\"accounts\":%u,\"seconds\":%.4f,"
           "\"client_cpu\":%.3f}\n",
           open_now() - before, refused, open_now(), turn_count,
           (double)(now_ns() - start) / 1e9, cpu_seconds() - cpu);
}

static void drain(void) {
    last_progress = now_ns();
    while ((outstanding || blocked()) && now_ns() - last_progress < PATIENCE)
        pump(now_ns() + SECOND / 10);
    tally.lost += outstanding;
    outstanding = 0;
    for (uint64_t k = next_number > EVENTS ? next_number - EVENTS : 0; k < next_number; k++)
        event_of(k)->missing = 0;
    for (uint32_t i = 0; i < stream_count; i++)
        if (streams[i].state == OPEN) streams[i].last = accounts[streams[i].account].last;
}

/* Publish until the time is over or `limit` events are out: flat out with at most `window`
 * deliveries under way, or (rate > 0) by the clock. */
static void do_publish(double seconds, double rate, uint64_t window, uint64_t limit) {
    memset(&tally, 0, sizeof tally);
    double cpu = cpu_seconds();
    int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9), now;
    while ((now = now_ns()) < end && tally.published < limit) {
        if (blocked() || (rate <= 0 && outstanding >= window)) {
            pump(end);
            continue;
        }
        if (rate <= 0) {
            if (!publish(now)) break;
            /* look at what has come in now and then, even if nothing holds us up */
            if (tally.published % 16 == 0) pump(0);
            continue;
        }
        int64_t due = start + (int64_t)((double)tally.published * 1e9 / rate);
        if (due > now)
            pump(due < end ? due : end);
        else if (!publish(due < unblocked_at ? due : now))
            break; /* (an event the server kept waiting has been under way since it was due) */
    }
    double took = (double)(now_ns() - start) / 1e9;
    uint64_t in_time = tally.deliveries, behind = 0;
    if (rate > 0) {
        behind = (uint64_t)(rate * took);
        behind = behind > tally.published + 1 ? behind - tally.published : 0;
    }
    drain();
    printf("{\"published\":%llu,\"expected\":%llu,\"deliveries\":%llu,\"coalesced\":%llu,"
           "\"lost\":%llu,\"closed\":%llu,\"foreign\":%llu,\"failed_posts\":%llu,\"blocked\":%llu,"
           "\"behind\":%llu,\"seconds\":%.4f,\"per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"max_us\":%.1f,\"all_after_s\":%.4f,\"client_cpu\":%.3f}\n",
           (unsigned long long)tally.published, (unsigned long long)tally.expected,
           (unsigned long long)tally.deliveries, (unsigned long long)tally.coalesced,
           (unsigned long long)tally.lost, (unsigned long long)tally.closed,
           (unsigned long long)tally.foreign, (unsigned long long)tally.failed_posts,
           (unsigned long long)tally.blocked, (unsigned long long)behind, took,
           (double)in_time / took, quantile_us(&tally.latency, 0.5),
           quantile_us(&tally.latency, 0.99), (double)tally.latency.max / 1000,
           (double)(last_progress - start) / 1e9, cpu_seconds() - cpu);
}

static void do_churn(const char *name, uint64_t count, uint32_t parallel) {
    memset(&tally, 0, sizeof tally);
    churn_paths = paths_of(name);
    churners = must(calloc(parallel, sizeof *churners));
    churn_parallel = parallel;
    churn_count = count;
    churn_started = churn_done = churn_failed = 0;
    double cpu = cpu_seconds();
    int64_t start = last_progress = now_ns();
    for (uint32_t i = 0; i < parallel; i++) churn_next(i);
    while (churn_done + churn_failed < count && now_ns() - last_progress < PATIENCE)
        pump(now_ns() + SECOND);
    double took = (double)(last_progress - start) / 1e9;
    for (uint32_t i = 0; i < parallel; i++)
        if (churners[i].state != FREE) reset(churners[i].fd);
    free(churners);
    printf("{\"connections\":%llu,\"failed\":%llu,\"seconds\":%.4f,\"per_second\":%.1f,"
           "\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"client_cpu\":%.3f}\n",
           (unsigned long long)churn_done, (unsigned long long)(count - churn_done), took,
           took > 0 ? (double)churn_done / took : 0, quantile_us(&tally.latency, 0.5),
           quantile_us(&tally.latency, 0.99), (double)tally.latency.max / 1000,
           cpu_seconds() - cpu);
}

static void do_close(void) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < stream_count; i++) {
        if (streams[i].state == FREE) continue;
        n++;
        reset(streams[i].fd);
        free(streams[i].rest);
    }
    for (uint32_t i = 0; i < turn_count; i++) accounts[turns[i]].readers = 0;
    stream_count = turn_count = turn = opening = 0;
    printf("{\"closed\":%u}\n", n);
}

static void obey(const char *line) {
    char name[256];
    double seconds, rate;
    unsigned long count, parallel;
    if (sscanf(line, "open %255s %lu", name, &count) == 2)
        do_open(name, (uint32_t)count, 0);
    else if (sscanf(line, "stuck %255s %lu", name, &count) == 2)
        do_open(name, (uint32_t)count, 1);
    else if (sscanf(line, "fan %lf %lu", &seconds, &count) == 2)
        do_publish(seconds, 0, count, UINT64_MAX);
    else if (sscanf(line, "rate %lf %lf", &seconds, &rate) == 2)
        do_publish(seconds, rate, UINT64_MAX, UINT64_MAX);
    else if (sscanf(line, "burst %lu", &count) == 1)
        do_publish(60, 0, UINT64_MAX, count);
    else if (sscanf(line, "churn %255s %lu %lu", name, &count, &parallel) == 3)
        do_churn(name, count, (uint32_t)parallel);
    else if (strcmp(line, "close") == 0)
        do_close();
    else
        die("unknown command: %s", line);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 3) die("usage: load PORT dgram:PATH|http:PORT [FIRST-SOURCE-NETWORK]");
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (argc > 3) source_network = (uint32_t)atoi(argv[3]);
    prctl(PR_SET_TIMERSLACK, 1UL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    accounts = must(calloc(ACCOUNTS, sizeof *accounts));
    turns = must(calloc(ACCOUNTS, sizeof *turns));
    events = must(calloc(EVENTS, sizeof *events));
    if (sscanf(argv[2], "http:%d", &http_port) == 1)
        connect_publishers();
    else if (strncmp(argv[2], "dgram:", 6) == 0)
        connect_datagram(argv[2] + 6);
    else
        die("unknown way to publish: %s", argv[2]);
    watch(EPOLL_CTL_ADD, 0, EPOLLIN, tag(STDIN, 0));
    for (;;) {
        while (!command_ready) pump(now_ns() + 3600 * SECOND);
        char line[4096], *end = memchr(command_text, '\n', command_length);
        size_t length = (size_t)(end - command_text);
        memcpy(line, command_text, length);
        line[length] = 0;
        command_length -= length + 1;
        memmove(command_text, end + 1, command_length);
        command_ready = memchr(command_text, '\n', command_length) != NULL;
        obey(line);
    }
}
