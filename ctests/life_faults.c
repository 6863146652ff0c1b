/*
 * Every system call the library makes fails once, with every error it can give: a call
 * of the program's then fails with -1 and errno or succeeds, and nothing is left half made.
 *
 * Each scenario is run once for each call and each error, in a process of its own, whose
 * first kqueue it makes. After a failure the same is tried again and must succeed; in
 * the end the descriptors are those from before.
 */
#include "fault_steps.h"
#include <netinet/in.h>

/* --- scenarios -------------------------------------------------------------- */

/* One descriptor, its events of one filter through every order there is. */
static void life_of(int fd, int filter, int flags, void (*fire)(int fd), int peer)
{
	int before = count_fds(), kq = must_kqueue();
	must_add(kq, (uintptr_t)fd, filter, flags, 0, 0);
	if (fire) {
		must_be_quiet(kq);
		fire(peer);
	}
	must_come(kq, (uintptr_t)fd, filter, 5000);
	if (!(flags & EV_ONESHOT)) {
		must_change(kq, (uintptr_t)fd, filter, EV_DISABLE, 0);
		must_be_quiet(kq);
		must_change(kq, (uintptr_t)fd, filter, EV_ENABLE, 0);
		if (!(flags & EV_CLEAR))
			must_come(kq, (uintptr_t)fd, filter, 0);
		must_delete(kq, (uintptr_t)fd, filter);
	}
	must_be_quiet(kq);
	must_close(kq, before);
	still_works();
}

static void write_byte(int fd)
{
	OK(write(fd, "x", 1) == 1);
}

static void scene_pipe(void)
{
	int p[2];
	OK(pipe2(p, O_CLOEXEC) == 0);
	life_of(p[0], EVFILT_READ, 0, write_byte, p[1]);
}

static void scene_pipe_clear(void)
{
	int p[2];
	OK(pipe2(p, O_CLOEXEC) == 0);
	life_of(p[0], EVFILT_READ, EV_CLEAR, write_byte, p[1]);
}

static void scene_socket(void)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	life_of(s[0], EVFILT_READ, 0, write_byte, s[1]);
}

static void scene_write(void)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	life_of(s[0], EVFILT_WRITE, 0, NULL, s[1]);
}

static void scene_oneshot(void)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	life_of(s[0], EVFILT_READ, EV_ONESHOT, write_byte, s[1]);
}

static void scene_empty(void)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	life_of(s[0], EVFILT_EMPTY, 0, NULL, s[1]);
}

static void append(int fd)
{
	OK(pwrite(fd, "x", 1, 0) == 1);
}

static void scene_file(void)
{
	int fd = nameless_file();
	life_of(fd, EVFILT_READ, 0, append, fd);
}

static void listening(int domain, struct sockaddr *address, socklen_t length)
{
	int s = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0), c = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OK(s >= 0 && c >= 0);
	OK(bind(s, address, length) == 0 && listen(s, 5) == 0);
	OK(getsockname(s, address, &length) == 0);
	OK(connect(c, address, length) == 0);
	life_of(s, EVFILT_READ, 0, NULL, -1);
}

static void scene_tcp_listener(void)
{
	struct sockaddr_in in;
	memset(&in, 0, sizeof in);
	in.sin_family = AF_INET;
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listening(AF_INET, (struct sockaddr *)&in, sizeof in);
}

static void scene_unix_listener(void)
{
	/* An abstract name of the kernel's choice. */
	struct sockaddr_storage un;
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t length = sizeof un;
	memset(&un, 0, sizeof un);
	un.ss_family = AF_UNIX;
	OK(s >= 0 && c >= 0);
	OK(bind(s, (struct sockaddr *)&un, sizeof(sa_family_t)) == 0 && listen(s, 5) == 0);
	OK(getsockname(s, (struct sockaddr *)&un, &length) == 0);
	OK(connect(c, (struct sockaddr *)&un, length) == 0);
	life_of(s, EVFILT_READ, 0, NULL, -1);
}

static void scene_tcp_writer(void)
{
	struct sockaddr_in in;
	socklen_t length = sizeof in;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	memset(&in, 0, sizeof in);
	in.sin_family = AF_INET;
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	OK(bind(s, (struct sockaddr *)&in, length) == 0 && listen(s, 5) == 0);
	OK(getsockname(s, (struct sockaddr *)&in, &length) == 0);
	OK(connect(c, (struct sockaddr *)&in, length) == 0);
	life_of(c, EVFILT_WRITE, 0, NULL, -1);
}

/* Two knotes of one descriptor that cannot share an entry. */
static void scene_two_modes(void)
{
	int s[2], before = count_fds(), kq;
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	kq = must_kqueue();
	must_add(kq, (uintptr_t)s[0], EVFILT_READ, 0, 0, 0);
	must_add(kq, (uintptr_t)s[0], EVFILT_WRITE, EV_CLEAR, 0, 0);
	must_come(kq, (uintptr_t)s[0], EVFILT_WRITE, 5000);
	write_byte(s[1]);
	must_come(kq, (uintptr_t)s[0], EVFILT_READ, 5000);
	must_change(kq, (uintptr_t)s[0], EVFILT_READ, EV_ADD | EV_DISPATCH, 0);
	must_come(kq, (uintptr_t)s[0], EVFILT_READ, 5000);
	must_change(kq, (uintptr_t)s[0], EVFILT_READ, EV_ENABLE, 0);
	must_come(kq, (uintptr_t)s[0], EVFILT_READ, 0);
	must_delete(kq, (uintptr_t)s[0], EVFILT_READ);
	must_delete(kq, (uintptr_t)s[0], EVFILT_WRITE);
	OK(close(s[0]) == 0 && close(s[1]) == 0);
	must_close(kq, before);
	still_works();
}

