//! The few things about signals the engine needs: writing without SIGPIPE, choosing
//! the monitor's realtime signal, reading it from a signalfd, and telling whether an
//! interrupted wait can have been interrupted by a handler.

#![allow(unsafe_code)]

use super::fd::Fd;
use super::{count, number, retry};
use crate::errno::{Errno, Result};
use core::mem::MaybeUninit;
use libc::c_long;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// pwritev2(2), Linux 6.18: EPIPE without the signal.
const RWF_NOSIGNAL: libc::c_int = 0x100;

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised just above.
    unsafe { set.assume_init() }
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = empty_set();
    for &signal in signals {
        // SAFETY: `set` is initialised; a bad number is an error return.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Blocks `set` in this thread and returns the mask from before.
fn block(set: &libc::sigset_t) -> libc::sigset_t {
    let mut old = empty_set();
    // SAFETY: both sets are valid.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set, &raw mut old) };
    old
}

fn restore(old: &libc::sigset_t) {
    // SAFETY: `old` is a mask this thread had before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, core::ptr::null_mut()) };
}

/// Runs `f` with every signal blocked, as a thread to be created in it inherits.
pub(crate) fn with_all_blocked<T>(f: impl FnOnce() -> T) -> T {
    let mut all = empty_set();
    // SAFETY: `all` is valid.
    unsafe { libc::sigfillset(&raw mut all) };
    let old = block(&all);
    let value = f();
    restore(&old);
    value
}

/// Writes one byte to a pipe; EPIPE comes as a value and never as a signal.
pub(super) fn write_byte_without_sigpipe(fd: RawFd) -> Result<()> {
    let byte = 1u8;
    let iov = libc::iovec { iov_base: (&raw const byte).cast_mut().cast(), iov_len: 1 };
    let (pipe, vectors, own_position, flags): (c_long, c_long, c_long, c_long) =
        (fd.into(), 1, -1, RWF_NOSIGNAL.into());
    // SAFETY: one valid vector, only read from; every argument has a register's width.
    let write = || unsafe {
        libc::syscall(libc::SYS_pwritev2, pipe, &raw const iov, vectors, own_position, own_position, flags)
    };
    match retry(|| count(write())) {
        Err(Errno::ENOTSUP | Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => write_byte_masked(fd),
        other => other.map(|_| ()),
    }
}

/// The same for older kernels: with SIGPIPE blocked, and taken back if it came of this.
fn write_byte_masked(fd: RawFd) -> Result<()> {
    let pipe = set_of(&[libc::SIGPIPE]);
    let mut pending = empty_set();
    // SAFETY: `pending` is valid.
    unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: `pending` is initialised.
    let was_pending = unsafe { libc::sigismember(&raw const pending, libc::SIGPIPE) } == 1;
    let old = block(&pipe);
    // SAFETY: one byte from a valid buffer.
    let write = || unsafe { libc::write(fd, [1u8].as_ptr().cast(), 1) };
    let result = retry(|| count(write() as c_long)).map(|_| ());
    if result.is_err() && !was_pending {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: valid set and timeout; no siginfo is asked for.
        unsafe { libc::sigtimedwait(&raw const pipe, core::ptr::null_mut(), &raw const now) };
    }
    restore(&old);
    result
}

/// The realtime signal the monitor takes: from the top, which programs leave alone,
/// the first whose disposition the program has not touched.
pub(crate) fn spare_realtime() -> libc::c_int {
    let top = libc::SIGRTMAX();
    (libc::SIGRTMIN() + 1..top).rev().find(|&signal| has_default_action(signal)).unwrap_or(top)
}

fn has_default_action(signal: libc::c_int) -> bool {
    action(signal).is_some_and(|action| action.sa_sigaction == libc::SIG_DFL)
}

/// What the process does on `signal`; `None` for libc's own.
fn action(signal: libc::c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; `action` has room.
    let failed = unsafe { libc::sigaction(signal, core::ptr::null(), action.as_mut_ptr()) } != 0;
    // SAFETY: zeroed, or filled in by the successful call.
    (!failed).then(|| unsafe { action.assume_init() })
}

/// signalfd(2) on the monitor's signals, made and read by the monitor thread itself:
/// a signalfd tells a thread of the signals sent to that thread.
pub(crate) struct SignalFd(Fd);

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl SignalFd {
    /// The caller holds [`super::fd::creating`].
    pub(crate) fn new(signals: &[libc::c_int]) -> Result<SignalFd> {
        let set = set_of(signals);
        // SAFETY: `set` is valid; -1 asks for a new descriptor.
        let fd = number(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        // SAFETY: fresh and ours.
        Ok(SignalFd(Fd::new(unsafe { OwnedFd::from_raw_fd(fd) })?))
    }

    /// As [`SignalFd::new`], for callers that do not hold the lock.
    pub(crate) fn new_locked(signals: &[libc::c_int]) -> Result<SignalFd> {
        let _creating = super::fd::creating();
        SignalFd::new(signals)
    }

    /// The next pending signal: its number and, for F_SETSIG's, the descriptor it is
    /// about. `None` when there is no more.
    pub(crate) fn take(&self) -> Option<(libc::c_int, RawFd)> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has `size` bytes; the descriptor does not block.
        let got = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(got) != Ok(size) {
            return None;
        }
        // SAFETY: all bytes are initialised, by zeroed() and by the kernel.
        let info = unsafe { info.assume_init() };
        Some((libc::c_int::try_from(info.ssi_signo).unwrap_or(0), info.ssi_fd))
    }
}

/// Whether the process has a handler installed, so that what disturbed a sleeping thread
/// was one. libc's own two signals, for cancellation and setuid, do not count.
pub(super) fn handlers_installed() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/thread-self/status") else {
        return true;
    };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // Signals 32 and 33 are bits 31 and 32.
    caught.is_none_or(|bits| bits & !(0b11 << 31) != 0)
}

/// Whether a handler can have run without a trace on the calling thread's stack: on an
/// alternate one, for a signal that is sent and not of the thread's own making.
pub(super) fn handlers_elsewhere() -> bool {
    const OWN_MAKING: [libc::c_int; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
    let mut stack = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: asks only; `stack` has room.
    if unsafe { libc::sigaltstack(core::ptr::null(), stack.as_mut_ptr()) } != 0 {
        return true;
    }
    // SAFETY: filled in by the successful call.
    if unsafe { stack.assume_init() }.ss_flags & libc::SS_DISABLE != 0 {
        return false;
    }
    (1..=libc::SIGRTMAX()).filter(|signal| !OWN_MAKING.contains(signal)).filter_map(action).any(|action| {
        action.sa_flags & libc::SA_ONSTACK != 0 && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction)
    })
}
