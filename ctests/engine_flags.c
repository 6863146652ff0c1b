/* The flags of a change, each over a pipe, a socket, a user event and a timer. */
#include "engine_util.h"

static void finish(int kq, struct source *s)
{
	OK(close(kq) == 0);
	source_close(s);
}

/* Takes the condition of a pipe or socket away. */
static void source_calm(struct source *s)
{
	drain(s->fd);
}

/* --- EV_ADD -------------------------------------------------------------- */

OVER_ALL(adding_again_makes_no_second_knote_of_a)
{
	struct source s = source_open(k);
	struct kevent ev[4];
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, UD(5)) == 0);
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, UD(6)) == 0);
	source_fire(kq, &s);
	EQ(collect(kq, ev, 4, 10000), 1);
	EQ((uintptr_t)ev[0].udata, 6);
	NONE(kq);
	OK(apply(kq, &s, EV_DELETE, NULL) == 0);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	finish(kq, &s);
}

OVER_FDS(adding_again_reports_unread_data_of_an_ev_clear_knote_again_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_CLEAR, UD(5)) == 0);
	source_fire(kq, &s);
	EQ((uintptr_t)ONE(kq).udata, 5);
	NONE(kq);
	OK(apply(kq, &s, EV_ADD | EV_CLEAR, UD(6)) == 0);
	EQ((uintptr_t)ONE(kq).udata, 6);
	NONE(kq);
	finish(kq, &s);
}

OVER_FDS(enabling_an_enabled_ev_clear_knote_reports_unread_data_again_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_CLEAR, UD(5)) == 0);
	source_fire(kq, &s);
	ONE(kq);
	NONE(kq);
	OK(apply(kq, &s, EV_ENABLE, UD(6)) == 0);
	EQ((uintptr_t)ONE(kq).udata, 6);
	NONE(kq);
	finish(kq, &s);
}

OVER_FDS(adding_again_keeps_the_mode_of_the_first_time_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	source_fire(kq, &s);
	OK(ONE(kq).flags & EV_CLEAR);
	NONE(kq);
	finish(kq, &s);
}

CHECK(adding_again_replaces_the_fflags_of_a_user_event)
{
	int kq = new_kqueue();
	OK(change(kq, 1, EVFILT_USER, EV_ADD, NOTE_FFCOPY | 0x111, 0, NULL) == 0);
	OK(change(kq, 1, EVFILT_USER, EV_ADD, NOTE_FFCOPY | 0x22, 0, NULL) == 0);
	OK(trigger(kq, 1) == 0);
	EQ(ONE(kq).fflags, 0x22);
	OK(close(kq) == 0);
}

CHECK(adding_again_replaces_the_low_water_mark_of_a_socket)
{
	struct source s = source_open(SOCKET);
	int i, kq = new_kqueue();
	OK(change(kq, s.ident, EVFILT_READ, EV_ADD, NOTE_LOWAT, 10, NULL) == 0);
	for (i = 0; i < 3; i++)
		put(s.peer);
	NONE(kq);
	OK(change(kq, s.ident, EVFILT_READ, EV_ADD, NOTE_LOWAT, 2, NULL) == 0);
	EQ(ONE(kq).data, 3);
	finish(kq, &s);
}

OVER_ALL(adding_a_disabled_knote_again_enables_it_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, UD(5)) == 0);
	OK(apply(kq, &s, EV_DISABLE, UD(5)) == 0);
	source_fire(kq, &s);
	NONE(kq);
	OK(apply(kq, &s, EV_ADD, UD(6)) == 0);
	EQ((uintptr_t)ONE(kq).udata, 6);
	finish(kq, &s);
}

/* --- EV_DISABLE, EV_ENABLE, EV_DELETE ------------------------------------ */

OVER_ALL(added_disabled_it_is_silent_until_enabled_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISABLE, UD(5)) == 0);
	source_fire(kq, &s);
	NONE(kq);
	OK(apply(kq, &s, EV_ENABLE, UD(5)) == 0);
	EQ((uintptr_t)ONE(kq).udata, 5);
	finish(kq, &s);
}

OVER_FDS(added_disabled_on_ready_data_it_is_silent_until_enabled_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	source_fire(kq, &s);
	OK(apply(kq, &s, EV_ADD | EV_DISABLE | EV_CLEAR, NULL) == 0);
	NONE(kq);
	OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	EQ(ONE(kq).data, 1);
	NONE(kq);
	finish(kq, &s);
}

