/* Changes applied, errors and receipts in the eventlist. */
#include "engine_util.h"

static int has_user(int kq, uintptr_t ident)
{
	return change(kq, ident, EVFILT_USER, EV_DELETE, 0, 0, NULL) == 0;
}

static void set_add(struct kevent *k, uintptr_t ident, int more)
{
	EV_SET(k, ident, EVFILT_USER, EV_ADD | more, 0, 0, UD(100 + ident));
}

/* A change that fails with ENOENT. */
static void set_bad(struct kevent *k, uintptr_t ident)
{
	EV_SET(k, ident, EVFILT_USER, EV_DELETE, 3, 4, UD(100 + ident));
}

static void is_error(const struct kevent *e, uintptr_t ident, int error)
{
	EQ(e->ident, ident);
	EQ(e->filter, EVFILT_USER);
	OK(e->flags & EV_ERROR);
	EQ(e->data, error);
	EQ((uintptr_t)e->udata, 100 + ident);
}

OVER_FDS(events_of_a_new_knote_come_in_the_same_call)
{
	struct source s = source_open(k);
	struct kevent ch, ev[4];
	int kq = new_kqueue();
	source_fire(kq, &s);
	ch = source_change(&s, EV_ADD, UD(5));
	EQ(kevent(kq, &ch, 1, ev, 4, NULL), 1);
	EQ(ev[0].ident, s.ident);
	EQ(ev[0].filter, EVFILT_READ);
	EQ(ev[0].data, 1);
	EQ((uintptr_t)ev[0].udata, 5);
	OK(close(kq) == 0);
	source_close(&s);
}

CHECK(a_user_event_triggered_in_the_call_comes_in_the_same_call)
{
	struct kevent ch[2], ev[4];
	int kq = new_kqueue();
	set_add(&ch[0], 1, 0);
	EV_SET(&ch[1], 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, UD(5));
	EQ(kevent(kq, ch, 2, ev, 4, NULL), 1);
	EQ(ev[0].ident, 1);
	EQ((uintptr_t)ev[0].udata, 5);
	OK(close(kq) == 0);
}

