/*
 * Fails one system call of a child process, chosen by its place.
 *
 * The child enters a seccomp filter that hands every system call to its parent
 * (seccomp_unotify(2)). While the child is inside the library it says so in shared
 * memory; only then the parent counts, so that the checks' own calls are left alone. The
 * parent lets each call pass, or answers the n-th with an error in the kernel's place.
 */
#ifndef FAULT_INJECT_H
#define FAULT_INJECT_H
#include "harness.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* What parent and child share. */
struct shared {
	int inside; /* the child is in a call of the library */
	int tid; /* of the child's own thread */
	const char *step; /* the call it is in; the parent has the same addresses */
	int hit; /* the error was answered */
};

static struct shared *shared;

/* Runs a call of the library's with counting on. errno stays the call's. */
#define INSIDE(call) __extension__({ long r_; int e_; \
	shared->step = #call; \
	errno = 0; \
	__atomic_store_n(&shared->inside, 1, __ATOMIC_SEQ_CST); \
	r_ = (call); \
	__atomic_store_n(&shared->inside, 0, __ATOMIC_SEQ_CST); \
	e_ = errno; \
	OK(r_ >= -1); \
	if (r_ == -1) \
		OK(e_ > 0); \
	errno = e_; \
	r_; })

/* --- which errors a call can give ----------------------------------------- */

enum { MOST_ERRORS = 6 };

struct fault { int nr; const char *name; int error[MOST_ERRORS]; };

#define CALL(name) SYS_##name, #name
/*
 * close, munmap and their like are left out, for Linux frees the number whatever it answers;
 * and ioctl(FIONREAD), whose errors say what a descriptor is and are believed.
 */
static const struct fault faults[] = {
	{ CALL(pipe2), { EMFILE, ENFILE } },
	{ CALL(epoll_create1), { EMFILE, ENFILE, ENOMEM } },
	{ CALL(eventfd2), { EMFILE, ENFILE, ENOMEM } },
	{ CALL(timerfd_create), { EMFILE, ENFILE, ENOMEM } },
	{ CALL(signalfd4), { EMFILE, ENFILE, ENOMEM } },
	{ CALL(inotify_init1), { EMFILE, ENFILE, ENOMEM } },
	{ CALL(inotify_add_watch), { ENOMEM, ENOSPC, EACCES } },
	{ CALL(epoll_ctl), { ENOMEM, ENOSPC } },
	{ CALL(epoll_pwait2), { EINTR, ENOSYS, EPERM } },
	{ CALL(epoll_pwait), { EINTR } },
	{ CALL(dup3), { EMFILE, EINTR, EBUSY } },
	{ CALL(clone3), { EAGAIN, ENOMEM, ENOSYS } },
	{ CALL(clone), { EAGAIN, ENOMEM } },
	{ CALL(mmap), { ENOMEM } },
	{ CALL(mprotect), { ENOMEM } },
	{ CALL(fstat), { ENOMEM } },
	{ CALL(newfstatat), { ENOMEM } },
	{ CALL(statx), { ENOMEM, ENOSYS } },
	{ CALL(getsockopt), { ENOPROTOOPT, ENOBUFS } },
	{ CALL(socket), { EMFILE, ENFILE, ENOBUFS, EAFNOSUPPORT, EACCES } },
	{ CALL(sendto), { EINTR, EAGAIN, ENOBUFS, ECONNREFUSED } },
	{ CALL(recvfrom), { EINTR, EAGAIN, ENOMEM } },
	{ CALL(recvmsg), { EINTR, EAGAIN, ENOMEM } },
	{ CALL(recvmmsg), { EINTR, EAGAIN, ENOMEM, ENOBUFS } },
	{ CALL(setsockopt), { ENOMEM, EPERM, ENOPROTOOPT } },
	{ CALL(name_to_handle_at), { EOPNOTSUPP, ENOMEM, ENOSYS, EPERM } },
	{ CALL(fstatfs), { ENOMEM, ENOSYS } },
	{ CALL(rt_sigtimedwait), { EINTR, EAGAIN } },
	{ CALL(rt_tgsigqueueinfo), { EAGAIN, EPERM } },
	{ CALL(rt_sigqueueinfo), { EAGAIN, EPERM } },
	{ CALL(readlink), { ENOMEM, EACCES, ENOENT } },
	{ CALL(bind), { ENOMEM, EADDRINUSE, EPERM } },
	{ CALL(connect), { EINTR, ENOMEM, ECONNREFUSED } },
	{ CALL(write), { EINTR } },
	{ CALL(pwritev2), { EINTR, ENOSYS, EPERM } },
	{ CALL(read), { EINTR } },
	{ CALL(pread64), { EINTR, EIO } },
	{ CALL(process_vm_readv), { ENOSYS, EPERM, ENOMEM } },
	{ CALL(process_vm_writev), { ENOSYS, EPERM, ENOMEM } },
#ifdef SYS_poll
	{ CALL(poll), { EINTR, ENOMEM } },
#endif
	{ CALL(ppoll), { EINTR, ENOMEM } },
	{ CALL(prctl), { EINVAL, EPERM } },
	{ CALL(openat), { EMFILE, ENFILE, ENOMEM, EACCES, ENOENT } },
	{ CALL(pidfd_open), { EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM } },
	{ CALL(getdents64), { ENOENT, EIO } },
	{ CALL(readlinkat), { ENOMEM, EACCES } },
};

