/* The making of a kqueue, and the arguments of kevent() with their errors. */
#include "engine_util.h"
#include <sys/epoll.h>
#include <sys/resource.h>

/* The lowest bit that no flag of kqueuex() has. */
enum { UNKNOWN_KQUEUEX_FLAG = 0x40000000 };

static int fd_flags(int fd)
{
	return fcntl(fd, F_GETFD);
}

/* --- kqueue(), kqueue1(), kqueuex() -------------------------------------- */

CHECK(kqueue_gives_a_descriptor)
{
	int kq = kqueue();
	OK(kq >= 0);
	OK(fd_flags(kq) >= 0);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(two_kqueues_share_nothing)
{
	int a = new_kqueue(), b = new_kqueue();
	OK(a != b);
	OK(add_user(a, 1, 0) == 0);
	FAILS(trigger(b, 1), ENOENT);
	OK(add_user(b, 1, 0) == 0);
	OK(trigger(a, 1) == 0);
	NONE(b);
	EQ(ONE(a).ident, 1);
	OK(close(a) == 0);
	OK(change(b, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL) == 0);
	OK(close(b) == 0);
}

CHECK(kqueue1_with_o_cloexec_sets_fd_cloexec)
{
	int kq = kqueue1(O_CLOEXEC);
	OK(kq >= 0);
	OK(fd_flags(kq) & FD_CLOEXEC);
	OK(add_user(kq, 1, 0) == 0);
	OK(close(kq) == 0);
}

CHECK(kqueue1_takes_zero_and_o_nonblock)
{
	int a = kqueue1(0), b = kqueue1(O_NONBLOCK), c = kqueue1(O_NONBLOCK | O_CLOEXEC);
	OK(a >= 0 && b >= 0 && c >= 0);
	OK(add_user(b, 1, 0) == 0);
	OK(trigger(b, 1) == 0);
	EQ(ONE(b).ident, 1);
	OK(close(a) == 0 && close(b) == 0 && close(c) == 0);
}

CHECK(kqueue1_with_unknown_flags_is_einval)
{
	FAILS(kqueue1(O_APPEND), EINVAL);
	FAILS(kqueue1(O_RDWR), EINVAL);
	FAILS(kqueue1(O_CLOEXEC | O_APPEND), EINVAL);
	FAILS(kqueue1(-1), EINVAL);
}

CHECK(kqueuex_with_kqueue_cloexec_sets_fd_cloexec)
{
	int kq = kqueuex(KQUEUE_CLOEXEC);
	OK(kq >= 0);
	OK(fd_flags(kq) & FD_CLOEXEC);
	OK(add_user(kq, 1, 0) == 0);
	OK(close(kq) == 0);
}

CHECK(kqueuex_takes_zero)
{
	int kq = kqueuex(0);
	OK(kq >= 0);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(kqueuex_with_unknown_flags_is_einval)
{
	FAILS(kqueuex(UNKNOWN_KQUEUEX_FLAG), EINVAL);
	FAILS(kqueuex(KQUEUE_CLOEXEC | UNKNOWN_KQUEUEX_FLAG), EINVAL);
	FAILS(kqueuex(~0u), EINVAL);
}

/* Open descriptors, counted without opening one. */
static int open_fds(void)
{
	int fd, n = 0;
	for (fd = 0; fd < 4096; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

CHECK(kqueue_without_free_descriptors_is_emfile_and_leaks_nothing)
{
	struct rlimit old, low;
	int held[64], n = 0, kq, count, tries;
	OK(getrlimit(RLIMIT_NOFILE, &old) == 0);
	low = old;
	low.rlim_cur = 40;
	OK(setrlimit(RLIMIT_NOFILE, &low) == 0);
	while (n < 64 && (held[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		n++;
	OK(n > 8 && n < 64);
	/* Room for one more each time: every half-made kqueue must be undone. */
	for (tries = 0;; tries++) {
		count = open_fds();
		errno = 0;
		kq = kqueue();
		if (kq >= 0)
			break;
		EQ(errno, EMFILE);
		OK(open_fds() <= count);
		OK(n > 0);
		OK(close(held[--n]) == 0);
	}
	OK(tries > 0);
	OK(add_user(kq, 1, 0) == 0);
	OK(close(kq) == 0);
	while (n > 0)
		OK(close(held[--n]) == 0);
	OK(setrlimit(RLIMIT_NOFILE, &old) == 0);
}

/* --- EBADF --------------------------------------------------------------- */

CHECK(kevent_on_numbers_that_are_no_descriptor_is_ebadf)
{
	struct kevent ev;
	FAILS(collect(-1, &ev, 1, 0), EBADF);
	FAILS(collect(INT_MIN, &ev, 1, 0), EBADF);
	FAILS(collect(INT_MAX, &ev, 1, 0), EBADF);
	FAILS(collect(900000, &ev, 1, 0), EBADF);
	FAILS(add_user(-1, 1, 0), EBADF);
	FAILS(kevent(-1, NULL, 0, NULL, 0, NULL), EBADF);
}

CHECK(kevent_on_another_kind_of_descriptor_is_ebadf)
{
	struct kevent ev;
	int p[2], i, fd[4];
	pipe_open(p);
	put(p[1]);
	fd[0] = p[0];
	fd[1] = p[1];
	fd[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
	fd[3] = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < 4; i++) {
		OK(fd[i] >= 0);
		FAILS(collect(fd[i], &ev, 1, 0), EBADF);
		FAILS(add_user(fd[i], 1, 0), EBADF);
	}
	drain(p[0]);
	pipe_close(p);
	OK(close(fd[2]) == 0 && close(fd[3]) == 0);
}

CHECK(kevent_on_a_closed_kqueue_is_ebadf)
{
	struct kevent ev;
	int kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	OK(trigger(kq, 1) == 0);
	OK(close(kq) == 0);
	FAILS(collect(kq, &ev, 1, 0), EBADF);
	FAILS(collect(kq, &ev, 1, -1), EBADF);
	FAILS(add_user(kq, 2, 0), EBADF);
}

CHECK(kevent_on_a_closed_kqueue_number_that_is_a_pipe_now_is_ebadf)
{
	struct kevent ev;
	int p[2], kq = new_kqueue();
	char c;
	OK(close(kq) == 0);
	pipe_open(p);
	put(p[1]);
	FAILS(collect(p[0], &ev, 1, 0), EBADF);
	FAILS(collect(p[1], &ev, 1, 0), EBADF);
	OK(read(p[0], &c, 1) == 1 && c == 'x');
	pipe_close(p);
}

CHECK(change_on_a_closed_descriptor_is_ebadf)
{
	static const int orders[] = { EV_ADD, EV_DELETE, EV_ENABLE, EV_DISABLE, 0 };
	int p[2], kq = new_kqueue();
	unsigned i;
	pipe_open(p);
	pipe_close(p);
	for (i = 0; i < sizeof orders / sizeof *orders; i++) {
		FAILS(change(kq, (uintptr_t)p[0], EVFILT_READ, orders[i], 0, 0, NULL), EBADF);
		FAILS(change(kq, (uintptr_t)p[0], EVFILT_WRITE, orders[i], 0, 0, NULL), EBADF);
	}
	FAILS(change(kq, (uintptr_t)-1, EVFILT_READ, EV_ADD, 0, 0, NULL), EBADF);
	OK(close(kq) == 0);
}

#if UINTPTR_MAX > 0xffffffffu
CHECK(ident_above_int_max_is_ebadf_and_not_cut_down)
{
	int p[2], kq = new_kqueue();
	uintptr_t high = (uintptr_t)1 << 32;
	pipe_open(p);
	FAILS(change(kq, high | (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), EBADF);
	FAILS(change(kq, high | (uintptr_t)p[1], EVFILT_WRITE, EV_ADD, 0, 0, NULL), EBADF);
	FAILS(change(kq, (uintptr_t)INT_MAX + 1, EVFILT_READ, EV_ADD, 0, 0, NULL), EBADF);
	FAILS(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	FAILS(change(kq, high | (uintptr_t)p[0], EVFILT_READ, EV_DELETE, 0, 0, NULL), EBADF);
	put(p[1]);
	EQ(ONE(kq).ident, p[0]);
	OK(close(kq) == 0);
	pipe_close(p);
}
#else
CHECK(ident_above_int_max_is_ebadf_and_not_cut_down)
{
	SKIP("32 bits");
}
#endif

/* --- EINVAL, ENOENT ------------------------------------------------------ */

CHECK(unknown_filters_are_einval)
{
	static const int filters[] = { 0, 1, 7, 32767, -14, -100, -32768, EVFILT_AIO };
	int kq = new_kqueue();
	unsigned i;
	for (i = 0; i < sizeof filters / sizeof *filters; i++) {
		FAILS(change(kq, 0, filters[i], EV_ADD, 0, 0, NULL), EINVAL);
		FAILS(change(kq, 0, filters[i], EV_DELETE, 0, 0, NULL), EINVAL);
	}
	OK(close(kq) == 0);
}

OVER_ALL(orders_without_a_knote_are_enoent_on_a)
{
	int kq = new_kqueue();
	struct source s = source_open(k);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	FAILS(apply(kq, &s, EV_ENABLE, NULL), ENOENT);
	FAILS(apply(kq, &s, EV_DISABLE, NULL), ENOENT);
	FAILS(apply(kq, &s, 0, NULL), ENOENT);
	FAILS(apply(kq, &s, EV_CLEAR | EV_ONESHOT, NULL), ENOENT);
	FAILS(apply(kq, &s, EV_KEEPUDATA, NULL), ENOENT);
	NONE(kq);
	OK(close(kq) == 0);
	source_close(&s);
}

OVER_ALL(enable_with_disable_is_einval_and_adds_nothing_on_a)
{
	int kq = new_kqueue();
	struct source s = source_open(k);
	FAILS(apply(kq, &s, EV_ADD | EV_ENABLE | EV_DISABLE, NULL), EINVAL);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	OK(apply(kq, &s, EV_ADD, UD(5)) == 0);
	FAILS(apply(kq, &s, EV_ENABLE | EV_DISABLE, UD(6)), EINVAL);
	source_fire(kq, &s);
	EQ((uintptr_t)ONE(kq).udata, 5);
	OK(close(kq) == 0);
	source_close(&s);
}

OVER_ALL(add_with_keepudata_is_einval_and_changes_nothing_on_a)
{
	int kq = new_kqueue();
	struct source s = source_open(k);
	FAILS(apply(kq, &s, EV_ADD | EV_KEEPUDATA, UD(5)), EINVAL);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	OK(apply(kq, &s, EV_ADD | EV_DISABLE, UD(5)) == 0);
	FAILS(apply(kq, &s, EV_ADD | EV_KEEPUDATA, UD(6)), EINVAL);
	source_fire(kq, &s);
	NONE(kq);
	OK(apply(kq, &s, EV_ENABLE | EV_KEEPUDATA, NULL) == 0);
	EQ((uintptr_t)ONE(kq).udata, 5);
	OK(close(kq) == 0);
	source_close(&s);
}

OVER_ALL(system_bits_in_a_change_are_ignored_on_a)
{
	int kq = new_kqueue();
	struct source s = source_open(k);
	struct kevent e;
	OK(apply(kq, &s, EV_ADD | EV_EOF | EV_ERROR | 0x3000, UD(5)) == 0);
	source_fire(kq, &s);
	e = ONE(kq);
	EQ(e.flags & EV_SYSFLAGS, 0);
	EQ((uintptr_t)e.udata, 5);
	OK(apply(kq, &s, EV_DELETE | EV_EOF | EV_ERROR, NULL) == 0);
	FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	OK(close(kq) == 0);
	source_close(&s);
}

CHECK(an_event_with_eof_can_be_sent_back_as_a_change)
{
	int p[2], kq = new_kqueue();
	struct kevent e;
	pipe_open(p);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD | EV_DISPATCH, 0, 0, UD(5)) == 0);
	OK(close(p[1]) == 0);
	e = ONE(kq);
	OK(e.flags & EV_EOF);
	NONE(kq);
	e.flags |= EV_ENABLE;
	OK(kevent(kq, &e, 1, NULL, 0, NULL) == 0);
	e = ONE(kq);
	OK(e.flags & EV_EOF);
	EQ((uintptr_t)e.udata, 5);
	OK(close(kq) == 0);
	OK(close(p[0]) == 0);
}

CHECK(write_filter_on_a_kqueue_is_einval)
{
	int a = new_kqueue(), b = new_kqueue();
	FAILS(change(a, (uintptr_t)b, EVFILT_WRITE, EV_ADD, 0, 0, NULL), EINVAL);
	FAILS(change(a, (uintptr_t)b, EVFILT_WRITE, EV_DELETE, 0, 0, NULL), ENOENT);
	OK(close(a) == 0 && close(b) == 0);
}

CHECK(a_kqueue_in_itself_is_einval)
{
	int kq = new_kqueue();
	FAILS(change(kq, (uintptr_t)kq, EVFILT_READ, EV_ADD, 0, 0, NULL), EINVAL);
	FAILS(change(kq, (uintptr_t)kq, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(negative_counts_are_einval)
{
	struct kevent ev[2];
	struct timespec zero = {0, 0};
	int kq = new_kqueue();
	memset(ev, 0, sizeof ev);
	FAILS(kevent(kq, ev, -1, NULL, 0, NULL), EINVAL);
	FAILS(kevent(kq, ev, INT_MIN, NULL, 0, NULL), EINVAL);
	FAILS(kevent(kq, NULL, 0, ev, -1, &zero), EINVAL);
	FAILS(kevent(kq, NULL, 0, ev, INT_MIN, &zero), EINVAL);
	FAILS(kevent(kq, ev, -1, ev, -1, NULL), EINVAL);
	OK(close(kq) == 0);
}

CHECK(success_leaves_errno_alone)
{
	struct kevent ev[2], bad;
	struct timespec zero = {0, 0}, short_wait = {0, 1000000};
	int kq, p[2];
	pipe_open(p);
	errno = 4321;
	kq = kqueue();
	EQ(errno, 4321);
	EQ(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
	EQ(errno, 4321);
	EQ(kevent(kq, NULL, 0, ev, 2, &zero), 0);
	EQ(errno, 4321);
	EQ(kevent(kq, NULL, 0, ev, 2, &short_wait), 0);
	EQ(errno, 4321);
	put(p[1]);
	errno = 4321;
	EQ(kevent(kq, NULL, 0, ev, 2, NULL), 1);
	EQ(errno, 4321);
	EV_SET(&bad, 9, EVFILT_USER, EV_DELETE, 0, 0, NULL);
	EQ(kevent(kq, &bad, 1, ev, 2, NULL), 1);
	EQ(ev[0].data, ENOENT);
	EQ(errno, 4321);
	OK(close(kq) == 0);
	pipe_close(p);
}

CHECKS(C(kqueue_gives_a_descriptor)
	C(two_kqueues_share_nothing)
	C(kqueue1_with_o_cloexec_sets_fd_cloexec)
	C(kqueue1_takes_zero_and_o_nonblock)
	C(kqueue1_with_unknown_flags_is_einval)
	C(kqueuex_with_kqueue_cloexec_sets_fd_cloexec)
	C(kqueuex_takes_zero)
	C(kqueuex_with_unknown_flags_is_einval)
	C(kqueue_without_free_descriptors_is_emfile_and_leaks_nothing)
	C(kevent_on_numbers_that_are_no_descriptor_is_ebadf)
	C(kevent_on_another_kind_of_descriptor_is_ebadf)
	C(kevent_on_a_closed_kqueue_is_ebadf)
	C(kevent_on_a_closed_kqueue_number_that_is_a_pipe_now_is_ebadf)
	C(change_on_a_closed_descriptor_is_ebadf)
	C(ident_above_int_max_is_ebadf_and_not_cut_down)
	C(unknown_filters_are_einval)
	ALL(orders_without_a_knote_are_enoent_on_a)
	ALL(enable_with_disable_is_einval_and_adds_nothing_on_a)
	ALL(add_with_keepudata_is_einval_and_changes_nothing_on_a)
	ALL(system_bits_in_a_change_are_ignored_on_a)
	C(an_event_with_eof_can_be_sent_back_as_a_change)
	C(write_filter_on_a_kqueue_is_einval)
	C(a_kqueue_in_itself_is_einval)
	C(negative_counts_are_einval)
	C(success_leaves_errno_alone));