CHECK(all_changes_are_made_before_events_are_read)
{
	struct kevent ch[3], ev[4];
	struct timespec zero = {0, 0};
	int kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	OK(trigger(kq, 1) == 0);
	EV_SET(&ch[0], 1, EVFILT_USER, EV_DELETE, 0, 0, NULL);
	set_add(&ch[1], 2, 0);
	EV_SET(&ch[2], 2, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
	EQ(kevent(kq, ch, 3, ev, 4, &zero), 1);
	EQ(ev[0].ident, 2);
	OK(close(kq) == 0);
}

CHECK(changelist_and_eventlist_may_be_one_array_for_events)
{
	struct kevent kev[2];
	int kq = new_kqueue();
	set_add(&kev[0], 1, 0);
	EV_SET(&kev[1], 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, UD(5));
	EQ(kevent(kq, kev, 2, kev, 2, NULL), 1);
	EQ(kev[0].ident, 1);
	EQ((uintptr_t)kev[0].udata, 5);
	OK(close(kq) == 0);
}

/* --- errors -------------------------------------------------------------- */

CHECK(a_failed_change_becomes_an_event_and_the_others_are_made)
{
	struct kevent ch[3], ev[4];
	int kq = new_kqueue();
	set_add(&ch[0], 1, 0);
	set_bad(&ch[1], 2);
	set_add(&ch[2], 3, 0);
	EQ(kevent(kq, ch, 3, ev, 4, NULL), 1);
	is_error(&ev[0], 2, ENOENT);
	OK(has_user(kq, 1));
	OK(has_user(kq, 3));
	OK(close(kq) == 0);
}

CHECK(each_error_carries_its_own_errno)
{
	struct kevent ch[3], ev[3];
	int p[2], kq = new_kqueue();
	pipe_open(p);
	pipe_close(p);
	EV_SET(&ch[0], p[0], EVFILT_READ, EV_ADD, 0, 0, UD(7));
	EV_SET(&ch[1], 1, 100, EV_ADD, 0, 0, UD(8));
	set_bad(&ch[2], 2);
	EQ(kevent(kq, ch, 3, ev, 3, NULL), 3);
	EQ(ev[0].data, EBADF);
	EQ(ev[0].filter, EVFILT_READ);
	EQ(ev[0].ident, p[0]);
	EQ((uintptr_t)ev[0].udata, 7);
	EQ(ev[1].data, EINVAL);
	EQ(ev[1].filter, 100);
	EQ((uintptr_t)ev[1].udata, 8);
	is_error(&ev[2], 2, ENOENT);
	OK((ev[0].flags & ev[1].flags & ev[2].flags) & EV_ERROR);
	OK(close(kq) == 0);
}

CHECK(a_failed_change_without_room_ends_the_call_with_its_errno)
{
	struct kevent ch[3];
	int kq = new_kqueue();
	set_add(&ch[0], 1, 0);
	set_bad(&ch[1], 2);
	set_add(&ch[2], 3, 0);
	FAILS(kevent(kq, ch, 3, NULL, 0, NULL), ENOENT);
	OK(has_user(kq, 1));
	OK(!has_user(kq, 3));
	OK(close(kq) == 0);
}

CHECK(an_error_beyond_the_room_of_earlier_ones_ends_the_call_with_its_errno)
{
	struct kevent ch[4], ev[1];
	int kq = new_kqueue();
	set_bad(&ch[0], 1);
	set_add(&ch[1], 2, 0);
	EV_SET(&ch[2], 3, 100, EV_ADD, 0, 0, NULL);
	set_add(&ch[3], 4, 0);
	FAILS(kevent(kq, ch, 4, ev, 1, NULL), EINVAL);
	OK(has_user(kq, 2));
	OK(!has_user(kq, 4));
	OK(close(kq) == 0);
}

CHECK(good_changes_after_errors_that_filled_the_room_are_made)
{
	struct kevent ch[2], ev[1];
	int kq = new_kqueue();
	set_bad(&ch[0], 1);
	set_add(&ch[1], 2, 0);
	EQ(kevent(kq, ch, 2, ev, 1, NULL), 1);
	is_error(&ev[0], 1, ENOENT);
	OK(has_user(kq, 2));
	OK(close(kq) == 0);
}

CHECK(an_error_makes_the_call_return_without_waiting)
{
	struct kevent ch, ev[4];
	struct timespec long_wait = {1000, 0};
	int kq = new_kqueue();
	set_bad(&ch, 1);
	EQ(kevent(kq, &ch, 1, ev, 4, NULL), 1);
	EQ(kevent(kq, &ch, 1, ev, 4, &long_wait), 1);
	OK(close(kq) == 0);
}

CHECK(an_error_keeps_ordinary_events_for_the_next_call)
{
	struct kevent ch, ev[4];
	int kq = new_kqueue();
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	OK(trigger(kq, 1) == 0);
	set_bad(&ch, 2);
	EQ(kevent(kq, &ch, 1, ev, 4, NULL), 1);
	is_error(&ev[0], 2, ENOENT);
	EQ(ONE(kq).ident, 1);
	OK(close(kq) == 0);
}

OVER_ALL(a_refused_change_leaves_the_knote_of_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_ONESHOT, UD(5)) == 0);
	FAILS(apply(kq, &s, EV_ENABLE | EV_DISABLE | EV_CLEAR, UD(6)), EINVAL);
	source_fire(kq, &s);
	struct kevent e = ONE(kq);
	EQ((uintptr_t)e.udata, 5);
	EQ(e.flags & (EV_ONESHOT | EV_DISABLE), EV_ONESHOT);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	OK(close(kq) == 0);
	source_close(&s);
}

/* --- receipts ------------------------------------------------------------ */

OVER_ALL(a_receipt_is_an_error_event_with_data_zero_for_a)
{
	struct source s = source_open(k);
	struct kevent ch, ev[2];
	int kq = new_kqueue();
	ch = source_change(&s, EV_ADD | EV_RECEIPT, UD(5));
	EQ(kevent(kq, &ch, 1, ev, 2, NULL), 1);
	EQ(ev[0].ident, s.ident);
	EQ(ev[0].filter, s.filter);
	OK(ev[0].flags & EV_ERROR);
	EQ(ev[0].data, 0);
	EQ((uintptr_t)ev[0].udata, 5);
	OK(apply(kq, &s, EV_DELETE, NULL) == 0);
	OK(close(kq) == 0);
	source_close(&s);
}

