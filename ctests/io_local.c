/* READ, WRITE and EMPTY on AF_UNIX sockets, and on UDP. */
#include "net.h"

static struct sockaddr_un own_name;

/* A listener on a name the kernel picks in the abstract space: no file is left behind. */
static int unix_listener(int backlog, socklen_t *len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OK(fd >= 0);
	memset(&own_name, 0, sizeof own_name);
	own_name.sun_family = AF_UNIX;
	OK(bind(fd, (struct sockaddr *)&own_name, sizeof(sa_family_t)) == 0);
	*len = sizeof own_name;
	OK(getsockname(fd, (struct sockaddr *)&own_name, len) == 0);
	OK(listen(fd, backlog) == 0);
	return fd;
}

static int unix_connect(socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OK(fd >= 0);
	OK(connect(fd, (struct sockaddr *)&own_name, len) == 0);
	return fd;
}

/* Two UDP sockets connected to each other. */
static void udp_pair(int s[2])
{
	struct sockaddr_in at[2];
	int i;
	for (i = 0; i < 2; i++) {
		socklen_t len = sizeof at[i];
		s[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		OK(s[i] >= 0);
		memset(&at[i], 0, sizeof at[i]);
		at[i].sin_family = AF_INET;
		at[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		OK(bind(s[i], (struct sockaddr *)&at[i], len) == 0);
		OK(getsockname(s[i], (struct sockaddr *)&at[i], &len) == 0);
	}
	for (i = 0; i < 2; i++)
		OK(connect(s[i], (struct sockaddr *)&at[!i], sizeof at[0]) == 0);
}

CHECK(unix_stream_gives_the_unread_bytes_at_each_call)
{
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[1], EVFILT_READ, 0);
	NONE(kq);
	put(s[0], 5);
	put(s[0], 6);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 11);
	get(s[1], 4);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 7);
	get(s[1], 7);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(unix_stream_clear_fires_per_arrival)
{
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[1], EVFILT_READ, EV_CLEAR);
	put(s[0], 5);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 5);
	NONE(kq);
	get(s[1], 1);
	NONE(kq);
	put(s[0], 6);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 10);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(unix_stream_low_water_mark)
{
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	OK(change(kq, (uintptr_t)s[1], EVFILT_READ, EV_ADD, NOTE_LOWAT, 10, NULL) == 0);
	put(s[0], 9);
	QUIET(kq);
	put(s[0], 1);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 10);
	EQ(option(s[1], SOL_SOCKET, SO_RCVLOWAT), 1);
	get(s[1], 5);
	QUIET(kq);
	close(s[0]);
	OK(EVENT(kq, s[1], EVFILT_READ).flags & EV_EOF);
	close(s[1]);
	close(kq);
}

CHECK(unix_stream_room_falls_as_bytes_queue_up)
{
	int s[2], kq = new_kqueue(), buf, whole;
	unix_pair(s, SOCK_STREAM);
	buf = option(s[0], SOL_SOCKET, SO_SNDBUF);
	ADD(kq, s[0], EVFILT_WRITE, 0);
	whole = (int)EVENT(kq, s[0], EVFILT_WRITE).data;
	OK(whole > buf / 2 && whole <= buf);
	put(s[0], 8000);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data <= whole - 8000);
	get(s[1], 8000);
	EQ(EVENT(kq, s[0], EVFILT_WRITE).data, whole);
	close_pair(s);
	close(kq);
}

static void full_and_drained(int type, int flags)
{
	int s[2], kq = new_kqueue();
	long n;
	unix_pair(s, type);
	ADD(kq, s[0], EVFILT_WRITE, flags);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data > 0);
	if (flags)
		QUIET(kq);
	n = fill(s[0]);
	QUIET(kq);
	drain(s[1], n);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data > 0);
	if (!flags)
		EVENT(kq, s[0], EVFILT_WRITE);
	close_pair(s);
	close(kq);
}

CHECK(unix_stream_full_is_silent_and_drained_wakes)
{
	full_and_drained(SOCK_STREAM, 0);
	full_and_drained(SOCK_STREAM, EV_CLEAR);
}

