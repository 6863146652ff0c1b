/*
 * An HTTP client that checks every byte.
 *
 *     http_check PORT PATH SIZE CONNECTIONS SECONDS keepalive|close
 *
 * CONNECTIONS connections to 127.0.0.1 ask for PATH again and again for SECONDS seconds. A
 * request is good when its answer has status 200, SIZE as Content-Length and a body that
 * repeats the alphabet. A connection that a server closes while it is idle, before any byte
 * of an answer, has cost no request: HTTP lets the server do so and has the client ask once
 * more on a new connection, which must then succeed. These are counted as `stale`, and only
 * a connection that has already carried an answer can be one.
 *
 * It stands on epoll, so that the library under test is on one side only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 4096, READ_MAX = 65536, EVENTS = 256, REASONS = 5, STALL = 10 };

struct conn {
    int fd;
    int answers;      /* carried by this connection so far */
    int sent;         /* the request is out */
    size_t head_len;
    int in_body;
    int closing;      /* the server said Connection: close */
    long body;        /* bytes of the body seen */
    double since;     /* when the request began */
    char head[HEAD_MAX];
};

static struct sockaddr_in server;
static char request[1024];
static long size;
static int keepalive, poller, live;
static double stop_at;
static long good, failed, stale, opened;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const struct conn *c, const char *why, int err)
{
    if (failed++ < REASONS)
        printf("failed: %s%s%s (answer %d of its connection, %zu head bytes, %ld body bytes)\n",
               why, err ? ": " : "", err ? strerror(err) : "", c->answers + 1, c->head_len,
               c->body);
}

static void begin_request(struct conn *c)
{
    c->sent = c->in_body = c->closing = 0;
    c->head_len = 0;
    c->body = 0;
    c->since = now();
}

static void drop(struct conn *c)
{
    close(c->fd);
    c->fd = -1;
    live--;
}

/* Opens the connection, unless the time is over. */
static void open_conn(struct conn *c)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                             .data.ptr = c};

    if (now() >= stop_at)
        return;
    begin_request(c);
    c->answers = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("socket");
        exit(2);
    }
    opened++;
    live++;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        fail(c, "connect", errno);
        drop(c);
    } else if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &ev) < 0) {
        perror("epoll_ctl");
        exit(2);
    }
}

static void reopen(struct conn *c)
{
    drop(c);
    open_conn(c);
}

/* The connection ended without a whole answer. */
static void broken(struct conn *c, const char *why, int err)
{
    if (c->answers > 0 && c->head_len == 0)
        stale++;
    else
        fail(c, why, err);
    reopen(c);
}

/* Status and length; -1 says why the head is no good. */
static int check_head(struct conn *c, const char **why)
{
    const char *length;

    *why = "status is not 200";
    if (strncmp(c->head, "HTTP/1.1 200 ", 13) != 0)
        return -1;
    length = strcasestr(c->head, "\r\nContent-Length:");
    *why = "wrong Content-Length";
    if (!length || strtol(length + 17, NULL, 10) != size)
        return -1;
    c->closing = strcasestr(c->head, "\r\nConnection: close") != NULL;
    return 0;
}

static int check_body(struct conn *c, const char *p, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++, c->body++)
        if (c->body >= size || p[i] != 'a' + c->body % 26)
            return -1;
    return 0;
}

/* Takes bytes of an answer: 1 when it is whole, 0 when more is due, -1 when it is bad. */
static int take(struct conn *c, const char *p, size_t n, const char **why)
{
    char *end;
    size_t head = 0;

    if (!c->in_body) {
        size_t old = c->head_len, room = HEAD_MAX - 1 - old;
        size_t part = n < room ? n : room;

        memcpy(c->head + old, p, part);
        c->head_len += part;
        c->head[c->head_len] = '\0';
        end = strstr(c->head, "\r\n\r\n");
        *why = "endless head";
        if (!end)
            return part < n ? -1 : 0;
        end[2] = '\0';
        head = (size_t)(end + 4 - c->head) - old;
        c->in_body = 1;
        if (check_head(c, why) < 0)
            return -1;
    }
    *why = "wrong body";
    if (check_body(c, p + head, n - head) < 0)
        return -1;
    return c->body == size;
}

static int send_request(struct conn *c)
{
    size_t len = strlen(request);

    while (!c->sent) {
        ssize_t n = send(c->fd, request, len, MSG_NOSIGNAL);

        if (n == (ssize_t)len) {
            c->sent = 1;
        } else if (n >= 0 || errno == EAGAIN || errno == EINPROGRESS || errno == ENOTCONN) {
            return 0; /* still connecting: a request fits any send buffer in one piece */
        } else if (errno == EPIPE || errno == ECONNRESET) {
            c->sent = 1; /* reading tells what the server did */
        } else {
            broken(c, "send", errno);
            return -1;
        }
    }
    return 0;
}

/* After a whole answer; 1 when the connection goes on. */
static int answered(struct conn *c)
{
    good++;
    c->answers++;
    if (now() >= stop_at) {
        drop(c);
        return 0;
    }
    if (!keepalive || c->closing) {
        reopen(c);
        return 0;
    }
    begin_request(c);
    return send_request(c) == 0 && c->sent;
}

static void serve(struct conn *c)
{
    static char buf[READ_MAX];
    const char *why;

    if (c->fd < 0 || send_request(c) < 0 || !c->sent)
        return;
    for (;;) {
        ssize_t n = recv(c->fd, buf, sizeof buf, 0);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            broken(c, n < 0 ? "recv" : "closed early", n < 0 ? errno : 0);
            return;
        }
        switch (take(c, buf, (size_t)n, &why)) {
        case 1:
            if (!answered(c))
                return;
            break;
        case -1:
            fail(c, why, 0);
            reopen(c);
            return;
        }
    }
}

/* Requests without an answer for so long have failed: nobody will wake them. */
static void find_stalled(struct conn *conns, int n)
{
    double t = now();
    int i;

    for (i = 0; i < n; i++)
        if (conns[i].fd >= 0 && t - conns[i].since > STALL) {
            fail(&conns[i], "no answer", 0);
            reopen(&conns[i]);
        }
}

static void run(struct conn *conns, int n)
{
    struct epoll_event events[EVENTS];
    double looked = now();
    int i, got;

    for (i = 0; i < n; i++)
        open_conn(&conns[i]);
    while (live > 0) {
        got = epoll_wait(poller, events, EVENTS, 500);
        for (i = 0; i < got; i++)
            serve(events[i].data.ptr);
        if (now() - looked > 1) {
            looked = now();
            find_stalled(conns, n);
        }
    }
}

int main(int argc, char **argv)
{
    struct conn *conns;
    double begin;
    int i, n;

    if (argc != 7) {
        fprintf(stderr, "usage: %s PORT PATH SIZE CONNECTIONS SECONDS keepalive|close\n", argv[0]);
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_port = htons((unsigned short)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    size = atol(argv[3]);
    n = atoi(argv[4]);
    keepalive = strcmp(argv[6], "keepalive") == 0;
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", argv[2],
             keepalive ? "" : "Connection: close\r\n");
    conns = calloc((size_t)n, sizeof *conns);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!conns || poller < 0) {
        perror("http_check");
        return 2;
    }
    for (i = 0; i < n; i++)
        conns[i].fd = -1;
    begin = now();
    stop_at = begin + atof(argv[5]);
    run(conns, n);
    printf("requests %ld failed %ld stale %ld connections %ld in %.1f s\n", good, failed, stale,
           opened, now() - begin);
    free(conns);
    return failed > 0 || good == 0;
}
