/* Many threads in one kqueue. */
#include "engine_util.h"
#include <sched.h>

enum { CREW = 4, ROUNDS = 200 };

static int load(int *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void store(int *p, int value)
{
	__atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}

static void add(int *p, int n)
{
	__atomic_add_fetch(p, n, __ATOMIC_SEQ_CST);
}

/* --- a crew that collects until the kqueue is closed --------------------- */

struct crew {
	pthread_t thread[CREW];
	int tid[CREW];
	int kq, room, started, events, ended;
};

static void *crew_main(void *arg)
{
	struct crew *c = arg;
	struct kevent ev[8];
	int n;
	__atomic_store_n(&c->tid[__atomic_fetch_add(&c->started, 1, __ATOMIC_SEQ_CST)],
		(int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	while ((n = collect(c->kq, ev, c->room, -1)) > 0)
		add(&c->events, n);
	if (n != -1 || errno != EBADF)
		FAIL("a sleeper got %d errno %d at the close", n, errno);
	add(&c->ended, 1);
	return NULL;
}

static void crew_start(struct crew *c, int kq, int room)
{
	int i;
	memset(c, 0, sizeof *c);
	c->kq = kq;
	c->room = room;
	for (i = 0; i < CREW; i++)
		OK(pthread_create(&c->thread[i], NULL, crew_main, c) == 0);
	UNTIL(load(&c->started) == CREW);
	for (i = 0; i < CREW; i++)
		UNTIL(state_of(load(&c->tid[i])) == 'S');
}

static void crew_stop(struct crew *c)
{
	int i;
	OK(close(c->kq) == 0);
	for (i = 0; i < CREW; i++)
		OK(pthread_join(c->thread[i], NULL) == 0);
	EQ(c->ended, CREW);
}

/* Each round fires once and re-arms: as many events as rounds, whoever gets them. */
static void exactly_once(enum kind k, int mode, int rearm)
{
	struct source s = source_open(k);
	struct crew c;
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | mode | (rearm == EV_ENABLE ? EV_DISABLE : 0), NULL) == 0);
	crew_start(&c, kq, 1);
	for (i = 1; i <= ROUNDS; i++) {
		if (s.fd >= 0 && mode != EV_CLEAR)
			drain(s.fd);
		if (rearm)
			OK(apply(kq, &s, rearm | mode, NULL) == 0);
		if (s.fd < 0 && mode == EV_DISPATCH && i > 1) {
			/* A level trigger is still there: enabling was the event. */
			UNTIL(load(&c.events) >= i);
			continue;
		}
		source_fire(kq, &s);
		UNTIL(load(&c.events) >= i);
		EQ(load(&c.events), i);
	}
	pause_ms(5);
	EQ(load(&c.events), ROUNDS);
	crew_stop(&c);
	source_close(&s);
}

CHECK(a_clear_event_goes_to_one_of_four_threads_pipe)
{
	exactly_once(PIPE, EV_CLEAR, 0);
}

CHECK(a_clear_event_goes_to_one_of_four_threads_socket)
{
	exactly_once(SOCKET, EV_CLEAR, 0);
}

CHECK(a_clear_event_goes_to_one_of_four_threads_user)
{
	exactly_once(USER, EV_CLEAR, 0);
}

CHECK(a_oneshot_event_goes_to_one_of_four_threads_pipe)
{
	struct source s = source_open(PIPE);
	struct crew c;
	int i, kq = new_kqueue();
	put(s.peer);
	crew_start(&c, kq, 8);
	for (i = 1; i <= ROUNDS; i++) {
		OK(apply(kq, &s, EV_ADD | EV_ONESHOT, NULL) == 0);
		UNTIL(load(&c.events) >= i);
		FAILS(apply(kq, &s, EV_DELETE, NULL), ENOENT);
	}
	EQ(load(&c.events), ROUNDS);
	crew_stop(&c);
	source_close(&s);
}

CHECK(a_oneshot_event_goes_to_one_of_four_threads_user)
{
	struct crew c;
	int i, kq = new_kqueue();
	crew_start(&c, kq, 1);
	for (i = 1; i <= ROUNDS; i++) {
		OK(add_user(kq, 1, EV_ONESHOT) == 0);
		OK(trigger(kq, 1) == 0);
		UNTIL(load(&c.events) >= i);
		FAILS(trigger(kq, 1), ENOENT);
	}
	EQ(load(&c.events), ROUNDS);
	crew_stop(&c);
}

CHECK(a_oneshot_event_goes_to_one_of_four_threads_timer)
{
	struct crew c;
	int i, kq = new_kqueue();
	crew_start(&c, kq, 1);
	for (i = 1; i <= ROUNDS; i++) {
		OK(change(kq, 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_USECONDS, 50, NULL) == 0);
		UNTIL(load(&c.events) >= i);
	}
	EQ(load(&c.events), ROUNDS);
	crew_stop(&c);
}

CHECK(a_dispatch_event_goes_to_one_of_four_threads_pipe)
{
	exactly_once(PIPE, EV_DISPATCH, EV_ENABLE);
}

CHECK(a_dispatch_event_goes_to_one_of_four_threads_socket)
{
	exactly_once(SOCKET, EV_DISPATCH, EV_ENABLE);
}

CHECK(a_dispatch_event_goes_to_one_of_four_threads_user)
{
	exactly_once(USER, EV_DISPATCH, EV_ENABLE);
}

/* Many oneshot events at once, collected in batches: none twice, none lost. */
CHECK(a_thousand_oneshot_events_are_shared_out_exactly_once)
{
	enum { N = 1000 };
	struct crew c;
	struct kevent *ch = calloc(2 * N, sizeof *ch);
	int i, round, kq = new_kqueue();
	OK(ch != NULL);
	for (i = 0; i < N; i++) {
		EV_SET(&ch[2 * i], i, EVFILT_USER, EV_ADD | EV_ONESHOT, 0, 0, NULL);
		EV_SET(&ch[2 * i + 1], i, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
	}
	crew_start(&c, kq, 8);
	for (round = 1; round <= 10; round++) {
		EQ(kevent(kq, ch, 2 * N, NULL, 0, NULL), 0);
		UNTIL(load(&c.events) >= round * N);
		EQ(load(&c.events), round * N);
	}
	crew_stop(&c);
	free(ch);
}

/* --- level events -------------------------------------------------------- */

struct scan { int kq, missed, times; };

static void *scan_main(void *arg)
{
	struct scan *s = arg;
	struct kevent ev;
	int i;
	for (i = 0; i < s->times; i++)
		if (collect(s->kq, &ev, 1, 0) != 1)
			add(&s->missed, 1);
	return NULL;
}

static void every_scan_sees_it(int kq)
{
	struct scan s = { kq, 0, 3000 };
	pthread_t thread[CREW];
	int i;
	for (i = 0; i < CREW; i++)
		OK(pthread_create(&thread[i], NULL, scan_main, &s) == 0);
	for (i = 0; i < CREW; i++)
		OK(pthread_join(thread[i], NULL) == 0);
	EQ(s.missed, 0);
}

OVER_FDS(every_zero_timeout_scan_of_four_threads_sees_a_level_event_on_a)
{
	struct source s = source_open(k);
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	put(s.peer);
	every_scan_sees_it(kq);
	OK(close(kq) == 0);
	source_close(&s);
}

CHECK(every_zero_timeout_scan_of_four_threads_sees_a_level_user_event)
{
	int kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	OK(trigger(kq, 1) == 0);
	every_scan_sees_it(kq);
	OK(close(kq) == 0);
}

OVER_FDS(every_sleeper_gets_a_level_event_on_a)
{
	struct source s = source_open(k);
	struct sleeper sl[CREW];
	int i, kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	for (i = 0; i < CREW; i++)
		sleeper_start(&sl[i], kq, -1);
	put(s.peer);
	for (i = 0; i < CREW; i++) {
		sleeper_join(&sl[i]);
		EQ(sl[i].n, 1);
	}
	OK(close(kq) == 0);
	source_close(&s);
}

/* --- waking -------------------------------------------------------------- */

static void wakes_with(struct sleeper *s, uintptr_t ident, int filter)
{
	sleeper_join(s);
	EQ(s->n, 1);
	EQ(s->ev.ident, ident);
	EQ(s->ev.filter, filter);
	OK(close(s->kq) == 0);
}

OVER_FDS(a_sleeper_wakes_when_a_ready_knote_is_added_on_a)
{
	struct source s = source_open(k);
	struct sleeper sl;
	int kq = new_kqueue();
	put(s.peer);
	sleeper_start(&sl, kq, -1);
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	wakes_with(&sl, s.ident, EVFILT_READ);
	source_close(&s);
}

CHECK(a_sleeper_wakes_when_a_file_is_added)
{
	struct sleeper sl;
	int kq = new_kqueue(), fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	OK(fd >= 0);
	sleeper_start(&sl, kq, -1);
	OK(change(kq, (uintptr_t)fd, EVFILT_READ, EV_ADD, 0, 0, NULL) == 0);
	wakes_with(&sl, (uintptr_t)fd, EVFILT_READ);
	OK(close(fd) == 0);
}

CHECK(a_sleeper_wakes_when_a_timer_is_added)
{
	struct sleeper sl;
	int kq = new_kqueue();
	sleeper_start(&sl, kq, -1);
	OK(change(kq, 4, EVFILT_TIMER, EV_ADD, 0, 1, NULL) == 0);
	wakes_with(&sl, 4, EVFILT_TIMER);
}

CHECK(a_sleeper_wakes_when_an_earlier_timer_is_added)
{
	struct sleeper sl;
	int kq = new_kqueue();
	OK(change(kq, 3, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL) == 0);
	sleeper_start(&sl, kq, -1);
	OK(change(kq, 4, EVFILT_TIMER, EV_ADD, 0, 1, NULL) == 0);
	wakes_with(&sl, 4, EVFILT_TIMER);
}

OVER_ALL(a_sleeper_wakes_when_a_ready_knote_is_enabled_on_a)
{
	struct source s = source_open(k);
	struct sleeper sl;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD | EV_DISABLE, NULL) == 0);
	source_fire(kq, &s);
	sleeper_start(&sl, kq, -1);
	OK(!is_done(&sl));
	OK(apply(kq, &s, EV_ENABLE, NULL) == 0);
	wakes_with(&sl, s.ident, s.filter);
	source_close(&s);
}

