/* Watched descriptors that are closed, duplicated, replaced or shared. */
#include "net.h"

static char old_mark, new_mark;

static void watch(int kq, int fd, int filter, int flags, void *udata)
{
	OK(change(kq, (uintptr_t)fd, filter, EV_ADD | flags, 0, 0, udata) == 0);
}

/* What a change of a knote that went with its descriptor says. */
static void gone(int kq, int fd, int filter, int err)
{
	FAILS(change(kq, (uintptr_t)fd, filter, EV_DELETE, 0, 0, NULL), err);
	FAILS(change(kq, (uintptr_t)fd, filter, EV_ENABLE, 0, 0, NULL), err);
	FAILS(change(kq, (uintptr_t)fd, filter, EV_DISABLE, 0, 0, NULL), err);
}

/* Puts another file under this number. */
static void replace(int fd, int with)
{
	EQ(dup3(with, fd, O_CLOEXEC), fd);
}

CHECK(close_takes_a_pending_knote_with_it)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	watch(kq, p[0], EVFILT_READ, 0, NULL);
	put(p[1], 3);
	close(p[0]);
	QUIET(kq);
	gone(kq, p[0], EVFILT_READ, EBADF);
	close(p[1]);
	close(kq);
}

CHECK(close_of_a_socket_takes_both_knotes)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	watch(kq, s[1], EVFILT_READ, 0, NULL);
	watch(kq, s[1], EVFILT_WRITE, EV_CLEAR, NULL);
	pass(s[0], s[1], 3);
	close(s[1]);
	QUIET(kq);
	gone(kq, s[1], EVFILT_READ, EBADF);
	gone(kq, s[1], EVFILT_WRITE, EBADF);
	close(s[0]);
	close(kq);
}

/* The file lives on under another number; nothing of it may be heard, nor cost CPU. */
static void close_with_dup(int flags, int pending)
{
	int s[2], kq = new_kqueue(), held;
	unix_pair(s, SOCK_STREAM);
	held = dup(s[0]);
	OK(held >= 0);
	watch(kq, s[0], EVFILT_READ, flags, NULL);
	watch(kq, s[0], EVFILT_WRITE, flags | EV_CLEAR, NULL);
	if (pending)
		put(s[1], 3);
	close(s[0]);
	if (!pending)
		put(s[1], 3);
	QUIET(kq);
	put(s[1], 1);
	QUIET(kq);
	gone(kq, s[0], EVFILT_READ, EBADF);
	gone(kq, s[0], EVFILT_WRITE, EBADF);
	close(s[1]);
	QUIET(kq);
	close(held);
	close(kq);
}

CHECK(close_with_a_dup_alive_silences_the_knotes_without_using_cpu)
{
	close_with_dup(0, 0);
	close_with_dup(0, 1);
	close_with_dup(EV_CLEAR, 0);
	close_with_dup(EV_CLEAR, 1);
	close_with_dup(EV_ONESHOT, 1);
	close_with_dup(EV_DISPATCH, 1);
	close_with_dup(EV_DISABLE, 1);
}

CHECK(an_orphan_does_not_keep_others_from_being_heard)
{
	int p[2], q[2], kq = new_kqueue(), held;
	pipe_pair(p);
	pipe_pair(q);
	held = dup(p[0]);
	watch(kq, p[0], EVFILT_READ, 0, NULL);
	watch(kq, q[0], EVFILT_READ, 0, NULL);
	put(p[1], 3);
	close(p[0]);
	NONE(kq);
	put(q[1], 5);
	EQ(EVENT(kq, q[0], EVFILT_READ).data, 5);
	EQ(EVENT(kq, q[0], EVFILT_READ).data, 5);
	get(q[0], 5);
	QUIET(kq);
	put(q[1], 1);
	EQ(EVENT(kq, q[0], EVFILT_READ).data, 1);
	close(held);
	close(p[1]);
	close_pair(q);
	close(kq);
}

CHECK(the_queue_is_not_readable_for_an_orphan)
{
	int p[2], kq = new_kqueue(), held;
	pipe_pair(p);
	held = dup(p[0]);
	watch(kq, p[0], EVFILT_READ, 0, NULL);
	close(p[0]);
	put(p[1], 3);
	QUIET(kq);
	EQ(polled(kq, POLLIN), 0);
	put(p[1], 3);
	NONE(kq);
	EQ(polled(kq, POLLIN), 0);
	close(held);
	close(p[1]);
	close(kq);
}

