/* How long a call waits, what ends the wait, and that waiting costs nothing. */
#include "engine_util.h"

/* --- waiting ------------------------------------------------------------- */

CHECK(nevents_zero_returns_at_once_and_consumes_nothing)
{
	struct timespec long_wait = {1000, 0};
	int kq = new_kqueue();
	EQ(kevent(kq, NULL, 0, NULL, 0, NULL), 0);
	EQ(kevent(kq, NULL, 0, NULL, 0, &long_wait), 0);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	OK(trigger(kq, 1) == 0);
	EQ(kevent(kq, NULL, 0, NULL, 0, NULL), 0);
	EQ(kevent(kq, NULL, 0, NULL, 0, &long_wait), 0);
	EQ(ONE(kq).ident, 1);
	OK(close(kq) == 0);
}

CHECK(a_wait_is_never_shorter_than_its_timeout)
{
	static const long ns[] = { 1, 1000, 100000, 999999, 1000000, 1000001, 1500000, 7654321 };
	struct kevent ev;
	struct timespec ts = {0, 0};
	int kq = new_kqueue();
	unsigned i;
	for (i = 0; i < 4 * sizeof ns / sizeof *ns; i++) {
		long long start;
		ts.tv_nsec = ns[i / 4];
		start = now_ns();
		EQ(kevent(kq, NULL, 0, &ev, 1, &ts), 0);
		OK(now_ns() - start >= ts.tv_nsec);
	}
	OK(close(kq) == 0);
}

/* A millisecond clock would need a hundred milliseconds for these. */
CHECK(short_waits_are_not_rounded_up_to_milliseconds)
{
	struct kevent ev;
	struct timespec ts = {0, 20000};
	long long best = INT64_MAX;
	int i, round, kq = new_kqueue();
	for (round = 0; round < 5; round++) {
		long long start = now_ns();
		for (i = 0; i < 20; i++)
			EQ(kevent(kq, NULL, 0, &ev, 1, &ts), 0);
		if (now_ns() - start < best)
			best = now_ns() - start;
	}
	OK(best < 20 * 900000LL);
	OK(close(kq) == 0);
}

static const struct timespec endless[] = {
	{LONG_MAX, 0}, {LONG_MAX, 999999999}, {(time_t)INT32_MAX + 1, 0}, {INT32_MAX, 0},
	{LONG_MAX / 1000, 1}, {100000000, 0}
};

CHECK(huge_timeouts_wait)
{
	unsigned i;
	for (i = 0; i < sizeof endless / sizeof *endless; i++) {
		struct kevent ev;
		struct source t = source_open(TIMER);
		int kq = new_kqueue();
		t.period = 3;
		OK(apply(kq, &t, EV_ADD | EV_ONESHOT, NULL) == 0);
		EQ(kevent(kq, NULL, 0, &ev, 1, &endless[i]), 1);
		OK(now_ns() - t.armed >= 3000000);
		OK(close(kq) == 0);
	}
}

