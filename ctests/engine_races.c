/* Threads that change, delete and close what others wait for. */
#include "engine_util.h"

enum { CREW = 4 };

static int stop;

static int stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_SEQ_CST);
}

static void run_crew(pthread_t *thread, int n, void *(*entry)(void *), void *arg)
{
	int i;
	stop = 0;
	for (i = 0; i < n; i++)
		OK(pthread_create(&thread[i], NULL, entry, arg) == 0);
}

static void end_crew(pthread_t *thread, int n)
{
	int i;
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < n; i++)
		OK(pthread_join(thread[i], NULL) == 0);
}

/* --- changes beside sleepers --------------------------------------------- */

CHECK(changes_do_not_wait_for_sleepers)
{
	struct source p = source_open(PIPE), s = source_open(SOCKET);
	struct sleeper sl[CREW];
	struct kevent ch[3];
	int i, kq = new_kqueue();
	OK(apply(kq, &p, EV_ADD, NULL) == 0);
	for (i = 0; i < CREW; i++)
		sleeper_start(&sl[i], kq, -1);
	for (i = 0; i < 100; i++) {
		int flags = EV_ADD;
		EV_SET(&ch[0], s.ident, EVFILT_READ, flags, 0, 0, NULL);
		EV_SET(&ch[1], 1, EVFILT_USER, flags, 0, 0, NULL);
		EV_SET(&ch[2], 1, EVFILT_TIMER, flags, NOTE_SECONDS, 1000, NULL);
		EQ(kevent(kq, ch, 3, NULL, 0, NULL), 0);
		ch[0].flags = ch[1].flags = ch[2].flags = EV_DISABLE;
		EQ(kevent(kq, ch, 3, NULL, 0, NULL), 0);
		ch[0].flags = ch[1].flags = ch[2].flags = EV_DELETE;
		EQ(kevent(kq, ch, 3, NULL, 0, NULL), 0);
	}
	for (i = 0; i < CREW; i++)
		OK(!is_done(&sl[i]));
	put(p.peer);
	for (i = 0; i < CREW; i++) {
		sleeper_join(&sl[i]);
		EQ(sl[i].n, 1);
		EQ(sl[i].ev.ident, p.fd);
	}
	OK(close(kq) == 0);
	source_close(&p);
	source_close(&s);
}

CHECK(a_zero_timeout_call_does_not_wait_for_a_sleeper)
{
	struct sleeper sl;
	int i, kq = new_kqueue();
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	sleeper_start(&sl, kq, -1);
	for (i = 0; i < 100; i++)
		NONE(kq);
	OK(!is_done(&sl));
	OK(trigger(kq, 1) == 0);
	sleeper_join(&sl);
	EQ(sl.n, 1);
	OK(close(kq) == 0);
}

OVER_ALL(deleting_what_a_sleeper_waits_for_leaves_it_asleep_on_a)
{
	struct source s = source_open(k);
	struct sleeper sl;
	int kq = new_kqueue();
	s.period = 3600000;
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	sleeper_start(&sl, kq, -1);
	OK(apply(kq, &s, EV_DELETE, NULL) == 0);
	if (s.fd >= 0)
		put(s.peer);
	pause_ms(5);
	OK(!is_done(&sl));
	OK(trigger(kq, 1) == 0);
	sleeper_join(&sl);
	EQ(sl.n, 1);
	EQ(sl.ev.ident, 1);
	OK(close(kq) == 0);
	source_close(&s);
}

/* --- deleting while others collect --------------------------------------- */

static void *scanner(void *arg)
{
	int *kq = arg;
	struct kevent ev[4];
	while (!stopped())
		if (collect(*kq, ev, 4, 1) < 0)
			FAIL("scan: errno %d", errno);
	return NULL;
}

OVER_FDS(after_delete_returned_no_later_call_returns_the_event_on_a)
{
	struct source s = source_open(k);
	pthread_t thread[2];
	int i, kq = new_kqueue();
	put(s.peer);
	run_crew(thread, 2, scanner, &kq);
	for (i = 0; i < 3000; i++) {
		OK(apply(kq, &s, EV_ADD, NULL) == 0);
		OK(apply(kq, &s, EV_DELETE, NULL) == 0);
		NONE(kq);
	}
	end_crew(thread, 2);
	OK(close(kq) == 0);
	source_close(&s);
}

