/* The kqueue as a descriptor: poll, select, epoll, and a kqueue in a kqueue. */
#include "engine_util.h"
#include <sys/epoll.h>
#include <sys/select.h>

/* What poll() says of kq within ms milliseconds; 0 when nothing. */
static int polled(int kq, int ms)
{
	struct pollfd p;
	int n;
	p.fd = kq;
	p.events = POLLIN | POLLOUT | POLLPRI;
	p.revents = 0;
	n = poll(&p, 1, ms);
	OK(n >= 0);
	return n ? p.revents : 0;
}

/* Readable and nothing else, soon. */
#define READABLE(kq) EQ(polled((kq), 10000) & ~POLLRDNORM, POLLIN)
/* Unreadable, and not about to become readable. */
#define QUIET(kq) do { EQ(polled((kq), 0), 0); EQ(polled((kq), 5), 0); } while (0)

static void finish(int kq, struct source *s)
{
	OK(close(kq) == 0);
	source_close(s);
}

/* A knote that fires once and is then quiet. */
static void add_oneshot(int kq, struct source *s)
{
	OK(apply(kq, s, EV_ADD | EV_ONESHOT, NULL) == 0);
}

/* --- readable exactly while events are pending --------------------------- */

CHECK(a_new_kqueue_is_not_readable)
{
	int kq = new_kqueue();
	QUIET(kq);
	NONE(kq);
	QUIET(kq);
	OK(close(kq) == 0);
}

OVER_ALL(poll_sees_the_event_of_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	if (k == TIMER)
		s.period = 100;
	add_oneshot(kq, &s);
	EQ(polled(kq, 0), 0);
	if (k != TIMER)
		source_fire(kq, &s);
	READABLE(kq);
	EQ(ONE(kq).ident, s.ident);
	QUIET(kq);
	finish(kq, &s);
}

OVER_ALL(select_sees_the_event_of_a)
{
	struct source s = source_open(k);
	struct timeval zero = {0, 0}, long_wait = {10, 0};
	fd_set set;
	int kq = new_kqueue();
	if (k == TIMER)
		s.period = 100;
	add_oneshot(kq, &s);
	FD_ZERO(&set);
	FD_SET(kq, &set);
	EQ(select(kq + 1, &set, NULL, NULL, &zero), 0);
	if (k != TIMER)
		source_fire(kq, &s);
	FD_SET(kq, &set);
	EQ(select(kq + 1, &set, NULL, NULL, &long_wait), 1);
	ONE(kq);
	FD_SET(kq, &set);
	EQ(select(kq + 1, &set, NULL, NULL, &zero), 0);
	finish(kq, &s);
}

static int watch(int kq, unsigned mode)
{
	struct epoll_event e;
	int ep = epoll_create1(EPOLL_CLOEXEC);
	OK(ep >= 0);
	memset(&e, 0, sizeof e);
	e.events = EPOLLIN | mode;
	OK(epoll_ctl(ep, EPOLL_CTL_ADD, kq, &e) == 0);
	return ep;
}

static int waited(int ep, int ms)
{
	struct epoll_event e;
	return epoll_wait(ep, &e, 1, ms);
}

OVER_ALL(level_epoll_sees_the_events_of_a)
{
	struct source s = source_open(k);
	int i, kq = new_kqueue(), ep = watch(kq, 0);
	for (i = 0; i < 5; i++) {
		add_oneshot(kq, &s);
		source_fire(kq, &s);
		EQ(waited(ep, 10000), 1);
		EQ(waited(ep, 0), 1);
		ONE(kq);
		EQ(waited(ep, 0), 0);
		if (s.fd >= 0)
			drain(s.fd);
	}
	OK(close(ep) == 0);
	finish(kq, &s);
}

OVER_ALL(edge_epoll_sees_each_new_event_of_a)
{
	struct source s = source_open(k);
	int i, kq = new_kqueue(), ep = watch(kq, EPOLLET);
	for (i = 0; i < 5; i++) {
		add_oneshot(kq, &s);
		source_fire(kq, &s);
		EQ(waited(ep, 10000), 1);
		EQ(waited(ep, 0), 0);
		ONE(kq);
		NONE(kq);
		if (s.fd >= 0)
			drain(s.fd);
	}
	EQ(waited(ep, 5), 0);
	OK(close(ep) == 0);
	finish(kq, &s);
}

OVER_FDS(a_level_event_keeps_it_readable_until_read_on_a)
{
	struct source s = source_open(k);
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	put(s.peer);
	for (i = 0; i < 10; i++) {
		READABLE(kq);
		ONE(kq);
	}
	drain(s.fd);
	NONE(kq);
	QUIET(kq);
	put(s.peer);
	READABLE(kq);
	finish(kq, &s);
}

