//! The calling thread: errno, cancellation, its number; and starting one of our own.

#![allow(unsafe_code)]

use super::signal;
use crate::errno::{Errno, Result};
use libc::c_int;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// Keeps errno and the thread's cancellation state as they were, for the time of one
/// call of the program's into the library.
pub(crate) struct Guarded {
    errno: c_int,
    cancel: c_int,
}

impl Guarded {
    /// Saves errno and switches cancellation off: a cancellation acted upon inside
    /// Rust frames would skip their drops.
    pub(crate) fn enter() -> Guarded {
        let mut cancel = 0;
        // SAFETY: writes one int; the state is a valid one.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut cancel) };
        // SAFETY: touches no memory.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: errno's location is always valid.
        Guarded { errno: unsafe { *errno }, cancel }
    }

    /// Ends the call: errno is the failure's, or what it was before.
    pub(crate) fn leave(self, failure: Option<Errno>) {
        let mut ignored = 0;
        // SAFETY: restores the state saved above.
        unsafe { pthread_setcancelstate(self.cancel, &raw mut ignored) };
        // SAFETY: touches no memory.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: errno's location is always valid.
        unsafe { *errno = failure.map_or(self.errno, Errno::raw) };
    }
}

/// The kernel's number of this thread.
pub(crate) fn tid() -> libc::pid_t {
    // SAFETY: always succeeds and touches no memory.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    libc::pid_t::try_from(tid).unwrap_or(0)
}

/// Starts a detached thread with every signal blocked. ENOMEM if there is no room.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(128 * 1024);
    signal::with_all_blocked(|| builder.spawn(body)).map(drop).map_err(|_| Errno::ENOMEM)
}
