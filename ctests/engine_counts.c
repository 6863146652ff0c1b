/* How many events and changes one call takes, and who gets a turn. */
#include "engine_util.h"
#include <sys/resource.h>

enum { MANY = 1500, CROWD = 5000 };

/* Descriptors for the big checks; 0 if the machine does not allow them. */
static int allow_fds(unsigned long n)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) != 0)
		return 0;
	if (r.rlim_cur >= n)
		return 1;
	r.rlim_cur = n;
	return r.rlim_max >= n && setrlimit(RLIMIT_NOFILE, &r) == 0;
}

static struct kevent *new_array(int n)
{
	struct kevent *a = calloc((size_t)n, sizeof *a);
	OK(a != NULL);
	return a;
}

/* Marks seen[ident - base]; each must come once. */
static void once_each(const struct kevent *ev, int n, uintptr_t base, int room)
{
	char *seen = calloc((size_t)room, 1);
	int i;
	OK(seen != NULL);
	for (i = 0; i < n; i++) {
		OK(ev[i].ident >= base && ev[i].ident < base + (uintptr_t)room);
		OK(!seen[ev[i].ident - base]);
		seen[ev[i].ident - base] = 1;
	}
	free(seen);
}

/* --- many at once -------------------------------------------------------- */

static void many_descriptors(int many)
{
	struct kevent *ev = new_array(many + 1);
	int *fds = calloc((size_t)many, sizeof *fds), p[2], i, kq = new_kqueue();
	if (!allow_fds((unsigned long)many + 600))
		SKIP("RLIMIT_NOFILE");
	OK(fds != NULL);
	pipe_open(p);
	put(p[1]);
	for (i = 0; i < many; i++) {
		fds[i] = fcntl(p[0], F_DUPFD_CLOEXEC, 0);
		OK(fds[i] >= 0);
		EV_SET(&ev[i], fds[i], EVFILT_READ, EV_ADD, 0, 0, NULL);
	}
	EQ(kevent(kq, ev, many, NULL, 0, NULL), 0);
	EQ(collect(kq, ev, many + 1, 0), many);
	once_each(ev, many, 0, 65536);
	EQ(collect(kq, ev, many + 1, -1), many);
	OK(close(kq) == 0);
	for (i = 0; i < many; i++)
		OK(close(fds[i]) == 0);
	pipe_close(p);
	free(fds);
	free(ev);
}

CHECK(fifteen_hundred_descriptor_events_come_in_one_call)
{
	many_descriptors(MANY);
}

CHECK(five_thousand_descriptor_events_come_in_one_call)
{
	many_descriptors(CROWD);
}

