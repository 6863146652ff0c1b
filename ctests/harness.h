/*
 * The frame of every C check.
 *
 * A program defines checks with CHECK(name) { ... } and lists them in CHECKS(...).
 * Each check runs in a process of its own under a watchdog, so that signals, limits
 * and hangs of one cannot reach another, and ends by proving that it left no
 * descriptor open. One line a check is printed: "ok NAME", "not ok NAME: why" or
 * "skip NAME: why". Exit status: 0 all passed, 1 a failure, 77 everything skipped.
 *
 *   prog            all checks            prog -l      their names
 *   prog NAME...    only these, in this process (for gdb, strace, valgrind)
 */
#ifndef HARNESS_H
#define HARNESS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <sys/event.h>

struct check { const char *name; void (*run)(void); };
extern const struct check checks[];

#define CHECK(name) static void name(void)
#define CHECKS(...) const struct check checks[] = { __VA_ARGS__ {0, 0} }
#define C(name) { #name, name },

/* Where the reason of a failure or skip goes; set up by main() below. */
static int harness_report = 2;
enum { HARNESS_TIMEOUT = 60 };

__attribute__((format(printf, 2, 3), noreturn, unused))
static void harness_end(int status, const char *fmt, ...)
{
	char text[600];
	va_list ap;
	int n;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof text - 1)
		n = sizeof text - 1;
	if (write(harness_report, text, (size_t)n) < 0)
		_exit(1);
	_exit(status);
}

#define FAIL(...) harness_end(1, __VA_ARGS__)
#define SKIP(...) harness_end(77, __VA_ARGS__)
/* The condition must hold; errno is shown because most are about system calls. */
#define OK(cond) do { if (!(cond)) FAIL("%s:%d: %s (errno %d %s)", __FILE__, __LINE__, #cond, errno, strerror(errno)); } while (0)
/* Two numbers must be equal; both are shown. */
#define EQ(a, b) do { long long a_ = (long long)(a), b_ = (long long)(b); \
	if (a_ != b_) FAIL("%s:%d: %s is %lld (0x%llx), not %s = %lld (0x%llx), errno %d", __FILE__, __LINE__, #a, a_, (unsigned long long)a_, #b, b_, (unsigned long long)b_, errno); } while (0)
/* The call fails with -1 and this errno. */
#define FAILS(call, err) do { errno = 0; long r_ = (long)(call); int e_ = errno; \
	if (r_ != -1 || e_ != (err)) FAIL("%s:%d: %s gave %ld errno %d (%s), not errno %d (%s)", __FILE__, __LINE__, #call, r_, e_, strerror(e_), (int)(err), strerror(err)); } while (0)

/* One change, no events: 0 or -1/errno. */
__attribute__((unused))
static int change(int kq, uintptr_t ident, int filter, int flags, unsigned fflags, intptr_t data, void *udata)
{
	struct kevent kev;
	EV_SET(&kev, ident, filter, flags, fflags, data, udata);
	return kevent(kq, &kev, 1, NULL, 0, NULL);
}

/* Up to n events within ms milliseconds (negative: for ever). */
__attribute__((unused))
static int collect(int kq, struct kevent *ev, int n, long ms)
{
	struct timespec ts;
	ts.tv_sec = ms / 1000;
	ts.tv_nsec = ms % 1000 * 1000000;
	return kevent(kq, NULL, 0, ev, n, ms < 0 ? NULL : &ts);
}

/* Exactly one event must come (within ten seconds); returned. */
#define ONE(kq) harness_one(kq, __LINE__)
__attribute__((unused))
static struct kevent harness_one(int kq, int line)
{
	struct kevent ev[2];
	int n = collect(kq, ev, 2, 10000);
	if (n != 1)
		FAIL("line %d: %d events, not one (errno %d)", line, n, errno);
	return ev[0];
}

/* Nothing is pending now. */
#define NONE(kq) do { struct kevent ev_[1]; int n_ = collect(kq, ev_, 1, 0); \
	if (n_ != 0) FAIL("%s:%d: %d events, none expected (ident %ld filter %d flags 0x%x fflags 0x%x data %ld, errno %d)", __FILE__, __LINE__, n_, \
		n_ > 0 ? (long)ev_[0].ident : 0, n_ > 0 ? ev_[0].filter : 0, n_ > 0 ? ev_[0].flags : 0, n_ > 0 ? ev_[0].fflags : 0, n_ > 0 ? (long)ev_[0].data : 0, errno); } while (0)

/* Waits until the condition holds, ten seconds at most, looking every millisecond. */
#define UNTIL(cond) do { int i_; for (i_ = 0; !(cond); i_++) { struct timespec ts_ = {0, 1000000}; \
	if (i_ > 10000) FAIL("%s:%d: never came true: %s", __FILE__, __LINE__, #cond); \
	nanosleep(&ts_, NULL); } } while (0)

