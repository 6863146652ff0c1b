/* The kqueue descriptor: what closing and reusing its number does. */
#include "life.h"
#include <poll.h>
#include <sys/resource.h>

CHECK(a_number_that_is_no_queue_is_EBADF)
{
	static const int bad[] = { -1, -2, INT32_MIN, INT32_MAX, 1000000, 19999 };
	struct kevent ev[1];
	int i, p[2], file = open("/dev/null", O_RDWR | O_CLOEXEC), sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OK(pipe2(p, O_CLOEXEC) == 0);
	for (i = 0; i < (int)(sizeof bad / sizeof *bad); i++) {
		FAILS(collect(bad[i], ev, 1, 0), EBADF);
		FAILS(change(bad[i], 1, EVFILT_USER, EV_ADD, 0, 0, NULL), EBADF);
	}
	FAILS(collect(file, ev, 1, 0), EBADF);
	FAILS(collect(sock, ev, 1, 0), EBADF);
	FAILS(collect(p[0], ev, 1, 0), EBADF);
	FAILS(change(p[1], 1, EVFILT_USER, EV_ADD, 0, 0, NULL), EBADF);
	close(p[0]);
	close(p[1]);
	close(file);
	close(sock);
}

CHECK(a_collect_right_after_close_is_EBADF)
{
	struct kevent ev[1];
	int i;
	for (i = 0; i < 100; i++) {
		int kq = kqueue();
		USER_ADD(kq, 1);
		trigger(kq, 1);
		close(kq);
		FAILS(collect(kq, ev, 1, i % 2 ? 0 : -1), EBADF);
	}
}

CHECK(a_change_after_close_is_EBADF)
{
	int kq = kqueue();
	USER_ADD(kq, 1);
	close(kq);
	/* A call of changes alone may learn of the close when the library does. */
	libkqueue_drain_pending_close();
	FAILS(change(kq, 2, EVFILT_USER, EV_ADD, 0, 0, NULL), EBADF);
	FAILS(trigger(kq, 1), EBADF);
}

/* Nobody has waited in it: the trigger is to show in the descriptor, and finds none. */
CHECK(a_trigger_right_after_close_of_a_new_queue_is_EBADF)
{
	int i;
	for (i = 0; i < 200; i++) {
		int kq = kqueue();
		if (i % 2)
			USER_ADD(kq, 1);
		close(kq);
		FAILS(change(kq, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL), EBADF);
	}
}

CHECK(a_number_reused_by_a_file_is_EBADF_and_left_alone)
{
	char text[8];
	int kq = kqueue(), file = nameless_file(), flags;
	struct kevent ev[1];
	USER_ADD(kq, 1);
	EQ(write(file, "content", 7), 7);
	OK(dup2(file, kq) == kq);
	flags = fcntl(kq, F_GETFL);
	FAILS(collect(kq, ev, 1, 0), EBADF);
	libkqueue_drain_pending_close();
	FAILS(trigger(kq, 1), EBADF);
	EQ(fcntl(kq, F_GETFL), flags);
	EQ(lseek(kq, 0, SEEK_END), 7);
	EQ(pread(kq, text, 8, 0), 7);
	close(kq);
	close(file);
}

CHECK(a_number_reused_by_a_pipe_is_EBADF_and_left_alone)
{
	int kq = kqueue(), p[2];
	char c = 0;
	struct kevent ev[1];
	USER_ADD(kq, 1);
	OK(pipe2(p, O_CLOEXEC) == 0);
	EQ(write(p[1], "x", 1), 1);
	OK(dup2(p[0], kq) == kq);
	FAILS(collect(kq, ev, 1, 0), EBADF);
	libkqueue_drain_pending_close();
	FAILS(trigger(kq, 1), EBADF);
	EQ(read(kq, &c, 1), 1);
	EQ(c, 'x');
	close(kq);
	close(p[0]);
	close(p[1]);
}

CHECK(close_wakes_a_sleeper_without_knotes)
{
	int kq = kqueue();
	struct sleeper s;
	sleeper_start(&s, kq, -1);
	close(kq);
	ended_with_EBADF(&s);
}