CHECK(close_while_a_forked_child_keeps_the_file_silences_the_knote)
{
	int p[2], go[2], kq = new_kqueue();
	pid_t pid;
	pipe_pair(p);
	pipe_pair(go);
	watch(kq, p[0], EVFILT_READ, 0, NULL);
	pid = fork();
	OK(pid >= 0);
	if (pid == 0) {
		char c;
		close(go[1]);
		_exit(read(go[0], &c, 1) == 0 ? 0 : 1);
	}
	close(p[0]);
	put(p[1], 3);
	QUIET(kq);
	gone(kq, p[0], EVFILT_READ, EBADF);
	close_pair(go);
	EQ(waitpid(pid, NULL, 0), pid);
	close(p[1]);
	close(kq);
}

/* The number goes to another file without being added; the old file is alive or not. */
static void reuse_unwatched(int flags, int keep)
{
	int p[2], q[2], kq = new_kqueue(), held = -1;
	pipe_pair(p);
	pipe_pair(q);
	if (keep)
		held = dup(p[0]);
	watch(kq, p[0], EVFILT_READ, flags, &old_mark);
	NONE(kq);
	close(p[0]);
	replace(p[0], q[0]);
	/* The old file first: while the new one has data to read as well, a report of the
	 * old cannot be told from one of the new without a system call for each. */
	if (keep) {
		put(p[1], 4);
		QUIET(kq);
	}
	put(q[1], 3);
	QUIET(kq);
	gone(kq, p[0], EVFILT_READ, ENOENT);
	if (keep)
		close(held);
	close_pair(p);
	close_pair(q);
	close(kq);
}

CHECK(a_reused_number_is_not_watched)
{
	int i;
	for (i = 0; i < 2; i++) {
		reuse_unwatched(0, i);
		reuse_unwatched(EV_CLEAR, i);
		reuse_unwatched(EV_ONESHOT, i);
		reuse_unwatched(EV_DISPATCH, i);
		reuse_unwatched(EV_DISABLE, i);
	}
}

/* The number is reused and added afresh: new udata, new mode, nothing of the old file. */
static void reuse_watched(int flags, int keep)
{
	struct kevent ev;
	int p[2], q[2], kq = new_kqueue(), held = -1;
	pipe_pair(p);
	pipe_pair(q);
	if (keep)
		held = dup(p[0]);
	watch(kq, p[0], EVFILT_READ, flags, &old_mark);
	put(p[1], 7);
	replace(p[0], q[0]);
	watch(kq, p[0], EVFILT_READ, 0, &new_mark);
	QUIET(kq);
	put(q[1], 3);
	ev = EVENT(kq, p[0], EVFILT_READ);
	OK(ev.udata == &new_mark);
	EQ(ev.data, 3);
	EQ(ev.flags, 0);
	EVENT(kq, p[0], EVFILT_READ);
	if (keep) {
		put(p[1], 1);
		OK(EVENT(kq, p[0], EVFILT_READ).udata == &new_mark);
	}
	get(q[0], 3);
	QUIET(kq);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	gone(kq, p[0], EVFILT_READ, ENOENT);
	QUIET(kq);
	if (keep)
		close(held);
	close_pair(p);
	close_pair(q);
	close(kq);
}

CHECK(a_reused_number_that_is_added_starts_afresh)
{
	int i;
	for (i = 0; i < 2; i++) {
		reuse_watched(0, i);
		reuse_watched(EV_CLEAR, i);
		reuse_watched(EV_ONESHOT, i);
		reuse_watched(EV_DISPATCH, i);
		reuse_watched(EV_DISABLE, i);
	}
}

CHECK(a_reused_number_does_not_inherit_the_other_filter)
{
	struct kevent ev;
	int s[2], t[2], kq = new_kqueue(), held;
	unix_pair(s, SOCK_STREAM);
	unix_pair(t, SOCK_STREAM);
	held = dup(s[0]);
	watch(kq, s[0], EVFILT_READ, 0, &old_mark);
	watch(kq, s[0], EVFILT_WRITE, 0, &old_mark);
	replace(s[0], t[0]);
	watch(kq, s[0], EVFILT_READ, 0, &new_mark);
	put(s[1], 2);
	QUIET(kq);
	put(t[1], 1);
	ev = EVENT(kq, s[0], EVFILT_READ);
	OK(ev.udata == &new_mark);
	EQ(ev.data, 1);
	gone(kq, s[0], EVFILT_WRITE, ENOENT);
	close(held);
	close_pair(s);
	close_pair(t);
	close(kq);
}

CHECK(dup2_over_a_watched_number_is_a_close)
{
	int p[2], q[2], kq = new_kqueue();
	pipe_pair(p);
	pipe_pair(q);
	watch(kq, p[0], EVFILT_READ, 0, &old_mark);
	put(p[1], 3);
	replace(p[0], q[0]);
	put(q[1], 3);
	QUIET(kq);
	gone(kq, p[0], EVFILT_READ, ENOENT);
	close_pair(p);
	close_pair(q);
	close(kq);
}

