/* READ and WRITE on regular files and on the devices epoll refuses. */
#include "net.h"
#include <sys/resource.h>

/* Adds n bytes at the end, without touching the descriptor's offset. */
static void grow(int fd, int n)
{
	static const char zeros[8192];
	struct stat st;
	OK(fstat(fd, &st) == 0);
	EQ(pwrite(fd, zeros, (size_t)n, st.st_size), n);
}

CHECK(file_before_its_end_gives_the_rest_at_each_call)
{
	int fd = bare_file(100), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 100);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 100);
	get(fd, 30);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 70);
	EQ(EVENT(kq, fd, EVFILT_READ).flags & EV_EOF, 0);
	close(fd);
	close(kq);
}

CHECK(file_at_its_end_is_silent_and_sleeps)
{
	int fd = bare_file(100), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, 0);
	get(fd, 99);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 1);
	get(fd, 1);
	QUIET(kq);
	QUIET(kq);
	close(fd);
	close(kq);
}

CHECK(empty_file_is_silent)
{
	int fd = bare_file(0), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, 0);
	QUIET(kq);
	close(fd);
	close(kq);
}

CHECK(offset_behind_the_end_gives_negative_data)
{
	int fd = bare_file(100), kq = new_kqueue();
	EQ(lseek(fd, 130, SEEK_SET), 130);
	ADD(kq, fd, EVFILT_READ, 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, -30);
	EQ(EVENT(kq, fd, EVFILT_READ).data, -30);
	grow(fd, 30);
	QUIET(kq);
	close(fd);
	close(kq);
}

CHECK(file_cut_below_the_offset_gives_negative_data)
{
	int fd = bare_file(100), kq = new_kqueue();
	EQ(lseek(fd, 100, SEEK_SET), 100);
	ADD(kq, fd, EVFILT_READ, 0);
	NONE(kq);
	OK(ftruncate(fd, 60) == 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, -40);
	close(fd);
	close(kq);
}

CHECK(moving_the_offset_away_from_the_end_is_seen_by_the_next_call)
{
	struct kevent ev;
	int fd = bare_file(100), kq = new_kqueue(), i;
	ADD(kq, fd, EVFILT_READ, 0);
	get(fd, 100);
	for (i = 0; i < 3; i++) {
		QUIET(kq);
		EQ(lseek(fd, 0, SEEK_SET), 0);
		EQ(EVENT(kq, fd, EVFILT_READ).data, 100);
		EQ(lseek(fd, 0, SEEK_END), 100);
	}
	NONE(kq);
	EQ(lseek(fd, 130, SEEK_SET), 130);
	EQ(collect(kq, &ev, 1, 0), 1);
	EQ(ev.data, -30);
	EQ(lseek(fd, 0, SEEK_END), 100);
	NONE(kq);
	OK(change(kq, (uintptr_t)fd, EVFILT_READ, EV_DISABLE, 0, 0, NULL) == 0);
	EQ(lseek(fd, 99, SEEK_SET), 99);
	NONE(kq);
	OK(change(kq, (uintptr_t)fd, EVFILT_READ, EV_ENABLE, 0, 0, NULL) == 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 1);
	close(fd);
	close(kq);
}

CHECK(moving_the_offset_is_an_edge_from_the_end_on)
{
	int fd = bare_file(100), kq = new_kqueue();
	EQ(lseek(fd, 0, SEEK_END), 100);
	ADD(kq, fd, EVFILT_READ, EV_CLEAR);
	QUIET(kq);
	EQ(lseek(fd, 40, SEEK_SET), 40);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 60);
	QUIET(kq);
	close(fd);
	close(kq);
}

/* Each call looks at some of those that are at their end. */
CHECK(one_of_many_files_at_their_end_is_found_again)
{
	struct kevent ev;
	int fd[100], kq = new_kqueue(), i;
	for (i = 0; i < 100; i++) {
		fd[i] = bare_file(0);
		ADD(kq, fd[i], EVFILT_READ, 0);
	}
	NONE(kq);
	EQ(lseek(fd[77], 9, SEEK_SET), 9);
	UNTIL(collect(kq, &ev, 1, 0) == 1);
	EQ(ev.ident, fd[77]);
	EQ(ev.data, -9);
	for (i = 0; i < 100; i++)
		close(fd[i]);
	NONE(kq);
	close(kq);
}

CHECK(growth_wakes_with_the_new_bytes)
{
	int fd = bare_file(100), kq = new_kqueue();
	EQ(lseek(fd, 0, SEEK_END), 100);
	ADD(kq, fd, EVFILT_READ, 0);
	NONE(kq);
	grow(fd, 5);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 5);
	get(fd, 5);
	NONE(kq);
	grow(fd, 3);
	grow(fd, 4);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 7);
	close(fd);
	close(kq);
}