CHECK(close_wakes_a_sleeper_with_a_timeout_and_knotes)
{
	int kq = kqueue(), p[2];
	struct sleeper s;
	OK(pipe2(p, O_CLOEXEC) == 0);
	USER_ADD(kq, 1);
	EQ(change(kq, 1, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL), 0);
	EQ(change(kq, p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
	sleeper_start(&s, kq, 50000);
	close(kq);
	ended_with_EBADF(&s);
	close(p[0]);
	close(p[1]);
}

CHECK(close_wakes_every_one_of_eight_sleepers)
{
	int kq = kqueue(), i;
	struct sleeper s[8];
	for (i = 0; i < 8; i++)
		sleeper_start(&s[i], kq, -1);
	close(kq);
	for (i = 0; i < 8; i++)
		ended_with_EBADF(&s[i]);
}

CHECK(dup2_over_a_queue_wakes_its_sleepers)
{
	int kq = kqueue(), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct sleeper s;
	sleeper_start(&s, kq, -1);
	OK(dup2(null, kq) == kq);
	ended_with_EBADF(&s);
	close(kq);
	close(null);
}

CHECK(close_wakes_only_the_sleepers_of_that_queue)
{
	int a = kqueue(), b = kqueue();
	struct sleeper sa, sb;
	USER_ADD(b, 1);
	sleeper_start(&sa, a, -1);
	sleeper_start(&sb, b, -1);
	close(a);
	ended_with_EBADF(&sa);
	EQ(trigger(b, 1), 0);
	pthread_join(sb.thread, NULL);
	EQ(sb.n, 1);
	close(b);
}

CHECK(a_new_queue_on_an_old_number_is_empty_and_complete)
{
	int i, same = 0;
	for (i = 0; i < 300; i++) {
		int old = kqueue(), kq;
		USER_ADD(old, 1);
		EQ(change(old, 2, EVFILT_TIMER, EV_ADD, NOTE_USECONDS, 1, NULL), 0);
		trigger(old, 1);
		close(old);
		kq = kqueue();
		same += kq == old;
		NONE(kq);
		FAILS(trigger(kq, 1), ENOENT);
		FAILS(change(kq, 2, EVFILT_TIMER, EV_DELETE, 0, 0, NULL), ENOENT);
		USER_ADD(kq, 3);
		EQ(trigger(kq, 3), 0);
		EQ(ONE(kq).ident, 3);
		/* The late notice for the old one must take nothing from the new. */
		if (i % 10 == 0)
			libkqueue_drain_pending_close();
		EQ(trigger(kq, 3), 0);
		EQ(ONE(kq).ident, 3);
		close(kq);
	}
	OK(same > 0);
}

CHECK(two_queues_share_nothing)
{
	int a = kqueue(), b = kqueue(), p[2];
	OK(a != b);
	OK(pipe2(p, O_CLOEXEC) == 0);
	EQ(change(a, p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
	EQ(write(p[1], "x", 1), 1);
	NONE(b);
	FAILS(change(b, p[0], EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	EQ(ONE(a).ident, p[0]);
	close(a);
	close(b);
	close(p[0]);
	close(p[1]);
}

CHECK(a_queue_takes_the_lowest_free_number)
{
	int low = open("/dev/null", O_RDONLY | O_CLOEXEC), kq;
	close(low);
	kq = kqueue();
	EQ(kq, low);
	close(kq);
}

CHECK(the_descriptor_is_a_fifo_that_cannot_be_read_or_written)
{
	int kq = kqueue();
	struct stat st;
	char c = 0;
	OK(fstat(kq, &st) == 0 && S_ISFIFO(st.st_mode));
	EQ(read(kq, &c, 1), -1);
	EQ(write(kq, &c, 1), -1);
	EQ(lseek(kq, 0, SEEK_SET), -1);
	EQ(fcntl(kq, F_GETFD), FD_CLOEXEC);
	close(kq);
}

CHECK(close_frees_every_descriptor_of_a_busy_queue)
{
	int p[2], before, i;
	OK(pipe2(p, O_CLOEXEC) == 0);
	before = count_fds();
	for (i = 0; i < 100; i++) {
		int kq = kqueue();
		USER_ADD(kq, 1);
		trigger(kq, 1);
		EQ(change(kq, 1, EVFILT_TIMER, EV_ADD, 0, 1, NULL), 0);
		EQ(change(kq, 2, EVFILT_TIMER, EV_ADD, NOTE_ABSTIME | NOTE_SECONDS, INT32_MAX, NULL), 0);
		EQ(change(kq, p[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL), 0);
		EQ(change(kq, p[1], EVFILT_WRITE, EV_ADD, 0, 0, NULL), 0);
		close(kq);
	}
	UNTIL(count_fds() == before);
	close(p[0]);
	close(p[1]);
}

CHECK(drain_returns_when_closed_queues_are_freed)
{
	int before = count_fds(), i;
	for (i = 0; i < 50; i++) {
		int kq = kqueue();
		EQ(change(kq, 1, EVFILT_TIMER, EV_ADD, 0, 1000, NULL), 0);
		close(kq);
		libkqueue_drain_pending_close();
		EQ(count_fds(), before);
	}
}

CHECK(drain_does_not_wait_for_open_queues)
{
	int kq = kqueue();
	USER_ADD(kq, 1);
	libkqueue_drain_pending_close();
	EQ(trigger(kq, 1), 0);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

static void open_and_close_many(int n)
{
	int fds = count_fds(), threads = count_threads(), i;
	for (i = 0; i < n; i++) {
		int kq = kqueue();
		OK(kq >= 0);
		OK(close(kq) == 0);
	}
	UNTIL(count_fds() == fds);
	OK(count_threads() <= threads + 1);
}

CHECK(ten_thousand_queues_come_and_go) { open_and_close_many(10000); }

CHECK(ten_thousand_queues_come_and_go_with_64_descriptors)
{
	struct rlimit lim = { 64, 64 };
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	open_and_close_many(10000);
}

CHECK(queues_come_and_go_with_no_room_for_signals)
{
	struct rlimit none, old;
	struct sleeper s;
	int kq;
	OK(getrlimit(RLIMIT_SIGPENDING, &old) == 0);
	none = old;
	none.rlim_cur = 0;
	OK(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
	open_and_close_many(2000);
	kq = kqueue();
	sleeper_start(&s, kq, -1);
	close(kq);
	ended_with_EBADF(&s);
	/* valgrind ends its threads by a signal. */
	OK(setrlimit(RLIMIT_SIGPENDING, &old) == 0);
}

/* One letter a step: n nothing is there, s a sleep, t an event, p poll() shows it, c it is collected. */
static void live(int kq, const char *steps)
{
	struct pollfd shown = { kq, POLLIN, 0 };
	struct kevent ev;
	for (; *steps; steps++)
		switch (*steps) {
		case 'n': NONE(kq); break;
		case 's': EQ(collect(kq, &ev, 1, 1), 0); break;
		case 't': EQ(trigger(kq, 1), 0); break;
		case 'p': EQ(poll(&shown, 1, 10000), 1); break;
		case 'c': EQ(ONE(kq).ident, 1); break;
		}
}

/* Nothing but the library's own thread is left to hear of the close. */
static void close_is_heard_of_after_any_life(void)
{
	static const char *const lives[] = { "", "n", "s", "t", "sn", "st", "stp", "tc", "tcn", "tcs", "tpcn",
		"tpcs", "tpcntp", "stpcn", "stpcs", "tpcsn", "tpcnst", "tpcntpcntpcs" };
	/* Once: the library's thread may read a file of /proc when it has heard of a close. */
	int before = count_fds();
	size_t i;
	for (i = 0; i < sizeof lives / sizeof *lives; i++) {
		int kq = kqueue();
		OK(kq >= 0);
		EQ(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL), 0);
		live(kq, lives[i]);
		close(kq);
		UNTIL(count_fds() == before);
	}
}

CHECK(a_close_is_heard_of_after_any_life) { close_is_heard_of_after_any_life(); }

CHECK(a_close_is_heard_of_after_any_life_with_no_room_for_signals)
{
	struct rlimit none, old;
	OK(getrlimit(RLIMIT_SIGPENDING, &old) == 0);
	none = old;
	none.rlim_cur = 0;
	OK(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
	close_is_heard_of_after_any_life();
	OK(setrlimit(RLIMIT_SIGPENDING, &old) == 0);
}

CHECK(six_hundred_queues_need_one_thread_and_few_descriptors)
{
	static int kq[600];
	int fds = count_fds(), threads, i;
	kq[0] = kqueue();
	threads = count_threads();
	for (i = 1; i < 600; i++)
		OK((kq[i] = kqueue()) >= 0);
	EQ(count_threads(), threads);
	OK(count_fds() - fds <= 600 * 5);
	for (i = 0; i < 600; i++) {
		USER_ADD(kq[i], i);
		EQ(trigger(kq[i], i), 0);
	}
	for (i = 0; i < 600; i++)
		EQ(ONE(kq[i]).ident, i);
	for (i = 0; i < 600; i++)
		close(kq[i]);
}

CHECKS(
	C(a_number_that_is_no_queue_is_EBADF)
	C(a_collect_right_after_close_is_EBADF)
	C(a_change_after_close_is_EBADF)
	C(a_trigger_right_after_close_of_a_new_queue_is_EBADF)
	C(a_number_reused_by_a_file_is_EBADF_and_left_alone)
	C(a_number_reused_by_a_pipe_is_EBADF_and_left_alone)
	C(close_wakes_a_sleeper_without_knotes)
	C(close_wakes_a_sleeper_with_a_timeout_and_knotes)
	C(close_wakes_every_one_of_eight_sleepers)
	C(dup2_over_a_queue_wakes_its_sleepers)
	C(close_wakes_only_the_sleepers_of_that_queue)
	C(a_new_queue_on_an_old_number_is_empty_and_complete)
	C(two_queues_share_nothing)
	C(a_queue_takes_the_lowest_free_number)
	C(the_descriptor_is_a_fifo_that_cannot_be_read_or_written)
	C(close_frees_every_descriptor_of_a_busy_queue)
	C(drain_returns_when_closed_queues_are_freed)
	C(drain_does_not_wait_for_open_queues)
	C(ten_thousand_queues_come_and_go)
	C(ten_thousand_queues_come_and_go_with_64_descriptors)
	C(queues_come_and_go_with_no_room_for_signals)
	C(a_close_is_heard_of_after_any_life)
	C(a_close_is_heard_of_after_any_life_with_no_room_for_signals)
	C(six_hundred_queues_need_one_thread_and_few_descriptors)
);
