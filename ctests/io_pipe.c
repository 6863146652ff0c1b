/* READ and WRITE on pipes and fifos. */
#include "net.h"

static void make_fifo(char *path)
{
	scratch_directory(path);
	strcat(path, "/f");
	OK(mkfifo(path, 0600) == 0);
}

static void drop_fifo(char *path)
{
	OK(unlink(path) == 0);
	*strrchr(path, '/') = 0;
	OK(rmdir(path) == 0);
}

static int open_fifo(const char *path, int how)
{
	int fd = open(path, how | O_NONBLOCK | O_CLOEXEC);
	OK(fd >= 0);
	return fd;
}

static void is_eof(struct kevent ev, long data)
{
	OK(ev.flags & EV_EOF);
	EQ(ev.data, data);
	EQ(ev.fflags, 0);
}

CHECK(pipe_gives_the_unread_bytes_at_each_call_and_nothing_at_none)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	ADD(kq, p[0], EVFILT_READ, 0);
	NONE(kq);
	put(p[1], 3);
	put(p[1], 4);
	EQ(EVENT(kq, p[0], EVFILT_READ).data, 7);
	get(p[0], 5);
	EQ(EVENT(kq, p[0], EVFILT_READ).data, 2);
	get(p[0], 2);
	NONE(kq);
	close_pair(p);
	close(kq);
}

CHECK(pipe_clear_fires_per_arrival_and_not_for_a_partial_read)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	ADD(kq, p[0], EVFILT_READ, EV_CLEAR);
	put(p[1], 3);
	EQ(EVENT(kq, p[0], EVFILT_READ).data, 3);
	NONE(kq);
	put(p[1], 4);
	EQ(EVENT(kq, p[0], EVFILT_READ).data, 7);
	get(p[0], 1);
	NONE(kq);
	put(p[1], 1);
	get(p[0], 7);
	NONE(kq);
	close_pair(p);
	close(kq);
}

CHECK(pipe_low_water_mark_is_ignored)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, NOTE_LOWAT, 100, NULL) == 0);
	put(p[1], 3);
	EQ(EVENT(kq, p[0], EVFILT_READ).data, 3);
	close_pair(p);
	close(kq);
}

CHECK(pipe_low_water_mark_is_ignored_for_writing)
{
	struct kevent ev;
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	OK(change(kq, (uintptr_t)p[1], EVFILT_WRITE, EV_ADD, NOTE_LOWAT, 1 << 30, NULL) == 0);
	ev = EVENT(kq, p[1], EVFILT_WRITE);
	OK(ev.data > 0 && ev.data < 1 << 30);
	close_pair(p);
	close(kq);
}

CHECK(pipe_writer_gone_is_eof_with_the_rest_and_stays)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	ADD(kq, p[0], EVFILT_READ, 0);
	put(p[1], 5);
	close(p[1]);
	is_eof(EVENT(kq, p[0], EVFILT_READ), 5);
	get(p[0], 5);
	is_eof(EVENT(kq, p[0], EVFILT_READ), 0);
	is_eof(EVENT(kq, p[0], EVFILT_READ), 0);
	close(p[0]);
	close(kq);
}

CHECK(pipe_writer_gone_with_clear_comes_once)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	ADD(kq, p[0], EVFILT_READ, EV_CLEAR);
	NONE(kq);
	close(p[1]);
	is_eof(EVENT(kq, p[0], EVFILT_READ), 0);
	QUIET(kq);
	close(p[0]);
	close(kq);
}

CHECK(pipe_writer_gone_before_the_add_is_eof)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	close(p[1]);
	ADD(kq, p[0], EVFILT_READ, 0);
	is_eof(EVENT(kq, p[0], EVFILT_READ), 0);
	close(p[0]);
	close(kq);
}

CHECK(pipe_with_a_second_writer_left_is_not_at_its_end)
{
	int p[2], kq = new_kqueue(), other;
	pipe_pair(p);
	other = dup(p[1]);
	ADD(kq, p[0], EVFILT_READ, 0);
	close(p[1]);
	NONE(kq);
	close(other);
	is_eof(EVENT(kq, p[0], EVFILT_READ), 0);
	close(p[0]);
	close(kq);
}

