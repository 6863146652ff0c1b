//! The few things about signals the engine needs: masks, writing without SIGPIPE, choosing
//! the monitor's realtime signal, signalfds, and telling whether an interrupted wait can
//! have been interrupted by a handler of the program's.

#![allow(unsafe_code)]

use super::fd::{Fd, Fresh};
use super::pending::Status;
use super::{count, hook, number, raw, retry};
use crate::errno::{Errno, Result};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use libc::c_long;
use std::os::fd::{AsRawFd, RawFd};

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

pub(super) fn restore(old: &libc::sigset_t) {
    // SAFETY: `old` is a mask this thread had before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, core::ptr::null_mut()) };
}

/// Blocks every signal in this thread and returns the mask from before.
pub(super) fn block_all() -> libc::sigset_t {
    let mut all = empty_set();
    // SAFETY: `all` is valid.
    unsafe { libc::sigfillset(&raw mut all) };
    block(&all)
}

/// Runs `f` with every signal blocked, as a thread to be created in it inherits.
/// Async-signal-safe as far as `f` is.
pub(crate) fn with_all_blocked<T>(f: impl FnOnce() -> T) -> T {
    let old = block_all();
    let value = f();
    restore(&old);
    value
}

/// A set as the kernel has it, bit 0 being signal 1.
pub(super) fn mask_of(set: &libc::sigset_t) -> u64 {
    // SAFETY: libc's sets begin with the kernel's 64 bits and are longer.
    unsafe { (&raw const *set).cast::<u64>().read_unaligned() }
}

/// libc's set of a mask of the kernel's.
pub(super) fn set_from(mask: u64) -> libc::sigset_t {
    let mut set = empty_set();
    // SAFETY: as in `mask_of`.
    unsafe { (&raw mut set).cast::<u64>().write_unaligned(mask) };
    set
}

/// The kernel lacks that flag, or a sandbox the call.
static NO_NOSIGNAL: AtomicBool = AtomicBool::new(false);