CHECK(unix_datagram_full_is_silent_and_drained_wakes)
{
	full_and_drained(SOCK_DGRAM, 0);
	full_and_drained(SOCK_DGRAM, EV_CLEAR);
}

CHECK(unix_stream_write_low_water_mark)
{
	int s[2], kq = new_kqueue(), whole;
	unix_pair(s, SOCK_STREAM);
	whole = option(s[0], SOL_SOCKET, SO_SNDBUF);
	OK(change(kq, (uintptr_t)s[0], EVFILT_WRITE, EV_ADD, NOTE_LOWAT, whole - 4000, NULL) == 0);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data >= whole - 4000);
	put(s[0], 8000);
	OK(polled(s[0], POLLOUT));
	QUIET(kq);
	get(s[1], 8000);
	OK(EVENT(kq, s[0], EVFILT_WRITE).data >= whole - 4000);
	close_pair(s);
	close(kq);
}

CHECK(unix_stream_peer_close_is_eof_in_both)
{
	struct kevent ev[3];
	int s[2], kq = new_kqueue(), i;
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[1], EVFILT_READ, 0);
	ADD(kq, s[1], EVFILT_WRITE, 0);
	put(s[0], 7);
	close(s[0]);
	for (i = 0; i < 3; i++) {
		int j;
		EQ(collect(kq, ev, 3, 10000), 2);
		EQ(ev[0].filter + ev[1].filter, EVFILT_READ + EVFILT_WRITE);
		for (j = 0; j < 2; j++) {
			OK(ev[j].flags & EV_EOF);
			EQ(ev[j].fflags, 0);
			if (ev[j].filter == EVFILT_READ)
				EQ(ev[j].data, 7);
		}
	}
	get(s[1], 7);
	EQ(collect(kq, ev, 3, 10000), 2);
	OK(ev[0].flags & EV_EOF);
	OK(ev[1].flags & EV_EOF);
	close(s[1]);
	close(kq);
}

CHECK(unix_stream_peer_close_with_clear_comes_once)
{
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[1], EVFILT_READ, EV_CLEAR);
	NONE(kq);
	close(s[0]);
	OK(EVENT(kq, s[1], EVFILT_READ).flags & EV_EOF);
	QUIET(kq);
	close(s[1]);
	close(kq);
}

CHECK(unix_stream_half_close_is_eof_for_read_alone)
{
	struct kevent ev;
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[1], EVFILT_READ, 0);
	put(s[0], 3);
	OK(shutdown(s[0], SHUT_WR) == 0);
	ev = EVENT(kq, s[1], EVFILT_READ);
	OK(ev.flags & EV_EOF);
	EQ(ev.data, 3);
	EQ(ev.fflags, 0);
	OK(change(kq, (uintptr_t)s[1], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	ADD(kq, s[1], EVFILT_WRITE, 0);
	EQ(EVENT(kq, s[1], EVFILT_WRITE).flags & EV_EOF, 0);
	close_pair(s);
	close(kq);
}

CHECK(unix_stream_own_shutdown_of_reading_is_eof)
{
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[1], EVFILT_READ, 0);
	NONE(kq);
	OK(shutdown(s[1], SHUT_RD) == 0);
	OK(EVENT(kq, s[1], EVFILT_READ).flags & EV_EOF);
	close_pair(s);
	close(kq);
}

CHECK(unix_stream_reset_shows_the_error_and_leaves_it_to_the_program)
{
	struct kevent ev[3];
	int s[2], kq = new_kqueue(), i, j;
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[1], EVFILT_READ, 0);
	ADD(kq, s[1], EVFILT_WRITE, 0);
	/* Bytes the peer never read make its close a reset. */
	put(s[1], 3);
	close(s[0]);
	for (i = 0; i < 2; i++) {
		EQ(collect(kq, ev, 3, 10000), 2);
		for (j = 0; j < 2; j++) {
			OK(ev[j].flags & EV_EOF);
			EQ(ev[j].fflags, ECONNRESET);
		}
	}
	EQ(option(s[1], SOL_SOCKET, SO_ERROR), ECONNRESET);
	close(s[1]);
	close(kq);
}

