/* Two and three filters on one descriptor, each with a mode of its own. */
#include "net.h"
#include <sys/eventfd.h>

enum { LEVEL = 0, CLEAR = EV_CLEAR, ONESHOT = EV_ONESHOT, DISPATCH = EV_DISPATCH };
static const int modes[] = {LEVEL, CLEAR, ONESHOT, DISPATCH};

static char read_mark, write_mark, except_mark;

/* What stands for the knote in udata, so that events cannot be confused. */
static void *mark_of(int filter)
{
	return filter == EVFILT_READ ? &read_mark : filter == EVFILT_WRITE ? &write_mark : &except_mark;
}

static int act(int kq, int fd, int filter, int flags)
{
	return change(kq, (uintptr_t)fd, filter, flags, filter == EVFILT_EXCEPT ? NOTE_OOB : 0, 0, mark_of(filter));
}

/* A call without waiting gives just these of the three filters; bytes is READ's data. */
#define EXPECT(kq, r, w, x, bytes) expect(kq, r, w, x, bytes, __LINE__)
static void expect(int kq, int r, int w, int x, long bytes, int line)
{
	struct kevent ev[4];
	int i, got[3] = {0}, n = collect(kq, ev, 4, 0);
	for (i = 0; i < n; i++) {
		int which = ev[i].filter == EVFILT_READ ? 0 : ev[i].filter == EVFILT_WRITE ? 1 : 2;
		got[which]++;
		if (which == 0 && ev[i].data != bytes)
			FAIL("line %d: READ with data %ld, not %ld", line, (long)ev[i].data, bytes);
		if (ev[i].udata != mark_of(ev[i].filter))
			FAIL("line %d: filter %d with another's udata", line, ev[i].filter);
	}
	if (n < 0 || got[0] != r || got[1] != w || got[2] != x)
		FAIL("line %d: %d events, READ %d WRITE %d EXCEPT %d; expected %d %d %d", line, n,
		     got[0], got[1], got[2], r, w, x);
}

/* The life of READ in mode r and WRITE in mode w on s[0]; s[1] is the other side. */
static void walk(int s[2], int r, int w, int write_first)
{
	int kq = new_kqueue(), lr = r == LEVEL, lw = w == LEVEL;
	OK(act(kq, s[0], write_first ? EVFILT_WRITE : EVFILT_READ, EV_ADD | (write_first ? w : r)) == 0);
	OK(act(kq, s[0], write_first ? EVFILT_READ : EVFILT_WRITE, EV_ADD | (write_first ? r : w)) == 0);
	EXPECT(kq, 0, 1, 0, 0);
	EXPECT(kq, 0, lw, 0, 0);
	pass(s[1], s[0], 3);
	EXPECT(kq, 1, lw, 0, 3);
	EXPECT(kq, lr, lw, 0, 3);
	pass(s[1], s[0], 2);
	EXPECT(kq, lr || r == CLEAR, lw, 0, 5);
	EXPECT(kq, lr, lw, 0, 5);
	if (r == DISPATCH) {
		OK(act(kq, s[0], EVFILT_READ, EV_ENABLE) == 0);
		EXPECT(kq, 1, lw, 0, 5);
		EXPECT(kq, 0, lw, 0, 0);
	}
	if (w == DISPATCH) {
		OK(act(kq, s[0], EVFILT_WRITE, EV_ENABLE) == 0);
		EXPECT(kq, lr, 1, 0, 5);
		EXPECT(kq, lr, 0, 0, 5);
	}
	get(s[0], 5);
	EXPECT(kq, 0, lw, 0, 0);
	if (!lw)
		QUIET(kq);
	EQ(act(kq, s[0], EVFILT_READ, EV_DELETE), r == ONESHOT ? -1 : 0);
	EXPECT(kq, 0, lw, 0, 0);
	EQ(act(kq, s[0], EVFILT_WRITE, EV_DELETE), w == ONESHOT ? -1 : 0);
	close(kq);
}

/* The peer closes: both knotes see the end, each in its own mode. */
static void ending(int r, int w)
{
	int s[2], kq = new_kqueue();
	unix_pair(s, SOCK_STREAM);
	OK(act(kq, s[0], EVFILT_READ, EV_ADD | r) == 0);
	OK(act(kq, s[0], EVFILT_WRITE, EV_ADD | w) == 0);
	EXPECT(kq, 0, 1, 0, 0);
	close(s[1]);
	EXPECT(kq, 1, w == LEVEL || w == CLEAR, 0, 0);
	EXPECT(kq, r == LEVEL, w == LEVEL, 0, 0);
	if (r != LEVEL && w != LEVEL)
		QUIET(kq);
	close(s[0]);
	close(kq);
}