/* Duplicating can run out of numbers; asking for a signal can fail in its own ways. */
static const struct fault fcntl_faults[] = {
	{ F_DUPFD, "fcntl(F_DUPFD)", { EMFILE } },
	{ F_DUPFD_CLOEXEC, "fcntl(F_DUPFD_CLOEXEC)", { EMFILE } },
	{ F_SETSIG, "fcntl(F_SETSIG)", { EINVAL } },
	{ F_SETOWN_EX, "fcntl(F_SETOWN_EX)", { ESRCH, EPERM } },
	{ F_SETFL, "fcntl(F_SETFL)", { ENOMEM } },
};

static const struct fault *fault_of(const struct fault *in, size_t n, int number)
{
	for (; n > 0; in++, n--)
		if (in->nr == number)
			return in;
	return NULL;
}

/* The errors to try for a call, or NULL. */
static const struct fault *faults_for(const struct seccomp_data *d)
{
	if (d->nr == SYS_fcntl)
		return fault_of(fcntl_faults, sizeof fcntl_faults / sizeof *fcntl_faults, (int)d->args[1]);
	return fault_of(faults, sizeof faults / sizeof *faults, d->nr);
}

/* --- the filter ------------------------------------------------------------ */

static int send_fd(int sock, int fd)
{
	union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } control;
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr m;
	memset(&m, 0, sizeof m);
	memset(&control, 0, sizeof control);
	m.msg_iov = &iov;
	m.msg_iovlen = 1;
	m.msg_control = &control;
	m.msg_controllen = sizeof control;
	control.h.cmsg_level = SOL_SOCKET;
	control.h.cmsg_type = SCM_RIGHTS;
	control.h.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.h), &fd, sizeof fd);
	return sendmsg(sock, &m, 0) == 1 ? 0 : -1;
}

/* The descriptor the peer sent, or -1 if it has ended instead. */
static int receive_fd(int sock)
{
	union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } control;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr m;
	int fd;
	memset(&m, 0, sizeof m);
	m.msg_iov = &iov;
	m.msg_iovlen = 1;
	m.msg_control = &control;
	m.msg_controllen = sizeof control;
	if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) != 1 || m.msg_controllen < sizeof control.h)
		return -1;
	memcpy(&fd, CMSG_DATA(&control.h), sizeof fd);
	return fd;
}

/* From here on this process asks whoever has the other end of sock. */
static void enter_filter(int sock)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		/* Needed to hand the listener over, or to end. */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sendmsg, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };
	int listener;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		SKIP("no_new_privs: %s", strerror(errno));
	listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (listener < 0)
		SKIP("no seccomp notification here: %s", strerror(errno));
	OK(send_fd(sock, listener) == 0);
	close(listener);
	close(sock);
}

