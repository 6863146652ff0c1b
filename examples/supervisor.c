/*
 * A supervisor: keeps one child running for each command, and stops them all on SIGTERM.
 *
 *	cc -o supervisor supervisor.c $(pkg-config --cflags --libs libkqueue)
 *	./supervisor 'sleep 5' 'exec httpd -f'
 *
 * EVFILT_PROC with NOTE_EXIT says which child ended and how, with no SIGCHLD handler and
 * whatever else in the process waits for children of its own. A child that ends is started
 * again; one that does not last gets a pause before, which doubles. EVFILT_SIGNAL brings
 * SIGTERM and SIGINT as events: they are ignored as signals, so that nothing is
 * interrupted. Then the children get SIGTERM, and after a while SIGKILL.
 */
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/event.h>
#include <sys/wait.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	EVENTS = 16,
	LASTING_S = 10,		/* a child that ran for longer starts with no pause */
	PAUSE_MS = 250,
	LONGEST_PAUSE_MS = 30000,
	GRACE_MS = 5000,	/* between SIGTERM and SIGKILL */
	GRACE = -1		/* that timer; the others have their service's number */
};

struct service {
	const char *command;
	pid_t pid;		/* 0: not running */
	time_t started;
	int pause_ms;
};

static struct service *services;
static int nservices, running, stopping, kq;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int change(intptr_t ident, short filter, unsigned fflags, intptr_t data, void *udata)
{
	unsigned short flags = EV_ADD | (filter == EVFILT_TIMER ? EV_ONESHOT : 0);
	struct kevent ch;

	EV_SET(&ch, (uintptr_t)ident, filter, flags, fflags, data, udata);
	return kevent(kq, &ch, 1, NULL, 0, NULL);
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void start_later(struct service *s)
{
	if (s->pause_ms == 0)
		s->pause_ms = PAUSE_MS;
	if (change(s - services, EVFILT_TIMER, 0, s->pause_ms, s) < 0)
		die("kevent");
	s->pause_ms *= 2;
	if (s->pause_ms > LONGEST_PAUSE_MS)
		s->pause_ms = LONGEST_PAUSE_MS;
}

static void start(struct service *s)
{
	pid_t pid = fork();

	if (pid == 0) {
		/* A program inherits what is ignored. */
		signal(SIGTERM, SIG_DFL);
		signal(SIGINT, SIG_DFL);
		setpgid(0, 0);
		execl("/bin/sh", "sh", "-c", s->command, (char *)NULL);
		_exit(127);
	}
	if (pid < 0) {
		perror("fork");
		start_later(s);
		return;
	}
	/* In both, so that it holds before either goes on. */
	setpgid(pid, pid);
	/* It may have ended already: then that is reported all the same. */
	if (change(pid, EVFILT_PROC, NOTE_EXIT, 0, s) < 0)
		die("kevent");
	s->pid = pid;
	s->started = now();
	running++;
	printf("%s: started, %ld\n", s->command, (long)pid);
}

static void ended(struct service *s, int status)
{
	/* The event takes nothing away: the child is there to be waited for. */
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		;
	s->pid = 0;
	running--;
	if (WIFSIGNALED(status))
		printf("%s: signal %d%s\n", s->command, WTERMSIG(status),
		       WCOREDUMP(status) ? ", core dumped" : "");
	else
		printf("%s: exited with %d\n", s->command, WEXITSTATUS(status));
	if (stopping)
		return;
	if (now() - s->started >= LASTING_S) {
		s->pause_ms = 0;
		start(s);
	} else {
		start_later(s);
	}
}

static void signal_all(int sig)
{
	int i;

	for (i = 0; i < nservices; i++)
		if (services[i].pid > 0)
			kill(-services[i].pid, sig);
}

static void stop(void)
{
	if (stopping++)
		return;
	signal_all(SIGTERM);
	if (change(GRACE, EVFILT_TIMER, 0, GRACE_MS, NULL) < 0)
		die("kevent");
}

static void handle(const struct kevent *ev)
{
	struct service *s = ev->udata;

	switch (ev->filter) {
	case EVFILT_SIGNAL:
		stop();
		break;
	case EVFILT_PROC:
		ended(s, (int)ev->data);
		break;
	case EVFILT_TIMER:
		if (s == NULL)
			signal_all(SIGKILL);
		else if (!stopping)
			start(s);
		break;
	}
}

int main(int argc, char **argv)
{
	static const int stops[] = { SIGTERM, SIGINT };
	struct kevent ev[EVENTS];
	int i, n;

	if (argc < 2) {
		fprintf(stderr, "usage: %s COMMAND...\n", argv[0]);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if ((kq = kqueue()) < 0)
		die("kqueue");
	for (i = 0; i < 2; i++) {
		signal(stops[i], SIG_IGN);
		if (change(stops[i], EVFILT_SIGNAL, 0, 0, NULL) < 0)
			die("EVFILT_SIGNAL");
	}
	nservices = argc - 1;
	if ((services = calloc((size_t)nservices, sizeof *services)) == NULL)
		die("calloc");
	for (i = 0; i < nservices; i++) {
		services[i].command = argv[i + 1];
		start(&services[i]);
	}
	while (!stopping || running > 0) {
		if ((n = kevent(kq, NULL, 0, ev, EVENTS, NULL)) < 0 && errno != EINTR)
			die("kevent");
		for (i = 0; i < n; i++)
			handle(&ev[i]);
	}
	free(services);
	return 0;
}
