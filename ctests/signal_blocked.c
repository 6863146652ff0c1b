/* EVFILT_SIGNAL and blocked signals: recorded when sent, and pending all the same. */
#include "signal_util.h"
#include <sys/mman.h>

CHECK(a_blocked_signal_is_recorded_and_stays_pending)
{
	int kq;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	COUNTS(kq, SIGUSR1);
	EQ(is_pending(SIGUSR1), 1);
	EQ(runs, 0);
	NONE(kq);
	NONE(kq);
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 1);
	EQ(is_pending(SIGUSR1), 0);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(sent_to_the_thread_it_is_recorded_too)
{
	int kq;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	EQ(is_pending(SIGUSR1), 1);
	NONE(kq);
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 1);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(a_wait_for_the_signal_takes_it_as_it_was_sent)
{
	union sigval value;
	siginfo_t info;
	int kq, i;
	memset(&value, 0, sizeof value);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 5; i++) {
		value.sival_int = i;
		OK(sigqueue(getpid(), SIGUSR1, value) == 0);
		SENT(kq, SIGUSR1, 1);
		EQ(take(SIGUSR1, &info), SIGUSR1);
		EQ(info.si_code, SI_QUEUE);
		EQ(info.si_pid, getpid());
		EQ(info.si_value.sival_int, i);
#ifdef __LP64__
		EQ(info.si_errno, 0);
#endif
		EQ(is_pending(SIGUSR1), 0);
		NONE(kq);
		COUNTS(kq, SIGUSR1);
		EQ(take(SIGUSR1, &info), SIGUSR1);
		/* The library's own thread may have given it back, for a kqueue that is polled. */
		OK(info.si_code == SI_USER || info.si_code == SI_QUEUE);
		EQ(info.si_pid, getpid());
		OK(raise(SIGUSR1) == 0);
		SENT(kq, SIGUSR1, 1);
		EQ(take(SIGUSR1, &info), SIGUSR1);
		EQ(take(SIGUSR1, &info), -1);
		NONE(kq);
	}
	OK(close(kq) == 0);
}

CHECK(sent_again_while_pending_it_counts_again)
{
	int i, kq;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 10; i++) {
		COUNTS(kq, SIGUSR1);
		NONE(kq);
	}
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 1);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(realtime_signals_keep_their_number_and_order)
{
	union sigval value;
	siginfo_t info;
	int kq, i;
	mask_signal(SIG_BLOCK, SIGRTMIN);
	kq = watching(SIGRTMIN);
	for (i = 0; i < 20; i++) {
		value.sival_int = i;
		OK(sigqueue(getpid(), SIGRTMIN, value) == 0);
		if (i == 9)
			SENT(kq, SIGRTMIN, 10);
	}
	SENT(kq, SIGRTMIN, 10);
	NONE(kq);
	for (i = 0; i < 20; i++) {
		EQ(take(SIGRTMIN, &info), SIGRTMIN);
		EQ(info.si_value.sival_int, i);
	}
	EQ(take(SIGRTMIN, &info), -1);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(pending_before_the_watch_it_is_not_counted)
{
	int kq;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	OK(kill(getpid(), SIGUSR1) == 0);
	kq = watching(SIGUSR1);
	NONE(kq);
	EQ(is_pending(SIGUSR1), 1);
	COUNTS(kq, SIGUSR1);
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 1);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(two_kqueues_count_a_blocked_signal_each)
{
	int a, b, i;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	a = watching(SIGUSR1);
	b = watching(SIGUSR1);
	for (i = 0; i < 5; i++) {
		COUNTS(a, SIGUSR1);
		if (i % 2) {
			SENT(b, SIGUSR1, 2);
			NONE(a);
			NONE(b);
		}
	}
	SENT(b, SIGUSR1, 1);
	OK(close(a) == 0);
	OK(close(b) == 0);
	EQ(is_pending(SIGUSR1), 1);
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 1);
}

