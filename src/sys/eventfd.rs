//! eventfd(2), as a descriptor that is always readable, and the wake-up made of it.
//!
//! One for the process wakes sleepers in every kqueue: asking a kqueue's epoll to look at
//! it anew (EPOLL_CTL_MOD) queues its edge there and wakes one thread. That is one system
//! call, like a write to an eventfd of the kqueue's own, with nothing to read back and no
//! descriptor a kqueue. It takes no lock and allocates nothing, so that whoever has news
//! for a kqueue can wake it from anywhere.

#![allow(unsafe_code)]

use super::epoll::{self, Epoll};
use super::fd::Fd;
use super::number;
use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

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

/// Makes an epoll ready that nothing in the kernel made ready.
pub(crate) struct Waker {
    epoll: Arc<Epoll>,
    ready: Arc<AlwaysReady>,
    token: u64,
    /// A wake-up is in the epoll that no wait has brought back yet.
    posted: AtomicBool,
}

impl Waker {
    /// Wakes waits in `epoll`, which bring `token` back.
    pub(crate) fn new(epoll: Arc<Epoll>, ready: Arc<AlwaysReady>, token: u64) -> Waker {
        Waker { epoll, ready, token, posted: AtomicBool::new(false) }
    }

    /// Wakes one thread asleep in the epoll, or the next to come. One system call, or
    /// none if the last wake-up is still on its way.
    pub(crate) fn wake(&self) {
        if !self.posted.swap(true, Ordering::AcqRel) {
            self.enter(epoll::IN | epoll::ET);
        }
    }

    fn enter(&self, mask: u32) {
        let ready = self.ready.as_raw_fd();
        if self.epoll.modify(ready, mask, self.token) == Err(Errno::ENOENT) {
            // Another thread may be doing the same.
            let _ = self.epoll.add(ready, mask, self.token);
        }
    }

    /// A wait brought the wake-up back: the next one is told anew. To be called before
    /// the news are looked at.
    pub(crate) fn taken(&self) {
        self.posted.store(false, Ordering::Release);
    }

    /// Wakes every thread asleep in the epoll, one after the other, for good.
    pub(crate) fn evict_sleepers(&self) {
        self.enter(epoll::IN);
    }

    /// The epoll was replaced by another under the same number, which knows no wake-up.
    pub(crate) fn renewed(&self) {
        if self.posted.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Takes the entry out of the epoll, if no wake-up is on its way.
    pub(crate) fn withdraw(&self) {
        if !self.posted.load(Ordering::Acquire) {
            let _ = self.epoll.delete(self.ready.as_raw_fd());
            if self.posted.load(Ordering::Acquire) {
                self.enter(epoll::IN | epoll::ET);
            }
        }
    }
}
