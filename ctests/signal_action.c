/*
 * EVFILT_SIGNAL beside actions that are not handlers: SIG_IGN, SIG_DFL, children that reap
 * themselves, what an exec leaves and what the last watch does.
 */
#include "signal_util.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>

/* --- ignored and default actions ----------------------------------------- */

CHECK(an_ignored_signal_is_recorded)
{
	int kq;
	signal(SIGUSR1, SIG_IGN);
	kq = watching(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	OK(kill(getpid(), SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 2);
	OK(close(kq) == 0);
}

/* As libevent does: the signal is ignored after it is watched. */
CHECK(ignored_after_the_watch_it_is_recorded)
{
	int kq = watching(SIGUSR1);
	OK(signal(SIGUSR1, SIG_IGN) == SIG_DFL);
	NONE(kq);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

CHECK(ignored_after_the_watch_it_is_recorded_at_once)
{
	int kq;
	NEEDS_FRONT;
	kq = watching(SIGUSR1);
	OK(signal(SIGUSR1, SIG_IGN) == SIG_DFL);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

CHECK(signals_that_are_ignored_by_default_are_recorded)
{
	static const int all[] = { SIGURG, SIGWINCH, SIGCHLD, SIGCONT };
	unsigned i;
	for (i = 0; i < sizeof all / sizeof *all; i++) {
		int kq = watching(all[i]);
		OK(raise(all[i]) == 0);
		SENT(kq, all[i], 1);
		OK(action_of(all[i]).sa_handler == SIG_DFL || !in_front());
		OK(close(kq) == 0);
	}
}

CHECK(a_signal_that_ends_the_process_still_does)
{
	const int all[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGSEGV, SIGRTMIN };
	unsigned i;
	for (i = 0; i < sizeof all / sizeof *all; i++) {
		pid_t pid = fork();
		int status;
		if (pid == 0) {
			struct kevent ev;
			int kq;
			/* A shell's background job is started with some ignored; sanitizers handle SIGSEGV. */
			signal(all[i], SIG_DFL);
			kq = watching(all[i]);
			struct timespec now = {0, 0};
			kevent(kq, NULL, 0, &ev, 1, &now);
			raise(all[i]);
			_exit(0);
		}
		EQ(waitpid(pid, &status, 0), pid);
		OK(WIFSIGNALED(status));
		EQ(WTERMSIG(status), all[i]);
	}
}

static volatile int zero;
static char *page;

static void fault(int n)
{
	switch (n) {
	case SIGSEGV: *page = 1; break;
	case SIGFPE: zero = 7 / zero; break;
	default: __builtin_trap();
	}
}

/* No thread can go on behind a fault of its own, whatever is ignored. */
CHECK(a_fault_ends_the_process_though_it_is_ignored)
{
#ifdef __x86_64__
	const int all[] = { SIGSEGV, SIGILL, SIGFPE };
#else
	const int all[] = { SIGSEGV };
#endif
	unsigned i;
	page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	OK(page != MAP_FAILED);
	for (i = 0; i < sizeof all / sizeof *all; i++) {
		pid_t pid = fork();
		int status;
		if (pid == 0) {
			int kq;
			signal(all[i], SIG_IGN);
			kq = watching(all[i]);
			raise(all[i]);
			SENT(kq, all[i], 1);
			alarm(10);
			fault(all[i]);
			_exit(0);
		}
		EQ(waitpid(pid, &status, 0), pid);
		OK(WIFSIGNALED(status));
		EQ(WTERMSIG(status), all[i]);
	}
}

/* As a shell does that stays in the background: nobody stops it for using its terminal. */
CHECK(who_ignores_SIGTTOU_may_use_the_terminal_from_the_background)
{
	int status, master = posix_openpt(O_RDWR | O_NOCTTY);
	pid_t pid;
	OK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	pid = fork();
	if (pid == 0) {
		struct termios modes;
		int terminal;
		pid_t other;
		OK(setsid() > 0);
		terminal = open(ptsname(master), O_RDWR);
		OK(terminal >= 0 && ioctl(terminal, TIOCSCTTY, 0) == 0);
		signal(SIGHUP, SIG_IGN);
		other = fork();
		if (other == 0) {
			int kq;
			OK(setpgid(0, 0) == 0);
			signal(SIGTTOU, SIG_IGN);
			kq = watching(SIGTTOU);
			OK(raise(SIGTTOU) == 0);
			SENT(kq, SIGTTOU, 1);
			alarm(10);
			OK(tcgetattr(terminal, &modes) == 0);
			OK(tcsetattr(terminal, TCSANOW, &modes) == 0);
			_exit(0);
		}
		EQ(waitpid(other, &status, 0), other);
		EQ(status, 0);
		_exit(0);
	}
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
	OK(close(master) == 0);
}

CHECK(it_ends_the_process_again_when_its_handler_is_taken_away)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		int kq;
		handle(SIGTERM);
		kq = watching(SIGTERM);
		raise(SIGTERM);
		SENT(kq, SIGTERM, 1);
		signal(SIGTERM, SIG_DFL);
		raise(SIGTERM);
		_exit(0);
	}
	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

CHECK(stop_and_continue_work_on_a_watched_process)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		int kq = watching(SIGTSTP);
		OK(watch_flags(kq, SIGCONT, EV_ADD) == 0);
		/* In a group without a parent outside nobody would continue it: it would not stop. */
		OK(setpgid(0, 0) == 0);
		raise(SIGTSTP);
		SENT(kq, SIGCONT, 1);
		_exit(0);
	}
	EQ(waitpid(pid, &status, WUNTRACED), pid);
	OK(WIFSTOPPED(status));
	EQ(WSTOPSIG(status), SIGTSTP);
	OK(kill(pid, SIGCONT) == 0);
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
}

/* --- children ------------------------------------------------------------ */

CHECK(a_childs_end_is_recorded_and_waited_for)
{
	int i, status, kq;
	for (i = 0; i < 2; i++) {
		pid_t pid;
		if (i)
			handle(SIGCHLD);
		kq = watching(SIGCHLD);
		if ((pid = fork()) == 0)
			_exit(3);
		while (waitpid(pid, &status, 0) != pid)
			EQ(errno, EINTR);
		EQ(WEXITSTATUS(status), 3);
		SENT(kq, SIGCHLD, 1);
		OK(close(kq) == 0);
		libkqueue_drain_pending_close();
	}
	EQ(runs, 1);
}

CHECK(ignored_children_reap_themselves_unrecorded)
{
	int kq, i;
	signal(SIGCHLD, SIG_IGN);
	kq = watching(SIGCHLD);
	for (i = 0; i < 3; i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		EQ(errno, ECHILD);
	}
	NONE(kq);
	signal(SIGCHLD, SIG_DFL);
	NONE(kq);
	OK(raise(SIGCHLD) == 0);
	SENT(kq, SIGCHLD, 1);
	OK(close(kq) == 0);
}

/* What a program started by exec finds: "ignored mask", from the kernel. */
static void status_of_started_program(char *text, size_t size)
{
	int p[2], n = 0, got;
	pid_t pid;
	OK(pipe2(p, O_CLOEXEC) == 0);
	if ((pid = fork()) == 0) {
		dup2(p[1], 1);
		execlp("grep", "grep", "-E", "^Sig(Ign|Blk|Cgt)", "/proc/self/status", (char *)NULL);
		_exit(126);
	}
	close(p[1]);
	while ((got = (int)read(p[0], text + n, size - 1 - (size_t)n)) > 0 || (got < 0 && errno == EINTR))
		n += got > 0 ? got : 0;
	text[n] = 0;
	close(p[0]);
	EQ(waitpid(pid, NULL, 0), pid);
	OK(strstr(text, "SigBlk:"));
}

CHECK(a_started_program_has_actions_and_mask_as_without)
{
	char before[400], after[400];
	int kq;
	signal(SIGUSR1, SIG_IGN);
	handle(SIGUSR2);
	mask_signal(SIG_BLOCK, SIGHUP);
	status_of_started_program(before, sizeof before);
	kq = watching(SIGUSR1);
	OK(watch_flags(kq, SIGUSR2, EV_ADD) == 0);
	OK(watch_flags(kq, SIGHUP, EV_ADD) == 0);
	OK(watch_flags(kq, SIGWINCH, EV_ADD) == 0);
	OK(watch_flags(kq, SIGTERM, EV_ADD) == 0);
	NONE(kq);
	status_of_started_program(after, sizeof after);
	if (strcmp(before, after) != 0)
		FAIL("before:\n%safter:\n%s", before, after);
	OK(close(kq) == 0);
}

CHECK(the_mask_is_never_touched)
{
	sigset_t before, after;
	int n, kq;
	OK(pthread_sigmask(SIG_BLOCK, NULL, &before) == 0);
	kq = watching(SIGUSR1);
	signal(SIGUSR1, SIG_IGN);
	NONE(kq);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
	OK(pthread_sigmask(SIG_BLOCK, NULL, &after) == 0);
	for (n = 1; n <= 64; n++)
		EQ(sigismember(&before, n), sigismember(&after, n));
}

CHECK(the_last_watch_gone_the_action_is_the_programs)
{
	uintptr_t handler;
	int a, b;
	handle(SIGUSR1);
	signal(SIGUSR2, SIG_IGN);
	/* Not on_signal() where a sanitizer stands in between. */
	handler = kernel_handler(SIGUSR1);
	a = watching(SIGUSR1);
	b = watching(SIGUSR1);
	OK(watch_flags(a, SIGUSR2, EV_ADD) == 0);
	OK(watch_flags(a, SIGWINCH, EV_ADD) == 0);
	OK(kernel_handler(SIGUSR1) != handler);
	OK(kernel_handler(SIGUSR2) != (uintptr_t)SIG_IGN);
	OK(watch_flags(a, SIGUSR2, EV_DELETE) == 0);
	EQ(kernel_handler(SIGUSR2), (uintptr_t)SIG_IGN);
	OK(close(a) == 0);
	libkqueue_drain_pending_close();
	EQ(kernel_handler(SIGWINCH), (uintptr_t)SIG_DFL);
	OK(kernel_handler(SIGUSR1) != handler);
	OK(watch_flags(b, SIGUSR1, EV_DELETE) == 0);
	EQ(kernel_handler(SIGUSR1), handler);
	OK(raise(SIGUSR1) == 0);
	EQ(runs, 1);
	OK(watch_flags(b, SIGUSR1, EV_ADD | EV_ONESHOT) == 0);
	OK(raise(SIGUSR1) == 0);
	SENT(b, SIGUSR1, 1);
	EQ(kernel_handler(SIGUSR1), handler);
	OK(close(b) == 0);
}

/* system() sets SIGINT and SIGQUIT aside by libc's own sigaction() and puts them back. */
CHECK(system_puts_back_what_it_found)
{
	int kq;
	handle(SIGINT);
	kq = watching(SIGINT);
	EQ(system("true"), 0);
	NONE(kq);
	OK(raise(SIGINT) == 0);
	EQ(runs, 1);
	SENT(kq, SIGINT, 1);
	OK(close(kq) == 0);
}

CHECKS(
	C(an_ignored_signal_is_recorded)
	C(ignored_after_the_watch_it_is_recorded)
	C(ignored_after_the_watch_it_is_recorded_at_once)
	C(signals_that_are_ignored_by_default_are_recorded)
	C(a_signal_that_ends_the_process_still_does)
	C(a_fault_ends_the_process_though_it_is_ignored)
	C(who_ignores_SIGTTOU_may_use_the_terminal_from_the_background)
	C(it_ends_the_process_again_when_its_handler_is_taken_away)
	C(stop_and_continue_work_on_a_watched_process)
	C(a_childs_end_is_recorded_and_waited_for)
	C(ignored_children_reap_themselves_unrecorded)
	C(a_started_program_has_actions_and_mask_as_without)
	C(the_mask_is_never_touched)
	C(the_last_watch_gone_the_action_is_the_programs)
	C(system_puts_back_what_it_found)
);
