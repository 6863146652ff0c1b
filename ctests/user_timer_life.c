/* EVFILT_TIMER: re-adding, disabling, large numbers, poll(). */
#include "harness.h"
#include <sys/resource.h>

#define MS 1000000LL
#define TIMER(kq, id, flags, unit, n) EQ(change(kq, id, EVFILT_TIMER, EV_ADD | (flags), unit, n, NULL), 0)
#define GONE(kq, id) FAILS(change(kq, id, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), ENOENT)

enum { MANY = 100000, BATCH = 1000 };

static long long wall_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

CHECK(a_readd_starts_again_from_now)
{
	int kq = kqueue();
	long long start;
	TIMER(kq, 1, EV_ONESHOT, 0, 20);
	start = now_ns();
	UNTIL(now_ns() - start > 10 * MS);
	start = now_ns();
	TIMER(kq, 1, EV_ONESHOT, 0, 25);
	EQ(ONE(kq).data, 1);
	OK(now_ns() - start >= 25 * MS);
	NONE(kq);
	close(kq);
}

CHECK(a_readd_takes_the_new_time_unit_and_udata)
{
	int kq = kqueue(), i;
	struct kevent e;
	long long start, fired = 0;
	TIMER(kq, 1, 0, NOTE_SECONDS, 1000);
	start = now_ns();
	EQ(change(kq, 1, EVFILT_TIMER, EV_ADD, NOTE_USECONDS, 3000, &kq), 0);
	for (i = 0; i < 3; i++) {
		e = ONE(kq);
		OK(e.udata == &kq);
		fired += e.data;
		OK(now_ns() - start >= fired * 3 * MS);
	}
	close(kq);
}

CHECK(a_readd_may_lengthen_an_armed_timer)
{
	int kq = kqueue();
	struct kevent e[1];
	TIMER(kq, 1, 0, 0, 10);
	TIMER(kq, 1, 0, NOTE_SECONDS, 1000);
	EQ(collect(kq, e, 1, 30), 0);
	close(kq);
}

CHECK(a_readd_forgets_what_had_expired)
{
	int kq = kqueue();
	long long start = now_ns();
	struct pollfd p = { kq, POLLIN, 0 };
	TIMER(kq, 1, 0, 0, 1);
	UNTIL(now_ns() - start > 10 * MS);
	TIMER(kq, 1, 0, NOTE_SECONDS, 1000);
	NONE(kq);
	/* The same when the expiry had already been noticed. */
	TIMER(kq, 1, 0, 0, 1);
	EQ(poll(&p, 1, 10000), 1);
	TIMER(kq, 1, 0, NOTE_SECONDS, 1000);
	NONE(kq);
	close(kq);
}

