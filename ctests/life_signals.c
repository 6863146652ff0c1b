/* Signals and sleepers: EINTR exactly when a handler ran, and never otherwise. */
#include "engine_util.h"
#include <sys/time.h>

static int handled, trigger_from_handler = -1;

static void on_signal(int sig)
{
	(void)sig;
	if (trigger_from_handler >= 0)
		trigger(trigger_from_handler, 1);
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

static void handle(int sig, int flags)
{
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = on_signal;
	sa.sa_flags = flags;
	OK(sigaction(sig, &sa, NULL) == 0);
}

static int times_handled(void)
{
	return __atomic_load_n(&handled, __ATOMIC_SEQ_CST);
}

/* --- a handler runs ------------------------------------------------------ */

/* The sleeper's own signal: -1/EINTR, soon. */
static void interrupts(int sig, long ms)
{
	struct sleeper s;
	int i, kq = new_kqueue();
	for (i = 0; i < 20; i++) {
		int before = times_handled();
		sleeper_start(&s, kq, ms);
		OK(pthread_kill(s.thread, sig) == 0);
		sleeper_join(&s);
		EQ(s.n, -1);
		EQ(s.err, EINTR);
		EQ(times_handled(), before + 1);
	}
	OK(close(kq) == 0);
}

CHECK(a_handler_in_the_sleeping_thread_is_EINTR_with_every_flag)
{
	static const int flags[] = { 0, SA_RESTART, SA_NODEFER, SA_RESTART | SA_RESETHAND };
	unsigned i;
	for (i = 0; i < 3; i++) {
		handle(SIGUSR1, flags[i]);
		interrupts(SIGUSR1, -1);
		interrupts(SIGUSR1, 1000000);
	}
}

CHECK(a_handler_of_a_realtime_signal_is_EINTR)
{
	handle(SIGRTMIN + 2, SA_RESTART);
	interrupts(SIGRTMIN + 2, -1);
}

/* On a stack of its own the handler leaves no trace on the thread's. */
static void *with_another_stack(void *arg)
{
	struct sleeper *s = arg;
	static char room[64 * 1024];
	stack_t stack = { .ss_sp = room, .ss_size = sizeof room };
	OK(sigaltstack(&stack, NULL) == 0);
	sleeper_main(s);
	stack.ss_flags = SS_DISABLE;
	OK(sigaltstack(&stack, NULL) == 0);
	return NULL;
}

CHECK(a_handler_on_another_stack_is_EINTR)
{
	struct sleeper s;
	int i, kq = new_kqueue();
	handle(SIGUSR1, SA_ONSTACK | SA_RESTART);
	for (i = 0; i < 20; i++) {
		memset(&s, 0, sizeof s);
		s.kq = kq;
		s.ms = -1;
		OK(pthread_create(&s.thread, NULL, with_another_stack, &s) == 0);
		UNTIL(is_done(&s) || sleeps(&s));
		OK(pthread_kill(s.thread, SIGUSR1) == 0);
		sleeper_join(&s);
		EQ(s.n, -1);
		EQ(s.err, EINTR);
	}
	OK(close(kq) == 0);
}

CHECK(a_handler_that_triggers_leaves_the_event_for_the_next_call)
{
	struct sleeper s;
	int i, kq = new_kqueue();
	handle(SIGUSR1, SA_RESTART);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	trigger_from_handler = kq;
	for (i = 0; i < 50; i++) {
		sleeper_start(&s, kq, -1);
		OK(pthread_kill(s.thread, SIGUSR1) == 0);
		sleeper_join(&s);
		/* The trigger may be what the wait sees first. */
		if (s.n == -1) {
			EQ(s.err, EINTR);
			EQ(ONE(kq).ident, 1);
		} else {
			EQ(s.n, 1);
		}
		NONE(kq);
	}
	OK(close(kq) == 0);
}

static int mid_call_kq, mid_call_error, mid_call_owed, mid_call_end;

/* Triggers once for each event that was taken: a trigger that is lost ends them all. */
static void trigger_mid_call(int signal)
{
	int e = errno;
	(void)signal;
	if (!__atomic_exchange_n(&mid_call_owed, 1, __ATOMIC_SEQ_CST) && trigger(mid_call_kq, 1) != 0)
		mid_call_error = errno;
	errno = e;
}

static void *interrupt(void *thread)
{
	while (!__atomic_load_n(&mid_call_end, __ATOMIC_SEQ_CST)) {
		OK(pthread_kill(*(pthread_t *)thread, SIGUSR1) == 0);
		usleep(20);
	}
	return NULL;
}

/* The interrupted call is at work most of the time, and sleeps now and then. */
CHECK(a_handler_may_trigger_in_the_middle_of_any_call)
{
	int p[2], i, r, n = 0;
	pthread_t self = pthread_self(), thread;
	struct kevent ev[4];
	long long until = now_ns() + 30000000000LL;
	OK(sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = trigger_mid_call }, NULL) == 0);
	mid_call_kq = new_kqueue();
	OK(pipe2(p, O_CLOEXEC) == 0);
	EQ(write(p[1], "x", 1), 1);
	OK(add_user(mid_call_kq, 1, EV_CLEAR) == 0);
	OK(pthread_create(&thread, NULL, interrupt, &self) == 0);
	while (n < 2000) {
		OK(now_ns() < until);
		OK(change(mid_call_kq, p[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
		r = collect(mid_call_kq, ev, 4, 0);
		OK(change(mid_call_kq, p[0], EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
		for (i = 0; i < r; i++)
			if (ev[i].filter == EVFILT_USER) {
				n++;
				__atomic_store_n(&mid_call_owed, 0, __ATOMIC_SEQ_CST);
			}
		/* The event comes in this call or, after EINTR, in the next. */
		if (n % 2 && collect(mid_call_kq, ev, 1, 10000) == 1) {
			n++;
			__atomic_store_n(&mid_call_owed, 0, __ATOMIC_SEQ_CST);
		}
	}
	__atomic_store_n(&mid_call_end, 1, __ATOMIC_SEQ_CST);
	OK(pthread_join(thread, NULL) == 0);
	EQ(mid_call_error, 0);
	signal(SIGUSR1, SIG_DFL);
	close(p[0]);
	close(p[1]);
	OK(close(mid_call_kq) == 0);
}

CHECK(a_timer_signal_interrupts_each_call_once)
{
	struct itimerval every = { { 0, 2000 }, { 0, 2000 } }, off = { { 0, 0 }, { 0, 0 } };
	int i, interrupted = 0, kq = new_kqueue();
	struct kevent ev;
	handle(SIGVTALRM, SA_RESTART);
	handle(SIGPROF, SA_RESTART);
	handle(SIGALRM, SA_RESTART);
	alarm(0);
	OK(setitimer(ITIMER_REAL, &every, NULL) == 0);
	for (i = 0; i < 50; i++) {
		FAILS(collect(kq, &ev, 1, 30000), EINTR);
		interrupted++;
	}
	OK(setitimer(ITIMER_REAL, &off, NULL) == 0);
	OK(times_handled() >= interrupted);
	signal(SIGALRM, SIG_DFL);
	alarm(HARNESS_TIMEOUT);
	OK(close(kq) == 0);
}

CHECK(a_handler_in_another_thread_leaves_the_sleeper_asleep)
{
	struct sleeper s;
	int i, kq = new_kqueue();
	handle(SIGUSR1, 0);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	sleeper_start(&s, kq, -1);
	for (i = 0; i < 20; i++)
		OK(pthread_kill(pthread_self(), SIGUSR1) == 0);
	EQ(times_handled(), 20);
	pause_ms(2);
	OK(!is_done(&s));
	OK(trigger(kq, 1) == 0);
	sleeper_join(&s);
	EQ(s.n, 1);
	OK(close(kq) == 0);
}

CHECK(changes_of_an_interrupted_call_stay_made)
{
	struct kevent ch[2], ev;
	struct itimerval soon = { { 0, 1000 }, { 0, 1000 } }, off = { { 0, 0 }, { 0, 0 } };
	int kq = new_kqueue();
	handle(SIGALRM, SA_RESTART);
	alarm(0);
	EV_SET(&ch[0], 1, EVFILT_USER, EV_ADD, 0, 0, NULL);
	EV_SET(&ch[1], 2, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL);
	OK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
	FAILS(kevent(kq, ch, 2, &ev, 1, NULL), EINTR);
	OK(setitimer(ITIMER_REAL, &off, NULL) == 0);
	signal(SIGALRM, SIG_DFL);
	alarm(HARNESS_TIMEOUT);
	OK(change(kq, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL) == 0);
	OK(change(kq, 2, EVFILT_TIMER, EV_DELETE, 0, 0, NULL) == 0);
	OK(close(kq) == 0);
}

/* --- no handler runs ------------------------------------------------------ */

/* The sleeper of 60 ms sleeps on while disturb runs, and for no shorter time. */
static void sleeps_through(void (*disturb)(struct sleeper *s))
{
	struct sleeper s;
	int kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	sleeper_start(&s, kq, 60);
	disturb(&s);
	sleeper_join(&s);
	EQ(s.n, 0);
	OK(s.took >= 60000000);
	OK(s.took < 20000000000LL);
	OK(close(kq) == 0);
}

/* Both in a program without handlers and in one that has some. */
static void sleeps_through_with_and_without_handlers(void (*disturb)(struct sleeper *s))
{
	sleeps_through(disturb);
	handle(SIGUSR2, SA_RESTART);
	sleeps_through(disturb);
	EQ(times_handled(), 0);
}

static void ignored_signals(struct sleeper *s)
{
	int i;
	for (i = 0; i < 10; i++) {
		OK(pthread_kill(s->thread, SIGUSR1) == 0);
		OK(pthread_kill(s->thread, SIGWINCH) == 0);
		OK(pthread_kill(s->thread, SIGCHLD) == 0);
		pause_ms(1);
	}
}

CHECK(ignored_signals_leave_a_sleeper_asleep)
{
	signal(SIGUSR1, SIG_IGN);
	sleeps_through_with_and_without_handlers(ignored_signals);
}

static void children_end(struct sleeper *s)
{
	int i;
	(void)s;
	for (i = 0; i < 10; i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		OK(waitpid(pid, NULL, 0) == pid);
	}
}

CHECK(ending_children_leave_a_sleeper_asleep)
{
	sleeps_through_with_and_without_handlers(children_end);
}

static void runs_commands(struct sleeper *s)
{
	int i;
	(void)s;
	for (i = 0; i < 5; i++)
		EQ(system("exit 3"), 3 << 8);
}

CHECK(system_in_another_thread_leaves_a_sleeper_asleep)
{
	sleeps_through_with_and_without_handlers(runs_commands);
}

static void stops_and_goes_on(struct sleeper *s)
{
	int i;
	for (i = 0; i < 3; i++) {
		pid_t parent = getpid(), pid;
		UNTIL(is_done(s) || sleeps(s));
		if ((pid = fork()) == 0) {
			OK(kill(parent, SIGSTOP) == 0);
			UNTIL(state_of(parent) == 'T');
			OK(kill(parent, SIGCONT) == 0);
			_exit(0);
		}
		while (waitpid(pid, NULL, 0) != pid)
			OK(errno == EINTR);
	}
}

CHECK(stop_and_continue_leave_a_sleeper_asleep)
{
	sleeps_through_with_and_without_handlers(stops_and_goes_on);
}

static void blocked_signals(struct sleeper *s)
{
	int i;
	for (i = 0; i < 10; i++) {
		OK(pthread_kill(s->thread, SIGUSR1) == 0);
		pause_ms(1);
	}
}

CHECK(blocked_signals_leave_a_sleeper_asleep)
{
	sigset_t some;
	handle(SIGUSR1, 0);
	sigemptyset(&some);
	sigaddset(&some, SIGUSR1);
	OK(pthread_sigmask(SIG_BLOCK, &some, NULL) == 0);
	sleeps_through(blocked_signals);
	EQ(times_handled(), 0);
}

/* --- signals are the program's ------------------------------------------- */

/* With every thread of the program's blocking it a signal stays pending. */
CHECK(the_librarys_thread_takes_no_signal_of_the_programs)
{
	sigset_t all, pending;
	int sig, got, kq = new_kqueue();
	struct timespec now = { 0, 0 };
	sigfillset(&all);
	sigdelset(&all, SIGALRM);
	for (sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && sig != SIGALRM)
			handle(sig, 0);
	handle(SIGRTMIN, 0);
	handle(SIGRTMIN + 1, 0);
	OK(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
	for (sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && sig != SIGALRM)
			OK(kill(getpid(), sig) == 0);
	OK(kill(getpid(), SIGRTMIN) == 0 && kill(getpid(), SIGRTMIN + 1) == 0);
	/* The library's thread works meanwhile. */
	OK(close(kq) == 0);
	libkqueue_drain_pending_close();
	pause_ms(5);
	EQ(times_handled(), 0);
	OK(sigpending(&pending) == 0);
	for (sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && sig != SIGALRM)
			if (sigismember(&pending, sig) != 1 && sig != SIGCONT)
				FAIL("signal %d (%s) was taken", sig, strsignal(sig));
	OK(sigismember(&pending, SIGRTMIN) == 1 && sigismember(&pending, SIGRTMIN + 1) == 1);
	while ((got = sigtimedwait(&all, NULL, &now)) > 0)
		;
	EQ(times_handled(), 0);
}

CHECK(closing_queues_sends_the_program_no_signal)
{
	sigset_t all, pending;
	int i, sig;
	sigfillset(&all);
	sigdelset(&all, SIGALRM);
	OK(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
	for (i = 0; i < 200; i++)
		OK(close(new_kqueue()) == 0);
	libkqueue_drain_pending_close();
	OK(sigpending(&pending) == 0);
	for (sig = 1; sig <= SIGRTMAX; sig++)
		OK(sigismember(&pending, sig) != 1);
}

CHECKS(
	C(a_handler_in_the_sleeping_thread_is_EINTR_with_every_flag)
	C(a_handler_of_a_realtime_signal_is_EINTR)
	C(a_handler_on_another_stack_is_EINTR)
	C(a_handler_that_triggers_leaves_the_event_for_the_next_call)
	C(a_handler_may_trigger_in_the_middle_of_any_call)
	C(a_timer_signal_interrupts_each_call_once)
	C(a_handler_in_another_thread_leaves_the_sleeper_asleep)
	C(changes_of_an_interrupted_call_stay_made)
	C(ignored_signals_leave_a_sleeper_asleep)
	C(ending_children_leave_a_sleeper_asleep)
	C(system_in_another_thread_leaves_a_sleeper_asleep)
	C(stop_and_continue_leave_a_sleeper_asleep)
	C(blocked_signals_leave_a_sleeper_asleep)
	C(the_librarys_thread_takes_no_signal_of_the_programs)
	C(closing_queues_sends_the_program_no_signal)
);
