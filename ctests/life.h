/* What the checks of a kqueue's life share: user events, sleepers, and a kqueue that is whole. */
#ifndef LIFE_H
#define LIFE_H
#include "engine_util.h"
#include <sys/syscall.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

#define USER_ADD(kq, id) EQ(add_user(kq, id, EV_CLEAR), 0)

MAYBE_UNUSED
static void ended_with_EBADF(struct sleeper *s)
{
	sleeper_join(s);
	EQ(s->n, -1);
	EQ(s->err, EBADF);
}

/* The kqueue does everything it should. */
MAYBE_UNUSED
static void is_whole(int kq)
{
	struct pollfd p = { kq, POLLIN, 0 };
	struct sleeper s;
	int ends[2];
	pipe_open(ends);
	OK(add_user(kq, 900, EV_CLEAR) == 0);
	OK(trigger(kq, 900) == 0);
	EQ(ONE(kq).ident, 900);
	NONE(kq);
	EQ(poll(&p, 1, 0), 0);
	OK(trigger(kq, 900) == 0);
	EQ(poll(&p, 1, 10000), 1);
	EQ(ONE(kq).ident, 900);
	NONE(kq);
	OK(change(kq, (uintptr_t)ends[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	NONE(kq);
	EQ(poll(&p, 1, 0), 0);
	put(ends[1]);
	EQ(poll(&p, 1, 10000), 1);
	EQ(ONE(kq).ident, ends[0]);
	OK(change(kq, (uintptr_t)ends[0], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	sleeper_start(&s, kq, -1);
	OK(trigger(kq, 900) == 0);
	sleeper_join(&s);
	EQ(s.n, 1);
	OK(change(kq, 900, EVFILT_USER, EV_DELETE, 0, 0, NULL) == 0);
	pipe_close(ends);
}

/* Whoever is to be interrupted, once it sleeps. */
struct target { pthread_t thread; int tid; };

/* Whether it sleeps in the wait itself: it may be a lock that it sleeps for. Where the kernel
   does not tell, asleep must do. */
MAYBE_UNUSED
static int waits(int *tid)
{
	int id = __atomic_load_n(tid, __ATOMIC_SEQ_CST), got;
	char path[64];
	long call;
	FILE *f;
	if (state_of(id) != 'S')
		return 0;
	snprintf(path, sizeof path, "/proc/self/task/%d/syscall", id);
	if ((f = fopen(path, "re")) == NULL)
		return 1;
	got = fscanf(f, "%ld", &call);
	fclose(f);
	return got == EOF || (got == 1 && (call == SYS_epoll_pwait2 || call == SYS_epoll_pwait));
}
#endif
