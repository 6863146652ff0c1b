/* EVFILT_PROC under strain: many processes, few descriptors, numbers used again, threads. */
#include "proc_util.h"
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

enum { MANY = 2000, FEW = 64, STORM = 400, THREADS = 8, SHARED = 300 };

static pid_t pids[MANY];
static unsigned char told[MANY];

/* Children that end when the pipe is closed, each with a status of its own. */
static void many_children(int n, int p[2])
{
	int i;
	char c;
	need_pidfd();
	OK(pipe2(p, O_CLOEXEC) == 0);
	for (i = 0; i < n; i++) {
		if ((pids[i] = fork()) == 0) {
			close(p[1]);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (read(p[0], &c, 1) < 0)
				;
			_exit(i % 250);
		}
		OK(pids[i] > 0);
	}
}

static int index_of(pid_t pid, int n)
{
	int i;
	for (i = 0; i < n; i++)
		if (pids[i] == pid)
			return i;
	FAIL("nobody has the number %d", pid);
}

static void few_descriptors(void)
{
	struct rlimit r;
	r.rlim_cur = r.rlim_max = FEW;
	EQ(setrlimit(RLIMIT_NOFILE, &r), 0);
}

static void collect_exits(int kq, int n)
{
	struct kevent ev[100];
	int got, seen = 0, i;
	while (seen < n) {
		got = collect(kq, ev, 100, 20000);
		if (got <= 0)
			FAIL("%d of %d exits came (errno %d)", seen, n, errno);
		for (i = 0; i < got; i++) {
			int which = index_of((pid_t)ev[i].ident, n);
			EQ(ev[i].fflags, NOTE_EXIT);
			EQ(ev[i].data, which % 250 << 8);
			EQ(told[which]++, 0);
			seen++;
		}
	}
	NONE(kq);
}

CHECK(more_children_than_descriptors_can_be_watched)
{
	int kq, p[2], i, spare;
	few_descriptors();
	kq = kqueue();
	need_connector(kq);
	many_children(MANY, p);
	for (i = 0; i < MANY; i++)
		WATCH(kq, pids[i], NOTE_EXIT);
	/* And the program still has some. */
	OK((spare = dup(p[0])) >= 0);
	close(spare);
	close(p[0]);
	close(p[1]);
	collect_exits(kq, MANY);
	for (i = 0; i < MANY; i++)
		EQ(reap(pids[i]), i % 250 << 8);
	close(kq);
}

CHECK(more_children_than_descriptors_reaped_before_the_call)
{
	int kq, p[2], i;
	few_descriptors();
	kq = kqueue();
	need_connector(kq);
	many_children(200, p);
	for (i = 0; i < 200; i++)
		WATCH(kq, pids[i], NOTE_EXIT);
	close(p[0]);
	close(p[1]);
	for (i = 0; i < 200; i++)
		EQ(reap(pids[i]), i % 250 << 8);
	collect_exits(kq, 200);
	close(kq);
}

static void *leave(void *arg) { return arg; }

/* Runs a thread to its end for each letter. */
static void run_threads(int orders, int answers)
{
	pthread_t t;
	char c;
	while (read(orders, &c, 1) == 1) {
		pthread_create(&t, NULL, leave, NULL);
		pthread_join(t, NULL);
		if (write(answers, &c, 1) != 1)
			break;
	}
	_exit(0);
}

