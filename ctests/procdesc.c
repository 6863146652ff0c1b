/* EVFILT_PROCDESC: the end of a process by its pidfd. */
#include "proc_util.h"

static int pidfd_of(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	OK(fd >= 0);
	return fd;
}

static int kq, fd;
static struct child c;

static void begin(void)
{
	kq = kqueue();
	c = child();
	fd = pidfd_of(c.pid);
}

static void finish(void)
{
	let_go(&c);
	close(fd);
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
	close(kq);
}

#define ADD_EXIT(flags) EQ(change(kq, (uintptr_t)fd, EVFILT_PROCDESC, EV_ADD | (flags), NOTE_EXIT, 0, NULL), 0)

CHECK(exit_is_an_event_with_the_status)
{
	struct kevent e;
	begin();
	EQ(change(kq, (uintptr_t)fd, EVFILT_PROCDESC, EV_ADD, NOTE_EXIT, 0, (void *)5), 0);
	NONE(kq);
	order(&c, EXIT_3);
	e = ONE(kq);
	EQ(e.ident, fd);
	EQ(e.filter, EVFILT_PROCDESC);
	EQ(e.fflags, NOTE_EXIT);
	EQ(e.flags, EV_CLEAR | EV_ONESHOT | EV_EOF);
	EQ(e.data, 3 << 8);
	OK(e.udata == (void *)5);
	NONE(kq);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_PROCDESC, EV_DELETE, 0, 0, NULL), ENOENT);
	EQ(reap(c.pid), 3 << 8);
	NONE(kq);
	finish();
}

CHECK(process_that_ended_before_is_reported)
{
	begin();
	order(&c, KILL_SELF);
	until_zombie(c.pid);
	ADD_EXIT(0);
	EQ(ONE(kq).data, SIGKILL);
	finish();
}

CHECK(process_reaped_before_is_reported_with_its_status)
{
	begin();
	order(&c, EXIT_3);
	reap(c.pid);
	ADD_EXIT(0);
	EQ(ONE(kq).data, 3 << 8);
	finish();
}

CHECK(process_reaped_before_the_call_is_reported_with_its_status)
{
	begin();
	ADD_EXIT(0);
	order(&c, EXIT_3);
	reap(c.pid);
	EQ(ONE(kq).data, 3 << 8);
	finish();
}

CHECK(waitid_on_the_descriptor_goes_on_working)
{
	siginfo_t info;
	begin();
	ADD_EXIT(0);
	order(&c, EXIT_3);
	EQ(ONE(kq).data, 3 << 8);
	memset(&info, 0, sizeof info);
	EQ(waitid((idtype_t)3 /* P_PIDFD */, (id_t)fd, &info, WEXITED), 0);
	EQ(info.si_pid, c.pid);
	EQ(info.si_status, 3);
	finish();
}

CHECK(what_is_no_pidfd_is_einval)
{
	int p[2], i, other[3];
	begin();
	OK(pipe2(p, O_CLOEXEC) == 0);
	other[0] = p[0];
	OK((other[1] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
	OK((other[2] = kqueue()) >= 0);
	for (i = 0; i < 3; i++)
		FAILS(change(kq, (uintptr_t)other[i], EVFILT_PROCDESC, EV_ADD, NOTE_EXIT, 0, NULL), EINVAL);
	close(p[0]);
	close(p[1]);
	close(other[1]);
	close(other[2]);
	finish();
}

CHECK(closed_number_is_ebadf)
{
	int gone;
	begin();
	gone = dup(fd);
	close(gone);
	FAILS(change(kq, (uintptr_t)gone, EVFILT_PROCDESC, EV_ADD, NOTE_EXIT, 0, NULL), EBADF);
	FAILS(change(kq, (uintptr_t)-1, EVFILT_PROCDESC, EV_ADD, NOTE_EXIT, 0, NULL), EBADF);
	finish();
}

CHECK(close_of_the_descriptor_drops_the_knote)
{
	int number;
	begin();
	ADD_EXIT(0);
	number = fd;
	close(fd);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	NONE(kq);
	FAILS(change(kq, (uintptr_t)number, EVFILT_PROCDESC, EV_DELETE, 0, 0, NULL), EBADF);
	fd = pidfd_of(c.pid);
	finish();
}

/* The file lives on in a duplicate; its number does not. */
CHECK(closed_number_with_a_living_duplicate_reports_nothing)
{
	int copy;
	begin();
	ADD_EXIT(0);
	OK((copy = fcntl(fd, F_DUPFD_CLOEXEC, 100)) >= 0);
	close(fd);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	NONE(kq);
	fd = copy;
	ADD_EXIT(0);
	EQ(ONE(kq).ident, copy);
	finish();
}

CHECK(reused_number_starts_afresh)
{
	struct child other;
	int number;
	begin();
	ADD_EXIT(0);
	number = fd;
	other = child();
	close(fd);
	fd = pidfd_of(other.pid);
	EQ(fd, number);
	ADD_EXIT(0);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	NONE(kq);
	order(&other, KILL_SELF);
	EQ(ONE(kq).data, SIGKILL);
	reap(other.pid);
	let_go(&other);
	finish();
}

CHECK(exit_not_asked_for_drops_the_knote_silently)
{
	begin();
	EQ(change(kq, (uintptr_t)fd, EVFILT_PROCDESC, EV_ADD, 0, 0, NULL), 0);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	NONE(kq);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_PROCDESC, EV_DELETE, 0, 0, NULL), ENOENT);
	finish();
}

