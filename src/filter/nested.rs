//! EVFILT_READ on another kqueue (kqueue(2)): ready while that has events, `data` is
//! their number.
//!
//! The outer kqueue's epoll watches the inner's epoll itself, with no thread in between.
//! Events of the inner that no kernel object shows (a user trigger) wake its epoll while
//! it is watched. Counting them takes them out of that epoll, so it is watched for edges
//! and the level kept here. Locks are taken outer first; epoll refuses cycles (ELOOP).

use super::fd;
use super::kind::Kind;
use super::watched::Watched;
use super::{Facts, Fate, Filter, Inner, Outcome, Queue, ROW_NESTED, descriptor};
use crate::abi::{EVFILT_READ, Kevent};
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// The row of EVFILT_READ on a kqueue.
pub(crate) struct Nested;

/// Attaches a knote to the kqueue `inner`. EINVAL for other filters than EVFILT_READ and
/// for a kqueue in itself; ELOOP for a ring of kqueues or too long a chain.
pub(super) fn attach(queue: &mut Queue, slot: Slot, inner: Arc<dyn Inner>) -> Result<()> {
    let number = descriptor(queue.knotes[slot].ident)?;
    if queue.knotes[slot].filter != EVFILT_READ || inner.epoll() == queue.epoll.as_raw_fd() {
        return Err(Errno::EINVAL);
    }
    queue.forget(number);
    queue.fds.kqueues.insert(number, Watched::new(&inner));
    queue.fds.set_kind(number, Kind::Kqueue);
    queue.knotes[slot].row = ROW_NESTED;
    fd::attach(queue, slot, true).inspect_err(|_| queue.forget(number))
}

fn inner(queue: &Queue, slot: Slot) -> Option<Arc<dyn Inner>> {
    let number = descriptor(queue.knotes[slot].ident).ok()?;
    queue.fds.kqueues.get(&number)?.kqueue()
}

impl Filter for Nested {
    fn on_descriptor(&self) -> bool {
        true
    }

    fn column(&self) -> Option<usize> {
        Some(0)
    }

    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, _queue: &mut Queue, _slot: Slot) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, _change: &Kevent) -> Result<()> {
        fd::modify(queue, slot, true)
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        fd::detach(queue, slot)
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let Some(inner) = inner(queue, slot) else { return Outcome::Gone };
        match inner.pending() {
            0 => fd::unready(queue, slot, false),
            pending => {
                let data = isize::try_from(pending).unwrap_or(isize::MAX);
                Outcome::Ready(Facts { data, again: true, ..Facts::default() })
            }
        }
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        fd::settle(queue, slot, fate);
    }
}
