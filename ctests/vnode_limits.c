/*
 * EVFILT_VNODE at the kernel's limits: a full queue, many files and kqueues, and no
 * inotify to be had. The latter in a user namespace, where the limits are our own.
 */
#include "vnode.h"
#include <sched.h>

static int kq;

/* Fills the queue of events beyond what it holds, with two files that are watched: for NOTE_WRITE,
 * since the library's thread reads on until an event is pending. */
static void overflow(int a, int b)
{
	FILE *limit = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
	int i, n = 16384;
	OK(limit == NULL || fscanf(limit, "%d", &n) == 1);
	if (limit)
		fclose(limit);
	if (n > 200000)
		SKIP("the queue holds %d events", n);
	/* Twice as much: the thread may read some before it stops. */
	for (i = 0; i <= n; i++) {
		OK(pwrite(a, "x", 1, 0) == 1);
		OK(pwrite(b, "x", 1, 0) == 1);
	}
}

static struct kevent *event_of(struct kevent *ev, int n, int fd)
{
	int i;
	for (i = 0; i < n; i++)
		if (ev[i].ident == (uintptr_t)fd)
			return &ev[i];
	FAIL("no event for descriptor %d among %d", fd, n);
}

CHECK(a_full_queue_loses_nothing)
{
	enum { GROWN, CUT, MODE, LINKED, GONE, MOVED, DIRECTORY, REMOVED, QUIET_ONE, N };
	static const unsigned hints[N] = {NOTE_WRITE | NOTE_EXTEND, NOTE_ATTRIB | NOTE_TRUNCATE, NOTE_ATTRIB, NOTE_LINK,
		NOTE_DELETE, NOTE_RENAME, NOTE_WRITE, NOTE_DELETE, 0};
	struct kevent ev[N + 3];
	char name[20];
	int a, b, fd[N], i, n;
	kq = new_kqueue();
	a = file_of("a", 1);
	b = file_of("b", 1);
	for (i = 0; i < N; i++) {
		snprintf(name, sizeof name, "%d", i);
		fd[i] = i == DIRECTORY || i == REMOVED ? dir_of(name) : file_of(name, 10);
	}
	WATCH(kq, a, EVERY);
	WATCH(kq, b, EVERY);
	for (i = 0; i < N; i++)
		WATCH(kq, fd[i], EVERY);
	NONE(kq);
	overflow(a, b);
	put(fd[GROWN], 1);
	OK(ftruncate(fd[CUT], 3) == 0 && fchmod(fd[MODE], 0640) == 0 && link(in("3"), in("link")) == 0);
	OK(unlink(in("4")) == 0 && rename(in("5"), in("moved")) == 0);
	close(file_of("6/f", 0));
	OK(rmdir(in("7")) == 0);
	n = collect(kq, ev, N + 3, 1000);
	EQ(event_of(ev, n, a)->fflags, NOTE_WRITE);
	EQ(event_of(ev, n, b)->fflags, NOTE_WRITE);
	for (i = 0; i < N; i++)
		if (hints[i])
			EQ(event_of(ev, n, fd[i])->fflags & (i == REMOVED ? (unsigned)NOTE_DELETE : ~0u), hints[i]);
	/* Three of them, and the two that filled the queue. */
	EQ(n, N - 1 + 2);
	NONE(kq);
	put(fd[QUIET_ONE], 1);
	HINTS(kq, fd[QUIET_ONE], NOTE_WRITE | NOTE_EXTEND);
	for (i = 0; i < N; i++)
		close(fd[i]);
	close(a);
	close(b);
	close(kq);
	clean();
}

CHECK(a_reader_of_a_file_survives_a_full_queue)
{
	struct kevent ev[3];
	int a, b, c;
	kq = new_kqueue();
	a = file_of("a", 1);
	b = file_of("b", 1);
	c = file_of("c", 0);
	WATCH(kq, a, NOTE_WRITE);
	WATCH(kq, b, NOTE_WRITE);
	ADD(kq, c, EVFILT_READ, 0);
	NONE(kq);
	overflow(a, b);
	EQ(pwrite(c, "abc", 3, 0), 3);
	EQ(collect(kq, ev, 3, 1000), 3);
	EQ(event_of(ev, 3, c)->data, 3);
	close(a);
	close(b);
	close(c);
	close(kq);
	clean();
}