/* --- the parent ------------------------------------------------------------ */

/* Which call is to fail: the place-th (from 1) of the child's own thread, or of its others. */
struct target { int others, place, error_index; };

/* What came of a run: the calls that could fail, and the one that did. */
struct outcome { int calls, error; const char *call, *step; };

static void answer(int listener, struct seccomp_notif *ask, int error)
{
	struct seccomp_notif_resp reply;
	memset(&reply, 0, sizeof reply);
	reply.id = ask->id;
	reply.error = -error;
	reply.flags = error ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	/* ENOENT: the thread was killed meanwhile. */
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply) != 0)
		OK(errno == ENOENT);
}

/* Serves the child's calls until it has ended. */
static struct outcome supervise(int listener, const struct target *t)
{
	struct outcome o;
	struct pollfd p = { listener, POLLIN, 0 };
	memset(&o, 0, sizeof o);
	while (poll(&p, 1, 20000) == 1 && !(p.revents & POLLHUP)) {
		struct seccomp_notif ask;
		const struct fault *fault;
		int error = 0, others;
		memset(&ask, 0, sizeof ask);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &ask) != 0) {
			OK(errno == ENOENT || errno == EINTR);
			continue;
		}
		fault = faults_for(&ask.data);
		others = (int)ask.pid != __atomic_load_n(&shared->tid, __ATOMIC_SEQ_CST);
		if (fault && others == t->others && (others || __atomic_load_n(&shared->inside, __ATOMIC_SEQ_CST)) &&
		    ++o.calls == t->place && t->error_index < MOST_ERRORS) {
			error = o.error = fault->error[t->error_index];
			o.call = fault->name;
			o.step = shared->step;
		}
		if (getenv("KQ_FAULT_TRACE"))
			fprintf(stderr, "%s%d: %d(%llx, %llx, %llx) %s\n", others ? "  " : "", o.calls, ask.data.nr,
				ask.data.args[0], ask.data.args[1], ask.data.args[2], error ? strerror(error) : "");
		answer(listener, &ask, error);
	}
	return o;
}

/* Runs the scenario in a child that has used no kqueue yet; fails unless it ends well. */
static struct outcome run_with(void (*scenario)(void), const struct target *t)
{
	struct outcome o;
	int sock[2], listener, status;
	pid_t pid;
	memset(&o, 0, sizeof o);
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) == 0);
	memset(shared, 0, sizeof *shared);
	if ((pid = fork()) == 0) {
		alarm(20);
		close(sock[0]);
		shared->tid = (int)syscall(SYS_gettid);
		enter_filter(sock[1]);
		scenario();
		_exit(0);
	}
	OK(pid > 0);
	close(sock[1]);
	listener = receive_fd(sock[0]);
	close(sock[0]);
	if (listener >= 0) {
		o = supervise(listener, t);
		close(listener);
	}
	OK(waitpid(pid, &status, 0) == pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		_exit(77);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		FAIL(" [%s: status 0x%x%s; call %d of %s thread, %s answered with %s, in %s]", o.error ? "after a fault" : "without a fault",
		     status, WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? " (hung)" : "", t->place,
		     t->others ? "the monitor's" : "its own", o.call ? o.call : "nothing", o.error ? strerror(o.error) : "nothing", o.step ? o.step : "no call");
	return o;
}

static void shared_open(void)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	OK(shared != MAP_FAILED);
}

/* Fails each call the scenario makes in turn, with each error it can give, or, unless SOAK
 * is set, with one of them. */
static void each_fault(void (*scenario)(void), int others)
{
	int thorough = getenv("SOAK") != NULL;
	struct target t = { others, 0, 0 };
	shared_open();
	OK(run_with(scenario, &t).error == 0);
	for (t.place = 1; run_with(scenario, &t).error; t.place++) {
		for (t.error_index = 1; thorough && run_with(scenario, &t).error; t.error_index++)
			;
		t.error_index = 0;
	}
	OK(t.place > 1 || others);
	OK(munmap(shared, sizeof *shared) == 0);
}
#endif
