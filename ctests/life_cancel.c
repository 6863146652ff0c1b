/*
 * pthread_cancel(3) and kevent(): a cancellation point if there is room for events, before
 * any change is made or asleep without changes; never with room for none. Whatever
 * the cancelled thread held goes back.
 */
#include "life.h"

/* A thread that calls kevent() as told and can be cancelled in it. */
struct victim {
	pthread_t thread;
	int kq, nchanges, nevents;
	long ms; /* negative: for ever */
	struct kevent change;
	int tid, cleaned, calls, events;
	int disabled, pending, asynchronous, endless;
};

static int load(int *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void clean(void *arg)
{
	struct victim *v = arg;
	__atomic_add_fetch(&v->cleaned, 1, __ATOMIC_SEQ_CST);
}

static void victim_call(struct victim *v)
{
	struct timespec ts = { v->ms / 1000, v->ms % 1000 * 1000000 };
	struct kevent ev[8];
	int n = kevent(v->kq, &v->change, v->nchanges, ev, v->nevents, v->ms < 0 ? NULL : &ts);
	if (n > 0)
		__atomic_add_fetch(&v->events, n, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&v->calls, 1, __ATOMIC_SEQ_CST);
}

static void *victim_main(void *arg)
{
	struct victim *v = arg;
	int old;
	pthread_cleanup_push(clean, v);
	if (v->disabled || v->pending)
		OK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old) == 0);
	if (v->asynchronous)
		OK(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old) == 0);
	if (v->pending) {
		OK(pthread_cancel(pthread_self()) == 0);
		OK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old) == 0);
	}
	__atomic_store_n(&v->tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	do
		victim_call(v);
	while (v->endless);
	pthread_cleanup_pop(0);
	return NULL;
}

static void victim_start(struct victim *v)
{
	OK(pthread_create(&v->thread, NULL, victim_main, v) == 0);
	/* Cancelled before its handler stands it would not run it. */
	while (load(&v->tid) == 0)
		sched_yield();
}

static void victim_sleeps(struct victim *v)
{
	UNTIL(state_of(load(&v->tid)) == 'S');
}

/* Joins it: whether it ended by cancellation. glibc gives that as its result, too, if the signal
 * sent for it in its sleep comes when it has ended by itself. */
static int was_cancelled(struct victim *v)
{
	void *result;
	OK(pthread_join(v->thread, &result) == 0);
	OK(v->cleaned == 0 || (v->cleaned == 1 && result == PTHREAD_CANCELED));
	return v->cleaned;
}

static struct victim sleeping_victim(int kq, long ms)
{
	struct victim v;
	memset(&v, 0, sizeof v);
	v.kq = kq;
	v.nevents = 1;
	v.ms = ms;
	return v;
}

static void cancel_one_asleep(int kq, long ms, int asynchronous)
{
	struct victim v = sleeping_victim(kq, ms);
	v.asynchronous = asynchronous;
	victim_start(&v);
	victim_sleeps(&v);
	OK(pthread_cancel(v.thread) == 0);
	OK(was_cancelled(&v));
	EQ(v.calls, 0);
}

CHECK(a_cancelled_sleeper_ends_and_its_cleanup_handlers_run)
{
	int i, kq = new_kqueue();
	for (i = 0; i < 50; i++)
		cancel_one_asleep(kq, -1, 0);
	is_whole(kq);
	OK(close(kq) == 0);
}

CHECK(a_cancelled_sleeper_with_a_timeout_ends)
{
	int i, kq = new_kqueue();
	OK(change(kq, 1, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000, NULL) == 0);
	for (i = 0; i < 50; i++)
		cancel_one_asleep(kq, 1000000, 0);
	OK(change(kq, 1, EVFILT_TIMER, EV_DELETE, 0, 0, NULL) == 0);
	is_whole(kq);
	OK(close(kq) == 0);
}

CHECK(a_sleeper_with_asynchronous_cancellation_ends)
{
	int i, kq = new_kqueue();
	for (i = 0; i < 50; i++)
		cancel_one_asleep(kq, -1, 1);
	is_whole(kq);
	OK(close(kq) == 0);
}

/* It returns when user event 1 is triggered, and not before. */
static void sleeps_through_its_cancellation(struct victim *v)
{
	victim_start(v);
	victim_sleeps(v);
	OK(pthread_cancel(v->thread) == 0);
	pause_ms(10);
	EQ(load(&v->calls), 0);
	OK(trigger(v->kq, 1) == 0);
	OK(!was_cancelled(v));
	EQ(v->events, 1);
}

