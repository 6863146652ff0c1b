/*
 * Steps of scenarios in which a system call fails: each is done, or refused with an errno
 * and possible afterwards.
 */
#ifndef FAULT_STEPS_H
#define FAULT_STEPS_H
#include "fault_inject.h"

/* Descriptors that serve all kqueues of a process, at most: they come with the first. */
enum { SHARED = 6 };

/* --- steps ------------------------------------------------------------------ */

static int sane(int error)
{
	switch (error) {
	case EMFILE: case ENFILE: case ENOMEM: case ENOSPC: case EAGAIN: case EINTR:
	case EOPNOTSUPP: case EACCES: case EPERM: case ENOBUFS: case ENOSYS: case EINVAL: case EIO: case ENOTTY:
	case ENOPROTOOPT: case EBUSY: case EAFNOSUPPORT: case ECONNREFUSED: case EADDRINUSE: case ENOENT: case ESRCH:
		return 1;
	}
	return 0;
}

static int must_kqueue(void)
{
	int before = count_fds(), kq = (int)INSIDE(kqueue());
	if (kq < 0) {
		OK(sane(errno));
		/* What serves all kqueues of the process may be there already. */
		OK(count_fds() <= before + SHARED);
		kq = kqueue();
		OK(kq >= 0);
	}
	return kq;
}

static int change_inside(int kq, uintptr_t ident, int filter, int flags, unsigned fflags, intptr_t data)
{
	struct kevent kev;
	EV_SET(&kev, ident, filter, flags, fflags, data, NULL);
	return (int)INSIDE(kevent(kq, &kev, 1, NULL, 0, NULL));
}

/* EV_ADD of a knote that is not there: done, or nothing done. */
static void must_add(int kq, uintptr_t ident, int filter, int flags, unsigned fflags, intptr_t data)
{
	if (change_inside(kq, ident, filter, EV_ADD | flags, fflags, data) != 0) {
		OK(sane(errno));
		FAILS(change(kq, ident, filter, EV_DELETE, 0, 0, NULL), ENOENT);
		OK(change(kq, ident, filter, EV_ADD | flags, fflags, data, NULL) == 0);
	}
}

/* Any other change of a knote: done, or refused and possible later. */
static void must_change(int kq, uintptr_t ident, int filter, int flags, unsigned fflags)
{
	if (change_inside(kq, ident, filter, flags, fflags, 0) != 0) {
		OK(sane(errno) && errno != ENOENT);
		OK(change(kq, ident, filter, flags, fflags, 0, NULL) == 0);
	}
}

static void must_delete(int kq, uintptr_t ident, int filter)
{
	if (change_inside(kq, ident, filter, EV_DELETE, 0, 0) != 0) {
		OK(sane(errno) && errno != ENOENT);
		if (change(kq, ident, filter, EV_DELETE, 0, 0, NULL) != 0)
			OK(errno == ENOENT);
	}
	FAILS(change(kq, ident, filter, EV_DELETE, 0, 0, NULL), ENOENT);
}

static void is_event(const struct kevent *e, uintptr_t ident, int filter)
{
	EQ(e->ident, ident);
	EQ(e->filter, filter);
	OK(!(e->flags & EV_ERROR));
}

/* The event is pending: it comes, or the call fails and it comes in the next. */
static void must_come(int kq, uintptr_t ident, int filter, long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };
	struct kevent ev[2];
	int n = (int)INSIDE(kevent(kq, NULL, 0, ev, 2, ms < 0 ? NULL : &ts));
	if (n < 0) {
		OK(sane(errno));
		n = collect(kq, ev, 2, 5000);
	}
	EQ(n, 1);
	is_event(ev, ident, filter);
}

/* Nothing is pending. */
static void must_be_quiet(int kq)
{
	struct timespec zero = { 0, 0 };
	struct kevent ev[1];
	int n = (int)INSIDE(kevent(kq, NULL, 0, ev, 1, &zero));
	OK(n == 0 || (n == -1 && sane(errno)));
	NONE(kq);
}

static long drain_closed(void)
{
	libkqueue_drain_pending_close();
	return 0;
}

static void must_close(int kq, int before)
{
	OK(close(kq) == 0);
	OK(INSIDE(drain_closed()) == 0);
	libkqueue_drain_pending_close();
	/* What serves all kqueues stays for the next. */
	UNTIL(count_fds() <= before + SHARED);
}

/* Makes a kqueue that needs everything anew, and sees that it works. */
static void still_works(void)
{
	int kq = kqueue(), p[2], before = count_fds();
	OK(kq >= 0);
	OK(pipe2(p, O_CLOEXEC) == 0);
	OK(change(kq, 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1, NULL) == 0);
	EQ(ONE(kq).filter, EVFILT_TIMER);
	OK(change(kq, (uintptr_t)p[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	OK(write(p[1], "x", 1) == 1);
	EQ(ONE(kq).filter, EVFILT_READ);
	OK(close(p[0]) == 0 && close(p[1]) == 0);
	OK(close(kq) == 0);
	libkqueue_drain_pending_close();
	UNTIL(count_fds() < before);
}

/* Its own thread's calls fail, then those of the library's thread. */
#define FAULTS(scene) CHECK(each_call_fails_once_##scene) { each_fault(scene_##scene, 0); } \
	CHECK(each_call_of_the_monitor_fails_once_##scene) { each_fault(scene_##scene, 1); }
#define BOTH(scene) C(each_call_fails_once_##scene) C(each_call_of_the_monitor_fails_once_##scene)
#endif
