/*
 * What the engine checks share: sources of events of four kinds, threads that
 * sleep in kevent(), memory that faults, and CPU time.
 */
#ifndef ENGINE_UTIL_H
#define ENGINE_UTIL_H
#include "harness.h"
#include <limits.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define MAYBE_UNUSED __attribute__((unused))
#define UD(n) ((void *)(uintptr_t)(n))

/* Flags a program may see in an event; the rest are orders and never come back. */
enum { ORDERS = EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE | EV_RECEIPT };

/* --- sources ------------------------------------------------------------- */

enum kind { PIPE, SOCKET, USER, TIMER };

/* One thing to watch. A timer's period is long enough to stay quiet unless hasty. */
struct source {
	enum kind kind;
	int fd, peer;
	uintptr_t ident;
	int filter;
	intptr_t period; /* ms */
	long long armed; /* ns */
};

MAYBE_UNUSED
static struct source source_open(enum kind kind)
{
	struct source s;
	int p[2];
	memset(&s, 0, sizeof s);
	s.kind = kind;
	s.fd = s.peer = -1;
	s.ident = 77;
	s.period = 1;
	if (kind == PIPE)
		OK(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	if (kind == SOCKET)
		OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p) == 0);
	if (kind == PIPE || kind == SOCKET) {
		s.fd = p[0];
		s.peer = p[1];
		s.ident = (uintptr_t)p[0];
	}
	s.filter = kind == USER ? EVFILT_USER : kind == TIMER ? EVFILT_TIMER : EVFILT_READ;
	return s;
}

MAYBE_UNUSED
static void source_close(struct source *s)
{
	if (s->fd >= 0) {
		OK(close(s->fd) == 0);
		OK(close(s->peer) == 0);
	}
}

/* The change that applies these flags to the source's knote. */
MAYBE_UNUSED
static struct kevent source_change(struct source *s, int flags, void *udata)
{
	struct kevent kev;
	if (flags & EV_ADD)
		s->armed = now_ns();
	EV_SET(&kev, s->ident, s->filter, flags, 0, s->kind == TIMER ? s->period : 0, udata);
	return kev;
}

MAYBE_UNUSED
static int apply(int kq, struct source *s, int flags, void *udata)
{
	struct kevent kev = source_change(s, flags, udata);
	return kevent(kq, &kev, 1, NULL, 0, NULL);
}

/* Makes the source's condition hold; its knote, if any, keeps its udata. */
MAYBE_UNUSED
static void source_fire(int kq, struct source *s)
{
	if (s->fd >= 0)
		OK(write(s->peer, "x", 1) == 1);
	else if (s->kind == USER)
		OK(change(kq, s->ident, EVFILT_USER, EV_KEEPUDATA, NOTE_TRIGGER, 0, NULL) == 0);
	else {
		long long from = now_ns();
		UNTIL(now_ns() > s->armed + 2000000 * (long long)s->period && now_ns() > from + 2000000);
	}
}

