/* As life_faults, for the filters that watch something else than a descriptor's readiness. */
#include "fault_steps.h"
#include <sched.h>
#include <sys/mount.h>

/* --- signals ---------------------------------------------------------------- */

static volatile sig_atomic_t handled;

static void count_signal(int signo)
{
	(void)signo;
	handled++;
}

static void send_self(int signo)
{
	OK(kill(getpid(), signo) == 0);
}

static void signal_life(int signo)
{
	int before = count_fds(), kq = must_kqueue();
	must_add(kq, (uintptr_t)signo, EVFILT_SIGNAL, 0, 0, 0);
	must_be_quiet(kq);
	send_self(signo);
	must_come(kq, (uintptr_t)signo, EVFILT_SIGNAL, 5000);
	must_be_quiet(kq);
	must_change(kq, (uintptr_t)signo, EVFILT_SIGNAL, EV_DISABLE, 0);
	send_self(signo);
	must_be_quiet(kq);
	must_change(kq, (uintptr_t)signo, EVFILT_SIGNAL, EV_ENABLE, 0);
	must_come(kq, (uintptr_t)signo, EVFILT_SIGNAL, 5000);
	must_delete(kq, (uintptr_t)signo, EVFILT_SIGNAL);
	must_be_quiet(kq);
	must_close(kq, before);
	still_works();
}

