/*
 * What calls cost, counted in system calls, never in time.
 *
 * Each check runs this program again under strace with the name of a part below. The
 * part marks what is to be counted, several rounds of it, and the cheapest round must
 * keep the bound: now and then the kqueue's own housekeeping falls into a round.
 * Only calls of the thread that set the marks count.
 */
#include "harness.h"
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { ROUNDS = 8, TIMES = 10, MARK_BEGIN = 770001, MARK_END = 770002 };

/* lock: waiting for a kqueue's lock, or waking who waits; part of total like the others. */
struct counts { int wait, fionread, outq, epoll_ctl, settime, lock, own, other, total; char text[300]; };

/* A system call nobody makes, so that it can be found in the trace. */
static void mark(int which) { syscall(SYS_getpgid, which); }

/* What stands between these is counted, but in the first round. */
static void begin_count(int round) { if (round) mark(MARK_BEGIN); }
static void end_count(int round) { if (round) mark(MARK_END); }

static struct kevent ch[16], ev[16];

/* One prepared change. The array is always the same, so a probe of it happens once. */
static void apply(int kq) { EQ(kevent(kq, ch, 1, NULL, 0, NULL), 0); }

static void set(uintptr_t ident, int filter, int flags, unsigned fflags, intptr_t data)
{
	EV_SET(&ch[0], ident, filter, flags, fflags, data, NULL);
}

static void harvest(int kq, int want) { EQ(kevent(kq, NULL, 0, ev, 16, NULL), want); }

static void pair(int kind, int p[2])
{
	if (kind == 0)
		OK(pipe2(p, O_CLOEXEC) == 0);
	else
		OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) == 0);
}

/* TIMES collects of n descriptors with unread data. */
static void collect_ready(int kind, int n)
{
	int kq = kqueue(), p[2], i, r;
	for (i = 0; i < n; i++) {
		pair(kind, p);
		EQ(write(p[1], "abc", 3), 3);
		set(p[0], EVFILT_READ, EV_ADD, 0, 0);
		apply(kq);
	}
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++)
			harvest(kq, n);
		end_count(r);
	}
	close(kq);
}

/* TIMES collects of a pipe or socket whose other side is closed. */
static void collect_end(int kind)
{
	int kq = kqueue(), p[2], i, r;
	pair(kind, p);
	close(p[1]);
	set(p[0], EVFILT_READ, EV_ADD, 0, 0);
	apply(kq);
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++)
			harvest(kq, 1);
		end_count(r);
	}
	close(kq);
}

static void part_pipe_end(void) { collect_end(0); }
static void part_socket_end(void) { collect_end(1); }
static void part_pipe(void) { collect_ready(0, 1); }
static void part_socket(void) { collect_ready(1, 1); }
static void part_five_sockets(void) { collect_ready(1, 5); }

/* TIMES collects of 8 each, of 64 descriptors with unread data. */
static void little_room(int flags)
{
	int kq = kqueue(), p[2], i, j, r;
	for (i = 0; i < 64; i++) {
		pair(1, p);
		EQ(write(p[1], "abc", 3), 3);
		set(p[0], EVFILT_READ, EV_ADD | flags, 0, 0);
		apply(kq);
	}
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++) {
			EQ(kevent(kq, NULL, 0, ev, 8, NULL), 8);
			for (j = 0; j < 8 && flags; j++) {
				set(ev[j].ident, EVFILT_READ, EV_ENABLE | flags, 0, 0);
				apply(kq);
			}
		}
		end_count(r);
	}
	close(kq);
}

static void part_room_for_8_of_64(void) { little_room(0); }
static void part_room_for_8_of_64_dispatch(void) { little_room(EV_DISPATCH); }

static void part_writable_socket(void)
{
	int kq = kqueue(), p[2], i, r;
	pair(1, p);
	set(p[0], EVFILT_WRITE, EV_ADD, 0, 0);
	apply(kq);
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++)
			harvest(kq, 1);
		end_count(r);
	}
	close(kq);
}

/* Shared with the process that writes: how many times it shall have written. */
static int *wanted;

