/* Pointers that fault, counts larger than the memory behind them, bad timeouts. */
#include "engine_util.h"

enum { SLOT = 0xa5 };

/* Addresses of inaccessible kinds: the zero page, a guard page, an unmapped one. */
struct bad { struct guard guard; void *gone; void *at[4]; };

static struct bad bad_open(void)
{
	struct bad b;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	b.guard = guard_open(1);
	/* Far below what the kernel gives out unasked, so that no other thread gets it next. */
	b.gone = mmap(UD(1ul << 32), page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	OK(b.gone != MAP_FAILED);
	OK(munmap(b.gone, page) == 0);
	b.at[0] = UD(1);
	b.at[1] = b.guard.ev + 1;
	b.at[2] = b.gone;
	b.at[3] = UD(-4096);
	return b;
}

#define BADS 4

static int user_kqueue_with_event(void)
{
	int kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	OK(trigger(kq, 1) == 0);
	return kq;
}

static int has_user(int kq, uintptr_t ident)
{
	return change(kq, ident, EVFILT_USER, EV_DELETE, 0, 0, NULL) == 0;
}

static int all_bytes(const void *at, size_t n, int value)
{
	const unsigned char *p = at;
	size_t i;
	for (i = 0; i < n; i++)
		if (p[i] != value)
			return 0;
	return 1;
}

CHECK(a_bad_changelist_is_efault)
{
	int i, kq = new_kqueue();
	struct bad b = bad_open();
	FAILS(kevent(kq, NULL, 1, NULL, 0, NULL), EFAULT);
	for (i = 0; i < BADS; i++) {
		FAILS(kevent(kq, b.at[i], 1, NULL, 0, NULL), EFAULT);
		FAILS(kevent(kq, b.at[i], 5000, NULL, 0, NULL), EFAULT);
		FAILS(kevent(kq, b.at[i], INT_MAX, NULL, 0, NULL), EFAULT);
	}
	NONE(kq);
	OK(close(kq) == 0);
	guard_close(&b.guard);
}

CHECK(a_bad_eventlist_is_efault_and_loses_no_level_event)
{
	int i, kq = user_kqueue_with_event();
	struct bad b = bad_open();
	FAILS(kevent(kq, NULL, 0, NULL, 1, NULL), EFAULT);
	for (i = 0; i < BADS; i++) {
		FAILS(kevent(kq, NULL, 0, b.at[i], 1, NULL), EFAULT);
		FAILS(kevent(kq, NULL, 0, b.at[i], 5000, NULL), EFAULT);
		EQ(ONE(kq).ident, 1);
	}
	OK(close(kq) == 0);
	guard_close(&b.guard);
}

CHECK(a_bad_eventlist_for_a_descriptor_event_is_efault)
{
	int i, p[2], kq = new_kqueue();
	struct bad b = bad_open();
	pipe_open(p);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	put(p[1]);
	for (i = 0; i < BADS; i++) {
		FAILS(kevent(kq, NULL, 0, b.at[i], 1, NULL), EFAULT);
		EQ(ONE(kq).ident, p[0]);
	}
	OK(close(kq) == 0);
	pipe_close(p);
	guard_close(&b.guard);
}

CHECK(a_bad_eventlist_for_an_error_or_receipt_is_efault)
{
	struct kevent bad, good;
	int i, kq = new_kqueue();
	struct bad b = bad_open();
	EV_SET(&bad, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL);
	EV_SET(&good, 2, EVFILT_USER, EV_ADD | EV_RECEIPT, 0, 0, NULL);
	for (i = 0; i < BADS; i++) {
		FAILS(kevent(kq, &bad, 1, b.at[i], 1, NULL), EFAULT);
		FAILS(kevent(kq, &good, 1, b.at[i], 1, NULL), EFAULT);
	}
	OK(close(kq) == 0);
	guard_close(&b.guard);
}

CHECK(a_read_only_eventlist_is_efault)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int kq = user_kqueue_with_event();
	void *at = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	OK(at != MAP_FAILED);
	FAILS(kevent(kq, NULL, 0, at, 1, NULL), EFAULT);
	OK(all_bytes(at, page, 0));
	OK(close(kq) == 0);
	OK(munmap(at, page) == 0);
}