OVER_ALL(the_event_after_a_receipt_is_an_ordinary_one_of_a)
{
	struct source s = source_open(k);
	struct kevent ch, ev[2];
	int kq = new_kqueue();
	ch = source_change(&s, EV_ADD | EV_RECEIPT, UD(5));
	EQ(kevent(kq, &ch, 1, ev, 2, NULL), 1);
	source_fire(kq, &s);
	ev[0] = ONE(kq);
	EQ(ev[0].flags & (EV_ERROR | ORDERS), 0);
	EQ((uintptr_t)ev[0].udata, 5);
	OK(ev[0].data > 0 || k == USER);
	OK(close(kq) == 0);
	source_close(&s);
}

CHECK(receipts_and_errors_come_in_the_order_of_the_changes)
{
	struct kevent ch[5], ev[8];
	int kq = new_kqueue();
	set_add(&ch[0], 1, EV_RECEIPT);
	set_bad(&ch[1], 2);
	set_add(&ch[2], 3, 0);
	set_add(&ch[3], 4, EV_RECEIPT);
	set_bad(&ch[4], 5);
	ch[4].flags |= EV_RECEIPT;
	EQ(kevent(kq, ch, 5, ev, 8, NULL), 4);
	is_error(&ev[0], 1, 0);
	is_error(&ev[1], 2, ENOENT);
	is_error(&ev[2], 4, 0);
	is_error(&ev[3], 5, ENOENT);
	OK(has_user(kq, 3));
	OK(close(kq) == 0);
}

CHECK(every_kind_of_order_gives_a_receipt)
{
	static const int orders[] = { EV_ADD, EV_DISABLE, EV_ENABLE, 0, EV_DELETE };
	struct kevent ch, ev[2];
	int kq = new_kqueue();
	unsigned i;
	for (i = 0; i < sizeof orders / sizeof *orders; i++) {
		EV_SET(&ch, 1, EVFILT_USER, orders[i] | EV_RECEIPT, 0, 0, UD(101));
		EQ(kevent(kq, &ch, 1, ev, 2, NULL), 1);
		is_error(&ev[0], 1, 0);
	}
	FAILS(change(kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL), ENOENT);
	OK(close(kq) == 0);
}

CHECK(a_receipt_drains_no_events)
{
	struct kevent ch, ev[4];
	int p[2], kq = new_kqueue();
	pipe_open(p);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL) == 0);
	put(p[1]);
	set_add(&ch, 1, EV_RECEIPT);
	EQ(kevent(kq, &ch, 1, ev, 4, NULL), 1);
	is_error(&ev[0], 1, 0);
	EQ(ONE(kq).ident, p[0]);
	OK(close(kq) == 0);
	pipe_close(p);
}

CHECK(a_receipt_without_room_ends_the_call_and_returns_zero)
{
	struct kevent ch[3];
	int kq = new_kqueue();
	set_add(&ch[0], 1, 0);
	set_add(&ch[1], 2, EV_RECEIPT);
	set_add(&ch[2], 3, 0);
	EQ(kevent(kq, ch, 3, NULL, 0, NULL), 0);
	OK(has_user(kq, 1));
	OK(has_user(kq, 2));
	OK(!has_user(kq, 3));
	OK(close(kq) == 0);
}

CHECK(a_receipt_beyond_the_room_ends_the_call_after_the_ones_that_fit)
{
	struct kevent ch[4], ev[2];
	int n, kq = new_kqueue();
	set_add(&ch[0], 1, EV_RECEIPT);
	set_add(&ch[1], 2, EV_RECEIPT);
	set_add(&ch[2], 3, EV_RECEIPT);
	set_add(&ch[3], 4, 0);
	n = kevent(kq, ch, 4, ev, 2, NULL);
	/* FreeBSD leaves the loop with the room used up and loses the count. */
	OK(n == 2 || n == 0);
	is_error(&ev[0], 1, 0);
	is_error(&ev[1], 2, 0);
	OK(has_user(kq, 3));
	OK(!has_user(kq, 4));
	OK(close(kq) == 0);
}

