/*
 * The job of a timer wheel, done by one kqueue: 100,000 clients, each with a timer of
 * its own that ends it after a while without activity. As in a server, most timers are
 * restarted or cancelled before they fire; all of that is EV_ADD and EV_DELETE.
 *
 *	cc -o timers timers.c $(pkg-config --cflags --libs libkqueue)
 *	./timers [clients]
 *
 * Ends by itself when the last client has gone, in about four seconds. Here timers
 * cost no descriptor and there is no limit to their number; FreeBSD stops at
 * kern.kq_calloutmax (4096).
 */
#define _GNU_SOURCE 1
#include <sys/types.h>
#include <sys/event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
	BATCH = 1024,		/* changes and events in one call */
	TICK_MS = 100,		/* the clock that plays the clients' part */
	TICKS = 20,		/* after so many of them all fall silent */
	ACTIVE = 500,		/* clients that stir at each tick */
	LEAVING = 400		/* clients that log out at each tick */
};

struct client {
	int alive;
	long long deadline;	/* monotonic, ns */
};

static struct client *clients;
static long count, alive, expired, restarted, cancelled;
static long long latest;	/* the worst lateness, ns */

static struct kevent changes[BATCH];
static int nchanges;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* Idle time allowed: between half a second and one and a half. */
static long idle_ms(void)
{
	return 500 + rand() % 1000;
}

/*
 * Starts the client's timer, or starts it again: EV_ADD on a timer that runs forgets
 * the old deadline. The ident is the client's number; no descriptor is involved.
 */
static void start(struct client *c)
{
	long ms = idle_ms();

	c->deadline = now_ns() + ms * 1000000LL;
	EV_SET(&changes[nchanges], (uintptr_t)(c - clients), EVFILT_TIMER,
	    EV_ADD | EV_ONESHOT, NOTE_MSECONDS, ms, c);
	nchanges++;
}

static void cancel(struct client *c)
{
	EV_SET(&changes[nchanges], (uintptr_t)(c - clients), EVFILT_TIMER,
	    EV_DELETE, 0, 0, c);
	nchanges++;
	c->alive = 0;
	alive--;
}

/* EV_ONESHOT: the timer is gone by the time its event is here. */
static void expire(struct client *c)
{
	long long late = now_ns() - c->deadline;

	if (late < 0) {
		printf("a timer fired %lld ns early\n", -late);
		exit(1);
	}
	if (late > latest)
		latest = late;
	c->alive = 0;
	alive--;
	expired++;
}

static struct client *pick(void)
{
	return &clients[rand() % count];
}

static void on_tick(intptr_t times)
{
	static int ticks;
	int i;

	printf("alive %6ld  expired %6ld  restarted %6ld  cancelled %6ld%s\n", alive,
	    expired, restarted, cancelled, times > 1 ? "  (ticks were missed)" : "");
	if (++ticks > TICKS)
		return;
	for (i = 0; i < ACTIVE; i++) {
		struct client *c = pick();
		if (c->alive) {
			start(c);
			restarted++;
		}
	}
	for (i = 0; i < LEAVING; i++) {
		struct client *c = pick();
		if (c->alive) {
			cancel(c);
			cancelled++;
		}
	}
}

/* Makes the changes collected so far, without waiting. */
static void flush(int kq)
{
	if (nchanges > 0 && kevent(kq, changes, nchanges, NULL, 0, NULL) < 0)
		die("kevent");
	nchanges = 0;
}

static void start_all(int kq)
{
	long long began = now_ns();
	long i;

	for (i = 0; i < count; i++) {
		clients[i].alive = 1;
		start(&clients[i]);
		if (nchanges == BATCH)
			flush(kq);
	}
	alive = count;
	/* The clock: periodic, and its ident must not be a client's. */
	flush(kq);
	EV_SET(&changes[0], (uintptr_t)count, EVFILT_TIMER, EV_ADD, NOTE_MSECONDS, TICK_MS, NULL);
	nchanges = 1;
	flush(kq);
	printf("%ld timers started in %lld ms\n", count, (now_ns() - began) / 1000000);
}

int main(int argc, char **argv)
{
	static struct kevent events[BATCH];
	int kq, i, n;

	count = argc > 1 ? atol(argv[1]) : 100000;
	if (count <= 0) {
		printf("usage: timers [clients]\n");
		return 1;
	}
	clients = calloc((size_t)count, sizeof *clients);
	kq = kqueue();
	if (clients == NULL || kq < 0)
		die("timers");
	start_all(kq);
	while (alive > 0) {
		intptr_t tick = 0;
		n = kevent(kq, NULL, 0, events, BATCH, NULL);
		if (n < 0)
			die("kevent");
		for (i = 0; i < n; i++) {
			if (events[i].udata == NULL)
				tick = events[i].data;
			else
				expire(events[i].udata);
		}
		/* After the expiries, so that no timer is cancelled that has just ended. */
		if (tick > 0)
			on_tick(tick);
		flush(kq);
	}
	printf("%ld expired, %ld restarts, %ld cancelled; the latest by %.3f ms, none early\n",
	    expired, restarted, cancelled, (double)latest / 1e6);
	free(clients);
	return 0;
}
