//! The exported C functions: pointers and counts in, one number and errno out.
//!
//! Rules for all of them: errno is set exactly when -1 is returned and otherwise left
//! alone; pthread cancellation is off for the time of the call; a panic never leaves (the
//! product is built with panic=abort, and `extern "C"` aborts in any case). Pointers are
//! not trusted: a bad one is EFAULT.

#![allow(unsafe_code)]

mod signal;

use crate::abi::{KQUEUE_CLOEXEC, kevent};
use crate::debug;
use crate::errno::{Errno, Result};
use crate::sys::epoll::Patience;
use crate::sys::memory::{self, Input, Output};
use crate::sys::thread::Guarded;
use libc::{c_int, c_uint, timespec};

/// Runs one call with errno and cancellation as the rules above say.
fn enter(call: impl FnOnce() -> Result<c_int>) -> c_int {
    let guard = Guarded::enter();
    let result = call();
    guard.leave(result.err());
    result.unwrap_or(-1)
}

fn create(function: &str) -> Result<c_int> {
    let result = crate::kqueue::create();
    debug::trace(function, format_args!("{result:?}"));
    result
}

/// Makes a kqueue: a descriptor to watch events with. kqueue(2).
///
/// Returns the descriptor, or -1 and errno: EMFILE, ENFILE, ENOMEM.
#[unsafe(no_mangle)]
pub extern "C" fn kqueue() -> c_int {
    enter(|| create("kqueue"))
}

/// NetBSD's kqueue1(2): `flags` may hold O_CLOEXEC and O_NONBLOCK. EINVAL for others.
#[unsafe(no_mangle)]
pub extern "C" fn kqueue1(flags: c_int) -> c_int {
    enter(|| if flags & !(libc::O_CLOEXEC | libc::O_NONBLOCK) == 0 { create("kqueue1") } else { Err(Errno::EINVAL) })
}

/// FreeBSD's kqueuex(2): `flags` may be KQUEUE_CLOEXEC. EINVAL for others.
#[unsafe(no_mangle)]
pub extern "C" fn kqueuex(flags: c_uint) -> c_int {
    enter(|| if flags & !KQUEUE_CLOEXEC == 0 { create("kqueuex") } else { Err(Errno::EINVAL) })
}

/// Applies changes to a kqueue and collects events from it. kevent(2).
///
/// Returns the number of entries written to `eventlist`, or -1 and errno: EBADF, EFAULT,
/// EINTR, EINVAL, ENOENT, ENOMEM, and what a change was refused with.
///
/// # Safety
/// Mapped memory behind `changelist` must hold `nchanges` structures; behind `eventlist`
/// the caller must own as many as there are events to report, `nevents` at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kevent(
    kq: c_int,
    changelist: *const kevent,
    nchanges: c_int,
    eventlist: *mut kevent,
    nevents: c_int,
    timeout: *const timespec,
) -> c_int {
    enter(|| {
        let nchanges = usize::try_from(nchanges).map_err(|_| Errno::EINVAL)?;
        let nevents = usize::try_from(nevents).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the caller's promise; every address is checked when it is used.
        let changes = unsafe { Input::new(changelist, nchanges) };
        // SAFETY: as above.
        let mut events = unsafe { Output::new(eventlist, nevents) };
        let result = crate::kqueue::kevent(kq, changes, &mut events, || patience(timeout));
        debug::trace("kevent", format_args!("kq={kq} nchanges={nchanges} nevents={nevents} -> {result:?}"));
        result.and_then(|count| c_int::try_from(count).map_err(|_| Errno::EINVAL))
    })
}

/// Returns once every kqueue whose descriptor is closed has been freed.
#[unsafe(no_mangle)]
pub extern "C" fn libkqueue_drain_pending_close() {
    enter(|| {
        crate::kqueue::drain_pending_close();
        Ok(0)
    });
}

/// What a timeout allows. EFAULT; EINVAL for what is no time.
fn patience(timeout: *const timespec) -> Result<Patience> {
    if timeout.is_null() {
        return Ok(Patience::Forever);
    }
    // SAFETY: plain integers; the address is checked.
    let timeout = unsafe { memory::copy_in(timeout) }?;
    let seconds = u64::try_from(timeout.tv_sec).map_err(|_| Errno::EINVAL)?;
    let nanos = u64::try_from(timeout.tv_nsec).ok().filter(|&ns| ns < 1_000_000_000).ok_or(Errno::EINVAL)?;
    match (seconds, nanos) {
        (0, 0) => Ok(Patience::None),
        // As in FreeBSD: longer than 68 years is for ever.
        (seconds, _) if seconds > i32::MAX.unsigned_abs().into() => Ok(Patience::Forever),
        (seconds, nanos) => Ok(Patience::Nanos(seconds * 1_000_000_000 + nanos)),
    }
}
