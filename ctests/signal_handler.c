/* EVFILT_SIGNAL beside the handlers of the program: they run as without it, and it sees its own. */
#include "signal_util.h"
#include <setjmp.h>

static siginfo_t seen_info;
static void *seen_context;
static sigset_t seen_mask;
static int seen_errno, left_errno;

static void on_siginfo(int n, siginfo_t *info, void *context)
{
	seen_errno = errno;
	last_signal = n;
	seen_info = *info;
	seen_context = context;
	pthread_sigmask(SIG_BLOCK, NULL, &seen_mask);
	runs++;
	if (left_errno)
		errno = left_errno;
}

CHECK(a_handler_gets_its_siginfo_context_and_mask)
{
	union sigval value;
	struct sigaction sa;
	int kq;
	memset(&sa, 0, sizeof sa);
	sa.sa_sigaction = on_siginfo;
	sa.sa_flags = SA_SIGINFO;
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGHUP);
	OK(sigaction(SIGUSR1, &sa, NULL) == 0);
	kq = watching(SIGUSR1);
	memset(&value, 0, sizeof value);
	value.sival_int = 4711;
	OK(sigqueue(getpid(), SIGUSR1, value) == 0);
	/* Tools that stand between are late. */
	UNTIL(runs > 0);
	EQ(runs, 1);
	EQ(last_signal, SIGUSR1);
	EQ(seen_info.si_signo, SIGUSR1);
	EQ(seen_info.si_code, SI_QUEUE);
	EQ(seen_info.si_errno, 0);
	EQ(seen_info.si_pid, getpid());
	EQ(seen_info.si_value.sival_int, 4711);
	OK(seen_context != NULL);
	EQ(sigismember(&seen_mask, SIGHUP), 1);
	EQ(sigismember(&seen_mask, SIGUSR1), 1);
	EQ(sigismember(&seen_mask, SIGUSR2), 0);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

