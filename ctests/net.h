/*
 * What the checks of descriptors share: pairs of sockets, moving bytes, waiting for the
 * kernel's side to settle, and what an event must look like.
 */
#ifndef NET_H
#define NET_H
#include "harness.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <linux/sockios.h>

#define UNUSED __attribute__((unused))

/* A new knote; must be taken. */
#define ADD(kq, fd, filter, flags) OK(change(kq, (uintptr_t)(fd), filter, EV_ADD | (flags), 0, 0, NULL) == 0)
/* The next call gives exactly one event, of this descriptor and filter; returned. */
#define EVENT(kq, fd, filter) net_event(kq, fd, filter, __LINE__)
/* Nothing comes for a while, and waiting for it uses next to no CPU. */
#define QUIET(kq) net_quiet(kq, __LINE__)
/* Waits until poll() shows one of these bits; consumes nothing. */
#define SETTLE(fd, bits) net_settle(fd, bits, __LINE__)

UNUSED static struct kevent net_event(int kq, int fd, int filter, int line)
{
	struct kevent ev = harness_one(kq, line);
	if (ev.ident != (uintptr_t)fd || ev.filter != filter)
		FAIL("line %d: ident %ld filter %d flags 0x%x, not ident %d filter %d", line,
		     (long)ev.ident, ev.filter, ev.flags, fd, filter);
	if (ev.flags & EV_ERROR)
		FAIL("line %d: an error event, data %ld", line, (long)ev.data);
	return ev;
}

UNUSED static void net_quiet(int kq, int line)
{
	struct kevent ev;
	long long cpu = 0;
	int tries, n;
	/* Something that spins does so each time; a first call under valgrind does not. */
	for (tries = 0; tries < 3; tries++) {
		cpu = cpu_ns();
		n = collect(kq, &ev, 1, 40);
		cpu = cpu_ns() - cpu;
		if (n != 0)
			FAIL("line %d: %d events, none expected (ident %ld filter %d flags 0x%x fflags 0x%x data %ld errno %d)", line, n,
			     n > 0 ? (long)ev.ident : 0, n > 0 ? ev.filter : 0, n > 0 ? ev.flags : 0,
			     n > 0 ? ev.fflags : 0, n > 0 ? (long)ev.data : 0, errno);
		if (cpu < 12000000)
			return;
	}
#ifdef __SANITIZE_THREAD__
	return; /* It has a busy thread of its own. */
#endif
	FAIL("line %d: %lld us of CPU in 40 ms of waiting", line, cpu / 1000);
}

UNUSED static void net_settle(int fd, short bits, int line)
{
	struct pollfd p = {.fd = fd, .events = bits};
	int n = poll(&p, 1, 10000);
	if (n != 1 || !(p.revents & bits))
		FAIL("line %d: poll gave %d, 0x%x, not 0x%x", line, n, (unsigned)p.revents, (unsigned)bits);
}

/* What poll() says of the descriptor at this moment. */
UNUSED static int polled(int fd, short bits)
{
	struct pollfd p = {.fd = fd, .events = bits};
	return poll(&p, 1, 0) == 1 ? p.revents & bits : 0;
}

UNUSED static void nonblock(int fd)
{
	OK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

UNUSED static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;
	OK(getsockopt(fd, level, name, &value, &len) == 0);
	return value;
}

UNUSED static void set_option(int fd, int level, int name, int value)
{
	OK(setsockopt(fd, level, name, &value, sizeof value) == 0);
}

/* Bytes a read would find. */
UNUSED static int unread(int fd)
{
	int n = -1;
	OK(ioctl(fd, FIONREAD, &n) == 0);
	return n;
}

/* Bytes written that the other side has not taken. */
UNUSED static int unsent(int fd)
{
	int n = -1;
	OK(ioctl(fd, SIOCOUTQ, &n) == 0);
	return n;
}

UNUSED static void put(int fd, int n)
{
	static const char zeros[65536];
	OK(n <= (int)sizeof zeros);
	EQ(write(fd, zeros, (size_t)n), n);
}

/* Reads exactly n bytes. */
UNUSED static void get(int fd, int n)
{
	char buf[65536];
	while (n > 0) {
		ssize_t got = read(fd, buf, n < (int)sizeof buf ? (size_t)n : sizeof buf);
		OK(got > 0);
		n -= (int)got;
	}
}

/* Sends n bytes and waits until the other end has all of them to read. */
UNUSED static void pass(int from, int to, int n)
{
	int before = unread(to);
	put(from, n);
	UNTIL(unread(to) == before + n);
}