CHECK(a_receipt_that_fails_without_room_is_minus_one)
{
	struct kevent ch;
	int kq = new_kqueue();
	set_bad(&ch, 1);
	ch.flags |= EV_RECEIPT;
	FAILS(kevent(kq, &ch, 1, NULL, 0, NULL), ENOENT);
	OK(close(kq) == 0);
}

CHECK(receipts_may_overwrite_their_own_changelist)
{
	struct kevent kev[20];
	int i, kq = new_kqueue();
	for (i = 0; i < 20; i++)
		set_add(&kev[i], (uintptr_t)i, EV_RECEIPT);
	EQ(kevent(kq, kev, 20, kev, 20, NULL), 20);
	for (i = 0; i < 20; i++)
		is_error(&kev[i], (uintptr_t)i, 0);
	for (i = 0; i < 20; i++)
		OK(has_user(kq, (uintptr_t)i));
	OK(close(kq) == 0);
}

CHECK(errors_may_overwrite_their_own_changelist)
{
	struct kevent kev[20];
	int i, kq = new_kqueue();
	for (i = 0; i < 20; i++) {
		if (i % 2)
			set_bad(&kev[i], (uintptr_t)i);
		else
			set_add(&kev[i], (uintptr_t)i, 0);
	}
	EQ(kevent(kq, kev, 20, kev, 20, NULL), 10);
	for (i = 0; i < 10; i++)
		is_error(&kev[i], (uintptr_t)(2 * i + 1), ENOENT);
	for (i = 0; i < 20; i += 2)
		OK(has_user(kq, (uintptr_t)i));
	OK(close(kq) == 0);
}

CHECK(the_changelist_is_not_modified)
{
	struct kevent ch[4], copy[4], ev[4];
	int kq = new_kqueue();
	set_add(&ch[0], 1, EV_RECEIPT | EV_EOF | EV_ERROR | EV_CLEAR);
	set_bad(&ch[1], 2);
	EV_SET(&ch[2], 3, EVFILT_TIMER, EV_ADD, 0, 0, UD(3));
	EV_SET(&ch[3], 1, EVFILT_USER, EV_ENABLE | EV_KEEPUDATA, NOTE_TRIGGER, 9, UD(4));
	memcpy(copy, ch, sizeof ch);
	EQ(kevent(kq, ch, 4, ev, 4, NULL), 2);
	OK(memcmp(copy, ch, sizeof ch) == 0);
	OK(close(kq) == 0);
}

CHECKS(FDS(events_of_a_new_knote_come_in_the_same_call)
	C(a_user_event_triggered_in_the_call_comes_in_the_same_call)
	C(all_changes_are_made_before_events_are_read)
	C(changelist_and_eventlist_may_be_one_array_for_events)
	C(a_failed_change_becomes_an_event_and_the_others_are_made)
	C(each_error_carries_its_own_errno)
	C(a_failed_change_without_room_ends_the_call_with_its_errno)
	C(an_error_beyond_the_room_of_earlier_ones_ends_the_call_with_its_errno)
	C(good_changes_after_errors_that_filled_the_room_are_made)
	C(an_error_makes_the_call_return_without_waiting)
	C(an_error_keeps_ordinary_events_for_the_next_call)
	ALL(a_refused_change_leaves_the_knote_of_a)
	ALL(a_receipt_is_an_error_event_with_data_zero_for_a)
	ALL(the_event_after_a_receipt_is_an_ordinary_one_of_a)
	C(receipts_and_errors_come_in_the_order_of_the_changes)
	C(every_kind_of_order_gives_a_receipt)
	C(a_receipt_drains_no_events)
	C(a_receipt_without_room_ends_the_call_and_returns_zero)
	C(a_receipt_beyond_the_room_ends_the_call_after_the_ones_that_fit)
	C(a_receipt_that_fails_without_room_is_minus_one)
	C(receipts_may_overwrite_their_own_changelist)
	C(errors_may_overwrite_their_own_changelist)
	C(the_changelist_is_not_modified));
