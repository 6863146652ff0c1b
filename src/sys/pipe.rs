//! The sentinel pipe: the program holds the read end, the library the write end.
//!
//! The kernel tells of the last reader's close in two ways: POLLERR on the write end,
//! and, through F_SETSIG and F_SETOWN_EX, a realtime signal to one thread. It also
//! sends the signal whenever a byte is read, so a signal is a hint and POLLERR the truth,
//! and who takes a byte hushes it before.
//! A byte in the pipe makes the kqueue readable for poll(2).

#![allow(unsafe_code)]

use super::fd::{self, Fd, Fresh};
use super::{file, raw, retry, zero};
use crate::errno::{Errno, Result};
use std::os::fd::{AsRawFd, RawFd};

/// F_SETOWN_EX's argument (fcntl(2)).
#[repr(C)]
struct OwnerEx {
    kind: libc::c_int,
    pid: libc::pid_t,
}

const F_OWNER_TID: libc::c_int = 0;
const F_SETOWN_EX: libc::c_int = 15;

/// The library's end of a kqueue's pipe.
pub(crate) struct Held {
    fd: Fd,
    pipe_id: u64,
}

impl AsRawFd for Held {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Makes a sentinel: the program's end, on the lowest free number, and the held one.
/// The caller holds [`fd::creating`].
pub(crate) fn sentinel() -> Result<(Fresh, Held)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for two descriptors.
    zero(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    let user = Fresh::new(ends[0]);
    let held = Fresh::new(ends[1]);
    let pipe_id = file::pipe_id(user.as_raw_fd())?;
    Ok((user, Held { fd: Fd::new(held)?, pipe_id }))
}

/// Gives an end away for good: from here on the program owns and closes it.
pub(crate) fn hand_over(user: Fresh) -> RawFd {
    user.keep()
}

impl Held {
    /// What tells the pipe apart, the same through every copy of the program's end.
    pub(crate) fn pipe_id(&self) -> u64 {
        self.pipe_id
    }

    /// Has the kernel send our signal, which every descriptor of ours bears as its mark, to
    /// thread `tid` when the far end is closed, and when bytes are taken out there. EBADF: the
    /// program has closed the held end.
    pub(crate) fn notify(&self, tid: libc::pid_t) -> Result<()> {
        self.set_owner(tid)?;
        // SAFETY: takes an int.
        zero(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_SETFL, libc::O_WRONLY | libc::O_NONBLOCK | libc::O_ASYNC) })
    }

    /// The same for one that has been hushed.
    pub(crate) fn notify_again(&self, tid: libc::pid_t) -> Result<()> {
        self.set_owner(tid)
    }

    /// Has it send to nobody.
    pub(crate) fn hush(&self) {
        let _ = self.set_owner(0);
    }

    fn set_owner(&self, pid: libc::pid_t) -> Result<()> {
        if !self.is_intact() {
            return Err(Errno::EBADF);
        }
        let owner = OwnerEx { kind: F_OWNER_TID, pid };
        // SAFETY: `owner` is laid out as the kernel's f_owner_ex and read only.
        zero(unsafe { libc::fcntl(self.as_raw_fd(), F_SETOWN_EX, &raw const owner) })
    }

    /// Whether every copy of the program's end is closed.
    pub(crate) fn is_hung_up(&self) -> bool {
        fd::poll_now(self.fd.as_raw_fd(), 0) & (libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// Whether the number still is the held end: the program may have closed it.
    pub(crate) fn is_intact(&self) -> bool {
        self.fd.is_intact()
    }

    /// Puts the byte in that makes the program's end readable; a full pipe is so already.
    /// EPIPE, and no SIGPIPE: every copy of that end is closed. EBADF: the program has closed
    /// the held end.
    pub(crate) fn mark(&self) -> Result<()> {
        if !self.is_intact() {
            return Err(Errno::EBADF);
        }
        super::signal::write_byte_without_sigpipe(self.fd.as_raw_fd())
    }

    /// Takes the bytes back. The held end cannot be read, so this goes through the program's
    /// number, which has just been seen to name this pipe. Should it be another file's by now, one
    /// that takes from pipes alone leaves a file's or a socket's bytes where they are.
    pub(crate) fn unmark(&self, user: RawFd) {
        let _ = retry(|| raw::take_from_pipe(user));
    }
}
