/* For the checks of a kqueue's life: user events, and threads that sleep in kevent(). */
#include "harness.h"
#include <sys/syscall.h>

#define USER_ADD(kq, id) EQ(change(kq, id, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL), 0)
#define TRIGGER(kq, id) change(kq, id, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL)

/* A thread that sleeps in kevent(), and how its call ended. */
struct sleeper { int kq, n, err, tid; long ms; pthread_t thread; };

static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	struct kevent ev[1];
	__atomic_store_n(&s->tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	s->n = collect(s->kq, ev, 1, s->ms);
	s->err = errno;
	return NULL;
}

static void put_to_sleep(struct sleeper *s, int kq, long ms)
{
	*s = (struct sleeper){ .kq = kq, .ms = ms };
	OK(pthread_create(&s->thread, NULL, sleeper_main, s) == 0);
	UNTIL(state_of(__atomic_load_n(&s->tid, __ATOMIC_SEQ_CST)) == 'S');
}

static void ended_with_EBADF(struct sleeper *s)
{
	pthread_join(s->thread, NULL);
	EQ(s->n, -1);
	EQ(s->err, EBADF);
}
