/* What the bench programs share: clock, random numbers, histogram, the event as a mail server sends it. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define SECOND 1000000000LL
#define EVENT_MAX 2048

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static inline double cpu_seconds(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static inline void *must(void *memory) {
    if (!memory) die("out of memory");
    return memory;
}

/* The same sequence in every run, so that runs can be compared. */
static inline uint32_t next_random(void) {
    static uint64_t state = 0x9e3779b97f4a7c15ULL;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static inline struct sockaddr_un unix_address(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) die("socket path too long: %s", path);
    strcpy(address.sun_path, path);
    return address;
}

/* Histogram with 64 buckets per doubling: 1.6 % resolution over the whole range of nanoseconds. */
struct histogram {
    uint64_t bucket[60 * 64];
    uint64_t count;
    uint64_t max;
};

static inline void record(struct histogram *h, int64_t ns) {
    uint64_t v = ns < 0 ? 0 : (uint64_t)ns;
    int e = v < 64 ? 0 : 63 - __builtin_clzll(v) - 5;
    size_t i = e == 0 ? v : (size_t)e * 64 + ((v >> (e - 1)) & 63);
    h->bucket[i]++;
    h->count++;
    if (v > h->max) h->max = v;
}

/* Microseconds below which `part` (0 to 1) of the values lie. */
static inline double quantile_us(const struct histogram *h, double part) {
    uint64_t want = (uint64_t)(part * (double)h->count);
    uint64_t seen = 0;
    for (size_t i = 0; i < sizeof h->bucket / sizeof *h->bucket; i++) {
        seen += h->bucket[i];
        if (seen > want) {
            size_t e = i / 64;
            double low = e == 0 ? (double)i : (double)((64 + i % 64) << (e - 1));
            double width = e == 0 ? 1.0 : (double)(1ULL << (e - 1));
            double middle = low + width / 2;
            return (middle > (double)h->max ? (double)h->max : middle) / 1000;
        }
    }
    return (double)h->max / 1000;
}

/* JSON of one MailboxModseq event, shaped like Cyrus' (about 950 bytes). Returns its length. */
static inline int event_json(char *out, size_t size, uint32_t account, uint64_t number) {
    int n = snprintf(
        out, size,
        "{\"event\":\"MailboxModseq\",\"timestamp\":\"2026-11-21T01:42:18.379Z\","
        "\"service\":\"lmtp\",\"mailboxID\":\"bxzlzuutdpylma8rczx%06u\","
        "\"uri\":\"imap://mail.example.org/user/u%06u;UIDVALIDITY=1795224916\","
        "\"pid\":5898,\"user\":\"\",\"vnd.cmu.mbtype\":\"e\",\"serverFQDN\":\"mail.example.org\","
        "\"vnd.cmu.mailboxACL\":\"u%06u\\tlrswipkxtecdan\\t\","
        "\"vnd.cmu.sessionId\":\"mail.example.org-1795225338-5898-1-164393999279834189\","
        "\"vnd.fastmail.clientId\":\"\","
        "\"vnd.fastmail.sessionId\":\"mail.example.org-1795225338-5898-1-164393999279834189\","
        "\"vnd.fastmail.convExists\":3,\"vnd.fastmail.convUnseen\":3,"
        "\"vnd.fastmail.counters\":\"9 %llu %llu 1 1 0 1 0 0 0 0 0 1795224916\","
        "\"vnd.fastmail.jmapStates\":{\"Mailbox\":\"1\",\"Email\":\"%llu\","
        "\"EmailSubmission\":\"0\",\"Calendar\":\"0\",\"CalendarEvent\":\"1\",\"Contact\":\"1\","
        "\"ContactGroup\":\"1\",\"Note\":\"0\",\"SieveScript\":\"0\",\"Quota\":\"0\","
        "\"Racl\":\"0\"}}",
        account, account, account, (unsigned long long)number, (unsigned long long)number,
        (unsigned long long)number);
    if (n < 0 || (size_t)n >= size) die("event does not fit");
    return n;
}

/* The datagram: METHOD CLASS PRIORITY USER MAILBOX NOPT MESSAGE, each ended by a NUL. */
static inline size_t event_datagram(char out[EVENT_MAX], uint32_t account, uint64_t number) {
    static const char head[] = "pusher\0EVENT\0\0\0\0" "0";
    memcpy(out, head, sizeof head);
    int n = event_json(out + sizeof head, EVENT_MAX - sizeof head, account, number);
    return sizeof head + (size_t)n + 1;
}

/* The request of the stream transport: one per connection, answered by "OK ()". */
static inline size_t event_dlist(char out[EVENT_MAX], uint32_t account, uint64_t number) {
    char json[EVENT_MAX - 256];
    int length = event_json(json, sizeof json, account, number);
    int n = snprintf(out, EVENT_MAX,
                     "NOTIFY %%(METHOD pusher CLASS EVENT PRIORITY NIL USER NIL MAILBOX NIL "
                     "OPTIONS () MESSAGE {%d+}\r\n%s FILEPATH NIL)\r\n",
                     length, json);
    if (n < 0 || n >= EVENT_MAX) die("request does not fit");
    return (size_t)n;
}

#endif
