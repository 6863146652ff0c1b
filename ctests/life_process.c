/* Queues across fork, exec and exit; limits; what the library leaves alone. */
#include "harness.h"
#include <spawn.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define USER_ADD(kq, id) EQ(change(kq, id, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL), 0)
#define TRIGGER(kq, id) change(kq, id, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL)

extern char **environ;

/* Calls f for every open descriptor but the one it looks with. */
static void each_fd(void (*f)(int fd))
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	OK(d != NULL);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && atoi(e->d_name) != dirfd(d))
			f(atoi(e->d_name));
	closedir(d);
}

static void is_cloexec(int fd) { if (fd > 2) OK(fcntl(fd, F_GETFD) & FD_CLOEXEC); }
static void make_cloexec(int fd) { if (fd > 2) fcntl(fd, F_SETFD, FD_CLOEXEC); }
static void is_stdio(int fd) { if (fd > 2) FAIL("descriptor %d is open", fd); }

static const char *self_path(void)
{
	static char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	OK(n > 0);
	path[n] = 0;
	return path;
}

/*
 * This program again, running only the part named mode, before main() and so before
 * the first kqueue(). What it writes to 2 becomes the reason of this check.
 */
static void fresh(const char *mode)
{
	const char *path = self_path();
	pid_t pid = fork();
	if (pid == 0) {
		dup2(harness_report, 2);
		setenv("KQ_LIFE", mode, 1);
		execl(path, path, (char *)NULL);
		_exit(127);
	}
	EQ(status_of(pid), 0);
}

static void fresh_stdio_only(void) { each_fd(is_stdio); }

static void fresh_nothing(void)
{
	EQ(count_threads(), 1);
	each_fd(is_stdio);
	libkqueue_drain_pending_close();
	EQ(count_threads(), 1);
	each_fd(is_stdio);
}

