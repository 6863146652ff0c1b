/* READ and WRITE on terminals and on Linux's own pollable descriptors. */
#include "net.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <termios.h>

enum { MASTER, SLAVE };

/* A terminal pair in raw mode: t[MASTER] and t[SLAVE]. */
static void pty_pair(int t[2])
{
	struct termios raw;
	char name[64];
	t[MASTER] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (t[MASTER] < 0)
		SKIP("no pseudo terminal: %s", strerror(errno));
	OK(grantpt(t[MASTER]) == 0 && unlockpt(t[MASTER]) == 0);
	OK(ptsname_r(t[MASTER], name, sizeof name) == 0);
	t[SLAVE] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	OK(t[SLAVE] >= 0);
	OK(tcgetattr(t[SLAVE], &raw) == 0);
	cfmakeraw(&raw);
	OK(tcsetattr(t[SLAVE], TCSANOW, &raw) == 0);
}

static void pty_read(int from, int to)
{
	int t[2], kq = new_kqueue();
	pty_pair(t);
	ADD(kq, t[to], EVFILT_READ, 0);
	NONE(kq);
	pass(t[from], t[to], 5);
	EQ(EVENT(kq, t[to], EVFILT_READ).data, 5);
	EQ(EVENT(kq, t[to], EVFILT_READ).data, 5);
	get(t[to], 5);
	NONE(kq);
	close_pair(t);
	close(kq);
}

CHECK(pty_gives_the_bytes_of_the_other_side_both_ways)
{
	pty_read(MASTER, SLAVE);
	pty_read(SLAVE, MASTER);
}

CHECK(pty_clear_fires_per_arrival)
{
	int t[2], kq = new_kqueue();
	pty_pair(t);
	ADD(kq, t[SLAVE], EVFILT_READ, EV_CLEAR);
	pass(t[MASTER], t[SLAVE], 5);
	EQ(EVENT(kq, t[SLAVE], EVFILT_READ).data, 5);
	QUIET(kq);
	pass(t[MASTER], t[SLAVE], 2);
	EQ(EVENT(kq, t[SLAVE], EVFILT_READ).data, 7);
	close_pair(t);
	close(kq);
}

CHECK(pty_master_closed_is_eof_on_the_slave)
{
	struct kevent ev;
	int t[2], kq = new_kqueue();
	pty_pair(t);
	ADD(kq, t[SLAVE], EVFILT_READ, 0);
	NONE(kq);
	close(t[MASTER]);
	ev = EVENT(kq, t[SLAVE], EVFILT_READ);
	OK(ev.flags & EV_EOF);
	EQ(ev.data, 0);
	OK(EVENT(kq, t[SLAVE], EVFILT_READ).flags & EV_EOF);
	close(t[SLAVE]);
	close(kq);
}

CHECK(pty_slave_closed_is_eof_on_the_master)
{
	char c;
	int t[2], kq = new_kqueue();
	pty_pair(t);
	ADD(kq, t[MASTER], EVFILT_READ, EV_CLEAR);
	NONE(kq);
	close(t[SLAVE]);
	OK(EVENT(kq, t[MASTER], EVFILT_READ).flags & EV_EOF);
	FAILS(read(t[MASTER], &c, 1), EIO);
	QUIET(kq);
	close(t[MASTER]);
	close(kq);
}

static void pty_write(int from, int to)
{
	int t[2], kq = new_kqueue();
	long n;
	pty_pair(t);
	ADD(kq, t[from], EVFILT_WRITE, 0);
	EQ(EVENT(kq, t[from], EVFILT_WRITE).flags & EV_EOF, 0);
	n = fill(t[from]);
	QUIET(kq);
	drain(t[to], n);
	OK(EVENT(kq, t[from], EVFILT_WRITE).data > 0);
	close_pair(t);
	close(kq);
}

CHECK(pty_is_writable_until_the_other_side_stops_reading)
{
	pty_write(MASTER, SLAVE);
	pty_write(SLAVE, MASTER);
}

CHECK(pty_in_line_mode_waits_for_the_whole_line)
{
	struct termios tio;
	int t[2], kq = new_kqueue();
	pty_pair(t);
	OK(tcgetattr(t[SLAVE], &tio) == 0);
	tio.c_lflag |= ICANON;
	tio.c_cc[VEOL] = 0;
	OK(tcsetattr(t[SLAVE], TCSANOW, &tio) == 0);
	ADD(kq, t[SLAVE], EVFILT_READ, 0);
	EQ(write(t[MASTER], "abc", 3), 3);
	QUIET(kq);
	EQ(write(t[MASTER], "\n", 1), 1);
	EQ(EVENT(kq, t[SLAVE], EVFILT_READ).data, 4);
	close_pair(t);
	close(kq);
}

CHECK(a_new_window_size_is_no_event)
{
	struct winsize ws = {.ws_row = 50, .ws_col = 132};
	int t[2], kq = new_kqueue();
	pty_pair(t);
	ADD(kq, t[SLAVE], EVFILT_READ, 0);
	ADD(kq, t[MASTER], EVFILT_READ, EV_CLEAR);
	OK(ioctl(t[MASTER], TIOCSWINSZ, &ws) == 0);
	QUIET(kq);
	close_pair(t);
	close(kq);
}

static uint64_t count(int fd)
{
	uint64_t n = 0;
	EQ(read(fd, &n, sizeof n), sizeof n);
	return n;
}

static void add_to(int fd, uint64_t n)
{
	EQ(write(fd, &n, sizeof n), sizeof n);
}

