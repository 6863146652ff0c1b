/* TCP's states: half close, reset, refused and pending connects, urgent data, EMPTY. */
#include "net.h"
#include <linux/net_tstamp.h>

/* One call gives READ and WRITE of the descriptor and nothing else. */
static void both(int kq, int fd, struct kevent *r, struct kevent *w)
{
	struct kevent ev[3];
	int n = collect(kq, ev, 3, 10000);
	EQ(n, 2);
	EQ(ev[0].ident, fd);
	EQ(ev[1].ident, fd);
	EQ(ev[0].filter + ev[1].filter, EVFILT_READ + EVFILT_WRITE);
	*r = ev[ev[0].filter == EVFILT_READ ? 0 : 1];
	*w = ev[ev[0].filter == EVFILT_READ ? 1 : 0];
}

CHECK(half_close_is_eof_with_the_rest_and_stays)
{
	struct kevent ev;
	int s[2], kq = new_kqueue(), i;
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, 0);
	pass(s[0], s[1], 4);
	OK(shutdown(s[0], SHUT_WR) == 0);
	SETTLE(s[1], POLLRDHUP);
	ev = EVENT(kq, s[1], EVFILT_READ);
	OK(ev.flags & EV_EOF);
	EQ(ev.data, 4);
	EQ(ev.fflags, 0);
	get(s[1], 4);
	for (i = 0; i < 3; i++) {
		ev = EVENT(kq, s[1], EVFILT_READ);
		OK(ev.flags & EV_EOF);
		EQ(ev.data, 0);
		EQ(ev.fflags, 0);
	}
	close_pair(s);
	close(kq);
}

CHECK(half_close_with_clear_comes_once)
{
	struct kevent ev;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, EV_CLEAR);
	OK(shutdown(s[0], SHUT_WR) == 0);
	SETTLE(s[1], POLLRDHUP);
	ev = EVENT(kq, s[1], EVFILT_READ);
	OK(ev.flags & EV_EOF);
	EQ(ev.data, 0);
	QUIET(kq);
	close_pair(s);
	close(kq);
}

CHECK(half_close_is_no_eof_for_write)
{
	struct kevent r, w;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, 0);
	ADD(kq, s[1], EVFILT_WRITE, 0);
	OK(shutdown(s[0], SHUT_WR) == 0);
	SETTLE(s[1], POLLRDHUP);
	both(kq, s[1], &r, &w);
	OK(r.flags & EV_EOF);
	EQ(w.flags & EV_EOF, 0);
	OK(w.data > 0);
	close_pair(s);
	close(kq);
}

CHECK(closed_peer_that_refuses_our_bytes_is_eof_in_both)
{
	struct kevent r, w;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, 0);
	ADD(kq, s[1], EVFILT_WRITE, 0);
	close(s[0]);
	SETTLE(s[1], POLLRDHUP);
	EQ(send(s[1], "x", 1, MSG_NOSIGNAL), 1);
	SETTLE(s[1], POLLHUP);
	both(kq, s[1], &r, &w);
	OK(r.flags & EV_EOF);
	OK(w.flags & EV_EOF);
	close(s[1]);
	close(kq);
}

CHECK(own_shutdown_of_reading_is_eof_for_read)
{
	struct kevent r, w;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, 0);
	NONE(kq);
	OK(shutdown(s[1], SHUT_RD) == 0);
	OK(EVENT(kq, s[1], EVFILT_READ).flags & EV_EOF);
	ADD(kq, s[1], EVFILT_WRITE, 0);
	both(kq, s[1], &r, &w);
	OK(r.flags & EV_EOF);
	EQ(w.flags & EV_EOF, 0);
	close_pair(s);
	close(kq);
}

CHECK(own_shutdown_of_writing_is_eof_for_write)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_WRITE, 0);
	EQ(EVENT(kq, s[1], EVFILT_WRITE).flags & EV_EOF, 0);
	OK(shutdown(s[1], SHUT_WR) == 0);
	OK(EVENT(kq, s[1], EVFILT_WRITE).flags & EV_EOF);
	ADD(kq, s[1], EVFILT_READ, 0);
	OK(change(kq, (uintptr_t)s[1], EVFILT_WRITE, EV_DELETE, 0, 0, NULL) == 0);
	NONE(kq);
	close_pair(s);
	close(kq);
}

static void expect_reset(const struct kevent *ev)
{
	OK(ev->flags & EV_EOF);
	EQ(ev->fflags, ECONNRESET);
}