CHECK(the_default_action_waits_for_the_unblocking)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		int kq;
		mask_signal(SIG_BLOCK, SIGTERM);
		kq = watching(SIGTERM);
		kill(getpid(), SIGTERM);
		SENT(kq, SIGTERM, 1);
		kill(getpid(), SIGTERM);
		SENT(kq, SIGTERM, 1);
		mask_signal(SIG_UNBLOCK, SIGTERM);
		_exit(0);
	}
	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

CHECK(a_blocked_and_ignored_signal_is_recorded)
{
	int kq, i;
	signal(SIGUSR1, SIG_IGN);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 3; i++)
		COUNTS(kq, SIGUSR1);
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	NONE(kq);
	COUNTS(kq, SIGUSR1);
	OK(close(kq) == 0);
}

/* How many of them the sleeper has had, and is about to sleep for the next. */
static _Atomic int *had;

/* Whether n is pending for a process as a whole. */
static int is_pending_for(pid_t pid, int n)
{
	char path[64], text[4096], *line;
	ssize_t got;
	int fd;
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	OK((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0);
	OK((got = read(fd, text, sizeof text - 1)) > 0);
	close(fd);
	text[got] = 0;
	OK((line = strstr(text, "\nShdPnd:")) != NULL);
	return (int)(strtoull(line + strlen("\nShdPnd:"), NULL, 16) >> (n - 1) & 1);
}

/* Kills the parent each time that sleeps with the one from before in hand. */
static pid_t killer(int n, int times)
{
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		int i;
		for (i = 0; i < times; i++) {
			UNTIL(*had == i && state_of(parent) == 'S' && !is_pending_for(parent, n));
			OK(kill(parent, n) == 0);
		}
		_exit(0);
	}
	return pid;
}

