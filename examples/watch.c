/*
 * A build watcher: runs a command whenever something in a tree has changed.
 *
 *	cc -o watch watch.c $(pkg-config --cflags --libs libkqueue)
 *	./watch DIR COMMAND [ARGUMENT...]
 *
 * Every directory and every file of the tree is open and has an EVFILT_VNODE knote. A
 * directory tells that its entries changed, not what happens inside its files: those tell
 * it themselves. So after a change the directories are read again, for what is new.
 * Closing a descriptor removes its knote: that is all it takes to forget a file.
 *
 * One save is many events, and a checkout thousands. They are collected until nothing has
 * happened for a moment, then the command runs once. Names that begin with a dot are left
 * out, since build systems and editors write there.
 */
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/event.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUIET_MS = 100, EVENTS = 64 };
#define CHANGES (NOTE_WRITE | NOTE_TRUNCATE | NOTE_DELETE | NOTE_RENAME)

extern char **environ;

/* What is watched, by descriptor; those without a path are not in use. */
static struct watched {
	char	*path;
	dev_t	 dev;
	ino_t	 ino;
	int	 is_dir;
} *watched;
static int nwatched, kq;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int is_watched(const struct stat *st)
{
	int fd;

	for (fd = 0; fd < nwatched; fd++)
		if (watched[fd].path && watched[fd].ino == st->st_ino && watched[fd].dev == st->st_dev)
			return 1;
	return 0;
}

static void forget(int fd)
{
	free(watched[fd].path);
	watched[fd].path = NULL;
	close(fd);
}

static void watch(const char *path);

/* Watches what the directory has that is not watched yet. */
static void scan(const char *path)
{
	struct dirent *entry;
	DIR *dir = opendir(path);

	if (dir == NULL)
		return;			/* gone again: its parent will tell */
	while ((entry = readdir(dir)) != NULL) {
		char *name;

		if (entry->d_name[0] == '.')
			continue;
		if (asprintf(&name, "%s/%s", path, entry->d_name) < 0)
			die("asprintf");
		watch(name);
		free(name);
	}
	closedir(dir);
}

static void watch(const char *path)
{
	struct kevent ch;
	struct stat st;
	int fd;

	if (lstat(path, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) || is_watched(&st))
		return;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		die(path);
	if (fd < 0 || fstat(fd, &st) != 0)
		return;			/* gone, or not for us to read */
	if (fd >= nwatched) {
		watched = realloc(watched, ((size_t)fd + 64) * sizeof *watched);
		if (watched == NULL)
			die("realloc");
		memset(watched + nwatched, 0, ((size_t)fd + 64 - (size_t)nwatched) * sizeof *watched);
		nwatched = fd + 64;
	}
	/* The knote comes before the first look, so that nothing falls between them. */
	EV_SET(&ch, (uintptr_t)fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, CHANGES, 0, NULL);
	if (kevent(kq, &ch, 1, NULL, 0, NULL) < 0)
		die(path);
	watched[fd].path = strdup(path);
	watched[fd].dev = st.st_dev;
	watched[fd].ino = st.st_ino;
	watched[fd].is_dir = S_ISDIR(st.st_mode);
	if (watched[fd].is_dir)
		scan(path);
}

/* A directory that has moved takes along what is in it: the paths are wrong now. */
static void forget_below(const char *path)
{
	size_t len = strlen(path);
	int fd;

	for (fd = 0; fd < nwatched; fd++)
		if (watched[fd].path && strncmp(watched[fd].path, path, len) == 0 && watched[fd].path[len] == '/')
			forget(fd);
}

static void handle(const struct kevent *ev)
{
	int fd = (int)ev->ident;

	if (fd >= nwatched || watched[fd].path == NULL)
		return;
	if (ev->fflags & (NOTE_DELETE | NOTE_RENAME)) {
		/* If it lives on under another name, look_again() finds it there. */
		forget_below(watched[fd].path);
		forget(fd);
	}
}

/* Finds what is new in any of the directories. */
static void look_again(void)
{
	char *path;
	int fd;

	for (fd = 0; fd < nwatched; fd++)
		if (watched[fd].path && watched[fd].is_dir) {
			path = strdup(watched[fd].path);	/* the table may move */
			scan(path);
			free(path);
		}
}

/* Waits for a change, then until nothing more comes for a moment. */
static void wait_for_change(void)
{
	struct timespec quiet = { 0, QUIET_MS * 1000000L };
	struct kevent ev[EVENTS];
	int i, n, changed = 0;

	while ((n = kevent(kq, NULL, 0, ev, EVENTS, changed ? &quiet : NULL)) != 0) {
		if (n < 0 && errno != EINTR)
			die("kevent");
		for (i = 0; i < n; i++) {
			handle(&ev[i]);
			changed = 1;
		}
	}
	look_again();
}

static void run(char **command)
{
	int error, status;
	pid_t pid;

	error = posix_spawnp(&pid, command[0], NULL, NULL, command, environ);
	if (error != 0) {
		fprintf(stderr, "%s: %s\n", command[0], strerror(error));
		return;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
		fprintf(stderr, "watch: %s: status %d\n", command[0], WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		fprintf(stderr, "watch: %s: signal %d\n", command[0], WTERMSIG(status));
}

int main(int argc, char **argv)
{
	struct rlimit limit;

	if (argc < 3) {
		fprintf(stderr, "usage: watch DIR COMMAND [ARGUMENT...]\n");
		return 1;
	}
	/* A descriptor for each file. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	kq = kqueue();
	if (kq < 0)
		die("kqueue");
	watch(argv[1]);
	if (nwatched == 0)
		die(argv[1]);
	for (;;) {
		wait_for_change();
		run(argv + 2);
	}
}