CHECK(reset_is_eof_with_the_error_in_both_knotes_at_each_call)
{
	struct kevent r, w;
	int s[2], kq = new_kqueue(), i;
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, 0);
	ADD(kq, s[1], EVFILT_WRITE, 0);
	tcp_reset(s[0]);
	SETTLE(s[1], POLLHUP);
	for (i = 0; i < 3; i++) {
		both(kq, s[1], &r, &w);
		expect_reset(&r);
		expect_reset(&w);
		EQ(r.data, 0);
	}
	EQ(option(s[1], SOL_SOCKET, SO_ERROR), ECONNRESET);
	/* The program has taken the error; the connection is no less dead. */
	both(kq, s[1], &r, &w);
	OK(r.flags & EV_EOF);
	OK(w.flags & EV_EOF);
	close(s[1]);
	close(kq);
}

static void reset_alone(int filter, int flags)
{
	struct kevent ev;
	char c;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	tcp_reset(s[0]);
	SETTLE(s[1], POLLHUP);
	ADD(kq, s[1], filter, flags);
	ev = EVENT(kq, s[1], filter);
	expect_reset(&ev);
	if (flags) {
		QUIET(kq);
	} else {
		ev = EVENT(kq, s[1], filter);
		expect_reset(&ev);
	}
	FAILS(recv(s[1], &c, 1, 0), ECONNRESET);
	close(s[1]);
	close(kq);
}

CHECK(reset_is_seen_by_a_lone_knote_and_recv_still_gives_the_error)
{
	reset_alone(EVFILT_READ, 0);
	reset_alone(EVFILT_WRITE, 0);
	reset_alone(EVFILT_READ, EV_CLEAR);
	reset_alone(EVFILT_WRITE, EV_CLEAR);
	reset_alone(EVFILT_READ, EV_ONESHOT);
	reset_alone(EVFILT_WRITE, EV_DISPATCH);
}

CHECK(reset_is_seen_by_two_queues)
{
	struct kevent ev;
	int s[2], one = new_kqueue(), two = new_kqueue();
	tcp_pair(s);
	ADD(one, s[1], EVFILT_READ, 0);
	ADD(two, s[1], EVFILT_READ, 0);
	tcp_reset(s[0]);
	SETTLE(s[1], POLLHUP);
	ev = EVENT(one, s[1], EVFILT_READ);
	expect_reset(&ev);
	ev = EVENT(two, s[1], EVFILT_READ);
	expect_reset(&ev);
	EQ(option(s[1], SOL_SOCKET, SO_ERROR), ECONNRESET);
	close(s[1]);
	close(one);
	close(two);
}

