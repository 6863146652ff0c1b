/* EVFILT_LIBKQUEUE: what the library says of itself, its switches, KQUEUE_DEBUG. */
#include "harness.h"
#include <sys/syscall.h>

/* One request; the answer comes as the one event of the same call. */
static struct kevent ask(int kq, int flags, unsigned what, intptr_t data)
{
	struct kevent ch, answer;
	struct timespec zero = { 0, 0 };
	EV_SET(&ch, 0, EVFILT_LIBKQUEUE, EV_ADD | flags, what, data, NULL);
	memset(&answer, 0, sizeof answer);
	EQ(kevent(kq, &ch, 1, &answer, 1, &zero), 1);
	EQ(answer.filter, EVFILT_LIBKQUEUE);
	EQ(answer.ident, 0);
	return answer;
}

/* Sets without asking for a receipt: nothing comes back. */
static void set(int kq, unsigned what, intptr_t data)
{
	EQ(change(kq, 0, EVFILT_LIBKQUEUE, EV_ADD, what, data, NULL), 0);
	NONE(kq);
}

CHECK(note_version_gives_the_version_in_pairs_of_digits)
{
	int kq = kqueue();
	EQ(ask(kq, 0, NOTE_VERSION, 0).data, 0x03000000);
	NONE(kq);
	close(kq);
}

CHECK(note_version_str_gives_the_version_as_text)
{
	int kq = kqueue();
	const char *text = ask(kq, 0, NOTE_VERSION_STR, 0).udata;
	OK(text != NULL);
	OK(strcmp(text, "3.0.0") == 0);
	NONE(kq);
	close(kq);
}

CHECK(the_version_may_be_asked_again_and_with_a_receipt)
{
	int kq = kqueue(), i;
	for (i = 0; i < 3; i++) {
		EQ(ask(kq, 0, NOTE_VERSION, 0).data, 0x03000000);
		EQ(ask(kq, EV_RECEIPT, NOTE_VERSION, 0).data, 0x03000000);
	}
	close(kq);
}

/* A switch answers with what it was and keeps what it is told. */
static void switches(unsigned what, int initially)
{
	int kq = kqueue();
	EQ(ask(kq, EV_RECEIPT, what, !initially).data, initially);
	EQ(ask(kq, EV_RECEIPT, what, !initially).data, !initially);
	EQ(ask(kq, EV_RECEIPT, what, initially).data, !initially);
	EQ(ask(kq, EV_RECEIPT, what, initially).data, initially);
	set(kq, what, !initially);
	EQ(ask(kq, EV_RECEIPT, what, initially).data, !initially);
	close(kq);
}

CHECK(note_thread_safe_is_a_switch_that_starts_on) { switches(NOTE_THREAD_SAFE, 1); }
CHECK(note_fork_cleanup_is_a_switch_that_starts_on) { switches(NOTE_FORK_CLEANUP, 1); }

CHECK(note_file_poll_interval_is_ENOSYS)
{
	int kq = kqueue();
	FAILS(change(kq, 0, EVFILT_LIBKQUEUE, EV_ADD, NOTE_FILE_POLL_INTERVAL, 10, NULL), ENOSYS);
	close(kq);
}

CHECK(an_unknown_request_is_EINVAL)
{
	int kq = kqueue();
	FAILS(change(kq, 0, EVFILT_LIBKQUEUE, EV_ADD, 0, 0, NULL), EINVAL);
	FAILS(change(kq, 0, EVFILT_LIBKQUEUE, EV_ADD, 0x9, 0, NULL), EINVAL);
	FAILS(change(kq, 0, EVFILT_LIBKQUEUE, EV_ADD, 0x80000000U, 0, NULL), EINVAL);
	close(kq);
}

CHECK(requests_leave_the_queue_as_it_was)
{
	int kq = kqueue();
	EQ(change(kq, 0, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL), 0);
	ask(kq, 0, NOTE_VERSION, 0);
	EQ(change(kq, 0, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL), 0);
	EQ(ONE(kq).filter, EVFILT_USER);
	NONE(kq);
	close(kq);
}

static char logged[1 << 16];
static size_t logged_len;

__attribute__((format(printf, 1, 2)))
static void log_line(char const *fmt, ...)
{
	va_list ap;
	int n;
	va_start(ap, fmt);
	n = vsnprintf(logged + logged_len, sizeof logged - logged_len, fmt, ap);
	va_end(ap);
	if (n > 0 && logged_len + (size_t)n < sizeof logged)
		logged_len += (size_t)n;
}

CHECK(note_debug_func_receives_the_trace)
{
	int kq = kqueue();
	set(kq, NOTE_DEBUG_FUNC, (intptr_t)log_line);
	EQ(ask(kq, EV_RECEIPT, NOTE_DEBUG, 1).data, 0);
	EQ(change(kq, 77, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER, 0, NULL), 0);
	EQ(ONE(kq).ident, 77);
	EQ(ask(kq, EV_RECEIPT, NOTE_DEBUG, 0).data, 1);
	OK(strstr(logged, "EVFILT_USER") != NULL);
	OK(strstr(logged, "77") != NULL);
	logged_len = 0;
	EQ(change(kq, 78, EVFILT_USER, EV_ADD, 0, 0, NULL), 0);
	EQ(logged_len, 0);
	close(kq);
	libkqueue_drain_pending_close();
	kq = kqueue();
	set(kq, NOTE_DEBUG_FUNC, 0);
	close(kq);
}