CHECK(a_pending_event_is_returned_whatever_the_timeout)
{
	struct kevent ev;
	unsigned i;
	int kq = new_kqueue();
	OK(change(kq, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	for (i = 0; i < sizeof endless / sizeof *endless; i++)
		EQ(kevent(kq, NULL, 0, &ev, 1, &endless[i]), 1);
	EQ(collect(kq, &ev, 1, 0), 1);
	EQ(collect(kq, &ev, 1, -1), 1);
	OK(close(kq) == 0);
}

/* --- signals ------------------------------------------------------------- */

static int handled, interrupted;
static pthread_t victim;

static void on_signal(int sig)
{
	(void)sig;
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

/* Signals the victim until its call has ended. */
static void *pester(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&interrupted, __ATOMIC_SEQ_CST)) {
		pause_ms(2);
		pthread_kill(victim, SIGUSR1);
	}
	return NULL;
}

static void eintr_with(int flags, const struct timespec *timeout)
{
	struct sigaction sa;
	struct kevent ch[2], ev;
	pthread_t thread;
	int kq = new_kqueue();
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = on_signal;
	sa.sa_flags = flags;
	OK(sigaction(SIGUSR1, &sa, NULL) == 0);
	victim = pthread_self();
	interrupted = 0;
	EV_SET(&ch[0], 1, EVFILT_USER, EV_ADD, 0, 0, NULL);
	EV_SET(&ch[1], 2, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL);
	OK(pthread_create(&thread, NULL, pester, NULL) == 0);
	FAILS(kevent(kq, ch, 2, &ev, 1, timeout), EINTR);
	__atomic_store_n(&interrupted, 1, __ATOMIC_SEQ_CST);
	OK(pthread_join(thread, NULL) == 0);
	OK(handled > 0);
	ch[0].flags = ch[1].flags = EV_DELETE;
	EQ(kevent(kq, ch, 2, NULL, 0, NULL), 0);
	OK(close(kq) == 0);
}

CHECK(a_handler_ends_an_endless_wait_with_eintr)
{
	eintr_with(0, NULL);
}

CHECK(a_handler_with_sa_restart_ends_an_endless_wait_with_eintr)
{
	eintr_with(SA_RESTART, NULL);
}

CHECK(a_handler_ends_a_timed_wait_with_eintr)
{
	struct timespec ts = {1000, 0};
	eintr_with(0, &ts);
	eintr_with(SA_RESTART, &ts);
}

/* --- nothing to do, nothing spent ---------------------------------------- */

OVER_ALL(waiting_beside_a_disabled_ready_knote_costs_no_cpu_on_a)
{
	struct source s = source_open(k);
	struct kevent ev;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	source_fire(kq, &s);
	OK(apply(kq, &s, EV_DISABLE, NULL) == 0);
	IDLE(EQ(collect(kq, &ev, 1, 50), 0));
	OK(close(kq) == 0);
	source_close(&s);
}

OVER_ALL(waiting_beside_a_dispatched_knote_costs_no_cpu_on_a)
{
	struct source s = source_open(k);
	struct kevent ev;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, NULL) == 0);
	source_fire(kq, &s);
	ONE(kq);
	IDLE(EQ(collect(kq, &ev, 1, 50), 0));
	OK(close(kq) == 0);
	source_close(&s);
}

OVER_FDS(waiting_beside_a_cleared_knote_costs_no_cpu_on_a)
{
	struct source s = source_open(k);
	struct kevent ev;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	source_fire(kq, &s);
	ONE(kq);
	IDLE(EQ(collect(kq, &ev, 1, 50), 0));
	OK(close(kq) == 0);
	source_close(&s);
}

/* Hang-ups cannot be masked in epoll. */
static void hang_up_beside(enum kind k, int flags, int disable)
{
	struct source s = source_open(k);
	struct kevent ev[2];
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | flags, NULL) == 0);
	OK(close(s.peer) == 0);
	OK(ONE(kq).flags & EV_EOF);
	if (disable)
		OK(apply(kq, &s, EV_DISABLE, NULL) == 0);
	IDLE(EQ(collect(kq, ev, 2, 50), 0));
	OK(close(kq) == 0);
	OK(close(s.fd) == 0);
}

OVER_FDS(waiting_beside_a_disabled_hang_up_costs_no_cpu_on_a)
{
	hang_up_beside(k, 0, 1);
}

OVER_FDS(waiting_beside_a_cleared_hang_up_costs_no_cpu_on_a)
{
	hang_up_beside(k, EV_CLEAR, 0);
}

OVER_FDS(waiting_beside_a_dispatched_hang_up_costs_no_cpu_on_a)
{
	hang_up_beside(k, EV_DISPATCH, 0);
}

OVER_FDS(waiting_beside_a_hang_up_read_once_costs_no_cpu_on_a)
{
	hang_up_beside(k, EV_ONESHOT, 0);
}