/* Opens descriptors until there are no more; how many there are then. */
static int fill(int *fds, int n, int most)
{
	while (n < most && (fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		n++;
	return n;
}

CHECK(process_that_is_no_child_lives_on_though_no_descriptor_is_left_to_look_with)
{
	static int fds[2000];
	struct rlimit lim = {400, 400};
	int answers[2], orders[2], n = 0, kq = kqueue();
	pid_t middle, pid = 0;
	char c = 0;
	need_connector(kq);
	OK(pipe2(answers, O_CLOEXEC) == 0 && pipe2(orders, O_CLOEXEC) == 0);
	if ((middle = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if ((pid = fork()) == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			run_threads(orders[0], answers[1]);
		}
		if (write(answers[1], &pid, sizeof pid) != sizeof pid)
			_exit(1);
		for (;;)
			pause();
	}
	EQ(read(answers[0], &pid, sizeof pid), sizeof pid);
	WATCH(kq, pid, NOTE_EXIT);
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	n = fill(fds, n, 2000);
	/* This takes the other's pidfd for the connector. */
	WATCH(kq, middle, NOTE_EXIT);
	NONE(kq);
	n = fill(fds, n, 2000);
	EQ(write(orders[1], "t", 1), 1);
	EQ(read(answers[0], &c, 1), 1);
	NONE(kq);
	while (n > 0)
		close(fds[--n]);
	kill(pid, SIGTERM);
	EVENT(kq, pid, NOTE_EXIT, SIGTERM);
	kill(middle, SIGKILL);
	reap(middle);
	close(kq);
	close(answers[0]);
	close(answers[1]);
	close(orders[0]);
	close(orders[1]);
}

/* A crowded kqueue learns of a zombie, and a thread's end is not the process'. */
CHECK(crowded_kqueue_keeps_the_rules)
{
	int kq, p[2], i, n = 100;
	struct child c, z;
	few_descriptors();
	kq = kqueue();
	need_connector(kq);
	c = child();
	z = child();
	many_children(n, p);
	for (i = 0; i < n; i++)
		WATCH(kq, pids[i], NOTE_EXIT);
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&z, EXIT_3);
	until_zombie(z.pid);
	WATCH(kq, z.pid, NOTE_EXIT);
	EVENT(kq, z.pid, NOTE_EXIT, 3 << 8);
	reap(z.pid);
	FAILS(change(kq, (uintptr_t)z.pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL), ESRCH);
	order(&c, LEADER_LEAVES);
	command(&c, THREAD);
	NONE(kq);
	order(&c, KILL_SELF);
	EVENT(kq, c.pid, NOTE_EXIT, SIGKILL);
	reap(c.pid);
	close(p[0]);
	close(p[1]);
	collect_exits(kq, n);
	for (i = 0; i < n; i++)
		reap(pids[i]);
	let_go(&c);
	let_go(&z);
	close(kq);
}

CHECK(storm_of_tracked_children_is_told_in_full)
{
	int kq = kqueue(), p[2], born = 0, ended = 0, forked = 0, over = 0, i, n;
	static struct { pid_t pid; int born, ended; } of[STORM];
	struct kevent ev[64];
	pid_t pid;
	need_connector(kq);
	OK(pipe2(p, O_CLOEXEC) == 0);
	if ((pid = fork()) == 0) {
		char go;
		if (read(p[0], &go, 1) != 1)
			_exit(1);
		for (i = 0; i < STORM; i++) {
			if (fork() == 0)
				_exit(i % 200);
			if (i % 16 == 15)
				while (waitpid(-1, NULL, 0) > 0)
					;
		}
		_exit(99);
	}
	WATCH(kq, pid, NOTE_TRACK | NOTE_FORK | NOTE_EXIT);
	EQ(write(p[1], "g", 1), 1);
	while (!over || ended < STORM) {
		n = collect(kq, ev, 64, 20000);
		if (n <= 0)
			FAIL("%d born, %d ended", born, ended);
		for (i = 0; i < n; i++) {
			OK(!(ev[i].fflags & NOTE_TRACKERR));
			if (ev[i].ident == (uintptr_t)pid) {
				forked += (ev[i].fflags & NOTE_FORK) != 0;
				over += (ev[i].fflags & NOTE_EXIT) != 0;
			} else if (ev[i].fflags & NOTE_CHILD) {
				EQ(ev[i].data, pid);
				EQ(ev[i].fflags, NOTE_CHILD);
				OK(born < STORM);
				of[born].pid = (pid_t)ev[i].ident;
				of[born++].born = 1;
			} else {
				int k;
				EQ(ev[i].fflags, NOTE_EXIT);
				for (k = 0; k < born && !(of[k].pid == (pid_t)ev[i].ident && !of[k].ended); k++)
					;
				OK(k < born);
				of[k].ended = 1;
				EQ(ev[i].data, k % 200 << 8);
				ended++;
			}
		}
	}
	EQ(over, 1);
	EQ(born, STORM);
	EQ(ended, STORM);
	OK(forked >= 1);
	NONE(kq);
	reap(pid);
	close(p[0]);
	close(p[1]);
	close(kq);
}

static int shared;
static int count[SHARED];
static int stop_at;

static void *collector(void *arg)
{
	struct kevent ev[3];
	(void)arg;
	while (__atomic_load_n(&stop_at, __ATOMIC_SEQ_CST) < SHARED) {
		int n = collect(shared, ev, 3, 50), i;
		OK(n >= 0);
		for (i = 0; i < n; i++) {
			__atomic_fetch_add(&count[index_of((pid_t)ev[i].ident, SHARED)], 1, __ATOMIC_SEQ_CST);
			__atomic_fetch_add(&stop_at, 1, __ATOMIC_SEQ_CST);
		}
	}
	return NULL;
}

CHECK(threads_that_share_a_kqueue_see_each_exit_once)
{
	pthread_t t[THREADS];
	int p[2], i;
	shared = kqueue();
	many_children(SHARED, p);
	for (i = 0; i < SHARED; i++)
		WATCH(shared, pids[i], NOTE_EXIT);
	for (i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, collector, NULL);
	close(p[0]);
	close(p[1]);
	for (i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < SHARED; i++)
		EQ(count[i], 1);
	for (i = 0; i < SHARED; i++)
		reap(pids[i]);
	close(shared);
}

/* Each thread has a kqueue of its own, and all follow the same process. */
static pid_t forker;
static int ready_;
static void *follower(void *arg)
{
	struct kevent ev[16];
	int kq = kqueue(), born = 0, ended = 0, over = 0;
	(void)arg;
	WATCH(kq, forker, NOTE_TRACK | NOTE_EXIT);
	__atomic_fetch_add(&ready_, 1, __ATOMIC_SEQ_CST);
	while (!over || ended < 100) {
		int n = collect(kq, ev, 16, 20000), i;
		if (n <= 0)
			FAIL("%d born, %d ended, over %d", born, ended, over);
		for (i = 0; i < n; i++) {
			OK(!(ev[i].fflags & NOTE_TRACKERR));
			born += ev[i].fflags == NOTE_CHILD;
			over += ev[i].ident == (uintptr_t)forker;
			ended += ev[i].ident != (uintptr_t)forker && ev[i].fflags == NOTE_EXIT;
		}
	}
	EQ(born, 100);
	EQ(ended, 100);
	EQ(over, 1);
	close(kq);
	return NULL;
}

CHECK(kqueues_of_several_threads_each_get_everything)
{
	pthread_t t[THREADS];
	int p[2], i, probe = kqueue();
	need_connector(probe);
	OK(pipe2(p, O_CLOEXEC) == 0);
	if ((forker = fork()) == 0) {
		char go;
		if (read(p[0], &go, 1) != 1)
			_exit(1);
		for (i = 0; i < 100; i++) {
			if (fork() == 0)
				_exit(0);
			waitpid(-1, NULL, 0);
		}
		_exit(0);
	}
	for (i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, follower, NULL);
	UNTIL(__atomic_load_n(&ready_, __ATOMIC_SEQ_CST) == THREADS);
	EQ(write(p[1], "g", 1), 1);
	for (i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	reap(forker);
	close(p[0]);
	close(p[1]);
	close(probe);
}

/* A child under a number of our choice; its status. -1: not allowed. */
static pid_t fork_as(pid_t pid, int status)
{
	struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } args;
	long r;
	memset(&args, 0, sizeof args);
	args.exit_signal = SIGCHLD;
	args.set_tid = (uint64_t)(uintptr_t)&pid;
	args.set_tid_size = 1;
	r = syscall(435 /* clone3 */, &args, sizeof args);
	if (r == 0)
		syscall(SYS_exit_group, status);
	return (pid_t)r;
}

CHECK(reused_number_tells_of_the_first_process_and_then_of_the_next)
{
	int kq = kqueue();
	struct child c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, EXIT_3);
	reap(c.pid);
	if (fork_as(c.pid, 8) < 0)
		SKIP("no choice of process numbers here (clone3's set_tid, errno %d)", errno);
	/* The knote is the first one's still, and ends with it. */
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	NONE(kq);
	WATCH(kq, c.pid, NOTE_EXIT);
	EVENT(kq, c.pid, NOTE_EXIT, 8 << 8);
	EQ(reap(c.pid), 8 << 8);
	let_go(&c);
	close(kq);
}

CHECK(tracked_children_of_one_number_have_two_events_each)
{
	int kq = kqueue(), p[2], i;
	struct kevent ev[8];
	pid_t pid, first = 0;
	need_connector(kq);
	OK(pipe2(p, O_CLOEXEC) == 0);
	if ((pid = fork()) == 0) {
		char go;
		pid_t again;
		if (read(p[0], &go, 1) != 1)
			_exit(1);
		if ((first = fork()) == 0)
			_exit(5);
		waitpid(first, NULL, 0);
		again = fork_as(first, 6);
		if (again > 0)
			waitpid(again, NULL, 0);
		_exit(again < 0);
	}
	WATCH(kq, pid, NOTE_TRACK | NOTE_EXIT);
	EQ(write(p[1], "g", 1), 1);
	if (reap(pid) != 0)
		SKIP("no choice of process numbers here (clone3's set_tid)");
	for (i = 0; i < 5; ) {
		int n = collect(kq, ev + i, 8 - i, 10000);
		OK(n > 0);
		i += n;
	}
	EQ(i, 5);
	NONE(kq);
	{
		int born = 0, codes = 0;
		for (i = 0; i < 5; i++) {
			if (ev[i].ident == (uintptr_t)pid)
				continue;
			if (!first)
				first = (pid_t)ev[i].ident;
			EQ(ev[i].ident, first);
			born += ev[i].fflags == NOTE_CHILD;
			codes += ev[i].fflags == NOTE_EXIT ? (int)ev[i].data >> 8 : 0;
		}
		EQ(born, 2);
		EQ(codes, 11);
	}
	close(p[0]);
	close(p[1]);
	close(kq);
}

/* An orphan in epoll makes the library build a fresh one; the watches must go along. */
CHECK(watches_survive_an_epoll_built_anew)
{
	int kq = kqueue(), p[2], copy;
	struct child c = child(), d = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	WATCH(kq, d.pid, NOTE_EXIT);
	OK(pipe2(p, O_CLOEXEC) == 0);
	EQ(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
	OK((copy = fcntl(p[0], F_DUPFD_CLOEXEC, 100)) >= 0);
	close(p[0]);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	EQ(write(p[1], "x", 1), 1);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	NONE(kq);
	EQ(write(p[1], "x", 1), 1);
	NONE(kq);
	order(&d, KILL_SELF);
	EVENT(kq, d.pid, NOTE_EXIT, SIGKILL);
	NONE(kq);
	reap(c.pid);
	reap(d.pid);
	let_go(&c);
	let_go(&d);
	close(copy);
	close(p[1]);
	close(kq);
}

static _Atomic int looked_enough;

static void *look_at(void *arg)
{
	struct kevent ev;
	while (!looked_enough)
		if (collect(*(int *)arg, &ev, 1, 0) < 0)
			break;
	return NULL;
}

CHECK(fork_before_the_call_is_seen_though_another_thread_reads_the_connector)
{
	int kq = kqueue(), other = kqueue(), i;
	struct kevent ev;
	pthread_t t;
	need_connector(kq);
	WATCH(kq, getpid(), NOTE_FORK);
	WATCH(other, getpid(), NOTE_FORK);
	OK(pthread_create(&t, NULL, look_at, &other) == 0);
	for (i = 0; i < 300; i++) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(0);
		EQ(collect(kq, &ev, 1, 0), 1);
		EQ(ev.fflags, NOTE_FORK);
		reap(pid);
	}
	looked_enough = 1;
	pthread_join(t, NULL);
	close(kq);
	close(other);
}

CHECK(kqueues_come_and_go_while_processes_are_followed)
{
	struct child c = child();
	int kq = kqueue(), i;
	need_connector(kq);
	WATCH(kq, c.pid, NOTE_FORK | NOTE_EXIT);
	for (i = 0; i < 50; i++) {
		int other = kqueue();
		WATCH(other, c.pid, NOTE_FORK | NOTE_TRACK);
		command(&c, FORK);
		close(other);
		EVENT(kq, c.pid, NOTE_FORK, 0);
	}
	order(&c, EXIT_3);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	reap(c.pid);
	let_go(&c);
	close(kq);
}

/* A thread that is joined before the kernel has closed all that it alone had open. */
static void *leave_slowly(void *arg)
{
	int i;
	OK(unshare(CLONE_FILES) == 0);
	for (i = 0; i < 500 && eventfd(0, EFD_CLOEXEC) >= 0; i++)
		;
	return arg;
}

CHECK(tracked_process_that_ends_before_its_threads_are_gone_has_its_own_status)
{
	enum { TIMES = 60 };
	int kq = kqueue(), i;
	struct kevent ev;
	pthread_t t;
	pid_t pid;
	need_connector(kq);
	WATCH(kq, getpid(), NOTE_TRACK | NOTE_EXIT);
	for (i = 0; i < TIMES; i++) {
		if ((pid = fork()) == 0) {
			OK(pthread_create(&t, NULL, leave_slowly, NULL) == 0);
			pthread_join(t, NULL);
			_exit(5);
		}
		EVENT(kq, pid, NOTE_CHILD, getpid());
		ev = ONE_OF(kq);
		EQ(ev.ident, pid);
		EQ(ev.fflags, NOTE_EXIT);
		EQ(ev.data, 5 << 8);
		EQ(reap(pid), 5 << 8);
	}
	OK(close(kq) == 0);
}

CHECKS(
	C(tracked_process_that_ends_before_its_threads_are_gone_has_its_own_status)
	C(more_children_than_descriptors_can_be_watched)
	C(more_children_than_descriptors_reaped_before_the_call)
	C(process_that_is_no_child_lives_on_though_no_descriptor_is_left_to_look_with)
	C(crowded_kqueue_keeps_the_rules)
	C(storm_of_tracked_children_is_told_in_full)
	C(threads_that_share_a_kqueue_see_each_exit_once)
	C(kqueues_of_several_threads_each_get_everything)
	C(reused_number_tells_of_the_first_process_and_then_of_the_next)
	C(tracked_children_of_one_number_have_two_events_each)
	C(watches_survive_an_epoll_built_anew)
	C(fork_before_the_call_is_seen_though_another_thread_reads_the_connector)
	C(kqueues_come_and_go_while_processes_are_followed)
);