CHECK(dup2_of_a_number_onto_itself_changes_nothing)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	watch(kq, p[0], EVFILT_READ, 0, NULL);
	EQ(dup2(p[0], p[0]), p[0]);
	put(p[1], 3);
	EQ(EVENT(kq, p[0], EVFILT_READ).data, 3);
	close_pair(p);
	close(kq);
}

CHECK(a_number_and_its_dup_are_two_knotes)
{
	struct kevent ev[3];
	int p[2], kq = new_kqueue(), other, i, seen = 0;
	pipe_pair(p);
	other = dup(p[0]);
	watch(kq, p[0], EVFILT_READ, 0, &old_mark);
	watch(kq, other, EVFILT_READ, 0, &new_mark);
	put(p[1], 3);
	EQ(collect(kq, ev, 3, 10000), 2);
	for (i = 0; i < 2; i++) {
		EQ(ev[i].data, 3);
		OK(ev[i].udata == (ev[i].ident == (uintptr_t)p[0] ? &old_mark : &new_mark));
		seen |= ev[i].ident == (uintptr_t)p[0] ? 1 : 2;
	}
	EQ(seen, 3);
	close(p[0]);
	EQ(EVENT(kq, other, EVFILT_READ).data, 3);
	EQ(EVENT(kq, other, EVFILT_READ).data, 3);
	gone(kq, p[0], EVFILT_READ, EBADF);
	get(other, 3);
	QUIET(kq);
	put(p[1], 1);
	OK(EVENT(kq, other, EVFILT_READ).udata == &new_mark);
	close(other);
	close(p[1]);
	close(kq);
}

CHECK(one_descriptor_in_two_queues_keeps_two_modes)
{
	int p[2], level = new_kqueue(), edge = new_kqueue();
	pipe_pair(p);
	watch(level, p[0], EVFILT_READ, 0, &old_mark);
	watch(edge, p[0], EVFILT_READ, EV_CLEAR, &new_mark);
	put(p[1], 3);
	OK(EVENT(level, p[0], EVFILT_READ).udata == &old_mark);
	OK(EVENT(edge, p[0], EVFILT_READ).udata == &new_mark);
	EQ(EVENT(level, p[0], EVFILT_READ).data, 3);
	NONE(edge);
	put(p[1], 1);
	EQ(EVENT(edge, p[0], EVFILT_READ).data, 4);
	OK(change(level, (uintptr_t)p[0], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	put(p[1], 1);
	EQ(EVENT(edge, p[0], EVFILT_READ).data, 5);
	NONE(level);
	close_pair(p);
	close(level);
	close(edge);
}

CHECK(close_takes_the_knotes_of_all_queues)
{
	int p[2], one = new_kqueue(), two = new_kqueue(), held;
	pipe_pair(p);
	held = dup(p[0]);
	watch(one, p[0], EVFILT_READ, 0, NULL);
	watch(two, p[0], EVFILT_READ, EV_CLEAR, NULL);
	close(p[0]);
	put(p[1], 3);
	QUIET(one);
	QUIET(two);
	gone(one, p[0], EVFILT_READ, EBADF);
	gone(two, p[0], EVFILT_READ, EBADF);
	close(held);
	close(p[1]);
	close(one);
	close(two);
}

CHECK(one_queues_close_leaves_the_others_knotes)
{
	int p[2], one = new_kqueue(), two = new_kqueue();
	pipe_pair(p);
	watch(one, p[0], EVFILT_READ, 0, NULL);
	watch(two, p[0], EVFILT_READ, 0, NULL);
	close(one);
	libkqueue_drain_pending_close();
	put(p[1], 3);
	EQ(EVENT(two, p[0], EVFILT_READ).data, 3);
	close_pair(p);
	close(two);
}

CHECK(a_dispatched_knote_that_was_closed_does_not_come_back)
{
	int p[2], q[2], kq = new_kqueue(), held;
	pipe_pair(p);
	pipe_pair(q);
	held = dup(p[0]);
	watch(kq, p[0], EVFILT_READ, EV_DISPATCH, &old_mark);
	put(p[1], 3);
	EVENT(kq, p[0], EVFILT_READ);
	close(p[0]);
	gone(kq, p[0], EVFILT_READ, EBADF);
	replace(p[0], q[0]);
	gone(kq, p[0], EVFILT_READ, ENOENT);
	put(q[1], 1);
	QUIET(kq);
	close(held);
	close_pair(p);
	close_pair(q);
	close(kq);
}

CHECK(close_of_a_regular_file_takes_its_knotes)
{
	int fd = bare_file(10), other = bare_file(20), kq = new_kqueue(), held = dup(fd);
	watch(kq, fd, EVFILT_READ, 0, &old_mark);
	watch(kq, fd, EVFILT_WRITE, 0, &old_mark);
	close(fd);
	QUIET(kq);
	gone(kq, fd, EVFILT_READ, EBADF);
	replace(fd, other);
	QUIET(kq);
	OK(ftruncate(held, 30) == 0);
	OK(ftruncate(other, 40) == 0);
	QUIET(kq);
	gone(kq, fd, EVFILT_READ, ENOENT);
	gone(kq, fd, EVFILT_WRITE, ENOENT);
	close(fd);
	close(other);
	close(held);
	close(kq);
}

CHECK(a_file_at_its_end_that_is_replaced_is_not_watched)
{
	int fd = bare_file(0), other = bare_file(0), kq = new_kqueue(), held = dup(fd);
	watch(kq, fd, EVFILT_READ, 0, &old_mark);
	NONE(kq);
	replace(fd, other);
	OK(ftruncate(held, 5) == 0);
	QUIET(kq);
	OK(ftruncate(other, 5) == 0);
	QUIET(kq);
	watch(kq, fd, EVFILT_READ, 0, &new_mark);
	OK(EVENT(kq, fd, EVFILT_READ).udata == &new_mark);
	close(fd);
	close(other);
	close(held);
	close(kq);
}

CHECK(a_pipe_that_becomes_a_file_and_a_pipe_again)
{
	int p[2], kq = new_kqueue(), fd, keep, file = bare_file(10);
	pipe_pair(p);
	keep = dup(p[0]);
	fd = p[0];
	watch(kq, fd, EVFILT_READ, 0, &old_mark);
	replace(fd, file);
	watch(kq, fd, EVFILT_READ, 0, &new_mark);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 10);
	replace(fd, keep);
	put(p[1], 2);
	QUIET(kq);
	gone(kq, fd, EVFILT_READ, ENOENT);
	watch(kq, fd, EVFILT_READ, 0, &new_mark);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 2);
	close_pair(p);
	close(keep);
	close(file);
	close(kq);
}