CHECK(a_delete_takes_an_unreported_expiry_along)
{
	int kq = kqueue();
	long long start = now_ns();
	TIMER(kq, 1, 0, 0, 1);
	TIMER(kq, 2, EV_ONESHOT, 0, 1);
	UNTIL(now_ns() - start > 5 * MS);
	EQ(change(kq, 1, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	EQ(change(kq, 2, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	NONE(kq);
	GONE(kq, 1);
	GONE(kq, 2);
	close(kq);
}

/* A 5 ms timer started at start, silent since, waits for EV_ENABLE with its count. */
static void counts_until_enabled(int kq, long long start)
{
	struct kevent e[1];
	long long n, silent = now_ns();
	UNTIL(now_ns() - silent > 33 * MS);
	NONE(kq);
	EQ(change(kq, 1, EVFILT_TIMER, EV_ENABLE, 0, 0, NULL), 0);
	EQ(collect(kq, e, 1, 0), 1);
	n = e[0].data;
	OK(n >= 6);
	OK(n <= (now_ns() - start) / (5 * MS));
}

CHECK(a_disabled_timer_runs_on_and_counts)
{
	int kq = kqueue();
	long long start = now_ns();
	TIMER(kq, 1, 0, 0, 5);
	EQ(change(kq, 1, EVFILT_TIMER, EV_DISABLE, 0, 0, NULL), 0);
	counts_until_enabled(kq, start);
	OK(ONE(kq).data >= 1);
	close(kq);
}

CHECK(a_timer_added_disabled_runs_and_counts)
{
	int kq = kqueue();
	long long start = now_ns();
	TIMER(kq, 1, EV_DISABLE, 0, 5);
	counts_until_enabled(kq, start);
	close(kq);
}

CHECK(a_dispatched_timer_runs_on_and_counts)
{
	int kq = kqueue();
	long long start = now_ns();
	TIMER(kq, 1, EV_DISPATCH, 0, 5);
	EQ(ONE(kq).flags & EV_DISPATCH, EV_DISPATCH);
	counts_until_enabled(kq, start);
	NONE(kq);
	close(kq);
}

CHECK(a_disabled_oneshot_waits_for_enable)
{
	int kq = kqueue();
	long long start = now_ns();
	struct kevent e[1];
	TIMER(kq, 1, EV_ONESHOT | EV_DISABLE, 0, 1);
	UNTIL(now_ns() - start > 5 * MS);
	NONE(kq);
	EQ(change(kq, 1, EVFILT_TIMER, EV_ENABLE, 0, 0, NULL), 0);
	EQ(collect(kq, e, 1, 0), 1);
	EQ(e[0].data, 1);
	GONE(kq, 1);
	close(kq);
}

CHECK(a_disabled_timer_wakes_nobody_and_uses_no_cpu)
{
	int kq = kqueue();
	struct kevent e[1];
	struct pollfd p = { kq, POLLIN, 0 };
	long long cpu;
	TIMER(kq, 1, EV_DISABLE, NOTE_USECONDS, 50);
	cpu = cpu_ns();
	EQ(collect(kq, e, 1, 50), 0);
	EQ(poll(&p, 1, 20), 0);
	OK(cpu_ns() - cpu < 20 * MS);
	close(kq);
}

CHECK(enable_of_an_enabled_timer_does_not_restart_it)
{
	int kq = kqueue();
	long long start = now_ns();
	TIMER(kq, 1, EV_ONESHOT, 0, 10);
	UNTIL(now_ns() - start > 15 * MS);
	EQ(change(kq, 1, EVFILT_TIMER, EV_ENABLE, 0, 1000, NULL), 0);
	EQ(ONE(kq).data, 1);
	close(kq);
}

CHECK(a_timer_takes_any_number_even_that_of_a_descriptor)
{
	int kq = kqueue(), p[2];
	struct kevent ev[4];
	OK(pipe2(p, O_CLOEXEC) == 0);
	TIMER(kq, UINTPTR_MAX, EV_ONESHOT, 0, 0);
	TIMER(kq, (uintptr_t)1 << 40, EV_ONESHOT, 0, 0);
	TIMER(kq, p[0], 0, NOTE_SECONDS, 1000);
	EQ(collect(kq, ev, 4, 0), 2);
	EQ(change(kq, p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
	close(p[0]);
	close(p[1]);
	NONE(kq);
	EQ(change(kq, p[0], EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	close(kq);
}

CHECK(two_queues_keep_their_timers_apart)
{
	int a = kqueue(), b = kqueue();
	TIMER(a, 1, EV_ONESHOT, 0, 0);
	TIMER(b, 1, EV_ONESHOT, NOTE_SECONDS, 1000);
	NONE(b);
	EQ(ONE(a).ident, 1);
	EQ(change(b, 1, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	close(a);
	close(b);
}

CHECK(three_thousand_timers_with_a_limit_of_64_descriptors)
{
	static struct kevent ev[3000];
	struct rlimit lim = { 64, 64 };
	int kq, i, n = 0;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	kq = kqueue();
	OK(kq >= 0);
	for (i = 0; i < 3000; i++)
		TIMER(kq, i, EV_ONESHOT, NOTE_USECONDS, i);
	while (n < 3000) {
		int k = collect(kq, ev + n, 3000 - n, 10000);
		OK(k > 0);
		n += k;
	}
	NONE(kq);
	close(kq);
}

static void change_many(int kq, int flags, intptr_t first, intptr_t step)
{
	static struct kevent ch[BATCH];
	int i, j;
	for (i = 0; i < MANY; i += BATCH) {
		for (j = 0; j < BATCH; j++)
			EV_SET(&ch[j], i + j, EVFILT_TIMER, flags, NOTE_USECONDS, first + step * (i + j), NULL);
		EQ(kevent(kq, ch, BATCH, NULL, 0, NULL), 0);
	}
}

CHECK(a_hundred_thousand_timers_are_added_and_deleted)
{
	int kq = kqueue(), fds;
	TIMER(kq, MANY, 0, NOTE_SECONDS, 1000000);
	fds = count_fds();
	change_many(kq, EV_ADD, 1000000000000, -7);
	EQ(count_fds(), fds);
	NONE(kq);
	change_many(kq, EV_DELETE, 0, 0);
	GONE(kq, MANY - 1);
	EQ(change(kq, MANY, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	close(kq);
}

CHECK(a_hundred_thousand_timers_all_fire)
{
	static struct kevent ev[MANY];
	static char seen[MANY];
	int kq = kqueue(), n = 0, i;
	change_many(kq, EV_ADD | EV_ONESHOT, 0, 1);
	while (n < MANY) {
		int k = collect(kq, ev + n, MANY - n, 10000);
		OK(k > 0);
		n += k;
	}
	for (i = 0; i < MANY; i++) {
		OK(ev[i].ident < MANY && !seen[ev[i].ident]);
		seen[ev[i].ident] = 1;
	}
	NONE(kq);
	close(kq);
}

CHECK(timers_that_are_not_due_use_no_cpu)
{
	int kq = kqueue(), i;
	struct kevent e[1];
	long long cpu;
	for (i = 0; i < 1000; i++)
		TIMER(kq, i, 0, NOTE_SECONDS, 1000 + i);
	cpu = cpu_ns();
	EQ(collect(kq, e, 1, 50), 0);
	OK(cpu_ns() - cpu < 20 * MS);
	close(kq);
}

CHECK(poll_sees_the_queue_readable_at_expiry_and_not_before)
{
	int kq = kqueue();
	struct pollfd p = { kq, POLLIN, 0 };
	long long start = now_ns();
	TIMER(kq, 1, EV_ONESHOT, 0, 20);
	EQ(poll(&p, 1, 10000), 1);
	OK(now_ns() - start >= 20 * MS);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	EQ(poll(&p, 1, 0), 0);
	close(kq);
}

CHECK(poll_sees_an_absolute_timer_too)
{
	int kq = kqueue();
	struct pollfd p = { kq, POLLIN, 0 };
	TIMER(kq, 1, EV_ONESHOT, NOTE_ABSTIME | NOTE_NSECONDS, wall_ns() + 10 * MS);
	EQ(poll(&p, 1, 10000), 1);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

CHECK(a_timeout_shorter_than_the_timer_ends_the_wait)
{
	int kq = kqueue();
	struct kevent e[1];
	long long start = now_ns();
	TIMER(kq, 1, 0, NOTE_SECONDS, 100);
	EQ(collect(kq, e, 1, 10), 0);
	OK(now_ns() - start >= 10 * MS);
	OK(now_ns() - start < 50000 * MS);
	close(kq);
}

static void *sleep_in_it(void *arg)
{
	EQ(ONE(*(int *)arg).ident, 2);
	return NULL;
}

CHECK(an_earlier_timer_added_meanwhile_wakes_the_sleeper)
{
	int kq = kqueue();
	pthread_t t;
	TIMER(kq, 1, EV_ONESHOT, NOTE_SECONDS, 1000);
	OK(pthread_create(&t, NULL, sleep_in_it, &kq) == 0);
	TIMER(kq, 2, EV_ONESHOT, 0, 5);
	pthread_join(t, NULL);
	close(kq);
}

CHECK(a_timer_may_be_added_again_from_its_own_event)
{
	int kq = kqueue(), i;
	for (i = 0; i < 20; i++) {
		TIMER(kq, 1, EV_ONESHOT, NOTE_USECONDS, 200);
		EQ(ONE(kq).data, 1);
	}
	NONE(kq);
	close(kq);
}

CHECK(a_ready_user_event_does_not_starve_a_timer)
{
	int kq = kqueue(), timer = 0, i;
	struct kevent e[1];
	EQ(change(kq, 9, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL), 0);
	TIMER(kq, 1, EV_ONESHOT, 0, 1);
	for (i = 0; !timer && i < 10000000; i++) {
		EQ(collect(kq, e, 1, 1000), 1);
		timer = e[0].filter == EVFILT_TIMER;
	}
	OK(timer);
	close(kq);
}

CHECKS(
	C(a_readd_starts_again_from_now)
	C(a_readd_takes_the_new_time_unit_and_udata)
	C(a_readd_may_lengthen_an_armed_timer)
	C(a_readd_forgets_what_had_expired)
	C(a_delete_takes_an_unreported_expiry_along)
	C(a_disabled_timer_runs_on_and_counts)
	C(a_timer_added_disabled_runs_and_counts)
	C(a_dispatched_timer_runs_on_and_counts)
	C(a_disabled_oneshot_waits_for_enable)
	C(a_disabled_timer_wakes_nobody_and_uses_no_cpu)
	C(enable_of_an_enabled_timer_does_not_restart_it)
	C(a_timer_takes_any_number_even_that_of_a_descriptor)
	C(two_queues_keep_their_timers_apart)
	C(three_thousand_timers_with_a_limit_of_64_descriptors)
	C(a_hundred_thousand_timers_are_added_and_deleted)
	C(a_hundred_thousand_timers_all_fire)
	C(timers_that_are_not_due_use_no_cpu)
	C(poll_sees_the_queue_readable_at_expiry_and_not_before)
	C(poll_sees_an_absolute_timer_too)
	C(a_timeout_shorter_than_the_timer_ends_the_wait)
	C(an_earlier_timer_added_meanwhile_wakes_the_sleeper)
	C(a_timer_may_be_added_again_from_its_own_event)
	C(a_ready_user_event_does_not_starve_a_timer)
);
