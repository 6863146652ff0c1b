//! A pending signal taken out of the kernel's hands, and given back.
//!
//! It is given back with a *mark*, which says that it is counted and whom it was sent to. Any
//! thread may send itself whatever siginfo it likes, and its own process by way of itself:
//! what the program sees in the end is what was sent in the beginning.
//!
//! Where nobody may queue a siginfo (a sandbox forbids it, or RLIMIT_SIGPENDING is reached)
//! the signal goes back *bare*, without a mark. Lost it must not be, and as it is known to be
//! counted it is left alone.

#![allow(unsafe_code)]

use super::{ask_twice, count, hook, process, thread};
use crate::errno::{Errno, Result};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use libc::{c_int, c_long, pid_t, siginfo_t};

/// Where the mark is, in words of a siginfo: in the gap before what depends on the sort of
/// signal, which the kernel keeps and no program sees. Without a gap, in `si_errno`, which
/// Linux leaves 0.
const PLACE: usize = if cfg!(target_pointer_width = "64") { 3 } else { 1 };

/// What a counted signal is marked with.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Mark {
    /// It was sent to the thread that has it.
    Thread = 0x6b71,
    /// It was sent to the process: whichever thread does not block it may have it.
    Process = 0x6b72,
    /// The same, and the library's own thread has counted it for who will call.
    Passing = 0x6b73,
}

/// Beside a mark: in the queue of the thread that has it another marked one of its number
/// follows.
const FOLLOWED: c_int = 0x10000;

impl Mark {
    fn of(word: c_int) -> Option<Mark> {
        [Mark::Thread, Mark::Process, Mark::Passing].into_iter().find(|&mark| mark as c_int == word & !FOLLOWED)
    }
}

fn place(info: *mut siginfo_t) -> *mut c_int {
    info.cast::<c_int>().wrapping_add(PLACE)
}

/// The mark of a signal that was counted before it came here. It is taken off.
///
/// # Safety
/// `info` must be valid for reads and writes.
pub(super) unsafe fn unmark(info: *mut siginfo_t) -> Option<Mark> {
    // SAFETY: the caller's promise; a siginfo begins with more words than these.
    let place = unsafe { &mut *place(info) };
    let Some(mark) = Mark::of(*place) else {
        // SAFETY: the caller's promise.
        let signal = unsafe { (*info).si_signo };
        return was_bare(signal).then_some(Mark::Process);
    };
    *place = 0;
    Some(mark)
}

/// The standard signals: of each one only can be pending.
pub(super) const MERGING: u64 = (1 << 31) - 1;

/// Signals that are pending for the process, counted, as far as is known. Standard ones alone:
/// of others a new one may stand behind.
static RESTING: AtomicU64 = AtomicU64::new(0);

/// Such signals are nothing new. Where the program takes one past the hook this is learned
/// late: when somebody next looks and it is not there.
pub(super) fn resting() -> u64 {
    RESTING.load(Ordering::SeqCst)
}

/// The signals of `mask` are, or are no more.
pub(super) fn rest(mask: u64, now: bool) {
    if now {
        RESTING.fetch_or(mask & MERGING, Ordering::SeqCst);
    } else if resting() & mask != 0 {
        RESTING.fetch_and(!mask, Ordering::SeqCst);
    }
}

/// Signals that are pending for the process, counted and bare, as far as is known.
static BARE: AtomicU64 = AtomicU64::new(0);

/// The same for a thread, and the last such thread: others do not see whether it still is.
static BARE_IN_THREAD: AtomicU64 = AtomicU64::new(0);
static OWNER: AtomicI32 = AtomicI32::new(0);

/// RLIMIT_SIGPENDING is reached. Then the kernel has a signal pending without what is told with
/// it, a mark above all, and may not even say so.
static FULL: AtomicBool = AtomicBool::new(false);

/// How much of the limit is used up, as a /proc/*/status has it ("SigQ:").
pub(super) fn note_queue(used: Option<&str>) {
    let is_full = used.and_then(|used| {
        let (used, limit) = used.split_once('/')?;
        Some(used.parse::<u64>().ok()? >= limit.parse().ok()?)
    });
    FULL.store(is_full == Some(true), Ordering::Relaxed);
}

/// Such signals are not to be taken.
pub(super) fn bare() -> u64 {
    BARE.load(Ordering::SeqCst) | BARE_IN_THREAD.load(Ordering::SeqCst)
}

/// Whether this one was, which now has come. Async-signal-safe.
fn was_bare(signal: c_int) -> bool {
    let bit = hook::bit(signal);
    bare() & bit != 0
        && [&BARE, &BARE_IN_THREAD].into_iter().any(|mask| mask.fetch_and(!bit, Ordering::SeqCst) & bit != 0)
}

/// It is one from now on, in a thread or for the process.
fn leave_alone(signal: c_int, thread: Option<pid_t>) {
    let mask = if thread.is_some() { &BARE_IN_THREAD } else { &BARE };
    if let Some(thread) = thread {
        OWNER.store(thread, Ordering::SeqCst);
    }
    mask.fetch_or(hook::bit(signal), Ordering::SeqCst);
}

/// The signals of `mask` are not pending any more, as far as this thread sees.
pub(super) fn forget(mask: u64) {
    rest(mask, false);
    if bare() & mask != 0 {
        BARE.fetch_and(!mask, Ordering::SeqCst);
        if OWNER.load(Ordering::SeqCst) == thread::tid() {
            BARE_IN_THREAD.fetch_and(!mask, Ordering::SeqCst);
        }
    }
}

/// In a forked child nothing is pending. Async-signal-safe.
pub(super) fn reset_in_child() {
    for mask in [&RESTING, &BARE, &BARE_IN_THREAD] {
        mask.store(0, Ordering::SeqCst);
    }
}