/* The kernel drops the watch of an open file if its last name is not the one it was opened by. */
CHECK(a_watch_dropped_unheard_in_a_full_queue_is_made_again)
{
	struct kevent ev[4];
	int a, b, c, d;
	kq = new_kqueue();
	a = file_of("a", 1);
	b = file_of("b", 1);
	c = file_of("c", 1);
	d = file_of("d", 0);
	OK(link(in("c"), in("c2")) == 0 && link(in("d"), in("d2")) == 0);
	WATCH(kq, a, NOTE_WRITE);
	WATCH(kq, b, NOTE_WRITE);
	WATCH(kq, c, EVERY);
	ADD(kq, d, EVFILT_READ, 0);
	NONE(kq);
	overflow(a, b);
	OK(unlink(in("c")) == 0 && unlink(in("c2")) == 0 && unlink(in("d")) == 0 && unlink(in("d2")) == 0);
	EQ(collect(kq, ev, 4, 1000), 3);
	EQ(event_of(ev, 3, c)->fflags & NOTE_DELETE, NOTE_DELETE);
	NONE(kq);
	put(c, 1);
	HINTS(kq, c, NOTE_WRITE | NOTE_EXTEND);
	EQ(pwrite(d, "abc", 3, 0), 3);
	EQ(EVENT(kq, d, EVFILT_READ).data, 3);
	close(a);
	close(b);
	close(c);
	close(d);
	close(kq);
	clean();
}

CHECK(a_directory_moved_unheard_in_a_full_queue_tells_of_its_removal)
{
	struct kevent ev[3];
	int a, b, d;
	kq = new_kqueue();
	a = file_of("a", 1);
	b = file_of("b", 1);
	d = dir_of("d");
	close(dir_of("elsewhere"));
	WATCH(kq, a, NOTE_WRITE);
	WATCH(kq, b, NOTE_WRITE);
	WATCH(kq, d, NOTE_DELETE);
	overflow(a, b);
	OK(rename(in("d"), in("elsewhere/d")) == 0);
	EQ(collect(kq, ev, 3, 1000), 2);
	NONE(kq);
	OK(rmdir(in("elsewhere/d")) == 0);
	HINTS(kq, d, NOTE_DELETE);
	close(a);
	close(b);
	close(d);
	close(kq);
	clean();
}

/* As many descriptors as there may be; too few skip the check. */
static void need(unsigned descriptors)
{
	struct rlimit lim;
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = lim.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	if (lim.rlim_cur < descriptors)
		SKIP("only %ld descriptors", (long)lim.rlim_cur);
}

CHECK(two_thousand_files_each_tell_once)
{
	enum { N = 2000 };
	static struct kevent ev[N + 1];
	static int fd[N], seen[3 * N];
	char name[20];
	int i, n, round;
	need(N + 300);
	kq = new_kqueue();
	for (i = 0; i < N; i++) {
		snprintf(name, sizeof name, "%d", i);
		fd[i] = file_of(name, 1);
		OK(fd[i] < 3 * N);
		WATCH(kq, fd[i], EVERY);
	}
	for (round = 1; round <= 3; round++) {
		for (i = 0; i < N; i++)
			put(fd[i], 1);
		for (i = 0; i < N; i += n) {
			int k;
			n = collect(kq, ev, N + 1, 1000);
			OK(n > 0);
			for (k = 0; k < n; k++) {
				EQ(ev[k].fflags, NOTE_WRITE | NOTE_EXTEND);
				EQ(seen[ev[k].ident]++, round - 1);
			}
		}
		EQ(i, N);
		NONE(kq);
	}
	for (i = 0; i < N; i++)
		close(fd[i]);
	/* Without a look the closed ones take no time to speak of when they are found out. */
	NONE(kq);
	close(kq);
	clean();
}

CHECK(six_hundred_kqueues_share_one_instance)
{
	enum { N = 600 };
	static int many[N];
	int i, fd;
	need(5 * N + 300);
	fd = file_of("f", 1);
	for (i = 0; i < N; i++) {
		many[i] = new_kqueue();
		WATCH(many[i], fd, EVERY);
	}
	put(fd, 1);
	for (i = 0; i < N; i++)
		HINTS(many[i], fd, NOTE_WRITE | NOTE_EXTEND);
	for (i = 0; i < N; i++)
		close(many[i]);
	close(fd);
	clean();
}

/* A limit of the namespace this process is about to be alone in. */
static int set_limit(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), good;
	good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return good;
}

/* Runs in a child in a user namespace with so many instances or watches, and ends as it does. */
static void with_limit(const char *what, const char *limit, void (*run)(void))
{
	char path[80], map[40];
	int status;
	pid_t pid;
	snprintf(path, sizeof path, "/proc/sys/user/%s", what);
	in("");
	pid = fork();
	OK(pid >= 0);
	if (pid == 0) {
		snprintf(map, sizeof map, "0 %d 1", (int)geteuid());
		if (unshare(CLONE_NEWUSER) != 0)
			SKIP("unshare: %s", strerror(errno));
		if (!set_limit("/proc/self/uid_map", map) || !set_limit(path, limit))
			SKIP("%s: %s", path, strerror(errno));
		run();
		_exit(0);
	}
	EQ(waitpid(pid, &status, 0), pid);
	if (status != 0)
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
	clean();
}

