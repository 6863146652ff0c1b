/* EVFILT_USER: the program's own events. */
#include "harness.h"
#include <sys/resource.h>

#define ADD(kq, id, flags) EQ(change(kq, id, EVFILT_USER, EV_ADD | (flags), 0, 0, NULL), 0)
#define TRIGGER(kq, id) EQ(change(kq, id, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL), 0)

enum { MANY = 100000, BATCH = 1000 };

/* The same change for every ident in [0, n), in calls of BATCH changes. */
static void change_many(int kq, int n, int flags, unsigned fflags)
{
	static struct kevent ch[BATCH];
	int i, j;
	for (i = 0; i < n; i += BATCH) {
		for (j = 0; j < BATCH && i + j < n; j++)
			EV_SET(&ch[j], i + j, EVFILT_USER, flags, fflags, 0, NULL);
		EQ(kevent(kq, ch, j, NULL, 0, NULL), 0);
	}
}

CHECK(user_event_is_silent_until_triggered)
{
	int kq = kqueue();
	ADD(kq, 1, 0);
	NONE(kq);
	TRIGGER(kq, 1);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

CHECK(user_event_carries_its_ident_filter_and_all_bits_of_udata)
{
	int kq = kqueue();
	void *udata = (void *)(uintptr_t)0xfedcba9876543210ULL;
	struct kevent e;
	EQ(change(kq, 5, EVFILT_USER, EV_ADD, 0, 0, NULL), 0);
	EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER, 0, udata), 0);
	e = ONE(kq);
	EQ(e.ident, 5);
	EQ(e.filter, EVFILT_USER);
	EQ(e.flags, 0);
	OK(e.udata == udata);
	close(kq);
}

CHECK(any_number_will_do_as_ident)
{
	static const uintptr_t ids[] = { 0, 1, INT32_MAX, (uintptr_t)INT32_MAX + 1, (uintptr_t)1 << 33,
		(uintptr_t)INTPTR_MAX, (uintptr_t)INTPTR_MAX + 1, UINTPTR_MAX };
	struct kevent ev[16];
	int kq = kqueue(), n = sizeof ids / sizeof *ids, i;
	for (i = 0; i < n; i++)
		ADD(kq, ids[i], EV_CLEAR);
	for (i = 0; i < n; i++)
		TRIGGER(kq, ids[i]);
	EQ(collect(kq, ev, 16, 10000), n);
	for (i = 0; i < n; i++)
		OK(ev[i].ident == ids[i]);
	for (i = 0; i < n; i++)
		EQ(change(kq, ids[i], EVFILT_USER, EV_DELETE, 0, 0, NULL), 0);
	close(kq);
}

CHECK(two_queues_keep_their_user_events_apart)
{
	int a = kqueue(), b = kqueue();
	ADD(a, 1, EV_CLEAR);
	ADD(b, 1, EV_CLEAR);
	TRIGGER(a, 1);
	NONE(b);
	EQ(ONE(a).ident, 1);
	EQ(change(a, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL), 0);
	TRIGGER(b, 1);
	EQ(ONE(b).ident, 1);
	close(a);
	close(b);
}

CHECK(hundreds_of_user_events_need_no_descriptor_each)
{
	struct rlimit lim = { 64, 64 };
	struct kevent ev[600];
	int kq, before;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	kq = kqueue();
	OK(kq >= 0);
	before = count_fds();
	change_many(kq, 600, EV_ADD | EV_CLEAR, 0);
	change_many(kq, 600, 0, NOTE_TRIGGER);
	EQ(count_fds(), before);
	EQ(collect(kq, ev, 600, 10000), 600);
	close(kq);
}

