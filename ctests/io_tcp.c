/* EVFILT_READ and EVFILT_WRITE on TCP: counts, edges, room, marks and the backlog. */
#include "net.h"

CHECK(read_gives_the_unread_bytes_at_each_call_and_nothing_at_none)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, 0);
	NONE(kq);
	pass(s[0], s[1], 5);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 5);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 5);
	get(s[1], 2);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 3);
	get(s[1], 3);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(read_event_carries_no_flag_of_its_own)
{
	struct kevent ev;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	OK(change(kq, (uintptr_t)s[1], EVFILT_READ, EV_ADD, 0, 0, &ev) == 0);
	pass(s[0], s[1], 1);
	ev = EVENT(kq, s[1], EVFILT_READ);
	EQ(ev.flags, 0);
	EQ(ev.fflags, 0);
	OK(ev.udata == &ev);
	close_pair(s);
	close(kq);
}

CHECK(data_that_was_there_before_the_add_is_reported)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	pass(s[0], s[1], 8);
	ADD(kq, s[1], EVFILT_READ, EV_CLEAR);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 8);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(clear_gives_a_second_event_with_all_bytes_when_more_arrive)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, EV_CLEAR);
	pass(s[0], s[1], 3);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 3);
	NONE(kq);
	pass(s[0], s[1], 4);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 7);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(clear_gives_no_event_for_a_partial_read)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, EV_CLEAR);
	pass(s[0], s[1], 6);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 6);
	get(s[1], 2);
	QUIET(kq);
	close_pair(s);
	close(kq);
}

static void read_before_the_call(int flags)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	ADD(kq, s[1], EVFILT_READ, flags);
	pass(s[0], s[1], 6);
	get(s[1], 6);
	QUIET(kq);
	pass(s[0], s[1], 2);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 2);
	close_pair(s);
	close(kq);
}

CHECK(bytes_read_before_the_call_give_no_event)
{
	read_before_the_call(0);
	read_before_the_call(EV_CLEAR);
	read_before_the_call(EV_ONESHOT);
	read_before_the_call(EV_DISPATCH);
}

struct later { int fd, parts; };

/* Five bytes at a time, each time that the first thread sleeps. */
static void *write_to_a_sleeper(void *arg)
{
	struct later *l = arg;
	for (; l->parts > 0; l->parts--) {
		UNTIL(state_of(getpid()) == 'S');
		put(l->fd, 5);
	}
	return NULL;
}

CHECK(a_sleeping_call_wakes_when_bytes_arrive)
{
	struct later l = {0, 1};
	pthread_t t;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	l.fd = s[0];
	ADD(kq, s[1], EVFILT_READ, 0);
	OK(pthread_create(&t, NULL, write_to_a_sleeper, &l) == 0);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 5);
	OK(pthread_join(t, NULL) == 0);
	close_pair(s);
	close(kq);
}

CHECK(write_gives_the_room_left_and_it_falls)
{
	struct kevent ev;
	int s[2], kq = new_kqueue(), buf, whole;
	tcp_pair_sized(s, 65536, 4096);
	buf = option(s[0], SOL_SOCKET, SO_SNDBUF);
	ADD(kq, s[0], EVFILT_WRITE, 0);
	whole = (int)EVENT(kq, s[0], EVFILT_WRITE).data;
	OK(whole > 0 && whole <= buf);
	EQ(EVENT(kq, s[0], EVFILT_WRITE).data, whole);
	/* More than the other side's buffer takes, and less than fills ours. */
	put(s[0], 32768);
	OK(polled(s[0], POLLOUT));
	ev = EVENT(kq, s[0], EVFILT_WRITE);
	OK(ev.data > 0 && ev.data <= whole - 16384);
	EQ(ev.fflags, 0);
	close_pair(s);
	close(kq);
}

CHECK(write_is_silent_when_full_and_comes_back_when_drained)
{
	int s[2], kq = new_kqueue();
	long n;
	tcp_pair_sized(s, 16384, 4096);
	ADD(kq, s[0], EVFILT_WRITE, 0);
	EVENT(kq, s[0], EVFILT_WRITE);
	n = fill(s[0]);
	QUIET(kq);
	drain(s[1], n);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data > 0);
	close_pair(s);
	close(kq);
}

CHECK(write_clear_comes_once_and_again_after_a_full_buffer_drained)
{
	int s[2], kq = new_kqueue();
	long n;
	tcp_pair_sized(s, 16384, 4096);
	ADD(kq, s[0], EVFILT_WRITE, EV_CLEAR);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data > 0);
	QUIET(kq);
	n = fill(s[0]);
	QUIET(kq);
	drain(s[1], n);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data > 0);
	close_pair(s);
	close(kq);
}

