/* EVFILT_PROC: NOTE_EXIT, which needs nothing but pidfds. */
#include "proc_util.h"
#include <sys/ptrace.h>

CHECK(exit_of_a_child_is_an_event_with_its_wait_status)
{
	int kq = kqueue();
	struct child c = child();
	struct kevent e;
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, (void *)0x1234), 0);
	NONE(kq);
	order(&c, EXIT_3);
	e = ONE(kq);
	EQ(e.ident, c.pid);
	EQ(e.filter, EVFILT_PROC);
	EQ(e.flags, EV_CLEAR | EV_ONESHOT | EV_EOF);
	EQ(e.fflags, NOTE_EXIT);
	EQ(e.data, 3 << 8);
	OK(e.udata == (void *)0x1234);
	EQ(reap(c.pid), 3 << 8);
	let_go(&c);
	close(kq);
}

CHECK(death_by_signal_shows_in_the_status)
{
	int kq = kqueue();
	struct child c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, KILL_SELF);
	EVENT(kq, c.pid, NOTE_EXIT, SIGKILL);
	EQ(reap(c.pid), SIGKILL);
	let_go(&c);
	close(kq);
}

/* Whether a core is dumped is the machine's business; the event says what wait() says. */
CHECK(status_says_what_wait_says_of_a_core)
{
	int kq = kqueue(), status;
	struct child c;
	struct kevent e;
	/* A job in the background of a script begins with it ignored. */
	OK(signal(SIGQUIT, SIG_DFL) != SIG_ERR);
	c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	kill(c.pid, SIGQUIT);
	e = ONE(kq);
	status = reap(c.pid);
	EQ(WTERMSIG(status), SIGQUIT);
	EQ(e.data, status);
	let_go(&c);
	close(kq);
}

CHECK(delivered_exit_removes_the_knote_and_comes_once)
{
	int kq = kqueue();
	struct child c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, EXIT_3);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	NONE(kq);
	FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
	reap(c.pid);
	NONE(kq);
	let_go(&c);
	close(kq);
}

CHECK(child_reaped_before_the_call_is_reported_with_its_status)
{
	int kq = kqueue();
	struct child c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, EXIT_3);
	EQ(reap(c.pid), 3 << 8);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	let_go(&c);
	close(kq);
}

CHECK(wait_before_the_event_and_after_it_finds_the_child)
{
	int kq = kqueue(), status;
	struct child c = child();
	siginfo_t info;
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	EQ(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
	EQ(info.si_pid, c.pid);
	EQ(info.si_status, 3);
	EQ(wait(&status), c.pid);
	EQ(status, 3 << 8);
	FAILS(wait(&status), ECHILD);
	let_go(&c);
	close(kq);
}

CHECK(self_reaping_child_is_reported_with_its_status)
{
	int kq = kqueue();
	struct child c;
	signal(SIGCHLD, SIG_IGN);
	c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, EXIT_3);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	FAILS(wait(NULL), ECHILD);
	let_go(&c);
	close(kq);
}

static volatile sig_atomic_t sigchlds;
static void on_sigchld(int sig) { sigchlds += sig == SIGCHLD; }

CHECK(sigchld_handler_and_mask_are_left_alone)
{
	struct sigaction sa, old;
	sigset_t before, after;
	struct child c;
	int kq = kqueue();
	memset(&before, 0, sizeof before);
	memset(&after, 0, sizeof after);
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = on_sigchld;
	EQ(sigaction(SIGCHLD, &sa, NULL), 0);
	sigprocmask(SIG_SETMASK, NULL, &before);
	c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	sigprocmask(SIG_SETMASK, NULL, &after);
	EQ(memcmp(&before, &after, sizeof before), 0);
	EQ(sigaction(SIGCHLD, NULL, &old), 0);
	OK(old.sa_handler == on_sigchld);
	order(&c, EXIT_3);
	UNTIL(sigchlds == 1);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	reap(c.pid);
	EQ(sigchlds, 1);
	let_go(&c);
	close(kq);
}

