/* EVFILT_VNODE on directories: their entries, their own life, and nothing of their files. */
#include "vnode.h"

static int kq, dir;

static void begin(void)
{
	kq = new_kqueue();
	dir = dir_of("d");
	WATCH(kq, dir, EVERY);
	NONE(kq);
}

static void end(void)
{
	close(dir);
	close(kq);
	clean();
}

CHECK(making_and_removing_files_is_write)
{
	begin();
	close(file_of("d/f", 0));
	HINTS(kq, dir, NOTE_WRITE);
	OK(symlink("x", in("d/s")) == 0);
	HINTS(kq, dir, NOTE_WRITE);
	OK(mkfifo(in("d/p"), 0600) == 0);
	HINTS(kq, dir, NOTE_WRITE);
	OK(link(in("d/f"), in("d/g")) == 0);
	HINTS(kq, dir, NOTE_WRITE);
	OK(unlink(in("d/g")) == 0);
	HINTS(kq, dir, NOTE_WRITE);
	NONE(kq);
	end();
}

CHECK(making_and_removing_subdirectories_is_write_and_link)
{
	begin();
	OK(mkdir(in("d/s"), 0700) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	OK(rmdir(in("d/s")) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	OK(mkdir(in("d/s"), 0700) == 0 && rmdir(in("d/s")) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	NONE(kq);
	end();
}

CHECK(link_alone_hears_of_subdirectories_and_not_of_files)
{
	kq = new_kqueue();
	dir = dir_of("d");
	WATCH(kq, dir, NOTE_LINK);
	close(file_of("d/f", 0));
	OK(link(in("d/f"), in("d/g")) == 0);
	NONE(kq);
	OK(mkdir(in("d/s"), 0700) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	end();
}

CHECK(who_asks_for_one_hint_of_an_operation_is_told_all_of_it)
{
	static const unsigned hint[] = {NOTE_WRITE, NOTE_EXTEND, NOTE_LINK};
	unsigned i;
	for (i = 0; i < sizeof hint / sizeof *hint; i++) {
		kq = new_kqueue();
		dir = dir_of("d");
		OK(i > 0 || mkdir(in("e"), 0700) == 0);
		WATCH(kq, dir, hint[i]);
		close(file_of("d/f", 0));
		if (hint[i] == NOTE_WRITE)
			HINTS(kq, dir, NOTE_WRITE);
		NONE(kq);
		OK(rename(in("d/f"), in("e/f")) == 0);
		if (hint[i] != NOTE_LINK)
			HINTS(kq, dir, NOTE_WRITE | NOTE_EXTEND);
		NONE(kq);
		OK(mkdir(in("d/s"), 0700) == 0);
		if (hint[i] != NOTE_EXTEND)
			HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
		NONE(kq);
		OK(rename(in("d/s"), in("e/s")) == 0);
		HINTS(kq, dir, NOTE_WRITE | NOTE_EXTEND | NOTE_LINK);
		NONE(kq);
		close(dir);
		close(kq);
		OK(rmdir(in("d")) == 0 && unlink(in("e/f")) == 0 && rmdir(in("e/s")) == 0);
	}
	clean();
}

CHECK(a_rename_within_is_write)
{
	begin();
	close(file_of("d/f", 0));
	OK(mkdir(in("d/s"), 0700) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	OK(rename(in("d/f"), in("d/g")) == 0);
	HINTS(kq, dir, NOTE_WRITE);
	OK(rename(in("d/s"), in("d/t")) == 0);
	HINTS(kq, dir, NOTE_WRITE);
	close(file_of("d/f", 0));
	HINTS(kq, dir, NOTE_WRITE);
	OK(rename(in("d/f"), in("d/g")) == 0);
	HINTS(kq, dir, NOTE_WRITE);
	NONE(kq);
	end();
}

/* Whether a directory's link count shows its subdirectories; on some file systems it is 1. */
static int counts_links(void)
{
	struct stat st;
	OK(fstat(dir, &st) == 0);
	return st.st_nlink > 1;
}

CHECK(a_rename_within_over_a_directory_is_write_and_link)
{
	begin();
	if (!counts_links())
		SKIP("directories have no link count here");
	OK(mkdir(in("d/s"), 0700) == 0 && mkdir(in("d/t"), 0700) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	OK(rename(in("d/s"), in("d/t")) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	end();
}

CHECK(a_file_moved_between_directories_is_write_and_extend_on_both)
{
	int other;
	begin();
	other = dir_of("e");
	close(file_of("d/f", 0));
	HINTS(kq, dir, NOTE_WRITE);
	WATCH(kq, other, EVERY);
	OK(change(kq, (uintptr_t)dir, EVFILT_VNODE, EV_DISABLE, 0, 0, NULL) == 0);
	OK(rename(in("d/f"), in("e/f")) == 0);
	HINTS(kq, other, NOTE_WRITE | NOTE_EXTEND);
	OK(change(kq, (uintptr_t)dir, EVFILT_VNODE, EV_ENABLE, 0, 0, NULL) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_EXTEND);
	NONE(kq);
	close(other);
	end();
}

CHECK(a_directory_moved_between_directories_is_link_as_well)
{
	begin();
	OK(mkdir(in("e"), 0700) == 0 && mkdir(in("d/s"), 0700) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	OK(rename(in("d/s"), in("e/s")) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_EXTEND | NOTE_LINK);
	OK(rename(in("e/s"), in("d/s")) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_EXTEND | NOTE_LINK);
	NONE(kq);
	end();
}

CHECK(a_directory_moved_in_over_another_is_no_link)
{
	begin();
	if (!counts_links())
		SKIP("directories have no link count here");
	OK(mkdir(in("e"), 0700) == 0 && mkdir(in("e/s"), 0700) == 0 && mkdir(in("d/s"), 0700) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	OK(rename(in("e/s"), in("d/s")) == 0);
	HINTS(kq, dir, NOTE_WRITE | NOTE_EXTEND);
	end();
}

CHECK(nothing_inside_a_file_concerns_its_directory)
{
	struct timespec ts[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
	char c;
	int fd;
	kq = new_kqueue();
	dir = dir_of("d");
	OK(mkdir(in("d/s"), 0700) == 0);
	close(file_of("d/f", 10));
	WATCH(kq, dir, EVERY | USES);
	fd = open(in("d/f"), O_RDWR | O_CLOEXEC);
	put(fd, 20);
	EQ(pread(fd, &c, 1, 0), 1);
	OK(fchmod(fd, 0640) == 0 && ftruncate(fd, 3) == 0 && futimens(fd, ts) == 0);
	close(fd);
	close(file_of("d/s/f", 1));
	OK(rename(in("d/s/f"), in("d/s/g")) == 0 && unlink(in("d/s/g")) == 0);
	QUIET(kq);
	end();
}

CHECK(chmod_of_the_directory_is_attrib)
{
	begin();
	OK(fchmod(dir, 0750) == 0);
	HINTS(kq, dir, NOTE_ATTRIB);
	NONE(kq);
	end();
}

CHECK(rename_of_the_directory_is_rename)
{
	begin();
	OK(rename(in("d"), in("e")) == 0);
	HINTS(kq, dir, NOTE_RENAME);
	NONE(kq);
	end();
}

CHECK(rmdir_of_the_directory_is_delete)
{
	begin();
	OK(rmdir(in("d")) == 0);
	HINTS(kq, dir, NOTE_DELETE);
	NONE(kq);
	end();
}

CHECK(chmod_before_rmdir_is_told_with_it)
{
	begin();
	OK(chmod(in("d"), 0750) == 0 && rmdir(in("d")) == 0);
	HINTS(kq, dir, NOTE_ATTRIB | NOTE_DELETE);
	NONE(kq);
	end();
}

CHECK(rmdir_is_delete_for_who_asks_for_it_alone)
{
	kq = new_kqueue();
	dir = dir_of("d");
	WATCH(kq, dir, NOTE_DELETE);
	close(file_of("d/f", 0));
	OK(unlink(in("d/f")) == 0 && mkdir(in("e"), 0700) == 0 && rmdir(in("e")) == 0);
	NONE(kq);
	OK(rmdir(in("d")) == 0);
	HINTS(kq, dir, NOTE_DELETE);
	end();
}

CHECK(rmdir_wakes_a_sleeping_call)
{
	begin();
	WAKES(kq, rmdir(in("d")) == 0, NOTE_DELETE);
	end();
}

CHECK(rmdir_after_the_directory_was_moved_is_delete)
{
	begin();
	OK(mkdir(in("e"), 0700) == 0 && rename(in("d"), in("e/d")) == 0);
	HINTS(kq, dir, NOTE_RENAME);
	OK(rmdir(in("e/d")) == 0);
	HINTS(kq, dir, NOTE_DELETE);
	end();
}

enum { ROUNDS = 500 };
static _Atomic int begun;

/* Moves the directory and removes it, a little later each time. */
static void *move_and_remove(void *arg)
{
	char from[SCRATCH + 100], to[SCRATCH + 100];
	volatile unsigned i;
	int round;
	strcpy(from, in("d"));
	strcpy(to, in("e/d"));
	for (round = 1; round <= ROUNDS; round++) {
		while (begun < round)
			;
		if (rename(from, to) != 0)
			break;
		for (i = 0; i < (unsigned)round * 7919 % 6000; i++)
			;
		if (rmdir(to) != 0)
			break;
	}
	return arg;
}

CHECK(rmdir_beside_the_look_at_a_move_is_delete)
{
	int elsewhere = dir_of("e"), round;
	pthread_t t;
	kq = new_kqueue();
	OK(pthread_create(&t, NULL, move_and_remove, NULL) == 0);
	for (round = 1; round <= ROUNDS; round++) {
		dir = dir_of("d");
		WATCH(kq, dir, NOTE_DELETE);
		begun = round;
		HINTS(kq, dir, NOTE_DELETE);
		close(dir);
	}
	pthread_join(t, NULL);
	close(elsewhere);
	close(kq);
	clean();
}

CHECK(rmdir_after_a_parent_was_moved_is_delete)
{
	kq = new_kqueue();
	OK(mkdir(in("p"), 0700) == 0);
	dir = dir_of("p/d");
	WATCH(kq, dir, EVERY);
	OK(rename(in("p"), in("q")) == 0);
	NONE(kq);
	OK(rmdir(in("q/d")) == 0);
	HINTS(kq, dir, NOTE_DELETE);
	end();
}

CHECK(rmdir_of_many_directories_in_a_watched_one)
{
	enum { N = 50 };
	struct kevent ev[N + 2];
	char name[20];
	int fd[N], i, n;
	begin();
	for (i = 0; i < N; i++) {
		snprintf(name, sizeof name, "d/%d", i);
		fd[i] = dir_of(name);
		WATCH(kq, fd[i], NOTE_DELETE);
	}
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	for (i = 0; i < N; i++) {
		snprintf(name, sizeof name, "d/%d", i);
		OK(rmdir(in(name)) == 0);
	}
	n = collect(kq, ev, N + 2, 1000);
	EQ(n, N + 1);
	for (i = 0; i < n; i++)
		EQ(ev[i].fflags, ev[i].ident == (uintptr_t)dir ? NOTE_WRITE | NOTE_LINK : NOTE_DELETE);
	NONE(kq);
	for (i = 0; i < N; i++)
		close(fd[i]);
	end();
}

CHECK(a_directory_replaced_by_rename_is_delete)
{
	begin();
	OK(mkdir(in("e"), 0700) == 0 && rename(in("e"), in("d")) == 0);
	HINTS(kq, dir, NOTE_DELETE);
	NONE(kq);
	end();
}

CHECK(a_directory_removed_before_the_add_is_silent)
{
	kq = new_kqueue();
	dir = dir_of("d");
	OK(rmdir(in("d")) == 0);
	WATCH(kq, dir, EVERY);
	OK(mkdir(in("d"), 0700) == 0 && rmdir(in("d")) == 0);
	QUIET(kq);
	end();
}

CHECK(listing_and_opening_the_directory_is_told_who_asks)
{
	DIR *d;
	kq = new_kqueue();
	dir = dir_of("d");
	WATCH(kq, dir, USES);
	d = opendir(in("d"));
	HINTS(kq, dir, NOTE_OPEN);
	while (readdir(d))
		;
	HINTS(kq, dir, NOTE_READ);
	closedir(d);
	HINTS(kq, dir, NOTE_CLOSE);
	NONE(kq);
	end();
}

CHECK(parent_and_child_are_watched_by_one_kqueue_and_two)
{
	int sub, other = new_kqueue();
	begin();
	sub = dir_of("d/s");
	HINTS(kq, dir, NOTE_WRITE | NOTE_LINK);
	WATCH(kq, sub, NOTE_DELETE);
	WATCH(other, sub, NOTE_DELETE);
	close(file_of("d/f", 0));
	HINTS(kq, dir, NOTE_WRITE);
	OK(change(kq, (uintptr_t)dir, EVFILT_VNODE, EV_DELETE, 0, 0, NULL) == 0);
	close(file_of("d/g", 0));
	NONE(kq);
	OK(rmdir(in("d/s")) == 0);
	HINTS(kq, sub, NOTE_DELETE);
	HINTS(other, sub, NOTE_DELETE);
	close(sub);
	close(other);
	end();
}

CHECKS(
	C(making_and_removing_files_is_write)
	C(making_and_removing_subdirectories_is_write_and_link)
	C(link_alone_hears_of_subdirectories_and_not_of_files)
	C(who_asks_for_one_hint_of_an_operation_is_told_all_of_it)
	C(a_rename_within_is_write)
	C(a_rename_within_over_a_directory_is_write_and_link)
	C(a_file_moved_between_directories_is_write_and_extend_on_both)
	C(a_directory_moved_between_directories_is_link_as_well)
	C(a_directory_moved_in_over_another_is_no_link)
	C(nothing_inside_a_file_concerns_its_directory)
	C(chmod_of_the_directory_is_attrib)
	C(rename_of_the_directory_is_rename)
	C(rmdir_of_the_directory_is_delete)
	C(chmod_before_rmdir_is_told_with_it)
	C(rmdir_is_delete_for_who_asks_for_it_alone)
	C(rmdir_wakes_a_sleeping_call)
	C(rmdir_after_the_directory_was_moved_is_delete)
	C(rmdir_beside_the_look_at_a_move_is_delete)
	C(rmdir_after_a_parent_was_moved_is_delete)
	C(rmdir_of_many_directories_in_a_watched_one)
	C(a_directory_replaced_by_rename_is_delete)
	C(a_directory_removed_before_the_add_is_silent)
	C(listing_and_opening_the_directory_is_told_who_asks)
	C(parent_and_child_are_watched_by_one_kqueue_and_two)
);
