/* EVFILT_PROC: NOTE_FORK, NOTE_EXEC and NOTE_TRACK, which come from the process connector. */
#include "proc_util.h"

/* A kqueue and a child, where the connector speaks. */
static int kq;
static struct child c;

static void begin(void)
{
	kq = kqueue();
	need_connector(kq);
	c = child();
}

static void finish(void)
{
	let_go(&c);
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
	close(kq);
}

/* The event of this ident and these notes must be among the next ones. */
struct seen { struct kevent ev[64]; int n; };

static void gather(struct seen *s, int n)
{
	while (s->n < n) {
		int got = collect(kq, s->ev + s->n, 64 - s->n, 10000);
		if (got <= 0)
			FAIL("%d of %d events came (errno %d)", s->n, n, errno);
		s->n += got;
	}
}

static struct kevent *find(struct seen *s, unsigned notes, int nth)
{
	int i;
	for (i = 0; i < s->n; i++)
		if (s->ev[i].fflags & notes && nth-- == 0)
			return &s->ev[i];
	FAIL("no event with fflags 0x%x among %d", notes, s->n);
}

CHECK(fork_is_an_event_at_once)
{
	begin();
	WATCH(kq, c.pid, NOTE_FORK);
	NONE(kq);
	command(&c, FORK);
	/* It has happened, so a call that does not wait sees it. */
	{
		struct kevent ev;
		EQ(collect(kq, &ev, 1, 0), 1);
		EQ(ev.ident, c.pid);
		EQ(ev.fflags, NOTE_FORK);
		EQ(ev.flags, EV_CLEAR);
		EQ(ev.data, 0);
	}
	NONE(kq);
	finish();
}

CHECK(vfork_is_a_fork)
{
	begin();
	WATCH(kq, c.pid, NOTE_FORK);
	command(&c, VFORK);
	EVENT(kq, c.pid, NOTE_FORK, 0);
	finish();
}

CHECK(thread_is_no_fork)
{
	begin();
	WATCH(kq, c.pid, NOTE_FORK | NOTE_EXEC | NOTE_EXIT | NOTE_TRACK);
	command(&c, THREAD);
	NONE(kq);
	finish();
}

CHECK(forks_unread_are_one_event)
{
	int i;
	begin();
	WATCH(kq, c.pid, NOTE_FORK);
	for (i = 0; i < 5; i++)
		command(&c, FORK);
	EVENT(kq, c.pid, NOTE_FORK, 0);
	NONE(kq);
	command(&c, FORK);
	EVENT(kq, c.pid, NOTE_FORK, 0);
	finish();
}

CHECK(exec_is_an_event)
{
	char done;
	begin();
	WATCH(kq, c.pid, NOTE_EXEC | NOTE_EXIT);
	order(&c, EXEC);
	EQ(read(c.answers, &done, 1), 0);
	EVENT(kq, c.pid, NOTE_EXEC, 0);
	NONE(kq);
	finish();
}

CHECK(exec_that_fails_is_none)
{
	begin();
	WATCH(kq, c.pid, NOTE_EXEC);
	command(&c, EXEC_NOTHING);
	NONE(kq);
	finish();
}

CHECK(exec_by_another_thread_is_an_event_and_no_exit)
{
	char done;
	begin();
	WATCH(kq, c.pid, NOTE_EXEC | NOTE_EXIT | NOTE_FORK);
	order(&c, THREAD_EXEC);
	EQ(read(c.answers, &done, 1), 0);
	EVENT(kq, c.pid, NOTE_EXEC, 0);
	NONE(kq);
	finish();
}

CHECK(what_was_not_asked_for_is_not_reported)
{
	char done;
	begin();
	WATCH(kq, c.pid, NOTE_FORK);
	order(&c, EXEC);
	EQ(read(c.answers, &done, 1), 0);
	NONE(kq);
	finish();
}

CHECK(fork_exec_and_exit_unread_are_one_event_with_the_status)
{
	begin();
	WATCH(kq, c.pid, NOTE_FORK | NOTE_EXEC | NOTE_EXIT);
	command(&c, FORK);
	order(&c, EXEC_TRUE);
	until_zombie(c.pid);
	EVENT(kq, c.pid, NOTE_FORK | NOTE_EXEC | NOTE_EXIT, 0);
	NONE(kq);
	finish();
}

CHECK(fork_and_exit_carry_the_status)
{
	struct kevent e;
	begin();
	WATCH(kq, c.pid, NOTE_FORK | NOTE_EXIT);
	command(&c, FORK);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	e = ONE(kq);
	EQ(e.fflags, NOTE_FORK | NOTE_EXIT);
	EQ(e.data, 3 << 8);
	EQ(e.flags, EV_CLEAR | EV_ONESHOT | EV_EOF);
	finish();
}