CHECK(read_filter_on_the_same_descriptor_works_beside_it)
{
	struct kevent ev[4];
	int modes[] = { 0, EV_CLEAR, EV_ONESHOT, EV_DISPATCH }, i, n;
	for (i = 0; i < 4; i++) {
		begin();
		EQ(change(kq, (uintptr_t)fd, EVFILT_READ, EV_ADD | modes[i], 0, 0, NULL), 0);
		ADD_EXIT(0);
		NONE(kq);
		order(&c, EXIT_3);
		until_zombie(c.pid);
		n = collect(kq, ev, 4, 10000);
		EQ(n, 2);
		EQ(ev[0].filter + ev[1].filter, EVFILT_READ + EVFILT_PROCDESC);
		EQ(ev[ev[0].filter != EVFILT_PROCDESC].data, 3 << 8);
		n = collect(kq, ev, 4, 0);
		EQ(n, modes[i] == 0);
		if (n)
			EQ(ev[0].filter, EVFILT_READ);
		finish();
	}
}

CHECK(proc_and_procdesc_both_report)
{
	struct kevent ev[4];
	begin();
	ADD_EXIT(0);
	WATCH(kq, c.pid, NOTE_EXIT);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	EQ(collect(kq, ev, 4, 10000), 2);
	EQ(ev[0].data, 3 << 8);
	EQ(ev[1].data, 3 << 8);
	EQ(ev[0].filter + ev[1].filter, EVFILT_PROC + EVFILT_PROCDESC);
	finish();
}

CHECK(disabling_hides_the_exit_until_enabled)
{
	begin();
	ADD_EXIT(EV_DISABLE);
	order(&c, EXIT_3);
	reap(c.pid);
	NONE(kq);
	EQ(change(kq, (uintptr_t)fd, EVFILT_PROCDESC, EV_ENABLE, 0, 0, NULL), 0);
	EQ(ONE(kq).data, 3 << 8);
	finish();
}

CHECK(deleted_knote_reports_nothing)
{
	begin();
	ADD_EXIT(0);
	EQ(change(kq, (uintptr_t)fd, EVFILT_PROCDESC, EV_DELETE, 0, 0, NULL), 0);
	order(&c, EXIT_3);
	until_zombie(c.pid);
	NONE(kq);
	finish();
}

CHECK(process_that_is_no_child_has_its_status)
{
	pid_t parent, pid;
	need_pidfd();
	pid = grandchild(&parent);
	kq = kqueue();
	fd = pidfd_of(pid);
	ADD_EXIT(0);
	kill(pid, SIGTERM);
	EQ(ONE(kq).data, SIGTERM);
	kill(parent, SIGKILL);
	reap(parent);
	close(fd);
	close(kq);
}

CHECKS(
	C(exit_is_an_event_with_the_status)
	C(process_that_ended_before_is_reported)
	C(process_reaped_before_is_reported_with_its_status)
	C(process_reaped_before_the_call_is_reported_with_its_status)
	C(waitid_on_the_descriptor_goes_on_working)
	C(what_is_no_pidfd_is_einval)
	C(closed_number_is_ebadf)
	C(close_of_the_descriptor_drops_the_knote)
	C(closed_number_with_a_living_duplicate_reports_nothing)
	C(reused_number_starts_afresh)
	C(exit_not_asked_for_drops_the_knote_silently)
	C(read_filter_on_the_same_descriptor_works_beside_it)
	C(proc_and_procdesc_both_report)
	C(disabling_hides_the_exit_until_enabled)
	C(deleted_knote_reports_nothing)
	C(process_that_is_no_child_has_its_status)
);
