/* EVFILT_FS, each check in a mount namespace of its own. */
#include "vnode.h"
#include <sched.h>
#include <sys/mount.h>

static int kq;

static void begin(unsigned short flags, unsigned fflags)
{
	if (unshare(CLONE_NEWNS) != 0)
		SKIP("unshare: %s", strerror(errno));
	if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0)
		SKIP("mount: %s", strerror(errno));
	OK(mkdir(in("m"), 0700) == 0);
	kq = new_kqueue();
	OK(change(kq, 0, EVFILT_FS, EV_ADD | flags, fflags, 0, &kq) == 0);
	NONE(kq);
}

static void end(void)
{
	close(kq);
	clean();
}

static void mount_it(void)
{
	if (mount("vnode", in("m"), "tmpfs", 0, "size=4k") != 0)
		SKIP("mount: %s", strerror(errno));
}

static void happens(unsigned fflags)
{
	struct kevent ev = EVENT(kq, 0, EVFILT_FS);
	EQ(ev.fflags, fflags);
	EQ(ev.data, 0);
	EQ(ev.flags & EV_CLEAR, EV_CLEAR);
	OK(ev.udata == &kq);
}

CHECK(mount_and_unmount_are_told_and_clear_is_implied)
{
	begin(0, VQ_MOUNT | VQ_UNMOUNT);
	QUIET(kq);
	mount_it();
	happens(VQ_MOUNT);
	QUIET(kq);
	OK(umount(in("m")) == 0);
	happens(VQ_UNMOUNT);
	QUIET(kq);
	end();
}

CHECK(both_unread_are_one_event)
{
	begin(0, VQ_MOUNT | VQ_UNMOUNT);
	mount_it();
	OK(umount(in("m")) == 0);
	happens(VQ_MOUNT | VQ_UNMOUNT);
	NONE(kq);
	end();
}

CHECK(only_what_was_asked_for_is_told)
{
	begin(0, VQ_UNMOUNT | VQ_NOTRESP | VQ_LOWDISK);
	mount_it();
	QUIET(kq);
	OK(umount(in("m")) == 0);
	happens(VQ_UNMOUNT);
	end();
}

CHECK(a_remount_is_neither)
{
	begin(0, VQ_MOUNT | VQ_UNMOUNT);
	mount_it();
	happens(VQ_MOUNT);
	OK(mount("none", in("m"), "none", MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
	QUIET(kq);
	OK(umount(in("m")) == 0);
	happens(VQ_UNMOUNT);
	end();
}

CHECK(disabled_it_gathers_and_oneshot_goes)
{
	begin(EV_DISABLE, VQ_MOUNT);
	mount_it();
	NONE(kq);
	OK(change(kq, 0, EVFILT_FS, EV_ENABLE, 0, 0, &kq) == 0);
	happens(VQ_MOUNT);
	OK(change(kq, 0, EVFILT_FS, EV_DELETE, 0, 0, NULL) == 0);
	OK(umount(in("m")) == 0);
	NONE(kq);
	OK(change(kq, 0, EVFILT_FS, EV_ADD | EV_ONESHOT, VQ_MOUNT, 0, &kq) == 0);
	NONE(kq);
	mount_it();
	happens(VQ_MOUNT);
	FAILS(change(kq, 0, EVFILT_FS, EV_DELETE, 0, 0, NULL), ENOENT);
	OK(umount(in("m")) == 0);
	end();
}

CHECK(poll_and_an_outer_queue_see_it)
{
	int outer;
	begin(0, VQ_MOUNT | VQ_UNMOUNT);
	EQ(polled(kq, POLLIN), 0);
	mount_it();
	SETTLE(kq, POLLIN);
	happens(VQ_MOUNT);
	NONE(kq);
	EQ(polled(kq, POLLIN), 0);
	outer = new_kqueue();
	ADD(outer, kq, EVFILT_READ, 0);
	NONE(outer);
	OK(umount(in("m")) == 0);
	EQ(EVENT(outer, kq, EVFILT_READ).data, 1);
	happens(VQ_UNMOUNT);
	close(outer);
	end();
}

CHECK(a_sleeping_call_is_woken)
{
	begin(0, VQ_MOUNT);
	WAKES(kq, mount("vnode", in("m"), "tmpfs", 0, "size=4k") == 0, VQ_MOUNT);
	OK(umount(in("m")) == 0);
	end();
}

CHECK(two_queues_each_hear_of_it)
{
	int first;
	begin(0, VQ_MOUNT);
	first = kq;
	kq = new_kqueue();
	OK(change(kq, 7, EVFILT_FS, EV_ADD, VQ_MOUNT, 0, NULL) == 0);
	mount_it();
	EQ(EVENT(kq, 7, EVFILT_FS).fflags, VQ_MOUNT);
	EQ(EVENT(first, 0, EVFILT_FS).fflags, VQ_MOUNT);
	OK(umount(in("m")) == 0);
	close(first);
	end();
}

CHECKS(
	C(mount_and_unmount_are_told_and_clear_is_implied)
	C(both_unread_are_one_event)
	C(only_what_was_asked_for_is_told)
	C(a_remount_is_neither)
	C(disabled_it_gathers_and_oneshot_goes)
	C(poll_and_an_outer_queue_see_it)
	C(a_sleeping_call_is_woken)
	C(two_queues_each_hear_of_it)
);