static void unix_backlog(int flags, int level)
{
	struct kevent ev;
	socklen_t len;
	int c[5], i, kq = new_kqueue(), l = unix_listener(16, &len);
	ADD(kq, l, EVFILT_READ, flags);
	NONE(kq);
	for (i = 0; i < 5; i++) {
		c[i] = unix_connect(len);
		ev = EVENT(kq, l, EVFILT_READ);
		EQ(ev.data, i + 1);
		EQ(ev.flags & EV_EOF, 0);
		if (!level)
			NONE(kq);
	}
	for (i = 5; i > 0; i--) {
		if (level)
			EQ(EVENT(kq, l, EVFILT_READ).data, i);
		OK(close(accept(l, NULL, NULL)) == 0);
		close(c[5 - i]);
	}
	NONE(kq);
	close(l);
	close(kq);
}

CHECK(unix_listener_counts_the_connections_that_wait)
{
	unix_backlog(0, 1);
}

CHECK(unix_listener_with_clear_gives_one_event_per_arrival)
{
	unix_backlog(EV_CLEAR, 0);
}

static void datagrams(void pair(int[2]))
{
	struct kevent ev;
	int s[2], kq = new_kqueue();
	pair(s);
	ADD(kq, s[1], EVFILT_READ, 0);
	NONE(kq);
	put(s[0], 9);
	ev = EVENT(kq, s[1], EVFILT_READ);
	EQ(ev.data, 9);
	EQ(ev.flags & EV_EOF, 0);
	put(s[0], 4);
	OK(EVENT(kq, s[1], EVFILT_READ).data >= 9);
	get(s[1], 9);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 4);
	get(s[1], 4);
	NONE(kq);
	close_pair(s);
	close(kq);
}

static void unix_dgram_pair(int s[2])
{
	unix_pair(s, SOCK_DGRAM);
}

static void unix_seqpacket_pair(int s[2])
{
	unix_pair(s, SOCK_SEQPACKET);
}

CHECK(datagrams_give_the_bytes_queued)
{
	datagrams(udp_pair);
	datagrams(unix_dgram_pair);
	datagrams(unix_seqpacket_pair);
}