/* A grandchild: its number comes through a pipe. */
CHECK(exit_of_a_process_that_is_no_child_has_its_status)
{
	int p[2], go[2], kq = kqueue(), status;
	pid_t parent, pid = 0;
	char c;
	need_pidfd();
	OK(pipe2(p, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0);
	if ((parent = fork()) == 0) {
		close(go[1]);
		if ((pid = fork()) == 0) {
			while (read(go[0], &c, 1) < 0)
				;
			_exit(9);
		}
		if (write(p[1], &pid, sizeof pid) != sizeof pid)
			_exit(1);
		waitpid(pid, NULL, 0);
		_exit(0);
	}
	EQ(read(p[0], &pid, sizeof pid), sizeof pid);
	WATCH(kq, pid, NOTE_EXIT);
	close(go[0]);
	close(go[1]);
	EVENT(kq, pid, NOTE_EXIT, 9 << 8);
	EQ(waitpid(parent, &status, 0), parent);
	close(p[0]);
	close(p[1]);
	close(kq);
}

/* Its parent does not reap it: /proc tells. */
CHECK(zombie_of_somebody_else_has_its_status)
{
	int kq = kqueue();
	pid_t parent, pid;
	need_pidfd();
	pid = grandchild(&parent);
	WATCH(kq, pid, NOTE_EXIT);
	kill(pid, SIGTERM);
	EVENT(kq, pid, NOTE_EXIT, SIGTERM);
	kill(parent, SIGKILL);
	reap(parent);
	close(kq);
}

/* The parent's wait(2) is told of it only once the tracer has been. */
CHECK(child_that_another_process_traces_has_its_status)
{
	int up[2], kq = kqueue();
	struct child c = child();
	struct kevent ev;
	pid_t tracer;
	char done;
	OK(pipe2(up, O_CLOEXEC) == 0);
	OK((tracer = fork()) >= 0);
	if (tracer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		done = ptrace(PTRACE_SEIZE, c.pid, NULL, NULL) == 0;
		if (write(up[1], &done, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	EQ(read(up[0], &done, 1), 1);
	if (!done)
		SKIP("a process may not trace its siblings here");
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, EXIT_3);
	ev = ONE(kq);
	EQ(ev.ident, c.pid);
	EQ(ev.fflags, NOTE_EXIT);
	EQ(ev.data, 3 << 8);
	kill(tracer, SIGKILL);
	reap(tracer);
	EQ(reap(c.pid), 3 << 8);
	let_go(&c);
	close(up[0]);
	close(up[1]);
	close(kq);
}

CHECK(parent_can_be_watched)
{
	int p[2], go[2], watched;
	pid_t middle;
	char c;
	need_pidfd();
	OK(pipe2(p, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0);
	if ((middle = fork()) == 0) {
		pid_t own = getpid();
		if (fork() == 0) {
			struct kevent ev;
			int kq = kqueue(), ok = change(kq, (uintptr_t)own, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL) == 0;
			ok = ok && write(go[1], "", 1) == 1;
			ok = ok && collect(kq, &ev, 1, 10000) == 1 && ev.ident == (uintptr_t)own && ev.data == 4 << 8;
			if (write(p[1], ok ? "y" : "n", 1) != 1)
				_exit(1);
			_exit(0);
		}
		if (read(go[0], &c, 1) != 1)
			_exit(1);
		_exit(4);
	}
	EQ(reap(middle), 4 << 8);
	close(p[1]);
	watched = read(p[0], &c, 1) == 1 && c == 'y';
	OK(watched);
	close(p[0]);
	close(go[0]);
	close(go[1]);
}

CHECK(zombie_is_reported_in_the_call_that_adds_it)
{
	int kq = kqueue();
	struct child c = child();
	struct kevent ch, ev;
	struct timespec zero = {0, 0};
	order(&c, EXIT_3);
	until_zombie(c.pid);
	EV_SET(&ch, c.pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL);
	EQ(kevent(kq, &ch, 1, &ev, 1, &zero), 1);
	EQ(ev.fflags, NOTE_EXIT);
	EQ(ev.data, 3 << 8);
	EQ(ev.flags, EV_CLEAR | EV_ONESHOT | EV_EOF);
	EQ(reap(c.pid), 3 << 8);
	let_go(&c);
	close(kq);
}

CHECK(zombie_without_note_exit_is_esrch)
{
	int kq = kqueue();
	struct child c = child();
	order(&c, EXIT_3);
	until_zombie(c.pid);
	FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ADD, 0, 0, NULL), ESRCH);
	reap(c.pid);
	let_go(&c);
	close(kq);
}

CHECK(numbers_that_name_no_process_are_esrch)
{
	int kq = kqueue();
	struct child c = child();
	uintptr_t none[] = { 0, (uintptr_t)-1, (uintptr_t)INT32_MAX, (uintptr_t)1 << 40, 0x80000000u, (uintptr_t)1 << 32 | (uintptr_t)getpid() };
	unsigned i;
	for (i = 0; i < sizeof none / sizeof *none; i++)
		FAILS(change(kq, none[i], EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL), ESRCH);
	order(&c, EXIT_3);
	reap(c.pid);
	FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL), ESRCH);
	FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
	let_go(&c);
	close(kq);
}