static void backlog(int flags, int level)
{
	struct sockaddr_in at;
	struct kevent ev;
	int c[4], i, kq = new_kqueue(), l = tcp_listener(&at, 16, 0);
	ADD(kq, l, EVFILT_READ, flags);
	NONE(kq);
	for (i = 0; i < 4; i++) {
		c[i] = tcp_connect(&at);
		SETTLE(l, POLLIN);
		ev = EVENT(kq, l, EVFILT_READ);
		EQ(ev.data, i + 1);
		EQ(ev.flags & EV_EOF, 0);
		if (!level)
			NONE(kq);
	}
	for (i = 4; i > 0; i--) {
		if (level)
			EQ(EVENT(kq, l, EVFILT_READ).data, i);
		OK(close(accept(l, NULL, NULL)) == 0);
		close(c[4 - i]);
	}
	NONE(kq);
	close(l);
	close(kq);
}

CHECK(listener_counts_the_connections_that_wait)
{
	backlog(0, 1);
}

CHECK(listener_with_clear_gives_one_event_per_arrival)
{
	backlog(EV_CLEAR, 0);
}

CHECK(listener_is_never_writable)
{
	struct sockaddr_in at;
	int c, kq = new_kqueue(), l = tcp_listener(&at, 16, 0);
	ADD(kq, l, EVFILT_WRITE, 0);
	NONE(kq);
	c = tcp_connect(&at);
	SETTLE(l, POLLIN);
	QUIET(kq);
	close(c);
	close(l);
	close(kq);
}

/* Registers with NOTE_LOWAT. */
static void add_mark(int kq, int fd, int filter, int flags, intptr_t mark)
{
	OK(change(kq, (uintptr_t)fd, filter, EV_ADD | flags, NOTE_LOWAT, mark, NULL) == 0);
}

CHECK(read_low_water_mark_holds_back_until_it_is_reached)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	add_mark(kq, s[1], EVFILT_READ, 0, 10);
	pass(s[0], s[1], 9);
	QUIET(kq);
	pass(s[0], s[1], 1);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 10);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 10);
	get(s[1], 1);
	QUIET(kq);
	pass(s[0], s[1], 3);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 12);
	close_pair(s);
	close(kq);
}

CHECK(read_low_water_mark_with_clear)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	add_mark(kq, s[1], EVFILT_READ, EV_CLEAR, 4);
	pass(s[0], s[1], 3);
	QUIET(kq);
	pass(s[0], s[1], 3);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 6);
	QUIET(kq);
	close_pair(s);
	close(kq);
}

CHECK(read_low_water_mark_wakes_a_sleeping_call_only_when_reached)
{
	struct later l = {0, 2};
	pthread_t t;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	l.fd = s[0];
	add_mark(kq, s[1], EVFILT_READ, 0, 8);
	OK(pthread_create(&t, NULL, write_to_a_sleeper, &l) == 0);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 10);
	OK(pthread_join(t, NULL) == 0);
	close_pair(s);
	close(kq);
}

CHECK(low_water_mark_leaves_other_knotes_and_the_socket_option_alone)
{
	int s[2], kq = new_kqueue(), other = new_kqueue();
	int mark, room;
	tcp_pair(s);
	mark = option(s[1], SOL_SOCKET, SO_RCVLOWAT);
	room = option(s[1], SOL_SOCKET, SO_SNDBUF);
	add_mark(kq, s[1], EVFILT_READ, 0, 10);
	add_mark(kq, s[1], EVFILT_WRITE, EV_DISABLE, 10);
	ADD(other, s[1], EVFILT_READ, 0);
	pass(s[0], s[1], 4);
	NONE(kq);
	EQ(EVENT(other, s[1], EVFILT_READ).data, 4);
	EQ(option(s[1], SOL_SOCKET, SO_RCVLOWAT), mark);
	EQ(option(s[1], SOL_SOCKET, SO_SNDBUF), room);
	close_pair(s);
	close(kq);
	close(other);
}

CHECK(read_low_water_mark_does_not_hold_back_the_end)
{
	struct kevent ev;
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	add_mark(kq, s[1], EVFILT_READ, 0, 10);
	pass(s[0], s[1], 4);
	NONE(kq);
	OK(shutdown(s[0], SHUT_WR) == 0);
	SETTLE(s[1], POLLRDHUP);
	ev = EVENT(kq, s[1], EVFILT_READ);
	OK(ev.flags & EV_EOF);
	EQ(ev.data, 4);
	close_pair(s);
	close(kq);
}

