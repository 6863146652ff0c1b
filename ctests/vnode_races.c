/* EVFILT_VNODE while files change in the middle of the calls that watch them. */
#include "vnode.h"

enum { ROUNDS = 400 };

/* Another thread removes a name, at the same time as this one goes on. */
struct remover { pthread_t thread; pthread_barrier_t both; char path[SCRATCH + 100]; int directory, after_ns; };

static void *remove_name(void *arg)
{
	struct remover *r = arg;
	long long until;
	pthread_barrier_wait(&r->both);
	for (until = now_ns() + r->after_ns; now_ns() < until;)
		;
	OK((r->directory ? rmdir : unlink)(r->path) == 0);
	return NULL;
}

static void start_removing(struct remover *r, const char *path, int directory, int after_ns)
{
	snprintf(r->path, sizeof r->path, "%s", path);
	r->directory = directory;
	r->after_ns = after_ns;
	OK(pthread_barrier_init(&r->both, NULL, 2) == 0);
	OK(pthread_create(&r->thread, NULL, remove_name, r) == 0);
	pthread_barrier_wait(&r->both);
}

static void removed(struct remover *r)
{
	OK(pthread_join(r->thread, NULL) == 0);
	pthread_barrier_destroy(&r->both);
}

/* What comes of a descriptor: hints or'd. The first may be on its way still. */
static unsigned hints_of(int kq)
{
	struct kevent ev;
	unsigned all = 0;
	long patience = 10000;
	while (collect(kq, &ev, 1, patience) == 1) {
		all |= ev.fflags;
		patience = 0;
	}
	return all;
}

/* The hints change again and again, NOTE_DELETE among them always. */
static void asked_anew_beside_a_removal(int directory)
{
	struct remover r;
	int kq = kqueue(), fd, i, k;
	unsigned seen;
	OK(kq >= 0);
	for (i = 0; i < ROUNDS; i++) {
		fd = directory ? dir_of("d") : file_of("f", 1);
		WATCH(kq, fd, NOTE_DELETE);
		NONE(kq);
		start_removing(&r, in(directory ? "d" : "f"), directory, i % 50 * 1000);
		for (k = 0; k < 8; k++)
			WATCH(kq, fd, NOTE_DELETE | (k % 2 ? 0 : NOTE_LINK | NOTE_WRITE));
		removed(&r);
		seen = hints_of(kq);
		if (seen != NOTE_DELETE)
			FAIL("round %d: 0x%x", i, seen);
		OK(close(fd) == 0);
	}
	OK(close(kq) == 0);
	clean();
}

CHECK(a_removal_while_other_hints_are_asked_for_is_delete) { asked_anew_beside_a_removal(0); }
CHECK(a_rmdir_while_other_hints_are_asked_for_is_delete) { asked_anew_beside_a_removal(1); }

/* The last name, not the one opened, goes while the hints change: the kernel drops its watch then. */
CHECK(a_file_whose_last_name_goes_while_other_hints_are_asked_for_has_one_knote)
{
	struct remover r;
	int kq = kqueue(), fd, i, k;
	OK(kq >= 0);
	for (i = 0; i < 2 * ROUNDS; i++) {
		fd = file_of("f", 1);
		OK(link(in("f"), in("g")) == 0);
		OK(unlink(in("f")) == 0);
		WATCH(kq, fd, NOTE_WRITE);
		start_removing(&r, in("g"), 0, i % 50 * 500);
		for (k = 0; k < 4; k++)
			WATCH(kq, fd, k % 2 ? NOTE_WRITE : NOTE_DELETE);
		removed(&r);
		EQ(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), 0);
		FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), ENOENT);
		put(fd, 1);
		NONE(kq);
		OK(close(fd) == 0);
	}
	OK(close(kq) == 0);
	clean();
}

CHECKS(
	C(a_removal_while_other_hints_are_asked_for_is_delete)
	C(a_rmdir_while_other_hints_are_asked_for_is_delete)
	C(a_file_whose_last_name_goes_while_other_hints_are_asked_for_has_one_knote)
);