/* The end is in the kernel behind the sockets, its knote waits for the fork already. */
CHECK(fork_and_exit_are_one_event_with_little_room_and_much_else_ready)
{
	enum { OTHERS = 16 };
	int room, i, s[OTHERS][2];
	for (i = 0; i < OTHERS; i++) {
		OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s[i]) == 0);
		EQ(write(s[i][1], "x", 1), 1);
	}
	for (room = 1; room <= 9; room++) {
		struct kevent ev[9];
		struct pollfd p;
		begin();
		WATCH(kq, c.pid, NOTE_FORK | NOTE_EXIT);
		command(&c, FORK);
		p.fd = kq;
		p.events = POLLIN;
		EQ(poll(&p, 1, 10000), 1);
		for (i = 0; i < OTHERS; i++)
			EQ(change(kq, (uintptr_t)s[i][0], EVFILT_READ, EV_ADD, 0, 0, NULL), 0);
		order(&c, EXIT_3);
		until_zombie(c.pid);
		EQ(collect(kq, ev, room, 0), room);
		EQ(ev[0].ident, c.pid);
		EQ(ev[0].fflags, NOTE_FORK | NOTE_EXIT);
		EQ(ev[0].data, 3 << 8);
		finish();
	}
	for (i = 0; i < OTHERS; i++)
		OK(close(s[i][0]) == 0 && close(s[i][1]) == 0);
}

CHECK(fork_then_an_end_not_asked_for_is_the_last_event)
{
	struct kevent e;
	begin();
	WATCH(kq, c.pid, NOTE_FORK);
	command(&c, FORK);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	e = ONE(kq);
	EQ(e.fflags, NOTE_FORK);
	EQ(e.data, 0);
	EQ(e.flags, EV_CLEAR | EV_ONESHOT | EV_EOF);
	FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
	finish();
}

CHECK(own_forks_can_be_watched)
{
	pid_t pid;
	begin();
	WATCH(kq, getpid(), NOTE_FORK);
	OK((pid = fork()) >= 0);
	if (pid == 0)
		_exit(0);
	EVENT(kq, getpid(), NOTE_FORK, 0);
	reap(pid);
	finish();
}

CHECK(disabling_hides_a_fork_until_enabled)
{
	begin();
	WATCH(kq, c.pid, NOTE_FORK);
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DISABLE, 0, 0, NULL), 0);
	command(&c, FORK);
	NONE(kq);
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ENABLE, 0, 0, NULL), 0);
	EVENT(kq, c.pid, NOTE_FORK, 0);
	finish();
}

CHECK(oneshot_tells_of_one_fork)
{
	begin();
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ADD | EV_ONESHOT, NOTE_FORK, 0, NULL), 0);
	command(&c, FORK);
	EVENT(kq, c.pid, NOTE_FORK, 0);
	command(&c, FORK);
	NONE(kq);
	FAILS(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
	finish();
}

CHECK(adding_again_changes_what_is_reported)
{
	begin();
	WATCH(kq, c.pid, NOTE_EXIT);
	command(&c, FORK);
	NONE(kq);
	WATCH(kq, c.pid, NOTE_EXIT | NOTE_FORK);
	command(&c, FORK);
	EVENT(kq, c.pid, NOTE_FORK, 0);
	WATCH(kq, c.pid, NOTE_EXIT);
	command(&c, FORK);
	NONE(kq);
	order(&c, EXIT_3);
	EVENT(kq, c.pid, NOTE_EXIT, 3 << 8);
	finish();
}

CHECK(tracked_child_is_announced_with_its_parent)
{
	struct seen s = { .n = 0 };
	struct kevent *child_, *forked;
	pid_t grandchild;
	begin();
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_ADD, NOTE_TRACK | NOTE_FORK | NOTE_EXIT, 0, (void *)0x99), 0);
	command(&c, FORK_LASTING);
	gather(&s, 2);
	child_ = find(&s, NOTE_CHILD, 0);
	forked = find(&s, NOTE_FORK, 0);
	OK(child_ != forked);
	EQ(forked->ident, c.pid);
	EQ(forked->fflags, NOTE_FORK);
	EQ(child_->fflags, NOTE_CHILD);
	EQ(child_->data, c.pid);
	OK(child_->udata == (void *)0x99);
	OK(child_->flags & EV_ONESHOT);
	grandchild = (pid_t)child_->ident;
	OK(grandchild != c.pid && kill(grandchild, 0) == 0);
	NONE(kq);
	kill(grandchild, SIGTERM);
	EVENT(kq, grandchild, NOTE_EXIT, SIGTERM);
	NONE(kq);
	finish();
}

CHECK(tracking_without_note_fork_reports_the_child_alone)
{
	struct kevent e;
	begin();
	WATCH(kq, c.pid, NOTE_TRACK);
	command(&c, FORK);
	e = ONE(kq);
	EQ(e.fflags, NOTE_CHILD);
	EQ(e.data, c.pid);
	finish();
}