CHECK(a_hundred_thousand_user_events_in_one_queue)
{
	static struct kevent ev[MANY];
	static char seen[MANY];
	int kq = kqueue(), before = count_fds(), i;
	change_many(kq, MANY, EV_ADD, 0);
	change_many(kq, MANY, 0, NOTE_TRIGGER);
	EQ(count_fds(), before);
	EQ(collect(kq, ev, MANY, 10000), MANY);
	for (i = 0; i < MANY; i++) {
		OK(ev[i].ident < MANY && !seen[ev[i].ident]);
		seen[ev[i].ident] = 1;
	}
	change_many(kq, MANY, EV_DELETE, 0);
	NONE(kq);
	FAILS(change(kq, MANY - 1, EVFILT_USER, EV_DELETE, 0, 0, NULL), ENOENT);
	close(kq);
}

CHECK(a_level_trigger_is_returned_by_every_call)
{
	int kq = kqueue();
	ADD(kq, 1, 0);
	TRIGGER(kq, 1);
	EQ(ONE(kq).ident, 1);
	EQ(ONE(kq).ident, 1);
	EQ(ONE(kq).ident, 1);
	EQ(change(kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL), 0);
	NONE(kq);
	close(kq);
}

CHECK(a_clear_trigger_is_returned_once)
{
	int kq = kqueue();
	ADD(kq, 1, EV_CLEAR);
	TRIGGER(kq, 1);
	EQ(ONE(kq).flags, EV_CLEAR);
	NONE(kq);
	TRIGGER(kq, 1);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	close(kq);
}

CHECK(triggers_before_a_collect_merge_into_one)
{
	int kq = kqueue(), i;
	ADD(kq, 1, EV_CLEAR);
	for (i = 0; i < 10; i++)
		TRIGGER(kq, 1);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	close(kq);
}

CHECK(a_change_with_clear_takes_a_level_trigger_back)
{
	int kq = kqueue();
	ADD(kq, 1, 0);
	TRIGGER(kq, 1);
	EQ(ONE(kq).ident, 1);
	EQ(change(kq, 1, EVFILT_USER, EV_CLEAR, 0, 0, NULL), 0);
	NONE(kq);
	TRIGGER(kq, 1);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

/* A control operation with 24 bits, then what the knote holds. */
static unsigned stored_after(int kq, unsigned op)
{
	struct kevent e;
	EQ(change(kq, 1, EVFILT_USER, 0, op, 0, NULL), 0);
	if (!(op & NOTE_TRIGGER)) {
		NONE(kq);
		TRIGGER(kq, 1);
	}
	e = ONE(kq);
	return e.fflags;
}

CHECK(the_four_operations_on_stored_flags_without_a_trigger)
{
	int kq = kqueue();
	EQ(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL), 0);
	EQ(stored_after(kq, NOTE_FFCOPY | 0xabcdef), 0xabcdef);
	EQ(stored_after(kq, NOTE_FFNOP | 0x123), 0xabcdef);
	EQ(stored_after(kq, NOTE_FFAND | 0x00ffff), 0x00cdef);
	EQ(stored_after(kq, NOTE_FFOR | 0x110000), 0x11cdef);
	close(kq);
}

CHECK(the_four_operations_on_stored_flags_with_a_trigger)
{
	int kq = kqueue();
	EQ(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL), 0);
	EQ(stored_after(kq, NOTE_TRIGGER | NOTE_FFCOPY | 0xabcdef), 0xabcdef);
	EQ(stored_after(kq, NOTE_TRIGGER | NOTE_FFNOP | 0x123), 0xabcdef);
	EQ(stored_after(kq, NOTE_TRIGGER | NOTE_FFAND | 0x00ffff), 0x00cdef);
	EQ(stored_after(kq, NOTE_TRIGGER | NOTE_FFOR | 0x110000), 0x11cdef);
	close(kq);
}

CHECK(operations_merge_until_the_event_is_collected)
{
	int kq = kqueue();
	EQ(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL), 0);
	EQ(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFOR | 1, 0, NULL), 0);
	EQ(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFOR | 4, 0, NULL), 0);
	EQ(ONE(kq).fflags, 5);
	NONE(kq);
	close(kq);
}

CHECK(fflags_of_the_add_are_the_first_stored_ones)
{
	int kq = kqueue();
	EQ(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0x42, 0, NULL), 0);
	NONE(kq);
	TRIGGER(kq, 1);
	EQ(ONE(kq).fflags, 0x42);
	close(kq);
}