CHECK(pipe_room_is_exact_and_falls)
{
	int p[2], kq = new_kqueue(), whole;
	pipe_pair(p);
	whole = fcntl(p[1], F_GETPIPE_SZ);
	ADD(kq, p[1], EVFILT_WRITE, 0);
	EQ(EVENT(kq, p[1], EVFILT_WRITE).data, whole);
	put(p[1], 1000);
	EQ(EVENT(kq, p[1], EVFILT_WRITE).data, whole - 1000);
	get(p[0], 400);
	EQ(EVENT(kq, p[1], EVFILT_WRITE).data, whole - 600);
	close_pair(p);
	close(kq);
}

CHECK(pipe_full_is_silent_and_drained_wakes)
{
	int p[2], kq = new_kqueue();
	long n;
	pipe_pair(p);
	ADD(kq, p[1], EVFILT_WRITE, 0);
	n = fill(p[1]);
	QUIET(kq);
	drain(p[0], n);
	EQ(EVENT(kq, p[1], EVFILT_WRITE).data, fcntl(p[1], F_GETPIPE_SZ));
	close_pair(p);
	close(kq);
}

CHECK(pipe_write_clear_comes_once_and_again_after_full)
{
	int p[2], kq = new_kqueue();
	long n;
	pipe_pair(p);
	ADD(kq, p[1], EVFILT_WRITE, EV_CLEAR);
	EVENT(kq, p[1], EVFILT_WRITE);
	NONE(kq);
	n = fill(p[1]);
	NONE(kq);
	drain(p[0], n);
	OK(EVENT(kq, p[1], EVFILT_WRITE).data >= 4096);
	close_pair(p);
	close(kq);
}

CHECK(pipe_below_the_atomic_size_is_silent)
{
	int p[2], kq = new_kqueue();
	long n;
	pipe_pair(p);
	ADD(kq, p[1], EVFILT_WRITE, 0);
	n = fill(p[1]);
	drain(p[0], 100);
	QUIET(kq);
	drain(p[0], n - 100);
	EVENT(kq, p[1], EVFILT_WRITE);
	close_pair(p);
	close(kq);
}

CHECK(pipe_reader_gone_is_eof_for_write_full_or_not)
{
	int i, p[2], kq = new_kqueue();
	for (i = 0; i < 2; i++) {
		pipe_pair(p);
		ADD(kq, p[1], EVFILT_WRITE, 0);
		if (i)
			fill(p[1]);
		else
			EQ(EVENT(kq, p[1], EVFILT_WRITE).flags & EV_EOF, 0);
		close(p[0]);
		OK(EVENT(kq, p[1], EVFILT_WRITE).flags & EV_EOF);
		OK(EVENT(kq, p[1], EVFILT_WRITE).flags & EV_EOF);
		OK(change(kq, (uintptr_t)p[1], EVFILT_WRITE, EV_DELETE, 0, 0, NULL) == 0);
		close(p[1]);
	}
	close(kq);
}

CHECK(pipe_reader_gone_before_the_add_is_an_error_or_eof)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	close(p[0]);
	/* FreeBSD refuses the change, NetBSD reports the end: both are known to programs. */
	if (change(kq, (uintptr_t)p[1], EVFILT_WRITE, EV_ADD, 0, 0, NULL) == 0)
		OK(EVENT(kq, p[1], EVFILT_WRITE).flags & EV_EOF);
	else
		EQ(errno, EPIPE);
	close(p[1]);
	close(kq);
}