CHECK(a_sleeper_that_disabled_cancellation_sleeps_on)
{
	int kq = new_kqueue();
	struct victim v = sleeping_victim(kq, -1);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	v.disabled = 1;
	sleeps_through_its_cancellation(&v);
	OK(close(kq) == 0);
}

/* Blocked with changes made the call must tell of them: it is no cancellation point. */
CHECK(a_sleeper_that_has_made_changes_returns_its_event)
{
	int kq = new_kqueue();
	struct victim v = sleeping_victim(kq, -1);
	v.nchanges = 1;
	EV_SET(&v.change, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
	sleeps_through_its_cancellation(&v);
	OK(close(kq) == 0);
}

CHECK(cancelling_two_of_four_sleepers_leaves_the_others_to_be_served)
{
	struct victim v[4];
	int i, round, kq = new_kqueue();
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	for (round = 0; round < 20; round++) {
		for (i = 0; i < 4; i++) {
			v[i] = sleeping_victim(kq, -1);
			victim_start(&v[i]);
			victim_sleeps(&v[i]);
		}
		for (i = 0; i < 2; i++)
			OK(pthread_cancel(v[i * 2].thread) == 0);
		for (i = 0; i < 2; i++)
			OK(was_cancelled(&v[i * 2]));
		for (i = 0; i < 2; i++) {
			OK(trigger(kq, 1) == 0);
			UNTIL(load(&v[1].events) + load(&v[3].events) == i + 1);
		}
		OK(!was_cancelled(&v[1]) && !was_cancelled(&v[3]));
	}
	is_whole(kq);
	OK(close(kq) == 0);
}

CHECK(a_pending_cancellation_acts_before_any_change)
{
	int kq = new_kqueue();
	struct victim v = sleeping_victim(kq, 0);
	v.pending = 1;
	v.nchanges = 1;
	EV_SET(&v.change, 1, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0, NULL);
	victim_start(&v);
	OK(was_cancelled(&v));
	EQ(v.calls, 0);
	FAILS(trigger(kq, 1), ENOENT);
	is_whole(kq);
	OK(close(kq) == 0);
}

CHECK(a_pending_cancellation_acts_before_an_event_is_taken)
{
	int kq = new_kqueue();
	struct victim v = sleeping_victim(kq, -1);
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	OK(trigger(kq, 1) == 0);
	v.pending = 1;
	victim_start(&v);
	OK(was_cancelled(&v));
	EQ(v.calls, 0);
	EQ(ONE(kq).ident, 1);
	OK(close(kq) == 0);
}

/* One change with a cancellation pending and room for no events: it is made. */
static void change_is_made(int kq, struct kevent kev)
{
	struct victim v = sleeping_victim(kq, 0);
	v.pending = 1;
	v.nevents = 0;
	v.nchanges = 1;
	v.change = kev;
	victim_start(&v);
	OK(!was_cancelled(&v));
	EQ(v.calls, 1);
}

CHECK(without_room_for_events_it_never_acts)
{
	int kq = new_kqueue(), inner = new_kqueue(), ends[2], file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct sleeper s;
	struct kevent kev;
	pipe_open(ends);
	OK(file >= 0);
	put(ends[1]);
	/* Polled, so that changes write and take back the mark. */
	NONE(kq);
	EV_SET(&kev, 1, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
	change_is_made(kq, kev);
	EV_SET(&kev, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
	change_is_made(kq, kev);
	EV_SET(&kev, 1, EVFILT_USER, EV_DISABLE, 0, 0, NULL);
	change_is_made(kq, kev);
	EV_SET(&kev, 1, EVFILT_USER, EV_ENABLE, 0, 0, NULL);
	change_is_made(kq, kev);
	EQ(ONE(kq).ident, 1);
	sleeper_start(&s, kq, -1);
	EV_SET(&kev, 1, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
	change_is_made(kq, kev);
	sleeper_join(&s);
	EQ(s.n, 1);
	EV_SET(&kev, ends[0], EVFILT_READ, EV_ADD, 0, 0, NULL);
	change_is_made(kq, kev);
	EQ(ONE(kq).ident, ends[0]);
	EV_SET(&kev, ends[0], EVFILT_READ, EV_DELETE, 0, 0, NULL);
	change_is_made(kq, kev);
	EV_SET(&kev, file, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, 0, NULL);
	change_is_made(kq, kev);
	EQ(ONE(kq).ident, file);
	EV_SET(&kev, 2, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1, NULL);
	change_is_made(kq, kev);
	EQ(ONE(kq).filter, EVFILT_TIMER);
	EV_SET(&kev, inner, EVFILT_READ, EV_ADD, 0, 0, NULL);
	change_is_made(kq, kev);
	EV_SET(&kev, inner, EVFILT_READ, EV_DELETE, 0, 0, NULL);
	change_is_made(kq, kev);
	OK(close(kq) == 0 && close(inner) == 0 && close(file) == 0);
	pipe_close(ends);
}

static void *makes_a_queue(void *arg)
{
	int old, kq;
	OK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old) == 0);
	OK(pthread_cancel(pthread_self()) == 0);
	OK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old) == 0);
	kq = kqueue();
	libkqueue_drain_pending_close();
	OK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old) == 0);
	EQ(old, PTHREAD_CANCEL_ENABLE);
	*(int *)arg = kq;
	return NULL;
}

