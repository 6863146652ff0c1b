/*
 * Signal handlers that fork in the middle of kevent(): the fork does not wait for what its own
 * thread holds, nor the child for what other threads of the parent held.
 */
#include "life.h"
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int forks;

static void fork_and_reap(int n)
{
	int error = errno;
	pid_t pid = fork();
	(void)n;
	if (pid == 0)
		_exit(0);
	while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
		;
	__atomic_add_fetch(&forks, 1, __ATOMIC_SEQ_CST);
	errno = error;
}

static int forked_often(void) { return __atomic_load_n(&forks, __ATOMIC_SEQ_CST) >= 300; }

static void *interrupts_often(void *thread)
{
	while (!forked_often()) {
		OK(pthread_kill(*(pthread_t *)thread, SIGUSR1) == 0);
		usleep(300);
	}
	return NULL;
}

/* Calls that ask whose a number is, and set and take back the mark. None allocates: libc's fork()
   waits for malloc() even if it has interrupted that. */
static void calls_that_lock(int kq, int end)
{
	struct kevent ev[4];
	OK(change(kq, (uintptr_t)end, EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	EQ(collect(kq, ev, 4, 0), 1);
	OK(ev[0].flags & EV_EOF);
	OK(change(kq, (uintptr_t)end, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	OK(trigger(kq, 1) == 0);
	EQ(collect(kq, ev, 4, 0), 1);
	EQ(collect(kq, ev, 4, 0), 0);
}

CHECK(a_handler_may_fork_in_the_middle_of_a_call)
{
	pthread_t self = pthread_self(), other;
	int kq = kqueue(), ends[2];
	OK(kq >= 0);
	pipe_open(ends);
	OK(close(ends[1]) == 0);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	handle_with(SIGUSR1, fork_and_reap, SA_RESTART);
	OK(pthread_create(&other, NULL, interrupts_often, &self) == 0);
	while (!forked_often())
		calls_that_lock(kq, ends[0]);
	OK(pthread_join(other, NULL) == 0);
	OK(close(ends[0]) == 0 && close(kq) == 0);
}

/* 0 in the child. */
static volatile pid_t child;

/* A child that hangs ends all the same. */
static void fork_only(int n)
{
	(void)n;
	child = fork();
	if (child == 0)
		alarm(HARNESS_TIMEOUT);
}

static int busy, over;

static void *changes_all_the_time(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST))
		OK(add_user(busy, 2, EV_DISABLE) == 0);
	return NULL;
}

static void *interrupts_once(void *arg)
{
	struct target *t = arg;
	UNTIL(waits(&t->tid));
	OK(pthread_kill(t->thread, SIGUSR1) == 0);
	return NULL;
}

CHECK(a_child_that_comes_back_into_a_sleeping_call_gets_EINTR)
{
	pthread_t other, changer;
	int i;
	busy = kqueue();
	OK(busy >= 0);
	handle_with(SIGUSR1, fork_only, 0);
	OK(pthread_create(&changer, NULL, changes_all_the_time, NULL) == 0);
	for (i = 0; i < 40; i++) {
		struct target self = { pthread_self(), (int)syscall(SYS_gettid) };
		struct kevent ev;
		int n;
		OK(pthread_create(&other, NULL, interrupts_once, &self) == 0);
		n = kevent(busy, NULL, 0, &ev, 1, NULL);
		if (child == 0)
			_exit(!(n == -1 && errno == EINTR));
		EQ(n, -1);
		EQ(errno, EINTR);
		EQ(status_of(child), 0);
		OK(pthread_join(other, NULL) == 0);
	}
	__atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
	OK(pthread_join(changer, NULL) == 0);
	OK(close(busy) == 0);
}

static void *many_changes_all_the_time(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
		disable_user_many_times(busy, 3);
		sched_yield();
	}
	return NULL;
}

static volatile int forked;

static void fork_once(int n)
{
	if (!forked)
		fork_only(n);
	forked = 1;
}

static void *interrupts_now_and_then(void *thread)
{
	while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
		OK(pthread_kill(*(pthread_t *)thread, SIGUSR1) == 0);
		usleep(1000);
	}
	return NULL;
}

CHECK(a_child_that_waits_for_a_lock_does_not_wait_for_ever)
{
	pthread_t self = pthread_self(), changer, other;
	int i;
	busy = kqueue();
	OK(busy >= 0 && add_user(busy, 2, EV_DISABLE) == 0 && add_user(busy, 3, EV_DISABLE) == 0);
	over = 0;
	forked = 1;
	/* The call goes on after it, and so do its waits. */
	handle_with(SIGUSR1, fork_once, SA_RESTART);
	OK(pthread_create(&changer, NULL, many_changes_all_the_time, NULL) == 0);
	OK(pthread_create(&other, NULL, interrupts_now_and_then, &self) == 0);
	for (i = 0; i < 150; i++) {
		forked = 0;
		while (!forked)
			disable_user_many_times(busy, 2);
		if (child == 0)
			_exit(0);
		EQ(status_of(child), 0);
	}
	__atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
	OK(pthread_join(other, NULL) == 0);
	OK(pthread_join(changer, NULL) == 0);
	OK(close(busy) == 0);
}

CHECKS(
	C(a_handler_may_fork_in_the_middle_of_a_call)
	C(a_child_that_comes_back_into_a_sleeping_call_gets_EINTR)
	C(a_child_that_waits_for_a_lock_does_not_wait_for_ever)
);
