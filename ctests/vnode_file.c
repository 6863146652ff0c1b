/* EVFILT_VNODE on files: which operation gives which hint, and which gives none. */
#include "vnode.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/xattr.h>

static int kq, fd;

/* A file of n bytes, watched for everything that changes it. */
static void begin(int n)
{
	kq = new_kqueue();
	fd = file_of("f", n);
	WATCH(kq, fd, EVERY);
	NONE(kq);
}

static void end(void)
{
	close(fd);
	close(kq);
	clean();
}

static void set_times(long atime, long mtime)
{
	struct timespec ts[2] = {{.tv_sec = atime}, {.tv_sec = mtime}};
	if (atime < 0)
		ts[0].tv_nsec = UTIME_OMIT;
	if (mtime < 0)
		ts[1].tv_nsec = UTIME_OMIT;
	OK(futimens(fd, ts) == 0);
}

CHECK(nothing_happened_gives_nothing)
{
	begin(10);
	QUIET(kq);
	end();
}

CHECK(a_write_of_the_same_length_is_write)
{
	begin(10);
	EQ(pwrite(fd, "abc", 3, 2), 3);
	HINTS(kq, fd, NOTE_WRITE);
	NONE(kq);
	EQ(pwrite(fd, "abc", 3, 2), 3);
	HINTS(kq, fd, NOTE_WRITE);
	end();
}

CHECK(a_write_beyond_the_end_is_write_and_extend)
{
	begin(10);
	put(fd, 5);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	NONE(kq);
	end();
}

CHECK(a_write_of_nothing_and_one_that_fails_are_nothing)
{
	int other;
	begin(10);
	EQ(write(fd, "", 0), 0);
	other = open(in("f"), O_RDONLY | O_CLOEXEC);
	FAILS(write(other, "x", 1), EBADF);
	close(other);
	QUIET(kq);
	end();
}

CHECK(a_write_by_another_process_is_seen)
{
	begin(10);
	ELSEWHERE(({ int w = open(in("f"), O_WRONLY | O_APPEND); write(w, "x", 1) == 1; }));
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	end();
}

CHECK(truncation_is_attrib_and_truncate)
{
	begin(100);
	OK(ftruncate(fd, 40) == 0);
	HINTS(kq, fd, NOTE_ATTRIB | NOTE_TRUNCATE);
	OK(truncate(in("f"), 0) == 0);
	HINTS(kq, fd, NOTE_ATTRIB | NOTE_TRUNCATE);
	NONE(kq);
	end();
}

CHECK(opening_with_o_trunc_is_attrib_and_truncate)
{
	begin(100);
	close(open(in("f"), O_WRONLY | O_TRUNC | O_CLOEXEC));
	HINTS(kq, fd, NOTE_ATTRIB | NOTE_TRUNCATE);
	end();
}

CHECK(a_longer_truncation_shows)
{
	struct kevent ev;
	begin(10);
	OK(ftruncate(fd, 40) == 0);
	ev = EVENT(kq, fd, EVFILT_VNODE);
	OK(ev.fflags & NOTE_EXTEND);
	end();
}

