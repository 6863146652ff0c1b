/*
 * An echo server for thousands of connections: one thread, one kqueue.
 *
 *	cc -o echo echo.c $(pkg-config --cflags --libs libkqueue)
 *	./echo [port]
 *
 * How it treats a client that sends but does not read: what could not be sent back
 * is kept, EVFILT_READ is disabled and EVFILT_WRITE enabled, and the other way round
 * once everything is out. So a connection holds at most one buffer, and one that
 * keeps up holds none. Only one of its two knotes is ever enabled.
 */
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/event.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	EVENTS = 256,		/* taken in one call */
	ACCEPTS = 256,		/* new connections in one round */
	/* Two for each event, one for each new connection, two for the listener. */
	CHANGES = 2 * EVENTS + ACCEPTS + 2,
	CHUNK = 64 * 1024,
	PAUSE_MS = 100		/* of the listener when descriptors run out */
};

struct conn {
	int fd;			/* -1: closed in this round */
	char *unsent;		/* what the client has not taken yet, or NULL */
	size_t len, off;
	struct conn *next_dead;
};

static struct kevent changes[CHANGES];	/* made by the next kevent() */
static int nchanges;
static struct conn *dead;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/*
 * udata is given every time: each change stores it anew.
 */
static void change(int ident, short filter, unsigned short flags, intptr_t data, struct conn *c)
{
	EV_SET(&changes[nchanges], (uintptr_t)ident, filter, flags, 0, data, c);
	nchanges++;
}

/*
 * close() removes the knotes. The memory has to last until the round is over, because
 * a later event of the same round may still point to it.
 */
static void drop(struct conn *c)
{
	close(c->fd);
	c->fd = -1;
	c->next_dead = dead;
	dead = c;
}

static void bury(void)
{
	while (dead != NULL) {
		struct conn *c = dead;
		dead = c->next_dead;
		free(c->unsent);
		free(c);
	}
}

/* Sends what it can: the number of bytes sent, or -1 if the connection is dead. */
static ssize_t send_some(int fd, const char *buf, size_t len)
{
	ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n;
}

/* The client lags behind: keep the rest and wait for room instead of data. */
static void hold(struct conn *c, const char *rest, size_t len)
{
	c->unsent = malloc(len);
	if (c->unsent == NULL) {
		drop(c);
		return;
	}
	memcpy(c->unsent, rest, len);
	c->len = len;
	c->off = 0;
	change(c->fd, EVFILT_READ, EV_DISABLE, 0, c);
	change(c->fd, EVFILT_WRITE, EV_ADD | EV_ENABLE, 0, c);
}

static void on_readable(struct conn *c)
{
	static char buf[CHUNK];
	ssize_t n = read(c->fd, buf, sizeof buf), sent;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		/* 0 comes only after everything before the end has been read. */
		drop(c);
		return;
	}
	sent = send_some(c->fd, buf, (size_t)n);
	if (sent < 0)
		drop(c);
	else if (sent < n)
		hold(c, buf + sent, (size_t)(n - sent));
}

static void on_writable(struct conn *c)
{
	ssize_t n = send_some(c->fd, c->unsent + c->off, c->len - c->off);

	if (n < 0) {
		drop(c);
		return;
	}
	c->off += (size_t)n;
	if (c->off < c->len)
		return;
	free(c->unsent);
	c->unsent = NULL;
	change(c->fd, EVFILT_WRITE, EV_DISABLE, 0, c);
	change(c->fd, EVFILT_READ, EV_ENABLE, 0, c);
}

/*
 * `waiting` is the event's data: so many connections can be accepted without a failing
 * call at the end. Those beyond ACCEPTS come with the next round: the knote is level.
 */
static void on_listener(int listener, intptr_t waiting)
{
	int i;

	for (i = 0; i < waiting && i < ACCEPTS; i++) {
		struct conn *c;
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
			/* Level-triggered, it would be reported at once, for ever. */
			change(listener, EVFILT_READ, EV_DISABLE, 0, NULL);
			change(listener, EVFILT_TIMER, EV_ADD | EV_ONESHOT, PAUSE_MS, NULL);
			return;
		}
		if (fd < 0)
			continue;	/* the client has left meanwhile */
		c = calloc(1, sizeof *c);
		if (c == NULL) {
			close(fd);
			return;
		}
		c->fd = fd;
		change(fd, EVFILT_READ, EV_ADD, 0, c);
	}
}

static void on_event(int listener, const struct kevent *ev)
{
	struct conn *c = ev->udata;

	if (c == NULL && ev->flags & EV_ERROR) {
		errno = (int)ev->data;
		die("listener");
	} else if (c == NULL && ev->filter == EVFILT_TIMER) {
		change(listener, EVFILT_READ, EV_ENABLE, 0, NULL);
	} else if (c == NULL) {
		on_listener(listener, ev->data);
	} else if (c->fd < 0) {
		return;			/* dropped earlier in this round */
	} else if (ev->flags & EV_ERROR) {
		drop(c);		/* a change of ours failed: no memory for a knote */
	} else if (ev->filter == EVFILT_READ) {
		on_readable(c);
	} else {
		on_writable(c);
	}
}

static int listen_on(unsigned short port)
{
	struct sockaddr_in a;
	socklen_t len = sizeof a;
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	memset(&a, 0, sizeof a);
	a.sin_family = AF_INET;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.sin_port = htons(port);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 4096) != 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) != 0)
		die("listen");
	printf("echo: listening on 127.0.0.1 port %d\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

int main(int argc, char **argv)
{
	static struct kevent events[EVENTS];
	struct rlimit files;
	int kq, listener, i, n;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	listener = listen_on((unsigned short)(argc > 1 ? atoi(argv[1]) : 7007));
	kq = kqueue();
	if (kq < 0)
		die("kqueue");
	change(listener, EVFILT_READ, EV_ADD, 0, NULL);
	for (;;) {
		n = kevent(kq, changes, nchanges, events, EVENTS, NULL);
		if (n < 0 && errno != EINTR)
			die("kevent");
		nchanges = 0;	/* made, also when the wait was interrupted */
		for (i = 0; i < n; i++)
			on_event(listener, &events[i]);
		bury();
	}
}
