/* The limit: the least server that does the work. Datagrams in, EventSource out; no auth, no
 * time-outs, no outbox (a reader that is full misses the event), one process, epoll and send.
 *
 *     limit PORT DATAGRAM-PATH
 *
 * GET /events?account=u000123 opens a stream. Not a server for anything but measuring. */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#define ACCOUNTS 1000000u
#define NOBODY UINT32_MAX

/* A reader is nothing but its descriptor: these two arrays are all there is per stream. */
static int *first;           /* account -> first descriptor, 0 = none */
static int next_of[1 << 20]; /* descriptor -> next descriptor of the same account */
static uint32_t owner[1 << 20];
static int epoll;

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                             "Cache-Control: no-store\r\nConnection: close\r\n\r\nid: 0\n\n";

static void watch(int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl: %m");
}

static void forget(int fd) {
    if (owner[fd] != NOBODY) {
        int *link = &first[owner[fd]];
        while (*link && *link != fd) link = &next_of[*link];
        *link = next_of[fd];
    }
    close(fd);
}

static void request(int fd) {
    char text[4096];
    ssize_t n = recv(fd, text, sizeof text - 1, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) forget(fd);
        return;
    }
    if (owner[fd] != NOBODY) return; /* an open stream has nothing to say */
    text[n] = 0;
    const char *account = strstr(text, "account=u");
    uint32_t number = account ? (uint32_t)strtoul(account + 9, NULL, 10) : ACCOUNTS;
    if (number >= ACCOUNTS || send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0) {
        forget(fd);
        return;
    }
    owner[fd] = number;
    next_of[fd] = first[number];
    first[number] = fd;
    struct epoll_event event = {.events = EPOLLRDHUP, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

static void accept_all(int listener) {
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        owner[fd] = NOBODY;
        next_of[fd] = 0;
        watch(fd, EPOLLIN | EPOLLRDHUP);
        request(fd);
    }
}

static void deliver(const char *datagram, size_t length) {
    const char *uri = memmem(datagram, length, "/user/u", 7);
    const char *counters = memmem(datagram, length, "counters\":\"9 ", 13);
    if (!uri || !counters) return;
    uint32_t account = (uint32_t)strtoul(uri + 7, NULL, 10);
    unsigned long long all, mail, calendar, contacts;
    if (sscanf(counters + 13, "%llu %llu %llu %llu", &all, &mail, &calendar, &contacts) != 4) return;
    if (account >= ACCOUNTS || !first[account]) return;
    char out[256];
    int n = snprintf(out, sizeof out,
                     "event: push\nid: %llu\ndata: {\"mailModSeq\":%llu,\"calendarModSeq\":%llu,"
                     "\"contactsModSeq\":%llu}\n\n",
                     all, mail, calendar, contacts);
    for (int fd = first[account]; fd; fd = next_of[fd])
        (void)!send(fd, out, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void take_events(int intake) {
    static char datagram[65536];
    for (int i = 0; i < 32; i++) {
        ssize_t n = recv(intake, datagram, sizeof datagram - 1, MSG_DONTWAIT);
        if (n <= 0) return;
        datagram[n] = 0;
        deliver(datagram, (size_t)n);
    }
}

static int listen_on(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        die("listen: %m");
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 3) die("usage: limit PORT DATAGRAM-PATH");
    first = must(calloc(ACCOUNTS, sizeof *first));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on((uint16_t)atoi(argv[1]));
    int intake = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = unix_address(argv[2]);
    unlink(argv[2]);
    if (bind(intake, (struct sockaddr *)&address, sizeof address)) die("bind: %m");
    watch(listener, EPOLLIN);
    watch(intake, EPOLLIN);
    for (;;) {
        struct epoll_event ready[512];
        int n = epoll_wait(epoll, ready, 512, -1), accepts = 0;
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener)
                accepts = 1; /* last: a descriptor closed in this batch must not be reused in it */
            else if (fd == intake)
                take_events(fd);
            else if (ready[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                forget(fd);
            else
                request(fd);
        }
        if (accepts) accept_all(listener);
    }
}
