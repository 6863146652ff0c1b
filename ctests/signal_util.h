/*
 * What the signal checks share: handlers that count, watching, sending, and what the kernel
 * says of a thread.
 */
#ifndef SIGNAL_UTIL_H
#define SIGNAL_UTIL_H
#include "harness.h"
#include <sys/syscall.h>
#include <sys/time.h>

#define MAYBE_UNUSED __attribute__((unused))

/* Runs of the handlers below, the last signal, and the thread they ran in. */
static _Atomic int runs, other_runs, last_signal;
static _Atomic pid_t ran_in;

MAYBE_UNUSED static void on_signal(int n)
{
	last_signal = n;
	ran_in = (pid_t)syscall(SYS_gettid);
	runs++;
}

MAYBE_UNUSED static void on_signal_too(int n)
{
	(void)n;
	other_runs++;
}

MAYBE_UNUSED static void handle(int n) { handle_with(n, on_signal, 0); }

static int watch_flags(int kq, int n, int flags)
{
	return change(kq, (uintptr_t)n, EVFILT_SIGNAL, flags, 0, 0, NULL);
}

MAYBE_UNUSED static int watching(int n)
{
	int kq = kqueue();
	OK(kq >= 0);
	OK(watch_flags(kq, n, EV_ADD) == 0);
	return kq;
}

MAYBE_UNUSED static void mask_signal(int how, int n)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, n);
	OK(pthread_sigmask(how, &set, NULL) == 0);
}

/* The next event is of signal n, sent this often. */
#define SENT(kq, n, times) do { struct kevent e_ = ONE(kq); \
	EQ(e_.ident, n); EQ(e_.filter, EVFILT_SIGNAL); EQ(e_.flags & EV_CLEAR, EV_CLEAR); EQ(e_.data, times); } while (0)

/* Sent to the process, n is the next event, once. */
#define COUNTS(kq, n) do { OK(kill(getpid(), n) == 0); SENT(kq, n, 1); } while (0)

MAYBE_UNUSED static int is_pending(int n)
{
	sigset_t set;
	OK(sigpending(&set) == 0);
	return sigismember(&set, n);
}

/* Takes a pending signal; its number, or -1. */
MAYBE_UNUSED static int take(int n, siginfo_t *info)
{
	struct timespec now = {0, 0};
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, n);
	return sigtimedwait(&set, info, &now);
}

/* The action the program itself has set. */
MAYBE_UNUSED static struct sigaction action_of(int n)
{
	struct sigaction sa;
	OK(sigaction(n, NULL, &sa) == 0);
	return sa;
}

/* The kernel's own word, past every library. */
MAYBE_UNUSED static uintptr_t kernel_handler(int n)
{
	uintptr_t action[8] = {0};
	OK(syscall(SYS_rt_sigaction, n, NULL, action, 8) == 0);
	return action[0];
}

/*
 * Whether the program's sigaction() is the library's. It is not in a program linked to the
 * archive, and there changes are noticed when kevent() is next called.
 */
MAYBE_UNUSED static int in_front(void)
{
	struct sigaction before = action_of(SIGUSR2), seen;
	int kq;
	handle_with(SIGUSR2, on_signal_too, 0);
	kq = watching(SIGUSR2);
	seen = action_of(SIGUSR2);
	OK(close(kq) == 0);
	libkqueue_drain_pending_close();
	OK(sigaction(SIGUSR2, &before, NULL) == 0);
	return seen.sa_handler == on_signal_too;
}

#define NEEDS_FRONT do { if (!in_front()) SKIP("the archive does not stand in front of sigaction()"); } while (0)

/* A thread that sleeps in kevent() for at most ms, or for ever; what came of it. */
struct sleeper { int kq, n, error, blocks, over; long ms; pid_t tid; struct kevent ev; pthread_t thread; };

static void *sleep_in_kevent(void *arg)
{
	struct sleeper *s = arg;
	if (s->blocks)
		mask_signal(SIG_BLOCK, s->blocks);
	__atomic_store_n(&s->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	s->n = collect(s->kq, &s->ev, 1, s->ms);
	s->error = errno;
	__atomic_store_n(&s->over, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

MAYBE_UNUSED static void start_sleeper(struct sleeper *s, int kq, long ms, int blocks)
{
	memset(s, 0, sizeof *s);
	s->kq = kq;
	s->ms = ms;
	s->blocks = blocks;
	OK(pthread_create(&s->thread, NULL, sleep_in_kevent, s) == 0);
	/* On a busy machine a short sleep can be over before anybody has seen it. */
	UNTIL(__atomic_load_n(&s->over, __ATOMIC_SEQ_CST) || state_of(__atomic_load_n(&s->tid, __ATOMIC_SEQ_CST)) == 'S');
}

/* The sleeper woke with one event: n, sent once. */
MAYBE_UNUSED static void woken_by(struct sleeper *s, int n)
{
	OK(pthread_join(s->thread, NULL) == 0);
	EQ(s->n, 1);
	EQ(s->ev.ident, n);
	EQ(s->ev.data, 1);
}

/* Every second time to the sleeper itself, else to any thread. */
MAYBE_UNUSED static void wake(struct sleeper *s, int n, int time)
{
	OK((time % 2 ? pthread_kill(s->thread, n) : kill(getpid(), n)) == 0);
	woken_by(s, n);
}

/* Sent while every thread blocks it, n is the next sleeper's one event, and stays pending. */
MAYBE_UNUSED static void wakes_a_sleeper_and_stays_pending(int kq, int n)
{
	struct sleeper s;
	start_sleeper(&s, kq, 10000, 0);
	/* It has the one from before in hand, which the next would merge with. */
	UNTIL(!is_pending(n));
	OK(kill(getpid(), n) == 0);
	woken_by(&s, n);
	EQ(is_pending(n), 1);
}

/* Sends n until the sleep is over: asleep may have been something else than kevent(). */
MAYBE_UNUSED static void disturb(struct sleeper *s, int n)
{
	UNTIL(__atomic_load_n(&s->over, __ATOMIC_SEQ_CST) || pthread_kill(s->thread, n) != 0);
	OK(pthread_join(s->thread, NULL) == 0);
}

/* Threads that do no work of their own go on until this is set. */
static _Atomic int may_end;

/* A thread that is there to get signals; says who it is where it is given room for that. */
MAYBE_UNUSED static void *idle(void *tid)
{
	if (tid)
		__atomic_store_n((pid_t *)tid, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	while (!may_end)
		usleep(1000);
	return NULL;
}
#endif
