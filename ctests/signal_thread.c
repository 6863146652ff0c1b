/* EVFILT_SIGNAL with threads, sleepers, interrupted sleeps, forks and storms. */
#include "signal_util.h"

/* --- sleepers ------------------------------------------------------------ */

CHECK(a_sleeper_gets_the_event_and_not_EINTR)
{
	struct sleeper s;
	int kq, i;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 50; i++) {
		start_sleeper(&s, kq, 10000, 0);
		wake(&s, SIGUSR1, i);
		EQ(runs, i + 1);
	}
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(an_ignored_signal_wakes_a_sleeper)
{
	struct sleeper s;
	int kq, i;
	signal(SIGUSR1, SIG_IGN);
	kq = watching(SIGUSR1);
	for (i = 0; i < 50; i++) {
		start_sleeper(&s, kq, 10000, 0);
		wake(&s, SIGUSR1, i);
	}
	OK(close(kq) == 0);
}

/* Another kqueue watches: to this sleeper an ignored signal is nothing at all. */
CHECK(an_ignored_signal_does_not_end_the_sleep_of_another_kqueue)
{
	struct sleeper s;
	int kq, idle = kqueue(), i;
	/* Some handler is installed, but it never runs. */
	handle(SIGUSR2);
	signal(SIGUSR1, SIG_IGN);
	kq = watching(SIGUSR1);
	OK(change(idle, 1, EVFILT_USER, EV_ADD, 0, 0, NULL) == 0);
	start_sleeper(&s, idle, -1, 0);
	for (i = 0; i < 5; i++) {
		OK(pthread_kill(s.thread, SIGUSR1) == 0);
		SENT(kq, SIGUSR1, 1);
	}
	EQ(s.over, 0);
	OK(change(idle, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL) == 0);
	OK(pthread_join(s.thread, NULL) == 0);
	EQ(s.n, 1);
	EQ(s.ev.filter, EVFILT_USER);
	OK(close(kq) == 0);
	OK(close(idle) == 0);
}

CHECK(a_handled_signal_of_another_kqueue_ends_the_sleep_with_EINTR)
{
	struct sleeper s;
	int kq, idle = kqueue();
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	start_sleeper(&s, idle, 10000, 0);
	disturb(&s, SIGUSR1);
	EQ(s.n, -1);
	EQ(s.error, EINTR);
	EQ(ONE(kq).data, runs);
	runs = 0;
	OK(watch_flags(kq, SIGUSR1, EV_DISABLE) == 0);
	start_sleeper(&s, kq, 10000, 0);
	disturb(&s, SIGUSR1);
	EQ(s.n, -1);
	EQ(s.error, EINTR);
	OK(watch_flags(kq, SIGUSR1, EV_ENABLE) == 0);
	EQ(ONE(kq).data, runs);
	OK(close(kq) == 0);
	OK(close(idle) == 0);
}

CHECK(an_unwatched_handler_ends_the_sleep_with_EINTR)
{
	struct sleeper s;
	int kq;
	handle(SIGUSR2);
	kq = watching(SIGUSR1);
	start_sleeper(&s, kq, 10000, 0);
	disturb(&s, SIGUSR2);
	EQ(s.n, -1);
	EQ(s.error, EINTR);
	OK(close(kq) == 0);
}

static int nested_kq;
static volatile int nested_result;

static void kevent_in_handler(int n)
{
	struct timespec soon = {0, 2000000};
	struct kevent ev;
	EV_SET(&ev, 7, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER, 0, NULL);
	nested_result = kevent(nested_kq, &ev, 1, &ev, 1, &soon);
	runs++;
	(void)n;
}

CHECK(a_handler_may_call_kevent_while_its_thread_sleeps_there)
{
	struct sleeper s;
	int kq, other = kqueue(), i;
	handle_with(SIGUSR1, kevent_in_handler, 0);
	kq = watching(SIGUSR1);
	for (i = 0; i < 20; i++) {
		nested_kq = i % 2 ? kq : other;
		nested_result = 0;
		start_sleeper(&s, kq, 10000, 0);
		OK(pthread_kill(s.thread, SIGUSR1) == 0);
		OK(pthread_join(s.thread, NULL) == 0);
		EQ(nested_result, 1);
		if (nested_kq == other)
			EQ(s.ev.data, 1);
		else if (s.n < 0)
			EQ(s.error, EINTR);
		while (s.n > 0 && s.ev.filter != EVFILT_SIGNAL)
			s.n = collect(kq, &s.ev, 1, 0);
		{
			struct kevent ev[2];
			collect(kq, ev, 2, 0);
		}
	}
	EQ(runs, 20);
	OK(close(kq) == 0);
	OK(close(other) == 0);
}

