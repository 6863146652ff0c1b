/* EVFILT_VNODE: modes, descriptors that come and go, several watchers of one file. */
#include "vnode.h"

static int kq, fd;

static void begin(unsigned short flags, unsigned fflags)
{
	kq = new_kqueue();
	fd = file_of("f", 10);
	OK(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ADD | flags, fflags, 0, &fd) == 0);
}

static void end(void)
{
	close(fd);
	close(kq);
	clean();
}

static void again(int flags)
{
	OK(change(kq, (uintptr_t)fd, EVFILT_VNODE, flags, 0, 0, &fd) == 0);
}

CHECK(without_clear_the_event_stays_and_hints_gather)
{
	struct kevent ev;
	begin(0, EVERY);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	OK(fchmod(fd, 0640) == 0);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB);
	ev = ONE(kq);
	EQ(ev.flags, 0);
	OK(ev.udata == &fd);
	end();
}

CHECK(with_clear_it_comes_once)
{
	begin(EV_CLEAR, EVERY);
	put(fd, 1);
	EQ(ONE(kq).flags, EV_CLEAR);
	QUIET(kq);
	end();
}

CHECK(oneshot_is_not_used_up_by_other_operations)
{
	begin(EV_ONESHOT, NOTE_DELETE);
	put(fd, 1);
	OK(fchmod(fd, 0640) == 0 && rename(in("f"), in("g")) == 0);
	NONE(kq);
	OK(unlink(in("g")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	put(fd, 1);
	NONE(kq);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), ENOENT);
	end();
}

CHECK(dispatch_comes_once_until_enabled)
{
	begin(EV_DISPATCH | EV_CLEAR, EVERY);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	OK(fchmod(fd, 0640) == 0);
	NONE(kq);
	again(EV_ENABLE);
	HINTS(kq, fd, NOTE_ATTRIB);
	again(EV_ENABLE);
	NONE(kq);
	end();
}

CHECK(what_comes_while_disabled_is_delivered_when_enabled)
{
	begin(EV_CLEAR, EVERY);
	again(EV_DISABLE);
	put(fd, 1);
	NONE(kq);
	OK(unlink(in("f")) == 0);
	NONE(kq);
	again(EV_ENABLE);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND | NOTE_DELETE);
	NONE(kq);
	end();
}

CHECK(added_disabled_it_gathers)
{
	begin(EV_CLEAR | EV_DISABLE, EVERY);
	put(fd, 1);
	QUIET(kq);
	again(EV_ENABLE);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	end();
}

CHECK(adding_again_replaces_what_is_asked_for)
{
	begin(EV_CLEAR, NOTE_WRITE);
	OK(fchmod(fd, 0640) == 0 && link(in("f"), in("g")) == 0);
	WATCH(kq, fd, NOTE_ATTRIB | NOTE_LINK);
	NONE(kq);
	OK(fchmod(fd, 0600) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	put(fd, 1);
	NONE(kq);
	WATCH(kq, fd, NOTE_WRITE);
	put(fd, 1);
	OK(fchmod(fd, 0640) == 0);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	WATCH(kq, fd, 0);
	put(fd, 1);
	NONE(kq);
	WATCH(kq, fd, NOTE_EXTEND);
	OK(fchmod(fd, 0600) == 0);
	NONE(kq);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	end();
}

CHECK(other_hints_asked_for_after_the_last_name_went_are_told)
{
	begin(EV_CLEAR, NOTE_DELETE);
	OK(link(in("f"), in("g")) == 0 && unlink(in("f")) == 0 && unlink(in("g")) == 0);
	WATCH(kq, fd, NOTE_WRITE);
	HINTS(kq, fd, NOTE_DELETE);
	EQ(pwrite(fd, "x", 1, 0), 1);
	HINTS(kq, fd, NOTE_WRITE);
	end();
}

CHECK(what_happened_before_other_hints_were_asked_for_is_not_lost)
{
	begin(EV_CLEAR, NOTE_WRITE);
	put(fd, 1);
	WATCH(kq, fd, NOTE_ATTRIB);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	NONE(kq);
	end();
}

CHECK(what_happened_before_the_add_is_not_told)
{
	int other, second = new_kqueue();
	begin(EV_CLEAR, EVERY | USES);
	put(fd, 1);
	other = open(in("f"), O_RDONLY | O_CLOEXEC);
	WATCH(second, fd, EVERY | USES);
	NONE(second);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND | NOTE_OPEN);
	close(other);
	HINTS(second, fd, NOTE_CLOSE);
	HINTS(kq, fd, NOTE_CLOSE);
	close(second);
	end();
}