CHECK(an_add_without_a_mark_takes_the_mark_back)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	add_mark(kq, s[1], EVFILT_READ, 0, 10);
	pass(s[0], s[1], 4);
	NONE(kq);
	ADD(kq, s[1], EVFILT_READ, 0);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 4);
	close_pair(s);
	close(kq);
}

CHECK(the_programs_own_receive_mark_is_respected)
{
	int s[2], kq = new_kqueue();
	tcp_pair(s);
	set_option(s[1], SOL_SOCKET, SO_RCVLOWAT, 8);
	ADD(kq, s[1], EVFILT_READ, 0);
	pass(s[0], s[1], 7);
	QUIET(kq);
	pass(s[0], s[1], 1);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 8);
	close_pair(s);
	close(kq);
}

CHECK(write_low_water_mark_waits_for_that_much_room)
{
	int s[2], kq = new_kqueue(), whole;
	tcp_pair_sized(s, 65536, 4096);
	ADD(kq, s[0], EVFILT_WRITE, EV_ONESHOT);
	whole = (int)EVENT(kq, s[0], EVFILT_WRITE).data;
	add_mark(kq, s[0], EVFILT_WRITE, 0, whole - 1000);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data >= whole - 1000);
	put(s[0], 32768);
	OK(polled(s[0], POLLOUT));
	QUIET(kq);
	drain(s[1], 32768);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data >= whole - 1000);
	close_pair(s);
	close(kq);
}

/* SO_SNDBUF is not asked for at each event: a change of the knote has it read anew. */
static void room_of_a_new_size(int pair[2])
{
	int kq = new_kqueue(), before;
	set_option(pair[0], SOL_SOCKET, SO_SNDBUF, 65536);
	ADD(kq, pair[0], EVFILT_WRITE, 0);
	before = (int)EVENT(kq, pair[0], EVFILT_WRITE).data;
	set_option(pair[0], SOL_SOCKET, SO_SNDBUF, before / 8);
	ADD(kq, pair[0], EVFILT_WRITE, 0);
	EQ(EVENT(kq, pair[0], EVFILT_WRITE).data, option(pair[0], SOL_SOCKET, SO_SNDBUF));
	/* A mark is measured by the size as it is. */
	add_mark(kq, pair[0], EVFILT_WRITE, 0, before / 2);
	NONE(kq);
	set_option(pair[0], SOL_SOCKET, SO_SNDBUF, before / 3);
	EQ(EVENT(kq, pair[0], EVFILT_WRITE).data, option(pair[0], SOL_SOCKET, SO_SNDBUF));
	set_option(pair[0], SOL_SOCKET, SO_SNDBUF, before / 8);
	NONE(kq);
	close_pair(pair);
	close(kq);
}

CHECK(room_is_that_of_a_size_set_after_the_first_event)
{
	int s[2];
	tcp_pair(s);
	room_of_a_new_size(s);
	unix_pair(s, SOCK_STREAM);
	room_of_a_new_size(s);
}

CHECKS(
	C(read_gives_the_unread_bytes_at_each_call_and_nothing_at_none)
	C(read_event_carries_no_flag_of_its_own)
	C(data_that_was_there_before_the_add_is_reported)
	C(clear_gives_a_second_event_with_all_bytes_when_more_arrive)
	C(clear_gives_no_event_for_a_partial_read)
	C(bytes_read_before_the_call_give_no_event)
	C(a_sleeping_call_wakes_when_bytes_arrive)
	C(write_gives_the_room_left_and_it_falls)
	C(write_is_silent_when_full_and_comes_back_when_drained)
	C(write_clear_comes_once_and_again_after_a_full_buffer_drained)
	C(listener_counts_the_connections_that_wait)
	C(listener_with_clear_gives_one_event_per_arrival)
	C(listener_is_never_writable)
	C(read_low_water_mark_holds_back_until_it_is_reached)
	C(read_low_water_mark_with_clear)
	C(read_low_water_mark_wakes_a_sleeping_call_only_when_reached)
	C(low_water_mark_leaves_other_knotes_and_the_socket_option_alone)
	C(read_low_water_mark_does_not_hold_back_the_end)
	C(an_add_without_a_mark_takes_the_mark_back)
	C(the_programs_own_receive_mark_is_respected)
	C(write_low_water_mark_waits_for_that_much_room)
	C(room_is_that_of_a_size_set_after_the_first_event)
);