/* To each open file epoll lets 500 paths lead that pass through another epoll. */
static void copies_one_by_one(int ready)
{
	enum { COPIES = 700 };
	static int fds[COPIES];
	struct kevent *ev = new_array(COPIES + 1);
	struct pollfd poller = { .events = POLLIN };
	int p[2], i, kq = new_kqueue();
	if (!allow_fds(COPIES + 600))
		SKIP("RLIMIT_NOFILE");
	pipe_open(p);
	if (ready)
		put(p[1]);
	for (i = 0; i < COPIES; i++) {
		fds[i] = fcntl(p[0], F_DUPFD_CLOEXEC, 0);
		OK(fds[i] >= 0);
		OK(change(kq, (uintptr_t)fds[i], EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	}
	poller.fd = kq;
	EQ(poll(&poller, 1, ready ? 5000 : 0), ready);
	if (!ready)
		put(p[1]);
	EQ(poll(&poller, 1, 5000), 1);
	EQ(collect(kq, ev, COPIES + 1, 0), COPIES);
	OK(close(kq) == 0);
	for (i = 0; i < COPIES; i++)
		OK(close(fds[i]) == 0);
	pipe_close(p);
	free(ev);
}

CHECK(seven_hundred_copies_of_a_descriptor_are_added_one_by_one)
{
	copies_one_by_one(0);
}

CHECK(seven_hundred_copies_of_a_ready_descriptor_are_added_one_by_one)
{
	copies_one_by_one(1);
}

CHECK(fifteen_hundred_user_events_come_in_one_call)
{
	struct kevent *ev = new_array(2 * MANY);
	int i, kq = new_kqueue();
	for (i = 0; i < MANY; i++) {
		EV_SET(&ev[2 * i], i, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
		EV_SET(&ev[2 * i + 1], i, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
	}
	EQ(kevent(kq, ev, 2 * MANY, NULL, 0, NULL), 0);
	EQ(collect(kq, ev, 2 * MANY, -1), MANY);
	once_each(ev, MANY, 0, MANY);
	NONE(kq);
	OK(close(kq) == 0);
	free(ev);
}

CHECK(fifteen_hundred_timers_come_in_one_call)
{
	struct kevent *ev = new_array(MANY + 1);
	long long end;
	int i, kq = new_kqueue();
	for (i = 0; i < MANY; i++)
		EV_SET(&ev[i], i, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_NSECONDS, i + 1, NULL);
	EQ(kevent(kq, ev, MANY, NULL, 0, NULL), 0);
	end = now_ns() + 5000000;
	UNTIL(now_ns() > end);
	EQ(collect(kq, ev, MANY + 1, 10000), MANY);
	once_each(ev, MANY, 0, MANY);
	NONE(kq);
	OK(close(kq) == 0);
	free(ev);
}

CHECK(events_of_all_sources_come_in_one_call)
{
	struct kevent ev[16];
	struct source p = source_open(PIPE), s = source_open(SOCKET), t = source_open(TIMER);
	int kq = new_kqueue();
	t.ident = (uintptr_t)p.fd;
	OK(apply(kq, &p, EV_ADD, NULL) == 0 && apply(kq, &s, EV_ADD, NULL) == 0);
	OK(change(kq, s.ident, EVFILT_WRITE, EV_ADD, 0, 0, NULL) == 0);
	OK(add_user(kq, (uintptr_t)p.fd, 0) == 0);
	OK(trigger(kq, (uintptr_t)p.fd) == 0);
	OK(apply(kq, &t, EV_ADD, NULL) == 0);
	source_fire(kq, &p);
	source_fire(kq, &s);
	source_fire(kq, &t);
	EQ(collect(kq, ev, 16, 10000), 5);
	OK(close(kq) == 0);
	source_close(&p);
	source_close(&s);
}

CHECK(no_event_comes_twice_in_one_call)
{
	struct kevent ev[64];
	struct source p = source_open(PIPE);
	int i, kq = new_kqueue();
	OK(apply(kq, &p, EV_ADD, NULL) == 0);
	OK(add_user(kq, 1, 0) == 0 && trigger(kq, 1) == 0);
	source_fire(kq, &p);
	for (i = 0; i < 20; i++)
		EQ(collect(kq, ev, 64, -1), 2);
	OK(close(kq) == 0);
	source_close(&p);
}

CHECK(five_thousand_changes_go_in_one_call)
{
	struct kevent *ch = new_array(CROWD);
	int i, kq = new_kqueue();
	for (i = 0; i < CROWD; i++)
		EV_SET(&ch[i], i, EVFILT_USER, EV_ADD, 0, 0, NULL);
	EQ(kevent(kq, ch, CROWD, NULL, 0, NULL), 0);
	for (i = 0; i < CROWD; i++)
		EV_SET(&ch[i], i, EVFILT_USER, EV_DELETE, 0, 0, NULL);
	EQ(kevent(kq, ch, CROWD, NULL, 0, NULL), 0);
	FAILS(kevent(kq, ch, CROWD, NULL, 0, NULL), ENOENT);
	OK(close(kq) == 0);
	free(ch);
}

CHECK(five_thousand_receipts_go_in_one_call_over_their_own_changes)
{
	struct kevent *ch = new_array(CROWD);
	int i, kq = new_kqueue();
	for (i = 0; i < CROWD; i++)
		EV_SET(&ch[i], i, EVFILT_TIMER, EV_ADD | EV_RECEIPT, NOTE_SECONDS, 1000, UD(i));
	EQ(kevent(kq, ch, CROWD, ch, CROWD, NULL), CROWD);
	for (i = 0; i < CROWD; i++) {
		EQ(ch[i].ident, i);
		OK(ch[i].flags & EV_ERROR);
		EQ(ch[i].data, 0);
		OK(ch[i].udata == UD(i));
	}
	OK(close(kq) == 0);
	free(ch);
}

CHECK(five_thousand_changes_and_events_go_in_one_call)
{
	struct kevent *kev = new_array(2 * CROWD);
	int i, kq = new_kqueue();
	for (i = 0; i < CROWD; i++) {
		EV_SET(&kev[2 * i], i, EVFILT_USER, EV_ADD | EV_ONESHOT, 0, 0, NULL);
		EV_SET(&kev[2 * i + 1], i, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
	}
	EQ(kevent(kq, kev, 2 * CROWD, kev, 2 * CROWD, NULL), CROWD);
	once_each(kev, CROWD, 0, CROWD);
	NONE(kq);
	OK(close(kq) == 0);
	free(kev);
}

/* --- order and turns ----------------------------------------------------- */

CHECK(user_events_come_in_the_order_of_their_triggers)
{
	static const uintptr_t order[] = { 5, 3, 9 };
	struct kevent ev[4];
	int i, kq = new_kqueue();
	for (i = 1; i < 10; i++)
		OK(add_user(kq, (uintptr_t)i, EV_CLEAR) == 0);
	for (i = 0; i < 3; i++)
		OK(trigger(kq, order[i]) == 0);
	EQ(collect(kq, ev, 4, -1), 3);
	for (i = 0; i < 3; i++)
		EQ(ev[i].ident, order[i]);
	for (i = 0; i < 3; i++)
		OK(trigger(kq, order[i]) == 0);
	for (i = 0; i < 3; i++) {
		EQ(collect(kq, ev, 1, -1), 1);
		EQ(ev[0].ident, order[i]);
	}
	OK(close(kq) == 0);
}

/* Calls with room for one and counts what comes, up to n kinds by udata 0..n-1. */
static void count_turns(int kq, int calls, int *turns, int n)
{
	struct kevent ev;
	memset(turns, 0, (size_t)n * sizeof *turns);
	while (calls-- > 0) {
		EQ(collect(kq, &ev, 1, 10000), 1);
		OK((uintptr_t)ev.udata < (uintptr_t)n);
		turns[(uintptr_t)ev.udata]++;
	}
}

CHECK(ready_descriptors_take_turns_with_room_for_one)
{
	int p[5][2], turns[5], i, kq = new_kqueue();
	for (i = 0; i < 5; i++) {
		pipe_open(p[i]);
		put(p[i][1]);
		OK(change(kq, (uintptr_t)p[i][0], EVFILT_READ, EV_ADD, 0, 0, UD(i)) == 0);
	}
	count_turns(kq, 50, turns, 5);
	for (i = 0; i < 5; i++)
		OK(turns[i] >= 5);
	OK(close(kq) == 0);
	for (i = 0; i < 5; i++)
		pipe_close(p[i]);
}

CHECK(triggered_user_events_take_turns_with_room_for_one)
{
	int turns[5], i, kq = new_kqueue();
	for (i = 0; i < 5; i++)
		OK(change(kq, (uintptr_t)i, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, UD(i)) == 0);
	count_turns(kq, 50, turns, 5);
	for (i = 0; i < 5; i++)
		EQ(turns[i], 10);
	OK(close(kq) == 0);
}

CHECK(the_two_knotes_of_one_descriptor_take_turns)
{
	struct source s = source_open(SOCKET);
	int turns[2], kq = new_kqueue();
	OK(change(kq, s.ident, EVFILT_READ, EV_ADD, 0, 0, UD(0)) == 0);
	OK(change(kq, s.ident, EVFILT_WRITE, EV_ADD, 0, 0, UD(1)) == 0);
	put(s.peer);
	count_turns(kq, 20, turns, 2);
	OK(turns[0] >= 5 && turns[1] >= 5);
	OK(close(kq) == 0);
	source_close(&s);
}

CHECK(descriptors_files_and_user_events_take_turns)
{
	struct source a = source_open(PIPE), b = source_open(SOCKET);
	int turns[4], i, kq = new_kqueue(), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	OK(null >= 0);
	OK(apply(kq, &a, EV_ADD, UD(0)) == 0 && apply(kq, &b, EV_ADD, UD(1)) == 0);
	OK(change(kq, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, UD(2)) == 0);
	OK(change(kq, (uintptr_t)null, EVFILT_READ, EV_ADD, 0, 0, UD(3)) == 0);
	put(a.peer);
	put(b.peer);
	count_turns(kq, 60, turns, 4);
	for (i = 0; i < 4; i++)
		OK(turns[i] >= 5);
	OK(close(kq) == 0 && close(null) == 0);
	source_close(&a);
	source_close(&b);
}

CHECK(a_timer_gets_its_turn_beside_ready_knotes)
{
	struct source a = source_open(PIPE), t = source_open(TIMER);
	int turns[3], i, kq = new_kqueue();
	OK(apply(kq, &a, EV_ADD, UD(0)) == 0);
	OK(change(kq, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, UD(1)) == 0);
	put(a.peer);
	for (i = 0; i < 10; i++) {
		OK(apply(kq, &t, EV_ADD | EV_ONESHOT, UD(2)) == 0);
		source_fire(kq, &t);
		count_turns(kq, 8, turns, 3);
		EQ(turns[2], 1);
		OK(turns[0] >= 1 && turns[1] >= 1);
	}
	OK(close(kq) == 0);
	source_close(&a);
}

CHECK(a_descriptor_that_becomes_ready_later_gets_its_turn)
{
	struct source a = source_open(PIPE), b = source_open(PIPE);
	int turns[2], i, kq = new_kqueue();
	OK(apply(kq, &a, EV_ADD, UD(0)) == 0 && apply(kq, &b, EV_ADD | EV_CLEAR, UD(1)) == 0);
	put(a.peer);
	for (i = 0; i < 20; i++) {
		count_turns(kq, 4, turns, 2);
		EQ(turns[1], 0);
		put(b.peer);
		count_turns(kq, 6, turns, 2);
		EQ(turns[1], 1);
	}
	OK(close(kq) == 0);
	source_close(&a);
	source_close(&b);
}

/* --- more ready than there is room for ----------------------------------- */

enum { THRONG = 64, STAYING = 100 };

static struct source crowd[THRONG];

/* THRONG readable sockets, by udata from 0 on. */
static void crowd_open(int kq, int flags)
{
	int i;
	for (i = 0; i < THRONG; i++) {
		crowd[i] = source_open(SOCKET);
		put(crowd[i].peer);
		OK(apply(kq, &crowd[i], EV_ADD | flags, UD(i)) == 0);
	}
}

static void crowd_close(int kq)
{
	int i;
	OK(close(kq) == 0);
	for (i = 0; i < THRONG; i++)
		source_close(&crowd[i]);
}

/* One call that must fill its room. What is of the crowd is enabled again if it was
 * dispatched, and counted by udata in turns[]; others get their count, too, up to n. */
static void take(int kq, int room, int flags, int *turns, int n)
{
	struct kevent ev[THRONG];
	int i;
	EQ(collect(kq, ev, room, 10000), room);
	for (i = 0; i < room; i++) {
		uintptr_t which = (uintptr_t)ev[i].udata;
		OK(!(ev[i].flags & EV_ERROR) && which < (uintptr_t)n);
		turns[which]++;
		if (flags && which < THRONG)
			OK(apply(kq, &crowd[which], EV_ENABLE | flags, UD(which)) == 0);
	}
}

/* Nobody comes twice more often than another, however little room there is. */
static void crowd_takes_turns(int flags)
{
	static const int rooms[] = { 1, 2, 7, 8, 9, 63 };
	size_t r;
	int i, call;
	for (r = 0; r < sizeof rooms / sizeof *rooms; r++) {
		int kq = new_kqueue(), turns[THRONG] = {0}, least, most;
		crowd_open(kq, flags);
		for (call = 0; call * rooms[r] < 5 * THRONG; call++) {
			take(kq, rooms[r], flags, turns, THRONG);
			least = most = turns[0];
			for (i = 1; i < THRONG; i++) {
				least = turns[i] < least ? turns[i] : least;
				most = turns[i] > most ? turns[i] : most;
			}
			if (most - least > 2)
				FAIL("room %d, call %d: one came %d times, another %d", rooms[r], call, most, least);
		}
		crowd_close(kq);
	}
}

CHECK(a_crowd_takes_turns_with_any_room) { crowd_takes_turns(0); }
CHECK(a_crowd_that_is_dispatched_takes_turns_with_any_room) { crowd_takes_turns(EV_DISPATCH); }

/* User events that stay triggered are on the list before the sockets, and stay there. */
static void crowd_beside_staying_events(int flags)
{
	enum { ROOM = 8, ALL_OF_THEM = THRONG + STAYING };
	int kq = new_kqueue(), turns[ALL_OF_THEM] = {0}, i;
	for (i = 0; i < STAYING; i++)
		OK(change(kq, (uintptr_t)i, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, UD(THRONG + i)) == 0);
	crowd_open(kq, flags);
	for (i = 0; i * ROOM < 10 * ALL_OF_THEM; i++)
		take(kq, ROOM, flags, turns, ALL_OF_THEM);
	for (i = 0; i < ALL_OF_THEM; i++)
		if (turns[i] < 5 || turns[i] > 20)
			FAIL("%d came %d times, not about ten times", i, turns[i]);
	crowd_close(kq);
}

CHECK(a_crowd_gets_its_turns_beside_user_events_that_stay) { crowd_beside_staying_events(0); }
CHECK(a_dispatched_crowd_gets_its_turns_beside_user_events_that_stay) { crowd_beside_staying_events(EV_DISPATCH); }

/* A user event, a timer, a signal, a file and a child each come soon, though the crowd
 * would fill every call. */
static void crowd_leaves_turns(int room, int flags)
{
	enum { LATE = THRONG, KINDS = THRONG + 5 };
	int kq = new_kqueue(), file = nameless_file(), round, i, calls;
	signal(SIGUSR1, SIG_IGN);
	OK(change(kq, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, UD(LATE)) == 0);
	OK(change(kq, SIGUSR1, EVFILT_SIGNAL, EV_ADD, 0, 0, UD(LATE + 1)) == 0);
	OK(change(kq, (uintptr_t)file, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_WRITE, 0, UD(LATE + 2)) == 0);
	crowd_open(kq, flags);
	for (round = 0; round < 4; round++) {
		int turns[KINDS] = {0}, seen = 0;
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		OK(pid > 0);
		OK(change(kq, (uintptr_t)pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, UD(LATE + 3)) == 0);
		OK(change(kq, 2, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1, UD(LATE + 4)) == 0);
		take(kq, room, flags, turns, KINDS);
		/* All of it has happened when this is over. */
		EQ(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
		put(file);
		OK(kill(getpid(), SIGUSR1) == 0);
		OK(change(kq, 1, EVFILT_USER, EV_KEEPUDATA, NOTE_TRIGGER, 0, NULL) == 0);
		pause_ms(3);
		for (calls = 0; seen < 5; calls++) {
			if (calls > 3 * KINDS / room + 3)
				FAIL("room %d, round %d: in %d calls user %d, signal %d, vnode %d, proc %d, timer %d", room, round, calls,
					turns[LATE], turns[LATE + 1], turns[LATE + 2], turns[LATE + 3], turns[LATE + 4]);
			take(kq, room, flags, turns, KINDS);
			for (i = seen = 0; i < 5; i++) {
				OK(turns[LATE + i] <= 1);
				seen += turns[LATE + i];
			}
		}
		EQ(waitpid(pid, NULL, 0), pid);
	}
	OK(close(file) == 0);
	crowd_close(kq);
}

CHECK(a_crowd_leaves_their_turns_to_other_kinds)
{
	crowd_leaves_turns(1, 0);
	crowd_leaves_turns(8, 0);
	crowd_leaves_turns(8, EV_DISPATCH);
}

/* Some of it waits in the library, and all of that is in epoll once more. */
static void crowd_comes_whole(int flags)
{
	struct kevent ev[THRONG];
	int room, i;
	for (room = 1; room < THRONG; room++) {
		int kq = new_kqueue(), turns[THRONG] = {0};
		struct pollfd p = { .fd = kq, .events = POLLIN };
		crowd_open(kq, flags);
		EQ(poll(&p, 1, 10000), 1);
		EQ(collect(kq, ev, room, 10000), room);
		for (i = 0; i < THRONG && flags; i++)
			OK(apply(kq, &crowd[i], EV_ENABLE | flags, UD(i)) == 0);
		EQ(collect(kq, ev, THRONG, 0), THRONG);
		for (i = 0; i < THRONG; i++)
			EQ(turns[(uintptr_t)ev[i].udata]++, 0);
		if (flags)
			NONE(kq);
		crowd_close(kq);
	}
}

CHECK(a_crowd_comes_whole_after_a_part_of_it) { crowd_comes_whole(0); }
CHECK(a_crowd_enabled_again_comes_whole_after_a_part_of_it) { crowd_comes_whole(EV_DISPATCH); }

/* The close stands behind the crowd in epoll. */
CHECK(a_closed_queue_that_a_crowd_kept_busy_is_noticed)
{
	static const int rooms[] = { 1, 2, 8, 32 };
	int i, r, call;
	for (r = 0; r < 4; r++)
		for (i = 0; i < 10; i++) {
			int kq = new_kqueue(), turns[THRONG] = {0};
			struct kevent ev[THRONG];
			crowd_open(kq, i % 2 ? EV_DISPATCH : 0);
			for (call = 0; call < i; call++)
				take(kq, rooms[r], i % 2 ? EV_DISPATCH : 0, turns, THRONG);
			OK(close(kq) == 0);
			FAILS(collect(kq, ev, rooms[r], 0), EBADF);
			for (call = 0; call < THRONG; call++)
				source_close(&crowd[call]);
		}
}

CHECKS(C(fifteen_hundred_descriptor_events_come_in_one_call)
	C(five_thousand_descriptor_events_come_in_one_call)
	C(seven_hundred_copies_of_a_descriptor_are_added_one_by_one)
	C(seven_hundred_copies_of_a_ready_descriptor_are_added_one_by_one)
	C(fifteen_hundred_user_events_come_in_one_call)
	C(fifteen_hundred_timers_come_in_one_call)
	C(events_of_all_sources_come_in_one_call)
	C(no_event_comes_twice_in_one_call)
	C(five_thousand_changes_go_in_one_call)
	C(five_thousand_receipts_go_in_one_call_over_their_own_changes)
	C(five_thousand_changes_and_events_go_in_one_call)
	C(user_events_come_in_the_order_of_their_triggers)
	C(ready_descriptors_take_turns_with_room_for_one)
	C(triggered_user_events_take_turns_with_room_for_one)
	C(the_two_knotes_of_one_descriptor_take_turns)
	C(descriptors_files_and_user_events_take_turns)
	C(a_timer_gets_its_turn_beside_ready_knotes)
	C(a_descriptor_that_becomes_ready_later_gets_its_turn)
	C(a_crowd_takes_turns_with_any_room)
	C(a_crowd_that_is_dispatched_takes_turns_with_any_room)
	C(a_crowd_gets_its_turns_beside_user_events_that_stay)
	C(a_dispatched_crowd_gets_its_turns_beside_user_events_that_stay)
	C(a_crowd_leaves_their_turns_to_other_kinds)
	C(a_crowd_comes_whole_after_a_part_of_it)
	C(a_crowd_enabled_again_comes_whole_after_a_part_of_it)
	C(a_closed_queue_that_a_crowd_kept_busy_is_noticed));