static void scene_user(void)
{
	int before = count_fds(), kq = must_kqueue();
	must_add(kq, 1, EVFILT_USER, EV_CLEAR, 0, 0);
	must_be_quiet(kq);
	must_change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER);
	must_come(kq, 1, EVFILT_USER, -1);
	must_delete(kq, 1, EVFILT_USER);
	must_close(kq, before);
	still_works();
}

static void scene_timer(void)
{
	int before = count_fds(), kq = must_kqueue();
	must_add(kq, 1, EVFILT_TIMER, EV_ONESHOT, 0, 1);
	must_come(kq, 1, EVFILT_TIMER, -1);
	must_add(kq, 2, EVFILT_TIMER, 0, NOTE_SECONDS, 1000);
	must_delete(kq, 2, EVFILT_TIMER);
	must_add(kq, 3, EVFILT_TIMER, EV_ONESHOT, NOTE_ABSTIME | NOTE_SECONDS, 1);
	must_come(kq, 3, EVFILT_TIMER, -1);
	must_close(kq, before);
	still_works();
}

static void scene_nested(void)
{
	int before = count_fds(), inner = must_kqueue(), kq = must_kqueue();
	must_add(kq, (uintptr_t)inner, EVFILT_READ, 0, 0, 0);
	must_be_quiet(kq);
	must_add(inner, 1, EVFILT_USER, EV_CLEAR, 0, 0);
	must_change(inner, 1, EVFILT_USER, 0, NOTE_TRIGGER);
	must_come(kq, (uintptr_t)inner, EVFILT_READ, 5000);
	must_come(inner, 1, EVFILT_USER, 0);
	must_be_quiet(kq);
	must_delete(kq, (uintptr_t)inner, EVFILT_READ);
	OK(close(inner) == 0);
	must_close(kq, before);
	still_works();
}

static int is_readable(int kq)
{
	struct pollfd p = { kq, POLLIN, 0 };
	return poll(&p, 1, 0) == 1;
}

/* The descriptor shows what is pending, whatever failed inside. */
static void scene_polled(void)
{
	int p[2], before = count_fds(), kq;
	char c;
	OK(pipe2(p, O_CLOEXEC) == 0);
	kq = must_kqueue();
	must_add(kq, (uintptr_t)p[0], EVFILT_READ, 0, 0, 0);
	must_be_quiet(kq);
	OK(!is_readable(kq));
	write_byte(p[1]);
	UNTIL(is_readable(kq));
	must_come(kq, (uintptr_t)p[0], EVFILT_READ, 0);
	must_come(kq, (uintptr_t)p[0], EVFILT_READ, 5000);
	OK(read(p[0], &c, 1) == 1);
	must_be_quiet(kq);
	NONE(kq);
	UNTIL(!is_readable(kq));
	write_byte(p[1]);
	UNTIL(is_readable(kq));
	must_come(kq, (uintptr_t)p[0], EVFILT_READ, 5000);
	OK(close(p[0]) == 0 && close(p[1]) == 0);
	must_close(kq, before);
	still_works();
}

/* A copy of the descriptor, first used by a change or by a wait. */
static void scene_copy(void)
{
	int before = count_fds(), kq = must_kqueue(), copy = fcntl(kq, F_DUPFD_CLOEXEC, 40);
	OK(copy >= 0);
	must_add(copy, 1, EVFILT_USER, EV_CLEAR, 0, 0);
	must_change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER);
	must_come(copy, 1, EVFILT_USER, 5000);
	OK(close(kq) == 0);
	must_change(copy, 1, EVFILT_USER, 0, NOTE_TRIGGER);
	must_come(copy, 1, EVFILT_USER, 5000);
	must_close(copy, before);
	still_works();
}

/* A watched number is closed while its file lives on: the entry nobody can remove. */
static void scene_orphan(void)
{
	int p[2], q[2], before = count_fds(), kq, held;
	OK(pipe2(p, O_CLOEXEC) == 0 && pipe2(q, O_CLOEXEC) == 0);
	held = fcntl(p[0], F_DUPFD_CLOEXEC, 40);
	OK(held >= 0);
	kq = must_kqueue();
	must_add(kq, (uintptr_t)p[0], EVFILT_READ, 0, 0, 0);
	must_add(kq, (uintptr_t)q[0], EVFILT_READ, EV_CLEAR, 0, 0);
	OK(close(p[0]) == 0);
	write_byte(p[1]);
	must_be_quiet(kq);
	write_byte(q[1]);
	must_come(kq, (uintptr_t)q[0], EVFILT_READ, 5000);
	must_be_quiet(kq);
	OK(close(p[1]) == 0 && close(held) == 0 && close(q[0]) == 0 && close(q[1]) == 0);
	must_close(kq, before);
	still_works();
}

FAULTS(pipe)
FAULTS(pipe_clear)
FAULTS(socket)
FAULTS(write)
FAULTS(oneshot)
FAULTS(empty)
FAULTS(file)
FAULTS(tcp_listener)
FAULTS(unix_listener)
FAULTS(tcp_writer)
FAULTS(two_modes)
FAULTS(user)
FAULTS(timer)
FAULTS(nested)
FAULTS(polled)
FAULTS(copy)
FAULTS(orphan)

CHECKS(
	BOTH(pipe)
	BOTH(pipe_clear)
	BOTH(socket)
	BOTH(write)
	BOTH(oneshot)
	BOTH(empty)
	BOTH(file)
	BOTH(tcp_listener)
	BOTH(unix_listener)
	BOTH(tcp_writer)
	BOTH(two_modes)
	BOTH(user)
	BOTH(timer)
	BOTH(nested)
	BOTH(polled)
	BOTH(copy)
	BOTH(orphan)
);