static void scene_signal_ignored(void)
{
	OK(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
	signal_life(SIGUSR1);
}

static void scene_signal_handled(void)
{
	OK(signal(SIGUSR2, count_signal) != SIG_ERR);
	signal_life(SIGUSR2);
	EQ(handled, 2);
}

static void scene_signal_blocked(void)
{
	sigset_t set, pending;
	OK(sigemptyset(&set) == 0 && sigaddset(&set, SIGUSR1) == 0);
	OK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	signal_life(SIGUSR1);
	OK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
}

/* --- processes -------------------------------------------------------------- */

/* A child that forks at each SIGUSR1, by calls that no fault is for. */
static pid_t forking_child(void)
{
	sigset_t set, none;
	pid_t pid;
	OK(sigemptyset(&none) == 0 && sigemptyset(&set) == 0 && sigaddset(&set, SIGUSR1) == 0);
	OK(signal(SIGUSR1, count_signal) != SIG_ERR);
	OK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	pid = fork();
	OK(pid >= 0);
	if (pid == 0) {
		for (;;) {
			sigsuspend(&none);
			/* One of its calls may be the one that fails. */
			while ((pid = fork()) < 0)
				;
			if (pid == 0)
				_exit(0);
		}
	}
	return pid;
}

static void reap(pid_t pid)
{
	int status;
	OK(waitpid(pid, &status, 0) == pid);
	OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void scene_exit(void)
{
	int before = count_fds(), kq = must_kqueue();
	pid_t pid = forking_child();
	must_add(kq, (uintptr_t)pid, EVFILT_PROC, 0, NOTE_EXIT, 0);
	must_be_quiet(kq);
	must_change(kq, (uintptr_t)pid, EVFILT_PROC, EV_DISABLE, 0);
	OK(kill(pid, SIGKILL) == 0);
	must_be_quiet(kq);
	must_change(kq, (uintptr_t)pid, EVFILT_PROC, EV_ENABLE, 0);
	must_come(kq, (uintptr_t)pid, EVFILT_PROC, 5000);
	must_be_quiet(kq);
	reap(pid);
	must_close(kq, before);
	still_works();
}

/* A zombie and then nothing: the first is an event, the other ESRCH. */
static void scene_zombie(void)
{
	int before = count_fds(), kq = must_kqueue();
	pid_t pid = forking_child();
	siginfo_t info;
	OK(kill(pid, SIGKILL) == 0);
	OK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
	must_add(kq, (uintptr_t)pid, EVFILT_PROC, EV_ONESHOT, NOTE_EXIT, 0);
	must_come(kq, (uintptr_t)pid, EVFILT_PROC, 5000);
	reap(pid);
	OK(change_inside(kq, (uintptr_t)pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0) == -1);
	OK(sane(errno));
	must_close(kq, before);
	still_works();
}

static void scene_fork(void)
{
	int before = count_fds(), kq = must_kqueue();
	pid_t pid = forking_child();
	struct kevent ev;
	if (change_inside(kq, (uintptr_t)pid, EVFILT_PROC, EV_ADD, NOTE_FORK | NOTE_EXIT, 0) != 0) {
		OK(sane(errno));
		FAILS(change(kq, (uintptr_t)pid, EVFILT_PROC, EV_DELETE, 0, 0, NULL), ENOENT);
		if (change(kq, (uintptr_t)pid, EVFILT_PROC, EV_ADD, NOTE_FORK | NOTE_EXIT, 0, NULL) != 0) {
			EQ(errno, ENOTSUP);
			SKIP("no process connector here");
		}
	}
	OK(kill(pid, SIGUSR1) == 0);
	must_come(kq, (uintptr_t)pid, EVFILT_PROC, 5000);
	OK(kill(pid, SIGKILL) == 0);
	/* Where messages went lost a fork may be told once more. */
	do
		ev = ONE(kq);
	while (!(ev.fflags & NOTE_EXIT));
	reap(pid);
	must_be_quiet(kq);
	must_close(kq, before);
	still_works();
}

static void scene_procdesc(void)
{
	int before = count_fds(), kq = must_kqueue(), fd;
	pid_t pid = forking_child();
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	OK(fd >= 0);
	must_add(kq, (uintptr_t)fd, EVFILT_PROCDESC, 0, NOTE_EXIT, 0);
	must_be_quiet(kq);
	OK(kill(pid, SIGKILL) == 0);
	must_come(kq, (uintptr_t)fd, EVFILT_PROCDESC, 5000);
	reap(pid);
	must_close(kq, before + 1);
	OK(close(fd) == 0);
	still_works();
}

/* --- files ------------------------------------------------------------------ */

static char directory[SCRATCH], name[SCRATCH];

static const char *in(const char *entry)
{
	OK(snprintf(name, sizeof name, "%s/%s", directory, entry) < (int)sizeof name);
	return name;
}

static void scene_vnode(void)
{
	int before = count_fds(), kq = must_kqueue(), fd;
	scratch_directory(directory);
	fd = open(in("file"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	OK(fd >= 0);
	must_add(kq, (uintptr_t)fd, EVFILT_VNODE, EV_CLEAR, NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB | NOTE_DELETE, 0);
	must_be_quiet(kq);
	OK(pwrite(fd, "x", 1, 0) == 1);
	must_come(kq, (uintptr_t)fd, EVFILT_VNODE, 5000);
	must_be_quiet(kq);
	must_change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_DISABLE, 0);
	OK(fchmod(fd, 0640) == 0);
	must_be_quiet(kq);
	must_change(kq, (uintptr_t)fd, EVFILT_VNODE, EV_ENABLE, 0);
	must_come(kq, (uintptr_t)fd, EVFILT_VNODE, 5000);
	OK(unlink(in("file")) == 0);
	must_come(kq, (uintptr_t)fd, EVFILT_VNODE, 5000);
	must_delete(kq, (uintptr_t)fd, EVFILT_VNODE);
	must_be_quiet(kq);
	OK(close(fd) == 0 && rmdir(directory) == 0);
	must_close(kq, before);
	still_works();
}

static void scene_directory(void)
{
	int before = count_fds(), kq = must_kqueue(), fd;
	scratch_directory(directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	OK(fd >= 0);
	must_add(kq, (uintptr_t)fd, EVFILT_VNODE, EV_CLEAR, NOTE_WRITE | NOTE_LINK | NOTE_DELETE, 0);
	must_be_quiet(kq);
	OK(mkdir(in("d"), 0700) == 0);
	must_come(kq, (uintptr_t)fd, EVFILT_VNODE, 5000);
	OK(rmdir(in("d")) == 0);
	must_come(kq, (uintptr_t)fd, EVFILT_VNODE, 5000);
	OK(rmdir(directory) == 0);
	must_come(kq, (uintptr_t)fd, EVFILT_VNODE, 5000);
	OK(close(fd) == 0);
	must_be_quiet(kq);
	must_close(kq, before);
	still_works();
}

static void scene_mounts(void)
{
	int before = count_fds(), kq = must_kqueue();
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0)
		SKIP("a mount namespace: %s", strerror(errno));
	scratch_directory(directory);
	must_add(kq, 0, EVFILT_FS, 0, VQ_MOUNT | VQ_UNMOUNT, 0);
	must_be_quiet(kq);
	OK(mount("none", directory, "tmpfs", 0, "size=4k") == 0);
	must_come(kq, 0, EVFILT_FS, 5000);
	must_be_quiet(kq);
	OK(umount(directory) == 0);
	must_come(kq, 0, EVFILT_FS, 5000);
	must_delete(kq, 0, EVFILT_FS);
	OK(rmdir(directory) == 0);
	must_close(kq, before);
	still_works();
}

FAULTS(signal_ignored)
FAULTS(signal_handled)
FAULTS(signal_blocked)
FAULTS(exit)
FAULTS(zombie)
FAULTS(fork)
FAULTS(procdesc)
FAULTS(vnode)
FAULTS(directory)
FAULTS(mounts)

CHECKS(
	BOTH(signal_ignored)
	BOTH(signal_handled)
	BOTH(signal_blocked)
	BOTH(exit)
	BOTH(zombie)
	BOTH(fork)
	BOTH(procdesc)
	BOTH(vnode)
	BOTH(directory)
	BOTH(mounts)
);