CHECK(eventfd_shows_its_counter_and_keeps_it)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), kq = new_kqueue();
	OK(fd >= 0);
	ADD(kq, fd, EVFILT_READ, 0);
	NONE(kq);
	add_to(fd, 5);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 5);
	add_to(fd, 300);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 305);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 305);
	EQ(count(fd), 305);
	NONE(kq);
	close(fd);
	close(kq);
}

CHECK(eventfd_clear_fires_per_write)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, EV_CLEAR);
	add_to(fd, 1);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 1);
	NONE(kq);
	add_to(fd, 1);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 2);
	NONE(kq);
	EQ(count(fd), 2);
	close(fd);
	close(kq);
}

CHECK(eventfd_as_a_semaphore_counts_down)
{
	int fd = eventfd(2, EFD_CLOEXEC | EFD_SEMAPHORE), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 2);
	EQ(count(fd), 1);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 1);
	EQ(count(fd), 1);
	NONE(kq);
	close(fd);
	close(kq);
}

CHECK(eventfd_is_writable_until_the_counter_is_full)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), kq = new_kqueue();
	ADD(kq, fd, EVFILT_WRITE, 0);
	EVENT(kq, fd, EVFILT_WRITE);
	add_to(fd, UINT64_MAX - 1);
	QUIET(kq);
	EQ(count(fd), UINT64_MAX - 1);
	EVENT(kq, fd, EVFILT_WRITE);
	close(fd);
	close(kq);
}

CHECK(timerfd_is_readable_after_it_expired)
{
	struct itimerspec soon = {.it_value = {0, 5000000}};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), kq = new_kqueue();
	OK(fd >= 0);
	ADD(kq, fd, EVFILT_READ, 0);
	NONE(kq);
	OK(timerfd_settime(fd, 0, &soon, NULL) == 0);
	OK(EVENT(kq, fd, EVFILT_READ).data >= 1);
	OK(EVENT(kq, fd, EVFILT_READ).data >= 1);
	EQ(count(fd), 1);
	NONE(kq);
	close(fd);
	close(kq);
}

CHECK(signalfd_is_readable_while_a_signal_waits)
{
	struct signalfd_siginfo info;
	sigset_t set;
	int fd, kq = new_kqueue();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	OK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	OK(fd >= 0);
	ADD(kq, fd, EVFILT_READ, 0);
	NONE(kq);
	OK(kill(getpid(), SIGUSR1) == 0);
	OK(EVENT(kq, fd, EVFILT_READ).data >= 1);
	EQ(read(fd, &info, sizeof info), sizeof info);
	EQ(info.ssi_signo, SIGUSR1);
	NONE(kq);
	close(fd);
	close(kq);
}

CHECK(inotify_gives_the_bytes_queued)
{
	char dir[SCRATCH];
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), kq = new_kqueue();
	OK(fd >= 0);
	scratch_directory(dir);
	OK(inotify_add_watch(fd, dir, IN_ATTRIB) >= 0);
	ADD(kq, fd, EVFILT_READ, 0);
	NONE(kq);
	OK(chmod(dir, 0711) == 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, unread(fd));
	OK(unread(fd) >= (int)sizeof(struct inotify_event));
	get(fd, unread(fd));
	NONE(kq);
	OK(rmdir(dir) == 0);
	close(fd);
	close(kq);
}

CHECK(an_epoll_is_readable_while_it_has_events)
{
	struct epoll_event want = {.events = EPOLLIN};
	int p[2], ep = epoll_create1(EPOLL_CLOEXEC), kq = new_kqueue();
	pipe_pair(p);
	OK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &want) == 0);
	ADD(kq, ep, EVFILT_READ, 0);
	NONE(kq);
	put(p[1], 1);
	OK(EVENT(kq, ep, EVFILT_READ).data >= 1);
	OK(EVENT(kq, ep, EVFILT_READ).data >= 1);
	get(p[0], 1);
	NONE(kq);
	close_pair(p);
	close(ep);
	close(kq);
}

CHECK(a_pidfd_is_readable_when_its_process_has_ended)
{
	int go[2], fd, kq = new_kqueue();
	pid_t pid;
	pipe_pair(go);
	pid = fork();
	OK(pid >= 0);
	if (pid == 0) {
		char c;
		close(go[1]);
		_exit(read(go[0], &c, 1) == 1 ? 0 : 1);
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		SKIP("pidfd_open: %s", strerror(errno));
	ADD(kq, fd, EVFILT_READ, 0);
	NONE(kq);
	put(go[1], 1);
	EVENT(kq, fd, EVFILT_READ);
	EQ(waitpid(pid, NULL, 0), pid);
	close(fd);
	close_pair(go);
	close(kq);
}

CHECKS(
	C(pty_gives_the_bytes_of_the_other_side_both_ways)
	C(pty_clear_fires_per_arrival)
	C(pty_master_closed_is_eof_on_the_slave)
	C(pty_slave_closed_is_eof_on_the_master)
	C(pty_is_writable_until_the_other_side_stops_reading)
	C(pty_in_line_mode_waits_for_the_whole_line)
	C(a_new_window_size_is_no_event)
	C(eventfd_shows_its_counter_and_keeps_it)
	C(eventfd_clear_fires_per_write)
	C(eventfd_as_a_semaphore_counts_down)
	C(eventfd_is_writable_until_the_counter_is_full)
	C(timerfd_is_readable_after_it_expired)
	C(signalfd_is_readable_while_a_signal_waits)
	C(inotify_gives_the_bytes_queued)
	C(an_epoll_is_readable_while_it_has_events)
	C(a_pidfd_is_readable_when_its_process_has_ended)
);