/* Writes one byte each time the parent is asleep in the call it announced. */
static void write_on_demand(int fd, pid_t parent)
{
	int written;
	for (written = 0; written < ROUNDS + 1; written++) {
		UNTIL(__atomic_load_n(wanted, __ATOMIC_SEQ_CST) > written && state_of(parent) == 'S');
		EQ(write(fd, "x", 1), 1);
	}
	_exit(0);
}

static void collect_asleep(int kind)
{
	int kq = kqueue(), p[2], r;
	pid_t parent = getpid(), pid;
	char c;
	wanted = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	OK(wanted != MAP_FAILED);
	pair(kind, p);
	if ((pid = fork()) == 0)
		write_on_demand(p[1], parent);
	set(p[0], EVFILT_READ, EV_ADD, 0, 0);
	apply(kq);
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		__atomic_add_fetch(wanted, 1, __ATOMIC_SEQ_CST);
		harvest(kq, 1);
		end_count(r);
		EQ(read(p[0], &c, 1), 1);
	}
	EQ(waitpid(pid, NULL, 0), pid);
	close(kq);
}

static void part_sleep_pipe(void) { collect_asleep(0); }
static void part_sleep_socket(void) { collect_asleep(1); }

/* TIMES descriptors, one change each. */
static void change_each(int kind, int filter, int before, int counted, int after)
{
	int kq = kqueue(), p[TIMES][2], i, r;
	for (i = 0; i < TIMES; i++)
		pair(kind, p[i]);
	for (r = 0; r <= ROUNDS; r++) {
		for (i = 0; before && i < TIMES; i++) {
			set(p[i][0], filter, before, 0, 0);
			apply(kq);
		}
		begin_count(r);
		for (i = 0; i < TIMES; i++) {
			set(p[i][0], filter, counted, 0, 0);
			apply(kq);
		}
		end_count(r);
		for (i = 0; after && i < TIMES; i++) {
			set(p[i][0], filter, after, 0, 0);
			apply(kq);
		}
	}
	close(kq);
}

static void part_add_pipe(void) { change_each(0, EVFILT_READ, 0, EV_ADD, EV_DELETE); }
static void part_add_socket(void) { change_each(1, EVFILT_READ, 0, EV_ADD | EV_CLEAR, EV_DELETE); }
static void part_add_write(void) { change_each(1, EVFILT_WRITE, 0, EV_ADD, EV_DELETE); }

/* A watched socket that is written to as well now and then: added, told of, deleted. */
static void part_toggle_write(void)
{
	int kq = kqueue(), p[2], i, r;
	pair(1, p);
	set(p[0], EVFILT_READ, EV_ADD, 0, 0);
	apply(kq);
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++) {
			set(p[0], EVFILT_WRITE, EV_ADD, 0, 0);
			apply(kq);
			harvest(kq, 1);
			set(p[0], EVFILT_WRITE, EV_DELETE, 0, 0);
			apply(kq);
		}
		end_count(r);
	}
	close(kq);
}

/* A second knote on each of TIMES sockets, in another mode, once the first has told of them. */
static void part_add_second(void)
{
	int kq = kqueue(), p[TIMES][2], i, r;
	for (i = 0; i < TIMES; i++) {
		pair(1, p[i]);
		set(p[i][0], EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0);
		apply(kq);
	}
	harvest(kq, TIMES);
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++) {
			set(p[i][0], EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0);
			apply(kq);
		}
		end_count(r);
		for (i = 0; i < TIMES; i++) {
			set(p[i][0], EVFILT_READ, EV_DELETE, 0, 0);
			apply(kq);
		}
	}
	close(kq);
}

static void part_delete(void) { change_each(1, EVFILT_READ, EV_ADD, EV_DELETE, 0); }
static void part_disable(void) { change_each(1, EVFILT_READ, EV_ADD, EV_DISABLE, EV_DELETE); }
static void part_enable(void) { change_each(1, EVFILT_READ, EV_ADD | EV_DISABLE, EV_ENABLE, EV_DELETE); }

