/* What the checks on processes share: children that do as they are told. */
#ifndef PROC_UTIL_H
#define PROC_UTIL_H
#include "harness.h"
#include <sys/prctl.h>
#include <sys/syscall.h>

#define WATCH(kq, pid, fflags) EQ(change(kq, (uintptr_t)(pid), EVFILT_PROC, EV_ADD, fflags, 0, NULL), 0)

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* pidfds are what everything here stands on. */
__attribute__((unused))
static void need_pidfd(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (fd < 0 && errno == ENOSYS)
		SKIP("no pidfd_open here (Linux 5.3)");
	if (fd >= 0)
		close(fd);
}

/* A process whose parent is a child of this one, does not reap it, and sleeps for ever as well. */
__attribute__((unused))
static pid_t grandchild(pid_t *parent)
{
	int p[2];
	pid_t pid = 0;
	OK(pipe2(p, O_CLOEXEC) == 0);
	if ((*parent = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if ((pid = fork()) < 0)
			_exit(1);
		if (pid == 0) {
			/* It does not pass to a child. */
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pid = getpid();
			if (write(p[1], &pid, sizeof pid) != sizeof pid)
				_exit(1);
		}
		for (;;)
			pause();
	}
	close(p[1]);
	EQ(read(p[0], &pid, sizeof pid), sizeof pid);
	close(p[0]);
	return pid;
}

/* A child obeys one letter after the other, and ends when no more can come. */
struct child { pid_t pid; int orders, answers; };

enum {
	EXIT_3 = 'x',		/* exits with 3 */
	KILL_SELF = 'k',	/* dies of SIGKILL */
	FORK = 'f',		/* has a child that exits with 5, and waits for it */
	FORK_LASTING = 'F',	/* has a child that lives until the end of its parent */
	FORK_DEEP = 'd',	/* has a child that has a child; exits 5 and 6 */
	VFORK = 'v',
	THREAD = 't',		/* runs a thread to its end */
	EXEC = 'e',		/* becomes sleep */
	EXEC_TRUE = 'T',	/* becomes true */
	EXEC_NOTHING = 'n',	/* fails to exec */
	THREAD_EXEC = 'X',	/* a thread makes sleep of the process */
	LEADER_LEAVES = 'l'	/* the first thread ends, another reads on */
};

__attribute__((unused))
static void *nothing(void *arg) { return arg; }

__attribute__((unused))
static void *exec_sleep(void *arg)
{
	execl("/bin/sleep", "sleep", "100", (char *)NULL);
	return arg;
}

static void *obey(void *arg);

static void order_one(struct child *me, char order)
{
	pthread_t t;
	pid_t pid;
	switch (order) {
	case EXIT_3:
		_exit(3);
	case KILL_SELF:
		kill(getpid(), SIGKILL);
		break;
	case FORK:
		if ((pid = fork()) == 0)
			_exit(5);
		waitpid(pid, NULL, 0);
		break;
	case FORK_LASTING:
		if ((pid = fork()) == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		break;
	case FORK_DEEP:
		if ((pid = fork()) == 0) {
			if ((pid = fork()) == 0)
				_exit(6);
			waitpid(pid, NULL, 0);
			_exit(5);
		}
		waitpid(pid, NULL, 0);
		break;
	case VFORK:
		if ((pid = vfork()) == 0)
			_exit(5);
		waitpid(pid, NULL, 0);
		break;
	case THREAD:
		pthread_create(&t, NULL, nothing, NULL);
		pthread_join(t, NULL);
		break;
	case EXEC:
		exec_sleep(NULL);
		break;
	case EXEC_TRUE:
		execl("/bin/true", "true", (char *)NULL);
		break;
	case EXEC_NOTHING:
		execl("/nonexistent", "nonexistent", (char *)NULL);
		break;
	case THREAD_EXEC:
		pthread_create(&t, NULL, exec_sleep, NULL);
		pthread_join(t, NULL);
		break;
	case LEADER_LEAVES:
		pthread_create(&t, NULL, obey, me);
		/* It answers once this one is really gone. */
		syscall(SYS_exit, 0);
	}
}

static void *obey(void *arg)
{
	struct child *me = arg;
	char order;
	while (read(me->orders, &order, 1) == 1) {
		order_one(me, order);
		if (write(me->answers, &order, 1) != 1)
			break;
	}
	_exit(0);
}

__attribute__((unused))
static struct child child(void)
{
	struct child c, me;
	int orders[2], answers[2];
	need_pidfd();
	OK(pipe2(orders, O_CLOEXEC) == 0);
	OK(pipe2(answers, O_CLOEXEC) == 0);
	OK((c.pid = fork()) >= 0);
	if (c.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
		close(orders[1]);
		close(answers[0]);
		me.pid = getpid();
		me.orders = orders[0];
		me.answers = answers[1];
		obey(&me);
	}
	close(orders[0]);
	close(answers[1]);
	c.orders = orders[1];
	c.answers = answers[0];
	return c;
}

/* An order that is not answered: the child ends or becomes another program. */
__attribute__((unused))
static void order(struct child *c, char what) { EQ(write(c->orders, &what, 1), 1); }

/* An order, carried out when this returns. */
__attribute__((unused))
static void command(struct child *c, char what)
{
	char done = 0;
	order(c, what);
	EQ(read(c->answers, &done, 1), 1);
	EQ(done, what);
}

__attribute__((unused))
static void let_go(struct child *c)
{
	close(c->orders);
	close(c->answers);
}

/* Waits for the end without reaping. */
__attribute__((unused))
static void until_zombie(pid_t pid)
{
	siginfo_t info;
	EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

__attribute__((unused))
static int reap(pid_t pid)
{
	int status = -1;
	EQ(waitpid(pid, &status, 0), pid);
	return status;
}

/* The next event, which must be this. */
#define EVENT(kq, id, notes, value) do { struct kevent e_ = ONE_OF(kq); \
	EQ(e_.ident, id); EQ(e_.filter, EVFILT_PROC); EQ(e_.fflags, (unsigned)(notes)); EQ(e_.data, value); } while (0)

/* One event, though more may be pending. */
#define ONE_OF(kq) proc_one_of(kq, __LINE__)
__attribute__((unused))
static struct kevent proc_one_of(int kq, int line)
{
	struct kevent ev;
	int n = collect(kq, &ev, 1, 10000);
	if (n != 1)
		FAIL("line %d: no event (%d, errno %d)", line, n, errno);
	return ev;
}

/* NOTE_FORK, NOTE_EXEC and NOTE_TRACK need the process connector. */
__attribute__((unused))
static void need_connector(int kq)
{
	need_pidfd();
	if (change(kq, (uintptr_t)getpid(), EVFILT_PROC, EV_ADD, NOTE_FORK, 0, NULL) != 0) {
		EQ(errno, ENOTSUP);
		SKIP("the process connector is silent here (not in the first pid and user namespace)");
	}
	EQ(change(kq, (uintptr_t)getpid(), EVFILT_PROC, EV_DELETE, 0, 0, NULL), 0);
}

#endif
