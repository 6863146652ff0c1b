/*
 * Large numbers of everything, the limits of a process, and a program that closes the
 * library's own descriptors.
 */
#include "engine_util.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

static int times(int n)
{
	return getenv("SOAK") ? 10 * n : n;
}

/* Raises the limit to n descriptors, or as far as it goes; the limit. */
static long raise_limit(rlim_t n)
{
	struct rlimit lim, higher = { n, n };
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	if (lim.rlim_max < n && setrlimit(RLIMIT_NOFILE, &higher) == 0)
		return (long)n;
	lim.rlim_cur = lim.rlim_max < n ? lim.rlim_max : n;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	return (long)lim.rlim_cur;
}

static void room_for(long n)
{
	if (raise_limit((rlim_t)n) < n)
		SKIP("no limit of %ld descriptors to be had here", n);
}

/* Every kind of knote there is, some of their events pending. */
static void every_filter(int kq, int s[2], int file)
{
	struct kevent ch[8];
	EV_SET(&ch[0], s[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL);
	EV_SET(&ch[1], s[0], EVFILT_WRITE, EV_ADD, 0, 0, NULL);
	EV_SET(&ch[2], s[1], EVFILT_EMPTY, EV_ADD, 0, 0, NULL);
	EV_SET(&ch[3], file, EVFILT_READ, EV_ADD, 0, 0, NULL);
	EV_SET(&ch[4], 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL);
	EV_SET(&ch[5], 1, EVFILT_TIMER, EV_ADD, 0, 1, NULL);
	EV_SET(&ch[6], 2, EVFILT_TIMER, EV_ADD, NOTE_ABSTIME | NOTE_SECONDS, INT32_MAX, NULL);
	EV_SET(&ch[7], s[0], EVFILT_EXCEPT, EV_ADD, NOTE_OOB, 0, NULL);
	EQ(kevent(kq, ch, 8, NULL, 0, NULL), 0);
}

CHECK(ten_thousand_kqueues_with_knotes_of_every_filter_leave_nothing)
{
	int s[2], file = nameless_file(), i, fds, threads;
	long used = 0;
	struct kevent ev[8];
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s) == 0);
	fds = count_fds();
	threads = count_threads();
	for (i = 0; i < 10000; i++) {
		int kq = new_kqueue();
		every_filter(kq, s, file);
		/* Ending the watch of a file costs the kernel milliseconds. */
		if (i % 100 == 0)
			OK(collect(kq, ev, 8, 0) > 0);
		OK(close(kq) == 0);
		if (i == 2000) {
			libkqueue_drain_pending_close();
			used = memory(1);
		}
	}
	libkqueue_drain_pending_close();
	UNTIL(count_fds() == fds);
	EQ(count_threads(), threads);
	OK(memory(1) - used < 1024);
	OK(close(s[0]) == 0 && close(s[1]) == 0 && close(file) == 0);
}