CHECK(short_lived_child_has_two_separate_events)
{
	struct seen s = { .n = 0 };
	struct kevent *born, *ended;
	begin();
	WATCH(kq, c.pid, NOTE_TRACK | NOTE_EXIT);
	command(&c, FORK);
	gather(&s, 2);
	born = find(&s, NOTE_CHILD, 0);
	ended = find(&s, NOTE_EXIT, 0);
	OK(born < ended);
	EQ(born->ident, ended->ident);
	EQ(born->fflags, NOTE_CHILD);
	EQ(born->data, c.pid);
	EQ(ended->fflags, NOTE_EXIT);
	EQ(ended->data, 5 << 8);
	OK(ended->flags & EV_EOF);
	NONE(kq);
	FAILS(change(kq, born->ident, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
	finish();
}

CHECK(with_room_for_one_the_announcement_comes_first)
{
	struct kevent e;
	uintptr_t ident;
	begin();
	WATCH(kq, c.pid, NOTE_TRACK | NOTE_EXIT);
	command(&c, FORK);
	e = ONE_OF(kq);
	EQ(e.fflags, NOTE_CHILD);
	ident = e.ident;
	e = ONE_OF(kq);
	EQ(e.fflags, NOTE_EXIT);
	EQ(e.ident, ident);
	finish();
}

CHECK(grandchildren_are_tracked)
{
	struct seen s = { .n = 0 };
	struct kevent *first, *second;
	begin();
	WATCH(kq, c.pid, NOTE_TRACK | NOTE_EXIT);
	command(&c, FORK_DEEP);
	gather(&s, 4);
	first = find(&s, NOTE_CHILD, 0);
	second = find(&s, NOTE_CHILD, 1);
	EQ(first->data, c.pid);
	EQ(second->data, first->ident);
	EQ(find(&s, NOTE_EXIT, 0)->ident, second->ident);
	EQ(find(&s, NOTE_EXIT, 0)->data, 6 << 8);
	EQ(find(&s, NOTE_EXIT, 1)->ident, first->ident);
	EQ(find(&s, NOTE_EXIT, 1)->data, 5 << 8);
	finish();
}

CHECK(childs_knote_outlives_its_parents)
{
	struct kevent e;
	begin();
	WATCH(kq, c.pid, NOTE_TRACK | NOTE_EXIT);
	command(&c, FORK_LASTING);
	/* The announcement is not even read. */
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), 0);
	e = ONE(kq);
	EQ(e.fflags, NOTE_CHILD);
	kill((pid_t)e.ident, SIGTERM);
	EVENT(kq, e.ident, NOTE_EXIT, SIGTERM);
	command(&c, FORK);
	NONE(kq);
	finish();
}