/// A signal in our hands.
pub(super) struct Taken(siginfo_t);

impl Taken {
    /// Any pending signal of `mask`, as sigtimedwait(2) without waiting takes it: this thread's
    /// own before the process's. The system call itself: libc's changes the siginfo.
    pub(super) fn any_of(mask: u64) -> Option<Taken> {
        let mut info = MaybeUninit::<siginfo_t>::zeroed();
        let no_time = [0u64; 2];
        let (wanted, size): (_, c_long) = (&raw const mask, 8);
        // SAFETY: a mask of that size, room for a siginfo, and zeroes that are a timespec of
        // either width.
        let got =
            unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, wanted, info.as_mut_ptr(), no_time.as_ptr(), size) };
        // SAFETY: zeroes are a siginfo, and the call filled it in.
        count(got).ok().map(|_| Taken(unsafe { info.assume_init() }))
    }

    /// One that has come to a handler.
    pub(super) fn of(info: &siginfo_t) -> Taken {
        Taken(*info)
    }

    pub(super) fn number(&self) -> c_int {
        self.0.si_signo
    }

    /// Whether it was sent to a thread by name, as far as that can be seen.
    pub(super) fn is_for_a_thread(&self) -> bool {
        self.0.si_code == libc::SI_TKILL
    }

    fn mark_there(&mut self) -> Option<Mark> {
        // SAFETY: as in `unmark`.
        Mark::of(unsafe { place(&raw mut self.0).read() })
    }

    /// The mark, which is taken off.
    pub(super) fn unmark(&mut self) -> Option<Mark> {
        // SAFETY: a siginfo of our own.
        unsafe { unmark(&raw mut self.0) }
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        // SAFETY: as in `unmark`.
        unsafe { place(&raw mut self.0).write(mark as c_int) };
    }

    /// Has the mark say that another follows.
    pub(super) fn note_follower(&mut self) {
        // SAFETY: as in `unmark`.
        unsafe { *place(&raw mut self.0) |= FOLLOWED };
    }

    /// Whether the mark says so.
    pub(super) fn is_followed(&mut self) -> bool {
        // SAFETY: as in `unmark`.
        unsafe { place(&raw mut self.0).read() & FOLLOWED != 0 }
    }

    /// Has it pending for a thread: this one, or for the library's own the main one.
    pub(super) fn give_to_thread(self) {
        self.give(Some(if thread::is_librarys() { process::pid() } else { thread::tid() }));
    }

    /// Has it pending for this thread, which is the program's. Async-signal-safe: it uses no
    /// thread-local.
    pub(super) fn give_back(self) {
        self.give(Some(thread::tid()));
    }

    /// Has it pending for the process.
    pub(super) fn give_to_process(self) {
        self.give(None);
    }

    fn give(mut self, to: Option<pid_t>) {
        let is_common = matches!(self.mark_there(), Some(Mark::Process | Mark::Passing));
        let is_blank = FULL.load(Ordering::Relaxed) || self.is_blank();
        // What is left alone is left where everybody finds it.
        let to = to.filter(|_| !(is_blank && is_common));
        if is_blank {
            leave_alone(self.number(), to);
        }
        // Not every origin can be told on behalf of another thread; and others may have used up
        // RLIMIT_SIGPENDING since, which is no limit to what kill() sends.
        let is_queued = [self.0.si_code, libc::SI_QUEUE, libc::SI_USER].into_iter().any(|code| {
            self.0.si_code = code;
            let queue = || match to {
                Some(thread) => queue_to_thread(thread, &self.0),
                None => queue_to_process(&self.0),
            };
            // Without room a later one would merge with it, and go uncounted.
            ask_twice(queue).is_ok()
        });
        if !is_queued {
            let to = to.filter(|_| !is_common);
            leave_alone(self.number(), to);
            match to {
                Some(thread) => _ = process::send_to_thread(process::pid(), thread, self.number()),
                None => process::send(self.number()),
            }
        }
    }

    /// Whether the kernel had no room for what was told with it.
    fn is_blank(&self) -> bool {
        // SAFETY: zeroes at least, whatever the code.
        let sender = unsafe { self.0.si_pid() };
        // SAFETY: as above.
        let user = unsafe { self.0.si_uid() };
        (self.0.si_code, sender, user) == (libc::SI_USER, 0, 0)
    }
}

/// rt_tgsigqueueinfo(2). EPERM, EAGAIN, and whatever a sandbox answers.
fn queue_to_thread(to: pid_t, info: &siginfo_t) -> Result<()> {
    let (pid, tid, number) = (c_long::from(process::pid()), c_long::from(to), c_long::from(info.si_signo));
    // SAFETY: `info` is valid.
    count(unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, number, core::ptr::from_ref(info)) })
        .map(|_| ())
}

/// pidfd_send_signal(2) by the calling thread's standing name, Linux 6.14; before that
/// rt_sigqueueinfo(2), where only the main thread may tell every origin. As above.
fn queue_to_process(info: &siginfo_t) -> Result<()> {
    const PIDFD_SELF_THREAD: c_long = -10000;
    const PIDFD_SIGNAL_THREAD_GROUP: c_long = 2;
    let (number, info) = (c_long::from(info.si_signo), core::ptr::from_ref(info));
    let (this, whole) = (PIDFD_SELF_THREAD, PIDFD_SIGNAL_THREAD_GROUP);
    // SAFETY: `info` is valid.
    let sent = count(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, this, number, info, whole) });
    let other = || {
        let pid = c_long::from(process::pid());
        // SAFETY: `info` is valid.
        count(unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid, number, info) })
    };
    match sent {
        Ok(_) | Err(Errno::EAGAIN) => sent,
        Err(_) => other(),
    }
    .map(|_| ())
}