static void mixture(int r, int w)
{
	int s[2], first;
	for (first = 0; first < 2; first++) {
		unix_pair(s, SOCK_STREAM);
		walk(s, r, w, first);
		close_pair(s);
		tcp_pair(s);
		walk(s, r, w, first);
		close_pair(s);
	}
	ending(r, w);
}

#define MIXTURES(M) \
	M(level_read_and_level_write, LEVEL, LEVEL) M(level_read_and_clear_write, LEVEL, CLEAR) \
	M(level_read_and_oneshot_write, LEVEL, ONESHOT) M(level_read_and_dispatch_write, LEVEL, DISPATCH) \
	M(clear_read_and_level_write, CLEAR, LEVEL) M(clear_read_and_clear_write, CLEAR, CLEAR) \
	M(clear_read_and_oneshot_write, CLEAR, ONESHOT) M(clear_read_and_dispatch_write, CLEAR, DISPATCH) \
	M(oneshot_read_and_level_write, ONESHOT, LEVEL) M(oneshot_read_and_clear_write, ONESHOT, CLEAR) \
	M(oneshot_read_and_oneshot_write, ONESHOT, ONESHOT) M(oneshot_read_and_dispatch_write, ONESHOT, DISPATCH) \
	M(dispatch_read_and_level_write, DISPATCH, LEVEL) M(dispatch_read_and_clear_write, DISPATCH, CLEAR) \
	M(dispatch_read_and_oneshot_write, DISPATCH, ONESHOT) M(dispatch_read_and_dispatch_write, DISPATCH, DISPATCH)
#define MIXTURE_CHECK(name, r, w) CHECK(name) { mixture(r, w); }
MIXTURES(MIXTURE_CHECK)

/* Takes one of two pending knotes out, with EV_DELETE or EV_DISABLE, and puts it back. */
static void take_out(int r, int w, int victim, int how)
{
	int s[2], kq = new_kqueue(), read_out = victim == EVFILT_READ;
	int lr = r == LEVEL, lw = w == LEVEL, back = read_out ? r : w;
	unix_pair(s, SOCK_STREAM);
	OK(act(kq, s[0], EVFILT_READ, EV_ADD | r) == 0);
	OK(act(kq, s[0], EVFILT_WRITE, EV_ADD | w) == 0);
	put(s[1], 3);
	OK(act(kq, s[0], victim, how) == 0);
	EXPECT(kq, !read_out, read_out, 0, 3);
	EXPECT(kq, !read_out && lr, read_out && lw, 0, 3);
	if (how == EV_DELETE) {
		FAILS(act(kq, s[0], victim, EV_ENABLE), ENOENT);
		OK(act(kq, s[0], victim, EV_ADD | back) == 0);
	} else {
		OK(act(kq, s[0], victim, EV_ENABLE) == 0);
	}
	EXPECT(kq, read_out || lr, !read_out || lw, 0, 3);
	EXPECT(kq, lr, lw, 0, 3);
	close_pair(s);
	close(kq);
}

static void take_out_all(int victim, int how)
{
	int r, w;
	for (r = 0; r < 4; r++)
		for (w = 0; w < 4; w++)
			take_out(modes[r], modes[w], victim, how);
}

CHECK(deleting_read_leaves_write_in_every_mixture)
{
	take_out_all(EVFILT_READ, EV_DELETE);
}

CHECK(deleting_write_leaves_read_in_every_mixture)
{
	take_out_all(EVFILT_WRITE, EV_DELETE);
}

CHECK(disabling_read_leaves_write_in_every_mixture)
{
	take_out_all(EVFILT_READ, EV_DISABLE);
}

CHECK(disabling_write_leaves_read_in_every_mixture)
{
	take_out_all(EVFILT_WRITE, EV_DISABLE);
}