CHECK(control_bits_are_never_returned)
{
	int kq = kqueue();
	EQ(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_FFCOPY | 0x3f000007, 0, NULL), 0);
	EQ(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFOR | 0x3f000008, 0, NULL), 0);
	EQ(ONE(kq).fflags, 0xf);
	close(kq);
}

CHECK(data_of_the_trigger_comes_back)
{
	int kq = kqueue();
	ADD(kq, 1, EV_CLEAR);
	EQ(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, INTPTR_MIN, NULL), 0);
	OK(ONE(kq).data == INTPTR_MIN);
	EQ(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, 77, NULL), 0);
	EQ(ONE(kq).data, 77);
	close(kq);
}

CHECK(add_and_trigger_in_one_change_triggers)
{
	int kq = kqueue();
	struct kevent e;
	EQ(change(kq, 1, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER | NOTE_FFCOPY | 3, 9, &kq), 0);
	e = ONE(kq);
	EQ(e.fflags, 3);
	EQ(e.data, 9);
	OK(e.udata == &kq);
	NONE(kq);
	EQ(change(kq, 2, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, NULL), 0);
	EQ(ONE(kq).ident, 2);
	NONE(kq);
	close(kq);
}

CHECK(add_trigger_and_collect_in_one_call)
{
	int kq = kqueue();
	struct kevent ch[2], ev[2];
	EV_SET(&ch[0], 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
	EV_SET(&ch[1], 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
	EQ(kevent(kq, ch, 2, ev, 2, NULL), 1);
	EQ(ev[0].ident, 1);
	close(kq);
}

CHECK(a_trigger_while_disabled_waits_for_enable)
{
	int kq = kqueue();
	ADD(kq, 1, EV_CLEAR | EV_DISABLE);
	TRIGGER(kq, 1);
	NONE(kq);
	EQ(change(kq, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL), 0);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	close(kq);
}

CHECK(disable_hides_a_pending_trigger)
{
	int kq = kqueue();
	ADD(kq, 1, 0);
	TRIGGER(kq, 1);
	EQ(change(kq, 1, EVFILT_USER, EV_DISABLE, 0, 0, NULL), 0);
	NONE(kq);
	EQ(change(kq, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL), 0);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

CHECK(enable_and_trigger_in_one_change)
{
	int kq = kqueue();
	ADD(kq, 1, EV_CLEAR | EV_DISABLE);
	EQ(change(kq, 1, EVFILT_USER, EV_ENABLE, NOTE_TRIGGER, 0, NULL), 0);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	close(kq);
}

CHECK(disable_and_trigger_in_one_change_stays_silent)
{
	int kq = kqueue();
	ADD(kq, 1, EV_CLEAR);
	EQ(change(kq, 1, EVFILT_USER, EV_DISABLE, NOTE_TRIGGER, 0, NULL), 0);
	NONE(kq);
	EQ(change(kq, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL), 0);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

CHECK(dispatch_reports_once_and_disables)
{
	int kq = kqueue();
	ADD(kq, 1, EV_DISPATCH | EV_CLEAR);
	TRIGGER(kq, 1);
	EQ(ONE(kq).flags & EV_DISPATCH, EV_DISPATCH);
	TRIGGER(kq, 1);
	NONE(kq);
	EQ(change(kq, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL), 0);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

CHECK(dispatch_with_clear_and_no_new_trigger_is_silent_after_enable)
{
	int kq = kqueue();
	ADD(kq, 1, EV_DISPATCH | EV_CLEAR);
	TRIGGER(kq, 1);
	EQ(ONE(kq).ident, 1);
	EQ(change(kq, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL), 0);
	NONE(kq);
	close(kq);
}

CHECK(a_level_dispatch_is_still_triggered_after_enable)
{
	int kq = kqueue();
	ADD(kq, 1, EV_DISPATCH);
	TRIGGER(kq, 1);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	EQ(change(kq, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL), 0);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	close(kq);
}

CHECK(oneshot_reports_once_and_is_gone)
{
	int kq = kqueue();
	struct kevent e;
	EQ(change(kq, 1, EVFILT_USER, EV_ADD | EV_ONESHOT, 0, 0, NULL), 0);
	EQ(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFCOPY | 6, 8, NULL), 0);
	e = ONE(kq);
	EQ(e.flags & EV_ONESHOT, EV_ONESHOT);
	EQ(e.fflags, 6);
	EQ(e.data, 8);
	NONE(kq);
	FAILS(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL), ENOENT);
	FAILS(change(kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL), ENOENT);
	close(kq);
}

CHECK(a_trigger_of_an_unknown_ident_is_ENOENT)
{
	int kq = kqueue();
	FAILS(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL), ENOENT);
	ADD(kq, 1, 0);
	FAILS(change(kq, 2, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL), ENOENT);
	FAILS(change(kq, 2, EVFILT_USER, EV_ENABLE, NOTE_TRIGGER, 0, NULL), ENOENT);
	close(kq);
}

CHECK(delete_takes_a_pending_trigger_along)
{
	int kq = kqueue();
	ADD(kq, 1, EV_CLEAR);
	TRIGGER(kq, 1);
	EQ(change(kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL), 0);
	NONE(kq);
	ADD(kq, 1, EV_CLEAR);
	NONE(kq);
	close(kq);
}

CHECK(user_events_come_in_the_order_of_their_triggers)
{
	static const int order[] = { 5, 3, 9, 1 };
	struct kevent ev[8];
	int kq = kqueue(), i;
	for (i = 0; i < 10; i++)
		ADD(kq, i, EV_CLEAR);
	for (i = 0; i < 4; i++)
		TRIGGER(kq, order[i]);
	TRIGGER(kq, 3);
	EQ(collect(kq, ev, 8, 10000), 4);
	for (i = 0; i < 4; i++)
		EQ(ev[i].ident, order[i]);
	close(kq);
}

CHECK(level_user_events_take_turns)
{
	struct kevent ev[1];
	int kq = kqueue(), seen[3] = { 0, 0, 0 }, i;
	for (i = 0; i < 3; i++) {
		ADD(kq, i, 0);
		TRIGGER(kq, i);
	}
	for (i = 0; i < 6; i++) {
		EQ(collect(kq, ev, 1, 10000), 1);
		seen[ev[0].ident]++;
	}
	for (i = 0; i < 3; i++)
		EQ(seen[i], 2);
	close(kq);
}

struct waiter { int kq, n; uintptr_t ident; pthread_t thread; };

static void *wait_for_one(void *arg)
{
	struct waiter *w = arg;
	struct kevent ev[1];
	w->n = collect(w->kq, ev, 1, 20000);
	w->ident = ev[0].ident;
	return NULL;
}

CHECK(a_trigger_from_another_thread_wakes_a_waiter)
{
	struct waiter w = { kqueue(), 0, 0, 0 };
	int round;
	ADD(w.kq, 4, EV_CLEAR);
	for (round = 0; round < 100; round++) {
		OK(pthread_create(&w.thread, NULL, wait_for_one, &w) == 0);
		TRIGGER(w.kq, 4);
		pthread_join(w.thread, NULL);
		EQ(w.n, 1);
		EQ(w.ident, 4);
	}
	close(w.kq);
}

CHECK(one_trigger_wakes_exactly_one_of_four_waiters)
{
	struct waiter w[4];
	int kq = kqueue(), i, got[4] = { 0, 0, 0, 0 };
	for (i = 0; i < 4; i++) {
		ADD(kq, i, EV_CLEAR);
		w[i] = (struct waiter){ kq, 0, 0, 0 };
		OK(pthread_create(&w[i].thread, NULL, wait_for_one, &w[i]) == 0);
	}
	for (i = 0; i < 4; i++)
		TRIGGER(kq, i);
	for (i = 0; i < 4; i++) {
		pthread_join(w[i].thread, NULL);
		EQ(w[i].n, 1);
		got[w[i].ident]++;
	}
	for (i = 0; i < 4; i++)
		EQ(got[i], 1);
	NONE(kq);
	close(kq);
}

/* Ping-pong: a trigger lost between a waiter's check and its sleep hangs this. */
static void *answer(void *arg)
{
	int *kq = arg, i;
	for (i = 0; i < 5000; i++) {
		EQ(ONE(kq[0]).ident, 1);
		TRIGGER(kq[1], 1);
	}
	return NULL;
}

CHECK(no_trigger_is_lost_in_ten_thousand)
{
	int kq[2] = { kqueue(), kqueue() }, i;
	pthread_t t;
	ADD(kq[0], 1, EV_CLEAR);
	ADD(kq[1], 1, EV_CLEAR);
	OK(pthread_create(&t, NULL, answer, kq) == 0);
	for (i = 0; i < 5000; i++) {
		TRIGGER(kq[0], 1);
		EQ(ONE(kq[1]).ident, 1);
	}
	pthread_join(t, NULL);
	NONE(kq[0]);
	NONE(kq[1]);
	close(kq[0]);
	close(kq[1]);
}

CHECK(a_trigger_makes_the_queue_readable_for_poll)
{
	int kq = kqueue();
	struct pollfd p = { kq, POLLIN, 0 };
	ADD(kq, 1, EV_CLEAR);
	EQ(poll(&p, 1, 0), 0);
	TRIGGER(kq, 1);
	EQ(poll(&p, 1, 10000), 1);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	EQ(poll(&p, 1, 0), 0);
	close(kq);
}

CHECK(a_disabled_trigger_leaves_the_queue_unreadable_for_poll)
{
	int kq = kqueue();
	struct pollfd p = { kq, POLLIN, 0 };
	ADD(kq, 1, EV_DISABLE);
	NONE(kq);
	TRIGGER(kq, 1);
	EQ(poll(&p, 1, 20), 0);
	EQ(change(kq, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL), 0);
	EQ(poll(&p, 1, 10000), 1);
	close(kq);
}

CHECKS(
	C(user_event_is_silent_until_triggered)
	C(user_event_carries_its_ident_filter_and_all_bits_of_udata)
	C(any_number_will_do_as_ident)
	C(two_queues_keep_their_user_events_apart)
	C(hundreds_of_user_events_need_no_descriptor_each)
	C(a_hundred_thousand_user_events_in_one_queue)
	C(a_level_trigger_is_returned_by_every_call)
	C(a_clear_trigger_is_returned_once)
	C(triggers_before_a_collect_merge_into_one)
	C(a_change_with_clear_takes_a_level_trigger_back)
	C(the_four_operations_on_stored_flags_without_a_trigger)
	C(the_four_operations_on_stored_flags_with_a_trigger)
	C(operations_merge_until_the_event_is_collected)
	C(fflags_of_the_add_are_the_first_stored_ones)
	C(control_bits_are_never_returned)
	C(data_of_the_trigger_comes_back)
	C(add_and_trigger_in_one_change_triggers)
	C(add_trigger_and_collect_in_one_call)
	C(a_trigger_while_disabled_waits_for_enable)
	C(disable_hides_a_pending_trigger)
	C(enable_and_trigger_in_one_change)
	C(disable_and_trigger_in_one_change_stays_silent)
	C(dispatch_reports_once_and_disables)
	C(dispatch_with_clear_and_no_new_trigger_is_silent_after_enable)
	C(a_level_dispatch_is_still_triggered_after_enable)
	C(oneshot_reports_once_and_is_gone)
	C(a_trigger_of_an_unknown_ident_is_ENOENT)
	C(delete_takes_a_pending_trigger_along)
	C(user_events_come_in_the_order_of_their_triggers)
	C(level_user_events_take_turns)
	C(a_trigger_from_another_thread_wakes_a_waiter)
	C(one_trigger_wakes_exactly_one_of_four_waiters)
	C(no_trigger_is_lost_in_ten_thousand)
	C(a_trigger_makes_the_queue_readable_for_poll)
	C(a_disabled_trigger_leaves_the_queue_unreadable_for_poll)
);