/* One event of a ready socket, then the change that makes the next one possible. */
static void rearm(int added, int again)
{
	int kq = kqueue(), p[2], i, r;
	pair(1, p);
	EQ(write(p[1], "x", 1), 1);
	set(p[0], EVFILT_READ, added, 0, 0);
	apply(kq);
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++) {
			harvest(kq, 1);
			set(p[0], EVFILT_READ, again, 0, 0);
			apply(kq);
		}
		end_count(r);
	}
	close(kq);
}

static void part_oneshot(void) { rearm(EV_ADD | EV_ONESHOT, EV_ADD | EV_ONESHOT); }
static void part_dispatch(void) { rearm(EV_ADD | EV_DISPATCH, EV_ENABLE); }

static void user_rounds(int count_triggers, int count_collect)
{
	int kq = kqueue(), i, r;
	for (i = 0; i < TIMES; i++) {
		set(i, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0);
		apply(kq);
	}
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r && count_triggers);
		for (i = 0; i < TIMES; i++) {
			set(i, EVFILT_USER, 0, NOTE_TRIGGER, 0);
			apply(kq);
		}
		end_count(r && count_triggers);
		begin_count(r && count_collect);
		harvest(kq, TIMES);
		end_count(r && count_collect);
	}
	close(kq);
}

static void part_trigger(void) { user_rounds(1, 0); }
static void part_user_collect(void) { user_rounds(0, 1); }

static void part_later_timer(void)
{
	int kq = kqueue(), i, r;
	set(1000, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000);
	apply(kq);
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++) {
			set(i, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 2000 + i);
			apply(kq);
		}
		for (i = 0; i < TIMES; i++) {
			set(i, EVFILT_TIMER, EV_DELETE, 0, 0);
			apply(kq);
		}
		end_count(r);
	}
	close(kq);
}

static void part_earliest_timer(void)
{
	int kq = kqueue(), i, r;
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++) {
			set(r * 100 + i, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 100000 - r * 100 - i);
			apply(kq);
		}
		end_count(r);
	}
	close(kq);
}

static void fire_timers(int k)
{
	int kq = kqueue(), i, r;
	set(1000, EVFILT_TIMER, EV_ADD, NOTE_SECONDS, 1000);
	apply(kq);
	for (r = 0; r <= ROUNDS; r++) {
		long long start;
		for (i = 0; i < k; i++) {
			set(i, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1);
			apply(kq);
		}
		start = now_ns();
		UNTIL(now_ns() - start > 3000000);
		begin_count(r);
		harvest(kq, k);
		end_count(r);
	}
	close(kq);
}

static void part_fire_one(void) { fire_timers(1); }
static void part_fire_ten(void) { fire_timers(10); }

static void part_create(void)
{
	int kq[TIMES], i, r;
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++)
			OK((kq[i] = kqueue()) >= 0);
		end_count(r);
		for (i = 0; i < TIMES; i++)
			close(kq[i]);
		libkqueue_drain_pending_close();
	}
}

/* A byte written, shown by poll(), collected, read; and there is no other. */
static void part_polled(void)
{
	int kq = kqueue(), p[2], i, r;
	struct timespec zero = { 0, 0 };
	struct pollfd shown = { kq, POLLIN, 0 };
	char c;
	pair(0, p);
	set(p[0], EVFILT_READ, EV_ADD, 0, 0);
	apply(kq);
	for (r = 0; r <= ROUNDS; r++) {
		begin_count(r);
		for (i = 0; i < TIMES; i++) {
			EQ(write(p[1], "x", 1), 1);
			EQ(poll(&shown, 1, 10000), 1);
			EQ(kevent(kq, NULL, 0, ev, 16, &zero), 1);
			EQ(read(p[0], &c, 1), 1);
			EQ(kevent(kq, NULL, 0, ev, 16, &zero), 0);
		}
		end_count(r);
	}
	close(kq);
}