/* A window of numbers in use moves on; every other file lives on in a copy for a while. */
CHECK(sixty_thousand_numbers_closed_without_delete_take_no_memory)
{
	enum { WINDOW = 200 };
	static int open_now[WINDOW], copies[WINDOW];
	int i, kq = new_kqueue();
	long used = 0;
	for (i = 0; i < WINDOW; i++)
		open_now[i] = copies[i] = -1;
	for (i = 0; i < 60000; i++) {
		int at = i % WINDOW, fd;
		if (open_now[at] >= 0)
			OK(close(open_now[at]) == 0);
		if (copies[at] >= 0)
			OK(close(copies[at]) == 0);
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		OK(fd >= 0);
		OK(change(kq, (uintptr_t)fd, EVFILT_READ, EV_ADD | (i % 3 ? EV_CLEAR : 0), 0, 0, UD(i)) == 0);
		if (i % 5 == 0)
			OK(change(kq, (uintptr_t)fd, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, 0, UD(i)) == 0);
		open_now[at] = fd;
		copies[at] = i % 2 ? dup(fd) : -1;
		if (i == 10000)
			used = memory(1);
	}
	OK(memory(1) - used < 1024);
	for (i = 0; i < WINDOW; i++) {
		OK(close(open_now[i]) == 0);
		OK(copies[i] < 0 || close(copies[i]) == 0);
	}
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(twenty_thousand_watched_descriptors_each_report_once)
{
	enum { MOST = 20000, BATCH = 512 };
	static struct kevent ev[BATCH];
	static unsigned char seen[MOST];
	long limit = raise_limit(MOST + 2000);
	int *fd, i, n, got = 0, kq, number = limit < MOST + 2000 ? (int)limit - 1000 : MOST;
	uint64_t one = 1;
	fd = calloc((size_t)number, sizeof *fd);
	if (number < 1000)
		SKIP("the limit is %ld descriptors", limit);
	OK(fd != NULL);
	kq = new_kqueue();
	for (i = 0; i < number; i++) {
		OK((fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0);
		OK(change(kq, (uintptr_t)fd[i], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, UD(i)) == 0);
	}
	NONE(kq);
	for (i = 0; i < number; i++)
		OK(write(fd[i], &one, sizeof one) == sizeof one);
	while ((n = collect(kq, ev, BATCH, 0)) > 0) {
		got += n;
		while (n-- > 0) {
			uintptr_t at = (uintptr_t)ev[n].udata;
			OK((int)at < number && (int)ev[n].ident == fd[at] && !seen[at]);
			seen[at] = 1;
		}
	}
	EQ(n, 0);
	EQ(got, number);
	/* A third deleted, the others closed. */
	for (i = 0; i < number; i++) {
		if (i % 3 == 0)
			OK(change(kq, (uintptr_t)fd[i], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
		OK(close(fd[i]) == 0);
	}
	NONE(kq);
	OK(close(kq) == 0);
	free(fd);
}

CHECK(numbers_above_65536_are_like_any_other)
{
	int p[2], high, kq, big, inner, i;
	struct sleeper s;
	room_for(70100);
	pipe_open(p);
	kq = new_kqueue();
	OK((high = fcntl(p[0], F_DUPFD_CLOEXEC, 66000)) >= 66000);
	OK((big = fcntl(kq, F_DUPFD_CLOEXEC, 70000)) >= 70000);
	for (i = 0; i < 3; i++) {
		OK(change(big, (uintptr_t)high, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, UD(i)) == 0);
		if (i == 1) {
			/* The kqueue's only number from here on. */
			OK(close(kq) == 0);
		}
		put(p[1]);
		EQ(ONE(big).ident, high);
		drain(p[0]);
		sleeper_start(&s, big, -1);
		put(p[1]);
		sleeper_join(&s);
		EQ(s.ev.ident, high);
		drain(p[0]);
	}
	/* Watched under such a number, too. */
	inner = big;
	kq = new_kqueue();
	OK(change(kq, (uintptr_t)inner, EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	put(p[1]);
	EQ(ONE(kq).ident, inner);
	OK(close(high) == 0);
	NONE(inner);
	OK(dup2(p[1], high) == high);
	FAILS(change(inner, (uintptr_t)high, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	OK(close(high) == 0);
	FAILS(change(inner, (uintptr_t)high, EVFILT_READ, EV_DELETE, 0, 0, NULL), EBADF);
	sleeper_start(&s, big, -1);
	OK(close(big) == 0);
	sleeper_join(&s);
	EQ(s.n, -1);
	EQ(s.err, EBADF);
	FAILS(collect(big, &s.ev, 1, 0), EBADF);
	OK(close(kq) == 0);
	pipe_close(p);
}

/* A kqueue whose own number is one of those from the start. */
CHECK(kqueue_itself_may_get_a_number_above_65536)
{
	struct kevent ev;
	int *held, n, kq, p[2];
	room_for(67000);
	held = calloc(66000, sizeof *held);
	OK(held != NULL);
	pipe_open(p);
	for (n = 0; n < 66000; n++) {
		OK((held[n] = fcntl(p[0], F_DUPFD_CLOEXEC, 0)) >= 0);
		if (held[n] >= 65540)
			break;
	}
	kq = new_kqueue();
	OK(kq > 65536);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	OK(change(kq, 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1, NULL) == 0);
	EQ(ONE(kq).filter, EVFILT_TIMER);
	put(p[1]);
	EQ(ONE(kq).ident, p[0]);
	OK(close(kq) == 0);
	FAILS(collect(kq, &ev, 1, 0), EBADF);
	for (; n >= 0; n--)
		OK(close(held[n]) == 0);
	free(held);
	pipe_close(p);
}

/* --- no descriptor left ------------------------------------------------------ */

/* Takes all numbers but so many. */
static int take_all_but(int room, int *held, int most)
{
	int n, i;
	for (n = 0; n < most && (held[n] = fcntl(0, F_DUPFD_CLOEXEC, 0)) >= 0; n++)
		;
	for (i = 0; i < room && n > 0; i++)
		OK(close(held[--n]) == 0);
	return n;
}

static const struct { int filter, fflags; } kinds[] = {
	{ EVFILT_READ, 0 }, { EVFILT_WRITE, 0 }, { EVFILT_EMPTY, 0 }, { EVFILT_USER, 0 },
	{ EVFILT_TIMER, NOTE_SECONDS }, { EVFILT_TIMER, NOTE_ABSTIME | NOTE_SECONDS } };

/* EV_ADD with room descriptors free: done, or refused with nothing done and possible later. */
static void add_with_room(int kq, uintptr_t ident, int kind, int flags, int room)
{
	static int held[256];
	int filter = kinds[kind].filter, r, e, n = take_all_but(room, held, 256);
	intptr_t data = filter == EVFILT_TIMER ? INT32_MAX : 0;
	r = change(kq, ident, filter, EV_ADD | flags, kinds[kind].fflags, data, NULL);
	e = errno;
	if (r != 0) {
		OK(e == EMFILE);
		FAILS(change(kq, ident, filter, EV_DELETE, 0, 0, NULL), ENOENT);
	}
	while (n > 0)
		OK(close(held[--n]) == 0);
	if (r != 0)
		OK(change(kq, ident, filter, EV_ADD | flags, kinds[kind].fflags, data, NULL) == 0);
	OK(change(kq, ident, filter, EV_DELETE, 0, 0, NULL) == 0);
}

CHECK(an_add_without_free_descriptors_is_done_or_is_EMFILE_and_nothing)
{
	struct rlimit lim = { 128, 128 };
	int s[2], file = nameless_file(), inner = new_kqueue(), room;
	unsigned kind;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	for (room = 0; room < 4; room++)
		for (kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
			/* New each time, so that it has to make whatever it needs. */
			int kq = new_kqueue();
			add_with_room(kq, (uintptr_t)s[0], (int)kind, 0, room);
			add_with_room(kq, (uintptr_t)s[0], (int)kind, EV_CLEAR, room);
			if (kinds[kind].filter == EVFILT_READ) {
				add_with_room(kq, (uintptr_t)file, (int)kind, 0, room);
				add_with_room(kq, (uintptr_t)inner, (int)kind, 0, room);
			}
			/* Beside a knote of another mode. */
			OK(change(kq, (uintptr_t)s[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL) == 0);
			if (kinds[kind].filter != EVFILT_READ)
				add_with_room(kq, (uintptr_t)s[0], (int)kind, 0, room);
			OK(close(kq) == 0);
			libkqueue_drain_pending_close();
		}
	OK(close(s[0]) == 0 && close(s[1]) == 0 && close(file) == 0 && close(inner) == 0);
}

CHECK(delivery_and_close_go_on_without_free_descriptors)
{
	struct rlimit lim = { 128, 128 };
	static int held[256];
	int s[2], kq = new_kqueue(), n;
	struct kevent ev[4];
	struct sleeper sl;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s) == 0);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	OK(change(kq, (uintptr_t)s[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	OK(change(kq, 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1, NULL) == 0);
	n = take_all_but(1, held, 256);
	EQ(ONE(kq).filter, EVFILT_TIMER);
	put(s[1]);
	EQ(ONE(kq).ident, s[0]);
	drain(s[0]);
	NONE(kq);
	sleeper_start(&sl, kq, -1);
	OK(trigger(kq, 1) == 0);
	sleeper_join(&sl);
	EQ(sl.n, 1);
	put(s[1]);
	{
		struct pollfd p = { kq, POLLIN, 0 };
		EQ(poll(&p, 1, 10000), 1);
	}
	EQ(collect(kq, ev, 4, 0), 1);
	sleeper_start(&sl, kq, 1000);
	sleeper_join(&sl);
	drain(s[0]);
	sleeper_start(&sl, kq, -1);
	OK(close(kq) == 0);
	sleeper_join(&sl);
	EQ(sl.err, EBADF);
	/* What the closed one had is room for the next. */
	kq = new_kqueue();
	OK(close(kq) == 0);
	while (n > 0)
		OK(close(held[--n]) == 0);
	OK(close(s[0]) == 0 && close(s[1]) == 0);
}

/* --- a program that closes what it has not opened ----------------------------- */

static void close_from(int first)
{
	OK(syscall(SYS_close_range, first, ~0U, 0) == 0);
}

static void works_fully(int kq)
{
	int p[2];
	struct sleeper s;
	struct pollfd poller = { kq, POLLIN, 0 };
	OK(kq >= 0);
	pipe_open(p);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	NONE(kq);
	EQ(poll(&poller, 1, 0), 0);
	put(p[1]);
	EQ(poll(&poller, 1, 10000), 1);
	EQ(ONE(kq).ident, p[0]);
	drain(p[0]);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	OK(change(kq, 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1, NULL) == 0);
	EQ(ONE(kq).filter, EVFILT_TIMER);
	sleeper_start(&s, kq, -1);
	OK(trigger(kq, 1) == 0);
	sleeper_join(&s);
	EQ(s.n, 1);
	sleeper_start(&s, kq, -1);
	OK(close(kq) == 0);
	sleeper_join(&s);
	EQ(s.n, -1);
	EQ(s.err, EBADF);
	pipe_close(p);
}

/* Everything from 3 or from 256 on is closed, the kqueues among it or not. */
static void after_closing_from(int first)
{
	int round;
	for (round = 0; round < 5; round++) {
		struct kevent ev[4];
		int kq = new_kqueue(), second = new_kqueue();
		OK(add_user(kq, 1, 0) == 0 && trigger(kq, 1) == 0);
		OK(change(second, 1, EVFILT_TIMER, EV_ADD, 0, 1, NULL) == 0);
		OK(kq < 256 && second < 256);
		close_from(first);
		/* Whatever it answers, it answers. */
		if (collect(kq, ev, 4, 5) < 0)
			OK(errno == EBADF || errno == EINVAL);
		if (change(second, 2, EVFILT_USER, EV_ADD, 0, 0, NULL) < 0)
			OK(errno == EBADF || errno == EINVAL);
		close(kq);
		close(second);
		IDLE(pause_ms(50));
		works_fully(kqueue());
		works_fully(kqueue());
	}
}

CHECK(closing_all_from_3_on_leaves_a_library_that_works) { after_closing_from(harness_report + 1 > 3 ? harness_report + 1 : 3); }
CHECK(closing_all_from_256_on_leaves_a_library_that_works) { after_closing_from(256); }

/* Each of the library's descriptors by itself, the kqueue's own or its thread's. Either ends what it
   is part of, or that goes on in full with the next kqueue. */
CHECK(closing_any_one_descriptor_leaves_queues_that_work_or_have_ended)
{
	int fd, ended = 0, left = 0;
	for (fd = 256; fd < 300; fd++) {
		int old = new_kqueue(), other;
		struct kevent ev;
		NONE(old);
		if (close(fd) != 0) {
			OK(close(old) == 0);
			continue;
		}
		other = new_kqueue();
		if (collect(old, &ev, 1, 0) == 0) {
			works_fully(old);
			left++;
		} else {
			EQ(errno, EBADF);
			OK(close(old) == 0);
			ended++;
		}
		works_fully(other);
		libkqueue_drain_pending_close();
	}
	OK(ended > 0);
	OK(left > 0);
}

enum { FIRST = 256, LAST = 300 };

/* The program's file under every number the library may have had. */
static void take_numbers(int file)
{
	int fd;
	for (fd = FIRST; fd < LAST; fd++)
		OK(dup2(file, fd) == fd);
}

static void numbers_are_untouched(int file, ino_t inode, int flags)
{
	struct stat st;
	int fd;
	for (fd = FIRST; fd < LAST; fd++) {
		if (fstat(fd, &st) != 0)
			FAIL("number %d was closed", fd);
		if (st.st_ino != inode)
			FAIL("number %d is another file", fd);
		if (fcntl(fd, F_GETFD) != 0)
			FAIL("number %d has got FD_CLOEXEC", fd);
	}
	EQ(fcntl(file, F_GETFL), flags);
	EQ(st.st_size, 4);
	EQ(lseek(file, 0, SEEK_CUR), 4);
}

CHECK(files_under_the_numbers_the_library_had_are_left_alone)
{
	int kq = new_kqueue(), copy_of = new_kqueue(), file = nameless_file(), flags, i, status;
	struct kevent ev[4];
	struct stat st;
	pid_t pid;
	OK(add_user(kq, 1, EV_CLEAR) == 0 && trigger(kq, 1) == 0);
	NONE(copy_of);
	OK(change(copy_of, 1, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL) == 0);
	OK(write(file, "mine", 4) == 4);
	OK(fstat(file, &st) == 0);
	flags = fcntl(file, F_GETFL);
	close_from(FIRST);
	take_numbers(file);
	for (i = 0; i < 3; i++) {
		collect(kq, ev, 4, 2);
		trigger(kq, 1);
		change(copy_of, (uintptr_t)i, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL);
		collect(copy_of, ev, 4, 2);
		numbers_are_untouched(file, st.st_ino, flags);
	}
	if ((pid = fork()) == 0) {
		numbers_are_untouched(file, st.st_ino, flags);
		works_fully(kqueue());
		numbers_are_untouched(file, st.st_ino, flags);
		_exit(0);
	}
	OK(waitpid(pid, &status, 0) == pid);
	EQ(status, 0);
	OK(close(kq) == 0 && close(copy_of) == 0);
	pause_ms(10);
	numbers_are_untouched(file, st.st_ino, flags);
	for (i = 0; i < times(5); i++)
		works_fully(kqueue());
	libkqueue_drain_pending_close();
	numbers_are_untouched(file, st.st_ino, flags);
	for (i = FIRST; i < LAST; i++)
		OK(close(i) == 0);
	OK(close(file) == 0);
}

/* Each call looks at some of the files that are at their end. */
CHECK(more_files_at_their_end_than_calls_look_at_come_and_go_without_taking_memory)
{
	enum { FILES = 100, ROUNDS = 2000 };
	struct kevent ch[FILES];
	long used = 0;
	int fd[FILES], i, round, kq = kqueue();
	fd[0] = memfd_create("empty", MFD_CLOEXEC);
	OK(fd[0] >= 0);
	for (i = 1; i < FILES; i++)
		OK((fd[i] = dup(fd[0])) >= 0);
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < FILES; i++)
			EV_SET(&ch[i], fd[i], EVFILT_READ, EV_ADD, 0, 0, NULL);
		EQ(kevent(kq, ch, FILES, NULL, 0, NULL), 0);
		NONE(kq);
		for (i = 0; i < FILES; i++)
			ch[i].flags = EV_DELETE;
		EQ(kevent(kq, ch, FILES, NULL, 0, NULL), 0);
		if (round == 100)
			used = memory(1);
	}
	OK(memory(1) - used < 512);
	for (i = 0; i < FILES; i++)
		OK(close(fd[i]) == 0);
	OK(close(kq) == 0);
}

/* A queue that knows nothing of its end yet would enter what it holds into the monitor's set. */
CHECK(a_late_call_enters_no_file_of_the_programs_into_an_epoll_of_its)
{
	int fd, odd, ends[2], first = harness_report + 1 > 3 ? harness_report + 1 : 3;
	struct epoll_event told;
	for (odd = 0; odd < 2; odd++) {
		int set, kq = kqueue();
		EQ(change(kq, 1, EVFILT_USER, EV_ADD, 0, 0, NULL), 0);
		close_from(first);
		/* A write end without a reader has something to tell at once. */
		OK(pipe(ends) == 0 && close(ends[0]) == 0);
		OK((set = epoll_create1(EPOLL_CLOEXEC)) >= 0);
		for (fd = FIRST; fd < LAST; fd++)
			OK(dup2((fd & 1) == odd ? set : ends[1], fd) == fd);
		FAILS(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL), EBADF);
		EQ(epoll_wait(set, &told, 1, 0), 0);
		close_from(first);
	}
}

/* Knotes are added until memory runs out; what was there before goes on. */
static void fill_memory(int filter)
{
	struct kevent ev;
	struct rlimit all, lim;
	uintptr_t ident;
	long size = memory(0);
	int kq = kqueue();
	EQ(change(kq, 0, EVFILT_USER, EV_ADD, 0, 0, NULL), 0);
	OK(getrlimit(RLIMIT_AS, &all) == 0);
	lim = all;
	lim.rlim_cur = ((rlim_t)size << 10) + (8 << 20);
	OK(setrlimit(RLIMIT_AS, &lim) == 0);
	for (ident = 1; change(kq, ident, filter, EV_ADD, 0, 1000000, NULL) == 0; ident++)
		OK(ident < 10000000);
	EQ(errno, ENOMEM);
	FAILS(change(kq, ident, filter, EV_DELETE, 0, 0, NULL), ENOENT);
	EQ(change(kq, 0, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL), 0);
	EQ(collect(kq, &ev, 1, 10000), 1);
	EQ(ev.ident, 0);
	while (--ident > 0)
		EQ(change(kq, ident, filter, EV_DELETE, 0, 0, NULL), 0);
	EQ(change(kq, 1, filter, EV_ADD, 0, 1000000, NULL), 0);
	OK(setrlimit(RLIMIT_AS, &all) == 0);
	OK(close(kq) == 0);
}

CHECK(no_memory_left_for_a_user_knote_is_ENOMEM) { fill_memory(EVFILT_USER); }
CHECK(no_memory_left_for_a_timer_is_ENOMEM) { fill_memory(EVFILT_TIMER); }

CHECKS(
	C(ten_thousand_kqueues_with_knotes_of_every_filter_leave_nothing)
	C(sixty_thousand_numbers_closed_without_delete_take_no_memory)
	C(more_files_at_their_end_than_calls_look_at_come_and_go_without_taking_memory)
	C(twenty_thousand_watched_descriptors_each_report_once)
	C(numbers_above_65536_are_like_any_other)
	C(kqueue_itself_may_get_a_number_above_65536)
	C(an_add_without_free_descriptors_is_done_or_is_EMFILE_and_nothing)
	C(delivery_and_close_go_on_without_free_descriptors)
	C(closing_all_from_3_on_leaves_a_library_that_works)
	C(closing_all_from_256_on_leaves_a_library_that_works)
	C(closing_any_one_descriptor_leaves_queues_that_work_or_have_ended)
	C(files_under_the_numbers_the_library_had_are_left_alone)
	C(a_late_call_enters_no_file_of_the_programs_into_an_epoll_of_its)
	C(no_memory_left_for_a_user_knote_is_ENOMEM)
	C(no_memory_left_for_a_timer_is_ENOMEM)
);
