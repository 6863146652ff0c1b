/*
 * A tour of kevent(): a TCP echo, a timer, a user event and a growing file on one
 * kqueue. Every event is printed by name as it arrives. Run by `make demo`; ends by
 * itself in less than two seconds, with status 0 if everything came.
 *
 *	cc -o demo demo.c $(pkg-config --cflags --libs libkqueue)
 */
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* udata points to one of these: who an event is for, and what to do about it. */
struct source {
	const char *name;
	void (*handle)(const struct kevent *);
};

/* Idents of the program's choice; and when to give up, in ticks of TICK_MS. */
enum { TICK = 1, DOORBELL = 2, TICK_MS = 100, PATIENCE = 50 };

static int kq, listener, client, follow, append;
static int ticks, step;
static int echoed, grown, rung, ended;	/* what has been seen */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static const char *filter_name(int filter)
{
	switch (filter) {
	case EVFILT_READ: return "EVFILT_READ";
	case EVFILT_WRITE: return "EVFILT_WRITE";
	case EVFILT_TIMER: return "EVFILT_TIMER";
	case EVFILT_USER: return "EVFILT_USER";
	default: return "EVFILT_?";
	}
}

static void print_flags(unsigned flags)
{
	static const struct { unsigned bit; const char *name; } names[] = {
		{ EV_CLEAR, "EV_CLEAR" }, { EV_ONESHOT, "EV_ONESHOT" },
		{ EV_DISPATCH, "EV_DISPATCH" }, { EV_EOF, "EV_EOF" },
		{ EV_ERROR, "EV_ERROR" },
	};
	const char *bar = "";
	size_t i;

	for (i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (flags & names[i].bit) {
			printf("%s%s", bar, names[i].name);
			bar = "|";
		}
	}
	if (*bar == 0)
		printf("0");
}

static void print_event(const struct kevent *ev)
{
	const struct source *s = ev->udata;

	printf("    %-8s ident %-3lu %-12s flags ", s->name, (unsigned long)ev->ident,
	    filter_name(ev->filter));
	print_flags(ev->flags);
	printf(" fflags 0x%x data %ld\n", ev->fflags, (long)ev->data);
}

/* One change, now. */
static void change(uintptr_t ident, short filter, unsigned short flags, unsigned fflags, intptr_t data,
    const struct source *s)
{
	struct kevent ch;

	EV_SET(&ch, ident, filter, flags, fflags, data, (void *)s);
	if (kevent(kq, &ch, 1, NULL, 0, NULL) < 0)
		die("kevent");
}

/* `data` says how much to read, so one read of that size takes it all. */
static size_t read_ready(const struct kevent *ev, char *buf, size_t size)
{
	size_t want = ev->data > 0 ? (size_t)ev->data : 0;
	ssize_t n = read((int)ev->ident, buf, want < size ? want : size);

	if (n < 0)
		die("read");
	return (size_t)n;
}

static void on_server(const struct kevent *ev)
{
	char buf[256];
	size_t n = read_ready(ev, buf, sizeof buf);

	if (n > 0 && send((int)ev->ident, buf, n, MSG_NOSIGNAL) != (ssize_t)n)
		die("send");
	if (n == 0 && ev->flags & EV_EOF) {
		ended = 1;
		close((int)ev->ident);	/* its knote goes with it */
	}
}

static void on_client(const struct kevent *ev)
{
	char buf[256];
	size_t n = read_ready(ev, buf, sizeof buf);

	echoed = n == 5 && memcmp(buf, "hello", 5) == 0;
}

static void on_listener(const struct kevent *ev)
{
	static const struct source server = { "server", on_server };
	intptr_t left;

	for (left = ev->data; left > 0; left--) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			die("accept");
		change((uintptr_t)fd, EVFILT_READ, EV_ADD, 0, 0, &server);
	}
}

static void on_file(const struct kevent *ev)
{
	char buf[256];

	grown = read_ready(ev, buf, sizeof buf) == (size_t)ev->data;
}

static void on_doorbell(const struct kevent *ev)
{
	rung = ev->fflags == 0x5;
}