OVER_FDS(added_disabled_and_calm_again_it_stays_silent_when_enabled_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISABLE, NULL) == 0);
	source_fire(kq, &s);
	source_calm(&s);
	OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	NONE(kq);
	finish(kq, &s);
}

OVER_ALL(disabling_hides_a_pending_event_in_the_same_call_on_a)
{
	struct source s = source_open(k);
	struct kevent ch, ev[4];
	struct timespec zero = {0, 0};
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, UD(5)) == 0);
	source_fire(kq, &s);
	ch = source_change(&s, EV_DISABLE, UD(5));
	EQ(kevent(kq, &ch, 1, ev, 4, &zero), 0);
	NONE(kq);
	OK(apply(kq, &s, EV_ENABLE, UD(5)) == 0);
	EQ(ONE(kq).ident, s.ident);
	finish(kq, &s);
}

OVER_ALL(deleting_drops_a_pending_event_in_the_same_call_on_a)
{
	struct source s = source_open(k);
	struct kevent ch, ev[4];
	struct timespec zero = {0, 0};
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	source_fire(kq, &s);
	ch = source_change(&s, EV_DELETE, NULL);
	EQ(kevent(kq, &ch, 1, ev, 4, &zero), 0);
	NONE(kq);
	FAILS(apply(kq, &s, EV_ENABLE, NULL), ENOENT);
	finish(kq, &s);
}

/* With room for one, the rest waits inside the library: it must be dropped as well. */
CHECK(deleting_drops_events_left_over_for_lack_of_room)
{
	struct kevent ev;
	int i, p[8][2], kq = new_kqueue();
	for (i = 0; i < 8; i++) {
		pipe_open(p[i]);
		OK(change(kq, (uintptr_t)p[i][0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL) == 0);
		put(p[i][1]);
	}
	EQ(collect(kq, &ev, 1, 10000), 1);
	for (i = 0; i < 8; i++)
		OK(change(kq, (uintptr_t)p[i][0], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	NONE(kq);
	OK(close(kq) == 0);
	for (i = 0; i < 8; i++)
		pipe_close(p[i]);
}

CHECK(deleting_one_knote_of_a_socket_drops_its_left_over_event)
{
	struct source s = source_open(SOCKET);
	struct kevent ev;
	int other, kq = new_kqueue();
	OK(change(kq, s.ident, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL) == 0);
	OK(change(kq, s.ident, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, NULL) == 0);
	put(s.peer);
	EQ(collect(kq, &ev, 1, 10000), 1);
	other = ev.filter == EVFILT_READ ? EVFILT_WRITE : EVFILT_READ;
	OK(change(kq, s.ident, other, EV_DELETE, 0, 0, NULL) == 0);
	NONE(kq);
	finish(kq, &s);
}

OVER_ALL(enabling_the_enabled_and_disabling_the_disabled_is_fine_on_a)
{
	struct source s = source_open(k);
	struct kevent ev[4];
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, UD(5)) == 0);
	OK(apply(kq, &s, EV_ENABLE, UD(5)) == 0);
	source_fire(kq, &s);
	EQ(collect(kq, ev, 4, 10000), 1);
	OK(apply(kq, &s, EV_DISABLE, UD(5)) == 0);
	OK(apply(kq, &s, EV_DISABLE, UD(5)) == 0);
	source_fire(kq, &s);
	NONE(kq);
	OK(apply(kq, &s, EV_ENABLE, UD(5)) == 0);
	EQ(collect(kq, ev, 4, 10000), 1);
	finish(kq, &s);
}

/* --- EV_ONESHOT, EV_DISPATCH, EV_CLEAR, EV_FORCEONESHOT ------------------ */

OVER_ALL(a_oneshot_knote_gives_one_event_and_is_gone_on_a)
{
	struct source s = source_open(k);
	struct kevent e;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_ONESHOT, UD(5)) == 0);
	source_fire(kq, &s);
	e = ONE(kq);
	OK(e.flags & EV_ONESHOT);
	EQ(e.flags & ORDERS, 0);
	EQ((uintptr_t)e.udata, 5);
	FAILS(apply(kq, &s, EV_ENABLE, NULL), ENOENT);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	if (k == USER)
		FAILS(trigger(kq, s.ident), ENOENT);
	else
		source_fire(kq, &s);
	NONE(kq);
	finish(kq, &s);
}

OVER_ALL(a_oneshot_knote_that_fired_but_was_not_read_can_be_deleted_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_ONESHOT, NULL) == 0);
	source_fire(kq, &s);
	OK(apply(kq, &s, EV_DELETE, NULL) == 0);
	NONE(kq);
	finish(kq, &s);
}

