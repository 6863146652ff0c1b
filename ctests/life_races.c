/*
 * Races in the life of kqueues: each runs for a bounded time and keeps its books. The
 * environment's SOAK makes them ten times as long.
 */
#include "engine_util.h"
#include <sched.h>
#include <spawn.h>
#include <sys/resource.h>

extern char **environ;

enum { CREW = 4 };

static int stop;

static int times(int n)
{
	return getenv("SOAK") ? 10 * n : n;
}

static int load(int *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static int add(int *p, int n)
{
	return __atomic_add_fetch(p, n, __ATOMIC_SEQ_CST);
}

static void crew_start(pthread_t *crew, int n, void *(*entry)(void *), void *arg)
{
	int i;
	__atomic_store_n(&stop, 0, __ATOMIC_SEQ_CST);
	for (i = 0; i < n; i++)
		OK(pthread_create(&crew[i], NULL, entry, arg) == 0);
}

static void crew_join(pthread_t *crew, int n)
{
	int i;
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < n; i++)
		OK(pthread_join(crew[i], NULL) == 0);
}

/* --- close against enter, close and create -------------------------------- */

/* Calls of every kind until the kqueue is gone; each ends, the last with EBADF. */
static void *enter_until_gone(void *arg)
{
	int kq = *(int *)arg, i, n;
	struct kevent ev[2];
	for (i = (int)syscall(SYS_gettid); ; i++) {
		switch (i % 4) {
		case 0: n = collect(kq, ev, 2, -1); break;
		case 1: n = collect(kq, ev, 2, 0); break;
		case 2: n = trigger(kq, 1); break;
		default: n = change(kq, (uintptr_t)i, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_SECONDS, 1000, NULL);
		}
		if (n < 0) {
			EQ(errno, EBADF);
			/* One of changes alone may learn of it later than the others. */
			if (i % 4 < 2)
				return NULL;
		}
	}
}

CHECK(close_against_calls_that_enter_sleep_and_change)
{
	pthread_t crew[CREW];
	int round;
	for (round = 0; round < times(150); round++) {
		int kq = new_kqueue(), i;
		OK(add_user(kq, 1, EV_CLEAR) == 0);
		crew_start(crew, CREW, enter_until_gone, &kq);
		for (i = 0; i < round % 7; i++)
			sched_yield();
		OK(close(kq) == 0);
		crew_join(crew, CREW);
	}
}

struct makers { int rounds, made, events; };

/* Makes, uses and closes kqueues; whatever has the number before or after, only its own events come. */
static void *make_and_close(void *arg)
{
	struct makers *m = arg;
	uintptr_t own = (uintptr_t)syscall(SYS_gettid);
	struct kevent ev[4];
	int i;
	for (i = 0; i < m->rounds; i++) {
		int kq = new_kqueue(), n;
		n = collect(kq, ev, 4, 0);
		if (n != 0)
			FAIL("a new kqueue has %d events, errno %d", n, errno);
		FAILS(trigger(kq, own), ENOENT);
		OK(add_user(kq, own, EV_CLEAR) == 0);
		OK(trigger(kq, own) == 0);
		n = collect(kq, ev, 4, i % 2 ? -1 : 0);
		EQ(n, 1);
		EQ(ev[0].ident, own);
		add(&m->made, 1);
		add(&m->events, n);
		OK(close(kq) == 0);
	}
	return NULL;
}

CHECK(close_and_create_on_one_number_in_four_threads)
{
	struct makers m = { times(1000), 0, 0 };
	pthread_t crew[CREW];
	int fds = count_fds(), threads = count_threads();
	crew_start(crew, CREW, make_and_close, &m);
	crew_join(crew, CREW);
	EQ(m.made, CREW * m.rounds);
	EQ(m.events, m.made);
	libkqueue_drain_pending_close();
	UNTIL(count_fds() == fds && count_threads() == threads);
}

