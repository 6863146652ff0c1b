/* EVFILT_TIMER: units, periods, absolute times, errors. Bounds are of one kind: never early; lateness is the machine's. */
#include "harness.h"

#define MS 1000000LL
#define TIMER(kq, id, flags, unit, n) EQ(change(kq, id, EVFILT_TIMER, EV_ADD | (flags), unit, n, NULL), 0)
#define REFUSED(kq, id, unit, n) do { FAILS(change(kq, id, EVFILT_TIMER, EV_ADD | EV_ONESHOT, unit, n, NULL), EINVAL); \
	FAILS(change(kq, id, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), ENOENT); } while (0)
#define GONE(kq, id) FAILS(change(kq, id, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), ENOENT)

static long long wall_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* A one-shot timer of n units must fire, and not before least nanoseconds. */
static void fires_after(unsigned unit, intptr_t n, long long least)
{
	int kq = kqueue();
	long long start = now_ns();
	struct kevent e;
	TIMER(kq, 1, EV_ONESHOT, unit, n);
	e = ONE(kq);
	OK(now_ns() - start >= least);
	EQ(e.data, 1);
	close(kq);
}

CHECK(a_timer_without_a_unit_counts_milliseconds) { fires_after(0, 20, 20 * MS); }
CHECK(note_mseconds_counts_milliseconds) { fires_after(NOTE_MSECONDS, 20, 20 * MS); }
CHECK(note_useconds_counts_microseconds) { fires_after(NOTE_USECONDS, 20000, 20 * MS); }
CHECK(note_nseconds_counts_nanoseconds) { fires_after(NOTE_NSECONDS, 20000000, 20 * MS); }
CHECK(note_seconds_counts_seconds) { fires_after(NOTE_SECONDS, 1, 1000 * MS); }

CHECK(a_timer_event_names_its_knote)
{
	int kq = kqueue();
	struct kevent e;
	EQ(change(kq, 7, EVFILT_TIMER, EV_ADD, NOTE_USECONDS, 100, &kq), 0);
	e = ONE(kq);
	EQ(e.ident, 7);
	EQ(e.filter, EVFILT_TIMER);
	OK(e.udata == &kq);
	OK(e.data >= 1);
	close(kq);
}

CHECK(a_periodic_timer_fires_again_and_again_and_clears_itself)
{
	int kq = kqueue(), i;
	long long start = now_ns(), fired = 0;
	TIMER(kq, 1, 0, 0, 5);
	for (i = 0; i < 5; i++) {
		struct kevent e = ONE(kq);
		EQ(e.flags, EV_CLEAR);
		fired += e.data;
		OK(now_ns() - start >= fired * 5 * MS);
	}
	close(kq);
}

CHECK(a_reported_expiry_is_not_reported_again)
{
	int kq = kqueue();
	TIMER(kq, 1, 0, NOTE_SECONDS, 1000);
	TIMER(kq, 2, 0, 0, 200);
	EQ(ONE(kq).ident, 2);
	NONE(kq);
	close(kq);
}

CHECK(a_oneshot_timer_fires_once_and_is_gone)
{
	int kq = kqueue();
	struct kevent e;
	TIMER(kq, 1, EV_ONESHOT, 0, 1);
	e = ONE(kq);
	EQ(e.data, 1);
	EQ(e.flags & EV_ONESHOT, EV_ONESHOT);
	GONE(kq, 1);
	EQ(collect(kq, &e, 1, 10), 0);
	close(kq);
}

CHECK(a_late_collected_oneshot_still_says_one)
{
	int kq = kqueue();
	long long start = now_ns();
	TIMER(kq, 1, EV_ONESHOT, 0, 1);
	UNTIL(now_ns() - start > 15 * MS);
	EQ(ONE(kq).data, 1);
	close(kq);
}

CHECK(two_units_in_one_change_are_EINVAL)
{
	int kq = kqueue();
	REFUSED(kq, 1, NOTE_SECONDS | NOTE_USECONDS, 1);
	REFUSED(kq, 1, NOTE_SECONDS | NOTE_NSECONDS, 1);
	REFUSED(kq, 1, NOTE_USECONDS | NOTE_NSECONDS, 1);
	REFUSED(kq, 1, NOTE_SECONDS | NOTE_MSECONDS, 1);
	close(kq);
}

CHECK(unknown_bits_are_EINVAL)
{
	int kq = kqueue();
	REFUSED(kq, 1, 0x20, 1);
	REFUSED(kq, 1, 0x80000000U, 1);
	REFUSED(kq, 1, NOTE_SECONDS | 0x100, 1);
	close(kq);
}

