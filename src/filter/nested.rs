//! EVFILT_READ on another kqueue (kqueue(2)): ready while that has events, `data` is
//! their number.
//!
//! The outer kqueue's epoll watches the inner's epoll itself, with no thread in between.
//! Events of the inner that no kernel object shows (a user trigger) wake its epoll while
//! it is watched. Counting them takes them out of that epoll, so it is watched for edges
//! and the level kept here. Locks are taken outer first; epoll refuses cycles (ELOOP).

use super::fd;
use super::kind::Kind;
use super::watched::{self, WatchedKqueue};
use super::{AGAIN, Facts, Fate, Filter, Inner, Outcome, Queue, RETRY, ROW_NESTED, descriptor};
use crate::abi::{EV_CLEAR, EVFILT_READ, Kevent};
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use crate::sys::file;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// The row of EVFILT_READ on a kqueue. The saved `fflags` have no meaning here and hold the
/// version of the inner's events as last reported: an EV_CLEAR knote tells of each once.
pub(crate) struct Nested;

/// A version that counting up from nothing does not reach.
const UNTOLD: u32 = u32::MAX;

/// Attaches a knote to the kqueue `inner`. EINVAL for other filters than EVFILT_READ and
/// for a kqueue in itself; ELOOP for a ring of kqueues or too long a chain.
#[cold]
pub(super) fn attach(queue: &mut Queue, slot: Slot, inner: Arc<dyn Inner>) -> Result<()> {
    let number = descriptor(queue.knotes[slot].ident)?;
    if queue.knotes[slot].filter() != EVFILT_READ || inner.epoll() == queue.epoll.as_raw_fd() {
        return Err(Errno::EINVAL);
    }
    queue.forget(number);
    let watched = WatchedKqueue::new(&inner, queue.letter_box(), queue.knotes.name(slot));
    queue.fds.kqueues.insert(number, watched);
    queue.fds.set_kind(number, Kind::Kqueue);
    queue.knotes[slot].row = ROW_NESTED;
    queue.knotes[slot].fflags = UNTOLD;
    fd::attach(queue, slot, true).inspect_err(|_| queue.forget(number))
}

fn inner(queue: &Queue, slot: Slot) -> Option<Arc<dyn Inner>> {
    let number = descriptor(queue.knotes[slot].ident).ok()?;
    queue.fds.kqueues.get(&number)?.kqueue()
}

/// Looks whether the knote's number still names the kqueue. EBADF: it names nothing; ENOENT:
/// something else.
fn check(queue: &Queue, slot: Slot) -> Result<()> {
    let pipe_id = file::pipe_id(descriptor(queue.knotes[slot].ident)?)?;
    if inner(queue, slot).is_some_and(|inner| inner.pipe_id() == pipe_id) { Ok(()) } else { Err(Errno::ENOENT) }
}

fn refresh_knote(queue: &mut Queue, slot: Slot) -> Result<()> {
    watched::refresh(queue, descriptor(queue.knotes[slot].ident)?)
}

impl Filter for Nested {
    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, _queue: &mut Queue, _slot: Slot) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, _change: &Kevent) -> Result<()> {
        check(queue, slot)?;
        refresh_knote(queue, slot)?;
        fd::modify(queue, slot, true)?;
        // Its events may stand on its ready list, where epoll does not see them.
        queue.knotes[slot].fflags = UNTOLD;
        queue.knotes.activate(slot);
        Ok(())
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let checked = check(queue, slot);
        let refreshed = refresh_knote(queue, slot);
        let detached = fd::detach(queue, slot);
        // One that could not be entered is not there to be taken out.
        if refreshed.is_ok() { checked.and(detached) } else { checked }
    }

    fn is_gone(&self, queue: &mut Queue, slot: Slot) -> bool {
        check(queue, slot).is_err()
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        if self.is_gone(queue, slot) {
            return Outcome::Gone;
        }
        let Some(inner) = inner(queue, slot) else { return Outcome::Gone };
        // Only epoll's consent says that looking into it leads back to no lock that is held.
        match refresh_knote(queue, slot) {
            Ok(()) => {}
            Err(Errno::ELOOP) => return Outcome::Gone,
            Err(_) => {
                let _ = queue.look_again(slot, RETRY);
                return Outcome::NotReady;
            }
        }
        let Some((pending, version)) = inner.pending() else {
            let _ = queue.look_again(slot, AGAIN);
            return Outcome::NotReady;
        };
        let number = descriptor(queue.knotes[slot].ident).unwrap_or(-1);
        if let Some(watched) = queue.fds.kqueues.get_mut(&number) {
            watched.version = version;
        }
        let knote = &queue.knotes[slot];
        let told = knote.flags & EV_CLEAR != 0 && knote.fflags == version;
        if pending == 0 || told {
            return fd::unready(queue, slot, false);
        }
        let data = isize::try_from(pending).unwrap_or(isize::MAX);
        Outcome::Ready(Facts { data, again: true, ..Facts::default() })
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        let number = descriptor(queue.knotes[slot].ident).unwrap_or(-1);
        if let Some(watched) = queue.fds.kqueues.get(&number) {
            queue.knotes[slot].fflags = watched.version;
        }
        fd::settle(queue, slot, fate);
    }
}
