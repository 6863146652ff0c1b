//! EVFILT_EMPTY (FreeBSD, NetBSD): nothing is left in a socket's send buffer.
//!
//! SIOCOUTQ says how much is unsent (for TCP: unacknowledged). No kernel event says that
//! it became nothing, so while bytes are out the knote looks again every few
//! milliseconds, by a timer in the kqueue's heap; with nothing out no timer runs, since the
//! knote is ready. A listening socket is always empty; what is no socket is EINVAL.

use super::timers::NEVER;
use super::{Facts, Fate, Filter, Outcome, Queue, descriptor};
use crate::abi::Kevent;
use crate::errno::{Errno, Result};
use crate::knote::Slot;
use crate::sys::clock::Clock;
use crate::sys::file::{self, Sort};

/// The row of EVFILT_EMPTY; `own` is the index of the timer that looks again.
pub(crate) struct Empty;

/// How long until the next look, ns.
const AGAIN: u64 = 4_000_000;

impl Filter for Empty {
    fn on_descriptor(&self) -> bool {
        true
    }

    fn validate(&self, _change: &Kevent) -> Result<()> {
        Ok(())
    }

    fn attach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let fd = descriptor(queue.knotes[slot].ident)?;
        if file::sort(fd)? != Sort::Socket {
            return Err(Errno::EINVAL);
        }
        let inode = file::inode(fd)?;
        queue.timers.prepare(Clock::Monotonic, &queue.epoll.clone())?;
        let index = queue.timers.new_timer(slot, Clock::Monotonic, NEVER, 0);
        // The timer has no period of its own to count: its place holds the identity.
        queue.timers.get(index).reported = inode;
        queue.knotes[slot].own = index;
        queue.knotes.activate(slot);
        Ok(())
    }

    fn modify(&self, queue: &mut Queue, slot: Slot, change: &Kevent) -> Result<isize> {
        let knote = &mut queue.knotes[slot];
        knote.fflags = change.fflags;
        knote.data = change.data;
        let (index, fd) = (knote.own, descriptor(knote.ident)?);
        if file::inode(fd)? != queue.timers.get(index).reported {
            return Err(Errno::ENOENT);
        }
        if queue.knotes[slot].is_enabled() {
            queue.knotes.activate(slot);
        } else {
            queue.timers.stop(index);
        }
        Ok(0)
    }

    fn detach(&self, queue: &mut Queue, slot: Slot) -> Result<()> {
        let knote = queue.knotes[slot];
        let identity = queue.timers.get(knote.own).reported;
        queue.timers.delete(knote.own);
        if file::inode(descriptor(knote.ident)?)? == identity { Ok(()) } else { Err(Errno::ENOENT) }
    }

    fn deliver(&self, queue: &mut Queue, slot: Slot) -> Outcome {
        let knote = queue.knotes[slot];
        let Ok(fd) = descriptor(knote.ident) else { return Outcome::Gone };
        if file::inode(fd) != Ok(queue.timers.get(knote.own).reported) {
            return Outcome::Gone;
        }
        // A socket that has no send queue to ask for (a listener) has nothing in it.
        if file::unsent_bytes(fd).unwrap_or(0) == 0 {
            return Outcome::Ready(Facts { again: true, ..Facts::default() });
        }
        look_again(queue, slot);
        Outcome::NotReady
    }

    fn settle(&self, queue: &mut Queue, slot: Slot, fate: Fate) {
        if fate == Fate::Cleared {
            look_again(queue, slot);
        }
    }
}

fn look_again(queue: &mut Queue, slot: Slot) {
    let index = queue.knotes[slot].own;
    queue.timers.get(index).deadline = Clock::Monotonic.now().saturating_add(AGAIN);
    queue.timers.start(index);
}
