/*
 * A number used again by another kind of file: nothing the library knew about the file
 * before may show, whether its knotes were deleted, were spent or went with close().
 */
#include "net.h"

/* A new pair of sockets, one behind NUMBER; the other is returned. */
static int socket_number(void)
{
	int s[2];
	unix_pair(s, SOCK_STREAM);
	becomes_number(s[0]);
	return s[1];
}

static void delete(int kq, int filter)
{
	OK(change(kq, NUMBER, filter, EV_DELETE, 0, 0, NULL) == 0);
}

/* Fills NUMBER and takes everything at the other end: writable once more. */
static void write_turns_ready(int other)
{
	drain(other, fill(NUMBER));
}

static void end(int kq, int other)
{
	OK(close(NUMBER) == 0);
	OK(close(other) == 0);
	OK(close(kq) == 0);
}

CHECK(a_pipe_after_a_deleted_socket_that_had_ended_has_eof_of_its_own)
{
	int kq = new_kqueue(), other = socket_number(), p[2];
	ADD(kq, NUMBER, EVFILT_READ, 0);
	OK(close(other) == 0);
	OK(EVENT(kq, NUMBER, EVFILT_READ).flags & EV_EOF);
	delete(kq, EVFILT_READ);
	OK(close(NUMBER) == 0);
	pipe_pair(p);
	becomes_number(p[0]);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	QUIET(kq);
	OK(close(p[1]) == 0);
	OK(EVENT(kq, NUMBER, EVFILT_READ).flags & EV_EOF);
	/* Level: it comes at each call. */
	OK(EVENT(kq, NUMBER, EVFILT_READ).flags & EV_EOF);
	OK(close(NUMBER) == 0);
	OK(close(kq) == 0);
}

CHECK(a_socket_after_a_deleted_pipe_has_eof_of_its_own)
{
	int kq = new_kqueue(), p[2], s[2];
	struct kevent e;
	pipe_pair(p);
	unix_pair(s, SOCK_STREAM);
	also_number(p[1]);
	ADD(kq, NUMBER, EVFILT_WRITE, 0);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	delete(kq, EVFILT_WRITE);
	OK(close(NUMBER) == 0);
	also_number(s[0]);
	OK(change(kq, NUMBER, EVFILT_READ, EV_ADD, 0, 0, s) == 0);
	OK(close(s[1]) == 0);
	e = EVENT(kq, NUMBER, EVFILT_READ);
	EQ(e.flags, EV_EOF);
	EQ(e.data, 0);
	OK(e.udata == s);
	close_pair(p);
	end(kq, s[0]);
}

CHECK(the_room_of_a_deleted_socket_is_not_that_of_the_next)
{
	int kq = new_kqueue(), a[2], b[2];
	long long first;
	unix_pair(a, SOCK_STREAM);
	unix_pair(b, SOCK_STREAM);
	set_option(b[0], SOL_SOCKET, SO_SNDBUF, 4608);
	also_number(a[0]);
	ADD(kq, NUMBER, EVFILT_WRITE, 0);
	first = EVENT(kq, NUMBER, EVFILT_WRITE).data;
	EQ(first, option(a[0], SOL_SOCKET, SO_SNDBUF));
	delete(kq, EVFILT_WRITE);
	OK(close(NUMBER) == 0);
	also_number(b[0]);
	ADD(kq, NUMBER, EVFILT_WRITE, 0);
	EQ(EVENT(kq, NUMBER, EVFILT_WRITE).data, option(b[0], SOL_SOCKET, SO_SNDBUF));
	OK(option(b[0], SOL_SOCKET, SO_SNDBUF) < first);
	close_pair(a);
	OK(close(b[0]) == 0);
	end(kq, b[1]);
}

CHECK(a_spent_oneshot_of_the_closed_socket_does_not_silence_the_next)
{
	int kq = new_kqueue(), other = socket_number();
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	ADD(kq, NUMBER, EVFILT_WRITE, EV_ONESHOT);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	delete(kq, EVFILT_READ);
	OK(close(NUMBER) == 0);
	OK(close(other) == 0);
	other = socket_number();
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	ADD(kq, NUMBER, EVFILT_WRITE, EV_CLEAR);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	put(other, 1);
	EQ(EVENT(kq, NUMBER, EVFILT_READ).data, 1);
	write_turns_ready(other);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	end(kq, other);
}

/* A READ knote goes with its file, then WRITE is added on a new socket. */
static int write_after_a_closed_read(int kq)
{
	int other = socket_number();
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	OK(close(NUMBER) == 0);
	OK(close(other) == 0);
	other = socket_number();
	ADD(kq, NUMBER, EVFILT_WRITE, EV_CLEAR);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	return other;
}