static void refused(int filter, int add_first)
{
	struct sockaddr_in at;
	struct kevent ev;
	int kq = new_kqueue(), held = tcp_bound(&at, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	OK(fd >= 0);
	if (add_first)
		ADD(kq, fd, filter, 0);
	FAILS(connect(fd, (struct sockaddr *)&at, sizeof at), EINPROGRESS);
	if (!add_first)
		ADD(kq, fd, filter, 0);
	SETTLE(fd, POLLHUP);
	ev = EVENT(kq, fd, filter);
	OK(ev.flags & EV_EOF);
	EQ(ev.fflags, ECONNREFUSED);
	ev = EVENT(kq, fd, filter);
	EQ(ev.fflags, ECONNREFUSED);
	EQ(option(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	close(fd);
	close(held);
	close(kq);
}

CHECK(refused_connect_is_eof_with_the_error_and_the_program_still_finds_it)
{
	refused(EVFILT_WRITE, 0);
	refused(EVFILT_WRITE, 1);
	refused(EVFILT_READ, 0);
	refused(EVFILT_READ, 1);
}

CHECK(refused_connect_is_seen_by_both_knotes)
{
	struct sockaddr_in at;
	struct kevent r, w;
	int kq = new_kqueue(), held = tcp_bound(&at, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ADD(kq, fd, EVFILT_READ, 0);
	ADD(kq, fd, EVFILT_WRITE, 0);
	FAILS(connect(fd, (struct sockaddr *)&at, sizeof at), EINPROGRESS);
	SETTLE(fd, POLLHUP);
	both(kq, fd, &r, &w);
	OK(r.flags & w.flags & EV_EOF);
	EQ(r.fflags, ECONNREFUSED);
	EQ(w.fflags, ECONNREFUSED);
	EQ(option(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	close(fd);
	close(held);
	close(kq);
}

/* What the error queue holds, such as times of sending, makes epoll report an error. */
CHECK(error_queue_is_news_to_the_reader_and_no_end)
{
	static const char zeros[65536];
	struct kevent r, w;
	struct msghdr none;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	set_option(s[0], SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE);
	put(s[0], 3);
	SETTLE(s[0], POLLERR);
	ADD(kq, s[0], EVFILT_READ, 0);
	ADD(kq, s[0], EVFILT_WRITE, 0);
	both(kq, s[0], &r, &w);
	EQ(r.flags, 0);
	EQ(r.fflags, 0);
	EQ(r.data, 0);
	EQ(w.flags, 0);
	EQ(w.fflags, 0);
	set_option(s[0], SOL_SOCKET, SO_TIMESTAMPING, 0);
	nonblock(s[0]);
	/* What is on its way may make room once more. */
	UNTIL(write(s[0], zeros, sizeof zeros) == -1 && !(polled(s[0], POLLOUT) & POLLOUT));
	EQ(EVENT(kq, s[0], EVFILT_READ).flags, 0);
	OK(change(kq, (uintptr_t)s[0], EVFILT_WRITE, EV_DELETE, 0, 0, NULL) == 0);
	memset(&none, 0, sizeof none);
	while (recvmsg(s[0], &none, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
		;
	QUIET(kq);
	put(s[1], 5);
	EQ(EVENT(kq, s[0], EVFILT_READ).data, 5);
	close_pair(s);
	close(kq);
}

CHECK(never_connected_socket_is_silent_for_both_and_wakes_after_connect)
{
	struct sockaddr_in at;
	struct kevent ev;
	int kq = new_kqueue(), l = tcp_listener(&at, 5, 0), peer;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ADD(kq, fd, EVFILT_READ, 0);
	ADD(kq, fd, EVFILT_WRITE, 0);
	QUIET(kq);
	OK(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
	ev = EVENT(kq, fd, EVFILT_WRITE);
	EQ(ev.flags & EV_EOF, 0);
	EQ(ev.fflags, 0);
	OK(ev.data > 0);
	peer = accept(l, NULL, NULL);
	OK(change(kq, (uintptr_t)fd, EVFILT_WRITE, EV_DELETE, 0, 0, NULL) == 0);
	NONE(kq);
	pass(peer, fd, 3);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 3);
	close(peer);
	close(fd);
	close(l);
	close(kq);
}

CHECK(connect_in_progress_is_silent_then_writable_without_eof)
{
	struct sockaddr_in at;
	struct kevent ev;
	/* A backlog of 0 holds one connection; the next SYN goes unanswered. */
	int kq = new_kqueue(), l = tcp_listener(&at, 0, 0), first = tcp_connect(&at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	FAILS(connect(fd, (struct sockaddr *)&at, sizeof at), EINPROGRESS);
	ADD(kq, fd, EVFILT_WRITE, 0);
	ADD(kq, fd, EVFILT_READ, 0);
	QUIET(kq);
	OK(close(accept(l, NULL, NULL)) == 0);
	ev = EVENT(kq, fd, EVFILT_WRITE);
	EQ(ev.flags & EV_EOF, 0);
	EQ(ev.fflags, 0);
	OK(ev.data > 0);
	EQ(option(fd, SOL_SOCKET, SO_ERROR), 0);
	close(first);
	close(fd);
	close(l);
	close(kq);
}

static void add_oob(int kq, int fd, int flags)
{
	OK(change(kq, (uintptr_t)fd, EVFILT_EXCEPT, EV_ADD | flags, NOTE_OOB, 0, NULL) == 0);
}

static void put_oob(int from, int to)
{
	EQ(send(from, "!", 1, MSG_OOB), 1);
	SETTLE(to, POLLPRI);
}

static void get_oob(int fd)
{
	char c = 0;
	EQ(recv(fd, &c, 1, MSG_OOB), 1);
	EQ(c, '!');
}

CHECK(urgent_byte_is_an_except_event_until_it_is_taken)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	add_oob(kq, s[1], 0);
	NONE(kq);
	put_oob(s[0], s[1]);
	OK(EVENT(kq, s[1], EVFILT_EXCEPT).fflags & NOTE_OOB);
	OK(EVENT(kq, s[1], EVFILT_EXCEPT).fflags & NOTE_OOB);
	get_oob(s[1]);
	QUIET(kq);
	close_pair(s);
	close(kq);
}

CHECK(urgent_byte_with_clear_comes_once_each)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	add_oob(kq, s[1], EV_CLEAR);
	put_oob(s[0], s[1]);
	OK(EVENT(kq, s[1], EVFILT_EXCEPT).fflags & NOTE_OOB);
	NONE(kq);
	get_oob(s[1]);
	NONE(kq);
	put_oob(s[0], s[1]);
	OK(EVENT(kq, s[1], EVFILT_EXCEPT).fflags & NOTE_OOB);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(ordinary_bytes_are_no_except_event)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	add_oob(kq, s[1], 0);
	pass(s[0], s[1], 5);
	QUIET(kq);
	ADD(kq, s[1], EVFILT_READ, 0);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 5);
	close_pair(s);
	close(kq);
}

CHECK(bytes_behind_a_taken_urgent_byte_are_a_read_event)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, 0);
	put_oob(s[0], s[1]);
	get_oob(s[1]);
	NONE(kq);
	put(s[0], 2);
	SETTLE(s[1], POLLIN);
	/* FIONREAD stops at the urgent mark and says 0 here; the bytes are there all the same. */
	EVENT(kq, s[1], EVFILT_READ);
	EVENT(kq, s[1], EVFILT_READ);
	get(s[1], 2);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(empty_comes_at_once_and_at_each_call_when_all_is_acknowledged)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[0], EVFILT_EMPTY, 0);
	EQ(EVENT(kq, s[0], EVFILT_EMPTY).data, 0);
	EQ(EVENT(kq, s[0], EVFILT_EMPTY).data, 0);
	pass(s[0], s[1], 10);
	UNTIL(unsent(s[0]) == 0);
	EQ(EVENT(kq, s[0], EVFILT_EMPTY).data, 0);
	close_pair(s);
	close(kq);
}

CHECK(empty_is_silent_while_bytes_are_out_and_wakes_with_the_last)
{
	int s[2], kq = new_kqueue();
	long n;
	tcp_pair_sized(s, 16384, 4096);
	ADD(kq, s[0], EVFILT_EMPTY, 0);
	n = fill(s[0]);
	QUIET(kq);
	drain(s[1], n);
	EQ(EVENT(kq, s[0], EVFILT_EMPTY).data, 0);
	EQ(unsent(s[0]), 0);
	close_pair(s);
	close(kq);
}

CHECK(empty_stands_beside_read_and_write)
{
	struct kevent ev[4];
	int s[2], kq = new_kqueue(), i, seen = 0;
	tcp_pair(s);
	pass(s[1], s[0], 3);
	ADD(kq, s[0], EVFILT_EMPTY, EV_ONESHOT);
	ADD(kq, s[0], EVFILT_WRITE, EV_CLEAR);
	ADD(kq, s[0], EVFILT_READ, 0);
	EQ(collect(kq, ev, 4, 10000), 3);
	for (i = 0; i < 3; i++)
		seen |= ev[i].filter == EVFILT_EMPTY ? 1 : ev[i].filter == EVFILT_WRITE ? 2 : 4;
	EQ(seen, 7);
	EQ(EVENT(kq, s[0], EVFILT_READ).data, 3);
	FAILS(change(kq, (uintptr_t)s[0], EVFILT_EMPTY, EV_DELETE, 0, 0, NULL), ENOENT);
	close_pair(s);
	close(kq);
}

CHECK(empty_on_a_listener_is_always_ready)
{
	struct sockaddr_in at;
	int kq = new_kqueue(), l = tcp_listener(&at, 5, 0);
	ADD(kq, l, EVFILT_EMPTY, 0);
	EVENT(kq, l, EVFILT_EMPTY);
	EVENT(kq, l, EVFILT_EMPTY);
	close(l);
	close(kq);
}

CHECKS(
	C(half_close_is_eof_with_the_rest_and_stays)
	C(half_close_with_clear_comes_once)
	C(half_close_is_no_eof_for_write)
	C(closed_peer_that_refuses_our_bytes_is_eof_in_both)
	C(own_shutdown_of_reading_is_eof_for_read)
	C(own_shutdown_of_writing_is_eof_for_write)
	C(reset_is_eof_with_the_error_in_both_knotes_at_each_call)
	C(reset_is_seen_by_a_lone_knote_and_recv_still_gives_the_error)
	C(reset_is_seen_by_two_queues)
	C(refused_connect_is_eof_with_the_error_and_the_program_still_finds_it)
	C(refused_connect_is_seen_by_both_knotes)
	C(error_queue_is_news_to_the_reader_and_no_end)
	C(never_connected_socket_is_silent_for_both_and_wakes_after_connect)
	C(connect_in_progress_is_silent_then_writable_without_eof)
	C(urgent_byte_is_an_except_event_until_it_is_taken)
	C(urgent_byte_with_clear_comes_once_each)
	C(ordinary_bytes_are_no_except_event)
	C(bytes_behind_a_taken_urgent_byte_are_a_read_event)
	C(empty_comes_at_once_and_at_each_call_when_all_is_acknowledged)
	C(empty_is_silent_while_bytes_are_out_and_wakes_with_the_last)
	C(empty_stands_beside_read_and_write)
	C(empty_on_a_listener_is_always_ready)
);
