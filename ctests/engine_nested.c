/* A kqueue watched by another. */
#include "engine_util.h"

enum { DEPTH = 4 };

static int watch_flags(int outer, int inner, int flags)
{
	return change(outer, (uintptr_t)inner, EVFILT_READ, EV_ADD | flags, 0, 0, UD(inner));
}

/* One inner kqueue under an outer one. */
struct pair { int outer, inner; };

static struct pair pair_open(int flags)
{
	struct pair p;
	p.inner = new_kqueue();
	p.outer = new_kqueue();
	OK(watch_flags(p.outer, p.inner, flags) == 0);
	return p;
}

static void pair_close(struct pair *p)
{
	OK(close(p->outer) == 0);
	OK(close(p->inner) == 0);
}

static void is_inner(struct kevent e, int inner)
{
	EQ(e.ident, inner);
	EQ(e.filter, EVFILT_READ);
	EQ((uintptr_t)e.udata, inner);
	OK(!(e.flags & (EV_EOF | EV_ERROR)));
}

OVER_ALL(the_outer_sees_the_event_of_a)
{
	struct source s = source_open(k);
	struct pair p = pair_open(0);
	struct kevent e;
	OK(apply(p.inner, &s, EV_ADD | EV_DISPATCH | EV_DISABLE, NULL) == 0);
	source_fire(p.inner, &s);
	NONE(p.outer);
	OK(apply(p.inner, &s, EV_ENABLE, NULL) == 0);
	e = ONE(p.outer);
	is_inner(e, p.inner);
	EQ(e.data, 1);
	/* Still pending: level. */
	is_inner(ONE(p.outer), p.inner);
	EQ(ONE(p.inner).ident, s.ident);
	NONE(p.outer);
	pair_close(&p);
	source_close(&s);
}