CHECK(a_negative_time_is_EINVAL_and_adds_nothing)
{
	int kq = kqueue();
	REFUSED(kq, 1, 0, -1);
	REFUSED(kq, 1, NOTE_NSECONDS, INTPTR_MIN);
	REFUSED(kq, 1, NOTE_ABSTIME, -1);
	close(kq);
}

CHECK(a_refused_change_leaves_the_timer_as_it_was)
{
	int kq = kqueue();
	TIMER(kq, 1, EV_ONESHOT, 0, 10);
	FAILS(change(kq, 1, EVFILT_TIMER, EV_ADD, 0, -5, NULL), EINVAL);
	FAILS(change(kq, 1, EVFILT_TIMER, EV_ADD, NOTE_SECONDS | NOTE_NSECONDS, 5, NULL), EINVAL);
	EQ(ONE(kq).data, 1);
	close(kq);
}

CHECK(a_oneshot_of_zero_fires_at_once)
{
	static const unsigned units[] = { 0, NOTE_SECONDS, NOTE_MSECONDS, NOTE_USECONDS, NOTE_NSECONDS };
	int kq = kqueue(), i;
	for (i = 0; i < 5; i++) {
		struct kevent e[1];
		TIMER(kq, i, EV_ONESHOT, units[i], 0);
		EQ(collect(kq, e, 1, 0), 1);
		EQ(e[0].ident, i);
		EQ(e[0].data, 1);
		GONE(kq, i);
	}
	close(kq);
}