static void both_stand(int kq, int other)
{
	int i;
	for (i = 1; i <= 3; i++) {
		write_turns_ready(other);
		EVENT(kq, NUMBER, EVFILT_WRITE);
		put(other, 1);
		EQ(EVENT(kq, NUMBER, EVFILT_READ).data, i);
		NONE(kq);
	}
}

CHECK(write_on_a_new_socket_finds_no_read_knote_of_the_closed_one)
{
	int kq = new_kqueue(), other = write_after_a_closed_read(kq);
	FAILS(change(kq, NUMBER, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	NONE(kq);
	both_stand(kq, other);
	end(kq, other);
}

CHECK(read_added_beside_write_on_a_new_socket_leaves_both_at_work)
{
	int kq = new_kqueue(), other = write_after_a_closed_read(kq);
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	NONE(kq);
	both_stand(kq, other);
	end(kq, other);
}

CHECK(write_then_read_on_a_new_socket_in_one_call_after_a_closed_read)
{
	int kq = new_kqueue(), other = socket_number();
	struct kevent c[2];
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	OK(close(NUMBER) == 0);
	OK(close(other) == 0);
	other = socket_number();
	EV_SET(&c[0], NUMBER, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, &c[0]);
	EV_SET(&c[1], NUMBER, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, &c[1]);
	OK(kevent(kq, c, 2, NULL, 0, NULL) == 0);
	OK(EVENT(kq, NUMBER, EVFILT_WRITE).udata == &c[0]);
	both_stand(kq, other);
	delete(kq, EVFILT_WRITE);
	delete(kq, EVFILT_READ);
	end(kq, other);
}

CHECK(read_on_a_new_socket_works_after_a_closed_empty_with_dispatch)
{
	int kq = new_kqueue(), other = socket_number();
	struct kevent e;
	ADD(kq, NUMBER, EVFILT_EMPTY, EV_DISPATCH);
	OK(change(kq, NUMBER, EVFILT_EMPTY, EV_ENABLE, 0, 0, NULL) == 0);
	OK(close(NUMBER) == 0);
	OK(close(other) == 0);
	other = socket_number();
	OK(change(kq, NUMBER, EVFILT_READ, EV_ADD, 0, 0, &e) == 0);
	NONE(kq);
	put(other, 1);
	e = EVENT(kq, NUMBER, EVFILT_READ);
	EQ(e.data, 1);
	OK(e.udata == &e);
	delete(kq, EVFILT_READ);
	FAILS(change(kq, NUMBER, EVFILT_EMPTY, EV_DELETE, 0, 0, NULL), ENOENT);
	end(kq, other);
}

CHECK(a_socket_after_a_closed_file_reports_write_alone)
{
	int kq = new_kqueue(), other;
	becomes_number(bare_file(3));
	ADD(kq, NUMBER, EVFILT_READ, 0);
	EQ(EVENT(kq, NUMBER, EVFILT_READ).data, 3);
	OK(close(NUMBER) == 0);
	other = socket_number();
	ADD(kq, NUMBER, EVFILT_WRITE, EV_CLEAR);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	put(other, 1);
	NONE(kq);
	write_turns_ready(other);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	end(kq, other);
}

CHECK(growth_of_a_closed_file_does_not_reach_the_socket_on_its_number)
{
	int kq = new_kqueue(), witness = new_kqueue(), file = bare_file(0), other;
	struct kevent e;
	also_number(file);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	NONE(kq);
	OK(close(NUMBER) == 0);
	ADD(witness, file, EVFILT_READ, 0);
	NONE(witness);
	other = socket_number();
	OK(change(kq, NUMBER, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, &e) == 0);
	EQ(pwrite(file, "x", 1, 0), 1);
	/* By now the news of the file has been given out. */
	EQ(EVENT(witness, file, EVFILT_READ).data, 1);
	e = EVENT(kq, NUMBER, EVFILT_WRITE);
	EQ(e.flags, EV_CLEAR);
	OK(e.udata == &e);
	QUIET(kq);
	FAILS(change(kq, NUMBER, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	delete(kq, EVFILT_WRITE);
	OK(close(file) == 0);
	OK(close(witness) == 0);
	end(kq, other);
}

CHECK(a_socket_after_a_deleted_kqueue_that_lives_on_is_quiet_until_it_has_data)
{
	int kq = new_kqueue(), inner = new_kqueue(), other;
	also_number(inner);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	delete(kq, EVFILT_READ);
	OK(change(inner, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	OK(close(NUMBER) == 0);
	other = socket_number();
	ADD(kq, NUMBER, EVFILT_READ, 0);
	QUIET(kq);
	put(other, 1);
	EQ(EVENT(kq, NUMBER, EVFILT_READ).data, 1);
	OK(close(inner) == 0);
	end(kq, other);
}

CHECK(a_pipe_on_the_number_of_a_watched_kqueue_that_lives_on_is_written)
{
	int kq = new_kqueue(), inner = new_kqueue(), p[2];
	also_number(inner);
	NONE(NUMBER);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	OK(close(NUMBER) == 0);
	FAILS(change(kq, NUMBER, EVFILT_WRITE, EV_ADD, 0, 0, NULL), EBADF);
	also_number(inner);
	NONE(NUMBER);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	pipe_pair(p);
	also_number(p[1]);
	ADD(kq, NUMBER, EVFILT_WRITE, 0);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	FAILS(change(kq, NUMBER, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	OK(close(inner) == 0 && close(p[0]) == 0);
	end(kq, p[1]);
}

CHECK(a_file_of_proc_on_a_closed_number_is_not_heard_for_the_pipe_before)
{
	int kq = new_kqueue(), p[2], other, file;
	pipe_pair(p);
	ADD(kq, p[0], EVFILT_READ, 0);
	other = fcntl(p[0], F_DUPFD_CLOEXEC, 100);
	OK(other >= 0);
	put(p[1], 1);
	OK(close(p[0]) == 0);
	file = open("/proc/self/stat", O_RDONLY);
	EQ(file, p[0]);
	NONE(kq);
	OK(close(file) == 0);
	OK(close(other) == 0);
	OK(close(p[1]) == 0);
	OK(close(kq) == 0);
}

/*
 * A number is closed many times over while the socket it named first lives on. The end of
 * that one comes when the kqueue has not been asked for anything since.
 */
CHECK(the_end_of_a_numbers_first_socket_is_not_that_of_its_thousandth)
{
	int kq, files, i, kept, first, other;
	for (files = 100; files <= 1040; files++) {
		if (files % 256 > 2)
			continue;
		kq = new_kqueue();
		first = socket_number();
		ADD(kq, NUMBER, EVFILT_READ, 0);
		kept = fcntl(NUMBER, F_DUPFD_CLOEXEC, NUMBER + 1);
		OK(kept >= 0);
		other = -1;
		for (i = 0; i < files; i++) {
			OK(close(NUMBER) == 0);
			OK(other < 0 || close(other) == 0);
			other = socket_number();
			ADD(kq, NUMBER, EVFILT_READ, 0);
		}
		OK(close(first) == 0);
		NONE(kq);
		put(other, 1);
		EQ(EVENT(kq, NUMBER, EVFILT_READ).data, 1);
		OK(close(kept) == 0);
		end(kq, other);
	}
}

/* A socket, a pipe, a file and a device take the number of a socket that lives on, and ends. */
CHECK(the_end_of_a_closed_socket_that_lives_on_is_not_heard_for_the_next_file)
{
	static const int filters[] = {EVFILT_READ, EVFILT_WRITE};
	int s[2], p[2], files[4], i, f, mode;
	unix_pair(s, SOCK_STREAM);
	pipe_pair(p);
	files[0] = s[0];
	files[1] = p[0];
	OK((files[2] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)) >= 0);
	OK((files[3] = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0);
	for (i = 0; i < 4; i++) {
		for (f = 0; f < 2; f++) {
			for (mode = 0; mode <= EV_CLEAR; mode += EV_CLEAR) {
				int kq = new_kqueue(), other = socket_number(), kept;
				if (filters[f] == EVFILT_WRITE)
					fill(NUMBER);
				ADD(kq, NUMBER, filters[f], mode);
				kept = fcntl(NUMBER, F_DUPFD_CLOEXEC, NUMBER + 1);
				OK(kept >= 0);
				also_number(files[i]);
				OK(close(other) == 0);
				NONE(kq);
				FAILS(change(kq, NUMBER, filters[f], EV_DELETE, 0, 0, NULL), ENOENT);
				OK(close(kept) == 0);
				OK(close(NUMBER) == 0 && close(kq) == 0);
			}
		}
	}
	for (i = 0; i < 4; i++)
		OK(close(files[i]) == 0);
	OK(close(s[1]) == 0 && close(p[1]) == 0);
}

/* A knote in another set of epoll's must not carry the earlier file's sort over to this one. */
CHECK(read_beside_write_of_a_closed_socket_is_of_the_pipe_that_came)
{
	int kq = new_kqueue(), other = socket_number(), p[2];
	struct kevent e;
	ADD(kq, NUMBER, EVFILT_WRITE, EV_CLEAR);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	OK(close(NUMBER) == 0);
	pipe_pair(p);
	put(p[1], 5);
	becomes_number(p[1]);
	ADD(kq, NUMBER, EVFILT_READ, EV_CLEAR);
	OK(close(p[0]) == 0);
	e = EVENT(kq, NUMBER, EVFILT_READ);
	EQ(e.flags, EV_CLEAR | EV_EOF);
	EQ(e.data, 0);
	FAILS(change(kq, NUMBER, EVFILT_WRITE, EV_DELETE, 0, 0, NULL), ENOENT);
	end(kq, other);
}

CHECK(an_end_is_heard_where_only_a_spent_oneshot_of_another_sort_was_left)
{
	int kq = new_kqueue(), other = socket_number(), p[2];
	ADD(kq, NUMBER, EVFILT_WRITE, EV_CLEAR);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	put(other, 1);
	ADD(kq, NUMBER, EVFILT_READ, EV_ONESHOT);
	EVENT(kq, NUMBER, EVFILT_READ);
	delete(kq, EVFILT_WRITE);
	OK(close(other) == 0);
	OK(close(NUMBER) == 0);
	pipe_pair(p);
	becomes_number(p[0]);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	OK(close(p[1]) == 0);
	OK(EVENT(kq, NUMBER, EVFILT_READ).flags & EV_EOF);
	OK(close(NUMBER) == 0);
	OK(close(kq) == 0);
}

CHECK(a_mark_asked_for_on_a_new_socket_makes_one_knote_of_it)
{
	int kq = new_kqueue(), other = socket_number(), next;
	ADD(kq, NUMBER, EVFILT_READ, 0);
	ADD(kq, NUMBER, EVFILT_WRITE, 0);
	EVENT(kq, NUMBER, EVFILT_WRITE);
	OK(close(NUMBER) == 0);
	next = socket_number();
	OK(change(kq, NUMBER, EVFILT_READ, EV_ADD | EV_CLEAR, NOTE_LOWAT, 3, &kq) == 0);
	put(next, 4);
	EQ(EVENT(kq, NUMBER, EVFILT_READ).flags, EV_CLEAR);
	NONE(kq);
	delete(kq, EVFILT_READ);
	FAILS(change(kq, NUMBER, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	OK(close(other) == 0);
	end(kq, next);
}

/* The sets are built anew between epoll's report of the end and the event. */
CHECK(an_end_reported_beside_a_closed_sockets_data_is_told_at_once)
{
	int kq = new_kqueue(), ended[2], kept, other;
	struct kevent e;
	unix_pair(ended, SOCK_STREAM);
	other = socket_number();
	ADD(kq, ended[0], EVFILT_READ, EV_DISPATCH);
	ADD(kq, NUMBER, EVFILT_READ, 0);
	OK((kept = fcntl(NUMBER, F_DUPFD_CLOEXEC, 0)) >= 0);
	OK(close(NUMBER) == 0);
	OK(close(ended[1]) == 0);
	put(other, 1);
	EQ(collect(kq, &e, 1, 0), 1);
	EQ(e.ident, ended[0]);
	EQ(e.flags, EV_DISPATCH | EV_EOF);
	NONE(kq);
	OK(close(kept) == 0 && close(ended[0]) == 0);
	OK(close(other) == 0 && close(kq) == 0);
}

CHECKS(
	C(the_end_of_a_closed_socket_that_lives_on_is_not_heard_for_the_next_file)
	C(a_pipe_after_a_deleted_socket_that_had_ended_has_eof_of_its_own)
	C(a_socket_after_a_deleted_pipe_has_eof_of_its_own)
	C(the_room_of_a_deleted_socket_is_not_that_of_the_next)
	C(a_spent_oneshot_of_the_closed_socket_does_not_silence_the_next)
	C(write_on_a_new_socket_finds_no_read_knote_of_the_closed_one)
	C(read_added_beside_write_on_a_new_socket_leaves_both_at_work)
	C(write_then_read_on_a_new_socket_in_one_call_after_a_closed_read)
	C(read_on_a_new_socket_works_after_a_closed_empty_with_dispatch)
	C(a_socket_after_a_closed_file_reports_write_alone)
	C(growth_of_a_closed_file_does_not_reach_the_socket_on_its_number)
	C(a_socket_after_a_deleted_kqueue_that_lives_on_is_quiet_until_it_has_data)
	C(a_pipe_on_the_number_of_a_watched_kqueue_that_lives_on_is_written)
	C(a_file_of_proc_on_a_closed_number_is_not_heard_for_the_pipe_before)
	C(the_end_of_a_numbers_first_socket_is_not_that_of_its_thousandth)
	C(read_beside_write_of_a_closed_socket_is_of_the_pipe_that_came)
	C(an_end_is_heard_where_only_a_spent_oneshot_of_another_sort_was_left)
	C(a_mark_asked_for_on_a_new_socket_makes_one_knote_of_it)
	C(an_end_reported_beside_a_closed_sockets_data_is_told_at_once)
);
