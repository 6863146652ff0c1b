/*
 * Signal handlers that leave a sleeping kevent() for good, by siglongjmp(3) or
 * pthread_exit(3): the call is over then, as in a kernel, and the kqueue and the
 * thread's cancellation are as if it had returned.
 */
#include "life.h"
#include <setjmp.h>

static sigjmp_buf out;

static void jump_out(int n)
{
	(void)n;
	siglongjmp(out, 1);
}

static void *interrupts(void *arg)
{
	struct target *t = arg;
	UNTIL(waits(&t->tid));
	OK(pthread_kill(t->thread, SIGUSR1) == 0);
	return NULL;
}

/* A call that sleeps for ever, with a change before or none, left by a jump. */
static void jump_out_of_a_call(int kq, int nchanges, long ms)
{
	struct target self = { pthread_self(), 0 };
	struct timespec ts = { ms / 1000, 0 };
	struct kevent kev, ev;
	pthread_t other;
	EV_SET(&kev, 70, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
	OK(pthread_create(&other, NULL, interrupts, &self) == 0);
	if (sigsetjmp(out, 1) == 0) {
		__atomic_store_n(&self.tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
		kevent(kq, &kev, nchanges, &ev, 1, ms < 0 ? NULL : &ts);
		FAIL("the call returned");
	}
	OK(pthread_join(other, NULL) == 0);
}

static void state_and_type_are(int state, int type)
{
	int was;
	OK(pthread_setcancelstate(state, &was) == 0);
	EQ(was, state);
	OK(pthread_setcanceltype(type, &was) == 0);
	EQ(was, type);
}

/* With every state and type, and both kinds of calls; the check ends with no kqueue left. */
static void leaves_all_whole(int nchanges, long ms)
{
	int i, was, kq = new_kqueue();
	handle_with(SIGUSR1, jump_out, 0);
	for (i = 0; i < 8; i++) {
		int state = i & 1 ? PTHREAD_CANCEL_DISABLE : PTHREAD_CANCEL_ENABLE;
		int type = i & 2 ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED;
		OK(pthread_setcancelstate(state, &was) == 0 && pthread_setcanceltype(type, &was) == 0);
		jump_out_of_a_call(kq, nchanges, ms);
		state_and_type_are(state, type);
		OK(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &was) == 0);
		is_whole(kq);
	}
	OK(close(kq) == 0);
	libkqueue_drain_pending_close();
}

CHECK(a_sleep_without_changes_that_is_jumped_out_of_leaves_all_whole)
{
	leaves_all_whole(0, -1);
}

CHECK(a_sleep_with_changes_that_is_jumped_out_of_leaves_all_whole)
{
	leaves_all_whole(1, -1);
}

CHECK(a_sleep_with_a_timeout_that_is_jumped_out_of_leaves_all_whole)
{
	leaves_all_whole(0, 1000000);
	leaves_all_whole(1, 1000000);
}

CHECK(the_handler_may_be_on_a_stack_of_its_own)
{
	static char space[65536];
	stack_t on = { space, 0, sizeof space }, off = { NULL, SS_DISABLE, 0 };
	int kq = new_kqueue();
	OK(sigaltstack(&on, NULL) == 0);
	handle_with(SIGUSR1, jump_out, SA_ONSTACK);
	jump_out_of_a_call(kq, 1, -1);
	state_and_type_are(PTHREAD_CANCEL_ENABLE, PTHREAD_CANCEL_DEFERRED);
	is_whole(kq);
	OK(sigaltstack(&off, NULL) == 0);
	OK(close(kq) == 0);
	libkqueue_drain_pending_close();
}

static int inner_kqueue;

static void jump_out_of_the_inner(int n)
{
	jump_out_of_a_call(inner_kqueue, 1, -1);
	(void)n;
}

/* The handler's own sleep is jumped out of, within the handler: the outer one goes on. */
CHECK(a_jump_that_stays_in_the_handler_leaves_the_outer_call_asleep)
{
	int i, kq = new_kqueue();
	struct sleeper s;
	inner_kqueue = new_kqueue();
	handle_with(SIGUSR1, jump_out, 0);
	handle_with(SIGUSR2, jump_out_of_the_inner, SA_RESTART);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	for (i = 0; i < 4; i++) {
		sleeper_start(&s, kq, -1);
		UNTIL(waits(&s.tid));
		OK(pthread_kill(s.thread, SIGUSR2) == 0);
		sleeper_join(&s);
		/* The handler has run, so the call ends. */
		EQ(s.n, -1);
		EQ(s.err, EINTR);
		is_whole(kq);
		is_whole(inner_kqueue);
	}
	OK(close(kq) == 0 && close(inner_kqueue) == 0);
	libkqueue_drain_pending_close();
}

static void exits(int n)
{
	(void)n;
	pthread_exit(NULL);
}

/* One that sleeps in this kqueue. */
struct own { struct target t; int kq; };

static void *sleeps_after_a_change(void *arg)
{
	struct kevent kev, ev;
	struct own *own = arg;
	EV_SET(&kev, 70, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
	__atomic_store_n(&own->t.tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	kevent(own->kq, &kev, 1, &ev, 1, NULL);
	FAIL("the call returned");
	return NULL;
}

CHECK(a_thread_that_ends_in_a_handler_leaves_the_kqueue_whole)
{
	int i;
	struct own own = { { 0, 0 }, new_kqueue() };
	handle_with(SIGUSR1, exits, 0);
	for (i = 0; i < 4; i++) {
		own.t.tid = 0;
		OK(pthread_create(&own.t.thread, NULL, sleeps_after_a_change, &own) == 0);
		interrupts(&own.t);
		OK(pthread_join(own.t.thread, NULL) == 0);
		is_whole(own.kq);
	}
	OK(close(own.kq) == 0);
	libkqueue_drain_pending_close();
}

CHECKS(
	C(a_sleep_without_changes_that_is_jumped_out_of_leaves_all_whole)
	C(a_sleep_with_changes_that_is_jumped_out_of_leaves_all_whole)
	C(a_sleep_with_a_timeout_that_is_jumped_out_of_leaves_all_whole)
	C(the_handler_may_be_on_a_stack_of_its_own)
	C(a_jump_that_stays_in_the_handler_leaves_the_outer_call_asleep)
	C(a_thread_that_ends_in_a_handler_leaves_the_kqueue_whole)
);
