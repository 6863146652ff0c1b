/*
 * What the books of descriptors must keep right: many entries in one of epoll's sets, a set
 * that cannot be made, sets built anew, numbers used again in another set.
 */
#include "net.h"
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/* Room for so many descriptors, or the check is skipped. */
static void need_descriptors(rlim_t n)
{
	struct rlimit lim;
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	if (lim.rlim_max < n)
		SKIP("the limit is %lu descriptors", (unsigned long)lim.rlim_max);
	lim.rlim_cur = lim.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
}

/* From here on and for some milliseconds no thread of the library's looks into the queue. */
static void have_to_itself(int kq)
{
	long long until = now_ns() + 150000000;
	struct kevent e;
	while (now_ns() < until)
		EQ(collect(kq, &e, 1, 1), 0);
}

static void close_all(const int *fd, int n)
{
	while (n > 0)
		OK(close(fd[--n]) == 0);
}

/* The socket's knotes are deleted or spent, each in a set of its own. */
CHECK(the_end_of_a_pipe_is_heard_where_a_connected_socket_was)
{
	int kq = new_kqueue(), s[2], p[2];
	tcp_pair(s);
	becomes_number(s[0]);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	ADD(kq, NUMBER, EVFILT_WRITE, EV_ONESHOT);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	OK(change(kq, NUMBER, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	OK(close(NUMBER) == 0);
	pipe_pair(p);
	becomes_number(p[0]);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	put(p[1], 1);
	EQ(EVENT(kq, NUMBER, EVFILT_READ).data, 1);
	get(NUMBER, 1);
	NONE(kq);
	OK(close(p[1]) == 0);
	OK(EVENT(kq, NUMBER, EVFILT_READ).flags & EV_EOF);
	OK(close(NUMBER) == 0 && close(s[1]) == 0 && close(kq) == 0);
}

/* A socket that begins to connect to where nobody listens, and nobody else can while held is open. */
static int refused_socket(int *held)
{
	struct sockaddr_in at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	OK(fd >= 0);
	*held = tcp_bound(&at, 0);
	OK(connect(fd, (struct sockaddr *)&at, sizeof at) == -1);
	OK(errno == EINPROGRESS || errno == ECONNREFUSED);
	return fd;
}

CHECK(a_refused_connect_is_heard_where_a_pipe_that_ended_was)
{
	static const int modes[] = {0, EV_CLEAR, EV_ONESHOT, EV_DISPATCH};
	int i, p[2];
	for (i = 0; i < 4; i++) {
		int kq = new_kqueue(), held;
		struct kevent e;
		pipe_pair(p);
		becomes_number(p[0]);
		ADD(kq, NUMBER, EVFILT_READ, 0);
		OK(close(p[1]) == 0);
		OK(EVENT(kq, NUMBER, EVFILT_READ).flags & EV_EOF);
		OK(close(NUMBER) == 0);
		becomes_number(refused_socket(&held));
		ADD(kq, NUMBER, EVFILT_WRITE, modes[i]);
		e = EVENT(kq, NUMBER, EVFILT_WRITE);
		OK(e.flags & EV_EOF);
		EQ(e.fflags, ECONNREFUSED);
		FAILS(change(kq, NUMBER, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
		OK(close(NUMBER) == 0 && close(held) == 0 && close(kq) == 0);
	}
}

/* The socket on the number lives on, and has something to read, and so has the file that came. */
CHECK(empty_on_a_reused_number_ends_what_was_watched_there_before)
{
	int kq = new_kqueue(), first[2], next[2], kept;
	unix_pair(first, SOCK_STREAM);
	unix_pair(next, SOCK_STREAM);
	becomes_number(first[0]);
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	OK((kept = fcntl(NUMBER, F_DUPFD_CLOEXEC, NUMBER + 1)) >= 0);
	OK(close(NUMBER) == 0);
	becomes_number(next[0]);
	have_to_itself(kq);
	ADD(kq, NUMBER, EVFILT_EMPTY, EV_CLEAR);
	put(first[1], 1);
	put(next[1], 1);
	EVENT(kq, NUMBER, EVFILT_EMPTY);
	NONE(kq);
	OK(close(NUMBER) == 0 && close(kept) == 0 && close(kq) == 0);
	OK(close(first[1]) == 0 && close(next[1]) == 0);
}

CHECK(vnode_on_a_reused_number_ends_what_was_watched_there_before)
{
	int kq = new_kqueue(), first[2], kept, fifo, writer;
	char path[SCRATCH];
	unix_pair(first, SOCK_STREAM);
	scratch_directory(path);
	OK(rmdir(path) == 0 && mkfifo(path, 0600) == 0);
	OK((fifo = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) >= 0);
	OK((writer = open(path, O_WRONLY | O_CLOEXEC)) >= 0);
	becomes_number(first[0]);
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	OK((kept = fcntl(NUMBER, F_DUPFD_CLOEXEC, NUMBER + 1)) >= 0);
	OK(close(NUMBER) == 0);
	becomes_number(fifo);
	have_to_itself(kq);
	OK(change(kq, NUMBER, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_DELETE, 0, NULL) == 0);
	put(first[1], 1);
	put(writer, 1);
	NONE(kq);
	OK(unlink(path) == 0);
	OK(close(NUMBER) == 0 && close(writer) == 0 && close(kept) == 0);
	OK(close(first[1]) == 0 && close(kq) == 0);
}

CHECK(a_ring_that_was_closed_while_a_queue_was_built_anew_does_not_hang)
{
	int a = new_kqueue(), b = new_kqueue(), ready[2], p[2], other, added;
	pipe_pair(ready);
	ADD(a, b, EVFILT_READ, 0);
	have_to_itself(a);
	other = make_orphan(b, p);
	/* The knote goes, and then the entry that is still reported. */
	NONE(b);
	NONE(b);
	added = change(b, (uintptr_t)a, EVFILT_READ, EV_ADD, 0, 0, NULL);
	OK(added == 0 || errno == ELOOP);
	ADD(a, ready[0], EVFILT_READ, 0);
	put(ready[1], 1);
	EQ(EVENT(a, ready[0], EVFILT_READ).data, 1);
	EQ(EVENT(a, ready[0], EVFILT_READ).data, 1);
	if (added == 0)
		EQ(EVENT(b, a, EVFILT_READ).data, 1);
	OK(close(a) == 0 && close(b) == 0 && close(other) == 0);
	OK(close(p[1]) == 0);
	close_pair(ready);
}

/* Eventfds that can be written to and have nothing to read, with both knotes. */
static void many_written(int kq, int *fd, int n)
{
	int i;
	need_descriptors((rlim_t)n + 500);
	for (i = 0; i < n; i++) {
		OK((fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0);
		ADD(kq, fd[i], EVFILT_READ, EV_CLEAR);
		ADD(kq, fd[i], EVFILT_WRITE, EV_CLEAR);
	}
}

CHECK(three_thousand_second_knotes_are_told_of_in_one_call)
{
	enum { MANY = 3000, ROOM = 8000 };
	static struct kevent ev[ROOM];
	static int fd[MANY];
	int kq = new_kqueue();
	many_written(kq, fd, MANY);
	EQ(collect(kq, ev, ROOM, 0), MANY);
	NONE(kq);
	close_all(fd, MANY);
	OK(close(kq) == 0);
}

CHECK(an_inner_queue_counts_three_thousand_events)
{
	enum { MANY = 3000 };
	static int fd[MANY];
	uint64_t one = 1;
	int outer = new_kqueue(), kq = new_kqueue(), i;
	need_descriptors(MANY + 500);
	ADD(outer, kq, EVFILT_READ, 0);
	for (i = 0; i < MANY; i++) {
		OK((fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0);
		ADD(kq, fd[i], EVFILT_READ, 0);
		EQ(write(fd[i], &one, sizeof one), sizeof one);
	}
	EQ(EVENT(outer, kq, EVFILT_READ).data, MANY);
	close_all(fd, MANY);
	OK(close(kq) == 0 && close(outer) == 0);
}

CHECK(an_orphan_beside_seventeen_thousand_edges_repeats_none_of_them)
{
	enum { MANY = 17000, ROOM = 512 };
	static struct kevent ev[ROOM];
	static int fd[MANY];
	int kq = new_kqueue(), i, n, got = 0, p[2], other;
	need_descriptors(MANY + 500);
	for (i = 0; i < MANY; i++) {
		OK((fd[i] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0);
		ADD(kq, fd[i], EVFILT_READ, EV_CLEAR);
	}
	while ((n = collect(kq, ev, ROOM, 0)) > 0)
		got += n;
	EQ(got, MANY);
	other = make_orphan(kq, p);
	NONE(kq);
	close_all(fd, MANY);
	OK(close(other) == 0 && close(p[1]) == 0 && close(kq) == 0);
}

CHECK(numbers_that_are_not_open_take_no_memory)
{
	enum { NUMBERS = 1 << 21, STEP = 64 };
	int kq = new_kqueue(), fd;
	long used;
	need_descriptors(500);
	FAILS(change(kq, 300, EVFILT_READ, EV_ADD, 0, 0, NULL), EBADF);
	used = memory(1);
	for (fd = 300; fd < NUMBERS; fd += STEP)
		FAILS(change(kq, (uintptr_t)fd, EVFILT_READ, EV_ADD, 0, 0, NULL), EBADF);
	OK(memory(1) - used < 2048);
	OK(close(kq) == 0);
}

CHECK(a_socket_that_is_not_connected_costs_no_cpu_with_no_descriptor_left)
{
	enum { LIMIT = 320 };
	int kq = new_kqueue(), fd, l, s, held[LIMIT], n;
	struct kevent both[2];
	struct sockaddr_in at;
	struct rlimit lim;
	OK((fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
	l = tcp_listener(&at, 5, 0);
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = LIMIT;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	for (n = 0; n < LIMIT && (held[n] = fcntl(fd, F_DUPFD_CLOEXEC, 0)) >= 0; n++)
		;
	OK(n < LIMIT);
	/* In one call: what the library's thread finds in between would have them part. */
	EV_SET(&both[0], fd, EVFILT_READ, EV_ADD, 0, 0, NULL);
	EV_SET(&both[1], fd, EVFILT_WRITE, EV_ADD, 0, 0, NULL);
	OK(kevent(kq, both, 2, NULL, 0, NULL) == 0);
	QUIET(kq);
	OK(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
	/* Level: it comes at each call. */
	OK(EVENT(kq, fd, EVFILT_WRITE).data > 0);
	OK(EVENT(kq, fd, EVFILT_WRITE).data > 0);
	/* One would do, had the library's thread not now and then taken it first. */
	close_all(held + n - 3, 3);
	OK((s = accept4(l, NULL, NULL, SOCK_CLOEXEC)) >= 0);
	for (n -= 3; n < LIMIT && (held[n] = fcntl(fd, F_DUPFD_CLOEXEC, 0)) >= 0; n++)
		;
	pass(s, fd, 5);
	OK(change(kq, (uintptr_t)fd, EVFILT_WRITE, EV_DISABLE, 0, 0, NULL) == 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 5);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 5);
	get(fd, 5);
	QUIET(kq);
	OK(change(kq, (uintptr_t)fd, EVFILT_WRITE, EV_ENABLE, 0, 0, NULL) == 0);
	EVENT(kq, fd, EVFILT_WRITE);
	OK(close(s) == 0);
	close_all(held, n);
	OK(close(l) == 0 && close(fd) == 0 && close(kq) == 0);
}

/* What the thread of the next check was told, by udata. */
enum { TURNS = 2000 };
static int told[TURNS + 1], watched, over;

static void *take_events(void *arg)
{
	struct kevent e;
	(void)arg;
	while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST))
		if (collect(watched, &e, 1, 1000) == 1 && e.filter == EVFILT_READ)
			__atomic_fetch_add(&told[(intptr_t)e.udata], 1, __ATOMIC_SEQ_CST);
	return NULL;
}

CHECK(an_edge_added_anew_under_a_sleeper_is_told_once)
{
	int p[2], i, turn;
	pthread_t t;
	watched = new_kqueue();
	pipe_pair(p);
	ADD(watched, p[0], EVFILT_READ, EV_CLEAR);
	OK(pthread_create(&t, NULL, take_events, NULL) == 0);
	for (i = 1; i <= TURNS; i++) {
		put(p[1], 1);
		OK(change(watched, (uintptr_t)p[0], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
		OK(change(watched, (uintptr_t)p[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, (void *)(intptr_t)i) == 0);
		UNTIL(__atomic_load_n(&told[i], __ATOMIC_SEQ_CST) > 0);
		for (turn = 0; turn < 10; turn++)
			sched_yield();
		get(p[0], 1);
		EQ(__atomic_load_n(&told[i], __ATOMIC_SEQ_CST), 1);
	}
	__atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
	OK(change(watched, 1, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER, 0, NULL) == 0);
	OK(pthread_join(t, NULL) == 0);
	close_pair(p);
	OK(close(watched) == 0);
}

/* Without /proc a file is looked at by a timer, which cannot tell that it was opened. */
CHECK(a_change_refused_for_want_of_proc_leaves_the_vnode_knote)
{
	char path[SCRATCH];
	int kq = new_kqueue(), fd = bare_file(0), root = open("/", O_PATH | O_CLOEXEC), before, after;
	struct kevent e;
	OK(root >= 0);
	scratch_directory(path);
	if (chroot(path) != 0) {
		int why = errno;
		rmdir(path);
		SKIP("chroot: %s", strerror(why));
	}
	OK(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_WRITE, 0, &before) == 0);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_WRITE | NOTE_OPEN, 0, &after), ENOENT);
	put(fd, 1);
	e = EVENT(kq, fd, EVFILT_VNODE);
	OK(e.fflags & NOTE_WRITE);
	OK(e.udata == &before);
	OK(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL) == 0);
	OK(close(fd) == 0 && close(kq) == 0);
	/* Back to where /proc shows what was left open. */
	OK(fchdir(root) == 0 && chroot(".") == 0);
	OK(close(root) == 0 && rmdir(path) == 0);
}

CHECK(an_urgent_byte_is_nothing_to_who_asked_for_no_condition)
{
	int kq = new_kqueue(), s[2];
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_EXCEPT, 0);
	EQ(send(s[0], "!", 1, MSG_OOB), 1);
	SETTLE(s[1], POLLPRI);
	QUIET(kq);
	OK(change(kq, (uintptr_t)s[1], EVFILT_EXCEPT, EV_ADD, NOTE_OOB, 0, NULL) == 0);
	EQ(EVENT(kq, s[1], EVFILT_EXCEPT).fflags, NOTE_OOB);
	close_pair(s);
	OK(close(kq) == 0);
}

CHECKS(
	C(the_end_of_a_pipe_is_heard_where_a_connected_socket_was)
	C(a_refused_connect_is_heard_where_a_pipe_that_ended_was)
	C(empty_on_a_reused_number_ends_what_was_watched_there_before)
	C(vnode_on_a_reused_number_ends_what_was_watched_there_before)
	C(a_ring_that_was_closed_while_a_queue_was_built_anew_does_not_hang)
	C(three_thousand_second_knotes_are_told_of_in_one_call)
	C(an_inner_queue_counts_three_thousand_events)
	C(an_orphan_beside_seventeen_thousand_edges_repeats_none_of_them)
	C(numbers_that_are_not_open_take_no_memory)
	C(a_socket_that_is_not_connected_costs_no_cpu_with_no_descriptor_left)
	C(an_edge_added_anew_under_a_sleeper_is_told_once)
	C(a_change_refused_for_want_of_proc_leaves_the_vnode_knote)
	C(an_urgent_byte_is_nothing_to_who_asked_for_no_condition)
);