CHECK(after_delete_returned_no_later_call_returns_the_user_event)
{
	pthread_t thread[2];
	int i, kq = new_kqueue();
	run_crew(thread, 2, scanner, &kq);
	for (i = 0; i < 3000; i++) {
		OK(add_user(kq, 1, 0) == 0);
		OK(trigger(kq, 1) == 0);
		OK(change(kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL) == 0);
		NONE(kq);
	}
	end_crew(thread, 2);
	OK(close(kq) == 0);
}

CHECK(after_disable_returned_no_later_call_returns_the_event)
{
	struct source s = source_open(PIPE);
	pthread_t thread[2];
	int i, kq = new_kqueue();
	put(s.peer);
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	run_crew(thread, 2, scanner, &kq);
	for (i = 0; i < 3000; i++) {
		OK(apply(kq, &s, EV_DISABLE, NULL) == 0);
		NONE(kq);
		OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	}
	end_crew(thread, 2);
	OK(close(kq) == 0);
	source_close(&s);
}

/* A deleted and added again knote must never deliver under its old udata. */
CHECK(a_knote_added_after_delete_comes_with_its_own_udata)
{
	struct source s = source_open(PIPE);
	struct kevent ev;
	pthread_t thread[1];
	int i, kq = new_kqueue();
	put(s.peer);
	run_crew(thread, 1, scanner, &kq);
	for (i = 1; i <= 2000; i++) {
		OK(apply(kq, &s, EV_ADD, UD(i)) == 0);
		EQ(collect(kq, &ev, 1, 10000), 1);
		EQ((uintptr_t)ev.udata, i);
		OK(apply(kq, &s, EV_DELETE, NULL) == 0);
	}
	end_crew(thread, 1);
	OK(close(kq) == 0);
	source_close(&s);
}

/* --- many hands on one ident --------------------------------------------- */

struct hands { int kq, triggers, events; };

static void *hand(void *arg)
{
	struct hands *h = arg;
	struct kevent ev;
	int i, r;
	for (i = 0; i < 2000; i++) {
		switch (i % 4) {
		case 0:
			if (add_user(h->kq, 1, EV_CLEAR) != 0)
				FAIL("add: errno %d", errno);
			break;
		case 1:
			r = trigger(h->kq, 1);
			if (r == 0)
				__atomic_add_fetch(&h->triggers, 1, __ATOMIC_SEQ_CST);
			else if (errno != ENOENT)
				FAIL("trigger: errno %d", errno);
			break;
		case 2:
			r = collect(h->kq, &ev, 1, 0);
			if (r < 0 || (r == 1 && ev.ident != 1))
				FAIL("collect: %d errno %d", r, errno);
			__atomic_add_fetch(&h->events, r, __ATOMIC_SEQ_CST);
			break;
		default:
			if (i % 8 == 7 && change(h->kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL) != 0 && errno != ENOENT)
				FAIL("delete: errno %d", errno);
		}
	}
	return NULL;
}

CHECK(six_threads_add_trigger_collect_and_delete_one_user_event)
{
	struct hands h = { new_kqueue(), 0, 0 };
	pthread_t thread[6];
	run_crew(thread, 6, hand, &h);
	end_crew(thread, 6);
	OK(h.events <= h.triggers);
	OK(add_user(h.kq, 1, EV_CLEAR) == 0);
	OK(trigger(h.kq, 1) == 0);
	EQ(ONE(h.kq).ident, 1);
	NONE(h.kq);
	OK(close(h.kq) == 0);
}

struct pipe_hands { int kq; struct source s; };

static void *pipe_hand(void *arg)
{
	static const int orders[] = { EV_ADD, EV_ADD | EV_CLEAR, EV_DISABLE, EV_ENABLE, EV_ADD | EV_ONESHOT, EV_DELETE };
	struct pipe_hands *h = arg;
	struct kevent ev;
	struct source s = h->s;
	int i, r;
	for (i = 0; i < 3000; i++) {
		if (apply(h->kq, &s, orders[i % 6], NULL) != 0 && errno != ENOENT)
			FAIL("change 0x%x: errno %d", orders[i % 6], errno);
		r = collect(h->kq, &ev, 1, 0);
		if (r < 0 || (r == 1 && ((int)ev.ident != s.fd || ev.data != 1)))
			FAIL("collect: %d errno %d", r, errno);
	}
	return NULL;
}