/* Writes until no more is taken for good; the bytes written. */
UNUSED static long fill(int fd)
{
	static const char zeros[1024];
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int flags = fcntl(fd, F_GETFL);
	long sum = 0;
	nonblock(fd);
	do {
		ssize_t n;
		while ((n = write(fd, zeros, sizeof zeros)) > 0)
			sum += n;
		OK(n == -1 && errno == EAGAIN);
		/* Another side may still be moving bytes onwards. */
	} while (poll(&p, 1, 20) > 0);
	OK(fcntl(fd, F_SETFL, flags) == 0);
	return sum;
}

/* Reads n bytes, which may still be on their way, whatever the blocking mode. */
UNUSED static void drain(int fd, long n)
{
	char buf[65536];
	while (n > 0) {
		ssize_t got;
		SETTLE(fd, POLLIN);
		got = read(fd, buf, n < (long)sizeof buf ? (size_t)n : sizeof buf);
		OK(got > 0);
		n -= got;
	}
}

/* A loopback socket nobody listens on: connects to it are refused, and no one else gets it.
 * rcvbuf 0 leaves the default. */
UNUSED static int tcp_bound(struct sockaddr_in *at, int rcvbuf)
{
	socklen_t len = sizeof *at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OK(fd >= 0);
	memset(at, 0, sizeof *at);
	at->sin_family = AF_INET;
	at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (rcvbuf)
		set_option(fd, SOL_SOCKET, SO_RCVBUF, rcvbuf);
	OK(bind(fd, (struct sockaddr *)at, len) == 0);
	OK(getsockname(fd, (struct sockaddr *)at, &len) == 0);
	return fd;
}

/* A loopback listener. */
UNUSED static int tcp_listener(struct sockaddr_in *at, int backlog, int rcvbuf)
{
	int fd = tcp_bound(at, rcvbuf);
	OK(listen(fd, backlog) == 0);
	return fd;
}

UNUSED static int tcp_connect(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OK(fd >= 0);
	OK(connect(fd, (const struct sockaddr *)to, sizeof *to) == 0);
	return fd;
}

/* s[0] connected to s[1]; small buffers from s[0] to s[1] if asked for. */
UNUSED static void tcp_pair_sized(int s[2], int sndbuf, int rcvbuf)
{
	struct sockaddr_in at;
	int l = tcp_listener(&at, 5, rcvbuf);
	s[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OK(s[0] >= 0);
	if (sndbuf)
		set_option(s[0], SOL_SOCKET, SO_SNDBUF, sndbuf);
	OK(connect(s[0], (struct sockaddr *)&at, sizeof at) == 0);
	s[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	OK(s[1] >= 0);
	set_option(s[0], IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(s[1], IPPROTO_TCP, TCP_NODELAY, 1);
	close(l);
}

UNUSED static void tcp_pair(int s[2])
{
	tcp_pair_sized(s, 0, 0);
}

UNUSED static void unix_pair(int s[2], int type)
{
	OK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, s) == 0);
}

UNUSED static void pipe_pair(int p[2])
{
	OK(pipe2(p, O_CLOEXEC) == 0);
}

/* Closes with a reset instead of an orderly end. */
UNUSED static void tcp_reset(int fd)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	OK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
	OK(close(fd) == 0);
}

UNUSED static void close_pair(const int s[2])
{
	close(s[0]);
	close(s[1]);
}

/* A file of its own, open for both and positioned at 0; its name goes to path[SCRATCH]. */
UNUSED static int make_file(char *path, int size)
{
	int fd = scratch_file(path);
	OK(ftruncate(fd, size) == 0);
	return fd;
}

/* A file that has lost its name already. */
UNUSED static int bare_file(int size)
{
	int fd = nameless_file();
	OK(ftruncate(fd, size) == 0);
	return fd;
}

UNUSED static int new_kqueue(void)
{
	int kq = kqueue();
	OK(kq >= 0);
	return kq;
}

/* Higher than anything a check opens by itself. */
enum { NUMBER = 100 };

/* The file stands behind NUMBER too. */
UNUSED static void also_number(int fd)
{
	EQ(dup3(fd, NUMBER, O_CLOEXEC), NUMBER);
}

/* The file stands behind NUMBER only. */
UNUSED static void becomes_number(int fd)
{
	also_number(fd);
	OK(close(fd) == 0);
}

/* Closes a watched pipe's end, which lives on under the number returned, and has it become
 * ready: epoll reports the file of a closed number. */
UNUSED static int make_orphan(int kq, int p[2])
{
	int other;
	pipe_pair(p);
	ADD(kq, p[0], EVFILT_READ, 0);
	OK((other = fcntl(p[0], F_DUPFD_CLOEXEC, 0)) >= 0);
	OK(close(p[0]) == 0);
	put(p[1], 1);
	return other;
}
#endif
