//! Watched signals that are blocked: seen while they are pending, and left so.
//!
//! A blocked signal does not come to the hook. A signalfd in the kqueue's epoll tells that one
//! became pending, and no more than that: reading it would take the signal. A signal that is
//! pending for the process may also be on its way to a thread that does not block it, and must
//! be left alone until it is known that all do, from /proc.
//!
//! Only then it is taken, counted, and *given back* to this very thread with a mark, so that
//! nobody counts it again. sigpending(), sigwait() and the handler on unblocking go on as if
//! it had never been away, and the process's own pending bit is free again, so that the next
//! one sent is told of too: the kernel merges a standard signal with one that is pending.
//!
//! Giving back makes the signalfd tell once more: an echo. Within one call of the program's
//! the thread cannot have used up what it was given back, so there such a signal is known
//! and left alone; otherwise it is taken again to look at the mark.

#![allow(unsafe_code)]

use super::{count, fd, hook, process, raw, signal, thread};
use crate::errno::{Errno, Result};
use core::cell::Cell;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use libc::{c_int, c_long, pid_t, siginfo_t};
use std::ffi::CString;

/// Counted already.
const MARK: c_int = 0x6b71;

/// Where the mark is, in words of a siginfo: in the gap before what depends on the sort of
/// signal, which the kernel keeps and no program sees. Without a gap, in `si_errno`, which
/// Linux leaves 0.
const MARKED: usize = if cfg!(target_pointer_width = "64") { 3 } else { 1 };

/// The first signal of which several can be pending at once.
const REALTIME: c_int = 32;

thread_local! {
    /// Signals given back to this thread and not known to be used up.
    static HELD: Cell<u64> = const { Cell::new(0) };
    /// They were looked at in this call.
    static LOOKED: Cell<bool> = const { Cell::new(false) };
}

fn place_of_mark(info: *mut siginfo_t) -> *mut c_int {
    info.cast::<c_int>().wrapping_add(MARKED)
}

/// Whether a signal was counted before it came here. The mark is taken off.
///
/// # Safety
/// `info` must be valid for reads and writes.
pub(super) unsafe fn unmark(info: *mut siginfo_t) -> bool {
    // SAFETY: the caller's promise; a siginfo begins with more words than these.
    let place = unsafe { &mut *place_of_mark(info) };
    let marked = *place == MARK;
    if marked {
        *place = 0;
    }
    marked
}

fn mark(info: &mut siginfo_t) {
    // SAFETY: as in `unmark`.
    unsafe { place_of_mark(info).write(MARK) };
}

/// The text of a /proc/*/status.
pub(super) struct Status(String);

impl Status {
    fn read(path: &CStr) -> Option<Status> {
        // No child shall inherit the descriptor.
        let _creating = fd::creating();
        raw::read_text(path).ok().map(Status)
    }

    /// The calling thread's.
    pub(super) fn of_thread() -> Option<Status> {
        Status::read(c"/proc/thread-self/status")
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
    }

    /// A set of signals, signal 1 as the lowest bit.
    pub(super) fn mask(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }
}

/// Signals of `mask` that are pending for this thread or the process, and blocked here.
fn pending(mask: u64) -> u64 {
    let mut set = 0u64;
    let size: c_long = 8;
    // SAFETY: the set has the size that is told.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, size) };
    set & mask & !signal::LIBCS_OWN
}

/// A call of the program's begins: looks without having been told. A signalfd's edge can be
/// lost, for what is pending for one thread alone does not show to another that polls.
pub(crate) fn begin(mask: u64) -> bool {
    LOOKED.set(false);
    look(mask)
}

/// Counts the signals of `mask` that are pending because every thread blocks them. True:
/// some were taken and given back, so that signalfds will tell of them again.
pub(crate) fn look(mask: u64) -> bool {
    let pending = pending(mask);
    if pending == 0 {
        return false;
    }
    // Without /proc nobody knows whose they are. The next call looks again.
    let Some(status) = Status::of_thread() else { return false };
    let shared = pending & status.mask("ShdPnd:").unwrap_or(0);
    let mut own = pending & status.mask("SigPnd:").unwrap_or(0);
    if LOOKED.get() {
        own &= !HELD.get();
    }
    if thread::is_librarys() {
        // What is for the monitor alone is not the program's.
        own = 0;
    }
    let alone = !thread::is_librarys() && status.field("Threads:") == Some("2");
    let shared = if alone { shared } else { blocked_everywhere(shared) };
    if own | shared == 0 {
        return false;
    }
    give_back(&take(own | shared));
    HELD.set(HELD.get() | own | shared);
    LOOKED.set(true);
    true
}

/// Those of `mask` that every thread blocks. One that waits in sigwait() does not.
fn blocked_everywhere(mask: u64) -> u64 {
    if mask == 0 {
        return 0;
    }
    let Some(threads) = process::threads() else { return 0 };
    let own = thread::tid();
    threads.iter().fold(mask, |mask, &thread| {
        // Where a handler runs it will be run once more.
        let mask = if thread == own { mask } else { mask & !hook::handled_by(thread, mask) };
        let path = CString::new(format!("/proc/self/task/{thread}/status"));
        match path.ok().and_then(|path| Status::read(&path)) {
            Some(status) => mask & status.mask("SigBlk:").unwrap_or(0),
            // It has ended meanwhile.
            None => mask,
        }
    })
}

/// Takes all pending signals of `mask`, counting those that were not counted before.
/// Of a standard signal one is kept, for one is all that can be pending.
fn take(mask: u64) -> Vec<siginfo_t> {
    let mut taken: Vec<siginfo_t> = Vec::new();
    while let Some(mut info) = take_one(mask) {
        // SAFETY: a siginfo of our own.
        if !unsafe { unmark(&raw mut info) } {
            hook::note(info.si_signo);
        }
        mark(&mut info);
        if info.si_signo >= REALTIME || taken.iter().all(|other| other.si_signo != info.si_signo) {
            taken.push(info);
        }
    }
    taken
}

/// sigtimedwait(2) without waiting. The system call itself: libc's changes the siginfo.
fn take_one(mask: u64) -> Option<siginfo_t> {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    let no_time = [0u64; 2];
    let size: c_long = 8;
    // SAFETY: a mask of that size, room for a siginfo, and zeroes that are a timespec of
    // either width.
    let got =
        unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const mask, info.as_mut_ptr(), no_time.as_ptr(), size) };
    // SAFETY: zeroes are a siginfo, and the call filled it in.
    count(got).ok().map(|_| unsafe { info.assume_init() })
}

/// Sends taken signals to this thread again; the library's own thread, to the main one.
/// Async-signal-safe.
pub(super) fn give_back(taken: &[siginfo_t]) {
    let to = if thread::is_librarys() { process::pid() } else { thread::tid() };
    for info in taken {
        let code = match queue(to, info) {
            // Not every origin can be told on behalf of another thread.
            Err(Errno::EPERM) => libc::SI_QUEUE,
            // Others have used up RLIMIT_SIGPENDING since. This one is pending even so.
            Err(Errno::EAGAIN) => libc::SI_USER,
            _ => continue,
        };
        let mut info = *info;
        info.si_code = code;
        let _ = queue(to, &info);
    }
}

/// rt_tgsigqueueinfo(2). EPERM, EAGAIN.
fn queue(to: pid_t, info: &siginfo_t) -> Result<()> {
    let (pid, tid, number) = (c_long::from(process::pid()), c_long::from(to), c_long::from(info.si_signo));
    // SAFETY: `info` is valid.
    count(unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, number, core::ptr::from_ref(info)) })
        .map(|_| ())
}
