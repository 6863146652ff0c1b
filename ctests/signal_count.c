/* EVFILT_SIGNAL: what is counted, for whom, and by the rules that hold for all knotes. */
#include "signal_util.h"
#include <sys/resource.h>

CHECK(seven_kills_are_seven)
{
	int i, kq;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 7; i++)
		OK(kill(getpid(), SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 7);
	NONE(kq);
	EQ(runs, 7);
	OK(close(kq) == 0);
}

CHECK(every_way_to_send_is_counted)
{
	struct itimerval soon = {{0, 0}, {0, 1000}};
	union sigval value = {0};
	int kq;
	handle(SIGUSR1);
	handle(SIGALRM);
	kq = watching(SIGUSR1);
	OK(watch_flags(kq, SIGALRM, EV_ADD) == 0);
	OK(raise(SIGUSR1) == 0);
	OK(kill(getpid(), SIGUSR1) == 0);
	OK(pthread_kill(pthread_self(), SIGUSR1) == 0);
	OK(sigqueue(getpid(), SIGUSR1, value) == 0);
	SENT(kq, SIGUSR1, 4);
	OK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
	UNTIL(runs == 5);
	SENT(kq, SIGALRM, 1);
	alarm(1);
	UNTIL(runs == 6);
	SENT(kq, SIGALRM, 1);
	alarm(HARNESS_TIMEOUT);
	OK(close(kq) == 0);
}

CHECK(another_process_is_heard)
{
	int kq, status, i;
	pid_t pid;
	handle(SIGRTMIN);
	kq = watching(SIGRTMIN);
	if ((pid = fork()) == 0) {
		union sigval value = {0};
		for (i = 0; i < 1000; i++)
			while (sigqueue(getppid(), SIGRTMIN, value) != 0)
				;
		_exit(0);
	}
	while (waitpid(pid, &status, 0) != pid)
		;
	EQ(status, 0);
	UNTIL(runs == 1000);
	SENT(kq, SIGRTMIN, 1000);
	OK(close(kq) == 0);
}

CHECK(a_standard_signal_of_another_process_comes_at_least_once)
{
	struct kevent ev;
	int kq, i;
	pid_t pid;
	signal(SIGUSR1, SIG_IGN);
	kq = watching(SIGUSR1);
	if ((pid = fork()) == 0) {
		for (i = 0; i < 1000; i++)
			kill(getppid(), SIGUSR1);
		_exit(0);
	}
	ev = ONE(kq);
	EQ(ev.ident, SIGUSR1);
	OK(ev.data >= 1 && ev.data <= 1000);
	EQ(waitpid(pid, NULL, 0), pid);
	OK(close(kq) == 0);
}