static const struct { const char *name; void (*run)(void); } parts[] = {
	{ "pipe", part_pipe }, { "socket", part_socket }, { "five_sockets", part_five_sockets },
	{ "pipe_end", part_pipe_end }, { "socket_end", part_socket_end },
	{ "room_for_8_of_64", part_room_for_8_of_64 },
	{ "room_for_8_of_64_dispatch", part_room_for_8_of_64_dispatch },
	{ "writable_socket", part_writable_socket },
	{ "sleep_pipe", part_sleep_pipe }, { "sleep_socket", part_sleep_socket },
	{ "add_pipe", part_add_pipe }, { "add_socket", part_add_socket }, { "add_write", part_add_write },
	{ "add_second", part_add_second }, { "toggle_write", part_toggle_write },
	{ "delete", part_delete }, { "disable", part_disable }, { "enable", part_enable },
	{ "oneshot", part_oneshot }, { "dispatch", part_dispatch },
	{ "trigger", part_trigger }, { "user_collect", part_user_collect },
	{ "later_timer", part_later_timer }, { "earliest_timer", part_earliest_timer },
	{ "fire_one", part_fire_one }, { "fire_ten", part_fire_ten },
	{ "create", part_create }, { "polled", part_polled } };

__attribute__((constructor))
static void part_start(void)
{
	const char *name = getenv("KQ_COST");
	size_t i;
	if (!name)
		return;
	alarm(HARNESS_TIMEOUT);
	for (i = 0; i < sizeof parts / sizeof *parts; i++)
		if (strcmp(name, parts[i].name) == 0) {
			parts[i].run();
			_exit(0);
		}
	_exit(2);
}

/* One line of the trace, "TID call(arguments) = result", into c. */
static void count_line(struct counts *c, const char *call)
{
	static const char *const waits[] = { "epoll_wait(", "epoll_pwait(", "epoll_pwait2(" };
	size_t i, len = strlen(c->text);
	int *kind = &c->other;
	for (i = 0; i < 3; i++)
		if (strncmp(call, waits[i], strlen(waits[i])) == 0)
			kind = &c->wait;
	if (strncmp(call, "ioctl(", 6) == 0 && strstr(call, "FIONREAD"))
		kind = &c->fionread;
	if (strncmp(call, "ioctl(", 6) == 0 && (strstr(call, "TIOCOUTQ") || strstr(call, "SIOCOUTQ")))
		kind = &c->outq;
	if (strncmp(call, "epoll_ctl(", 10) == 0)
		kind = &c->epoll_ctl;
	if (strncmp(call, "timerfd_settime(", 16) == 0)
		kind = &c->settime;
	if (strncmp(call, "futex(", 6) == 0 || strncmp(call, "sched_yield(", 12) == 0)
		kind = &c->lock;
	++*kind;
	c->total++;
	snprintf(c->text + len, sizeof c->text - len, "%.*s ", (int)strcspn(call, "("), call);
}

/* The cheapest marked round of the trace; own is the number of marked rounds seen. */
static struct counts cheapest_round(FILE *f)
{
	static char line[4096];
	struct counts best, now;
	int rounds = 0, open_round = 0, tid = 0;
	memset(&best, 0, sizeof best);
	memset(&now, 0, sizeof now);
	while (fgets(line, sizeof line, f)) {
		char *call;
		int t = (int)strtol(line, &call, 10);
		call += strspn(call, " ");
		if (strncmp(call, "getpgid(770001", 14) == 0) {
			memset(&now, 0, sizeof now);
			tid = t;
			open_round = 1;
		} else if (open_round && strncmp(call, "getpgid(770002", 14) == 0) {
			if (rounds++ == 0 || now.total < best.total)
				best = now;
			open_round = 0;
		} else if (open_round && t == tid && *call >= 'a' && *call <= 'z') {
			count_line(&now, call);
		}
	}
	best.own = rounds;
	return best;
}

static struct counts measured(const char *part)
{
	char self[4096], trace[SCRATCH];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	int fd = scratch_file(trace), status;
	struct counts c;
	struct stat st;
	FILE *f;
	pid_t pid;
	OK(n > 0);
	self[n] = 0;
	if ((pid = fork()) == 0) {
		dup2(harness_report, 2);
		setenv("KQ_COST", part, 1);
		execlp("strace", "strace", "-f", "-qq", "-o", trace, self, (char *)NULL);
		_exit(126);
	}
	OK(waitpid(pid, &status, 0) == pid);
	OK(fstat(fd, &st) == 0);
	f = fdopen(fd, "r");
	OK(f != NULL);
	c = cheapest_round(f);
	fclose(f);
	unlink(trace);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 126)
		SKIP("strace is not installed");
	if (status != 0 && st.st_size == 0)
		SKIP("strace cannot trace here");
	EQ(status, 0);
	EQ(c.own, ROUNDS);
	return c;
}