CHECK(the_outer_sees_what_was_pending_before_it_looked)
{
	int outer = new_kqueue(), inner = new_kqueue();
	OK(change(inner, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	OK(watch_flags(outer, inner, 0) == 0);
	is_inner(ONE(outer), inner);
	OK(close(outer) == 0 && close(inner) == 0);
}

CHECK(data_is_the_number_of_pending_user_events)
{
	struct pair p = pair_open(0);
	int i;
	for (i = 1; i <= 5; i++) {
		OK(change(p.inner, (uintptr_t)i, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, NULL) == 0);
		EQ(ONE(p.outer).data, i);
	}
	for (i = 4; i >= 1; i--) {
		struct kevent ev;
		EQ(collect(p.inner, &ev, 1, 0), 1);
		EQ(ONE(p.outer).data, i);
	}
	pair_close(&p);
}

CHECK(data_is_the_number_of_pending_descriptor_events)
{
	struct pair p = pair_open(0);
	int i, fd[3][2];
	for (i = 0; i < 3; i++) {
		pipe_open(fd[i]);
		OK(change(p.inner, (uintptr_t)fd[i][0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	}
	for (i = 0; i < 3; i++) {
		put(fd[i][1]);
		EQ(ONE(p.outer).data, i + 1);
	}
	pair_close(&p);
	for (i = 0; i < 3; i++)
		pipe_close(fd[i]);
}

CHECK(counting_what_is_pending_consumes_nothing)
{
	struct source s = source_open(PIPE);
	struct pair p = pair_open(0);
	int i;
	OK(apply(p.inner, &s, EV_ADD | EV_ONESHOT, NULL) == 0);
	put(s.peer);
	for (i = 0; i < 5; i++)
		is_inner(ONE(p.outer), p.inner);
	EQ(ONE(p.inner).ident, s.ident);
	NONE(p.outer);
	pair_close(&p);
	source_close(&s);
}

OVER_FDS(a_cleared_inner_is_reported_once_for_each_activity_of_a)
{
	struct source s = source_open(k);
	struct pair p = pair_open(EV_CLEAR);
	int i;
	OK(apply(p.inner, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	for (i = 0; i < 5; i++) {
		put(s.peer);
		is_inner(ONE(p.outer), p.inner);
		NONE(p.outer);
		ONE(p.inner);
		NONE(p.outer);
	}
	pair_close(&p);
	source_close(&s);
}

CHECK(a_cleared_inner_is_reported_once_for_each_trigger)
{
	struct pair p = pair_open(EV_CLEAR);
	int i;
	OK(add_user(p.inner, 1, EV_CLEAR) == 0);
	for (i = 0; i < 5; i++) {
		OK(trigger(p.inner, 1) == 0);
		is_inner(ONE(p.outer), p.inner);
		NONE(p.outer);
		ONE(p.inner);
		NONE(p.outer);
	}
	pair_close(&p);
}

CHECK(a_oneshot_watch_of_an_inner_reports_once)
{
	struct pair p = pair_open(EV_ONESHOT);
	OK(change(p.inner, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	is_inner(ONE(p.outer), p.inner);
	NONE(p.outer);
	FAILS(change(p.outer, (uintptr_t)p.inner, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	pair_close(&p);
}

OVER_ALL(a_disabled_event_of_the_inner_is_not_seen_on_a)
{
	struct source s = source_open(k);
	struct pair p = pair_open(0);
	struct kevent ev;
	OK(apply(p.inner, &s, EV_ADD | EV_DISABLE, NULL) == 0);
	source_fire(p.inner, &s);
	NONE(p.outer);
	EQ(collect(p.outer, &ev, 1, 10), 0);
	pair_close(&p);
	source_close(&s);
}

OVER_ALL(a_sleeper_on_the_outer_wakes_for_the_event_of_a)
{
	struct source s = source_open(k);
	struct pair p = pair_open(0);
	struct sleeper sl;
	OK(apply(p.inner, &s, EV_ADD | EV_DISABLE, NULL) == 0);
	source_fire(p.inner, &s);
	sleeper_start(&sl, p.outer, -1);
	OK(!is_done(&sl));
	OK(apply(p.inner, &s, EV_ENABLE, NULL) == 0);
	sleeper_join(&sl);
	EQ(sl.n, 1);
	is_inner(sl.ev, p.inner);
	pair_close(&p);
	source_close(&s);
}

CHECK(poll_on_the_outer_sees_the_events_of_the_inner)
{
	struct source s = source_open(PIPE);
	struct pair p = pair_open(0);
	struct pollfd pfd;
	pfd.fd = p.outer;
	pfd.events = POLLIN;
	OK(apply(p.inner, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	EQ(poll(&pfd, 1, 0), 0);
	put(s.peer);
	EQ(poll(&pfd, 1, 10000), 1);
	is_inner(ONE(p.outer), p.inner);
	ONE(p.inner);
	NONE(p.outer);
	EQ(poll(&pfd, 1, 0), 0);
	EQ(poll(&pfd, 1, 5), 0);
	pair_close(&p);
	source_close(&s);
}

CHECK(the_inner_can_be_polled_and_watched_at_once)
{
	struct source s = source_open(PIPE);
	struct pair p = pair_open(0);
	struct pollfd pfd;
	int i;
	pfd.fd = p.inner;
	pfd.events = POLLIN;
	OK(apply(p.inner, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	for (i = 0; i < 5; i++) {
		put(s.peer);
		EQ(poll(&pfd, 1, 10000), 1);
		is_inner(ONE(p.outer), p.inner);
		ONE(p.inner);
		EQ(poll(&pfd, 1, 0), 0);
		NONE(p.outer);
	}
	pair_close(&p);
	source_close(&s);
}

CHECK(two_outers_see_the_same_inner)
{
	struct pair p = pair_open(0);
	int other = new_kqueue();
	OK(watch_flags(other, p.inner, 0) == 0);
	OK(change(p.inner, 1, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, NULL) == 0);
	is_inner(ONE(p.outer), p.inner);
	is_inner(ONE(other), p.inner);
	ONE(p.inner);
	NONE(p.outer);
	NONE(other);
	pair_close(&p);
	OK(close(other) == 0);
}

/* --- depth --------------------------------------------------------------- */

/* A chain: kq[0] holds the source, each next one watches the one before. */
static void chain_open(int *kq, int n)
{
	int i;
	for (i = 0; i < n; i++) {
		kq[i] = new_kqueue();
		if (i > 0)
			OK(watch_flags(kq[i], kq[i - 1], 0) == 0);
	}
}

static void chain_close(int *kq, int n)
{
	while (n > 0)
		OK(close(kq[--n]) == 0);
}

OVER_ALL(four_deep_the_outermost_sees_the_event_of_a)
{
	struct source s = source_open(k);
	int i, kq[DEPTH];
	chain_open(kq, DEPTH);
	OK(apply(kq[0], &s, EV_ADD | EV_ONESHOT, NULL) == 0);
	source_fire(kq[0], &s);
	for (i = DEPTH - 1; i > 0; i--)
		is_inner(ONE(kq[i]), kq[i - 1]);
	EQ(ONE(kq[0]).ident, s.ident);
	for (i = DEPTH - 1; i >= 0; i--)
		NONE(kq[i]);
	chain_close(kq, DEPTH);
	source_close(&s);
}

OVER_ALL(four_deep_a_sleeper_on_the_outermost_wakes_for_a)
{
	struct source s = source_open(k);
	struct sleeper sl;
	int kq[DEPTH];
	chain_open(kq, DEPTH);
	OK(apply(kq[0], &s, EV_ADD | EV_DISABLE, NULL) == 0);
	source_fire(kq[0], &s);
	sleeper_start(&sl, kq[DEPTH - 1], -1);
	OK(!is_done(&sl));
	OK(apply(kq[0], &s, EV_ENABLE, NULL) == 0);
	sleeper_join(&sl);
	EQ(sl.n, 1);
	is_inner(sl.ev, kq[DEPTH - 2]);
	chain_close(kq, DEPTH);
	source_close(&s);
}

CHECK(four_deep_poll_on_the_outermost_sees_the_event)
{
	struct pollfd pfd;
	int kq[DEPTH];
	chain_open(kq, DEPTH);
	pfd.fd = kq[DEPTH - 1];
	pfd.events = POLLIN;
	EQ(poll(&pfd, 1, 0), 0);
	OK(change(kq[0], 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	EQ(poll(&pfd, 1, 10000), 1);
	chain_close(kq, DEPTH);
}

/* How deep it goes is the kernel's to say; the answer must be one of these. */
CHECK(deeper_than_that_works_or_fails_but_never_hangs)
{
	int i, n, kq[12];
	kq[0] = new_kqueue();
	for (n = 1; n < 12; n++) {
		kq[n] = new_kqueue();
		errno = 0;
		if (watch_flags(kq[n], kq[n - 1], 0) != 0) {
			OK(errno == ELOOP || errno == EINVAL);
			NONE(kq[n]);
			n++;
			break;
		}
	}
	OK(change(kq[0], 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	for (i = 1; i < n - 1; i++)
		is_inner(ONE(kq[i]), kq[i - 1]);
	chain_close(kq, n);
}

CHECK(a_cycle_works_or_fails_but_never_hangs)
{
	struct kevent ev[4];
	struct pair p = pair_open(0);
	errno = 0;
	OK(watch_flags(p.inner, p.outer, 0) == 0 || errno == ELOOP || errno == EINVAL);
	OK(collect(p.outer, ev, 4, 1) >= 0);
	OK(collect(p.inner, ev, 4, 1) >= 0);
	OK(change(p.inner, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	OK(collect(p.outer, ev, 4, 10000) >= 1);
	OK(collect(p.inner, ev, 4, 10000) >= 1);
	pair_close(&p);
}

/* --- closing ------------------------------------------------------------- */

CHECK(closing_the_inner_takes_its_knote_from_the_outer)
{
	struct pair p = pair_open(0);
	struct kevent ev;
	OK(change(p.inner, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	is_inner(ONE(p.outer), p.inner);
	OK(close(p.inner) == 0);
	libkqueue_drain_pending_close();
	NONE(p.outer);
	IDLE(EQ(collect(p.outer, &ev, 1, 50), 0));
	FAILS(change(p.outer, (uintptr_t)p.inner, EVFILT_READ, EV_DELETE, 0, 0, NULL), EBADF);
	OK(close(p.outer) == 0);
}

CHECK(closing_the_inner_leaves_a_sleeper_of_the_outer_asleep)
{
	struct pair p = pair_open(0);
	struct sleeper sl;
	OK(add_user(p.outer, 1, EV_CLEAR) == 0);
	sleeper_start(&sl, p.outer, -1);
	OK(close(p.inner) == 0);
	libkqueue_drain_pending_close();
	pause_ms(5);
	OK(!is_done(&sl));
	OK(trigger(p.outer, 1) == 0);
	sleeper_join(&sl);
	EQ(sl.ev.ident, 1);
	OK(close(p.outer) == 0);
}

CHECK(closing_the_outer_leaves_the_inner_as_it_is)
{
	struct pair p = pair_open(0);
	OK(change(p.inner, 1, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, NULL) == 0);
	OK(close(p.outer) == 0);
	libkqueue_drain_pending_close();
	EQ(ONE(p.inner).ident, 1);
	OK(trigger(p.inner, 1) == 0);
	EQ(ONE(p.inner).ident, 1);
	OK(close(p.inner) == 0);
}

CHECK(deleting_the_watch_ends_the_events)
{
	struct pair p = pair_open(0);
	OK(change(p.inner, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	is_inner(ONE(p.outer), p.inner);
	OK(change(p.outer, (uintptr_t)p.inner, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	NONE(p.outer);
	OK(watch_flags(p.outer, p.inner, 0) == 0);
	is_inner(ONE(p.outer), p.inner);
	pair_close(&p);
}

CHECK(a_pending_inner_nobody_reads_costs_no_cpu)
{
	struct source s = source_open(PIPE);
	struct pair p = pair_open(0);
	OK(apply(p.inner, &s, EV_ADD, NULL) == 0);
	put(s.peer);
	is_inner(ONE(p.outer), p.inner);
	IDLE(pause_ms(50));
	pair_close(&p);
	source_close(&s);
}

/* However soon the change comes: the library hears of the close a moment later. */
CHECK(changing_a_closed_inner_is_EBADF)
{
	int i, inner, outer = kqueue();
	for (i = 0; i < 300; i++) {
		OK((inner = kqueue()) >= 0);
		EQ(change(outer, (uintptr_t)inner, EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
		OK(close(inner) == 0);
		FAILS(change(outer, (uintptr_t)inner, EVFILT_READ, i % 2 ? EV_DELETE : EV_ENABLE, 0, 0, NULL), EBADF);
	}
	OK(close(outer) == 0);
}

CHECKS(ALL(the_outer_sees_the_event_of_a)
	C(the_outer_sees_what_was_pending_before_it_looked)
	C(data_is_the_number_of_pending_user_events)
	C(data_is_the_number_of_pending_descriptor_events)
	C(counting_what_is_pending_consumes_nothing)
	FDS(a_cleared_inner_is_reported_once_for_each_activity_of_a)
	C(a_cleared_inner_is_reported_once_for_each_trigger)
	C(a_oneshot_watch_of_an_inner_reports_once)
	ALL(a_disabled_event_of_the_inner_is_not_seen_on_a)
	ALL(a_sleeper_on_the_outer_wakes_for_the_event_of_a)
	C(poll_on_the_outer_sees_the_events_of_the_inner)
	C(the_inner_can_be_polled_and_watched_at_once)
	C(two_outers_see_the_same_inner)
	ALL(four_deep_the_outermost_sees_the_event_of_a)
	ALL(four_deep_a_sleeper_on_the_outermost_wakes_for_a)
	C(four_deep_poll_on_the_outermost_sees_the_event)
	C(deeper_than_that_works_or_fails_but_never_hangs)
	C(a_cycle_works_or_fails_but_never_hangs)
	C(closing_the_inner_takes_its_knote_from_the_outer)
	C(changing_a_closed_inner_is_EBADF)
	C(closing_the_inner_leaves_a_sleeper_of_the_outer_asleep)
	C(closing_the_outer_leaves_the_inner_as_it_is)
	C(deleting_the_watch_ends_the_events)
	C(a_pending_inner_nobody_reads_costs_no_cpu));
