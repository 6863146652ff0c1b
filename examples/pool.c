/*
 * A thread pool woken by EVFILT_USER.
 *
 *	cc -pthread -o pool pool.c $(pkg-config --cflags --libs libkqueue)
 *	./pool
 *
 * Jobs belong to strands. The jobs of one strand run one after another, in order, on
 * whichever thread is free; different strands run at the same time. Each strand is one
 * user event with EV_CLEAR and EV_DISPATCH:
 *
 *   EV_DISPATCH  hands the event to one thread and disables it, so no second thread
 *                gets the strand until the first gives it back with EV_ENABLE;
 *   EV_CLEAR     forgets the trigger once it is handed out, so EV_ENABLE reports the
 *                strand again only if it was triggered in the meantime. Triggers of a
 *                disabled event are kept, so none is lost.
 *
 * A user event costs no descriptor: have as many strands as you like.
 */
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/event.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 4, STRANDS = 16, JOBS = 100000 };
/* Idents on the pool's kqueue: the strands from 0, and the word to stop after them. */
enum { STOP = STRANDS };
/* The ident on main's own kqueue. */
enum { FINISHED = 0 };

struct job {
	void (*run)(void *arg, long value);
	void *arg;
	long value;
	struct job *next;
};

struct strand {
	uintptr_t ident;
	pthread_mutex_t lock;	/* the queue only; never held while a job runs */
	struct job *first, **last;
};

/* What the jobs work on. No lock: the strand keeps them apart. */
struct account {
	long balance, deposits;
};

static int pool, done;		/* kqueues: the threads', and main's */
static struct strand strands[STRANDS];
static struct account accounts[STRANDS];
static pthread_mutex_t count_lock = PTHREAD_MUTEX_INITIALIZER;
static long finished;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void change(int kq, uintptr_t ident, unsigned short flags, unsigned fflags, void *udata)
{
	struct kevent ch;

	EV_SET(&ch, ident, EVFILT_USER, flags, fflags, 0, udata);
	if (kevent(kq, &ch, 1, NULL, 0, NULL) < 0)
		die("kevent");
}

/*
 * Only the first job of an empty queue has to ring: while there is a job, a thread is
 * on its way to it or has yet to look again. The flags are 0: EV_CLEAR in a change to
 * an existing event would take the trigger back.
 */
static void post(struct strand *s, void (*run)(void *, long), void *arg, long value)
{
	struct job *j = malloc(sizeof *j);
	int was_empty;

	if (j == NULL)
		die("malloc");
	j->run = run;
	j->arg = arg;
	j->value = value;
	j->next = NULL;
	pthread_mutex_lock(&s->lock);
	was_empty = s->first == NULL;
	*s->last = j;
	s->last = &j->next;
	pthread_mutex_unlock(&s->lock);
	if (was_empty)
		change(pool, s->ident, 0, NOTE_TRIGGER, s);
}

static struct job *take_all(struct strand *s)
{
	struct job *j;

	pthread_mutex_lock(&s->lock);
	j = s->first;
	s->first = NULL;
	s->last = &s->first;
	pthread_mutex_unlock(&s->lock);
	return j;
}

/* Runs the strand until its queue is empty. Returns how many jobs that were. */
static long run(struct strand *s)
{
	struct job *j, *next;
	long n = 0;

	while ((j = take_all(s)) != NULL) {
		for (; j != NULL; j = next) {
			next = j->next;
			j->run(j->arg, j->value);
			free(j);
			n++;
		}
	}
	return n;
}

static void report(long n)
{
	int all;

	pthread_mutex_lock(&count_lock);
	finished += n;
	all = n > 0 && finished == JOBS;
	pthread_mutex_unlock(&count_lock);
	if (all)
		change(done, FINISHED, 0, NOTE_TRIGGER, NULL);
}

static void *worker(void *arg)
{
	struct kevent ev, give_back;
	int n, changes = 0;

	(void)arg;
	for (;;) {
		/* Gives the last strand back and waits for the next in one call. */
		n = kevent(pool, &give_back, changes, &ev, 1, NULL);
		changes = 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n != 1 || ev.flags & EV_ERROR)
			die("worker");
		if (ev.ident == STOP)
			return NULL;
		report(run(ev.udata));
		EV_SET(&give_back, ev.ident, EVFILT_USER, EV_ENABLE, 0, 0, ev.udata);
		changes = 1;
	}
}

static void deposit(void *arg, long value)
{
	struct account *a = arg;

	a->balance += value;
	a->deposits++;
}

static void make_events(void)
{
	uintptr_t i;

	pool = kqueue();
	done = kqueue();
	if (pool < 0 || done < 0)
		die("kqueue");
	for (i = 0; i < STRANDS; i++) {
		strands[i].ident = i;
		strands[i].last = &strands[i].first;
		pthread_mutex_init(&strands[i].lock, NULL);
		change(pool, i, EV_ADD | EV_CLEAR | EV_DISPATCH, 0, &strands[i]);
	}
	/* Level-triggered: once triggered, every thread sees it. */
	change(pool, STOP, EV_ADD, 0, NULL);
	change(done, FINISHED, EV_ADD | EV_ONESHOT, 0, NULL);
}

static int check(void)
{
	long balance = 0, deposits = 0;
	int i;

	for (i = 0; i < STRANDS; i++) {
		balance += accounts[i].balance;
		deposits += accounts[i].deposits;
	}
	printf("%ld jobs on %d threads, sum %ld\n", deposits, THREADS, balance);
	return deposits == JOBS && balance == (long)JOBS * (JOBS - 1) / 2 ? 0 : 1;
}

int main(void)
{
	pthread_t threads[THREADS];
	struct kevent ev;
	long i;

	make_events();
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, worker, NULL) != 0)
			die("pthread_create");
	for (i = 0; i < JOBS; i++)
		post(&strands[i % STRANDS], deposit, &accounts[i % STRANDS], i);
	while (kevent(done, NULL, 0, &ev, 1, NULL) < 0)
		if (errno != EINTR)
			die("kevent");
	change(pool, STOP, 0, NOTE_TRIGGER, NULL);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	close(pool);
	close(done);
	return check();
}