OVER_FDS(a_cleared_event_leaves_it_unreadable_on_a)
{
	struct source s = source_open(k);
	struct kevent ev;
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	for (i = 0; i < 10; i++) {
		put(s.peer);
		READABLE(kq);
		/* Room for one: the call must look whether more is pending. */
		EQ(collect(kq, &ev, 1, i % 2 ? 0 : -1), 1);
		QUIET(kq);
	}
	finish(kq, &s);
}

CHECK(it_stays_readable_until_the_last_event_is_taken)
{
	struct kevent ev;
	int i, kq = new_kqueue();
	for (i = 0; i < 5; i++)
		OK(change(kq, (uintptr_t)i, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER, 0, NULL) == 0);
	for (i = 0; i < 5; i++) {
		READABLE(kq);
		EQ(collect(kq, &ev, 1, 0), 1);
	}
	QUIET(kq);
	OK(close(kq) == 0);
}

/* Some were seen by poll() and wait in the library, others came since. */
CHECK(it_stays_readable_until_the_last_dispatched_socket_is_taken)
{
	struct source s[8];
	struct kevent ev[9];
	int i, early, late, room, left, kq = new_kqueue();
	for (i = 0; i < 8; i++) {
		s[i] = source_open(SOCKET);
		put(s[i].peer);
		OK(apply(kq, &s[i], EV_ADD | EV_DISPATCH | EV_DISABLE, NULL) == 0);
	}
	for (early = 1; early <= 4; early++)
		for (late = 0; late <= 4; late++)
			for (room = 1; room <= 9; room++) {
				for (i = 0; i < early; i++)
					OK(apply(kq, &s[i], EV_ENABLE | EV_DISPATCH, NULL) == 0);
				READABLE(kq);
				for (; i < early + late; i++)
					OK(apply(kq, &s[i], EV_ENABLE | EV_DISPATCH, NULL) == 0);
				for (left = early + late; left > 0; left -= i) {
					READABLE(kq);
					i = collect(kq, ev, room, room % 2 ? 0 : -1);
					EQ(i, left < room ? left : room);
				}
				EQ(polled(kq, 0), 0);
			}
	QUIET(kq);
	for (i = 0; i < 8; i++)
		source_close(&s[i]);
	OK(close(kq) == 0);
}

CHECK(an_event_made_by_a_change_makes_it_readable)
{
	struct source s = source_open(PIPE);
	int kq = new_kqueue();
	put(s.peer);
	EQ(polled(kq, 0), 0);
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	READABLE(kq);
	finish(kq, &s);
}

OVER_ALL(a_disabled_event_does_not_make_it_readable_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISABLE, NULL) == 0);
	source_fire(kq, &s);
	QUIET(kq);
	EQ(polled(kq, 20), 0);
	OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	READABLE(kq);
	finish(kq, &s);
}

OVER_ALL(disabling_a_pending_event_makes_it_unreadable_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	source_fire(kq, &s);
	READABLE(kq);
	OK(apply(kq, &s, EV_DISABLE, NULL) == 0);
	QUIET(kq);
	finish(kq, &s);
}

OVER_ALL(deleting_a_pending_event_makes_it_unreadable_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	source_fire(kq, &s);
	READABLE(kq);
	OK(apply(kq, &s, EV_DELETE, NULL) == 0);
	QUIET(kq);
	finish(kq, &s);
}

OVER_ALL(a_dispatched_event_leaves_it_unreadable_until_enabled_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, NULL) == 0);
	source_fire(kq, &s);
	READABLE(kq);
	ONE(kq);
	QUIET(kq);
	source_fire(kq, &s);
	QUIET(kq);
	OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	READABLE(kq);
	finish(kq, &s);
}

CHECK(a_periodic_timer_makes_it_readable_each_period)
{
	struct source t = source_open(TIMER);
	int i, kq = new_kqueue();
	t.period = 20;
	OK(apply(kq, &t, EV_ADD, NULL) == 0);
	for (i = 0; i < 3; i++) {
		READABLE(kq);
		OK(ONE(kq).data >= 1);
	}
	OK(close(kq) == 0);
}

/* --- mixtures of polling and waiting ------------------------------------- */

/* Feeds a pipe: one byte each time the reader has taken the last one. */
struct feeder { int fd, wanted, times; };