CHECK(delete_ends_it_and_a_pending_event_goes_along)
{
	begin(0, EVERY);
	put(fd, 1);
	again(EV_DELETE);
	put(fd, 1);
	QUIET(kq);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), ENOENT);
	end();
}

CHECK(two_descriptors_of_one_file_have_their_own_hints)
{
	struct kevent ev[3];
	int other, i, n;
	begin(EV_CLEAR, NOTE_WRITE);
	other = open(in("f"), O_RDONLY | O_CLOEXEC);
	WATCH(kq, other, NOTE_ATTRIB | NOTE_LINK);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	OK(fchmod(fd, 0640) == 0);
	HINTS(kq, other, NOTE_ATTRIB);
	put(fd, 1);
	OK(link(in("f"), in("g")) == 0);
	n = collect(kq, ev, 3, 1000);
	EQ(n, 2);
	for (i = 0; i < n; i++)
		EQ(ev[i].fflags, ev[i].ident == (uintptr_t)fd ? (NOTE_WRITE | NOTE_EXTEND) : NOTE_LINK);
	OK(change(kq, (uintptr_t)other, EVFILT_VNODE, EV_DELETE, 0, 0, NULL) == 0);
	OK(fchmod(fd, 0600) == 0);
	NONE(kq);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	close(other);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	end();
}

CHECK(two_queues_on_one_file_are_independent)
{
	int other = new_kqueue();
	begin(EV_CLEAR, EVERY);
	WATCH(other, fd, NOTE_WRITE);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	HINTS(other, fd, NOTE_WRITE | NOTE_EXTEND);
	close(other);
	libkqueue_drain_pending_close();
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	end();
}

CHECK(read_and_vnode_on_one_file_are_independent)
{
	begin(EV_CLEAR, NOTE_WRITE);
	ADD(kq, fd, EVFILT_READ, EV_CLEAR);
	NONE(kq);
	EQ(pwrite(fd, "x", 1, 0), 1);
	HINTS(kq, fd, NOTE_WRITE);
	again(EV_DELETE);
	EQ(pwrite(fd, "xyz", 3, 10), 3);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 3);
	WATCH(kq, fd, NOTE_WRITE);
	OK(change(kq, (uintptr_t)fd, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	EQ(pwrite(fd, "x", 1, 0), 1);
	HINTS(kq, fd, NOTE_WRITE);
	end();
}

CHECK(closing_the_watched_descriptor_is_no_event)
{
	int other;
	begin(EV_CLEAR, EVERY | USES);
	put(fd, 1);
	OK(link(in("f"), in("g")) == 0);
	close(fd);
	QUIET(kq);
	other = open(in("g"), O_RDWR | O_CLOEXEC);
	EQ(other, fd);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), ENOENT);
	end();
}

CHECK(a_closed_descriptor_is_ebadf_and_its_level_event_goes)
{
	begin(0, EVERY);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	close(fd);
	NONE(kq);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ENABLE, 0, 0, NULL), EBADF);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), EBADF);
	end();
}

CHECK(a_file_on_a_reused_number_is_not_the_old_one)
{
	int i, other;
	begin(EV_CLEAR, EVERY);
	/* Inode numbers are used again at once on many file systems. */
	for (i = 0; i < 200; i++) {
		put(fd, 1);
		OK(unlink(in("f")) == 0);
		close(fd);
		other = file_of("f", i % 20);
		EQ(other, fd);
		if (i % 2)
			NONE(kq);
		if (i % 3 == 0)
			FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ENABLE, 0, 0, NULL), ENOENT);
		WATCH(kq, fd, EVERY);
		NONE(kq);
		put(fd, 1);
		HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	}
	end();
}

CHECK(an_unlinked_file_on_a_reused_inode_is_not_the_old_one)
{
	int i, other;
	kq = new_kqueue();
	fd = file_of("f", 0);
	OK(unlink(in("f")) == 0);
	for (i = 0; i < 200; i++) {
		WATCH(kq, fd, EVERY);
		put(fd, 1);
		close(fd);
		other = file_of("f", 3);
		EQ(other, fd);
		OK(unlink(in("f")) == 0);
		put(fd, 1);
		NONE(kq);
		FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), ENOENT);
	}
	end();
}

CHECK(another_kind_of_file_on_a_reused_number_is_refused)
{
	int p[2];
	begin(EV_CLEAR, EVERY);
	OK(pipe2(p, O_CLOEXEC) == 0);
	OK(dup2(p[0], fd) == fd);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ADD, EVERY, 0, NULL), EINVAL);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DELETE, 0, 0, NULL), ENOENT);
	put(p[1], 1);
	NONE(kq);
	close(p[0]);
	close(p[1]);
	end();
}

