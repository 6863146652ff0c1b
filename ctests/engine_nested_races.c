/* Queues in queues: under threads, under numbers used again, and watched in each mode. */
#include "net.h"
#include <sys/resource.h>
#include <sched.h>

/* How long, in ns, races last. */
enum { SOON = 300000000 };

static void user(int kq, int flags, unsigned fflags)
{
	OK(change(kq, 1, EVFILT_USER, flags, fflags, 0, NULL) == 0);
}

static void trigger(int kq)
{
	user(kq, 0, NOTE_TRIGGER);
}

/* What the threads of a check share. */
static int inner, outer, stop, taken, finished;
static long turns[2];

static int get_now(int *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static void set_now(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
static void one_more(int *p) { __atomic_fetch_add(p, 1, __ATOMIC_SEQ_CST); }

/* Ends the threads; one that is stuck fails the check. */
static void join(pthread_t *t, int n)
{
	int i;
	set_now(&stop, 1);
	UNTIL(get_now(&finished) == n);
	for (i = 0; i < n; i++)
		OK(pthread_join(t[i], NULL) == 0);
}

static void *watch_the_other(void *arg)
{
	int i = arg != NULL, me = i ? outer : inner, other = i ? inner : outer;
	while (!get_now(&stop)) {
		/* While the other watches this one, it would be a cycle. */
		OK(change(me, (uintptr_t)other, EVFILT_READ, EV_ADD, 0, 0, NULL) == 0 || errno == ELOOP || errno == EINVAL);
		OK(change(me, (uintptr_t)other, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0 || errno == ENOENT);
		__atomic_fetch_add(&turns[i], 1, __ATOMIC_SEQ_CST);
	}
	one_more(&finished);
	return NULL;
}

CHECK(two_queues_that_add_and_delete_each_other_never_hang)
{
	long long until = now_ns() + SOON;
	pthread_t t[2];
	inner = new_kqueue();
	outer = new_kqueue();
	OK(pthread_create(&t[0], NULL, watch_the_other, NULL) == 0);
	OK(pthread_create(&t[1], NULL, watch_the_other, t) == 0);
	UNTIL(now_ns() > until && __atomic_load_n(&turns[0], __ATOMIC_SEQ_CST) > 10 &&
	      __atomic_load_n(&turns[1], __ATOMIC_SEQ_CST) > 10);
	join(t, 2);
	OK(close(inner) == 0);
	OK(close(outer) == 0);
}

static void *watch_what_closes(void *arg)
{
	(void)arg;
	while (!get_now(&stop)) {
		int o = get_now(&outer);
		if (o >= 0)
			change(inner, (uintptr_t)o, EVFILT_READ, EV_ADD, 0, 0, NULL);
	}
	one_more(&finished);
	return NULL;
}

CHECK(an_outer_that_closes_while_its_inner_adds_it_never_hangs)
{
	long long until = now_ns() + SOON;
	pthread_t t;
	long round;
	inner = new_kqueue();
	outer = -1;
	OK(pthread_create(&t, NULL, watch_what_closes, NULL) == 0);
	for (round = 0; now_ns() < until; round++) {
		volatile long spin = round * 37 % 3000;
		int o = new_kqueue();
		/* The thread may still add by the number the last one had: a cycle. */
		OK(change(o, (uintptr_t)inner, EVFILT_READ, EV_ADD, 0, 0, NULL) == 0 || errno == ELOOP || errno == EINVAL);
		set_now(&outer, o);
		while (spin > 0)
			spin--;
		OK(close(o) == 0);
		libkqueue_drain_pending_close();
		set_now(&outer, -1);
	}
	OK(round > 0);
	join(&t, 1);
	NONE(inner);
	OK(close(inner) == 0);
}

static void *take(void *arg)
{
	struct kevent ev;
	(void)arg;
	while (!get_now(&stop)) {
		OK(collect(inner, &ev, 1, -1) == 1);
		one_more(&taken);
	}
	one_more(&finished);
	return NULL;
}

static void *look(void *arg)
{
	struct kevent ev;
	(void)arg;
	while (!get_now(&stop))
		OK(collect(outer, &ev, 1, 0) >= 0);
	one_more(&finished);
	return NULL;
}

CHECK(looks_at_the_outer_take_no_wake_up_from_a_sleeper_of_the_inner)
{
	pthread_t t[2];
	int i;
	inner = new_kqueue();
	outer = new_kqueue();
	user(inner, EV_ADD | EV_CLEAR, 0);
	ADD(outer, inner, EVFILT_READ, 0);
	OK(pthread_create(&t[0], NULL, take, NULL) == 0);
	OK(pthread_create(&t[1], NULL, look, NULL) == 0);
	for (i = 1; i <= 500; i++) {
		long long until = now_ns() + 10000000000LL;
		trigger(inner);
		while (get_now(&taken) < i) {
			if (now_ns() > until)
				FAIL("trigger %d woke nobody in 10 s", i);
			sched_yield();
		}
		EQ(get_now(&taken), i);
	}
	set_now(&stop, 1);
	trigger(inner);
	join(t, 2);
	EQ(taken, 501);
	OK(close(outer) == 0);
	OK(close(inner) == 0);
}

/* An inner queue behind NUMBER and another number. */
static void inner_and_number(int kq[2])
{
	kq[0] = new_kqueue();
	kq[1] = new_kqueue();
	also_number(kq[0]);
	user(kq[0], EV_ADD, 0);
	ADD(kq[1], NUMBER, EVFILT_READ, 0);
}

/* NUMBER is the first of these ends now, added with them for udata; closes all. */
static void number_is_heard(int kq[2], int ends[2])
{
	struct kevent e;
	put(ends[1], 3);
	e = EVENT(kq[1], NUMBER, EVFILT_READ);
	EQ(e.data, 3);
	OK(e.udata == ends);
	OK(close(NUMBER) == 0);
	close_pair(ends);
	close_pair(kq);
}

CHECK(a_ready_inner_whose_watched_number_closed_is_not_reported)
{
	int kq[2], p[2];
	inner_and_number(kq);
	trigger(kq[0]);
	OK(close(NUMBER) == 0);
	QUIET(kq[1]);
	pipe_pair(p);
	also_number(p[0]);
	OK(change(kq[1], NUMBER, EVFILT_READ, EV_ADD, 0, 0, p) == 0);
	NONE(kq[1]);
	EQ(ONE(kq[0]).filter, EVFILT_USER);
	user(kq[0], EV_DELETE, 0);
	NONE(kq[1]);
	number_is_heard(kq, p);
}

CHECK(a_socket_on_the_number_of_a_deleted_inner_is_heard)
{
	int kq[2], s[2];
	inner_and_number(kq);
	OK(change(kq[1], NUMBER, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	OK(close(NUMBER) == 0);
	unix_pair(s, SOCK_STREAM);
	also_number(s[0]);
	OK(change(kq[1], NUMBER, EVFILT_READ, EV_ADD, 0, 0, s) == 0);
	number_is_heard(kq, s);
}

CHECK(enabling_a_dispatched_watch_reports_an_inner_still_ready)
{
	int in = new_kqueue(), out = new_kqueue(), i;
	user(in, EV_ADD | EV_CLEAR, 0);
	ADD(out, in, EVFILT_READ, EV_DISPATCH);
	trigger(in);
	for (i = 0; i < 3; i++) {
		EQ(EVENT(out, in, EVFILT_READ).data, 1);
		NONE(out);
		OK(change(out, (uintptr_t)in, EVFILT_READ, EV_ENABLE, 0, 0, NULL) == 0);
	}
	EQ(ONE(in).filter, EVFILT_USER);
	NONE(out);
	OK(close(out) == 0);
	OK(close(in) == 0);
}

CHECK(enabling_a_disabled_watch_reports_an_inner_with_a_ready_pipe)
{
	int in = new_kqueue(), out = new_kqueue(), p[2];
	pipe_pair(p);
	ADD(in, p[0], EVFILT_READ, EV_CLEAR);
	ADD(out, in, EVFILT_READ, 0);
	put(p[1], 1);
	EVENT(out, in, EVFILT_READ);
	OK(change(out, (uintptr_t)in, EVFILT_READ, EV_DISABLE, 0, 0, NULL) == 0);
	NONE(out);
	OK(change(out, (uintptr_t)in, EVFILT_READ, EV_ENABLE, 0, 0, NULL) == 0);
	EQ(EVENT(out, in, EVFILT_READ).data, 1);
	EQ(EVENT(in, p[0], EVFILT_READ).data, 1);
	NONE(out);
	close_pair(p);
	OK(close(out) == 0);
	OK(close(in) == 0);
}

CHECK(an_orphan_in_a_queue_that_was_watched_once_costs_no_cpu)
{
	int in = new_kqueue(), out = new_kqueue(), p[2], other;
	user(in, EV_ADD | EV_CLEAR, NOTE_TRIGGER);
	ADD(out, in, EVFILT_READ, EV_ONESHOT);
	EQ(EVENT(out, in, EVFILT_READ).data, 1);
	EQ(ONE(in).filter, EVFILT_USER);
	other = make_orphan(in, p);
	QUIET(in);
	QUIET(out);
	OK(close(other) == 0);
	OK(close(p[1]) == 0);
	OK(close(out) == 0);
	OK(close(in) == 0);
}

CHECK(an_orphan_in_a_queue_that_is_watched_costs_no_cpu)
{
	int in = new_kqueue(), out = new_kqueue(), p[2], other;
	ADD(out, in, EVFILT_READ, 0);
	other = make_orphan(in, p);
	QUIET(out);
	QUIET(in);
	QUIET(out);
	/* The watch goes on. */
	ADD(in, other, EVFILT_READ, 0);
	EQ(EVENT(out, in, EVFILT_READ).data, 1);
	OK(change(in, other, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	NONE(out);
	user(in, EV_ADD | EV_CLEAR, NOTE_TRIGGER);
	EQ(EVENT(out, in, EVFILT_READ).data, 1);
	EQ(ONE(in).filter, EVFILT_USER);
	OK(change(out, in, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	OK(close(other) == 0);
	OK(close(p[1]) == 0);
	OK(close(out) == 0);
	OK(close(in) == 0);
}

CHECK(an_orphan_costs_no_cpu_with_no_descriptor_left)
{
	int kq = new_kqueue(), p[2], idle[2], other, held[320], n;
	struct rlimit lim;
	pipe_pair(p);
	pipe_pair(idle);
	ADD(kq, p[0], EVFILT_READ, 0);
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = 320;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	other = fcntl(p[0], F_DUPFD_CLOEXEC, 0);
	OK(other >= 0);
	OK(close(p[0]) == 0);
	for (n = 0; n < 320 && (held[n] = fcntl(idle[0], F_DUPFD, 0)) >= 0; n++)
		;
	OK(n < 320);
	put(p[1], 1);
	QUIET(kq);
	while (n > 0)
		OK(close(held[--n]) == 0);
	OK(close(idle[0]) == 0);
	OK(close(idle[1]) == 0);
	OK(close(other) == 0);
	OK(close(p[1]) == 0);
	OK(close(kq) == 0);
}

CHECK(two_cleared_watches_of_one_inner_report_a_trigger_once_each)
{
	int in = new_kqueue(), a = new_kqueue(), b = new_kqueue(), i;
	user(in, EV_ADD | EV_CLEAR, 0);
	ADD(a, in, EVFILT_READ, EV_CLEAR);
	ADD(b, in, EVFILT_READ, EV_CLEAR);
	trigger(in);
	EQ(EVENT(a, in, EVFILT_READ).data, 1);
	for (i = 0; i < 20; i++)
		NONE(a);
	QUIET(a);
	EQ(EVENT(b, in, EVFILT_READ).data, 1);
	QUIET(b);
	QUIET(a);
	OK(close(a) == 0);
	OK(close(b) == 0);
	OK(close(in) == 0);
}

CHECK(a_level_watch_is_told_however_often_another_outer_looked)
{
	int in = new_kqueue(), a = new_kqueue(), b = new_kqueue(), round, i;
	user(in, EV_ADD | EV_CLEAR, 0);
	ADD(a, in, EVFILT_READ, EV_CLEAR);
	ADD(b, in, EVFILT_READ, 0);
	for (round = 0; round < 20; round++) {
		trigger(in);
		EVENT(a, in, EVFILT_READ);
		for (i = 0; i < 20; i++)
			NONE(a);
		EQ(EVENT(b, in, EVFILT_READ).data, 1);
		EQ(EVENT(b, in, EVFILT_READ).data, 1);
		EQ(ONE(in).filter, EVFILT_USER);
		NONE(b);
	}
	OK(close(a) == 0);
	OK(close(b) == 0);
	OK(close(in) == 0);
}

/* The inner is triggered, and a call on it leaves something pending, before the outer looks. */
static void a_call_on_the_inner_comes_first(int flags, int events, int watch)
{
	int in = new_kqueue(), out = new_kqueue(), i;
	struct kevent ev[1];
	ADD(out, in, EVFILT_READ, watch);
	for (i = 0; i < 20; i++) {
		int id;
		for (id = 1; id <= events; id++)
			EQ(change(in, id, EVFILT_USER, EV_ADD | flags, NOTE_TRIGGER, 0, NULL), 0);
		EQ(collect(in, ev, 1, 0), 1);
		EQ(EVENT(out, in, EVFILT_READ).data, flags & EV_CLEAR ? events - 1 : events);
		for (id = 1; id <= events; id++)
			EQ(change(in, id, EVFILT_USER, EV_DELETE, 0, 0, NULL), 0);
		NONE(out);
		NONE(in);
	}
	QUIET(out);
	OK(close(out) == 0);
	OK(close(in) == 0);
}

CHECK(the_outer_is_told_of_a_level_event_a_call_on_the_inner_had_first)
{
	a_call_on_the_inner_comes_first(0, 1, 0);
	a_call_on_the_inner_comes_first(0, 1, EV_CLEAR);
}

CHECK(the_outer_is_told_of_what_a_call_on_the_inner_had_no_room_for)
{
	a_call_on_the_inner_comes_first(EV_CLEAR, 2, 0);
	a_call_on_the_inner_comes_first(EV_CLEAR, 2, EV_CLEAR);
}

/* The inner shows ready all the time: that alone makes no edge. */
CHECK(each_trigger_is_told_to_two_cleared_watches_of_an_inner_that_stays_ready)
{
	int in = new_kqueue(), outer[2] = { new_kqueue(), new_kqueue() }, i, n;
	for (i = 0; i < 2; i++)
		ADD(outer[i], in, EVFILT_READ, EV_CLEAR);
	for (n = 1; n < 20; n++) {
		OK(change(in, (uintptr_t)n, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
		for (i = 0; i < 2; i++)
			EQ(EVENT(outer[i], in, EVFILT_READ).data, n);
		for (i = 0; i < 2; i++)
			NONE(outer[i]);
	}
	QUIET(outer[0]);
	close_pair(outer);
	OK(close(in) == 0);
}

CHECKS(
	C(two_queues_that_add_and_delete_each_other_never_hang)
	C(an_outer_that_closes_while_its_inner_adds_it_never_hangs)
	C(looks_at_the_outer_take_no_wake_up_from_a_sleeper_of_the_inner)
	C(a_ready_inner_whose_watched_number_closed_is_not_reported)
	C(a_socket_on_the_number_of_a_deleted_inner_is_heard)
	C(enabling_a_dispatched_watch_reports_an_inner_still_ready)
	C(enabling_a_disabled_watch_reports_an_inner_with_a_ready_pipe)
	C(an_orphan_in_a_queue_that_was_watched_once_costs_no_cpu)
	C(an_orphan_in_a_queue_that_is_watched_costs_no_cpu)
	C(an_orphan_costs_no_cpu_with_no_descriptor_left)
	C(two_cleared_watches_of_one_inner_report_a_trigger_once_each)
	C(a_level_watch_is_told_however_often_another_outer_looked)
	C(the_outer_is_told_of_a_level_event_a_call_on_the_inner_had_first)
	C(the_outer_is_told_of_what_a_call_on_the_inner_had_no_room_for)
	C(each_trigger_is_told_to_two_cleared_watches_of_an_inner_that_stays_ready)
);