__attribute__((unused))
static long long now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* CPU time of all threads of the process. */
__attribute__((unused))
static long long cpu_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* Entries of a directory but "." and "..". */
static int count_entries(const char *path)
{
	DIR *d = opendir(path);
	int n = -2;
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* The one that looks is among them. */
static int count_fds(void) { return count_entries("/proc/self/fd"); }
__attribute__((unused))
static int count_threads(void) { return count_entries("/proc/self/task"); }

/* The action of a signal: this handler, with no other signal blocked meanwhile. */
__attribute__((unused))
static void handle_with(int n, void (*handler)(int), int flags)
{
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = handler;
	sa.sa_flags = flags;
	sigemptyset(&sa.sa_mask);
	OK(sigaction(n, &sa, NULL) == 0);
}

/* Waits for a child: its status. */
__attribute__((unused))
static int status_of(pid_t pid)
{
	int status;
	OK(pid > 0);
	while (waitpid(pid, &status, 0) < 0)
		OK(errno == EINTR);
	return status;
}

/* The letter by which the kernel tells what a process or thread does: 'S' asleep, 'T' stopped; 0 if there is none. */
__attribute__((unused))
static int state_of(pid_t id)
{
	char path[64], text[512], *end;
	ssize_t n;
	int fd;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)id);
	if (id == 0 || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return 0;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	end = strrchr(text, ')');
	return end && end[1] == ' ' ? end[2] : 0;
}

/* KiB of address space, or of memory in use. */
__attribute__((unused))
static long memory(int resident)
{
	long all, used;
	FILE *f = fopen("/proc/self/statm", "re");
	OK(f != NULL);
	EQ(fscanf(f, "%ld %ld", &all, &used), 2);
	fclose(f);
	return (resident ? used : all) * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Room for the name of a scratch file or directory, and of something in it. */
enum { SCRATCH = 400 };

/* A name that this process has not used yet. Of one that had its number another may be there. */
__attribute__((unused))
static char *scratch_name(char *path)
{
	static unsigned used;
	const char *dir = getenv("TMPDIR");
	OK(snprintf(path, SCRATCH, "%s/kqueue-%ld-%u", dir ? dir : "/tmp", (long)getpid(), used++) < SCRATCH - 64);
	return path;
}

/* An empty file open for both; its name goes to path[SCRATCH]. */
__attribute__((unused))
static int scratch_file(char *path)
{
	int fd;
	do
		fd = open(scratch_name(path), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	while (fd < 0 && errno == EEXIST);
	OK(fd >= 0);
	return fd;
}

/* An empty file that has lost its name already. */
__attribute__((unused))
static int nameless_file(void)
{
	char path[SCRATCH];
	int fd = scratch_file(path);
	OK(unlink(path) == 0);
	return fd;
}

/* An empty directory; its name goes to path[SCRATCH]. */
__attribute__((unused))
static void scratch_directory(char *path)
{
	int made;
	do
		made = mkdir(scratch_name(path), 0700);
	while (made != 0 && errno == EEXIST);
	OK(made == 0);
}

/* Descriptors open beyond what one live monitor needs mean a leak. */
static void harness_run(const struct check *c, int report)
{
	int kq, before;
	const char *patience = getenv("HARNESS_TIMEOUT");
	harness_report = report;
	/* Slow tools (valgrind, sanitizers) ask for more. */
	alarm(patience ? (unsigned)atoi(patience) : HARNESS_TIMEOUT);
	/* The library's own process-wide descriptors come with the first kqueue. */
	kq = kqueue();
	OK(kq >= 0);
	OK(close(kq) == 0);
	libkqueue_drain_pending_close();
	before = count_fds();
	c->run();
	libkqueue_drain_pending_close();
	/* What a check left open itself counts too: checks close what they open. */
	{
		int i, after;
		for (i = 0; (after = count_fds()) > before && i < 2000; i++) {
			struct timespec ts = {0, 1000000};
			nanosleep(&ts, NULL);
		}
		if (after > before)
			FAIL("descriptors: %d before, %d after", before, after);
	}
}

int main(int argc, char **argv)
{
	const struct check *c;
	int failed = 0, passed = 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && strcmp(argv[1], "-l") == 0) {
		for (c = checks; c->name; c++)
			puts(c->name);
		return 0;
	}
	if (argc > 1) {
		int i;
		for (i = 1; i < argc; i++) {
			for (c = checks; c->name && strcmp(c->name, argv[i]); c++)
				;
			if (!c->name)
				return 2;
			harness_run(c, 2);
			printf("ok %s\n", c->name);
		}
		return 0;
	}
	for (c = checks; c->name; c++) {
		char why[601];
		int p[2], status;
		ssize_t n;
		pid_t pid;
		if (pipe2(p, O_CLOEXEC) != 0 || (pid = fork()) < 0)
			return 2;
		if (pid == 0) {
			close(p[0]);
			harness_run(c, p[1]);
			_exit(0);
		}
		close(p[1]);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		/* Only what is there: a grandchild may still hold the other end. */
		fcntl(p[0], F_SETFL, O_NONBLOCK);
		n = read(p[0], why, 600);
		why[n > 0 ? n : 0] = 0;
		close(p[0]);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
			printf("ok %s\n", c->name);
			passed++;
		} else if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
			printf("skip %s: %s\n", c->name, why);
		} else {
			if (WIFSIGNALED(status))
				printf("not ok %s: signal %d%s %s\n", c->name, WTERMSIG(status),
				       WTERMSIG(status) == SIGALRM ? " (hung)" : "", why);
			else
				printf("not ok %s: %s\n", c->name, why);
			failed++;
		}
	}
	return failed ? 1 : passed ? 0 : 77;
}
#endif
