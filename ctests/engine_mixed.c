/*
 * Where parts of the engine meet: more ready at once than one look at the kernel gives,
 * forced events, no descriptor free, memory over time.
 */
#include "net.h"
#include <sys/resource.h>

/* LIMIT is enough for two descriptors each. */
enum { CROWD = 300, MANY = 600, LIMIT = 4096 };

static void user(int kq, int flags, unsigned fflags)
{
	OK(change(kq, 1, EVFILT_USER, flags, fflags, 0, NULL) == 0);
}

/* The soft limit of descriptors; what it was is returned. */
static rlim_t limit(rlim_t n)
{
	struct rlimit r;
	rlim_t was;
	OK(getrlimit(RLIMIT_NOFILE, &r) == 0);
	was = r.rlim_cur;
	if (n > r.rlim_max)
		SKIP("RLIMIT_NOFILE");
	r.rlim_cur = n;
	OK(setrlimit(RLIMIT_NOFILE, &r) == 0);
	return was;
}

static int is_open(int fd)
{
	return fcntl(fd, F_GETFD) != -1;
}

/* One call gives exactly these two knotes of fd; ev[0] is that of filter a. */
static void two(int kq, int fd, int a, int b, struct kevent ev[2])
{
	struct kevent got[3];
	int first;
	EQ(collect(kq, got, 3, 10000), 2);
	first = got[0].filter == a ? 0 : 1;
	ev[0] = got[first];
	ev[1] = got[!first];
	EQ(ev[0].ident, fd);
	EQ(ev[1].ident, fd);
	EQ(ev[0].filter, a);
	EQ(ev[1].filter, b);
	OK(!((ev[0].flags | ev[1].flags) & (EV_ERROR | EV_EOF)));
}

/* --- more than one look at the kernel gives ------------------------------ */

/* The knote is in each call's events, once, beside those of many ready pipes. */
static void comes_among_a_crowd(int kq, const struct kevent *knote)
{
	static struct kevent c[CROWD + 1], ev[2 * CROWD];
	static int p[CROWD][2];
	struct timespec now = {0, 0};
	int i, round, n, seen;
	c[0] = *knote;
	for (i = 0; i < CROWD; i++) {
		pipe_pair(p[i]);
		put(p[i][1], 1);
		EV_SET(&c[i + 1], p[i][0], EVFILT_READ, EV_ADD, 0, 0, NULL);
	}
	for (round = 0; round < 4; round++) {
		n = kevent(kq, c, round ? 0 : CROWD + 1, ev, 2 * CROWD, &now);
		EQ(n, CROWD + 1);
		for (i = seen = 0; i < n; i++) {
			OK(!(ev[i].flags & EV_ERROR));
			seen += ev[i].udata == knote;
		}
		EQ(seen, 1);
	}
	for (i = 0; i < CROWD; i++)
		close_pair(p[i]);
}

CHECK(a_low_water_mark_is_met_in_every_call_among_three_hundred_ready_pipes)
{
	int kq = new_kqueue(), s[2];
	struct kevent knote;
	limit(LIMIT);
	unix_pair(s, SOCK_STREAM);
	put(s[1], 6);
	EV_SET(&knote, s[0], EVFILT_READ, EV_ADD, NOTE_LOWAT, 2, &knote);
	comes_among_a_crowd(kq, &knote);
	close_pair(s);
	OK(close(kq) == 0);
}

CHECK(a_ready_inner_comes_in_every_call_among_three_hundred_ready_pipes)
{
	int kq = new_kqueue(), inner = new_kqueue();
	struct kevent knote;
	limit(LIMIT);
	user(inner, EV_ADD, NOTE_TRIGGER);
	EV_SET(&knote, inner, EVFILT_READ, EV_ADD, 0, 0, &knote);
	comes_among_a_crowd(kq, &knote);
	OK(close(inner) == 0);
	OK(close(kq) == 0);
}