CHECK(a_read_only_changelist_is_fine)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct kevent copy;
	int kq = new_kqueue();
	struct kevent *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	OK(at != MAP_FAILED);
	EV_SET(at, 3, EVFILT_USER, EV_ADD | EV_EOF, 7, 8, UD(9));
	memcpy(&copy, at, sizeof copy);
	OK(mprotect(at, page, PROT_READ) == 0);
	OK(kevent(kq, at, 1, NULL, 0, NULL) == 0);
	OK(memcmp(&copy, at, sizeof copy) == 0);
	OK(has_user(kq, 3));
	OK(close(kq) == 0);
	OK(munmap(at, page) == 0);
}

CHECK(changes_before_the_faulting_one_stay_made)
{
	struct guard g = guard_open(16);
	int i, kq = new_kqueue();
	for (i = 0; i < 16; i++)
		EV_SET(&g.ev[i], i, EVFILT_USER, EV_ADD, 0, 0, NULL);
	FAILS(kevent(kq, g.ev, 17, NULL, 0, NULL), EFAULT);
	for (i = 0; i < 16; i++)
		OK(has_user(kq, (uintptr_t)i));
	FAILS(kevent(kq, g.ev, INT_MAX, NULL, 0, NULL), EFAULT);
	for (i = 0; i < 16; i++)
		OK(has_user(kq, (uintptr_t)i));
	OK(close(kq) == 0);
	guard_close(&g);
}

CHECK(an_error_among_the_changes_ends_the_call_before_the_fault)
{
	struct guard g = guard_open(16);
	int i, kq = new_kqueue();
	for (i = 0; i < 16; i++)
		EV_SET(&g.ev[i], i, EVFILT_USER, i == 15 ? EV_DELETE : EV_ADD, 0, 0, NULL);
	FAILS(kevent(kq, g.ev, 17, NULL, 0, NULL), ENOENT);
	for (i = 0; i < 15; i++)
		OK(has_user(kq, (uintptr_t)i));
	OK(close(kq) == 0);
	guard_close(&g);
}

CHECK(counts_of_zero_need_no_pointers)
{
	struct timespec zero = {0, 0};
	int kq = user_kqueue_with_event();
	OK(kevent(kq, UD(1), 0, UD(1), 0, &zero) == 0);
	OK(kevent(kq, NULL, 0, NULL, 0, NULL) == 0);
	EQ(ONE(kq).ident, 1);
	OK(close(kq) == 0);
}

CHECK(the_eventlist_is_untouched_beyond_what_was_written)
{
	struct kevent ev[8];
	int kq = user_kqueue_with_event();
	memset(ev, SLOT, sizeof ev);
	EQ(collect(kq, ev, 8, 0), 1);
	OK(all_bytes(ev + 1, 7 * sizeof *ev, SLOT));
	OK(change(kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL) == 0);
	memset(ev, SLOT, sizeof ev);
	EQ(collect(kq, ev, 8, 1), 0);
	OK(all_bytes(ev, sizeof ev, SLOT));
	OK(close(kq) == 0);
}

CHECK(a_failing_call_leaves_the_eventlist_alone)
{
	struct kevent ev[4], bad;
	struct timespec wrong = {0, 1000000000};
	int kq = user_kqueue_with_event();
	memset(ev, SLOT, sizeof ev);
	FAILS(kevent(kq, NULL, 0, ev, 4, &wrong), EINVAL);
	FAILS(kevent(kq, NULL, 1, ev, 4, NULL), EFAULT);
	FAILS(kevent(-1, NULL, 0, ev, 4, NULL), EBADF);
	EV_SET(&bad, 5, EVFILT_USER, EV_DELETE, 0, 0, NULL);
	FAILS(kevent(kq, &bad, 1, ev, 0, NULL), ENOENT);
	OK(all_bytes(ev, sizeof ev, SLOT));
	OK(close(kq) == 0);
}