/* --- threads ------------------------------------------------------------- */

CHECK(threads_older_than_the_watch_lose_nothing)
{
	pthread_t t[3];
	pid_t tid[3] = {0};
	int i, kq;
	handle(SIGUSR1);
	for (i = 0; i < 3; i++)
		OK(pthread_create(&t[i], NULL, idle, &tid[i]) == 0);
	UNTIL(__atomic_load_n(&tid[0], __ATOMIC_SEQ_CST) && __atomic_load_n(&tid[1], __ATOMIC_SEQ_CST) && __atomic_load_n(&tid[2], __ATOMIC_SEQ_CST));
	kq = watching(SIGUSR1);
	for (i = 0; i < 60; i++) {
		OK(pthread_kill(t[i % 3], SIGUSR1) == 0);
		SENT(kq, SIGUSR1, 1);
		UNTIL(runs == i + 1);
		EQ(ran_in, tid[i % 3]);
	}
	/* Main blocks it: one of the others gets it. */
	mask_signal(SIG_BLOCK, SIGUSR1);
	for (i = 0; i < 60; i++) {
		COUNTS(kq, SIGUSR1);
		UNTIL(runs == 61 + i);
	}
	NONE(kq);
	may_end = 1;
	for (i = 0; i < 3; i++)
		OK(pthread_join(t[i], NULL) == 0);
	OK(close(kq) == 0);
}

enum { SENDERS = 3, EACH = 3000 };

static void *send_many(void *arg)
{
	int i;
	(void)arg;
	for (i = 0; i < EACH; i++)
		raise(SIGUSR1);
	return NULL;
}

/* Every raise() is delivered before it returns, so none can merge. */
CHECK(raises_of_many_threads_are_all_counted)
{
	pthread_t t[SENDERS];
	struct kevent ev;
	long total = 0;
	int i, kq;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < SENDERS; i++)
		OK(pthread_create(&t[i], NULL, send_many, NULL) == 0);
	while (total < SENDERS * EACH) {
		EQ(collect(kq, &ev, 1, 10000), 1);
		total += ev.data;
	}
	EQ(total, SENDERS * EACH);
	for (i = 0; i < SENDERS; i++)
		OK(pthread_join(t[i], NULL) == 0);
	EQ(runs, SENDERS * EACH);
	NONE(kq);
	OK(close(kq) == 0);
}

static void *watch_and_unwatch(void *arg)
{
	int kq = kqueue();
	OK(kq >= 0);
	while (!__atomic_load_n((int *)arg, __ATOMIC_SEQ_CST)) {
		OK(watch_flags(kq, SIGUSR1, EV_ADD) == 0);
		OK(watch_flags(kq, SIGUSR1, EV_DELETE) == 0);
	}
	OK(close(kq) == 0);
	return NULL;
}

/* To watch a signal must not put back the action that another thread has just changed. */
CHECK(an_action_changed_while_watching_begins_and_ends_stays_changed)
{
	void (*const handlers[])(int) = { on_signal, on_signal_too };
	long long start = now_ns();
	pthread_t t;
	int i, over = 0;
	NEEDS_FRONT;
	OK(pthread_create(&t, NULL, watch_and_unwatch, &over) == 0);
	for (i = 0; now_ns() - start < 500000000; i++) {
		void (*handler)(int) = handlers[i % 2];
		if (i / 2 % 2)
			OK(signal(SIGUSR1, handler) == handlers[(i + 1) % 2]);
		else
			handle_with(SIGUSR1, handler, 0);
		OK(action_of(SIGUSR1).sa_handler == handler);
	}
	__atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
	OK(pthread_join(t, NULL) == 0);
}

static volatile int storm_over;

static void *make_and_close(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	while (!__atomic_load_n(&storm_over, __ATOMIC_SEQ_CST)) {
		struct kevent ev;
		struct timespec soon = {0, 200000};
		int kq = kqueue();
		if (kq < 0)
			continue;
		watch_flags(kq, SIGUSR1, EV_ADD);
		if (rand_r(&seed) % 2)
			kevent(kq, NULL, 0, &ev, 1, &soon);
		if (rand_r(&seed) % 2)
			watch_flags(kq, SIGUSR1, EV_DELETE);
		close(kq);
	}
	return NULL;
}