/* One check for each kind of source: OVER_ALL(name) { ... k ... }, listed with ALL(name). */
#define OVER_ALL(name) static void name(enum kind k); \
	CHECK(name##_pipe) { name(PIPE); } \
	CHECK(name##_socket) { name(SOCKET); } \
	CHECK(name##_user) { name(USER); } \
	CHECK(name##_timer) { name(TIMER); } \
	static void name(enum kind k)
#define ALL(name) C(name##_pipe) C(name##_socket) C(name##_user) C(name##_timer)
#define OVER_FDS(name) static void name(enum kind k); \
	CHECK(name##_pipe) { name(PIPE); } \
	CHECK(name##_socket) { name(SOCKET); } \
	static void name(enum kind k)
#define FDS(name) C(name##_pipe) C(name##_socket)

MAYBE_UNUSED
static int new_kqueue(void)
{
	int kq = kqueue();
	OK(kq >= 0);
	return kq;
}

MAYBE_UNUSED
static void pipe_open(int p[2])
{
	OK(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
}

MAYBE_UNUSED
static void pipe_close(int p[2])
{
	OK(close(p[0]) == 0);
	OK(close(p[1]) == 0);
}

MAYBE_UNUSED
static void put(int fd)
{
	OK(write(fd, "x", 1) == 1);
}

/* Reads all there is. */
MAYBE_UNUSED
static void drain(int fd)
{
	char text[256];
	while (read(fd, text, sizeof text) > 0)
		;
}

MAYBE_UNUSED
static int add_user(int kq, uintptr_t ident, int flags)
{
	return change(kq, ident, EVFILT_USER, EV_ADD | flags, 0, 0, NULL);
}

/* One call that holds the kqueue's lock for a while and, where the event is there, allocates nothing. */
MAYBE_UNUSED
static int disable_user_many_times(int kq, uintptr_t ident)
{
	struct kevent ch[64];
	int i;
	for (i = 0; i < 64; i++)
		EV_SET(&ch[i], ident, EVFILT_USER, EV_ADD | EV_DISABLE, 0, 0, NULL);
	return kevent(kq, ch, 64, NULL, 0, NULL);
}

MAYBE_UNUSED
static int trigger(int kq, uintptr_t ident)
{
	return change(kq, ident, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
}

/* --- threads ------------------------------------------------------------- */

/* A thread that makes one kevent() call with room for one event. */
struct sleeper {
	pthread_t thread;
	int kq;
	long ms; /* negative: for ever */
	int tid, done;
	int n, err;
	struct kevent ev;
	long long took; /* ns */
};

MAYBE_UNUSED
static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	long long start = now_ns();
	__atomic_store_n(&s->tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	s->n = collect(s->kq, &s->ev, 1, s->ms);
	s->err = errno;
	s->took = now_ns() - start;
	__atomic_store_n(&s->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

MAYBE_UNUSED
static int is_done(struct sleeper *s)
{
	return __atomic_load_n(&s->done, __ATOMIC_SEQ_CST);
}

MAYBE_UNUSED
static int sleeps(struct sleeper *s)
{
	return state_of(__atomic_load_n(&s->tid, __ATOMIC_SEQ_CST)) == 'S';
}

/* Starts the thread and returns once it sleeps. */
MAYBE_UNUSED
static void sleeper_start(struct sleeper *s, int kq, long ms)
{
	memset(s, 0, sizeof *s);
	s->kq = kq;
	s->ms = ms;
	OK(pthread_create(&s->thread, NULL, sleeper_main, s) == 0);
	UNTIL(is_done(s) || sleeps(s));
}

MAYBE_UNUSED
static void sleeper_join(struct sleeper *s)
{
	OK(pthread_join(s->thread, NULL) == 0);
}

/* --- memory that faults, CPU time ---------------------------------------- */

/* Room for n structs that ends where an inaccessible page begins. */
struct guard {
	char *base;
	size_t size;
	struct kevent *ev;
};

MAYBE_UNUSED
static struct guard guard_open(int n)
{
	struct guard g;
	size_t page = (size_t)sysconf(_SC_PAGESIZE), need = (size_t)n * sizeof(struct kevent);
	size_t room = (need + page - 1) / page * page;
	g.size = room + page;
	g.base = mmap(NULL, g.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	OK(g.base != MAP_FAILED);
	OK(mprotect(g.base + room, page, PROT_NONE) == 0);
	g.ev = (struct kevent *)(void *)(g.base + room - need);
	return g;
}

MAYBE_UNUSED
static void guard_close(struct guard *g)
{
	OK(munmap(g->base, g->size) == 0);
}

/* The statement, which sleeps for some 50 ms, must not spend them computing. */
#define IDLE(statement) do { long long cpu_ = cpu_ns(); statement; cpu_ = cpu_ns() - cpu_; \
	if (cpu_ > 25000000) FAIL("%s:%d: %lld us of CPU", __FILE__, __LINE__, cpu_ / 1000); } while (0)

MAYBE_UNUSED
static void pause_ms(long ms)
{
	struct timespec ts;
	ts.tv_sec = ms / 1000;
	ts.tv_nsec = ms % 1000 * 1000000;
	while (nanosleep(&ts, &ts) != 0)
		;
}
#endif
