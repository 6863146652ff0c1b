//! futex(2): a thread sleeps until a word of the process changes.

#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::AtomicU32;
use core::time::Duration;
use libc::c_long;

/// Sleeps while `word` is `value`, for as long as `time` at most. May end for no reason, and
/// does when a handler has run: a wait with a timeout is never taken up again by the kernel.
pub(super) fn wait(word: &AtomicU32, value: u32, time: Duration) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos() as _,
    };
    // SAFETY: the word and the time outlive the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), WAIT, value, ptr::from_ref(&time)) };
}

/// Wakes so many of the threads that sleep on `word`.
pub(super) fn wake(word: &AtomicU32, threads: i32) {
    // SAFETY: the kernel takes the word's address as a name and does not read it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), WAKE, threads) };
}

const WAIT: c_long = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as c_long;
const WAKE: c_long = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as c_long;
