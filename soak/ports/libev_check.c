/*
 * libev on one backend: tokens that go around many socket pairs while watchers stop and
 * start and descriptors are closed and opened anew, beside timers, signals, children, wake-ups
 * from a thread, a loop embedded in another, and a fork.
 *
 * usage: libev_check epoll|kqueue SECONDS
 */
#include <ev.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAIRS = 200 };

struct pair {
	int fd[2];
	ev_io in, out;
	long passed;
};

static struct pair pairs[PAIRS];
static long hops, reopened, ticks, wakes, sent, signals, children, outer_turns;
static int failed;

static void verdict(const char *what, int good)
{
	printf("%s  %s\n", good ? "ok    " : "not ok", what);
	failed |= !good;
}

/* A token goes to the next pair once that can be written. */
static void pass(struct ev_loop *loop, ev_io *w, int revents)
{
	struct pair *p = w->data;
	char token;
	if (revents & EV_READ && read(p->fd[0], &token, 1) == 1)
		ev_io_start(loop, &pairs[(p - pairs + 1) % PAIRS].out);
}

static void reopen(struct ev_loop *loop, struct pair *p)
{
	ev_io_stop(loop, &p->in);
	ev_io_stop(loop, &p->out);
	close(p->fd[0]);
	close(p->fd[1]);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p->fd) != 0)
		abort();
	ev_io_set(&p->in, p->fd[0], EV_READ);
	ev_io_set(&p->out, p->fd[1], EV_WRITE);
	ev_io_start(loop, &p->in);
	reopened++;
}

static void push(struct ev_loop *loop, ev_io *w, int revents)
{
	struct pair *p = w->data;
	(void)revents;
	ev_io_stop(loop, w);
	hops++;
	/* The token is between pairs: this one holds no byte unless another follows it. */
	if (++p->passed % 7 == 0 && recv(p->fd[0], &(char){ 0 }, 1, MSG_PEEK) != 1) {
		reopen(loop, p);
	} else if (p->passed % 5 == 0) {
		ev_io_stop(loop, &p->in);
		ev_io_start(loop, &p->in);
	}
	if (write(p->fd[1], "t", 1) != 1)
		abort();
}

static void tick(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop, (void)w, (void)revents;
	ticks++;
	raise(SIGUSR1);
}

static void woken(struct ev_loop *loop, ev_async *w, int revents)
{
	(void)loop, (void)w, (void)revents;
	wakes++;
}

static void signalled(struct ev_loop *loop, ev_signal *w, int revents)
{
	(void)loop, (void)w, (void)revents;
	signals++;
}

static void ended(struct ev_loop *loop, ev_child *w, int revents)
{
	(void)revents;
	children += WIFEXITED(w->rstatus) && WEXITSTATUS(w->rstatus) == 7;
	ev_child_stop(loop, w);
}

static void enough(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)w, (void)revents;
	ev_break(loop, EVBREAK_ALL);
}

static void turned(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop, (void)w, (void)revents;
	outer_turns++;
}

static struct ev_loop *default_loop;
static ev_async wake_it;

static void *waker(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&failed, __ATOMIC_RELAXED) && sent < 2000) {
		ev_async_send(default_loop, &wake_it);
		sent++;
		usleep(500);
	}
	return NULL;
}

static void run_for(struct ev_loop *loop, double seconds)
{
	ev_timer t;
	ev_timer_init(&t, enough, seconds, 0);
	ev_now_update(loop);
	ev_timer_start(loop, &t);
	ev_run(loop, 0);
}

static void enter_pairs(struct ev_loop *loop)
{
	int i;
	for (i = 0; i < PAIRS; i++) {
		struct pair *p = &pairs[i];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p->fd) != 0)
			abort();
		ev_io_init(&p->in, pass, p->fd[0], EV_READ);
		ev_io_init(&p->out, push, p->fd[1], EV_WRITE);
		p->in.data = p->out.data = p;
		ev_io_start(loop, &p->in);
		if (i % 20 == 0)
			ev_io_start(loop, &p->out);
	}
}