OVER_FDS(six_threads_change_and_collect_one)
{
	struct pipe_hands h;
	pthread_t thread[6];
	h.s = source_open(k);
	h.kq = new_kqueue();
	put(h.s.peer);
	run_crew(thread, 6, pipe_hand, &h);
	end_crew(thread, 6);
	apply(h.kq, &h.s, EV_DELETE, NULL);
	NONE(h.kq);
	OK(apply(h.kq, &h.s, EV_ADD, UD(5)) == 0);
	EQ((uintptr_t)ONE(h.kq).udata, 5);
	OK(close(h.kq) == 0);
	source_close(&h.s);
}

/* --- closing the kqueue -------------------------------------------------- */

static void close_under_sleepers(int kq, long ms)
{
	struct sleeper sl[CREW];
	int i;
	for (i = 0; i < CREW; i++)
		sleeper_start(&sl[i], kq, ms);
	OK(close(kq) == 0);
	for (i = 0; i < CREW; i++) {
		sleeper_join(&sl[i]);
		EQ(sl[i].n, -1);
		EQ(sl[i].err, EBADF);
	}
}

CHECK(closing_the_kqueue_wakes_each_endless_sleeper_with_ebadf)
{
	int kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	close_under_sleepers(kq, -1);
}

CHECK(closing_the_kqueue_wakes_each_timed_sleeper_with_ebadf)
{
	int kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	close_under_sleepers(kq, 1000000);
}

CHECK(closing_a_kqueue_without_knotes_wakes_each_sleeper_with_ebadf)
{
	close_under_sleepers(new_kqueue(), -1);
}

