//! Thin safe wrappers over the kernel facilities the library uses, one file each.
//!
//! Together with `ffi` this is where `unsafe` lives. Rules: one wrapper per system
//! call, named as in the manual; descriptors go in borrowed and come out owned; every
//! descriptor is close-on-exec from birth; EINTR is retried here, but for the waits,
//! which hand it on. Whatever runs inside `kevent()` is no cancellation point because
//! `ffi` switches cancellation off for the call; `sleep` alone switches it on.

pub(crate) mod bells;
pub(crate) mod clock;
pub(crate) mod connector;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod fd;
pub(crate) mod file;
pub(crate) mod fork;
mod futex;
mod handling;
pub(crate) mod hook;
pub(crate) mod inotify;
pub(crate) mod memory;
pub(crate) mod mounts;
pub(crate) mod pending;
pub(crate) mod pidfd;
pub(crate) mod pipe;
pub(crate) mod process;
mod raw;
pub(crate) mod register;
pub(crate) mod signal;
pub(crate) mod sleep;
pub(crate) mod sock_diag;
pub(crate) mod socket;
pub(crate) mod sync;
mod taken;
pub(crate) mod thread;
pub(crate) mod timerfd;

use crate::errno::{Errno, Result};
use libc::{c_int, c_long};

/// Converts "0, or -1 and errno".
fn zero(ret: c_int) -> Result<()> {
    if ret == -1 { Err(Errno::last()) } else { Ok(()) }
}

/// Converts "a non-negative number, or -1 and errno".
fn number(ret: c_int) -> Result<c_int> {
    if ret == -1 { Err(Errno::last()) } else { Ok(ret) }
}

/// Converts "a count of bytes or items, or -1 and errno".
fn count(ret: c_long) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Errno::last())
}

/// Repeats a call for as long as a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Asks once more what failed for want of memory or room in the kernel, where that must not
/// be taken for an answer.
pub(crate) fn ask_twice<T>(mut question: impl FnMut() -> Result<T>) -> Result<T> {
    match question() {
        Err(Errno::ENOMEM | Errno::ENOSPC | Errno::EAGAIN) => question(),
        answer => answer,
    }
}
