/*
 * What the checks of EVFILT_VNODE share: a directory of their own, files in it, and what
 * an event must look like.
 */
#ifndef VNODE_H
#define VNODE_H
#include "net.h"
#include <sys/mman.h>
#include <sys/resource.h>

#define EVERY (NOTE_DELETE | NOTE_WRITE | NOTE_EXTEND | NOTE_TRUNCATE | NOTE_ATTRIB | NOTE_LINK | \
	NOTE_RENAME | NOTE_REVOKE)
#define USES (NOTE_OPEN | NOTE_READ | NOTE_CLOSE | NOTE_CLOSE_WRITE)

/* Watches with EV_CLEAR for some hints; must be taken. */
#define WATCH(kq, fd, fflags) OK(change(kq, (uintptr_t)(fd), EVFILT_VNODE, EV_ADD | EV_CLEAR, fflags, 0, NULL) == 0)
/* The next call gives exactly one event, of this descriptor with exactly these hints. */
#define HINTS(kq, fd, fflags) vnode_hints(kq, fd, fflags, __LINE__)

UNUSED static void vnode_hints(int kq, int fd, unsigned fflags, int line)
{
	struct kevent ev = net_event(kq, fd, EVFILT_VNODE, line);
	if (ev.fflags != fflags)
		FAIL("line %d: hints 0x%x, not 0x%x", line, ev.fflags, fflags);
	if (ev.data != 0)
		FAIL("line %d: data %ld", line, (long)ev.data);
}

static char vnode_dir[SCRATCH];

/* A path in this check's own directory, which is made at the first call. Four at a time for each thread. */
UNUSED static char *in(const char *name)
{
	static __thread char paths[4][SCRATCH + 100];
	static __thread unsigned turn;
	char *path = paths[turn++ % 4];
	if (!vnode_dir[0])
		scratch_directory(vnode_dir);
	snprintf(path, sizeof paths[0], "%s%s%s", vnode_dir, *name ? "/" : "", name);
	return path;
}

/* A new file of n bytes, open for reading and writing. */
UNUSED static int file_of(const char *name, int n)
{
	int fd = open(in(name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	OK(fd >= 0);
	if (n > 0)
		put(fd, n);
	return fd;
}

UNUSED static int dir_of(const char *name)
{
	int fd;
	OK(*name == 0 || mkdir(in(name), 0700) == 0);
	fd = open(in(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	OK(fd >= 0);
	return fd;
}

/* Empties and removes the directory; descriptors are closed by then. */
UNUSED static void clean(void)
{
	char command[SCRATCH + 16];
	snprintf(command, sizeof command, "rm -rf '%s'", vnode_dir);
	OK(system(command) == 0);
}

/* Another process does something once this one sleeps in the queue: that wakes it, with these hints. */
#define WAKES(kq, what, hints) do { struct kevent ev_; int status_; pid_t pid_ = fork(); OK(pid_ >= 0); \
	if (pid_ == 0) { UNTIL(state_of(getppid()) == 'S'); _exit((what) ? 0 : 1); } \
	EQ(collect(kq, &ev_, 1, 20000), 1); EQ(ev_.fflags, hints); \
	EQ(waitpid(pid_, &status_, 0), pid_); EQ(status_, 0); } while (0)

/* Another process does something, and ends before this goes on. */
#define ELSEWHERE(what) do { int status_; pid_t pid_ = fork(); OK(pid_ >= 0); \
	if (pid_ == 0) _exit((what) ? 0 : 1); \
	EQ(waitpid(pid_, &status_, 0), pid_); EQ(status_, 0); } while (0)
#endif
