/*
 * tail -f: follows a growing file by EVFILT_READ, also across log rotation.
 *
 *	cc -o tail tail.c $(pkg-config --cflags --libs libkqueue)
 *	./tail FILE
 *
 * On a regular file EVFILT_READ is ready while the offset is not at the end, with the
 * distance to it in data; at the end it sleeps until the file grows. A distance below
 * zero says that the file was cut. Nothing tells that the name now belongs to another
 * file, so a timer looks once a second; the new file gets a knote of its own, and the
 * old one loses its knote when it is closed.
 */
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/event.h>
#include <sys/stat.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOK = 0, LOOK_MS = 1000, LINES = 10 };

static int kq;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void change(int ident, short filter, unsigned short flags, intptr_t data)
{
	struct kevent ch;

	EV_SET(&ch, (uintptr_t)ident, filter, flags, 0, data, NULL);
	if (kevent(kq, &ch, 1, NULL, 0, NULL) < 0)
		die("kevent");
}

static void put(const char *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = write(STDOUT_FILENO, buf, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die("write");
		buf += n;
		len -= (size_t)n;
	}
}

/* Copies from the offset to the end. */
static void copy(int fd)
{
	static char buf[64 * 1024];
	ssize_t n;

	while ((n = read(fd, buf, sizeof buf)) != 0) {
		if (n > 0)
			put(buf, (size_t)n);
		else if (errno != EINTR)
			die("read");
	}
}

/* Puts the offset before the last lines, as far as the last 8 KB hold them. */
static void seek_last_lines(int fd)
{
	char buf[8192];
	off_t end = lseek(fd, 0, SEEK_END), from = end > 8192 ? end - 8192 : 0;
	ssize_t n = pread(fd, buf, sizeof buf, from), i;
	int lines = 0;

	/* The newline that ends the last line opens no other. */
	for (i = n - 1; i > 0; i--)
		if (buf[i - 1] == '\n' && ++lines == LINES)
			break;
	lseek(fd, i > 0 ? from + i : from, SEEK_SET);
}

/* Another file under the name? Its descriptor, or -1. */
static int rotated(const char *path, int fd)
{
	struct stat named, held;
	int next;

	if (stat(path, &named) != 0 || fstat(fd, &held) != 0)
		return -1;	/* no new one yet: keep to the old one */
	if (named.st_dev == held.st_dev && named.st_ino == held.st_ino)
		return -1;
	next = open(path, O_RDONLY | O_CLOEXEC);
	if (next < 0 && errno != ENOENT)
		die(path);
	return next;
}

static int look(const char *path, int fd)
{
	int next = rotated(path, fd);

	if (next < 0)
		return fd;
	copy(fd);		/* what was written between the last event and now */
	change(next, EVFILT_READ, EV_ADD, 0);
	close(fd);
	return next;
}

int main(int argc, char **argv)
{
	struct kevent ev[2];
	int fd, i, n;

	if (argc != 2) {
		fprintf(stderr, "usage: tail FILE\n");
		return 1;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(argv[1]);
	kq = kqueue();
	if (kq < 0)
		die("kqueue");
	seek_last_lines(fd);
	change(fd, EVFILT_READ, EV_ADD, 0);
	change(LOOK, EVFILT_TIMER, EV_ADD, LOOK_MS);
	for (;;) {
		n = kevent(kq, NULL, 0, ev, 2, NULL);
		if (n < 0 && errno != EINTR)
			die("kevent");
		for (i = 0; i < n; i++) {
			if (ev[i].filter == EVFILT_TIMER) {
				fd = look(argv[1], fd);
			} else if (ev[i].ident == (uintptr_t)fd) {
				if (ev[i].data < 0)	/* cut: begin again */
					lseek(fd, 0, SEEK_SET);
				copy(fd);
			}
		}
	}
}