CHECK(kqueue_itself_never_acts)
{
	pthread_t thread;
	int kq = -1;
	void *result;
	OK(pthread_create(&thread, NULL, makes_a_queue, &kq) == 0);
	OK(pthread_join(thread, &result) == 0);
	OK(result == NULL && kq >= 0);
	is_whole(kq);
	OK(close(kq) == 0);
}

CHECK(state_and_type_stay_as_the_program_set_them)
{
	int kq = new_kqueue(), i, was;
	struct kevent ev;
	OK(add_user(kq, 1, EV_CLEAR) == 0);
	for (i = 0; i < 4; i++) {
		int state = i & 1 ? PTHREAD_CANCEL_DISABLE : PTHREAD_CANCEL_ENABLE;
		int type = i & 2 ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED;
		OK(pthread_setcancelstate(state, &was) == 0 && pthread_setcanceltype(type, &was) == 0);
		OK(trigger(kq, 1) == 0);
		EQ(collect(kq, &ev, 1, -1), 1);
		EQ(collect(kq, &ev, 1, 2), 0);
		OK(pthread_setcancelstate(state, &was) == 0);
		EQ(was, state);
		OK(pthread_setcanceltype(type, &was) == 0);
		EQ(was, type);
	}
	OK(close(kq) == 0);
}

/* Of n knotes one event each: the victim counts it or it comes afterwards. Returns how many came. */
static int no_event_is_lost(int kq, int n, void (*fire)(int kq, int i, void *arg), void *arg, int round)
{
	struct victim v = sleeping_victim(kq, -1);
	struct kevent ev[8];
	int i, left = 0, got;
	v.nevents = 1 + round % 8;
	v.endless = 1;
	victim_start(&v);
	if (round % 2)
		victim_sleeps(&v);
	for (i = 0; i < n; i++) {
		if (i == round % n)
			OK(pthread_cancel(v.thread) == 0);
		fire(kq, i, arg);
	}
	OK(was_cancelled(&v));
	while ((got = collect(kq, ev, 8, 0)) > 0)
		left += got;
	EQ(got, 0);
	return v.events + left;
}

static void fire_user(int kq, int i, void *arg)
{
	(void)arg;
	OK(change(kq, (uintptr_t)i, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER, 0, NULL) == 0);
}

CHECK(no_user_event_is_lost_to_a_cancelled_thread)
{
	int round, kq = new_kqueue();
	for (round = 0; round < 300; round++)
		EQ(no_event_is_lost(kq, 40, fire_user, NULL, round), 40);
	is_whole(kq);
	OK(close(kq) == 0);
}

static void fire_pipe(int kq, int i, void *arg)
{
	int (*ends)[2] = arg;
	(void)kq;
	put(ends[i][1]);
}

/* Each pipe has its knote before; its one byte is one event, with EV_CLEAR or EV_ONESHOT. */
static void no_pipe_event_is_lost(int flag)
{
	enum { N = 20 };
	int ends[N][2], round, i, came, kq = new_kqueue();
	for (i = 0; i < N; i++)
		pipe_open(ends[i]);
	for (round = 0; round < 200; round++) {
		for (i = 0; i < N; i++)
			OK(change(kq, (uintptr_t)ends[i][0], EVFILT_READ, EV_ADD | flag, 0, 0, NULL) == 0);
		came = no_event_is_lost(kq, N, fire_pipe, ends, round);
		/* What was in the cancelled thread's hands is asked anew, and an edge may come twice. */
		OK(flag == EV_CLEAR ? came >= N : came == N);
		for (i = 0; i < N; i++)
			drain(ends[i][0]);
	}
	OK(close(kq) == 0);
	for (i = 0; i < N; i++)
		pipe_close(ends[i]);
}

CHECK(no_oneshot_event_of_a_pipe_is_lost_to_a_cancelled_thread)
{
	no_pipe_event_is_lost(EV_ONESHOT);
}