CHECK(six_hundred_writable_sockets_with_two_knotes_each_come_in_one_call)
{
	static struct kevent ev[2 * MANY];
	static int s[MANY][2];
	static char seen[LIMIT];
	int kq = new_kqueue(), i;
	limit(LIMIT);
	for (i = 0; i < MANY; i++) {
		unix_pair(s[i], SOCK_STREAM);
		ADD(kq, s[i][0], EVFILT_READ, EV_CLEAR);
		ADD(kq, s[i][0], EVFILT_WRITE, EV_CLEAR);
	}
	EQ(collect(kq, ev, 2 * MANY, 0), MANY);
	for (i = 0; i < MANY; i++) {
		EQ(ev[i].filter, EVFILT_WRITE);
		OK(ev[i].ident < LIMIT && !seen[ev[i].ident]++);
	}
	NONE(kq);
	for (i = 0; i < MANY; i++)
		close_pair(s[i]);
	OK(close(kq) == 0);
}

CHECK(sockets_not_yet_connected_do_not_take_the_turn_of_a_ready_pipe)
{
	int kq = new_kqueue(), s[2], p[2], i;
	for (i = 0; i < 2; i++) {
		s[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		OK(s[i] >= 0);
		ADD(kq, s[i], EVFILT_READ, 0);
	}
	pipe_pair(p);
	put(p[1], 1);
	ADD(kq, p[0], EVFILT_READ, 0);
	for (i = 0; i < 4; i++) {
		struct kevent ev;
		EQ(collect(kq, &ev, 1, 0), 1);
		EQ(ev.ident, p[0]);
		EQ(ev.data, 1);
	}
	close_pair(s);
	close_pair(p);
	OK(close(kq) == 0);
}

/* --- flags --------------------------------------------------------------- */

CHECK(a_forced_read_goes_and_leaves_the_write_knote_of_the_same_socket)
{
	int kq = new_kqueue(), s[2], i;
	struct kevent c[2], ev[2];
	unix_pair(s, SOCK_STREAM);
	put(s[1], 1);
	ADD(kq, s[0], EVFILT_READ, 0);
	ADD(kq, s[0], EVFILT_WRITE, 0);
	EV_SET(&c[0], s[0], EVFILT_READ, EV_FORCEONESHOT, 0, 0, NULL);
	EV_SET(&c[1], s[0], EVFILT_WRITE, EV_ENABLE, 0, 0, NULL);
	OK(kevent(kq, c, 2, NULL, 0, NULL) == 0);
	two(kq, s[0], EVFILT_READ, EVFILT_WRITE, ev);
	EQ(ev[0].flags, EV_ONESHOT);
	EQ(ev[1].flags, 0);
	for (i = 0; i < 3; i++)
		EVENT(kq, s[0], EVFILT_WRITE);
	FAILS(change(kq, (uintptr_t)s[0], EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	close_pair(s);
	OK(close(kq) == 0);
}

/* One event of the forced user knote, which is gone then. */
static void forced_once(int kq)
{
	struct kevent e = ONE(kq);
	EQ(e.ident, 1);
	EQ(e.flags, EV_ONESHOT);
	NONE(kq);
	FAILS(change(kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL), ENOENT);
}

CHECK(a_forced_event_outlives_disable_and_enable)
{
	int kq = new_kqueue();
	user(kq, EV_ADD, 0);
	user(kq, EV_FORCEONESHOT, 0);
	user(kq, EV_DISABLE, 0);
	NONE(kq);
	user(kq, EV_ENABLE, 0);
	forced_once(kq);
	OK(close(kq) == 0);
}

CHECK(a_forced_event_outlives_the_next_change_of_the_same_call)
{
	int kq = new_kqueue();
	struct kevent c[2];
	user(kq, EV_ADD, 0);
	EV_SET(&c[0], 1, EVFILT_USER, EV_FORCEONESHOT, 0, 0, NULL);
	EV_SET(&c[1], 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL);
	OK(kevent(kq, c, 2, NULL, 0, NULL) == 0);
	forced_once(kq);
	OK(close(kq) == 0);
}

CHECK(empty_with_clear_on_an_idle_socket_comes_once)
{
	int kq = new_kqueue(), s[2], i;
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[0], EVFILT_EMPTY, EV_CLEAR);
	EVENT(kq, s[0], EVFILT_EMPTY);
	for (i = 0; i < 5; i++)
		QUIET(kq);
	close_pair(s);
	OK(close(kq) == 0);
}

/* --- no descriptor free, memory, closing --------------------------------- */

CHECK(a_readd_without_a_free_descriptor_leaves_both_knotes_at_work)
{
	int kq = new_kqueue(), s[2];
	struct kevent ev[2];
	rlim_t was;
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[0], EVFILT_READ, 0);
	ADD(kq, s[0], EVFILT_WRITE, 0);
	was = limit(3);
	OK(change(kq, (uintptr_t)s[0], EVFILT_READ, EV_ADD, NOTE_LOWAT, 2, NULL) == 0 || errno == EMFILE);
	limit(was);
	put(s[1], 6);
	two(kq, s[0], EVFILT_READ, EVFILT_WRITE, ev);
	EQ(ev[0].data, 6);
	close_pair(s);
	OK(close(kq) == 0);
}

CHECK(a_collect_without_a_free_descriptor_leaves_both_knotes_at_work)
{
	struct sockaddr_in at;
	int kq = new_kqueue(), l = tcp_listener(&at, 5, 0), c, s, i;
	struct kevent ev[2];
	rlim_t was;
	c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OK(c >= 0);
	ADD(kq, c, EVFILT_READ, 0);
	ADD(kq, c, EVFILT_WRITE, 0);
	was = limit(3);
	NONE(kq);
	limit(was);
	OK(connect(c, (struct sockaddr *)&at, sizeof at) == 0);
	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	OK(s >= 0);
	pass(s, c, 3);
	for (i = 0; i < 3; i++) {
		two(kq, c, EVFILT_READ, EVFILT_WRITE, ev);
		EQ(ev[0].data, 3);
	}
	OK(close(s) == 0);
	OK(close(c) == 0);
	OK(close(l) == 0);
	OK(close(kq) == 0);
}

CHECK(the_highest_number_is_refused_without_room_made_for_it)
{
	int kq = new_kqueue();
	long all = memory(0), used = memory(1);
	FAILS(change(kq, 0x7fffffff, EVFILT_READ, EV_ADD, 0, 0, NULL), EBADF);
	OK(memory(0) - all < 1024);
	OK(memory(1) - used < 1024);
	OK(close(kq) == 0);
}

static void fire_timers(int kq, int rounds)
{
	static struct kevent ev[1000];
	int i, n;
	while (rounds-- > 0) {
		for (i = 0; i < 1000; i++)
			EV_SET(&ev[i], i, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_NSECONDS, 1, NULL);
		OK(kevent(kq, ev, 1000, NULL, 0, NULL) == 0);
		for (i = 0; i < 1000; i += n) {
			n = collect(kq, ev, 1000, 10000);
			OK(n > 0);
		}
		EQ(i, 1000);
	}
}

CHECK(spent_oneshot_timers_leave_no_memory_behind)
{
	int kq = new_kqueue();
	long used;
	fire_timers(kq, 5);
	used = memory(1);
	fire_timers(kq, 60);
	OK(memory(1) - used < 512);
	NONE(kq);
	OK(close(kq) == 0);
}

static void write_and_collect(int kq, int f, int g, int times)
{
	struct kevent ev[4];
	while (times-- > 0) {
		OK(pwrite(f, "x", 1, 0) == 1 && pwrite(g, "x", 1, 0) == 1);
		if (times % 50 == 0) {
			OK(lseek(f, 0, SEEK_END) == 1 && lseek(g, 0, SEEK_END) == 1);
			OK(collect(kq, ev, 4, 0) >= 0);
		}
	}
}

CHECK(writes_to_a_file_an_idle_queue_waits_for_take_no_memory)
{
	int idle = new_kqueue(), kq = new_kqueue(), f = bare_file(0), g = bare_file(0);
	long used;
	ADD(idle, f, EVFILT_READ, 0);
	ADD(kq, f, EVFILT_READ, EV_CLEAR);
	ADD(kq, g, EVFILT_READ, EV_CLEAR);
	NONE(idle);
	NONE(kq);
	write_and_collect(kq, f, g, 5000);
	used = memory(1);
	write_and_collect(kq, f, g, 50000);
	OK(memory(1) - used < 512);
	/* The idle one still hears of it. */
	OK(lseek(f, 0, SEEK_SET) == 0);
	EQ(pwrite(f, "x", 1, 0), 1);
	EQ(EVENT(idle, f, EVFILT_READ).data, 1);
	OK(close(f) == 0);
	OK(close(g) == 0);
	OK(close(idle) == 0);
	OK(close(kq) == 0);
}

CHECK(nothing_of_a_closed_queue_is_open_once_drain_returns)
{
	static char before[1024];
	int own[16], n = 0, i, j, kq;
	for (i = 0; i < 1024; i++)
		before[i] = (char)is_open(i);
	kq = new_kqueue();
	for (i = 0; i < 1024 && n < 16; i++)
		if (!before[i] && is_open(i))
			own[n++] = i;
	OK(n > 0);
	OK(close(kq) == 0);
	libkqueue_drain_pending_close();
	for (i = 0; i < 2000; i++) {
		OK(close(new_kqueue()) == 0);
		libkqueue_drain_pending_close();
		for (j = 0; j < n; j++)
			if (is_open(own[j]))
				FAIL("round %d: number %d is open", i, own[j]);
	}
}

CHECK(three_hundred_queues_closed_above_the_limit_are_freed_by_drain)
{
	static int kq[CROWD];
	int i, before = 0, after = 0;
	rlim_t was = limit(LIMIT);
	for (i = 0; i < LIMIT; i++)
		before += is_open(i);
	for (i = 0; i < CROWD; i++)
		kq[i] = new_kqueue();
	limit(100);
	for (i = 0; i < CROWD; i++)
		OK(close(kq[i]) == 0);
	libkqueue_drain_pending_close();
	for (i = 0; i < LIMIT; i++)
		after += is_open(i);
	EQ(after, before);
	limit(was);
}

CHECKS(
	C(a_low_water_mark_is_met_in_every_call_among_three_hundred_ready_pipes)
	C(a_ready_inner_comes_in_every_call_among_three_hundred_ready_pipes)
	C(six_hundred_writable_sockets_with_two_knotes_each_come_in_one_call)
	C(sockets_not_yet_connected_do_not_take_the_turn_of_a_ready_pipe)
	C(a_forced_read_goes_and_leaves_the_write_knote_of_the_same_socket)
	C(a_forced_event_outlives_disable_and_enable)
	C(a_forced_event_outlives_the_next_change_of_the_same_call)
	C(empty_with_clear_on_an_idle_socket_comes_once)
	C(a_readd_without_a_free_descriptor_leaves_both_knotes_at_work)
	C(a_collect_without_a_free_descriptor_leaves_both_knotes_at_work)
	C(the_highest_number_is_refused_without_room_made_for_it)
	C(spent_oneshot_timers_leave_no_memory_behind)
	C(writes_to_a_file_an_idle_queue_waits_for_take_no_memory)
	C(nothing_of_a_closed_queue_is_open_once_drain_returns)
	C(three_hundred_queues_closed_above_the_limit_are_freed_by_drain)
);