CHECK(nevents_of_int_max_needs_memory_only_for_what_is_pending)
{
	struct guard g = guard_open(3);
	struct timespec zero = {0, 0};
	int p[2], kq = user_kqueue_with_event();
	pipe_open(p);
	EQ(kevent(kq, NULL, 0, g.ev + 2, INT_MAX, NULL), 1);
	EQ(g.ev[2].ident, 1);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	put(p[1]);
	OK(add_user(kq, 2, 0) == 0);
	OK(trigger(kq, 2) == 0);
	EQ(kevent(kq, NULL, 0, g.ev, INT_MAX, NULL), 3);
	EQ(kevent(kq, NULL, 0, g.ev, INT_MAX, &zero), 3);
	OK(close(kq) == 0);
	pipe_close(p);
	guard_close(&g);
}

CHECK(nevents_of_int_max_needs_no_memory_when_nothing_is_pending)
{
	struct guard g = guard_open(1);
	struct timespec brief = {0, 1000000};
	int kq = new_kqueue();
	EQ(kevent(kq, NULL, 0, g.ev, INT_MAX, &brief), 0);
	OK(close(kq) == 0);
	guard_close(&g);
}

CHECK(nevents_of_int_max_has_room_for_errors_and_receipts)
{
	struct guard g = guard_open(2);
	struct kevent ch[2];
	int kq = new_kqueue();
	EV_SET(&ch[0], 1, EVFILT_USER, EV_DELETE, 0, 0, NULL);
	EV_SET(&ch[1], 2, EVFILT_USER, EV_ADD | EV_RECEIPT, 0, 0, NULL);
	EQ(kevent(kq, ch, 2, g.ev, INT_MAX, NULL), 2);
	EQ(g.ev[0].data, ENOENT);
	EQ(g.ev[1].data, 0);
	OK(close(kq) == 0);
	guard_close(&g);
}

/* What does not fit the memory either faults or stops at its end. */
CHECK(an_eventlist_longer_than_its_memory_never_crashes)
{
	struct guard g = guard_open(1);
	int n, kq = user_kqueue_with_event();
	OK(add_user(kq, 2, 0) == 0);
	OK(trigger(kq, 2) == 0);
	errno = 0;
	n = kevent(kq, NULL, 0, g.ev, 2, NULL);
	OK(n == 1 || (n == -1 && errno == EFAULT));
	OK(close(kq) == 0);
	guard_close(&g);
}

/* --- timeouts ------------------------------------------------------------ */

CHECK(a_bad_timeout_pointer_is_efault)
{
	struct kevent ev;
	int i, kq = new_kqueue();
	struct bad b = bad_open();
	for (i = 0; i < BADS; i++)
		FAILS(kevent(kq, NULL, 0, &ev, 1, b.at[i]), EFAULT);
	OK(close(kq) == 0);
	guard_close(&b.guard);
}

CHECK(a_timeout_that_ends_in_a_guard_page_is_efault)
{
	struct guard g = guard_open(1);
	struct kevent ev;
	struct timespec *half = (void *)((char *)(g.ev + 1) - sizeof(time_t));
	int kq = new_kqueue();
	half->tv_sec = 0;
	FAILS(kevent(kq, NULL, 0, &ev, 1, half), EFAULT);
	OK(close(kq) == 0);
	guard_close(&g);
}

/* The kernel reads it first; a wait that never comes may never look. */
CHECK(a_bad_timeout_pointer_with_events_pending_never_crashes)
{
	struct kevent ev;
	int n, kq = user_kqueue_with_event();
	errno = 0;
	n = kevent(kq, NULL, 0, &ev, 1, UD(1));
	OK(n == 1 || (n == -1 && errno == EFAULT));
	OK(close(kq) == 0);
}