static void swallow(struct ev_loop *loop, ev_io *w, int revents)
{
	char token;
	(void)loop;
	if (revents & EV_READ && read(w->fd, &token, 1) != 1)
		abort();
}

/* The inner loop lives in a select loop, which watches its descriptor. */
static void embedded(unsigned backend)
{
	struct ev_loop *outer = ev_loop_new(EVBACKEND_SELECT), *inner = ev_loop_new(backend);
	ev_embed embed;
	ev_timer t;
	ev_io in;
	int p[2];
	if (pipe(p) != 0)
		abort();
	ev_io_init(&in, swallow, p[0], EV_READ);
	ev_io_start(inner, &in);
	ev_embed_init(&embed, NULL, inner);
	ev_embed_start(outer, &embed);
	ev_timer_init(&t, turned, 0.05, 0.05);
	ev_timer_start(outer, &t);
	if (write(p[1], "ttt", 3) != 3)
		abort();
	run_for(outer, 0.5);
	verdict("an embedded loop is served", read(p[0], &(char){ 0 }, 0) == 0 && outer_turns > 2 &&
		fcntl(p[0], F_SETFL, O_NONBLOCK) == 0 && read(p[0], &(char){ 0 }, 1) == -1);
}

static int in_child(struct ev_loop *loop)
{
	long before = hops;
	ev_loop_fork(loop);
	/* The tokens on their way are the parent's as well: the child has pairs of its own. */
	memset(pairs, 0, sizeof pairs);
	enter_pairs(loop);
	run_for(loop, 0.5);
	return hops > before + 1000 ? 0 : 1;
}

int main(int argc, char **argv)
{
	unsigned backend = argc > 1 && strcmp(argv[1], "kqueue") == 0 ? EVBACKEND_KQUEUE : EVBACKEND_EPOLL;
	double seconds = argc > 2 ? atof(argv[2]) : 3;
	struct ev_loop *loop = ev_default_loop(backend);
	pthread_t thread;
	ev_timer timer;
	ev_signal sig;
	ev_child child;
	long before;
	int status;
	pid_t pid;

	if (!loop || ev_backend(loop) != backend) {
		verdict("the backend is the one asked for", 0);
		return 1;
	}
	default_loop = loop;
	enter_pairs(loop);
	ev_timer_init(&timer, tick, 0.01, 0.01);
	ev_timer_start(loop, &timer);
	ev_signal_init(&sig, signalled, SIGUSR1);
	ev_signal_start(loop, &sig);
	ev_async_init(&wake_it, woken);
	ev_async_start(loop, &wake_it);
	if ((pid = fork()) == 0)
		_exit(7);
	ev_child_init(&child, ended, pid, 0);
	ev_child_start(loop, &child);
	pthread_create(&thread, NULL, waker, NULL);

	run_for(loop, seconds);
	printf("        %ld hops, %ld reopened, %ld ticks, %ld signals, %ld wake-ups\n", hops, reopened, ticks, signals, wakes);
	verdict("tokens go round", hops > 10000 && reopened > 100);
	verdict("timers tick", ticks > seconds * 40);
	verdict("each tick's signal comes", signals >= ticks - 1 && signals <= ticks);
	verdict("a child's end comes", children == 1);
	verdict("a thread wakes the loop", wakes > 100);
	before = hops;
	run_for(loop, 0.5);
	verdict("no token is stuck", hops > before + 1000);
	if ((pid = fork()) == 0)
		_exit(in_child(loop));
	verdict("a forked child goes on", waitpid(pid, &status, 0) == pid && status == 0);
	before = hops;
	run_for(loop, 0.5);
	verdict("the parent does too", hops > before + 1000);
	pthread_join(thread, NULL);
	embedded(backend);
	return failed;
}