CHECK(growth_by_another_process_wakes_a_sleeping_call)
{
	struct kevent ev;
	char path[SCRATCH];
	int status, fd = make_file(path, 10), kq = new_kqueue();
	pid_t pid;
	get(fd, 10);
	ADD(kq, fd, EVFILT_READ, 0);
	NONE(kq);
	pid = fork();
	OK(pid >= 0);
	if (pid == 0) {
		int w = open(path, O_WRONLY | O_APPEND);
		UNTIL(state_of(getppid()) == 'S');
		_exit(write(w, "hello", 5) == 5 ? 0 : 1);
	}
	EQ(collect(kq, &ev, 1, 20000), 1);
	EQ(ev.ident, fd);
	EQ(ev.data, 5);
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
	OK(unlink(path) == 0);
	close(fd);
	close(kq);
}

CHECK(clear_comes_once_until_the_file_changes)
{
	int fd = bare_file(100), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, EV_CLEAR);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 100);
	QUIET(kq);
	get(fd, 40);
	QUIET(kq);
	grow(fd, 10);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 70);
	QUIET(kq);
	close(fd);
	close(kq);
}

CHECK(clear_at_the_end_wakes_at_growth)
{
	int fd = bare_file(0), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, EV_CLEAR);
	NONE(kq);
	grow(fd, 10);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 10);
	NONE(kq);
	close(fd);
	close(kq);
}

static int shared_file;
static _Atomic int begun, written;

/* Writes one byte in each round, a little later each time. */
static void *one_byte_a_round(void *arg)
{
	int *rounds = arg, round;
	volatile unsigned i;
	for (round = 1; round <= *rounds; round++) {
		while (begun < round)
			;
		for (i = 0; i < (unsigned)round * 7919 % 4000; i++)
			;
		if (pwrite(shared_file, "x", 1, 1) != 1)
			break;
		written = round;
	}
	return NULL;
}

CHECK(a_write_beside_the_first_event_with_clear_is_not_lost)
{
	int rounds = 600, round, fd, kq;
	pthread_t t;
	shared_file = bare_file(1);
	OK(pthread_create(&t, NULL, one_byte_a_round, &rounds) == 0);
	for (round = 1; round <= rounds; round++) {
		char self[40];
		OK(ftruncate(shared_file, 1) == 0);
		snprintf(self, sizeof self, "/proc/self/fd/%d", shared_file);
		OK((fd = open(self, O_RDONLY)) >= 0);
		kq = new_kqueue();
		ADD(kq, fd, EVFILT_READ, EV_CLEAR);
		begun = round;
		if (EVENT(kq, fd, EVFILT_READ).data == 1)
			EQ(EVENT(kq, fd, EVFILT_READ).data, 2);
		UNTIL(written == round);
		close(fd);
		close(kq);
	}
	pthread_join(t, NULL);
	close(shared_file);
}

CHECK(oneshot_gives_one_event_and_goes)
{
	int fd = bare_file(0), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, EV_ONESHOT);
	NONE(kq);
	grow(fd, 10);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 10);
	QUIET(kq);
	grow(fd, 10);
	QUIET(kq);
	FAILS(change(kq, (uintptr_t)fd, EVFILT_READ, EV_DELETE, 0, 0, NULL), ENOENT);
	close(fd);
	close(kq);
}

CHECK(dispatch_gives_one_event_until_enabled)
{
	int fd = bare_file(10), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, EV_DISPATCH);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 10);
	QUIET(kq);
	grow(fd, 10);
	QUIET(kq);
	OK(change(kq, (uintptr_t)fd, EVFILT_READ, EV_ENABLE, 0, 0, NULL) == 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 20);
	QUIET(kq);
	close(fd);
	close(kq);
}

CHECK(growth_while_disabled_is_reported_when_enabled)
{
	int fd = bare_file(0), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, EV_DISABLE);
	grow(fd, 10);
	QUIET(kq);
	OK(change(kq, (uintptr_t)fd, EVFILT_READ, EV_ENABLE, 0, 0, NULL) == 0);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 10);
	close(fd);
	close(kq);
}