/* Python's asyncio and others watch for the reader's end like this. */
static void wrong_end_for_read(int flags)
{
	struct kevent ev;
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	ADD(kq, p[1], EVFILT_READ, flags);
	put(p[1], 3);
	QUIET(kq);
	close(p[0]);
	ev = EVENT(kq, p[1], EVFILT_READ);
	is_eof(ev, 0);
	EQ(ev.fflags, 0);
	if (flags & EV_CLEAR)
		NONE(kq);
	else
		is_eof(EVENT(kq, p[1], EVFILT_READ), 0);
	OK(change(kq, (uintptr_t)p[1], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	FAILS(change(kq, (uintptr_t)p[1], EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	ADD(kq, p[1], EVFILT_READ, EV_ONESHOT);
	is_eof(EVENT(kq, p[1], EVFILT_READ), 0);
	NONE(kq);
	close(p[1]);
	close(kq);
}

CHECK(wrong_end_for_read_is_silent_until_the_reader_goes)
{
	wrong_end_for_read(0);
}

CHECK(wrong_end_for_read_tells_of_the_readers_end_once_with_clear)
{
	wrong_end_for_read(EV_CLEAR);
}

CHECK(readers_end_is_told_to_both_filters)
{
	struct kevent ev[4];
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	ADD(kq, p[1], EVFILT_READ, 0);
	ADD(kq, p[1], EVFILT_WRITE, 0);
	EVENT(kq, p[1], EVFILT_WRITE);
	close(p[0]);
	EQ(kevent(kq, NULL, 0, ev, 4, &(struct timespec){ 5, 0 }), 2);
	OK(ev[0].flags & EV_EOF && ev[1].flags & EV_EOF);
	EQ(ev[0].filter + ev[1].filter, EVFILT_READ + EVFILT_WRITE);
	close(p[1]);
	close(kq);
}

CHECK(fifo_opened_for_writing_is_silent_for_read_also_at_hang_up)
{
	char path[SCRATCH];
	int r, w, kq = new_kqueue();
	make_fifo(path);
	r = open_fifo(path, O_RDONLY);
	w = open_fifo(path, O_WRONLY);
	ADD(kq, w, EVFILT_READ, 0);
	put(w, 3);
	NONE(kq);
	close(r);
	QUIET(kq);
	OK(change(kq, (uintptr_t)w, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	close(w);
	drop_fifo(path);
	close(kq);
}

CHECK(wrong_end_for_write_is_silent_also_at_hang_up)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	ADD(kq, p[0], EVFILT_WRITE, 0);
	put(p[1], 3);
	NONE(kq);
	close(p[1]);
	QUIET(kq);
	OK(change(kq, (uintptr_t)p[0], EVFILT_WRITE, EV_DELETE, 0, 0, NULL) == 0);
	close(p[0]);
	close(kq);
}

CHECK(wrong_end_beside_the_right_one_adds_nothing)
{
	int p[2], kq = new_kqueue();
	pipe_pair(p);
	ADD(kq, p[0], EVFILT_READ, 0);
	ADD(kq, p[0], EVFILT_WRITE, EV_CLEAR);
	put(p[1], 3);
	EQ(EVENT(kq, p[0], EVFILT_READ).data, 3);
	close(p[1]);
	is_eof(EVENT(kq, p[0], EVFILT_READ), 3);
	is_eof(EVENT(kq, p[0], EVFILT_READ), 3);
	close(p[0]);
	close(kq);
}

CHECK(fifo_without_a_writer_is_silent)
{
	char path[SCRATCH];
	int r, w, kq = new_kqueue();
	make_fifo(path);
	r = open_fifo(path, O_RDONLY);
	ADD(kq, r, EVFILT_READ, 0);
	QUIET(kq);
	w = open_fifo(path, O_WRONLY);
	NONE(kq);
	put(w, 6);
	EQ(EVENT(kq, r, EVFILT_READ).data, 6);
	close(r);
	close(w);
	drop_fifo(path);
	close(kq);
}

static void fifo_new_writer(int flags)
{
	struct kevent ev;
	char path[SCRATCH];
	int r, w, kq = new_kqueue(), round;
	make_fifo(path);
	r = open_fifo(path, O_RDONLY);
	ADD(kq, r, EVFILT_READ, flags);
	for (round = 0; round < 3; round++) {
		w = open_fifo(path, O_WRONLY);
		QUIET(kq);
		put(w, 2);
		ev = EVENT(kq, r, EVFILT_READ);
		EQ(ev.data, 2);
		EQ(ev.flags & EV_EOF, 0);
		get(r, 2);
		NONE(kq);
		close(w);
		is_eof(EVENT(kq, r, EVFILT_READ), 0);
		if (flags)
			QUIET(kq);
		else
			is_eof(EVENT(kq, r, EVFILT_READ), 0);
	}
	close(r);
	drop_fifo(path);
	close(kq);
}

CHECK(fifo_new_writer_clears_the_end)
{
	fifo_new_writer(0);
}

CHECK(fifo_new_writer_clears_the_end_with_clear)
{
	fifo_new_writer(EV_CLEAR);
}

CHECK(fifo_new_reader_clears_the_writers_end)
{
	char path[SCRATCH];
	int r, w, kq = new_kqueue();
	make_fifo(path);
	r = open_fifo(path, O_RDONLY);
	w = open_fifo(path, O_WRONLY);
	ADD(kq, w, EVFILT_WRITE, 0);
	EQ(EVENT(kq, w, EVFILT_WRITE).flags & EV_EOF, 0);
	close(r);
	OK(EVENT(kq, w, EVFILT_WRITE).flags & EV_EOF);
	r = open_fifo(path, O_RDONLY);
	EQ(EVENT(kq, w, EVFILT_WRITE).flags & EV_EOF, 0);
	EQ(EVENT(kq, w, EVFILT_WRITE).data, fcntl(w, F_GETPIPE_SZ));
	close(r);
	close(w);
	drop_fifo(path);
	close(kq);
}

CHECK(fifo_opened_both_ways_has_both_filters)
{
	struct kevent ev[3];
	char path[SCRATCH];
	int fd, kq = new_kqueue();
	make_fifo(path);
	fd = open_fifo(path, O_RDWR);
	ADD(kq, fd, EVFILT_READ, 0);
	ADD(kq, fd, EVFILT_WRITE, 0);
	EVENT(kq, fd, EVFILT_WRITE);
	put(fd, 4);
	EQ(collect(kq, ev, 3, 10000), 2);
	EQ(ev[0].filter + ev[1].filter, EVFILT_READ + EVFILT_WRITE);
	close(fd);
	drop_fifo(path);
	close(kq);
}

CHECKS(
	C(pipe_gives_the_unread_bytes_at_each_call_and_nothing_at_none)
	C(pipe_clear_fires_per_arrival_and_not_for_a_partial_read)
	C(pipe_low_water_mark_is_ignored)
	C(pipe_low_water_mark_is_ignored_for_writing)
	C(pipe_writer_gone_is_eof_with_the_rest_and_stays)
	C(pipe_writer_gone_with_clear_comes_once)
	C(pipe_writer_gone_before_the_add_is_eof)
	C(pipe_with_a_second_writer_left_is_not_at_its_end)
	C(pipe_room_is_exact_and_falls)
	C(pipe_full_is_silent_and_drained_wakes)
	C(pipe_write_clear_comes_once_and_again_after_full)
	C(pipe_below_the_atomic_size_is_silent)
	C(pipe_reader_gone_is_eof_for_write_full_or_not)
	C(pipe_reader_gone_before_the_add_is_an_error_or_eof)
	C(wrong_end_for_read_is_silent_until_the_reader_goes)
	C(wrong_end_for_read_tells_of_the_readers_end_once_with_clear)
	C(readers_end_is_told_to_both_filters)
	C(fifo_opened_for_writing_is_silent_for_read_also_at_hang_up)
	C(wrong_end_for_write_is_silent_also_at_hang_up)
	C(wrong_end_beside_the_right_one_adds_nothing)
	C(fifo_without_a_writer_is_silent)
	C(fifo_new_writer_clears_the_end)
	C(fifo_new_writer_clears_the_end_with_clear)
	C(fifo_new_reader_clears_the_writers_end)
	C(fifo_opened_both_ways_has_both_filters)
);