OVER_FDS(a_sleeper_wakes_when_data_arrives_on_a)
{
	struct source s = source_open(k);
	struct sleeper sl;
	int kq = new_kqueue();
	OK(apply(kq, &s, EV_ADD, NULL) == 0);
	sleeper_start(&sl, kq, -1);
	put(s.peer);
	wakes_with(&sl, s.ident, EVFILT_READ);
	source_close(&s);
}

CHECK(a_sleeper_wakes_when_a_user_event_is_triggered)
{
	struct sleeper sl;
	int i;
	for (i = 0; i < 50; i++) {
		int kq = new_kqueue();
		OK(add_user(kq, 1, 0) == 0);
		sleeper_start(&sl, kq, -1);
		OK(trigger(kq, 1) == 0);
		wakes_with(&sl, 1, EVFILT_USER);
	}
}

CHECK(a_sleeper_wakes_when_a_new_user_event_is_forced)
{
	struct sleeper sl;
	int kq = new_kqueue();
	OK(add_user(kq, 1, 0) == 0);
	sleeper_start(&sl, kq, -1);
	OK(change(kq, 1, EVFILT_USER, EV_FORCEONESHOT, 0, 0, NULL) == 0);
	wakes_with(&sl, 1, EVFILT_USER);
}

/* Trigger and sleep as close together as can be: no trigger may be lost between. */
struct ping { int kq, got; };