static void toggle_write(int w)
{
	int s[2], kq = new_kqueue(), i;
	unix_pair(s, SOCK_STREAM);
	OK(act(kq, s[0], EVFILT_READ, EV_ADD | EV_CLEAR) == 0);
	OK(act(kq, s[0], EVFILT_WRITE, EV_ADD | w) == 0);
	put(s[1], 3);
	EXPECT(kq, 1, 1, 0, 3);
	for (i = 0; i < 50; i++) {
		OK(act(kq, s[0], EVFILT_WRITE, EV_DISABLE) == 0);
		EXPECT(kq, 0, 0, 0, 0);
		OK(act(kq, s[0], EVFILT_WRITE, EV_ENABLE) == 0);
		EXPECT(kq, 0, 1, 0, 0);
		OK(act(kq, s[0], EVFILT_WRITE, EV_DELETE) == 0);
		EXPECT(kq, 0, 0, 0, 0);
		OK(act(kq, s[0], EVFILT_WRITE, EV_ADD | w) == 0);
		EXPECT(kq, 0, 1, 0, 0);
	}
	put(s[1], 1);
	EXPECT(kq, 1, w == LEVEL, 0, 4);
	close_pair(s);
	close(kq);
}

CHECK(changing_write_does_not_repeat_an_edge_of_read)
{
	toggle_write(LEVEL);
	toggle_write(CLEAR);
	toggle_write(DISPATCH);
}

static void toggle_read(int r)
{
	int s[2], kq = new_kqueue(), i;
	unix_pair(s, SOCK_STREAM);
	OK(act(kq, s[0], EVFILT_WRITE, EV_ADD | EV_CLEAR) == 0);
	OK(act(kq, s[0], EVFILT_READ, EV_ADD | r) == 0);
	put(s[1], 3);
	EXPECT(kq, 1, 1, 0, 3);
	for (i = 0; i < 50; i++) {
		OK(act(kq, s[0], EVFILT_READ, EV_DISABLE) == 0);
		EXPECT(kq, 0, 0, 0, 0);
		OK(act(kq, s[0], EVFILT_READ, EV_ENABLE) == 0);
		EXPECT(kq, 1, 0, 0, 3);
		OK(act(kq, s[0], EVFILT_READ, EV_DELETE) == 0);
		EXPECT(kq, 0, 0, 0, 0);
		OK(act(kq, s[0], EVFILT_READ, EV_ADD | r) == 0);
		EXPECT(kq, 1, 0, 0, 3);
	}
	drain(s[1], fill(s[0]));
	EXPECT(kq, r == LEVEL, 1, 0, 3);
	close_pair(s);
	close(kq);
}

CHECK(changing_read_does_not_repeat_an_edge_of_write)
{
	toggle_read(LEVEL);
	toggle_read(CLEAR);
	toggle_read(DISPATCH);
}

/* Both are ready and the list has room for one: neither is lost, neither starves. */
static void room_for_one(int r, int w)
{
	struct kevent ev;
	int s[2], kq = new_kqueue(), i, reads = 0, writes = 0;
	unix_pair(s, SOCK_STREAM);
	put(s[1], 3);
	OK(act(kq, s[0], EVFILT_READ, EV_ADD | r) == 0);
	OK(act(kq, s[0], EVFILT_WRITE, EV_ADD | w) == 0);
	for (i = 0; i < 8 && collect(kq, &ev, 1, 0) == 1; i++) {
		OK(ev.udata == mark_of(ev.filter));
		if (ev.filter == EVFILT_READ)
			reads++;
		else
			writes++;
	}
	if (r == LEVEL ? reads < 3 : reads != 1)
		FAIL("modes 0x%x 0x%x: READ came %d times", r, w, reads);
	if (w == LEVEL ? writes < 3 : writes != 1)
		FAIL("modes 0x%x 0x%x: WRITE came %d times", r, w, writes);
	close_pair(s);
	close(kq);
}

CHECK(with_room_for_one_event_both_get_their_turn)
{
	int r, w;
	for (r = 0; r < 4; r++)
		for (w = 0; w < 4; w++)
			room_for_one(modes[r], modes[w]);
}

static void put_oob(int from, int to)
{
	EQ(send(from, "!", 1, MSG_OOB), 1);
	SETTLE(to, POLLPRI);
}

static void get_oob(int fd)
{
	char c;
	EQ(recv(fd, &c, 1, MSG_OOB), 1);
}

