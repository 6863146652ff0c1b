/* Numbers of one kqueue: what dup() and its kin make, and what dup2() puts in its place. */
#include "life.h"
#include <poll.h>

/* The copy works like the original, sees its knotes, and outlives it. */
static void copy_works(int kq, int copy)
{
	struct sleeper s;
	OK(copy >= 0);
	USER_ADD(kq, 1);
	EQ(trigger(copy, 1), 0);
	EQ(ONE(kq).ident, 1);
	USER_ADD(copy, 2);
	EQ(trigger(kq, 2), 0);
	EQ(ONE(copy).ident, 2);
	sleeper_start(&s, copy, -1);
	close(kq);
	EQ(trigger(copy, 1), 0);
	pthread_join(s.thread, NULL);
	EQ(s.n, 1);
	sleeper_start(&s, copy, -1);
	close(copy);
	ended_with_EBADF(&s);
}

CHECK(dup_of_a_queue_is_the_queue) { int kq = kqueue(); copy_works(kq, dup(kq)); }
CHECK(f_dupfd_of_a_queue_is_the_queue) { int kq = kqueue(); copy_works(kq, fcntl(kq, F_DUPFD_CLOEXEC, 40)); }
CHECK(dup2_of_a_queue_is_the_queue) { int kq = kqueue(); copy_works(kq, dup2(kq, 50)); }

CHECK(a_call_right_after_dup2_collects_from_the_other_queue)
{
	int i;
	for (i = 0; i < 200; i++) {
		int a = kqueue(), b = kqueue();
		USER_ADD(a, 1);
		USER_ADD(b, 2);
		EQ(trigger(a, 1), 0);
		OK(dup2(a, b) == b);
		EQ(ONE(b).ident, 1);
		close(a);
		close(b);
	}
}

CHECK(a_trigger_right_after_dup2_is_made_to_the_other_queue)
{
	int i;
	for (i = 0; i < 200; i++) {
		int a = kqueue(), b = kqueue();
		USER_ADD(b, 2);
		OK(dup2(a, b) == b);
		EQ(change(b, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL), 0);
		EQ(ONE(a).ident, 1);
		close(a);
		close(b);
	}
}

/* Nothing was done with the copy before the original is closed, and its number another's. */
CHECK(a_number_closed_while_an_unused_copy_lives_is_EBADF)
{
	int file = open("/dev/null", O_RDONLY | O_CLOEXEC), reused, uses;
	struct kevent ev[1];
	for (reused = 0; reused < 2; reused++) {
		for (uses = 0; uses < 12; uses += 3) {
			int kq = kqueue(), copy, i;
			USER_ADD(kq, 1);
			for (i = 0; i < uses; i++) {
				EQ(trigger(kq, 1), 0);
				EQ(ONE(kq).ident, 1);
			}
			OK((copy = fcntl(kq, F_DUPFD_CLOEXEC, kq + 10)) >= 0);
			close(kq);
			if (reused)
				OK(dup2(file, kq) == kq);
			FAILS(collect(kq, ev, 1, uses == 3 ? 20 : 0), EBADF);
			FAILS(trigger(kq, 1), EBADF);
			EQ(trigger(copy, 1), 0);
			EQ(ONE(copy).ident, 1);
			close(copy);
			if (reused)
				close(kq);
		}
	}
	close(file);
}

/* The same with the other queue's number, which the call then is for. */
CHECK(a_call_that_finds_nothing_under_a_number_given_away_goes_to_the_other_queue)
{
	int a = kqueue(), b = kqueue(), copy;
	USER_ADD(a, 1);
	USER_ADD(b, 2);
	EQ(trigger(a, 1), 0);
	OK((copy = fcntl(b, F_DUPFD_CLOEXEC, b + 10)) >= 0);
	OK(dup2(a, b) == b);
	EQ(ONE(b).ident, 1);
	EQ(trigger(copy, 2), 0);
	EQ(ONE(copy).ident, 2);
	FAILS(trigger(b, 2), ENOENT);
	close(a);
	close(b);
	close(copy);
}

/* Calls that find an event each time never look whose the number is. */
CHECK(a_number_given_away_while_events_come_is_EBADF_in_time)
{
	int file = open("/dev/null", O_RDONLY | O_CLOEXEC), level;
	for (level = 0; level < 2; level++) {
		int kq = kqueue(), copy, p[2], i, n = 1;
		long long until;
		struct kevent ev[1];
		OK(pipe(p) == 0);
		EQ(change(kq, p[0], EVFILT_READ, EV_ADD | (level ? 0 : EV_CLEAR), 0, 0, NULL), 0);
		for (i = 0; i < 8; i++) {
			OK(write(p[1], "x", 1) == 1);
			EQ(collect(kq, ev, 1, -1), 1);
		}
		OK((copy = fcntl(kq, F_DUPFD_CLOEXEC, kq + 10)) >= 0);
		OK(dup2(file, kq) == kq);
		for (until = now_ns() + 20000000000LL; n == 1 && now_ns() < until;) {
			char byte;
			OK(write(p[1], "x", 1) == 1);
			n = collect(kq, ev, 1, -1);
			OK(read(p[0], &byte, 1) == 1);
		}
		EQ(n, -1);
		EQ(errno, EBADF);
		FAILS(trigger(kq, 1), EBADF);
		EQ(ONE(copy).filter, EVFILT_READ);
		close(kq), close(copy), close(p[0]), close(p[1]);
	}
	close(file);
}