static const struct timespec wrong_times[] = {
	{0, 1000000000}, {0, -1}, {-1, 0}, {-1, 999999999}, {5, LONG_MAX}, {0, LONG_MIN}, {LONG_MIN, 0}
};
enum { WRONG_TIMES = sizeof wrong_times / sizeof *wrong_times };

CHECK(a_wrong_timeout_is_einval_after_the_changes)
{
	struct kevent ev, add;
	int i, kq = new_kqueue();
	EV_SET(&add, 1, EVFILT_USER, EV_ADD, 0, 0, NULL);
	for (i = 0; i < WRONG_TIMES; i++) {
		FAILS(kevent(kq, NULL, 0, &ev, 1, &wrong_times[i]), EINVAL);
		FAILS(kevent(kq, &add, 1, &ev, 1, &wrong_times[i]), EINVAL);
		OK(has_user(kq, 1));
	}
	OK(close(kq) == 0);
}

CHECK(a_wrong_timeout_is_einval_with_events_pending_and_loses_none)
{
	struct kevent ev;
	int i, kq = new_kqueue();
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	OK(trigger(kq, 1) == 0);
	for (i = 0; i < WRONG_TIMES; i++)
		FAILS(kevent(kq, NULL, 0, &ev, 1, &wrong_times[i]), EINVAL);
	EQ(ONE(kq).ident, 1);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(a_wrong_timeout_is_not_looked_at_with_nevents_zero)
{
	struct kevent add;
	int i, kq = new_kqueue();
	EV_SET(&add, 1, EVFILT_USER, EV_ADD, 0, 0, NULL);
	for (i = 0; i < WRONG_TIMES; i++) {
		EQ(kevent(kq, NULL, 0, NULL, 0, &wrong_times[i]), 0);
		EQ(kevent(kq, &add, 1, NULL, 0, &wrong_times[i]), 0);
	}
	OK(close(kq) == 0);
}

CHECK(a_wrong_timeout_is_not_looked_at_after_a_receipt)
{
	struct kevent ch, ev;
	int kq = new_kqueue();
	EV_SET(&ch, 1, EVFILT_USER, EV_ADD | EV_RECEIPT, 0, 0, NULL);
	EQ(kevent(kq, &ch, 1, &ev, 1, &wrong_times[0]), 1);
	EQ(ev.data, 0);
	OK(close(kq) == 0);
}

CHECKS(C(a_bad_changelist_is_efault)
	C(a_bad_eventlist_is_efault_and_loses_no_level_event)
	C(a_bad_eventlist_for_a_descriptor_event_is_efault)
	C(a_bad_eventlist_for_an_error_or_receipt_is_efault)
	C(a_read_only_eventlist_is_efault)
	C(a_read_only_changelist_is_fine)
	C(changes_before_the_faulting_one_stay_made)
	C(an_error_among_the_changes_ends_the_call_before_the_fault)
	C(counts_of_zero_need_no_pointers)
	C(the_eventlist_is_untouched_beyond_what_was_written)
	C(a_failing_call_leaves_the_eventlist_alone)
	C(nevents_of_int_max_needs_memory_only_for_what_is_pending)
	C(nevents_of_int_max_needs_no_memory_when_nothing_is_pending)
	C(nevents_of_int_max_has_room_for_errors_and_receipts)
	C(an_eventlist_longer_than_its_memory_never_crashes)
	C(a_bad_timeout_pointer_is_efault)
	C(a_timeout_that_ends_in_a_guard_page_is_efault)
	C(a_bad_timeout_pointer_with_events_pending_never_crashes)
	C(a_wrong_timeout_is_einval_after_the_changes)
	C(a_wrong_timeout_is_einval_with_events_pending_and_loses_none)
	C(a_wrong_timeout_is_not_looked_at_with_nevents_zero)
	C(a_wrong_timeout_is_not_looked_at_after_a_receipt));