CHECK(a_copy_kept_across_the_close_and_the_reuse_of_the_number)
{
	int round;
	for (round = 0; round < times(200); round++) {
		int kq = new_kqueue(), copy, other, p[2];
		struct sleeper s;
		OK(add_user(kq, 1, EV_CLEAR) == 0);
		copy = fcntl(kq, F_DUPFD_CLOEXEC, 60);
		OK(copy >= 0);
		/* From its first use on the library knows of the copy. */
		OK(trigger(copy, 1) == 0);
		EQ(ONE(kq).ident, 1);
		OK(close(kq) == 0);
		pipe_open(p);
		if (p[0] != kq) {
			OK(dup2(p[0], kq) == kq);
		}
		FAILS(collect(kq, &s.ev, 1, 0), EBADF);
		if (p[0] != kq)
			OK(close(kq) == 0);
		else
			OK(close(p[0]) == 0);
		other = new_kqueue();
		EQ(other, kq);
		FAILS(trigger(other, 1), ENOENT);
		OK(add_user(other, 2, EV_CLEAR) == 0);
		sleeper_start(&s, copy, -1);
		OK(trigger(other, 2) == 0);
		EQ(ONE(other).ident, 2);
		OK(!is_done(&s));
		OK(trigger(copy, 1) == 0);
		sleeper_join(&s);
		EQ(s.n, 1);
		EQ(s.ev.ident, 1);
		FAILS(trigger(copy, 2), ENOENT);
		OK(close(copy) == 0 && close(other) == 0 && close(p[1]) == 0);
		if (p[0] != kq)
			OK(close(p[0]) == 0);
	}
}

/* --- starting, forking, ending --------------------------------------------- */

static void *make_one(void *arg)
{
	int kq = kqueue();
	struct kevent ev;
	OK(kq >= 0);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	OK(trigger(kq, 1) == 0);
	EQ(collect(kq, &ev, 1, -1), 1);
	add(arg, 1);
	OK(close(kq) == 0);
	return NULL;
}

/* Runs f in a forked child, which has no monitor, and waits for its good end. */
static void in_child(void (*f)(int), int arg)
{
	pid_t pid = fork();
	int status;
	if (pid == 0) {
		alarm(20);
		f(arg);
		_exit(0);
	}
	status = status_of(pid);
	if (status != 0)
		FAIL(" [a child's status 0x%x, round %d]", status, arg);
}

static void eight_start_at_once(int round)
{
	pthread_t crew[8];
	int made = 0;
	(void)round;
	crew_start(crew, 8, make_one, &made);
	crew_join(crew, 8);
	EQ(made, 8);
	libkqueue_drain_pending_close();
	/* One thread serves them all. The crew may be listed for a moment after the joins. */
	UNTIL(count_threads() <= 2);
}

CHECK(eight_threads_make_the_first_kqueue_at_once)
{
	int i;
	for (i = 0; i < times(50); i++)
		in_child(eight_start_at_once, i);
}

/* No descriptor here is one of a kqueue. */
static void owns_no_kqueue(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	OK(d != NULL);
	while ((e = readdir(d))) {
		char name[300], target[100];
		ssize_t n;
		snprintf(name, sizeof name, "/proc/self/fd/%s", e->d_name);
		n = readlink(name, target, sizeof target - 1);
		target[n > 0 ? n : 0] = 0;
		if (strstr(target, "eventpoll") || strstr(target, "signalfd") || strstr(target, "timerfd") || strstr(target, "eventfd"))
			FAIL("descriptor %s is %s in the child", e->d_name, target);
	}
	closedir(d);
}

static void child_of_busy_threads(int round)
{
	int made = 0;
	owns_no_kqueue();
	if (round % 4 == 0)
		make_one(&made);
}

static void *busy(void *arg)
{
	int made = 0;
	while (!load(&stop))
		make_one(&made);
	add(arg, made);
	return NULL;
}

CHECK(forks_under_contention_hang_no_child)
{
	pthread_t crew[2];
	int i, made = 0;
	crew_start(crew, 2, busy, &made);
	for (i = 0; i < (getenv("SOAK") ? 2000 : 400); i++)
		in_child(child_of_busy_threads, i);
	crew_join(crew, 2);
	OK(made > 0);
}