/* A queue with every kind of knote; the user event and the WRITE are pending. */
static int everything_on(int p[2])
{
	int kq = kqueue();
	OK(kq >= 0);
	OK(pipe2(p, O_CLOEXEC) == 0);
	USER_ADD(kq, 1);
	EQ(TRIGGER(kq, 1), 0);
	EQ(change(kq, 1, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL), 0);
	EQ(change(kq, 2, EVFILT_TIMER, EV_ADD, NOTE_ABSTIME | NOTE_SECONDS, INT32_MAX, NULL), 0);
	EQ(change(kq, p[0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL), 0);
	EQ(change(kq, p[1], EVFILT_WRITE, EV_ADD, 0, 0, NULL), 0);
	return kq;
}

static void two_events(int kq)
{
	struct kevent ev[4];
	EQ(collect(kq, ev, 4, 10000), 2);
}

static void fresh_exec(void)
{
	int p[2];
	const char *path = self_path();
	everything_on(p);
	setenv("KQ_LIFE", "stdio_only", 1);
	execl(path, path, (char *)NULL);
	_exit(127);
}

static void fresh_spawn(void)
{
	int p[2], kq = everything_on(p);
	char path[4096], *argv[] = { path, NULL };
	pid_t pid;
	snprintf(path, sizeof path, "%s", self_path());
	setenv("KQ_LIFE", "stdio_only", 1);
	EQ(posix_spawn(&pid, path, NULL, NULL, argv, environ), 0);
	EQ(status_of(pid), 0);
	pid = vfork();
	if (pid == 0) {
		execv(path, argv);
		_exit(127);
	}
	EQ(status_of(pid), 0);
	two_events(kq);
}

static void compare_signals(int remember)
{
	static struct sigaction was[65];
	static sigset_t was_mask;
	sigset_t mask;
	int s;
	for (s = 1; s <= 64; s++) {
		struct sigaction now;
		memset(&now, 0, sizeof now);
		if (sigaction(s, NULL, &now) != 0)
			continue;
		if (remember)
			was[s] = now;
		OK(now.sa_handler == was[s].sa_handler);
		EQ(now.sa_flags, was[s].sa_flags);
	}
	OK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
	if (remember)
		was_mask = mask;
	for (s = 1; s <= 64; s++)
		EQ(sigismember(&mask, s), sigismember(&was_mask, s));
}

static void fresh_signals(void)
{
	int p[2], kq;
	sigset_t some;
	sigemptyset(&some);
	sigaddset(&some, SIGUSR1);
	sigaddset(&some, SIGRTMIN + 3);
	OK(pthread_sigmask(SIG_BLOCK, &some, NULL) == 0);
	compare_signals(1);
	kq = everything_on(p);
	compare_signals(0);
	two_events(kq);
	close(kq);
	libkqueue_drain_pending_close();
	compare_signals(0);
}

/*
 * kqueue() with 0, 1, 2 ... free descriptors: EMFILE and nothing left behind; then it
 * works.
 */
static void kqueue_with_little_room(void)
{
	struct rlimit lim = { 64, 64 };
	int held[64], n, room, before = count_fds(), kq = -1, failed = 0;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	for (room = 0; kq < 0; room++) {
		int keep;
		OK(room < 30);
		for (n = 0; n < 64 && (held[n] = fcntl(0, F_DUPFD_CLOEXEC, 0)) >= 0; n++)
			;
		for (keep = n - room; n > keep; n--)
			close(held[n - 1]);
		errno = 0;
		kq = kqueue();
		if (kq < 0) {
			EQ(errno, EMFILE);
			failed++;
		}
		while (n > 0)
			close(held[--n]);
		if (kq < 0)
			EQ(count_fds(), before);
	}
	OK(failed > 0);
	USER_ADD(kq, 1);
	EQ(TRIGGER(kq, 1), 0);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

static void fresh_emfile(void) { kqueue_with_little_room(); }

static const struct { const char *name; void (*run)(void); } modes[] = {
	{ "stdio_only", fresh_stdio_only }, { "nothing", fresh_nothing }, { "exec", fresh_exec },
	{ "spawn", fresh_spawn }, { "signals", fresh_signals }, { "emfile", fresh_emfile } };

__attribute__((constructor))
static void fresh_start(void)
{
	const char *mode = getenv("KQ_LIFE");
	size_t i;
	if (!mode)
		return;
	alarm(HARNESS_TIMEOUT);
	for (i = 0; i < sizeof modes / sizeof *modes; i++)
		if (strcmp(mode, modes[i].name) == 0) {
			modes[i].run();
			_exit(0);
		}
	_exit(2);
}

/* Inherited descriptors are none of the library's: keep them out of the picture. */
static void fresh_alone(const char *mode)
{
	each_fd(make_cloexec);
	fresh(mode);
}

CHECK(nothing_happens_before_the_first_kqueue) { fresh_alone("nothing"); }
CHECK(exec_leaves_no_descriptor_of_ours) { fresh_alone("exec"); }
CHECK(spawn_and_vfork_leave_no_descriptor_of_ours) { fresh_alone("spawn"); }
CHECK(signal_mask_and_dispositions_stay_as_they_were) { fresh_alone("signals"); }
CHECK(the_very_first_kqueue_may_fail_with_EMFILE) { fresh_alone("emfile"); }

CHECK(every_descriptor_is_closed_by_exec)
{
	int p[2], kq;
	each_fd(make_cloexec);
	kq = everything_on(p);
	each_fd(is_cloexec);
	close(kq);
	close(p[0]);
	close(p[1]);
}

CHECK(threads_of_the_library_block_every_signal)
{
	int kq = kqueue(), seen = 0;
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	/* SIGKILL, SIGSTOP and the two libc keeps for itself cannot be blocked. */
	unsigned long long never = 1ULL << 8 | 1ULL << 18 | 1ULL << 31 | 1ULL << 32;
	while ((e = readdir(d))) {
		char path[300], line[200];
		FILE *f;
		if (e->d_name[0] == '.' || atoi(e->d_name) == getpid())
			continue;
		snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
		f = fopen(path, "re");
		while (f && fgets(line, sizeof line, f))
			if (strncmp(line, "SigBlk:", 7) == 0) {
				OK((strtoull(line + 7, NULL, 16) | never) == ~0ULL);
				seen++;
			}
		if (f)
			fclose(f);
	}
	closedir(d);
	OK(seen == count_threads() - 1);
	close(kq);
}

CHECK(with_0_1_2_closed_only_the_queue_takes_a_low_number)
{
	int saved[3], kq, i, p[2], got = 0;
	struct kevent ev[4];
	OK(pipe2(p, O_CLOEXEC) == 0);
	for (i = 0; i < 3; i++)
		OK((saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 20)) >= 0);
	for (i = 0; i < 3; i++)
		close(i);
	kq = kqueue();
	EQ(kq, 0);
	USER_ADD(kq, 1);
	EQ(TRIGGER(kq, 1), 0);
	EQ(change(kq, 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 0, NULL), 0);
	EQ(change(kq, 2, EVFILT_TIMER, EV_ADD, NOTE_ABSTIME | NOTE_SECONDS, INT32_MAX, NULL), 0);
	EQ(change(kq, p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
	EQ(change(kq, p[0], EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, NULL), 0);
	while (got < 2) {
		int n = collect(kq, ev, 4, 10000);
		OK(n > 0);
		got += n;
	}
	FAILS(fcntl(1, F_GETFD), EBADF);
	FAILS(fcntl(2, F_GETFD), EBADF);
	close(kq);
	for (i = 0; i < 3; i++) {
		OK(dup2(saved[i], i) == i);
		close(saved[i]);
	}
	close(p[0]);
	close(p[1]);
}

CHECK(without_free_descriptors_kqueue_is_EMFILE_and_leaks_nothing) { kqueue_with_little_room(); }

CHECK(a_queue_works_on_when_the_limit_falls_below_its_numbers)
{
	struct rlimit lim;
	rlim_t limit;
	struct kevent ev[4];
	int p[2], kq = kqueue();
	OK(pipe2(p, O_CLOEXEC) == 0);
	USER_ADD(kq, 1);
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	limit = lim.rlim_cur;
	lim.rlim_cur = 3;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	EQ(TRIGGER(kq, 1), 0);
	EQ(ONE(kq).ident, 1);
	EQ(change(kq, p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
	EQ(write(p[1], "x", 1), 1);
	EQ(collect(kq, ev, 4, 10000), 1);
	EQ(ev[0].data, 1);
	FAILS(kqueue(), EMFILE);
	close(kq);
	FAILS(collect(kq, ev, 4, 0), EBADF);
	lim.rlim_cur = limit;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	close(p[0]);
	close(p[1]);
}

/* Runs f in a forked child; its exit status must be 0. */
static void in_child(void (*f)(int), int kq)
{
	pid_t pid = fork();
	if (pid == 0) {
		alarm(HARNESS_TIMEOUT);
		f(kq);
		_exit(0);
	}
	EQ(status_of(pid), 0);
}

static void child_has_no_queue(int kq)
{
	struct kevent ev[1];
	FAILS(fcntl(kq, F_GETFD), EBADF);
	FAILS(collect(kq, ev, 1, 0), EBADF);
	FAILS(TRIGGER(kq, 1), EBADF);
	FAILS(close(kq), EBADF);
}

static void child_uses_its_own(int parents)
{
	int round;
	(void)parents;
	for (round = 0; round < 3; round++) {
		int kq = kqueue(), p[2];
		OK(kq >= 0);
		OK(pipe2(p, O_CLOEXEC) == 0);
		EQ(change(kq, p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
		EQ(write(p[1], "x", 1), 1);
		EQ(ONE(kq).data, 1);
		EQ(change(kq, p[0], EVFILT_READ, EV_DELETE, 0, 0, NULL), 0);
		EQ(change(kq, 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1, NULL), 0);
		EQ(ONE(kq).ident, 1);
		close(kq);
		libkqueue_drain_pending_close();
		close(p[0]);
		close(p[1]);
	}
}

static void child_forks_again(int kq)
{
	int own = kqueue();
	child_uses_its_own(kq);
	USER_ADD(own, 1);
	in_child(child_has_no_queue, own);
	in_child(child_uses_its_own, own);
	EQ(TRIGGER(own, 1), 0);
	EQ(ONE(own).ident, 1);
}

CHECK(a_forked_child_has_no_queue)
{
	int p[2], kq = everything_on(p);
	in_child(child_has_no_queue, kq);
	close(kq);
	close(p[0]);
	close(p[1]);
}

CHECK(a_forked_child_makes_queues_of_its_own) { int kq = kqueue(); in_child(child_uses_its_own, kq); close(kq); }

CHECK(a_forked_child_may_fork_again) { int kq = kqueue(); in_child(child_forks_again, kq); close(kq); }

CHECK(a_child_that_never_used_a_queue_may_fork_and_exit)
{
	int kq = kqueue(), i;
	USER_ADD(kq, 1);
	for (i = 0; i < 20; i++) {
		pid_t pid = fork();
		if (pid == 0)
			exit(0);
		EQ(status_of(pid), 0);
	}
	EQ(TRIGGER(kq, 1), 0);
	EQ(ONE(kq).ident, 1);
	close(kq);
}

static void *sleeps_until_closed(void *arg)
{
	struct kevent ev[1];
	FAILS(kevent(*(int *)arg, NULL, 0, ev, 1, NULL), EBADF);
	return NULL;
}

static void *sleeps_until_triggered(void *arg)
{
	EQ(ONE(*(int *)arg).ident, 1);
	return NULL;
}

CHECK(fork_leaves_the_parents_queue_and_sleepers_alone)
{
	int p[2], kq = everything_on(p), other = kqueue(), i;
	pthread_t t;
	USER_ADD(other, 1);
	OK(pthread_create(&t, NULL, sleeps_until_triggered, &other) == 0);
	for (i = 0; i < 10; i++)
		in_child(child_uses_its_own, kq);
	two_events(kq);
	EQ(write(p[1], "x", 1), 1);
	two_events(kq);
	EQ(TRIGGER(other, 1), 0);
	pthread_join(t, NULL);
	close(kq);
	close(other);
	close(p[0]);
	close(p[1]);
}

/* A child process that lives until its standard input ends. */
static pid_t lingering(int spawn, int *hold)
{
	int p[2];
	pid_t pid = -1;
	OK(pipe2(p, O_CLOEXEC) == 0);
	if (spawn) {
		char *argv[] = { "cat", NULL };
		posix_spawn_file_actions_t fa;
		posix_spawn_file_actions_init(&fa);
		posix_spawn_file_actions_adddup2(&fa, p[0], 0);
		EQ(posix_spawnp(&pid, "cat", &fa, NULL, argv, environ), 0);
		posix_spawn_file_actions_destroy(&fa);
	} else if ((pid = fork()) == 0) {
		char c;
		close(p[1]);
		_exit(read(p[0], &c, 1) != 0);
	}
	close(p[0]);
	*hold = p[1];
	return pid;
}

static void close_is_heard_beside(int spawn)
{
	int kq = kqueue(), hold, before;
	pthread_t t;
	pid_t pid;
	OK(pthread_create(&t, NULL, sleeps_until_closed, &kq) == 0);
	pid = lingering(spawn, &hold);
	before = count_fds();
	close(kq);
	pthread_join(t, NULL);
	UNTIL(count_fds() < before - 1);
	close(hold);
	EQ(status_of(pid), 0);
}

CHECK(close_in_the_parent_is_heard_while_a_forked_child_lives) { close_is_heard_beside(0); }
CHECK(close_in_the_parent_is_heard_while_a_spawned_program_runs) { close_is_heard_beside(1); }

static int stop;

static void *busy(void *arg)
{
	struct kevent ev[1];
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		int kq = kqueue();
		OK(kq >= 0);
		USER_ADD(kq, 1);
		EQ(TRIGGER(kq, 1), 0);
		EQ(collect(kq, ev, 1, 1000), 1);
		close(kq);
	}
	return NULL;
}

CHECK(fork_among_busy_threads_does_not_hang)
{
	pthread_t t[2];
	int i;
	for (i = 0; i < 2; i++)
		OK(pthread_create(&t[i], NULL, busy, NULL) == 0);
	for (i = 0; i < 50; i++)
		in_child(child_uses_its_own, -1);
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static void exit_with_sleepers(int kq)
{
	pthread_t t[3];
	int i, own = kqueue();
	(void)kq;
	for (i = 0; i < 3; i++)
		OK(pthread_create(&t[i], NULL, sleeps_until_closed, &own) == 0);
	exit(0);
}

static void exit_after_close(int kq)
{
	(void)kq;
	close(kqueue());
	exit(0);
}

CHECK(exit_with_sleepers_ends_the_process) { int i; for (i = 0; i < 10; i++) in_child(exit_with_sleepers, -1); }
CHECK(exit_right_after_close_ends_the_process) { int i; for (i = 0; i < 20; i++) in_child(exit_after_close, -1); }

CHECKS(
	C(nothing_happens_before_the_first_kqueue)
	C(exec_leaves_no_descriptor_of_ours)
	C(spawn_and_vfork_leave_no_descriptor_of_ours)
	C(signal_mask_and_dispositions_stay_as_they_were)
	C(the_very_first_kqueue_may_fail_with_EMFILE)
	C(every_descriptor_is_closed_by_exec)
	C(threads_of_the_library_block_every_signal)
	C(with_0_1_2_closed_only_the_queue_takes_a_low_number)
	C(without_free_descriptors_kqueue_is_EMFILE_and_leaks_nothing)
	C(a_queue_works_on_when_the_limit_falls_below_its_numbers)
	C(a_forked_child_has_no_queue)
	C(a_forked_child_makes_queues_of_its_own)
	C(a_forked_child_may_fork_again)
	C(a_child_that_never_used_a_queue_may_fork_and_exit)
	C(fork_leaves_the_parents_queue_and_sleepers_alone)
	C(close_in_the_parent_is_heard_while_a_forked_child_lives)
	C(close_in_the_parent_is_heard_while_a_spawned_program_runs)
	C(fork_among_busy_threads_does_not_hang)
	C(exit_with_sleepers_ends_the_process)
	C(exit_right_after_close_ends_the_process)
);