/* READ, WRITE and EXCEPT on one TCP socket, each in a mode of its own. */
static void three(int r, int w, int x)
{
	int s[2], kq = new_kqueue(), lr = r == LEVEL, lw = w == LEVEL, lx = x == LEVEL;
	tcp_pair(s);
	OK(act(kq, s[0], EVFILT_READ, EV_ADD | r) == 0);
	OK(act(kq, s[0], EVFILT_WRITE, EV_ADD | w) == 0);
	OK(act(kq, s[0], EVFILT_EXCEPT, EV_ADD | x) == 0);
	EXPECT(kq, 0, 1, 0, 0);
	EXPECT(kq, 0, lw, 0, 0);
	pass(s[1], s[0], 3);
	EXPECT(kq, 1, lw, 0, 3);
	EXPECT(kq, lr, lw, 0, 3);
	get(s[0], 3);
	EXPECT(kq, 0, lw, 0, 0);
	put_oob(s[1], s[0]);
	EXPECT(kq, 0, lw, 1, 0);
	EXPECT(kq, 0, lw, lx, 0);
	if (x == DISPATCH) {
		OK(act(kq, s[0], EVFILT_EXCEPT, EV_ENABLE) == 0);
		EXPECT(kq, 0, lw, 1, 0);
	}
	get_oob(s[0]);
	EXPECT(kq, 0, lw, 0, 0);
	EQ(act(kq, s[0], EVFILT_READ, EV_DELETE), r == ONESHOT ? -1 : 0);
	EQ(act(kq, s[0], EVFILT_WRITE, EV_DELETE), w == ONESHOT ? -1 : 0);
	put_oob(s[1], s[0]);
	EXPECT(kq, 0, 0, lx || x == CLEAR, 0);
	EXPECT(kq, 0, 0, lx, 0);
	EQ(act(kq, s[0], EVFILT_EXCEPT, EV_DELETE), x == ONESHOT ? -1 : 0);
	EXPECT(kq, 0, 0, 0, 0);
	close_pair(s);
	close(kq);
}

CHECK(read_write_and_except_keep_their_modes_in_every_mixture)
{
	int r, w, x;
	for (r = 0; r < 4; r++)
		for (w = 0; w < 4; w++)
			for (x = 0; x < 4; x++)
				three(modes[r], modes[w], modes[x]);
}

CHECK(a_full_socket_keeps_write_silent_beside_every_mode_of_read)
{
	int i;
	for (i = 0; i < 4; i++) {
		int s[2], kq = new_kqueue(), r = modes[i];
		long n;
		unix_pair(s, SOCK_STREAM);
		n = fill(s[0]);
		OK(act(kq, s[0], EVFILT_READ, EV_ADD | r) == 0);
		OK(act(kq, s[0], EVFILT_WRITE, EV_ADD | EV_CLEAR) == 0);
		EXPECT(kq, 0, 0, 0, 0);
		put(s[1], 2);
		EXPECT(kq, 1, 0, 0, 2);
		EXPECT(kq, r == LEVEL, 0, 0, 2);
		drain(s[1], n);
		EXPECT(kq, r == LEVEL, 1, 0, 2);
		EXPECT(kq, r == LEVEL, 0, 0, 2);
		close_pair(s);
		close(kq);
	}
}

CHECK(eventfd_with_both_filters_in_every_mixture)
{
	int r, w;
	for (r = 0; r < 4; r++)
		for (w = 0; w < 4; w++) {
			uint64_t five = 5;
			int fd = eventfd(0, EFD_CLOEXEC), kq = new_kqueue();
			OK(act(kq, fd, EVFILT_READ, EV_ADD | modes[r]) == 0);
			OK(act(kq, fd, EVFILT_WRITE, EV_ADD | modes[w]) == 0);
			EXPECT(kq, 0, 1, 0, 0);
			EXPECT(kq, 0, modes[w] == LEVEL, 0, 0);
			EQ(write(fd, &five, sizeof five), sizeof five);
			EXPECT(kq, 1, modes[w] == LEVEL, 0, 5);
			EXPECT(kq, modes[r] == LEVEL, modes[w] == LEVEL, 0, 5);
			close(fd);
			close(kq);
		}
}

#define MIXTURE_ROW(name, r, w) C(name)
CHECKS(
	MIXTURES(MIXTURE_ROW)
	C(deleting_read_leaves_write_in_every_mixture)
	C(deleting_write_leaves_read_in_every_mixture)
	C(disabling_read_leaves_write_in_every_mixture)
	C(disabling_write_leaves_read_in_every_mixture)
	C(changing_write_does_not_repeat_an_edge_of_read)
	C(changing_read_does_not_repeat_an_edge_of_write)
	C(with_room_for_one_event_both_get_their_turn)
	C(read_write_and_except_keep_their_modes_in_every_mixture)
	C(a_full_socket_keeps_write_silent_beside_every_mode_of_read)
	C(eventfd_with_both_filters_in_every_mixture)
);