static void empty_datagram(void pair(int[2]), int flags)
{
	struct kevent ev;
	char c;
	int s[2], kq = new_kqueue();
	pair(s);
	ADD(kq, s[1], EVFILT_READ, flags);
	EQ(send(s[0], "", 0, 0), 0);
	ev = EVENT(kq, s[1], EVFILT_READ);
	EQ(ev.data, 0);
	EQ(ev.flags & EV_EOF, 0);
	if (!flags)
		EQ(EVENT(kq, s[1], EVFILT_READ).data, 0);
	EQ(recv(s[1], &c, 1, 0), 0);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(a_datagram_of_no_bytes_is_an_event)
{
	empty_datagram(udp_pair, 0);
	empty_datagram(udp_pair, EV_CLEAR);
	empty_datagram(unix_dgram_pair, 0);
	empty_datagram(unix_dgram_pair, EV_CLEAR);
}

CHECK(udp_clear_fires_per_datagram)
{
	int s[2], kq = new_kqueue();
	udp_pair(s);
	ADD(kq, s[1], EVFILT_READ, EV_CLEAR);
	put(s[0], 3);
	EQ(EVENT(kq, s[1], EVFILT_READ).data, 3);
	NONE(kq);
	put(s[0], 5);
	OK(EVENT(kq, s[1], EVFILT_READ).data >= 3);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(udp_refused_by_icmp_is_a_read_event_without_eof)
{
	struct kevent ev;
	char c;
	int s[2], kq = new_kqueue(), i;
	udp_pair(s);
	ADD(kq, s[0], EVFILT_READ, 0);
	close(s[1]);
	put(s[0], 1);
	SETTLE(s[0], POLLERR);
	for (i = 0; i < 2; i++) {
		ev = EVENT(kq, s[0], EVFILT_READ);
		EQ(ev.flags & EV_EOF, 0);
		EQ(ev.fflags, 0);
	}
	FAILS(recv(s[0], &c, 1, MSG_DONTWAIT), ECONNREFUSED);
	NONE(kq);
	close(s[0]);
	close(kq);
}

CHECK(udp_is_writable_with_room)
{
	struct kevent ev;
	int s[2], kq = new_kqueue();
	udp_pair(s);
	ADD(kq, s[0], EVFILT_WRITE, 0);
	ev = EVENT(kq, s[0], EVFILT_WRITE);
	EQ(ev.flags & EV_EOF, 0);
	OK(ev.data > 0 && ev.data <= option(s[0], SOL_SOCKET, SO_SNDBUF));
	EVENT(kq, s[0], EVFILT_WRITE);
	OK(change(kq, (uintptr_t)s[0], EVFILT_WRITE, EV_DELETE, 0, 0, NULL) == 0);
	ADD(kq, s[0], EVFILT_WRITE, EV_CLEAR);
	EVENT(kq, s[0], EVFILT_WRITE);
	NONE(kq);
	close_pair(s);
	close(kq);
}

CHECK(udp_socket_without_a_peer_is_readable_and_writable)
{
	struct sockaddr_in at;
	socklen_t len = sizeof at;
	int kq = new_kqueue(), from, to;
	from = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	to = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	OK(from >= 0 && to >= 0);
	memset(&at, 0, sizeof at);
	at.sin_family = AF_INET;
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	OK(bind(to, (struct sockaddr *)&at, len) == 0);
	OK(getsockname(to, (struct sockaddr *)&at, &len) == 0);
	ADD(kq, from, EVFILT_WRITE, EV_ONESHOT);
	EQ(EVENT(kq, from, EVFILT_WRITE).flags & EV_EOF, 0);
	ADD(kq, to, EVFILT_READ, 0);
	NONE(kq);
	EQ(sendto(from, "abc", 3, 0, (struct sockaddr *)&at, len), 3);
	EQ(EVENT(kq, to, EVFILT_READ).data, 3);
	close(from);
	close(to);
	close(kq);
}

CHECK(empty_on_unix_stream_is_silent_until_the_peer_has_read)
{
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	ADD(kq, s[0], EVFILT_EMPTY, 0);
	EQ(EVENT(kq, s[0], EVFILT_EMPTY).data, 0);
	EQ(EVENT(kq, s[0], EVFILT_EMPTY).data, 0);
	put(s[0], 100);
	QUIET(kq);
	get(s[1], 60);
	QUIET(kq);
	get(s[1], 40);
	EQ(EVENT(kq, s[0], EVFILT_EMPTY).data, 0);
	close_pair(s);
	close(kq);
}

static void *read_later(void *arg)
{
	UNTIL(state_of(getpid()) == 'S');
	get(*(int *)arg, 100);
	return NULL;
}

CHECK(empty_wakes_a_call_that_sleeps_for_ever)
{
	struct kevent ev;
	pthread_t t;
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	put(s[0], 100);
	ADD(kq, s[0], EVFILT_EMPTY, EV_ONESHOT);
	NONE(kq);
	OK(pthread_create(&t, NULL, read_later, &s[1]) == 0);
	EQ(collect(kq, &ev, 1, -1), 1);
	EQ(ev.filter, EVFILT_EMPTY);
	OK(pthread_join(t, NULL) == 0);
	close_pair(s);
	close(kq);
}

CHECK(unix_listener_that_was_shut_down_is_silent_and_sleeps)
{
	socklen_t len;
	int kq = new_kqueue(), l = unix_listener(5, &len), c;
	ADD(kq, l, EVFILT_READ, 0);
	OK(shutdown(l, SHUT_RDWR) == 0);
	SETTLE(l, POLLHUP);
	QUIET(kq);
	OK(change(kq, (uintptr_t)l, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	close(l);
	l = unix_listener(5, &len);
	ADD(kq, l, EVFILT_READ, 0);
	c = unix_connect(len);
	OK(shutdown(l, SHUT_RDWR) == 0);
	EQ(EVENT(kq, l, EVFILT_READ).data, 1);
	close(c);
	close(l);
	close(kq);
}

/* Both filters ignore what NOTE_LOWAT says of a socket that listens. */
CHECK(unix_listener_has_no_low_water_mark)
{
	socklen_t len;
	int c, kq = new_kqueue(), l = unix_listener(5, &len);
	OK(change(kq, (uintptr_t)l, EVFILT_READ, EV_ADD, NOTE_LOWAT, 3, NULL) == 0);
	NONE(kq);
	c = unix_connect(len);
	EQ(EVENT(kq, l, EVFILT_READ).data, 1);
	close(c);
	close(l);
	close(kq);
}

CHECK(udp_error_is_told_below_the_low_water_mark)
{
	int s[2], kq = new_kqueue();
	udp_pair(s);
	OK(change(kq, (uintptr_t)s[0], EVFILT_READ, EV_ADD, NOTE_LOWAT, 10, NULL) == 0);
	put(s[1], 3);
	QUIET(kq);
	get(s[0], 3);
	close(s[1]);
	put(s[0], 1);
	SETTLE(s[0], POLLERR);
	EQ(EVENT(kq, s[0], EVFILT_READ).flags & EV_EOF, 0);
	close(s[0]);
	close(kq);
}

CHECK(empty_on_unix_listener_is_always_ready)
{
	socklen_t len;
	int kq = new_kqueue(), l = unix_listener(5, &len);
	ADD(kq, l, EVFILT_EMPTY, 0);
	EVENT(kq, l, EVFILT_EMPTY);
	EVENT(kq, l, EVFILT_EMPTY);
	close(l);
	close(kq);
}

CHECK(empty_on_a_pipe_is_refused)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	FAILS(change(kq, (uintptr_t)p[0], EVFILT_EMPTY, EV_ADD, 0, 0, NULL), EINVAL);
	FAILS(change(kq, (uintptr_t)p[1], EVFILT_EMPTY, EV_ADD, 0, 0, NULL), EINVAL);
	FAILS(change(kq, (uintptr_t)p[1], EVFILT_EMPTY, EV_DELETE, 0, 0, NULL), ENOENT);
	close_pair(p);
	close(kq);
}

CHECKS(
	C(unix_stream_gives_the_unread_bytes_at_each_call)
	C(unix_stream_clear_fires_per_arrival)
	C(unix_stream_low_water_mark)
	C(unix_stream_room_falls_as_bytes_queue_up)
	C(unix_stream_full_is_silent_and_drained_wakes)
	C(unix_datagram_full_is_silent_and_drained_wakes)
	C(unix_stream_write_low_water_mark)
	C(unix_stream_peer_close_is_eof_in_both)
	C(unix_stream_peer_close_with_clear_comes_once)
	C(unix_stream_half_close_is_eof_for_read_alone)
	C(unix_stream_own_shutdown_of_reading_is_eof)
	C(unix_stream_reset_shows_the_error_and_leaves_it_to_the_program)
	C(unix_listener_counts_the_connections_that_wait)
	C(unix_listener_with_clear_gives_one_event_per_arrival)
	C(datagrams_give_the_bytes_queued)
	C(a_datagram_of_no_bytes_is_an_event)
	C(udp_clear_fires_per_datagram)
	C(udp_refused_by_icmp_is_a_read_event_without_eof)
	C(udp_is_writable_with_room)
	C(udp_socket_without_a_peer_is_readable_and_writable)
	C(empty_on_unix_stream_is_silent_until_the_peer_has_read)
	C(empty_wakes_a_call_that_sleeps_for_ever)
	C(empty_on_unix_listener_is_always_ready)
	C(empty_on_a_pipe_is_refused)
	C(unix_listener_that_was_shut_down_is_silent_and_sleeps)
	C(unix_listener_has_no_low_water_mark)
	C(udp_error_is_told_below_the_low_water_mark)
);