static void connect_client(void)
{
	static const struct source source = { "client", on_client };
	struct sockaddr_in a;
	socklen_t len = sizeof a;

	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client < 0 || getsockname(listener, (struct sockaddr *)&a, &len) != 0)
		die("socket");
	if (connect(client, (struct sockaddr *)&a, len) != 0)
		die("connect");
	change((uintptr_t)client, EVFILT_READ, EV_ADD, 0, 0, &source);
	if (send(client, "hello", 5, MSG_NOSIGNAL) != 5)
		die("send");
}

/* Each tick takes one more step, once the step before has shown its effect. */
static void on_tick(const struct kevent *ev)
{
	static const struct source doorbell = { "doorbell", on_doorbell };

	ticks += (int)ev->data;
	if (step == 0) {
		printf("  -> a client connects and says hello\n");
		connect_client();
		step = 1;
	} else if (step == 1 && echoed) {
		printf("  -> a line is appended to the file\n");
		if (write(append, "one more line\n", 14) != 14)
			die("write");
		step = 2;
	} else if (step == 2 && grown) {
		printf("  -> the user event is triggered\n");
		change(DOORBELL, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFOR | 0x5, 0, &doorbell);
		step = 3;
	} else if (step == 3 && rung) {
		printf("  -> the client hangs up\n");
		close(client);
		step = 4;
	}
}

static void open_listener(void)
{
	struct sockaddr_in a;

	memset(&a, 0, sizeof a);
	a.sin_family = AF_INET;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) != 0 ||
	    listen(listener, 16) != 0)
		die("listen");
}

/* Two open files on one file without a name: one to follow it, one to append to it. */
static void open_file(void)
{
	char path[64];

	snprintf(path, sizeof path, "/tmp/kqueue-demo.%ld", (long)getpid());
	append = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (append < 0)
		die(path);
	follow = open(path, O_RDONLY | O_CLOEXEC);
	if (follow < 0)
		die(path);
	unlink(path);
}

/* Four knotes in one call; EV_RECEIPT makes it answer for each, and wait for none. */
static void watch(void)
{
	static const struct source a = { "listener", on_listener }, b = { "file", on_file },
	    c = { "tick", on_tick }, d = { "doorbell", on_doorbell };
	struct kevent ch[4];
	int i, n;

	EV_SET(&ch[0], (uintptr_t)listener, EVFILT_READ, EV_ADD | EV_RECEIPT, 0, 0, (void *)&a);
	EV_SET(&ch[1], (uintptr_t)follow, EVFILT_READ, EV_ADD | EV_RECEIPT, 0, 0, (void *)&b);
	EV_SET(&ch[2], TICK, EVFILT_TIMER, EV_ADD | EV_RECEIPT, 0, TICK_MS, (void *)&c);
	EV_SET(&ch[3], DOORBELL, EVFILT_USER, EV_ADD | EV_CLEAR | EV_RECEIPT, 0, 0, (void *)&d);
	n = kevent(kq, ch, 4, ch, 4, NULL);
	printf("kevent() = %d: the receipts of four EV_ADD, data 0 is success\n", n);
	for (i = 0; i < n; i++)
		print_event(&ch[i]);
	for (i = 0; i < n; i++)
		if (ch[i].data != 0)
			exit(1);
	if (n != 4)
		die("kevent");
}

int main(void)
{
	static const struct timespec patience = { 5, 0 };
	struct kevent ev[8];
	int i, n;

	alarm(10);
	open_listener();
	open_file();
	kq = kqueue();
	if (kq < 0)
		die("kqueue");
	watch();
	while (!ended && ticks < PATIENCE) {
		n = kevent(kq, NULL, 0, ev, 8, &patience);
		if (n <= 0)
			die(n < 0 ? "kevent" : "nothing came: kevent");
		printf("kevent() = %d\n", n);
		for (i = 0; i < n; i++) {
			print_event(&ev[i]);
			((const struct source *)ev[i].udata)->handle(&ev[i]);
		}
	}
	close(kq);	/* frees all that is left on it */
	printf("echo %s, file %s, user event %s, end of connection %s\n",
	    echoed ? "seen" : "MISSING", grown ? "seen" : "MISSING",
	    rung ? "seen" : "MISSING", ended ? "seen" : "MISSING");
	return echoed && grown && rung && ended ? 0 : 1;
}
