/*
 * kqueue() and kevent() for Linux.
 *
 * Generated: change src/abi.rs, src/ffi.rs or cbindgen.toml, then run
 *     KQUEUE_REWRITE_HEADER=1 cargo test --test abi header
 *
 * The numbers are libkqueue's; names only the BSDs have got numbers beside them.
 */
#ifndef _SYS_EVENT_H_
#define _SYS_EVENT_H_

/* Ports tell a library from a system's own kqueue by this name. */
#define LIBKQUEUE 1

/*
 * A libc header fixes the feature macros (_GNU_SOURCE and its kin) for the rest of the
 * file, so none is included before the program's own first one.
 */
#if defined(_FEATURES_H) || !defined(__UINTPTR_TYPE__) || !defined(__INTPTR_TYPE__)
#include <sys/types.h>
#include <stdint.h>
#endif
#ifndef __UINTPTR_TYPE__
#define __UINTPTR_TYPE__ uintptr_t
#endif
#ifndef __INTPTR_TYPE__
#define __INTPTR_TYPE__ intptr_t
#endif

/* Filters: what is watched. */
#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_AIO (-3) /* named for ports that do not ask; adding one is EINVAL */
#define EVFILT_VNODE (-4)
#define EVFILT_PROC (-5)
#define EVFILT_SIGNAL (-6)
#define EVFILT_TIMER (-7)
#define EVFILT_PROCDESC (-8)
#define EVFILT_FS (-9)
#define EVFILT_LIO (-10)
#define EVFILT_USER (-11)
#define EVFILT_LIBKQUEUE (-12) /* the library's version and settings */
#define EVFILT_EMPTY (-13)
#define EVFILT_EXCEPT (-15)
#define EVFILT_SYSCOUNT 15

/* Actions of a change. */
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008

/* Flags of a change. */
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_DISPATCH 0x0080
#define EV_FORCEONESHOT 0x0100
#define EV_KEEPUDATA 0x0200
#define EV_SYSFLAGS 0xF000
#define EV_FLAG1 0x2000

/* Flags of an event. */
#define EV_ERROR 0x4000 /* data is an errno */
#define EV_EOF 0x8000

/* EVFILT_READ, EVFILT_WRITE: data is the least amount to report. */
#define NOTE_LOWAT 0x0001

/* EVFILT_EXCEPT: out-of-band data. */
#define NOTE_OOB 0x0002

/* EVFILT_USER: how fflags change, and the trigger. */
#define NOTE_FFNOP 0x00000000U
#define NOTE_FFAND 0x40000000U
#define NOTE_FFOR 0x80000000U
#define NOTE_FFCOPY 0xc0000000U
#define NOTE_FFCTRLMASK 0xc0000000U
#define NOTE_FFLAGSMASK 0x00ffffffU
#define NOTE_TRIGGER 0x01000000U

/* EVFILT_VNODE */
#define NOTE_DELETE 0x0001
#define NOTE_WRITE 0x0002
#define NOTE_EXTEND 0x0004
#define NOTE_ATTRIB 0x0008
#define NOTE_LINK 0x0010
#define NOTE_RENAME 0x0020
#define NOTE_REVOKE 0x0040 /* accepted, never reported */
#define NOTE_TRUNCATE 0x0080
#define NOTE_CLOSE 0x0100
#define NOTE_CLOSE_WRITE 0x0200
#define NOTE_READ 0x0400
#define NOTE_OPEN 0x0800

/* EVFILT_PROC */
#define NOTE_EXIT 0x80000000U
#define NOTE_FORK 0x40000000U
#define NOTE_EXEC 0x20000000U
#define NOTE_PCTRLMASK 0xf0000000U
#define NOTE_PDATAMASK 0x000fffffU
#define NOTE_TRACK 0x00000001U
#define NOTE_TRACKERR 0x00000002U
#define NOTE_CHILD 0x00000004U

/* Network interfaces; no filter on Linux reports them. */
#define NOTE_LINKUP 0x0001
#define NOTE_LINKDOWN 0x0002
#define NOTE_LINKINV 0x0004

/* EVFILT_TIMER: the unit of data (milliseconds without one). */
#define NOTE_SECONDS 0x0001
#define NOTE_USECONDS 0x0002
#define NOTE_NSECONDS 0x0004
#define NOTE_MSECONDS 0x0010
#define NOTE_ABSOLUTE 0x0008 /* data is a time of the calendar clock */
#define NOTE_ABSTIME 0x0008

/* EVFILT_FS */
#define VQ_NOTRESP 0x0001
#define VQ_NEEDAUTH 0x0002
#define VQ_LOWDISK 0x0004
#define VQ_MOUNT 0x0008
#define VQ_UNMOUNT 0x0010
#define VQ_DEAD 0x0020
#define VQ_ASSIST 0x0040
#define VQ_NOTRESPLOCK 0x0080

/* EVFILT_LIBKQUEUE */
#define NOTE_VERSION 0x0001
#define NOTE_VERSION_STR 0x0002
#define NOTE_THREAD_SAFE 0x0003
#define NOTE_FORK_CLEANUP 0x0004
#define NOTE_DEBUG 0x0005
#define NOTE_DEBUG_PREFIX 0x0006
#define NOTE_DEBUG_FUNC 0x0007
#define NOTE_FILE_POLL_INTERVAL 0x0008

/* kqueuex() */
#define KQUEUE_CLOEXEC 0x0001U

/* Fills a struct kevent; each argument is evaluated once. */
#define EV_SET(kevp, a, b, c, d, e, f) do { \
	struct kevent *libkqueue_ev_set_kevp_ = (kevp); \
	libkqueue_ev_set_kevp_->ident = (a); \
	libkqueue_ev_set_kevp_->filter = (b); \
	libkqueue_ev_set_kevp_->flags = (c); \
	libkqueue_ev_set_kevp_->fflags = (d); \
	libkqueue_ev_set_kevp_->data = (e); \
	libkqueue_ev_set_kevp_->udata = (f); \
} while (0)

#ifdef __cplusplus
extern "C" {
#endif

struct timespec;

struct kevent {
  __UINTPTR_TYPE__ ident;
  short filter;
  unsigned short flags;
  unsigned int fflags;
  __INTPTR_TYPE__ data;
  void *udata;
};

int kqueue(void);

int kqueue1(int flags);

int kqueuex(unsigned int flags);

int kevent(int kq,
           const struct kevent *changelist,
           int nchanges,
           struct kevent *eventlist,
           int nevents,
           const struct timespec *timeout);

void libkqueue_drain_pending_close(void);

#ifdef __cplusplus
}
#endif

#endif /* _SYS_EVENT_H_ */