static void *feed(void *arg)
{
	struct feeder *f = arg;
	int i;
	for (i = 0; i < f->times; i++) {
		while (__atomic_load_n(&f->wanted, __ATOMIC_SEQ_CST) <= i)
			pause_ms(0);
		put(f->fd);
	}
	return NULL;
}

static void take(struct feeder *f, int kq, int fd, int poll_first)
{
	struct kevent ev;
	__atomic_add_fetch(&f->wanted, 1, __ATOMIC_SEQ_CST);
	if (poll_first)
		READABLE(kq);
	EQ(collect(kq, &ev, 1, -1), 1);
	drain(fd);
}

/* The pattern of polls and waits; a spurious or missed readiness hangs it. */
static void mixture(enum kind k, int flags, const char *pattern)
{
	struct source s = source_open(k);
	struct feeder f;
	pthread_t thread;
	int i, kq = new_kqueue();
	f.fd = s.peer;
	f.wanted = 0;
	f.times = 120;
	OK(apply(kq, &s, EV_ADD | flags, NULL) == 0);
	OK(pthread_create(&thread, NULL, feed, &f) == 0);
	for (i = 0; i < f.times; i++)
		take(&f, kq, s.fd, pattern[(size_t)i % strlen(pattern)] == 'p');
	OK(pthread_join(thread, NULL) == 0);
	NONE(kq);
	QUIET(kq);
	finish(kq, &s);
}

OVER_FDS(after_readable_a_blocking_call_returns_cleared_on_a)
{
	mixture(k, EV_CLEAR, "p");
}

OVER_FDS(waits_and_polls_by_turns_work_cleared_on_a)
{
	mixture(k, EV_CLEAR, "pw");
}

OVER_FDS(long_runs_of_waits_and_polls_work_cleared_on_a)
{
	mixture(k, EV_CLEAR, "wwwwwwwwwwwwwwwwwwwwpppppppppp");
}

/* Level: data read behind the back of kevent() may leave the mark behind, as on BSD. */
OVER_FDS(level_readiness_is_taken_back_by_a_call_that_finds_nothing_on_a)
{
	struct source s = source_open(k);
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	for (i = 0; i < 20; i++) {
		put(s.peer);
		READABLE(kq);
		drain(s.fd);
		NONE(kq);
		QUIET(kq);
	}
	finish(kq, &s);
}

CHECK(after_readable_a_blocking_call_returns_for_user_events_of_another_thread)
{
	int i, kq = new_kqueue();
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	for (i = 0; i < 100; i++) {
		struct kevent ev;
		OK(trigger(kq, 1) == 0);
		if (i % 3)
			READABLE(kq);
		EQ(collect(kq, &ev, 1, -1), 1);
		EQ(polled(kq, 0), 0);
	}
	OK(close(kq) == 0);
}