CHECK(each_kqueue_has_its_own_count)
{
	int a, b;
	handle(SIGUSR1);
	a = watching(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	b = watching(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	SENT(a, SIGUSR1, 2);
	OK(raise(SIGUSR1) == 0);
	SENT(b, SIGUSR1, 2);
	SENT(a, SIGUSR1, 1);
	NONE(a);
	NONE(b);
	OK(close(a) == 0);
	OK(raise(SIGUSR1) == 0);
	SENT(b, SIGUSR1, 1);
	OK(close(b) == 0);
}

CHECK(what_was_sent_before_is_not_counted)
{
	int kq;
	handle(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	kq = watching(SIGUSR1);
	NONE(kq);
	OK(watch_flags(kq, SIGUSR1, EV_DELETE) == 0);
	OK(raise(SIGUSR1) == 0);
	OK(watch_flags(kq, SIGUSR1, EV_ADD) == 0);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(disabling_hides_and_goes_on_counting)
{
	int kq;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	OK(watch_flags(kq, SIGUSR1, EV_DISABLE) == 0);
	OK(raise(SIGUSR1) == 0);
	NONE(kq);
	OK(watch_flags(kq, SIGUSR1, EV_ENABLE) == 0);
	SENT(kq, SIGUSR1, 2);
	OK(watch_flags(kq, SIGUSR1, EV_DELETE) == 0);
	OK(watch_flags(kq, SIGUSR1, EV_ADD | EV_DISABLE) == 0);
	OK(raise(SIGUSR1) == 0);
	NONE(kq);
	OK(watch_flags(kq, SIGUSR1, EV_ENABLE) == 0);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

CHECK(adding_again_keeps_what_was_counted_and_takes_the_new_udata)
{
	struct kevent ev;
	int kq;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	OK(raise(SIGUSR1) == 0);
	OK(change(kq, SIGUSR1, EVFILT_SIGNAL, EV_ADD, 0, 0, &kq) == 0);
	ev = ONE(kq);
	EQ(ev.data, 1);
	OK(ev.udata == &kq);
	NONE(kq);
	OK(close(kq) == 0);
}

CHECK(a_oneshot_reports_once_and_is_gone)
{
	int kq;
	handle(SIGUSR1);
	kq = kqueue();
	OK(watch_flags(kq, SIGUSR1, EV_ADD | EV_ONESHOT) == 0);
	OK(raise(SIGUSR1) == 0);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 2);
	OK(raise(SIGUSR1) == 0);
	NONE(kq);
	FAILS(watch_flags(kq, SIGUSR1, EV_DELETE), ENOENT);
	EQ(runs, 3);
	OK(close(kq) == 0);
}

CHECK(a_dispatch_is_silent_until_enabled)
{
	int kq;
	handle(SIGUSR1);
	kq = kqueue();
	OK(watch_flags(kq, SIGUSR1, EV_ADD | EV_DISPATCH) == 0);
	OK(raise(SIGUSR1) == 0);
	SENT(kq, SIGUSR1, 1);
	OK(raise(SIGUSR1) == 0);
	NONE(kq);
	OK(watch_flags(kq, SIGUSR1, EV_ENABLE) == 0);
	SENT(kq, SIGUSR1, 1);
	OK(close(kq) == 0);
}

CHECK(numbers_that_are_no_signal_are_EINVAL)
{
	static const uintptr_t bad[] = { 0, 32, 33, 65, 1000, UINTPTR_MAX, (uintptr_t)1 << 31, ((uintptr_t)1 << 32) + SIGUSR1 };
	unsigned i;
	int kq = kqueue();
	for (i = 0; i < sizeof bad / sizeof *bad; i++)
		FAILS(change(kq, bad[i], EVFILT_SIGNAL, EV_ADD, 0, 0, NULL), EINVAL);
	FAILS(watch_flags(kq, SIGUSR1, EV_DELETE), ENOENT);
	FAILS(watch_flags(kq, SIGUSR1, EV_ENABLE), ENOENT);
	OK(close(kq) == 0);
}

CHECK(every_other_number_can_be_watched)
{
	int n, kq = kqueue();
	for (n = 1; n <= 64; n++)
		if (n != 32 && n != 33)
			OK(watch_flags(kq, n, EV_ADD) == 0);
	signal(SIGUSR1, SIG_IGN);
	OK(watch_flags(kq, SIGRTMAX, EV_DELETE) == 0);
	NONE(kq);
	OK(raise(SIGURG) == 0);
	SENT(kq, SIGURG, 1);
	OK(close(kq) == 0);
}

CHECK(several_signals_come_in_one_call)
{
	struct kevent ev[4];
	int i, kq, seen = 0;
	handle(SIGUSR1);
	handle(SIGUSR2);
	kq = watching(SIGUSR1);
	OK(watch_flags(kq, SIGUSR2, EV_ADD) == 0);
	OK(watch_flags(kq, SIGWINCH, EV_ADD) == 0);
	OK(raise(SIGUSR1) == 0);
	OK(raise(SIGWINCH) == 0);
	OK(raise(SIGUSR1) == 0);
	OK(raise(SIGUSR2) == 0);
	EQ(collect(kq, ev, 4, 0), 3);
	for (i = 0; i < 3; i++)
		seen += (int)(ev[i].ident * 100 + ev[i].data);
	EQ(seen, (SIGUSR1 + SIGUSR2 + SIGWINCH) * 100 + 4);
	OK(close(kq) == 0);
}

CHECK(poll_and_a_kqueue_above_see_it)
{
	struct pollfd p;
	struct kevent ev;
	int above = kqueue(), kq, i;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	OK(change(above, (uintptr_t)kq, EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	for (i = 0; i < 5; i++) {
		NONE(kq);
		p.fd = kq;
		p.events = POLLIN;
		EQ(poll(&p, 1, 0), 0);
		NONE(above);
		OK(raise(SIGUSR1) == 0);
		ev = ONE(above);
		EQ(ev.ident, kq);
		EQ(ev.data, 1);
		EQ(poll(&p, 1, 10000), 1);
		SENT(kq, SIGUSR1, 1);
	}
	OK(close(above) == 0);
	OK(close(kq) == 0);
}

CHECK(a_kqueue_that_was_waited_on_becomes_readable)
{
	struct pollfd p;
	struct kevent ev;
	int kq, i;
	handle(SIGUSR1);
	kq = watching(SIGUSR1);
	for (i = 0; i < 5; i++) {
		EQ(collect(kq, &ev, 1, 1), 0);
		OK(raise(SIGUSR1) == 0);
		p.fd = kq;
		p.events = POLLIN;
		EQ(poll(&p, 1, 10000), 1);
		SENT(kq, SIGUSR1, 1);
	}
	OK(close(kq) == 0);
}

/* More than epoll lets lead to one descriptor: those left over are looked at by a timer. */
CHECK(six_hundred_polled_kqueues_all_show_it)
{
	enum { MANY = 600 };
	static struct pollfd all[MANY];
	struct rlimit lim;
	struct kevent ev;
	int i;
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = lim.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	if (lim.rlim_cur < 8 * MANY)
		SKIP("RLIMIT_NOFILE is %llu", (unsigned long long)lim.rlim_cur);
	handle(SIGUSR1);
	for (i = 0; i < MANY; i++) {
		all[i].fd = watching(SIGUSR1);
		all[i].events = POLLIN;
		EQ(collect(all[i].fd, &ev, 1, 0), 0);
	}
	EQ(poll(all, MANY, 0), 0);
	OK(raise(SIGUSR1) == 0);
	for (i = 0; i < MANY; i++) {
		EQ(poll(&all[i], 1, 10000), 1);
		SENT(all[i].fd, SIGUSR1, 1);
		OK(close(all[i].fd) == 0);
	}
}

CHECKS(
	C(seven_kills_are_seven)
	C(every_way_to_send_is_counted)
	C(another_process_is_heard)
	C(a_standard_signal_of_another_process_comes_at_least_once)
	C(each_kqueue_has_its_own_count)
	C(what_was_sent_before_is_not_counted)
	C(disabling_hides_and_goes_on_counting)
	C(adding_again_keeps_what_was_counted_and_takes_the_new_udata)
	C(a_oneshot_reports_once_and_is_gone)
	C(a_dispatch_is_silent_until_enabled)
	C(numbers_that_are_no_signal_are_EINVAL)
	C(every_other_number_can_be_watched)
	C(several_signals_come_in_one_call)
	C(poll_and_a_kqueue_above_see_it)
	C(a_kqueue_that_was_waited_on_becomes_readable)
	C(six_hundred_polled_kqueues_all_show_it)
);