static void *ping_main(void *arg)
{
	struct ping *p = arg;
	struct kevent ev;
	int i;
	for (i = 0; i < 5000; i++) {
		if (collect(p->kq, &ev, 1, -1) != 1)
			FAIL("errno %d", errno);
		store(&p->got, i + 1);
	}
	return NULL;
}

CHECK(no_trigger_is_lost_between_the_look_and_the_sleep)
{
	struct ping p = { new_kqueue(), 0 };
	pthread_t thread;
	int i;
	OK(add_user(p.kq, 1, EV_CLEAR) == 0);
	OK(pthread_create(&thread, NULL, ping_main, &p) == 0);
	for (i = 0; i < 5000; i++) {
		OK(trigger(p.kq, 1) == 0);
		while (load(&p.got) <= i)
			sched_yield();
	}
	OK(pthread_join(thread, NULL) == 0);
	OK(close(p.kq) == 0);
}

/* --- as many wake as there are events ------------------------------------ */

static void each_sleeper_gets_one(int kq, struct kevent *ch, int n)
{
	struct sleeper sl[CREW];
	int i, seen = 0;
	for (i = 0; i < CREW; i++)
		sleeper_start(&sl[i], kq, -1);
	EQ(kevent(kq, ch, n, NULL, 0, NULL), 0);
	for (i = 0; i < CREW; i++) {
		sleeper_join(&sl[i]);
		EQ(sl[i].n, 1);
		seen |= 1 << (uintptr_t)sl[i].ev.udata;
	}
	EQ(seen, (1 << CREW) - 1);
	NONE(kq);
}

CHECK(four_triggers_in_one_call_wake_four_sleepers)
{
	struct kevent ch[CREW];
	int i, round, kq = new_kqueue();
	for (i = 0; i < CREW; i++) {
		OK(add_user(kq, (uintptr_t)i, EV_CLEAR) == 0);
		EV_SET(&ch[i], i, EVFILT_USER, 0, NOTE_TRIGGER, 0, UD(i));
	}
	for (round = 0; round < 20; round++)
		each_sleeper_gets_one(kq, ch, CREW);
	OK(close(kq) == 0);
}