CHECK(closing_a_kqueue_with_quiet_knotes_wakes_each_sleeper_with_ebadf)
{
	struct source p = source_open(PIPE), s = source_open(SOCKET);
	int kq = new_kqueue();
	OK(apply(kq, &p, EV_ADD, NULL) == 0 && apply(kq, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	OK(change(kq, 1, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL) == 0);
	close_under_sleepers(kq, -1);
	source_close(&p);
	source_close(&s);
}

CHECK(sleepers_of_another_kqueue_stay_asleep_when_one_is_closed)
{
	struct sleeper sl;
	int other = new_kqueue();
	OK(add_user(other, 1, EV_CLEAR) == 0);
	sleeper_start(&sl, other, -1);
	close_under_sleepers(new_kqueue(), -1);
	OK(!is_done(&sl));
	OK(trigger(other, 1) == 0);
	sleeper_join(&sl);
	EQ(sl.n, 1);
	OK(close(other) == 0);
}

static void *enter_until_closed(void *arg)
{
	int *kq = arg;
	struct kevent ev;
	int n;
	do
		n = collect(*kq, &ev, 1, 1);
	while (n >= 0);
	if (errno != EBADF)
		FAIL("entering: errno %d", errno);
	return NULL;
}

CHECK(calls_that_enter_as_the_kqueue_closes_get_ebadf)
{
	pthread_t thread[CREW];
	int round, i;
	for (round = 0; round < 50; round++) {
		int kq = new_kqueue();
		OK(add_user(kq, 1, 0) == 0);
		OK(trigger(kq, 1) == 0);
		for (i = 0; i < CREW; i++)
			OK(pthread_create(&thread[i], NULL, enter_until_closed, &kq) == 0);
		sched_yield();
		OK(close(kq) == 0);
		for (i = 0; i < CREW; i++)
			OK(pthread_join(thread[i], NULL) == 0);
	}
}

/* --- timeouts ------------------------------------------------------------ */

static void times_out(struct sleeper *s, long ms)
{
	sleeper_join(s);
	EQ(s->n, 0);
	OK(s->took >= ms * 1000000LL);
	OK(s->took < 5000000000LL);
}

CHECK(threads_with_different_timeouts_each_keep_their_own)
{
	struct sleeper sl[CREW];
	int i, kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	for (i = 0; i < CREW; i++)
		sleeper_start(&sl[i], kq, 10 * (i + 1));
	for (i = 0; i < CREW; i++)
		times_out(&sl[i], 10 * (i + 1));
	OK(close(kq) == 0);
}

CHECK(changes_by_others_neither_shorten_nor_stretch_a_timeout)
{
	struct source p = source_open(PIPE);
	struct sleeper sl;
	int kq = new_kqueue();
	put(p.peer);
	OK(add_user(kq, 1, EV_DISABLE) == 0);
	sleeper_start(&sl, kq, 30);
	while (!is_done(&sl)) {
		OK(trigger(kq, 1) == 0);
		OK(apply(kq, &p, EV_ADD | EV_DISABLE, NULL) == 0);
		OK(apply(kq, &p, EV_DELETE, NULL) == 0);
		pause_ms(1);
	}
	times_out(&sl, 30);
	OK(close(kq) == 0);
	source_close(&p);
}

/* The sleeper may be woken for an event the other has taken or deleted meanwhile. */
CHECK(events_taken_back_neither_shorten_nor_stretch_a_timeout)
{
	struct sleeper sl;
	struct kevent ch[3], ev;
	struct timespec zero = {0, 0};
	int kq = new_kqueue();
	EV_SET(&ch[0], 1, EVFILT_USER, EV_ADD, 0, 0, NULL);
	EV_SET(&ch[1], 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
	EV_SET(&ch[2], 1, EVFILT_USER, EV_DELETE, 0, 0, NULL);
	sleeper_start(&sl, kq, 30);
	while (!is_done(&sl)) {
		EQ(kevent(kq, ch, 3, &ev, 1, &zero), 0);
		pause_ms(1);
	}
	sleeper_join(&sl);
	/* A scan between two changes of the list may see the event. */
	OK(sl.n == 1 || sl.n == 0);
	OK(sl.n == 1 || sl.took >= 30000000);
	OK(sl.took < 5000000000LL);
	OK(close(kq) == 0);
}

/* --- a number used again under the eyes of many threads ------------------- */

/* How many connections have ended, and the first event that tells of an end too early. */
struct ends { int kq; intptr_t ended, too_early; };

static void *tell_of_ends(void *arg)
{
	struct ends *ends = arg;
	struct kevent ev;
	while (!stopped())
		if (collect(ends->kq, &ev, 1, 20) == 1 && (ev.flags & EV_EOF)
		    && (intptr_t)ev.udata > __atomic_load_n(&ends->ended, __ATOMIC_SEQ_CST))
			__atomic_store_n(&ends->too_early, (intptr_t)ev.udata, __ATOMIC_SEQ_CST);
	return NULL;
}

/* All threads wake for the end of a connection; the next one may be there before they run. */
CHECK(the_end_of_a_deleted_connection_is_not_that_of_the_next_on_its_number)
{
	struct ends ends = { new_kqueue(), 0, 0 };
	pthread_t thread[CREW];
	int s[2];
	intptr_t nth;
	run_crew(thread, CREW, tell_of_ends, &ends);
	for (nth = 1; nth <= 3000; nth++) {
		OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
		EQ(change(ends.kq, s[0], EVFILT_READ, EV_ADD, 0, 0, (void *)nth), 0);
		sched_yield();
		__atomic_store_n(&ends.ended, nth, __ATOMIC_SEQ_CST);
		OK(close(s[1]) == 0);
		EQ(change(ends.kq, s[0], EVFILT_READ, EV_DELETE, 0, 0, NULL), 0);
		OK(close(s[0]) == 0);
	}
	end_crew(thread, CREW);
	EQ(ends.too_early, 0);
	OK(close(ends.kq) == 0);
}

CHECKS(C(changes_do_not_wait_for_sleepers)
	C(a_zero_timeout_call_does_not_wait_for_a_sleeper)
	ALL(deleting_what_a_sleeper_waits_for_leaves_it_asleep_on_a)
	FDS(after_delete_returned_no_later_call_returns_the_event_on_a)
	C(after_delete_returned_no_later_call_returns_the_user_event)
	C(after_disable_returned_no_later_call_returns_the_event)
	C(a_knote_added_after_delete_comes_with_its_own_udata)
	C(the_end_of_a_deleted_connection_is_not_that_of_the_next_on_its_number)
	C(six_threads_add_trigger_collect_and_delete_one_user_event)
	FDS(six_threads_change_and_collect_one)
	C(closing_the_kqueue_wakes_each_endless_sleeper_with_ebadf)
	C(closing_the_kqueue_wakes_each_timed_sleeper_with_ebadf)
	C(closing_a_kqueue_without_knotes_wakes_each_sleeper_with_ebadf)
	C(closing_a_kqueue_with_quiet_knotes_wakes_each_sleeper_with_ebadf)
	C(sleepers_of_another_kqueue_stay_asleep_when_one_is_closed)
	C(calls_that_enter_as_the_kqueue_closes_get_ebadf)
	C(threads_with_different_timeouts_each_keep_their_own)
	C(changes_by_others_neither_shorten_nor_stretch_a_timeout)
	C(events_taken_back_neither_shorten_nor_stretch_a_timeout));