/* A program that ends with 0 if nothing but 0, 1 and 2 is open in it. */
static pid_t spawn_a_look(int how)
{
	char *argv[] = { "sh", "-c", "for fd in /proc/self/fd/*; do case $fd in */0|*/1|*/2) ;; "
		"*) case $(readlink $fd) in anon_inode*|pipe*) exit 1;; esac;; esac; done", NULL };
	pid_t pid = -1;
	if (how == 0) {
		EQ(posix_spawnp(&pid, "sh", NULL, NULL, argv, environ), 0);
		return pid;
	}
	if ((pid = vfork()) == 0) {
		execvp("sh", argv);
		_exit(127);
	}
	return pid;
}

CHECK(programs_spawned_among_busy_threads_inherit_nothing)
{
	pthread_t crew[2];
	int i, made = 0, fd;
	/* What the checks were started with is none of ours. */
	for (fd = 3; fd < 256; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	crew_start(crew, 2, busy, &made);
	for (i = 0; i < times(30); i++)
		EQ(status_of(spawn_a_look(i % 2)), 0);
	crew_join(crew, 2);
}

static void *sleep_for_ever(void *arg)
{
	struct kevent ev;
	collect(*(int *)arg, &ev, 1, -1);
	return NULL;
}

/* exit() after a while that grows by 20 us from round to round. */
static void exits_amid_it_all(int round)
{
	static int kq, made;
	pthread_t thread;
	struct timespec ts = { 0, round * 20000L };
	kq = new_kqueue();
	OK(pthread_create(&thread, NULL, sleep_for_ever, &kq) == 0);
	OK(pthread_create(&thread, NULL, busy, &made) == 0);
	if (round % 3 == 0)
		OK(pthread_create(&thread, NULL, busy, &made) == 0);
	nanosleep(&ts, NULL);
	if (round % 2)
		close(kq);
	exit(0);
}

CHECK(exit_at_any_point_ends_the_process)
{
	int i;
	for (i = 0; i < times(100); i++)
		in_child(exits_amid_it_all, i % 200);
}

/* --- marks, signals, orphans ------------------------------------------------ */

static int readable(int kq, int ms)
{
	struct pollfd p = { kq, POLLIN, 0 };
	int n = poll(&p, 1, ms);
	OK(n >= 0);
	return n;
}

static void *feed(void *arg)
{
	int fd = *(int *)arg, sent = 0;
	while (!load(&stop) && sent < 30000) {
		if (write(fd, "x", 1) == 1)
			sent++;
		if (sent % 64 == 0)
			sched_yield();
	}
	return (void *)(intptr_t)sent;
}

/* Every byte arrives, and in the end the descriptor is unreadable and stays so. */
static void marks_and_harvests(int kq, int flags)
{
	pthread_t thread;
	int p[2], received = 0, i;
	void *sent;
	char text[64];
	pipe_open(p);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD | flags, 0, 0, NULL) == 0);
	__atomic_store_n(&stop, 0, __ATOMIC_SEQ_CST);
	OK(pthread_create(&thread, NULL, feed, &p[1]) == 0);
	for (i = 0; received < 5000; i++) {
		struct kevent ev[2];
		int n;
		if (i % 3 == 0)
			OK(readable(kq, 10000) == 1);
		n = collect(kq, ev, 2, i % 3 == 0 ? -1 : i % 3 == 1 ? 0 : 2);
		OK(n >= 0);
		while (n > 0 && (n = (int)read(p[0], text, sizeof text)) > 0)
			received += n;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	OK(pthread_join(thread, &sent) == 0);
	while (read(p[0], text, 1) == 1)
		received++;
	EQ(received, (int)(intptr_t)sent);
	NONE(kq);
	for (i = 0; i < 30; i++)
		EQ(readable(kq, 1), 0);
	put(p[1]);
	EQ(readable(kq, 10000), 1);
	EQ(ONE(kq).ident, p[0]);
	pipe_close(p);
	NONE(kq);
}

CHECK(no_mark_stays_after_the_harvest)
{
	int i, kq = new_kqueue();
	for (i = 0; i < times(4); i++)
		marks_and_harvests(kq, i % 2 ? EV_CLEAR : 0);
	OK(close(kq) == 0);
}