#define COSTS(part, what) do { struct counts c = measured(part); \
	if (!(what)) FAIL("%d wait, %d FIONREAD, %d SIOCOUTQ, %d epoll_ctl, %d timerfd_settime, %d other; not " #what ": %s", \
		c.wait, c.fionread, c.outq, c.epoll_ctl, c.settime, c.other, c.text); } while (0)

CHECK(a_ready_pipe_costs_one_wait_and_one_FIONREAD) { COSTS("pipe", c.wait == TIMES && c.fionread == TIMES && c.total == 2 * TIMES); }
CHECK(a_ready_socket_costs_one_wait_and_one_FIONREAD) { COSTS("socket", c.wait == TIMES && c.fionread == TIMES && c.total == 2 * TIMES); }
CHECK(five_ready_sockets_cost_one_wait_and_five_FIONREAD) { COSTS("five_sockets", c.wait == TIMES && c.fionread == 5 * TIMES && c.total == 6 * TIMES); }
/* One call asks whether the number still is that file's. */
CHECK(the_end_of_a_pipe_costs_two_calls) { COSTS("pipe_end", c.wait == TIMES && c.epoll_ctl == TIMES && c.total == 2 * TIMES); }
CHECK(the_end_of_a_socket_costs_three_calls) { COSTS("socket_end", c.wait == TIMES && c.fionread == TIMES && c.epoll_ctl == TIMES && c.total == 3 * TIMES); }
/* One of the eight waited since the last call and is asked anew; and the close is asked for. */
CHECK(little_room_costs_three_calls_more_and_not_some_for_each_event) { COSTS("room_for_8_of_64", c.fionread == 8 * TIMES && c.total <= 12 * TIMES); }
CHECK(little_room_costs_the_same_with_dispatch) { COSTS("room_for_8_of_64_dispatch", c.fionread == 8 * TIMES && c.epoll_ctl <= 9 * TIMES && c.total <= 20 * TIMES); }
CHECK(a_writable_socket_costs_one_wait_and_one_SIOCOUTQ) { COSTS("writable_socket", c.wait == TIMES && c.outq == TIMES && c.total == 2 * TIMES); }
CHECK(sleeping_for_a_pipe_costs_nothing_more) { COSTS("sleep_pipe", c.wait == 1 && c.fionread == 1 && c.total == 2); }
CHECK(sleeping_for_a_socket_costs_nothing_more) { COSTS("sleep_socket", c.wait == 1 && c.fionread == 1 && c.total == 2); }
CHECK(adding_a_pipe_costs_one_epoll_ctl) { COSTS("add_pipe", c.epoll_ctl == TIMES && c.total == TIMES); }
CHECK(adding_a_socket_costs_one_epoll_ctl) { COSTS("add_socket", c.epoll_ctl == TIMES && c.total == TIMES); }
CHECK(adding_a_second_knote_in_another_mode_costs_one_epoll_ctl) { COSTS("add_second", c.epoll_ctl == TIMES && c.total == TIMES); }
/* Each makes an armed kqueue ready, so that the library's thread looks at it meanwhile: there
   may be waits for its lock besides. */
