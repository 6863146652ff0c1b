/*
 * A program with much thread-local storage: libc takes it from the stacks of
 * threads, the library's own included.
 */
#include "engine_util.h"

enum { MUCH = 400 * 1024 };

static __thread char much[MUCH];

CHECK(much_thread_local_storage_leaves_the_library_its_stack)
{
	struct pollfd p = { -1, POLLIN, 0 };
	int ends[2];
	memset(much, 1, sizeof much);
	p.fd = new_kqueue();
	pipe_open(ends);
	OK(change(p.fd, (uintptr_t)ends[0], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	EQ(poll(&p, 1, 0), 0);
	/* The library's thread has to show this. */
	put(ends[1]);
	EQ(poll(&p, 1, 10000), 1);
	EQ(ONE(p.fd).ident, ends[0]);
	EQ(much[MUCH / 2], 1);
	OK(close(p.fd) == 0);
	pipe_close(ends);
}

CHECKS(
	C(much_thread_local_storage_leaves_the_library_its_stack)
);