OVER_ALL(a_oneshot_knote_can_be_added_again_and_again_on_a)
{
	struct source s = source_open(k);
	int i, kq = new_kqueue();
	for (i = 1; i <= 20; i++) {
		OK(apply(kq, &s, EV_ADD | EV_ONESHOT, UD(i)) == 0);
		source_fire(kq, &s);
		EQ((uintptr_t)ONE(kq).udata, i);
		NONE(kq);
	}
	finish(kq, &s);
}

OVER_ALL(a_dispatch_knote_is_disabled_after_each_event_on_a)
{
	struct source s = source_open(k);
	struct kevent e;
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, UD(5)) == 0);
	source_fire(kq, &s);
	for (i = 0; i < 3; i++) {
		e = ONE(kq);
		OK(e.flags & EV_DISPATCH);
		EQ(e.flags & ORDERS, 0);
		EQ((uintptr_t)e.udata, 5);
		source_fire(kq, &s);
		NONE(kq);
		OK(apply(kq, &s, EV_ENABLE, UD(5)) == 0);
	}
	OK(apply(kq, &s, EV_DELETE, NULL) == 0);
	finish(kq, &s);
}

OVER_FDS(enabling_a_dispatch_knote_reports_only_if_the_condition_holds_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, NULL) == 0);
	source_fire(kq, &s);
	ONE(kq);
	source_calm(&s);
	OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	NONE(kq);
	source_fire(kq, &s);
	EQ(ONE(kq).data, 1);
	finish(kq, &s);
}

OVER_FDS(enabling_a_clear_dispatch_knote_reports_old_data_again_on_a)
{
	struct source s = source_open(k);
	struct kevent e;
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_CLEAR | EV_DISPATCH, NULL) == 0);
	source_fire(kq, &s);
	for (i = 0; i < 3; i++) {
		e = ONE(kq);
		EQ(e.data, 1);
		EQ(e.flags & (EV_CLEAR | EV_DISPATCH), EV_CLEAR | EV_DISPATCH);
		NONE(kq);
		OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	}
	finish(kq, &s);
}

CHECK(a_clear_dispatch_user_event_needs_a_trigger_after_enabling)
{
	int kq = new_kqueue();
	OK(add_user(kq, 1, EV_CLEAR | EV_DISPATCH) == 0);
	OK(trigger(kq, 1) == 0);
	ONE(kq);
	OK(change(kq, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL) == 0);
	NONE(kq);
	OK(trigger(kq, 1) == 0);
	EQ(ONE(kq).ident, 1);
	OK(close(kq) == 0);
}

OVER_FDS(a_clear_knote_reports_each_arrival_once_on_a)
{
	struct source s = source_open(k);
	struct kevent e;
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_CLEAR, NULL) == 0);
	for (i = 1; i <= 5; i++) {
		source_fire(kq, &s);
		e = ONE(kq);
		EQ(e.data, i);
		OK(e.flags & EV_CLEAR);
		NONE(kq);
	}
	finish(kq, &s);
}

OVER_ALL(forceoneshot_gives_one_event_of_a_quiet)
{
	struct source s = source_open(k);
	struct kevent e;
	int kq = new_kqueue();
	s.period = 3600000;
	OK(apply(kq, &s, EV_ADD, UD(5)) == 0);
	NONE(kq);
	OK(apply(kq, &s, EV_FORCEONESHOT, UD(6)) == 0);
	e = ONE(kq);
	EQ(e.ident, s.ident);
	EQ(e.filter, s.filter);
	EQ((uintptr_t)e.udata, 6);
	OK(e.flags & EV_ONESHOT);
	NONE(kq);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	finish(kq, &s);
}

OVER_ALL(forceoneshot_on_a_new_knote_gives_one_event_of_a_quiet)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	s.period = 3600000;
	OK(apply(kq, &s, EV_ADD | EV_FORCEONESHOT, UD(6)) == 0);
	EQ((uintptr_t)ONE(kq).udata, 6);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	finish(kq, &s);
}

/* --- udata --------------------------------------------------------------- */

OVER_ALL(any_change_stores_its_udata_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH, UD(5)) == 0);
	OK(apply(kq, &s, EV_DISABLE, UD(6)) == 0);
	source_fire(kq, &s);
	OK(apply(kq, &s, EV_ENABLE | EV_KEEPUDATA, UD(7)) == 0);
	EQ((uintptr_t)ONE(kq).udata, 6);
	OK(apply(kq, &s, EV_ENABLE, UD(8)) == 0);
	source_fire(kq, &s);
	EQ((uintptr_t)ONE(kq).udata, 8);
	OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	source_fire(kq, &s);
	EQ((uintptr_t)ONE(kq).udata, 0);
	finish(kq, &s);
}