static pid_t thread_number;
static void *tell_number(void *arg)
{
	char c;
	thread_number = (pid_t)syscall(SYS_gettid);
	OK(write(((int *)arg)[1], "", 1) == 1);
	while (read(((int *)arg)[2], &c, 1) < 0)
		;
	return NULL;
}

CHECK(thread_is_no_process)
{
	int pipes[4], kq = kqueue();
	pthread_t t;
	char c;
	need_pidfd();
	OK(pipe2(pipes, O_CLOEXEC) == 0 && pipe2(pipes + 2, O_CLOEXEC) == 0);
	pthread_create(&t, NULL, tell_number, pipes);
	EQ(read(pipes[0], &c, 1), 1);
	FAILS(change(kq, (uintptr_t)thread_number, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL), ESRCH);
	close(pipes[3]);
	pthread_join(t, NULL);
	close(pipes[0]);
	close(pipes[1]);
	close(pipes[2]);
	close(kq);
}

CHECK(exit_not_asked_for_drops_the_knote_silently)
{
	int kq = kqueue();
	struct child c = child();
	WATCH(kq, c.pid, 0);
	order(&c, EXIT_3);
	reap(c.pid);
	NONE(kq);
	FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
	let_go(&c);
	close(kq);
}

/* The first thread is a zombie then, and the process goes on. */
CHECK(exit_not_asked_for_leaves_nothing_to_change)
{
	static const int changes[] = { EV_DELETE, EV_ENABLE, EV_DISABLE, EV_ADD };
	struct child c;
	int kq = kqueue();
	unsigned i;
	for (i = 0; i < sizeof changes / sizeof *changes; i++) {
		c = child();
		WATCH(kq, c.pid, 0);
		order(&c, EXIT_3);
		EQ(reap(c.pid), 0x300);
		FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, changes[i], NOTE_EXIT, 0, NULL),
		    changes[i] == EV_ADD ? ESRCH : ENOENT);
		let_go(&c);
	}
	close(kq);
}

CHECK(first_thread_leaving_is_not_the_end)
{
	int kq = kqueue();
	struct child c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, LEADER_LEAVES);
	command(&c, THREAD);
	NONE(kq);
	order(&c, EXIT_3);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	EQ(reap(c.pid), 3 << 8);
	let_go(&c);
	close(kq);
}

CHECK(exec_by_another_thread_is_not_the_end)
{
	int kq = kqueue();
	struct child c = child();
	char done;
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, THREAD_EXEC);
	/* Its pipes are closed by the exec. */
	EQ(read(c.answers, &done, 1), 0);
	NONE(kq);
	kill(c.pid, SIGTERM);
	EVENT(kq, c.pid, NOTE_EXIT, SIGTERM);
	reap(c.pid);
	let_go(&c);
	close(kq);
}

CHECK(every_kqueue_that_watches_gets_the_exit)
{
	enum { N = 5 };
	int kq[N], i;
	struct child c = child();
	for (i = 0; i < N; i++) {
		kq[i] = kqueue();
		WATCH(kq[i], c.pid, NOTE_EXIT);
	}
	order(&c, EXIT_3);
	reap(c.pid);
	for (i = 0; i < N; i++) {
		EVENT(kq[i], c.pid, NOTE_EXIT, 3 << 8);
		NONE(kq[i]);
		close(kq[i]);
	}
	let_go(&c);
}

CHECK(disabling_hides_the_exit_until_enabled)
{
	int kq = kqueue();
	struct child c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DISABLE, 0, 0, NULL), 0);
	order(&c, EXIT_3);
	reap(c.pid);
	NONE(kq);
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ENABLE, 0, 0, NULL), 0);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	let_go(&c);
	close(kq);
}

CHECK(knote_added_disabled_reports_once_enabled)
{
	int kq = kqueue();
	struct child c = child();
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ADD | EV_DISABLE, NOTE_EXIT, 0, NULL), 0);
	order(&c, EXIT_3);
	reap(c.pid);
	NONE(kq);
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ENABLE, NOTE_EXIT, 0, NULL), 0);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	let_go(&c);
	close(kq);
}

CHECK(deleted_knote_reports_nothing)
{
	int kq = kqueue();
	struct child c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), 0);
	order(&c, EXIT_3);
	reap(c.pid);
	NONE(kq);
	let_go(&c);
	close(kq);
}