CHECK(four_ready_pipes_added_in_one_call_wake_four_sleepers)
{
	struct kevent ch[CREW];
	int i, p[CREW][2], round, kq = new_kqueue();
	for (i = 0; i < CREW; i++) {
		pipe_open(p[i]);
		put(p[i][1]);
		EV_SET(&ch[i], p[i][0], EVFILT_READ, EV_ADD | EV_ONESHOT, 0, 0, UD(i));
	}
	for (round = 0; round < 20; round++)
		each_sleeper_gets_one(kq, ch, CREW);
	OK(close(kq) == 0);
	for (i = 0; i < CREW; i++)
		pipe_close(p[i]);
}

CHECK(four_timers_due_together_wake_four_sleepers)
{
	struct kevent ch[CREW];
	int i, round, kq = new_kqueue();
	for (i = 0; i < CREW; i++)
		EV_SET(&ch[i], i, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1, UD(i));
	for (round = 0; round < 20; round++)
		each_sleeper_gets_one(kq, ch, CREW);
	OK(close(kq) == 0);
}

CHECK(both_knotes_of_a_socket_and_two_user_events_wake_four_sleepers)
{
	struct source s = source_open(SOCKET);
	struct kevent ch[6];
	int kq = new_kqueue();
	put(s.peer);
	EV_SET(&ch[0], s.ident, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, UD(0));
	EV_SET(&ch[1], s.ident, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, UD(1));
	EV_SET(&ch[2], 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
	EV_SET(&ch[3], 2, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
	EV_SET(&ch[4], 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, UD(2));
	EV_SET(&ch[5], 2, EVFILT_USER, 0, NOTE_TRIGGER, 0, UD(3));
	each_sleeper_gets_one(kq, ch, 6);
	OK(close(kq) == 0);
	source_close(&s);
}

/* --- taking turns -------------------------------------------------------- */

enum { CALLS = 2000 };

struct hog { int kq, over, calls; };

static void *changes_without_a_pause(void *arg)
{
	struct hog *h = arg;
	while (!__atomic_load_n(&h->over, __ATOMIC_RELAXED)) {
		OK(disable_user_many_times(h->kq, 1) == 0);
		__atomic_add_fetch(&h->calls, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

CHECK(a_thread_that_makes_changes_without_a_pause_keeps_nobody_out)
{
	struct hog h = { new_kqueue(), 0, 0 };
	pthread_t hog;
	int i;
	OK(pthread_create(&hog, NULL, changes_without_a_pause, &h) == 0);
	UNTIL(__atomic_load_n(&h.calls, __ATOMIC_RELAXED) > 0);
	for (i = 0; i < CALLS; i++)
		OK(disable_user_many_times(h.kq, 2) == 0);
	__atomic_store_n(&h.over, 1, __ATOMIC_RELAXED);
	OK(pthread_join(hog, NULL) == 0);
	OK(close(h.kq) == 0);
}

CHECKS(C(a_clear_event_goes_to_one_of_four_threads_pipe)
	C(a_clear_event_goes_to_one_of_four_threads_socket)
	C(a_clear_event_goes_to_one_of_four_threads_user)
	C(a_oneshot_event_goes_to_one_of_four_threads_pipe)
	C(a_oneshot_event_goes_to_one_of_four_threads_user)
	C(a_oneshot_event_goes_to_one_of_four_threads_timer)
	C(a_dispatch_event_goes_to_one_of_four_threads_pipe)
	C(a_dispatch_event_goes_to_one_of_four_threads_socket)
	C(a_dispatch_event_goes_to_one_of_four_threads_user)
	C(a_thousand_oneshot_events_are_shared_out_exactly_once)
	FDS(every_zero_timeout_scan_of_four_threads_sees_a_level_event_on_a)
	C(every_zero_timeout_scan_of_four_threads_sees_a_level_user_event)
	FDS(every_sleeper_gets_a_level_event_on_a)
	FDS(a_sleeper_wakes_when_a_ready_knote_is_added_on_a)
	C(a_sleeper_wakes_when_a_file_is_added)
	C(a_sleeper_wakes_when_a_timer_is_added)
	C(a_sleeper_wakes_when_an_earlier_timer_is_added)
	ALL(a_sleeper_wakes_when_a_ready_knote_is_enabled_on_a)
	FDS(a_sleeper_wakes_when_data_arrives_on_a)
	C(a_sleeper_wakes_when_a_user_event_is_triggered)
	C(a_sleeper_wakes_when_a_new_user_event_is_forced)
	C(no_trigger_is_lost_between_the_look_and_the_sleep)
	C(four_triggers_in_one_call_wake_four_sleepers)
	C(four_ready_pipes_added_in_one_call_wake_four_sleepers)
	C(four_timers_due_together_wake_four_sleepers)
	C(both_knotes_of_a_socket_and_two_user_events_wake_four_sleepers)
	C(a_thread_that_makes_changes_without_a_pause_keeps_nobody_out));
