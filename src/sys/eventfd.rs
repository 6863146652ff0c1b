//! eventfd(2), as a descriptor that is always readable.
//!
//! One for the process wakes sleepers in every kqueue: asking a kqueue's epoll to look at
//! it anew (EPOLL_CTL_MOD) queues its edge there and wakes one thread. That is one system
//! call, like a write to an eventfd of the kqueue's own, with nothing to read back and no
//! descriptor a kqueue.

#![allow(unsafe_code)]

use super::fd::Fd;
use super::number;
use crate::errno::Result;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The descriptor.
pub(crate) struct AlwaysReady(Fd);

impl AsRawFd for AlwaysReady {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AlwaysReady {
    /// The caller holds [`super::fd::creating`].
    pub(crate) fn new() -> Result<AlwaysReady> {
        // SAFETY: touches no memory.
        let fd = number(unsafe { libc::eventfd(1, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: fresh and ours.
        Ok(AlwaysReady(Fd::new(unsafe { OwnedFd::from_raw_fd(fd) })?))
    }
}