CHECK(waiting_with_timers_far_away_costs_no_cpu)
{
	struct kevent ev;
	int i, kq = new_kqueue();
	for (i = 0; i < 100; i++)
		OK(change(kq, (uintptr_t)i, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000 + i, NULL) == 0);
	IDLE(EQ(collect(kq, &ev, 1, 50), 0));
	OK(close(kq) == 0);
}

/* --- waits that nearly always find something ------------------------------ */

/* Calls that may wait, each with a byte to find. */
static void find_something(int kq, int ends[2], int times)
{
	struct kevent ev;
	char byte;
	while (times-- > 0) {
		put(ends[1]);
		EQ(collect(kq, &ev, 1, -1), 1);
		EQ(ev.data, 1);
		OK(read(ends[0], &byte, 1) == 1);
	}
}

static int watched_pipe(int ends[2])
{
	int kq = new_kqueue();
	pipe_open(ends);
	OK(change(kq, (uintptr_t)ends[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	return kq;
}

CHECK(a_wait_lasts_as_long_as_it_may_after_many_that_found_something)
{
	struct kevent ev;
	struct sleeper s;
	int round, ends[2], kq = watched_pipe(ends);
	for (round = 0; round < 5; round++) {
		long long start;
		find_something(kq, ends, 200);
		start = now_ns();
		EQ(collect(kq, &ev, 1, 20), 0);
		OK(now_ns() - start >= 20000000);
		find_something(kq, ends, 200);
		sleeper_start(&s, kq, -1);
		OK(!is_done(&s));
		put(ends[1]);
		sleeper_join(&s);
		EQ(s.n, 1);
		EQ(s.ev.ident, ends[0]);
		drain(ends[0]);
	}
	pipe_close(ends);
	OK(close(kq) == 0);
}

CHECK(a_handler_ends_a_wait_after_many_that_found_something)
{
	struct sigaction sa;
	struct sleeper s;
	int ends[2], kq = watched_pipe(ends);
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = on_signal;
	OK(sigaction(SIGUSR1, &sa, NULL) == 0);
	find_something(kq, ends, 200);
	sleeper_start(&s, kq, -1);
	while (!is_done(&s)) {
		OK(pthread_kill(s.thread, SIGUSR1) == 0);
		pause_ms(2);
	}
	sleeper_join(&s);
	EQ(s.n, -1);
	EQ(s.err, EINTR);
	pipe_close(ends);
	OK(close(kq) == 0);
}

CHECKS(C(nevents_zero_returns_at_once_and_consumes_nothing)
	C(a_wait_is_never_shorter_than_its_timeout)
	C(short_waits_are_not_rounded_up_to_milliseconds)
	C(huge_timeouts_wait)
	C(a_pending_event_is_returned_whatever_the_timeout)
	C(a_handler_ends_an_endless_wait_with_eintr)
	C(a_handler_with_sa_restart_ends_an_endless_wait_with_eintr)
	C(a_handler_ends_a_timed_wait_with_eintr)
	ALL(waiting_beside_a_disabled_ready_knote_costs_no_cpu_on_a)
	ALL(waiting_beside_a_dispatched_knote_costs_no_cpu_on_a)
	FDS(waiting_beside_a_cleared_knote_costs_no_cpu_on_a)
	FDS(waiting_beside_a_disabled_hang_up_costs_no_cpu_on_a)
	FDS(waiting_beside_a_cleared_hang_up_costs_no_cpu_on_a)
	FDS(waiting_beside_a_dispatched_hang_up_costs_no_cpu_on_a)
	FDS(waiting_beside_a_hang_up_read_once_costs_no_cpu_on_a)
	C(waiting_with_timers_far_away_costs_no_cpu)
	C(a_wait_lasts_as_long_as_it_may_after_many_that_found_something)
	C(a_handler_ends_a_wait_after_many_that_found_something));