CHECK(a_handler_finds_errno_and_leaves_its_own)
{
	struct sigaction sa;
	int kq, after;
	memset(&sa, 0, sizeof sa);
	sa.sa_sigaction = on_siginfo;
	sa.sa_flags = SA_SIGINFO;
	OK(sigaction(SIGUSR1, &sa, NULL) == 0);
	kq = watching(SIGUSR1);
	left_errno = 77;
	errno = 55;
	after = kill(getpid(), SIGUSR1);
	EQ(errno, 77);
	EQ(after, 0);
	EQ(seen_errno, 55);
	EQ(runs, 1);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

CHECK(a_handler_set_after_the_watch_runs)
{
	int kq = watching(SIGUSR1);
	handle(SIGUSR1);
	NONE(kq);
	OK(raise(SIGUSR1) == 0);
	EQ(runs, 1);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

static volatile int reads_in_handler, handler_kq;

static void read_in_handler(int n)
{
	struct timespec now = {0, 0};
	struct kevent ev;
	if (kevent(handler_kq, NULL, 0, &ev, 1, &now) == 1 && ev.ident == (uintptr_t)n)
		reads_in_handler = (int)ev.data;
}

CHECK(a_handler_can_read_the_event_itself)
{
	handle_with(SIGUSR1, read_in_handler, 0);
	handler_kq = watching(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	EQ(reads_in_handler, 1);
	NONE(handler_kq);
	OK(close(handler_kq) == 0);
}

CHECK(every_send_is_recorded_while_actions_change)
{
	int i, kq;
	NEEDS_FRONT;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 10; i++) {
		OK(signal(SIGUSR1, SIG_IGN) == on_signal);
		OK(raise(SIGUSR1) == 0);
		OK(signal(SIGUSR1, on_signal_too) == SIG_IGN);
		OK(raise(SIGUSR1) == 0);
		OK(signal(SIGUSR1, on_signal) == on_signal_too);
		OK(raise(SIGUSR1) == 0);
	}
	SENT(kq, SIGUSR1, 30);
	EQ(runs, 10);
	EQ(other_runs, 10);
	OK(close(kq) == 0);
}

CHECK(the_program_sees_its_own_actions_only)
{
	struct sigaction sa, old;
	int kq;
	NEEDS_FRONT;
	memset(&sa, 0, sizeof sa);
	sa.sa_sigaction = on_siginfo;
	sa.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK | SA_NODEFER;
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGHUP);
	OK(sigaction(SIGUSR1, &sa, NULL) == 0);
	kq = watching(SIGUSR1);
	old = action_of(SIGUSR1);
	OK(old.sa_sigaction == on_siginfo);
	EQ(old.sa_flags & ~0x04000000, sa.sa_flags);
	EQ(sigismember(&old.sa_mask, SIGHUP), 1);
	EQ(sigismember(&old.sa_mask, SIGUSR2), 0);
	OK((uintptr_t)signal(SIGUSR1, SIG_IGN) == (uintptr_t)on_siginfo);
	old = action_of(SIGUSR1);
	OK(old.sa_handler == SIG_IGN);
	EQ(old.sa_flags & SA_SIGINFO, 0);
	EQ(sigismember(&old.sa_mask, SIGUSR2), 0);
	OK(sigaction(SIGUSR1, &sa, &old) == 0);
	OK(old.sa_handler == SIG_IGN);
	OK((uintptr_t)signal(SIGUSR1, SIG_DFL) == (uintptr_t)on_siginfo);
	OK(action_of(SIGUSR1).sa_handler == SIG_DFL);
	OK(close(kq) == 0);
}

CHECK(actions_of_unwatched_signals_pass_through)
{
	struct sigaction sa;
	int kq = watching(SIGUSR2);
	handle_with(SIGUSR1, on_signal, SA_RESTART);
	sa = action_of(SIGUSR1);
	OK(sa.sa_handler == on_signal);
	EQ(sa.sa_flags & SA_RESTART, SA_RESTART);
	OK(signal(SIGUSR1, SIG_IGN) == on_signal);
	OK(signal(SIGUSR1, SIG_DFL) == SIG_IGN);
	FAILS(sigaction(65, NULL, &sa), EINVAL);
	FAILS(sigaction(0, NULL, &sa), EINVAL);
	FAILS(sigaction(SIGKILL, &sa, NULL), EINVAL);
	OK(signal(SIGKILL, SIG_IGN) == SIG_ERR && errno == EINVAL);
	OK(close(kq) == 0);
}

CHECK(SIG_ERR_is_no_action)
{
	int kq = watching(SIGUSR2);
	OK(signal(SIGUSR1, SIG_ERR) == SIG_ERR && errno == EINVAL);
	errno = 0;
	OK(signal(SIGUSR2, SIG_ERR) == SIG_ERR && errno == EINVAL);
	OK(close(kq) == 0);
}

CHECK(a_reset_handler_runs_once)
{
	int status, kq;
	pid_t pid;
	handle_with(SIGWINCH, on_signal, SA_RESETHAND);
	kq = watching(SIGWINCH);
	OK(raise(SIGWINCH) == 0);
	OK(raise(SIGWINCH) == 0);
	EQ(runs, 1);
	SENT(kq, SIGWINCH, 2);
	if (in_front())
		OK(action_of(SIGWINCH).sa_handler == SIG_DFL);
	OK(close(kq) == 0);
	/* Or the fork meets the library's thread in an allocator that does not mind forks. */
	libkqueue_drain_pending_close();
	if ((pid = fork()) == 0) {
		handle_with(SIGUSR1, on_signal, SA_RESETHAND);
		kq = watching(SIGUSR1);
		OK(raise(SIGUSR1) == 0);
		EQ(runs, 2);
		SENT(kq, SIGUSR1, 1);
		OK(action_of(SIGUSR1).sa_handler == SIG_DFL);
		raise(SIGUSR1);
		_exit(0);
	}
	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
}

static volatile int depth, deepest, again;

static void nest(int n)
{
	if (++depth > deepest)
		deepest = depth;
	if (again-- > 0)
		raise(n);
	depth--;
}

CHECK(nodefer_and_onstack_are_the_programs)
{
	static char stack[65536];
	stack_t on = { stack, 0, sizeof stack }, off = { NULL, SS_DISABLE, 0 };
	int kq;
	handle_with(SIGUSR1, nest, SA_NODEFER | SA_ONSTACK);
	OK(sigaltstack(&on, NULL) == 0);
	kq = watching(SIGUSR1);
	again = 2;
	OK(raise(SIGUSR1) == 0);
	EQ(deepest, 3);
	SENT(kq, SIGUSR1, 3);
	handle_with(SIGUSR1, nest, 0);
	NONE(kq);
	deepest = 0;
	again = 2;
	OK(raise(SIGUSR1) == 0);
	EQ(deepest, 1);
	SENT(kq, SIGUSR1, 3);
	OK(sigaltstack(&off, NULL) == 0);
	OK(close(kq) == 0);
}

static sigjmp_buf jump;

static void jump_out(int n)
{
	siglongjmp(jump, n);
}

CHECK(a_handler_may_jump_out)
{
	volatile int i;
	int kq;
	handle_with(SIGUSR1, jump_out, 0);
	kq = watching(SIGUSR1);
	for (i = 0; i < 10; i++)
		if (sigsetjmp(jump, 1) == 0) {
			raise(SIGUSR1);
			FAIL("the handler returned");
		}
	SENT(kq, SIGUSR1, 10);
	OK(close(kq) == 0);
	libkqueue_drain_pending_close();
}

/* From the one to the other the first thread sleeps in read() alone. */
static _Atomic int read_began, read_over;

/* Interrupts the first thread's sleep some times, and ends it. */
static void *disturb_who_reads(void *fd)
{
	int i;
	mask_signal(SIG_BLOCK, SIGUSR1);
	for (i = 0; i < 5; i++) {
		UNTIL(read_over || (read_began && state_of(getpid()) == 'S'));
		OK(kill(getpid(), SIGUSR1) == 0);
	}
	UNTIL(read_over || (read_began && state_of(getpid()) == 'S'));
	OK(write(*(int *)fd, "x", 1) == 1);
	return NULL;
}

/* A read that a signal interrupts or not, by SA_RESTART. */
static int read_is_restarted(void)
{
	int p[2], n, error;
	pthread_t other;
	char c;
	OK(pipe(p) == 0);
	read_began = read_over = 0;
	OK(pthread_create(&other, NULL, disturb_who_reads, &p[1]) == 0);
	read_began = 1;
	n = (int)read(p[0], &c, 1);
	error = errno;
	read_over = 1;
	OK(pthread_join(other, NULL) == 0);
	close(p[0]);
	close(p[1]);
	if (n == 1)
		return 1;
	EQ(error, EINTR);
	return 0;
}

CHECK(system_calls_are_restarted_as_the_program_says)
{
	int kq;
	handle_with(SIGUSR1, on_signal, SA_RESTART);
	kq = watching(SIGUSR1);
	EQ(read_is_restarted(), 1);
	OK(ONE(kq).data >= 1);
	handle_with(SIGUSR1, on_signal, 0);
	NONE(kq);
	EQ(read_is_restarted(), 0);
	signal(SIGUSR1, SIG_IGN);
	OK(ONE(kq).data >= 1);
	EQ(read_is_restarted(), 1);
	OK(ONE(kq).data >= 1);
	signal(SIGUSR1, SIG_DFL);
	OK(close(kq) == 0);
}

CHECK(siginterrupt_works_on_a_watched_signal)
{
	int kq;
	handle_with(SIGUSR1, on_signal, SA_RESTART);
	kq = watching(SIGUSR1);
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	OK(siginterrupt(SIGUSR1, 1) == 0);
	EQ(read_is_restarted(), 0);
	if (in_front())
		EQ(action_of(SIGUSR1).sa_flags & SA_RESTART, 0);
	signal(SIGUSR1, SIG_DFL);
	OK(close(kq) == 0);
}

CHECKS(
	C(a_handler_gets_its_siginfo_context_and_mask)
	C(a_handler_finds_errno_and_leaves_its_own)
	C(a_handler_set_after_the_watch_runs)
	C(a_handler_can_read_the_event_itself)
	C(every_send_is_recorded_while_actions_change)
	C(the_program_sees_its_own_actions_only)
	C(actions_of_unwatched_signals_pass_through)
	C(SIG_ERR_is_no_action)
	C(a_reset_handler_runs_once)
	C(nodefer_and_onstack_are_the_programs)
	C(a_handler_may_jump_out)
	C(system_calls_are_restarted_as_the_program_says)
	C(siginterrupt_works_on_a_watched_signal)
);
