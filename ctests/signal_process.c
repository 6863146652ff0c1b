/*
 * EVFILT_SIGNAL and who gets the signal: one that was sent to the process while every thread
 * blocked it is counted, and goes to whichever thread will have it afterwards.
 */
#include "signal_util.h"

/* A worker that blocks n, waits until it is let go, and has the signal then, so many times. */
struct worker {
	int n, waits, taken, times;
	_Atomic int blocked, may_have_it;
	pid_t tid;
	siginfo_t info;
	pthread_t thread;
};

static void *have_it_later(void *arg)
{
	struct worker *w = arg;
	sigset_t set;
	w->tid = (pid_t)syscall(SYS_gettid);
	mask_signal(SIG_BLOCK, w->n);
	w->blocked = 1;
	UNTIL(w->may_have_it);
	sigemptyset(&set);
	sigaddset(&set, w->n);
	if (w->waits)
		w->taken = sigwaitinfo(&set, &w->info);
	else
		mask_signal(SIG_UNBLOCK, w->n);
	UNTIL(w->waits || runs >= w->times);
	return NULL;
}

/* The calling thread blocks n for good, the worker until it is told otherwise. */
static void start_worker(struct worker *w, int n, int waits, int times)
{
	memset(w, 0, sizeof *w);
	w->n = n;
	w->times = times;
	w->waits = waits;
	OK(pthread_create(&w->thread, NULL, have_it_later, w) == 0);
	mask_signal(SIG_BLOCK, n);
	UNTIL(w->blocked);
}

/* A kqueue that has counted one n, sent to the process while it and the worker blocked it. */
static int counted(struct worker *w, int n, int waits)
{
	int kq = watching(n);
	start_worker(w, n, waits, 1);
	COUNTS(kq, n);
	return kq;
}

static void let_have_it(struct worker *w)
{
	w->may_have_it = 1;
	OK(pthread_join(w->thread, NULL) == 0);
}

struct helper { struct worker *worker; int kq; };

static void *let_go(void *arg)
{
	struct helper *h = arg;
	UNTIL(state_of(getpid()) == 'S');
	let_have_it(h->worker);
	OK(change(h->kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL) == 0);
	return NULL;
}

/* Lets the worker have the signal while this thread sleeps in kevent(), once. */
static void sleep_until_had(struct worker *w, int kq)
{
	struct helper h = {w, kq};
	pthread_t helper;
	OK(change(kq, 1, EVFILT_USER, EV_ADD | EV_ONESHOT, 0, 0, NULL) == 0);
	OK(pthread_create(&helper, NULL, let_go, &h) == 0);
	EQ(ONE(kq).filter, EVFILT_USER);
	OK(pthread_join(helper, NULL) == 0);
	EQ(is_pending(w->n), 0);
	NONE(kq);
}

/* Before Linux 6.14 the origin is lost where another thread than the first gives it back. */
static int keeps_origins(void) { return syscall(SYS_pidfd_send_signal, -10000, 0, NULL, 2) == 0; }

static void took_it_as_it_was_sent(struct worker *w)
{
	EQ(w->taken, w->n);
	OK(w->info.si_code == SI_USER || !keeps_origins());
	EQ(w->info.si_pid, getpid());
}