/* Descriptor 2 is a file while the trace is written; its text is returned. */
static char *trace_of(void (*run)(int kq), int kq)
{
	static char text[1 << 16];
	int file = nameless_file(), saved = fcntl(2, F_DUPFD_CLOEXEC, 3);
	ssize_t n;
	OK(saved >= 0);
	if (harness_report == 2)
		harness_report = saved;
	OK(dup2(file, 2) == 2);
	run(kq);
	OK(dup2(saved, 2) == 2);
	if (harness_report == saved)
		harness_report = 2;
	close(saved);
	n = pread(file, text, sizeof text - 1, 0);
	text[n > 0 ? n : 0] = 0;
	close(file);
	return text;
}

/* Every line of the text starts with "PREFIX [tid]: ", one at least with our tid. */
static void lines_start_with(const char *text, const char *prefix)
{
	const char *line;
	size_t n = strlen(prefix);
	int ours = 0;
	for (line = text; *line; line = strchr(line, '\n') + 1) {
		char *end = NULL;
		long tid = 0;
		if (strncmp(line, prefix, n) == 0 && strncmp(line + n, " [", 2) == 0)
			tid = strtol(line + n + 2, &end, 10);
		if (tid <= 0 || strncmp(end, "]: ", 3) != 0)
			FAIL("a line does not start with \"%s [tid]: \": %.100s", prefix, line);
		ours += tid == syscall(SYS_gettid);
		OK(strchr(line, '\n') != NULL);
	}
	OK(ours > 0);
}

static void work(int kq)
{
	EQ(change(kq, 77, EVFILT_USER, EV_ADD | EV_ONESHOT, NOTE_TRIGGER, 0, NULL), 0);
	EQ(ONE(kq).ident, 77);
	FAILS(change(kq, 78, EVFILT_USER, EV_DELETE, 0, 0, NULL), ENOENT);
}

static void work_traced(int kq)
{
	set(kq, NOTE_DEBUG, 1);
	work(kq);
	set(kq, NOTE_DEBUG, 0);
}

CHECK(note_debug_traces_calls_changes_and_events_by_name)
{
	int kq = kqueue();
	char *text = trace_of(work_traced, kq);
	lines_start_with(text, "KQ");
	OK(strstr(text, "kevent") != NULL);
	OK(strstr(text, "EVFILT_USER") != NULL);
	OK(strstr(text, "EV_ADD") != NULL);
	OK(strstr(text, "NOTE_TRIGGER") != NULL);
	OK(strstr(text, "EV_DELETE") != NULL);
	OK(strstr(text, "ENOENT") != NULL);
	close(kq);
}

CHECK(without_note_debug_nothing_is_written)
{
	int kq = kqueue();
	OK(*trace_of(work, kq) == 0);
	close(kq);
}

CHECK(note_debug_prefix_replaces_the_prefix)
{
	int kq = kqueue();
	char prefix[] = "server";
	set(kq, NOTE_DEBUG_PREFIX, (intptr_t)prefix);
	/* The library keeps a copy. */
	memset(prefix, 'x', sizeof prefix - 1);
	lines_start_with(trace_of(work_traced, kq), "server");
	close(kq);
}

/* This program again with KQUEUE_DEBUG as given; the part before main() does the work. */
static const char *trace_with(const char *value)
{
	static char text[1 << 16];
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	size_t len = 0;
	int p[2], status;
	pid_t pid;
	OK(n > 0);
	self[n] = 0;
	OK(pipe2(p, O_CLOEXEC) == 0);
	if ((pid = fork()) == 0) {
		dup2(p[1], 2);
		setenv("KQ_TRACED", "1", 1);
		if (value)
			setenv("KQUEUE_DEBUG", value, 1);
		else
			unsetenv("KQUEUE_DEBUG");
		execl(self, self, (char *)NULL);
		_exit(127);
	}
	close(p[1]);
	while ((n = read(p[0], text + len, sizeof text - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = 0;
	close(p[0]);
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
	return text;
}

__attribute__((constructor))
static void traced_start(void)
{
	int kq;
	if (!getenv("KQ_TRACED"))
		return;
	alarm(HARNESS_TIMEOUT);
	kq = kqueue();
	work(kq);
	_exit(0);
}

CHECK(kqueue_debug_in_the_environment_traces_to_stderr)
{
	const char *text = trace_with("1");
	OK(strncmp(text, "KQ [", 4) == 0);
	OK(strstr(text, "]: ") != NULL);
	OK(strstr(text, "EVFILT_USER") != NULL);
}

CHECK(kqueue_debug_0_or_unset_traces_nothing)
{
	OK(*trace_with("0") == 0);
	OK(*trace_with(NULL) == 0);
}

CHECKS(
	C(note_version_gives_the_version_in_pairs_of_digits)
	C(note_version_str_gives_the_version_as_text)
	C(the_version_may_be_asked_again_and_with_a_receipt)
	C(note_thread_safe_is_a_switch_that_starts_on)
	C(note_fork_cleanup_is_a_switch_that_starts_on)
	C(note_file_poll_interval_is_ENOSYS)
	C(an_unknown_request_is_EINVAL)
	C(requests_leave_the_queue_as_it_was)
	C(note_debug_func_receives_the_trace)
	C(note_debug_traces_calls_changes_and_events_by_name)
	C(without_note_debug_nothing_is_written)
	C(note_debug_prefix_replaces_the_prefix)
	C(kqueue_debug_in_the_environment_traces_to_stderr)
	C(kqueue_debug_0_or_unset_traces_nothing)
);