/* Nor do calls that only make changes, and what never waits has no tick of the library's thread. */
CHECK(a_number_given_away_while_nobody_waits_is_EBADF_in_the_end)
{
	enum { CALLS = 20000 };
	int file = open("/dev/null", O_RDONLY | O_CLOEXEC), collects;
	for (collects = 0; collects < 2; collects++) {
		int kq = kqueue(), copy, i, done = 0;
		struct kevent ev[1];
		EQ(change(kq, 1, EVFILT_USER, EV_ADD, 0, 0, NULL), 0);
		EQ(trigger(kq, 1), 0);
		OK((copy = fcntl(kq, F_DUPFD_CLOEXEC, kq + 10)) >= 0);
		OK(dup2(file, kq) == kq);
		for (i = 0; i < CALLS && done >= 0; i++) {
			done = collects ? collect(kq, ev, 1, 0) : change(kq, 2, EVFILT_USER, EV_ADD, 0, 0, NULL);
			OK(done >= 0 || errno == EBADF);
		}
		EQ(done, -1);
		FAILS(trigger(kq, 1), EBADF);
		EQ(ONE(copy).ident, 1);
		close(kq), close(copy);
	}
	close(file);
}

/* A call under a number that was closed cannot take the mark out of the copy: the next one
 * under the copy does. */
CHECK(a_call_under_a_closed_number_leaves_no_mark_in_the_copy)
{
	struct kevent ev[1];
	int willing;
	for (willing = 0; willing < 2; willing++) {
		int kq = kqueue(), copy;
		struct pollfd shown = { -1, POLLIN, 0 };
		USER_ADD(kq, 1);
		EQ(trigger(kq, 1), 0);
		OK((copy = shown.fd = fcntl(kq, F_DUPFD_CLOEXEC, kq + 10)) >= 0);
		EQ(poll(&shown, 1, 1000), 1);
		close(kq);
		/* It may tell of the event. */
		if (collect(kq, ev, 1, willing ? 20 : 0) < 0)
			EQ(errno, EBADF);
		while (collect(copy, ev, 1, 0) > 0)
			;
		EQ(poll(&shown, 1, 0), 0);
		EQ(trigger(copy, 1), 0);
		EQ(poll(&shown, 1, 1000), 1);
		EQ(ONE(copy).ident, 1);
		EQ(poll(&shown, 1, 0), 0);
		close(copy);
	}
}

/* How long a call of 1500 ms takes that has waited under a number given away. */
static long long waited_under_a_number_given_away(void)
{
	int a = kqueue(), b = kqueue(), copy;
	struct kevent ev[1];
	long long took;
	EQ(collect(b, ev, 1, 1), 0);
	OK((copy = fcntl(b, F_DUPFD_CLOEXEC, b + 10)) >= 0);
	OK(dup2(a, b) == b);
	took = now_ns();
	EQ(collect(b, ev, 1, 1500), 0);
	took = now_ns() - took;
	close(a);
	close(b);
	close(copy);
	return took;
}

/* It does not wait the whole time again. A busy machine can make one call late, not all. */
CHECK(a_call_that_begins_again_has_the_time_that_is_left)
{
	long long took;
	int tries = 0;
	do {
		took = waited_under_a_number_given_away();
		OK(took >= 1500000000LL);
	} while (took >= 2900000000LL && ++tries < 3);
	OK(took < 2900000000LL);
}

CHECK(dup2_of_one_queue_over_another_ends_the_other)
{
	int a = kqueue(), b = kqueue();
	struct sleeper s;
	USER_ADD(a, 1);
	USER_ADD(b, 2);
	sleeper_start(&s, b, -1);
	OK(dup2(a, b) == b);
	ended_with_EBADF(&s);
	libkqueue_drain_pending_close();
	EQ(trigger(b, 1), 0);
	EQ(ONE(a).ident, 1);
	FAILS(trigger(b, 2), ENOENT);
	close(a);
	EQ(trigger(b, 1), 0);
	EQ(ONE(b).ident, 1);
	close(b);
}

/* A child has no copy either, used or not, so that the parent's close is the last. */
CHECK(a_forked_child_has_no_unused_copy)
{
	int kq = kqueue(), copy = dup(kq), far = fcntl(kq, F_DUPFD, copy + 8), hold[2], status;
	struct sleeper s;
	pid_t pid;
	OK(pipe2(hold, O_CLOEXEC) == 0);
	sleeper_start(&s, kq, -1);
	errno = 0;
	if ((pid = fork()) == 0) {
		char c;
		EQ(errno, 0);
		FAILS(fcntl(copy, F_GETFD), EBADF);
		FAILS(fcntl(far, F_GETFD), EBADF);
		EQ(fcntl(hold[0], F_GETFD), FD_CLOEXEC);
		close(hold[1]);
		_exit(read(hold[0], &c, 1) != 0);
	}
	OK(pid > 0);
	close(kq);
	close(copy);
	close(far);
	ended_with_EBADF(&s);
	close(hold[1]);
	close(hold[0]);
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
}

CHECKS(
	C(dup_of_a_queue_is_the_queue)
	C(f_dupfd_of_a_queue_is_the_queue)
	C(dup2_of_a_queue_is_the_queue)
	C(a_call_right_after_dup2_collects_from_the_other_queue)
	C(a_trigger_right_after_dup2_is_made_to_the_other_queue)
	C(a_number_closed_while_an_unused_copy_lives_is_EBADF)
	C(a_call_that_finds_nothing_under_a_number_given_away_goes_to_the_other_queue)
	C(a_number_given_away_while_events_come_is_EBADF_in_time)
	C(a_number_given_away_while_nobody_waits_is_EBADF_in_the_end)
	C(a_call_under_a_closed_number_leaves_no_mark_in_the_copy)
	C(a_call_that_begins_again_has_the_time_that_is_left)
	C(dup2_of_one_queue_over_another_ends_the_other)
	C(a_forked_child_has_no_unused_copy)
);