CHECK(poll_sees_the_queue_readable)
{
	begin(EV_CLEAR, EVERY);
	NONE(kq);
	EQ(polled(kq, POLLIN), 0);
	put(fd, 1);
	SETTLE(kq, POLLIN);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	NONE(kq);
	EQ(polled(kq, POLLIN), 0);
	end();
}

CHECK(a_queue_that_watches_the_queue_sees_it_too)
{
	int outer = new_kqueue();
	begin(EV_CLEAR, EVERY);
	ADD(outer, kq, EVFILT_READ, 0);
	NONE(outer);
	put(fd, 1);
	EQ(EVENT(outer, kq, EVFILT_READ).data, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	NONE(outer);
	close(outer);
	end();
}

CHECK(a_sleeping_call_is_woken)
{
	begin(EV_CLEAR, EVERY);
	WAKES(kq, write(fd, "x", 1) == 1, NOTE_WRITE | NOTE_EXTEND);
	end();
}

CHECK(a_forked_child_has_its_own_and_leaves_the_parents_alone)
{
	int status;
	pid_t pid;
	begin(EV_CLEAR, EVERY);
	pid = fork();
	OK(pid >= 0);
	if (pid == 0) {
		struct kevent ev;
		int own = kqueue();
		if (change(own, (uintptr_t)fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, EVERY, 0, NULL) != 0)
			_exit(1);
		if (write(fd, "x", 1) != 1 || collect(own, &ev, 1, 10000) != 1)
			_exit(2);
		_exit(ev.fflags == (NOTE_WRITE | NOTE_EXTEND) ? 0 : 3);
	}
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	end();
}

/* Each of these threads waits in a queue of its own for the same file. */
struct waiter { int kq, events; };
static int stop;

static void *wait_for_it(void *arg)
{
	struct waiter *w = arg;
	struct kevent ev;
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
		if (collect(w->kq, &ev, 1, 1) == 1)
			__atomic_add_fetch(&w->events, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

CHECK(a_change_before_the_call_is_seen_though_other_threads_read_the_queue)
{
	enum { N = 3 };
	struct waiter w[N];
	pthread_t t[N];
	int i;
	begin(EV_CLEAR, NOTE_WRITE);
	for (i = 0; i < N; i++) {
		w[i].kq = new_kqueue();
		w[i].events = 0;
		WATCH(w[i].kq, fd, NOTE_WRITE);
		OK(pthread_create(&t[i], NULL, wait_for_it, &w[i]) == 0);
	}
	for (i = 0; i < 3000; i++) {
		struct kevent ev;
		EQ(pwrite(fd, "x", 1, 0), 1);
		if (collect(kq, &ev, 1, 0) != 1)
			FAIL("no event after write %d", i);
		EQ(ev.fflags, NOTE_WRITE);
	}
	for (i = 0; i < N; i++)
		UNTIL(__atomic_load_n(&w[i].events, __ATOMIC_SEQ_CST) > 0);
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < N; i++) {
		OK(pthread_join(t[i], NULL) == 0);
		close(w[i].kq);
	}
	end();
}

CHECKS(
	C(without_clear_the_event_stays_and_hints_gather)
	C(with_clear_it_comes_once)
	C(oneshot_is_not_used_up_by_other_operations)
	C(dispatch_comes_once_until_enabled)
	C(what_comes_while_disabled_is_delivered_when_enabled)
	C(added_disabled_it_gathers)
	C(adding_again_replaces_what_is_asked_for)
	C(other_hints_asked_for_after_the_last_name_went_are_told)
	C(what_happened_before_other_hints_were_asked_for_is_not_lost)
	C(what_happened_before_the_add_is_not_told)
	C(delete_ends_it_and_a_pending_event_goes_along)
	C(two_descriptors_of_one_file_have_their_own_hints)
	C(two_queues_on_one_file_are_independent)
	C(read_and_vnode_on_one_file_are_independent)
	C(closing_the_watched_descriptor_is_no_event)
	C(a_closed_descriptor_is_ebadf_and_its_level_event_goes)
	C(a_file_on_a_reused_number_is_not_the_old_one)
	C(an_unlinked_file_on_a_reused_inode_is_not_the_old_one)
	C(another_kind_of_file_on_a_reused_number_is_refused)
	C(poll_sees_the_queue_readable)
	C(a_queue_that_watches_the_queue_sees_it_too)
	C(a_sleeping_call_is_woken)
	C(a_forked_child_has_its_own_and_leaves_the_parents_alone)
	C(a_change_before_the_call_is_seen_though_other_threads_read_the_queue)
);
