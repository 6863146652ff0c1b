/* Signal handlers that do not return: by siglongjmp() and pthread_exit() out of a sleep in kevent(). */
#include "life.h"
#include <setjmp.h>

static sigjmp_buf back;
static int left;
enum { JUMPS = 4 };

static void jump(int sig) { (void)sig; __atomic_add_fetch(&left, 1, __ATOMIC_SEQ_CST); siglongjmp(back, 1); }
static void leave(int sig) { (void)sig; pthread_exit(&back); }

static void handle(void (*handler)(int))
{
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = handler;
	OK(sigaction(SIGUSR1, &sa, NULL) == 0);
}

/* Nobody sleeps in it any more: poll sees its events, and its close is heard of. */
static void is_whole(int kq)
{
	struct pollfd polled = { kq, POLLIN, 0 };
	int i;
	for (i = 0; i < 3; i++) {
		EQ(TRIGGER(kq, 1), 0);
		EQ(poll(&polled, 1, 10000), 1);
		EQ(ONE(kq).ident, 1);
		NONE(kq);
		EQ(poll(&polled, 1, 0), 0);
	}
}

/* A thread that sleeps, with or without changes in its calls. */
struct doomed { int kq, tid, changes; pthread_t thread; };

static void *sleeps_in_vain(void *arg)
{
	struct doomed *d = arg;
	struct kevent ev[1], add;
	volatile int jumps = 0;
	int state, kind;
	EV_SET(&add, 2, EVFILT_USER, EV_ADD, 0, 0, NULL);
	__atomic_store_n(&d->tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	sigsetjmp(back, 1);
	if (jumps++ < JUMPS)
		kevent(d->kq, &add, d->changes, ev, 1, NULL);
	OK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0);
	OK(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &kind) == 0);
	EQ(state, PTHREAD_CANCEL_ENABLE);
	EQ(kind, PTHREAD_CANCEL_DEFERRED);
	return &back;
}

static void ends_asleep(void (*handler)(int), int changes)
{
	struct doomed d = { .kq = kqueue(), .changes = changes };
	void *result;
	int i;
	handle(handler);
	USER_ADD(d.kq, 1);
	OK(pthread_create(&d.thread, NULL, sleeps_in_vain, &d) == 0);
	for (i = 0; i < (handler == jump ? JUMPS : 1); i++) {
		UNTIL(state_of(__atomic_load_n(&d.tid, __ATOMIC_SEQ_CST)) == 'S');
		OK(pthread_kill(d.thread, SIGUSR1) == 0);
		UNTIL(handler == leave || __atomic_load_n(&left, __ATOMIC_SEQ_CST) > i);
	}
	OK(pthread_join(d.thread, &result) == 0);
	OK(result == &back);
	is_whole(d.kq);
	close(d.kq);
}

CHECK(a_handler_that_jumps_out_of_a_sleep_leaves_the_queue_whole) { ends_asleep(jump, 0); }
CHECK(a_handler_that_jumps_out_of_a_sleep_after_changes_leaves_the_queue_whole) { ends_asleep(jump, 1); }
CHECK(a_handler_that_ends_a_sleeping_thread_leaves_the_queue_whole) { ends_asleep(leave, 0); }
CHECK(a_handler_that_ends_a_thread_asleep_after_changes_leaves_the_queue_whole) { ends_asleep(leave, 1); }

CHECKS(
	C(a_handler_that_jumps_out_of_a_sleep_leaves_the_queue_whole)
	C(a_handler_that_jumps_out_of_a_sleep_after_changes_leaves_the_queue_whole)
	C(a_handler_that_ends_a_sleeping_thread_leaves_the_queue_whole)
	C(a_handler_that_ends_a_thread_asleep_after_changes_leaves_the_queue_whole)
);