/// Writes one byte to a pipe; EPIPE comes as a value and never as a signal.
pub(super) fn write_byte_without_sigpipe(fd: RawFd) -> Result<()> {
    if NO_NOSIGNAL.load(Ordering::Relaxed) {
        return write_byte_masked(fd);
    }
    let byte = 1u8;
    let iov = libc::iovec { iov_base: (&raw const byte).cast_mut().cast(), iov_len: 1 };
    let (pipe, vectors, own_position, flags): (c_long, c_long, c_long, c_long) =
        (fd.into(), 1, -1, RWF_NOSIGNAL.into());
    // SAFETY: one valid vector, only read from; every argument has a register's width.
    let write = || unsafe {
        libc::syscall(libc::SYS_pwritev2, pipe, &raw const iov, vectors, own_position, own_position, flags)
    };
    match retry(|| count(write())) {
        Err(Errno::ENOTSUP | Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => {
            NO_NOSIGNAL.store(true, Ordering::Relaxed);
            write_byte_masked(fd)
        }
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
    let result = retry(|| raw::write(fd, &[1])).map(|_| ());
    if result.is_err() && !was_pending {
        let _ = raw::take_signal(&pipe);
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
    hook::get(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL)
}

/// signalfd(2) on one of the monitor's signals, made and read by the monitor thread itself:
/// a signalfd tells a thread of the signals sent to that thread, and to the process.
pub(crate) struct SignalFd(Fd);

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl SignalFd {
    /// The caller holds [`super::fd::creating`].
    pub(crate) fn new(signal: libc::c_int) -> Result<SignalFd> {
        SignalFd::of(hook::bit(signal))
    }

    fn of(mask: u64) -> Result<SignalFd> {
        let set = set_from(mask);
        // SAFETY: `set` is valid; -1 asks for a new descriptor.
        let fd = number(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        Ok(SignalFd(Fd::new(Fresh::new(fd))?))
    }

    /// One that tells of nothing yet. The caller does not hold the lock.
    pub(crate) fn silent() -> Result<SignalFd> {
        let _creating = super::fd::creating();
        SignalFd::of(0)
    }

    /// Tells of the signals in `mask` from now on.
    pub(crate) fn retune(&self, mask: u64) -> Result<()> {
        let set = set_from(mask);
        // SAFETY: `set` is valid; the descriptor is a signalfd.
        number(unsafe { libc::signalfd(self.0.as_raw_fd(), &raw const set, 0) }).map(|_| ())
    }

    /// The next pending signal: for F_SETSIG's, the descriptor it is about. `None` when there
    /// is no more.
    pub(crate) fn take(&self) -> Option<RawFd> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        let got = raw::read(self.0.as_raw_fd(), &mut info).ok()?;
        let at = core::mem::offset_of!(libc::signalfd_siginfo, ssi_fd);
        let fd = info.get(at..at + size_of::<RawFd>()).filter(|_| got == info.len())?;
        fd.try_into().ok().map(RawFd::from_ne_bytes)
    }
}

/// Takes back a signal that was sent to the calling thread itself, which blocks it; false
/// if none was. One that was sent to the process is left to the program.
pub(crate) fn take_own(signal: libc::c_int) -> bool {
    let pending = Status::of_thread().and_then(|status| status.mask("SigPnd:")).unwrap_or(0);
    // The kernel gives a thread its own signals first.
    pending & hook::bit(signal) != 0 && raw::take_signal(&set_of(&[signal])).is_ok()
}

/// libc's own two signals, 32 and 33: cancellation and setuid.
pub(super) const LIBCS_OWN: u64 = 0b11 << 31;

/// Whether the process has a handler installed, so that what disturbed a sleeping thread
/// was one. Those of `but` do not count.
fn handlers_installed(but: u64) -> bool {
    let caught = Status::of_thread().and_then(|status| status.mask("SigCgt:"));
    caught.is_none_or(|bits| bits & !LIBCS_OWN & !but != 0)
}

/// Whether a handler can have run without a trace on the calling thread's stack: on an
/// alternate one, for a signal that is sent and not of the thread's own making. Those of
/// `but` do not count.
fn handlers_elsewhere(but: u64) -> bool {
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
    let can = |signal: &libc::c_int| !OWN_MAKING.contains(signal) && but & hook::bit(*signal) == 0;
    (1..=libc::SIGRTMAX()).filter(can).filter_map(|signal| hook::get(signal).ok()).any(|action| {
        action.sa_flags & libc::SA_ONSTACK != 0 && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction)
    })
}

/// The thread-specific value that counts what the hook did in this thread: below, times
/// nothing of the program's ran; above, times a handler did. Plus one, so that null means
/// that the thread does not count. Not a thread-local of Rust's: the first use of one may
/// allocate, and the hook may be that first use.
static COUNTS: AtomicU64 = AtomicU64::new(0);

const HANDLER: usize = 1 << (usize::BITS / 2);

fn counts_key() -> Option<libc::pthread_key_t> {
    // Keys count from 0, so they are kept plus one.
    let key = COUNTS.load(Ordering::Relaxed).checked_sub(1)?;
    libc::pthread_key_t::try_from(key).ok()
}

/// Has threads that sleep count from now on. ENOMEM: there is no key left.
pub(crate) fn count_interruptions() -> Result<()> {
    if counts_key().is_some() {
        return Ok(());
    }
    let mut key = 0;
    // SAFETY: `key` has room; there is no destructor.
    if unsafe { libc::pthread_key_create(&raw mut key, None) } != 0 {
        return Err(Errno::ENOMEM);
    }
    let mine = u64::from(key) + 1;
    if COUNTS.compare_exchange(0, mine, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // SAFETY: made above, and nobody else has seen it.
        unsafe { libc::pthread_key_delete(key) };
    }
    Ok(())
}

fn counts(key: libc::pthread_key_t) -> usize {
    // SAFETY: the key was made and is never deleted.
    unsafe { libc::pthread_getspecific(key) as usize }
}

fn set_counts(key: libc::pthread_key_t, value: usize) {
    // SAFETY: as above; the value is no pointer to anything.
    unsafe { libc::pthread_setspecific(key, value as *const libc::c_void) };
}

/// The hook ran in this thread, and the program's handler is about to, or there is none.
/// In a thread that counts, so that storing the value allocates nothing.
pub(super) fn note_interruption(handler: bool) {
    if let Some(key) = counts_key()
        && let old @ 1.. = counts(key)
    {
        set_counts(key, old.wrapping_add(if handler { HANDLER } else { 1 }));
    }
}

/// What the hook had done in this thread when it went to sleep; 0: nobody counts.
pub(super) struct Interruptions(usize);

impl Interruptions {
    /// Before a sleep.
    pub(super) fn so_far() -> Interruptions {
        let Some(key) = counts_key() else { return Interruptions(0) };
        if counts(key) == 0 {
            set_counts(key, 1);
        }
        Interruptions(counts(key))
    }

    /// Whether the hook has called a handler since.
    pub(super) fn were_handled(&self) -> bool {
        self.0 != 0 && counts_key().map_or(0, counts) / HANDLER != self.0 / HANDLER
    }

    /// After EINTR: whether a handler of the program's has run, or can have. `disturbed`: some
    /// handler's frame was on the stack.
    pub(super) fn were_by_program(&self, disturbed: bool) -> bool {
        let now = counts_key().map_or(0, counts);
        if self.0 != 0 && now != self.0 {
            return self.were_handled();
        }
        // It was not the hook; where nobody counts, not one with a handler behind it.
        let but = hook::hooked(self.0 == 0);
        if disturbed { handlers_installed(but) } else { handlers_elsewhere(but) }
    }
}
