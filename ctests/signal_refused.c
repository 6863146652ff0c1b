/*
 * EVFILT_SIGNAL where the kernel lets nobody queue a signal, as a sandbox forbids it, an older
 * kernel knows no call, or the limit is reached: none is lost, and each is counted once.
 */
#include "signal_util.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* From here on this call fails, in this thread and those it starts. */
static void refuse(long call, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
		SKIP("no seccomp filter here: %s", strerror(errno));
}

static void refuse_to_queue(int error)
{
	refuse(SYS_pidfd_send_signal, error);
	refuse(SYS_rt_sigqueueinfo, error);
	refuse(SYS_rt_tgsigqueueinfo, error);
}

static const int errors[] = { ENOSYS, EPERM };
enum { ERRORS = sizeof errors / sizeof *errors };

/* Runs f in a child for each error, for nobody takes a filter off. */
static void with_each_error(void (*f)(int error))
{
	int i, status;
	for (i = 0; i < ERRORS; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			alarm(50);
			f(errors[i]);
			_exit(0);
		}
		EQ(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			_exit(77);
		EQ(status, 0);
	}
}

static void block_and_unblock(int error)
{
	int kq, i;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	refuse_to_queue(error);
	for (i = 1; i <= 3; i++) {
		OK((i % 2 ? kill(getpid(), SIGUSR1) : raise(SIGUSR1)) == 0);
		SENT(kq, SIGUSR1, 1);
		NONE(kq);
		NONE(kq);
		EQ(is_pending(SIGUSR1), 1);
		mask_signal(SIG_UNBLOCK, SIGUSR1);
		EQ(runs, i);
		NONE(kq);
		mask_signal(SIG_BLOCK, SIGUSR1);
	}
	mask_signal(SIG_UNBLOCK, SIGUSR1);
	OK(kill(getpid(), SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

CHECK(a_blocked_signal_is_counted_once_and_stays_pending)
{
	with_each_error(block_and_unblock);
}

static void take_it(int error)
{
	siginfo_t info;
	int kq, i;
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	refuse_to_queue(error);
	for (i = 0; i < 4; i++) {
		OK((i % 2 ? raise(SIGUSR1) : kill(getpid(), SIGUSR1)) == 0);
		SENT(kq, SIGUSR1, 1);
		EQ(take(SIGUSR1, &info), SIGUSR1);
		EQ(info.si_code, SI_USER);
		EQ(info.si_pid, getpid());
		EQ(is_pending(SIGUSR1), 0);
		NONE(kq);
	}
	OK(close(kq) == 0);
}

CHECK(who_takes_it_gets_it_and_the_next_counts_again)
{
	with_each_error(take_it);
}

static void poll_for_it(int error)
{
	struct pollfd p;
	int kq, i;
	handle(SIGUSR1);
	mask_signal(SIG_BLOCK, SIGUSR1);
	kq = watching(SIGUSR1);
	/* The library's own thread as well. */
	refuse_to_queue(error);
	p.fd = kq;
	p.events = POLLIN;
	for (i = 1; i <= 3; i++) {
		NONE(kq);
		EQ(poll(&p, 1, 0), 0);
		OK(kill(getpid(), SIGUSR1) == 0);
		EQ(poll(&p, 1, 10000), 1);
		SENT(kq, SIGUSR1, 1);
		NONE(kq);
		mask_signal(SIG_UNBLOCK, SIGUSR1);
		EQ(runs, i);
		mask_signal(SIG_BLOCK, SIGUSR1);
	}
	OK(close(kq) == 0);
}

CHECK(poll_sees_it)
{
	with_each_error(poll_for_it);
}

/* A thread that blocks n from its start and collects it from kq once. */
struct other { int kq, n; struct kevent ev; pthread_t thread; };

static void *collect_once(void *arg)
{
	struct other *o = arg;
	EQ(collect(o->kq, &o->ev, 1, 10000), 1);
	return NULL;
}

/* Not the first thread: it may not tell every origin by rt_sigqueueinfo(). */
static void counted_by_another_thread(int n, int error)
{
	struct other o = { 0, n, {0}, 0 };
	mask_signal(SIG_BLOCK, n);
	o.kq = watching(n);
	refuse(SYS_pidfd_send_signal, error);
	OK(kill(getpid(), n) == 0);
	OK(pthread_create(&o.thread, NULL, collect_once, &o) == 0);
	OK(pthread_join(o.thread, NULL) == 0);
	EQ(o.ev.ident, n);
	EQ(o.ev.data, 1);
	/* It ended, and its own signals would have ended with it. */
	EQ(take(n, NULL), n);
	NONE(o.kq);
	OK(kill(getpid(), n) == 0);
	SENT(o.kq, n, 1);
	EQ(take(n, NULL), n);
	OK(close(o.kq) == 0);
}

static void a_standard_signal(int error)
{
	counted_by_another_thread(SIGUSR1, error);
}

CHECK(without_pidfd_send_signal_it_goes_back_to_the_process)
{
	with_each_error(a_standard_signal);
}

static void queue_no_more(void)
{
	struct rlimit none = { 0, 0 };
	OK(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
}

static void a_realtime_signal_at_the_limit(int error)
{
	queue_no_more();
	counted_by_another_thread(SIGRTMIN, error);
}

CHECK(at_the_limit_of_queued_signals_too)
{
	with_each_error(a_realtime_signal_at_the_limit);
}

/* The kernel has the signal pending then, and forgets whatever was told with it. */
CHECK(at_the_limit_it_is_counted_once)
{
	const int all[] = { SIGUSR1, SIGRTMIN };
	int i, j, kq;
	queue_no_more();
	for (i = 0; i < 2; i++) {
		int n = all[i];
		handle(n);
		mask_signal(SIG_BLOCK, n);
		kq = watching(n);
		for (j = 1; j <= 3; j++) {
			OK(kill(getpid(), n) == 0);
			SENT(kq, n, 1);
			NONE(kq);
			NONE(kq);
			EQ(is_pending(n), 1);
			mask_signal(SIG_UNBLOCK, n);
			EQ(runs, i * 3 + j);
			NONE(kq);
			mask_signal(SIG_BLOCK, n);
		}
		OK(close(kq) == 0);
	}
}

CHECKS(
	C(a_blocked_signal_is_counted_once_and_stays_pending)
	C(who_takes_it_gets_it_and_the_next_counts_again)
	C(poll_sees_it)
	C(without_pidfd_send_signal_it_goes_back_to_the_process)
	C(at_the_limit_of_queued_signals_too)
	C(at_the_limit_it_is_counted_once)
);