CHECK(deleted_knote_hears_of_no_growth)
{
	int fd = bare_file(0), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, 0);
	OK(change(kq, (uintptr_t)fd, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	grow(fd, 10);
	QUIET(kq);
	close(fd);
	close(kq);
}

CHECK(two_descriptors_of_one_file_have_their_own_offsets)
{
	struct kevent ev[3];
	char path[SCRATCH];
	int a = make_file(path, 10), kq = new_kqueue(), b = open(path, O_RDONLY | O_CLOEXEC);
	OK(b >= 0 && unlink(path) == 0);
	get(a, 10);
	get(b, 4);
	ADD(kq, a, EVFILT_READ, 0);
	ADD(kq, b, EVFILT_READ, 0);
	EQ(EVENT(kq, b, EVFILT_READ).data, 6);
	grow(a, 1);
	UNTIL(collect(kq, ev, 3, 0) == 2);
	EQ(ev[0].data + ev[1].data, 1 + 7);
	OK(change(kq, (uintptr_t)b, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	get(a, 1);
	NONE(kq);
	grow(a, 2);
	EQ(EVENT(kq, a, EVFILT_READ).data, 2);
	close(a);
	close(b);
	close(kq);
}

CHECK(two_queues_on_one_file_are_independent)
{
	int fd = bare_file(0), one = new_kqueue(), two = new_kqueue();
	ADD(one, fd, EVFILT_READ, 0);
	ADD(two, fd, EVFILT_READ, EV_CLEAR);
	NONE(one);
	NONE(two);
	grow(fd, 5);
	EQ(EVENT(one, fd, EVFILT_READ).data, 5);
	EQ(EVENT(two, fd, EVFILT_READ).data, 5);
	EQ(EVENT(one, fd, EVFILT_READ).data, 5);
	NONE(two);
	OK(change(one, (uintptr_t)fd, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	grow(fd, 5);
	EQ(EVENT(two, fd, EVFILT_READ).data, 10);
	NONE(one);
	close(one);
	grow(fd, 5);
	EQ(EVENT(two, fd, EVFILT_READ).data, 15);
	close(fd);
	close(two);
}

CHECK(a_hundred_queues_can_each_watch_a_file)
{
	/* Beyond the number of inotify instances a user gets, were there one for each. */
	enum { N = 140 };
	struct rlimit lim;
	int fd = bare_file(0), kq[N], i;
	OK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = lim.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	if (lim.rlim_cur < 12 * N)
		SKIP("only %ld descriptors", (long)lim.rlim_cur);
	for (i = 0; i < N; i++) {
		kq[i] = new_kqueue();
		ADD(kq[i], fd, EVFILT_READ, 0);
	}
	grow(fd, 3);
	for (i = 0; i < N; i++)
		EQ(EVENT(kq[i], fd, EVFILT_READ).data, 3);
	for (i = 0; i < N; i++)
		close(kq[i]);
	close(fd);
}

CHECK(three_hundred_files_grow_and_each_tells)
{
	enum { N = 300 };
	struct kevent ev[N + 1];
	int fd[N], kq = new_kqueue(), i, n = 0;
	char seen[4096] = {0};
	for (i = 0; i < N; i++) {
		fd[i] = bare_file(0);
		OK(fd[i] < (int)sizeof seen);
		ADD(kq, fd[i], EVFILT_READ, EV_CLEAR);
	}
	NONE(kq);
	for (i = 0; i < N; i++)
		grow(fd[i], fd[i]);
	while (n < N) {
		int got = collect(kq, ev, N + 1, 10000);
		OK(got > 0);
		for (i = 0; i < got; i++) {
			EQ(ev[i].data, (long)ev[i].ident);
			EQ(seen[ev[i].ident], 0);
			seen[ev[i].ident] = 1;
		}
		n += got;
	}
	QUIET(kq);
	for (i = 0; i < N; i++)
		close(fd[i]);
	close(kq);
}

CHECK(write_on_a_file_is_always_ready_with_data_0)
{
	int fd = bare_file(100), kq = new_kqueue();
	ADD(kq, fd, EVFILT_WRITE, 0);
	EQ(EVENT(kq, fd, EVFILT_WRITE).data, 0);
	EQ(EVENT(kq, fd, EVFILT_WRITE).data, 0);
	EQ(EVENT(kq, fd, EVFILT_WRITE).flags & EV_EOF, 0);
	OK(change(kq, (uintptr_t)fd, EVFILT_WRITE, EV_DELETE, 0, 0, NULL) == 0);
	NONE(kq);
	ADD(kq, fd, EVFILT_WRITE, EV_ONESHOT);
	EQ(EVENT(kq, fd, EVFILT_WRITE).data, 0);
	NONE(kq);
	close(fd);
	close(kq);
}

static void device(const char *path, int filter)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), kq = new_kqueue();
	OK(fd >= 0);
	ADD(kq, fd, filter, 0);
	EVENT(kq, fd, filter);
	EVENT(kq, fd, filter);
	OK(change(kq, (uintptr_t)fd, filter, EV_DELETE, 0, 0, NULL) == 0);
	NONE(kq);
	close(fd);
	close(kq);
}

CHECK(null_and_zero_devices_are_always_ready)
{
	device("/dev/null", EVFILT_READ);
	device("/dev/null", EVFILT_WRITE);
	device("/dev/zero", EVFILT_READ);
	device("/dev/zero", EVFILT_WRITE);
}

CHECK(a_ready_file_does_not_starve_the_others)
{
	struct kevent ev;
	int p[2], fd = bare_file(100), kq = new_kqueue(), i;
	int file = 0, pipe = 0, user = 0;
	pipe_pair(p);
	put(p[1], 1);
	ADD(kq, fd, EVFILT_READ, 0);
	ADD(kq, fd, EVFILT_WRITE, 0);
	ADD(kq, p[0], EVFILT_READ, 0);
	OK(change(kq, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL) == 0);
	OK(change(kq, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL) == 0);
	for (i = 0; i < 40; i++) {
		EQ(collect(kq, &ev, 1, 10000), 1);
		if (ev.filter == EVFILT_USER)
			user++;
		else if (ev.ident == (uintptr_t)fd)
			file++;
		else
			pipe++;
	}
	OK(file >= 8);
	OK(pipe >= 5);
	OK(user >= 5);
	close_pair(p);
	close(fd);
	close(kq);
}

CHECK(the_queue_is_readable_just_while_a_file_is)
{
	int fd = bare_file(10), kq = new_kqueue();
	ADD(kq, fd, EVFILT_READ, 0);
	SETTLE(kq, POLLIN);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 10);
	SETTLE(kq, POLLIN);
	get(fd, 10);
	NONE(kq);
	EQ(polled(kq, POLLIN), 0);
	grow(fd, 1);
	SETTLE(kq, POLLIN);
	EQ(EVENT(kq, fd, EVFILT_READ).data, 1);
	get(fd, 1);
	QUIET(kq);
	EQ(polled(kq, POLLIN), 0);
	close(fd);
	close(kq);
}

CHECK(a_file_at_its_end_leaves_a_timeout_its_length)
{
	struct kevent ev;
	int fd = bare_file(0), kq = new_kqueue();
	long long start, took;
	ADD(kq, fd, EVFILT_READ, 0);
	start = now_ns();
	EQ(collect(kq, &ev, 1, 30), 0);
	took = now_ns() - start;
	OK(took >= 30000000);
	close(fd);
	close(kq);
}

/* Inode numbers are used again at once on many file systems, and descriptors on all. */
CHECK(a_file_that_got_number_and_inode_of_a_closed_one_is_not_watched)
{
	struct { struct file_handle head; char room[MAX_HANDLE_SZ]; } handle = { .head.handle_bytes = MAX_HANDLE_SZ };
	int kq = new_kqueue(), fd = bare_file(5), mount, i;
	if (name_to_handle_at(fd, "", &handle.head, &mount, AT_EMPTY_PATH) != 0)
		SKIP("the file system has no handles");
	for (i = 0; i < 50; i++) {
		ADD(kq, fd, EVFILT_READ, i % 2 ? EV_CLEAR : 0);
		EVENT(kq, fd, EVFILT_READ);
		ADD(kq, fd, EVFILT_WRITE, 0);
		close(fd);
		EQ(bare_file(5), fd);
		if (i % 4)
			NONE(kq);
		FAILS(change(kq, (uintptr_t)fd, EVFILT_READ, EV_ENABLE, 0, 0, NULL), ENOENT);
		FAILS(change(kq, (uintptr_t)fd, EVFILT_WRITE, EV_DELETE, 0, 0, NULL), ENOENT);
	}
	close(fd);
	close(kq);
}

CHECKS(
	C(file_before_its_end_gives_the_rest_at_each_call)
	C(file_at_its_end_is_silent_and_sleeps)
	C(empty_file_is_silent)
	C(offset_behind_the_end_gives_negative_data)
	C(file_cut_below_the_offset_gives_negative_data)
	C(moving_the_offset_away_from_the_end_is_seen_by_the_next_call)
	C(moving_the_offset_is_an_edge_from_the_end_on)
	C(one_of_many_files_at_their_end_is_found_again)
	C(growth_wakes_with_the_new_bytes)
	C(growth_by_another_process_wakes_a_sleeping_call)
	C(clear_comes_once_until_the_file_changes)
	C(clear_at_the_end_wakes_at_growth)
	C(a_write_beside_the_first_event_with_clear_is_not_lost)
	C(oneshot_gives_one_event_and_goes)
	C(dispatch_gives_one_event_until_enabled)
	C(growth_while_disabled_is_reported_when_enabled)
	C(deleted_knote_hears_of_no_growth)
	C(two_descriptors_of_one_file_have_their_own_offsets)
	C(two_queues_on_one_file_are_independent)
	C(a_hundred_queues_can_each_watch_a_file)
	C(three_hundred_files_grow_and_each_tells)
	C(write_on_a_file_is_always_ready_with_data_0)
	C(null_and_zero_devices_are_always_ready)
	C(a_ready_file_does_not_starve_the_others)
	C(the_queue_is_readable_just_while_a_file_is)
	C(a_file_at_its_end_leaves_a_timeout_its_length)
	C(a_file_that_got_number_and_inode_of_a_closed_one_is_not_watched)
);