/* Files can be looked at only: later, but with the same hints. */
static void looked_at(void)
{
	int fd, dir, p[2];
	kq = new_kqueue();
	fd = file_of("f", 10);
	dir = dir_of("d");
	WATCH(kq, fd, EVERY);
	WATCH(kq, dir, EVERY);
	QUIET(kq);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	OK(ftruncate(fd, 3) == 0);
	HINTS(kq, fd, NOTE_ATTRIB | NOTE_TRUNCATE);
	OK(fchmod(fd, 0640) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	OK(rename(in("f"), in("g")) == 0);
	HINTS(kq, fd, NOTE_RENAME);
	OK(link(in("g"), in("h")) == 0);
	HINTS(kq, fd, NOTE_LINK);
	OK(unlink(in("g")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	close(file_of("d/f", 0));
	HINTS(kq, dir, NOTE_WRITE);
	OK(unlink(in("d/f")) == 0);
	HINTS(kq, dir, NOTE_WRITE);
	OK(rmdir(in("d")) == 0);
	OK(EVENT(kq, dir, EVFILT_VNODE).fflags & NOTE_DELETE);
	QUIET(kq);
	/* A file at its end is looked at as well. */
	ADD(kq, fd, EVFILT_READ, EV_CLEAR);
	OK(lseek(fd, 0, SEEK_END) == 3);
	EQ(collect(kq, (struct kevent[1]){{0}}, 1, 0) < 0, 0);
	OK(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL) == 0);
	EQ(pwrite(fd, "abc", 3, 3), 3);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 3);
	OK(pipe2(p, O_CLOEXEC) == 0);
	FAILS(change(kq, (uintptr_t)p[0], EVFILT_VNODE, EV_ADD, EVERY, 0, NULL), EINVAL);
	close(p[0]);
	close(p[1]);
	close(dir);
	close(fd);
	close(kq);
}

static void no_instance(void)
{
	int fd;
	looked_at();
	kq = new_kqueue();
	fd = file_of("o", 10);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ADD, NOTE_OPEN, 0, NULL), EMFILE);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), ENOENT);
	close(fd);
	close(kq);
}

CHECK(without_an_instance_files_are_looked_at)
{
	with_limit("max_inotify_instances", "0", no_instance);
}

CHECK(without_watches_files_are_looked_at)
{
	with_limit("max_inotify_watches", "0", looked_at);
}

/* More processes than there are instances, all waiting for one file. */
static void many_processes(void)
{
	enum { N = 6 };
	struct kevent ev;
	int fd = file_of("f", 1), ready[2], go[2], i, status;
	char c;
	OK(pipe2(ready, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0);
	for (i = 0; i < N; i++) {
		pid_t pid = fork();
		OK(pid >= 0);
		if (pid > 0)
			continue;
		kq = new_kqueue();
		WATCH(kq, fd, NOTE_EXTEND);
		put(ready[1], 1);
		if (collect(kq, &ev, 1, 20000) != 1 || ev.fflags != (NOTE_WRITE | NOTE_EXTEND))
			_exit(1);
		put(ready[1], 1);
		_exit(read(go[0], &c, 1) == 1 ? 0 : 1);
	}
	get(ready[0], N);
	put(fd, 1);
	get(ready[0], N);
	put(go[1], N);
	for (i = 0; i < N; i++) {
		OK(wait(&status) > 0);
		EQ(status, 0);
	}
	close(fd);
}

CHECK(more_processes_than_instances_all_hear_of_it)
{
	with_limit("max_inotify_instances", "2", many_processes);
}

CHECK(a_file_that_cannot_be_read_is_looked_at)
{
	int fd;
	if (geteuid() != 0)
		SKIP("needs root, to become somebody else");
	kq = new_kqueue();
	fd = file_of("f", 10);
	OK(fchmod(fd, 0) == 0 && seteuid(65534) == 0);
	WATCH(kq, fd, NOTE_WRITE | NOTE_EXTEND | NOTE_DELETE);
	OK(seteuid(0) == 0);
	NONE(kq);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	OK(unlink(in("f")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	close(fd);
	close(kq);
	clean();
}

CHECK(without_descriptors_the_add_is_emfile_and_leaves_nothing)
{
	struct rlimit lim;
	int fd, before;
	kq = new_kqueue();
	fd = file_of("f", 10);
	before = count_fds();
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = 3;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ADD, EVERY, 0, NULL), EMFILE);
	FAILS(change(kq, 0, EVFILT_FS, EV_ADD, VQ_MOUNT, 0, NULL), EMFILE);
	lim.rlim_cur = lim.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	EQ(count_fds(), before);
	WATCH(kq, fd, EVERY);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	close(fd);
	close(kq);
	clean();
}

CHECKS(
	C(a_full_queue_loses_nothing)
	C(a_reader_of_a_file_survives_a_full_queue)
	C(a_watch_dropped_unheard_in_a_full_queue_is_made_again)
	C(a_directory_moved_unheard_in_a_full_queue_tells_of_its_removal)
	C(two_thousand_files_each_tell_once)
	C(six_hundred_kqueues_share_one_instance)
	C(without_an_instance_files_are_looked_at)
	C(without_watches_files_are_looked_at)
	C(more_processes_than_instances_all_hear_of_it)
	C(a_file_that_cannot_be_read_is_looked_at)
	C(without_descriptors_the_add_is_emfile_and_leaves_nothing)
);