CHECK(everything_works_with_no_room_for_signals)
{
	struct rlimit none = { 0, 0 };
	struct makers m = { times(200), 0, 0 };
	pthread_t crew[CREW];
	int i, fds, kq;
	OK(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
	fds = count_fds();
	for (i = 0; i < times(2); i++) {
		kq = new_kqueue();
		marks_and_harvests(kq, i % 2 ? EV_CLEAR : 0);
		OK(close(kq) == 0);
		crew_start(crew, CREW, make_and_close, &m);
		crew_join(crew, CREW);
	}
	EQ(m.events, m.made);
	libkqueue_drain_pending_close();
	UNTIL(count_fds() == fds);
}

struct churn { int kq, closed; };

/* Watches a number, closes it while its file lives on, and lets that file become ready. */
static void *make_orphans(void *arg)
{
	struct churn *c = arg;
	while (!load(&stop)) {
		int p[2], copy;
		pipe_open(p);
		copy = fcntl(p[0], F_DUPFD_CLOEXEC, 100);
		OK(copy >= 0);
		OK(change(c->kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
		OK(close(p[0]) == 0);
		put(p[1]);
		pause_ms(1);
		OK(close(copy) == 0 && close(p[1]) == 0);
		add(&c->closed, 1);
	}
	return NULL;
}

CHECK(sleepers_sleep_on_among_orphans_for_the_time_that_is_left)
{
	struct churn c = { new_kqueue(), 0 };
	struct sleeper s[3];
	pthread_t crew[1];
	int i, round;
	OK(add_user(c.kq, 1, EV_CLEAR) == 0);
	crew_start(crew, 1, make_orphans, &c);
	for (round = 0; round < times(3); round++) {
		for (i = 0; i < 3; i++)
			sleeper_start(&s[i], c.kq, 50 + 30 * i);
		for (i = 0; i < 3; i++) {
			sleeper_join(&s[i]);
			if (s[i].n == 1)
				FAIL("an event of a closed number: ident %ld filter %d data %ld", (long)s[i].ev.ident, s[i].ev.filter, (long)s[i].ev.data);
			EQ(s[i].n, 0);
			OK(s[i].took >= (50 + 30 * i) * 1000000LL);
			OK(s[i].took < 5000000000LL);
		}
	}
	sleeper_start(&s[0], c.kq, -1);
	pause_ms(20);
	OK(trigger(c.kq, 1) == 0);
	sleeper_join(&s[0]);
	EQ(s[0].n, 1);
	crew_join(crew, 1);
	OK(c.closed > 0);
	OK(close(c.kq) == 0);
}

/* A thread that waits without end under one number of two; the other keeps the queue. */
static int under;

static void *wait_without_end(void *arg)
{
	struct kevent ev;
	int *turn = arg;
	while (!load(&stop)) {
		if (!load(turn))
			continue;
		OK(kevent(load(&under), NULL, 0, &ev, 1, NULL) == -1 && errno == EBADF);
		__atomic_store_n(turn, 0, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

CHECK(a_wait_without_end_whose_number_is_closed_as_it_begins_is_EBADF)
{
	pthread_t waits;
	int i, turn = 0;
	crew_start(&waits, 1, wait_without_end, &turn);
	for (i = 0; i < times(2000); i++) {
		int kq = kqueue(), copy = dup(kq), spin = i * 37 % 3000;
		EQ(change(copy, 1, EVFILT_USER, EV_ADD, 0, 0, NULL), 0);
		__atomic_store_n(&under, kq, __ATOMIC_SEQ_CST);
		__atomic_store_n(&turn, 1, __ATOMIC_SEQ_CST);
		while (spin-- > 0)
			load(&turn);
		close(kq);
		sched_yield();
		close(copy);
		while (load(&turn))
			sched_yield();
	}
	crew_join(&waits, 1);
}

CHECKS(
	C(close_against_calls_that_enter_sleep_and_change)
	C(close_and_create_on_one_number_in_four_threads)
	C(a_copy_kept_across_the_close_and_the_reuse_of_the_number)
	C(a_wait_without_end_whose_number_is_closed_as_it_begins_is_EBADF)
	C(eight_threads_make_the_first_kqueue_at_once)
	C(forks_under_contention_hang_no_child)
	C(programs_spawned_among_busy_threads_inherit_nothing)
	C(exit_at_any_point_ends_the_process)
	C(no_mark_stays_after_the_harvest)
	C(everything_works_with_no_room_for_signals)
	C(sleepers_sleep_on_among_orphans_for_the_time_that_is_left)
);
