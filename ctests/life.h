/* What the checks of a kqueue's life share: user events, sleepers, and a kqueue that is whole. */
#ifndef LIFE_H
#define LIFE_H
#include "engine_util.h"

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
#endif