CHECK(user_and_timer_knotes_of_the_same_number_stay)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	watch(kq, p[0], EVFILT_READ, 0, NULL);
	watch(kq, p[0], EVFILT_USER, EV_CLEAR, NULL);
	OK(change(kq, (uintptr_t)p[0], EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL) == 0);
	close(p[0]);
	QUIET(kq);
	OK(change(kq, (uintptr_t)p[0], EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL) == 0);
	EVENT(kq, p[0], EVFILT_USER);
	OK(change(kq, (uintptr_t)p[0], EVFILT_TIMER, EV_DELETE, 0, 0, NULL) == 0);
	close(p[1]);
	close(kq);
}

CHECK(thousands_of_connections_closed_without_a_delete)
{
	int s[2], kq = new_kqueue(), i;
	long mark;
	for (i = 0; i < 5000; i++) {
		mark = i + 1;
		unix_pair(s, SOCK_STREAM);
		watch(kq, s[0], EVFILT_READ, EV_CLEAR, (void *)mark);
		watch(kq, s[0], EVFILT_WRITE, EV_ONESHOT, (void *)mark);
		EQ((long)EVENT(kq, s[0], EVFILT_WRITE).udata, mark);
		put(s[1], 1 + i % 5);
		EQ(EVENT(kq, s[0], EVFILT_READ).data, 1 + i % 5);
		close_pair(s);
	}
	NONE(kq);
	close(kq);
}

CHECKS(
	C(close_takes_a_pending_knote_with_it)
	C(close_of_a_socket_takes_both_knotes)
	C(close_with_a_dup_alive_silences_the_knotes_without_using_cpu)
	C(an_orphan_does_not_keep_others_from_being_heard)
	C(the_queue_is_not_readable_for_an_orphan)
	C(close_while_a_forked_child_keeps_the_file_silences_the_knote)
	C(a_reused_number_is_not_watched)
	C(a_reused_number_that_is_added_starts_afresh)
	C(a_reused_number_does_not_inherit_the_other_filter)
	C(dup2_over_a_watched_number_is_a_close)
	C(dup2_of_a_number_onto_itself_changes_nothing)
	C(a_number_and_its_dup_are_two_knotes)
	C(one_descriptor_in_two_queues_keeps_two_modes)
	C(close_takes_the_knotes_of_all_queues)
	C(one_queues_close_leaves_the_others_knotes)
	C(a_dispatched_knote_that_was_closed_does_not_come_back)
	C(close_of_a_regular_file_takes_its_knotes)
	C(a_file_at_its_end_that_is_replaced_is_not_watched)
	C(a_pipe_that_becomes_a_file_and_a_pipe_again)
	C(user_and_timer_knotes_of_the_same_number_stay)
	C(thousands_of_connections_closed_without_a_delete)
);