static void *change_actions(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&storm_over, __ATOMIC_SEQ_CST)) {
		handle_with(SIGUSR1, on_signal, SA_RESTART);
		handle_with(SIGUSR1, on_signal_too, 0);
		signal(SIGUSR1, SIG_IGN);
		action_of(SIGUSR1);
	}
	return NULL;
}

static void *raise_on(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&storm_over, __ATOMIC_SEQ_CST))
		raise(SIGUSR1);
	return NULL;
}

/* Signals, changes of action and kqueues that come and go, and forks amid them for a second. */
static void storm(void (*child)(void))
{
	void *(*const work[])(void *) = { make_and_close, make_and_close, change_actions, raise_on, raise_on };
	enum { THREADS = sizeof work / sizeof *work };
	long long start = now_ns();
	pthread_t t[THREADS];
	int i, status;
	signal(SIGUSR1, SIG_IGN);
	for (i = 0; i < THREADS; i++)
		OK(pthread_create(&t[i], NULL, work[i], (void *)(uintptr_t)(i + 1)) == 0);
	do {
		pid_t pid = fork();
		if (pid == 0) {
			alarm(20);
			child();
			_exit(0);
		}
		OK(pid > 0);
		while (waitpid(pid, &status, 0) != pid)
			EQ(errno, EINTR);
		EQ(status, 0);
	} while (now_ns() - start < 1000000000);
	__atomic_store_n(&storm_over, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < THREADS; i++)
		OK(pthread_join(t[i], NULL) == 0);
}

/* The handlers the kernel has for the program's two: others where a sanitizer stands between. */
static uintptr_t kernels[2];

/* Calls what is async-signal-safe alone: an allocator may be locked for ever in here. */
static void has_the_programs_actions(void)
{
	uintptr_t handler = kernel_handler(SIGUSR1);
	OK(handler == kernels[0] || handler == kernels[1] || handler == (uintptr_t)SIG_IGN);
	handle(SIGUSR1);
	EQ(kernel_handler(SIGUSR1), kernels[0]);
	runs = 0;
	OK(raise(SIGUSR1) == 0);
	EQ(runs, 1);
}

CHECK(a_storm_of_signals_outlives_kqueues_actions_and_forks)
{
	handle(SIGUSR1);
	kernels[0] = kernel_handler(SIGUSR1);
	handle_with(SIGUSR1, on_signal_too, 0);
	kernels[1] = kernel_handler(SIGUSR1);
	storm(has_the_programs_actions);
}

static void watches_at_once(void)
{
	int kq;
	handle(SIGUSR1);
	runs = 0;
	kq = watching(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	EQ(runs, 1);
}

CHECK(a_child_of_a_storm_watches_signals_at_once)
{
	storm(watches_at_once);
}

/* --- fork ---------------------------------------------------------------- */

CHECK(a_childs_signals_are_not_the_parents)
{
	struct sleeper s;
	int kq, status, i;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	start_sleeper(&s, kq, 200, 0);
	for (i = 0; i < 2; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			if (i == 1)
				signal(SIGUSR1, SIG_IGN);
			for (i = 0; i < 10; i++)
				raise(SIGUSR1);
			_exit(0);
		}
		while (waitpid(pid, &status, 0) != pid)
			;
		EQ(status, 0);
	}
	OK(pthread_join(s.thread, NULL) == 0);
	EQ(s.n, 0);
	NONE(kq);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

CHECKS(
	C(a_sleeper_gets_the_event_and_not_EINTR)
	C(an_ignored_signal_wakes_a_sleeper)
	C(an_ignored_signal_does_not_end_the_sleep_of_another_kqueue)
	C(a_handled_signal_of_another_kqueue_ends_the_sleep_with_EINTR)
	C(an_unwatched_handler_ends_the_sleep_with_EINTR)
	C(a_handler_may_call_kevent_while_its_thread_sleeps_there)
	C(threads_older_than_the_watch_lose_nothing)
	C(raises_of_many_threads_are_all_counted)
	C(an_action_changed_while_watching_begins_and_ends_stays_changed)
	C(a_storm_of_signals_outlives_kqueues_actions_and_forks)
	C(a_child_of_a_storm_watches_signals_at_once)
	C(a_childs_signals_are_not_the_parents)
);
