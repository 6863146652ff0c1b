//! eventfd(2), as a descriptor that is always readable, and the wake-up made of it.
//!
//! One for the process wakes sleepers in every kqueue: asking a kqueue's epoll to look at
//! it anew (EPOLL_CTL_MOD) queues its edge there and wakes one thread. That is one system
//! call, like a write to an eventfd of the kqueue's own, with nothing to read back and no
//! descriptor a kqueue. It takes no lock and allocates nothing, so that whoever has news
//! for a kqueue can wake it from anywhere.

#![allow(unsafe_code)]

use super::epoll::{self, Epoll};
use super::fd::{Fd, Fresh};
use super::number;
use super::sync::Mutex;
use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::os::fd::{AsRawFd, RawFd};
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
        Ok(AlwaysReady(Fd::new(Fresh::new(fd))?))
    }

    /// Whether the number still is this descriptor: the program may have closed it.
    pub(crate) fn is_intact(&self) -> bool {
        self.0.is_intact()
    }
}

/// How often entering is tried.
const TRIES: usize = 3;

/// Makes an epoll ready that nothing in the kernel made ready: for one wait, or, *lit*, for
/// as long as it is wanted.
pub(crate) struct Waker {
    epoll: Arc<Epoll>,
    /// The number of the descriptor, which `ready` keeps open: a wake-up takes no lock.
    number: AtomicI32,
    ready: Mutex<Arc<AlwaysReady>>,
    token: u64,
    /// A wake-up is in the epoll that no wait has brought back yet.
    posted: AtomicBool,
    /// The entry is level-triggered: the epoll shows ready to those who watch it, whoever
    /// waits in it.
    lit: AtomicBool,
}

impl Waker {
    /// Wakes waits in `epoll`, which bring `token` back.
    pub(crate) fn new(epoll: Arc<Epoll>, ready: Arc<AlwaysReady>, token: u64) -> Waker {
        let (number, ready) = (AtomicI32::new(ready.as_raw_fd()), Mutex::new(ready));
        Waker { epoll, number, ready, token, posted: AtomicBool::new(false), lit: AtomicBool::new(false) }
    }

    /// Has wake-ups use another descriptor, when the program has closed the one there was.
    pub(crate) fn use_instead(&self, ready: Arc<AlwaysReady>) {
        let mut place = self.ready.lock();
        // The number may be a file of the program's, which it watches.
        if place.is_intact() {
            let _ = self.epoll.delete(self.ready());
        }
        self.number.store(ready.as_raw_fd(), Ordering::Release);
        *place = ready;
        self.renewed();
    }

    fn ready(&self) -> RawFd {
        self.number.load(Ordering::Acquire)
    }

    /// Takes its place in the epoll beforehand, quietly: a wake-up can then not fail. EINVAL:
    /// too many paths lead to the descriptor already.
    pub(crate) fn prepare(&self) -> Result<()> {
        match self.epoll.add(self.ready(), 0, self.token) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Wakes one thread asleep in the epoll, or the next to come, and tells whoever watches
    /// the epoll. One system call, or none if the last wake-up is still on its way.
    pub(crate) fn wake(&self) {
        if !self.posted.swap(true, Ordering::AcqRel) {
            self.enter();
        }
    }

    fn enter(&self) {
        let lit = self.lit.load(Ordering::Acquire);
        let mask = epoll::IN | if lit { 0 } else { epoll::ET };
        // An entry that shows ready already is no news to those who watch for edges.
        if lit {
            let _ = self.epoll.delete(self.ready());
        }
        for _ in 0..TRIES {
            let ready = self.ready();
            let asked = self.epoll.modify(ready, mask, self.token);
            // Another thread may be adding it at the same time.
            if asked.is_ok() || asked == Err(Errno::ENOENT) && self.epoll.add(ready, mask, self.token).is_ok() {
                return;
            }
        }
        // No memory: the next wake-up tries again.
        self.posted.store(false, Ordering::Release);
    }

    /// A wait brought the wake-up back: the next one is told anew. To be called before
    /// the news are looked at.
    pub(crate) fn taken(&self) {
        self.posted.store(false, Ordering::Release);
    }

    /// Lets the epoll show ready until [`Waker::dim`].
    pub(crate) fn light(&self) {
        if !self.lit.swap(true, Ordering::AcqRel) {
            self.enter();
        }
    }

    /// Ends what [`Waker::light`] began.
    pub(crate) fn dim(&self) {
        if self.lit.load(Ordering::Relaxed) && self.lit.swap(false, Ordering::AcqRel) {
            self.withdraw();
        }
    }

    /// Wakes every thread asleep in the epoll, one after the other, for good.
    pub(crate) fn evict_sleepers(&self) {
        let ready = self.ready();
        if self.epoll.modify(ready, epoll::IN, self.token).is_err() {
            let _ = self.epoll.add(ready, epoll::IN, self.token);
        }
    }

    /// The epoll was replaced by another under the same number, or the descriptor by another: there
    /// is no entry yet.
    pub(crate) fn renewed(&self) {
        if self.posted.load(Ordering::Acquire) || self.lit.load(Ordering::Acquire) {
            self.enter();
        }
    }

    /// Takes the entry out of the epoll, if it is not needed at the moment.
    pub(crate) fn withdraw(&self) {
        if self.lit.load(Ordering::Acquire) {
            return;
        }
        let _ = self.epoll.delete(self.ready());
        if self.posted.load(Ordering::Acquire) {
            self.enter();
        }
    }
}