/* The worker's handler has run, and no other; the kqueue is done with. */
static void handled_it_alone(struct worker *w, int kq)
{
	EQ(runs, 1);
	EQ(ran_in, w->tid);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(who_blocks_it_for_a_while_runs_the_handler)
{
	struct worker w;
	int kq;
	handle(SIGUSR1);
	kq = counted(&w, SIGUSR1, 0);
	NONE(kq);
	EQ(is_pending(SIGUSR1), 1);
	sleep_until_had(&w, kq);
	handled_it_alone(&w, kq);
}

CHECK(the_next_call_lets_go_of_it)
{
	struct worker w;
	int kq;
	handle(SIGUSR1);
	kq = counted(&w, SIGUSR1, 0);
	w.may_have_it = 1;
	/* Never asleep. */
	UNTIL(runs > 0 || collect(kq, &(struct kevent){0}, 1, 0) != 0);
	OK(pthread_join(w.thread, NULL) == 0);
	handled_it_alone(&w, kq);
}

CHECK(where_a_thread_takes_it_as_a_rule_nobody_has_to_call_again)
{
	struct worker w;
	int kq;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	OK(kill(getpid(), SIGUSR1) == 0);
	EQ(runs, 1);
	SENT(kq, SIGUSR1, 1);
	runs = 0;
	start_worker(&w, SIGUSR1, 0, 1);
	COUNTS(kq, SIGUSR1);
	let_have_it(&w);
	handled_it_alone(&w, kq);
}

CHECK(with_one_thread_it_never_merges_though_its_handler_has_run)
{
	int kq, i;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	COUNTS(kq, SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	for (i = 0; i < 5; i++)
		COUNTS(kq, SIGUSR1);
	EQ(runs, 1);
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 2);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(who_waits_for_it_afterwards_gets_it)
{
	struct worker w;
	int kq;
	kq = counted(&w, SIGUSR1, 1);
	sleep_until_had(&w, kq);
	took_it_as_it_was_sent(&w);
	OK(close(kq) == 0);
}

/* The library's own thread has seen it first. */
CHECK(polled_before_it_is_collected_it_goes_on_as_it_was)
{
	struct pollfd p;
	struct worker w;
	int kq, i;
	kq = watching(SIGUSR1);
	for (i = 0; i < 5; i++) {
		start_worker(&w, SIGUSR1, 1, 1);
		NONE(kq);
		OK(kill(getpid(), SIGUSR1) == 0);
		p.fd = kq;
		p.events = POLLIN;
		EQ(poll(&p, 1, 10000), 1);
		EQ(is_pending(SIGUSR1), 1);
		SENT(kq, SIGUSR1, 1);
		sleep_until_had(&w, kq);
		took_it_as_it_was_sent(&w);
	}
	OK(close(kq) == 0);
}

CHECK(two_kqueues_count_it_once_each)
{
	struct worker w;
	int a, b;
	handle(SIGUSR1);
	a = watching(SIGUSR1);
	b = watching(SIGUSR1);
	start_worker(&w, SIGUSR1, 0, 1);
	COUNTS(a, SIGUSR1);
	sleep_until_had(&w, a);
	EQ(runs, 1);
	SENT(b, SIGUSR1, 1);
	NONE(b);
	OK(close(a) == 0);
	OK(close(b) == 0);
}

static void handle_info(int n, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_sigaction = handler;
	sa.sa_flags = SA_SIGINFO;
	OK(sigaction(n, &sa, NULL) == 0);
}

static _Atomic int sum, wrong_codes;

static void on_queued(int n, siginfo_t *info, void *context)
{
	(void)n;
	(void)context;
	/* In the order in which they were sent. */
	sum = sum * 10 + info->si_value.sival_int;
	wrong_codes += info->si_code != SI_QUEUE;
	runs++;
}

CHECK(queued_signals_all_go_and_keep_their_order)
{
	struct worker w;
	union sigval value;
	int kq, i;
	handle_info(SIGRTMIN, on_queued);
	kq = watching(SIGRTMIN);
	start_worker(&w, SIGRTMIN, 0, 5);
	for (i = 1; i <= 5; i++) {
		value.sival_int = i;
		OK(sigqueue(getpid(), SIGRTMIN, value) == 0);
		if (i == 2)
			SENT(kq, SIGRTMIN, 2);
	}
	SENT(kq, SIGRTMIN, 3);
	sleep_until_had(&w, kq);
	EQ(runs, 5);
	EQ(sum, 12345);
	EQ(wrong_codes, 0);
	OK(close(kq) == 0);
}

static _Atomic int child_code, child_status;
static _Atomic pid_t child_pid;

static void on_child(int n, siginfo_t *info, void *context)
{
	(void)context;
	child_code = info->si_code;
	child_pid = info->si_pid;
	child_status = info->si_status;
	on_signal(n);
}

static void *collect_elsewhere(void *arg)
{
	struct worker *w = arg;
	int kq = kqueue();
	OK(watch_flags(kq, SIGCHLD, EV_ADD) == 0);
	child_pid = fork();
	if (child_pid == 0)
		_exit(7);
	SENT(kq, SIGCHLD, 1);
	NONE(kq);
	child_pid = 0;
	w->may_have_it = 1;
	UNTIL(runs > 0 || collect(kq, &(struct kevent){0}, 1, 1) != 0);
	NONE(kq);
	OK(close(kq) == 0);
	return NULL;
}

CHECK(a_childs_end_is_told_as_it_was)
{
	struct worker w;
	pthread_t other;
	int status;
	pid_t pid;
	handle_info(SIGCHLD, on_child);
	start_worker(&w, SIGCHLD, 0, 1);
	/* Not the first thread of the process: it may not put words into others' mouths. */
	OK(pthread_create(&other, NULL, collect_elsewhere, &w) == 0);
	OK(pthread_join(w.thread, NULL) == 0);
	OK(pthread_join(other, NULL) == 0);
	EQ(runs, 1);
	EQ(ran_in, w.tid);
	OK((pid = wait(&status)) > 0);
	EQ(child_pid, pid);
	EQ(child_status, 7);
	EQ(child_code, keeps_origins() ? CLD_EXITED : SI_QUEUE);
}

CHECK(the_thread_that_counted_it_may_end)
{
	int kq, i;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 5; i++)
		wakes_a_sleeper_and_stays_pending(kq, SIGUSR1);
	EQ(runs, 0);
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 1);
	EQ(ran_in, getpid());
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(sent_to_that_thread_it_stays_with_it)
{
	struct worker w;
	int kq;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	start_worker(&w, SIGUSR1, 0, 0);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	w.may_have_it = 1;
	/* Long enough for a second look, and a third. */
	EQ(collect(kq, &(struct kevent){0}, 1, 50), 0);
	EQ(runs, 0);
	EQ(is_pending(SIGUSR1), 1);
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	EQ(runs, 1);
	EQ(ran_in, getpid());
	OK(pthread_join(w.thread, NULL) == 0);
	NONE(kq);
	OK(close(kq) == 0);
}

static _Atomic int may_leave;

static void on_other_signal(int n)
{
	(void)n;
	other_runs++;
	while (!may_leave)
		sched_yield();
}

CHECK(a_handler_of_another_signal_that_blocks_it_delays_it_only)
{
	struct sigaction sa;
	struct kevent ev;
	pthread_t other;
	int kq;
	handle(SIGUSR1);
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = on_other_signal;
	sigaddset(&sa.sa_mask, SIGUSR1);
	OK(sigaction(SIGUSR2, &sa, NULL) == 0);
	kq = watching(SIGUSR1);
	OK(pthread_create(&other, NULL, idle, NULL) == 0);
	mask_signal(SIG_BLOCK, SIGUSR1);
	OK(pthread_kill(other, SIGUSR2) == 0);
	UNTIL(other_runs == 1);
	COUNTS(kq, SIGUSR1);
	may_leave = 1;
	UNTIL(runs == 1 || collect(kq, &ev, 1, 20) != 0);
	EQ(runs, 1);
	NONE(kq);
	may_end = 1;
	OK(pthread_join(other, NULL) == 0);
	OK(close(kq) == 0);
}

static void *begin_and_end(void *arg)
{
	return arg;
}

/* A thread that begins blocks every signal for a moment, and so does one that starts it. */
static void *start_threads(void *arg)
{
	pthread_t other;
	while (!may_end) {
		OK(pthread_create(&other, NULL, begin_and_end, NULL) == 0);
		OK(pthread_join(other, NULL) == 0);
	}
	return arg;
}

static void *send_and_wait(void *arg)
{
	int i;
	mask_signal(SIG_BLOCK, SIGUSR1);
	for (i = 0; i < 300; i++) {
		OK(kill(getpid(), SIGUSR1) == 0);
		UNTIL(runs == i + 1);
	}
	may_end = 1;
	return arg;
}

CHECK(the_handler_runs_each_time_though_threads_come_and_go)
{
	struct kevent ev;
	pthread_t starter, sender;
	long sent = 0;
	int kq;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	OK(pthread_create(&starter, NULL, start_threads, NULL) == 0);
	mask_signal(SIG_BLOCK, SIGUSR1);
	OK(pthread_create(&sender, NULL, send_and_wait, NULL) == 0);
	while (!may_end)
		if (collect(kq, &ev, 1, 20) > 0)
			sent += ev.data;
	while (collect(kq, &ev, 1, 0) > 0)
		sent += ev.data;
	OK(pthread_join(sender, NULL) == 0);
	OK(pthread_join(starter, NULL) == 0);
	EQ(runs, 300);
	EQ(sent, 300);
	OK(close(kq) == 0);
}

/* The library's own thread comes upon it once for each of them. */
CHECK(two_polled_kqueues_leave_it_to_whoever_wants_it)
{
	const int numbers[] = {SIGUSR1, SIGRTMIN};
	struct pollfd p[2];
	struct worker w;
	int a, b, i;
	for (i = 0; i < 2; i++) {
		int n = numbers[i];
		p[0].fd = a = watching(n);
		p[1].fd = b = watching(n);
		p[0].events = p[1].events = POLLIN;
		start_worker(&w, n, 1, 1);
		NONE(a);
		NONE(b);
		EQ(poll(p, 2, 0), 0);
		OK(kill(getpid(), n) == 0);
		EQ(poll(p, 1, 10000), 1);
		EQ(poll(p + 1, 1, 10000), 1);
		let_have_it(&w);
		took_it_as_it_was_sent(&w);
		SENT(a, n, 1);
		SENT(b, n, 1);
		OK(close(a) == 0);
		OK(close(b) == 0);
	}
}

CHECK(a_watch_that_ends_lets_go_of_it)
{
	struct worker w;
	int kq;
	kq = counted(&w, SIGUSR1, 1);
	OK(watch_flags(kq, SIGUSR1, EV_DELETE) == 0);
	EQ(is_pending(SIGUSR1), 1);
	let_have_it(&w);
	took_it_as_it_was_sent(&w);
	OK(close(kq) == 0);
}

CHECK(asleep_in_another_kqueue_it_lets_go_too)
{
	struct worker w;
	int a, b;
	handle(SIGUSR1);
	b = watching(SIGUSR2);
	a = counted(&w, SIGUSR1, 0);
	sleep_until_had(&w, b);
	handled_it_alone(&w, a);
	OK(close(b) == 0);
}

struct counter { int kq; long counted; };

static void *count_for_a_while(void *arg)
{
	struct counter *c = arg;
	struct kevent ev;
	int i;
	for (i = 0; i < 20; i++)
		if (collect(c->kq, &ev, 1, 1) > 0)
			c->counted += ev.data;
	return NULL;
}

static void *count_in_turns(void *arg)
{
	pthread_t other;
	while (!may_end) {
		OK(pthread_create(&other, NULL, count_for_a_while, arg) == 0);
		OK(pthread_join(other, NULL) == 0);
	}
	return arg;
}

CHECK(queued_signals_outlive_the_threads_that_count_them)
{
	struct counter c = {0, 0};
	union sigval value = {0};
	pthread_t other;
	int sent;
	handle(SIGRTMIN);
	mask_signal(SIG_BLOCK, SIGRTMIN);
	c.kq = watching(SIGRTMIN);
	OK(pthread_create(&other, NULL, count_in_turns, &c) == 0);
	for (sent = 0; sent < 1000; sent++) {
		OK(sigqueue(getpid(), SIGRTMIN, value) == 0);
		if (sent % 8 == 0)
			sched_yield();
	}
	may_end = 1;
	OK(pthread_join(other, NULL) == 0);
	count_for_a_while(&c);
	EQ(c.counted, sent);
	mask_signal(SIG_UNBLOCK, SIGRTMIN);
	EQ(runs, sent);
	NONE(c.kq);
	OK(close(c.kq) == 0);
}

CHECKS(
	C(who_blocks_it_for_a_while_runs_the_handler)
	C(the_next_call_lets_go_of_it)
	C(where_a_thread_takes_it_as_a_rule_nobody_has_to_call_again)
	C(with_one_thread_it_never_merges_though_its_handler_has_run)
	C(who_waits_for_it_afterwards_gets_it)
	C(polled_before_it_is_collected_it_goes_on_as_it_was)
	C(two_kqueues_count_it_once_each)
	C(queued_signals_all_go_and_keep_their_order)
	C(a_childs_end_is_told_as_it_was)
	C(the_thread_that_counted_it_may_end)
	C(sent_to_that_thread_it_stays_with_it)
	C(a_handler_of_another_signal_that_blocks_it_delays_it_only)
	C(the_handler_runs_each_time_though_threads_come_and_go)
	C(two_polled_kqueues_leave_it_to_whoever_wants_it)
	C(a_watch_that_ends_lets_go_of_it)
	C(asleep_in_another_kqueue_it_lets_go_too)
	C(queued_signals_outlive_the_threads_that_count_them)
);