CHECK(adding_for_write_costs_one_epoll_ctl) { COSTS("add_write", c.epoll_ctl == TIMES && c.total - c.lock == TIMES); }
CHECK(toggling_write_costs_two_epoll_ctl_and_its_event_one_wait_and_one_SIOCOUTQ) { COSTS("toggle_write", c.epoll_ctl == 2 * TIMES && c.wait == TIMES && c.outq == TIMES && c.total - c.lock == 4 * TIMES); }
CHECK(deleting_costs_one_epoll_ctl) { COSTS("delete", c.epoll_ctl == TIMES && c.total == TIMES); }
CHECK(disabling_costs_one_epoll_ctl) { COSTS("disable", c.epoll_ctl == TIMES && c.total == TIMES); }
CHECK(enabling_costs_one_epoll_ctl) { COSTS("enable", c.epoll_ctl == TIMES && c.total == TIMES); }
CHECK(a_oneshot_added_again_costs_one_epoll_ctl) { COSTS("oneshot", c.epoll_ctl == TIMES && c.wait == TIMES && c.fionread == TIMES && c.total == 3 * TIMES); }
CHECK(a_dispatch_enabled_again_costs_one_epoll_ctl) { COSTS("dispatch", c.epoll_ctl == TIMES && c.wait == TIMES && c.fionread == TIMES && c.total == 3 * TIMES); }
CHECK(a_user_trigger_with_nobody_asleep_costs_nothing) { COSTS("trigger", c.total == 0); }
CHECK(ten_user_events_cost_at_most_one_wait) { COSTS("user_collect", c.wait <= 1 && c.total == c.wait); }
CHECK(a_timer_that_is_not_the_earliest_costs_nothing) { COSTS("later_timer", c.total == 0); }
CHECK(the_earliest_timer_costs_one_settime) { COSTS("earliest_timer", c.settime == TIMES && c.total == TIMES); }
CHECK(one_fired_timer_costs_one_wait_and_one_settime) { COSTS("fire_one", c.wait == 1 && c.settime <= 1 && c.total == c.wait + c.settime); }
CHECK(ten_fired_timers_cost_one_wait_and_one_settime) { COSTS("fire_ten", c.wait == 1 && c.settime <= 1 && c.total == c.wait + c.settime); }
CHECK(a_new_kqueue_costs_thirteen_calls) { COSTS("create", c.epoll_ctl == 2 * TIMES && c.total - c.lock <= 13 * TIMES); }
/* Three are the program's own, four the two waits, FIONREAD and epoll_ctl; four take the byte
   back: two fcntl, fstat, vmsplice. The library's thread makes seven more, which are not
   counted. */
CHECK(an_event_that_poll_shows_costs_eleven_calls) { COSTS("polled", c.epoll_ctl == TIMES && c.total - c.lock <= 11 * TIMES); }

CHECKS(
	C(a_ready_pipe_costs_one_wait_and_one_FIONREAD)
	C(a_ready_socket_costs_one_wait_and_one_FIONREAD)
	C(five_ready_sockets_cost_one_wait_and_five_FIONREAD)
	C(the_end_of_a_pipe_costs_two_calls)
	C(the_end_of_a_socket_costs_three_calls)
	C(little_room_costs_three_calls_more_and_not_some_for_each_event)
	C(little_room_costs_the_same_with_dispatch)
	C(a_writable_socket_costs_one_wait_and_one_SIOCOUTQ)
	C(sleeping_for_a_pipe_costs_nothing_more)
	C(sleeping_for_a_socket_costs_nothing_more)
	C(adding_a_pipe_costs_one_epoll_ctl)
	C(adding_a_socket_costs_one_epoll_ctl)
	C(adding_a_second_knote_in_another_mode_costs_one_epoll_ctl)
	C(adding_for_write_costs_one_epoll_ctl)
	C(toggling_write_costs_two_epoll_ctl_and_its_event_one_wait_and_one_SIOCOUTQ)
	C(deleting_costs_one_epoll_ctl)
	C(disabling_costs_one_epoll_ctl)
	C(enabling_costs_one_epoll_ctl)
	C(a_oneshot_added_again_costs_one_epoll_ctl)
	C(a_dispatch_enabled_again_costs_one_epoll_ctl)
	C(a_user_trigger_with_nobody_asleep_costs_nothing)
	C(ten_user_events_cost_at_most_one_wait)
	C(a_timer_that_is_not_the_earliest_costs_nothing)
	C(the_earliest_timer_costs_one_settime)
	C(one_fired_timer_costs_one_wait_and_one_settime)
	C(ten_fired_timers_cost_one_wait_and_one_settime)
	C(a_new_kqueue_costs_thirteen_calls)
	C(an_event_that_poll_shows_costs_eleven_calls)
);