CHECK(no_cleared_event_of_a_pipe_is_lost_to_a_cancelled_thread)
{
	no_pipe_event_is_lost(EV_CLEAR);
}

/* All block the signal; whichever of two sleepers is told of it may be cancelled on the way. */
static void no_blocked_signal_is_lost(int kq, int round, const sigset_t *blocked)
{
	struct timespec patience = { 10, 0 };
	struct victim v[2];
	int i;
	for (i = 0; i < 2; i++) {
		v[i] = sleeping_victim(kq, -1);
		victim_start(&v[i]);
		victim_sleeps(&v[i]);
	}
	OK(kill(getpid(), SIGUSR1) == 0);
	OK(pthread_cancel(v[round % 2].thread) == 0);
	was_cancelled(&v[round % 2]);
	UNTIL(load(&v[0].events) + load(&v[1].events) > 0);
	OK(pthread_cancel(v[!(round % 2)].thread) == 0);
	was_cancelled(&v[!(round % 2)]);
	EQ(v[0].events + v[1].events, 1);
	EQ(sigtimedwait(blocked, NULL, &patience), SIGUSR1);
}

CHECK(no_blocked_signal_is_lost_to_a_cancelled_thread)
{
	int round, kq = new_kqueue();
	sigset_t blocked;
	OK(sigemptyset(&blocked) == 0 && sigaddset(&blocked, SIGUSR1) == 0);
	OK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
	OK(change(kq, SIGUSR1, EVFILT_SIGNAL, EV_ADD, 0, 0, NULL) == 0);
	for (round = 0; round < 200; round++)
		no_blocked_signal_is_lost(kq, round, &blocked);
	is_whole(kq);
	OK(close(kq) == 0);
}

CHECK(a_sleeper_cancelled_as_its_kqueue_closes_leaves_nothing_behind)
{
	int i;
	for (i = 0; i < 200; i++) {
		int kq = new_kqueue();
		struct victim v = sleeping_victim(kq, -1);
		victim_start(&v);
		if (i % 2)
			victim_sleeps(&v);
		if (i % 4 < 2)
			OK(pthread_cancel(v.thread) == 0);
		OK(close(kq) == 0);
		if (i % 4 >= 2)
			OK(pthread_cancel(v.thread) == 0);
		/* Either was quicker. */
		was_cancelled(&v);
	}
}

CHECK(a_sleeper_of_the_outer_that_is_cancelled_leaves_both_whole)
{
	int i, outer = new_kqueue(), inner = new_kqueue();
	OK(change(outer, (uintptr_t)inner, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, NULL) == 0);
	OK(add_user(inner, 1, EV_CLEAR) == 0);
	for (i = 0; i < 20; i++) {
		cancel_one_asleep(outer, -1, 0);
		OK(trigger(inner, 1) == 0);
		EQ(ONE(outer).ident, inner);
		EQ(ONE(inner).ident, 1);
	}
	OK(change(outer, (uintptr_t)inner, EVFILT_READ, EV_DELETE, 0, 0, NULL) == 0);
	OK(change(inner, 1, EVFILT_USER, EV_DELETE, 0, 0, NULL) == 0);
	is_whole(outer);
	is_whole(inner);
	OK(close(outer) == 0 && close(inner) == 0);
}

CHECKS(
	C(a_cancelled_sleeper_ends_and_its_cleanup_handlers_run)
	C(a_cancelled_sleeper_with_a_timeout_ends)
	C(a_sleeper_with_asynchronous_cancellation_ends)
	C(a_sleeper_that_disabled_cancellation_sleeps_on)
	C(a_sleeper_that_has_made_changes_returns_its_event)
	C(cancelling_two_of_four_sleepers_leaves_the_others_to_be_served)
	C(a_pending_cancellation_acts_before_any_change)
	C(a_pending_cancellation_acts_before_an_event_is_taken)
	C(without_room_for_events_it_never_acts)
	C(kqueue_itself_never_acts)
	C(state_and_type_stay_as_the_program_set_them)
	C(no_user_event_is_lost_to_a_cancelled_thread)
	C(no_oneshot_event_of_a_pipe_is_lost_to_a_cancelled_thread)
	C(no_cleared_event_of_a_pipe_is_lost_to_a_cancelled_thread)
	C(no_blocked_signal_is_lost_to_a_cancelled_thread)
	C(a_sleeper_cancelled_as_its_kqueue_closes_leaves_nothing_behind)
	C(a_sleeper_of_the_outer_that_is_cancelled_leaves_both_whole)
);