CHECK(a_file_rewritten_shorter_wakes_who_asked_for_writes_alone)
{
	int other;
	struct kevent ev;
	kq = new_kqueue();
	fd = file_of("f", 100);
	WATCH(kq, fd, NOTE_WRITE);
	other = open(in("f"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	put(other, 10);
	close(other);
	/* If the library's thread has looked at the empty file, it has seen it grow. */
	ev = EVENT(kq, fd, EVFILT_VNODE);
	EQ(ev.fflags & ~NOTE_EXTEND, NOTE_WRITE);
	NONE(kq);
	OK(ftruncate(fd, 0) == 0);
	NONE(kq);
	end();
}

CHECK(chmod_and_chown_are_attrib_also_to_equal_values)
{
	struct stat st;
	begin(10);
	OK(fchmod(fd, 0640) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	OK(fchmod(fd, 0640) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	OK(fstat(fd, &st) == 0 && fchown(fd, st.st_uid, st.st_gid) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	NONE(kq);
	end();
}

CHECK(setting_times_is_attrib_also_to_equal_values)
{
	begin(10);
	set_times(1000, 2000);
	HINTS(kq, fd, NOTE_ATTRIB);
	set_times(1000, 2000);
	HINTS(kq, fd, NOTE_ATTRIB);
	set_times(-1, 3000);
	HINTS(kq, fd, NOTE_ATTRIB);
	set_times(-1, 3000);
	HINTS(kq, fd, NOTE_ATTRIB);
	set_times(4000, -1);
	HINTS(kq, fd, NOTE_ATTRIB);
	NONE(kq);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	EQ(pwrite(fd, "x", 1, 0), 1);
	HINTS(kq, fd, NOTE_WRITE);
	end();
}

CHECK(an_extended_attribute_is_attrib)
{
	begin(10);
	if (fsetxattr(fd, "user.vnode", "x", 1, 0) != 0 && errno == ENOTSUP)
		SKIP("no extended attributes on this file system");
	HINTS(kq, fd, NOTE_ATTRIB);
	OK(fremovexattr(fd, "user.vnode") == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	end();
}

CHECK(a_link_is_link_and_an_unlink_of_any_name_is_delete)
{
	begin(10);
	OK(link(in("f"), in("g")) == 0);
	HINTS(kq, fd, NOTE_LINK);
	OK(link(in("f"), in("h")) == 0);
	HINTS(kq, fd, NOTE_LINK);
	OK(unlink(in("g")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	OK(unlink(in("f")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	OK(unlink(in("h")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	NONE(kq);
	end();
}

CHECK(attrib_alone_hears_of_no_link_or_unlink)
{
	kq = new_kqueue();
	fd = file_of("f", 10);
	WATCH(kq, fd, NOTE_ATTRIB);
	OK(link(in("f"), in("g")) == 0);
	NONE(kq);
	OK(unlink(in("g")) == 0);
	NONE(kq);
	put(fd, 4);
	OK(link(in("f"), in("g")) == 0);
	QUIET(kq);
	OK(fchmod(fd, 0600) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	end();
}

CHECK(link_alone_hears_of_no_chmod)
{
	kq = new_kqueue();
	fd = file_of("f", 10);
	WATCH(kq, fd, NOTE_LINK | NOTE_DELETE);
	OK(fchmod(fd, 0640) == 0);
	put(fd, 1);
	NONE(kq);
	OK(link(in("f"), in("g")) == 0);
	HINTS(kq, fd, NOTE_LINK);
	end();
}

CHECK(unlink_of_an_open_file_is_delete_at_once)
{
	begin(10);
	OK(unlink(in("f")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	OK(fchmod(fd, 0640) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	end();
}

CHECK(the_opened_name_goes_first_and_another_last)
{
	begin(10);
	OK(link(in("f"), in("g")) == 0);
	HINTS(kq, fd, NOTE_LINK);
	OK(unlink(in("f")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	OK(unlink(in("g")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	EQ(pwrite(fd, "x", 1, 0), 1);
	HINTS(kq, fd, NOTE_WRITE);
	NONE(kq);
	end();
}

CHECK(rename_is_rename_by_any_name)
{
	begin(10);
	OK(link(in("f"), in("g")) == 0);
	HINTS(kq, fd, NOTE_LINK);
	OK(rename(in("f"), in("f2")) == 0);
	HINTS(kq, fd, NOTE_RENAME);
	OK(rename(in("g"), in("g2")) == 0);
	HINTS(kq, fd, NOTE_RENAME);
	OK(mkdir(in("d"), 0700) == 0 && rename(in("f2"), in("d/f")) == 0);
	HINTS(kq, fd, NOTE_RENAME);
	NONE(kq);
	end();
}

CHECK(a_file_renamed_over_is_deleted)
{
	begin(10);
	close(file_of("g", 3));
	OK(rename(in("g"), in("f")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	NONE(kq);
	end();
}

CHECK(rename_read_and_written_times_do_not_mix)
{
	char c;
	begin(10);
	set_times(1000, 1000);
	HINTS(kq, fd, NOTE_ATTRIB);
	OK(rename(in("f"), in("g")) == 0);
	HINTS(kq, fd, NOTE_RENAME);
	EQ(pread(fd, &c, 1, 0), 1);
	QUIET(kq);
	end();
}

/* As those do that copy a file with its times. */
CHECK(a_write_whose_times_were_set_back_is_told)
{
	kq = new_kqueue();
	fd = file_of("f", 10);
	WATCH(kq, fd, NOTE_WRITE);
	EQ(pwrite(fd, "x", 1, 0), 1);
	set_times(1000, 1000);
	HINTS(kq, fd, NOTE_WRITE);
	set_times(1000, 2000);
	QUIET(kq);
	set_times(-1, 3000);
	QUIET(kq);
	end();
}

CHECK(times_set_back_after_a_write_and_a_link_are_attrib)
{
	begin(10);
	EQ(pwrite(fd, "x", 1, 0), 1);
	OK(link(in("f"), in("g")) == 0);
	HINTS(kq, fd, NOTE_WRITE | NOTE_LINK);
	EQ(pwrite(fd, "x", 1, 0), 1);
	OK(unlink(in("g")) == 0);
	set_times(INT32_MAX, 1000);
	HINTS(kq, fd, NOTE_WRITE | NOTE_DELETE | NOTE_ATTRIB);
	end();
}

/* The kernel drops the watch with the last name if it is not the one that was opened. */
CHECK(times_nobody_asked_for_are_no_write_when_the_last_name_goes)
{
	kq = new_kqueue();
	fd = file_of("f", 10);
	WATCH(kq, fd, NOTE_WRITE);
	OK(link(in("f"), in("g")) == 0 && unlink(in("f")) == 0);
	set_times(1000, 1000);
	OK(unlink(in("g")) == 0);
	QUIET(kq);
	EQ(pwrite(fd, "x", 1, 0), 1);
	HINTS(kq, fd, NOTE_WRITE);
	end();
}

CHECK(open_read_and_close_are_told_who_asks)
{
	int other;
	char c;
	kq = new_kqueue();
	fd = file_of("f", 10);
	WATCH(kq, fd, USES);
	other = open(in("f"), O_RDONLY | O_CLOEXEC);
	HINTS(kq, fd, NOTE_OPEN);
	EQ(read(other, &c, 1), 1);
	HINTS(kq, fd, NOTE_READ);
	close(other);
	HINTS(kq, fd, NOTE_CLOSE);
	other = open(in("f"), O_WRONLY | O_CLOEXEC);
	HINTS(kq, fd, NOTE_OPEN);
	close(other);
	HINTS(kq, fd, NOTE_CLOSE_WRITE);
	put(fd, 1);
	EQ(pread(fd, &c, 1, 11), 0);
	NONE(kq);
	end();
}

CHECK(uses_are_not_told_who_does_not_ask)
{
	int other;
	char c;
	begin(10);
	other = open(in("f"), O_RDWR | O_CLOEXEC);
	EQ(read(other, &c, 1), 1);
	close(other);
	QUIET(kq);
	end();
}

CHECK(only_the_hints_asked_for_come)
{
	static const unsigned hint[] = {NOTE_DELETE, NOTE_WRITE, NOTE_EXTEND, NOTE_TRUNCATE, NOTE_ATTRIB, NOTE_LINK, NOTE_RENAME};
	unsigned i;
	for (i = 0; i < sizeof hint / sizeof *hint; i++) {
		kq = new_kqueue();
		fd = file_of("f", 10);
		WATCH(kq, fd, hint[i]);
		EQ(pwrite(fd, "x", 1, 0), 1);
		if (hint[i] == NOTE_WRITE)
			HINTS(kq, fd, NOTE_WRITE);
		NONE(kq);
		put(fd, 1);
		/* One operation's hints come together. */
		if (hint[i] == NOTE_EXTEND || hint[i] == NOTE_WRITE)
			HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
		NONE(kq);
		OK(ftruncate(fd, 0) == 0);
		if (hint[i] == NOTE_TRUNCATE || hint[i] == NOTE_ATTRIB)
			HINTS(kq, fd, hint[i]);
		NONE(kq);
		OK(fchmod(fd, 0640) == 0);
		if (hint[i] == NOTE_ATTRIB)
			HINTS(kq, fd, hint[i]);
		NONE(kq);
		OK(link(in("f"), in("g")) == 0);
		if (hint[i] == NOTE_LINK)
			HINTS(kq, fd, hint[i]);
		NONE(kq);
		OK(rename(in("f"), in("h")) == 0);
		if (hint[i] == NOTE_RENAME)
			HINTS(kq, fd, hint[i]);
		NONE(kq);
		OK(unlink(in("h")) == 0);
		if (hint[i] == NOTE_DELETE)
			HINTS(kq, fd, hint[i]);
		NONE(kq);
		OK(unlink(in("g")) == 0);
		close(kq);
		close(fd);
	}
	clean();
}

CHECK(revoke_and_no_hint_at_all_are_accepted_and_silent)
{
	kq = new_kqueue();
	fd = file_of("f", 10);
	WATCH(kq, fd, NOTE_REVOKE);
	put(fd, 1);
	NONE(kq);
	WATCH(kq, fd, 0);
	put(fd, 1);
	OK(unlink(in("f")) == 0);
	QUIET(kq);
	end();
}

CHECK(unread_changes_become_one_event)
{
	begin(10);
	put(fd, 5);
	OK(fchmod(fd, 0640) == 0);
	OK(link(in("f"), in("g")) == 0);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB | NOTE_LINK);
	NONE(kq);
	OK(fchmod(fd, 0600) == 0);
	OK(unlink(in("g")) == 0);
	HINTS(kq, fd, NOTE_ATTRIB | NOTE_DELETE);
	EQ(pwrite(fd, "x", 1, 0), 1);
	OK(rename(in("f"), in("h")) == 0);
	OK(ftruncate(fd, 3) == 0);
	HINTS(kq, fd, NOTE_RENAME | NOTE_ATTRIB | NOTE_TRUNCATE);
	EQ(pwrite(fd, "x", 1, 0), 1);
	OK(fchmod(fd, 0600) == 0);
	HINTS(kq, fd, NOTE_WRITE | NOTE_ATTRIB);
	NONE(kq);
	end();
}

CHECK(a_file_unlinked_before_the_add_is_watched)
{
	kq = new_kqueue();
	fd = file_of("f", 10);
	OK(unlink(in("f")) == 0);
	close(file_of("f", 3));
	WATCH(kq, fd, EVERY);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	ELSEWHERE(({ int w = open(in("f"), O_WRONLY | O_APPEND); write(w, "x", 1) == 1; }));
	QUIET(kq);
	end();
}

CHECK(odd_names_are_watched)
{
	static const char *const name[] = {"f (deleted)", "line\nbreak", " blank ", "ta\tb", "-"};
	unsigned i;
	for (i = 0; i < sizeof name / sizeof *name; i++) {
		kq = new_kqueue();
		fd = file_of(name[i], 10);
		WATCH(kq, fd, EVERY);
		put(fd, 1);
		HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
		OK(unlink(in(name[i])) == 0);
		HINTS(kq, fd, NOTE_DELETE);
		close(fd);
		close(kq);
	}
	clean();
}

CHECK(a_file_without_a_name_is_watched)
{
	kq = new_kqueue();
	fd = open(in(""), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		SKIP("no O_TMPFILE: %s", strerror(errno));
	WATCH(kq, fd, EVERY);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE | NOTE_EXTEND);
	OK(fchmod(fd, 0600) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	end();
}

CHECK(a_fifo_is_watched)
{
	kq = new_kqueue();
	OK(mkfifo(in("p"), 0600) == 0);
	fd = open(in("p"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
	OK(fd >= 0);
	WATCH(kq, fd, EVERY);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE);
	OK(chmod(in("p"), 0640) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	OK(unlink(in("p")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	end();
}

CHECK(a_device_is_watched)
{
	kq = new_kqueue();
	if (mknod(in("null"), S_IFCHR | 0600, 0x0103) != 0)
		SKIP("mknod: %s", strerror(errno));
	fd = open(in("null"), O_RDWR | O_CLOEXEC);
	if (fd < 0)
		SKIP("the device is of no use: %s", strerror(errno));
	WATCH(kq, fd, EVERY);
	put(fd, 1);
	HINTS(kq, fd, NOTE_WRITE);
	OK(chmod(in("null"), 0640) == 0);
	HINTS(kq, fd, NOTE_ATTRIB);
	set_times(-1, 5000);
	HINTS(kq, fd, NOTE_ATTRIB);
	OK(rename(in("null"), in("n2")) == 0);
	HINTS(kq, fd, NOTE_RENAME);
	OK(unlink(in("n2")) == 0);
	HINTS(kq, fd, NOTE_DELETE);
	end();
}

CHECK(what_is_no_file_is_refused)
{
	int p[2], s[2], other = new_kqueue(), i;
	int bad[6];
	kq = new_kqueue();
	OK(pipe2(p, O_CLOEXEC) == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	bad[0] = p[0];
	bad[1] = p[1];
	bad[2] = s[0];
	bad[3] = other;
	bad[4] = epoll_create1(EPOLL_CLOEXEC);
	bad[5] = eventfd(0, EFD_CLOEXEC);
	for (i = 0; i < 6; i++)
		FAILS(change(kq, (uintptr_t)bad[i], EVFILT_VNODE, EV_ADD, EVERY, 0, NULL), EINVAL);
	for (i = 0; i < 6; i++)
		close(bad[i]);
	close(s[1]);
	FAILS(change(kq, (uintptr_t)p[0], EVFILT_VNODE, EV_ADD, EVERY, 0, NULL), EBADF);
	FAILS(change(kq, (uintptr_t)-1, EVFILT_VNODE, EV_ADD, EVERY, 0, NULL), EBADF);
	close(kq);
}

CHECKS(
	C(nothing_happened_gives_nothing)
	C(a_write_of_the_same_length_is_write)
	C(a_write_beyond_the_end_is_write_and_extend)
	C(a_write_of_nothing_and_one_that_fails_are_nothing)
	C(a_write_by_another_process_is_seen)
	C(truncation_is_attrib_and_truncate)
	C(opening_with_o_trunc_is_attrib_and_truncate)
	C(a_longer_truncation_shows)
	C(a_file_rewritten_shorter_wakes_who_asked_for_writes_alone)
	C(chmod_and_chown_are_attrib_also_to_equal_values)
	C(setting_times_is_attrib_also_to_equal_values)
	C(an_extended_attribute_is_attrib)
	C(a_link_is_link_and_an_unlink_of_any_name_is_delete)
	C(attrib_alone_hears_of_no_link_or_unlink)
	C(link_alone_hears_of_no_chmod)
	C(unlink_of_an_open_file_is_delete_at_once)
	C(the_opened_name_goes_first_and_another_last)
	C(rename_is_rename_by_any_name)
	C(a_file_renamed_over_is_deleted)
	C(rename_read_and_written_times_do_not_mix)
	C(a_write_whose_times_were_set_back_is_told)
	C(times_set_back_after_a_write_and_a_link_are_attrib)
	C(times_nobody_asked_for_are_no_write_when_the_last_name_goes)
	C(open_read_and_close_are_told_who_asks)
	C(uses_are_not_told_who_does_not_ask)
	C(only_the_hints_asked_for_come)
	C(revoke_and_no_hint_at_all_are_accepted_and_silent)
	C(unread_changes_become_one_event)
	C(a_file_unlinked_before_the_add_is_watched)
	C(odd_names_are_watched)
	C(a_file_without_a_name_is_watched)
	C(a_fifo_is_watched)
	C(a_device_is_watched)
	C(what_is_no_file_is_refused)
);