static void *poll_main(void *arg)
{
	struct sleeper *s = arg;
	__atomic_store_n(&s->tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	s->n = polled(s->kq, 10000);
	__atomic_store_n(&s->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

OVER_ALL(a_thread_in_poll_wakes_for_an_event_nobody_takes_on_a)
{
	struct source s = source_open(k);
	struct sleeper p;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISABLE, NULL) == 0);
	source_fire(kq, &s);
	memset(&p, 0, sizeof p);
	p.kq = kq;
	OK(pthread_create(&p.thread, NULL, poll_main, &p) == 0);
	UNTIL(sleeps(&p));
	OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	sleeper_join(&p);
	OK(p.n & POLLIN);
	finish(kq, &s);
}

CHECK(a_thread_in_poll_beside_a_sleeper_wakes_for_a_level_event)
{
	struct source s = source_open(PIPE);
	struct sleeper p, sl;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	memset(&p, 0, sizeof p);
	p.kq = kq;
	OK(pthread_create(&p.thread, NULL, poll_main, &p) == 0);
	UNTIL(sleeps(&p));
	sleeper_start(&sl, kq, -1);
	put(s.peer);
	sleeper_join(&sl);
	EQ(sl.n, 1);
	/* The event stays, so the poller must see it. */
	sleeper_join(&p);
	OK(p.n & POLLIN);
	finish(kq, &s);
}

CHECK(a_thread_that_polls_and_one_that_waits_both_get_on)
{
	struct source s = source_open(PIPE);
	struct feeder f;
	pthread_t thread;
	struct sleeper sl;
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	f.fd = s.peer;
	f.wanted = 0;
	f.times = 30;
	OK(pthread_create(&thread, NULL, feed, &f) == 0);
	for (i = 0; i < f.times; i++) {
		sleeper_start(&sl, kq, -1);
		if (i % 2)
			OK(trigger(kq, 1) == 0);
		__atomic_add_fetch(&f.wanted, 1, __ATOMIC_SEQ_CST);
		sleeper_join(&sl);
		EQ(sl.n, 1);
		/* What the sleeper left must be seen by a poller. */
		if (i % 2) {
			READABLE(kq);
			ONE(kq);
		}
		EQ(polled(kq, 0), 0);
		drain(s.fd);
	}
	OK(pthread_join(thread, NULL) == 0);
	finish(kq, &s);
}

static int changes_end;

static void *make_changes(void *kq)
{
	while (!__atomic_load_n(&changes_end, __ATOMIC_SEQ_CST)) {
		OK(change(*(int *)kq, 2, EVFILT_USER, EV_ADD | EV_DISABLE, 0, 0, NULL) == 0);
		usleep(100);
	}
	return NULL;
}

/* After a call that waited the library's thread looks after pollers, for as long as nobody
 * waits again. Changes are no waiting. */
CHECK(a_poller_is_served_while_another_thread_keeps_making_changes)
{
	struct source s = source_open(PIPE);
	int i, kq = new_kqueue();
	pthread_t thread;
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	OK(pthread_create(&thread, NULL, make_changes, &kq) == 0);
	for (i = 0; i < 5; i++) {
		EQ(write(s.peer, "x", 1), 1);
		ONE(kq);
		READABLE(kq);
		drain(s.fd);
		EQ(write(s.peer, "x", 1), 1);
		ONE(kq);
		drain(s.fd);
	}
	__atomic_store_n(&changes_end, 1, __ATOMIC_SEQ_CST);
	OK(pthread_join(thread, NULL) == 0);
	finish(kq, &s);
}

/* --- cost ---------------------------------------------------------------- */

OVER_ALL(an_event_nobody_takes_costs_no_cpu_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	s.period = 30;
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, NULL) == 0);
	NONE(kq);
	source_fire(kq, &s);
	READABLE(kq);
	IDLE(pause_ms(50));
	EQ(polled(kq, 0), POLLIN);
	finish(kq, &s);
}

OVER_FDS(a_level_event_left_behind_costs_no_cpu_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	put(s.peer);
	READABLE(kq);
	ONE(kq);
	IDLE(pause_ms(50));
	READABLE(kq);
	finish(kq, &s);
}

CHECK(polling_a_quiet_kqueue_costs_no_cpu)
{
	struct source s = source_open(PIPE);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	NONE(kq);
	IDLE(EQ(polled(kq, 50), 0));
	finish(kq, &s);
}

CHECKS(C(a_new_kqueue_is_not_readable)
	ALL(poll_sees_the_event_of_a)
	ALL(select_sees_the_event_of_a)
	ALL(level_epoll_sees_the_events_of_a)
	ALL(edge_epoll_sees_each_new_event_of_a)
	FDS(a_level_event_keeps_it_readable_until_read_on_a)
	FDS(a_cleared_event_leaves_it_unreadable_on_a)
	C(it_stays_readable_until_the_last_event_is_taken)
	C(it_stays_readable_until_the_last_dispatched_socket_is_taken)
	C(an_event_made_by_a_change_makes_it_readable)
	ALL(a_disabled_event_does_not_make_it_readable_on_a)
	ALL(disabling_a_pending_event_makes_it_unreadable_on_a)
	ALL(deleting_a_pending_event_makes_it_unreadable_on_a)
	ALL(a_dispatched_event_leaves_it_unreadable_until_enabled_on_a)
	C(a_periodic_timer_makes_it_readable_each_period)
	FDS(after_readable_a_blocking_call_returns_cleared_on_a)
	FDS(waits_and_polls_by_turns_work_cleared_on_a)
	FDS(long_runs_of_waits_and_polls_work_cleared_on_a)
	FDS(level_readiness_is_taken_back_by_a_call_that_finds_nothing_on_a)
	C(after_readable_a_blocking_call_returns_for_user_events_of_another_thread)
	ALL(a_thread_in_poll_wakes_for_an_event_nobody_takes_on_a)
	C(a_thread_in_poll_beside_a_sleeper_wakes_for_a_level_event)
	C(a_thread_that_polls_and_one_that_waits_both_get_on)
	C(a_poller_is_served_while_another_thread_keeps_making_changes)
	ALL(an_event_nobody_takes_costs_no_cpu_on_a)
	FDS(a_level_event_left_behind_costs_no_cpu_on_a)
	C(polling_a_quiet_kqueue_costs_no_cpu));