CHECK(a_sleeper_wakes_for_a_blocked_signal)
{
	int i, kq, status;
	pid_t pid;
	had = mmap(NULL, sizeof *had, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	OK(had != MAP_FAILED);
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	pid = killer(SIGUSR1, 5);
	for (i = 0; i < 5; i++) {
		*had = i;
		SENT(kq, SIGUSR1, 1);
	}
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
	EQ(is_pending(SIGUSR1), 1);
	EQ(runs, 0);
	OK(close(kq) == 0);
}

CHECK(a_signal_that_stays_pending_costs_a_sleeper_no_cpu)
{
	struct kevent ev;
	long long before;
	int above = kqueue(), a, b;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	a = watching(SIGUSR1);
	b = watching(SIGUSR1);
	OK(change(above, (uintptr_t)a, EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	OK(watch_flags(above, SIGUSR1, EV_ADD) == 0);
	COUNTS(a, SIGUSR1);
	SENT(b, SIGUSR1, 1);
	SENT(above, SIGUSR1, 1);
	before = cpu_ns();
	EQ(collect(a, &ev, 1, 300), 0);
	EQ(collect(above, &ev, 1, 300), 0);
	EQ(collect(b, &ev, 1, 300), 0);
	OK(cpu_ns() - before < 300000000);
	OK(close(above) == 0);
	OK(close(a) == 0);
	OK(close(b) == 0);
}

CHECK(poll_sees_a_blocked_signal)
{
	struct pollfd p;
	int kq, i;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 5; i++) {
		NONE(kq);
		p.fd = kq;
		p.events = POLLIN;
		EQ(poll(&p, 1, 0), 0);
		OK(kill(getpid(), SIGUSR1) == 0);
		EQ(poll(&p, 1, 10000), 1);
		SENT(kq, SIGUSR1, 1);
		EQ(is_pending(SIGUSR1), 1);
	}
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 1);
	NONE(kq);
	OK(close(kq) == 0);
}

/* --- threads ------------------------------------------------------------- */

CHECK(blocked_in_all_threads_a_sleeper_counts_it)
{
	struct sleeper other;
	int kq, idle, i;
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	idle = kqueue();
	start_sleeper(&other, idle, -1, 0);
	for (i = 0; i < 5; i++)
		wakes_a_sleeper_and_stays_pending(kq, SIGUSR1);
	OK(close(idle) == 0);
	OK(pthread_join(other.thread, NULL) == 0);
	OK(close(kq) == 0);
}

/* The sleeper blocks the signal, the sender does not: it must not be taken from it. */
CHECK(a_signal_on_its_way_to_another_thread_is_left_alone)
{
	struct sleeper s;
	int kq, i;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 200; i++) {
		start_sleeper(&s, kq, 10000, SIGUSR1);
		OK(kill(getpid(), SIGUSR1) == 0);
		EQ(runs, i + 1);
		EQ(ran_in, getpid());
		woken_by(&s, SIGUSR1);
	}
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(a_thread_that_blocks_it_counts_what_was_sent_to_it)
{
	struct sleeper s;
	int kq;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	start_sleeper(&s, kq, 300, 0);
	OK(pthread_kill(pthread_self(), SIGUSR1) == 0);
	OK(pthread_join(s.thread, NULL) == 0);
	if (s.n == 0)
		SENT(kq, SIGUSR1, 1);
	EQ(runs, 0);
	EQ(is_pending(SIGUSR1), 1);
	OK(close(kq) == 0);
}

static _Atomic int may_return, laps;

static void on_signal_slowly(int n)
{
	on_signal(n);
	while (!may_return)
		sched_yield();
}

static void *spin_until_the_end(void *arg)
{
	while (!may_end) {
		laps++;
		sched_yield();
	}
	return arg;
}

/* The one thread that takes the signal blocks it while it is in the handler. */
CHECK(sent_again_while_the_handler_runs_elsewhere_the_handler_runs_again)
{
	pthread_t other;
	int kq, i, before;
	handle_with(SIGUSR1, on_signal_slowly, 0);
	kq = watching(SIGUSR1);
	OK(pthread_create(&other, NULL, spin_until_the_end, NULL) == 0);
	mask_signal(SIG_BLOCK, SIGUSR1);
	/* A thread that begins blocks everything. */
	UNTIL(laps > 0);
	for (i = 0; i < 50; i++) {
		may_return = 0;
		OK(kill(getpid(), SIGUSR1) == 0);
		UNTIL(runs == 2 * i + 1);
		SENT(kq, SIGUSR1, 1);
		OK(kill(getpid(), SIGUSR1) == 0);
		NONE(kq);
		may_return = 1;
		UNTIL(runs == 2 * i + 2);
		SENT(kq, SIGUSR1, 1);
		/* The thread has left the handler. */
		before = laps;
		UNTIL(laps > before + 1);
	}
	NONE(kq);
	may_end = 1;
	OK(pthread_join(other, NULL) == 0);
	EQ(is_pending(SIGUSR1), 0);
	OK(close(kq) == 0);
}

CHECKS(
	C(a_blocked_signal_is_recorded_and_stays_pending)
	C(sent_to_the_thread_it_is_recorded_too)
	C(a_wait_for_the_signal_takes_it_as_it_was_sent)
	C(sent_again_while_pending_it_counts_again)
	C(realtime_signals_keep_their_number_and_order)
	C(pending_before_the_watch_it_is_not_counted)
	C(two_kqueues_count_a_blocked_signal_each)
	C(the_default_action_waits_for_the_unblocking)
	C(a_blocked_and_ignored_signal_is_recorded)
	C(a_sleeper_wakes_for_a_blocked_signal)
	C(a_signal_that_stays_pending_costs_a_sleeper_no_cpu)
	C(poll_sees_a_blocked_signal)
	C(blocked_in_all_threads_a_sleeper_counts_it)
	C(a_signal_on_its_way_to_another_thread_is_left_alone)
	C(a_thread_that_blocks_it_counts_what_was_sent_to_it)
	C(sent_again_while_the_handler_runs_elsewhere_the_handler_runs_again)
);