CHECK(adding_again_replaces_fflags_and_udata)
{
	int kq = kqueue();
	struct child c = child();
	struct kevent e;
	WATCH(kq, c.pid, 0);
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, (void *)7), 0);
	order(&c, EXIT_3);
	e = ONE(kq);
	EQ(e.data, 3 << 8);
	OK(e.udata == (void *)7);
	reap(c.pid);
	let_go(&c);
	close(kq);
}

CHECK(poll_shows_the_exit)
{
	int kq = kqueue();
	struct child c = child();
	struct pollfd p;
	p.fd = kq;
	p.events = POLLIN;
	WATCH(kq, c.pid, NOTE_EXIT);
	NONE(kq);
	EQ(poll(&p, 1, 0), 0);
	order(&c, EXIT_3);
	EQ(poll(&p, 1, 10000), 1);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	EQ(poll(&p, 1, 0), 0);
	reap(c.pid);
	let_go(&c);
	close(kq);
}

CHECK(dispatch_and_receipt_work_as_everywhere)
{
	int kq = kqueue();
	struct child c = child();
	struct kevent ch, ev;
	EV_SET(&ch, c.pid, EVFILT_PROC, EV_ADD | EV_RECEIPT | EV_DISPATCH, NOTE_EXIT, 0, NULL);
	EQ(kevent(kq, &ch, 1, &ev, 1, NULL), 1);
	OK(ev.flags & EV_ERROR);
	EQ(ev.data, 0);
	order(&c, EXIT_3);
	ev = ONE(kq);
	EQ(ev.flags, EV_CLEAR | EV_DISPATCH | EV_ONESHOT | EV_EOF);
	FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
	reap(c.pid);
	let_go(&c);
	close(kq);
}

CHECK(watch_of_a_process_leaves_no_descriptor_behind)
{
	int kq = kqueue(), before = count_fds(), i;
	for (i = 0; i < 20; i++) {
		struct child c = child();
		WATCH(kq, c.pid, NOTE_EXIT);
		if (i % 2)
			EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), 0);
		order(&c, EXIT_3);
		reap(c.pid);
		if (i % 2 == 0)
			EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
		let_go(&c);
	}
	EQ(count_fds(), before);
	close(kq);
}

CHECK(forked_child_has_no_part_in_the_watch)
{
	int kq = kqueue();
	struct child c = child();
	pid_t other;
	WATCH(kq, c.pid, NOTE_EXIT);
	if ((other = fork()) == 0) {
		struct kevent ev;
		int own = kqueue();
		/* Its own kqueue sees the sibling too, as a stranger. */
		_exit(own < 0 || change(own, (uintptr_t)c.pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL) != 0 ||
		      collect(own, &ev, 1, 10000) != 1 || ev.ident != (uintptr_t)c.pid || ev.data != 3 << 8);
	}
	order(&c, EXIT_3);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	EQ(reap(other), 0);
	reap(c.pid);
	let_go(&c);
	close(kq);
}

CHECKS(
	C(exit_of_a_child_is_an_event_with_its_wait_status)
	C(death_by_signal_shows_in_the_status)
	C(status_says_what_wait_says_of_a_core)
	C(delivered_exit_removes_the_knote_and_comes_once)
	C(child_reaped_before_the_call_is_reported_with_its_status)
	C(wait_before_the_event_and_after_it_finds_the_child)
	C(self_reaping_child_is_reported_with_its_status)
	C(sigchld_handler_and_mask_are_left_alone)
	C(exit_of_a_process_that_is_no_child_has_its_status)
	C(zombie_of_somebody_else_has_its_status)
	C(child_that_another_process_traces_has_its_status)
	C(parent_can_be_watched)
	C(zombie_is_reported_in_the_call_that_adds_it)
	C(zombie_without_note_exit_is_esrch)
	C(numbers_that_name_no_process_are_esrch)
	C(thread_is_no_process)
	C(exit_not_asked_for_drops_the_knote_silently)
	C(exit_not_asked_for_leaves_nothing_to_change)
	C(first_thread_leaving_is_not_the_end)
	C(exec_by_another_thread_is_not_the_end)
	C(every_kqueue_that_watches_gets_the_exit)
	C(disabling_hides_the_exit_until_enabled)
	C(knote_added_disabled_reports_once_enabled)
	C(deleted_knote_reports_nothing)
	C(adding_again_replaces_fflags_and_udata)
	C(poll_shows_the_exit)
	C(dispatch_and_receipt_work_as_everywhere)
	C(watch_of_a_process_leaves_no_descriptor_behind)
	C(forked_child_has_no_part_in_the_watch)
);