OVER_ALL(a_change_without_orders_stores_its_udata_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, UD(5)) == 0);
	OK(apply(kq, &s, 0, UD(6)) == 0);
	source_fire(kq, &s);
	EQ((uintptr_t)ONE(kq).udata, 6);
	finish(kq, &s);
}

OVER_ALL(keepudata_keeps_the_stored_udata_of_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, UD(5)) == 0);
	OK(apply(kq, &s, EV_DISABLE | EV_KEEPUDATA, UD(6)) == 0);
	OK(apply(kq, &s, EV_ENABLE | EV_KEEPUDATA, NULL) == 0);
	OK(apply(kq, &s, EV_KEEPUDATA, NULL) == 0);
	source_fire(kq, &s);
	EQ((uintptr_t)ONE(kq).udata, 5);
	finish(kq, &s);
}

OVER_ALL(udata_comes_back_with_all_its_bits_from_a)
{
	static const uintptr_t values[] = { 0, 1, UINTPTR_MAX, (uintptr_t)INTPTR_MIN,
		(uintptr_t)0xfedcba9876543210ull, (uintptr_t)0xffffffff00000000ull };
	struct source s = source_open(k);
	int kq = new_kqueue();
	unsigned i;
	OK(apply(kq, &s, EV_ADD | EV_DISPATCH | EV_DISABLE, NULL) == 0);
	source_fire(kq, &s);
	for (i = 0; i < sizeof values / sizeof *values; i++) {
		OK(apply(kq, &s, EV_ENABLE, UD(values[i])) == 0);
		source_fire(kq, &s);
		OK(ONE(kq).udata == UD(values[i]));
	}
	finish(kq, &s);
}

OVER_ALL(the_flags_of_an_event_are_the_stored_ones_on_a)
{
	struct source s = source_open(k);
	struct kevent e;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_ENABLE, NULL) == 0);
	source_fire(kq, &s);
	e = ONE(kq);
	EQ(e.flags, k == TIMER ? EV_CLEAR : 0);
	finish(kq, &s);
}

CHECKS(ALL(adding_again_makes_no_second_knote_of_a)
	FDS(adding_again_reports_unread_data_of_an_ev_clear_knote_again_on_a)
	FDS(enabling_an_enabled_ev_clear_knote_reports_unread_data_again_on_a)
	FDS(adding_again_keeps_the_mode_of_the_first_time_on_a)
	C(adding_again_replaces_the_fflags_of_a_user_event)
	C(adding_again_replaces_the_low_water_mark_of_a_socket)
	ALL(adding_a_disabled_knote_again_enables_it_on_a)
	ALL(added_disabled_it_is_silent_until_enabled_on_a)
	FDS(added_disabled_on_ready_data_it_is_silent_until_enabled_on_a)
	FDS(added_disabled_and_calm_again_it_stays_silent_when_enabled_on_a)
	ALL(disabling_hides_a_pending_event_in_the_same_call_on_a)
	ALL(deleting_drops_a_pending_event_in_the_same_call_on_a)
	C(deleting_drops_events_left_over_for_lack_of_room)
	C(deleting_one_knote_of_a_socket_drops_its_left_over_event)
	ALL(enabling_the_enabled_and_disabling_the_disabled_is_fine_on_a)
	ALL(a_oneshot_knote_gives_one_event_and_is_gone_on_a)
	ALL(a_oneshot_knote_that_fired_but_was_not_read_can_be_deleted_on_a)
	ALL(a_oneshot_knote_can_be_added_again_and_again_on_a)
	ALL(a_dispatch_knote_is_disabled_after_each_event_on_a)
	FDS(enabling_a_dispatch_knote_reports_only_if_the_condition_holds_on_a)
	FDS(enabling_a_clear_dispatch_knote_reports_old_data_again_on_a)
	C(a_clear_dispatch_user_event_needs_a_trigger_after_enabling)
	FDS(a_clear_knote_reports_each_arrival_once_on_a)
	ALL(forceoneshot_gives_one_event_of_a_quiet)
	ALL(forceoneshot_on_a_new_knote_gives_one_event_of_a_quiet)
	ALL(any_change_stores_its_udata_on_a)
	ALL(a_change_without_orders_stores_its_udata_on_a)
	ALL(keepudata_keeps_the_stored_udata_of_a)
	ALL(udata_comes_back_with_all_its_bits_from_a)
	ALL(the_flags_of_an_event_are_the_stored_ones_on_a));