CHECK(childs_knote_can_be_deleted)
{
	struct kevent e;
	begin();
	WATCH(kq, c.pid, NOTE_TRACK | NOTE_EXIT);
	command(&c, FORK_LASTING);
	e = ONE(kq);
	EQ(e.fflags, NOTE_CHILD);
	EQ(change(kq, e.ident, EVFILT_PROC, EV_DELETE, 0, 0, NULL), 0);
	FAILS(change(kq, e.ident, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
	kill((pid_t)e.ident, SIGTERM);
	command(&c, FORK);
	/* Only the new child's two. */
	{
		struct seen s = { .n = 0 };
		gather(&s, 2);
		OK(s.ev[0].ident != e.ident && s.ev[1].ident != e.ident);
	}
	finish();
}

CHECK(childs_exec_is_reported)
{
	struct seen s = { .n = 0 };
	pid_t own = 0, pid;
	int p[2];
	begin();
	OK(pipe2(p, O_CLOEXEC) == 0);
	if ((own = fork()) == 0) {
		char go;
		if (read(p[0], &go, 1) != 1)
			_exit(1);
		if ((pid = fork()) == 0)
			exec_sleep(NULL);
		waitpid(pid, NULL, 0);
		_exit(0);
	}
	WATCH(kq, own, NOTE_TRACK | NOTE_EXEC | NOTE_EXIT);
	EQ(write(p[1], "g", 1), 1);
	gather(&s, 2);
	pid = (pid_t)find(&s, NOTE_CHILD, 0)->ident;
	EQ(find(&s, NOTE_EXEC, 0)->ident, pid);
	kill(pid, SIGKILL);
	s.n = 0;
	gather(&s, 2);
	EQ(find(&s, NOTE_EXIT, 0)->data + find(&s, NOTE_EXIT, 1)->data, SIGKILL);
	reap(own);
	close(p[0]);
	close(p[1]);
	finish();
}

/* The child's first thread ends, then another reads on and forks. */
CHECK(tracked_child_whose_first_thread_left_has_not_ended)
{
	struct seen s = { .n = 0 };
	int orders[2], answers[2];
	pid_t own, pid;
	char done;
	begin();
	OK(pipe2(orders, O_CLOEXEC) == 0 && pipe2(answers, O_CLOEXEC) == 0);
	if ((own = fork()) == 0) {
		char go;
		if (read(orders[0], &go, 1) != 1)
			_exit(1);
		if ((pid = fork()) == 0) {
			struct child me;
			me.pid = getpid();
			me.orders = orders[0];
			me.answers = answers[1];
			obey(&me);
		}
		waitpid(pid, NULL, 0);
		_exit(0);
	}
	WATCH(kq, own, NOTE_TRACK | NOTE_EXIT);
	EQ(write(orders[1], "g", 1), 1);
	gather(&s, 1);
	pid = (pid_t)find(&s, NOTE_CHILD, 0)->ident;
	EQ(write(orders[1], "lt", 2), 2);
	EQ(read(answers[0], &done, 1), 1);
	NONE(kq);
	EQ(write(orders[1], "x", 1), 1);
	EVENT(kq, pid, NOTE_EXIT, 3 << 8);
	EVENT(kq, own, NOTE_EXIT, 0);
	reap(own);
	close(orders[0]);
	close(orders[1]);
	close(answers[0]);
	close(answers[1]);
	finish();
}

CHECK(several_kqueues_each_get_each_event)
{
	enum { N = 4 };
	int more[N], i;
	begin();
	for (i = 0; i < N; i++) {
		more[i] = kqueue();
		WATCH(more[i], c.pid, NOTE_FORK | NOTE_EXIT | NOTE_TRACK);
	}
	command(&c, FORK);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	for (i = 0; i < N; i++) {
		struct kevent ev[8];
		int n = 0;
		while (n < 3) {
			int got = collect(more[i], ev + n, 8 - n, 10000);
			OK(got > 0);
			n += got;
		}
		EQ(n, 3);
		NONE(more[i]);
		close(more[i]);
	}
	finish();
}

CHECK(sleeping_call_and_poll_see_a_fork)
{
	struct pollfd p;
	begin();
	p.fd = kq;
	p.events = POLLIN;
	WATCH(kq, c.pid, NOTE_FORK);
	NONE(kq);
	EQ(poll(&p, 1, 0), 0);
	order(&c, FORK);
	EQ(poll(&p, 1, 10000), 1);
	EVENT(kq, c.pid, NOTE_FORK, 0);
	order(&c, FORK);
	EVENT(kq, c.pid, NOTE_FORK, 0);
	finish();
}

CHECK(connector_is_open_only_while_it_is_needed)
{
	int before, other;
	kq = kqueue();
	before = count_fds();
	c = child();
	WATCH(kq, c.pid, NOTE_EXIT);
	EQ(count_fds(), before + 3);
	EQ(change(kq, (uintptr_t)c.pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), 0);
	EQ(count_fds(), before + 2);
	need_connector(kq);
	/* One socket for all kqueues; it goes with the last that follows somebody. */
	other = kqueue();
	before = count_fds();
	WATCH(other, c.pid, NOTE_FORK);
	WATCH(kq, c.pid, NOTE_FORK);
	OK(count_fds() <= before + 3);
	close(other);
	close(kq);
	libkqueue_drain_pending_close();
	kq = kqueue();
	finish();
}

CHECKS(
	C(fork_is_an_event_at_once)
	C(vfork_is_a_fork)
	C(thread_is_no_fork)
	C(forks_unread_are_one_event)
	C(exec_is_an_event)
	C(exec_that_fails_is_none)
	C(exec_by_another_thread_is_an_event_and_no_exit)
	C(what_was_not_asked_for_is_not_reported)
	C(fork_exec_and_exit_unread_are_one_event_with_the_status)
	C(fork_and_exit_carry_the_status)
	C(fork_and_exit_are_one_event_with_little_room_and_much_else_ready)
	C(fork_then_an_end_not_asked_for_is_the_last_event)
	C(own_forks_can_be_watched)
	C(disabling_hides_a_fork_until_enabled)
	C(oneshot_tells_of_one_fork)
	C(adding_again_changes_what_is_reported)
	C(tracked_child_is_announced_with_its_parent)
	C(tracking_without_note_fork_reports_the_child_alone)
	C(short_lived_child_has_two_separate_events)
	C(with_room_for_one_the_announcement_comes_first)
	C(grandchildren_are_tracked)
	C(childs_knote_outlives_its_parents)
	C(childs_knote_can_be_deleted)
	C(childs_exec_is_reported)
	C(tracked_child_whose_first_thread_left_has_not_ended)
	C(several_kqueues_each_get_each_event)
	C(sleeping_call_and_poll_see_a_fork)
	C(connector_is_open_only_while_it_is_needed)
);