CHECK(a_period_of_zero_is_one_unit)
{
	int kq = kqueue(), i;
	long long start = now_ns(), fired = 0;
	TIMER(kq, 1, 0, 0, 0);
	for (i = 0; i < 5; i++) {
		fired += ONE(kq).data;
		OK(now_ns() - start >= fired * MS);
	}
	TIMER(kq, 2, EV_DISABLE, NOTE_SECONDS, 0);
	EQ(change(kq, 1, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	EQ(change(kq, 2, EVFILT_TIMER, EV_ENABLE, 0, 0, NULL), 0);
	NONE(kq);
	close(kq);
}

CHECK(a_huge_time_is_accepted_and_never_fires)
{
	static const struct { unsigned unit; intptr_t n; } huge[] = {
		{ 0, INTPTR_MAX }, { NOTE_SECONDS, INTPTR_MAX }, { NOTE_MSECONDS, INTPTR_MAX },
		{ NOTE_USECONDS, INTPTR_MAX }, { NOTE_NSECONDS, INTPTR_MAX },
		{ NOTE_ABSTIME, INTPTR_MAX }, { NOTE_ABSTIME | NOTE_SECONDS, INTPTR_MAX },
		{ NOTE_ABSTIME | NOTE_USECONDS, INTPTR_MAX }, { NOTE_ABSTIME | NOTE_NSECONDS, INTPTR_MAX },
		/* Around the point where nanoseconds no longer fit 63 bits. */
		{ NOTE_SECONDS, INTPTR_MAX / 1000000000 }, { NOTE_SECONDS, INTPTR_MAX / 1000000000 + 1 },
		{ 0, INTPTR_MAX / 1000000 }, { 0, INTPTR_MAX / 1000000 + 1 },
		{ NOTE_USECONDS, INTPTR_MAX / 1000 }, { NOTE_USECONDS, INTPTR_MAX / 1000 + 1 } };
	int kq = kqueue(), n = sizeof huge / sizeof *huge, i;
	for (i = 0; i < n; i++) {
		TIMER(kq, i, 0, huge[i].unit, huge[i].n);
		TIMER(kq, i + 100, EV_ONESHOT, huge[i].unit, huge[i].n);
	}
	NONE(kq);
	TIMER(kq, 2000, EV_ONESHOT, 0, 5);
	EQ(ONE(kq).ident, 2000);
	NONE(kq);
	for (i = 0; i < n; i++) {
		EQ(change(kq, i, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
		EQ(change(kq, i + 100, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	}
	close(kq);
}

CHECK(a_timer_is_never_early)
{
	int kq = kqueue(), i;
	unsigned seed = 12345;
	for (i = 0; i < 300; i++) {
		long long ns, start;
		seed = seed * 1103515245 + 12345;
		ns = seed % 1500000 + 1;
		start = now_ns();
		TIMER(kq, i, EV_ONESHOT, NOTE_NSECONDS, ns);
		EQ(ONE(kq).ident, i);
		OK(now_ns() - start >= ns);
	}
	close(kq);
}

CHECK(missed_periods_count_in_data)
{
	int kq = kqueue();
	long long before = now_ns(), after, n;
	TIMER(kq, 1, 0, 0, 5);
	after = now_ns();
	UNTIL(now_ns() - after > 53 * MS);
	n = ONE(kq).data;
	OK(n >= 10);
	OK(n <= (now_ns() - before) / (5 * MS));
	close(kq);
}

CHECK(late_retrieval_makes_no_drift)
{
	int kq = kqueue(), i;
	long long before = now_ns(), after, total = 0, at;
	TIMER(kq, 1, 0, 0, 4);
	after = now_ns();
	for (i = 1; i <= 20; i++) {
		long long due = before + i * 11 * MS;
		UNTIL(now_ns() > due);
		at = now_ns();
		total += ONE(kq).data;
		/* An expiry at the very moment of the call may come with the next. */
		OK(total >= (at - after) / (4 * MS) - 1);
		OK(total <= (now_ns() - before) / (4 * MS));
	}
	close(kq);
}

/* Whether timers of 3, 1 and 2 units, added in less than one, come by their deadlines. */
static int come_in_order(long long unit)
{
	int kq = kqueue(), i, quick;
	long long start = now_ns();
	struct kevent ev;
	TIMER(kq, 30, EV_ONESHOT, NOTE_NSECONDS, 3 * unit);
	TIMER(kq, 10, EV_ONESHOT, NOTE_NSECONDS, 1 * unit);
	TIMER(kq, 20, EV_ONESHOT, NOTE_NSECONDS, 2 * unit);
	quick = now_ns() - start < unit;
	/* Several may be due by now; there is room for one. */
	for (i = 1; i <= 3; i++) {
		EQ(collect(kq, &ev, 1, 10000), 1);
		if (quick)
			EQ(ev.ident, i * 10);
	}
	close(kq);
	return quick;
}

CHECK(timers_come_in_the_order_of_their_deadlines)
{
	long long unit = 10 * MS;
	while (!come_in_order(unit)) {
		unit *= 2;
		OK(unit < 2000 * MS);
	}
}

CHECK(timers_due_together_come_in_the_order_of_their_deadlines)
{
	static const int order[] = { 30, 10, 20, 40 };
	int kq = kqueue(), i;
	long long now = wall_ns();
	struct kevent ev;
	for (i = 0; i < 4; i++)
		TIMER(kq, order[i], EV_ONESHOT, NOTE_ABSTIME | NOTE_NSECONDS, now + (1000 + order[i]) * MS);
	while (wall_ns() < now + 1050 * MS)
		EQ(usleep(1000), 0);
	for (i = 1; i <= 4; i++) {
		EQ(collect(kq, &ev, 1, 0), 1);
		EQ(ev.ident, i * 10);
	}
	close(kq);
}

/* The harvest of 20 timers with one deadline, due by now, added in this order. */
static void come_as_added(int kq)
{
	struct kevent ev[20];
	int i;
	EQ(collect(kq, ev, 20, 10000), 20);
	for (i = 0; i < 20; i++)
		EQ(ev[i].ident, i * 7 % 20);
	close(kq);
}

CHECK(timers_of_one_time_come_in_the_order_they_were_added)
{
	int kq = kqueue(), i;
	long long due = wall_ns() + 100 * MS;
	/* Not in the place it had before. */
	TIMER(kq, 7, EV_ONESHOT, NOTE_ABSTIME | NOTE_NSECONDS, due - 50 * MS);
	for (i = 0; i < 20; i++)
		TIMER(kq, i * 7 % 20, EV_ONESHOT, NOTE_ABSTIME | NOTE_NSECONDS, due);
	while (wall_ns() < due)
		EQ(usleep(1000), 0);
	come_as_added(kq);
}

CHECK(timers_of_one_call_and_delay_come_in_the_order_they_were_added)
{
	int kq = kqueue(), i;
	long long start;
	struct kevent ev[20];
	for (i = 0; i < 20; i++)
		EV_SET(&ev[i], i * 7 % 20, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 10, NULL);
	EQ(kevent(kq, ev, 20, NULL, 0, NULL), 0);
	start = now_ns();
	UNTIL(now_ns() - start > 20 * MS);
	come_as_added(kq);
}

CHECK(an_absolute_time_is_waited_for)
{
	static const struct { unsigned unit; long long ns; } units[] = {
		{ 0, 1000000 }, { NOTE_MSECONDS, 1000000 }, { NOTE_USECONDS, 1000 }, { NOTE_NSECONDS, 1 } };
	int kq = kqueue(), i;
	for (i = 0; i < 4; i++) {
		long long when = (wall_ns() + 15 * MS) / units[i].ns;
		struct kevent e;
		TIMER(kq, i, EV_ONESHOT, NOTE_ABSTIME | units[i].unit, when);
		e = ONE(kq);
		EQ(e.ident, i);
		EQ(e.data, 1);
		OK(wall_ns() >= when * units[i].ns);
		GONE(kq, i);
	}
	close(kq);
}

CHECK(an_absolute_time_in_seconds)
{
	int kq = kqueue();
	long long when = wall_ns() / 1000000000 + 1;
	TIMER(kq, 1, EV_ONESHOT, NOTE_ABSTIME | NOTE_SECONDS, when);
	EQ(ONE(kq).data, 1);
	OK(wall_ns() >= when * 1000000000);
	close(kq);
}

CHECK(note_absolute_is_note_abstime)
{
	int kq = kqueue();
	EQ(NOTE_ABSOLUTE, NOTE_ABSTIME);
	TIMER(kq, 1, EV_ONESHOT, NOTE_ABSOLUTE | NOTE_SECONDS, wall_ns() / 1000000000 + 1000);
	NONE(kq);
	close(kq);
}

CHECK(an_absolute_time_in_the_past_fires_at_once)
{
	int kq = kqueue();
	struct kevent e[1];
	TIMER(kq, 1, EV_ONESHOT, NOTE_ABSTIME | NOTE_SECONDS, wall_ns() / 1000000000 - 3600);
	EQ(collect(kq, e, 1, 0), 1);
	EQ(e[0].data, 1);
	TIMER(kq, 2, EV_ONESHOT, NOTE_ABSTIME, 0);
	EQ(collect(kq, e, 1, 0), 1);
	EQ(e[0].data, 1);
	NONE(kq);
	close(kq);
}

CHECK(an_absolute_timer_stays_reported)
{
	int kq = kqueue(), i;
	TIMER(kq, 1, 0, NOTE_ABSTIME, wall_ns() / MS);
	for (i = 0; i < 3; i++) {
		struct kevent e = ONE(kq);
		EQ(e.ident, 1);
		EQ(e.flags & EV_CLEAR, 0);
		EQ(e.data, 1);
	}
	EQ(change(kq, 1, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	NONE(kq);
	close(kq);
}

CHECK(an_absolute_timer_with_clear_comes_once_and_stays_registered)
{
	int kq = kqueue();
	TIMER(kq, 1, EV_CLEAR, NOTE_ABSTIME, wall_ns() / MS);
	EQ(ONE(kq).data, 1);
	NONE(kq);
	EQ(change(kq, 1, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), 0);
	close(kq);
}

CHECK(an_absolute_and_a_relative_timer_share_a_queue)
{
	int kq = kqueue(), i, seen = 0;
	long long due = wall_ns() + 100 * MS;
	struct kevent ev;
	TIMER(kq, 1, EV_ONESHOT, NOTE_ABSTIME | NOTE_NSECONDS, due);
	TIMER(kq, 2, EV_ONESHOT, 0, 5);
	for (i = 0; i < 2; i++) {
		EQ(collect(kq, &ev, 1, 10000), 1);
		/* On a machine that stood still both may be due at once. */
		if (i == 0 && wall_ns() < due)
			EQ(ev.ident, 2);
		seen |= 1 << ev.ident;
	}
	EQ(seen, 1 << 1 | 1 << 2);
	NONE(kq);
	close(kq);
}

CHECKS(
	C(a_timer_without_a_unit_counts_milliseconds)
	C(note_mseconds_counts_milliseconds)
	C(note_useconds_counts_microseconds)
	C(note_nseconds_counts_nanoseconds)
	C(note_seconds_counts_seconds)
	C(a_timer_event_names_its_knote)
	C(a_periodic_timer_fires_again_and_again_and_clears_itself)
	C(a_reported_expiry_is_not_reported_again)
	C(a_oneshot_timer_fires_once_and_is_gone)
	C(a_late_collected_oneshot_still_says_one)
	C(two_units_in_one_change_are_EINVAL)
	C(unknown_bits_are_EINVAL)
	C(a_negative_time_is_EINVAL_and_adds_nothing)
	C(a_refused_change_leaves_the_timer_as_it_was)
	C(a_oneshot_of_zero_fires_at_once)
	C(a_period_of_zero_is_one_unit)
	C(a_huge_time_is_accepted_and_never_fires)
	C(a_timer_is_never_early)
	C(missed_periods_count_in_data)
	C(late_retrieval_makes_no_drift)
	C(timers_come_in_the_order_of_their_deadlines)
	C(timers_due_together_come_in_the_order_of_their_deadlines)
	C(timers_of_one_time_come_in_the_order_they_were_added)
	C(timers_of_one_call_and_delay_come_in_the_order_they_were_added)
	C(an_absolute_time_is_waited_for)
	C(an_absolute_time_in_seconds)
	C(note_absolute_is_note_abstime)
	C(an_absolute_time_in_the_past_fires_at_once)
	C(an_absolute_timer_stays_reported)
	C(an_absolute_timer_with_clear_comes_once_and_stays_registered)
	C(an_absolute_and_a_relative_timer_share_a_queue)
);
